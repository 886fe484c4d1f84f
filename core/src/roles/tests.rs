//! Roles of three nodes around one control log, without a network: what each proposes, and what comes of it.

mod expelled;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::domain::fence::FenceConfig;
use crate::domain::config::{ChassisConfig, DomainConfig, NodeConfig, OnTotalLoss, Profile, ServiceConfig};

fn calls() -> GroupName {
    GroupName::new("calls")
}

fn n(id: u16) -> NodeId {
    NodeId(id)
}

fn cause(sequence: u64) -> EventId {
    EventId { node: n(1), incarnation: crate::ids::Incarnation(1), sequence }
}

/// n1 and n2 in mxp1, n3 in mxp2; `calls` runs anywhere.
fn config() -> DomainConfig {
    let node = |id: u16, chassis: &str| NodeConfig {
        id: n(id),
        chassis: chassis.into(),
        links: vec![format!("10.1.0.{id}:7400").parse().expect("an address")],
        voter: true,
        witness: false,
    };
    DomainConfig {
        domain: "lab".into(),
        profile: Profile::Fabric,
        nodes: vec![node(1, "mxp1"), node(2, "mxp1"), node(3, "mxp2")],
        chassis: ["mxp1", "mxp2"].map(|name| ChassisConfig { name: name.into(), manager: None }).into(),
        services: vec![ServiceConfig {
            name: calls(),
            command: vec!["server".into()],
            addresses: Vec::new(),
            device: None,
            nodes: Vec::new(),
            copies: 2,
            floor: 1,
            on_total_loss: OnTotalLoss::Wait,
            fence: Default::default(),
        }],
        ..DomainConfig::default()
    }
}

/// A world in which everything told arrives at once and proposals are applied in the order in which they were made.
struct World {
    now: Instant,
    domain: Domain,
    roles: BTreeMap<NodeId, Roles>,
    /// What each node was ordered to do, proposals left out.
    orders: Vec<(NodeId, Output)>,
    /// Nodes that neither hear nor speak.
    down: Vec<NodeId>,
    /// The checkpoint service answers at once.
    in_sync_by_itself: bool,
}

/// The domain whose first entry is [`config`].
fn configured() -> Domain {
    let mut domain = Domain::default();
    domain.apply(LogIndex(1), &Entry::Configure { expected: Version(0), config: config() }).expect("a good configuration");
    domain
}

impl World {
    fn new() -> Self {
        Self::with(configured())
    }

    /// `calls` waits for a fence.
    fn fencing() -> Self {
        let mut config = config();
        config.services[0].fence = crate::domain::fence::Fencing::Required;
        config.fence = Some(FenceConfig { command: vec!["off".into()], timeout: Duration::from_secs(5) });
        let mut domain = Domain::default();
        domain.apply(LogIndex(1), &Entry::Configure { expected: Version(0), config }).expect("a good configuration");
        Self::with(domain)
    }

    fn with(domain: Domain) -> Self {
        let roles = (1..=3).map(|id| (n(id), Roles::new(n(id), u64::from(id)))).collect();
        let mut world = Self { now: Instant::from_nanos(1), domain, roles, orders: Vec::new(), down: Vec::new(), in_sync_by_itself: true };
        world.spread();
        for id in 1..=3 {
            world.give(n(id), Input::Unit { group: calls(), unit: Unit::Ready, cause: cause(1) });
        }
        world.run(Duration::from_secs(1));
        world.orders.clear();
        world
    }

    fn give(&mut self, node: NodeId, input: Input) {
        if self.down.contains(&node) {
            return;
        }
        self.roles.get_mut(&node).expect("it exists").handle(self.now, input);
        self.drain(node);
    }

    fn drain(&mut self, node: NodeId) {
        while let Some(output) = self.roles.get_mut(&node).expect("it exists").poll_output() {
            match output {
                Output::Propose { entry, .. } => {
                    let entry = Entry::decode(&entry.encode()).expect("own bytes");
                    let index = LogIndex(self.domain.applied.0 + 1);
                    let changes = self.domain.apply(index, &entry);
                    if changes.is_ok() {
                        self.spread();
                        self.grow();
                    }
                }
                Output::Tell { to, told } => self.give(to, Input::Told { from: node, told }),
                Output::Offer { group, .. } => {
                    let member = self.domain.member(node).expect("it joined");
                    let offer = Offer { complete: false, epoch: Epoch(0), sequence: 0, member };
                    self.give(node, Input::Offered { group, offer });
                }
                other => self.orders.push((node, other)),
            }
        }
    }

