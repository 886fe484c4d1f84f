//! Epochs only grow where clients can see them, and one epoch has one active. Source: protocol 1.2 and 2.4.

use std::collections::BTreeMap;

use sixnines_core::ids::{Epoch, GroupName, NodeId};

/// What has been seen of the epochs.
#[derive(Debug, Default)]
pub struct Epochs {
    /// The highest that a client has seen in an answer.
    answered: BTreeMap<GroupName, Epoch>,
    /// Who was active under which epoch.
    actives: BTreeMap<(GroupName, Epoch), NodeId>,
    /// Who says that it is active now.
    now: BTreeMap<(GroupName, NodeId), Epoch>,
}

impl Epochs {
    pub(super) fn answered(&mut self, node: NodeId, group: &GroupName, epoch: Epoch) -> Result<(), String> {
        let highest = self.answered.entry(group.clone()).or_default();
        if epoch < *highest {
            return Err(format!("{node} answers for {group} under epoch {epoch} after an answer under {highest}"));
        }
        *highest = epoch;
        Ok(())
    }

    pub(super) fn role(&mut self, node: NodeId, group: &GroupName, epoch: Epoch, is_active: bool) -> Result<(), String> {
        if !is_active {
            self.now.remove(&(group.clone(), node));
            return Ok(());
        }
        self.now.insert((group.clone(), node), epoch);
        let first = *self.actives.entry((group.clone(), epoch)).or_insert(node);
        if first == node { Ok(()) } else { Err(format!("{node} and {first} are both active for {group} under epoch {epoch}")) }
    }

    pub(super) fn node_stopped(&mut self, node: NodeId) {
        self.now.retain(|(_, n), _| *n != node);
    }

    pub(super) fn active(&self, group: &GroupName) -> Option<(NodeId, Epoch)> {
        self.actives(group).max_by_key(|(_, e)| *e)
    }

    pub(super) fn actives(&self, group: &GroupName) -> impl Iterator<Item = (NodeId, Epoch)> {
        self.now.iter().filter(move |((g, _), _)| g == group).map(|((_, n), e)| (*n, *e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_an_older_epoch_is_a_breach() {
        let group = GroupName::new("calls");
        let mut epochs = Epochs::default();
        assert!(epochs.answered(NodeId(1), &group, Epoch(1)).is_ok());
        assert!(epochs.answered(NodeId(2), &group, Epoch(2)).is_ok());
        assert!(epochs.answered(NodeId(1), &group, Epoch(1)).is_err());
    }

    #[test]
    fn one_epoch_has_one_active() {
        let group = GroupName::new("calls");
        let mut epochs = Epochs::default();
        assert!(epochs.role(NodeId(1), &group, Epoch(1), true).is_ok());
        assert!(epochs.role(NodeId(2), &group, Epoch(1), true).is_err());
    }
}
