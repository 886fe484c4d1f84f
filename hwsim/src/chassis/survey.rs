//! What can be said of a chassis before it runs: power, redundancy, cooling. Printed by `nines sim check`.

use std::collections::BTreeMap;
use std::fmt;

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
    /// What one fault would do, where that is not nothing.
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
        survey.judge_supplies(plan);
        survey.judge_fans(plan, whole);
        survey
    }

    fn judge_supplies(&mut self, plan: &Plan) {
        if self.supplies_needed > self.supplies {
            let (load, most) = (self.load_watts, self.capacity_watts);
            self.warnings.push(format!("the boards draw {load:.0} W, all supplies together give {most:.0} W"));
        } else if self.supplies_needed == self.supplies {
            self.warnings.push("no supply may fail: boards would brown out".to_owned());
        }
        let mut feeds: BTreeMap<&str, usize> = BTreeMap::new();
        for feed in &plan.supply.feeds {
            *feeds.entry(feed).or_default() += 1;
        }
        for (feed, on_it) in feeds {
            if self.supplies - on_it < self.supplies_needed && self.supplies_needed < self.supplies {
                let left = plan.supply.power_watts_max * (self.supplies - on_it) as f64;
                self.warnings.push(format!("feed {feed} may not fail: it leaves {left:.0} W for {:.0} W", self.load_watts));
            }
        }
    }

    fn judge_fans(&mut self, plan: &Plan, whole: Physics) {
        let mut effects = Effects::none(plan);
        if let Some((slot, celsius, limit)) = self.hottest.filter(|(_, celsius, limit)| celsius + NEAR_KELVIN > *limit) {
            self.warnings.push(format!("the board in slot {slot} is at {celsius:.0} degrees and switches off at {limit:.0}"));
        }
        effects.fans_failed[0] = true;
        let mut less = whole;
        less.fans.iter_mut().for_each(|fan| fan.duty_percent = 100);
        less.advance(REST_SECONDS, &effects);
        if less.troubles.is_empty() && less.fans.len() > 1 {
            self.outlet_one_fan_less_celsius = Some(less.outlet_celsius);
        } else {
            self.warnings.push("no fan may fail: boards would switch off, too hot".to_owned());
        }
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
    let of = |(i, b): (usize, &Option<super::board::Board>)| b.as_ref().map(|b| (i + 1, b.celsius, b.plan.trip_celsius));
    physics.boards.iter().enumerate().filter_map(of)
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
        assert_eq!(mxp.warnings, ["feed A may not fail: it leaves 1100 W for 1233 W"]);
        let atca = Survey::of(&Plan::atca());
        assert_eq!((atca.slots, atca.warnings.len()), (14, 0), "{atca}");
        let edge = Survey::of(&Plan::edge_box());
        assert_eq!(
            (edge.slots, &edge.warnings[..]),
            (2, &["no supply may fail: boards would brown out".to_owned()][..]),
            "{edge}"
        );
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
        assert!(text.contains("no fan may fail"), "{text}");
    }
}
