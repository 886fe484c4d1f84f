//! What the client saw: answers in time, gaps between them, who spoke under which epoch, and how late the client itself was.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sixnines_core::ids::{Epoch, NodeId};
use sixnines_core::time::Instant;

/// A prober that woke up later than this saw less than it should have.
pub(crate) const LATE: Duration = Duration::from_millis(5);

/// What is kept of the past: one [`Voice`] per epoch and node, and sums since the last mark.
#[derive(Debug)]
pub(crate) struct Record {
    last_answer: Instant,
    voices: BTreeMap<Epoch, Vec<Voice>>,
    window: Window,
}

/// Who answered under an epoch, and when.
#[derive(Clone, Copy, Debug)]
struct Voice {
    node: NodeId,
    first: Instant,
    last: Instant,
}

/// Sums since the last mark.
#[derive(Debug)]
struct Window {
    mark: String,
    since: Instant,
    longest_gap: Duration,
    longest_wait: Duration,
    two_actives: Duration,
    late_max: Duration,
    sums: Sums,
    epochs: BTreeMap<Epoch, NodeId>,
}

/// Counters since the last mark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sums {
    /// Requests sent for the first time.
    pub(crate) sent: u64,
    /// Requests sent again, with the same id.
    pub(crate) repeated: u64,
    /// Answers of any kind, answers to repeats among them.
    pub(crate) answers: u64,
    /// Changes that the service said are safe.
    pub(crate) acknowledged: u64,
    /// Acknowledged changes that the service turned out not to know.
    pub(crate) lost: u64,
    /// Changes that the service applied more than once.
    pub(crate) doubled: u64,
    /// Requests given up without an answer: their outcome is unknown.
    pub(crate) given_up: u64,
    /// How often the prober itself woke up more than [`LATE`] after its time.
    pub(crate) late: u64,
    /// Turns in which every call waited for an answer, so that only repeats probed.
    pub(crate) all_waiting: u64,
}

/// What [`Record::report`] tells about the time since the last mark. Milliseconds are of the client's clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The mark's name.
    pub(crate) mark: String,
    /// Since the mark.
    pub(crate) window_ms: f64,
    /// The longest time between two answers, of which the second came after the mark; at least [`Self::open_ms`].
    pub(crate) outage_ms: f64,
    /// Since the last answer.
    pub(crate) open_ms: f64,
    /// The longest time from a request's place in the schedule to its answer.
    pub(crate) longest_wait_ms: f64,
    /// From the first answer of a higher epoch (or of another node under the same one) to the last of a lower.
    pub(crate) two_actives_ms: f64,
    /// The prober's own worst lateness.
    pub(crate) late_max_ms: f64,
    /// Who answered, in the order of epochs.
    pub(crate) voices: Vec<(u64, String)>,
    /// The counters.
    #[serde(flatten)]
    pub(crate) sums: Sums,
}

impl Record {
    /// Begins at `now`, with a window called `start`.
    pub(crate) fn new(now: Instant) -> Self {
        Self { last_answer: now, voices: BTreeMap::new(), window: Window::new("start", now) }
    }

    /// Begins a new window. The gap that is open at this moment belongs to it.
    pub(crate) fn mark(&mut self, now: Instant, name: &str) {
        self.window = Window::new(name, now);
    }

    /// The counters of this window.
    pub(crate) fn sums(&mut self) -> &mut Sums {
        &mut self.window.sums
    }

    /// The prober woke up at `now` for what it should have done at `scheduled`.
    pub(crate) fn woke(&mut self, scheduled: Instant, now: Instant) {
        let late = now.since(scheduled);
        self.window.late_max = self.window.late_max.max(late);
        if late > LATE {
            self.window.sums.late += 1;
        }
    }

    /// `node` answered under `epoch`, to a request that belonged at `scheduled`.
    pub(crate) fn answered(&mut self, now: Instant, node: NodeId, epoch: Epoch, scheduled: Option<Instant>) {
        let window = &mut self.window;
        window.sums.answers += 1;
        window.longest_gap = window.longest_gap.max(now.since(self.last_answer));
        if let Some(scheduled) = scheduled {
            window.longest_wait = window.longest_wait.max(now.since(scheduled));
        }
        window.epochs.insert(epoch, node);
        self.last_answer = now;
        self.hear(now, node, epoch);
    }

