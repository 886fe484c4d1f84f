//! One lane of the receiving side: what comes next, what came early, and what the sender has not been told.

use std::collections::BTreeMap;

use super::Limits;
use crate::wire::{Frame, Lane};

#[derive(Debug)]
pub(super) struct Inbound {
    lane: Lane,
    /// The number of the next frame to deliver.
    next: u64,
    /// Frames that overtook others, from another link.
    early: BTreeMap<u64, Frame>,
    early_bytes: usize,
    /// What the last acknowledgement said.
    told: u64,
    untold_bytes: usize,
    /// Whether an acknowledgement is due although nothing new has come.
    repeat: bool,
}

/// What became of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is the next; [`Inbound::follow`] has what it let through.
    Next(Frame),
    /// It waits for others.
    Early,
    /// It was there before.
    Duplicate,
    /// Further ahead than a sender within its bounds can be.
    TooFarAhead,
}

impl Inbound {
    pub(super) fn new(lane: Lane) -> Self {
        Self { lane, next: 1, early: BTreeMap::new(), early_bytes: 0, told: 0, untold_bytes: 0, repeat: false }
    }

    pub(super) fn arrive(&mut self, frame: Frame, limits: &Limits) -> Arrival {
        if frame.sequence == self.next {
            self.count(&frame);
            return Arrival::Next(frame);
        }
        if frame.sequence < self.next {
            // Two links bring everything twice; only a repeat of what was acknowledged shows that the word got lost.
            self.repeat |= frame.sequence <= self.told;
            return Arrival::Duplicate;
        }
        if self.early.contains_key(&frame.sequence) {
            return Arrival::Duplicate;
        }
        let bytes = self.early_bytes + frame.len_on_wire();
        if self.early.len() >= limits.window_frames_max || bytes > limits.early_bytes_max(self.lane) {
            return Arrival::TooFarAhead;
        }
        self.early_bytes = bytes;
        self.early.insert(frame.sequence, frame);
        Arrival::Early
    }

    /// The frame that came early and is now the next.
    pub(super) fn follow(&mut self) -> Option<Frame> {
        let frame = self.early.remove(&self.next)?;
        self.early_bytes -= frame.len_on_wire();
        self.count(&frame);
        Some(frame)
    }

    /// The number of the last frame delivered.
    pub(super) fn delivered(&self) -> u64 {
        self.next - 1
    }

    /// Whether the sender is to hear of something, sooner or later.
    pub(super) fn owes(&self) -> bool {
        self.repeat || self.told < self.delivered()
    }

    /// Whether the sender has repeated what it had been told of.
    pub(super) fn repeats(&self) -> bool {
        self.repeat
    }

    /// Whether the sender is to hear of it now, because its window fills.
    pub(super) fn owes_now(&self, limits: &Limits) -> bool {
        self.delivered() - self.told >= limits.ack_frames || self.untold_bytes >= limits.ack_bytes
    }

    /// An acknowledgement is on its way.
    pub(super) fn tell(&mut self) -> u64 {
        self.told = self.delivered();
        self.untold_bytes = 0;
        self.repeat = false;
        self.told
    }

    /// The last acknowledgement may have been lost.
    pub(super) fn tell_again(&mut self) {
        self.repeat |= self.delivered() > 0;
    }

    #[cfg(test)]
    pub(super) fn early_frames(&self) -> usize {
        self.early.len()
    }

    fn count(&mut self, frame: &Frame) {
        self.next += 1;
        self.untold_bytes += frame.len_on_wire();
    }
}
