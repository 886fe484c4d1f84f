//! The core loop: it owns the objects, the policies and the role machine of this node.
//!
//! A machine of machines: it takes one input at a time, in order, with the time, and gives orders by its [`Ways`]; it never waits for any of
//! them, nor for a disk, and reads no clock. What liveness and the control log say becomes a fact of an object first, so that every step of a
//! takeover is an event with a cause. The daemon runs it on a thread of its own (`daemon/core_thread.rs`), the simulator in virtual time.

pub(crate) mod answers;
mod feature;
pub(crate) mod feeds;
pub(crate) mod fences;
mod forget;
mod neighbours;
pub(crate) mod limits;
pub(crate) mod serial;
pub(crate) mod ways;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use sixnines_core::abroad::Interest;
use sixnines_core::authority::AccessRole;
use sixnines_core::bundle::{Compiled, shared_bundle};
use sixnines_core::domain::{Change, Domain, Entry, GroupRow, Proposal, Void};
use sixnines_core::engine::{self, Barrier, Command, CommandError, CommandId, Control, ControlAction, Engine, Fact};
use sixnines_core::event::Event;
use sixnines_core::ids::{ChassisName, Epoch, EventId, GroupName, Incarnation, LogIndex, Member, NodeId, Version};
use sixnines_core::journal::replay::Past;
use sixnines_core::roles::{self, Offer, Role, Roles, Told, Unit, Wish};
use sixnines_core::time::{Instant, WallTime};
use sixnines_core::value::{Outcome, Quality, Request, Update, Value};
use sixnines_discs::feed;
use sixnines_discs::feed::wire::{Recorded, Resume, Word};
use sixnines_discs::liveness::shell::News as LivenessNews;
use sixnines_discs::liveness::{self, Verdict};
use sixnines_discs::log::{Place, ProposeError};
use sixnines_discs::mesh::Fault;

use answers::Ask;
use feeds::Feeds;
use ways::Ways;

/// What the core loop is told.
pub(crate) enum In {
    Liveness(LivenessNews),
    Applied { index: LogIndex, proposal: Option<Proposal>, outcome: Result<Vec<Change>, Void>, domain: Arc<Domain> },
    /// What an entry has changed for objects, once it is their turn.
    Rows(Rows),
    Leader(Option<NodeId>),
    /// Who votes in the control log, and from which disk.
    Places(BTreeMap<NodeId, Place>),
    /// A proposal did nothing, or may have.
    Failed { ticket: u64, why: ProposeError },
    Told { from: NodeId, told: Told },
    /// The mesh reaches a peer, in this life of it.
    Peer { node: NodeId, life: u64 },
    /// What a peer wants to hear of, and from where on; without that it knows nothing of feeds.
    Subscribed { from: NodeId, interest: Interest, resume: Option<Resume> },
    /// A neighbour's node can be heard, or cannot.
    Heard { node: NodeId, is_heard: bool },
    /// How much of a neighbour is heard.
    Neighbour { domain: String, heard: Vec<NodeId>, silent: Vec<NodeId> },
    /// A word of a peer's feed.
    Word { from: NodeId, word: Box<Word> },
    /// How far a peer has recorded this node's events.
    Recorded { from: NodeId, recorded: Recorded },
    /// A plain event, of a peer that knows nothing of feeds.
    Remote { from: NodeId, event: Box<Event> },
    /// What this node's earlier lives left of its events.
    Past(Past),
    Update(Update),
    Outcome { request: EventId, outcome: Outcome },
    /// What came of [`Ways::fence`]: what the device said, or why nothing is proved.
    Fenced { request: EventId, result: Result<String, String> },
    /// The local unit of a service came or went.
    Unit { group: GroupName, unit: Unit, why: String },
    /// This node's gate is open for a service and its addresses are announced, so long after its keeper was given the role.
    Speaks { group: GroupName, epoch: Epoch, after: Duration },
    /// What the checkpoint service says.
    Quiesced { group: GroupName, epoch: Epoch },
    Silenced { group: GroupName, epoch: Epoch },
    Offered { group: GroupName, offer: Offer },
    /// What the last owner of a chassis had saved, now that this node is the owner.
    Saved { group: GroupName, epoch: Epoch, saved: Vec<(String, Vec<u8>)> },
    /// The set that the active lists has to change.
    Sync { group: GroupName, version: Version, in_sync: BTreeSet<Member> },
    Forwarded { from: NodeId, command: Command },
    /// What became of a command that was forwarded to its object's owner.
    Answered { id: CommandId, result: Result<EventId, CommandError> },
    Ask(Ask),
    /// The gate is whole again, or was not.
    Gate(GateState),
    /// Something is wrong between this node and somebody on a link.
    Mesh(Fault),
    /// How a serial line is.
    Serial(serial::SerialNews),
    /// How this node's certificate is.
    Certificate(CertificateNews),
    /// The journal is written again, or cannot be, and why.
    Journal(Result<(), String>),
    /// The journal's disk may have room again.
    JournalTriesAgain,
    /// What was journalled is synced: events that wait for that can go out.
    JournalSynced,
    Stop,
}

