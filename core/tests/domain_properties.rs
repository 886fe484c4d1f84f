//! What holds for every sequence of entries, however absurd, that a control log could bear.
//!
//! Sequences are made half of entries that fit what the domain says at that moment (else nearly all would be void), and half of
//! entries about lives, versions and epochs that never were.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use sixnines_core::domain::admission::Fingerprint;
use sixnines_core::domain::config::{Bundle, ChassisConfig, DomainConfig, NodeConfig, OnTotalLoss, Profile, ServiceConfig};
use sixnines_core::domain::feature::Level;
use sixnines_core::domain::fence::{FenceConfig, Fencing};
use sixnines_core::domain::limits::{Limit, Limits};
use sixnines_core::domain::{Domain, Entry, Evidence, GroupRow, Release, Void};
use sixnines_core::ids::{Epoch, GroupName, Incarnation, LogIndex, Member, NodeId, Version};
use sixnines_core::time::WallTime;

const GROUPS: [&str; 3] = ["calls", "trunks", "chassis:x"];

fn node() -> impl Strategy<Value = NodeId> {
    (0..6_u16).prop_map(NodeId)
}

fn group() -> impl Strategy<Value = GroupName> {
    prop::sample::select(GROUPS.as_slice()).prop_map(GroupName::from)
}

fn member() -> impl Strategy<Value = Member> {
    (node(), 0..24_u64).prop_map(|(node, life)| Member { node, incarnation: Incarnation(life) })
}

fn version() -> impl Strategy<Value = Version> {
    (0..12_u64).prop_map(Version)
}

fn index() -> impl Strategy<Value = LogIndex> {
    (0..24_u64).prop_map(LogIndex)
}

/// Two to five nodes, one or two services; now and then a configuration that contradicts itself.
fn config() -> impl Strategy<Value = DomainConfig> {
    (1..6_u16, any::<bool>(), vec(1..5_u16, 0..2), 0..3_u8).prop_map(|(nodes, two_services, candidates, floor)| DomainConfig {
        domain: "any".into(),
        profile: Profile::Lan,
        nodes: (1..=nodes).map(node_config).collect(),
        chassis: vec![ChassisConfig { name: "x".into(), manager: None }],
        services: GROUPS[..1 + usize::from(two_services)].iter().map(|name| service(name, &candidates, floor)).collect(),
        fence: two_services.then(fence),
        ..DomainConfig::default()
    })
}

fn node_config(id: u16) -> NodeConfig {
    let address = format!("10.1.0.{id}:7400").parse().expect("an address");
    NodeConfig { id: NodeId(id), chassis: "x".into(), links: vec![address], voter: id != 2, witness: id == 3 }
}

fn service(name: &str, candidates: &[u16], floor: u8) -> ServiceConfig {
    ServiceConfig {
        name: name.into(),
        command: vec!["server".into()],
        addresses: Vec::new(),
        device: None,
        nodes: candidates.iter().map(|n| NodeId(*n)).collect::<BTreeSet<_>>().into_iter().collect(),
        copies: 2,
        floor,
        on_total_loss: OnTotalLoss::Wait,
        fence: if name == GROUPS[1] { Fencing::Required } else { Fencing::None },
    }
}

fn fence() -> FenceConfig {
    FenceConfig { command: vec!["off".into()], timeout: std::time::Duration::from_secs(1) }
}

