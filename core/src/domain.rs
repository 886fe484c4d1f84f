//! What the control log decides: who is in the domain, which group is active where, which configuration is law.
//!
//! [`Domain`] is the log's state machine: every node applies the same [`Entry`]s in the same order and holds the same rows.
//! An entry is a proposal that names what it was made for; applied to anything else it does nothing ([`Void`]).
//! Rules: protocol 1. Where this differs from the page: a release (3.4) stands until a newer `Joined` or `Confirm` of its target,
//! not until the takeover, so that two groups of a dead node can be taken over by two nodes on the same releases.

pub mod admission;
pub mod config;
pub mod entry;
pub mod feature;
pub mod fence;
pub mod forget;
pub mod limits;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, Generation, GroupName, Incarnation, LogIndex, Member, NodeId, Version};
use admission::{Admission, Invitation};
use config::{Bundle, DomainConfig};
use feature::Level;
use fence::Fenced;
use limits::Limits;
pub use entry::{DecodeError, Entry, Evidence, Proposal, Release};

/// The state that the control log's entries build up, the same on every node that has applied the same prefix.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Domain {
    /// Index of the last entry applied.
    pub applied: LogIndex,
    /// The configuration in force and how often it has changed.
    pub config: DomainConfig,
    /// Grows with each change of [`Self::config`].
    pub config_version: Version,
    /// Classes, objects and policies in force. Shared: the domain is copied with every entry, and this is the bulk of it.
    pub bundle: Arc<Bundle>,
    /// Grows with each change of [`Self::bundle`]; operators call it the generation of the policies.
    pub bundle_version: Version,
    /// What is known of each node that ever joined.
    pub nodes: BTreeMap<NodeId, NodeRow>,
    /// The role table. A group that was configured away keeps its row.
    pub groups: BTreeMap<GroupName, GroupRow>,
    /// The last disk of each node that an operator gave up for lost; the log's own membership says which one it votes with.
    pub lost_disks: BTreeMap<NodeId, u64>,
    /// The newest invitation of each node that was ever invited.
    pub invitations: BTreeMap<NodeId, Invitation>,
    /// Which certificates of a node count. Who has no row was there when the domain was made, and all of its certificates count.
    pub admissions: BTreeMap<NodeId, Admission>,
    /// The lives that were ended by a fence. Empty where no fence is configured. A snapshot bears them behind the rest, and only then.
    #[serde(skip)]
    pub fenced: BTreeMap<NodeId, Fenced>,
    /// The feature level in force. A snapshot bears it in front of the rest, and only above [`Level::FIRST`].
    #[serde(skip)]
    pub level: Level,
}

/// A node, as the control log knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// The current life.
    pub incarnation: Incarnation,
    /// What the node gave as proof that the `Joined` entry is its own.
    pub nonce: u64,
    /// Index of the last `Joined` or `Confirm` of this node, or of the last change of the voters: releases that name an older one are void.
    pub since: LogIndex,
    /// Index of the last entry that names this node, void ones included: who has not applied it gets no lease.
    pub about: LogIndex,
}

/// A service group, as the control log knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRow {
    /// Counts every change of this row.
    pub version: Version,
    /// Counts starts from nothing.
    pub generation: Generation,
    /// The epoch in force; 0 before the first start.
    pub epoch: Epoch,
    /// Who may speak. May name a life that is over: then nobody speaks.
    pub active: Option<Member>,
    /// The copies that have everything that was acknowledged.
    pub in_sync: BTreeSet<Member>,
}

/// What an applied entry changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A node began a life.
    Joined(Member),
    /// A node that had been released came back in time.
    Confirmed(Member),
    /// A group's row changed.
    Group(GroupName),
    /// There is a new configuration.
    Configured,
    /// There are new policies, classes or objects.
    Bundled,
    /// A node's disk was given up for lost.
    DiskLost(NodeId),
    /// A machine may come and be this node.
    Invited(NodeId),
    /// It has come.
    Admitted(NodeId),
    /// A node does not belong here any more.
    Expelled(NodeId),
    /// A life was ended by a fence.
    Fenced(Member),
    /// The feature level was raised.
    Raised(Level),
}

