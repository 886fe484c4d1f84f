//! Sockets and QUIC settings for links inside a building; the reason for each stands beside it.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{
    AckFrequencyConfig, AsyncUdpSocket, ClientConfig, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig,
    IdleTimeout, Runtime, ServerConfig, TokioRuntime, TransportConfig, UdpPoller, VarInt,
};
use ring::rand::SecureRandom;
use sixnines_core::domain::config::Profile;

use super::MeshError;
use crate::pki::{Identity, Members};

/// QUIC version 1 and no other.
const QUIC_VERSION: u32 = 1;
/// The kernel's default of 208 KiB loses packets even on loopback, which looks like a lossy network.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// Connections that have not shown a certificate yet, per link. More are ignored.
const INCOMING_MAX: usize = 64;

/// Everything that endpoints are made of.
pub(super) struct Settings {
    endpoint: EndpointConfig,
    server: ServerConfig,
    client: ClientConfig,
}

impl Settings {
    pub(super) fn new(identity: &Identity, members: &Arc<Members>, profile: Profile) -> Result<Self, MeshError> {
        let transport = Arc::new(transport(profile));
        let tls = identity.server_config(members.clone())?;
        let tls = QuicServerConfig::try_from(tls).map_err(|e| MeshError::Start("server TLS", e.to_string()))?;
        let mut server = ServerConfig::with_crypto(Arc::new(tls));
        server.transport_config(transport.clone());
        server.migration(false); // A link is an address; who comes from another one is on another link.
        server.max_incoming(INCOMING_MAX);
        let tls = QuicClientConfig::try_from(identity.client_config(members.clone())?)
            .map_err(|e| MeshError::Start("client TLS", e.to_string()))?;
        let mut client = ClientConfig::new(Arc::new(tls));
        client.transport_config(transport);
        Ok(Self { endpoint: endpoint(identity), server, client })
    }

    pub(super) fn client(&self) -> ClientConfig {
        self.client.clone()
    }

    pub(super) fn server(&self) -> ServerConfig {
        self.server.clone()
    }

    /// Opens one link. Needs the runtime's context.
    pub(super) fn open(&self, address: SocketAddr, garbage: Arc<AtomicU64>) -> io::Result<Endpoint> {
        let socket = UdpSocket::bind(address)?;
        enlarge_buffers(&socket);
        let runtime = Arc::new(TokioRuntime);
        let counted = Arc::new(Counted { socket: runtime.wrap_udp_socket(socket)?, garbage });
        Endpoint::new_with_abstract_socket(self.endpoint.clone(), Some(self.server.clone()), counted, runtime)
    }
}

/// The first form needs a right that we may lack, the second is cut to the system's limit; both are better than the default.
fn enlarge_buffers(socket: &UdpSocket) {
    let bytes = SOCKET_BUFFER_BYTES;
    let receive = setsockopt(socket, sockopt::RcvBufForce, &bytes).or_else(|_| setsockopt(socket, sockopt::RcvBuf, &bytes));
    let send = setsockopt(socket, sockopt::SndBufForce, &bytes).or_else(|_| setsockopt(socket, sockopt::SndBuf, &bytes));
    if let Err(error) = receive.and(send) {
        tracing::warn!(%error, "socket buffers stay at the system's default");
    }
}

fn endpoint(identity: &Identity) -> EndpointConfig {
    // The next process of this node can say "I do not know this connection" in a way that the peer believes: a restart is
    // noticed with the first packet and not by silence. For the same reason any connection id may be ours.
    let reset_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &identity.derive("quic stateless reset"));
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config.cid_generator(|| Box::new(RandomIds(ring::rand::SystemRandom::new())));
    config.supported_versions(vec![QUIC_VERSION]);
    config.grease_quic_bit(false); // So that garbage can be told by its first byte.
    config
}

fn transport(profile: Profile) -> TransportConfig {
    // What one stream may have under way: as much as its path holds in a round trip, and no more. The library's congestion control goes on until
    // something is lost, which inside a building is when a buffer of megabytes is full; what is urgent would stand behind all of it.
    let (round_trip, idle, under_way) = match profile {
        Profile::Fabric | Profile::Lan => (Duration::from_millis(1), 2_000, 256 << 10),
        Profile::Wan => (Duration::from_millis(50), 6_000, 4 << 20),
    };
    let mut acks = AckFrequencyConfig::default();
    // 25 ms by default, which a lost last packet would wait for.
    acks.max_ack_delay(Some(Duration::from_millis(2)));
    acks.ack_eliciting_threshold(VarInt::from_u32(10));
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle))))
        .keep_alive_interval(Some(Duration::from_millis(500)))
        .initial_rtt(round_trip) // 333 ms by default: a lost first packet would cost a second.
        .initial_mtu(1452)
        .ack_frequency_config(Some(acks))
        // Together the lanes' windows are 23 MiB: no lane can use up what another one needs to get into QUIC's buffer. QUIC's
        // own trap, a long list of small writes, is avoided by writing all that waits at once.
        .send_window(32 << 20)
        .receive_window(VarInt::from_u32(32 << 20))
        .stream_receive_window(VarInt::from_u32(under_way))
        .max_concurrent_uni_streams(VarInt::from_u32(8))
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .datagram_receive_buffer_size(None);
    config
}

/// Eight random bytes.
struct RandomIds(ring::rand::SystemRandom);

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes).expect("the operating system has random bytes");
        ConnectionId::new(&bytes)
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// A socket that counts what cannot be QUIC of ours. QUIC drops that too, without a word.
struct Counted {
    socket: Arc<dyn AsyncUdpSocket>,
    garbage: Arc<AtomicU64>,
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.fmt(f)
    }
}

impl AsyncUdpSocket for Counted {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.socket.poll_recv(cx, bufs, meta))?;
        for (buf, meta) in bufs.iter().zip(meta.iter()).take(count) {
            if is_garbage(&buf[..meta.len.min(meta.stride)]) {
                self.garbage.fetch_add(1, Ordering::Relaxed);
            }
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

/// RFC 9000, 17.2 and 17.3: the fixed bit and the version; 10.3: nothing is shorter than a stateless reset.
fn is_garbage(datagram: &[u8]) -> bool {
    const SHORTEST: usize = 21;
    const LONG: u8 = 0x80;
    const FIXED: u8 = 0x40;
    let Some((first, rest)) = datagram.split_first() else { return true };
    if datagram.len() < SHORTEST {
        return true;
    }
    if first & LONG == 0 {
        return first & FIXED == 0;
    }
    match rest.first_chunk().map(|version| u32::from_be_bytes(*version)) {
        Some(0) => false, // Version negotiation: the other bits may be anything.
        Some(QUIC_VERSION) => first & FIXED == 0,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::is_garbage;

    #[test]
    fn garbage_is_told_by_its_first_bytes() {
        let with_head = |head: &[u8]| [head, &[7; 40]].concat();
        assert!(is_garbage(&[]));
        assert!(is_garbage(&[0x40; 20]));
        assert!(is_garbage(&with_head(b"23 is what we told you")));
        assert!(is_garbage(&with_head(&[0xc0, 0, 0, 0, 9])));
        assert!(!is_garbage(&with_head(&[0xc0, 0, 0, 0, 1])));
        assert!(!is_garbage(&with_head(&[0x80, 0, 0, 0, 0])));
        assert!(!is_garbage(&with_head(&[0x41, 1, 2, 3, 4])));
    }
}
