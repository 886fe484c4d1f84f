//! How answers look to people: 80 columns where it can be, names never cut, ASCII, no colour needed.

use std::process::ExitCode;

use sixnines_core::ids::NodeId;

use crate::api::{AlarmRow, EventRow, Failure, FeatureReport, InLog, LimitRow, ObjectRow, Reply, Status, WhyStory};

/// The answer as text for people.
pub(crate) fn text(reply: &Reply) -> String {
    match reply {
        Reply::Status(status) => self::status(status),
        Reply::Objects(rows) => objects(rows),
        Reply::Events(rows) => rows.iter().map(event).collect(),
        Reply::Event(row) => event(row),
        Reply::Missed(m) => format!("-- {} events were not taken in time, {} to {}: nines events --last N\n", m.count, m.first, m.last),
        Reply::Why(story) => why(story),
        Reply::Alarms(rows) => alarms(rows),
        Reply::Faults(value) => faults(value),
        Reply::Policies { generation, files } => {
            let rows = files.iter().map(|f| vec![f.file.clone(), f.bytes.to_string()]).collect();
            format!("generation {generation} is in force\n{}", table(&["FILE", "BYTES"], rows))
        }
        Reply::Limits(rows) => limits(rows),
        Reply::Feature(report) => feature(report),
        Reply::Invited(invited) => format!(
            "{}\n  It makes one machine {}, once, until {} UTC. On that machine:\n  nines join TOKEN --dir DIR\n",
            invited.token, invited.node, invited.expires
        ),
        Reply::Admitted(admitted) => format!("admission {}\n", admitted.admission),
        Reply::Done { text } => format!("{text}\n"),
        Reply::Failed(failure) => self::failure(failure),
    }
}

/// What happens at a bound is in the JSON and in the manual: it does not fit a line.
fn limits(rows: &[LimitRow]) -> String {
    let used = |row: &LimitRow| row.used.map_or_else(|| "unknown".to_owned(), |used| used.to_string());
    let bound = |row: &LimitRow| if row.bound == row.default { row.bound.to_string() } else { format!("{} (else {})", row.bound, row.default) };
    let cells = rows.iter().map(|row| vec![row.name.clone(), used(row), bound(row), format!("{}..{}", row.min, row.max)]).collect();
    table(&["LIMIT", "USED", "BOUND", "RANGE"], cells)
}

fn feature(report: &FeatureReport) -> String {
    let reads = |reads: Option<u8>| reads.map_or_else(|| "unknown: it is not there".to_owned(), |level| format!("up to {level}"));
    let rows = report.nodes.iter().map(|row| vec![row.node.to_string(), reads(row.reads)]).collect();
    let next = match report.next {
        None => "no member reads a higher one".to_owned(),
        Some(next) if report.hindered_by.is_empty() => format!("level {next} is read by every member    nines feature raise"),
        Some(next) => format!("level {next} has to wait: {}", report.hindered_by.join(", ")),
    };
    format!("feature level {} is in force\n{}next    {next}\n", report.level, table(&["NODE", "READS"], rows))
}

/// A refusal or mistake, with what would be right.
pub(crate) fn failure(failure: &Failure) -> String {
    let mut out = format!("error[{}]: {}\n", failure.code, failure.message);
    if let Some(help) = &failure.help {
        out.push_str(&format!("  help  {help}\n"));
    }
    if failure.exit == 2 || failure.exit == 4 {
        out.push_str("  Nothing was changed.\n");
    }
    out
}

/// Says why nothing was done, on standard error or as JSON; the failure's exit code.
pub(crate) fn refuse(failure: &Failure, json: bool) -> ExitCode {
    if json {
        println!("{}", serde_json::json!({"error": failure, "changed": false}));
    } else {
        eprint!("{}", self::failure(failure));
    }
    ExitCode::from(failure.exit)
}

