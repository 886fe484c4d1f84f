//! `nines sim` as a test engineer uses it: a first scenario, one that fails, files that are wrong, and results for his own CI.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

fn nines(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nines")).args(arguments).stdin(Stdio::null()).output().expect("nines runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + String::from_utf8_lossy(&output.stderr).as_ref()
}

struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("a path of ours is text").to_owned()
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).expect("it is written");
        self.path(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("it was written")
    }
}

const FIRST: &str = "timeline:
  - { at: 10s, inject: fan-failed fan=1, for: 1m }
  - { at: 10s, expect: alarm fan-failed on /mxp1/fan1 and /mxp1/fan2 duty == 100, within: 5s }
";
const BROKEN: &str = "scenario: too much <to> ask\ntimeline:\n  - { at: 10s, inject: fan-failed fan=1 }\n  - { at: 10s, expect: /mxp1/fan2 duty == 30, within: 5s }\n";

#[test]
fn the_first_scenario_of_the_readme_is_kept() {
    let desk = Desk::new();
    let readme = std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../README.md")).expect("it is there");
    assert!(readme.contains(FIRST), "the README shows what is tested here");
    let output = nines(&["sim", "run", &desk.write("first.yaml", FIRST), "--story"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("1 of 1 scenario kept") && said(&output).contains("alarm fan-failed on /mxp1/fan1 raised"), "{}", said(&output));
}

#[test]
fn what_is_not_kept_is_exit_1_and_stands_in_every_form_of_result() {
    let desk = Desk::new();
    let (first, broken) = (desk.write("first.yaml", FIRST), desk.write("broken.yaml", BROKEN));
    let (json, junit, plots) = (desk.path("out.json"), desk.path("out.xml"), desk.path("plots"));
    let output = nines(&["sim", "run", &first, &broken, "--json", &json, "--junit", &junit, "--plot", &plots]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("broken.yaml:4") && said(&output).contains("got /mxp1/fan2 duty 100"), "{}", said(&output));

    let document: serde_json::Value = serde_json::from_slice(&desk.read("out.json")).expect("JSON");
    assert_eq!((document["schema"].as_str(), document["good"].as_bool()), (Some("nines.sim-run/1"), Some(false)));
    let outcome = &document["scenarios"][1]["outcomes"][0];
    assert_eq!((outcome["verdict"].as_str(), outcome["line"].as_u64(), outcome["at_s"].as_f64()), (Some("broken"), Some(4), Some(15.0)));
    assert_eq!(document["scenarios"][0]["outcomes"][0]["verdict"], "kept");

    let xml = String::from_utf8(desk.read("out.xml")).expect("text");
    assert!(xml.contains("tests=\"2\" failures=\"1\"") && xml.contains("too much &lt;to&gt; ask"), "{xml}");
    for name in ["first", "broken"] {
        let png = desk.read(&format!("plots/{name}.png"));
        assert!(png.starts_with(b"\x89PNG\r\n\x1a\n") && png.len() > 5_000, "{} bytes", png.len());
        let svg = String::from_utf8(desk.read(&format!("plots/{name}.svg"))).expect("text");
        assert!(svg.starts_with("<svg") && svg.contains("fan-failed /mxp1/fan1") && svg.contains("rpm"), "{name}");
    }
}

#[test]
fn json_on_standard_output_is_one_document_and_nothing_else() {
    let desk = Desk::new();
    let output = nines(&["sim", "run", &desk.write("first.yaml", FIRST), "--json", "-"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert_eq!(document["good"], true);
}

#[test]
fn wrong_files_are_exit_2_with_place_and_suggestion_and_nothing_is_run() {
    let desk = Desk::new();
    let wrong = desk.write("wrong.yaml", &FIRST.replace("fan-failed fan=1", "fan-faild fan=1"));
    let first = desk.write("first.yaml", FIRST);
    for arguments in [["sim", "check", wrong.as_str(), first.as_str()], ["sim", "run", wrong.as_str(), first.as_str()]] {
        let output = nines(&arguments);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains("wrong.yaml:2:24") && said(&output).contains("did you mean \"fan-failed\"?"), "{}", said(&output));
        assert!(!said(&output).contains("kept"), "{}", said(&output));
    }
    let shelf = std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../hwsim/chassis/edge-box.yaml")).expect("it ships");
    let output = nines(&["sim", "check", &desk.write("shelf.yaml", &shelf.replace("count: 2", "count: many"))]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("shelf.yaml:"), "{}", said(&output));
    assert_eq!(nines(&["sim", "check", &desk.write("good.yaml", &shelf)]).status.code(), Some(0));
    assert_eq!(nines(&["sim", "run", &desk.path("nowhere.yaml")]).status.code(), Some(2));
    let json = nines(&["sim", "check", &wrong, "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&json.stdout).expect("one document");
    assert_eq!((document["good"].as_bool(), document["diagnostics"][0]["code"].as_str()), (Some(false), Some("unknown-fault")));
}

#[test]
fn a_users_own_policies_and_chassis_are_what_is_tested() {
    let desk = Desk::new();
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let config = desk.path("policies");
    copy(&root.join("policies"), &PathBuf::from(&config));
    let first = desk.write("first.yaml", FIRST);
    assert_eq!(nines(&["sim", "run", &first, "--config", &config]).status.code(), Some(0));
    desk.write("policies/fan.rhai", "fn on_state(fan, change) { if change.now == \"failed\" { fan.raise(\"fan-failed\"); } }");
    assert_eq!(nines(&["sim", "run", &first, "--config", &config]).status.code(), Some(1), "nobody speeds the others up");
    desk.write("shelf.yaml", &std::fs::read_to_string(root.join("hwsim/chassis/edge-box.yaml")).expect("it ships"));
    let mine = desk.write("mine.yaml", "chassis: shelf.yaml\ntimeline:\n  - { at: 1s, inject: fan-failed fan=2, expect: /edge1/fan1 duty == 100, within: 5s }\n");
    let output = nines(&["sim", "run", &mine]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

const DOMAIN: &str = "domain: { mxp1: [n1, n2], mxp2: [n3] }
services: [calls]
timeline:
  - { at: 1s, inject: node-killed node=n1, for: 1s }
  - { at: 1s, expect: role of calls on n3 is active, within: 60ms }
  - { at: 1s, expect: alarm node-dead on /nodes/n1, within: 60ms }
  - never: two actives
";

#[test]
fn a_scenario_of_a_whole_domain_is_played_and_its_roles_stand_in_every_form_of_result() {
    let desk = Desk::new();
    let readme = std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../README.md")).expect("it is there");
    assert!(readme.contains(DOMAIN), "the README shows what is tested here");
    let (file, json, junit, plots) = (desk.write("second.yaml", DOMAIN), desk.path("out.json"), desk.path("out.xml"), desk.path("plots"));
    let output = nines(&["sim", "run", &file, "--story", "--json", &json, "--junit", &junit, "--plot", &plots]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("n3 is active for calls") && said(&output).contains("1 of 1 scenario kept"), "{}", said(&output));
    let document: serde_json::Value = serde_json::from_slice(&desk.read("out.json")).expect("JSON");
    let roles = document["scenarios"][0]["roles"].as_array().expect("roles");
    assert!(roles.iter().any(|bar| bar["label"] == "calls on n3: active"), "{roles:?}");
    assert!(document["scenarios"][0]["outcomes"][0]["slowest_ms"].as_f64().is_some_and(|ms| ms > 1.0 && ms < 60.0));
    assert!(String::from_utf8(desk.read("out.xml")).expect("text").contains("failures=\"0\""));
    assert!(String::from_utf8(desk.read("plots/second.svg")).expect("text").contains("calls on n2"));
}

#[test]
fn a_broken_invariant_fails_the_scenario_with_its_story() {
    let desk = Desk::new();
    let moves = DOMAIN.replace("inject: node-killed node=n1, for: 1s", "switchover: calls to=n3");
    let file = desk.write("moves.yaml", &moves.replace("  - { at: 1s, expect: alarm node-dead on /nodes/n1, within: 60ms }\n", ""));
    let (json, junit) = (desk.path("out.json"), desk.path("out.xml"));
    let output = nines(&["sim", "run", &file]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let output = nines(&["sim", "run", &file, "--break", "gate-never-closes", "--json", &json, "--junit", &junit]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("two actives: n") && said(&output).contains("of what happened"), "{}", said(&output));
    let document: serde_json::Value = serde_json::from_slice(&desk.read("out.json")).expect("JSON");
    assert!(document["scenarios"][0]["trace"].as_array().is_some_and(|lines| lines.len() > 10));
    assert!(String::from_utf8(desk.read("out.xml")).expect("text").contains("<system-out>"));
}

#[test]
fn a_domains_words_in_a_scenario_about_a_chassis_are_exit_2_and_say_how_to_describe_a_domain() {
    let desk = Desk::new();
    let killed = desk.write("killed.yaml", "timeline:\n  - { at: 1s, inject: node-killed node=n1, expect: no alarms }\n");
    let role = desk.write("role.yaml", "services: [calls]\ntimeline:\n  - { at: 1s, expect: role of calls on n1 is active }\n");
    for file in [killed, role] {
        let output = nines(&["sim", "run", &file]);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains("domain: { mxp1: [n1, n2], mxp2: [n3] }"), "{}", said(&output));
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("it is made");
    for entry in std::fs::read_dir(from).expect("it is there") {
        let path = entry.expect("readable").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("it is copied");
        }
    }
}

/// The same file in virtual time and on real processes. No bound of it is a matter of milliseconds.
const BOTH: &str = "domain: { mxp1: [n1, n2], mxp2: [n3] }
services: [calls]
lasts: 12s
timeline:
  - { at: 0s, expect: role of calls on n1 is active and role of calls on n3 is standby }
  - { at: 0s, inject: fans-failed chassis=mxp2 fans=2 }
  - { at: 0s, expect: alarm fan-failed on /mxp2/fan2, within: 5s }
  - { at: 1s, inject: one-way-cut from=n3 to=n2, for: 1s }
  - { at: 3s, inject: node-killed node=n1, for: 2s }
  - { at: 3s, expect: role of calls on n3 is active and alarm node-dead on /nodes/n1, within: 6s }
  - { at: 10s, expect: role of calls on n1 is standby }
  - never: two actives
";

#[test]
fn a_scenario_of_virtual_time_is_played_on_real_nodes() {
    let desk = Desk::new();
    let file = desk.write("both.yaml", BOTH);
    let output = nines(&["sim", "run", &file]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let output = nines(&["sim", "run", &file, "--lab", "--story"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("inject node-killed") && said(&output).contains("n3 is active for calls"), "{}", said(&output));
}

#[test]
fn what_a_lab_cannot_do_is_refused_before_anything_is_built() {
    let desk = Desk::new();
    let head = "domain: { mxp1: [n1, n2], mxp2: [n3] }\nservices: [calls]\nlasts: 3s\ntimeline:\n";
    let full = desk.write("full.yaml", &format!("{head}  - {{ at: 1s, inject: disk-full node=n1 }}\n  - {{ at: end, expect: no alarms }}\n"));
    let four = desk.write("four.yaml", "domain: { mxp1: [n1, n2], mxp2: [n3, n4] }\nservices: [calls]\ntimeline:\n  - never: two actives\n");
    for (file, mode, why) in [(&full, "--lab", "full.yaml:5: what breaks disks"), (&four, "--lab", "the lab is `domain: { mxp1: [n1, n2], mxp2: [n3] }`"), (&full, "--live", "--lab plays it")] {
        let output = nines(&["sim", "run", file, mode]);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains(why), "{}", said(&output));
    }
    assert_eq!(nines(&["sim", "run", &full, "--lab", "--live"]).status.code(), Some(2));
}
