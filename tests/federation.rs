//! Two domains that hear of each other: events go where they are wanted and allowed, each once, and nothing else goes at all.

#[path = "support/domain.rs"]
#[expect(dead_code, reason = "nothing here is about services")]
mod domain;

use std::fmt::Write as _;

use domain::{Domain, nines, said, text_of};
use serde_json::Value;

/// Each has three nodes; n1 and n3 of each know of the other domain. n3 owns mxp2 for good.
const GATES: [usize; 2] = [1, 3];

fn start(name: &str) -> Domain {
    Domain::start_edited(&[], &[], |_, yaml| yaml.replace("domain: test", &format!("domain: {name}")))
}

/// Writes into the files of these nodes who their neighbour is.
fn introduce(here: &mut Domain, number: u16, there: &Domain, name: &str, hear: &str, tell: &str) {
    let authority = there.path("lab/ca.pem");
    let at = |domain: &Domain, node: usize| format!("127.{}.3.{node}:7700", domain.network);
    for node in GATES {
        let nodes: Vec<String> = GATES.iter().map(|n| format!("{{ node: n{n}, at: [\"{}\"] }}", at(there, *n))).collect();
        let path = here.config(node);
        let mut text = std::fs::read_to_string(&path).expect("readable");
        write!(
            text,
            "federation:\n  listen: [\"{}\"]\n  neighbours:\n    - domain: {name}\n      number: {number}\n      authority: {}\n      nodes: [{}]\n      hear: [{hear}]\n      tell: [{tell}]\n",
            at(here, node),
            text_of(&authority),
            nodes.join(", "),
        )
        .expect("text");
        std::fs::write(&path, text).expect("written");
        here.stop_node(node);
        here.start_node(node);
    }
    here.wait_redundant();
}

fn object(domain: &Domain, node: usize, name: &str) -> Option<Value> {
    domain.json(node, &["get", name])
}

/// The value and the quality of an attribute.
fn attribute(domain: &Domain, node: usize, name: &str, attribute: &str) -> Option<(String, String)> {
    let found = object(domain, node, name)?;
    let row = found.pointer("/objects/0/attributes")?.get(attribute)?;
    let value = row["value"].as_object().and_then(|kinds| kinds.values().next()).map(ToString::to_string);
    Some((value.unwrap_or_default(), row["quality"].as_str()?.to_owned()))
}

/// The shelf is a simulated one, and its values say so.
fn is_present(domain: &Domain, name: &str, wanted: &str) -> bool {
    attribute(domain, 1, name, wanted).is_some_and(|(_, quality)| quality == "simulated")
}

fn neighbour(domain: &Domain, node: usize, name: &str) -> Option<String> {
    attribute(domain, node, &format!("/nodes/n{node}/neighbours/{name}"), "state").map(|(value, _)| value.trim_matches('"').to_owned())
}

