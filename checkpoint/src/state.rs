//! The state of one copy: sections, and the requests that have already been applied.
//!
//! Each change returns what undoes it, so that records that not everybody holds can be cut off again (protocol 2.5).

use std::collections::BTreeMap;
use std::ops::Bound;

use serde::{Deserialize, Serialize};
use sixnines_core::ids::Sequence;

use crate::bytes::Bytes;
use crate::config::Limits;
use crate::outcome::{Cursor, Limit, Refusal};

/// One record of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// Its content.
    pub bytes: Bytes,
    /// The sequence of the write that made it so.
    pub version: Sequence,
}

/// A client's name for one write, so that a repeat is applied once. The client draws it and never uses it for anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId {
    /// Drawn once by the client.
    pub client: u64,
    /// Counts within it.
    pub serial: u64,
}

/// One step of a batch. A batch is applied as a whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Makes or replaces a section.
    Put {
        /// Which.
        key: Bytes,
        /// Its new content.
        bytes: Bytes,
    },
    /// Overwrites part of a section, which grows if need be.
    Patch {
        /// Which; made if it is not there.
        key: Bytes,
        /// Where, in bytes from the section's start; a hole is filled with zeros.
        offset: u64,
        /// What.
        bytes: Bytes,
    },
    /// Adds to a section's end.
    Append {
        /// Which; made if it is not there.
        key: Bytes,
        /// What.
        bytes: Bytes,
    },
    /// Removes a section; nothing if it is not there.
    Delete {
        /// Which.
        key: Bytes,
    },
    /// Refuses the whole batch unless the section is as expected.
    Expect {
        /// Which.
        key: Bytes,
        /// Its version; `None` if it must not be there.
        version: Option<Sequence>,
    },
}

/// What one step did, in a form that may be repeated: a replica that gets it twice in order ends up the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The section has this content.
    Put {
        /// Which.
        key: Bytes,
        /// Its content.
        bytes: Bytes,
    },
    /// The section has these bytes here.
    Patch {
        /// Which.
        key: Bytes,
        /// Where.
        offset: u64,
        /// What.
        bytes: Bytes,
    },
    /// The section is gone.
    Delete {
        /// Which.
        key: Bytes,
    },
}

impl Change {
    /// The section that changed.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. } | Self::Patch { key, .. } | Self::Delete { key } => key,
        }
    }

    /// About how many bytes it takes on the wire and in memory.
    pub(crate) fn size(&self) -> usize {
        const HEAD: usize = 16;
        HEAD + match self {
            Self::Put { key, bytes } | Self::Patch { key, bytes, .. } => key.len() + bytes.len(),
            Self::Delete { key } => key.len(),
        }
    }
}

/// Sections and remembered requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    sections: BTreeMap<Bytes, Section>,
    bytes: usize,
    requests: Requests,
}

/// What undoes one change of a [`State`].
#[derive(Debug, Default)]
pub(crate) struct Undo {
    sections: Vec<(Bytes, Option<Section>)>,
    request: Option<(RequestId, Option<(Cursor, RequestId)>)>,
}

/// How far a transfer of a state has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Resume {
    /// Sections up to and including this key are done.
    Sections(Option<Bytes>),
    /// All sections are done, and requests up to and including this one.
    Requests(Option<Cursor>),
    /// Everything is done.
    End,
}

/// A part of a [`State`] for a transfer.
pub(crate) struct Part {
    pub(crate) sections: Vec<(Bytes, Section)>,
    pub(crate) requests: Vec<(Cursor, RequestId)>,
    pub(crate) through: Resume,
}

impl State {
    /// A section.
    pub fn section(&self, key: &[u8]) -> Option<&Section> {
        self.sections.get(key)
    }

