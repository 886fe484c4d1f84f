//! The gate: what keeps a node without a lease silent for its guarded addresses, enforced by the kernel (protocol 4).
//!
//! The liveness thread stores the lease's end in a [`DeadlineWord`]; nothing else is needed to keep the gate open, and nothing at all to
//! close it. It covers every frame that speaks for an address: IPv4 and IPv6 with it as source, ARP with it as sender, neighbour
//! advertisements with it as target. What a dead or stopped daemon leaves behind is a gate that closes at its deadline and stays closed.
//!
//! | form | closes | needs | costs |
//! |---|---|---|---|
//! | [`GateForm::Bpf`] | at the deadline itself | `CAP_BPF`, `CAP_NET_ADMIN` | a store |
//! | [`GateForm::Nft`] | less than one lease after it, if the daemon was paused between reckoning and arming | `CAP_NET_ADMIN` | a thread, a netlink transaction per extension |
//! | [`GateForm::None`] | never | nothing | nothing |
//!
//! A frame that passed the gate and still waits in a queue of the device is past it: that, and a frame's way through the filter, is G of
//! protocol 3.2. A filter of somebody else that redirects frames before ours (a tcx program, another clsact program added later with the
//! same preference) can lead them around it.

mod bpf;
mod nft;
mod program;
mod tc;
#[cfg(test)]
mod tests;
mod word;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use sixnines_core::ids::NodeId;
use sixnines_core::time::Instant;

pub use bpf::BpfGate;
pub use nft::NftGate;
pub use word::DeadlineWord;

use crate::netlink::NetlinkError;
use crate::netlink::route::Route;
use crate::realtime::Right;

/// Which guard of a gate: the position in the list that it was made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GateSlot(pub u16);

/// How the gate is enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateForm {
    /// A BPF program on the devices' egress compares the boot clock with the deadline.
    Bpf,
    /// nftables set elements that expire.
    Nft,
    /// Nothing: loopback mode.
    None,
}

impl GateForm {
    /// What it means, for `status`.
    pub const fn means(self) -> &'static str {
        match self {
            Self::Bpf => "the kernel drops the service's frames from the lease's end on",
            Self::Nft => "the kernel drops the service's frames at most one lease after the lease's end: promises are twice as long",
            Self::None => "nothing keeps a stopped node silent: two nodes may answer for one address",
        }
    }

    /// The row in `status`: the best form is what was asked for.
    pub fn right(self) -> Right {
        Right { name: "gate", asked: Self::Bpf.to_string(), got: self == Self::Bpf, means: self.means(), reason: None }
    }

    /// How much later than the deadline the gate may close: part of G in protocol 3.2.
    pub const fn late_by(self, lease: Duration) -> Duration {
        match self {
            Self::Bpf => Duration::ZERO,
            Self::Nft => lease,
            Self::None => Duration::MAX,
        }
    }
}

impl fmt::Display for GateForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bpf => "bpf",
            Self::Nft => "nft",
            Self::None => "none",
        })
    }
}

/// What one slot guards: usually the addresses of one service group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// For people: the group's name.
    pub name: String,
    /// IPv4, IPv6, or both.
    pub addresses: Vec<IpAddr>,
    /// The devices by which frames for the addresses can leave. Linux answers ARP on any device for any of its addresses, so this
    /// should be every device of the node that has frames of its own: [`ethernet_devices`]. Frames that the node only forwards are
    /// dropped like its own: a node that routes for the address's other holders must leave the devices out by which it does.
    pub devices: Vec<String>,
}

/// What a gate is made from.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whose gate: two nodes that share a network namespace do not touch each other's.
    pub owner: NodeId,
    /// L of the profile: no single arming reaches further.
    pub lease: Duration,
    /// What to guard, in the order of the slots.
    pub guards: Vec<Guard>,
}

/// Reads a gate's pulse, from any thread.
pub type Pulse = Box<dyn Fn() -> u64 + Send + Sync>;

/// A gate. Made closed. It stays in the kernel, closed, when this value or the whole process is gone.
pub trait Gate: Send {
    /// How it is enforced.
    fn form(&self) -> GateForm;

    /// One word per slot, in their order, to be handed to the liveness thread.
    fn words(&self) -> &[DeadlineWord];

    /// Opens `slot` until a moment, or keeps it open: the same as storing into the word.
    fn arm(&mut self, slot: GateSlot, until: Instant) {
        self.words()[usize::from(slot.0)].store(until);
    }

    /// Closes `slot`. Closed it is when this returns: the word of a relinquishing node may be taken for it. May wait (a lease at most).
    fn close(&mut self, slot: GateSlot);

    /// Frames that were dropped in `slot` since the gate was made; 0 if that cannot be told.
    fn dropped(&mut self, slot: GateSlot) -> u64;

