//! What an attribute holds, how far it can be trusted, and what drivers and the core loop say to each other about it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{AttributeName, EventId, Epoch, Identity, ObjectName};

/// The value of one attribute. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// A whole number, in the unit that the class declares.
    Int(i64),
    /// A number, in the unit that the class declares. Never NaN: drivers report `missing` instead.
    Float(f64),
    /// Free text.
    Text(Arc<str>),
    /// One of the words that the class declares.
    Enum(Arc<str>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(b) => write!(f, "{b}"),
            Self::Int(n) => write!(f, "{n}"),
            Self::Float(x) => write!(f, "{x:.1}"),
            Self::Text(t) | Self::Enum(t) => f.write_str(t),
        }
    }
}

/// How far a value can be trusted. Unknown is never shown as good, zero, or the last value without its age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quality {
    /// Read from the thing itself, in time.
    Good,
    /// The last good value, older than the class allows.
    Stale,
    /// The thing says that it has no such value (absent, not populated).
    #[default]
    Missing,
    /// The read failed.
    Failed,
    /// An operator holds it at this value.
    Forced,
    /// From a simulator.
    Simulated,
}

impl Quality {
    /// Whether a policy may decide on the value.
    pub fn is_usable(self) -> bool {
        matches!(self, Self::Good | Self::Forced | Self::Simulated)
    }
}

/// A driver's reading of one attribute. Drivers do not judge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Update {
    /// Where.
    pub object: ObjectName,
    /// Which attribute.
    pub attribute: AttributeName,
    /// The value; `None` unless the quality says that there is one.
    pub value: Option<Value>,
    /// How far to trust it.
    pub quality: Quality,
    /// The thing in that place, where the driver knows it.
    pub identity: Option<Identity>,
    /// The event that caused the action whose result this is.
    pub cause: Option<EventId>,
}

/// A request to a driver. It has a cause, always, and the epoch under which the object's owner asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The event that is this request's intent; a repeat bears the same one.
    pub id: EventId,
    /// Where.
    pub object: ObjectName,
    /// Which control of the object's class (`duty`, `power`), or an operation (`reset`).
    pub control: AttributeName,
    /// The value to set; `None` for an operation.
    pub value: Option<Value>,
    /// The owner's epoch: a sink that can check refuses lower ones than it has seen.
    pub epoch: Epoch,
}

/// What became of a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The device took it.
    Done,
    /// The device or driver refused it; nothing changed.
    Refused(String),
    /// The sink has seen a higher epoch; nothing changed.
    Fenced {
        /// The epoch that it has seen.
        by: Epoch,
    },
    /// Sent, and no answer: it may have happened.
    Unknown,
}