/// How this node's certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertificateNews {
    /// A word of its class.
    pub(crate) state: &'static str,
    pub(crate) until: String,
    pub(crate) serial: String,
    /// Why it has not been renewed, if it should have been.
    pub(crate) why: String,
}

/// What was found when the gate was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GateState {
    /// All is in its place.
    Whole,
    /// Somebody had taken so many pieces away; they were put back.
    Restored(usize),
    /// It cannot be put back, and why.
    Broken(String),
}

/// The loop's state.
pub(crate) struct CoreLoop<W> {
    pub(crate) me: NodeId,
    pub(crate) roles: Roles,
    pub(crate) domain: Arc<Domain>,
    /// None until this node's `Joined` has been applied: before, nothing it says has a number.
    pub(crate) engine: Option<Engine>,
    pub(crate) ways: W,
    feeds: Feeds,
    gauges: limits::Gauges,
    fences: fences::Fences,
    /// Of the last input; it goes into stamps.
    pub(crate) wall: WallTime,
    pub(crate) leader: Option<NodeId>,
    pub(crate) places: BTreeMap<NodeId, Place>,
    /// The life in which each peer was last reached.
    lives: BTreeMap<NodeId, u64>,
    /// The life that each peer says it is in; 0 until it has joined.
    incarnations: BTreeMap<NodeId, Incarnation>,
    /// The lease is over: whatever is active here says nothing.
    pub(crate) is_suspended: bool,
    /// Fewer voters than a majority are heard, and it was told.
    is_alone: bool,
    pub(crate) verdicts: BTreeMap<NodeId, Verdict>,
    /// Those that are heard and do not hear this node.
    deaf: BTreeSet<NodeId>,
    pub(crate) links: BTreeMap<NodeId, Vec<bool>>,
    serial: BTreeMap<NodeId, serial::Line>,
    neighbours: BTreeMap<String, neighbours::Reach>,
    /// Their nodes that were heard and are not any more.
    unheard: BTreeSet<NodeId>,
    pub(crate) units: BTreeMap<GroupName, Unit>,
    compiled: Option<(Version, Arc<Compiled>)>,
    tokens: u64,
    recorded: Option<(u64, EventId)>,
    /// The event by which a group's role last changed here.
    role_causes: BTreeMap<GroupName, EventId>,
    /// How its certificate is: known before its life has begun.
    certificate: Option<CertificateNews>,
    /// When the last fault of the mesh is past, if nothing more comes.
    mesh_quiet_at: Option<Instant>,
    /// The nodes that forwarded commands which are not answered yet.
    asked_by: BTreeMap<CommandId, NodeId>,
    /// Operators who wait for what becomes of a wish, by its event.
    pub(crate) wishes: Vec<answers::WaitingWish>,
    /// What is about objects, and waits for [`CoreLoop::take_word`].
    words: VecDeque<In>,
}

impl In {
    /// What keeps its order among itself and lets everything else pass. So does what an entry changes for objects: a word of an owner that came before the
    /// entry about its successor would be dropped behind it (protocol 7.1).
    fn is_about_objects(&self) -> bool {
        matches!(self, Self::Word { .. } | Self::Remote { .. } | Self::Rows(_) | Self::Speaks { .. })
    }
}

/// The group table before and after an entry.
pub(crate) struct Rows {
    before: Arc<Domain>,
    domain: Arc<Domain>,
    cause: Option<EventId>,
    why: String,
}

/// Forwarded commands that wait for their answer; at the bound the oldest one's asker finds out by its own time-out.
const ASKED_MAX: usize = 1024;
/// A fault of the mesh that goes on is reported every 10 s.
const MESH_QUIET: Duration = Duration::from_secs(30);

impl<W: Ways> CoreLoop<W> {
    pub(crate) fn new(me: NodeId, life: u64, ways: W, feeds: Feeds) -> Self {
        Self {
            me,
            roles: Roles::new(me, life),
            domain: Arc::default(),
            engine: None,
            ways,
            feeds,
            gauges: limits::Gauges::default(),
            fences: fences::Fences::default(),
            wall: WallTime::default(),
            leader: None,
            places: BTreeMap::new(),
            lives: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            is_suspended: true,
            is_alone: false,
            verdicts: BTreeMap::new(),
            deaf: BTreeSet::new(),
            links: BTreeMap::new(),
            serial: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            unheard: BTreeSet::new(),
            units: BTreeMap::new(),
            compiled: None,
            tokens: 0,
            recorded: None,
            role_causes: BTreeMap::new(),
            certificate: None,
            mesh_quiet_at: None,
            asked_by: BTreeMap::new(),
            wishes: Vec::new(),
            words: VecDeque::new(),
        }
    }

    /// Takes one input, and whatever is due by then. What others tell of their objects only joins a queue: each word may set policies going that burn their
    /// budgets, thousands may wait, and neither a role nor a question may be late for it.
    pub(crate) fn handle(&mut self, now: Instant, wall: WallTime, input: Option<In>) {
        match input {
            Some(input) if input.is_about_objects() => self.words.push_back(input),
            input => self.turn(now, wall, input),
        }
    }

