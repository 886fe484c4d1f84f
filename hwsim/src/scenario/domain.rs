//! A stage: a whole domain in virtual time. The nodes are the product's own machines ([`crate::domain`]), the shelves are simulated
//! chassis, and every invariant is judged throughout.
//!
//! How things are is what the domain itself says: an object's value and alarms as its owner sees them, a role as the control log has it
//! and the node has taken it. What a node without a lease says counts for nothing, as in the product. Faults are kept as a list, and what
//! they do together is made true after each change, so that the end of one needs no undoing and two that overlap leave nothing behind.

mod faults;
mod look;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sixnines_core::bundle::Compiled;
use sixnines_core::domain::config::chassis_group;
use sixnines_core::engine::CommandBody;
use sixnines_core::ids::{AttributeName, ChassisName, GroupName, Incarnation, NodeId, ObjectName};
use sixnines_core::time::{Duration, Instant};
use sixnines_core::value::{Update, Value};

use super::Setting;
use super::condition::RoleWord;
use super::owner::standing;
use super::stage::{Breach, Mend, Occurrence, Stage};
use super::step::Wish;
use crate::chassis::Injection;
use crate::domain::chaos::draw::Ground;
use crate::domain::chaos::serve;
use crate::domain::{DiskChange, MS, News, Order, Setup, Ticket, Truth, World, safely};
use faults::{Active, Run};

/// A domain with whoever plays on it.
pub struct DomainStage {
    world: World,
    setting: Setting,
    ground: Ground,
    services: Vec<GroupName>,
    /// The truth at which the scenario begins.
    began: Truth,
    now: Instant,
    faults: Vec<Active>,
    /// What is done to each node, as far as it has been done.
    runs: BTreeMap<NodeId, Run>,
    dark: BTreeSet<ChassisName>,
    disks: Vec<(NodeId, DiskChange)>,
    /// What drivers of other things than chassis read last.
    readings: BTreeMap<(ObjectName, AttributeName), Update>,
    refreshed: Instant,
    /// The longest outage of each service, up to `looked`.
    outages: BTreeMap<GroupName, Truth>,
    looked: Truth,
    occurrences: Vec<Occurrence>,
    /// The newest event of each node in each of its lives.
    told: BTreeMap<(NodeId, Incarnation), u64>,
    /// Orders that are not answered yet, as the story has them.
    orders: BTreeMap<Ticket, String>,
    replies: BTreeMap<Ticket, Result<String, String>>,
    refusals: Vec<(String, String)>,
    tickets: u64,
    breach: Option<Breach>,
}

impl DomainStage {
    /// A domain that has formed and serves; a cold one is as the power comes on.
    pub fn new(setting: &Setting, setup: Setup) -> Self {
        let ground = setting.domain.as_ref().map(|domain| Ground::of(&domain.config)).expect("a scenario of a domain has one");
        let is_cold = setting.domain.as_ref().is_some_and(|domain| domain.is_cold);
        let services = setup.services.clone();
        let mut this = Self {
            runs: setup.nodes.iter().map(|node| (*node, Run::Up)).collect(),
            outages: if setup.clients > 0 { services.iter().map(|service| (service.clone(), 0)).collect() } else { BTreeMap::new() },
            world: World::new(setup),
            setting: setting.clone(),
            ground,
            services,
            dark: BTreeSet::new(),
            disks: Vec::new(),
            began: 0,
            now: Instant::ZERO,
            faults: Vec::new(),
            readings: BTreeMap::new(),
            refreshed: Instant::ZERO,
            looked: 0,
            occurrences: Vec::new(),
            told: BTreeMap::new(),
            orders: BTreeMap::new(),
            replies: BTreeMap::new(),
            refusals: Vec::new(),
            tickets: PLACED_MAX,
            breach: None,
        };
        if !is_cold {
            this.safely(Self::form);
        }
        this.began = this.world.now();
        this.looked = this.began;
        this.world.listen();
        let engines = this.world.nodes().into_iter().filter_map(|node| Some(this.world.view(node)?.engine));
        this.told = engines.map(|engine| ((engine.me().node, engine.me().incarnation), engine.last_sequence())).collect();
        this
    }

    /// The world itself, for who wants to look closer.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Until every service and every shelf has its active, clients are served, and leadership is where it belongs.
    fn form(&mut self) -> Result<(), String> {
        let shelves = self.ground.chassis.iter().filter(|(_, nodes)| !nodes.is_empty()).map(|(name, _)| chassis_group(name.as_str()));
        let groups: Vec<GroupName> = self.services.iter().cloned().chain(shelves).collect();
        let has_actives = |world: &World| groups.iter().all(|group| world.active(group).is_some());
        let most = FORMED_MAX.max(400 * self.ground.dead_after);
        self.world.run_until(most, "every service and every shelf has its active", has_actives)?;
        if !self.outages.is_empty() {
            serve(&mut self.world, &self.ground, &self.services, "the domain forms and serves")?;
        }
        self.world.run(self.ground.formed())?;
        self.place(&groups)
    }

