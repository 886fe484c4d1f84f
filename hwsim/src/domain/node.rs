//! What a node is to the world around it: what can happen to it, what it does, and who makes it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sixnines_core::domain::Domain;
use sixnines_core::domain::config::Bundle;
use sixnines_core::engine::{CommandBody, Engine};
use sixnines_core::event::Event;
use sixnines_core::feed::Place;
use sixnines_core::ids::{Epoch, EventId, GroupName, LinkId, LogIndex, Member, NodeId};
use sixnines_core::time::{Duration, Instant, WallTime};
use sixnines_core::value::{Outcome, Request, Update};

/// A node made of the product's machines.
pub trait SimNode {
    /// Takes one input at the node's own `now`; what it wants done comes back in order.
    fn step(&mut self, now: Instant, input: SimInput<'_>) -> Vec<SimOutput>;
    /// When it wants to be woken, on its own clock.
    fn next_wake(&self, now: Instant) -> Instant;
    /// Whether its journal replays to what it is now.
    ///
    /// # Errors
    /// Where the replay went another way.
    fn prove_journal(&self) -> Result<(), String> {
        Ok(())
    }
    /// How it sees things; `None` before it has joined.
    fn view(&self) -> Option<View<'_>> {
        None
    }
    /// The alarms that stand on what it owns of chassis, by the names of their sections (as in [`Observation::Kept`]), with their ids.
    fn alarms(&self) -> Vec<(String, EventId)> {
        Vec::new()
    }
}

/// What can happen to a node.
#[derive(Debug)]
pub enum SimInput<'a> {
    /// Bytes from a peer.
    Frame {
        /// Who sent them.
        from: NodeId,
        /// On which link (datagrams).
        link: LinkId,
        /// Which of the node's doors.
        door: Door,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// A client's call through the group's address.
    Call {
        /// The service.
        group: GroupName,
        /// What it asks.
        call: Call,
    },
    /// The local application of a group dies.
    KillUnit(GroupName),
    /// An operator asks for a switchover.
    Switchover(GroupName),
    /// An operator says that a node is the same node with another disk.
    Readmit(NodeId),
    /// An operator asks something else; answered by [`SimOutput::Replied`], mostly at once.
    Order(Ticket, Order),
    /// What the sensors of a chassis show, to the node that drives it.
    Readings(&'a [Update]),
    /// What became of a request to a chassis.
    Outcome {
        /// The request.
        request: EventId,
        /// What became of it.
        outcome: Outcome,
    },
    /// Somebody who keeps clocks right tells the node what time it is for people.
    Wall(WallTime),
    /// The instant asked for has come.
    Wake,
}

/// What a node does.
#[derive(Debug)]
pub enum SimOutput {
    /// Bytes for a peer. `link` is `None` where the mesh chooses.
    Send {
        /// To whom.
        to: NodeId,
        /// On which link (datagrams).
        link: Option<LinkId>,
        /// Which of the peer's doors.
        door: Door,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// An answer to a client; leaves the node only if its gate is open at that instant.
    Answer {
        /// The service.
        group: GroupName,
        /// The epoch that the server speaks under.
        epoch: Epoch,
        /// What it says.
        answer: Answer,
    },
    /// The kernel's gate for the group's address is armed until then, on the node's clock; zero: closed.
    Gate {
        /// The service.
        group: GroupName,
        /// Until when.
        until: Instant,
    },
    /// From now on the node drives a chassis, or not: it gets its readings.
    Drive {
        /// The ownership of which chassis.
        group: GroupName,
        /// Whether it does.
        drives: bool,
    },
    /// An order for a chassis; answered by [`SimInput::Outcome`].
    Act(Request),
    /// Have a node switched off by the device that feeds it; answered by [`SimInput::Outcome`], when it has been read back.
    Fence {
        /// The request.
        request: EventId,
        /// Whom.
        target: NodeId,
    },
    /// Something that invariants judge.
    Observe(Observation),
    /// What became of an order.
    Replied(Ticket, Result<String, String>),
    /// A line for the trace.
    Note(String),
    /// The node stops by itself (a storage failure, an unreadable log).
    Halt(String),
}

/// Names one order of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What an operator can ask of a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Something of an object that this node owns.
    Command(CommandBody),
    /// A service moves.
    Switchover {
        /// Which.
        service: GroupName,
        /// Where to; `None`: to the best standby.
        to: Option<NodeId>,
    },
    /// A service goes on although every complete copy of its state is gone.
    Start(GroupName),
    /// Other classes, objects and policies.
    Apply(Bundle),
}

/// A node's own idea of how things are.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// Its objects and alarms.
    pub engine: &'a Engine,
    /// The control log, as far as it has applied it.
    pub domain: &'a Domain,
    /// It may speak for what it is active for; without a lease nobody listens to it.
    pub has_lease: bool,
}

