//! Which takeovers there were in a window, and which of them were false. A machine: it is told what was seen, and when.
//!
//! A takeover is false if nobody asked for it and its victim's liveness thread was never late by more than `dead_after` less one interval around it:
//! such a node sent a heartbeat in time, and was taken for dead all the same.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sixnines_core::domain::config::Times;

/// A role that moved, or got a new epoch where it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Takeover {
    /// Which.
    pub(crate) group: String,
    /// Who had it; nothing if it moved so fast that it was not seen.
    pub(crate) from: Option<String>,
    /// Under which epoch it was seen to have moved.
    pub(crate) epoch: u64,
    /// When that was seen, in seconds of the boot-time clock.
    pub(crate) second: u64,
    /// How late the victim's liveness thread was around it, in microseconds, at most.
    pub(crate) victim_late_us: u64,
    /// What to think of it.
    pub(crate) kind: Kind,
}

/// What to think of a takeover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// The bench itself killed the victim, or moved the role.
    AskedFor,
    /// The victim's liveness thread stood still for so long that the others had to.
    Late,
    /// Nobody had a reason.
    False,
}

/// What came of one window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// In the order in which they were seen.
    pub(crate) takeovers: Vec<Takeover>,
    /// Leases that ran out, node by node.
    pub(crate) suspensions: BTreeMap<String, u64>,
    /// The longest lateness of each node's liveness thread, in microseconds.
    pub(crate) late_us: BTreeMap<String, u64>,
}