    /// Everything is active where its configuration prefers it: where it came to be depends on who was up first.
    fn place(&mut self, groups: &[GroupName]) -> Result<(), String> {
        let config = self.setting.domain.as_ref().map(|domain| &domain.config);
        let preferred: Vec<(GroupName, NodeId)> = groups.iter().filter_map(|group| Some((group.clone(), *config?.candidates(group).first()?))).collect();
        let is_placed = |world: &World, (group, node): &(GroupName, NodeId)| world.active(group).is_some_and(|(active, _)| active == *node);
        for turn in 0..PLACED_MAX {
            let Some((service, node)) = preferred.iter().find(|wanted| !is_placed(&self.world, wanted)).cloned() else {
                return if turn == 0 { Ok(()) } else { self.world.run(self.ground.formed()) };
            };
            // Only a complete copy can be moved to: if the preferred node has none, it gets one once the other chassis is active.
            let to = (turn % 2 == 0).then_some(node);
            if let Some(at) = self.observer() {
                self.world.order_at(at, Ticket(turn), Order::Switchover { service, to });
            }
            self.world.run(self.ground.settled())?;
        }
        Err("the services cannot be brought to where they are preferred".to_owned())
    }

    /// Whatever the product does, a broken assertion too, is a breach of this scenario and of no other.
    fn safely(&mut self, act: impl FnOnce(&mut Self) -> Result<(), String>) {
        let outcome = safely(|| act(self)).and_then(|outcome| outcome);
        if let (Err(what), None) = (outcome, &self.breach) {
            let lines = &self.world.trace().lines;
            let story = lines.iter().skip(lines.len().saturating_sub(STORY_MAX)).cloned().collect();
            self.breach = Some(Breach { what, story });
        }
    }

    /// Lets the world go on, at most until then; it stops when it has news.
    fn advance(&mut self, to: Instant) {
        let span = (self.began + to.as_nanos()).saturating_sub(self.world.now());
        self.safely(|this| this.world.run(span));
        self.now = Instant::from_nanos(self.world.now() - self.began).min(to);
        if self.breach.is_some() {
            return;
        }
        for (service, longest) in &mut self.outages {
            *longest = (*longest).max(self.world.outage(service, self.looked));
        }
        self.looked = self.world.now();
    }

    /// Takes in what has happened; whether anything has.
    fn hear(&mut self) -> bool {
        let news = self.world.take_news();
        let has_news = !news.is_empty();
        let is_heard = self.heard();
        for piece in news {
            match piece {
                News::Event(node, event) if is_heard.contains(&node) => {
                    // Who joins is told how things are: that is nothing new.
                    let last = self.told.entry((node, event.id.incarnation)).or_default();
                    if event.id.sequence > *last {
                        *last = event.id.sequence;
                        self.occurrences.push(Occurrence::of(&event, self.now));
                    }
                }
                News::Event(..) | News::Role(..) | News::Halted(..) => {}
                News::Replied(ticket, outcome) => self.replied(ticket, outcome),
            }
        }
        has_news
    }

    /// An order that fails after all is told; one that was waited for is put down.
    fn replied(&mut self, ticket: Ticket, outcome: Result<String, String>) {
        match (self.orders.remove(&ticket), outcome) {
            (Some(text), Err(why)) => self.refusals.push((text, why)),
            (Some(_), Ok(_)) => {}
            (None, outcome) => drop(self.replies.insert(ticket, outcome)),
        }
    }

    /// Gives an order; what is answered at once is the answer, the rest is heard later.
    fn order(&mut self, at: NodeId, order: Order, text: String) -> Result<(), String> {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.world.order_at(at, ticket, order);
        self.hear();
        match self.replies.remove(&ticket) {
            Some(outcome) => outcome.map(drop),
            None => {
                self.orders.insert(ticket, text);
                Ok(())
            }
        }
    }

    /// A reading goes to the node that owns its object.
    fn give_reading(&mut self, update: &Update) -> Result<(), String> {
        let owner = self.owner(&update.object).filter(|owner| self.world.view(*owner).is_some());
        let Some(owner) = owner else { return Err(format!("no node that is up owns {}", update.object)) };
        let strange = |world: &World| world.view(owner).map(|view| view.engine.counts().strange_updates);
        let before = strange(&self.world);
        self.world.give(owner, crate::domain::SimInput::Readings(std::slice::from_ref(update)));
        if strange(&self.world) > before { Err(format!("{owner} does not own {}", update.object)) } else { Ok(()) }
    }

