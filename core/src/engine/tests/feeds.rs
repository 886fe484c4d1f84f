//! What other nodes tell is heard once, by whichever life; what is missing is named; what is over there is over here.

use std::sync::Arc;

use super::shelf::{Shelf, shipped};
use crate::abroad::Interest;
use crate::class::Pattern;
use crate::domain::limits::{Limit, Limits};
use crate::engine::{AlarmRef, Input};
use crate::event::Event;
use crate::feed::{Cursor, Gap, Place};
use crate::ids::{Incarnation, NodeId};
use crate::journal::replay::{Past, cursors, replay};
use crate::value::{Quality, Value};
use crate::world::Owner;

/// The owner of mxp1, whose fan 1 has failed, with the events of it; and node 3.
fn pair() -> (Shelf, Vec<Arc<Event>>, Shelf) {
    let (owner, other) = Shelf::with_a_failed_fan_and_a_newcomer();
    let events = owner.events.clone();
    (owner, events, other)
}

fn place(event: &Event) -> Place {
    event.id.into()
}

fn standing(shelf: &Shelf) -> usize {
    shelf.engine.alarms().filter(|(_, a)| a.is_active()).count()
}

#[test]
fn an_event_that_comes_again_does_nothing_and_leaves_no_record() {
    let (_, events, mut other) = pair();
    events.iter().for_each(|e| other.input(Input::Remote(Arc::clone(e))));
    let (records, heard) = (other.journal.len(), other.heard.len());
    assert_eq!(heard, events.len());
    events.iter().for_each(|e| other.input(Input::Remote(Arc::clone(e))));
    assert_eq!((other.journal.len(), other.heard.len()), (records, heard));
    assert_eq!(other.engine.counts().repeats, events.len() as u64);
}

#[test]
fn the_next_life_knows_from_the_journal_what_was_heard() {
    let (_, events, mut other) = pair();
    let half = events.len() / 2;
    events[..half].iter().for_each(|e| other.input(Input::Remote(Arc::clone(e))));
    let known = cursors(&other.journal).expect("a journal");
    assert_eq!(known.get(&NodeId(1)).copied(), other.engine.cursor(NodeId(1)));
    assert_eq!(replay(&other.journal, None).expect("it replays").engine.cursor(NodeId(1)), other.engine.cursor(NodeId(1)));

    let mut next = Shelf::with(&shipped(), 3);
    next.now = other.now;
    next.engine = std::mem::replace(&mut next.engine, Shelf::with(&shipped(), 3).engine).resume(known.clone());
    events.iter().for_each(|e| next.input(Input::Remote(Arc::clone(e))));
    let again = next.heard.clone();
    assert_eq!(again, events[half..].iter().map(|e| e.id).collect::<Vec<_>>());
    let next_segment = next.engine.begin_segment();
    assert_eq!(cursors(&next_segment).expect("a segment").get(&NodeId(1)), next.engine.cursor(NodeId(1)).as_ref(), "a snapshot bears them");
}

#[test]
fn a_gap_is_an_event_here_and_the_cursor_is_behind_it() {
    let (_, events, mut other) = pair();
    other.input(Input::Begin { origin: NodeId(1), at: place(&events[0]) });
    let gap = Gap { origin: NodeId(1), from: place(&events[0]).next(), to: place(events.last().expect("there are some")) };
    other.forget();
    other.input(Input::Gap(gap.clone()));
    let told: Vec<String> = other.events.iter().filter(|e| e.object.as_str() == "/nodes/n3/feed").filter_map(|e| Some(format!("{} {}", e.attribute, e.new.as_ref()?))).collect();
    assert!(told.contains(&format!("gap {gap}")) && told.contains(&"state gap".to_owned()), "{told:?}");
    assert!(other.alarm_steps().contains(&"/nodes/n3/feed events-missed raised".to_owned()), "{:?}", other.alarm_steps());
    other.input(Input::Remote(Arc::clone(&events[1])));
    assert!(other.heard.is_empty(), "it was named as missing");
    assert!(replay(&other.journal, None).expect("it replays").diverged.is_none());
    assert_eq!(cursors(&other.journal).expect("a journal").get(&NodeId(1)).map(|c| c.events), Some(gap.to));
}

