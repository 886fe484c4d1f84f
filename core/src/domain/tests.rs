//! The rows under entries that come late, twice, or from the wrong hand.

use std::collections::BTreeSet;

use super::config::{ChassisConfig, DomainConfig, NodeConfig, Profile, ServiceConfig};
use super::limits::Limit;
use super::*;

/// Three data nodes with a vote each, two in mxp1, one in mxp2, and the service `calls`.
fn domain() -> Domain {
    let node = |id: u16, chassis: &str| NodeConfig {
        id: NodeId(id),
        chassis: chassis.into(),
        links: vec![format!("10.1.0.{id}:7400").parse().expect("an address")],
        voter: true,
        witness: false,
    };
    let chassis = |name: &str| ChassisConfig { name: name.into(), manager: None };
    let config = DomainConfig {
        domain: "lab".into(),
        profile: Profile::Fabric,
        nodes: vec![node(1, "mxp1"), node(2, "mxp1"), node(3, "mxp2")],
        chassis: vec![chassis("mxp1"), chassis("mxp2")],
        services: vec![ServiceConfig {
            name: calls(),
            command: vec!["server".into()],
            addresses: Vec::new(),
            device: None,
            nodes: Vec::new(),
            copies: 2,
            floor: 1,
            on_total_loss: Default::default(),
            fence: Default::default(),
        }],
        ..DomainConfig::default()
    };
    let mut domain = Domain::default();
    apply(&mut domain, &Entry::Configure { expected: Version(0), config }).expect("a good configuration");
    for id in 1..=3 {
        join(&mut domain, id, u64::from(id)).expect("a node of the domain");
    }
    domain
}

fn calls() -> GroupName {
    GroupName::new("calls")
}

fn apply(domain: &mut Domain, entry: &Entry) -> Result<Vec<Change>, Void> {
    let index = LogIndex(domain.applied.0 + 1);
    let decoded = Entry::decode(&entry.encode()).expect("own bytes");
    assert_eq!(&decoded, entry);
    domain.apply(index, &decoded)
}

/// A node joins, having seen what the domain says now.
fn join(domain: &mut Domain, id: u16, nonce: u64) -> Result<Vec<Change>, Void> {
    let replaces = domain.member(NodeId(id)).map_or(Incarnation(0), |m| m.incarnation);
    apply(domain, &Entry::Joined { node: NodeId(id), nonce, replaces })
}

fn member(domain: &Domain, id: u16) -> Member {
    domain.member(NodeId(id)).expect("it joined")
}

fn row(domain: &Domain) -> &GroupRow {
    &domain.groups[&calls()]
}

/// n1 active, n1 and n3 in sync.
fn serving() -> Domain {
    let mut domain = domain();
    let (a, b) = (member(&domain, 1), member(&domain, 3));
    let version = row(&domain).version;
    let start = Entry::Start { group: calls(), version, to: a, offers: BTreeSet::new(), lost: false };
    apply(&mut domain, &start).expect("a first start");
    let version = row(&domain).version;
    apply(&mut domain, &Entry::Sync { group: calls(), version, by: a, in_sync: [a, b].into() }).expect("grow");
    domain
}

fn releases(domain: &Domain, target: u16, voters: &[u16]) -> Evidence {
    let since = domain.nodes[&NodeId(target)].since;
    let target = member(domain, target);
    Evidence::Released(voters.iter().map(|v| Release { voter: member(domain, *v), target, since }).collect())
}

fn takeover(domain: &Domain, to: u16, evidence: Evidence) -> Entry {
    Entry::Takeover { group: calls(), version: row(domain).version, to: member(domain, to), evidence }
}

#[test]
fn a_takeover_needs_releases_from_a_majority() {
    let mut domain = serving();
    let one = takeover(&domain, 3, releases(&domain, 1, &[3]));
    assert_eq!(apply(&mut domain, &one), Err(Void::Releases { valid: 1, needed: 2 }));
    let same_twice = takeover(&domain, 3, releases(&domain, 1, &[3, 3]));
    assert_eq!(apply(&mut domain, &same_twice), Err(Void::Releases { valid: 1, needed: 2 }));
    let two = takeover(&domain, 3, releases(&domain, 1, &[2, 3]));
    apply(&mut domain, &two).expect("a majority");
    assert_eq!(row(&domain).epoch, Epoch(2));
    assert_eq!(row(&domain).active, Some(member(&domain, 3)));
    assert_eq!(row(&domain).in_sync, [member(&domain, 3)].into());
}

