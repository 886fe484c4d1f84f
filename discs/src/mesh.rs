//! The bus between nodes: one QUIC endpoint per link, one connection per peer and link, a [`Session`] per peer on top.
//!
//! Everything runs on one thread with a runtime of its own, so that a session has no lock to wait for and a panic in here stays
//! here. Other threads hand frames in with [`MeshHandle::send`], which never waits; frames come out by [`Receiver`], called on
//! the mesh's thread. Of two nodes the one with the lower number dials, on every link, for ever; of two in different domains the one whose
//! domain's name comes first.
//!
//! The way of a frame: queue (bounded, per lane) -> session (numbered, kept) -> stream buffer -> QUIC. All that is waiting at
//! one wake-up goes out in one write, so that small frames cost what they should; nothing is held back for company.
//!
//! It must never: act on a frame of a peer whose certificate does not name it, wait for a callback's owner, judge who is alive
//! (that is liveness; here a link is up while its connection is).

mod link;
mod peer;
mod report;
mod stream;
#[cfg(test)]
mod tests;
mod transport;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use quinn::{Endpoint, VarInt};
use sixnines_core::domain::config::Profile;
use sixnines_core::ids::{LinkId, NodeId};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use crate::pki::{self, Abroad, Identity, PkiError};
use crate::session::{Counters, Limits, Session};
use crate::wire::{Class, Hello, Kind, Lane, NodeRole, PROTOCOL, Versions};
use peer::{Peer, Work};
pub use report::Fault;
use report::Reports;

/// What the mesh needs to know at its start.
#[derive(Debug)]
pub struct MeshConfig {
    /// Who we are; the domain and the node number come from here.
    pub identity: Identity,
    /// Our life, above that of every earlier process of this node as far as we know. Default: nanoseconds of wall time. A peer
    /// that has seen a higher one says so, and the session goes on above it.
    pub life: u64,
    /// What we tell others that we are.
    pub role: NodeRole,
    /// The program's version, for people.
    pub build: String,
    /// Sets the patience of redialling and the first guess at the round trip.
    pub profile: Profile,
    /// Our own address on each link, in the order of the links. Port 0: any, for tests.
    pub links: Vec<SocketAddr>,
    /// The other members. May be changed later with [`MeshHandle::set_peers`].
    pub peers: Vec<PeerConfig>,
    /// Bounds of each session.
    pub limits: Limits,
    /// Frame formats; other than the default only where two versions are tested against each other.
    pub versions: Versions,
}

impl MeshConfig {
    /// A node with these addresses and no peers yet.
    pub fn new(identity: Identity, links: Vec<SocketAddr>) -> Self {
        let life = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |d| {
            u64::try_from(d.as_nanos()).unwrap_or(u64::MAX >> 1)
        });
        Self {
            identity,
            life,
            role: NodeRole::Node,
            build: env!("CARGO_PKG_VERSION").to_owned(),
            profile: Profile::default(),
            links,
            peers: Vec::new(),
            limits: Limits::default(),
            versions: Versions::OURS,
        }
    }
}

/// Another member of the domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its number.
    pub node: NodeId,
    /// Its address on each link, in the order of the links.
    pub links: Vec<SocketAddr>,
    /// The lowest admission whose certificates count for it (`sixnines_core::domain::admission`).
    pub admission: u64,
    /// Who it is in its own domain, if that is another one.
    pub abroad: Option<Abroad>,
}

impl PeerConfig {
    fn allowed(&self) -> (NodeId, u64, Option<Abroad>) {
        (self.node, self.admission, self.abroad.clone())
    }

    /// Its domain, and its number there.
    fn at_home<'a>(&'a self, ours: &'a str) -> (&'a str, NodeId) {
        self.abroad.as_ref().map_or((ours, self.node), |a| (a.domain(), a.node()))
    }
}

/// Takes what comes in. Called on the mesh's thread: return soon, never wait, and do not call back into [`Mesh`] itself.
pub trait Receiver: Send + Sync + 'static {
    /// The next frame of its lane.
    fn frame(&self, from: NodeId, class: Class, kind: Kind, payload: Bytes);

    /// The peer began a life, or the links to it changed. Comes before the first frame of the life.
    fn peer(&self, peer: NodeId, state: PeerState);

    /// A new connection gives both ends the same key, for sealing the heartbeats of this peer on this link.
    fn liveness_key(&self, peer: NodeId, link: LinkId, key_id: u32, key: [u8; 32]);

    /// Something that somebody should know. The same one comes again every ten seconds at most.
    fn fault(&self, fault: Fault);
}

