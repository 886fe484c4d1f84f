//! When the next beat is due, with jitter so that nodes do not fall into step (RFC 5880, 6.8.7).

use sixnines_core::time::{Duration, Instant};

/// The rhythm of one node's beats.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    state: u64,
    /// When the newest beat that may be granted was sent.
    pub(super) sent: Instant,
}

impl Pace {
    pub(super) fn new(seed: u64, interval: Duration) -> Self {
        Self { interval, state: seed | 1, sent: Instant::ZERO }
    }

    /// Due after the one due at `due`, given that it is `now`: at most one interval, up to an eighth of it sooner.
    pub(super) fn next(&mut self, due: Instant, now: Instant) -> Instant {
        let base = if now.since(due) > self.interval { now } else { due };
        base + self.interval - self.jitter()
    }

    fn jitter(&mut self) -> Duration {
        // xorshift64: any sequence does, as long as two nodes have different ones.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let eighths = u32::try_from(self.state >> 56).expect("8 bits");
        self.interval / 8 * eighths / 256
    }
}
