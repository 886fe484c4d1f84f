//! The gate against the real kernel: a guarded node and an observer, on a cable between two namespaces.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use sixnines_core::ids::NodeId;

use super::*;
use crate::address::frames::{checksum, ethernet};
use crate::address::packet::PacketSocket;
use crate::clock::{boot_now, sleep_until};
use crate::netlink::route::{Cidr, Mac};
use crate::netns::Netns;
use crate::testing::{Sniffer, in_own_network, in_user_namespace, wait_for_cable};

const LEASE: Duration = Duration::from_millis(100);
const FOREVER: Duration = Duration::from_secs(3600);
const GUARDED: [&str; 2] = ["10.9.0.1/24", "fd09::1/64"];
const OWN: [&str; 2] = ["10.9.0.100/24", "fd09::100/64"];
const OBSERVER: [&str; 2] = ["10.9.0.200/24", "fd09::200/64"];
/// In whose name questions are asked: the observer's kernel asks in its own.
const ASKER: [&str; 2] = ["10.9.0.201/24", "fd09::201/64"];

fn ip(cidr: &str) -> IpAddr {
    cidr.parse::<Cidr>().unwrap().address
}

struct Pair {
    guarded: Netns,
    observer: Netns,
    guarded_mac: Mac,
    observer_mac: Mac,
    sniffer: Sniffer,
}

impl Pair {
    fn new() -> Self {
        let (guarded, observer) = (Netns::new().unwrap(), Netns::new().unwrap());
        guarded.configure(|r| r.add_veth("eth0", "eth0", Some(observer.as_fd()))).unwrap();
        let mac = |ns: &Netns| ns.configure(|r| r.link("eth0")).unwrap().mac.unwrap();
        let (guarded_mac, observer_mac) = (mac(&guarded), mac(&observer));
        observer.configure(|r| {
            r.set_up("eth0", true)?;
            OBSERVER.iter().try_for_each(|a| r.add_address("eth0", a.parse().unwrap()))
        })
        .unwrap();
        guarded.configure(|r| {
            r.set_up("eth0", true)?;
            OWN.iter().chain(&GUARDED).try_for_each(|a| r.add_address("eth0", a.parse().unwrap()))?;
            // Known beforehand: else an own question for the observer, asked in the guarded address's name, decides the outcome.
            OBSERVER.iter().chain(&ASKER).try_for_each(|a| r.set_neighbour("eth0", ip(a), observer_mac))
        })
        .unwrap();
        wait_for_cable(&guarded, &observer, "eth0");
        let sniffer = observer.run(|| Sniffer::open("eth0"));
        Self { guarded, observer, guarded_mac, observer_mac, sniffer }
    }

    fn make(&self, form: GateForm, guards: &[&[&str]]) -> Box<dyn Gate> {
        self.guarded.run(|| make(form, &plan(guards))).unwrap()
    }

    /// Whether a datagram from `source` reaches the observer: one from an address that nobody guards, sent after it, does.
    fn passes(&self, source: &str) -> bool {
        let number = usize::from(ip(source).is_ipv6());
        self.guarded.run(|| {
            stay_on_one_cpu();
            for from in [source, OWN[number]] {
                let socket = UdpSocket::bind((ip(from), 0)).unwrap();
                // A datagram that the gate drops may be an error for its sender; whether it arrives is what counts.
                if let Err(e) = socket.send_to(b"hello", (ip(OBSERVER[number]), 9)) {
                    assert!([libc::ENOBUFS, libc::EPERM].contains(&e.raw_os_error().unwrap()), "sending from {from}: {e}");
                }
            }
        });
        self.seen_before(|f| is_from(f, ip(source)), |f| is_from(f, ip(OWN[number])))
    }

    /// Whether the observer gets `frame`, sent as it is.
    fn passes_raw(&self, frame: &[u8]) -> bool {
        self.guarded.run(|| send_raw(frame)).is_ok() && {
            self.sniffer.wait_for("the raw frame", |f| f == frame);
            true
        }
    }

