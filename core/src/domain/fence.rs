//! Fencing: that a node is off, proved by reading it back from the device that switches it (protocol 4.6).
//!
//! Releases say that a node's lease is over. Whoever checks no lease, a foreign service or a shared disk, is not protected by that: a service
//! that says `fence: required` is taken over from a lost node only when the log holds evidence that this very life of it was switched off. The
//! evidence is an entry, so that every node knows it and judges the takeover by the same rows. It stands until the node begins another life.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Change, Domain, Void};
use crate::ids::{GroupName, LogIndex, Member, Version};

/// How a node is switched off: a command of the operator's, run on the node that wants to take over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FenceConfig {
    /// The program and its arguments. Whom to fence stands in its environment: `SIXNINES_FENCE_NODE` (n1), `_CHASSIS` (mxp1), `_INCARNATION` and
    /// `_REQUEST_ID`. It ends with 0 and a last line `{"state":"off","evidence":"..."}` when it has read back that the node is off; all else is a failure.
    pub command: Vec<String>,
    /// A command that has not ended by then is killed, and has failed: 100 ms to 10 min, 10 s if left out.
    #[serde(default = "ten_seconds", with = "span")]
    pub timeout: Duration,
}

/// Whether a service is taken over from a lost node on releases alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fencing {
    /// The lease and the gate are enough.
    #[default]
    None,
    /// Something of it, a foreign process or a disk, checks no lease: the node is to be off first.
    Required,
}

impl Fencing {
    /// Whether nothing is said of it in files.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// Evidence that a node's life was ended from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fenced {
    /// Which life.
    pub target: Member,
    /// Who ran the command.
    pub by: Member,
    /// What the device said, at most [`EVIDENCE_MAX`] bytes.
    pub evidence: String,
}

/// What the bytes of a configuration bear of fencing, behind everything else.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Tail {
    pub(super) method: Option<FenceConfig>,
    pub(super) required: BTreeSet<GroupName>,
}

/// Longest evidence in the log, in bytes.
pub const EVIDENCE_MAX: usize = 512;
/// Shortest and longest [`FenceConfig::timeout`].
const TIMEOUT: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(600);

impl FenceConfig {
    /// Looks for what cannot be.
    ///
    /// # Errors
    /// In the operator's words.
    pub fn check(&self) -> Result<(), String> {
        if self.command.first().is_none_or(String::is_empty) {
            return Err("fence has no command: the program that switches a node off, and its arguments".into());
        }
        if !TIMEOUT.contains(&self.timeout) {
            return Err(format!("fence.timeout is {} ms; it is between 100ms and 10m, 10s if left out", self.timeout.as_millis()));
        }
        Ok(())
    }
}

impl Domain {
    /// Whether the log holds evidence that this life was ended by a fence.
    pub fn is_fenced(&self, member: Member) -> bool {
        self.fenced.get(&member.node).is_some_and(|f| f.target == member)
    }

    /// Whether a life can still speak or remember: it is its node's last one, and nobody has switched it off.
    pub fn counts(&self, member: Member) -> bool {
        self.is_current(member) && !self.is_fenced(member)
    }

    /// Whether releases alone do not let `group` be taken over from `old` (protocol 4.6).
    pub fn waits_for_fence(&self, group: &GroupName, old: Member) -> bool {
        self.config.requires_fence(group) && self.counts(old)
    }

    /// Evidence counts for the life and the sign of life that its finder saw: a node that came back since then is another matter.
    pub(super) fn fence(&mut self, target: Member, since: LogIndex, by: Member, evidence: &str) -> Result<Vec<Change>, Void> {
        if self.config.fence.is_none() {
            return Err(Void::Config("this domain has no fence command".into()));
        }
        if evidence.is_empty() || evidence.len() > EVIDENCE_MAX {
            return Err(Void::Config(format!("evidence of a fence has 1 to {EVIDENCE_MAX} bytes, this has {}", evidence.len())));
        }
        let row = self.nodes.get(&target.node).ok_or_else(|| Void::Unknown(target.node.to_string()))?;
        if let Some(over) = [target, by].into_iter().find(|m| !self.is_current(*m)) {
            return Err(Void::Superseded(over));
        }
        if row.since != since {
            return Err(Void::Version { made_for: Version(since.0), present: Version(row.since.0) });
        }
        if by.node == target.node || self.is_fenced(by) {
            return Err(Void::NotFenced(target)); // who is off has seen nothing
        }
        if self.is_fenced(target) {
            return Err(Void::Repeated);
        }
        self.fenced.insert(target.node, Fenced { target, by, evidence: evidence.to_owned() });
        Ok(vec![Change::Fenced(target)])
    }
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

/// `10s` in files, milliseconds in the log.
mod span {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

    use super::Duration;
    use crate::config::parse_duration;

    pub(super) fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        if serializer.is_human_readable() { format!("{millis}ms").serialize(serializer) } else { millis.serialize(serializer) }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        if !deserializer.is_human_readable() {
            return u64::deserialize(deserializer).map(Duration::from_millis);
        }
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is no time: a number with a unit, such as 10s")))
    }
}

/// A word that stands in files alone: in bytes it takes no room, and [`Tail`] bears it.
pub(super) mod in_files {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Fencing;

    pub(in crate::domain) fn serialize<S: Serializer>(fencing: &Fencing, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { fencing.serialize(serializer) } else { serializer.serialize_unit() }
    }

    pub(in crate::domain) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Fencing, D::Error> {
        if deserializer.is_human_readable() { Fencing::deserialize(deserializer) } else { Ok(Fencing::None) }
    }
}
