//! The domain's feature level: what its log, snapshots and frames may bear (protocol 6.3).
//!
//! Each released version that knows a new kind of thing reads one level more than the one before. Two versions are in one domain while it is upgraded,
//! so a new kind is written only once the log holds its level: an operator raises it, one step at a time, when every member reads the next
//! one. It never sinks: what is in the log stays there. Who meets a level above those that it reads stops, and says so; it skips nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Change, Domain, Entry, Void};
use crate::ids::Version;

/// A feature level, from 1 up: also the number of the released version that came with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Level(pub u8);

impl Level {
    /// Where nothing was said: what every build reads.
    pub const FIRST: Self = Self(1);
    /// The newest that this build reads.
    pub const NEWEST: Self = Self(1);

    /// The one step that can be made from here; `None` from the last number there is.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }

    /// Whether nothing was said, and nothing is written.
    pub fn is_first(self) -> bool {
        self == Self::FIRST
    }
}

impl Default for Level {
    fn default() -> Self {
        Self::FIRST
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Something was written at a level that this build does not read. The node stops: nothing of it may be skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the domain is at feature level {theirs}, this build reads up to {ours}: install a newer build of nines on this node, the one that the others run")]
pub struct TooNew {
    /// The domain's.
    pub theirs: Level,
    /// The newest that is read here.
    pub ours: Level,
}

impl Domain {
    /// Whether a build that reads up to `reads` may go on with this domain.
    ///
    /// # Errors
    /// [`TooNew`]: it must stop.
    pub fn check_level(&self, reads: Level) -> Result<(), TooNew> {
        if self.level <= reads { Ok(()) } else { Err(TooNew { theirs: self.level, ours: reads }) }
    }

    /// One step, from the level that the proposer saw. Whether every member reads it is the proposer's to know: it is nowhere in the log.
    pub(super) fn raise(&mut self, to: Level) -> Result<Vec<Change>, Void> {
        if to == self.level {
            return Err(Void::Repeated);
        }
        if self.level.next() != Some(to) {
            return Err(Void::Version { made_for: Version(u64::from(to.0).saturating_sub(1)), present: Version(u64::from(self.level.0)) });
        }
        self.level = to;
        Ok(vec![Change::Raised(to)])
    }
}

impl Entry {
    /// The level that the domain must have before this may be proposed. Whoever adds a kind gives it its level here.
    pub fn level(&self) -> Level {
        match self {
            // Who reads the step after next has not said so of the one in between.
            Self::Feature { level } => Level(level.0.saturating_sub(1)).max(Level::FIRST),
            Self::Joined { .. }
            | Self::Confirm { .. }
            | Self::Configure { .. }
            | Self::Bundle { .. }
            | Self::Start { .. }
            | Self::Takeover { .. }
            | Self::Switchover { .. }
            | Self::Sync { .. }
            | Self::DiskLost { .. }
            | Self::Invite { .. }
            | Self::Admit { .. }
            | Self::Expel { .. }
            | Self::Limits { .. }
            | Self::Fenced { .. } => Level::FIRST,
        }
    }

    /// The level that whoever applies this must read.
    pub fn leads_to(&self) -> Level {
        match self {
            Self::Feature { level } => *level,
            other => other.level(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{LogIndex, NodeId};

    fn apply(domain: &mut Domain, level: u8) -> Result<Vec<Change>, Void> {
        let entry = Entry::Feature { level: Level(level) };
        assert_eq!(Entry::decode(&entry.encode()), Ok(entry.clone()));
        domain.apply(LogIndex(domain.applied.0 + 1), &entry)
    }

    #[test]
    fn a_domain_begins_at_level_1_and_goes_up_by_single_steps() {
        let mut domain = Domain::default();
        assert_eq!(domain.level, Level::FIRST);
        assert_eq!(apply(&mut domain, 1), Err(Void::Repeated));
        assert_eq!(apply(&mut domain, 3), Err(Void::Version { made_for: Version(2), present: Version(1) }), "a step is not left out");
        assert_eq!(apply(&mut domain, 0), Err(Void::Version { made_for: Version(0), present: Version(1) }));
        assert_eq!(apply(&mut domain, 2), Ok(vec![Change::Raised(Level(2))]));
        assert_eq!(apply(&mut domain, 2), Err(Void::Repeated), "the same step asked for twice is one step");
        assert_eq!(apply(&mut domain, 1), Err(Void::Version { made_for: Version(0), present: Version(2) }), "it never sinks");
        assert_eq!(apply(&mut domain, 3), Ok(vec![Change::Raised(Level(3))]));
        domain.level = Level(u8::MAX);
        assert!(apply(&mut domain, 0).is_err(), "the last level has no next one");
    }

    #[test]
    fn who_reads_less_must_stop_and_is_told_what_to_do() {
        let domain = Domain { level: Level(2), ..Domain::default() };
        assert_eq!(domain.check_level(Level(2)), Ok(()));
        assert_eq!(domain.check_level(Level(3)), Ok(()), "newer builds read what is older");
        let why = domain.check_level(Level::FIRST).expect_err("it is too new").to_string();
        assert!(why.contains("at feature level 2") && why.contains("reads up to 1") && why.contains("install a newer build"), "{why}");
    }

    #[test]
    fn what_there_is_today_needs_no_level_and_a_step_needs_the_one_before() {
        assert_eq!(Entry::Expel { node: NodeId(3) }.level(), Level::FIRST);
        let step = |level| Entry::Feature { level: Level(level) };
        assert_eq!([0, 1, 2, 3].map(|l| step(l).level().0), [1, 1, 1, 2]);
        assert_eq!((step(3).leads_to(), Entry::Expel { node: NodeId(3) }.leads_to()), (Level(3), Level::FIRST));
    }
}
