//! Heartbeats on the wire: sealed and authenticated with keys that the pair's TLS sessions have exported.
//!
//! `magic (4) | key id (4) | sender (2) | counter (8) | sealed heartbeat | tag (16)`, everything before the sealed part authenticated
//! with it. Nothing is parsed before the tag is right. Both ends hold the same key, so the nonce bears the sender. A key lives as
//! long as its TLS session: a restarted node has new ones, which is why a counter that starts anew never meets an old key.

use std::collections::BTreeMap;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sixnines_core::ids::NodeId;

use super::wire::Heartbeat;

/// Bytes of a key.
pub const KEY_LENGTH: usize = 32;
/// A datagram with more bytes is none of ours.
pub const DATAGRAM_MAX: usize = 2048;

const MAGIC: [u8; 4] = *b"S9H1";
const HEADER: usize = 18;
/// Keys kept per peer: two links, and the session before each of them.
const KEYS_MAX: usize = 6;

/// Seals and opens the heartbeats of one node.
#[derive(Debug)]
pub struct Seals {
    me: NodeId,
    counter: u64,
    /// The newest last.
    keys: BTreeMap<NodeId, Vec<(u32, LessSafeKey)>>,
    opened: Vec<u8>,
}

/// Why a datagram was not taken. Counted, never answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Not one of ours at all.
    #[error("not a heartbeat")]
    Foreign,
    /// Sealed with a key that this node does not have (yet).
    #[error("sealed with an unknown key")]
    UnknownKey,
    /// Tampered with, or sealed by someone else.
    #[error("the seal is broken")]
    Broken,
    /// From a member, but it makes no sense.
    #[error("a member's heartbeat that makes no sense")]
    Nonsense,
}

impl Seals {
    /// No keys yet.
    pub fn new(me: NodeId) -> Self {
        Self { me, counter: 0, keys: BTreeMap::new(), opened: Vec::with_capacity(DATAGRAM_MAX) }
    }

    /// A session with `peer` has this key now. The oldest beyond the bound is forgotten.
    pub fn add_key(&mut self, peer: NodeId, id: u32, key: &[u8; KEY_LENGTH]) {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("the key has the cipher's length"));
        let keys = self.keys.entry(peer).or_default();
        keys.retain(|(known, _)| *known != id);
        keys.push((id, key));
        if keys.len() > KEYS_MAX {
            keys.remove(0);
        }
    }

    /// No session with `peer` counts any more.
    pub fn forget(&mut self, peer: NodeId) {
        self.keys.remove(&peer);
    }

    /// Seals for `to` into `out`; false if there is no key for it yet.
    pub fn seal(&mut self, to: NodeId, heartbeat: &Heartbeat, out: &mut Vec<u8>) -> bool {
        let Some((id, key)) = self.keys.get(&to).and_then(|k| k.last()) else { return false };
        self.counter += 1;
        out.clear();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&id.to_le_bytes());
        out.extend_from_slice(&self.me.0.to_le_bytes());
        out.extend_from_slice(&self.counter.to_le_bytes());
        heartbeat.encode(out);
        let (header, body) = out.split_at_mut(HEADER);
        let tag = key.seal_in_place_separate_tag(nonce(header), Aad::from(&*header), body).expect("a heartbeat is short");
        out.extend_from_slice(tag.as_ref());
        true
    }

    /// Opens a datagram.
    ///
    /// # Errors
    /// [`Rejected`], for the counters.
    pub fn open(&mut self, datagram: &[u8]) -> Result<Heartbeat, Rejected> {
        let (header, body) = datagram.split_at_checked(HEADER).ok_or(Rejected::Foreign)?;
        if header[..4] != MAGIC {
            return Err(Rejected::Foreign);
        }
        let id = u32::from_le_bytes(header[4..8].try_into().expect("4 bytes"));
        let from = NodeId(u16::from_le_bytes(header[8..10].try_into().expect("2 bytes")));
        let (_, key) = self.keys.get(&from).and_then(|k| k.iter().rev().find(|(known, _)| *known == id)).ok_or(Rejected::UnknownKey)?;
        self.opened.clear();
        self.opened.extend_from_slice(body);
        let plain = key.open_in_place(nonce(header), Aad::from(header), &mut self.opened).map_err(|_| Rejected::Broken)?;
        let heartbeat = Heartbeat::decode(plain).ok_or(Rejected::Nonsense)?;
        if heartbeat.from.node == from { Ok(heartbeat) } else { Err(Rejected::Nonsense) }
    }
}

/// Sender and counter: the same key seals both directions.
fn nonce(header: &[u8]) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..10].copy_from_slice(&header[8..18]);
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use sixnines_core::ids::{Incarnation, LogIndex, Member};
    use sixnines_core::time::Instant;

    use super::*;

    fn beat(node: u16) -> Heartbeat {
        Heartbeat {
            from: Member { node: NodeId(node), incarnation: Incarnation(4) },
            life: 9,
            sequence: 77,
            sent: Instant::from_nanos(5),
            applied: LogIndex(3),
            is_echo: false,
            hears_nobody: false,
            renounces: false,
            may_be_late: false,
            stalled: None,
            echoes: Vec::new(),
        }
    }

    fn pair() -> (Seals, Seals) {
        let (mut a, mut b) = (Seals::new(NodeId(1)), Seals::new(NodeId(2)));
        a.add_key(NodeId(2), 7, &[3; KEY_LENGTH]);
        b.add_key(NodeId(1), 7, &[3; KEY_LENGTH]);
        (a, b)
    }

    #[test]
    fn what_is_sealed_can_be_opened_by_the_peer_alone() {
        let (mut a, mut b) = pair();
        let mut datagram = Vec::new();
        assert!(a.seal(NodeId(2), &beat(1), &mut datagram));
        assert_eq!(b.open(&datagram), Ok(beat(1)));
        let mut stranger = Seals::new(NodeId(2));
        stranger.add_key(NodeId(1), 7, &[4; KEY_LENGTH]);
        assert_eq!(stranger.open(&datagram), Err(Rejected::Broken));
        assert!(!a.seal(NodeId(3), &beat(1), &mut datagram), "no key for n3");
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let (mut a, mut b) = pair();
        let mut datagram = Vec::new();
        assert!(a.seal(NodeId(2), &beat(1), &mut datagram));
        for at in 0..datagram.len() {
            datagram[at] ^= 1;
            assert!(b.open(&datagram).is_err(), "byte {at}");
            datagram[at] ^= 1;
        }
        for length in 0..datagram.len() {
            assert!(b.open(&datagram[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn nobody_speaks_in_anothers_name() {
        let (mut a, mut b) = pair();
        let mut datagram = Vec::new();
        assert!(a.seal(NodeId(2), &beat(3), &mut datagram));
        assert_eq!(b.open(&datagram), Err(Rejected::Nonsense));
    }

    #[test]
    fn old_keys_open_until_newer_ones_push_them_out() {
        let (mut a, mut b) = pair();
        let mut datagram = Vec::new();
        assert!(a.seal(NodeId(2), &beat(1), &mut datagram));
        for id in 8..8 + u32::try_from(KEYS_MAX).expect("few") - 1 {
            b.add_key(NodeId(1), id, &[5; KEY_LENGTH]);
            assert!(b.open(&datagram).is_ok());
        }
        b.add_key(NodeId(1), 99, &[5; KEY_LENGTH]);
        assert_eq!(b.open(&datagram), Err(Rejected::UnknownKey));
    }
}
