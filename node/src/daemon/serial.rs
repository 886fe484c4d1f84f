//! The serial lines of this node, and what they are told. No call here waits for anyone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use crossbeam::channel::Sender;
use sixnines_core::ids::{Epoch, GroupName, LinkId, NodeId};
use sixnines_core::roles::Told;
use sixnines_discs::liveness::shell::Handle as Liveness;
use sixnines_discs::serial::shell::{Handle, News, Order, Setup};

use crate::config::NodeFile;
use crate::core_loop::In;
use crate::core_loop::serial::SerialNews;

/// All lines, by who is at their other end.
pub(super) struct Lines {
    lines: BTreeMap<NodeId, Handle>,
    /// Those that do not belong to the domain any more: no key of theirs counts.
    gone: Mutex<BTreeSet<NodeId>>,
}

impl Lines {
    /// Starts the lines that the node's file names. A device that is not there is told and looked for.
    ///
    /// # Errors
    /// A peer that is no node of the domain; the operating system gives no thread.
    pub(super) fn start(file: &NodeFile, life: u64, nodes: &[NodeId], liveness: &Arc<Liveness>, inbox: &Sender<In>) -> anyhow::Result<Arc<Self>> {
        let mut lines = BTreeMap::new();
        for line in &file.serial {
            let known = || nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            anyhow::ensure!(nodes.contains(&line.peer), "serial: the peer of {} is {}, which is no other node of this domain; these are: {}", line.device.display(), line.peer, known());
            let setup = Setup { me: file.node, peer: line.peer, life, device: line.device.clone(), baud: line.baud };
            let (liveness, inbox, device, peer) = (Arc::clone(liveness), inbox.clone(), line.device.clone(), line.peer);
            let tell = move |news| {
                let input = match news {
                    News::State { state, beat, outlives, why } => In::Serial(SerialNews { peer, device: device.clone(), state, beat, outlives, why }),
                    News::Told(told) => In::Told { from: peer, told },
                };
                if inbox.send(input).is_err() {
                    tracing::debug!("the core loop has ended");
                }
            };
            lines.insert(line.peer, Handle::start(setup, move || liveness.lease(), tell).context("a serial line has no thread")?);
        }
        Ok(Arc::new(Self { lines, gone: Mutex::default() }))
    }

    pub(super) fn key(&self, peer: NodeId, id: u32, key: [u8; 32]) {
        let gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = self.lines.get(&peer).filter(|_| !gone.contains(&peer)) {
            line.order(Order::Key(id, key));
        }
    }

    /// Who belongs to the domain now.
    pub(super) fn members(&self, members: &BTreeSet<NodeId>) {
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        for (peer, line) in &self.lines {
            if members.contains(peer) {
                gone.remove(peer);
            } else if gone.insert(*peer) {
                line.order(Order::Forget);
            }
        }
    }

    pub(super) fn link(&self, peer: NodeId, link: LinkId, is_up: bool) {
        if let Some(line) = self.lines.get(&peer) {
            line.order(Order::Link(link.0, is_up));
        }
    }

    /// Under this epoch this node is the active of a group, or is not any more.
    pub(super) fn active(&self, group: &GroupName, epoch: Option<Epoch>) {
        self.lines.values().for_each(|line| line.order(Order::Active(group.clone(), epoch)));
    }

    /// A word of which nothing but an active's relinquishing goes over a line.
    pub(super) fn tell(&self, peer: NodeId, told: &Told) {
        if let (Some(line), Told::Relinquished { .. }) = (self.lines.get(&peer), told) {
            line.order(Order::Tell(told.clone()));
        }
    }
}
