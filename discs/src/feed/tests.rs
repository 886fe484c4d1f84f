//! An origin and a subscriber that die at any moment, with a wire between them that loses and doubles what it likes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use sixnines_core::abroad::Interest;
use sixnines_core::class::Pattern;
use sixnines_core::engine;
use sixnines_core::event::{Body, Event};
use sixnines_core::feed::{Cursor, Gap, Place};
use sixnines_core::ids::{EventId, Incarnation, Member, NodeId};
use sixnines_core::journal::replay::Past;
use sixnines_core::time::{Duration, Instant};
use sixnines_core::value::Value;

use super::wire::{Recorded, Resume, Word};
use super::{Inlet, Input, Levels, Limits, Outlet};
use crate::wire::Kind;

const ORIGIN: NodeId = NodeId(1);
const SUBSCRIBER: NodeId = NodeId(2);

fn limits() -> Limits {
    Limits { lag_events_max: 8, flight_max: 4, waiting_max: 2, ..Limits::default() }
}

/// Everything is wanted below `/a`.
fn event(id: EventId, object: &str, value: Value) -> Arc<Event> {
    Arc::new(Event {
        id,
        object: object.into(),
        class: "thing".into(),
        attribute: "value".into(),
        old: None,
        new: Some(value),
        quality: sixnines_core::value::Quality::Good,
        severity: sixnines_core::alarms::Severity::Cleared,
        cause: None,
        root: id,
        time: sixnines_core::time::HybridTime::default(),
        received: None,
        group: None,
        epoch: sixnines_core::ids::Epoch::default(),
        identity: None,
        why: "".into(),
        policy: None,
        body: Body::Change,
    })
}

/// What a subscriber's journal holds.
#[derive(Clone, Debug, PartialEq)]
enum Record {
    Begin(Place),
    Event(Place),
    Gap(Gap),
    Settled,
}

/// What goes over the wire; the last one is the subscription.
#[derive(Clone, Debug)]
enum Back {
    Recorded(Recorded),
    Subscribe(Resume),
}

struct Pair {
    now: Instant,
    life: u64,
    sequence: u64,
    /// Everything the origin numbered, of all lives, as far as it is durable.
    durable: Vec<Arc<Event>>,
    /// Not yet.
    fresh: Vec<Arc<Event>>,
    last: BTreeMap<String, Arc<Event>>,
    outlet: Outlet,
    refuses: bool,
    there: VecDeque<(Kind, Bytes)>,
    back: VecDeque<Back>,
    inlet: Inlet,
    records: Vec<Record>,
    /// So many of them are written.
    written: usize,
    cursor: Option<Cursor>,
    values: BTreeMap<String, Value>,
    /// How many places a past reaches back.
    past_max: usize,
}

impl Pair {
    fn new() -> Self {
        let mut pair = Self {
            now: Instant::from_nanos(1_000_000_000),
            life: 0,
            sequence: 0,
            durable: Vec::new(),
            fresh: Vec::new(),
            last: BTreeMap::new(),
            outlet: Outlet::new(limits()),
            refuses: false,
            there: VecDeque::new(),
            back: VecDeque::new(),
            inlet: Inlet::new(limits()),
            records: Vec::new(),
            written: 0,
            cursor: None,
            values: BTreeMap::new(),
            past_max: 12,
        };
        pair.start_origin();
        pair.subscribe();
        pair
    }

    /// What was under way ends with either of them.
    fn cut(&mut self) {
        self.there.clear();
        self.back.clear();
    }

    fn start_origin(&mut self) {
        self.cut();
        self.life += 2;
        self.sequence = 0;
        self.fresh.clear();
        self.last.clear();
        self.outlet = Outlet::new(limits());
        self.outlet.handle(self.now, Input::Joined(Member { node: ORIGIN, incarnation: Incarnation(self.life) }));
        let reach = self.durable.len().saturating_sub(self.past_max);
        let gone = reach.checked_sub(1).map_or(Place::default(), |at| self.durable[at].id.into());
        let lives = self.durable[reach..].iter().map(|e| e.id.incarnation).collect();
        self.outlet.handle(self.now, Input::Past(Past { events: self.durable[reach..].to_vec(), gone, lives }));
    }