    fn spread(&mut self) {
        let domain = Arc::new(self.domain.clone());
        for node in self.roles.keys().copied().collect::<Vec<_>>() {
            self.give(node, Input::Applied(Arc::clone(&domain)));
        }
    }

    /// As the checkpoint service would: the copies that placement wants are complete soon.
    fn grow(&mut self) {
        if !self.in_sync_by_itself {
            return;
        }
        for group in self.domain.groups.keys().cloned().collect::<Vec<_>>() {
            let row = self.domain.groups[&group].clone();
            let Some(by) = row.active.filter(|a| self.domain.is_current(*a)) else { continue };
            let Some(wanted) = self.roles[&by.node].replicas.get(&group).cloned() else { continue };
            let mut in_sync: std::collections::BTreeSet<_> = wanted.iter().filter_map(|n| self.domain.member(*n)).collect();
            in_sync.insert(by);
            if in_sync != row.in_sync {
                let index = LogIndex(self.domain.applied.0 + 1);
                let entry = Entry::Sync { group, version: row.version, by, in_sync };
                self.domain.apply(index, &entry).expect("the active asks");
                self.spread();
            }
        }
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let next = self.roles.iter().filter(|(n, _)| !self.down.contains(n)).filter_map(|(n, r)| Some((r.poll_timeout()?, *n))).min();
            let Some((at, node)) = next.filter(|(at, _)| *at <= end) else { break };
            assert!(at >= self.now || at <= end);
            self.now = self.now.max(at) + Duration::from_nanos(1);
            self.give(node, Input::Timeout);
        }
        self.now = self.now.max(end);
    }

    /// `at` holds a node for dead, and hears from voters that they have released it.
    fn lose(&mut self, at: NodeId, node: NodeId, voters: &[NodeId]) {
        let target = self.domain.member(node).expect("it joined");
        let since = self.domain.nodes[&node].since;
        self.give(at, Input::Verdict { node, lost: true, cause: cause(7) });
        for voter in voters {
            let voter = self.domain.member(*voter).expect("it joined");
            self.give(at, Input::Release(Release { voter, target, since }));
        }
    }

    /// The node is gone: the others hold it for dead and release it.
    fn kill(&mut self, node: NodeId) {
        self.down.push(node);
        let others: Vec<NodeId> = self.roles.keys().copied().filter(|n| !self.down.contains(n)).collect();
        for at in &others {
            self.lose(*at, node, &others);
        }
        self.grow();
        self.run(Duration::from_millis(200));
    }

    /// The node's process starts anew, with nothing in memory.
    fn restart(&mut self, node: NodeId, nonce: u64) {
        self.down.retain(|d| *d != node);
        self.roles.insert(node, Roles::new(node, nonce));
        for at in self.roles.keys().copied().collect::<Vec<_>>() {
            self.give(at, Input::Verdict { node, lost: false, cause: cause(8) });
        }
        let domain = Arc::new(self.domain.clone());
        self.give(node, Input::Applied(domain));
        self.give(node, Input::Unit { group: calls(), unit: Unit::Ready, cause: cause(9) });
        self.grow();
        self.run(Duration::from_secs(3));
    }

    fn active(&self, group: &GroupName) -> Option<NodeId> {
        self.domain.groups[group].active.map(|m| m.node)
    }

    /// The fences that were asked for: by whom, the request, whom.
    fn fences(&self) -> Vec<(NodeId, u64, NodeId)> {
        let asked = |(at, o): &(NodeId, Output)| if let Output::Fence { request, target, .. } = o { Some((*at, *request, target.node)) } else { None };
        self.orders.iter().filter_map(asked).collect()
    }

    fn in_sync(&self, group: &GroupName) -> Vec<NodeId> {
        self.domain.groups[group].in_sync.iter().map(|m| m.node).collect()
    }
}

