//! The product in virtual time: a node of [`sixnines_hwsim::domain`] made of the very machines that the daemon runs.
//!
//! Liveness, roles, checkpoint copies and the control log are the product's own; what is simulated is what lies around them: wires,
//! clocks, disks, the kernel's gate, and an application that keeps its state in a checkpoint.

mod app;
mod bad;
pub(crate) mod bench;
mod broken;
pub(crate) mod federation;
mod node;
mod orders;
#[cfg(test)]
mod tests;
mod ways;

use std::collections::BTreeMap;

use sixnines_core::domain::config::{ChassisConfig, DomainConfig, NodeConfig, OnTotalLoss, Profile, ServiceConfig};
use sixnines_core::ids::NodeId;
use sixnines_core::time::{Duration, Instant};
use sixnines_discs::log::FirstStart;
use sixnines_discs::log::sim::SimDisk;
use sixnines_hwsim::chassis::Plan;
use sixnines_hwsim::domain::chaos::draw::Ground;
use sixnines_hwsim::domain::chaos::script::Script;
use sixnines_hwsim::domain::chaos::{self, Report};
use sixnines_hwsim::domain::seeds::Stream;
use sixnines_hwsim::domain::{DiskChange, Setup, SimNode, Substitute, Workshop, safely};
use sixnines_hwsim::scenario::{DomainStage, Setting};

pub(crate) use broken::Mutation;
use node::Node;
use ways::Journal;

/// Plays a script on a new domain of that configuration.
pub(crate) fn play(config: &DomainConfig, mutation: Mutation, script: &Script) -> Report {
    chaos::play(setup(config, mutation, script.seed, &script.features.bad_policies), &ground(config), script)
}

/// As [`play`]; a broken assertion of the product is a failure of this run and of no other.
pub(crate) fn play_safely(config: &DomainConfig, mutation: Mutation, script: &Script) -> Report {
    safely(|| play(config, mutation, script)).unwrap_or_else(|broken| Report { seed: script.seed, failure: Some(broken), ..Report::default() })
}

/// What there is to break.
pub(crate) fn ground(config: &DomainConfig) -> Ground {
    Ground { policies: bad::names().map(str::to_owned).collect(), ..Ground::of(config) }
}

/// A new domain of that configuration, with these policies replaced by bad ones.
pub(crate) fn setup(config: &DomainConfig, mutation: Mutation, seed: u64, bad_policies: &[String]) -> Setup {
    let mut bundle = crate::shipped::bundle(config);
    bad::spoil(&mut bundle, bad_policies);
    Setup { bad_policies: bad_policies.to_vec(), ..setup_with(FirstStart { bundle, config: config.clone() }, mutation, seed) }
}

fn setup_with(first: FirstStart, mutation: Mutation, seed: u64) -> Setup {
    let config = &first.config;
    Setup {
        seed,
        nodes: config.nodes.iter().map(|n| n.id).collect(),
        links: config.links(),
        services: config.services.iter().map(|s| s.name.clone()).collect(),
        clients: 3,
        chassis: config.chassis.iter().map(|c| Plan::mxp().named(c.name.clone())).collect(),
        is_in_step: false,
        chassis_check_epochs: mutation != Mutation::ShelvesObeyAnybody,
        bad_policies: Vec::new(),
        workshop: Box::new(Nodes::new(first, seed, mutation)),
    }
}

/// The domain of a scenario, with the classes, objects and policies that are in force there.
///
/// # Panics
/// If the scenario has no domain.
pub(crate) fn stage(setting: &Setting, mutation: Mutation) -> DomainStage {
    let domain = setting.domain.as_ref().expect("only a scenario with a domain is played on one");
    let first = FirstStart { bundle: setting.compiled.files.clone(), config: domain.config.clone() };
    let chassis: Vec<Plan> = setting.shelves().cloned().collect();
    let setup = Setup { clients: domain.clients, chassis, is_in_step: true, ..setup_with(first, mutation, domain.seed) };
    DomainStage::new(setting, setup)
}

/// Nodes of one domain, and their disks.
struct Nodes {
    first: FirstStart,
    disks: BTreeMap<NodeId, SimDisk>,
    /// What was on a node's disk when it last started, or was mended.
    images: BTreeMap<NodeId, SimDisk>,
    journals: BTreeMap<NodeId, Journal>,
    /// What of the unsynced is left after a power cut.
    power: Stream,
    mutation: Mutation,
}

