//! The active's side of a copy, for one epoch: takes writes, streams them to every replica, and acknowledges what is safe.
//!
//! Safe (protocol 2.1): every member of the committed in-sync set, joined with every set proposed on that version whose outcome
//! is unknown, has reported a cursor at or past the write, under this epoch and in the life that the set names. It never counts a
//! proposed smaller set, and never stops counting a proposed larger one before a later row settles it.
//! The pattern is PacificA's (Lin et al., 2008): the control log decides who is in the set, data never goes through it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sixnines_core::ids::{Epoch, Generation, Member, Sequence, Version};
use sixnines_core::time::Instant;

use crate::config::Fault;
use crate::copy::{Output, Read, Shared, StatusPeer, Ticket, Write};
use crate::outcome::{Cursor, Level, Limit, Outcome, Refusal};
use crate::store::Run;
use crate::wire::{PeerFault, Report};

mod peer;
mod sync;
mod waiting;

use peer::{Flow, Peer};
use waiting::{Reads, Writes};

/// See the module.
#[derive(Debug)]
pub(crate) struct Primary {
    epoch: Epoch,
    /// The head at the epoch's start: all of it may have been acknowledged by a former active (protocol 1.4).
    inherited: Sequence,
    peers: BTreeMap<Member, Peer>,
    /// Sets proposed on the present version; each may yet become law.
    open: BTreeSet<BTreeSet<Member>>,
    proposed_at: Option<Instant>,
    /// The committed set joined with the open ones, this copy left out.
    needed: Vec<Member>,
    writes: Writes,
    reads: Reads,
    /// Outcomes that wait for the lease.
    suspended: VecDeque<(Ticket, Outcome)>,
    /// The newest write acknowledged as replicated.
    acknowledged: Sequence,
    /// Writes acknowledged at once that not every copy holds yet.
    asynchronous: VecDeque<Sequence>,
    quiesce: Option<Quiesce>,
    transfers: u64,
    /// When replicas are to be told what all hold, if no record does it before.
    notice_at: Option<Instant>,
}

#[derive(Debug)]
struct Quiesce {
    target: Member,
    /// The row's version at which everything was handed over; only a later one ends this state.
    done_at: Option<Version>,
}

/// Peers of a group: no domain has more nodes.
const PEERS_MAX: usize = 32;

