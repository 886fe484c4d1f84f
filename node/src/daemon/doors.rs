//! The core loop's [`Ways`] in the daemon. No call here waits for anyone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam::channel::Sender;
use sixnines_core::alarms::Severity;
use sixnines_core::class::Pattern;
use sixnines_core::domain::Proposal;
use sixnines_core::domain::config::DomainConfig;
use sixnines_core::engine::{Command, CommandError, CommandId};
use sixnines_core::event::{Body, Event};
use sixnines_core::ids::{Epoch, EventId, GroupName, LinkId, Member, NodeId};
use sixnines_core::roles::{Role, Told};
use sixnines_core::value::{Outcome, Request, Value};
use sixnines_discs::log;
use sixnines_discs::mesh::MeshHandle;
use sixnines_discs::wire::{Class, Kind};
use sixnines_drivers::clock;
use tokio::sync::{mpsc, watch};

use super::checkpoints::Checkpoints;
use super::drivers::Drivers;
use super::{journal, keeper};
use crate::api::RightRow;
use crate::core_loop::In;
use crate::core_loop::answers::Watcher;
use crate::core_loop::ways::Ways;

/// Everything that the core loop can give orders to.
pub(super) struct Doors {
    pub(super) me: NodeId,
    pub(super) log: log::Handle,
    pub(super) liveness: Arc<sixnines_discs::liveness::shell::Handle>,
    pub(super) mesh: MeshHandle,
    pub(super) checkpoints: Checkpoints,
    pub(super) keepers: BTreeMap<GroupName, mpsc::UnboundedSender<keeper::Order>>,
    pub(super) drivers: Drivers,
    pub(super) journal: journal::Writer,
    pub(super) inbox: Sender<In>,
    pub(super) peers: Vec<NodeId>,
    /// What this node wants to hear of the others.
    pub(super) subscription: Vec<Pattern>,
    /// What each of them wants to hear; who has not said it yet hears everything.
    pub(super) wanted: BTreeMap<NodeId, Vec<Pattern>>,
    pub(super) watchers: Vec<Watcher>,
    pub(super) configuration: watch::Sender<Arc<DomainConfig>>,
    pub(super) rights: Vec<RightRow>,
}

impl Doors {
    fn send_event(&self, peer: NodeId, event: &Event, bytes: Vec<u8>) {
        if let Err(error) = self.mesh.send(peer, class_of(event), Kind::EVENT, bytes) {
            tracing::debug!(%peer, %error, id = %event.id, "an event was not taken");
        }
    }

    fn outcome(&self, request: EventId, outcome: Outcome) {
        if self.inbox.send(In::Outcome { request, outcome }).is_err() {
            tracing::debug!("the core loop has ended");
        }
    }
}

impl Ways for Doors {
    fn propose(&mut self, proposal: Proposal) {
        self.log.propose(proposal);
    }

    fn transfer_leader(&mut self, to: NodeId) {
        self.log.transfer_leader(to);
    }

    fn campaign(&mut self, against: NodeId) {
        self.log.campaign(against);
    }

    fn greet(&mut self, node: NodeId) {
        self.log.greet(node);
    }

    fn role(&mut self, group: &GroupName, role: Role) {
        if let Some(keeper) = self.keepers.get(group) {
            order(keeper, keeper::Order::Role(role));
        }
    }

    /// Services fall silent by their keeper; the ownership of a chassis by leaving its driver alone.
    fn relinquish(&mut self, group: &GroupName, epoch: Epoch) {
        match self.keepers.get(group) {
            Some(keeper) => order(keeper, keeper::Order::Relinquish(epoch)),
            None => {
                self.drive(group, None);
                self.checkpoints.relinquish(group, epoch);
            }
        }
    }

    fn drive(&mut self, group: &GroupName, epoch: Option<Epoch>) {
        self.drivers.own(group, epoch);
    }

    /// Only under a lease (protocol 4.4): what is refused is asked for again when it runs again, if it is still wanted.
    fn act(&mut self, request: Request) {
        if self.liveness.lease() <= clock::boot_now() {
            return self.outcome(request.id, Outcome::Refused("this node is suspended: its lease is over".into()));
        }
        if let Some(service) = request.object.as_str().strip_prefix("/services/")
            && let Some(keeper) = self.keepers.get(&GroupName::new(service))
        {
            let outcome = if request.control.as_str() == "restart" {
                order(keeper, keeper::Order::Restart);
                Outcome::Done
            } else {
                Outcome::Refused(format!("a service has no control {}", request.control))
            };
            return self.outcome(request.id, outcome);
        }
        self.drivers.act(request);
    }

    fn reach(&mut self, member: Member, is_reachable: bool) {
        self.checkpoints.reach(member, is_reachable);
    }

    fn prefer(&mut self, group: &GroupName, nodes: Vec<NodeId>) {
        self.checkpoints.prefer(group, nodes);
    }

