//! One lane's stream on one connection, sending side: what waits for QUIC to take it.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use quinn::SendStream;
use zerocopy::IntoBytes;

use crate::wire::{Frame, HEADER_BYTES};

/// From this size on a payload is handed on as it is; below, copying it is cheaper than one more segment in QUIC's buffer,
/// which is walked for each packet.
const COPY_BELOW: usize = 4096;
/// Memory for small frames is taken in blocks.
const BLOCK_BYTES: usize = 16 * 1024;

/// Bounded by the session's window: what waits here has not been acknowledged. A window is put here twice at most.
pub(super) struct LaneStream {
    stream: SendStream,
    /// The frame format that both ends agreed on.
    version: u8,
    chunks: VecDeque<Bytes>,
    tail: BytesMut,
}

impl LaneStream {
    pub(super) fn new(stream: SendStream, version: u8) -> Self {
        Self { stream, version, chunks: VecDeque::new(), tail: BytesMut::new() }
    }

    pub(super) fn push(&mut self, frame: Frame) {
        let inline = if frame.payload.len() < COPY_BELOW { frame.payload.len() } else { 0 };
        if self.tail.capacity() - self.tail.len() < HEADER_BYTES + inline {
            self.tail.reserve(BLOCK_BYTES);
        }
        self.tail.extend_from_slice(frame.header(self.version).as_bytes());
        if frame.payload.len() < COPY_BELOW {
            self.tail.extend_from_slice(&frame.payload);
        } else {
            self.chunks.push_back(self.tail.split().freeze());
            self.chunks.push_back(frame.payload);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tail.is_empty() && self.chunks.is_empty()
    }

    /// Gives QUIC what it takes now; if that is not all, `cx` is woken when it takes more. After an error nothing is kept: the
    /// connection is lost, and whoever serves it is about to notice.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>) {
        if !self.tail.is_empty() {
            self.chunks.push_back(self.tail.split().freeze());
        }
        while !self.chunks.is_empty() {
            let taken = pin!(self.stream.write_chunks(self.chunks.make_contiguous())).poll(cx);
            match taken {
                Poll::Ready(Ok(written)) => drop(self.chunks.drain(..written.chunks)),
                Poll::Ready(Err(_lost)) => self.chunks.clear(),
                Poll::Pending => return,
            }
        }
    }
}
