//! The control log's entries and their bytes.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::admission::Fingerprint;
use super::config::{Bundle, DomainConfig, NodeConfig};
use super::feature::Level;
use super::limits::Limits;
use crate::ids::{Epoch, EventId, GroupName, Incarnation, LogIndex, Member, NodeId, Version};
use crate::time::WallTime;

/// A proposal; law once the control log has committed it and [`super::Domain::apply`] has not found it void.
///
/// Never renumber or remove a variant: old logs bear them (protocol 6.3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Entry {
    /// A node begins a life; the entry's index becomes its incarnation.
    Joined {
        /// Who.
        node: NodeId,
        /// Drawn by the node for this life, so that it knows the entry as its own.
        nonce: u64,
        /// The life that it saw in the log before this one (0: none). What an earlier process sent and the log commits late would
        /// otherwise end a life that goes on, and its groups be taken over without a release.
        replaces: Incarnation,
    },
    /// A node that voters had released is back before anyone took over.
    Confirm {
        /// Who, in which life.
        node: Member,
        /// The `since` of its row that the proposer saw.
        since: LogIndex,
    },
    /// The configuration as a whole.
    Configure {
        /// The configuration's version that the proposer saw.
        expected: Version,
        /// What is to be law.
        config: DomainConfig,
    },
    /// Classes, objects and policies as a whole.
    Bundle {
        /// The bundle's version that the proposer saw.
        expected: Version,
        /// What is to be law.
        bundle: Bundle,
    },
    /// The first active, or a new one after every complete copy was lost.
    Start {
        /// Which group.
        group: GroupName,
        /// The row's version that the proposer saw.
        version: Version,
        /// The new active.
        to: Member,
        /// The copies that were compared; each is fenced by its offer. Unused for a group that never ran.
        offers: BTreeSet<Member>,
        /// Nothing was left: the application starts from an empty state, and is told.
        lost: bool,
    },
    /// The active is gone.
    Takeover {
        /// Which group.
        group: GroupName,
        /// The row's version that the proposer saw.
        version: Version,
        /// The proposer itself.
        to: Member,
        /// Why the old active cannot speak.
        evidence: Evidence,
    },
    /// The active hands over, quiesced, and has relinquished.
    Switchover {
        /// Which group.
        group: GroupName,
        /// The row's version that the proposer saw.
        version: Version,
        /// The active, the only one who may ask.
        by: Member,
        /// Its successor; itself to give a switchover up.
        to: Member,
    },
    /// The active lists another in-sync set.
    Sync {
        /// Which group.
        group: GroupName,
        /// The row's version that the proposer saw.
        version: Version,
        /// The active, the only one who may ask.
        by: Member,
        /// The new set.
        in_sync: BTreeSet<Member>,
    },
    /// An operator's word that the disk from which a node votes is lost: it may be let go, and the node taken in with the one it has now.
    DiskLost {
        /// Whose.
        node: NodeId,
        /// The lost disk's number, drawn when it was first used.
        disk: u64,
    },
    /// An operator invites a machine: whoever shows the token, once and in time, is given a certificate for this seat. Replaces an earlier
    /// invitation of the same node.
    Invite {
        /// What the token hashes to; the token itself is nowhere but in the operator's hands.
        token: Fingerprint,
        /// The node's place, as it will stand in the configuration.
        seat: NodeConfig,
        /// By the wall clock of the node that is shown the token: a bound, and not what makes it count once.
        expires: WallTime,
    },
    /// The token was shown: its node is a member from now on, with certificates of this entry's index.
    Admit {
        /// Who is to be admitted.
        node: NodeId,
        /// What the token hashes to.
        token: Fingerprint,
        /// The public key that is to be certified: the same one may ask again, should the answer have been lost.
        key: Fingerprint,
        /// The wall clock of the node that was shown it.
        at: WallTime,
        /// The disk that a former bearer of the name votes with, given up with it; 0: there is none. Not said when that one was expelled: it is
        /// learnt in a node's first second, and an expulsion waits for nothing.
        disk: u64,
    },
    /// An operator's word that a node does not belong here any more: no certificate that it ever had counts from now on.
    Expel {
        /// Who.
        node: NodeId,
    },
    /// Other limits, as a whole. Unlike a configuration it names no node: nobody's lease waits until it is applied everywhere.
    Limits {
        /// The configuration's version that the proposer saw.
        expected: Version,
        /// What is to be law.
        limits: Limits,
    },
    /// A node was switched off, and the device that did it has been read back (protocol 4.6).
    Fenced {
        /// Which life of it.
        target: Member,
        /// The `since` of its row that the proposer saw.
        since: LogIndex,
        /// The proposer, who ran the command.
        by: Member,
        /// What the device said; bounded by [`super::fence::EVIDENCE_MAX`].
        evidence: String,
    },
    /// Every member reads the next feature level, and an operator wants it in force: new kinds may be written from here on.
    Feature {
        /// The level that is to be in force: the present one and 1.
        level: Level,
    },
}

