//! A 64-byte frame there and back over the mesh, beside the same over bare QUIC, in one run on one machine.
//!
//! `cargo run --release -p sixnines-discs --example bench_pingpong -- [ROUNDS]`. Each end has a thread of its own; the figures are
//! microseconds for the whole round. "callback" asks again where the answer is handed up, "thread" asks from another thread and
//! waits for the answer there, as the core loop does.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Endpoint, RecvStream, SendStream, ServerConfig};
use sixnines_core::ids::{LinkId, NodeId};
use sixnines_discs::mesh::{Fault, Mesh, MeshConfig, MeshHandle, PeerConfig, PeerState, Receiver, SendError};
use sixnines_discs::pki::{Authority, Identity, Members, certificate_name};
use sixnines_discs::wire::{Class, Kind};

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);
const SIZE: usize = 64;
const WARM_UP: usize = 2_000;

fn main() {
    let rounds = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(20_000);
    println!("{:<48} {:>6} {:>6} {:>6} {:>6}", format!("{SIZE} B there and back, us, {rounds} rounds"), "p50", "p90", "p99", "p99.9");
    print("bare quinn, one stream", bare_quinn(rounds));
    for (links, class) in [(1, Class::State), (2, Class::State), (2, Class::Alarm)] {
        let lab = Lab::start(links);
        print(&format!("mesh, {links} link(s), {class:?}, callback"), lab.callback(class, rounds));
        print(&format!("mesh, {links} link(s), {class:?}, thread"), lab.thread(class, rounds));
    }
    let lab = Lab::start(1);
    print("mesh, 1 link, Control, callback", lab.callback(Class::Control, rounds));
    let (full, megabytes) = lab.beside_bulk(|| lab.callback(Class::Control, rounds));
    print(&format!("the same beside {megabytes:.0} MB/s of Bulk"), full);
    print("bare quinn again", bare_quinn(rounds));
    for (size, frames) in [(64, 2_000_000), (1024, 500_000), (65_536, 10_000)] {
        let rate = Lab::start(1).one_way(size, frames);
        let megabytes = rate * size as f64;
        println!("one way, {size} B, State, one link: {rate:.3} M frames/s, {megabytes:.0} MB/s");
    }
    println!("bare quinn, one way, writes of 64 KiB: {:.0} MB/s", bare_quinn_stream(600));

}

fn print(what: &str, mut rounds: Vec<Duration>) {
    rounds.drain(..WARM_UP);
    rounds.sort_unstable();
    let at = |per_mille: usize| rounds[(rounds.len() - 1) * per_mille / 1000].as_nanos() as f64 / 1000.0;
    println!("{what:<48} {:6.1} {:6.1} {:6.1} {:6.1}", at(500), at(900), at(990), at(999));
}

/// Two meshes on loopback.
struct Lab {
    meshes: [Mesh; 2],
    ends: [Arc<End>; 2],
}

/// What an end does with a frame.
struct End {
    handle: OnceLock<MeshHandle>,
    links_up: Sender<usize>,
    job: Mutex<Job>,
}

enum Job {
    Answer,
    /// Says that it came.
    Note(Sender<()>),
    /// Says so when so many have come.
    Count { left: usize, done: Sender<()> },
    /// Asks again.
    Drive { begin: Instant, left: usize, times: Vec<Duration>, done: Sender<Vec<Duration>> },
}

impl Receiver for End {
    fn frame(&self, from: NodeId, class: Class, kind: Kind, payload: Bytes) {
        let handle = self.handle.get().expect("set before anything is sent");
        let now = Instant::now();
        if kind == Kind::CHECKPOINT {
            return; // It is only there to be in the way.
        }
        match &mut *self.job.lock().expect("nobody panics") {
            Job::Answer => handle.send(from, class, kind, payload).expect("room for an answer"),
            Job::Note(came) => came.send(()).expect("somebody waits"),
            Job::Count { left, done } => {
                *left -= 1;
                if *left == 0 {
                    done.send(()).expect("somebody waits");
                }
            }
            Job::Drive { begin, left, times, done } => {
                times.push(now - *begin);
                *left -= 1;
                if *left == 0 {
                    return done.send(std::mem::take(times)).expect("somebody waits");
                }
                *begin = now;
                handle.send(from, class, kind, payload).expect("room for one frame");
            }
        }
    }