    /// Takes the oldest word. Call it when there is nothing else to do; false: there is none, or policies have yet to see what was before.
    pub(crate) fn take_word(&mut self, now: Instant, wall: WallTime) -> bool {
        let word = if self.is_behind() { None } else { self.words.pop_front() };
        let is_taken = word.is_some();
        if is_taken {
            self.turn(now, wall, word);
        }
        is_taken
    }

    /// What [`CoreLoop::take_word`] would take.
    pub(crate) fn word(&self) -> Option<&In> {
        if self.is_behind() { None } else { self.words.front() }
    }

    /// Words wait, or policies have yet to see what has happened: what can wait longer should.
    pub(crate) fn is_busy(&self) -> bool {
        self.is_behind() || !self.words.is_empty()
    }

    /// How many handlers of policies this life has called.
    pub(crate) fn policy_calls(&self) -> u64 {
        self.engine.as_ref().map_or(0, |engine| engine.counts().calls)
    }

    fn is_behind(&self) -> bool {
        self.engine.as_ref().is_some_and(Engine::is_behind)
    }

    fn turn(&mut self, now: Instant, wall: WallTime, input: Option<In>) {
        self.wall = wall;
        if let Some(input) = input {
            self.take(now, input);
        }
        self.fire_timers(now);
        self.give_fence_orders();
        self.show_limits(now);
        self.move_feeds(now);
    }

