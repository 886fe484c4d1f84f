//! A whole domain in virtual time, from one seed: nodes, their wires, clocks, crashes and pauses, and the clients outside.
//!
//! The world knows nothing of what a node is made of: [`SimNode`] is implemented where the product is put together, with the
//! product's own machines. It moves bytes and time, breaks things as the seed says, and shows [`Observation`]s to the invariants. The
//! same seed gives the same trace, byte for byte: nothing here reads a clock, and every draw comes from a named stream.

pub mod campaign;
pub mod chaos;
pub mod faults;
pub mod invariants;
pub mod seeds;
mod shelves;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use sixnines_core::ids::{ChassisName, Epoch, EventId, GroupName, LinkId, NodeId};
use sixnines_core::time::{Duration, Instant, nanos};
use sixnines_core::value::{Outcome, Request, Update, Value};

use invariants::Judge;
use seeds::Stream;
use shelves::Shelves;

/// Nanoseconds of the world's own time, which no node can read.
pub type Truth = u64;

/// One millisecond of truth.
pub const MS: Truth = 1_000_000;

/// A node made of the product's machines.
pub trait SimNode {
    /// Takes one input at the node's own `now`; what it wants done comes back in order.
    fn step(&mut self, now: Instant, input: SimInput<'_>) -> Vec<SimOutput>;
    /// When it wants to be woken, on its own clock.
    fn next_wake(&self, now: Instant) -> Instant;
    /// Whether its journal replays to what it is now.
    ///
    /// # Errors
    /// Where the replay went another way.
    fn prove_journal(&self) -> Result<(), String> {
        Ok(())
    }
}

/// What can happen to a node.
#[derive(Debug)]
pub enum SimInput<'a> {
    /// Bytes from a peer.
    Frame {
        /// Who sent them.
        from: NodeId,
        /// On which link (datagrams).
        link: LinkId,
        /// Which of the node's doors.
        door: Door,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// A client's call through the group's address.
    Call {
        /// The service.
        group: GroupName,
        /// What it asks.
        call: Call,
    },
    /// The local application of a group dies.
    KillUnit(GroupName),
    /// An operator asks for a switchover.
    Switchover(GroupName),
    /// An operator says that a node is the same node with another disk.
    Readmit(NodeId),
    /// What the sensors of a chassis show, to the node that drives it.
    Readings(&'a [Update]),
    /// What became of a request to a chassis.
    Outcome {
        /// The request.
        request: EventId,
        /// What became of it.
        outcome: Outcome,
    },
    /// The instant asked for has come.
    Wake,
}

/// What a node does.
#[derive(Debug)]
pub enum SimOutput {
    /// Bytes for a peer. `link` is `None` where the mesh chooses.
    Send {
        /// To whom.
        to: NodeId,
        /// On which link (datagrams).
        link: Option<LinkId>,
        /// Which of the peer's doors.
        door: Door,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// An answer to a client; leaves the node only if its gate is open at that instant.
    Answer {
        /// The service.
        group: GroupName,
        /// The epoch that the server speaks under.
        epoch: Epoch,
        /// What it says.
        answer: Answer,
    },
    /// The kernel's gate for the group's address is armed until then, on the node's clock; zero: closed.
    Gate {
        /// The service.
        group: GroupName,
        /// Until when.
        until: Instant,
    },
    /// From now on the node drives a chassis, or not: it gets its readings.
    Drive {
        /// The ownership of which chassis.
        group: GroupName,
        /// Whether it does.
        drives: bool,
    },
    /// An order for a chassis; answered by [`SimInput::Outcome`].
    Act(Request),
    /// Something that invariants judge.
    Observe(Observation),
    /// A line for the trace.
    Note(String),
    /// The node stops by itself (a storage failure, an unreadable log).
    Halt(String),
}

/// Where bytes go in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Door {
    /// Datagrams of the liveness thread.
    Liveness,
    /// The mesh: in order per pair, but lost when either end restarts.
    Mesh,
}

/// What a client asks: setting a key, once, however often it repeats the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The client's number for the request; a repeat bears the same one.
    pub request: u64,
    /// `Some`: set the key to it. `None`: read it.
    pub value: Option<u64>,
    /// Which key.
    pub key: u64,
}

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The request's number.
    pub request: u64,
    /// Whether it set the key.
    pub is_write: bool,
    /// Which key.
    pub key: u64,
    /// The key's value now.
    pub value: Option<u64>,
}

