//! Three control logs in virtual time, with a network that can be cut in one direction.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sixnines_core::domain::config::{Bundle, ChassisConfig, DomainConfig, NodeConfig, Profile};
use sixnines_core::domain::feature::Level;
use sixnines_core::domain::{Change, Domain, Entry, Proposal, Void};
use sixnines_core::ids::{LogIndex, NodeId};
use sixnines_core::time::Instant;
use sixnines_discs::log::sim::{SimDisk, SimLog};
use sixnines_discs::log::{Failure, FirstStart, OpenError, Options, Port, ProposeError, Timing};

pub(crate) const DOMAIN: u64 = 0xD0;

/// Where, what, and what came of it.
pub(crate) type Applied = (LogIndex, Option<Proposal>, Result<Vec<Change>, Void>);

/// What one node's log said, in this life.
#[derive(Default)]
pub(crate) struct Said {
    pub(crate) applied: Vec<Applied>,
    pub(crate) applied_at: BTreeMap<LogIndex, Instant>,
    pub(crate) domain: Domain,
    pub(crate) proposed: BTreeMap<u64, (Instant, Result<LogIndex, ProposeError>)>,
    pub(crate) leader: Option<NodeId>,
    pub(crate) appended: BTreeMap<NodeId, LogIndex>,
    pub(crate) places: BTreeMap<NodeId, sixnines_discs::log::Place>,
    pub(crate) progress: u64,
    pub(crate) progress_gap_max: Duration,
    last_progress: Option<Instant>,
    pub(crate) failed: Option<Failure>,
    sent: Vec<(Instant, NodeId, Vec<u8>)>,
}

pub(crate) struct Recorder {
    born: Instant,
    said: Mutex<Said>,
}

impl Recorder {
    fn now(&self) -> Instant {
        self.born + SimLog::now().unwrap_or_default()
    }
}

impl Port for Recorder {
    fn send(&self, to: NodeId, frame: Vec<u8>) {
        self.said.lock().unwrap().sent.push((self.now(), to, frame));
    }
    fn applied(&self, index: LogIndex, proposal: Option<&Proposal>, outcome: &Result<Vec<Change>, Void>, domain: &Domain) {
        let mut said = self.said.lock().unwrap();
        said.applied.push((index, proposal.cloned(), outcome.clone()));
        said.applied_at.insert(index, self.now());
        said.domain = domain.clone();
    }
    fn proposed(&self, ticket: u64, outcome: Result<LogIndex, ProposeError>) {
        let earlier = self.said.lock().unwrap().proposed.insert(ticket, (self.now(), outcome));
        assert_eq!(earlier, None, "one outcome per ticket");
    }
    fn leader(&self, leader: Option<NodeId>) {
        self.said.lock().unwrap().leader = leader;
    }
    fn appended(&self, about: &[(NodeId, LogIndex)]) {
        self.said.lock().unwrap().appended.extend(about.iter().copied());
    }
    fn places(&self, places: &BTreeMap<NodeId, sixnines_discs::log::Place>) {
        self.said.lock().unwrap().places.clone_from(places);
    }
    fn progress(&self) {
        let now = self.now();
        let mut said = self.said.lock().unwrap();
        said.progress += 1;
        let gap = said.last_progress.replace(now).map_or(Duration::ZERO, |last| now.since(last));
        said.progress_gap_max = said.progress_gap_max.max(gap);
    }
    fn failed(&self, failure: &Failure) {
        let earlier = self.said.lock().unwrap().failed.replace(failure.clone());
        assert_eq!(earlier, None, "one failure");
    }
}

pub(crate) struct Place {
    pub(crate) log: Option<SimLog>,
    /// The newest feature level that it reads, from its next start on.
    pub(crate) reads: Level,
    pub(crate) disk: SimDisk,
    pub(crate) port: Arc<Recorder>,
    starts: u64,
}

