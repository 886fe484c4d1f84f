//! The guard page: memory that a node shares with its applications, so that each can tell in nanoseconds whether it may speak.
//!
//! Word 0 is the end of the node's lease on the boot-time clock; its liveness thread stores it. Each group has a word with the epoch
//! under which its application is active, 0 while it is not. Both are single words, so nothing is ever torn, and a stopped node needs to
//! do nothing: its last lease end passes by itself (protocol 2.2). Applications map the page read-only, and the seal keeps it so.
#![expect(unsafe_code, reason = "shared memory, and descriptors that come over a socket, have no safe interface")]

use std::fmt;
use std::io::{self, IoSliceMut};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::ftruncate;
use sixnines_core::ids::Epoch;
use sixnines_core::time::Instant;

use crate::clock::boot_now;

/// The node's end of the page. Clones are the same page.
#[derive(Clone, Debug)]
pub struct GuardPage {
    page: Arc<Page>,
    fd: Arc<OwnedFd>,
    free: Arc<Mutex<Vec<u16>>>,
}

/// Where the liveness thread stores the lease's end. A store never waits for anyone.
#[derive(Clone, Debug)]
pub struct LeaseWord(Arc<Page>);

/// One group's word. Its application is told by it that it may not speak, before any message could.
#[derive(Debug)]
pub struct EpochWord {
    page: Arc<Page>,
    slot: u16,
    free: Arc<Mutex<Vec<u16>>>,
}

/// An application's view of the page: may I speak?
#[derive(Clone, Debug)]
pub(crate) struct GuardView {
    page: Arc<Page>,
    slot: u16,
}

impl GuardPage {
    /// A page in which nobody may speak.
    ///
    /// # Errors
    /// The machine's: no memory or no descriptor is left.
    pub fn new() -> io::Result<Self> {
        let fd = memfd_create(c"sixnines-guard", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        ftruncate(&fd, i64::try_from(PAGE_BYTES).expect("a page is small"))?;
        let page = Page::map(fd.as_fd(), ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::from_bits_retain(F_SEAL_FUTURE_WRITE) | SealFlag::F_SEAL_SEAL;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(seals))?;
        let free = (1..u16::try_from(WORDS).expect("a page is small")).rev().collect();
        Ok(Self { page: Arc::new(page), fd: Arc::new(fd), free: Arc::new(Mutex::new(free)) })
    }

    /// The word for the lease's end.
    pub fn lease_word(&self) -> LeaseWord {
        LeaseWord(Arc::clone(&self.page))
    }

    /// The lease's end as it stands.
    pub fn lease_end(&self) -> Instant {
        Instant::from_nanos(self.page.word(0).load(Ordering::Acquire))
    }

    /// A word for a group; `None` if all 511 are taken.
    pub(crate) fn epoch_word(&self) -> Option<EpochWord> {
        let slot = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        self.page.word(slot).store(0, Ordering::Release);
        Some(EpochWord { page: Arc::clone(&self.page), slot, free: Arc::clone(&self.free) })
    }

    /// To be handed to applications.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl LeaseWord {
    /// Sets the end of the lease; zero: it is over.
    pub fn store(&self, until: Instant) {
        self.0.word(0).store(until.as_nanos(), Ordering::Release);
    }
}

impl EpochWord {
    /// The application is active under `epoch`; `None`: it may not speak.
    pub(crate) fn store(&self, epoch: Option<Epoch>) {
        self.page.word(self.slot).store(epoch.map_or(0, |e| e.0), Ordering::Release);
    }

    pub(crate) fn slot(&self) -> u16 {
        self.slot
    }
}

impl Drop for EpochWord {
    fn drop(&mut self) {
        self.store(None);
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.slot);
    }
}

impl GuardView {
    pub(crate) fn map(fd: BorrowedFd<'_>, slot: u16) -> io::Result<Self> {
        if usize::from(slot) >= WORDS {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the guard page has no such word"));
        }
        Ok(Self { page: Arc::new(Page::map(fd, ProtFlags::PROT_READ)?), slot })
    }

