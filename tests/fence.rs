//! Two data nodes and a witness of real processes, and services that wait until a lost node is known to be off.

#[path = "support/client.rs"]
mod client;
#[expect(dead_code, reason = "what other tests use")]
#[path = "support/domain.rs"]
mod domain;

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use client::Client;
use domain::{Domain, nines, said, text_of};
use serde_json::Value;

/// n1 and n2 are data nodes, n3 votes and runs nothing.
fn with_witness(_: &Domain, yaml: String) -> String {
    yaml.replace("{ id: 3, chassis: mxp2,", "{ id: 3, witness: true, chassis: mxp2,")
}

/// [`with_witness`], and `calls` waits for a fence; the device is a script.
fn with_fence(domain: &Domain, yaml: String) -> String {
    let yaml = with_witness(domain, yaml).replace("{ name: calls,", "{ name: calls, fence: required,");
    format!("{yaml}fence: {{ command: [\"{}\", \"{}\"], timeout: 30s }}\n", text_of(&script(domain)), text_of(domain.path("device").as_path()))
}

fn script(domain: &Domain) -> PathBuf {
    domain.path("fence.sh")
}

/// Its device is a directory: a file with the pid of each node that it can switch off, and a line for each call.
const SCRIPT: &str = r#"#!/bin/sh
echo "$SIXNINES_FENCE_NODE $SIXNINES_FENCE_CHASSIS $SIXNINES_FENCE_INCARNATION $SIXNINES_FENCE_REQUEST_ID" >> "$1/calls"
[ -e "$1/$SIXNINES_FENCE_NODE" ] || { echo "no outlet for $SIXNINES_FENCE_NODE" >&2; exit 1; }
pid=$(cat "$1/$SIXNINES_FENCE_NODE")
kill -9 "$pid"
until grep -q ") Z " "/proc/$pid/stat" 2> /dev/null || [ ! -e "/proc/$pid" ]; do :; done
echo "{\"state\":\"off\",\"evidence\":\"process $pid is gone\"}"
"#;

fn start_fencing() -> Domain {
    Domain::start_edited(&["calls"], &[], |domain, yaml| {
        std::fs::write(script(domain), SCRIPT).expect("it is written");
        std::fs::set_permissions(script(domain), std::fs::Permissions::from_mode(0o755)).expect("it can be run");
        std::fs::create_dir(domain.path("device")).expect("a directory");
        with_fence(domain, yaml)
    })
}