fn evidence() -> impl Strategy<Value = Evidence> {
    let release = (member(), member(), index()).prop_map(|(voter, target, since)| Release { voter, target, since });
    prop_oneof![
        vec(release, 0..4).prop_map(Evidence::Released),
        (member(), 0..6_u64).prop_map(|(by, epoch)| Evidence::Relinquished { by, epoch: Epoch(epoch) }),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        4 => (node(), 0..9_u64, 0..24_u64)
            .prop_map(|(node, nonce, life)| Entry::Joined { node, nonce, replaces: Incarnation(life) }),
        1 => (member(), index()).prop_map(|(node, since)| Entry::Confirm { node, since }),
        2 => (version(), config()).prop_map(|(expected, config)| Entry::Configure { expected, config }),
        1 => (version(), ".{0,9}").prop_map(|(expected, text)| Entry::Bundle {
            expected,
            bundle: Bundle { files: [("fan.rhai".to_owned(), text)].into() },
        }),
        4 => (group(), version(), member(), btree_set(member(), 0..4), any::<bool>())
            .prop_map(|(group, version, to, offers, lost)| Entry::Start { group, version, to, offers, lost }),
        4 => (group(), version(), member(), evidence())
            .prop_map(|(group, version, to, evidence)| Entry::Takeover { group, version, to, evidence }),
        2 => (group(), version(), member(), member())
            .prop_map(|(group, version, by, to)| Entry::Switchover { group, version, by, to }),
        4 => (group(), version(), member(), btree_set(member(), 0..4))
            .prop_map(|(group, version, by, in_sync)| Entry::Sync { group, version, by, in_sync }),
        1 => (1..6_u16, fingerprint()).prop_map(|(id, token)| Entry::Invite { token, seat: node_config(id), expires: WallTime(5) }),
        1 => (node(), fingerprint(), fingerprint(), 0..9_u64, 0..2_u64)
            .prop_map(|(node, token, key, at, disk)| Entry::Admit { node, token, key, at: WallTime(at), disk }),
        1 => node().prop_map(|node| Entry::Expel { node }),
        1 => (0..3_u64, prop::option::of(0..200_u64))
            .prop_map(|(expected, objects)| Entry::Limits { expected: Version(expected), limits: Limits::default().with(Limit::Objects, objects) }),
        2 => (member(), index(), member(), ".{0,3}").prop_map(|(target, since, by, evidence)| Entry::Fenced { target, since, by, evidence }),
        1 => (0..5_u8).prop_map(|level| Entry::Feature { level: Level(level) }),
    ]
}

fn fingerprint() -> impl Strategy<Value = Fingerprint> {
    (0..4_u8).prop_map(|n| Fingerprint([n; 32]))
}

/// Turns what an entry names into what there is, so that it has a chance.
fn fit(domain: &Domain, entry: Entry) -> Entry {
    let at = |group: &GroupName| domain.groups.get(group).cloned().unwrap_or_default();
    let live = |m: Member| domain.member(m.node).unwrap_or(m);
    let active = |row: &GroupRow, m: Member| row.active.unwrap_or(m);
    let one_of = |row: &GroupRow, m: Member| row.in_sync.iter().cycle().nth(usize::from(m.node.0)).copied().unwrap_or(live(m));
    match entry {
        Entry::Configure { config, .. } => Entry::Configure { expected: domain.config_version, config },
        Entry::Bundle { bundle, .. } => Entry::Bundle { expected: domain.bundle_version, bundle },
        Entry::Limits { limits, .. } => Entry::Limits { expected: domain.config_version, limits },
        Entry::Feature { .. } => Entry::Feature { level: domain.level.next().unwrap_or_default() },
        Entry::Fenced { target, since, by, evidence } => {
            let since = domain.nodes.get(&target.node).map_or(since, |n| n.since);
            Entry::Fenced { target: live(target), since, by: live(by), evidence }
        }
        Entry::Confirm { node, since } => {
            let since = domain.nodes.get(&node.node).map_or(since, |n| n.since);
            Entry::Confirm { node: live(node), since }
        }
        Entry::Start { group, to, lost, .. } => {
            let offers = domain.nodes.keys().filter_map(|n| domain.member(*n)).collect();
            Entry::Start { version: at(&group).version, group, to: live(to), offers, lost }
        }
        Entry::Takeover { group, to, evidence, .. } => {
            let row = at(&group);
            let target = active(&row, to);
            let since = domain.nodes.get(&target.node).map_or(LogIndex(0), |n| n.since);
            let evidence = match evidence {
                Evidence::Relinquished { .. } => Evidence::Relinquished { by: target, epoch: row.epoch },
                Evidence::Released(_) => Evidence::Released(
                    domain.nodes.keys().filter_map(|n| domain.member(*n)).map(|voter| Release { voter, target, since }).collect(),
                ),
            };
            Entry::Takeover { version: row.version, to: one_of(&row, to), group, evidence }
        }
        Entry::Switchover { group, by, to, .. } => {
            let row = at(&group);
            Entry::Switchover { version: row.version, by: active(&row, by), to: one_of(&row, to), group }
        }
        Entry::Sync { group, by, in_sync, .. } => {
            let row = at(&group);
            let by = active(&row, by);
            Entry::Sync { version: row.version, group, by, in_sync: in_sync.into_iter().map(live).chain([by]).collect() }
        }
        Entry::Admit { node, key, at, disk, .. } => {
            let token = domain.invitations.get(&node).map_or(Fingerprint([9; 32]), |i| i.token);
            Entry::Admit { node, token, key, at, disk }
        }
        Entry::DiskLost { .. } | Entry::Invite { .. } | Entry::Expel { .. } => entry,
        Entry::Joined { node, nonce, .. } => {
            let replaces = domain.member(node).map_or(Incarnation(0), |m| m.incarnation);
            Entry::Joined { node, nonce, replaces }
        }
    }
}

