//! The product in virtual time: a node of [`sixnines_hwsim::domain`] made of the very machines that the daemon runs.
//!
//! Liveness, roles, checkpoint copies and the control log are the product's own; what is simulated is what lies around them: wires,
//! clocks, disks, the kernel's gate, and an application that keeps its state in a checkpoint.

mod app;
mod node;
#[cfg(test)]
mod tests;
mod ways;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;

use sixnines_core::domain::config::{ChassisConfig, DomainConfig, NodeConfig, OnTotalLoss, Profile, ServiceConfig};
use sixnines_core::ids::NodeId;
use sixnines_core::time::{Duration, Instant, nanos};
use sixnines_discs::log::FirstStart;
use sixnines_discs::log::sim::SimDisk;
use sixnines_hwsim::domain::chaos::draw::Ground;
use sixnines_hwsim::domain::chaos::script::Script;
use sixnines_hwsim::domain::chaos::{self, Report};
use sixnines_hwsim::domain::seeds::Stream;
use sixnines_hwsim::domain::{DiskChange, Setup, SimNode, Workshop};

use node::Node;
use ways::Journal;

/// A safety rule to break on purpose, so that it can be seen that the invariants notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mutation {
    /// None: the product as it is.
    #[default]
    None,
    /// The kernel's gate stays open for whoever opened it once.
    GateNeverCloses,
    /// An application that lost its role goes on answering from its memory.
    OldEpochAnswers,
    /// The active acknowledges before anybody else has the write.
    AcknowledgesAlone,
    /// Shelves obey orders of any epoch.
    ShelvesObeyAnybody,
}

impl Mutation {
    /// Its name on the command line.
    pub(crate) fn word(self) -> String {
        clap::ValueEnum::to_possible_value(&self).map(|v| v.get_name().to_owned()).unwrap_or_default()
    }
}

/// Plays a script on a new domain of that configuration.
pub(crate) fn play(config: &DomainConfig, mutation: Mutation, script: &Script) -> Report {
    chaos::play(setup(config, mutation, script.seed), &ground(config), script)
}

/// As [`play`]; a broken assertion of the product is a failure of this run and of no other.
pub(crate) fn play_safely(config: &DomainConfig, mutation: Mutation, script: &Script) -> Report {
    std::panic::catch_unwind(AssertUnwindSafe(|| play(config, mutation, script))).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Report { seed: script.seed, failure: Some(format!("an assertion is broken: {}", words.unwrap_or("it says nothing"))), ..Report::default() }
    })
}

/// What there is to break.
pub(crate) fn ground(config: &DomainConfig) -> Ground {
    let within = |chassis: &ChassisConfig| config.nodes.iter().filter(|n| n.chassis == chassis.name).map(|n| n.id).collect();
    Ground {
        nodes: config.nodes.iter().map(|n| n.id).collect(),
        links: links(config),
        services: config.services.iter().map(|s| s.name.clone()).collect(),
        chassis: config.chassis.iter().map(|c| (c.name.clone(), within(c))).collect(),
        dead_after: nanos(config.profile.times().dead_after),
    }
}

/// A new domain of that configuration.
pub(crate) fn setup(config: &DomainConfig, mutation: Mutation, seed: u64) -> Setup {
    Setup {
        seed,
        nodes: config.nodes.iter().map(|n| n.id).collect(),
        links: links(config),
        services: config.services.iter().map(|s| s.name.clone()).collect(),
        clients: 3,
        chassis: config.chassis.iter().map(|c| c.name.clone()).collect(),
        chassis_check_epochs: mutation != Mutation::ShelvesObeyAnybody,
        workshop: Box::new(Nodes::new(config.clone(), seed, mutation)),
    }
}

/// Every node has as many; the configuration is checked for it.
fn links(config: &DomainConfig) -> u8 {
    config.nodes.first().and_then(|n| u8::try_from(n.links.len()).ok()).unwrap_or(1)
}

/// Nodes of one domain, and their disks.
struct Nodes {
    first: FirstStart,
    disks: BTreeMap<NodeId, SimDisk>,
    journals: BTreeMap<NodeId, Journal>,
    /// What of the unsynced is left after a power cut.
    power: Stream,
    mutation: Mutation,
}

impl Nodes {
    fn new(config: DomainConfig, seed: u64, mutation: Mutation) -> Self {
        let first = FirstStart { bundle: crate::shipped::bundle(&config), config };
        Self { first, disks: BTreeMap::new(), journals: BTreeMap::new(), power: Stream::new(seed, "power cuts"), mutation }
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
        let made = Node::start(node, life, now, &self.first, (disk, journal), restarts == 0, self.mutation);
        made.map(|node| Box::new(node) as Box<dyn SimNode>).map_err(|e| e.to_string())
    }

    fn disk(&mut self, node: NodeId, what: DiskChange) {
        let disk = self.disks.entry(node).or_default();
        match what {
            DiskChange::Slow(each) => disk.set_latency(each),
            DiskChange::Full => disk.set_room(Some(0)),
            DiskChange::FailsOnce => disk.fail_next_sync(), // whenever that is
            DiskChange::Replaced => {
                disk.wipe();
                self.journals.entry(node).or_default().wipe();
            }
            DiskChange::Mended => {
                disk.set_latency(Duration::ZERO);
                disk.set_room(None);
            }
        }
    }
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
    };
    DomainConfig {
        domain: "sim".into(),
        profile: Profile::Fabric,
        nodes: vec![node(1, "mxp1"), node(2, "mxp1"), node(3, "mxp2")],
        chassis: ["mxp1", "mxp2"].map(|name| ChassisConfig { name: name.into(), manager: None }).into(),
        services: vec![service("calls", Vec::new()), service("billing", vec![NodeId(3), NodeId(2)])],
    }
}
