//! What this node uses of its limits, as objects: `/nodes/nX/limits` is its own, `/domain/limits` has the highest of all nodes that are alive.
//!
//! All that is bounded is a node's, so the domain's object is a view: each node makes it of what it knows of the others, and its owner alone
//! tells of it. It is looked at in the loop's own turns, so nobody is woken for it, and a use is a reading that is made only when it has
//! moved noticeably. What comes and goes within a look (a driver's busiest second, a policy's longest call) is shown as the most of
//! the last minute.

use std::collections::{BTreeMap, VecDeque};

use crossbeam::channel::Sender;
use sixnines_core::authority::Principal;
use sixnines_core::domain::Entry;
use sixnines_core::domain::config::DomainConfig;
use sixnines_core::domain::limits::{Limit, Row, TABLE, unknown};
use sixnines_core::ids::NodeId;
use sixnines_core::time::{Duration, Instant};
use sixnines_core::value::{Quality, Value};

use super::answers::{fail_help, say};
use super::ways::Ways;
use super::{CoreLoop, node_object, word};
use crate::api::{LimitRow, Reply};

/// What the parts around the core loop use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Uses {
    pub(crate) journal_bytes: u64,
    /// Applications that are connected, and how many were refused for want of room.
    pub(crate) clients: u64,
    pub(crate) clients_refused: u64,
    /// Readings in the busiest second of any driver since the last look, and how many had to wait.
    pub(crate) driver_events: u64,
    pub(crate) driver_held: u64,
}

/// What was shown, and what of it has to be remembered.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    look_at: Instant,
    /// By object and attribute: the domain's or this node's own, a use or a bound.
    shown: BTreeMap<(bool, bool, Limit), u64>,
    recent: BTreeMap<Limit, VecDeque<u64>>,
    /// How often something had no room, when it was last looked.
    refused: BTreeMap<Limit, u64>,
    /// Something had no room not long ago; it counts as over then.
    reached_until: Option<Instant>,
    state: Option<&'static str>,
}

const LOOK_EVERY: Duration = Duration::from_secs(5);
/// So many looks are a minute.
const RECENT: usize = 12;
/// Nothing was left out for so long: it is over.
const QUIET: Duration = Duration::from_secs(60);

impl Gauges {
    /// The most of the last minute.
    fn lately(&mut self, limit: Limit, now: u64) -> u64 {
        let recent = self.recent.entry(limit).or_default();
        if recent.len() == RECENT {
            recent.pop_front();
        }
        recent.push_back(now);
        recent.iter().copied().max().unwrap_or(now)
    }

    /// What had no room since the last look, for people.
    fn left_out(&mut self, refused: [(Limit, u64); 3]) -> Option<String> {
        let mut said = Vec::new();
        for (limit, count) in refused {
            let fresh = count.saturating_sub(self.refused.insert(limit, count).unwrap_or(0));
            if fresh > 0 {
                said.push(format!("{}: {fresh} times no room", limit.row().name));
            }
        }
        (!said.is_empty()).then(|| said.join(", "))
    }
}

impl<W: Ways> CoreLoop<W> {
    /// Other limits may be in force: what is bounded here follows.
    pub(super) fn follow_limits(&mut self, now: Instant) {
        let limits = self.domain.config.limits.clone();
        self.feeds.follow(&limits);
        if self.engine.as_ref().is_some_and(|engine| *engine.limits() != limits) {
            self.feed_engine(now, sixnines_core::engine::Input::Limits(limits));
        }
    }

    /// Called in every turn; looks once in a while.
    pub(super) fn show_limits(&mut self, now: Instant) {
        let is_wanted = || self.engine.as_ref().is_some_and(|e| e.world().compiled.class_for(DOMAIN_LIMITS).is_some());
        if now < self.gauges.look_at || !is_wanted() {
            return;
        }
        let Some(uses) = self.ways.uses() else { return };
        self.gauges.look_at = now + LOOK_EVERY;
        self.show_state(now, uses);
        for row in TABLE {
            let (used, bound) = (self.used(row.limit, uses), self.bound(row.limit));
            self.show(now, false, row.limit, used, bound);
        }
        for row in TABLE {
            let highest = self.highest(row.limit);
            self.show(now, true, row.limit, highest, self.domain.config.limits.of(row.limit));
        }
    }

    /// Every limit with its use, for people.
    pub(super) fn limit_rows(&self) -> Vec<LimitRow> {
        let row = |row: &Row| LimitRow {
            name: row.name.to_owned(),
            used: self.told(DOMAIN_LIMITS, row.limit),
            bound: self.domain.config.limits.of(row.limit),
            default: row.default,
            min: row.min,
            max: row.max,
            unit: row.unit.to_owned(),
            at_bound: row.at_bound.to_owned(),
        };
        TABLE.iter().map(row).collect()
    }

