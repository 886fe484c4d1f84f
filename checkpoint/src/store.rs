//! A copy's memory: the state at its head, and the records that led there, as far back as they are kept.
//!
//! Records up to *held* are known to be held by the whole in-sync set and are never cut off; those after it can be, and keep
//! what undoes them. A record's (epoch, sequence) names it and everything before it: one active writes each pair once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sixnines_core::ids::{Epoch, Generation, Sequence};

use crate::bytes::Bytes;
use crate::config::Limits;
use crate::outcome::{Cursor, Limit, Refusal};
use crate::state::{Change, Op, RequestId, Section, State, Undo};

/// One batch as every copy applies it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its position.
    pub cursor: Cursor,
    /// The client's name for it.
    pub request: Option<RequestId>,
    /// What it did.
    pub changes: Vec<Change>,
}

impl Record {
    /// About how many bytes it takes on the wire and in memory.
    pub(crate) fn size(&self) -> usize {
        const HEAD: usize = 32;
        HEAD + self.changes.iter().map(Change::size).sum::<usize>()
    }
}

/// A stretch of records of one epoch, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) epoch: Epoch,
    pub(crate) first: Sequence,
    pub(crate) last: Sequence,
}

#[derive(Debug)]
struct Entry {
    record: Arc<Record>,
    /// Until the record is held by all.
    undo: Option<Undo>,
    /// Bytes of all records of this store up to and including this one.
    offset: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Store {
    state: State,
    generation: Generation,
    /// The position before the first record kept.
    base: Cursor,
    base_offset: u64,
    entries: VecDeque<Entry>,
    /// The first record of each epoch that is kept, or whose last one is the base, so that nobody has to walk along a long backlog while a takeover
    /// waits. Of the base's own epoch it may be one that is forgotten.
    starts: VecDeque<Cursor>,
    held: Sequence,
}

impl Store {
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    pub(crate) fn generation(&self) -> Generation {
        self.generation
    }

    /// The position of the newest record.
    pub(crate) fn head(&self) -> Cursor {
        self.entries.back().map_or(self.base, |e| e.record.cursor)
    }

    pub(crate) fn held(&self) -> Sequence {
        self.held
    }

    /// Whether this copy has never had anything.
    pub(crate) fn is_blank(&self) -> bool {
        self.head() == Cursor::default()
    }

    /// The position with this sequence, if it is not too old or too new to be known.
    pub(crate) fn position(&self, sequence: Sequence) -> Option<Cursor> {
        if sequence == self.base.sequence { Some(self.base) } else { self.record(sequence).map(|r| r.cursor) }
    }

    pub(crate) fn record(&self, sequence: Sequence) -> Option<&Arc<Record>> {
        self.entry(sequence).map(|e| &e.record)
    }

    /// Bytes of the records after `from`, up to and including `to`; both are kept or the base.
    pub(crate) fn bytes_between(&self, from: Sequence, to: Sequence) -> u64 {
        let offset = |sequence| self.entry(sequence).map_or(self.base_offset, |e| e.offset);
        offset(to).saturating_sub(offset(from))
    }

    /// Starts from nothing, as a new generation.
    pub(crate) fn reset(&mut self, generation: Generation) {
        *self = Self { generation, ..Self::default() };
    }

    /// An empty copy belongs to whatever generation there is.
    pub(crate) fn adopt_generation(&mut self, generation: Generation) {
        assert!(self.is_blank(), "a copy with records belongs to a generation");
        self.generation = generation;
    }

    /// Puts a complete transfer in the place of everything, in one step (protocol 2.6).
    pub(crate) fn replace(&mut self, state: State, at: Cursor, generation: Generation, held: Sequence) {
        *self = Self { state, generation, base: at, base_offset: 0, entries: VecDeque::new(), starts: VecDeque::new(), held: held.min(at.sequence) };
    }

    /// The active's own write.
    pub(crate) fn execute(&mut self, epoch: Epoch, request: Option<RequestId>, ops: &[Op], limits: &Limits) -> Result<Cursor, Refusal> {
        let sequence = Sequence(self.head().sequence.0 + 1);
        let cursor = Cursor { epoch, sequence };
        let (changes, undo) = self.state.execute(ops, sequence, limits)?;
        let record = Record { cursor, request, changes };
        if record.size() > limits.batch_bytes_max {
            self.state.undo(undo);
            return Err(Refusal::NoSpace(Limit::BatchBytes));
        }
        self.push(Arc::new(record), undo, limits);
        Ok(cursor)
    }

    /// A record from the active, the next one.
    pub(crate) fn append(&mut self, record: Record, limits: &Limits) {
        assert_eq!(record.cursor.sequence.0, self.head().sequence.0 + 1, "a record out of order");
        let undo = self.state.apply(&record.changes, record.cursor.sequence);
        self.push(Arc::new(record), undo, limits);
    }

    fn push(&mut self, record: Arc<Record>, mut undo: Undo, limits: &Limits) {
        if let Some(id) = record.request {
            self.state.remember(id, record.cursor, limits.requests_max, &mut undo);
        }
        if self.starts.back().is_none_or(|start| start.epoch < record.cursor.epoch) {
            self.starts.push_back(record.cursor);
        }
        let offset = self.entries.back().map_or(self.base_offset, |e| e.offset) + record.size() as u64;
        self.entries.push_back(Entry { record, undo: Some(undo), offset });
    }

