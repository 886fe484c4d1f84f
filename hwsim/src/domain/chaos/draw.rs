//! Drawing a script from a seed: each run has a mix of its own.

use sixnines_core::domain::config::{ChassisConfig, DomainConfig, chassis_group};
use sixnines_core::ids::{ChassisName, GroupName, LinkId, NodeId};
use sixnines_core::time::nanos;

use super::script::{Fault, Features, Place, Port, Script, Step, US, Wires};
use crate::domain::seeds::Stream;
use crate::domain::{MS, Substitute, Truth};

/// What there is to break.
#[derive(Clone, Debug)]
pub struct Ground {
    /// The nodes.
    pub nodes: Vec<NodeId>,
    /// Those with a vote in the control log.
    pub voters: Vec<NodeId>,
    /// How many links each of them has.
    pub links: u8,
    /// The services.
    pub services: Vec<GroupName>,
    /// The shelves, and which nodes sit in each.
    pub chassis: Vec<(ChassisName, Vec<NodeId>)>,
    /// A node that is silent for so long is held for dead.
    pub dead_after: Truth,
    /// The policies of which there is one that fails.
    pub policies: Vec<String>,
}

/// How much is done, and what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mix {
    /// So many faults at most; a calm run, which lets the domain settle after each, has a third of it.
    pub faults: u64,
    /// Only faults of these classes, each on a whole domain, and as many as are asked for: what one class costs. Empty: a mix of all.
    pub only: Vec<String>,
}

/// The classes that can be drawn.
pub fn classes() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(_, class)| *class)
}

/// Draws what one seed does to a domain.
pub fn draw(seed: u64, ground: &Ground, mix: &Mix) -> Script {
    let random = Stream::new(seed, "script");
    let mut drawer = Drawer { ground, random, at: 0, whole_at: 0, calm: false, weights: Vec::new(), heals_in: 4, disks_lost: 0, steps: Vec::new() };
    let mut features = drawer.features(&mix.only);
    if !drawer.calm {
        features.bad_policies = bad_policies(seed, ground);
    }
    drawer.steps(if drawer.calm && mix.only.is_empty() { mix.faults.div_ceil(3) } else { mix.faults });
    let rest_us = if drawer.calm { drawer.ground.window() / US } else { drawer.wait() };
    Script { seed, features, steps: drawer.steps, rest_us }
}

/// In one run of four some of the policies fail.
fn bad_policies(seed: u64, ground: &Ground) -> Vec<String> {
    let mut random = Stream::new(seed, "bad policies");
    if random.below(4) != 0 {
        return Vec::new();
    }
    ground.policies.iter().filter(|_| random.below(2) == 0).cloned().collect()
}

impl Ground {
    /// What a domain has.
    pub fn of(config: &DomainConfig) -> Self {
        let within = |chassis: &ChassisConfig| config.nodes.iter().filter(|n| n.chassis == chassis.name).map(|n| n.id).collect();
        Self {
            nodes: config.nodes.iter().map(|n| n.id).collect(),
            voters: config.voters().collect(),
            links: config.links(),
            services: config.services.iter().map(|s| s.name.clone()).collect(),
            chassis: config.chassis.iter().map(|c| (c.name.clone(), within(c))).collect(),
            dead_after: nanos(config.profile.times().dead_after),
            policies: Vec::new(),
        }
    }

    /// Whether no majority of votes is left without these nodes.
    pub fn is_majority(&self, nodes: &[NodeId]) -> bool {
        self.voters.iter().filter(|voter| nodes.contains(voter)).count() * 2 >= self.voters.len()
    }

    /// A fault's effect is looked at for so long. A takeover is due after one `dead_after`; who needs twenty has failed.
    pub fn window(&self) -> Truth {
        20 * self.dead_after
    }

    /// After its first service a new domain needs so long until the lead of the control log is where it belongs.
    pub fn formed(&self) -> Truth {
        40 * self.dead_after
    }

    /// After the end of the last fault a domain is whole again within so long: copies are in sync, leadership has settled.
    pub fn settled(&self) -> Truth {
        12 * self.dead_after
    }
}

/// The kinds of faults that a mix is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kill,
    Hang,
    Isolate,
    CutPair,
    CutOneLink,
    CutOneWayOneLink,
    KillProcess,
    Switch,
    Fans,
    Wires,
    LoseChassis,
    LoseFabric,
    SlowDisk,
    FullDisk,
    FailingDisk,
    LoseDisk,
    RestoreDisk,
    RotDisk,
}

