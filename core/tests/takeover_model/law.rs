//! The control log of the models: the real [`Domain`] applied to every sequence of entries that an exploration meets.
//!
//! A log is a [`Head`], a point in a tree of entries; its domain is computed once. Entries that the domain finds void
//! change nothing and are not kept. A [`Broken`] law leaves one of the domain's checks out.

use std::collections::{BTreeMap, BTreeSet};

use sixnines_core::domain::config::{ChassisConfig, DomainConfig, NodeConfig, OnTotalLoss, Profile, ServiceConfig};
use sixnines_core::domain::{Domain, Entry, Evidence, Release};
use sixnines_core::ids::{Epoch, GroupName, Incarnation, LogIndex, Member, NodeId, Version};

/// Nodes by number: A, B are data nodes, W votes, C is a third data node without a vote where a model has one.
pub(crate) const NODES: usize = 4;
pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;
pub(crate) const W: usize = 2;
pub(crate) const C: usize = 3;

pub(crate) const VOTERS: [usize; 3] = [A, B, W];

/// A log: names a point in the tree of entries.
pub(crate) type Head = u32;

/// Lives by node, 0 for a node that is not in the set.
pub(crate) type Lives = [u8; NODES];

/// A node in one of its lives (log index of the `Joined` entry).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Who {
    pub(crate) node: u8,
    pub(crate) life: u8,
}

/// An [`Entry`], small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Op {
    Joined { node: u8, nonce: u8, replaces: u8 },
    Confirm { who: Who, since: u8 },
    Takeover { group: u8, version: u8, to: Who, why: Why },
    Switchover { group: u8, version: u8, by: Who, to: Who },
    Sync { group: u8, version: u8, by: Who, set: Lives },
    Start { group: u8, version: u8, to: Who, offers: Lives },
}

/// Why an old active cannot speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Why {
    Relinquished { by: Who, epoch: u8 },
    /// By voter: its life and the target's `since`.
    Released { target: Who, said: [(u8, u8); 3] },
}

/// A release as it was said: the voter's life, the target's life, the target's `since`. All 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Said {
    pub(crate) voter: u8,
    pub(crate) target: u8,
    pub(crate) since: u8,
}

/// What a node sees of the log's outcome, ready to hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) life: Lives,
    pub(crate) since: [u8; NODES],
    pub(crate) about: [u8; NODES],
    pub(crate) rows: [Row; 2],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) version: u8,
    pub(crate) epoch: u8,
    pub(crate) active: Option<Who>,
    pub(crate) set: Lives,
}

/// Checks of the domain to be left out, each a row of the page's table.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Broken {
    /// An entry is applied to whatever version it meets.
    pub(crate) any_version: bool,
    /// A `Joined` is applied whatever life it meets.
    pub(crate) joined_any_life: bool,
    /// Who is no member may be promoted.
    pub(crate) non_member: bool,
    /// A new life leaves the old one in the sets.
    pub(crate) dead_stay: bool,
    /// A life that is over may be promoted, and the active may list one.
    pub(crate) dead_promoted: bool,
    /// Any node may list itself.
    pub(crate) self_listed: bool,
    /// A start needs no empty set.
    pub(crate) start_anyway: bool,
    /// The old active stays a member after a takeover.
    pub(crate) old_stays: bool,
    /// A takeover leaves the successor alone in the set.
    pub(crate) alone: bool,
}

/// The law as it is.
pub(crate) const WHOLE: Broken = Broken {
    any_version: false,
    joined_any_life: false,
    non_member: false,
    dead_stay: false,
    dead_promoted: false,
    self_listed: false,
    start_anyway: false,
    old_stays: false,
    alone: false,
};

struct Point {
    op: Option<Op>,
    path: Vec<Head>,
    domain: Domain,
    view: View,
}

/// The tree of entries.
pub(crate) struct Law {
    points: Vec<Point>,
    children: BTreeMap<(Head, Op), Option<Head>>,
    broken: Broken,
}

