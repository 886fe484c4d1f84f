//! The example that the product is about: fans fail, the others run faster, and everybody can ask why.

use super::shelf::{Shelf, node, shipped};
use crate::engine::{Control, Input};
use crate::event::Body;
use crate::history::Link;
use crate::ids::{ChassisName, NodeId};
use crate::time::Duration;
use crate::value::Value;

fn three_fans_fail(shelf: &mut Shelf) {
    for fan in 1..=3 {
        shelf.speed(fan, 100);
    }
    shelf.pass(Duration::from_millis(1100));
}

#[test]
fn three_failed_fans_drive_the_other_two_to_full_speed_and_the_line_is_in_the_chain() {
    let mut shelf = Shelf::running();
    three_fans_fail(&mut shelf);
    let asked = shelf.asked();
    for fan in ["/mxp1/fan4 duty 100", "/mxp1/fan5 duty 100"] {
        assert_eq!(asked.iter().filter(|a| *a == fan).count(), 1, "{asked:?}");
    }
    shelf.read("/mxp1/fan4", "duty", Value::Int(100));
    let chain = shelf.engine.history().why_object("/mxp1/fan4").expect("events of fan4 are known");
    assert_eq!(chain.missing().count(), 0);
    let request = shelf.engine.control("/mxp1/fan4", "duty").expect("a control with claims");
    let claim = &request.claims[0];
    let line = claim.policy.as_ref().expect("a policy claimed it");
    let text = shipped().files["fan.rhai"].lines().nth(line.line as usize - 1).expect("the line is there").to_owned();
    assert!(text.contains("f.claim(\"duty\", 100"), "{line}: {text}");
    let why = shelf.engine.history().why(claim.event);
    let steps: Vec<String> = why
        .links
        .iter()
        .map(|l| match l {
            Link::Known(e) => format!("{} {}", e.object, e.attribute),
            Link::Missing(id) => format!("missing {id}"),
        })
        .collect();
    assert_eq!(steps, ["/mxp1/fan1 speed", "/mxp1/fan1 state", "/mxp1/fan4 duty"]);
    assert_eq!(why.links.len(), 3);
}

#[test]
fn every_alarm_of_the_example_is_raised_once() {
    let mut shelf = Shelf::running();
    three_fans_fail(&mut shelf);
    assert_eq!(
        shelf.alarm_steps(),
        ["/mxp1/fan1 fan-failed raised", "/mxp1/fan2 fan-failed raised", "/mxp1/fan3 fan-failed raised"]
    );
    assert_eq!(shelf.controls, [], "two fans still turn");
}

#[test]
fn a_fourth_failed_fan_moves_the_services_away_with_its_cause() {
    let mut shelf = Shelf::running();
    three_fans_fail(&mut shelf);
    shelf.speed(4, 0);
    shelf.pass(Duration::from_millis(1100));
    let [action] = shelf.controls.as_slice() else { panic!("{:?}", shelf.controls) };
    assert_eq!(action.what, Control::EvacuateChassis(ChassisName::new("mxp1")));
    let intent = shelf.engine.history().get(action.cause).expect("its event came first");
    assert_eq!(intent.body, Body::Control);
    assert!(intent.policy.as_ref().is_some_and(|p| &*p.file == "fan.rhai"));
    let chain = shelf.engine.history().why(action.cause);
    assert_eq!(chain.known().next().map(|e| e.object.as_str().to_owned()), Some("/mxp1/fan4".into()));
}

#[test]
fn an_unchanged_reading_is_nothing() {
    let mut shelf = Shelf::running();
    shelf.speed(1, 5000);
    assert_eq!(shelf.events.len(), 0);
}

#[test]
fn a_short_dip_within_the_hold_off_is_no_failure() {
    let mut shelf = Shelf::running();
    shelf.speed(1, 100);
    shelf.pass(Duration::from_millis(900));
    shelf.speed(1, 5000);
    shelf.pass(Duration::from_millis(1500));
    assert_eq!(shelf.alarm_steps(), Vec::<String>::new());
}