#[test]
fn a_domain_hears_of_another_what_it_may_and_nobody_takes_orders() {
    let (mut north, mut south) = (start("north"), start("south"));
    introduce(&mut south, 1, &north, "north", "\"/**\"", "");
    introduce(&mut north, 2, &south, "south", "", "\"/mxp2/**\"");

    // Both ends of both ways.
    for (domain, name) in [(&south, "north"), (&north, "south")] {
        domain.wait("both nodes of the neighbour are heard", |d| GATES.iter().all(|n| neighbour(d, *n, name).as_deref() == Some("heard")));
    }
    south.wait("a shelf of the neighbour is known", |d| is_present(d, "/neighbours/north/mxp2/fan1", "speed"));
    assert_eq!(object(&south, 1, "/neighbours/north/mxp1/fan1"), None, "that one is not told");
    assert_eq!(object(&south, 1, "/neighbours/north/nodes/n3/os"), None, "nor is that");
    assert_eq!(object(&north, 1, "/neighbours/south/mxp1/fan1"), None, "and nothing was asked for there");

    // What happens there is an event here, and bears the number that it has there.
    let duty = |d: &Domain, name: &str| attribute(d, 1, name, "duty").map(|(value, _)| value);
    north.wait("its owner takes a claim", |d| d.ask(3, &["set", "/mxp2/fan1", "duty=77", "--message", "a test"]).status.success());
    south.wait("it is known here", |d| duty(d, "/neighbours/north/mxp2/fan1").as_deref() == Some("77"));
    let events = said(&south.ask(1, &["events", "/neighbours/north/mxp2/fan1"]));
    assert!(events.contains("n103."), "{events}");

    assert!(said(&south.ask(1, &["status"])).contains("north is heard, heard: n101 n103"), "{}", said(&south.ask(1, &["status"])));

    // It is theirs: nobody here can set it.
    let refused = south.ask(1, &["set", "/neighbours/north/mxp2/fan1", "duty=20", "--message", "a test"]);
    assert!(!refused.status.success(), "{}", said(&refused));
    assert_eq!(duty(&north, "/mxp2/fan1").as_deref(), Some("77"));

    // Killed, it is known as it was; back in another life, as it is.
    north.kill_node(3);
    south.wait("one of two is heard", |d| neighbour(d, 1, "north").as_deref() == Some("partly"));
    south.wait("its shelf is as it was", |d| attribute(d, 1, "/neighbours/north/mxp2/fan1", "speed").is_some_and(|(_, quality)| quality == "stale"));
    north.kill_node(1);
    south.wait("none is heard, and somebody says so", |d| said(&d.ask(1, &["alarms"])).contains("neighbour-lost"));
    north.start_node(1);
    north.start_node(3);
    south.wait("both are heard", |d| neighbour(d, 1, "north").as_deref() == Some("heard"));
    south.wait("its shelf is known again", |d| is_present(d, "/neighbours/north/mxp2/fan1", "speed"));
    south.wait("all is well", |d| !said(&d.ask(1, &["alarms"])).contains("neighbour-lost"));

    // The subscriber's other life goes on where this one ends.
    south.kill_node(1);
    north.wait("its owner takes a claim", |d| d.ask(3, &["set", "/mxp2/fan1", "duty=88", "--message", "a test"]).status.success());
    south.start_node(1);
    south.wait("it is known here", |d| duty(d, "/neighbours/north/mxp2/fan1").as_deref() == Some("88"));
}

#[test]
fn a_neighbour_that_cannot_be_is_refused_before_anything_runs() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("nines.yaml");
    let run = |entry: &str| {
        let text = format!("node: 1\ndomain_id: 7\nfederation:\n  listen: [\"127.0.0.1:7700\"]\n  neighbours:\n    - {{ domain: north, number: 1, authority: ca.pem, nodes: [{{ node: n1, at: [\"127.0.0.2:7700\"] }}], hear: [\"/**\"] }}\n    - {entry}\n");
        std::fs::write(&path, text).expect("written");
        nines(&["run", "--config", text_of(&path)])
    };
    let node = "nodes: [{ node: n1, at: [\"127.0.0.3:7700\"] }]";
    for (entry, what) in [
        (format!("{{ domain: north, number: 2, authority: ca.pem, {node}, hear: [\"/**\"] }}"), "twice"),
        (format!("{{ domain: West, number: 2, authority: ca.pem, {node}, hear: [\"/**\"] }}"), "domain name"),
        (format!("{{ domain: west, number: 100, authority: ca.pem, {node}, hear: [\"/**\"] }}"), "1 to 99"),
        (format!("{{ domain: west, number: 2, authority: ca.pem, {node} }}"), "hear, tell or both"),
        ("{ domain: west, number: 2, authority: ca.pem, nodes: [{ node: n1, at: [] }], tell: [\"/**\"] }".to_owned(), "listen has 1"),
        (format!("{{ domain: west, number: 2, authority: ca.pem, {node}, told: [\"/**\"] }}"), "told"),
    ] {
        let output = run(&entry);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("nines.yaml") && text.contains(what), "{text}");
    }
}
