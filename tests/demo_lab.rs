//! The demo's world and its client, against a server of the test's own: what they must see, they see.
//!
//! The server is this test binary again ([`fake_server`]); its state is a file that the next one reads, or not.

#[path = "support/lab.rs"]
mod lab;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::{As, Lab, is_alive, wait_for};
use serde_json::Value;

const ADDRESS: &str = "10.9.0.100/24";

/// What the environment of a re-executed test binary says.
const PART: &str = "SIXNINES_TEST_PART";

fn part(name: &str, setting: &str) -> Vec<String> {
    let exe = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    let arguments = ["env", &format!("{PART}={setting}"), &exe, "--exact", name, "--nocapture", "--test-threads=1"];
    arguments.map(str::to_owned).to_vec()
}

fn server(node: &str, epoch: u64, listen: &str, log: &Path) -> Vec<String> {
    part("fake_server", &format!("{node} {epoch} {listen} {}", log.display()))
}

/// Answers as the call server does, under a fixed name and epoch. It is a test only by its form.
#[test]
fn fake_server() {
    let Ok(setting) = std::env::var(PART) else { return };
    let words: Vec<&str> = setting.split(' ').collect();
    let [node, epoch, listen, log] = words[..] else { panic!("{setting}") };
    // Per call: how many changes, their digest, the last one.
    let mut calls: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
    let apply = |calls: &mut BTreeMap<String, (u64, u64, u64)>, key: &str, sequence: u64| {
        let call = calls.entry(key.to_owned()).or_default();
        if call.2 < sequence {
            let digest = call.1.rotate_left(5) ^ sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            *call = (call.0 + 1, digest, sequence);
        }
    };
    for line in fs::read_to_string(log).unwrap_or_default().lines() {
        let (key, sequence) = line.split_once(' ').unwrap();
        apply(&mut calls, key, sequence.parse().unwrap());
    }
    let mut log = File::options().append(true).create(true).open(log).unwrap();
    let socket = UdpSocket::bind(listen).unwrap();
    let mut bytes = [0; 512];
    loop {
        let (length, from) = socket.recv_from(&mut bytes).unwrap();
        let request = std::str::from_utf8(&bytes[..length]).unwrap();
        let words: Vec<&str> = request.split(' ').collect();
        let ["Q", client, sequence, attempt, op, call] = words[..] else { panic!("{request}") };
        let key = format!("{client}/{call}");
        if op != "query" {
            writeln!(log, "{key} {sequence}").unwrap();
            apply(&mut calls, &key, sequence.parse().unwrap());
        }
        let verdict = if calls.contains_key(&key) { "ok" } else { "unknown" };
        let (applied, digest, _) = calls.get(&key).copied().unwrap_or_default();
        let mut answer = String::new();
        write!(answer, "A {client} {sequence} {attempt} {verdict} {node} {epoch} {applied} {digest:x}").unwrap();
        let _gone_clients_are_no_matter = socket.send_to(answer.as_bytes(), from);
    }
}

/// Asks an address for an answer and writes down whether one came. It is a test only by its form.
#[test]
fn fake_probe() {
    let Ok(setting) = std::env::var(PART) else { return };
    let (to, result) = setting.split_once(' ').unwrap();
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let _no_route_is_no_answer = socket.send_to(b"Q 1 1 0 query 1", to);
    let answered = socket.recv(&mut [0; 512]).is_ok();
    fs::write(format!("{result}.new"), answered.to_string()).unwrap();
    fs::rename(format!("{result}.new"), result).unwrap();
}

fn reaches(lab: &mut Lab, from: &str, to: &str) -> bool {
    let result = lab.directory.join(format!("probe-{from}-{to}"));
    lab.start(from, &part("fake_probe", &format!("{to} {}", result.display())));
    wait_for("the probe's result", || result.exists());
    let answered = fs::read_to_string(&result).unwrap() == "true";
    fs::remove_file(&result).unwrap();
    answered
}

