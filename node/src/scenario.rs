//! Scenarios from files to results: finding and reading them, running each, and writing down what came of it.

mod json;
mod junit;
mod live;
mod plot;
mod table;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use sixnines_core::config::{self, Data};
use sixnines_core::diagnostic::{Diagnostic, Source};
use sixnines_core::domain::config::Bundle;
use sixnines_hwsim::chassis::Plan;
use sixnines_hwsim::scenario::{Report, Scenario};

pub(crate) use json::document;
pub(crate) use junit::xml;
pub(crate) use live::{LiveStage, Reach};
pub(crate) use plot::draw;
pub(crate) use table::{failures, headline, row, story, total};

/// A scenario that was run.
#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) scenario: Scenario,
    pub(crate) report: Report,
    /// How long that took.
    pub(crate) took: Duration,
}

/// What a file turned out to be.
#[derive(Debug)]
pub(crate) enum Read {
    /// A scenario that can be run.
    Scenario(Box<Scenario>),
    /// A chassis that can be simulated.
    Chassis(Box<Plan>),
    /// Something is wrong with it.
    Wrong(Vec<Diagnostic>),
}

/// Every file that is meant: those that are named, and the YAML files in the directories that are.
///
/// # Errors
/// With the name of what cannot be read, or of a directory without any.
pub(crate) fn find(places: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for place in places {
        if !place.is_dir() {
            files.push(place.clone());
            continue;
        }
        let before = files.len();
        search(place, &mut files)?;
        anyhow::ensure!(files.len() > before, "there is no YAML file in {}", place.display());
    }
    Ok(files)
}

/// A directory's own files first, then what its directories have.
fn search(place: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = fs::read_dir(place).with_context(|| format!("cannot read {}", place.display()))?;
    let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.sort();
    files.extend(found.iter().filter(|path| is_yaml(path)).cloned());
    found.iter().filter(|path| path.is_dir() && !path.is_symlink()).try_for_each(|path| search(path, files))
}

fn is_yaml(path: &Path) -> bool {
    path.is_file() && path.extension().is_some_and(|e| e == "yaml" || e == "yml")
}

/// Reads one file, whatever it is: a scenario has a `timeline`, a chassis has not.
///
/// # Errors
/// If it cannot be read at all.
pub(crate) fn read(path: &Path, bundle: &Bundle) -> anyhow::Result<Read> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let name = path.display().to_string();
    let source = Source { name: &name, text: &text };
    if is_chassis(source) {
        return Ok(match Plan::parse(&name, &text) {
            Ok(plan) => Read::Chassis(Box::new(plan)),
            Err(wrong) => Read::Wrong(vec![*wrong.diagnostic]),
        });
    }
    let home = path.parent().map(Path::to_owned).unwrap_or_default();
    let open = |file: &str| fs::read_to_string(home.join(file)).map_err(|error| format!("cannot read {}: {error}", home.join(file).display()));
    Ok(match Scenario::read(source, bundle, &open) {
        Ok(scenario) => Read::Scenario(Box::new(scenario)),
        Err(wrong) => Read::Wrong(wrong),
    })
}

/// Whether somebody means a chassis: it names slots, or air, and no timeline.
fn is_chassis(source: Source<'_>) -> bool {
    let Ok(root) = config::parse(source) else { return false };
    let Data::Map(entries) = &root.data else { return false };
    let has = |name: &str| entries.iter().any(|(key, _)| key.text == name);
    !has("timeline") && (has("slots") || has("air") || has("boards"))
}

/// Runs a scenario on the stage that `play` puts up.
///
/// # Errors
/// If the stage has gone.
pub(crate) fn played(scenario: Scenario, play: impl FnOnce(&Scenario) -> Result<Report, String>) -> Result<Played, String> {
    let began = Instant::now();
    let report = play(&scenario)?;
    Ok(Played { scenario, report, took: began.elapsed() })
}