/// Why an old active can no longer speak.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Evidence {
    /// A majority of voters has released it.
    Released(Vec<Release>),
    /// It said itself that it is silent for good under this epoch.
    Relinquished {
        /// The old active.
        by: Member,
        /// The epoch that it gave up.
        epoch: Epoch,
    },
}

/// A voter's word that its promise to `target` has run out and that it will not grant again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The voter, in the life in which it said so.
    pub voter: Member,
    /// Whom it holds for dead or mute.
    pub target: Member,
    /// The `since` of the target's row that the voter had applied.
    pub since: LogIndex,
}

/// First byte of every encoded entry.
const FORMAT: u8 = 1;
/// The number of [`Entry::Configure`].
const CONFIGURE: u8 = 2;
/// The number of the last kind that this version knows, [`Entry::Feature`].
const LAST: u32 = 14;

impl Entry {
    /// The entry's bytes in the log.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![FORMAT]).expect("an entry in memory has an encoding")
    }

    /// Reads an entry from the log.
    ///
    /// # Errors
    /// [`DecodeError`] for another format, an unknown kind, or bytes too many or too few. It is never skipped:
    /// a node that cannot read an entry must stop (protocol 6.3).
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (&format, rest) = bytes.split_first().ok_or(DecodeError::Empty)?;
        if format != FORMAT {
            return Err(DecodeError::Format { theirs: format, ours: FORMAT });
        }
        if let Ok((kind, _)) = postcard::take_from_bytes::<u32>(rest)
            && kind > LAST
        {
            return Err(DecodeError::Kind { theirs: kind, ours: LAST });
        }
        match postcard::take_from_bytes(rest) {
            Ok((entry, [])) => Ok(entry),
            Ok((_, left)) => Err(DecodeError::Trailing(left.len())),
            Err(postcard::Error::DeserializeUnexpectedEnd) if rest.first() == Some(&CONFIGURE) => Self::decode_shorter(rest),
            Err(source) => Err(DecodeError::Body(source)),
        }
    }

    /// A configuration in which nothing is said of fencing ends before it, and one without limits before those: so have all that were written
    /// before there were any, and older versions read those that are written today. Nothing said is a 0 each.
    fn decode_shorter(rest: &[u8]) -> Result<Self, DecodeError> {
        let with = |zeros: &[u8]| postcard::from_bytes(&[rest, zeros].concat());
        with(&[0]).or_else(|_| with(&[0, 0])).map_err(DecodeError::Body)
    }

    /// The nodes that the entry is about: until they have applied it they get no lease (protocol 3.3).
    pub fn about(&self) -> impl Iterator<Item = NodeId> {
        let named: Vec<NodeId> = match self {
            Self::Joined { node, .. } => vec![*node],
            Self::Confirm { node, .. } => vec![node.node],
            Self::Start { to, .. } => vec![to.node],
            Self::Takeover { to, evidence, .. } => match evidence {
                Evidence::Released(releases) => [to.node].into_iter().chain(releases.iter().map(|r| r.target.node)).collect(),
                Evidence::Relinquished { by, .. } => vec![to.node, by.node],
            },
            Self::Switchover { by, to, .. } => vec![by.node, to.node],
            Self::Sync { by, in_sync, .. } => [by.node].into_iter().chain(in_sync.iter().map(|m| m.node)).collect(),
            Self::Configure { config, .. } => config.nodes.iter().map(|n| n.id).collect(),
            Self::Admit { node, .. } | Self::Expel { node } => vec![*node],
            Self::Fenced { target, .. } => vec![target.node],
            Self::Bundle { .. } | Self::DiskLost { .. } | Self::Invite { .. } | Self::Limits { .. } | Self::Feature { .. } => Vec::new(),
        };
        named.into_iter()
    }
}

/// What a node hands to the control log, and what the log bears: an entry, who asks for it, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// The proposer.
    pub by: NodeId,
    /// The proposer's own number for this proposal: by it the outcome comes back. 0: nobody waits for it.
    pub ticket: u64,
    /// The event or command that led to it.
    pub cause: Option<EventId>,
    /// What is to be law.
    pub entry: Entry,
}

/// First byte of every encoded proposal. Its entry follows with a format of its own.
const PROPOSAL_FORMAT: u8 = 1;

impl Proposal {
    /// The command's bytes in the log.
    pub fn encode(&self) -> Vec<u8> {
        let head = (self.by, self.ticket, self.cause);
        let mut bytes = postcard::to_extend(&head, vec![PROPOSAL_FORMAT]).expect("three numbers have an encoding");
        bytes.extend_from_slice(&self.entry.encode());
        bytes
    }

