//! One subscriber of an outlet: what it wants, how far it is, what is to be told next.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use sixnines_core::abroad::Interest;
use sixnines_core::engine::AlarmRef;
use sixnines_core::event::Event;
use sixnines_core::feed::Place;
use sixnines_core::ids::{AttributeName, NodeId, ObjectName};
use sixnines_core::time::{Duration, Instant};

use super::ring::{Coming, Ring};
use super::wire::{Recorded, Resume, Word};
use super::{Levels, Limits};
use crate::wire::{Class, Kind, PAYLOAD_BYTES_MAX};

/// A longer event fits in no frame, and is named as a gap of one.
const EVENT_BYTES_MAX: usize = PAYLOAD_BYTES_MAX - 64;

/// A subscriber, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which node.
    pub node: NodeId,
    /// Events that are kept and that it has not recorded.
    pub behind: usize,
    /// Readings that were overtaken by newer ones before it could be told.
    pub coalesced: u64,
    /// Ranges of events that it was told to miss.
    pub gaps: u64,
    /// It cannot be reached.
    pub is_lost: bool,
}

#[derive(Debug)]
pub(super) struct Subscriber {
    interest: Interest,
    /// It understands words; else it is told plain events, and is never heard of again.
    has_words: bool,
    /// Where it begins, until it has recorded that.
    begin: Begin,
    /// How far it says that it has recorded.
    recorded: Place,
    /// Everything up to here was told, or is not wanted.
    scanned: Place,
    /// The last thing told.
    told: Place,
    /// Events that were told and are not recorded.
    flight: VecDeque<Place>,
    levels: Telling,
    /// Of the last [`Word::Settled`].
    number: u64,
    /// The newest reading of each attribute that could not be told yet, in order.
    waiting: BTreeMap<Place, Arc<Event>>,
    newest: BTreeMap<(ObjectName, AttributeName), Place>,
    readings: VecDeque<Place>,
    blocked_until: Option<Instant>,
    pub(super) lost_since: Option<Instant>,
    /// When it last spoke, or owed no word.
    progress: Instant,
    patience: Duration,
    coalesced: u64,
    gaps: u64,
}

/// The start of a feed without a cursor.
#[derive(Debug, PartialEq, Eq)]
enum Begin {
    Known,
    /// At that place, if it was told before and perhaps not heard.
    Wanted(Option<Place>),
    Told(Place),
}

#[derive(Debug)]
enum Telling {
    Wanted,
    /// These are left, then the alarms that stand.
    Under { left: VecDeque<Arc<Event>>, alarms: Vec<AlarmRef> },
    Told,
    Known,
}

/// What is to be told next, and what that changes once the mesh has taken it.
enum Next {
    Begin(Place),
    Gap(Word, Place),
    Event(Place, Word),
    Plain(Place, Arc<Event>),
    Level(Arc<Event>),
    Settled(Vec<AlarmRef>),
    Reading(Place, Arc<Event>),
}

impl Subscriber {
    /// `before`: the same node, as it was known.
    pub(super) fn new(now: Instant, interest: Interest, resume: Option<Resume>, head: Place, before: Option<&Self>, limits: &Limits) -> Self {
        let cursor = resume.and_then(|r| r.cursor);
        let from = cursor.map_or(head, |c| c.events);
        Self {
            interest,
            has_words: resume.is_some(),
            begin: if resume.is_some() && cursor.is_none() { Begin::Wanted(None) } else { Begin::Known },
            recorded: from,
            scanned: from,
            told: from,
            flight: VecDeque::new(),
            levels: Telling::Wanted,
            number: before.map_or(0, |b| b.number),
            waiting: BTreeMap::new(),
            newest: BTreeMap::new(),
            readings: VecDeque::new(),
            blocked_until: None,
            lost_since: None,
            progress: now,
            patience: limits.patience,
            coalesced: before.map_or(0, |b| b.coalesced),
            gaps: before.map_or(0, |b| b.gaps),
        }
    }

    pub(super) fn wants(&self, event: &Event) -> bool {
        self.interest.covers(event.object.as_str())
    }