/// Where bytes go in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Door {
    /// Datagrams of the liveness thread.
    Liveness,
    /// The mesh: in order per pair, but lost when either end restarts.
    Mesh,
}

/// What a client asks: setting a key, once, however often it repeats the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The client's number for the request; a repeat bears the same one.
    pub request: u64,
    /// `Some`: set the key to it. `None`: read it.
    pub value: Option<u64>,
    /// Which key.
    pub key: u64,
}

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The request's number.
    pub request: u64,
    /// Whether it set the key.
    pub is_write: bool,
    /// Which key.
    pub key: u64,
    /// The key's value now.
    pub value: Option<u64>,
}

/// What an invariant can see of a node, without its insides.
#[derive(Clone, Debug, PartialEq)]
pub enum Observation {
    /// The node holds itself for active, or no longer.
    Role {
        /// The group.
        group: GroupName,
        /// Under which epoch.
        epoch: Epoch,
        /// Whether it is active.
        is_active: bool,
    },
    /// The control log started a group anew because every complete copy was gone: what was acknowledged is declared lost.
    Lost {
        /// The group.
        group: GroupName,
        /// The epoch that begins.
        epoch: Epoch,
    },
    /// An action left the node.
    Acted {
        /// On what.
        object: String,
        /// Under which epoch.
        epoch: Epoch,
        /// Why.
        cause: EventId,
    },
    /// An event was numbered.
    Event(Arc<Event>),
    /// The core loop has recorded more of another node's events than before: by an event, or by where they begin or a gap that was named.
    Heard {
        /// Whose.
        origin: NodeId,
        /// How far it had come.
        after: Place,
        /// How far it has come.
        at: Place,
        /// By the event of that place.
        is_event: bool,
    },
    /// A node starts, and its journal knows its earlier lives' events up to this one.
    Remembers(Place),
    /// An entry of the control log was applied, or a snapshot up to it; this is the state now.
    Applied {
        /// The entry.
        index: LogIndex,
        /// The state.
        domain: Arc<Domain>,
    },
    /// A service that needs a fence was taken over because a majority of the voters had released its active, whose life still counted.
    TakenOver {
        /// The service.
        group: GroupName,
        /// Its active that was.
        old: Member,
    },
    /// What the owner of a chassis saved last under this name is on every copy.
    Kept {
        /// The ownership.
        group: GroupName,
        /// The section's name, such as `alarm /mxp1/fan1 fan-failed `.
        section: String,
    },
}

/// Makes nodes, and keeps their disks, which outlive them.
pub trait Workshop {
    /// Makes a node: its id, how often it was started before, a seed of its own, its clock at birth.
    ///
    /// # Errors
    /// Why its process ends before it does anything; it is tried again later, as a supervisor does.
    fn make(&mut self, node: NodeId, restarts: u32, seed: u64, now: Instant) -> Result<Box<dyn SimNode>, String>;
    /// Something happens to a node's disk.
    fn disk(&mut self, node: NodeId, what: DiskChange) {
        let _ = (node, what); // nodes without a disk
    }
}

impl<F: FnMut(NodeId, Instant) -> Box<dyn SimNode>> Workshop for F {
    fn make(&mut self, node: NodeId, _: u32, _: u64, now: Instant) -> Result<Box<dyn SimNode>, String> {
        Ok(self(node, now))
    }
}

/// What is on the disk that takes another's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Substitute {
    /// Nothing.
    #[default]
    Empty,
    /// An image of the old one, from when the node last started or the domain was last mended.
    Image,
    /// The same, but for a bit of the control log.
    Rotten,
}

/// What can happen to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskChange {
    /// Each sync takes so long.
    Slow(Duration),
    /// Nothing more fits.
    Full,
    /// The next sync fails.
    FailsOnce,
    /// Another one is put in.
    Replaced(Substitute),
    /// It is as fast, as empty and as sound as it should be; what is on it stays.
    Mended,
}
