//! Policies that take more than their part of an instant wait for the next one, and nothing is left out for it.

use super::shelf::{Shelf, shipped};
use crate::domain::config::Bundle;
use crate::engine::Input;
use crate::journal::replay::replay;
use crate::time::Duration;

/// Five fans with this policy; each hears of the others' speed.
fn fans(policy: &str) -> Shelf {
    let Bundle { mut files } = shipped();
    files.insert("fan.rhai".into(), policy.into());
    let class = files.get_mut("classes/fan.yaml").expect("it ships");
    *class = class.replace("hears: { fan: [state] }", "hears: { fan: [speed] }");
    let mut shelf = Shelf::with(&Bundle { files }, 1);
    shelf.own(1, Vec::new());
    shelf.forget();
    shelf
}

const BURNS: &str = "fn on_speed(fan, change) { loop { } } fn on_event(fan, event) { loop { } }";

#[test]
fn calls_that_burn_their_budgets_are_spread_over_instants() {
    let mut shelf = fans(BURNS);
    let before = shelf.engine.counts().calls;
    let calls = |shelf: &Shelf| shelf.engine.counts().calls - before;
    let now = shelf.now;
    shelf.speed(1, 5000);
    assert_eq!((calls(&shelf), shelf.engine.is_behind()), (4, true));
    assert_eq!(shelf.engine.poll_timeout(), Some(now + Duration::from_nanos(1)), "it goes on at once");
    shelf.speed(2, 5000);
    assert_eq!(calls(&shelf), 4, "what comes in the same instant is taken, and its policies wait");
    for expected in [8, 10] {
        shelf.now = shelf.engine.poll_timeout().expect("it is behind");
        shelf.input(Input::Timeout);
        assert_eq!(calls(&shelf), expected, "each of five fans has heard of both");
    }
    assert!(!shelf.engine.is_behind());
    assert_eq!(shelf.alarm_steps().iter().filter(|step| step.ends_with("policy-failed raised")).count(), 5);
    let report = replay(&shelf.journal, None).expect("its own journal");
    assert_eq!((report.diverged, report.engine.hash()), (None, shelf.engine.hash()));
}

#[test]
fn who_is_behind_goes_on_from_a_snapshot_where_it_was() {
    let mut shelf = fans(BURNS);
    shelf.speed(1, 5000);
    shelf.speed(2, 5000);
    shelf.journal = shelf.engine.begin_segment();
    while shelf.engine.is_behind() {
        shelf.now = shelf.engine.poll_timeout().expect("it is behind");
        shelf.input(Input::Timeout);
    }
    let report = replay(&shelf.journal, None).expect("its own journal");
    assert_eq!((report.diverged, report.engine.hash(), report.engine.is_behind()), (None, shelf.engine.hash(), false));
    assert_eq!(shelf.alarm_steps().iter().filter(|step| step.ends_with("policy-failed raised")).count(), 5);
}

#[test]
fn another_bundle_lets_nothing_go_that_policies_have_yet_to_see() {
    let mut shelf = fans(BURNS);
    shelf.speed(1, 5000);
    shelf.speed(2, 5000);
    let files = fans("fn on_speed(fan, change) { fan.log(`own ${change.now}`); } fn on_event(fan, event) { fan.log(`heard ${event.object}`); }");
    shelf.input(Input::Bundle(files.engine.world().compiled.clone()));
    shelf.forget();
    shelf.pass(Duration::from_millis(1));
    let count = |text: &str| shelf.events.iter().filter(|e| &*e.why == text).count();
    assert_eq!((count("heard /mxp1/fan1"), count("own 5000"), count("heard /mxp1/fan2")), (1, 1, 4), "what was left of the first, and all of the second");
}
