//! Events: what changed, where, how good the value is, and what led to it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::alarms::Severity;
use crate::ids::{AttributeName, ClassName, Epoch, EventId, GroupName, Identity, ObjectName};
use crate::time::{HybridTime, WallTime};
use crate::value::{Outcome, Quality, Value};

/// One change of one attribute, or of one alarm, claim, action.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Who numbered it, in which life, and the how manieth.
    pub id: EventId,
    /// Where.
    pub object: ObjectName,
    /// What it is.
    pub class: ClassName,
    /// Which attribute or control; [`crate::class::ALARM`] for alarms.
    pub attribute: AttributeName,
    /// Before. `None`: there was no usable value.
    pub old: Option<Value>,
    /// Now. `None`: there is no usable value.
    pub new: Option<Value>,
    /// How far the new value can be trusted.
    pub quality: Quality,
    /// [`Severity::Cleared`] unless it is an alarm.
    pub severity: Severity,
    /// What led to it; `None` for a first event.
    pub cause: Option<EventId>,
    /// Where the chain of causes begins; its own id for a first event.
    pub root: EventId,
    /// When, ordered across nodes.
    pub time: HybridTime,
    /// The receiver's wall time, if the origin's stamp was too far ahead to be adopted (protocol 8.4).
    pub received: Option<WallTime>,
    /// The group whose active owns the object; `None` for an object that a node owns by itself.
    pub group: Option<GroupName>,
    /// The owner's epoch.
    pub epoch: Epoch,
    /// The thing in that place, where it is known.
    pub identity: Option<Identity>,
    /// Evidence, for people: `5 missed, all links`.
    pub why: Arc<str>,
    /// The line of policy that acted.
    pub policy: Option<PolicyLine>,
    /// What kind of change.
    pub body: Body,
}

/// A place in a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PolicyLine {
    /// The file, such as `fan.rhai`.
    pub file: Arc<str>,
    /// From 1.
    pub line: u32,
    /// From 1.
    pub column: u32,
}

impl std::fmt::Display for PolicyLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// What kind of change an event is.
///
/// Never renumber or remove a variant: journals bear them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Body {
    /// An attribute has another value or quality.
    Change,
    /// An alarm came, went or was handled.
    Alarm {
        /// Its type, from the catalogue.
        kind: Arc<str>,
        /// Tells alarms of one type on one object apart; usually empty.
        qualifier: Arc<str>,
        /// What happened to it.
        step: AlarmStep,
    },
    /// Somebody has a hold on a control.
    Claimed {
        /// Who.
        by: Arc<str>,
        /// How strong.
        priority: i32,
    },
    /// Somebody gave up his hold on a control.
    Released {
        /// Who.
        by: Arc<str>,
    },
    /// A request to a driver is about to go out; the event's id is the request's id.
    Intent {
        /// Whether it may happen once only (a reset), and not again by a successor.
        edge: bool,
    },
    /// What became of a request.
    Outcome(Outcome),
    /// Roles are asked to change; the event's id is the action's cause.
    Control,
    /// Somebody asked for something (CLI, SDK, API, peer).
    Command {
        /// Who.
        principal: Arc<str>,
    },
    /// A policy wrote a line.
    Log,
}

/// What happened to an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlarmStep {
    /// It holds.
    Raised,
    /// It is over.
    Cleared,
    /// It comes and goes too often to be told each time.
    Unstable,
    /// It has settled.
    Settled,
    /// A failed parent explains it: counted there, not shown.
    Suppressed,
    /// Its parent works again and it still holds.
    Shown,
    /// The new owner cannot confirm it.
    Stale,
    /// Somebody has seen it.
    Acknowledged,
    /// Somebody has put it aside for a while.
    Shelved,
    /// The while is over.
    Unshelved,
}

impl AlarmStep {
    /// Every step there is, for whoever reads one from its word.
    pub const ALL: [Self; 10] = [
        Self::Raised,
        Self::Cleared,
        Self::Unstable,
        Self::Settled,
        Self::Suppressed,
        Self::Shown,
        Self::Stale,
        Self::Acknowledged,
        Self::Shelved,
        Self::Unshelved,
    ];

    /// Its word, as policies and people read it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Raised => "raised",
            Self::Cleared => "cleared",
            Self::Unstable => "unstable",
            Self::Settled => "settled",
            Self::Suppressed => "suppressed",
            Self::Shown => "shown",
            Self::Stale => "stale",
            Self::Acknowledged => "acknowledged",
            Self::Shelved => "shelved",
            Self::Unshelved => "unshelved",
        }
    }
}
