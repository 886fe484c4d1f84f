//! A domain of copies without network, disks or clocks: queues between them, and a control log that is `Domain` itself.
//!
//! Frames can be lost, doubled and reordered, entries can be late, lost or of unknown outcome, nodes can learn of rows late,
//! crash and come back as new lives. [`Rig::step`] takes one such step, chosen by a number, so that a list of numbers is a
//! schedule; [`oracle`] says after each whether a promise was broken.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use sixnines_core::domain::config::{ChassisConfig, DomainConfig, NodeConfig, OnTotalLoss, Profile, ServiceConfig};
use sixnines_core::domain::{Domain, Entry, Evidence, GroupRow, Release};
use sixnines_core::ids::{Epoch, GroupName, Incarnation, LogIndex, Member, NodeId, Version};
use sixnines_core::roles::Offer;
use sixnines_core::time::Instant;

use crate::{Answer, Bytes, CopyConfig, Follow, GroupCopy, Input, Level, Op, Outcome, Output, Read, RequestId, Role, Ticket, Write};

pub mod oracle;
mod steps;

#[cfg(test)]
mod tests;

pub use oracle::{Broken, Known, Oracle};
pub use steps::{Kind, Step};

/// One data node.
#[derive(Debug)]
pub struct Node {
    /// Its copy; `None` while it is down or has not joined.
    pub copy: Option<GroupCopy>,
    /// The application's memory, as it was told.
    pub mirror: BTreeMap<Bytes, Bytes>,
    /// The roles that its copy had.
    pub roles: Vec<Role>,
    /// What it has applied of the group's row.
    pub row: GroupRow,
    rows: VecDeque<GroupRow>,
    lease: bool,
    quiesced: Option<Version>,
}

#[derive(Clone, Debug)]
struct Packet {
    from: Member,
    to: Member,
    bytes: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub struct Rig {
    /// The control log's state.
    pub domain: Domain,
    /// The data nodes; a witness has a vote besides.
    pub nodes: BTreeMap<NodeId, Node>,
    /// What must hold.
    pub oracle: Oracle,
    config: CopyConfig,
    now: Instant,
    links: BTreeMap<(NodeId, NodeId), VecDeque<Packet>>,
    pub(crate) proposals: VecDeque<Entry>,
    tickets: u64,
    asked: BTreeMap<Ticket, u16>,
    requests: u16,
    offers: BTreeMap<NodeId, Offer>,
}

/// The one group of a [`Rig`].
pub fn group() -> GroupName {
    GroupName::new("calls")
}

const WITNESS: NodeId = NodeId(9);
/// Requests append their number here.
const LOG: &str = "log";

impl Rig {
    /// `nodes` data nodes, the first one active, every wanted copy in sync as soon as frames flow.
    pub fn new(nodes: u16, config: CopyConfig) -> Self {
        let data: Vec<NodeId> = (1..=nodes).map(NodeId).collect();
        let mut rig = Self {
            domain: Domain::default(),
            nodes: data.iter().map(|n| (*n, Node::down())).collect(),
            oracle: Oracle::default(),
            config,
            now: Instant::from_nanos(1),
            links: BTreeMap::new(),
            proposals: VecDeque::new(),
            tickets: 0,
            asked: BTreeMap::new(),
            requests: 0,
            offers: BTreeMap::new(),
        };
        rig.commit(&Entry::Configure { expected: Version(0), config: domain_config(&data) });
        rig.commit(&Entry::Joined { node: WITNESS, nonce: 1, replaces: Incarnation(0) });
        for node in &data {
            rig.commit(&Entry::Joined { node: *node, nonce: 1, replaces: Incarnation(0) });
        }
        let (version, to) = (rig.row().version, rig.member(data[0]));
        rig.commit(&Entry::Start { group: group(), version, to, offers: BTreeSet::new(), lost: false });
        rig.deliver_rows();
        rig.set_lease(data[0], true);
        rig.settle();
        rig
    }

    /// The group's row as committed.
    pub fn row(&self) -> &GroupRow {
        &self.domain.groups[&group()]
    }

    /// The present life of a node.
    pub fn member(&self, node: NodeId) -> Member {
        self.domain.member(node).expect("every node of a rig joined")
    }

