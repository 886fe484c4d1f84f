//! An event reaches each core loop once, and what a node tells comes in the order in which it happened, without a hole.
//! Source: protocol 8.2 and 8.3; `discs/src/session.rs`, exactly once per pair of lives.
//!
//! Per listener and per life of the teller. A listener that comes late begins with the first event that it is told; before that one
//! come the levels, which are older and in no order. Nothing is dropped between two processes that both live, so a hole is a breach:
//! what is told of a gap is told at the beginning of a life, and here that is another teller.

use std::collections::{BTreeMap, BTreeSet};

use sixnines_core::ids::{EventId, Incarnation, NodeId};

/// What each process has been told.
#[derive(Debug, Default)]
pub struct Events {
    /// By listener and teller: the newest event.
    newest: BTreeMap<(NodeId, NodeId), (Incarnation, u64)>,
    /// By listener: all that it took for new.
    heard: BTreeMap<NodeId, BTreeSet<EventId>>,
}

impl Events {
    pub(super) fn told(&mut self, listener: NodeId, id: EventId, is_level: bool) -> Result<(), String> {
        if is_level {
            return Ok(());
        }
        let told = (id.incarnation, id.sequence);
        match self.newest.insert((listener, id.node), told) {
            Some((life, newest)) if life == id.incarnation && id.sequence != newest + 1 => Err(format!("{listener} is told {id} after number {newest} of that life")),
            Some((life, _)) if life > id.incarnation => Err(format!("{listener} is told {id} after an event of life {life}")),
            _ => Ok(()),
        }
    }

    pub(super) fn heard(&mut self, listener: NodeId, id: EventId) -> Result<(), String> {
        let is_new = self.heard.entry(listener).or_default().insert(id);
        if is_new { Ok(()) } else { Err(format!("{listener} takes {id} for new a second time")) }
    }

    pub(super) fn node_stopped(&mut self, node: NodeId) {
        self.newest.retain(|(listener, _), _| *listener != node);
        self.heard.remove(&node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(life: u64, sequence: u64) -> EventId {
        EventId { node: NodeId(1), incarnation: Incarnation(life), sequence }
    }

    #[test]
    fn a_hole_a_step_back_and_an_older_life_are_breaches() {
        let mut events = Events::default();
        let mut told = |life, sequence| events.told(NodeId(2), id(life, sequence), false);
        assert!(told(4, 7).is_ok() && told(4, 8).is_ok());
        assert!(told(4, 10).is_err(), "9 is missing");
        assert!(told(9, 1).is_ok(), "another life of the teller");
        assert!(told(4, 11).is_err());
        let mut events = Events::default();
        assert!(events.told(NodeId(2), id(4, 7), false).is_ok());
        assert!(events.told(NodeId(2), id(4, 3), true).is_ok(), "how things are");
        assert!(events.told(NodeId(2), id(4, 7), false).is_err());
        events.node_stopped(NodeId(2));
        assert!(events.told(NodeId(2), id(4, 7), false).is_ok(), "another listener");
    }

    #[test]
    fn what_is_taken_for_new_twice_is_a_breach() {
        let mut events = Events::default();
        assert!(events.heard(NodeId(2), id(4, 7)).is_ok());
        assert!(events.heard(NodeId(3), id(4, 7)).is_ok());
        assert!(events.heard(NodeId(2), id(4, 7)).is_err());
    }
}
