//! The one versioned configuration that the control log holds: nodes, chassis, services, times.
//!
//! Files are proposals: `nines init` and `apply` read YAML into these types, check the whole, and commit it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::ser::SerializeTuple as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::fence::{self, FenceConfig, Fencing};
use super::limits::{Limit, Limits};
use crate::ids::{ChassisName, GroupName, NodeId};

/// A domain: nodes that share a control log, a CA and one time profile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
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
    /// How a node is switched off, for services that wait for that. Written as limits are: where nothing is said there is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<FenceConfig>,
}

/// In files a service says itself that it waits for a fence. Bytes have no names, and a service's own must stay what they were: there it stands
/// behind everything else, and so do the limits before it even if they are none.
impl Serialize for DomainConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() || !self.is_fence_said() {
            return Self::serialize(self, serializer);
        }
        let required = self.services.iter().filter(|s| s.fence == Fencing::Required).map(|s| s.name.clone()).collect();
        let mut bytes = serializer.serialize_tuple(7)?;
        bytes.serialize_element(&self.domain)?;
        bytes.serialize_element(&self.profile)?;
        bytes.serialize_element(&self.nodes)?;
        bytes.serialize_element(&self.chassis)?;
        bytes.serialize_element(&self.services)?;
        bytes.serialize_element(&self.limits)?;
        bytes.serialize_element(&Some(fence::Tail { method: self.fence.clone(), required }))?;
        bytes.end()
    }
}

