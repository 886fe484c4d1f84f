//! What must hold, whatever happens: no acknowledged write lost, none undone, none applied twice, a shown read never lost.

use std::collections::{BTreeMap, BTreeSet};

use sixnines_core::ids::{Member, NodeId};

use crate::{Bytes, Change, Outcome, Record, Ticket};

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The active lacks a request that was acknowledged, read by somebody, or handed to a standby's application.
    Lost {
        /// The active.
        active: NodeId,
        /// Which request.
        request: u16,
        /// How it had become known.
        known: Known,
    },
    /// The active has applied a request twice.
    Twice {
        /// The active.
        active: NodeId,
        /// Which request.
        request: u16,
    },
    /// A read said to be fresh lacks what had been acknowledged before it was asked.
    OldRead {
        /// What it lacks.
        request: u16,
    },
    /// A start from nothing chose a copy that lacks what another one that lived had.
    WrongStart {
        /// What it lacks.
        request: u16,
    },
    /// A handover lost a write that the old active had taken.
    LostInHandover {
        /// Which request.
        request: u16,
    },
}

/// How a request became known outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Its writer was told that it is applied.
    Acknowledged,
    /// A reader saw it.
    Read,
    /// A standby's application got it.
    Followed,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Oracle {
    /// What was broken first; it stays.
    pub broken: Option<Broken>,
    /// Outcomes told.
    pub outcomes: BTreeMap<Ticket, Outcome>,
    /// What reads showed, and whether they called it fresh.
    pub answers: Vec<(Vec<u16>, bool)>,
    /// Frames that were refused as a peer's fault. None is due in an honest domain.
    pub faults: Vec<String>,
    known: BTreeMap<u16, (Known, BTreeSet<Member>)>,
    asked: BTreeMap<Ticket, BTreeSet<u16>>,
}

impl Oracle {
    /// Requests that nobody may lose any more.
    pub fn known(&self) -> impl Iterator<Item = u16> {
        self.known.keys().copied()
    }

    /// A request became known outside, while these lives held it.
    pub(super) fn know(&mut self, request: u16, known: Known, holders: impl Iterator<Item = Member>) {
        let row = self.known.entry(request).or_insert_with(|| (known, BTreeSet::new()));
        if known == Known::Acknowledged {
            row.0 = known;
        }
        row.1.extend(holders);
    }

    pub(super) fn asked(&mut self, ticket: Ticket) {
        let due = self.known.iter().filter(|(_, (k, _))| *k == Known::Acknowledged).map(|(r, _)| *r).collect();
        self.asked.insert(ticket, due);
    }

    pub(super) fn answered(&mut self, ticket: Ticket, seen: &[u16], fresh: bool) {
        self.answers.push((seen.to_vec(), fresh));
        let due = self.asked.remove(&ticket).unwrap_or_default();
        // What a start from nothing gave up since is no longer owed.
        let missing = due.iter().find(|r| !seen.contains(r) && self.known.contains_key(r)).copied();
        if let (true, Some(request)) = (fresh, missing) {
            self.break_with(Broken::OldRead { request });
        }
    }

    pub(super) fn check_active(&mut self, active: NodeId, applied: &[u16]) {
        let set: BTreeSet<u16> = applied.iter().copied().collect();
        if set.len() < applied.len() {
            let twice = set.iter().find(|r| applied.iter().filter(|a| a == r).count() > 1);
            let request = *twice.expect("the set is smaller");
            self.break_with(Broken::Twice { active, request });
        }
        let lost = self.known.iter().find(|(r, _)| !set.contains(r)).map(|(r, (known, _))| (*r, *known));
        if let Some((request, known)) = lost {
            self.break_with(Broken::Lost { active, request, known });
        }
    }

    /// What a copy that still lives had must not be given up; what died with all its holders is.
    pub(super) fn started_from(&mut self, left: &[u16], alive: &BTreeSet<Member>) {
        let missing: Vec<u16> = self.known.keys().filter(|r| !left.contains(r)).copied().collect();
        for request in missing {
            let held_by_living = self.known[&request].1.iter().any(|m| alive.contains(m));
            if held_by_living {
                self.break_with(Broken::WrongStart { request });
            }
            self.known.remove(&request);
        }
    }

    pub(super) fn handed_over(&mut self, before: &[u16], after: &[u16]) {
        if let Some(request) = before.iter().find(|r| !after.contains(r)) {
            self.break_with(Broken::LostInHandover { request: *request });
        }
    }

    fn break_with(&mut self, broken: Broken) {
        self.broken.get_or_insert(broken);
    }
}

/// What an application does with a record.
pub(super) fn mirror(memory: &mut BTreeMap<Bytes, Bytes>, record: &Record) {
    for change in &record.changes {
        match change {
            Change::Put { key, bytes } => _ = memory.insert(key.clone(), bytes.clone()),
            Change::Delete { key } => _ = memory.remove(key),
            Change::Patch { key, offset, bytes } => {
                let mut section = memory.get(key).map(|b| b.to_vec()).unwrap_or_default();
                let offset = usize::try_from(*offset).expect("small in tests");
                section.resize(section.len().max(offset + bytes.len()), 0);
                section[offset..offset + bytes.len()].copy_from_slice(bytes);
                memory.insert(key.clone(), section.into());
            }
        }
    }
}
