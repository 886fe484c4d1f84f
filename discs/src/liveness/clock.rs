//! When the next beat is due.
//!
//! Nodes fall into step on purpose: who hears a peer when his own beat is due soon sends it at once ([`Pace::is_soon`]). All beats of a
//! round then arrive together: one wake-up of a node takes them all, and a grant goes back while the beat that it is for is young. A
//! fabric carries such a round easily, a few hundred bytes for each pair; what BFD spreads out with its jitter are thousands of sessions on one
//! wire. A little jitter is kept, so that the lead changes and no node is always first.

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

    /// Whether a beat that is due at `due` may as well be sent now. Half an interval: faster than twice the pace nobody is driven. What is late
    /// already waits for its time-out, which first reads everything that has come meanwhile.
    pub(super) fn is_soon(&self, due: Instant, now: Instant) -> bool {
        now < due && due.since(now) <= self.interval / 2
    }

    /// Due after the one due at `due`, given that it is `now`: at most one interval, a little sooner.
    pub(super) fn next(&mut self, due: Instant, now: Instant) -> Instant {
        let base = if now.since(due) > self.interval { now } else { due };
        base + self.interval - self.jitter()
    }

    fn jitter(&mut self) -> Duration {
        // xorshift64: any sequence does, as long as two nodes have different ones.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let fraction = u32::try_from(self.state >> 56).expect("8 bits");
        self.interval / JITTER * fraction / 256
    }
}

/// A beat comes early by this part of an interval at most.
const JITTER: u32 = 32;