impl Verdict {
    /// How many takeovers are of a kind.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.takeovers.iter().filter(|t| t.kind == kind).count()
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Judge {
    excused_us: u64,
    began: u64,
    roles: BTreeMap<String, (u64, Option<String>)>,
    moved: Vec<Moved>,
    /// Groups of which the next move is asked for.
    asked: BTreeSet<String>,
    killed: BTreeSet<String>,
    late: BTreeMap<String, BTreeMap<u64, u64>>,
    counters: BTreeMap<String, u64>,
    suspensions: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Moved {
    group: String,
    from: Option<String>,
    epoch: u64,
    second: u64,
    is_asked_for: bool,
}

/// A takeover is seen so many seconds after its cause, at most: the longest dead time, an election, a slow look.
const CAUSE_WITHIN: u64 = 5;

impl Judge {
    /// For a domain of these times.
    pub(crate) fn new(times: Times) -> Self {
        let excused = times.dead_after.saturating_sub(times.interval);
        Self {
            excused_us: u64::try_from(excused.as_micros()).expect("some milliseconds"),
            began: 0,
            roles: BTreeMap::new(),
            moved: Vec::new(),
            asked: BTreeSet::new(),
            killed: BTreeSet::new(),
            late: BTreeMap::new(),
            counters: BTreeMap::new(),
            suspensions: BTreeMap::new(),
        }
    }

    /// A window begins: what happened before does not count. What the roles and counters are stays known.
    pub(crate) fn begin(&mut self, second: u64) {
        self.began = second;
        self.moved.clear();
        self.killed.clear();
        self.asked.clear();
        self.suspensions.values_mut().for_each(|n| *n = 0);
    }

    /// From now on, whatever moves away from this node was asked for.
    pub(crate) fn killed(&mut self, node: &str) {
        self.killed.insert(node.to_owned());
    }

    /// The next move of this role is asked for.
    pub(crate) fn asked(&mut self, group: &str) {
        self.asked.insert(group.to_owned());
    }

    /// A role as the domain shows it. An older look than the last one says nothing.
    pub(crate) fn role(&mut self, second: u64, group: &str, epoch: u64, active: Option<&str>) {
        let Some((known, holder)) = self.roles.get_mut(group) else {
            self.roles.insert(group.to_owned(), (epoch, active.map(str::to_owned)));
            return;
        };
        for passed in *known + 1..=epoch {
            let is_asked_for = self.asked.remove(group);
            self.moved.push(Moved { group: group.to_owned(), from: holder.take(), epoch: passed, second, is_asked_for });
        }
        if epoch > *known || (epoch == *known && active.is_some()) {
            (*known, *holder) = (epoch, active.map(str::to_owned));
        }
    }

    /// What a node says of itself: its lateness in microseconds, second by second, and how often its lease has run out since it started.
    pub(crate) fn node(&mut self, node: &str, late_us: &[(u64, u64)], suspensions: u64) {
        self.late.entry(node.to_owned()).or_default().extend(late_us.iter().copied());
        let before = self.counters.insert(node.to_owned(), suspensions).unwrap_or(suspensions);
        // A node that was started again counts from zero.
        let more = suspensions.checked_sub(before).unwrap_or(suspensions);
        *self.suspensions.entry(node.to_owned()).or_default() += more;
    }

    /// What came of the window so far.
    pub(crate) fn verdict(&self) -> Verdict {
        let late = |node: &str, from: u64, to: u64| {
            // It is noted when it is over: one that was noted after `to` counts if it had begun by then.
            let began = |(second, us): &(&u64, &u64)| **second - (**us / 1_000_000 + 1).min(**second) <= to;
            self.late.get(node).and_then(|late| late.range(from..).filter(began).map(|(_, us)| *us).max()).unwrap_or(0)
        };
        let takeover = |Moved { group, from, epoch, second, is_asked_for }: &Moved| {
            let victim_late_us = from.as_deref().map_or(0, |node| late(node, second.saturating_sub(CAUSE_WITHIN), *second));
            let kind = match from {
                _ if *is_asked_for => Kind::AskedFor,
                Some(node) if self.killed.contains(node) => Kind::AskedFor,
                _ if victim_late_us > self.excused_us => Kind::Late,
                _ => Kind::False,
            };
            Takeover { group: group.clone(), from: from.clone(), epoch: *epoch, second: *second, victim_late_us, kind }
        };
        Verdict {
            takeovers: self.moved.iter().map(takeover).collect(),
            suspensions: self.suspensions.clone(),
            late_us: self.late.keys().map(|node| (node.clone(), late(node, self.began, u64::MAX))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use sixnines_core::domain::config::Profile;

    use super::*;

    fn judge() -> Judge {
        let mut judge = Judge::new(Profile::Fabric.times());
        judge.role(100, "calls", 7, Some("n1"));
        judge.node("n1", &[(99, 90_000), (100, 40)], 3);
        judge.begin(100);
        judge
    }

    #[test]
    fn a_victim_that_was_on_time_was_taken_over_falsely() {
        let mut judge = judge();
        judge.node("n1", &[(110, 17_000), (111, 300)], 4);
        judge.role(111, "calls", 8, Some("n2"));
        let verdict = judge.verdict();
        assert_eq!(verdict.takeovers, [Takeover { group: "calls".into(), from: Some("n1".into()), epoch: 8, second: 111, victim_late_us: 17_000, kind: Kind::False }]);
        assert_eq!((verdict.suspensions["n1"], verdict.late_us["n1"]), (1, 17_000));
    }

    #[test]
    fn a_victim_that_stood_still_was_not_and_one_that_was_killed_neither() {
        let mut late = judge();
        late.role(111, "calls", 8, Some("n2"));
        late.node("n1", &[(110, 17_001)], 3); // what a node was late is known when it is asked, which may be after the takeover
        assert_eq!(late.verdict().takeovers[0].kind, Kind::Late);

        let mut killed = judge();
        killed.killed("n1");
        killed.role(100, "ballast", 3, Some("n2"));
        killed.asked("ballast");
        killed.role(101, "ballast", 4, Some("n1"));
        killed.role(111, "calls", 8, None);
        killed.role(112, "calls", 8, Some("n2"));
        killed.role(113, "calls", 9, Some("n3"));
        assert_eq!(killed.verdict().takeovers.iter().map(|t| t.kind).collect::<Vec<_>>(), [Kind::AskedFor, Kind::AskedFor, Kind::False]);
    }

    #[test]
    fn a_pause_that_ends_after_the_takeover_excuses_it_and_a_later_one_does_not() {
        for (noted, us, kind) in [(114, 4_000_000, Kind::Late), (114, 900_000, Kind::False)] {
            let mut judge = judge();
            judge.role(111, "calls", 8, Some("n2"));
            judge.node("n1", &[(noted, us)], 3);
            assert_eq!(judge.verdict().takeovers[0].kind, kind, "{us} us noted at {noted}");
        }
    }

    #[test]
    fn lateness_long_before_excuses_nothing_and_a_role_that_flies_past_has_no_excuse() {
        let mut judge = judge();
        judge.node("n1", &[(103, 90_000), (111, 0)], 3);
        judge.role(111, "calls", 9, Some("n2"));
        let verdict = judge.verdict();
        assert_eq!(verdict.takeovers.iter().map(|t| (t.from.as_deref(), t.epoch, t.kind)).collect::<Vec<_>>(), [(Some("n1"), 8, Kind::False), (None, 9, Kind::False)]);
        assert_eq!(verdict.count(Kind::False), 2);
    }

    #[test]
    fn an_older_look_and_an_active_that_does_not_serve_for_a_moment_are_no_takeovers() {
        let mut judge = judge();
        judge.role(101, "calls", 7, None);
        judge.role(102, "calls", 6, Some("n3"));
        judge.role(103, "calls", 7, Some("n1"));
        assert_eq!(judge.verdict().takeovers, []);
        judge.node("n1", &[], 1); // started again, and suspended once since
        assert_eq!(judge.verdict().suspensions["n1"], 1);
        judge.begin(120);
        assert_eq!((judge.verdict().suspensions["n1"], judge.verdict().late_us["n1"]), (0, 0));
    }
}
