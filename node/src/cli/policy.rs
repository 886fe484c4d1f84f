//! `nines policy check`, and reading a directory of policies. No daemon is needed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use sixnines_core::bundle::compile_bundle;
use sixnines_core::domain::config::Bundle;

use crate::api::Failure;
use crate::config::load_bundle;

/// The files of a directory, by name.
pub(crate) fn read(dir: &Path) -> Result<BTreeMap<String, String>, Failure> {
    match load_bundle(dir) {
        Ok(bundle) if bundle.files.is_empty() => Err(bad(format!("there are no policies in {}", dir.display()))),
        Ok(bundle) => Ok(bundle.files),
        Err(error) => Err(bad(format!("{error:#}"))),
    }
}

/// Prints everything that is wrong; nothing is loaded anywhere.
pub(crate) fn check(dir: &Path, json: bool) -> ExitCode {
    let files = match read(dir) {
        Ok(files) => files,
        Err(failure) => return super::render::refuse(&failure, json),
    };
    let count = files.len();
    let (diagnostics, is_good) = match compile_bundle(&Bundle { files }) {
        Ok(compiled) => (compiled.warnings.clone(), true),
        Err(diagnostics) => (diagnostics, false),
    };
    if json {
        println!("{}", serde_json::json!({"schema": "nines.policy-check/1", "good": is_good, "files": count, "diagnostics": diagnostics}));
    } else {
        for diagnostic in &diagnostics {
            println!("{diagnostic}");
        }
        println!("{count} files, {} {}: {}", diagnostics.len(), if diagnostics.len() == 1 { "remark" } else { "remarks" }, if is_good { "good" } else { "nothing would be loaded" });
    }
    if is_good { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn bad(message: String) -> Failure {
    Failure { code: "no-policies".into(), message, help: Some("nines policy check DIR".into()), exit: 2 }
}
