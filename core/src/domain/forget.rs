//! Taking a node that was expelled out of the configuration for good (README, "Machines come, go").
//!
//! The entry is an ordinary [`super::Entry::Configure`]; what is here is the question that whoever proposes it asks first. A node is missed as long
//! as a row names the life that it had: nobody would judge it any more, so nobody could take over from it or let its copy go. Its row of
//! admissions stays, so that no certificate that it ever had counts if somebody is invited under its name later.

use super::Domain;
use super::config::DomainConfig;
use crate::ids::{GroupName, NodeId};
use crate::time::WallTime;

/// Why a node cannot be forgotten now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missed {
    /// There is none.
    #[error("there is no node {0}")]
    Unknown(NodeId),
    /// It was not expelled.
    #[error("{0} is a member of this domain: only who was expelled is forgotten")]
    Member(NodeId),
    /// Whoever shows the token would be this node again.
    #[error("{0} is invited, and its token counts for another {1} s")]
    Invited(NodeId, u64),
    /// It has not been taken over from, or its copy still counts.
    #[error("{group} still counts on {node}: {what}")]
    Counts {
        /// Whom.
        node: NodeId,
        /// Who counts on it.
        group: GroupName,
        /// For what.
        what: &'static str,
    },
    /// Too few would be left where the group can run.
    #[error("{group} can run on {node} and on too few others: {left} would be left, and it takes {needed}")]
    Candidate {
        /// Whose seat it is.
        node: NodeId,
        /// What could not run any more.
        group: GroupName,
        /// The candidates without it.
        left: usize,
        /// The group's floor.
        needed: usize,
    },
    /// The rest would contradict itself, such as two voters.
    #[error("without the seat of {0} the domain would contradict itself: {1}")]
    Config(NodeId, String),
}