#[test]
fn a_takeover_made_before_a_shrink_does_nothing_after_it() {
    let mut domain = serving();
    let late = takeover(&domain, 3, releases(&domain, 1, &[2, 3]));
    let a = member(&domain, 1);
    let shrink = Entry::Sync { group: calls(), version: row(&domain).version, by: a, in_sync: [a].into() };
    apply(&mut domain, &shrink).expect("the active may");
    assert!(matches!(apply(&mut domain, &late), Err(Void::Version { .. })));
    assert_eq!(row(&domain).active, Some(a));
}

#[test]
fn only_a_member_of_the_set_is_promoted() {
    let mut domain = serving();
    let entry = takeover(&domain, 2, releases(&domain, 1, &[2, 3]));
    assert_eq!(apply(&mut domain, &entry), Err(Void::NotInSync(member(&domain, 2))));
}

#[test]
fn a_confirmed_node_voids_the_releases_made_before() {
    let mut domain = serving();
    let late = takeover(&domain, 3, releases(&domain, 1, &[2, 3]));
    let since = domain.nodes[&NodeId(1)].since;
    let confirm = Entry::Confirm { node: member(&domain, 1), since };
    apply(&mut domain, &confirm).expect("it is back");
    assert_eq!(apply(&mut domain, &late), Err(Void::Releases { valid: 0, needed: 2 }));
    assert!(apply(&mut domain, &confirm).is_err(), "the same confirmation does nothing again");
}

#[test]
fn a_restarted_voters_release_counts_no_more() {
    let mut domain = serving();
    let late = takeover(&domain, 3, releases(&domain, 1, &[2, 3]));
    join(&mut domain, 2, 9).expect("a restart");
    assert_eq!(apply(&mut domain, &late), Err(Void::Releases { valid: 1, needed: 2 }));
}

#[test]
fn a_new_life_is_in_no_set_and_its_old_one_can_be_succeeded() {
    let mut domain = serving();
    join(&mut domain, 1, 9).expect("a restart");
    assert_eq!(row(&domain).in_sync, [member(&domain, 3)].into());
    let entry = takeover(&domain, 3, Evidence::Released(Vec::new()));
    apply(&mut domain, &entry).expect("a life that is over speaks no more");
    assert_eq!(row(&domain).active, Some(member(&domain, 3)));
}

#[test]
fn releases_of_one_node_serve_the_takeover_of_each_of_its_groups() {
    let mut domain = serving();
    let chassis = config::chassis_group("mxp1");
    let (a, b) = (member(&domain, 1), member(&domain, 2));
    let version = domain.groups[&chassis].version;
    apply(&mut domain, &Entry::Start { group: chassis.clone(), version, to: a, offers: BTreeSet::new(), lost: false }).expect("start");
    let version = domain.groups[&chassis].version;
    apply(&mut domain, &Entry::Sync { group: chassis.clone(), version, by: a, in_sync: [a, b].into() }).expect("grow");
    let evidence = releases(&domain, 1, &[2, 3]);
    let first = takeover(&domain, 3, evidence.clone());
    let version = domain.groups[&chassis].version;
    let second = Entry::Takeover { group: chassis, version, to: b, evidence };
    apply(&mut domain, &first).expect("the service");
    apply(&mut domain, &second).expect("the chassis");
}

#[test]
fn a_start_needs_an_empty_set_and_every_offer() {
    let mut domain = serving();
    let to = member(&domain, 3);
    let start = |domain: &Domain, to: Member, offers: &[u16]| Entry::Start {
        group: calls(),
        version: row(domain).version,
        to,
        offers: offers.iter().map(|n| member(domain, *n)).collect(),
        lost: true,
    };
    let early = start(&domain, to, &[1, 2, 3]);
    assert!(matches!(apply(&mut domain, &early), Err(Void::Start(_))), "a member lives");
    for node in [1, 3] {
        join(&mut domain, node, 9).expect("a restart");
    }
    let to = member(&domain, 3);
    let partial = start(&domain, to, &[1, 3]);
    assert!(matches!(apply(&mut domain, &partial), Err(Void::Start(_))), "n2 made no offer");
    let whole = start(&domain, to, &[1, 2, 3]);
    apply(&mut domain, &whole).expect("every node offered");
    assert_eq!((row(&domain).generation, row(&domain).epoch), (Generation(1), Epoch(2)));
}

