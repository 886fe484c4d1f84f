//! Replicated application state: a hot standby's memory equals the active's, so that a failover is a change of role.
//!
//! [`GroupCopy`] is the state of one group in one node's memory, a machine without I/O: the active's side streams records and
//! acknowledges what the whole in-sync set holds, the replica's side takes them in. `service` (feature `shell`) hosts the copies of
//! a node and the applications' sockets, [`App`] is what an application links.
//!
//! The rules are numbered in `protocol.md` 1 and 2 and cited where they are kept. This crate never decides a role: the control log
//! does, and its rows come in as inputs.

mod bytes;
pub mod config;
mod copy;
mod outcome;
mod primary;
mod replica;
mod state;
mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod wire;

pub use bytes::Bytes;
pub use config::CopyConfig;
pub use copy::{Follow, GroupCopy, Input, Output, Read, Role, Status, StatusPeer, Ticket, Write};
pub use outcome::{Answer, Cursor, Doubt, Level, Limit, Outcome, Refusal};
pub use state::{Change, Op, RequestId, Section, State};
pub use store::Record;
pub use wire::PeerFault;