    /// All sections, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Section)> {
        self.sections.iter()
    }

    /// The sections from this key on, in the order of their keys.
    pub fn from<'a>(&'a self, key: &[u8]) -> impl Iterator<Item = (&'a Bytes, &'a Section)> + use<'a> {
        self.sections.range::<[u8], _>((Bound::Included(key), Bound::Unbounded))
    }

    /// How many sections there are.
    pub fn len(&self) -> usize {
        self.sections.len()
    }

    /// Whether there is no section.
    pub fn is_empty(&self) -> bool {
        self.sections.is_empty()
    }

    /// Bytes of all sections and keys.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The write that a request was applied as.
    pub(crate) fn request(&self, id: RequestId) -> Option<Cursor> {
        self.requests.by_id.get(&id).copied()
    }

    /// Applies a batch and returns what it did; changes nothing if it is refused.
    pub(crate) fn execute(&mut self, ops: &[Op], version: Sequence, limits: &Limits) -> Result<(Vec<Change>, Undo), Refusal> {
        let mut changes = Vec::with_capacity(ops.len());
        let mut undo = Undo::default();
        for (index, op) in ops.iter().enumerate() {
            match self.execute_one(index, op, version, limits, &mut undo) {
                Ok(change) => changes.extend(change),
                Err(refusal) => {
                    self.undo(undo);
                    return Err(refusal);
                }
            }
        }
        Ok((changes, undo))
    }

    fn execute_one(&mut self, index: usize, op: &Op, version: Sequence, limits: &Limits, undo: &mut Undo) -> Result<Option<Change>, Refusal> {
        let change = match op {
            Op::Put { key, bytes } => Change::Put { key: key.clone(), bytes: bytes.clone() },
            Op::Patch { key, offset, bytes } => Change::Patch { key: key.clone(), offset: *offset, bytes: bytes.clone() },
            Op::Append { key, bytes } => {
                let offset = self.section(key).map_or(0, |s| s.bytes.len() as u64);
                Change::Patch { key: key.clone(), offset, bytes: bytes.clone() }
            }
            Op::Delete { key } => Change::Delete { key: key.clone() },
            Op::Expect { key, version } => {
                let found = self.section(key).map(|s| s.version);
                return if found == *version { Ok(None) } else { Err(Refusal::Conflict { index }) };
            }
        };
        self.check(&change, limits)?;
        self.apply_one(&change, version, undo);
        Ok(Some(change))
    }

    fn check(&self, change: &Change, limits: &Limits) -> Result<(), Refusal> {
        let (key, after) = match change {
            Change::Put { key, bytes } => (key, bytes.len() as u64),
            Change::Patch { key, offset, bytes } => {
                let before = self.section(key).map_or(0, |s| s.bytes.len() as u64);
                (key, offset.saturating_add(bytes.len() as u64).max(before))
            }
            Change::Delete { .. } => return Ok(()),
        };
        let over = |limit| Err(Refusal::NoSpace(limit));
        if key.len() > limits.key_bytes_max {
            return over(Limit::KeyBytes);
        }
        if after > limits.section_bytes_max as u64 {
            return over(Limit::SectionBytes);
        }
        let before = self.section(key);
        if before.is_none() && self.sections.len() >= limits.sections_max {
            return over(Limit::Sections);
        }
        let freed = before.map_or(0, |s| s.bytes.len() + key.len()) as u64;
        if self.bytes as u64 - freed + after + key.len() as u64 > limits.bytes_max as u64 {
            return over(Limit::Bytes);
        }
        Ok(())
    }

    /// Gives a section its true version in the place of a provisional one.
    #[cfg(feature = "shell")]
    pub(crate) fn stamp(&mut self, key: &[u8], provisional: Sequence, version: Sequence) {
        if let Some(section) = self.sections.get_mut(key).filter(|s| s.version == provisional) {
            section.version = version;
        }
    }

    /// Applies what an active has already checked.
    pub(crate) fn apply(&mut self, changes: &[Change], version: Sequence) -> Undo {
        let mut undo = Undo::default();
        for change in changes {
            self.apply_one(change, version, &mut undo);
        }
        undo
    }

    fn apply_one(&mut self, change: &Change, version: Sequence, undo: &mut Undo) {
        let bytes = match change {
            Change::Put { bytes, .. } => Some(bytes.clone()),
            Change::Patch { key, offset, bytes } => Some(patched(self.section(key), *offset, bytes)),
            Change::Delete { .. } => None,
        };
        let key = change.key().clone();
        let old = self.set(key.clone(), bytes.map(|bytes| Section { bytes, version }));
        undo.sections.push((key, old));
    }

    fn set(&mut self, key: Bytes, section: Option<Section>) -> Option<Section> {
        let key_bytes = key.len();
        let old = match section {
            Some(section) => {
                self.bytes += section.bytes.len() + key_bytes;
                self.sections.insert(key, section)
            }
            None => self.sections.remove(&key),
        };
        self.bytes -= old.as_ref().map_or(0, |s| s.bytes.len() + key_bytes);
        old
    }

    /// Remembers a request; the oldest beyond `max` is forgotten.
    pub(crate) fn remember(&mut self, id: RequestId, at: Cursor, max: usize, undo: &mut Undo) {
        undo.request = Some((id, self.requests.insert(at, id, max)));
    }

    /// Takes back the newest change.
    pub(crate) fn undo(&mut self, undo: Undo) {
        for (key, old) in undo.sections.into_iter().rev() {
            self.set(key, old);
        }
        if let Some((id, forgotten)) = undo.request {
            self.requests.remove(id);
            if let Some((at, id)) = forgotten {
                self.requests.put(at, id);
            }
        }
    }

    /// The part after `after`, of about `bytes_max` bytes.
    pub(crate) fn part(&self, after: &Resume, bytes_max: usize) -> Part {
        let mut part = Part { sections: Vec::new(), requests: Vec::new(), through: after.clone() };
        let mut size = 0;
        if let Resume::Sections(key) = after {
            let from = key.as_ref().map_or(Bound::Unbounded, |k| Bound::Excluded(k.as_slice()));
            for (key, section) in self.sections.range::<[u8], _>((from, Bound::Unbounded)) {
                if size >= bytes_max {
                    return part;
                }
                size += key.len() + section.bytes.len() + 16;
                part.sections.push((key.clone(), section.clone()));
                part.through = Resume::Sections(Some(key.clone()));
            }
            part.through = Resume::Requests(None);
        }
        if let Resume::Requests(last) = part.through {
            let from = last.map_or(Bound::Unbounded, Bound::Excluded);
            for (at, id) in self.requests.by_cursor.range((from, Bound::Unbounded)) {
                if size >= bytes_max {
                    return part;
                }
                size += 24;
                part.requests.push((*at, *id));
                part.through = Resume::Requests(Some(*at));
            }
            part.through = Resume::End;
        }
        part
    }

    /// Takes in a part of another state.
    pub(crate) fn take(&mut self, sections: Vec<(Bytes, Section)>, requests: Vec<(Cursor, RequestId)>) {
        for (key, section) in sections {
            self.set(key, Some(section));
        }
        for (at, id) in requests {
            self.requests.put(at, id);
        }
    }
}

