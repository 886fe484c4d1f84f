//! What two nodes say to each other, over any number of links: reliably, in order per lane, exactly once per pair of lives.
//!
//! One [`Session`] per peer, driven by the mesh's shell or by the simulator. Links are reliable streams that may die at any
//! moment with whatever they carried; nothing is assumed of their relative speed. Urgent lanes use every link at once and the
//! receiver drops duplicates; the others use the best link and move, with everything unacknowledged, when it dies, when
//! liveness calls it bad, or when it makes no progress while another one is there.
//!
//! A *life* is one process's end of the session, a number that grows: a higher one replaces a lower one, whose frames are over. A
//! live process that is told that its life is old (its clock went back, its disk is new) goes on with a higher one.
//!
//! It must never: deliver a frame of another pair of lives, deliver out of order within a lane, wait in `send`.

mod inbound;
mod limits;
mod outbound;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use bytes::{BufMut, Bytes, BytesMut};
use sixnines_core::ids::LinkId;
use sixnines_core::time::Instant;

use crate::wire::{Class, Frame, Kind, Lane, PAYLOAD_BYTES_MAX};
use inbound::{Arrival, Inbound};
pub use limits::Limits;
use outbound::Outbound;

/// What can happen to a session.
#[derive(Debug)]
pub enum Input {
    /// A connection is up: both ends have said `Hello`, with these lives. Replaces an earlier one on the same link.
    LinkUp {
        /// Which.
        link: LinkId,
        /// The life that our `Hello` named.
        own_life: u64,
        /// The life that theirs named.
        peer_life: u64,
    },
    /// The connection is gone, with whatever it carried.
    LinkDown {
        /// Which.
        link: LinkId,
    },
    /// Liveness says whether the link carries anything; the connection itself is untouched.
    LinkHint {
        /// Which.
        link: LinkId,
        /// False: choose another one if there is one.
        good: bool,
    },
    /// A frame arrived. What is in it is not trusted.
    Frame {
        /// On which link.
        link: LinkId,
        /// The frame.
        frame: Frame,
    },
    /// The deadline given by [`Session::poll_timeout`] has passed.
    Timeout,
}

/// What a session asks of its owner, to be carried out in the order given.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Output {
    /// Put the frame on the link's stream for this lane.
    Transmit {
        /// On which link.
        link: LinkId,
        /// On which of its streams: an acknowledgement travels with the frame that follows it.
        lane: Lane,
        /// The frame.
        frame: Frame,
    },
    /// Hand the payload up: the next one of its lane.
    Deliver {
        /// How urgent.
        class: Class,
        /// What it is.
        kind: Kind,
        /// The bytes.
        payload: Bytes,
    },
    /// The peer has a new life, or is heard for the first time. What was sent to the old one and not acknowledged is dropped; upper
    /// layers resynchronise. What was sent before the first contact is kept.
    PeerLife {
        /// The peer's life.
        life: u64,
    },
    /// These links are up now.
    LinkState {
        /// In order.
        links: Vec<LinkId>,
    },
    /// The connection belongs to a life that is over: close it.
    Close {
        /// Which.
        link: LinkId,
    },
}

/// Why a frame was not taken. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The peer has not acknowledged as much as the lane may hold. Try again later, or tell whoever waits.
    #[error("the peer is behind by the whole window of this class")]
    Full,
    /// Longer than [`PAYLOAD_BYTES_MAX`]; or one of the mesh's own kinds. The caller's mistake.
    #[error("a payload is at most {PAYLOAD_BYTES_MAX} bytes, of a kind from 16 up")]
    NotSendable,
}

/// A frame that a correct peer does not send. The connection that brought it is to be closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerFault {
    /// It acknowledges what was never sent.
    #[error("{lane:?} {sequence} acknowledged, which was never sent")]
    AckAhead {
        /// The lane.
        lane: Lane,
        /// What it named.
        sequence: u64,
    },
    /// An acknowledgement that is no list of lanes and numbers.
    #[error("an acknowledgement of {0} bytes is not readable")]
    BadAck(usize),
    /// A numbered kind without a number.
    #[error("{0:?} without a number")]
    Unnumbered(Kind),
}

/// How often something worth knowing happened. They only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames handed up.
    pub delivered: u64,
    /// Frames that came again; expected with two links.
    pub duplicates: u64,
    /// Frames of kinds that this build does not know, skipped.
    pub unknown_kinds: u64,
    /// Frames that came on a link that is not up, or out of place.
    pub stray: u64,
    /// Frames beyond the window, dropped.
    pub too_far_ahead: u64,
    /// Telemetry that was overtaken by newer telemetry.
    pub coalesced: u64,
    /// Frames that a life that is over did not acknowledge.
    pub lost_with_life: u64,
    /// Lanes that moved to another link.
    pub moves: u64,
    /// Frames put on a link again.
    pub repeats: u64,
}