/// Why an entry did nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Void {
    /// The row or configuration has moved on since the proposal.
    #[error("made for version {made_for}, the present is {present}")]
    Version {
        /// What the proposer had seen.
        made_for: Version,
        /// What is.
        present: Version,
    },
    /// It was said before: the same life begun, the same disk given up.
    #[error("that is so already")]
    Repeated,
    /// No such group, or no such node in the domain.
    #[error("{0} is not in this domain")]
    Unknown(String),
    /// The one to be promoted has no complete copy.
    #[error("{0} is not in sync")]
    NotInSync(Member),
    /// A life that is over was named.
    #[error("{0} is a life that is over")]
    Superseded(Member),
    /// The proposer is not who may ask for this.
    #[error("only the active may ask for this, and {0} is not it")]
    NotActive(Member),
    /// Fewer releases than a majority, or releases that no longer count.
    #[error("{valid} of {needed} releases count")]
    Releases {
        /// How many count.
        valid: usize,
        /// How many it takes.
        needed: usize,
    },
    /// A start was asked for while a complete copy lives, or without an offer from every node.
    #[error("a start needs an empty set and an offer from every node: {0}")]
    Start(String),
    /// The configuration contradicts itself.
    #[error("{0}")]
    Config(String),
    /// A token that lets nobody in.
    #[error("{0}")]
    Invitation(admission::Refusal),
    /// Something of the group checks no lease, and nothing proves that its old active is off.
    #[error("{0} is not known to be off, and a fence is required")]
    NotFenced(Member),
}

impl Domain {
    /// Applies the entry at `index`, which follows everything applied so far.
    ///
    /// # Errors
    /// [`Void`] if the entry does nothing; the index counts as applied all the same.
    pub fn apply(&mut self, index: LogIndex, entry: &Entry) -> Result<Vec<Change>, Void> {
        assert!(index > self.applied, "entry {index} applied after {}", self.applied);
        self.applied = index;
        let result = self.change(index, entry);
        // Void or not: voters count what their log holds about a node, and cannot know what will be void (3.3).
        for node in entry.about() {
            self.touch(index, node);
        }
        result
    }

    fn change(&mut self, index: LogIndex, entry: &Entry) -> Result<Vec<Change>, Void> {
        match entry {
            Entry::Joined { node, nonce, replaces } => self.joined(index, *node, *nonce, *replaces),
            Entry::Confirm { node, since } => self.confirm(index, *node, *since),
            Entry::Configure { expected, config } => self.configure(index, *expected, config),
            Entry::Bundle { expected, bundle } => self.replace_bundle(*expected, bundle),
            Entry::Start { group, version, to, offers, lost } => self.start(index, group, *version, *to, offers, *lost),
            Entry::Takeover { group, version, to, evidence } => self.takeover(index, group, *version, *to, evidence),
            Entry::Switchover { group, version, by, to } => self.switchover(index, group, *version, *by, *to),
            Entry::Sync { group, version, by, in_sync } => self.sync(index, group, *version, *by, in_sync),
            Entry::DiskLost { node, disk } => self.disk_lost(*node, *disk),
            Entry::Invite { token, seat, expires } => self.invite(*token, seat, *expires),
            Entry::Admit { node, token, key, at, disk } => self.admit(index, *node, *token, *key, *at, *disk),
            Entry::Expel { node } => self.expel(index, *node),
            Entry::Limits { expected, limits } => self.limit(index, *expected, limits),
            Entry::Fenced { target, since, by, evidence } => self.fence(*target, *since, *by, evidence),
            Entry::Feature { level } => self.raise(*level),
        }
    }

    /// The current life of `node`; `None` before its first.
    pub fn member(&self, node: NodeId) -> Option<Member> {
        self.nodes.get(&node).map(|row| Member { node, incarnation: row.incarnation })
    }

    /// Whether `member` is a life that still counts.
    pub fn is_current(&self, member: Member) -> bool {
        self.member(member.node) == Some(member)
    }

    /// How many voters make a majority.
    pub fn majority(&self) -> usize {
        self.config.voters().count() / 2 + 1
    }

    /// Rule 1.3: removes the node's older life from every in-sync set.
    fn joined(&mut self, index: LogIndex, node: NodeId, nonce: u64, replaces: Incarnation) -> Result<Vec<Change>, Void> {
        if self.config_version > Version(0) && self.config.node(node).is_none() {
            return Err(Void::Unknown(node.to_string()));
        }
        if self.nodes.get(&node).is_some_and(|row| row.nonce == nonce) {
            return Err(Void::Repeated); // a proposal of unknown outcome, proposed again: the life has begun already
        }
        let present = self.nodes.get(&node).map_or(Incarnation(0), |row| row.incarnation);
        if present != replaces {
            return Err(Void::Superseded(Member { node, incarnation: replaces }));
        }
        let incarnation = Incarnation(index.0);
        self.fenced.remove(&node); // it is on again, and starts clean (4.5)
        self.nodes.insert(node, NodeRow { incarnation, nonce, since: index, about: index });
        let mut changes = vec![Change::Joined(Member { node, incarnation })];
        for (name, row) in &mut self.groups {
            let before = row.in_sync.len();
            row.in_sync.retain(|m| m.node != node);
            let was_active = row.active.is_some_and(|m| m.node == node);
            if row.in_sync.len() != before || was_active {
                row.version.0 += 1;
                changes.push(Change::Group(name.clone()));
            }
        }
        Ok(changes)
    }

