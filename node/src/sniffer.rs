//! Watches, in the client's namespace, every frame that speaks for the virtual address, and who sent it.
//!
//! A frame speaks for an address if it is IPv4 from it, or ARP with it as the sender. The sniffer also asks who has the
//! address, every [`ASK_EVERY`], as a client new to the network would: a stopped node's kernel answers that by itself
//! unless something keeps it silent.
//! - [`talkers`]: what a row of frames means (pure); [`frame`]: reading and writing frames (pure).

pub(crate) mod frame;
mod packet;
pub(crate) mod talkers;

use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvfrom, send, socket,
};
use nix::sys::time::TimeSpec;
use sixnines_drivers::netlink::route::Route;

use crate::realtime;
pub(crate) use talkers::Report;
use talkers::{Mac, Talkers};

/// Between two questions for the address.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// Beside the prober, see `loadgen`.
const PRIORITY: i32 = 5;

/// A thread that watches one device. It ends with the process.
pub(crate) struct Sniffer {
    talkers: Arc<Mutex<Talkers>>,
}

impl Sniffer {
    /// Begins to watch `device` for frames that speak for `address`.
    ///
    /// # Errors
    /// If there is no such device, or no right to a packet socket.
    pub(crate) fn start(device: &str, address: Ipv4Addr) -> anyhow::Result<Self> {
        let socket = open(device).with_context(|| format!("watching frames on {device}"))?;
        let mac = own_mac(device)?;
        let talkers = Arc::new(Mutex::new(Talkers::default()));
        let shared = Arc::clone(&talkers);
        std::thread::Builder::new()
            .name("sniffer".into())
            .spawn(move || watch(&socket, mac, address, &shared))
            .context("starting the sniffer's thread")?;
        Ok(Self { talkers })
    }

    /// Forgets what was seen.
    pub(crate) fn mark(&self) {
        lock(&self.talkers).clear();
    }

    /// Who spoke since the mark, when the address may have moved `moves` times.
    pub(crate) fn report(&self, moves: usize) -> Report {
        lock(&self.talkers).report(moves)
    }
}

fn lock(talkers: &Mutex<Talkers>) -> MutexGuard<'_, Talkers> {
    // A row of frames is never half written: a panic elsewhere does not spoil it.
    talkers.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(device: &str) -> anyhow::Result<OwnedFd> {
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, SockProtocol::EthAll)
        .context("a packet socket needs the right to the network")?;
    let index = nix::net::if_::if_nametoindex(device).context("no such device")?;
    packet::attach(&socket, index).context("binding to the device")?;
    Ok(socket)
}

fn own_mac(device: &str) -> anyhow::Result<Mac> {
    let link = Route::open().and_then(|mut route| route.link(device)).with_context(|| format!("reading the device {device}"))?;
    Ok(link.mac.with_context(|| format!("{device} has no hardware address"))?.0)
}

/// Runs until the socket fails: the device is gone, and with it the namespace.
fn watch(socket: &OwnedFd, mac: Mac, address: Ipv4Addr, talkers: &Mutex<Talkers>) {
    if let Err(error) = realtime::fifo(PRIORITY) {
        tracing::debug!(%error, "the sniffer runs without real-time priority");
    }
    // Asked under an address that nobody has, so that no answer reaches, and helps or misleads, the client's own kernel.
    let alias = frame::alias(mac);
    let question = frame::arp_question(alias, address);
    let mut ask_at = realtime::now();
    let mut bytes = [0u8; 256];
    loop {
        let now = realtime::now();
        if ask_at <= now {
            ask_at = now + ASK_EVERY;
            // No carrier: then nobody can answer either.
            let _unasked = send(socket.as_raw_fd(), &question, MsgFlags::empty());
        }
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut fds, Some(TimeSpec::from_duration(ask_at.since(realtime::now()))), None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => {
                tracing::warn!(%error, "the sniffer stops");
                return;
            }
        }
        loop {
            match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut bytes) {
                Ok((length, _)) => {
                    if let Some(from) = frame::speaks_for(address, &bytes[..length]).filter(|from| *from != mac && *from != alias) {
                        lock(talkers).spoke(realtime::now(), from);
                    }
                }
                Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => break,
                Err(nix::errno::Errno::ENETDOWN) => break,
                Err(error) => {
                    tracing::warn!(%error, "the sniffer stops");
                    return;
                }
            }
        }
    }
}
