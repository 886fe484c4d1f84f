//! Bounds and times of one group's copies. Every queue and table of this crate has its bound here.

use std::time::Duration;

use sixnines_core::domain::config::{GroupConfig, Profile};

/// How one group's state is replicated, and the bounds of a copy's memory. The same on every node of the group.
#[derive(Clone, Debug)]
pub struct CopyConfig {
    /// How many copies are wanted, the active's included. With fewer in the in-sync set, results say `unprotected`.
    pub copies: u8,
    /// With fewer in the committed in-sync set nothing is acknowledged (protocol 2.3). At most [`Self::copies`].
    pub floor: u8,
    /// What fits in.
    pub limits: Limits,
    /// When patience ends.
    pub times: Times,
    /// A rule to break, to see that the tests find it.
    #[cfg(any(test, feature = "testing"))]
    pub fault: Option<Fault>,
}

/// The bounds of a copy. At a bound a write is refused with [`crate::Refusal::NoSpace`], which names the limit.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Sections in all.
    pub sections_max: usize,
    /// Bytes of one section's key.
    pub key_bytes_max: usize,
    /// Bytes of one section.
    pub section_bytes_max: usize,
    /// Bytes of all sections and keys.
    pub bytes_max: usize,
    /// Bytes of one batch of writes.
    pub batch_bytes_max: usize,
    /// Writes and reads that wait for copies.
    pub waiting_max: usize,
    /// Bytes of records that not every copy holds yet.
    pub unheld_bytes_max: usize,
    /// Request ids remembered; the oldest is forgotten, and a repeat of it would be applied again.
    pub requests_max: usize,
    /// Records kept although every copy in the set holds them, for replicas that come back.
    pub backlog_records_max: usize,
    /// Bytes of them.
    pub backlog_bytes_max: usize,
    /// Bytes sent to a replica and not yet reported; the rest waits in the backlog.
    pub window_bytes_max: usize,
    /// Bytes of one frame of records or one chunk of a transfer, a single larger record excepted.
    pub frame_bytes_max: usize,
    /// Chunks of a transfer sent and not yet reported.
    pub chunks_max: u32,
    /// Epochs that an alignment names; older ones are left out, which at worst means a transfer.
    pub runs_max: usize,
}

/// The times of a copy.
#[derive(Clone, Debug)]
pub struct Times {
    /// What was sent and not answered is sent again after this long. Longer than a round trip.
    pub resend: Duration,
    /// A standby that owes a waiting write a report for this long is left out of the set. Longer than a lease: an active that hears nobody
    /// is to lose that first.
    pub patience: Duration,
    /// A proposal without outcome is proposed again after this long; the old one stays open.
    pub propose: Duration,
    /// A write that cannot get enough copies for its floor is answered after this long, as unknown.
    pub floor_wait: Duration,
    /// A read that cannot be shown to be fresh is answered as possibly old after this long.
    pub read_wait: Duration,
    /// An idle active tells its replicas after this long how far everybody is.
    pub held_notice: Duration,
}

impl Default for CopyConfig {
    fn default() -> Self {
        Self {
            copies: 2,
            floor: 1,
            limits: Limits::default(),
            times: Times::default(),
            #[cfg(any(test, feature = "testing"))]
            fault: None,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sections_max: 1 << 20,
            key_bytes_max: 512,
            section_bytes_max: 16 << 20,
            bytes_max: 1 << 30,
            batch_bytes_max: 32 << 20,
            waiting_max: 1 << 16,
            unheld_bytes_max: 64 << 20,
            requests_max: 1 << 16,
            backlog_records_max: 1 << 16,
            backlog_bytes_max: 32 << 20,
            window_bytes_max: 8 << 20,
            frame_bytes_max: 256 << 10,
            chunks_max: 8,
            runs_max: 256,
        }
    }
}

impl Default for Times {
    fn default() -> Self {
        Self {
            resend: Duration::from_millis(50),
            patience: Duration::from_millis(200),
            propose: Duration::from_millis(200),
            floor_wait: Duration::from_secs(1),
            read_wait: Duration::from_millis(500),
            held_notice: Duration::from_millis(5),
        }
    }
}

/// The variants of protocol.md's table that belong to this crate. In the product none can be switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A proposed smaller set counts before it is committed.
    AcknowledgeBeforeShrink,
    /// A report of a node's former life counts for its present one.
    NoIncarnations,
    /// A replica reports its cursor under a new epoch without having been aligned.
    ReportBeforeAligned,
    /// Records are matched by sequence, whatever their epoch.
    MatchBySequence,
    /// A newcomer is listed before it has what was acknowledged.
    NewcomerTooEarly,
    /// A newcomer is listed when it has what was acknowledged, although more was shown or inherited.
    NewcomerNeedsOnlyAcknowledged,
    /// A newcomer counts only once its listing is known to be committed.
    NewcomerCountedAfterCommit,
    /// Losing the active role empties the copy.
    DemotedDiscards,
    /// A transfer empties the old copy before the new one is complete.
    ResyncInPlace,
    /// A replica takes records of an epoch below the highest it has seen.
    OldEpochAccepted,
    /// A repeated request is acknowledged because its write is there.
    RetryAtOnce,
    /// A repeated request is applied again.
    RepeatAppliedAgain,
    /// A read shows what not every member holds.
    ReadUncounted,
    /// A read is called fresh without asking anybody.
    ReadWithoutAsking,
    /// A switchover does not wait for the target.
    QuiescedUndrained,
    /// A quiesced active takes writes again although nothing was settled.
    ResumeUnsettled,
}

/// Whether rules can be broken here at all; not in the product.
pub const IS_BREAKABLE: bool = cfg!(any(test, feature = "testing"));

impl CopyConfig {
    /// Of a group in a domain of this profile.
    pub fn of(group: &GroupConfig, profile: Profile) -> Self {
        let times = Times::default();
        let patience = times.patience.max(profile.times().dead_after);
        Self { copies: group.copies, floor: group.floor, times: Times { patience, ..times }, ..Self::default() }
    }

    /// The same with a rule broken, where rules can be broken.
    #[must_use]
    pub fn breaking(self, fault: Option<Fault>) -> Self {
        #[cfg(any(test, feature = "testing"))]
        let broken = Self { fault, ..self };
        #[cfg(not(any(test, feature = "testing")))]
        let broken = {
            let _ = fault;
            self
        };
        broken
    }

    /// Whether `fault` is switched on; never in the product.
    pub(crate) fn has(&self, fault: Fault) -> bool {
        #[cfg(any(test, feature = "testing"))]
        let on = self.fault == Some(fault);
        #[cfg(not(any(test, feature = "testing")))]
        let on = {
            let _ = fault;
            false
        };
        on
    }
}
