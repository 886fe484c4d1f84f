//! Conditions: what is looked at, read from one line and answered by a stage.
//!
//! ```text
//! /mxp1/fan4 duty == 100                          a value; also != > >= < <=
//! /mxp1/fan1 state unknown                        no policy may decide on it (and: known)
//! all /mxp1/fan* duty == 100                      each of them; `any`: at least one
//! alarm fan-failed on /mxp1/fan1                  also: alarm on /mxp1/fan1, alarm fan-failed on any /mxp1/fan*
//! no alarm fan-failed on /mxp1/fan1               also: no alarms
//! event /mxp1/slot3 reset                         something happens: an action, or a change
//! event /mxp1/slot3 state hung                    a change to that word
//! event /mxp1/fan1 alarm fan-failed acknowledged  what happens to an alarm
//! role of calls on n2 is active                   in a domain; also: standby, none
//! two actives of calls                            more than one node speaks for it; also: two actives
//! outage of calls > 60ms                          the longest time without an answer to its clients so far
//! ```
//!
//! Several are joined by `and`. A value that is unknown is neither equal to anything nor different from it.

mod read;

use std::fmt;
use std::sync::Arc;

use sixnines_core::class::number;
use sixnines_core::event::AlarmStep;
use sixnines_core::ids::{AttributeName, GroupName, NodeId, ObjectName};
use sixnines_core::time::Duration;
use sixnines_core::value::Value;

pub(crate) use read::{Reader, scalar, words};

use super::stage::{Occurrence, Stage, What};

/// Something that holds or not.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// As it stands in the file.
    pub text: String,
    /// All of them have to hold.
    pub terms: Vec<Term>,
}

/// One part of a condition.
#[derive(Clone, Debug, PartialEq)]
pub enum Term {
    /// Values of one attribute of some objects.
    Value {
        /// Of which; of all of them unless `any`.
        objects: Vec<ObjectName>,
        /// One of them is enough.
        any: bool,
        /// Which attribute.
        attribute: AttributeName,
        /// What about it.
        test: Test,
    },
    /// An alarm on some objects.
    Alarm {
        /// Which; `None`: any.
        kind: Option<Arc<str>>,
        /// On which: one is enough, none for `no`.
        objects: Vec<ObjectName>,
        /// It has to hold, or not.
        raised: bool,
    },
    /// No alarm anywhere.
    Quiet,
    /// Something that happens, and is over at once.
    Event {
        /// To what.
        object: ObjectName,
        /// Which attribute, action or alarm.
        attribute: AttributeName,
        /// To which word; `None`: whatever.
        word: Option<String>,
        /// What happens to the alarm.
        step: Option<AlarmStep>,
    },
    /// A node's role for a service.
    Role {
        /// Which service.
        service: GroupName,
        /// Which node.
        node: NodeId,
        /// Which role.
        role: RoleWord,
    },
    /// More than one node speaks for one of the services.
    Actives {
        /// Which services.
        services: Vec<GroupName>,
    },
    /// The longest time without an answer to a service's clients so far.
    Outage {
        /// Which service.
        service: GroupName,
        /// How to compare it.
        operator: Operator,
        /// With what.
        limit: Duration,
    },
}

/// A question about one value.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// A comparison.
    Is(Operator, Value),
    /// Nobody knows it.
    Unknown,
    /// Somebody does.
    Known,
}

/// How to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the operators")]
pub enum Operator {
    Equal,
    NotEqual,
    Above,
    AtLeast,
    Below,
    AtMost,
}

/// What a node is for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RoleWord {
    /// It serves.
    Active,
    /// It could take over.
    Standby,
    /// Neither.
    None,
}

impl RoleWord {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Standby => "standby",
            Self::None => "none",
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Condition {
    /// Whether it holds now, where `news` is what has happened since the last look.
    pub fn holds(&self, stage: &dyn Stage, news: &[Occurrence]) -> bool {
        self.terms.iter().all(|term| term.holds(stage, news))
    }

    /// Whether it is about something that is over at once.
    pub fn is_momentary(&self) -> bool {
        self.terms.iter().any(|term| matches!(term, Term::Event { .. }))
    }

    /// Whether it asks for roles.
    pub fn needs_roles(&self) -> bool {
        self.terms.iter().any(|term| matches!(term, Term::Role { .. } | Term::Actives { .. } | Term::Outage { .. }))
    }

    /// Whether it asks what only a simulated domain can tell: who speaks, and what clients see.
    pub fn needs_clients(&self) -> bool {
        self.terms.iter().any(|term| matches!(term, Term::Actives { .. } | Term::Outage { .. }))
    }

    /// How things are that it looks at, for who expected something else.
    pub fn explain(&self, stage: &dyn Stage) -> String {
        let texts: Vec<String> = self.terms.iter().map(|term| term.explain(stage)).collect();
        texts.join("; ")
    }
}

impl Term {
    fn holds(&self, stage: &dyn Stage, news: &[Occurrence]) -> bool {
        match self {
            Self::Value { objects, any, attribute, test } => {
                let mut each = objects.iter().map(|object| test.holds(stage.value(object, attribute).as_ref()));
                if *any { each.any(|holds| holds) } else { each.all(|holds| holds) }
            }
            Self::Alarm { kind, objects, raised } => {
                objects.iter().any(|object| stage.has_alarm(object, kind.as_deref())) == *raised
            }
            Self::Quiet => stage.alarms().is_empty(),
            Self::Event { object, attribute, word, step } => {
                news.iter().any(|o| o.object == *object && o.attribute == *attribute && is_meant(&o.what, word.as_deref(), *step))
            }
            Self::Role { service, node, role } => stage.role(service, *node) == Some(*role),
            Self::Actives { services } => services.iter().any(|service| stage.speakers(service).is_some_and(|speakers| speakers > 1)),
            Self::Outage { service, operator, limit } => {
                let seconds = |span: Duration| Value::Float(span.as_secs_f64());
                stage.outage(service).is_some_and(|outage| operator.holds(&seconds(outage), &seconds(*limit)))
            }
        }
    }

