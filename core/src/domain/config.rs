//! The one versioned configuration that the control log holds: nodes, chassis, services, times.
//!
//! Files are proposals: `nines init` and `apply` read YAML into these types, check the whole, and commit it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::limits::{Limit, Limits};
use crate::ids::{ChassisName, GroupName, NodeId};

/// A domain: nodes that share a control log, a CA and one time profile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainConfig {
    /// What people call it.
    pub domain: String,
    /// How fast it judges.
    #[serde(default)]
    pub profile: Profile,
    /// At most 32.
    pub nodes: Vec<NodeConfig>,
    /// The shelves that the nodes sit in.
    #[serde(default)]
    pub chassis: Vec<ChassisConfig>,
    /// What must run.
    #[serde(default)]
    pub services: Vec<ServiceConfig>,
    /// What a node takes upon itself at most. Where nothing is said nothing is written, in the control log neither: [`super::Entry`] and the
    /// log's snapshots read it so.
    #[serde(default, skip_serializing_if = "Limits::is_unsaid")]
    pub limits: Limits,
}

/// One node's place in the domain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// 1 to 32, for good.
    pub id: NodeId,
    /// The shelf that it sits in.
    pub chassis: ChassisName,
    /// Its address on each link, in the order of the links: fabric A, fabric B. All nodes have the same number of links.
    pub links: Vec<SocketAddr>,
    /// Whether it votes in the control log.
    #[serde(default = "yes")]
    pub voter: bool,
    /// Whether it runs no services: a witness only votes.
    #[serde(default)]
    pub witness: bool,
}

/// One shelf.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChassisConfig {
    /// What people call it, and the first part of its objects' names.
    pub name: ChassisName,
    /// Where its shelf manager answers; nodes in this shelf can reach it.
    #[serde(default)]
    pub manager: Option<SocketAddr>,
}

/// One service: an application with an active and a hot standby.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// What people call it.
    pub name: GroupName,
    /// The program and its arguments, started on every candidate.
    pub command: Vec<String>,
    /// The addresses that go where the active is, such as `10.9.0.1/24`.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// The network device that bears the addresses, the same on each node.
    #[serde(default)]
    pub device: Option<String>,
    /// Where it can run, the preferred first. Empty: on every node that is no witness.
    #[serde(default)]
    pub nodes: Vec<NodeId>,
    /// How many copies of its state are wanted.
    #[serde(default = "two")]
    pub copies: u8,
    /// With fewer it stops acknowledging.
    #[serde(default = "one")]
    pub floor: u8,
    /// What happens when every complete copy is gone.
    #[serde(default)]
    pub on_total_loss: OnTotalLoss,
}

/// What a service does when every complete copy of its state is gone (protocol 1.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnTotalLoss {
    /// An operator decides.
    #[default]
    Wait,
    /// It goes on with the best copy there is; the gap is declared.
    Best,
    /// It starts empty, as a new generation.
    Empty,
}

/// The time profile: how often nodes speak, and when silence means death.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// 5 ms, dead after 25 ms: one appliance, real-time scheduling.
    Fabric,
    /// 25 ms, dead after 125 ms: chassis to chassis.
    #[default]
    Lan,
    /// 250 ms, dead after 1500 ms: sites.
    Wan,
}

/// What a profile means in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Between two heartbeats.
    pub interval: Duration,
    /// Silence for so long is death.
    pub dead_after: Duration,
    /// L: for how long after sending a granted heartbeat its sender may speak.
    pub lease: Duration,
    /// P: for how long after granting a voter keeps from releasing.
    pub promise: Duration,
    /// How late the gate may close after the lease's end.
    pub gate_late: Duration,
}

/// d: how much one clock may run fast or slow against another, in parts per thousand.
pub const DRIFT_PER_MILLE: u32 = 10;

impl Profile {
    /// As files name it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Fabric => "fabric",
            Self::Lan => "lan",
            Self::Wan => "wan",
        }
    }

    /// The profile's times. They keep protocol 3.2; a test says so.
    pub const fn times(self) -> Times {
        match self {
            Self::Fabric => Times::of_millis(5, 25, 19, 25, 5),
            Self::Lan => Times::of_millis(25, 125, 110, 125, 10),
            Self::Wan => Times::of_millis(250, 1500, 1400, 1500, 50),
        }
    }
}

