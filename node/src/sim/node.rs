//! One node: the product's machines, and the wires between them that are threads and channels in the daemon.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sixnines_checkpoint::{CopyConfig, GroupCopy, Level, Op, Ticket, Write};
use sixnines_core::abroad::Interest;
use sixnines_core::domain::config::Times;
use sixnines_core::domain::{Change, Domain, Entry, Evidence, Proposal, Release, Void};
use sixnines_core::engine::{Alarm, Command};
use sixnines_core::feed;
use sixnines_core::ids::{Epoch, EventId, GroupName, LogIndex, Member, NodeId};
use sixnines_core::journal::replay::{Past, cursors, replay};
use sixnines_core::roles::{Role, Told, Unit};
use sixnines_core::time::{Instant, WallTime};
use sixnines_core::value::Outcome;
use sixnines_core::world::Object;
use sixnines_discs::feed::Limits;
use sixnines_discs::feed::wire::{Recorded, Word, read_subscription};
use sixnines_discs::liveness::shell::News as LivenessNews;
use sixnines_discs::liveness::wire::Heartbeat;
use sixnines_discs::liveness::{self, Liveness};
use sixnines_discs::log::sim::{SimDisk, SimLog};
use sixnines_discs::log::{Failure, FirstStart, OpenError, Options, Place, Port, ProposeError, Timing};
use sixnines_discs::wire::Kind;
use sixnines_hwsim::domain::{Call, Door, Observation, SimInput, SimNode, SimOutput, View};

use super::app::App;
use super::broken::Mutation;
use super::broken::beats::Liar;
use super::orders::Orders;
use super::ways::{Journal, SimWays, Way};
use crate::api::Call as Asked;
use crate::core_loop::feeds::Feeds;
use crate::core_loop::{CoreLoop, In};
use crate::standing::standing;

/// What goes over the mesh.
#[derive(Serialize, Deserialize)]
enum Frame {
    Log(Vec<u8>),
    Copy { group: GroupName, bytes: Vec<u8> },
    Told(Told),
    Command(Command),
    /// Of a feed: its kind and payload.
    Feed(u8, Vec<u8>),
}

/// What the control log says; it speaks from within a step.
enum News {
    Send(NodeId, Vec<u8>),
    Applied(LogIndex, Option<Box<Proposal>>, Result<Vec<Change>, Void>, Box<Domain>),
    Failed(u64, ProposeError),
    Leader(Option<NodeId>),
    Logged(Vec<(NodeId, LogIndex)>),
    Places(BTreeMap<NodeId, Place>),
    Broken(String),
}

/// Most lives take no time for a word, some one to ten milliseconds.
fn pace(life: u64) -> Duration {
    Duration::from_millis(match life % 8 {
        0 => 1,
        1 => 3,
        2 => 10,
        _ => 0,
    })
}

#[derive(Default)]
struct Mailbox(Mutex<VecDeque<News>>);

impl Mailbox {
    fn put(&self, news: News) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(news);
    }

    fn take(&self) -> Option<News> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

impl Port for Mailbox {
    fn send(&self, to: NodeId, frame: Vec<u8>) {
        self.put(News::Send(to, frame));
    }
    fn applied(&self, index: LogIndex, proposal: Option<&Proposal>, outcome: &Result<Vec<Change>, Void>, domain: &Domain) {
        self.put(News::Applied(index, proposal.cloned().map(Box::new), outcome.clone(), Box::new(domain.clone())));
    }
    fn proposed(&self, ticket: u64, outcome: Result<LogIndex, ProposeError>) {
        if let Err(error) = outcome {
            self.put(News::Failed(ticket, error));
        }
    }
    fn leader(&self, leader: Option<NodeId>) {
        self.put(News::Leader(leader));
    }
    fn appended(&self, about: &[(NodeId, LogIndex)]) {
        self.put(News::Logged(about.to_vec()));
    }
    fn places(&self, places: &BTreeMap<NodeId, Place>) {
        self.put(News::Places(places.clone()));
    }
    fn progress(&self) {}
    fn failed(&self, failure: &Failure) {
        self.put(News::Broken(failure.to_string()));
    }
}

/// A service or the ownership of a chassis on this node.
struct Group {
    copy: GroupCopy,
    /// The application; the owner of a chassis is the core loop itself.
    app: Option<App>,
    /// The gate follows the lease.
    is_open: bool,
    /// The epoch that the owner of a chassis writes under.
    epoch: Epoch,
}