impl Domain {
    /// The configuration without a node that was expelled, its name taken out of the services' lists as well. `at` is the wall clock of whoever asks.
    ///
    /// # Errors
    /// [`Missed`], in the operator's words.
    pub fn without(&self, node: NodeId, at: WallTime) -> Result<DomainConfig, Missed> {
        if self.config.node(node).is_none() {
            return Err(Missed::Unknown(node));
        }
        if !self.is_expelled(node) {
            return Err(Missed::Member(node));
        }
        if let Some(open) = self.invitations.get(&node).filter(|i| i.used_for.is_none() && i.expires >= at) {
            return Err(Missed::Invited(node, (open.expires.0 - at.0).div_ceil(1_000_000_000)));
        }
        let life = self.member(node);
        for (group, row) in self.groups.iter().filter(|_| life.is_some()) {
            let counts = |what| Err(Missed::Counts { node, group: group.clone(), what });
            if row.active == life {
                return counts("nobody has taken over from it yet");
            }
            if row.in_sync.iter().any(|m| Some(*m) == life) {
                return counts("its copy is one of those that have everything, until the active lets it go with its next write");
            }
        }
        let mut config = self.config.clone();
        config.nodes.retain(|n| n.id != node);
        config.services.iter_mut().for_each(|s| s.nodes.retain(|n| *n != node));
        for before in self.config.groups().filter(|g| g.candidates.contains(&node)) {
            // Not from the new configuration: a list that has become empty would mean everybody.
            let (left, needed) = (before.candidates.len() - 1, usize::from(before.floor));
            if left < needed {
                return Err(Missed::Candidate { node, group: before.name, left, needed });
            }
        }
        config.check().map_err(|e| Missed::Config(node, e.to_string()))?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::admission::Fingerprint;
    use crate::domain::config::{ChassisConfig, NodeConfig, OnTotalLoss, ServiceConfig};
    use crate::domain::{Entry, Void};
    use crate::ids::{Epoch, Incarnation, LogIndex, Member, Version};

    const NOW: WallTime = WallTime(50_000_000_000);

    /// Four nodes in one chassis, three of which vote, and a service that is to run on 3 or 4.
    struct World(Domain);

    impl World {
        fn new() -> Self {
            let seat = |id: u16| NodeConfig { id: NodeId(id), chassis: "mxp1".into(), links: vec![format!("10.9.1.{id}:7400").parse().expect("an address")], voter: id <= 3, witness: false };
            let service = ServiceConfig {
                name: GroupName::new("calls"),
                command: vec!["calls".into()],
                addresses: Vec::new(),
                device: None,
                nodes: vec![NodeId(3), NodeId(4)],
                copies: 2,
                floor: 1,
                on_total_loss: OnTotalLoss::Wait,
                fence: Default::default(),
            };
            let chassis = vec![ChassisConfig { name: "mxp1".into(), manager: None }];
            let config = DomainConfig { domain: "lab".into(), nodes: (1..=4).map(seat).collect(), chassis, services: vec![service], ..DomainConfig::default() };
            let mut world = Self(Domain::default());
            world.apply(Entry::Configure { expected: Version(0), config });
            for node in 1..=4 {
                world.apply(Entry::Joined { node: NodeId(node), nonce: u64::from(node), replaces: Incarnation(0) });
            }
            world
        }

        fn try_apply(&mut self, entry: Entry) -> Result<(), Void> {
            self.0.apply(LogIndex(self.0.applied.0 + 1), &entry).map(drop)
        }

        fn apply(&mut self, entry: Entry) {
            self.try_apply(entry).expect("it takes effect");
        }

        fn expel(&mut self, node: u16) {
            self.apply(Entry::Expel { node: NodeId(node) });
        }

        fn without(&self, node: u16) -> Result<DomainConfig, Missed> {
            self.0.without(NodeId(node), NOW)
        }

        fn member(&self, node: u16) -> Member {
            self.0.member(NodeId(node)).expect("it has joined")
        }
    }

    #[test]
    fn only_who_was_expelled_is_forgotten_and_comes_back_with_another_certificate_alone() {
        let mut world = World::new();
        assert_eq!(world.without(9), Err(Missed::Unknown(NodeId(9))));
        assert_eq!(world.without(4), Err(Missed::Member(NodeId(4))));
        world.expel(4);
        let config = world.without(4).expect("nobody misses it");
        assert_eq!((config.nodes.len(), &config.services[0].nodes), (3, &vec![NodeId(3)]));
        world.apply(Entry::Configure { expected: world.0.config_version, config });
        assert_eq!(world.without(4), Err(Missed::Unknown(NodeId(4))));
        let again = Entry::Joined { node: NodeId(4), nonce: 7, replaces: world.member(4).incarnation };
        assert_eq!(world.try_apply(again), Err(Void::Unknown("n4".into())));
        assert!(world.0.is_expelled(NodeId(4)) && world.0.admission(NodeId(4)) > 0, "what it had counts no more, whoever is invited");
    }

    #[test]
    fn whoever_a_group_counts_on_is_missed() {
        let mut world = World::new();
        let (group, third, fourth) = (GroupName::new("calls"), world.member(3), world.member(4));
        world.apply(Entry::Start { group: group.clone(), version: world.0.groups[&group].version, to: fourth, offers: BTreeSet::new(), lost: false });
        world.expel(4);
        let counts = |world: &World| match world.without(4) {
            Err(Missed::Counts { group, what, .. }) => (group.to_string(), what.contains("taken over")),
            other => panic!("{other:?}"),
        };
        assert_eq!(counts(&world), ("calls".into(), true));
        let row = world.0.groups.get_mut(&group).expect("its row");
        (row.active, row.epoch, row.in_sync) = (Some(third), Epoch(2), BTreeSet::from([third, fourth]));
        assert_eq!(counts(&world), ("calls".into(), false));
        world.apply(Entry::Sync { group: group.clone(), version: world.0.groups[&group].version, by: third, in_sync: BTreeSet::from([third]) });
        world.without(4).expect("its copy counts no more");
    }

    #[test]
    fn a_candidate_or_a_vote_that_would_be_missed_keeps_its_seat() {
        let mut world = World::new();
        world.expel(3);
        assert!(matches!(world.without(3), Err(Missed::Config(NodeId(3), why)) if why.contains("two voters")));
        world.expel(4);
        let config = world.without(4).expect("calls can run on n3");
        world.apply(Entry::Configure { expected: world.0.config_version, config });
        let missed = Missed::Candidate { node: NodeId(3), group: GroupName::new("calls"), left: 0, needed: 1 };
        assert_eq!(world.without(3), Err(missed), "an empty list would mean every node");
    }

    #[test]
    fn a_token_that_still_counts_would_bring_it_back() {
        let mut world = World::new();
        world.expel(4);
        let seat = world.0.config.node(NodeId(4)).expect("a seat").clone();
        world.apply(Entry::Invite { token: Fingerprint([1; 32]), seat, expires: WallTime(NOW.0 + 2_500_000_000) });
        assert_eq!(world.without(4), Err(Missed::Invited(NodeId(4), 3)));
        world.0.without(NodeId(4), WallTime(NOW.0 + 3_000_000_000)).expect("it is over");
    }
}
