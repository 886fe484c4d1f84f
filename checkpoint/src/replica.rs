//! The replica's side of a copy: is aligned once per epoch, then takes in records in order and reports how far it has come.
//!
//! It reports no cursor under an epoch before it has been aligned under it (protocol 2.5), and keeps its old state whole while a
//! transfer builds the new one beside it (2.6).

use std::sync::Arc;

use sixnines_core::ids::{Epoch, Member, Sequence};
use sixnines_core::time::Instant;

use crate::config::Fault;
use crate::copy::Shared;
use crate::outcome::Cursor;
use crate::store::Record;
use crate::wire::{Body, Chunk, PeerFault, Report};

mod incoming;

use incoming::Incoming;

/// See the module.
#[derive(Debug)]
pub(crate) struct Replica {
    /// The highest epoch seen; all below is about this one.
    epoch: Epoch,
    /// The active of the highest epoch seen, once it is known.
    leader: Option<Member>,
    aligned: bool,
    incoming: Option<Incoming>,
    /// The newest transfer that was completed under this epoch.
    completed: u64,
    /// When to ask (again) for alignment.
    align_at: Option<Instant>,
    report_due: bool,
    read: u64,
}

impl Replica {
    pub(crate) fn new(epoch: Epoch, leader: Option<Member>) -> Self {
        Self {
            epoch,
            leader,
            aligned: false,
            incoming: None,
            completed: 0,
            align_at: leader.map(|_| Instant::ZERO),
            report_due: false,
            read: 0,
        }
    }

    pub(crate) fn is_aligned(&self) -> bool {
        self.aligned
    }

    /// A new epoch: everything of the old one but the records is void.
    pub(crate) fn follow(&mut self, epoch: Epoch, leader: Option<Member>) {
        *self = Self::new(epoch, leader);
    }

    pub(crate) fn on_row(&mut self, shared: &Shared) {
        // A former life of this node may still be named: then nobody leads.
        let leader = shared.row.active.filter(|m| shared.row.epoch == shared.seen && m.node != shared.me.node);
        if shared.seen > self.epoch || leader.is_some() && leader != self.leader {
            self.follow(shared.seen, leader);
        }
    }

    pub(crate) fn frame(&mut self, shared: &mut Shared, from: Member, body: Body) -> Result<(), PeerFault> {
        match self.leader {
            Some(active) if active != from => return Err(PeerFault::TwoActives { from, active }),
            Some(_) => {}
            None => self.follow(self.epoch, Some(from)),
        }
        match body {
            Body::Aligned { at } => self.take_alignment(shared, from, at),
            Body::Records { previous, held, read, records } => self.take_records(shared, from, previous, held, read, records),
            Body::Chunk(chunk) => self.take_chunk(shared, from, chunk),
            Body::Align { .. } | Body::Report(_) => unreachable!("only an active's frames come here"),
        }
    }