/// A lab with a server on n1 and 200 calls set up.
fn serving(who: As) -> Option<(Lab, PathBuf)> {
    let mut lab = Lab::new(who)?;
    let log = lab.directory.join("calls.log");
    if who != As::Loopback {
        lab.address("n1", ADDRESS, true);
    }
    lab.start("n1", &server("n1", 1, &lab.service[0].clone(), &log));
    lab.client(200);
    lab.wait_report("200 calls", |r| r["calls_up"] == 200);
    Some((lab, log))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn moves_and_loses_nothing(who: As) {
    let Some((mut lab, log)) = serving(who) else { return };
    lab.mark("node-killed");
    assert!(lab.signal("n1", "kill") >= 1);
    assert!(lab.processes("n1").is_empty());
    if who != As::Loopback {
        lab.address("n1", ADDRESS, false);
        lab.address("n3", ADDRESS, true);
    }
    let listen = lab.service.last().unwrap().clone();
    lab.start("n3", &server("n3", 2, &listen, &log));
    let report = lab.wait_report("an answer of n3", |r| r["client"]["voices"].as_array().unwrap().iter().any(|v| v[0] == 2));
    assert!(number(&report["client"]["outage_ms"]) > 1.0, "{report}");
    assert_eq!(number(&report["client"]["two_actives_ms"]), 0.0, "{report}");
    if who == As::Loopback {
        assert_eq!(report["frames"], Value::Null);
    } else {
        assert_eq!(number(&report["frames"]["two_speakers_ms"]), 0.0, "{report}");
    }
    let beside = lab.read_back();
    assert_eq!((&beside["lost"], &beside["unread"]), (&0.into(), &0.into()), "{beside}");
    let result = lab.finish();
    assert_eq!(result["calls"], 200);
    for zero in ["lost", "doubled", "unread"] {
        assert_eq!(result[zero], 0, "{zero} in {result}");
    }
    let directory = lab.end();
    assert!(!directory.exists(), "{} was left behind", directory.display());
}

#[test]
fn an_address_moves_between_nodes_and_nothing_is_lost() {
    moves_and_loses_nothing(As::Us);
}

#[test]
fn the_same_without_any_rights() {
    moves_and_loses_nothing(As::Nobody);
}

#[test]
fn the_same_on_loopback() {
    moves_and_loses_nothing(As::Loopback);
}

#[test]
fn two_nodes_that_speak_for_one_address_are_seen() {
    let Some((mut lab, log)) = serving(As::Us) else { return };
    lab.mark("the gate is out");
    lab.address("n3", ADDRESS, true);
    lab.start("n3", &server("n3", 2, &lab.service[0].clone(), &log));
    lab.wait_report("an answer of n3", |r| r["client"]["voices"].as_array().unwrap().iter().any(|v| v[0] == 2));
    // n1 has said nothing since, except that its kernel answers who has the address.
    lab.wait_report("a second speaker", |r| number(&r["frames"]["two_speakers_ms"]) > 0.0);
    lab.address("n1", ADDRESS, false);
    lab.address("n1", ADDRESS, true);
    lab.wait_report("an answer of the lower epoch", |r| number(&r["client"]["two_actives_ms"]) > 0.0);
}

#[test]
fn a_successor_without_the_state_is_seen() {
    let Some((mut lab, log)) = serving(As::Us) else { return };
    lab.mark("state gone");
    lab.signal("n1", "kill");
    fs::remove_file(&log).unwrap();
    lab.start("n1", &server("n1", 2, &lab.service[0].clone(), &log));
    lab.wait_report("an answer of the second epoch", |r| r["client"]["voices"].as_array().unwrap().iter().any(|v| v[0] == 2));
    let result = lab.finish();
    assert!(result["lost"].as_u64().unwrap() >= 200, "{result}");
}

#[test]
fn a_stopped_node_is_silent_and_goes_on() {
    let Some((mut lab, _log)) = serving(As::Us) else { return };
    lab.mark("node-hung");
    assert!(lab.signal("n1", "stop") >= 1);
    lab.wait_report("silence", |r| number(&r["client"]["open_ms"]) > 50.0);
    lab.signal("n1", "cont");
    let report = lab.wait_report("an answer", |r| number(&r["client"]["open_ms"]) < 10.0);
    assert!(number(&report["client"]["outage_ms"]) > 50.0, "{report}");
    assert_eq!(lab.finish()["lost"], 0);
}

#[test]
fn cables_are_cut_one_by_one_and_a_shelf_manager_is_for_its_own_chassis() {
    let Some(mut lab) = Lab::new(As::Us) else { return };
    let log = lab.directory.join("calls.log");
    for room in ["n1", "mxp1"] {
        lab.start(room, &server("n1", 1, "0.0.0.0:4100", &log));
        wait_for("the server's file", || log.exists());
    }
    wait_for("n1 on fabric A", || reaches(&mut lab, "n2", "10.9.1.1:4100"));
    lab.tell(serde_json::json!({ "do": "cable", "node": "n1", "fabric": "a", "plugged": false }));
    assert!(!reaches(&mut lab, "n2", "10.9.1.1:4100"));
    assert!(reaches(&mut lab, "n2", "10.9.2.1:4100"));
    assert!(reaches(&mut lab, "client", "10.9.0.1:4100"));
    lab.tell(serde_json::json!({ "do": "cable", "node": "n1", "fabric": "a", "plugged": true }));
    wait_for("n1 on fabric A again", || reaches(&mut lab, "n2", "10.9.1.1:4100"));
    wait_for("the manager of mxp1", || reaches(&mut lab, "n1", "10.9.11.254:4100"));
    assert!(!reaches(&mut lab, "n3", "10.9.11.254:4100"));
}

#[test]
fn whatever_ends_the_lab_ends_everything_in_it() {
    for who in [As::Us, As::Loopback] {
        for signal in [nix::sys::signal::Signal::SIGTERM, nix::sys::signal::Signal::SIGKILL] {
            let Some(mut lab) = Lab::new(who) else { continue };
            // A child of a child, in a session of its own, as an application under a daemon would be.
            let nested = ["sh", "-c", "setsid sleep 1000 & exec sleep 1000"].map(str::to_owned);
            lab.start("n1", &nested);
            wait_for("both processes", || lab.processes("n1").len() == 2);
            let pids = lab.processes("n1");
            let directory = lab.end_by(signal);
            if signal == nix::sys::signal::Signal::SIGTERM {
                assert!(!directory.exists());
                assert!(pids.iter().all(|pid| !is_alive(*pid)), "{pids:?}");
            } else {
                // Killed outright, the lab can end only what it started itself; the rest is for each daemon's own care.
                wait_for("the end of the first process", || !is_alive(pids[0]));
                fs::remove_dir_all(directory).unwrap();
                for pid in &pids[1..] {
                    let _it_may_be_gone = nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), nix::sys::signal::Signal::SIGKILL);
                }
            }
        }
    }
}