pub(crate) struct Cluster {
    pub(crate) now: Instant,
    pub(crate) places: BTreeMap<NodeId, Place>,
    pub(crate) timing: Timing,
    seed: u64,
    frames: BTreeMap<(Instant, u64), (NodeId, NodeId, Vec<u8>)>,
    next_frame: u64,
    /// From whom to whom nothing comes through.
    pub(crate) cuts: BTreeSet<(NodeId, NodeId)>,
    pub(crate) delivered: u64,
    trace: DefaultHasher,
    next_ticket: u64,
}

pub(crate) fn n(id: u16) -> NodeId {
    NodeId(id)
}

pub(crate) fn config(ids: impl IntoIterator<Item = u16>, voters: &[u16]) -> DomainConfig {
    let node = |id: u16| NodeConfig {
        id: n(id),
        chassis: "mxp1".into(),
        links: vec![format!("10.1.0.{id}:7400").parse().unwrap()],
        voter: voters.contains(&id),
        witness: false,
    };
    DomainConfig {
        domain: "lab".into(),
        profile: Profile::Fabric,
        nodes: ids.into_iter().map(node).collect(),
        chassis: vec![ChassisConfig { name: "mxp1".into(), manager: None }],
        services: Vec::new(),
        ..DomainConfig::default()
    }
}

pub(crate) fn first_start() -> FirstStart {
    FirstStart { config: config(1..=3, &[1, 2, 3]), bundle: Bundle::default() }
}

impl Cluster {
    /// Nodes 1 to `nodes`, running on empty disks.
    pub(crate) fn empty(seed: u64, nodes: u16) -> Self {
        Self::with_timing(seed, nodes, Timing::of(Profile::Fabric))
    }

    pub(crate) fn with_timing(seed: u64, nodes: u16, timing: Timing) -> Self {
        let mut cluster = Self {
            now: Instant::from_nanos(1_000_000_000),
            places: BTreeMap::new(),
            timing,
            seed,
            frames: BTreeMap::new(),
            next_frame: 0,
            cuts: BTreeSet::new(),
            delivered: 0,
            trace: DefaultHasher::new(),
            next_ticket: 0,
        };
        for id in 1..=nodes {
            let place = Place { log: None, disk: SimDisk::new(), port: Arc::new(Recorder { born: cluster.now, said: Mutex::default() }), starts: 0, reads: Level::NEWEST };
            place.disk.set_latency(Duration::from_micros(500));
            cluster.places.insert(n(id), place);
            cluster.start(n(id)).unwrap();
        }
        cluster
    }

    /// Three voters that have agreed on their first configuration and on each other's disks.
    pub(crate) fn settled(seed: u64) -> Self {
        Self::settle(Self::empty(seed, 3))
    }

    pub(crate) fn settle(mut cluster: Self) -> Self {
        cluster.initialize();
        cluster.run_until("a first configuration", |c| c.places.values().take(3).all(|p| p.said(|s| s.domain.bundle_version.0 == 1)));
        cluster.run(Duration::from_millis(200));
        cluster
    }

    pub(crate) fn initialize(&self) {
        self.places.keys().for_each(|id| self.log(*id).handle().initialize(first_start()));
    }

