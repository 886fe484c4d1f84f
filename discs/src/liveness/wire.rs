//! A heartbeat and its bytes, before they are sealed.
//!
//! Fixed-size little-endian fields: a header, then one row per peer. Stamps are nanoseconds on the clock of the node that
//! sent them and mean something only to that node.

use sixnines_core::ids::{Incarnation, LogIndex, Member, NodeId};
use sixnines_core::time::Instant;
use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What one node tells all others, several times per `dead_after`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The sender, in its life; incarnation 0 until its `Joined` is applied.
    pub from: Member,
    /// Drawn anew for each start of the sender's process.
    pub life: u64,
    /// Counts every heartbeat and echo of this life, from 1.
    pub sequence: u64,
    /// When it was sent, on the sender's clock.
    pub sent: Instant,
    /// The last entry that the sender has applied. Whether an entry about the sender had any effect does not matter: one that was
    /// void has been applied too.
    pub applied: LogIndex,
    /// An answer at once to a heartbeat; it is not answered again.
    pub is_echo: bool,
    /// The sender has heard no peer for `dead_after`.
    pub hears_nobody: bool,
    /// The sender's lease is over, and it counts no grant of anything that it has sent up to this: what it was promised need not be kept. An
    /// older version never says so.
    pub renounces: bool,
    /// The sender's thread has no real-time rights: its silence counts, and it counts others', only after a wider window. An older
    /// version knows nothing of that, and does not widen its own.
    pub may_be_late: bool,
    /// The part of the sender that stands still ([`super::Part`]): this is its last heartbeat for now.
    pub stalled: Option<u8>,
    /// One row per peer.
    pub echoes: Vec<Echo>,
}

/// What the sender says about one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// The peer.
    pub node: NodeId,
    /// Its process's life that was heard; 0: none.
    pub life: u64,
    /// The newest stamp heard from it, on its clock.
    pub heard: Instant,
    /// The newest stamp granted, on its clock: from receiving it the sender keeps its promise for P.
    pub granted: Instant,
    /// The sender has released this life of the peer, under this `since`.
    pub released: Option<(Incarnation, LogIndex)>,
}

/// Peers in one heartbeat at most: a domain has at most 32 nodes.
pub const PEERS_MAX: usize = 31;

const VERSION: u8 = 1;
const ECHO: u8 = 1;
const HEARS_NOBODY: u8 = 2;
const MAY_BE_LATE: u8 = 4;
const RENOUNCES: u8 = 8;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    version: u8,
    flags: u8,
    stalled: u8,
    count: u8,
    node: U16,
    reserved: U16,
    incarnation: U64,
    life: U64,
    sequence: U64,
    sent: U64,
    applied: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Row {
    node: U16,
    reserved: [u8; 6],
    life: U64,
    heard: U64,
    granted: U64,
    released_life: U64,
    released_since: U64,
}

impl Heartbeat {
    /// Appends the bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.echoes.len() <= PEERS_MAX, "a domain has at most 32 nodes");
        let header = Header {
            version: VERSION,
            flags: u8::from(self.is_echo) * ECHO
                + u8::from(self.hears_nobody) * HEARS_NOBODY
                + u8::from(self.may_be_late) * MAY_BE_LATE
                + u8::from(self.renounces) * RENOUNCES,
            stalled: self.stalled.unwrap_or(0),
            count: u8::try_from(self.echoes.len()).expect("at most 31"),
            node: self.from.node.0.into(),
            reserved: 0.into(),
            incarnation: self.from.incarnation.0.into(),
            life: self.life.into(),
            sequence: self.sequence.into(),
            sent: self.sent.as_nanos().into(),
            applied: self.applied.0.into(),
        };
        out.extend_from_slice(header.as_bytes());
        for echo in &self.echoes {
            let (released_life, released_since) = echo.released.unwrap_or_default();
            let row = Row {
                node: echo.node.0.into(),
                reserved: [0; 6],
                life: echo.life.into(),
                heard: echo.heard.as_nanos().into(),
                granted: echo.granted.as_nanos().into(),
                released_life: released_life.0.into(),
                released_since: released_since.0.into(),
            };
            out.extend_from_slice(row.as_bytes());
        }
    }

    /// Reads what [`Self::encode`] wrote; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, rest) = Header::ref_from_prefix(bytes).ok()?;
        let rows = <[Row]>::ref_from_bytes_with_elems(rest, usize::from(header.count)).ok()?;
        if header.version != VERSION || rows.len() > PEERS_MAX {
            return None;
        }
        Some(Self {
            from: Member { node: NodeId(header.node.get()), incarnation: Incarnation(header.incarnation.get()) },
            life: header.life.get(),
            sequence: header.sequence.get(),
            sent: Instant::from_nanos(header.sent.get()),
            applied: LogIndex(header.applied.get()),
            is_echo: header.flags & ECHO != 0,
            hears_nobody: header.flags & HEARS_NOBODY != 0,
            renounces: header.flags & RENOUNCES != 0,
            may_be_late: header.flags & MAY_BE_LATE != 0,
            stalled: Some(header.stalled).filter(|s| *s != 0),
            echoes: rows.iter().map(Echo::from).collect(),
        })
    }
}

impl From<&Row> for Echo {
    fn from(row: &Row) -> Self {
        let since = LogIndex(row.released_since.get());
        Self {
            node: NodeId(row.node.get()),
            life: row.life.get(),
            heard: Instant::from_nanos(row.heard.get()),
            granted: Instant::from_nanos(row.granted.get()),
            released: (since != LogIndex(0)).then_some((Incarnation(row.released_life.get()), since)),
        }
    }
}
