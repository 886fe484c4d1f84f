//! What the active knows of one other copy, and what it sends it next.

use sixnines_core::ids::{Member, Sequence};
use sixnines_core::time::Instant;

use crate::copy::{Shared, StatusPeer};
use crate::outcome::Cursor;
use crate::state::Resume;
use crate::wire::{Body, Chunk, Progress, Report};

/// Another copy of the group, in one life, under one epoch.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) flow: Flow,
    /// What it has reported under this epoch.
    pub(super) acked: Option<Sequence>,
    /// The newest question for confirmation of the epoch that it has answered.
    pub(super) confirmed: u64,
    /// Since when it owes a report without having come further.
    pub(super) owed_since: Option<Instant>,
    reachable: bool,
    /// It has left the in-sync set and has not reported since.
    silent: bool,
    /// The newest such question that was sent.
    asked: u64,
    /// The held sequence that was sent, and the one that it reported.
    told: Sequence,
    knows: Sequence,
    resend_at: Option<Instant>,
}

#[derive(Debug)]
pub(super) enum Flow {
    /// It has not said what it has.
    Unaligned,
    /// It gets records from the backlog.
    Streaming { aligned: Cursor, next: Sequence },
    /// The backlog does not reach back to what it has: it gets the whole state, and beside it what is written meanwhile.
    Transfer(Transfer),
}

#[derive(Debug)]
pub(super) struct Transfer {
    number: u64,
    start: Cursor,
    next_record: Sequence,
    applied: Sequence,
    next_chunk: u32,
    resume: Resume,
    taken: u32,
    taken_through: Resume,
}

impl Peer {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            flow: Flow::Unaligned,
            acked: None,
            confirmed: 0,
            owed_since: Some(now),
            reachable: true,
            silent: false,
            asked: 0,
            told: Sequence(0),
            knows: Sequence(0),
            resend_at: Some(now),
        }
    }

    pub(super) fn is_reachable(&self) -> bool {
        self.reachable
    }

    /// Whether it has owed a report for longer than patience.
    pub(super) fn is_late(&self, shared: &Shared) -> bool {
        self.owed_since.is_some_and(|since| since + shared.config.times.patience <= shared.now)
    }

    /// It is asked for a report, and is no newcomer before it comes.
    pub(super) fn must_speak_again(&mut self, now: Instant) {
        if self.is_following() {
            self.silent = true;
            self.resend_at = Some(now);
        }
    }

    pub(super) fn is_silent(&self) -> bool {
        self.silent
    }

    /// Whether it takes records one by one: only then can it be complete.
    pub(super) fn is_following(&self) -> bool {
        matches!(self.flow, Flow::Streaming { .. })
    }

    /// It spoke, so it can be reached.
    pub(super) fn heard(&mut self) {
        self.reachable = true;
    }

    pub(super) fn reach(&mut self, shared: &Shared, reachable: bool) {
        self.reachable = reachable;
        if reachable && self.resend_at.is_some() {
            self.resend_at = Some(shared.now); // What was under way when the connection broke is gone.
        }
    }

    /// Whether it is to be told (again) how far everybody is.
    pub(super) fn is_untold(&self, held: Sequence) -> bool {
        self.reachable && self.is_following() && self.knows < held
    }

    pub(super) fn tell_again(&mut self) {
        self.told = self.knows;
    }

    pub(super) fn ask_again(&mut self) {
        self.asked = 0;
    }

    pub(super) fn stream_from(&mut self, shared: &mut Shared, me: Member, at: Cursor) {
        self.flow = Flow::Streaming { aligned: at, next: next(at.sequence) };
        self.resend_at = Some(shared.now + shared.config.times.resend);
        shared.send(me, Body::Aligned { at });
    }

    pub(super) fn transfer_from(&mut self, shared: &Shared, number: u64) {
        let start = shared.store.head();
        let resume = Resume::Sections(None);
        self.flow = Flow::Transfer(Transfer {
            number,
            start,
            next_record: next(start.sequence),
            applied: start.sequence,
            next_chunk: 0,
            resume: resume.clone(),
            taken: 0,
            taken_through: resume,
        });
    }

    pub(super) fn report(&mut self, shared: &Shared, report: &Report) {
        self.heard();
        self.confirmed = self.confirmed.max(report.read);
        self.knows = self.knows.max(report.held);
        let mut came_further = std::mem::take(&mut self.silent);
        if let Some(cursor) = report.cursor {
            came_further |= self.acked < Some(cursor.sequence);
            self.acked = self.acked.max(Some(cursor.sequence));
            self.end_transfer(cursor);
        }
        if let (Flow::Transfer(transfer), Some(progress)) = (&mut self.flow, &report.transfer) {
            came_further |= transfer.taken(progress);
        }
        if came_further {
            let complete = self.acked == Some(shared.store.head().sequence);
            self.owed_since = (!complete).then_some(shared.now);
            self.resend_at = self.is_owed().then_some(shared.now + shared.config.times.resend);
        }
    }

    /// The new copy has taken the old one's place over there.
    fn end_transfer(&mut self, cursor: Cursor) {
        if let Flow::Transfer(transfer) = &self.flow
            && cursor.sequence >= transfer.start.sequence
        {
            let next = transfer.next_record.max(next(cursor.sequence));
            self.flow = Flow::Streaming { aligned: cursor, next };
        }
    }

    /// Whether something was sent that it has not reported.
    fn is_owed(&self) -> bool {
        match &self.flow {
            Flow::Unaligned | Flow::Transfer(_) => true,
            Flow::Streaming { next, .. } => self.silent || self.acked.is_none_or(|a| a.0 + 1 < next.0),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.resend_at.filter(|_| self.reachable)
    }

    /// What was sent and not reported is taken for lost.
    pub(super) fn timeout(&mut self, shared: &mut Shared, me: Member) {
        if !self.reachable || self.resend_at.is_none_or(|at| at > shared.now) {
            return;
        }
        self.resend_at = Some(shared.now + shared.config.times.resend);
        match &mut self.flow {
            Flow::Unaligned => self.resend_at = Some(shared.now), // `pump` announces the epoch again.
            Flow::Streaming { aligned, next: following } => {
                *following = next(self.acked.unwrap_or(aligned.sequence));
                if self.acked.is_none() || self.silent {
                    let at = *aligned;
                    shared.send(me, Body::Aligned { at });
                }
            }
            Flow::Transfer(transfer) => transfer.rewind(),
        }
    }

    /// Sends what it lacks, as far as the window allows. True if it needs a transfer because the backlog is gone.
    pub(super) fn pump(&mut self, shared: &mut Shared, me: Member, tell: bool, asked: u64) -> bool {
        if !self.reachable {
            return false;
        }
        let mut sent = false;
        match &mut self.flow {
            Flow::Unaligned => {
                if self.resend_at.is_none_or(|at| at <= shared.now) {
                    self.resend_at = Some(shared.now + shared.config.times.resend);
                    send_records(shared, me, shared.store.head().sequence, Vec::new(), asked);
                    sent = true;
                }
            }
            Flow::Streaming { aligned, next } => {
                let from = self.acked.unwrap_or(aligned.sequence);
                match stream(shared, me, from, next, asked) {
                    Some(any) => sent = any,
                    None => return true,
                }
            }
            Flow::Transfer(transfer) => {
                transfer.send_chunks(shared, me);
                match stream(shared, me, transfer.applied, &mut transfer.next_record, asked) {
                    Some(any) => sent = any,
                    None => return true,
                }
            }
        }
        let untold = tell && self.told < shared.store.held() && !matches!(self.flow, Flow::Unaligned);
        if !sent && (untold || self.asked < asked) {
            send_records(shared, me, shared.store.head().sequence, Vec::new(), asked);
            sent = true;
        }
        if sent {
            (self.told, self.asked) = (shared.store.held(), asked.max(self.asked));
        }
        if self.is_owed() {
            self.resend_at.get_or_insert(shared.now + shared.config.times.resend);
        }
        false
    }

    pub(super) fn status(&self, shared: &Shared, member: Member) -> StatusPeer {
        let head = shared.store.head().sequence;
        StatusPeer {
            member,
            in_sync: shared.row.in_sync.contains(&member),
            behind: self.acked.map(|a| head.0 - a.0),
            behind_bytes: self.acked.map_or(0, |a| shared.store.bytes_between(a, head)),
            transfer: match &self.flow {
                Flow::Transfer(transfer) => Some(transfer.taken),
                _ => None,
            },
        }
    }
}

