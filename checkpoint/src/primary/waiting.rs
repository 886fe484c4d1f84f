//! Writes and reads that wait for copies.

use std::collections::{BTreeMap, VecDeque};

use sixnines_core::ids::{Epoch, Sequence};
use sixnines_core::time::Instant;

use super::Primary;
use crate::bytes::Bytes;
use crate::config::Fault;
use crate::copy::{Output, Read, Shared, Ticket};
use crate::outcome::{Answer, Cursor, Doubt, Limit, Outcome, Refusal};
use crate::state::Section;

/// Writes, by the record that every copy must hold.
#[derive(Debug, Default)]
pub(super) struct Writes {
    by_sequence: BTreeMap<(Sequence, u64), WaitingWrite>,
    pushed: u64,
    /// No waiting write has a higher floor.
    floor_max: u8,
}

#[derive(Debug)]
struct WaitingWrite {
    ticket: Ticket,
    /// Where it stands, or why it changed nothing.
    applied: Result<Cursor, Refusal>,
    floor: u8,
    since: Instant,
}

/// Reads, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Reads {
    waiting: VecDeque<WaitingRead>,
    asked: u64,
    /// When the members are asked again to confirm the epoch.
    again_at: Option<Instant>,
}

#[derive(Debug)]
struct WaitingRead {
    ticket: Ticket,
    key: Bytes,
    section: Option<Section>,
    sequence: Sequence,
    /// The members must confirm the epoch under this number or a later one.
    number: u64,
    since: Instant,
}

impl Writes {
    pub(super) fn push(&mut self, ticket: Ticket, until: Sequence, applied: Result<Cursor, Refusal>, floor: u8, since: Instant) {
        self.pushed += 1;
        self.floor_max = if self.by_sequence.is_empty() { floor } else { self.floor_max.max(floor) };
        self.by_sequence.insert((until, self.pushed), WaitingWrite { ticket, applied, floor, since });
    }

    pub(super) fn len(&self) -> usize {
        self.by_sequence.len()
    }

    /// The newest record that somebody waits for.
    fn newest(&self) -> Option<Sequence> {
        self.by_sequence.last_key_value().map(|((s, _), _)| *s)
    }

    /// One that waits for nothing but the copies that it now has.
    fn take_due(&mut self, held: Sequence, copies: u8) -> Option<WaitingWrite> {
        let due = self.by_sequence.range(..=(held, u64::MAX)).find(|(_, w)| copies >= w.floor);
        let key = *due?.0;
        self.by_sequence.remove(&key)
    }

    pub(super) fn stop(&mut self, shared: &mut Shared) {
        let doubt = Doubt::Fenced { by: shared.seen };
        for write in std::mem::take(&mut self.by_sequence).into_values() {
            let outcome = write.applied.map_or_else(Outcome::NotApplied, |_| Outcome::Unknown(doubt));
            shared.out.push_back(Output::Acknowledged { ticket: write.ticket, outcome });
        }
    }
}

impl Reads {
    /// The number under which members are to confirm the epoch; 0 while nobody asks.
    pub(super) fn asked(&self, shared: &Shared) -> u64 {
        if self.waiting.is_empty() || shared.lease { 0 } else { self.asked }
    }

    pub(super) fn stop(&mut self, shared: &mut Shared) {
        let answer = Answer::Refused(Refusal::Fenced { by: shared.seen });
        for read in self.waiting.drain(..) {
            shared.out.push_back(Output::Answered { ticket: read.ticket, answer: answer.clone() });
        }
    }
}

impl Primary {
    /// Takes a read: its answer is what this copy has now, once that may be shown (protocol 2.2).
    pub(super) fn ask(&mut self, shared: &mut Shared, read: Read) {
        let refusal = if read.epoch != self.epoch {
            Some(Refusal::Fenced { by: shared.seen })
        } else if self.reads.waiting.len() >= shared.config.limits.waiting_max {
            Some(Refusal::NoSpace(Limit::Waiting))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            let answer = Answer::Refused(refusal);
            shared.out.push_back(Output::Answered { ticket: read.ticket, answer });
            return;
        }
        let section = shared.store.state().section(&read.key).cloned();
        let sequence = shared.store.head().sequence;
        self.reads.asked += 1;
        self.reads.again_at.get_or_insert(shared.now + shared.config.times.resend);
        let waiting = WaitingRead { ticket: read.ticket, key: read.key, section, sequence, number: self.reads.asked, since: shared.now };
        self.reads.waiting.push_back(waiting);
    }

    pub(super) fn settle_writes(&mut self, shared: &mut Shared) {
        let copies = count(shared.row.in_sync.len());
        let protected = copies >= shared.config.copies;
        while let Some(write) = self.writes.take_due(shared.store.held(), copies) {
            let outcome = match write.applied {
                Ok(cursor) => Outcome::Applied { cursor, copies, protected },
                Err(refusal) => Outcome::NotApplied(refusal),
            };
            self.deliver(shared, write.ticket, outcome);
        }
    }

