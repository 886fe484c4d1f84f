//! The control log: one order of entries for the whole domain, by Raft, behind a surface that does not show Raft.
//!
//! **What it is made of.** openraft decides; this module gives it a disk ([`Disk`]), peers (frames over [`Port::send`]) and a state
//! machine (`sixnines_core::domain::Domain`). All of it runs on one openraft `AsyncRuntime`, and nothing in it knows which.
//!
//! **In the product**: [`shell::run`] starts a thread `control-log` with a current-thread tokio runtime, and one thread
//! `control-log-disk` that alone waits for the disk. Implement [`Port`] over channels (its calls come from those two threads and must
//! not wait), hand frames of peers to [`Handle::frame`], proposals to [`Handle::propose`]; every call on [`Handle`] returns at once. Send a
//! frame by its [`lane`]: urgent ones on a stream of their own.
//!
//! **In the simulator**: [`sim::SimLog`] is one node's log on a virtual-time runtime of its own. [`sim::SimLog::step_until`] runs it up
//! to an instant of that node's clock; [`sim::SimLog::next_wake`] says when it next has something to do by itself. Not stepping is a
//! pause; dropping it, then [`sim::SimDisk::crash`], is a crash. Frames come out of [`Port::send`] while it is stepped. Same seed, same
//! inputs at the same instants: same frames, same disk bytes.
//!
//! **First start.** A domain is born once: its voters are started with empty directories and [`Handle::initialize`] is called with the
//! same first configuration on one or all of them. The leader then commits that configuration. Nothing else ever makes a new log:
//! started without it, an empty directory waits to be taken in.
//!
//! **Wrong disks.** Each directory draws a number when it is first used ([`Identity::disk`]) and every frame bears the sender's and, if
//! known, the receiver's. The leader commits each node's number into the membership as soon as it has heard it; from then on a node
//! with another disk under the same id gets nothing and is believed nothing: neither its votes nor its log count, even if
//! somebody initialises it again. It shows as a stranger ([`Port::places`]) until an entry gives its old disk up; then the leader commits its removal and
//! takes it in as a new learner. *What is promised*: a voter whose directory was emptied or exchanged for another one can neither vote twice nor
//! lose what it had acknowledged, from the moment its number is committed (the first second of a domain), whatever flags it is started
//! with. A directory put back to an older state of itself (restored backup, snapshot of a virtual machine) bears the right number, but
//! whoever has led remembers what each voter acknowledged to him; one that is without a committed entry of those is found out by its next
//! answer or request, and its disk is declared lost in the log ([`Entry::DiskLost`](sixnines_core::domain::Entry::DiskLost)). *What is not*: that only
//! he can tell, as long as he lives and until the voter has caught up with somebody else; that a vote alone is forgotten; and a domain
//! whose voters are all emptied and initialised again is a new domain.
//!
//! **Failures.** A failed write or sync, an entry or snapshot that cannot be read, or a stopped Raft is reported once by
//! [`Port::failed`]; the log takes no further part, and the node must stop (protocol 6.3).

#![cfg_attr(not(any(feature = "shell", feature = "sim")), expect(dead_code, reason = "without a runtime nothing hosts it"))]

mod config;
mod disk;
pub(crate) mod format;
mod host;
mod inbox;
mod machine;
mod network;
mod peers;
mod propose;
mod segment;
#[cfg(feature = "shell")]
pub mod shell;
#[cfg(feature = "sim")]
pub mod sim;
mod store;
mod types;
pub(crate) mod wire;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sixnines_core::domain::config::{Bundle, DomainConfig};
use sixnines_core::domain::feature::{Level, TooNew};
use sixnines_core::domain::{Change, DecodeError, Domain, Entry, Proposal, Void};
use sixnines_core::ids::{LogIndex, NodeId, Version};

pub use config::Timing;
pub use disk::Disk;
pub use segment::{Identity, OpenError};
pub use wire::{Lane, lane};

use host::Input;
use inbox::Inbox;

/// What the log says to its node. No call may wait for anything; all but `appended`, `failed` and `send` come from one thread.
pub trait Port: Send + Sync + 'static {
    /// Carry a frame to a node. It may be lost, doubled or late.
    fn send(&self, to: NodeId, frame: Vec<u8>);
    /// An entry was applied. `proposal` is `None` for entries of Raft's own and after a snapshot replaced the state as a whole; then `domain`
    /// is all there is to know. After a restart entries come again from the last snapshot on.
    fn applied(&self, index: LogIndex, proposal: Option<&Proposal>, outcome: &Result<Vec<Change>, Void>, domain: &Domain);
    /// What became of this node's proposal. Comes after `applied` where this node leads, in any order elsewhere.
    fn proposed(&self, ticket: u64, outcome: Result<LogIndex, ProposeError>);
    /// There is another leader, as far as this node knows. One that is cut off takes itself for the leader for a while.
    fn leader(&self, leader: Option<NodeId>);
    /// For each node named, the newest entry about it in this voter's log, applied or not (protocol 3.3). Replaces what was said of these
    /// nodes before; lower than before, down to 0, if a new leader overruled entries. Called before the entry is acknowledged to anybody, and
    /// at the start for all that was found on disk.
    fn appended(&self, about: &[(NodeId, LogIndex)]);
    /// The place of each node that the membership knows. Called within 100 ms of a change.
    fn places(&self, places: &BTreeMap<NodeId, Place>);
    /// The log's thread turns. Called at least every 100 ms.
    fn progress(&self);
    /// The log cannot go on: the node must stop. Called once.
    fn failed(&self, failure: &Failure);
}