    fn kill_origin(&mut self, unsynced: usize) {
        let safe = self.fresh.len() - unsynced.min(self.fresh.len());
        self.durable.extend(self.fresh.drain(..).take(safe));
        self.start_origin();
        self.subscribe(); // it meets a new life
    }

    fn kill_subscriber(&mut self) {
        self.cut();
        self.records.truncate(self.written);
        self.inlet = Inlet::new(limits());
        self.values.clear();
        self.cursor = None;
        for record in self.records.clone() {
            self.advance(&record);
        }
        self.subscribe();
    }

    fn advance(&mut self, record: &Record) {
        let cursor = self.cursor.get_or_insert_default();
        match record {
            Record::Begin(at) | Record::Event(at) => cursor.events = cursor.events.max(*at),
            Record::Gap(gap) => cursor.events = cursor.events.max(gap.to),
            Record::Settled => {}
        }
    }

    fn subscribe(&mut self) {
        self.inlet.subscribed(self.now, ORIGIN);
        self.back.push_back(Back::Subscribe(Resume { cursor: self.cursor.filter(|c| c.events != Place::default()) }));
    }

    fn emit(&mut self, object: u8, is_reading: bool) {
        self.sequence += 1;
        let id = EventId { node: ORIGIN, incarnation: Incarnation(self.life), sequence: self.sequence };
        // Every third object is nobody's business.
        let name = if object % 3 == 2 { format!("/b/{object}") } else { format!("/a/{object}") };
        let name = if is_reading { format!("{name}r") } else { name };
        let number = i64::try_from(self.sequence).expect("small");
        let event = event(id, &name, if is_reading { Value::Int(number) } else { Value::Text(number.to_string().as_str().into()) });
        self.fresh.push(Arc::clone(&event));
        self.last.insert(name, Arc::clone(&event));
        self.outlet.handle(self.now, Input::Event { event, after: 0 });
        self.pump();
    }

    fn pump(&mut self) {
        let (there, last, refuses) = (&mut self.there, &self.last, self.refuses);
        let levels = |interest: &Interest| {
            let events = last.values().filter(|e| interest.covers(e.object.as_str())).cloned().collect();
            Levels { events, alarms: Vec::new() }
        };
        self.outlet.pump(self.now, levels, |node, _, kind, bytes| {
            assert_eq!(node, SUBSCRIBER);
            let takes = !refuses && there.len() < 32;
            if takes {
                there.push_back((kind, bytes));
            }
            takes
        });
    }

    fn deliver_there(&mut self) {
        let Some((kind, bytes)) = self.there.pop_front() else { return };
        assert_eq!(kind, Kind::FEED);
        let word = Word::read(&bytes).expect("our own word");
        let record = match self.inlet.hear(self.now, ORIGIN, self.cursor, word) {
            None => None,
            Some(engine::Input::Begin { at, .. }) => Some(Record::Begin(at)),
            Some(engine::Input::Gap(gap)) => Some(Record::Gap(gap)),
            Some(engine::Input::Settled { .. }) => Some(Record::Settled),
            Some(engine::Input::Remote(event)) if event.is_reading() => {
                self.hear_value(&event);
                None
            }
            Some(engine::Input::Remote(event)) => {
                self.hear_value(&event);
                Some(Record::Event(event.id.into()))
            }
            Some(engine::Input::Level { event, .. }) => {
                self.hear_value(&event);
                None
            }
            Some(other) => panic!("an inlet gives no {other:?}"),
        };
        if let Some(record) = record {
            self.advance(&record);
            self.records.push(record);
        }
        if !self.inlet.take_missing(self.now).is_empty() {
            self.subscribe();
        }
    }

    /// As the core loop does it: what is older than what is known of the attribute changes nothing.
    fn hear_value(&mut self, event: &Event) {
        self.values.insert(event.object.to_string(), event.new.clone().expect("there is a value"));
    }

    fn deliver_back(&mut self) {
        match self.back.pop_front() {
            None => return,
            Some(Back::Recorded(recorded)) => self.outlet.handle(self.now, Input::Recorded { from: SUBSCRIBER, recorded }),
            Some(Back::Subscribe(resume)) => {
                self.outlet.handle(self.now, Input::Subscribed { from: SUBSCRIBER, interest: Interest::of(vec![Pattern::new("/a/**")]), resume: Some(resume) });
            }
        }
        self.pump();
    }

