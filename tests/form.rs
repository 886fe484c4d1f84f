//! `nines bench form`: a chassis of a few real daemons forms, is quiet, and is told of.

use std::process::{Command, Stdio};

use serde_json::Value;

#[test]
fn a_chassis_forms_and_is_quiet_and_the_report_says_how_soon() {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("form.json");
    let arguments = ["bench", "form", "--nodes", "6", "--seconds", "2", "--profile", "lan", "--json", file.to_str().expect("text")];
    let output = Command::new(env!("CARGO_BIN_EXE_nines")).args(arguments).stdin(Stdio::null()).output().expect("nines runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&std::fs::read(&file).expect("a report")).expect("JSON");
    assert_eq!((report["bench"].as_str(), report["profile"].as_str()), (Some("form"), Some("lan")));
    let row = |name: &str| report["rows"].as_array().and_then(|rows| rows.iter().find(|r| r["name"] == name)).unwrap_or_else(|| panic!("no {name} in {report}")).clone();
    let value = |name: &str| row(name)["max"].as_f64().expect("a number");
    assert!(value("formed/leader") > 0.0 && value("formed/leader") <= value("formed"), "{report}");
    assert!(value("formed/members") <= value("formed") && value("formed/roles") <= value("formed"), "{report}");
    assert_eq!((row("quiet/pss")["n"].as_u64(), row("quiet/cpu")["n"].as_u64()), (Some(6), Some(12)));
    // How quiet it is depends on who else is on the machine: the rows are there, and a bench's reader judges.
    for name in ["quiet/role-changes", "quiet/suspensions", "quiet/entries", "quiet/leaders"] {
        assert!(value(name) >= 0.0, "{name}");
    }
}