    /// Cuts off everything after `last`, which this store has and which is not before what all hold.
    pub(crate) fn cut_after(&mut self, last: Sequence) {
        assert!(last >= self.held, "a record that all hold is never cut off");
        while self.head().sequence > last {
            let entry = self.entries.pop_back().expect("the head lies after the base");
            self.state.undo(entry.undo.expect("a record after held keeps what undoes it"));
        }
        while self.starts.back().is_some_and(|start| start.sequence > last) {
            self.starts.pop_back();
        }
    }

    /// The whole set holds everything up to here. Old records may now be forgotten. Never goes back.
    pub(crate) fn advance_held(&mut self, held: Sequence, limits: &Limits) -> bool {
        let held = held.min(self.head().sequence);
        if held <= self.held {
            return false;
        }
        for sequence in self.held.0 + 1..=held.0 {
            if let Some(index) = self.index(Sequence(sequence)) {
                self.entries[index].undo = None;
            }
        }
        self.held = held;
        self.trim(limits);
        true
    }

    fn trim(&mut self, limits: &Limits) {
        while let Some(front) = self.entries.front() {
            let kept = self.entries.back().map_or(0, |e| e.offset) - self.base_offset;
            let over = self.entries.len() > limits.backlog_records_max || kept > limits.backlog_bytes_max as u64;
            if !over || front.record.cursor.sequence > self.held {
                return;
            }
            (self.base, self.base_offset) = (front.record.cursor, front.offset);
            self.entries.pop_front();
            if self.starts.front().is_some_and(|start| start.epoch < self.base.epoch) {
                self.starts.pop_front();
            }
        }
    }

    /// The positions from which this copy may go on, the newest `max` stretches: after them it can be cut, before them not.
    pub(crate) fn runs_from_held(&self, max: usize) -> Vec<Run> {
        self.runs(self.held.max(self.base.sequence), max)
    }

    /// Stretches of equal epoch, the newest first.
    fn runs(&self, from: Sequence, max: usize) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let mut last = self.head();
        let base = Some(self.base).filter(|base| self.starts.front().is_none_or(|first| base.epoch < first.epoch));
        for start in self.starts.iter().rev().chain(&base).take(max) {
            let first = if start.epoch == self.base.epoch { self.base.sequence } else { start.sequence };
            runs.push(Run { epoch: start.epoch, first: first.max(from), last: last.sequence });
            if first <= from {
                break;
            }
            last.sequence.0 = first.0 - 1;
        }
        runs
    }

    /// The newest position that both this copy and one with these runs have.
    pub(crate) fn last_common(&self, theirs: &[Run]) -> Option<Cursor> {
        let ours = self.runs(self.base.sequence, usize::MAX);
        let mut best: Option<Cursor> = None;
        for run in &ours {
            for their in theirs.iter().filter(|t| t.epoch == run.epoch) {
                let last = run.last.min(their.last);
                if last >= run.first.max(their.first) {
                    best = best.max(Some(Cursor { epoch: run.epoch, sequence: last }));
                }
            }
        }
        best
    }

    /// A section as it was when everybody held everything that this copy showed.
    pub(crate) fn held_section(&self, key: &[u8]) -> Option<&Section> {
        for undo in self.after_held() {
            if let Some((_, before)) = undo.before().find(|(k, _)| k.as_slice() == key) {
                return before.as_ref();
            }
        }
        self.state.section(key)
    }

    /// All sections as of [`Self::held`]; `None` while this copy cannot tell, because a transfer brought more.
    pub(crate) fn held_image(&self) -> Option<Vec<(Bytes, Section)>> {
        if self.held < self.base.sequence {
            return None;
        }
        let mut before: BTreeMap<&Bytes, Option<&Section>> = BTreeMap::new();
        for undo in self.after_held() {
            for (key, section) in undo.before() {
                before.entry(key).or_insert(section.as_ref());
            }
        }
        let untouched = self.state.iter().filter(|(key, _)| !before.contains_key(key));
        let touched = before.iter().filter_map(|(key, section)| section.map(|s| (*key, s)));
        Some(untouched.chain(touched).map(|(k, s)| (k.clone(), s.clone())).collect())
    }

    /// What undoes the records that may still be cut off, the oldest first; the backlog before them is not touched.
    fn after_held(&self) -> impl Iterator<Item = &Undo> {
        let held = self.held.0.saturating_sub(self.base.sequence.0);
        let first = usize::try_from(held).map_or(self.entries.len(), |i| i.min(self.entries.len()));
        self.entries.range(first..).filter_map(|e| e.undo.as_ref())
    }

    fn entry(&self, sequence: Sequence) -> Option<&Entry> {
        self.entries.get(self.index(sequence)?)
    }

    fn index(&self, sequence: Sequence) -> Option<usize> {
        let after_base = sequence.0.checked_sub(self.base.sequence.0 + 1)?;
        usize::try_from(after_base).ok().filter(|i| *i < self.entries.len())
    }
}

#[cfg(test)]
mod tests;
