//! What goes into the engine and what comes out.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::authority::{Principal, Refused};
use crate::bundle::Compiled;
use crate::domain::limits::Limits;
use crate::event::Event;
use crate::feed::{Gap, Place};
use crate::ids::{AttributeName, ChassisName, EventId, Epoch, GroupName, Member, NodeId, ObjectName, Version};
use crate::time::Duration;
use crate::value::{Outcome, Quality, Request, Update, Value};

/// What can happen to the objects of a node.
#[derive(Clone, Debug)]
pub enum Input {
    /// A driver's reading.
    Update(Update),
    /// Somebody asks for something; [`crate::authority::decide`] has been passed, and is asked again.
    Command(Command),
    /// An event of another node. Its record in the journal is the acknowledgement (protocol 8.2). One that was recorded before, in
    /// whichever life, does nothing.
    Remote(Arc<Event>),
    /// How something is, told by its owner in the form of the event that made it so (protocol 8.3). Not an event: cursors do not move.
    Level {
        /// Who tells.
        from: NodeId,
        /// What it tells.
        event: Arc<Event>,
    },
    /// A node's events are heard from here on; what was before is not asked for.
    Begin {
        /// Whose.
        origin: NodeId,
        /// Everything after this place.
        at: Place,
    },
    /// Events of another node that this one will never get.
    Gap(Gap),
    /// All levels of a node have been told: whatever they do not name is over.
    Settled {
        /// Who tells.
        origin: NodeId,
        /// The alarms that stand there.
        alarms: Vec<AlarmRef>,
    },
    /// A neighbour's node cannot be heard any more.
    Unheard(NodeId),
    /// What became of a request that [`Output::Act`] asked for.
    Outcome {
        /// The request's id.
        request: EventId,
        /// What became of it.
        outcome: Outcome,
    },
    /// This node has become the active of a group, with what the last one had saved.
    Owner {
        /// Which group: a chassis or a service.
        group: GroupName,
        /// Under which epoch.
        epoch: Epoch,
        /// What [`Output::Save`] had given out, in any order.
        saved: Vec<(String, Vec<u8>)>,
    },
    /// Another node is the active of a group, or nobody is.
    NotOwner {
        /// Which group.
        group: GroupName,
        /// The epoch that is known.
        epoch: Epoch,
        /// The active.
        active: Option<Member>,
    },
    /// Something that liveness, the control log or the role machine has seen.
    Fact(Fact),
    /// The domain has these nodes and services; each gets its object, where there is a class for it.
    Domain {
        /// Nodes and the chassis that they sit in.
        nodes: Vec<(NodeId, ChassisName)>,
        /// Services.
        services: Vec<GroupName>,
    },
    /// Another bundle is in force.
    Bundle(Arc<Compiled>),
    /// Other limits are in force. Objects that are there stay, however many they are.
    Limits(Limits),
    /// The deadline that [`super::Engine::poll_timeout`] gave has passed.
    Timeout,
}

/// Something seen by this node itself, not by a driver: `/nodes/n1 state dead`, `/services/calls active n3`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// About what.
    pub object: ObjectName,
    /// Which attribute.
    pub attribute: AttributeName,
    /// The value; `None` unless the quality says that there is one.
    pub value: Option<Value>,
    /// How far to trust it.
    pub quality: Quality,
    /// What led to it.
    pub cause: Option<EventId>,
    /// Evidence, for people: `5 missed, all links`.
    pub why: Arc<str>,
    /// Whether every node learns the same from the control log: then only the object's owner makes an event of it.
    /// Otherwise it is this node's own observation, and an event of this node.
    pub shared: bool,
    /// Comes back in [`Output::Recorded`], so that the observer can name the event as a cause. 0: not wanted.
    pub token: u64,
}

/// Chosen by whoever asks; the same id gives the first answer again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CommandId(pub u128);