#[test]
fn bytes_that_are_no_entry_are_refused() {
    let good = Entry::Joined { node: NodeId(1), nonce: 7, replaces: Incarnation(0) }.encode();
    assert!(matches!(Entry::decode(&[]), Err(DecodeError::Empty)));
    assert!(matches!(Entry::decode(&[9, 0, 0]), Err(DecodeError::Format { theirs: 9, .. })));
    assert!(matches!(Entry::decode(&[1, 99]), Err(DecodeError::Kind { theirs: 99, .. })));
    assert!(matches!(Entry::decode(&[good.as_slice(), &[0]].concat()), Err(DecodeError::Trailing(1))));
}

#[test]
fn a_repeated_join_begins_no_second_life() {
    let mut domain = domain();
    let before = member(&domain, 1);
    assert_eq!(join(&mut domain, 1, 1), Err(Void::Repeated));
    assert_eq!(member(&domain, 1), before);
    join(&mut domain, 1, 77).expect("another life");
    assert_ne!(member(&domain, 1), before);
}

#[test]
fn what_a_dead_process_sent_ends_no_later_life() {
    let mut domain = serving();
    let seen = member(&domain, 1);
    let late = Entry::Joined { node: NodeId(1), nonce: 8, replaces: seen.incarnation };
    join(&mut domain, 1, 9).expect("the process after it was faster");
    let present = member(&domain, 1);
    assert_eq!(apply(&mut domain, &late), Err(Void::Superseded(seen)));
    assert_eq!(member(&domain, 1), present);
}

#[test]
fn a_group_that_went_and_came_back_goes_on_where_it_was() {
    let mut domain = serving();
    let (with, before) = (domain.config.clone(), row(&domain).clone());
    let without = DomainConfig { services: Vec::new(), ..with.clone() };
    for (expected, config) in [(Version(1), without), (Version(2), with)] {
        apply(&mut domain, &Entry::Configure { expected, config }).expect("a good configuration");
    }
    assert_eq!(row(&domain), &before, "else another node could be started beside the old active");
}

#[test]
fn other_voters_void_every_release() {
    let mut domain = serving();
    let late = takeover(&domain, 3, releases(&domain, 1, &[2, 3]));
    let mut config = domain.config.clone();
    config.nodes.push(NodeConfig { id: NodeId(4), links: vec!["10.1.0.4:7400".parse().expect("an address")], ..config.nodes[0].clone() });
    config.nodes[1].voter = false;
    apply(&mut domain, &Entry::Configure { expected: Version(1), config }).expect("n4 votes in place of n2");
    assert!(matches!(apply(&mut domain, &late), Err(Void::Releases { valid: 0, .. })), "n1 may hold a lease by n2, whom nobody asks now");
}

/// Voters refuse a lease to who has not applied what their log holds about it; what is void is in the log too.
#[test]
fn a_void_entry_counts_for_who_is_named_in_it() {
    let mut domain = serving();
    let void = takeover(&domain, 3, Evidence::Released(Vec::new()));
    apply(&mut domain, &void).expect_err("nobody has released n1");
    assert_eq!(domain.nodes[&NodeId(3)].about, domain.applied);
}

#[test]
fn limits_change_at_one_version_and_nothing_else_does() {
    let mut domain = domain();
    let before = domain.clone();
    let limits = Limits::default().with(Limit::Objects, 100);
    let entry = |expected, limits: Limits| Entry::Limits { expected, limits };
    assert_eq!(apply(&mut domain, &entry(Version(9), limits.clone())), Err(Void::Version { made_for: Version(9), present: before.config_version }));
    assert!(matches!(apply(&mut domain, &entry(before.config_version, limits.clone().with(Limit::Objects, 1))), Err(Void::Config(_))));
    assert_eq!(domain.config, before.config);
    let changed = apply(&mut domain, &entry(before.config_version, limits.clone()));
    assert_eq!(changed, Ok(vec![Change::Configured]));
    let config = DomainConfig { limits, ..before.config.clone() };
    assert_eq!((&domain.config, domain.config_version), (&config, Version(before.config_version.0 + 1)));
    assert_eq!((&domain.groups, &domain.nodes), (&before.groups, &before.nodes), "no lease waits for it");
}