impl Nodes {
    fn new(first: FirstStart, seed: u64, mutation: Mutation) -> Self {
        Self { first, disks: BTreeMap::new(), images: BTreeMap::new(), journals: BTreeMap::new(), power: Stream::new(seed, "power cuts"), mutation }
    }
}

impl Workshop for Nodes {
    fn make(&mut self, node: NodeId, restarts: u32, life: u64, now: Instant) -> Result<Box<dyn SimNode>, String> {
        let disk = self.disks.entry(node).or_default().clone();
        let journal = self.journals.entry(node).or_default().clone();
        if restarts > 0 {
            let draw = self.power.draw();
            disk.crash(draw);
            journal.crash(draw);
        }
        disk.lie(self.mutation.lie());
        self.images.insert(node, disk.backup());
        let made = Node::start(node, life, now, &self.first, (disk, journal), restarts == 0, self.mutation);
        made.map(|node| Box::new(node) as Box<dyn SimNode>).map_err(|e| e.to_string())
    }

    fn disk(&mut self, node: NodeId, what: DiskChange) {
        let disk = self.disks.entry(node).or_default();
        match what {
            DiskChange::Slow(each) => disk.set_latency(each),
            DiskChange::Full => disk.set_room(Some(0)),
            DiskChange::FailsOnce => disk.fail_next_sync(true), // whenever that is
            DiskChange::Replaced(Substitute::Empty) => {
                disk.wipe();
                self.journals.entry(node).or_default().wipe();
            }
            DiskChange::Replaced(Substitute::Image) => {
                if let Some(image) = self.images.get(&node) {
                    disk.go_back(image);
                }
            }
            DiskChange::Replaced(Substitute::Rotten) => disk.rot(self.power.draw()),
            DiskChange::Mended => {
                disk.set_latency(Duration::ZERO);
                disk.set_room(None);
                disk.fail_next_sync(false);
                self.images.insert(node, disk.backup());
            }
        }
    }
}

/// A domain of that size: shelves of five nodes at most, two at least; five votes from five nodes on, as far apart as they go; two services,
/// and one more for every five nodes, each with three nodes to choose from.
pub(crate) fn many_nodes(count: u8) -> DomainConfig {
    let three = three_nodes();
    let count = u16::from(count);
    let shelves = count.div_ceil(5).max(2);
    let node = |place: u16| {
        let id = place + 1;
        let voter = place < if count < 5 { 3 } else { 5 };
        let links = (1..=2).map(|link| format!("10.0.{link}.{id}:7400").parse().expect("an address")).collect();
        // One after the other, so that the votes are in as many shelves as there are.
        NodeConfig { id: NodeId(id), chassis: format!("mxp{}", place % shelves + 1).as_str().into(), links, voter, witness: false }
    };
    let service = |number: u16| {
        let nodes = (0..3).map(|step| NodeId((number * 5 + step * 2 + 1) % count + 1)).collect();
        ServiceConfig { name: format!("service{number}").as_str().into(), nodes, ..three.services[0].clone() }
    };
    let chassis = (1..=shelves).map(|shelf| ChassisConfig { name: format!("mxp{shelf}").as_str().into(), manager: None });
    let services = three.services.iter().cloned().chain((1..=count / 5).map(service)).collect();
    DomainConfig { nodes: (0..count).map(node).collect(), chassis: chassis.collect(), services, ..three.clone() }
}

/// n1 and n2 in mxp1, n3 in mxp2, and two services, so that nothing assumes one.
pub(crate) fn three_nodes() -> DomainConfig {
    let node = |id: u16, chassis: &str| NodeConfig {
        id: NodeId(id),
        chassis: chassis.into(),
        links: (1..=2).map(|link| format!("10.0.{link}.{id}:7400").parse().expect("an address")).collect(),
        voter: true,
        witness: false,
    };
    let service = |name: &str, nodes: Vec<NodeId>| ServiceConfig {
        name: name.into(),
        command: vec!["server".into()],
        addresses: Vec::new(),
        device: None,
        nodes,
        copies: 2,
        floor: 1,
        on_total_loss: OnTotalLoss::Best,
        fence: Default::default(),
    };
    DomainConfig {
        domain: "sim".into(),
        profile: Profile::Fabric,
        nodes: vec![node(1, "mxp1"), node(2, "mxp1"), node(3, "mxp2")],
        chassis: ["mxp1", "mxp2"].map(|name| ChassisConfig { name: name.into(), manager: None }).into(),
        services: vec![service("calls", Vec::new()), service("billing", vec![NodeId(3), NodeId(2)])],
        ..DomainConfig::default()
    }
}