    fn tick(&mut self, ms: u64) {
        self.now = self.now + Duration::from_millis(ms);
        if self.outlet.poll_timeout().is_some_and(|at| at <= self.now) {
            self.outlet.handle(self.now, Input::Timeout);
        }
        self.pump();
        self.acknowledge();
        if !self.inlet.take_missing(self.now).is_empty() {
            self.subscribe();
        }
    }

    fn acknowledge(&mut self) {
        let cursors = self.cursor.map(|c| (ORIGIN, c)).into_iter().collect();
        let said = self.inlet.acknowledge(self.now, self.records.len() as u64, self.written as u64, &cursors);
        self.back.extend(said.into_values().map(Back::Recorded));
    }

    fn play(&mut self, step: &Step) {
        match *step {
            Step::Emit(object, is_reading) => self.emit(object, is_reading),
            Step::There(count) => (0..count).for_each(|_| self.deliver_there()),
            Step::Back(count) => (0..count).for_each(|_| self.deliver_back()),
            Step::Tick(ms) => self.tick(ms),
            Step::Write => self.written = self.records.len(),
            Step::Sync => self.durable.append(&mut self.fresh),
            Step::KillOrigin(unsynced) => self.kill_origin(unsynced),
            Step::KillSubscriber => self.kill_subscriber(),
            Step::Refuse(refuses) => self.refuses = refuses,
            Step::Lose => drop(self.there.pop_front()),
            Step::LoseBack => drop(self.back.pop_front()),
            Step::Double => self.there.extend(self.there.front().cloned()),
            Step::Swap if self.there.len() > 1 => self.there.swap(0, 1),
            Step::Swap => {}
        }
    }

    /// Nothing happens to anybody any more.
    fn heal(&mut self) {
        self.refuses = false;
        for _ in 0..200 {
            (0..64).for_each(|_| self.deliver_there());
            self.written = self.records.len();
            self.acknowledge();
            (0..64).for_each(|_| self.deliver_back());
            self.tick(500);
        }
        self.durable.append(&mut self.fresh);
    }

    fn judge(&self) {
        let mut seen = BTreeSet::new();
        let mut cursor = Place::default();
        let mut gaps: Vec<&Gap> = Vec::new();
        let mut begin = None;
        for record in &self.records {
            match record {
                Record::Begin(at) => {
                    assert_eq!(begin.replace(*at), None, "it begins once");
                    cursor = *at;
                }
                Record::Event(at) => {
                    assert!(*at > cursor && seen.insert(*at), "{at} is recorded out of order or again, after {cursor}");
                    cursor = *at;
                }
                Record::Gap(gap) => {
                    assert!(gap.to > cursor && gap.from > cursor, "{gap} names what was told, up to {cursor}");
                    cursor = gap.to;
                    gaps.push(gap);
                }
                Record::Settled => {}
            }
        }
        let begin = begin.expect("it has begun");
        let is_named = |at: Place| gaps.iter().any(|g| (g.from..=g.to).contains(&at));
        for event in self.durable.iter().filter(|e| !e.is_reading() && e.object.as_str().starts_with("/a/")) {
            let at = Place::from(event.id);
            assert!(at <= begin || seen.contains(&at) != is_named(at), "{at} is neither recorded nor in a named gap, or both; begun at {begin}: {:?}", self.records);
        }
        let last_gap = self.records.iter().rposition(|r| matches!(r, Record::Gap(_)));
        let last_settled = self.records.iter().rposition(|r| *r == Record::Settled);
        assert!(last_settled >= last_gap, "after a gap everything is told as it is");
    }

    /// Whatever happened, in the end the subscriber knows how everything is.
    fn judge_values(&self) {
        for event in self.last.values().filter(|e| e.object.as_str().starts_with("/a/")) {
            assert_eq!(self.values.get(event.object.as_str()), event.new.as_ref(), "{}", event.object);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Emit(u8, bool),
    There(u8),
    Back(u8),
    Tick(u64),
    Write,
    Sync,
    KillOrigin(usize),
    KillSubscriber,
    Refuse(bool),
    Lose,
    LoseBack,
    Double,
    Swap,
}

fn calm() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0u8..6, prop::bool::weighted(0.3)).prop_map(|(object, is_reading)| Step::Emit(object, is_reading)),
        6 => (1u8..8).prop_map(Step::There),
        4 => (1u8..4).prop_map(Step::Back),
        4 => prop_oneof![Just(25u64), Just(600), Just(3000)].prop_map(Step::Tick),
        3 => Just(Step::Write),
        2 => Just(Step::Sync),
        1 => (0usize..4).prop_map(Step::KillOrigin),
        1 => Just(Step::KillSubscriber),
        1 => any::<bool>().prop_map(Step::Refuse),
    ]
}

