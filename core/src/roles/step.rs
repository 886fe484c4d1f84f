//! This node's own steps: taking over, giving up, handing over, moving leadership.

use super::*;
use crate::domain::config::GroupConfig;
use crate::domain::{Evidence, GroupRow};

/// An active's way out of its role under one epoch.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) epoch: Epoch,
    cause: EventId,
    /// The successor of a switchover; none when the role is given up to whoever is in sync.
    to: Option<Member>,
    phase: Phase,
    again_at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Quiescing,
    Silencing,
    /// Nothing can be heard of this node under this epoch any more. There is no way back from here.
    Silent,
}

impl Step {
    pub(super) fn giving_up(epoch: Epoch, cause: EventId) -> Self {
        Self { epoch, cause, to: None, phase: Phase::Silencing, again_at: Instant::ZERO }
    }
}

impl Roles {
    /// What the row says about this node, told once per change.
    pub(super) fn consider_role(&mut self, me: Member, config: &GroupConfig) {
        let Some(row) = self.domain.groups.get(&config.name).cloned() else { return };
        let role = if row.active == Some(me) { Role::Active(row.epoch) } else { Role::Standby(row.epoch) };
        if self.roles.insert(config.name.clone(), role) != Some(role) {
            self.outputs.push_back(Output::Role { group: config.name.clone(), role });
        }
        if row.active != Some(me) {
            self.replicas.remove(&config.name);
            return;
        }
        let mut nodes = placement::standbys(&self.domain, config, self.me, |n| !self.lost.contains_key(&n) && self.domain.member(n).is_some());
        // Nobody means anybody, and a set shrinks when a write waits. But no life comes back from an expulsion, so its copy is let go at once.
        let others = || row.in_sync.iter().filter(|m| **m != me);
        if nodes.is_empty() && others().next().is_some() && others().all(|m| self.domain.is_expelled(m.node)) {
            nodes.push(self.me);
        }
        if self.replicas.get(&config.name) != Some(&nodes) {
            self.replicas.insert(config.name.clone(), nodes.clone());
            self.outputs.push_back(Output::Replicas { group: config.name.clone(), nodes });
        }
    }

    /// Rule 1.5: only the active asks for another set. Its copy decides on which; here it is asked for until the row has moved on.
    pub(super) fn consider_sync(&mut self, now: Instant, me: Member, config: &GroupConfig) {
        let Some((version, in_sync)) = self.syncs.get(&config.name).cloned() else { return };
        let Some(row) = self.domain.groups.get(&config.name).filter(|r| r.version == version && r.active == Some(me)) else { return };
        let cause = row.in_sync.difference(&in_sync).find_map(|m| self.lost.get(&m.node)).copied();
        let entry = Entry::Sync { group: config.name.clone(), version, by: me, in_sync };
        self.propose(now, Purpose::Sync(config.name.clone()), version, entry, cause);
    }

    /// Rule 1.4: a member asks for the role itself, with evidence that the old active is silent.
    pub(super) fn consider_takeover(&mut self, now: Instant, me: Member, config: &GroupConfig) {
        let Some(row) = self.domain.groups.get(&config.name).cloned() else { return };
        let Some(old) = row.active.filter(|old| *old != me) else { return };
        if !row.in_sync.contains(&me) {
            return;
        }
        let Some((evidence, cause)) = self.evidence(&config.name, &row, old) else {
            self.offers.remove(&config.name);
            return;
        };
        let is_fit = |n: NodeId| !self.lost.contains_key(&n) && row.in_sync.iter().any(|m| m.node == n && *m != old && self.domain.is_current(*m));
        let Some(rank) = placement::rank(&config.candidates, self.me, is_fit) else { return };
        let is_ready = self.unit(&config.name) == Unit::Ready;
        let turn = if self.services_come_first(config, old) { SERVICES_FIRST } else { Duration::ZERO };
        let wait = turn + RANK * rank + if is_ready { Duration::ZERO } else { NOT_READY };
        let since = self.offers.entry(config.name.clone()).or_insert_with(|| Offers::new(row.version, now)).since;
        if now < since + wait {
            return self.wake_at(since + wait);
        }
        let is_released = matches!(evidence, Evidence::Released(_));
        if is_released && self.domain.waits_for_fence(&config.name, old) {
            return self.consider_fence(now, me, &config.name, old, (since, rank), cause);
        }
        let cause = self.fence_event(old).filter(|_| is_released && self.domain.config.requires_fence(&config.name)).or(cause);
        let entry = Entry::Takeover { group: config.name.clone(), version: row.version, to: me, evidence };
        self.propose(now, Purpose::Group(config.name.clone()), row.version, entry, cause);
    }

