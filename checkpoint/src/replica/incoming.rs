//! A transfer of the whole state, built beside the old copy until it is complete.
//!
//! Chunks are read from the active's state while it goes on; records written since the transfer's start come beside them and are
//! applied to what is already there. Changes may be repeated in order, so chunk and record may overlap; what must not happen is
//! that a chunk older than an applied record is laid over it: such a chunk is left out, and read again by the active.

use std::sync::Arc;

use sixnines_core::ids::{Generation, Sequence};

use crate::config::Limits;
use crate::outcome::Cursor;
use crate::state::{Resume, State, Undo};
use crate::store::Record;
use crate::wire::{Chunk, Progress};

#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) transfer: u64,
    pub(super) generation: Generation,
    pub(super) state: State,
    /// The newest record applied; at first the transfer's start.
    pub(super) applied: Cursor,
    pub(super) held: Sequence,
    chunks: u32,
    through: Resume,
    /// The state of the newest chunk; complete is what has all records up to it.
    newest: Sequence,
}

impl Incoming {
    pub(super) fn new(first: &Chunk) -> Self {
        Self {
            transfer: first.transfer,
            generation: first.generation,
            state: State::default(),
            applied: first.start,
            held: Sequence(0),
            chunks: 0,
            through: Resume::Sections(None),
            newest: first.start.sequence,
        }
    }

    pub(super) fn take_chunk(&mut self, chunk: Chunk) {
        let next = chunk.index == self.chunks && chunk.after == self.through;
        if !next || chunk.as_of.sequence < self.applied.sequence {
            return;
        }
        self.state.take(chunk.sections, chunk.requests);
        self.chunks += 1;
        self.through = chunk.through;
        self.newest = self.newest.max(chunk.as_of.sequence);
    }

    pub(super) fn take_records(&mut self, previous: Cursor, records: &[Arc<Record>], limits: &Limits) {
        if previous.sequence > self.applied.sequence {
            return; // A gap: the active sends again what lies in it.
        }
        for record in records.iter().filter(|r| r.cursor.sequence > previous.sequence) {
            if record.cursor.sequence <= self.applied.sequence {
                continue;
            }
            self.state.apply(&record.changes, record.cursor.sequence);
            if let Some(id) = record.request {
                self.state.remember(id, record.cursor, limits.requests_max, &mut Undo::default());
            }
            self.applied = record.cursor;
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.through == Resume::End && self.applied.sequence >= self.newest
    }

    pub(super) fn progress(&self) -> Progress {
        Progress { transfer: self.transfer, chunks: self.chunks, through: self.through.clone(), applied: self.applied }
    }
}