#[test]
fn the_first_candidate_starts_and_its_standby_is_in_another_chassis() {
    let world = World::new();
    assert_eq!(world.active(&calls()), Some(n(1)));
    assert_eq!(world.in_sync(&calls()), [n(1), n(3)]);
    assert_eq!(world.active(&"chassis:mxp1".into()), Some(n(1)));
    assert_eq!(world.in_sync(&"chassis:mxp1".into()), [n(1), n(2)]);
    assert_eq!(world.active(&"chassis:mxp2".into()), Some(n(3)));
}

#[test]
fn a_dead_actives_groups_go_to_their_standbys() {
    let mut world = World::new();
    world.kill(n(1));
    assert_eq!(world.active(&calls()), Some(n(3)));
    assert_eq!(world.active(&"chassis:mxp1".into()), Some(n(2)));
    assert_eq!(world.domain.groups[&calls()].epoch, Epoch(2));
    assert!(world.orders.iter().any(|(at, o)| *at == n(3) && matches!(o, Output::Role { role: Role::Active(Epoch(2)), .. })));
}

/// Measured: each entry costs a round of the log, and clients waited for the one of the fans.
#[test]
fn services_are_taken_over_before_chassis() {
    let mut world = World::new();
    world.down.push(n(1));
    world.lose(n(2), n(1), &[n(2), n(3)]);
    assert_eq!(world.active(&"chassis:mxp1".into()), Some(n(1)), "the service first");
    world.lose(n(3), n(1), &[n(2), n(3)]);
    assert_eq!((world.active(&calls()), world.active(&"chassis:mxp1".into())), (Some(n(3)), Some(n(2))), "and nobody waited for a clock");
}

/// A service that cannot move holds up no chassis.
#[test]
fn a_chassis_waits_for_services_only_for_a_moment() {
    let mut world = World::new();
    world.give(n(3), Input::Unit { group: calls(), unit: Unit::Gone, cause: cause(1) });
    let before = world.now;
    world.kill(n(1));
    assert_eq!(world.active(&"chassis:mxp1".into()), Some(n(2)));
    assert!(world.now.since(before) >= step::SERVICES_FIRST);
}

#[test]
fn a_dead_standby_is_replaced_and_nothing_moves() {
    let mut world = World::new();
    world.kill(n(3));
    assert_eq!(world.active(&calls()), Some(n(1)));
    assert_eq!(world.in_sync(&calls()), [n(1), n(2)]);
    world.restart(n(3), 33);
    assert_eq!(world.in_sync(&calls()), [n(1), n(3)], "back in the other chassis");
}

#[test]
fn without_releases_of_a_majority_nothing_moves() {
    let mut world = World::new();
    world.give(n(3), Input::Verdict { node: n(1), lost: true, cause: cause(7) });
    let release = Release { voter: world.domain.member(n(3)).expect("joined"), target: world.domain.member(n(1)).expect("joined"), since: world.domain.nodes[&n(1)].since };
    world.give(n(3), Input::Release(release));
    world.run(Duration::from_secs(5));
    assert_eq!(world.active(&calls()), Some(n(1)));
}

#[test]
fn a_released_node_confirms_itself_and_the_releases_are_void() {
    let mut world = World::new();
    let target = world.domain.member(n(1)).expect("joined");
    let since = world.domain.nodes[&n(1)].since;
    let release = |id: u16, w: &World| Release { voter: w.domain.member(n(id)).expect("joined"), target, since };
    let (second, third) = (release(2, &world), release(3, &world));
    world.give(n(1), Input::Release(second));
    assert!(world.domain.nodes[&n(1)].since > since, "Confirm was applied");
    world.give(n(3), Input::Release(second));
    world.give(n(3), Input::Release(third));
    world.run(Duration::from_secs(1));
    assert_eq!(world.active(&calls()), Some(n(1)), "old releases no longer count");
}

