//! A domain beside one of the same names whose certificates another authority has signed: nobody is let in, and nothing changes.

#[path = "support/client.rs"]
mod client;
#[expect(dead_code, reason = "what other tests use")]
#[path = "support/domain.rs"]
mod domain;

use std::net::UdpSocket;

use client::Client;
use domain::{Domain, nines, said, text_of};
use serde_json::Value;

/// How a heartbeat begins, from n2 under a key that n1 does not have (discs/src/liveness/seal.rs).
const HEARTBEAT: [u8; 10] = *b"S9H1\xff\xff\xff\xff\x02\0";
/// How QUIC's first packet begins (RFC 9000, 17.2.2): version 1.
const INITIAL: [u8; 5] = [0xc0, 0, 0, 0, 1];

/// What the domain says of itself, less what moves by itself.
fn standing(domain: &Domain, asked: usize) -> Option<Value> {
    let status = domain.json(asked, &["status"])?.get("status")?.clone();
    let group = |row: &Value| (row["name"].clone(), row["active"].clone(), row["epoch"].clone());
    let groups: Vec<_> = ["services", "chassis"].iter().flat_map(|at| status[*at].as_array().cloned().unwrap_or_default()).map(|row| group(&row)).collect();
    let nodes: Vec<_> = status["nodes"].as_array()?.iter().map(|n| (n["id"].clone(), n["state"].clone(), n["log"].clone())).collect();
    Some(serde_json::json!({ "groups": groups, "nodes": nodes, "leader": status["log"]["leader"] }))
}

fn log_of(domain: &Domain, node: usize) -> String {
    std::fs::read_to_string(domain.path(&format!("n{node}.log"))).unwrap_or_default()
}

#[test]
fn a_node_of_the_same_name_from_another_authority_is_refused_and_the_domain_does_not_change() {
    let mut domain = Domain::start(&["calls"]);
    let mut client = Client::new(&domain, "calls");
    assert_eq!(client.ask("setup", 1).result, "ok");

    // The same file, and so the same names and addresses; another authority.
    let foreign = nines(&["init", text_of(&domain.path("foreign")), "--domain", text_of(&domain.path("domain.yaml"))]);
    assert!(foreign.status.success(), "{}", said(&foreign));
    domain.stop_node(3);
    domain.wait("n3 is not there", |d| [1, 2].iter().all(|n| d.row(*n, 3).is_some_and(|row| row["state"] != "up")));
    domain.wait("the others serve", |d| d.active(1, "calls").is_some_and(|n| n != 3) && d.active(1, "chassis:mxp2").is_none());
    domain.wait("somebody leads the log", |d| [1, 2].iter().all(|n| standing(d, *n).is_some_and(|s| !s["leader"].is_null())));
    let before = standing(&domain, 1).expect("it answers");
    std::fs::rename(domain.path("lab/n3"), domain.path("own-n3")).expect("it is moved away");
    std::fs::rename(domain.path("foreign/n3"), domain.path("lab/n3")).expect("a stranger takes its place");
    domain.start_node(3);
    // Both directions: whoever dials and whoever is dialled does not believe the other.
    domain.wait("n1 and n2 turn it away", |d| [1, 2].iter().all(|n| log_of(d, *n).contains("UnknownIssuer") || log_of(d, *n).contains("BadSignature")));
    domain.wait("it hears nobody", |d| log_of(d, 3).contains("UnknownIssuer") || log_of(d, 3).contains("BadSignature"));
    assert_eq!(client.ask("update", 1).applied, 2);
    assert_eq!(standing(&domain, 1).expect("it answers"), before);
    assert_eq!(standing(&domain, 2).map(|s| s["nodes"].clone()), Some(before["nodes"].clone()));

    // The one that belongs here comes back to its own place.
    domain.stop_node(3);
    std::fs::rename(domain.path("lab/n3"), domain.path("foreign/n3")).expect("it is moved away");
    std::fs::rename(domain.path("own-n3"), domain.path("lab/n3")).expect("it comes back");
    domain.start_node(3);
    domain.wait_redundant();
    assert_eq!(client.ask("query", 1).applied, 2);
}

#[test]
fn garbage_and_heartbeats_under_foreign_keys_change_nothing() {
    let domain = Domain::start(&["calls"]);
    let mut client = Client::new(&domain, "calls");
    assert_eq!(client.ask("setup", 1).result, "ok");
    let before = standing(&domain, 1).expect("it answers");
    let suspensions = |d: &Domain| d.json(1, &["status"]).and_then(|s| s.pointer("/status/suspensions").cloned());
    let quiet = suspensions(&domain);

    // From an address of its own: every length, what looks like a heartbeat of n2 (its first bytes, under a key that nobody has), QUIC's first packets.
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let links = domain.links(1);
    let address = links.split(',').next().expect("a link");
    let (host, port) = address.rsplit_once(':').expect("a port");
    let ports: Vec<u16> = { let port: u16 = port.parse().expect("a number"); vec![port, port + 1] };
    let mut noise = 0x9e37_79b9_7f4a_7c15u64;
    for length in (0..1400).step_by(7) {
        let mut bytes: Vec<u8> = (0..length).map(|_| { noise ^= noise << 13; noise ^= noise >> 7; noise ^= noise << 17; noise.to_le_bytes()[3] }).collect();
        for first in [&[][..], &INITIAL, &HEARTBEAT] {
            if let Some(place) = bytes.get_mut(..first.len()) {
                place.copy_from_slice(first);
            }
            for port in &ports {
                drop(socket.send_to(&bytes, (host, *port)));
            }
        }
    }
    assert_eq!(client.ask("update", 1).applied, 2);
    assert_eq!(standing(&domain, 1).expect("it answers"), before);
    assert_eq!(suspensions(&domain), quiet);
    assert_eq!(domain.json(1, &["alarms"]).map(|a| a.to_string().contains("critical")), Some(false));
}