/// What an invariant can see of a node, without its insides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// The node holds itself for active, or no longer.
    Role {
        /// The group.
        group: GroupName,
        /// Under which epoch.
        epoch: Epoch,
        /// Whether it is active.
        is_active: bool,
    },
    /// The control log started a group anew because every complete copy was gone: what was acknowledged is declared lost.
    Lost {
        /// The group.
        group: GroupName,
        /// The epoch that begins.
        epoch: Epoch,
    },
    /// An action left the node.
    Acted {
        /// On what.
        object: String,
        /// Under which epoch.
        epoch: Epoch,
        /// Why.
        cause: EventId,
    },
    /// An event was numbered.
    Event {
        /// Its id.
        id: EventId,
        /// What led to it.
        cause: Option<EventId>,
    },
}

/// Makes nodes, and keeps their disks, which outlive them.
pub trait Workshop {
    /// Makes a node: its id, how often it was started before, a seed of its own, its clock at birth.
    ///
    /// # Errors
    /// Why its process ends before it does anything; it is tried again later, as a supervisor does.
    fn make(&mut self, node: NodeId, restarts: u32, seed: u64, now: Instant) -> Result<Box<dyn SimNode>, String>;
    /// Something happens to a node's disk.
    fn disk(&mut self, node: NodeId, what: DiskChange) {
        let _ = (node, what); // nodes without a disk
    }
}

impl<F: FnMut(NodeId, Instant) -> Box<dyn SimNode>> Workshop for F {
    fn make(&mut self, node: NodeId, _: u32, _: u64, now: Instant) -> Result<Box<dyn SimNode>, String> {
        Ok(self(node, now))
    }
}

/// What can happen to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskChange {
    /// Each sync takes so long.
    Slow(Duration),
    /// Nothing more fits.
    Full,
    /// The next sync fails.
    FailsOnce,
    /// An empty one is put in.
    Replaced,
    /// It is as fast and as empty as it should be; what is on it stays.
    Mended,
}

/// What a [`World`] is made for.
pub struct Setup {
    /// Everything random follows from it.
    pub seed: u64,
    /// The nodes.
    pub nodes: Vec<NodeId>,
    /// How many links join each two of them.
    pub links: u8,
    /// The services that clients call.
    pub services: Vec<GroupName>,
    /// Clients per service.
    pub clients: u64,
    /// The shelves; they outlive the nodes, as hardware does.
    pub chassis: Vec<ChassisName>,
    /// Whether the shelves refuse orders of older epochs, as they should.
    pub chassis_check_epochs: bool,
    /// Makes the nodes.
    pub workshop: Box<dyn Workshop>,
}

struct Host {
    node: Option<Box<dyn SimNode>>,
    starts: u32,
    started_at: Truth,
    /// Clock: nanoseconds per 1000 ns of truth, and its reading at truth 0.
    rate: u64,
    offset: u64,
    paused_until: Truth,
    gates: BTreeMap<GroupName, Instant>,
    /// What arrived while it was paused.
    backlog: Vec<Parcel>,
    woken_at: Truth,
}

impl Host {
    fn clock(&self, truth: Truth) -> Instant {
        Instant::from_nanos(self.offset + truth / 1000 * self.rate + truth % 1000)
    }

    /// The first truth at which its clock shows `at`.
    fn truth(&self, at: Instant, now: Truth) -> Truth {
        let shown = self.clock(now);
        if at <= shown {
            return now;
        }
        now + nanos(at.since(shown)) * 1000 / self.rate + 1
    }
}

