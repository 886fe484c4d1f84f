//! What the CLI and the daemon say to each other over the local socket: one JSON line each way, more for what is followed.
//!
//! The daemon knows the caller by its socket credentials; every request that changes something passes the one authority
//! function before it is queued.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sixnines_core::authority::Wanted;
use sixnines_core::domain::admission::Fingerprint;
use sixnines_core::domain::config::{Bundle, DomainConfig, NodeConfig};
use sixnines_core::domain::feature::Level;
use sixnines_core::event::{Body, Event};
use sixnines_core::ids::{ChassisName, Epoch, EventId, GroupName, NodeId};
use sixnines_core::time::WallTime;
use sixnines_core::value::{Outcome, Quality, Value};

/// The protocol's version: a daemon refuses others by name.
pub(crate) const VERSION: u32 = 1;

/// A request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) version: u32,
    pub(crate) call: Call,
}

/// What is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Call {
    Status,
    List { pattern: String },
    Get { name: String },
    /// A claim on a control, with a lease.
    Set { name: String, attribute: String, value: String, lease_s: u64, reason: String },
    Unset { name: String, attribute: String },
    /// Events from now on, of the objects that match.
    Watch { pattern: String },
    Events { last: usize, pattern: String },
    Why { what: String },
    Alarms,
    AlarmAck { object: String, kind: String },
    AlarmShelve { object: String, kind: String, for_s: u64 },
    Switchover { service: String, to: Option<NodeId> },
    /// The operator's word after a total loss.
    StartService { service: String },
    /// The operator's word that a node's disk is lost, and that it may come back with the one it has now.
    NodeReplace { node: NodeId },
    /// A token for a machine that is to become this node; where the daemon holds the authority.
    NodeInvite { node: NodeId, valid_s: u64, seat: SeatWish },
    /// No certificate of this node counts any more.
    NodeExpel { node: NodeId, force: bool },
    /// A node that was expelled, and that nobody will be again, goes out of the configuration.
    NodeForget { node: NodeId },
    /// Another certificate for the node that is asked.
    NodeRenew,
    /// A token was drawn, and is to be known. From inside the daemon alone.
    #[serde(skip)]
    Invite { token: Fingerprint, seat: Box<NodeConfig>, expires: WallTime },
    /// A token was shown. From inside the daemon alone.
    #[serde(skip)]
    Admit { node: NodeId, token: Fingerprint, key: Fingerprint, reads: Level },
    Inject { chassis: String, fault: String, target: Option<String>, for_s: u64 },
    InjectClear { chassis: String },
    InjectList { chassis: String },
    PolicyApply { files: BTreeMap<String, String>, message: String },
    Limits,
    /// Other bounds, by the limits' names; none takes one back to its default.
    LimitsSet { bounds: Vec<(String, Option<u64>)>, message: String },
    PolicyList,
    Feature,
    /// The next feature level, or the one that is named.
    FeatureRaise { level: Option<u8>, message: String },
}

impl Call {
    /// What the authority is asked about before anything else happens. Of a command to an object, whose body is made later, the
    /// engine asks again.
    pub(crate) fn wanted(&self) -> Wanted<'static> {
        match self {
            Self::Status
            | Self::List { .. }
            | Self::Get { .. }
            | Self::Watch { .. }
            | Self::Events { .. }
            | Self::Why { .. }
            | Self::Alarms
            | Self::InjectList { .. }
            | Self::PolicyList
            | Self::Limits
            | Self::Feature
            | Self::Set { .. }
            | Self::Unset { .. }
            | Self::AlarmAck { .. }
            | Self::AlarmShelve { .. } => Wanted::Look,
            Self::Switchover { .. } => Wanted::Switchover,
            Self::StartService { .. } => Wanted::StartWithLoss,
            Self::NodeReplace { .. } => Wanted::GiveUpDisk,
            Self::NodeInvite { .. } | Self::NodeExpel { .. } | Self::NodeForget { .. } | Self::Invite { .. } => Wanted::ChangeMembers,
            Self::NodeRenew => Wanted::Renew,
            Self::Admit { .. } => Wanted::Admit,
            Self::Inject { .. } | Self::InjectClear { .. } => Wanted::Inject,
            Self::PolicyApply { .. } => Wanted::ApplyPolicies,
            Self::LimitsSet { .. } => Wanted::ChangeLimits,
            Self::FeatureRaise { .. } => Wanted::RaiseLevel,
        }
    }
}

