//! The core loop's hold on the checkpoint service, and the in-process application of each chassis: what its owner knows beyond its sensors.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam::channel::Sender;
use serde::{Deserialize, Serialize};
use sixnines_checkpoint::service::{AppState, Host, LocalApp, LocalEvent, Service};
use sixnines_checkpoint::{Change, CopyConfig, Follow, Level, Op, PeerFault, Role};
use sixnines_core::domain::config::DomainConfig;
use sixnines_core::ids::{Epoch, GroupName, Member, NodeId, Version};
use sixnines_core::roles::Offer;
use sixnines_discs::mesh::MeshHandle;
use sixnines_discs::wire::{Class, Kind};
use tokio::sync::mpsc;

use crate::core_loop::In;
use super::keeper;

/// A checkpoint's frame on the mesh.
#[derive(Serialize, Deserialize)]
pub(super) struct GroupFrame<'a> {
    pub(super) group: GroupName,
    #[serde(borrow)]
    pub(super) bytes: &'a [u8],
}

/// The hold on the service.
pub(super) struct Checkpoints {
    service: Service,
    owners: BTreeMap<GroupName, Owner>,
}

/// The in-process application of a chassis group.
struct Owner {
    app: LocalApp,
    mirror: Arc<Mutex<Mirror>>,
}

/// What the group's copy holds, as text keys.
#[derive(Default)]
struct Mirror {
    sections: BTreeMap<String, Vec<u8>>,
    epoch: Epoch,
}

impl Checkpoints {
    /// Makes the node's groups known to the service.
    pub(super) fn new(service: Service, me: NodeId, config: &DomainConfig, inbox: &Sender<In>) -> Self {
        let mut owners = BTreeMap::new();
        for group in config.groups().filter(|g| g.candidates.contains(&me)) {
            service.open(&group.name, CopyConfig::of(&group, config.profile));
            if config.service(&group.name).is_none() {
                owners.insert(group.name.clone(), own(&service, &group.name, inbox));
            }
        }
        Self { service, owners }
    }

    pub(super) fn admit_at_most(&self, clients_max: usize) {
        self.service.admit_at_most(clients_max);
    }

    pub(super) fn clients(&self) -> (usize, u64) {
        self.service.clients()
    }

    pub(super) fn reach(&self, member: Member, reachable: bool) {
        self.service.reach(member, reachable);
    }

    pub(super) fn prefer(&self, group: &GroupName, nodes: Vec<NodeId>) {
        self.service.prefer(group, nodes);
    }

    /// Services are asked by the service itself; an owner has been stopped before this is called, so it has written its last.
    pub(super) fn quiesce(&mut self, group: &GroupName, epoch: Epoch, to: Member) {
        self.service.quiesce(group, epoch, to);
        if let Some(owner) = self.owners.get_mut(group) {
            owner.app.drained(epoch);
        }
    }

    pub(super) fn resume(&self, group: &GroupName, epoch: Epoch) {
        self.service.resume(group, epoch);
    }

    pub(super) fn relinquish(&self, group: &GroupName, epoch: Epoch) {
        self.service.relinquish(group, epoch);
    }

    pub(super) fn offer(&self, group: &GroupName, version: Version) {
        self.service.offer(group, version);
    }

    /// Keeps something for the successor.
    pub(super) fn save(&mut self, group: &GroupName, key: &str, bytes: Option<Vec<u8>>) {
        let Some(owner) = self.owners.get_mut(group) else { return };
        let op = match &bytes {
            Some(bytes) => Op::Put { key: key.into(), bytes: bytes.clone().into() },
            None => Op::Delete { key: key.into() },
        };
        let epoch = {
            let mut mirror = lock(&owner.mirror);
            match bytes {
                Some(bytes) => mirror.sections.insert(key.to_owned(), bytes),
                None => mirror.sections.remove(key),
            };
            mirror.epoch
        };
        owner.app.write(epoch, None, Level::default(), vec![op]);
    }
}

