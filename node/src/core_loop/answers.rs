//! Answers to people: what the core loop knows, in the words of the API.

use std::collections::BTreeMap;
use std::sync::Arc;

use crossbeam::channel::{Sender, TrySendError};
use sixnines_core::authority::{self, Principal};
use sixnines_core::bundle::compile_bundle;
use sixnines_core::class::{Kind, Pattern};
use sixnines_core::domain::admission::{Fingerprint, Refusal};
use sixnines_core::domain::config::{Bundle, NodeConfig};
use sixnines_core::domain::feature::Level;
use sixnines_core::domain::{Change, Domain, Entry, Proposal, Void};
use sixnines_core::engine::{self, AlarmRef, Command, CommandBody, CommandError, CommandId, Engine};
use sixnines_core::event::Event;
use sixnines_core::history::{Chain, Link};
use sixnines_core::ids::{Epoch, EventId, GroupName, NodeId};
use sixnines_core::roles::{self, Wish};
use sixnines_core::time::{Duration, Instant, WallTime};
use sixnines_core::value::{Quality, Value};
use sixnines_core::world::Object;
use sixnines_discs::liveness::Verdict;
use sixnines_discs::log::{Place, ProposeError};

use super::ways::Ways;
use super::{CoreLoop, node_object};
use crate::api::{Admitted, AlarmRow, AttributeRow, Call, EventRow, Failure, InLog, LogRow, Missed, NodeRow, ObjectRow, PolicyRow, Reply, ServiceRow, Status, WhyStory, clock_text};

/// A question on its way to the core loop.
pub(crate) struct Ask {
    pub(crate) call: Call,
    pub(crate) principal: Principal,
    pub(crate) reply: Sender<Reply>,
}

/// Somebody who follows events. Who cannot keep up misses some, and is told which.
pub(crate) struct Watcher {
    pattern: Pattern,
    reply: Sender<Reply>,
    missed: Option<Missed>,
}

impl Watcher {
    fn new(pattern: Pattern, reply: Sender<Reply>) -> Self {
        Self { pattern, reply, missed: None }
    }

    /// False when nobody reads any more.
    pub(crate) fn tell(&mut self, event: &Arc<Event>) -> bool {
        if !self.pattern.matches(event.object.as_str()) {
            return true;
        }
        if let Some(missed) = &self.missed {
            match self.reply.try_send(Reply::Missed(missed.clone())) {
                Ok(()) => self.missed = None,
                Err(TrySendError::Full(_)) => return self.miss(event),
                Err(TrySendError::Disconnected(_)) => return false,
            }
        }
        match self.reply.try_send(Reply::Event(EventRow::of(event))) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => self.miss(event),
            Err(TrySendError::Disconnected(_)) => false,
        }
    }

    fn miss(&mut self, event: &Event) -> bool {
        let missed = self.missed.get_or_insert(Missed { count: 0, first: event.id, last: event.id });
        missed.count += 1;
        missed.last = event.id;
        true
    }
}

/// An operator who waits for a role to move, or for an entry to be applied.
pub(crate) struct WaitingWish {
    until: Instant,
    reply: Sender<Reply>,
    waits_for: WaitsFor,
}

enum WaitsFor {
    Role { group: GroupName, epoch: Epoch, cause: EventId },
    Entry { proposal: Box<Proposal>, again_at: Option<Instant>, done: String },
    Command { id: CommandId, done: String },
}

/// Tickets of operators' proposals from here on.
const ASK_TICKETS: u64 = 1 << 56;
/// An entry that may have died with its leader is proposed again after so long.
const PROPOSE_AGAIN: Duration = Duration::from_millis(100);
/// An operator's wish is answered within so long, one way or the other.
const WISH_MAX: Duration = Duration::from_secs(4);

