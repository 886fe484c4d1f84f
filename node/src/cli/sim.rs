//! `nines sim`: scenarios in virtual time, and checking what users write for the simulator. No daemon is needed.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use sixnines_core::diagnostic::{Diagnostic, Level, suggestion};
use sixnines_core::domain::config::Bundle;
use sixnines_hwsim::chassis::{CATALOGUE, Entry};
use sixnines_hwsim::domain::chaos::catalogue::CATALOGUE as DOMAIN_CATALOGUE;
use sixnines_hwsim::scenario::{OwnerStage, Report, Scenario, run as play};

use super::Ask;
use crate::api::Failure;
use crate::config::{NodeFile, load_bundle};
use crate::demo::play::Field;
use crate::scenario::{self, LiveStage, Played, Reach, Read};
use crate::sim::{self, Mutation};

/// What `nines sim run` takes.
#[derive(Debug, Args)]
pub(crate) struct RunOptions {
    /// Scenarios, or directories of them.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The directory with classes, alarms, objects and policies. Left out: those that ship.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Writes the results as one JSON document; `-` for standard output, instead of the table.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Writes the results as JUnit's XML.
    #[arg(long)]
    junit: Option<PathBuf>,
    /// Draws temperatures, speeds and alarms over time into this directory, as SVG and PNG.
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Tells what happened, line by line.
    #[arg(long)]
    story: bool,
    /// Plays on a domain that runs, in its own time, and breaks its simulated chassis. Everything ends with the scenario.
    #[arg(long)]
    live: bool,
    /// Plays on the demo's domain, made for it: real processes in namespaces, whose nodes, links and application are broken, too.
    #[arg(long, conflicts_with = "live")]
    lab: bool,
    /// Breaks a rule of the product, to see that it is noticed.
    #[arg(long = "break", value_enum, default_value = "none", hide = true)]
    mutation: Mutation,
    /// With --live: the node's nines.yaml, or its socket where nothing is broken.
    #[arg(long, env = "NINES_NODE", default_value = "/run/sixnines/nines.sock")]
    node: PathBuf,
}

/// What `nines sim check` takes.
#[derive(Debug, Args)]
pub(crate) struct CheckOptions {
    /// Scenarios, chassis, or directories of them.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The directory with classes, alarms, objects and policies. Left out: those that ship.
    #[arg(long)]
    config: Option<PathBuf>,
    /// One JSON document instead of text.
    #[arg(long)]
    json: bool,
}

/// Plays scenarios.
pub(crate) fn run(options: &RunOptions) -> ExitCode {
    let to_stdout = options.json.as_deref() == Some(Path::new("-"));
    run_all(options).unwrap_or_else(|failure| super::render::refuse(&failure, to_stdout))
}

/// Checks what users write for the simulator.
pub(crate) fn check(options: &CheckOptions) -> ExitCode {
    check_all(options).unwrap_or_else(|failure| super::render::refuse(&failure, options.json))
}

/// Shows the faults whose name has a word.
pub(crate) fn catalogue(word: &str) -> ExitCode {
    faults(word).unwrap_or_else(|failure| super::render::refuse(&failure, false))
}

