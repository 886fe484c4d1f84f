//! What a chassis is made of: the YAML that describes it, checked once.
//!
//! Each quantity is in an SI unit that its key names. What parses here can be simulated; a mistake is answered with file, line,
//! column and an excerpt ([`PlanError`]).

mod error;
mod numbers;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_yaml::Spanned;
use sixnines_core::diagnostic::Source;
use sixnines_core::ids::ChassisName;

pub use error::PlanError;
use numbers::{at_least_zero, celsius, count, duty, fraction, percent, positive};

/// A chassis as described by its file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Its name, the first part of its objects' names. May be given anew on start: see [`Plan::named`].
    pub chassis: ChassisName,
    /// Chassis seconds that pass in one second of clock.
    #[serde(default = "one", deserialize_with = "positive")]
    pub time_scale: f64,
    /// Seed of the sensors' noise: same seed and same inputs, same readings.
    #[serde(default)]
    pub seed: u64,
    /// The way of the air.
    pub air: AirPlan,
    /// The fans, all alike.
    pub fan: FanPlan,
    /// The supplies, all alike.
    pub supply: SupplyPlan,
    /// Names of the switched fabrics, such as `A`.
    #[serde(default)]
    pub fabrics: Vec<String>,
    /// The shelf manager.
    pub shelf_manager: ShelfManagerPlan,
    /// Kinds of boards by name.
    pub boards: BTreeMap<String, BoardPlan>,
    /// How often components fail by themselves: see [`Ageing`](super::Ageing).
    #[serde(default)]
    pub reliability: ReliabilityPlan,
    /// What one slot may draw.
    #[serde(deserialize_with = "positive")]
    pub slot_power_watts_max: f64,
    /// The kind of board in each slot, slot 1 first; `empty` for none.
    pub slots: Vec<Spanned<String>>,
}

/// Air: what comes in, what resists it, what it heats on its way out.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AirPlan {
    /// Temperature at the inlet.
    #[serde(deserialize_with = "celsius")]
    pub inlet_celsius: f64,
    /// Height above the sea: thin air carries less.
    #[serde(default, deserialize_with = "at_least_zero")]
    pub altitude_meters: f64,
    /// The part of the pressure drop that grows with the flow (filters).
    #[serde(deserialize_with = "at_least_zero")]
    pub filter_pascal_seconds_per_cubic_meter: f64,
    /// The part of the pressure drop that grows with the flow's square (slots, grilles).
    #[serde(deserialize_with = "positive")]
    pub slots_pascal_seconds2_per_meter6: f64,
    /// Flow without any fan, by buoyancy.
    #[serde(deserialize_with = "positive")]
    pub draught_cubic_meters_per_second: f64,
    /// Heat capacity of the space where outlet air is measured.
    #[serde(deserialize_with = "positive")]
    pub plenum_joules_per_kelvin: f64,
}

/// One kind of fan.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FanPlan {
    /// How many there are.
    #[serde(deserialize_with = "count")]
    pub count: u8,
    /// Duty when nobody controls.
    #[serde(deserialize_with = "duty")]
    pub duty_percent: i64,
    /// Speed at full duty.
    #[serde(deserialize_with = "positive")]
    pub speed_rpm_max: f64,
    /// Time constant of the speed's first-order lag.
    #[serde(deserialize_with = "positive")]
    pub lag_seconds: f64,
    /// Pressure at full speed without flow.
    #[serde(deserialize_with = "positive")]
    pub pressure_pascals_max: f64,
    /// Flow at full speed without counter-pressure.
    #[serde(deserialize_with = "positive")]
    pub flow_cubic_meters_per_second_max: f64,
    /// Backward flow through a fan that the others overpower, for one root of a pascal.
    #[serde(default, deserialize_with = "at_least_zero")]
    pub leak_cubic_meters_per_second_per_root_pascal: f64,
    /// Electric power at full speed; falls with the speed's cube.
    #[serde(deserialize_with = "at_least_zero")]
    pub power_watts_max: f64,
}

/// One kind of power supply.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SupplyPlan {
    /// How many there are; the good ones share the load equally.
    #[serde(deserialize_with = "count")]
    pub count: u8,
    /// Output of one.
    #[serde(deserialize_with = "positive")]
    pub power_watts_max: f64,
    /// Output over input.
    #[serde(deserialize_with = "fraction")]
    pub efficiency: f64,
    /// The mains feed of each supply, the first first; empty: nobody asked.
    #[serde(default)]
    pub feeds: Vec<String>,
    /// Which supplies feed which slots; empty: all feed all.
    #[serde(default)]
    pub branches: Vec<Spanned<BranchPlan>>,
    /// How long the bus stands an overload before boards brown out.
    #[serde(default, deserialize_with = "at_least_zero")]
    pub hold_up_seconds: f64,
}