#[derive(Clone, Debug)]
struct Parcel {
    from: NodeId,
    to: NodeId,
    link: LinkId,
    door: Door,
    bytes: Vec<u8>,
    /// The lives of both ends when it was sent: the mesh does not carry over a restart.
    lives: (u32, u32),
}

#[derive(Debug)]
enum Happening {
    Deliver(Parcel),
    Wake(NodeId),
    Restart(NodeId),
    CallAgain { client: usize, turn: u64 },
    Shelves,
    Light(ChassisName),
    Order { node: NodeId, start: u32, request: Request },
    Outcome { node: NodeId, start: u32, request: EventId, outcome: Outcome },
}

struct Entry {
    at: Truth,
    order: u64,
    what: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.order).cmp(&(self.at, self.order)) // the earliest first
    }
}

/// A client: one request at a time, repeated until it is answered.
struct Client {
    group: GroupName,
    next_request: u64,
    open: Option<Call>,
    random: Stream,
    /// Only the newest of its plans counts: an answer overtakes the repeat that was planned before.
    turn: u64,
}

/// The wires' present manners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manners {
    /// Datagrams lost, in parts per thousand.
    pub loss: u64,
    /// Datagrams doubled, in parts per thousand.
    pub doubled: u64,
    /// The longest delay of a frame beyond the shortest.
    pub delay_max: Truth,
}

impl Default for Manners {
    fn default() -> Self {
        Self { loss: 0, doubled: 0, delay_max: MS / 10 }
    }
}

/// A domain and everything around it.
pub struct World {
    now: Truth,
    order: u64,
    queue: BinaryHeap<Entry>,
    hosts: BTreeMap<NodeId, Host>,
    workshop: Box<dyn Workshop>,
    links: u8,
    seed: u64,
    wire: Stream,
    /// How the wires behave.
    pub manners: Manners,
    /// (from, to, link) on which nothing passes.
    cuts: Vec<(NodeId, NodeId, LinkId)>,
    /// When the last mesh frame of a pair arrives: it keeps order.
    mesh_until: BTreeMap<(NodeId, NodeId), Truth>,
    held: Vec<Parcel>,
    /// Those whose disk was replaced, and nobody has said so yet.
    strangers: BTreeSet<NodeId>,
    clients: Vec<Client>,
    shelves: Shelves,
    judge: Judge,
    trace: Trace,
}

/// What happened, as text, and a running checksum of all of it.
#[derive(Debug, Default)]
pub struct Trace {
    /// The newest lines; the oldest are dropped beyond a bound.
    pub lines: std::collections::VecDeque<String>,
    /// Over every line ever written.
    pub checksum: u64,
}

