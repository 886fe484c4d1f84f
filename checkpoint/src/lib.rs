//! Replicated application state: a hot standby's memory equals the active's, so that a failover is a change of role.
//!
//! [`GroupCopy`] is the state of one group in one node's memory, a machine without I/O: the active's side streams records and
//! acknowledges what the whole in-sync set holds, the replica's side takes them in. `service` (feature `shell`) hosts the copies of
//! a node and the applications' sockets, [`App`] is what an application links.
//!
//! The rules are numbered in `protocol.md` 1 and 2 and cited where they are kept. This crate never decides a role: the control log
//! does, and its rows come in as inputs.

mod bytes;
#[cfg(feature = "shell")]
mod clock;
pub mod config;
mod copy;
#[cfg(feature = "shell")]
pub mod guard;
mod outcome;
mod primary;
#[cfg(feature = "shell")]
mod protocol;
mod replica;
#[cfg(feature = "shell")]
mod sdk;
#[cfg(feature = "shell")]
pub mod service;
mod state;
mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod wire;

pub use bytes::Bytes;
pub use config::CopyConfig;
pub use copy::{Follow, GroupCopy, Input, Output, Read, Role, Status, StatusPeer, Ticket, Write};
pub use outcome::{Answer, Cursor, Doubt, Level, Limit, Outcome, Refusal};
#[cfg(feature = "shell")]
pub use protocol::Refused;
#[cfg(feature = "shell")]
pub use sdk::{App, Applied, Batch, Changed, Checkpoint, ConnectError, Pending, Protection, ReadError, Reading, Replication, Role as AppRole, Term, WriteError};
pub use state::{Change, Op, RequestId, Section, State};
pub use store::Record;
pub use wire::PeerFault;