#[test]
fn an_alarm_that_went_unheard_is_over_once_everything_was_told() {
    let (owner, events, mut other) = pair();
    other.input(Input::NotOwner { group: crate::domain::config::chassis_group("mxp1"), epoch: crate::ids::Epoch(1), active: Some(owner.engine.me()) });
    events.iter().for_each(|e| other.input(Input::Remote(Arc::clone(e))));
    assert!(standing(&other) > 0 && standing(&other) == standing(&owner));
    let refs = |shelf: &Shelf| -> Vec<AlarmRef> {
        let object = |ix| shelf.engine.world().object(ix).name.clone();
        shelf.engine.alarms().filter(|(_, a)| a.is_active()).map(|(k, _)| AlarmRef { object: object(k.object), kind: k.kind.clone(), qualifier: k.qualifier.clone() }).collect()
    };
    other.input(Input::Settled { origin: NodeId(1), alarms: refs(&owner) });
    assert_eq!(standing(&other), standing(&owner), "what stands there stands here");
    other.input(Input::Settled { origin: NodeId(2), alarms: vec![] });
    assert_eq!(standing(&other), standing(&owner), "of node 1's objects node 2 says nothing");
    other.input(Input::Settled { origin: NodeId(1), alarms: vec![] });
    assert_eq!(standing(&other), 0);
    assert!(replay(&other.journal, None).expect("it replays").diverged.is_none());
}

#[test]
fn a_reading_that_was_overtaken_by_its_own_failure_does_not_hide_it() {
    let mut owner = Shelf::running();
    owner.speed(1, 4000);
    owner.reading("/mxp1/fan1", "speed", None, Quality::Failed);
    let of_speed: Vec<_> = owner.events.iter().filter(|e| e.object.as_str() == "/mxp1/fan1" && e.attribute.as_str() == "speed").cloned().collect();
    let [number, failure] = of_speed.as_slice() else { panic!("{of_speed:?}") };
    assert!(number.is_reading() && !failure.is_reading(), "they go by different ways");
    let mut other = Shelf::with(&shipped(), 3);
    other.now = owner.now;
    other.input(Input::Remote(Arc::clone(failure)));
    other.input(Input::Remote(Arc::clone(number)));
    assert_eq!(other.value("/mxp1/fan1", "speed"), None);
    assert_eq!(other.heard.len(), 2, "both are events");
}

#[test]
fn a_level_says_what_is_even_where_its_event_was_heard_long_ago() {
    let (owner, events, mut other) = pair();
    let level = owner.engine.levels(&Interest::of(vec![Pattern::new("/mxp1/fan2")])).into_iter().find(|e| e.attribute.as_str() == "speed").expect("it has one");
    other.input(Input::Level { from: NodeId(1), event: Arc::clone(&level) });
    let value = other.value("/mxp1/fan2", "speed");
    assert_eq!(value, level.new);
    // A word of somebody who owned it once, and of whom more was heard than its present owner knows.
    let mut stray = (*level).clone();
    stray.id.node = NodeId(2);
    stray.new = Some(Value::Int(1));
    other.input(Input::Remote(Arc::new(stray)));
    assert_eq!(other.value("/mxp1/fan2", "speed"), Some(Value::Int(1)));
    other.input(Input::Level { from: NodeId(1), event: level });
    assert_eq!(other.value("/mxp1/fan2", "speed"), value, "its owner is right");
    assert_eq!(other.engine.cursor(NodeId(1)), None, "a level is no event");
    drop(events);
}

#[test]
fn what_earlier_lives_made_is_found_in_their_segments_the_newest_first() {
    let (owner, _, _) = pair();
    let mut past = Past::default();
    assert!(past.put_before(&owner.journal));
    let all: Vec<u64> = past.events.iter().map(|e| e.id.sequence).collect();
    assert_eq!(all, (1..=owner.engine.last_sequence()).collect::<Vec<_>>());
    assert_eq!(past.gone, Place::before(owner.engine.me().incarnation));
    assert_eq!(past.lives.iter().copied().collect::<Vec<_>>(), [owner.engine.me().incarnation]);
    assert!(!past.put_before(b"no journal"), "and what is older is of no use");
    let cursor = Cursor::default();
    assert!(cursor.events < Place { incarnation: Incarnation(1), sequence: 0 });
}

