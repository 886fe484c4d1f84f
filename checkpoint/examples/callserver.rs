//! A call server whose calls outlive it: the example to copy when you write an application on sixnines.
//!
//! It answers requests over UDP and keeps the state of every call in a checkpoint. The same program runs on every node of its
//! service. Where it is active it serves; where it is standby the SDK keeps its memory equal to the active's, so that taking over is a
//! change of role and not a start. What makes it safe:
//! 1. An answer leaves only when what it says is safe on the standby and this node may speak: `commit_then`.
//! 2. A request that comes again with the same id is answered again and applied once, because the id of the last change is part
//!    of the call's state: clients repeat what was not answered.
//! 3. Without a term nothing is decided: a request that comes to a standby is dropped, and the client asks again.
//! 4. It binds the service's address whether that is here or not, so it need not wait for it in a takeover.
//!
//! # The datagrams
//! One line of ASCII each way, words parted by one blank:
//! - `Q CLIENT SEQUENCE ATTEMPT OP CALL`: CLIENT is a hexadecimal number that the client draws, SEQUENCE grows with each of its
//!   requests, ATTEMPT counts repeats of this one, OP is `setup`, `update`, `release` or `query`, CALL is the client's own number for
//!   a call.
//! - `A CLIENT SEQUENCE ATTEMPT RESULT NODE EPOCH APPLIED DIGEST`: RESULT is `ok`, `unknown` (no such call) or `refused` (the
//!   call's state does not allow it); NODE and EPOCH say who answers; APPLIED counts the changes ever made to the
//!   call, and DIGEST (hexadecimal) folds their sequences in order, from 0:
//!   `digest = rotate_left(digest, 5) xor sequence * 0x9e3779b97f4a7c15`.
//!
//! A client has at most one change of a call under way.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt};
use sixnines_checkpoint::{App, AppRole, Checkpoint, Replication, Term, WriteError};

/// Longer datagrams are no requests.
const REQUEST_BYTES_MAX: usize = 256;
/// For requests that come while the server is not scheduled.
const SOCKET_BYTES: usize = 4 << 20;
/// The server shows that it makes progress at least this often ...
const ALIVE_EVERY: Duration = Duration::from_millis(50);
/// ... and hangs, in the node's eyes, when it has not done so for this long.
const HANGS_AFTER: Duration = Duration::from_millis(500);

fn main() -> Result<(), Box<dyn Error>> {
    run(std::env::args().skip(1))
}

/// Serves until the node ends this process. Arguments: `--listen [NODE=]ADDRESS:PORT`; with `NODE=` it counts on that node alone.
///
/// # Errors
/// What was wrong with the arguments, the address or the node, in words.
pub(crate) fn run(arguments: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let node = std::env::var("NINES_NODE_NAME").map_err(|_| "NINES_NODE_NAME is not set: was this process started by a node?")?;
    let address = address_for(&node, arguments)?;
    let socket = Arc::new(listen(address).map_err(|error| format!("cannot listen on {address}: {error}"))?);

    let app = Arc::new(App::connect()?);
    let calls = app.open("calls", Replication::default())?;
    let term = Arc::new(Mutex::new(None));
    app.watch(HANGS_AFTER);
    let server = Server { node, socket, calls, app: Arc::clone(&app), term: Arc::clone(&term) };
    std::thread::Builder::new().name("server".into()).spawn(move || server.serve())?;

    // The server holds the lock while it decides, so a role never changes in the middle of a request.
    while let Some(role) = app.next_role() {
        match role {
            AppRole::Active(new) => *lock(&term) = Some(new),
            AppRole::Standby | AppRole::Lost => *lock(&term) = None,
            AppRole::Quiescing => {
                *lock(&term) = None;
                app.drained();
            }
        }
    }
    Ok(())
}

fn lock(term: &Mutex<Option<Term>>) -> MutexGuard<'_, Option<Term>> {
    // A term is there or not; a panic of the other thread leaves nothing half done.
    term.lock().unwrap_or_else(PoisonError::into_inner)
}

fn address_for(node: &str, mut arguments: impl Iterator<Item = String>) -> Result<SocketAddr, String> {
    const USAGE: &str = "usage: callserver --listen [NODE=]ADDRESS:PORT";
    let mut address = None;
    while let Some(word) = arguments.next() {
        let value = if word == "--listen" { arguments.next() } else { None };
        let value = value.ok_or_else(|| format!("{word:?} is not understood; {USAGE}"))?;
        let here = match value.split_once('=') {
            Some((name, address)) => (name == node).then_some(address),
            None => Some(value.as_str()),
        };
        if let Some(text) = here {
            address = Some(text.parse().map_err(|_| format!("{text:?} is not ADDRESS:PORT; {USAGE}"))?);
        }
    }
    address.ok_or_else(|| format!("there is no address to listen on for {node}; {USAGE}"))
}