    fn peer(&self, _: NodeId, state: PeerState) {
        // Nobody listens any more once all links are up.
        self.links_up.send(state.links_up.len()).unwrap_or_default();
    }

    fn liveness_key(&self, _: NodeId, _: LinkId, _: u32, _: [u8; 32]) {}

    fn fault(&self, fault: Fault) {
        eprintln!("{fault}");
    }
}

impl Lab {
    fn start(links: u8) -> Self {
        let authority = Authority::create("bench").expect("a CA");
        let addresses: [Vec<_>; 2] = [1, 101].map(|host| (0..links).map(|link| free_address(host + link)).collect());
        let (links_up, news) = mpsc::channel();
        let (mut meshes, mut ends) = (Vec::new(), Vec::new());
        for (at, (node, peer)) in [(N1, N2), (N2, N1)].into_iter().enumerate() {
            let mut config = MeshConfig::new(identity(&authority, node), addresses[at].clone());
            config.peers = vec![PeerConfig { node: peer, links: addresses[1 - at].clone(), admission: 0 }];
            let end = Arc::new(End { handle: OnceLock::new(), links_up: links_up.clone(), job: Mutex::new(Job::Answer) });
            let mesh = Mesh::start(config, end.clone()).expect("a mesh");
            end.handle.get_or_init(|| mesh.handle());
            meshes.push(mesh);
            ends.push(end);
        }
        let mut whole = 0;
        while whole < 2 {
            whole += usize::from(news.recv().expect("the meshes run") == usize::from(links));
        }
        let two = "two were pushed";
        Self { meshes: meshes.try_into().ok().expect(two), ends: ends.try_into().ok().expect(two) }
    }

    fn set(&self, end: usize, job: Job) {
        *self.ends[end].job.lock().expect("nobody panics") = job;
    }

    fn ask(&self, class: Class, size: usize) -> Result<(), SendError> {
        self.meshes[0].handle().send(N2, class, Kind::EVENT, vec![7; size])
    }

    fn callback(&self, class: Class, rounds: usize) -> Vec<Duration> {
        let (done, times) = mpsc::channel();
        self.set(0, Job::Drive { begin: Instant::now(), left: rounds + WARM_UP, times: Vec::new(), done });
        self.ask(class, SIZE).expect("room for one frame");
        times.recv().expect("the mesh runs")
    }

    fn thread(&self, class: Class, rounds: usize) -> Vec<Duration> {
        let (came, answers) = mpsc::channel();
        self.set(0, Job::Note(came));
        let round = || {
            let begin = Instant::now();
            self.ask(class, SIZE).expect("room for one frame");
            answers.recv().expect("the mesh runs");
            begin.elapsed()
        };
        (0..rounds + WARM_UP).map(|_| round()).collect()
    }

    /// Runs `job` while as much as is taken goes the same way in the least urgent class.
    fn beside_bulk<T>(&self, job: impl FnOnce() -> T) -> (T, f64) {
        let stop = AtomicBool::new(false);
        let (handle, piece) = (self.meshes[0].handle(), Bytes::from(vec![7; 65_536]));
        std::thread::scope(|threads| {
            let flood = threads.spawn(|| {
                let (begin, mut bytes) = (Instant::now(), 0);
                while !stop.load(Ordering::Relaxed) {
                    match handle.send(N2, Class::Bulk, Kind::CHECKPOINT, piece.clone()) {
                        Ok(()) => bytes += piece.len(),
                        Err(_full) => std::thread::sleep(Duration::from_micros(200)),
                    }
                }
                bytes as f64 / begin.elapsed().as_secs_f64() / 1e6
            });
            let result = job();
            stop.store(true, Ordering::Relaxed);
            (result, flood.join().expect("it does not panic"))
        })
    }

