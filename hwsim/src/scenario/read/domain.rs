//! The domain of a scenario: which nodes sit in which chassis, what runs on them, and how they are joined; or a domain's own file.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use sixnines_core::config::{Data, Fields, Key, Node};
use sixnines_core::diagnostic::{Diagnostic, Diagnostics, Source, Spot, suggestion};
use sixnines_core::domain::config::{ChassisConfig, DomainConfig, NodeConfig, OnTotalLoss, Profile, ServiceConfig};
use sixnines_core::domain::fence::{FenceConfig, Fencing};
use sixnines_core::ids::{ChassisName, GroupName, NodeId};
use sixnines_core::time::Duration;

use super::header::{plan, seed};
use super::{Open, list};
use crate::chassis::Plan;
use crate::scenario::setting::DomainSetting;

/// The fields that stand above the timeline, and what of them is for a domain.
pub(super) struct Domain<'n> {
    nodes: &'n Node,
    services: Option<&'n Node>,
    links: Option<&'n Node>,
    profile: Option<&'n Node>,
    voters: Option<&'n Node>,
    witnesses: Option<&'n Node>,
    clients: Option<&'n Node>,
    is_cold: bool,
}

/// Where a node sits.
struct Place {
    node: NodeId,
    chassis: ChassisName,
    slot: Option<(usize, Spot)>,
}

impl<'n> Domain<'n> {
    /// `None`: the scenario describes no domain; fields that only one has are said to be too many.
    pub(super) fn take(source: Source<'_>, fields: &mut Fields<'n>, services: Option<&'n Node>, out: &mut Diagnostics) -> Option<Self> {
        let nodes = fields.take("domain");
        let cold = fields.take_with_key("cold").map(|(key, node)| (key.at, node));
        let mut only = |name: &'static str| fields.take_with_key(name);
        let given = [only("links"), only("profile"), only("voters"), only("witnesses"), only("clients")];
        let Some(nodes) = nodes else {
            let keys = given.iter().flatten().map(|(key, _)| (key.text.as_str(), key.at)).chain(cold.map(|(at, _)| ("cold", at)));
            for (name, at) in keys {
                let wrong = Diagnostic::error("no-domain", format!("`{name}` is of a domain, and this scenario is about one chassis"));
                out.push(wrong.at(source, Spot { length: number(name.len()), ..at }).help(EXAMPLE));
            }
            return None;
        };
        let is_cold = match cold.map(|(_, node)| (node, &node.data)) {
            None | Some((_, Data::Bool(false))) => false,
            Some((_, Data::Bool(true))) => true,
            Some((node, _)) => {
                fields.wrong("cold", "true or false", node, out);
                false
            }
        };
        let [links, profile, voters, witnesses, clients] = given.map(|field| field.map(|(_, node)| node));
        Some(Self { nodes, services, links, profile, voters, witnesses, clients, is_cold })
    }

    /// Everything that is said of the domain, and the plan of each of its chassis.
    pub(super) fn read(
        &self,
        source: Source<'_>,
        (chassis, random, scale): (Option<&Node>, Option<&Node>, Option<f64>),
        open: Open<'_>,
        out: &mut Diagnostics,
    ) -> Option<(Vec<Plan>, DomainSetting)> {
        let reader = Reader { source, open };
        let (config, slots) = match &self.nodes.data {
            Data::Text(file) => (reader.file(file, self, out)?, BTreeMap::new()),
            _ => reader.inline(self, out)?,
        };
        let seed = random.map_or(Some(1), |node| seed(source, node, out))?;
        let clients = match self.clients {
            None => CLIENTS,
            Some(node) => reader.whole("clients", node, 0..=20, out)?,
        };
        let plans = reader.plans(&config, chassis, out)?;
        let plans: Vec<Plan> = (0..).zip(plans).map(|(at, plan)| Plan { seed: seed + at, time_scale: scale.unwrap_or(plan.time_scale), ..plan }).collect();
        reader.check_slots(&slots, &plans, out)?;
        let slots = slots.into_iter().map(|(node, (chassis, slot, _))| (node, (chassis, slot))).collect();
        Some((plans, DomainSetting { config, slots, clients, is_cold: self.is_cold, seed }))
    }
}

/// In which slot each node sits, and where that is said.
type Slots = BTreeMap<NodeId, (ChassisName, usize, Spot)>;

struct Reader<'a> {
    source: Source<'a>,
    open: Open<'a>,
}