impl Undo {
    /// The sections as they were before, the oldest first.
    pub(crate) fn before(&self) -> impl DoubleEndedIterator<Item = &(Bytes, Option<Section>)> {
        self.sections.iter()
    }
}

/// A tolerant overwrite: a transfer may replay it over a newer section, which later records put right.
fn patched(section: Option<&Section>, offset: u64, bytes: &[u8]) -> Bytes {
    let old = section.map_or(&[][..], |s| s.bytes.as_slice());
    let offset = usize::try_from(offset).expect("a section's length fits the memory: the active checked its limit");
    let mut new = Vec::with_capacity(old.len().max(offset + bytes.len()));
    new.extend_from_slice(old);
    new.resize(old.len().max(offset + bytes.len()), 0);
    new[offset..offset + bytes.len()].copy_from_slice(bytes);
    new.into()
}

/// The requests applied, with their writes; the same on every copy, since it follows from the records alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Requests {
    by_id: BTreeMap<RequestId, Cursor>,
    by_cursor: BTreeMap<Cursor, RequestId>,
}

impl Requests {
    fn insert(&mut self, at: Cursor, id: RequestId, max: usize) -> Option<(Cursor, RequestId)> {
        self.put(at, id);
        if self.by_cursor.len() <= max {
            return None;
        }
        let oldest = self.by_cursor.pop_first()?;
        self.by_id.remove(&oldest.1);
        Some(oldest)
    }

    fn put(&mut self, at: Cursor, id: RequestId) {
        self.by_id.insert(id, at);
        self.by_cursor.insert(at, id);
    }

    fn remove(&mut self, id: RequestId) {
        if let Some(at) = self.by_id.remove(&id) {
            self.by_cursor.remove(&at);
        }
    }
}

