//! A raw socket that only sends, on one device.
#![expect(unsafe_code, reason = "packet sockets have no interface in the standard library")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Sends whole Ethernet frames.
#[derive(Debug)]
pub(crate) struct PacketSocket {
    fd: OwnedFd,
}

impl PacketSocket {
    /// Opens one on the device with that number. Needs `CAP_NET_RAW`.
    pub(crate) fn open(index: i32) -> io::Result<Self> {
        // Protocol 0: nothing is ever received, so nothing queues up.
        // SAFETY: plain system call; the result is checked before it becomes an owned descriptor.
        let fd = unsafe {
            let raw = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0);
            if raw < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(raw)
        };
        // SAFETY: all-zero is a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET).expect("the family is 17");
        address.sll_ifindex = index;
        let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).expect("a few bytes");
        // SAFETY: the address lives through the call and has the length given.
        if unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { fd })
    }

    /// Sends one frame. Never waits.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the pointer and length are those of a live slice.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