    /// Whether an ARP request or neighbour solicitation for `target` is answered: one for an address that nobody guards is.
    fn answers(&self, target: &str) -> bool {
        let number = usize::from(ip(target).is_ipv6());
        self.observer.run(|| {
            stay_on_one_cpu();
            [target, OWN[number]].iter().try_for_each(|a| send_raw(&self.question(ip(a))))
        })
        .unwrap();
        self.seen_before(|f| is_answer(f, ip(target)), |f| is_answer(f, ip(OWN[number])))
    }

    fn seen_before(&self, wanted: impl Fn(&[u8]) -> bool, marker: impl Fn(&[u8]) -> bool) -> bool {
        let mut seen = false;
        self.sniffer.wait_for("marker", |f| {
            seen |= wanted(f);
            marker(f)
        });
        seen
    }

    fn question(&self, target: IpAddr) -> Vec<u8> {
        let me = self.observer_mac;
        match target {
            IpAddr::V4(target) => {
                let IpAddr::V4(own) = ip(ASKER[0]) else { unreachable!() };
                let mut frame = ethernet([0xff; 6], me, 0x0806);
                frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
                frame.extend(me.0.iter().chain(&own.octets()).chain(&[0; 6]).chain(&target.octets()));
                frame
            }
            IpAddr::V6(target) => {
                let IpAddr::V6(own) = ip(ASKER[1]) else { unreachable!() };
                let mut icmp = vec![135, 0, 0, 0, 0, 0, 0, 0];
                icmp.extend(target.octets().iter().chain(&[1, 1]).chain(&me.0));
                icmp_frame(self.guarded_mac, me, own, target, icmp)
            }
        }
    }
}

fn plan(guards: &[&[&str]]) -> Plan {
    let guards = guards.iter().map(|addresses| Guard {
        name: "calls".into(),
        addresses: addresses.iter().map(|a| ip(a)).collect(),
        devices: vec!["eth0".into()],
    });
    Plan { owner: NodeId(1), lease: LEASE, guards: guards.collect() }
}

/// A cable between namespaces keeps the order of frames that one processor sends, not of two.
fn stay_on_one_cpu() {
    let here = nix::unistd::Pid::from_raw(0);
    let allowed = nix::sched::sched_getaffinity(here).unwrap();
    let mut one = nix::sched::CpuSet::new();
    one.set((0..nix::sched::CpuSet::count()).find(|c| allowed.is_set(*c).unwrap()).unwrap()).unwrap();
    nix::sched::sched_setaffinity(here, &one).unwrap();
}

fn send_raw(frame: &[u8]) -> std::io::Result<()> {
    let index = Route::open().unwrap().link("eth0").unwrap().index;
    PacketSocket::open(index).unwrap().send(frame)
}