    /// The node that the control log names, if it is up and knows.
    pub fn active(&self) -> Option<NodeId> {
        let active = self.row().active?;
        self.actives().into_iter().find(|(n, e)| *n == active.node && *e == self.row().epoch).map(|(n, _)| n)
    }

    /// Everybody who holds himself for active, and under which epoch.
    pub fn actives(&self) -> Vec<(NodeId, Epoch)> {
        let role = |node: &Node| match node.copy.as_ref()?.role() {
            Role::Active { epoch, .. } => Some(epoch),
            Role::Standby { .. } => None,
        };
        self.nodes.iter().filter_map(|(id, node)| Some((*id, role(node)?))).collect()
    }

    /// Writes a new request at `node`; returns its number.
    pub fn write(&mut self, node: NodeId) -> u16 {
        self.requests += 1;
        self.write_request(node, self.requests, Level::default());
        self.requests
    }

    /// Writes request `number` at `node`, as a client does that repeats it.
    pub fn write_request(&mut self, node: NodeId, number: u16, level: Level) {
        let log = Op::Append { key: LOG.into(), bytes: Bytes::new(number.to_be_bytes()) };
        let own = Op::Put { key: format!("key {}", number % 5).into(), bytes: Bytes::new(number.to_be_bytes()) };
        let request = Some(RequestId { client: 7, serial: u64::from(number) });
        let ticket = self.ticket();
        self.asked.insert(ticket, number);
        let Some(epoch) = self.epoch_of(node) else { return };
        self.feed(node, Input::Write(Write { ticket, epoch, request, ops: vec![log, own], level }));
    }

    /// Writes anything at `node`.
    pub fn write_ops(&mut self, node: NodeId, ops: Vec<Op>) {
        let ticket = self.ticket();
        let Some(epoch) = self.epoch_of(node) else { return };
        self.feed(node, Input::Write(Write { ticket, epoch, request: None, ops, level: Level::default() }));
    }

    /// Asks `node` for the requests applied.
    pub fn read(&mut self, node: NodeId) -> Ticket {
        let ticket = self.ticket();
        if let Some(epoch) = self.epoch_of(node) {
            self.oracle.asked(ticket);
            self.feed(node, Input::Read(Read { ticket, epoch, key: LOG.into() }));
        }
        ticket
    }

    /// The requests in a copy's state, in the order applied.
    pub fn applied(&self, node: NodeId) -> Vec<u16> {
        let copy = self.nodes[&node].copy.as_ref();
        copy.and_then(|c| c.state().section(LOG.as_bytes())).map(|s| numbers(&s.bytes)).unwrap_or_default()
    }

    /// Delivers everything that is under way, in order, until nothing is.
    pub fn settle(&mut self) {
        const ROUNDS_MAX: usize = 10_000;
        for _ in 0..ROUNDS_MAX {
            let rows = self.nodes.values().any(|n| !n.rows.is_empty());
            let frames = self.links.values().any(|l| !l.is_empty());
            if !rows && !frames && self.proposals.is_empty() {
                return;
            }
            self.commit_all();
            self.deliver_rows();
            self.deliver_frames();
        }
        panic!("frames never stop");
    }

    /// Commits what has been proposed, in order; nobody has heard of it yet.
    pub fn commit_all(&mut self) {
        while let Some(entry) = self.proposals.pop_front() {
            self.commit(&entry);
        }
    }

    /// Everything under way between two nodes arrives.
    pub fn deliver_between(&mut self, one: NodeId, other: NodeId) {
        self.deliver_link((one, other));
        self.deliver_link((other, one));
    }

    /// Everything under way is lost.
    pub fn drop_frames(&mut self) {
        self.links.clear();
    }

    /// Delivers every frame that is under way now.
    pub fn deliver_frames(&mut self) {
        let links: Vec<_> = self.links.keys().copied().collect();
        for link in links {
            self.deliver_link(link);
        }
    }

    fn deliver_link(&mut self, link: (NodeId, NodeId)) {
        let count = self.links.get(&link).map_or(0, VecDeque::len);
        for _ in 0..count {
            self.deliver_frame(link, 0);
        }
    }

