//! The log's tasks: take inputs, answer peers, watch openraft, keep the membership as the configuration says.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest, VoteRequest};
use openraft::{AsyncRuntime, ChangeMembers, Raft, RaftMetrics, ServerState, Snapshot};
use sixnines_core::domain::feature::Level;
use sixnines_core::domain::{Domain, Entry, Proposal};
use sixnines_core::ids::{LogIndex, NodeId, Version};

use super::disk::Disk;
use super::inbox::Inbox;
use super::machine::{Content, StateMachine};
use super::network::Network;
use super::peers::Peers;
use super::segment::{Identity, OpenError, Segment};
use super::store::LogStore;
use super::types::{Command, Seat, Types};
use super::wire::{Reply, Request, SnapshotPart};
use super::writer::Writer;
use super::{Board, Failure, Faults, FirstStart, Handle, INPUTS_MAX, Metrics, Options, Place, Port, ProposeError, Timing};

/// What comes in from outside the runtime.
pub(crate) enum Input {
    Frame(NodeId, Vec<u8>),
    Propose(Proposal),
    TransferLeader(NodeId),
    Campaign(NodeId),
    Initialize(FirstStart),
    Greet(NodeId),
}

/// Between two calls of `Port::progress`: less than what is promised, and no more often than a third of anybody's patience.
const PROGRESS: Duration = Duration::from_millis(80);

/// Forwarded proposals remembered per peer, so that a doubled frame is not a doubled entry.
const FORWARDED_MAX: usize = 256;

/// A node that has come into reach is asked so often which disk it has.
const GREETINGS_MAX: usize = 10;
/// A campaign that came to nothing is repeated after so long: by then a slow disk has written a vote down, and a thread that had to wait has run.
const AGAIN: Duration = Duration::from_millis(60);
/// And so often; then Raft's own clocks are about to run out.
const REPEATS: u32 = 8;

pub(crate) type OurRaft<R> = Raft<Types<R>, StateMachine<R>>;

/// One log, shared by its tasks.
pub(crate) struct Host<R: AsyncRuntime> {
    pub(crate) raft: OurRaft<R>,
    pub(crate) peers: Peers<R>,
    pub(crate) port: Arc<dyn Port>,
    pub(crate) timing: Timing,
    reads: Level,
    faults: Faults,
    board: Board,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    first: Option<FirstStart>,
    incoming: BTreeMap<NodeId, Incoming>,
    forwarded: BTreeMap<NodeId, VecDeque<u64>>,
}

/// A snapshot on its way in.
struct Incoming {
    transfer: u64,
    bytes: Vec<u8>,
}

/// Says when a log has shut down.
#[derive(Clone)]
pub(crate) struct Ended(Arc<Inbox<()>>);

impl Default for Ended {
    fn default() -> Self {
        Self(Arc::new(Inbox::new(0)))
    }
}

#[cfg(feature = "shell")]
impl Ended {
    /// Returns once the log has shut down.
    pub(crate) async fn wait(&self) {
        while self.0.take_all().await.is_some() {}
    }
}

/// A log that was opened but does not run yet: the caller decides what its writer runs on.
pub(crate) struct Opened {
    pub(crate) writer: Writer,
    options: Options,
    identity: Identity,
    recovered: super::segment::Recovered,
    content: Content,
}

impl Opened {
    /// Reads the directory. Waits for the disk.
    pub(crate) fn open(options: Options, disk: Box<dyn Disk>) -> Result<Self, OpenError> {
        // 0 would mean "not known" in frames and in the membership.
        let ours = Identity { node: options.node, domain: options.domain, disk: options.nonce.max(1) };
        let (segment, identity, recovered) = Segment::open(disk, ours)?;
        let content = recovered.snapshot.as_deref().map(|bytes| Content::decode(bytes, options.reads)).transpose()?.unwrap_or_default();
        Ok(Self { writer: Writer::new(segment), options, identity, recovered, content })
    }