    /// Drivers say everything once a second.
    fn refresh(&mut self) {
        if self.now < self.refreshed + REFRESH {
            return;
        }
        self.refreshed = self.now;
        let all: Vec<Update> = self.readings.values().cloned().collect();
        for update in all {
            // A node that is down reads nothing.
            drop(self.give_reading(&update));
        }
    }

    fn next(&self, to: Instant) -> Instant {
        let ends = self.faults.iter().filter_map(|fault| fault.until);
        let refresh = (!self.readings.is_empty()).then_some(self.refreshed + REFRESH);
        ends.chain(refresh).fold(to, Instant::min).max(self.now)
    }
}

impl Stage for DomainStage {
    fn step(&mut self, to: Instant) -> Result<Instant, String> {
        loop {
            let next = self.next(to);
            self.advance(next);
            if self.breach.is_some() {
                self.hear();
                return Ok(self.now);
            }
            self.end_faults(|this, fault| fault.until.is_some_and(|until| until <= this));
            self.follow();
            self.refresh();
            if self.hear() || self.now >= to {
                return Ok(self.now);
            }
        }
    }

    fn breach(&self) -> Option<Breach> {
        self.breach.clone()
    }

    fn end(&mut self) {
        if self.breach.is_none() {
            self.safely(|this| this.world.prove_journals());
        }
    }

    fn inject(&mut self, injection: &Injection) -> Result<(), String> {
        self.begin(injection)?;
        self.follow();
        self.hear();
        Ok(())
    }

    fn mend(&mut self, what: &Mend) -> Result<(), String> {
        let ended = self.end_faults(|_, fault| what.matches(&fault.injection));
        if ended == 0 && *what != Mend::All {
            return Err("no such fault is in force".to_owned());
        }
        self.follow();
        self.hear();
        Ok(())
    }

    fn read(&mut self, reading: &Update) -> Result<(), String> {
        self.readings.insert((reading.object.clone(), reading.attribute.clone()), reading.clone());
        let outcome = self.give_reading(reading);
        self.hear();
        outcome
    }

    fn command(&mut self, body: &CommandBody) -> Result<(), String> {
        let object = body.object().clone();
        let owner = self.owner(&object).filter(|owner| self.world.view(*owner).is_some());
        let owner = owner.ok_or_else(|| format!("no node that is up owns {object}"))?;
        self.order(owner, Order::Command(body.clone()), format!("a command to {object}"))
    }

    fn ask(&mut self, wish: &Wish) -> Result<(), String> {
        let (order, text) = match wish {
            Wish::Readmit(node) if self.world.readmit(*node) => {
                self.hear();
                return Ok(());
            }
            Wish::Readmit(node) => return Err(format!("the disk of {node} is the one that it had")),
            Wish::Switchover { service, to } => (Order::Switchover { service: service.clone(), to: *to }, format!("switchover {service}")),
            Wish::Start(service) => (Order::Start(service.clone()), format!("start {service}")),
        };
        let at = self.observer().ok_or("no node is up that could be asked")?;
        self.order(at, order, text)
    }

    fn take_refusals(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.refusals)
    }

    fn apply(&mut self, compiled: &Arc<Compiled>) -> Result<(), String> {
        let at = self.observer().ok_or("no node is up that could be asked")?;
        self.order(at, Order::Apply(compiled.files.clone()), "apply".to_owned())
    }

    fn take_over(&mut self) -> Result<(), String> {
        Err("in a domain the owner has to fail".to_owned())
    }

    fn value(&self, object: &ObjectName, attribute: &AttributeName) -> Option<Value> {
        self.value_of(object, attribute)
    }

    fn has_alarm(&self, object: &ObjectName, kind: Option<&str>) -> bool {
        self.alarm_on(object, kind)
    }

    fn alarms(&self) -> Vec<String> {
        self.observer().and_then(|node| self.world.view(node)).map(|view| standing(view.engine)).unwrap_or_default()
    }

    fn role(&self, service: &GroupName, node: NodeId) -> Option<RoleWord> {
        self.role_of(service, node)
    }

    fn speakers(&self, service: &GroupName) -> Option<usize> {
        Some(self.world.speakers(service))
    }

    fn outage(&self, service: &GroupName) -> Option<Duration> {
        self.outages.get(service).map(|longest| Duration::from_nanos(*longest))
    }

    fn take_occurrences(&mut self) -> Vec<Occurrence> {
        std::mem::take(&mut self.occurrences)
    }
}

/// How often drivers say what has not changed.
const REFRESH: Duration = Duration::from_secs(1);
/// A domain of the fastest profile that has not formed by then never will.
const FORMED_MAX: Truth = 10_000 * MS;
/// So many switchovers bring everything to its place, or nothing does.
const PLACED_MAX: u64 = 100;
/// Lines of the world's story that a breach is told with.
const STORY_MAX: usize = 60;