/// One node's end of the talk with one peer.
#[derive(Debug)]
pub struct Session {
    limits: Limits,
    own_life: u64,
    /// The highest life of the peer that was ever seen; 0 before the first contact.
    peer_life: u64,
    /// Whether numbers are agreed on with `peer_life`.
    in_touch: bool,
    /// Up, and whether liveness thinks well of it.
    links: BTreeMap<LinkId, bool>,
    outbound: [Outbound; Lane::COUNT],
    inbound: [Inbound; Lane::COUNT],
    ack_at: Option<Instant>,
    outputs: VecDeque<Output>,
    counters: Counters,
}

impl Session {
    /// A session that has heard nothing. `own_life` is above that of every earlier process of this node, as far as it knows.
    pub fn new(own_life: u64, limits: Limits) -> Self {
        Self {
            own_life,
            peer_life: 0,
            in_touch: false,
            links: BTreeMap::new(),
            outbound: Lane::ALL.map(|lane| Outbound::new(lane, &limits)),
            inbound: Lane::ALL.map(Inbound::new),
            ack_at: None,
            outputs: VecDeque::new(),
            counters: Counters::default(),
            limits,
        }
    }

    /// The life for our next `Hello`.
    pub fn own_life(&self) -> u64 {
        self.own_life
    }

    /// The highest life of the peer so far; a `Hello` with a lower one is to be refused. 0 before the first contact.
    pub fn peer_life(&self) -> u64 {
        self.peer_life
    }

    /// The links that are up.
    pub fn links(&self) -> impl Iterator<Item = LinkId> {
        self.links.keys().copied()
    }

    /// Whether a link is up and liveness thinks well of it.
    pub fn is_good(&self, link: LinkId) -> bool {
        self.links.get(&link) == Some(&true)
    }

    /// How often things happened.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether everything sent has been acknowledged.
    pub fn is_settled(&self) -> bool {
        self.outbound.iter().all(Outbound::is_settled)
    }

    /// Whether a payload of `len` bytes would be taken.
    pub fn has_room(&self, lane: Lane, len: usize) -> bool {
        lane == Lane::Telemetry || self.outbound[lane.index()].has_room(len, &self.limits)
    }

    /// The peer refused our life as old: go on with one above `known`. All links are given up.
    pub fn raise_life(&mut self, known: u64) {
        if known < self.own_life {
            return;
        }
        self.own_life = known + 1;
        self.in_touch = false;
        if !self.links.is_empty() {
            self.drop_links();
            self.outputs.push_back(Output::LinkState { links: Vec::new() });
        }
        for lane in &mut self.outbound {
            lane.renumber();
        }
        self.inbound = Lane::ALL.map(Inbound::new);
    }

    /// Takes a payload for the peer. It is numbered, kept until it is acknowledged, and sent at once if a link is up.
    ///
    /// # Errors
    /// [`SendError`]; nothing has changed.
    pub fn send(&mut self, now: Instant, class: Class, kind: Kind, payload: Bytes) -> Result<(), SendError> {
        if payload.len() > PAYLOAD_BYTES_MAX || kind.is_internal() {
            return Err(SendError::NotSendable);
        }
        let lane = Lane::of(class, kind);
        let outbound = &mut self.outbound[lane.index()];
        if outbound.has_room(payload.len(), &self.limits) {
            let frame = outbound.push(now, kind, payload);
            self.transmit(lane, frame);
            return Ok(());
        }
        if lane != Lane::Telemetry {
            return Err(SendError::Full);
        }
        self.counters.coalesced += outbound.wait(kind, payload, &self.limits);
        Ok(())
    }

    /// Takes one input.
    ///
    /// # Errors
    /// [`PeerFault`] if the frame is one that no correct peer sends; nothing has changed.
    pub fn handle(&mut self, now: Instant, input: Input) -> Result<(), PeerFault> {
        match input {
            Input::LinkUp { link, own_life, peer_life } => self.on_link_up(now, link, own_life, peer_life),
            Input::LinkDown { link } => self.on_link_down(link),
            Input::LinkHint { link, good } => self.on_hint(link, good),
            Input::Frame { link, frame } => return self.on_frame(now, link, frame),
            Input::Timeout => self.on_timeout(now),
        }
        Ok(())
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.links.is_empty() {
            return None;
        }
        let stalls = self.outbound.iter().filter_map(Outbound::stalls_at);
        stalls.chain(self.ack_at).min()
    }