/// The node.
pub(super) struct Node {
    me: NodeId,
    life: u64,
    liveness: Liveness,
    pub(super) core: CoreLoop<SimWays>,
    log: SimLog,
    mailbox: Arc<Mailbox>,
    domain: Arc<Domain>,
    groups: BTreeMap<GroupName, Group>,
    /// Their names, shared: every step goes through them.
    names: Arc<[GroupName]>,
    lease: Instant,
    has_lease: bool,
    /// Its own idea of wall time, as far from the others' as their clocks are: nothing may decide by it (protocol 8.4).
    wall_at_zero: u64,
    /// The life in which each peer was last heard.
    lives: BTreeMap<NodeId, u64>,
    /// What a word about objects takes, as where policies burn their budgets: it waits until that of the one before is over.
    pace: Duration,
    /// The next one may be taken.
    free_at: Instant,
    /// The journal has its first snapshot.
    is_journalling: bool,
    tickets: u64,
    /// What owners of chassis have saved, and have not been told of yet.
    saves: BTreeMap<Ticket, (GroupName, String)>,
    /// Requests to switches that are not answered yet.
    fences: BTreeSet<EventId>,
    times: Times,
    mutation: Mutation,
    liar: Liar,
    pub(super) orders: Orders,
    pub(super) out: Vec<SimOutput>,
}

impl Node {
    pub(super) fn start(me: NodeId, life: u64, now: Instant, first: &FirstStart, (disk, journal): (SimDisk, Journal), is_first: bool, mutation: Mutation) -> Result<Self, OpenError> {
        let config = &first.config;
        let mailbox = Arc::new(Mailbox::default());
        let options = Options { node: me, domain: 1, nonce: mutation.disk_number(me, life), timing: Timing::of(config.profile), apply: mutation.apply(), reads: sixnines_core::domain::feature::Level::NEWEST };
        let port: Arc<dyn Port> = Arc::clone(&mailbox) as _;
        let log = SimLog::start(options, disk, port, now, life)?;
        if is_first {
            log.handle().initialize(first.clone());
        }
        let peers: Vec<NodeId> = config.nodes.iter().map(|n| n.id).filter(|n| *n != me).collect();
        let times = config.profile.times();
        let setup = liveness::Setup { me, life, peers: peers.clone(), links: config.links(), times, seed: life };
        let left = journal.bytes();
        let mut past = Past::default();
        let out = if !left.is_empty() && past.put_before(&left) {
            vec![SimOutput::Observe(Observation::Remembers(past.last()))]
        } else {
            Vec::new()
        };
        let feeds = Feeds::new(Limits::default(), cursors(&left).unwrap_or_default());
        let mut made = Self {
            me,
            life,
            liveness: Liveness::new(mutation.born(now, &times), setup),
            core: CoreLoop::new(me, life, SimWays::new(journal, mutation), feeds),
            log,
            mailbox,
            domain: Arc::default(),
            groups: BTreeMap::new(),
            names: Arc::default(),
            lease: Instant::ZERO,
            has_lease: false,
            wall_at_zero: 1_700_000_000_000_000_000,
            lives: BTreeMap::new(),
            pace: if mutation == Mutation::None { pace(life) } else { Duration::ZERO },
            free_at: Instant::ZERO,
            is_journalling: false,
            tickets: 1 << 32,
            saves: BTreeMap::new(),
            fences: BTreeSet::new(),
            times,
            mutation,
            orders: Orders::default(),
            liar: Liar::default(),
            out,
        };
        made.core(now, Some(In::Past(past)));
        Ok(made)
    }

    pub(super) fn me(&self) -> NodeId {
        self.me
    }

    pub(super) fn core(&mut self, now: Instant, input: Option<In>) {
        let wall = self.wall(now);
        self.core.handle(now, wall, input);
        if !self.is_journalling
            && let Some(engine) = &mut self.core.engine
        {
            self.is_journalling = true;
            self.core.ways.journal.begin(engine.begin_segment());
        }
        self.take_words(now);
    }

    /// Takes what waits; shown is how far the core loop has come by it in a peer's events.
    fn take_words(&mut self, now: Instant) {
        while now >= self.free_at
            && let Some(word) = self.core.word()
        {
            let (origin, event) = match word {
                In::Word { from, word } => (Some(*from), if let Word::Event { at, .. } = &**word { Some(*at) } else { None }),
                _ => (None, None),
            };
            let after = origin.map(|from| self.core.cursor(from));
            self.core.take_word(now, self.wall(now));
            self.free_at = now + self.pace;
            if let (Some(origin), Some(after)) = (origin, after) {
                let at = self.core.cursor(origin);
                if at != after {
                    self.out.push(SimOutput::Observe(Observation::Heard { origin, after, at, is_event: event == Some(at) }));
                }
            }
        }
    }

