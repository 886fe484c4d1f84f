//! The catalogue of alarms: nothing can raise an alarm that does not stand in it.
//!
//! Severities, alarm types and fields follow ITU-T X.733. The same file writes manual, MIB and explanations.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::config::{Data, Fields, Key, Node};
use crate::diagnostic::{Diagnostic, Diagnostics, Source, Spot, suggestion};
use crate::time::Duration;

/// X.733 perceived severity, ordered upward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Nothing is wrong (any more); also every event that is no alarm.
    #[default]
    Cleared,
    /// It cannot be told how bad it is.
    Indeterminate,
    /// Could become a fault.
    Warning,
    /// A fault that does not touch the service.
    Minor,
    /// The service or its redundancy suffers.
    Major,
    /// The service is lost or about to be.
    Critical,
}

/// The words of [`Severity`], in its order.
pub const SEVERITIES: [&str; 6] = ["cleared", "indeterminate", "warning", "minor", "major", "critical"];

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(SEVERITIES[*self as usize])
    }
}

impl FromStr for Severity {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        const ALL: [Severity; 6] =
            [Severity::Cleared, Severity::Indeterminate, Severity::Warning, Severity::Minor, Severity::Major, Severity::Critical];
        SEVERITIES.iter().position(|s| *s == text).map(|i| ALL[i]).ok_or(())
    }
}

/// What one type of alarm means.
#[derive(Clone, Debug, PartialEq)]
pub struct AlarmClass {
    /// Its name, such as `fan-failed`.
    pub name: String,
    /// One sentence about what is wrong.
    pub text: String,
    /// How bad it is.
    pub severity: Severity,
    /// X.733 alarm type, one of [`ALARM_TYPES`].
    pub alarm_type: String,
    /// X.733 probable cause, free text.
    pub probable_cause: String,
    /// What somebody should do.
    pub proposed_repair: String,
    /// It is raised only after it has been true for so long.
    pub raise_after: Duration,
    /// It is cleared only after it has been untrue for so long.
    pub clear_after: Duration,
    /// Where it is declared.
    pub at: Spot,
}

/// X.733 section 8.1.1, spelled as in the file.
pub const ALARM_TYPES: [&str; 5] = ["communications", "quality-of-service", "processing-error", "equipment", "environmental"];

/// Alarms that the engine raises by itself; the catalogue has them even if the file does not.
pub mod builtin {
    /// A handler failed or ran out of its budget.
    pub const POLICY_FAILED: &str = "policy-failed";
    /// A driver refused an action, or did not answer, and the action is repeated.
    pub const CONTROL_FAILED: &str = "control-failed";
    /// A restart, reset or power cycle was asked for, and nobody knows whether it happened.
    pub const ACTION_OUTCOME_UNKNOWN: &str = "action-outcome-unknown";
    /// A peer's clock is far from ours.
    pub const CLOCK_OFFSET: &str = "clock-offset";
    /// Events of one object caused each other until the bound.
    pub const CASCADE: &str = "cascade-stopped";
}

/// Every alarm type there is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalogue {
    types: BTreeMap<String, AlarmClass>,
}

impl Catalogue {
    /// The alarms that the engine raises by itself.
    pub fn builtin() -> Self {
        let rows = [
            (builtin::POLICY_FAILED, Severity::Major, "A policy failed; the class's fallback acts instead", "nines policy check, then nines policy rollback"),
            (builtin::CONTROL_FAILED, Severity::Major, "An action on hardware does not succeed", "check the driver and the device"),
            (builtin::ACTION_OUTCOME_UNKNOWN, Severity::Major, "Nobody knows whether an action has happened", "look at the device, then acknowledge"),
            (builtin::CLOCK_OFFSET, Severity::Warning, "A peer's clock is more than 500 ms ahead", "check time synchronisation of both nodes"),
            (builtin::CASCADE, Severity::Major, "Events caused each other without end", "nines why, then correct the policy"),
        ];
        let types = rows.into_iter().map(|(name, severity, text, repair)| {
            let class = AlarmClass {
                name: name.to_owned(),
                text: text.to_owned(),
                severity,
                alarm_type: "processing-error".to_owned(),
                probable_cause: "software error".to_owned(),
                proposed_repair: repair.to_owned(),
                raise_after: Duration::ZERO,
                clear_after: Duration::ZERO,
                at: Spot::default(),
            };
            (name.to_owned(), class)
        });
        Self { types: types.collect() }
    }

