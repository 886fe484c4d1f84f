//! What is known about a write or a read. It never says more than that (protocol 2.3).

use serde::{Deserialize, Serialize};
use sixnines_core::ids::{Epoch, Sequence};

use crate::state::Section;

/// A position in a group's records. Sequences of different epochs are never compared by number alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cursor {
    /// The epoch in which the record was written.
    pub epoch: Epoch,
    /// Its number; counts on from the records that the active of that epoch inherited.
    pub sequence: Sequence,
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.epoch, self.sequence)
    }
}

/// When a write counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    /// When every copy of the in-sync set holds it, and the set has at least this many (and the group's floor).
    Replicated {
        /// 0: the group's own floor.
        floor: u8,
    },
    /// At once; it may be lost with this node, and the loss window counts it.
    Async,
}

impl Default for Level {
    fn default() -> Self {
        Self::Replicated { floor: 0 }
    }
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Every copy of the in-sync set holds it: it outlives the active.
    Applied {
        /// Where it stands.
        cursor: Cursor,
        /// How many copies the committed set has.
        copies: u8,
        /// Whether these are as many as are wanted; if not, the next fault may lose it.
        protected: bool,
    },
    /// It is in the active's copy, and on its way to the others.
    Async {
        /// Where it stands.
        cursor: Cursor,
    },
    /// Nothing was changed.
    NotApplied(Refusal),
    /// It may have been applied or not. A repeat with the same request id finds out.
    Unknown(Doubt),
}

/// Why nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The role is over.
    #[error("fenced by epoch {by}")]
    Fenced {
        /// The epoch in force.
        by: Epoch,
    },
    /// The role is being handed over.
    #[error("the role is being handed over")]
    Quiescing,
    /// Too few copies for the floor.
    #[error("{copies} copies, the floor is {floor}")]
    TooFewCopies {
        /// In the committed set and reachable.
        copies: u8,
        /// Asked for.
        floor: u8,
    },
    /// A limit is reached.
    #[error("no space: {0}")]
    NoSpace(Limit),
    /// A section was not as expected.
    #[error("step {index} of the batch expected another version")]
    Conflict {
        /// Which step of the batch.
        index: usize,
    },
}

/// Why it is not known whether a write was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Doubt {
    /// The role ended before every copy held it.
    #[error("fenced by epoch {by} before every copy held it")]
    Fenced {
        /// The epoch in force.
        by: Epoch,
    },
    /// It is in the active's copy, but the floor was not reached in time.
    #[error("{copies} copies hold it, the floor is {floor}")]
    TooFewCopies {
        /// In the committed set.
        copies: u8,
        /// Asked for.
        floor: u8,
    },
    /// The connection to the node ended before the answer.
    #[error("the node's service went away before it answered")]
    Disconnected,
}

/// A bound of [`crate::config::Limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Limit {
    /// Sections in all.
    #[error("too many sections")]
    Sections,
    /// Bytes of a key.
    #[error("the key is too long")]
    KeyBytes,
    /// Bytes of a section.
    #[error("the section is too large")]
    SectionBytes,
    /// Bytes of all sections.
    #[error("the checkpoint is full")]
    Bytes,
    /// Bytes of a batch.
    #[error("the batch is too large")]
    BatchBytes,
    /// Writes and reads in flight.
    #[error("too much is waiting for copies")]
    Waiting,
    /// Bytes that not every copy holds.
    #[error("the standby is too far behind")]
    Unheld,
}

/// A read section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// What every copy of the in-sync set holds.
    Section {
        /// The section, if it is there.
        section: Option<Section>,
        /// Whether it is known to be no older than the question; if not, there may be a newer active.
        fresh: bool,
    },
    /// Nobody can say here.
    Refused(Refusal),
}
