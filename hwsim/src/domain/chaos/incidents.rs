//! What one fault costs the clients of one service.
//!
//! The *gap* is the longest time between two consecutive answers of a service, to any of its clients, among those intervals that
//! overlap the fault's window: from the fault on, for [`Ground::window`]. An interval that is still open at the window's end is cut
//! there, and the service counts as not served again. The window is fixed before the fault happens and does not depend on what the
//! fault does: otherwise long gaps would be left out more often than short ones, and the tail would look better than it is.
//!
//! Only a fault that hits a whole domain, and is not followed by another step within its window, tells what *it* costs. Whole means:
//! nothing has been broken, cut, hung or lossy for [`Ground::settled`], and every service answers steadily. All others overlap.

use serde::{Deserialize, Serialize};
use sixnines_core::ids::{Epoch, GroupName, NodeId};

use super::draw::Ground;
use super::script::{Fault, Place, US};
use super::{answers_steadily, find};
use crate::domain::{MS, Truth, World};

/// One fault and one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// The fault's class.
    pub class: String,
    /// The service.
    pub service: GroupName,
    /// The fault took away what the service ran on, and a majority was left: somebody else had to take over.
    pub is_due: bool,
    /// Its epoch rose.
    pub moved: bool,
    /// Clients got answers at the end of the window.
    pub is_served: bool,
    /// The longest time between two answers.
    pub gap_us: u64,
}

/// How things were when the fault came.
#[derive(Debug)]
pub(super) struct Before {
    class: &'static str,
    service: GroupName,
    is_due: bool,
    epoch: Epoch,
}

/// One entry for each service that has clients.
pub(super) fn before(world: &World, ground: &Ground, fault: &Fault, services: &[GroupName]) -> Vec<Before> {
    let entry = |service: &GroupName| {
        let (active, epoch) = world.active(service)?;
        Some(Before { class: fault.class(), service: service.clone(), is_due: is_due(world, ground, fault, service, active), epoch })
    };
    services.iter().filter_map(entry).collect()
}

impl Before {
    pub(super) fn after(self, world: &World, began: Truth) -> Incident {
        let Self { class, service, is_due, epoch } = self;
        let moved = world.active(&service).is_some_and(|(_, now)| now > epoch);
        let is_served = answers_steadily(world, &service);
        let gap_us = world.judge().gap(&service, began, world.now()) / US;
        Incident { class: class.to_owned(), service, is_due, moved, is_served, gap_us }
    }
}

fn is_due(world: &World, ground: &Ground, fault: &Fault, service: &GroupName, active: NodeId) -> bool {
    let is_it = |place: &Place| find(world, place) == Some(active);
    match fault {
        Fault::NodeKilled { node, .. } | Fault::LinksCut { node } | Fault::Deafened { node } | Fault::DiskReplaced { node, .. } => is_it(node),
        Fault::NodeHung { node, for_us } => is_it(node) && for_us * US >= 2 * ground.dead_after,
        Fault::ChassisLost { nodes, .. } => nodes.iter().any(is_it) && nodes.len() * 2 < ground.nodes.len(),
        Fault::ProcessKilled { service: killed } => killed == service,
        _ => false,
    }
}

/// Knows whether the domain is whole, from what was done to it.
#[derive(Debug)]
pub(super) struct Watch {
    settled: Truth,
    /// When the last fault ends that ends by itself.
    until: Truth,
    /// Faults that somebody has to end: cuts and bad wires, broken fans.
    is_cut: bool,
    is_broken: bool,
    /// Fans or wires were bad from the start.
    is_never_whole: bool,
}

impl Watch {
    pub(super) fn new(ground: &Ground) -> Self {
        Self { settled: ground.settled(), until: 0, is_cut: false, is_broken: false, is_never_whole: false }
    }

    pub(super) fn disturbed_for_good(&mut self) {
        self.is_never_whole = true;
    }

    pub(super) fn disturb(&mut self, now: Truth, fault: &Fault) {
        let lasts = match fault {
            Fault::NodeKilled { down_us: Some(us), .. } | Fault::ChassisLost { down_us: Some(us), .. } => us * US,
            Fault::NodeHung { for_us, .. } => for_us * US,
            Fault::DiskReplaced { .. } => {
                self.is_never_whole = true; // it has no vote any more
                0
            }
            Fault::NodeKilled { .. } | Fault::ChassisLost { .. } => Truth::MAX / 2,
            Fault::ProcessKilled { .. } => 40 * MS, // until an application has been restarted
            Fault::Switchover { .. } => 0,
            Fault::LinksCut { .. } | Fault::Deafened { .. } | Fault::OneWayCut { .. } | Fault::OneLinkCut { .. } | Fault::FabricLost { .. } | Fault::WiresBad(_) => {
                self.is_cut = true;
                0
            }
            Fault::DiskSlow { .. } | Fault::DiskFull { .. } => {
                self.is_cut = true; // mended with the wires
                0
            }
            Fault::DiskFails { .. } => 500 * MS, // until the daemon has been restarted
            Fault::FansFailed { .. } => {
                self.is_broken = true;
                0
            }
            Fault::Healed => {
                self.is_cut = false;
                0
            }
            Fault::Mended { .. } => {
                self.is_broken = false;
                0
            }
        };
        self.until = self.until.max(now + lasts);
    }

    pub(super) fn is_whole(&self, world: &World, services: &[GroupName]) -> bool {
        let is_good = !self.is_cut && !self.is_broken && !self.is_never_whole && world.now() >= self.until + self.settled;
        // A node that halted, or that another one had switched off, is nothing that the script has done.
        is_good && world.whole_for() >= self.settled && services.iter().all(|group| answers_steadily(world, group))
    }
}
