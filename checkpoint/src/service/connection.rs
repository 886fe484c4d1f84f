//! One application's socket.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use sixnines_core::ids::GroupName;
use sixnines_core::time::Instant;
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::seats::Seat;
use crate::protocol::{ImageParts, Inbox, ToApp, ToService, encode};

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
    /// Images that follow what is in `out`, each with the messages that were told after it.
    images: VecDeque<(ImageParts, Vec<u8>)>,
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
/// Messages that may wait, images not counted: more than a busy active writes while the largest image is taken over.
const OUT_BYTES_MAX: usize = 2 << 30;
/// Written at one turn, for the same reason as `READ_BYTES`, and more: an image is encoded part by part as the socket takes it.
const WRITE_BYTES: usize = 4 << 20;

impl Connection {
    pub(super) fn new(app: NewApp, heard: Instant) -> Self {
        Self { stream: app.stream, inbox: app.inbox, out: Vec::new(), written: 0, images: VecDeque::new(), heard, hangs: false, _seat: app.seat }
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
        let last = self.images.back_mut().map_or(&mut self.out, |(_, after)| after);
        encode(message, last);
    }

    /// The image comes in its place between the messages.
    pub(super) fn tell_image(&mut self, image: ImageParts) {
        self.images.push_back((image, Vec::new()));
    }

    fn has_more(&self) -> bool {
        self.written < self.out.len() || !self.images.is_empty()
    }

    /// Until there is something to read, or room to write what waits.
    pub(super) async fn ready(&self) -> io::Result<()> {
        let writing = if self.has_more() { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
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

    /// Writes what waits, as far as the socket takes it and a turn allows.
    pub(super) fn flush(&mut self) -> Result<(), Ended> {
        let mut left = WRITE_BYTES;
        while left > 0 && self.has_more() {
            if self.written == self.out.len() {
                self.refill();
            }
            let end = self.out.len().min(self.written + left);
            match self.stream.try_write(&self.out[self.written..end]) {
                Ok(count) => {
                    self.written += count;
                    left -= count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(Ended::Failed(error)),
            }
        }
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        } else if self.written > self.out.len() / 2 {
            self.out.drain(..self.written);
            self.written = 0;
        }
        let waiting = self.out.len() - self.written + self.images.iter().map(|(_, after)| after.len()).sum::<usize>();
        if waiting > OUT_BYTES_MAX { Err(Ended::Deaf(waiting)) } else { Ok(()) }
    }

    /// All of `out` is written: the image's next part, or what came after it.
    fn refill(&mut self) {
        self.out.clear();
        self.written = 0;
        let Some((image, after)) = self.images.front_mut() else { return };
        match image.next() {
            Some(part) => encode(&part, &mut self.out),
            None => {
                self.out = std::mem::take(after);
                self.images.pop_front();
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::Bytes;
    use crate::outcome::Cursor;
    use crate::protocol::IMAGE_PART_BYTES;
    use crate::state::Section;

    #[tokio::test]
    async fn an_image_comes_between_the_messages_and_is_encoded_as_it_is_read() {
        const SECTIONS: usize = 64;
        let (stream, other) = UnixStream::pair().expect("sockets");
        let seat = super::super::seats::Seats::new(1).take().expect("the first");
        let group = GroupName::new("calls");
        let mut connection = Connection::new(NewApp { stream, inbox: Inbox::default(), group, seat }, Instant::ZERO);
        let section = Section { bytes: Bytes::from(vec![7; IMAGE_PART_BYTES]), version: Default::default() };
        let sections = || (0..SECTIONS).map(|n| (n.to_be_bytes().as_slice().into(), section.clone())).collect();
        connection.tell(&ToApp::LossWindow(1));
        connection.tell_image(ImageParts::new(Cursor::default(), sections()));
        connection.tell(&ToApp::LossWindow(2));
        connection.tell_image(ImageParts::new(Cursor::default(), Vec::new()));
        connection.tell(&ToApp::LossWindow(3));

        let (mut inbox, mut got) = (Inbox::default(), Vec::new());
        while got.last() != Some(&ToApp::LossWindow(3)) {
            connection.flush().expect("somebody reads");
            assert!(connection.out.len() < 2 * IMAGE_PART_BYTES, "{} bytes are encoded", connection.out.len());
            while other.try_read_buf(inbox.room(1 << 16)).is_ok() {}
            while let Some(message) = inbox.next::<ToApp>().expect("whole messages") {
                got.push(message);
            }
            tokio::task::yield_now().await;
        }
        let words: Vec<_> = got.iter().map(|message| match message {
            ToApp::LossWindow(number) => *number,
            ToApp::Image { first, last, sections, .. } => 100 + 20 * u64::from(*first) + 10 * u64::from(*last) + sections.len() as u64,
            other => panic!("{other:?}"),
        }).collect();
        let image = [121].into_iter().chain(std::iter::repeat_n(101, SECTIONS - 2)).chain([111]);
        assert_eq!(words, [1].into_iter().chain(image).chain([2, 130, 3]).collect::<Vec<_>>());
    }
}