impl Law {
    /// Data nodes and the witness W have joined; each group has A as its active and all data nodes in sync.
    pub(crate) fn new(data: &[usize], groups: usize, broken: Broken) -> (Self, Head) {
        let nodes = data.iter().copied().chain([W]);
        let config = DomainConfig {
            domain: "model".into(),
            profile: Profile::Fabric,
            nodes: nodes.clone().map(|n| node_config(n, VOTERS.contains(&n), n == W)).collect(),
            chassis: vec![ChassisConfig { name: "x".into(), manager: None }],
            services: (0..groups).map(|g| service(g, data)).collect(),
            ..DomainConfig::default()
        };
        let mut domain = Domain::default();
        domain.apply(LogIndex(1), &Entry::Configure { expected: Version(0), config }).expect("a good configuration");
        let view = view(&domain, groups);
        let root = Point { op: None, path: vec![0, 0], domain, view };
        let mut law = Self { points: vec![root], children: BTreeMap::new(), broken };
        let mut head = 0;
        let mut commit = |law: &mut Self, op| head = law.append(head, op).expect("a prefix that applies");
        for node in nodes {
            commit(&mut law, Op::Joined { node: small(node), nonce: 0, replaces: 0 });
        }
        let lives = law.points.last().expect("it has one").view.life;
        let mut set = lives;
        set[W] = 0;
        let a = Who { node: small(A), life: lives[A] };
        for group in 0..small(groups) {
            let version = law_version(&law, group);
            commit(&mut law, Op::Start { group, version, to: a, offers: [0; NODES] });
            commit(&mut law, Op::Sync { group, version: version + 1, by: a, set });
        }
        (law, head)
    }

    /// Commits `op`; `None` if the domain finds it void.
    pub(crate) fn append(&mut self, head: Head, op: Op) -> Option<Head> {
        if let Some(known) = self.children.get(&(head, op)) {
            return *known;
        }
        let parent = &self.points[head as usize];
        let mut domain = parent.domain.clone();
        let index = small(parent.path.len());
        let mut path = parent.path.clone();
        let new = self.broken.apply(&mut domain, index, op).then(|| {
            let id = Head::try_from(self.points.len()).expect("fewer logs");
            path.push(id);
            let view = view(&domain, domain.config.services.len());
            self.points.push(Point { op: Some(op), path, domain, view });
            id
        });
        self.children.insert((head, op), new);
        new
    }

    /// Index of the log's last entry.
    pub(crate) fn len(&self, head: Head) -> u8 {
        small(self.points[head as usize].path.len() - 1)
    }

    /// What a node sees that has applied the entries up to `applied`.
    pub(crate) fn view(&self, head: Head, applied: u8) -> &View {
        let at = self.points[head as usize].path[applied as usize];
        &self.points[at as usize].view
    }

    /// What the whole log says.
    pub(crate) fn latest(&self, head: Head) -> &View {
        &self.points[head as usize].view
    }

    /// The entry at `index`.
    pub(crate) fn op(&self, head: Head, index: u8) -> Op {
        let at = self.points[head as usize].path[index as usize];
        self.points[at as usize].op.expect("nobody looks before the configuration")
    }

    /// How many different logs were met.
    pub(crate) fn logs(&self) -> usize {
        self.points.len()
    }
}

impl Broken {
    /// Applies `op` with this law's checks left out; false if it did nothing.
    fn apply(self, domain: &mut Domain, index: u8, op: Op) -> bool {
        let before = domain.clone();
        if let Op::Start { group, .. } = op
            && self.dead_stay
            && !row_mut(domain, group).in_sync.is_empty()
        {
            return false; // a law that keeps the dead holds them for members
        }
        self.loosen(domain, op);
        if domain.apply(LogIndex(index.into()), &entry(domain, op, self.any_version, self.joined_any_life)).is_err() {
            return false;
        }
        self.undo(&before, domain, op);
        true
    }

    /// Changes the domain so that a check that is left out finds what it looks for.
    fn loosen(self, domain: &mut Domain, op: Op) {
        match op {
            Op::Takeover { group, to, .. } => {
                if self.dead_promoted && let Some(row) = domain.nodes.get_mut(&node_id(to.node)) {
                    row.incarnation = Incarnation(to.life.into());
                }
                if self.non_member {
                    row_mut(domain, group).in_sync.insert(member(to));
                }
            }
            Op::Sync { group, by, .. } if self.self_listed => row_mut(domain, group).active = Some(member(by)),
            Op::Start { group, .. } if self.start_anyway => {
                let row = row_mut(domain, group);
                row.in_sync.clear();
                row.active = None;
            }
            _ => {}
        }
    }

    /// Puts back what [`Self::loosen`] changed and the entry did not, and what the broken law would have left alone.
    fn undo(self, before: &Domain, domain: &mut Domain, op: Op) {
        match op {
            Op::Joined { .. } if self.dead_stay => {
                for (name, row) in &mut domain.groups {
                    row.in_sync.clone_from(&before.groups[name].in_sync);
                }
            }
            Op::Takeover { group, to, .. } => {
                let id = node_id(to.node);
                domain.nodes.get_mut(&id).expect("it was promoted").incarnation = before.nodes[&id].incarnation;
                let old = before.groups[&group_name(group)].active;
                let row = row_mut(domain, group);
                if self.old_stays {
                    row.in_sync.extend(old);
                }
                if self.alone {
                    row.in_sync = BTreeSet::from([member(to)]);
                }
            }
            Op::Sync { group, .. } if self.self_listed => {
                row_mut(domain, group).active = before.groups[&group_name(group)].active;
            }
            _ => {}
        }
    }
}

