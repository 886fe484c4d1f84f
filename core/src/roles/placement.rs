//! Where actives and standbys belong: anti-affinity of chassis first, then the operator's order.

use crate::domain::config::GroupConfig;
use crate::domain::{Domain, GroupRow};
use crate::ids::NodeId;

/// The nodes that shall hold copies beside `active`, the best first: another chassis before the same one, then the order of
/// the configuration. Those for which `is_fit` says no are left out.
pub fn standbys(domain: &Domain, group: &GroupConfig, active: NodeId, is_fit: impl Fn(NodeId) -> bool) -> Vec<NodeId> {
    let home = domain.config.chassis_of(active);
    let mut nodes: Vec<NodeId> = group.candidates.iter().copied().filter(|n| *n != active && is_fit(*n)).collect();
    nodes.sort_by_key(|n| domain.config.chassis_of(*n) == home); // stable: the order of the configuration stays
    nodes.truncate(usize::from(group.copies.saturating_sub(1)));
    nodes
}

/// How many nodes come before `me` in the order of preference for the active role; `None` if `me` is not fit.
pub fn rank(candidates: &[NodeId], me: NodeId, is_fit: impl Fn(NodeId) -> bool) -> Option<u32> {
    let place = candidates.iter().filter(|n| is_fit(**n)).position(|n| *n == me)?;
    Some(u32::try_from(place).expect("at most 32 nodes"))
}

/// What would stop with `node`, by the role table: services that are active there, then services that wait for its copy, then chassis that
/// it owns. The control log is best led where that is least: then a node's death costs either a takeover or an election, not both.
pub fn load(domain: &Domain, node: NodeId) -> (usize, usize, usize) {
    let (services, chassis): (Vec<_>, Vec<_>) = domain.groups.iter().partition(|(name, _)| domain.config.service(name).is_some());
    let active = |groups: &[(_, &GroupRow)]| groups.iter().filter(|(_, row)| row.active.is_some_and(|m| m.node == node)).count();
    let copies = services.iter().filter(|(_, row)| row.in_sync.iter().any(|m| m.node == node)).count();
    (active(&services), copies, active(&chassis))
}