    fn confirm(&mut self, index: LogIndex, node: Member, since: LogIndex) -> Result<Vec<Change>, Void> {
        let Some(row) = self.nodes.get_mut(&node.node) else { return Err(Void::Unknown(node.to_string())) };
        if row.incarnation != node.incarnation {
            return Err(Void::Superseded(node));
        }
        if row.since != since {
            return Err(Void::Version { made_for: Version(since.0), present: Version(row.since.0) });
        }
        row.since = index;
        row.about = index;
        self.fenced.remove(&node.node); // what it said before it was switched off is law after it: the fence has to be read back anew
        Ok(vec![Change::Confirmed(node)])
    }

    /// A group that goes keeps its row: should it come back, its epoch goes on, and its old active is not forgotten.
    fn configure(&mut self, index: LogIndex, expected: Version, config: &DomainConfig) -> Result<Vec<Change>, Void> {
        expect_version(expected, self.config_version)?;
        config.check().map_err(|e| Void::Config(e.to_string()))?;
        Ok(self.take_configuration(index, config))
    }

    fn limit(&mut self, index: LogIndex, expected: Version, limits: &Limits) -> Result<Vec<Change>, Void> {
        let config = DomainConfig { limits: limits.clone(), ..self.config.clone() };
        self.configure(index, expected, &config)
    }

    /// The one place where a configuration that has been checked becomes law.
    fn take_configuration(&mut self, index: LogIndex, config: &DomainConfig) -> Vec<Change> {
        let voters = |c: &DomainConfig| c.voters().collect::<BTreeSet<_>>();
        if self.config_version > Version(0) && voters(config) != voters(&self.config) {
            // What the old voters promised binds the new ones: every release is to be given anew.
            self.nodes.values_mut().for_each(|row| (row.since, row.about) = (index, index));
        }
        self.config = config.clone();
        self.config_version.0 += 1;
        if self.config.fence.is_none() {
            self.fenced.clear(); // nothing waits for it any more, and snapshots without a fence bear none
        }
        let mut changes = vec![Change::Configured];
        for group in config.groups() {
            if !self.groups.contains_key(&group.name) {
                self.groups.insert(group.name.clone(), GroupRow::default());
                changes.push(Change::Group(group.name.clone()));
            }
        }
        changes
    }

    fn replace_bundle(&mut self, expected: Version, bundle: &Bundle) -> Result<Vec<Change>, Void> {
        expect_version(expected, self.bundle_version)?;
        self.bundle = Arc::new(bundle.clone());
        self.bundle_version.0 += 1;
        Ok(vec![Change::Bundled])
    }

    /// Rule 1.7. A group that never ran has nothing to lose and needs no offers. A copy whose node is known to be off is gone (4.6).
    fn start(
        &mut self,
        index: LogIndex,
        group: &GroupName,
        version: Version,
        to: Member,
        offers: &BTreeSet<Member>,
        lost: bool,
    ) -> Result<Vec<Change>, Void> {
        let row = self.row(group, version)?;
        if !self.is_current(to) {
            return Err(Void::Superseded(to));
        }
        if !self.config.candidates(group).contains(&to.node) {
            return Err(Void::Unknown(format!("{} as a candidate for {group}", to.node)));
        }
        if let Some(alive) = row.in_sync.iter().find(|m| self.counts(**m)) {
            return Err(Void::Start(format!("{alive} has everything")));
        }
        let first = row.epoch == Epoch(0);
        if !first {
            if row.active.is_some_and(|a| self.counts(a)) {
                return Err(Void::Start("its active still counts".into()));
            }
            // Who was switched off has nothing left to offer.
            let is_known = |n: NodeId| offers.iter().any(|m| m.node == n && self.is_current(*m)) || self.member(n).is_some_and(|m| self.is_fenced(m));
            let missing = self.config.candidates(group).into_iter().find(|n| !is_known(*n));
            if let Some(missing) = missing {
                return Err(Void::Start(format!("no offer from {missing}")));
            }
        }
        let row = self.groups.get_mut(group).expect("row() found it");
        row.in_sync = BTreeSet::from([to]);
        if lost && !first {
            row.generation.0 += 1;
        }
        Ok(self.promote(index, group, to))
    }

