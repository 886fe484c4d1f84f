//! The core loop's machine: readings come in, events, actions and roles' requests go out.
//!
//! One input at a time, in order; the outputs of an input are complete when `handle` returns. Only the owner of an object
//! runs its policy (protocol 7.2), and what the owner knows beyond its sensors is saved for its successor (7.3). It reads no
//! clock and makes no call that can wait.

mod alarms;
mod apply;
mod change;
mod claims;
mod commands;
mod deadlines;
mod feeds;
mod input;
mod levels;
mod owner;
mod recorded;
mod run;
mod save;
mod snapshot;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use alarms::{Alarm, AlarmKey, Phase};
pub use claims::{Claim, Control as ControlState};
use deadlines::{Deadline, Deadlines};
pub use input::{
    AlarmRef, Barrier, Command, CommandBody, CommandError, CommandId, Control, ControlAction, Fact, Input, Output,
};
use recorded::Notes;
pub(crate) use recorded::{Kept, Line};
pub use snapshot::RestoreError;
pub(crate) use snapshot::cursors_of;

use crate::alarms::Severity;
use crate::bundle::Compiled;
use crate::class::Slot;
use crate::domain::limits::Limits;
use crate::event::{Body, Event, PolicyLine};
use crate::feed::Cursor;
use crate::history::History;
use crate::ids::{AttributeName, ClassName, EventId, Epoch, GroupName, Identity, Member, NodeId, ObjectName, Version};
use crate::policy::Budget;
use crate::time::{Duration, HybridTime, Instant, WallTime};
use crate::value::{Quality, Value};
use crate::world::{Ix, World};

/// Most events that one input may lead to, through policies and their effects.
pub const CASCADE_MAX: usize = 4096;
/// After as many operations as so many calls may take, policies wait for the next instant: whoever hands inputs in has to see to other things in between.
/// A call that is ended for its time may have taken ten times as long where the machine is busy, and a node is silent when its core loop is (protocol 5.3).
const TURN_CALLS: u64 = 4;
/// Answers to commands that are kept for retries.
pub const ANSWERS_MAX: usize = 1024;

/// What an engine is made with.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node in this life.
    pub me: Member,
    /// How many events `why` can look back on.
    pub history_max: usize,
    /// Whether inputs are kept: [`Output::Journal`].
    pub journal: bool,
}

/// The machine. Its owner feeds [`Engine::handle`] and carries out what [`Engine::poll_output`] gives.
#[derive(Debug)]
pub struct Engine {
    me: Member,
    journal: bool,
    world: Arc<World>,
    history: History,
    /// Roots of events from before a snapshot, whose events themselves are not here.
    old_roots: BTreeMap<EventId, EventId>,
    outputs: VecDeque<Output>,
    behind: Behind,
    /// What policies have taken of this instant, in operations.
    spent: u64,
    clock: HybridTime,
    sequence: u64,
    now: Instant,
    wall: WallTime,
    deadlines: Deadlines,
    holds: BTreeMap<(Ix, Slot), change::Hold>,
    alarms: BTreeMap<AlarmKey, Alarm>,
    controls: BTreeMap<(Ix, Slot), ControlState>,
    requests: BTreeMap<EventId, claims::Pending>,
    timers: BTreeMap<(Ix, Arc<str>), apply::Timer>,
    alive: BTreeMap<NodeId, bool>,
    seen: BTreeMap<GroupName, Epoch>,
    /// How far the events of each other node were recorded.
    cursors: BTreeMap<NodeId, Cursor>,
    hearers: BTreeMap<ClassName, Vec<Ix>>,
    failing: BTreeMap<Ix, BTreeSet<String>>,
    answers: VecDeque<(CommandId, Result<EventId, CommandError>)>,
    bundle_version: Version,
    limits: Limits,
    /// What they say of a call.
    budget: Budget,
    counts: Counts,
    hash: u32,
    notes: Notes,
}

/// What policies have yet to see. Empty between inputs, unless they took more than their part of an instant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Behind {
    /// Those that are yet to hear of the event that is being seen.
    hearers: VecDeque<(Ix, Arc<Event>)>,
    starts: VecDeque<Ix>,
    events: VecDeque<(Option<Ix>, Arc<Event>)>,
    /// How many events were seen since nothing waited.
    seen: usize,
}

impl Behind {
    fn is_empty(&self) -> bool {
        self.hearers.is_empty() && self.starts.is_empty() && self.events.is_empty()
    }
}

/// What has been let go, and how often. Each is a fault of somebody, or a bound that was reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Inputs handled.
    pub inputs: u64,
    /// Readings that changed nothing.
    pub unchanged: u64,
    /// Events made here.
    pub events: u64,
    /// Handlers called.
    pub calls: u64,
    /// Handlers that failed.
    pub failures: u64,
    /// Readings of unknown objects or attributes, or of objects owned elsewhere.
    pub strange_updates: u64,
    /// Remote events below the highest epoch seen of their group.
    pub old_epochs: u64,
    /// Remote events that came again.
    pub repeats: u64,
    /// Alarms beyond the bound.
    pub alarms_dropped: u64,
    /// Times that something was heard of an object for which there is no room.
    pub objects_refused: u64,
}