    /// Starts the log's tasks on the runtime that this is awaited on. Its writer must be running.
    pub(crate) async fn start<R: AsyncRuntime>(mut self, port: Arc<dyn Port>) -> Result<(Handle, Ended), OpenError> {
        let refused = |e: &dyn std::fmt::Display| OpenError::Start(e.to_string());
        let board = Board::default();
        let faults = Faults::new(port.clone());
        let timing = self.options.timing;
        let snapshot = self.recovered.snapshot.take();
        let about = about_from(&self.content.domain);
        let machine = StateMachine::new(self.content, snapshot, self.options.apply, self.options.reads, self.writer.clone(), port.clone(), board.clone(), faults.clone());
        let store = LogStore::<R>::new(self.recovered, about, self.writer.clone(), port.clone(), faults.clone()).map_err(|e| refused(&e))?;
        let peers = Peers::<R>::new(self.identity, self.options.nonce, port.clone());
        let network = Network { peers: peers.clone(), snapshot_part: timing.snapshot_part() };
        let config = Arc::new(timing.raft().validate().map_err(|e| refused(&e))?);
        let raft = OurRaft::<R>::build(self.identity.node, config, network, store, machine).await.map_err(|e| refused(&e))?;
        let inbox = Arc::new(Inbox::new(INPUTS_MAX));
        let handle = Handle { inbox: inbox.clone(), board: board.clone(), port: port.clone() };
        let host = Arc::new(Host { raft, peers, port, timing, reads: self.options.reads, faults, board, state: Mutex::default() });
        // Before the first frame: which disks the log already knows.
        host.publish(&host.raft.metrics().borrow_watched(), &mut None);
        host.raft.run();
        drop(R::spawn(host.clone().watch()));
        drop(R::spawn(host.clone().turn()));
        drop(R::spawn(host.clone().govern()));
        let ended = Ended::default();
        drop(R::spawn(host.take_inputs(inbox, self.writer, ended.clone())));
        Ok((handle, ended))
    }
}

/// What the snapshot says of the newest entries about each node.
fn about_from(domain: &Domain) -> BTreeMap<NodeId, LogIndex> {
    domain.nodes.iter().map(|(node, row)| (*node, row.about)).collect()
}

impl<R: AsyncRuntime> Host<R> {
    pub(crate) fn me(&self) -> NodeId {
        self.peers.node()
    }

