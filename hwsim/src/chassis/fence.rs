//! Who may act: the chassis keeps the highest epoch it has seen for each object group and refuses older ones (protocol 4.4).
//!
//! It also keeps who acted when, so that a test can ask the one question that matters: did two actives ever use the chassis at once?

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sixnines_core::ids::{AttributeName, Epoch, EventId, GroupName, ObjectName};
use sixnines_core::time::{Duration, Instant};
use sixnines_core::value::Request;

/// The fences of all object groups.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fences {
    groups: BTreeMap<GroupName, Fence>,
    /// Nobody is refused: only so that a test can see what the refusal is for.
    pub(crate) open: bool,
}

#[derive(Clone, Debug, Default)]
struct Fence {
    highest: Epoch,
    refused: u64,
    epochs: BTreeMap<Epoch, EpochReport>,
    forgotten: u64,
}

/// What one object group's fence has seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupReport {
    /// The group.
    pub group: GroupName,
    /// The highest epoch seen; lower ones are refused.
    pub highest: Epoch,
    /// How many requests were refused for a lower epoch.
    pub refused: u64,
    /// What happened under each epoch, the lowest first.
    pub epochs: Vec<EpochReport>,
    /// How many older epochs the chassis does not hold any more.
    pub forgotten: u64,
}

/// What happened under one epoch of one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochReport {
    /// The epoch.
    pub epoch: Epoch,
    /// How many requests were carried out.
    pub accepted: u64,
    /// How many were refused because a higher epoch had been seen.
    pub refused: u64,
    /// The first that was carried out.
    pub first_accepted: Option<Action>,
    /// The last that was carried out.
    pub last_accepted: Option<Action>,
    /// The last that was refused for its epoch.
    pub last_refused: Option<Action>,
}

/// One request, and when it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// On the chassis' clock.
    pub at: Instant,
    /// The request's intent.
    pub id: EventId,
    /// Its object.
    pub object: ObjectName,
    /// Its control or operation.
    pub control: AttributeName,
}

impl GroupReport {
    /// For how long an older epoch's actions were still carried out after a newer one's first: zero, or two actives used the chassis.
    pub fn two_actives(&self) -> Duration {
        let mut longest = Duration::ZERO;
        for (i, older) in self.epochs.iter().enumerate() {
            for newer in &self.epochs[i + 1..] {
                if let (Some(last), Some(first)) = (&older.last_accepted, &newer.first_accepted) {
                    longest = longest.max(last.at.since(first.at));
                }
            }
        }
        longest
    }
}

impl Fences {
    /// Whether a request may pass; if not, the epoch that fences it. A higher epoch is remembered even if its request is refused later.
    pub(crate) fn pass(&mut self, now: Instant, group: &GroupName, request: &Request) -> Result<(), Epoch> {
        let fence = self.groups.entry(group.clone()).or_default();
        if request.epoch >= fence.highest {
            fence.highest = request.epoch;
            return Ok(());
        }
        if self.open {
            return Ok(());
        }
        fence.refused += 1;
        let row = fence.row(request.epoch);
        row.refused += 1;
        row.last_refused = Some(Action::of(now, request));
        Err(fence.highest)
    }

    pub(crate) fn accepted(&mut self, now: Instant, group: &GroupName, request: &Request) {
        let row = self.groups.entry(group.clone()).or_default().row(request.epoch);
        let action = Action::of(now, request);
        row.accepted += 1;
        row.first_accepted.get_or_insert_with(|| action.clone());
        row.last_accepted = Some(action);
    }

    pub(crate) fn report(&self) -> Vec<GroupReport> {
        let row = |(group, fence): (&GroupName, &Fence)| GroupReport {
            group: group.clone(),
            highest: fence.highest,
            refused: fence.refused,
            epochs: fence.epochs.values().cloned().collect(),
            forgotten: fence.forgotten,
        };
        self.groups.iter().map(row).collect()
    }
}

impl Fence {
    fn row(&mut self, epoch: Epoch) -> &mut EpochReport {
        while self.epochs.len() >= EPOCHS_MAX && !self.epochs.contains_key(&epoch) {
            self.epochs.pop_first();
            self.forgotten += 1;
        }
        self.epochs.entry(epoch).or_insert_with(|| EpochReport {
            epoch,
            accepted: 0,
            refused: 0,
            first_accepted: None,
            last_accepted: None,
            last_refused: None,
        })
    }
}

impl Action {
    fn of(at: Instant, request: &Request) -> Self {
        Self { at, id: request.id, object: request.object.clone(), control: request.control.clone() }
    }
}

/// The oldest row goes when there are more.
const EPOCHS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn request(epoch: u64) -> Request {
        Request { id: EventId::default(), object: "/mxp1/fan1".into(), control: "duty".into(), value: None, epoch: Epoch(epoch) }
    }

    #[test]
    fn with_the_check_taken_out_an_older_epoch_shows_as_two_actives() {
        let (mut fences, group) = (Fences { open: true, ..Fences::default() }, GroupName::new("chassis:mxp1"));
        for (at, epoch) in [(1, 3), (5, 4), (9, 3)] {
            assert_eq!(fences.pass(Instant::from_nanos(at), &group, &request(epoch)), Ok(()));
            fences.accepted(Instant::from_nanos(at), &group, &request(epoch));
        }
        assert_eq!(fences.report()[0].two_actives(), Duration::from_nanos(4));
    }

    #[test]
    fn an_older_epoch_is_refused_and_counted() {
        let (mut fences, group) = (Fences::default(), GroupName::new("chassis:mxp1"));
        for (at, epoch) in [(1, 3), (2, 3), (5, 4)] {
            assert_eq!(fences.pass(Instant::from_nanos(at), &group, &request(epoch)), Ok(()));
            fences.accepted(Instant::from_nanos(at), &group, &request(epoch));
        }
        assert_eq!(fences.pass(Instant::from_nanos(9), &group, &request(3)), Err(Epoch(4)));
        let report = &fences.report()[0];
        assert_eq!((report.highest, report.refused, report.epochs.len()), (Epoch(4), 1, 2));
        let old = &report.epochs[0];
        let at = |action: &Option<Action>| action.as_ref().map(|a| a.at.as_nanos());
        assert_eq!((old.accepted, old.refused), (2, 1));
        assert_eq!((at(&old.first_accepted), at(&old.last_accepted), at(&old.last_refused)), (Some(1), Some(2), Some(9)));
        assert_eq!(report.two_actives(), Duration::ZERO);
    }

    /// The fence makes this impossible; the report must still be able to say it.
    #[test]
    fn an_overlap_would_be_seen() {
        let (mut fences, group) = (Fences::default(), GroupName::new("chassis:mxp1"));
        for (at, epoch) in [(1, 3), (5, 4), (8, 3)] {
            fences.accepted(Instant::from_nanos(at), &group, &request(epoch));
        }
        assert_eq!(fences.report()[0].two_actives(), Duration::from_nanos(3));
    }

    #[test]
    fn old_rows_are_forgotten_and_counted() {
        let (mut fences, group) = (Fences::default(), GroupName::new("g"));
        for epoch in 0..300 {
            fences.accepted(Instant::ZERO, &group, &request(epoch));
        }
        let report = &fences.report()[0];
        assert_eq!((report.epochs.len(), report.forgotten, report.epochs[0].epoch), (256, 44, Epoch(44)));
    }
}
