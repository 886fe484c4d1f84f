//! What travels between nodes is not readable: every frame on both fabrics is captured while a domain works, and searched.
//!
//! The processes in the lab's rooms are `nines` and this test binary again: as the service, the capture, and a sender in clear.

#[expect(dead_code, reason = "what other tests use")]
#[path = "support/lab.rs"]
mod lab;

use std::fs::{self, File};
use std::io::Write as _;
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use lab::{As, Lab, wait_for};
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket, sockopt};
use serde_json::Value;
use sixnines_checkpoint::{App, AppRole, Replication};

/// What the environment of a re-executed test binary says.
const PART: &str = "SIXNINES_TEST_PART";
const DOMAIN: &str = "quartzdomain";
const SERVICE: &str = "quartzservice";
const STATE: &str = "quartz-in-the-state";
const REASON: &str = "quartz-in-an-event";
const IN_CLEAR: &str = "quartz-in-clear";
const MESH: u16 = 4200;

fn part(name: &str, setting: &str) -> Vec<String> {
    let exe = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    ["env", &format!("{PART}={setting}"), &exe, "--exact", name, "--nocapture", "--test-threads=1"].map(str::to_owned).to_vec()
}

/// A service that writes for as long as it is active. It is a test only by its form.
#[test]
fn service_part() {
    if std::env::var(PART).is_err() {
        return;
    }
    let app = App::connect().expect("a node started it");
    let state = app.open(STATE, Replication::default()).expect("a checkpoint");
    let mut term = None;
    let mut number = 0u64;
    loop {
        match app.next_role_within(Duration::from_millis(20)) {
            Some(AppRole::Active(new)) => term = Some(new),
            Some(AppRole::Standby | AppRole::Lost) => term = None,
            Some(AppRole::Quiescing) => {
                term = None;
                app.drained();
            }
            None => {}
        }
        if let Some(term) = &term {
            number += 1;
            if let Ok(pending) = state.put(term, STATE, format!("{STATE} {number}").into_bytes()) {
                pending.commit_then(|_applied| {});
            }
        }
    }
}

/// Writes every frame on the fabrics to a file: length, big-endian, and bytes. It is a test only by its form.
#[test]
fn capture_part() {
    let Ok(file) = std::env::var(PART) else { return };
    let fabrics: Vec<usize> = ["fab0", "fab1"].iter().map(|d| usize::try_from(nix::net::if_::if_nametoindex(*d).expect("a fabric")).unwrap()).collect();
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll).expect("the right to a packet socket");
    let _as_much_as_is_allowed = setsockopt(&socket, sockopt::RcvBufForce, &(32 << 20)).or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &(32 << 20)));
    let mut file = File::create(file).unwrap();
    let mut frame = vec![0; 1 << 17]; // larger than what the kernel puts together of several datagrams
    loop {
        let (length, from) = recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut frame).expect("a frame");
        if from.is_some_and(|from| fabrics.contains(&from.ifindex())) {
            let record = [&u32::try_from(length).unwrap().to_be_bytes(), &frame[..length]].concat();
            file.write_all(&record).unwrap();
        }
    }
}

/// Sends what should be found. It is a test only by its form.
#[test]
fn clear_part() {
    let Ok(to) = std::env::var(PART) else { return };
    UdpSocket::bind("0.0.0.0:0").unwrap().send_to(format!("so: {IN_CLEAR}.").as_bytes(), to).unwrap();
}

fn frames(file: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(file).unwrap_or_default();
    let mut rest = bytes.as_slice();
    let mut frames = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let Some((frame, after)) = after.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).unwrap()) else { break };
        frames.push(frame.to_vec());
        rest = after;
    }
    frames
}

fn holds(frame: &[u8], marker: &[u8]) -> bool {
    frame.windows(marker.len()).any(|window| window.eq_ignore_ascii_case(marker))
}

/// Protocol, port there, and payload of an IPv4 frame without options, which is all that there is here.
fn payload(frame: &[u8]) -> Option<(u8, u16, &[u8])> {
    let protocol = *frame.get(23).filter(|_| frame[12..14] == [8, 0] && frame[14] == 0x45)?;
    let port = u16::from_be_bytes([*frame.get(36)?, *frame.get(37)?]);
    Some((protocol, port, frame.get(42..)?))
}

struct World {
    lab: Lab,
}

