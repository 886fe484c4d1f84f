//! `nines bench failover`: the same faults again and again, and what they cost a client.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sixnines_core::domain::config::Profile;

use super::report::Outcome;
use super::stage::Stage;
use super::steps::Step;
use super::{play, report};
use crate::bench::{BenchReport, Spread};

/// `nines bench failover`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  nines bench failover --json failover.json
  nines bench failover --json - --runs 20 --faults node-killed,node-hung
  nines bench failover --json lan.json --profile lan
  nines bench failover --json quick.json --runs 3")]
pub(crate) struct Options {
    /// Where the result goes; - for standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: PathBuf,
    /// How often each fault is made.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) runs: u32,
    /// Which faults, named as the demo's steps.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "process-killed,node-killed,node-killed-leader,standby-killed,voter-killed,node-hung,links-cut,one-way-cut,switchover"
    )]
    pub(crate) faults: Vec<Step>,
    /// The domain's time profile, fabric or lan; without it fabric where real-time scheduling is allowed.
    #[arg(long)]
    pub(crate) profile: Option<Profile>,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// The fault, named as the demo's step.
    pub(crate) name: String,
    /// The client's longest gap, of all runs.
    #[serde(flatten)]
    pub(crate) gap: Spread,
    /// Acknowledged changes that were lost, in all runs.
    pub(crate) lost: u64,
    /// The longest time of two actives, of all runs.
    pub(crate) two_actives_ms: f64,
    /// The p99 of the longest gap in windows of the same length without a fault, in between.
    pub(crate) floor_p99: f64,
    /// The p99 of the gap less that: what is left when the machine's own stalls are taken out.
    pub(crate) p99_less_floor: f64,
    /// Runs in which a lease ran out without a takeover, or a node was not scheduled in time.
    pub(crate) suspended: usize,
    /// Runs in which the prober itself woke up more than 5 ms late: they count all the same.
    pub(crate) prober_late: usize,
    /// Runs that broke a promise or could not be finished.
    pub(crate) broken: usize,
    /// The chain of causes of the run with the longest gap, with times: where its milliseconds went.
    pub(crate) longest: Vec<String>,
}

/// What the runs of one fault gave.
#[derive(Debug, Default)]
struct Runs {
    gaps: Vec<f64>,
    floors: Vec<f64>,
    lost: u64,
    two_actives_ms: f64,
    suspended: usize,
    prober_late: usize,
    broken: usize,
    longest: Option<(f64, Vec<String>)>,
}

impl Runs {
    fn add(&mut self, outcome: &Outcome, floor: f64) {
        let gap = outcome.report.outage_ms;
        if self.longest.as_ref().is_none_or(|(longest, _)| gap > *longest) {
            self.longest = Some((gap, outcome.report.why.clone()));
        }
        self.gaps.push(gap);
        self.floors.push(floor);
        self.lost += outcome.report.lost;
        self.two_actives_ms = self.two_actives_ms.max(outcome.report.two_actives_ms);
        self.suspended += usize::from(outcome.report.suspensions > 0);
        self.prober_late += usize::from(outcome.prober_late > 0);
        self.broken += usize::from(!outcome.broken.is_empty());
    }

    fn row(self, name: &str) -> Row {
        let gap = Spread::of(self.gaps, "ms");
        let floor_p99 = Spread::of(self.floors, "ms").p99;
        Row {
            name: name.to_owned(),
            lost: self.lost,
            two_actives_ms: self.two_actives_ms,
            floor_p99,
            p99_less_floor: report::rounded(gap.p99 - floor_p99),
            suspended: self.suspended,
            prober_late: self.prober_late,
            broken: self.broken,
            longest: self.longest.map(|(_, why)| why).unwrap_or_default(),
            gap,
        }
    }
}

/// Makes every fault `runs` times, the faults taking turns, so that a drift of the machine hits all alike.
///
/// # Errors
/// If the domain does not come back after a fault.
pub(crate) fn run(stage: &mut Stage, options: &Options) -> anyhow::Result<BenchReport<Row>> {
    let mut all: Vec<(Step, Runs)> = options.faults.iter().map(|step| (*step, Runs::default())).collect();
    for turn in 1..=options.runs {
        for (step, runs) in &mut all {
            stage.progress.now(&format!("run {turn} of {}: {}", options.runs, step.name()));
            let (outcome, window) = play(stage, *step)?;
            for broken in &outcome.broken {
                stage.progress.tell(&format!("run {turn}, {}: {broken}", step.name()));
            }
            runs.add(&outcome, floor(stage, window)?);
        }
    }
    let rows = all.into_iter().map(|(step, runs)| runs.row(step.name())).collect();
    Ok(BenchReport::new("failover", stage.profile.word(), rows))
}

/// The longest gap in a window of that length in which nothing is done.
fn floor(stage: &mut Stage, window: Duration) -> anyhow::Result<f64> {
    stage.wait_redundant()?;
    stage.client.mark("no fault")?;
    std::thread::sleep(window);
    Ok(report::rounded(stage.client.report()?.client.outage_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_prober_is_shown_and_its_run_counts() {
        let outcome = |gap: f64, late| Outcome {
            report: report::StepReport {
                name: "node-killed".into(),
                outage_ms: gap,
                acknowledged: 1,
                lost: 0,
                two_actives_ms: 0.0,
                suspensions: late,
                moved: true,
                why: vec![format!("{gap} ms")],
            },
            movement: String::new(),
            broken: vec![],
            told: vec![],
            prober_late: late,
        };
        let mut runs = Runs::default();
        runs.add(&outcome(28.0, 0), 1.5);
        runs.add(&outcome(90.0, 3), 2.5);
        let row = runs.row("node-killed");
        assert_eq!((row.gap.n, row.gap.max, row.gap.median, row.floor_p99, row.prober_late, row.broken), (2, 90.0, 28.0, 2.5, 1, 0));
        assert_eq!((row.p99_less_floor, row.suspended, row.longest), (87.5, 1, vec!["90 ms".to_owned()]));
    }
}
