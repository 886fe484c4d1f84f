//! Netlink messages as bytes: built for the kernel, taken apart when they come from it. No I/O.

/// Length of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;

const NESTED: u16 = 0x8000;
const KIND_MASK: u16 = 0x3fff;

/// One message under construction. Numbers are in the machine's byte order unless a method says otherwise.
#[derive(Clone, Debug)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A message of `kind` (such as `RTM_NEWLINK`) with `flags` beyond `NLM_F_REQUEST`.
    pub fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        Self { bytes }
    }

    /// Appends a fixed part (such as `struct ifinfomsg`), padded to four bytes.
    pub fn put(mut self, fixed: &[u8]) -> Self {
        self.bytes.extend_from_slice(fixed);
        self.pad();
        self
    }

    /// Appends an attribute.
    pub fn attr(mut self, kind: u16, payload: &[u8]) -> Self {
        let start = self.open(kind);
        self.bytes.extend_from_slice(payload);
        self.close(start);
        self
    }

    /// Appends an attribute holding a number in the machine's order.
    pub fn attr_u32(self, kind: u16, value: u32) -> Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// Appends an attribute holding a number in network order, as nftables wants it.
    pub fn attr_be32(self, kind: u16, value: u32) -> Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// Appends a 64-bit number in network order.
    pub fn attr_be64(self, kind: u16, value: u64) -> Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// Appends text with its closing zero.
    pub fn attr_text(self, kind: u16, text: &str) -> Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    /// Appends an attribute made of attributes, or of whatever `fill` puts.
    pub fn nest(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.open(kind | NESTED);
        self = fill(self);
        self.close(start);
        self
    }

    /// The bytes to send, with length and sequence filled in.
    pub(crate) fn finish(&mut self, sequence: u32, more_flags: u16) -> &[u8] {
        let len = u32::try_from(self.bytes.len()).expect("a message is far below 4 GiB");
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | more_flags;
        self.bytes[0..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        &self.bytes
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        let len = u16::try_from(self.bytes.len() - start).expect("an attribute of ours is below 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

const REQUEST: u16 = 1;

/// The attributes of a received message, in order. Ends quietly where the bytes stop making sense.
#[derive(Clone, Debug)]
pub struct Attrs<'a> {
    rest: &'a [u8],
}

impl<'a> Attrs<'a> {
    /// Reads attributes from `bytes` on.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Reads attributes behind a fixed part of `len` bytes.
    pub fn after(bytes: &'a [u8], len: usize) -> Self {
        Self { rest: bytes.get(len.next_multiple_of(4)..).unwrap_or_default() }
    }

    /// The payload of the first attribute of `kind`.
    pub fn of(&self, kind: u16) -> Option<&'a [u8]> {
        self.clone().find(|(k, _)| *k == kind).map(|(_, payload)| payload)
    }

    /// The attributes inside the first attribute of `kind`; none if there is no such attribute.
    pub fn inside(&self, kind: u16) -> Self {
        Self::new(self.of(kind).unwrap_or_default())
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let len = usize::from(u16_at(self.rest, 0)?);
        let kind = u16_at(self.rest, 2)? & KIND_MASK;
        let payload = self.rest.get(4..len)?;
        self.rest = self.rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    }
}

/// A number in the machine's order at `offset`.
pub fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(offset..offset + 2)?.try_into().ok()?))
}

/// A number in the machine's order at `offset`.
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

/// A signed number in the machine's order at `offset`.
pub fn i32_at(bytes: &[u8], offset: usize) -> Option<i32> {
    Some(i32::from_ne_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

/// Text up to its closing zero.
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn attributes_come_back_as_they_were_put() {
        let mut message = Message::new(16, 4)
            .put(&[9; 16])
            .attr_text(3, "eth0")
            .nest(18, |m| m.attr_text(1, "veth").nest(2, |m| m.attr_u32(7, 42)));
        let bytes = message.finish(5, 0).to_vec();
        assert_eq!(u32_at(&bytes, 0), u32::try_from(bytes.len()).ok());
        assert_eq!((u16_at(&bytes, 4), u16_at(&bytes, 6), u32_at(&bytes, 8)), (Some(16), Some(5), Some(5)));
        let attrs = Attrs::after(&bytes[HEADER..], 16);
        assert_eq!(attrs.of(3).map(text), Some("eth0".to_owned()));
        let info = attrs.inside(18);
        assert_eq!(info.of(1).map(text), Some("veth".to_owned()));
        assert_eq!(info.inside(2).of(7).and_then(|p| u32_at(p, 0)), Some(42));
        assert_eq!(attrs.of(99), None);
    }

    proptest! {
        #[test]
        fn any_bytes_end_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let total: usize = Attrs::new(&bytes).map(|(_, payload)| payload.len()).sum();
            prop_assert!(total <= bytes.len());
        }
    }
}