    /// A reading waits; an older one of the same attribute is not told any more.
    pub(super) fn wait(&mut self, event: &Arc<Event>, limits: &Limits) {
        let at = Place::from(event.id);
        if let Some(older) = self.newest.insert((event.object.clone(), event.attribute.clone()), at) {
            self.waiting.remove(&older);
            self.coalesced += 1;
        }
        self.waiting.insert(at, Arc::clone(event));
        if self.waiting.len() > limits.waiting_max {
            self.coalesced += 1;
            self.take_waiting();
        }
    }

    fn take_waiting(&mut self) {
        if let Some((_, event)) = self.waiting.pop_first() {
            self.newest.remove(&(event.object.clone(), event.attribute.clone()));
        }
    }

    pub(super) fn on_recorded(&mut self, now: Instant, said: Recorded, limits: &Limits) {
        let Recorded { cursor, settled } = said;
        self.recorded = self.recorded.max(cursor.events.min(self.told));
        while self.flight.front().is_some_and(|at| *at <= cursor.events) {
            self.flight.pop_front();
        }
        while self.readings.front().is_some_and(|at| *at <= cursor.readings) {
            self.readings.pop_front();
        }
        if matches!(self.begin, Begin::Told(at) if at <= cursor.events) {
            self.begin = Begin::Known;
        }
        if matches!(self.levels, Telling::Told) && settled == self.number {
            self.levels = Telling::Known;
        }
        self.blocked_until = None;
        self.progress = now;
        self.patience = limits.patience;
    }

    pub(super) fn on_reach(&mut self, now: Instant, is_reachable: bool) {
        self.progress = now;
        self.blocked_until = None;
        if is_reachable {
            self.lost_since = None;
        } else {
            self.lost_since.get_or_insert(now);
        }
    }

    /// Whether it is to answer something.
    fn owes(&self) -> bool {
        self.has_words && (!self.flight.is_empty() || !self.readings.is_empty() || matches!(self.levels, Telling::Told) || matches!(self.begin, Begin::Told(_)))
    }

    pub(super) fn poll_timeout(&self, limits: &Limits) -> Instant {
        const NEVER: Instant = Instant::from_nanos(u64::MAX);
        if let Some(since) = self.lost_since {
            return since + limits.expires_after;
        }
        let stalls = if self.owes() { self.progress + self.patience } else { NEVER };
        stalls.min(self.blocked_until.unwrap_or(NEVER))
    }

    pub(super) fn on_timeout(&mut self, now: Instant, limits: &Limits) {
        self.blocked_until.take_if(|until| *until <= now);
        if self.lost_since.is_none() && self.owes() && self.progress + self.patience <= now {
            self.rewind();
            self.progress = now;
            self.patience = (self.patience * 2).min(limits.patience_max);
        }
    }

    /// Tells everything again that it has not recorded.
    fn rewind(&mut self) {
        if let Begin::Told(at) = self.begin {
            self.begin = Begin::Wanted(Some(at));
        }
        self.scanned = self.recorded;
        self.told = self.recorded;
        self.flight.clear();
        self.readings.clear();
        self.levels = Telling::Wanted;
    }

    /// Tells what there is to tell, until there is nothing or it is not taken.
    pub(super) fn pump(&mut self, now: Instant, ring: &Ring, head: Place, limits: &Limits, levels: &mut impl FnMut(&Interest) -> Levels, send: &mut impl FnMut(Class, Kind, Bytes) -> bool) {
        if self.lost_since.is_some() || self.blocked_until.is_some_and(|until| now < until) {
            return;
        }
        self.blocked_until = None;
        while let Some(next) = self.next(ring, head, limits, levels) {
            if !self.owes() {
                self.progress = now;
            }
            let (class, kind, payload) = self.frame(&next);
            if !send(class, kind, payload) {
                self.blocked_until = Some(now + limits.retry_after);
                return;
            }
            self.on_told(next);
        }
    }

