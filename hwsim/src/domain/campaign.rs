//! What many runs come to together, in bounded memory: a [`Tally`] that grows with the number of fault classes and not of seeds.
//!
//! Runs are added in the order of their seeds, whoever played them and when: so a campaign that was interrupted and went on comes to
//! the same tally, byte for byte, as one that was not.

pub mod availability;
pub mod coverage;
pub mod histogram;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sixnines_core::ids::GroupName;

use super::MS;
use super::chaos::Report;
use super::chaos::breach::Harm;
use super::chaos::incidents::Incident;
use histogram::Histogram;

/// Everything that a campaign has seen so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Runs.
    pub seeds: u64,
    /// Answers that clients got.
    pub answers: u64,
    /// Faults injected.
    pub faults: u64,
    /// Those that hit a domain that was not whole.
    pub overlapping: u64,
    /// Changes of a service's active.
    pub role_changes: u64,
    /// Of those, complete failovers of a service for a fault that hit a whole domain, and of them those in which a node died.
    pub failovers: u64,
    /// Failovers because a node died.
    pub node_failovers: u64,
    /// Groups that were declared lost, because every node with a complete copy had died.
    pub declared_losses: u64,
    /// Virtual time.
    pub virtual_ms: u64,
    /// By fault class.
    pub classes: BTreeMap<String, ClassTally>,
    /// Runs that failed, by what was broken.
    pub harms: BTreeMap<String, u64>,
    /// The first failures.
    pub failures: Vec<Failure>,
    /// The first takeovers that were due and did not come.
    pub missed: Vec<Missed>,
    /// Over all seeds and traces: two campaigns with the same one have seen the same.
    pub checksum: u64,
}

/// What faults of one class did, each seen by each service that had clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassTally {
    /// The client's gap where the service moved.
    pub moved: Histogram,
    /// The client's gap where it stayed.
    pub stayed: Histogram,
    /// The client's gap where the fault took away what the service ran on.
    pub hit: Histogram,
    /// Takeovers that were due.
    pub due: u64,
    /// Those that came: under a higher epoch, and clients were served again within the window.
    pub taken: u64,
    /// Clients got no answers at the end of the window, takeover due or not.
    pub unserved: u64,
    /// The longest gaps and the seeds that show them, the longest first.
    pub slowest: Vec<(u64, u64)>,
}

/// A run that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// How.
    pub failure: String,
}

/// A takeover that was due and did not come within the window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// The seed.
    pub seed: u64,
    /// The fault's class.
    pub class: String,
    /// The service.
    pub service: GroupName,
}

impl Tally {
    /// Adds one run.
    pub fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.answers += report.answers;
        self.faults += report.faults;
        self.overlapping += report.overlapping;
        self.role_changes += report.role_changes;
        self.declared_losses += report.losses;
        self.virtual_ms += report.lasted / MS;
        self.checksum = self.checksum.rotate_left(7) ^ report.checksum ^ report.seed;
        for incident in &report.incidents {
            self.add_incident(report.seed, incident);
        }
        if let Some(failure) = &report.failure {
            *self.harms.entry(Harm::of(failure).word().to_owned()).or_default() += 1;
            if self.failures.len() < LIST_MAX {
                self.failures.push(Failure { seed: report.seed, failure: failure.clone() });
            }
        }
    }

    /// Runs that failed.
    pub fn failed(&self) -> u64 {
        self.harms.values().sum()
    }

    /// Runs that broke that rule.
    pub fn harmed(&self, harm: Harm) -> u64 {
        self.harms.get(harm.word()).copied().unwrap_or_default()
    }

    /// Takeovers that were due, and those that came.
    pub fn takeovers(&self) -> (u64, u64) {
        self.classes.values().fold((0, 0), |(due, taken), class| (due + class.due, taken + class.taken))
    }

    fn add_incident(&mut self, seed: u64, incident: &Incident) {
        let class = self.classes.entry(incident.class.clone()).or_default();
        class.add(seed, incident);
        let is_failover = incident.is_due && incident.moved && incident.is_served;
        self.failovers += u64::from(is_failover);
        self.node_failovers += u64::from(is_failover && matches!(incident.class.as_str(), "node-killed" | "chassis-lost"));
        if incident.is_due && !is_failover && self.missed.len() < LIST_MAX {
            self.missed.push(Missed { seed, class: incident.class.clone(), service: incident.service.clone() });
        }
    }
}

