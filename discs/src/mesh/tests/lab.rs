//! Meshes on loopback, a receiver that remembers, and a relay that can be cut.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Condvar;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::Instant;

use super::*;
use crate::pki::{Authority, Identity, Issued};

/// Far beyond what anything here takes, so that only a hang fails.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) type Key = (u32, [u8; 32]);

/// What a receiver was told.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) frames: Vec<(NodeId, Class, Kind, Bytes)>,
    pub(super) states: BTreeMap<NodeId, Vec<PeerState>>,
    pub(super) keys: BTreeMap<(NodeId, LinkId), Vec<Key>>,
    pub(super) faults: Vec<Fault>,
    pub(super) panic_at: Option<Bytes>,
}

impl Seen {
    pub(super) fn links_up(&self, peer: NodeId) -> usize {
        self.states.get(&peer).and_then(|s| s.last()).map_or(0, |s| s.links_up.len())
    }

    pub(super) fn lives(&self, peer: NodeId) -> Vec<u64> {
        let mut lives: Vec<_> = self.states.get(&peer).into_iter().flatten().map(|s| s.life).collect();
        lives.dedup();
        lives
    }

    /// The numbers that came from a peer in a class.
    pub(super) fn numbers(&self, from: NodeId, class: Class) -> Vec<u64> {
        let of = self.frames.iter().filter(|f| f.0 == from && f.1 == class);
        of.map(|f| u64::from_le_bytes(f.3[..8].try_into().unwrap())).collect()
    }
}

#[derive(Default)]
pub(super) struct Recorder {
    seen: Mutex<Seen>,
    changed: Condvar,
}

impl Recorder {
    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap());
        self.changed.notify_all();
    }

    /// Waits until `reached`, then says what `reached` found.
    #[track_caller]
    pub(super) fn wait<T>(&self, what: &str, mut reached: impl FnMut(&mut Seen) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = self.seen.lock().unwrap();
        loop {
            if let Some(found) = reached(&mut seen) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let frames = seen.frames.len();
                panic!("never: {what}; {frames} frames, {:?}, {:?}", seen.states, seen.faults);
            }
            // Not everything that is waited for is told to a receiver.
            seen = self.changed.wait_timeout(seen, left.min(Duration::from_millis(5))).unwrap().0;
        }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.seen.lock().unwrap().faults.is_empty()
    }
}

impl Receiver for Recorder {
    fn frame(&self, from: NodeId, class: Class, kind: Kind, payload: Bytes) {
        let panic = self.seen.lock().unwrap().panic_at.as_ref() == Some(&payload);
        assert!(!panic, "a panic that the test asked for");
        self.note(|seen| seen.frames.push((from, class, kind, payload)));
    }

    fn peer(&self, peer: NodeId, state: PeerState) {
        self.note(|seen| seen.states.entry(peer).or_default().push(state));
    }

    fn liveness_key(&self, peer: NodeId, link: LinkId, key_id: u32, key: [u8; 32]) {
        self.note(|seen| seen.keys.entry((peer, link)).or_default().push((key_id, key)));
    }

    fn fault(&self, fault: Fault) {
        self.note(|seen| seen.faults.push(fault));
    }
}

/// Addresses that no other test and no other process has.
fn fresh_address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(2);
    let pid = std::process::id();
    let [.., high, low] = pid.to_be_bytes();
    let host = NEXT.fetch_add(1, Ordering::Relaxed);
    Ipv4Addr::new(127, high | 0x40, low, u8::try_from(host).expect("fewer than 250 addresses in one run"))
}

/// A domain. A node that is started again has the certificate that it had.
pub(super) struct Lab {
    authority: Authority,
    issued: Mutex<BTreeMap<u16, Issued>>,
}

pub(super) struct Node {
    pub(super) node: NodeId,
    pub(super) mesh: Option<Mesh>,
    pub(super) seen: Arc<Recorder>,
    pub(super) addresses: Vec<SocketAddr>,
}

impl Lab {
    pub(super) fn new() -> Self {
        Self::of("lab")
    }

    pub(super) fn of(domain: &str) -> Self {
        Self { authority: Authority::create(domain).unwrap(), issued: Mutex::default() }
    }

    /// Node `node` of this domain, as another domain lists it under the number `here`, by what it takes for the authority of `domain`.
    pub(super) fn abroad(&self, domain: &str, node: u16, here: u16, links: &[SocketAddr]) -> PeerConfig {
        let dir = tempfile::tempdir().unwrap();
        self.authority.save(dir.path()).unwrap();
        let abroad = Abroad::of(domain, &dir.path().join("ca.pem"), [NodeId(node)]).unwrap().pop();
        PeerConfig { node: NodeId(here), links: links.to_vec(), admission: 0, abroad }
    }

    pub(super) fn config(&self, node: u16, links: usize) -> MeshConfig {
        let mut issued = self.issued.lock().unwrap();
        let issued = issued.entry(node).or_insert_with(|| self.authority.issue(NodeId(node)).unwrap());
        let identity = issued.identity().unwrap();
        MeshConfig::new(identity, (0..links).map(|_| (fresh_address(), 6900).into()).collect())
    }

