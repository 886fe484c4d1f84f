use proptest::prelude::*;

use super::*;

fn put(key: &str, bytes: &str) -> Vec<Op> {
    vec![Op::Put { key: key.into(), bytes: bytes.into() }]
}

fn write(store: &mut Store, epoch: u64, ops: &[Op]) -> Cursor {
    store.execute(Epoch(epoch), None, ops, &Limits::default()).expect("within the limits")
}

fn content(store: &Store) -> Vec<(String, String)> {
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    store.state().iter().map(|(k, s)| (text(k), text(&s.bytes))).collect()
}

#[test]
fn a_cut_gives_back_exactly_what_was() {
    let mut store = Store::default();
    write(&mut store, 1, &put("a", "1"));
    let before = store.state().clone();
    let at = store.head();
    write(&mut store, 1, &[put("a", "2"), put("b", "1")].concat());
    write(&mut store, 1, &[Op::Delete { key: "a".into() }, Op::Append { key: "b".into(), bytes: "2".into() }]);
    assert_eq!(content(&store), [("b".into(), "12".into())]);
    store.cut_after(at.sequence);
    assert_eq!((store.state(), store.head()), (&before, at));
}

#[test]
#[should_panic(expected = "never cut off")]
fn what_all_hold_is_never_cut_off() {
    let mut store = Store::default();
    write(&mut store, 1, &put("a", "1"));
    store.advance_held(Sequence(1), &Limits::default());
    store.cut_after(Sequence(0));
}

#[test]
fn the_last_common_position_is_found_by_epoch_and_sequence() {
    let mut ours = Store::default();
    let mut theirs = Store::default();
    for store in [&mut ours, &mut theirs] {
        write(store, 1, &put("a", "1"));
        write(store, 1, &put("a", "2"));
    }
    write(&mut theirs, 1, &put("a", "their third"));
    write(&mut ours, 2, &put("a", "our third"));
    write(&mut ours, 2, &put("a", "our fourth"));
    let common = ours.last_common(&theirs.runs_from_held(9));
    assert_eq!(common, Some(Cursor { epoch: Epoch(1), sequence: Sequence(2) }));
    assert_eq!(ours.last_common(&Store::default().runs_from_held(9)), Some(Cursor::default()), "nothing at all is common to all");
}

#[test]
fn a_backlog_that_is_gone_leaves_nothing_in_common() {
    let limits = Limits { backlog_records_max: 1, ..Limits::default() };
    let mut ours = Store::default();
    for number in 0..5_u8 {
        write(&mut ours, 1, &put("a", &number.to_string()));
    }
    ours.advance_held(Sequence(5), &limits);
    assert_eq!(ours.last_common(&Store::default().runs_from_held(9)), None);
    assert_eq!(ours.record(Sequence(4)), None);
    assert!(ours.record(Sequence(5)).is_some());
}

#[test]
fn the_held_image_shows_nothing_that_may_be_undone() {
    let mut store = Store::default();
    write(&mut store, 1, &[put("a", "1"), put("b", "1")].concat());
    store.advance_held(Sequence(1), &Limits::default());
    write(&mut store, 1, &[put("a", "2"), put("c", "1")].concat());
    write(&mut store, 1, &[put("a", "3"), vec![Op::Delete { key: "b".into() }]].concat());
    let image = store.held_image().expect("nothing was transferred");
    let held: BTreeMap<_, _> = image.into_iter().map(|(k, s)| (k.to_vec(), s.bytes.to_vec())).collect();
    assert_eq!(held, [(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), b"1".to_vec())].into());
    assert_eq!(store.held_section(b"a").map(|s| s.bytes.to_vec()), Some(b"1".to_vec()));
    assert_eq!(store.held_section(b"c"), None);
}

#[test]
fn the_oldest_request_is_forgotten_and_comes_back_with_a_cut() {
    let limits = Limits { requests_max: 2, ..Limits::default() };
    let id = |serial| RequestId { client: 1, serial };
    let mut store = Store::default();
    for serial in 1..=3 {
        store.execute(Epoch(1), Some(id(serial)), &put("a", "x"), &limits).expect("within the limits");
    }
    assert_eq!(store.state().request(id(1)), None);
    store.cut_after(Sequence(2));
    let known = [1, 2, 3].map(|serial| store.state().request(id(serial)).map(|c| c.sequence.0));
    assert_eq!(known, [Some(1), Some(2), None]);
}

