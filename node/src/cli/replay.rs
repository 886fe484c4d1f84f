//! `nines sim replay`: one seed or script again, as a story; and the same with fewer faults.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;
use sixnines_core::domain::config::DomainConfig;
use sixnines_hwsim::domain::chaos::Report;
use sixnines_hwsim::domain::chaos::script::Script;
use sixnines_hwsim::domain::chaos::shrink::{self, Shrunk};

use super::campaign::{Subject, write};
use crate::sim;

/// What `nines sim replay` takes.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The seed, as a campaign names it.
    #[arg(long, required_unless_present = "script", conflicts_with = "script")]
    pub(crate) seed: Option<u64>,
    /// A script of faults as YAML or JSON; - for stdin.
    #[arg(long, value_name = "FILE")]
    pub(crate) script: Option<PathBuf>,
    /// If it fails: finds the fewest faults that still fail in the same way.
    #[arg(long)]
    pub(crate) shrink: bool,
    /// Writes the script (after shrinking, if asked for) as YAML; - for stdout.
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
    /// Lines of the story before its end; left out: 60, and none of a run that is good.
    #[arg(long)]
    pub(crate) lines: Option<usize>,
    /// One JSON document instead of text.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) subject: Subject,
}

/// Runs it. Exit codes: 0 it is good, 1 it fails, 2 bad input.
pub(crate) fn run(options: &Options) -> ExitCode {
    match replay(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn replay(options: &Options) -> anyhow::Result<bool> {
    let config = options.subject.config()?;
    let script = match (&options.script, options.seed) {
        (Some(file), _) => read(file)?,
        (None, Some(seed)) => options.subject.script(&config, seed),
        (None, None) => bail!("nothing to replay: give --seed or --script"),
    };
    check(&script, &config)?;
    let mut report = sim::play_safely(&config, options.subject.mutation, &script);
    let mut played = script;
    if let Some(failure) = report.failure.clone().filter(|_| options.shrink) {
        played = shrink(&config, &options.subject, played, failure).script;
        report = sim::play_safely(&config, options.subject.mutation, &played);
    }
    if options.json {
        write(Path::new("-"), &serde_json::to_string_pretty(&document(&report, &played))?)?;
    } else {
        write(Path::new("-"), &text(&report, &played, options.lines))?;
    }
    if let Some(file) = &options.save {
        write(file, &serde_yaml::to_string(&played).context("the script has no YAML")?)?;
    }
    Ok(report.failure.is_none())
}

/// Shrinks a failing script, with a word on stderr about how far it is.
pub(crate) fn shrink(config: &DomainConfig, subject: &Subject, script: Script, failure: String) -> Shrunk {
    let is_terminal = std::io::stderr().is_terminal();
    let faults = script.steps.len();
    eprintln!("shrinking seed {}: {faults} steps, at most {SHRINK_RUNS_MAX} runs", script.seed);
    let run = |script: &Script| sim::play_safely(config, subject.mutation, script).failure;
    let progress = |runs: u32, steps: usize| {
        if is_terminal {
            eprint!("\r{runs} runs, {steps} steps left\x1b[K");
        } else if runs.is_multiple_of(50) {
            eprintln!("{runs} runs, {steps} steps left");
        }
    };
    let shrunk = shrink::shrink(script, failure, SHRINK_RUNS_MAX, run, progress);
    if is_terminal {
        eprint!("\r\x1b[K");
    }
    eprintln!("shrunk to {} steps in {} runs", shrunk.script.steps.len(), shrunk.runs);
    shrunk
}

fn read(file: &Path) -> anyhow::Result<Script> {
    let text = if file.as_os_str() == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    let text = text.with_context(|| format!("cannot read {}", file.display()))?;
    serde_yaml::from_str(&text).with_context(|| format!("{} is no script of faults", file.display()))
}

/// A script for another domain would play, and say nothing.
fn check(script: &Script, config: &DomainConfig) -> anyhow::Result<()> {
    if script.features.services.is_empty() || script.features.clients == 0 {
        bail!("the script has no clients: features.services and features.clients say who calls what");
    }
    let known: Vec<&str> = config.services.iter().map(|s| s.name.as_str()).collect();
    if let Some(unknown) = script.features.services.iter().find(|s| config.service(s).is_none()) {
        bail!("the script calls {unknown}, which is no service of {}; there are {}", config.domain, known.join(", "));
    }
    Ok(())
}

fn text(report: &Report, script: &Script, lines: Option<usize>) -> String {
    let mut out = format!("{script}\n\n");
    let lines = lines.unwrap_or(if report.failure.is_some() { 60 } else { 0 });
    let story = &report.story[report.story.len().saturating_sub(lines)..];
    if !story.is_empty() {
        out += &format!("The last {} lines of what happened, times in ms since the domain's start:\n", story.len());
        story.iter().for_each(|line| out += &format!("{line}\n"));
        out.push('\n');
    }
    for incident in &report.incidents {
        let moved = if incident.moved { "moved" } else { "stayed" };
        out += &format!("{:<15} {} {moved}, gap {:.1} ms\n", incident.class, incident.service, super::campaign::report::ms(incident.gap_us));
    }
    let outcome = report.failure.as_ref().map_or_else(|| "good".to_owned(), |failure| format!("FAILED: {failure}"));
    out += &format!("seed {}: {outcome}\n{} answers, {} role changes, checksum {:016x}\n", report.seed, report.answers, report.role_changes, report.checksum);
    out
}

fn document(report: &Report, script: &Script) -> serde_json::Value {
    json!({
        "schema": "nines.sim-replay/1",
        "seed": report.seed,
        "good": report.failure.is_none(),
        "failure": report.failure,
        "script": script,
        "incidents": report.incidents,
        "overlapping": report.overlapping,
        "answers": report.answers,
        "role_changes": report.role_changes,
        "declared_losses": report.losses,
        "story": report.story,
        "checksum": format!("{:016x}", report.checksum),
    })
}

/// A failure that needs more is told as it is.
const SHRINK_RUNS_MAX: u32 = 400;