/// With the classes that reports know them by.
const KINDS: [(Kind, &str); 18] = [
    (Kind::Kill, "node-killed"),
    (Kind::Hang, "node-hung"),
    (Kind::Isolate, "links-cut"),
    (Kind::CutPair, "one-way-cut"),
    (Kind::CutOneLink, "one-link-cut"),
    (Kind::CutOneWayOneLink, "one-way-cut"),
    (Kind::KillProcess, "process-killed"),
    (Kind::Switch, "switchover"),
    (Kind::Fans, "fans-failed"),
    (Kind::Wires, "wires-bad"),
    (Kind::LoseChassis, "chassis-lost"),
    (Kind::LoseFabric, "fabric-lost"),
    (Kind::SlowDisk, "disk-slow"),
    (Kind::FullDisk, "disk-full"),
    (Kind::FailingDisk, "disk-fails"),
    (Kind::LoseDisk, "disk-replaced"),
    (Kind::RestoreDisk, "disk-restored"),
    (Kind::RotDisk, "disk-rotten"),
];

struct Drawer<'a> {
    ground: &'a Ground,
    random: Stream,
    /// When the next step is.
    at: Truth,
    /// When the last node that was killed is up again.
    whole_at: Truth,
    /// One fault at a time, each on a whole domain: what a fault costs can only be seen so.
    calm: bool,
    weights: Vec<(Kind, u64)>,
    heals_in: u64,
    disks_lost: usize,
    steps: Vec<Step>,
}

