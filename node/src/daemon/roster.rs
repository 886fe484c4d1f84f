//! Who belongs to the domain, told to everybody here who lets somebody in or keeps somebody out, the moment the control log says it.
//!
//! It is also written down (`members.json` in the state directory): a node that starts has to know who was expelled before its log has found
//! a leader. A membership that was never written down is the one that the domain's file proposes.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam::channel::Sender;
use serde::{Deserialize, Serialize};
use sixnines_core::domain::Domain;
use sixnines_core::domain::admission::Admission;
use sixnines_core::domain::config::DomainConfig;
use sixnines_core::ids::{NodeId, Version};
use sixnines_discs::liveness::shell::{Handle as Liveness, Order};
use sixnines_discs::mesh::{MeshHandle, PeerConfig};
use sixnines_discs::pki::Members;

use super::beside;
use super::serial::Lines;

/// A node, as this one has last known it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) node: NodeId,
    pub(super) links: Vec<SocketAddr>,
    /// The lowest admission whose certificates count.
    pub(super) admission: u64,
    pub(super) is_expelled: bool,
}

/// Everybody who belongs or belonged, this node among them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Everybody(Vec<Known>);

/// Tells.
pub(super) struct Roster {
    me: NodeId,
    mesh: MeshHandle,
    liveness: Arc<Liveness>,
    serial: Arc<Lines>,
    /// Who is let in at this node's door with a certificate, and whose doors this node believes.
    at_doors: Arc<Members>,
    told: Mutex<(Version, BTreeMap<NodeId, Admission>)>,
    writer: Sender<Everybody>,
}

impl Everybody {
    /// As it was last written down, else as the domain's file has it.
    pub(super) fn read(state: &Path, config: &DomainConfig) -> Self {
        let path = file(state);
        let found = fs::read(&path).ok();
        let read = found.and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| tracing::error!(%error, path = %path.display(), "cannot be read; the domain's file counts")).ok());
        read.unwrap_or_else(|| {
            let known = |n: &sixnines_core::domain::config::NodeConfig| Known { node: n.id, links: n.links.clone(), admission: 0, is_expelled: false };
            Self(config.nodes.iter().map(known).collect())
        })
    }

    fn of(domain: &Domain) -> Self {
        let known = domain.config.nodes.iter().map(|n| Known {
            node: n.id,
            links: n.links.clone(),
            admission: domain.admission(n.id),
            is_expelled: domain.is_expelled(n.id),
        });
        Self(known.collect())
    }

    /// Those that belong.
    pub(super) fn members(&self) -> impl Iterator<Item = &Known> {
        self.0.iter().filter(|k| !k.is_expelled)
    }

    /// Those that belong, and those that are to be found dead.
    pub(super) fn all_but(&self, me: NodeId) -> impl Iterator<Item = NodeId> {
        self.0.iter().map(|k| k.node).filter(move |n| *n != me)
    }

    /// Whom the mesh reaches.
    pub(super) fn peers(&self, me: NodeId) -> Vec<PeerConfig> {
        self.members().filter(|k| k.node != me).map(|k| PeerConfig { node: k.node, links: k.links.clone(), admission: k.admission, abroad: None }).collect()
    }

    /// Where heartbeats go.
    pub(super) fn heartbeats(&self, me: NodeId) -> BTreeMap<NodeId, Vec<SocketAddr>> {
        self.members().filter(|k| k.node != me).map(|k| (k.node, k.links.iter().copied().map(beside).collect())).collect()
    }

    pub(super) fn admissions(&self) -> impl Iterator<Item = (NodeId, u64)> {
        self.members().map(|k| (k.node, k.admission))
    }

    fn write(&self, state: &Path) -> std::io::Result<()> {
        let path = file(state);
        let beside = path.with_extension("json.new");
        let mut file = fs::File::create(&beside)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        fs::File::open(state)?.sync_all()
    }
}

fn file(state: &Path) -> PathBuf {
    state.join("members.json")
}

impl Roster {
    pub(super) fn start(me: NodeId, state: &Path, mesh: MeshHandle, liveness: Arc<Liveness>, serial: Arc<Lines>, at_doors: Arc<Members>) -> std::io::Result<Self> {
        let (writer, work) = crossbeam::channel::unbounded::<Everybody>();
        let state = state.to_owned();
        std::thread::Builder::new().name("roster".into()).spawn(move || {
            while let Ok(everybody) = work.recv() {
                if let Err(error) = everybody.write(&state) {
                    tracing::error!(%error, "who belongs to the domain cannot be written down: after a restart this node hears it late");
                }
            }
        })?;
        Ok(Self { me, mesh, liveness, serial, at_doors, told: Mutex::default(), writer })
    }

    /// The control log has applied something. Who is gone is cut off before anything else happens; who comes is expected before he can be there.
    pub(super) fn follow(&self, domain: &Domain) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if domain.config_version == Version(0) || (told.0 == domain.config_version && told.1 == domain.admissions) {
            return;
        }
        *told = (domain.config_version, domain.admissions.clone());
        let everybody = Everybody::of(domain);
        self.at_doors.set(everybody.admissions());
        self.liveness.order(Order::Peers(everybody.heartbeats(self.me)));
        self.serial.members(&everybody.members().map(|k| k.node).collect());
        self.mesh.set_peers(everybody.peers(self.me));
        if self.writer.send(everybody).is_err() {
            tracing::error!("the thread that writes down who belongs has ended");
        }
        if domain.is_expelled(self.me) {
            tracing::error!("this node was expelled from its domain: nobody here will hear it again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_down_counts_more_than_the_domains_file() {
        let state = tempfile::tempdir().expect("a directory");
        let node = |id: u16| sixnines_core::domain::config::NodeConfig { id: NodeId(id), chassis: "mxp1".into(), links: vec!["10.9.1.1:7400".parse().expect("an address")], voter: true, witness: false };
        let config = DomainConfig { nodes: vec![node(1), node(2)], ..DomainConfig::default() };
        let before = Everybody::read(state.path(), &config);
        assert_eq!(before.peers(NodeId(1)).len(), 1);
        let mut domain = Domain { config: config.clone(), ..Domain::default() };
        domain.admissions.insert(NodeId(2), Admission { number: 9, is_expelled: true });
        Everybody::of(&domain).write(state.path()).expect("it is written");
        let after = Everybody::read(state.path(), &config);
        assert!(after.peers(NodeId(1)).is_empty() && after.heartbeats(NodeId(1)).is_empty());
        assert_eq!(after.all_but(NodeId(1)).collect::<Vec<_>>(), [NodeId(2)], "it has to be found dead");
        fs::write(file(state.path()), "no JSON").expect("it is written");
        assert_eq!(Everybody::read(state.path(), &config), before);
    }
}