    fn on_link_up(&mut self, now: Instant, link: LinkId, own_life: u64, peer_life: u64) {
        if own_life != self.own_life || peer_life < self.peer_life {
            self.outputs.push_back(Output::Close { link });
            return;
        }
        if self.links.remove(&link).is_some() {
            self.leave(link);
        }
        if peer_life > self.peer_life || !self.in_touch {
            self.meet(peer_life);
        }
        self.links.insert(link, true);
        self.outputs.push_back(Output::LinkState { links: self.links().collect() });
        for inbound in &mut self.inbound {
            inbound.tell_again();
        }
        self.acknowledge(&[link], Lane::Control);
        for lane in Lane::ALL {
            self.outbound[lane.index()].take_heart(now, &self.limits);
            if lane.on_all_links() {
                self.repeat_all(lane, link);
            } else if self.outbound[lane.index()].link.is_none() {
                self.outbound[lane.index()].link = Some(link);
                self.repeat_all(lane, link);
            }
        }
    }

    /// First contact, or a new life: numbers begin at 1 in both directions.
    fn meet(&mut self, peer_life: u64) {
        if self.peer_life != 0 && peer_life != self.peer_life {
            self.drop_links();
            for lane in &mut self.outbound {
                self.counters.lost_with_life += lane.forget(&self.limits);
            }
        }
        self.inbound = Lane::ALL.map(Inbound::new);
        self.ack_at = None;
        self.peer_life = peer_life;
        self.in_touch = true;
        self.outputs.push_back(Output::PeerLife { life: peer_life });
    }

    fn on_link_down(&mut self, link: LinkId) {
        if self.links.remove(&link).is_none() {
            return;
        }
        self.outputs.push_back(Output::LinkState { links: self.links().collect() });
        self.leave(link);
        // The last acknowledgements may have gone down with it.
        for inbound in &mut self.inbound {
            inbound.tell_again();
        }
        let links: Vec<_> = self.links().collect();
        self.acknowledge(&links, Lane::Control);
    }

    fn on_hint(&mut self, link: LinkId, good: bool) {
        let Some(state) = self.links.get_mut(&link) else { return };
        if *state == good {
            return;
        }
        *state = good;
        for lane in Lane::ALL.into_iter().filter(|l| !l.on_all_links()) {
            let on = self.outbound[lane.index()].link;
            let on_bad = on.and_then(|l| self.links.get(&l)) == Some(&false);
            if on_bad && let Some(better) = self.good_link_but(on) {
                self.move_lane(lane, better);
            }
        }
    }

    fn on_frame(&mut self, now: Instant, link: LinkId, frame: Frame) -> Result<(), PeerFault> {
        if !self.links.contains_key(&link) {
            self.counters.stray += 1;
            return Ok(());
        }
        if frame.kind == Kind::ACK {
            return self.on_ack(now, &frame.payload);
        }
        if frame.sequence == 0 {
            if frame.kind.is_internal() {
                self.counters.stray += 1;
                return Ok(());
            }
            return Err(PeerFault::Unnumbered(frame.kind));
        }
        let lane = frame.lane();
        let inbound = &mut self.inbound[lane.index()];
        match inbound.arrive(frame, &self.limits) {
            Arrival::Next(frame) => {
                let mut next = Some(frame);
                while let Some(frame) = next {
                    self.deliver(frame);
                    next = self.inbound[lane.index()].follow();
                }
            }
            Arrival::Early => {}
            Arrival::Duplicate => self.counters.duplicates += 1,
            Arrival::TooFarAhead => self.counters.too_far_ahead += 1,
        }
        self.owe(now, lane);
        Ok(())
    }

    fn deliver(&mut self, frame: Frame) {
        if !frame.kind.is_known() || frame.kind.is_internal() {
            self.counters.unknown_kinds += 1;
            return;
        }
        self.counters.delivered += 1;
        self.outputs.push_back(Output::Deliver { class: frame.class, kind: frame.kind, payload: frame.payload });
    }

    fn owe(&mut self, now: Instant, lane: Lane) {
        let inbound = &self.inbound[lane.index()];
        if inbound.owes_now(&self.limits) {
            let links: Vec<_> = self.links().collect();
            self.acknowledge(&links, Lane::Control);
        } else if inbound.owes() {
            // Who repeats what it was told of is waiting for the word, whatever its lane.
            let delay = if inbound.repeats() { self.limits.ack_delay(Lane::Control) } else { self.limits.ack_delay(lane) };
            let at = now + delay;
            self.ack_at = Some(self.ack_at.map_or(at, |due| due.min(at)));
        }
    }

    fn on_ack(&mut self, now: Instant, payload: &[u8]) -> Result<(), PeerFault> {
        let words = payload.chunks_exact(ACK_WORD_BYTES);
        if !words.remainder().is_empty() {
            return Err(PeerFault::BadAck(payload.len()));
        }
        for word in words {
            let (lane, sequence) = read_ack(word).ok_or(PeerFault::BadAck(payload.len()))?;
            if !self.outbound[lane.index()].acknowledge(now, sequence, &self.limits) {
                return Err(PeerFault::AckAhead { lane, sequence });
            }
        }
        while let Some(frame) = self.outbound[Lane::Telemetry.index()].promote(now, &self.limits) {
            self.transmit(Lane::Telemetry, frame);
        }
        Ok(())
    }