    pub(crate) fn start(&mut self, id: NodeId) -> Result<(), OpenError> {
        let place = self.places.get_mut(&id).unwrap();
        place.starts += 1;
        let seed = self.seed ^ (u64::from(id.0) << 32) ^ (place.starts << 48);
        place.port = Arc::new(Recorder { born: self.now, said: Mutex::default() });
        let options = Options { node: id, domain: DOMAIN, nonce: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15), timing: self.timing, apply: Domain::apply, reads: place.reads };
        place.log = Some(SimLog::start(options, place.disk.clone(), place.port.clone(), self.now, seed)?);
        Ok(())
    }

    /// The process is gone, the disk as it was.
    pub(crate) fn kill(&mut self, id: NodeId) {
        self.places.get_mut(&id).unwrap().log = None;
    }

    /// The power is gone.
    pub(crate) fn crash(&mut self, id: NodeId) {
        self.kill(id);
        self.places[&id].disk.crash(self.seed ^ self.now.as_nanos());
    }

    pub(crate) fn log(&self, id: NodeId) -> &SimLog {
        self.places[&id].log.as_ref().expect("running")
    }

    pub(crate) fn said<T>(&self, id: NodeId, look: impl FnOnce(&Said) -> T) -> T {
        self.places[&id].said(look)
    }

    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.step_before(end) {}
        self.now = end;
    }

    #[track_caller]
    pub(crate) fn run_until(&mut self, what: &str, mut reached: impl FnMut(&Self) -> bool) -> Duration {
        let begin = self.now;
        let limit = begin + Duration::from_secs(20);
        while !reached(self) {
            assert!(self.step_before(limit), "not reached in 20 virtual seconds: {what}\n{}", self.describe());
        }
        self.now.since(begin)
    }

    fn describe(&self) -> String {
        let line = |(id, place): (&NodeId, &Place)| match &place.log {
            None => format!("{id} is down\n"),
            Some(log) => format!("{id}: wake {:?}, failed {:?}, {:?}\n", log.next_wake(), place.said(|s| s.failed.clone()), log.handle().metrics()),
        };
        let places: String = self.places.iter().map(line).collect();
        format!("now {}, {} frames delivered\n{places}", self.now, self.delivered)
    }

    /// The next thing that happens, unless it is later than `limit`.
    fn step_before(&mut self, limit: Instant) -> bool {
        let wake = self.places.values().filter_map(|p| p.log.as_ref()?.next_wake()).min();
        let frame = self.frames.first_key_value().map(|((at, _), _)| *at);
        let Some(next) = wake.into_iter().chain(frame).min().filter(|at| *at <= limit) else { return false };
        self.now = self.now.max(next);
        while let Some(entry) = self.frames.first_entry().filter(|e| e.key().0 <= self.now) {
            let (from, to, bytes) = entry.remove();
            if self.cuts.contains(&(from, to)) {
                continue;
            }
            if let Some(log) = self.places.get(&to).and_then(|p| p.log.as_ref()) {
                (self.now, from, to, &bytes).hash(&mut self.trace);
                self.delivered += 1;
                log.frame(from, bytes);
            }
        }
        for id in self.places.keys().copied().collect::<Vec<_>>() {
            self.step_one(id);
        }
        true
    }

    fn step_one(&mut self, id: NodeId) {
        let place = self.places.get_mut(&id).unwrap();
        let Some(log) = &mut place.log else { return };
        log.step_until(self.now);
        for (at, to, frame) in std::mem::take(&mut place.port.said.lock().unwrap().sent) {
            self.next_frame += 1;
            // 100 to 200 microseconds, in no order.
            let delay = 100_000 + (self.seed ^ self.next_frame.wrapping_mul(0x9E37_79B9_7F4A_7C15)) % 100_000;
            self.frames.insert((at + Duration::from_nanos(delay), self.next_frame), (id, to, frame));
        }
    }

    pub(crate) fn cut_off(&mut self, id: NodeId) {
        for other in self.places.keys().filter(|o| **o != id) {
            self.cuts.insert((id, *other));
            self.cuts.insert((*other, id));
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
    }

    /// Whom most of the running nodes take for the leader, if it agrees.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.places.iter().find(|(id, p)| {
            let followers = self.places.values().filter(|q| q.log.is_some() && q.said(|s| s.leader) == Some(**id)).count();
            p.log.as_ref().is_some_and(|l| l.handle().metrics().is_leader) && followers >= 2
        }).map(|(id, _)| *id)
    }

    #[track_caller]
    pub(crate) fn wait_for_leader(&mut self) -> NodeId {
        self.run_until("a leader", |c| c.leader().is_some());
        self.leader().unwrap()
    }

    #[track_caller]
    pub(crate) fn wait_for_leader_other_than(&mut self, old: NodeId) -> NodeId {
        self.run_until("another leader", |c| c.leader().is_some_and(|l| l != old));
        self.leader().unwrap()
    }

    pub(crate) fn follower(&self) -> NodeId {
        let leader = self.leader().expect("a leader");
        *self.places.keys().find(|id| **id != leader).unwrap()
    }

    /// Proposes at `by` that `joined` begins a life; returns the ticket.
    pub(crate) fn propose(&mut self, by: NodeId, joined: NodeId) -> u64 {
        self.next_ticket += 1;
        // The newest that anybody has applied: the proposer may have only just started.
        let seen = self.places.values().filter_map(|p| p.port.said.lock().unwrap().domain.member(joined));
        let replaces = seen.map(|m| m.incarnation).max().unwrap_or_default();
        let entry = Entry::Joined { node: joined, nonce: self.next_ticket, replaces };
        self.log(by).propose(Proposal { by, ticket: self.next_ticket, cause: None, entry });
        self.next_ticket
    }

    /// Proposes anything, and gives its outcome.
    #[track_caller]
    pub(crate) fn ask(&mut self, by: NodeId, entry: Entry) -> Result<LogIndex, ProposeError> {
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        self.log(by).propose(Proposal { by, ticket, cause: None, entry });
        self.outcome(by, ticket)
    }

    /// Whether `by` has heard `node` from another disk than the one that it votes with.
    pub(crate) fn is_stranger(&self, by: NodeId, node: NodeId) -> bool {
        self.said(by, |s| s.places.get(&node).is_some_and(|place| place.is_stranger))
    }

    /// The number of the disk that `node` votes with, as `by` knows it.
    pub(crate) fn disk_of(&self, by: NodeId, node: NodeId) -> u64 {
        self.said(by, |s| s.places[&node].disk)
    }

    /// As an operator does it at the node `by`, once that has heard of another disk.
    #[track_caller]
    pub(crate) fn give_up_disk(&mut self, by: NodeId, node: NodeId) {
        self.run_until("a stranger is heard", |c| c.is_stranger(by, node));
        let disk = self.disk_of(by, node);
        loop {
            match self.ask(by, Entry::DiskLost { node, disk }) {
                Ok(_) | Err(ProposeError::Void { why: Void::Repeated, .. }) => return,
                Err(why) => assert!(!matches!(why, ProposeError::Void { .. }), "{why}"),
            }
        }
    }

    #[track_caller]
    pub(crate) fn outcome(&mut self, by: NodeId, ticket: u64) -> Result<LogIndex, ProposeError> {
        self.run_until("an outcome", |c| c.said(by, |s| s.proposed.contains_key(&ticket)));
        self.said(by, |s| s.proposed[&ticket].1.clone())
    }

    /// Proposes and waits until all running nodes have applied it.
    #[track_caller]
    pub(crate) fn commit(&mut self, by: NodeId, joined: NodeId) -> LogIndex {
        let mut ticket = self.propose(by, joined);
        let index = loop {
            match self.outcome(by, ticket) {
                // The proposer had not applied everything yet when it named the life to replace.
                Err(ProposeError::Void { .. }) => ticket = self.propose(by, joined),
                outcome => break outcome.expect("committed"),
            }
        };
        self.run_until("applied everywhere", |c| c.running().iter().all(|id| c.said(*id, |s| s.domain.applied >= index)));
        index
    }

    pub(crate) fn running(&self) -> Vec<NodeId> {
        self.places.iter().filter(|(_, p)| p.log.is_some()).map(|(id, _)| *id).collect()
    }

    #[track_caller]
    pub(crate) fn assert_same_domain(&self) {
        let mut domains = self.running().into_iter().map(|id| (id, self.said(id, |s| s.domain.clone())));
        let (first, expected) = domains.next().expect("a running node");
        for (id, domain) in domains {
            assert_eq!(domain, expected, "{id} differs from {first}");
        }
    }

    /// A number for everything that was delivered, when, and what the disks hold.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hasher = self.trace.clone();
        for place in self.places.values() {
            for name in ["identity", "log", "snapshot"] {
                place.disk.bytes(name).hash(&mut hasher);
            }
        }
        hasher.finish()
    }
}

impl Place {
    pub(crate) fn said<T>(&self, look: impl FnOnce(&Said) -> T) -> T {
        look(&self.port.said.lock().unwrap())
    }
}
