//! Components that fail by themselves, at rates: MTBF and MTTR per class.
//!
//! A machine beside the chassis: it says which fault to inject next. Every component has a stream of draws of its own, so that one
//! more fan does not move the failures of the supplies. Each failure is injected with its repair as its end.

use sixnines_core::time::{Duration, Instant};

use super::fault::Injection;
use super::plan::{Plan, Rate};
use super::sensor::uniform;

/// When each component of a chassis fails next.
#[derive(Clone, Debug)]
pub struct Ageing {
    seed: u64,
    speed: f64,
    components: Vec<Component>,
}

#[derive(Clone, Debug)]
struct Component {
    rate: Rate,
    /// The ways in which it fails, equally often: fault and parameter.
    ways: Vec<(&'static str, Option<(&'static str, String)>)>,
    next: Instant,
    draws: u64,
}

impl Ageing {
    /// A chassis with all components in order at `now`. Time runs `speed` times faster than the rates say.
    pub fn new(plan: &Plan, seed: u64, speed: f64, now: Instant) -> Self {
        let mut this = Self { seed, speed, components: Vec::new() };
        let rates = &plan.reliability;
        let numbers = |count: usize| (1..=count).map(|n| n.to_string());
        let boards = (0..plan.slots.len()).filter(|i| plan.board_at(*i).is_some()).map(|i| (i + 1).to_string());
        let mut feeds = plan.supply.feeds.clone();
        feeds.sort();
        feeds.dedup();
        this.add(rates.fan, "fan", numbers(plan.fan.count.into()), &["fan-failed", "fan-worn"]);
        this.add(rates.supply, "supply", numbers(plan.supply.count.into()), &["supply-failed"]);
        this.add(rates.feed, "feed", feeds.into_iter(), &["feed-lost"]);
        this.add(rates.board, "slot", boards, &["board-hang", "board-panic", "board-hot"]);
        this.add(rates.fabric, "fabric", plan.fabrics.iter().cloned(), &["fabric-down", "fabric-flapping", "fabric-lossy"]);
        if let Some(rate) = rates.shelf_manager {
            let ways = vec![("shelf-manager-silent", None)];
            this.components.push(Component { rate, ways, next: Instant::ZERO, draws: 0 });
        }
        for index in 0..this.components.len() {
            let wait = this.exponential(index, this.components[index].rate.mtbf_hours);
            this.components[index].next = now + wait;
        }
        this
    }

    /// When the next component fails; `None` if none ever does.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.components.iter().map(|c| c.next).min()
    }

    /// The next failure that is due, the oldest first, with the time after which it is repaired.
    pub fn poll(&mut self, now: Instant) -> Option<(Instant, Injection)> {
        let (next, index) =
            self.components.iter().enumerate().map(|(i, c)| (c.next, i)).min().filter(|(next, _)| *next <= now)?;
        let rate = self.components[index].rate;
        let repair = self.exponential(index, rate.mttr_hours);
        let until_next = self.exponential(index, rate.mtbf_hours);
        let draw = self.draw(index);
        let component = &mut self.components[index];
        component.next = next + repair + until_next;
        let (fault, parameter) = pick(&component.ways, draw);
        let parameters = parameter.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let by = "ageing".to_owned();
        Some((next, Injection { fault: (*fault).to_owned(), parameters, expires_after: Some(repair), by }))
    }

    fn add(
        &mut self,
        rate: Option<Rate>,
        parameter: &'static str,
        targets: impl Iterator<Item = String>,
        faults: &[&'static str],
    ) {
        let Some(rate) = rate else { return };
        for target in targets {
            let ways = faults.iter().map(|fault| (*fault, Some((parameter, target.clone())))).collect();
            self.components.push(Component { rate, ways, next: Instant::ZERO, draws: 0 });
        }
    }

    /// A draw from the exponential distribution, in time of the clock.
    fn exponential(&mut self, index: usize, mean_hours: f64) -> Duration {
        let hours = -self.draw(index).ln() * mean_hours / self.speed;
        Duration::try_from_secs_f64(hours * 3600.0).unwrap_or(Duration::MAX)
    }

    /// Uniform in (0, 1].
    fn draw(&mut self, index: usize) -> f64 {
        let component = &mut self.components[index];
        component.draws += 1;
        // The name of the component is its stream: place among the others does not matter.
        let name = component.ways.iter().flat_map(|(fault, p)| fault.bytes().chain(p.iter().flat_map(|(_, v)| v.bytes())));
        let stream =
            name.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        uniform(self.seed, stream, component.draws)
    }
}