    /// A counter that turns at least every 10 ms while the gate's thread makes progress (protocol 5.3); `None` if there is no thread to hang.
    fn pulse(&self) -> Option<Pulse> {
        None
    }

    /// Puts back what somebody has taken away (a filter, the table; a device that went and came again), and says how many pieces.
    ///
    /// To be called every few seconds and whenever a device comes; anything but 0 is worth an alarm. Not on the liveness thread.
    fn restore(&mut self) -> Result<usize, GateError>;

    /// What the gate asked for and got, for `status`.
    fn rights(&self) -> Vec<Right> {
        vec![self.form().right()]
    }

    /// Takes the gate out of the kernel: only once the addresses are gone.
    fn dismantle(self: Box<Self>) -> Result<(), GateError>;
}

/// Why there is no gate. A node without the gate that it was told to have must not join.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GateError {
    /// The operator's: frames without an Ethernet header are not understood. Nothing was changed.
    #[error("cannot guard {device}: it is not an Ethernet device")]
    NotEthernet {
        /// The device.
        device: String,
    },
    /// The kernel does not let us load or map the program. Nothing was changed.
    #[error("could not {what}{}", log.as_ref().map(|l| format!("; the kernel says: {l}")).unwrap_or_default())]
    Bpf {
        /// What we tried.
        what: &'static str,
        /// The verifier's words, where it gave any.
        log: Option<String>,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// A filter, table or device: what was installed so far stays, closed, and the next start replaces it.
    #[error(transparent)]
    Kernel(#[from] NetlinkError),
    /// The gate's thread could not be started.
    #[error("could not start the gate's thread")]
    Thread(#[source] io::Error),
}

/// Makes the gate of that form in this thread's network namespace, closed, in place of what an earlier life of the owner left.
///
/// An earlier life's gate stays in force until the new one is. Addresses which are no longer guarded must be gone before
/// ([`crate::address::Ledger::start_clean`]).
pub fn make(form: GateForm, plan: &Plan) -> Result<Box<dyn Gate>, GateError> {
    Ok(match form {
        GateForm::Bpf => Box::new(BpfGate::install(plan)?),
        GateForm::Nft => Box::new(NftGate::install(plan)?),
        GateForm::None => Box::new(NoGate::new(plan)),
    })
}

/// The best form that this process may have on `device`, found by doing it, guarding nothing, and undoing it.
pub fn probe(device: &str) -> GateForm {
    match (bpf::probe(device), nft::probe(device)) {
        (Ok(()), _) => GateForm::Bpf,
        (Err(bpf), Ok(())) => {
            tracing::debug!(device, %bpf, "no BPF gate, but an nftables one");
            GateForm::Nft
        }
        (Err(bpf), Err(nft)) => {
            tracing::debug!(device, %bpf, %nft, "no gate");
            GateForm::None
        }
    }
}

/// The names of all Ethernet devices in this thread's network namespace, without those plugged into a bridge or bond: the node's own
/// frames pass the bridge or bond first, and what a bridge's port forwards is somebody else's.
pub fn ethernet_devices() -> Result<Vec<String>, NetlinkError> {
    let links = Route::open()?.links()?;
    let takes_over = |index: i32| links.iter().any(|l| l.index == index && l.kind.as_deref().is_some_and(|k| ["bridge", "bond", "team"].contains(&k)));
    Ok(links.iter().filter(|l| l.is_ethernet && !l.master.is_some_and(takes_over)).map(|l| l.name.clone()).collect())
}

/// Loopback mode: the words are there, nobody heeds them.
#[derive(Debug)]
pub struct NoGate {
    words: Vec<DeadlineWord>,
}

impl NoGate {
    /// One that guards nothing.
    pub fn new(plan: &Plan) -> Self {
        Self { words: plan.guards.iter().map(|_| DeadlineWord::alone()).collect() }
    }
}

impl Gate for NoGate {
    fn form(&self) -> GateForm {
        GateForm::None
    }

    fn words(&self) -> &[DeadlineWord] {
        &self.words
    }

    fn close(&mut self, slot: GateSlot) {
        self.arm(slot, Instant::ZERO);
    }

    fn dropped(&mut self, _slot: GateSlot) -> u64 {
        0
    }

    fn restore(&mut self) -> Result<usize, GateError> {
        Ok(0)
    }

    fn dismantle(self: Box<Self>) -> Result<(), GateError> {
        Ok(())
    }
}

/// The number of a device that can be guarded.
fn device_index(route: &mut Route, device: &str) -> Result<i32, GateError> {
    let link = route.link(device)?;
    if link.is_ethernet { Ok(link.index) } else { Err(GateError::NotEthernet { device: device.to_owned() }) }
}
