//! One connection: dialled or accepted, introduced, served until it ends.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::{Connection, ConnectionError, Endpoint, Incoming, RecvStream, SendStream, VarInt};
use rustls::pki_types::CertificateDer;
use sixnines_core::domain::config::Profile;
use sixnines_core::ids::{LinkId, NodeId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::peer::{NewLink, Peer};
use super::stream::LaneStream;
use super::{Fault, Shared, priority};
use crate::pki::certificate_name;
use crate::wire::{Decoder, Frame, Hello, Lane, PROTOCOL, Refusal, Versions};

/// Application error codes of a closed connection.
pub(super) const CODE_STOPPED: u32 = 0;
pub(super) const CODE_REFUSED: u32 = 1;
pub(super) const CODE_REPLACED: u32 = 2;
const CODE_BROKEN: u32 = 3;

/// The first frame is short.
const HELLO_BYTES_MAX: usize = 4096;
/// A peer that has shown its certificate says `Hello` at once.
const HELLO_WITHIN: Duration = Duration::from_secs(2);
/// Introductions under way per link, from addresses of members. Whoever comes then is ignored and dials again.
const INTRODUCTIONS_MAX: usize = 64;
/// The same from other addresses, so that strangers cannot keep members out.
const STRANGERS_MAX: usize = 8;
/// Chunks taken from a stream at one go.
const CHUNKS: usize = 32;

/// Where one link of a peer is dialled.
pub(super) struct Way {
    pub(super) link: LinkId,
    pub(super) address: SocketAddr,
    pub(super) endpoint: Endpoint,
}

/// Why there is no connection, or no longer.
enum Failure {
    /// Nobody answered in time, or an ordinary end.
    Gone,
    /// Our check of their certificate failed.
    Untrusted(String),
    /// Their check of ours failed.
    Distrusted(String),
    RefusedByUs(Refusal),
    RefusedByPeer(Refusal),
    Broken(String),
    Panicked,
}

/// Sends what is queued for a peer.
pub(super) async fn pump_for_ever(shared: Arc<Shared>, peer: Arc<Peer>) {
    let pump = || {
        let peer = peer.clone();
        async move { peer.pump().await }
    };
    keep_alive(pump, || report_panic(&shared, "sender", peer.node)).await;
}

/// Dials one link of one peer.
pub(super) async fn dial_for_ever(shared: Arc<Shared>, peer: Arc<Peer>, way: Way) {
    let way = Arc::new(way);
    let dial = || dial(shared.clone(), peer.clone(), way.clone());
    keep_alive(dial, || report_panic(&shared, "dialler", peer.node)).await;
}

/// Accepts on one link, until the endpoint closes.
pub(super) async fn listen_for_ever(shared: Arc<Shared>, link: LinkId, endpoint: Endpoint) {
    let listen = || listen(shared.clone(), link, endpoint.clone());
    keep_alive(listen, || report_panic(&shared, "listener", shared.hello.node)).await;
}

/// Runs a task until it ends; one that panics is started anew.
async fn keep_alive<F>(start: impl Fn() -> F, panicked: impl Fn())
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let mut task = JoinSet::new();
        task.spawn(start());
        match task.join_next().await {
            Some(Err(error)) if error.is_panic() => panicked(),
            _ => return,
        }
    }
}

fn report_panic(shared: &Shared, task: &'static str, peer: NodeId) {
    shared.reports.fault(&*shared.receiver, Fault::Panicked { task, peer });
}

async fn dial(shared: Arc<Shared>, peer: Arc<Peer>, way: Arc<Way>) {
    let mut pause = Pause::new(shared.profile);
    loop {
        let failure = match connect(&shared, &peer, &way, pause.attempt()).await {
            Ok((connection, own_life, hello)) => {
                pause.reset();
                serve(&shared, &peer, way.link, connection, own_life, &hello).await
            }
            Err(failure) => failure,
        };
        report_on(&shared, &peer, way.link, way.address, failure);
        pause.wait().await;
    }
}

async fn listen(shared: Arc<Shared>, link: LinkId, endpoint: Endpoint) {
    let mut connections = JoinSet::new();
    let for_members = Arc::new(Semaphore::new(INTRODUCTIONS_MAX));
    let for_strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
    while let Some(incoming) = endpoint.accept().await {
        while connections.try_join_next().is_some() {}
        let from = incoming.remote_address();
        let places = if shared.is_known_address(from.ip()) { &for_members } else { &for_strangers };
        match places.clone().try_acquire_owned() {
            Ok(place) => drop(connections.spawn(accept(shared.clone(), link, incoming, place))),
            Err(_crowded) => {
                shared.reports.crowded();
                incoming.ignore();
            }
        }
    }
}