impl Reader<'_> {
    fn complain(&self, code: &str, message: String, at: Spot, help: Option<String>, out: &mut Diagnostics) {
        out.push(Diagnostic::error(code, message).at(self.source, at).help_if(help));
    }

    /// The file that `nines init --domain` takes.
    fn file(&self, file: &str, said: &Domain<'_>, out: &mut Diagnostics) -> Option<DomainConfig> {
        let beside = [("services", said.services), ("links", said.links), ("profile", said.profile), ("voters", said.voters), ("witnesses", said.witnesses)];
        if let Some((name, node)) = beside.into_iter().find_map(|(name, node)| Some((name, node?))) {
            self.complain("domain", format!("`{name}` stands in {file}"), node.at, Some("leave it out here".into()), out);
            return None;
        }
        let read = (self.open)(file).and_then(|text| serde_yaml::from_str::<DomainConfig>(&text).map_err(|wrong| format!("{file}: {wrong}")));
        let checked = read.and_then(|config| config.check().map(|()| config).map_err(|wrong| format!("{file}: {wrong}")));
        checked.map_err(|why| self.complain("domain", why, said.nodes.at, Some("a domain's file, as for `nines init --domain`; its name counts from the scenario's folder".into()), out)).ok()
    }

    /// A map from a chassis to its nodes: a list, or a map from a slot to the node in it.
    fn inline(&self, said: &Domain<'_>, out: &mut Diagnostics) -> Option<(DomainConfig, Slots)> {
        let places = self.places(said.nodes, out)?;
        let nodes: Vec<NodeId> = places.iter().map(|place| place.node).collect();
        let some = |name: &str, node: Option<&Node>, out: &mut Diagnostics| match node {
            None => Some(None),
            Some(node) => self.nodes(name, node, &nodes, out).map(Some),
        };
        let (voters, witnesses) = (some("voters", said.voters, out)?, some("witnesses", said.witnesses, out)?.unwrap_or_default());
        let voters = voters.unwrap_or_else(|| chosen(&places, &witnesses));
        let links = said.links.map_or(Some(2), |node| self.whole("links", node, 1..=4, out))?;
        let profile = said.profile.map_or(Some(Profile::Fabric), |node| self.profile(node, out))?;
        let mut chassis: Vec<ChassisName> = Vec::new();
        places.iter().for_each(|place| if !chassis.contains(&place.chassis) { chassis.push(place.chassis.clone()) });
        let config = DomainConfig {
            domain: "scenario".to_owned(),
            profile,
            nodes: places.iter().map(|place| node_config(place, links, &voters, &witnesses)).collect(),
            chassis: chassis.into_iter().map(|name| ChassisConfig { name, manager: None }).collect(),
            services: self.services(said.services, &nodes, out)?,
            ..DomainConfig::default()
        };
        // Each simulated node hangs on a switch; the command is never run.
        let fence = config.is_fence_said().then(|| FenceConfig { command: vec!["switch".to_owned()], timeout: Duration::from_secs(1) });
        let config = DomainConfig { fence, ..config };
        if let Err(wrong) = config.check() {
            self.complain("domain", wrong.to_string(), said.nodes.at, None, out);
            return None;
        }
        let slots = places.into_iter().filter_map(|place| place.slot.map(|(slot, at)| (place.node, (place.chassis, slot, at)))).collect();
        Some((config, slots))
    }

    fn places(&self, node: &Node, out: &mut Diagnostics) -> Option<Vec<Place>> {
        let Data::Map(shelves) = &node.data else {
            self.complain("wrong-type", format!("`domain` says which nodes sit in which chassis, this is {}", node.describe()), node.at, Some(EXAMPLE.into()), out);
            return None;
        };
        let mut places: Vec<Place> = Vec::new();
        let mut is_good = true;
        for (key, node) in shelves {
            let seats: Vec<(Option<&Key>, &Node)> = match &node.data {
                Data::Map(slots) => slots.iter().map(|(slot, node)| (Some(slot), node)).collect(),
                _ => list(node).iter().map(|node| (None, node)).collect(),
            };
            for (slot, seat) in seats {
                let found = self.place(&key.text, slot, seat, &places, out);
                is_good &= found.is_some();
                places.extend(found);
            }
        }
        if is_good && !(1..=32).contains(&places.len()) {
            self.complain("domain", format!("a domain has 1 to 32 nodes, this one has {}", places.len()), node.at, Some(EXAMPLE.into()), out);
            return None;
        }
        is_good.then_some(places)
    }

    fn place(&self, chassis: &str, slot: Option<&Key>, seat: &Node, before: &[Place], out: &mut Diagnostics) -> Option<Place> {
        let slot = match slot {
            None => None,
            Some(key) => {
                let number = key.text.strip_prefix("slot").and_then(|n| n.parse().ok());
                if number.is_none() {
                    self.complain("domain", format!("`{}` is no slot", key.text), Spot { length: number_of(&key.text), ..key.at }, Some("slot3: n1".into()), out);
                }
                Some((number?, key.at))
            }
        };
        let node = self.node(seat, out)?;
        if before.iter().any(|place| place.node == node) {
            self.complain("domain", format!("node {node} is there twice"), seat.at, None, out);
            return None;
        }
        Some(Place { node, chassis: ChassisName::new(chassis), slot })
    }

    fn node(&self, node: &Node, out: &mut Diagnostics) -> Option<NodeId> {
        let found = node.scalar().and_then(|text| text.parse::<NodeId>().ok()).filter(|node| (1..=32).contains(&node.0));
        if found.is_none() {
            self.complain("domain", format!("{} is no node", node.describe()), node.at, Some("n1 to n32".into()), out);
        }
        found
    }

    /// A list of nodes of the domain.
    fn nodes(&self, name: &str, node: &Node, known: &[NodeId], out: &mut Diagnostics) -> Option<Vec<NodeId>> {
        let mut found = Vec::new();
        for item in list(node) {
            let node = self.node(item, out)?;
            if !known.contains(&node) {
                let known: Vec<String> = known.iter().map(ToString::to_string).collect();
                self.complain("domain", format!("`{name}`: this domain has no node {node}"), item.at, Some(format!("there are {}", known.join(", "))), out);
                return None;
            }
            found.push(node);
        }
        Some(found)
    }

    /// Names, or maps that say more.
    fn services(&self, node: Option<&Node>, nodes: &[NodeId], out: &mut Diagnostics) -> Option<Vec<ServiceConfig>> {
        let mut services: Vec<ServiceConfig> = Vec::new();
        for item in node.into_iter().flat_map(list) {
            let service = match &item.data {
                Data::Map(_) => self.service(item, nodes, out)?,
                _ => named(&item.scalar().unwrap_or_default()),
            };
            let name = service.name.as_str();
            if name.is_empty() || name.contains([':', '/', ' ']) {
                self.complain("domain", format!("{} cannot be a service's name: no colon, slash or blank", item.describe()), item.at, None, out);
                return None;
            }
            if services.iter().any(|other| other.name == service.name) {
                self.complain("domain", format!("service {name} is there twice"), item.at, None, out);
                return None;
            }
            services.push(service);
        }
        Some(services)
    }

    fn service(&self, node: &Node, nodes: &[NodeId], out: &mut Diagnostics) -> Option<ServiceConfig> {
        let mut fields = Fields::new(self.source, "a service", node, out);
        let mut service = named(&fields.require("name", out)?.scalar().unwrap_or_default());
        if let Some(node) = fields.take("nodes") {
            service.nodes = self.nodes("nodes", node, nodes, out)?;
        }
        for (name, field) in [("copies", &mut service.copies), ("floor", &mut service.floor)] {
            if let Some(node) = fields.take(name) {
                *field = u8::try_from(self.whole(name, node, 1..=8, out)?).unwrap_or(1);
            }
        }
        if let Some(node) = fields.take("on_total_loss") {
            let all = [("wait", OnTotalLoss::Wait), ("best", OnTotalLoss::Best), ("empty", OnTotalLoss::Empty)];
            service.on_total_loss = self.word("on_total_loss", node, &all, out)?;
        }
        if let Some(node) = fields.take("fence") {
            service.fence = self.word("fence", node, &[("required", Fencing::Required), ("none", Fencing::None)], out)?;
        }
        fields.finish(out);
        Some(service)
    }

    fn profile(&self, node: &Node, out: &mut Diagnostics) -> Option<Profile> {
        self.word("profile", node, &Profile::ALL.map(|p| (p.word(), p)), out)
    }

    fn word<T: Copy>(&self, name: &str, node: &Node, all: &[(&str, T)], out: &mut Diagnostics) -> Option<T> {
        let word = node.scalar().unwrap_or_default();
        let found = all.iter().find(|(known, _)| *known == word).map(|(_, value)| *value);
        if found.is_none() {
            let help = suggestion(&word, all.iter().map(|(known, _)| *known)).or_else(|| Some(all.iter().map(|(known, _)| *known).collect::<Vec<_>>().join(", ")));
            self.complain("unknown-value", format!("`{name}` is never {}", node.describe()), node.at, help, out);
        }
        found
    }

    fn whole(&self, name: &str, node: &Node, range: std::ops::RangeInclusive<u64>, out: &mut Diagnostics) -> Option<u64> {
        let found = node.scalar().and_then(|text| text.parse().ok()).filter(|n| range.contains(n));
        if found.is_none() {
            self.complain("domain", format!("`{name}` is a whole number from {} to {}, this is {}", range.start(), range.end(), node.describe()), node.at, None, out);
        }
        found
    }

    /// One kind for all chassis, or a map from a chassis to its kind.
    fn plans(&self, config: &DomainConfig, node: Option<&Node>, out: &mut Diagnostics) -> Option<Vec<Plan>> {
        let names = config.chassis.iter().map(|chassis| chassis.name.clone());
        let Some(Node { data: Data::Map(entries), .. }) = node else {
            let one = plan(self.source, node, self.open, out)?;
            return Some(names.map(|name| one.clone().named(name)).collect());
        };
        let mut kinds: BTreeMap<ChassisName, Plan> = BTreeMap::new();
        for (key, node) in entries {
            if !config.chassis.iter().any(|chassis| chassis.name.as_str() == key.text) {
                let help = suggestion(&key.text, config.chassis.iter().map(|chassis| chassis.name.as_str()));
                self.complain("unknown-chassis", format!("no node sits in chassis {}", key.text), Spot { length: number_of(&key.text), ..key.at }, help, out);
                return None;
            }
            kinds.insert(ChassisName::new(&key.text), plan(self.source, Some(node), self.open, out)?);
        }
        Some(names.map(|name| kinds.get(&name).cloned().unwrap_or_else(Plan::mxp).named(name)).collect())
    }

    /// A node sits on a board.
    fn check_slots(&self, slots: &Slots, plans: &[Plan], out: &mut Diagnostics) -> Option<()> {
        let mut taken = BTreeSet::new();
        for (node, (chassis, slot, at)) in slots {
            let kinds: Vec<&str> = plans.iter().find(|plan| plan.chassis == *chassis).into_iter().flat_map(|plan| &plan.slots).map(|kind| kind.value.as_str()).collect();
            let filled: Vec<String> = kinds.iter().enumerate().filter(|(_, kind)| **kind != "empty").map(|(at, _)| (at + 1).to_string()).collect();
            let why = if !filled.contains(&slot.to_string()) {
                format!("there is no board in slot {slot} of {chassis} for {node} to run on")
            } else if !taken.insert((chassis, slot)) {
                format!("two nodes sit in slot {slot} of {chassis}")
            } else {
                continue;
            };
            self.complain("domain", why, *at, Some(format!("boards sit in slots {}", filled.join(", "))), out);
            return None;
        }
        Some(())
    }
}