    fn deliver_frame(&mut self, link: (NodeId, NodeId), index: usize) {
        if let Some(packet) = self.links.get_mut(&link).and_then(|l| l.remove(index)) {
            self.receive(&packet);
        }
    }

    fn receive(&mut self, packet: &Packet) {
        // A connection belongs to a life of its receiver, so frames for an older one find nobody.
        let reaches = self.nodes[&packet.to.node].copy.as_ref().is_some_and(|c| c.member() == packet.to);
        if reaches {
            self.feed(packet.to.node, Input::Frame { from: packet.from.node, bytes: &packet.bytes });
        }
    }

    /// Tells every node what has been committed.
    pub fn deliver_rows(&mut self) {
        let nodes: Vec<_> = self.nodes.keys().copied().collect();
        for node in nodes {
            self.deliver_rows_to(node);
        }
    }

    /// Tells one node what has been committed.
    pub fn deliver_rows_to(&mut self, node: NodeId) {
        while self.deliver_row(node) {}
    }

    fn deliver_row(&mut self, id: NodeId) -> bool {
        let Some(node) = self.nodes.get_mut(&id) else { return false };
        let Some(row) = node.rows.pop_front() else { return false };
        node.row = row.clone();
        node.quiesced = node.quiesced.filter(|v| row.version <= *v);
        self.feed(id, Input::Row(&row));
        true
    }

    /// Moves time on; deadlines that pass are told.
    pub fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        let nodes: Vec<_> = self.nodes.keys().copied().collect();
        for node in nodes {
            self.feed(node, Input::Timeout);
        }
    }

    /// Applies an entry, as the control log does when a majority has it.
    pub fn commit(&mut self, entry: &Entry) {
        self.before_commit(entry);
        let index = LogIndex(self.domain.applied.0 + 1);
        let version = self.domain.groups.get(&group()).map(|r| r.version);
        let applied = self.domain.apply(index, entry).is_ok();
        if let (Entry::Joined { node, .. }, true) = (entry, applied) {
            self.begin_life(*node);
        }
        let row = self.domain.groups.get(&group()).cloned().unwrap_or_default();
        if Some(row.version) != version {
            for node in self.nodes.values_mut().filter(|n| n.copy.is_some()) {
                node.rows.push_back(row.clone());
            }
        }
        if applied {
            self.check_commit(entry);
        }
    }

    /// A takeover is committed only when the old active's lease is over; the rest of layer two does not matter here.
    fn before_commit(&mut self, entry: &Entry) {
        if let Entry::Takeover { .. } | Entry::Switchover { .. } = entry
            && let Some(active) = self.row().active
        {
            self.set_lease(active.node, false);
        }
    }

    fn check_commit(&mut self, entry: &Entry) {
        let up = |m: &Member| self.nodes[&m.node].copy.as_ref().is_some_and(|c| c.member() == *m);
        match entry {
            Entry::Switchover { by, to, .. } if by != to => {
                let (before, after) = (self.applied(by.node), self.applied(to.node));
                if up(by) && up(to) {
                    self.oracle.handed_over(&before, &after);
                }
            }
            // Named after it died, it speaks never, and another start follows.
            Entry::Start { to, .. } if self.row().epoch > Epoch(1) && up(to) => {
                let alive = self.nodes.values().filter_map(|n| n.copy.as_ref().map(GroupCopy::member)).collect();
                let left = self.applied(to.node);
                self.oracle.started_from(&left, &alive);
            }
            _ => {}
        }
    }

    fn begin_life(&mut self, id: NodeId) {
        let member = self.member(id);
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let mut copy = GroupCopy::new(member, self.config.clone());
        copy.handle(self.now, Input::Attach).expect("not a frame");
        *node = Node { copy: Some(copy), ..Node::down() };
        self.offers.remove(&id);
        if let Some(row) = self.domain.groups.get(&group()) {
            let row = row.clone();
            self.nodes.get_mut(&id).expect("looked up above").rows.push_back(row);
        }
    }

    /// The node's memory is gone.
    pub fn crash(&mut self, id: NodeId) {
        *self.nodes.get_mut(&id).expect("a node of this rig") = Node::down();
        self.offers.remove(&id);
    }

