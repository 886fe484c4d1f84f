//! How the domain would apply entries if one of its checks were missing: the check finds what it looks for, and what was changed to that
//! end is put back. The same in the model (`core/tests/takeover_model/law.rs`).

use sixnines_core::domain::fence::Fencing;
use sixnines_core::domain::{Change, Evidence, GroupRow, Release, Void};
use sixnines_core::ids::{GroupName, LogIndex, Version};

use super::{Domain, Entry, Member};

type Outcome = Result<Vec<Change>, Void>;

/// The version is whatever it has to be, and who was a member when the entry was made is one.
pub(super) fn entries_without_version(domain: &mut Domain, index: LogIndex, entry: &Entry) -> Outcome {
    let present = |group: &GroupName| domain.groups.get(group).map_or(Version(0), |row| row.version);
    let mut entry = entry.clone();
    match &mut entry {
        Entry::Takeover { group, version, .. } | Entry::Switchover { group, version, .. } | Entry::Sync { group, version, .. } | Entry::Start { group, version, .. } => *version = present(group),
        Entry::Joined { .. } | Entry::Confirm { .. } | Entry::Configure { .. } | Entry::Bundle { .. } | Entry::DiskLost { .. } | Entry::Invite { .. } | Entry::Admit { .. } | Entry::Expel { .. } | Entry::Limits { .. } | Entry::Fenced { .. } | Entry::Feature { .. } => {}
    }
    promotes_non_member(domain, index, &entry)
}

/// The one to be promoted is a member.
pub(super) fn promotes_non_member(domain: &mut Domain, index: LogIndex, entry: &Entry) -> Outcome {
    let Entry::Takeover { group, to, .. } = entry else { return domain.apply(index, entry) };
    let before = domain.groups.get(group).cloned();
    if let Some(row) = domain.groups.get_mut(group) {
        row.in_sync.insert(*to);
    }
    let outcome = domain.apply(index, entry);
    if let (Some(before), Err(_)) = (before, &outcome) {
        domain.groups.insert(group.clone(), before);
    }
    outcome
}

/// The life to be replaced is whichever there is.
pub(super) fn joined_ends_any_life(domain: &mut Domain, index: LogIndex, entry: &Entry) -> Outcome {
    let Entry::Joined { node, nonce, .. } = *entry else { return domain.apply(index, entry) };
    let replaces = domain.member(node).map(|m| m.incarnation).unwrap_or_default();
    domain.apply(index, &Entry::Joined { node, nonce, replaces })
}

/// Former lives are members as before.
pub(super) fn dead_stay_in_set(domain: &mut Domain, index: LogIndex, entry: &Entry) -> Outcome {
    let before = domain.groups.clone();
    let outcome = domain.apply(index, entry);
    if matches!(entry, Entry::Joined { .. }) {
        for (name, row) in &mut domain.groups {
            row.in_sync.extend(before.get(name).into_iter().flat_map(|row: &GroupRow| row.in_sync.iter().copied()));
        }
    }
    outcome
}

/// A node that joins again is who it was.
pub(super) fn names_without_incarnations(domain: &mut Domain, index: LogIndex, entry: &Entry) -> Outcome {
    let before = domain.clone();
    let outcome = domain.apply(index, entry)?;
    if let Entry::Joined { node, .. } = entry
        && let Some(former) = before.member(*node)
    {
        domain.groups.clone_from(&before.groups);
        domain.nodes.get_mut(node).expect("it has just joined").incarnation = former.incarnation;
        return Ok(vec![Change::Joined(former)]);
    }
    Ok(outcome)
}

/// A voter's word counts as if it had said so in its present life.
pub(super) fn releases_of_any_life(domain: &mut Domain, index: LogIndex, entry: &Entry) -> Outcome {
    let mut entry = entry.clone();
    if let Entry::Takeover { evidence: Evidence::Released(releases), .. } = &mut entry {
        releases.iter_mut().for_each(|release| *release = renewed(domain, *release));
    }
    domain.apply(index, &entry)
}

/// The release as its voter's present life would have said it.
pub(in crate::sim) fn renewed(domain: &Domain, release: Release) -> Release {
    let voter: Member = domain.member(release.voter.node).unwrap_or(release.voter);
    Release { voter, ..release }
}

/// A confirmed node's row names the same sign of life as before, and so do the releases.
pub(super) fn confirm_leaves_releases(domain: &mut Domain, index: LogIndex, entry: &Entry) -> Outcome {
    let outcome = domain.apply(index, entry)?;
    if let Entry::Confirm { node, since } = entry {
        domain.nodes.get_mut(&node.node).expect("it was confirmed").since = *since;
    }
    Ok(outcome)
}

/// Nothing waits for a fence.
pub(super) fn takeover_without_fence(domain: &mut Domain, index: LogIndex, entry: &Entry) -> Outcome {
    if !matches!(entry, Entry::Takeover { .. }) {
        return domain.apply(index, entry);
    }
    let services = domain.config.services.clone();
    domain.config.services.iter_mut().for_each(|service| service.fence = Fencing::None);
    let outcome = domain.apply(index, entry);
    domain.config.services = services;
    outcome
}
