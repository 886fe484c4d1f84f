//! The one record format on disk: length, kind, checksum, body, one after the other, nothing between them.
//!
//! ```text
//! offset  0      1       2     3      4..8              8..12               12..
//!         b'9'   FORMAT  kind  flags  body length (LE)  CRC32C (LE)         body
//! ```
//! The checksum covers the eight bytes before it and the body. Kinds are the file owner's; an unknown one is for the owner to
//! refuse (protocol 6.3), never skipped here.
//!
//! **Where a file ends.** A crash leaves the bytes that were written since the last sync in any state: missing, half there, and
//! pages in any order, so a good record may even follow a bad one. All of that is a *torn tail* and may be cut, because nobody
//! was told that it is safe. A bad record *before* something that was synced is damage, and cutting there would forget what was
//! promised: the reader must stop. To tell the two apart, the first record written after a sync bears a mark
//! ([`encode_after_sync`]): a good marked record behind a bad one proves damage. What cannot be told is damage within the
//! last synced batch of a file when nothing was written after it: it looks like a torn tail.

/// Bytes before the body.
pub const HEADER: usize = 12;

/// No body is longer; a length above it is a bad record.
pub const BODY_MAX: usize = 64 << 20;

const MAGIC: u8 = b'9';
const FORMAT: u8 = 1;
/// Flag: everything before this record was synced before it was written.
const AFTER_SYNC: u8 = 1;

/// Appends one record to `out`.
///
/// # Panics
/// If the body is longer than [`BODY_MAX`], which its owner must not let happen.
pub fn encode(kind: u8, body: &[u8], out: &mut Vec<u8>) {
    put(kind, 0, body, out);
}

/// Appends the first record that is written after everything before it in the file was synced.
///
/// # Panics
/// As [`encode`].
pub fn encode_after_sync(kind: u8, body: &[u8], out: &mut Vec<u8>) {
    put(kind, AFTER_SYNC, body, out);
}

fn put(kind: u8, flags: u8, body: &[u8], out: &mut Vec<u8>) {
    assert!(body.len() <= BODY_MAX, "a record of {} bytes", body.len());
    let length = u32::try_from(body.len()).expect("BODY_MAX fits");
    let mut header = [0; 8];
    header[..4].copy_from_slice(&[MAGIC, FORMAT, kind, flags]);
    header[4..].copy_from_slice(&length.to_le_bytes());
    out.reserve(HEADER + body.len());
    out.extend_from_slice(&header);
    out.extend_from_slice(&checksum(&header, body).to_le_bytes());
    out.extend_from_slice(body);
}

fn checksum(header: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(header), body)
}

/// One good record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where it begins.
    pub at: usize,
    /// What it is, in the file owner's numbering.
    pub kind: u8,
    /// Whether everything before it had been synced when it was written.
    pub after_sync: bool,
    /// Its content.
    pub body: &'a [u8],
}

impl Record<'_> {
    /// Where the next one begins.
    pub fn end(&self) -> usize {
        self.at + HEADER + self.body.len()
    }

    fn read(bytes: &[u8], at: usize) -> Option<Record<'_>> {
        let header = bytes.get(at..at + HEADER)?;
        let length = u32::from_le_bytes(header[4..8].try_into().ok()?) as usize;
        if header[0] != MAGIC || header[1] != FORMAT || header[3] & !AFTER_SYNC != 0 || length > BODY_MAX {
            return None;
        }
        let body = bytes.get(at + HEADER..at + HEADER + length)?;
        let expected = u32::from_le_bytes(header[8..].try_into().ok()?);
        let good = checksum(&header[..8], body) == expected;
        good.then_some(Record { at, kind: header[2], after_sync: header[3] & AFTER_SYNC != 0, body })
    }
}

/// The good records from the beginning of a file's bytes, up to the first that is not.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    good: usize,
}

/// How a file ends, see the head of this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// With its last record.
    Clean,
    /// With bytes that nobody was promised: cut the file to the good length.
    Torn {
        /// How many bytes to cut.
        excess: usize,
    },
    /// Something that had been synced is bad: its owner must stop.
    Damaged {
        /// Where the bad record begins.
        at: usize,
        /// Where the good record begins that proves it.
        next: usize,
    },
}