#[test]
fn a_dead_application_is_relinquished_and_nobody_waits() {
    let mut world = World::new();
    world.give(n(1), Input::Unit { group: calls(), unit: Unit::Gone, cause: cause(5) });
    assert_eq!(world.active(&calls()), Some(n(1)), "not before it is silent");
    assert!(world.orders.contains(&(n(1), Output::Relinquish { group: calls(), epoch: Epoch(1) })));
    world.give(n(1), Input::Silenced { group: calls(), epoch: Epoch(1) });
    assert_eq!(world.active(&calls()), Some(n(3)));
}

#[test]
fn a_dead_application_without_a_standby_keeps_its_role() {
    let mut world = World::new();
    world.in_sync_by_itself = false;
    world.kill(n(3));
    let row = world.domain.groups[&calls()].clone();
    let me = row.active.expect("active");
    let index = LogIndex(world.domain.applied.0 + 1);
    world.domain.apply(index, &Entry::Sync { group: calls(), version: row.version, by: me, in_sync: [me].into() }).expect("shrunk");
    world.spread();
    world.orders.clear();
    world.give(n(1), Input::Unit { group: calls(), unit: Unit::Gone, cause: cause(5) });
    world.run(Duration::from_secs(1));
    assert!(!world.orders.iter().any(|(_, o)| matches!(o, Output::Relinquish { .. })));
}

#[test]
fn a_switchover_quiesces_falls_silent_and_keeps_the_set() {
    let mut world = World::new();
    world.give(n(2), Input::Move { wish: Wish::Switchover { group: calls(), to: None }, cause: cause(6) });
    let quiesce = world.orders.iter().find_map(|(at, o)| match o {
        Output::Quiesce { epoch, to, .. } => Some((*at, *epoch, to.node)),
        _ => None,
    });
    assert_eq!(quiesce, Some((n(1), Epoch(1), n(3))), "asked at n2, ordered at n1");
    world.give(n(1), Input::Quiesced { group: calls(), epoch: Epoch(1) });
    assert_eq!(world.active(&calls()), Some(n(1)));
    world.give(n(1), Input::Silenced { group: calls(), epoch: Epoch(1) });
    assert_eq!(world.active(&calls()), Some(n(3)));
    assert_eq!(world.in_sync(&calls()), [n(1), n(3)]);
}

#[test]
fn a_switchover_that_hangs_is_given_up() {
    let mut world = World::new();
    world.give(n(1), Input::Move { wish: Wish::Switchover { group: calls(), to: Some(n(3)) }, cause: cause(6) });
    world.run(Duration::from_secs(1));
    assert!(world.orders.contains(&(n(1), Output::Resume { group: calls(), epoch: Epoch(1) })));
    assert!(world.orders.iter().any(|(_, o)| matches!(o, Output::Refused { .. })));
    assert_eq!(world.active(&calls()), Some(n(1)));
}

#[test]
fn a_silent_active_whose_target_died_takes_its_role_back_under_a_new_epoch() {
    let mut world = World::new();
    world.give(n(1), Input::Move { wish: Wish::Switchover { group: calls(), to: Some(n(3)) }, cause: cause(6) });
    world.give(n(1), Input::Quiesced { group: calls(), epoch: Epoch(1) });
    world.down.push(n(3));
    world.give(n(1), Input::Verdict { node: n(3), lost: true, cause: cause(7) });
    world.give(n(1), Input::Silenced { group: calls(), epoch: Epoch(1) });
    world.run(Duration::from_secs(1));
    let row = &world.domain.groups[&calls()];
    assert_eq!((row.active.map(|m| m.node), row.epoch), (Some(n(1)), Epoch(2)));
}

#[test]
fn a_switchover_to_a_node_that_is_not_in_sync_is_refused() {
    let mut world = World::new();
    world.give(n(1), Input::Move { wish: Wish::Switchover { group: calls(), to: Some(n(2)) }, cause: cause(6) });
    let reason = world.orders.iter().find_map(|(_, o)| if let Output::Refused { reason, .. } = o { Some(reason.clone()) } else { None });
    assert_eq!(reason.as_deref(), Some("calls cannot move: n2 is not in sync. Wait until it is"));
}