async fn accept(shared: Arc<Shared>, link: LinkId, incoming: Incoming, place: OwnedSemaphorePermit) {
    let address = incoming.remote_address();
    let introduced = introduce(&shared, incoming).await;
    drop(place);
    let (peer, failure) = match introduced {
        Ok((peer, connection, own_life, hello)) => {
            let failure = serve(&shared, &peer, link, connection, own_life, &hello).await;
            (Some(peer), failure)
        }
        Err((peer, failure)) => (peer, failure),
    };
    match peer {
        Some(peer) => report_on(&shared, &peer, link, address, failure),
        None => report_stranger(&shared, link, address, failure),
    }
}

async fn connect(
    shared: &Shared,
    peer: &Peer,
    way: &Way,
    attempt: Duration,
) -> Result<(Connection, u64, Hello), Failure> {
    let name = certificate_name(&peer.at_home.0, peer.at_home.1);
    let connecting = way
        .endpoint
        .connect_with(shared.client(), way.address, &name)
        .map_err(|_closed_or_bad_address| Failure::Gone)?;
    let connection = match timeout(attempt, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return Err(Failure::of(&error)),
        Err(_elapsed) => return Err(Failure::Gone),
    };
    let (own_life, _) = peer.lives();
    let exchange = async {
        let (mut send, mut receive) = connection.open_bi().await.map_err(drop)?;
        say(&mut send, &shared.hello(own_life).frame()).await?;
        receive.read_to_end(HELLO_BYTES_MAX).await.map_err(drop)
    };
    let hello = match timeout(HELLO_WITHIN, exchange).await {
        Ok(Ok(bytes)) => judge(shared, peer, &bytes),
        _ => Err(connection.close_reason().map_or(Failure::Gone, |e| Failure::of(&e))),
    };
    let hello = hello.inspect_err(|failure| turn_away(&connection, failure))?;
    Ok((connection, own_life, hello))
}

type Introduced = Result<(Arc<Peer>, Connection, u64, Hello), (Option<Arc<Peer>>, Failure)>;

async fn introduce(shared: &Shared, incoming: Incoming) -> Introduced {
    let connection = incoming.await.map_err(|e| (None, Failure::of(&e)))?;
    let named = certificate_of(&connection).and_then(|c| shared.allowed.named_by(&c));
    let Some(peer) = named.and_then(|node| shared.peer(node)) else {
        // The list has changed since the handshake.
        connection.close(VarInt::from_u32(CODE_STOPPED), b"no member");
        return Err((None, Failure::Untrusted("its certificate names no member".into())));
    };
    let own_life = peer.lives().0;
    let exchange = async {
        let (mut send, mut receive) = connection.accept_bi().await.map_err(drop)?;
        let bytes = receive.read_to_end(HELLO_BYTES_MAX).await.map_err(drop)?;
        let hello = judge(shared, &peer, &bytes);
        if hello.is_ok() {
            say(&mut send, &shared.hello(own_life).frame()).await?;
        }
        Ok::<_, ()>(hello)
    };
    let hello = match timeout(HELLO_WITHIN, exchange).await {
        Ok(Ok(hello)) => hello,
        _ => Err(connection.close_reason().map_or(Failure::Gone, |e| Failure::of(&e))),
    };
    match hello {
        Ok(hello) => Ok((peer, connection, own_life, hello)),
        Err(failure) => {
            turn_away(&connection, &failure);
            Err((Some(peer), failure))
        }
    }
}

/// Whether this `Hello` is from whom the certificate names, in a life and a format that we can go on with.
fn judge(shared: &Shared, peer: &Peer, bytes: &[u8]) -> Result<Hello, Failure> {
    let broken = |e: &dyn std::fmt::Display| Failure::Broken(e.to_string());
    let mut decoder = Decoder::default();
    decoder.push(Bytes::copy_from_slice(bytes));
    let frame = decoder.next_frame().map_err(|e| broken(&e))?.ok_or_else(|| broken(&"its Hello is cut off"))?;
    let hello = Hello::read(&frame).map_err(|e| broken(&e))?.map_err(Failure::RefusedByPeer)?;
    let ours = shared.hello.versions;
    if hello.protocol != PROTOCOL || ours.common(hello.versions).is_none() {
        return Err(Failure::RefusedByUs(Refusal::Version { ours, theirs: hello.versions }));
    }
    if (hello.domain.as_str(), hello.node) != (peer.at_home.0.as_str(), peer.at_home.1) {
        return Err(Failure::RefusedByUs(Refusal::Name { claimed: hello.node, domain: hello.domain }));
    }
    let (_, known) = peer.lives();
    if hello.life < known {
        return Err(Failure::RefusedByUs(Refusal::OldLife { known }));
    }
    Ok(hello)
}

