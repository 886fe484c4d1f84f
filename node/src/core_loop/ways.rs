//! The ways out of the core loop: to the control log, the peers, the units, the drivers, the journal, whoever watches.
//!
//! No call may wait for anyone: what has to wait is done by a task or thread at the other end. In the daemon that is
//! [`crate::daemon`], in virtual time the simulator's node.

use std::sync::Arc;

use bytes::Bytes;
use sixnines_core::domain::Proposal;
use sixnines_core::domain::config::DomainConfig;
use sixnines_core::domain::feature::Level;
use sixnines_core::engine::{Command, CommandError, CommandId};
use sixnines_core::event::Event;
use sixnines_core::ids::{Epoch, EventId, GroupName, LinkId, Member, NodeId, Version};
use sixnines_core::roles::{Role, Told};
use sixnines_core::value::Request;
use sixnines_discs::feed::wire::Resume;
use sixnines_discs::wire::{Class, Kind};

use super::answers::Watcher;
use super::fences::FenceOrder;
use super::limits::Uses;
use crate::api::RightRow;

/// Records of the journal, counted since the start. Those that could not be written count as if they had been: nothing waits for them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Journalled {
    /// Given to it.
    pub(crate) handed: u64,
    /// With the operating system: they survive this process.
    pub(crate) written: u64,
    /// On disk.
    pub(crate) synced: u64,
}

/// See the module.
pub(crate) trait Ways {
    // ---- the control log

    /// Asks for an entry; answered by [`super::In::Applied`] or [`super::In::Failed`].
    fn propose(&mut self, proposal: Proposal);
    /// Hands its leadership over, if this node has it.
    fn transfer_leader(&mut self, to: NodeId);
    /// Campaigns for its leadership: the leader is dead.
    fn campaign(&mut self, against: NodeId);
    /// Asks a node which disk it has; answered by [`super::In::Places`] if it is not the one that it votes with.
    fn greet(&mut self, node: NodeId);

    // ---- roles here

    /// What this node is for a service from now on.
    fn role(&mut self, group: &GroupName, role: Role);
    /// Nothing of this group leaves the node under this epoch any more; answered by [`super::In::Silenced`].
    fn relinquish(&mut self, group: &GroupName, epoch: Epoch);
    /// This node drives a chassis under this epoch, or does not.
    fn drive(&mut self, group: &GroupName, epoch: Option<Epoch>);
    /// A request for a driver or a unit; answered by [`super::In::Outcome`].
    fn act(&mut self, request: Request);

    /// Has a node switched off by the domain's command; answered by [`super::In::Fenced`].
    fn fence(&mut self, order: FenceOrder);
    /// That node is back: whatever is under way against that life of it ends, and is not answered.
    fn drop_fence(&mut self, target: Member);

    // ---- checkpoints

    /// A member can be reached, or cannot.
    fn reach(&mut self, member: Member, is_reachable: bool);
    /// The nodes that shall hold copies.
    fn prefer(&mut self, group: &GroupName, nodes: Vec<NodeId>);
    /// Hand over; answered by [`super::In::Quiesced`].
    fn quiesce(&mut self, group: &GroupName, epoch: Epoch, to: Member);
    /// Never mind.
    fn resume(&mut self, group: &GroupName, epoch: Epoch);
    /// Say what the copy has, if it knows no row after this one; answered by [`super::In::Offered`].
    fn offer(&mut self, group: &GroupName, version: Version);
    /// Keeps something for the successor of a chassis' owner; `None` deletes it.
    fn save(&mut self, group: &GroupName, key: &str, bytes: Option<Vec<u8>>);

    // ---- peers

    /// A word about roles.
    fn tell(&mut self, to: NodeId, told: &Told);
    /// A policy or an operator here wants something of an object that is owned there; answered by [`super::In::Answered`].
    fn forward(&mut self, to: NodeId, command: &Command);
    /// What became of a command that a peer forwarded.
    fn answer(&mut self, to: NodeId, id: CommandId, result: &Result<EventId, CommandError>);
    /// An event, of this node or of another, for whoever watches here.
    fn publish(&mut self, event: &Arc<Event>);
    /// A peer has begun a life, or left something out: it is told what this node wants to hear of, and from where on.
    fn subscribe(&mut self, peer: NodeId, resume: Resume);
    /// A frame of a feed. False: the mesh takes no more for that peer now.
    fn send(&mut self, to: NodeId, class: Class, kind: Kind, payload: Bytes) -> bool;
    /// Liveness finds a link good or bad.
    fn link(&mut self, node: NodeId, link: LinkId, is_up: bool);

    // ---- this node

    /// Another configuration is in force.
    fn configured(&mut self, config: &DomainConfig);
    /// A record for the journal.
    fn journal(&mut self, record: Vec<u8>);
    /// What was journalled so far shall be on disk soon; [`super::In::JournalSynced`] says when it is.
    fn sync_journal(&mut self);
    /// How far the journal is.
    fn journalled(&self) -> Journalled;
    /// The journal's disk may have room again.
    fn journal_again(&mut self);
    /// Somebody follows events from now on.
    fn watch(&mut self, watcher: Watcher);
    /// What the time of policies' calls is measured with, in nanoseconds; `None`: it is not, and only their operations are counted.
    fn policy_clock(&self) -> Option<fn() -> u64> {
        None
    }
    /// What the parts around the core loop use of what the domain allows; `None`: nobody asks for that here.
    fn uses(&self) -> Option<Uses> {
        None
    }
    /// The newest feature level that a node reads, by its word on a connection that stands, or this node itself; `None`: it is not there to say so.
    fn reads(&self, _node: NodeId) -> Option<Level> {
        None
    }
    /// The numbers of the connections to a peer.
    fn connections(&self, _peer: NodeId) -> Vec<u64> {
        Vec::new()
    }
    /// The rights that were asked of the operating system, and how often the lease has run out.
    fn standing(&self) -> (Vec<RightRow>, u64);
    /// How late the liveness thread was: second of the boot-time clock, and microseconds; of the last minute.
    fn lateness(&self) -> Vec<(u64, u64)> {
        Vec::new()
    }
}
