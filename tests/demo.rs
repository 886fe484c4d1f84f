//! The demo as a user runs it: real processes, every fault, and the same with a protection taken out, which must show.
//!
//! One at a time: a domain at profile `fabric` wants the machine for itself.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

static MACHINE: Mutex<()> = Mutex::new(());

/// A user without rights.
const NOBODY: u32 = 65534;

const STEPS: [&str; 8] = [
    "fans-failed",
    "process-killed",
    "node-killed",
    "standby-killed",
    "node-hung",
    "links-cut",
    "one-link-cut",
    "switchover",
];

struct Run {
    code: Option<i32>,
    report: Value,
    story: String,
}

/// Runs the demo.
fn demo(arguments: &[&str]) -> Run {
    demo_as(None, arguments)
}

/// Runs the demo as another user.
fn demo_as(user: Option<u32>, arguments: &[&str]) -> Run {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut command = Command::new(env!("CARGO_BIN_EXE_nines"));
    command.args(["demo", "--json", "-"]).args(arguments).stdin(Stdio::null());
    if let Some(id) = user {
        command.uid(id).gid(id).current_dir("/");
    }
    let output = command.output().expect("the demo runs");
    let story = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("no report ({e}):\n{story}"));
    Run { code: output.status.code(), report, story }
}

impl Run {
    /// A demo that was to fail keeps its logs for a user, not for a test.
    fn forget_logs(&self) {
        let directory = self.story.lines().find_map(|line| line.strip_prefix("logs")).unwrap_or_else(|| panic!("no logs were kept:\n{}", self.story));
        std::fs::remove_dir_all(directory.trim()).expect("they are ours");
    }

    fn steps(&self) -> &Vec<Value> {
        self.report["steps"].as_array().expect("a report has steps")
    }

    fn step(&self, name: &str) -> &Value {
        self.steps().iter().find(|s| s["name"] == name).unwrap_or_else(|| panic!("no step {name}:\n{}", self.story))
    }

    fn assert_kept(&self, steps: &[&str]) {
        let names: Vec<_> = self.steps().iter().map(|s| s["name"].as_str().unwrap()).collect();
        assert_eq!(names, steps, "{}", self.story);
        assert_eq!((self.code, &self.report["ok"]), (Some(0), &true.into()), "{}", self.story);
        for step in self.steps() {
            assert_eq!(step["lost"], 0, "{step}\n{}", self.story);
            assert_eq!(step["two_actives_ms"], 0.0, "{step}\n{}", self.story);
            assert!(step["acknowledged"].as_u64().unwrap() > 100, "{step}");
            assert!(!step["why"].as_array().unwrap().is_empty(), "{step}");
            assert!(step["outage_ms"].is_number() && step["suspensions"].is_number(), "{step}");
            let stays = ["fans-failed", "standby-killed", "one-link-cut", "voter-killed"].contains(&step["name"].as_str().unwrap());
            assert_eq!(step["moved"], !stays, "{step}");
        }
    }
}

#[test]
fn every_fault_keeps_every_promise() {
    demo(&[]).assert_kept(&STEPS);
}

#[test]
fn the_same_holds_without_any_rights() {
    let user = nix::unistd::geteuid().is_root().then_some(NOBODY);
    let steps = ["process-killed", "node-killed", "node-hung", "links-cut", "one-way-cut", "voter-killed"];
    let run = demo_as(user, &["--steps", &steps.join(",")]);
    if run.report["mode"] == "loopback" {
        eprintln!("SKIPPED: no user namespaces on this machine");
        return;
    }
    assert_eq!(run.report["mode"], "userns", "{}", run.story);
    run.assert_kept(&steps);
}

#[test]
fn the_same_holds_on_loopback_as_far_as_it_goes() {
    let run = demo(&["--loopback"]);
    assert_eq!(run.report["mode"], "loopback");
    let steps: Vec<_> = STEPS.into_iter().filter(|s| !s.contains("cut")).collect();
    run.assert_kept(&steps);
    assert!(run.story.contains("links-cut and one-link-cut are left out"), "it says what is missing: {}", run.story);
}

#[test]
fn without_the_epoch_check_a_dead_owners_late_order_is_seen_to_be_obeyed() {
    let run = demo(&["--steps", "node-killed", "--without", "epoch-check"]);
    assert_eq!((run.code, &run.report["ok"]), (Some(1), &false.into()), "{}", run.story);
    assert!(run.step("node-killed")["two_actives_ms"].as_f64().unwrap() > 0.0, "{}", run.story);
    run.forget_logs();
}

#[test]
fn without_the_gate_a_stopped_node_is_seen_speaking() {
    let run = demo(&["--steps", "node-hung", "--without", "gate"]);
    if run.report["mode"] == "loopback" {
        eprintln!("SKIPPED: no namespaces on this machine");
        return;
    }
    assert_eq!((run.code, &run.report["ok"]), (Some(1), &false.into()), "{}", run.story);
    assert!(run.step("node-hung")["two_actives_ms"].as_f64().unwrap() > 0.0, "{}", run.story);
    run.forget_logs();
}

#[test]
fn an_unknown_step_is_named_with_the_known_ones() {
    let output = Command::new(env!("CARGO_BIN_EXE_nines")).args(["demo", "--steps", "node-kill"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("node-kill") && text.contains("standby-killed"), "{text}");
}

#[test]
fn a_short_soak_takes_nobody_for_dead_and_says_how_late_everybody_was() {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let arguments = ["bench", "soak", "--seconds", "4", "--stresses", "cpu", "--profile", "lan", "--json", "-"];
    let output = Command::new(env!("CARGO_BIN_EXE_nines")).args(arguments).stdin(Stdio::null()).output().expect("the bench runs");
    let story = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("no report ({e}):\n{story}"));
    let rows = report["rows"].as_array().expect("a report has rows");
    let names: Vec<_> = rows.iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!((report["bench"].as_str(), names), (Some("soak"), vec!["cpu"]), "{story}");
    for row in rows {
        assert_eq!((&row["false_takeovers"], &row["lost"], &row["two_actives_ms"]), (&0.into(), &0.into(), &0.0.into()), "{row}\n{story}");
        assert!(row["acknowledged"].as_u64().unwrap() > 100 && row["late_ms"].as_object().unwrap().len() == 3, "{row}");
    }
    assert_eq!(output.status.code(), Some(0), "{story}");
}
