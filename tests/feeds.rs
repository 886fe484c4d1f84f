//! Events between real daemons: a subscriber and an origin are killed in turn, and each event is recorded once or in a named gap.

#[path = "support/domain.rs"]
#[expect(dead_code, reason = "nothing here is about services")]
mod domain;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use domain::{Domain, said};
use serde_json::Value;
use sixnines_core::event::Event;
use sixnines_core::feed::{Gap, Place};
use sixnines_core::ids::NodeId;
use sixnines_core::journal::replay::{Heard, heard, replay};

/// n3 owns mxp2 for good, and numbers what is asked of its fans. n1 listens.
const ORIGIN: usize = 3;
const SUBSCRIBER: usize = 1;

/// Asks for a duty that is not the present one; each is claimed, asked for and answered: several events.
fn ask(domain: &Domain, number: u32) {
    let duty = format!("duty={}", 30 + number % 60);
    domain.wait("the owner of mxp2 takes a claim", |d| d.ask(ORIGIN, &["set", "/mxp2/fan1", &duty, "--message", "a test"]).status.success());
}

fn segments(domain: &Domain, node: usize) -> Vec<Vec<u8>> {
    let home = domain.path(&format!("lab/n{node}/state/journal"));
    let mut paths: Vec<PathBuf> = std::fs::read_dir(home).expect("a journal").map(|e| e.expect("readable").path()).filter(|p| p.extension().is_some_and(|e| e == "journal")).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("readable")).filter(|bytes| !bytes.is_empty()).collect()
}

fn feed(domain: &Domain, node: usize, peer: usize) -> Option<Value> {
    let status = domain.json(node, &["status"])?;
    status["status"]["feeds"].as_array()?.iter().find(|row| row["node"] == peer).cloned()
}

/// The subscriber has recorded everything that there is.
fn wait_in_step(domain: &Domain) {
    domain.wait("the subscriber is in step", |d| feed(d, ORIGIN, SUBSCRIBER).is_some_and(|row| row["behind"] == 0 && row["is_lost"] == false));
}

/// What the subscriber recorded of the origin, over all its lives: places in order, and gaps.
fn recorded(domain: &Domain) -> (Place, Vec<Place>, Vec<Gap>) {
    let origin = NodeId(3);
    let (mut begin, mut places, mut gaps) = (None, Vec::new(), Vec::new());
    for segment in segments(domain, SUBSCRIBER) {
        for one in heard(&segment).expect("a journal of ours") {
            match one {
                Heard::Begin { origin: from, at } if from == origin => assert_eq!(begin.replace(at), None, "it begins once"),
                Heard::Event(event) if event.id.node == origin && !event.is_reading() => places.push(event.id.into()),
                Heard::Gap(gap) if gap.origin == origin => gaps.push(gap),
                _ => {}
            }
        }
    }
    (begin.expect("it has begun"), places, gaps)
}

/// Everything but readings that the origin made durable, over all its lives.
fn made(domain: &Domain) -> Vec<Arc<Event>> {
    let events = segments(domain, ORIGIN).into_iter().flat_map(|bytes| replay(&bytes, None).expect("a journal of ours").events);
    events.filter(|e| !e.is_reading()).collect()
}

fn judge(domain: &Domain) -> Vec<Gap> {
    let (begin, places, gaps) = recorded(domain);
    for pair in places.windows(2) {
        assert!(pair[0] < pair[1], "{} is recorded after {}", pair[1], pair[0]);
    }
    let once: BTreeSet<Place> = places.iter().copied().collect();
    let last = places.last().copied().expect("something was heard");
    let mut durable = 0;
    for event in made(domain) {
        let at = Place::from(event.id);
        if at <= begin || at > last {
            continue; // before it listened; or after it had stopped
        }
        durable += 1;
        let is_named = gaps.iter().any(|g| (g.from..=g.to).contains(&at));
        assert!(once.contains(&at) != is_named, "{} {} is neither recorded nor in a named gap, or both: {gaps:?}", event.id, event.object);
    }
    assert!(durable > 50, "there was something to hear: {durable}");
    gaps
}

#[test]
fn each_event_is_heard_once_although_both_ends_are_killed_in_turn() {
    let mut domain = Domain::start(&[]);
    let mut number = 0;
    let mut stream = |domain: &Domain, count: u32| {
        for _ in 0..count {
            number += 1;
            ask(domain, number);
        }
    };
    stream(&domain, 3);
    for _ in 0..2 {
        stream(&domain, 4);
        domain.kill_node(SUBSCRIBER);
        stream(&domain, 4);
        domain.start_node(SUBSCRIBER);
        stream(&domain, 4);
        wait_in_step(&domain);
        stream(&domain, 4);
        domain.kill_node(ORIGIN);
        domain.start_node(ORIGIN);
        stream(&domain, 4);
        wait_in_step(&domain);
    }
    domain.wait_redundant();
    wait_in_step(&domain);
    domain.stop_node(ORIGIN);
    domain.stop_node(SUBSCRIBER);
    let gaps = judge(&domain);
    assert!(gaps.is_empty(), "so little was kept for it: {gaps:?}");
}

#[test]
fn who_is_away_for_longer_than_events_are_kept_is_told_which_ones_it_misses() {
    let mut domain = Domain::start(&[]);
    domain.stop_node(ORIGIN);
    let file = domain.config(ORIGIN);
    let text = std::fs::read_to_string(&file).expect("readable");
    std::fs::write(&file, format!("{text}events: {{ lag_events: 16, expires_after: 10m }}\n")).expect("written");
    domain.start_node(ORIGIN);
    domain.wait_redundant();
    (0..5).for_each(|number| ask(&domain, number));
    wait_in_step(&domain);
    domain.kill_node(SUBSCRIBER);
    (5..20).for_each(|number| ask(&domain, number));
    domain.wait("the origin says how far n1 is behind", |d| feed(d, ORIGIN, SUBSCRIBER).is_some_and(|row| row["behind"].as_u64() > Some(0)));
    assert!(said(&domain.ask(ORIGIN, &["status"])).contains("events behind"));
    domain.start_node(SUBSCRIBER);
    wait_in_step(&domain);
    domain.wait("n1 raises that it misses events", |d| said(&d.ask(SUBSCRIBER, &["alarms"])).contains("events-missed"));
    let events = said(&domain.ask(SUBSCRIBER, &["events", "/nodes/n1/feed", "--last", "500"]));
    (20..22).for_each(|number| ask(&domain, number));
    wait_in_step(&domain);
    let duty = |node: usize| domain.json(node, &["get", "/mxp2/fan1"]).map(|v| v["objects"][0]["attributes"]["duty"]["value"].clone());
    domain.wait("nothing stays wrong after a gap", |_| duty(ORIGIN) == duty(SUBSCRIBER));
    domain.stop_node(ORIGIN);
    domain.stop_node(SUBSCRIBER);
    let gaps = judge(&domain);
    assert!(gaps.iter().any(|gap| events.contains(&gap.to_string())), "{gaps:?} are not in\n{events}");
}
