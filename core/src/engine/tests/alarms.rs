//! Alarms: idempotent, held off, unstable, suppressed, acknowledged, shelved.

use proptest::prelude::*;

use super::shelf::Shelf;
use crate::authority::AccessRole;
use crate::engine::{AlarmRef, CommandBody};
use crate::ids::ObjectName;
use crate::time::Duration;

fn alarm(object: &str, kind: &str) -> AlarmRef {
    AlarmRef { object: ObjectName::new(object), kind: kind.into(), qualifier: "".into() }
}

fn raise(shelf: &mut Shelf, object: &str, kind: &str) {
    shelf.command(AccessRole::Node, CommandBody::Raise { alarm: alarm(object, kind), text: "x".into() }).expect("allowed");
}

fn clear(shelf: &mut Shelf, object: &str, kind: &str) {
    shelf.command(AccessRole::Node, CommandBody::Clear { alarm: alarm(object, kind) }).expect("allowed");
}

proptest! {
    /// However often something is raised and cleared, at most one alarm is active, raised and cleared events alternate,
    /// and what is active in the end is what was said last.
    #[test]
    fn raising_and_clearing_alternate(steps in prop::collection::vec((any::<bool>(), 0u64..30_000), 1..60)) {
        let mut shelf = Shelf::running();
        let mut said = false;
        for (up, wait) in steps {
            if up { raise(&mut shelf, "/mxp1", "chassis-hot") } else { clear(&mut shelf, "/mxp1", "chassis-hot") }
            said = up;
            for fan in 1..=5 { shelf.speed(fan, 5000); }
            shelf.pass(Duration::from_millis(wait));
        }
        shelf.pass(Duration::from_secs(200));
        let told: Vec<String> = shelf.alarm_steps().into_iter().filter(|s| s.contains("chassis-hot")).collect();
        let mut up = false;
        for step in &told {
            if step.ends_with("raised") || step.ends_with("unstable") {
                prop_assert!(!up || step.ends_with("unstable"), "{told:?}");
                up = true;
            } else if step.ends_with("cleared") {
                prop_assert!(up, "{told:?}");
                up = false;
            }
        }
        let active = shelf.engine.alarms().filter(|(k, a)| &*k.kind == "chassis-hot" && a.is_active()).count();
        prop_assert_eq!(active, usize::from(said));
        prop_assert_eq!(up, said);
    }
}

#[test]
fn an_alarm_that_comes_and_goes_becomes_one_unstable_alarm_and_settles() {
    let mut shelf = Shelf::running();
    for _ in 0..10 {
        raise(&mut shelf, "/mxp1", "chassis-hot");
        shelf.pass(Duration::from_secs(1));
        clear(&mut shelf, "/mxp1", "chassis-hot");
        shelf.pass(Duration::from_secs(1));
    }
    shelf.pass(Duration::from_secs(120));
    let told: Vec<String> = shelf.alarm_steps().into_iter().filter(|s| s.contains("chassis-hot")).collect();
    let words: Vec<&str> = told.iter().map(|t| t.rsplit(' ').next().expect("three words")).collect();
    assert_eq!(words, ["raised", "cleared", "raised", "cleared", "raised", "cleared", "unstable", "settled", "cleared"]);
}

#[test]
fn a_failed_parent_explains_what_is_below_it_and_counts_it() {
    let mut bundle = super::shelf::shipped();
    bundle.files.insert(
        "classes/chassis.yaml".into(),
        "class: chassis\nattributes:\n  power: { type: int }\n  state: { from: power, normal: up, dead_below: 1 }\noperational: { from: state, disabled: dead }\n".into(),
    );
    bundle.files.remove("chassis.rhai");
    bundle.files.insert("classes/service.yaml".into(), "class: service\nnames: /services/*\n".into());
    bundle.files.remove("service.rhai");
    let mut shelf = Shelf::with(&bundle, 1);
    shelf.own(1, Vec::new());
    shelf.read("/mxp1", "power", crate::value::Value::Int(100));
    raise(&mut shelf, "/mxp1/fan1", "fan-failed");
    shelf.read("/mxp1", "power", crate::value::Value::Int(0));
    raise(&mut shelf, "/mxp1/fan2", "fan-failed");
    assert_eq!(shelf.engine.suppressed_below("/mxp1"), 2);
    shelf.read("/mxp1", "power", crate::value::Value::Int(100));
    assert_eq!(shelf.engine.suppressed_below("/mxp1"), 0);
    assert_eq!(
        shelf.alarm_steps(),
        [
            "/mxp1/fan1 fan-failed raised",
            "/mxp1/fan1 fan-failed suppressed",
            "/mxp1/fan2 fan-failed suppressed",
            "/mxp1/fan1 fan-failed shown",
            "/mxp1/fan2 fan-failed shown",
        ]
    );
}

#[test]
fn a_shelved_alarm_comes_back_by_itself() {
    let mut shelf = Shelf::running();
    raise(&mut shelf, "/mxp1", "chassis-hot");
    let shelve = CommandBody::Shelve { alarm: alarm("/mxp1", "chassis-hot"), expires: Duration::from_secs(30), text: "known".into() };
    shelf.command(AccessRole::Operator, shelve).expect("operators shelve");
    assert!(shelf.engine.alarms().all(|(_, a)| !a.is_shown()));
    shelf.pass(Duration::from_secs(31));
    assert!(shelf.engine.alarms().any(|(k, a)| &*k.kind == "chassis-hot" && a.is_shown()));
}

#[test]
fn what_is_not_raised_cannot_be_acknowledged() {
    let mut shelf = Shelf::running();
    let ack = CommandBody::Acknowledge { alarm: alarm("/mxp1", "chassis-hot"), text: "seen".into() };
    assert!(shelf.command(AccessRole::Operator, ack.clone()).is_err());
    raise(&mut shelf, "/mxp1", "chassis-hot");
    shelf.command(AccessRole::Operator, ack).expect("it is raised");
    assert!(shelf.engine.alarms().all(|(_, a)| a.acknowledged.as_ref().is_some_and(|(by, text)| &**by == "operator:ann" && text == "seen")));
}