    /// Whether every member reads this entry, as far as the domain's level says, and this node what it leads to.
    pub(crate) fn check_level(&self, entry: &Entry) -> Result<(), ProposeError> {
        let present = self.board.level();
        let is_read = entry.level() <= present && entry.leads_to() <= self.reads;
        if is_read { Ok(()) } else { Err(ProposeError::Level { needs: entry.level().max(entry.leads_to()), present }) }
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.raft.metrics().borrow_watched().current_leader
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn take_inputs(self: Arc<Self>, inbox: Arc<Inbox<Input>>, writer: Writer, ended: Ended) {
        while let Some(inputs) = inbox.take_all().await {
            for input in inputs {
                self.clone().take(input);
            }
        }
        drop(self.raft.shutdown().await);
        writer.close();
        ended.0.close();
    }

    fn take(self: Arc<Self>, input: Input) {
        match input {
            Input::Frame(from, bytes) => {
                if let Some((correlation, request)) = self.peers.receive(from, &bytes) {
                    drop(R::spawn(self.serve(from, correlation, request)));
                }
            }
            Input::Propose(proposal) => drop(R::spawn(self.propose(proposal))),
            Input::TransferLeader(to) => self.transfer_leader(to),
            Input::Campaign(against) => self.campaign(against),
            Input::Initialize(first) => drop(R::spawn(self.initialize(first))),
            Input::Greet(node) => drop(R::spawn(self.greet(node))),
        }
    }

    /// Until it answers or has been asked often enough: its log may take a while to open. What its former life was asked it will not answer: a
    /// leader that waited for that would leave it out for as long.
    async fn greet(self: Arc<Self>, node: NodeId) {
        self.peers.give_up(node);
        for _ in 0..GREETINGS_MAX {
            // What a stranger answers counts for nothing, but it has spoken.
            if self.peers.ask(node, Request::Who, self.timing.propose).await.is_ok() || self.peers.stranger(node).is_some() {
                return;
            }
        }
    }

    /// Only to a voter that has all of the log: who hands over proposes nothing meanwhile, and one that is alive in every other way but
    /// cannot take over (an empty disk) would cost the domain an election each time.
    fn transfer_leader(self: Arc<Self>, to: NodeId) {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let is_equal = metrics.replication.as_ref().and_then(|all| all.get(&to)).is_some_and(|known| known.map(|id| id.index) == metrics.last_log_index);
        if is_equal && self.peers.stranger(to).is_none() {
            drop(R::spawn(async move { drop(self.raft.trigger().transfer_leader(to).await) }));
        }
    }

    /// Asks for votes at once and marks the request as Raft marks one after a hand-over (Ongaro's dissertation, 4.2.3): voters do not wait
    /// for the old leader's lease, which nothing here relies on.
    fn campaign(self: Arc<Self>, against: NodeId) {
        if self.leader() == Some(against) && against != self.me() {
            self.peers.campaign_against(Some(against));
            drop(R::spawn(async move {
                drop(self.raft.trigger().elect(false).await);
                self.campaign_again().await;
            }));
        }
    }

    /// Two campaigns at one moment leave each with its own vote, and nobody with a majority until Raft's own clocks run out. So each is repeated,
    /// at moments of its own, and with a question before it (pre-vote, Ongaro's dissertation, 9.6): a repeat never takes the lead from who has
    /// just got it, as a second campaign without one would.
    async fn campaign_again(&self) {
        let phase = AGAIN / 5 * u32::from(self.me().0 % 5);
        for turn in 1..=REPEATS {
            R::sleep(if turn == 1 { AGAIN + phase } else { AGAIN }).await;
            if self.leader().is_some() {
                return;
            }
            drop(self.raft.trigger().elect(true).await);
        }
    }

    async fn initialize(self: Arc<Self>, first: FirstStart) {
        let voters: BTreeMap<_, _> = first.config.voters().map(|node| (node, Seat::default())).collect();
        self.lock().first = Some(first);
        // Not empty, or not a voter: then this node has nothing to begin, as documented.
        if let Err(e) = self.raft.initialize(voters).await {
            tracing::info!(reason = %e, "no new log is begun here");
        }
    }

    // Watching openraft.

    async fn watch(self: Arc<Self>) {
        let mut metrics = self.raft.metrics();
        let mut told = None;
        loop {
            self.publish(&metrics.borrow_and_update(), &mut told);
            if metrics.changed().await.is_err() {
                return;
            }
        }
    }

    fn publish(&self, metrics: &RaftMetrics<Types<R>>, told: &mut Option<Option<NodeId>>) {
        let membership = metrics.membership_config.membership();
        let bound = membership.nodes().filter(|(_, seat)| seat.disk != 0).map(|(node, seat)| (*node, seat.disk));
        self.peers.bind(bound.collect());
        self.peers.lose(self.board.lost_disks());
        let law = self.board.law();
        if law.config_version != Version(0) {
            self.peers.keep(&law.nodes);
        }
        let applied = metrics.last_applied.map_or(0, |id| id.index);
        for (node, matching) in metrics.replication.iter().flatten().filter_map(|(node, at)| Some((*node, (*at)?.index))) {
            self.peers.holds(node, matching.min(applied));
        }
        self.board.update(|m| {
            *m = Metrics {
                leader: metrics.current_leader,
                is_leader: metrics.state == ServerState::Leader,
                term: metrics.current_term,
                last: LogIndex(metrics.last_log_index.unwrap_or(0)),
                applied: LogIndex(metrics.last_applied.map_or(0, |id| id.index)),
                snapshot: LogIndex(metrics.snapshot.map_or(0, |id| id.index)),
                voters: membership.voter_ids().collect(),
                learners: membership.learner_ids().collect(),
                ..std::mem::take(m)
            }
        });
        if told.replace(metrics.current_leader) != Some(metrics.current_leader) {
            if metrics.current_leader.is_some() {
                self.peers.campaign_against(None);
            }
            self.port.leader(metrics.current_leader);
        }
        if let Err(fatal) = &metrics.running_state
            && !matches!(fatal, openraft::errors::Fatal::Stopped)
        {
            self.faults.raise(Failure::Raft(fatal.to_string()));
        }
    }

    fn places(&self) -> BTreeMap<NodeId, Place> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<_> = membership.voter_ids().collect();
        let place = |(node, disk)| (node, Place { is_voter: voters.contains(&node), disk, is_stranger: self.peers.stranger(node).is_some() });
        let law = self.board.law();
        // Who was let go with its disk is still a node of the domain.
        let gone = law.lost_disks.iter().filter(|(node, _)| law.nodes.contains(node) && membership.get_node(node).is_none());
        membership.nodes().map(|(node, seat)| (*node, seat.disk)).chain(gone.map(|(node, disk)| (*node, *disk))).map(place).collect()
    }

