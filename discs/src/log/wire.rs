//! Frames between control logs.
//!
//! ```text
//! offset  0     1       2     3      4..8             8..16    16..24         24..32             32..40       40..
//!         b'C'  FORMAT  kind  zero   CRC32C of the rest  domain   sender's disk  receiver's disk, 0  correlation  body (postcard)
//!                                                                               if not known
//! ```
//! A frame comes from an authenticated peer, yet its bytes are not trusted: whatever cannot be a frame of this protocol from
//! that very peer is refused here, before openraft, which trusts its callers, sees it.

use serde::{Deserialize, Serialize};
use sixnines_core::domain::Void;
use sixnines_core::ids::{LogIndex, NodeId};

use super::format::{self, LogEntry, LogId, Vote};

const MAGIC: u8 = b'C';
const FORMAT: u8 = 1;
const HEADER: usize = 40;
const CHECKED_FROM: usize = 8;

/// Whose frame it is, to whom, and which answer belongs to which question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) domain: u64,
    pub(crate) from_disk: u64,
    pub(crate) to_disk: u64,
    pub(crate) correlation: u64,
}

/// How urgent a frame is; for whoever chooses a connection or stream for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Votes, heartbeats, leadership: must never wait behind anything.
    Urgent,
    /// Entries and proposals.
    Entries,
    /// Parts of snapshots.
    Bulk,
}

/// The lane of a frame that this module made.
pub fn lane(frame: &[u8]) -> Lane {
    match frame.get(2).map(|kind| kind & !ANSWER) {
        Some(KIND_ENTRIES) => Lane::Entries,
        Some(KIND_BULK) => Lane::Bulk,
        _ => Lane::Urgent,
    }
}

const KIND_URGENT: u8 = 1;
const KIND_ENTRIES: u8 = 2;
const KIND_BULK: u8 = 3;
/// Set in the kind of an answer.
const ANSWER: u8 = 0x80;

/// A question to a peer. Never reorder or remove a variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Request {
    Vote { vote: Vote, last: Option<LogId>, transfer: bool },
    PreVote { vote: Vote, last: Option<LogId> },
    Append { vote: Vote, previous: Option<LogId>, entries: Vec<LogEntry>, commit: Option<LogId> },
    Transfer { vote: Vote, to: NodeId, last: Option<LogId> },
    SnapshotPart(SnapshotPart),
    Propose { proposal: Vec<u8> },
    /// Say anything: a node that is not (or no longer) in the membership is spoken to by nobody, and its disk must be known to take it in.
    Who,
    /// Hand this on to the leader, who does not hear me.
    Relay { proposal: Vec<u8> },
}

/// One part of a snapshot; the transfer's parts come one after the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SnapshotPart {
    pub(crate) vote: Vote,
    pub(crate) transfer: u64,
    pub(crate) offset: u64,
    pub(crate) total: u64,
    pub(crate) bytes: Vec<u8>,
}

/// No snapshot is longer; an offer of a longer one is no frame of ours.
pub(crate) const SNAPSHOT_BYTES_MAX: u64 = 256 << 20;

/// The answer to a [`Request`]. Never reorder or remove a variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Reply {
    Vote { vote: Vote, granted: bool, last: Option<LogId> },
    Appended,
    AppendedUpTo(Option<LogId>),
    Conflict,
    HigherVote(Vote),
    TransferAccepted,
    TransferRefusedVote(Vote),
    TransferRefusedLog(Option<LogId>),
    SnapshotPart { next: u64 },
    SnapshotDone { vote: Vote },
    Proposed(Proposed),
    /// The peer cannot answer now: not started, stopped, or it knows better.
    Unable,
}

/// What became of a forwarded proposal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Proposed {
    Applied(LogIndex),
    Void(LogIndex, Void),
    /// Not in the log and will not be; perhaps somebody else leads.
    NotLeader(Option<NodeId>),
    /// May be in the log.
    Unknown,
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Message {
    Request(Request),
    Reply(Reply),
}

