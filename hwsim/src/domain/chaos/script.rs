//! The faults of one run, written down before the first of them happens.
//!
//! A script says all that [`super::play`] does from outside; with its seed it is a whole run. People read it as YAML, change it,
//! and play it again; the shrinker takes pieces out of it. Times are whole microseconds, so that text and memory are the same.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sixnines_core::ids::{ChassisName, GroupName, LinkId, NodeId};

use crate::domain::{MS, Manners, Substitute, Truth};

/// Everything that happens to a domain in one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// What else is random (clocks, wires, clients) follows from it.
    pub seed: u64,
    /// Which part of the product is exercised, and how.
    pub features: Features,
    /// What is done to it, in order.
    pub steps: Vec<Step>,
    /// After the last step, before everything heals.
    pub rest_us: u64,
}

/// The mix of one run: a random subset, since runs that do everything a little reach less than runs that do few things a lot (swarm testing).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Features {
    /// The services that have clients; the others are idle.
    pub services: Vec<GroupName>,
    /// Clients per service.
    pub clients: u64,
    /// So many fans of each shelf have failed before anything else happens.
    pub hot_fans: Vec<u32>,
    /// How the wires are until they are healed; absent: good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wires: Option<Wires>,
    /// The policies, by file, that ask for whatever they can and fail whenever they are called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bad_policies: Vec<String>,
}

/// One thing that is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// After the step before.
    pub wait_us: u64,
    /// What.
    pub fault: Fault,
}

/// How wires can be bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wires {
    /// Datagrams lost, in parts per thousand.
    pub lost_per_mille: u64,
    /// Datagrams doubled, in parts per thousand.
    pub doubled_per_mille: u64,
    /// The longest delay beyond the shortest; with it goes the order of datagrams.
    pub delay_max_us: u64,
    /// Bytes that each pair of nodes gets through in a millisecond, heartbeats aside; 0: any number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes_per_ms: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl From<Wires> for Manners {
    fn from(wires: Wires) -> Self {
        Self { loss: wires.lost_per_mille, doubled: wires.doubled_per_mille, delay_max: wires.delay_max_us * US, bytes_per_ms: wires.bytes_per_ms }
    }
}

/// A node, by name or by what it is doing when the fault comes. Written `n1`, or `active of calls`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Place {
    /// That node.
    Node(NodeId),
    /// Whoever is active for it; nobody, if nobody is.
    ActiveOf(GroupName),
}

/// One network port of a node: its end of a link. Written `n1 A`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Port {
    /// The node.
    pub node: NodeId,
    /// The link.
    pub link: LinkId,
}

/// What is done to a domain from outside: what breaks, what an operator asks, what is mended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fault {
    /// The node's processes die, and what was not synced is lost; it starts again.
    NodeKilled {
        /// Which node.
        node: Place,
        /// Until it starts again; absent: it stays down until the end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        down_us: Option<u64>,
    },
    /// The node's processes stand still; its kernel does not.
    NodeHung {
        /// Which node.
        node: Place,
        /// For how long.
        for_us: u64,
    },
    /// Nothing passes to or from the node.
    LinksCut {
        /// Which node.
        node: Place,
    },
    /// Nothing reaches the node; what it says is heard. Drawn as several one-way cuts; scripts have it in one.
    Deafened {
        /// Which node.
        node: Place,
    },
    /// Nothing passes from one node to another; the other way is whole.
    OneWayCut {
        /// From here.
        from: Place,
        /// To there.
        to: Place,
        /// On these links.
        links: Vec<LinkId>,
    },
    /// A port of a node is dead both ways.
    OneLinkCut {
        /// Whose port.
        node: Place,
        /// On which link.
        link: LinkId,
    },
    /// Everything that is plugged into one network is cut from each other there.
    FabricLost {
        /// What people call it.
        fabric: String,
        /// What is plugged in.
        ports: Vec<Port>,
    },
    /// A shelf without power: its nodes die, and its own manager is silent.
    ChassisLost {
        /// Which shelf.
        chassis: ChassisName,
        /// The nodes in it.
        nodes: Vec<Place>,
        /// Until it has power again; absent: it stays dark until the end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        down_us: Option<u64>,
    },
    /// Every sync of a node's disk takes so long, until all is mended.
    DiskSlow {
        /// Whose disk.
        node: Place,
        /// Each sync.
        sync_us: u64,
    },
    /// Nothing more fits on a node's disk, until all is mended. The daemon ends when it has to write, and is started again and again.
    DiskFull {
        /// Whose disk.
        node: Place,
    },
    /// One sync of a node's disk fails: nobody knows what is on it, so the daemon ends, and starts again from what is really there.
    DiskFails {
        /// Whose disk.
        node: Place,
    },
    /// A node dies with its disk, and comes back with another one: to the others a stranger, until it has an empty one and an operator says
    /// that it is the same node.
    DiskReplaced {
        /// Which node.
        node: Place,
        /// Until it starts again.
        down_us: u64,
        /// What is on it.
        #[serde(default)]
        by: Substitute,
    },
    /// The active's application dies.
    ProcessKilled {
        /// Of which service.
        service: GroupName,
    },
    /// An operator asks for a switchover.
    Switchover {
        /// The node that he asks.
        at: Place,
        /// Of which service.
        service: GroupName,
    },
    /// Fans of a shelf fail, and stay so until mended.
    FansFailed {
        /// Which shelf.
        chassis: ChassisName,
        /// How many, counted from the first.
        fans: u32,
    },
    /// The shelf's faults are ended.
    Mended {
        /// Which shelf.
        chassis: ChassisName,
    },
    /// All wires lose, double and delay.
    WiresBad(Wires),
    /// All cuts are ended, and the wires and disks are good.
    Healed,
}