    fn on_timeout(&mut self, now: Instant) {
        if self.ack_at.is_some_and(|at| at <= now) {
            let links: Vec<_> = self.links().collect();
            self.acknowledge(&links, Lane::Control);
        }
        for lane in Lane::ALL {
            if self.outbound[lane.index()].stalls_at().is_some_and(|at| at <= now) {
                self.on_stall(now, lane);
            }
        }
    }

    /// No progress: another link if there is one, else the oldest frame again, in case the peer's word was lost.
    fn on_stall(&mut self, now: Instant, lane: Lane) {
        self.outbound[lane.index()].be_patient(now, &self.limits);
        let on = self.outbound[lane.index()].link;
        if !lane.on_all_links() && let Some(other) = self.good_link_but(on) {
            self.move_lane(lane, other);
            return;
        }
        let oldest = self.outbound[lane.index()].unacknowledged().next();
        if let Some(oldest) = oldest {
            self.counters.repeats += 1;
            self.transmit(lane, oldest);
        }
    }

    /// Takes the lanes off a link that is gone.
    fn leave(&mut self, gone: LinkId) {
        for lane in Lane::ALL.into_iter().filter(|l| !l.on_all_links()) {
            if self.outbound[lane.index()].link == Some(gone) {
                self.outbound[lane.index()].link = None;
                if let Some(other) = self.best_link() {
                    self.move_lane(lane, other);
                }
            }
        }
    }

    fn move_lane(&mut self, lane: Lane, to: LinkId) {
        self.counters.moves += 1;
        self.outbound[lane.index()].link = Some(to);
        self.repeat_all(lane, to);
    }

    fn repeat_all(&mut self, lane: Lane, link: LinkId) {
        for frame in self.outbound[lane.index()].unacknowledged() {
            self.counters.repeats += 1;
            self.outputs.push_back(Output::Transmit { link, lane, frame });
        }
    }

    fn best_link(&self) -> Option<LinkId> {
        self.good_link_but(None).or_else(|| self.links.keys().next().copied())
    }

    fn good_link_but(&self, not: Option<LinkId>) -> Option<LinkId> {
        self.links.iter().find(|(link, good)| **good && Some(**link) != not).map(|(link, _)| *link)
    }

    fn drop_links(&mut self) {
        for link in std::mem::take(&mut self.links).into_keys() {
            self.outputs.push_back(Output::Close { link });
        }
        for lane in &mut self.outbound {
            lane.link = None;
        }
    }

    /// Sends a frame that has its number, with whatever the peer is owed in front of it.
    fn transmit(&mut self, lane: Lane, frame: Frame) {
        if self.links.is_empty() {
            return; // It stays in the window; a link that comes up takes all of that.
        }
        if lane.on_all_links() {
            let links: Vec<_> = self.links().collect();
            self.acknowledge(&links, lane);
            for link in links {
                self.outputs.push_back(Output::Transmit { link, lane, frame: frame.clone() });
            }
            return;
        }
        let link = self.outbound[lane.index()].link.expect("a lane has a link while one is up");
        self.acknowledge(&[link], lane);
        self.outputs.push_back(Output::Transmit { link, lane, frame });
    }

    /// Tells the peer on these links what has arrived, if it has not been told.
    fn acknowledge(&mut self, links: &[LinkId], lane: Lane) {
        if links.is_empty() || !self.inbound.iter().any(Inbound::owes) {
            return;
        }
        self.ack_at = None;
        let mut words = BytesMut::with_capacity(ACK_WORD_BYTES * Lane::COUNT);
        for (of, inbound) in Lane::ALL.into_iter().zip(&mut self.inbound) {
            if inbound.owes() {
                words.put_u8(of as u8);
                words.put_u64_le(inbound.tell());
            }
        }
        let frame = Frame { class: lane.class(), kind: Kind::ACK, sequence: 0, payload: words.freeze() };
        for link in links {
            self.outputs.push_back(Output::Transmit { link: *link, lane, frame: frame.clone() });
        }
    }
}

/// One lane in an acknowledgement: its number, then the last sequence that was delivered, little endian.
const ACK_WORD_BYTES: usize = 9;

fn read_ack(word: &[u8]) -> Option<(Lane, u64)> {
    let (lane, sequence) = word.split_first()?;
    let lane = Lane::ALL.get(usize::from(*lane)).copied()?;
    Some((lane, u64::from_le_bytes(sequence.try_into().ok()?)))
}
