//! One application's socket.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use sixnines_core::ids::GroupName;
use sixnines_core::time::Instant;
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::seats::Seat;
use crate::protocol::{Inbox, ToApp, ToService, encode};

/// An application that has said who it is.
#[derive(Debug)]
pub(super) struct NewApp {
    pub(super) stream: UnixStream,
    pub(super) inbox: Inbox,
    pub(super) group: GroupName,
    pub(super) seat: Seat,
}

#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    inbox: Inbox,
    out: Vec<u8>,
    written: usize,
    /// When it was last heard.
    pub(super) heard: Instant,
    pub(super) hangs: bool,
    /// Free for another one when this connection is gone.
    _seat: Seat,
}

/// Why a connection has ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the application has closed its socket")]
    Closed,
    #[error("the application's socket has failed")]
    Failed(#[source] io::Error),
    #[error("the application sent what is no message")]
    Unreadable(#[source] crate::protocol::MessageError),
    #[error("the application does not read: {0} bytes wait for it")]
    Deaf(usize),
}

/// Bytes read at one turn, so that a busy application does not keep frames waiting.
const READ_BYTES: usize = 256 << 10;
/// More than an image of the largest checkpoint in flight.
const OUT_BYTES_MAX: usize = 2 << 30;

impl Connection {
    pub(super) fn new(app: NewApp, heard: Instant) -> Self {
        Self { stream: app.stream, inbox: app.inbox, out: Vec::new(), written: 0, heard, hangs: false, _seat: app.seat }
    }

    /// Tells it the guard page's descriptor with its welcome.
    pub(super) fn welcome(&self, welcome: &ToApp, guard: BorrowedFd<'_>) -> io::Result<()> {
        let mut bytes = Vec::new();
        encode(welcome, &mut bytes);
        let descriptors = [guard.as_raw_fd()];
        let control = [ControlMessage::ScmRights(&descriptors)];
        // Nothing was sent before, so it fits the socket's buffer whole.
        self.stream.try_io(Interest::WRITABLE, || {
            let slices = [IoSlice::new(&bytes)];
            sendmsg::<()>(self.stream.as_raw_fd(), &slices, &control, MsgFlags::MSG_NOSIGNAL, None).map_err(io::Error::from)
        })?;
        Ok(())
    }

    pub(super) fn tell(&mut self, message: &ToApp) {
        encode(message, &mut self.out);
    }

    /// Until there is something to read, or room to write what waits.
    pub(super) async fn ready(&self) -> io::Result<()> {
        let writing = if self.written < self.out.len() { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        self.stream.ready(writing).await.map(drop)
    }

    /// Reads what has come. It may be more than was asked for or less than a message.
    pub(super) fn read(&mut self, now: Instant) -> Result<(), Ended> {
        let mut left = READ_BYTES;
        while left > 0 {
            match self.stream.try_read_buf(self.inbox.room(READ_BYTES / 4)) {
                Ok(0) => return Err(Ended::Closed),
                Ok(count) => {
                    self.heard = now;
                    left = left.saturating_sub(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(Ended::Failed(error)),
            }
        }
        Ok(())
    }

    pub(super) fn next(&mut self) -> Result<Option<ToService>, Ended> {
        self.inbox.next().map_err(Ended::Unreadable)
    }

    /// Writes what waits, as far as the socket takes it.
    pub(super) fn flush(&mut self) -> Result<(), Ended> {
        while self.written < self.out.len() {
            match self.stream.try_write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(Ended::Failed(error)),
            }
        }
        let left = self.out.len() - self.written;
        if left == 0 {
            self.out.clear();
            self.written = 0;
        } else if self.written > left {
            self.out.drain(..self.written);
            self.written = 0;
        }
        if left > OUT_BYTES_MAX { Err(Ended::Deaf(left)) } else { Ok(()) }
    }
}

/// One last word to a connection that goes nowhere. If it is not heard, the end of the socket says enough.
pub(super) fn tell_once(stream: &UnixStream, message: &ToApp) {
    let mut bytes = Vec::new();
    encode(message, &mut bytes);
    if let Err(error) = stream.try_write(&bytes) {
        tracing::debug!(%error, "an application was gone before it was refused");
    }
}
