//! The parts of a chassis that move or change by themselves: fans, boards, supplies.

use serde::{Deserialize, Serialize};

use super::plan::{BoardPlan, FanPlan, SupplyPlan};

/// A fan: ordered by duty, follows with a first-order lag.
#[derive(Clone, Debug)]
pub(crate) struct Fan {
    pub(crate) duty_percent: i64,
    pub(crate) speed_rpm: f64,
}

impl Fan {
    pub(crate) fn at_rest_duty(plan: &FanPlan) -> Self {
        Self { duty_percent: plan.duty_percent, speed_rpm: plan.speed_rpm_max * percent(plan.duty_percent) }
    }

    /// Moves towards `target_rpm`; exact for a constant target.
    pub(crate) fn advance(&mut self, plan: &FanPlan, target_rpm: f64, seconds: f64) {
        self.speed_rpm = target_rpm + (self.speed_rpm - target_rpm) * (-seconds / plan.lag_seconds).exp();
        if (self.speed_rpm - target_rpm).abs() < ARRIVED_RPM {
            self.speed_rpm = target_rpm; // so that a steady state is steady to the last bit, and the air need not be solved anew
        }
    }

    /// Fan laws: power with the cube of the speed.
    pub(crate) fn watts(&self, plan: &FanPlan) -> f64 {
        plan.power_watts_max * (self.speed_rpm / plan.speed_rpm_max).powi(3)
    }
}

/// Hot-swap state of a slot. Source: PICMG 3.0, FRU states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MState {
    /// Not installed.
    #[default]
    M0,
    /// Inactive.
    M1,
    /// Activation requested.
    M2,
    /// Activation in progress.
    M3,
    /// Active.
    M4,
    /// Deactivation requested.
    M5,
    /// Deactivation in progress.
    M6,
    /// Communication lost: it is there and does not answer. Not the same as absent.
    M7,
}

impl MState {
    /// The state's name, such as `M4`.
    pub fn as_str(self) -> &'static str {
        ["M0", "M1", "M2", "M3", "M4", "M5", "M6", "M7"][self as usize]
    }
}

/// What a board's own processor does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Payload {
    Off,
    Booting { left_seconds: f64 },
    Running,
}

/// A board in a slot.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    pub(crate) plan: BoardPlan,
    pub(crate) celsius: f64,
    /// Never `M0` (then there is no board) and never `M7` (that is how it looks from outside, see `Chassis`).
    pub(crate) state: MState,
    since_seconds: f64,
    /// Whether it is to be powered: by default yes.
    pub(crate) wanted: bool,
    pub(crate) payload: Payload,
    /// Switched itself off because it was too hot; an order to power it on clears it.
    pub(crate) tripped: bool,
}

impl Board {
    pub(crate) fn running(plan: BoardPlan, celsius: f64) -> Self {
        Self { plan, celsius, state: MState::M4, since_seconds: 0.0, wanted: true, payload: Payload::Running, tripped: false }
    }

    /// An order from outside; an order to power on also forgives a trip.
    pub(crate) fn order_power(&mut self, on: bool) {
        self.wanted = on;
        self.tripped &= !on;
    }

    /// The payload starts again; nothing happens to a board whose payload is off.
    pub(crate) fn reset(&mut self) {
        if self.payload != Payload::Off {
            self.payload = Payload::Booting { left_seconds: self.plan.boot_seconds };
        }
    }

    /// The bus could not carry it: off at once, and it stays off until ordered on again.
    pub(crate) fn brown_out(&mut self) {
        self.wanted = false;
        self.lose_power();
    }

    /// No power at all; it comes back by itself when there is some.
    pub(crate) fn lose_power(&mut self) {
        self.enter(MState::M1);
        self.payload = Payload::Off;
    }

    pub(crate) fn advance(&mut self, seconds: f64) {
        self.since_seconds += seconds;
        if let Payload::Booting { left_seconds } = self.payload {
            let left_seconds = left_seconds - seconds;
            self.payload = if left_seconds > 0.0 { Payload::Booting { left_seconds } } else { Payload::Running };
        }
        if self.celsius > self.plan.trip_celsius && self.payload != Payload::Off {
            self.tripped = true;
            self.lose_power();
        }
        let on = self.wanted && !self.tripped;
        match self.state {
            MState::M1 if on => self.enter(MState::M2),
            MState::M2 if !on => self.enter(MState::M1),
            MState::M2 if self.since_seconds >= REQUEST_SECONDS => self.enter(MState::M3),
            MState::M3 if self.since_seconds >= POWER_UP_SECONDS => {
                self.enter(MState::M4);
                self.payload = Payload::Booting { left_seconds: self.plan.boot_seconds };
            }
            MState::M4 if !on => self.enter(MState::M5),
            MState::M5 if self.since_seconds >= REQUEST_SECONDS => self.enter(MState::M6),
            MState::M6 if self.since_seconds >= SHUT_DOWN_SECONDS => self.lose_power(),
            _ => {}
        }
    }