/// Supplies that feed some slots and no others. Each supply and each slot is in exactly one branch.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BranchPlan {
    /// Numbers of the supplies, from 1.
    pub supplies: Vec<usize>,
    /// Numbers of the slots, from 1.
    pub slots: Vec<usize>,
}

/// The shelf manager.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShelfManagerPlan {
    /// Duty that the fan trays choose by themselves when the shelf manager is silent.
    #[serde(deserialize_with = "duty")]
    pub fallback_duty_percent: i64,
    /// How long they wait before that.
    #[serde(deserialize_with = "at_least_zero")]
    pub fallback_after_seconds: f64,
}

/// How often the components of each class fail by themselves. A class that is not named does not.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReliabilityPlan {
    /// Fans: they stop, or wear out.
    pub fan: Option<Rate>,
    /// Supplies.
    pub supply: Option<Rate>,
    /// Mains feeds: all supplies on one go together.
    pub feed: Option<Rate>,
    /// Boards: they hang, panic, or get hot.
    pub board: Option<Rate>,
    /// Switched fabrics: they go down, flap, or lose frames.
    pub fabric: Option<Rate>,
    /// The shelf manager.
    pub shelf_manager: Option<Rate>,
}

/// Mean times of one component. Both are exponentially distributed.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Between the end of a repair and the next failure.
    #[serde(deserialize_with = "positive")]
    pub mtbf_hours: f64,
    /// From a failure until it is repaired.
    #[serde(deserialize_with = "positive")]
    pub mttr_hours: f64,
}

/// One kind of board.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoardPlan {
    /// Power of the running payload at 40 degrees.
    #[serde(deserialize_with = "positive")]
    pub power_watts: f64,
    /// More power when the processor's load is 100 %.
    #[serde(default, deserialize_with = "at_least_zero")]
    pub busy_watts: f64,
    /// Load of the processor when nothing special happens, with which `power_watts` holds.
    #[serde(default = "twenty", deserialize_with = "percent")]
    pub load_percent: f64,
    /// A payload that has stopped for so long is reset; without it, it stays.
    #[serde(default)]
    pub watchdog_seconds: Option<f64>,
    /// Power of the management controller alone.
    #[serde(default = "two", deserialize_with = "at_least_zero")]
    pub standby_watts: f64,
    /// Relative growth of the payload's power for each kelvin above 40 degrees.
    #[serde(default, deserialize_with = "at_least_zero")]
    pub leakage_per_kelvin: f64,
    /// Heat capacity of the board.
    #[serde(deserialize_with = "positive")]
    pub heat_joules_per_kelvin: f64,
    /// Heat conductance to the air at the rated flow.
    #[serde(deserialize_with = "positive")]
    pub conductance_watts_per_kelvin: f64,
    /// The slot's flow for which the conductance holds.
    #[serde(deserialize_with = "positive")]
    pub rated_flow_cubic_meters_per_second: f64,
    /// From power-on until the payload runs.
    #[serde(deserialize_with = "at_least_zero")]
    pub boot_seconds: f64,
    /// The board switches itself off at this temperature.
    #[serde(default = "hundred", deserialize_with = "celsius")]
    pub trip_celsius: f64,
}

impl Plan {
    /// Reads a description. `file` is only for messages.
    ///
    /// # Errors
    /// [`PlanError`] with the place of the first mistake. The operator's mistake, always.
    pub fn parse(file: &str, text: &str) -> Result<Self, PlanError> {
        let source = Source { name: file, text };
        let plan: Self = serde_yaml::from_str(text).map_err(|error| PlanError::from_yaml(source, &error))?;
        plan.check(source)?;
        Ok(plan)
    }

    /// The shelf that ships: 18 slots, five fans, three supplies.
    ///
    /// # Panics
    /// Never: the file is part of the program, and a test reads it.
    pub fn mxp() -> Self {
        Self::parse("mxp.yaml", MXP).expect("the shipped file parses, tested below")
    }

    /// An ATCA-like shelf: 14 slots, two hubs, redundant everything.
    ///
    /// # Panics
    /// Never, as [`Plan::mxp`].
    pub fn atca() -> Self {
        Self::parse("atca.yaml", ATCA).expect("the shipped file parses, tested below")
    }

