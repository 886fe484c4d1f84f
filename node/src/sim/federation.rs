//! `nines bench federation`: many domains in one virtual time, each of one shelf and three nodes, which hear each other's events.
//!
//! To the world they are all nodes with numbers of their own; each sees its own domain, and of the others what neighbours are to it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;

use sixnines_core::abroad::Neighbour;
use sixnines_core::class::Pattern;
use sixnines_core::domain::config::{ChassisConfig, DomainConfig};
use sixnines_core::ids::NodeId;
use sixnines_core::time::Instant;
use sixnines_core::value::{Quality, Update, Value};
use sixnines_core::world::Owner;
use sixnines_discs::log::FirstStart;
use sixnines_discs::log::sim::SimDisk;
use sixnines_hwsim::chassis::Plan;
use sixnines_hwsim::domain::{DiskChange, Door, MS, Setup, SimInput, SimNode, SimOutput, Truth, Workshop, World};

use super::node::Node;
use super::ways::Journal;
use super::{Mutation, three_nodes};
use crate::bench::{BenchReport, Row, Spread, write_json};
use crate::neighbours::{Place, Table};

/// `nines bench federation`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  nines bench federation --json federation.json
  nines bench federation --json - --chassis 1,20 --hears 2 --seconds 5")]
pub(crate) struct Options {
    /// Where the result goes; - for standard output.
    #[arg(long, value_name = "FILE")]
    json: PathBuf,
    /// How many shelves; each is a domain of its own.
    #[arg(long, value_delimiter = ',', default_value = "1,10,100", value_parser = clap::value_parser!(u16).range(1..=100))]
    chassis: Vec<u16>,
    /// How many of the others each of them hears. In a smaller federation: all of them.
    #[arg(long, value_delimiter = ',', default_value = "2,8", value_parser = clap::value_parser!(u16).range(0..=40))]
    hears: Vec<u16>,
    /// Virtual seconds that are counted, after those in which everybody meets.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
}

/// Rows are named `100-chassis/hearing-2/heartbeats`; each is over all nodes, or all that hear something.
///
/// # Errors
/// If a domain breaks an invariant: nothing is measured then.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mut rows = Vec::new();
    let mut done = BTreeMap::new();
    for (chassis, hears) in options.chassis.iter().flat_map(|c| options.hears.iter().map(move |h| (*c, (*h).min((c - 1) / 2)))) {
        if done.insert((chassis, hears), ()).is_none() {
            eprintln!("{chassis} chassis, each hears {hears} others: {} virtual seconds", options.seconds);
            rows.extend(measure(chassis, hears, options.seconds * 1000 * MS).map_err(anyhow::Error::msg)?);
        }
    }
    write_json(&options.json, &BenchReport::new("federation", three_nodes().profile.word(), rows))?;
    Ok(ExitCode::SUCCESS)
}

/// Everybody has joined, and knows of the others what there is to know.
const MEET: Truth = 5_000 * MS;

fn measure(chassis: u16, hears: u16, span: Truth) -> Result<Vec<Row>, String> {
    let counts = Counts::default();
    let mut world = world(chassis, hears, &counts);
    pass(&mut world, MEET)?;
    let before = counts.borrow().clone();
    pass(&mut world, span)?;
    let after = counts.borrow().clone();
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let known = after.iter().filter(|(node, _)| is_listener(**node)).map(|(_, sent)| sent.known as f64).collect();
    let per_second = |what: &str, unit: &str, all: bool, of: &dyn Fn(&Sent) -> u64| {
        let nodes = after.iter().filter(|(node, _)| all || is_listener(**node));
        #[expect(clippy::cast_precision_loss, reason = "counts of some seconds")]
        let rate = |(node, sent): (&NodeId, &Sent)| (of(sent) - before.get(node).map_or(0, of)) as f64 * (1000 * MS) as f64 / span as f64;
        Row { name: format!("{chassis}-chassis/hearing-{hears}/{what}"), spread: Spread::of(nodes.map(rate).collect(), unit) }
    };
    Ok(vec![
        per_second("heartbeats", "datagrams a second and node", true, &|s| s.heartbeats),
        per_second("at-home", "frames a second and node", true, &|s| s.home.0),
        per_second("at-home/bytes", "bytes a second and node", true, &|s| s.home.1),
        per_second("abroad", "frames a second and node", true, &|s| s.abroad.0),
        per_second("abroad/bytes", "bytes a second and node", true, &|s| s.abroad.1),
        per_second("heard", "frames a second and node that hears", false, &|s| s.heard.0),
        per_second("heard/bytes", "bytes a second and node that hears", false, &|s| s.heard.1),
        Row { name: format!("{chassis}-chassis/hearing-{hears}/known"), spread: Spread::of(known, "objects of neighbours") },
    ])
}

