//! Results for people: a line for each scenario, failures in detail, a last line with the sum.

use std::time::Duration;

use sixnines_hwsim::scenario::{Outcome, Report, Verdict};

use super::Played;

/// What stands over the lines.
pub(crate) fn headline() -> String {
    format!("{:<8}  {:>9}  {:>5}  {:>6}  SCENARIO\n", "RESULT", "LASTED", "KEPT", "EVENTS")
}

/// One scenario. Its name comes last: names are never cut.
pub(crate) fn row(played: &Played) -> String {
    let report = &played.report;
    let kept = format!("{}/{}", report.outcomes.len() - report.broken(), report.outcomes.len());
    let result = if report.is_good() { "kept" } else { "NOT kept" };
    format!("{result:<8}  {:>9}  {kept:>5}  {:>6}  {}\n", lasted(report.lasted), report.events, report.name)
}

/// Everything that was not kept, with what was found instead.
pub(crate) fn failures(report: &Report) -> String {
    let mut out = String::new();
    for outcome in report.outcomes.iter().filter(|outcome| outcome.verdict != Verdict::Kept) {
        out.push_str(&format!("  expected  {}\n    {}:{}\n    {}\n", outcome.text, report.file, outcome.line, found(outcome)));
    }
    if !report.trace.is_empty() {
        out.push_str(&format!("  the last {} lines of what happened, times in ms since the domain's start\n", report.trace.len()));
        report.trace.iter().for_each(|line| out.push_str(&format!("    {line}\n")));
    }
    out
}

/// What was found instead, as one sentence.
pub(crate) fn found(outcome: &Outcome) -> String {
    match &outcome.verdict {
        Verdict::Kept => "kept".to_owned(),
        Verdict::Broken { at, got } if outcome.tests > 1 => format!("at {}  got {got}  (one of {} times)", seconds(*at), outcome.tests),
        Verdict::Broken { at, got } => format!("at {}  got {got}", seconds(*at)),
        Verdict::NotReached => "its moment never came, so nothing was tested".to_owned(),
        Verdict::Refused { at, why } => format!("at {}  refused: {why}", seconds(*at)),
    }
}

/// What happened, in order.
pub(crate) fn story(report: &Report) -> String {
    let mut out: String = report.story.iter().map(|line| format!("  {:>12}  {}\n", seconds(line.at), line.text)).collect();
    if report.story_dropped > 0 {
        out.push_str(&format!("  and {} more lines, which are not kept\n", report.story_dropped));
    }
    out
}

/// The sum.
pub(crate) fn total(all: &[Played]) -> String {
    let good = all.iter().filter(|played| played.report.is_good()).count();
    let virtual_time: Duration = all.iter().map(|played| played.report.lasted).sum();
    let took: Duration = all.iter().map(|played| played.took).sum();
    let word = if all.len() == 1 { "scenario" } else { "scenarios" };
    format!("{good} of {} {word} kept; {} in {:.1} s\n", all.len(), lasted(virtual_time), took.as_secs_f64())
}

/// `3 m 20 s`, `1 d 2 h`: two units, as people say it.
pub(crate) fn lasted(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{} s", seconds),
        (0, 0, _) => format!("{minutes} m {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} m"),
        _ => format!("{days} d {hours} h"),
    }
}

/// As exact as it has to be: a chassis moves in tenths of a second, a domain in milliseconds.
fn seconds(at: Duration) -> String {
    let digits = if at.subsec_nanos().is_multiple_of(100_000_000) { 1 } else { 4 };
    format!("{:.digits$} s", at.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_in_two_units() {
        let said: Vec<String> = [9, 61, 3600, 90_061].into_iter().map(|s| lasted(Duration::from_secs(s))).collect();
        assert_eq!(said, ["9 s", "1 m 1 s", "1 h 0 m", "1 d 1 h"]);
    }
}