impl Times {
    const fn of_millis(interval: u64, dead_after: u64, lease: u64, promise: u64, gate_late: u64) -> Self {
        Self {
            interval: Duration::from_millis(interval),
            dead_after: Duration::from_millis(dead_after),
            lease: Duration::from_millis(lease),
            promise: Duration::from_millis(promise),
            gate_late: Duration::from_millis(gate_late),
        }
    }

    /// Rule 3.2: `P >= L (1 + d) / (1 - d) + G` and `P <= dead_after`.
    pub fn is_safe(&self) -> bool {
        let stretched = self.lease * (1000 + DRIFT_PER_MILLE) / (1000 - DRIFT_PER_MILLE);
        self.promise >= stretched + self.gate_late && self.promise <= self.dead_after && self.interval * 2 < self.lease
    }
}

/// Something with one active: a service, or the ownership of a chassis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// Its name in the control log.
    pub name: GroupName,
    /// Where it can be active, the preferred first.
    pub candidates: Vec<NodeId>,
    /// How many copies of its state are wanted.
    pub copies: u8,
    /// With fewer it stops acknowledging.
    pub floor: u8,
}

/// Classes, objects and policies: file name (such as `fan.rhai`) to text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// The files, by name, forward slashes.
    pub files: BTreeMap<String, String>,
}

/// A configuration that contradicts itself. The operator's mistake; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl DomainConfig {
    /// The node with this id.
    pub fn node(&self, id: NodeId) -> Option<&NodeConfig> {
        self.nodes.iter().find(|n| n.id == id)
    }

    /// The chassis that a node sits in.
    pub fn chassis_of(&self, id: NodeId) -> Option<&ChassisName> {
        self.node(id).map(|n| &n.chassis)
    }

    /// The nodes with a vote.
    pub fn voters(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.iter().filter(|n| n.voter).map(|n| n.id)
    }

    /// Whether a node has a vote.
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.node(id).is_some_and(|n| n.voter)
    }

    /// The service behind a group, unless the group is a chassis.
    pub fn service(&self, group: &GroupName) -> Option<&ServiceConfig> {
        self.services.iter().find(|s| s.name == *group)
    }

    /// The chassis behind a group, unless the group is a service.
    pub fn chassis_group(&self, group: &GroupName) -> Option<&ChassisConfig> {
        let name = group.as_str().strip_prefix(CHASSIS_PREFIX)?;
        self.chassis.iter().find(|c| c.name.as_str() == name)
    }

    /// Every group: the services, and one for the ownership of each chassis.
    pub fn groups(&self) -> impl Iterator<Item = GroupConfig> {
        let services = self.services.iter().map(|s| GroupConfig {
            name: s.name.clone(),
            candidates: if s.nodes.is_empty() { self.data_nodes().map(|n| n.id).collect() } else { s.nodes.clone() },
            copies: s.copies,
            floor: s.floor,
        });
        let chassis = self.chassis.iter().map(|c| GroupConfig {
            name: chassis_group(c.name.as_str()),
            candidates: self.data_nodes().filter(|n| n.chassis == c.name).map(|n| n.id).collect(),
            copies: 2,
            floor: 1,
        });
        services.chain(chassis)
    }

    /// Where a group can be active; empty for an unknown group.
    pub fn candidates(&self, group: &GroupName) -> Vec<NodeId> {
        self.groups().find(|g| g.name == *group).map(|g| g.candidates).unwrap_or_default()
    }

    /// How many links each node has: all have as many.
    pub fn links(&self) -> u8 {
        self.nodes.first().and_then(|n| u8::try_from(n.links.len()).ok()).unwrap_or(1)
    }

    fn data_nodes(&self) -> impl Iterator<Item = &NodeConfig> {
        self.nodes.iter().filter(|n| !n.witness)
    }

    /// Looks for contradictions.
    ///
    /// # Errors
    /// The first one found, in the operator's words.
    pub fn check(&self) -> Result<(), ConfigError> {
        let fail = |text: String| Err(ConfigError(text));
        if self.nodes.is_empty() || self.nodes.len() > 32 {
            return fail(format!("a domain has 1 to 32 nodes, this one has {}", self.nodes.len()));
        }
        let mut ids = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        let links = self.nodes[0].links.len();
        for node in &self.nodes {
            if node.id.0 == 0 || node.id.0 > 32 {
                return fail(format!("node id {} is not between 1 and 32", node.id.0));
            }
            if !ids.insert(node.id) {
                return fail(format!("node {} is there twice", node.id));
            }
            if node.links.is_empty() || node.links.len() > 4 || node.links.len() != links {
                return fail(format!("node {} has {} links; every node has the same number, 1 to 4", node.id, node.links.len()));
            }
            if let Some(twice) = node.links.iter().find(|a| !addresses.insert(**a)) {
                return fail(format!("address {twice} is there twice"));
            }
            if node.witness && !node.voter {
                return fail(format!("{} is a witness without a vote, which would do nothing at all", node.id));
            }
            if !self.chassis.iter().any(|c| c.name == node.chassis) {
                return fail(format!("node {} sits in chassis {}, which is not listed under chassis", node.id, node.chassis));
            }
        }
        if self.voters().count() == 2 {
            return fail("two voters cannot agree when one of them dies: add a witness (voter: true, witness: true)".into());
        }
        if self.voters().count() == 0 {
            return fail("no node has a vote".into());
        }
        let mut names = BTreeSet::new();
        for group in self.groups() {
            if !names.insert(group.name.clone()) {
                return fail(format!("{} is there twice", group.name));
            }
            if let Some(unknown) = group.candidates.iter().find(|n| self.node(**n).is_none_or(|n| n.witness)) {
                return fail(format!("{} cannot run on {unknown}, which is no data node of this domain", group.name));
            }
            if group.copies == 0 || group.floor == 0 || group.floor > group.copies {
                return fail(format!("{}: copies is 1 or more, floor between 1 and copies", group.name));
            }
        }
        for service in &self.services {
            if service.name.as_str().contains([':', '/', ' ']) || service.name.as_str().is_empty() {
                return fail(format!("{:?} cannot be a service's name: no colon, slash or blank", service.name.as_str()));
            }
            if service.command.is_empty() {
                return fail(format!("service {} has no command", service.name));
            }
            if !service.addresses.is_empty() && service.device.is_none() {
                return fail(format!("service {} has addresses but no device to put them on", service.name));
            }
        }
        self.limits.check().map_err(ConfigError)?;
        let (services, clients) = (self.services.len() as u64, self.limits.of(Limit::SdkClients));
        if services > clients {
            return fail(format!("{services} services, and limits.sdk_clients admits {clients} applications to a node: each service is one"));
        }
        Ok(())
    }
}

