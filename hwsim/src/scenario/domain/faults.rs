//! The faults in force, and what they do together: to processes, wires, disks and shelves.

use std::collections::BTreeSet;

use sixnines_core::ids::{ChassisName, LinkId, NodeId};
use sixnines_core::time::{Duration, Instant};

use super::DomainStage;
use crate::chassis::{FaultId, Injection};
use crate::domain::chaos::catalogue;
use crate::domain::chaos::script::{Fault, Place, US};
use crate::domain::{DiskChange, Manners, SimInput};

/// A fault in force.
pub(super) struct Active {
    pub(super) injection: Injection,
    pub(super) until: Option<Instant>,
    what: What,
}

/// What it is, with every place resolved to the node that it was when the fault came.
enum What {
    Domain(Fault),
    Shelf(ChassisName, Vec<FaultId>),
}

/// What a node's processes can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Run {
    Up,
    Hung,
    Down,
}

impl DomainStage {
    /// Begins a fault, if there is anything that it could hit.
    pub(super) fn begin(&mut self, injection: &Injection) -> Result<(), String> {
        if !catalogue::is_known(&injection.fault) {
            return self.begin_in_shelf(injection);
        }
        let fault = catalogue::parse(injection, &self.ground).map_err(|wrong| one_line(&wrong.to_string()))?;
        self.world.note(format!("FAULT {fault}"));
        let mut until = injection.expires_after.map(|after| self.now + after);
        let fault = match fault {
            Fault::ProcessKilled { service } => {
                let (node, _) = self.world.active(&service).ok_or_else(|| format!("nobody is active for {service}"))?;
                self.world.give(node, SimInput::KillUnit(service));
                return Ok(());
            }
            Fault::DiskFails { node } => {
                let node = self.node(&node)?;
                self.world.disk(node, DiskChange::FailsOnce);
                return Ok(());
            }
            Fault::FansFailed { chassis, fans } => return self.begin_fans(injection, &chassis, fans),
            Fault::Switchover { .. } | Fault::Mended { .. } | Fault::Healed => return Err("that is no fault".to_owned()),
            Fault::NodeKilled { node, down_us } => Fault::NodeKilled { node: Place::Node(self.that_is_up(&node)?), down_us },
            Fault::NodeHung { node, for_us } => Fault::NodeHung { node: Place::Node(self.that_is_up(&node)?), for_us },
            Fault::DiskReplaced { node, down_us, by } => {
                let node = self.node(&node)?;
                until = Some(self.now + Duration::from_nanos(down_us * US));
                Fault::DiskReplaced { node: Place::Node(node), down_us, by }
            }
            Fault::LinksCut { node } => Fault::LinksCut { node: Place::Node(self.node(&node)?) },
            Fault::Deafened { node } => Fault::Deafened { node: Place::Node(self.node(&node)?) },
            Fault::OneLinkCut { node, link } => Fault::OneLinkCut { node: Place::Node(self.node(&node)?), link },
            Fault::OneWayCut { from, to, links } => {
                let (from, to) = (self.node(&from)?, self.node(&to)?);
                if from == to {
                    return Err(format!("it would go from {from} to itself"));
                }
                Fault::OneWayCut { from: Place::Node(from), to: Place::Node(to), links }
            }
            Fault::DiskSlow { node, sync_us } => Fault::DiskSlow { node: Place::Node(self.node(&node)?), sync_us },
            Fault::DiskFull { node } => Fault::DiskFull { node: Place::Node(self.node(&node)?) },
            Fault::ChassisLost { .. } | Fault::FabricLost { .. } | Fault::WiresBad(_) => fault,
        };
        let replaced = match &fault {
            Fault::DiskReplaced { node: Place::Node(node), by, .. } => Some((*node, *by)),
            _ => None,
        };
        self.faults.push(Active { injection: injection.clone(), until, what: What::Domain(fault) });
        self.follow();
        if let Some((node, by)) = replaced {
            self.world.disk(node, DiskChange::Replaced(by)); // its processes are down by now
        }
        Ok(())
    }

