//! The log's files: `identity`, `log`, `snapshot`, in the record format of `sixnines_core::journal::record`.
//!
//! The log is one segment. It grows by batches, each ended by one sync; when enough of it is dead (purged entries, old votes) it is
//! written anew beside the old one and renamed over it, so that at any moment there is exactly one whole log.
//! `identity` is written last when a directory is first used: a directory with a log that bears anything, but no identity, is not
//! ours to touch.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};
use sixnines_core::domain::feature::TooNew;
use sixnines_core::ids::NodeId;
use sixnines_core::journal::record::{self, Record, Records, Tail};

use super::disk::Disk;
use super::format::{self, LogEntry, LogId, Vote};

const IDENTITY: &str = "identity";
pub(crate) const LOG: &str = "log";
const SNAPSHOT: &str = "snapshot";
/// What a rename has not reached is not there.
const NEW: &str = ".new";

/// The log's records. Never renumber.
pub(crate) mod kind {
    /// Format number, the first record of each file.
    pub(crate) const HEADER: u8 = 1;
    pub(crate) const IDENTITY: u8 = 2;
    pub(crate) const VOTE: u8 = 3;
    pub(crate) const ENTRY: u8 = 4;
    /// Body: the index of the first entry that is gone.
    pub(crate) const TRUNCATED: u8 = 5;
    /// Body: the log id of the last entry that is gone.
    pub(crate) const PURGED: u8 = 6;
    /// Body: the log id up to which entries are known to be committed.
    pub(crate) const COMMITTED: u8 = 7;
    pub(crate) const SNAPSHOT_META: u8 = 8;
    pub(crate) const SNAPSHOT_DOMAIN: u8 = 9;
    /// Last of what was renamed into place: nothing before it can be torn.
    pub(crate) const WHOLE: u8 = 10;
}

/// Format of all three files.
pub(crate) const FORMAT: u8 = 1;

/// Whose directory this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// The domain, a number drawn when it was made.
    pub domain: u64,
    /// The disk, a number drawn when the directory was first used: a wiped one has another.
    pub disk: u64,
}

/// Why a log's directory cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The device said no.
    #[error("the log directory cannot be read or written")]
    Disk(#[from] io::Error),
    /// It belongs to somebody else.
    #[error("the log directory belongs to node {} of domain {:016x}, this is node {} of domain {:016x}", theirs.node, theirs.domain, ours.0, ours.1)]
    Foreign {
        /// Whose it is.
        theirs: Identity,
        /// Who asks.
        ours: (NodeId, u64),
    },
    /// There is a log, but nothing says whose; or an identity, but no log.
    #[error("the log directory has no {0}, but other files of a log: it is not whole, and nothing is done with it")]
    Missing(&'static str),
    /// Something that had been synced is bad.
    #[error("{file} is damaged at byte {at}: {what}; the node must not go on with it, replace the node's disk")]
    Damaged {
        /// The file.
        file: &'static str,
        /// Where.
        at: usize,
        /// How.
        what: String,
    },
    /// Written by a version that knows more.
    #[error("{file} has format {theirs}, which this build does not read: install a newer build of nines on this node, the one that the others run")]
    Format {
        /// The file.
        file: &'static str,
        /// Found.
        theirs: u8,
    },
    /// Written at a feature level that this build does not read.
    #[error("{file} cannot be read: {why}")]
    TooNew {
        /// The file.
        file: &'static str,
        /// Which level, and which ones are read.
        why: TooNew,
    },
    /// The Raft library refused the state that was found.
    #[error("the control log could not be started: {0}")]
    Start(String),
}

/// What a directory held.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) vote: Option<Vote>,
    pub(crate) purged: Option<LogId>,
    pub(crate) committed: Option<LogId>,
    pub(crate) entries: BTreeMap<u64, LogEntry>,
    /// The snapshot file's bytes, already judged whole.
    pub(crate) snapshot: Option<Vec<u8>>,
}