/// The same events as a neighbour's node with another domain's names tells them.
fn from_abroad(events: &[Arc<Event>]) -> (crate::abroad::Neighbour, Vec<Arc<Event>>) {
    let north = crate::abroad::Neighbour { domain: "north".into(), number: 2, hear: vec![Pattern::new("/**")] };
    let heard = events.iter().filter_map(|e| north.event(Event::clone(e))).map(Arc::new).collect();
    (north, heard)
}

#[test]
fn a_neighbours_objects_are_known_as_theirs_and_stale_while_nobody_there_is_heard() {
    let (owner, events, mut here) = pair();
    let (north, heard) = from_abroad(&events);
    assert_eq!(heard.len(), events.len());
    heard.iter().for_each(|e| here.input(Input::Remote(Arc::clone(e))));
    let theirs = "/neighbours/north/mxp1/fan1";
    assert_eq!(here.value(theirs, "state"), owner.value("/mxp1/fan1", "state"));
    assert_eq!(here.value("/mxp1/fan1", "state"), None, "our own fan of that name is another one");
    assert_eq!(here.engine.owner_of(theirs), None, "nobody here can set it");
    assert_eq!(standing(&here), standing(&owner));

    let quality = |shelf: &Shelf| shelf.engine.world().find(theirs).map(|ix| shelf.engine.world().object(ix).cells.iter().filter(|c| c.event.is_some()).map(|c| c.quality).collect::<Vec<_>>());
    let before = quality(&here).expect("it is there");
    here.input(Input::Unheard(NodeId(202)));
    assert_eq!(quality(&here), Some(before.clone()), "another node of theirs");
    here.input(Input::Unheard(NodeId(201)));
    assert!(quality(&here).expect("it is there").iter().all(|q| *q == Quality::Stale));
    for level in owner.engine.levels(&Interest::of(vec![Pattern::new("/**")])) {
        let level = north.event(Event::clone(&level)).expect("its own");
        here.input(Input::Level { from: NodeId(201), event: Arc::new(level) });
    }
    assert_eq!(quality(&here), Some(before), "it has told how everything is");

    let replayed = replay(&here.journal, None).expect("it replays");
    assert_eq!(replayed.engine.hash(), here.engine.hash());
    assert_eq!(replayed.engine.world().find(theirs).is_some(), here.engine.world().find(theirs).is_some());
}

#[test]
fn what_no_longer_stands_abroad_is_over_here_and_other_bundles_do_not_forget_it() {
    let (_, events, mut here) = pair();
    let (_, heard) = from_abroad(&events);
    heard.iter().for_each(|e| here.input(Input::Remote(Arc::clone(e))));
    assert!(standing(&here) > 0);
    let compiled = Arc::clone(&here.engine.world().compiled);
    here.input(Input::Bundle(compiled));
    assert!(here.engine.world().find("/neighbours/north/mxp1/fan1").is_some());
    here.input(Input::Settled { origin: NodeId(202), alarms: Vec::new() });
    assert!(standing(&here) > 0, "another node does not speak for it");
    here.input(Input::Settled { origin: NodeId(201), alarms: Vec::new() });
    assert_eq!(standing(&here), 0);
}

#[test]
fn neighbours_get_no_more_than_half_of_the_room() {
    let (_, events, mut here) = pair();
    let (_, heard) = from_abroad(&events);
    here.input(Input::Limits(Limits::default().with(Limit::Objects, 400)));
    for number in 0..300 {
        let mut event = Event::clone(&heard[0]);
        event.id.sequence = 1_000 + number;
        event.object = format!("/neighbours/north/mxp1/fan{}", 1_000 + number).as_str().into();
        here.input(Input::Remote(Arc::new(event)));
    }
    let abroad = here.engine.world().iter().filter(|(_, object)| object.owner == Owner::Abroad).count();
    assert_eq!((abroad, here.engine.counts().objects_refused), (200, 100));
}
