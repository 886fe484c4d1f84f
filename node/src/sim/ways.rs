//! The core loop's ways out, in virtual time: a queue that the simulated node carries out after each input.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use sixnines_core::class::Pattern;
use sixnines_core::domain::Proposal;
use sixnines_core::domain::config::DomainConfig;
use sixnines_core::engine::{Command, CommandError, CommandId};
use sixnines_core::event::Event;
use sixnines_core::ids::{Epoch, EventId, GroupName, LinkId, Member, NodeId};
use sixnines_core::roles::{Role, Told};
use sixnines_core::value::Request;

use super::broken::Mutation;
use crate::api::RightRow;
use crate::core_loop::answers::Watcher;
use crate::core_loop::ways::Ways;

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
    Reach(Member, bool),
    Prefer(GroupName, Vec<NodeId>),
    Quiesce(GroupName, Member),
    Resume(GroupName),
    Offer(GroupName),
    Save(GroupName, String, Option<Vec<u8>>),
    Tell(NodeId, Told),
    Forward(NodeId, Command),
    /// An event of this node, and who wants it.
    Publish(Arc<Event>, Vec<NodeId>),
    /// An event from elsewhere was new.
    Heard(EventId),
    /// How something is, for a peer that begins to listen.
    Level(Arc<Event>, NodeId),
    Subscribe(NodeId),
}

/// The queue, and what a node remembers of its peers' wishes.
pub(super) struct SimWays {
    pub(super) queue: VecDeque<Way>,
    peers: Vec<NodeId>,
    wanted: BTreeMap<NodeId, Vec<Pattern>>,
    /// Everything that was journalled in this life.
    pub(super) journal: Vec<u8>,
    mutation: Mutation,
}

impl SimWays {
    pub(super) fn new(peers: Vec<NodeId>, mutation: Mutation) -> Self {
        Self { queue: VecDeque::new(), peers, wanted: BTreeMap::new(), journal: Vec::new(), mutation }
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
    fn offer(&mut self, group: &GroupName) {
        self.queue.push_back(Way::Offer(group.clone()));
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
        let is_wanted = |peer: &&NodeId| self.wanted.get(peer).is_none_or(|patterns| patterns.iter().any(|p| p.matches(event.object.as_str())));
        let to = self.peers.iter().filter(is_wanted).copied().collect();
        self.queue.push_back(Way::Publish(Arc::clone(event), to));
    }
    fn heard(&mut self, event: &Arc<Event>) {
        if self.mutation == Mutation::FormerLifeToldAgain && self.peers.iter().all(|peer| *peer != event.id.node) {
            self.publish(event);
        }
        self.queue.push_back(Way::Heard(event.id));
    }
    fn subscribe(&mut self, peer: NodeId) {
        self.wanted.remove(&peer);
        self.queue.push_back(Way::Subscribe(peer));
    }
    fn subscribed(&mut self, peer: NodeId, patterns: Vec<Pattern>, levels: &[Arc<Event>]) {
        self.wanted.insert(peer, patterns);
        self.queue.extend(levels.iter().map(|event| Way::Level(Arc::clone(event), peer)));
    }
    fn link(&mut self, _: NodeId, _: LinkId, _: bool) {}
    fn configured(&mut self, _: &DomainConfig) {}
    fn journal(&mut self, record: Vec<u8>) {
        self.journal.extend_from_slice(&record);
    }
    fn sync_journal(&mut self) {}
    fn journal_again(&mut self) {}
    fn watch(&mut self, _: Watcher) {}
    fn standing(&self) -> (Vec<RightRow>, u64) {
        (Vec::new(), 0)
    }
}
