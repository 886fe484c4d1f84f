//! How things are, in the form of events: for who comes late and has missed the edges (protocol 8.3, level after edge).

use std::sync::Arc;

use super::{AlarmKey, Alarm, Cause, Engine};
use crate::abroad::Interest;
use crate::class::ALARM;
use crate::event::{AlarmStep, Body, Event};
use crate::ids::{AttributeName, EventId};
use crate::value::Value;
use crate::world::{Ix, Owner};

impl Engine {
    /// The last event of every attribute and the raising of every standing alarm of what this node owns, where that is of interest. They bear
    /// the ids that they had, so whoever has seen one knows it again; and the present epoch, since it is the present owner who says so.
    pub fn levels(&self, interest: &Interest) -> Vec<Arc<Event>> {
        let is_wanted = |ix: Ix| interest.covers(self.world.object(ix).name.as_str());
        let mut levels = Vec::new();
        for (ix, object) in self.world.iter() {
            // What nodes see of each other every node sees for itself; the alarms about it are below.
            if object.owned.is_none() || object.owner == Owner::Domain || !is_wanted(ix) {
                continue;
            }
            for (attribute, cell) in object.class.attributes.iter().zip(&object.cells) {
                let Some(id) = cell.event else { continue };
                let mut event = self.level(ix, &attribute.name, id, Body::Change);
                event.new = cell.quality.is_usable().then(|| cell.value.clone()).flatten();
                event.quality = cell.quality;
                levels.push(Arc::new(event));
            }
        }
        // The domain's owner is the lowest node alive: perhaps the very one that has just come and knows nothing. So everybody tells.
        let is_told_here = |ix: Ix| self.is_owned(ix) || self.world.object(ix).owner == Owner::Domain;
        let standing = self.alarms.iter().filter(|(_, a)| a.is_active());
        for (key, alarm) in standing.filter(|(k, _)| is_told_here(k.object) && is_wanted(k.object)) {
            levels.extend(self.alarm_level(key, alarm));
        }
        levels
    }

    fn alarm_level(&self, key: &AlarmKey, alarm: &Alarm) -> Option<Arc<Event>> {
        let body = Body::Alarm { kind: key.kind.clone(), qualifier: key.qualifier.clone(), step: AlarmStep::Raised };
        let mut event = self.level(key.object, &AttributeName::new(ALARM), alarm.id?, body);
        event.new = Some(Value::Enum(AlarmStep::Raised.word().into()));
        event.severity = alarm.severity;
        event.time.wall = alarm.since;
        event.why = alarm.text.clone();
        event.policy = alarm.policy.clone();
        Some(Arc::new(event))
    }

    /// The event as it was, or, where it is forgotten, one that says no more than what is.
    fn level(&self, ix: Ix, attribute: &AttributeName, id: EventId, body: Body) -> Event {
        if let Some(event) = self.history.get(id) {
            let mut event = Event::clone(event);
            event.epoch = self.world.object(ix).owned.unwrap_or_default();
            return event;
        }
        self.draft(ix, attribute, Cause::NONE, body).into_event(id, id, self.clock)
    }
}