    fn wall(&self, now: Instant) -> WallTime {
        WallTime(self.wall_at_zero.wrapping_add(now.as_nanos()))
    }

    fn take(&mut self, now: Instant, input: SimInput<'_>) {
        match input {
            SimInput::Frame { from, link, door: Door::Liveness, bytes } => {
                let Some(mut heartbeat) = Heartbeat::decode(bytes).filter(|h| h.from.node == from) else { return };
                Liar::hear(self.mutation, self.me, self.life, now, &mut heartbeat);
                if self.lives.insert(from, heartbeat.life) != Some(heartbeat.life) {
                    self.core(now, Some(In::Peer { node: from, life: heartbeat.life }));
                }
                self.liveness.handle(now, liveness::Input::Heard { link, heartbeat: &heartbeat });
            }
            SimInput::Frame { from, door: Door::Mesh, bytes, .. } => self.on_mesh(now, from, bytes),
            SimInput::Call { group, call } => self.on_call(now, &group, call),
            SimInput::KillUnit(group) => self.on_unit_death(now, &group),
            SimInput::Switchover(group) => drop(self.ask(now, "ann", Asked::Switchover { service: group.to_string(), to: None })),
            SimInput::Readmit(node) => drop(self.ask(now, "ann", Asked::NodeReplace { node })),
            SimInput::Order(ticket, order) => self.on_order(now, ticket, order),
            SimInput::Readings(list) => {
                for update in list {
                    self.core(now, Some(In::Update(update.clone())));
                }
            }
            SimInput::Outcome { request, .. } if self.fences.remove(&request) => {
                self.core(now, Some(In::Fenced { request, result: Ok("its switch is off".to_owned()) }));
            }
            SimInput::Outcome { request, outcome } => self.core(now, Some(In::Outcome { request, outcome })),
            SimInput::Wall(wall) => self.wall_at_zero = wall.0.wrapping_sub(now.as_nanos()),
            SimInput::Wake => {}
        }
    }

    /// A neighbour's node is reached, in this life of it.
    pub(super) fn meet(&mut self, now: Instant, node: NodeId, life: u64) {
        self.core(now, Some(In::Peer { node, life }));
        self.core(now, Some(In::Heard { node, is_heard: true }));
    }

    fn on_mesh(&mut self, now: Instant, from: NodeId, bytes: &[u8]) {
        let Ok(frame) = postcard::from_bytes(bytes) else { return };
        let input = match frame {
            Frame::Log(frame) => return self.log.handle_at(now).frame(from, frame),
            Frame::Copy { group, bytes } => {
                if let Some(group) = self.groups.get_mut(&group)
                    && let Err(fault) = group.copy.handle(now, sixnines_checkpoint::Input::Frame { from, bytes: &bytes })
                {
                    self.out.push(SimOutput::Note(format!("a frame of {from} is refused: {fault}")));
                }
                return;
            }
            Frame::Told(told) => In::Told { from, told },
            Frame::Command(command) => In::Forwarded { from, command },
            Frame::Feed(kind, payload) if from.is_abroad() => {
                let Some(input) = self.core.ways.neighbours.read(from, Kind(kind), &payload) else { return };
                input
            }
            Frame::Feed(kind, payload) => match Kind(kind) {
                Kind::SUBSCRIBE => {
                    let Some((patterns, resume)) = read_subscription(&payload) else { return };
                    In::Subscribed { from, interest: Interest::of(patterns), resume }
                }
                Kind::CURSOR => {
                    let Some(recorded) = Recorded::read(&payload) else { return };
                    In::Recorded { from, recorded }
                }
                _ => {
                    let Some(word) = Word::read(&payload) else { return };
                    return self.on_word(now, from, word);
                }
            },
        };
        self.core(now, Some(input));
    }

    /// What a peer tells of its events.
    fn on_word(&mut self, now: Instant, from: NodeId, mut word: Word) {
        let known = self.core.cursor(from);
        if let Word::Event { after, at, .. } = &mut word {
            match self.mutation {
                Mutation::EventsDropped if at.sequence.is_multiple_of(5) => return,
                Mutation::EventsDropped => *after = known.min(*at),
                Mutation::CursorStandsStill if at.sequence.is_multiple_of(5) => {
                    self.core(now, Some(In::Word { from, word: Box::new(word.clone()) }));
                    self.forget(from, known);
                }
                _ => {}
            }
        }
        self.core(now, Some(In::Word { from, word: Box::new(word) }));
    }