impl Trace {
    /// Into the checksum alone: what happens every millisecond would push the story out.
    fn count(&mut self, line: &str) {
        // FNV-1a: two runs are compared by it, nothing else.
        for byte in line.bytes() {
            self.checksum = (self.checksum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    fn write(&mut self, line: String) {
        self.count(&line);
        self.lines.push_back(line);
        if self.lines.len() > LINES_MAX {
            self.lines.pop_front();
        }
    }
}

/// The story of a failing seed is told from its last lines.
const LINES_MAX: usize = 4000;
/// More happenings than this within one millisecond are two machines that keep each other busy for ever.
const CROWD_MAX: u64 = 20_000;
/// The shortest way of a frame.
const DELAY_MIN: Truth = MS / 50;
/// A client repeats an unanswered request after so long.
const CALL_AGAIN: Truth = 5 * MS;

impl World {
    /// Starts every node at once.
    pub fn new(setup: Setup) -> Self {
        let mut clocks = Stream::new(setup.seed, "clocks");
        let hosts = setup.nodes.iter().map(|node| {
            let host = Host {
                node: None,
                starts: 0,
                started_at: 0,
                rate: 995 + clocks.below(11), // within d = 1 % of each other
                offset: 1_000_000 * MS + clocks.below(1_000_000_000) * 1000,
                paused_until: 0,
                gates: BTreeMap::new(),
                backlog: Vec::new(),
                woken_at: Truth::MAX,
            };
            (*node, host)
        });
        let mut clients = Vec::new();
        for group in &setup.services {
            for number in 1..=setup.clients {
                let random = Stream::new(setup.seed, &format!("client {group} {number}"));
                clients.push(Client { group: group.clone(), next_request: number << 32, open: None, random, turn: 0 });
            }
        }
        let mut world = Self {
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            hosts: hosts.collect(),
            workshop: setup.workshop,
            links: setup.links,
            seed: setup.seed,
            wire: Stream::new(setup.seed, "wire"),
            manners: Manners::default(),
            cuts: Vec::new(),
            mesh_until: BTreeMap::new(),
            held: Vec::new(),
            strangers: BTreeSet::new(),
            clients,
            shelves: Shelves::new(&setup.chassis, setup.chassis_check_epochs),
            judge: Judge::default(),
            trace: Trace::default(),
        };
        for node in setup.nodes {
            world.start(node);
        }
        world.schedule(SHELVES_EVERY, Happening::Shelves);
        for client in 0..world.clients.len() {
            world.plan_call(client, MS * (1 + client as u64));
        }
        world
    }

    /// The world's time.
    pub fn now(&self) -> Truth {
        self.now
    }

    /// What happened.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// What the invariants have seen.
    pub fn judge(&self) -> &Judge {
        &self.judge
    }

    /// The nodes.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.hosts.keys().copied().collect()
    }

    /// Runs for `span` of truth.
    ///
    /// # Errors
    /// The first broken invariant, in words.
    pub fn run(&mut self, span: Truth) -> Result<(), String> {
        let end = self.now + span;
        let mut crowd = 0;
        while self.queue.peek().is_some_and(|e| e.at <= end) {
            let Some(Entry { at, what, .. }) = self.queue.pop() else { break };
            crowd = if at / MS == self.now / MS { crowd + 1 } else { 0 };
            if crowd > CROWD_MAX {
                return Err(format!("at {} ms more than {CROWD_MAX} things happen within one millisecond: {what:?}", self.now / MS));
            }
            self.now = self.now.max(at);
            self.happen(what);
            if let Some(broken) = self.judge.broken() {
                return Err(broken.to_owned());
            }
        }
        self.now = end;
        Ok(())
    }

    /// Runs until `is_so`, for at most `span`.
    ///
    /// # Errors
    /// A broken invariant, or that it never was so.
    pub fn run_until(&mut self, span: Truth, what: &str, mut is_so: impl FnMut(&Self) -> bool) -> Result<(), String> {
        let end = self.now + span;
        while !is_so(self) {
            if self.now >= end {
                return Err(format!("within {} ms never: {what}", span / MS));
            }
            self.run(MS)?;
        }
        Ok(())
    }

    /// The process and everything in its memory is gone; the disk stays as the maker keeps it.
    pub fn crash(&mut self, node: NodeId) {
        self.note(format!("{node} crashes"));
        let now = self.now;
        let host = self.hosts.get_mut(&node).expect("it exists");
        host.node = None;
        host.backlog.clear();
        host.paused_until = 0;
        for until in host.gates.values_mut() {
            *until = Instant::ZERO; // its kernel may live on, but the processes that could speak are gone
        }
        self.judge.node_stopped(now, node);
        self.shelves.node_stopped(node);
        self.held.retain(|p| p.from != node && p.to != node);
    }

    /// For how long every process has been up; 0 if one is down.
    pub fn whole_for(&self) -> Truth {
        let newest = self.hosts.values().map(|h| if h.node.is_some() { h.started_at } else { self.now }).max();
        self.now - newest.unwrap_or(self.now)
    }

    /// The process starts again after `wait`.
    pub fn restart_after(&mut self, node: NodeId, wait: Truth) {
        self.schedule(self.now + wait, Happening::Restart(node));
    }

    /// Every process of the node stands still for `span`; its kernel, with the gate, does not.
    pub fn pause(&mut self, node: NodeId, span: Truth) {
        self.note(format!("{node} stands still for {} ms", span / MS));
        let until = self.now + span;
        if let Some(host) = self.hosts.get_mut(&node) {
            host.paused_until = host.paused_until.max(until);
        }
        self.schedule(until, Happening::Wake(node));
    }

    /// Nothing passes from `from` to `to` on `link`.
    pub fn cut(&mut self, from: NodeId, to: NodeId, link: LinkId) {
        self.note(format!("cut {from} > {to} on link {link}"));
        self.cuts.push((from, to, link));
    }

    /// Both ways, every link, to everybody.
    pub fn isolate(&mut self, node: NodeId) {
        for other in self.nodes().into_iter().filter(|n| *n != node) {
            for link in (0..self.links).map(LinkId) {
                self.cut(node, other, link);
                self.cut(other, node, link);
            }
        }
    }

    /// All wires whole again.
    pub fn heal(&mut self) {
        self.note("the wires are whole".into());
        self.cuts.clear();
        self.manners = Manners::default();
        for parcel in std::mem::take(&mut self.held) {
            self.carry(parcel);
        }
    }

    /// Something happens to a node's disk.
    pub fn disk(&mut self, node: NodeId, what: DiskChange) {
        if what == DiskChange::Replaced {
            self.strangers.insert(node);
        }
        self.workshop.disk(node, what);
    }

    /// An operator tells every node which of the others have another disk.
    pub fn readmit_all(&mut self) {
        for stranger in std::mem::take(&mut self.strangers) {
            for node in self.nodes().into_iter().filter(|n| *n != stranger) {
                self.give(node, SimInput::Readmit(stranger));
            }
        }
    }

    /// Every node runs again.
    pub fn restart_all(&mut self) {
        for node in self.nodes() {
            self.hosts.get_mut(&node).expect("it exists").paused_until = 0;
            if !self.is_up(node) {
                self.start(node);
            } else {
                self.schedule(self.now, Happening::Wake(node));
            }
        }
    }

    /// Every node's journal replays to what the node is.
    ///
    /// # Errors
    /// Whose does not, and where.
    pub fn prove_journals(&self) -> Result<(), String> {
        self.hosts.values().filter_map(|h| h.node.as_ref()).try_for_each(|node| node.prove_journal())
    }

    /// Gives an input from outside to a node.
    pub fn give(&mut self, node: NodeId, input: SimInput<'_>) {
        self.note(format!("{node} is given {input:?}"));
        self.step(node, input);
    }

    /// Whether the node's process runs.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.hosts[&node].node.is_some()
    }

    /// The node that last said that it is active for `group`, with its epoch.
    pub fn active(&self, group: &GroupName) -> Option<(NodeId, Epoch)> {
        self.judge.active(group)
    }

    fn start(&mut self, node: NodeId) {
        let now = self.now;
        let host = self.hosts.get_mut(&node).expect("it exists");
        host.starts += 1;
        host.started_at = now;
        let starts = host.starts;
        let clock = host.clock(now);
        let seed = Stream::new(self.seed, &format!("node {node} start {starts}")).draw();
        self.note(format!("{node} starts for the {starts}. time"));
        match self.workshop.make(node, starts - 1, seed, clock) {
            Ok(made) => {
                self.hosts.get_mut(&node).expect("it exists").node = Some(made);
                self.step(node, SimInput::Wake);
            }
            Err(why) => {
                self.note(format!("{node} does not start: {why}"));
                self.restart_after(node, SUPERVISED);
            }
        }
    }

    fn schedule(&mut self, at: Truth, what: Happening) {
        self.order += 1;
        self.queue.push(Entry { at, order: self.order, what });
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Deliver(parcel) => self.deliver(parcel),
            Happening::Wake(node) => self.wake(node),
            Happening::Restart(node) if !self.is_up(node) => self.start(node),
            Happening::Restart(_) => {}
            Happening::CallAgain { client, turn } if turn == self.clients[client].turn => self.call(client),
            Happening::CallAgain { .. } => {}
            Happening::Shelves => self.look_at_shelves(),
            Happening::Light(chassis) => self.shelves.darken(&chassis, false),
            Happening::Order { node, start, request } => self.obey(node, start, &request),
            Happening::Outcome { node, start, request, outcome } => self.hand_back(node, start, request, outcome),
        }
    }

