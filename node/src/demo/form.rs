//! `nines bench form`: how soon a chassis full of nodes is one domain, and what it costs when it is quiet.
//!
//! Real daemons on loopback addresses, one shelf manager, one service that three of the nodes can run; the first five nodes vote, the others learn.
//! Rows `formed/...` are seconds from the first daemon's start to a state; `made` is what `nines init` took before it. Rows `quiet/...` are over the
//! seconds after that: role changes, suspensions, changes of the leader and entries of the control log that nobody asked for should be 0; `cpu` and
//! `pss` are of each daemon.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use sixnines_core::domain::config::Profile;
use sixnines_core::ids::{Epoch, NodeId};

use super::domain::local::Local;
use super::idle::{Samples, looks, pss};
use super::lab::{CHASSIS, Lab, Mode};
use super::progress::Progress;
use super::setup::{self, APPLICATION};
use super::stage::SERVICE;
use crate::api::{InLog, Status};
use crate::bench::{BenchReport, Row, Spread};

/// `nines bench form`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  nines bench form --json form.json
  nines bench form --json - --nodes 6 --seconds 5 --profile fabric")]
pub(crate) struct Options {
    /// Where the result goes; - for standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: PathBuf,
    /// How many nodes the chassis has.
    #[arg(long, default_value_t = 18, value_parser = clap::value_parser!(u8).range(3..=32))]
    pub(crate) nodes: u8,
    /// For how long it is looked at when it has formed.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) seconds: u32,
    /// The domain's time profile.
    #[arg(long, default_value = "lan")]
    pub(crate) profile: Profile,
}

/// More would make every entry wait for more disks, and no failure of two nodes less harmful.
const VOTERS: u8 = 5;
/// Where the service can run. Elsewhere a node is a node and nothing more.
const CANDIDATES: u8 = 3;
/// Other than the lab's own ports, which another lab's holder may have.
const PORT: u16 = 4200;
/// Between two looks at a domain that forms. Looking costs it time.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A domain that has not formed by then never will.
const SOON: Duration = Duration::from_secs(120);
/// What starting has left to do is done by then.
const SETTLE: Duration = Duration::from_secs(3);

/// Forms it, looks at it, and ends it.
///
/// # Errors
/// If it does not form in [`SOON`], or a daemon goes away.
pub(super) fn run(lab: &Lab, options: &Options, progress: &mut Progress) -> anyhow::Result<BenchReport<Row>> {
    progress.now(&format!("making a domain of {} nodes", options.nodes));
    let mut found = Found::default();
    let begin = Instant::now();
    setup::init_from(lab, &domain_yaml(lab, options)?)?;
    found.moment("made", begin);
    lab.room(CHASSIS[0]).start(&setup::chassis_arguments(lab, CHASSIS[0])?)?;

    progress.now("starting its daemons");
    let begin = Instant::now();
    let daemons = (1..=options.nodes).map(|node| start(lab, node)).collect::<anyhow::Result<Vec<i32>>>()?;
    found.moment("formed/started", begin);
    let names = (1..=options.nodes).map(|n| (format!("n{n}"), lab.path(format!("domain/n{n}/run/{}", crate::config::API_SOCKET))));
    let domain = Local::new(names.collect());
    wait_formed(&domain, begin, usize::from(options.nodes), &mut found)?;

    std::thread::sleep(SETTLE);
    progress.now("looking at it while it has nothing to do");
    watch(&domain, &daemons, options.seconds, &mut found)?;
    Ok(BenchReport::new("form", options.profile.word(), found.rows()))
}

fn start(lab: &Lab, node: u8) -> anyhow::Result<i32> {
    let config = lab.path(format!("domain/n{node}/nines.yaml"));
    let arguments: Vec<OsString> = vec![setup::program()?, "run".into(), "--without-gate".into(), "--config".into(), config.into()];
    let pid = lab.room("n1").start(&arguments)?; // on loopback a room is no more than a log
    i32::try_from(pid).context("a process id")
}

fn domain_yaml(lab: &Lab, options: &Options) -> anyhow::Result<String> {
    let chassis = CHASSIS[0];
    let mut text = format!("domain: full\nprofile: {}\nnodes:\n", options.profile.word());
    for node in 1..=options.nodes {
        let links = [1, 2].map(|link| format!("\"{}:{PORT}\"", lab.ip(link, node))).join(", ");
        text += &format!("  - {{ id: {node}, chassis: {chassis}, voter: {}, links: [{links}] }}\n", node <= VOTERS);
    }
    text += &format!("chassis:\n  - {{ name: {chassis}, manager: \"{}\" }}\n", lab.manager(chassis));
    let program = serde_json::to_string(setup::program()?.to_str().context("this program's path is not text")?)?;
    let listen: String = (1..=CANDIDATES).map(|n| format!(", --listen, \"n{n}={}:4100\"", lab.ip(0, n))).collect();
    let nodes: Vec<String> = (1..=CANDIDATES).map(|n| n.to_string()).collect();
    text += &format!("services:\n  - {{ name: {SERVICE}, nodes: [{}], command: [{program}, {APPLICATION}{listen}] }}\n", nodes.join(", "));
    Ok(text)
}

