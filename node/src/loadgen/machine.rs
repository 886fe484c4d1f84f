//! The load generator's decisions: what to send when, what to send again, and what each answer proves. Pure.
//!
//! Open loop: [`Machine::tick`] is called once for every millisecond of the schedule, also for those that the shell slept
//! through, so an outage cannot make the client ask less (no coordinated omission). One request of a call is under way at a
//! time; so the client knows, for every call, how many of its changes were acknowledged and in which order, and every later
//! answer must show exactly those. That is all the bookkeeping there is, and none of it is shared with the server.
//!
//! Bounds: at most one pending request per call, plus [`READS_OPEN_MAX`] reads.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sixnines_core::time::Instant;

use super::record::Record;
use super::wire::{Answer, Op, Request, Verdict, fold};

/// Repeats sent in one turn; the oldest go first, the rest wait for the next turn.
const REPEATS_PER_TURN: usize = 2;
/// A request is given up, its outcome unknown, when it has had no answer for so long.
const GIVE_UP: Duration = Duration::from_secs(30);
/// Between a request and its first repeat; doubled each time up to [`REPEAT_MAX`].
const REPEAT_FIRST: Duration = Duration::from_millis(25);
const REPEAT_MAX: Duration = Duration::from_millis(400);
/// Calls set up in one turn until all are up, besides the schedule's own request.
const SETUPS_PER_TURN: usize = 2;
/// Reads begun in one turn, and open at most.
const READS_PER_TURN: usize = 4;
const READS_OPEN_MAX: usize = 256;
/// A reading back that is not done after so long ends, and what it did not hear counts as unread.
const READ_BACK_MAX: Duration = Duration::from_secs(10);
/// Every so manieth turn of a call releases it instead of updating it.
const RELEASE_EVERY: u64 = 16;

/// What the machine asks of its owner.
#[must_use]
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Output {
    /// Send this.
    Send(Request),
    /// A reading back has ended.
    ReadBack(ReadBack),
}

/// What a reading back found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReadBack {
    /// Calls that were asked for.
    pub(crate) calls: u64,
    /// Acknowledged changes that these calls should show.
    pub(crate) acknowledged: u64,
    /// Acknowledged changes that they do not show, over the client's whole life.
    pub(crate) lost: u64,
    /// Changes applied more than once, over the client's whole life.
    pub(crate) doubled: u64,
    /// Calls of which nothing was heard: not lost, and not proven either.
    pub(crate) unread: u64,
}

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Machine {
    client: u64,
    calls: Vec<Call>,
    turn: usize,
    absent: usize,
    next_sequence: u64,
    pending: BTreeMap<u64, Pending>,
    repeats: BTreeSet<(Instant, u64)>,
    reading: Option<Reading>,
    loading: bool,
    lost: u64,
    doubled: u64,
    outputs: VecDeque<Output>,
    /// What was seen.
    pub(crate) record: Record,
}

#[derive(Clone, Copy, Debug, Default)]
struct Call {
    /// Acknowledged changes.
    applied: u64,
    digest: u64,
    up: bool,
    ever_up: bool,
    busy: bool,
    /// A request was given up or a loss was counted: the next answer is taken as it is.
    unclear: bool,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    request: Request,
    scheduled: Instant,
    /// What the call must at least show: its acknowledged changes when this was first sent.
    applied: u64,
    digest: u64,
    repeat_at: Instant,
}

#[derive(Debug)]
struct Reading {
    calls: VecDeque<u32>,
    open: u64,
    began: Instant,
    result: ReadBack,
}

impl Machine {
    /// A client with `calls` calls, none of them set up yet.
    pub(crate) fn new(client: u64, calls: u32, now: Instant) -> Self {
        Self {
            client,
            calls: vec![Call::default(); calls as usize],
            turn: 0,
            absent: 0,
            next_sequence: 1,
            pending: BTreeMap::new(),
            repeats: BTreeSet::new(),
            reading: None,
            loading: true,
            lost: 0,
            doubled: 0,
            outputs: VecDeque::new(),
            record: Record::new(now),
        }
    }

