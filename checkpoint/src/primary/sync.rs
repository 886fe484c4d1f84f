//! Who is in the in-sync set (protocol 1.5): the active asks to leave out whom a waiting write cannot wait for, and to take in
//! whom it finds complete. The control log decides.

use std::collections::BTreeSet;

use sixnines_core::ids::Member;
use sixnines_core::time::Instant;

use super::Primary;
use super::peer::Peer;
use super::waiting::count;
use crate::config::Fault;
use crate::copy::{Output, Shared};

impl Primary {
    /// Whose reports an acknowledgement needs now.
    pub(super) fn count_needed(&mut self, shared: &Shared) {
        let mut needed = shared.row.in_sync.clone();
        if shared.config.has(Fault::AcknowledgeBeforeShrink) {
            self.open.iter().for_each(|set| needed.retain(|m| set.contains(m)));
        }
        if !shared.config.has(Fault::NewcomerCountedAfterCommit) && !shared.config.has(Fault::AcknowledgeBeforeShrink) {
            self.open.iter().for_each(|set| needed.extend(set));
        }
        needed.remove(&shared.me);
        for member in &needed {
            let known = self.peers.keys().any(|m| m.node == member.node);
            if !known {
                self.peers.insert(*member, Peer::new(shared.now));
            }
        }
        self.needed = needed.into_iter().collect();
    }

    /// Members of the committed set that can be reached, this copy among them.
    pub(super) fn reachable_copies(&self, shared: &Shared) -> u8 {
        let reachable = |m: &&Member| **m == shared.me || self.peers.get(*m).is_some_and(Peer::is_reachable);
        count(shared.row.in_sync.iter().filter(reachable).count())
    }

    /// Members of the committed set that do not keep a waiting write waiting for too long.
    pub(super) fn usable_copies(&self, shared: &Shared) -> u8 {
        let lost = self.lost(shared);
        count(shared.row.in_sync.iter().filter(|m| !lost.contains(m)).count())
    }

    pub(crate) fn consider_sync(&mut self, shared: &mut Shared) {
        if self.quiesce.as_ref().is_some_and(|q| q.done_at.is_some()) {
            return;
        }
        // Who hears nobody any more would leave out everybody, and nobody could take over from it: its lease ends before its patience.
        let lost = if shared.lease { self.lost(shared) } else { Vec::new() };
        let set = &shared.row.in_sync;
        if lost.is_empty() && set.len() >= usize::from(shared.config.copies) && set.iter().all(|m| is_preferred(shared, *m)) {
            return;
        }
        let mut target: BTreeSet<Member> = set.iter().filter(|m| !lost.contains(m)).copied().collect();
        if self.quiesce.is_none() {
            self.add_newcomers(shared, &lost, &mut target);
            drop_misplaced(shared, &mut target);
        }
        let below_floor = target.len() < set.len() && target.len() < usize::from(shared.config.floor);
        if below_floor || lost.is_empty() && target == *set {
            return; // A smaller set below the floor would acknowledge nothing, and would keep the lost one from taking over.
        }
        let recently = self.proposed_at.is_some_and(|at| at + shared.config.times.propose > shared.now);
        if recently && (lost.is_empty() || self.open.contains(&target)) {
            return;
        }
        // From here on a newcomer counts, whether or not this is ever known to be committed.
        self.open.insert(target.clone());
        self.proposed_at = Some(shared.now);
        self.count_needed(shared);
        shared.out.push_back(Output::Propose { version: shared.row.version, in_sync: target });
        if shared.config.has(Fault::AcknowledgeBeforeShrink) {
            self.advance(shared);
        }
    }

    /// A newcomer has reported, under this epoch and in the life to be listed, everything that was acknowledged, shown or inherited.
    fn add_newcomers(&self, shared: &Shared, lost: &[Member], target: &mut BTreeSet<Member>) {
        let mut needs = shared.store.held().max(self.inherited);
        if shared.config.has(Fault::NewcomerNeedsOnlyAcknowledged) {
            needs = self.acknowledged;
        }
        for (member, peer) in &self.peers {
            let complete = peer.is_following() && peer.acked.is_some_and(|a| a >= needs) || shared.config.has(Fault::NewcomerTooEarly);
            let room = target.iter().filter(|m| is_preferred(shared, **m)).count() < usize::from(shared.config.copies);
            // One that has just been left out for its silence would be as silent as a newcomer.
            let answers = peer.is_reachable() && !peer.is_late(shared) && !peer.is_silent();
            if room && is_preferred(shared, *member) && complete && answers && !lost.contains(member) {
                target.insert(*member);
            }
        }
    }

    /// Whom somebody waits for in vain: unreachable, or without progress for longer than patience.
    fn lost(&self, shared: &Shared) -> Vec<Member> {
        let late = self.late(shared).filter(|(_, until)| *until <= shared.now);
        late.map(|(member, _)| member).collect()
    }

    /// Whom somebody waits for, and until when.
    fn late(&self, shared: &Shared) -> impl Iterator<Item = (Member, Instant)> {
        let wanted = self.wanted(shared);
        let unconfirmed = self.unconfirmed(shared);
        let patience = shared.config.times.patience;
        let waits = wanted.is_some() || unconfirmed.is_some();
        self.needed.iter().filter(move |_| waits).filter_map(move |member| {
            let Some(peer) = self.peers.get(member) else { return Some((*member, shared.now)) };
            let lacks = wanted.filter(|w| peer.acked.is_none_or(|a| a < *w)).map(|_| peer.owed_since.unwrap_or(shared.now));
            let silent = unconfirmed.filter(|(number, _)| peer.confirmed < *number).map(|(_, since)| since);
            let since = lacks.into_iter().chain(silent).min()?;
            Some((*member, if peer.is_reachable() { since + patience } else { shared.now }))
        })
    }

    /// When patience with somebody ends, or when to propose again.
    pub(super) fn sync_timeout(&self, shared: &Shared) -> Option<Instant> {
        if self.quiesce.as_ref().is_some_and(|q| q.done_at.is_some()) {
            return None;
        }
        let again = self.proposed_at.map(|at| at + shared.config.times.propose).filter(|at| *at > shared.now);
        let late = self.late(shared).map(|(_, until)| until).filter(|until| *until > shared.now).min();
        late.into_iter().chain(again).min()
    }
}

/// Whether a copy may be there: this one's own, or where placement wants it.
fn is_preferred(shared: &Shared, member: Member) -> bool {
    member == shared.me || shared.preferred.is_empty() || shared.preferred.contains(&member.node)
}

/// Once every node that placement wants is in the set, the others have stood in long enough.
fn drop_misplaced(shared: &Shared, target: &mut BTreeSet<Member>) {
    if shared.preferred.iter().all(|n| target.iter().any(|m| m.node == *n)) {
        target.retain(|m| is_preferred(shared, *m));
    }
}