impl<W: Ways> CoreLoop<W> {
    pub(crate) fn answer(&mut self, now: Instant, ask: Ask) {
        let Ask { call, principal, reply } = ask;
        if let Err(refused) = authority::decide(&principal, call.wanted()) {
            return say(&reply, fail("refused", refused.to_string(), 4));
        }
        match call {
            Call::Status => say(&reply, Reply::Status(Box::new(self.status()))),
            Call::List { pattern } => self.list(now, &pattern, &reply),
            Call::Get { name } => self.get(now, &name, &reply),
            Call::Watch { pattern } => match parse(&pattern) {
                Ok(pattern) => self.ways.watch(Watcher::new(pattern, reply)),
                Err(failure) => say(&reply, *failure),
            },
            Call::Events { last, pattern } => self.events(last, &pattern, &reply),
            Call::Why { what } => say(&reply, self.why(&what)),
            Call::Alarms => say(&reply, Reply::Alarms(self.alarms())),
            Call::PolicyList => say(&reply, self.policies()),
            Call::Switchover { service, to } => self.move_role(now, Wish::Switchover { group: GroupName::new(&service), to }, &service, &principal, reply),
            Call::StartService { service } => self.move_role(now, Wish::Start { group: GroupName::new(&service) }, &service, &principal, reply),
            Call::NodeReplace { node } => self.give_up_disk(now, node, &principal, reply),
            Call::NodeExpel { node, force } => self.expel(now, node, force, &principal, reply),
            Call::NodeForget { node } => self.forget(now, node, &principal, reply),
            Call::Invite { token, seat, expires } => self.invite(now, token, *seat, expires, &principal, reply),
            Call::Admit { node, token, key, reads } => match self.domain.check_level(reads) {
                Ok(()) => self.admit(now, node, token, key, &principal, reply),
                Err(why) => say(&reply, fail_help("too-old", why.to_string(), "the same token counts with a newer build: nines join TOKEN --dir DIR", 4)),
            },
            Call::NodeInvite { .. } | Call::NodeRenew => say(&reply, fail("not-here", "that is the door's business, not the core loop's".into(), 2)),
            Call::Limits => say(&reply, Reply::Limits(self.limit_rows())),
            Call::Feature => say(&reply, Reply::Feature(self.features())),
            Call::FeatureRaise { level, message } => self.raise_level(now, level.map(Level), &message, &principal, reply),
            Call::LimitsSet { bounds, message } => self.set_limits(now, &bounds, &message, &principal, reply),
            Call::PolicyApply { files, message } => self.apply_bundle(now, files, &message, &principal, reply),
            Call::Set { name, attribute, value, lease_s, reason } => self.set(now, &name, &attribute, &value, lease_s, reason, principal, reply),
            Call::Unset { name, attribute } => {
                let body = CommandBody::Release { object: name.as_str().into(), control: attribute.as_str().into() };
                self.command(now, principal, body, format!("{name} {attribute}: the hold is given up"), reply);
            }
            Call::AlarmAck { object, kind } => {
                let body = CommandBody::Acknowledge { alarm: alarm_ref(&object, &kind), text: String::new() };
                self.command(now, principal, body, format!("{kind} of {object} is acknowledged"), reply);
            }
            Call::AlarmShelve { object, kind, for_s } => {
                let body = CommandBody::Shelve { alarm: alarm_ref(&object, &kind), expires: Duration::from_secs(for_s), text: String::new() };
                self.command(now, principal, body, format!("{kind} of {object} is put aside for {for_s} s"), reply);
            }
            Call::Inject { .. } | Call::InjectClear { .. } | Call::InjectList { .. } => {
                say(&reply, fail("not-here", "faults are injected into the chassis, not into the core loop".into(), 2));
            }
        }
    }

    fn status(&self) -> Status {
        let (rights, suspensions) = self.ways.standing();
        let domain = &self.domain;
        let rows = |is_service: bool| -> Vec<ServiceRow> {
            domain.groups.iter().filter(|(name, _)| domain.config.service(name).is_some() == is_service).map(|(name, row)| {
                let active = row.active.filter(|m| domain.is_current(*m));
                let is_serving = active.is_some_and(|m| self.is_alive(m.node) && !(m.node == self.me && self.is_suspended));
                let standby: Vec<_> = row.in_sync.iter().filter(|m| Some(**m) != active && domain.is_current(**m) && self.is_alive(m.node)).map(|m| m.node).collect();
                let once = active.filter(|_| domain.config.requires_fence(name)).map(|a| format!(" once {} is known to be off", a.node)).unwrap_or_default();
                let if_active_dies = match (active.and_then(|a| self.undecided_without(a.node)), standby.first()) {
                    (_, None) => "stops".to_owned(),
                    (Some(why), Some(_)) => format!("stops: {why}"),
                    (None, Some(next)) => format!("{next} takes over{once}, 0 acknowledged writes lost"),
                };
                let wants_standby = domain.config.candidates(name).len() > 1;
                ServiceRow { name: name.clone(), wants_standby, active: active.map(|m| m.node), standby, epoch: row.epoch, is_serving, if_active_dies, waits: self.fence_wait(name).map(|(text, _)| text) }
            }).collect()
        };
        let (services, chassis) = (rows(true), rows(false));
        let has_standbys = services.iter().chain(&chassis).filter(|r| r.wants_standby).all(|r| r.is_serving && !r.standby.is_empty());
        let undecided = self.undecided_without_any();
        let nodes = domain.config.nodes.iter().map(|node| NodeRow {
            id: node.id,
            chassis: node.chassis.to_string(),
            state: self.state_of(node.id).to_owned(),
            links: self.links.get(&node.id).cloned().unwrap_or_default(),
            serial: self.serial_row(node.id),
            is_leader: self.leader == Some(node.id),
            is_witness: node.witness,
            log: match self.places.get(&node.id) {
                Some(Place { is_stranger: true, .. }) => InLog::KeptOut,
                Some(Place { disk: 0, .. }) | None => InLog::Unknown,
                Some(Place { is_voter: true, .. }) => InLog::Votes,
                Some(Place { is_voter: false, .. }) => InLog::Learns,
            },
            certificate: self.certificate_of(node.id),
            connections: self.ways.connections(node.id),
        });
        let mut alarms = BTreeMap::new();
        for alarm in self.engine.iter().flat_map(Engine::alarms).map(|(_, a)| a).filter(|a| a.is_active()) {
            *alarms.entry(alarm.severity.to_string()).or_default() += 1;
        }
        Status {
            domain: domain.config.domain.clone(),
            node: self.me,
            at: clock_text(self.wall),
            profile: domain.config.profile.word().to_owned(),
            feature_level: domain.level,
            is_serving: services.iter().all(|r| r.is_serving) && domain.config_version.0 > 0,
            is_redundant: has_standbys && undecided.is_none() && domain.config_version.0 > 0,
            undecided,
            services,
            chassis,
            nodes: nodes.collect(),
            alarms,
            log: LogRow { leader: self.leader, applied: domain.applied.0 },
            policies: domain.bundle_version.0,
            rights,
            suspensions,
            late_us: self.ways.lateness(),
            feeds: self.feed_rows(),
            neighbours: self.neighbour_rows(),
        }
    }