fn icmp_frame(to: Mac, from: Mac, source: Ipv6Addr, target: Ipv6Addr, mut icmp: Vec<u8>) -> Vec<u8> {
    let sum = checksum(source, target, &icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = ethernet(to.0, from, 0x86dd);
    frame.extend([0x60, 0, 0, 0, 0, u8::try_from(icmp.len()).unwrap(), 58, 255]);
    frame.extend(source.octets().iter().chain(&target.octets()).chain(&icmp));
    frame
}

fn is_from(frame: &[u8], source: IpAddr) -> bool {
    match source {
        IpAddr::V4(a) => frame[12..14] == [8, 0] && frame[26..30] == a.octets() && frame[23] == 17,
        IpAddr::V6(a) => frame[12..14] == [0x86, 0xdd] && frame[22..38] == a.octets() && frame[20] == 17,
    }
}

fn is_answer(frame: &[u8], target: IpAddr) -> bool {
    let asker = ip(ASKER[usize::from(target.is_ipv6())]);
    match (target, asker) {
        (IpAddr::V4(a), IpAddr::V4(to)) => {
            frame[12..14] == [8, 6] && frame[21] == 2 && frame[28..32] == a.octets() && frame[38..42] == to.octets()
        }
        (IpAddr::V6(a), IpAddr::V6(to)) => {
            frame[12..14] == [0x86, 0xdd] && frame[20] == 58 && frame[54] == 136 && frame[62..78] == a.octets() && frame[38..54] == to.octets()
        }
        _ => unreachable!(),
    }
}

/// Everything that speaks for the address passes while the gate is open, and nothing else is ever held up.
fn opens_and_closes(form: GateForm) {
    let pair = Pair::new();
    let mut gate = pair.make(form, &[&GUARDED]);
    assert_eq!(gate.form(), form);
    let slot = GateSlot(0);
    let IpAddr::V6(guarded_v6) = ip(GUARDED[1]) else { unreachable!() };
    let mut icmp = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    icmp.extend(guarded_v6.octets().iter().chain(&[2, 1]).chain(&pair.guarded_mac.0));
    let foreign_source: Ipv6Addr = "fe80::77".parse().unwrap();
    let advertisement = icmp_frame(pair.observer_mac, pair.guarded_mac, foreign_source, guarded_v6, icmp);

    for round in 0..3 {
        for address in GUARDED {
            let before = gate.dropped(slot);
            assert!(!pair.passes(address), "{address} speaks through a closed gate, round {round}");
            assert_eq!(gate.dropped(slot), before + 1, "{address}");
            assert!(!pair.answers(address), "{address} answers through a closed gate, round {round}");
            assert_eq!(gate.dropped(slot), before + 2, "{address}");
        }
        assert!(!pair.passes_raw(&advertisement), "an advertisement with the address as target");
        assert!(gate.dropped(slot) >= 5 * (round + 1), "{} dropped", gate.dropped(slot));

        open(&*gate, slot, &pair);
        let dropped = gate.dropped(slot);
        for address in GUARDED {
            assert!(pair.passes(address) && pair.answers(address), "{address} is silent through an open gate, round {round}");
        }
        assert!(pair.passes_raw(&advertisement));
        assert_eq!(gate.dropped(slot), dropped);
        gate.close(slot);
    }
    gate.dismantle().unwrap();
    assert!(pair.passes(GUARDED[0]), "a gate that was taken away holds nothing up");
}

/// Arms for long enough, and waits until the form that needs a thread has followed.
fn open(gate: &dyn Gate, slot: GateSlot, pair: &Pair) {
    gate.words()[usize::from(slot.0)].store(boot_now() + FOREVER);
    while !pair.passes(GUARDED[0]) {}
}

/// Slots do not touch each other; a new gate replaces the old one of the same owner, closed; other owners' stay.
fn slots_and_lives_are_apart(form: GateForm) {
    let pair = Pair::new();
    let (first, second) = (GUARDED[0], "10.9.0.77");
    pair.guarded.configure(|r| r.add_address("eth0", second.parse().unwrap())).unwrap();
    let mut gate = pair.make(form, &[&[first], &[second]]);
    assert!(!pair.passes(first) && !pair.passes(second));
    open(&*gate, GateSlot(0), &pair);
    assert!(pair.passes(first) && !pair.passes(second) && !pair.answers(second));
    gate.words()[1].store(boot_now() + FOREVER);
    while !pair.passes(second) {}
    gate.close(GateSlot(0));
    assert!(!pair.passes(first) && !pair.answers(first) && pair.passes(second) && pair.answers(second));
    assert!(gate.dropped(GateSlot(0)) >= 3 && gate.dropped(GateSlot(1)) >= 3);
    open(&*gate, GateSlot(0), &pair);

    match form {
        GateForm::Bpf => std::mem::forget(gate), // A life that ended without a word, its gate open.
        _ => {
            gate.dismantle().unwrap(); // Its thread would go on.
            drop(Holder::start(form, &pair));
        }
    }
    let later = pair.make(form, &[&[first]]);
    assert!(!pair.passes(first), "the next life's gate is closed");
    open(&*later, GateSlot(0), &pair);

    let mut foreign = plan(&[&[first]]);
    foreign.owner = NodeId(2);
    let foreign = pair.guarded.run(|| make(form, &foreign)).unwrap();
    assert!(!pair.passes(first), "both have to be open");
    foreign.dismantle().unwrap();
    assert!(pair.passes(first), "one's going takes nothing of the other's along");
    drop(later);
    assert!(!pair.passes(first), "an owner that lets go leaves a closed gate");
}

/// Somebody flushes the filters; a device goes and comes again.
fn what_was_taken_away_is_put_back(form: GateForm) {
    let pair = Pair::new();
    let mut gate = pair.make(form, &[&GUARDED]);
    assert_eq!(gate.restore().unwrap(), 0);
    assert!(!pair.passes(GUARDED[0]));
    pair.guarded.run(|| {
        // What `tc qdisc del dev eth0 clsact` and `nft delete table` do.
        match form {
            GateForm::Bpf => tc::remove_clsact(&mut Route::open().unwrap(), "eth0").unwrap(),
            _ => nft::remove_table(NodeId(1)).unwrap(),
        }
    });
    assert!(pair.passes(GUARDED[0]), "unguarded");
    assert!(gate.restore().unwrap() > 0);
    for address in GUARDED {
        assert!(!pair.passes(address) && !pair.answers(address), "{address} is guarded again");
    }
    open(&*gate, GateSlot(0), &pair);
    assert_eq!(gate.restore().unwrap(), 0);

    let rights = gate.rights();
    assert!(rights.iter().any(|r| r.name == "gate" && r.got == (form == GateForm::Bpf)), "{rights:?}");
    pair.guarded.configure(|r| r.delete_link("eth0")).unwrap();
    assert_eq!(gate.restore().unwrap(), 0, "by a device that is gone nothing leaves");
    pair.guarded.configure(|r| r.add_veth("eth0", "peer", None)).unwrap();
    gate.restore().unwrap();
    let IpAddr::V4(guarded) = ip(GUARDED[0]) else { unreachable!() };
    let speaking = crate::address::frames::gratuitous_arp(pair.guarded_mac, guarded, 2);
    let speak = || pair.guarded.run(|| send_raw(&speaking));
    pair.guarded.configure(|r| r.set_up("eth0", true).and_then(|()| r.set_up("peer", true))).unwrap();
    speak().unwrap();
    gate.close(GateSlot(0));
    assert_eq!(speak().unwrap_err().raw_os_error(), Some(libc::ENOBUFS), "the new device is guarded");
}

/// The owner is stopped, without any chance to do something: the kernel closes at the deadline. Then it is killed: it stays closed.
fn closes_though_its_owner_is_stopped(form: GateForm) {
    let pair = Pair::new();
    let mut holder = Holder::start(form, &pair);
    for address in GUARDED {
        assert!(pair.passes(address), "{address}: the holder keeps it open");
        assert!(pair.answers(address), "{address}: the holder keeps it open for answers");
    }
    holder.signal(libc::SIGSTOP);
    holder.wait_until_stopped();
    let closed = boot_now() + LEASE + form.late_by(LEASE);
    while boot_now() < closed {
        sleep_until(closed);
    }
    for address in GUARDED {
        assert!(!pair.passes(address) && !pair.answers(address), "{address} speaks though its owner is stopped");
    }
    holder.signal(libc::SIGCONT);
    while !pair.passes(GUARDED[0]) {}
    holder.0.kill().unwrap();
    holder.0.wait().unwrap();
    let closed = boot_now() + LEASE + form.late_by(LEASE);
    while boot_now() < closed {
        sleep_until(closed);
    }
    for address in GUARDED {
        assert!(!pair.passes(address) && !pair.answers(address), "{address} speaks though its owner is dead");
    }
}

/// Another process that keeps a gate open, beat by beat: this test binary with the one test [`holder`].
struct Holder(Child);

const HOLDER_FORM: &str = "SIXNINES_TEST_HOLDER";

impl Holder {
    fn start(form: GateForm, pair: &Pair) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["gate::tests::holder", "--exact", "--nocapture", "--test-threads=1"]);
        command.env(HOLDER_FORM, form.to_string()).stdout(Stdio::piped());
        pair.guarded.start_inside(&mut command);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|l| l.unwrap().contains("holding")), "the holder ended");
        let holder = Self(child);
        while !pair.passes(GUARDED[0]) {}
        holder
    }

    fn signal(&self, signal: i32) {
        let pid = nix::unistd::Pid::from_raw(self.0.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::try_from(signal).unwrap()).unwrap();
    }

    /// Every thread of it.
    fn wait_until_stopped(&self) {
        let is_stopped = |thread: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap();
            stat.rsplit(") ").next().unwrap().starts_with('T')
        };
        while !std::fs::read_dir(format!("/proc/{}/task", self.0.id())).unwrap().all(|t| is_stopped(t.unwrap())) {}
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn holder() {
    let Ok(form) = std::env::var(HOLDER_FORM) else { return };
    let form = if form == "bpf" { GateForm::Bpf } else { GateForm::Nft };
    let gate = make(form, &plan(&[&GUARDED])).unwrap();
    println!("holding");
    loop {
        gate.words()[0].store(boot_now() + LEASE);
        sleep_until(boot_now() + Duration::from_millis(5));
    }
}