    /// Reads a command from the log.
    ///
    /// # Errors
    /// As [`Entry::decode`]; never skipped.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (&format, rest) = bytes.split_first().ok_or(DecodeError::Empty)?;
        if format != PROPOSAL_FORMAT {
            return Err(DecodeError::Format { theirs: format, ours: PROPOSAL_FORMAT });
        }
        let ((by, ticket, cause), rest) = postcard::take_from_bytes(rest).map_err(DecodeError::Body)?;
        Ok(Self { by, ticket, cause, entry: Entry::decode(rest)? })
    }
}

/// An entry that this version cannot read. The node stops rather than go on without it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Nothing there.
    #[error("the entry is empty")]
    Empty,
    /// Written by another version.
    #[error("the entry has format {theirs}, this version reads {ours}")]
    Format {
        /// Found.
        theirs: u8,
        /// Known.
        ours: u8,
    },
    /// Of a kind that came after this version.
    #[error("it is of kind {theirs}, this build knows kinds up to {ours}")]
    Kind {
        /// Found.
        theirs: u32,
        /// The last one known.
        ours: u32,
    },
    /// Too long.
    #[error("{0} bytes follow the entry")]
    Trailing(usize),
    /// Too short, or with something in it that this version does not know.
    #[error("the entry's body cannot be read")]
    Body(#[source] postcard::Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::limits::Limit;

    fn proposal() -> Proposal {
        let cause = EventId { node: NodeId(3), incarnation: Incarnation(5), sequence: 990 };
        Proposal { by: NodeId(2), ticket: 7, cause: Some(cause), entry: Entry::Joined { node: NodeId(2), nonce: 300, replaces: Incarnation(4) } }
    }

    #[test]
    fn format_1_has_these_bytes() {
        let bytes = [1, 2, 7, 1, 3, 5, 0xDE, 7, 1, 0, 2, 0xAC, 2, 4];
        assert_eq!(proposal().encode(), bytes);
        assert_eq!(Proposal::decode(&bytes), Ok(proposal()));
    }

    #[test]
    fn a_configuration_without_limits_has_the_bytes_it_had_before_there_were_any() {
        let configure = |limits: Limits| Entry::Configure { expected: Version(1), config: DomainConfig { domain: "lab".into(), limits, ..DomainConfig::default() } };
        let bytes = configure(Limits::default()).encode();
        assert_eq!(bytes, [1, CONFIGURE, 1, 3, b'l', b'a', b'b', 1, 0, 0, 0]);
        assert_eq!(Entry::decode(&bytes), Ok(configure(Limits::default())));
        assert!(matches!(Entry::decode(&bytes[..bytes.len() - 1]), Err(DecodeError::Body(_))), "a torn one is not taken for an old one");
        let limited = configure(Limits::default().with(Limit::Objects, 100));
        assert_eq!(limited.encode(), [&bytes[..], &[1, 0, 100]].concat());
        assert_eq!(Entry::decode(&limited.encode()), Ok(limited));
        let entry = Entry::Limits { expected: Version(1), limits: Limits::default() };
        assert_eq!((entry.encode(), Entry::decode(&entry.encode())), (vec![1, 12, 1, 0], Ok(entry)));
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_name() {
        let good = proposal().encode();
        assert_eq!(Proposal::decode(&[]), Err(DecodeError::Empty));
        assert_eq!(Proposal::decode(&[9]), Err(DecodeError::Format { theirs: 9, ours: 1 }));
        assert_eq!(Proposal::decode(&good[..8]), Err(DecodeError::Empty), "the entry is missing");
        assert!(matches!(Proposal::decode(&good[..10]), Err(DecodeError::Body(_))));
        assert_eq!(Proposal::decode(&[&good[..], &[0]].concat()), Err(DecodeError::Trailing(1)));
        let mut unknown_kind = good;
        unknown_kind[9] = 200;
        assert_eq!(Proposal::decode(&unknown_kind), Err(DecodeError::Kind { theirs: 328, ours: LAST }));
    }

    #[test]
    fn the_kind_after_the_last_one_is_named_and_the_last_one_is_read() {
        let last = Entry::Feature { level: Level(2) };
        assert_eq!(last.encode(), [FORMAT, u8::try_from(LAST).expect("small"), 2]);
        assert_eq!(Entry::decode(&last.encode()), Ok(last));
        let next = LAST + 1;
        let why = Entry::decode(&[FORMAT, u8::try_from(next).expect("small"), 2]).expect_err("nobody knows it");
        assert_eq!(why, DecodeError::Kind { theirs: next, ours: LAST });
        assert_eq!(why.to_string(), "it is of kind 15, this build knows kinds up to 14");
    }
}