/// How we stand with a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerState {
    /// Its life. When it changes, what was sent before and not acknowledged is gone: resynchronise.
    pub life: u64,
    /// The links with a connection.
    pub links_up: Vec<LinkId>,
}

/// How one connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkStats {
    /// On which link.
    pub link: LinkId,
    /// Its number: another connection in its place has another one.
    pub number: u64,
    /// Whether liveness thinks well of it; if not, urgent frames still use it.
    pub good: bool,
    /// The present estimate of the round trip.
    pub round_trip: Duration,
    /// Packets sent.
    pub packets_sent: u64,
    /// Packets that had to be sent again.
    pub packets_lost: u64,
}

/// Why a frame was not taken. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The peer is behind by the whole window of this class, or out of reach for so long.
    #[error("the peer is behind by the whole window of this class")]
    Full,
    /// Too long, or one of the mesh's own kinds. The caller's mistake.
    #[error("a payload is at most {} bytes, of a kind from 16 up", crate::wire::PAYLOAD_BYTES_MAX)]
    NotSendable,
    /// No member of this number.
    #[error("{0} is no member")]
    UnknownPeer(NodeId),
    /// The mesh has been stopped.
    #[error("the mesh has been stopped")]
    Stopped,
}

/// Why a mesh could not be started. Nothing runs.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// The operating system refused the socket.
    #[error("cannot open {address} for {link_name}")]
    Bind {
        /// Which of our links.
        link_name: String,
        /// The address that was configured for it.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Keys or certificates are not usable.
    #[error("the node's identity cannot be used")]
    Identity(#[from] PkiError),
    /// The QUIC library refused the TLS settings, or the runtime did not start.
    #[error("cannot start the mesh's {0}: {1}")]
    Start(&'static str, String),
}

/// How often something worth knowing happened, over all peers. They only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Datagrams that cannot be QUIC of ours.
    pub garbage: u64,
    /// Handshakes that failed at a certificate, on either end.
    pub untrusted: u64,
    /// Connections refused by a [`crate::wire::Refusal`], on either end.
    pub refused: u64,
    /// Connections ended because what came was no frame, or one that no correct peer sends.
    pub broken: u64,
    /// Connection attempts dropped because too many were under way.
    pub crowded: u64,
    /// Tasks of ours that panicked and were started anew.
    pub panics: u64,
}

/// What every task of the mesh shares.
struct Shared {
    /// Whom the TLS checks let in.
    allowed: Arc<pki::Members>,
    hello: Hello,
    profile: Profile,
    limits: Limits,
    receiver: Arc<dyn Receiver>,
    peers: RwLock<BTreeMap<NodeId, Arc<Peer>>>,
    /// Empty once the mesh has ended, so that handles which live on do not keep its sockets.
    endpoints: Mutex<Vec<Endpoint>>,
    addresses: Vec<SocketAddr>,
    /// What we show when we dial.
    client: RwLock<quinn::ClientConfig>,
    reports: Arc<Reports>,
    /// Tells a connection from the one that took its place.
    generations: AtomicU64,
}

impl Shared {
    fn peer(&self, node: NodeId) -> Option<Arc<Peer>> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).get(&node).cloned()
    }

    fn client(&self) -> quinn::ClientConfig {
        self.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From the next handshake on.
    fn show(&self, identity: &Identity) -> Result<(), MeshError> {
        let settings = transport::Settings::new(identity, &self.allowed, self.profile)?;
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = settings.client();
        self.endpoints().iter().for_each(|endpoint| endpoint.set_server_config(Some(settings.server())));
        Ok(())
    }

    fn hello(&self, life: u64) -> Hello {
        Hello { life, ..self.hello.clone() }
    }

    fn next_generation(&self) -> u64 {
        self.generations.fetch_add(1, Ordering::Relaxed)
    }

    fn is_known_address(&self, address: IpAddr) -> bool {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).values().any(|peer| peer.is_at(address))
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets go of every socket and of every peer.
    fn clear(&self) {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.peers.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// The running mesh. Dropped without [`Mesh::stop`] it ends as if the process had died: peers are told nothing.
pub struct Mesh {
    handle: MeshHandle,
    thread: Option<JoinHandle<()>>,
}

/// For everybody who sends. Cheap to clone.
#[derive(Clone)]
pub struct MeshHandle {
    shared: Arc<Shared>,
    orders: mpsc::UnboundedSender<Order>,
}

/// What the mesh's thread is asked to do.
enum Order {
    SetPeers(Vec<PeerConfig>),
    Show(Box<Identity>),
    Stop { goodbye: bool },
}

impl Mesh {
    /// Opens the sockets and starts the mesh's thread.
    ///
    /// # Errors
    /// [`MeshError`]; nothing runs then.
    pub fn start(config: MeshConfig, receiver: Arc<dyn Receiver>) -> Result<Self, MeshError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| MeshError::Start("runtime", e.to_string()))?;
        let allowed = pki::Members::new(config.identity.domain(), []);
        allowed.set_all(config.peers.iter().map(PeerConfig::allowed));
        let reports = Arc::new(Reports::default());
        let settings = transport::Settings::new(&config.identity, &allowed, config.profile)?;
        let entered = runtime.enter();
        let (mut endpoints, mut addresses) = (Vec::new(), Vec::new());
        for (index, address) in config.links.iter().enumerate() {
            let bind = |source| MeshError::Bind { link_name: format!("link {index}"), address: *address, source };
            let endpoint = settings.open(*address, reports.garbage()).map_err(bind)?;
            addresses.push(endpoint.local_addr().map_err(bind)?);
            endpoints.push(endpoint);
        }
        drop(entered);
        let hello = Hello {
            protocol: PROTOCOL,
            versions: config.versions,
            build: config.build,
            domain: config.identity.domain().to_owned(),
            node: config.identity.node(),
            life: config.life,
            role: config.role,
        };
        let shared = Arc::new(Shared {
            allowed,
            hello,
            profile: config.profile,
            limits: config.limits,
            receiver,
            peers: RwLock::default(),
            endpoints: Mutex::new(endpoints),
            addresses,
            client: RwLock::new(settings.client()),
            reports,
            generations: AtomicU64::new(1),
        });
        let (orders, inbox) = mpsc::unbounded_channel();
        let handle = MeshHandle { shared: shared.clone(), orders };
        handle.set_peers(config.peers);
        let thread = std::thread::Builder::new()
            .name("mesh".into())
            .spawn(move || {
                runtime.block_on(run(shared.clone(), inbox));
                shared.clear();
                runtime.shutdown_background();
            })
            .map_err(|e| MeshError::Start("thread", e.to_string()))?;
        Ok(Self { handle, thread: Some(thread) })
    }

    /// For everybody who sends.
    pub fn handle(&self) -> MeshHandle {
        self.handle.clone()
    }

    /// Closes every connection with a word to the peer, and ends the thread.
    pub fn stop(mut self) {
        self.end(true);
    }

    fn end(&mut self, goodbye: bool) {
        let Some(thread) = self.thread.take() else { return };
        // It can only fail if the thread has ended by itself.
        drop(self.handle.orders.send(Order::Stop { goodbye }));
        if thread.join().is_err() {
            tracing::error!("the mesh's thread had panicked");
        }
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.end(false);
    }
}

