//! The origin's end of its feeds.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use sixnines_core::abroad::Interest;
use sixnines_core::engine::AlarmRef;
use sixnines_core::event::Event;
use sixnines_core::feed::Place;
use sixnines_core::ids::{Member, NodeId};
use sixnines_core::journal::replay::Past;
use sixnines_core::time::Instant;

use super::ring::Ring;
use super::subscriber::{Row, Subscriber};
use super::wire::{Recorded, Resume};
use super::Limits;
use crate::wire::{Class, Kind};

/// What can happen to an outlet.
#[derive(Debug)]
pub enum Input {
    /// This node's life has begun; its events follow.
    Joined(Member),
    /// What its earlier lives left. Nothing is told before: who comes with an old cursor would seem to miss it.
    Past(Past),
    /// An event of this node.
    Event {
        /// It.
        event: Arc<Event>,
        /// So many records of the journal have to be synced before it may be told (protocol 8.3); 0: none.
        after: u64,
    },
    /// So many records of the journal are synced.
    Synced(u64),
    /// A node wants to hear of these objects, from its cursor on. Replaces what it wanted before.
    Subscribed {
        /// Who.
        from: NodeId,
        /// What.
        interest: Interest,
        /// From where; `None`: it knows nothing of feeds.
        resume: Option<Resume>,
    },
    /// How far a subscriber has come.
    Recorded {
        /// Who.
        from: NodeId,
        /// What it says.
        recorded: Recorded,
    },
    /// Liveness finds a node, or loses it.
    Reach {
        /// Which.
        node: NodeId,
        /// Whether it is there.
        is_reachable: bool,
    },
    /// The deadline given by [`Outlet::poll_timeout`] has passed.
    Timeout,
}

/// How everything is that a subscriber wants to hear of.
#[derive(Clone, Debug, Default)]
pub struct Levels {
    /// The last event of each attribute and the raising of each alarm.
    pub events: Vec<Arc<Event>>,
    /// The alarms that stand.
    pub alarms: Vec<AlarmRef>,
}

/// See the module's parent.
#[derive(Debug)]
pub struct Outlet {
    limits: Limits,
    ring: Ring,
    /// The last event of this life; `None` before it has begun.
    head: Option<Place>,
    has_past: bool,
    subscribers: BTreeMap<NodeId, Subscriber>,
}

impl Outlet {
    /// An outlet of a node that has not joined yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ring: Ring::default(), head: None, has_past: false, subscribers: BTreeMap::new() }
    }

    /// Takes one input. What follows from it is told by [`Outlet::pump`].
    pub fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Joined(me) => {
                self.ring.begin_life(me.incarnation);
                self.head = Some(Place { incarnation: me.incarnation, sequence: 0 });
            }
            Input::Past(past) => self.on_past(past),
            Input::Event { event, after } => self.on_event(now, event, after),
            Input::Synced(records) => self.ring.release(now, records),
            Input::Subscribed { from, interest, resume } => {
                let before = self.subscribers.get(&from);
                let new = Subscriber::new(now, interest, resume, self.head.unwrap_or_default(), before, &self.limits);
                self.subscribers.insert(from, new);
            }
            Input::Recorded { from, recorded } => {
                if let Some(subscriber) = self.subscribers.get_mut(&from) {
                    subscriber.on_recorded(now, recorded, &self.limits);
                }
            }
            Input::Reach { node, is_reachable } => {
                if let Some(subscriber) = self.subscribers.get_mut(&node) {
                    subscriber.on_reach(now, is_reachable);
                }
            }
            Input::Timeout => self.on_timeout(now),
        }
    }

    /// Tells whoever can take it what there is to tell. `levels` says how everything is that matches, at this very moment; `send` says
    /// whether the mesh took a frame: what it refuses is offered again, in its turn.
    pub fn pump(&mut self, now: Instant, mut levels: impl FnMut(&Interest) -> Levels, mut send: impl FnMut(NodeId, Class, Kind, Bytes) -> bool) {
        let Some(head) = self.head.filter(|_| self.has_past) else { return };
        for (node, subscriber) in &mut self.subscribers {
            subscriber.pump(now, &self.ring, head, &self.limits, &mut levels, &mut |class, kind, payload| send(*node, class, kind, payload));
        }
    }

    /// When [`Input::Timeout`] is wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let subscribers = self.subscribers.values().map(|s| s.poll_timeout(&self.limits)).filter(|at| at.as_nanos() < u64::MAX);
        subscribers.chain(self.ring.held_until()).min()
    }

    /// From now on so many events are kept for those who are behind.
    pub fn keep_events(&mut self, lag_events_max: usize) {
        self.limits.lag_events_max = lag_events_max;
        self.ring.trim(&self.limits);
    }

    /// How many events are kept at most.
    pub fn lag_events_max(&self) -> usize {
        self.limits.lag_events_max
    }

    /// Every subscriber, for people.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        self.subscribers.iter().map(|(node, s)| s.row(*node, &self.ring))
    }

    fn on_past(&mut self, past: Past) {
        if self.has_past {
            return;
        }
        self.has_past = true;
        self.ring.put_before(past, &self.limits);
    }

    fn on_event(&mut self, now: Instant, event: Arc<Event>, after: u64) {
        let at = Place::from(event.id);
        self.head = Some(at);
        if after > 0 {
            self.ring.hold(now, at, after, &self.limits);
        }
        if !event.is_reading() {
            return self.ring.push(event, &self.limits);
        }
        for subscriber in self.subscribers.values_mut().filter(|s| s.wants(&event)) {
            subscriber.wait(&event, &self.limits);
        }
    }

    fn on_timeout(&mut self, now: Instant) {
        self.ring.release(now, 0);
        let expires_after = self.limits.expires_after;
        self.subscribers.retain(|node, s| {
            let is_over = s.lost_since.is_some_and(|since| since + expires_after <= now);
            if is_over {
                tracing::info!(%node, "a subscriber has been out of reach for too long: what it has not heard is not kept for it");
            }
            !is_over
        });
        for subscriber in self.subscribers.values_mut() {
            subscriber.on_timeout(now, &self.limits);
        }
    }
}