#[test]
fn evacuating_a_chassis_moves_its_services_out() {
    let mut world = World::new();
    world.give(n(2), Input::Move { wish: Wish::EvacuateChassis("mxp1".into()), cause: cause(6) });
    world.give(n(1), Input::Quiesced { group: calls(), epoch: Epoch(1) });
    world.give(n(1), Input::Silenced { group: calls(), epoch: Epoch(1) });
    assert_eq!(world.active(&calls()), Some(n(3)));
}

#[test]
fn a_chassis_whose_only_owner_restarted_is_owned_again() {
    let mut world = World::new();
    world.kill(n(3));
    world.restart(n(3), 33);
    let row = &world.domain.groups[&GroupName::new("chassis:mxp2")];
    assert_eq!(row.active, world.domain.member(n(3)));
    assert_eq!(row.generation.0, 1, "what it knew beyond its sensors is declared lost");
}

#[test]
fn a_service_waits_for_an_operator_when_every_copy_is_gone() {
    let mut world = World::new();
    for id in 1..=3 {
        world.down.push(n(id));
    }
    for id in 1..=3 {
        world.restart(n(id), 40 + u64::from(id));
    }
    let waiting = world.domain.groups[&calls()].active.is_some_and(|m| world.domain.is_current(m));
    assert!(!waiting, "nobody decides alone");
    world.give(n(2), Input::Move { wish: Wish::Start { group: calls() }, cause: cause(9) });
    world.run(Duration::from_secs(10));
    assert!(world.domain.groups[&calls()].active.is_some_and(|m| world.domain.is_current(m)));
}

fn release(world: &World, by: u16) -> Release {
    let voter = world.domain.member(n(by)).expect("joined");
    Release { voter, target: world.domain.member(n(2)).expect("joined"), since: world.domain.nodes[&n(2)].since }
}

/// For so many milliseconds each of these releases n2 anew whenever it may. Says how often n2 was confirmed.
fn confirmations(world: &mut World, voters: &[u16], milliseconds: u64) -> u64 {
    let first = world.domain.applied;
    for _ in 0..milliseconds {
        for voter in voters {
            let again = release(world, *voter);
            world.give(n(2), Input::Release(again));
        }
        world.run(Duration::from_millis(1));
    }
    world.domain.applied.0 - first.0
}

/// Found by the simulator: n3 does not hear n2, everybody else hears everybody.
#[test]
fn a_minority_that_does_not_hear_a_node_is_answered_less_and_less_often() {
    let mut world = World::new();
    assert_eq!(confirmations(&mut world, &[3], 1000), 7, "at 0, 10, 30, 70, 150, 310 and 630 ms");
    assert_eq!(confirmations(&mut world, &[3], 2000), 4, "every half second");
}

/// Found by the simulator: the other voter was cut off within that half second, and the service had no lease until its end.
#[test]
fn a_minority_that_hears_a_node_again_is_answered_soon() {
    let mut world = World::new();
    confirmations(&mut world, &[3], 1000);
    for heard in [Input::Cut { from: n(2), to: n(3), cut: false }, Input::Verdict { node: n(3), lost: false, cause: cause(1) }] {
        let standing = release(&world, 3);
        world.give(n(2), Input::Release(standing));
        world.give(n(2), heard);
        world.run(Duration::from_millis(10));
        assert!(world.domain.nodes[&n(2)].since > standing.since);
        world.run(Duration::from_millis(100));
    }
}

/// A node that comes back is still held for mute by those who hear it for the first time.
#[test]
fn a_majority_is_answered_at_once_and_then_every_twenty_milliseconds() {
    let mut world = World::new();
    for by in [1, 3] {
        let one = release(&world, by);
        world.give(n(2), Input::Release(one));
    }
    assert!(world.domain.nodes[&n(2)].since > LogIndex::default());
    assert_eq!(confirmations(&mut world, &[1, 3], 200), 10);
}

#[test]
fn leadership_leaves_a_busy_node_when_all_is_quiet() {
    let mut world = World::new();
    world.give(n(1), Input::Leader(Some(n(1))));
    world.run(Duration::from_secs(3));
    assert!(world.orders.contains(&(n(1), Output::TransferLeader { to: n(2) })), "{:?}", world.orders);
}

