//! Rights of a real-time thread: asked for, perhaps not got, and said so.
//!
//! A thread that must be on time asks for a fixed priority, and sees to it that its stack and data are in memory. The process as a whole is
//! never locked: applications and caches may be paged as the kernel likes.
#![expect(unsafe_code, reason = "scheduling and locked memory have no interface in the standard library")]

use std::fmt;
use std::io;
use std::time::Duration;

/// Of the liveness thread: above the gate's, below the kernel's own threads that matter to it.
pub const LIVENESS_PRIORITY: i32 = 50;
/// Of the gate's thread.
pub const GATE_PRIORITY: i32 = 49;

/// A right that was asked for: a row in `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// What it is, such as `real-time`.
    pub name: &'static str,
    /// What was asked for, in figures.
    pub asked: String,
    /// Whether we have it.
    pub got: bool,
    /// What having it, or not having it, means.
    pub means: &'static str,
    /// The kernel's reason, if we do not have it.
    pub reason: Option<String>,
}

impl Right {
    fn new(name: &'static str, asked: String, result: io::Result<()>, with: &'static str, without: &'static str) -> Self {
        let reason = result.err().map(|e| e.to_string());
        Self { name, asked, got: reason.is_none(), means: if reason.is_none() { with } else { without }, reason }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.name, self.asked, self.means)
    }
}

/// Asks for `SCHED_FIFO` at `priority` (1 to 99) for the calling thread. Threads and processes that it starts do not inherit it.
pub fn schedule_fifo(priority: i32) -> Right {
    let parameter = libc::sched_param { sched_priority: priority };
    // SAFETY: one live parameter to read; thread 0 is the caller.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameter) };
    Right::new(
        "real-time",
        format!("SCHED_FIFO {priority}"),
        check(result),
        "the thread runs as soon as it has to, whatever else is busy",
        "under load the thread may run late: the node then suspends itself; it is taken for dead, and takes others for dead, only after twice the time",
    )
}

/// Touches and locks the next `bytes` (at most 256 KiB) of the calling thread's stack.
pub fn lock_stack(bytes: usize) -> Right {
    let bytes = bytes.min(STACK_MAX);
    let result = if bytes <= STACK_MAX / 4 { touch_and_lock::<{ STACK_MAX / 4 }>(bytes) } else { touch_and_lock::<STACK_MAX>(bytes) };
    locked("locked stack", bytes, result)
}

/// Locks memory that the caller keeps for good. Nothing has to be undone: an unmapped page is unlocked.
pub fn lock_memory(memory: &[u8]) -> Right {
    locked("locked memory", memory.len(), lock(memory.as_ptr(), memory.len()))
}

/// The kernel's tick: timeouts that it counts in ticks are this coarse.
pub fn tick() -> Duration {
    let mut resolution = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: one live timespec to fill.
    let result = unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut resolution) };
    match u64::try_from(resolution.tv_nsec) {
        Ok(nanos) if result == 0 && nanos > 0 => Duration::from_nanos(nanos),
        _ => Duration::from_millis(10),
    }
}

const STACK_MAX: usize = 256 * 1024;

#[inline(never)]
fn touch_and_lock<const N: usize>(bytes: usize) -> io::Result<()> {
    let mut room = [0_u8; N];
    // The compiler must believe that every byte matters.
    std::hint::black_box(&mut room);
    lock(room.as_ptr(), bytes.min(N))
}

fn lock(start: *const u8, len: usize) -> io::Result<()> {
    // SAFETY: the range belongs to a live object of the caller; locking changes nothing in it.
    check(unsafe { libc::mlock(start.cast(), len) })
}

fn locked(name: &'static str, bytes: usize, result: io::Result<()>) -> Right {
    Right::new(
        name,
        format!("{bytes} bytes"),
        result,
        "the thread never waits for memory to be read back from disk",
        "under memory pressure the thread may wait for the disk",
    )
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kilobytes locked in this process.
    fn locked_now() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|l| l.starts_with("VmLck:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn a_right_tells_the_truth() {
        std::thread::spawn(|| {
            let right = schedule_fifo(10);
            // SAFETY: asks for the caller's policy.
            let policy = unsafe { libc::sched_getscheduler(0) } & !libc::SCHED_RESET_ON_FORK;
            assert_eq!(right.got, policy == libc::SCHED_FIFO, "{right:?}");
            assert_eq!(right.got, right.reason.is_none());
            let before = locked_now();
            let right = lock_stack(64 * 1024);
            assert!(!right.got || locked_now() >= before + 64, "{right:?}");
        })
        .join()
        .unwrap();
    }

    #[test]
    fn an_absurd_wish_is_refused_with_a_reason() {
        let right = schedule_fifo(1000);
        assert!(!right.got && right.reason.is_some(), "{right:?}");
        assert!(right.to_string().contains("SCHED_FIFO 1000"));
    }

    #[test]
    fn the_tick_is_one_that_linux_knows() {
        assert!((Duration::from_millis(1)..=Duration::from_millis(10)).contains(&tick()), "{:?}", tick());
    }
}
