//! `nines sim campaign`: many seeds on several threads, and what they come to together.
//!
//! Every seed is a world of its own, so threads share nothing but the next seed's number. Results are added in the order of seeds;
//! with `--state`, what has been added is saved, and a later call goes on from there and comes to the same figures.

pub(crate) mod html;
mod pool;
mod progress;
pub(crate) mod report;
pub(crate) mod state;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use sixnines_core::domain::config::DomainConfig;
use sixnines_hwsim::domain::campaign::availability::{RATES, Rate};
use sixnines_hwsim::domain::chaos::draw::{Mix, classes, draw};
use sixnines_hwsim::domain::chaos::script::Script;

use super::replay::shrink;
use crate::config::load_domain;
use crate::sim::{self, Mutation};
use pool::Pool;
use progress::Progress;
use report::Summary;
use state::State;

/// The domain that is simulated.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Subject {
    /// The domain as YAML, as for `nines init`. Left out: the demo's three nodes in two chassis, with two services.
    #[arg(long)]
    pub(crate) domain: Option<PathBuf>,
    /// A domain of so many nodes instead, 3 to 32: three or five of them vote, in shelves of five at most, with more services the larger it is.
    #[arg(long, conflicts_with = "domain", value_parser = clap::value_parser!(u8).range(3..=32))]
    pub(crate) nodes: Option<u8>,
    /// Breaks a rule of the product, to see that it is noticed.
    #[arg(long = "break", value_enum, default_value = "none", hide = true)]
    pub(crate) mutation: Mutation,
    /// Faults per seed; a calm seed, which lets the domain settle after each, has a third of it.
    #[arg(long, default_value_t = FAULTS)]
    pub(crate) faults: u64,
    /// Only faults of these classes, each on a whole domain: what one class costs; several with commas.
    #[arg(long, value_delimiter = ',', value_parser = class, value_name = "CLASS")]
    pub(crate) only: Vec<String>,
}

/// What `nines sim campaign` takes.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many seeds.
    #[arg(long)]
    pub(crate) seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    pub(crate) from: u64,
    /// Threads; one per core if left out.
    #[arg(long)]
    pub(crate) jobs: Option<NonZeroUsize>,
    /// The report as one JSON document; - for stdout.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// The report as one HTML page with plots.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Where to save what has been seen; the next call with it goes on from there.
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
    /// Mean time between faults of a class, such as node-killed=8000h; several with commas.
    #[arg(long, value_delimiter = ',', value_parser = class_and_time, value_name = "CLASS=TIME")]
    pub(crate) mtbf: Vec<(String, f64)>,
    /// Mean time to repair of a class, such as node-killed=4h.
    #[arg(long, value_delimiter = ',', value_parser = class_and_time, value_name = "CLASS=TIME")]
    pub(crate) mttr: Vec<(String, f64)>,
    #[command(flatten)]
    pub(crate) subject: Subject,
}

impl Subject {
    /// The checked configuration.
    pub(crate) fn config(&self) -> anyhow::Result<DomainConfig> {
        if !self.mutation.is_there() {
            bail!("the rule {} cannot be broken in this build; what `cargo test` builds can", self.mutation.word());
        }
        let Some(file) = &self.domain else { return Ok(self.nodes.map_or_else(sim::three_nodes, sim::many_nodes)) };
        let config = load_domain(file)?;
        if config.services.is_empty() {
            bail!("{} names no service, so nobody would notice a fault. Add one under services", file.display());
        }
        Ok(config)
    }

    /// What the seed does to it.
    pub(crate) fn script(&self, config: &DomainConfig, seed: u64) -> Script {
        draw(seed, &sim::ground(config), &Mix { faults: self.faults, only: self.only.clone() })
    }

    /// The options that a command needs to play the same.
    pub(crate) fn arguments(&self) -> String {
        let mut text = self.domain.as_ref().map(|d| format!(" --domain {}", d.display())).unwrap_or_default();
        if let Some(nodes) = self.nodes {
            text += &format!(" --nodes {nodes}");
        }
        if self.faults != FAULTS {
            text += &format!(" --faults {}", self.faults);
        }
        if !self.only.is_empty() {
            text += &format!(" --only {}", self.only.join(","));
        }
        if self.mutation != Mutation::None {
            text += &format!(" --break {}", self.mutation.word());
        }
        text
    }
}

