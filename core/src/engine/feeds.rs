//! What other nodes tell: their events, each once; how things are there; and what of it is missing.
//!
//! The cursors here are the only ones that count. They move with the inputs that the journal records, so a replay, and the next life of
//! this node, know exactly what had been heard (protocol 8.2).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::alarms::AlarmKey;
use super::{AlarmRef, Cause, Engine, Fact, Output};
use crate::alarms::builtin;
use crate::event::{AlarmStep, Body, Event};
use crate::feed::{Cursor, Gap, Place};
use crate::ids::{EventId, NodeId, ObjectName};
use crate::time::Duration;
use crate::value::{Quality, Value};
use crate::world::{Ix, Owner};

/// Groups whose epochs are followed, those of neighbours among them, who may name as many as they like.
const SEEN_MAX: usize = 4096;
/// A peer's stamp may be so far ahead of our wall time and still be adopted (protocol 8.4).
const OFFSET_MAX: Duration = Duration::from_millis(500);

impl Engine {
    /// Goes on where an earlier life of this node had come to in the others' events.
    #[must_use]
    pub fn resume(mut self, cursors: BTreeMap<NodeId, Cursor>) -> Self {
        self.cursors = cursors;
        self
    }

    /// How far a node's events were recorded; `None` before the first word of them.
    pub fn cursor(&self, origin: NodeId) -> Option<Cursor> {
        self.cursors.get(&origin).copied()
    }

    /// The same of every node that was ever heard.
    pub fn cursors(&self) -> &BTreeMap<NodeId, Cursor> {
        &self.cursors
    }

    /// An event of another node: remembered, mirrored, and heard by policies here. Once.
    pub(super) fn on_remote(&mut self, event: Arc<Event>) {
        let place = self.cursors.entry(event.id.node).or_default().of(&event);
        if Place::from(event.id) <= *place {
            self.counts.repeats += 1;
            self.notes.touched = false;
            return;
        }
        *place = event.id.into();
        if self.history.get(event.id).is_none() {
            let is_overtaken = self.is_overtaken(&event, event.id.node);
            self.hear(event, !is_overtaken);
        }
    }

    /// How something is there. Nothing happens where that is known.
    pub(super) fn on_level(&mut self, from: NodeId, event: Arc<Event>) {
        let is_known = self.history.get(event.id).is_some();
        if self.is_overtaken(&event, from) || is_known && self.is_so(&event) {
            self.notes.touched = false;
            return;
        }
        self.hear(event, true);
    }

    /// The first word of a node, or the first after it was forgotten.
    pub(super) fn on_begin(&mut self, origin: NodeId, at: Place) {
        let cursor = self.cursors.entry(origin).or_default();
        cursor.events = cursor.events.max(at);
        cursor.readings = cursor.readings.max(at);
    }

    /// The gap is an event of this node, for whoever relied on hearing everything; the levels that follow put the values right.
    pub(super) fn on_gap(&mut self, gap: &Gap) {
        let cursor = self.cursors.entry(gap.origin).or_default();
        cursor.events = cursor.events.max(gap.to);
        let named: Arc<str> = gap.to_string().into();
        let why = format!("{} does not have them any more", gap.origin);
        self.note_feed("gap", Value::Text(named), &why);
        self.note_feed("state", Value::Enum("gap".into()), &gap.to_string());
    }

    /// What was raised there and is not among what stands there was cleared, unheard.
    pub(super) fn on_settled(&mut self, origin: NodeId, alarms: &[AlarmRef]) {
        let stands = |key: &AlarmKey, object: &ObjectName| alarms.iter().any(|a| a.object == *object && a.kind == key.kind && a.qualifier == key.qualifier);
        let over: Vec<AlarmKey> = self.alarms.keys().filter(|key| {
            let object = self.world.object(key.object);
            if object.owner == Owner::Abroad {
                let teller = self.alarms.get(key).and_then(|alarm| alarm.id).map(|id| id.node);
                return teller == Some(origin) && !stands(key, &object.name);
            }
            let is_theirs = object.owner != Owner::Domain && object.owned.is_none() && self.owner_of(object.name.as_str()) == Some(origin);
            is_theirs && !stands(key, &object.name)
        }).cloned().collect();
        for key in over {
            self.end_mirrored(&key);
        }
        self.note_feed("state", Value::Enum("complete".into()), &format!("{origin} has told how everything is"));
    }

    /// A neighbour's node cannot be heard any more: what it told is not how things are, but how they were. It tells all of it again when it can.
    /// (Of a node of this domain others take over what it owned, and tell that.)
    pub(super) fn on_unheard(&mut self, origin: NodeId) {
        if !origin.is_abroad() {
            return;
        }
        let world = self.world_mut();
        let abroad: Vec<Ix> = world.iter().filter(|(_, object)| object.owner == Owner::Abroad).map(|(ix, _)| ix).collect();
        for ix in abroad {
            for cell in &mut world.object_mut(ix).cells {
                if cell.event.is_some_and(|event| event.node == origin) && cell.quality.is_usable() {
                    cell.quality = Quality::Stale;
                }
            }
        }
    }

    /// A fact about what this node hears of the others.
    fn note_feed(&mut self, attribute: &str, value: Value, why: &str) {
        let object = ObjectName::new(format!("/nodes/{}/feed", self.me.node));
        let fact = Fact { object, attribute: attribute.into(), value: Some(value), quality: Quality::Good, cause: None, why: why.into(), shared: false, token: 0 };
        self.on_fact(fact);
    }

