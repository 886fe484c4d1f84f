//! The neighbours of this node: a mesh of their own, over which nothing goes but events ([`crate::neighbours`]).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use bytes::Bytes;
use crossbeam::channel::Sender;
use sixnines_core::abroad::Neighbour;
use sixnines_core::class::Pattern;
use sixnines_core::domain::config::Profile;
use sixnines_core::ids::{LinkId, NodeId};
use sixnines_discs::mesh::{Fault, Mesh, MeshConfig, MeshHandle, PeerConfig, PeerState, Receiver};
use sixnines_discs::pki::{Abroad, Identity};
use sixnines_discs::wire::{Class, Kind};

use crate::config::{Federation, NodeFile};
use crate::core_loop::In;
use crate::neighbours::{Place, Table};

/// All neighbours, as long as this lives.
pub(super) struct Neighbours {
    mesh: Mesh,
    desk: Arc<Desk>,
}

/// Where what comes in is made ours.
struct Desk {
    inbox: Sender<In>,
    table: Table,
    heard: Mutex<BTreeSet<NodeId>>,
}

/// For the core loop.
#[derive(Clone)]
pub(super) struct Ways {
    pub(super) mesh: MeshHandle,
    desk: Arc<Desk>,
}

impl Ways {
    /// What is to be heard of a neighbour's node.
    pub(super) fn hear(&self, node: NodeId) -> &[Pattern] {
        self.desk.table.hear(node)
    }
}

impl Neighbours {
    /// Listens for the neighbours that the node's file names, and dials them; `None` if it names none.
    ///
    /// # Errors
    /// A certificate that cannot be used, with its file; an address that is not this machine's, or taken.
    pub(super) fn start(file: &NodeFile, ours: &str, inbox: &Sender<In>) -> anyhow::Result<Option<Self>> {
        let Some(federation) = &file.federation else { return Ok(None) };
        let (peers, table) = table(federation, ours)?;
        let desk = Arc::new(Desk { inbox: inbox.clone(), table, heard: Mutex::default() });
        for entry in &federation.neighbours {
            desk.tell_neighbour(&entry.neighbour()); // that it is not heard yet
        }
        let identity = Identity::load(&file.identity, ours, file.node)?;
        let mut config = MeshConfig::new(identity, federation.listen.clone());
        config.profile = Profile::Wan; // however far away it is: nothing here waits for it
        config.peers = peers;
        let mesh = Mesh::start(config, Arc::clone(&desk) as _).context("federation")?;
        Ok(Some(Self { mesh, desk }))
    }

    pub(super) fn ways(&self) -> Ways {
        Ways { mesh: self.mesh.handle(), desk: Arc::clone(&self.desk) }
    }

    pub(super) fn stop(self) {
        self.mesh.stop();
    }
}

fn table(federation: &Federation, ours: &str) -> anyhow::Result<(Vec<PeerConfig>, Table)> {
    let (mut peers, mut table) = (Vec::new(), Table::default());
    for entry in &federation.neighbours {
        anyhow::ensure!(entry.domain != ours, "federation: {ours} is this domain itself");
        let neighbour = Arc::new(entry.neighbour());
        let abroad = Abroad::of(&entry.domain, &entry.authority, entry.nodes.iter().map(|n| n.node)).with_context(|| format!("federation: {}", entry.domain))?;
        for (node, abroad) in entry.nodes.iter().zip(abroad) {
            let here = neighbour.node(node.node).with_context(|| format!("federation: {} is no node", node.node))?;
            peers.push(PeerConfig { node: here, links: node.at.clone(), admission: 0, abroad: Some(abroad) });
            table.nodes.insert(here, Place { neighbour: Arc::clone(&neighbour), tell: entry.tell.clone() });
        }
    }
    Ok((peers, table))
}

impl Desk {
    fn core(&self, input: In) {
        if self.inbox.send(input).is_err() {
            tracing::debug!("the core loop has ended");
        }
    }

    /// How much of a neighbour is heard.
    fn tell_neighbour(&self, neighbour: &Neighbour) {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let all = self.table.nodes.iter().filter(|(_, place)| *place.neighbour == *neighbour);
        let (there, silent): (Vec<_>, Vec<_>) = all.map(|(node, _)| *node).partition(|node| heard.contains(node));
        self.core(In::Neighbour { domain: neighbour.domain.clone(), heard: there, silent });
    }
}

impl Receiver for Desk {
    fn frame(&self, from: NodeId, _class: Class, kind: Kind, payload: Bytes) {
        match self.table.read(from, kind, &payload) {
            Some(input) => self.core(input),
            None => tracing::debug!(%from, ?kind, "what a neighbour sends is not taken"),
        }
    }

    fn peer(&self, node: NodeId, state: PeerState) {
        let Some(place) = self.table.nodes.get(&node) else { return };
        let is_heard = !state.links_up.is_empty();
        let is_news = {
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            if is_heard { heard.insert(node) } else { heard.remove(&node) }
        };
        if is_heard && !place.neighbour.hear.is_empty() {
            self.core(In::Peer { node, life: state.life });
        }
        if is_news {
            self.core(In::Heard { node, is_heard });
            self.tell_neighbour(&place.neighbour);
        }
    }

    fn liveness_key(&self, _peer: NodeId, _link: LinkId, _key_id: u32, _key: [u8; 32]) {}

    fn fault(&self, fault: Fault) {
        self.core(In::Mesh(fault));
    }
}