    /// For people, and for who waits until a domain is whole.
    fn state_of(&self, node: NodeId) -> &'static str {
        match self.verdicts.get(&node) {
            _ if self.domain.is_expelled(node) => "expelled",
            _ if self.is_alive(node) => if self.has_joined(node) { "up" } else { "joining" },
            _ if self.is_cut_off(node) => super::serial::CUT_OFF,
            verdict => verdict.map_or("unknown", |v| v.as_str()),
        }
    }

    fn certificate_of(&self, node: NodeId) -> Option<String> {
        let world = self.engine.as_ref()?.world();
        let object = world.object(world.find(&format!("{}/certificate", node_object(node)))?);
        let slot = object.class.attributes.iter().position(|a| a.name.as_str() == "until")?;
        object.cells.get(slot)?.value.as_ref().map(ToString::to_string)
    }

    fn list(&self, now: Instant, pattern: &str, reply: &Sender<Reply>) {
        let pattern = match parse(pattern) {
            Ok(pattern) => pattern,
            Err(failure) => return say(reply, *failure),
        };
        let rows = self.engine.iter().flat_map(|e| e.world().iter()).filter(|(_, o)| pattern.matches(o.name.as_str())).map(|(_, o)| self.object_row(now, o));
        say(reply, Reply::Objects(rows.collect()));
    }

    fn get(&self, now: Instant, name: &str, reply: &Sender<Reply>) {
        let found = self.engine.as_ref().and_then(|e| e.world().find(name).map(|ix| self.object_row(now, e.world().object(ix))));
        match found {
            Some(row) => say(reply, Reply::Objects(vec![row])),
            None => say(reply, fail_help("unknown-object", format!("there is no object {name}"), "nines ls shows them all", 2)),
        }
    }

    fn object_row(&self, now: Instant, object: &Object) -> ObjectRow {
        let attributes = object.class.attributes.iter().zip(&object.cells).map(|(attribute, cell)| {
            let control = self.engine.as_ref().and_then(|e| e.control(object.name.as_str(), attribute.name.as_str()));
            let claim = control.and_then(|c| c.strongest(attribute));
            let row = AttributeRow {
                value: cell.value.clone(),
                unit: attribute.unit.as_ref().map(ToString::to_string).unwrap_or_default(),
                quality: cell.quality,
                age_ms: u64::try_from(now.since(cell.read_at).as_millis()).unwrap_or(u64::MAX),
                claimed_by: claim.map(|c| format!("{} at {}: {}", c.by, c.value, c.reason)),
            };
            (attribute.name.to_string(), row)
        });
        ObjectRow { name: object.name.to_string(), class: object.class.name.to_string(), attributes: attributes.collect() }
    }

    fn events(&self, last: usize, pattern: &str, reply: &Sender<Reply>) {
        let pattern = match parse(pattern) {
            Ok(pattern) => pattern,
            Err(failure) => return say(reply, *failure),
        };
        let events = self.engine.iter().flat_map(|e| e.history().iter().rev()).filter(|e| pattern.matches(e.object.as_str()));
        let mut rows: Vec<EventRow> = events.take(last).map(|e| EventRow::of(e)).collect();
        rows.reverse();
        say(reply, Reply::Events(rows));
    }

    /// By id, by object, by service: the newest change that matters, and all that led to it.
    fn why(&self, what: &str) -> Reply {
        let Some(engine) = &self.engine else { return fail("not-joined", "this node has not joined yet".into(), 3) };
        let history = engine.history();
        let service = format!("/services/{what}");
        let chain = if let Ok(id) = what.parse() {
            history.get(id).map(|_| history.why(id))
        } else if let Some((_, Some(object))) = self.fence_wait(&GroupName::new(what)) {
            history.why_object(&object)
        } else if engine.world().find(&service).is_some() {
            history.last_where(|e| e.object.as_str() == service && matches!(e.attribute.as_str(), "active" | "speaks")).map(|e| history.why(e.id))
        } else if what.starts_with('n') && engine.world().find(&format!("/nodes/{what}")).is_some() {
            history.why_object(&format!("/nodes/{what}"))
        } else {
            history.why_object(what)
        };
        match chain {
            Some(chain) => Reply::Why(story(what, &chain)),
            None => fail_help("unknown", format!("nothing is known here of {what}"), "an event's id (n3.1.990), an object's name (/mxp1/fan4) or a service; nines events shows what there is", 2),
        }
    }

    fn alarms(&self) -> Vec<AlarmRow> {
        let active = self.engine.iter().flat_map(Engine::alarms).filter(|(_, a)| a.is_active());
        let mut rows: Vec<(std::cmp::Reverse<sixnines_core::alarms::Severity>, AlarmRow)> = active.map(|(key, alarm)| {
            let mut note = Vec::new();
            if let Some((by, _)) = &alarm.acknowledged {
                note.push(format!("acknowledged by {by}"));
            }
            if alarm.shelved.is_some() {
                note.push("put aside".to_owned());
            }
            if alarm.suppressed {
                note.push("explained by a failed parent".to_owned());
            }
            if alarm.stale {
                note.push("not confirmed by the present owner".to_owned());
            }
            let object = self.engine.as_ref().map(|e| e.world().object(key.object).name.to_string()).unwrap_or_default();
            let row = AlarmRow {
                id: alarm.id.unwrap_or_default(),
                severity: alarm.severity.to_string(),
                since: clock_text(alarm.since),
                object,
                kind: key.kind.to_string(),
                text: alarm.text.to_string(),
                note: note.join(", "),
            };
            (std::cmp::Reverse(alarm.severity), row)
        }).collect();
        rows.sort_by(|a, b| (a.0, &a.1.object).cmp(&(b.0, &b.1.object)));
        rows.into_iter().map(|(_, row)| row).collect()
    }

    fn policies(&self) -> Reply {
        let files = self.domain.bundle.files.iter().map(|(file, text)| PolicyRow { file: file.clone(), bytes: text.len() });
        Reply::Policies { generation: self.domain.bundle_version.0, files: files.collect() }
    }

    // ---- what changes something ---------------------------------------------------------------------------------

    /// Somebody's word, as the cause of what follows from it.
    pub(super) fn requested(&mut self, now: Instant, text: &str) -> EventId {
        self.observe(now, &node_object(self.me), "request", Some(Value::Text(text.into())), Quality::Good, None, "", false)
    }

    fn move_role(&mut self, now: Instant, wish: Wish, service: &str, principal: &Principal, reply: Sender<Reply>) {
        let group = GroupName::new(service);
        let Some(row) = self.domain.groups.get(&group) else {
            let names: Vec<String> = self.domain.config.services.iter().map(|s| s.name.to_string()).collect();
            return say(&reply, fail_help("unknown-service", format!("there is no service {service}"), &format!("there are: {}", names.join(", ")), 2));
        };
        let epoch = row.epoch;
        let cause = self.requested(now, &format!("{} asks to move {service}", principal.name));
        let waits_for = WaitsFor::Role { group, epoch, cause };
        self.wishes.push(WaitingWish { until: now + WISH_MAX, reply, waits_for });
        self.feed_roles(now, roles::Input::Move { wish, cause });
    }

    /// Only with reason: the node has been heard, and it speaks from another disk.
    fn give_up_disk(&mut self, now: Instant, node: NodeId, principal: &Principal, reply: Sender<Reply>) {
        if self.domain.config.node(node).is_none() {
            let names: Vec<String> = self.domain.config.nodes.iter().map(|n| n.id.to_string()).collect();
            return say(&reply, fail_help("unknown-node", format!("there is no node {node}"), &format!("there are: {}", names.join(", ")), 2));
        }
        let Some(disk) = self.places.get(&node).filter(|p| p.is_stranger).map(|p| p.disk) else {
            let message = format!("{node} has not been heard here from any other disk than the one it votes with: there is nothing to replace");
            return say(&reply, fail_help("not-needed", message, &format!("start its daemon on the new disk; nines status then shows it. Is this one {node} itself? Then ask another node"), 4));
        };
        if self.domain.lost_disks.get(&node) == Some(&disk) {
            let message = format!("the old disk of {node} is given up already: the node is taken in as soon as it comes with another one");
            return say(&reply, fail_help("not-needed", message, "an old image of it counts as the old disk: remove the control log's directory from it, and start the daemon again", 4));
        }
        let cause = self.requested(now, &format!("{} gives up the old disk of {node}", principal.name));
        let done = format!("the old disk of {node} is given up: the node is taken in with the one it has now, learns, and votes again. How far: nines status");
        self.propose_for(now, Entry::DiskLost { node, disk }, cause, done, reply);
    }

    fn invite(&mut self, now: Instant, token: Fingerprint, seat: NodeConfig, expires: WallTime, principal: &Principal, reply: Sender<Reply>) {
        match self.domain.seated(&seat) {
            Ok(_) => {}
            Err(Void::Invitation(Refusal::Member(node))) => {
                let help = format!("its disk was lost: nines node replace {node}; another machine shall be it: nines node expel {node}, then invite it");
                return say(&reply, fail_help("is-member", Refusal::Member(node).to_string(), &help, 4));
            }
            Err(void) => return say(&reply, fail_help("bad-seat", void.to_string(), "nines status shows who there is", 2)),
        }
        let cause = self.requested(now, &format!("{} invites {}", principal.name, seat.id));
        self.propose_for(now, Entry::Invite { token, seat, expires }, cause, String::new(), reply);
    }

    fn admit(&mut self, now: Instant, node: NodeId, token: Fingerprint, key: Fingerprint, principal: &Principal, reply: Sender<Reply>) {
        let at = self.wall;
        match self.domain.check_token(node, token, key, at) {
            Err(refusal) => say(&reply, not_invited(&refusal)),
            Ok(Some(_again)) => say(&reply, admitted(&self.domain, node)),
            Ok(None) => {
                let cause = self.requested(now, &format!("{} asks to be {node}", principal.name));
                let disk = self.places.get(&node).map_or(0, |p| p.disk);
                self.propose_for(now, Entry::Admit { node, token, key, at, disk }, cause, String::new(), reply);
            }
        }
    }

    /// Not if the others could decide nothing then, nor if what it alone knows would be lost with it; unless that is wanted.
    fn expel(&mut self, now: Instant, node: NodeId, force: bool, principal: &Principal, reply: Sender<Reply>) {
        if self.domain.config.node(node).is_none() {
            let names: Vec<String> = self.domain.config.nodes.iter().map(|n| n.id.to_string()).collect();
            return say(&reply, fail_help("unknown-node", format!("there is no node {node}"), &format!("there are: {}", names.join(", ")), 2));
        }
        if node == self.me {
            return say(&reply, fail_help("myself", format!("{node} is the node that is asked: it cannot cut itself off and tell of it"), &format!("ask another node: nines node expel {node} --node PATH"), 4));
        }
        if self.domain.is_expelled(node) {
            return say(&reply, fail_help("not-needed", format!("{node} is expelled already"), &format!("nines node invite {node} lets another machine be it"), 4));
        }
        if let Some(why) = self.harm_of_expelling(node).filter(|_| !force) {
            return say(&reply, fail_help("harmful", why, &format!("mend that first; or, if {node} does more harm than that: nines node expel {node} --force"), 4));
        }
        let cause = self.requested(now, &format!("{} expels {node}{}", principal.name, if force { ", by force" } else { "" }));
        let done = format!("{node} is expelled: its connections are closed, and no certificate that it has counts any more. What it was active for is taken over. Back, with another certificate: nines node invite {node}");
        self.propose_for(now, Entry::Expel { node }, cause, done, reply);
    }

    fn harm_of_expelling(&self, node: NodeId) -> Option<String> {
        let domain = &self.domain;
        if let Some(why) = self.undecided_without(node) {
            return Some(why);
        }
        // A chassis' owner finds anew what its sensors say; a service's acknowledged writes are nowhere else.
        let only = domain.groups.iter().filter(|(group, _)| domain.config.service(group).is_some()).find(|(_, row)| {
            let complete = || row.in_sync.iter().filter(|m| domain.is_current(**m));
            complete().any(|m| m.node == node) && complete().all(|m| m.node == node || domain.is_expelled(m.node) || !self.is_alive(m.node))
        });
        only.map(|(group, _)| format!("{node} has the only complete copy of what {group} knows"))
    }

    fn is_alive(&self, node: NodeId) -> bool {
        node == self.me || self.verdicts.get(&node) == Some(&Verdict::Alive)
    }

    /// Whether the process that is heard of a node is the member that the log knows. One that has just started is heard before it has joined, and
    /// until then it grants and releases nothing (3.6).
    fn has_joined(&self, node: NodeId) -> bool {
        let spoken = if node == self.me { self.roles.member().map(|m| m.incarnation) } else { self.incarnations.get(&node).copied() };
        spoken.is_some() && spoken == self.domain.member(node).map(|m| m.incarnation)
    }

    /// What keeps the rest from deciding anything without one of the voters; nothing where there is only one.
    fn undecided_without_any(&self) -> Option<String> {
        let config = &self.domain.config;
        if config.voters().count() > 1 { config.voters().find_map(|n| self.undecided_without(n)) } else { None }
    }

    /// What keeps the others from deciding anything without a voter.
    pub(super) fn undecided_without(&self, node: NodeId) -> Option<String> {
        let domain = &self.domain;
        let votes = |n: &NodeId| !domain.is_expelled(*n) && self.is_alive(*n) && self.has_joined(*n) && self.places.get(n).is_none_or(|p| p.is_voter && !p.is_stranger);
        let left: Vec<NodeId> = domain.config.voters().filter(|n| *n != node).filter(votes).collect();
        if domain.config.is_voter(node) && left.len() < domain.majority() {
            let names: Vec<String> = left.iter().map(ToString::to_string).collect();
            let names = if names.is_empty() { "nobody".to_owned() } else { names.join(" and ") };
            return Some(format!("without {node} nothing could be decided: {names} would be left of {} voters, and it takes {}", domain.config.voters().count(), domain.majority()));
        }
        None
    }

    pub(super) fn propose_for(&mut self, now: Instant, entry: Entry, cause: EventId, done: String, reply: Sender<Reply>) {
        let proposal = Proposal { by: self.me, ticket: ASK_TICKETS + now.as_nanos(), cause: Some(cause), entry };
        self.ways.propose(proposal.clone());
        self.wishes.push(WaitingWish { until: now + WISH_MAX, reply, waits_for: WaitsFor::Entry { proposal: Box::new(proposal), again_at: None, done } });
    }

    fn apply_bundle(&mut self, now: Instant, files: BTreeMap<String, String>, message: &str, principal: &Principal, reply: Sender<Reply>) {
        let bundle = Bundle { files };
        let judged = compile_bundle(&bundle).and_then(|compiled| {
            let over = compiled.exceeds(&self.domain.config.limits);
            if over.is_empty() { Ok(()) } else { Err(over) }
        });
        if let Err(errors) = judged {
            let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
            return say(&reply, fail("bad-policies", format!("{}\nNothing was loaded, generation {} goes on.", text.join("\n"), self.domain.bundle_version), 2));
        }
        if bundle == *self.domain.bundle {
            return say(&reply, Reply::Done { text: format!("generation {} is the same: nothing to do", self.domain.bundle_version) });
        }
        let cause = self.requested(now, &format!("{} applies policies: {message}", principal.name));
        let expected = self.domain.bundle_version;
        let done = format!("generation {} -> {}. Back: nines policy apply with the former files", expected, expected.0 + 1);
        self.propose_for(now, Entry::Bundle { expected, bundle }, cause, done, reply);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one call")]
    fn set(&mut self, now: Instant, name: &str, attribute: &str, value: &str, lease_s: u64, reason: String, principal: Principal, reply: Sender<Reply>) {
        let Some(value) = self.parse_value(name, attribute, value) else {
            return say(&reply, fail_help("unknown-control", format!("{name} has no control {attribute} that takes {value}"), &format!("nines get {name}"), 2));
        };
        let done = format!("{name} {attribute} is held at {value} for {lease_s} s. Back: nines set {name} {attribute}=");
        let body = CommandBody::Claim {
            object: name.into(),
            control: attribute.into(),
            value,
            reason: if reason.is_empty() { "set by hand".into() } else { reason },
            priority: None,
            lease: Some(Duration::from_secs(lease_s)),
        };
        self.command(now, principal, body, done, reply);
    }

    fn parse_value(&self, name: &str, attribute: &str, text: &str) -> Option<Value> {
        let world = self.engine.as_ref()?.world();
        let class = &world.object(world.find(name)?).class;
        let attribute = class.attributes.iter().find(|a| a.name.as_str() == attribute)?;
        match &attribute.kind {
            Kind::Bool => text.parse().ok().map(Value::Bool),
            Kind::Int => text.parse().ok().map(Value::Int),
            Kind::Float => text.parse().ok().map(Value::Float),
            Kind::Text => Some(Value::Text(text.into())),
            Kind::Enum(_) => Some(Value::Enum(text.into())),
        }
    }

    /// A command for the objects: here, or where they are owned.
    pub(crate) fn command(&mut self, now: Instant, principal: Principal, body: CommandBody, done: String, reply: Sender<Reply>) {
        let id = CommandId(u128::from(now.as_nanos()) << 16 | u128::from(self.me.0));
        let command = Command { id, principal, cause: None, expected_version: None, body };
        let owner = self.engine.as_ref().and_then(|e| e.owner_of(command.body.object().as_str()));
        self.wishes.push(WaitingWish { until: now + WISH_MAX, reply, waits_for: WaitsFor::Command { id, done } });
        match owner.filter(|owner| *owner != self.me) {
            Some(owner) => self.ways.forward(owner, &command),
            None => self.feed_engine(now, engine::Input::Command(command)),
        }
    }

    pub(crate) fn settle_command(&mut self, id: CommandId, result: &Result<EventId, CommandError>) {
        let answer = |done: &str| match result {
            Ok(event) => Reply::Done { text: format!("{done}  ({event})") },
            Err(CommandError::Refused(why)) => fail("refused", why.to_string(), 4),
            Err(error) => fail("bad-command", error.to_string(), 2),
        };
        self.settle(|w| match w {
            WaitsFor::Command { id: waiting, done } if *waiting == id => Some(answer(done)),
            _ => None,
        });
    }

    // ---- who waits ----------------------------------------------------------------------------------------------

    fn settle(&mut self, mut outcome: impl FnMut(&mut WaitsFor) -> Option<Reply>) {
        self.wishes.retain_mut(|wish| match outcome(&mut wish.waits_for) {
            Some(reply) => {
                say(&wish.reply, reply);
                false
            }
            None => true,
        });
    }

    pub(crate) fn settle_wishes(&mut self, now: Instant) {
        if self.wishes.is_empty() {
            return;
        }
        let domain = Arc::clone(&self.domain);
        self.settle(|w| match w {
            WaitsFor::Role { group, epoch, .. } => {
                let row = domain.groups.get(group)?;
                let active = row.active?.node;
                (row.epoch > *epoch).then(|| Reply::Done { text: format!("{group} is active on {active}, epoch {}. Why: nines why {group}", row.epoch) })
            }
            _ => None,
        });
        for wish in &mut self.wishes {
            if let WaitsFor::Entry { proposal, again_at, .. } = &mut wish.waits_for
                && again_at.take_if(|at| now >= *at).is_some()
            {
                self.ways.propose(Proposal::clone(proposal));
            }
        }
        self.wishes.retain(|wish| {
            if now < wish.until {
                return true;
            }
            say(&wish.reply, fail_help("unknown-outcome", "it was asked for and has not happened yet; it still may".into(), "nines status", 5));
            false
        });
    }

    pub(crate) fn refused(&mut self, _now: Instant, cause: EventId, reason: &str) {
        tracing::info!(%cause, reason, "refused");
        self.settle(|w| match w {
            WaitsFor::Role { cause: waiting, .. } if *waiting == cause => Some(fail_help("not-possible", reason.to_owned(), "nines status", 4)),
            _ => None,
        });
    }

    pub(crate) fn settle_applied(&mut self, ticket: u64, outcome: &Result<Vec<Change>, Void>) {
        let domain = Arc::clone(&self.domain);
        self.settle(|w| match w {
            WaitsFor::Entry { proposal, done, .. } if proposal.ticket == ticket => Some(match outcome {
                Err(Void::Invitation(refusal)) if !is_so(&domain, &proposal.entry) => not_invited(refusal),
                Err(void) if !is_so(&domain, &proposal.entry) => fail_help("moved-on", void.to_string(), "look again, then repeat", 4),
                _ if let Entry::Admit { node, .. } = &proposal.entry => admitted(&domain, *node),
                _ => Reply::Done { text: done.clone() }, // perhaps an earlier copy of it
            }),
            _ => None,
        });
    }

    /// A proposal whose leader died with it is made again: at most one of them takes effect, and which one does not matter.
    pub(crate) fn settle_proposal(&mut self, now: Instant, ticket: u64, why: &ProposeError) {
        self.settle(|w| match w {
            WaitsFor::Entry { proposal, again_at, .. } if proposal.ticket == ticket => match why {
                ProposeError::Unknown => {
                    *again_at = Some(now + PROPOSE_AGAIN);
                    None
                }
                ProposeError::NotSent => Some(fail("no-quorum", why.to_string(), 4)),
                ProposeError::Level { .. } => Some(fail_help("level-too-low", why.to_string(), "nines feature", 4)),
                ProposeError::Void { .. } => None, // it was applied, and is answered by that
            },
            _ => None,
        });
    }

    /// When the next of those who wait is to be looked at.
    pub(crate) fn wishes_due(&self) -> Option<Instant> {
        self.wishes.iter().map(|wish| match wish.waits_for {
            WaitsFor::Entry { again_at: Some(at), .. } => at.min(wish.until),
            _ => wish.until,
        }).min()
    }
}

