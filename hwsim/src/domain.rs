//! A whole domain in virtual time, from one seed: nodes, their wires, clocks, crashes and pauses, and the clients outside.
//!
//! The world knows nothing of what a node is made of: [`SimNode`] is implemented where the product is put together, with the
//! product's own machines. It moves bytes and time, breaks things as the seed says, and shows [`Observation`]s to the invariants. The
//! same seed gives the same trace, byte for byte: nothing here reads a clock, and every draw comes from a named stream.

mod audience;
pub mod campaign;
pub mod chaos;
mod clients;
pub mod faults;
mod fnv;
pub mod invariants;
mod node;
pub mod seeds;
mod shelves;
#[cfg(test)]
mod tests;
mod trace;
mod wires;

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::panic::{AssertUnwindSafe, catch_unwind};

use sixnines_core::ids::{ChassisName, Epoch, EventId, GroupName, LinkId, NodeId};
use sixnines_core::time::{Duration, Instant, nanos};
use sixnines_core::value::{Outcome, Request};

use crate::chassis::Plan;
pub use audience::News;
use clients::Client;
use invariants::Judge;
pub use node::{Answer, Call, DiskChange, Door, Observation, Order, SimInput, SimNode, SimOutput, Substitute, Ticket, View, Workshop};
use seeds::Stream;
use shelves::{SHELVES_EVERY, Shelves};
pub use trace::Trace;
pub use wires::Manners;
use wires::Parcel;

/// Nanoseconds of the world's own time, which no node can read.
pub type Truth = u64;

/// One millisecond of truth.
pub const MS: Truth = 1_000_000;

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
    pub chassis: Vec<Plan>,
    /// Whether somebody keeps the nodes' wall clocks right. Otherwise they are as far apart as they come, and nothing may depend on it.
    pub is_in_step: bool,
    /// Whether the shelves refuse orders of older epochs, as they should.
    pub chassis_check_epochs: bool,
    /// The policies that fail whenever they are called.
    pub bad_policies: Vec<String>,
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

#[derive(Debug)]
enum Happening {
    Deliver(Parcel),
    Wake(NodeId),
    Restart(NodeId),
    CallAgain { client: usize, turn: u64 },
    Shelves,
    Readmit,
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

/// A domain and everything around it.
pub struct World {
    now: Truth,
    order: u64,
    queue: BinaryHeap<Entry>,
    hosts: BTreeMap<NodeId, Host>,
    workshop: Box<dyn Workshop>,
    links: u8,
    seed: u64,
    is_in_step: bool,
    wire: Stream,
    /// How the wires behave.
    pub manners: Manners,
    /// (from, to, link) on which nothing passes.
    cuts: BTreeSet<(NodeId, NodeId, LinkId)>,
    /// When the last mesh frame of a pair arrives: it keeps order.
    mesh_until: BTreeMap<(NodeId, NodeId), Truth>,
    held: Vec<Parcel>,
    /// Those whose disk was replaced by an empty one.
    strangers: BTreeSet<NodeId>,
    /// Those whose disk is not what the others remember of it.
    bad_disks: BTreeSet<NodeId>,
    clients: Vec<Client>,
    shelves: Shelves,
    judge: Judge,
    trace: Trace,
    /// What whoever listens has not taken yet; `None`: nobody does.
    audience: Option<Vec<News>>,
}

/// More happenings than this within one millisecond, for each pair of nodes, are two machines that keep each other busy for ever. (Nodes that
/// join together tell each other everything at once.)
const CROWD_MAX: u64 = 2_500;

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
            is_in_step: setup.is_in_step,
            wire: Stream::new(setup.seed, "wire"),
            manners: Manners::default(),
            cuts: BTreeSet::new(),
            mesh_until: BTreeMap::new(),
            held: Vec::new(),
            strangers: BTreeSet::new(),
            bad_disks: BTreeSet::new(),
            clients,
            shelves: Shelves::new(setup.chassis, setup.chassis_check_epochs),
            judge: Judge::new(setup.bad_policies),
            trace: Trace::default(),
            audience: None,
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

