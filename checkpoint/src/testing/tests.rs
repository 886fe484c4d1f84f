//! Random schedules over the whole domain, and each broken rule found by them.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use super::*;
use crate::config::Fault;

/// How the domain of one case looks.
#[derive(Clone, Copy, Debug)]
struct Shape {
    nodes: u16,
    copies: u8,
    /// Almost no backlog and tiny frames: replicas need transfers, and these take many chunks.
    tight: bool,
}

fn shape() -> impl Strategy<Value = Shape> {
    let sizes = prop_oneof![Just((2, 2)), Just((3, 2)), Just((3, 3))];
    (sizes, any::<bool>()).prop_map(|((nodes, copies), tight)| Shape { nodes, copies, tight })
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        20 => Just(Kind::Frame),
        10 => Just(Kind::Link),
        2 => Just(Kind::Overtake),
        2 => Just(Kind::Double),
        2 => Just(Kind::Lose),
        10 => Just(Kind::Write),
        1 => Just(Kind::WriteAsync),
        3 => Just(Kind::Retry),
        5 => Just(Kind::Read),
        10 => Just(Kind::Row),
        3 => Just(Kind::Rows),
        10 => Just(Kind::Commit),
        1 => Just(Kind::Forget),
        5 => Just(Kind::Takeover),
        2 => Just(Kind::Start),
        2 => Just(Kind::Crash),
        4 => Just(Kind::Restart),
        2 => Just(Kind::Reboot),
        5 => Just(Kind::Time),
        3 => Just(Kind::Unreachable),
        2 => Just(Kind::Reachable),
        2 => Just(Kind::Quiesce),
        1 => Just(Kind::GiveUp),
        2 => Just(Kind::Lease),
        1 => Just(Kind::Prefer),
        1 => Just(Kind::Settle),
    ];
    (kind, any::<u16>()).prop_map(|(kind, pick)| Step { kind, pick })
}

fn config(shape: Shape, fault: Option<Fault>) -> CopyConfig {
    let mut config = CopyConfig { copies: shape.copies, fault, ..CopyConfig::default() };
    if shape.tight {
        config.limits.backlog_records_max = 2;
        config.limits.frame_bytes_max = 40;
        config.limits.window_bytes_max = 400;
        config.limits.chunks_max = 2;
    }
    config
}

fn run(shape: Shape, fault: Option<Fault>, steps: &[Step]) -> Result<Rig, Broken> {
    let mut rig = Rig::new(shape.nodes, config(shape, fault));
    for step in steps {
        rig.step(*step);
        if let Some(broken) = &rig.oracle.broken {
            return Err(broken.clone());
        }
    }
    Ok(rig)
}

fn runner(cases: u32) -> TestRunner {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 4000, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

const STEPS_MAX: usize = 150;

#[test]
fn no_schedule_breaks_a_promise_and_every_domain_heals() {
    let cases = std::env::var("SIXNINES_CASES").ok().and_then(|c| c.parse().ok()).unwrap_or(3000);
    let found = runner(cases).run(&(shape(), proptest::collection::vec(step(), 1..STEPS_MAX)), |(shape, steps)| {
        let mut rig = run(shape, None, &steps).map_err(|b| TestCaseError::fail(format!("{b:?}")))?;
        prop_assert!(rig.heal(), "not healed: {:?} {:?} {:?}", rig.oracle.faults, rig.row(), rig.nodes.values().map(|n| n.copy.as_ref().map(GroupCopy::status)).collect::<Vec<_>>());
        prop_assert_eq!(&rig.oracle.broken, &None);
        prop_assert!(rig.oracle.faults.is_empty(), "{:?}", rig.oracle.faults);
        Ok(())
    });
    if let Err(error) = found {
        panic!("{error}");
    }
}

/// Runs the same schedules with one rule broken; the oracle must notice within `cases`.
fn is_found(fault: Fault, cases: u32) {
    let found = runner(cases).run(&(shape(), proptest::collection::vec(step(), 1..STEPS_MAX)), |(shape, steps)| {
        let run = run(shape, Some(fault), &steps);
        run.map(drop).map_err(|b| TestCaseError::fail(format!("{b:?}")))
    });
    match found {
        Err(TestError::Fail(reason, (shape, steps))) if !reason.message().contains("never stop") => println!("{fault:?}: {reason}, {shape:?}, {} steps {steps:?}", steps.len()),
        other => panic!("{fault:?} is not found in {cases} cases: {other:?}"),
    }
}

macro_rules! found {
    ($($name:ident: $fault:ident within $cases:literal;)*) => {
        $(
            #[test]
            fn $name() {
                is_found(Fault::$fault, $cases);
            }
        )*
    };
}

found! {
    acknowledging_before_the_shrink_is_committed_is_found: AcknowledgeBeforeShrink within 10000;
    reports_without_incarnations_are_found: NoIncarnations within 30000;
    a_report_before_alignment_is_found: ReportBeforeAligned within 30000;
    matching_by_sequence_is_found: MatchBySequence within 30000;
    a_newcomer_listed_too_early_is_found: NewcomerTooEarly within 10000;
    a_newcomer_that_needs_only_what_was_acknowledged_is_found: NewcomerNeedsOnlyAcknowledged within 30000;
    a_newcomer_counted_only_after_the_commit_is_found: NewcomerCountedAfterCommit within 30000;
    an_active_that_discards_when_demoted_is_found: DemotedDiscards within 30000;
    a_resync_in_place_is_found: ResyncInPlace within 30000;
    an_old_epochs_record_taken_is_found: OldEpochAccepted within 30000;
    a_retry_acknowledged_at_once_is_found: RetryAtOnce within 30000;
    a_repeat_applied_again_is_found: RepeatAppliedAgain within 1000;
    a_read_of_what_does_not_count_is_found: ReadUncounted within 10000;
    a_read_without_asking_is_found: ReadWithoutAsking within 10000;
    a_handover_that_does_not_wait_is_found: QuiescedUndrained within 10000;
    writing_on_after_a_handover_without_outcome_is_found: ResumeUnsettled within 30000;
}

#[test]
fn the_same_schedule_gives_the_same_trace() {
    let step = |i: u16| Step { kind: [Kind::Write, Kind::Frame, Kind::Link, Kind::Takeover, Kind::Commit, Kind::Row][usize::from(i % 6)], pick: i * 7 };
    let steps: Vec<Step> = (0..120).map(step).collect();
    let shape = Shape { nodes: 3, copies: 3, tight: true };
    let traces = [(); 2].map(|()| run(shape, None, &steps).map(|rig| format!("{rig:?}")));
    assert_eq!(traces[0], traces[1]);
}

/// A peer with a bug, authenticated as it may be, stops nobody: whatever its frames say, no copy panics.
#[test]
fn frames_with_wrong_bytes_make_no_copy_panic() {
    let wrong = (any::<u16>(), 0_usize..64, any::<u8>());
    let steps = proptest::collection::vec((step(), wrong), 1..STEPS_MAX);
    let found = runner(3000).run(&(shape(), steps), |(shape, steps)| {
        let mut rig = Rig::new(shape.nodes, config(shape, None));
        for (step, (pick, at, byte)) in steps {
            rig.step(step);
            rig.spoil(usize::from(pick), at, byte);
        }
        Ok(())
    });
    if let Err(error) = found {
        panic!("{error}");
    }
}
