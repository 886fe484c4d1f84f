//! What the service asks of the node that it runs in.

use std::collections::BTreeSet;
use std::fmt;

use sixnines_core::ids::{Epoch, GroupName, Member, Version};
use sixnines_core::roles::Offer;

use crate::wire::PeerFault;

/// The node around a [`super::Service`]. Called on groups' tasks: no call may wait, least of all for the core loop.
pub trait Host: Send + Sync + fmt::Debug + 'static {
    /// Sends a frame to another node's service, in order as far as that is possible; it may get lost.
    fn send(&self, group: &GroupName, to: Member, bytes: Vec<u8>);

    /// Proposes `Entry::Sync` by this node for this version.
    fn propose_sync(&self, group: &GroupName, version: Version, in_sync: BTreeSet<Member>);

    /// The group's application came, went, hangs or is back.
    fn app(&self, group: &GroupName, state: AppState);

    /// The application has written its last and the target has everything.
    fn quiesced(&self, group: &GroupName, epoch: Epoch, target: Member);

    /// The target left the in-sync set, or another row came: writes are taken again.
    fn quiesce_failed(&self, group: &GroupName, epoch: Epoch, target: Member);

    /// The application's guard is closed for good under this epoch, and nothing it writes is taken.
    fn silenced(&self, group: &GroupName, epoch: Epoch);

    /// What the local copy has. An active makes no offer.
    fn offered(&self, group: &GroupName, offer: Offer);

    /// So many acknowledged writes would be lost with this node. Told when it leaves zero and when it returns.
    fn loss_window(&self, group: &GroupName, records: u64);

    /// A peer sent what it cannot have meant. Nothing was changed.
    fn peer_fault(&self, group: &GroupName, fault: PeerFault);

    /// The group's task has panicked and its copy is gone. The node begins a new life, or ends.
    fn copy_lost(&self, group: &GroupName);
}

/// A group's application, as the service sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppState {
    /// Connected; it takes roles.
    Ready,
    /// Connected, and not heard for longer than [`super::ServiceConfig::silence`].
    Hanging,
    /// Its connection has ended.
    Gone,
}