    /// Whether somebody has yet to take a service over that was active where a chassis has lost its owner. What the log commits one after another
    /// costs each a round: fans can wait for it, clients cannot.
    fn services_come_first(&self, config: &GroupConfig, old: Member) -> bool {
        let is_service = |name: &GroupName| self.domain.config.service(name).is_some();
        !is_service(&config.name) && self.domain.groups.iter().any(|(name, row)| is_service(name) && row.active == Some(old) && row.in_sync.len() > 1)
    }

    /// Why `old` is silent, if it is.
    fn evidence(&self, group: &GroupName, row: &GroupRow, old: Member) -> Option<(Evidence, Option<EventId>)> {
        let verdict = self.lost.get(&old.node).copied();
        if !self.domain.is_current(old) {
            return Some((Evidence::Released(Vec::new()), verdict)); // a life that is over; its node started clean (4.5)
        }
        if let Some((epoch, by, cause)) = self.relinquished.get(group).filter(|(epoch, by, _)| *epoch == row.epoch && *by == old) {
            return Some((Evidence::Relinquished { by: *by, epoch: *epoch }, Some(*cause)));
        }
        self.released_by_majority(old).map(|releases| (Evidence::Released(releases), verdict))
    }

    /// The releases of `old` that count, if they are a majority of the voters'.
    pub(super) fn released_by_majority(&self, old: Member) -> Option<Vec<Release>> {
        let since = self.domain.nodes.get(&old.node)?.since;
        let counts = |r: &&Release| r.target == old && r.since == since && self.domain.is_current(r.voter) && self.domain.config.is_voter(r.voter.node);
        let releases: Vec<Release> = self.releases.values().filter(counts).copied().collect();
        (releases.len() >= self.domain.majority()).then_some(releases)
    }

    /// The local unit came or went.
    pub(super) fn on_unit(&mut self, group: GroupName, unit: Unit, cause: EventId) {
        self.units.insert(group.clone(), unit);
        let Some(Role::Active(epoch)) = self.role(&group) else { return };
        if unit == Unit::Gone && !self.steps.contains_key(&group) && self.has_other_in_sync(&group) {
            // 3.5: dead, known by its pidfd: nobody has to wait for a clock.
            self.steps.insert(group.clone(), Step::giving_up(epoch, cause));
            self.outputs.push_back(Output::Relinquish { group, epoch });
        } else if unit == Unit::Gone {
            self.fall_silent(&group);
        }
    }

    /// The unit died while it was handing over: nothing is left to wait for.
    fn fall_silent(&mut self, group: &GroupName) {
        let Some(step) = self.steps.get_mut(group).filter(|s| s.phase == Phase::Quiescing) else { return };
        step.phase = Phase::Silencing;
        step.to = None; // its last writes may not be with the target: an ordinary takeover realigns
        self.outputs.push_back(Output::Relinquish { group: group.clone(), epoch: step.epoch });
    }

    fn has_other_in_sync(&self, group: &GroupName) -> bool {
        let Some(row) = self.domain.groups.get(group) else { return false };
        row.in_sync.iter().any(|m| m.node != self.me && self.domain.is_current(*m) && !self.lost.contains_key(&m.node))
    }

    pub(super) fn on_wish(&mut self, now: Instant, wish: Wish, cause: EventId) {
        match wish {
            Wish::Switchover { group, to } => self.switch_over(now, group, to, cause),
            Wish::EvacuateChassis(chassis) => {
                let domain = Arc::clone(&self.domain);
                let inside = |n: NodeId| domain.config.chassis_of(n) == Some(&chassis);
                self.evacuate(now, inside, cause);
            }
            Wish::EvacuateNode(node) => self.evacuate(now, |n| n == node, cause),
            Wish::Start { group } => self.force_start(now, &group, cause),
        }
    }

    /// Moves every service that is active where `inside` says, to where it does not.
    fn evacuate(&mut self, now: Instant, inside: impl Fn(NodeId) -> bool + Copy, cause: EventId) {
        let domain = Arc::clone(&self.domain);
        for service in &domain.config.services {
            let active = domain.groups.get(&service.name).and_then(|r| r.active).map(|m| m.node);
            let Some(active) = active.filter(|n| inside(*n)) else { continue };
            let outside = domain.groups[&service.name].in_sync.iter().find(|m| !inside(m.node)).map(|m| m.node);
            match outside {
                Some(to) if active == self.me => self.switch_over(now, service.name.clone(), Some(to), cause),
                Some(to) => {
                    let wish = Wish::Switchover { group: service.name.clone(), to: Some(to) };
                    self.tell(active, Told::Wish { wish, cause });
                }
                None => self.refuse(cause, format!("{} has no standby in sync outside; it stays on {active}", service.name)),
            }
        }
    }

