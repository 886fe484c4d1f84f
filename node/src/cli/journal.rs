//! `nines journal`: a node's journal, read where it lies. No daemon is needed: it is for the time after.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use serde::Serialize;
use sixnines_core::class::Pattern;
use sixnines_core::event::Event;
use sixnines_core::journal::record::Tail;
use sixnines_core::journal::replay::{Heard, Report, heard, replay};

use super::render;
use crate::api::{EventRow, Failure, Reply};
use crate::daemon::journal::{SEGMENT, segments};

/// What was found in one segment.
#[derive(Debug, Serialize)]
struct Row {
    file: String,
    inputs: u64,
    events: usize,
    /// Events of other nodes that it recorded.
    heard: usize,
    /// The replay came to the same decisions as the node had, byte for byte.
    proven: bool,
    /// What is wrong with it, or worth knowing.
    #[serde(skip_serializing_if = "Option::is_none")]
    remark: Option<String>,
}

/// Replays every segment and compares.
pub(crate) fn check(place: &Path, json: bool) -> ExitCode {
    let files = match files(place) {
        Ok(files) => files,
        Err(failure) => return render::refuse(&failure, json),
    };
    let rows: Vec<Row> = files.iter().map(|file| judge(file)).collect();
    let is_proven = rows.iter().all(|row| row.proven);
    if json {
        println!("{}", serde_json::json!({"schema": "nines.journal-check/1", "proven": is_proven, "segments": rows}));
    } else {
        let lines = rows.iter().map(|row| {
            let verdict = if row.proven { "proven" } else { "NOT proven" };
            vec![row.file.clone(), row.inputs.to_string(), row.events.to_string(), row.heard.to_string(), verdict.to_owned(), row.remark.clone().unwrap_or_default()]
        });
        print!("{}", render::table(&["SEGMENT", "INPUTS", "EVENTS", "HEARD", "REPLAY", ""], lines.collect()));
    }
    if is_proven { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// Prints the newest events of a journal.
pub(crate) fn show(place: &Path, pattern: &str, last: usize, json: bool) -> ExitCode {
    let events = files(place).and_then(|files| {
        let mut events: Vec<Arc<Event>> = Vec::new();
        for file in &files {
            let report = read(file).map_err(|why| bad(format!("{}: {why}", file.display())))?;
            events.extend(report.events);
        }
        Ok(events)
    });
    let events = match events {
        Ok(events) => events,
        Err(failure) => return render::refuse(&failure, json),
    };
    let pattern = Pattern::new(pattern);
    let rows: Vec<_> = events.iter().filter(|e| pattern.matches(e.object.as_str())).map(|e| EventRow::of(e)).collect();
    let rows = rows[rows.len().saturating_sub(last)..].to_vec();
    let reply = Reply::Events(rows);
    if json {
        println!("{}", serde_json::to_string(&reply).unwrap_or_default());
    } else {
        print!("{}", render::text(&reply));
    }
    ExitCode::SUCCESS
}

fn judge(file: &Path) -> Row {
    let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    match read(file) {
        Err(why) => Row { file: name, inputs: 0, events: 0, heard: 0, proven: false, remark: Some(why) },
        Ok(report) => {
            let torn = match report.tail {
                Tail::Torn { excess } => Some(format!("ends with {excess} torn bytes")),
                Tail::Clean | Tail::Damaged { .. } => None,
            };
            let diverged = report.diverged.map(|d| format!("input {} came to something else: {:08x}, the node had {:08x}", d.input, d.found, d.expected));
            Row { file: name, inputs: report.inputs, events: report.events.len(), heard: count_heard(file), proven: diverged.is_none(), remark: diverged.or(torn) }
        }
    }
}

fn count_heard(file: &Path) -> usize {
    let heard = fs::read(file).ok().and_then(|bytes| heard(&bytes).ok()).unwrap_or_default();
    heard.iter().filter(|h| matches!(h, Heard::Event(_))).count()
}

fn read(file: &Path) -> Result<Report, String> {
    let bytes = fs::read(file).map_err(|e| e.to_string())?;
    replay(&bytes, None).map_err(|e| e.to_string())
}

/// One segment, or those of a directory.
fn files(place: &Path) -> Result<Vec<PathBuf>, Failure> {
    if place.is_file() {
        return Ok(vec![place.to_owned()]);
    }
    let found = segments(place).map_err(|e| bad(format!("cannot read {}: {e}", place.display())))?;
    if found.is_empty() {
        return Err(bad(format!("{} has no *.{SEGMENT} in it", place.display())));
    }
    Ok(found.into_iter().map(|segment| segment.path).collect())
}

fn bad(message: String) -> Failure {
    Failure { code: "no-journal".into(), message, help: Some("nines journal check STATE/journal".into()), exit: 2 }
}