    /// The shelves go on, and who drives one gets what has changed.
    fn look_at_shelves(&mut self) {
        for (node, updates) in self.shelves.step(self.now) {
            let host = &self.hosts[&node];
            if host.node.is_some() && host.paused_until <= self.now {
                self.shelves.told(node, &updates);
                self.step(node, SimInput::Readings(&updates.list));
            }
        }
        self.schedule(self.now + SHELVES_EVERY, Happening::Shelves);
    }

    /// An order is on its way to a shelf; once in a while it is held up for long, and its sender may be dead by then.
    fn order(&mut self, node: NodeId, request: Request) {
        let held_up = if self.wire.below(4) == 0 { self.wire.below(ORDER_HELD_UP) } else { 0 };
        let at = self.now + DELAY_MIN + self.wire.below(self.manners.delay_max) + held_up;
        let start = self.hosts[&node].starts;
        self.schedule(at, Happening::Order { node, start, request });
    }

    fn obey(&mut self, node: NodeId, start: u32, request: &Request) {
        let outcome = self.shelves.request(self.now, request);
        self.note(format!("{node} orders {} {} {:?} under {}: {outcome:?}", request.object, request.control, request.value, request.epoch));
        if outcome == Outcome::Done {
            let acted = Observation::Acted { object: request.object.to_string(), epoch: request.epoch, cause: request.id };
            self.judge.observe(self.now, node, &acted);
        }
        self.schedule(self.now + MS, Happening::Outcome { node, start, request: request.id, outcome });
    }