    fn switch_over(&mut self, now: Instant, group: GroupName, to: Option<NodeId>, cause: EventId) {
        let Some(row) = self.domain.groups.get(&group).cloned() else {
            return self.refuse(cause, format!("there is no group {group}"));
        };
        let Some(me) = self.member().filter(|me| row.active == Some(*me)) else {
            match row.active {
                Some(active) if active.node != self.me => self.tell(active.node, Told::Wish { wish: Wish::Switchover { group, to }, cause }),
                _ => self.refuse(cause, format!("{group} has no active that could hand over")),
            }
            return;
        };
        if to == Some(self.me) {
            return self.refuse(cause, format!("{group} is active on {} already", self.me));
        }
        let fit = |m: &&Member| m.node != me.node && to.is_none_or(|n| n == m.node) && self.domain.is_current(**m) && !self.lost.contains_key(&m.node);
        let Some(target) = row.in_sync.iter().find(fit).copied() else {
            let whom = to.map_or_else(|| "no standby".to_owned(), |n| n.to_string());
            return self.refuse(cause, format!("{group} cannot move: {whom} is not in sync. Wait until it is"));
        };
        if self.steps.contains_key(&group) {
            return self.refuse(cause, format!("{group} is on its way already"));
        }
        let step = Step { epoch: row.epoch, cause, to: Some(target), phase: Phase::Quiescing, again_at: now + QUIESCE_MAX };
        self.steps.insert(group.clone(), step);
        self.outputs.push_back(Output::Quiesce { group, epoch: row.epoch, to: target });
    }

    pub(super) fn refuse(&mut self, cause: EventId, reason: String) {
        self.outputs.push_back(Output::Refused { cause, reason });
    }

    pub(super) fn on_quiesced(&mut self, group: &GroupName, epoch: Epoch) {
        let Some(step) = self.steps.get_mut(group).filter(|s| s.epoch == epoch && s.phase == Phase::Quiescing) else { return };
        step.phase = Phase::Silencing;
        self.outputs.push_back(Output::Relinquish { group: group.clone(), epoch });
    }

    pub(super) fn on_silenced(&mut self, now: Instant, group: &GroupName, epoch: Epoch) {
        let Some(step) = self.steps.get_mut(group).filter(|s| s.epoch == epoch) else { return };
        step.phase = Phase::Silent;
        step.again_at = now;
    }

    /// Carries a step on: gives a hanging quiesce up, tells of the silence until the log has moved on.
    pub(super) fn consider_step(&mut self, now: Instant, me: Member, config: &GroupConfig) {
        let Some(step) = self.steps.get(&config.name).cloned() else { return };
        let Some(row) = self.domain.groups.get(&config.name).cloned() else { return };
        match step.phase {
            Phase::Quiescing if now >= step.again_at || step.to.is_some_and(|t| !row.in_sync.contains(&t)) => {
                self.steps.remove(&config.name);
                self.outputs.push_back(Output::Resume { group: config.name.clone(), epoch: step.epoch });
                self.refuse(step.cause, format!("{} stays: its standby did not catch up in time", config.name));
            }
            Phase::Quiescing => self.wake_at(step.again_at),
            Phase::Silencing => {}
            Phase::Silent => self.speak_of_silence(now, me, config, &row, &step),
        }
    }

    fn speak_of_silence(&mut self, now: Instant, me: Member, config: &GroupConfig, row: &GroupRow, step: &Step) {
        let target = step.to.filter(|t| row.in_sync.contains(t) && !self.lost.contains_key(&t.node));
        if let Some(to) = target {
            // 1.6: the target has everything, so the set is unchanged and this node stays a member.
            let entry = Entry::Switchover { group: config.name.clone(), version: row.version, by: me, to };
            return self.propose(now, Purpose::Group(config.name.clone()), row.version, entry, Some(step.cause));
        }
        if !self.has_other_in_sync(&config.name) {
            if self.unit(&config.name) == Unit::Ready && self.suspended.is_none() {
                let entry = Entry::Switchover { group: config.name.clone(), version: row.version, by: me, to: me };
                self.propose(now, Purpose::Group(config.name.clone()), row.version, entry, Some(step.cause));
            }
            return;
        }
        if now >= step.again_at {
            for to in row.in_sync.iter().map(|m| m.node).filter(|n| *n != self.me).collect::<Vec<_>>() {
                self.tell(to, Told::Relinquished { group: config.name.clone(), epoch: step.epoch, by: me, cause: step.cause });
            }
            if let Some(step) = self.steps.get_mut(&config.name) {
                step.again_at = now + TELL_AGAIN;
            }
        }
        self.wake_at(self.steps[&config.name].again_at.max(now));
    }

