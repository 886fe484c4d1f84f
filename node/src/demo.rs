//! `nines demo`: three nodes of real processes, their faults, and what a client outside saw of them.
//!
//! - [`lab`]: the world of namespaces, cables and processes; [`setup`]: the domain in it; [`client`]: the load generator;
//! - [`domain`]: what the demo asks the domain; [`shelf`]: its own eye on a chassis;
//! - [`stage`] and [`steps`]: the faults; [`report`]: the verdict; [`bench`]: the same faults again and again;
//! - [`idle`]: what the domain costs when nothing happens; [`form`]: a chassis full of nodes; [`soak`]: that nobody is taken for dead who is
//!   only busy.

pub(crate) mod bench;
pub(crate) mod client;
pub(crate) mod domain;
pub(crate) mod form;
pub(crate) mod idle;
pub(crate) mod lab;
pub(crate) mod play;
mod progress;
mod report;
pub(crate) mod setup;
mod shelf;
pub(crate) mod soak;
mod stage;
mod steps;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use sixnines_core::domain::config::Profile;

use crate::bench::{is_stdout, write_json};
use crate::{callserver, loadgen};
use lab::{Lab, Mode, world};
use progress::Progress;
use report::{DemoReport, Facts, Meant, Outcome};
use soak::Extras;
use stage::Stage;
use steps::Step;

/// How many calls the client keeps up.
const CALLS: u32 = 2000;

/// `nines demo`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  nines demo
  nines demo --steps node-killed,switchover
  nines demo --json demo.json
  nines demo --keep

Exit codes: 0 every promise was kept, 1 one was broken, 2 bad input.")]
pub(crate) struct Options {
    /// Write what was found to this file; - for standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Leave the domain running, to play with, until Ctrl-C.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Only these steps, in this order; besides those that are shown there are one-way-cut, voter-killed and node-killed-leader.
    #[arg(long, value_delimiter = ',')]
    pub(crate) steps: Vec<Step>,
    /// How many calls the client keeps up.
    #[arg(long, default_value_t = CALLS, hide = true)]
    pub(crate) calls: u32,
    /// Use loopback addresses even where namespaces are allowed.
    #[arg(long, hide = true)]
    pub(crate) loopback: bool,
    /// Take a protection out, to see that the demo notices.
    #[arg(long, value_enum, hide = true)]
    pub(crate) without: Vec<Protection>,
}

/// What can be taken out, to see that the demo notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Protection {
    /// The gate in each node's kernel stays open.
    Gate,
    /// Nobody compares epochs: the chassis takes every order, the application answers under any.
    EpochCheck,
}

/// The subcommands through which the demo executes this same program again. Hidden from the help.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Hidden {
    /// The load generator.
    #[command(name = client::CLIENT, hide = true)]
    Client(loadgen::Options),
    /// The example application.
    #[command(name = setup::APPLICATION, hide = true)]
    CallServer {
        /// As the example takes them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// What a stress puts on the machine.
    #[command(name = soak::burden::BURDEN, hide = true)]
    Burden {
        #[command(subcommand)]
        what: soak::burden::Burden,
    },
    /// Become another program that ends with the demo.
    #[command(name = lab::room::EXEC, hide = true)]
    Exec {
        /// The process to end with.
        parent: u32,
        /// The program and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// The demo's networks, driven by JSON lines.
    #[command(name = "demo-lab", hide = true)]
    Lab {
        /// Without namespaces, whatever is allowed.
        #[arg(long)]
        loopback: bool,
    },
}

impl Hidden {
    /// Runs the subcommand. Call it before any thread exists.
    ///
    /// # Errors
    /// What went wrong, for the log of the demo.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Client(options) => loadgen::run(&options),
            Self::CallServer { arguments } => callserver::run(arguments.into_iter()).map_err(|error| anyhow::anyhow!("{error}")),
            Self::Burden { what } => what.run(),
            Self::Exec { parent, command } => Err(lab::keeper::run_wrapped(parent, &command)),
            Self::Lab { loopback } => lab::script::run(loopback.then_some(Mode::Loopback)),
        }
    }
}