    /// Millions of frames a second, from the first one sent to the last one handed up.
    fn one_way(&self, size: usize, frames: usize) -> f64 {
        let (done, all) = mpsc::channel();
        self.set(1, Job::Count { left: frames, done });
        let (handle, payload) = (self.meshes[0].handle(), Bytes::from(vec![7; size]));
        let begin = Instant::now();
        for _ in 0..frames {
            while handle.send(N2, Class::State, Kind::EVENT, payload.clone()) == Err(SendError::Full) {
                std::thread::yield_now();
            }
        }
        all.recv().expect("the mesh runs");
        frames as f64 / begin.elapsed().as_secs_f64() / 1e6
    }
}

fn identity(authority: &Authority, node: NodeId) -> Identity {
    authority.issue(node).and_then(|issued| issued.identity()).expect("an identity")
}

fn free_address(host: u8) -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 69, host), 0)).expect("loopback");
    socket.local_addr().expect("it is bound")
}

/// The same certificates, quinn's own settings, one stream, written and read directly.
fn bare_quinn(rounds: usize) -> Vec<Duration> {
    with_bare_quinn(
        async |mut send, mut receive| {
            let mut buffer = [0; SIZE];
            while receive.read_exact(&mut buffer).await.is_ok() {
                send.write_all(&buffer).await.expect("the client reads");
            }
        },
        async |mut send, mut receive| {
            let mut buffer = [7; SIZE];
            let mut times = Vec::with_capacity(rounds + WARM_UP);
            for _ in 0..rounds + WARM_UP {
                let begin = Instant::now();
                send.write_all(&buffer).await.expect("the server reads");
                receive.read_exact(&mut buffer).await.expect("the server answers");
                times.push(begin.elapsed());
            }
            times
        },
    )
}

/// Megabytes a second on one stream, in writes of 64 KiB.
fn bare_quinn_stream(megabytes: usize) -> f64 {
    with_bare_quinn(
        async |mut send, mut receive| {
            let mut chunks: [Bytes; 32] = std::array::from_fn(|_| Bytes::new());
            while let Ok(Some(_)) = receive.read_chunks(&mut chunks).await {}
            send.write_all(b"!").await.expect("the client waits");
            send.finish().expect("it is open");
            send.stopped().await.ok();
        },
        async |mut send, mut receive| {
            let (begin, piece) = (Instant::now(), Bytes::from(vec![7; 65_536]));
            for _ in 0..megabytes * 1_000_000 / 65_536 {
                send.write_chunk(piece.clone()).await.expect("the server reads");
            }
            send.finish().expect("it is open");
            receive.read_exact(&mut [0]).await.expect("the server has it all");
            megabytes as f64 / begin.elapsed().as_secs_f64()
        },
    )
}

fn with_bare_quinn<T>(
    server: impl AsyncFnOnce(SendStream, RecvStream) + Send + 'static,
    client: impl AsyncFnOnce(SendStream, RecvStream) -> T,
) -> T {
    let authority = Authority::create("bench").expect("a CA");
    let members = Members::new("bench", [(N1, 0)]);
    let tls = identity(&authority, N2).server_config(members).expect("TLS settings");
    let serve = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).expect("TLS 1.3")));
    let tls = identity(&authority, N1).client_config(Members::new("bench", [(N2, 0)])).expect("TLS settings");
    let dial = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("TLS 1.3")));
    let (bound, address) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        runtime().block_on(async {
            let endpoint = Endpoint::server(serve, free_address(201)).expect("a socket");
            bound.send(endpoint.local_addr().expect("it is bound")).expect("the client waits");
            let connection = endpoint.accept().await.expect("the client comes").await.expect("a handshake");
            let (send, receive) = connection.accept_bi().await.expect("a stream");
            server(send, receive).await;
        });
    });
    let address = address.recv().expect("the server runs");
    let result = runtime().block_on(async {
        let endpoint = Endpoint::client(free_address(202)).expect("a socket");
        let connecting = endpoint.connect_with(dial, address, &certificate_name("bench", N2)).expect("a good address");
        let (send, receive) = connecting.await.expect("a handshake").open_bi().await.expect("a stream");
        let result = client(send, receive).await;
        endpoint.close(0u32.into(), b"");
        endpoint.wait_idle().await;
        result
    });
    thread.join().expect("the server ends");
    result
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}
