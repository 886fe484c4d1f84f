//! What every `nines bench` has in common: its file, and how many values become one row.

pub(crate) mod discs;

use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// The file of a bench.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BenchReport<R> {
    /// Which, as it is called.
    pub(crate) bench: String,
    /// The domain's time profile.
    pub(crate) profile: String,
    /// What it ran on.
    pub(crate) machine: String,
    /// What was found, thing by thing.
    pub(crate) rows: Vec<R>,
}

impl<R> BenchReport<R> {
    pub(crate) fn new(bench: &str, profile: &str, rows: Vec<R>) -> Self {
        Self { bench: bench.to_owned(), profile: profile.to_owned(), machine: machine(), rows }
    }
}

/// One quantity, and nothing else about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// What of.
    pub(crate) name: String,
    /// Its values.
    #[serde(flatten)]
    pub(crate) spread: Spread,
}

/// Values of one quantity, in few numbers. Each is one that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    /// How many.
    pub(crate) n: usize,
    /// Of them, in [`Self::unit`].
    pub(crate) median: f64,
    /// Of them.
    pub(crate) p95: f64,
    /// Of them.
    pub(crate) p99: f64,
    /// Of them.
    pub(crate) max: f64,
    /// Such as `ms`.
    pub(crate) unit: String,
}

impl Spread {
    /// Of values in any order.
    pub(crate) fn of(mut values: Vec<f64>, unit: &str) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |q| (quantile(&values, q) * 1000.0).round() / 1000.0;
        Self { n: values.len(), median: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1.0), unit: unit.to_owned() }
    }
}

/// The smallest value that a share of `q` of all values does not exceed (nearest rank); 0 of nothing.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "some millions of values at most")]
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(0.0)
}

/// Processor and kernel, in words.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = nix::sys::utsname::uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default();
    let cpu = std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| text.lines().find_map(|l| Some(l.strip_prefix("model name")?.trim_start_matches([' ', '\t', ':']).to_owned())))
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    format!("{cores} cores, {cpu}, Linux {kernel}")
}

/// What this thread has used of a processor so far.
///
/// # Errors
/// If the kernel does not say.
pub(crate) fn own_time() -> anyhow::Result<std::time::Duration> {
    Ok(nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).context("this thread's own time")?.into())
}

/// Whether the file is standard output.
pub(crate) fn is_stdout(file: Option<&Path>) -> bool {
    file.is_some_and(|file| file == Path::new("-"))
}

/// Writes a report to a file; `-` for standard output.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn write_json(file: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut text = serde_json::to_string_pretty(value).context("writing the report")?;
    text.push('\n');
    if is_stdout(Some(file)) {
        return std::io::stdout().write_all(text.as_bytes()).context("writing the report to standard output");
    }
    std::fs::write(file, text).with_context(|| format!("writing the report to {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!([0.5, 0.95, 0.99, 1.0].map(|q| quantile(&values, q)), [50.0, 95.0, 99.0, 100.0]);
        assert_eq!(quantile(&[7.0], 0.5), 7.0);
        assert_eq!(quantile(&[], 0.99), 0.0);
    }

    #[test]
    fn a_row_bears_its_numbers_beside_its_name() {
        let row = Row { name: "cpu".into(), spread: Spread::of(vec![3.0, 1.0, 2.0], "%") };
        let json = serde_json::to_value(row).expect("JSON");
        assert_eq!(json, serde_json::json!({ "name": "cpu", "n": 3, "median": 2.0, "p95": 3.0, "p99": 3.0, "max": 3.0, "unit": "%" }));
    }
}
