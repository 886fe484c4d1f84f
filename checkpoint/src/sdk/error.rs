//! What the SDK says when something is not as wished. Each text tells what is known to have happened.

use std::io;
use std::path::PathBuf;

use sixnines_core::ids::Epoch;

use crate::outcome::{Cursor, Doubt, Limit, Outcome, Refusal};
use crate::protocol::Refused;

/// Why there is no connection to the node. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The process was not started by a node.
    #[error("{variable} is not set: was this process started by a node?")]
    Environment {
        /// What is missing.
        variable: &'static str,
    },
    /// Nobody answers at the socket.
    #[error("no checkpoint service answers at {path}")]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// The last reason.
        #[source]
        source: io::Error,
    },
    /// The service does not want this process.
    #[error("the checkpoint service refused")]
    Refused(#[source] Refused),
    /// The service speaks another language.
    #[error("what answers at {path} is no checkpoint service")]
    Protocol {
        /// The socket.
        path: PathBuf,
    },
    /// No thread could be started.
    #[error("could not start the checkpoint thread")]
    Thread(#[source] io::Error),
    /// A name that no checkpoint can have.
    #[error("a checkpoint's name has 1 to 64 bytes and no zero byte: {name:?}")]
    Name {
        /// As given.
        name: String,
    },
}

/// A write that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Where it stands.
    pub cursor: Cursor,
    /// How safe it is.
    pub protection: Protection,
}

/// How safe a write is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Every wanted copy holds it.
    Replicated {
        /// How many.
        copies: u8,
    },
    /// Fewer copies than wanted hold it: the next fault may lose it.
    Unprotected {
        /// How many.
        copies: u8,
    },
    /// It is in the active's copy, and on its way to the others.
    Async,
}

/// Why a write is not done. [`Self::is_unknown`] separates what was certainly not applied from what may have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The term is over. Not applied.
    #[error("not applied: fenced by epoch {by_epoch}")]
    Fenced {
        /// The epoch in force, as far as it is known.
        by_epoch: Epoch,
    },
    /// The role is being handed over. Not applied.
    #[error("not applied: the role is being handed over")]
    Quiescing,
    /// Too few copies for the floor. Not applied.
    #[error("not applied: {copies} copies, the floor is {floor}")]
    TooFewCopies {
        /// How many there are.
        copies: u8,
        /// How many it takes.
        floor: u8,
    },
    /// A limit is reached. Not applied.
    #[error("not applied: {0}")]
    NoSpace(Limit),
    /// A section was not as the batch expected. Not applied.
    #[error("not applied: step {step} of the batch expected another version")]
    Conflict {
        /// Which step.
        step: usize,
    },
    /// It may have been applied or not; a repeat with the same request id finds out.
    #[error("unknown whether it was applied: {0}")]
    Unknown(Doubt),
}

impl WriteError {
    /// Whether the write may have been applied all the same.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }
}

/// Why a read has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The term is over.
    #[error("fenced by epoch {by_epoch}")]
    Fenced {
        /// The epoch in force, as far as it is known.
        by_epoch: Epoch,
    },
    /// Too much is waiting.
    #[error("{0}")]
    NoSpace(Limit),
    /// The connection ended before the answer.
    #[error("the node's service went away before it answered")]
    Disconnected,
}

impl From<Outcome> for Result<Applied, WriteError> {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Applied { cursor, copies, protected: true } => Ok(Applied { cursor, protection: Protection::Replicated { copies } }),
            Outcome::Applied { cursor, copies, protected: false } => Ok(Applied { cursor, protection: Protection::Unprotected { copies } }),
            Outcome::Async { cursor } => Ok(Applied { cursor, protection: Protection::Async }),
            Outcome::NotApplied(refusal) => Err(refusal.into()),
            Outcome::Unknown(doubt) => Err(WriteError::Unknown(doubt)),
        }
    }
}

impl From<Refusal> for WriteError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Fenced { by } => Self::Fenced { by_epoch: by },
            Refusal::Quiescing => Self::Quiescing,
            Refusal::TooFewCopies { copies, floor } => Self::TooFewCopies { copies, floor },
            Refusal::NoSpace(limit) => Self::NoSpace(limit),
            Refusal::Conflict { index } => Self::Conflict { step: index },
        }
    }
}
