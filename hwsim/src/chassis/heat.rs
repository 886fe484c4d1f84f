//! Heat in a body that air flows over: one capacity, one conductance, solved exactly for a step with constant conditions.

use super::air::AIR_JOULES_PER_KILOGRAM_KELVIN;
use super::plan::BoardPlan;

/// What a step of time did to a body.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Step {
    /// Its temperature afterwards.
    pub(crate) celsius: f64,
    /// What it gave to the air, in joules (negative: took).
    pub(crate) given_joules: f64,
}

/// A body of `joules_per_kelvin` at `celsius`, heated with `watts`, that gives `watts_per_kelvin` to air of `air_celsius`, after `seconds`.
///
/// The closed form of `C dT/dt = P - h (T - T_air)`: an exponential approach to `T_air + P / h` with the time constant `C / h`.
pub(crate) fn step(
    celsius: f64,
    joules_per_kelvin: f64,
    watts: f64,
    watts_per_kelvin: f64,
    air_celsius: f64,
    seconds: f64,
) -> Step {
    let end = air_celsius + watts / watts_per_kelvin;
    let left = (-seconds * watts_per_kelvin / joules_per_kelvin).exp();
    let after = end + (celsius - end) * left;
    // The integral of h (T - T_air): the steady part, and what the approach adds to it.
    let given_joules = watts * seconds + (celsius - end) * joules_per_kelvin * (1.0 - left);
    Step { celsius: after, given_joules }
}

/// How many watts per kelvin a board gives to a slot's flow, reckoned from the *inlet's* temperature.
///
/// A heat exchanger with one temperature on the board's side: effectiveness `1 - exp(-NTU)`, conductance with the power 0.8 of the
/// flow (turbulent).
pub(crate) fn board_watts_per_kelvin(board: &BoardPlan, slot_flow_cubic_meters_per_second: f64, density: f64) -> f64 {
    let carries = carries_watts_per_kelvin(slot_flow_cubic_meters_per_second, density);
    let ratio = slot_flow_cubic_meters_per_second / board.rated_flow_cubic_meters_per_second;
    let conductance = board.conductance_watts_per_kelvin * ratio.powf(0.8);
    carries * (1.0 - (-conductance / carries).exp())
}

/// The heat that a flow of air carries per kelvin.
pub(crate) fn carries_watts_per_kelvin(flow_cubic_meters_per_second: f64, density: f64) -> f64 {
    flow_cubic_meters_per_second * density * AIR_JOULES_PER_KILOGRAM_KELVIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_time_constant_leaves_one_eth() {
        let after = step(20.0, 100.0, 50.0, 5.0, 20.0, 20.0); // C/h = 20 s, end 30
        let expected = 30.0 - 10.0 * (-1.0_f64).exp();
        assert!((after.celsius - expected).abs() < 1e-12);
        let stored = 100.0 * (after.celsius - 20.0);
        assert!((50.0 * 20.0 - stored - after.given_joules).abs() < 1e-9);
    }

    #[test]
    fn many_short_steps_are_one_long_one() {
        let mut celsius = 80.0;
        let mut given = 0.0;
        for _ in 0..1000 {
            let after = step(celsius, 300.0, 70.0, 4.0, 24.0, 0.1);
            celsius = after.celsius;
            given += after.given_joules;
        }
        let once = step(80.0, 300.0, 70.0, 4.0, 24.0, 100.0);
        assert!((celsius - once.celsius).abs() < 1e-9 && (given - once.given_joules).abs() < 1e-6);
    }
}