impl MeshHandle {
    /// Hands over a frame. Never waits; callable from any thread. Frames of one thread keep their order within a lane.
    ///
    /// A frame goes to the life of the peer that [`Receiver::peer`] last told of, or to nobody.
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent.
    pub fn send(&self, to: NodeId, class: Class, kind: Kind, payload: impl Into<Bytes>) -> Result<(), SendError> {
        let peers = self.shared.peers.read().unwrap_or_else(PoisonError::into_inner);
        peers.get(&to).ok_or(SendError::UnknownPeer(to))?.send(class, kind, payload.into())
    }

    /// Liveness hears nothing any more on this link: use another one, at once, if there is one.
    pub fn link_down(&self, peer: NodeId, link: LinkId) {
        self.hint(peer, link, false);
    }

    /// Liveness hears the peer on this link again.
    pub fn link_up(&self, peer: NodeId, link: LinkId) {
        self.hint(peer, link, true);
    }

    fn hint(&self, peer: NodeId, link: LinkId, good: bool) {
        if let Some(peer) = self.shared.peer(peer) {
            peer.push(Work::Hint { link, good });
        }
    }

    /// Replaces the members. Who left loses its connections at once; who stays keeps them unless its addresses or its admission changed.
    pub fn set_peers(&self, peers: Vec<PeerConfig>) {
        // It can only fail after the stop, when there is nothing left to change.
        drop(self.orders.send(Order::SetPeers(peers)));
    }

    /// Shows another certificate of this node from the next handshake on. Connections that stand go on: they are as good as they were.
    pub fn show(&self, identity: Identity) {
        drop(self.orders.send(Order::Show(Box::new(identity)))); // as above
    }

    /// How we stand with a peer; `None` before the first contact.
    pub fn peer_state(&self, peer: NodeId) -> Option<PeerState> {
        self.shared.peer(peer)?.state()
    }

    /// How the connections to a peer do, in the order of the links.
    pub fn links(&self, peer: NodeId) -> Vec<LinkStats> {
        self.shared.peer(peer).map_or_else(Vec::new, |peer| peer.links())
    }

