//! What comes in from the mesh, sorted to where it belongs, and what the control log says. All calls are on others' threads and never wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crossbeam::channel::Sender;
use sixnines_checkpoint::service::Service;
use sixnines_core::abroad::Interest;
use sixnines_core::domain::{Change, Domain, Proposal, Void};
use sixnines_core::ids::{Epoch, GroupName, LinkId, LogIndex, Member, NodeId};
use sixnines_discs::feed::wire::{Recorded, Word, read_subscription};
use sixnines_discs::liveness::Part;
use sixnines_discs::liveness::shell::{Handle as Liveness, Order, Turns};
use sixnines_discs::log::{Failure, Handle as Log, Lane, Place, Port, ProposeError, lane};
use sixnines_discs::mesh::{Fault, MeshHandle, PeerState, Receiver};
use sixnines_discs::wire::{Class, Kind};
use tokio::sync::mpsc::UnboundedSender;

use super::checkpoints::GroupFrame;
use super::roster::Roster;
use super::serial::Lines;
use crate::core_loop::In;
use super::keeper::sink;
use crate::standing::standing;

/// The mesh's receiver. Parts that start after the mesh are filled in when they are there; what comes before is dropped and, where it
/// matters, sent again.
pub(super) struct Bus {
    pub(super) inbox: Sender<In>,
    pub(super) liveness: OnceLock<Arc<Liveness>>,
    pub(super) log: OnceLock<Log>,
    pub(super) service: OnceLock<Service>,
    pub(super) serial: OnceLock<Arc<Lines>>,
}

impl Bus {
    fn core(&self, input: In) {
        if self.inbox.send(input).is_err() {
            tracing::debug!("the core loop has ended");
        }
    }
}

impl Receiver for Bus {
    fn frame(&self, from: NodeId, _class: Class, kind: Kind, payload: bytes::Bytes) {
        match kind {
            Kind::LOG => {
                if let Some(log) = self.log.get() {
                    log.frame(from, payload.to_vec());
                }
            }
            Kind::CHECKPOINT => match (postcard::from_bytes::<GroupFrame<'_>>(&payload), self.service.get()) {
                (Ok(frame), Some(service)) => service.frame(&frame.group, from, frame.bytes),
                (Ok(_), None) => {}
                (Err(_), _) => tracing::warn!(%from, "a checkpoint's frame cannot be read"),
            },
            Kind::EVENT => match postcard::from_bytes(&payload) {
                Ok(event) => self.core(In::Remote { from, event: Box::new(event) }),
                Err(_) => tracing::debug!(%from, "an event cannot be read: skipped"),
            },
            Kind::FEED => match Word::read(&payload) {
                Some(word) => self.core(In::Word { from, word: Box::new(word) }),
                None => tracing::debug!(%from, "a word of a feed cannot be read: skipped"),
            },
            Kind::CURSOR => match Recorded::read(&payload) {
                Some(recorded) => self.core(In::Recorded { from, recorded }),
                None => tracing::warn!(%from, "a cursor cannot be read"),
            },
            Kind::ANSWER => match postcard::from_bytes(&payload) {
                Ok((id, result)) => self.core(In::Answered { id, result }),
                Err(_) => tracing::warn!(%from, "an answer cannot be read"),
            },
            Kind::SUBSCRIBE => match read_subscription(&payload) {
                Some((patterns, resume)) => self.core(In::Subscribed { from, interest: Interest::of(patterns), resume }),
                None => tracing::warn!(%from, "a subscription cannot be read"),
            },
            Kind::LEASE => match postcard::from_bytes(&payload) {
                Ok(told) => self.core(In::Told { from, told }),
                Err(_) => tracing::warn!(%from, "a word about roles cannot be read"),
            },
            Kind::COMMAND => match postcard::from_bytes(&payload) {
                Ok(command) => self.core(In::Forwarded { from, command }),
                Err(_) => tracing::warn!(%from, "a command cannot be read"),
            },
            _ => tracing::debug!(%from, ?kind, "nobody here takes this kind"),
        }
    }

    fn peer(&self, peer: NodeId, state: PeerState) {
        tracing::debug!(%peer, ?state, "mesh");
        self.core(In::Peer { node: peer, life: state.life });
    }

    fn liveness_key(&self, peer: NodeId, _link: LinkId, key_id: u32, key: [u8; 32]) {
        if let Some(liveness) = self.liveness.get() {
            liveness.order(Order::Key(peer, key_id, key));
        }
        if let Some(lines) = self.serial.get() {
            lines.key(peer, key_id, key);
        }
    }

