//! Tells when a network device comes, goes, or gains or loses its carrier.

use std::collections::VecDeque;
use std::io;

use tokio::io::unix::AsyncFd;

use crate::netlink::route::{Link, RTM_DELLINK, RTM_NEWLINK, Route};
use crate::netlink::{Netlink, NetlinkError, Protocol};
use crate::readiness::watched;

/// `RTMGRP_LINK`.
const GROUP_LINK: u32 = 1;

/// What happened to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// It is like this now. Comes at first for every device, then after each change (also of what we do not show).
    Is(Link),
    /// It is gone.
    Gone(Link),
}

/// Watches all devices of the network namespace in which it was opened.
#[derive(Debug)]
pub struct LinkWatch {
    socket: AsyncFd<Netlink>,
    /// At most one answer's worth: filled only when empty.
    ready: VecDeque<LinkChange>,
}

impl LinkWatch {
    /// Opens it. Within a tokio runtime.
    pub fn open() -> Result<Self, NetlinkError> {
        // Subscribed first, listed second: a change between the two is seen twice, never not at all.
        let netlink = Netlink::with_groups(Protocol::Route, GROUP_LINK)?;
        let socket = watched(netlink).map_err(|e| NetlinkError::new("watch the network devices", e))?;
        Ok(Self { socket, ready: list()? })
    }

    /// The next change. Cancel safe.
    ///
    /// If changes came faster than they were taken, the present state of all devices follows instead (a device that went meanwhile is
    /// then missing from it).
    pub async fn next(&mut self) -> Result<LinkChange, NetlinkError> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Ok(change);
            }
            let failed = |e| NetlinkError::new("watch the network devices", e);
            let mut guard = self.socket.readable_mut().await.map_err(failed)?;
            match guard.get_inner_mut().poll_notices() {
                Ok(notices) if notices.is_empty() => guard.clear_ready(),
                Ok(notices) => self.ready.extend(notices.iter().filter_map(|n| change(n.kind, &n.body))),
                Err(e) if overflowed(&e) => self.ready = list()?,
                Err(e) => return Err(failed(e)),
            }
        }
    }
}

fn list() -> Result<VecDeque<LinkChange>, NetlinkError> {
    Ok(Route::open()?.links()?.into_iter().map(LinkChange::Is).collect())
}

fn change(kind: u16, body: &[u8]) -> Option<LinkChange> {
    match kind {
        RTM_NEWLINK => Link::parse(body).map(LinkChange::Is),
        RTM_DELLINK => Link::parse(body).map(LinkChange::Gone),
        _ => None,
    }
}

fn overflowed(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOBUFS)
}
