//! The first words on a connection, and the typed refusal.

use std::fmt;

use serde::{Deserialize, Serialize};
use sixnines_core::ids::NodeId;

use super::{Class, Frame, Kind, VERSION, VERSION_OLDEST};

/// Says that this is the bus between nodes, and not the SDK's or the API's protocol.
pub const PROTOCOL: u32 = 0x0069_0001;

/// A range of frame formats, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The oldest that is read.
    pub oldest: u8,
    /// The newest, which is written.
    pub newest: u8,
}

impl Versions {
    /// What this build reads and writes.
    pub const OURS: Self = Self { oldest: VERSION_OLDEST, newest: VERSION };

    /// The newest format that both understand.
    pub fn common(self, other: Self) -> Option<u8> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.oldest, self.newest)
    }
}

/// What a node is in its domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeRole {
    /// Votes or learns, and holds services.
    Node,
    /// Only votes.
    Witness,
}

/// What each end says first. Fields may be added at the end: readers ignore what they do not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// Frame formats.
    pub versions: Versions,
    /// The program's version, for people.
    pub build: String,
    /// The domain's name; the certificate says the same.
    pub domain: String,
    /// Who speaks; the certificate says the same.
    pub node: NodeId,
    /// The life of the speaker's session with the listener. A higher one replaces a lower one.
    pub life: u64,
    /// What the speaker is.
    pub role: NodeRole,
}

/// Why a connection is not wanted. The first two stay until somebody changes something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Another protocol, or no frame format in common.
    #[error("no frame format in common: it reads {theirs}, the other end {ours}")]
    Version {
        /// The refusing end's.
        ours: Versions,
        /// The refused end's.
        theirs: Versions,
    },
    /// The certificate and the `Hello` name different nodes or domains, or the node is no member.
    #[error("{claimed} of {domain} is not who its certificate names, or no member")]
    Name {
        /// The node that the `Hello` named.
        claimed: NodeId,
        /// The domain that it named.
        domain: String,
    },
    /// The refusing end has seen a higher life of this node. A live node goes on with a life above it.
    #[error("life {known:#x} of this node is newer")]
    OldLife {
        /// The highest life seen.
        known: u64,
    },
}

/// Bytes that should be a [`Hello`] or [`Refusal`] and are not. The peer's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the first frame of a connection is not readable: {0}")]
pub struct BadHello(String);

impl Hello {
    /// The frame that opens a connection.
    pub fn frame(&self) -> Frame {
        first_frame(Kind::HELLO, self)
    }

    /// Reads the first frame of a connection: a `Hello`, or the other end's refusal of ours.
    ///
    /// # Errors
    /// [`BadHello`] if it is neither.
    pub fn read(frame: &Frame) -> Result<Result<Self, Refusal>, BadHello> {
        match frame.kind {
            Kind::HELLO => decode(&frame.payload).map(Ok),
            Kind::REFUSED => decode(&frame.payload).map(Err),
            other => Err(BadHello(format!("{other:?} instead of HELLO"))),
        }
    }
}

impl Refusal {
    /// The frame that ends a connection before it began.
    pub fn frame(&self) -> Frame {
        first_frame(Kind::REFUSED, self)
    }
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, BadHello> {
    let (value, _added_later) = postcard::take_from_bytes(bytes).map_err(|e| BadHello(e.to_string()))?;
    Ok(value)
}

fn first_frame(kind: Kind, what: &impl Serialize) -> Frame {
    let payload = postcard::to_stdvec(what).expect("plain data has a form on the wire");
    Frame { class: Class::Control, kind, sequence: 0, payload: payload.into() }
}