/// Where an invited node is to sit, as far as an operator says it; the rest is as it was for the node of that name.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct SeatWish {
    pub(crate) chassis: Option<ChassisName>,
    pub(crate) links: Vec<SocketAddr>,
    pub(crate) voter: bool,
    pub(crate) witness: bool,
}

/// An answer, or one line of a followed stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reply {
    Status(Box<Status>),
    Objects(Vec<ObjectRow>),
    Events(Vec<EventRow>),
    Event(EventRow),
    /// Events that somebody who follows them could not take in time.
    Missed(Missed),
    Why(WhyStory),
    Alarms(Vec<AlarmRow>),
    Faults(serde_json::Value),
    Policies { generation: u64, files: Vec<PolicyRow> },
    Limits(Vec<LimitRow>),
    Feature(FeatureReport),
    Invited(Invited),
    /// Inside the daemon alone.
    #[serde(skip)]
    Admitted(Box<Admitted>),
    /// Done; `text` says what it did and how to undo it.
    Done { text: String },
    Failed(Failure),
}

/// A token, for one machine, once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Invited {
    pub(crate) node: NodeId,
    pub(crate) token: String,
    pub(crate) expires: String,
    pub(crate) valid_s: u64,
}

/// Somebody is let in.
#[derive(Clone, Debug)]
pub(crate) struct Admitted {
    /// What his certificate is issued on.
    pub(crate) admission: u64,
    pub(crate) config: DomainConfig,
    pub(crate) policies: Arc<Bundle>,
}

/// Why something was not done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// A stable word, such as `not-in-sync`.
    pub(crate) code: String,
    /// One sentence in the operator's words.
    pub(crate) message: String,
    /// A line or command to type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) help: Option<String>,
    /// The exit code that the CLI ends with: 2 bad input, 3 no answer, 4 refused, 5 unknown.
    pub(crate) exit: u8,
}

/// The whole domain as one node sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) domain: String,
    pub(crate) node: NodeId,
    pub(crate) at: String,
    pub(crate) profile: String,
    /// The feature level in force.
    #[serde(default)]
    pub(crate) feature_level: Level,
    pub(crate) is_serving: bool,
    /// Whatever one node dies, everything goes on: all that wants a standby has one, and the others can decide without any one voter.
    pub(crate) is_redundant: bool,
    /// Without which voter nothing could be decided, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) undecided: Option<String>,
    pub(crate) services: Vec<ServiceRow>,
    pub(crate) chassis: Vec<ServiceRow>,
    pub(crate) nodes: Vec<NodeRow>,
    pub(crate) alarms: BTreeMap<String, usize>,
    pub(crate) log: LogRow,
    pub(crate) policies: u64,
    pub(crate) rights: Vec<RightRow>,
    /// How often this node's lease ran out since it started.
    pub(crate) suspensions: u64,
    /// The longest lateness of its liveness thread, in microseconds, in each second of the last minute, by the boot-time clock.
    #[serde(default)]
    pub(crate) late_us: Vec<(u64, u64)>,
    /// The nodes that hear of this one's events.
    #[serde(default)]
    pub(crate) feeds: Vec<FeedRow>,
    /// The other domains that it knows of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) neighbours: Vec<NeighbourRow>,
}

/// Another domain, as this node hears it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NeighbourRow {
    pub(crate) domain: String,
    /// `heard`, `partly` or `lost`.
    pub(crate) state: String,
    /// Its nodes that are heard, by the numbers that they have here.
    pub(crate) heard: Vec<NodeId>,
    pub(crate) silent: Vec<NodeId>,
}

