//! Two versions in one domain of real processes: a rolling upgrade, the feature level that follows it, and who comes too late for it.

#[path = "support/client.rs"]
mod client;
#[expect(dead_code, reason = "what other tests use")]
#[path = "support/domain.rs"]
mod domain;

use std::process::Command;

use client::Client;
use domain::{Domain, nines, said, text_of};
use serde_json::Value;

/// Makes a daemon say that it is a build to come.
const PRETEND_LEVEL: &str = "SIXNINES_PRETEND_LEVEL";

/// As three nodes say it: the level in force, and what each member reads (none: it is not there).
type Said = (u64, Vec<Option<u64>>);

fn feature(domain: &Domain, asked: usize) -> Option<Said> {
    let answer = domain.json(asked, &["feature"])?;
    let nodes = answer.pointer("/feature/nodes")?.as_array()?.clone();
    Some((answer.pointer("/feature/level")?.as_u64()?, nodes.iter().map(|n| n["reads"].as_u64()).collect()))
}

/// Every node says so.
fn wait_feature(domain: &Domain, what: &str, level: u64, reads: &[u64]) {
    let reads: Vec<_> = reads.iter().copied().map(Some).collect();
    domain.wait(what, |d| (1..=3).all(|n| feature(d, n).is_some_and(|said| said == (level, reads.clone()))));
}

fn status_level(domain: &Domain, asked: usize) -> Option<u64> {
    domain.json(asked, &["status"])?.pointer("/status/feature_level").and_then(Value::as_u64)
}

fn has_standby(domain: &Domain, on: usize) -> bool {
    domain.group(1, "calls").is_some_and(|g| g["standby"].as_array().is_some_and(|s| s.iter().any(|n| n.as_u64() == u64::try_from(on).ok())))
}

/// The role is handed to this node, as soon as it has everything.
fn move_calls(domain: &Domain, to: usize) {
    domain.wait("calls is there", |d| {
        if d.active(1, "calls") == Some(to) {
            return true;
        }
        drop(d.ask(1, &["service", "switchover", "calls", "--to", &format!("n{to}")]));
        false
    });
    domain.wait("every node knows it", |d| (1..=3).all(|n| d.active(n, "calls") == Some(to)));
}