impl<'de> Deserialize<'de> for DomainConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return Self::deserialize(deserializer);
        }
        let (domain, profile, nodes, chassis, services, limits, tail) = Deserialize::deserialize(deserializer)?;
        let tail: fence::Tail = Option::unwrap_or_default(tail);
        let mut services: Vec<ServiceConfig> = services;
        services.iter_mut().filter(|s| tail.required.contains(&s.name)).for_each(|s| s.fence = Fencing::Required);
        Ok(Self { domain, profile, nodes, chassis, services, limits, fence: tail.method })
    }
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
    /// Whether a lost node is to be switched off, and known to be, before it is taken over from there (protocol 4.6).
    #[serde(default, skip_serializing_if = "Fencing::is_none", with = "fence::in_files")]
    pub fence: Fencing,
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
    /// 5 ms, dead after 22 ms: one appliance, real-time scheduling.
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
    /// The quickest first.
    pub const ALL: [Self; 3] = [Self::Fabric, Self::Lan, Self::Wan];

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
            Self::Fabric => Times::of_millis(5, 22, 17, 22, 4),
            Self::Lan => Times::of_millis(25, 125, 110, 125, 10),
            Self::Wan => Times::of_millis(250, 1500, 1400, 1500, 50),
        }
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words = || Self::ALL.map(Self::word).join(", ");
        Self::ALL.into_iter().find(|profile| profile.word() == text).ok_or_else(|| format!("there is no profile {text:?}; the profiles are {}", words()))
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
pub struct ConfigError {
    text: String,
    /// A list of the file and the place in it, so that whoever has the file can say the line.
    pub at: Option<(&'static str, usize)>,
}

impl ConfigError {
    fn at(list: &'static str, number: usize, text: String) -> Self {
        Self { text, at: Some((list, number)) }
    }
}

impl From<String> for ConfigError {
    fn from(text: String) -> Self {
        Self { text, at: None }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
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

    /// Whether a group is a service that waits for a fence.
    pub fn requires_fence(&self, group: &GroupName) -> bool {
        self.service(group).is_some_and(|s| s.fence == Fencing::Required)
    }

    /// Whether anything is said of fencing.
    pub fn is_fence_said(&self) -> bool {
        self.fence.is_some() || self.services.iter().any(|s| s.fence == Fencing::Required)
    }

    /// How many links each node has: all have as many.
    pub fn links(&self) -> u8 {
        self.nodes.first().and_then(|n| u8::try_from(n.links.len()).ok()).unwrap_or(1)
    }

    fn data_nodes(&self) -> impl Iterator<Item = &NodeConfig> {
        self.nodes.iter().filter(|n| !n.witness)
    }

    /// Whether chassis may be called so, for who reads a file. Apart from [`Self::check`], which is asked of what is in the control log too, where
    /// every version has to come to the same.
    ///
    /// # Errors
    /// The first one found, in the operator's words.
    pub fn check_names(&self) -> Result<(), ConfigError> {
        for (number, chassis) in self.chassis.iter().enumerate() {
            let name = chassis.name.as_str();
            if name.is_empty() || name.contains([':', '/', ' ']) || NOT_A_CHASSIS.contains(&name) {
                let text = format!("{name:?} cannot be a chassis' name: no colon, slash or blank, and none of {}", NOT_A_CHASSIS.join(", "));
                return Err(ConfigError::at("chassis", number, text));
            }
        }
        Ok(())
    }

    /// Looks for contradictions.
    ///
    /// # Errors
    /// The first one found, in the operator's words.
    pub fn check(&self) -> Result<(), ConfigError> {
        let fail = |text: String| Err(ConfigError::from(text));
        if self.nodes.is_empty() || self.nodes.len() > 32 {
            return fail(format!("a domain has 1 to 32 nodes, this one has {}", self.nodes.len()));
        }
        let mut ids = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        let links = self.nodes[0].links.len();
        for (number, node) in self.nodes.iter().enumerate() {
            let fail = |text: String| Err(ConfigError::at("nodes", number, text));
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
        for (number, group) in self.groups().enumerate() {
            let fail = |text: String| match number.checked_sub(self.services.len()) {
                None => Err(ConfigError::at("services", number, text)),
                Some(number) => Err(ConfigError::at("chassis", number, text)),
            };
            if !names.insert(group.name.clone()) {
                return fail(format!("{} is there twice", group.name));
            }
            if let Some(witness) = group.candidates.iter().find(|n| self.node(**n).is_some_and(|n| n.witness)) {
                return fail(format!("{} cannot run on {witness}: a witness votes, and runs nothing", group.name));
            }
            if let Some(unknown) = group.candidates.iter().find(|n| self.node(**n).is_none()) {
                return fail(format!("{} cannot run on {unknown}, which is no data node of this domain", group.name));
            }
            if group.copies == 0 || group.floor == 0 || group.floor > group.copies {
                return fail(format!("{}: copies is 1 or more, floor between 1 and copies", group.name));
            }
        }
        for (number, service) in self.services.iter().enumerate() {
            let fail = |text: String| Err(ConfigError::at("services", number, text));
            if service.name.as_str().contains([':', '/', ' ']) || service.name.as_str().is_empty() {
                return fail(format!("{:?} cannot be a service's name: no colon, slash or blank", service.name.as_str()));
            }
            if service.fence == Fencing::Required && self.fence.is_none() {
                return fail(format!("service {} says fence: required, and nothing says how a node is switched off: add fence: {{ command: [PROGRAM, ARGUMENT] }} to the domain", service.name));
            }
            if service.command.is_empty() {
                return fail(format!("service {} has no command", service.name));
            }
            if !service.addresses.is_empty() && service.device.is_none() {
                return fail(format!("service {} has addresses but no device to put them on", service.name));
            }
        }
        if let Some(fence) = &self.fence {
            fence.check()?;
        }
        self.limits.check()?;
        let (services, clients) = (self.services.len() as u64, self.limits.of(Limit::SdkClients));
        if services > clients {
            return fail(format!("{services} services, and limits.sdk_clients admits {clients} applications to a node: each service is one"));
        }
        Ok(())
    }
}

/// What objects' names begin with that are in no chassis.
const NOT_A_CHASSIS: [&str; 4] = ["nodes", "services", "domain", "neighbours"];

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
        for profile in Profile::ALL {
            assert!(profile.times().is_safe(), "{profile:?}");
        }
    }

    #[test]
    fn bounds_that_cannot_be_are_refused_wherever_they_come_from() {
        let links = vec!["10.9.1.1:7400".parse().expect("an address")];
        let node = NodeConfig { id: NodeId(1), chassis: "mxp1".into(), links, voter: true, witness: false };
        let service = |name: &str| ServiceConfig { name: name.into(), command: vec!["x".into()], addresses: Vec::new(), device: None, nodes: Vec::new(), copies: 1, floor: 1, on_total_loss: OnTotalLoss::Wait, fence: Fencing::None };
        let chassis = vec![ChassisConfig { name: "mxp1".into(), manager: None }];
        let services = vec![service("calls"), service("mail")];
        let with = |limits| DomainConfig { domain: "lab".into(), nodes: vec![node.clone()], chassis: chassis.clone(), services: services.clone(), limits, ..DomainConfig::default() }.check().map_err(|e| e.to_string());
        assert_eq!(with(Limits::default()), Ok(()));
        assert!(with(Limits::default().with(Limit::Objects, 1)).is_err_and(|e| e.contains("between 64 and 65536")));
        assert!(with(Limits::default().with(Limit::SdkClients, 1)).is_err_and(|e| e.contains("2 services")));
    }