/// A node's place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Whether it votes, or only learns.
    pub is_voter: bool,
    /// The number of the disk that it votes with; 0 until it is known, in the first second of a domain.
    pub disk: u64,
    /// It speaks from another disk: it is kept out until [`Entry::DiskLost`](sixnines_core::domain::Entry::DiskLost) gives up the one it votes with.
    /// Or from that one in an older state: until it comes with an empty one.
    pub is_stranger: bool,
}

/// Why the log cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The device refused a write or a sync: what is on it is unknown, and there is no second try.
    #[error("the control log's disk failed: {0}")]
    Disk(String),
    /// An entry that this version does not understand.
    #[error("entry {index} of the control log cannot be read: {source}; nothing in the log is skipped: install a newer build of nines on this node, the one that the others run")]
    Unreadable {
        /// The entry.
        index: LogIndex,
        /// How it is unreadable.
        #[source]
        source: DecodeError,
    },
    /// An entry that leads to a feature level above those that this build reads.
    #[error("entry {index} of the control log cannot be applied: {source}")]
    TooNew {
        /// The entry.
        index: LogIndex,
        /// Which level, and which ones are read.
        #[source]
        source: TooNew,
    },
    /// A snapshot that this version does not understand.
    #[error("a snapshot from the leader cannot be read: {0}")]
    Snapshot(String),
    /// The Raft library stopped.
    #[error("the control log stopped: {0}")]
    Raft(String),
}

impl Failure {
    fn disk(error: &io::Error) -> Self {
        Self::Disk(error.to_string())
    }

    /// Whether nothing is broken but this build too old, or somebody wrote what nobody reads: an operator mends it, and another start does not.
    pub fn is_unreadable(&self) -> bool {
        matches!(self, Self::Unreadable { .. } | Self::TooNew { .. } | Self::Snapshot(_))
    }
}

/// Why a proposal did not change anything, or may not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It was committed at `index` and applied without effect.
    #[error("entry {index} did nothing: {why}")]
    Void {
        /// Where.
        index: LogIndex,
        /// Why.
        why: Void,
    },
    /// There was no leader to give it to: it is not in the log and never will be.
    #[error("no leader of the control log is known")]
    NotSent,
    /// It is of a kind that not every member may be able to read: it is not in the log and never will be (protocol 6.3).
    #[error("it needs feature level {needs}, {present} is in force: nines feature raise, once every node runs a build that reads it")]
    Level {
        /// What it needs.
        needs: Level,
        /// What is in force, as far as this node has applied.
        present: Level,
    },
    /// It was given to a leader that did not answer: it may be in the log, now or later (protocol 1.2).
    #[error("the outcome is unknown")]
    Unknown,
}

/// Applies an entry to the domain: [`Domain::apply`]. A simulation may hand in one that leaves a check out, to see that it is noticed.
pub type Apply = fn(&mut Domain, LogIndex, &Entry) -> Result<Vec<Change>, Void>;

/// How a log is to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// This node.
    pub node: NodeId,
    /// The domain, a number drawn when it was made: the same on every node.
    pub domain: u64,
    /// Drawn at random for each start. It becomes the disk's number if the directory is empty.
    pub nonce: u64,
    /// From the profile.
    pub timing: Timing,
    /// What an entry does; the same on every node.
    pub apply: Apply,
    /// The newest feature level that this node reads: [`Level::NEWEST`], but where two versions are tested against each other.
    pub reads: Level,
}

/// What a new domain begins with. See the head of this file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FirstStart {
    /// The first configuration; its voters are the first voters.
    pub config: DomainConfig,
    /// The first classes, objects and policies.
    pub bundle: Bundle,
}

/// What a log says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// The leader this node knows.
    pub leader: Option<NodeId>,
    /// Whether it is this node.
    pub is_leader: bool,
    /// Raft's term.
    pub term: u64,
    /// The last entry in this node's log.
    pub last: LogIndex,
    /// The last entry applied.
    pub applied: LogIndex,
    /// The last entry in a snapshot.
    pub snapshot: LogIndex,
    /// Who votes.
    pub voters: BTreeSet<NodeId>,
    /// Who follows without a vote.
    pub learners: BTreeSet<NodeId>,
    /// Frames that could not be ones of this domain, or found no room.
    pub refused_frames: u64,
    /// Frames meant for another disk of this node: not 0 means that the domain knows another disk, and this one takes no part.
    pub misaddressed_frames: u64,
}