    /// The last lines of what happened.
    pub fn into_story(self) -> Vec<String> {
        self.trace.lines.into()
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
        let crowd_max = CROWD_MAX * (self.hosts.len() as u64).pow(2);
        while self.queue.peek().is_some_and(|e| e.at <= end) {
            if self.has_news() {
                return Ok(()); // whoever listens wants to look now
            }
            let Some(Entry { at, what, .. }) = self.queue.pop() else { break };
            crowd = if at / MS == self.now / MS { crowd + 1 } else { 0 };
            if crowd > crowd_max {
                return Err(format!("at {} ms more than {crowd_max} things happen within one millisecond: {what:?}", self.now / MS));
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

    /// Something happens to a node's disk.
    pub fn disk(&mut self, node: NodeId, what: DiskChange) {
        match what {
            DiskChange::Replaced(Substitute::Empty) => {
                self.bad_disks.remove(&node);
                self.strangers.insert(node);
            }
            DiskChange::Replaced(Substitute::Image | Substitute::Rotten) => drop(self.bad_disks.insert(node)),
            _ => {}
        }
        self.workshop.disk(node, what);
    }

    /// An operator empties the disks that are good for nothing; their nodes are down then.
    pub fn empty_bad_disks(&mut self) {
        for node in std::mem::take(&mut self.bad_disks) {
            self.crash(node);
            self.disk(node, DiskChange::Replaced(Substitute::Empty));
        }
    }

    /// An operator tells every node which of the others have another disk, and says it again now and then: whoever heard it may die.
    pub fn readmit_all(&mut self) {
        for stranger in self.strangers.clone() {
            self.readmit(stranger);
        }
        if !self.strangers.is_empty() {
            self.schedule(self.now + READMIT_AGAIN, Happening::Readmit);
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

    /// Every alarm that was raised and never cleared stands at the owner of its object, as what it was.
    ///
    /// # Errors
    /// The first that does not.
    pub fn prove_alarms(&self) -> Result<(), String> {
        let standing = self.hosts.values().filter_map(|h| h.node.as_ref()).flat_map(|node| node.alarms()).collect();
        self.judge.prove_alarms(&standing)
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
                self.tell_time(node);
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
            Happening::Shelves => {
                self.keep_time();
                self.look_at_shelves();
            }
            Happening::Readmit => self.readmit_all(),
            Happening::Light(chassis) => self.shelves.darken(&chassis, false),
            Happening::Order { node, start, request } => self.obey(node, start, &request),
            Happening::Outcome { node, start, request, outcome } => self.hand_back(node, start, request, outcome),
        }
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
            if !self.is_up(node) {
                return; // it has halted: what it would have done after that it does not do
            }
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
            SimOutput::Send { to, link, door, bytes } => self.send(node, to, link, door, bytes),
            SimOutput::Answer { group, epoch, answer } => self.answer(node, &group, epoch, &answer),
            SimOutput::Gate { group, until } => self.arm(node, group, until),
            SimOutput::Drive { group, drives } => self.shelves.drive(node, &group, drives),
            SimOutput::Act(request) => self.order(node, request),
            SimOutput::Fence { request, target } => self.fence(node, request, target),
            SimOutput::Observe(observation) => {
                self.note_observation(node, &observation);
                self.tell_of(node, &observation);
                self.judge.observe(self.now, node, &observation);
            }
            SimOutput::Replied(ticket, outcome) => self.tell(News::Replied(ticket, outcome)),
            SimOutput::Note(line) => self.note(format!("{node} {line}")),
            SimOutput::Halt(why) => {
                self.note(format!("{node} halts: {why}"));
                self.tell(News::Halted(node, why));
                self.crash(node);
                self.restart_after(node, SUPERVISED);
            }
        }
    }

    /// A power switch does what it is told, and says so when it has looked. Somebody switches the node on again later; what was down before stays so.
    fn fence(&mut self, by: NodeId, request: EventId, target: NodeId) {
        self.note(format!("{by} has {target} switched off"));
        if self.is_up(target) {
            self.crash(target);
            self.restart_after(target, SWITCHED_ON);
        }
        self.judge.node_is_off(target);
        let start = self.hosts[&by].starts;
        self.schedule(self.now + SWITCHED, Happening::Outcome { node: by, start, request, outcome: Outcome::Done });
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

    /// What happens all the time goes into the checksum alone.
    fn note_observation(&mut self, node: NodeId, observation: &Observation) {
        match observation {
            Observation::Event(event) => self.trace.count(format_args!("{node} event {} {:?}", event.id, event.cause)),
            Observation::Applied { index, .. } => self.trace.count(format_args!("{node} applied {index}")),
            Observation::Heard { .. } | Observation::Remembers(_) | Observation::Kept { .. } => self.trace.count(format_args!("{node} {observation:?}")),
            Observation::TakenOver { .. } | Observation::Role { .. } | Observation::Lost { .. } | Observation::Acted { .. } => self.note(format!("{node} {observation:?}")),
        }
    }

    pub(crate) fn note(&mut self, line: String) {
        self.trace.write(format!("{:>10}.{:06} {line}", self.now / MS, self.now % MS));
    }
}

/// An operator who sees no effect asks again.
const READMIT_AGAIN: Truth = 700 * MS;
/// A power switch has done its work, and has been read back, after so long.
const SWITCHED: Truth = 200 * MS;
/// Somebody finds a node that was switched off, and switches it on, after so long.
const SWITCHED_ON: Truth = 3000 * MS;
/// A supervisor starts a daemon that has ended by itself after so long.
const SUPERVISED: Truth = 300 * MS;

/// So much of truth as a duration, for people.
pub fn span(truth: Truth) -> Duration {
    Duration::from_nanos(truth)
}

/// Whatever the product does, a broken assertion too, is a failure of this run and of no other.
///
/// # Errors
/// What the assertion says.
pub fn safely<T>(act: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(act)).map_err(|panic| {
        let words = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        format!("an assertion is broken: {}", words.unwrap_or("it says nothing"))
    })
}