    /// Rule 1.4: a member at the moment of application; the old active leaves the set.
    fn takeover(&mut self, index: LogIndex, group: &GroupName, version: Version, to: Member, evidence: &Evidence) -> Result<Vec<Change>, Void> {
        let row = self.row(group, version)?;
        let Some(old) = row.active else { return Err(Void::Start("it has never run".into())) };
        if !self.is_current(to) {
            return Err(Void::Superseded(to));
        }
        if to == old || !row.in_sync.contains(&to) {
            return Err(Void::NotInSync(to));
        }
        self.check_evidence(old, row.epoch, evidence)?;
        if matches!(evidence, Evidence::Released(_)) && self.waits_for_fence(group, old) {
            return Err(Void::NotFenced(old)); // 4.6: relinquished it is silent by its own word, and a life that is over was ended by its successor
        }
        let row = self.groups.get_mut(group).expect("row() found it");
        row.in_sync.remove(&old);
        Ok(self.promote(index, group, to))
    }

    /// Rule 1.6: the set is unchanged, because the target's cursor equalled the head.
    fn switchover(&mut self, index: LogIndex, group: &GroupName, version: Version, by: Member, to: Member) -> Result<Vec<Change>, Void> {
        let row = self.row(group, version)?;
        if row.active != Some(by) {
            return Err(Void::NotActive(by));
        }
        if !row.in_sync.contains(&to) || !self.is_current(to) {
            return Err(Void::NotInSync(to));
        }
        Ok(self.promote(index, group, to))
    }

    /// Rule 1.5: only the active; itself always; nobody whose life is over.
    fn sync(&mut self, index: LogIndex, group: &GroupName, version: Version, by: Member, in_sync: &BTreeSet<Member>) -> Result<Vec<Change>, Void> {
        let row = self.row(group, version)?;
        if row.active != Some(by) || !self.is_current(by) {
            return Err(Void::NotActive(by));
        }
        if !in_sync.contains(&by) {
            return Err(Void::NotInSync(by));
        }
        if let Some(over) = in_sync.iter().find(|m| !self.is_current(**m)) {
            return Err(Void::Superseded(*over));
        }
        for member in in_sync {
            self.touch(index, member.node);
        }
        let row = self.groups.get_mut(group).expect("row() found it");
        row.in_sync = in_sync.clone();
        row.version.0 += 1;
        Ok(vec![Change::Group(group.clone())])
    }

    /// Rule 6.1: a voter that lost its disk is replaced by the others, not by itself.
    fn disk_lost(&mut self, node: NodeId, disk: u64) -> Result<Vec<Change>, Void> {
        if self.config.node(node).is_none() {
            return Err(Void::Unknown(node.to_string()));
        }
        if self.lost_disks.insert(node, disk) == Some(disk) {
            return Err(Void::Repeated);
        }
        Ok(vec![Change::DiskLost(node)])
    }

    /// Rule 3.4: releases of a majority of voters, in their current lives, newer than the last sign of the target.
    fn check_evidence(&self, old: Member, epoch: Epoch, evidence: &Evidence) -> Result<(), Void> {
        if !self.is_current(old) {
            return Ok(()); // A life that is over speaks no more: its node started clean before it joined (4.5).
        }
        match evidence {
            Evidence::Relinquished { by, epoch: given } if *by == old && *given == epoch => Ok(()),
            Evidence::Relinquished { by, .. } => Err(Void::NotActive(*by)),
            Evidence::Released(releases) => {
                let since = self.nodes[&old.node].since;
                let valid: BTreeSet<_> = releases
                    .iter()
                    .filter(|r| r.target == old && r.since == since && r.voter.node != old.node)
                    .filter(|r| self.is_current(r.voter) && self.config.is_voter(r.voter.node))
                    .map(|r| r.voter.node)
                    .collect();
                let needed = self.majority();
                if valid.len() < needed { Err(Void::Releases { valid: valid.len(), needed }) } else { Ok(()) }
            }
        }
    }

    /// The one place where an active changes.
    fn promote(&mut self, index: LogIndex, group: &GroupName, to: Member) -> Vec<Change> {
        let row = self.groups.get_mut(group).expect("callers looked it up");
        let old = row.active.replace(to);
        row.epoch.0 += 1;
        row.version.0 += 1;
        for node in old.iter().chain([&to]).map(|m| m.node) {
            self.touch(index, node);
        }
        vec![Change::Group(group.clone())]
    }

    fn touch(&mut self, index: LogIndex, node: NodeId) {
        if let Some(row) = self.nodes.get_mut(&node) {
            row.about = index;
        }
    }

    fn row(&self, group: &GroupName, version: Version) -> Result<&GroupRow, Void> {
        let row = self.groups.get(group).ok_or_else(|| Void::Unknown(group.to_string()))?;
        expect_version(version, row.version)?;
        Ok(row)
    }
}

fn expect_version(made_for: Version, present: Version) -> Result<(), Void> {
    if made_for == present { Ok(()) } else { Err(Void::Version { made_for, present }) }
}