impl ClassTally {
    fn add(&mut self, seed: u64, incident: &Incident) {
        let gap = incident.gap_us;
        if incident.moved { self.moved.add(gap) } else { self.stayed.add(gap) }
        if incident.is_due {
            self.hit.add(gap);
            self.due += 1;
            self.taken += u64::from(incident.moved && incident.is_served);
        }
        self.unserved += u64::from(!incident.is_served);
        let at = self.slowest.partition_point(|(other, _)| *other >= gap);
        self.slowest.insert(at, (gap, seed));
        self.slowest.truncate(SLOWEST_MAX);
    }
}

/// Failures and missed takeovers beyond so many are counted, not listed.
const LIST_MAX: usize = 20;
/// So many of the longest gaps of a class keep their seed.
const SLOWEST_MAX: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn incident(class: &str, is_due: bool, moved: bool, gap_us: u64) -> Incident {
        Incident { class: class.into(), service: "calls".into(), is_due, moved, is_served: true, gap_us }
    }

    fn report(seed: u64, incidents: Vec<Incident>, failure: Option<&str>) -> Report {
        Report {
            seed,
            failure: failure.map(str::to_owned),
            answers: 10,
            faults: 2,
            role_changes: 1,
            losses: 0,
            incidents,
            overlapping: 1,
            lasted: 5 * MS,
            checksum: seed * 31,
            story: Vec::new(),
        }
    }

    #[test]
    fn a_takeover_that_does_not_come_is_missed_and_told_by_its_seed() {
        let mut tally = Tally::default();
        tally.add(&report(1, vec![incident("node-killed", true, true, 28_000), incident("node-killed", false, false, 6_000)], None));
        tally.add(&report(2, vec![incident("node-killed", true, false, 500_000)], Some("at 1.0 ms: two actives: n1 and n2")));
        assert_eq!((tally.takeovers(), tally.failovers, tally.failed()), ((2, 1), 1, 1));
        assert_eq!(tally.missed, [Missed { seed: 2, class: "node-killed".into(), service: "calls".into() }]);
        assert_eq!(tally.harmed(Harm::TwoActives), 1);
        assert_eq!(tally.classes["node-killed"].slowest, [(500_000, 2), (28_000, 1), (6_000, 1)]);
    }

    #[test]
    fn lists_are_bounded_and_counts_are_not() {
        let mut tally = Tally::default();
        (0..100).for_each(|seed| tally.add(&report(seed, vec![incident("node-hung", true, false, 1)], Some("within 5 ms never: it serves"))));
        assert_eq!((tally.failures.len(), tally.failed(), tally.missed.len()), (LIST_MAX, 100, LIST_MAX));
    }

    #[test]
    fn a_tally_is_the_same_after_it_was_saved_and_went_on() {
        let reports: Vec<Report> = (0..10).map(|seed| report(seed, vec![incident("node-killed", true, true, 20_000 + seed)], None)).collect();
        let mut whole = Tally::default();
        reports.iter().for_each(|r| whole.add(r));
        let mut half = Tally::default();
        reports[..4].iter().for_each(|r| half.add(r));
        let saved = serde_json::to_string(&half).expect("a tally has a JSON");
        let mut resumed: Tally = serde_json::from_str(&saved).expect("just written");
        reports[4..].iter().for_each(|r| resumed.add(r));
        assert_eq!(resumed, whole);
    }
}
