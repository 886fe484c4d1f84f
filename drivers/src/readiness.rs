//! Descriptors of ours that a tokio task waits on.
#![expect(unsafe_code, reason = "tokio cannot see that a type keeps its descriptor open")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use tokio::io::unix::AsyncFd;

/// A type that owns one descriptor and keeps it, open, until it is dropped.
pub(crate) trait KeepsItsDescriptor: AsFd + AsRawFd {}

impl KeepsItsDescriptor for std::os::fd::OwnedFd {}
impl KeepsItsDescriptor for crate::netlink::Netlink {}

/// Registers `inner` with the runtime that the caller is in.
pub(crate) fn watched<T: KeepsItsDescriptor>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the descriptor stays open and the same as long as `inner` lives: that is what the trait says.
    unsafe { AsyncFd::register(inner) }.map_err(Into::into)
}
