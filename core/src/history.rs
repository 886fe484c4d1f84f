//! The last events, by id, so that `why` can be answered here for the whole domain.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::event::Event;
use crate::ids::{EventId, ObjectName};

/// A bounded ring of events, local and remote. The oldest go first; what is gone is named as missing, never passed over.
#[derive(Clone, Debug)]
pub struct History {
    ring: VecDeque<Arc<Event>>,
    index: BTreeMap<EventId, Arc<Event>>,
    last: BTreeMap<ObjectName, EventId>,
    events_max: usize,
    forgotten: u64,
}

/// How something came about, from the first cause to the event asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    /// First cause first.
    pub links: Vec<Link>,
}

/// One step of a [`Chain`].
#[derive(Clone, Debug, PartialEq)]
pub enum Link {
    /// It is known.
    Known(Arc<Event>),
    /// It is named as a cause and not known here (any more); what led to it is unknown too.
    Missing(EventId),
}

/// Longest chain that is followed.
pub const CHAIN_MAX: usize = 64;

impl History {
    /// An empty history for so many events.
    pub fn new(events_max: usize) -> Self {
        Self { ring: VecDeque::new(), index: BTreeMap::new(), last: BTreeMap::new(), events_max: events_max.max(1), forgotten: 0 }
    }

    /// Adds an event; one that is known already is left as it is.
    pub fn push(&mut self, event: Arc<Event>) {
        if self.index.contains_key(&event.id) {
            return;
        }
        if self.ring.len() >= self.events_max
            && let Some(oldest) = self.ring.pop_front()
        {
            self.index.remove(&oldest.id);
            self.forgotten += 1;
        }
        if let Some(last) = self.last.get_mut(&event.object) {
            *last = event.id;
        } else {
            self.last.insert(event.object.clone(), event.id);
        }
        self.index.insert(event.id, event.clone());
        self.ring.push_back(event);
    }

    /// One event.
    pub fn get(&self, id: EventId) -> Option<&Arc<Event>> {
        self.index.get(&id)
    }

    /// All events, in the order of their coming.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Event>> {
        self.ring.iter()
    }

    /// How many events it holds at most.
    pub fn events_max(&self) -> usize {
        self.events_max
    }

    /// How many events have fallen off the end.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// How an event came about.
    pub fn why(&self, id: EventId) -> Chain {
        let mut links = Vec::new();
        let mut next = Some(id);
        while let Some(id) = next {
            match self.get(id) {
                // A cause is older than its effect, so a chain ends; the bound is for a peer that says otherwise.
                Some(event) if links.len() < CHAIN_MAX => {
                    links.push(Link::Known(event.clone()));
                    next = event.cause;
                }
                _ => {
                    links.push(Link::Missing(id));
                    next = None;
                }
            }
        }
        links.reverse();
        Chain { links }
    }

    /// How the last event of an object came about; `None` if nothing of it is known.
    pub fn why_object(&self, object: &str) -> Option<Chain> {
        self.last.get(object).map(|id| self.why(*id))
    }

    /// The last event of an object that `wanted` accepts.
    pub fn last_where(&self, mut wanted: impl FnMut(&Event) -> bool) -> Option<&Arc<Event>> {
        self.ring.iter().rev().find(|e| wanted(e))
    }

    /// Events that an event led to, directly.
    pub fn effects(&self, id: EventId) -> impl Iterator<Item = &Arc<Event>> {
        self.ring.iter().filter(move |e| e.cause == Some(id))
    }
}

impl Chain {
    /// The causes that are named and not known.
    pub fn missing(&self) -> impl Iterator<Item = EventId> {
        self.links.iter().filter_map(|l| if let Link::Missing(id) = l { Some(*id) } else { None })
    }

    /// The events that are known, first cause first.
    pub fn known(&self) -> impl Iterator<Item = &Arc<Event>> {
        self.links.iter().filter_map(|l| if let Link::Known(event) = l { Some(event) } else { None })
    }
}
