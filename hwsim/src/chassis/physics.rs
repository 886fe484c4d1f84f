//! The physics of a chassis in its own seconds: what happens whether or not anybody looks.
//!
//! [`Physics::advance`] is exact within a step for constant conditions (fans, power, flow), and steps are short against every time
//! constant. Its books balance: energy in is energy carried away and energy stored, which a property test holds it to.

#[cfg(test)]
mod tests;

use super::air;
use super::board::{Board, BoardEffect, Conditions, MState, Payload, Trouble};
use super::fan::{Fan, percent};
use super::fault::Effects;
use super::heat;
use super::plan::Plan;
use super::power::Power;

/// Everything in the chassis that has a state of its own.
#[derive(Clone, Debug)]
pub(crate) struct Physics {
    plan: Plan,
    density: f64,
    pub(crate) fans: Vec<Fan>,
    /// `None`: an empty slot.
    pub(crate) boards: Vec<Option<Board>>,
    pub(crate) inlet_celsius: f64,
    pub(crate) outlet_celsius: f64,
    pub(crate) flow_cubic_meters_per_second: f64,
    /// The speeds for which the flow was solved.
    solved_for_rpm: Vec<f64>,
    pub(crate) power: Power,
    /// What the mains give to all.
    pub(crate) input_watts: f64,
    silent_seconds: f64,
    in_joules: f64,
    carried_joules: f64,
    /// What happened to boards by themselves, by slot index; taken by the owner after each advance.
    pub(crate) troubles: Vec<(usize, Trouble)>,
}

/// The books of a chassis, in joules since it started: what came in is what was carried away and what is stored now and was not then.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Energy {
    /// From the mains.
    pub in_joules: f64,
    /// With the air.
    pub carried_joules: f64,
    /// In boards and plenum now, against zero degrees.
    pub stored_joules: f64,
}

impl Physics {
    /// A chassis that has run for long with nobody controlling it.
    pub(crate) fn settled(plan: &Plan) -> Self {
        let fans = vec![Fan::at_rest_duty(&plan.fan); usize::from(plan.fan.count)];
        let inlet = plan.air.inlet_celsius;
        let board_at = |i| plan.board_at(i).map(|board| Board::running(board.clone(), inlet));
        let mut this = Self {
            density: air::density(plan.air.altitude_meters),
            fans,
            boards: (0..plan.slots.len()).map(board_at).collect(),
            inlet_celsius: inlet,
            outlet_celsius: inlet,
            flow_cubic_meters_per_second: 0.0,
            solved_for_rpm: Vec::new(),
            power: Power::of(plan),
            input_watts: 0.0,
            silent_seconds: 0.0,
            troubles: Vec::new(),
            in_joules: 0.0,
            carried_joules: 0.0,
            plan: plan.clone(),
        };
        this.solve_flow();
        this.settle();
        this
    }

    /// `seconds` of chassis time, under the given faults.
    pub(crate) fn advance(&mut self, seconds: f64, effects: &Effects) {
        let mut left = seconds;
        while left > STEP_SECONDS_MAX {
            self.step(STEP_SECONDS_MAX, effects);
            left -= STEP_SECONDS_MAX;
        }
        if left > 0.0 {
            self.step(left, effects);
        }
    }

    pub(crate) fn energy(&self) -> Energy {
        let boards: f64 = self.boards.iter().flatten().map(|b| b.plan.heat_joules_per_kelvin * b.celsius).sum();
        let stored_joules = boards + self.plan.air.plenum_joules_per_kelvin * self.outlet_celsius;
        Energy { in_joules: self.in_joules, carried_joules: self.carried_joules, stored_joules }
    }

    fn step(&mut self, seconds: f64, effects: &Effects) {
        self.inlet_celsius = effects.inlet_celsius.unwrap_or(self.plan.air.inlet_celsius);
        self.power.look(effects);
        self.turn_fans(seconds, effects);
        self.solve_flow();
        self.move_boards(seconds, effects);
        self.draw_power(seconds, effects);
        self.move_heat(seconds, effects);
    }