    /// As if the node had not come further in a peer's events.
    fn forget(&mut self, of: NodeId, known: feed::Place) {
        let Some(engine) = self.core.engine.take() else { return };
        let mut cursors = engine.cursors().clone();
        cursors.entry(of).or_default().events = known;
        self.core.engine = Some(engine.resume(cursors));
    }

    fn on_call(&mut self, now: Instant, name: &GroupName, call: Call) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let Some(group) = self.groups.get_mut(name) else { return };
        let Some(app) = &mut group.app else { return };
        if self.mutation == Mutation::AcknowledgesAlone
            && let (Some(epoch), Some(value)) = (app.epoch(), call.value)
        {
            let answer = sixnines_hwsim::domain::Answer { request: call.request, is_write: true, key: call.key, value: Some(value) };
            self.out.push(SimOutput::Answer { group: name.clone(), epoch, answer });
        }
        if let Some(input) = app.take(ticket, call) {
            feed(&mut group.copy, now, input);
        }
    }

    fn on_unit_death(&mut self, now: Instant, name: &GroupName) {
        let Some(group) = self.groups.get_mut(name) else { return };
        let Some(app) = &mut group.app else { return };
        app.die(now);
        feed(&mut group.copy, now, sixnines_checkpoint::Input::Detach);
        self.core(now, Some(In::Unit { group: name.clone(), unit: Unit::Gone, why: "killed".to_owned() }));
    }

    /// Timers of all machines that are due.
    fn tick(&mut self, now: Instant) {
        if now >= self.liveness.poll_timeout() {
            self.liveness.handle(now, liveness::Input::Timeout);
        }
        if self.core.poll_timeout().is_some_and(|at| now >= at) {
            self.core(now, None);
        }
        self.take_words(now);
        let has_lease = now < self.lease;
        let changed = has_lease != self.has_lease;
        self.has_lease = has_lease;
        if changed {
            self.core(now, Some(In::Liveness(LivenessNews::Suspended(!has_lease))));
        }
        if changed && self.mutation == Mutation::DaemonClosesGate {
            let until = if has_lease { self.mutation.gate(now, self.lease) } else { Instant::ZERO };
            let open = self.groups.iter().filter(|(_, g)| g.is_open).map(|(name, _)| SimOutput::Gate { group: name.clone(), until });
            self.out.extend(open);
        }
        for name in Arc::clone(&self.names).iter() {
            let group = self.groups.get_mut(name).expect("each name has its group");
            if changed {
                feed(&mut group.copy, now, sixnines_checkpoint::Input::Lease(has_lease));
            }
            if group.copy.poll_timeout().is_some_and(|at| now >= at) {
                feed(&mut group.copy, now, sixnines_checkpoint::Input::Timeout);
            }
            self.bring_back(now, name);
        }
        self.log.step_if_due(now);
    }

    /// An application that had died is there again; it is told its role when it connects.
    fn bring_back(&mut self, now: Instant, name: &GroupName) {
        let role = self.core.roles.role(name);
        let Some(group) = self.groups.get_mut(name) else { return };
        let Some(app) = group.app.as_mut().filter(|app| app.back_at.is_some_and(|at| now >= at)) else { return };
        app.back_at = None;
        if let Some(Role::Active(epoch)) = role.filter(|_| group.is_open) {
            app.become_active(epoch);
        }
        feed(&mut group.copy, now, sixnines_checkpoint::Input::Attach);
        self.core(now, Some(In::Unit { group: name.clone(), unit: Unit::Ready, why: "connected".to_owned() }));
    }

    /// Carries everything out until nothing is left; true if anything was.
    fn carry_out(&mut self, now: Instant) -> bool {
        let mut did = false;
        while let Some(news) = self.mailbox.take() {
            self.on_news(now, news);
            did = true;
        }
        while let Some(output) = self.liveness.poll_output() {
            self.on_liveness(now, output);
            did = true;
        }
        while let Some(way) = self.core.ways.queue.pop_front() {
            self.on_way(now, way);
            did = true;
        }
        for name in Arc::clone(&self.names).iter() {
            while let Some(output) = self.groups.get_mut(name).and_then(|g| g.copy.poll_output()) {
                self.on_copy(now, name, output);
                did = true;
            }
        }
        did
    }

    fn on_news(&mut self, now: Instant, news: News) {
        match news {
            News::Send(to, frame) => self.mesh(to, &Frame::Log(frame)),
            News::Applied(index, proposal, outcome, domain) => self.on_applied(now, index, proposal.map(|p| *p), outcome, *domain),
            News::Failed(ticket, why) => self.core(now, Some(In::Failed { ticket, why })),
            News::Leader(leader) => {
                let term = self.log.handle().metrics().term;
                self.out.push(SimOutput::Note(format!("finds {} leading in term {term}", leader.map_or_else(|| "nobody".to_owned(), |l| l.to_string()))));
                self.core(now, Some(In::Leader(leader)));
            }
            News::Logged(about) => {
                for (node, index) in about {
                    self.liveness.handle(now, liveness::Input::Logged { node, index });
                }
            }
            News::Places(places) => self.core(now, Some(In::Places(places))),
            News::Broken(why) => self.out.push(SimOutput::Halt(why)),
        }
    }

    /// Every complete copy of a group was gone, and the domain says so by starting it again.
    fn note_loss(&mut self, domain: &Domain, entry: &Entry) {
        let Entry::Start { group, .. } = entry else { return };
        let Some(epoch) = domain.groups.get(group).map(|r| r.epoch).filter(|e| e.0 > 1) else { return };
        self.out.push(SimOutput::Observe(Observation::Lost { group: group.clone(), epoch }));
    }

    /// On releases alone, of a life that counted, where a fence is needed.
    fn note_takeover(&mut self, entry: &Entry) {
        let Entry::Takeover { group, evidence: Evidence::Released(_), .. } = entry else { return };
        let before = &self.domain;
        let old = before.groups.get(group).and_then(|row| row.active).filter(|old| before.is_current(*old) && before.config.requires_fence(group));
        if let Some(old) = old {
            self.out.push(SimOutput::Observe(Observation::TakenOver { group: group.clone(), old }));
        }
    }

    fn on_applied(&mut self, now: Instant, index: LogIndex, proposal: Option<Proposal>, outcome: Result<Vec<Change>, Void>, domain: Domain) {
        if let Some(proposal) = proposal.as_ref().filter(|_| outcome.is_ok()) {
            self.note_loss(&domain, &proposal.entry);
            self.note_takeover(&proposal.entry);
        }
        let domain = Arc::new(domain);
        self.out.push(SimOutput::Observe(Observation::Applied { index, domain: Arc::clone(&domain) }));
        self.domain = Arc::clone(&domain);
        let rows = standing(&domain, self.me, self.life);
        self.liveness.handle(now, liveness::Input::Applied { index: domain.applied, standing: &rows });
        let seen = match self.mutation {
            Mutation::PromotesNonMember | Mutation::TakeoverWithoutFence => Arc::new(self.mutation.seen_by(self.core.roles.member(), Domain::clone(&domain))),
            _ => Arc::clone(&domain),
        };
        self.core(now, Some(In::Applied { index, proposal, outcome, domain: seen }));
        self.release(now, self.liar.renewed(&domain));
        let Some(me) = self.core.roles.member() else { return };
        let (me_node, fault, profile) = (self.me, self.mutation.copy_fault(), domain.config.profile);
        for config in domain.config.groups().filter(|g| g.candidates.contains(&me_node)) {
            let is_service = domain.config.service(&config.name).is_some();
            let is_new = !self.groups.contains_key(&config.name);
            let group = self.groups.entry(config.name.clone()).or_insert_with(|| Group {
                copy: GroupCopy::new(me, CopyConfig::of(&config, profile).breaking(fault)),
                app: is_service.then(App::default),
                is_open: false,
                epoch: Epoch(0),
            });
            if is_new {
                feed(&mut group.copy, now, sixnines_checkpoint::Input::Lease(self.has_lease));
                feed(&mut group.copy, now, sixnines_checkpoint::Input::Attach);
            }
            if let Some(row) = domain.groups.get(&config.name) {
                feed(&mut group.copy, now, sixnines_checkpoint::Input::Row(row));
            }
            if is_new && is_service {
                self.core(now, Some(In::Unit { group: config.name.clone(), unit: Unit::Ready, why: "connected".to_owned() }));
            }
        }
        if self.names.len() != self.groups.len() {
            self.names = self.groups.keys().cloned().collect();
        }
    }

    fn on_liveness(&mut self, now: Instant, output: liveness::Output) {
        match output {
            liveness::Output::Send { to, link, mut heartbeat } => {
                self.liar.speak(self.mutation, &mut heartbeat);
                let mut bytes = Vec::new();
                heartbeat.encode(&mut bytes);
                self.out.push(SimOutput::Send { to, link, door: Door::Liveness, bytes });
            }
            liveness::Output::Lease(until) => {
                self.lease = self.mutation.lease(now, until, &self.times);
                let until = self.mutation.gate(now, self.lease);
                for (name, _) in self.groups.iter().filter(|(_, g)| g.is_open) {
                    self.out.push(SimOutput::Gate { group: name.clone(), until });
                }
            }
            other => {
                self.believe(now, &other);
                if let liveness::Output::Verdict { node, was, now: verdict, .. } = &other {
                    self.out.push(SimOutput::Note(format!("holds {node} for {}, no longer {}", verdict.as_str(), was.as_str())));
                }
                self.core(now, Some(In::Liveness(LivenessNews::Output(other))));
            }
        }
    }

    /// What a broken rule makes of it beside what the product does.
    fn believe(&mut self, now: Instant, output: &liveness::Output) {
        let releases = match (output, self.core.roles.member()) {
            (liveness::Output::Link { node, up: false, .. }, Some(me)) if self.mutation == Mutation::EvidenceSkipsWait => self.liar.lost_link(me, &self.domain, *node).into_iter().collect(),
            (liveness::Output::Release(release), _) => self.liar.take(self.mutation, &self.domain, *release),
            _ => Vec::new(),
        };
        self.release(now, releases);
    }

    fn release(&mut self, now: Instant, releases: Vec<Release>) {
        for release in releases {
            self.core(now, Some(In::Liveness(LivenessNews::Output(liveness::Output::Release(release)))));
        }
    }

    fn on_way(&mut self, now: Instant, way: Way) {
        use sixnines_checkpoint::Input;
        match way {
            Way::Propose(proposal) => {
                self.out.push(SimOutput::Note(format!("proposes {:?}", proposal.entry)));
                self.log.handle_at(now).propose(proposal);
            }
            Way::Role(group, role) => self.on_role(now, &group, role),
            Way::Relinquish(group, epoch) => {
                self.fall_silent(&group);
                self.core(now, Some(In::Silenced { group, epoch }));
            }
            Way::Drive(group, drives) => self.out.push(SimOutput::Drive { group, drives }),
            // Only under a lease (protocol 4.4), as the daemon's doors do it.
            Way::Act(request) if now >= self.lease && self.mutation != Mutation::ActsWithoutLease => {
                let outcome = Outcome::Refused("suspended".to_owned());
                self.core(now, Some(In::Outcome { request: request.id, outcome }));
            }
            Way::Act(request) => self.out.push(SimOutput::Act(request)),
            Way::Fence(order) => {
                self.fences.insert(order.request);
                self.out.push(SimOutput::Fence { request: order.request, target: order.target.node });
            }
            Way::Reach(member, is_reachable) => {
                for group in self.groups.values_mut() {
                    feed(&mut group.copy, now, if is_reachable { Input::Reachable(member) } else { Input::Unreachable(member) });
                }
            }
            Way::Prefer(group, nodes) => self.copy(now, &group, Input::Prefer(nodes)),
            Way::Quiesce(group, to) => self.copy(now, &group, Input::Quiesce(to)),
            Way::Resume(group) => {
                self.copy(now, &group, Input::Unquiesce);
                self.own_again(now, &group);
            }
            Way::Offer(group, version) => {
                let Some(offer) = self.groups.get_mut(&group).and_then(|g| g.copy.offer(version)) else { return };
                self.core(now, Some(In::Offered { group, offer }));
            }
            Way::Save(group, key, bytes) => self.save(now, &group, &key, bytes),
            Way::Tell(to, told) => self.mesh(to, &Frame::Told(told)),
            Way::Forward(to, command) => self.mesh(to, &Frame::Command(command)),
            Way::Publish(event) => {
                if self.core.roles.member() == Some(Member { node: event.id.node, incarnation: event.id.incarnation }) {
                    self.out.push(SimOutput::Observe(Observation::Event(event)));
                }
            }
            Way::Feed(to, kind, payload) => self.mesh(to, &Frame::Feed(kind.0, payload.into())),
            Way::TransferLeader(to) => self.log.handle_at(now).transfer_leader(to),
            Way::Greet(node) => self.log.handle_at(now).greet(node),
            Way::Campaign(against) => {
                self.out.push(SimOutput::Note(format!("campaigns against {against}")));
                self.log.handle_at(now).campaign(against);
            }
        }
    }

    fn copy(&mut self, now: Instant, group: &GroupName, input: sixnines_checkpoint::Input<'_>) {
        if let Some(group) = self.groups.get_mut(group) {
            feed(&mut group.copy, now, input);
        }
    }

    /// What the owner of a chassis keeps for its successor.
    fn save(&mut self, now: Instant, name: &GroupName, key: &str, bytes: Option<Vec<u8>>) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let Some(group) = self.groups.get_mut(name).filter(|g| g.app.is_none()) else { return };
        let op = match bytes {
            Some(bytes) => Op::Put { key: key.into(), bytes: bytes.into() },
            None => Op::Delete { key: key.into() },
        };
        let write = Write { ticket, epoch: group.epoch, request: None, ops: vec![op], level: Level::default() };
        self.saves.insert(ticket, (name.clone(), key.to_owned()));
        feed(&mut group.copy, now, sixnines_checkpoint::Input::Write(write));
    }

    /// What a chassis' owner saved is safe, unless something newer of that name is on its way.
    fn note_kept(&mut self, name: &GroupName, ticket: Ticket, outcome: sixnines_checkpoint::Outcome) {
        let Some((group, section)) = self.saves.remove(&ticket) else { return };
        let is_safe = matches!(outcome, sixnines_checkpoint::Outcome::Applied { .. });
        if is_safe && !self.saves.values().any(|(g, s)| g == name && *s == section) {
            self.out.push(SimOutput::Observe(Observation::Kept { group, section }));
        }
    }

    /// A chassis' copy is the active's: its owner begins, or goes on, with what it holds.
    fn own_again(&mut self, now: Instant, name: &GroupName) {
        let Some(group) = self.groups.get_mut(name).filter(|g| g.app.is_none()) else { return };
        let sixnines_checkpoint::Role::Active { epoch, .. } = group.copy.role() else { return };
        group.epoch = epoch;
        let text = |key: &sixnines_checkpoint::Bytes| String::from_utf8_lossy(key.as_slice()).into_owned();
        let saved = group.copy.state().iter().map(|(key, section)| (text(key), section.bytes.as_slice().to_vec())).collect();
        self.core(now, Some(In::Saved { group: name.clone(), epoch, saved: self.mutation.found(saved) }));
    }

    fn on_role(&mut self, now: Instant, name: &GroupName, role: Role) {
        let (epoch, is_active) = match role {
            Role::Active(epoch) => (epoch, true),
            Role::Standby(epoch) => (epoch, false),
        };
        self.out.push(SimOutput::Observe(Observation::Role { group: name.clone(), epoch, is_active }));
        let until = self.mutation.gate(now, self.mutation.first_gate(now, self.lease, &self.times));
        let Some(group) = self.groups.get_mut(name) else { return };
        let Some(app) = &mut group.app else { return }; // the owner of a chassis has no address; its sinks see epochs
        if is_active {
            group.is_open = true;
            app.become_active(epoch);
            self.out.push(SimOutput::Gate { group: name.clone(), until });
            self.core(now, Some(In::Speaks { group: name.clone(), epoch, after: Duration::ZERO }));
        } else {
            if self.mutation != Mutation::OldEpochAnswers {
                app.stop_serving();
            }
            self.close(name);
        }
    }

    /// For good under this epoch (protocol 3.5).
    fn fall_silent(&mut self, name: &GroupName) {
        match self.mutation {
            Mutation::RelinquishesWithoutClosing => {}
            Mutation::ReopensAfterRelinquishing => {
                let is_open = self.groups.get(name).is_some_and(|g| g.is_open);
                self.close(name);
                if let Some(group) = self.groups.get_mut(name) {
                    group.is_open = is_open;
                }
            }
            _ => self.close(name),
        }
    }

    fn close(&mut self, name: &GroupName) {
        if matches!(self.mutation, Mutation::GateNeverCloses | Mutation::OldEpochAnswers) {
            return;
        }
        if let Some(group) = self.groups.get_mut(name).filter(|g| g.app.is_some()) {
            group.is_open = false;
            self.out.push(SimOutput::Gate { group: name.clone(), until: Instant::ZERO });
        }
    }

    fn on_copy(&mut self, now: Instant, name: &GroupName, output: sixnines_checkpoint::Output) {
        use sixnines_checkpoint::Output;
        match output {
            Output::Send { to, bytes } => {
                self.mesh(to.node, &Frame::Copy { group: name.clone(), bytes });
            }
            Output::Acknowledged { ticket, outcome } => {
                self.note_kept(name, ticket, outcome);
                let answer = self.app(name).and_then(|app| app.acknowledged(ticket, outcome));
                self.answer(name, answer);
            }
            Output::Answered { ticket, answer } => {
                let answer = self.app(name).and_then(|app| app.answered(ticket, &answer));
                self.answer(name, answer);
            }
            Output::Propose { version, in_sync } => self.core(now, Some(In::Sync { group: name.clone(), version, in_sync })),
            Output::Quiesced { .. } => {
                let Some(Role::Active(epoch)) = self.core.roles.role(name) else { return };
                self.core(now, Some(In::Quiesced { group: name.clone(), epoch }));
            }
            Output::Role(sixnines_checkpoint::Role::Active { .. }) | Output::QuiesceFailed { .. } => self.own_again(now, name),
            Output::Role(_) | Output::Follow(_) | Output::LossWindow(_) => {}
        }
    }

    fn app(&mut self, name: &GroupName) -> Option<&mut App> {
        self.groups.get_mut(name)?.app.as_mut()
    }

    fn answer(&mut self, name: &GroupName, answer: Option<(Epoch, sixnines_hwsim::domain::Answer)>) {
        if let Some((epoch, answer)) = answer {
            self.out.push(SimOutput::Answer { group: name.clone(), epoch, answer });
        }
    }

    fn mesh(&mut self, to: NodeId, frame: &Frame) {
        let bytes = postcard::to_allocvec(frame).expect("a frame in memory has an encoding");
        self.out.push(SimOutput::Send { to, link: None, door: Door::Mesh, bytes });
    }
}