/// Where BPF is not to be had (not root) the test says so and ends.
fn with_bpf(test: fn(GateForm)) {
    let ns = Netns::new().unwrap();
    ns.add_bridge("br0").unwrap();
    match ns.run(|| bpf::probe("br0")) {
        Ok(()) => test(GateForm::Bpf),
        Err(e) => eprintln!("SKIPPED: BPF programs may not be loaded here: {e}"),
    }
}

macro_rules! on_both_forms {
    ($($test:ident: $bpf:ident, $nft:ident;)*) => {$(
        #[test]
        fn $bpf() {
            in_own_network(concat!("gate::tests::", stringify!($bpf)), || with_bpf($test));
        }

        #[test]
        fn $nft() {
            in_user_namespace(concat!("gate::tests::", stringify!($nft)), || $test(GateForm::Nft));
        }
    )*};
}

on_both_forms! {
    opens_and_closes: bpf_opens_and_closes, nft_opens_and_closes;
    slots_and_lives_are_apart: bpf_slots_and_lives_are_apart, nft_slots_and_lives_are_apart;
    what_was_taken_away_is_put_back: bpf_what_was_taken_away_is_put_back, nft_what_was_taken_away_is_put_back;
    closes_though_its_owner_is_stopped: bpf_closes_though_its_owner_is_stopped, nft_closes_though_its_owner_is_stopped;
}