/// A socket on an address that may not be on this node now. Answers leave from that address, too.
fn listen(address: SocketAddr) -> io::Result<UdpSocket> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::IpFreebind, &true)?;
    setsockopt(&fd, sockopt::RcvBuf, &SOCKET_BYTES)?; // the kernel grants what it may, and says nothing if that is less
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    let socket = UdpSocket::from(fd);
    socket.set_read_timeout(Some(ALIVE_EVERY))?;
    Ok(socket)
}

/// The thread that takes requests.
struct Server {
    node: String,
    socket: Arc<UdpSocket>,
    calls: Checkpoint,
    app: Arc<App>,
    /// What the server may decide under; without it, it drops what comes.
    term: Arc<Mutex<Option<Term>>>,
}

impl Server {
    fn serve(&self) {
        let mut datagram = [0; REQUEST_BYTES_MAX + 1];
        loop {
            self.app.alive();
            match self.socket.recv_from(&mut datagram) {
                Ok((length, from)) => {
                    if let (Some(request), Some(term)) = (Request::parse(&datagram[..length]), &*lock(&self.term)) {
                        self.handle(request, from, term);
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
                // A client that is gone, told by its kernel: nothing is wrong here.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) => {
                    eprintln!("callserver: the socket failed: {error}");
                    std::process::exit(1); // the node sees it at once, and the standby takes over
                }
            }
        }
    }

    /// Answers a request, as soon as what the answer says is safe.
    fn handle(&self, request: Request, from: SocketAddr, term: &Term) {
        let key = request.key();
        let known = self.calls.get(&key).and_then(|section| Call::from_bytes(section.bytes.as_slice()));
        let (pending, result, call) = match decide(known, &request) {
            Decision::Change(call) => (self.calls.put(term, &key, call.to_bytes()), "ok", call),
            // Nothing changes, but what is told may stand on changes that are not safe yet.
            Decision::Tell(result) => (self.calls.confirm(term), result, known.unwrap_or_default()),
            Decision::Nothing => return,
        };
        let text = |result: &str, call: Call| {
            let Request { client, sequence, attempt, .. } = request;
            format!("A {client:x} {sequence} {attempt} {result} {} {} {} {:x}", self.node, term.epoch(), call.applied, call.digest)
        };
        match pending {
            Ok(pending) => {
                let (answer, socket) = (text(result, call), Arc::clone(&self.socket));
                pending.commit_then(move |_applied| send(&socket, &answer, from));
            }
            // The role has gone, or there is no room. The client asks again, and whoever can answers.
            Err(WriteError::NoSpace(limit)) => eprintln!("callserver: no room for another call: {limit}"),
            Err(_) => {}
        }
    }
}

fn send(socket: &UdpSocket, answer: &str, to: SocketAddr) {
    if let Err(error) = socket.send_to(answer.as_bytes(), to) {
        // As good as lost on the way: the client asks again.
        eprintln!("callserver: no answer to {to}: {error}");
    }
}

/// What a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Setup,
    Update,
    Release,
    Query,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Request {
    client: u64,
    sequence: u64,
    attempt: u32,
    op: Op,
    call: u32,
}

impl Request {
    fn parse(datagram: &[u8]) -> Option<Self> {
        let datagram = Some(datagram).filter(|d| d.len() <= REQUEST_BYTES_MAX)?;
        let mut words = std::str::from_utf8(datagram).ok()?.trim_end().split(' ');
        if words.next()? != "Q" {
            return None;
        }
        let request = Self {
            client: u64::from_str_radix(words.next()?, 16).ok()?,
            sequence: words.next()?.parse().ok()?,
            attempt: words.next()?.parse().ok()?,
            op: match words.next()? {
                "setup" => Op::Setup,
                "update" => Op::Update,
                "release" => Op::Release,
                "query" => Op::Query,
                _ => return None,
            },
            call: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(request)
    }

    /// Where the call stands in the checkpoint: each client numbers its own calls.
    fn key(&self) -> Vec<u8> {
        [self.client.to_be_bytes().as_slice(), &self.call.to_be_bytes()].concat()
    }
}

/// The state of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Call {
    /// The id of the last change: when that comes again, it is answered and not applied.
    last: u64,
    applied: u64,
    digest: u64,
    up: bool,
}

impl Call {
    const BYTES: usize = 25;

    fn to_bytes(self) -> Vec<u8> {
        [&self.last.to_le_bytes()[..], &self.applied.to_le_bytes(), &self.digest.to_le_bytes(), &[u8::from(self.up)]].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().ok()?;
        let number = |at: usize| Some(u64::from_le_bytes(bytes[at..at + 8].try_into().ok()?));
        Some(Self { last: number(0)?, applied: number(8)?, digest: number(16)?, up: bytes[24] != 0 })
    }

