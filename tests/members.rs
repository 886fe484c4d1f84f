//! Who comes into a domain of real processes, who is thrown out of it, and certificates that are renewed while it works.

#[path = "support/client.rs"]
mod client;
#[expect(dead_code, reason = "what other tests use")]
#[path = "support/domain.rs"]
mod domain;

use std::path::Path;
use std::process::Output;

use client::Client;
use domain::{Domain, nines, said, text_of};
use serde_json::Value;

fn invite(domain: &Domain, options: &[&str]) -> String {
    let invited = domain.json(1, &[&["node", "invite"], options].concat()).expect("an invitation");
    invited.pointer("/invited/token").and_then(Value::as_str).expect("a token").to_owned()
}

fn join(token: &str, dir: &Path) -> Output {
    nines(&["join", token, "--dir", text_of(dir)])
}

/// It was refused with this exit code and these words, and there is nothing in the directory's place nor beside it.
fn assert_refused(output: &Output, dir: &Path, exit: i32, words: &str) {
    assert_eq!(output.status.code(), Some(exit), "{}", said(output));
    assert!(said(output).contains(words), "{words:?} in {}", said(output));
    let left: Vec<_> = std::fs::read_dir(dir.parent().expect("a parent")).expect("it is there").flatten().map(|e| e.file_name()).collect();
    let name = dir.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(!left.iter().any(|f| f.to_string_lossy().contains(&name)), "{left:?}");
}

fn state(domain: &Domain, asked: usize, about: u64) -> Option<String> {
    domain.row(asked, about)?["state"].as_str().map(str::to_owned)
}

fn log_of(domain: &Domain, node: usize) -> String {
    std::fs::read_to_string(domain.path(&format!("n{node}.log"))).unwrap_or_default()
}

#[test]
fn a_fourth_node_joins_by_a_token_that_counts_once() {
    let mut domain = Domain::start_as(&["calls"], &["--authority", "n1"]);
    let mut client = Client::new(&domain, "calls");
    assert_eq!(client.ask("setup", 1).result, "ok");
    let links = domain.links(4);
    let seat = ["n4", "--chassis", "mxp2", "--links", links.as_str()];
    let elsewhere = domain.path("elsewhere");

    // What is not possible, and why.
    let not_here = domain.ask(2, &[&["node", "invite"], &seat[..]].concat());
    assert_eq!((not_here.status.code(), said(&not_here).contains("authority:")), (Some(4), true), "{}", said(&not_here));
    let no_seat = domain.ask(1, &["node", "invite", "n4"]);
    assert_eq!((no_seat.status.code(), said(&no_seat).contains("--chassis")), (Some(2), true), "{}", said(&no_seat));
    let member = domain.ask(1, &["node", "invite", "n3"]);
    assert_eq!((member.status.code(), said(&member).contains("nines node expel n3")), (Some(4), true), "{}", said(&member));
    let late = invite(&domain, &[&seat[..], &["--valid", "0s"]].concat());
    assert_refused(&join(&late, &elsewhere), &elsewhere, 4, "was over");
    assert_refused(&join("nines1-", &elsewhere), &elsewhere, 2, "damaged");
    let token = invite(&domain, &seat);
    assert_refused(&join(&late, &elsewhere), &elsewhere, 4, "replaced by a newer one");
    let changed = token.replacen(|c: char| c.is_ascii_digit() && c != '1', "a", 1);
    assert_refused(&join(&changed, &elsewhere), &elsewhere, 2, "damaged");

    let dir = domain.path("lab/n4");
    let joined = join(&token, &dir);
    assert!(joined.status.success() && said(&joined).contains("nines run --config"), "{}", said(&joined));
    assert_refused(&join(&token, &elsewhere), &elsewhere, 4, "has been used");
    assert_eq!(join(&token, &dir).status.code(), Some(2), "it is there already");

    domain.start_node(4);
    domain.wait("n4 is up for everybody, on every link", |d| {
        let is_up = |row: &Value| row["state"] == "up" && row["links"].as_array().is_some_and(|links| links.iter().all(|up| *up == true));
        (1..=4).all(|asked| (1..=4).all(|about| d.row(asked, about).is_some_and(|row| is_up(&row))))
    });
    domain.wait("n4 learns", |d| d.row(1, 4).is_some_and(|row| row["log"] == "learns"));
    assert_eq!(domain.voters(1), [1, 2, 3]);
    assert_eq!(client.ask("query", 1).applied, 1);

    // It is a member like any other: after a restart of everybody, too.
    domain.stop_node(2);
    domain.stop_node(4);
    domain.start_node(2);
    domain.start_node(4);
    domain.wait("n2 and n4 find each other", |d| state(d, 2, 4).as_deref() == Some("up") && state(d, 4, 2).as_deref() == Some("up"));
}

