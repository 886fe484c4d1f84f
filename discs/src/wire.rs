//! Frames between nodes: a fixed header, then a payload that the mesh does not look into.
//!
//! Every stream of a connection carries whole frames, one after the other. There is no checksum, because nothing travels
//! outside TLS; there is a bound on the length, because an authenticated peer can still be wrong. The bytes of each
//! released version stand in `versions/`, with those of all else that nodes say and keep.

mod decode;
mod hello;
#[cfg(test)]
mod tests;

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use sixnines_core::domain::feature::Level;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub use decode::Decoder;
pub use hello::{BadHello, Hello, NodeRole, PROTOCOL, Refusal, Versions};

/// The newest frame format that this build reads and, to who reads it too, writes. It is the number of the newest feature level: a released version
/// has one number for all that it says and keeps, and by its `Hello` a node also says which levels it reads.
pub const VERSION: u8 = Level::NEWEST.0;
/// The oldest frame format that this build reads.
pub const VERSION_OLDEST: u8 = 1;
/// Longest payload of one frame. Whoever has more to say says it in pieces.
pub const PAYLOAD_BYTES_MAX: usize = 4 << 20;
/// Size of [`Header`] on the wire.
pub const HEADER_BYTES: usize = size_of::<Header>();

const MAGIC: [u8; 2] = *b"69";

/// What a frame is, in order of urgency. A class never waits for a less urgent one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Class {
    /// Roles, control log, commands. On all links at once.
    Control = 0,
    /// Alarms and other events that somebody must act on. On all links at once.
    Alarm = 1,
    /// Changes of state, never coalesced. On the best link.
    State = 2,
    /// Readings; the last one wins under pressure. On the best link.
    Telemetry = 3,
    /// Checkpoint transfers and whatever else is long. On the best link.
    Bulk = 4,
}

impl Class {
    /// All classes, the most urgent first.
    pub const ALL: [Self; 5] = [Self::Control, Self::Alarm, Self::State, Self::Telemetry, Self::Bulk];

    fn from_wire(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

/// What a payload is. Kinds below 16 are the mesh's own; the others are opaque to it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(pub u8);

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        impl Kind {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// The kind's name; `None` for a kind that this build does not know.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// First frame of a connection, each way: [`Hello`].
    HELLO = 1;
    /// Instead of a `HELLO`: [`Refusal`].
    REFUSED = 2;
    /// How far the sender has received, by lane. Not numbered.
    ACK = 3;
    /// A message of the control log. In a lane of its own.
    LOG = 16;
    /// One or more events.
    EVENT = 17;
    /// A piece of a checkpoint, or its acknowledgement.
    CHECKPOINT = 18;
    /// A command, from whoever may give one.
    COMMAND = 19;
    /// A question that wants an [`Self::ANSWER`].
    QUERY = 20;
    /// What a [`Self::QUERY`] or [`Self::COMMAND`] led to.
    ANSWER = 21;
    /// What the sender wants to hear of.
    SUBSCRIBE = 22;
    /// How far the sender has recorded the receiver's events.
    CURSOR = 23;
    /// A lease matter: release, relinquish.
    LEASE = 24;
    /// A word of a feed, to who has said that it understands them.
    FEED = 25;
}

impl Kind {
    /// Whether this build knows what to do with it. Frames of other kinds are skipped and counted.
    pub fn is_known(self) -> bool {
        self.name().is_some()
    }

    /// Whether the mesh keeps frames of this kind for itself.
    pub fn is_internal(self) -> bool {
        self.0 < 16
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "kind {}", self.0),
        }
    }
}

/// What is in order among itself: a class, or the control log, which waits for no other control frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Lane {
    /// Frames of kind [`Kind::LOG`].
    Log = 0,
    /// Other frames of [`Class::Control`].
    Control = 1,
    /// Frames of [`Class::Alarm`].
    Alarm = 2,
    /// Frames of [`Class::State`].
    State = 3,
    /// Frames of [`Class::Telemetry`].
    Telemetry = 4,
    /// Frames of [`Class::Bulk`].
    Bulk = 5,
}

impl Lane {
    /// How many there are.
    pub const COUNT: usize = 6;
    /// All lanes, the most urgent first.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Log, Self::Control, Self::Alarm, Self::State, Self::Telemetry, Self::Bulk];

