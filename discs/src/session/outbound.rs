//! One lane of the sending side: what is numbered and not acknowledged, and what waits for a number.

use std::collections::VecDeque;

use bytes::Bytes;
use sixnines_core::ids::LinkId;
use sixnines_core::time::{Duration, Instant};

use super::Limits;
use crate::wire::{Frame, HEADER_BYTES, Kind, Lane};

#[derive(Debug)]
pub(super) struct Outbound {
    lane: Lane,
    /// The number that the next frame gets.
    next: u64,
    /// Frames `next - window.len()` to `next - 1`, not acknowledged.
    window: VecDeque<(Kind, Bytes)>,
    window_bytes: usize,
    /// Telemetry that found the window full. It has no numbers, so the oldest may go.
    waiting: VecDeque<(Kind, Bytes)>,
    /// The link in use, for lanes that use one.
    pub(super) link: Option<LinkId>,
    /// When the peer last acknowledged something of this lane, or the window was empty.
    progress: Instant,
    /// Silence after which the lane is called stalled; doubles each time in vain.
    patience: Duration,
}

impl Outbound {
    pub(super) fn new(lane: Lane, limits: &Limits) -> Self {
        Self {
            lane,
            next: 1,
            window: VecDeque::new(),
            window_bytes: 0,
            waiting: VecDeque::new(),
            link: None,
            progress: Instant::ZERO,
            patience: limits.patience(lane),
        }
    }

    /// Whether a frame of `len` bytes may get a number now. An empty window takes a frame of any size.
    pub(super) fn has_room(&self, len: usize, limits: &Limits) -> bool {
        self.window.is_empty()
            || (self.window.len() < limits.window_frames_max
                && self.window_bytes + HEADER_BYTES + len <= limits.window_bytes_max(self.lane))
    }

    /// Numbers the frame and keeps it until it is acknowledged.
    pub(super) fn push(&mut self, now: Instant, kind: Kind, payload: Bytes) -> Frame {
        if self.window.is_empty() {
            self.progress = now;
        }
        let frame = self.frame(self.next, kind, payload.clone());
        self.next += 1;
        self.window_bytes += frame.len_on_wire();
        self.window.push_back((kind, payload));
        frame
    }

    /// Keeps the frame without a number. Returns how many older ones it pushed out.
    pub(super) fn wait(&mut self, kind: Kind, payload: Bytes, limits: &Limits) -> u64 {
        self.waiting.push_back((kind, payload));
        let mut dropped = 0;
        while self.waiting.len() > limits.waiting_frames_max {
            self.waiting.pop_front();
            dropped += 1;
        }
        dropped
    }

    /// The next waiting frame, numbered, if there is room for it.
    pub(super) fn promote(&mut self, now: Instant, limits: &Limits) -> Option<Frame> {
        let len = self.waiting.front()?.1.len();
        if !self.has_room(len, limits) {
            return None;
        }
        let (kind, payload) = self.waiting.pop_front()?;
        Some(self.push(now, kind, payload))
    }

    /// Everything up to `sequence` has arrived. False if that was never sent.
    pub(super) fn acknowledge(&mut self, now: Instant, sequence: u64, limits: &Limits) -> bool {
        if sequence >= self.next {
            return false;
        }
        let mut progress = false;
        while self.first() <= sequence {
            let Some((_, payload)) = self.window.pop_front() else { break };
            self.window_bytes -= HEADER_BYTES + payload.len();
            progress = true;
        }
        if progress {
            self.progress = now;
            self.patience = limits.patience(self.lane);
        }
        true
    }

    /// The frames that are not acknowledged, in order.
    pub(super) fn unacknowledged(&self) -> impl Iterator<Item = Frame> {
        let first = self.first();
        self.window.iter().zip(first..).map(|((kind, payload), n)| self.frame(n, *kind, payload.clone()))
    }

    pub(super) fn is_settled(&self) -> bool {
        self.window.is_empty()
    }

    /// When the lane is to be called stalled, if nothing is acknowledged until then.
    pub(super) fn stalls_at(&self) -> Option<Instant> {
        (!self.window.is_empty()).then_some(self.progress + self.patience)
    }

    /// Starts the wait anew, after something was done about it.
    pub(super) fn be_patient(&mut self, now: Instant, limits: &Limits) {
        self.progress = now;
        self.patience = (self.patience * 2).min(limits.patience_max);
    }

    /// Starts the wait anew, because a link came up.
    pub(super) fn take_heart(&mut self, now: Instant, limits: &Limits) {
        self.progress = now;
        self.patience = limits.patience(self.lane);
    }

    /// Begins again at 1 with an empty window. Returns how many frames the old life did not acknowledge.
    pub(super) fn forget(&mut self, limits: &Limits) -> u64 {
        let lost = self.window.len() + self.waiting.len();
        *self = Self::new(self.lane, limits);
        lost as u64
    }

    /// Begins again at 1 with the same frames.
    pub(super) fn renumber(&mut self) {
        self.next = 1 + self.window.len() as u64;
        self.link = None;
    }

    fn first(&self) -> u64 {
        self.next - self.window.len() as u64
    }

    fn frame(&self, sequence: u64, kind: Kind, payload: Bytes) -> Frame {
        Frame { class: self.lane.class(), kind, sequence, payload }
    }
}
