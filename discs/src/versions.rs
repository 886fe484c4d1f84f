//! The exact bytes of what is written, sent and kept, by released version: `discs/versions/N.txt`, a line for each kind of thing.
//!
//! A line is never changed and never removed: two versions are in one domain while it is upgraded, and a log written by an older one is
//! read for ever (protocol 6.3). If this test fails, the code is wrong. What is new gets a line of its own, in the newest file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sixnines_core::class::Pattern;
use sixnines_core::domain::admission::Fingerprint;
use sixnines_core::domain::config::{Bundle, ChassisConfig, DomainConfig, NodeConfig, OnTotalLoss, Profile, ServiceConfig};
use sixnines_core::domain::feature::Level;
use sixnines_core::domain::fence::{FenceConfig, Fencing};
use sixnines_core::domain::limits::{Limit, Limits};
use sixnines_core::domain::{Entry, Evidence, Proposal, Release, Void};
use sixnines_core::feed::{Cursor, Place};
use sixnines_core::ids::{Epoch, EventId, Incarnation, LogIndex, Member, NodeId, Version};
use sixnines_core::roles::Told;
use sixnines_core::time::{Instant, WallTime};

use crate::feed::wire::{Recorded, Resume, Word, read_subscription, subscription};
use crate::liveness::wire::{Echo, Heartbeat};
use crate::log::format::{LogEntry, LogId, Membership, Payload, Vote};
use crate::log::wire::{self as log, Envelope, Message, Proposed, Reply, Request, SnapshotPart};
use crate::serial::Beat;
use crate::wire::{Class, Decoder, Frame, Hello, Kind, NodeRole, PROTOCOL, Refusal, Versions};

const VERSION_1: &str = include_str!("../versions/1.txt");

/// What this build writes of each thing, and how it reads that.
#[derive(Default)]
struct Things(BTreeMap<String, (Vec<u8>, Reads)>);

/// Whether these bytes are read as the thing.
type Reads = Box<dyn Fn(&[u8]) -> bool>;

impl Things {
    fn add<T: PartialEq + Debug + 'static>(&mut self, of: &str, thing: T, bytes: Vec<u8>, read: impl Fn(&[u8]) -> Option<T> + 'static) {
        let text = format!("{thing:?}");
        let name = text.split([' ', '(', '{']).next().unwrap_or_default();
        let before = self.0.insert(format!("{of} {name}").trim_end().to_owned(), (bytes, Box::new(move |bytes| read(bytes).as_ref() == Some(&thing))));
        assert!(before.is_none(), "two things called {of} {name}");
    }
}

fn member(node: u16) -> Member {
    Member { node: NodeId(node), incarnation: Incarnation(u64::from(node) + 300) }
}

fn seat(node: u16) -> NodeConfig {
    NodeConfig { id: NodeId(node), chassis: "mxp1".into(), links: vec!["10.9.1.1:4200".parse().expect("an address")], voter: true, witness: false }
}

fn config() -> DomainConfig {
    let service = ServiceConfig {
        name: "calls".into(),
        command: vec!["callserver".into(), "--port".into()],
        addresses: vec!["10.9.0.100/24".into()],
        device: Some("eth0".into()),
        nodes: vec![NodeId(1), NodeId(3)],
        copies: 2,
        floor: 1,
        on_total_loss: OnTotalLoss::Best,
        fence: Default::default(),
    };
    let chassis = vec![ChassisConfig { name: "mxp1".into(), manager: Some("10.9.11.254:7501".parse().expect("an address")) }];
    DomainConfig { domain: "lab".into(), profile: Profile::Lan, nodes: vec![seat(1)], chassis, services: vec![service], ..DomainConfig::default() }
}

/// The same, and its service waits for a fence.
fn fencing() -> DomainConfig {
    let mut config = DomainConfig { fence: Some(FenceConfig { command: vec!["/usr/bin/off".into()], timeout: Duration::from_secs(10) }), ..config() };
    config.services[0].fence = Fencing::Required;
    config
}