fn op() -> impl Strategy<Value = Op> {
    let key = || (0..4_u8).prop_map(|k| Bytes::from(vec![k]));
    let bytes = || proptest::collection::vec(any::<u8>(), 0..6).prop_map(Bytes::from);
    prop_oneof![
        (key(), bytes()).prop_map(|(key, bytes)| Op::Put { key, bytes }),
        (key(), 0..8_u64, bytes()).prop_map(|(key, offset, bytes)| Op::Patch { key, offset, bytes }),
        (key(), bytes()).prop_map(|(key, bytes)| Op::Append { key, bytes }),
        key().prop_map(|key| Op::Delete { key }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A transfer's parts are read while the state goes on; records since its start are applied over them, again or not.
    #[test]
    fn parts_and_records_that_overlap_give_the_same_state(before in proptest::collection::vec(op(), 0..12), during in proptest::collection::vec(op(), 0..12)) {
        let mut store = Store::default();
        for op in &before {
            write(&mut store, 1, std::slice::from_ref(op));
        }
        let start = store.head().sequence;
        let mut copy = State::default();
        let mut resume = crate::state::Resume::Sections(None);
        let mut during = during.into_iter();
        loop {
            let part = store.state().part(&resume, 1);
            resume = part.through.clone();
            copy.take(part.sections, part.requests);
            match during.next() {
                Some(op) => _ = write(&mut store, 1, &[op]),
                None if resume == crate::state::Resume::End => break,
                None => {}
            }
        }
        for sequence in start.0 + 1..=store.head().sequence.0 {
            let record = store.record(Sequence(sequence)).expect("kept");
            copy.apply(&record.changes, Sequence(sequence));
        }
        prop_assert_eq!(&copy, store.state());
    }

    #[test]
    fn undoing_everything_leaves_nothing(ops in proptest::collection::vec(proptest::collection::vec(op(), 1..4), 0..12)) {
        let mut store = Store::default();
        for ops in &ops {
            write(&mut store, 1, ops);
        }
        store.cut_after(Sequence(0));
        prop_assert_eq!(store.state(), &State::default());
    }
}

/// As [`Store::runs`], found by a walk along all records.
fn walked(store: &Store, from: Sequence, max: usize) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for at in (from.0..=store.head().sequence.0).rev().map_while(|sequence| store.position(Sequence(sequence))) {
        let is_full = runs.len() == max;
        match runs.last_mut() {
            Some(run) if run.epoch == at.epoch => run.first = at.sequence,
            _ if is_full => break,
            _ => runs.push(Run { epoch: at.epoch, first: at.sequence, last: at.sequence }),
        }
    }
    runs
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A byte is a step: a write, one of the next epoch, a cut, or what all hold moves on.
    #[test]
    fn the_stretches_of_a_store_are_those_that_a_walk_finds(steps in proptest::collection::vec(any::<u8>(), 0..80)) {
        let limits = Limits { backlog_records_max: 5, ..Limits::default() };
        let (mut store, mut epoch) = (Store::default(), 1);
        for step in steps {
            let after_held = store.head().sequence.0 - store.held().0;
            let some = if after_held == 0 { store.held() } else { Sequence(store.held().0 + u64::from(step / 4) % (after_held + 1)) };
            match step % 4 {
                0 => drop(write(&mut store, epoch, &put("a", "1"))),
                1 => {
                    epoch += 1 + u64::from(step / 4) % 2;
                    write(&mut store, epoch, &put("a", "2"));
                }
                2 => store.cut_after(some),
                _ => drop(store.advance_held(some, &limits)),
            }
            epoch = epoch.max(store.head().epoch.0);
            for from in store.base.sequence.0..=store.head().sequence.0 {
                for max in [1, 2, usize::MAX] {
                    prop_assert_eq!(store.runs(Sequence(from), max), walked(&store, Sequence(from), max), "from {} at most {}", from, max);
                }
            }
        }
    }
}
