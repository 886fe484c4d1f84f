//! The one word by which the liveness thread keeps a gate open.
#![expect(unsafe_code, reason = "the word may lie in a page shared with a BPF program; a futex wakes the thread of the other form")]

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use sixnines_core::time::Instant;

use super::bpf::Page;

/// Until when frames may pass, in nanoseconds of the boot clock; 0 is closed. A store never waits for anyone.
///
/// The memory stays valid as long as any clone of this lives, the gate itself notwithstanding.
#[derive(Clone)]
pub struct DeadlineWord {
    home: Home,
}

#[derive(Clone)]
enum Home {
    /// In a page that the kernel's program reads.
    Page(Arc<Page>),
    /// In our own memory; who waits at the bell is told.
    Own(Arc<AtomicU64>, Option<Arc<Bell>>),
}

impl DeadlineWord {
    /// A word that nobody looks at.
    pub(crate) fn alone() -> Self {
        Self { home: Home::Own(Arc::default(), None) }
    }

    /// A word whose every store rings.
    pub(crate) fn with_bell(bell: &Arc<Bell>) -> Self {
        Self { home: Home::Own(Arc::default(), Some(Arc::clone(bell))) }
    }

    /// A word in a shared page.
    pub(crate) fn in_page(page: Arc<Page>) -> Self {
        Self { home: Home::Page(page) }
    }

    /// Sets the deadline: an atomic store and, where a thread has to be told, a call that wakes it.
    pub fn store(&self, until: Instant) {
        match &self.home {
            Home::Page(page) => page.deadline().store(until.as_nanos(), Ordering::Release),
            Home::Own(word, bell) => {
                word.store(until.as_nanos(), Ordering::Release);
                if let Some(bell) = bell {
                    bell.ring();
                }
            }
        }
    }

    /// The deadline as it stands.
    pub fn load(&self) -> Instant {
        let word = match &self.home {
            Home::Page(page) => page.deadline(),
            Home::Own(word, _) => word,
        };
        Instant::from_nanos(word.load(Ordering::Acquire))
    }
}

impl fmt::Debug for DeadlineWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeadlineWord({})", self.load())
    }
}

/// Wakes one thread. Ringing never waits.
#[derive(Debug, Default)]
pub(crate) struct Bell(AtomicU32);

impl Bell {
    /// How often it has rung.
    pub(crate) fn count(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    /// Wakes the waiting thread, or keeps it from falling asleep.
    pub(crate) fn ring(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
        // SAFETY: the futex word lives in `self`; waking reads nothing else. How many were woken does not matter.
        unsafe { libc::syscall(libc::SYS_futex, self.0.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1) };
    }

    /// Waits until it has rung more often than `heard`, at most `patience`, perhaps less.
    pub(crate) fn wait(&self, heard: u32, patience: Duration) {
        let time = libc::timespec {
            tv_sec: libc::time_t::try_from(patience.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: patience.subsec_nanos().into(),
        };
        // SAFETY: the futex word lives in `self`, the timespec through the call. Waking early is allowed for.
        unsafe {
            libc::syscall(libc::SYS_futex, self.0.as_ptr(), libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG, heard, &raw const time);
        }
    }
}