impl Drawer<'_> {
    fn features(&mut self, only: &[String]) -> Features {
        self.calm = self.random.below(4) == 0 || !only.is_empty();
        self.heals_in = self.random.choose(&[2, 4, 8]);
        let is_asked_for = |class: &str| only.iter().any(|o| o == class);
        let mut weigh = |(kind, class): &(Kind, &str)| (self.random.below(2) == 0 || is_asked_for(class)).then(|| (*kind, 1 + self.random.below(8)));
        self.weights = KINDS.iter().filter(|(_, class)| only.is_empty() || is_asked_for(class)).filter_map(&mut weigh).collect();
        if self.weights.is_empty() {
            self.weights = vec![(Kind::Kill, 1)];
        }
        let mut services = self.ground.services.clone();
        if services.len() > 1 && self.random.below(3) == 0 {
            services = vec![self.service()];
        }
        let clients = self.random.choose(&[1, 2, 3, 3]);
        let is_hot = !self.calm && self.random.below(2) == 0;
        let hot_fans = self.ground.chassis.iter().map(|_| if is_hot { 1 + self.few(3) } else { 0 }).collect();
        let is_bad = !self.calm && self.random.below(3) != 0;
        let wires = is_bad.then(|| self.wires(60, 30, 3 * MS));
        Features { services, clients, hot_fans, wires, bad_policies: Vec::new() }
    }

    fn steps(&mut self, faults: u64) {
        for _ in 0..faults {
            let wait = self.wait();
            let kind = self.kind();
            self.at += wait * US;
            let Some(fault) = self.fault(kind) else { continue };
            self.steps.push(Step { wait_us: wait, fault });
            self.repair();
        }
    }

    /// Repairs are steps of their own: in a calm run after each fault, otherwise now and then.
    fn repair(&mut self) {
        if self.calm {
            let broken = self.steps.last().map(|s| s.fault.clone());
            let repair = match broken {
                Some(Fault::FansFailed { chassis, .. }) => Fault::Mended { chassis },
                _ => Fault::Healed,
            };
            let wait = (self.ground.window() + MS) / US;
            self.at += wait * US;
            self.steps.push(Step { wait_us: wait, fault: repair });
        } else if self.random.below(self.heals_in) == 0 {
            let wait = self.wait();
            self.at += wait * US;
            self.steps.push(Step { wait_us: wait, fault: Fault::Healed });
        }
    }

    fn wait(&mut self) -> u64 {
        if !self.calm && !self.steps.is_empty() && self.random.below(3) == 0 {
            return (MS / 10 + self.random.below(BURST)) / US; // what a rule is for often takes two faults within one `dead_after`
        }
        let settle = match (self.calm, self.steps.is_empty()) {
            (true, true) => self.ground.formed(),
            (true, false) => self.ground.settled() + 2 * MS,
            (false, _) => MS,
        };
        (settle + self.random.below(120 * MS)) / US
    }

    fn kind(&mut self) -> Kind {
        let total = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut left = self.random.below(total);
        let chosen = self.weights.iter().find(|(_, weight)| {
            let is_it = left < *weight;
            left = left.saturating_sub(*weight);
            is_it
        });
        chosen.map_or(Kind::Kill, |(kind, _)| *kind)
    }

    fn fault(&mut self, kind: Kind) -> Option<Fault> {
        let node = self.place();
        match kind {
            // Mostly one node at a time: once every complete copy is gone, a run says nothing more about what was acknowledged before.
            Kind::Kill | Kind::LoseChassis | Kind::FullDisk | Kind::FailingDisk | Kind::LoseDisk | Kind::RestoreDisk | Kind::RotDisk
                if self.at < self.whole_at + KILL_AGAIN && self.random.below(8) != 0 =>
            {
                Some(self.hang(node))
            }
            Kind::Kill => Some(Fault::NodeKilled { node, down_us: Some(self.down()) }),
            Kind::LoseChassis => self.lose_chassis(),
            Kind::SlowDisk => Some(Fault::DiskSlow { node, sync_us: (MS + self.random.below(60 * MS)) / US }),
            Kind::FullDisk => {
                self.whole_at = self.whole_at.max(self.at + DISK_MENDED);
                Some(Fault::DiskFull { node })
            }
            Kind::FailingDisk => {
                self.whole_at = self.whole_at.max(self.at + DISK_MENDED);
                Some(Fault::DiskFails { node })
            }
            Kind::LoseDisk => self.lose_disk(node, Substitute::Empty),
            Kind::RestoreDisk => self.lose_disk(node, Substitute::Image),
            Kind::RotDisk => self.lose_disk(node, Substitute::Rotten),
            Kind::Hang => Some(self.hang(node)),
            Kind::Isolate => Some(Fault::LinksCut { node }),
            Kind::CutPair => self.one_way(node, true),
            Kind::CutOneWayOneLink => self.one_way(node, false),
            Kind::CutOneLink => Some(Fault::OneLinkCut { node, link: self.link() }),
            Kind::KillProcess => Some(Fault::ProcessKilled { service: self.service() }),
            Kind::Switch => Some(Fault::Switchover { at: node, service: self.service() }),
            Kind::Fans => self.fans(),
            Kind::Wires => Some(Fault::WiresBad(self.wires(300, 100, 20 * MS))),
            Kind::LoseFabric => {
                let link = self.link();
                let ports = self.ground.nodes.iter().map(|node| Port { node: *node, link }).collect();
                Some(Fault::FabricLost { fabric: super::script::letter(link).to_string(), ports })
            }
        }
    }

    /// Any node, or whoever is active for a service or owns a shelf; in calm runs mostly one that matters, or there is nothing to measure.
    fn place(&mut self) -> Place {
        let is_active = self.random.below(if self.calm { 4 } else { 8 });
        if is_active == 0 || (self.calm && is_active < 3) {
            return Place::ActiveOf(self.service());
        }
        if !self.calm && is_active < 3 && !self.ground.chassis.is_empty() {
            let owned = self.random.below(self.ground.chassis.len() as u64);
            let chassis = usize::try_from(owned).ok().and_then(|i| self.ground.chassis.get(i));
            return chassis.map_or(Place::ActiveOf(self.service()), |(chassis, _)| Place::ActiveOf(chassis_group(chassis.as_str())));
        }
        Place::Node(self.random.choose(&self.ground.nodes))
    }

    fn hang(&mut self, node: Place) -> Fault {
        let for_us = if self.calm { (3 * self.ground.dead_after + self.random.below(8 * self.ground.dead_after)) / US } else { (MS + self.random.below(120 * MS)) / US };
        Fault::NodeHung { node, for_us }
    }

    fn down(&mut self) -> u64 {
        let down = 5 * MS + self.random.below(300 * MS);
        self.whole_at = self.whole_at.max(self.at + down);
        down / US
    }

    /// As many as a majority can do without: who had a vote and knows nothing of it must never be let vote again. An old image is known
    /// for one by whoever led when it was not yet old, and by him alone: nobody else may be lost with it.
    fn lose_disk(&mut self, node: Place, by: Substitute) -> Option<Fault> {
        let is_alone = self.calm || by == Substitute::Empty;
        if !is_alone || self.disks_lost * 2 + 3 > self.ground.voters.len() {
            return Some(Fault::DiskFails { node });
        }
        self.disks_lost += 1;
        Some(Fault::DiskReplaced { node, down_us: self.down(), by })
    }

    fn lose_chassis(&mut self) -> Option<Fault> {
        if self.ground.chassis.is_empty() {
            return None;
        }
        let index = self.random.below(self.ground.chassis.len() as u64);
        let (chassis, nodes) = self.ground.chassis.get(usize::try_from(index).ok()?)?.clone();
        let is_all = nodes.len() >= self.ground.nodes.len();
        let is_majority = self.ground.is_majority(&nodes);
        // A calm run measures takeovers; without a majority there is none, and that is as meant.
        if (self.calm && is_majority) || (is_all && self.random.below(8) != 0) {
            return None;
        }
        Some(Fault::ChassisLost { chassis, nodes: nodes.into_iter().map(Place::Node).collect(), down_us: Some(self.down()) })
    }

    fn one_way(&mut self, from: Place, all_links: bool) -> Option<Fault> {
        let to = Place::Node(self.random.choose(&self.ground.nodes));
        let link = self.link();
        let links = if all_links { (0..self.ground.links).map(LinkId).collect() } else { vec![link] };
        (from != to).then_some(Fault::OneWayCut { from, to, links })
    }

    fn fans(&mut self) -> Option<Fault> {
        let index = self.random.below(self.ground.chassis.len() as u64);
        let (chassis, _) = self.ground.chassis.get(usize::try_from(index).ok()?)?.clone();
        if !self.calm && self.random.below(3) == 0 {
            return Some(Fault::Mended { chassis });
        }
        Some(Fault::FansFailed { chassis, fans: 1 + self.few(3) })
    }

    fn wires(&mut self, lost: u64, doubled: u64, delay: Truth) -> Wires {
        Wires {
            lost_per_mille: self.random.below(lost),
            doubled_per_mille: self.random.below(doubled),
            delay_max_us: (MS / 10 + self.random.below(delay)) / US,
            bytes_per_ms: if self.random.below(4) == 0 { 500 + self.random.below(5000) } else { 0 },
        }
    }

    fn service(&mut self) -> GroupName {
        let index = self.random.below(self.ground.services.len() as u64);
        usize::try_from(index).ok().and_then(|i| self.ground.services.get(i)).cloned().unwrap_or_else(|| GroupName::new("none"))
    }

    fn link(&mut self) -> LinkId {
        LinkId(u8::try_from(self.random.below(u64::from(self.ground.links))).unwrap_or(0))
    }

    fn few(&mut self, bound: u64) -> u32 {
        u32::try_from(self.random.below(bound)).unwrap_or(0)
    }
}

