//! The way of the air: fans in parallel push against the shelf's resistance.
//!
//! A fan at the speed ratio n makes the pressure `n² p - p (q / q0)²` at its flow q (the fan laws: pressure with the square,
//! flow with the speed). The shelf takes `r1 Q + r2 Q²` for the whole flow Q. All fans see one pressure; one that cannot hold
//! against it lets air through backwards. Thin air (altitude) makes less pressure and carries less heat.
//!
//! Source: ASHRAE Fundamentals, fan laws; standard atmosphere with a scale height of 8.5 km.

use super::plan::{AirPlan, FanPlan};

/// The flow through the whole shelf in cubic metres per second, for the given speed ratios (0 to 1) of the fans.
pub(crate) fn flow(air: &AirPlan, fan: &FanPlan, speed_ratios: &[f64]) -> f64 {
    let thin = density(air.altitude_meters) / density(0.0);
    let pressure_max = fan.pressure_pascals_max * thin;
    let r1 = air.filter_pascal_seconds_per_cubic_meter;
    let r2 = air.slots_pascal_seconds2_per_meter6 * thin;
    let passed = |pressure: f64| (-r1 + (r1 * r1 + 4.0 * r2 * pressure).sqrt()) / (2.0 * r2);
    let pushed = |pressure: f64| -> f64 { speed_ratios.iter().map(|&n| fan_flow(fan, pressure_max, n, pressure)).sum() };

    // What the fans push falls with the pressure, what the shelf passes rises: halve until they meet.
    let (mut low, mut high) = (0.0, speed_ratios.iter().fold(0.0, |top: f64, n| top.max(n * n)) * pressure_max);
    for _ in 0..HALVINGS {
        let middle = (low + high) / 2.0;
        if pushed(middle) > passed(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    passed(low).max(air.draught_cubic_meters_per_second)
}

/// Kilograms per cubic metre at a height.
pub(crate) fn density(altitude_meters: f64) -> f64 {
    1.2 * (-altitude_meters / 8500.0).exp()
}

/// One fan's flow at the speed ratio `n` against `pressure`; negative if the others push air back through it.
fn fan_flow(fan: &FanPlan, pressure_max: f64, n: f64, pressure: f64) -> f64 {
    let spare = n * n - pressure / pressure_max;
    if spare >= 0.0 {
        fan.flow_cubic_meters_per_second_max * spare.sqrt()
    } else {
        -fan.leak_cubic_meters_per_second_per_root_pascal * (-spare * pressure_max).sqrt()
    }
}

/// Joules that warm a kilogram of air by a kelvin.
pub(crate) const AIR_JOULES_PER_KILOGRAM_KELVIN: f64 = 1006.0;

/// 250 Pa / 2^48: far below what a double of the flow can show.
const HALVINGS: u32 = 48;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chassis::plan::Plan;

    /// Without the filter's linear part, N equal fans have the flow `n sqrt(p / (r2 + p / (N q0)²))`.
    #[test]
    fn equal_fans_meet_the_closed_form() {
        let mut plan = Plan::mxp();
        plan.air.filter_pascal_seconds_per_cubic_meter = 0.0;
        let (p, q0, r2) = (250.0, 0.16, 200.0);
        for count in [1_u32, 2, 5] {
            for n in [0.3, 0.6, 1.0] {
                let all = f64::from(count) * q0;
                let expected = n * (p / (r2 + p / (all * all))).sqrt();
                let got = flow(&plan.air, &plan.fan, &vec![n; count as usize]);
                assert!((got - expected).abs() < 1e-9 * expected, "{count} fans at {n}: {got} instead of {expected}");
            }
        }
    }

    #[test]
    fn a_fan_that_stands_still_costs_more_than_its_share() {
        let plan = Plan::mxp();
        let blocked = flow(&plan.air, &plan.fan, &[0.4, 0.4]);
        let leaking = flow(&plan.air, &plan.fan, &[0.4, 0.4, 0.0, 0.0, 0.0]);
        assert!(leaking < 0.6 * blocked, "{leaking} beside {blocked}");
    }

    #[test]
    fn no_fan_leaves_the_draught() {
        let plan = Plan::mxp();
        assert_eq!(flow(&plan.air, &plan.fan, &[0.0; 5]), plan.air.draught_cubic_meters_per_second);
    }

    #[test]
    fn thin_air_is_lighter() {
        assert!((density(8500.0) / density(0.0) - (-1.0_f64).exp()).abs() < 1e-12);
    }
}