    async fn turn(self: Arc<Self>) {
        let mut told = BTreeMap::new();
        loop {
            R::sleep(PROGRESS).await;
            let kept_out = self.peers.kept_out();
            self.board.update(|m| {
                m.refused_frames = kept_out.refused;
                m.misaddressed_frames = kept_out.misaddressed;
            });
            let places = self.places();
            if told != places {
                self.port.places(&places);
                told = places;
            }
            self.port.progress();
        }
    }

    // Answering peers.

    async fn serve(self: Arc<Self>, from: NodeId, correlation: u64, request: Request) {
        let reply = match request {
            Request::Vote { vote, last, transfer } => {
                let mut rpc = VoteRequest::new(vote.into(), last.map(Into::into));
                rpc.leadership_transfer = transfer;
                self.raft.vote(rpc).await.map_or(Reply::Unable, vote_reply)
            }
            Request::PreVote { vote, last } => {
                let rpc = VoteRequest::new(vote.into(), last.map(Into::into));
                self.raft.pre_vote(rpc).await.map_or(Reply::Unable, vote_reply)
            }
            Request::Append { vote, previous, entries, commit } => {
                let rpc = AppendEntriesRequest {
                    vote: vote.into(),
                    prev_log_id: previous.map(Into::into),
                    entries: entries.into_iter().map(Into::into).collect(),
                    leader_commit: commit.map(Into::into),
                };
                self.raft.append_entries(rpc).await.map_or(Reply::Unable, append_reply)
            }
            Request::Transfer { vote, to, last } => {
                let rpc = TransferLeaderRequest::new(vote.into(), to, last.map(Into::into));
                match self.raft.handle_transfer_leader(rpc).await {
                    Ok(Ok(())) => Reply::TransferAccepted,
                    Ok(Err(TransferLeaderError::VoteChanged { actual, .. })) => Reply::TransferRefusedVote(actual.into()),
                    Ok(Err(TransferLeaderError::LogNotFlushed { actual, .. })) => Reply::TransferRefusedLog(actual.map(Into::into)),
                    Err(_) => Reply::Unable,
                }
            }
            Request::SnapshotPart(part) => self.take_part(from, part).await,
            Request::Propose { proposal } => {
                if !self.is_new(from, correlation) {
                    return;
                }
                self.serve_proposal(proposal).await
            }
            Request::Who => Reply::Unable,
            Request::Relay { proposal } => {
                if !self.is_new(from, correlation) {
                    return;
                }
                self.relay(from, proposal).await
            }
        };
        self.peers.answer(from, correlation, reply);
    }

    fn is_new(&self, from: NodeId, correlation: u64) -> bool {
        let mut state = self.lock();
        let seen = state.forwarded.entry(from).or_default();
        if seen.contains(&correlation) {
            return false;
        }
        seen.push_back(correlation);
        if seen.len() > FORWARDED_MAX {
            seen.pop_front();
        }
        true
    }