    /// Whether the role of `epoch` is in force and the lease valid, now.
    pub(crate) fn permits(&self, epoch: Epoch) -> bool {
        let in_force = || self.page.word(self.slot).load(Ordering::Acquire) == epoch.0;
        let until = self.page.word(0).load(Ordering::Acquire);
        in_force() && boot_now().as_nanos() < until
    }
}

/// Receives bytes, and the page's descriptor if it comes with them.
pub(crate) fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = nix::cmsg_space!(RawFd);
    let mut slices = [IoSliceMut::new(bytes)];
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut owned = None;
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = message {
            for descriptor in descriptors {
                // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
                owned = Some(unsafe { OwnedFd::from_raw_fd(descriptor) });
            }
        }
    }
    Ok((received.bytes, owned))
}

const PAGE_BYTES: usize = 4096;
const WORDS: usize = PAGE_BYTES / 8;
/// `linux/fcntl.h`; since 5.1. Existing mappings stay writable, later ones cannot be.
const F_SEAL_FUTURE_WRITE: i32 = 0x10;

/// A mapping of the page; unmapped with its last holder.
struct Page(NonNull<AtomicU64>);

// SAFETY: the mapping is plain shared memory that is only reached through atomics and lives as long as this value.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl Page {
    fn map(fd: BorrowedFd<'_>, protection: ProtFlags) -> io::Result<Self> {
        let length = NonZeroUsize::new(PAGE_BYTES).expect("a page is not empty");
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory that anybody has.
        let address = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, fd, 0)? };
        Ok(Self(address.cast()))
    }

    fn word(&self, index: u16) -> &AtomicU64 {
        assert!(usize::from(index) < WORDS, "the page has {WORDS} words");
        // SAFETY: the mapping is a page long, aligned as one, lives as long as `self`, and is only accessed as atomics. A read-only
        // mapping is never stored to: only `LeaseWord` and `EpochWord` store, and they are made from the node's own mapping.
        unsafe { self.0.add(usize::from(index)).as_ref() }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and nobody holds a reference: they borrow from `self`.
        if let Err(error) = unsafe { munmap(self.0.cast(), PAGE_BYTES) } {
            tracing::error!(%error, "the guard page could not be unmapped");
        }
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Page(lease until {})", Instant::from_nanos(self.word(0).load(Ordering::Acquire)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_view_permits_only_the_epoch_in_force_under_a_valid_lease() {
        let page = GuardPage::new().expect("memory");
        let word = page.epoch_word().expect("a free word");
        let view = GuardView::map(page.descriptor(), word.slot()).expect("a mapping");
        assert!(!view.permits(Epoch(3)));
        word.store(Some(Epoch(3)));
        assert!(!view.permits(Epoch(3)), "no lease yet");
        page.lease_word().store(boot_now() + Duration::from_secs(60));
        assert!(view.permits(Epoch(3)));
        assert!(!view.permits(Epoch(2)));
        page.lease_word().store(boot_now());
        assert!(!view.permits(Epoch(3)), "the lease has ended by itself");
    }

    #[test]
    fn an_application_cannot_map_the_page_for_writing() {
        let page = GuardPage::new().expect("memory");
        assert!(Page::map(page.descriptor(), ProtFlags::PROT_READ | ProtFlags::PROT_WRITE).is_err());
    }

    #[test]
    fn a_word_that_is_given_back_says_no() {
        let page = GuardPage::new().expect("memory");
        let word = page.epoch_word().expect("a free word");
        word.store(Some(Epoch(1)));
        page.lease_word().store(boot_now() + Duration::from_secs(60));
        let view = GuardView::map(page.descriptor(), word.slot()).expect("a mapping");
        assert!(view.permits(Epoch(1)));
        drop(word);
        assert!(!view.permits(Epoch(1)));
    }
}
