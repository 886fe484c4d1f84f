//! Who asks the control log for which role change, and what this node does with its own roles.
//!
//! One [`Roles`] per node, on the core loop (or in the simulator). What the control log has applied, the verdicts and releases of
//! liveness, and the state of the local units go in; proposals, and orders to the node's own parts, come out. It decides
//! nothing by itself: [`crate::domain::Domain`] does, when an entry is applied. So whatever is proposed here twice, late or in vain
//! is void, never wrong. Rules: protocol 1 and 3.5 to 3.8; placement is in [`placement`].

mod fence;
pub mod placement;
mod start;
mod step;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::{Domain, Entry, Release};
use crate::ids::{ChassisName, Epoch, EventId, GroupName, Incarnation, LogIndex, Member, NodeId, Version};
use crate::time::{Duration, Instant};
use fence::Fence;
use start::Offers;
use step::Step;

/// What goes in.
#[derive(Clone, Debug)]
pub enum Input {
    /// The control log has applied an entry; this is its state now.
    Applied(Arc<Domain>),
    /// Liveness has changed its mind about a node.
    Verdict {
        /// Whom.
        node: NodeId,
        /// Dead or mute.
        lost: bool,
        /// The event that says so.
        cause: EventId,
    },
    /// A voter has released a node.
    Release(Release),
    /// A peer says something.
    Told {
        /// Which.
        from: NodeId,
        /// What.
        told: Told,
    },
    /// The local unit of a group.
    Unit {
        /// Which group.
        group: GroupName,
        /// Its state now.
        unit: Unit,
        /// The event that says so.
        cause: EventId,
    },
    /// The application has stopped writing and the target has everything.
    Quiesced {
        /// Which group.
        group: GroupName,
        /// Under which epoch.
        epoch: Epoch,
    },
    /// Gate closed, address gone, application quiesced or dead: this node is silent for the group under this epoch, for good.
    Silenced {
        /// Which group.
        group: GroupName,
        /// Under which epoch.
        epoch: Epoch,
    },
    /// Somebody wants a role moved.
    Move {
        /// What.
        wish: Wish,
        /// The event that is its reason.
        cause: EventId,
    },
    /// The local copy of a group, as asked for by [`Output::Offer`]. It takes nothing older from then on.
    Offered {
        /// Which group.
        group: GroupName,
        /// What it has.
        offer: Offer,
    },
    /// The active's copy wants another in-sync set (protocol 1.5). A later one for the same group replaces it.
    Sync {
        /// Which group.
        group: GroupName,
        /// The row's version that it is made for.
        version: Version,
        /// The set.
        in_sync: BTreeSet<Member>,
    },
    /// Who leads the control log, as far as this node knows.
    Leader(Option<NodeId>),
    /// A peer is heard in another life than before: whatever its last one led or was is over.
    Reborn(NodeId),
    /// Between two living nodes nothing arrives in one direction, or it does again.
    Cut {
        /// Who sends.
        from: NodeId,
        /// Who does not hear it.
        to: NodeId,
        /// Whether it is so.
        cut: bool,
    },
    /// What became of a proposal that was refused, void or lost. Success shows as [`Input::Applied`].
    Failed {
        /// Which.
        ticket: u64,
    },
    /// What came of [`Output::Fence`].
    Fenced {
        /// Of which request.
        request: u64,
        /// What was read back from the device; none: nothing proves that the node is off.
        evidence: Option<String>,
        /// The event that says so.
        cause: EventId,
    },
    /// The lease is over, by this event, or runs again (protocol 3.8).
    Suspended(Option<EventId>),
    /// The instant of [`Roles::poll_timeout`] has come.
    Timeout,
}

