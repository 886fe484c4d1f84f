//! Votes, log ids, entries and memberships as they stand on disk and on the wire.
//!
//! Plain structs of our own, so that another version of the Raft library changes neither. Never reorder or remove a field or variant:
//! a change is a new format number of the file or frame that bears it (protocol 6.3).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sixnines_core::ids::NodeId;

use super::types::{self, Command, Seat};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Vote {
    pub(crate) term: u64,
    pub(crate) node: NodeId,
    pub(crate) committed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct LogId {
    pub(crate) term: u64,
    pub(crate) node: NodeId,
    pub(crate) index: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogEntry {
    pub(crate) id: LogId,
    pub(crate) payload: Payload,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Payload {
    Blank,
    Command(Arc<[u8]>),
    Membership(Membership),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Membership {
    /// One set of voters, or two while the membership changes.
    pub(crate) voters: Vec<BTreeSet<NodeId>>,
    /// All nodes, voters or not, with their disks.
    pub(crate) nodes: BTreeMap<NodeId, u64>,
}

impl LogEntry {
    /// Whether its membership, if it has one, is one.
    pub(crate) fn is_whole(&self) -> bool {
        !matches!(&self.payload, Payload::Membership(m) if m.nodes.is_empty() || !m.is_whole())
    }
}

/// The bytes of one of these.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("plain values have an encoding")
}

/// Reads one of these, and nothing may follow it.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Some(value),
        _ => None,
    }
}

impl From<types::Vote> for Vote {
    fn from(v: types::Vote) -> Self {
        Self { term: v.leader_id.term, node: v.leader_id.node_id, committed: v.committed }
    }
}

impl From<Vote> for types::Vote {
    fn from(v: Vote) -> Self {
        Self { leader_id: types::LeaderId { term: v.term, node_id: v.node }, committed: v.committed }
    }
}

impl From<types::LogId> for LogId {
    fn from(id: types::LogId) -> Self {
        Self { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
    }
}

impl From<LogId> for types::LogId {
    fn from(id: LogId) -> Self {
        Self { leader_id: types::LeaderId { term: id.term, node_id: id.node }, index: id.index }
    }
}

impl From<types::RaftEntry> for LogEntry {
    fn from(entry: types::RaftEntry) -> Self {
        let payload = match entry.payload {
            types::Payload::Blank => Payload::Blank,
            types::Payload::Normal(command) => Payload::Command(command.0),
            types::Payload::Membership(membership) => Payload::Membership(Membership::from(&membership)),
        };
        Self { id: entry.log_id.into(), payload }
    }
}

impl From<LogEntry> for types::RaftEntry {
    fn from(entry: LogEntry) -> Self {
        let payload = match entry.payload {
            Payload::Blank => types::Payload::Blank,
            Payload::Command(bytes) => types::Payload::Normal(Command(bytes)),
            Payload::Membership(membership) => types::Payload::Membership(membership.into()),
        };
        Self { log_id: entry.id.into(), payload }
    }
}

impl From<&types::Membership> for Membership {
    fn from(membership: &types::Membership) -> Self {
        Self {
            voters: membership.get_joint_config().clone(),
            nodes: membership.nodes().map(|(node, seat)| (*node, seat.disk)).collect(),
        }
    }
}

impl Membership {
    /// Whether each voter is a node, and there are voters if there are nodes. Whoever reads one asks this first.
    pub(crate) fn is_whole(&self) -> bool {
        self.voters.iter().flatten().all(|v| self.nodes.contains_key(v))
            && self.voters.len() <= 2
            && self.voters.iter().all(|set| !set.is_empty())
            && self.voters.is_empty() == self.nodes.is_empty()
    }
}

impl From<Membership> for types::Membership {
    fn from(membership: Membership) -> Self {
        if membership.nodes.is_empty() {
            return Self::default();
        }
        let nodes: BTreeMap<_, _> = membership.nodes.into_iter().map(|(node, disk)| (node, Seat { disk })).collect();
        Self::new(membership.voters, nodes).expect("judged whole where it was read")
    }
}