    fn begin_in_shelf(&mut self, injection: &Injection) -> Result<(), String> {
        let wrong = |wrong: crate::chassis::FaultError| one_line(&wrong.to_string());
        let (chassis, inner) = self.setting.shelf_of(injection).map_err(wrong)?;
        let id = self.world.inject(&chassis, Injection { expires_after: None, ..inner }).map_err(wrong)?;
        self.hold(injection, What::Shelf(chassis, vec![id]));
        Ok(())
    }

    fn begin_fans(&mut self, injection: &Injection, chassis: &ChassisName, fans: u32) -> Result<(), String> {
        let mut ids = Vec::new();
        for fan in 1..=fans {
            let parameters = [("fan".to_owned(), fan.to_string())].into();
            let one = Injection { fault: "fan-failed".to_owned(), parameters, expires_after: None, by: injection.by.clone() };
            ids.push(self.world.inject(chassis, one).map_err(|wrong| one_line(&wrong.to_string()))?);
        }
        self.hold(injection, What::Shelf(chassis.clone(), ids));
        Ok(())
    }

    fn hold(&mut self, injection: &Injection, what: What) {
        let until = injection.expires_after.map(|after| self.now + after);
        self.faults.push(Active { injection: injection.clone(), until, what });
    }

    /// Ends what is meant; says how many those were. [`Self::follow`] makes it true.
    pub(super) fn end_faults(&mut self, is_meant: impl Fn(Instant, &Active) -> bool) -> usize {
        let now = self.now;
        let ended: Vec<Active> = self.faults.extract_if(.., |fault| is_meant(now, fault)).collect();
        for fault in &ended {
            self.world.note(format!("ENDS {}", fault.injection.fault));
            if let What::Shelf(chassis, ids) = &fault.what {
                ids.iter().for_each(|id| self.world.clear(chassis, *id));
            }
        }
        ended.len()
    }

    /// Makes true what all faults in force do together.
    pub(super) fn follow(&mut self) {
        self.follow_shelves();
        self.follow_wires();
        self.follow_disks();
        for (node, was) in self.runs.clone() {
            let run = self.run_of(node);
            if run == Run::Down && self.world.is_up(node) {
                self.world.crash(node); // again, if a supervisor was faster
            } else if run == was {
                continue;
            } else if run == Run::Hung {
                self.world.pause(node, catalogue::FOREVER_US * US);
            } else if run == Run::Up && was == Run::Hung {
                self.world.resume(node);
            }
            if was == Run::Down && run != Run::Down {
                self.world.restart_after(node, 0);
            }
            self.runs.insert(node, run);
        }
    }

    /// The worst of what is done to it.
    fn run_of(&self, node: NodeId) -> Run {
        let of_faults = self.faults.iter().map(|fault| match &fault.what {
            What::Domain(Fault::NodeKilled { node: at, .. } | Fault::DiskReplaced { node: at, .. }) if *at == Place::Node(node) => Run::Down,
            What::Domain(Fault::ChassisLost { nodes, .. }) if nodes.contains(&Place::Node(node)) => Run::Down,
            What::Domain(Fault::NodeHung { node: at, .. }) if *at == Place::Node(node) => Run::Hung,
            _ => Run::Up,
        });
        of_faults.chain([self.run_of_board(node)]).max().unwrap_or(Run::Up)
    }

    fn run_of_board(&self, node: NodeId) -> Run {
        let place = self.setting.domain.as_ref().and_then(|domain| domain.slots.get(&node));
        let state = place.and_then(|(chassis, slot)| self.world.shelf(chassis)?.board_state(*slot));
        match state {
            None | Some("running") => Run::Up,
            Some("hung") => Run::Hung,
            Some(_) => Run::Down,
        }
    }

    fn follow_shelves(&mut self) {
        for chassis in self.world.chassis() {
            let is_lost = |fault: &Active| matches!(&fault.what, What::Domain(Fault::ChassisLost { chassis: lost, .. }) if *lost == chassis);
            let is_dark = self.faults.iter().any(is_lost);
            if is_dark != self.dark.contains(&chassis) {
                if is_dark {
                    self.world.darken(&chassis, None);
                    self.dark.insert(chassis);
                } else {
                    self.world.light(&chassis);
                    self.dark.remove(&chassis);
                }
            }
        }
    }