/// [`serving`], and `calls` waits for a fence.
fn fencing() -> Domain {
    let mut domain = serving();
    let mut config = domain.config.clone();
    config.services[0].fence = fence::Fencing::Required;
    config.fence = Some(fence::FenceConfig { command: vec!["off".into()], timeout: std::time::Duration::from_secs(2) });
    let expected = domain.config_version;
    apply(&mut domain, &Entry::Configure { expected, config }).expect("a good configuration");
    domain
}

fn fenced(domain: &Domain, target: u16, by: u16, evidence: &str) -> Entry {
    Entry::Fenced { target: member(domain, target), since: domain.nodes[&NodeId(target)].since, by: member(domain, by), evidence: evidence.to_owned() }
}

#[test]
fn a_takeover_that_waits_for_a_fence_does_nothing_without_evidence_of_this_very_life() {
    let mut domain = fencing();
    let old = member(&domain, 1);
    let early = takeover(&domain, 3, releases(&domain, 1, &[2, 3]));
    assert_eq!(apply(&mut domain, &early), Err(Void::NotFenced(old)));
    let off = fenced(&domain, 1, 3, "outlet 7 is off");
    assert_eq!(apply(&mut domain, &off), Ok(vec![Change::Fenced(old)]));
    assert_eq!(apply(&mut domain, &off), Err(Void::Repeated));
    let minority = takeover(&domain, 3, releases(&domain, 1, &[3]));
    assert_eq!(apply(&mut domain, &minority), Err(Void::Releases { valid: 1, needed: 2 }), "evidence replaces no release");
    let again = takeover(&domain, 3, releases(&domain, 1, &[2, 3]));
    apply(&mut domain, &again).expect("released, and known to be off");
    assert_eq!(row(&domain).active, Some(member(&domain, 3)));
    join(&mut domain, 1, 99).expect("it is switched on again");
    assert!(domain.fenced.is_empty());
}

#[test]
fn evidence_of_another_life_or_of_an_older_sign_of_life_counts_for_nothing() {
    let mut domain = fencing();
    let (early, old, since) = (fenced(&domain, 1, 3, "off"), member(&domain, 1), domain.nodes[&NodeId(1)].since);
    apply(&mut domain, &Entry::Confirm { node: old, since }).expect("it came back in time");
    assert!(matches!(apply(&mut domain, &early), Err(Void::Version { .. })));
    let late = fenced(&domain, 1, 3, "off");
    join(&mut domain, 1, 99).expect("another life");
    assert_eq!(apply(&mut domain, &late), Err(Void::Superseded(old)));
    let of_a_dead_finder = fenced(&domain, 1, 3, "off");
    let finder = member(&domain, 3);
    join(&mut domain, 3, 98).expect("another life");
    assert_eq!(apply(&mut domain, &of_a_dead_finder), Err(Void::Superseded(finder)));
    let own = fenced(&domain, 1, 1, "I am off");
    assert_eq!(apply(&mut domain, &own), Err(Void::NotFenced(member(&domain, 1))));
    for evidence in [String::new(), "x".repeat(fence::EVIDENCE_MAX + 1)] {
        let bad = fenced(&domain, 1, 3, &evidence);
        assert!(matches!(apply(&mut domain, &bad), Err(Void::Config(_))));
    }
    assert!(domain.fenced.is_empty());
}

#[test]
fn relinquished_roles_and_lives_that_are_over_wait_for_no_fence() {
    let mut domain = fencing();
    let old = member(&domain, 1);
    let relinquished = takeover(&domain, 3, Evidence::Relinquished { by: old, epoch: Epoch(1) });
    apply(&mut domain.clone(), &relinquished).expect("its own word");
    join(&mut domain, 1, 99).expect("another life");
    let over = takeover(&domain, 3, Evidence::Released(Vec::new()));
    apply(&mut domain, &over).expect("it started clean");
}

#[test]
fn a_domain_without_a_fence_takes_no_evidence_and_forgets_what_it_had() {
    let mut domain = serving();
    let off = fenced(&domain, 1, 3, "off");
    assert!(matches!(apply(&mut domain, &off), Err(Void::Config(_))));
    let mut domain = fencing();
    let off = fenced(&domain, 1, 3, "off");
    apply(&mut domain, &off).expect("evidence");
    let mut config = domain.config.clone();
    (config.fence, config.services[0].fence) = (None, fence::Fencing::None);
    let expected = domain.config_version;
    apply(&mut domain, &Entry::Configure { expected, config }).expect("a good configuration");
    assert!(domain.fenced.is_empty());
}
