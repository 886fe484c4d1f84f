//! `nines sim run --json`: one document, whose schema only grows within its number.

use serde_json::{Value, json};
use sixnines_hwsim::scenario::{Bar, Outcome, Verdict};

use super::Played;

/// The whole run.
pub(crate) fn document(all: &[Played]) -> Value {
    json!({
        "schema": "nines.sim-run/1",
        "good": all.iter().all(|played| played.report.is_good()),
        "scenarios": all.iter().map(scenario).collect::<Vec<_>>(),
    })
}

fn scenario(played: &Played) -> Value {
    let report = &played.report;
    let mut value = json!({
        "name": report.name,
        "file": report.file,
        "text": report.text,
        "good": report.is_good(),
        "lasted_s": report.lasted.as_secs_f64(),
        "took_s": played.took.as_secs_f64(),
        "events": report.events,
        "outcomes": report.outcomes.iter().map(outcome).collect::<Vec<_>>(),
        "alarms": report.recording.alarms.iter().map(bar).collect::<Vec<_>>(),
        "roles": report.recording.roles.iter().map(bar).collect::<Vec<_>>(),
        "story": report.story.iter().map(|line| json!({"at_s": line.at.as_secs_f64(), "text": line.text})).collect::<Vec<_>>(),
        "story_dropped": report.story_dropped,
    });
    // Absent: does not apply.
    if !report.trace.is_empty() {
        value["trace"] = json!(report.trace);
    }
    if let Some(policy) = &played.scenario.policy {
        value["policy"] = json!(policy);
    }
    value
}

fn outcome(outcome: &Outcome) -> Value {
    let mut value = json!({
        "line": outcome.line,
        "text": outcome.text,
        "verdict": outcome.verdict.word(),
        "tests": outcome.tests,
    });
    if let Some(slowest) = outcome.slowest {
        value["slowest_ms"] = json!(slowest.as_secs_f64() * 1000.0);
    }
    match &outcome.verdict {
        Verdict::Broken { at, got } => {
            value["at_s"] = json!(at.as_secs_f64());
            value["got"] = json!(got);
        }
        Verdict::Refused { at, why } => {
            value["at_s"] = json!(at.as_secs_f64());
            value["why"] = json!(why);
        }
        Verdict::Kept | Verdict::NotReached => {}
    }
    value
}

fn bar(bar: &Bar) -> Value {
    json!({
        "label": bar.label,
        "severity": bar.severity.to_string(),
        "from_s": bar.from.as_secs_f64(),
        "until_s": bar.until.as_secs_f64(),
    })
}