impl Recovered {
    fn last(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, e)| e.id).or(self.purged)
    }
}

/// One record to be written.
pub(crate) type Item = (u8, Vec<u8>);

/// The files, for their one writer.
pub(crate) struct Segment {
    disk: Box<dyn Disk>,
    /// Bytes in the log.
    length: u64,
    /// Nothing was written since the last sync.
    synced: bool,
}

impl Segment {
    /// Opens the directory; makes it the log of `identity` if it is empty. `identity.disk` counts only then.
    pub(crate) fn open(mut disk: Box<dyn Disk>, identity: Identity) -> Result<(Self, Identity, Recovered), OpenError> {
        let names = disk.list()?;
        for stale in names.iter().filter(|n| n.ends_with(NEW)) {
            disk.remove(stale)?;
        }
        let log = disk.read(LOG)?;
        let found = disk.read(IDENTITY)?.map(|bytes| read_identity(&bytes)).transpose()?;
        let Some(found) = found else {
            return Self::create(disk, identity, log.as_deref());
        };
        if (found.node, found.domain) != (identity.node, identity.domain) {
            return Err(OpenError::Foreign { theirs: found, ours: (identity.node, identity.domain) });
        }
        let log = log.ok_or(OpenError::Missing(LOG))?;
        let (mut recovered, good) = read_log(&log)?;
        if good < log.len() {
            tracing::warn!(cut = log.len() - good, "the log's torn tail is cut");
            disk.cut(LOG, good as u64)?;
        }
        recovered.snapshot = disk.read(SNAPSHOT)?;
        if let Some(bytes) = &recovered.snapshot {
            whole(SNAPSHOT, bytes)?;
        }
        Ok((Self { disk, length: good as u64, synced: true }, found, recovered))
    }

    fn create(disk: Box<dyn Disk>, identity: Identity, log: Option<&[u8]>) -> Result<(Self, Identity, Recovered), OpenError> {
        // A log without anything in it is what a crash between the two files below leaves.
        let bare = log.is_none_or(|bytes| Records::new(bytes).all(|r| matches!(r.kind, kind::HEADER | kind::WHOLE)));
        let mut segment = Self { disk, length: 0, synced: true };
        if !bare || segment.disk.read(SNAPSHOT)?.is_some() {
            return Err(OpenError::Missing(IDENTITY));
        }
        segment.rewrite(&[])?;
        let body = format::encode(&identity);
        segment.replace(IDENTITY, &file(&[(kind::IDENTITY, body)]))?;
        Ok((segment, identity, Recovered::default()))
    }

    /// Bytes in the log.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Adds records at the log's end, not yet durable.
    pub(crate) fn write(&mut self, items: &[Item]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for (kind, body) in items {
            if std::mem::take(&mut self.synced) {
                record::encode_after_sync(*kind, body, &mut bytes);
            } else {
                record::encode(*kind, body, &mut bytes);
            }
        }
        self.length += bytes.len() as u64;
        self.disk.append(LOG, &bytes)
    }

    /// Makes what was written durable.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if !self.synced {
            self.disk.sync(LOG)?;
            self.synced = true;
        }
        Ok(())
    }

    /// Puts a log with just these records in place of the old one, durably.
    pub(crate) fn rewrite(&mut self, items: &[Item]) -> io::Result<()> {
        let bytes = file(items);
        self.replace(LOG, &bytes)?;
        self.length = bytes.len() as u64;
        self.synced = true;
        Ok(())
    }

    /// Puts a snapshot in place of the old one, durably.
    pub(crate) fn save_snapshot(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.replace(SNAPSHOT, bytes)
    }

    /// How long the next sync takes in simulated time.
    pub(crate) fn latency(&mut self) -> std::time::Duration {
        self.disk.latency()
    }

    fn replace(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let new = format!("{name}{NEW}");
        self.disk.append(&new, bytes)?;
        self.disk.sync(&new)?;
        self.disk.rename(&new, name)
    }
}

