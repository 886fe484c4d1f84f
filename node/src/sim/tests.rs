//! Whole domains from one seed. `NINES_SEED=n` replays one, `NINES_SEEDS=n` runs so many.

mod broken;
mod fences;

use std::collections::BTreeMap;
use std::sync::Arc;

use sixnines_core::authority::{AccessRole, Principal};
use sixnines_core::abroad::Interest;
use sixnines_core::class::Pattern;
use sixnines_core::domain::config::DomainConfig;
use sixnines_core::domain::feature::Level;
use sixnines_core::domain::limits::{Limit, Limits as DomainLimits, TABLE};
use sixnines_core::domain::{Domain, Entry, Proposal};
use sixnines_core::event::{Body, Event};
use sixnines_core::feed::{Cursor, Place};
use sixnines_core::ids::{EventId, Incarnation, LogIndex, NodeId, Version};
use sixnines_core::journal::replay::Past;
use sixnines_core::time::{Instant, WallTime};
use sixnines_discs::feed::Limits;
use sixnines_discs::feed::wire::{Resume, Word};
use sixnines_discs::liveness::Verdict;
use sixnines_discs::wire::Kind;
use sixnines_hwsim::domain::chaos::Report;
use sixnines_hwsim::domain::chaos::breach::kind;
use sixnines_hwsim::domain::chaos::draw::{Mix, draw};
use sixnines_hwsim::domain::chaos::shrink::shrink;

use super::ways::{Journal, SimWays, Way};
use super::{Mutation, ground, play_safely, three_nodes};
use crate::core_loop::feeds::Feeds;
use crate::api::{Call, Reply};
use crate::core_loop::answers::Ask;
use crate::core_loop::limits::Uses;
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
    let wanted = In::Subscribed { from: peer, interest: Interest::of(vec![Pattern::new("/**")]), resume: Some(Resume { cursor: Some(cursor) }) };
    core.handle(Instant::from_nanos(2), WallTime(2), Some(wanted));
    core.handle(Instant::from_nanos(3), WallTime(3), Some(In::Word { from: peer, word: Box::new(Word::Level(Arc::new(event))) }));
    while core.take_word(Instant::from_nanos(4), WallTime(4)) {}
    assert!(core.ways.queue.iter().any(|way| matches!(way, Way::Publish(event) if event.id == id)), "it is new here");
    let told: Vec<Word> = core.ways.queue.iter().filter_map(|way| if let Way::Feed(_, Kind::FEED, payload) = way { Word::read(payload) } else { None }).collect();
    assert!(!told.is_empty() && !told.iter().any(|word| matches!(word, Word::Event { at, .. } if *at == id.into())), "everybody had it then: {told:?}");
}

fn shown(core: &CoreLoop<SimWays>, object: &str, attribute: &str) -> Option<String> {
    let world = core.engine.as_ref()?.world();
    let ix = world.find(object)?;
    world.cell(ix, world.object(ix).class.slot(attribute)?).usable().map(ToString::to_string)
}

fn seconds(s: u64) -> Instant {
    Instant::from_nanos(s * 1_000_000_000)
}

/// Lets the loop turn, and gives the readings that it made meanwhile.
fn turn(core: &mut CoreLoop<SimWays>, s: u64) -> Vec<String> {
    core.ways.queue.clear();
    core.handle(seconds(s), WallTime(s), None);
    let made = core.ways.queue.iter().filter_map(|way| if let Way::Publish(event) = way { Some(event) } else { None });
    made.filter(|e| e.object.as_str().ends_with("/limits")).map(|e| format!("{} {}", e.object, e.attribute)).collect()
}

