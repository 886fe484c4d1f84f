//! What the demo found: the verdict on each step, the file, the table.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::client::Seen;
use super::lab::Mode;
use crate::loadgen::machine::ReadBack;

/// The file that `nines demo --json FILE` writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DemoReport {
    /// Whether every promise was kept.
    pub(crate) ok: bool,
    /// What the world was made of.
    pub(crate) mode: Mode,
    /// The steps that ran, in order.
    pub(crate) steps: Vec<StepReport>,
}

/// One step, as the file has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StepReport {
    /// As `--steps` takes it.
    pub(crate) name: String,
    /// The client's longest gap between two answers around the fault.
    pub(crate) outage_ms: f64,
    /// Changes acknowledged during the step.
    pub(crate) acknowledged: u64,
    /// Acknowledged changes, of the whole run, that were found missing in this step.
    pub(crate) lost: u64,
    /// For how long two spoke or acted.
    pub(crate) two_actives_ms: f64,
    /// Leases that ran out without a takeover.
    pub(crate) suspensions: u64,
    /// Whether the service moved.
    pub(crate) moved: bool,
    /// The chain of causes.
    pub(crate) why: Vec<String>,
}

/// Whether a step is meant to move the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meant {
    /// To another node.
    Moves,
    /// It stays where it is.
    Stays,
}

/// Everything that was seen of one step.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// The step's name.
    pub(crate) name: &'static str,
    /// What was meant.
    pub(crate) meant: Meant,
    /// Who was active before, and after.
    pub(crate) active: (String, String),
    /// The client, once the service had taken its new form.
    pub(crate) fault: Seen,
    /// The client, after healing, of the same window.
    pub(crate) healed: Seen,
    /// The reading back after healing.
    pub(crate) read_back: ReadBack,
    /// For how long older actions were accepted by a chassis after newer ones.
    pub(crate) chassis_two_actives_ms: f64,
    /// Leases that ran out.
    pub(crate) suspensions: u64,
    /// The chain.
    pub(crate) why: Vec<String>,
    /// What the step itself found broken.
    pub(crate) broken: Vec<String>,
    /// Lines for people.
    pub(crate) told: Vec<String>,
}

/// A step with its verdict.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// For the file.
    pub(crate) report: StepReport,
    /// Such as `n1 -> n3`.
    pub(crate) movement: String,
    /// Promises that were not kept.
    pub(crate) broken: Vec<String>,
    /// Lines for people.
    pub(crate) told: Vec<String>,
    /// How often the prober itself was late.
    pub(crate) prober_late: u64,
}

/// Judges a step. Times are told, never judged, except that the service came back.
pub(crate) fn judge(facts: Facts) -> Outcome {
    let Facts { name, meant, active, fault, healed, read_back, chassis_two_actives_ms, suspensions, why, mut broken, told } = facts;
    let frames = healed.frames.as_ref().map_or(0.0, |f| f.two_speakers_ms);
    let two_actives_ms = healed.client.two_actives_ms.max(frames).max(chassis_two_actives_ms);
    let moved = active.0 != active.1;
    match (meant, moved) {
        (Meant::Moves, false) => broken.push(format!("the service stayed on {}", active.0)),
        (Meant::Stays, true) => broken.push(format!("the service moved from {} to {}", active.0, active.1)),
        _ => {}
    }
    let sums = healed.client.sums;
    let mut count = |n: u64, what: &str| {
        if n > 0 {
            broken.push(format!("{n} {what}"));
        }
    };
    count(sums.lost, "acknowledged changes are lost");
    count(sums.doubled, "changes were applied twice");
    count(sums.given_up, "requests were never answered");
    count(read_back.unread, "calls could not be read back");
    if two_actives_ms > 0.0 {
        broken.push(format!("two actives for {two_actives_ms:.3} ms"));
    }
    if sums.acknowledged == 0 {
        broken.push("nothing was acknowledged".to_owned());
    }
    if why.is_empty() {
        broken.push("the domain cannot say why".to_owned());
    }
    let movement = match (meant, moved) {
        (_, true) => format!("{} -> {}", active.0, active.1),
        (Meant::Stays, false) => "nothing, as meant".to_owned(),
        (Meant::Moves, false) => "nothing".to_owned(),
    };
    let report = StepReport {
        name: name.to_owned(),
        outage_ms: rounded(fault.client.outage_ms),
        acknowledged: sums.acknowledged,
        lost: sums.lost,
        two_actives_ms: rounded_up(two_actives_ms),
        suspensions,
        moved,
        why,
    };
    Outcome { report, movement, broken, told, prober_late: sums.late }
}

/// Microseconds are enough for people.
pub(crate) fn rounded(ms: f64) -> f64 {
    (ms * 1000.0).round() / 1000.0
}

/// The same, but what is not zero stays not zero.
fn rounded_up(ms: f64) -> f64 {
    (ms * 1000.0).ceil() / 1000.0
}

impl DemoReport {
    /// The file's content.
    pub(crate) fn new(mode: Mode, outcomes: &[Outcome]) -> Self {
        let ok = !outcomes.is_empty() && outcomes.iter().all(|o| o.broken.is_empty());
        Self { ok, mode, steps: outcomes.iter().map(|o| o.report.clone()).collect() }
    }
}

/// The table at the end.
pub(crate) fn table(outcomes: &[Outcome]) -> String {
    let mut text = format!("{:<15} {:<19} {:>9} {:>13} {:>5} {:>12}\n", "STEP", "MOVED", "GAP", "ACKNOWLEDGED", "LOST", "TWO ACTIVES");
    for outcome in outcomes {
        let report = &outcome.report;
        let gap = format!("{:.0} ms", report.outage_ms);
        let two = match report.two_actives_ms {
            0.0 => "0 ms".to_owned(),
            some => format!("{some:.3} ms"),
        };
        let written = writeln!(
            text,
            "{:<15} {:<19} {gap:>9} {:>13} {:>5} {two:>12}",
            report.name,
            outcome.movement,
            grouped(report.acknowledged),
            report.lost
        );
        debug_assert!(written.is_ok(), "writing into a String does not fail");
    }
    text
}

/// `11480` as `11 480`.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;
