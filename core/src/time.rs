//! Time as the machines see it: an input, never read from a clock here.
//!
//! [`Instant`] is the boot-time clock of one node and means nothing on another. [`WallTime`] is for people and
//! event stamps; nothing decides by it. [`HybridTime`] orders events across nodes.

use std::fmt;
use std::ops::{Add, Sub};
pub use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Nanoseconds on this node's boot-time clock (`CLOCK_BOOTTIME`). Never wall time; never compared with another node's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instant(u64);

impl Instant {
    /// The clock's zero.
    pub const ZERO: Self = Self(0);

    /// An instant from nanoseconds of the boot-time clock.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds of the boot-time clock.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(nanos(rhs)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(rhs)))
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.0 / 1_000_000_000, self.0 / 1_000 % 1_000_000)
    }
}

/// Nanoseconds since 1970 by the node's wall clock. For people; it may jump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WallTime(pub u64);

/// Hybrid logical time: the wall time of the newest event seen, and a counter for events within it.
///
/// Source: Kulkarni et al., "Logical Physical Clocks" (2014).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HybridTime {
    /// Wall time in nanoseconds since 1970.
    pub wall: WallTime,
    /// Order within one wall time.
    pub logical: u32,
}

impl HybridTime {
    /// The stamp of a local event at `wall`, after everything stamped so far.
    pub fn tick(self, wall: WallTime) -> Self {
        if wall > self.wall {
            Self { wall, logical: 0 }
        } else {
            Self { wall: self.wall, logical: self.logical.saturating_add(1) }
        }
    }
}

/// A duration in whole nanoseconds; saturates after 584 years.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_time_never_goes_back_when_the_wall_clock_does() {
        let a = HybridTime::default().tick(WallTime(100));
        let b = a.tick(WallTime(50));
        assert!(b > a);
        assert_eq!(b.wall, WallTime(100));
        assert_eq!(b.tick(WallTime(101)), HybridTime { wall: WallTime(101), logical: 0 });
    }
}