    /// Reads a catalogue on top of the built-in one.
    pub fn read(source: Source<'_>, root: &Node, out: &mut Diagnostics) -> Self {
        let mut catalogue = Self::builtin();
        let mut fields = Fields::new(source, "the alarm catalogue", root, out);
        fields.elsewhere(&[("severity", "under the alarm's name, under `alarms`"), ("text", "under the alarm's name, under `alarms`")]);
        let alarms = fields.require("alarms", out);
        fields.finish(out);
        match alarms.map(|a| (a, &a.data)) {
            Some((_, Data::Map(entries))) => {
                for (key, node) in entries {
                    let class = read_alarm(source, key, node, out);
                    catalogue.types.insert(key.text.clone(), class);
                }
            }
            Some((node, _)) => {
                let message = format!("`alarms` is a map from an alarm's name to its fields, this is {}", node.describe());
                out.push(Diagnostic::error("wrong-type", message).at(source, node.at));
            }
            None => {}
        }
        catalogue
    }

    /// One type.
    pub fn get(&self, name: &str) -> Option<&AlarmClass> {
        self.types.get(name)
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.types.keys().map(String::as_str)
    }

    /// All types, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &AlarmClass> {
        self.types.values()
    }
}

fn read_alarm(source: Source<'_>, key: &Key, node: &Node, out: &mut Diagnostics) -> AlarmClass {
    let what = format!("alarm {}", key.text);
    let mut fields = Fields::new(source, what, node, out);
    let severity = match fields.require("severity", out) {
        None => Severity::Indeterminate,
        Some(node) => {
            let word = node.scalar().unwrap_or_default();
            word.parse().ok().filter(|s| *s != Severity::Cleared).unwrap_or_else(|| {
                out.push(
                    Diagnostic::error("unknown-value", format!("{} is no severity", node.describe()))
                        .at(source, node.at)
                        .help_if(suggestion(&word, SEVERITIES[1..].iter().copied())),
                );
                Severity::Indeterminate
            })
        }
    };
    let alarm_type = match fields.take("type") {
        None => "equipment".to_owned(),
        Some(node) => {
            let word = node.scalar().unwrap_or_default();
            if !ALARM_TYPES.contains(&word.as_str()) {
                out.push(
                    Diagnostic::error("unknown-value", format!("{} is no X.733 alarm type", node.describe()))
                        .at(source, node.at)
                        .help_if(suggestion(&word, ALARM_TYPES)),
                );
            }
            word
        }
    };
    let text = fields.require("text", out).and_then(Node::scalar).unwrap_or_default();
    let class = AlarmClass {
        name: key.text.clone(),
        text,
        severity,
        alarm_type,
        probable_cause: fields.text("cause", out).unwrap_or_default(),
        proposed_repair: fields.text("repair", out).unwrap_or_default(),
        raise_after: fields.duration("raise_after", out).unwrap_or_default(),
        clear_after: fields.duration("clear_after", out).unwrap_or_default(),
        at: key.at,
    };
    fields.finish(out);
    class
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn a_catalogue_says_all_that_is_wrong_at_once() {
        let text = "alarms:\n  a: { severity: mayor, text: x }\n  b: { text: y, holdoff: 3s }\n  c: { severity: minor, text: z, raise_after: 5 }\n";
        let source = Source { name: "alarms.yaml", text };
        let mut out = Diagnostics::default();
        let root = parse(source).expect("good YAML");
        Catalogue::read(source, &root, &mut out);
        let found: Vec<String> = out.into_sorted().iter().map(|d| format!("{} {}", d.code, d.place.as_ref().map_or(0, |p| p.line))).collect();
        assert_eq!(found, ["unknown-value 2", "missing-field 3", "unknown-field 3", "wrong-type 4"]);
    }

    #[test]
    fn severities_are_ordered_upward_and_parse_as_they_print() {
        assert!(Severity::Critical > Severity::Major && Severity::Warning > Severity::Cleared);
        for word in SEVERITIES {
            assert_eq!(word.parse::<Severity>().expect("own word").to_string(), word);
        }
    }
}