fn status(status: &Status) -> String {
    let serving = if status.is_serving { "serving" } else { "NOT serving" };
    let redundant = if status.is_redundant { "redundant" } else { "NOT redundant" };
    let mut out = format!("{}: {serving}, {redundant}    {} by {}, profile {}, level {}\n", status.domain, status.at, status.node, status.profile, status.feature_level);
    for row in status.services.iter().chain(&status.chassis).filter(|r| !r.is_serving || r.wants_standby && r.standby.is_empty()) {
        let what = match &row.waits {
            Some(waits) => format!("waits: {waits}"),
            None if row.is_serving => "has no standby in sync".to_owned(),
            None => "has no active that can speak".to_owned(),
        };
        out.push_str(&format!("  why   {} {what}.  To follow: nines why {}\n", row.name, row.name));
    }
    if let Some(why) = &status.undecided {
        out.push_str(&format!("  why   {why}\n"));
    }
    let rows = status.services.iter().chain(&status.chassis).map(|row| {
        let standby: Vec<String> = row.standby.iter().map(ToString::to_string).collect();
        vec![
            row.name.to_string(),
            row.active.map_or_else(|| "none".into(), |n| n.to_string()),
            if standby.is_empty() { "none".into() } else { standby.join(" ") },
            row.epoch.to_string(),
            row.if_active_dies.clone(),
        ]
    });
    out.push_str(&table(&["SERVICE", "ACTIVE", "STANDBY", "EPOCH", "IF THE ACTIVE DIES NOW"], rows.collect()));
    let rows = status.nodes.iter().map(|node| {
        let links: Vec<&str> = node.links.iter().map(|up| if *up { "up" } else { "DOWN" }).collect();
        vec![
            node.id.to_string(),
            node.chassis.clone(),
            node.state.clone(),
            if node.id == status.node { "this node".into() } else if links.is_empty() { "none".into() } else { links.join(" ") },
            match node.log {
                InLog::Votes if node.is_witness => if node.is_leader { "witness, leads".into() } else { "witness".into() },
                InLog::Votes if node.is_leader => "leads".into(),
                InLog::Votes => "votes".into(),
                InLog::Learns => "learns".into(),
                InLog::KeptOut => "KEPT OUT".into(),
                InLog::Unknown => String::new(),
            },
            node.certificate.clone().unwrap_or_else(|| "unknown".into()),
        ]
    });
    out.push_str(&table(&["NODE", "CHASSIS", "STATE", "LINKS", "LOG", "CERTIFICATE"], rows.collect()));
    for node in status.nodes.iter().filter(|n| n.log == InLog::KeptOut) {
        out.push_str(&format!("disk    {} came back with another disk, or an old image of its own, and is kept out    nines node replace {}\n", node.id, node.id));
    }
    for node in &status.nodes {
        let Some(serial) = &node.serial else { continue };
        let cut_off = if node.state == "cut off" { format!("{} is alive but cut off: no fabric carries anything from it.    nines why /nodes/{}", node.id, node.id) } else { String::new() };
        let says = if serial.says.is_empty() { String::new() } else { format!(": {}", serial.says) };
        let ends = if cut_off.is_empty() { "" } else { ".  " };
        out.push_str(&format!("serial  {} to {} is {}{says}{ends}{cut_off}\n", serial.device, node.id, serial.state));
    }
    for neighbour in &status.neighbours {
        let list = |nodes: &[NodeId]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let heard = if neighbour.heard.is_empty() { String::new() } else { format!(", heard: {}", list(&neighbour.heard)) };
        let silent = if neighbour.silent.is_empty() { String::new() } else { format!(", silent: {}", list(&neighbour.silent)) };
        out.push_str(&format!("abroad  {} is {}{heard}{silent}    nines ls '/neighbours/{}/**'\n", neighbour.domain, neighbour.state, neighbour.domain));
    }
    for feed in status.feeds.iter().filter(|f| f.behind > 0 || f.gaps > 0) {
        let lost = if feed.is_lost { ", out of reach" } else { "" };
        let missed = if feed.gaps == 0 { String::new() } else { format!("; missed {} ranges: nines events /nodes/{}/feed", feed.gaps, feed.node) };
        out.push_str(&format!("feed    {} is {} events behind{lost}{missed}\n", feed.node, feed.behind));
    }
    for node in status.nodes.iter().filter(|n| n.state == "expelled") {
        out.push_str(&format!("seat    {} was expelled, and its seat waits for another machine    nines node invite {}; if nobody comes: nines node forget {}\n", node.id, node.id, node.id));
    }
    let alarms: Vec<String> = status.alarms.iter().map(|(severity, count)| format!("{count} {severity}")).collect();
    if !alarms.is_empty() {
        out.push_str(&format!("alarms  {}    nines alarms\n", alarms.join(", ")));
    }
    for right in status.rights.iter().filter(|r| !r.got) {
        out.push_str(&format!("right   {} was asked for and refused: {}\n", right.name, right.means));
    }
    out
}

