//! `nines sim faults`: every single (and double) fault of a described domain, and what stops.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Args;
use serde_json::{Value, json};
use sixnines_core::domain::config::{DomainConfig, OnTotalLoss};
use sixnines_core::ids::LinkId;
use sixnines_hwsim::domain::chaos::script::{Fault, Port, letter};
use sixnines_hwsim::domain::faults::topology::{Part, Topology};
use sixnines_hwsim::domain::faults::{Effect, ServiceEffect, examine};

use super::campaign::report::ms;
use super::campaign::{Subject, write};
use crate::sim::{self, Mutation};

/// What `nines sim faults` takes.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The domain as YAML, as for `nines init`. Left out: the demo's three nodes in two chassis, with two services.
    #[arg(long)]
    pub(crate) domain: Option<PathBuf>,
    /// Every pair of faults too.
    #[arg(long)]
    pub(crate) double: bool,
    /// Exit 1 if a single fault stops a service.
    #[arg(long)]
    pub(crate) check: bool,
    /// One JSON document instead of text.
    #[arg(long)]
    pub(crate) json: bool,
    /// Clocks, wires and clients follow from it.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Threads; one per core if left out.
    #[arg(long)]
    pub(crate) jobs: Option<NonZeroUsize>,
}

/// Some parts, broken.
#[derive(Debug)]
struct Case {
    names: Vec<String>,
    effect: Effect,
    /// Why each service that stops does.
    why: BTreeMap<String, String>,
}

