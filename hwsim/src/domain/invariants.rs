//! What must hold in every run, one file each. A [`Judge`] is shown what is seen from outside and remembers the first breach.

pub mod causes;
pub mod epochs;
pub mod one_active;
pub mod sinks;
pub mod writes;

use sixnines_core::ids::{Epoch, GroupName, NodeId};

use super::{Answer, Call, Observation, Truth};

/// All invariants together.
#[derive(Debug, Default)]
pub struct Judge {
    one_active: one_active::OneActive,
    epochs: epochs::Epochs,
    writes: writes::Writes,
    causes: causes::Causes,
    sinks: sinks::Sinks,
    broken: Option<String>,
}

impl Judge {
    /// The first breach, in words.
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// How many answers clients have got.
    pub fn answers(&self) -> u64 {
        self.writes.answers()
    }

    /// How often a group's state was declared lost.
    pub fn losses(&self) -> u64 {
        self.writes.losses()
    }

    /// The longest time between two answers of a service since `since`.
    pub fn gap(&self, group: &GroupName, since: Truth, now: Truth) -> Truth {
        self.writes.gap(group, since, now)
    }

    /// Who last said that it is active, and under which epoch.
    pub fn active(&self, group: &GroupName) -> Option<(NodeId, Epoch)> {
        self.epochs.active(group)
    }

    /// Everybody who says so.
    pub fn actives(&self, group: &GroupName) -> impl Iterator<Item = (NodeId, Epoch)> {
        self.epochs.actives(group)
    }

    pub(super) fn asked(&mut self, group: &GroupName, call: &Call) {
        self.writes.asked(group, call);
    }

    pub(super) fn spoke(&mut self, now: Truth, node: NodeId, group: &GroupName, epoch: Epoch) {
        let outcome = self.epochs.answered(node, group, epoch);
        self.keep(now, outcome);
    }

    pub(super) fn answered(&mut self, now: Truth, group: &GroupName, answer: &Answer) {
        let outcome = self.writes.answered(now, group, answer);
        self.keep(now, outcome);
    }

    pub(super) fn gate(&mut self, now: Truth, node: NodeId, group: &GroupName, until: Truth) {
        let outcome = self.one_active.gate(now, node, group, until);
        self.keep(now, outcome);
    }

    pub(super) fn node_stopped(&mut self, now: Truth, node: NodeId) {
        self.one_active.node_stopped(now, node);
        self.epochs.node_stopped(node);
    }

    pub(super) fn observe(&mut self, now: Truth, node: NodeId, observation: &Observation) {
        let outcome = match observation {
            Observation::Role { group, epoch, is_active } => self.epochs.role(node, group, *epoch, *is_active),
            Observation::Lost { group, epoch } => {
                self.writes.declared_lost(group, *epoch);
                Ok(())
            }
            Observation::Acted { cause, epoch, object } => {
                self.causes.acted(object, *epoch, *cause).and_then(|()| self.sinks.acted(node, object, *epoch))
            }
            Observation::Event { id, cause } => self.causes.event(*id, *cause),
        };
        self.keep(now, outcome);
    }

    fn keep(&mut self, now: Truth, outcome: Result<(), String>) {
        if let (Err(breach), None) = (outcome, &self.broken) {
            self.broken = Some(format!("at {}.{:06} ms: {breach}", now / super::MS, now % super::MS));
        }
    }
}