/// What comes out, to be carried out in order.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub enum Output {
    /// Ask the control log for this.
    Propose {
        /// For the answer.
        ticket: u64,
        /// What.
        entry: Entry,
        /// The event that is its reason; none for a node that joins or a first start.
        cause: Option<EventId>,
    },
    /// This node's role in a group from now on.
    Role {
        /// Which group.
        group: GroupName,
        /// Its role.
        role: Role,
    },
    /// The nodes that shall hold copies, the active left out. Only from the active.
    Replicas {
        /// Which group.
        group: GroupName,
        /// Who.
        nodes: Vec<NodeId>,
    },
    /// Stop taking writes and let `to` catch up; answered by [`Input::Quiesced`].
    Quiesce {
        /// Which group.
        group: GroupName,
        /// Under which epoch.
        epoch: Epoch,
        /// The successor.
        to: Member,
    },
    /// Never mind: take writes again under this epoch.
    Resume {
        /// Which group.
        group: GroupName,
        /// Under which epoch.
        epoch: Epoch,
    },
    /// Close the gate and take the address away, for good under this epoch; answered by [`Input::Silenced`].
    Relinquish {
        /// Which group.
        group: GroupName,
        /// Under which epoch.
        epoch: Epoch,
    },
    /// Say what the local copy has, and fence it; answered by [`Input::Offered`], unless the copy knows a newer row.
    Offer {
        /// Which group.
        group: GroupName,
        /// Of which row somebody wants to start anew.
        version: Version,
    },
    /// Tell a peer.
    Tell {
        /// Whom.
        to: NodeId,
        /// What.
        told: Told,
    },
    /// Move the control log's leadership.
    TransferLeader {
        /// Where to.
        to: NodeId,
    },
    /// The leader of the control log is dead, by the word of a majority of voters or because it has begun another life: campaign for its place without waiting for Raft's own clocks.
    Campaign {
        /// The dead leader.
        against: NodeId,
    },
    /// Have a node switched off, and read back that it is (protocol 4.6); answered by [`Input::Fenced`].
    Fence {
        /// For the answer.
        request: u64,
        /// Whom, in which life.
        target: Member,
        /// The service that waits for it.
        group: GroupName,
        /// The event that is its reason.
        cause: Option<EventId>,
    },
    /// The node is back: what is under way against that life of it is to end, and the answer is not waited for.
    FenceDropped {
        /// Whom, in which life.
        target: Member,
    },
    /// A wish cannot be met; nothing was changed.
    Refused {
        /// The event that was its reason.
        cause: EventId,
        /// Why, and what would be right.
        reason: String,
    },
}

/// The local unit of a group: the application's process on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Not running, or not connected yet.
    #[default]
    Absent,
    /// Connected, takes roles.
    Ready,
    /// It has died (pidfd) or hangs, and is known to be silent.
    Gone,
}

/// This node's role in a group (AMF's HA state).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// It speaks, under this epoch.
    Active(Epoch),
    /// It follows whoever is active under this epoch.
    Standby(Epoch),
}

/// What somebody wants of the roles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wish {
    /// The group's active hands over; to the best standby if none is named.
    Switchover {
        /// Which group.
        group: GroupName,
        /// To whom.
        to: Option<NodeId>,
    },
    /// Every service that is active in a chassis goes to another one.
    EvacuateChassis(ChassisName),
    /// Every service that is active on a node goes elsewhere.
    EvacuateNode(NodeId),
    /// Start a group from the best copy there is although something is missing: the operator's word (protocol 1.7).
    Start {
        /// Which group.
        group: GroupName,
    },
}

/// What nodes tell each other about roles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// The active is silent for good under this epoch (protocol 3.5).
    Relinquished {
        /// Which group.
        group: GroupName,
        /// Under which epoch.
        epoch: Epoch,
        /// The active that was.
        by: Member,
        /// The event that is its reason.
        cause: EventId,
    },
    /// Say what your copy has.
    WantOffer {
        /// Which group.
        group: GroupName,
        /// The row's version that the asker sees.
        version: Version,
    },
    /// What the sender's copy has.
    Offer {
        /// Which group.
        group: GroupName,
        /// What.
        offer: Offer,
    },
    /// A wish that only the active can meet.
    Wish {
        /// What.
        wish: Wish,
        /// The event that is its reason.
        cause: EventId,
    },
}

/// What a copy has, for a start from nothing (protocol 1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Offer {
    /// It was in an in-sync set once.
    pub complete: bool,
    /// Its newest record.
    pub epoch: Epoch,
    /// Its newest record.
    pub sequence: u64,
    /// Whose it is.
    pub member: Member,
}

