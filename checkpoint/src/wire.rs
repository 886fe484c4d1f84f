//! What copies of one group say to each other.
//!
//! A frame is two bytes (magic, format) and a postcard body. It names both lives, sender's and receiver's: the connection
//! that brought it knows only the nodes, and may be younger or older than the words (protocol 1.1). Bytes of peers are not trusted: a frame that cannot be
//! read, or that contradicts what is known, is a [`PeerFault`] and changes nothing.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sixnines_core::ids::{Epoch, Generation, Member, NodeId, Sequence};

use crate::bytes::Bytes;
use crate::outcome::Cursor;
use crate::state::{RequestId, Resume, Section};
use crate::store::{Record, Run};

const MAGIC: u8 = b'k';
const FORMAT: u8 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Frame {
    pub(crate) from: Member,
    pub(crate) to: Member,
    /// The highest epoch that the sender has seen.
    pub(crate) epoch: Epoch,
    pub(crate) body: Body,
}

/// Never renumber or remove a variant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Body {
    /// Replica: these positions I have and can be cut back to. Where do we part?
    Align { generation: Generation, runs: Vec<Run> },
    /// Active: cut off everything after this; from here on you get what you lack.
    Aligned { at: Cursor },
    /// Active: what follows `previous`; everything up to `held` is held by the whole set. Also empty, for `held` and `read`.
    Records { previous: Cursor, held: Sequence, read: u64, records: Vec<Arc<Record>> },
    /// Active: a part of the whole state.
    Chunk(Chunk),
    /// Replica: so much I have, under this epoch.
    Report(Report),
}

/// A part of a transfer: what the active had, at `as_of`, after `after`, up to and including `through`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chunk {
    /// Counts transfers within an epoch.
    pub(crate) transfer: u64,
    pub(crate) generation: Generation,
    /// Records after this one are sent beside the chunks.
    pub(crate) start: Cursor,
    pub(crate) index: u32,
    pub(crate) after: Resume,
    pub(crate) through: Resume,
    pub(crate) as_of: Cursor,
    pub(crate) sections: Vec<(Bytes, Section)>,
    pub(crate) requests: Vec<(Cursor, RequestId)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// `None` until this replica has been aligned under this epoch.
    pub(crate) cursor: Option<Cursor>,
    /// What it knows to be held by the whole set.
    pub(crate) held: Sequence,
    /// The newest question for confirmation of the epoch that was seen.
    pub(crate) read: u64,
    /// How far a transfer has come.
    pub(crate) transfer: Option<Progress>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) transfer: u64,
    /// Chunks taken.
    pub(crate) chunks: u32,
    pub(crate) through: Resume,
    /// Records taken beside them.
    pub(crate) applied: Cursor,
}

/// A peer said what it cannot have meant. The peer's fault; nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerFault {
    /// Not a frame of this format.
    #[error("{0} bytes are no checkpoint frame of format 1")]
    Unreadable(usize, #[source] Option<postcard::Error>),
    /// The frame is for another node, or names another one as its sender than the one that brought it.
    #[error("a frame from {from} to {to} was brought by {sender}")]
    Misdirected {
        /// Who it says wrote it.
        from: Member,
        /// For whom it is.
        to: Member,
        /// Who brought it.
        sender: NodeId,
    },
    /// It claims a position that cannot be.
    #[error("{from} speaks of {cursor}, which it cannot have")]
    Position {
        /// Who.
        from: Member,
        /// Which position.
        cursor: Cursor,
    },
    /// Two members claim one epoch.
    #[error("{from} speaks as the active of an epoch that is {active}'s")]
    TwoActives {
        /// Who.
        from: Member,
        /// Whose the epoch is.
        active: Member,
    },
    /// A change that no active with our limits would have made.
    #[error("{from} sent a change beyond the limits")]
    Limits {
        /// Who.
        from: Member,
    },
}

impl Frame {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let size = 64 + match &self.body {
            Body::Records { records, .. } => records.iter().map(|r| r.size()).sum(),
            Body::Chunk(chunk) => chunk.sections.iter().map(|(k, s)| k.len() + s.bytes.len() + 24).sum::<usize>() + chunk.requests.len() * 24,
            _ => 0,
        };
        let mut bytes = Vec::with_capacity(size);
        bytes.extend_from_slice(&[MAGIC, FORMAT]);
        postcard::to_extend(self, bytes).expect("a frame in memory has an encoding")
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, PeerFault> {
        let Some(body) = bytes.strip_prefix(&[MAGIC, FORMAT]) else { return Err(PeerFault::Unreadable(bytes.len(), None)) };
        match postcard::take_from_bytes(body) {
            Ok((frame, [])) => Ok(frame),
            Ok(_) => Err(PeerFault::Unreadable(bytes.len(), None)),
            Err(source) => Err(PeerFault::Unreadable(bytes.len(), Some(source))),
        }
    }
}


#[cfg(test)]
mod tests;