    /// When something is due although nothing comes in.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let engine = self.engine.as_ref().and_then(Engine::poll_timeout);
        [self.roles.poll_timeout(), engine, self.feeds.poll_timeout(), self.mesh_quiet_at, self.wishes_due()].into_iter().flatten().min()
    }

    fn fire_timers(&mut self, now: Instant) {
        if self.roles.poll_timeout().is_some_and(|at| now >= at) {
            self.feed_roles(now, roles::Input::Timeout);
        }
        if self.engine.as_ref().and_then(Engine::poll_timeout).is_some_and(|at| now >= at) {
            self.feed_engine(now, engine::Input::Timeout);
        }
        if self.mesh_quiet_at.take_if(|at| now >= *at).is_some() {
            self.observe_part(now, "mesh", "good", "nothing more was seen of it");
        }
        self.settle_wishes(now);
    }

    fn take(&mut self, now: Instant, input: In) {
        match input {
            In::Liveness(news) => self.on_liveness(now, news),
            In::Applied { index, proposal, outcome, domain } => self.on_applied(now, index, proposal.as_ref(), &outcome, domain),
            In::Rows(rows) => self.on_rows(now, &rows),
            In::Leader(leader) => {
                self.leader = leader;
                self.feed_roles(now, roles::Input::Leader(leader));
            }
            In::Places(places) => self.on_places(now, places),
            In::Failed { ticket, why } => {
                tracing::debug!(ticket, %why, "a proposal came to nothing");
                self.feed_roles(now, roles::Input::Failed { ticket });
                self.settle_proposal(now, ticket, &why);
            }
            In::Told { from, told } => self.feed_roles(now, roles::Input::Told { from, told }),
            In::Peer { node, life } => {
                let before = self.lives.insert(node, life);
                if before != Some(life) {
                    if !node.is_abroad() {
                        self.ways.greet(node);
                        if before.is_some() {
                            self.feed_roles(now, roles::Input::Reborn(node));
                        }
                    }
                    self.unheard.remove(&node); // asked here, it need not be asked again for being heard
                    self.subscribe(now, node);
                }
            }
            In::Subscribed { from, interest, resume } => self.feeds.outlet.handle(now, feed::Input::Subscribed { from, interest, resume }),
            In::Heard { node, is_heard } => self.on_heard(now, node, is_heard),
            In::Neighbour { domain, heard, silent } => self.on_neighbour(now, domain, heard, silent),
            In::Word { from, word } => self.on_word(now, from, *word),
            In::Recorded { from, recorded } => self.feeds.outlet.handle(now, feed::Input::Recorded { from, recorded }),
            In::Remote { from, event } => self.on_plain(now, from, event),
            In::Past(past) => self.feeds.outlet.handle(now, feed::Input::Past(past)),
            In::Update(update) => self.feed_engine(now, engine::Input::Update(update)),
            In::Outcome { request, outcome } => self.feed_engine(now, engine::Input::Outcome { request, outcome }),
            In::Fenced { request, result } => self.on_fenced(now, request, result),
            In::Unit { group, unit, why } => self.on_unit(now, group, unit, &why),
            In::Speaks { group, epoch, after } => self.on_speaks(now, &group, epoch, after),
            In::Quiesced { group, epoch } => self.feed_roles(now, roles::Input::Quiesced { group, epoch }),
            In::Silenced { group, epoch } => self.feed_roles(now, roles::Input::Silenced { group, epoch }),
            In::Offered { group, offer } => self.feed_roles(now, roles::Input::Offered { group, offer }),
            In::Saved { group, epoch, saved } => self.on_saved(now, group, epoch, saved),
            In::Sync { group, version, in_sync } => self.feed_roles(now, roles::Input::Sync { group, version, in_sync }),
            In::Forwarded { from, command } => self.on_forwarded(now, from, command),
            In::Answered { id, result } => self.settle_command(id, &result),
            In::Ask(ask) => self.answer(now, ask),
            In::Gate(state) => self.on_gate(now, state),
            In::Mesh(fault) => self.on_mesh_fault(now, &fault),
            In::Serial(news) => self.on_serial(now, news),
            In::Certificate(news) => {
                self.certificate = Some(news);
                self.tell_certificate(now);
            }
            In::Journal(news) => self.on_journal(now, news),
            In::JournalTriesAgain => self.ways.journal_again(),
            In::JournalSynced | In::Stop => {}
        }
    }

    // ---- what liveness says -------------------------------------------------------------------------------------

    fn on_liveness(&mut self, now: Instant, news: LivenessNews) {
        match news {
            LivenessNews::Output(liveness::Output::Verdict { node, was, now: verdict, silent }) => {
                self.verdicts.insert(node, verdict);
                if self.is_forgotten(node) {
                    return; // known from what was written down before, and no node of this domain any more
                }
                tracing::info!(%node, was = was.as_str(), now = verdict.as_str(), ?silent, "verdict");
                let why = format!("{} -> {}, silent for {:.1} ms on all links", was.as_str(), verdict.as_str(), silent.as_secs_f64() * 1e3);
                let cause = self.tell_verdict(now, node, verdict, &why);
                self.feed_roles(now, roles::Input::Verdict { node, lost: verdict.is_lost(), cause });
                self.feeds.outlet.handle(now, feed::Input::Reach { node, is_reachable: !verdict.is_lost() });
                self.tell_reach(node);
                self.tell_serial(now, node, Some(cause));
                self.follow_majority(now);
            }
            LivenessNews::Output(liveness::Output::Cut { from, to, cut }) => {
                tracing::info!(%from, %to, cut, "whether nothing arrives");
                self.feed_roles(now, roles::Input::Cut { from, to, cut });
                if from == self.me {
                    if cut { self.deaf.insert(to) } else { self.deaf.remove(&to) };
                    self.tell_reach(to);
                }
            }
            LivenessNews::Output(liveness::Output::Life { node, incarnation }) => drop(self.incarnations.insert(node, incarnation)),
            LivenessNews::Output(liveness::Output::Release(release)) => self.feed_roles(now, roles::Input::Release(release)),
            LivenessNews::Output(liveness::Output::Link { node, link, up }) => {
                let links = self.links.entry(node).or_default();
                let index = usize::from(link.0);
                if links.len() <= index {
                    links.resize(index + 1, false);
                }
                links[index] = up;
                self.ways.link(node, link, up);
                tracing::info!(%node, %link, up, "link");
            }
            LivenessNews::Output(liveness::Output::Paused(late)) => tracing::debug!(?late, "this node was not scheduled"),
            LivenessNews::Output(liveness::Output::Send { .. } | liveness::Output::Lease(_)) => {}
            LivenessNews::Suspended(suspended) => {
                self.is_suspended = suspended;
                let why = if suspended { "the lease is over" } else { "the lease runs" };
                let cause = self.observe(now, &node_object(self.me), "lease", Some(Value::Text(why.into())), Quality::Good, None, "", false);
                self.feed_roles(now, roles::Input::Suspended(suspended.then_some(cause)));
                self.follow_majority(now);
            }
        }
    }

    /// Rule 1.8: without a majority of the voters nothing can be taken over from here. Each node says so of itself: it may be the last one there is.
    fn follow_majority(&mut self, now: Instant) {
        if self.engine.is_none() {
            return;
        }
        let is_heard = |n: &NodeId| *n == self.me || self.verdicts.get(n) == Some(&Verdict::Alive);
        let (heard, voters) = (self.domain.config.voters().filter(is_heard).count(), self.domain.config.voters().count());
        let is_alone = self.is_suspended && heard < self.domain.majority();
        if std::mem::replace(&mut self.is_alone, is_alone) != is_alone {
            self.observe_part(now, "majority", if is_alone { "lost" } else { "heard" }, &format!("{heard} of {voters} voters are heard"));
        }
    }

    /// A copy that this node's writes do not get to is as good as one that is gone.
    fn tell_reach(&mut self, node: NodeId) {
        let is_lost = self.verdicts.get(&node).is_some_and(|v| v.is_lost());
        if let Some(member) = self.domain.member(node) {
            self.ways.reach(member, !is_lost && !self.deaf.contains(&node));
        }
    }

    fn tell_verdict(&mut self, now: Instant, node: NodeId, verdict: Verdict, why: &str) -> EventId {
        let quality = if verdict == Verdict::Unknown { Quality::Missing } else { Quality::Good };
        let value = (verdict != Verdict::Unknown).then(|| word(verdict.as_str()));
        self.observe(now, &node_object(node), "state", value, quality, None, why, false)
    }

    fn on_gate(&mut self, now: Instant, state: GateState) {
        let (state, why) = match state {
            GateState::Whole => ("whole", String::new()),
            GateState::Restored(pieces) => ("tampered", format!("{pieces} pieces had been taken away and were put back")),
            GateState::Broken(why) => ("broken", why),
        };
        self.observe_part(now, "gate", state, &why);
    }

    fn on_mesh_fault(&mut self, now: Instant, fault: &Fault) {
        let state = match fault {
            Fault::Untrusted { .. } => "strangers",
            Fault::Distrusted { .. } | Fault::Refused { .. } => "refused",
            Fault::Broken { .. } => "garbled",
            Fault::Panicked { .. } => return, // a fault of our own, mended by the mesh itself and counted
        };
        self.mesh_quiet_at = Some(now + MESH_QUIET);
        self.observe_part(now, "mesh", state, &fault.to_string());
    }

    fn on_journal(&mut self, now: Instant, news: Result<(), String>) {
        let (state, why) = news.map_or_else(|why| ("failing", why), |()| ("written", String::new()));
        self.observe_part(now, "journal", state, &why);
    }

    fn tell_certificate(&mut self, now: Instant) {
        let Some(CertificateNews { state, until, serial, why }) = self.certificate.clone() else { return };
        let object = format!("{}/certificate", node_object(self.me));
        for (attribute, text) in [("until", until), ("serial", serial)] {
            self.observe(now, &object, attribute, Some(Value::Text(text.as_str().into())), Quality::Good, None, "", false);
        }
        self.observe_part(now, "certificate", state, &why);
    }

    /// How a part of this node is: its gate, mesh or journal.
    fn observe_part(&mut self, now: Instant, part: &str, state: &str, why: &str) {
        let object = format!("{}/{part}", node_object(self.me));
        self.observe(now, &object, "state", Some(word(state)), Quality::Good, None, why, false);
    }

    // ---- what the control log says ------------------------------------------------------------------------------

    fn on_applied(&mut self, now: Instant, index: LogIndex, proposal: Option<&Proposal>, outcome: &Result<Vec<Change>, Void>, domain: Arc<Domain>) {
        let before = std::mem::replace(&mut self.domain, Arc::clone(&domain));
        if before.level != domain.level {
            tracing::info!(level = %domain.level, was = %before.level, "feature level");
        }
        self.follow_configuration(now, &before);
        self.tell_forgotten(now, &before, proposal.and_then(|p| p.cause));
        self.feed_roles(now, roles::Input::Applied(Arc::clone(&domain)));
        self.follow_membership(now);
        let cause = proposal.and_then(|p| p.cause);
        if before.groups != domain.groups {
            let rows = Rows { before, domain, cause, why: evidence(index, proposal) };
            match self.engine {
                Some(_) => self.words.push_back(In::Rows(rows)),
                None => self.on_rows(now, &rows), // without a life it has heard nothing
            }
        }
        if let Some(proposal) = proposal.filter(|p| p.by == self.me) {
            self.settle_applied(proposal.ticket, outcome);
        }
    }

    fn on_rows(&mut self, now: Instant, rows: &Rows) {
        for (name, row) in &rows.domain.groups {
            let before = rows.before.groups.get(name);
            if before != Some(row) {
                self.tell_group(now, name, row, before, rows.cause, &rows.why);
            }
        }
    }

    fn on_places(&mut self, now: Instant, places: BTreeMap<NodeId, Place>) {
        let before = std::mem::replace(&mut self.places, places.clone());
        let is_stranger = |places: &BTreeMap<NodeId, Place>, node| places.get(node).is_some_and(|p| p.is_stranger);
        for node in before.keys().chain(places.keys()).collect::<BTreeSet<_>>() {
            let (disk, why) = match (is_stranger(&before, node), is_stranger(&places, node)) {
                (false, true) => ("foreign", "it speaks from another disk than the one that the control log knows, or from an older state of it"),
                (true, false) => ("known", "it is the one that the control log knows"),
                _ => continue,
            };
            self.observe(now, &node_object(*node), "disk", Some(word(disk)), Quality::Good, None, why, false);
        }
    }

    fn follow_configuration(&mut self, now: Instant, before: &Domain) {
        if before.config_version != self.domain.config_version {
            self.ways.configured(&self.domain.config);
            self.follow_limits(now);
            self.give_domain(now);
        }
        if before.bundle_version != self.domain.bundle_version || self.compiled.is_none() {
            match shared_bundle(&self.domain.bundle) {
                Ok(compiled) => self.compiled = Some((self.domain.bundle_version, compiled)),
                // It was checked before it was committed; a version that reads it otherwise keeps the one that runs.
                Err(errors) => tracing::error!(errors = errors.len(), first = errors.first().map(ToString::to_string), "the bundle in force cannot be compiled here"),
            }
            self.give_objects(now);
        }
    }

    /// The engine gets classes, policies, nodes and services.
    fn give_objects(&mut self, now: Instant) {
        let Some((_, compiled)) = self.compiled.clone() else { return };
        if self.engine.is_none() {
            return;
        }
        if let Some(clock) = self.ways.policy_clock() {
            compiled.watch.install(clock);
        }
        self.follow_limits(now); // before the objects that they bound
        self.feed_engine(now, engine::Input::Bundle(compiled));
        self.give_domain(now);
    }

    fn give_domain(&mut self, now: Instant) {
        let nodes: Vec<(NodeId, ChassisName)> = self.domain.config.nodes.iter().map(|n| (n.id, n.chassis.clone())).collect();
        let services = self.domain.config.services.iter().map(|s| s.name.clone()).collect();
        self.feed_engine(now, engine::Input::Domain { nodes, services });
    }

    /// Called once this node's own life has begun.
    fn follow_membership(&mut self, now: Instant) {
        let Some(me) = self.roles.member() else { return };
        if self.engine.is_none() {
            let cursors = self.feeds.begin(now, me);
            self.engine = Some(Engine::new(engine::Config { me, history_max: HISTORY_MAX, journal: true }).resume(cursors));
            tracing::info!(member = %me, "joined");
            for peer in self.lives.keys().copied().collect::<Vec<_>>() {
                self.subscribe(now, peer); // not before: what they tell has to find its objects
            }
            self.give_objects(now);
            // What liveness has found before: else this node would hold itself for the lowest one alive, and alarms about the others for true.
            // And that it is well itself, which nobody else can tell it: it may be the one who owns what was said of it while it was away.
            let known: Vec<_> = self.verdicts.iter().filter(|(n, _)| !self.is_forgotten(**n)).map(|(n, v)| (*n, *v)).collect();
            let verdicts = known.into_iter().chain([(self.me, Verdict::Alive)]);
            for (peer, verdict) in verdicts {
                self.tell_verdict(now, peer, verdict, "as this node found it when it joined");
            }
            self.tell_certificate(now);
            self.tell_neighbours(now);
            for peer in self.serial.keys().copied().collect::<Vec<_>>() {
                self.tell_serial(now, peer, None);
            }
            let domain = Arc::clone(&self.domain);
            for (name, row) in &domain.groups {
                self.tell_group(now, name, row, None, None, "the control log, as this node found it");
            }
        }
    }

    /// A group's row has changed: objects and drivers follow.
    fn tell_group(&mut self, now: Instant, name: &GroupName, row: &GroupRow, before: Option<&GroupRow>, cause: Option<EventId>, why: &str) {
        let is_service = self.domain.config.service(name).is_some();
        let active = row.active.filter(|m| self.domain.is_current(*m));
        let epoch_changed = before.is_none_or(|b| b.epoch != row.epoch || b.active != row.active);
        if epoch_changed {
            self.tell_ownership(now, name, row.epoch, active); // before the facts: only an owner makes events of them
        }
        if is_service {
            let object = format!("/services/{name}");
            let text = active.map_or_else(|| "none".to_owned(), |m| m.node.to_string());
            let mut last = cause;
            if epoch_changed {
                last = Some(self.observe(now, &object, "active", Some(Value::Text(text.as_str().into())), Quality::Good, cause, why, true));
                let epoch = i64::try_from(row.epoch.0).unwrap_or(i64::MAX);
                self.observe(now, &object, "epoch", Some(Value::Int(epoch)), Quality::Good, last, why, true);
            }
            let has_standby = row.in_sync.iter().any(|m| Some(*m) != active && self.domain.is_current(*m));
            let state = if active.is_some() { "serving" } else { "stopped" };
            let standby = if has_standby { "in-sync" } else { "none" };
            self.observe(now, &object, "state", Some(word(state)), Quality::Good, last, why, true);
            self.observe(now, &object, "standby", Some(word(standby)), Quality::Good, last, why, true);
            if let Some(last) = last {
                self.role_causes.insert(name.clone(), last);
            }
        }
    }

    /// A chassis' owner begins when its checkpoint has told all that the last one knew; a service's state is its application's own.
    fn tell_ownership(&mut self, now: Instant, name: &GroupName, epoch: Epoch, active: Option<Member>) {
        let is_mine = active.is_some() && active == self.roles.member();
        if !is_mine {
            self.feed_engine(now, engine::Input::NotOwner { group: name.clone(), epoch, active });
            // These rows may have waited, and the role may have come back in the meantime.
            if !matches!(self.roles.role(name), Some(Role::Active(_))) {
                self.ways.drive(name, None);
            }
        } else if self.domain.config.service(name).is_some() {
            self.feed_engine(now, engine::Input::Owner { group: name.clone(), epoch, saved: Vec::new() });
            // The last active may have lost its process; this one has another.
            if let Some(unit) = self.units.get(name).copied() {
                self.tell_process(now, name, unit, "the unit of the new active");
            }
        }
    }

    fn tell_process(&mut self, now: Instant, group: &GroupName, unit: Unit, why: &str) -> EventId {
        self.observe(now, &format!("/services/{group}"), "process", Some(word(unit_word(unit))), Quality::Good, None, why, false)
    }

    /// A chassis that is handed over or given up: what its owner would still do or note would be missing from the successor's copy.
    /// Should nothing come of it, the checkpoint makes it the owner again ([`Self::on_saved`]).
    fn stop_owning(&mut self, now: Instant, name: &GroupName, epoch: Epoch) {
        if self.domain.config.service(name).is_none() {
            self.feed_engine(now, engine::Input::NotOwner { group: name.clone(), epoch, active: None });
            self.ways.drive(name, None);
        }
    }

    fn on_saved(&mut self, now: Instant, group: GroupName, epoch: Epoch, saved: Vec<(String, Vec<u8>)>) {
        if self.roles.role(&group) != Some(Role::Active(epoch)) {
            return;
        }
        self.feed_engine(now, engine::Input::Owner { group: group.clone(), epoch, saved });
        self.ways.drive(&group, Some(epoch));
    }

    fn on_unit(&mut self, now: Instant, group: GroupName, unit: Unit, why: &str) {
        self.units.insert(group.clone(), unit);
        // What every node sees of its own unit is that node's observation; the object's own attribute is the active's.
        let is_active = matches!(self.roles.role(&group), Some(Role::Active(_)));
        let cause = if is_active {
            self.tell_process(now, &group, unit, why)
        } else {
            let value = Value::Text(format!("{group}: {}", unit_word(unit)).as_str().into());
            self.observe(now, &node_object(self.me), "unit", Some(value), Quality::Good, None, why, false)
        };
        self.feed_roles(now, roles::Input::Unit { group, unit, cause });
    }

    /// The last step of a takeover: from here on a client can be answered.
    fn on_speaks(&mut self, now: Instant, group: &GroupName, epoch: Epoch, after: Duration) {
        if self.roles.role(group) != Some(Role::Active(epoch)) {
            return;
        }
        let cause = self.role_causes.get(group).copied();
        let why = format!("gate open and addresses announced {:.1} ms after the role was given", after.as_secs_f64() * 1000.0);
        let speaker = Value::Text(self.me.to_string().as_str().into());
        self.observe(now, &format!("/services/{group}"), "speaks", Some(speaker), Quality::Good, cause, &why, false);
    }

    // ---- the machines and what they ask for ---------------------------------------------------------------------

    /// Makes a fact of something seen, and gives the event that it became.
    #[expect(clippy::too_many_arguments, reason = "the fields of one fact, in the order in which people say them")]
    pub(crate) fn observe(&mut self, now: Instant, object: &str, attribute: &str, value: Option<Value>, quality: Quality, cause: Option<EventId>, why: &str, shared: bool) -> EventId {
        self.tokens += 1;
        let token = self.tokens;
        self.recorded = None;
        let fact = Fact { object: object.into(), attribute: attribute.into(), value, quality, cause, why: why.into(), shared, token };
        self.feed_engine(now, engine::Input::Fact(fact));
        match self.recorded {
            Some((recorded, event)) if recorded == token => event,
            _ => EventId { node: self.me, ..EventId::default() }, // before this node's life has begun nothing has a number
        }
    }

    pub(crate) fn feed_engine(&mut self, now: Instant, input: engine::Input) {
        let wall = self.wall;
        let Some(engine) = &mut self.engine else { return };
        engine.handle(now, wall, input);
        while let Some(output) = self.engine.as_mut().and_then(Engine::poll_output) {
            self.carry_out(now, output);
        }
    }

    fn carry_out(&mut self, now: Instant, output: engine::Output) {
        match output {
            engine::Output::Event(event) => {
                let mut after = 0;
                if event.waits_for_sync() {
                    self.ways.sync_journal();
                    after = self.ways.journalled().handed;
                }
                self.feeds.outlet.handle(now, feed::Input::Event { event: Arc::clone(&event), after });
                self.ways.publish(&event);
            }
            engine::Output::Heard(event) => self.ways.publish(&event),
            engine::Output::Journal(record) => self.ways.journal(record),
            engine::Output::Act { request, after } => self.act(request, after),
            engine::Output::Control(action) => self.on_control(now, action),
            engine::Output::Save { group, key, bytes } => self.ways.save(&group, &key, bytes),
            engine::Output::Reply { id, result } => match self.asked_by.remove(&id) {
                Some(from) => self.ways.answer(from, id, &result),
                None => self.settle_command(id, &result),
            },
            engine::Output::Forward { group, command } => self.forward(now, group.as_ref(), command),
            engine::Output::Recorded { token, event } => self.recorded = Some((token, event)),
        }
    }

    fn act(&mut self, request: Request, after: Barrier) {
        if after == Barrier::Replicated {
            self.ways.sync_journal();
        }
        self.ways.act(request);
    }

    fn on_control(&mut self, now: Instant, action: ControlAction) {
        let wish = match action.what {
            Control::EvacuateChassis(chassis) => Wish::EvacuateChassis(chassis),
            Control::EvacuateNode(node) => Wish::EvacuateNode(node),
            Control::Failover(group) | Control::Switchover(group) => Wish::Switchover { group, to: None },
        };
        self.feed_roles(now, roles::Input::Move { wish, cause: action.cause });
    }

    fn forward(&mut self, now: Instant, group: Option<&GroupName>, command: Command) {
        let owner = group.and_then(|g| self.domain.groups.get(g)).and_then(|r| r.active).map(|m| m.node);
        let owner = owner.or_else(|| self.engine.as_ref()?.owner_of(command.body.object().as_str()));
        match owner {
            Some(node) if node != self.me => self.ways.forward(node, &command),
            Some(_) => self.feed_engine(now, engine::Input::Command(command)),
            None => tracing::warn!(object = %command.body.object(), "nobody owns what a policy wants to change"),
        }
    }

    /// A node has let its caller in and passes on as whom; what takes an administrator is asked for at the owner itself.
    fn on_forwarded(&mut self, now: Instant, from: NodeId, mut command: Command) {
        tracing::debug!(%from, ?command, "a node asks");
        if command.principal.role == AccessRole::Admin {
            command.principal.role = AccessRole::Operator;
        }
        if self.asked_by.len() >= ASKED_MAX {
            self.asked_by.pop_first();
        }
        self.asked_by.insert(command.id, from);
        self.feed_engine(now, engine::Input::Command(command));
    }

    pub(crate) fn feed_roles(&mut self, now: Instant, input: roles::Input) {
        self.roles.handle(now, input);
        while let Some(output) = self.roles.poll_output() {
            self.on_role_output(now, output);
        }
    }

    fn on_role_output(&mut self, now: Instant, output: roles::Output) {
        match output {
            roles::Output::Propose { ticket, entry, cause } => {
                tracing::debug!(ticket, ?entry, "propose");
                let cause = cause.filter(|c| c.sequence != 0);
                self.ways.propose(Proposal { by: self.me, ticket, cause, entry });
            }
            roles::Output::Role { group, role } => {
                tracing::info!(%group, ?role, "role");
                self.ways.role(&group, role);
            }
            roles::Output::Replicas { group, nodes } => self.ways.prefer(&group, nodes),
            roles::Output::Quiesce { group, epoch, to } => {
                self.stop_owning(now, &group, epoch);
                self.ways.quiesce(&group, epoch, to);
            }
            roles::Output::Resume { group, epoch } => self.ways.resume(&group, epoch),
            roles::Output::Relinquish { group, epoch } => {
                tracing::info!(%group, %epoch, "relinquishes");
                self.stop_owning(now, &group, epoch);
                self.ways.relinquish(&group, epoch);
            }
            roles::Output::Offer { group, version } => self.ways.offer(&group, version),
            roles::Output::Tell { to, told } => self.ways.tell(to, &told),
            roles::Output::TransferLeader { to } => {
                tracing::info!(%to, "hands the control log's leadership over");
                self.ways.transfer_leader(to);
            }
            roles::Output::Campaign { against } => {
                tracing::info!(%against, "campaigns for the control log's leadership");
                self.ways.campaign(against);
            }
            roles::Output::Fence { request, target, group, cause } => self.ask_for_fence(now, request, target, &group, cause),
            roles::Output::FenceDropped { target } => self.drop_fence(now, target),
            roles::Output::Refused { cause, reason } => self.refused(now, cause, &reason),
        }
    }
}

