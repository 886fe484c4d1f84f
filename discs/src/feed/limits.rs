//! The bounds of feeds, in one place.

use sixnines_core::time::Duration;

/// Each says what happens when it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Events that an origin keeps for those who are behind. One that is further behind is told the range that it misses.
    pub lag_events_max: usize,
    /// Bytes of them: likewise.
    pub lag_bytes_max: usize,
    /// A subscriber that is out of reach for so long is forgotten: when it comes back it is told from its own cursor on, like a new one.
    pub expires_after: Duration,
    /// Told to a subscriber and not recorded by it, of events and of readings each: then events wait where they are kept, and readings
    /// are coalesced.
    pub flight_max: usize,
    /// Attributes of which a reading waits, per subscriber: then the oldest reading goes, counted.
    pub waiting_max: usize,
    /// What the mesh refused is offered again after so long.
    pub retry_after: Duration,
    /// An event that waits for this node's disk is told after so long in any case: a disk that hangs silences nobody.
    pub sync_patience: Duration,
    /// Without a word from a subscriber that can be reached, and owes one, everything since its cursor is told again.
    pub patience: Duration,
    /// What repeated silence lets the patience grow to.
    pub patience_max: Duration,
    /// An acknowledgement waits so long for others.
    pub ack_delay: Duration,
    /// A subscriber that misses something asks again at most so often.
    pub ask_again_after: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lag_events_max: sixnines_core::domain::limits::Limits::default().count(sixnines_core::domain::limits::Limit::SubscriberLagEvents),
            lag_bytes_max: 4 << 20,
            expires_after: Duration::from_secs(3600),
            flight_max: 2048,
            waiting_max: 4096,
            retry_after: Duration::from_millis(20),
            sync_patience: Duration::from_millis(500),
            patience: Duration::from_secs(2),
            patience_max: Duration::from_secs(30),
            ack_delay: Duration::from_millis(20),
            ask_again_after: Duration::from_millis(500),
        }
    }
}
