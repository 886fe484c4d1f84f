//! `nines sim`: the same seeds in separate processes, broken rules, and bad input.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn nines(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nines")).args(arguments).stdin(Stdio::null()).output().expect("nines runs")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + String::from_utf8_lossy(&output.stderr).as_ref()
}

/// The report, less what depends on the machine.
fn campaign(arguments: &[&str]) -> Value {
    let output = nines(&[&["sim", "campaign", "--json", "-"], arguments].concat());
    let mut report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output)));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    drop(report.as_object_mut().and_then(|o| o.remove("effort")));
    report
}

#[test]
fn two_processes_see_the_same_whatever_their_number_of_threads() {
    let one = campaign(&["--seeds", "6", "--jobs", "1"]);
    let other = campaign(&["--seeds", "6", "--jobs", "3"]);
    assert_eq!(one, other);
    assert_eq!((one["schema"].as_str(), one["seeds"]["done"].as_u64()), (Some("nines.sim-campaign/1"), Some(6)));
}

#[test]
fn a_broken_rule_ends_with_1_and_a_script_that_fails_again_in_another_process() {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("report.json");
    let page = home.path().join("report.html");
    let rule = ["--break", "gate-never-closes"];
    let output = nines(&[&["sim", "campaign", "--seeds", "12", "--json", path(&file), "--html", path(&page)][..], &rule].concat());
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("replay: nines sim replay --seed"), "{}", text(&output));
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&file).expect("the report")).expect("it is JSON");
    assert!(std::fs::read_to_string(&page).expect("the page").contains("shrunk in"));
    let script = home.path().join("script.json");
    std::fs::write(&script, report["shrunk"]["script"].to_string()).expect("it is written");
    let replay = |more: &[&str]| nines(&[&["sim", "replay", "--script", path(&script)], more].concat());
    let again = replay(&rule);
    assert_eq!(again.status.code(), Some(1), "{}", text(&again));
    assert!(text(&again).contains("FAULT") || text(&again).contains("everything heals"), "{}", text(&again));
    assert_eq!(replay(&[]).status.code(), Some(0), "the product as it is stands it");
}

#[test]
fn ctrl_c_ends_with_a_report_and_the_state_goes_on() {
    let home = tempfile::tempdir().expect("a directory");
    let state = home.path().join("state");
    let arguments = |seeds: &str| ["sim", "campaign", "--seeds", seeds, "--faults", "2", "--json", "-", "--state", path(&state)].map(str::to_owned);
    let mut campaign = Command::new(env!("CARGO_BIN_EXE_nines"));
    let campaign = campaign.args(arguments("1000000")).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("nines runs");
    while !state.exists() {
        std::thread::sleep(std::time::Duration::from_millis(50)); // saved every few seconds
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(campaign.id()).expect("a process id"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it runs");
    let output = campaign.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130), "{}", text(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let done = report["seeds"]["done"].as_u64().expect("a number");
    assert!(done > 0 && report["interrupted"] == true && report["good"] == true, "{report}");
    let more = nines(&arguments(&(done + 3).to_string()).each_ref().map(String::as_str));
    let report: Value = serde_json::from_slice(&more.stdout).expect("it is JSON");
    assert_eq!((more.status.code(), report["seeds"]["done"].as_u64()), (Some(0), Some(done + 3)), "{}", text(&more));
}

#[test]
fn bad_input_ends_with_2_and_says_what_would_be_right() {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("script.yaml");
    std::fs::write(&file, "seed: 1\nsteps: []\n").expect("it is written");
    let cases: [(&[&str], &str); 4] = [
        (&["sim", "campaign", "--seeds", "1", "--mtbf", "node-kill=5h"], "node-killed"),
        (&["sim", "campaign", "--seeds", "1", "--domain", "nowhere.yaml"], "nowhere.yaml"),
        (&["sim", "replay", "--script", path(&file)], "script.yaml"),
        (&["sim", "replay"], "--seed"),
    ];
    for (arguments, wanted) in cases {
        let output = nines(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output));
        assert!(text(&output).contains(wanted), "{arguments:?}: {}", text(&output));
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path that is text")
}
