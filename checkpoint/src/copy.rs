//! [`GroupCopy`]: the state of one group in the memory of one node, in one of its lives.
//!
//! It is always either the active's copy or a replica, and a change of role changes nothing in its memory (protocol 2.6). Its
//! driver feeds it the group's row of the control log, frames of the other copies, what the application writes and asks, and time;
//! it carries out the outputs in the order given. A copy belongs to one life of a node: a restart is a new, empty copy with
//! a new [`Member`], and nothing is fed to it before its `Joined` entry has been applied (protocol 1.3).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sixnines_core::domain::GroupRow;
use sixnines_core::ids::{Epoch, Generation, Member, NodeId, Sequence, Version};
use sixnines_core::roles::Offer;
use sixnines_core::time::Instant;

use crate::bytes::Bytes;
use crate::config::{CopyConfig, Fault};
use crate::outcome::{Answer, Cursor, Level, Outcome, Refusal};
use crate::primary::Primary;
use crate::replica::Replica;
use crate::state::{Op, RequestId, Section, State};
use crate::store::{Record, Run, Store};
use crate::wire::{Body, Frame, PeerFault, Report};

mod follow;
#[cfg(test)]
mod tests;

/// Names a write or a read to its asker. Drawn by the driver, never used twice in one life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A batch of changes, applied as a whole.
#[derive(Clone, Debug)]
pub struct Write {
    /// For the outcome.
    pub ticket: Ticket,
    /// The epoch in which the writer was told to be active.
    pub epoch: Epoch,
    /// So that a repeat is applied once.
    pub request: Option<RequestId>,
    /// None at all makes a barrier: acknowledged when every copy holds everything so far and the lease is valid.
    pub ops: Vec<Op>,
    /// When it counts as done.
    pub level: Level,
}

/// A question for one section.
#[derive(Clone, Debug)]
pub struct Read {
    /// For the answer.
    pub ticket: Ticket,
    /// The epoch in which the asker was told to be active.
    pub epoch: Epoch,
    /// Which section.
    pub key: Bytes,
}

/// What can happen to a copy.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// The group's row, as this node has applied it.
    Row(&'a GroupRow),
    /// A frame came from another node's copy. Its bytes are not trusted; which node sent it is. Its lives stand in the frame.
    Frame {
        /// The node at the connection's other end.
        from: NodeId,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// The application changes sections.
    Write(Write),
    /// The application, or a client, asks for a section as of now.
    Read(Read),
    /// This member can be reached: what waited for it is sent again at once.
    Reachable(Member),
    /// This member is dead, mute or unreachable: whoever waits for it need not wait out its patience.
    Unreachable(Member),
    /// The nodes that shall hold the other copies, the best first; empty: any. An active lists no others if these can be had.
    Prefer(Vec<NodeId>),
    /// Whether this node's lease is valid. Nothing is acknowledged while it is not.
    Lease(bool),
    /// Hand over to this member: stop taking writes, wait until it has everything.
    Quiesce(Member),
    /// Never mind, take writes again. Only as long as nothing has been proposed on the strength of [`Output::Quiesced`]:
    /// after that, only a later row settles it (protocol 1.6).
    Unquiesce,
    /// The application is there and has nothing: it needs the whole image.
    Attach,
    /// The application is gone.
    Detach,
    /// The deadline given by [`GroupCopy::poll_timeout`] has passed.
    Timeout,
}

/// What a copy asks of its driver, to be carried out in the order given.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub enum Output {
    /// Send this to another copy of the group. It may get lost.
    Send {
        /// To whom.
        to: Member,
        /// What.
        bytes: Vec<u8>,
    },
    /// A write's outcome.
    Acknowledged {
        /// Which write.
        ticket: Ticket,
        /// What became of it.
        outcome: Outcome,
    },
    /// A read's answer.
    Answered {
        /// Which read.
        ticket: Ticket,
        /// What is known.
        answer: Answer,
    },
    /// Propose `Entry::Sync` with this version and set. However that ends, only a later row settles it.
    Propose {
        /// The row's version that it is made for.
        version: Version,
        /// The new in-sync set.
        in_sync: BTreeSet<Member>,
    },
    /// The role changed.
    Role(Role),
    /// The target has everything and this copy takes no writes: the role can be relinquished and handed over.
    /// So it stays until a later row.
    Quiesced {
        /// The one to be promoted.
        target: Member,
        /// What it has.
        cursor: Cursor,
    },
    /// The target left the set before it had everything; writes are taken again.
    QuiesceFailed {
        /// The one that was to be promoted.
        target: Member,
    },
    /// For the application's own memory.
    Follow(Follow),
    /// So many acknowledged writes would be lost if this node died now. Told when it leaves zero and when it returns.
    LossWindow(u64),
}

