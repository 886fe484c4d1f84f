//! One node: the product's machines, and the wires between them that are threads and channels in the daemon.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sixnines_checkpoint::{CopyConfig, GroupCopy, Ticket};
use sixnines_core::domain::config::DomainConfig;
use sixnines_core::domain::{Change, Domain, Entry, Proposal, Void};
use sixnines_core::ids::{EventId, GroupName, LogIndex, NodeId};
use sixnines_core::roles::{self, Role, Roles, Told, Unit};
use sixnines_core::time::Instant;
use sixnines_discs::liveness::wire::Heartbeat;
use sixnines_discs::liveness::{self, Liveness};
use sixnines_discs::log::sim::{SimDisk, SimLog};
use sixnines_discs::log::{Failure, FirstStart, Options, Port, ProposeError, Timing};
use sixnines_hwsim::domain::{Call, Door, Observation, SimInput, SimNode, SimOutput};

use super::Mutation;
use super::app::App;
use crate::standing::standing;

/// What goes over the mesh.
#[derive(Serialize, Deserialize)]
enum Frame {
    Log(Vec<u8>),
    Copy { group: GroupName, bytes: Vec<u8> },
    Told(Told),
}

/// What the control log says; it speaks from within a step.
enum News {
    Send(NodeId, Vec<u8>),
    Applied(Box<Domain>, Option<Entry>),
    Failed(u64),
    Leader(Option<NodeId>),
    Logged(Vec<(NodeId, LogIndex)>),
    Broken(String),
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
    fn applied(&self, _: LogIndex, proposal: Option<&Proposal>, outcome: &Result<Vec<Change>, Void>, domain: &Domain) {
        let entry = proposal.filter(|_| outcome.is_ok()).map(|p| p.entry.clone());
        self.put(News::Applied(Box::new(domain.clone()), entry));
    }
    fn proposed(&self, ticket: u64, outcome: Result<LogIndex, ProposeError>) {
        if outcome.is_err() {
            self.put(News::Failed(ticket));
        }
    }
    fn leader(&self, leader: Option<NodeId>) {
        self.put(News::Leader(leader));
    }
    fn appended(&self, about: &[(NodeId, LogIndex)]) {
        self.put(News::Logged(about.to_vec()));
    }
    fn progress(&self) {}
    fn failed(&self, failure: &Failure) {
        self.put(News::Broken(failure.to_string()));
    }
}

/// A service or chassis group on this node.
struct Group {
    copy: GroupCopy,
    app: App,
    /// The gate follows the lease.
    is_open: bool,
}

/// The node.
pub(super) struct Node {
    me: NodeId,
    life: u64,
    liveness: Liveness,
    roles: Roles,
    log: SimLog,
    mailbox: Arc<Mailbox>,
    domain: Arc<Domain>,
    groups: BTreeMap<GroupName, Group>,
    lease: Instant,
    has_lease: bool,
    lost: BTreeMap<NodeId, bool>,
    events: u64,
    tickets: u64,
    mutation: Mutation,
    out: Vec<SimOutput>,
}

impl Node {
    pub(super) fn start(me: NodeId, life: u64, now: Instant, config: &DomainConfig, disk: SimDisk, is_first: bool, mutation: Mutation) -> Self {
        let mailbox = Arc::new(Mailbox::default());
        let options = Options { node: me, domain: 1, nonce: life, timing: Timing::of(config.profile) };
        let port: Arc<dyn Port> = Arc::clone(&mailbox) as _;
        let log = SimLog::start(options, disk, port, now, life).expect("a simulated disk that only loses what was not synced can be opened");
        if is_first {
            log.handle().initialize(FirstStart { config: config.clone(), ..FirstStart::default() });
        }
        let peers = config.nodes.iter().map(|n| n.id).filter(|n| *n != me).collect();
        let setup = liveness::Setup { me, life, peers, links: 2, times: config.profile.times(), seed: life };
        Self {
            me,
            life,
            liveness: Liveness::new(now, setup),
            roles: Roles::new(me, life),
            log,
            mailbox,
            domain: Arc::default(),
            groups: BTreeMap::new(),
            lease: Instant::ZERO,
            has_lease: false,
            lost: BTreeMap::new(),
            events: 0,
            tickets: 1 << 32,
            mutation,
            out: Vec::new(),
        }
    }