#[test]
fn an_expelled_node_is_cut_off_at_once_and_its_name_goes_to_another_machine() {
    let mut domain = Domain::start_as(&["calls"], &["--authority", "n1"]);
    let mut client = Client::new(&domain, "calls");
    for call in 1..=10 {
        assert_eq!(client.ask("setup", call).result, "ok");
    }
    domain.wait("calls has a standby", |d| d.group(1, "calls").is_some_and(|g| g["standby"].as_array().is_some_and(|s| !s.is_empty())));
    let myself = domain.ask(1, &["node", "expel", "n1"]);
    assert_eq!(myself.status.code(), Some(4), "{}", said(&myself));

    let expelled = domain.ask(1, &["node", "expel", "n2"]);
    assert!(expelled.status.success() && said(&expelled).contains("nines node invite n2"), "{}", said(&expelled));
    domain.wait("nobody has a connection to n2", |d| {
        [1, 3].iter().all(|n| d.row(*n, 2).is_some_and(|row| row["state"] == "expelled" && row.get("connections").is_none()))
    });
    // Where n2 was active, the others take over, with all that was acknowledged.
    domain.wait("another one is active for calls", |d| d.active(1, "calls").is_some_and(|node| node != 2));
    for call in 1..=10 {
        assert_eq!(client.ask("query", call).applied, 1, "call {call}");
    }
    domain.wait("n2 hears nobody", |d| [1, 3].iter().all(|n| state(d, 2, *n).is_some_and(|s| s != "up")));
    domain.wait("n3 has turned n2 away", |d| log_of(d, 3).contains("NotValidForName"));
    let third = domain.ask(1, &["node", "expel", "n3"]);
    assert_eq!((third.status.code(), said(&third).contains("nothing could be decided")), (Some(4), true), "{}", said(&third));

    // Another machine becomes n2; the old one stays out, for whatever it asks.
    domain.stop_node(2);
    std::fs::rename(domain.path("lab/n2"), domain.path("old-n2")).expect("it is moved away");
    let joined = join(&invite(&domain, &["n2"]), &domain.path("lab/n2"));
    assert!(joined.status.success(), "{}", said(&joined));
    domain.start_node(2);
    domain.wait_redundant();
    domain.wait("n2 votes again", |d| d.voters(1) == [1, 2, 3]);
    assert_eq!(client.ask("query", 7).applied, 1);

    domain.stop_node(2);
    std::fs::rename(domain.path("lab/n2"), domain.path("new-n2")).expect("it is moved away");
    std::fs::rename(domain.path("old-n2"), domain.path("lab/n2")).expect("it comes back");
    domain.start_node(2);
    domain.wait("n3 refuses the old certificate", |d| log_of(d, 3).contains("Revoked"));
    domain.wait("and so does n1, which dials it", |d| log_of(d, 1).contains("Revoked"));
    domain.wait("it is dead to the others", |d| state(d, 1, 2).as_deref() == Some("dead"));
}