fn wild() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => calm(),
        1 => Just(Step::Lose),
        1 => Just(Step::LoseBack),
        1 => Just(Step::Double),
        1 => Just(Step::Swap),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_event_is_recorded_once_or_in_a_named_gap_whoever_dies_when(steps in prop::collection::vec(calm(), 1..200)) {
        let mut pair = Pair::new();
        steps.iter().for_each(|step| pair.play(step));
        pair.heal();
        pair.judge();
        pair.judge_values();
    }

    #[test]
    fn and_on_a_wire_that_loses_doubles_and_swaps(steps in prop::collection::vec(wild(), 1..200)) {
        let mut pair = Pair::new();
        steps.iter().for_each(|step| pair.play(step));
        pair.heal();
        pair.judge();
    }
}

fn settled() -> Pair {
    let mut pair = Pair::new();
    pair.emit(0, false);
    pair.heal();
    pair
}

fn recorded(pair: &Pair) -> Vec<u64> {
    pair.records.iter().filter_map(|r| if let Record::Event(at) = r { Some(at.sequence) } else { None }).collect()
}

#[test]
fn who_is_further_behind_than_is_kept_gets_the_exact_range_and_then_the_values() {
    let mut pair = settled();
    pair.refuses = true;
    (0..20).for_each(|_| pair.emit(1, false)); // 2 to 21, of which 8 are kept
    assert_eq!(pair.outlet.rows().next().expect("a subscriber").behind, 8);
    pair.heal();
    let place = |sequence| Place { incarnation: Incarnation(2), sequence };
    let gap = Gap { origin: ORIGIN, from: place(2), to: place(13) };
    assert!(pair.records.contains(&Record::Gap(gap)), "{:?}", pair.records);
    assert_eq!(recorded(&pair)[recorded(&pair).len() - 8..], [14, 15, 16, 17, 18, 19, 20, 21]);
    assert_eq!(pair.outlet.rows().next().map(|r| (r.behind, r.gaps)), Some((0, 1)));
    pair.judge();
}

#[test]
fn another_bound_holds_at_once_for_what_is_kept() {
    let mut pair = settled();
    pair.refuses = true;
    (0..6).for_each(|_| pair.emit(0, false));
    assert_eq!(pair.outlet.rows().map(|r| r.behind).collect::<Vec<_>>(), [6]);
    pair.outlet.keep_events(2);
    assert_eq!((pair.outlet.lag_events_max(), pair.outlet.rows().map(|r| r.behind).collect::<Vec<_>>()), (2, vec![2]));
    pair.refuses = false;
    pair.heal();
    assert_eq!(pair.records.iter().filter(|r| matches!(r, Record::Gap(_))).count(), 1, "what it misses is named: {:?}", pair.records);
}

#[test]
fn readings_are_coalesced_under_pressure_and_events_are_not() {
    let mut pair = settled();
    pair.refuses = true;
    (0..6).for_each(|_| pair.emit(0, true));
    (0..5).for_each(|_| pair.emit(1, false));
    let before = recorded(&pair).len();
    pair.heal();
    assert_eq!(recorded(&pair).len(), before + 5);
    assert_eq!(pair.outlet.rows().next().map(|r| r.coalesced), Some(5));
    assert_eq!(pair.values.get("/a/0r"), Some(&Value::Int(7)), "the newest one is told");
    pair.judge();
}

#[test]
fn no_more_is_under_way_than_the_bound() {
    let mut pair = settled();
    (0..8).for_each(|_| pair.emit(1, false));
    assert_eq!(pair.there.len(), limits().flight_max, "nothing of it was recorded");
    pair.heal();
    assert_eq!(recorded(&pair).len(), 8);
}

