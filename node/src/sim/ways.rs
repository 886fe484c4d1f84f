//! The core loop's ways out, in virtual time: a queue that the simulated node carries out after each input.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sixnines_core::class::Pattern;
use sixnines_core::domain::Proposal;
use sixnines_core::domain::config::DomainConfig;
use sixnines_core::domain::feature::Level;
use sixnines_core::engine::{Command, CommandError, CommandId};
use sixnines_core::event::Event;
use sixnines_core::ids::{Epoch, EventId, GroupName, LinkId, Member, NodeId, Version};
use sixnines_core::roles::{Role, Told};
use sixnines_core::value::Request;
use sixnines_discs::feed::wire::{Resume, subscription};
use sixnines_discs::wire::{Class, Kind};

use super::broken::Mutation;
use crate::api::RightRow;
use crate::core_loop::answers::Watcher;
use crate::core_loop::fences::FenceOrder;
use crate::core_loop::limits::Uses;
use crate::core_loop::ways::{Journalled, Ways};
use crate::neighbours::Table;

/// One order of the core loop.
pub(super) enum Way {
    Propose(Proposal),
    TransferLeader(NodeId),
    Campaign(NodeId),
    Greet(NodeId),
    Role(GroupName, Role),
    Relinquish(GroupName, Epoch),
    Drive(GroupName, bool),
    Act(Request),
    Fence(FenceOrder),
    Reach(Member, bool),
    Prefer(GroupName, Vec<NodeId>),
    Quiesce(GroupName, Member),
    Resume(GroupName),
    Offer(GroupName, Version),
    Save(GroupName, String, Option<Vec<u8>>),
    Tell(NodeId, Told),
    Forward(NodeId, Command),
    /// An event of this node.
    Publish(Arc<Event>),
    /// A frame of a feed.
    Feed(NodeId, Kind, Bytes),
}

/// A node's journal, which outlives it: one segment, of the last life that had joined.
#[derive(Clone, Default)]
pub(super) struct Journal(Arc<Mutex<Written>>);

#[derive(Default)]
struct Written {
    bytes: Vec<u8>,
    /// So many of them survive a power cut.
    synced: usize,
}