/// One service group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ServiceRow {
    pub(crate) name: GroupName,
    pub(crate) active: Option<NodeId>,
    /// In sync and ready to take over.
    pub(crate) standby: Vec<NodeId>,
    pub(crate) epoch: Epoch,
    /// The active's life still counts and its node is alive.
    pub(crate) is_serving: bool,
    /// It could have a standby, and so it should.
    pub(crate) wants_standby: bool,
    pub(crate) if_active_dies: String,
    /// What it waits for before anybody may take over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) waits: Option<String>,
}

/// One node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NodeRow {
    pub(crate) id: NodeId,
    pub(crate) chassis: String,
    /// `up`, `joining` (heard, and not yet a member), `mute`, `dead`, `cut off`, `expelled`, `unknown`.
    pub(crate) state: String,
    /// Up or not, per link; empty for the node asked.
    pub(crate) links: Vec<bool>,
    /// The serial line to it, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) serial: Option<SerialRow>,
    pub(crate) is_leader: bool,
    /// It votes and runs nothing.
    #[serde(default)]
    pub(crate) is_witness: bool,
    pub(crate) log: InLog,
    /// How long its certificate lasts, as it says itself: `no end`, or `until` a date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) certificate: Option<String>,
    /// The numbers of this node's connections to it: another number is another connection.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) connections: Vec<u64>,
}

/// A serial line to a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SerialRow {
    pub(crate) device: String,
    /// `up`, `one-way` (it does not hear this node), `silent` or `closed`.
    pub(crate) state: String,
    /// What the other node has said last, or why the line is closed.
    pub(crate) says: String,
}

/// A node's place in the control log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum InLog {
    Votes,
    Learns,
    /// It came back with another disk than the one it votes with, and is kept out until an operator gives that one up.
    KeptOut,
    /// Its disk has not been heard of yet, or the node asked is not a member.
    Unknown,
}

/// The control log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LogRow {
    pub(crate) leader: Option<NodeId>,
    pub(crate) applied: u64,
}

/// How events go between this node and another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FeedRow {
    pub(crate) node: NodeId,
    /// Events of this node that are kept and that it has not recorded.
    pub(crate) behind: usize,
    /// Readings that were overtaken by newer ones before it could be told.
    pub(crate) coalesced: u64,
    /// Ranges of events that it was told to miss.
    pub(crate) gaps: u64,
    /// It cannot be reached.
    pub(crate) is_lost: bool,
    /// How far this node has recorded the other's events: its life and the number in it.
    pub(crate) heard: Option<String>,
}

/// A right that was asked of the operating system.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RightRow {
    pub(crate) name: String,
    pub(crate) asked: String,
    pub(crate) got: bool,
    pub(crate) means: String,
}

/// One object with its attributes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ObjectRow {
    pub(crate) name: String,
    pub(crate) class: String,
    pub(crate) attributes: BTreeMap<String, AttributeRow>,
}

/// One attribute.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AttributeRow {
    pub(crate) value: Option<Value>,
    pub(crate) unit: String,
    pub(crate) quality: Quality,
    pub(crate) age_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) claimed_by: Option<String>,
}

/// One event, for people.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct EventRow {
    pub(crate) id: EventId,
    pub(crate) at: String,
    pub(crate) at_ns: u64,
    pub(crate) object: String,
    pub(crate) attribute: String,
    /// `running -> failed`, or what a policy or person did.
    pub(crate) text: String,
    /// Evidence.
    pub(crate) why: String,
    pub(crate) policy: Option<String>,
    pub(crate) cause: Option<EventId>,
}

/// Events that were not shown, both ends included; in between are some of no interest too.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Missed {
    pub(crate) count: u64,
    pub(crate) first: EventId,
    pub(crate) last: EventId,
}