    /// The same node and key, with a new certificate of this admission.
    pub(super) fn renewed(&self, node: u16, admission: u64) -> Identity {
        let former = self.config(node, 1).identity;
        let pem = self.authority.certify(NodeId(node), &former.facts().public_key, admission, None).unwrap();
        former.renewed(&pem).unwrap()
    }

    pub(super) fn node(&self, node: u16, links: usize) -> Node {
        Node::start(self.config(node, links))
    }

    /// Two nodes that know each other from their start, with all links up.
    pub(super) fn pair(&self, links: usize) -> (Node, Node) {
        let (a, b) = (self.config(1, links), self.config(2, links));
        let direct = b.links.clone();
        self.introduced(a, b, direct)
    }

    /// The same, with a relay in each link.
    pub(super) fn relayed(&self, links: usize) -> (Node, Node, Vec<Relay>) {
        let (a, b) = (self.config(1, links), self.config(2, links));
        let relays: Vec<_> = b.links.iter().map(|address| Relay::to(*address)).collect();
        let via = relays.iter().map(|r| r.address).collect();
        let (a, b) = self.introduced(a, b, via);
        (a, b, relays)
    }

    fn introduced(&self, mut a: MeshConfig, mut b: MeshConfig, way_to_b: Vec<SocketAddr>) -> (Node, Node) {
        let links = a.links.len();
        b.peers = vec![PeerConfig { node: a.identity.node(), links: a.links.clone(), admission: 0, abroad: None }];
        a.peers = vec![PeerConfig { node: b.identity.node(), links: way_to_b, admission: 0, abroad: None }];
        let (a, b) = (Node::start(a), Node::start(b));
        a.wait_for_links(&b, links);
        b.wait_for_links(&a, links);
        (a, b)
    }
}

impl Node {
    pub(super) fn start(config: MeshConfig) -> Self {
        let (node, addresses, seen) = (config.identity.node(), config.links.clone(), Arc::new(Recorder::default()));
        let mesh = Mesh::start(config, seen.clone()).unwrap();
        Self { node, mesh: Some(mesh), seen, addresses }
    }

    pub(super) fn handle(&self) -> MeshHandle {
        self.mesh.as_ref().unwrap().handle()
    }

    pub(super) fn as_peer(&self) -> PeerConfig {
        PeerConfig { node: self.node, links: self.addresses.clone(), admission: 0, abroad: None }
    }

    pub(super) fn knows(&self, others: &[&Self]) {
        self.handle().set_peers(others.iter().map(|o| o.as_peer()).collect());
    }

    #[track_caller]
    pub(super) fn wait_for_links(&self, other: &Self, links: usize) {
        let what = format!("{links} links from {} to {}", self.node, other.node);
        self.seen.wait(&what, |seen| (seen.links_up(other.node) == links).then_some(()));
    }

    #[track_caller]
    pub(super) fn send(&self, to: &Self, class: Class, number: u64) {
        self.handle().send(to.node, class, Kind::EVENT, number.to_le_bytes().to_vec()).unwrap();
    }

    #[track_caller]
    pub(super) fn wait_for_numbers(&self, from: &Self, class: Class, up_to: u64) {
        let what = format!("{up_to} {class:?} frames from {} at {}", from.node, self.node);
        let numbers = self.seen.wait(&what, |seen| {
            let numbers = seen.numbers(from.node, class);
            (numbers.last() == Some(&(up_to - 1))).then_some(numbers)
        });
        assert_eq!(numbers, (0..up_to).collect::<Vec<_>>(), "{what}");
    }

    #[track_caller]
    pub(super) fn wait_for_fault(&self, what: &str, is_it: impl Fn(&Fault) -> bool) -> Fault {
        self.seen.wait(what, |seen| seen.faults.iter().find(|f| is_it(f)).cloned())
    }
}

/// Between a dialling node and one link of another one. Cut, it carries nothing either way.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    cut: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    pub(super) fn to(target: SocketAddr) -> Self {
        let front = Arc::new(UdpSocket::bind((fresh_address(), 6900)).unwrap());
        let back = Arc::new(UdpSocket::bind((fresh_address(), 6900)).unwrap());
        let address = front.local_addr().unwrap();
        let (cut, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let dialler = Arc::new(Mutex::new(None));
        let there = {
            let (front, back, dialler) = (front.clone(), back.clone(), dialler.clone());
            carry(front, cut.clone(), ended.clone(), move |bytes, from| {
                *dialler.lock().unwrap() = Some(from);
                back.send_to(bytes, target)
            })
        };
        let here = carry(back, cut.clone(), ended.clone(), move |bytes, _| match *dialler.lock().unwrap() {
            Some(dialler) => front.send_to(bytes, dialler),
            None => Ok(0),
        });
        Self { address, cut, ended, threads: vec![there, here] }
    }

    pub(super) fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::SeqCst);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

fn carry(
    from: Arc<UdpSocket>,
    cut: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    to: impl Fn(&[u8], SocketAddr) -> io::Result<usize> + Send + 'static,
) -> JoinHandle<()> {
    from.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while !ended.load(Ordering::SeqCst) {
            let Ok((length, sender)) = from.recv_from(&mut buffer) else { continue };
            if !cut.load(Ordering::SeqCst) {
                // A refused datagram is a lost one.
                drop(to(&buffer[..length], sender));
            }
        }
    })
}