impl Journal {
    fn lock(&self) -> MutexGuard<'_, Written> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A life begins to write.
    pub(super) fn begin(&self, snapshot: Vec<u8>) {
        *self.lock() = Written { synced: snapshot.len(), bytes: snapshot };
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    /// The power is gone: of what was not synced some is left.
    pub(super) fn crash(&self, draw: u64) {
        let mut written = self.lock();
        let unsynced = written.bytes.len() - written.synced;
        let kept = usize::try_from(draw).unwrap_or(usize::MAX) % (unsynced + 1);
        let length = written.synced + kept;
        written.bytes.truncate(length);
    }

    pub(super) fn wipe(&self) {
        *self.lock() = Written::default();
    }
}

/// The queue, and what was written.
pub(super) struct SimWays {
    pub(super) queue: VecDeque<Way>,
    pub(super) journal: Journal,
    records: u64,
    mutation: Mutation,
    /// What the parts use that are not simulated; nobody looks while it is none.
    pub(super) uses: Option<Uses>,
    /// Other domains' nodes; there are none but in a simulated federation.
    pub(super) neighbours: Arc<Table>,
    /// What nodes say that they read; nobody asks in a simulated domain.
    pub(super) reads: BTreeMap<NodeId, Level>,
}

impl SimWays {
    pub(super) fn new(journal: Journal, mutation: Mutation) -> Self {
        Self { queue: VecDeque::new(), journal, records: 0, mutation, uses: None, neighbours: Arc::default(), reads: BTreeMap::new() }
    }
}

impl Ways for SimWays {
    fn propose(&mut self, proposal: Proposal) {
        self.queue.push_back(Way::Propose(proposal));
    }
    fn transfer_leader(&mut self, to: NodeId) {
        self.queue.push_back(Way::TransferLeader(to));
    }
    fn campaign(&mut self, against: NodeId) {
        self.queue.push_back(Way::Campaign(against));
    }
    fn greet(&mut self, node: NodeId) {
        self.queue.push_back(Way::Greet(node));
    }
    fn role(&mut self, group: &GroupName, role: Role) {
        self.queue.push_back(Way::Role(group.clone(), role));
    }
    fn relinquish(&mut self, group: &GroupName, epoch: Epoch) {
        self.queue.push_back(Way::Relinquish(group.clone(), epoch));
    }
    fn drive(&mut self, group: &GroupName, epoch: Option<Epoch>) {
        self.queue.push_back(Way::Drive(group.clone(), epoch.is_some()));
    }
    fn act(&mut self, request: Request) {
        self.queue.push_back(Way::Act(request));
    }
    fn fence(&mut self, order: FenceOrder) {
        self.queue.push_back(Way::Fence(order));
    }
    fn drop_fence(&mut self, _: Member) {} // an answer that comes all the same is nobody's
    fn reach(&mut self, member: Member, is_reachable: bool) {
        self.queue.push_back(Way::Reach(member, is_reachable));
    }
    fn prefer(&mut self, group: &GroupName, nodes: Vec<NodeId>) {
        self.queue.push_back(Way::Prefer(group.clone(), nodes));
    }
    fn quiesce(&mut self, group: &GroupName, _: Epoch, to: Member) {
        self.queue.push_back(Way::Quiesce(group.clone(), to));
    }
    fn resume(&mut self, group: &GroupName, _: Epoch) {
        self.queue.push_back(Way::Resume(group.clone()));
    }
    fn offer(&mut self, group: &GroupName, version: Version) {
        self.queue.push_back(Way::Offer(group.clone(), version));
    }
    fn save(&mut self, group: &GroupName, key: &str, bytes: Option<Vec<u8>>) {
        self.queue.push_back(Way::Save(group.clone(), key.to_owned(), bytes));
    }
    fn tell(&mut self, to: NodeId, told: &Told) {
        self.queue.push_back(Way::Tell(to, told.clone()));
    }
    fn forward(&mut self, to: NodeId, command: &Command) {
        self.queue.push_back(Way::Forward(to, command.clone()));
    }
    fn answer(&mut self, _: NodeId, _: CommandId, _: &Result<EventId, CommandError>) {} // nobody waits for one here
    fn publish(&mut self, event: &Arc<Event>) {
        self.queue.push_back(Way::Publish(Arc::clone(event)));
    }
    fn subscribe(&mut self, peer: NodeId, resume: Resume) {
        let everything = [Pattern::new("/**")];
        let wanted = if peer.is_abroad() { self.neighbours.hear(peer) } else { &everything };
        self.queue.push_back(Way::Feed(peer, Kind::SUBSCRIBE, subscription(wanted, resume)));
    }
    fn send(&mut self, to: NodeId, _: Class, kind: Kind, payload: Bytes) -> bool {
        self.queue.push_back(Way::Feed(to, kind, payload));
        true
    }
    fn link(&mut self, _: NodeId, _: LinkId, _: bool) {}
    fn configured(&mut self, _: &DomainConfig) {}
    fn journal(&mut self, record: Vec<u8>) {
        self.journal.lock().bytes.extend_from_slice(&record);
        self.records += 1;
    }
    fn sync_journal(&mut self) {
        if self.mutation == Mutation::ToldBeforeItIsSynced {
            return;
        }
        let mut written = self.journal.lock();
        written.synced = written.bytes.len();
    }
    fn journalled(&self) -> Journalled {
        Journalled { handed: self.records, written: self.records, synced: self.records }
    }
    fn journal_again(&mut self) {}
    fn watch(&mut self, _: Watcher) {}
    fn uses(&self) -> Option<Uses> {
        self.uses
    }
    fn reads(&self, node: NodeId) -> Option<Level> {
        self.reads.get(&node).copied()
    }
    fn standing(&self) -> (Vec<RightRow>, u64) {
        (Vec::new(), 0)
    }
}
