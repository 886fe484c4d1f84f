//! How things are in a domain, as those see them whose word counts.

use std::collections::BTreeSet;

use sixnines_core::ids::{AttributeName, GroupName, NodeId, ObjectName};
use sixnines_core::value::Value;
use sixnines_core::world::Owner;

use super::DomainStage;
use crate::domain::View;
use crate::scenario::condition::RoleWord;

impl DomainStage {
    /// The node that is asked how things are: of those with a lease, or of all if nobody has one, who knows most of the control log.
    pub(super) fn observer(&self) -> Option<NodeId> {
        let views = self.world.nodes().into_iter().rev().filter_map(|node| Some((node, self.world.view(node)?)));
        views.max_by_key(|(_, view)| (view.has_lease, view.domain.applied)).map(|(node, _)| node)
    }

    /// Those whose word counts.
    pub(super) fn heard(&self) -> BTreeSet<NodeId> {
        let nodes = self.world.nodes();
        let has_lease = |node: &NodeId| self.world.view(*node).is_some_and(|view| view.has_lease);
        let with_lease: BTreeSet<NodeId> = nodes.iter().copied().filter(has_lease).collect();
        if with_lease.is_empty() { nodes.into_iter().collect() } else { with_lease }
    }

    pub(super) fn owner(&self, object: &ObjectName) -> Option<NodeId> {
        if let Owner::Node(node) = Owner::of(object.as_str()) {
            return Some(node); // perhaps nothing was read of it yet, so that nobody knows the object
        }
        self.world.view(self.observer()?)?.engine.owner_of(object.as_str())
    }

    /// Its owner's view if the owner is up and may speak, else the observer's.
    fn view_of(&self, object: &ObjectName) -> Option<View<'_>> {
        let observer = self.world.view(self.observer()?)?;
        let owner = observer.engine.owner_of(object.as_str()).and_then(|owner| self.world.view(owner));
        Some(owner.filter(|view| view.has_lease || !observer.has_lease).unwrap_or(observer))
    }

    pub(super) fn value_of(&self, object: &ObjectName, attribute: &AttributeName) -> Option<Value> {
        let world = self.view_of(object)?.engine.world();
        let cell = world.find(object.as_str()).and_then(|ix| Some(world.cell(ix, world.object(ix).class.slot(attribute.as_str())?)));
        match cell {
            Some(cell) => cell.usable().cloned(),
            // What no class declares, the chassis shows.
            None => self.world.chassis().iter().find_map(|chassis| self.world.reading(chassis, object.as_str(), attribute.as_str())),
        }
    }

    pub(super) fn alarm_on(&self, object: &ObjectName, kind: Option<&str>) -> bool {
        let Some(view) = self.view_of(object) else { return false };
        let Some(ix) = view.engine.world().find(object.as_str()) else { return false };
        view.engine.alarms().any(|(key, alarm)| key.object == ix && kind.is_none_or(|kind| *kind == *key.kind) && alarm.is_active() && !alarm.suppressed)
    }

    /// A node is active once the control log says so and it has taken it; one that is down is nothing.
    pub(super) fn role_of(&self, group: &GroupName, node: NodeId) -> Option<RoleWord> {
        let domain = self.world.view(self.observer()?)?.domain;
        let row = domain.groups.get(group)?;
        if !self.world.is_up(node) {
            return Some(RoleWord::None);
        }
        let is_current = |member| domain.is_current(member);
        let is_active = row.active.is_some_and(|m| m.node == node && is_current(m));
        if is_active && self.world.holds_active(node, group) == Some(row.epoch) {
            return Some(RoleWord::Active);
        }
        let is_in_sync = row.in_sync.iter().any(|m| m.node == node && is_current(*m));
        Some(if is_in_sync { RoleWord::Standby } else { RoleWord::None })
    }
}