/// Found by the simulator: an active that did not hear the leader got its proposals to him, and never learned of an outcome; one that the
/// leader did not hear waited for Raft's clocks.
#[test]
fn a_leader_with_a_cut_way_to_somebody_hands_over_to_one_without() {
    for (from, to) in [(2, 1), (1, 2)] {
        let mut world = World::new();
        world.give(n(2), Input::Leader(Some(n(2))));
        world.give(n(2), Input::Cut { from: n(from), to: n(to), cut: true });
        assert!(world.orders.contains(&(n(2), Output::TransferLeader { to: n(3) })), "{:?}", world.orders);
        world.orders.clear();
        world.give(n(2), Input::Cut { from: n(from), to: n(to), cut: false });
        world.run(Duration::from_millis(500));
        assert!(!world.orders.iter().any(|(_, order)| matches!(order, Output::TransferLeader { .. })), "{:?}", world.orders);
    }
}

#[test]
fn leadership_is_not_given_to_a_node_with_a_cut_way_however_little_it_has_to_do() {
    let mut world = World::new();
    for peer in [2, 3] {
        world.give(n(1), Input::Cut { from: n(peer), to: n(9), cut: true });
    }
    world.give(n(1), Input::Leader(Some(n(1))));
    world.run(Duration::from_secs(3));
    assert!(!world.orders.iter().any(|(_, order)| matches!(order, Output::TransferLeader { .. })), "{:?}", world.orders);
}

#[test]
fn when_a_majority_has_released_the_logs_leader_the_least_busy_voter_campaigns_first() {
    let mut world = World::new();
    for id in [2, 3] {
        world.give(n(id), Input::Leader(Some(n(1))));
    }
    world.down.push(n(1));
    let target = world.domain.member(n(1)).expect("joined");
    let since = world.domain.nodes[&n(1)].since;
    let release = |id: u16, w: &World| Release { voter: w.domain.member(n(id)).expect("joined"), target, since };
    let campaigns = |world: &World| world.orders.iter().filter(|(_, o)| *o == Output::Campaign { against: n(1) }).map(|(at, _)| *at).collect::<Vec<_>>();
    for at in [2, 3] {
        world.give(n(at), Input::Verdict { node: n(1), lost: true, cause: cause(7) });
        world.give(n(at), Input::Release(release(2, &world)));
    }
    assert!(campaigns(&world).is_empty(), "one voter's word is not enough");
    for at in [3, 2] {
        world.give(n(at), Input::Release(release(3, &world)));
    }
    assert_eq!(campaigns(&world), [n(2)], "n3 has taken the calls over");
    world.run(Duration::from_millis(100));
    assert_eq!(campaigns(&world), [n(2), n(3)], "the other one tries a little later, and each of them once");
}

/// Found with real processes: nobody took it for dead, and its last life's word was waited for until Raft's own time was over.
#[test]
fn a_leader_that_has_begun_another_life_before_anybody_missed_it_is_succeeded_at_once() {
    let mut world = World::new();
    for id in [2, 3] {
        world.give(n(id), Input::Leader(Some(n(1))));
        world.give(n(id), Input::Reborn(n(3)));
    }
    let campaigns = |world: &World| world.orders.iter().filter(|(_, o)| *o == Output::Campaign { against: n(1) }).map(|(at, _)| *at).collect::<Vec<_>>();
    assert!(campaigns(&world).is_empty(), "it does not lead");
    world.give(n(2), Input::Reborn(n(1)));
    world.give(n(3), Input::Reborn(n(1)));
    world.run(Duration::from_millis(5));
    assert_eq!(campaigns(&world).len(), 1, "the one with the least to do");
    world.give(n(3), Input::Leader(Some(n(2))));
    world.run(Duration::from_millis(100));
    assert_eq!(campaigns(&world).len(), 1, "there is another leader");
}

#[test]
fn what_a_dead_leader_may_have_swallowed_is_proposed_again_to_the_next_at_once() {
    let mut roles = Roles::new(n(2), 5);
    let domain = configured();
    let now = Instant::from_nanos(1);
    let proposals = |roles: &mut Roles| std::iter::from_fn(|| roles.poll_output()).filter(|o| matches!(o, Output::Propose { .. })).count();
    roles.handle(now, Input::Applied(Arc::new(domain)));
    assert_eq!(proposals(&mut roles), 1);
    roles.handle(now, Input::Leader(None));
    assert_eq!(proposals(&mut roles), 0, "nobody to ask");
    roles.handle(now, Input::Leader(Some(n(3))));
    assert_eq!(proposals(&mut roles), 1);
}