    fn turn_fans(&mut self, seconds: f64, effects: &Effects) {
        let powered = self.power.of_fans().is_some();
        self.silent_seconds = if effects.shelf_manager_silent { self.silent_seconds + seconds } else { 0.0 };
        let alone = self.silent_seconds > self.plan.shelf_manager.fallback_after_seconds;
        for (i, fan) in self.fans.iter_mut().enumerate() {
            let duty = if alone { self.plan.shelf_manager.fallback_duty_percent } else { fan.duty_percent };
            let turns = powered && !effects.fans_failed[i];
            let target = if turns { percent(duty) * self.plan.fan.speed_rpm_max * effects.fan_speed_factors[i] } else { 0.0 };
            fan.advance(&self.plan.fan, target, seconds);
        }
    }

    /// The flow depends on the speeds alone: it is solved only when one has changed.
    fn solve_flow(&mut self) {
        if self.solved_for_rpm.len() == self.fans.len()
            && self.fans.iter().zip(&self.solved_for_rpm).all(|(f, s)| f.speed_rpm == *s)
        {
            return;
        }
        self.solved_for_rpm = self.fans.iter().map(|fan| fan.speed_rpm).collect();
        let ratios: Vec<f64> = self.solved_for_rpm.iter().map(|rpm| rpm / self.plan.fan.speed_rpm_max).collect();
        self.flow_cubic_meters_per_second = air::flow(&self.plan.air, &self.plan.fan, &ratios);
    }

    /// An overload that outlasted the hold-up browns boards out here, before the step's power is drawn, so that the books agree on it.
    fn move_boards(&mut self, seconds: f64, effects: &Effects) {
        self.pull_and_push(effects);
        for branch in 0..self.power.count() {
            if self.power.is_exhausted(branch, self.plan.supply.hold_up_seconds) {
                self.brown_out(branch, effects);
            }
        }
        let promised = self.watts_by_branch(effects, |board, effect| {
            // A board that starts counts in full.
            let starts = matches!(board.payload, Payload::Booting { .. }) || board.state == MState::M3;
            board.watts(effect).max(if starts { board.plan.power_watts } else { 0.0 })
        });
        let mut spare: Vec<f64> = promised.iter().enumerate().map(|(b, watts)| self.power.most_watts(b) - watts).collect();
        for (index, board) in self.boards.iter_mut().enumerate() {
            let Some(board) = board else { continue };
            let branch = self.power.of_slot(index);
            if !self.power.is_alive(branch) {
                board.lose_power();
                continue;
            }
            let asked = board.state == MState::M2;
            let slot_watts_max = self.plan.slot_power_watts_max;
            let now = Conditions { seconds, effect: effects.boards[index], slot_watts_max, spare_watts: spare[branch] };
            board.advance(now, |trouble| self.troubles.push((index, trouble)));
            if asked && board.state == MState::M3 {
                spare[branch] -= board.plan.power_watts; // promised to this one, so not to the next
            }
        }
    }

    /// A board that goes takes its heat along, one that comes brings that of the room.
    fn pull_and_push(&mut self, effects: &Effects) {
        for (index, slot) in self.boards.iter_mut().enumerate() {
            let pulled = effects.boards[index].pulled;
            if let Some(board) = slot.take_if(|_| pulled) {
                self.carried_joules += board.plan.heat_joules_per_kelvin * board.celsius;
            } else if let (None, false, Some(plan)) = (&slot, pulled, self.plan.board_at(index)) {
                self.in_joules += plan.heat_joules_per_kelvin * self.inlet_celsius;
                *slot = Some(Board::inserted(plan.clone(), self.inlet_celsius));
            }
        }
    }

    /// Sums up what each branch has to carry, boards reckoned by `watts`.
    fn watts_by_branch(&self, effects: &Effects, watts: impl Fn(&Board, BoardEffect) -> f64) -> Vec<f64> {
        let mut sums = vec![0.0; self.power.count()];
        for (index, board) in self.boards.iter().enumerate() {
            if let Some(board) = board {
                sums[self.power.of_slot(index)] += watts(board, effects.boards[index]);
            }
        }
        // Without any supply somebody has to be asked in vain: the first.
        sums[self.power.of_fans().unwrap_or(0)] += self.fan_watts();
        sums
    }

