//! The netlink socket: one request at a time, answered or timed out.
#![expect(unsafe_code, reason = "sockets of this family have no safe interface in the standard library")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::NetlinkError;
use super::message::{Attrs, HEADER, Message, i32_at, text, u16_at, u32_at};

/// Which part of the kernel a socket talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses, filters.
    Route,
    /// nftables.
    Netfilter,
}

/// A message from the kernel.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Such as `RTM_NEWLINK`.
    pub kind: u16,
    /// All that follows the header.
    pub body: Vec<u8>,
}

/// A netlink socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Netlink {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// The kernel sends dumps in parts of up to 32 KiB.
const BUFFER: usize = 64 * 1024;

/// The kernel answers at once or, held up by another configuration, a little later; silence beyond this is an error.
const PATIENCE: libc::timeval = libc::timeval { tv_sec: 5, tv_usec: 0 };

const MSG_ERROR: u16 = 2;
const MSG_DONE: u16 = 3;
const FLAG_ACK: u16 = 0x4;
const FLAG_DUMP: u16 = 0x300;
const FLAG_CAPPED: u16 = 0x100;
const FLAG_ACK_TLVS: u16 = 0x200;
const ERR_MESSAGE: u16 = 1;

impl Netlink {
    /// Opens a socket in this thread's network namespace.
    pub fn open(protocol: Protocol) -> Result<Self, NetlinkError> {
        Self::with_groups(protocol, 0)
    }

    /// The same, subscribed to the multicast `groups` (a mask such as `RTMGRP_LINK`).
    pub fn with_groups(protocol: Protocol, groups: u32) -> Result<Self, NetlinkError> {
        open(protocol, groups)
            .map(|fd| Self { fd, sequence: 0, buffer: vec![0; BUFFER] })
            .map_err(|e| NetlinkError::new("open a netlink socket", e))
    }

    /// Sends one request and waits for its acknowledgement. `what` goes into the error.
    pub fn request(&mut self, mut message: Message, what: impl Into<String>) -> Result<(), NetlinkError> {
        self.request_prepared(&mut message).map_err(|refusal| refusal.named(what))
    }

    /// As [`Self::request`], for a message that is used again: the way of an address being taken.
    pub fn request_prepared(&mut self, message: &mut Message) -> Result<(), Refusal> {
        self.sequence = self.sequence.wrapping_add(1);
        self.send(message.finish(self.sequence, FLAG_ACK))?;
        self.collect(|_| ())
    }