fn entries() -> Vec<Entry> {
    let (group, version) = ("calls".into(), Version(7));
    let release = Release { voter: member(1), target: member(2), since: LogIndex(900) };
    vec![
        Entry::Joined { node: NodeId(1), nonce: 0x1122_3344, replaces: Incarnation(4) },
        Entry::Confirm { node: member(1), since: LogIndex(900) },
        Entry::Configure { expected: Version(1), config: config() },
        Entry::Bundle { expected: Version(2), bundle: Bundle { files: [("fan.rhai".into(), "fn on_state(fan, change) {}".into())].into() } },
        Entry::Start { group, version, to: member(1), offers: BTreeSet::from([member(1), member(3)]), lost: true },
        Entry::Takeover { group: "calls".into(), version, to: member(1), evidence: Evidence::Released(vec![release]) },
        Entry::Takeover { group: "calls".into(), version, to: member(1), evidence: Evidence::Relinquished { by: member(2), epoch: Epoch(300) } },
        Entry::Switchover { group: "calls".into(), version, by: member(1), to: member(3) },
        Entry::Sync { group: "calls".into(), version, by: member(1), in_sync: BTreeSet::from([member(1), member(3)]) },
        Entry::DiskLost { node: NodeId(3), disk: 0xABCD },
        Entry::Invite { token: Fingerprint([7; 32]), seat: seat(4), expires: WallTime(1_700_000_000_000) },
        Entry::Admit { node: NodeId(4), token: Fingerprint([7; 32]), key: Fingerprint([8; 32]), at: WallTime(1_600_000_000_000), disk: 9 },
        Entry::Expel { node: NodeId(4) },
        Entry::Limits { expected: Version(2), limits: Limits::default().with(Limit::Objects, 300) },
        Entry::Fenced { target: member(2), since: LogIndex(900), by: member(1), evidence: "outlet 7 is off".into() },
        Entry::Configure { expected: Version(1), config: fencing() },
        Entry::Feature { level: Level(2) },
    ]
}

fn messages() -> Vec<Message> {
    let (candidate, leader) = (Vote { term: 3, node: NodeId(2), committed: false }, Vote { term: 3, node: NodeId(2), committed: true });
    let last = Some(LogId { term: 2, node: NodeId(1), index: 300 });
    let entry = |index, payload| LogEntry { id: LogId { term: 3, node: NodeId(2), index }, payload };
    let membership = Membership { voters: vec![BTreeSet::from([NodeId(1), NodeId(2)])], nodes: [(NodeId(1), 11), (NodeId(2), 0)].into() };
    let entries = vec![entry(301, Payload::Blank), entry(302, Payload::Command([1, 2, 3].into())), entry(303, Payload::Membership(membership))];
    let part = SnapshotPart { vote: leader, transfer: 5, offset: 2, total: 300, bytes: vec![9, 9] };
    let requests = [
        Request::Vote { vote: candidate, last, transfer: true },
        Request::PreVote { vote: candidate, last },
        Request::Append { vote: leader, previous: last, entries, commit: last },
        Request::Transfer { vote: leader, to: NodeId(3), last },
        Request::SnapshotPart(part),
        Request::Propose { proposal: vec![1, 2] },
        Request::Who,
        Request::Relay { proposal: vec![1, 2] },
    ];
    let replies = [
        Reply::Vote { vote: candidate, granted: true, last },
        Reply::Appended,
        Reply::AppendedUpTo(last),
        Reply::Conflict,
        Reply::HigherVote(leader),
        Reply::TransferAccepted,
        Reply::TransferRefusedVote(leader),
        Reply::TransferRefusedLog(last),
        Reply::SnapshotPart { next: 300 },
        Reply::SnapshotDone { vote: leader },
        Reply::Proposed(Proposed::Void(LogIndex(300), Void::Repeated)),
        Reply::Unable,
    ];
    requests.into_iter().map(Message::Request).chain(replies.into_iter().map(Message::Reply)).collect()
}

fn heartbeat() -> Heartbeat {
    let echo = |node, released| Echo { node: NodeId(node), life: 0xAA, heard: Instant::from_nanos(1_000), granted: Instant::from_nanos(900), released };
    Heartbeat {
        from: member(1),
        life: 0xBB,
        sequence: 7,
        sent: Instant::from_nanos(2_000),
        applied: LogIndex(300),
        is_echo: false,
        hears_nobody: true,
        renounces: false,
        may_be_late: false,
        stalled: Some(2),
        echoes: vec![echo(2, None), echo(3, Some((Incarnation(5), LogIndex(77))))],
    }
}

fn frames() -> Vec<Frame> {
    let versions = Versions { oldest: 1, newest: 1 };
    let hello = Hello { protocol: PROTOCOL, versions, build: "0.1.0".into(), domain: "lab".into(), node: NodeId(3), life: 300, role: NodeRole::Witness };
    let refusals = [
        Refusal::Version { ours: versions, theirs: Versions { oldest: 2, newest: 3 } },
        Refusal::Name { claimed: NodeId(9), domain: "lab".into() },
        Refusal::OldLife { known: 300 },
    ];
    let event = Frame { class: Class::Alarm, kind: Kind::FEED, sequence: 300, payload: Bytes::from_static(b"fan") };
    [event, hello.frame()].into_iter().chain(refusals.iter().map(Refusal::frame)).collect()
}