    fn take(&mut self, now: Instant, input: SimInput<'_>) {
        match input {
            SimInput::Frame { from, link, door: Door::Liveness, bytes } => {
                if let Some(heartbeat) = Heartbeat::decode(bytes).filter(|h| h.from.node == from) {
                    self.liveness.handle(now, liveness::Input::Heard { link, heartbeat: &heartbeat });
                }
            }
            SimInput::Frame { from, door: Door::Mesh, bytes, .. } => self.on_mesh(now, from, bytes),
            SimInput::Call { group, call } => self.on_call(now, &group, call),
            SimInput::KillUnit(group) => self.on_unit_death(now, &group),
            SimInput::Switchover(group) => {
                let cause = self.event(None);
                self.roles.handle(now, roles::Input::Move { wish: roles::Wish::Switchover { group, to: None }, cause });
            }
            SimInput::Wake => {}
        }
    }

    fn on_mesh(&mut self, now: Instant, from: NodeId, bytes: &[u8]) {
        match postcard::from_bytes(bytes) {
            Ok(Frame::Log(frame)) => self.log.handle().frame(from, frame),
            Ok(Frame::Told(told)) => self.roles.handle(now, roles::Input::Told { from, told }),
            Ok(Frame::Copy { group, bytes }) => {
                if let Some(group) = self.groups.get_mut(&group)
                    && let Err(fault) = group.copy.handle(now, sixnines_checkpoint::Input::Frame { from, bytes: &bytes })
                {
                    self.out.push(SimOutput::Note(format!("a frame of {from} is refused: {fault}")));
                }
            }
            Err(_) => {}
        }
    }

