//! When to start a unit again that has ended. Pure.

use std::time::Duration;

/// Waits longer and longer for a unit that ends as soon as it has started, and forgets that once it has run for a while. It always waits a
/// moment: when a unit ends, another takes over from it, and starting a program and giving it its state costs the processors that this needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    steady_after: Duration,
    short_lives: u32,
}

impl Default for Backoff {
    /// 100 ms after a steady life; doubled after each that was not, 30 s at most; ten seconds are a steady life.
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(30), Duration::from_secs(10))
    }
}

impl Backoff {
    /// Waits `first` after a steady life and after the first short one, and at most `most`; a life of `steady_after` or more is steady.
    pub fn new(first: Duration, most: Duration, steady_after: Duration) -> Self {
        Self { first, most, steady_after, short_lives: 0 }
    }

    /// How long to wait before the next start, the unit having run for `ran_for` (zero if it did not start at all).
    pub fn after_exit(&mut self, ran_for: Duration) -> Duration {
        if ran_for >= self.steady_after {
            self.short_lives = 0;
            return self.first;
        }
        let wait = self.first.saturating_mul(2_u32.saturating_pow(self.short_lives)).min(self.most);
        self.short_lives = self.short_lives.saturating_add(1);
        wait
    }

    /// How many lives in a row were short: for an alarm.
    pub fn short_lives(&self) -> u32 {
        self.short_lives
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_a_steady_life_resets_them() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..12).map(|_| backoff.after_exit(Duration::ZERO).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000, 30000]);
        assert_eq!(backoff.short_lives(), 12);
        assert_eq!(backoff.after_exit(Duration::from_secs(10)), Duration::from_millis(100));
        assert_eq!(backoff.after_exit(Duration::from_secs(9)), Duration::from_millis(100));
    }

    #[test]
    fn any_number_of_short_lives_is_survived() {
        let mut backoff = Backoff { short_lives: u32::MAX, ..Backoff::default() };
        assert_eq!(backoff.after_exit(Duration::ZERO), Duration::from_secs(30));
    }
}