/// What led to something: an event, and where its chain begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Cause {
    id: Option<EventId>,
    root: Option<EventId>,
}

impl Cause {
    const NONE: Self = Self { id: None, root: None };

    fn of(event: &Event) -> Self {
        Self { id: Some(event.id), root: Some(event.root) }
    }
}

/// An event that has no number yet.
#[derive(Debug)]
struct Draft {
    ix: Option<Ix>,
    object: ObjectName,
    class: ClassName,
    group: Option<GroupName>,
    epoch: Epoch,
    identity: Option<Identity>,
    attribute: AttributeName,
    old: Option<Value>,
    new: Option<Value>,
    quality: Quality,
    severity: Severity,
    cause: Cause,
    why: Arc<str>,
    policy: Option<PolicyLine>,
    body: Body,
}

impl Draft {
    fn into_event(self, id: EventId, root: EventId, time: HybridTime) -> Event {
        Event {
            id,
            object: self.object,
            class: self.class,
            attribute: self.attribute,
            old: self.old,
            new: self.new,
            quality: self.quality,
            severity: self.severity,
            cause: self.cause.id,
            root,
            time,
            received: None,
            group: self.group,
            epoch: self.epoch,
            identity: self.identity,
            why: self.why,
            policy: self.policy,
            body: self.body,
        }
    }
}

impl Engine {
    /// An engine without objects; it gets them with [`Input::Bundle`] and [`Input::Domain`].
    pub fn new(config: Config) -> Self {
        Self {
            me: config.me,
            journal: config.journal,
            old_roots: BTreeMap::new(),
            notes: Notes::default(),
            world: Arc::new(World::new(Compiled::empty())),
            history: History::new(config.history_max),
            outputs: VecDeque::new(),
            behind: Behind::default(),
            spent: 0,
            clock: HybridTime::default(),
            sequence: 0,
            now: Instant::ZERO,
            wall: WallTime::default(),
            deadlines: Deadlines::default(),
            holds: BTreeMap::new(),
            alarms: BTreeMap::new(),
            controls: BTreeMap::new(),
            requests: BTreeMap::new(),
            timers: BTreeMap::new(),
            alive: BTreeMap::from([(config.me.node, true)]),
            seen: BTreeMap::new(),
            cursors: BTreeMap::new(),
            hearers: BTreeMap::new(),
            failing: BTreeMap::new(),
            answers: VecDeque::new(),
            bundle_version: Version::default(),
            limits: Limits::default(),
            budget: Budget::of(&Limits::default()),
            counts: Counts::default(),
            hash: 0,
        }
    }

    /// Takes one input. `wall` goes into stamps; nothing is decided by it.
    pub fn handle(&mut self, now: Instant, wall: WallTime, input: Input) {
        if now > self.now {
            self.now = now;
            self.spent = 0;
        }
        self.wall = wall;
        self.counts.inputs += 1;
        let at = self.outputs.len();
        let kept = self.begin_notes(&input);
        let was_behind = self.is_behind();
        match input {
            Input::Update(update) => self.on_update(update),
            Input::Command(command) => self.on_command(command),
            Input::Remote(event) => self.on_remote(event),
            Input::Level { from, event } => self.on_level(from, event),
            Input::Begin { origin, at } => self.on_begin(origin, at),
            Input::Gap(gap) => self.on_gap(&gap),
            Input::Settled { origin, alarms } => self.on_settled(origin, &alarms),
            Input::Outcome { request, outcome } => self.on_outcome(request, outcome),
            Input::Owner { group, epoch, saved } => self.on_owner(group, epoch, saved),
            Input::NotOwner { group, epoch, active } => self.on_not_owner(group, epoch, active),
            Input::Fact(fact) => self.on_fact(fact),
            Input::Domain { nodes, services } => self.on_domain(nodes, services),
            Input::Bundle(compiled) => self.on_bundle(compiled),
            Input::Limits(limits) => self.on_limits(limits),
            Input::Unheard(origin) => self.on_unheard(origin),
            Input::Timeout => {}
        }
        if was_behind {
            self.notes.touched = true;
            self.run_policies(); // before what is due is added to what waits
        }
        self.fire_deadlines();
        self.run_policies();
        if let Some(kept) = kept
            && self.notes.touched
        {
            self.keep(at, kept);
        }
    }

    /// Looks whether an input is to be kept. A reading is kept only if something comes of it, which shows later.
    fn begin_notes(&mut self, input: &Input) -> Option<Kept> {
        let told = self.notes.told.take();
        self.notes = Notes { told, touched: !matches!(input, Input::Update(_) | Input::Timeout), ..Notes::default() };
        self.journal.then(|| Kept::of(input))
    }