    fn on_call(&mut self, now: Instant, name: &GroupName, call: Call) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let Some(group) = self.groups.get_mut(name) else { return };
        if self.mutation == Mutation::AcknowledgesAlone
            && let (Some(epoch), Some(value)) = (group.app.epoch(), call.value)
        {
            let answer = sixnines_hwsim::domain::Answer { request: call.request, is_write: true, key: call.key, value: Some(value) };
            self.out.push(SimOutput::Answer { group: name.clone(), epoch, answer });
        }
        if let Some(input) = group.app.take(ticket, call) {
            feed(&mut group.copy, now, input);
        }
    }

    fn on_unit_death(&mut self, now: Instant, name: &GroupName) {
        let cause = self.event(None);
        let Some(group) = self.groups.get_mut(name) else { return };
        group.app.die(now);
        feed(&mut group.copy, now, sixnines_checkpoint::Input::Detach);
        self.roles.handle(now, roles::Input::Unit { group: name.clone(), unit: Unit::Gone, cause });
    }

    /// Timers of all machines that are due.
    fn tick(&mut self, now: Instant) {
        if now >= self.liveness.poll_timeout() {
            self.liveness.handle(now, liveness::Input::Timeout);
        }
        if self.roles.poll_timeout().is_some_and(|at| now >= at) {
            self.roles.handle(now, roles::Input::Timeout);
        }
        let has_lease = now < self.lease;
        let changed = has_lease != self.has_lease;
        self.has_lease = has_lease;
        if changed {
            let cause = (!has_lease).then(|| self.event(None));
            self.roles.handle(now, roles::Input::Suspended(cause));
        }
        for name in self.groups.keys().cloned().collect::<Vec<_>>() {
            let group = self.groups.get_mut(&name).expect("just listed");
            if changed {
                feed(&mut group.copy, now, sixnines_checkpoint::Input::Lease(has_lease));
            }
            if group.copy.poll_timeout().is_some_and(|at| now >= at) {
                feed(&mut group.copy, now, sixnines_checkpoint::Input::Timeout);
            }
            if group.app.back_at.is_some_and(|at| now >= at) {
                group.app.back_at = None;
                if let Some(Role::Active(epoch)) = self.roles.role(&name).filter(|_| group.is_open) {
                    group.app.become_active(epoch); // it is told its role when it connects again
                }
                feed(&mut group.copy, now, sixnines_checkpoint::Input::Attach);
                let cause = self.event(None);
                self.roles.handle(now, roles::Input::Unit { group: name.clone(), unit: Unit::Ready, cause });
            }
        }
        self.log.step_until(now);
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
        while let Some(output) = self.roles.poll_output() {
            self.on_roles(now, output);
            did = true;
        }
        for name in self.groups.keys().cloned().collect::<Vec<_>>() {
            while let Some(output) = self.groups.get_mut(&name).and_then(|g| g.copy.poll_output()) {
                self.on_copy(now, &name, output);
                did = true;
            }
        }
        did
    }

    fn on_news(&mut self, now: Instant, news: News) {
        match news {
            News::Send(to, frame) => self.mesh(to, &Frame::Log(frame)),
            News::Applied(domain, entry) => {
                self.note_loss(&domain, entry);
                self.on_applied(now, *domain);
            }
            News::Failed(ticket) => self.roles.handle(now, roles::Input::Failed { ticket }),
            News::Leader(leader) => {
                let term = self.log.handle().metrics().term;
                self.out.push(SimOutput::Note(format!("{} finds {} leading in term {term}", self.me, leader.map_or_else(|| "nobody".to_owned(), |l| l.to_string()))));
                self.roles.handle(now, roles::Input::Leader(leader));
            }
            News::Logged(about) => {
                for (node, index) in about {
                    self.liveness.handle(now, liveness::Input::Logged { node, index });
                }
            }
            News::Broken(why) => self.out.push(SimOutput::Halt(why)),
        }
    }

    /// Every complete copy of a group was gone, and the domain says so by starting it again.
    fn note_loss(&mut self, domain: &Domain, entry: Option<Entry>) {
        let Some(Entry::Start { group, .. }) = entry else { return };
        let Some(epoch) = domain.groups.get(&group).map(|r| r.epoch).filter(|e| e.0 > 1) else { return };
        self.out.push(SimOutput::Observe(Observation::Lost { group, epoch }));
    }

    fn on_applied(&mut self, now: Instant, domain: Domain) {
        self.domain = Arc::new(domain);
        let rows = standing(&self.domain, self.me, self.life);
        self.liveness.handle(now, liveness::Input::Applied { index: self.domain.applied, standing: &rows });
        self.roles.handle(now, roles::Input::Applied(Arc::clone(&self.domain)));
        let Some(me) = self.roles.member() else { return };
        let domain = Arc::clone(&self.domain);
        let me_node = self.me;
        for config in domain.config.groups().filter(|g| g.candidates.contains(&me_node)) {
            let is_new = !self.groups.contains_key(&config.name);
            let group = self.groups.entry(config.name.clone()).or_insert_with(|| Group {
                copy: GroupCopy::new(me, CopyConfig::from(&config)),
                app: App::default(),
                is_open: false,
            });
            if is_new {
                feed(&mut group.copy, now, sixnines_checkpoint::Input::Lease(self.has_lease));
                feed(&mut group.copy, now, sixnines_checkpoint::Input::Attach);
            }
            if let Some(row) = domain.groups.get(&config.name) {
                feed(&mut group.copy, now, sixnines_checkpoint::Input::Row(row));
            }
            if is_new {
                let cause = self.event(None);
                self.roles.handle(now, roles::Input::Unit { group: config.name.clone(), unit: Unit::Ready, cause });
            }
        }
        self.tell_reach(now);
    }

    /// The copies hear who can be reached.
    fn tell_reach(&mut self, now: Instant) {
        for (node, lost) in &self.lost {
            let Some(member) = self.domain.member(*node) else { continue };
            for group in self.groups.values_mut() {
                let input = if *lost { sixnines_checkpoint::Input::Unreachable(member) } else { sixnines_checkpoint::Input::Reachable(member) };
                feed(&mut group.copy, now, input);
            }
        }
    }

    fn on_liveness(&mut self, now: Instant, output: liveness::Output) {
        match output {
            liveness::Output::Send { to, link, heartbeat } => {
                let mut bytes = Vec::new();
                heartbeat.encode(&mut bytes);
                self.out.push(SimOutput::Send { to, link, door: Door::Liveness, bytes });
            }
            liveness::Output::Lease(until) => {
                self.lease = until;
                for (name, _) in self.groups.iter().filter(|(_, g)| g.is_open) {
                    self.out.push(SimOutput::Gate { group: name.clone(), until });
                }
            }
            liveness::Output::Verdict { node, was, now: verdict, .. } => {
                self.out.push(SimOutput::Note(format!("holds {node} for {}, no longer {}", verdict.as_str(), was.as_str())));
                let cause = self.event(None);
                self.lost.insert(node, verdict.is_lost());
                self.roles.handle(now, roles::Input::Verdict { node, lost: verdict.is_lost(), cause });
                self.tell_reach(now);
            }
            liveness::Output::Release(release) => self.roles.handle(now, roles::Input::Release(release)),
            liveness::Output::Link { .. } | liveness::Output::Paused(_) => {}
        }
    }

    fn on_roles(&mut self, now: Instant, output: roles::Output) {
        match output {
            roles::Output::Propose { ticket, entry, cause } => {
                self.out.push(SimOutput::Note(format!("proposes {entry:?}")));
                self.log.handle().propose(Proposal { by: self.me, ticket, cause, entry });
            }
            roles::Output::Role { group, role } => self.on_role(&group, role),
            roles::Output::Replicas { group, nodes } => {
                if let Some(group) = self.groups.get_mut(&group) {
                    feed(&mut group.copy, now, sixnines_checkpoint::Input::Prefer(nodes));
                }
            }
            roles::Output::Quiesce { group, to, .. } => {
                if let Some(group) = self.groups.get_mut(&group) {
                    feed(&mut group.copy, now, sixnines_checkpoint::Input::Quiesce(to));
                }
            }
            roles::Output::Resume { group, .. } => {
                if let Some(group) = self.groups.get_mut(&group) {
                    feed(&mut group.copy, now, sixnines_checkpoint::Input::Unquiesce);
                }
            }
            roles::Output::Relinquish { group, epoch } => {
                self.close(&group);
                self.roles.handle(now, roles::Input::Silenced { group, epoch });
            }
            roles::Output::Offer { group } => {
                let Some(offer) = self.groups.get_mut(&group).and_then(|g| g.copy.offer()) else { return };
                self.roles.handle(now, roles::Input::Offered { group, offer });
            }
            roles::Output::Tell { to, told } => self.mesh(to, &Frame::Told(told)),
            roles::Output::TransferLeader { to } => self.log.handle().transfer_leader(to),
            roles::Output::Campaign { against } => {
                self.out.push(SimOutput::Note(format!("{} campaigns against {against}", self.me)));
                self.log.handle().campaign(against);
            }
            roles::Output::Refused { reason, .. } => self.out.push(SimOutput::Note(reason)),
        }
    }

    fn on_role(&mut self, name: &GroupName, role: Role) {
        let (epoch, is_active) = match role {
            Role::Active(epoch) => (epoch, true),
            Role::Standby(epoch) => (epoch, false),
        };
        self.out.push(SimOutput::Observe(Observation::Role { group: name.clone(), epoch, is_active }));
        if is_active {
            let until = self.lease;
            if let Some(group) = self.groups.get_mut(name) {
                group.is_open = true;
                group.app.become_active(epoch);
                self.out.push(SimOutput::Gate { group: name.clone(), until });
            }
        } else {
            if let Some(group) = self.groups.get_mut(name).filter(|_| self.mutation != Mutation::OldEpochAnswers) {
                group.app.stop_serving();
            }
            self.close(name);
        }
    }

    fn close(&mut self, name: &GroupName) {
        if matches!(self.mutation, Mutation::GateNeverCloses | Mutation::OldEpochAnswers) {
            return;
        }
        if let Some(group) = self.groups.get_mut(name) {
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
                let answer = self.groups.get_mut(name).and_then(|g| g.app.acknowledged(ticket, outcome));
                self.answer(name, answer);
            }
            Output::Answered { ticket, answer } => {
                let answer = self.groups.get_mut(name).and_then(|g| g.app.answered(ticket, &answer));
                self.answer(name, answer);
            }
            Output::Propose { version, in_sync } => {
                self.roles.handle(now, roles::Input::Sync { group: name.clone(), version, in_sync });
            }
            Output::Quiesced { .. } => {
                let Some(Role::Active(epoch)) = self.roles.role(name) else { return };
                self.roles.handle(now, roles::Input::Quiesced { group: name.clone(), epoch });
            }
            Output::Role(_) | Output::QuiesceFailed { .. } | Output::Follow(_) | Output::LossWindow(_) => {}
        }
    }

    fn answer(&mut self, name: &GroupName, answer: Option<(sixnines_core::ids::Epoch, sixnines_hwsim::domain::Answer)>) {
        if let Some((epoch, answer)) = answer {
            self.out.push(SimOutput::Answer { group: name.clone(), epoch, answer });
        }
    }

    fn mesh(&mut self, to: NodeId, frame: &Frame) {
        let bytes = postcard::to_allocvec(frame).expect("a frame in memory has an encoding");
        self.out.push(SimOutput::Send { to, link: None, door: Door::Mesh, bytes });
    }

    /// Numbers an event of this node.
    fn event(&mut self, cause: Option<EventId>) -> EventId {
        self.events += 1;
        let incarnation = self.roles.member().map(|m| m.incarnation).unwrap_or_default();
        // Before it has joined a node's events bear its life's number, which nobody else has drawn.
        let sequence = if incarnation.0 == 0 { self.life ^ self.events } else { self.events };
        let id = EventId { node: self.me, incarnation, sequence };
        self.out.push(SimOutput::Observe(Observation::Event { id, cause }));
        id
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
        std::mem::take(&mut self.out)
    }

    fn next_wake(&self, now: Instant) -> Instant {
        let copies = self.groups.values().filter_map(|g| g.copy.poll_timeout());
        let apps = self.groups.values().filter_map(|g| g.app.back_at);
        let lease = (now < self.lease).then_some(self.lease);
        let machines = [Some(self.liveness.poll_timeout()), self.roles.poll_timeout(), self.log.next_wake(), lease];
        copies.chain(apps).chain(machines.into_iter().flatten()).min().expect("liveness always has a deadline")
    }
}
