//! One step of a scenario: when, what is done, what has to come of it.

use std::sync::Arc;

use sixnines_core::bundle::Compiled;
use sixnines_core::diagnostic::Spot;
use sixnines_core::engine::CommandBody;
use sixnines_core::ids::{GroupName, NodeId};
use sixnines_core::time::Duration;
use sixnines_core::value::Update;

use super::condition::Condition;
use super::stage::Mend;
use crate::chassis::Injection;

/// One step.
#[derive(Clone, Debug)]
pub struct Step {
    /// Where it stands in the file.
    pub at: Spot,
    /// When it is carried out.
    pub trigger: Trigger,
    /// What is done, in this order.
    pub deeds: Vec<Deed>,
    /// What has to come of it.
    pub expectation: Option<Expectation>,
}

/// When a step is carried out. Times count from the scenario's beginning.
#[derive(Clone, Debug)]
pub enum Trigger {
    /// Once, at that time.
    At(Duration),
    /// When a condition holds, or each time that it begins to.
    When {
        /// Which.
        condition: Condition,
        /// So long after that.
        after: Duration,
        /// Looked at from then on.
        from: Duration,
        /// And no longer than until then.
        until: Duration,
        /// Each time that it begins to hold, and not only the first.
        again: bool,
    },
    /// Again and again.
    Every {
        /// So far apart.
        period: Duration,
        /// The first time.
        from: Duration,
        /// Not later than that.
        until: Duration,
    },
}

/// Something that is done.
#[derive(Clone, Debug)]
pub enum Deed {
    /// Breaks something in the chassis.
    Inject(Injection),
    /// Ends faults.
    Mend(Mend),
    /// A driver's reading of something that is not in the chassis: a processor, a disk, a service. It is repeated, as drivers do, until
    /// another one takes its place.
    Reading(Update),
    /// An operator's command.
    Command(CommandBody),
    /// What an operator asks of a domain.
    Ask(Wish),
    /// Other policies come into force.
    Apply {
        /// The files that differ, by name.
        files: Vec<String>,
        /// The whole.
        compiled: Arc<Compiled>,
    },
    /// The chassis gets another owner, which knows of the last one only what it had saved.
    Takeover,
}

/// What an operator asks of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A service moves.
    Switchover {
        /// Which.
        service: GroupName,
        /// Where to; `None`: to the best standby.
        to: Option<NodeId>,
    },
    /// A service goes on, although every complete copy of its state is gone.
    Start(GroupName),
    /// A node is the same node with another disk.
    Readmit(NodeId),
}

/// What has to come of something.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// What is looked at.
    pub condition: Condition,
    /// How it has to be.
    pub must: Must,
}

/// How a condition has to be. Times count from the moment at which the step is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Must {
    /// It holds at that moment.
    Hold,
    /// It holds at some time, at the latest after so long.
    Within(Duration),
    /// It holds all the time: for so long, or to the end.
    Always(Option<Duration>),
    /// It holds at no time: for so long, or to the end.
    Never(Option<Duration>),
}

impl Expectation {
    /// In the words of the file.
    pub fn text(&self) -> String {
        let lasting = |d: Option<Duration>| d.map(|d| format!(" for {}", shown(d))).unwrap_or_default();
        match self.must {
            Must::Hold => format!("expect {}", self.condition),
            Must::Within(limit) => format!("expect {} within {}", self.condition, shown(limit)),
            Must::Always(limit) => format!("always {}{}", self.condition, lasting(limit)),
            Must::Never(limit) => format!("never {}{}", self.condition, lasting(limit)),
        }
    }
}

impl Deed {
    /// In few words, for the story of a run.
    pub fn text(&self) -> String {
        match self {
            Self::Inject(injection) => {
                let lasting = injection.expires_after.map(|d| format!(" for {}", shown(d))).unwrap_or_default();
                format!("inject {}{lasting}", words(injection))
            }
            Self::Mend(Mend::All) => "clear all".to_owned(),
            Self::Mend(Mend::Like(injection)) => format!("clear {}", words(injection)),
            Self::Reading(update) => match &update.value {
                Some(value) => format!("reading {} {}={value}", update.object, update.attribute),
                None => format!("reading {} {}: none", update.object, update.attribute),
            },
            Self::Command(body) => command_text(body),
            Self::Ask(Wish::Switchover { service, to: None }) => format!("switchover {service}"),
            Self::Ask(Wish::Switchover { service, to: Some(to) }) => format!("switchover {service} to={to}"),
            Self::Ask(Wish::Start(service)) => format!("start {service}"),
            Self::Ask(Wish::Readmit(node)) => format!("readmit {node}"),
            Self::Apply { files, .. } => format!("apply {}", files.join(", ")),
            Self::Takeover => "another node takes the chassis over".to_owned(),
        }
    }
}

fn words(injection: &Injection) -> String {
    let parameters: String = injection.parameters.iter().map(|(name, value)| format!(" {name}={value}")).collect();
    format!("{}{parameters}", injection.fault)
}

fn command_text(body: &CommandBody) -> String {
    match body {
        CommandBody::Claim { object, control, value, .. } => format!("set {object} {control}={value}"),
        CommandBody::Release { object, control } => format!("set {object} {control}="),
        CommandBody::Operate { object, operation, .. } => format!("operate {object} {operation}"),
        CommandBody::Force { object, attribute, value, .. } => format!("force {object} {attribute}={value}"),
        CommandBody::Unforce { object, attribute } => format!("force {object} {attribute}="),
        CommandBody::Acknowledge { alarm, .. } => format!("ack {} {}", alarm.object, alarm.kind),
        CommandBody::Shelve { alarm, .. } => format!("shelve {} {}", alarm.object, alarm.kind),
        CommandBody::Unshelve { alarm } => format!("unshelve {} {}", alarm.object, alarm.kind),
        CommandBody::Raise { alarm, .. } => format!("raise {} {}", alarm.object, alarm.kind),
        CommandBody::Clear { alarm } => format!("clear {} {}", alarm.object, alarm.kind),
    }
}

/// A duration as a file writes it: `90s`, `2m`, `1h`, `250ms`.
pub(super) fn shown(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")];
    let unit = units.into_iter().find(|(each, _)| millis >= *each && millis.is_multiple_of(*each));
    let (each, word) = unit.unwrap_or((1, "ms"));
    format!("{}{word}", millis / each)
}
