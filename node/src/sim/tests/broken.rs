//! Each rule that can be broken is noticed, or the seeds that find nothing prove nothing.
//!
//! Three tables, and every rule stands in one of them: what random seeds find, what a script finds that leads to the harm, and what
//! does no harm that anybody could see from outside, with the reason.

use std::collections::BTreeMap;

use clap::ValueEnum as _;
use sixnines_hwsim::domain::chaos::Report;
use sixnines_hwsim::domain::chaos::script::Script;

use super::super::{Mutation, play_safely, three_nodes};
use super::{FAULTS, Plan, number, run};

/// A rule, and the seed that finds it first. Should the seeds have come to mean something else, [`WITHIN`] of them are tried.
const BY_SEED: &[(Mutation, u64)] = &[
    (Mutation::NamesWithoutIncarnations, 2),
    (Mutation::PromotesNonMember, 2),
    (Mutation::AcknowledgesAlone, 12),
    (Mutation::OldEpochAnswers, 2),
    (Mutation::DemotedDiscards, 40),
    (Mutation::LeaseFromArrival, 4),
    (Mutation::LeaseOutlastsPromise, 5),
    (Mutation::EvidenceSkipsWait, 13),
    (Mutation::GrantsWhatIsNotApplied, 228),
    (Mutation::GrantsAfterRelease, 3),
    (Mutation::OneReleaseIsEnough, 13),
    (Mutation::ConfirmLeavesReleases, 5),
    (Mutation::RelinquishesWithoutClosing, 2),
    (Mutation::ReopensAfterRelinquishing, 13),
    (Mutation::RenouncesAndSpeaks, 1),
    (Mutation::GateNeverCloses, 2),
    (Mutation::DaemonClosesGate, 4),
    (Mutation::EntriesNotSynced, 2),
    (Mutation::EmptyDiskKeepsItsNumber, 1),
    (Mutation::AlarmsNotContinued, 2),
    (Mutation::ShelvesObeyAnybody, 141),
    (Mutation::CursorStandsStill, 1),
    (Mutation::EventsDropped, 1),
    (Mutation::ToldBeforeItIsSynced, 2),
];

/// Every rule of [`BY_SEED`] is found within so many seeds.
const WITHIN: u64 = 300;

/// Scripts, by the rule that they break. All that a script shows: with the rule broken it fails, with the product as it is it does not.
const SCRIPTS: &[(Mutation, &str)] = &[
    (Mutation::EntriesWithoutVersion, include_str!("../corpus/entries-without-version.yaml")),
    (Mutation::GrantsTheDeaf, include_str!("../corpus/grants-the-deaf.yaml")),
    (Mutation::RestartForgetsRelease, include_str!("../corpus/restart-forgets-release.yaml")),
    (Mutation::TailNotCut, include_str!("../corpus/tail-not-cut.yaml")),
    (Mutation::VoteNotSynced, include_str!("../corpus/vote-not-synced.yaml")),
];

/// Rules that neither seeds nor a script have found in whole domains, and what stands before the harm or finds it elsewhere.
const UNSEEN: &[(Mutation, &str)] = &[
    (Mutation::None, "nothing is broken"),
    (Mutation::DeadStayInSet, "a dead member holds up writes until the active leaves it out; a life that is over is never promoted"),
    (Mutation::JoinedEndsAnyLife, "takes a proposal that outlives its process; caught in core/tests/takeover_model"),
    (Mutation::AcknowledgeBeforeShrink, COPIES), // and a copy that does not hear is left out before a write waits for long
    (Mutation::AcknowledgementsWithoutIncarnation, COPIES),
    (Mutation::OldCursorCounts, COPIES),
    (Mutation::MatchBySequence, COPIES),
    (Mutation::NewcomerTooEarly, COPIES),
    (Mutation::NewcomerNeedsOnlyAcknowledged, COPIES),
    (Mutation::NewcomerCountedAfterCommit, COPIES),
    (Mutation::ResyncInPlace, COPIES),
    (Mutation::OldEpochAccepted, COPIES),
    (Mutation::RetryAtOnce, COPIES),
    (Mutation::RepeatAppliedAgain, COPIES), // and to set a key twice to the same is harmless
    (Mutation::ReadUncounted, COPIES),
    (Mutation::ReadWithoutAsking, COPIES), // and the gate keeps what is read from whoever asked
    (Mutation::SwitchoverUndrained, COPIES),
    (Mutation::ResumesUnsettled, COPIES),
    (Mutation::RestartForgetsPromise, "who is not heard is held for dead only after as long a silence as the promise lasts; caught in core/tests/takeover_model"),
    (Mutation::OpensWithoutLease, "under load whoever is granted no lease does not stay in the set; caught in core/tests/takeover_model"),
    (Mutation::TimersNotContinued, "no board hangs there, and the policies that ship wait for nothing else; caught by the scenario board-hangs-for-good.yaml"),
    (Mutation::TakeoverWithoutFence, "nothing is fenced in the domain that seeds are drawn for; found in tests::fences"),
    (Mutation::ActsWithoutLease, "the shelves check epochs by themselves"),
];

