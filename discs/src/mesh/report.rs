//! What somebody should know: counted always, reported once in a while.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sixnines_core::ids::{LinkId, NodeId};

use super::{Receiver, Totals};
use crate::wire::Refusal;

/// What went wrong between us and somebody on a link. For an alarm; the mesh has done what there was to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Somebody showed a certificate that is not of our CA, or names no member or another one.
    #[error("{address} on link {link} is not who it should be: {reason}")]
    Untrusted {
        /// Where.
        link: LinkId,
        /// Who.
        address: IpAddr,
        /// What the check said.
        reason: String,
    },
    /// A peer refused our certificate.
    #[error("{peer} on link {link} does not accept our certificate: {reason}")]
    Distrusted {
        /// Where.
        link: LinkId,
        /// Who.
        peer: NodeId,
        /// What it said.
        reason: String,
    },
    /// One end refused the other's `Hello`.
    #[error("{} on link {link}: {refusal}", if *.by_us { format!("we refuse {peer}") } else { format!("{peer} refuses us") })]
    Refused {
        /// Where.
        link: LinkId,
        /// Who.
        peer: NodeId,
        /// Whether we refused, or the peer.
        by_us: bool,
        /// Why.
        refusal: Refusal,
    },
    /// What came from a peer was no frame, or one that no correct peer sends. The connection was closed.
    #[error("{peer} on link {link} sends what no peer should: {reason}")]
    Broken {
        /// Where.
        link: LinkId,
        /// Who.
        peer: NodeId,
        /// What.
        reason: String,
    },
    /// A task of ours panicked and was started anew.
    #[error("the mesh's {task} for {peer} panicked and was started anew")]
    Panicked {
        /// Which task.
        task: &'static str,
        /// Whom it served.
        peer: NodeId,
    },
}

/// The same fault is reported once in so long.
const REPEAT_AFTER: Duration = Duration::from_secs(10);
/// Different faults remembered at once. At the bound all are forgotten, so some come again early.
const REMEMBERED_MAX: usize = 64;

#[derive(Default)]
pub(super) struct Reports {
    garbage: Arc<AtomicU64>,
    untrusted: AtomicU64,
    refused: AtomicU64,
    broken: AtomicU64,
    crowded: AtomicU64,
    panics: AtomicU64,
    seen: Mutex<BTreeMap<String, Instant>>,
}

impl Reports {
    /// For the sockets, which count garbage themselves.
    pub(super) fn garbage(&self) -> Arc<AtomicU64> {
        self.garbage.clone()
    }

    pub(super) fn crowded(&self) {
        self.crowded.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn fault(&self, receiver: &dyn Receiver, fault: Fault) {
        let counter = match &fault {
            Fault::Untrusted { .. } | Fault::Distrusted { .. } => &self.untrusted,
            Fault::Refused { .. } => &self.refused,
            Fault::Broken { .. } => &self.broken,
            Fault::Panicked { .. } => &self.panics,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if self.is_news(&fault) {
            tracing::warn!("{fault}");
            receiver.fault(fault);
        }
    }

    fn is_news(&self, fault: &Fault) -> bool {
        let now = Instant::now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let text = fault.to_string();
        if seen.get(&text).is_some_and(|last| now.duration_since(*last) < REPEAT_AFTER) {
            return false;
        }
        if seen.len() >= REMEMBERED_MAX {
            seen.clear();
        }
        seen.insert(text, now);
        true
    }

    pub(super) fn totals(&self) -> Totals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            garbage: read(&self.garbage),
            untrusted: read(&self.untrusted),
            refused: read(&self.refused),
            broken: read(&self.broken),
            crowded: read(&self.crowded),
            panics: read(&self.panics),
        }
    }
}