/// A chain of causes, the root first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WhyStory {
    pub(crate) headline: String,
    pub(crate) chain: Vec<EventRow>,
    /// Causes that this node does not know.
    pub(crate) missing: Vec<EventId>,
}

/// One alarm.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AlarmRow {
    pub(crate) id: EventId,
    pub(crate) severity: String,
    pub(crate) since: String,
    pub(crate) object: String,
    pub(crate) kind: String,
    pub(crate) text: String,
    pub(crate) note: String,
}

/// One file of the bundle in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PolicyRow {
    pub(crate) file: String,
    pub(crate) bytes: usize,
}

/// One limit of the domain.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LimitRow {
    pub(crate) name: String,
    /// The highest of all nodes that are alive; none before it was looked at.
    pub(crate) used: Option<u64>,
    pub(crate) bound: u64,
    pub(crate) default: u64,
    pub(crate) min: u64,
    pub(crate) max: u64,
    /// What is counted.
    pub(crate) unit: String,
    pub(crate) at_bound: String,
}

/// The feature level in force, and what stands in the way of the next one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FeatureReport {
    pub(crate) level: u8,
    /// The next level, if any member reads it.
    pub(crate) next: Option<u8>,
    /// Who does not read that one, in words.
    pub(crate) hindered_by: Vec<String>,
    pub(crate) nodes: Vec<FeatureRow>,
}

/// What one member reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FeatureRow {
    pub(crate) node: NodeId,
    /// The newest level; none while it is not there to say so.
    pub(crate) reads: Option<u8>,
}

impl EventRow {
    /// An event in the words of people.
    pub(crate) fn of(event: &Event) -> Self {
        let value = |v: &Option<Value>| v.as_ref().map_or_else(|| "unknown".to_owned(), ToString::to_string);
        let text = match &event.body {
            Body::Log if event.old.is_none() => value(&event.new),
            Body::Change | Body::Log => format!("{} -> {}", value(&event.old), value(&event.new)),
            Body::Alarm { kind, step, .. } => format!("alarm {kind} {}", step.word()),
            Body::Claimed { by, .. } => format!("claimed at {} by {by}", value(&event.new)),
            Body::Released { by } => format!("released by {by}"),
            Body::Intent { .. } => format!("asks its driver for {}", value(&event.new)),
            Body::Outcome(Outcome::Done) => "done".to_owned(),
            Body::Outcome(Outcome::Refused(why)) => format!("refused: {why}"),
            Body::Outcome(Outcome::Fenced { by }) => format!("refused: epoch {by} has been seen there"),
            Body::Outcome(Outcome::Unknown) => "no answer: it may have happened".to_owned(),
            Body::Control => "asks for a role to move".to_owned(),
            Body::Command { principal } => format!("asked by {principal}"),
        };
        Self {
            id: event.id,
            at: clock_text(event.time.wall),
            at_ns: event.time.wall.0,
            object: event.object.to_string(),
            attribute: event.attribute.to_string(),
            text,
            why: event.why.to_string(),
            policy: event.policy.as_ref().map(ToString::to_string),
            cause: event.cause,
        }
    }
}

/// Wall time as people write it.
pub(crate) fn clock_text(wall: WallTime) -> String {
    let seconds = wall.0 / 1_000_000_000;
    let (hour, minute, second, ms) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60, wall.0 / 1_000_000 % 1000);
    format!("{hour:02}:{minute:02}:{second:02}.{ms:03}")
}

/// Seconds since 1970 as a date and a time of day, UTC.
pub(crate) fn date_text(seconds: u64) -> String {
    // Civil from days, by Howard Hinnant: eras of 400 years that begin in March.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates_are_dates() {
        let known = [(0, "1970-01-01 00:00:00"), (951_825_600, "2000-02-29 12:00:00"), (1_795_778_561, "2026-11-27 11:22:41"), (4_107_542_399, "2100-02-28 23:59:59")];
        known.iter().for_each(|(seconds, text)| assert_eq!(super::date_text(*seconds), *text));
    }
}