    pub(crate) fn reached(&mut self, shared: &Shared, member: Member) {
        if self.leader == Some(member) && !self.aligned {
            self.align_at = Some(shared.now);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.align_at
    }

    /// Sends the report and the request for alignment that are due.
    pub(crate) fn pump(&mut self, shared: &mut Shared) {
        let Some(leader) = self.leader else { return };
        if let Some(at) = self.align_at.filter(|at| *at <= shared.now) {
            debug_assert!(!self.aligned, "alignment at {at} after alignment");
            self.align_at = Some(shared.now + shared.config.times.resend);
            let runs = shared.store.runs_from_held(shared.config.limits.runs_max);
            shared.send(leader, Body::Align { generation: shared.store.generation(), runs });
        }
        if std::mem::take(&mut self.report_due) {
            let aligned = self.aligned || shared.config.has(Fault::ReportBeforeAligned);
            let cursor = aligned.then(|| shared.store.head());
            let transfer = self.incoming.as_ref().map(Incoming::progress);
            let held = shared.store.held();
            shared.send(leader, Body::Report(Report { cursor, held, read: self.read, transfer }));
        }
    }

    /// Rule 2.5. The first answer of an epoch is carried out; its repeats only need the report that got lost.
    fn take_alignment(&mut self, shared: &mut Shared, from: Member, at: Cursor) -> Result<(), PeerFault> {
        self.report_due = true;
        if self.aligned {
            return Ok(());
        }
        let known = shared.store.position(at.sequence);
        let common = known == Some(at) || known.is_some() && shared.config.has(Fault::MatchBySequence);
        if !common || at.sequence < shared.store.held() {
            return Err(PeerFault::Position { from, cursor: at });
        }
        shared.store.cut_after(at.sequence);
        self.aligned(shared);
        Ok(())
    }

    fn aligned(&mut self, shared: &mut Shared) {
        (self.aligned, self.align_at, self.report_due) = (true, None, true);
        // From here on it always holds some active's records without a hole, and the cursor alone tells how many.
        shared.was_complete = true;
    }

    fn take_records(
        &mut self,
        shared: &mut Shared,
        from: Member,
        previous: Cursor,
        held: Sequence,
        read: u64,
        records: Vec<Arc<Record>>,
    ) -> Result<(), PeerFault> {
        check_records(shared, from, previous, &records)?;
        if read > self.read || !records.is_empty() {
            self.report_due = true; // The epoch is confirmed, or a repeat shows that the last report got lost.
        }
        self.read = self.read.max(read);
        if let Some(incoming) = &mut self.incoming {
            incoming.take_records(previous, &records, &shared.config.limits);
            incoming.held = incoming.held.max(held);
        }
        if self.aligned {
            if previous.sequence <= shared.store.head().sequence {
                append_new(shared, from, records)?;
            }
            self.report_due |= shared.store.advance_held(held, &shared.config.limits);
        }
        self.complete_transfer(shared);
        Ok(())
    }

    fn take_chunk(&mut self, shared: &mut Shared, from: Member, chunk: Chunk) -> Result<(), PeerFault> {
        self.report_due = true;
        let current = self.incoming.as_ref().map_or(self.completed, |i| i.transfer);
        if chunk.transfer < current || chunk.transfer <= self.completed {
            return Ok(()); // A repeat of what is over: the report says so.
        }
        if chunk.sections.iter().any(|(k, s)| !fits(shared, k.len(), s.bytes.len() as u64)) {
            return Err(PeerFault::Limits { from });
        }
        if chunk.transfer > current || self.incoming.is_none() {
            self.align_at = None;
            self.incoming = Some(Incoming::new(&chunk));
            if shared.config.has(Fault::ResyncInPlace) {
                shared.store.reset(chunk.generation);
                (self.aligned, shared.was_complete) = (false, false);
            }
        }
        let incoming = self.incoming.as_mut().expect("made above if it was not there");
        incoming.take_chunk(chunk);
        self.complete_transfer(shared);
        Ok(())
    }

    /// Rule 2.6: the new copy takes the old one's place in one step.
    fn complete_transfer(&mut self, shared: &mut Shared) {
        let head = shared.store.head().sequence;
        // An old copy that got there by itself is as good: what the active sent for it was only late.
        let overtaken = |i: &Incoming| self.aligned && head >= i.applied.sequence;
        let Some(incoming) = self.incoming.take_if(|i| i.is_complete() || overtaken(i)) else { return };
        self.completed = incoming.transfer;
        self.report_due = true;
        if overtaken(&incoming) {
            return;
        }
        shared.store.replace(incoming.state, incoming.applied, incoming.generation, incoming.held);
        shared.need_image();
        self.aligned(shared);
    }

    /// The fault [`Fault::OldEpochAccepted`].
    pub(crate) fn take_old(&mut self, shared: &mut Shared, from: Member, epoch: Epoch, body: Body) -> Result<(), PeerFault> {
        let Body::Records { previous, records, .. } = body else { return Ok(()) };
        if previous.sequence <= shared.store.head().sequence {
            append_new(shared, from, records)?;
        }
        let report = Report { cursor: Some(shared.store.head()), held: Sequence(0), read: 0, transfer: None };
        shared.send_under(epoch, from, Body::Report(report));
        Ok(())
    }
}

/// Appends those that this copy does not have. Equal sequences after alignment are equal records.
fn append_new(shared: &mut Shared, from: Member, records: Vec<Arc<Record>>) -> Result<(), PeerFault> {
    for record in records {
        let head = shared.store.head();
        if record.cursor.sequence > head.sequence {
            let record = Arc::try_unwrap(record).unwrap_or_else(|shared| (*shared).clone());
            shared.store.append(record, &shared.config.limits);
            continue;
        }
        let known = shared.store.position(record.cursor.sequence);
        if known.is_some_and(|k| k != record.cursor) && !shared.config.has(Fault::MatchBySequence) && !shared.config.has(Fault::OldEpochAccepted) {
            return Err(PeerFault::Position { from, cursor: record.cursor });
        }
    }
    Ok(())
}

/// A frame's records follow each other, and none is beyond the limits.
fn check_records(shared: &Shared, from: Member, previous: Cursor, records: &[Arc<Record>]) -> Result<(), PeerFault> {
    let mut last = previous;
    for record in records {
        if record.cursor.sequence.0 != last.sequence.0.wrapping_add(1) || record.cursor.epoch < last.epoch || record.cursor.epoch > shared.seen {
            return Err(PeerFault::Position { from, cursor: record.cursor });
        }
        last = record.cursor;
        for change in &record.changes {
            let end = match change {
                crate::Change::Put { bytes, .. } => bytes.len() as u64,
                crate::Change::Patch { offset, bytes, .. } => offset.saturating_add(bytes.len() as u64),
                crate::Change::Delete { .. } => 0,
            };
            if !fits(shared, change.key().len(), end) {
                return Err(PeerFault::Limits { from });
            }
        }
    }
    Ok(())
}

fn fits(shared: &Shared, key_bytes: usize, section_bytes: u64) -> bool {
    let limits = &shared.config.limits;
    key_bytes <= limits.key_bytes_max && section_bytes <= limits.section_bytes_max as u64
}
