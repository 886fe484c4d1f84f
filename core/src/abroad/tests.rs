use proptest::prelude::*;

use super::*;
use crate::alarms::Severity;
use crate::event::Body;
use crate::ids::{Epoch, Incarnation};
use crate::time::HybridTime;
use crate::value::{Quality, Value};

fn north() -> Neighbour {
    Neighbour { domain: "north".into(), number: 2, hear: vec![Pattern::new("/mxp1/**")] }
}

fn id(node: u16, sequence: u64) -> EventId {
    EventId { node: NodeId(node), incarnation: Incarnation(7), sequence }
}

fn event(by: u16, cause: Option<u16>, root: u16) -> Event {
    Event {
        id: id(by, 9),
        object: "/mxp1/fan3".into(),
        class: "fan".into(),
        attribute: "state".into(),
        old: None,
        new: Some(Value::Enum("failed".into())),
        quality: Quality::Good,
        severity: Severity::Cleared,
        cause: cause.map(|node| id(node, 8)),
        root: id(root, 3),
        time: HybridTime::default(),
        received: None,
        group: Some("chassis/mxp1".into()),
        epoch: Epoch(4),
        identity: None,
        why: "".into(),
        policy: None,
        body: Body::Change,
    }
}

#[test]
fn an_event_of_a_neighbour_bears_names_and_numbers_that_nobody_here_has() {
    let heard = north().event(event(5, Some(1), 32)).expect("it is of its own node");
    assert_eq!((heard.id, heard.cause, heard.root), (id(205, 9), Some(id(201, 8)), id(232, 3)));
    assert_eq!(heard.object.as_str(), "/neighbours/north/mxp1/fan3");
    assert_eq!(heard.group.as_ref().map(GroupName::as_str), Some("north/chassis/mxp1"), "its epochs are not ours");
    assert!(heard.id.node.is_abroad() && !NodeId(32).is_abroad());
}

#[test]
fn what_a_neighbour_heard_elsewhere_is_not_taken_for_its_own() {
    assert_eq!(north().event(event(105, None, 105)), None);
    let heard = north().event(event(5, Some(105), 105)).expect("only its cause is in a third domain");
    assert_eq!((heard.cause, heard.root), (None, heard.id), "the chain begins here");
}

#[test]
fn what_nobody_asked_for_is_not_taken() {
    let unasked = Event { object: "/mxp2/fan3".into(), ..event(5, None, 5) };
    assert_eq!(north().event(unasked), None);
}

#[test]
fn a_neighbours_node_hears_what_it_wants_as_far_as_it_may() {
    let patterns = |text: &str| vec![Pattern::new(text)];
    let within = Interest::within(patterns("/mxp1/**"), patterns("/*/fan*"));
    assert!(within.covers("/mxp1/fan1") && !within.covers("/mxp1/supply1") && !within.covers("/mxp2/fan1"));
    assert!(within.allows("/mxp2/fan1"));
    let member = Interest::of(patterns("/mxp1/**"));
    assert!(member.covers("/mxp1/supply1") && member.allows("/mxp2/fan1"));
}

proptest! {
    #[test]
    fn no_two_nodes_of_any_domains_have_the_same_number(a in 1u16..=NEIGHBOUR_MAX, b in 1u16..=NEIGHBOUR_MAX, m in 0u16..=u16::MAX, n in 0u16..=u16::MAX) {
        let of = |number, node| Neighbour { domain: "x".into(), number, hear: Vec::new() }.node(NodeId(node));
        let (one, other) = (of(a, m), of(b, n));
        prop_assert!(one.is_none_or(NodeId::is_abroad));
        prop_assert_eq!(one.is_some() && one == other, one.is_some() && (a, m) == (b, n));
    }
}
