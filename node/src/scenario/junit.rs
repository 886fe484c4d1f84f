//! JUnit's XML, for the systems that read test results: a suite for each scenario, a case for each expectation.

use std::time::Duration;

use sixnines_hwsim::scenario::{Outcome, Verdict};

use super::Played;
use super::table::found;

/// The document.
pub(crate) fn xml(all: &[Played]) -> String {
    let tests: usize = all.iter().map(|played| played.report.outcomes.len()).sum();
    let failed: usize = all.iter().map(|played| played.report.broken()).sum();
    let took: Duration = all.iter().map(|played| played.took).sum();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    out.push_str(&format!("<testsuites name=\"nines sim run\" tests=\"{tests}\" failures=\"{failed}\" time=\"{:.3}\">\n", took.as_secs_f64()));
    for played in all {
        suite(&mut out, played);
    }
    out.push_str("</testsuites>\n");
    out
}

fn suite(out: &mut String, played: &Played) {
    let report = &played.report;
    let (tests, failed, took) = (report.outcomes.len(), report.broken(), played.took.as_secs_f64());
    out.push_str(&format!(
        "  <testsuite name=\"{}\" file=\"{}\" tests=\"{tests}\" failures=\"{failed}\" time=\"{took:.3}\">\n",
        escaped(&report.name),
        escaped(&report.file)
    ));
    for outcome in &report.outcomes {
        case(out, played, outcome);
    }
    if !report.trace.is_empty() {
        out.push_str(&format!("    <system-out>{}</system-out>\n", report.trace.iter().map(|line| escaped(line) + "\n").collect::<String>()));
    }
    out.push_str("  </testsuite>\n");
}

fn case(out: &mut String, played: &Played, outcome: &Outcome) {
    let name = format!("line {}: {}", outcome.line, outcome.text);
    let seconds = outcome.slowest.unwrap_or_default().as_secs_f64();
    out.push_str(&format!(
        "    <testcase classname=\"{}\" name=\"{}\" file=\"{}\" line=\"{}\" time=\"{seconds:.3}\"",
        escaped(&played.report.name),
        escaped(&name),
        escaped(&played.report.file),
        outcome.line
    ));
    if outcome.verdict == Verdict::Kept {
        out.push_str("/>\n");
    } else {
        let (kind, message) = (outcome.verdict.word(), escaped(&found(outcome)));
        out.push_str(&format!(">\n      <failure type=\"{kind}\" message=\"{message}\"/>\n    </testcase>\n"));
    }
}

/// For an attribute. What XML 1.0 cannot hold at all is left out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_scenario_says_cannot_break_the_document() {
        assert_eq!(escaped("a < \"b\" & c\n\u{1}"), "a &lt; &quot;b&quot; &amp; c&#10;");
    }
}