/// Inputs waiting for the log's thread. At the bound a frame is dropped and counted, a proposal is answered `NotSent`.
const INPUTS_MAX: usize = 4096;

/// The way into a log. Every call returns at once, from any thread.
#[derive(Clone)]
pub struct Handle {
    inbox: Arc<Inbox<Input>>,
    board: Board,
    port: Arc<dyn Port>,
}

impl Handle {
    /// A frame from a peer that has been authenticated as `from`. Any bytes will do: what is no frame is counted and dropped.
    pub fn frame(&self, from: NodeId, bytes: Vec<u8>) {
        if self.inbox.push(Input::Frame(from, bytes)).is_err() {
            self.board.lock().frames_without_room += 1;
        }
    }

    /// Proposes an entry; the outcome comes to [`Port::proposed`] by its ticket, once and within [`Timing::propose`] or so.
    pub fn propose(&self, proposal: Proposal) {
        let ticket = proposal.ticket;
        if self.inbox.push(Input::Propose(proposal)).is_err() {
            self.port.proposed(ticket, Err(ProposeError::NotSent));
        }
    }

    /// Asks the leader, if it is this node, to hand over to another voter. A preference: it may not come about.
    pub fn transfer_leader(&self, to: NodeId) {
        self.put(Input::TransferLeader(to));
    }

    /// Campaigns for the leadership at once, if `against` is still the leader here. Only for a node that holds the releases of `against` by a
    /// majority of voters: each of them has taken it for dead, so nobody need wait until its lease as a leader has run out.
    pub fn campaign(&self, against: NodeId) {
        self.put(Input::Campaign(against));
    }

    /// Begins a domain. Does nothing on a node whose log is not empty.
    pub fn initialize(&self, first: FirstStart) {
        self.put(Input::Initialize(first));
    }

    /// Asks a node which disk it has. One with an empty disk says nothing by itself, and whoever is not the leader would not hear of it.
    pub fn greet(&self, node: NodeId) {
        self.put(Input::Greet(node));
    }

    /// What the log says of itself.
    pub fn metrics(&self) -> Metrics {
        self.board.metrics()
    }

    /// Ends the log in good order: what was written is synced.
    pub fn shut_down(&self) {
        self.inbox.close();
    }

    /// Whether the log has not taken in all that was put in.
    #[cfg(feature = "sim")]
    fn has_inputs(&self) -> bool {
        !self.inbox.is_empty()
    }

    fn put(&self, input: Input) {
        // A full queue means a log that has stood still for thousands of inputs: the node is about to be replaced, not obeyed.
        if self.inbox.push(input).is_err() {
            tracing::warn!("the control log's inputs are full: a request was dropped");
        }
    }
}

/// Reports the first failure, and only that.
#[derive(Clone)]
pub(crate) struct Faults {
    port: Arc<dyn Port>,
    raised: Arc<AtomicBool>,
}

impl Faults {
    fn new(port: Arc<dyn Port>) -> Self {
        Self { port, raised: Arc::default() }
    }

    fn raise(&self, failure: Failure) {
        if !self.raised.swap(true, Ordering::SeqCst) {
            tracing::error!(%failure, "the control log cannot go on");
            self.port.failed(&failure);
        }
    }
}

/// What several parts of the log look at: the domain in force, as far as the log itself is concerned, and the metrics.
#[derive(Clone, Default)]
pub(crate) struct Board(Arc<Mutex<BoardState>>);

#[derive(Default)]
struct BoardState {
    law: Law,
    metrics: Metrics,
    frames_without_room: u64,
}

/// What the domain's configuration says about the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Law {
    pub(crate) config_version: Version,
    pub(crate) bundle_version: Version,
    pub(crate) voters: BTreeSet<NodeId>,
    pub(crate) nodes: BTreeSet<NodeId>,
    pub(crate) lost_disks: BTreeMap<NodeId, u64>,
    pub(crate) level: Level,
}

impl Board {
    fn set_domain(&self, domain: &Domain) {
        let mut state = self.lock();
        state.law.bundle_version = domain.bundle_version;
        state.law.level = domain.level;
        state.law.lost_disks.clone_from(&domain.lost_disks);
        if state.law.config_version != domain.config_version {
            state.law.config_version = domain.config_version;
            state.law.voters = domain.config.voters().collect();
            state.law.nodes = domain.config.nodes.iter().map(|n| n.id).collect();
        }
    }

    fn law(&self) -> Law {
        self.lock().law.clone()
    }

    /// What may be written now.
    fn level(&self) -> Level {
        self.lock().law.level
    }

    /// Of the law this alone: it is asked for with every entry.
    fn lost_disks(&self) -> BTreeMap<NodeId, u64> {
        self.lock().law.lost_disks.clone()
    }

    fn metrics(&self) -> Metrics {
        let state = self.lock();
        let mut metrics = state.metrics.clone();
        metrics.refused_frames += state.frames_without_room;
        metrics
    }

    fn update(&self, change: impl FnOnce(&mut Metrics)) {
        change(&mut self.lock().metrics);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BoardState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