/// A refusal travels as the reason of the close, so that it arrives whatever the other end is waiting for.
fn turn_away(connection: &Connection, failure: &Failure) {
    match failure {
        Failure::RefusedByUs(refusal) => {
            let mut bytes = BytesMut::new();
            refusal.frame().encode(&mut bytes);
            connection.close(VarInt::from_u32(CODE_REFUSED), &bytes);
        }
        _ => connection.close(VarInt::from_u32(CODE_BROKEN), b"no Hello"),
    }
}

async fn say(send: &mut SendStream, frame: &Frame) -> Result<(), ()> {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    send.write_all(&bytes).await.map_err(drop)?;
    send.finish().map_err(drop)
}

/// Puts the connection to use and reads from it until it ends.
async fn serve(
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    link: LinkId,
    connection: Connection,
    own_life: u64,
    hello: &Hello,
) -> Failure {
    let ours = shared.hello.versions;
    let Some(agreed) = ours.common(hello.versions) else { return Failure::RefusedByUs(Refusal::Version { ours, theirs: hello.versions }) };
    let lanes = match open_lanes(&connection, agreed).await {
        Ok(lanes) => lanes,
        Err(error) => return Failure::of(&error),
    };
    let generation = shared.next_generation();
    hand_over_key(shared, peer.node, link, &connection);
    let new = NewLink { link, generation, connection: connection.clone(), lanes, own_life, peer_life: hello.life, versions: hello.versions };
    if !peer.attach(new) {
        connection.close(VarInt::from_u32(CODE_REPLACED), b"too late");
        return Failure::Gone;
    }
    let in_use = InUse { peer, link, generation, connection: &connection };
    let failure = read_all(peer, link, generation, &connection, Versions { newest: agreed, ..ours }).await;
    if let Failure::Broken(reason) = &failure {
        connection.close(VarInt::from_u32(CODE_BROKEN), reason.as_bytes());
    }
    drop(in_use);
    failure
}

/// However its task ends, a connection that nobody reads is not left in use.
struct InUse<'a> {
    peer: &'a Peer,
    link: LinkId,
    generation: u64,
    connection: &'a Connection,
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        self.connection.close(VarInt::from_u32(CODE_STOPPED), b"");
        self.peer.detach(self.link, self.generation);
    }
}

async fn open_lanes(connection: &Connection, version: u8) -> Result<[LaneStream; Lane::COUNT], ConnectionError> {
    let mut lanes = Vec::with_capacity(Lane::COUNT);
    for lane in Lane::ALL {
        let stream = connection.open_uni().await?;
        if stream.set_priority(priority(lane)).is_err() {
            return Err(ConnectionError::LocallyClosed);
        }
        lanes.push(LaneStream::new(stream, version));
    }
    lanes.try_into().map_err(|_| ConnectionError::LocallyClosed)
}

/// Both ends derive the same bytes from the handshake, and nobody else can.
fn hand_over_key(shared: &Shared, peer: NodeId, link: LinkId, connection: &Connection) {
    let mut bytes = [0; 36];
    let exported = connection.export_keying_material(&mut bytes, b"EXPORTER-sixnines-liveness", &[link.0]);
    let (id, key) = bytes.split_at(4);
    match (exported, <[u8; 4]>::try_from(id), <[u8; 32]>::try_from(key)) {
        (Ok(()), Ok(id), Ok(key)) => shared.receiver.liveness_key(peer, link, u32::from_le_bytes(id), key),
        _ => tracing::error!(%peer, %link, "no key for heartbeats"),
    }
}

async fn read_all(peer: &Arc<Peer>, link: LinkId, generation: u64, connection: &Connection, reads: Versions) -> Failure {
    let mut readers = JoinSet::new();
    loop {
        tokio::select! {
            stream = connection.accept_uni() => match stream {
                Ok(stream) => {
                    readers.spawn(read(peer.clone(), link, generation, stream, reads));
                }
                Err(error) => return Failure::of(&error),
            },
            Some(ended) = readers.join_next() => match ended {
                Ok(Ok(())) => {}
                Ok(Err(reason)) => return Failure::Broken(reason),
                Err(_panic) => return Failure::Panicked,
            },
        }
    }
}

