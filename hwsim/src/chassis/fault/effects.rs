//! What all active faults together do to the physics and to the sensors.

use std::collections::BTreeMap;

use super::Fault;
use crate::chassis::plan::Plan;
use crate::chassis::points::Points;

/// Indices count from 0 here.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Effects {
    pub(crate) fans_failed: Vec<bool>,
    pub(crate) fan_speed_factors: Vec<f64>,
    pub(crate) supplies_failed: Vec<bool>,
    pub(crate) boards_hung: Vec<bool>,
    pub(crate) board_extra_watts: Vec<f64>,
    pub(crate) inlet_celsius: Option<f64>,
    pub(crate) fabrics_down: Vec<bool>,
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
}

impl Effects {
    pub(crate) fn none(plan: &Plan) -> Self {
        let (fans, supplies) = (usize::from(plan.fan.count), usize::from(plan.supply.count));
        Self {
            fans_failed: vec![false; fans],
            fan_speed_factors: vec![1.0; fans],
            supplies_failed: vec![false; supplies],
            boards_hung: vec![false; plan.slots.len()],
            board_extra_watts: vec![0.0; plan.slots.len()],
            inlet_celsius: None,
            fabrics_down: vec![false; plan.fabrics.len()],
            shelf_manager_silent: false,
            sensors: BTreeMap::new(),
        }
    }

    pub(crate) fn of<'a>(plan: &Plan, points: &Points, active: impl Iterator<Item = &'a Fault>) -> Self {
        let mut effects = Self::none(plan);
        for fault in active {
            effects.add(fault, points);
        }
        effects
    }

    pub(crate) fn good_supplies(&self) -> usize {
        self.supplies_failed.iter().filter(|failed| !**failed).count()
    }

    fn add(&mut self, fault: &Fault, points: &Points) {
        match fault {
            Fault::FanFailed { fan } => self.fans_failed[fan - 1] = true,
            Fault::FanWorn { fan, percent } => self.fan_speed_factors[fan - 1] = percent / 100.0,
            Fault::SupplyFailed { supply } => self.supplies_failed[supply - 1] = true,
            Fault::BoardHang { slot } => self.boards_hung[slot - 1] = true,
            Fault::BoardHot { slot, watts } => self.board_extra_watts[slot - 1] += watts,
            Fault::InletHot { celsius } => self.inlet_celsius = Some(*celsius),
            Fault::FabricDown { fabric } => self.fabrics_down[fabric - 1] = true,
            Fault::ShelfManagerSilent => self.shelf_manager_silent = true,
            Fault::SensorStuck { object, attribute } => self.sensor(points.find(object, attribute), |s| s.stuck = true),
            Fault::SensorMissing { object, attribute } => self.sensor(points.find(object, attribute), |s| s.missing = true),
            Fault::SensorNoisy { object, attribute, sigma } => self.sensor(points.find(object, attribute), |s| s.sigma = *sigma),
        }
    }

    fn sensor(&mut self, point: Option<usize>, change: impl FnOnce(&mut SensorEffect)) {
        if let Some(point) = point {
            change(self.sensors.entry(point).or_default());
        }
    }
}
