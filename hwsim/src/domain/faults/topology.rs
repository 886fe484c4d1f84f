//! The parts of a domain, and what hangs on each as far as wires and votes tell.

use std::collections::BTreeSet;

use sixnines_core::ids::{ChassisName, GroupName, LinkId, NodeId};

use crate::domain::chaos::script::{Fault, Place, Port, letter};

/// A domain as it is plugged together.
#[derive(Clone, Debug)]
pub struct Topology {
    /// The nodes, and whether each has a vote.
    pub nodes: Vec<(NodeId, bool)>,
    /// How many links each node has.
    pub links: u8,
    /// The services, and where each can run.
    pub services: Vec<(GroupName, Vec<NodeId>)>,
    /// The shelves, and which nodes sit in each.
    pub chassis: Vec<(ChassisName, Vec<NodeId>)>,
    /// The networks, and which ports are plugged into each.
    pub fabrics: Vec<(String, Vec<Port>)>,
}

/// Something that can break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What people call it.
    pub name: String,
    /// How it breaks.
    pub fault: Fault,
}

impl Topology {
    /// Everything that can break: nodes, links, fabrics, chassis, processes.
    pub fn parts(&self) -> Vec<Part> {
        let nodes = self.nodes.iter().map(|(node, _)| part(format!("node {node}"), Fault::NodeKilled { node: Place::Node(*node), down_us: None }));
        let ports = self.nodes.iter().flat_map(|(node, _)| (0..self.links).map(|link| (*node, LinkId(link))));
        let links = ports.map(|(node, link)| part(format!("link {} of {node}", letter(link)), Fault::OneLinkCut { node: Place::Node(node), link }));
        let fabrics = self.fabrics.iter().map(|(name, ports)| part(format!("fabric {name}"), Fault::FabricLost { fabric: name.clone(), ports: ports.clone() }));
        let chassis = self.chassis.iter().map(|(name, nodes)| {
            let nodes = nodes.iter().copied().map(Place::Node).collect();
            part(format!("chassis {name}"), Fault::ChassisLost { chassis: name.clone(), nodes, down_us: None })
        });
        let processes = self.services.iter().map(|(name, _)| part(format!("process of {name}"), Fault::ProcessKilled { service: name.clone() }));
        nodes.chain(links).chain(fabrics).chain(chassis).chain(processes).collect()
    }

    /// Why `service` cannot be served after these faults; `None` if wires and votes do not tell.
    pub fn why(&self, service: &GroupName, faults: &[&Fault]) -> Option<String> {
        let broken = Broken::by(faults);
        let voters: Vec<NodeId> = self.nodes.iter().filter(|(_, votes)| *votes).map(|(node, _)| *node).collect();
        let groups = self.groups(&broken);
        let votes = |group: &BTreeSet<NodeId>| voters.iter().filter(|v| group.contains(v)).count();
        let Some(majority) = groups.iter().find(|group| votes(group) * 2 > voters.len()) else {
            let most = groups.iter().map(votes).max().unwrap_or(0);
            return Some(format!("no majority of voters is left together: {most} of {}", voters.len()));
        };
        let candidates = self.services.iter().find(|(name, _)| name == service).map(|(_, nodes)| nodes.as_slice()).unwrap_or_default();
        if candidates.iter().any(|node| majority.contains(node)) {
            return None;
        }
        let names: Vec<String> = candidates.iter().map(NodeId::to_string).collect();
        Some(format!("no candidate of {service} is left with the majority: it can run on {} only", names.join(" and ")))
    }

    /// The nodes that run, grouped by who still reaches whom.
    fn groups(&self, broken: &Broken) -> Vec<BTreeSet<NodeId>> {
        let mut groups: Vec<BTreeSet<NodeId>> = Vec::new();
        for (node, _) in self.nodes.iter().filter(|(node, _)| !broken.nodes.contains(node)) {
            let is_near = |group: &BTreeSet<NodeId>| group.iter().any(|other| self.reach(broken, *node, *other));
            let (near, mut far): (Vec<_>, Vec<_>) = groups.into_iter().partition(is_near);
            far.push(near.into_iter().flatten().chain([*node]).collect());
            groups = far;
        }
        groups
    }

    fn reach(&self, broken: &Broken, one: NodeId, other: NodeId) -> bool {
        let is_whole = |node, link| !broken.ports.contains(&Port { node, link });
        (0..self.links).map(LinkId).any(|link| is_whole(one, link) && is_whole(other, link))
    }
}

#[derive(Default)]
struct Broken {
    nodes: BTreeSet<NodeId>,
    ports: BTreeSet<Port>,
}

impl Broken {
    fn by(faults: &[&Fault]) -> Self {
        let mut broken = Self::default();
        for fault in faults {
            match fault {
                Fault::NodeKilled { node: Place::Node(node), .. } => drop(broken.nodes.insert(*node)),
                Fault::ChassisLost { nodes, .. } => broken.nodes.extend(nodes.iter().filter_map(|place| match place {
                    Place::Node(node) => Some(*node),
                    Place::ActiveOf(_) => None,
                })),
                Fault::OneLinkCut { node: Place::Node(node), link } => drop(broken.ports.insert(Port { node: *node, link: *link })),
                Fault::FabricLost { ports, .. } => broken.ports.extend(ports),
                _ => {}
            }
        }
        broken
    }
}

fn part(name: String, fault: Fault) -> Part {
    Part { name, fault }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology() -> Topology {
        let all = |link: u8| (1..=3).map(|n| Port { node: NodeId(n), link: LinkId(link) }).collect();
        Topology {
            nodes: (1..=3).map(|n| (NodeId(n), true)).collect(),
            links: 2,
            services: vec![("calls".into(), (1..=3).map(NodeId).collect()), ("billing".into(), vec![NodeId(3)])],
            chassis: vec![("mxp1".into(), vec![NodeId(1), NodeId(2)]), ("mxp2".into(), vec![NodeId(3)])],
            fabrics: vec![("A".into(), all(0)), ("B".into(), all(1))],
        }
    }

    fn fault(name: &str) -> Fault {
        topology().parts().into_iter().find(|p| p.name == name).expect("it is a part").fault
    }

    #[test]
    fn everything_that_can_break_is_listed() {
        assert_eq!(topology().parts().len(), 3 + 6 + 2 + 2 + 2);
    }

    #[test]
    fn why_it_stops_is_read_off_votes_wires_and_candidates() {
        let why = |service: &str, names: &[&str]| {
            let faults: Vec<Fault> = names.iter().map(|n| fault(n)).collect();
            topology().why(&service.into(), &faults.iter().collect::<Vec<_>>())
        };
        assert_eq!(why("calls", &["node n1"]), None);
        assert_eq!(why("calls", &["fabric A", "link B of n1"]), None);
        assert!(why("calls", &["chassis mxp1"]).is_some_and(|w| w.contains("1 of 3")));
        assert!(why("calls", &["fabric A", "fabric B"]).is_some_and(|w| w.contains("1 of 3")));
        assert!(why("billing", &["node n3"]).is_some_and(|w| w.contains("n3 only")));
        assert!(why("billing", &["link A of n3", "link B of n3"]).is_some_and(|w| w.contains("n3 only")));
        assert_eq!(why("calls", &["link A of n1", "link B of n2"]), None, "n3 hears both");
    }
}