impl Fault {
    /// Its class, as reports name it.
    pub fn class(&self) -> &'static str {
        match self {
            Self::NodeKilled { .. } => "node-killed",
            Self::NodeHung { .. } => "node-hung",
            Self::LinksCut { .. } => "links-cut",
            Self::OneWayCut { .. } | Self::Deafened { .. } => "one-way-cut",
            Self::OneLinkCut { .. } => "one-link-cut",
            Self::FabricLost { .. } => "fabric-lost",
            Self::ChassisLost { .. } => "chassis-lost",
            Self::DiskSlow { .. } => "disk-slow",
            Self::DiskFull { .. } => "disk-full",
            Self::DiskFails { .. } => "disk-fails",
            Self::DiskReplaced { by: Substitute::Empty, .. } => "disk-replaced",
            Self::DiskReplaced { by: Substitute::Image, .. } => "disk-restored",
            Self::DiskReplaced { by: Substitute::Rotten, .. } => "disk-rotten",
            Self::ProcessKilled { .. } => "process-killed",
            Self::Switchover { .. } => "switchover",
            Self::FansFailed { .. } => "fans-failed",
            Self::Mended { .. } => "mended",
            Self::WiresBad(_) => "wires-bad",
            Self::Healed => "healed",
        }
    }

    /// Whether it ends faults and makes none.
    pub fn is_repair(&self) -> bool {
        matches!(self, Self::Mended { .. } | Self::Healed)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let back = |down_us: &Option<u64>| down_us.map_or_else(|| "does not come back".to_owned(), |us| format!("is back after {}", Millis(us)));
        match self {
            Self::NodeKilled { node, down_us } => write!(f, "{node} dies and {}", back(down_us)),
            Self::NodeHung { node, for_us } => write!(f, "{node} stands still for {}", Millis(*for_us)),
            Self::LinksCut { node } => write!(f, "{node} is cut off from everybody"),
            Self::Deafened { node } => write!(f, "nothing reaches {node}"),
            Self::OneWayCut { from, to, links } => {
                let links: Vec<String> = links.iter().map(|l| letter(*l).to_string()).collect();
                write!(f, "nothing passes from {from} to {to} on link {}", links.join(" and "))
            }
            Self::OneLinkCut { node, link } => write!(f, "link {} of {node} is cut", letter(*link)),
            Self::FabricLost { fabric, .. } => write!(f, "fabric {fabric} is lost"),
            Self::ChassisLost { chassis, down_us, .. } => write!(f, "{chassis} loses power with all its nodes and {}", back(down_us)),
            Self::DiskSlow { node, sync_us } => write!(f, "each sync of the disk of {node} takes {}", Millis(*sync_us)),
            Self::DiskFull { node } => write!(f, "the disk of {node} is full"),
            Self::DiskFails { node } => write!(f, "the disk of {node} fails to sync"),
            Self::DiskReplaced { node, down_us, by: Substitute::Empty } => write!(f, "{node} dies with its disk and is back with an empty one after {}", Millis(*down_us)),
            Self::DiskReplaced { node, down_us, by: Substitute::Image } => write!(f, "{node} dies with its disk and is back with an old image of it after {}", Millis(*down_us)),
            Self::DiskReplaced { node, down_us, by: Substitute::Rotten } => write!(f, "{node} dies and is back after {}, with a bit of its disk turned over", Millis(*down_us)),
            Self::ProcessKilled { service } => write!(f, "the active application of {service} dies"),
            Self::Switchover { at, service } => write!(f, "an operator at {at} asks for a switchover of {service}"),
            Self::FansFailed { chassis, fans: 1 } => write!(f, "a fan of {chassis} fails"),
            Self::FansFailed { chassis, fans } => write!(f, "{fans} fans of {chassis} fail"),
            Self::Mended { chassis } => write!(f, "{chassis} is mended"),
            Self::WiresBad(wires) => write!(f, "{wires}"),
            Self::Healed => f.write_str("all wires and disks are whole again"),
        }
    }
}