fn own(service: &Service, group: &GroupName, inbox: &Sender<In>) -> Owner {
    let mirror = Arc::new(Mutex::new(Mirror::default()));
    let (seen, name, inbox) = (Arc::clone(&mirror), group.clone(), inbox.clone());
    let app = service.local(group, move |event| match event {
        LocalEvent::Role(Role::Active { epoch, .. }) => {
            let saved = {
                let mut mirror = lock(&seen);
                mirror.epoch = epoch;
                mirror.sections.clone().into_iter().collect()
            };
            send(&inbox, In::Saved { group: name.clone(), epoch, saved });
        }
        LocalEvent::Follow(follow) => take_in(&mut lock(&seen).sections, follow),
        // The core loop stops an owner before it asks for the handover, so there is nothing to finish.
        LocalEvent::Quiescing { .. } | LocalEvent::Role(Role::Standby { .. }) | LocalEvent::Outcome { .. } | LocalEvent::Answer { .. } => {}
    });
    Owner { app, mirror }
}

fn take_in(sections: &mut BTreeMap<String, Vec<u8>>, follow: Follow) {
    let text = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
    match follow {
        Follow::Image { sections: all, .. } => {
            *sections = all.into_iter().map(|(key, section)| (text(key.as_slice()), section.bytes.as_slice().to_vec())).collect();
        }
        Follow::Record(record) => {
            for change in &record.changes {
                match change {
                    Change::Put { key, bytes } => drop(sections.insert(text(key.as_slice()), bytes.as_slice().to_vec())),
                    Change::Delete { key } => drop(sections.remove(&text(key.as_slice()))),
                    // An owner writes whole sections only.
                    Change::Patch { .. } => tracing::warn!("a chassis' checkpoint bears a patch that no owner writes"),
                }
            }
        }
    }
}

/// The node around the checkpoint service.
pub(super) struct ServiceHost {
    pub(super) mesh: MeshHandle,
    pub(super) inbox: Sender<In>,
    pub(super) keepers: BTreeMap<GroupName, mpsc::UnboundedSender<keeper::Order>>,
}

impl fmt::Debug for ServiceHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceHost")
    }
}

impl Host for ServiceHost {
    fn send(&self, group: &GroupName, to: Member, bytes: Vec<u8>) {
        let Ok(frame) = postcard::to_allocvec(&GroupFrame { group: group.clone(), bytes: &bytes }) else { return };
        // What is long goes the way of bulk; what an acknowledgement waits for does not queue behind it.
        let class = if frame.len() > BULK { Class::Bulk } else { Class::State };
        if let Err(error) = self.mesh.send(to.node, class, Kind::CHECKPOINT, frame) {
            tracing::debug!(%group, %to, %error, "a checkpoint's frame was not taken; it is sent again");
        }
    }

    fn propose_sync(&self, group: &GroupName, version: Version, in_sync: std::collections::BTreeSet<Member>) {
        send(&self.inbox, In::Sync { group: group.clone(), version, in_sync });
    }

    fn app(&self, group: &GroupName, state: AppState) {
        if let Some(keeper) = self.keepers.get(group)
            && keeper.send(keeper::Order::App(state)).is_err()
        {
            tracing::debug!(%group, "its keeper has ended");
        }
    }

    fn quiesced(&self, group: &GroupName, epoch: Epoch, _target: Member) {
        send(&self.inbox, In::Quiesced { group: group.clone(), epoch });
    }

    fn quiesce_failed(&self, group: &GroupName, epoch: Epoch, target: Member) {
        tracing::info!(%group, %epoch, %target, "the successor left the set; the role stays");
    }

    fn silenced(&self, group: &GroupName, epoch: Epoch) {
        send(&self.inbox, In::Silenced { group: group.clone(), epoch });
    }

    fn offered(&self, group: &GroupName, offer: Offer) {
        send(&self.inbox, In::Offered { group: group.clone(), offer });
    }

    fn loss_window(&self, group: &GroupName, records: u64) {
        tracing::debug!(%group, records, "would be lost with this node");
    }

    fn peer_fault(&self, group: &GroupName, fault: PeerFault) {
        tracing::warn!(%group, %fault, "a peer's checkpoint frame makes no sense");
    }

    fn copy_lost(&self, group: &GroupName) {
        // Its memory is gone while this life goes on: the one thing that must not be. A new process is a new life.
        tracing::error!(%group, "the copy is gone; this node begins a new life");
        std::process::abort();
    }
}

fn send(inbox: &Sender<In>, input: In) {
    if inbox.send(input).is_err() {
        tracing::debug!("the core loop has ended");
    }
}

fn lock(mirror: &Arc<Mutex<Mirror>>) -> std::sync::MutexGuard<'_, Mirror> {
    mirror.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Frames longer than this are bulk.
const BULK: usize = 64 << 10;