/// A whole file: header, the items, and the mark that all of it was synced before it got its name.
pub(crate) fn file(items: &[Item]) -> Vec<u8> {
    let mut bytes = Vec::new();
    record::encode(kind::HEADER, &[FORMAT], &mut bytes);
    for (kind, body) in items {
        record::encode(*kind, body, &mut bytes);
    }
    record::encode_after_sync(kind::WHOLE, &[], &mut bytes);
    bytes
}

/// The records after the header of a file that was renamed into place: nothing in it can be torn.
pub(crate) fn whole<'a>(file: &'static str, bytes: &'a [u8]) -> Result<Vec<Record<'a>>, OpenError> {
    let mut records = Records::new(bytes);
    let all: Vec<_> = records.by_ref().collect();
    let at = records.good_length();
    if at < bytes.len() || all.is_empty() {
        return Err(OpenError::Damaged { file, at, what: "a bad record".into() });
    }
    header(file, &all[0])?;
    Ok(all[1..].to_vec())
}

fn header(file: &'static str, record: &Record<'_>) -> Result<(), OpenError> {
    match (record.kind, record.body) {
        (kind::HEADER, &[FORMAT]) => Ok(()),
        (kind::HEADER, &[theirs]) => Err(OpenError::Format { file, theirs }),
        _ => Err(OpenError::Damaged { file, at: record.at, what: "no header".into() }),
    }
}

fn read_identity(bytes: &[u8]) -> Result<Identity, OpenError> {
    let records = whole(IDENTITY, bytes)?;
    let identity = records.iter().find(|r| r.kind == kind::IDENTITY).and_then(|r| format::decode(r.body));
    identity.ok_or(OpenError::Damaged { file: IDENTITY, at: 0, what: "no identity in it".into() })
}

/// What the log's records add up to, and how many of its bytes are good.
fn read_log(bytes: &[u8]) -> Result<(Recovered, usize), OpenError> {
    let mut records = Records::new(bytes);
    let damaged = |at, what: String| OpenError::Damaged { file: LOG, at, what };
    let first = records.next().ok_or_else(|| damaged(0, "no header".into()))?;
    header(LOG, &first)?;
    let mut state = Recovered::default();
    for record in records.by_ref() {
        replay(&mut state, &record).map_err(|what| damaged(record.at, what))?;
    }
    let good = records.good_length();
    if let Tail::Damaged { at, next } = records.tail() {
        return Err(damaged(at, format!("a bad record, but what was synced before byte {next} must be there")));
    }
    // Written along with entries that a torn tail may have taken.
    state.committed = state.committed.min(state.last());
    Ok((state, good))
}

fn replay(state: &mut Recovered, record: &Record<'_>) -> Result<(), String> {
    fn body<T: serde::de::DeserializeOwned>(record: &Record<'_>) -> Result<T, String> {
        format::decode(record.body).ok_or_else(|| format!("the body of a record of kind {} cannot be read", record.kind))
    }
    match record.kind {
        kind::VOTE => state.vote = Some(body(record)?),
        kind::ENTRY => {
            let entry: LogEntry = body(record)?;
            let next = state.last().map_or(0, |id| id.index + 1);
            if entry.id.index != next {
                return Err(format!("entry {} where {next} was expected", entry.id.index));
            }
            if !entry.is_whole() {
                return Err(format!("the membership in entry {next} contradicts itself"));
            }
            state.entries.insert(next, entry);
        }
        kind::TRUNCATED => drop(state.entries.split_off(&body::<u64>(record)?)),
        kind::PURGED => {
            let purged: LogId = body(record)?;
            state.entries = state.entries.split_off(&(purged.index + 1));
            state.purged = Some(purged);
        }
        kind::COMMITTED => state.committed = Some(body(record)?),
        kind::WHOLE => {}
        unknown => return Err(format!("a record of kind {unknown}, which this version does not know")),
    }
    Ok(())
}
