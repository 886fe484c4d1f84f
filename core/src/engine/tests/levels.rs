//! Who comes late is told how things are, once.

use super::shelf::Shelf;
use crate::abroad::Interest;
use crate::class::Pattern;
use crate::engine::Input;
use crate::ids::NodeId;
use crate::value::Value;

fn everything() -> Interest {
    Interest::of(vec![Pattern::new("/**")])
}

fn state(shelf: &Shelf, fan: u32) -> Option<Value> {
    shelf.value(&format!("/mxp1/fan{fan}"), "state")
}

fn alarms(shelf: &Shelf) -> Vec<(String, Option<crate::ids::EventId>)> {
    shelf.engine.alarms().filter(|(_, a)| a.is_active()).map(|(k, a)| (k.kind.to_string(), a.id)).collect()
}

#[test]
fn a_node_that_joins_late_learns_values_and_standing_alarms_with_their_ids() {
    let (owner, mut late) = Shelf::with_a_failed_fan_and_a_newcomer();
    assert_eq!(state(&late, 1), None);
    for event in owner.engine.levels(&everything()) {
        late.input(Input::Level { from: NodeId(1), event });
    }
    for fan in 1..=5 {
        assert_eq!(state(&late, fan), state(&owner, fan), "fan{fan}");
        assert!(state(&late, fan).is_some());
    }
    assert!(alarms(&owner).iter().any(|(kind, _)| kind == "fan-failed"));
    assert_eq!(alarms(&late), alarms(&owner));
}

#[test]
fn what_is_told_twice_happens_once() {
    let (owner, mut late) = Shelf::with_a_failed_fan_and_a_newcomer();
    let levels = owner.engine.levels(&everything());
    levels.iter().for_each(|e| late.input(Input::Level { from: NodeId(1), event: e.clone() }));
    let (known, calls) = (late.engine.history().iter().count(), late.engine.counts().calls);
    assert_eq!(late.heard, levels.iter().map(|e| e.id).collect::<Vec<_>>(), "who watches here sees what happens elsewhere");
    levels.into_iter().for_each(|e| late.input(Input::Level { from: NodeId(1), event: e }));
    assert_eq!((late.engine.history().iter().count(), late.engine.counts().calls), (known, calls));
    assert_eq!(late.heard.len(), known);
}

#[test]
fn only_what_is_wanted_is_told_and_only_by_its_owner() {
    let (owner, late) = Shelf::with_a_failed_fan_and_a_newcomer();
    let fans = owner.engine.levels(&Interest::of(vec![Pattern::new("/mxp1/fan*")]));
    assert!(!fans.is_empty() && fans.iter().all(|e| e.object.as_str().starts_with("/mxp1/fan")));
    assert!(late.engine.levels(&Interest::of(vec![Pattern::new("/mxp1/**")])).is_empty());
}