/// Runs it. Exit codes: 0 answered, 1 a rule was broken or (with `--check`) a single fault stops a service, 2 bad input.
pub(crate) fn run(options: &Options) -> ExitCode {
    let subject = Subject { domain: options.domain.clone(), ..Subject::default() };
    let outcome = subject.config().and_then(|config| {
        let cases = play(options, &config);
        let text = if options.json { serde_json::to_string_pretty(&document(&config, &cases))? } else { text(&config, &cases) };
        write(Path::new("-"), &text).map(|()| cases)
    });
    match outcome {
        Ok(cases) if cases.iter().any(|c| c.effect.failure.is_some()) => ExitCode::from(1),
        Ok(cases) if options.check && cases.iter().any(|c| c.names.len() == 1 && c.stops().next().is_some()) => ExitCode::from(1),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

impl Case {
    fn stops(&self) -> impl Iterator<Item = &str> {
        self.effect.services.iter().filter(|s| s.stops).map(|s| s.service.as_str())
    }

    fn name(&self) -> String {
        self.names.join(" and ")
    }

    /// The longest gap of the services that go on.
    fn gap_us(&self) -> u64 {
        self.effect.services.iter().filter(|s| !s.stops).map(|s| s.gap_us).max().unwrap_or(0)
    }
}

/// The domain as the simulator breaks it. A network is what its addresses say: a /24, or a /64 of IPv6.
fn topology(config: &DomainConfig) -> Topology {
    let ground = sim::ground(config);
    let mut networks: BTreeMap<String, Vec<Port>> = BTreeMap::new();
    for node in &config.nodes {
        for (link, address) in (0_u8..).zip(&node.links) {
            networks.entry(network(address.ip())).or_default().push(Port { node: node.id, link: LinkId(link) });
        }
    }
    let name = |network: String, ports: &[Port]| match ports.first() {
        Some(first) if ports.len() == config.nodes.len() && ports.iter().all(|p| p.link == first.link) => letter(first.link).to_string(),
        _ => network,
    };
    Topology {
        nodes: config.nodes.iter().map(|n| (n.id, n.voter)).collect(),
        links: ground.links,
        services: config.services.iter().map(|s| (s.name.clone(), config.candidates(&s.name))).collect(),
        chassis: ground.chassis,
        // A network with one port joins nobody; losing it is losing the link.
        fabrics: networks.into_iter().filter(|(_, ports)| ports.len() > 1).map(|(network, ports)| (name(network, &ports), ports)).collect(),
    }
}

fn network(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

/// Every case, singles first.
fn play(options: &Options, config: &DomainConfig) -> Vec<Case> {
    let topology = topology(config);
    let parts = topology.parts();
    let mut wanted: Vec<Vec<&Part>> = parts.iter().map(|p| vec![p]).collect();
    if options.double {
        wanted.extend(parts.iter().enumerate().flat_map(|(at, one)| parts[at + 1..].iter().map(move |other| vec![one, other])));
    }
    let jobs = options.jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(parts) = wanted.get(at) else { return done };
            if options.double && at.is_multiple_of(50) {
                eprintln!("{at} of {} cases", wanted.len());
            }
            done.push((at, case(options.seed, config, &topology, parts)));
        }
    };
    let mut cases: Vec<(usize, Case)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    cases.sort_by_key(|(at, _)| *at);
    cases.into_iter().map(|(_, case)| case).collect()
}

fn case(seed: u64, config: &DomainConfig, topology: &Topology, parts: &[&Part]) -> Case {
    let faults: Vec<Fault> = parts.iter().map(|p| p.fault.clone()).collect();
    let mut effect = examine(sim::setup(config, Mutation::None, seed, &[]), &sim::ground(config), &faults);
    let waits = |s: &ServiceEffect| config.service(&s.service).is_some_and(|c| c.on_total_loss == OnTotalLoss::Wait);
    if let Some(gone) = effect.services.iter().find(|s| !(s.is_back || (s.stops && waits(s)))) {
        effect.failure.get_or_insert_with(|| format!("everything is repaired, and {} does not serve", gone.service));
    }
    let reason = |service: &ServiceEffect| {
        let known = topology.why(&service.service, &faults.iter().collect::<Vec<_>>());
        let why = known.unwrap_or_else(|| "wires and votes are left; its copies are not, or it was not in time".to_owned());
        if service.is_back { why } else { why + "; after the repair an operator has to start it, since every copy is gone and on_total_loss is wait" }
    };
    let why = effect.services.iter().filter(|s| s.stops).map(|s| (s.service.to_string(), reason(s))).collect();
    Case { names: parts.iter().map(|p| p.name.clone()).collect(), effect, why }
}

fn text(config: &DomainConfig, cases: &[Case]) -> String {
    let singles: Vec<&Case> = cases.iter().filter(|c| c.names.len() == 1).collect();
    let mut out = format!("{}: {} single faults, each on a whole domain, one after the other in virtual time\n\n", config.domain, singles.len());
    let width = singles.iter().map(|c| c.name().len()).max().unwrap_or(0).max(5);
    out += &format!("{:<width$}   GAP MS  LOST  STOPS, UNTIL REPAIRED  MOVES\n", "FAULT");
    for case in &singles {
        let moved: Vec<&str> = case.effect.services.iter().filter(|s| s.moved).map(|s| s.service.as_str()).collect();
        let gap = if case.effect.services.iter().all(|s| s.stops) { "-".to_owned() } else { format!("{:.1}", ms(case.gap_us())) };
        out += &format!("{:<width$} {gap:>8} {:>5}  {:<22} {}\n", case.name(), case.effect.losses, list(&case.stops().collect::<Vec<_>>()), list(&moved));
    }
    out += "\nGAP: the longest time without an answer, of the services that go on. LOST: services whose every complete copy was lost.\n";
    out += &weak_points("\nsingle points of failure", &singles);
    let doubles: Vec<&Case> = cases.iter().filter(|c| c.names.len() == 2 && !is_known(c, &singles)).collect();
    if cases.len() > singles.len() {
        out += &weak_points(&format!("\npairs that stop what neither stops alone, of {}", cases.len() - singles.len()), &doubles);
    }
    for case in cases {
        if let Some(failure) = &case.effect.failure {
            out += &format!("\nBROKEN: {}: {failure}\n", case.name());
        }
    }
    out
}

/// One of the two stops the same alone.
fn is_known(case: &Case, singles: &[&Case]) -> bool {
    let alone = |service: &str| singles.iter().filter(|s| case.names.contains(&s.names[0])).any(|s| s.stops().any(|stopped| stopped == service));
    case.stops().all(alone)
}

fn weak_points(title: &str, cases: &[&Case]) -> String {
    let weak: Vec<&&Case> = cases.iter().filter(|c| c.stops().next().is_some()).collect();
    let mut out = format!("{title}: {}\n", if weak.is_empty() { "none".to_owned() } else { weak.len().to_string() });
    for case in weak {
        out += &format!("  {} stops {}\n", case.name(), case.stops().collect::<Vec<_>>().join(" and "));
        let mut reasons: Vec<&String> = case.why.values().collect();
        reasons.dedup();
        reasons.iter().for_each(|why| out += &format!("    {why}\n"));
    }
    out
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "-".to_owned() } else { names.join(", ") }
}

fn document(config: &DomainConfig, cases: &[Case]) -> Value {
    let singles: Vec<&Case> = cases.iter().filter(|c| c.names.len() == 1).collect();
    let weak: Vec<&str> = singles.iter().filter(|c| c.stops().next().is_some()).map(|c| c.names[0].as_str()).collect();
    json!({
        "schema": "nines.sim-faults/1",
        "domain": config.domain,
        "single_points_of_failure": weak,
        "cases": cases.iter().map(case_json).collect::<Vec<_>>(),
    })
}

fn case_json(case: &Case) -> Value {
    let service = |s: &ServiceEffect| {
        let mut row = json!({"service": s.service, "stops": s.stops, "moved": s.moved, "back_after_repair": s.is_back});
        match case.why.get(s.service.as_str()) {
            Some(why) => row["why"] = json!(why),
            None => row["gap_ms"] = json!(ms(s.gap_us)),
        }
        row
    };
    json!({
        "faults": case.names,
        "services": case.effect.services.iter().map(service).collect::<Vec<_>>(),
        "declared_losses": case.effect.losses,
        "broken": case.effect.failure,
    })
}