    /// The call after one more change; `None` if its state does not allow it.
    fn after(self, op: Op, sequence: u64) -> Option<Self> {
        let up = match (op, self.up) {
            (Op::Setup, false) | (Op::Update, true) => true,
            (Op::Release, true) => false,
            _ => return None,
        };
        let digest = self.digest.rotate_left(5) ^ sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Some(Self { last: sequence, applied: self.applied + 1, digest, up })
    }
}

/// What to do about a request.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// The call becomes this, and the answer is `ok`.
    Change(Call),
    /// The call stays as it is, and the answer is this word.
    Tell(&'static str),
    /// A late copy of a request that its client has had an answer to: it no longer waits for one.
    Nothing,
}

fn decide(known: Option<Call>, request: &Request) -> Decision {
    match known {
        None if request.op != Op::Setup => Decision::Tell("unknown"),
        Some(_) if request.op == Op::Query => Decision::Tell("ok"),
        Some(call) if request.sequence == call.last => Decision::Tell("ok"),
        Some(call) if request.sequence < call.last => Decision::Nothing,
        _ => known.unwrap_or_default().after(request.op, request.sequence).map_or(Decision::Tell("refused"), Decision::Change),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decides about a row of requests for one call; the words that would be answered.
    fn row(requests: &[&str]) -> (Vec<String>, Option<Call>) {
        let mut call = None;
        let words = requests.iter().map(|text| match decide(call, &Request::parse(text.as_bytes()).expect("a request")) {
            Decision::Change(next) => {
                // Through the checkpoint and back, as a standby would have it.
                call = Call::from_bytes(&next.to_bytes());
                "changed".to_owned()
            }
            Decision::Tell(word) => word.to_owned(),
            Decision::Nothing => "nothing".to_owned(),
        });
        (words.collect(), call)
    }

    #[test]
    fn a_repeat_is_answered_and_applied_once_and_a_late_copy_is_dropped() {
        let (words, call) = row(&["Q ab 12 0 setup 7", "Q ab 12 1 setup 7", "Q ab 15 0 update 7", "Q ab 12 2 setup 7"]);
        assert_eq!(words, ["changed", "ok", "changed", "nothing"]);
        assert_eq!(call.map(|c| (c.last, c.applied)), Some((15, 2)));
    }

    #[test]
    fn a_call_lives_from_setup_to_release_and_is_remembered() {
        let (words, call) = row(&[
            "Q 1 1 0 update 7",
            "Q 1 2 0 query 7",
            "Q 1 3 0 setup 7",
            "Q 1 4 0 setup 7",
            "Q 1 5 0 release 7",
            "Q 1 5 1 release 7",
            "Q 1 6 0 update 7",
            "Q 1 7 0 query 7",
            "Q 1 8 0 setup 7",
        ]);
        assert_eq!(words, ["unknown", "unknown", "changed", "refused", "changed", "ok", "refused", "ok", "changed"]);
        assert_eq!(call.map(|c| (c.applied, c.up)), Some((3, true)));
    }

    #[test]
    fn the_digest_is_what_the_description_says() {
        assert_eq!(row(&["Q ab 12 0 setup 7"]).1.map(|c| c.digest), Some(0x6a99_b4b1_f77d_d0fc));
    }

    #[test]
    fn clients_do_not_share_calls() {
        let key = |text: &str| Request::parse(text.as_bytes()).expect("a request").key();
        assert_ne!(key("Q 1 1 0 setup 7"), key("Q 2 1 0 setup 7"));
    }

    #[test]
    fn garbage_is_no_request() {
        let long = [b'9'; 1000];
        for bad in [&b""[..], b"Q", b"Q ab 12 0 setup", b"Q ab 12 0 setup 7 8", b"A ab 12 0 setup 7", b"Q ab -1 0 setup 7", b"\xff\xfe", &long] {
            assert_eq!(Request::parse(bad), None, "{bad:?}");
        }
        assert_eq!(Call::from_bytes(&[0; 24]), None);
    }

    #[test]
    fn an_address_may_be_for_one_node_alone() {
        let address = |node: &str, words: &str| address_for(node, words.split(' ').map(str::to_owned));
        let two = "--listen n1=127.0.0.1:5 --listen n2=127.0.0.2:5";
        assert_eq!(address("n2", two), Ok(SocketAddr::from(([127, 0, 0, 2], 5))));
        assert_eq!(address("n9", "--listen 10.9.0.100:4100"), Ok(SocketAddr::from(([10, 9, 0, 100], 4100))));
        for bad in ["--listen", "--lisen 1.2.3.4:5", "--listen 1.2.3.4", "--listen n1=1.2.3.4:5"] {
            assert!(address("n2", bad).is_err_and(|e| e.contains("usage")), "{bad}");
        }
    }
}