/// What a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It takes writes.
    Active {
        /// Under this epoch.
        epoch: Epoch,
        /// The state was declared lost, and this is an empty one (protocol 1.7).
        lost: bool,
    },
    /// It takes in what the active writes. An active that becomes a standby keeps everything it has.
    Standby {
        /// The highest epoch that it knows.
        epoch: Epoch,
    },
}

/// A change for the application's memory, in order; on a standby, only what the whole set holds (protocol 2.7).
#[derive(Clone, Debug, PartialEq)]
pub enum Follow {
    /// Everything: it replaces what the application has.
    Image {
        /// As of this write.
        cursor: Cursor,
        /// The sections.
        sections: Vec<(Bytes, Section)>,
    },
    /// One batch.
    Record(std::sync::Arc<Record>),
}

/// A copy as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it is.
    pub role: Role,
    /// Its newest record.
    pub head: Cursor,
    /// Known to be held by the whole set.
    pub held: Sequence,
    /// Whether it follows the present active without a gap; true for the active itself.
    pub aligned: bool,
    /// Sections and their bytes.
    pub sections: usize,
    /// Bytes of sections and keys.
    pub bytes: usize,
    /// Acknowledged writes that would be lost with this node.
    pub loss_window: u64,
    /// The other copies, as the active sees them; empty on a replica.
    pub peers: Vec<StatusPeer>,
}

/// Another copy, as the active sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusPeer {
    /// Whose.
    pub member: Member,
    /// Whether the committed set names it.
    pub in_sync: bool,
    /// Records that it lacks; `None` while that is not known.
    pub behind: Option<u64>,
    /// Bytes of them.
    pub behind_bytes: u64,
    /// Chunks of a transfer taken so far.
    pub transfer: Option<u32>,
}

/// See the module.
#[derive(Debug)]
pub struct GroupCopy {
    shared: Shared,
    side: Side,
    /// Who wants to follow under which epoch, and how far its records go: said to this copy before its own row says that it is active.
    early: BTreeMap<NodeId, (Epoch, Member, Generation, Vec<Run>)>,
}

/// What both sides work on.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) me: Member,
    pub(crate) config: CopyConfig,
    pub(crate) now: Instant,
    pub(crate) store: Store,
    pub(crate) row: GroupRow,
    /// The highest epoch seen, in the log or in a message. Never goes back.
    pub(crate) seen: Epoch,
    pub(crate) lease: bool,
    pub(crate) preferred: Vec<NodeId>,
    pub(crate) was_complete: bool,
    /// An offer was made: nothing up to this epoch is taken any more.
    fenced_by_offer: Option<Epoch>,
    follower: follow::Follower,
    pub(crate) out: VecDeque<Output>,
}

#[derive(Debug)]
enum Side {
    Active(Box<Primary>),
    Replica(Box<Replica>),
}

impl GroupCopy {
    /// An empty copy of the life `me`.
    pub fn new(me: Member, config: CopyConfig) -> Self {
        let shared = Shared {
            me,
            config,
            now: Instant::ZERO,
            store: Store::default(),
            row: GroupRow::default(),
            seen: Epoch(0),
            lease: false,
            preferred: Vec::new(),
            was_complete: false,
            fenced_by_offer: None,
            follower: follow::Follower::default(),
            out: VecDeque::new(),
        };
        Self { shared, side: Side::Replica(Box::new(Replica::new(Epoch(0), None))), early: BTreeMap::new() }
    }