#[test]
fn certificates_are_renewed_by_hand_while_calls_go_on_and_no_connection_is_dropped() {
    let domain = Domain::start_as(&["calls"], &["--authority", "n1", "--certificate-life", "30d"]);
    let mut client = Client::new(&domain, "calls");
    let epoch = client.ask("setup", 1).epoch;
    let connections = |d: &Domain| -> Vec<Value> {
        let pairs = (1..=3).flat_map(|asked| (1..=3).filter(move |about| *about != u64::try_from(asked).expect("few")).map(move |about| (asked, about)));
        pairs.map(|(asked, about)| d.row(asked, about).expect("a row")["connections"].clone()).collect()
    };
    let serial = |d: &Domain, node: usize| d.json(1, &["get", &format!("/nodes/n{node}/certificate")])?.pointer("/objects/0/attributes/serial/value").cloned();
    let serials: Vec<Value> = (1..=3).map(|n| domain.wait("each node's certificate is known to n1", |d| serial(d, n))).collect();
    domain.wait("status shows how long they last", |d| (1..=3).all(|n| d.row(1, n).is_some_and(|r| r["certificate"].as_str().is_some_and(|c| c.starts_with("until 20")))));
    let before = connections(&domain);
    assert!(before.iter().all(|c| c.as_array().is_some_and(|c| c.len() == 2)), "{before:?}");
    for node in 1..=3 {
        let renewed = domain.ask(node, &["node", "renew"]);
        assert!(renewed.status.success() && said(&renewed).contains("Connections go on"), "{}", said(&renewed));
        for update in 0..20 {
            let answer = client.ask("update", 1);
            assert_eq!((answer.result.as_str(), answer.epoch), ("ok", epoch), "update {update}");
        }
        domain.wait("its new certificate is seen", |d| serial(d, node).is_some_and(|s| s != serials[node - 1]));
    }
    assert_eq!(connections(&domain), before);
    let alarms = domain.json(1, &["alarms"]).expect("alarms").to_string();
    assert!(!alarms.contains("certificate"), "{alarms}");
}

#[test]
fn a_certificate_is_renewed_by_itself_when_two_thirds_of_its_life_are_over() {
    // Longer than it takes to start on a busy machine, and short enough to be waited for.
    let domain = Domain::start_as(&[], &["--authority", "n1", "--certificate-life", "40s"]);
    let until = |d: &Domain, node: u64| d.row(2, node)?["certificate"].as_str().map(str::to_owned);
    let connections = |d: &Domain| d.row(2, 3).expect("a row")["connections"].clone();
    let before: Vec<_> = (1..=3).map(|n| domain.wait("each node's certificate is known", |d| until(d, n))).collect();
    let stood = connections(&domain);
    for node in 1..=3 {
        domain.wait("it has another one, the holder of the authority too", |d| until(d, node).is_some_and(|now| now != before[usize::try_from(node).expect("few") - 1]));
    }
    assert_eq!(connections(&domain), stood);
    assert!(!domain.json(2, &["alarms"]).expect("alarms").to_string().contains("certificate-"));
}

#[test]
fn a_certificate_that_nobody_renews_is_an_alarm_before_its_end_and_connections_that_stand_go_on() {
    let domain = Domain::start_as(&[], &["--certificate-life", "40s"]);
    let stood = domain.row(2, 3).expect("a row")["connections"].clone();
    let nobody = domain.ask(2, &["node", "renew"]);
    assert_eq!((nobody.status.code(), said(&nobody).contains("authority: DIR")), (Some(3), true), "{}", said(&nobody));
    let is_raised = |d: &Domain, kind: &str| d.json(2, &["alarms"]).is_some_and(|a| a.to_string().contains(kind));
    domain.wait("the operator hears of it in time", |d| is_raised(d, "certificate-ending"));
    domain.wait("it is over", |d| is_raised(d, "certificate-over"));
    let row = domain.row(2, 3).expect("a row");
    assert_eq!((row["state"].as_str(), &row["connections"]), (Some("up"), &stood));
}