    fn hand_back(&mut self, node: NodeId, start: u32, request: EventId, outcome: Outcome) {
        let host = &self.hosts[&node];
        if host.starts != start || host.node.is_none() {
            return;
        }
        if host.paused_until > self.now {
            let at = host.paused_until + 1;
            return self.schedule(at, Happening::Outcome { node, start, request, outcome });
        }
        self.step(node, SimInput::Outcome { request, outcome });
    }

    /// Breaks a fan of a shelf; it stays broken until [`Self::mend`].
    pub fn break_fan(&mut self, chassis: &ChassisName, fan: u32) {
        self.note(format!("fan{fan} of {chassis} fails"));
        self.shelves.break_fan(self.now, chassis, fan);
    }

    /// Ends every fault of a shelf.
    pub fn mend(&mut self, chassis: &ChassisName) {
        self.note(format!("{chassis} is mended"));
        self.shelves.mend(chassis);
    }

    /// A shelf has no power: its manager says nothing and obeys nobody, for `span` or until [`Self::light_up`]. Its nodes are others' business.
    pub fn darken(&mut self, chassis: &ChassisName, span: Option<Truth>) {
        self.note(format!("{chassis} is without power"));
        self.shelves.darken(chassis, true);
        if let Some(span) = span {
            self.schedule(self.now + span, Happening::Light(chassis.clone()));
        }
    }

    /// Every shelf has power.
    pub fn light_up(&mut self) {
        for chassis in self.chassis() {
            self.shelves.darken(&chassis, false);
        }
    }

    /// What a shelf's sensor shows.
    pub fn reading(&self, chassis: &ChassisName, object: &str, attribute: &str) -> Option<Value> {
        self.shelves.reading(chassis, object, attribute)
    }

    /// The shelves.
    pub fn chassis(&self) -> Vec<ChassisName> {
        self.shelves.names()
    }

    fn deliver(&mut self, parcel: Parcel) {
        let lives = (self.hosts[&parcel.from].starts, self.hosts[&parcel.to].starts);
        let host = self.hosts.get_mut(&parcel.to).expect("it exists");
        if host.node.is_none() || (parcel.door == Door::Mesh && lives != parcel.lives) {
            return;
        }
        if host.paused_until > self.now {
            return host.backlog.push(parcel);
        }
        let Parcel { from, to, link, door, bytes, .. } = parcel;
        self.step(to, SimInput::Frame { from, link, door, bytes: &bytes });
    }