#[test]
fn a_domain_is_upgraded_node_by_node_and_its_level_is_raised_at_the_end() {
    let mut domain = Domain::start_whole(
        &["calls"],
        &["--authority", "n1"],
        |_, yaml| yaml.replace("{ name: calls,", "{ name: calls, copies: 3,"),
        |node| if node == 3 { vec![(PRETEND_LEVEL, "2")] } else { Vec::new() },
    );
    let mut client = Client::new(&domain, "calls");
    for call in 1..=10 {
        assert_eq!(client.ask("setup", call).result, "ok");
    }
    wait_feature(&domain, "everybody knows who reads what", 1, &[1, 1, 2]);

    // Checkpoints to n3, and from it: a failover each way.
    move_calls(&domain, 1);
    move_calls(&domain, 3);
    assert_eq!(client.ask("update", 1).applied, 2);
    domain.wait("the older nodes have copies of what n3 acknowledged", |d| has_standby(d, 1) && has_standby(d, 2));
    domain.kill_node(3);
    domain.wait("an older one takes over", |d| d.active(1, "calls").is_some_and(|n| n != 3));
    for call in 1..=10 {
        assert_eq!(client.ask("query", call).applied, if call == 1 { 2 } else { 1 }, "call {call}");
    }
    let out = domain.wait("who is away has not said what it reads", |d| Some(d.ask(1, &["feature", "raise"])).filter(|o| said(o).contains("n3 is not there to say what it reads")));
    assert_eq!(out.status.code(), Some(4), "{}", said(&out));
    domain.start_node(3);
    domain.wait_redundant();
    move_calls(&domain, 1);
    domain.kill_node(2);
    domain.wait("n3 is the only standby", |d| has_standby(d, 3) && !has_standby(d, 2));
    assert_eq!(client.ask("update", 2).applied, 2);
    domain.kill_node(1);
    domain.start_node(2);
    domain.wait("the newer one takes over", |d| d.active(3, "calls") == Some(3));
    assert_eq!(client.ask("query", 2).applied, 2);
    domain.start_node(1);
    domain.wait_redundant();

    // Events both ways: what happens in mxp2 is n3's to tell, what happens in mxp1 the others'.
    for (chassis, asked) in [("mxp2", 1), ("mxp1", 3)] {
        assert!(domain.ask(asked, &["inject", chassis, "fan-failed", "fan1"]).status.success());
        domain.wait("the alarm is known in the other version", |d| said(&d.ask(asked, &["alarms"])).contains(&format!("/{chassis}/fan1")));
        assert!(domain.ask(asked, &["inject", chassis, "--clear"]).status.success());
    }

    // Not yet, and who is in the way. Whichever node is asked.
    wait_feature(&domain, "everybody knows who reads what", 1, &[1, 1, 2]);
    for asked in [1, 3] {
        let refused = domain.wait("those in the way are named", |d| Some(d.ask(asked, &["feature", "raise", "2"])).filter(|o| said(o).contains("every member: n1 reads up to 1, n2 reads up to 1\n")));
        assert_eq!(refused.status.code(), Some(4), "{}", said(&refused));
    }
    domain.wait("so they are where nothing is asked for", |d| said(&d.ask(2, &["feature"])).contains("level 2 has to wait: n1 reads up to 1, n2 reads up to 1"));
    let json = domain.ask(3, &["feature", "raise", "--json"]);
    let failure: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!((json.status.code(), failure["error"]["code"].as_str()), (Some(4), Some("not-everywhere")));

    // One after the other. Nothing is asserted of how long: an answer comes, and nothing acknowledged is missing.
    for (number, node) in [1, 2].into_iter().enumerate() {
        let before = client.ask("update", 3).applied;
        domain.stop_node(node);
        assert_eq!(client.ask("update", 3).applied, before + 1, "it goes on without n{node}");
        domain.set_env(node, &[(PRETEND_LEVEL, "2")]);
        domain.start_node(node);
        domain.wait_redundant();
        assert_eq!(client.ask("query", 3).applied, before + 1, "after {number}");
    }
    wait_feature(&domain, "everybody has been upgraded", 1, &[2, 2, 2]);
    let far = domain.ask(1, &["feature", "raise", "3"]);
    assert_eq!((far.status.code(), said(&far).contains("one step at a time")), (Some(2), true), "{}", said(&far));
    domain.wait("it is raised", |d| Some(d.ask(1, &["feature", "raise", "2", "-m", "all are upgraded"])).filter(|o| o.status.success()));
    wait_feature(&domain, "every node has it", 2, &[2, 2, 2]);
    domain.wait("status shows it", |d| (1..=3).all(|n| status_level(d, n) == Some(2)));
    let again = domain.ask(2, &["feature", "raise", "2"]);
    assert!(again.status.success() && said(&again).contains("nothing to do"), "{}", said(&again));
    let back = domain.ask(2, &["feature", "raise", "1"]);
    assert_eq!(back.status.code(), Some(2), "{}", said(&back));
    let higher = domain.ask(2, &["feature", "raise"]);
    assert_eq!(higher.status.code(), Some(4), "{}", said(&higher));

    // It lasts.
    domain.stop_node(2);
    domain.start_node(2);
    domain.wait_redundant();
    wait_feature(&domain, "after a restart too", 2, &[2, 2, 2]);

    // Who is started as an older build now stops by itself and says why; the others go on.
    move_calls(&domain, 3);
    domain.stop_node(2);
    domain.set_env(2, &[]);
    domain.start_node(2);
    let ended = domain.wait_ended(2);
    let log = std::fs::read_to_string(domain.path("n2.log")).expect("a log");
    let last = log.lines().rev().find(|line| line.starts_with("error: ")).unwrap_or("no error was said");
    assert_eq!(ended.code(), Some(2), "{last}");
    assert!(last.contains("feature level 2") && last.contains("reads up to 1") && last.contains("install a newer build"), "{last}");
    assert_eq!(client.ask("query", 3).result, "ok");
    domain.wait("n3 goes on with calls", |d| d.active(1, "calls") == Some(3) && d.active(3, "calls") == Some(3));
    domain.wait("the others hold it for dead", |d| d.row(1, 2).is_some_and(|row| row["state"] == "dead"));

    domain.set_env(2, &[(PRETEND_LEVEL, "2")]);
    domain.start_node(2);
    domain.wait_redundant();
    assert_eq!(client.ask("query", 1).applied, 2);

    // Nor does a machine join with an older build. The token is not used up by that.
    let links = domain.links(4);
    let invited = domain.json(1, &["node", "invite", "n4", "--chassis", "mxp2", "--links", &links]).expect("an invitation");
    let token = invited.pointer("/invited/token").and_then(Value::as_str).expect("a token");
    let dir = domain.path("lab/n4");
    let join = |level| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nines"));
        command.args(["join", token, "--dir", text_of(&dir)]).env(PRETEND_LEVEL, level).output().expect("nines runs")
    };
    let older = join("1");
    assert_eq!((older.status.code(), said(&older).contains("feature level 2") && said(&older).contains("too-old")), (Some(4), true), "{}", said(&older));
    assert!(!dir.exists(), "nothing was made");
    let newer = join("2");
    assert!(newer.status.success(), "{}", said(&newer));
}

#[test]
fn a_pretended_level_that_is_none_is_refused_before_anything_runs() {
    let dir = tempfile::tempdir().expect("a directory");
    let lab = dir.path().join("lab");
    assert!(nines(&["init", text_of(&lab)]).status.success());
    for wrong in ["", "0", "two", "256"] {
        let config = lab.join("n1/nines.yaml");
        let mut command = Command::new(env!("CARGO_BIN_EXE_nines"));
        let output = command.args(["run", "--without-gate", "--config", text_of(&config)]).env(PRETEND_LEVEL, wrong).output().expect("nines runs");
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains(PRETEND_LEVEL), "{}", said(&output));
    }
}
