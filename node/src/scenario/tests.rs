//! The scenarios about whole domains that ship: each is kept, and none would be if there were nothing to keep it.
//!
//! One that names a policy is broken without it. One that names none is about the machinery of roles: it is broken if nothing of what it does
//! is done, so that it does not tell a truism. And each rule of the product that can be taken out is missed by some of them.

use std::path::PathBuf;

use sixnines_core::diagnostic::Source;
use sixnines_core::domain::config::Bundle;
use sixnines_hwsim::scenario::{Report, Scenario, Verdict, run};

use super::draw;
use super::table::{found, story};
use crate::shipped;
use crate::sim::{Mutation, stage};

/// By file; `NINES_SCENARIO` picks those whose name has it.
fn all() -> Vec<(String, String)> {
    let picked = std::env::var("NINES_SCENARIO").unwrap_or_default();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../policies/tests/scenarios/domain");
    let files = super::find(&[folder]).expect("they ship");
    let mut list: Vec<(String, String)> = files
        .into_iter()
        .map(|path| (path.file_name().expect("a file").to_string_lossy().into_owned(), std::fs::read_to_string(&path).expect("text")))
        .filter(|(name, _)| name.contains(&picked))
        .collect();
    list.sort();
    list
}

fn read(name: &str, text: &str, bundle: &Bundle) -> Scenario {
    let open = |file: &str| Err(format!("{file} is not there"));
    Scenario::read(Source { name, text }, bundle, &open).unwrap_or_else(|wrong| panic!("{}", wrong.iter().map(|d| format!("{d}\n\n")).collect::<String>()))
}

fn played(scenario: &Scenario, mutation: Mutation) -> Report {
    run(scenario, &mut stage(&scenario.setting, mutation)).expect("a stage that cannot go away")
}

fn told(report: &Report) -> String {
    let broken = report.outcomes.iter().filter(|o| o.verdict != Verdict::Kept);
    let broken: String = broken.map(|o| format!("  line {}: {}: {}\n", o.line, o.text, found(o))).collect();
    format!("{} ({})\n{broken}{}", report.name, report.file, story(report))
}

#[test]
fn every_shipped_scenario_of_a_domain_is_kept() {
    let bundle = shipped::policies();
    let reports = all().into_iter().map(|(name, text)| played(&read(&name, &text, &bundle), Mutation::None));
    let broken: Vec<String> = reports.filter(|report| !report.is_good()).map(|report| told(&report)).collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn every_shipped_scenario_of_a_domain_is_broken_without_what_it_is_about() {
    let bundle = shipped::policies();
    let mut blunt = Vec::new();
    for (name, text) in all() {
        let mut scenario = read(&name, &text, &bundle);
        let about = match &scenario.policy {
            Some(policy) => {
                let mut without = bundle.clone();
                without.files.insert(policy.clone(), String::new());
                let about = policy.clone();
                scenario = read(&name, &text, &without);
                about
            }
            None => {
                scenario.steps.iter_mut().for_each(|step| step.deeds.clear());
                if let Some(domain) = &mut scenario.setting.domain {
                    domain.is_cold = false;
                }
                "anything being done".to_owned()
            }
        };
        if played(&scenario, Mutation::None).is_good() {
            blunt.push(format!("{name} is kept without {about}"));
        }
    }
    assert!(blunt.is_empty(), "{blunt:#?}");
}

#[test]
fn the_same_scenario_of_a_domain_gives_the_same_report() {
    let bundle = shipped::policies();
    let (name, text) = all().into_iter().next().expect("there are some");
    let scenario = read(&name, &text, &bundle);
    let twice = [(); 2].map(|()| {
        let mut stage = stage(&scenario.setting, Mutation::None);
        let report = run(&scenario, &mut stage).expect("a stage that cannot go away");
        (report, stage.world().trace().checksum)
    });
    assert_eq!(twice[0], twice[1]);
}

/// A rule is missed by a scenario if an invariant breaks there, whatever the scenario expects.
#[test]
fn a_rule_that_is_taken_out_is_missed_by_a_scenario_with_the_story_of_the_breach() {
    let bundle = shipped::policies();
    let list = all();
    for mutation in [Mutation::GateNeverCloses, Mutation::OldEpochAnswers, Mutation::AcknowledgesAlone] {
        let breach = |report: &Report| report.outcomes.iter().any(|o| o.text.starts_with("never two actives, never an acknowledged write lost"));
        let broken = list.iter().map(|(name, text)| played(&read(name, text, &bundle), mutation)).find(breach);
        let report = broken.unwrap_or_else(|| panic!("{mutation:?} goes unnoticed in all scenarios"));
        assert!(!report.trace.is_empty() && !report.is_good(), "{mutation:?}");
    }
}

/// Nobody else notices: the seeds' boards do not hang.
#[test]
fn timers_that_a_new_owner_does_not_go_on_with_are_missed_by_a_scenario() {
    let text = include_str!("../../../policies/tests/scenarios/domain/board-hangs-for-good.yaml");
    let report = played(&read("board-hangs-for-good.yaml", text, &shipped::policies()), Mutation::TimersNotContinued);
    let broken: Vec<&str> = report.outcomes.iter().filter(|o| o.verdict != Verdict::Kept).map(|o| o.text.as_str()).collect();
    assert!(broken.len() == 1 && broken[0].contains("board-failed raised"), "{}", told(&report));
}

#[test]
fn roles_are_drawn_over_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = "domain: { mxp1: [n1, n2], mxp2: [n3] }\nservices: [calls]\ntimeline:\n  - { at: 1s, switchover: calls to=n3, expect: role of calls on n3 is active, within: 100ms }\n";
    let report = played(&read("roles.yaml", text, &shipped::policies()), Mutation::None);
    assert!(report.is_good(), "{}", told(&report));
    let labels: Vec<&str> = report.recording.roles.iter().map(|bar| bar.label.as_str()).collect();
    assert_eq!(labels, ["calls on n1: active", "calls on n1: standby", "calls on n2: none", "calls on n3: standby", "calls on n3: active"]);
    let [svg, png] = draw(dir.path(), &report).expect("drawn");
    assert!(std::fs::read_to_string(svg).expect("text").contains("calls on n3") && png.is_file());
}
