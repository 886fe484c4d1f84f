//! What can be said of a chassis before it runs: power, redundancy, cooling. Printed by `nines sim check`.

use std::collections::BTreeSet;
use std::fmt;

use super::board::{Board, Payload};
use super::fault::Effects;
use super::physics::Physics;
use super::plan::Plan;

/// The figures of a chassis in its steady state, and what is thin about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Survey {
    /// Its name.
    pub chassis: String,
    /// Slots, and boards in them.
    pub slots: usize,
    /// Boards.
    pub boards: usize,
    /// What the supplies have to give.
    pub load_watts: f64,
    /// What they can give together.
    pub capacity_watts: f64,
    /// How many supplies there are.
    pub supplies: usize,
    /// How many of them the load needs.
    pub supplies_needed: usize,
    /// Outlet with all fans at their rest duty.
    pub outlet_celsius: f64,
    /// Outlet after one fan has failed and the others run at full duty; `None` with a single fan.
    pub outlet_one_fan_less_celsius: Option<f64>,
    /// The board nearest to switching itself off at rest duty: slot, temperature, limit.
    pub hottest: Option<(usize, f64, f64)>,
    /// What is too much already, and every single fault that stops boards.
    pub warnings: Vec<String>,
}

impl Survey {
    /// Lets the chassis come to rest, whole and with each single fault that matters.
    pub fn of(plan: &Plan) -> Self {
        let whole = Physics::settled(plan);
        let each = plan.supply.power_watts_max;
        let supplies = usize::from(plan.supply.count);
        let load_watts = whole.load_watts(&Effects::none(plan));
        let margin = |(slot, celsius, limit): &(usize, f64, f64)| (limit - celsius, *slot);
        let hottest = boards(&whole).min_by(|a, b| margin(a).partial_cmp(&margin(b)).unwrap_or(std::cmp::Ordering::Equal));
        let mut survey = Self {
            chassis: plan.chassis.to_string(),
            slots: plan.slots.len(),
            boards: whole.boards.iter().flatten().count(),
            load_watts,
            capacity_watts: each * supplies as f64,
            supplies,
            supplies_needed: (1..=supplies).find(|n| each * *n as f64 >= load_watts).unwrap_or(supplies + 1),
            outlet_celsius: whole.outlet_celsius,
            outlet_one_fan_less_celsius: None,
            hottest,
            warnings: Vec::new(),
        };
        survey.judge_rest();
        survey.try_faults(plan, &whole);
        survey
    }

    fn judge_rest(&mut self) {
        if self.supplies_needed > self.supplies {
            let (load, most) = (self.load_watts, self.capacity_watts);
            self.warnings.push(format!("boards and fans want {load:.0} W, all supplies together give {most:.0} W"));
        }
        if let Some((slot, celsius, limit)) = self.hottest.filter(|(_, celsius, limit)| celsius + NEAR_KELVIN > *limit) {
            self.warnings.push(format!("the board in slot {slot} is at {celsius:.0} degrees and switches off at {limit:.0}"));
        }
    }

    /// Every single fault of power and cooling, one after the other: which boards does it stop?
    fn try_faults(&mut self, plan: &Plan, whole: &Physics) {
        for supply in 0..self.supplies {
            let mut effects = Effects::none(plan);
            effects.supplies_failed[supply] = true;
            self.try_fault(&format!("supply {}", supply + 1), whole.clone(), &effects);
        }
        for feed in plan.supply.feeds.iter().collect::<BTreeSet<_>>() {
            let mut effects = Effects::none(plan);
            effects.supplies_failed = plan.supply.feeds.iter().map(|of| of == feed).collect();
            self.try_fault(&format!("feed {feed}"), whole.clone(), &effects);
        }
        let mut worst: Option<f64> = None;
        for fan in 0..whole.fans.len() {
            let mut effects = Effects::none(plan);
            effects.fans_failed[fan] = true;
            let mut less = whole.clone();
            less.fans.iter_mut().for_each(|fan| fan.duty_percent = 100);
            let outlet = self.try_fault(&format!("fan {}, the others at 100 %,", fan + 1), less, &effects);
            if whole.fans.len() > 1 {
                worst = Some(worst.map_or(outlet, |w: f64| w.max(outlet)));
            }
        }
        self.outlet_one_fan_less_celsius = worst;
    }