/// One input leads to so many rounds of outputs at most; more are two machines that keep each other busy.
const ROUNDS_MAX: u32 = 10_000;

fn feed(copy: &mut GroupCopy, now: Instant, input: sixnines_checkpoint::Input<'_>) {
    copy.handle(now, input).expect("only a peer's frame can be at fault");
}

impl SimNode for Node {
    fn step(&mut self, now: Instant, input: SimInput<'_>) -> Vec<SimOutput> {
        self.take(now, input);
        let mut rounds = 0;
        loop {
            self.tick(now);
            if !self.carry_out(now) {
                break;
            }
            rounds += 1;
            let newest = self.out.len().saturating_sub(6);
            assert!(rounds < ROUNDS_MAX, "{} is never done with one input: {:?}", self.me, &self.out[newest..]);
        }
        self.tell_orders();
        std::mem::take(&mut self.out)
    }

    fn next_wake(&self, now: Instant) -> Instant {
        let copies = self.groups.values().filter_map(|g| g.copy.poll_timeout());
        let apps = self.groups.values().filter_map(|g| g.app.as_ref()?.back_at);
        let lease = (now < self.lease).then_some(self.lease);
        let word = self.core.word().map(|_| self.free_at);
        let machines = [Some(self.liveness.poll_timeout()), self.core.poll_timeout(), self.log.next_wake(), lease, word];
        copies.chain(apps).chain(machines.into_iter().flatten()).min().expect("liveness always has a deadline")
    }

