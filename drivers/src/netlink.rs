//! A small netlink client: enough to set up links and addresses, attach filters, and write nftables rules.
//!
//! Own code instead of a library because the ways that matter (an address taken in a few system calls, a gate re-armed
//! in one) want prepared messages on a prepared socket, without a runtime. Every call here may wait for the kernel's
//! configuration lock: the liveness thread must never make one.
//!
//! Source: Linux `Documentation/userspace-api/netlink/intro.rst`.

pub mod message;
pub mod route;
mod socket;

pub use message::{Attrs, Message};
pub use socket::{Netlink, Protocol, Refusal, Reply};

/// What the kernel refused, or what went wrong in asking. Unless the text says otherwise nothing was changed.
#[derive(Debug, thiserror::Error)]
#[error("could not {what}{}", hint.as_ref().map(|h| format!(" ({h})")).unwrap_or_default())]
pub struct NetlinkError {
    /// What we tried, and on what: `add 10.9.0.1/24 to eth0`.
    pub what: String,
    /// The kernel's own sentence, where it gave one.
    pub hint: Option<String>,
    /// The kernel's number.
    #[source]
    pub source: std::io::Error,
}

impl NetlinkError {
    pub(crate) fn new(what: impl Into<String>, source: std::io::Error) -> Self {
        Self { what: what.into(), hint: None, source }
    }

    /// Whether the kernel answered with this errno.
    pub fn is(&self, errno: i32) -> bool {
        self.source.raw_os_error() == Some(errno)
    }
}

/// Turns an answer that means "it is so already" into success.
pub(crate) fn tolerate(result: Result<(), NetlinkError>, errnos: &[i32]) -> Result<(), NetlinkError> {
    match result {
        Err(e) if errnos.iter().any(|n| e.is(*n)) => Ok(()),
        other => other,
    }
}
