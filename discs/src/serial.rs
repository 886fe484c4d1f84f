//! A serial line between two nodes: evidence for the operator, and an active's own last word, when every fabric between them is cut.
//!
//! Driven by a thread per line. Bytes, keys, what there is to say, and the clock go in; frames to write, and what the line says, come out.
//! It must never extend a lease, form or delay a verdict, or carry what the control log or the feeds carry (protocol 5.2): nothing
//! of it goes to [`crate::liveness`]. There is at most one frame on its way, made when the line is free, so the newest state is what is said.

pub mod frame;
pub mod seal;
#[cfg(feature = "shell")]
pub mod shell;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use sixnines_core::ids::{Epoch, GroupName, NodeId};
use sixnines_core::roles::Told;
use sixnines_core::time::{Duration, Instant};

use crate::liveness::seal::KEY_LENGTH;
use frame::{FRAME_MAX, Reader, STUFFED_MAX, stuff};
use seal::{OVERHEAD, Seals};

/// What a node says over a line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Drawn anew for each start of the sender's process.
    pub life: u64,
    /// It hears the receiver on this line.
    pub hears_line: bool,
    /// The fabric links on which it hears the receiver, as bits.
    pub hears_links: u32,
    /// Its lease is over: it says nothing to clients.
    pub is_suspended: bool,
    /// Where it is the active, and under which epochs; as many as fit.
    pub active: Vec<(GroupName, Epoch)>,
    /// [`Told::Relinquished`] that stand; as many as fit.
    pub words: Vec<Told>,
}

/// How a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its device cannot be opened, or has gone.
    Closed,
    /// Nothing of the peer arrives.
    Silent,
    /// The peer is heard and does not hear this node.
    Deaf,
    /// Both hear each other.
    Up,
}

impl State {
    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Silent => "silent",
            Self::Deaf => "one-way",
            Self::Up => "up",
        }
    }

    /// Whether the peer is known to live.
    pub fn is_heard(self) -> bool {
        matches!(self, Self::Deaf | Self::Up)
    }
}

/// What goes in.
#[derive(Debug)]
pub enum Input<'a> {
    /// The device was opened, or has gone.
    Device(bool),
    /// What came over the line; nothing of it is trusted.
    Bytes(&'a [u8]),
    /// The last frame has left this node entirely.
    Written,
    /// A session with the peer has a new key.
    Key(u32, [u8; KEY_LENGTH]),
    /// The peer does not belong here any more.
    Forget,
    /// On this fabric link the peer is heard, or not.
    Link(u8, bool),
    /// Under this epoch this node is the active of a group, or is not any more.
    Active(GroupName, Option<Epoch>),
    /// The lease is over, or runs.
    Suspended(bool),
    /// A word for the peer; all but [`Told::Relinquished`] is left out.
    Tell(&'a Told),
    /// The instant of [`Line::poll_timeout`] has come.
    Timeout,
}

/// What comes out.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub enum Output {
    /// Write this; answered by [`Input::Written`].
    Write(Vec<u8>),
    /// How the line is now, and what the peer has said last if it is heard.
    State {
        /// How it is.
        state: State,
        /// What was said.
        beat: Option<Beat>,
        /// It was said after the last fabric link had been lost: whoever spoke outlived that. A beat from before proves nothing.
        outlives: bool,
    },
    /// The peer's own word.
    Told(Told),
}

/// One end of a line.
pub struct Line {
    seals: Seals,
    reader: Reader,
    baud: u32,
    is_open: bool,
    /// A frame is on its way out.
    is_writing: bool,
    next_beat: Instant,
    heard: Option<(Instant, Beat)>,
    /// Since when no fabric link has carried anything of the peer; `None`: one does, or none ever did.
    lost: Option<Instant>,
    told: Option<(State, Option<Beat>, bool)>,
    mine: Beat,
    words: BTreeMap<GroupName, (Told, Instant)>,
    rejected: u64,
    outputs: VecDeque<Output>,
}

impl Line {
    /// A line whose device is not open yet. `baud`: bits a second, with ten for a byte.
    pub fn new(now: Instant, me: NodeId, peer: NodeId, life: u64, baud: u32) -> Self {
        Self {
            seals: Seals::new(me, peer),
            reader: Reader::default(),
            baud,
            is_open: false,
            is_writing: false,
            next_beat: now,
            heard: None,
            lost: None,
            told: None,
            mine: Beat { life, ..Beat::default() },
            words: BTreeMap::new(),
            rejected: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Device(is_open) => self.on_device(is_open),
            Input::Bytes(bytes) => bytes.iter().for_each(|byte| self.on_byte(now, *byte)),
            Input::Written => self.is_writing = false,
            Input::Key(id, key) => self.seals.add_key(id, &key),
            Input::Forget => {
                self.seals.forget();
                self.heard = None;
            }
            Input::Link(link, is_up) => self.on_link(now, link, is_up),
            Input::Active(group, epoch) => {
                self.mine.active.retain(|(name, _)| *name != group);
                self.mine.active.extend(epoch.map(|epoch| (group, epoch)));
            }
            Input::Suspended(is_suspended) => self.mine.is_suspended = is_suspended,
            Input::Tell(told) => self.on_tell(now, told),
            Input::Timeout => {}
        }
        self.speak(now);
        self.tell_state(now);
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let beat = (self.is_open && !self.is_writing).then_some(self.next_beat);
        let silence = self.heard.as_ref().map(|(at, _)| *at + window(self.baud));
        beat.into_iter().chain(silence).min()
    }

