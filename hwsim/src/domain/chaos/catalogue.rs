//! The faults of a domain as people write them: name, parameters, help, and how words become a [`Fault`].
//!
//! The names are those that campaigns, reports and the demo use; the form is that of the chassis' own catalogue.

use sixnines_core::domain::config::chassis_group;
use sixnines_core::ids::{ChassisName, GroupName, LinkId, NodeId};
use sixnines_core::time::nanos;

use super::draw::Ground;
use super::script::{Fault, Place, Port, US, Wires, letter};
use crate::chassis::{Entry, FaultError, Injection, Parameter, Words};
use crate::domain::Substitute;

/// All of them, by name.
pub const CATALOGUE: &[Entry] = &[
    Entry { name: "chassis-lost", parameters: &[CHASSIS], help: "the shelf has no power: its nodes die and its manager is silent, until it ends" },
    Entry { name: "disk-fails", parameters: &[NODE], help: "the next sync of the node's disk fails: its daemon ends, and starts again from what is really there" },
    Entry { name: "disk-full", parameters: &[NODE], help: "nothing more fits on the node's disk: its daemon ends when it has to write, again and again" },
    Entry { name: "disk-replaced", parameters: &[NODE], help: "the node dies with its disk, and comes back with an empty one when it ends (left out: after 1 s); then `readmit` it" },
    Entry {
        name: "disk-restored",
        parameters: &[NODE],
        help: "the node dies, and comes back with an image of its disk from when it last started (left out: after 1 s); `readmit` empties it and takes the node in",
    },
    Entry { name: "disk-rotten", parameters: &[NODE], help: "the node dies, and comes back with a bit of its control log turned over (left out: after 1 s); as disk-restored" },
    Entry {
        name: "disk-slow",
        parameters: &[NODE, Parameter { name: "sync_ms", default: Some("20"), help: "each sync takes so long, 1 to 10000" }],
        help: "every sync of the node's disk is slow",
    },
    Entry { name: "fabric-lost", parameters: &[Parameter { name: "fabric", default: None, help: "the link, such as A" }], help: "every node is cut from every other on one link" },
    Entry {
        name: "fans-failed",
        parameters: &[CHASSIS, Parameter { name: "fans", default: Some("3"), help: "how many, counted from the first" }],
        help: "fans of a shelf stand still",
    },
    Entry { name: "links-cut", parameters: &[NODE], help: "nothing passes to or from the node, on any link" },
    Entry { name: "node-hung", parameters: &[NODE], help: "the node's processes stand still; its kernel does not" },
    Entry { name: "node-killed", parameters: &[NODE], help: "the node's processes die, and what was not synced is lost; it starts again when it ends" },
    Entry { name: "one-link-cut", parameters: &[NODE, LINK], help: "a port of the node is dead both ways" },
    Entry {
        name: "one-way-cut",
        parameters: &[
            Parameter { name: "from", default: None, help: "a node, as for node" },
            Parameter { name: "to", default: None, help: "a node, as for node" },
            Parameter { name: "link", default: Some(""), help: "the link, such as A; empty: all" },
        ],
        help: "nothing passes from one node to another; the other way is whole",
    },
    Entry { name: "process-killed", parameters: &[SERVICE], help: "the active's application dies; its keeper starts it again" },
    Entry {
        name: "switchover",
        parameters: &[SERVICE, Parameter { name: "to", default: Some(""), help: "the node; empty: the best standby" }],
        help: "an operator moves a service (in a step also `switchover: SERVICE`)",
    },
    Entry {
        name: "wires-bad",
        parameters: &[
            Parameter { name: "lost_percent", default: Some("5"), help: "datagrams lost, 0 to 90" },
            Parameter { name: "doubled_percent", default: Some("0"), help: "datagrams doubled, 0 to 90" },
            Parameter { name: "delay_ms", default: Some("0.1"), help: "the longest delay, 0 to 1000" },
            Parameter { name: "mbit_s", default: Some("0"), help: "what passes between two nodes, heartbeats aside, 0 to 10000; 0: any number" },
        ],
        help: "all wires lose, double, delay and are narrow",
    },
];

const NODE: Parameter = Parameter { name: "node", default: None, help: "n1, or who is active: active:calls, active:chassis:mxp1" };
const LINK: Parameter = Parameter { name: "link", default: None, help: "the link, such as A" };
const CHASSIS: Parameter = Parameter { name: "chassis", default: None, help: "name of the shelf" };
const SERVICE: Parameter = Parameter { name: "service", default: None, help: "name of the service" };

/// Whether there is a fault of this name.
pub fn is_known(name: &str) -> bool {
    CATALOGUE.iter().any(|entry| entry.name == name)
}

