//! How late the liveness thread was, second by second of the last minute: written by that thread alone, read by anyone, and nobody waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sixnines_core::time::Instant;

/// The longest lateness of each second in which the thread had something to do on time.
#[derive(Debug)]
pub struct Lateness([AtomicU64; SECONDS]);

/// Seconds that are remembered.
const SECONDS: usize = 64;
/// A slot holds the second above these bits, and the lateness in microseconds, plus one, in them.
const LATE_BITS: u32 = 32;
const LATE_MAX: u64 = (1 << LATE_BITS) - 1;

impl Default for Lateness {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Lateness {
    /// What was due has been done at `now`, so much too late. For the one thread that writes.
    pub fn note(&self, now: Instant, late: Duration) {
        let second = now.as_nanos() / 1_000_000_000;
        let micros = u64::try_from(late.as_micros()).map_or(LATE_MAX, |late| late.saturating_add(1).min(LATE_MAX));
        let slot = &self.0[usize::try_from(second % SECONDS as u64).expect("below 64")];
        let old = slot.load(Ordering::Relaxed);
        if old >> LATE_BITS != second || old & LATE_MAX < micros {
            slot.store(second << LATE_BITS | micros, Ordering::Relaxed);
        }
    }

    /// Second of the boot-time clock and longest lateness in microseconds, the oldest first. A second with nothing to do is left out.
    pub fn seconds(&self) -> Vec<(u64, u64)> {
        let slots = self.0.iter().map(|slot| slot.load(Ordering::Relaxed)).filter(|slot| *slot != 0);
        let mut seconds: Vec<_> = slots.map(|slot| (slot >> LATE_BITS, (slot & LATE_MAX) - 1)).collect();
        seconds.sort_unstable();
        seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_of_each_second_is_kept_for_a_minute() {
        let lateness = Lateness::default();
        let at = |second: u64, ms: u64| Instant::from_nanos(second * 1_000_000_000 + ms * 1_000_000);
        lateness.note(at(7, 1), Duration::from_micros(30));
        lateness.note(at(7, 2), Duration::from_micros(900));
        lateness.note(at(7, 3), Duration::ZERO);
        lateness.note(at(9, 0), Duration::ZERO);
        assert_eq!(lateness.seconds(), [(7, 900), (9, 0)]);
        lateness.note(at(71, 0), Duration::from_micros(5)); // takes the place of second 7
        assert_eq!(lateness.seconds(), [(9, 0), (71, 5)]);
        lateness.note(at(72, 0), Duration::from_secs(1 << 40));
        assert_eq!(lateness.seconds()[2], (72, LATE_MAX - 1));
    }
}