    fn next(&mut self, ring: &Ring, head: Place, limits: &Limits, levels: &mut impl FnMut(&Interest) -> Levels) -> Option<Next> {
        if let Begin::Wanted(at) = self.begin {
            return Some(Next::Begin(at.unwrap_or(head)));
        }
        if self.has_words
            && let Some(gap) = ring.gap(self.scanned)
        {
            return Some(gap_step(gap));
        }
        if let Telling::Under { left, alarms } = &self.levels {
            match left.front() {
                Some(level) => return Some(Next::Level(Arc::clone(level))),
                None if self.has_words => return Some(Next::Settled(alarms.clone())),
                None => self.levels = Telling::Known, // it knows of no end to wait for
            }
        }
        match ring.next(&mut self.scanned, &self.interest) {
            Coming::Now(kept) if !self.has_words => return Some(Next::Plain(kept.at, Arc::clone(&kept.event))),
            Coming::Now(kept) if self.flight.len() < limits.flight_max => {
                if kept.bytes.len() > EVENT_BYTES_MAX {
                    return Some(Next::Gap(Word::Gap { from: self.told.next(), to: kept.at }, kept.at));
                }
                return Some(Next::Event(kept.at, Word::Event { after: self.told, at: kept.at, event: Arc::clone(&kept.bytes) }));
            }
            Coming::Nothing if matches!(self.levels, Telling::Wanted) => {
                let Levels { events, alarms } = levels(&self.interest);
                self.levels = Telling::Under { left: events.into(), alarms };
                return self.next(ring, head, limits, levels);
            }
            Coming::Now(_) | Coming::Later | Coming::Nothing => {}
        }
        let (at, event) = self.waiting.first_key_value().filter(|_| self.readings.len() < limits.flight_max)?;
        Some(Next::Reading(*at, Arc::clone(event)))
    }

    fn frame(&self, next: &Next) -> (Class, Kind, Bytes) {
        match next {
            Next::Begin(at) => Word::Begin(*at).frame(),
            Next::Gap(word, _) | Next::Event(_, word) => word.frame(),
            Next::Plain(_, event) => plain(event, Class::Alarm),
            Next::Level(event) if !self.has_words => plain(event, Class::Alarm),
            Next::Level(event) => Word::Level(Arc::clone(event)).frame(),
            Next::Settled(alarms) => Word::Settled { number: self.number + 1, alarms: alarms.clone() }.frame(),
            Next::Reading(_, event) if !self.has_words => plain(event, Class::Telemetry),
            Next::Reading(_, event) => Word::Reading(Arc::clone(event)).frame(),
        }
    }

    fn on_told(&mut self, next: Next) {
        match next {
            Next::Begin(at) => {
                self.begin = Begin::Told(at);
                (self.recorded, self.scanned, self.told) = (at, at, at);
            }
            Next::Gap(_, end) => {
                self.gaps += 1;
                (self.scanned, self.told) = (end, end);
                self.flight.push_back(end); // it is recorded as an event is
                self.levels = Telling::Wanted;
            }
            Next::Event(at, _) => {
                (self.scanned, self.told) = (at, at);
                self.flight.push_back(at);
            }
            Next::Plain(at, _) => (self.scanned, self.told) = (at, at),
            Next::Level(_) => {
                if let Telling::Under { left, .. } = &mut self.levels {
                    left.pop_front();
                }
            }
            Next::Settled(_) => {
                self.number += 1;
                self.levels = Telling::Told;
            }
            Next::Reading(at, _) => {
                self.take_waiting();
                if self.has_words {
                    self.readings.push_back(at);
                }
            }
        }
    }

    pub(super) fn row(&self, node: NodeId, ring: &Ring) -> Row {
        // Who has recorded all that was told is as far as was looked.
        let behind = ring.behind(if self.flight.is_empty() { self.scanned } else { self.recorded });
        Row { node, behind, coalesced: self.coalesced, gaps: self.gaps, is_lost: self.lost_since.is_some() }
    }
}

/// For a node that knows nothing of feeds.
fn plain(event: &Event, class: Class) -> (Class, Kind, Bytes) {
    let bytes = postcard::to_stdvec(event).expect("an event in memory has an encoding");
    (class, Kind::EVENT, bytes.into())
}

fn gap_step(gap: Word) -> Next {
    let Word::Gap { to, .. } = gap else { unreachable!("the ring names gaps only") };
    Next::Gap(gap, to)
}