impl Primary {
    pub(crate) fn new(epoch: Epoch, shared: &mut Shared) -> Self {
        let mut primary = Self {
            epoch,
            inherited: shared.store.head().sequence,
            peers: BTreeMap::new(),
            open: BTreeSet::new(),
            proposed_at: None,
            needed: Vec::new(),
            writes: Writes::default(),
            reads: Reads::default(),
            suspended: VecDeque::new(),
            acknowledged: Sequence(0),
            asynchronous: VecDeque::new(),
            quiesce: None,
            transfers: 0,
            notice_at: None,
        };
        primary.count_needed(shared);
        primary.advance(shared);
        primary
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(crate) fn loss_window(&self) -> u64 {
        self.asynchronous.len() as u64
    }

    /// A later version settles every proposal made on the one before (protocol 1.2).
    pub(crate) fn on_row(&mut self, shared: &mut Shared) {
        // Whoever has left the set may be a life that is over: what it said does not make it a newcomer.
        for member in self.needed.iter().filter(|m| !shared.row.in_sync.contains(m)) {
            if let Some(peer) = self.peers.get_mut(member) {
                peer.must_speak_again(shared.now);
            }
        }
        self.open.clear();
        self.proposed_at = None;
        self.count_needed(shared);
        if let Some(Quiesce { target, done_at: Some(_) }) = self.quiesce {
            self.quiesce = None; // What was to follow was made for another version: it does nothing any more.
            shared.out.push_back(Output::QuiesceFailed { target });
        }
        self.advance(shared);
    }

    /// Takes a write, or says why not.
    pub(crate) fn write(&mut self, shared: &mut Shared, write: Write) {
        match self.try_write(shared, &write) {
            Ok(()) => self.advance(shared),
            Err(refusal) => {
                let outcome = Outcome::NotApplied(refusal);
                shared.out.push_back(Output::Acknowledged { ticket: write.ticket, outcome });
            }
        }
    }

    fn try_write(&mut self, shared: &mut Shared, write: &Write) -> Result<(), Refusal> {
        if write.epoch != self.epoch {
            return Err(Refusal::Fenced { by: shared.seen });
        }
        if self.is_quiet(shared) {
            return Err(Refusal::Quiescing);
        }
        let limits = &shared.config.limits;
        if self.writes.len() + self.suspended.len() >= limits.waiting_max {
            return Err(Refusal::NoSpace(Limit::Waiting));
        }
        let floor = match write.level {
            Level::Replicated { floor } => floor.max(shared.config.floor),
            Level::Async => 0,
        };
        let copies = self.reachable_copies(shared);
        if copies < floor {
            return Err(Refusal::TooFewCopies { copies, floor });
        }
        let known = write.request.and_then(|id| shared.store.state().request(id));
        if let Some(cursor) = known.filter(|_| !shared.config.has(Fault::RepeatAppliedAgain)) {
            // Applied once; but the answer waits for the copies like the first one (protocol 2.2).
            let at_once = shared.config.has(Fault::RetryAtOnce);
            let until = if at_once { Sequence(0) } else { cursor.sequence };
            self.writes.push(write.ticket, until, Ok(cursor), floor, shared.now);
            return Ok(());
        }
        if write.ops.is_empty() && write.request.is_none() {
            let head = shared.store.head();
            self.writes.push(write.ticket, head.sequence, Ok(head), floor, shared.now);
            return Ok(());
        }
        if shared.store.bytes_between(shared.store.held(), shared.store.head().sequence) > limits.unheld_bytes_max as u64 {
            return Err(Refusal::NoSpace(Limit::Unheld));
        }
        match shared.store.execute(self.epoch, write.request, &write.ops, limits) {
            Ok(cursor) => self.written(shared, write, cursor, floor),
            // The other version may itself be a write that nobody else holds: this answer shows it, so it waits too.
            Err(Refusal::Conflict { index }) => {
                let head = shared.store.head().sequence;
                self.writes.push(write.ticket, head, Err(Refusal::Conflict { index }), floor, shared.now);
            }
            Err(refusal) => return Err(refusal),
        }
        Ok(())
    }

    fn written(&mut self, shared: &mut Shared, write: &Write, cursor: Cursor, floor: u8) {
        shared.followed_itself(cursor.sequence);
        for peer in self.peers.values_mut() {
            peer.owed_since.get_or_insert(shared.now);
        }
        match write.level {
            Level::Replicated { .. } => self.writes.push(write.ticket, cursor.sequence, Ok(cursor), floor, shared.now),
            Level::Async => {
                self.asynchronous.push_back(cursor.sequence);
                if self.asynchronous.len() == 1 {
                    shared.out.push_back(Output::LossWindow(1));
                }
                self.deliver(shared, write.ticket, Outcome::Async { cursor });
            }
        }
    }

    pub(crate) fn read(&mut self, shared: &mut Shared, read: Read) {
        self.ask(shared, read);
        self.advance(shared);
    }

    /// A replica wants to know where it parts from this copy (protocol 2.5).
    pub(crate) fn align(&mut self, shared: &mut Shared, from: Member, generation: Generation, runs: &[Run]) -> Result<(), PeerFault> {
        if runs.len() > shared.config.limits.runs_max {
            return Err(PeerFault::Limits { from });
        }
        let by_sequence = shared.config.has(Fault::MatchBySequence);
        let transfer = self.transfers + 1;
        let Some(peer) = self.peer(shared, from) else { return Ok(()) };
        peer.heard();
        let asked_before = match peer.flow {
            Flow::Unaligned => false,
            Flow::Streaming { .. } => peer.acked.is_some(),
            Flow::Transfer(_) => true,
        };
        if asked_before {
            return Ok(()); // What answers it is on its way, and is sent again in time.
        }
        let same_state = generation == shared.store.generation();
        let mut common = shared.store.last_common(runs).filter(|_| same_state);
        if by_sequence {
            let last = runs.iter().map(|r| r.last).max().unwrap_or_default().min(shared.store.head().sequence);
            common = shared.store.position(last);
        }
        match common {
            Some(at) => peer.stream_from(shared, from, at),
            None => {
                peer.transfer_from(shared, transfer);
                self.transfers = transfer;
            }
        }
        self.advance(shared);
        Ok(())
    }

    /// A replica says how much it has, under this epoch.
    pub(crate) fn report(&mut self, shared: &mut Shared, from: Member, report: Report) -> Result<(), PeerFault> {
        let head = shared.store.head().sequence;
        let ahead = report.cursor.filter(|c| c.sequence > head && !shared.config.has(Fault::ReportBeforeAligned));
        let unlike = report.cursor.filter(|c| shared.store.position(c.sequence).is_some_and(|p| p != *c) && !any_match(shared));
        if let Some(cursor) = ahead.or(unlike) {
            return Err(PeerFault::Position { from, cursor });
        }
        let Some(peer) = self.peer(shared, from) else { return Ok(()) };
        peer.report(shared, &report);
        self.advance(shared);
        Ok(())
    }

    pub(crate) fn reach(&mut self, shared: &mut Shared, member: Member, reachable: bool) {
        if let Some(peer) = self.peers.get_mut(&member) {
            peer.reach(shared, reachable);
        }
        self.advance(shared);
    }

    pub(crate) fn lease_changed(&mut self, shared: &mut Shared) {
        while shared.lease
            && let Some((ticket, outcome)) = self.suspended.pop_front()
        {
            self.note_acknowledged(outcome);
            shared.out.push_back(Output::Acknowledged { ticket, outcome });
        }
        self.advance(shared);
    }

    /// Rule 1.6, first half.
    pub(crate) fn quiesce(&mut self, shared: &mut Shared, target: Member) {
        if self.quiesce.as_ref().is_none_or(|q| q.done_at.is_none()) {
            self.quiesce = Some(Quiesce { target, done_at: None });
        }
        self.advance(shared);
    }

    pub(crate) fn unquiesce(&mut self, _shared: &mut Shared) {
        self.quiesce = None;
    }

    pub(crate) fn timeout(&mut self, shared: &mut Shared) {
        for (member, peer) in &mut self.peers {
            peer.timeout(shared, *member);
        }
        if shared.config.has(Fault::ResumeUnsettled) {
            self.quiesce = None;
        }
        self.give_up_waiting(shared);
        self.advance(shared);
    }

    /// The role is over: what was not answered is unknown, for the next active may have it or not.
    pub(crate) fn stop(&mut self, shared: &mut Shared) {
        self.writes.stop(shared);
        self.reads.stop(shared);
        for (ticket, outcome) in self.suspended.drain(..) {
            let outcome = waiting::fenced(outcome, shared.seen);
            shared.out.push_back(Output::Acknowledged { ticket, outcome });
        }
        if !self.asynchronous.is_empty() {
            shared.out.push_back(Output::LossWindow(0));
        }
    }

    pub(crate) fn status_peers(&self, shared: &Shared) -> Vec<StatusPeer> {
        self.peers.iter().map(|(member, peer)| peer.status(shared, *member)).collect()
    }

    /// Sends what is due. Called when nothing else is to be done, so that many writes share a frame.
    pub(crate) fn pump(&mut self, shared: &mut Shared) {
        let tell = self.notice_at.is_some_and(|at| at <= shared.now);
        let asked = self.reads.asked(shared);
        for (member, peer) in &mut self.peers {
            if peer.pump(shared, *member, tell, asked) {
                self.transfers += 1; // Its backlog is gone.
                peer.transfer_from(shared, self.transfers);
                peer.pump(shared, *member, tell, asked);
            }
        }
        if tell {
            // Told again if it is not reported: a notice can get lost like anything else.
            self.notice_at = Some(shared.now + shared.config.times.resend);
            self.peers.values_mut().for_each(Peer::tell_again);
        }
        let held = shared.store.held();
        self.notice_at = self.notice_at.filter(|_| self.peers.values().any(|p| p.is_untold(held)));
    }

    pub(crate) fn poll_timeout(&self, shared: &Shared) -> Option<Instant> {
        let peers = self.peers.values().filter_map(Peer::poll_timeout);
        peers.chain(self.notice_at).chain(self.waiting_timeout(shared)).chain(self.sync_timeout(shared)).min()
    }

    /// Everything that may follow from any input, in the order in which one makes the next possible.
    fn advance(&mut self, shared: &mut Shared) {
        let safe = self.needed.iter().map(|m| self.peers.get(m).and_then(|p| p.acked)).min();
        let safe = safe.unwrap_or(Some(shared.store.head().sequence));
        if let Some(safe) = safe
            && shared.store.advance_held(safe, &shared.config.limits)
        {
            self.shrink_loss_window(shared);
        }
        let held = shared.store.held();
        if self.notice_at.is_none() && self.peers.values().any(|p| p.is_untold(held)) {
            self.notice_at = Some(shared.now + shared.config.times.held_notice);
        }
        self.settle_writes(shared);
        self.settle_reads(shared);
        self.consider_sync(shared);
        self.settle_quiesce(shared);
    }

    fn shrink_loss_window(&mut self, shared: &mut Shared) {
        if self.asynchronous.is_empty() {
            return;
        }
        let held = shared.store.held();
        while self.asynchronous.front().is_some_and(|s| *s <= held) {
            self.asynchronous.pop_front();
        }
        if self.asynchronous.is_empty() {
            shared.out.push_back(Output::LossWindow(0));
        }
    }

    fn settle_quiesce(&mut self, shared: &mut Shared) {
        let Some(Quiesce { target, done_at: None }) = self.quiesce else { return };
        if !shared.row.in_sync.contains(&target) {
            self.quiesce = None;
            shared.out.push_back(Output::QuiesceFailed { target });
            return;
        }
        let cursor = shared.store.head();
        let has_all = self.peers.get(&target).is_some_and(|p| p.acked == Some(cursor.sequence));
        let drained = has_all && shared.store.held() == cursor.sequence;
        if drained || shared.config.has(Fault::QuiescedUndrained) {
            self.quiesce = Some(Quiesce { target, done_at: Some(shared.row.version) });
            shared.out.push_back(Output::Quiesced { target, cursor });
        }
    }

    fn is_quiet(&self, shared: &Shared) -> bool {
        self.quiesce.as_ref().is_some_and(|q| q.done_at.is_some() || !shared.config.has(Fault::QuiescedUndrained))
    }

    /// An outcome leaves only under a valid lease.
    fn deliver(&mut self, shared: &mut Shared, ticket: Ticket, outcome: Outcome) {
        if shared.lease {
            self.note_acknowledged(outcome);
            shared.out.push_back(Output::Acknowledged { ticket, outcome });
        } else {
            self.suspended.push_back((ticket, outcome));
        }
    }

    fn note_acknowledged(&mut self, outcome: Outcome) {
        if let Outcome::Applied { cursor, .. } = outcome {
            self.acknowledged = self.acknowledged.max(cursor.sequence);
        }
    }

    /// The peer that `member` is. A younger life of its node takes the older one's place; an older one is nobody.
    fn peer(&mut self, shared: &Shared, member: Member) -> Option<&mut Peer> {
        if member.node == shared.me.node {
            return None;
        }
        if !self.peers.contains_key(&member) {
            let lives = self.peers.range(Member { incarnation: Default::default(), ..member }..);
            let other = lives.map(|(m, p)| (*m, p.acked)).find(|(m, _)| m.node == member.node);
            if other.is_some_and(|(m, _)| m.incarnation > member.incarnation) || self.peers.len() >= PEERS_MAX {
                return None;
            }
            let mut peer = Peer::new(shared.now);
            if let Some((older, acked)) = other {
                self.peers.remove(&older);
                if shared.config.has(Fault::NoIncarnations) {
                    peer.acked = acked;
                }
            }
            self.peers.insert(member, peer);
        }
        self.peers.get_mut(&member)
    }
}

/// Faults under which positions are not compared.
fn any_match(shared: &Shared) -> bool {
    [Fault::MatchBySequence, Fault::ReportBeforeAligned, Fault::OldEpochAccepted].iter().any(|f| shared.config.has(*f))
}
