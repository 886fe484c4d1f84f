//! How far a node has come in the events of each other node, and what it was told that it misses.
//!
//! An event's place among those of its origin is its incarnation and sequence. Every subscriber records what it is told as an input of its
//! core loop, and its cursor follows from these records alone (protocol 8.2): effect and cursor cannot part, not by a crash either.
//!
//! Two rows of events, each in order: *readings* (numbers, which may be overtaken by newer ones) and all others, none of which may be left
//! out. A cursor has a place in both.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::event::{Body, Event};
use crate::ids::{EventId, Incarnation, NodeId};
use crate::value::Value;

/// A place among the events of one node, over all its lives. The default is before everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The life.
    pub incarnation: Incarnation,
    /// The number within it; 0: before its first event.
    pub sequence: u64,
}

impl Place {
    /// Before the first event of a life.
    pub fn before(incarnation: Incarnation) -> Self {
        Self { incarnation, sequence: 0 }
    }

    /// The next one of the same life.
    #[must_use]
    pub fn next(self) -> Self {
        Self { sequence: self.sequence.saturating_add(1), ..self }
    }
}

impl From<EventId> for Place {
    fn from(id: EventId) -> Self {
        Self { incarnation: id.incarnation, sequence: id.sequence }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.incarnation, self.sequence)
    }
}

/// How far a subscriber has recorded one origin's events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Of all but readings: everything up to here was recorded, or is in a gap that was.
    pub events: Place,
    /// Of readings: the newest that was recorded.
    pub readings: Place,
}

impl Cursor {
    /// The place in the event's row.
    pub fn of(&mut self, event: &Event) -> &mut Place {
        if event.is_reading() { &mut self.readings } else { &mut self.events }
    }
}

/// Events that a subscriber will never get: from one place to another, both part of it, over every life between them. Readings and what it
/// had not asked for are counted in. An end with sequence 0 is before the first event of its life.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Gap {
    /// Of which node.
    pub origin: NodeId,
    /// The first.
    pub from: Place,
    /// The last.
    pub to: Place,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, from, to } = self;
        match to.sequence {
            0 => write!(f, "{origin}.{from} to the end of the lives before {origin}.{}", to.incarnation),
            _ => write!(f, "{origin}.{from} to {origin}.{to}"),
        }
    }
}

impl Event {
    /// Whether a newer event of the same attribute makes this one worthless: a number as a sensor showed it.
    pub fn is_reading(&self) -> bool {
        matches!((&self.body, &self.new), (Body::Change, Some(Value::Int(_) | Value::Float(_)))) && self.severity == crate::alarms::Severity::Cleared
    }
    /// Whether others may hear of it only when it is on disk here: alarms and what roles are about (protocol 8.3).
    pub fn waits_for_sync(&self) -> bool {
        let is_role = || matches!(self.attribute.as_str(), "active" | "epoch") && self.object.as_str().starts_with("/services/");
        matches!(self.body, Body::Alarm { .. } | Body::Control) || matches!(self.body, Body::Change) && is_role()
    }
}