/// Whether it is over as soon as it has happened, so that nothing of it can last or end.
pub fn is_momentary(name: &str) -> bool {
    ["disk-fails", "process-killed", "switchover"].contains(&name)
}

/// From words to a fault of that domain.
///
/// # Errors
/// What is wrong with the words, and what would be right. The author's mistake.
pub fn parse(injection: &Injection, ground: &Ground) -> Result<Fault, FaultError> {
    let given = Given { words: Words::of(CATALOGUE, injection)?, ground };
    let down_us = injection.expires_after.map(|after| nanos(after) / US);
    Ok(match given.words.entry.name {
        "chassis-lost" => {
            let (chassis, nodes) = given.chassis()?;
            Fault::ChassisLost { chassis, nodes: nodes.into_iter().map(Place::Node).collect(), down_us }
        }
        "disk-fails" => Fault::DiskFails { node: given.place("node")? },
        "disk-full" => Fault::DiskFull { node: given.place("node")? },
        "disk-replaced" => Fault::DiskReplaced { node: given.place("node")?, down_us: down_us.unwrap_or(REPLACED_US), by: Substitute::Empty },
        "disk-restored" => Fault::DiskReplaced { node: given.place("node")?, down_us: down_us.unwrap_or(REPLACED_US), by: Substitute::Image },
        "disk-rotten" => Fault::DiskReplaced { node: given.place("node")?, down_us: down_us.unwrap_or(REPLACED_US), by: Substitute::Rotten },
        "disk-slow" => Fault::DiskSlow { node: given.place("node")?, sync_us: given.thousands("sync_ms", 1.0, 10_000.0)? },
        "fabric-lost" => {
            let link = given.link("fabric")?;
            Fault::FabricLost { fabric: letter(link).to_string(), ports: ground.nodes.iter().map(|node| Port { node: *node, link }).collect() }
        }
        "fans-failed" => Fault::FansFailed { chassis: given.chassis()?.0, fans: given.count("fans")? },
        "links-cut" => Fault::LinksCut { node: given.place("node")? },
        "node-hung" => Fault::NodeHung { node: given.place("node")?, for_us: down_us.unwrap_or(FOREVER_US) },
        "node-killed" => Fault::NodeKilled { node: given.place("node")?, down_us },
        "one-link-cut" => Fault::OneLinkCut { node: given.place("node")?, link: given.link("link")? },
        "one-way-cut" => {
            let links = if given.words.text("link")?.is_empty() { (0..ground.links).map(LinkId).collect() } else { vec![given.link("link")?] };
            let (from, to) = (given.place("from")?, given.place("to")?);
            if from == to {
                return Err(given.words.bad(format!("goes from {from} to itself"), "two nodes, such as from=n1 to=n2".to_owned()));
            }
            Fault::OneWayCut { from, to, links }
        }
        "process-killed" => Fault::ProcessKilled { service: given.service()? },
        "switchover" => {
            if !given.words.text("to")?.is_empty() {
                given.node("to")?;
            }
            let service = given.service()?;
            Fault::Switchover { at: Place::ActiveOf(service.clone()), service }
        }
        "wires-bad" => Fault::WiresBad(Wires {
            lost_per_mille: given.thousands("lost_percent", 0.0, 90.0)? / 100,
            doubled_per_mille: given.thousands("doubled_percent", 0.0, 90.0)? / 100,
            delay_max_us: given.thousands("delay_ms", 0.0, 1000.0)?.max(1),
            bytes_per_ms: given.thousands("mbit_s", 0.0, 10_000.0)? / 8,
        }),
        other => unreachable!("{other} stands in the catalogue, so it has an arm here; a test walks through all"),
    })
}

/// What was given, against the domain.
struct Given<'a> {
    words: Words<'a>,
    ground: &'a Ground,
}