impl Transfer {
    /// True if it has come further.
    fn taken(&mut self, progress: &Progress) -> bool {
        if progress.transfer != self.number {
            return false;
        }
        let further = progress.chunks > self.taken || progress.applied.sequence > self.applied;
        if progress.chunks >= self.taken {
            (self.taken, self.taken_through) = (progress.chunks, progress.through.clone());
        }
        self.applied = self.applied.max(progress.applied.sequence);
        further
    }

    /// Back to what was reported as taken. What is read again may end at another key, so the replica checks where it begins.
    fn rewind(&mut self) {
        (self.next_chunk, self.resume) = (self.taken, self.taken_through.clone());
        self.next_record = next(self.applied);
    }

    fn send_chunks(&mut self, shared: &mut Shared, me: Member) {
        let limits = &shared.config.limits;
        let (bytes_max, chunks_max) = (limits.frame_bytes_max, limits.chunks_max);
        while self.resume != Resume::End && self.next_chunk < self.taken.saturating_add(chunks_max) {
            let part = shared.store.state().part(&self.resume, bytes_max);
            let after = std::mem::replace(&mut self.resume, part.through.clone());
            let chunk = Chunk {
                transfer: self.number,
                generation: shared.store.generation(),
                start: self.start,
                index: self.next_chunk,
                after,
                through: part.through,
                as_of: shared.store.head(),
                sections: part.sections,
                requests: part.requests,
            };
            self.next_chunk += 1;
            shared.send(me, Body::Chunk(chunk));
        }
    }
}

/// Sends records from `following` on, `reported` being known to be there. `None` if they are no longer kept.
fn stream(shared: &mut Shared, to: Member, reported: Sequence, following: &mut Sequence, asked: u64) -> Option<bool> {
    let head = shared.store.head().sequence;
    let limits = &shared.config.limits;
    let (window, frame_max) = (limits.window_bytes_max as u64, limits.frame_bytes_max);
    let mut sent = false;
    while *following <= head && shared.store.bytes_between(reported, Sequence(following.0 - 1)) < window {
        let first = *following;
        let mut records = Vec::new();
        let mut size = 0;
        while *following <= head && size < frame_max {
            let record = shared.store.record(*following)?;
            size += record.size();
            records.push(record.clone());
            following.0 += 1;
        }
        send_records(shared, to, Sequence(first.0 - 1), records, asked);
        sent = true;
    }
    Some(sent)
}

fn send_records(shared: &mut Shared, to: Member, previous: Sequence, records: Vec<std::sync::Arc<crate::Record>>, read: u64) {
    let previous = shared.store.position(previous).expect("what precedes a kept record is kept or the base");
    let held = shared.store.held();
    shared.send(to, Body::Records { previous, held, read, records });
}

fn next(sequence: Sequence) -> Sequence {
    Sequence(sequence.0 + 1)
}