    /// Stops new changes. What is under way goes on until it is answered.
    pub(crate) fn stop_loading(&mut self) {
        self.loading = false;
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Calls that were set up, safely.
    pub(crate) fn calls_up(&self) -> usize {
        self.calls.iter().filter(|c| c.ever_up).count()
    }

    /// Begins to read every call back; the result comes as [`Output::ReadBack`]. A reading under way starts anew.
    pub(crate) fn read_back(&mut self, now: Instant) {
        let calls: VecDeque<_> = (0u32..).zip(&self.calls).filter(|(_, c)| c.ever_up).map(|(n, _)| n).collect();
        self.pending.retain(|_, p| p.request.op != Op::Query);
        let result = ReadBack { calls: calls.len() as u64, ..ReadBack::default() };
        self.reading = Some(Reading { calls, open: 0, began: now, result });
        self.finish_reading(now);
    }

    /// What the machine asks for, in order.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// One turn of the schedule. `scheduled` is when it should have been, `now` when it is.
    pub(crate) fn tick(&mut self, scheduled: Instant, now: Instant) {
        self.record.woke(scheduled, now);
        if self.loading {
            self.change_next(scheduled, now);
        }
        self.repeat_due(now);
        self.read_next(scheduled, now);
        self.finish_reading(now);
    }

    /// The schedule's own request, and while there are calls that were never set up, some of these as well.
    fn change_next(&mut self, scheduled: Instant, now: Instant) {
        let setups = SETUPS_PER_TURN.min(self.calls.len() - self.absent);
        for _ in 0..setups {
            let call = self.absent;
            self.absent += 1;
            self.change(call, scheduled, now);
        }
        if setups > 0 {
            return;
        }
        for _ in 0..self.calls.len() {
            let call = self.turn;
            self.turn = (self.turn + 1) % self.calls.len();
            if !self.calls[call].busy {
                self.change(call, scheduled, now);
                return;
            }
        }
        self.record.sums().all_waiting += 1;
    }

    fn change(&mut self, index: usize, scheduled: Instant, now: Instant) {
        let call = &mut self.calls[index];
        call.busy = true;
        let op = match (call.up, call.applied % RELEASE_EVERY) {
            (false, _) => Op::Setup,
            (true, turn) if turn == RELEASE_EVERY - 1 => Op::Release,
            (true, _) => Op::Update,
        };
        let seen = *call;
        self.ask(op, index, seen, scheduled, now);
    }

    fn ask(&mut self, op: Op, index: usize, seen: Call, scheduled: Instant, now: Instant) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let call = u32::try_from(index).expect("there are fewer than 2^32 calls, see new()");
        let request = Request { client: self.client, sequence, attempt: 0, op, call };
        let repeat_at = now + spread(REPEAT_FIRST, sequence, 0);
        self.pending.insert(sequence, Pending { request, scheduled, applied: seen.applied, digest: seen.digest, repeat_at });
        self.repeats.insert((repeat_at, sequence));
        self.record.sums().sent += 1;
        self.outputs.push_back(Output::Send(request));
    }

    fn repeat_due(&mut self, now: Instant) {
        let mut sent = 0;
        while sent < REPEATS_PER_TURN {
            let Some(&(due, sequence)) = self.repeats.first() else { return };
            if due > now {
                return;
            }
            self.repeats.pop_first();
            let Some(pending) = self.pending.get_mut(&sequence).filter(|p| p.repeat_at == due) else { continue };
            if now.since(pending.scheduled) > GIVE_UP {
                self.give_up(sequence);
                continue;
            }
            pending.request.attempt += 1;
            let wait = REPEAT_FIRST.saturating_mul(1 << pending.request.attempt.min(8)).min(REPEAT_MAX);
            pending.repeat_at = now + spread(wait, sequence, pending.request.attempt);
            self.repeats.insert((pending.repeat_at, sequence));
            self.outputs.push_back(Output::Send(pending.request));
            self.record.sums().repeated += 1;
            sent += 1;
        }
    }

    fn give_up(&mut self, sequence: u64) {
        let Some(pending) = self.pending.remove(&sequence) else { return };
        if pending.request.op != Op::Query {
            let call = &mut self.calls[pending.request.call as usize];
            call.busy = false;
            call.unclear = true;
            self.record.sums().given_up += 1;
        }
    }