    fn explain(&self, stage: &dyn Stage) -> String {
        match self {
            Self::Value { objects, any, attribute, test } => {
                let value = |o: &ObjectName| stage.value(o, attribute);
                let wrong: Vec<String> = objects
                    .iter()
                    .filter(|o| objects.len() == 1 || *any || !test.holds(value(o).as_ref()))
                    .map(|o| format!("{o} {attribute} {}", value(o).map_or_else(|| "unknown".to_owned(), |v| v.to_string())))
                    .collect();
                few(&wrong, "all of them hold")
            }
            Self::Alarm { kind, objects, .. } => {
                let raised: Vec<String> =
                    objects.iter().filter(|o| stage.has_alarm(o, kind.as_deref())).map(ToString::to_string).collect();
                let what = kind.as_deref().unwrap_or("an alarm");
                if raised.is_empty() { format!("no {what}") } else { format!("{what} on {}", few(&raised, "")) }
            }
            Self::Quiet => few(&stage.alarms(), "no alarms"),
            Self::Event { .. } => "it did not happen".to_owned(),
            Self::Role { service, node, .. } => {
                format!("{node} is {} for {service}", stage.role(service, *node).map_or("unknown", RoleWord::word))
            }
            Self::Actives { services } => {
                let many = services.iter().filter(|service| stage.speakers(service).is_some_and(|speakers| speakers > 1));
                few(&many.map(|service| format!("two speak for {service}")).collect::<Vec<_>>(), "one at most speaks for each")
            }
            Self::Outage { service, .. } => match stage.outage(service) {
                Some(outage) => format!("clients of {service} waited {:.1} ms at most", outage.as_secs_f64() * 1e3),
                None => format!("{service} has no clients"),
            },
        }
    }
}

/// Four of them; a line has to be read.
fn few(list: &[String], none: &str) -> String {
    match list.len() {
        0 => none.to_owned(),
        1..=4 => list.join(", "),
        more => format!("{} and {} more", list[..3].join(", "), more - 3),
    }
}

fn is_meant(what: &What, word: Option<&str>, step: Option<AlarmStep>) -> bool {
    match (what, word) {
        (What::Alarm(kind, happened), word) => word.is_none_or(|w| w == &**kind) && step.is_none_or(|s| s == *happened),
        (_, None) => true,
        (What::Change(Some(value)) | What::Asked(Some(value)), Some(word)) => value.to_string() == word || plain(value) == word,
        (What::Change(None), Some(word)) => word == UNKNOWN,
        (What::Asked(None) | What::Other, Some(_)) => false,
    }
}

/// A number as people type it: `40` for 40.0.
fn plain(value: &Value) -> String {
    match value {
        Value::Float(x) => x.to_string(),
        other => other.to_string(),
    }
}

impl Test {
    /// Whether a value passes; `None` is an unknown one.
    pub fn holds(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            (Self::Unknown, value) => value.is_none(),
            (Self::Known, value) => value.is_some(),
            (Self::Is(..), None) => false,
            (Self::Is(operator, wanted), Some(value)) => operator.holds(value, wanted),
        }
    }
}

impl Operator {
    /// All of them with their signs, the longer first where one begins another.
    pub const ALL: [(&'static str, Self); 6] = [
        ("==", Self::Equal),
        ("!=", Self::NotEqual),
        (">=", Self::AtLeast),
        ("<=", Self::AtMost),
        (">", Self::Above),
        ("<", Self::Below),
    ];

    /// Whether it needs a number.
    pub fn orders(self) -> bool {
        !matches!(self, Self::Equal | Self::NotEqual)
    }

    fn holds(self, value: &Value, wanted: &Value) -> bool {
        let (Some(a), Some(b)) = (number(value), number(wanted)) else {
            let is_same = value.to_string() == wanted.to_string();
            return match self {
                Self::Equal => is_same,
                Self::NotEqual => !is_same,
                _ => false,
            };
        };
        match self {
            Self::Equal => (a - b).abs() < 1e-9,
            Self::NotEqual => (a - b).abs() >= 1e-9,
            Self::Above => a > b,
            Self::AtLeast => a >= b,
            Self::Below => a < b,
            Self::AtMost => a <= b,
        }
    }
}

/// The word for a value that nobody knows.
const UNKNOWN: &str = "unknown";
/// The word for one that somebody does.
const KNOWN: &str = "known";