impl World {
    /// A domain in the lab's rooms, captured from before its first frame.
    fn start() -> Option<Self> {
        let mut world = Self { lab: Lab::new(As::Us)? };
        let nodes: String = (1..=3).map(|n| format!("  - {{ id: {n}, chassis: mxp{}, links: [{}] }}\n", if n < 3 { 1 } else { 2 }, links(n))).collect();
        let command = serde_json::to_string(&part("service_part", "service")).unwrap();
        let yaml = format!("domain: {DOMAIN}\nprofile: lan\nnodes:\n{nodes}chassis: [{{ name: mxp1 }}, {{ name: mxp2 }}]\nservices: [{{ name: {SERVICE}, command: {command} }}]\n");
        fs::write(world.path("domain.yaml"), yaml).unwrap();
        let made = world.nines(&["init", &world.text("domain"), "--domain", &world.text("domain.yaml"), "--authority", "n1"]);
        assert!(made.status.success(), "{}", said(&made));
        for room in ["n1", "n2", "n3"] {
            let file = world.text(&format!("{room}.frames"));
            world.lab.start(room, &part("capture_part", &file));
            wait_for("the capture", || Path::new(&file).exists());
        }
        for node in ["n1", "n2", "n3"] {
            let config = world.text(&format!("domain/{node}/nines.yaml"));
            world.lab.start(node, &[env!("CARGO_BIN_EXE_nines"), "run", "--without-gate", "--config", &config].map(str::to_owned));
        }
        wait_for("a redundant domain", || (1..=3).all(|n| world.ask(n, &["status", "--check"]).status.success()));
        Some(world)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.lab.directory.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn nines(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_nines")).args(arguments).stdin(Stdio::null()).output().expect("nines runs")
    }

    fn ask(&self, node: u16, arguments: &[&str]) -> Output {
        let config = self.text(&format!("domain/n{node}/nines.yaml"));
        self.nines(&[arguments, &["--node", &config]].concat())
    }

    fn done(&self, node: u16, arguments: &[&str]) {
        let output = self.ask(node, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    }

    fn active(&self) -> Option<u64> {
        let output = self.ask(2, &["status", "--json"]);
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        status.pointer("/status/services/0")?.as_object().filter(|s| s["is_serving"] == true && s["standby"].as_array().is_some_and(|s| !s.is_empty()))?["active"].as_u64()
    }

    fn captured(&self) -> Vec<Vec<u8>> {
        ["n1", "n2", "n3"].iter().flat_map(|room| frames(&self.path(&format!("{room}.frames")))).collect()
    }
}

fn links(node: u16) -> String {
    [1, 2].map(|link| format!("\"10.9.{link}.{node}:{MESH}\"")).join(", ")
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

#[test]
fn nothing_that_nodes_tell_each_other_can_be_read_on_the_wire() {
    let Some(mut world) = World::start() else { return };
    // State goes from one node to another, an event with an operator's words, a role, a token.
    world.done(1, &["limits", "set", "objects=9000", "-m", REASON]);
    wait_for("the words are known everywhere", || (1..=3).all(|n| said(&world.ask(n, &["events", "/**", "--last", "1000"])).contains(REASON)));
    let before = world.active().expect("it serves");
    world.done(1, &["service", "switchover", SERVICE]);
    wait_for("another one is active", || world.active().is_some_and(|now| now != before));
    let invited = world.ask(1, &["node", "invite", "n4", "--chassis", "mxp2", "--links", "10.9.1.4:4200,10.9.2.4:4200", "--json"]);
    let invited: Value = serde_json::from_slice(&invited.stdout).expect("an invitation");
    let token = invited.pointer("/invited/token").and_then(Value::as_str).expect("a token").to_owned();
    let joined = world.text("joined");
    world.lab.start("n3", &[env!("CARGO_BIN_EXE_nines"), "join", &token, "--dir", &joined].map(str::to_owned));
    wait_for("the token lets somebody in", || Path::new(&joined).join("nines.yaml").exists());

    // The same search finds what is sent in clear, by whichever node it goes.
    world.lab.start("n1", &part("clear_part", "10.9.1.3:9999"));
    world.lab.start("n3", &part("clear_part", "10.9.2.2:9999"));
    wait_for("what is in clear is captured", || world.captured().iter().filter(|f| holds(f, IN_CLEAR.as_bytes())).count() >= 4);

    // RFC 9000, 17.2: the first two bits of a long header are set; of a short one, the second.
    let (long, short) = (|p: &[u8]| p.first().is_some_and(|b| b & 0xc0 == 0xc0), |p: &[u8]| p.first().is_some_and(|b| b & 0xc0 == 0x40));
    wait_for("handshakes, QUIC's packets, heartbeats and the door's TCP are captured", || {
        let captured = world.captured();
        let count = |protocol: u8, port: u16, is_meant: fn(&[u8]) -> bool| captured.iter().filter_map(|f| payload(f)).filter(|(p, to, bytes)| (*p, *to) == (protocol, port) && is_meant(bytes)).count();
        count(17, MESH, long) >= 12 && count(17, MESH, short) > 100 && count(17, MESH + 1, |_| true) > 300 && count(6, MESH, |_| true) > 4
    });
    let captured = world.captured();

    // Names of nodes are too short to be searched by themselves; wherever they stand in certificates, they stand before the domain's.
    let secrets = [DOMAIN, SERVICE, STATE, REASON, "nines1-", &token[7..39], "/services/", "/nodes/n"];
    for secret in secrets {
        let readable = captured.iter().filter(|f| holds(f, secret.as_bytes())).count();
        assert_eq!(readable, 0, "{secret:?} can be read in {readable} of {} frames", captured.len());
    }
}