    async fn take_part(&self, from: NodeId, part: SnapshotPart) -> Reply {
        let bytes = {
            let mut state = self.lock();
            if part.offset == 0 {
                state.incoming.insert(from, Incoming { transfer: part.transfer, bytes: Vec::new() });
            }
            let Some(incoming) = state.incoming.get_mut(&from).filter(|i| i.transfer == part.transfer) else {
                return Reply::Unable;
            };
            if incoming.bytes.len() as u64 == part.offset {
                incoming.bytes.extend_from_slice(&part.bytes);
            }
            let next = incoming.bytes.len() as u64;
            if next < part.total {
                return Reply::SnapshotPart { next };
            }
            state.incoming.remove(&from).map(|i| i.bytes).unwrap_or_default()
        };
        match Content::decode(&bytes, self.reads) {
            Ok(content) => {
                let snapshot = Snapshot { meta: content.meta(), snapshot: bytes.into() };
                let installed = self.raft.install_full_snapshot(part.vote.into(), snapshot).await;
                installed.map_or(Reply::Unable, |done| Reply::SnapshotDone { vote: done.vote.into() })
            }
            Err(e @ (OpenError::Format { .. } | OpenError::TooNew { .. })) => {
                self.faults.raise(Failure::Snapshot(e.to_string()));
                Reply::Unable
            }
            Err(_) => Reply::Unable,
        }
    }

    // Keeping the membership.

    async fn govern(self: Arc<Self>) {
        loop {
            // Until every founder's disk is bound, one that is lost would vote anew: that is not to last.
            R::sleep(if self.is_founded() { self.timing.heartbeat } else { self.timing.retry() }).await;
            let leads = self.raft.metrics().borrow_watched().state == ServerState::Leader;
            if leads {
                // What fails now is found undone next time.
                drop(R::timeout(self.timing.propose, self.govern_once()).await);
            }
        }
    }

    /// Whether the domain has its first configuration, and its membership knows everybody's disk.
    fn is_founded(&self) -> bool {
        let metrics = self.raft.metrics().borrow_watched().clone();
        self.board.law().config_version != Version(0) && metrics.membership_config.nodes().all(|(_, seat)| seat.disk != 0)
    }

    /// One step towards the membership that the configuration asks for.
    async fn govern_once(&self) {
        let law = self.board.law();
        // The disks come before all else that is to last.
        if let Some(disks) = self.newly_bound() {
            return self.change(ChangeMembers::SetNodes(disks)).await;
        }
        if law.config_version == Version(0) {
            return self.commit_first().await;
        }
        self.call_the_missing(&law);
        self.declare_lost(&law).await;
        if let Some(change) = self.next_change(&law) {
            self.change(change).await;
        }
    }

    async fn change(&self, change: ChangeMembers<NodeId, Seat>) {
        tracing::info!(?change, "changing the membership");
        // A node that is not a voter any more stays as a learner only if the configuration still names it.
        if let Err(e) = self.raft.change_membership(change, true).await {
            tracing::debug!(reason = %e, "the membership is as it was");
        }
    }

