//! Who spoke for the address, in which order, and whether two did at once. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sixnines_core::time::Instant;

use crate::loadgen::record::millis;

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// What was seen since the mark.
#[derive(Debug, Default)]
pub(crate) struct Talkers {
    by_mac: BTreeMap<Mac, Seen>,
    newest: Option<Mac>,
    changes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    first: Instant,
    last: Instant,
    frames: u64,
}

/// What [`Talkers::report`] tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// From the first frame of the address's last speaker to the last frame of another, if the address went back and forth
    /// more often than it moved; 0 if every speaker was silent before the next began.
    pub(crate) two_speakers_ms: f64,
    /// Hardware address and number of frames.
    pub(crate) speakers: Vec<(String, u64)>,
}

impl Talkers {
    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// `mac` spoke for the address.
    pub(crate) fn spoke(&mut self, now: Instant, mac: Mac) {
        let seen = self.by_mac.entry(mac).or_insert(Seen { first: now, last: now, frames: 0 });
        seen.last = now;
        seen.frames += 1;
        if self.newest != Some(mac) {
            self.changes += usize::from(self.newest.is_some());
            self.newest = Some(mac);
        }
    }

    /// What the frames mean when the address had reason to move `moves` times: at most so many changes of the speaker are
    /// clean. One move is always allowed, since an address may move without an answer being seen.
    pub(crate) fn report(&self, moves: usize) -> Report {
        let overlap = if self.changes > moves.max(1) { self.overlap() } else { Duration::ZERO };
        Report {
            two_speakers_ms: millis(overlap),
            speakers: self.by_mac.iter().map(|(mac, seen)| (text(mac), seen.frames)).collect(),
        }
    }

    /// The rightful speaker is the one whose last frame is the newest by role: it began last. What others said after that counts.
    fn overlap(&self) -> Duration {
        let Some((heir, began)) = self.by_mac.iter().map(|(mac, seen)| (*mac, seen.first)).max_by_key(|(_, first)| *first) else {
            return Duration::ZERO;
        };
        let others = self.by_mac.iter().filter(|(mac, _)| **mac != heir).map(|(_, seen)| seen.last.since(began)).max();
        // At the same instant of our clock it still is two speakers: never rounded to nothing.
        others.unwrap_or_default().max(Duration::from_nanos(1))
    }
}

fn text(mac: &Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = [2, 0, 0, 0, 0, 1];
    const B: Mac = [2, 0, 0, 0, 0, 3];

    fn talk(row: &[(u64, Mac)]) -> Talkers {
        let mut talkers = Talkers::default();
        for (ms, mac) in row {
            talkers.spoke(Instant::from_nanos(ms * 1_000_000), *mac);
        }
        talkers
    }

    #[test]
    fn one_clean_move_is_no_overlap() {
        let report = talk(&[(1, A), (2, A), (30, B), (31, B)]).report(1);
        assert_eq!(report.two_speakers_ms, 0.0);
        assert_eq!(report.speakers, [("02:00:00:00:00:01".to_owned(), 2), ("02:00:00:00:00:03".to_owned(), 2)]);
    }

    #[test]
    fn an_old_speaker_after_the_new_one_is_an_overlap() {
        for moves in [0, 1] {
            assert_eq!(talk(&[(1, A), (30, B), (37, A), (38, B)]).report(moves).two_speakers_ms, 7.0);
        }
    }

    #[test]
    fn going_there_and_back_is_clean_if_the_role_did_as_well() {
        assert_eq!(talk(&[(1, A), (30, B), (60, A)]).report(2).two_speakers_ms, 0.0);
    }

    #[test]
    fn a_mark_forgets() {
        let mut talkers = talk(&[(1, A), (30, B), (37, A)]);
        talkers.clear();
        talkers.spoke(Instant::from_nanos(1), A);
        assert_eq!(talkers.report(0).two_speakers_ms, 0.0);
    }
}
