//! The core loop's [`Ways`] in the daemon. No call here waits for anyone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use crossbeam::channel::Sender;
use sixnines_core::class::Pattern;
use sixnines_core::domain::Proposal;
use sixnines_core::domain::config::DomainConfig;
use sixnines_core::domain::feature::Level;
use sixnines_core::domain::limits::Limit;
use sixnines_core::engine::{Command, CommandError, CommandId};
use sixnines_core::event::Event;
use sixnines_core::ids::{Epoch, EventId, GroupName, LinkId, Member, NodeId, Version};
use sixnines_core::roles::{Role, Told};
use sixnines_core::value::{Outcome, Request};
use sixnines_discs::feed::wire::{Resume, subscription};
use sixnines_discs::log;
use sixnines_discs::mesh::{MeshHandle, SendError};
use sixnines_discs::wire::{Class, Kind};
use sixnines_drivers::clock;
use tokio::sync::{mpsc, watch};

use super::checkpoints::Checkpoints;
use super::drivers::Drivers;
use super::fencer::Fencer;
use super::serial::Lines;
use super::{abroad, journal, keeper};
use crate::api::RightRow;
use crate::core_loop::In;
use crate::core_loop::answers::Watcher;
use crate::core_loop::fences::FenceOrder;
use crate::core_loop::limits::Uses;
use crate::core_loop::ways::{Journalled, Ways};

/// Everything that the core loop can give orders to.
pub(super) struct Doors {
    pub(super) me: NodeId,
    /// The newest feature level that this node reads.
    pub(super) reads: Level,
    pub(super) log: log::Handle,
    pub(super) liveness: Arc<sixnines_discs::liveness::shell::Handle>,
    pub(super) mesh: MeshHandle,
    pub(super) neighbours: Option<abroad::Ways>,
    pub(super) serial: Arc<Lines>,
    pub(super) checkpoints: Checkpoints,
    pub(super) keepers: BTreeMap<GroupName, mpsc::UnboundedSender<keeper::Order>>,
    pub(super) drivers: Drivers,
    pub(super) fencer: Fencer,
    pub(super) journal: journal::Writer,
    pub(super) inbox: Sender<In>,
    /// What this node wants to hear of the others.
    pub(super) subscription: Vec<Pattern>,
    pub(super) watchers: Vec<Watcher>,
    pub(super) configuration: watch::Sender<Arc<DomainConfig>>,
    pub(super) rights: Vec<RightRow>,
}

impl Doors {
    fn mesh_of(&self, node: NodeId) -> &MeshHandle {
        self.neighbours.as_ref().filter(|_| node.is_abroad()).map_or(&self.mesh, |n| &n.mesh)
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
        self.serial.active(group, if let Role::Active(epoch) = role { Some(epoch) } else { None });
        if let Some(keeper) = self.keepers.get(group) {
            order(keeper, keeper::Order::Role(role));
        }
    }

    /// Services fall silent by their keeper; the ownership of a chassis by leaving its driver alone.
    fn relinquish(&mut self, group: &GroupName, epoch: Epoch) {
        self.serial.active(group, None);
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

    fn fence(&mut self, order: FenceOrder) {
        self.fencer.begin(order);
    }

    fn drop_fence(&mut self, target: Member) {
        self.fencer.end(target);
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

    fn offer(&mut self, group: &GroupName, version: Version) {
        self.checkpoints.offer(group, version);
    }

    fn save(&mut self, group: &GroupName, key: &str, bytes: Option<Vec<u8>>) {
        self.checkpoints.save(group, key, bytes);
    }

    fn tell(&mut self, to: NodeId, told: &Told) {
        self.serial.tell(to, told);
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
        self.watchers.retain_mut(|w| w.tell(event));
    }

    fn subscribe(&mut self, peer: NodeId, resume: Resume) {
        let wanted = match &self.neighbours {
            Some(neighbours) if peer.is_abroad() => neighbours.hear(peer),
            _ => &self.subscription,
        };
        if let Err(error) = self.mesh_of(peer).send(peer, Class::Control, Kind::SUBSCRIBE, subscription(wanted, resume)) {
            tracing::warn!(%peer, %error, "a subscription was not taken");
        }
    }

    fn send(&mut self, to: NodeId, class: Class, kind: Kind, payload: Bytes) -> bool {
        match self.mesh_of(to).send(to, class, kind, payload) {
            Ok(()) => true,
            Err(SendError::Full) => false,
            Err(error) => {
                tracing::debug!(%to, %error, ?kind, "a frame of a feed goes nowhere");
                true // asking again would not help
            }
        }
    }

    fn link(&mut self, node: NodeId, link: LinkId, is_up: bool) {
        self.serial.link(node, link, is_up);
        if is_up { self.mesh.link_up(node, link) } else { self.mesh.link_down(node, link) }
    }

    fn configured(&mut self, config: &DomainConfig) {
        self.drivers.configured(config);
        self.journal.bound(config.limits.of(Limit::JournalBytes));
        self.checkpoints.admit_at_most(config.limits.count(Limit::SdkClients));
        self.configuration.send_replace(Arc::new(config.clone()));
    }

    fn journal(&mut self, record: Vec<u8>) {
        self.journal.keep(record);
    }

    fn sync_journal(&mut self) {
        self.journal.sync();
    }

    fn journalled(&self) -> Journalled {
        self.journal.progress()
    }

    fn journal_again(&mut self) {
        self.journal.try_again();
    }

    /// The thread's own time: a policy is not to blame for being interrupted.
    fn policy_clock(&self) -> Option<fn() -> u64> {
        Some(clock::thread_time)
    }

    fn uses(&self) -> Option<Uses> {
        let (driver_events, driver_held) = self.drivers.use_of();
        let (clients, clients_refused) = self.checkpoints.clients();
        Some(Uses { journal_bytes: self.journal.total(), clients: clients as u64, clients_refused, driver_events, driver_held })
    }

    fn watch(&mut self, watcher: Watcher) {
        self.watchers.push(watcher);
    }

    fn reads(&self, node: NodeId) -> Option<Level> {
        if node == self.me { Some(self.reads) } else { self.mesh.versions(node).map(|v| Level(v.newest)) }
    }

    fn connections(&self, peer: NodeId) -> Vec<u64> {
        self.mesh.links(peer).iter().map(|l| l.number).collect()
    }

    fn standing(&self) -> (Vec<RightRow>, u64) {
        (self.rights.clone(), self.liveness.counters().suspensions.load(Ordering::Relaxed))
    }

    fn lateness(&self) -> Vec<(u64, u64)> {
        self.liveness.counters().lateness.seconds()
    }
}

fn order(keeper: &mpsc::UnboundedSender<keeper::Order>, what: keeper::Order) {
    if keeper.send(what).is_err() {
        tracing::debug!("a keeper has ended");
    }
}