    /// A box at the edge: two slots, two fans, one supply that must not fail.
    ///
    /// # Panics
    /// Never, as [`Plan::mxp`].
    pub fn edge_box() -> Self {
        Self::parse("edge-box.yaml", EDGE_BOX).expect("the shipped file parses, tested below")
    }

    /// The same under another name.
    #[must_use]
    pub fn named(mut self, name: ChassisName) -> Self {
        self.chassis = name;
        self
    }

    /// The kind of board in the slot with this index; `None` for an empty slot.
    pub fn board_at(&self, index: usize) -> Option<&BoardPlan> {
        self.slots.get(index).and_then(|kind| self.boards.get(&kind.value))
    }

    /// What needs more than one value to be judged.
    fn check(&self, source: Source<'_>) -> Result<(), PlanError> {
        let name = self.chassis.as_str();
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            let what = format!("chassis name {name:?} is not made of letters, digits and hyphens");
            return Err(PlanError::whole(source, what));
        }
        if self.slots.is_empty() || self.slots.len() > SLOTS_MAX {
            let what = format!("a chassis has 1 to {SLOTS_MAX} slots, this one has {}", self.slots.len());
            return Err(PlanError::whole(source, what));
        }
        self.slots.iter().try_for_each(|kind| self.check_slot(source, kind))?;
        let (feeds, supplies) = (self.supply.feeds.len(), usize::from(self.supply.count));
        if feeds != 0 && feeds != supplies {
            return Err(PlanError::whole(
                source,
                format!("`feeds` names {feeds} feeds for {supplies} supplies: one for each, in order"),
            ));
        }
        self.check_branches(source)
    }

    fn check_slot(&self, source: Source<'_>, kind: &Spanned<String>) -> Result<(), PlanError> {
        let (word, at) = (&kind.value, kind.referenced);
        if word == EMPTY {
            return Ok(());
        }
        let Some(board) = self.boards.get(word) else {
            let known = self.boards.keys().map(String::as_str).chain([EMPTY]);
            let what = format!("there is no board kind {word:?} under `boards`");
            return Err(PlanError::at(source, at, what).with_nearest(word, known));
        };
        let (watts, most) = (board.power_watts + board.busy_watts, self.slot_power_watts_max);
        if watts > most {
            let what = format!("board kind {word:?} draws up to {watts} W, a slot gives {most} W (`slot_power_watts_max`)");
            return Err(PlanError::at(source, at, what));
        }
        Ok(())
    }

    /// Each supply and each slot once, and none that does not exist.
    fn check_branches(&self, source: Source<'_>) -> Result<(), PlanError> {
        let mut supplies = BTreeSet::new();
        let mut slots = BTreeSet::new();
        for branch in &self.supply.branches {
            let lists = [
                ("supply", &branch.value.supplies, &mut supplies, usize::from(self.supply.count)),
                ("slot", &branch.value.slots, &mut slots, self.slots.len()),
            ];
            for (word, list, seen, count) in lists {
                for number in list {
                    let why = match seen.insert(*number) {
                        _ if !(1..=count).contains(number) => format!("there is no {word} {number}, only 1 to {count}"),
                        false => format!("{word} {number} is in two branches"),
                        true => continue,
                    };
                    return Err(PlanError::at(source, branch.referenced, why));
                }
            }
        }
        let whole = (usize::from(self.supply.count), self.slots.len());
        if !self.supply.branches.is_empty() && (supplies.len(), slots.len()) != whole {
            let slot = (1..=whole.1).find(|n| !slots.contains(n)).map(|n| format!("slot {n}"));
            let supply = (1..=whole.0).find(|n| !supplies.contains(n)).map(|n| format!("supply {n}"));
            let missing = slot.or(supply).unwrap_or_default();
            return Err(PlanError::whole(
                source,
                format!("{missing} is in no branch: `branches` names every supply and slot once"),
            ));
        }
        Ok(())
    }
}

const MXP: &str = include_str!("../../chassis/mxp.yaml");
const ATCA: &str = include_str!("../../chassis/atca.yaml");
const EDGE_BOX: &str = include_str!("../../chassis/edge-box.yaml");
/// The word for a slot without a board.
const EMPTY: &str = "empty";
/// More would not be a shelf; it bounds what a file can make us simulate.
const SLOTS_MAX: usize = 64;

fn one() -> f64 {
    1.0
}
fn two() -> f64 {
    2.0
}
fn twenty() -> f64 {
    20.0
}
fn hundred() -> f64 {
    100.0
}
