//! The scenarios that ship, with the policies that ship: each is kept, and each is broken without the policy that it is about.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use sixnines_core::diagnostic::Source;
use sixnines_core::domain::config::Bundle;
use sixnines_hwsim::scenario::{OwnerStage, Report, Scenario, Verdict, run};

fn policies() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies")
}

/// Classes, alarms and policies; the objects are the chassis' own.
fn bundle() -> Bundle {
    let mut files = BTreeMap::new();
    for folder in ["", "classes/"] {
        for entry in std::fs::read_dir(policies().join(folder)).expect("policies stand beside the crates") {
            let path = entry.expect("readable").path();
            if path.is_file() {
                let name = format!("{folder}{}", path.file_name().expect("a file").to_string_lossy());
                files.insert(name, std::fs::read_to_string(&path).expect("text"));
            }
        }
    }
    Bundle { files }
}

/// By file, `NINES_SCENARIO` picks those whose name has it.
fn shipped() -> Vec<(String, String)> {
    let picked = std::env::var("NINES_SCENARIO").unwrap_or_default();
    let mut list: Vec<(String, String)> = std::fs::read_dir(policies().join("tests/scenarios"))
        .expect("they ship")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.is_file()) // those of whole domains are played where the product is put together
        .map(|path| (path.file_name().expect("a file").to_string_lossy().into_owned(), std::fs::read_to_string(&path).expect("text")))
        .filter(|(name, _)| name.contains(&picked))
        .collect();
    list.sort();
    list
}

fn read(name: &str, text: &str, bundle: &Bundle) -> Scenario {
    let open = |file: &str| Err(format!("{file} is not there"));
    Scenario::read(Source { name, text }, bundle, &open).unwrap_or_else(|wrong| {
        panic!("{}", wrong.iter().map(|d| format!("{d}\n\n")).collect::<String>());
    })
}

fn played(scenario: &Scenario) -> Report {
    run(scenario, &mut OwnerStage::new(&scenario.setting)).expect("a stage that cannot go away")
}

fn told(report: &Report) -> String {
    let mut text = format!("{} ({})\n", report.name, report.file);
    for outcome in report.outcomes.iter().filter(|o| o.verdict != Verdict::Kept) {
        text.push_str(&format!("  line {}: {}: {:?}\n", outcome.line, outcome.text, outcome.verdict));
    }
    for line in report.story.iter().take(60) {
        text.push_str(&format!("    {:>10.3} {}\n", line.at.as_secs_f64(), line.text));
    }
    text
}

#[test]
fn every_shipped_scenario_is_kept() {
    let bundle = bundle();
    let broken: Vec<String> =
        shipped().iter().map(|(name, text)| played(&read(name, text, &bundle))).filter(|r| !r.is_good()).map(|r| told(&r)).collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn every_shipped_scenario_is_broken_without_its_policy() {
    let bundle = bundle();
    let mut blunt = Vec::new();
    for (name, text) in shipped() {
        let policy = read(&name, &text, &bundle).policy.unwrap_or_else(|| panic!("{name} names no policy"));
        let mut without = bundle.clone();
        without.files.insert(policy.clone(), String::new());
        if played(&read(&name, &text, &without)).is_good() {
            blunt.push(format!("{name} is kept without {policy}"));
        }
    }
    assert!(blunt.is_empty(), "{blunt:#?}");
}

#[test]
fn every_shipped_policy_and_every_class_of_the_chassis_has_a_scenario() {
    if std::env::var("NINES_SCENARIO").is_ok() {
        return; // some were picked
    }
    let bundle = bundle();
    let list = shipped();
    assert!(list.len() >= 20, "{} scenarios", list.len());
    let tested: BTreeSet<String> = list.iter().filter_map(|(name, text)| read(name, text, &bundle).policy).collect();
    let all: BTreeSet<String> = bundle.files.keys().filter(|file| file.ends_with(".rhai")).cloned().collect();
    assert_eq!(tested, all);
}

#[test]
fn the_same_scenario_gives_the_same_report() {
    let bundle = bundle();
    let (name, text) = shipped().into_iter().next().expect("there are some");
    let scenario = read(&name, &text, &bundle);
    assert_eq!(played(&scenario), played(&scenario));
}
