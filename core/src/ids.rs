//! One type per kind of number or name. A bare `u64` in a signature is a mistake waiting to happen.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes the text as it is.
            pub fn new(text: impl AsRef<str>) -> Self {
                Self(Arc::from(text.as_ref()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

/// A node of the domain, 1 to 32. Also the stable voter id in the control log. Prints as `n3`. From 100 up it is a node of a neighbour, see
/// [`crate::abroad`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u16);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("n{}", self.0))
    }
}

impl FromStr for NodeId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        text.strip_prefix('n')
            .and_then(|n| n.parse().ok())
            .map(Self)
            .ok_or_else(|| BadId::new(text, "a node, such as n3"))
    }
}

number! {
    /// One life of a node: the control log's index of its `Joined` entry, so that an old disk cannot repeat one. 0: not joined.
    Incarnation(u64)
}
number! {
    /// Grows with each change of a group's active; whoever has seen a higher one is fenced for the lower.
    Epoch(u64)
}
number! {
    /// Counts every change of a group's row in the control log; each entry names the version it was made for.
    Version(u64)
}
number! {
    /// Counts how often a group was started from nothing (its state declared lost).
    Generation(u64)
}
number! {
    /// Position of an entry in the control log.
    LogIndex(u64)
}
number! {
    /// Position of a write in a checkpoint; meaningful only together with its epoch.
    Sequence(u64)
}
number! {
    /// A network path between nodes: 0 is fabric A, 1 is fabric B.
    LinkId(u8)
}

name! {
    /// A service group, such as `calls`, or `chassis:mxp1` for the ownership of a chassis.
    GroupName
}
name! {
    /// A place: a path such as `/mxp1/fan3`. Its identity is the thing that sits there.
    ObjectName
}
name! {
    /// A class of managed objects, such as `fan`.
    ClassName
}
name! {
    /// An attribute within a class, such as `speed`.
    AttributeName
}
name! {
    /// A chassis, such as `mxp1`.
    ChassisName
}
name! {
    /// The thing itself (FRU serial): history follows it from place to place.
    Identity
}

/// One copy of state: a node in one of its lives. The node alone is never enough (protocol 1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// Its life.
    pub incarnation: Incarnation,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node, self.incarnation)
    }
}

/// An event's id: who numbered it, in which life, and the how manieth. Prints as `n3.1.990`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventId {
    /// The node whose core loop numbered it.
    pub node: NodeId,
    /// That node's life.
    pub incarnation: Incarnation,
    /// Counts from 1 within the life, without holes.
    pub sequence: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{}.{}", self.node, self.incarnation, self.sequence))
    }
}

impl FromStr for EventId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId::new(text, "an event id, such as n3.1.990");
        let mut parts = text.split('.');
        let (Some(node), Some(incarnation), Some(sequence), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        Ok(Self {
            node: node.parse().map_err(|_| bad())?,
            incarnation: Incarnation(incarnation.parse().map_err(|_| bad())?),
            sequence: sequence.parse().map_err(|_| bad())?,
        })
    }
}

/// A text that is not an id. The operator's mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct BadId {
    text: String,
    expected: &'static str,
}

impl BadId {
    fn new(text: &str, expected: &'static str) -> Self {
        Self { text: text.to_owned(), expected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_ids_print_as_they_parse() {
        let id = EventId { node: NodeId(3), incarnation: Incarnation(1), sequence: 990 };
        assert_eq!(id.to_string(), "n3.1.990");
        assert_eq!("n3.1.990".parse(), Ok(id));
        for bad in ["", "n3", "3.1.990", "n3.1.990.4", "n3.x.1", "nines"] {
            assert!(bad.parse::<EventId>().is_err(), "{bad}");
        }
    }
}
