//! Who may come in and who may not: invitations, which certificates count, expulsion.
//!
//! A certificate bears the number of its *admission*: the index of the `Admit` entry that it was issued on, 0 for those made with the domain.
//! The log holds for each node the lowest number that counts. Expelling a node raises it past everything the node ever had, renewed or
//! copied, so nobody has to know which certificates there are; admitting another machine under its name raises it again.
//!
//! An expelled node keeps its seat in the configuration: to everybody else it is a node that is dead, and what it was active for is taken
//! over by the rules for the dead, after the promises made to it have run out (protocol 3.4). Its vote stays with the seat: of three voters two are
//! needed either way, and a count that changed with each expulsion would move the majority under everybody's promises.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::config::{DomainConfig, NodeConfig};
use super::{Change, Domain, Void};
use crate::ids::{LogIndex, NodeId};
use crate::time::WallTime;

/// A SHA-256, of a token or of a public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An operator's invitation of one machine to be one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Invitation {
    /// What its token hashes to.
    pub token: Fingerprint,
    /// The place that waits for it.
    pub seat: NodeConfig,
    /// See [`Entry::Invite`](super::Entry::Invite).
    pub expires: WallTime,
    /// The key that it was used for. It counts once.
    pub used_for: Option<Fingerprint>,
}

/// Which certificates of a node count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// Certificates with a lower number are refused.
    pub number: u64,
    /// None counts: it was expelled, and nobody has been admitted under its name since.
    pub is_expelled: bool,
}

/// Why a token lets nobody in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Another one, or a changed one, or one whose invitation was withdrawn.
    #[error("there is no such invitation of {0}: it was replaced by a newer one or withdrawn, or the token was changed on its way")]
    Unknown(NodeId),
    /// It counts once.
    #[error("the invitation of {0} has been used: it lets one machine in, once")]
    Used(NodeId),
    /// Too late.
    #[error("the invitation of {node} was over {late_s} s ago")]
    Expired {
        /// Whose.
        node: NodeId,
        /// How late it is, in seconds.
        late_s: u64,
    },
    /// Two machines cannot be one node.
    #[error("{0} is a member: two machines cannot be one node")]
    Member(NodeId),
}

impl Domain {
    /// Whether a node was expelled and nobody has taken its place.
    pub fn is_expelled(&self, node: NodeId) -> bool {
        self.admissions.get(&node).is_some_and(|a| a.is_expelled)
    }

    /// The lowest admission whose certificates count for a node.
    pub fn admission(&self, node: NodeId) -> u64 {
        self.admissions.get(&node).map_or(0, |a| a.number)
    }

    /// The configuration with this node at this seat.
    ///
    /// # Errors
    /// [`Void`]: it is a member already, or the domain would contradict itself.
    pub fn seated(&self, seat: &NodeConfig) -> Result<DomainConfig, Void> {
        if self.config.node(seat.id).is_some() && !self.is_expelled(seat.id) {
            return Err(Void::Invitation(Refusal::Member(seat.id)));
        }
        let mut config = self.config.clone();
        config.nodes.retain(|n| n.id != seat.id);
        config.nodes.push(seat.clone());
        config.nodes.sort_by_key(|n| n.id);
        config.check().map_err(|e| Void::Config(e.to_string()))?;
        Ok(config)
    }

    /// Whether the token that hashes to this would let this key in, and by which admission it has, if it was used for the same key.
    ///
    /// # Errors
    /// [`Refusal`], in the words for whoever shows it.
    pub fn check_token(&self, node: NodeId, token: Fingerprint, key: Fingerprint, at: WallTime) -> Result<Option<u64>, Refusal> {
        let invitation = self.invitations.get(&node).filter(|i| i.token == token).ok_or(Refusal::Unknown(node))?;
        match invitation.used_for {
            Some(used_for) if used_for == key && !self.is_expelled(node) => Ok(Some(self.admission(node))),
            Some(_) => Err(Refusal::Used(node)),
            None if at > invitation.expires => Err(Refusal::Expired { node, late_s: (at.0 - invitation.expires.0) / 1_000_000_000 }),
            None => Ok(None),
        }
    }

    pub(super) fn invite(&mut self, token: Fingerprint, seat: &NodeConfig, expires: WallTime) -> Result<Vec<Change>, Void> {
        self.seated(seat)?;
        if self.invitations.get(&seat.id).is_some_and(|i| i.token == token) {
            return Err(Void::Repeated);
        }
        self.invitations.insert(seat.id, Invitation { token, seat: seat.clone(), expires, used_for: None });
        Ok(vec![Change::Invited(seat.id)])
    }

    pub(super) fn admit(&mut self, index: LogIndex, node: NodeId, token: Fingerprint, key: Fingerprint, at: WallTime, disk: u64) -> Result<Vec<Change>, Void> {
        if self.check_token(node, token, key, at).map_err(Void::Invitation)?.is_some() {
            return Err(Void::Repeated);
        }
        let seat = self.invitations[&node].seat.clone();
        let config = self.seated(&seat)?;
        self.invitations.get_mut(&node).expect("its token was compared").used_for = Some(key);
        self.admissions.insert(node, Admission { number: index.0, is_expelled: false });
        if disk != 0 {
            self.lost_disks.insert(node, disk); // who comes under this name now has another one
        }
        let mut changes = vec![Change::Admitted(node)];
        if config != self.config {
            changes.extend(self.take_configuration(index, &config));
        }
        Ok(changes)
    }

