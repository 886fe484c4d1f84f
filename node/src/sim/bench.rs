//! `nines bench sim`: how much virtual time, and how many failovers in it, one core gets through in a second.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use sixnines_core::domain::config::Profile;
use sixnines_hwsim::domain::chaos::script::{Fault, Features, Place, Script, Step};

use super::{Mutation, play_safely, three_nodes};
use crate::bench::{BenchReport, Row, Spread, own_time, write_json};

/// `nines bench sim`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  nines bench sim --json sim.json
  nines bench sim --json - --rounds 20")]
pub(crate) struct Options {
    /// Where the result goes; - for standard output.
    #[arg(long, value_name = "FILE")]
    json: PathBuf,
    /// How often each thing is done.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1000))]
    rounds: u64,
}

/// Measures; `failovers` are complete ones of three nodes (killed, taken over, started again, in sync), `idle/PROFILE` are virtual seconds in which a client
/// calls and nothing else happens.
///
/// # Errors
/// If a domain does not do what is asked of it: nothing is measured then.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let kill = || Step { wait_us: APART_US, fault: Fault::NodeKilled { node: Place::ActiveOf("calls".into()), down_us: Some(DOWN_US) } };
    let kills: Vec<Step> = std::iter::repeat_with(kill).take(KILLS).collect();
    let mut rows = vec![row("failovers", options.rounds, "a second and core", |seed| per_second(Profile::Fabric, seed, &kills, 0))?];
    for profile in Profile::ALL {
        rows.push(row(&format!("idle/{}", profile.word()), options.rounds, "virtual seconds a second and core", |seed| per_second(profile, seed, &[], IDLE_US))?);
    }
    write_json(&options.json, &BenchReport::new("sim", Profile::Fabric.word(), rows))?;
    Ok(ExitCode::SUCCESS)
}

fn row(name: &str, rounds: u64, unit: &str, once: impl Fn(u64) -> anyhow::Result<f64>) -> anyhow::Result<Row> {
    eprintln!("{name}: {rounds} rounds");
    let values = (1..=rounds).map(once).collect::<anyhow::Result<_>>()?;
    Ok(Row { name: name.to_owned(), spread: Spread::of(values, unit) })
}

/// Failovers, if there are any steps, else virtual seconds; of this thread's own time.
fn per_second(profile: Profile, seed: u64, steps: &[Step], rest_us: u64) -> anyhow::Result<f64> {
    let mut config = three_nodes();
    config.profile = profile;
    let features = Features { services: vec!["calls".into()], clients: 1, hot_fans: vec![0, 0], wires: None, bad_policies: vec![] };
    let script = Script { seed, features, steps: steps.to_vec(), rest_us };
    let before = own_time()?;
    let report = play_safely(&config, Mutation::None, &script);
    let used = (own_time()? - before).as_secs_f64();
    if let Some(failure) = report.failure {
        anyhow::bail!("seed {seed}: {failure}");
    }
    if steps.is_empty() {
        return Ok(Duration::from_nanos(report.lasted).as_secs_f64() / used);
    }
    let moved = u32::try_from(report.role_changes).context("as many as were killed")?;
    anyhow::ensure!(usize::try_from(moved)? >= steps.len(), "seed {seed}: {} nodes were killed, and the service moved {moved} times", steps.len());
    Ok(f64::from(u32::try_from(steps.len())?) / used)
}

const KILLS: usize = 30;
/// Between two kills: the last victim is back and in sync.
const APART_US: u64 = 300_000;
const DOWN_US: u64 = 60_000;
const IDLE_US: u64 = 20_000_000;