fn objects(rows: &[ObjectRow]) -> String {
    if let [row] = rows {
        return object(row);
    }
    let lines = rows.iter().map(|row| {
        let values: Vec<String> = row.attributes.iter().map(|(name, a)| format!("{name}={}", value(a))).collect();
        vec![row.name.clone(), row.class.clone(), values.join(" ")]
    });
    table(&["OBJECT", "CLASS", "ATTRIBUTES"], lines.collect())
}

fn object(row: &ObjectRow) -> String {
    let lines = row.attributes.iter().map(|(name, a)| {
        let age = if a.age_ms < 10_000 { format!("{} ms", a.age_ms) } else { format!("{} s", a.age_ms / 1000) };
        vec![name.clone(), value(a), a.unit.clone(), quality(a), age, a.claimed_by.clone().unwrap_or_default()]
    });
    format!("{}  {}\n{}", row.name, row.class, table(&["ATTRIBUTE", "VALUE", "UNIT", "QUALITY", "AGE", "CLAIMED BY"], lines.collect()))
}

fn value(row: &crate::api::AttributeRow) -> String {
    row.value.as_ref().map_or_else(|| "unknown".into(), ToString::to_string)
}

fn quality(row: &crate::api::AttributeRow) -> String {
    serde_json::to_value(row.quality).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn event(row: &EventRow) -> String {
    let policy = row.policy.as_ref().map(|p| format!("  policy {p}")).unwrap_or_default();
    let why = if row.why.is_empty() { String::new() } else { format!("  {}", row.why) };
    format!("{}  {:<10}  {} {}: {}{policy}{why}\n", row.at, row.id, row.object, row.attribute, row.text)
}

fn why(story: &WhyStory) -> String {
    let mut out = format!("{}\n", story.headline);
    let root = story.chain.first().map_or(0, |e| e.at_ns);
    for (index, row) in story.chain.iter().enumerate() {
        let at = if index == 0 { row.at.clone() } else { format!("{:>+9.1} ms", (row.at_ns as f64 - root as f64) / 1e6) };
        let policy = row.policy.as_ref().map(|p| format!("policy {p}, ")).unwrap_or_default();
        out.push_str(&format!("{at:>12}  {:<10}  {policy}{} {}: {}\n", row.id, row.object, row.attribute, row.text));
        if !row.why.is_empty() {
            out.push_str(&format!("{:26}{}\n", "", row.why));
        }
    }
    match story.missing.as_slice() {
        [] => out.push_str(&format!("missing       nothing, all {} causes are known\n", story.chain.len())),
        missing => {
            let ids: Vec<String> = missing.iter().map(ToString::to_string).collect();
            out.push_str(&format!("missing       {}: not known to this node\n", ids.join(", ")));
        }
    }
    out
}

fn alarms(rows: &[AlarmRow]) -> String {
    if rows.is_empty() {
        return "no alarms\n".into();
    }
    let lines = rows.iter().map(|a| {
        vec![a.severity.to_uppercase(), a.since.clone(), a.object.clone(), a.kind.clone(), [a.text.as_str(), a.note.as_str()].join(" ").trim().to_owned()]
    });
    table(&["SEVERITY", "SINCE", "OBJECT", "ALARM", ""], lines.collect())
}

fn faults(value: &serde_json::Value) -> String {
    let rows = value.as_array().map(Vec::as_slice).unwrap_or_default().iter().map(|row| {
        let text = |key: &str| row.get(key).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
        vec![text("name"), text("target"), text("help")]
    });
    table(&["FAULT", "TARGET", ""], rows.collect())
}

/// Columns as wide as their widest cell; the last one is not padded.
pub(crate) fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut widths: Vec<usize> = head.iter().map(|h| h.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let head: Vec<String> = head.iter().map(|h| (*h).to_owned()).collect();
    for row in std::iter::once(&head).chain(&rows) {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_wide_as_it_must_be_and_no_wider() {
        let rows = vec![vec!["n1".to_owned(), "up".to_owned()], vec!["n22".to_owned(), String::new()]];
        assert_eq!(table(&["NODE", "S"], rows), "NODE  S\nn1    up\nn22\n");
    }

    #[test]
    fn a_refusal_says_that_nothing_was_changed() {
        let failure = Failure { code: "not-in-sync".into(), message: "calls cannot move".into(), help: Some("wait".into()), exit: 4 };
        assert_eq!(self::failure(&failure), "error[not-in-sync]: calls cannot move\n  help  wait\n  Nothing was changed.\n");
    }
}
