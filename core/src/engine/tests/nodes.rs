//! What nodes think of each other, and who says so: the lowest node alive.

use super::shelf::{Shelf, shipped};
use crate::abroad::Interest;
use crate::class::Pattern;
use crate::engine::{Fact, Input};
use crate::ids::{AttributeName, EventId, NodeId, ObjectName};
use crate::value::{Quality, Value};

fn sees(shelf: &mut Shelf, node: u16, state: &str) {
    shelf.input(Input::Fact(Fact {
        object: ObjectName::new(format!("/nodes/n{node}")),
        attribute: AttributeName::new("state"),
        value: Some(Value::Enum(state.into())),
        quality: Quality::Good,
        cause: None,
        why: "seen".into(),
        shared: false,
        token: 0,
    }));
}

/// The events of one reach another.
fn tell(from: &mut Shelf, to: &mut Shelf) {
    std::mem::take(&mut from.events).into_iter().for_each(|e| to.input(Input::Remote(e)));
}

fn standing(shelf: &Shelf) -> Vec<(String, Option<EventId>)> {
    let object = |ix| shelf.engine.world().object(ix).name.to_string();
    shelf.engine.alarms().filter(|(_, a)| a.is_active()).map(|(k, a)| (format!("{} {}", object(k.object), k.kind), a.id)).collect()
}

/// Nodes 2 and 3, which have seen all three alive.
fn survivors() -> (Shelf, Shelf) {
    let mut both = (Shelf::with(&shipped(), 2), Shelf::with(&shipped(), 3));
    for node in 1..=3 {
        sees(&mut both.0, node, "alive");
        sees(&mut both.1, node, "alive");
    }
    both.0.forget();
    both.1.forget();
    both
}

#[test]
fn the_owner_of_the_domain_comes_back_and_the_alarm_about_it_goes() {
    let (mut second, mut third) = survivors();
    sees(&mut third, 1, "dead");
    sees(&mut second, 1, "dead");
    tell(&mut second, &mut third);
    assert_eq!(standing(&second).len(), 1, "{:?}", standing(&second));
    assert_eq!(standing(&third), standing(&second));

    sees(&mut third, 1, "alive");
    sees(&mut second, 1, "alive");
    tell(&mut second, &mut third);
    assert_eq!(standing(&second), []);
    assert_eq!(standing(&third), []);
}

#[test]
fn the_owner_of_the_domain_hears_nobody_when_it_comes_back_and_the_alarms_about_it_go_all_the_same() {
    let (mut second, mut third) = survivors();
    for state in ["dead", "mute"] {
        sees(&mut third, 1, state);
        sees(&mut second, 1, state);
        tell(&mut second, &mut third);
    }
    assert_eq!(standing(&second).len(), 2, "{:?}", standing(&second));

    sees(&mut third, 1, "alive");
    sees(&mut second, 1, "alive");
    tell(&mut second, &mut third);
    assert_eq!(standing(&second), []);
    assert_eq!(standing(&third), []);
}

#[test]
fn who_comes_back_as_the_owner_of_the_domain_takes_over_the_standing_alarms() {
    let (mut second, mut third) = survivors();
    sees(&mut second, 1, "dead");
    sees(&mut second, 3, "dead");
    let of_third = standing(&second).into_iter().find(|(what, _)| what == "/nodes/n3 node-dead").expect("raised");

    let mut first = Shelf::with(&shipped(), 1);
    sees(&mut second, 1, "alive");
    second.engine.levels(&Interest::of(vec![Pattern::new("/**")])).into_iter().for_each(|e| first.input(Input::Level { from: NodeId(2), event: e }));
    assert_eq!(standing(&first), std::slice::from_ref(&of_third));
    sees(&mut first, 3, "dead");
    assert_eq!(standing(&first), [of_third], "it is the alarm that stood already");

    sees(&mut first, 3, "alive");
    tell(&mut first, &mut second);
    tell(&mut first, &mut third);
    assert_eq!((standing(&first), standing(&second), standing(&third)), (vec![], vec![], vec![]));
}

#[test]
fn an_alarm_that_is_over_when_its_new_owner_hears_of_it_is_cleared_by_him() {
    let (mut second, _) = survivors();
    sees(&mut second, 1, "dead");
    sees(&mut second, 3, "dead");
    let levels = second.engine.levels(&Interest::of(vec![Pattern::new("/**")]));
    second.forget();

    let mut first = Shelf::with(&shipped(), 1);
    sees(&mut first, 3, "alive"); // the way to node 3 was cut only for node 2
    levels.into_iter().for_each(|e| first.input(Input::Level { from: NodeId(2), event: e }));
    assert!(first.alarm_steps().contains(&"/nodes/n3 node-dead cleared".to_owned()), "{:?}", first.alarm_steps());

    sees(&mut second, 1, "alive"); // which clears what was said of the first itself
    tell(&mut second, &mut first);
    assert_eq!(standing(&first), []);
}