    fn wake(&mut self, node: NodeId) {
        let host = self.hosts.get_mut(&node).expect("it exists");
        if host.node.is_none() || host.paused_until > self.now {
            return;
        }
        for parcel in std::mem::take(&mut host.backlog) {
            self.deliver(parcel);
        }
        let host = &self.hosts[&node];
        let clock = host.clock(self.now);
        if host.node.as_ref().is_some_and(|n| n.next_wake(clock) <= clock) {
            self.step(node, SimInput::Wake);
        } else {
            self.plan_wake(node);
        }
    }

    fn step(&mut self, node: NodeId, input: SimInput<'_>) {
        let host = self.hosts.get_mut(&node).expect("it exists");
        let clock = host.clock(self.now);
        let Some(machine) = host.node.as_mut() else { return };
        let outputs = machine.step(clock, input);
        for output in outputs {
            self.carry_out(node, output);
        }
        self.plan_wake(node);
    }

    fn plan_wake(&mut self, node: NodeId) {
        let now = self.now;
        let host = self.hosts.get_mut(&node).expect("it exists");
        let clock = host.clock(now);
        let Some(machine) = host.node.as_ref() else { return };
        let at = host.truth(machine.next_wake(clock), now).max(now + 1000);
        if host.woken_at <= now || at < host.woken_at {
            host.woken_at = at;
            self.schedule(at, Happening::Wake(node));
        }
    }