    fn fan_watts(&self) -> f64 {
        self.fans.iter().map(|fan| fan.watts(&self.plan.fan)).sum()
    }

    fn draw_power(&mut self, seconds: f64, effects: &Effects) {
        let load = self.watts_by_branch(effects, Board::watts);
        self.input_watts = self.power.share(&load, seconds) / self.plan.supply.efficiency;
        self.in_joules += self.input_watts * seconds;
    }

    /// Takes boards off a branch, the last slot first, until the rest can be carried.
    fn brown_out(&mut self, branch: usize, effects: &Effects) {
        for index in (0..self.boards.len()).rev().filter(|i| self.power.of_slot(*i) == branch).collect::<Vec<_>>() {
            if self.watts_by_branch(effects, Board::watts)[branch] <= self.power.most_watts(branch) {
                return;
            }
            if let Some(board) = self.boards[index].as_mut().filter(|b| b.payload != Payload::Off) {
                board.cut_off();
                self.troubles.push((index, Trouble::BrownOut));
            }
        }
    }

    /// What boards and fans want from all supplies.
    pub(crate) fn load_watts(&self, effects: &Effects) -> f64 {
        self.watts_by_branch(effects, Board::watts).iter().sum()
    }

    /// What a board gets from its branch.
    pub(crate) fn board_watts(&self, index: usize, effects: &Effects) -> f64 {
        self.boards[index].as_ref().map_or(0.0, |board| board.watts(effects.boards[index]) * self.power.served(index))
    }

    fn move_heat(&mut self, seconds: f64, effects: &Effects) {
        let slot_flow = self.flow_cubic_meters_per_second / self.boards.len() as f64;
        let mut into_air_joules = 0.0;
        for (i, board) in self.boards.iter_mut().enumerate() {
            let Some(board) = board else { continue };
            let watts = board.watts(effects.boards[i]) * self.power.served(i);
            // The power of this step is what was drawn before the board warmed: the books of `draw_power` use the same.
            let gives = heat::board_watts_per_kelvin(&board.plan, slot_flow, self.density);
            let after = heat::step(board.celsius, board.plan.heat_joules_per_kelvin, watts, gives, self.inlet_celsius, seconds);
            board.celsius = after.celsius;
            into_air_joules += after.given_joules;
        }
        let fans = self.fan_watts() * self.power.fans_served();
        let losses = self.input_watts * (1.0 - self.plan.supply.efficiency);
        let watts = into_air_joules / seconds + fans + losses;
        let carries = heat::carries_watts_per_kelvin(self.flow_cubic_meters_per_second, self.density);
        let capacity = self.plan.air.plenum_joules_per_kelvin;
        let after = heat::step(self.outlet_celsius, capacity, watts, carries, self.inlet_celsius, seconds);
        self.outlet_celsius = after.celsius;
        self.carried_joules += after.given_joules;
    }

    /// Puts every temperature where it would end; power and temperature depend on each other, so in a few rounds.
    fn settle(&mut self) {
        let slot_flow = self.flow_cubic_meters_per_second / self.boards.len() as f64;
        for _ in 0..SETTLE_ROUNDS {
            for board in self.boards.iter_mut().flatten() {
                let gives = heat::board_watts_per_kelvin(&board.plan, slot_flow, self.density);
                board.celsius = self.inlet_celsius + board.watts(BoardEffect::default()) / gives;
            }
        }
        let effects = Effects::none(&self.plan);
        self.power.look(&effects);
        self.draw_power(0.0, &effects);
        let carries = heat::carries_watts_per_kelvin(self.flow_cubic_meters_per_second, self.density);
        self.outlet_celsius = self.inlet_celsius + self.input_watts / carries;
    }
}

/// Short against the fans' lag and the boards' time constants.
const STEP_SECONDS_MAX: f64 = 0.5;
const SETTLE_ROUNDS: u32 = 60;
