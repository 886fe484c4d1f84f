//! The subscriber's end of its feeds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sixnines_core::engine;
use sixnines_core::feed::{Cursor, Gap, Place};
use sixnines_core::ids::NodeId;
use sixnines_core::time::{Duration, Instant};

use super::Limits;
use super::wire::{Recorded, Word};

/// Judges words and acknowledges them. It keeps no cursors: those of the core loop, which its journal bears out, are the only ones.
#[derive(Debug)]
pub struct Inlet {
    limits: Limits,
    /// The last levels that were told to the end, by origin.
    settled: BTreeMap<NodeId, u64>,
    /// To be acknowledged, at the latest then.
    due: BTreeMap<NodeId, Instant>,
    /// What was handed to the journal when so many records had been, and is not known to be written; looked after again then.
    marked: Option<(u64, Instant, BTreeMap<NodeId, Recorded>)>,
    /// Who left something out, and until when it is not asked again.
    missing: BTreeSet<NodeId>,
    asked: BTreeMap<NodeId, Instant>,
    /// Who was subscribed to and has not said a word yet: when it is asked again, and the patience after that.
    silent: BTreeMap<NodeId, (Instant, Duration)>,
    /// Events that this build cannot read; each is a gap of one.
    pub unreadable: u64,
}

impl Inlet {
    /// An inlet that has heard nothing.
    pub fn new(limits: Limits) -> Self {
        Self { limits, settled: BTreeMap::new(), due: BTreeMap::new(), marked: None, missing: BTreeSet::new(), asked: BTreeMap::new(), silent: BTreeMap::new(), unreadable: 0 }
    }

    /// What the core loop is to record of a word, if anything. `cursor` is the core loop's for that node.
    pub fn hear(&mut self, now: Instant, from: NodeId, cursor: Option<Cursor>, word: Word) -> Option<engine::Input> {
        let cursor = cursor.unwrap_or_default();
        self.answered(from);
        self.due.entry(from).or_insert(now + self.limits.ack_delay);
        match word {
            Word::Begin(at) if cursor.events == Place::default() => Some(engine::Input::Begin { origin: from, at }),
            Word::Begin(at) => {
                if at > cursor.events {
                    self.miss(now, from); // it was asked to go on from here, and did not hear of it yet
                }
                None
            }
            Word::Event { after, at, event } => self.on_event(now, from, cursor, after, at, &event),
            Word::Reading(event) => (event.id.node == from && event.is_reading()).then_some(engine::Input::Remote(event)),
            Word::Gap { from: first, to } => self.on_gap(now, from, cursor.events, first, to),
            Word::Level(event) => Some(engine::Input::Level { from, event }),
            Word::Settled { number, alarms } => {
                self.settled.insert(from, number);
                Some(engine::Input::Settled { origin: from, alarms })
            }
        }
    }

    /// Of a gap that is half known only the rest is missing. One that begins further on leaves something out itself: it is the word of a
    /// feed that was begun for an earlier life of this node.
    fn on_gap(&mut self, now: Instant, from: NodeId, known: Place, first: Place, to: Place) -> Option<engine::Input> {
        if to <= known {
            return None;
        }
        let before = Place { sequence: first.sequence.saturating_sub(1), ..first };
        if known == Place::default() || before > known {
            self.miss(now, from);
            return None;
        }
        Some(engine::Input::Gap(Gap { origin: from, from: first.max(known.next()), to }))
    }

    fn on_event(&mut self, now: Instant, from: NodeId, cursor: Cursor, after: Place, at: Place, event: &[u8]) -> Option<engine::Input> {
        if at <= cursor.events {
            return None;
        }
        if after > cursor.events {
            self.miss(now, from);
            return None;
        }
        match postcard::from_bytes::<sixnines_core::event::Event>(event) {
            Ok(event) if event.id.node == from && Place::from(event.id) == at && !event.is_reading() => Some(engine::Input::Remote(Arc::new(event))),
            _ => {
                self.unreadable += 1;
                Some(engine::Input::Gap(Gap { origin: from, from: at, to: at }))
            }
        }
    }

    fn miss(&mut self, now: Instant, from: NodeId) {
        if self.asked.get(&from).is_none_or(|until| *until <= now) {
            self.asked.insert(from, now + self.limits.ask_again_after);
            self.missing.insert(from);
        }
    }

    /// A node has said something, words or not.
    pub fn answered(&mut self, origin: NodeId) {
        self.silent.remove(&origin);
    }

    /// A node is asked for its events; nothing that it was owed before counts any more.
    pub fn subscribed(&mut self, now: Instant, origin: NodeId) {
        self.settled.remove(&origin);
        self.due.remove(&origin);
        let patience = self.silent.get(&origin).map_or(self.limits.patience, |(_, patience)| (*patience * 2).min(self.limits.patience_max));
        self.silent.insert(origin, (now + patience, patience));
    }

    /// Nodes that are to be subscribed to again, because they left something out or nothing came of it.
    pub fn take_missing(&mut self, now: Instant) -> BTreeSet<NodeId> {
        let silent = self.silent.iter().filter(|(_, (until, _))| *until <= now).map(|(node, _)| *node);
        self.missing.extend(silent);
        std::mem::take(&mut self.missing)
    }

    /// What may be acknowledged: all that is due, as soon as the journal has written it. `handed` records were given to the journal so far,
    /// `written` of them are on their way to the disk for good, by the operating system.
    pub fn acknowledge(&mut self, now: Instant, handed: u64, written: u64, cursors: &BTreeMap<NodeId, Cursor>) -> BTreeMap<NodeId, Recorded> {
        if let Some((_, _, recorded)) = self.marked.take_if(|(at, ..)| *at <= written) {
            return recorded;
        }
        if let Some((_, look, _)) = &mut self.marked {
            *look = (*look).max(now + self.limits.ack_delay);
            return BTreeMap::new();
        }
        if !self.due.values().any(|at| *at <= now) {
            return BTreeMap::new();
        }
        let of = |origin: NodeId| Recorded { cursor: cursors.get(&origin).copied().unwrap_or_default(), settled: self.settled.get(&origin).copied().unwrap_or(0) };
        let recorded = self.due.keys().map(|origin| (*origin, of(*origin))).collect();
        self.due.clear();
        if handed <= written {
            return recorded;
        }
        self.marked = Some((handed, now + self.limits.ack_delay, recorded));
        BTreeMap::new()
    }

    /// When [`Inlet::take_missing`] and [`Inlet::acknowledge`] are to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let acknowledges = self.marked.as_ref().map_or_else(|| self.due.values().min().copied(), |(_, look, _)| Some(*look));
        let asks = self.silent.values().map(|(until, _)| *until).min();
        [acknowledges, asks].into_iter().flatten().min()
    }
}