    #[test]
    fn who_waits_for_a_fence_needs_a_command_and_files_and_bytes_bear_both() {
        let head = "domain: lab\nnodes: [{ id: 1, chassis: m, links: [\"10.9.1.1:7400\"] }]\nchassis: [{ name: m }]\nservices:\n  - { name: mail, command: [x] }\n  - { name: calls, command: [x], fence: required }\n";
        let read = |rest: &str| serde_yaml::from_str::<DomainConfig>(&format!("{head}{rest}")).map_err(|e| e.to_string());
        let check = |rest: &str| read(rest).and_then(|c| c.check().map_err(|e| e.to_string()));
        assert!(check("").is_err_and(|e| e.contains("service calls says fence: required") && e.contains("fence: { command:")));
        assert_eq!(check("fence: { command: [/usr/bin/off] }"), Ok(()));
        assert!(check("fence: { command: [] }").is_err_and(|e| e.contains("no command")));
        assert!(check("fence: { command: [off], timeout: 20m }").is_err_and(|e| e.contains("between 100ms and 10m")));
        assert!(check("fence: { command: [off], timeout: soon }").is_err_and(|e| e.contains("such as 10s") && e.contains("line")));
        assert!(check("fence: { comand: [off] }").is_err_and(|e| e.contains("comand")));
        let config = read("fence: { command: [off, now], timeout: 2s }").expect("good");
        assert_eq!(config.fence, Some(FenceConfig { command: vec!["off".into(), "now".into()], timeout: Duration::from_secs(2) }));
        assert!(config.requires_fence(&"calls".into()) && !config.requires_fence(&"mail".into()) && !config.requires_fence(&chassis_group("m")));
        assert_eq!(serde_yaml::from_str::<DomainConfig>(&serde_yaml::to_string(&config).expect("written")).expect("read"), config);
        for config in [config.clone(), DomainConfig { limits: Limits::default().with(Limit::Objects, 100), ..config }] {
            let bytes = postcard::to_stdvec(&config).expect("encoded");
            assert_eq!(postcard::from_bytes::<DomainConfig>(&bytes), Ok(config));
        }
    }

    #[test]
    fn a_chassis_cannot_have_the_name_of_what_is_in_no_chassis() {
        let named = |name: &str| DomainConfig { chassis: vec![ChassisConfig { name: name.into(), manager: None }], ..DomainConfig::default() }.check_names();
        assert_eq!(named("mxp1"), Ok(()));
        for bad in ["neighbours", "nodes", "services", "domain", "", "a/b", "a:b", "a b"] {
            assert!(named(bad).is_err_and(|e| e.to_string().contains("chassis' name") && e.at == Some(("chassis", 0))), "{bad:?}");
        }
    }

    #[test]
    fn two_voters_are_refused_with_a_fence_too_and_a_witness_makes_three() {
        let node = |id: u16, witness| NodeConfig { id: NodeId(id), chassis: "m".into(), links: vec![format!("10.9.1.{id}:7400").parse().expect("an address")], voter: true, witness };
        let fence = Some(FenceConfig { command: vec!["off".into()], timeout: Duration::from_secs(1) });
        let chassis = vec![ChassisConfig { name: "m".into(), manager: None }];
        let two = DomainConfig { domain: "lab".into(), nodes: vec![node(1, false), node(2, false)], chassis, fence, ..DomainConfig::default() };
        assert!(two.check().is_err_and(|e| e.to_string().contains("add a witness")));
        let three = DomainConfig { nodes: vec![node(1, false), node(2, false), node(3, true)], ..two };
        assert_eq!(three.check(), Ok(()));
        assert!(three.groups().all(|g| g.candidates == [NodeId(1), NodeId(2)]), "a witness is a candidate of nothing");
    }

    #[test]
    fn a_lease_as_long_as_its_promise_is_refused() {
        let mut times = Profile::Fabric.times();
        times.lease = times.promise;
        assert!(!times.is_safe());
    }
}