/// Reads one stream to its end. How the connection ended is not this task's to say.
async fn read(peer: Arc<Peer>, link: LinkId, generation: u64, mut stream: RecvStream, reads: Versions) -> Result<(), String> {
    let mut decoder = Decoder::reading(reads);
    let mut chunks: [Bytes; CHUNKS] = std::array::from_fn(|_| Bytes::new());
    while let Ok(Some(count)) = stream.read_chunks(&mut chunks).await {
        peer.receive(link, generation, &mut decoder, &mut chunks[..count])?;
    }
    Ok(())
}

fn certificate_of(connection: &Connection) -> Option<CertificateDer<'static>> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    chain.into_iter().next()
}

fn report_on(shared: &Shared, peer: &Peer, link: LinkId, address: SocketAddr, failure: Failure) {
    let node = peer.node;
    if let Failure::RefusedByPeer(Refusal::OldLife { known }) = failure {
        tracing::info!(peer = %node, known, "the peer knows a higher life of ours: going on above it");
        peer.raise_life(known);
    }
    let fault = match failure {
        Failure::Gone => return,
        Failure::Untrusted(reason) => Fault::Untrusted { link, address: address.ip(), reason },
        Failure::Distrusted(reason) => Fault::Distrusted { link, peer: node, reason },
        Failure::RefusedByUs(refusal) => Fault::Refused { link, peer: node, by_us: true, refusal },
        Failure::RefusedByPeer(refusal) => Fault::Refused { link, peer: node, by_us: false, refusal },
        Failure::Broken(reason) => Fault::Broken { link, peer: node, reason },
        Failure::Panicked => Fault::Panicked { task: "reader", peer: node },
    };
    shared.reports.fault(&*shared.receiver, fault);
}

/// Somebody who has not shown who he is.
fn report_stranger(shared: &Shared, link: LinkId, address: SocketAddr, failure: Failure) {
    let reason = match failure {
        Failure::Untrusted(reason) | Failure::Distrusted(reason) | Failure::Broken(reason) => reason,
        _ => return,
    };
    shared.reports.fault(&*shared.receiver, Fault::Untrusted { link, address: address.ip(), reason });
}

impl Failure {
    fn of(error: &ConnectionError) -> Self {
        /// RFC 9001, 4.8: a TLS alert, plus this.
        const ALERTS: std::ops::Range<u64> = 0x100..0x200;
        match error {
            ConnectionError::TransportError(e) if ALERTS.contains(&u64::from(e.code)) => Self::Untrusted(e.reason.clone()),
            ConnectionError::ConnectionClosed(e) if ALERTS.contains(&u64::from(e.error_code)) => {
                Self::Distrusted(e.to_string())
            }
            ConnectionError::ApplicationClosed(e) if e.error_code == VarInt::from_u32(CODE_REFUSED) => refusal_in(&e.reason),
            _ => Self::Gone,
        }
    }
}

fn refusal_in(reason: &Bytes) -> Failure {
    let mut decoder = Decoder::default();
    decoder.push(reason.clone());
    let frame = decoder.next_frame().ok().flatten();
    match frame.map(|frame| Hello::read(&frame)) {
        Some(Ok(Err(refusal))) => Failure::RefusedByPeer(refusal),
        _ => Failure::Broken("it refuses us for a reason that we cannot read".into()),
    }
}

/// How long to wait for an answer, and between two attempts.
struct Pause {
    attempts: u32,
    next: Duration,
    first: Duration,
    longest: Duration,
}

impl Pause {
    fn new(profile: Profile) -> Self {
        let (first, longest) = match profile {
            Profile::Fabric | Profile::Lan => (2, 50),
            Profile::Wan => (50, 1000),
        };
        let first = Duration::from_millis(first);
        Self { attempts: 0, next: first, first, longest: Duration::from_millis(longest) }
    }

    fn reset(&mut self) {
        self.attempts = 0;
        self.next = self.first;
    }

    /// QUIC repeats its first packet at intervals that double, so an attempt that is given up early finds a peer early that has
    /// just come up; one in four is longer, for a peer or a network that is slow.
    fn attempt(&mut self) -> Duration {
        self.attempts = self.attempts.wrapping_add(1);
        Duration::from_millis(if self.attempts.is_multiple_of(4) { 2000 } else { 250 })
    }

    async fn wait(&mut self) {
        let pause = self.next;
        self.next = (self.next * 2).min(self.longest);
        tokio::time::sleep(pause).await;
    }
}