    fn view(&self) -> Option<View<'_>> {
        let engine = self.core.engine.as_ref()?;
        Some(View { engine, domain: &self.domain, has_lease: self.has_lease })
    }

    /// What this life has journalled comes to the same decisions again.
    fn prove_journal(&self) -> Result<(), String> {
        let Some(engine) = &self.core.engine else { return Ok(()) };
        let report = replay(&self.core.ways.journal.bytes(), None).map_err(|e| format!("the journal of {} cannot be replayed: {e}", self.me))?;
        match report.diverged {
            Some(d) => Err(format!("a replay of the journal of {} comes to something else at input {}", self.me, d.input)),
            None if report.engine.hash() != engine.hash() => Err(format!("a replay of the journal of {} ends elsewhere", self.me)),
            None => Ok(()),
        }
    }

    fn alarms(&self) -> Vec<(String, EventId)> {
        let Some(engine) = &self.core.engine else { return Vec::new() };
        let is_ours = |alarm: &Alarm, object: &Object| (alarm.is_active() || alarm.unstable) && object.owned.is_some();
        let found = engine.alarms().map(|(key, alarm)| (key, alarm, engine.world().object(key.object)));
        let ours = found.filter(|(_, alarm, object)| is_ours(alarm, object));
        ours.filter_map(|(key, alarm, object)| Some((format!("alarm {} {} {}", object.name, key.kind, key.qualifier), alarm.id?))).collect()
    }
}