    fn follow_wires(&mut self) {
        let mut cuts = BTreeSet::new();
        let mut manners = Manners::default();
        for fault in &self.faults {
            let What::Domain(fault) = &fault.what else { continue };
            match fault {
                Fault::LinksCut { node: Place::Node(node) } => self.all_links().for_each(|link| self.cut_port(*node, link, &mut cuts)),
                Fault::Deafened { node: Place::Node(node) } => {
                    let others = self.ground.nodes.iter().filter(|other| *other != node);
                    others.for_each(|other| cuts.extend(self.all_links().map(|link| (*other, *node, link))));
                }
                Fault::OneLinkCut { node: Place::Node(node), link } => self.cut_port(*node, *link, &mut cuts),
                Fault::FabricLost { ports, .. } => ports.iter().for_each(|port| self.cut_port(port.node, port.link, &mut cuts)),
                Fault::OneWayCut { from: Place::Node(from), to: Place::Node(to), links } => cuts.extend(links.iter().map(|link| (*from, *to, *link))),
                Fault::WiresBad(wires) => manners = (*wires).into(),
                _ => {}
            }
        }
        for (chassis, nodes) in &self.ground.chassis {
            let dead = self.world.shelf(chassis).map(crate::chassis::Chassis::dead_fabrics).unwrap_or_default();
            // The shelf's first switched fabric is its nodes' link A.
            let links = dead.into_iter().filter_map(|fabric| u8::try_from(fabric).ok()).filter(|link| *link < self.ground.links);
            links.for_each(|link| nodes.iter().for_each(|node| self.cut_port(*node, LinkId(link), &mut cuts)));
        }
        if cuts != *self.world.cuts() {
            self.world.cut_only(cuts);
        }
        self.world.manners = manners;
    }

    fn follow_disks(&mut self) {
        let troubled = |fault: &Active| match &fault.what {
            What::Domain(Fault::DiskSlow { node: Place::Node(node), sync_us }) => Some((*node, DiskChange::Slow(Duration::from_micros(*sync_us)))),
            What::Domain(Fault::DiskFull { node: Place::Node(node) }) => Some((*node, DiskChange::Full)),
            _ => None,
        };
        let disks: Vec<(NodeId, DiskChange)> = self.faults.iter().filter_map(troubled).collect();
        if disks == self.disks {
            return;
        }
        let touched: BTreeSet<NodeId> = self.disks.iter().chain(&disks).map(|(node, _)| *node).collect();
        touched.into_iter().for_each(|node| self.world.disk(node, DiskChange::Mended));
        disks.iter().for_each(|(node, what)| self.world.disk(*node, *what));
        self.disks = disks;
    }

    fn all_links(&self) -> impl Iterator<Item = LinkId> + use<> {
        (0..self.ground.links).map(LinkId)
    }

    fn cut_port(&self, node: NodeId, link: LinkId, cuts: &mut BTreeSet<(NodeId, NodeId, LinkId)>) {
        for other in self.ground.nodes.iter().copied().filter(|other| *other != node) {
            cuts.extend([(node, other, link), (other, node, link)]);
        }
    }

    /// The node that is meant now.
    fn node(&self, place: &Place) -> Result<NodeId, String> {
        match place {
            Place::Node(node) => Ok(*node),
            Place::ActiveOf(group) => self.world.active(group).map(|(node, _)| node).ok_or_else(|| format!("nobody is active for {group}")),
        }
    }

    fn that_is_up(&self, place: &Place) -> Result<NodeId, String> {
        let node = self.node(place)?;
        if self.world.is_up(node) { Ok(node) } else { Err(format!("{node} is down already")) }
    }
}

fn one_line(text: &str) -> String {
    text.replace("\n  help  ", "; ").replace('\n', " ")
}