    pub(super) fn settle_reads(&mut self, shared: &mut Shared) {
        while let Some(front) = self.reads.waiting.front() {
            let counted = shared.store.held() >= front.sequence || shared.config.has(Fault::ReadUncounted);
            let number = front.number;
            let confirmed = |m| self.peers.get(m).is_some_and(|p| p.confirmed >= number);
            let fresh = shared.lease || self.needed.iter().all(confirmed) || shared.config.has(Fault::ReadWithoutAsking);
            if !counted || !fresh {
                return;
            }
            let read = self.reads.waiting.pop_front().expect("it was the front");
            let answer = Answer::Section { section: read.section, fresh: true };
            shared.out.push_back(Output::Answered { ticket: read.ticket, answer });
        }
        self.reads.again_at = None;
    }

    /// Answers that come late rather than never, and say so.
    pub(super) fn give_up_waiting(&mut self, shared: &mut Shared) {
        let times = &shared.config.times;
        if let Some(again) = self.reads.again_at.filter(|at| *at <= shared.now) {
            self.reads.again_at = Some(again.max(shared.now) + times.resend);
            self.peers.values_mut().for_each(|p| p.ask_again());
        }
        while let Some(front) = self.reads.waiting.front()
            && front.since + times.read_wait <= shared.now
        {
            let read = self.reads.waiting.pop_front().expect("it was the front");
            let section = shared.store.held_section(&read.key).cloned();
            let answer = Answer::Section { section, fresh: false };
            shared.out.push_back(Output::Answered { ticket: read.ticket, answer });
        }
        self.give_up_floors(shared);
    }

    fn give_up_floors(&mut self, shared: &mut Shared) {
        let copies = self.reachable_copies(shared).min(count(shared.row.in_sync.len()));
        let due: Vec<_> = self.short_of_floor(shared).filter(|(_, until)| *until <= shared.now).map(|(key, _)| key).collect();
        for key in due {
            let Some(write) = self.writes.by_sequence.remove(&key) else { continue };
            let doubt = Doubt::TooFewCopies { copies, floor: write.floor };
            let outcome = write.applied.map_or_else(Outcome::NotApplied, |_| Outcome::Unknown(doubt));
            shared.out.push_back(Output::Acknowledged { ticket: write.ticket, outcome });
        }
    }

    /// Writes whose floor is not reached, and until when they wait.
    fn short_of_floor(&self, shared: &Shared) -> impl Iterator<Item = ((Sequence, u64), Instant)> {
        let copies = self.usable_copies(shared);
        let patience = shared.config.times.floor_wait;
        let none = self.writes.by_sequence.is_empty() || copies >= self.writes.floor_max;
        let all = self.writes.by_sequence.iter().take(if none { 0 } else { usize::MAX });
        let short = all.filter(move |(_, w)| copies < w.floor);
        short.map(move |(key, w)| (*key, w.since + patience))
    }

    pub(super) fn waiting_timeout(&self, shared: &Shared) -> Option<Instant> {
        let reads = self.reads.waiting.front().map(|r| r.since + shared.config.times.read_wait);
        let floors = self.short_of_floor(shared).map(|(_, until)| until).min();
        let again = self.reads.again_at.filter(|_| !shared.lease);
        [reads, floors, again].into_iter().flatten().min()
    }

    /// The newest record that a write, a read or a handover waits for, and since when the oldest read waits for confirmation.
    pub(super) fn wanted(&self, shared: &Shared) -> Option<Sequence> {
        let held = shared.store.held();
        let write = self.writes.newest().filter(|s| *s > held);
        let read = self.reads.waiting.back().map(|r| r.sequence).filter(|s| *s > held);
        let handover = self.quiesce.as_ref().filter(|q| q.done_at.is_none()).map(|_| shared.store.head().sequence);
        write.max(read).max(handover)
    }

    /// What the oldest read asks the members to confirm, and since when.
    pub(super) fn unconfirmed(&self, shared: &Shared) -> Option<(u64, Instant)> {
        self.reads.waiting.front().filter(|_| !shared.lease).map(|r| (r.number, r.since))
    }
}

/// What an outcome becomes when a higher epoch came before it could leave.
pub(super) fn fenced(outcome: Outcome, by: Epoch) -> Outcome {
    match outcome {
        Outcome::Applied { .. } | Outcome::Async { .. } => Outcome::Unknown(Doubt::Fenced { by }),
        known => known,
    }
}

pub(super) fn count(members: usize) -> u8 {
    u8::try_from(members).unwrap_or(u8::MAX)
}