/// Time passes, in which the five fans of each shelf show another speed ten times a second.
fn pass(world: &mut World, span: Truth) -> Result<(), String> {
    const TICK: Truth = 100 * MS;
    for turn in 0..span / TICK {
        world.run(TICK)?;
        for node in world.nodes() {
            let readings: Vec<Update> = (1..=5).map(|fan| speed(at_home(node).0, fan, 3000 + i64::try_from(turn % 7).unwrap_or(0))).collect();
            world.give(node, SimInput::Readings(&readings)); // who does not own the shelf leaves them alone
        }
    }
    Ok(())
}

fn speed(domain: u16, fan: u16, rpm: i64) -> Update {
    let object = format!("/{}/fan{fan}", shelf(domain)).as_str().into();
    Update { object, attribute: "speed".into(), value: Some(Value::Int(rpm)), quality: Quality::Good, identity: None, cause: None }
}

/// What a node has sent, and heard of other domains: frames and bytes.
#[derive(Clone, Debug, Default)]
struct Sent {
    heartbeats: u64,
    home: (u64, u64),
    abroad: (u64, u64),
    heard: (u64, u64),
    /// Objects of neighbours that it knows at present.
    known: usize,
}

type Counts = Rc<RefCell<BTreeMap<NodeId, Sent>>>;

fn count(what: &mut (u64, u64), bytes: usize) {
    what.0 += 1;
    what.1 += bytes as u64;
}

/// Each domain has so many numbers in the world.
const NUMBERS: u16 = 100;

fn in_world(domain: u16, node: NodeId) -> NodeId {
    NodeId(domain * NUMBERS + node.0)
}

fn at_home(node: NodeId) -> (u16, NodeId) {
    (node.0 / NUMBERS, NodeId(node.0 % NUMBERS))
}

/// One node of each domain hears what all nodes of its neighbours tell.
fn is_listener(node: NodeId) -> bool {
    at_home(node).1 == NodeId(1)
}

fn world(domains: u16, hears: u16, counts: &Counts) -> World {
    let shops: BTreeMap<u16, FirstStart> = (1..=domains).map(|domain| (domain, first(domain))).collect();
    let nodes = shops.iter().flat_map(|(domain, first)| first.config.nodes.iter().map(|n| in_world(*domain, n.id))).collect();
    World::new(Setup {
        seed: 1,
        nodes,
        links: 2,
        services: Vec::new(),
        clients: 0,
        chassis: (1..=domains).map(|domain| Plan::mxp().named(shelf(domain).as_str().into())).collect(),
        is_in_step: false,
        chassis_check_epochs: true,
        bad_policies: Vec::new(),
        workshop: Box::new(Shops { shops, hears, counts: Rc::clone(counts) }),
    })
}

fn shelf(domain: u16) -> String {
    format!("mxp{domain}")
}

fn first(domain: u16) -> FirstStart {
    let mut config: DomainConfig = three_nodes();
    config.domain = format!("site{domain}");
    config.services.clear();
    config.chassis = vec![ChassisConfig { name: shelf(domain).as_str().into(), manager: None }];
    config.nodes.iter_mut().for_each(|node| node.chassis = shelf(domain).as_str().into());
    FirstStart { bundle: crate::shipped::bundle(&config), config }
}

struct Shops {
    shops: BTreeMap<u16, FirstStart>,
    hears: u16,
    counts: Counts,
}

impl Shops {
    fn domains(&self) -> u16 {
        u16::try_from(self.shops.len()).expect("a hundred at most")
    }

    /// The domain so many places further on in the ring.
    fn onward(&self, domain: u16, places: u16) -> u16 {
        (domain - 1 + places) % self.domains() + 1
    }

    /// Who hears whom: a node that listens hears all nodes of the next domains; every node tells those that listen in the ones before.
    fn neighbours(&self, domain: u16, node: NodeId) -> (Table, BTreeMap<NodeId, NodeId>) {
        let everything = || vec![Pattern::new("/**")];
        let (mut table, mut ways) = (Table::default(), BTreeMap::new());
        let mut add = |number: u16, theirs: u16, who: NodeId, hear: bool| {
            let (hear, tell) = if hear { (everything(), Vec::new()) } else { (Vec::new(), everything()) };
            let neighbour = Arc::new(Neighbour { domain: format!("site{theirs}"), number, hear });
            let here = neighbour.node(who).expect("a small number");
            ways.insert(here, in_world(theirs, who));
            table.nodes.insert(here, Place { neighbour, tell });
        };
        for places in 1..=self.hears {
            let (next, before) = (self.onward(domain, places), self.onward(domain, self.domains() - places));
            if is_listener(in_world(domain, node)) {
                self.shops[&next].config.nodes.iter().for_each(|n| add(places, next, n.id, true));
            }
            add(self.hears + places, before, NodeId(1), false);
        }
        (table, ways)
    }
}

