//! The world itself, with nodes that do nothing but echo.

use std::cell::RefCell;
use std::rc::Rc;

use sixnines_core::ids::{GroupName, LinkId, NodeId};
use sixnines_core::time::{Duration, Instant};

use super::*;

/// Sends a frame to every peer each millisecond and counts what it gets.
struct Ticker {
    me: NodeId,
    next: Instant,
    got: Got,
}

impl SimNode for Ticker {
    fn step(&mut self, now: Instant, input: SimInput<'_>) -> Vec<SimOutput> {
        if let SimInput::Frame { from, .. } = input {
            self.got.borrow_mut().push((from, self.me));
            return Vec::new();
        }
        if now < self.next {
            return Vec::new();
        }
        self.next = now + Duration::from_millis(1);
        let peers = (1..=2).map(NodeId).filter(|n| *n != self.me);
        peers.map(|to| SimOutput::Send { to, link: None, door: Door::Liveness, bytes: vec![1] }).collect()
    }

    fn next_wake(&self, _now: Instant) -> Instant {
        self.next
    }
}

/// Who sent to whom, frame by frame.
type Got = Rc<RefCell<Vec<(NodeId, NodeId)>>>;

fn world(seed: u64) -> (World, Got) {
    let got = Rc::new(RefCell::new(Vec::new()));
    let shared = Rc::clone(&got);
    let workshop = Box::new(move |me, now| -> Box<dyn SimNode> { Box::new(Ticker { me, next: now, got: Rc::clone(&shared) }) });
    let setup = Setup { seed, nodes: vec![NodeId(1), NodeId(2)], links: 2, services: vec![GroupName::new("calls")], clients: 3, chassis: Vec::new(), is_in_step: false, chassis_check_epochs: true, bad_policies: Vec::new(), workshop };
    (World::new(setup), got)
}

#[test]
fn frames_arrive_on_both_links_until_they_are_cut() {
    let (mut world, got) = world(1);
    world.run(100 * MS).expect("nothing to break");
    let before = got.borrow().len();
    assert!((380..=410).contains(&before), "{before}");
    for link in 0..2 {
        world.cut(NodeId(1), NodeId(2), LinkId(link));
    }
    world.run(MS).expect("what is under way may arrive");
    let cut = got.borrow().len();
    world.run(100 * MS).expect("nothing to break");
    assert!(got.borrow()[cut..].iter().all(|(from, _)| *from == NodeId(2)), "one way only");
}

#[test]
fn a_paused_node_gets_its_frames_when_it_goes_on_and_a_crashed_one_never() {
    let (mut world, got) = world(2);
    world.run(10 * MS).expect("nothing to break");
    world.pause(NodeId(2), 20 * MS);
    let before = got.borrow().iter().filter(|(_, to)| *to == NodeId(2)).count();
    world.run(19 * MS).expect("nothing to break");
    assert_eq!(got.borrow().iter().filter(|(_, to)| *to == NodeId(2)).count(), before);
    world.run(2 * MS).expect("nothing to break");
    assert!(got.borrow().iter().filter(|(_, to)| *to == NodeId(2)).count() > before + 30);
    world.crash(NodeId(2));
    let crashed = got.borrow().iter().filter(|(_, to)| *to == NodeId(2)).count();
    world.run(20 * MS).expect("nothing to break");
    assert_eq!(got.borrow().iter().filter(|(_, to)| *to == NodeId(2)).count(), crashed);
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_does_not() {
    let trace = |seed| {
        let (mut world, got) = world(seed);
        world.manners.loss = 300;
        world.run(50 * MS).expect("nothing to break");
        let got = got.borrow().clone();
        (world.trace().checksum, got)
    };
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7).1, trace(8).1);
}
