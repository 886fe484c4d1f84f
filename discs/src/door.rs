//! The door: where who is not on the mesh asks for a certificate, over TLS, one question and one answer a connection.
//!
//! It listens on TCP at the addresses where the mesh listens on UDP, on nodes that hold the domain's authority. Whoever comes sees the node's
//! certificate and the CA's. He may show a certificate of his own, which has to be a member's; what he may ask without one is the
//! [`Keeper`]'s business, and so is what the bytes mean. Plain threads: this is seldom, and nothing waits for it.
//!
//! It must never: take more than [`QUESTION_BYTES_MAX`] from anybody, keep a newcomer out because others hang about.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};

/// Longest question: a token and a request.
pub const QUESTION_BYTES_MAX: usize = 16 << 10;
/// Longest answer: a bundle of policies.
pub const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Visitors at a time. One more, and the one who has been there longest is sent away.
const VISITORS_MAX: usize = 16;
/// Each word has to come within so long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who answers.
pub trait Keeper: Send + Sync + 'static {
    /// Answers a question. On a thread of the visitor's own; may wait.
    fn answer(&self, visitor: &Visitor, question: &[u8]) -> Vec<u8>;
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// From where.
    pub address: SocketAddr,
    /// The certificate that he has shown, if he has: a member's.
    pub certificate: Option<CertificateDer<'static>>,
}

/// An open door. It stays open as long as the process lives.
#[derive(Clone)]
pub struct Door {
    config: Arc<RwLock<Arc<ServerConfig>>>,
}

/// Why somebody was not answered.
#[derive(Debug, thiserror::Error)]
pub enum VisitError {
    /// Nobody listens there, or nobody answers.
    #[error("nobody answers at {address}: {source}")]
    NoAnswer {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Whoever answers is not who he should be, or finds that we are not.
    #[error("{address} and this machine do not trust each other: {reason}")]
    Untrusted {
        /// Where.
        address: SocketAddr,
        /// What the check said, of either end.
        reason: String,
    },
}

impl Door {
    /// Listens at these addresses.
    ///
    /// # Errors
    /// The operating system refuses an address or a thread.
    pub fn open(addresses: &[SocketAddr], config: ServerConfig, keeper: Arc<dyn Keeper>) -> io::Result<Self> {
        let door = Self { config: Arc::new(RwLock::new(Arc::new(config))) };
        let inside = Arc::new(Mutex::new(VecDeque::new()));
        for address in addresses {
            let listener = TcpListener::bind(address)?;
            let (door, keeper, inside) = (door.clone(), Arc::clone(&keeper), Arc::clone(&inside));
            std::thread::Builder::new().name("door".into()).spawn(move || door.listen(&listener, &keeper, &inside))?;
        }
        Ok(door)
    }

    /// What visitors are shown from now on.
    pub fn set_config(&self, config: ServerConfig) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    fn listen(&self, listener: &TcpListener, keeper: &Arc<dyn Keeper>, inside: &Arc<Mutex<VecDeque<TcpStream>>>) {
        loop {
            let Ok((stream, address)) = listener.accept() else {
                std::thread::sleep(Duration::from_millis(100)); // no descriptors left, say
                continue;
            };
            let Ok(held) = stream.try_clone() else { continue };
            {
                let mut inside = inside.lock().unwrap_or_else(PoisonError::into_inner);
                if inside.len() >= VISITORS_MAX
                    && let Some(longest) = inside.pop_front()
                {
                    drop(longest.shutdown(Shutdown::Both)); // it fails for one who has gone by himself
                }
                inside.push_back(held);
            }
            let config = Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner));
            let (keeper, inside) = (Arc::clone(keeper), Arc::clone(inside));
            let started = std::thread::Builder::new().name("visitor".into()).spawn(move || {
                if let Err(error) = receive(&stream, address, config, &*keeper) {
                    tracing::info!(%address, %error, "a visitor was not answered");
                    let_last_words_arrive(&stream);
                }
                let ours = stream.peer_addr().ok();
                let mut inside = inside.lock().unwrap_or_else(PoisonError::into_inner);
                inside.retain(|other| ours.is_some() && other.peer_addr().ok() != ours);
            });
            if let Err(error) = started {
                tracing::warn!(%error, "no thread for a visitor");
            }
        }
    }
}

fn receive(stream: &TcpStream, address: SocketAddr, config: Arc<ServerConfig>, keeper: &dyn Keeper) -> io::Result<()> {
    be_patient(stream)?;
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut tls = StreamOwned::new(connection, stream);
    let question = read(&mut tls, QUESTION_BYTES_MAX)?;
    let certificate = tls.conn.peer_certificates().and_then(|chain| chain.first()).map(|c| c.clone().into_owned());
    let answer = keeper.answer(&Visitor { address, certificate }, &question);
    write(&mut tls, &answer)?;
    tls.conn.send_close_notify();
    tls.flush()
}

/// Closing a connection with bytes unread throws away what is on its way to the other end: the alert that says why.
fn let_last_words_arrive(mut stream: &TcpStream) {
    let mut rest = [0; QUESTION_BYTES_MAX];
    let ended = stream.shutdown(Shutdown::Write).and_then(|()| stream.set_read_timeout(Some(Duration::from_secs(1)))).and_then(|()| stream.read(&mut rest));
    if let Err(error) = ended {
        tracing::debug!(%error, "it had gone");
    }
}

