//! Whole domains from one seed. `NINES_SEED=n` replays one, `NINES_SEEDS=n` runs so many.

mod broken;

use std::collections::BTreeMap;
use std::sync::Arc;

use sixnines_core::class::Pattern;
use sixnines_core::domain::{Domain, Entry};
use sixnines_core::event::{Body, Event};
use sixnines_core::feed::{Cursor, Place};
use sixnines_core::ids::{EventId, Incarnation, LogIndex, NodeId, Version};
use sixnines_core::journal::replay::Past;
use sixnines_core::time::{Instant, WallTime};
use sixnines_discs::feed::Limits;
use sixnines_discs::feed::wire::{Resume, Word};
use sixnines_discs::wire::Kind;
use sixnines_hwsim::domain::chaos::Report;
use sixnines_hwsim::domain::chaos::breach::kind;
use sixnines_hwsim::domain::chaos::draw::{Mix, draw};
use sixnines_hwsim::domain::chaos::shrink::shrink;

use super::ways::{Journal, SimWays, Way};
use super::{Mutation, ground, play_safely, three_nodes};
use crate::core_loop::feeds::Feeds;
use crate::core_loop::{CoreLoop, In};

/// What one seed is run with.
#[derive(Clone, Debug, Default)]
struct Plan {
    /// A rule to break.
    mutation: Mutation,
    /// Faults in the first phase.
    faults: u64,
}

/// Draws and plays one seed of a three-node domain with two services.
fn run(seed: u64, plan: &Plan) -> Report {
    let config = three_nodes();
    play_safely(&config, plan.mutation, &draw(seed, &ground(&config), &mix(plan.faults)))
}

fn mix(faults: u64) -> Mix {
    Mix { faults, only: Vec::new() }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn check(report: &Report) {
    if let Some(failure) = &report.failure {
        for line in &report.story[report.story.len().saturating_sub(200)..] {
            eprintln!("{line}");
        }
        panic!("seed {}: {failure}\nreplay: nines sim replay --seed {}, or NINES_SEED={} cargo test -p sixnines sim::tests::seeds", report.seed, report.seed, report.seed);
    }
}

#[test]
fn seeds() {
    if let Some(seed) = number("NINES_SEED") {
        return check(&run(seed, &Plan { faults: FAULTS, ..Plan::default() }));
    }
    let (mut answers, mut losses) = (0, 0);
    for seed in 1..=number("NINES_SEEDS").unwrap_or(SEEDS) {
        let report = run(seed, &Plan { faults: FAULTS, ..Plan::default() });
        check(&report);
        answers += report.answers;
        losses += u64::from(report.losses > 0);
    }
    let seeds = number("NINES_SEEDS").unwrap_or(SEEDS);
    assert!(losses * 5 <= seeds, "in {losses} of {seeds} runs all copies died: too few runs say anything about lost writes");
    assert!(answers > 1000, "clients got {answers} answers: that is no service");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let plan = Plan { faults: FAULTS, ..Plan::default() };
    assert_eq!(run(5, &plan).checksum, run(5, &plan).checksum);
    assert_ne!(run(5, &plan).checksum, run(6, &plan).checksum);
}

#[test]
fn a_failing_seed_is_shrunk_to_few_faults_that_still_fail() {
    let config = three_nodes();
    for mutation in [Mutation::GateNeverCloses, Mutation::AcknowledgesAlone] {
        let failing = |seed| run(seed, &Plan { mutation, faults: FAULTS }).failure.map(|failure| (seed, failure));
        let (seed, failure) = (1..=40).find_map(failing).expect("it is found, as the test above shows");
        let script = draw(seed, &ground(&config), &mix(FAULTS));
        let shrunk = shrink(script.clone(), failure.clone(), 150, |s| play_safely(&config, mutation, s).failure, |_, _| {});
        assert!(shrunk.script.steps.len() <= 3 && shrunk.script.steps.len() <= script.steps.len(), "{mutation:?}: {}", shrunk.script);
        let again = play_safely(&config, mutation, &shrunk.script).failure.expect("a shrunk script fails");
        assert_eq!(kind(&again), kind(&failure));
        assert!(play_safely(&config, Mutation::None, &shrunk.script).failure.is_none(), "it is the rule's fault, not the script's");
    }
}

/// n1 as a core loop in its second life, which the control log knows.
fn restarted() -> CoreLoop<SimWays> {
    let mut domain = Domain::default();
    let config = three_nodes();
    let bundle = crate::shipped::bundle(&config);
    let join = |nonce, replaces| Entry::Joined { node: NodeId(1), nonce, replaces: Incarnation(replaces) };
    let entries = [Entry::Configure { expected: Version(0), config }, Entry::Bundle { expected: Version(0), bundle }, join(70, 0), join(71, 3)];
    for (index, entry) in (1..).zip(&entries) {
        domain.apply(LogIndex(index), entry).expect("a good entry");
    }
    let feeds = Feeds::new(Limits::default(), BTreeMap::new());
    let mut core = CoreLoop::new(NodeId(1), 71, SimWays::new(Journal::default(), Mutation::None), feeds);
    core.handle(Instant::from_nanos(1), WallTime(1), Some(In::Past(Past::default())));
    let applied = In::Applied { index: LogIndex(4), proposal: None, outcome: Ok(Vec::new()), domain: Arc::new(domain) };
    core.handle(Instant::from_nanos(1), WallTime(1), Some(applied));
    core.ways.queue.clear();
    core
}

#[test]
fn what_a_node_hears_of_its_own_former_life_it_does_not_tell_again() {
    let mut core = restarted();
    let id = EventId { node: NodeId(1), incarnation: Incarnation(3), sequence: 9 };
    let event = Event {
        id,
        object: "/mxp2/fan1".into(),
        class: "fan".into(),
        attribute: "speed".into(),
        old: None,
        new: None,
        quality: sixnines_core::value::Quality::Missing,
        severity: sixnines_core::alarms::Severity::Cleared,
        cause: None,
        root: id,
        time: sixnines_core::time::HybridTime::default(),
        received: None,
        group: None,
        epoch: sixnines_core::ids::Epoch(0),
        identity: None,
        why: "".into(),
        policy: None,
        body: Body::Change,
    };
    let peer = NodeId(2);
    let cursor = Cursor { events: Place { incarnation: Incarnation(3), sequence: 8 }, ..Cursor::default() };
    let wanted = In::Subscribed { from: peer, patterns: vec![Pattern::new("/**")], resume: Some(Resume { cursor: Some(cursor) }) };
    core.handle(Instant::from_nanos(2), WallTime(2), Some(wanted));
    core.handle(Instant::from_nanos(3), WallTime(3), Some(In::Word { from: peer, word: Box::new(Word::Level(Arc::new(event))) }));
    assert!(core.ways.queue.iter().any(|way| matches!(way, Way::Publish(event) if event.id == id)), "it is new here");
    let told: Vec<Word> = core.ways.queue.iter().filter_map(|way| if let Way::Feed(_, Kind::FEED, payload) = way { Word::read(payload) } else { None }).collect();
    assert!(!told.is_empty() && !told.iter().any(|word| matches!(word, Word::Event { at, .. } if *at == id.into())), "everybody had it then: {told:?}");
}

const FAULTS: u64 = 12;
const SEEDS: u64 = 1000;
