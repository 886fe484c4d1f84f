//! The node's clocks: the only place that reads them for the machines.
#![expect(unsafe_code, reason = "CLOCK_BOOTTIME has no interface in the standard library")]

use std::time::{SystemTime, UNIX_EPOCH};

use sixnines_core::time::{Duration, Instant, WallTime, nanos};

/// Now, on the clock that leases are counted by: it does not jump, and runs on while the machine sleeps.
pub fn boot_now() -> Instant {
    Instant::from_nanos(read(libc::CLOCK_BOOTTIME))
}

/// The processor time that the calling thread has used, in nanoseconds.
pub fn thread_time() -> u64 {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: one live timespec to fill.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(result, 0, "every Linux since 2.6.39 has this clock");
    let seconds = u64::try_from(time.tv_sec).expect("these clocks are not negative");
    let rest = u64::try_from(time.tv_nsec).expect("nanoseconds are not negative");
    seconds * NANOS_PER_SECOND + rest
}

/// Now, for people and event stamps. It may jump.
pub fn wall_now() -> WallTime {
    WallTime(nanos(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO)))
}

/// Sleeps on the boot clock. Returns at once if `until` has passed. For real-time threads; a signal may wake it early.
pub fn sleep_until(until: Instant) {
    let time = libc::timespec {
        tv_sec: libc::time_t::try_from(until.as_nanos() / NANOS_PER_SECOND).unwrap_or(libc::time_t::MAX),
        tv_nsec: i64::try_from(until.as_nanos() % NANOS_PER_SECOND).expect("below a thousand million"),
    };
    // SAFETY: one live timespec to read. Being woken early is documented, so the result does not matter.
    unsafe { libc::clock_nanosleep(libc::CLOCK_BOOTTIME, libc::TIMER_ABSTIME, &raw const time, std::ptr::null_mut()) };
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_clock_moves_forward_and_sleep_reaches_its_end() {
        let start = boot_now();
        let until = start + Duration::from_millis(2);
        while boot_now() < until {
            sleep_until(until);
        }
        assert!(boot_now() >= until);
        assert!(thread_time() < boot_now().as_nanos());
        let used = thread_time();
        while thread_time() == used {
            std::hint::black_box(used);
        }
        assert!(wall_now() > WallTime(1_700_000_000 * NANOS_PER_SECOND));
    }
}