/// Applies one entry and judges the step.
fn step(domain: &mut Domain, entry: &Entry) -> Result<bool, TestCaseError> {
    let before = domain.clone();
    let index = LogIndex(before.applied.0 + 1);
    let result = domain.apply(index, entry);
    prop_assert_eq!(domain.applied, index);
    if let Err(void) = &result {
        let mut unchanged = Domain { applied: before.applied, ..domain.clone() };
        for (id, row) in &mut unchanged.nodes {
            row.about = before.nodes[id].about;
        }
        prop_assert_eq!(&unchanged, &before, "void ({}) and yet it changed something", void);
    }
    for node in entry.about().filter_map(|n| domain.nodes.get(&n)) {
        prop_assert_eq!(node.about, index, "voters hold that this entry is about it, and it can never say that it has applied it");
    }
    prop_assert!(domain.config_version >= before.config_version && domain.bundle_version >= before.bundle_version);
    prop_assert_eq!(domain.config == before.config || domain.config_version > before.config_version, true);
    for (id, old) in &before.nodes {
        let new = &domain.nodes[id];
        prop_assert!(new.incarnation >= old.incarnation && new.since >= old.since && new.about >= old.about, "{} went back", id);
        prop_assert!(new.about >= new.since && new.since.0 >= new.incarnation.0);
    }
    for (id, fenced) in &domain.fenced {
        prop_assert!(domain.is_current(fenced.target) && fenced.target.node == *id && fenced.by.node != *id, "{:?} is no evidence of a life that counts", fenced);
    }
    if let Entry::Takeover { group, evidence: Evidence::Released(_), .. } = entry
        && let Some(old) = before.groups.get(group).and_then(|row| row.active).filter(|_| result.is_ok() && before.config.requires_fence(group))
    {
        prop_assert!(!before.is_current(old) || before.is_fenced(old), "{} was taken over from {}, who is not known to be off", group, old);
    }
    for (id, old) in &before.admissions {
        prop_assert!(domain.admission(*id) >= old.number, "certificates of {} that were refused count again", id);
        let is_back = old.is_expelled && !domain.is_expelled(*id);
        prop_assert!(!is_back || domain.admission(*id) == index.0, "{} is back on an admission that it had", id);
    }
    let spent = |d: &Domain, id: &NodeId| d.invitations.get(id).is_some_and(|i| i.used_for.is_some());
    for (id, invitation) in before.invitations.iter().filter(|(id, i)| spent(&before, id) && domain.invitations.get(id).is_some_and(|now| now.token == i.token)) {
        prop_assert_eq!(domain.invitations[id].used_for, invitation.used_for, "a token of {} counts twice", id);
    }
    for (name, row) in &domain.groups {
        row_holds(domain, name, row)?;
        if let Some(old) = before.groups.get(name) {
            row_follows(&before, domain, old, row)?;
        }
    }
    Ok(result.is_ok())
}

fn row_holds(domain: &Domain, name: &GroupName, row: &GroupRow) -> Result<(), TestCaseError> {
    for m in &row.in_sync {
        prop_assert!(domain.is_current(*m), "{} lists {}, a life that is over", name, m);
    }
    prop_assert_eq!(row.epoch == Epoch(0), row.active.is_none(), "an epoch has an active");
    if let Some(active) = row.active.filter(|a| domain.is_current(*a)) {
        prop_assert!(row.in_sync.contains(&active), "{}: the active {} is no member", name, active);
    }
    prop_assert!(row.generation.0 <= row.epoch.0);
    Ok(())
}