/// A state on the way, and how it is told.
type Milestone<'a> = (&'a str, &'a dyn Fn(&Status) -> bool);

/// Waits for one state after the other as the first node sees it, and then for the last one as everybody does.
fn wait_formed(domain: &Local, begin: Instant, nodes: usize, found: &mut Found) -> anyhow::Result<()> {
    let leads = |s: &Status| s.log.leader.is_some();
    let serves = |s: &Status| s.is_serving;
    let members = |s: &Status| s.nodes.len() == nodes && s.nodes.iter().all(|n| n.state == "up" && n.links.iter().all(|up| *up) && matches!(n.log, InLog::Votes | InLog::Learns));
    let roles = |s: &Status| s.is_serving && s.is_redundant && s.services.iter().chain(&s.chassis).count() == 2;
    let mut open: Vec<Milestone<'_>> = vec![("formed/leader", &leads), ("formed/serving", &serves), ("formed/members", &members), ("formed/roles", &roles)];
    while !open.is_empty() {
        let seen = domain.whole(0);
        if let Ok(status) = &seen {
            open.retain(|(name, reached)| !reached(status) || { found.moment(name, begin); false });
        }
        let missing = || format!("not after {} s: {}; the first node says {seen:?}", SOON.as_secs(), open.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "));
        anyhow::ensure!(begin.elapsed() < SOON, missing());
        std::thread::sleep(LOOK_EVERY);
    }
    let mut waiting: Vec<usize> = (0..nodes).collect();
    while !waiting.is_empty() {
        waiting.retain(|node| !domain.whole(*node).is_ok_and(|status| members(&status) && roles(&status)));
        anyhow::ensure!(begin.elapsed() < SOON, "not everybody sees it after {} s: {waiting:?} (from 0) do not", SOON.as_secs());
        std::thread::sleep(LOOK_EVERY);
    }
    found.moment("formed", begin);
    Ok(())
}

/// What should not change while nothing is done.
#[derive(PartialEq)]
struct Still {
    epochs: u64,
    applied: u64,
    suspensions: u64,
    leader: Option<NodeId>,
}

fn still(domain: &Local, nodes: usize) -> anyhow::Result<Still> {
    let all = (0..nodes).map(|n| domain.whole(n)).collect::<anyhow::Result<Vec<Status>>>()?;
    let first = all.first().context("there is a node")?;
    Ok(Still {
        epochs: first.services.iter().chain(&first.chassis).map(|row| { let Epoch(epoch) = row.epoch; epoch }).sum(),
        applied: first.log.applied,
        suspensions: all.iter().map(|s| s.suspensions).sum(),
        leader: first.log.leader,
    })
}

fn watch(domain: &Local, daemons: &[i32], seconds: u32, found: &mut Found) -> anyhow::Result<()> {
    let start = still(domain, daemons.len())?;
    let mut leaders = 0.0;
    let mut leader = start.leader;
    let mut before = looks(daemons)?;
    let mut samples = Samples::default();
    for _ in 0..seconds {
        std::thread::sleep(Duration::from_secs(1));
        let now = looks(daemons)?;
        before.iter().zip(&now).for_each(|(before, now)| samples.add(before, now));
        let leads = domain.whole(0)?.log.leader;
        leaders += if leads == leader { 0.0 } else { 1.0 };
        (leader, before) = (leads, looks(daemons)?); // what the question cost is not what quiet costs
    }
    samples.put("pss", daemons.iter().map(|pid| pss(*pid)).collect::<anyhow::Result<_>>()?);
    let end = still(domain, daemons.len())?;
    for (name, from, to) in [("role-changes", start.epochs, end.epochs), ("suspensions", start.suspensions, end.suspensions), ("entries", start.applied, end.applied)] {
        found.count(name, f64::from(u32::try_from(to.saturating_sub(from)).unwrap_or(u32::MAX)));
    }
    found.count("leaders", leaders);
    found.0.extend(samples.rows().into_iter().map(|row| Row { name: format!("quiet/{}", row.name), ..row }));
    Ok(())
}

#[derive(Default)]
struct Found(Vec<Row>);

impl Found {
    fn moment(&mut self, name: &str, begin: Instant) {
        self.0.push(Row { name: name.to_owned(), spread: Spread::of(vec![begin.elapsed().as_secs_f64()], "s") });
    }

    fn count(&mut self, name: &str, value: f64) {
        self.0.push(Row { name: format!("quiet/{name}"), spread: Spread::of(vec![value], "changes") });
    }

    fn rows(self) -> Vec<Row> {
        self.0
    }
}

/// The world that it runs in.
pub(super) fn world() -> anyhow::Result<Lab> {
    let lab = Lab::build(Mode::Loopback, None)?;
    lab.keeper().end_on_signals()?;
    Ok(lab)
}
