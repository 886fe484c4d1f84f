//! One deadline per thing that waits, and the earliest of all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::AlarmKey;
use crate::class::Slot;
use crate::ids::EventId;
use crate::time::Instant;
use crate::world::Ix;

/// What waits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Deadline {
    /// A value may have become stale.
    Stale(Ix, Slot),
    /// A derived word may have held for long enough.
    Hold(Ix, Slot),
    /// An alarm's hold-off, quiet time, shelf or confirmation.
    Alarm(AlarmKey),
    /// A policy's timer.
    Timer(Ix, Arc<str>),
    /// A claim's lease.
    Lease(Ix, Slot),
    /// A forced value.
    Force(Ix, Slot),
    /// A request that failed is asked again.
    Retry(EventId),
}

/// Deadlines, each thing having one at most: so their number is bounded by the things.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Deadlines {
    by_time: BTreeSet<(Instant, Deadline)>,
    when: BTreeMap<Deadline, Instant>,
}

impl Deadlines {
    /// Sets or moves one.
    pub(super) fn set(&mut self, deadline: Deadline, at: Instant) {
        if let Some(before) = self.when.insert(deadline.clone(), at) {
            self.by_time.remove(&(before, deadline.clone()));
        }
        self.by_time.insert((at, deadline));
    }

    /// Forgets one.
    pub(super) fn cancel(&mut self, deadline: &Deadline) {
        if let Some(at) = self.when.remove(deadline) {
            self.by_time.remove(&(at, deadline.clone()));
        }
    }

    /// The earliest moment at which something is due.
    pub(super) fn earliest(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes one that is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Deadline> {
        if self.earliest()? > now {
            return None;
        }
        let (_, deadline) = self.by_time.pop_first()?;
        self.when.remove(&deadline);
        Some(deadline)
    }

    /// Forgets everything that points into the world, when another one comes.
    pub(super) fn clear(&mut self) {
        self.by_time.clear();
        self.when.clear();
    }
}
