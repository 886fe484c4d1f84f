//! A serial line between two nodes of a domain of real processes: what it says when the fabrics are cut, and that it changes nothing else.

#[path = "support/client.rs"]
mod client;
#[expect(dead_code, reason = "what other tests use")]
#[path = "support/domain.rs"]
mod domain;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use client::Client;
use domain::{Domain, said};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};
use nix::pty::openpty;
use nix::sched::{CloneFlags, unshare};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::ttyname;
use serde_json::Value;

/// A null-modem cable with a pty at each end, which may be noisy.
struct Cable {
    ends: [PathBuf; 2],
    noise: Arc<AtomicUsize>,
    is_cut: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Cable {
    fn new() -> Self {
        let ptys = [(); 2].map(|()| openpty(None, None).expect("a pty"));
        let ends = [&ptys[0], &ptys[1]].map(|pty| {
            let mut attributes = tcgetattr(&pty.slave).expect("a tty");
            cfmakeraw(&mut attributes);
            tcsetattr(&pty.slave, SetArg::TCSANOW, &attributes).expect("it is set");
            for end in [&pty.master, &pty.slave] {
                fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("it is set");
            }
            ttyname(&pty.slave).expect("a path")
        });
        let (noise, is_cut) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (wanted, ended) = (Arc::clone(&noise), Arc::clone(&is_cut));
        let thread = std::thread::spawn(move || {
            let [(mut a, _held_a), (mut b, _held_b)] = ptys.map(|pty| (File::from(pty.master), pty.slave));
            let mut random = 1u64;
            while !ended.load(Ordering::Relaxed) {
                let mut fds = [&a, &b].map(|end| PollFd::new(end.as_fd(), PollFlags::POLLIN));
                poll(&mut fds, 20u16).expect("it can be waited for");
                let ready = fds.map(|fd| fd.any() == Some(true));
                if ready[0] { carry(&mut a, &mut b) }
                if ready[1] { carry(&mut b, &mut a) }
                if ready != [false; 2] && wanted.load(Ordering::Relaxed) > 0 {
                    let bytes: Vec<u8> = (0..300).map(|_| next(&mut random)).collect();
                    for end in [&mut a, &mut b] {
                        end.write_all(&bytes).expect("the pty takes it");
                    }
                    wanted.fetch_sub(1, Ordering::Relaxed);
                }
            }
        });
        Self { ends, noise, is_cut, thread: Some(thread) }
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.is_cut.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn carry(from: &mut File, to: &mut File) {
    let mut bytes = [0; 512];
    let length = from.read(&mut bytes).expect("something has come");
    to.write_all(&bytes[..length]).expect("the pty takes it");
}

fn next(random: &mut u64) -> u8 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    random.to_le_bytes()[3]
}

/// A network of this thread's own, with its processes, in which addresses can be cut off; false if that is not allowed.
fn own_network() -> bool {
    unshare(CloneFlags::CLONE_NEWNET).is_ok() && ip("link set lo up") && ip("rule add pref 10 lookup local") && ip("rule del pref 0")
}

fn ip(arguments: &str) -> bool {
    Command::new("ip").args(arguments.split(' ')).status().is_ok_and(|status| status.success())
}

/// Both fabrics of a node, cut or healed.
fn cut(domain: &Domain, node: usize, is_cut: bool) {
    for link in domain.links(node).split(',') {
        let (address, _) = link.split_once(':').expect("a port");
        for way in ["from", "to"] {
            assert!(ip(&format!("rule {} pref 5 {way} {address} blackhole", if is_cut { "add" } else { "del" })));
        }
    }
}

fn plug(domain: &mut Domain, node: usize, peer: usize, device: &str) {
    domain.stop_node(node);
    let mut file = File::options().append(true).open(domain.config(node)).expect("its file");
    writeln!(file, "serial: [{{ device: {device}, baud: 115200, peer: n{peer} }}]").expect("it is written");
    domain.start_node(node);
    domain.wait_redundant();
}

/// How the line to a node is, as another one sees it.
fn line(domain: &Domain, asked: usize, about: u64) -> String {
    domain.row(asked, about).and_then(|row| row.pointer("/serial/state").and_then(Value::as_str).map(str::to_owned)).unwrap_or_default()
}

fn state(domain: &Domain, asked: usize, about: u64) -> String {
    domain.row(asked, about).and_then(|row| row["state"].as_str().map(str::to_owned)).unwrap_or_default()
}

#[test]
fn a_node_that_is_cut_off_is_told_from_a_dead_one_and_taken_over_all_the_same() {
    if !own_network() {
        eprintln!("SKIPPED: no rights to a network namespace, or no ip");
        return;
    }
    let mut domain = Domain::start_edited(&["calls"], &[], |_, yaml| yaml.replace("{ name: calls,", "{ name: calls, nodes: [1, 2],"));
    let cable = Cable::new();
    let ends = cable.ends.clone().map(|end| end.to_str().expect("a path").to_owned());
    plug(&mut domain, 1, 2, &ends[0]);
    plug(&mut domain, 2, 1, &ends[1]);
    domain.wait("each hears the other on the line", |d| line(d, 1, 2) == "up" && line(d, 2, 1) == "up");

    cable.noise.store(20, Ordering::Relaxed);
    domain.wait("the line has carried the noise", |_| cable.noise.load(Ordering::Relaxed) == 0);
    domain.wait("and beats after it", |d| line(d, 1, 2) == "up" && line(d, 2, 1) == "up");

    let old = domain.wait("calls has an active", |d| d.active(3, "calls"));
    let (new, about) = (3 - old, u64::try_from(old).expect("small"));
    let mut client = Client::new(&domain, "calls");
    assert_eq!(client.ask("setup", 1).result, "ok");

    cut(&domain, old, true);
    domain.wait("the other end knows that it is cut off and lives", |d| state(d, new, about) == "cut off");
    let told = said(&domain.ask(new, &["status"]));
    assert!(told.contains(&format!("n{old} is alive but cut off")) && told.contains("on no fabric"), "{told}");
    domain.wait("n3, which has no line, holds it for dead", |d| state(d, 3, about) == "dead");
    domain.wait("the takeover takes place", |d| d.active(3, "calls").filter(|n| *n == new));
    assert_eq!(client.ask("query", 1).result, "ok");
    let times = |d: &Domain| said(&d.ask(new, &["events", &format!("/nodes/n{old}"), "--last", "1000"])).matches("serial: cut off").count();
    assert!(times(&domain) > 0, "it is an event");
    domain.wait("it is known that its lease is over", |d| said(&d.ask(new, &["status"])).contains("its lease is over"));
    assert_ne!(domain.active(new, "calls"), Some(old), "a line gives nobody a lease");

    cut(&domain, old, false);
    domain.wait_redundant();
    domain.wait("it is up for everybody", |d| state(d, new, about) == "up" && line(d, new, about) == "up");

    let before = times(&domain);
    domain.kill_node(old);
    domain.wait("who has died is dead and not cut off", |d| state(d, new, about) == "dead" && line(d, new, about) == "silent");
    assert_eq!(times(&domain), before, "nor was it for a moment");
    domain.start_node(old);
    domain.wait_redundant();

    drop(cable);
    domain.wait("both say that the line is gone", |d| line(d, 1, 2) == "closed" && line(d, 2, 1) == "closed");
    domain.wait_redundant();
}

/// The service waits for a fence, and no fence ever comes: only the active's own word (protocol 3.5, 3.8) can move it, and only the line carries that.
#[test]
fn an_active_that_is_cut_off_gives_its_role_up_over_the_line() {
    if !own_network() {
        eprintln!("SKIPPED: no rights to a network namespace, or no ip");
        return;
    }
    let mut domain = Domain::start_edited(&["calls"], &[], |_, yaml| {
        let yaml = yaml.replace("{ name: calls,", "{ name: calls, nodes: [1, 2], fence: required,");
        format!("{yaml}fence: {{ command: [/bin/false], timeout: 1s }}\n")
    });
    let cable = Cable::new();
    let ends = cable.ends.clone().map(|end| end.to_str().expect("a path").to_owned());
    plug(&mut domain, 1, 2, &ends[0]);
    plug(&mut domain, 2, 1, &ends[1]);
    domain.wait("each hears the other on the line", |d| line(d, 1, 2) == "up" && line(d, 2, 1) == "up");
    let old = domain.wait("calls has an active", |d| d.active(3, "calls"));
    let new = 3 - old;
    let mut client = Client::new(&domain, "calls");
    assert_eq!(client.ask("setup", 1).result, "ok");

    cut(&domain, old, true);
    domain.wait("the other one waits for the fence", |d| said(&d.ask(new, &["status"])).contains("to be known to be off first"));
    domain.wait("the cut-off node gives it up, and the other one hears that", |d| d.active(3, "calls").filter(|n| *n == new));
    assert_eq!(client.ask("query", 1).result, "ok");
    let why = domain.wait("the chain has arrived", |d| Some(said(&d.ask(new, &["why", "calls"]))).filter(|w| w.contains("takeover")));
    assert!(why.contains("the old active gave it up"), "{why}");
    cut(&domain, old, false);
    domain.wait_redundant();
}

#[test]
fn a_device_that_is_not_there_is_told_and_a_peer_that_is_not_refused() {
    let mut domain = Domain::start(&[]);
    plug(&mut domain, 1, 2, "/dev/no-such-line");
    let told = domain.wait("it says so", |d| Some(said(&d.ask(1, &["status"]))).filter(|told| told.contains("is closed")));
    assert!(told.contains("/dev/no-such-line to n2 is closed: No such file"), "{told}");

    domain.stop_node(3);
    let mut file = File::options().append(true).open(domain.config(3)).expect("its file");
    writeln!(file, "serial: [{{ device: /dev/ttyS0, peer: n9 }}]").expect("it is written");
    domain.start_node(3);
    assert!(!domain.wait_ended(3).success());
    let log = std::fs::read_to_string(domain.path("n3.log")).expect("a log");
    assert!(log.contains("which is no other node of this domain; these are: n1, n2"), "{log}");
}