    /// Takes one input.
    ///
    /// # Errors
    /// [`PeerFault`] for a frame that cannot be meant; it changed nothing. Other inputs never fail.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) -> Result<(), PeerFault> {
        self.shared.now = now;
        match input {
            Input::Row(row) => self.on_row(row),
            Input::Frame { from, bytes } => return self.on_frame(from, bytes),
            Input::Write(write) => self.on_write(write),
            Input::Read(read) => self.on_read(read),
            Input::Reachable(member) => self.on_reach(member, true),
            Input::Unreachable(member) => self.on_reach(member, false),
            Input::Prefer(nodes) => self.on_prefer(nodes),
            Input::Lease(valid) => self.on_lease(valid),
            Input::Quiesce(target) => self.with_primary(|p, s| p.quiesce(s, target)),
            Input::Unquiesce => self.with_primary(Primary::unquiesce),
            Input::Attach => self.on_attach(),
            Input::Detach => self.shared.follower.detach(),
            Input::Timeout => self.with_primary(Primary::timeout), // A replica looks at the time when it is polled.
        }
        Ok(())
    }

    /// What to do next, if anything. Frames are made here, so that all writes taken in before share them.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.shared.out.is_empty() {
            match &mut self.side {
                Side::Active(primary) => primary.pump(&mut self.shared),
                Side::Replica(replica) => {
                    replica.pump(&mut self.shared);
                    self.shared.follow_held();
                }
            }
        }
        self.shared.out.pop_front()
    }

    /// When [`Input::Timeout`] is due, if nothing else happens before. Ask after the outputs have been taken.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.side {
            Side::Active(primary) => primary.poll_timeout(&self.shared),
            Side::Replica(replica) => replica.poll_timeout(),
        }
    }

    /// Puts this copy forward for a start from nothing, in place of the row of that version, and fences it: it takes nothing of the
    /// present epoch any more. An active makes no offer, nor does a copy that knows a newer row: the start was made, and who fenced
    /// himself against its epoch would follow nobody.
    pub fn offer(&mut self, version: Version) -> Option<Offer> {
        if matches!(self.side, Side::Active(_)) || self.shared.row.version > version {
            return None;
        }
        self.shared.fenced_by_offer = Some(self.shared.seen);
        let Cursor { epoch, sequence } = self.shared.store.head();
        Some(Offer { complete: self.shared.was_complete, epoch, sequence: sequence.0, member: self.shared.me })
    }

    /// Whose copy this is.
    pub fn member(&self) -> Member {
        self.shared.me
    }

    /// What this copy is.
    pub fn role(&self) -> Role {
        match &self.side {
            Side::Active(primary) => Role::Active { epoch: primary.epoch(), lost: false },
            Side::Replica(_) => Role::Standby { epoch: self.shared.seen },
        }
    }

    /// The state at this copy's head. Parts of it may yet be undone; an answer to the outside comes from [`Input::Read`].
    pub fn state(&self) -> &State {
        self.shared.store.state()
    }

    /// How this copy is doing.
    pub fn status(&self) -> Status {
        let store = &self.shared.store;
        let (aligned, loss_window, peers) = match &self.side {
            Side::Active(primary) => (true, primary.loss_window(), primary.status_peers(&self.shared)),
            Side::Replica(replica) => (replica.is_aligned(), 0, Vec::new()),
        };
        Status {
            role: self.role(),
            head: store.head(),
            held: store.held(),
            aligned,
            sections: store.state().len(),
            bytes: store.state().bytes(),
            loss_window,
            peers,
        }
    }

    /// Rule 2.4 for rows: a row of an epoch below the highest seen makes nobody active.
    fn on_row(&mut self, row: &GroupRow) {
        let shared = &mut self.shared;
        if row.version <= shared.row.version {
            return;
        }
        let was_known = shared.row.version > Version(0);
        let started_anew = was_known && row.generation > shared.row.generation;
        shared.row = row.clone();
        shared.seen = shared.seen.max(row.epoch);
        if shared.store.is_blank() {
            shared.store.adopt_generation(row.generation);
        }
        let mine = row.active == Some(shared.me) && row.epoch == shared.seen && row.epoch > Epoch(0);
        match &mut self.side {
            Side::Active(primary) if mine && primary.epoch() == row.epoch => primary.on_row(shared),
            Side::Active(_) if mine => self.become_active(started_anew),
            Side::Active(_) => self.step_down(None),
            Side::Replica(_) if mine => self.become_active(started_anew),
            Side::Replica(replica) => replica.on_row(shared),
        }
    }

    /// Rule 1.4: everything that is there stays, and is treated as possibly acknowledged. Only a start from an empty state
    /// (1.7) is another matter, and is told also to an application whose copy was empty anyway.
    fn become_active(&mut self, started_anew: bool) {
        let shared = &mut self.shared;
        if let Side::Active(primary) = &mut self.side {
            primary.stop(shared); // The epoch was raised under the same active: terms of the old one are over.
        }
        let lost = started_anew || shared.row.generation > shared.store.generation();
        if lost {
            shared.store.reset(shared.row.generation);
            shared.follower.need_image();
        }
        shared.was_complete = true;
        shared.follow_head();
        let epoch = shared.row.epoch;
        shared.out.push_back(Output::Role(Role::Active { epoch, lost }));
        let mut primary = Primary::new(epoch, shared);
        let early = std::mem::take(&mut self.early).into_values().filter(|(wanted, ..)| *wanted == epoch);
        for (_, from, generation, runs) in early {
            let outcome = primary.align(shared, from, generation, &runs);
            debug_assert!(outcome.is_ok(), "{outcome:?}: its length was looked at when it came");
        }
        self.side = Side::Active(Box::new(primary));
    }

    /// Rules 2.4 and 2.6: for good under this epoch, and nothing is thrown away.
    fn step_down(&mut self, leader: Option<Member>) {
        let shared = &mut self.shared;
        let Side::Active(primary) = &mut self.side else { return };
        primary.stop(shared);
        if shared.config.has(Fault::DemotedDiscards) {
            shared.store.reset(shared.row.generation);
            shared.was_complete = false;
        }
        shared.out.push_back(Output::Role(Role::Standby { epoch: shared.seen }));
        shared.follower.need_image(); // The application wrote more than the set may hold.
        let mut replica = Replica::new(shared.seen, leader);
        replica.on_row(shared);
        self.side = Side::Replica(Box::new(replica));
    }

    fn on_frame(&mut self, sender: NodeId, bytes: &[u8]) -> Result<(), PeerFault> {
        let frame = Frame::decode(bytes)?;
        let Frame { from, to, epoch, body } = frame;
        if from.node != sender || to.node != self.shared.me.node {
            return Err(PeerFault::Misdirected { from, to, sender });
        }
        if to != self.shared.me {
            return Ok(()); // For a former life, or for one that this copy's driver will learn of soon.
        }
        let from_active = matches!(body, Body::Aligned { .. } | Body::Records { .. } | Body::Chunk(_));
        if self.shared.fenced_by_offer.is_some_and(|fenced| epoch <= fenced) {
            return Ok(());
        }
        if epoch > self.shared.seen {
            self.see(epoch, from_active.then_some(from));
        }
        if epoch < self.shared.seen {
            if self.shared.config.has(Fault::OldEpochAccepted) && from_active {
                return self.take_old(from, epoch, body);
            }
            if from_active {
                self.shared.tell_epoch(from);
            }
            return Ok(());
        }
        match (&mut self.side, body) {
            (Side::Active(primary), Body::Align { generation, runs }) => primary.align(&mut self.shared, from, generation, &runs),
            (Side::Active(primary), Body::Report(report)) => primary.report(&mut self.shared, from, report),
            (Side::Active(_), _) => Err(PeerFault::TwoActives { from, active: self.shared.me }),
            (Side::Replica(replica), body) if from_active => replica.frame(&mut self.shared, from, body),
            // Its sender's log is ahead of ours.
            (Side::Replica(_), Body::Align { runs, .. }) if runs.len() > self.shared.config.limits.runs_max => Err(PeerFault::Limits { from }),
            (Side::Replica(_), Body::Align { generation, runs }) => {
                self.early.insert(from.node, (epoch, from, generation, runs));
                Ok(())
            }
            (Side::Replica(_), _) => Ok(()), // There is nothing to report yet.
        }
    }

    /// Rule 2.4: a higher epoch ends whatever was under a lower one.
    fn see(&mut self, epoch: Epoch, leader: Option<Member>) {
        self.shared.seen = epoch;
        match &mut self.side {
            Side::Active(_) => self.step_down(leader),
            Side::Replica(replica) => replica.follow(epoch, leader),
        }
    }

    fn on_write(&mut self, write: Write) {
        let by = self.shared.seen;
        match &mut self.side {
            Side::Active(primary) => primary.write(&mut self.shared, write),
            Side::Replica(_) => {
                let outcome = Outcome::NotApplied(Refusal::Fenced { by });
                self.shared.out.push_back(Output::Acknowledged { ticket: write.ticket, outcome });
            }
        }
    }

    fn on_read(&mut self, read: Read) {
        let by = self.shared.seen;
        match &mut self.side {
            Side::Active(primary) => primary.read(&mut self.shared, read),
            Side::Replica(_) => {
                let answer = Answer::Refused(Refusal::Fenced { by });
                self.shared.out.push_back(Output::Answered { ticket: read.ticket, answer });
            }
        }
    }

    fn on_reach(&mut self, member: Member, reachable: bool) {
        match &mut self.side {
            Side::Active(primary) => primary.reach(&mut self.shared, member, reachable),
            Side::Replica(replica) if reachable => replica.reached(&self.shared, member),
            Side::Replica(_) => {}
        }
    }

    fn on_prefer(&mut self, nodes: Vec<NodeId>) {
        self.shared.preferred = nodes;
        self.with_primary(Primary::consider_sync);
    }

    fn on_lease(&mut self, valid: bool) {
        self.shared.lease = valid;
        self.with_primary(Primary::lease_changed);
    }

    fn on_attach(&mut self) {
        self.shared.follower.attach();
        match self.side {
            Side::Active(_) => self.shared.follow_head(),
            Side::Replica(_) => self.shared.follow_held(),
        }
        let role = self.role();
        self.shared.out.push_back(Output::Role(role));
    }


    fn with_primary(&mut self, act: impl FnOnce(&mut Primary, &mut Shared)) {
        if let Side::Active(primary) = &mut self.side {
            act(primary, &mut self.shared);
        }
    }

    /// The fault [`Fault::OldEpochAccepted`]: as if the frame were of the present epoch.
    fn take_old(&mut self, from: Member, epoch: Epoch, body: Body) -> Result<(), PeerFault> {
        let Side::Replica(replica) = &mut self.side else { return Ok(()) };
        replica.take_old(&mut self.shared, from, epoch, body)
    }
}

impl Shared {
    pub(crate) fn send(&mut self, to: Member, body: Body) {
        self.send_under(self.seen, to, body);
    }

    pub(crate) fn send_under(&mut self, epoch: Epoch, to: Member, body: Body) {
        let bytes = Frame { from: self.me, to, epoch, body }.encode();
        self.out.push_back(Output::Send { to, bytes });
    }

    /// An old active learns that it is one.
    fn tell_epoch(&mut self, to: Member) {
        self.send(to, Body::Report(Report { cursor: None, held: Sequence(0), read: 0, transfer: None }));
    }
}
