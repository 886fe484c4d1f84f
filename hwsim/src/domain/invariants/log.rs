//! Whoever has applied an entry of the control log holds the same as everybody else who has, and what it holds only grows: lives,
//! views, versions, generations, epochs. Source: protocol 1.2, 1.3 and 2.4; Raft's state machine safety (Ongaro, figure 3.2).

use std::collections::BTreeMap;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

use sixnines_core::domain::{Domain, GroupRow, NodeRow};
use sixnines_core::ids::{LogIndex, NodeId};

use crate::domain::fnv::Fnv;

/// What has been applied.
#[derive(Debug, Default)]
pub struct Log {
    /// After each entry, what all hold who have applied it; and who was the first.
    states: BTreeMap<LogIndex, (u64, NodeId)>,
    /// The newest state of each process that runs.
    newest: BTreeMap<NodeId, (LogIndex, Arc<Domain>)>,
}

impl Log {
    pub(super) fn applied(&mut self, node: NodeId, index: LogIndex, domain: &Arc<Domain>) -> Result<(), String> {
        let state = sum(domain);
        let (first, by) = *self.states.entry(index).or_insert((state, node));
        if state != first {
            return Err(format!("the control log has split: after entry {index} {node} holds something else than {by}"));
        }
        match self.newest.insert(node, (index, Arc::clone(domain))) {
            Some((before, _)) if index < before => Err(format!("{node} applies entry {index} of the control log after {before}")),
            Some((_, before)) => has_grown(&before, domain).map_err(|what| format!("with entry {index} {node} goes back: {what}")),
            None => Ok(()),
        }
    }

    pub(super) fn node_stopped(&mut self, node: NodeId) {
        self.newest.remove(&node); // it begins again at its last snapshot
    }
}

fn has_grown(before: &Domain, now: &Domain) -> Result<(), String> {
    grows("the configuration", &before.config_version, &now.config_version)?;
    grows("the policies", &before.bundle_version, &now.bundle_version)?;
    for (node, was) in &before.nodes {
        let is = now.nodes.get(node).ok_or_else(|| format!("{node} is forgotten"))?;
        let numbers = |row: &NodeRow| [row.incarnation.0, row.since.0, row.about.0];
        numbers(was).iter().zip(&numbers(is)).try_for_each(|(was, is)| grows(&format!("the life of {node}"), was, is))?;
    }
    for (group, was) in &before.groups {
        let is = now.groups.get(group).ok_or_else(|| format!("{group} is forgotten"))?;
        grows(&format!("the epoch of {group}"), &was.epoch, &is.epoch)?;
        grows(&format!("the generation of {group}"), &was.generation, &is.generation)?;
        if (was != is) != (is.version > was.version) {
            return Err(format!("{group} has changed from version {} to {}", was.version, is.version));
        }
        one_epoch_one_active(was, is).map_err(|what| format!("{group} {what}"))?;
    }
    Ok(())
}

fn one_epoch_one_active(was: &GroupRow, is: &GroupRow) -> Result<(), String> {
    let has_changed = was.epoch == is.epoch && was.active != is.active;
    if has_changed { Err(format!("has another active under the same epoch {}", is.epoch)) } else { Ok(()) }
}

fn grows<T: Ord + std::fmt::Debug>(what: &str, was: &T, is: &T) -> Result<(), String> {
    if is >= was { Ok(()) } else { Err(format!("{what} from {was:?} to {is:?}")) }
}

/// Over all that entries can change; of the configuration and the policies their versions.
fn sum(domain: &Domain) -> u64 {
    let mut sum = Fnv::default();
    (domain.config_version, domain.bundle_version).hash(&mut sum);
    for (node, NodeRow { incarnation, nonce, since, about }) in &domain.nodes {
        (node, incarnation, nonce, since, about).hash(&mut sum);
    }
    for (group, GroupRow { version, generation, epoch, active, in_sync }) in &domain.groups {
        (group, version, generation, epoch, active, in_sync).hash(&mut sum);
    }
    sum.finish()
}

#[cfg(test)]
mod tests {
    use sixnines_core::ids::{Epoch, GroupName, Incarnation, Member, Version};

    use super::*;

    fn domain(version: u64, epoch: u64, incarnation: u64) -> Arc<Domain> {
        let active = Some(Member { node: NodeId(1), incarnation: Incarnation(incarnation) });
        let row = GroupRow { version: Version(version), epoch: Epoch(epoch), active, ..GroupRow::default() };
        let node = NodeRow { incarnation: Incarnation(incarnation), ..NodeRow::default() };
        Arc::new(Domain { nodes: BTreeMap::from([(NodeId(1), node)]), groups: BTreeMap::from([(GroupName::new("calls"), row)]), ..Domain::default() })
    }

    #[test]
    fn two_nodes_with_different_states_after_one_entry_are_a_breach() {
        let mut log = Log::default();
        assert_eq!(log.applied(NodeId(1), LogIndex(4), &domain(1, 1, 1)), Ok(()));
        assert_eq!(log.applied(NodeId(2), LogIndex(4), &domain(1, 1, 1)), Ok(()));
        assert!(log.applied(NodeId(3), LogIndex(4), &domain(2, 2, 1)).is_err());
    }

    #[test]
    fn what_goes_back_is_a_breach_unless_the_process_is_another() {
        let mut log = Log::default();
        assert_eq!(log.applied(NodeId(1), LogIndex(4), &domain(1, 1, 1)), Ok(()));
        assert_eq!(log.applied(NodeId(1), LogIndex(5), &domain(2, 2, 1)), Ok(()));
        log.node_stopped(NodeId(1));
        assert_eq!(log.applied(NodeId(1), LogIndex(4), &domain(1, 1, 1)), Ok(()), "from its snapshot");
        assert!(log.applied(NodeId(1), LogIndex(3), &domain(1, 1, 1)).is_err(), "an older entry");
        for back in [domain(1, 2, 1), domain(2, 1, 1), domain(3, 2, 0)] {
            let mut log = Log::default();
            assert_eq!(log.applied(NodeId(1), LogIndex(4), &domain(2, 2, 1)), Ok(()));
            assert!(log.applied(NodeId(1), LogIndex(5), &back).is_err(), "{back:?}");
        }
    }
}
