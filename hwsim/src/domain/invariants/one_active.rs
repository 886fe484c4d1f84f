//! Never two actives at a sink: at no instant are the gates of two nodes open for one address. Source: protocol, layer two.

use std::collections::BTreeMap;

use sixnines_core::ids::{GroupName, NodeId};

use crate::domain::Truth;

/// Until when each node's gate is open, in truth.
#[derive(Debug, Default)]
pub struct OneActive {
    open: BTreeMap<GroupName, BTreeMap<NodeId, Truth>>,
}

impl OneActive {
    pub(super) fn gate(&mut self, now: Truth, node: NodeId, group: &GroupName, until: Truth) -> Result<(), String> {
        let gates = self.open.entry(group.clone()).or_default();
        gates.insert(node, until);
        if until <= now {
            return Ok(());
        }
        match gates.iter().find(|(other, open)| **other != node && **open > now) {
            Some((other, open)) => Err(format!("two actives: {node} opens its gate for {group} while that of {other} is open for {} us more", (open - now) / 1000)),
            None => Ok(()),
        }
    }

    pub(super) fn node_stopped(&mut self, now: Truth, node: NodeId) {
        for gates in self.open.values_mut() {
            if let Some(until) = gates.get_mut(&node) {
                *until = now;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_gates_are_a_breach_and_consecutive_ones_are_not() {
        let group = GroupName::new("calls");
        let mut one = OneActive::default();
        assert!(one.gate(0, NodeId(1), &group, 10).is_ok());
        assert!(one.gate(5, NodeId(2), &group, 20).is_err());
        let mut one = OneActive::default();
        assert!(one.gate(0, NodeId(1), &group, 10).is_ok());
        assert!(one.gate(10, NodeId(2), &group, 20).is_ok());
    }
}