/// The roles of one node.
#[derive(Debug)]
pub struct Roles {
    me: NodeId,
    nonce: u64,
    domain: Arc<Domain>,
    lost: BTreeMap<NodeId, EventId>,
    releases: BTreeMap<(NodeId, NodeId), Release>,
    units: BTreeMap<GroupName, Unit>,
    roles: BTreeMap<GroupName, Role>,
    replicas: BTreeMap<GroupName, Vec<NodeId>>,
    steps: BTreeMap<GroupName, Step>,
    relinquished: BTreeMap<GroupName, (Epoch, Member, EventId)>,
    offers: BTreeMap<GroupName, Offers>,
    /// Sets that copies here want, each for one version of its group's row.
    syncs: BTreeMap<GroupName, (Version, BTreeSet<Member>)>,
    /// Nodes that are to be switched off before something is taken over from them.
    fences: BTreeMap<NodeId, Fence>,
    open: BTreeMap<Purpose, Open>,
    tickets: u64,
    /// What this node last asked for against releases of itself.
    confirmed: Option<Confirmed>,
    leader: Option<NodeId>,
    /// The leader is dead, by the word of a majority or its own.
    leaderless: Option<Leaderless>,
    /// The life in which the leader led is over.
    is_leader_reborn: bool,
    /// Ways between living nodes on which nothing arrives, from one to the other.
    cuts: BTreeSet<(NodeId, NodeId)>,
    /// When this node last handed the leadership over for them.
    handed_over: Option<Instant>,
    quiet_since: Instant,
    /// Since when, and by which event, the lease is over.
    suspended: Option<(Instant, EventId)>,
    due: Option<Instant>,
    outputs: VecDeque<Output>,
}

/// What a proposal is for: at most one is under way for each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Purpose {
    Join,
    Confirm,
    Group(GroupName),
    Sync(GroupName),
    Fence(NodeId),
}

/// A confirmation that was asked for.
#[derive(Clone, Copy, Debug)]
struct Confirmed {
    /// Of which life or earlier confirmation.
    since: LogIndex,
    at: Instant,
    /// The next one waits so long.
    wait: Duration,
}

/// The leader of the control log is dead, and there is no other yet.
#[derive(Clone, Copy, Debug)]
struct Leaderless {
    leader: NodeId,
    since: Instant,
    campaigned: bool,
}

/// A proposal whose outcome is not known yet.
#[derive(Clone, Debug)]
struct Open {
    ticket: u64,
    version: Version,
    again_at: Instant,
}

impl Roles {
    /// The roles of node `me`; `nonce` is drawn anew for each start of the process.
    pub fn new(me: NodeId, nonce: u64) -> Self {
        Self {
            me,
            nonce,
            domain: Arc::default(),
            lost: BTreeMap::new(),
            releases: BTreeMap::new(),
            units: BTreeMap::new(),
            roles: BTreeMap::new(),
            replicas: BTreeMap::new(),
            steps: BTreeMap::new(),
            relinquished: BTreeMap::new(),
            offers: BTreeMap::new(),
            syncs: BTreeMap::new(),
            fences: BTreeMap::new(),
            open: BTreeMap::new(),
            tickets: 0,
            confirmed: None,
            leader: None,
            leaderless: None,
            is_leader_reborn: false,
            cuts: BTreeSet::new(),
            handed_over: None,
            quiet_since: Instant::ZERO,
            suspended: None,
            due: None,
            outputs: VecDeque::new(),
        }
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Applied(domain) => self.on_applied(now, domain),
            Input::Verdict { node, lost, cause } => self.on_verdict(node, lost, cause),
            Input::Release(release) => {
                self.releases.insert((release.target.node, release.voter.node), release);
            }
            Input::Told { from, told } => self.on_told(now, from, told),
            Input::Unit { group, unit, cause } => self.on_unit(group, unit, cause),
            Input::Quiesced { group, epoch } => self.on_quiesced(&group, epoch),
            Input::Silenced { group, epoch } => self.on_silenced(now, &group, epoch),
            Input::Move { wish, cause } => self.on_wish(now, wish, cause),
            Input::Offered { group, offer } => self.on_offered(&group, offer),
            Input::Sync { group, version, in_sync } => {
                self.open.remove(&Purpose::Sync(group.clone())); // another set is another entry: it need not wait
                self.syncs.insert(group, (version, in_sync));
            }
            Input::Leader(leader) => self.on_leader(now, leader),
            Input::Cut { from, to, cut } => {
                if cut { self.cuts.insert((from, to)) } else { self.cuts.remove(&(from, to)) };
                if !cut && from == self.me {
                    self.confirm_soon(); // it hears me again, but its release stands until then
                }
            }
            Input::Reborn(node) => self.is_leader_reborn |= self.leader == Some(node),
            Input::Failed { ticket } => self.open.values_mut().filter(|o| o.ticket == ticket).for_each(|o| o.again_at = now + AGAIN),
            Input::Fenced { request, evidence, cause } => self.on_fenced(now, request, evidence, cause),
            Input::Suspended(cause) => self.suspended = cause.map(|c| self.suspended.unwrap_or((now, c))),
            Input::Timeout => {}
        }
        self.consider(now);
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// This node's life, once its `Joined` entry has been applied.
    pub fn member(&self) -> Option<Member> {
        let row = self.domain.nodes.get(&self.me)?;
        (row.nonce == self.nonce).then_some(Member { node: self.me, incarnation: row.incarnation })
    }

