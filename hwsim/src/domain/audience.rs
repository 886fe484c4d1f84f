//! For whoever plays a part on a domain step by step: he hears what happens, looks at it, and reaches into it.
//!
//! A campaign has no audience, and pays nothing for this. With one, [`World::run`] stops as soon as there is news, so that it is looked at
//! when it happens and not at the end of a slice of time.

use std::collections::BTreeSet;
use std::sync::Arc;

use sixnines_core::event::Event;
use sixnines_core::ids::{ChassisName, Epoch, GroupName, LinkId, NodeId};
use sixnines_core::time::{Instant, WallTime};

use super::shelves::SHELVES_EVERY;
use super::{DiskChange, Happening, MS, Observation, Order, READMIT_AGAIN, SimInput, Substitute, Ticket, Truth, View, World};
use crate::chassis::{Chassis, FaultError, FaultId, Injection};

/// Something that has just happened.
#[derive(Clone, Debug)]
pub enum News {
    /// A node has an event of its own.
    Event(NodeId, Arc<Event>),
    /// A node holds itself for active, or no longer.
    Role(NodeId, GroupName),
    /// An order was answered.
    Replied(Ticket, Result<String, String>),
    /// A node's process has ended by itself, or did not start.
    Halted(NodeId, String),
}

impl World {
    /// From now on there is an audience.
    pub fn listen(&mut self) {
        self.audience.get_or_insert_default();
    }

    /// What has happened since this was asked last. Until it is asked again, time stands still.
    pub fn take_news(&mut self) -> Vec<News> {
        self.audience.as_mut().map(std::mem::take).unwrap_or_default()
    }

    pub(super) fn has_news(&self) -> bool {
        self.audience.as_ref().is_some_and(|news| !news.is_empty())
    }

    pub(super) fn tell(&mut self, news: News) {
        if let Some(audience) = &mut self.audience {
            audience.push(news);
        }
    }

    pub(super) fn tell_of(&mut self, node: NodeId, observation: &Observation) {
        match observation {
            Observation::Role { group, .. } => self.tell(News::Role(node, group.clone())),
            Observation::Event(event) => self.tell(News::Event(node, Arc::clone(event))),
            _ => {}
        }
    }

    /// Every wall clock is set right, once in a second.
    pub(super) fn keep_time(&mut self) {
        if self.now % TIME_EVERY < SHELVES_EVERY {
            self.nodes().into_iter().for_each(|node| self.tell_time(node));
        }
    }

    pub(super) fn tell_time(&mut self, node: NodeId) {
        let host = &self.hosts[&node];
        if self.is_in_step && host.node.is_some() && host.paused_until <= self.now {
            self.step(node, SimInput::Wall(WallTime(EPOCH + self.now)));
        }
    }

    /// How a node sees things; `None` of one that is down, stands still, or has not joined.
    pub fn view(&self, node: NodeId) -> Option<View<'_>> {
        let host = self.hosts.get(&node)?;
        host.node.as_ref().filter(|_| host.paused_until <= self.now)?.view()
    }

    /// The epoch under which a node's process holds itself for active.
    pub fn holds_active(&self, node: NodeId, group: &GroupName) -> Option<Epoch> {
        self.judge.actives(group).find(|(n, _)| *n == node).map(|(_, epoch)| epoch)
    }

    /// How many nodes may speak through the group's address now.
    pub fn speakers(&self, group: &GroupName) -> usize {
        self.hosts.keys().filter(|node| self.is_gate_open(**node, group)).count()
    }

    /// An operator asks a node for something.
    pub fn order_at(&mut self, node: NodeId, ticket: Ticket, order: Order) {
        self.give(node, SimInput::Order(ticket, order));
    }

    /// An operator says that a node is the same with its new disk, to every node that hears him; a disk that is none too good he empties
    /// first. False if its disk is the old one.
    pub fn readmit(&mut self, stranger: NodeId) -> bool {
        if self.bad_disks.contains(&stranger) {
            self.crash(stranger);
            self.disk(stranger, DiskChange::Replaced(Substitute::Empty));
            self.restart_after(stranger, 0);
            self.schedule(self.now + READMIT_AGAIN, Happening::Readmit); // until the others have heard it
        }
        if !self.strangers.contains(&stranger) {
            return false;
        }
        let hearers: Vec<NodeId> = self.nodes().into_iter().filter(|node| *node != stranger && self.is_up(*node)).collect();
        hearers.into_iter().for_each(|node| self.give(node, SimInput::Readmit(stranger)));
        true
    }

    /// The node's processes go on, if they stood still.
    pub fn resume(&mut self, node: NodeId) {
        self.note(format!("{node} goes on"));
        if let Some(host) = self.hosts.get_mut(&node) {
            host.paused_until = self.now;
        }
        self.schedule(self.now, Happening::Wake(node));
    }

    /// Exactly these ways are cut, and what waited for one of the others goes on.
    pub fn cut_only(&mut self, cuts: BTreeSet<(NodeId, NodeId, LinkId)>) {
        self.note(format!("{} ways are cut", cuts.len()));
        self.cuts = cuts;
        for parcel in std::mem::take(&mut self.held) {
            self.carry(parcel);
        }
    }

    /// The ways that are cut: from, to, link.
    pub fn cuts(&self) -> &BTreeSet<(NodeId, NodeId, LinkId)> {
        &self.cuts
    }

    /// A shelf as it is.
    pub fn shelf(&self, chassis: &ChassisName) -> Option<&Chassis> {
        self.shelves.chassis(chassis)
    }

    /// Breaks something in a shelf.
    ///
    /// # Errors
    /// [`FaultError`] if fault, target or parameter are wrong, or the shelf is not there.
    pub fn inject(&mut self, chassis: &ChassisName, injection: Injection) -> Result<FaultId, FaultError> {
        self.note(format!("{chassis}: {} {:?}", injection.fault, injection.parameters));
        let now = Instant::from_nanos(self.now);
        let unknown = || FaultError::UnknownTarget { what: format!("there is no chassis {chassis}"), help: "nines status".to_owned() };
        self.shelves.chassis_mut(chassis).ok_or_else(unknown)?.inject(now, injection)
    }

    /// Ends one fault of a shelf, if it has not ended by itself.
    pub fn clear(&mut self, chassis: &ChassisName, fault: FaultId) {
        self.note(format!("{chassis}: fault {} ends", fault.0));
        if let Some(chassis) = self.shelves.chassis_mut(chassis) {
            drop(chassis.clear(fault));
        }
    }

    /// A shelf has power again.
    pub fn light(&mut self, chassis: &ChassisName) {
        self.note(format!("{chassis} has power"));
        self.shelves.darken(chassis, false);
    }

    /// The longest time between two answers that the group's clients got, since then.
    pub fn outage(&self, group: &GroupName, since: Truth) -> Truth {
        self.judge.gap(group, since, self.now)
    }
}

/// How often wall clocks are set right: they drift by 5 ms until then.
const TIME_EVERY: Truth = 1_000 * MS;
/// Stamps begin somewhere in 2023; nothing is decided by them.
const EPOCH: u64 = 1_700_000_000_000_000_000;