#[test]
fn a_node_that_nobody_will_be_again_is_forgotten_for_good() {
    let mut domain = Domain::start_as(&["calls"], &["--authority", "n1"]);
    let mut client = Client::new(&domain, "calls");
    assert_eq!(client.ask("setup", 1).result, "ok");
    let links = domain.links(4);
    let seat = ["n4", "--chassis", "mxp2", "--links", links.as_str()];
    let dir = domain.path("lab/n4");
    assert!(join(&invite(&domain, &seat), &dir).status.success());
    domain.start_node(4);
    domain.wait("n4 is up for everybody", |d| (1..=4).all(|asked| (1..=4).all(|about| state(d, asked, about).as_deref() == Some("up"))));
    domain.wait("n4 learns", |d| d.row(1, 4).is_some_and(|row| row["log"] == "learns"));
    domain.wait("n4 stands by for its chassis", |d| d.group(1, "chassis:mxp2").is_some_and(|g| g["standby"].as_array().is_some_and(|s| !s.is_empty())));

    let forget = |d: &Domain, asked: usize, node: &str| d.ask(asked, &["node", "forget", node]);
    let refused = |output: &Output, exit: i32, words: &str| assert_eq!((output.status.code(), said(output).contains(words)), (Some(exit), true), "{}", said(output));
    refused(&forget(&domain, 1, "n9"), 2, "there are: n1, n2, n3, n4");
    refused(&forget(&domain, 1, "n4"), 4, "nines node expel n4");
    let expelled = domain.ask(1, &["node", "expel", "n4"]);
    assert!(expelled.status.success(), "{}", said(&expelled));
    let speaks_of = |d: &Domain, asked: usize| d.json(asked, &["alarms"]).is_none_or(|a| a.to_string().contains("/nodes/n4"));
    domain.wait("the others say that it is dead", |d| (1..=3).all(|n| speaks_of(d, n)));
    let token = invite(&domain, &["n4"]);
    refused(&forget(&domain, 1, "n4"), 4, "its token counts for another");
    invite(&domain, &["n4", "--valid", "0s"]);
    refused(&join(&token, &domain.path("elsewhere")), 4, "replaced by a newer one");

    // n1 is away, and has written down that n4 is to be found dead.
    domain.kill_node(1);
    domain.wait("nobody misses n4", |d| forget(d, 2, "n4").status.success());
    refused(&forget(&domain, 2, "n4"), 2, "there is no node n4");
    let is_gone = |d: &Domain, asked: usize| d.row(asked, 4).is_none() && !speaks_of(d, asked);
    domain.wait("nobody lists it, and no alarm about it stands", |d| [2, 3].iter().all(|n| is_gone(d, *n)));
    domain.start_node(1);
    domain.wait_redundant();
    domain.wait("n1, who speaks for the domain again, says nothing of n4", |d| (1..=3).all(|n| is_gone(d, n)));
    assert_eq!((domain.voters(1), client.ask("query", 1).applied), (vec![1, 2, 3], 1));
    assert!(state(&domain, 4, 1).is_none_or(|s| s != "up"), "and n4 hears nobody");

    // The name is free, for another machine with a disk of its own.
    domain.stop_node(4);
    std::fs::rename(&dir, domain.path("old-n4")).expect("it is moved away");
    refused(&domain.ask(1, &["node", "invite", "n4"]), 2, "--chassis");
    let joined = join(&invite(&domain, &seat), &dir);
    assert!(joined.status.success(), "{}", said(&joined));
    domain.start_node(4);
    domain.wait("another n4 learns", |d| d.row(1, 4).is_some_and(|row| row["state"] == "up" && row["log"] == "learns"));

    // A vote that the rest cannot do without keeps its seat.
    domain.wait_redundant();
    assert!(domain.ask(1, &["node", "expel", "n3"]).status.success());
    domain.wait("its vote is missed", |d| said(&forget(d, 1, "n3")).contains("two voters"));
}