    /// A takeover needs a commit, and a commit a leader. A leader that a majority has released is one that nobody hears, and one that has
    /// begun another life leads no more: its successor need not wait until Raft finds that out. The voter with the least to do asks first.
    pub(super) fn consider_campaign(&mut self, now: Instant) {
        let Some(leader) = self.leader.filter(|l| *l != self.me && self.has_ended(*l)) else {
            self.leaderless = None;
            return;
        };
        let known = self.leaderless.filter(|l| l.leader == leader);
        let state = known.unwrap_or(Leaderless { leader, since: now, campaigned: false });
        self.leaderless = Some(state);
        if state.campaigned || !self.domain.config.is_voter(self.me) {
            return;
        }
        let mut fit: Vec<NodeId> = self.domain.config.voters().filter(|n| *n == self.me || (*n != leader && !self.lost.contains_key(n))).collect();
        fit.sort_by_key(|n| placement::load(&self.domain, *n));
        let rank = fit.iter().position(|n| *n == self.me).expect("this node is one of them");
        let due = state.since + RANK * u32::try_from(rank).expect("at most 32 nodes");
        if now < due {
            return self.wake_at(due);
        }
        self.leaderless = Some(Leaderless { campaigned: true, ..state });
        self.outputs.push_back(Output::Campaign { against: leader });
    }

    /// Whether a leader leads no more, whatever Raft still takes it for.
    fn has_ended(&self, leader: NodeId) -> bool {
        // One that is back may still be released, until it has led its own `Confirm` into the log: nobody may stand in its way.
        let released = || self.domain.member(leader).and_then(|l| self.released_by_majority(l));
        self.is_leader_reborn || (self.lost.contains_key(&leader) && released().is_some())
    }

    /// Protocol 6.2: the leadership sits where the fewest actives are, and moves only when nothing else does. But who does not hear the leader
    /// learns of nothing that is committed, an active not of its own set, and what the leader does not hear is never committed: then
    /// somebody leads at once whom all hear and who hears all, or nearly.
    pub(super) fn consider_leadership(&mut self, now: Instant) {
        if self.leader != Some(self.me) {
            return;
        }
        let fitness = |n: NodeId| (self.cuts_at(n), placement::load(&self.domain, n));
        let voters = self.domain.config.voters().filter(|n| *n != self.me && !self.lost.contains_key(n) && self.domain.member(*n).is_some());
        let Some(to) = voters.min_by_key(|n| fitness(*n)).filter(|n| fitness(*n) < fitness(self.me)) else { return };
        let is_urgent = self.cuts_at(to) < self.cuts_at(self.me);
        if !is_urgent && !self.steps.is_empty() {
            return;
        }
        let due = if is_urgent { self.handed_over.map_or(now, |at| at + AGAIN) } else { self.quiet_since + QUIET };
        if now < due {
            return self.wake_at(due);
        }
        if is_urgent {
            self.handed_over = Some(now);
        } else {
            self.quiet_since = now;
        }
        self.outputs.push_back(Output::TransferLeader { to });
        self.wake_at(now + if is_urgent { AGAIN } else { QUIET });
    }

    /// On how many ways from or to it nothing arrives.
    fn cuts_at(&self, node: NodeId) -> usize {
        self.cuts.iter().filter(|(from, to)| *from == node || *to == node).count()
    }

    pub(super) fn unit(&self, group: &GroupName) -> Unit {
        if self.domain.config.chassis_group(group).is_some() {
            return Unit::Ready; // the owner of a chassis is the daemon itself
        }
        self.units.get(group).copied().unwrap_or_default()
    }
}

/// Between two members' bids for the same role, in the order of preference.
const RANK: Duration = Duration::from_millis(15);
/// For so long, at most, a chassis that has lost its owner waits for the services of that node to be taken over.
pub(super) const SERVICES_FIRST: Duration = Duration::from_millis(10);
/// A member whose application is not there yet lets the others bid first.
const NOT_READY: Duration = Duration::from_millis(150);
/// The word of a silent active is repeated after so long.
const TELL_AGAIN: Duration = Duration::from_millis(20);
/// A switchover whose target does not catch up is given up after so long: the application's time to write its last, and as much
/// again for the target.
const QUIESCE_MAX: Duration = Duration::from_secs(1);
/// Leadership moves only after the role table has been still for so long.
const QUIET: Duration = Duration::from_millis(300);