    /// An answer arrived.
    pub(crate) fn answer(&mut self, now: Instant, answer: Answer) {
        if answer.client != self.client {
            return;
        }
        let pending = self.pending.remove(&answer.sequence);
        self.record.answered(now, answer.node, answer.epoch, pending.map(|p| p.scheduled));
        match pending {
            None => {} // The answer to another sending of the same request came first.
            Some(pending) if pending.request.op == Op::Query => self.on_read(now, &pending, answer),
            Some(pending) => self.on_changed(&pending, answer),
        }
    }

    fn on_changed(&mut self, pending: &Pending, answer: Answer) {
        let call = &mut self.calls[pending.request.call as usize];
        call.busy = false;
        let expected = (call.applied + 1, fold(call.digest, pending.request.sequence));
        let unclear = std::mem::take(&mut call.unclear);
        let (mut lost, mut doubled) = (0, 0);
        match answer.verdict {
            Verdict::Ok => {
                if !unclear {
                    lost = expected.0.saturating_sub(answer.applied);
                    doubled = answer.applied.saturating_sub(expected.0);
                    if (lost, doubled) == (0, 0) && answer.digest != expected.1 {
                        lost = 1; // As many changes as there should be, but not these.
                    }
                }
                call.up = pending.request.op != Op::Release;
                call.ever_up = true;
                self.record.sums().acknowledged += 1;
            }
            Verdict::Unknown | Verdict::Refused => {
                if !unclear {
                    lost = call.applied.saturating_sub(answer.applied).max(u64::from(call.up));
                }
                call.up = false;
            }
        }
        call.applied = answer.applied;
        call.digest = answer.digest;
        self.count(lost, doubled);
    }

    fn on_read(&mut self, now: Instant, pending: &Pending, answer: Answer) {
        let call = &mut self.calls[pending.request.call as usize];
        if !call.unclear {
            // Others may have been applied since this was asked; less than was acknowledged then is a loss.
            let shown = if answer.verdict == Verdict::Unknown { 0 } else { answer.applied };
            let mut lost = pending.applied.saturating_sub(shown);
            let mut doubled = 0;
            let still = !call.busy && call.applied == pending.applied;
            if still && lost == 0 {
                doubled = shown - pending.applied;
                lost = u64::from(doubled == 0 && answer.digest != pending.digest);
            }
            call.unclear = lost + doubled > 0;
            self.count(lost, doubled);
        }
        if let Some(reading) = &mut self.reading {
            reading.open -= 1;
            reading.result.acknowledged += pending.applied;
        }
        self.finish_reading(now);
    }

    fn count(&mut self, lost: u64, doubled: u64) {
        self.lost += lost;
        self.doubled += doubled;
        let sums = self.record.sums();
        sums.lost += lost;
        sums.doubled += doubled;
    }

    fn read_next(&mut self, scheduled: Instant, now: Instant) {
        for _ in 0..READS_PER_TURN {
            let Some(reading) = &mut self.reading else { return };
            if reading.open >= READS_OPEN_MAX as u64 {
                return;
            }
            let Some(call) = reading.calls.pop_front() else { return };
            reading.open += 1;
            let index = call as usize;
            self.ask(Op::Query, index, self.calls[index], scheduled, now);
        }
    }

    fn finish_reading(&mut self, now: Instant) {
        let Some(reading) = &mut self.reading else { return };
        let unread = reading.calls.len() as u64 + reading.open;
        if unread > 0 && now.since(reading.began) < READ_BACK_MAX {
            return;
        }
        let result = ReadBack { lost: self.lost, doubled: self.doubled, unread, ..reading.result };
        self.reading = None;
        self.pending.retain(|_, p| p.request.op != Op::Query);
        self.outputs.push_back(Output::ReadBack(result));
    }
}

/// `wait`, plus or minus a quarter: repeats of many requests do not come in one burst. The request decides, so that a run repeats itself.
fn spread(wait: Duration, sequence: u64, attempt: u32) -> Duration {
    let mixed = fold(u64::from(attempt) + 1, sequence).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32;
    wait * 3 / 4 + wait / 2 * u32::try_from(mixed % 1000).unwrap_or(0) / 1000
}

#[cfg(test)]
mod tests;