    fn fault(&self, fault: Fault) {
        self.core(In::Mesh(fault)); // the mesh has logged it
    }
}

/// A node that cannot go on and has not stopped in good order by then is ended.
const STOP_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

/// What the control log says goes to everybody at once: who must be fenced first hears it first.
pub(super) struct LogPort {
    pub(super) me: NodeId,
    pub(super) life: u64,
    pub(super) roster: Roster,
    pub(super) mesh: MeshHandle,
    pub(super) liveness: Arc<Liveness>,
    pub(super) service: Service,
    pub(super) inbox: Sender<In>,
    pub(super) turns: Arc<Turns>,
    /// The services that have a gate, by their keepers' numbers.
    pub(super) numbers: BTreeMap<GroupName, u64>,
    /// Under which epoch each of them speaks here.
    pub(super) speaks: Mutex<BTreeMap<GroupName, Epoch>>,
    /// Where it is told why the node cannot go on.
    pub(super) stop: UnboundedSender<Failure>,
}

impl LogPort {
    /// A role that is gone closes its gate *before* the heartbeats say that this entry has been applied: they are what a grant
    /// of the next lease rests on (protocol 3.3).
    fn close_what_is_lost(&self, me: Option<Member>, domain: &Domain) {
        let mut speaks = self.speaks.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, number) in &self.numbers {
            let row = domain.groups.get(name).filter(|r| r.active.is_some() && r.active == me);
            let now = row.map(|r| r.epoch);
            let before = speaks.get(name).copied();
            if let Some(epoch) = before.filter(|e| Some(*e) != now) {
                let (done, _) = crossbeam::channel::bounded(1);
                self.liveness.order(Order::Close(sink(*number, epoch), done));
            }
            match now {
                Some(epoch) => speaks.insert(name.clone(), epoch),
                None => speaks.remove(name),
            };
        }
    }

    fn core(&self, input: In) {
        if self.inbox.send(input).is_err() {
            tracing::debug!("the core loop has ended");
        }
    }
}

impl Port for LogPort {
    fn send(&self, to: NodeId, frame: Vec<u8>) {
        let class = match lane(&frame) {
            Lane::Urgent | Lane::Entries => Class::Control,
            Lane::Bulk => Class::Bulk,
        };
        if let Err(error) = self.mesh.send(to, class, Kind::LOG, frame) {
            tracing::trace!(%to, %error, "a frame of the control log was not taken");
        }
    }

    fn applied(&self, index: LogIndex, proposal: Option<&Proposal>, outcome: &Result<Vec<Change>, Void>, domain: &Domain) {
        self.roster.follow(domain);
        let rows = standing(domain, self.me, self.life);
        let mine = domain.member(self.me).filter(|_| domain.nodes.get(&self.me).is_some_and(|r| r.nonce == self.life));
        self.close_what_is_lost(mine, domain);
        self.liveness.order(Order::Applied(index, rows));
        let domain = Arc::new(domain.clone());
        self.core(In::Applied { index, proposal: proposal.cloned(), outcome: outcome.clone(), domain: Arc::clone(&domain) });
        if let Some(me) = mine {
            self.service.begin_life(me);
            for (name, row) in &domain.groups {
                self.service.row(name, row.clone());
            }
        }
    }

    fn proposed(&self, ticket: u64, outcome: Result<LogIndex, ProposeError>) {
        if let Err(error) = outcome {
            self.core(In::Failed { ticket, why: error });
        }
    }

    fn leader(&self, leader: Option<NodeId>) {
        self.core(In::Leader(leader));
    }

    fn appended(&self, about: &[(NodeId, LogIndex)]) {
        for (node, index) in about {
            self.liveness.order(Order::Logged(*node, *index));
        }
    }

    fn places(&self, places: &BTreeMap<NodeId, Place>) {
        self.core(In::Places(places.clone()));
    }

    fn progress(&self) {
        self.turns.turn(Part::ControlLog);
    }

    /// Who is too old for its domain stops in good order, so that its services are handed over soon and its exit says what to do; everything else is
    /// a reason not to take another step.
    fn failed(&self, failure: &Failure) {
        if failure.is_unreadable() && self.stop.send(failure.clone()).is_ok() {
            let bound = std::thread::Builder::new().name("stop-bound".into()).spawn(|| {
                std::thread::sleep(STOP_WITHIN);
                std::process::abort();
            });
            if bound.is_ok() {
                return;
            }
        }
        tracing::error!(%failure, "the control log has failed; the node stops");
        eprintln!("nines: {failure}. The node stops, so that another can take over.");
        std::process::abort();
    }
}