fn named(name: &str) -> ServiceConfig {
    ServiceConfig {
        name: GroupName::new(name),
        command: vec!["server".to_owned()],
        addresses: Vec::new(),
        device: None,
        nodes: Vec::new(),
        copies: 2,
        floor: 1,
        on_total_loss: OnTotalLoss::Wait,
        fence: Fencing::None,
    }
}

fn node_config(place: &Place, links: u64, voters: &[NodeId], witnesses: &[NodeId]) -> NodeConfig {
    let id = u8::try_from(place.node.0).unwrap_or(0);
    let address = |link: u64| SocketAddr::from((Ipv4Addr::new(10, 9, u8::try_from(link).unwrap_or(0), id), 7400));
    let witness = witnesses.contains(&place.node);
    NodeConfig { id: place.node, chassis: place.chassis.clone(), links: (1..=links).map(address).collect(), voter: witness || voters.contains(&place.node), witness }
}

/// Three voters, five from five nodes on; one of each chassis before the second of any, and who is named a witness first.
fn chosen(places: &[Place], witnesses: &[NodeId]) -> Vec<NodeId> {
    let wanted = match places.len() {
        5.. => 5,
        3 | 4 => 3,
        few => few,
    };
    let mut seats: BTreeMap<&ChassisName, usize> = BTreeMap::new();
    let mut ranked: Vec<(bool, usize, usize, NodeId)> = Vec::new();
    for (order, place) in places.iter().enumerate() {
        let seat = seats.entry(&place.chassis).or_default();
        ranked.push((!witnesses.contains(&place.node), *seat, order, place.node));
        *seat += 1;
    }
    ranked.sort_unstable();
    ranked.into_iter().take(wanted).map(|(.., node)| node).collect()
}

fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(1)
}

fn number_of(text: &str) -> u32 {
    number(text.chars().count())
}

/// Of each service, if nothing else is said: enough to see what is served, few enough to be fast.
const CLIENTS: u64 = 2;
const EXAMPLE: &str = "domain: { mxp1: [n1, n2], mxp2: [n3] }, beside `timeline`";