    /// What has to happen outside, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_behind() { Some(self.now + Duration::from_nanos(1)) } else { self.deadlines.earliest() }
    }

    /// Policies have not seen all of what has happened: they have used up their part of this instant. What can wait should, until they have.
    pub fn is_behind(&self) -> bool {
        !self.behind.is_empty()
    }

    /// The objects as they are.
    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// The last events.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Alarms, those of other nodes' objects among them as far as events told.
    pub fn alarms(&self) -> impl Iterator<Item = (&AlarmKey, &Alarm)> {
        self.alarms.iter()
    }

    /// Claims on a control, and what was asked of its driver.
    pub fn control(&self, object: &str, control: &str) -> Option<&ControlState> {
        let ix = self.world.find(object)?;
        let slot = self.world.object(ix).class.slot(control)?;
        self.controls.get(&(ix, slot))
    }

    /// All controls with claims.
    pub fn controls(&self) -> impl Iterator<Item = (&ObjectName, &AttributeName, &ControlState)> {
        self.controls.iter().map(|((ix, slot), c)| (&self.world.object(*ix).name, &self.world.attribute(*ix, *slot).name, c))
    }

    /// What has been let go, and how often.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The running hash over all events and actions, for proofs of replay.
    pub fn hash(&self) -> u32 {
        self.hash
    }

    /// The number of the last event made here.
    pub fn last_sequence(&self) -> u64 {
        self.sequence
    }

    /// The times of the last input.
    pub fn times(&self) -> (Instant, WallTime) {
        (self.now, self.wall)
    }

    /// This node in this life.
    pub fn me(&self) -> Member {
        self.me
    }

    /// The limits in force here.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The generation of the bundle in force.
    pub fn bundle_version(&self) -> Version {
        self.bundle_version
    }

    fn world_mut(&mut self) -> &mut World {
        // No handler runs now, so ours is the only reference and nothing is copied.
        Arc::make_mut(&mut self.world)
    }

    fn draft(&self, ix: Ix, attribute: &AttributeName, cause: Cause, body: Body) -> Draft {
        let object = self.world.object(ix);
        Draft {
            ix: Some(ix),
            object: object.name.clone(),
            class: object.class.name.clone(),
            group: object.owner.group().cloned(),
            epoch: object.owned.unwrap_or_default(),
            identity: object.identity.clone(),
            attribute: attribute.clone(),
            old: None,
            new: None,
            quality: Quality::Good,
            severity: Severity::Cleared,
            cause,
            why: no_text(),
            policy: None,
            body,
        }
    }

    /// Numbers an event, remembers it, sends it out, and queues it for the policies that want it.
    fn emit(&mut self, draft: Draft) -> Arc<Event> {
        self.sequence += 1;
        self.counts.events += 1;
        self.clock = self.clock.tick(self.wall);
        let id = EventId { node: self.me.node, incarnation: self.me.incarnation, sequence: self.sequence };
        let root = draft.cause.root.or_else(|| self.root_of(draft.cause.id)).unwrap_or(id);
        let (ix, time) = (draft.ix, self.clock);
        let event = Arc::new(draft.into_event(id, root, time));
        self.absorb(&event);
        self.history.push(event.clone());
        if matches!(event.body, Body::Change | Body::Alarm { .. }) && self.is_wanted(ix, &event) {
            self.behind.events.push_back((ix, event.clone()));
        }
        self.outputs.push_back(Output::Event(event.clone()));
        event
    }

    fn root_of(&self, cause: Option<EventId>) -> Option<EventId> {
        let cause = cause?;
        let root = self.history.get(cause).map(|e| e.root).or_else(|| self.old_roots.get(&cause).copied());
        Some(root.unwrap_or(cause))
    }

    /// Adds an event to the running hash.
    fn absorb(&mut self, event: &Event) {
        let mut hash = self.hash;
        let mut add = |bytes: &[u8]| hash = crc32c::crc32c_append(hash, bytes);
        add(&event.id.sequence.to_le_bytes());
        add(event.object.as_str().as_bytes());
        add(event.attribute.as_str().as_bytes());
        match &event.new {
            None => add(&[0]),
            Some(Value::Bool(b)) => add(&[1, u8::from(*b)]),
            Some(Value::Int(n)) => add(&n.to_le_bytes()),
            Some(Value::Float(x)) => add(&x.to_bits().to_le_bytes()),
            Some(Value::Text(t) | Value::Enum(t)) => add(t.as_bytes()),
        }
        add(&[event.quality as u8, event.severity as u8]);
        add(&event.cause.map_or(0, |c| c.sequence).to_le_bytes());
        self.hash = hash;
    }
}

fn no_text() -> Arc<str> {
    static EMPTY: std::sync::OnceLock<Arc<str>> = std::sync::OnceLock::new();
    EMPTY.get_or_init(|| Arc::from("")).clone()
}

/// A deadline's distance for people: `3 s`, `500 ms`.
fn shown(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis.is_multiple_of(1000) { format!("{} s", millis / 1000) } else { format!("{millis} ms") }
}
