//! Events to and from the other nodes: the core loop between its engine, which counts, and the feeds' machines, which tell.

use std::collections::BTreeMap;

use sixnines_core::abroad::Interest;
use sixnines_core::domain::limits::Limit;
use sixnines_core::engine::{self, AlarmRef, Engine};
use sixnines_core::feed::{Cursor, Place};
use sixnines_core::ids::{Member, NodeId};
use sixnines_core::time::{Duration, Instant};
use sixnines_core::value::{Quality, Value};
use sixnines_discs::feed::wire::{Resume, Word};
use sixnines_discs::feed::{self, Inlet, Levels, Limits, Outlet};
use sixnines_discs::wire::{Class, Kind};

use super::{CoreLoop, node_object};
use super::ways::Ways;
use crate::api::FeedRow;

/// Both ends of this node's feeds, and where an earlier life of it had come to.
pub(crate) struct Feeds {
    pub(super) outlet: Outlet,
    pub(super) inlet: Inlet,
    /// What the journal of the last life says, until this one has begun.
    cursors: BTreeMap<NodeId, Cursor>,
    /// This node's own file says how much is kept for those who are behind; else it is as the domain says.
    has_own_lag: bool,
    /// How far the furthest is behind, as it was last shown, and when it is looked after again.
    behind: usize,
    look_at: Instant,
}

/// How often it is looked after who is behind.
const LOOK_EVERY: Duration = Duration::from_secs(5);

impl Feeds {
    /// Feeds with these bounds, that go on at these places in the others' events.
    pub(crate) fn new(limits: Limits, cursors: BTreeMap<NodeId, Cursor>) -> Self {
        Self { outlet: Outlet::new(limits.clone()), inlet: Inlet::new(limits), cursors, has_own_lag: false, behind: 0, look_at: Instant::ZERO }
    }

    /// The same, whose bounds are this node's own.
    pub(crate) fn with_own_lag(self, has_own_lag: bool) -> Self {
        Self { has_own_lag, ..self }
    }

    /// Other limits are in force.
    pub(super) fn follow(&mut self, limits: &sixnines_core::domain::limits::Limits) {
        let lag = limits.count(Limit::SubscriberLagEvents);
        if !self.has_own_lag && lag != self.outlet.lag_events_max() {
            self.outlet.keep_events(lag);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [self.outlet.poll_timeout(), self.inlet.poll_timeout()].into_iter().flatten().min()
    }

    /// This node's life has begun.
    pub(super) fn begin(&mut self, now: Instant, me: Member) -> BTreeMap<NodeId, Cursor> {
        self.outlet.handle(now, feed::Input::Joined(me));
        std::mem::take(&mut self.cursors)
    }
}

impl<W: Ways> CoreLoop<W> {
    /// A word of a peer. Before this node's life has begun nothing was asked for.
    pub(super) fn on_word(&mut self, now: Instant, from: NodeId, word: Word) {
        let Some(engine) = &self.engine else { return };
        if let Some(input) = self.feeds.inlet.hear(now, from, engine.cursor(from), word) {
            self.feed_engine(now, input);
        }
    }

    /// A plain event of a node that knows nothing of feeds; it may be how something is as well as a change.
    pub(super) fn on_plain(&mut self, now: Instant, from: NodeId, event: Box<sixnines_core::event::Event>) {
        self.feeds.inlet.answered(from);
        self.feed_engine(now, engine::Input::Level { from, event: event.into() });
    }

    /// Asks a node for everything that has not been recorded of it.
    pub(super) fn subscribe(&mut self, now: Instant, to: NodeId) {
        let Some(engine) = &self.engine else { return };
        let cursor = engine.cursor(to).filter(|c| c.events != Place::default());
        self.feeds.inlet.subscribed(now, to);
        self.ways.subscribe(to, Resume { cursor });
    }

    /// How far this node has recorded a peer's events.
    pub(crate) fn cursor(&self, of: NodeId) -> Place {
        self.engine.as_ref().and_then(|e| e.cursor(of)).unwrap_or_default().events
    }

    /// After each input: what there is to tell is told, what was recorded is acknowledged.
    pub(super) fn move_feeds(&mut self, now: Instant) {
        self.show_behind(now);
        for node in self.feeds.inlet.take_missing(now) {
            tracing::debug!(%node, "something of its events is missing: asks again");
            self.subscribe(now, node);
        }
        let Some(engine) = &self.engine else { return };
        let journalled = self.ways.journalled();
        let outlet = &mut self.feeds.outlet;
        outlet.handle(now, feed::Input::Synced(journalled.synced));
        if outlet.poll_timeout().is_some_and(|at| at <= now) {
            outlet.handle(now, feed::Input::Timeout);
        }
        let ways = &mut self.ways;
        outlet.pump(now, |interest| levels(engine, interest), |to, class, kind, payload| ways.send(to, class, kind, payload));
        for (to, recorded) in self.feeds.inlet.acknowledge(now, journalled.handed, journalled.written, engine.cursors()) {
            if !ways.send(to, Class::Control, Kind::CURSOR, recorded.encode()) {
                tracing::debug!(%to, "an acknowledgement was not taken; the events come again");
            }
        }
    }

    /// How far the furthest is behind is a reading of this node: it keeps nobody from catching up.
    fn show_behind(&mut self, now: Instant) {
        if now < self.feeds.look_at || self.engine.is_none() {
            return;
        }
        self.feeds.look_at = now + LOOK_EVERY;
        let behind = self.feeds.outlet.rows().map(|row| row.behind).max().unwrap_or(0);
        if behind != std::mem::replace(&mut self.feeds.behind, behind) {
            let value = Value::Int(i64::try_from(behind).unwrap_or(i64::MAX));
            self.observe(now, &format!("{}/feed", node_object(self.me)), "behind", Some(value), Quality::Good, None, "", false);
        }
    }

    /// How far each peer is in our events, and we in theirs.
    pub(super) fn feed_rows(&self) -> Vec<FeedRow> {
        let heard = |node| self.engine.as_ref().and_then(|e| e.cursor(node)).map(|c| c.events.to_string());
        let rows = self.feeds.outlet.rows().map(|row| FeedRow {
            node: row.node,
            behind: row.behind,
            coalesced: row.coalesced,
            gaps: row.gaps,
            is_lost: row.is_lost,
            heard: heard(row.node),
        });
        rows.collect()
    }
}

fn levels(engine: &Engine, interest: &Interest) -> Levels {
    let standing = engine.alarms().filter(|(_, a)| a.is_active()).map(|(key, _)| AlarmRef {
        object: engine.world().object(key.object).name.clone(),
        kind: key.kind.clone(),
        qualifier: key.qualifier.clone(),
    });
    Levels { events: engine.levels(interest), alarms: standing.filter(|a| interest.allows(a.object.as_str())).collect() }
}