#[test]
fn an_alarm_waits_for_the_disk_and_not_for_ever() {
    let mut pair = settled();
    let next = |pair: &mut Pair, after: u64| {
        pair.sequence += 1;
        let id = EventId { node: ORIGIN, incarnation: Incarnation(pair.life), sequence: pair.sequence };
        pair.outlet.handle(pair.now, Input::Event { event: event(id, "/a/x", Value::Text("y".into())), after });
        pair.pump();
        pair.there.len()
    };
    assert_eq!(next(&mut pair, 0), 1);
    assert_eq!(next(&mut pair, 7), 1, "it is in record 7, which is not synced");
    assert_eq!(next(&mut pair, 0), 1, "and nothing overtakes it");
    pair.outlet.handle(pair.now, Input::Synced(6));
    pair.pump();
    assert_eq!(pair.there.len(), 1);
    pair.outlet.handle(pair.now, Input::Synced(7));
    pair.pump();
    assert_eq!(pair.there.len(), 3);
    assert_eq!(next(&mut pair, 9), 3);
    assert_eq!(pair.outlet.poll_timeout(), Some(pair.now + limits().sync_patience));
    pair.tick(500);
    assert_eq!(pair.there.len(), 4, "the disk hangs");
}

#[test]
fn what_an_earlier_life_made_durable_is_told_by_the_next() {
    let mut pair = settled();
    pair.refuses = true;
    (0..3).for_each(|_| pair.emit(1, false)); // 2, 3, 4; the last one is not durable
    pair.kill_origin(1);
    pair.emit(1, false);
    pair.heal();
    let all: Vec<String> = pair.records.iter().filter_map(|r| if let Record::Event(at) = r { Some(at.to_string()) } else { None }).collect();
    assert_eq!(all[all.len() - 3..], ["2.2", "2.3", "4.1"]);
    assert!(!pair.records.iter().any(|r| matches!(r, Record::Gap(_))));
    pair.judge();
}

#[test]
fn an_origin_that_lost_its_past_names_what_it_cannot_tell() {
    let mut pair = settled();
    pair.refuses = true;
    (0..3).for_each(|_| pair.emit(1, false));
    pair.durable.clear();
    pair.kill_origin(9);
    pair.heal();
    let gap = pair.records.iter().find_map(|r| if let Record::Gap(gap) = r { Some(gap.to_string()) } else { None });
    assert_eq!(gap.as_deref(), Some("n1.2.2 to the end of the lives before n1.4"));
    pair.judge();
}

#[test]
fn what_was_recorded_and_not_written_is_told_again_to_the_next_life() {
    let mut pair = settled();
    (0..3).for_each(|_| pair.emit(1, false));
    (0..3).for_each(|_| pair.deliver_there());
    pair.now = pair.now + Duration::from_secs(1);
    pair.acknowledge();
    assert!(pair.back.is_empty(), "nothing is acknowledged before it is written");
    let before = recorded(&pair).len();
    pair.kill_subscriber();
    assert_eq!(recorded(&pair).len(), before - 3);
    pair.heal();
    assert_eq!(recorded(&pair).len(), before);
    pair.judge();
}

#[test]
fn who_stays_away_is_forgotten_and_goes_on_from_its_own_cursor() {
    let mut pair = settled();
    pair.outlet.handle(pair.now, Input::Reach { node: SUBSCRIBER, is_reachable: false });
    pair.emit(1, false);
    assert!(pair.there.is_empty(), "nothing is told to who cannot hear it");
    pair.now = pair.now + limits().expires_after;
    pair.tick(0);
    assert_eq!(pair.outlet.rows().count(), 0);
    pair.subscribe();
    pair.heal();
    assert_eq!(recorded(&pair).last(), Some(&2));
    pair.judge();
}

#[test]
fn a_node_that_knows_no_feeds_is_told_plain_events() {
    let mut pair = settled();
    pair.cut();
    pair.outlet.handle(pair.now, Input::Subscribed { from: SUBSCRIBER, interest: Interest::of(vec![Pattern::new("/a/**")]), resume: None });
    pair.pump();
    pair.emit(1, false);
    pair.emit(1, true);
    assert!(pair.there.iter().all(|(kind, _)| *kind == Kind::EVENT));
    let ids: Vec<u64> = pair.there.iter().map(|(_, bytes)| postcard::from_bytes::<Event>(bytes).expect("an event").id.sequence).collect();
    assert_eq!(ids, [1, 2, 3], "how it is, then what changes");
}
