//! What must hold in every run, one file each. A [`Judge`] is shown what is seen from outside and remembers the first breach.

pub mod alarms;
pub mod causes;
pub mod epochs;
pub mod events;
pub mod fences;
pub mod log;
pub mod one_active;
pub mod policies;
pub mod sinks;
pub mod writes;

use std::collections::BTreeMap;

use sixnines_core::ids::{Epoch, EventId, GroupName, NodeId};

use super::{Answer, Call, Observation, Truth};

/// All invariants together.
#[derive(Debug, Default)]
pub struct Judge {
    one_active: one_active::OneActive,
    epochs: epochs::Epochs,
    writes: writes::Writes,
    causes: causes::Causes,
    sinks: sinks::Sinks,
    log: log::Log,
    events: events::Events,
    fences: fences::Fences,
    alarms: alarms::Alarms,
    policies: policies::Policies,
    broken: Option<String>,
}

impl Judge {
    /// Has seen nothing. These policies fail whenever they are called.
    pub fn new(bad_policies: Vec<String>) -> Self {
        Self { policies: policies::Policies::new(bad_policies), ..Self::default() }
    }

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
        self.log.node_stopped(node);
        self.events.node_stopped(node);
        self.fences.node_stopped(node);
    }

    /// A device has read back that a node is off: it may have been before.
    pub(super) fn node_is_off(&mut self, node: NodeId) {
        self.fences.node_stopped(node);
    }

    /// At the end, with the alarms that stand at the owners of their objects.
    pub(super) fn prove_alarms(&self, standing: &BTreeMap<String, EventId>) -> Result<(), String> {
        self.alarms.prove(standing)
    }

    pub(super) fn observe(&mut self, now: Truth, node: NodeId, observation: &Observation) {
        let outcome = match observation {
            Observation::Role { group, epoch, is_active } => self.epochs.role(node, group, *epoch, *is_active),
            Observation::Lost { group, epoch } => {
                self.writes.declared_lost(group, *epoch);
                self.alarms.declared_lost(group);
                Ok(())
            }
            Observation::Acted { cause, epoch, object } => {
                self.causes.acted(object, *epoch, *cause).and_then(|()| self.sinks.acted(node, object, *epoch))
            }
            Observation::Event(event) => {
                self.alarms.event(event);
                self.events.made(event);
                self.causes.event(event.id, event.cause).and_then(|()| self.policies.event(event))
            }
            Observation::Heard { origin, after, at, is_event } => self.events.heard(node, *origin, *after, *at, *is_event),
            Observation::Remembers(last) => self.events.remembers(node, *last),
            Observation::Applied { index, domain } => {
                self.fences.applied(*index);
                self.log.applied(node, *index, domain)
            }
            Observation::TakenOver { group, old } => self.fences.taken_over(group, *old),
            Observation::Kept { group, section } => {
                self.alarms.kept(node, group, section);
                Ok(())
            }
        };
        self.keep(now, outcome);
    }

    fn keep(&mut self, now: Truth, outcome: Result<(), String>) {
        if let (Err(breach), None) = (outcome, &self.broken) {
            self.broken = Some(format!("at {}.{:06} ms: {breach}", now / super::MS, now % super::MS));
        }
    }
}

#[cfg(test)]
mod testing {
    use sixnines_core::alarms::Severity;
    use sixnines_core::event::{Body, Event, PolicyLine};
    use sixnines_core::ids::{Epoch, EventId, GroupName, Incarnation, NodeId};
    use sixnines_core::time::HybridTime;
    use sixnines_core::value::Quality;

    /// n1's event of that number on `/mxp1/fan1`, which the owner of mxp1 made, by that policy.
    pub(super) fn event(sequence: u64, body: Body, policy: Option<&str>) -> Event {
        let id = EventId { node: NodeId(1), incarnation: Incarnation(1), sequence };
        Event {
            id,
            object: "/mxp1/fan1".into(),
            class: "fan".into(),
            attribute: "state".into(),
            old: None,
            new: None,
            quality: Quality::Good,
            severity: Severity::Cleared,
            cause: None,
            root: id,
            time: HybridTime::default(),
            received: None,
            group: Some(GroupName::new("chassis:mxp1")),
            epoch: Epoch(1),
            identity: None,
            why: "".into(),
            policy: policy.map(|file| PolicyLine { file: file.into(), line: 1, column: 1 }),
            body,
        }
    }
}
