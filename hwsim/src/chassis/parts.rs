//! Fans and supplies.

use super::plan::{FanPlan, SupplyPlan};

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
    fn supplies_share_and_give_no_more_than_their_limit() {
        let plan = Plan::mxp().supply;
        assert_eq!(share(&plan, 3, 1500.0), Sharing { each_watts: 500.0, served: 1.0 });
        assert_eq!(share(&plan, 1, 1500.0), Sharing { each_watts: 1100.0, served: 1100.0 / 1500.0 });
        assert_eq!(share(&plan, 0, 1500.0), Sharing { each_watts: 0.0, served: 0.0 });
    }
}
