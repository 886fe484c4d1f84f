//! Fans: ordered by duty, following with a lag.

use super::plan::FanPlan;

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
}