    /// The lane of a frame. A log message is control whatever class it was given.
    pub fn of(class: Class, kind: Kind) -> Self {
        match class {
            _ if kind == Kind::LOG => Self::Log,
            Class::Control => Self::Control,
            Class::Alarm => Self::Alarm,
            Class::State => Self::State,
            Class::Telemetry => Self::Telemetry,
            Class::Bulk => Self::Bulk,
        }
    }

    /// The lane's class.
    pub fn class(self) -> Class {
        match self {
            Self::Log | Self::Control => Class::Control,
            Self::Alarm => Class::Alarm,
            Self::State => Class::State,
            Self::Telemetry => Class::Telemetry,
            Self::Bulk => Class::Bulk,
        }
    }

    /// Whether its frames travel on all links at once.
    pub fn on_all_links(self) -> bool {
        matches!(self, Self::Log | Self::Control | Self::Alarm)
    }

    /// For arrays that have one place for each lane.
    pub fn index(self) -> usize {
        self as usize
    }
}

/// The fixed header of a frame, little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    magic: [u8; 2],
    version: u8,
    kind: u8,
    class: u8,
    flags: u8,
    reserved: U16,
    length: U32,
    sequence: U64,
}

/// A frame: what is known of it from the header, and its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// How urgent.
    pub class: Class,
    /// What the payload is.
    pub kind: Kind,
    /// Position in its lane, from 1 for each pair of lives; 0 for frames outside any lane.
    pub sequence: u64,
    /// At most [`PAYLOAD_BYTES_MAX`].
    pub payload: Bytes,
}

impl Frame {
    /// The frame's lane.
    pub fn lane(&self) -> Lane {
        Lane::of(self.class, self.kind)
    }

    /// Its size on the wire.
    pub fn len_on_wire(&self) -> usize {
        HEADER_BYTES + self.payload.len()
    }

    /// The header that goes in front of the payload, in the format that both ends agreed on.
    ///
    /// # Panics
    /// If the payload is longer than [`PAYLOAD_BYTES_MAX`]; `Session::send` refuses such.
    pub fn header(&self, version: u8) -> Header {
        assert!(self.payload.len() <= PAYLOAD_BYTES_MAX, "{} bytes in one frame", self.payload.len());
        let length = u32::try_from(self.payload.len()).expect("the bound fits in 32 bits");
        Header {
            magic: MAGIC,
            version,
            kind: self.kind.0,
            class: self.class as u8,
            flags: 0,
            reserved: U16::ZERO,
            length: U32::new(length),
            sequence: U64::new(self.sequence),
        }
    }

    /// Appends the frame's bytes in the oldest format: so are the first words of a connection written, before anything is agreed on.
    pub fn encode(&self, to: &mut BytesMut) {
        to.reserve(self.len_on_wire());
        to.put_slice(self.header(VERSION_OLDEST).as_bytes());
        to.put_slice(&self.payload);
    }
}

/// Bytes that are no frame of ours. The peer's fault; the stream cannot be read on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The stream does not stand at the start of a frame.
    #[error("a frame starts with {0:02x?}")]
    Magic([u8; 2]),
    /// A format that we do not read, although the versions were agreed on.
    #[error("frame format {0}, agreed on were {1}")]
    Version(u8, Versions),
    /// No such class; unlike kinds these cannot be skipped, because the lane is not known.
    #[error("class {0} is unknown")]
    Class(u8),
    /// Longer than anything that may be sent.
    #[error("a frame of {0} bytes, the limit is {PAYLOAD_BYTES_MAX}")]
    Length(u32),
    /// Bits that must be zero in this format.
    #[error("flags {0:#04x} are unknown in this format")]
    Flags(u8),
}

impl Header {
    /// Checks everything but the kind, which may be unknown.
    fn check(&self, reads: Versions) -> Result<(Class, usize), WireError> {
        if self.magic != MAGIC {
            return Err(WireError::Magic(self.magic));
        }
        if !(reads.oldest..=reads.newest).contains(&self.version) {
            return Err(WireError::Version(self.version, reads));
        }
        if self.flags != 0 {
            return Err(WireError::Flags(self.flags));
        }
        let class = Class::from_wire(self.class).ok_or(WireError::Class(self.class))?;
        let length = usize::try_from(self.length.get()).unwrap_or(usize::MAX);
        if length > PAYLOAD_BYTES_MAX {
            return Err(WireError::Length(self.length.get()));
        }
        Ok((class, length))
    }
}
