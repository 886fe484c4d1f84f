//! The boot-time clock, by which leases end: the only clock that this crate's shell reads.

use nix::time::{ClockId, clock_gettime};
use sixnines_core::time::Instant;

/// Now. It runs on while the machine sleeps, and never jumps.
pub(crate) fn boot_now() -> Instant {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every Linux since 2.6.39 has CLOCK_BOOTTIME");
    let part = |n: i64| u64::try_from(n).expect("the boot clock is not negative");
    Instant::from_nanos(part(now.tv_sec()) * 1_000_000_000 + part(now.tv_nsec()))
}
