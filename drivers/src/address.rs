//! Addresses that go where the active is: taken, announced, given up.
//!
//! All that can be prepared is: sockets, requests, frames. Taking an address is then one line in the ledger, one request to the kernel
//! and, once the gate lets frames pass, one frame or two. The order is take, arm the gate, announce; and close the gate, give up.
//! An address taken under a closed gate is silent.
//!
//! Source: RFC 5227 section 3 and RFC 4861 section 7.2.6 for the announcements.

pub(crate) mod frames;
pub mod ledger;
pub(crate) mod packet;
#[cfg(test)]
mod tests;
pub mod watch;

use std::io;
use std::sync::Arc;
use std::time::Duration;

pub use ledger::{Ledger, LedgerError};
pub use watch::{LinkChange, LinkWatch};

use crate::netlink::message::Message;
use crate::netlink::route::{Cidr, Route, add_address, delete_address};
use crate::netlink::{Netlink, NetlinkError, Protocol};
use packet::PacketSocket;

/// When to announce again after the first time: a frame may get lost, a switch may have been busy.
pub const ANNOUNCE_AGAIN_AFTER: [Duration; 4] =
    [Duration::from_millis(20), Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2)];

/// One address on one device of this node, ready to be taken.
#[derive(Debug)]
pub struct Address {
    device: String,
    cidr: Cidr,
    netlink: Netlink,
    add: Message,
    delete: Message,
    packet: PacketSocket,
    announcements: Vec<Vec<u8>>,
    ledger: Arc<Ledger>,
    is_taken: bool,
}

/// Why an address could not be prepared, taken or given up. What is known of it afterwards stands with each variant.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// The operator's: a device without Ethernet frames has nobody to announce to. Nothing was changed.
    #[error("{cidr} cannot go on {device}: it is not an Ethernet device")]
    NotEthernet {
        /// The address.
        cidr: Cidr,
        /// The device.
        device: String,
    },
    /// The kernel refused: the address is where it was before.
    #[error(transparent)]
    Kernel(#[from] NetlinkError),
    /// The raw socket for announcements could not be had. Nothing was changed.
    #[error("could not open a raw socket on {device}")]
    RawSocket {
        /// The device.
        device: String,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The ledger could not be written: the address was not taken, because a later start would not know of it.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Why an announcement did not go out. The address itself is untouched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnnounceError {
    /// The kernel dropped it on its way out: the gate is closed (or, rarely, the device's queue was full). Announce again once it is open.
    #[error("{cidr} was not announced on {device}: the gate is closed")]
    Silenced {
        /// The address.
        cidr: Cidr,
        /// The device.
        device: String,
    },
    /// The device is off or gone.
    #[error("could not announce {cidr} on {device}")]
    Send {
        /// The address.
        cidr: Cidr,
        /// The device.
        device: String,
        /// The reason.
        #[source]
        source: io::Error,
    },
}

impl Address {
    /// Prepares `cidr` on `device`. Takes nothing yet.
    pub fn prepare(device: &str, cidr: Cidr, ledger: &Arc<Ledger>) -> Result<Self, AddressError> {
        let mut route = Route::open()?;
        let link = route.link(device)?;
        let Some(mac) = link.mac.filter(|_| link.is_ethernet) else {
            return Err(AddressError::NotEthernet { cidr, device: device.to_owned() });
        };
        if cidr.address.is_ipv4() {
            route.keep_secondaries(device)?;
        }
        let packet = PacketSocket::open(link.index).map_err(|source| AddressError::RawSocket { device: device.to_owned(), source })?;
        Ok(Self {
            device: device.to_owned(),
            cidr,
            netlink: Netlink::open(Protocol::Route)?,
            add: add_address(link.index, cidr),
            delete: delete_address(link.index, cidr),
            packet,
            announcements: frames::announcements(mac, cidr.address),
            ledger: Arc::clone(ledger),
            is_taken: false,
        })
    }

    /// Puts the address on the device, silently. Known to the ledger first. Taking it twice is as once.
    pub fn take(&mut self) -> Result<(), AddressError> {
        self.ledger.note_taken(&self.device, self.cidr)?;
        match self.netlink.request_prepared(&mut self.add) {
            Err(refusal) if !refusal.is(libc::EEXIST) => Err(refusal.named(format!("add {} to {}", self.cidr, self.device)).into()),
            _ => {
                self.is_taken = true;
                Ok(())
            }
        }
    }

    /// Tells all neighbours where the address is now. To be repeated after [`ANNOUNCE_AGAIN_AFTER`].
    pub fn announce(&self) -> Result<(), AnnounceError> {
        self.announcements.iter().try_for_each(|frame| self.packet.send(frame)).map_err(|source| {
            let (cidr, device) = (self.cidr, self.device.clone());
            if source.raw_os_error() == Some(libc::ENOBUFS) {
                AnnounceError::Silenced { cidr, device }
            } else {
                AnnounceError::Send { cidr, device, source }
            }
        })
    }

    /// Removes the address from the device. Giving it up twice is as once.
    pub fn give_up(&mut self) -> Result<(), AddressError> {
        match self.netlink.request_prepared(&mut self.delete) {
            Err(refusal) if !refusal.is(libc::EADDRNOTAVAIL) && !refusal.is(libc::ENODEV) => {
                return Err(refusal.named(format!("remove {} from {}", self.cidr, self.device)).into());
            }
            _ => self.is_taken = false,
        }
        self.ledger.note_given_up(&self.device, self.cidr)?;
        Ok(())
    }

    /// Whether [`Self::take`] succeeded and [`Self::give_up`] has not since.
    pub fn is_taken(&self) -> bool {
        self.is_taken
    }

    /// The address.
    pub fn cidr(&self) -> Cidr {
        self.cidr
    }

    /// The device.
    pub fn device(&self) -> &str {
        &self.device
    }
}
