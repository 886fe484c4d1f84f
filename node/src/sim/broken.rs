//! Rules of the product, each of which can be taken out, so that it can be seen that the invariants notice.
//!
//! The product's machines know nothing of it. A rule is broken around them: by what they are told, by what becomes of what they ask
//! for, by how entries are applied ([`law`]), by what heartbeats say ([`beats`]), by what a disk keeps. Only the checkpoint's copies have
//! switches inside, which exist in tests alone ([`Mutation::is_there`]). Within how many seeds each is found stands in `tests/broken.rs`.

pub(super) mod beats;
mod law;

use sixnines_checkpoint::config::{Fault, IS_BREAKABLE};
use sixnines_core::domain::config::Times;
use sixnines_core::domain::fence::Fencing;
use sixnines_core::domain::{Domain, Entry};
use sixnines_core::ids::{Member, NodeId};
use sixnines_core::time::{Duration, Instant};
use sixnines_discs::log::{Apply, sim::Lie};

/// A rule to break.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Mutation {
    /// None: the product as it is.
    #[default]
    None,

    // ---- who is what: protocol 1
    /// 1.1: a restarted node goes on under its former life's name, without its memory.
    NamesWithoutIncarnations,
    /// 1.2: an entry is applied to whatever version it meets.
    EntriesWithoutVersion,
    /// 1.3: a life that is over stays in the in-sync set.
    DeadStayInSet,
    /// 1.3: a `Joined` ends whatever life it meets.
    JoinedEndsAnyLife,
    /// 1.4: who is no member is promoted.
    PromotesNonMember,

    // ---- writes: protocol 2, and 1.5 and 1.6
    /// The active acknowledges before anybody else has the write.
    AcknowledgesAlone,
    /// An application that lost its role goes on answering from its memory.
    OldEpochAnswers,
    /// 2.1: a proposed smaller set counts before it is committed.
    AcknowledgeBeforeShrink,
    /// 1.1: a report of a former life counts for the present one.
    AcknowledgementsWithoutIncarnation,
    /// 2.5: a report under a new epoch counts although nobody has aligned the copies.
    OldCursorCounts,
    /// 2.5: records are matched by sequence, whatever their epoch.
    MatchBySequence,
    /// 1.5: a newcomer is listed before it has anything.
    NewcomerTooEarly,
    /// 1.5: a newcomer needs only what was acknowledged, although more was shown.
    NewcomerNeedsOnlyAcknowledged,
    /// 1.5: a newcomer counts only once its listing is known to be committed.
    NewcomerCountedAfterCommit,
    /// 2.6: losing the active role empties the copy.
    DemotedDiscards,
    /// 2.6: a transfer empties the old copy before the new one is complete.
    ResyncInPlace,
    /// 2.4: a replica takes writes of an older epoch.
    OldEpochAccepted,
    /// 2.2: a repeat is acknowledged because its write is there.
    RetryAtOnce,
    /// 1.4: a repeat is applied again.
    RepeatAppliedAgain,
    /// 2.2: a read shows what not every member holds.
    ReadUncounted,
    /// 2.2: a read is called fresh without a lease or a word of the members.
    ReadWithoutAsking,
    /// 1.6: a switchover does not wait for its target.
    SwitchoverUndrained,
    /// 1.6: a quiesced active takes writes again although nothing was settled.
    ResumesUnsettled,

    // ---- the lease: protocol 3
    /// 3.1: the lease counts from the arrival of the grant.
    LeaseFromArrival,
    /// 3.2: the lease outlasts the promise.
    LeaseOutlastsPromise,
    /// 3.1, 5.2: a link that is down is evidence enough for a release, whatever was promised.
    EvidenceSkipsWait,
    /// 3.3: who hears nobody is granted a lease all the same, and not held for mute.
    GrantsTheDeaf,
    /// 3.3: a lease is granted to who has not applied what the log says about it.
    GrantsWhatIsNotApplied,
    /// 3.4: who has been released is granted a lease again.
    GrantsAfterRelease,
    /// 3.4: one voter's release is enough.
    OneReleaseIsEnough,
    /// 3.4: releases of a voter's former life count.
    RestartForgetsRelease,
    /// 3.4: a `Confirm` leaves older releases in force.
    ConfirmLeavesReleases,
    /// 3.6: a voter that has just started releases at once whom it does not hear.
    RestartForgetsPromise,
    /// 3.5: an active says that it is silent, and is not.
    RelinquishesWithoutClosing,
    /// 3.5: the gate opens again under an epoch that was relinquished.
    ReopensAfterRelinquishing,
    /// 3.5: a node renounces what it was granted, and goes on speaking by it.
    RenouncesAndSpeaks,
    /// 3.7: a new active opens its gate without a lease.
    OpensWithoutLease,

    // ---- sinks: protocol 4
    /// The kernel's gate stays open for whoever opened it once.
    GateNeverCloses,
    /// 4.1: no gate in the kernel: the daemon closes when it finds the lease over.
    DaemonClosesGate,
    /// 4.4: shelves obey orders of any epoch.
    ShelvesObeyAnybody,
    /// 4.4: orders go out without a lease.
    ActsWithoutLease,
    /// 4.6: releases are enough where a fence is needed.
    TakeoverWithoutFence,

    // ---- the control log: protocol 6
    /// 6.1: a vote is given before it is on the disk, and never gets there.
    VoteNotSynced,
    /// 6.1: entries are acknowledged before their record is on the disk.
    EntriesNotSynced,
    /// The torn tail of the log's journal is not cut.
    TailNotCut,
    /// 6.1: an emptied disk keeps its number.
    EmptyDiskKeepsItsNumber,

    // ---- objects and events: protocol 7 and 8
    /// 7.3: a new owner does not continue the alarms of the last one.
    AlarmsNotContinued,
    /// 7.3: a new owner does not continue the timers of the last one's policies.
    TimersNotContinued,
    /// 8.2: a node forgets now and then that it has heard an event, which then comes twice.
    CursorStandsStill,
    /// 8.3: some events are lost on their way, and the next one passes for the one that was to come.
    EventsDropped,
    /// 8.3: alarms are told, and orders obeyed, before their records are on the disk.
    ToldBeforeItIsSynced,
}

