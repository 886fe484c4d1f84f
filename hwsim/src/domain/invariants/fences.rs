//! A service that needs a fence is not taken over, on releases alone, from a life whose process has not ended. Source: protocol 4.6.
//!
//! What the log says of it does not count here: the processes do, as the world sees them.

use std::collections::BTreeMap;

use sixnines_core::ids::{GroupName, LogIndex, Member, NodeId};

/// How far the control log was, at least, when each node's process last ended.
#[derive(Debug, Default)]
pub struct Fences {
    newest: LogIndex,
    ended: BTreeMap<NodeId, LogIndex>,
}

impl Fences {
    pub(super) fn applied(&mut self, index: LogIndex) {
        self.newest = self.newest.max(index);
    }

    /// It ended, or was found to have ended.
    pub(super) fn node_stopped(&mut self, node: NodeId) {
        self.ended.insert(node, self.newest);
    }

    /// A life is named by its entry in the log: who ended after that entry was applied anywhere has ended that life.
    pub(super) fn taken_over(&self, group: &GroupName, old: Member) -> Result<(), String> {
        let has_ended = self.ended.get(&old.node).is_some_and(|at| at.0 >= old.incarnation.0);
        if has_ended { Ok(()) } else { Err(format!("without the fence: {group} is taken over from {old}, whose process has not ended")) }
    }
}

#[cfg(test)]
mod tests {
    use sixnines_core::ids::Incarnation;

    use super::*;

    #[test]
    fn only_a_process_that_ended_after_its_life_began_is_taken_over_from() {
        let mut fences = Fences::default();
        let old = Member { node: NodeId(1), incarnation: Incarnation(5) };
        fences.applied(LogIndex(4));
        fences.node_stopped(NodeId(1));
        fences.applied(LogIndex(9));
        assert!(fences.taken_over(&"calls".into(), old).is_err_and(|e| e.contains("without the fence")), "that was the life before");
        fences.node_stopped(NodeId(2));
        assert!(fences.taken_over(&"calls".into(), old).is_err());
        fences.node_stopped(NodeId(1));
        assert!(fences.taken_over(&"calls".into(), old).is_ok());
    }
}