    /// Sends one request that is answered by a list.
    pub fn dump(&mut self, mut message: Message, what: impl Into<String>) -> Result<Vec<Reply>, NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut replies = Vec::new();
        self.send(message.finish(self.sequence, FLAG_DUMP))
            .and_then(|()| self.collect(|reply| replies.push(reply)))
            .map_err(|refusal| refusal.named(what))?;
        Ok(replies)
    }

    /// Sends several messages as one nftables transaction: all happen or none. The first error counts.
    pub fn transaction(&mut self, messages: &mut [Message], begin: &mut Message, end: &mut Message) -> Result<(), Refusal> {
        let last = self.sequence.wrapping_add(u32::try_from(messages.len()).expect("a transaction of ours is small"));
        let mut bytes = begin.finish(self.sequence, 0).to_vec();
        for message in messages {
            self.sequence = self.sequence.wrapping_add(1);
            // Only the last one is acknowledged; each may be refused.
            let flags = if self.sequence == last { FLAG_ACK } else { 0 };
            bytes.extend_from_slice(message.finish(self.sequence, flags));
        }
        bytes.extend_from_slice(end.finish(self.sequence, 0));
        self.send(&bytes)?;
        let mut refusal = None;
        loop {
            let answers = self.receive().map_err(Refusal::from)?;
            for answer in answers {
                if let Some(outcome) = answer.outcome() {
                    let is_last = answer.sequence == last;
                    if let Err(e) = outcome {
                        refusal.get_or_insert(e);
                    }
                    if is_last {
                        self.drain();
                        return refusal.map_or(Ok(()), Err);
                    }
                }
            }
            if refusal.is_some() && !self.is_readable() {
                // Refused before the last message was reached: the kernel has answered with all it has to say.
                return refusal.map_or(Ok(()), Err);
            }
        }
    }

    /// The next messages from subscribed groups; empty if there are none now. For non-blocking use behind [`AsFd`].
    pub fn poll_notices(&mut self) -> io::Result<Vec<Reply>> {
        if !self.is_readable() {
            return Ok(Vec::new());
        }
        Ok(self.receive()?.into_iter().map(|a| Reply { kind: a.kind, body: a.body }).collect())
    }

    fn collect(&mut self, mut each: impl FnMut(Reply)) -> Result<(), Refusal> {
        loop {
            for answer in self.receive()? {
                if answer.sequence != self.sequence {
                    continue; // A late answer to a request that timed out.
                }
                match answer.outcome() {
                    Some(outcome) => return outcome,
                    None => each(Reply { kind: answer.kind, body: answer.body }),
                }
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        // SAFETY: the pointer and length are those of a live slice.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error().into()) } else { Ok(()) }
    }

    fn receive(&mut self) -> io::Result<Vec<Answer>> {
        let len = loop {
            // SAFETY: the pointer and length are those of a live, exclusively borrowed buffer.
            let len = unsafe { libc::recv(self.fd.as_raw_fd(), self.buffer.as_mut_ptr().cast(), self.buffer.len(), 0) };
            match usize::try_from(len) {
                Ok(len) => break len,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    match error.kind() {
                        io::ErrorKind::Interrupted => {}
                        io::ErrorKind::WouldBlock => return Err(io::Error::new(io::ErrorKind::TimedOut, "the kernel did not answer in 5 s")),
                        _ => return Err(error),
                    }
                }
            }
        };
        Ok(split(&self.buffer[..len]))
    }

    fn drain(&mut self) {
        while self.is_readable() && self.receive().is_ok() {}
    }

    fn is_readable(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one live pollfd, and no waiting.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Netlink {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// A refusal before it has been told what was tried.
#[derive(Debug)]
pub struct Refusal {
    /// The kernel's number.
    pub source: io::Error,
    hint: Option<String>,
}

impl Refusal {
    /// Tells what was tried.
    pub fn named(self, what: impl Into<String>) -> NetlinkError {
        NetlinkError { what: what.into(), hint: self.hint, source: self.source }
    }

    /// Whether the kernel answered with this errno.
    pub fn is(&self, errno: i32) -> bool {
        self.source.raw_os_error() == Some(errno)
    }
}

impl From<io::Error> for Refusal {
    fn from(source: io::Error) -> Self {
        Self { source, hint: None }
    }
}

struct Answer {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: Vec<u8>,
}

impl Answer {
    /// `Some` if this ends the request.
    fn outcome(&self) -> Option<Result<(), Refusal>> {
        if self.kind != MSG_ERROR && self.kind != MSG_DONE {
            return None;
        }
        match i32_at(&self.body, 0).unwrap_or(0) {
            errno if errno < 0 => Some(Err(Refusal { source: io::Error::from_raw_os_error(-errno), hint: self.hint() })),
            _ => Some(Ok(())),
        }
    }

    /// The extended acknowledgement's text.
    fn hint(&self) -> Option<String> {
        if self.flags & FLAG_ACK_TLVS == 0 {
            return None;
        }
        let echoed = if self.flags & FLAG_CAPPED != 0 { HEADER } else { usize::try_from(u32_at(&self.body, 4)?).ok()? };
        Attrs::after(&self.body, 4 + echoed).of(ERR_MESSAGE).map(text)
    }
}

fn split(mut bytes: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    while let (Some(len), Some(kind), Some(flags), Some(sequence)) = (u32_at(bytes, 0), u16_at(bytes, 4), u16_at(bytes, 6), u32_at(bytes, 8)) {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let Some(body) = bytes.get(HEADER..len) else { break };
        answers.push(Answer { kind, flags, sequence, body: body.to_vec() });
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    answers
}

fn open(protocol: Protocol, groups: u32) -> io::Result<OwnedFd> {
    let number = match protocol {
        Protocol::Route => libc::NETLINK_ROUTE,
        Protocol::Netfilter => libc::NETLINK_NETFILTER,
    };
    // SAFETY: plain system call; the result is checked before it becomes an owned descriptor.
    let fd = unsafe {
        let raw = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, number);
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(raw)
    };
    set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &PATIENCE)?;
    // Without these two, errors only lack their sentence; old kernels may refuse them.
    for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
        set_option(&fd, libc::SOL_NETLINK, option, &1_i32).ok();
    }
    // SAFETY: all-zero is a valid sockaddr_nl (an automatic port).
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::sa_family_t::try_from(libc::AF_NETLINK).expect("the family is 16");
    address.nl_groups = groups;
    let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_nl>()).expect("a few bytes");
    // SAFETY: the address lives through the call and has the length given.
    if unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(fd)
}

fn set_option<T>(fd: &OwnedFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).expect("a few bytes");
    // SAFETY: the value lives through the call and has the length given.
    if unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const *value).cast(), len) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