#[test]
fn what_is_used_of_the_limits_is_shown_once_and_again_when_it_moves() {
    let mut core = restarted();
    assert_eq!(turn(&mut core, 1), Vec::<String>::new(), "where nobody asks nothing is made");
    let wakes = core.poll_timeout().map(|at| at.since(seconds(1)));
    let calm = Uses { journal_bytes: 5 << 20, clients: 1, ..Uses::default() };
    core.ways.uses = Some(calm);
    assert_eq!(turn(&mut core, 2).len(), 1 + 4 * TABLE.len(), "a state, and a use and a bound of each limit, of the node and of the domain");
    for object in ["/nodes/n1/limits", "/domain/limits"] {
        assert_eq!(shown(&core, object, "journal_bytes").as_deref(), Some("5242880"), "{object}");
        assert_eq!(shown(&core, object, "sdk_clients_max").as_deref(), Some("256"), "{object}");
        assert!(shown(&core, object, "objects").is_some_and(|n| n.parse::<usize>().is_ok_and(|n| n > 50)), "{object}");
    }
    assert_eq!(shown(&core, "/nodes/n1/limits", "state").as_deref(), Some("within"));
    core.ways.uses = Some(Uses { journal_bytes: (5 << 20) + 1000, ..calm });
    turn(&mut core, 8); // the objects of both have come
    assert_eq!(turn(&mut core, 14), Vec::<String>::new(), "it has not moved noticeably");
    core.ways.uses = Some(Uses { journal_bytes: 9 << 20, ..calm });
    assert_eq!(turn(&mut core, 15), Vec::<String>::new(), "it was looked at a second ago");
    assert_eq!(turn(&mut core, 20), ["/nodes/n1/limits journal_bytes", "/domain/limits journal_bytes"]);
    assert_eq!(core.poll_timeout().map(|at| at.since(seconds(20))), wakes, "nobody is woken for it");
}

#[test]
fn something_without_room_is_an_alarm_until_a_minute_has_passed_without() {
    let mut core = restarted();
    let standing = |core: &CoreLoop<SimWays>| core.engine.as_ref().map(|e| e.alarms().filter(|(key, alarm)| &*key.kind == "limit-reached" && alarm.is_active()).count());
    core.ways.uses = Some(Uses::default());
    turn(&mut core, 2);
    assert_eq!(standing(&core), Some(0));
    core.ways.uses = Some(Uses { clients: 256, clients_refused: 3, ..Uses::default() });
    turn(&mut core, 10);
    assert_eq!((standing(&core), shown(&core, "/nodes/n1/limits", "state").as_deref()), (Some(1), Some("reached")));
    turn(&mut core, 60);
    assert_eq!(standing(&core), Some(1));
    turn(&mut core, 71);
    assert_eq!((standing(&core), shown(&core, "/nodes/n1/limits", "state").as_deref()), (Some(0), Some("within")));
}

#[test]
fn another_law_bounds_the_engine_and_what_is_kept_for_others() {
    let mut core = restarted();
    let mut domain = (*core.domain).clone();
    let limits = DomainLimits::default().with(Limit::Objects, 5000).with(Limit::SubscriberLagEvents, 77);
    let config = DomainConfig { limits: limits.clone(), ..domain.config.clone() };
    let expected = domain.config_version;
    domain.apply(LogIndex(5), &Entry::Configure { expected, config }).expect("a good entry");
    core.handle(seconds(1), WallTime(1), Some(In::Applied { index: LogIndex(5), proposal: None, outcome: Ok(Vec::new()), domain: Arc::new(domain) }));
    core.ways.uses = Some(Uses::default());
    turn(&mut core, 2);
    assert_eq!(core.engine.as_ref().map(|e| e.limits().clone()), Some(limits));
    assert_eq!(shown(&core, "/domain/limits", "objects_max").as_deref(), Some("5000"));
    assert_eq!(shown(&core, "/nodes/n1/limits", "subscriber_lag_events_max").as_deref(), Some("77"));
}

fn ask(core: &mut CoreLoop<SimWays>, call: Call) -> Option<Reply> {
    let (reply, replies) = crossbeam::channel::bounded(4);
    let principal = Principal { name: "ann".into(), role: AccessRole::Operator };
    core.handle(seconds(3), WallTime(3), Some(In::Ask(Ask { call, principal, reply })));
    replies.try_recv().ok()
}