#[test]
fn a_successor_keeps_claims_and_alarm_ids_and_asks_for_the_levels_again() {
    let mut first = Shelf::running();
    three_fans_fail(&mut first);
    let ids: Vec<_> = first.engine.alarms().map(|(k, a)| (k.kind.clone(), a.id)).collect();
    let mut second = Shelf::with(&shipped(), 2);
    second.own(2, first.saved_list());
    let after: Vec<_> = second.engine.alarms().map(|(k, a)| (k.kind.clone(), a.id)).collect();
    assert_eq!(ids, after);
    assert!(ids.iter().all(|(_, id)| id.is_some_and(|id| id.node == NodeId(1))));
    let mut asked = second.asked();
    asked.sort();
    assert!(asked.contains(&"/mxp1/fan4 duty 100".into()) && asked.contains(&"/mxp1/fan5 duty 100".into()), "{asked:?}");
    assert!(second.requests.iter().all(|r| r.epoch.0 == 2));
    // Its own readings confirm what it was told: nothing is raised anew.
    second.forget();
    for fan in 1..=5 {
        second.speed(fan, if fan <= 3 { 100 } else { 5000 });
    }
    second.pass(Duration::from_secs(2));
    let confirmed: Vec<_> = second.engine.alarms().map(|(k, a)| (k.kind.clone(), a.id)).collect();
    assert_eq!(ids, confirmed);
    assert!(second.engine.alarms().all(|(_, a)| !a.stale && a.confirm_by.is_none()));
}

#[test]
fn when_all_fans_turn_again_nobody_holds_them_and_they_rest() {
    let mut shelf = Shelf::running();
    three_fans_fail(&mut shelf);
    for fan in 1..=3 {
        shelf.speed(fan, 5000);
        shelf.pass(Duration::from_millis(1100));
        let held = shelf.engine.control("/mxp1/fan5", "duty").is_some_and(|c| !c.claims.is_empty());
        assert_eq!(held, fan < 3, "fan5 runs fast for as long as one is failed");
        let own = shelf.engine.control("/mxp1/fan1", "duty").is_some_and(|c| !c.claims.is_empty());
        assert_eq!(own, fan < 3, "fan1, back again, runs fast too");
        for fan in 1..=5 {
            let rpm = shelf.value(&format!("/mxp1/fan{fan}"), "speed");
            shelf.read(&format!("/mxp1/fan{fan}"), "speed", rpm.expect("read a second ago"));
        }
    }
    for fan in 1..=5 {
        // The last one to come back was never asked to run faster, so nothing was ever asked of it.
        let control = shelf.engine.control(&format!("/mxp1/fan{fan}"), "duty").cloned();
        let (claims, asked) = control.map_or((0, Some(Value::Int(40))), |c| (c.claims.len(), c.asked));
        assert_eq!((claims, asked), (0, Some(Value::Int(40))), "fan{fan}");
    }
    shelf.pass(Duration::from_millis(1500));
    assert!(shelf.engine.alarms().all(|(_, a)| !a.is_active() || matches!(a.phase, crate::engine::Phase::Clearing(_))));
}

#[test]
fn a_cold_start_into_failed_fans_neither_guesses_nor_forgets() {
    let mut shelf = Shelf::with(&shipped(), 1);
    shelf.own(1, Vec::new());
    for fan in 1..=5 {
        shelf.speed(fan, if fan <= 3 { 100 } else { 5000 });
    }
    assert_eq!(shelf.controls, [], "unread fans are not lost fans");
    for fan in [4, 5] {
        let control = shelf.engine.control(&format!("/mxp1/fan{fan}"), "duty").expect("claimed");
        assert_eq!(control.asked, Some(Value::Int(100)));
    }
}

#[test]
fn only_the_owner_runs_policies_and_hears_of_drivers() {
    let mut shelf = Shelf::running();
    shelf.input(Input::NotOwner { group: crate::domain::config::chassis_group("mxp1"), epoch: crate::ids::Epoch(2), active: Some(node(2)) });
    shelf.forget();
    three_fans_fail(&mut shelf);
    assert_eq!(shelf.events.len(), 0);
    assert_eq!(shelf.requests, []);
    assert_eq!(shelf.engine.owner_of("/mxp1/fan1"), Some(NodeId(2)));
}