impl<'a> Records<'a> {
    /// Reads from the beginning of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, good: 0 }
    }

    /// The length of all records returned so far; once the iterator has ended, what is good of the file.
    pub fn good_length(&self) -> usize {
        self.good
    }

    /// Reads the rest of the good records and judges what follows them.
    pub fn tail(mut self) -> Tail {
        while self.next().is_some() {}
        let at = self.good;
        if at == self.bytes.len() {
            return Tail::Clean;
        }
        let marked = |next: &usize| Record::read(self.bytes, *next).is_some_and(|r| r.after_sync);
        match (at + 1..self.bytes.len()).find(marked) {
            Some(next) => Tail::Damaged { at, next },
            None => Tail::Torn { excess: self.bytes.len() - at },
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let record = Record::read(self.bytes, self.good)?;
        self.good = record.end();
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Two synced batches of two records each.
    fn two_batches() -> (Vec<u8>, usize) {
        let mut out = Vec::new();
        encode_after_sync(1, b"first", &mut out);
        encode(2, b"", &mut out);
        let second = out.len();
        encode_after_sync(1, b"second", &mut out);
        encode(3, &[0; 40], &mut out);
        (out, second)
    }

    #[test]
    fn format_1_has_these_bytes() {
        let mut out = Vec::new();
        encode_after_sync(7, b"nines", &mut out);
        let mut expected = vec![b'9', 1, 7, 1, 5, 0, 0, 0];
        expected.extend_from_slice(&0x6EBC_17DE_u32.to_le_bytes());
        expected.extend_from_slice(b"nines");
        assert_eq!(out, expected);
    }

    #[test]
    fn records_come_back_in_order() {
        let (bytes, second) = two_batches();
        let mut records = Records::new(&bytes);
        let seen: Vec<_> = records.by_ref().map(|r| (r.kind, r.after_sync, r.body.len())).collect();
        assert_eq!(seen, [(1, true, 5), (2, false, 0), (1, true, 6), (3, false, 40)]);
        assert_eq!(records.good_length(), bytes.len());
        assert_eq!(Records::new(&bytes).nth(2).map(|r| r.at), Some(second));
        assert_eq!(Records::new(&bytes).tail(), Tail::Clean);
    }

    #[test]
    fn a_bad_record_before_a_sync_is_damage() {
        let (bytes, second) = two_batches();
        for bad in 0..second {
            let mut bytes = bytes.clone();
            bytes[bad] ^= 0x10;
            assert!(matches!(Records::new(&bytes).tail(), Tail::Damaged { next, .. } if next == second), "byte {bad}");
        }
    }

    #[test]
    fn a_bad_record_in_the_last_batch_is_torn_even_if_a_good_one_follows() {
        let (mut bytes, second) = two_batches();
        bytes[second + HEADER] ^= 1;
        assert_eq!(Records::new(&bytes).tail(), Tail::Torn { excess: bytes.len() - second });
    }

    #[test]
    fn zeros_of_a_file_made_longer_by_a_crash_are_torn() {
        let (mut bytes, _) = two_batches();
        bytes.resize(bytes.len() + 4096, 0);
        assert_eq!(Records::new(&bytes).tail(), Tail::Torn { excess: 4096 });
    }

    proptest! {
        #[test]
        fn a_cut_anywhere_leaves_the_whole_records_before_it(cut in 0_usize..200) {
            let (bytes, _) = two_batches();
            let cut = cut.min(bytes.len());
            let whole = Records::new(&bytes).filter(|r| r.end() <= cut).count();
            let mut records = Records::new(&bytes[..cut]);
            prop_assert_eq!(records.by_ref().count(), whole);
            let damaged = matches!(records.tail(), Tail::Damaged { .. });
            prop_assert!(!damaged);
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut records = Records::new(&bytes);
            while records.next().is_some() {}
            prop_assert!(records.good_length() <= bytes.len());
            prop_assert!(Records::new(&bytes).tail() != Tail::Clean || records.good_length() == bytes.len());
        }
    }
}