#[test]
fn an_operators_bounds_become_law_by_an_entry_and_those_that_cannot_be_are_refused() {
    let mut core = restarted();
    core.ways.uses = Some(Uses::default());
    turn(&mut core, 2);
    let set = |name: &str, bound| Call::LimitsSet { bounds: vec![(name.to_owned(), bound)], message: "more fans".to_owned() };
    for (call, code, says) in [
        (set("objcts", Some(100)), "unknown-limit", "did you mean \"objects\"?"),
        (set("objects", Some(3)), "bad-limit", "between 64 and 65536"),
        (set("attributes_per_object", Some(32)), "", ""),
    ] {
        match ask(&mut core, call) {
            Some(Reply::Failed(failure)) => assert!(failure.code == code && failure.message.contains(says), "{failure:?}"),
            None => assert_eq!(code, "", "it waits for its entry"),
            other => panic!("{other:?}"),
        }
    }
    let proposed = core.ways.queue.iter().find_map(|way| if let Way::Propose(Proposal { entry: Entry::Limits { expected, limits }, .. }) = way { Some((*expected, limits.clone())) } else { None });
    let (expected, limits) = proposed.expect("it asks the control log");
    assert_eq!((expected, limits), (core.domain.config_version, DomainLimits::default().with(Limit::AttributesPerObject, 32)));
    let Some(Reply::Limits(rows)) = ask(&mut core, Call::Limits) else { panic!("rows are asked for") };
    assert!(rows.len() == TABLE.len() && rows.iter().all(|row| row.used.is_some()), "{rows:?}");
}

#[test]
fn the_level_is_raised_by_one_step_once_every_member_is_there_and_reads_it() {
    let mut core = restarted();
    core.ways.reads = [(NodeId(1), Level(2)), (NodeId(2), Level(1)), (NodeId(3), Level(2))].into();
    core.verdicts = [(NodeId(2), Verdict::Alive), (NodeId(3), Verdict::Dead)].into();
    let refused = |core: &mut CoreLoop<SimWays>, level| match ask(core, Call::FeatureRaise { level, message: String::new() }) {
        Some(Reply::Failed(failure)) => (failure.code, failure.exit, failure.message),
        other => panic!("{other:?}"),
    };
    let (code, exit, message) = refused(&mut core, None);
    assert_eq!((code.as_str(), exit), ("not-everywhere", 4));
    assert!(message.ends_with("every member: n2 reads up to 1, n3 is not there to say what it reads"), "{message}");
    assert_eq!(refused(&mut core, Some(3)).0, "one-step");
    assert_eq!(refused(&mut core, Some(0)).0, "no-way-back");
    assert!(matches!(ask(&mut core, Call::FeatureRaise { level: Some(1), message: String::new() }), Some(Reply::Done { .. })), "it is so already");
    let Some(Reply::Feature(report)) = ask(&mut core, Call::Feature) else { panic!("it is asked for") };
    assert_eq!((report.level, report.next, report.hindered_by.len()), (1, Some(2), 2));
    assert_eq!(report.nodes.iter().map(|row| row.reads).collect::<Vec<_>>(), [Some(2), Some(1), None]);
    core.ways.queue.clear();

    core.ways.reads.insert(NodeId(2), Level(3));
    core.verdicts.insert(NodeId(3), Verdict::Alive);
    assert!(ask(&mut core, Call::FeatureRaise { level: None, message: "upgraded".into() }).is_none(), "it waits for its entry");
    let proposed: Vec<_> = core.ways.queue.iter().filter_map(|way| if let Way::Propose(proposal) = way { Some(proposal.entry.clone()) } else { None }).collect();
    assert_eq!(proposed, [Entry::Feature { level: Level(2) }]);
}

const FAULTS: u64 = 12;
const SEEDS: u64 = 1000;
