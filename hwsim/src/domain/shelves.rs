//! The shelves of a simulated domain: the very [`Chassis`] that runs as a process of its own in the product, on the world's clock.

use std::collections::BTreeMap;

use sixnines_core::ids::{ChassisName, EventId, GroupName, NodeId};
use sixnines_core::time::Instant;
use sixnines_core::value::{Outcome, Request, Update, Value};

use super::wires::DELAY_MIN;
use super::{Happening, MS, Observation, SimInput, Truth, World};
use crate::chassis::{Chassis, Injection, Named, Plan};

/// All shelves, and who drives which.
pub(super) struct Shelves {
    shelves: BTreeMap<ChassisName, Shelf>,
}

struct Shelf {
    chassis: Chassis,
    is_dark: bool,
    /// Who drives it, and the revision that each of them has been told.
    drivers: BTreeMap<NodeId, u64>,
    /// When they were told everything last.
    refreshed: Truth,
}

/// Readings on their way to a node.
pub(super) struct Readings {
    chassis: ChassisName,
    revision: u64,
    pub(super) list: Vec<Update>,
}

impl Shelves {
    pub(super) fn new(plans: Vec<Plan>, check_epochs: bool) -> Self {
        let shelf = |plan: Plan| {
            let name = plan.chassis.clone();
            let chassis = Chassis::new(plan, Instant::ZERO);
            let chassis = if check_epochs { chassis } else { chassis.without_epoch_check() };
            (name, Shelf { chassis, is_dark: false, drivers: BTreeMap::new(), refreshed: 0 })
        };
        Self { shelves: plans.into_iter().map(shelf).collect() }
    }

    pub(super) fn chassis_mut(&mut self, name: &ChassisName) -> Option<&mut Chassis> {
        self.shelves.get_mut(name).map(|shelf| &mut shelf.chassis)
    }

    pub(super) fn chassis(&self, name: &ChassisName) -> Option<&Chassis> {
        self.shelves.get(name).map(|shelf| &shelf.chassis)
    }

    pub(super) fn names(&self) -> Vec<ChassisName> {
        self.shelves.keys().cloned().collect()
    }

    pub(super) fn drive(&mut self, node: NodeId, group: &GroupName, drives: bool) {
        let Some(shelf) = group.as_str().strip_prefix("chassis:").and_then(|name| self.shelves.get_mut(&ChassisName::new(name))) else { return };
        if drives {
            shelf.drivers.insert(node, 0); // it reads every sensor anew
        } else {
            shelf.drivers.remove(&node);
        }
    }

    pub(super) fn node_stopped(&mut self, node: NodeId) {
        for shelf in self.shelves.values_mut() {
            shelf.drivers.remove(&node);
        }
    }

    /// Lets time pass; gives what each driver has not been told.
    pub(super) fn step(&mut self, now: Truth) -> Vec<(NodeId, Readings)> {
        let mut news = Vec::new();
        for (name, shelf) in &mut self.shelves {
            shelf.chassis.step(Instant::from_nanos(now));
            if shelf.is_dark {
                continue;
            }
            let revision = shelf.chassis.revision();
            if now >= shelf.refreshed + REFRESH {
                shelf.refreshed = now;
                shelf.drivers.values_mut().for_each(|told| *told = 0);
            }
            for (node, told) in shelf.drivers.iter().filter(|(_, told)| **told < revision) {
                let changed = shelf.chassis.readings().filter(|r| *told == 0 || r.revision > *told);
                news.push((*node, Readings { chassis: name.clone(), revision, list: changed.map(Named::update).collect() }));
            }
        }
        news
    }

    pub(super) fn told(&mut self, node: NodeId, readings: &Readings) {
        if let Some(told) = self.shelves.get_mut(&readings.chassis).and_then(|s| s.drivers.get_mut(&node)) {
            *told = readings.revision;
        }
    }

    pub(super) fn request(&mut self, now: Truth, request: &Request) -> Outcome {
        let name = request.object.as_str().trim_start_matches('/').split('/').next().unwrap_or_default();
        match self.shelves.get_mut(&ChassisName::new(name)) {
            Some(shelf) if shelf.is_dark => Outcome::Unknown,
            Some(shelf) => shelf.chassis.request(Instant::from_nanos(now), request),
            None => Outcome::Refused(format!("{} is in no shelf", request.object)),
        }
    }

    pub(super) fn break_fan(&mut self, now: Truth, chassis: &ChassisName, fan: u32) {
        let Some(shelf) = self.shelves.get_mut(chassis) else { return };
        let parameters = BTreeMap::from([("fan".to_owned(), fan.to_string())]);
        let injection = Injection { fault: "fan-failed".to_owned(), parameters, expires_after: None, by: "chaos".to_owned() };
        // A fan that is broken already stays broken.
        drop(shelf.chassis.inject(Instant::from_nanos(now), injection));
    }

    pub(super) fn darken(&mut self, chassis: &ChassisName, is_dark: bool) {
        if let Some(shelf) = self.shelves.get_mut(chassis) {
            shelf.is_dark = is_dark;
        }
    }

    pub(super) fn mend(&mut self, chassis: &ChassisName) {
        if let Some(shelf) = self.shelves.get_mut(chassis) {
            shelf.chassis.clear_all();
        }
    }

    pub(super) fn reading(&self, chassis: &ChassisName, object: &str, attribute: &str) -> Option<Value> {
        self.shelves.get(chassis)?.chassis.reading(object, attribute)?.value.clone()
    }
}

impl World {
    /// The shelves go on, and who drives one gets what has changed.
    pub(super) fn look_at_shelves(&mut self) {
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
    pub(super) fn order(&mut self, node: NodeId, request: Request) {
        let held_up = if self.wire.below(4) == 0 { self.wire.below(ORDER_HELD_UP) } else { 0 };
        let at = self.now + DELAY_MIN + self.wire.below(self.manners.delay_max) + held_up;
        let start = self.hosts[&node].starts;
        self.schedule(at, Happening::Order { node, start, request });
    }

    pub(super) fn obey(&mut self, node: NodeId, start: u32, request: &Request) {
        let outcome = self.shelves.request(self.now, request);
        self.note(format!("{node} orders {} {} {:?} under {}: {outcome:?}", request.object, request.control, request.value, request.epoch));
        if outcome == Outcome::Done {
            let acted = Observation::Acted { object: request.object.to_string(), epoch: request.epoch, cause: request.id };
            self.judge.observe(self.now, node, &acted);
        }
        self.schedule(self.now + MS, Happening::Outcome { node, start, request: request.id, outcome });
    }

    pub(super) fn hand_back(&mut self, node: NodeId, start: u32, request: EventId, outcome: Outcome) {
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
}

/// How often a driver is told what has not changed either: else it would hold a quiet shelf for a dead one.
const REFRESH: Truth = 1_000 * MS;
/// The longest that an order is held up on its way.
const ORDER_HELD_UP: Truth = 300 * MS;
/// Between two looks at the shelves, as a shelf manager's own period.
pub(super) const SHELVES_EVERY: Truth = 100 * MS;
