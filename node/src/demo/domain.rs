//! What the demo asks of the domain, in the demo's own words. It asks as an operator's command line does: over a node's local socket.

pub(crate) mod local;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The domain as one of its nodes sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Services, and the ownership of each chassis (`chassis:mxp1`).
    pub(crate) services: Vec<Service>,
    /// Nodes that are up and in touch.
    pub(crate) nodes_up: Vec<String>,
    /// Who leads the control log.
    pub(crate) leader: Option<String>,
}

/// A service group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Service {
    /// Its name.
    pub(crate) name: String,
    /// Which node is active, if one is.
    pub(crate) active: Option<String>,
    /// The nodes with a complete copy, besides the active.
    pub(crate) standbys: Vec<String>,
    /// The epoch in force.
    pub(crate) epoch: u64,
}

/// A standing alarm.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Alarm {
    /// Its id, which a change of owner does not change.
    pub(crate) id: String,
    /// What it is about.
    pub(crate) object: String,
    /// What is wrong.
    pub(crate) alarm: String,
}

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The longest lateness of its liveness thread, in microseconds, in each second of the last minute, by the boot-time clock.
    pub(crate) late_us: Vec<(u64, u64)>,
    /// How often its lease ran out since it started.
    pub(crate) suspensions: u64,
}

impl Status {
    /// The service of that name.
    pub(crate) fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|s| s.name == name)
    }

    /// What keeps the domain from being redundant, in words; `None` if it is.
    ///
    /// `owners` tells for each group how many nodes could own it: a group with one candidate has no standby, as meant.
    pub(crate) fn lacks(&self, nodes: usize, candidates: impl Fn(&str) -> usize) -> Option<String> {
        if self.nodes_up.len() < nodes {
            return Some(format!("{} of {nodes} nodes are up", self.nodes_up.len()));
        }
        for service in &self.services {
            if service.active.is_none() {
                return Some(format!("{} has no active", service.name));
            }
            if service.standbys.is_empty() && candidates(&service.name) > 1 {
                return Some(format!("{} has no standby in sync", service.name));
            }
        }
        self.services.is_empty().then(|| "no service is known".to_owned())
    }
}

/// A running domain. Every question goes to a node that lives, unless a node is named.
pub(crate) trait Domain {
    /// How things are.
    fn status(&mut self) -> anyhow::Result<Status>;
    /// How things are as `node` sees them.
    fn status_of(&mut self, node: &str) -> anyhow::Result<Status>;
    /// How often leases ran out without a takeover, summed over the nodes that answer.
    fn suspensions(&mut self) -> anyhow::Result<u64>;
    /// What a node says of itself.
    fn standing_of(&mut self, node: &str) -> anyhow::Result<Standing>;
    /// Makes other policies law.
    fn apply_policies(&mut self, files: BTreeMap<String, String>) -> anyhow::Result<()>;
    /// How many events a node has made since it started.
    fn events_made(&mut self, node: &str) -> anyhow::Result<u64>;
    /// The chain of causes, one line each.
    fn why(&mut self, name: &str) -> anyhow::Result<Vec<String>>;
    /// Moves a service in an orderly way.
    fn switchover(&mut self, service: &str, to: Option<&str>) -> anyhow::Result<()>;
    /// Breaks something in a chassis, such as `fan-failed` of `fan1`.
    fn inject(&mut self, chassis: &str, fault: &str, target: &str) -> anyhow::Result<()>;
    /// Ends all injected faults of a chassis.
    fn clear(&mut self, chassis: &str) -> anyhow::Result<()>;
    /// The standing alarms.
    fn alarms(&mut self) -> anyhow::Result<Vec<Alarm>>;
    /// Ids of the newest events that `at` knows and that `origin` numbered.
    fn events(&mut self, at: &str, origin: &str) -> anyhow::Result<Vec<String>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> Status {
        let service = |name: &str, standbys: &[&str]| Service {
            name: name.into(),
            active: Some("n1".into()),
            standbys: standbys.iter().map(|s| (*s).into()).collect(),
            epoch: 1,
        };
        Status {
            services: vec![service("calls", &["n3"]), service("chassis:mxp2", &[])],
            nodes_up: ["n1", "n2", "n3"].map(String::from).to_vec(),
            leader: None,
        }
    }

    #[test]
    fn redundant_means_every_node_up_and_a_standby_wherever_there_can_be_one() {
        let candidates = |group: &str| if group == "chassis:mxp2" { 1 } else { 3 };
        assert_eq!(healthy().lacks(3, candidates), None);
        let mut down = healthy();
        down.nodes_up.pop();
        assert_eq!(down.lacks(3, candidates).unwrap(), "2 of 3 nodes are up");
        let mut bare = healthy();
        bare.services[0].standbys.clear();
        assert_eq!(bare.lacks(3, candidates).unwrap(), "calls has no standby in sync");
        assert!(Status { services: vec![], ..healthy() }.lacks(3, candidates).is_some());
    }
}