/// Asks at a door, and waits for the answer.
///
/// # Errors
/// [`VisitError`]; whether the question was taken is not known then.
pub fn visit(address: SocketAddr, name: &str, config: ClientConfig, question: &[u8]) -> Result<Vec<u8>, VisitError> {
    let is_trust = |error: &io::Error| error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
    let failed = |source: io::Error| match source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(reason) => VisitError::Untrusted { address, reason: reason.to_string() },
        None => VisitError::NoAnswer { address, source },
    };
    let ask = || {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        be_patient(&stream)?;
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        let mut tls = StreamOwned::new(connection, stream);
        let asked = write(&mut tls, question);
        // Who refuses our certificate closes while we still write; why, is in what he sent before.
        let answer = read(&mut tls, ANSWER_BYTES_MAX);
        if answer.as_ref().err().is_some_and(is_trust) { answer } else { asked.and(answer) }
    };
    ask().map_err(failed)
}

fn be_patient(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE * 2))?; // an answer may have to wait for the control log
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)
}

/// Four bytes of length, then so many.
fn read(from: &mut impl io::Read, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u64::from(u32::from_be_bytes(length));
    if length > bytes_max as u64 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{length} bytes announced, at most {bytes_max} are taken")));
    }
    let mut bytes = Vec::new();
    from.take(length).read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

fn write(to: &mut impl io::Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    to.write_all(&length.to_be_bytes())?;
    to.write_all(bytes)?;
    to.flush()
}

#[cfg(test)]
mod tests {
    use sixnines_core::ids::NodeId;

    use super::*;
    use crate::pki::{Authority, Identity, Members, certificate_name, pinned_config};

    const N1: NodeId = NodeId(1);
    const N2: NodeId = NodeId(2);

    struct Echo(Arc<Members>);

    impl Keeper for Echo {
        fn answer(&self, visitor: &Visitor, question: &[u8]) -> Vec<u8> {
            let who = visitor.certificate.as_ref().and_then(|c| self.0.named_by(c)).map_or("a stranger".to_owned(), |n| n.to_string());
            format!("{who} said {}", String::from_utf8_lossy(question)).into_bytes()
        }
    }

    struct House {
        authority: Authority,
        members: Arc<Members>,
        address: SocketAddr,
    }

    impl House {
        fn new() -> Self {
            let authority = Authority::create("lab").unwrap();
            let members = Members::new("lab", [(N1, 0), (N2, 0)]);
            let config = authority.issue(N1).unwrap().identity().unwrap().door_config(members.clone()).unwrap();
            let address = loop {
                let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
                if Door::open(&[free], config.clone(), Arc::new(Echo(members.clone()))).is_ok() {
                    break free;
                }
            };
            Self { authority, members, address }
        }

        fn member(&self, node: NodeId) -> Identity {
            self.authority.issue(node).unwrap().identity().unwrap()
        }

        fn visit(&self, config: ClientConfig) -> Result<String, VisitError> {
            visit(self.address, &certificate_name("lab", N1), config, b"hello").map(|bytes| String::from_utf8(bytes).unwrap())
        }
    }

    #[test]
    fn who_knows_the_hash_of_the_authority_can_ask_without_a_certificate_and_a_member_is_known_by_his() {
        let house = House::new();
        let pinned = pinned_config(house.authority.fingerprint().unwrap()).unwrap();
        assert_eq!(house.visit(pinned).unwrap(), "a stranger said hello");
        let member = house.member(N2).visitor_config(house.members.clone()).unwrap();
        assert_eq!(house.visit(member).unwrap(), "n2 said hello");
    }

    #[test]
    fn another_authority_another_name_and_an_expelled_member_are_refused() {
        let house = House::new();
        let foreign = pinned_config(Authority::create("lab").unwrap().fingerprint().unwrap()).unwrap();
        assert!(matches!(house.visit(foreign), Err(VisitError::Untrusted { .. })));

        let pinned = pinned_config(house.authority.fingerprint().unwrap()).unwrap();
        let as_n2 = visit(house.address, &certificate_name("lab", N2), pinned, b"hello");
        assert!(matches!(as_n2, Err(VisitError::Untrusted { .. })), "{as_n2:?}");

        let member = house.member(N2).visitor_config(house.members.clone()).unwrap();
        house.members.set([(N1, 0), (N2, 5)]);
        let refused = house.visit(member);
        assert!(matches!(&refused, Err(VisitError::Untrusted { reason, .. }) if reason.contains("Revoked")), "{refused:?}");
    }

    #[test]
    fn those_who_hang_about_keep_nobody_out() {
        let house = House::new();
        let idle: Vec<TcpStream> = (0..VISITORS_MAX * 2).map(|_| TcpStream::connect(house.address).unwrap()).collect();
        let pinned = pinned_config(house.authority.fingerprint().unwrap()).unwrap();
        assert_eq!(house.visit(pinned).unwrap(), "a stranger said hello");
        drop(idle);
    }
}