#[test]
fn the_fallback_is_found_where_bpf_is_forbidden() {
    in_user_namespace("gate::tests::the_fallback_is_found_where_bpf_is_forbidden", || {
        let ns = Netns::new().unwrap();
        ns.add_bridge("br0").unwrap();
        ns.run(|| {
            let may_load = std::fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled").unwrap().trim() == "0";
            assert!(may_load || probe("br0") == GateForm::Nft);
            let error = bpf::probe("lo").unwrap_err();
            assert_eq!(error.to_string(), "cannot guard lo: it is not an Ethernet device");
            let mut route = Route::open().unwrap();
            route.add_veth("port", "own", None).unwrap();
            route.set_master("port", Some("br0")).unwrap();
            let mut devices = ethernet_devices().unwrap();
            devices.sort_unstable();
            assert_eq!(devices, ["br0", "own"], "a bridge's port has no frames of its own");
        });
    });
}

#[test]
fn without_a_gate_the_words_are_still_there() {
    let mut gate = make(GateForm::None, &plan(&[&GUARDED])).unwrap();
    gate.arm(GateSlot(0), Instant::from_nanos(5));
    let word = gate.words()[0].clone();
    assert_eq!(word.load(), Instant::from_nanos(5));
    gate.close(GateSlot(0));
    assert_eq!((word.load(), gate.dropped(GateSlot(0)), gate.form()), (Instant::ZERO, 0, GateForm::None));
}
