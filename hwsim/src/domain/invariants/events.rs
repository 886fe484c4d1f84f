//! A core loop takes each event of the others once, in the order in which it happened, and none is left out without a word. And what
//! others were told of alarms and orders, their origin still knows when it comes back.
//! Source: protocol 8.2 and 8.3; `discs/src/feed.rs`.
//!
//! Judged by the cursor that the listener's journal bears out. It moves by an event, which then has to be the next one that its origin
//! made; or by a word about where events begin, or which of them are gone for good: those are not made up for here.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::Excluded;

use sixnines_core::event::Event;
use sixnines_core::feed::Place;
use sixnines_core::ids::NodeId;

/// What there was to tell, and how far everybody has come.
#[derive(Debug, Default)]
pub struct Events {
    /// By origin: all but readings, and whether others may hear of it only when it is on disk.
    made: BTreeMap<NodeId, BTreeMap<Place, bool>>,
    /// Those that their origin has forgotten in a power cut. A word of one may still be on its way, or wait at one who stands still.
    forgotten: BTreeMap<NodeId, BTreeSet<Place>>,
    /// By origin: the last event of its former lives that it knew when it came back. What it halted in the middle of, a full disk say, was
    /// never told here and is in its journal all the same.
    remembered: BTreeMap<NodeId, Place>,
    /// By listener and origin.
    cursors: BTreeMap<(NodeId, NodeId), Place>,
    /// By origin: the last event that had to be on disk and that somebody has heard.
    promised: BTreeMap<NodeId, Place>,
}

impl Events {
    pub(super) fn made(&mut self, event: &Event) {
        if !event.is_reading() {
            self.made.entry(event.id.node).or_default().insert(event.id.into(), event.waits_for_sync());
        }
    }

    pub(super) fn heard(&mut self, listener: NodeId, origin: NodeId, after: Place, at: Place, is_event: bool) -> Result<(), String> {
        let before = self.cursors.insert((listener, origin), at);
        if before.is_some_and(|before| before != after) || at < after {
            let before = before.unwrap_or(after);
            return Err(format!("{listener} had come to {origin}.{before}, and goes on from {after} to {at}"));
        }
        if !is_event {
            return Ok(());
        }
        let made = self.made.entry(origin).or_default();
        if self.forgotten.get(&origin).is_some_and(|gone| gone.contains(&at)) {
            return Ok(());
        }
        let is_remembered = self.remembered.get(&origin).is_some_and(|last| at <= *last);
        let Some(is_promise) = made.get(&at).copied().or(is_remembered.then_some(false)) else {
            return Err(format!("{listener} hears {origin}.{at}, which {origin} has not made"));
        };
        if let Some((missed, _)) = made.range((Excluded(after), Excluded(at))).next() {
            return Err(format!("{listener} hears {origin}.{at} after {after}, and {missed} was left out"));
        }
        if is_promise {
            let promised = self.promised.entry(origin).or_default();
            *promised = at.max(*promised);
        }
        Ok(())
    }

    /// What a power cut took is no more.
    pub(super) fn remembers(&mut self, node: NodeId, last: Place) -> Result<(), String> {
        let made = self.made.entry(node).or_default();
        let gone: Vec<Place> = made.keys().copied().filter(|at| at.incarnation == last.incarnation && *at > last).collect();
        made.retain(|at, _| at.incarnation != last.incarnation || *at <= last);
        self.forgotten.entry(node).or_default().extend(gone);
        self.remembered.insert(node, last);
        match self.promised.get(&node) {
            Some(promised) if promised.incarnation == last.incarnation && *promised > last => {
                Err(format!("{node} comes back and knows its events up to {last}, while others were told of {promised}"))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn node_stopped(&mut self, node: NodeId) {
        self.cursors.retain(|(listener, _), _| *listener != node);
    }
}

#[cfg(test)]
mod tests {
    use sixnines_core::event::{AlarmStep, Body};
    use sixnines_core::ids::Incarnation;

    use super::*;
    use crate::domain::invariants::testing::event;

    const ORIGIN: NodeId = NodeId(1);
    const LISTENER: NodeId = NodeId(2);

    fn place(sequence: u64) -> Place {
        Place { incarnation: Incarnation(1), sequence }
    }

    /// n1 made events 1 to 5; the third raised an alarm.
    fn events() -> Events {
        let mut events = Events::default();
        for sequence in 1..=5 {
            let raised = Body::Alarm { kind: "fan-failed".into(), qualifier: "".into(), step: AlarmStep::Raised };
            events.made(&event(sequence, if sequence == 3 { raised } else { Body::Change }, None));
        }
        events
    }

    fn hears(events: &mut Events, after: u64, at: u64) -> Result<(), String> {
        events.heard(LISTENER, ORIGIN, place(after), place(at), true)
    }

    #[test]
    fn a_hole_a_step_back_and_an_event_of_nobody_are_breaches() {
        assert!(hears(&mut events(), 1, 2).is_ok());
        assert!(hears(&mut events(), 1, 3).is_err(), "2 is left out");
        assert!(hears(&mut events(), 5, 6).is_err(), "nobody made it");
        let mut twice = events();
        assert!(hears(&mut twice, 1, 2).is_ok() && hears(&mut twice, 1, 2).is_err());
        twice.node_stopped(LISTENER);
        assert!(hears(&mut twice, 1, 2).is_ok(), "another life of the listener, whose journal lost its tail");
    }

    #[test]
    fn a_named_gap_is_none() {
        let mut events = events();
        assert!(events.heard(LISTENER, ORIGIN, place(1), place(4), false).is_ok());
        assert!(hears(&mut events, 4, 5).is_ok());
    }

    #[test]
    fn what_its_origin_found_in_its_journal_was_made() {
        let mut events = events();
        assert!(events.remembers(ORIGIN, place(6)).is_ok(), "it halted while it made the sixth");
        assert!(hears(&mut events, 5, 6).is_ok());
        assert!(hears(&mut events, 6, 7).is_err(), "nobody made it");
    }

    #[test]
    fn an_alarm_that_others_heard_and_its_origin_forgot_is_a_breach() {
        let mut events = events();
        assert!(hears(&mut events, 2, 3).is_ok() && hears(&mut events, 3, 4).is_ok());
        assert!(events.remembers(ORIGIN, place(3)).is_ok(), "4 was no alarm");
        assert!(hears(&mut events, 4, 5).is_ok(), "5 is no more, but was on its way");
        assert!(events.remembers(ORIGIN, place(2)).is_err());
    }
}
