//! Questions to other control logs and their answers, over a port that only sends frames.
//!
//! Also the guard against the wrong disk: see the head of `log.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::AsyncRuntime;
use openraft::async_runtime::{Oneshot, OneshotSender};
use sixnines_core::ids::NodeId;

use super::segment::Identity;
use super::types::{LogId, Vote};
use super::wire::{self, Envelope, Message, Reply, Request};
use super::Port;

type Sender<R> = <<R as AsyncRuntime>::Oneshot as Oneshot>::Sender<Reply>;

/// No answer came in time.
#[derive(Debug)]
pub(crate) struct NoAnswer;

pub(crate) struct Peers<R: AsyncRuntime>(Arc<Inner<R>>);

struct Inner<R: AsyncRuntime> {
    identity: Identity,
    port: Arc<dyn Port>,
    state: Mutex<State<R>>,
}

struct State<R: AsyncRuntime> {
    next_correlation: u64,
    /// Bounded by openraft: a few questions to each peer at a time; each leaves when answered or when its asker gives up.
    pending: BTreeMap<(NodeId, u64), Sender<R>>,
    /// The disks that the membership knows.
    bound: BTreeMap<NodeId, u64>,
    /// The disk that each node last spoke from.
    heard: BTreeMap<NodeId, u64>,
    strangers: BTreeMap<NodeId, u64>,
    /// Committed entries up to this one are on the disk of each node: it said so to this node, when this one led.
    holds: BTreeMap<NodeId, u64>,
    /// What each node has acknowledged under this leadership, committed or not.
    acknowledged: BTreeMap<NodeId, (Vote, u64)>,
    /// Strangers that speak from the right disk, in an older state.
    older: BTreeSet<NodeId>,
    /// Disks that the log has declared lost.
    lost: BTreeMap<NodeId, u64>,
    /// A leader that a majority of voters has released: this node's requests for votes do not wait for its lease.
    against: Option<NodeId>,
    refused: u64,
    misaddressed: u64,
}

impl<R: AsyncRuntime> Clone for Peers<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// What was kept out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeptOut {
    pub(crate) refused: u64,
    pub(crate) misaddressed: u64,
}

impl<R: AsyncRuntime> Peers<R> {
    /// `first_correlation` is drawn at random for each start, so that an old answer finds no question.
    pub(crate) fn new(identity: Identity, first_correlation: u64, port: Arc<dyn Port>) -> Self {
        let state = State {
            next_correlation: first_correlation,
            pending: BTreeMap::new(),
            bound: BTreeMap::new(),
            heard: BTreeMap::from([(identity.node, identity.disk)]),
            strangers: BTreeMap::new(),
            holds: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            older: BTreeSet::new(),
            lost: BTreeMap::new(),
            against: None,
            refused: 0,
            misaddressed: 0,
        };
        Self(Arc::new(Inner { identity, port, state: Mutex::new(state) }))
    }

    pub(crate) fn node(&self) -> NodeId {
        self.0.identity.node
    }