    /// What a peer said that it reads, by its newest connection; `None` while there is none: what it was before may not be what comes back.
    pub fn versions(&self, peer: NodeId) -> Option<Versions> {
        self.shared.peer(peer)?.versions()
    }

    /// How often things happened in the session with a peer.
    pub fn counters(&self, peer: NodeId) -> Option<Counters> {
        Some(self.shared.peer(peer)?.counters())
    }

    /// How often things happened at large.
    pub fn totals(&self) -> Totals {
        self.shared.reports.totals()
    }

    /// The addresses in use, in the order of the links.
    pub fn local_addresses(&self) -> &[SocketAddr] {
        &self.shared.addresses
    }
}

/// How long an orderly stop waits for the last words to leave.
const GOODBYE: Duration = Duration::from_millis(100);

/// The mesh's thread: who listens, who dials, until the stop.
async fn run(shared: Arc<Shared>, mut inbox: mpsc::UnboundedReceiver<Order>) {
    let mut listeners = JoinSet::new();
    let endpoints = shared.endpoints();
    for (index, endpoint) in endpoints.iter().enumerate() {
        listeners.spawn(link::listen_for_ever(shared.clone(), link_id(index), endpoint.clone()));
    }
    let mut members = Members::default();
    while let Some(order) = inbox.recv().await {
        match order {
            Order::SetPeers(peers) => members.set(&shared, peers),
            Order::Show(identity) => {
                if let Err(error) = shared.show(&identity) {
                    tracing::error!(%error, "the renewed certificate cannot be shown; the former one is, as long as it lasts");
                }
            }
            Order::Stop { goodbye: false } => return,
            Order::Stop { goodbye: true } => break,
        }
    }
    for endpoint in &endpoints {
        endpoint.close(VarInt::from_u32(link::CODE_STOPPED), b"the node stops");
    }
    let all = async {
        for endpoint in &endpoints {
            endpoint.wait_idle().await;
        }
    };
    if tokio::time::timeout(GOODBYE, all).await.is_err() {
        tracing::debug!("a peer did not take our goodbye in time");
    }
}

/// The members, and our last life towards each that ever was one.
#[derive(Default)]
struct Members {
    present: BTreeMap<NodeId, Member>,
    lives: BTreeMap<NodeId, u64>,
}

/// A member and the tasks that serve it.
struct Member {
    config: PeerConfig,
    peer: Arc<Peer>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Member {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.peer.expel();
    }
}

impl Members {
    fn set(&mut self, shared: &Arc<Shared>, mut wanted: Vec<PeerConfig>) {
        wanted.retain(|p| p.node != shared.hello.node);
        shared.allowed.set_all(wanted.iter().map(PeerConfig::allowed));
        let (present, lives) = (&mut self.present, &mut self.lives);
        present.retain(|node, member| {
            let stays = wanted.contains(&member.config);
            if !stays {
                lives.insert(*node, member.peer.lives().0);
            }
            stays
        });
        for config in wanted {
            // A session that begins anew is a new life to the peer, which may remember the numbers of the last one.
            let life = lives.get(&config.node).map_or(shared.hello.life, |last| last + 1);
            present.entry(config.node).or_insert_with(|| Member::start(shared, config, life));
        }
        let table = present.iter().map(|(node, member)| (*node, member.peer.clone())).collect();
        *shared.peers.write().unwrap_or_else(PoisonError::into_inner) = table;
    }
}

impl Member {
    fn start(shared: &Arc<Shared>, config: PeerConfig, life: u64) -> Self {
        let session = Session::new(life, shared.limits.clone());
        let peer = Peer::new(&config, &shared.hello.domain, session, shared.receiver.clone(), shared.reports.clone());
        let mut tasks = vec![tokio::spawn(link::pump_for_ever(shared.clone(), peer.clone())).abort_handle()];
        if (shared.hello.domain.as_str(), shared.hello.node) < config.at_home(&shared.hello.domain) {
            for (index, (address, endpoint)) in config.links.iter().zip(shared.endpoints()).enumerate() {
                let way = link::Way { link: link_id(index), address: *address, endpoint };
                tasks.push(tokio::spawn(link::dial_for_ever(shared.clone(), peer.clone(), way)).abort_handle());
            }
        }
        Self { config, peer, tasks }
    }
}

fn link_id(index: usize) -> LinkId {
    LinkId(u8::try_from(index).expect("a node has a handful of links"))
}

/// Bytes that may wait per peer and lane for room in the session's window. At the bound: [`SendError::Full`].
const QUEUE_BYTES_MAX: usize = 4 << 20;

/// Streams are as urgent as their lanes.
fn priority(lane: Lane) -> i32 {
    -i32::from(lane as u8)
}
