//! A stage: one simulated chassis and the node that owns it, in virtual time.
//!
//! The loop is closed as in the product: readings go to the engine, its requests to the chassis, and what came of them back. It is told
//! everything once a second, as the driver's connection does, so that nothing goes stale that is well.

use std::collections::BTreeMap;
use std::sync::Arc;

use sixnines_core::authority::{AccessRole, Principal};
use sixnines_core::bundle::Compiled;
use sixnines_core::domain::config::chassis_group;
use sixnines_core::engine::{Command, CommandBody, CommandError, CommandId, Config, Engine, Input, Output};
use sixnines_core::ids::{AttributeName, Epoch, EventId, GroupName, Incarnation, Member, NodeId, ObjectName};
use sixnines_core::time::{Duration, Instant, WallTime};
use sixnines_core::value::{Outcome, Quality, Request, Update, Value};

use super::condition::RoleWord;
use super::setting::{OWNER, Setting};
use super::stage::{Mend, Occurrence, Stage};
use crate::chassis::{Ageing, Chassis, Injection, Named};

/// How often the engine is told what has not changed.
const REFRESH: Duration = Duration::from_secs(1);
/// Events that an engine remembers; nobody asks it why.
const HISTORY_MAX: usize = 1000;

/// One chassis with its owner.
#[derive(Debug)]
pub struct OwnerStage {
    group: GroupName,
    services: Vec<GroupName>,
    chassis: Chassis,
    ageing: Option<Ageing>,
    engine: Engine,
    epoch: Epoch,
    now: Instant,
    /// The chassis' revision that the engine has been told.
    told: u64,
    refreshed: Instant,
    /// What drivers of other things than the chassis read last.
    host: BTreeMap<(ObjectName, AttributeName), Update>,
    /// What the owner has put down for its successor.
    saved: BTreeMap<String, Vec<u8>>,
    occurrences: Vec<Occurrence>,
    replies: Vec<(CommandId, Result<EventId, CommandError>)>,
    commands: u128,
}

impl OwnerStage {
    /// A chassis that has run for long, and an owner that has just taken it over.
    pub fn new(setting: &Setting) -> Self {
        let chassis = Chassis::new(setting.chassis.clone(), Instant::ZERO);
        let mut this = Self {
            group: chassis_group(setting.chassis.chassis.as_str()),
            services: setting.services.clone(),
            engine: engine(1),
            ageing: setting.ageing.map(|speed| Ageing::new(&setting.chassis, setting.chassis.seed, speed, Instant::ZERO)),
            chassis,
            epoch: Epoch(1),
            now: Instant::ZERO,
            told: 0,
            refreshed: Instant::ZERO,
            host: BTreeMap::new(),
            saved: BTreeMap::new(),
            occurrences: Vec::new(),
            replies: Vec::new(),
            commands: 0,
        };
        this.begin(setting.compiled.clone());
        this
    }

    /// The engine, for who wants to ask it why.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The chassis as it is.
    pub fn chassis(&self) -> &Chassis {
        &self.chassis
    }

    /// Tells a new engine what it has, and everything that can be read.
    fn begin(&mut self, compiled: Arc<Compiled>) {
        self.input(Input::Bundle(compiled));
        let nodes = vec![(OWNER, self.chassis.name().clone())];
        self.input(Input::Domain { nodes, services: self.services.clone() });
        let (group, epoch) = (self.group.clone(), self.epoch);
        let saved = self.saved.iter().map(|(key, bytes)| (key.clone(), bytes.clone())).collect();
        self.input(Input::Owner { group, epoch, saved });
        for group in self.services.clone() {
            self.input(Input::Owner { group, epoch, saved: Vec::new() });
        }
        self.refresh();
    }

    fn input(&mut self, input: Input) {
        self.engine.handle(self.now, wall(self.now), input);
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Event(event) => self.occurrences.push(Occurrence::of(&event, self.now)),
                Output::Act { request, .. } => self.act(&request),
                Output::Save { key, bytes: Some(bytes), .. } => drop(self.saved.insert(key, bytes)),
                Output::Save { key, bytes: None, .. } => drop(self.saved.remove(&key)),
                Output::Reply { id, result } => self.replies.push((id, result)),
                // There is no other node that could take a role or a command; the events tell what was asked.
                Output::Control(_) | Output::Heard(_) | Output::Forward { .. } | Output::Recorded { .. } | Output::Journal(_) => {}
            }
        }
    }

    /// Gives a request to the chassis. What is in none has an obedient driver.
    fn act(&mut self, request: &Request) {
        let in_chassis = self.chassis.objects().iter().any(|(name, _)| *name == request.object);
        let outcome = if in_chassis { self.chassis.request(self.now, request) } else { Outcome::Done };
        self.engine.handle(self.now, wall(self.now), Input::Outcome { request: request.id, outcome });
    }

    /// Tells the engine what has changed.
    fn tell(&mut self) {
        if self.chassis.revision() == self.told {
            return;
        }
        let told = std::mem::replace(&mut self.told, self.chassis.revision());
        let changed: Vec<Update> = self.chassis.readings().filter(|r| r.revision > told).map(as_driver).collect();
        for update in changed {
            self.input(Input::Update(update));
        }
    }

    /// Tells the engine everything: a sign of life.
    fn refresh(&mut self) {
        self.refreshed = self.now;
        self.told = self.chassis.revision();
        let all: Vec<Update> = self.chassis.readings().map(as_driver).chain(self.host.values().cloned()).collect();
        for update in all {
            self.input(Input::Update(update));
        }
    }

    /// Breaks what breaks by itself now.
    fn age(&mut self) {
        while let Some((_, injection)) = self.ageing.as_mut().and_then(|ageing| ageing.poll(self.now)) {
            // More faults at once than the chassis takes: this one is lost in the crowd.
            drop(self.chassis.inject(self.now, injection));
        }
    }

    fn next(&self) -> Instant {
        let refresh = self.refreshed + REFRESH;
        let next = self.chassis.poll_timeout().min(refresh);
        let next = self.ageing.as_ref().and_then(Ageing::poll_timeout).map_or(next, |at| next.min(at));
        self.engine.poll_timeout().map_or(next, |at| next.min(at)).max(self.now)
    }
}

