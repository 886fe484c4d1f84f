//! From gaps to nines: what a service's clients lose in a year, at given rates of faults and times of repair.
//!
//! For each class of faults, `unavailability = (covered * mean gap + (1 - covered) * repair) / mean time between faults`: the mean gap
//! that the campaign saw, and the whole repair where the takeover does not come. The rates are those of *what the service runs on* (its
//! node, that node's shelf, its application): where classes take nothing away, the gap is that of any such fault. To that comes
//! the time in which no majority of nodes is left because a second one is lost before the first is repaired; nodes fail independently.
//! Gaps count whole, though an idle client would not have noticed a part of each: the figure is rather too low.

use super::coverage::lower_bound;
use super::{ClassTally, Tally};

/// How often one class of faults happens, and how long a repair takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// The class.
    pub class: &'static str,
    /// Mean time between two such faults of one unit.
    pub mtbf_s: f64,
    /// Mean time until it is repaired, where nobody takes over.
    pub mttr_s: f64,
    /// It takes a node out of the domain until then.
    pub takes_node: bool,
}

/// What one class costs.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// The class, or the loss of the majority.
    pub class: String,
    /// The rate it was reckoned with; `None` for the loss of the majority.
    pub rate: Option<Rate>,
    /// The mean gap of one such fault.
    pub gap_s: f64,
    /// The share of time in which clients wait.
    pub unavailability: f64,
    /// The same, if the coverage were as low as 95 % confidence allows.
    pub at_bound: f64,
}

/// What all of them cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Availability {
    /// The most expensive first.
    pub costs: Vec<Cost>,
    /// The sum.
    pub unavailability: f64,
    /// The sum at the lower bound of the coverage.
    pub at_bound: f64,
}

/// Rates that are sane for an appliance of boards in shelves. Each can be replaced.
pub const RATES: [Rate; 16] = [
    rate("process-killed", 720.0, 1.0 / 60.0, false),
    rate("node-killed", 4_000.0, 1.0, true),
    rate("node-hung", 2_000.0, 1.0 / 6.0, true),
    rate("links-cut", 20_000.0, 2.0, true),
    rate("one-link-cut", 10_000.0, 4.0, false),
    rate("one-way-cut", 50_000.0, 2.0, false),
    rate("fabric-lost", 50_000.0, 4.0, false),
    rate("chassis-lost", 100_000.0, 4.0, true),
    rate("switchover", 168.0, 0.1, false),
    rate("fans-failed", 20_000.0, 4.0, false),
    rate("disk-slow", 5_000.0, 1.0, false),
    rate("disk-full", 20_000.0, 1.0, true),
    rate("disk-fails", 50_000.0, 1.0 / 60.0, true),
    rate("disk-replaced", 50_000.0, 4.0, true),
    rate("disk-rotten", 200_000.0, 4.0, true),
    rate("disk-restored", 1_000_000.0, 4.0, true),
];

const fn rate(class: &'static str, mtbf_h: f64, mttr_h: f64, takes_node: bool) -> Rate {
    Rate { class, mtbf_s: mtbf_h * HOUR, mttr_s: mttr_h * HOUR, takes_node }
}

/// What the campaign's figures mean at these rates, in a domain of so many nodes that all have a vote.
pub fn availability(tally: &Tally, rates: &[Rate], nodes: u32) -> Availability {
    let seen = |rate: &Rate| tally.classes.get(rate.class).map(|class| cost(class, *rate));
    let mut costs: Vec<Cost> = rates.iter().filter_map(seen).collect();
    let lost = majority_lost(rates, nodes);
    costs.push(Cost { class: "majority-lost".into(), rate: None, gap_s: 0.0, unavailability: lost, at_bound: lost });
    costs.sort_by(|a, b| b.unavailability.total_cmp(&a.unavailability));
    let unavailability = costs.iter().map(|c| c.unavailability).sum();
    let at_bound = costs.iter().map(|c| c.at_bound).sum();
    Availability { costs, unavailability, at_bound }
}

/// How many nines a share of lost time is.
pub fn nines(unavailability: f64) -> f64 {
    -unavailability.max(f64::MIN_POSITIVE).log10()
}

fn cost(class: &ClassTally, rate: Rate) -> Cost {
    let (gap_us, coverage, bound) = if class.due > 0 {
        (class.hit.mean(), ratio(class.taken, class.due), lower_bound(class.due, class.taken))
    } else {
        let n = class.moved.n() + class.stayed.n();
        let sum = |h: &super::Histogram| h.mean().unwrap_or_default() * ratio(h.n(), n);
        let served = n.saturating_sub(class.unserved); // nothing was due, yet clients may have waited for the repair
        (Some(sum(&class.moved) + sum(&class.stayed)), ratio(served, n), lower_bound(n, served))
    };
    let gap_s = gap_us.unwrap_or_default() / 1e6;
    let at = |coverage: f64| (coverage * gap_s + (1.0 - coverage) * rate.mttr_s) / rate.mtbf_s;
    Cost { class: rate.class.into(), rate: Some(rate), gap_s, unavailability: at(coverage), at_bound: at(bound) }
}

/// The share of time in which so many nodes are away that the others are no majority.
fn majority_lost(rates: &[Rate], nodes: u32) -> f64 {
    let away: f64 = rates.iter().filter(|r| r.takes_node).map(|r| r.mttr_s / (r.mtbf_s + r.mttr_s)).sum();
    let fewest = nodes - (nodes / 2 + 1) + 1; // so many away leave too few
    (fewest..=nodes).map(|k| choose(nodes, k) * away.powi(k.cast_signed()) * (1.0 - away).powi((nodes - k).cast_signed())).sum()
}

fn choose(n: u32, k: u32) -> f64 {
    (0..k).map(|i| f64::from(n - i) / f64::from(i + 1)).product()
}

#[expect(clippy::cast_precision_loss, reason = "counts of a campaign are far below 2^52")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

const HOUR: f64 = 3_600.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(class: &str, taken: u64, due: u64, gap_us: u64) -> Tally {
        let mut one = ClassTally { due, taken, ..ClassTally::default() };
        (0..due).for_each(|_| one.hit.add(gap_us));
        Tally { classes: [(class.to_owned(), one)].into(), ..Tally::default() }
    }

    #[test]
    fn a_class_costs_its_gap_at_its_rate_and_a_missed_takeover_costs_the_repair() {
        let rates = [Rate { class: "node-killed", mtbf_s: 1000.0, mttr_s: 100.0, takes_node: false }];
        let all = availability(&tally("node-killed", 100, 100, 30_000), &rates, 3);
        assert!((all.unavailability - 0.030 / 1000.0).abs() < 1e-12);
        let most = availability(&tally("node-killed", 99, 100, 30_000), &rates, 3);
        assert!((most.unavailability - (0.99 * 0.030 + 0.01 * 100.0) / 1000.0).abs() < 1e-12);
        assert!(most.at_bound > most.unavailability);
    }

    #[test]
    fn two_of_three_nodes_away_at_once_are_no_majority() {
        let rates = [Rate { class: "node-killed", mtbf_s: 999.0, mttr_s: 1.0, takes_node: true }];
        let away: f64 = 0.001;
        assert!((majority_lost(&rates, 3) - (3.0 * away.powi(2) * (1.0 - away) + away.powi(3))).abs() < 1e-15);
        assert!(majority_lost(&rates, 5) < 1e-7);
    }

    #[test]
    fn six_nines_are_six() {
        assert!((nines(1e-6) - 6.0).abs() < 1e-9);
    }
}