impl fmt::Display for Wires {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |per_mille: u64| format!("{}.{} %", per_mille / 10, per_mille % 10);
        write!(f, "the wires lose {}, double {}, and delay up to {}", percent(self.lost_per_mille), percent(self.doubled_per_mille), Millis(self.delay_max_us))?;
        if self.bytes_per_ms > 0 {
            write!(f, ", {} kbit/s wide", self.bytes_per_ms * 8)?;
        }
        Ok(())
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let services: Vec<&str> = self.features.services.iter().map(GroupName::as_str).collect();
        writeln!(f, "seed {}: {} with {} clients each", self.seed, services.join(" and "), self.features.clients)?;
        if self.features.hot_fans.iter().any(|fans| *fans > 0) {
            writeln!(f, "  before      fans of every shelf have failed")?;
        }
        if let Some(wires) = &self.features.wires {
            writeln!(f, "  throughout  {wires}")?;
        }
        if !self.features.bad_policies.is_empty() {
            writeln!(f, "  throughout  {} fails whenever it is called", self.features.bad_policies.join(" and "))?;
        }
        let mut at = 0;
        for step in &self.steps {
            at += step.wait_us;
            writeln!(f, "  {:>8}.{:03} ms  {}", at / 1000, at % 1000, step.fault)?;
        }
        at += self.rest_us;
        write!(f, "  {:>8}.{:03} ms  everything heals", at / 1000, at % 1000)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => node.fmt(f),
            Self::ActiveOf(group) => write!(f, "active of {group}"),
        }
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.to_string()
    }
}

impl TryFrom<String> for Place {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if let Some(group) = text.strip_prefix("active of ") {
            return Ok(Self::ActiveOf(GroupName::new(group.trim())));
        }
        NodeId::from_str(&text).map(Self::Node).map_err(|_| format!("{text:?} is no place: a node such as n1, or \"active of calls\""))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.node, letter(self.link))
    }
}

impl From<Port> for String {
    fn from(port: Port) -> Self {
        port.to_string()
    }
}

impl TryFrom<String> for Port {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let parts = text.split_once(' ').and_then(|(node, link)| {
            let letter = link.bytes().next().filter(|l| link.len() == 1 && l.is_ascii_uppercase())?;
            Some(Self { node: node.parse().ok()?, link: LinkId(letter - b'A') })
        });
        parts.ok_or_else(|| format!("{text:?} is no port: a node and the letter of its link, such as n1 A"))
    }
}

/// What people call a link.
pub fn letter(link: LinkId) -> char {
    char::from(b'A' + link.0.min(25))
}

struct Millis(u64);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 1000 {
            0 => write!(f, "{} ms", self.0 / 1000),
            rest => write!(f, "{}.{rest:03} ms", self.0 / 1000),
        }
    }
}

/// A microsecond of truth.
pub(crate) const US: Truth = MS / 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_reads_as_an_operator_would_say_it() {
        let script = Script {
            seed: 7,
            features: Features { services: vec!["calls".into()], clients: 3, hot_fans: vec![], wires: None, bad_policies: vec![] },
            steps: vec![
                Step { wait_us: 1500, fault: Fault::NodeKilled { node: Place::ActiveOf("calls".into()), down_us: Some(20_000) } },
                Step { wait_us: 500, fault: Fault::OneLinkCut { node: Place::Node(NodeId(2)), link: LinkId(1) } },
            ],
            rest_us: 0,
        };
        let text = script.to_string();
        assert!(text.contains("1.500 ms  active of calls dies and is back after 20 ms"), "{text}");
        assert!(text.contains("2.000 ms  link B of n2 is cut"), "{text}");
    }

    #[test]
    fn a_script_is_the_same_after_it_was_written_and_read() {
        let faults = [
            Fault::NodeKilled { node: Place::Node(NodeId(1)), down_us: None },
            Fault::OneWayCut { from: Place::Node(NodeId(1)), to: Place::ActiveOf("calls".into()), links: vec![LinkId(0), LinkId(1)] },
            Fault::FabricLost { fabric: "A".into(), ports: vec![Port { node: NodeId(3), link: LinkId(0) }] },
            Fault::WiresBad(Wires { lost_per_mille: 30, doubled_per_mille: 5, delay_max_us: 900, bytes_per_ms: 70 }),
            Fault::Healed,
        ];
        let script = Script {
            seed: 9,
            features: Features {
                services: vec!["calls".into()],
                clients: 1,
                hot_fans: vec![2, 0],
                wires: Some(Wires { lost_per_mille: 1, doubled_per_mille: 2, delay_max_us: 3, bytes_per_ms: 0 }),
                bad_policies: vec!["fan.rhai".into()],
            },
            steps: faults.into_iter().map(|fault| Step { wait_us: 10, fault }).collect(),
            rest_us: 5,
        };
        let yaml = serde_yaml::to_string(&script).expect("a script has a YAML");
        assert_eq!(serde_yaml::from_str::<Script>(&yaml).map_err(|e| e.to_string()), Ok(script.clone()), "{yaml}");
        let json = serde_json::to_string(&script).expect("a script has a JSON");
        assert_eq!(serde_json::from_str::<Script>(&json).map_err(|e| e.to_string()), Ok(script));
    }
}