    /// Frames that were not the peer's.
    pub fn rejected(&self) -> u64 {
        self.rejected
    }

    fn on_device(&mut self, is_open: bool) {
        self.is_open = is_open;
        self.is_writing = false;
        self.reader = Reader::default();
        if !is_open {
            self.heard = None;
        }
    }

    fn on_byte(&mut self, now: Instant, byte: u8) {
        let Some(frame) = self.reader.take(byte) else { return };
        let Some(beat) = self.seals.open(&frame).and_then(|plain| postcard::from_bytes::<Beat>(&plain).ok()) else {
            self.rejected += 1;
            return;
        };
        for told in beat.words.iter().filter(|told| matches!(told, Told::Relinquished { .. })) {
            self.outputs.push_back(Output::Told(told.clone())); // the role machine takes each once
        }
        self.heard = Some((now, beat));
    }

    fn on_link(&mut self, now: Instant, link: u8, is_up: bool) {
        let bit = 1u32.checked_shl(link.into()).unwrap_or(0);
        self.mine.hears_links = if is_up { self.mine.hears_links | bit } else { self.mine.hears_links & !bit };
        self.lost = (self.mine.hears_links == 0).then(|| self.lost.unwrap_or(now));
        self.speak_soon(now);
    }

    /// As soon as the line has surely carried the last frame.
    fn speak_soon(&mut self, now: Instant) {
        self.next_beat = self.next_beat.min(now + wire_time(self.baud));
    }

    fn on_tell(&mut self, now: Instant, told: &Told) {
        let Told::Relinquished { group, .. } = told else { return };
        let is_new = self.words.insert(group.clone(), (told.clone(), now + STANDS)).is_none_or(|(before, _)| before != *told);
        if is_new {
            self.speak_soon(now);
        }
    }

    fn speak(&mut self, now: Instant) {
        self.words.retain(|_, (_, until)| now < *until);
        if !self.is_open || self.is_writing || now < self.next_beat {
            return;
        }
        self.next_beat = now + interval(self.baud);
        self.mine.hears_line = self.is_heard(now);
        let beat = Beat { words: self.words.values().map(|(told, _)| told.clone()).collect(), ..self.mine.clone() };
        let Some(frame) = self.seals.seal(&encode(beat)) else { return };
        let mut bytes = vec![0]; // ends whatever a peer may have taken for the beginning of a frame
        stuff(&frame, &mut bytes);
        self.is_writing = true;
        self.outputs.push_back(Output::Write(bytes));
    }

    fn is_heard(&self, now: Instant) -> bool {
        self.heard.as_ref().is_some_and(|(at, _)| now < *at + window(self.baud))
    }

    fn tell_state(&mut self, now: Instant) {
        if !self.is_heard(now) {
            self.heard = None;
        }
        let state = match &self.heard {
            _ if !self.is_open => State::Closed,
            None => State::Silent,
            Some((_, beat)) if beat.hears_line => State::Up,
            Some(_) => State::Deaf,
        };
        // What left a peer in its last moment is still on its way for one frame's time.
        let outlives = self.heard.as_ref().zip(self.lost).is_some_and(|((at, _), lost)| *at > lost + wire_time(self.baud));
        let beat = self.heard.as_ref().map(|(_, beat)| beat.clone());
        let news = (state, beat.clone(), outlives);
        if self.told.as_ref() != Some(&news) {
            self.told = Some(news);
            self.outputs.push_back(Output::State { state, beat, outlives });
        }
    }
}

/// The bytes of a beat; what has no room is left out, roles before words.
fn encode(mut beat: Beat) -> Vec<u8> {
    loop {
        let bytes = postcard::to_allocvec(&beat).expect("plain data");
        if bytes.len() + OVERHEAD <= FRAME_MAX {
            return bytes;
        }
        if beat.active.pop().is_none() && beat.words.pop().is_none() {
            unreachable!("a beat without lists is short");
        }
    }
}

/// How long the longest frame is on the line.
pub fn wire_time(baud: u32) -> Duration {
    Duration::from_micros((STUFFED_MAX as u64 + 1) * 10 * 1_000_000 / u64::from(baud.max(1)))
}

/// From one beat to the next: a line is at most half busy.
pub fn interval(baud: u32) -> Duration {
    (wire_time(baud) * 2).max(Duration::from_millis(250))
}

/// After so long without a frame a peer is not heard.
pub fn window(baud: u32) -> Duration {
    interval(baud) * 4
}

/// A word is repeated for so long after it was last given; whoever gives it says so again as long as it counts.
const STANDS: Duration = Duration::from_secs(30);