impl Stage for OwnerStage {
    fn step(&mut self, to: Instant) -> Result<Instant, String> {
        loop {
            let next = self.next();
            if next > to {
                break;
            }
            self.now = next;
            self.age();
            self.chassis.step(self.now);
            if self.now >= self.refreshed + REFRESH {
                self.refresh();
            } else {
                self.tell();
            }
            if self.engine.poll_timeout().is_some_and(|at| at <= self.now) {
                self.input(Input::Timeout);
            }
        }
        self.now = to;
        Ok(to)
    }

    fn inject(&mut self, injection: &Injection) -> Result<(), String> {
        self.chassis.inject(self.now, injection.clone()).map_err(|wrong| one_line(&wrong.to_string()))?;
        self.tell();
        Ok(())
    }

    fn mend(&mut self, what: &Mend) -> Result<(), String> {
        let ids: Vec<_> = self.chassis.faults().filter(|active| what.matches(&active.injection)).map(|active| active.id).collect();
        if ids.is_empty() && *what != Mend::All {
            return Err("no such fault is in force".to_owned());
        }
        for id in ids {
            self.chassis.clear(id).map_err(|wrong| one_line(&wrong.to_string()))?;
        }
        self.tell();
        Ok(())
    }

    fn read(&mut self, reading: &Update) -> Result<(), String> {
        let strange = self.engine.counts().strange_updates;
        self.host.insert((reading.object.clone(), reading.attribute.clone()), reading.clone());
        self.input(Input::Update(reading.clone()));
        if self.engine.counts().strange_updates > strange {
            return Err(format!("nobody here owns {}", reading.object));
        }
        Ok(())
    }

    fn command(&mut self, body: &CommandBody) -> Result<(), String> {
        self.commands += 1;
        let id = CommandId(self.commands);
        let principal = Principal { name: "scenario".into(), role: AccessRole::Admin };
        self.input(Input::Command(Command { id, principal, cause: None, expected_version: None, body: body.clone() }));
        self.tell();
        let answer = self.replies.iter().position(|(answered, _)| *answered == id).map(|i| self.replies.swap_remove(i).1);
        match answer {
            Some(Ok(_)) => Ok(()),
            Some(Err(wrong)) => Err(wrong.to_string()),
            None => Err("no answer".to_owned()),
        }
    }

    fn apply(&mut self, compiled: &Arc<Compiled>) -> Result<(), String> {
        self.input(Input::Bundle(compiled.clone()));
        self.refresh();
        Ok(())
    }

    fn take_over(&mut self) -> Result<(), String> {
        let compiled = self.engine.world().compiled.clone();
        self.epoch = Epoch(self.epoch.0 + 1);
        self.engine = engine(self.epoch.0);
        self.begin(compiled);
        Ok(())
    }

    fn value(&self, object: &ObjectName, attribute: &AttributeName) -> Option<Value> {
        let world = self.engine.world();
        let cell = world.find(object.as_str()).and_then(|ix| Some(world.cell(ix, world.object(ix).class.slot(attribute.as_str())?)));
        match cell {
            Some(cell) => cell.usable().cloned(),
            // What no class declares, the chassis shows.
            None => self.chassis.reading(object.as_str(), attribute.as_str())?.value.clone(),
        }
    }

    fn has_alarm(&self, object: &ObjectName, kind: Option<&str>) -> bool {
        let Some(ix) = self.engine.world().find(object.as_str()) else { return false };
        self.engine.alarms().any(|(key, alarm)| {
            key.object == ix && kind.is_none_or(|kind| *kind == *key.kind) && alarm.is_active() && !alarm.suppressed
        })
    }

    fn alarms(&self) -> Vec<String> {
        standing(&self.engine)
    }

    fn role(&self, _service: &GroupName, _node: NodeId) -> Option<RoleWord> {
        None
    }

    fn take_occurrences(&mut self) -> Vec<Occurrence> {
        std::mem::take(&mut self.occurrences)
    }
}

/// The engine of the node that owns the chassis, in one of its lives.
fn engine(life: u64) -> Engine {
    let me = Member { node: OWNER, incarnation: Incarnation(life) };
    Engine::new(Config { me, history_max: HISTORY_MAX, journal: false })
}

/// The alarms that hold, and that no failed parent explains.
pub(super) fn standing(engine: &Engine) -> Vec<String> {
    let active = engine.alarms().filter(|(_, alarm)| alarm.is_active() && !alarm.suppressed);
    active.map(|(key, _)| format!("{} on {}", key.kind, engine.world().object(key.object).name)).collect()
}

/// As the driver reports it.
fn as_driver(reading: Named<'_>) -> Update {
    let mut update = reading.update();
    if update.quality == Quality::Good {
        update.quality = Quality::Simulated;
    }
    update
}

fn one_line(text: &str) -> String {
    text.replace("\n  help  ", "; ").replace('\n', " ")
}

/// Stamps begin somewhere in 2023; nothing is decided by them.
fn wall(now: Instant) -> WallTime {
    WallTime(1_700_000_000_000_000_000 + now.as_nanos())
}
