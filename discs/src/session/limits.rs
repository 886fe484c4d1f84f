//! The bounds of a session, in one place.

use sixnines_core::time::Duration;

#[cfg(doc)]
use super::SendError;
use crate::wire::{HEADER_BYTES, Lane, PAYLOAD_BYTES_MAX};

/// The session's bounds. Each says what happens when it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Unacknowledged bytes per lane, in the order of [`Lane::ALL`]: then `send` says [`SendError::Full`] (telemetry waits instead).
    pub window_bytes_max: [usize; Lane::COUNT],
    /// Unacknowledged frames per lane: likewise. A frame so far ahead of its turn is dropped, and comes again.
    pub window_frames_max: usize,
    /// Telemetry that waits for the window: then the oldest goes, counted.
    pub waiting_frames_max: usize,
    /// How long an acknowledgement may wait for a frame to travel with, per lane; well below the patience.
    pub ack_delay: [Duration; Lane::COUNT],
    /// Undelivered word of so many frames: it waits no longer.
    pub ack_frames: u64,
    /// Undelivered word of so many bytes: it waits no longer.
    pub ack_bytes: usize,
    /// Without progress for so long, per lane, a lane moves to another link or repeats its oldest frame.
    pub patience: [Duration; Lane::COUNT],
    /// What repeated stalls let the patience grow to.
    pub patience_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1 << 20;
        const fn millis(ms: u64) -> Duration {
            Duration::from_millis(ms)
        }
        Self {
            window_bytes_max: [8 * MIB, MIB, MIB, 4 * MIB, MIB, 8 * MIB],
            window_frames_max: 16 * 1024,
            waiting_frames_max: 4 * 1024,
            // The control log's next heartbeat takes along what its followers' answers are owed: on all links, four datagrams less for each.
            ack_delay: [millis(160), millis(5), millis(5), millis(5), millis(5), millis(5)],
            ack_frames: 256,
            ack_bytes: 128 * 1024,
            patience: [millis(200), millis(200), millis(200), millis(50), millis(100), millis(250)],
            patience_max: millis(2000),
        }
    }
}

impl Limits {
    pub(super) fn window_bytes_max(&self, lane: Lane) -> usize {
        self.window_bytes_max[lane.index()]
    }

    /// A sender within its bounds has no more than its window on the way, or one frame of any size.
    pub(super) fn early_bytes_max(&self, lane: Lane) -> usize {
        self.window_bytes_max(lane).max(PAYLOAD_BYTES_MAX + HEADER_BYTES)
    }

    pub(super) fn ack_delay(&self, lane: Lane) -> Duration {
        self.ack_delay[lane.index()]
    }

    pub(super) fn patience(&self, lane: Lane) -> Duration {
        self.patience[lane.index()]
    }
}
