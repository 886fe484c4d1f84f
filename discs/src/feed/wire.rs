//! What goes between an origin and its subscribers: words one way, wishes and acknowledgements the other.
//!
//! postcard; variants and fields are only added at the end. A node that knows nothing of feeds says [`Resume`] never, is never told a
//! [`Word`], and gets plain events as before; so two versions can be in one domain.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sixnines_core::abroad::Neighbour;
use sixnines_core::class::Pattern;
use sixnines_core::engine::AlarmRef;
use sixnines_core::event::Event;
use sixnines_core::feed::{Cursor, Place};

use crate::wire::{Class, Kind};

/// What an origin tells ([`Kind::FEED`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Word {
    /// The first: what is told begins after this place.
    Begin(Place),
    /// An event of the origin. `after` is the one that was told before it: whoever has not recorded that misses something.
    Event {
        /// The place before.
        after: Place,
        /// Its own.
        at: Place,
        /// The [`Event`] as bytes: a newer build's may not be readable, and is then a gap of one.
        event: Arc<[u8]>,
    },
    /// A reading. Those that were overtaken by newer ones are not told.
    Reading(Arc<Event>),
    /// These events are not there any more, see [`sixnines_core::feed::Gap`].
    Gap {
        /// The first.
        from: Place,
        /// The last.
        to: Place,
    },
    /// How something is, as the event that made it so.
    Level(Arc<Event>),
    /// All levels have been told, for the so manieth time; these alarms stand.
    Settled {
        /// Comes back in [`Recorded`].
        number: u64,
        /// What stands.
        alarms: Vec<AlarmRef>,
    },
}

/// Behind the patterns of a [`Kind::SUBSCRIBE`]: the subscriber understands [`Word`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// What it has recorded of this origin's events; `None`: it has never heard of it.
    pub cursor: Option<Cursor>,
}

/// How far the sender has recorded the receiver's events ([`Kind::CURSOR`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// The cursor.
    pub cursor: Cursor,
    /// The last [`Word::Settled`] that was recorded.
    pub settled: u64,
}

impl Word {
    /// The word as a frame. Alarms and states go in one order, on every link at once.
    pub fn frame(&self) -> (Class, Kind, Bytes) {
        let class = if matches!(self, Self::Reading(_)) { Class::Telemetry } else { Class::Alarm };
        (class, Kind::FEED, encode(self))
    }

    /// The word of a neighbour's node, as it is understood here; `None` for a reading or a level that is not to be heard. An event that is not, or
    /// that this build cannot read, becomes a gap of one: places have no holes.
    pub fn from_abroad(self, neighbour: &Neighbour) -> Option<Self> {
        let own = |event: Arc<Event>| neighbour.event(Arc::unwrap_or_clone(event)).map(Arc::new);
        Some(match self {
            Self::Event { after, at, event } => {
                let ours = postcard::from_bytes(&event).ok().and_then(|read| neighbour.event(read));
                Self::Event { after, at, event: ours.map_or_else(Arc::default, |ours| encode(&ours).to_vec().into()) }
            }
            Self::Reading(event) => Self::Reading(own(event)?),
            Self::Level(event) => Self::Level(own(event)?),
            Self::Settled { number, alarms } => Self::Settled { number, alarms: alarms.into_iter().map(|alarm| neighbour.alarm(alarm)).collect() },
            Self::Begin(_) | Self::Gap { .. } => self,
        })
    }

    /// Reads a frame's payload; `None` for a word that this build does not know, which is skipped.
    pub fn read(payload: &[u8]) -> Option<Self> {
        postcard::from_bytes(payload).ok()
    }
}

impl Recorded {
    /// As a payload.
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    /// From a payload.
    pub fn read(payload: &[u8]) -> Option<Self> {
        postcard::from_bytes(payload).ok()
    }
}

/// The payload of a subscription.
pub fn subscription(patterns: &[Pattern], resume: Resume) -> Bytes {
    encode(&(patterns, resume))
}

/// Reads a subscription; without a [`Resume`] it is of a node that knows nothing of feeds. `None`: it cannot be read.
pub fn read_subscription(payload: &[u8]) -> Option<(Vec<Pattern>, Option<Resume>)> {
    let (patterns, rest) = postcard::take_from_bytes(payload).ok()?;
    Some((patterns, postcard::from_bytes(rest).ok()))
}

fn encode(value: &impl Serialize) -> Bytes {
    postcard::to_stdvec(value).expect("a value in memory has an encoding").into()
}

#[cfg(test)]
mod tests {
    use sixnines_core::ids::Incarnation;

    use super::*;

    #[test]
    fn a_subscription_of_an_older_node_is_understood_and_ours_by_it() {
        let patterns = vec![Pattern::new("/**")];
        let old = postcard::to_stdvec(&patterns).expect("encoded");
        assert_eq!(read_subscription(&old), Some((patterns.clone(), None)));
        let place = Place { incarnation: Incarnation(7), sequence: 90 };
        let resume = Resume { cursor: Some(Cursor { events: place, readings: place }) };
        let new = subscription(&patterns, resume);
        assert_eq!(postcard::from_bytes(&new), Ok(patterns.clone()), "an older node reads the patterns and leaves the rest");
        assert_eq!(read_subscription(&new), Some((patterns, Some(resume))));
    }

    #[test]
    fn these_are_the_bytes_of_words() {
        let place = |sequence| Place { incarnation: Incarnation(5), sequence };
        assert_eq!(*Word::Gap { from: place(11), to: place(300) }.frame().2, [3, 5, 11, 5, 0xac, 2]);
        assert_eq!(*Word::Begin(Place { incarnation: Incarnation(5), sequence: 1 }).frame().2, [0, 5, 1]);
        assert_eq!(*Word::Settled { number: 2, alarms: vec![] }.frame().2, [5, 2, 0]);
        assert_eq!(*Recorded::default().encode(), [0, 0, 0, 0, 0]);
    }
}
