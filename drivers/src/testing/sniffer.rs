//! An observer on a device: every frame that arrives there.
#![expect(unsafe_code, reason = "packet sockets have no interface in the standard library")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::netlink::route::Route;

/// Longer than any of our waits takes when all is well; a test that reaches it fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// Receives copies of the frames that a device receives.
#[derive(Debug)]
pub struct Sniffer {
    fd: OwnedFd,
}

impl Sniffer {
    /// Opens one on `device` in this thread's network namespace.
    ///
    /// # Panics
    /// If that is not possible.
    pub fn open(device: &str) -> Self {
        let index = Route::open().and_then(|mut r| r.link(device)).expect("the test made the device").index;
        let everything = u16::try_from(libc::ETH_P_ALL).expect("the number is 3").to_be();
        // SAFETY: plain system calls on live arguments; the descriptor is checked before it is owned.
        unsafe {
            let raw = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            assert!(raw >= 0, "raw socket: {}", io::Error::last_os_error());
            let fd = OwnedFd::from_raw_fd(raw);
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET).expect("the family is 17");
            address.sll_protocol = everything;
            address.sll_ifindex = index;
            let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).expect("a few bytes");
            let bound = libc::bind(raw, (&raw const address).cast(), len);
            assert!(bound == 0, "bind to {device}: {}", io::Error::last_os_error());
            Self { fd }
        }
    }

    /// The first frame from now on that `wanted` accepts.
    ///
    /// # Panics
    /// If none comes within ten seconds.
    pub fn wait_for(&self, what: &str, mut wanted: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
        let end = Instant::now() + PATIENCE;
        while let Some(frame) = self.next(end.saturating_duration_since(Instant::now())) {
            if wanted(&frame) {
                return frame;
            }
        }
        panic!("no {what} was seen in {PATIENCE:?}");
    }

    /// All frames that have arrived and were not looked at.
    pub fn drain(&self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.next(Duration::ZERO)).collect()
    }

    fn next(&self, patience: Duration) -> Option<Vec<u8>> {
        let millis = i32::try_from(patience.as_millis()).expect("a few seconds");
        let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let mut buffer = vec![0; 2048];
        loop {
            // SAFETY: one live pollfd, then a live, exclusively borrowed buffer of the length given.
            unsafe {
                if libc::poll(&raw mut poll, 1, millis) != 1 {
                    return None;
                }
                let mut from: libc::sockaddr_ll = std::mem::zeroed();
                let mut from_len = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).expect("a few bytes");
                let len = libc::recvfrom(
                    self.fd.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    libc::MSG_DONTWAIT,
                    (&raw mut from).cast(),
                    &raw mut from_len,
                );
                let len = usize::try_from(len).ok()?;
                if from.sll_pkttype == libc::PACKET_OUTGOING {
                    continue;
                }
                buffer.truncate(len);
            }
            return Some(buffer);
        }
    }
}
