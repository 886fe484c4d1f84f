//! Branches of supply: which supplies carry which slots, how they share, and when they cannot.

use super::fault::Effects;
use super::plan::Plan;

/// All branches of a chassis.
#[derive(Clone, Debug)]
pub(crate) struct Power {
    branches: Vec<Branch>,
    /// By slot index: the branch that feeds it.
    of_slot: Vec<usize>,
    /// By supply index: the branch that it feeds.
    of_supply: Vec<usize>,
    each_watts_max: f64,
}

/// Supplies on one bus.
#[derive(Clone, Debug)]
struct Branch {
    /// How many of its supplies work.
    good: usize,
    /// What each of these gives.
    each_watts: f64,
    /// What part of the load the bus carries, 0 to 1; below 1 it sags.
    served: f64,
    overload_seconds: f64,
}

impl Power {
    pub(crate) fn of(plan: &Plan) -> Self {
        let whole = Branch { good: 0, each_watts: 0.0, served: 1.0, overload_seconds: 0.0 };
        let mut this = Self {
            branches: vec![whole; plan.supply.branches.len().max(1)],
            of_slot: vec![0; plan.slots.len()],
            of_supply: vec![0; usize::from(plan.supply.count)],
            each_watts_max: plan.supply.power_watts_max,
        };
        for (index, branch) in plan.supply.branches.iter().enumerate() {
            branch.value.slots.iter().for_each(|slot| this.of_slot[slot - 1] = index);
            branch.value.supplies.iter().for_each(|supply| this.of_supply[supply - 1] = index);
        }
        this
    }

    pub(crate) fn count(&self) -> usize {
        self.branches.len()
    }

    /// Which supplies work now.
    pub(crate) fn look(&mut self, effects: &Effects) {
        self.branches.iter_mut().for_each(|branch| branch.good = 0);
        for (branch, failed) in self.of_supply.iter().zip(&effects.supplies_failed) {
            self.branches[*branch].good += usize::from(!failed);
        }
    }

    /// The branch that turns the fans: the first that is alive.
    pub(crate) fn of_fans(&self) -> Option<usize> {
        self.branches.iter().position(|branch| branch.good > 0)
    }

    pub(crate) fn of_slot(&self, slot: usize) -> usize {
        self.of_slot[slot]
    }

    pub(crate) fn is_alive(&self, branch: usize) -> bool {
        self.branches[branch].good > 0
    }

    /// What a branch can carry at most.
    pub(crate) fn most_watts(&self, branch: usize) -> f64 {
        self.each_watts_max * self.branches[branch].good as f64
    }

    /// Whether a branch has been overloaded for longer than the hold-up.
    pub(crate) fn is_exhausted(&self, branch: usize, hold_up_seconds: f64) -> bool {
        self.branches[branch].overload_seconds > hold_up_seconds
    }

    /// Shares the load of each branch equally among its good supplies, each up to its limit; returns what all give together.
    pub(crate) fn share(&mut self, load_watts: &[f64], seconds: f64) -> f64 {
        let mut total = 0.0;
        for (index, load) in load_watts.iter().enumerate() {
            let given = load.min(self.most_watts(index));
            let branch = &mut self.branches[index];
            branch.each_watts = if branch.good > 0 { given / branch.good as f64 } else { 0.0 };
            branch.served = if *load > 0.0 { given / load } else { 1.0 };
            let over = branch.good > 0 && branch.served < 1.0;
            branch.overload_seconds = if over { branch.overload_seconds + seconds } else { 0.0 };
            total += given;
        }
        total
    }

    /// What part of its load a slot gets.
    pub(crate) fn served(&self, slot: usize) -> f64 {
        self.branches[self.of_slot[slot]].served
    }

    /// What part of their load the fans get.
    pub(crate) fn fans_served(&self) -> f64 {
        self.of_fans().map_or(0.0, |branch| self.branches[branch].served)
    }

    /// What a supply gives, if it works.
    pub(crate) fn supply_watts(&self, supply: usize) -> f64 {
        self.branches[self.of_supply[supply]].each_watts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn supplies_share_and_give_no_more_than_their_limit() {
        let plan = Plan::mxp();
        let (mut power, mut effects) = (Power::of(&plan), Effects::none(&plan));
        power.look(&effects);
        assert_eq!(power.share(&[1500.0], 1.0), 1500.0);
        assert_eq!((power.supply_watts(0), power.served(0)), (500.0, 1.0));
        effects.supplies_failed[..2].fill(true);
        power.look(&effects);
        assert_eq!(power.share(&[1500.0], 1.0), 1100.0);
        assert_eq!((power.supply_watts(2), power.served(17)), (1100.0, 1100.0 / 1500.0));
        assert!(power.is_exhausted(0, 0.9) && !power.is_exhausted(0, 1.1));
        effects.supplies_failed.fill(true);
        power.look(&effects);
        assert_eq!((power.share(&[1500.0], 1.0), power.served(0), power.of_fans()), (0.0, 0.0, None));
    }
}