fn row_follows(before: &Domain, domain: &Domain, old: &GroupRow, new: &GroupRow) -> Result<(), TestCaseError> {
    prop_assert!(new.version >= old.version && new.epoch >= old.epoch && new.generation >= old.generation);
    prop_assert!(new == old || new.version > old.version, "a row changed and its version did not");
    prop_assert!(new.epoch.0 - old.epoch.0 <= 1, "an entry begins one epoch at most");
    prop_assert!(new.active == old.active || new.epoch > old.epoch, "another active under the same epoch");
    if new.epoch > old.epoch {
        let to = new.active.expect("an epoch has an active");
        prop_assert!(domain.is_current(to), "{} was promoted after its life", to);
        let was_whole = old.in_sync.contains(&to);
        let nobody_was = !old.in_sync.iter().any(|m| before.counts(*m));
        prop_assert!(was_whole || nobody_was, "{} was promoted without being a member", to);
        for node in old.active.iter().chain([&to]).map(|m| m.node) {
            prop_assert_eq!(domain.nodes[&node].about, domain.applied, "{} need not notice", node);
        }
    }
    Ok(())
}

/// A domain that has begun: configured, everybody in, each group running where its first candidate is.
fn begun() -> Domain {
    let mut domain = Domain::default();
    let config = DomainConfig {
        domain: "any".into(),
        profile: Profile::Lan,
        nodes: (1..=5).map(node_config).collect(),
        chassis: vec![ChassisConfig { name: "x".into(), manager: None }],
        services: vec![service("calls", &[], 1), service("trunks", &[1, 2], 1)],
        fence: Some(fence()),
        ..DomainConfig::default()
    };
    let mut apply = |entry: Entry| domain.apply(LogIndex(domain.applied.0 + 1), &entry);
    apply(Entry::Configure { expected: Version(0), config }).expect("a good configuration");
    for id in 1..=5 {
        apply(Entry::Joined { node: NodeId(id), nonce: 100, replaces: Incarnation(0) }).expect("a node of the domain");
    }
    domain
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_entries_keeps_the_rows_in_order(begin in any::<bool>(), entries in vec((entry(), prop::bool::weighted(0.6)), 1..60)) {
        let mut domain = if begin { begun() } else { Domain::default() };
        let mut highest: BTreeMap<GroupName, Epoch> = BTreeMap::new();
        for (entry, fits) in entries {
            let entry = if fits { fit(&domain, entry) } else { entry };
            step(&mut domain, &entry)?;
            for (name, row) in &domain.groups {
                let known = highest.insert(name.clone(), row.epoch);
                prop_assert!(known.is_none_or(|e| e <= row.epoch), "{} went from epoch {:?} back to {}", name, known, row.epoch);
            }
        }
    }

    #[test]
    fn entries_read_as_they_were_written(entry in entry()) {
        prop_assert_eq!(&Entry::decode(&entry.encode()).expect("own bytes"), &entry);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        let read = Entry::decode(&bytes);
        prop_assert!(read.is_err() || bytes[0] == 1);
    }

    /// Bytes that begin like an entry get further into the decoder than noise does.
    #[test]
    fn a_damaged_entry_is_read_or_refused(entry in entry(), at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()) {
        let mut bytes = entry.encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(cut.index(bytes.len()) + 1);
        if let Ok(read) = Entry::decode(&bytes) {
            let mut domain = begun();
            step(&mut domain, &read)?;
        }
    }
}

/// The properties would hold of a domain that refuses everything; this one does not.
#[test]
fn the_sequences_are_worth_their_while() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = vec(entry(), 40);
    let (mut promotions, mut voids) = (0, BTreeSet::new());
    for _ in 0..100 {
        let entries = strategy.new_tree(&mut runner).expect("a sequence").current();
        let mut domain = begun();
        for (i, entry) in entries.into_iter().enumerate() {
            let entry = if i % 5 == 4 { entry } else { fit(&domain, entry) };
            let before = domain.groups.values().map(|r| r.epoch.0).sum::<u64>();
            if let Err(void) = domain.apply(LogIndex(domain.applied.0 + 1), &entry) {
                voids.insert(kind(&void));
            }
            let after = domain.groups.values().map(|r| r.epoch.0).sum::<u64>();
            promotions += u32::from(after > before);
        }
    }
    println!("{promotions} promotions; refused for {voids:?}");
    assert!(promotions > 200, "{promotions}");
    assert!(voids.len() >= 7, "{voids:?}");
}

fn kind(void: &Void) -> String {
    format!("{void:?}").split([' ', '(']).next().expect("a name").to_owned()
}