    fn hear(&mut self, now: Instant, node: NodeId, epoch: Epoch) {
        let successor = self.voices.range(Epoch(epoch.0 + 1)..).flat_map(|(_, voices)| voices).map(|v| v.first).min();
        let voices = self.voices.entry(epoch).or_default();
        let rival = voices.iter().filter(|v| v.node != node).map(|v| v.first).min();
        match voices.iter_mut().find(|v| v.node == node) {
            Some(voice) => voice.last = now,
            None => voices.push(Voice { node, first: now, last: now }),
        }
        // A rival of the same epoch is worse than an old active, and measured the same way.
        for other in [successor, rival].into_iter().flatten() {
            // At the same instant of our clock it still is two actives: never rounded to nothing.
            let overlap = now.since(other).max(Duration::from_nanos(1));
            self.window.two_actives = self.window.two_actives.max(overlap);
        }
    }

    /// How often the epoch changed within the window, those included under which nobody answered.
    pub(crate) fn epoch_changes(&self) -> usize {
        let epochs = &self.window.epochs;
        let changes = epochs.last_key_value().zip(epochs.first_key_value()).map_or(0, |((last, _), (first, _))| last.0 - first.0);
        usize::try_from(changes).unwrap_or(usize::MAX)
    }

    /// The window as it stands.
    pub(crate) fn report(&self, now: Instant) -> Report {
        let window = &self.window;
        let open = now.since(self.last_answer);
        Report {
            mark: window.mark.clone(),
            window_ms: millis(now.since(window.since)),
            outage_ms: millis(window.longest_gap.max(open)),
            open_ms: millis(open),
            longest_wait_ms: millis(window.longest_wait),
            two_actives_ms: millis(window.two_actives),
            late_max_ms: millis(window.late_max),
            voices: window.epochs.iter().map(|(epoch, node)| (epoch.0, node.to_string())).collect(),
            sums: window.sums,
        }
    }
}

impl Window {
    fn new(mark: &str, since: Instant) -> Self {
        Self {
            mark: mark.to_owned(),
            since,
            longest_gap: Duration::ZERO,
            longest_wait: Duration::ZERO,
            two_actives: Duration::ZERO,
            late_max: Duration::ZERO,
            sums: Sums::default(),
            epochs: BTreeMap::new(),
        }
    }
}

/// Milliseconds with their fraction.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn hear(record: &mut Record, ms: u64, node: u16, epoch: u64) {
        record.answered(at(ms), NodeId(node), Epoch(epoch), Some(at(ms)));
    }

    #[test]
    fn the_gap_around_a_mark_begins_before_it() {
        let mut record = Record::new(at(0));
        hear(&mut record, 90, 1, 1);
        record.mark(at(100), "node-killed");
        hear(&mut record, 130, 3, 2);
        hear(&mut record, 131, 3, 2);
        assert_eq!(record.report(at(132)).outage_ms, 40.0);
        record.mark(at(140), "next");
        assert_eq!(record.report(at(141)).outage_ms, 10.0, "an open gap is a gap");
    }

    #[test]
    fn a_lower_epoch_after_a_higher_one_is_two_actives() {
        let mut record = Record::new(at(0));
        hear(&mut record, 1, 1, 1);
        hear(&mut record, 10, 3, 2);
        assert_eq!(record.report(at(11)).two_actives_ms, 0.0);
        hear(&mut record, 14, 1, 1);
        hear(&mut record, 15, 3, 3);
        hear(&mut record, 16, 1, 1);
        assert_eq!(record.report(at(20)).two_actives_ms, 6.0);
        hear(&mut record, 20, 3, 3);
        assert_eq!(record.report(at(20)).two_actives_ms, 6.0);
    }

    #[test]
    fn an_epoch_under_which_nobody_answered_is_a_change_too() {
        let mut record = Record::new(at(0));
        assert_eq!(record.epoch_changes(), 0);
        hear(&mut record, 1, 1, 4);
        assert_eq!(record.epoch_changes(), 0);
        hear(&mut record, 9, 3, 7);
        assert_eq!(record.epoch_changes(), 3);
    }

    #[test]
    fn two_nodes_under_one_epoch_are_two_actives() {
        let mut record = Record::new(at(0));
        hear(&mut record, 1, 1, 1);
        hear(&mut record, 1, 3, 1);
        assert!(record.report(at(2)).two_actives_ms > 0.0);
    }

    #[test]
    fn the_probers_own_lateness_is_told() {
        let mut record = Record::new(at(0));
        record.woke(at(10), at(12));
        record.woke(at(20), at(29));
        let report = record.report(at(30));
        assert_eq!((report.sums.late, report.late_max_ms), (1, 9.0));
    }
}