/// Whether what an operator's entry is to bring about is so, by whichever entry.
fn is_so(domain: &Domain, entry: &Entry) -> bool {
    match entry {
        Entry::Bundle { bundle, .. } => *domain.bundle == *bundle,
        Entry::DiskLost { node, disk } => domain.lost_disks.get(node) == Some(disk),
        Entry::Invite { token, seat, .. } => domain.invitations.get(&seat.id).is_some_and(|i| i.token == *token),
        Entry::Admit { node, token, key, at, .. } => matches!(domain.check_token(*node, *token, *key, *at), Ok(Some(_))),
        Entry::Expel { node } => domain.is_expelled(*node),
        Entry::Configure { config, .. } => domain.config == *config,
        Entry::Limits { limits, .. } => domain.config.limits == *limits,
        Entry::Feature { level } => domain.level >= *level,
        _ => false,
    }
}

pub(super) fn say(reply: &Sender<Reply>, what: Reply) {
    if reply.try_send(what).is_err() {
        tracing::debug!("whoever asked has gone");
    }
}

pub(crate) fn fail(code: &str, message: String, exit: u8) -> Reply {
    Reply::Failed(Failure { code: code.into(), message, help: None, exit })
}

pub(crate) fn fail_help(code: &str, message: String, help: &str, exit: u8) -> Reply {
    Reply::Failed(Failure { code: code.into(), message, help: Some(help.to_owned()), exit })
}