    pub(super) fn expel(&mut self, index: LogIndex, node: NodeId) -> Result<Vec<Change>, Void> {
        if self.config.node(node).is_none() {
            return Err(Void::Unknown(node.to_string()));
        }
        if self.is_expelled(node) {
            return Err(Void::Repeated);
        }
        self.admissions.insert(node, Admission { number: index.0, is_expelled: true });
        self.invitations.remove(&node);
        Ok(vec![Change::Expelled(node)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Entry;
    use crate::domain::config::ChassisConfig;
    use crate::ids::Version;

    const SECOND: u64 = 1_000_000_000;

    fn seat(id: u16) -> NodeConfig {
        let links = vec![format!("10.9.1.{id}:7400").parse().expect("an address")];
        NodeConfig { id: NodeId(id), chassis: "mxp1".into(), links, voter: id <= 3, witness: false }
    }

    fn hash(of: u8) -> Fingerprint {
        Fingerprint([of; 32])
    }

    struct World(Domain);

    impl World {
        fn new() -> Self {
            let mut world = Self(Domain::default());
            let chassis = vec![ChassisConfig { name: "mxp1".into(), manager: None }];
            let config = DomainConfig { domain: "lab".into(), nodes: (1..=3).map(seat).collect(), chassis, ..DomainConfig::default() };
            world.apply(Entry::Configure { expected: Version(0), config }).expect("a configuration");
            world
        }

        fn apply(&mut self, entry: Entry) -> Result<Vec<Change>, Void> {
            self.0.apply(LogIndex(self.0.applied.0 + 1), &entry)
        }

        fn invite(&mut self, id: u16, token: u8) -> Result<Vec<Change>, Void> {
            self.apply(Entry::Invite { token: hash(token), seat: seat(id), expires: WallTime(100 * SECOND) })
        }

        fn admit(&mut self, id: u16, token: u8, key: u8, at_s: u64) -> Result<Vec<Change>, Void> {
            self.apply(Entry::Admit { node: NodeId(id), token: hash(token), key: hash(key), at: WallTime(at_s * SECOND), disk: 77 })
        }
    }

    #[test]
    fn an_invitation_changes_nothing_until_its_token_is_shown_and_counts_once() {
        let mut world = World::new();
        world.invite(4, 7).expect("n4 is invited");
        assert_eq!(world.0.config.nodes.len(), 3);
        let changes = world.admit(4, 7, 1, 50).expect("n4 comes");
        assert_eq!(changes, [Change::Admitted(NodeId(4)), Change::Configured]);
        assert_eq!((world.0.config.nodes.len(), world.0.config_version, world.0.admission(NodeId(4))), (4, Version(2), 3));
        assert_eq!(world.admit(4, 7, 1, 999), Err(Void::Repeated), "the answer was lost: the same key may ask again");
        assert_eq!(world.admit(4, 7, 2, 51), Err(Void::Invitation(Refusal::Used(NodeId(4)))));
        assert_eq!(world.0.admission(NodeId(4)), 3);
    }

    #[test]
    fn a_token_for_another_name_a_changed_a_replaced_and_a_late_one_are_refused() {
        let mut world = World::new();
        world.invite(4, 7).expect("n4 is invited");
        let refused = |refusal| Err(Void::Invitation(refusal));
        assert_eq!(world.admit(5, 7, 1, 50), refused(Refusal::Unknown(NodeId(5))));
        assert_eq!(world.admit(4, 8, 1, 50), refused(Refusal::Unknown(NodeId(4))));
        assert_eq!(world.admit(4, 7, 1, 103), refused(Refusal::Expired { node: NodeId(4), late_s: 3 }));
        world.invite(4, 9).expect("n4 is invited again");
        assert_eq!(world.admit(4, 7, 1, 50), refused(Refusal::Unknown(NodeId(4))));
        assert_eq!(world.invite(2, 9), refused(Refusal::Member(NodeId(2))));
        assert_eq!(world.0.config.nodes.len(), 3, "nobody came in");
    }

    #[test]
    fn who_is_expelled_keeps_its_seat_and_gives_it_to_whoever_is_invited_under_its_name() {
        let mut world = World::new();
        world.apply(Entry::Expel { node: NodeId(3) }).expect("n3 is expelled");
        assert!(world.0.is_expelled(NodeId(3)) && world.0.config.is_voter(NodeId(3)));
        assert_eq!((world.0.admission(NodeId(3)), world.0.lost_disks.get(&NodeId(3))), (2, None));
        assert_eq!(world.apply(Entry::Expel { node: NodeId(3) }), Err(Void::Repeated));
        assert_eq!(world.apply(Entry::Expel { node: NodeId(9) }), Err(Void::Unknown("n9".into())));
        world.invite(3, 7).expect("n3 is invited");
        assert!(world.0.is_expelled(NodeId(3)), "not before somebody comes");
        world.admit(3, 7, 1, 50).expect("another n3 comes");
        assert_eq!((world.0.is_expelled(NodeId(3)), world.0.admission(NodeId(3)), world.0.lost_disks.get(&NodeId(3))), (false, 6, Some(&77)));
        world.apply(Entry::Expel { node: NodeId(3) }).expect("that one too");
        assert_eq!(world.admit(3, 7, 1, 50), Err(Void::Invitation(Refusal::Unknown(NodeId(3)))), "its old token does not bring it back");
    }

    #[test]
    fn a_second_voter_of_two_is_not_even_invited() {
        let mut world = World::new();
        let two = NodeConfig { voter: true, ..seat(4) };
        world.apply(Entry::Invite { token: hash(1), seat: two, expires: WallTime(1) }).expect("four voters can agree");
        let alone = DomainConfig { nodes: vec![seat(1)], ..world.0.config.clone() };
        world.apply(Entry::Configure { expected: Version(1), config: alone }).expect("a configuration");
        assert!(matches!(world.invite(2, 2), Err(Void::Config(_))));
    }
}