fn entry(domain: &Domain, op: Op, any_version: bool, any_life: bool) -> Entry {
    let made_for = |group: u8, version: u8| {
        if any_version { domain.groups[&group_name(group)].version } else { Version(version.into()) }
    };
    match op {
        Op::Joined { node, nonce, replaces } => {
            let present = domain.member(node_id(node)).map_or(Incarnation(0), |m| m.incarnation);
            let replaces = if any_life { present } else { Incarnation(replaces.into()) };
            Entry::Joined { node: node_id(node), nonce: nonce.into(), replaces }
        }
        Op::Confirm { who, since } => Entry::Confirm { node: member(who), since: LogIndex(since.into()) },
        Op::Takeover { group, version, to, why } => {
            Entry::Takeover { group: group_name(group), version: made_for(group, version), to: member(to), evidence: evidence(why) }
        }
        Op::Switchover { group, version, by, to } => {
            Entry::Switchover { group: group_name(group), version: made_for(group, version), by: member(by), to: member(to) }
        }
        Op::Sync { group, version, by, set } => {
            Entry::Sync { group: group_name(group), version: made_for(group, version), by: member(by), in_sync: members(set) }
        }
        Op::Start { group, version, to, offers } => Entry::Start {
            group: group_name(group),
            version: made_for(group, version),
            to: member(to),
            offers: members(offers),
            lost: false,
        },
    }
}

fn evidence(why: Why) -> Evidence {
    match why {
        Why::Relinquished { by, epoch } => Evidence::Relinquished { by: member(by), epoch: Epoch(epoch.into()) },
        Why::Released { target, said } => {
            let releases = said.iter().enumerate().filter(|(_, (life, _))| *life != 0).map(|(voter, (life, since))| Release {
                voter: member(Who { node: small(voter), life: *life }),
                target: member(target),
                since: LogIndex((*since).into()),
            });
            Evidence::Released(releases.collect())
        }
    }
}

fn view(domain: &Domain, groups: usize) -> View {
    let mut view = View::default();
    for (id, row) in &domain.nodes {
        let node = usize::from(id.0) - 1;
        view.life[node] = low(row.incarnation.0);
        view.since[node] = low(row.since.0);
        view.about[node] = low(row.about.0);
    }
    for (group, shown) in view.rows.iter_mut().enumerate().take(groups) {
        let row = &domain.groups[&group_name(small(group))];
        shown.version = low(row.version.0);
        shown.epoch = low(row.epoch.0);
        shown.active = row.active.map(|m| Who { node: small(usize::from(m.node.0) - 1), life: low(m.incarnation.0) });
        for m in &row.in_sync {
            shown.set[usize::from(m.node.0) - 1] = low(m.incarnation.0);
        }
    }
    view
}

fn node_config(node: usize, voter: bool, witness: bool) -> NodeConfig {
    let id = node_id(small(node));
    let address = format!("10.1.0.{}:7400", id.0).parse().expect("an address");
    NodeConfig { id, chassis: "x".into(), links: vec![address], voter, witness }
}

fn service(group: usize, data: &[usize]) -> ServiceConfig {
    ServiceConfig {
        name: group_name(small(group)),
        command: vec!["server".into()],
        addresses: Vec::new(),
        device: None,
        nodes: data.iter().map(|n| node_id(small(*n))).collect(),
        copies: 2,
        floor: 1,
        on_total_loss: OnTotalLoss::Best,
        fence: Default::default(),
    }
}

fn law_version(law: &Law, group: u8) -> u8 {
    law.points.last().expect("it has one").view.rows[group as usize].version
}

fn row_mut(domain: &mut Domain, group: u8) -> &mut sixnines_core::domain::GroupRow {
    domain.groups.get_mut(&group_name(group)).expect("the models' groups stay")
}

fn group_name(group: u8) -> GroupName {
    ["calls", "trunks"][group as usize].into()
}

fn node_id(node: u8) -> NodeId {
    NodeId(u16::from(node) + 1)
}

fn member(who: Who) -> Member {
    Member { node: node_id(who.node), incarnation: Incarnation(who.life.into()) }
}

fn members(lives: Lives) -> BTreeSet<Member> {
    let named = lives.iter().enumerate().filter(|(_, life)| **life != 0);
    named.map(|(node, life)| member(Who { node: small(node), life: *life })).collect()
}

/// The models' numbers are small; one that is not is a mistake in the model.
pub(crate) fn small(number: usize) -> u8 {
    u8::try_from(number).expect("a small number")
}

fn low(number: u64) -> u8 {
    u8::try_from(number).expect("a small number")
}
