//! What openraft is told about us: ids, commands, answers, and the runtime it runs on.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use openraft::impls::{BoxedErrorSource, InlineBatch, ProgressResponder, leader_id_adv};
use openraft::{AsyncRuntime, EntryPayload, OptionalSend, RaftTypeConfig};
use serde::{Deserialize, Serialize};
use sixnines_core::domain::Void;
use sixnines_core::ids::NodeId;

/// The types of one control log on runtime `R`.
pub(crate) struct Types<R>(PhantomData<fn() -> R>);

/// Who leads: two leaders may follow each other within one term, which with three voters makes elections shorter.
pub(crate) type LeaderId = leader_id_adv::LeaderId<u64, NodeId>;
pub(crate) type LogId = openraft::LogId<LeaderId>;
pub(crate) type Vote = openraft::Vote<LeaderId>;
pub(crate) type Payload = EntryPayload<Command, NodeId, Seat>;
pub(crate) type RaftEntry = openraft::Entry<LeaderId, Payload>;
pub(crate) type Membership = openraft::Membership<NodeId, Seat>;
pub(crate) type StoredMembership = openraft::StoredMembership<LeaderId, NodeId, Seat>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<LeaderId, NodeId, Seat>;

/// What the membership knows of a node besides its id: the disk that its vote and log are on. 0: not known yet.
///
/// A node that comes back with another disk may have forgotten a vote or an entry: nothing is taken from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seat {
    pub(crate) disk: u64,
}

/// A command's bytes, as `Proposal::encode` made them; read only where they are appended and applied.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Command(pub(crate) Arc<[u8]>);

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.0.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What the state machine says to the proposer: why the entry did nothing, if so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer(pub(crate) Option<Void>);

impl<R: AsyncRuntime> RaftTypeConfig for Types<R> {
    type D = Command;
    type R = Answer;
    type NodeId = NodeId;
    type Node = Seat;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = RaftEntry;
    type AsyncRuntime = R;
    type Responder<T>
        = ProgressResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}

// By hand, because a derive would ask the runtime for all of this too.
impl<R> Clone for Types<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Types<R> {}

impl<R> fmt::Debug for Types<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Types")
    }
}

impl<R> Default for Types<R> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<R> PartialEq for Types<R> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<R> Eq for Types<R> {}

impl<R> PartialOrd for Types<R> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<R> Ord for Types<R> {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}