    /// Lets the chassis come to rest under a fault; returns the outlet's temperature.
    fn try_fault(&mut self, name: &str, mut physics: Physics, effects: &Effects) -> f64 {
        let was_on: Vec<usize> = running(&physics).collect();
        physics.advance(REST_SECONDS, effects);
        let is_on: BTreeSet<usize> = running(&physics).collect();
        let lost: Vec<String> = was_on.iter().filter(|slot| !is_on.contains(slot)).map(ToString::to_string).collect();
        if !lost.is_empty() {
            self.warnings.push(format!("{name} may not fail: slots {} stop", lost.join(" ")));
        }
        physics.outlet_celsius
    }
}

impl fmt::Display for Survey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} slots, {} boards", self.chassis, self.slots, self.boards)?;
        let (load, most) = (self.load_watts, self.capacity_watts);
        writeln!(f, "  power     {load:.0} of {most:.0} W; {} of {} supplies carry it", self.supplies_needed, self.supplies)?;
        write!(f, "  outlet    {:.1} C", self.outlet_celsius)?;
        if let Some(celsius) = self.outlet_one_fan_less_celsius {
            write!(f, "; {celsius:.1} C with one fan less, the others at 100 %")?;
        }
        if let Some((slot, celsius, limit)) = self.hottest {
            write!(f, "\n  hottest   slot {slot} at {celsius:.1} C; it switches off at {limit:.0} C")?;
        }
        for warning in &self.warnings {
            write!(f, "\n  warning   {warning}")?;
        }
        Ok(())
    }
}

/// Slot, temperature, limit.
fn boards(physics: &Physics) -> impl Iterator<Item = (usize, f64, f64)> {
    let of = |(i, b): (usize, &Option<Board>)| b.as_ref().map(|b| (i + 1, b.celsius, b.plan.trip_celsius));
    physics.boards.iter().enumerate().filter_map(of)
}

/// Slots whose boards are powered.
fn running(physics: &Physics) -> impl Iterator<Item = usize> {
    let on = |(i, b): (usize, &Option<Board>)| b.as_ref().filter(|b| b.payload != Payload::Off).map(|_| i + 1);
    physics.boards.iter().enumerate().filter_map(on)
}

/// Long against every time constant.
const REST_SECONDS: f64 = 3600.0;
const NEAR_KELVIN: f64 = 10.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_shelves_are_as_described() {
        let mxp = Survey::of(&Plan::mxp());
        assert_eq!((mxp.supplies_needed, mxp.supplies), (2, 3));
        assert_eq!(mxp.warnings, ["feed A may not fail: slots 15 18 stop"]);
        let atca = Survey::of(&Plan::atca());
        assert_eq!((atca.slots, atca.warnings.len()), (14, 0), "{atca}");
        let edge = Survey::of(&Plan::edge_box());
        assert_eq!((edge.slots, &edge.warnings[..]), (2, &["supply 1 may not fail: slots 1 2 stop".to_owned()][..]), "{edge}");
        for survey in [mxp, atca, edge] {
            assert!(survey.outlet_celsius < 50.0, "{survey}");
            assert!(survey.outlet_one_fan_less_celsius.is_some_and(|x| x < 55.0), "{survey}");
        }
    }

    #[test]
    fn a_shelf_without_enough_power_or_air_is_told_so() {
        let mut plan = Plan::mxp();
        plan.supply.count = 1;
        plan.supply.feeds = Vec::new();
        plan.fan.count = 1;
        let survey = Survey::of(&plan);
        let text = survey.to_string();
        assert!(text.contains("all supplies together give 1100 W"), "{text}");
        assert!(
            text.contains("supply 1 may not fail") && text.contains("fan 1, the others at 100 %, may not fail: slots"),
            "{text}"
        );
    }
}