    fn carry_out(&mut self, node: NodeId, output: SimOutput) {
        match output {
            SimOutput::Send { to, link, door, bytes } => self.send(node, to, link, door, &bytes),
            SimOutput::Answer { group, epoch, answer } => self.answer(node, &group, epoch, &answer),
            SimOutput::Gate { group, until } => self.arm(node, group, until),
            SimOutput::Drive { group, drives } => self.shelves.drive(node, &group, drives),
            SimOutput::Act(request) => self.order(node, request),
            SimOutput::Observe(Observation::Event { id, cause }) => {
                self.trace.count(&format!("{node} event {id} {cause:?}"));
                self.judge.observe(self.now, node, &Observation::Event { id, cause });
            }
            SimOutput::Observe(observation) => {
                self.note(format!("{node} {observation:?}"));
                self.judge.observe(self.now, node, &observation);
            }
            SimOutput::Note(line) => self.note(format!("{node} {line}")),
            SimOutput::Halt(why) => {
                self.note(format!("{node} halts: {why}"));
                self.crash(node);
                self.restart_after(node, SUPERVISED);
            }
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, link: Option<LinkId>, door: Door, bytes: &[u8]) {
        let Some(lives) = self.hosts.get(&to).map(|h| (self.hosts[&from].starts, h.starts)) else { return };
        let links: Vec<LinkId> = match (door, link) {
            (Door::Liveness, None) => (0..self.links).map(LinkId).collect(),
            (_, Some(link)) => vec![link],
            (Door::Mesh, None) => vec![LinkId(0)], // which one, the mesh decides while it carries
        };
        for link in links {
            self.carry(Parcel { from, to, link, door, bytes: bytes.to_vec(), lives });
        }
    }

    fn carry(&mut self, mut parcel: Parcel) {
        let is_cut = |link: LinkId| self.cuts.contains(&(parcel.from, parcel.to, link));
        match parcel.door {
            Door::Liveness => {
                if is_cut(parcel.link) || self.wire.below(1000) < self.manners.loss {
                    return;
                }
                if self.wire.below(1000) < self.manners.doubled {
                    let at = self.now + DELAY_MIN + self.wire.below(self.manners.delay_max * 2);
                    self.schedule(at, Happening::Deliver(parcel.clone()));
                }
                let at = self.now + DELAY_MIN + self.wire.below(self.manners.delay_max);
                self.schedule(at, Happening::Deliver(parcel));
            }
            Door::Mesh => {
                let Some(link) = (0..self.links).map(LinkId).find(|l| !is_cut(*l)) else {
                    return self.held.push(parcel); // it is sent again when a link is back
                };
                parcel.link = link;
                // A lost packet is repeated by the transport: it comes later, and all behind it.
                let repeats = if self.wire.below(1000) < self.manners.loss { MS } else { 0 };
                let at = self.now + DELAY_MIN + repeats + self.wire.below(self.manners.delay_max);
                let last = self.mesh_until.entry((parcel.from, parcel.to)).or_default();
                let at = at.max(*last + 1);
                *last = at;
                self.schedule(at, Happening::Deliver(parcel));
            }
        }
    }

    fn arm(&mut self, node: NodeId, group: GroupName, until: Instant) {
        let now = self.now;
        let host = self.hosts.get_mut(&node).expect("it exists");
        host.gates.insert(group.clone(), until);
        let until = if until == Instant::ZERO { now } else { host.truth(until, now) };
        self.judge.gate(now, node, &group, until);
    }

    fn is_gate_open(&self, node: NodeId, group: &GroupName) -> bool {
        let host = &self.hosts[&node];
        host.node.is_some() && host.gates.get(group).is_some_and(|until| host.clock(self.now) < *until)
    }

    fn answer(&mut self, node: NodeId, group: &GroupName, epoch: Epoch, answer: &Answer) {
        if !self.is_gate_open(node, group) {
            return; // the kernel drops it
        }
        self.trace.count(&format!("{} {node} answers {answer:?} under {epoch}", self.now));
        self.judge.spoke(self.now, node, group, epoch);
        let asked_it = |c: &Client| c.group == *group && c.open.as_ref().is_some_and(|c| c.request == answer.request);
        let Some(client) = self.clients.iter().position(asked_it) else { return };
        self.judge.answered(self.now, group, answer);
        if self.judge.broken().is_some() {
            self.note(format!("{node} answers {answer:?} under {epoch}"));
        }
        self.clients[client].open = None;
        let pause = MS + self.clients[client].random.below(4 * MS);
        self.plan_call(client, self.now + pause);
    }

    fn plan_call(&mut self, client: usize, at: Truth) {
        self.clients[client].turn += 1;
        let turn = self.clients[client].turn;
        self.schedule(at, Happening::CallAgain { client, turn });
    }

    /// A client's call reaches whoever speaks for the address; at the instant of a takeover that may be nobody.
    fn call(&mut self, client: usize) {
        let is_repeat = self.clients[client].open.is_some();
        if !is_repeat {
            self.clients[client].ask();
        }
        let (group, call) = {
            let client = &self.clients[client];
            (client.group.clone(), client.open.clone().expect("just asked"))
        };
        if !is_repeat {
            self.judge.asked(&group, &call);
        }
        for node in self.nodes() {
            if self.is_gate_open(node, &group) && self.hosts[&node].paused_until <= self.now {
                self.step(node, SimInput::Call { group: group.clone(), call: call.clone() });
            }
        }
        if self.clients[client].open.is_some() {
            self.plan_call(client, self.now + CALL_AGAIN);
        }
    }

    fn note(&mut self, line: String) {
        self.trace.write(format!("{:>10}.{:06} {line}", self.now / MS, self.now % MS));
    }
}

impl Client {
    fn ask(&mut self) {
        self.next_request += 1;
        let key = self.random.below(8);
        let value = (self.random.below(4) != 0).then_some(self.next_request);
        self.open = Some(Call { request: self.next_request, value, key });
    }
}

/// The longest that an order is held up on its way.
const ORDER_HELD_UP: Truth = 300 * MS;
/// Between two looks at the shelves, as a shelf manager's own period.
const SHELVES_EVERY: Truth = 100 * MS;

/// A supervisor starts a daemon that has ended by itself after so long.
const SUPERVISED: Truth = 300 * MS;

/// So much of truth as a duration, for people.
pub fn span(truth: Truth) -> Duration {
    Duration::from_nanos(truth)
}