impl std::fmt::Display for CommandId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A request from outside the core loop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Makes a retry return the first answer.
    pub id: CommandId,
    /// Who asks.
    pub principal: Principal,
    /// What led to it: the event of a policy elsewhere.
    pub cause: Option<EventId>,
    /// The version of the bundle that the caller saw; another one is refused.
    pub expected_version: Option<Version>,
    /// What is asked for.
    pub body: CommandBody,
}

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum CommandBody {
    /// Hold a control at a value.
    Claim {
        /// Where.
        object: ObjectName,
        /// Which control.
        control: AttributeName,
        /// The value.
        value: Value,
        /// Why.
        reason: String,
        /// How strong; an operator's default is `operator`, a policy's `normal`.
        priority: Option<i32>,
        /// For how long; default 10 minutes.
        lease: Option<Duration>,
    },
    /// Give up the caller's hold on a control.
    Release {
        /// Where.
        object: ObjectName,
        /// Which control.
        control: AttributeName,
    },
    /// Do something once, such as `reset`.
    Operate {
        /// Where.
        object: ObjectName,
        /// What.
        operation: AttributeName,
        /// Why.
        reason: String,
    },
    /// Hold a sensor at a value, whatever its driver reads.
    Force {
        /// Where.
        object: ObjectName,
        /// Which attribute.
        attribute: AttributeName,
        /// The value.
        value: Value,
        /// For how long.
        expires: Duration,
    },
    /// Let a forced sensor go.
    Unforce {
        /// Where.
        object: ObjectName,
        /// Which attribute.
        attribute: AttributeName,
    },
    /// Say that an alarm has been seen.
    Acknowledge {
        /// Which.
        alarm: AlarmRef,
        /// What to remember.
        text: String,
    },
    /// Put an alarm aside for a while.
    Shelve {
        /// Which.
        alarm: AlarmRef,
        /// For how long.
        expires: Duration,
        /// Why.
        text: String,
    },
    /// Take it back.
    Unshelve {
        /// Which.
        alarm: AlarmRef,
    },
    /// A policy elsewhere raises an alarm here.
    Raise {
        /// Which.
        alarm: AlarmRef,
        /// Evidence.
        text: String,
    },
    /// A policy elsewhere clears an alarm here.
    Clear {
        /// Which.
        alarm: AlarmRef,
    },
}

/// Names one alarm.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AlarmRef {
    /// Where.
    pub object: ObjectName,
    /// Its type.
    pub kind: Arc<str>,
    /// Tells alarms of one type apart; usually empty.
    pub qualifier: Arc<str>,
}

impl CommandBody {
    /// The object that it is about.
    pub fn object(&self) -> &ObjectName {
        match self {
            Self::Claim { object, .. }
            | Self::Release { object, .. }
            | Self::Operate { object, .. }
            | Self::Force { object, .. }
            | Self::Unforce { object, .. } => object,
            Self::Acknowledge { alarm, .. }
            | Self::Shelve { alarm, .. }
            | Self::Unshelve { alarm }
            | Self::Raise { alarm, .. }
            | Self::Clear { alarm } => &alarm.object,
        }
    }
}

/// Why a command did nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum CommandError {
    /// The caller may not.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Another node owns the object; ask there.
    #[error("{object} is owned by {}", owner.as_ref().map_or("nobody at present".to_owned(), ToString::to_string))]
    NotOwner {
        /// What was asked about.
        object: ObjectName,
        /// Its owner, where it is known.
        owner: Option<NodeId>,
    },
    /// There is no such object, attribute, control or alarm; the text says which, and what would be right.
    #[error("{0}")]
    Unknown(String),
    /// The value cannot be.
    #[error("{0}")]
    Value(String),
    /// The bundle has changed since the caller looked.
    #[error("the policies are at generation {present}, the command was made for {expected}")]
    Version {
        /// What the caller saw.
        expected: Version,
        /// What is in force.
        present: Version,
    },
}

/// What the engine asks of its node, to be carried out in the order given.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub enum Output {
    /// Tell everybody: subscribers, other nodes, the journal's readers.
    Event(Arc<Event>),
    /// An event of another node that is new here: tell whoever watches at this node.
    Heard(Arc<Event>),
    /// Append to the journal. It stands before everything else that came of the same input.
    Journal(Vec<u8>),
    /// Ask a driver.
    Act {
        /// For what.
        request: Request,
        /// What must be safe before.
        after: Barrier,
    },
    /// Ask the role machine.
    Control(ControlAction),
    /// Keep for the successor, in the group's checkpoint. `None` deletes.
    Save {
        /// Which group.
        group: GroupName,
        /// Which section.
        key: String,
        /// What.
        bytes: Option<Vec<u8>>,
    },
    /// Answer a command.
    Reply {
        /// Which.
        id: CommandId,
        /// `Ok` with the event that it led to.
        result: Result<EventId, CommandError>,
    },
    /// A policy here asks for something of an object that is owned elsewhere.
    Forward {
        /// The owning group; `None`: the node that the name says.
        group: Option<GroupName>,
        /// What.
        command: Command,
    },
    /// The event that a [`Fact`] became, or the last one of that attribute if nothing changed.
    Recorded {
        /// The fact's token.
        token: u64,
        /// The event.
        event: EventId,
    },
}

/// What must be safe before an action leaves the node (protocol 7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Barrier {
    /// The intent has been handed to the journal.
    Journalled,
    /// The intent is synced, and everything saved before is on the standby.
    Replicated,
}

/// What a policy asks of the role machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlAction {
    /// What.
    pub what: Control,
    /// The event that is this action's intent.
    pub cause: EventId,
    /// Why, for people.
    pub reason: Arc<str>,
}

/// A change of roles that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Control {
    /// The actives of all services on the chassis's nodes move elsewhere, standbys are placed elsewhere.
    EvacuateChassis(ChassisName),
    /// The actives of all services on the node move elsewhere.
    EvacuateNode(NodeId),
    /// The standby takes over now.
    Failover(GroupName),
    /// The active hands over in order.
    Switchover(GroupName),
}