    /// A member asks for the role, the voters having released the old active.
    pub fn propose_takeover(&mut self, to: NodeId) {
        let row = &self.nodes[&to].row;
        let Some(active) = row.active else { return };
        let me = self.member(to);
        if active == me || !row.in_sync.contains(&me) || self.nodes[&to].copy.is_none() {
            return;
        }
        let version = row.version;
        let since = self.domain.nodes[&active.node].since;
        let voters = self.domain.config.voters().filter(|v| *v != active.node);
        let releases = voters.map(|v| Release { voter: self.member(v), target: active, since }).collect();
        self.proposals.push_back(Entry::Takeover { group: group(), version, to: me, evidence: Evidence::Released(releases) });
        self.set_lease(active.node, false);
    }

    /// Every complete copy is gone: the best of what is left, if every node has made an offer.
    pub fn propose_start(&mut self) {
        let ids: Vec<_> = self.nodes.keys().copied().collect();
        for id in ids {
            let Some(node) = self.nodes.get_mut(&id) else { return };
            let Some(offer) = node.copy.as_mut().and_then(|copy| copy.offer(node.row.version)) else { return };
            self.offers.insert(id, offer);
        }
        let Some(best) = self.offers.values().max() else { return };
        let offers = self.offers.values().map(|o| o.member).collect();
        let version = self.row().version;
        self.proposals.push_back(Entry::Start { group: group(), version, to: best.member, offers, lost: false });
    }

    /// Whether a node's lease is valid. Only an active that has heard of everything about it gets one.
    pub fn set_lease(&mut self, id: NodeId, valid: bool) {
        let deposing = |e: &Entry| matches!(e, Entry::Takeover { .. } | Entry::Switchover { .. });
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if valid && (!node.rows.is_empty() || self.proposals.iter().any(deposing)) || node.lease == valid {
            return;
        }
        node.lease = valid;
        self.feed(id, Input::Lease(valid));
    }

    /// One life holds another for reachable, or not.
    pub fn set_reachable(&mut self, at: NodeId, other: NodeId, reachable: bool) {
        let other = self.member(other);
        self.feed(at, if reachable { Input::Reachable(other) } else { Input::Unreachable(other) });
    }

    /// The active at `from` is to hand over to `to`.
    pub fn quiesce(&mut self, from: NodeId, to: NodeId) {
        let to = self.member(to);
        self.feed(from, Input::Quiesce(to));
    }

    /// Feeds one input and carries out what follows.
    pub fn feed(&mut self, id: NodeId, input: Input<'_>) {
        let now = self.now;
        let is_timeout = matches!(input, Input::Timeout);
        let Some(copy) = self.nodes.get_mut(&id).and_then(|n| n.copy.as_mut()) else { return };
        if let Err(fault) = copy.handle(now, input) {
            self.oracle.faults.push(fault.to_string());
        }
        while let Some(output) = self.nodes.get_mut(&id).and_then(|n| n.copy.as_mut()).and_then(GroupCopy::poll_output) {
            self.carry_out(id, output);
        }
        let due = self.nodes[&id].copy.as_ref().and_then(GroupCopy::poll_timeout);
        assert!(!is_timeout || due.is_none_or(|at| at > now), "a deadline that has passed would be waited for again and again");
        self.check();
    }

    fn carry_out(&mut self, id: NodeId, output: Output) {
        let member = self.nodes[&id].copy.as_ref().map(GroupCopy::member).expect("it gave an output");
        let version = self.nodes[&id].row.version;
        match output {
            Output::Send { to, bytes } => {
                const QUEUE_MAX: usize = 256;
                let link = self.links.entry((id, to.node)).or_default();
                if link.len() < QUEUE_MAX {
                    link.push_back(Packet { from: member, to, bytes });
                }
            }
            Output::Acknowledged { ticket, outcome } => {
                if let (Some(number), Outcome::Applied { .. }) = (self.asked.get(&ticket).copied(), outcome) {
                    self.know(&[number], Known::Acknowledged, id);
                }
                self.oracle.outcomes.insert(ticket, outcome);
            }
            Output::Answered { ticket, answer } => {
                if let Answer::Section { section, fresh } = answer {
                    let seen = section.map(|s| numbers(&s.bytes)).unwrap_or_default();
                    self.oracle.answered(ticket, &seen, fresh);
                    self.know(&seen, Known::Read, id);
                }
            }
            Output::Propose { version, in_sync } => {
                self.propose(Entry::Sync { group: group(), version, by: member, in_sync });
            }
            Output::Quiesced { target, .. } => {
                self.nodes.get_mut(&id).expect("it gave an output").quiesced = Some(version);
                self.propose(Entry::Switchover { group: group(), version, by: member, to: target });
                self.set_lease(id, false);
            }
            Output::Follow(follow) => self.follow(id, follow),
            // A new active's request for release counted as its first heartbeat (protocol 3.7).
            Output::Role(role) => {
                self.nodes.get_mut(&id).expect("it gave an output").roles.push(role);
                if matches!(role, Role::Active { .. }) {
                    self.set_lease(id, true);
                }
            }
            Output::QuiesceFailed { .. } | Output::LossWindow(_) => {}
        }
    }