    fn quiesce(&mut self, group: &GroupName, epoch: Epoch, to: Member) {
        self.checkpoints.quiesce(group, epoch, to);
    }

    fn resume(&mut self, group: &GroupName, epoch: Epoch) {
        self.checkpoints.resume(group, epoch);
    }

    fn offer(&mut self, group: &GroupName) {
        self.checkpoints.offer(group);
    }

    fn save(&mut self, group: &GroupName, key: &str, bytes: Option<Vec<u8>>) {
        self.checkpoints.save(group, key, bytes);
    }

    fn tell(&mut self, to: NodeId, told: &Told) {
        let Ok(bytes) = postcard::to_allocvec(told) else { return };
        if let Err(error) = self.mesh.send(to, Class::Control, Kind::LEASE, bytes) {
            tracing::debug!(%to, %error, "a word about roles was not taken; it is repeated");
        }
    }

    fn forward(&mut self, to: NodeId, command: &Command) {
        let Ok(bytes) = postcard::to_allocvec(command) else { return };
        if let Err(error) = self.mesh.send(to, Class::Control, Kind::COMMAND, bytes) {
            tracing::warn!(%to, %error, "a command was not taken");
        }
    }

    fn answer(&mut self, to: NodeId, id: CommandId, result: &Result<EventId, CommandError>) {
        let Ok(bytes) = postcard::to_allocvec(&(id, result)) else { return };
        if let Err(error) = self.mesh.send(to, Class::Control, Kind::ANSWER, bytes) {
            tracing::warn!(%to, %error, "an answer was not taken");
        }
    }

    fn publish(&mut self, event: &Arc<Event>) {
        self.heard(event);
        let is_wanted = |peer: &&NodeId| self.wanted.get(peer).is_none_or(|patterns| patterns.iter().any(|p| p.matches(event.object.as_str())));
        let Ok(bytes) = postcard::to_allocvec(&**event) else { return };
        for peer in self.peers.iter().filter(is_wanted) {
            self.send_event(*peer, event, bytes.clone());
        }
    }

    fn heard(&mut self, event: &Arc<Event>) {
        self.watchers.retain(|w| w.tell(event));
    }

    /// Until its own wishes come, the peer gets everything.
    fn subscribe(&mut self, peer: NodeId) {
        self.wanted.remove(&peer);
        let Ok(bytes) = postcard::to_allocvec(&self.subscription) else { return };
        if let Err(error) = self.mesh.send(peer, Class::Control, Kind::SUBSCRIBE, bytes) {
            tracing::warn!(%peer, %error, "a subscription was not taken");
        }
    }

    fn subscribed(&mut self, peer: NodeId, patterns: Vec<Pattern>, levels: &[Arc<Event>]) {
        self.wanted.insert(peer, patterns);
        for event in levels {
            if let Ok(bytes) = postcard::to_allocvec(&**event) {
                self.send_event(peer, event, bytes);
            }
        }
    }

    fn link(&mut self, node: NodeId, link: LinkId, is_up: bool) {
        if is_up { self.mesh.link_up(node, link) } else { self.mesh.link_down(node, link) }
    }

    fn configured(&mut self, config: &DomainConfig) {
        self.drivers.configured(config);
        self.peers = config.nodes.iter().map(|n| n.id).filter(|n| *n != self.me).collect();
        self.configuration.send_replace(Arc::new(config.clone()));
    }

    fn journal(&mut self, record: Vec<u8>) {
        self.journal.keep(record);
    }

    fn sync_journal(&mut self) {
        self.journal.sync();
    }

    fn journal_again(&mut self) {
        self.journal.try_again();
    }

    /// The thread's own time: a policy is not to blame for being interrupted.
    fn policy_clock(&self) -> Option<fn() -> u64> {
        Some(clock::thread_time)
    }

    fn watch(&mut self, watcher: Watcher) {
        self.watchers.push(watcher);
    }

    fn connections(&self, peer: NodeId) -> Vec<u64> {
        self.mesh.links(peer).iter().map(|l| l.number).collect()
    }

    fn standing(&self) -> (Vec<RightRow>, u64) {
        (self.rights.clone(), self.liveness.counters().suspensions.load(Ordering::Relaxed))
    }
}

fn order(keeper: &mpsc::UnboundedSender<keeper::Order>, what: keeper::Order) {
    if keeper.send(what).is_err() {
        tracing::debug!("a keeper has ended");
    }
}

/// How urgent an event is on the bus: alarms and what roles are about before readings.
fn class_of(event: &Event) -> Class {
    match (&event.body, &event.new) {
        (Body::Alarm { .. }, _) => Class::Alarm,
        _ if event.severity > Severity::Cleared => Class::Alarm,
        (Body::Change, Some(Value::Int(_) | Value::Float(_))) => Class::Telemetry,
        _ => Class::State,
    }
}
