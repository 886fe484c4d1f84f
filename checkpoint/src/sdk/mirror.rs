//! The application's memory of the sections.
//!
//! Its own writes are in it at once; one that turns out not to be applied is taken back, and later ones are applied again on top of
//! what was before. A batch with an expectation is applied when it is known to have come true.

use std::collections::VecDeque;

use sixnines_core::ids::Sequence;

use crate::bytes::Bytes;
use crate::config::Limits;
use crate::outcome::{Cursor, Outcome};
use crate::state::{Change, Op, Section, State, Undo};

#[derive(Debug, Default)]
pub(super) struct Mirror {
    state: State,
    in_flight: VecDeque<InFlight>,
    incoming: Vec<(Bytes, Section)>,
}

#[derive(Debug)]
struct InFlight {
    ticket: u64,
    ops: Vec<Op>,
    /// `None` while it is not applied here.
    undo: Option<Undo>,
    settled: bool,
}

impl Mirror {
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// A write on its way.
    pub(super) fn write(&mut self, ticket: u64, ops: Vec<Op>) {
        let expects = ops.iter().any(|op| matches!(op, Op::Expect { .. }));
        let undo = if expects { None } else { apply(&mut self.state, ticket, &ops) };
        self.in_flight.push_back(InFlight { ticket, ops, undo, settled: false });
    }

    /// What became of it.
    pub(super) fn settle(&mut self, ticket: u64, outcome: Outcome) {
        let Some(index) = self.in_flight.iter().position(|w| w.ticket == ticket) else { return };
        match outcome {
            Outcome::Applied { cursor, .. } | Outcome::Async { cursor } => {
                if self.in_flight[index].undo.is_none() {
                    self.redo_from(index, true);
                }
                self.stamp(index, cursor);
            }
            Outcome::NotApplied(_) => self.redo_from(index, false),
            // If the role is over, an image follows; if not, the active's copy has it, and so has this one.
            Outcome::Unknown(_) => {}
        }
        self.in_flight[index].settled = true;
        while self.in_flight.front().is_some_and(|w| w.settled) {
            self.in_flight.pop_front();
        }
    }

    /// Takes back everything from `index` on, and applies again what is after it; it itself only if it is to `stay`.
    fn redo_from(&mut self, index: usize, stay: bool) {
        for write in self.in_flight.range_mut(index..).rev() {
            if let Some(undo) = write.undo.take() {
                self.state.undo(undo);
            }
        }
        for (offset, write) in self.in_flight.range_mut(index..).enumerate() {
            let expects = write.ops.iter().any(|op| matches!(op, Op::Expect { .. }));
            if offset == 0 && stay || offset > 0 && (!expects || write.settled) {
                write.undo = apply(&mut self.state, write.ticket, &write.ops);
            }
        }
    }

    fn stamp(&mut self, index: usize, cursor: Cursor) {
        let write = &self.in_flight[index];
        for op in &write.ops {
            if let Op::Put { key, .. } | Op::Patch { key, .. } | Op::Append { key, .. } = op {
                self.state.stamp(key, provisional(write.ticket), cursor.sequence);
            }
        }
    }

    /// A part of everything there is; true once it is whole and has taken the former state's place.
    pub(super) fn image(&mut self, first: bool, last: bool, sections: Vec<(Bytes, Section)>) -> bool {
        if first {
            self.incoming.clear();
        }
        self.incoming.extend(sections);
        if last {
            self.state = State::default();
            self.state.take(std::mem::take(&mut self.incoming), Vec::new());
            self.in_flight.clear();
        }
        last
    }

    /// A batch that another process wrote.
    pub(super) fn record(&mut self, cursor: Cursor, changes: &[Change]) {
        drop(self.state.apply(changes, cursor.sequence));
    }

    /// Nothing that is on its way will be answered any more.
    pub(super) fn forget_in_flight(&mut self) {
        self.in_flight.clear();
    }
}

/// The service has checked it or will; here only memory changes.
fn apply(state: &mut State, ticket: u64, ops: &[Op]) -> Option<Undo> {
    let limits = Limits { sections_max: usize::MAX, bytes_max: usize::MAX, ..Limits::default() };
    let unconditional: Vec<Op> = ops.iter().filter(|op| !matches!(op, Op::Expect { .. })).cloned().collect();
    state.execute(&unconditional, provisional(ticket), &limits).ok().map(|(_, undo)| undo)
}

/// A version that no record has.
fn provisional(ticket: u64) -> Sequence {
    Sequence(1 << 63 | ticket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Refusal;
    use sixnines_core::ids::Epoch;

    fn applied(sequence: u64) -> Outcome {
        Outcome::Applied { cursor: Cursor { epoch: Epoch(1), sequence: Sequence(sequence) }, copies: 2, protected: true }
    }

    fn put(text: &str) -> Vec<Op> {
        vec![Op::Put { key: "k".into(), bytes: text.into() }]
    }

    fn content(mirror: &Mirror) -> Option<(String, u64)> {
        mirror.state().section(b"k").map(|s| (String::from_utf8_lossy(&s.bytes).into_owned(), s.version.0))
    }

    #[test]
    fn own_writes_are_there_at_once_and_get_their_version_later() {
        let mut mirror = Mirror::default();
        mirror.write(1, put("a"));
        assert_eq!(content(&mirror).map(|c| c.0), Some("a".into()));
        mirror.settle(1, applied(7));
        assert_eq!(content(&mirror), Some(("a".into(), 7)));
    }

    #[test]
    fn a_refused_write_is_taken_back_from_under_a_later_one() {
        let mut mirror = Mirror::default();
        let append = |text: &str| vec![Op::Append { key: "k".into(), bytes: text.into() }];
        mirror.write(1, put("a"));
        mirror.write(2, append("b"));
        mirror.write(3, append("c"));
        mirror.settle(2, Outcome::NotApplied(Refusal::Quiescing));
        assert_eq!(content(&mirror).map(|c| c.0), Some("ac".into()));
        mirror.settle(1, applied(1));
        mirror.settle(3, applied(2));
        assert_eq!(content(&mirror), Some(("ac".into(), 2)));
    }

    #[test]
    fn an_expectation_counts_when_it_is_known_to_be_true() {
        let mut mirror = Mirror::default();
        let expecting = [vec![Op::Expect { key: "k".into(), version: None }], put("first")].concat();
        mirror.write(1, expecting.clone());
        mirror.write(2, vec![Op::Append { key: "k".into(), bytes: "+".into() }]);
        mirror.settle(1, applied(1));
        assert_eq!(content(&mirror).map(|c| c.0), Some("first+".into()));
        mirror.settle(2, applied(2));
        mirror.write(3, expecting);
        mirror.settle(3, Outcome::NotApplied(Refusal::Conflict { index: 0 }));
        assert_eq!(content(&mirror), Some(("first+".into(), 2)));
    }
}