    fn propose(&mut self, entry: Entry) {
        const PROPOSALS_MAX: usize = 16;
        if self.proposals.len() < PROPOSALS_MAX {
            self.proposals.push_back(entry);
        }
    }

    fn follow(&mut self, id: NodeId, follow: Follow) {
        let node = self.nodes.get_mut(&id).expect("it gave an output");
        let standby = node.copy.as_ref().is_some_and(|c| matches!(c.role(), Role::Standby { .. }));
        match follow {
            Follow::Image { sections, .. } => node.mirror = sections.into_iter().map(|(k, s)| (k, s.bytes)).collect(),
            Follow::Record(record) => oracle::mirror(&mut node.mirror, &record),
        }
        if standby {
            let seen = node.mirror.get(LOG.as_bytes()).map(|b| numbers(b)).unwrap_or_default();
            let told_by = self.active().unwrap_or(id);
            self.know(&seen, Known::Followed, told_by);
        }
    }

    /// The set that `by` counted holds these requests; those of it that do are the ones that a start from nothing must heed.
    fn know(&mut self, requests: &[u16], known: Known, by: NodeId) {
        let set = self.nodes[&by].row.in_sync.clone();
        let lives = self.nodes.iter().filter_map(|(id, n)| Some((*id, n.copy.as_ref()?.member())));
        let holdings: Vec<_> = lives.filter(|(_, member)| set.contains(member)).map(|(id, member)| (member, self.applied(id))).collect();
        for request in requests {
            let holders = holdings.iter().filter(|(_, applied)| applied.contains(request)).map(|(m, _)| *m);
            self.oracle.know(*request, known, holders);
        }
    }

    fn check(&mut self) {
        if let Some(active) = self.active() {
            let applied = self.applied(active);
            self.oracle.check_active(active, &applied);
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    fn epoch_of(&self, node: NodeId) -> Option<Epoch> {
        self.actives().into_iter().find(|(n, _)| *n == node).map(|(_, e)| e)
    }
}

impl Node {
    fn down() -> Self {
        Self { copy: None, mirror: BTreeMap::new(), roles: Vec::new(), row: GroupRow::default(), rows: VecDeque::new(), lease: false, quiesced: None }
    }
}

fn numbers(bytes: &[u8]) -> Vec<u16> {
    bytes.chunks_exact(2).map(|b| u16::from_be_bytes([b[0], b[1]])).collect()
}

pub(crate) fn domain_config(data: &[NodeId]) -> DomainConfig {
    let node = |id: NodeId, witness| NodeConfig {
        id,
        chassis: "mxp1".into(),
        links: vec![std::net::SocketAddr::from(([127, 0, 0, 1], 7000 + id.0))],
        voter: true,
        witness,
    };
    DomainConfig {
        domain: "rig".into(),
        profile: Profile::Fabric,
        nodes: data.iter().map(|n| node(*n, false)).chain([node(WITNESS, true)]).collect(),
        chassis: vec![ChassisConfig { name: "mxp1".into(), manager: None }],
        services: vec![ServiceConfig {
            name: group(),
            command: vec!["server".into()],
            addresses: Vec::new(),
            device: None,
            nodes: Vec::new(),
            copies: 2,
            floor: 1,
            on_total_loss: OnTotalLoss::default(),
            fence: Default::default(),
        }],
        ..DomainConfig::default()
    }
}