    /// The disks of those that have spoken, and of whom the membership knows none yet.
    fn newly_bound(&self) -> Option<BTreeMap<NodeId, Seat>> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        if metrics.last_applied < *metrics.membership_config.log_id() {
            return None; // one change at a time: the founding itself is not committed yet
        }
        let unbound = metrics.membership_config.nodes().filter(|(_, seat)| seat.disk == 0);
        let bound: BTreeMap<_, _> = unbound.filter_map(|(node, _)| Some((*node, Seat { disk: self.peers.heard(*node)? }))).collect();
        (!bound.is_empty()).then_some(bound)
    }

    async fn commit_first(&self) {
        let Some(first) = self.lock().first.clone() else { return };
        let entries = [
            Entry::Configure { expected: Version(0), config: first.config },
            Entry::Bundle { expected: Version(0), bundle: first.bundle },
        ];
        for entry in entries {
            let proposal = Proposal { by: self.me(), ticket: 0, cause: None, entry };
            drop(self.raft.client_write(Command(proposal.encode().into())).await);
        }
    }

    /// That a disk went back needs no operator's word: whoever led when it was not yet old can tell.
    async fn declare_lost(&self, law: &super::Law) {
        for (node, disk) in self.peers.older().into_iter().filter(|(node, disk)| law.lost_disks.get(node) != Some(disk)) {
            let proposal = Proposal { by: self.me(), ticket: 0, cause: None, entry: Entry::DiskLost { node, disk } };
            drop(self.raft.client_write(Command(proposal.encode().into())).await);
        }
    }

    /// Those that the configuration names and the membership does not, and of whose disk nothing is known.
    fn call_the_missing(&self, law: &super::Law) {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let unknown = law.nodes.iter().filter(|n| membership.get_node(n).is_none() && self.peers.heard(**n).is_none());
        for node in unknown.copied() {
            let (peers, timeout) = (self.peers.clone(), self.timing.heartbeat);
            drop(R::spawn(async move { drop(peers.ask(node, Request::Who, timeout).await) }));
        }
    }

    /// One thing at a time: let lost ones go, take in, promote or demote, let go.
    fn next_change(&self, law: &super::Law) -> Option<ChangeMembers<NodeId, Seat>> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let seats: BTreeMap<_, _> = membership.nodes().map(|(node, seat)| (*node, *seat)).collect();
        let voters: BTreeSet<_> = membership.voter_ids().collect();
        let seat_of = |node: &NodeId| self.peers.heard(*node).map(|disk| Seat { disk });

        // First without a vote, then out; taking it in again with its new disk is the ordinary way.
        let is_lost = |node: &&NodeId| law.lost_disks.get(node).is_some_and(|lost| *lost == seats[node].disk);
        if let Some(node) = seats.keys().filter(is_lost).find(|node| self.peers.stranger(**node).is_some()) {
            let only = BTreeSet::from([*node]);
            return if voters.contains(node) { (voters.len() > 1).then_some(ChangeMembers::RemoveVoters(only)) } else { Some(ChangeMembers::RemoveNodes(only)) };
        }
        let is_fit = |node: &&NodeId| !seats.contains_key(node) && self.peers.stranger(**node).is_none(); // a disk that is lost stays lost
        let missing: BTreeMap<_, _> = law.nodes.iter().filter(is_fit).filter_map(|n| Some((*n, seat_of(n)?))).collect();
        if !missing.is_empty() {
            return Some(ChangeMembers::AddNodes(missing));
        }
        let replication = metrics.replication.unwrap_or_default();
        // A learner that is still far behind would only be one more whose word is missing.
        let caught_up = |node: &NodeId| {
            let matching = replication.get(node).copied().flatten().map_or(0, |id| id.index);
            matching + self.timing.keep_entries >= metrics.last_log_index.unwrap_or(0)
        };
        let ready = law.voters.iter().filter(|n| voters.contains(n) || (seats.contains_key(n) && caught_up(n)));
        let wanted: BTreeSet<_> = ready.copied().collect();
        if wanted != voters && !wanted.is_empty() {
            return Some(ChangeMembers::ReplaceAllVoters(wanted));
        }
        let gone: BTreeSet<_> = seats.keys().filter(|n| !law.nodes.contains(n) && !voters.contains(n)).copied().collect();
        (!gone.is_empty()).then_some(ChangeMembers::RemoveNodes(gone))
    }
}

fn vote_reply<R: AsyncRuntime>(response: openraft::raft::VoteResponse<Types<R>>) -> Reply {
    Reply::Vote { vote: response.vote.into(), granted: response.vote_granted, last: response.last_log_id.map(Into::into) }
}

fn append_reply<R: AsyncRuntime>(response: AppendEntriesResponse<Types<R>>) -> Reply {
    match response {
        AppendEntriesResponse::Success => Reply::Appended,
        AppendEntriesResponse::PartialSuccess(last) => Reply::AppendedUpTo(last.map(Into::into)),
        AppendEntriesResponse::Conflict => Reply::Conflict,
        AppendEntriesResponse::HigherVote(vote) => Reply::HigherVote(vote.into()),
    }
}
