//! From a stream's bytes, in whatever pieces they come, to frames.

use bytes::{Buf, Bytes, BytesMut};
use zerocopy::FromBytes;

use super::{Frame, HEADER_BYTES, Header, Kind, Versions, WireError};

/// Reads one stream. Payloads that came in one piece are not copied.
#[derive(Debug)]
pub struct Decoder {
    reads: Versions,
    /// The start of a frame whose rest has not come; empty, or shorter than that frame.
    started: BytesMut,
    /// What came last and has not been looked at.
    fresh: Bytes,
}

impl Default for Decoder {
    /// Of all that this build reads.
    fn default() -> Self {
        Self::reading(Versions::OURS)
    }
}

impl Decoder {
    /// Of these formats alone.
    pub fn reading(reads: Versions) -> Self {
        Self { reads, started: BytesMut::new(), fresh: Bytes::new() }
    }

    /// Takes the stream's next bytes. The frames before have been taken out with [`Self::next_frame`].
    pub fn push(&mut self, bytes: Bytes) {
        if self.fresh.is_empty() {
            self.fresh = bytes;
        } else {
            self.started.extend_from_slice(&self.fresh);
            self.fresh = bytes;
        }
    }

    /// The next whole frame; `None` until more bytes have come.
    ///
    /// # Errors
    /// [`WireError`] if the bytes are no frame: the stream cannot be read on.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, WireError> {
        if self.started.is_empty() {
            return self.next_in_fresh();
        }
        if !self.fill(HEADER_BYTES) {
            return Ok(None);
        }
        let header = header(&self.started);
        let (class, length) = header.check(self.reads)?;
        let whole = HEADER_BYTES + length;
        if !self.fill(whole) {
            return Ok(None);
        }
        let mut bytes = self.started.split_to(whole).freeze();
        bytes.advance(HEADER_BYTES);
        Ok(Some(Frame { class, kind: Kind(header.kind), sequence: header.sequence.get(), payload: bytes }))
    }

    fn next_in_fresh(&mut self) -> Result<Option<Frame>, WireError> {
        if self.fresh.len() < HEADER_BYTES {
            self.set_aside(HEADER_BYTES);
            return Ok(None);
        }
        let header = header(&self.fresh);
        let (class, length) = header.check(self.reads)?;
        if self.fresh.len() < HEADER_BYTES + length {
            self.set_aside(HEADER_BYTES + length);
            return Ok(None);
        }
        self.fresh.advance(HEADER_BYTES);
        let payload = self.fresh.split_to(length);
        Ok(Some(Frame { class, kind: Kind(header.kind), sequence: header.sequence.get(), payload }))
    }

    /// Copies the start of a frame of `whole` bytes, so that the rest can follow it.
    fn set_aside(&mut self, whole: usize) {
        if !self.fresh.is_empty() {
            self.started.reserve(whole);
            self.started.extend_from_slice(&self.fresh);
            self.fresh = Bytes::new();
        }
    }

    /// Moves fresh bytes until `self.started` has `wanted`; false if there are not enough.
    fn fill(&mut self, wanted: usize) -> bool {
        let missing = wanted.saturating_sub(self.started.len()).min(self.fresh.len());
        self.started.extend_from_slice(&self.fresh[..missing]);
        self.fresh.advance(missing);
        self.started.len() >= wanted
    }
}

fn header(bytes: &[u8]) -> Header {
    let (header, _payload) = Header::read_from_prefix(bytes).expect("the caller has seen that the header is whole");
    header
}