#[test]
fn an_active_asks_for_another_set_until_the_row_has_moved_on() {
    let mut world = World::new();
    world.in_sync_by_itself = false;
    let row = world.domain.groups[&calls()].clone();
    let me = row.active.expect("active");
    world.give(n(2), Input::Sync { group: calls(), version: row.version, in_sync: [me].into() });
    assert_eq!(world.in_sync(&calls()), [n(1), n(3)], "n2 is not active");
    world.give(n(1), Input::Sync { group: calls(), version: Version(row.version.0 + 1), in_sync: [me].into() });
    assert_eq!(world.in_sync(&calls()), [n(1), n(3)], "made for a row that this node has not seen yet");
    world.give(n(1), Input::Sync { group: calls(), version: row.version, in_sync: [me].into() });
    assert_eq!(world.in_sync(&calls()), [n(1)]);
}

#[test]
fn a_start_with_a_loss_is_refused_where_nothing_was_lost() {
    let mut world = World::new();
    world.give(n(2), Input::Move { wish: Wish::Start { group: calls() }, cause: cause(9) });
    assert!(world.orders.iter().any(|(_, o)| matches!(o, Output::Refused { reason, .. } if reason.contains("lost nothing"))), "{:?}", world.orders);
    assert_eq!(world.domain.groups[&calls()].epoch, Epoch(1));
}

#[test]
fn a_released_leader_that_is_back_is_left_to_lead() {
    let mut world = World::new();
    world.down.push(n(1));
    let target = world.domain.member(n(1)).expect("joined");
    let since = world.domain.nodes[&n(1)].since;
    for voter in [2, 3] {
        let voter = world.domain.member(n(voter)).expect("joined");
        world.give(n(2), Input::Release(Release { voter, target, since }));
    }
    world.give(n(2), Input::Leader(Some(n(1))));
    world.run(Duration::from_secs(1));
    assert!(!world.orders.iter().any(|(_, o)| matches!(o, Output::Campaign { .. })), "it is heard: {:?}", world.orders);
}

#[test]
fn who_waits_for_a_fence_is_taken_over_when_the_log_has_the_evidence_and_not_before() {
    let mut world = World::fencing();
    world.kill(n(1));
    world.run(Duration::from_secs(60));
    assert_eq!(world.active(&calls()), Some(n(1)), "released by everybody, and not known to be off");
    assert_eq!(world.active(&"chassis:mxp1".into()), Some(n(2)), "what checks epochs does not wait");
    let asked = world.fences();
    let &[(by, request, target)] = asked.as_slice() else { panic!("once, and by one: {asked:?}") };
    assert_eq!((by, target), (n(3), n(1)), "by the best bidder");
    world.give(by, Input::Fenced { request: request + 1, evidence: Some("another request".into()), cause: cause(20) });
    assert_eq!(world.active(&calls()), Some(n(1)));
    world.give(by, Input::Fenced { request, evidence: Some("outlet 7 is off".repeat(100)), cause: cause(20) });
    world.run(Duration::from_secs(1));
    assert_eq!(world.active(&calls()), Some(n(3)));
    assert!(world.domain.fenced[&n(1)].evidence.len() <= crate::domain::fence::EVIDENCE_MAX);
    assert_eq!(world.fences().len(), 1);
}

#[test]
fn a_fence_that_fails_is_tried_again_with_longer_pauses_and_nothing_moves() {
    let mut world = World::fencing();
    world.kill(n(1));
    for pause in [2, 4, 8, 16, 30, 30] {
        let asked = world.fences().len();
        let (by, request, _) = world.fences()[asked - 1];
        world.give(by, Input::Fenced { request, evidence: None, cause: cause(21) });
        world.run(Duration::from_millis(pause * 1000 - 100));
        assert_eq!(world.fences().len(), asked, "not before {pause} s");
        world.run(Duration::from_millis(200));
        assert_eq!(world.fences().len(), asked + 1, "after {pause} s");
    }
    assert_eq!(world.active(&calls()), Some(n(1)));
}