impl Workshop for Shops {
    fn make(&mut self, node: NodeId, _restarts: u32, life: u64, now: Instant) -> Result<Box<dyn SimNode>, String> {
        let (domain, me) = at_home(node);
        let fresh = (SimDisk::default(), Journal::default());
        let mut made = Node::start(me, life, now, &self.shops[&domain], fresh, true, Mutation::None).map_err(|e| e.to_string())?;
        let (table, ways) = self.neighbours(domain, me);
        made.core.ways.neighbours = Arc::new(table);
        Ok(Box::new(Citizen { node: made, domain, ways, has_met: false, counts: Rc::clone(&self.counts) }))
    }

    fn disk(&mut self, _node: NodeId, _what: DiskChange) {}
}

/// A node, and what its numbers are to the world.
struct Citizen {
    node: Node,
    domain: u16,
    /// Its neighbours' nodes, by what they are to it.
    ways: BTreeMap<NodeId, NodeId>,
    has_met: bool,
    counts: Counts,
}

impl Citizen {
    fn me(&self) -> NodeId {
        in_world(self.domain, self.node.me())
    }

    fn seen_from_here(&self, node: NodeId) -> Option<NodeId> {
        let (domain, home) = at_home(node);
        if domain == self.domain { Some(home) } else { self.ways.iter().find(|(_, there)| **there == node).map(|(here, _)| *here) }
    }

    fn note(&self, note: impl FnOnce(&mut Sent)) {
        note(self.counts.borrow_mut().entry(self.me()).or_default());
    }

    fn out(&self, output: SimOutput) -> Option<SimOutput> {
        match output {
            SimOutput::Send { to, link, door, bytes } => {
                let there = if to.is_abroad() { *self.ways.get(&to)? } else { in_world(self.domain, to) };
                self.note(|sent| match door {
                    Door::Liveness => sent.heartbeats += 1,
                    Door::Mesh if to.is_abroad() => count(&mut sent.abroad, bytes.len()),
                    Door::Mesh => count(&mut sent.home, bytes.len()),
                });
                Some(SimOutput::Send { to: there, link, door, bytes })
            }
            SimOutput::Observe(_) => None, // all domains have nodes of the same names; each is judged where it is alone
            other => Some(other),
        }
    }
}

impl SimNode for Citizen {
    fn step(&mut self, now: Instant, input: SimInput<'_>) -> Vec<SimOutput> {
        if !std::mem::replace(&mut self.has_met, true) {
            for node in self.ways.keys().copied().collect::<Vec<_>>() {
                self.node.meet(now, node, 1);
            }
        }
        let input = match input {
            SimInput::Frame { from, link, door, bytes } => {
                let Some(from) = self.seen_from_here(from) else { return Vec::new() };
                if from.is_abroad() {
                    self.note(|sent| count(&mut sent.heard, bytes.len()));
                }
                SimInput::Frame { from, link, door, bytes }
            }
            other => other,
        };
        let is_from_abroad = matches!(&input, SimInput::Frame { from, .. } if from.is_abroad());
        let outputs = self.node.step(now, input);
        if is_from_abroad && let Some(view) = self.node.view() {
            let known = view.engine.world().iter().filter(|(_, object)| object.owner == Owner::Abroad).count();
            self.note(|sent| sent.known = known);
        }
        outputs.into_iter().filter_map(|output| self.out(output)).collect()
    }

    fn next_wake(&self, now: Instant) -> Instant {
        self.node.next_wake(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_costs_follows_its_own_shelf_and_what_it_hears_not_the_whole() {
        let rows = |chassis, hears| measure(chassis, hears, 2_000 * MS).expect("all is well");
        let of = |rows: &[Row], what: &str| rows.iter().find(|r| r.name.ends_with(what)).map(|r| r.spread.median).expect("it is measured");
        let (alone, five, nine, more) = (rows(1, 0), rows(5, 1), rows(9, 1), rows(9, 3));
        assert_eq!((of(&alone, "/abroad"), of(&alone, "/heard")), (0.0, 0.0));
        assert!(of(&five, "/heard") > 0.0);
        for what in ["/heartbeats", "/at-home"] {
            let most = of(&alone, what) * 1.1;
            assert!([&five, &nine, &more].iter().all(|r| of(r, what) <= most), "{what} does not grow: {} {} {} {}", of(&alone, what), of(&five, what), of(&nine, what), of(&more, what));
        }
        assert!(of(&nine, "/heard") < of(&five, "/heard") * 1.1, "nor does what is heard with who is not heard");
        assert!(of(&more, "/heard") > of(&nine, "/heard") * 2.5, "it grows with what is asked for");
        let known = [&alone, &five, &nine, &more].map(|r| of(r, "/known"));
        assert!(known[0] == 0.0 && known[1] > 30.0 && known[2] < known[1] * 1.1 && known[3] > 2.8 * known[1], "whole shelves are known: {known:?}");
    }
}
