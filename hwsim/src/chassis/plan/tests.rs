//! Chassis files: the shipped one, and mistakes with their places.

use super::*;

#[test]
fn the_shipped_shelf_is_the_one_that_the_design_names() {
    let plan = Plan::mxp();
    assert_eq!((plan.slots.len(), plan.fan.count, plan.supply.count, plan.fabrics.len()), (18, 5, 3, 2));
    assert_eq!(plan.named("mxp2".into()).chassis.as_str(), "mxp2");
    assert_eq!((Plan::atca().slots.len(), Plan::edge_box().slots.len()), (14, 2));
}

/// The shipped file with one line changed.
fn mistake(from: &str, to: &str) -> PlanError {
    let text = MXP.replacen(from, to, 1);
    assert_ne!(text, MXP, "{from:?} is in the file");
    Plan::parse("lab.yaml", &text).expect_err("a mistake")
}

#[test]
fn mistakes_are_shown_with_line_and_column() {
    let cases = [
        ("  count: 5", "  count: 50", "50 is not a count, 1 to 32"),
        ("  efficiency: 0.92", "  efficiency: 1.92", "1.92 is not a fraction above 0, at most 1"),
        ("  lag_seconds: 3", "  lag_seconds: 0", "0 is not a number above 0"),
        ("  lag_seconds: 3", "  lag_seconds: soon", "invalid floating point"),
        ("  lag_seconds: 3", "  lag_second: 3", "lag_second"),
        ("  inlet_celsius: 23", "  inlet_celsius: 2300", "2300 is not degrees Celsius"),
        ("  duty_percent: 40", "  duty_percent: 140", "140 is not a duty in percent, 0 to 100"),
        ("slots: [switch, proc", "slots: [swich, proc", "there is no board kind \"swich\" under `boards`"),
        ("slot_power_watts_max: 150", "slot_power_watts_max: 80", "draws up to 115 W, a slot gives 80 W"),
    ];
    for (from, to, expected) in cases {
        let error = mistake(from, to);
        assert!(error.diagnostic.message.contains(expected), "{error}");
        let place = error.diagnostic.place.as_ref().unwrap_or_else(|| panic!("no place: {error}"));
        assert_eq!(place.file, "lab.yaml");
        let line = error.diagnostic.excerpt.as_deref().unwrap_or_default();
        assert!(
            to.contains(line.trim()) || line.contains(to) || line.contains("switch"),
            "it shows the line in question: {error}"
        );
    }
}

#[test]
fn the_message_reads_like_a_page_of_the_manual() {
    let error = mistake("slots: [switch, proc", "slots: [swich, proc");
    let expected = "error[chassis-file]: there is no board kind \"swich\" under `boards`
  lab.yaml:63:9
  63 | slots: [swich, processor, processor, processor, processor, processor, line, line, line, line, line, line, line, line,
     |         ^^^^^
  help       did you mean \"switch\"?  (line, processor, switch, empty)";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_chassis_needs_slots_and_a_name() {
    for (branches, expected) in [
        ("[{ supplies: [1, 2, 3, 4], slots: [1] }]", "there is no supply 4, only 1 to 3"),
        ("[{ supplies: [1, 1], slots: [1] }]", "supply 1 is in two branches"),
        ("[{ supplies: [1, 2, 3], slots: [1, 2] }]", "slot 3 is in no branch"),
        ("[{ supplies: [1, 2, 3], slots: [0] }]", "there is no slot 0"),
    ] {
        let error = mistake("feeds: [A, A, B]", &format!("branches: {branches}"));
        assert!(error.diagnostic.message.contains(expected), "{error}");
    }
    assert!(mistake("feeds: [A, A, B]", "feeds: [A, B]").diagnostic.message.contains("2 feeds for 3 supplies"));
    assert!(mistake("chassis: mxp1", "chassis: mxp/1").diagnostic.message.contains("letters, digits and hyphens"));
    let start = MXP.find("slots: [").expect("there are slots");
    let error = Plan::parse("lab.yaml", &format!("{}slots: []\n", &MXP[..start])).expect_err("no slots");
    assert!(error.diagnostic.message.contains("1 to 64 slots"), "{error}");
}