#[test]
fn a_node_that_comes_back_is_not_fenced_any_more() {
    // In time: it is active as before, and a late answer is nobody's.
    let mut world = World::fencing();
    world.kill(n(1));
    let (by, request, _) = world.fences()[0];
    let (me, since) = (world.domain.member(n(1)).expect("joined"), world.domain.nodes[&n(1)].since);
    world.domain.apply(LogIndex(world.domain.applied.0 + 1), &Entry::Confirm { node: me, since }).expect("it is back");
    world.spread();
    assert!(world.orders.contains(&(by, Output::FenceDropped { target: me })));
    world.give(by, Input::Fenced { request, evidence: Some("off".into()), cause: cause(22) });
    world.run(Duration::from_secs(60));
    assert_eq!((world.active(&calls()), world.domain.fenced.len()), (Some(n(1)), 0));

    // In another life: the old one is over, by its own node, and nothing waits for a device.
    let mut world = World::fencing();
    world.kill(n(1));
    world.restart(n(1), 44);
    assert_eq!((world.active(&calls()), world.domain.fenced.len()), (Some(n(3)), 0));
}

#[test]
fn a_role_that_is_given_up_or_handed_over_waits_for_no_fence() {
    let mut world = World::fencing();
    world.give(n(1), Input::Unit { group: calls(), unit: Unit::Gone, cause: cause(5) });
    world.give(n(1), Input::Silenced { group: calls(), epoch: Epoch(1) });
    assert_eq!(world.active(&calls()), Some(n(3)), "relinquished");
    world.give(n(1), Input::Unit { group: calls(), unit: Unit::Ready, cause: cause(5) });
    world.grow();
    world.give(n(3), Input::Move { wish: Wish::Switchover { group: calls(), to: Some(n(1)) }, cause: cause(6) });
    world.give(n(3), Input::Quiesced { group: calls(), epoch: Epoch(2) });
    world.give(n(3), Input::Silenced { group: calls(), epoch: Epoch(2) });
    assert_eq!((world.active(&calls()), world.fences().len()), (Some(n(1)), 0), "handed over");
}

#[test]
fn who_has_no_lease_fences_nobody() {
    let mut world = World::fencing();
    world.give(n(3), Input::Suspended(Some(cause(30))));
    world.kill(n(1));
    world.run(Duration::from_secs(2));
    assert_eq!(world.fences(), []);
    world.give(n(3), Input::Suspended(None));
    assert_eq!(world.fences().len(), 1);
}

#[test]
fn a_sole_member_that_is_known_to_be_off_is_gone() {
    let mut world = World::fencing();
    world.in_sync_by_itself = false;
    world.kill(n(3));
    let row = world.domain.groups[&calls()].clone();
    let sole = row.active.expect("active");
    let index = |w: &World| LogIndex(w.domain.applied.0 + 1);
    world.domain.apply(index(&world), &Entry::Sync { group: calls(), version: row.version, by: sole, in_sync: [sole].into() }).expect("shrunk");
    world.restart(n(3), 33);
    world.kill(n(1));
    world.run(Duration::from_secs(5));
    assert_eq!((world.active(&calls()), world.fences().len()), (Some(n(1)), 0), "what it alone knows is not thrown away by itself");
    let since = world.domain.nodes[&n(1)].since;
    let fenced = Entry::Fenced { target: sole, since, by: world.domain.member(n(2)).expect("joined"), evidence: "off".into() };
    world.domain.apply(index(&world), &fenced).expect("evidence");
    world.spread();
    world.run(Duration::from_secs(2));
    assert_eq!(world.active(&calls()), Some(n(1)), "on_total_loss is wait");
    world.give(n(2), Input::Move { wish: Wish::Start { group: calls() }, cause: cause(6) });
    world.run(Duration::from_secs(2));
    assert!(world.active(&calls()).is_some_and(|a| a != n(1)), "an operator's word, and no offer of who is off");
}