/// The copies' rules are found by schedules that the copies alone are driven with, thousands of them. In a whole domain most of them need
/// two things within one round trip, and a newcomer has the few sections that there are before its listing is committed.
const COPIES: &str = "found in checkpoint/src/testing/tests.rs";

#[test]
fn every_rule_that_seeds_can_find_is_found() {
    let is_found = |(mutation, first): &(Mutation, u64)| std::iter::once(*first).chain(1..=WITHIN).any(|seed| broken(*mutation, seed).failure.is_some());
    let unnoticed: Vec<_> = BY_SEED.iter().filter(|row| !is_found(row)).map(|(mutation, _)| mutation).collect();
    assert!(unnoticed.is_empty(), "{unnoticed:?} go unnoticed in {WITHIN} seeds");
}

#[test]
fn every_script_leads_to_the_harm_that_its_rule_prevents() {
    let config = three_nodes();
    for (mutation, text) in SCRIPTS.iter().copied() {
        let script: Script = serde_yaml::from_str(text).unwrap_or_else(|e| panic!("{mutation:?}: {e}"));
        let as_it_is = play_safely(&config, Mutation::None, &script);
        assert_eq!(as_it_is.failure, None, "{mutation:?}");
        assert!(play_safely(&config, mutation, &script).failure.is_some(), "{mutation:?} goes unnoticed");
    }
}

#[test]
fn every_rule_stands_in_a_table() {
    let tables = BY_SEED.iter().map(|(m, _)| *m).chain(SCRIPTS.iter().map(|(m, _)| *m)).chain(UNSEEN.iter().map(|(m, _)| *m));
    let missing: Vec<_> = Mutation::value_variants().iter().filter(|m| !tables.clone().any(|t| t == **m)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let reasons: BTreeMap<_, _> = UNSEEN.iter().copied().collect();
    assert!(reasons.values().all(|why| !why.is_empty()) && reasons.len() == UNSEEN.len());
}

/// For whoever has to fill the first table anew: the first of `NINES_SEEDS` seeds that notices each rule; or those of `NINES_RULE` alone.
#[test]
#[ignore = "takes minutes; prints, and proves nothing"]
fn the_first_seeds() {
    let wanted = std::env::var("NINES_RULE").ok();
    let rules = Mutation::value_variants().iter().filter(|m| **m != Mutation::None && wanted.as_ref().is_none_or(|w| w.split(',').any(|w| m.word() == w)));
    for mutation in rules {
        let seeds = 1..=number("NINES_SEEDS").unwrap_or(WITHIN);
        let found = seeds.map(|seed| broken(*mutation, seed)).find(|report| report.failure.is_some());
        match found {
            Some(report) => println!("{} {}: {}", mutation.word(), report.seed, report.failure.unwrap_or_default()),
            None => println!("{} is not found", mutation.word()),
        }
    }
}

fn broken(mutation: Mutation, seed: u64) -> Report {
    run(seed, &Plan { mutation, faults: FAULTS })
}