fn things() -> Things {
    let mut things = Things::default();
    for entry in entries() {
        let cause = Some(EventId { node: NodeId(3), incarnation: Incarnation(5), sequence: 990 });
        let proposal = Proposal { by: NodeId(2), ticket: 44, cause, entry: entry.clone() };
        let (bytes, rest) = (proposal.encode(), Proposal { entry: Entry::Expel { node: NodeId(0) }, ..proposal });
        let of = match &entry {
            Entry::Takeover { evidence: Evidence::Relinquished { .. }, .. } => "proposal relinquished",
            Entry::Configure { config, .. } if config.fence.is_some() => "proposal fencing",
            _ => "proposal",
        };
        things.add(of, entry, bytes, move |bytes| {
            let read = Proposal::decode(bytes).ok()?;
            (Proposal { entry: rest.entry.clone(), ..read.clone() } == rest).then_some(read.entry)
        });
    }
    for message in messages() {
        let envelope = Envelope { domain: 1, from_disk: 2, to_disk: 3, correlation: 300 };
        let bytes = log::encode(envelope, &message);
        let reads = move |bytes: &[u8]| log::decode(NodeId(2), bytes).filter(|(read, _)| *read == envelope).map(|(_, message)| message);
        match message {
            Message::Request(request) => things.add("request", request, bytes, move |b| if let Message::Request(r) = reads(b)? { Some(r) } else { None }),
            Message::Reply(reply) => things.add("reply", reply, bytes, move |b| if let Message::Reply(r) = reads(b)? { Some(r) } else { None }),
        }
    }
    let mut bytes = Vec::new();
    heartbeat().encode(&mut bytes);
    things.add("liveness", heartbeat(), bytes, Heartbeat::decode);
    let last = Heartbeat { renounces: true, stalled: None, ..heartbeat() };
    let mut bytes = Vec::new();
    last.encode(&mut bytes);
    things.add("liveness renouncing", last, bytes, Heartbeat::decode);
    for (number, frame) in frames().into_iter().enumerate() {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        things.add(&format!("frame {number}"), frame, bytes.to_vec(), |bytes| {
            let mut decoder = Decoder::default();
            decoder.push(Bytes::copy_from_slice(bytes));
            decoder.next_frame().ok()?
        });
    }
    let relinquished = Told::Relinquished { group: "calls".into(), epoch: Epoch(300), by: member(1), cause: EventId { node: NodeId(3), incarnation: Incarnation(5), sequence: 990 } };
    let beat = Beat { life: 0xBB, hears_line: true, hears_links: 2, is_suspended: true, active: vec![("bills".into(), Epoch(300))], words: vec![relinquished] };
    let bytes = postcard::to_allocvec(&beat).expect("plain data");
    things.add("serial", beat, bytes, |bytes| postcard::from_bytes(bytes).ok());
    let place = |sequence| Place { incarnation: Incarnation(5), sequence };
    let words = [Word::Begin(place(1)), Word::Event { after: place(1), at: place(300), event: [1, 2, 3].into() }, Word::Gap { from: place(1), to: place(300) }, Word::Settled { number: 2, alarms: vec![] }];
    for word in words {
        let bytes = word.frame().2.to_vec();
        things.add("word", word, bytes, Word::read);
    }
    let cursor = Cursor { events: place(300), readings: place(301) };
    let recorded = Recorded { cursor, settled: 2 };
    things.add("feed", recorded, recorded.encode().to_vec(), Recorded::read);
    let wish = (vec![Pattern::new("/mxp1/**")], Some(Resume { cursor: Some(cursor) }));
    let bytes = subscription(&wish.0, Resume { cursor: Some(cursor) }).to_vec();
    things.add("subscription", wish, bytes, read_subscription);
    things
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
    digits.map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal digits")).collect()
}

#[test]
fn this_build_writes_and_reads_version_1() {
    let things = things();
    let lines: BTreeMap<&str, &str> = VERSION_1.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split_once(" = ")).collect();
    let new: String = things.0.iter().filter(|(name, _)| !lines.contains_key(name.as_str())).map(|(name, (bytes, _))| format!("{name} = {}\n", hex(bytes))).collect();
    assert!(new.is_empty(), "versions/1.txt has no line for what is new:\n{new}");
    for (name, line) in lines {
        let Some((bytes, reads)) = things.0.get(name) else { panic!("version 1 had a {name}, and nothing says that it is still read") };
        assert_eq!(hex(bytes), line, "{name} is written in another way than version 1 writes it");
        assert!(reads(&bytes_of(line)), "{name} of version 1 is not read as what it was");
    }
}