    /// A number that no other question of this life bears.
    pub(crate) fn draw(&self) -> u64 {
        let mut state = self.lock();
        state.next_correlation = state.next_correlation.wrapping_add(1);
        state.next_correlation
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn ask(&self, to: NodeId, request: Request, timeout: Duration) -> Result<Reply, NoAnswer> {
        let correlation = self.draw();
        let (sender, receiver) = R::Oneshot::channel::<Reply>();
        self.lock().pending.insert((to, correlation), sender);
        let _gone_when_dropped = Pending { peers: self.clone(), key: (to, correlation) };
        self.send(to, correlation, &Message::Request(request));
        match R::timeout(timeout, receiver).await {
            Ok(Ok(reply)) => Ok(reply),
            _ => Err(NoAnswer),
        }
    }

    pub(crate) fn answer(&self, to: NodeId, correlation: u64, reply: Reply) {
        self.send(to, correlation, &Message::Reply(reply));
    }

    fn send(&self, to: NodeId, correlation: u64, message: &Message) {
        let to_disk = self.lock().bound.get(&to).copied().unwrap_or(0);
        let identity = self.0.identity;
        let envelope = Envelope { domain: identity.domain, from_disk: identity.disk, to_disk, correlation };
        self.0.port.send(to, wire::encode(envelope, message));
    }

    /// Nothing that a node was asked will be answered: it is another process now.
    pub(crate) fn give_up(&self, node: NodeId) {
        let gone: Vec<Sender<R>> = {
            let mut state = self.lock();
            let (gone, rest) = std::mem::take(&mut state.pending).into_iter().partition(|((to, _), _)| *to == node);
            state.pending = rest;
            BTreeMap::into_values(gone).collect()
        };
        drop(gone); // wakes whoever waits, and not under the lock
    }

    /// Takes a frame in. A question is handed back; an answer goes to whoever asked.
    pub(crate) fn receive(&self, from: NodeId, frame: &[u8]) -> Option<(u64, Request)> {
        let decoded = wire::decode(from, frame);
        let mut state = self.lock();
        let Some((envelope, message)) = decoded.filter(|(e, _)| e.domain == self.0.identity.domain && from != self.node()) else {
            state.refused += 1;
            return None;
        };
        if !state.admits(from, &envelope) {
            return None;
        }
        if !state.is_for(&envelope, self.0.identity.disk) {
            drop(state);
            if let Message::Request(_) = message {
                // Nothing is taken, but whoever asked learns which disk is here now; he could not know otherwise.
                self.answer(from, envelope.correlation, Reply::Unable);
            }
            return None;
        }
        let end = match &message {
            Message::Request(Request::Vote { last, .. } | Request::PreVote { last, .. }) | Message::Reply(Reply::Vote { last, .. }) => Some(last.map_or(0, |id| id.index)),
            _ => None,
        };
        if end.is_some_and(|end| state.holds.get(&from).is_some_and(|held| end < *held)) {
            state.went_back(from, end);
            return None;
        }
        match message {
            Message::Request(request) => Some((envelope.correlation, request)),
            Message::Reply(reply) => {
                let sender = state.pending.remove(&(from, envelope.correlation));
                drop(state);
                // An answer after the asker gave up is no fault of anybody.
                drop(sender.map(|sender| sender.send(reply)));
                None
            }
        }
    }

    /// The membership says which disk each node votes with.
    pub(crate) fn bind(&self, disks: BTreeMap<NodeId, u64>) {
        let mut state = self.lock();
        let before = std::mem::take(&mut state.bound);
        for node in before.keys().filter(|node| disks.get(node) != before.get(node)) {
            state.forget(*node);
        }
        let State { strangers, older, .. } = &mut *state;
        strangers.retain(|node, disk| disks.get(node).is_some_and(|bound| bound != disk || older.contains(node)));
        state.bound = disks;
    }

    /// Who is no node of the domain any more, and comes back under its name, comes with another disk.
    pub(crate) fn keep(&self, nodes: &BTreeSet<NodeId>) {
        let own = self.node();
        self.lock().heard.retain(|node, _| *node == own || nodes.contains(node));
    }

    /// The log says which disks are lost.
    pub(crate) fn lose(&self, disks: BTreeMap<NodeId, u64>) {
        self.lock().lost = disks;
    }

    /// Nodes that were found out to be without what they had acknowledged, and their disks.
    pub(crate) fn older(&self) -> BTreeMap<NodeId, u64> {
        let state = self.lock();
        state.older.iter().filter_map(|node| Some((*node, *state.heard.get(node)?))).collect()
    }

    /// A node has this entry on its disk, and it is committed: it will not be without it again.
    pub(crate) fn holds(&self, node: NodeId, index: u64) {
        let mut state = self.lock();
        let held = state.holds.entry(node).or_default();
        *held = index.max(*held);
    }

    /// A node says to this leader that it has everything up to an entry.
    pub(crate) fn acknowledged(&self, node: NodeId, vote: Vote, last: Option<LogId>) {
        let Some(index) = last.map(|id| id.index) else { return };
        let mut state = self.lock();
        let known = state.acknowledged.entry(node).or_insert((vote, index));
        *known = if known.0 == vote { (vote, index.max(known.1)) } else { (vote, index) };
    }

    /// A node says to this leader that it has not got this entry. Whether it had said otherwise: then its disk is not what it was, and it
    /// is kept out.
    pub(crate) fn contradicts(&self, node: NodeId, vote: Vote, lacks: LogId) -> bool {
        let mut state = self.lock();
        let had = state.holds.get(&node).copied().max(state.acknowledged.get(&node).filter(|(under, _)| *under == vote).map(|(_, index)| *index));
        let contradicts = had.is_some_and(|had| lacks.index <= had);
        if contradicts {
            state.went_back(node, Some(lacks.index));
        }
        contradicts
    }

    /// Begins a campaign against a dead leader, or ends it: there is another one.
    pub(crate) fn campaign_against(&self, leader: Option<NodeId>) {
        self.lock().against = leader;
    }

    /// Whether a campaign is on.
    pub(crate) fn is_campaign(&self) -> bool {
        self.lock().against.is_some()
    }

    /// The disk that a node speaks from, if it has spoken.
    pub(crate) fn heard(&self, node: NodeId) -> Option<u64> {
        self.lock().heard.get(&node).copied()
    }

    /// The disk that a node speaks from although the membership knows another, or this one in a later state, or has let it go as lost.
    pub(crate) fn stranger(&self, node: NodeId) -> Option<u64> {
        let state = self.lock();
        let gone = state.heard.get(&node).filter(|disk| state.is_gone(node, **disk));
        state.strangers.get(&node).or(gone).copied()
    }

    pub(crate) fn kept_out(&self) -> KeptOut {
        let state = self.lock();
        KeptOut { refused: state.refused, misaddressed: state.misaddressed }
    }

    fn lock(&self) -> MutexGuard<'_, State<R>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: AsyncRuntime> State<R> {
    /// The sender must be on the disk that the membership knows, as far as it knows one.
    fn admits(&mut self, from: NodeId, envelope: &Envelope) -> bool {
        if self.heard.insert(from, envelope.from_disk).is_some_and(|before| before != envelope.from_disk) {
            self.forget(from);
        }
        if self.bound.get(&from).is_some_and(|bound| *bound != envelope.from_disk) {
            if self.strangers.insert(from, envelope.from_disk) != Some(envelope.from_disk) {
                tracing::error!(%from, "a node speaks from another disk than the one it votes with; it is kept out until it is replaced");
            }
            return false;
        }
        if self.older.contains(&from) || self.is_gone(from, envelope.from_disk) {
            return false;
        }
        self.strangers.remove(&from);
        true
    }

    /// Whether the membership has let go of a disk that was declared lost.
    fn is_gone(&self, node: NodeId, disk: u64) -> bool {
        !self.bound.contains_key(&node) && self.lost.get(&node) == Some(&disk)
    }

    /// A node's log has become shorter, with entries gone that it had acknowledged: somebody put back an old state of its disk, or the
    /// disk does not keep what it says it has synced. Its votes may be gone as well.
    fn went_back(&mut self, node: NodeId, end: Option<u64>) {
        if let Some(disk) = self.heard.get(&node).copied()
            && self.older.insert(node)
        {
            tracing::error!(%node, ?end, "a node has lost entries of the control log that it had acknowledged; it is kept out until it comes with an empty disk and is replaced");
            self.strangers.insert(node, disk);
        }
    }

    /// What was known of a node's disk does not hold for the one that it has now.
    fn forget(&mut self, node: NodeId) {
        self.holds.remove(&node);
        self.acknowledged.remove(&node);
        self.older.remove(&node);
    }

    /// So must this node be.
    fn is_for(&mut self, envelope: &Envelope, own_disk: u64) -> bool {
        if envelope.to_disk != 0 && envelope.to_disk != own_disk {
            if self.misaddressed == 0 {
                tracing::error!("the domain knows another disk of this node; this one takes no part until the node is replaced");
            }
            self.misaddressed += 1;
            return false;
        }
        true
    }
}

struct Pending<R: AsyncRuntime> {
    peers: Peers<R>,
    key: (NodeId, u64),
}

impl<R: AsyncRuntime> Drop for Pending<R> {
    fn drop(&mut self) {
        self.peers.lock().pending.remove(&self.key);
    }
}