    /// Whether `from` itself has told something newer of the attribute: readings and other events come by different ways.
    fn is_overtaken(&self, event: &Event, from: NodeId) -> bool {
        let is_newer = |known: EventId| known.node == from && event.id.node == from && Place::from(known) > Place::from(event.id);
        matches!(event.body, Body::Change) && self.cell_of(event).is_some_and(|(_, _, known)| known.is_some_and(is_newer))
    }

    /// Whether what a level says is how it is here.
    fn is_so(&self, event: &Event) -> bool {
        match &event.body {
            Body::Change => self.cell_of(event).is_none_or(|(value, quality, _)| value == event.new.as_ref() && quality == event.quality),
            Body::Alarm { kind, qualifier, .. } => self.world.find(event.object.as_str()).is_none_or(|object| {
                let key = AlarmKey { object, kind: kind.clone(), qualifier: qualifier.clone() };
                self.alarms.get(&key).is_some_and(super::Alarm::is_active)
            }),
            _ => true,
        }
    }

    /// The usable value, the quality and the last event of what an event is about.
    fn cell_of(&self, event: &Event) -> Option<(Option<&Value>, Quality, Option<EventId>)> {
        let ix = self.world.find(event.object.as_str())?;
        let slot = self.world.object(ix).class.slot(event.attribute.as_str())?;
        let cell = self.world.cell(ix, slot);
        Some((cell.usable(), cell.quality, cell.event))
    }

    /// Receivers drop what is below the highest epoch seen (protocol 7.1). What came too late for its attribute is still an event.
    fn hear(&mut self, event: Arc<Event>, is_present: bool) {
        if let Some(group) = &event.group {
            let seen = self.seen.get(group).copied().unwrap_or_default();
            if event.epoch < seen {
                self.counts.old_epochs += 1;
                return;
            }
            if event.epoch > seen && (self.seen.len() < SEEN_MAX || self.seen.contains_key(group)) {
                self.seen.insert(group.clone(), event.epoch);
            }
        }
        let event = self.adopt_time(event);
        if self.history.get(event.id).is_none() {
            self.history.push(event.clone());
            self.outputs.push_back(Output::Heard(event.clone()));
        }
        let found = if event.id.node.is_abroad() { self.find_abroad(&event) } else { self.find(&event.object) };
        if let Some(ix) = found.filter(|_| is_present) {
            if !self.is_owned(ix) {
                self.mirror_event(ix, &event);
            } else if self.world.object(ix).owner == Owner::Domain {
                self.inherit_alarm(ix, &event);
            }
        }
        if matches!(event.body, Body::Change | Body::Alarm { .. }) && self.hearers.contains_key(&event.class) {
            self.behind.events.push_back((None, event));
        }
    }

    /// The object that a neighbour's event is about. Where there is no such class, it is an event and no more.
    fn find_abroad(&mut self, event: &Event) -> Option<Ix> {
        if let Some(ix) = self.world.find(event.object.as_str()) {
            return Some(ix);
        }
        self.world.compiled.classes.get(&event.class)?;
        let found = self.world_mut().find_or_create_abroad(&event.object, &event.class);
        if found.is_none() {
            self.counts.objects_refused += 1;
        }
        found
    }

    fn mirror_event(&mut self, ix: Ix, event: &Event) {
        match &event.body {
            // What a node sees of the others is its own business; every node looks for itself.
            Body::Change if self.world.object(ix).owner == Owner::Domain => {}
            Body::Change => {
                let object = self.world.object(ix);
                if let Some(slot) = object.class.slot(event.attribute.as_str()) {
                    let fits = event.new.as_ref().and_then(|v| object.class.attribute(slot).kind.fit(v));
                    self.mirror(ix, slot, fits, event.quality);
                    self.world_mut().cell_mut(ix, slot).event = Some(event.id);
                }
                if event.identity.is_some() {
                    self.world_mut().object_mut(ix).identity = event.identity.clone();
                }
            }
            Body::Alarm { .. } => self.mirror_alarm(ix, event),
            _ => {}
        }
    }

    /// An alarm that the domain's last owner has raised: it goes on here, the policy judges anew, and until then he may clear it himself.
    fn inherit_alarm(&mut self, ix: Ix, event: &Event) {
        let Body::Alarm { kind, qualifier, step } = &event.body else { return };
        let key = AlarmKey { object: ix, kind: kind.clone(), qualifier: qualifier.clone() };
        let is_own = self.alarms.get(&key).is_some_and(|a| a.id.is_none_or(|id| id.node == self.me.node));
        if is_own {
            return;
        }
        self.mirror_alarm(ix, event);
        if *step == AlarmStep::Raised {
            self.behind.starts.push_back(ix);
        }
    }

    /// Hybrid time follows a peer's stamp, unless that is too far ahead: then the event keeps both.
    fn adopt_time(&mut self, event: Arc<Event>) -> Arc<Event> {
        let limit = self.wall.0.saturating_add(crate::time::nanos(OFFSET_MAX));
        if event.time.wall.0 <= limit {
            self.clock = self.clock.max(event.time);
            return event;
        }
        let mut marked = (*event).clone();
        marked.received = Some(self.wall);
        let name = format!("/nodes/{}", event.id.node);
        if let Some(ix) = self.world.find(&name)
            && self.is_owned(ix)
        {
            let ahead = (event.time.wall.0 - self.wall.0) / 1_000_000;
            self.raise_own(ix, builtin::CLOCK_OFFSET, "", format!("{ahead} ms ahead of {}", self.me.node), Cause::of(&event), None);
        }
        Arc::new(marked)
    }
}