    /// What it wants from the bus now.
    pub(crate) fn watts(&self) -> f64 {
        let payload =
            self.plan.power_watts * (1.0 + self.plan.leakage_per_kelvin * (self.celsius - LEAKAGE_FROM_CELSIUS)).max(0.1);
        match self.payload {
            Payload::Off => self.plan.standby_watts,
            Payload::Booting { .. } => BOOT_LOAD * payload,
            Payload::Running => payload,
        }
    }

    fn enter(&mut self, state: MState) {
        self.state = state;
        self.since_seconds = 0.0;
    }
}

/// How the supplies carry a load.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sharing {
    /// What each good supply gives, in watts.
    pub(crate) each_watts: f64,
    /// What the load gets of what it wants, 0 to 1; below 1 the bus sags.
    pub(crate) served: f64,
}

/// Good supplies share equally, each up to its limit.
pub(crate) fn share(plan: &SupplyPlan, good: usize, load_watts: f64) -> Sharing {
    let most = plan.power_watts_max * good as f64;
    if good == 0 {
        return Sharing { each_watts: 0.0, served: 0.0 };
    }
    let given = load_watts.min(most);
    Sharing { each_watts: given / good as f64, served: if load_watts > 0.0 { given / load_watts } else { 1.0 } }
}

pub(crate) fn percent(duty: i64) -> f64 {
    duty as f64 / 100.0
}

const ARRIVED_RPM: f64 = 0.05;
const REQUEST_SECONDS: f64 = 1.0;
const POWER_UP_SECONDS: f64 = 2.0;
const SHUT_DOWN_SECONDS: f64 = 5.0;
/// A booting payload draws less than a running one.
const BOOT_LOAD: f64 = 0.7;
const LEAKAGE_FROM_CELSIUS: f64 = 40.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chassis::plan::Plan;

    #[test]
    fn a_fan_follows_its_duty_with_one_lag() {
        let plan = Plan::mxp().fan;
        let mut fan = Fan::at_rest_duty(&plan);
        fan.advance(&plan, 6000.0, plan.lag_seconds);
        let expected = 6000.0 - 3600.0 * (-1.0_f64).exp();
        assert!((fan.speed_rpm - expected).abs() < 1e-9);
        fan.advance(&plan, 6000.0, 60.0);
        assert_eq!(fan.speed_rpm, 6000.0, "arrived, to the last bit");
        assert_eq!(fan.watts(&plan), plan.power_watts_max);
    }

    #[test]
    fn a_board_walks_through_its_states() {
        let mut board = Board::running(Plan::mxp().boards["line"].clone(), 40.0);
        board.order_power(false);
        let mut seen = vec![board.state];
        for second in 0..200 {
            if second == 20 {
                board.order_power(true);
            }
            board.advance(1.0);
            if seen.last() != Some(&board.state) {
                seen.push(board.state);
            }
        }
        use MState::{M1, M2, M3, M4, M5, M6};
        assert_eq!(seen, [M4, M5, M6, M1, M2, M3, M4]);
        assert_eq!(board.payload, Payload::Running);
    }

    #[test]
    fn a_board_that_is_too_hot_goes_off_until_it_is_ordered_on() {
        let mut board = Board::running(Plan::mxp().boards["processor"].clone(), 106.0);
        board.advance(0.5);
        assert_eq!((board.state, board.payload, board.tripped), (MState::M1, Payload::Off, true));
        board.celsius = 30.0;
        board.advance(60.0);
        assert_eq!(board.state, MState::M1, "stays off");
        board.order_power(true);
        board.advance(0.5);
        assert_eq!(board.state, MState::M2);
    }

    #[test]
    fn supplies_share_and_give_no_more_than_their_limit() {
        let plan = Plan::mxp().supply;
        assert_eq!(share(&plan, 3, 1500.0), Sharing { each_watts: 500.0, served: 1.0 });
        assert_eq!(share(&plan, 1, 1500.0), Sharing { each_watts: 1100.0, served: 1100.0 / 1500.0 });
        assert_eq!(share(&plan, 0, 1500.0), Sharing { each_watts: 0.0, served: 0.0 });
    }
}