fn run_all(options: &RunOptions) -> Result<ExitCode, Failure> {
    let scenarios = scenarios(&options.files, &bundle_of(options)?)?;
    objections(&scenarios, options)?;
    let mut field = if options.lab { Some(Field::raise().map_err(|error| bad("no-lab", format!("{error:#}"), None))?) } else { None };
    let to_stdout = options.json.as_deref() == Some(Path::new("-"));
    let mut all: Vec<Played> = Vec::new();
    if !to_stdout {
        print(&scenario::headline());
    }
    for each in scenarios {
        let played = match &mut field {
            Some(field) => scenario::played(each, |scenario| play(scenario, &mut field.stage(scenario).map_err(|error| format!("{error:#}"))?)).map_err(gone)?,
            None if options.live => live(each, options)?,
            None => scenario::played(each, |scenario| simulated(scenario, options.mutation)).map_err(gone)?,
        };
        if !to_stdout {
            print(&scenario::row(&played));
            if options.story {
                print(&scenario::story(&played.report));
            }
            print(&scenario::failures(&played.report));
        }
        all.push(played);
    }
    if !to_stdout {
        print(&scenario::total(&all));
    }
    write_results(options, &all)?;
    let is_good = all.iter().all(|played| played.report.is_good());
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// On a domain if it describes one, else on a chassis with its owner.
fn simulated(scenario: &Scenario, mutation: Mutation) -> Result<Report, String> {
    match scenario.setting.domain {
        Some(_) => play(scenario, &mut sim::stage(&scenario.setting, mutation)),
        None => play(scenario, &mut OwnerStage::new(&scenario.setting)),
    }
}

/// What a scenario needs and its stage cannot do is said before anything is broken.
fn objections(scenarios: &[Scenario], options: &RunOptions) -> Result<(), Failure> {
    let is_real = options.live || options.lab;
    for scenario in scenarios {
        let objection = match is_real {
            true if options.lab => Field::objection(scenario),
            true => LiveStage::objection(scenario, Reach::Chassis),
            false => None,
        };
        if let Some(why) = objection {
            return Err(bad("not-live", why, Some("without --live or --lab it runs in virtual time".into())));
        }
        if let Some(line) = scenario.asks_for_roles().filter(|_| !is_real && scenario.setting.domain.is_none()) {
            let why = format!("{}:{line}: a simulated chassis alone has no roles", scenario.file);
            let help = "describe a domain beside `timeline`, such as domain: { mxp1: [n1, n2], mxp2: [n3] }; or play it on one that runs: --live --node lab/n1/nines.yaml";
            return Err(bad("no-roles", why, Some(help.into())));
        }
    }
    Ok(())
}

fn live(scenario: Scenario, options: &RunOptions) -> Result<Played, Failure> {
    let ask = Ask { node: options.node.clone(), json: false, timeout: 5 };
    scenario::played(scenario, |scenario| {
        let mut stage = LiveStage::connect(&ask, scenario).map_err(|error| format!("{error:#}"))?;
        play(scenario, &mut stage)
    })
    .map_err(gone)
}

fn write_results(options: &RunOptions, all: &[Played]) -> Result<(), Failure> {
    if let Some(file) = &options.json {
        let text = scenario::document(all).to_string() + "\n";
        if file == Path::new("-") {
            print(&text);
        } else {
            write(file, &text)?;
        }
    }
    if let Some(file) = &options.junit {
        write(file, &scenario::xml(all))?;
    }
    if let Some(dir) = &options.plot {
        for played in all {
            scenario::draw(dir, &played.report).map_err(|error| bad("cannot-write", format!("{error:#}"), None))?;
        }
        eprintln!("{} pictures are in {}", all.len() * 2, dir.display());
    }
    Ok(())
}

/// Every scenario that is meant; if anything is wrong, all of it is said and nothing is run.
fn scenarios(files: &[PathBuf], bundle: &Bundle) -> Result<Vec<Scenario>, Failure> {
    let mut good = Vec::new();
    let mut is_wrong = false;
    for file in find(files)? {
        match read(&file, bundle)? {
            Read::Scenario(scenario) => good.push(*scenario),
            Read::Chassis(_) if files.contains(&file) => {
                let help = "a scenario has a `timeline`, and names its chassis: `chassis: FILE`".to_owned();
                return Err(bad("no-scenario", format!("{} is a chassis, not a scenario", file.display()), Some(help)));
            }
            Read::Chassis(_) => {} // it lies beside its scenarios
            Read::Wrong(list) => {
                is_wrong = true;
                list.iter().for_each(|diagnostic| eprintln!("{diagnostic}\n"));
            }
        }
    }
    if is_wrong {
        return Err(bad("bad-file", "nothing was run".to_owned(), Some("nines sim check FILE".to_owned())));
    }
    Ok(good)
}

fn check_all(options: &CheckOptions) -> Result<ExitCode, Failure> {
    let bundle = bundle(options.config.as_deref())?;
    let files = find(&options.files)?;
    let mut said: Vec<Diagnostic> = Vec::new();
    for file in &files {
        match read(file, &bundle)? {
            Read::Scenario(scenario) if !options.json => {
                println!("{}: good, {} steps, {} expectations", file.display(), scenario.steps.len(), scenario.expectations());
            }
            Read::Chassis(plan) if !options.json => {
                println!("{}: good, chassis {} with {} slots", file.display(), plan.chassis, plan.slots.len());
            }
            Read::Scenario(_) | Read::Chassis(_) => {}
            Read::Wrong(list) => said.extend(list),
        }
    }
    let is_good = !said.iter().any(|diagnostic| diagnostic.level == Level::Error);
    if options.json {
        println!("{}", serde_json::json!({"schema": "nines.sim-check/1", "good": is_good, "files": files.len(), "diagnostics": said}));
    } else {
        said.iter().for_each(|diagnostic| println!("{diagnostic}\n"));
        let remarks = if said.len() == 1 { "1 mistake".to_owned() } else { format!("{} mistakes", said.len()) };
        println!("{} files, {remarks}", files.len());
    }
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

/// A domain that runs has its own policies; what was proposed at its start stands beside the node.
fn bundle_of(options: &RunOptions) -> Result<Bundle, Failure> {
    let is_file = options.node.extension().is_some_and(|e| e == "yaml" || e == "yml");
    match &options.config {
        None if options.live && is_file => {
            let file = NodeFile::load(&options.node).map_err(|error| bad("bad-file", format!("{error:#}"), None))?;
            bundle(Some(&file.policies))
        }
        config => bundle(config.as_deref()),
    }
}

fn faults(word: &str) -> Result<ExitCode, Failure> {
    let parts = [("Of a chassis, in scenarios and with nines inject:", CATALOGUE), ("Of a domain, in scenarios that describe one:", DOMAIN_CATALOGUE)];
    let meant = |entry: &&Entry| entry.name.contains(word);
    let found: Vec<(&str, Vec<&Entry>)> = parts.map(|(title, list)| (title, list.iter().filter(meant).collect())).into_iter().filter(|(_, list): &(_, Vec<_>)| !list.is_empty()).collect();
    if found.is_empty() {
        let help = suggestion(word, parts.iter().flat_map(|(_, list)| *list).map(|entry| entry.name));
        return Err(bad("unknown-fault", format!("no fault has \"{word}\" in its name"), help));
    }
    for (title, entries) in found {
        print(&format!("{title}\n\n"));
        describe(&entries);
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(entries: &[&Entry]) {
    for entry in entries {
        print(&format!("{}\n  {}\n", entry.name, entry.help));
        for parameter in entry.parameters {
            let default = parameter.default.map(|d| if d.is_empty() { " (may be left out)".to_owned() } else { format!(" (left out: {d})") });
            print(&format!("    {}=  {}{}\n", parameter.name, parameter.help, default.unwrap_or_default()));
        }
    }
    print("\n");
}

fn bundle(config: Option<&Path>) -> Result<Bundle, Failure> {
    let Some(dir) = config else { return Ok(crate::shipped::policies()) };
    match load_bundle(dir) {
        Ok(bundle) if bundle.files.is_empty() => Err(bad("no-policies", format!("there are no policies in {}", dir.display()), None)),
        Ok(bundle) => Ok(bundle),
        Err(error) => Err(bad("no-policies", format!("{error:#}"), None)),
    }
}

fn find(files: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    scenario::find(files).map_err(|error| bad("no-file", format!("{error:#}"), None))
}

fn read(file: &Path, bundle: &Bundle) -> Result<Read, Failure> {
    scenario::read(file, bundle).map_err(|error| bad("no-file", format!("{error:#}"), None))
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    fs::write(file, text).map_err(|error| bad("cannot-write", format!("cannot write {}: {error}", file.display()), None))
}

/// Whoever read may have gone; the exit code still tells.
fn print(text: &str) {
    drop(std::io::stdout().lock().write_all(text.as_bytes()));
}

fn bad(code: &str, message: String, help: Option<String>) -> Failure {
    Failure { code: code.into(), message, help, exit: 2 }
}

fn gone(message: String) -> Failure {
    Failure { code: "no-answer".into(), message, help: None, exit: 3 }
}

#[cfg(test)]
mod tests {
    use sixnines_core::diagnostic::Source;

    use super::*;

    #[test]
    fn the_scenario_in_the_help_is_a_good_one() {
        let help = include_str!("sim/words.txt");
        let lines = help.lines().skip_while(|line| *line != "A scenario:").skip(1).take_while(|line| !line.is_empty());
        let text: String = lines.map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line))).collect();
        let scenario = Scenario::read(Source { name: "help.yaml", text: &text }, &crate::shipped::policies(), &|file| Err(file.to_owned()));
        let scenario = scenario.unwrap_or_else(|wrong| panic!("{}", wrong.iter().map(ToString::to_string).collect::<String>()));
        let report = play(&scenario, &mut OwnerStage::new(&scenario.setting)).expect("a stage that cannot go away");
        assert!(report.is_good() && report.outcomes.len() == 3, "{report:?}");
    }

    #[test]
    fn the_scenario_of_a_domain_in_the_help_is_a_good_one() {
        let help = include_str!("sim/words.txt");
        let lines = help.lines().skip_while(|line| !line.starts_with("A whole domain")).skip(1);
        let text: String = lines.map_while(|line| line.strip_prefix("    ")).map(|line| format!("{line}\n")).collect();
        let scenario = Scenario::read(Source { name: "help.yaml", text: &text }, &crate::shipped::policies(), &|file| Err(file.to_owned()));
        let scenario = scenario.unwrap_or_else(|wrong| panic!("{}", wrong.iter().map(ToString::to_string).collect::<String>()));
        let report = simulated(&scenario, Mutation::None).expect("a stage that cannot go away");
        assert!(report.is_good() && report.outcomes.len() == 4, "{report:?}");
    }

    #[test]
    fn the_help_fits_a_serial_line() {
        assert_eq!(include_str!("sim/words.txt").lines().find(|line| line.chars().count() > 80), None);
    }
}