impl Mutation {
    /// Its name on the command line.
    pub(crate) fn word(self) -> String {
        clap::ValueEnum::to_possible_value(&self).map(|v| v.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether this build can break it.
    pub(crate) fn is_there(self) -> bool {
        self.copy_fault().is_none() || IS_BREAKABLE
    }

    /// How entries are applied.
    pub(super) fn apply(self) -> Apply {
        match self {
            Self::NamesWithoutIncarnations => law::names_without_incarnations,
            Self::EntriesWithoutVersion => law::entries_without_version,
            Self::DeadStayInSet => law::dead_stay_in_set,
            Self::JoinedEndsAnyLife => law::joined_ends_any_life,
            Self::PromotesNonMember => law::promotes_non_member,
            Self::RestartForgetsRelease => law::releases_of_any_life,
            Self::ConfirmLeavesReleases => law::confirm_leaves_releases,
            Self::TakeoverWithoutFence => law::takeover_without_fence,
            _ => Domain::apply,
        }
    }

    /// What is wrong with the copies.
    pub(super) fn copy_fault(self) -> Option<Fault> {
        Some(match self {
            Self::AcknowledgeBeforeShrink => Fault::AcknowledgeBeforeShrink,
            Self::AcknowledgementsWithoutIncarnation => Fault::NoIncarnations,
            Self::OldCursorCounts => Fault::ReportBeforeAligned,
            Self::MatchBySequence => Fault::MatchBySequence,
            Self::NewcomerTooEarly => Fault::NewcomerTooEarly,
            Self::NewcomerNeedsOnlyAcknowledged => Fault::NewcomerNeedsOnlyAcknowledged,
            Self::NewcomerCountedAfterCommit => Fault::NewcomerCountedAfterCommit,
            Self::DemotedDiscards => Fault::DemotedDiscards,
            Self::ResyncInPlace => Fault::ResyncInPlace,
            Self::OldEpochAccepted => Fault::OldEpochAccepted,
            Self::RetryAtOnce => Fault::RetryAtOnce,
            Self::RepeatAppliedAgain => Fault::RepeatAppliedAgain,
            Self::ReadUncounted => Fault::ReadUncounted,
            Self::ReadWithoutAsking => Fault::ReadWithoutAsking,
            Self::SwitchoverUndrained => Fault::QuiescedUndrained,
            Self::ResumesUnsettled => Fault::ResumeUnsettled,
            _ => return None,
        })
    }

    /// What a disk does not do.
    pub(super) fn lie(self) -> Option<Lie> {
        match self {
            Self::VoteNotSynced => Some(Lie::Votes),
            Self::EntriesNotSynced => Some(Lie::Synced),
            Self::TailNotCut => Some(Lie::Cut),
            _ => None,
        }
    }

    /// When liveness believes to have started.
    pub(super) fn born(self, now: Instant, times: &Times) -> Instant {
        if self == Self::RestartForgetsPromise { now - times.dead_after * 10 } else { now }
    }

    /// Until when a node believes that it may speak, that was told `until`.
    pub(super) fn lease(self, now: Instant, until: Instant, times: &Times) -> Instant {
        match self {
            Self::LeaseFromArrival => now + times.lease,
            Self::LeaseOutlastsPromise => until + (times.promise - times.lease) * 2,
            _ => until,
        }
    }

    /// Until when the kernel holds a gate open for a lease until then.
    pub(super) fn gate(self, now: Instant, until: Instant) -> Instant {
        if self == Self::DaemonClosesGate && until > now { now + FOR_EVER } else { until }
    }

    /// Until when the gate of a new active is open.
    pub(super) fn first_gate(self, now: Instant, lease: Instant, times: &Times) -> Instant {
        if self == Self::OpensWithoutLease { lease.max(now + times.lease) } else { lease }
    }

    /// The domain as `me`'s role machine sees it.
    pub(super) fn seen_by(self, me: Option<Member>, mut domain: Domain) -> Domain {
        if let Some(me) = me.filter(|_| self == Self::PromotesNonMember) {
            domain.groups.values_mut().filter(|row| row.active.is_some()).for_each(|row| row.in_sync.extend([me]));
        }
        if self == Self::TakeoverWithoutFence {
            domain.config.services.iter_mut().for_each(|service| service.fence = Fencing::None);
        }
        domain
    }

    /// What a new owner finds of what the last one had saved.
    pub(super) fn found(self, saved: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
        let forgotten = match self {
            Self::AlarmsNotContinued => "alarm ",
            Self::TimersNotContinued => "timer ",
            _ => return saved,
        };
        saved.into_iter().filter(|(section, _)| !section.starts_with(forgotten)).collect()
    }

    /// The number that an empty disk gets.
    pub(super) fn disk_number(self, node: NodeId, life: u64) -> u64 {
        if self == Self::EmptyDiskKeepsItsNumber { u64::from(node.0) } else { life }
    }
}

/// Longer than any pause.
const FOR_EVER: Duration = Duration::from_secs(60);