/// Runs it. Exit codes: 0 all good, 1 a seed failed, 2 bad input, 130 interrupted and all good so far.
pub(crate) fn run(options: &Options) -> ExitCode {
    match campaign(options) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn campaign(options: &Options) -> anyhow::Result<ExitCode> {
    let config = options.subject.config()?;
    let rates = rates(&options.mtbf, &options.mttr)?;
    let mut state = State::load_or_new(options, &config)?;
    // Before the first seed: a night's work must not end at a file that cannot be written.
    for file in [&options.json, &options.html].into_iter().flatten().filter(|f| f.as_os_str() != "-") {
        std::fs::File::options().append(true).create(true).open(file).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let is_complete = play(options, &config, &mut state)?;
    let mut summary = Summary::new(&state, options, &config, rates, !is_complete);
    if let Some(first) = state.tally.failures.first() {
        let script = options.subject.script(&config, first.seed);
        summary.shrunk = Some(shrink(&config, &options.subject, script, first.failure.clone()));
    }
    publish(options, &summary)?;
    Ok(match (summary.is_good(), is_complete) {
        (false, _) => ExitCode::from(1),
        (true, false) => ExitCode::from(130),
        (true, true) => ExitCode::SUCCESS,
    })
}

/// Plays what is left; false if it was interrupted.
fn play(options: &Options, config: &DomainConfig, state: &mut State) -> anyhow::Result<bool> {
    let end = options.from.saturating_add(options.seeds);
    let jobs = options.jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    let mut progress = Progress::new(options.seeds, state.done());
    let mut pool = Pool::start(config, &options.subject, state.next..end, jobs);
    while let Some(played) = pool.next() {
        state.add(&played);
        progress.seed(state, &played, &options.subject);
        if progress.is_time_to_save() {
            state.save(options.state.as_deref())?;
        }
    }
    state.worked(progress.elapsed(), jobs);
    progress.end();
    state.save(options.state.as_deref())?;
    Ok(state.next >= end)
}

fn publish(options: &Options, summary: &Summary) -> anyhow::Result<()> {
    let json = || serde_json::to_string_pretty(&summary.json()).context("the report has no JSON");
    if let Some(file) = &options.html {
        write(file, &html::page(summary))?;
    }
    match options.json.as_deref() {
        Some(file) if file.as_os_str() == "-" => return write(file, &json()?),
        Some(file) => write(file, &json()?)?,
        None => {}
    }
    write(Path::new("-"), &text::report(summary))
}

/// Writes a whole file, or to stdout.
pub(crate) fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    if file.as_os_str() != "-" {
        return std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()));
    }
    match writeln!(std::io::stdout().lock(), "{}", text.trim_end()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("cannot write to stdout"),
        _ => Ok(()), // whoever read may have seen enough
    }
}

/// The table with what the operator knows better.
fn rates(mtbf: &[(String, f64)], mttr: &[(String, f64)]) -> anyhow::Result<Vec<Rate>> {
    let mut rates = RATES.to_vec();
    for (class, seconds) in mtbf {
        find(&mut rates, class)?.mtbf_s = *seconds;
    }
    for (class, seconds) in mttr {
        find(&mut rates, class)?.mttr_s = *seconds;
    }
    Ok(rates)
}

fn find<'a>(rates: &'a mut [Rate], class: &str) -> anyhow::Result<&'a mut Rate> {
    let known: Vec<&str> = rates.iter().map(|r| r.class).collect();
    let known = known.join(", ");
    rates.iter_mut().find(|r| r.class == class).with_context(|| format!("there is no fault class {class:?}; there are {known}"))
}

fn class(text: &str) -> Result<String, String> {
    if classes().any(|class| class == text) {
        return Ok(text.to_owned());
    }
    let known: BTreeSet<&str> = classes().collect();
    Err(format!("there is no fault class {text:?}; there are {}", known.into_iter().collect::<Vec<_>>().join(", ")))
}

fn class_and_time(text: &str) -> Result<(String, f64), String> {
    let (class, time) = text.split_once('=').ok_or_else(|| format!("{text:?} is no CLASS=TIME, such as node-killed=8000h"))?;
    let seconds = u32::try_from(super::seconds(time)?).map_err(|_| format!("{time} is longer than a century"))?;
    if seconds == 0 {
        return Err(format!("{time} is no time between faults"));
    }
    Ok((class.to_owned(), f64::from(seconds)))
}

/// As many as the test run has.
const FAULTS: u64 = 12;
