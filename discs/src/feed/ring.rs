//! The events that an origin keeps, of its earlier lives too, and what it knows of those that are gone.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use sixnines_core::abroad::Interest;
use sixnines_core::event::Event;
use sixnines_core::feed::Place;
use sixnines_core::ids::Incarnation;
use sixnines_core::journal::replay::Past;
use sixnines_core::time::Instant;

use super::Limits;
use super::wire::Word;

/// One event, with its bytes, which are the same for everybody.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) at: Place,
    pub(super) event: Arc<Event>,
    pub(super) bytes: Arc<[u8]>,
}

/// An event that waits for this node's disk, and all behind it.
#[derive(Debug)]
struct Held {
    at: Place,
    /// It may be told when so many records of the journal are synced.
    after: u64,
    /// Or then: a disk that hangs silences nobody.
    until: Instant,
}

/// What comes next of the events.
pub(super) enum Coming<'a> {
    Now(&'a Kept),
    /// It is not synced yet.
    Later,
    Nothing,
}

/// All events but readings, the newest of them.
#[derive(Debug, Default)]
pub(super) struct Ring {
    kept: VecDeque<Kept>,
    bytes: usize,
    /// Events up to and including this place are not here.
    gone: Place,
    /// Earlier lives that something is known of.
    lives: BTreeSet<Incarnation>,
    /// The present one.
    life: Incarnation,
    held: VecDeque<Held>,
}

impl Ring {
    pub(super) fn begin_life(&mut self, life: Incarnation) {
        self.life = life;
    }

    /// What earlier lives left goes in front of what this one has numbered so far.
    pub(super) fn put_before(&mut self, past: Past, limits: &Limits) {
        self.lives = past.lives;
        if self.gone > Place::default() {
            return; // this life has made more than can be kept
        }
        let own = std::mem::take(&mut self.kept);
        self.bytes = 0;
        self.gone = past.gone;
        for event in past.events.into_iter().filter(|e| !e.is_reading()) {
            self.push(event, limits);
        }
        for kept in own {
            self.keep(kept, limits);
        }
    }

    /// The event that comes next waits until so many records are synced, but not for ever.
    pub(super) fn hold(&mut self, now: Instant, at: Place, after: u64, limits: &Limits) {
        self.held.push_back(Held { at, after, until: now + limits.sync_patience });
    }

    /// So many records are synced.
    pub(super) fn release(&mut self, now: Instant, synced: u64) {
        while self.held.front().is_some_and(|h| h.after <= synced || h.until <= now) {
            self.held.pop_front();
        }
    }

    /// When [`Self::release`] is wanted at the latest.
    pub(super) fn held_until(&self) -> Option<Instant> {
        self.held.front().map(|h| h.until)
    }

    pub(super) fn push(&mut self, event: Arc<Event>, limits: &Limits) {
        let bytes: Arc<[u8]> = postcard::to_stdvec(&*event).expect("an event in memory has an encoding").into();
        self.keep(Kept { at: event.id.into(), event, bytes }, limits);
    }

    fn keep(&mut self, kept: Kept, limits: &Limits) {
        debug_assert!(self.kept.back().is_none_or(|last| last.at < kept.at), "a node numbers its events in order");
        self.bytes += kept.bytes.len();
        self.kept.push_back(kept);
        self.trim(limits);
    }

    /// The oldest go until the rest is within its bounds.
    pub(super) fn trim(&mut self, limits: &Limits) {
        while self.kept.len() > limits.lag_events_max || self.bytes > limits.lag_bytes_max {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.bytes -= oldest.bytes.len();
            self.gone = oldest.at;
        }
    }

    /// How many events are kept from behind a place on.
    pub(super) fn behind(&self, place: Place) -> usize {
        self.kept.len() - self.kept.partition_point(|k| k.at <= place)
    }

    /// The next event behind `place` that is wanted; `place` moves on over those that are not.
    pub(super) fn next(&self, place: &mut Place, interest: &Interest) -> Coming<'_> {
        let from = self.kept.partition_point(|k| k.at <= *place);
        for kept in self.kept.range(from..) {
            if self.held.front().is_some_and(|h| h.at <= kept.at) {
                return Coming::Later;
            }
            if interest.covers(kept.event.object.as_str()) {
                return Coming::Now(kept);
            }
            *place = kept.at;
        }
        Coming::Nothing
    }

    /// What is missing behind `place`, if anything is.
    pub(super) fn gap(&self, place: Place) -> Option<Word> {
        let life = place.incarnation;
        let to = if place < self.gone {
            self.gone
        } else if life.0 > 0 && life < self.life && !self.lives.contains(&life) {
            // Nothing is left of that life: whether it went on from there nobody knows.
            let next = self.lives.iter().copied().find(|l| *l > life).unwrap_or(self.life);
            Place::before(next)
        } else {
            return None;
        };
        (life.0 > 0).then_some(Word::Gap { from: place.next(), to })
    }
}
