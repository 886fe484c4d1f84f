//! The rules, one by one, on small domains without surprises.

use std::collections::BTreeSet;
use std::time::Duration;

use sixnines_core::domain::Entry;
use sixnines_core::domain::config::Profile;
use sixnines_core::ids::{Generation, Incarnation};

use super::*;
use crate::outcome::{Doubt, Limit};
use crate::testing::{Rig, domain_config, group};
use crate::{Bytes, Refusal};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);

fn rig(nodes: u16) -> Rig {
    Rig::new(nodes, CopyConfig::default())
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The outcomes told so far, in the order of their tickets.
fn outcomes(rig: &Rig) -> Vec<Outcome> {
    rig.oracle.outcomes.values().copied().collect()
}

fn is_applied(outcome: &Outcome, wanted_copies: u8) -> bool {
    matches!(outcome, Outcome::Applied { copies, .. } if *copies == wanted_copies)
}

fn status(rig: &Rig, node: NodeId) -> Status {
    rig.nodes[&node].copy.as_ref().expect("it is up").status()
}

#[test]
fn a_write_is_acknowledged_when_every_member_has_reported_it_and_not_before() {
    let mut rig = rig(2);
    rig.write(A);
    assert_eq!(outcomes(&rig), []);
    rig.settle();
    assert!(is_applied(&outcomes(&rig)[0], 2));
    assert_eq!(rig.applied(B), [1]);
}

#[test]
fn nothing_shrinks_at_the_first_suspicion_but_when_a_write_waits() {
    let mut rig = rig(2);
    rig.crash(B);
    rig.set_reachable(A, B, false);
    rig.pass(ms(1000));
    rig.settle();
    assert_eq!(rig.row().in_sync.len(), 2, "no write waits");
    rig.write(A);
    assert_eq!(outcomes(&rig), [], "the smaller set is only proposed");
    rig.settle();
    assert_eq!(rig.row().in_sync.len(), 1);
    assert!(matches!(outcomes(&rig)[..], [Outcome::Applied { copies: 1, protected: false, .. }]));
}

#[test]
fn a_standby_without_progress_is_left_out_when_patience_ends() {
    let mut rig = rig(2);
    rig.crash(B);
    rig.write(A);
    rig.pass(ms(199));
    rig.settle();
    assert_eq!(rig.row().in_sync.len(), 2);
    rig.pass(ms(1));
    rig.settle();
    assert_eq!(rig.row().in_sync.len(), 1);
}

/// Found with real processes, where nothing reached the active any more: it left out whoever could have taken over.
#[test]
fn an_active_without_a_lease_leaves_nobody_out() {
    let mut rig = rig(2);
    rig.write(A);
    rig.settle();
    rig.crash(B);
    rig.write(A);
    rig.set_lease(A, false);
    rig.pass(ms(1000));
    rig.settle();
    assert_eq!(rig.row().in_sync.len(), 2);
    rig.set_lease(A, true);
    rig.settle();
    assert_eq!(rig.row().in_sync.len(), 1, "it is heard: the other one is at fault");
    for profile in Profile::ALL {
        let config = CopyConfig::of(&domain_config(&[A, B]).groups().next().expect("one"), profile);
        assert!(config.times.patience >= profile.times().lease, "{profile:?}: who hears nobody must have lost his lease by then");
    }
}

#[test]
fn a_new_life_is_taken_in_when_it_has_everything_and_the_lost_one_is_replaced_by_a_third() {
    let mut rig = rig(3);
    rig.write(A);
    rig.settle();
    rig.crash(B);
    rig.write(A);
    rig.set_reachable(A, B, false);
    rig.settle();
    let set: Vec<NodeId> = rig.row().in_sync.iter().map(|m| m.node).collect();
    assert_eq!(set, [A, C], "in one entry");
    rig.restart(B);
    rig.settle();
    assert_eq!(rig.applied(B), [1, 2]);
    assert_eq!(rig.row().in_sync.len(), 2, "two copies are wanted");
}

#[test]
fn a_life_that_is_over_is_not_proposed_and_its_successor_is_taken_in() {
    let mut rig = rig(2);
    rig.write(A);
    rig.settle();
    rig.crash(B);
    let over = rig.member(B);
    rig.restart(B);
    rig.commit_all();
    rig.deliver_rows_to(A); // A has no word of the new life yet but the row
    let names = |e: &Entry| matches!(e, Entry::Sync { in_sync, .. } if in_sync.contains(&over));
    assert!(!rig.proposals.iter().any(names), "{:?}", rig.proposals);
    rig.settle();
    assert_eq!(rig.row().in_sync.len(), 2);
}

#[test]
fn a_proposal_stays_open_until_a_later_row() {
    let mut rig = rig(3);
    rig.crash(B);
    rig.set_reachable(A, B, false);
    rig.write(A); // proposes {A, C}; from here on C counts
    rig.set_reachable(A, C, false);
    rig.pass(ms(1000));
    rig.deliver_frames();
    assert_eq!(outcomes(&rig), [], "neither the old set nor any proposed one is known to hold it");
    rig.settle();
    assert_eq!(outcomes(&rig).len(), 1);
}

#[test]
fn below_the_floor_nothing_is_acknowledged_and_it_says_so() {
    let config = CopyConfig { floor: 2, ..CopyConfig::default() };
    let mut rig = Rig::new(2, config);
    rig.crash(B);
    rig.write(A);
    rig.pass(ms(300));
    rig.settle();
    assert_eq!(rig.row().in_sync.len(), 2, "a set below the floor would help nobody");
    rig.pass(ms(1000));
    assert_eq!(outcomes(&rig), [Outcome::Unknown(Doubt::TooFewCopies { copies: 2, floor: 2 })]);
    rig.set_reachable(A, B, false);
    rig.write(A);
    assert_eq!(outcomes(&rig)[1], Outcome::NotApplied(Refusal::TooFewCopies { copies: 1, floor: 2 }));
    rig.restart(B);
    rig.settle();
    rig.write(A);
    rig.settle();
    assert!(is_applied(&outcomes(&rig)[2], 2));
}

#[test]
fn a_fresh_read_needs_every_member_or_a_lease() {
    let mut rig = rig(2);
    rig.write(A);
    rig.settle();
    rig.read(A);
    assert_eq!(rig.oracle.answers, [(vec![1], true)], "the lease is valid");
    rig.set_lease(A, false);
    rig.read(A);
    assert_eq!(rig.oracle.answers.len(), 1, "nobody has confirmed the epoch");
    rig.settle();
    assert_eq!(rig.oracle.answers[1], (vec![1], true));
}

#[test]
fn a_read_shows_nothing_that_does_not_count_and_says_when_it_may_be_old() {
    let mut rig = rig(2);
    rig.write(A);
    rig.settle();
    rig.crash(B);
    rig.write(A);
    rig.read(A);
    assert_eq!(rig.oracle.answers, []);
    rig.pass(ms(500));
    assert_eq!(rig.oracle.answers, [(vec![1], false)], "the second write is held by one copy of two");
}

#[test]
fn an_active_that_sees_a_higher_epoch_stops_for_good_under_the_old_one() {
    let mut rig = rig(2);
    rig.write(A);
    rig.propose_takeover(B);
    rig.commit_all();
    rig.deliver_rows_to(B);
    rig.deliver_frames(); // B's word reaches A before the row does
    assert_eq!(rig.actives(), [(B, Epoch(2))]);
    assert!(matches!(outcomes(&rig)[..], [Outcome::Unknown(Doubt::Fenced { by: Epoch(2) })]));
    rig.deliver_rows_to(A);
    assert_eq!(rig.actives(), [(B, Epoch(2))]);
}

#[test]
fn a_standby_that_knows_of_a_takeover_before_the_new_active_does_is_followed_at_once() {
    let mut rig = Rig::new(3, CopyConfig { copies: 3, ..CopyConfig::default() });
    rig.write(A);
    rig.settle();
    rig.propose_takeover(B);
    rig.commit_all();
    rig.deliver_rows_to(C);
    rig.deliver_frames(); // C asks B, which is not yet active
    rig.deliver_rows_to(B);
    rig.write(B);
    rig.settle();
    assert!(is_applied(&outcomes(&rig)[1], 2), "no time had to pass: {:?}", outcomes(&rig));
    assert_eq!(rig.applied(C), [1, 2]);
}

#[test]
fn what_the_new_active_lacks_is_cut_off_and_what_it_has_is_replicated_first() {
    let mut rig = rig(2);
    rig.write(A);
    rig.settle();
    rig.set_lease(A, false);
    rig.write(A);
    rig.drop_frames(); // B never gets the second write
    rig.propose_takeover(B);
    rig.commit_all();
    rig.deliver_rows();
    let third = rig.write(B);
    assert_eq!(rig.applied(A), [1, 2], "losing the role throws nothing away");
    rig.settle();
    assert_eq!(rig.applied(A), [1, third]);
    assert_eq!(rig.applied(B), [1, third]);
}

#[test]
fn a_replica_beyond_the_backlog_keeps_its_copy_until_the_new_one_is_complete() {
    let mut config = CopyConfig::default();
    config.limits.backlog_records_max = 2;
    config.limits.frame_bytes_max = 32;
    config.limits.chunks_max = 1;
    let mut rig = Rig::new(2, config);
    rig.write(A);
    rig.settle();
    rig.set_reachable(A, B, false);
    for _ in 0..10 {
        rig.write(A);
        rig.commit_all();
        rig.deliver_rows();
    }
    rig.drop_frames();
    rig.set_reachable(A, B, true);
    let mut seen = BTreeSet::new();
    for _ in 0..200 {
        rig.deliver_frames();
        seen.insert(rig.applied(B).len());
        if rig.applied(B).len() < 11 {
            assert_eq!(rig.applied(B), [1], "the old copy is whole");
        }
        rig.pass(ms(5));
    }
    assert_eq!(seen, [1, 11].into(), "from old to new in one step");
    assert!(status(&rig, A).peers[0].transfer.is_none());
    rig.settle();
    assert_eq!(rig.row().in_sync.len(), 2);
}

#[test]
fn a_standbys_application_gets_only_what_the_whole_set_holds() {
    let mut rig = Rig::new(3, CopyConfig { copies: 3, ..CopyConfig::default() });
    rig.write(A);
    rig.deliver_between(A, B);
    assert_eq!(rig.applied(B), [1]);
    assert!(rig.nodes[&B].mirror.is_empty(), "C may not have it");
    rig.settle();
    rig.pass(ms(5));
    rig.settle();
    assert!(!rig.nodes[&B].mirror.is_empty());
}

#[test]
fn a_handover_drains_and_stays_quiet_until_a_later_row() {
    let mut rig = rig(2);
    rig.write(A);
    rig.quiesce(A, B);
    rig.write(A);
    assert_eq!(outcomes(&rig), [Outcome::NotApplied(Refusal::Quiescing)]);
    rig.deliver_frames();
    rig.deliver_frames();
    rig.pass(ms(60_000));
    rig.write(A);
    assert_eq!(outcomes(&rig).last(), Some(&Outcome::NotApplied(Refusal::Quiescing)), "time settles nothing");
    rig.commit_all();
    rig.settle();
    assert_eq!(rig.actives(), [(B, Epoch(2))]);
    assert_eq!(rig.row().in_sync.len(), 2);
    assert_eq!(rig.applied(B), [1]);
}

#[test]
fn an_asynchronous_write_says_so_and_the_loss_window_counts_it() {
    let mut rig = rig(2);
    rig.write_request(A, 1, Level::Async);
    assert!(matches!(outcomes(&rig)[..], [Outcome::Async { .. }]));
    assert_eq!(status(&rig, A).loss_window, 1);
    rig.settle();
    assert_eq!(status(&rig, A).loss_window, 0);
}

#[test]
fn a_repeat_gets_the_first_ones_answer_and_waits_like_it() {
    let mut rig = rig(2);
    let request = rig.write(A);
    rig.write_request(A, request, Level::default());
    assert_eq!(outcomes(&rig), [], "the write is there, but only here");
    rig.settle();
    let told = outcomes(&rig);
    assert_eq!((told.len(), told[0]), (2, told[1]));
    assert_eq!(rig.applied(A), [request]);
}

#[test]
fn a_state_declared_lost_starts_empty_and_replaces_what_others_have() {
    let mut rig = rig(2);
    rig.write(A);
    rig.settle();
    rig.crash(A);
    rig.restart(A);
    rig.commit_all();
    rig.crash(B);
    rig.restart(B);
    rig.commit_all();
    let (version, to) = (rig.row().version, rig.member(B));
    let offers = [rig.member(A), to].into();
    rig.commit(&Entry::Start { group: group(), version, to, offers, lost: true });
    rig.settle();
    assert_eq!(rig.row().generation, Generation(1));
    assert_eq!(rig.nodes[&B].roles.last(), Some(&Role::Active { epoch: Epoch(2), lost: true }), "although its copy was empty anyway");
    assert_eq!(status(&rig, B).role, Role::Active { epoch: Epoch(2), lost: false });
    rig.write(B);
    rig.pass(ms(60));
    rig.settle();
    assert_eq!((rig.applied(A), rig.applied(B)), (vec![2], vec![2]));
}

/// Found by real processes: the row of the start overtook the question for an offer, on another thread.
#[test]
fn an_offer_that_is_asked_for_after_the_start_fences_nobody() {
    let mut rig = rig(2);
    for node in [A, B] {
        rig.crash(node);
        rig.restart(node);
        rig.commit_all();
    }
    let (version, to) = (rig.row().version, rig.member(B));
    rig.commit(&Entry::Start { group: group(), version, to, offers: [rig.member(A), to].into(), lost: true });
    rig.deliver_rows();
    let copy = rig.nodes.get_mut(&A).and_then(|node| node.copy.as_mut()).expect("it is up");
    assert_eq!(copy.offer(version), None);
    rig.write(B);
    rig.pass(ms(60));
    rig.settle();
    assert_eq!(rig.applied(A), [1]);
}

#[test]
fn frames_for_a_former_life_and_from_a_strange_node_change_nothing() {
    let me = Member { node: A, incarnation: Incarnation(7) };
    let mut copy = GroupCopy::new(me, CopyConfig::default());
    let frame = |to: Member| {
        let from = Member { node: B, ..me };
        let body = Body::Report(Report { cursor: None, held: Sequence(0), read: 0, transfer: None });
        Frame { from, to, epoch: Epoch(9), body }.encode()
    };
    let older = Member { incarnation: Incarnation(3), ..me };
    copy.handle(Instant::ZERO, Input::Frame { from: B, bytes: &frame(older) }).expect("late, no fault");
    let fault = copy.handle(Instant::ZERO, Input::Frame { from: C, bytes: &frame(me) });
    assert!(matches!(fault, Err(PeerFault::Misdirected { sender: C, .. })));
    let fault = copy.handle(Instant::ZERO, Input::Frame { from: C, bytes: b"k\x01" });
    assert!(matches!(fault, Err(PeerFault::Unreadable(2, Some(_)))));
    assert_eq!(copy.role(), Role::Standby { epoch: Epoch(0) });
}

#[test]
fn every_bound_refuses_by_name_and_changes_nothing() {
    let mut config = CopyConfig::default();
    let limits = &mut config.limits;
    (limits.sections_max, limits.key_bytes_max, limits.section_bytes_max) = (2, 4, 100);
    (limits.bytes_max, limits.batch_bytes_max, limits.unheld_bytes_max, limits.waiting_max) = (150, 300, 200, 3);
    let put = |key: &str, length: usize| Op::Put { key: key.into(), bytes: Bytes::from(vec![0; length]) };
    let cases = [
        (vec![put("a", 1), put("b", 1), put("c", 1)], Limit::Sections),
        (vec![put("abcde", 1)], Limit::KeyBytes),
        (vec![put("a", 101)], Limit::SectionBytes),
        (vec![Op::Patch { key: "a".into(), offset: u64::MAX, bytes: "x".into() }], Limit::SectionBytes),
        (vec![put("a", 100), put("b", 100)], Limit::Bytes),
        (vec![put("a", 90), put("a", 90), put("a", 90)], Limit::BatchBytes),
    ];
    for (ops, limit) in cases {
        let mut rig = Rig::new(2, config.clone());
        rig.write_ops(A, ops.clone());
        assert_eq!(outcomes(&rig), [Outcome::NotApplied(Refusal::NoSpace(limit))], "{ops:?}");
        assert_eq!(status(&rig, A).sections, 0);
    }
    let mut rig = Rig::new(2, config.clone());
    (0..4).for_each(|_| rig.write_ops(A, vec![put("a", 1)]));
    assert_eq!(outcomes(&rig), [Outcome::NotApplied(Refusal::NoSpace(Limit::Waiting))]);
    let mut rig = Rig::new(2, config);
    (0..3).for_each(|_| rig.write_ops(A, vec![put("a", 100)]));
    assert_eq!(outcomes(&rig), [Outcome::NotApplied(Refusal::NoSpace(Limit::Unheld))]);
}