const CHASSIS_PREFIX: &str = "chassis:";

/// The group that stands for the ownership of a chassis.
pub fn chassis_group(chassis: &str) -> GroupName {
    GroupName::new(format!("{CHASSIS_PREFIX}{chassis}"))
}

fn yes() -> bool {
    true
}

fn one() -> u8 {
    1
}

fn two() -> u8 {
    2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_keeps_the_lease_rule() {
        for profile in [Profile::Fabric, Profile::Lan, Profile::Wan] {
            assert!(profile.times().is_safe(), "{profile:?}");
        }
    }

    #[test]
    fn bounds_that_cannot_be_are_refused_wherever_they_come_from() {
        let links = vec!["10.9.1.1:7400".parse().expect("an address")];
        let node = NodeConfig { id: NodeId(1), chassis: "mxp1".into(), links, voter: true, witness: false };
        let service = |name: &str| ServiceConfig { name: name.into(), command: vec!["x".into()], addresses: Vec::new(), device: None, nodes: Vec::new(), copies: 1, floor: 1, on_total_loss: OnTotalLoss::Wait };
        let chassis = vec![ChassisConfig { name: "mxp1".into(), manager: None }];
        let services = vec![service("calls"), service("mail")];
        let with = |limits| DomainConfig { domain: "lab".into(), nodes: vec![node.clone()], chassis: chassis.clone(), services: services.clone(), limits, ..DomainConfig::default() }.check().map_err(|e| e.to_string());
        assert_eq!(with(Limits::default()), Ok(()));
        assert!(with(Limits::default().with(Limit::Objects, 1)).is_err_and(|e| e.contains("between 64 and 65536")));
        assert!(with(Limits::default().with(Limit::SdkClients, 1)).is_err_and(|e| e.contains("2 services")));
    }

    #[test]
    fn a_lease_as_long_as_its_promise_is_refused() {
        let mut times = Profile::Fabric.times();
        times.lease = times.promise;
        assert!(!times.is_safe());
    }
}
