//! Claims: the strongest wins, leases end, levels are repeated, edges are not.

use proptest::prelude::*;

use super::shelf::{Shelf, shipped};
use crate::authority::AccessRole;
use crate::engine::CommandBody;
use crate::ids::{AttributeName, ObjectName};
use crate::time::Duration;
use crate::value::{Outcome, Value};

fn claim(value: i64, priority: i32, lease: u64) -> CommandBody {
    CommandBody::Claim {
        object: ObjectName::new("/mxp1/fan1"),
        control: AttributeName::new("duty"),
        value: Value::Int(value),
        reason: "test".into(),
        priority: Some(priority),
        lease: Some(Duration::from_secs(lease)),
    }
}

fn reset() -> CommandBody {
    CommandBody::Operate { object: ObjectName::new("/mxp1/slot3"), operation: AttributeName::new("reset"), reason: "test".into() }
}

proptest! {
    /// Whatever the order in which claims come, the same one wins: the highest priority, then the safest value.
    #[test]
    fn the_order_of_claims_does_not_matter(claims in prop::collection::vec((0i64..=100, 1i32..4), 1..8), shift in 0usize..8) {
        let outcome = |order: &[(i64, i32)]| {
            let mut shelf = Shelf::running();
            for (i, (value, priority)) in order.iter().enumerate() {
                shelf.input(crate::engine::Input::Command(crate::engine::Command {
                    id: crate::engine::CommandId(1000 + i as u128),
                    principal: crate::authority::Principal { name: format!("p{value}-{priority}").into(), role: AccessRole::Operator },
                    cause: None,
                    expected_version: None,
                    body: claim(*value, *priority, 600),
                }));
            }
            shelf.engine.control("/mxp1/fan1", "duty").and_then(|c| c.asked.clone())
        };
        let mut turned = claims.clone();
        turned.rotate_left(shift % claims.len());
        let best = claims.iter().max_by_key(|(value, priority)| (*priority, *value)).map(|(value, _)| Value::Int(*value));
        prop_assert_eq!(outcome(&claims), best.clone());
        prop_assert_eq!(outcome(&turned), best);
    }
}

#[test]
fn the_safe_value_follows_a_claim_whose_owner_is_gone() {
    let mut shelf = Shelf::running();
    shelf.command(AccessRole::Operator, claim(20, 400, 30)).expect("operators claim");
    assert_eq!(shelf.asked(), ["/mxp1/fan1 duty 20"]);
    shelf.pass(Duration::from_secs(31));
    assert_eq!(shelf.asked().into_iter().filter(|a| a.starts_with("/mxp1/fan1")).collect::<Vec<_>>()[..2], ["/mxp1/fan1 duty 20", "/mxp1/fan1 duty 100"]);
}

#[test]
fn a_released_control_goes_to_rest() {
    let mut shelf = Shelf::running();
    shelf.command(AccessRole::Operator, claim(90, 400, 30)).expect("operators claim");
    let release = CommandBody::Release { object: ObjectName::new("/mxp1/fan1"), control: AttributeName::new("duty") };
    shelf.command(AccessRole::Operator, release).expect("her own claim");
    assert_eq!(shelf.asked(), ["/mxp1/fan1 duty 90", "/mxp1/fan1 duty 40"]);
}

#[test]
fn a_level_that_failed_is_asked_again_and_alarmed_until_it_is_done() {
    let mut shelf = Shelf::running();
    shelf.obedient = false;
    shelf.command(AccessRole::Operator, claim(90, 400, 600)).expect("operators claim");
    let id = shelf.requests[0].id;
    shelf.input(crate::engine::Input::Outcome { request: id, outcome: Outcome::Unknown });
    assert!(shelf.alarm_steps().contains(&"/mxp1/fan1 control-failed raised".into()));
    shelf.pass(Duration::from_millis(1100));
    assert_eq!(shelf.requests.len(), 2);
    assert_eq!(shelf.requests[1].id, id, "a repeat bears the same id");
    shelf.input(crate::engine::Input::Outcome { request: id, outcome: Outcome::Done });
    assert!(shelf.alarm_steps().contains(&"/mxp1/fan1 control-failed cleared".into()));
}

#[test]
fn an_edge_is_never_repeated_by_a_successor() {
    let mut first = Shelf::running();
    first.obedient = false;
    first.command(AccessRole::Operator, reset()).expect("operators reset");
    assert_eq!(first.asked(), ["/mxp1/slot3 reset once"]);
    let mut second = Shelf::with(&shipped(), 2);
    second.own(2, first.saved_list());
    assert!(second.asked().iter().all(|a| !a.contains("reset")), "{:?}", second.asked());
    assert_eq!(second.alarm_steps(), ["/mxp1/slot3 action-outcome-unknown raised"]);
}

#[test]
fn an_edge_whose_outcome_is_known_leaves_nothing_to_the_successor() {
    let mut first = Shelf::running();
    first.command(AccessRole::Operator, reset()).expect("operators reset");
    let mut second = Shelf::with(&shipped(), 2);
    second.own(2, first.saved_list());
    assert_eq!(second.alarm_steps(), Vec::<String>::new());
}

#[test]
fn a_command_given_twice_is_done_once_and_answered_twice() {
    let mut shelf = Shelf::running();
    let command = crate::engine::Command {
        id: crate::engine::CommandId(77),
        principal: crate::authority::Principal { name: "ann".into(), role: AccessRole::Operator },
        cause: None,
        expected_version: None,
        body: reset(),
    };
    shelf.input(crate::engine::Input::Command(command.clone()));
    shelf.input(crate::engine::Input::Command(command));
    assert_eq!(shelf.asked(), ["/mxp1/slot3 reset once"]);
    assert_eq!(shelf.replies.len(), 2);
    assert_eq!(shelf.replies[0], shelf.replies[1]);
}
