//! The seal of a line's frames: the pair's TLS sessions give the keys, as they do for heartbeats ([`crate::liveness::seal`]).
//!
//! `key id (4) | sender (2) | counter (8) | sealed | tag (16)`, the first fourteen bytes authenticated with the rest. The line has keys of its own,
//! derived from those of the sessions, so that no nonce is ever used for both. A line keeps the order: of each key a frame is taken only with a
//! higher counter than the last, which leaves nothing to repeat.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use sixnines_core::ids::NodeId;

use crate::liveness::seal::KEY_LENGTH;

/// Bytes that a seal adds.
pub const OVERHEAD: usize = HEADER + 16;

const HEADER: usize = 14;
/// Keys kept: the sessions of up to four links, and those before them.
const KEYS_MAX: usize = 8;

struct Key {
    id: u32,
    key: LessSafeKey,
    /// The counter of the last frame opened with it; 0: none, so it is not known that the peer has it.
    seen: u64,
}

/// Seals and opens what goes between this node and one peer.
pub struct Seals {
    me: NodeId,
    peer: NodeId,
    counter: u64,
    /// The newest last.
    keys: Vec<Key>,
    /// Which key the peer spoke with last.
    proven: Option<u32>,
}

impl Seals {
    /// No keys yet.
    pub fn new(me: NodeId, peer: NodeId) -> Self {
        Self { me, peer, counter: 0, keys: Vec::new(), proven: None }
    }

    /// A session with the peer has this key now. The oldest beyond the bound is forgotten, but not the one that the peer speaks with.
    pub fn add_key(&mut self, id: u32, key: &[u8; KEY_LENGTH]) {
        if self.keys.iter().any(|k| k.id == id) {
            return;
        }
        let secret = Salt::new(HKDF_SHA256, b"sixnines-serial").extract(key);
        let key = UnboundKey::from(secret.expand(&[b"line"], &AES_256_GCM).expect("a key is shorter than HKDF's bound"));
        self.keys.push(Key { id, key: LessSafeKey::new(key), seen: 0 });
        if self.keys.len() > KEYS_MAX {
            let oldest = self.keys.iter().position(|k| Some(k.id) != self.proven).expect("more than one");
            self.keys.remove(oldest);
        }
    }

    /// No session with the peer counts any more.
    pub fn forget(&mut self) {
        self.keys.clear();
        self.proven = None;
    }

    /// Seals; `None` without a key. A session that was made at one end only must not silence the line: until the peer speaks with the newest
    /// key, every other frame has the one that it does speak with.
    pub fn seal(&mut self, plain: &[u8]) -> Option<Vec<u8>> {
        self.counter += 1;
        let proven = self.keys.iter().find(|k| Some(k.id) == self.proven && self.counter.is_multiple_of(2));
        let key = proven.or(self.keys.last())?;
        let mut frame = key.id.to_le_bytes().to_vec();
        frame.extend_from_slice(&self.me.0.to_le_bytes());
        frame.extend_from_slice(&self.counter.to_le_bytes());
        frame.extend_from_slice(plain);
        let (header, body) = frame.split_at_mut(HEADER);
        let tag = key.key.seal_in_place_separate_tag(nonce(header), Aad::from(&*header), body).expect("a frame is short");
        frame.extend_from_slice(tag.as_ref());
        Some(frame)
    }

    /// Opens a frame of the peer; `None` for anything else, and for what has been opened before.
    pub fn open(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let (header, body) = frame.split_at_checked(HEADER)?;
        let id = u32::from_le_bytes(header[..4].try_into().expect("4 bytes"));
        let from = u16::from_le_bytes(header[4..6].try_into().expect("2 bytes"));
        let counter = u64::from_le_bytes(header[6..].try_into().expect("8 bytes"));
        let key = self.keys.iter_mut().find(|k| k.id == id)?;
        if from != self.peer.0 || counter <= key.seen {
            return None;
        }
        let mut body = body.to_vec();
        let length = key.key.open_in_place(nonce(header), Aad::from(header), &mut body).ok()?.len();
        key.seen = counter;
        self.proven = Some(id);
        body.truncate(length);
        Some(body)
    }
}

/// Sender and counter: the same key seals both directions.
fn nonce(header: &[u8]) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..10].copy_from_slice(&header[4..HEADER]);
    Nonce::assume_unique_for_key(bytes)
}