fn not_invited(refusal: &Refusal) -> Reply {
    let (Refusal::Unknown(node) | Refusal::Used(node) | Refusal::Member(node) | Refusal::Expired { node, .. }) = refusal;
    fail_help("not-invited", refusal.to_string(), &format!("ask for another token: nines node invite {node}, on the node that holds the authority"), 4)
}

fn admitted(domain: &Domain, node: NodeId) -> Reply {
    Reply::Admitted(Box::new(Admitted { admission: domain.admission(node), config: domain.config.clone(), policies: Arc::clone(&domain.bundle) }))
}

fn parse(pattern: &str) -> Result<Pattern, Box<Reply>> {
    if pattern.starts_with('/') {
        return Ok(Pattern::new(pattern));
    }
    let message = format!("{pattern:?} is no pattern of names: they begin with /");
    Err(Box::new(fail_help("bad-pattern", message, "such as /mxp1/fan*, /nodes/** or /services/calls", 2)))
}

fn alarm_ref(object: &str, kind: &str) -> AlarmRef {
    AlarmRef { object: object.into(), kind: kind.into(), qualifier: "".into() }
}

fn story(what: &str, chain: &Chain) -> WhyStory {
    let mut rows = Vec::new();
    let mut missing = Vec::new();
    for link in &chain.links {
        match link {
            Link::Known(event) => rows.push(EventRow::of(event)),
            Link::Missing(id) => missing.push(*id),
        }
    }
    let headline = match rows.last() {
        Some(last) => format!("{what}: {} {} {}, at {}", last.object, last.attribute, last.text, last.at),
        None => format!("{what}: its event is no longer known here"),
    };
    WhyStory { headline, chain: rows, missing }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(sequence: u64) -> Arc<Event> {
        let mut engine = Engine::new(engine::Config { me: sixnines_core::ids::Member::default(), history_max: 1, journal: false });
        let mut last = None;
        for _ in 0..sequence {
            let fact = engine::Fact { object: "/x".into(), attribute: "y".into(), value: None, quality: Quality::Missing, cause: None, why: "".into(), shared: false, token: 0 };
            engine.handle(Instant::ZERO, sixnines_core::time::WallTime::default(), engine::Input::Fact(fact));
            while let Some(output) = engine.poll_output() {
                if let engine::Output::Event(event) = output {
                    last = Some(event);
                }
            }
        }
        last.expect("a fact is an event")
    }

    #[test]
    fn who_watches_too_slowly_is_told_what_he_missed() {
        let (reply, read) = crossbeam::channel::bounded(2);
        let mut watcher = Watcher::new(Pattern::new("/**"), reply);
        (1..=5).for_each(|n| assert!(watcher.tell(&event(n))));
        let shown = |reply: Reply| match reply {
            Reply::Event(row) => row.id.sequence.to_string(),
            Reply::Missed(m) => format!("{} from {} to {}", m.count, m.first.sequence, m.last.sequence),
            other => format!("{other:?}"),
        };
        assert_eq!(read.try_iter().map(shown).collect::<Vec<_>>(), ["1", "2"]);
        assert!(watcher.tell(&event(6)));
        assert_eq!(read.try_iter().map(shown).collect::<Vec<_>>(), ["3 from 3 to 5", "6"]);
        drop(read);
        assert!(!watcher.tell(&event(7)));
    }
}