impl Given<'_> {
    fn place(&self, name: &str) -> Result<Place, FaultError> {
        match self.words.text(name)?.split_once(':') {
            Some(("active", service)) => self.service_called(service).map(Place::ActiveOf),
            _ => self.node(name).map(Place::Node),
        }
    }

    fn node(&self, name: &str) -> Result<NodeId, FaultError> {
        let text = self.words.text(name)?;
        let known = || self.ground.nodes.iter().map(ToString::to_string).collect::<Vec<_>>();
        let found = text.parse().ok().filter(|node| self.ground.nodes.contains(node));
        found.ok_or_else(|| self.unknown(format!("this domain has no node {text}"), &known()))
    }

    fn service(&self) -> Result<GroupName, FaultError> {
        let text = self.words.text("service")?;
        let found = self.ground.services.iter().find(|service| service.as_str() == text).cloned();
        found.map_or_else(|| self.service_called(text), Ok)
    }

    fn service_called(&self, text: &str) -> Result<GroupName, FaultError> {
        let shelves = self.ground.chassis.iter().map(|(name, _)| chassis_group(name.as_str()));
        let found = self.ground.services.iter().cloned().chain(shelves).find(|group| group.as_str() == text);
        let known = || self.ground.services.iter().map(ToString::to_string).collect::<Vec<_>>();
        found.ok_or_else(|| self.unknown(format!("this domain has no service {text}"), &known()))
    }

    fn chassis(&self) -> Result<(ChassisName, Vec<NodeId>), FaultError> {
        let text = self.words.text("chassis")?;
        let found = self.ground.chassis.iter().find(|(name, _)| name.as_str() == text).cloned();
        let known = || self.ground.chassis.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>();
        found.ok_or_else(|| self.unknown(format!("this domain has no chassis {text}"), &known()))
    }

    fn link(&self, name: &str) -> Result<LinkId, FaultError> {
        let text = self.words.text(name)?;
        let known: Vec<String> = (0..self.ground.links).map(|link| letter(LinkId(link)).to_string()).collect();
        let found = known.iter().position(|letter| letter == text).and_then(|at| u8::try_from(at).ok());
        found.map(LinkId).ok_or_else(|| self.unknown(format!("this domain has no link {text}"), &known))
    }

    /// A thousand times a number.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between the bounds, which are small")]
    fn thousands(&self, name: &str, low: f64, high: f64) -> Result<u64, FaultError> {
        let text = self.words.text(name)?;
        let found = text.parse::<f64>().ok().filter(|x| (low..=high).contains(x));
        found.map(|x| (x * 1000.0).round() as u64).ok_or_else(|| self.words.bad(format!("{name}={text} is not a number from {low} to {high}"), "give a plain number, such as 5".to_owned()))
    }

    fn count(&self, name: &str) -> Result<u32, FaultError> {
        let text = self.words.text(name)?;
        let found = text.parse().ok().filter(|n| (1..=100).contains(n));
        found.ok_or_else(|| self.words.bad(format!("{name}={text} is no number of parts"), "from 1 on".to_owned()))
    }

    fn unknown(&self, what: String, known: &[String]) -> FaultError {
        FaultError::UnknownTarget { what, help: format!("there are {}", known.join(", ")) }
    }
}

/// A new disk is in after so long.
const REPLACED_US: u64 = 1_000_000;
/// A century: until somebody ends it.
pub(crate) const FOREVER_US: u64 = 3_155_760_000_000_000;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::draw::tests::ground;
    use super::*;

    fn read(text: &str) -> Result<Fault, FaultError> {
        let mut words = text.split_whitespace();
        parse(&Injection::parse(words.next().unwrap_or_default(), words)?, &ground())
    }

    #[test]
    fn every_fault_of_the_catalogue_can_be_written_and_has_the_name_of_its_class() {
        let values = BTreeMap::from([("node", "n1"), ("from", "n1"), ("to", "n2"), ("link", "B"), ("fabric", "A"), ("chassis", "mxp1"), ("service", "calls")]);
        for entry in CATALOGUE {
            let words: Vec<String> = entry.parameters.iter().filter(|p| p.default.is_none()).map(|p| format!(" {}={}", p.name, values[p.name])).collect();
            let fault = read(&format!("{}{}", entry.name, words.concat())).unwrap_or_else(|wrong| panic!("{wrong}"));
            assert_eq!(fault.class(), entry.name);
        }
        assert!(CATALOGUE.is_sorted_by_key(|entry| entry.name));
    }

    #[test]
    fn every_class_that_a_campaign_draws_can_be_written() {
        let unknown: Vec<&str> = super::super::draw::classes().filter(|class| !is_known(class)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    #[test]
    fn what_is_wrong_is_said_with_what_would_be_right() {
        let said = |text: &str| read(text).expect_err(text).to_string();
        assert!(said("node-killd node=n1").contains("did you mean \"node-killed\"?"), "{}", said("node-killd node=n1"));
        assert!(said("node-killed node=n9").contains("there are n1, n2, n3"));
        assert!(said("node-killed").contains("needs node="));
        assert!(said("node-killed node=active:cals").contains("no service cals"));
        assert!(said("one-way-cut from=n1 to=n1").contains("to itself"));
        assert!(said("fabric-lost fabric=C").contains("there are A, B"));
        assert_eq!(read("node-killed node=active:calls"), Ok(Fault::NodeKilled { node: Place::ActiveOf("calls".into()), down_us: None }));
    }
}