    /// Other bounds, if they can be and what is law has room within them.
    pub(super) fn set_limits(&mut self, now: Instant, bounds: &[(String, Option<u64>)], message: &str, principal: &Principal, reply: Sender<Reply>) {
        let present = self.domain.config.limits.clone();
        let mut limits = present.clone();
        let (mut done, mut back) = (Vec::new(), Vec::new());
        for (name, bound) in bounds {
            let Some(limit) = Limit::named(name) else { return say(&reply, fail_help("unknown-limit", unknown(name), "nines limits list", 2)) };
            limits = limits.with(limit, *bound);
            done.push(format!("{name} {} -> {}", present.of(limit), limits.of(limit)));
            back.push(format!("{name}={}", present.of(limit)));
        }
        let config = DomainConfig { limits: limits.clone(), ..self.domain.config.clone() };
        if let Err(wrong) = config.check() {
            return say(&reply, fail_help("bad-limit", wrong.to_string(), "nines limits list", 2));
        }
        let over = self.engine.as_ref().and_then(|e| e.world().compiled.exceeds(&limits).into_iter().next());
        if let Some(over) = over {
            return say(&reply, fail_help("over-limit", format!("the policies in force need more: {}", over.message), "nines policy apply with fewer, then this", 4));
        }
        if limits == present {
            return say(&reply, Reply::Done { text: "the limits are so already: nothing to do".into() });
        }
        let said = done.join(", ");
        let cause = self.requested(now, &format!("{} changes limits: {said}{}{message}", principal.name, if message.is_empty() { "" } else { "; " }));
        let expected = self.domain.config_version;
        self.propose_for(now, Entry::Limits { expected, limits }, cause, format!("{said}. Back: nines limits set {}", back.join(" ")), reply);
    }

    fn used(&mut self, limit: Limit, uses: Uses) -> u64 {
        let Some(engine) = &self.engine else { return 0 };
        let compiled = &engine.world().compiled;
        let now = match limit {
            Limit::Objects => return engine.world().objects_count() as u64,
            Limit::AttributesPerObject => return compiled.most_attributes() as u64,
            Limit::JournalBytes => return uses.journal_bytes,
            Limit::SdkClients => return uses.clients,
            Limit::DriverEventsPerSecond => uses.driver_events,
            Limit::SubscriberLagEvents => self.feeds.outlet.rows().map(|row| row.behind as u64).max().unwrap_or(0),
            Limit::PolicyTimeUs => u64::try_from(compiled.watch.take_longest().as_micros()).unwrap_or(u64::MAX),
            Limit::PolicyOperations => compiled.watch.take_most(),
        };
        self.gauges.lately(limit, now)
    }

    /// What holds here: a node's own file may say how much it keeps for those who are behind.
    fn bound(&self, limit: Limit) -> u64 {
        match limit {
            Limit::SubscriberLagEvents => self.feeds.outlet.lag_events_max() as u64,
            _ => self.domain.config.limits.of(limit),
        }
    }

    /// The highest use of any node that is alive, as far as it is known here.
    fn highest(&self, limit: Limit) -> u64 {
        let is_lost = |node: &NodeId| *node != self.me && self.verdicts.get(node).is_none_or(|v| v.is_lost());
        let nodes = self.domain.config.nodes.iter().map(|n| n.id).filter(|n| !is_lost(n));
        nodes.filter_map(|n| self.told(&own_limits(n), limit)).max().unwrap_or(0)
    }

    /// A use as an object has it.
    fn told(&self, object: &str, limit: Limit) -> Option<u64> {
        let world = self.engine.as_ref()?.world();
        let ix = world.find(object)?;
        match world.cell(ix, world.object(ix).class.slot(limit.row().name)?).usable()? {
            Value::Int(used) => u64::try_from(*used).ok(),
            _ => None,
        }
    }

    fn show(&mut self, now: Instant, is_domain: bool, limit: Limit, used: u64, bound: u64) {
        let row = limit.row();
        let object = if is_domain { DOMAIN_LIMITS.to_owned() } else { own_limits(self.me) };
        let is_new = |shown: Option<&u64>| row.is_noticeable(shown.copied(), used, bound);
        if is_new(self.gauges.shown.get(&(is_domain, false, limit))) {
            self.gauges.shown.insert((is_domain, false, limit), used);
            self.observe(now, &object, row.name, int(used), Quality::Good, None, "", is_domain);
        }
        if self.gauges.shown.insert((is_domain, true, limit), bound) != Some(bound) {
            self.observe(now, &object, &format!("{}_max", row.name), int(bound), Quality::Good, None, "", is_domain);
        }
    }

    /// Whether something had no room. A policy makes an alarm of it.
    fn show_state(&mut self, now: Instant, uses: Uses) {
        let objects = self.engine.as_ref().map_or(0, |e| e.counts().objects_refused);
        let refused = [(Limit::Objects, objects), (Limit::DriverEventsPerSecond, uses.driver_held), (Limit::SdkClients, uses.clients_refused)];
        let left_out = self.gauges.left_out(refused);
        if left_out.is_some() {
            self.gauges.reached_until = Some(now + QUIET);
        }
        self.gauges.reached_until.take_if(|until| now >= *until);
        let state = if self.gauges.reached_until.is_some() { "reached" } else { "within" };
        if self.gauges.state.replace(state) != Some(state) {
            let why = left_out.unwrap_or_else(|| "nothing was left out lately".to_owned());
            self.observe(now, &own_limits(self.me), "state", Some(word(state)), Quality::Good, None, &why, false);
        }
    }
}

const DOMAIN_LIMITS: &str = "/domain/limits";

fn own_limits(node: NodeId) -> String {
    format!("{}/limits", node_object(node))
}

fn int(count: u64) -> Option<Value> {
    Some(Value::Int(i64::try_from(count).unwrap_or(i64::MAX)))
}