/// Runs the demo. Call it before any thread exists.
///
/// # Errors
/// If the world or the domain could not be built at all; a broken promise is an exit code.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mode = if options.loopback { Mode::Loopback } else { world::enter() };
    let mut progress = Progress::new(is_stdout(options.json.as_deref()));
    let steps = wanted(options, mode, &mut progress);
    let mut stage = raise(mode, options.calls, &options.without, None, &Extras::default(), progress)?;
    let mut outcomes = Vec::new();
    for (place, step) in (1..).zip(&steps) {
        let head = format!("[{place}/{}] {:<15}", steps.len(), step.name());
        let (outcome, _window) = match play(&mut stage, *step) {
            Ok(played) => played,
            Err(error) => {
                outcomes.push(unfinished(*step, &error));
                stage.progress.tell(&format!("{head} not finished: {error:#}"));
                break; // The stage is not whole: what came after it would say nothing.
            }
        };
        tell(&mut stage.progress, &head, &outcome);
        outcomes.push(outcome);
    }
    read_back_at_the_end(&mut stage, options.keep, &mut outcomes);
    let report = DemoReport::new(mode, &outcomes);
    conclude(&mut stage, options, &report, &outcomes, steps.len())?;
    Ok(if report.ok && outcomes.len() == steps.len() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Runs `nines bench failover`. Call it before any thread exists.
///
/// # Errors
/// If the domain could not be built, or did not come back after a fault.
pub(crate) fn run_bench(options: &bench::Options) -> anyhow::Result<ExitCode> {
    let mode = world::enter();
    let mut stage = raise(mode, CALLS, &[], options.profile, &Extras::default(), Progress::new(is_stdout(Some(&options.json))))?;
    let report = bench::run(&mut stage, options).inspect_err(|_| keep_logs(&mut stage))?;
    write_json(&options.json, &report)?;
    let kept = report.rows.iter().all(|row| row.broken == 0);
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Runs `nines bench idle`. Call it before any thread exists.
///
/// # Errors
/// If the domain could not be built, or a daemon went away.
pub(crate) fn run_idle(options: &idle::Options) -> anyhow::Result<ExitCode> {
    let mode = world::enter();
    let mut stage = raise(mode, 1, &[], None, &Extras::default(), Progress::new(is_stdout(Some(&options.json))))?;
    let report = idle::run(&mut stage, options)?;
    write_json(&options.json, &report)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs `nines bench form`. Call it before any thread exists.
///
/// # Errors
/// If the domain did not form, or a daemon went away.
pub(crate) fn run_form(options: &form::Options) -> anyhow::Result<ExitCode> {
    let lab = form::world()?;
    let report = form::run(&lab, options, &mut Progress::new(is_stdout(Some(&options.json)))).inspect_err(|_| lab.keeper().keep_directory())?;
    write_json(&options.json, &report)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs `nines bench soak`. Call it before any thread exists.
///
/// # Errors
/// If the domain could not be built, a stress not be brought about, or the domain did not come back after one.
pub(crate) fn run_soak(options: &soak::Options) -> anyhow::Result<ExitCode> {
    let mode = world::enter();
    let extras = Extras::of(options)?;
    let mut stage = raise(mode, CALLS, &[], options.profile, &extras, Progress::new(is_stdout(options.json.as_deref())))?;
    let report = soak::run(&mut stage, options, &extras).inspect_err(|_| keep_logs(&mut stage))?;
    if let Some(file) = &options.json {
        write_json(file, &report)?;
    }
    let kept = report.rows.iter().all(|row| row.broken(stage.profile).is_empty());
    if !kept {
        keep_logs(&mut stage);
    }
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn keep_logs(stage: &mut Stage) {
    stage.lab.keeper().keep_directory();
    stage.progress.tell(&format!("logs    {}", stage.lab.directory().display()));
}

/// The steps that were asked for, without those that this world cannot show, which are named.
fn wanted(options: &Options, mode: Mode, progress: &mut Progress) -> Vec<Step> {
    let mut steps = if options.steps.is_empty() { Step::SHOWN.to_vec() } else { options.steps.clone() };
    if let Some(left_out) = mode.left_out() {
        progress.tell(&format!("mode {mode}: {left_out}"));
        steps.retain(|step| !step.needs_cables());
    }
    steps
}

/// Builds the world, starts the domain in it and the client outside, and waits until all calls are up.
fn raise(mode: Mode, calls: u32, without: &[Protection], profile: Option<Profile>, extras: &Extras, mut progress: Progress) -> anyhow::Result<Stage> {
    let place = if mode == Mode::Loopback { "on loopback addresses" } else { "in namespaces" };
    progress.tell(&format!("sixnines demo: {} nodes, {} chassis, real processes {place}, {calls} calls", lab::SEATS.len(), lab::CHASSIS.len()));
    let lab = Lab::build(mode, None)?;
    lab.keeper().end_on_signals()?;
    setup::start(lab, calls, without, profile, extras, progress)
}

/// Plays one step and judges it. Also: how long the client's window was until the fault had had its effect.
fn play(stage: &mut Stage, step: Step) -> anyhow::Result<(Outcome, Duration)> {
    let facts = step.play(stage)?;
    let window = Duration::from_secs_f64(facts.fault.client.window_ms / 1000.0);
    Ok((report::judge(facts), window))
}

/// Every call once more, with nothing else under way. What is missing only now is the last step's.
fn read_back_at_the_end(stage: &mut Stage, keep: bool, outcomes: &mut [Outcome]) {
    let known: u64 = outcomes.iter().map(|o| o.report.lost).sum();
    let Some(last) = outcomes.last_mut().filter(|o| o.broken.is_empty()) else { return };
    stage.progress.now("reading every call back");
    // With --keep the load goes on: the user wants to see a service that is used.
    let result = if keep { stage.client.read_back() } else { stage.client.finish() };
    match result {
        Ok(result) => {
            let missing = result.lost.saturating_sub(known);
            last.report.lost += missing;
            for (count, what) in [(missing, "acknowledged changes are lost"), (result.doubled, "changes were applied twice"), (result.unread, "calls could not be read back")] {
                if count > 0 {
                    last.broken.push(format!("{count} {what} at the end"));
                }
            }
        }
        Err(error) => last.broken.push(format!("nothing could be read back at the end: {error:#}")),
    }
}

/// A step whose states never came has kept no promise.
fn unfinished(step: Step, error: &anyhow::Error) -> Outcome {
    let seen = client::Seen::nothing(step.name());
    let mut outcome = report::judge(Facts {
        name: step.name(),
        meant: Meant::Stays,
        active: (String::new(), String::new()),
        fault: seen.clone(),
        healed: seen,
        read_back: loadgen::machine::ReadBack::default(),
        chassis_two_actives_ms: 0.0,
        suspensions: 0,
        why: vec![],
        broken: vec![],
        told: vec![],
    });
    outcome.movement = "not finished".to_owned();
    outcome.broken = vec![format!("{error:#}")];
    outcome
}

fn tell(progress: &mut Progress, head: &str, outcome: &Outcome) {
    let mut lines = outcome.told.iter();
    progress.tell(&format!("{head} {}", lines.next().map_or("", String::as_str)));
    let indent = " ".repeat(head.len());
    for line in lines {
        progress.tell(&format!("{indent} {line}"));
    }
    for (place, line) in outcome.report.why.iter().enumerate() {
        progress.tell(&format!("{indent} {} {line}", if place == 0 { "why:" } else { "   >" }));
    }
}

/// The table, the broken promises last, the file, and whether the world stays.
fn conclude(stage: &mut Stage, options: &Options, report: &DemoReport, outcomes: &[Outcome], steps: usize) -> anyhow::Result<()> {
    stage.progress.tell("");
    for line in report::table(outcomes).lines() {
        stage.progress.tell(line);
    }
    let kept = outcomes.iter().filter(|o| o.broken.is_empty()).count();
    stage.progress.tell(&format!("{kept} of {steps} promises kept in {} s.", stage.progress.seconds()));
    if let Some(file) = &options.json {
        write_json(file, report)?;
    }
    let broken: Vec<_> = outcomes.iter().filter(|o| !o.broken.is_empty()).collect();
    if !broken.is_empty() {
        keep_logs(stage);
        for outcome in &broken {
            for promise in &outcome.broken {
                stage.progress.tell(&format!("BROKEN  {}: {promise}", outcome.report.name));
            }
        }
        let names: Vec<_> = broken.iter().map(|o| o.report.name.as_str()).collect();
        stage.progress.tell(&format!("again   nines demo --steps {}", names.join(",")));
    }
    if options.keep {
        keep(stage);
    } else if broken.is_empty() {
        stage.progress.tell("To play on: nines demo --keep");
    }
    Ok(())
}

/// Until a signal ends this process, and with it the world.
fn keep(stage: &mut Stage) {
    stage.progress.tell("The domain goes on until Ctrl-C. In another terminal:");
    let socket = setup::socket(&stage.lab, lab::SEATS[0]);
    stage.progress.tell(&format!("  export NINES_NODE={}", socket.display()));
    stage.progress.tell("  nines status; nines why calls; nines inject mxp1 fan-failed fan1");
    loop {
        stage.lab.keeper().reap();
        std::thread::sleep(Duration::from_millis(500));
    }
}
