//! The shelves of a simulated domain: the very [`Chassis`] that runs as a process of its own in the product, on the world's clock.

use std::collections::BTreeMap;

use sixnines_core::ids::{ChassisName, GroupName, NodeId};
use sixnines_core::time::Instant;
use sixnines_core::value::{Outcome, Request, Update, Value};

use super::Truth;
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
}

/// Readings on their way to a node.
pub(super) struct Readings {
    chassis: ChassisName,
    revision: u64,
    pub(super) list: Vec<Update>,
}

impl Shelves {
    pub(super) fn new(names: &[ChassisName], check_epochs: bool) -> Self {
        let shelf = |name: &ChassisName| {
            let chassis = Chassis::new(Plan::mxp().named(name.clone()), Instant::ZERO);
            let chassis = if check_epochs { chassis } else { chassis.without_epoch_check() };
            (name.clone(), Shelf { chassis, is_dark: false, drivers: BTreeMap::new() })
        };
        Self { shelves: names.iter().map(shelf).collect() }
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