fn pick<T>(from: &[T], draw: f64) -> &T {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the length of a short list")]
    let index = (draw * from.len() as f64) as usize;
    &from[index.min(from.len() - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chassis::Chassis;

    fn plan(fan: Rate) -> Plan {
        let mut plan = Plan::mxp();
        plan.reliability = super::super::plan::ReliabilityPlan { fan: Some(fan), ..Default::default() };
        plan
    }

    fn failures(ageing: &mut Ageing, hours: u64) -> Vec<(Instant, Injection)> {
        let end = Instant::ZERO + Duration::from_secs(hours * 3600);
        std::iter::from_fn(|| ageing.poll(end)).collect()
    }

    #[test]
    fn failures_come_at_the_given_rate_and_last_as_long_as_given() {
        let plan = plan(Rate { mtbf_hours: 90.0, mttr_hours: 10.0 });
        let list = failures(&mut Ageing::new(&plan, 1, 1.0, Instant::ZERO), 100_000);
        // Five fans, a failure each 100 hours on average.
        assert!((4_750..5_250).contains(&list.len()), "{}", list.len());
        let down: f64 = list.iter().filter_map(|(_, i)| i.expires_after).map(|d| d.as_secs_f64() / 3600.0).sum();
        assert!((down / 500_000.0 - 0.1).abs() < 0.01, "{down} hours");
        assert!(list.windows(2).all(|pair| pair[0].0 <= pair[1].0), "in order");
        let worn = list.iter().filter(|(_, i)| i.fault == "fan-worn").count();
        assert!((0.45..0.55).contains(&(worn as f64 / list.len() as f64)), "{worn} of {}", list.len());
    }

    #[test]
    fn the_same_seed_gives_the_same_failures_and_another_class_does_not_move_them() {
        let fans = plan(Rate { mtbf_hours: 90.0, mttr_hours: 10.0 });
        let mut both = fans.clone();
        both.reliability.supply = Some(Rate { mtbf_hours: 50.0, mttr_hours: 1.0 });
        let list = |plan: &Plan, seed| failures(&mut Ageing::new(plan, seed, 1.0, Instant::ZERO), 1000);
        assert_eq!(list(&fans, 7), list(&fans, 7));
        assert_ne!(list(&fans, 7), list(&fans, 8));
        let of_fans: Vec<_> = list(&both, 7).into_iter().filter(|(_, i)| i.fault.starts_with("fan")).collect();
        assert_eq!(of_fans, list(&fans, 7));
    }

    #[test]
    fn every_failure_of_a_shipped_shelf_can_be_injected() {
        let plan = Plan::atca();
        let mut chassis = Chassis::new(plan.clone(), Instant::ZERO);
        let mut ageing = Ageing::new(&plan, 3, 3600.0, Instant::ZERO);
        let list = failures(&mut ageing, 20);
        assert!(list.len() > 30, "{}", list.len());
        for (at, injection) in list {
            chassis.inject(at, injection.clone()).unwrap_or_else(|e| panic!("{injection:?}: {e}"));
            chassis.clear_all();
        }
    }

    #[test]
    fn nothing_fails_where_no_rate_is_given() {
        let mut plan = Plan::mxp();
        plan.reliability = Default::default();
        assert_eq!(Ageing::new(&plan, 1, 1.0, Instant::ZERO).poll_timeout(), None);
    }
}
