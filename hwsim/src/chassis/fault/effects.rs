//! What all active faults together do to the physics and to the sensors.

use std::collections::BTreeMap;

use sixnines_core::time::Instant;

use super::{BoardFault, Fault, SensorFault};
use crate::chassis::board::BoardEffect;
use crate::chassis::plan::Plan;
use crate::chassis::points::Points;

/// Indices count from 0 here.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Effects {
    pub(crate) fans_failed: Vec<bool>,
    pub(crate) fans_pulled: Vec<bool>,
    pub(crate) fan_speed_factors: Vec<f64>,
    pub(crate) supplies_failed: Vec<bool>,
    pub(crate) supplies_pulled: Vec<bool>,
    pub(crate) boards: Vec<BoardEffect>,
    pub(crate) inlet_celsius: Option<f64>,
    pub(crate) fabrics: Vec<FabricEffect>,
    pub(crate) shelf_manager_silent: bool,
    /// By index into the points.
    pub(crate) sensors: BTreeMap<usize, SensorEffect>,
}

/// What is wrong with a sensor.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct SensorEffect {
    pub(crate) stuck: bool,
    pub(crate) missing: bool,
    pub(crate) sigma: f64,
    pub(crate) offset: f64,
    /// Time constant of a slow sensor; 0: as fast as it looks.
    pub(crate) lag_seconds: f64,
}

/// What is wrong with a fabric.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct FabricEffect {
    pub(crate) down: bool,
    pub(crate) loss_percent: f64,
    /// Since when it goes down and up, and for how long each; 0: it does not.
    pub(crate) flaps_since: Instant,
    pub(crate) flaps_seconds: f64,
}

impl Effects {
    pub(crate) fn none(plan: &Plan) -> Self {
        let (fans, supplies) = (usize::from(plan.fan.count), usize::from(plan.supply.count));
        Self {
            fans_failed: vec![false; fans],
            fans_pulled: vec![false; fans],
            fan_speed_factors: vec![1.0; fans],
            supplies_failed: vec![false; supplies],
            supplies_pulled: vec![false; supplies],
            boards: vec![BoardEffect::default(); plan.slots.len()],
            inlet_celsius: None,
            fabrics: vec![FabricEffect::default(); plan.fabrics.len()],
            shelf_manager_silent: false,
            sensors: BTreeMap::new(),
        }
    }

    pub(crate) fn of<'a>(plan: &Plan, points: &Points, active: impl Iterator<Item = (&'a Fault, Instant)>) -> Self {
        let mut effects = Self::none(plan);
        for (fault, since) in active {
            effects.add(fault, since, plan, points);
        }
        effects
    }

    pub(crate) fn good_supplies(&self) -> usize {
        self.supplies_failed.iter().filter(|failed| !**failed).count()
    }

    fn add(&mut self, fault: &Fault, since: Instant, plan: &Plan, points: &Points) {
        match fault {
            Fault::FanFailed { fan } => self.fans_failed[fan - 1] = true,
            Fault::FanPulled { fan } => {
                self.fans_failed[fan - 1] = true;
                self.fans_pulled[fan - 1] = true;
            }
            Fault::FanWorn { fan, percent } => self.fan_speed_factors[fan - 1] = percent / 100.0,
            Fault::SupplyFailed { supply } => self.supplies_failed[supply - 1] = true,
            Fault::SupplyPulled { supply } => {
                self.supplies_failed[supply - 1] = true;
                self.supplies_pulled[supply - 1] = true;
            }
            Fault::FeedLost { feed } => {
                for (failed, of) in self.supplies_failed.iter_mut().zip(&plan.supply.feeds) {
                    *failed |= of == feed;
                }
            }
            Fault::InletHot { celsius } => self.inlet_celsius = Some(*celsius),
            Fault::ShelfManagerSilent => self.shelf_manager_silent = true,
            Fault::Board { slot, what } => self.add_board(slot - 1, *what),
            Fault::FabricDown { fabric } => self.fabrics[fabric - 1].down = true,
            Fault::FabricLossy { fabric, percent } => self.fabrics[fabric - 1].loss_percent = *percent,
            Fault::FabricFlapping { fabric, seconds } => {
                let effect = &mut self.fabrics[fabric - 1];
                (effect.flaps_since, effect.flaps_seconds) = (since, *seconds);
            }
            Fault::Sensor { object, attribute, what } => {
                if let Some(point) = points.find(object, attribute) {
                    self.sensors.entry(point).or_default().add(*what);
                }
            }
        }
    }

    fn add_board(&mut self, slot: usize, what: BoardFault) {
        let board = &mut self.boards[slot];
        match what {
            BoardFault::Hang => board.hung = true,
            BoardFault::Panic => board.panicked = true,
            BoardFault::BootFails => board.boot_fails = true,
            BoardFault::Hot { watts } => board.extra_watts += watts,
            BoardFault::Busy { percent } => board.load_percent = Some(percent),
            BoardFault::Leak { percent_per_minute } => board.leak_percent_per_second += percent_per_minute / 60.0,
            BoardFault::LatchOpen => board.latch_open = true,
            BoardFault::Pulled => board.pulled = true,
        }
    }
}

impl SensorEffect {
    fn add(&mut self, what: SensorFault) {
        match what {
            SensorFault::Stuck => self.stuck = true,
            SensorFault::Missing => self.missing = true,
            SensorFault::Noisy { sigma } => self.sigma = self.sigma.hypot(sigma),
            SensorFault::Wrong { offset } => self.offset += offset,
            SensorFault::Slow { seconds } => self.lag_seconds = self.lag_seconds.max(seconds),
        }
    }
}