    /// This node's role in a group.
    pub fn role(&self, group: &GroupName) -> Option<Role> {
        self.roles.get(group).copied()
    }

    fn on_applied(&mut self, now: Instant, domain: Arc<Domain>) {
        if self.domain.groups != domain.groups {
            self.quiet_since = now;
        }
        self.domain = domain;
        let domain = &self.domain;
        self.open.retain(|purpose, open| match purpose {
            Purpose::Group(group) | Purpose::Sync(group) => domain.groups.get(group).is_some_and(|r| r.version == open.version),
            Purpose::Join | Purpose::Confirm => true,
            Purpose::Fence(node) => domain.nodes.get(node).is_some_and(|r| r.since.0 == open.version.0),
        });
        self.releases.retain(|_, r| domain.nodes.get(&r.target.node).is_some_and(|n| n.since <= r.since));
        self.relinquished.retain(|group, (epoch, ..)| domain.groups.get(group).is_some_and(|r| r.epoch <= *epoch));
        self.steps.retain(|group, step| domain.groups.get(group).is_some_and(|r| r.epoch == step.epoch));
        // A set with a life that is over can never be committed: only the copy can tell what to ask for instead.
        self.syncs.retain(|group, (version, in_sync)| {
            domain.groups.get(group).is_some_and(|r| r.version <= *version) && in_sync.iter().all(|m| domain.is_current(*m))
        });
        self.offers.retain(|group, offers| domain.groups.get(group).is_some_and(|r| r.version == offers.version));
        self.drop_fences();
    }

    /// What was given to the last leader may have died with it. The repeat is for the same version, so only one of them takes effect.
    fn on_leader(&mut self, now: Instant, leader: Option<NodeId>) {
        self.leader = leader;
        self.leaderless = None;
        self.is_leader_reborn = false;
        if leader.is_some() {
            self.open.values_mut().for_each(|open| open.again_at = now);
        }
    }

    fn on_verdict(&mut self, node: NodeId, lost: bool, cause: EventId) {
        if lost {
            self.lost.insert(node, cause);
        } else {
            self.lost.remove(&node);
            self.confirm_soon();
        }
    }

    fn on_told(&mut self, now: Instant, from: NodeId, told: Told) {
        match told {
            // Only its own word counts.
            Told::Relinquished { group, epoch, by, cause } if by.node == from => self.take_relinquished(group, epoch, by, cause),
            Told::Relinquished { .. } => {}
            Told::WantOffer { group, version } => self.on_want_offer(from, group, version),
            Told::Offer { group, offer } if offer.member.node == from => self.take_offer(&group, offer),
            Told::Offer { .. } => {}
            Told::Wish { wish: Wish::Start { group }, .. } => self.take_start_word(now, &group),
            Told::Wish { wish, cause } => self.on_wish(now, wish, cause),
        }
    }

    fn take_relinquished(&mut self, group: GroupName, epoch: Epoch, by: Member, cause: EventId) {
        let newest = self.relinquished.get(&group).map(|(e, ..)| *e);
        if newest.is_none_or(|e| e < epoch) && self.domain.groups.contains_key(&group) {
            self.relinquished.insert(group, (epoch, by, cause));
        }
    }

    /// Looks at everything once; what is due now is done, what is due later sets the deadline.
    fn consider(&mut self, now: Instant) {
        self.due = None;
        if self.domain.config_version == Version(0) {
            return;
        }
        let Some(me) = self.member() else {
            let replaces = self.domain.member(self.me).map_or(Incarnation(0), |m| m.incarnation);
            let entry = Entry::Joined { node: self.me, nonce: self.nonce, replaces };
            self.propose(now, Purpose::Join, Version(0), entry, None);
            return;
        };
        self.open.remove(&Purpose::Join);
        self.consider_confirm(now, me);
        let mine = self.domain.config.groups().filter(|g| g.candidates.contains(&self.me));
        for config in mine.collect::<Vec<_>>() {
            self.consider_role(me, &config);
            self.consider_step(now, me, &config);
            self.consider_sync(now, me, &config);
            self.consider_takeover(now, me, &config);
            self.consider_start(now, me, &config);
        }
        self.consider_suspension(now);
        self.consider_campaign(now);
        self.consider_leadership(now);
    }