/// The last so many events can be asked about.
const HISTORY_MAX: usize = 20_000;

pub(crate) fn node_object(node: NodeId) -> String {
    format!("/nodes/{node}")
}

pub(crate) fn word(text: &str) -> Value {
    Value::Enum(text.into())
}

fn unit_word(unit: Unit) -> &'static str {
    match unit {
        Unit::Ready => "running",
        Unit::Gone => "dead",
        Unit::Absent => "stopped",
    }
}

/// What an entry was decided on, for people.
fn evidence(index: LogIndex, proposal: Option<&Proposal>) -> String {
    let Some(proposal) = proposal else { return format!("log up to entry {index}") };
    let what = match &proposal.entry {
        Entry::Takeover { evidence: sixnines_core::domain::Evidence::Released(releases), .. } if releases.is_empty() => "takeover, the old active's life is over".to_owned(),
        Entry::Takeover { evidence: sixnines_core::domain::Evidence::Released(releases), .. } => {
            let voters: Vec<String> = releases.iter().map(|r| r.voter.node.to_string()).collect();
            format!("takeover, released by {}", voters.join(" "))
        }
        Entry::Takeover { .. } => "takeover, the old active gave it up".to_owned(),
        Entry::Switchover { .. } => "switchover".to_owned(),
        Entry::Start { .. } => "start".to_owned(),
        Entry::Sync { in_sync, .. } => {
            let nodes: Vec<String> = in_sync.iter().map(|m| m.node.to_string()).collect();
            format!("in sync {{{}}}", nodes.join(" "))
        }
        Entry::Joined { node, .. } => format!("{node} joined"),
        Entry::Confirm { node, .. } => format!("{} is back", node.node),
        Entry::DiskLost { node, .. } => format!("the disk of {node} is given up"),
        Entry::Invite { seat, .. } => format!("{} is invited", seat.id),
        Entry::Admit { node, .. } => format!("{node} is let in"),
        Entry::Expel { node } => format!("{node} is expelled"),
        Entry::Fenced { target, evidence, .. } => format!("{} is off: {evidence}", target.node),
        Entry::Feature { level } => format!("feature level {level}"),
        _ => "configuration".to_owned(),
    };
    format!("log entry {index}: {what}, asked by {}", proposal.by)
}