/// What was asked of the device.
fn asked(domain: &Domain) -> Vec<String> {
    std::fs::read_to_string(domain.path("device/calls")).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn alarms(domain: &Domain, node: usize) -> String {
    domain.json(node, &["alarms"]).unwrap_or_default().to_string()
}

/// The witness has no role, by the word of `node`.
fn assert_witness_runs_nothing(domain: &Domain, node: usize) {
    let status = domain.json(node, &["status"]).expect("it answers");
    let rows = ["/status/services", "/status/chassis"].map(|at| status.pointer(at).and_then(Value::as_array).cloned().unwrap_or_default()).concat();
    assert!(rows.iter().all(|row| row["active"] != 3 && !row["standby"].as_array().is_some_and(|s| s.contains(&3.into()))), "{rows:?}");
    assert_eq!(domain.row(node, 3).map(|row| row["is_witness"].clone()), Some(true.into()));
}

#[test]
fn a_witness_votes_and_runs_nothing_and_without_a_majority_nothing_moves() {
    let mut domain = Domain::start_edited(&["calls"], &[], with_witness);
    let mut client = Client::new(&domain, "calls");
    assert_eq!(client.ask("setup", 1).result, "ok");
    for node in 1..=3 {
        assert_witness_runs_nothing(&domain, node);
        assert!(said(&domain.ask(node, &["status"])).contains("witness"), "people see it too");
    }
    let refused = domain.ask(1, &["service", "switchover", "calls", "--to", "n3"]);
    assert_eq!(refused.status.code(), Some(4), "{}", said(&refused));

    let first = domain.wait("calls has an active", |d| d.active(3, "calls"));
    let other = 3 - first;
    domain.kill_node(first);
    domain.wait("the other data node takes over", |d| d.active(3, "calls").filter(|n| *n == other));
    assert_eq!(client.ask("query", 1).result, "ok");
    assert_witness_runs_nothing(&domain, other);
    domain.start_node(first);
    domain.wait_redundant();

    // Without the witness nothing moves, and there is still a majority.
    let epoch = domain.group(other, "calls").expect("a row")["epoch"].clone();
    domain.kill_node(3);
    domain.wait("both know it", |d| [1, 2].iter().all(|n| d.row(*n, 3).is_some_and(|row| row["state"] != "up")));
    assert_eq!((domain.active(1, "calls"), domain.active(2, "calls")), (Some(other), Some(other)));
    assert_eq!(client.ask("query", 1).result, "ok");
    assert!(!alarms(&domain, first).contains("takeover-impossible"));

    // One voter of three: it says why it does not take over.
    domain.kill_node(other);
    domain.wait("the last one says so", |d| alarms(d, first).contains("takeover-impossible"));
    let row = domain.group(first, "calls").expect("a row");
    assert_eq!((&row["epoch"], &row["is_serving"]), (&epoch, &false.into()), "nothing moves");
    domain.start_node(3);
    domain.wait("with the witness there is a majority again, and it takes over", |d| d.active(first, "calls").filter(|n| *n == first));
    domain.wait("the alarm is over", |d| !alarms(d, first).contains("takeover-impossible"));
    assert_eq!(client.ask("query", 1).result, "ok");
}

#[test]
fn a_service_that_needs_a_fence_goes_on_elsewhere_when_the_device_says_off() {
    let mut domain = start_fencing();
    let mut client = Client::new(&domain, "calls");
    assert_eq!(client.ask("setup", 1).result, "ok");
    let old = domain.wait("calls has an active", |d| d.active(3, "calls"));
    let new = 3 - old;
    let life = domain.ask(3, &["status"]);
    assert!(said(&life).contains(&format!("once n{old} is known to be off")), "{}", said(&life));
    std::fs::write(domain.path(&format!("device/n{old}")), domain.pid(old).to_string()).expect("it is written");
    domain.hang_node(old); // it may come back at any time: only the device ends that
    domain.wait("the other data node takes over", |d| d.active(3, "calls").filter(|n| *n == new));
    let calls = asked(&domain);
    assert!(calls.len() == 1 && calls[0].starts_with(&format!("n{old} mxp")) && calls[0].contains(&format!(" n{new}.")), "once, by the standby: {calls:?}");
    assert_eq!(client.ask("query", 1).result, "ok");
    let why = domain.wait("the chain has arrived", |d| Some(said(&d.ask(new, &["why", "calls"]))).filter(|w| w.contains("missing       nothing")));
    for part in [format!("/nodes/n{old} state: alive -> dead"), format!("/nodes/n{new}/fence/n{old} state"), "is gone".to_owned(), "takeover".to_owned()] {
        assert!(why.contains(&part), "{part:?} in {why}");
    }
    domain.reap_node(old);
    domain.start_node(old);
    domain.wait_redundant();
    assert_eq!(asked(&domain).len(), 1, "who is back is left alone");

    // A node whose end is known by its own life needs no device.
    let moved = domain.ask(new, &["service", "switchover", "calls"]);
    assert!(moved.status.success(), "{}", said(&moved));
    assert_eq!(asked(&domain).len(), 1, "a switchover waits for nothing");

    // The intent came before the outcome, on the disk too.
    domain.stop_node(new);
    let journal = domain.path(&format!("lab/n{new}/state/journal"));
    let shown = said(&nines(&["journal", "show", text_of(&journal), &format!("/nodes/n{new}/fence/n{old}"), "--last", "100"]));
    let at = |word: &str| shown.find(word).unwrap_or_else(|| panic!("{word} in {shown}"));
    assert!(at("asked") < at("off") && at("off") < at("is back"), "{shown}");
    let checked = nines(&["journal", "check", text_of(&journal)]);
    assert!(checked.status.success(), "{}", said(&checked));
}

#[test]
fn a_fence_that_fails_moves_nothing_and_is_an_alarm_until_the_node_is_back() {
    let domain = start_fencing();
    let mut client = Client::new(&domain, "calls");
    assert_eq!(client.ask("setup", 1).result, "ok");
    let old = domain.wait("calls has an active", |d| d.active(3, "calls"));
    let new = 3 - old;
    let epoch = domain.group(3, "calls").expect("a row")["epoch"].clone();
    domain.hang_node(old);
    domain.wait("the alarm", |d| alarms(d, new).contains("fence-failed") && alarms(d, new).contains(&format!("no outlet for n{old}")));
    domain.wait("it is tried again", |d| asked(d).len() >= 2);
    for node in [new, 3] {
        domain.wait("status says what it waits for", |d| said(&d.ask(node, &["status"])).contains(&format!("n{old} is to be known to be off first")));
        let row = domain.group(node, "calls").expect("a row");
        assert_eq!((&row["epoch"], &row["is_serving"]), (&epoch, &false.into()), "nobody takes over");
    }
    let why = said(&domain.ask(new, &["why", "calls"]));
    assert!(why.contains(&format!("/nodes/n{new}/fence/n{old} state")) && why.contains(&format!("/nodes/n{old} state: alive -> dead")), "{why}");

    // What has no such need does not wait: the chassis has changed hands.
    assert_eq!(domain.wait("mxp1 has an owner", |d| d.active(3, "chassis:mxp1").filter(|n| *n == new)), new);

    domain.wake_node(old);
    domain.wait("it is active as before", |d| d.active(3, "calls").filter(|n| *n == old));
    domain.wait("the alarm is over", |d| !alarms(d, new).contains("fence-failed"));
    assert_eq!(client.ask("query", 1).result, "ok");
}

#[test]
fn domains_that_cannot_be_safe_are_refused_by_every_door() {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("domain.yaml");
    let lab = home.path().join("lab");
    let two = "domain: lab\nnodes:\n  - { id: 1, chassis: m, links: [\"127.0.0.1:7400\"] }\n  - { id: 2, chassis: m, links: [\"127.0.0.2:7400\"] }\n";
    let witness = "  - { id: 3, chassis: m, witness: true, links: [\"127.0.0.3:7400\"] }\n";
    let chassis = "chassis:\n  - { name: m }\n";
    let fence = "fence: { command: [/usr/bin/off] }\n";
    let cases = [
        (format!("{two}{chassis}"), "add a witness"),
        (format!("{two}{chassis}{fence}"), "add a witness"),
        (format!("{two}{witness}{chassis}services:\n  - {{ name: mail, command: [x] }}\n  - {{ name: calls, command: [x], nodes: [1, 3] }}\n"), "domain.yaml:10:5: calls cannot run on n3: a witness votes, and runs nothing"),
        (format!("{two}{witness}{chassis}services:\n  - {{ name: calls, command: [x], fence: required }}\n"), "domain.yaml:9:5: service calls says fence: required"),
        (format!("{two}{witness}{chassis}services:\n  - {{ name: calls, command: [x], fence: perhaps }}\n{fence}"), "line 9"),
        (format!("{two}{witness}{chassis}fence: {{ command: [] }}\n"), "fence has no command"),
        (format!("{two}{witness}{chassis}fence: {{ command: [off], timeout: 1h }}\n"), "between 100ms and 10m"),
    ];
    let init = || nines(&["init", text_of(&lab), "--domain", text_of(&file)]);
    for (yaml, words) in cases {
        std::fs::write(&file, &yaml).expect("it is written");
        let refused = init();
        assert_eq!((refused.status.code(), said(&refused).contains(words)), (Some(2), true), "{words:?} in {}", said(&refused));
        assert!(!lab.exists(), "nothing half made stays behind");
    }
    // A first start reads the file again.
    std::fs::write(&file, format!("{two}{witness}{chassis}{fence}services:\n  - {{ name: calls, command: [x], fence: required }}\n")).expect("it is written");
    assert!(init().status.success());
    let kept = std::fs::read_to_string(lab.join("n1/domain.yaml")).expect("it was made");
    assert!(kept.contains("fence: required") && kept.contains("/usr/bin/off"), "{kept}");
    std::fs::write(lab.join("n1/domain.yaml"), format!("{two}{chassis}")).expect("it is written");
    let refused = nines(&["run", "--without-gate", "--config", text_of(&lab.join("n1/nines.yaml"))]);
    assert_eq!((refused.status.code(), said(&refused).contains("add a witness")), (Some(2), true), "{}", said(&refused));
}