    /// A voter has released me, and I am back: until this is applied nobody grants me anything (protocol 3.4).
    fn consider_confirm(&mut self, now: Instant, me: Member) {
        let since = self.domain.nodes[&me.node].since;
        let released = self.releases.values().any(|r| r.target == me && r.since == since);
        if !released {
            self.open.remove(&Purpose::Confirm);
            return;
        }
        // Voters that do not hear me would release me again and again, as fast as the log takes entries, and each entry about me costs me
        // grants of the others. But whoever hears me again grants me nothing before the next one.
        if self.confirmed.is_none_or(|last| last.since < since) {
            if let Some(last) = self.confirmed {
                let most = if self.released_by_majority(me).is_some() { CONFIRM_WITHOUT_LEASE } else { CONFIRM_MAX };
                let due = last.at + last.wait.min(most);
                if now < due {
                    return self.wake_at(due);
                }
            }
            let last = self.confirmed.filter(|last| now < last.at + CONFIRM_MAX * 2);
            let wait = last.map_or(CONFIRM_SOON, |last| (last.wait * 2).min(CONFIRM_MAX));
            self.confirmed = Some(Confirmed { since, at: now, wait });
        }
        self.propose(now, Purpose::Confirm, Version(since.0), Entry::Confirm { node: me, since }, None);
    }

    /// Somebody may hear this node again.
    fn confirm_soon(&mut self) {
        if let Some(last) = &mut self.confirmed {
            last.wait = CONFIRM_SOON;
        }
    }

    /// Protocol 3.8: suspended for too long ends the roles by this node's own word.
    fn consider_suspension(&mut self, now: Instant) {
        let Some((since, cause)) = self.suspended else { return };
        if now < since + SUSPENDED_MAX {
            return self.wake_at(since + SUSPENDED_MAX);
        }
        let active: Vec<_> = self.active_groups().collect();
        for (group, epoch) in active {
            if !self.steps.contains_key(&group) {
                self.steps.insert(group.clone(), Step::giving_up(epoch, cause));
                self.outputs.push_back(Output::Relinquish { group, epoch });
            }
        }
    }

    fn active_groups(&self) -> impl Iterator<Item = (GroupName, Epoch)> + '_ {
        self.roles.iter().filter_map(|(group, role)| match role {
            Role::Active(epoch) => Some((group.clone(), *epoch)),
            Role::Standby(_) => None,
        })
    }

    /// Proposes unless the same is under way; asks to be woken for the repeat. A proposal of unknown outcome stays open: its repeat
    /// is for the same version, so only one of them can take effect (protocol 1.2).
    fn propose(&mut self, now: Instant, purpose: Purpose, version: Version, entry: Entry, cause: Option<EventId>) {
        if let Some(open) = self.open.get(&purpose).filter(|o| o.version == version && now < o.again_at) {
            let at = open.again_at;
            return self.wake_at(at);
        }
        self.tickets += 1;
        let again_at = now + AGAIN;
        self.open.insert(purpose, Open { ticket: self.tickets, version, again_at });
        self.outputs.push_back(Output::Propose { ticket: self.tickets, entry, cause });
        self.wake_at(again_at);
    }

    fn wake_at(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |d| d.min(at)));
    }

    fn tell(&mut self, to: NodeId, told: Told) {
        self.outputs.push_back(Output::Tell { to, told });
    }
}

/// A proposal without an outcome is repeated after so long.
const AGAIN: Duration = Duration::from_millis(40);
/// The second confirmation in a row comes so long after the first; each further one waits twice as long,
const CONFIRM_SOON: Duration = Duration::from_millis(10);
/// at most so long,
const CONFIRM_MAX: Duration = Duration::from_millis(500);
/// or so long while a majority's releases leave this node without a lease.
const CONFIRM_WITHOUT_LEASE: Duration = Duration::from_millis(20);
/// Protocol 3.8, `suspended_max`.
const SUSPENDED_MAX: Duration = Duration::from_secs(10);