/// Faults that come together come within so long of each other.
const BURST: Truth = 15 * MS;
/// A node that came back needs so long to hold complete copies again.
const KILL_AGAIN: Truth = 200 * MS;
/// So long after the fault a daemon whose disk let it down mostly has written, died and come back.
const DISK_MENDED: Truth = 800 * MS;

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use super::*;

    pub(in super::super) fn ground() -> Ground {
        Ground {
            nodes: (1..=3).map(NodeId).collect(),
            voters: (1..=3).map(NodeId).collect(),
            links: 2,
            services: vec!["calls".into(), "billing".into()],
            chassis: vec![("mxp1".into(), vec![NodeId(1), NodeId(2)]), ("mxp2".into(), vec![NodeId(3)])],
            dead_after: 25 * MS,
            policies: vec!["fan.rhai".into(), "service.rhai".into()],
        }
    }

    fn mix() -> Mix {
        Mix { faults: 12, only: Vec::new() }
    }

    #[test]
    fn one_class_alone_can_be_asked_for() {
        let mix = Mix { faults: 12, only: vec!["node-killed".into()] };
        let script = draw(5, &ground(), &mix);
        let killed = script.steps.iter().filter(|s| s.fault.class() == "node-killed").count();
        assert!(killed >= 10, "{script}");
    }

    #[test]
    fn a_seed_has_one_script_and_seeds_have_different_mixes() {
        assert_eq!(draw(3, &ground(), &mix()), draw(3, &ground(), &mix()));
        let mixes: BTreeSet<Vec<&str>> = (0..200).map(|seed| draw(seed, &ground(), &mix()).steps.iter().map(|s| s.fault.class()).collect()).collect();
        assert!(mixes.len() > 160, "{}", mixes.len());
        let classes: BTreeSet<&str> = mixes.into_iter().flatten().collect();
        assert_eq!(classes.len(), 19, "every kind of fault occurs: {classes:?}");
    }

    #[test]
    fn some_runs_leave_a_window_after_each_fault() {
        let ground = ground();
        let window = ground.window() / US;
        let is_calm = |script: &Script| script.steps.iter().skip(1).all(|s| s.wait_us * US > ground.settled());
        let calm = (0..100).map(|seed| draw(seed, &ground, &mix())).filter(is_calm).filter(|s| s.rest_us >= window).count();
        assert!((10..50).contains(&calm), "{calm}");
    }
}