impl Message {
    fn kind(&self) -> u8 {
        match self {
            Self::Request(Request::Append { entries, .. }) if !entries.is_empty() => KIND_ENTRIES,
            Self::Request(Request::Propose { .. } | Request::Relay { .. }) => KIND_ENTRIES,
            Self::Request(Request::SnapshotPart(_)) => KIND_BULK,
            Self::Request(_) => KIND_URGENT,
            Self::Reply(Reply::SnapshotPart { .. } | Reply::SnapshotDone { .. }) => KIND_BULK | ANSWER,
            Self::Reply(Reply::Proposed(_)) => KIND_ENTRIES | ANSWER,
            Self::Reply(_) => KIND_URGENT | ANSWER,
        }
    }
}

/// The frame's bytes.
pub(crate) fn encode(envelope: Envelope, message: &Message) -> Vec<u8> {
    let mut frame = vec![MAGIC, FORMAT, message.kind(), 0, 0, 0, 0, 0];
    for number in [envelope.domain, envelope.from_disk, envelope.to_disk, envelope.correlation] {
        frame.extend_from_slice(&number.to_le_bytes());
    }
    let frame = match message {
        Message::Request(request) => postcard::to_extend(request, frame),
        Message::Reply(reply) => postcard::to_extend(reply, frame),
    };
    let mut frame = frame.expect("plain values have an encoding");
    let sum = checksum(&frame);
    frame[4..CHECKED_FROM].copy_from_slice(&sum.to_le_bytes());
    frame
}

fn checksum(frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&frame[..4]), &frame[CHECKED_FROM..])
}

/// Reads a frame from `from`; `None` if it cannot be one.
pub(crate) fn decode(from: NodeId, frame: &[u8]) -> Option<(Envelope, Message)> {
    if frame.len() < HEADER || frame[0] != MAGIC || frame[1] != FORMAT {
        return None;
    }
    if u32::from_le_bytes(frame[4..CHECKED_FROM].try_into().ok()?) != checksum(frame) {
        return None;
    }
    let number = |at: usize| Some(u64::from_le_bytes(frame.get(at..at + 8)?.try_into().ok()?));
    let envelope = Envelope { domain: number(8)?, from_disk: number(16)?, to_disk: number(24)?, correlation: number(32)? };
    let body = &frame[HEADER..];
    let message = if frame[2] & ANSWER == 0 {
        Message::Request(format::decode(body).filter(|r: &Request| r.is_plausible(from))?)
    } else {
        Message::Reply(format::decode(body)?)
    };
    (message.kind() == frame[2]).then_some((envelope, message))
}

/// No log gets there: beyond it, sums could overflow.
const INDEX_MAX: u64 = u64::MAX >> 8;

impl Request {
    /// Whether a working peer `from` can have said this.
    fn is_plausible(&self, from: NodeId) -> bool {
        let sane = |id: &Option<LogId>| id.is_none_or(|id| id.index <= INDEX_MAX && id.term <= INDEX_MAX);
        let by_candidate = |vote: &Vote| !vote.committed && vote.node == from && vote.term <= INDEX_MAX;
        let by_leader = |vote: &Vote| vote.committed && vote.node == from && vote.term <= INDEX_MAX;
        match self {
            Self::Vote { vote, last, .. } | Self::PreVote { vote, last } => by_candidate(vote) && sane(last),
            Self::Append { vote, previous, entries, commit } => {
                by_leader(vote) && sane(previous) && sane(commit) && are_consecutive(vote, *previous, entries)
            }
            Self::Transfer { vote, last, .. } => by_leader(vote) && sane(last),
            Self::SnapshotPart(part) => {
                let end = part.offset.checked_add(part.bytes.len() as u64);
                by_leader(&part.vote) && part.total <= SNAPSHOT_BYTES_MAX && end.is_some_and(|end| end <= part.total)
            }
            Self::Propose { .. } | Self::Relay { .. } | Self::Who => true,
        }
    }
}

/// Entries follow each other without a hole, and none is from after the leader that sends them.
fn are_consecutive(vote: &Vote, previous: Option<LogId>, entries: &[LogEntry]) -> bool {
    let mut before = previous;
    entries.iter().all(|entry| {
        let follows = match before {
            None => entry.id.index == 0,
            Some(b) => entry.id.index == b.index + 1 && (entry.id.term, entry.id.node) >= (b.term, b.node),
        };
        before = Some(entry.id);
        follows && entry.is_whole() && (entry.id.term, entry.id.node) <= (vote.term, vote.node)
    })
}
