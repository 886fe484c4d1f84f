use proptest::prelude::*;
use sixnines_core::ids::{EventId, Incarnation, Member};

use super::*;

const BAUD: u32 = 9600;

fn line(me: u16, peer: u16, keys: &[u8]) -> Line {
    let mut line = Line::new(Instant::ZERO, NodeId(me), NodeId(peer), me.into(), BAUD);
    for key in keys {
        line.handle(Instant::ZERO, Input::Key((*key).into(), [*key; KEY_LENGTH]));
    }
    line.handle(Instant::ZERO, Input::Device(true));
    drop(outputs(&mut line));
    line
}

fn outputs(line: &mut Line) -> Vec<Output> {
    std::iter::from_fn(|| line.poll_output()).collect()
}

/// What it writes now, as bytes on the line.
fn written(line: &mut Line) -> Vec<u8> {
    outputs(line).into_iter().filter_map(|o| if let Output::Write(bytes) = o { Some(bytes) } else { None }).flatten().collect()
}

fn beat_of(line: &mut Line, now: Instant) -> Vec<u8> {
    line.handle(now, Input::Written);
    line.handle(now, Input::Timeout);
    written(line)
}

fn word(epoch: u64) -> Told {
    let by = Member { node: NodeId(1), incarnation: Incarnation(4) };
    Told::Relinquished { group: GroupName::new("calls"), epoch: Epoch(epoch), by, cause: EventId::default() }
}

fn state(state: State) -> Output {
    Output::State { state, beat: None, outlives: false }
}

fn is_heard(said: &[Output]) -> bool {
    said.iter().any(|o| matches!(o, Output::State { state, .. } if state.is_heard()))
}

fn at(steps: u32) -> Instant {
    Instant::ZERO + interval(BAUD) * steps
}

#[test]
fn two_ends_hear_each_other_and_silence_is_noticed() {
    let (mut a, mut b) = (line(1, 2, &[7]), line(2, 1, &[7]));
    let mut said = Vec::new();
    for step in 1..4 {
        let (from_a, from_b) = (beat_of(&mut a, at(step)), beat_of(&mut b, at(step)));
        a.handle(at(step), Input::Bytes(&from_b));
        b.handle(at(step), Input::Bytes(&from_a));
        said.extend(outputs(&mut b));
    }
    assert!(matches!(said.last(), Some(Output::State { state: State::Up, beat: Some(beat), .. }) if beat.life == 1), "{said:?}");
    assert!(b.poll_timeout().is_some_and(|due| due <= at(3) + window(BAUD)));
    b.handle(at(3) + window(BAUD), Input::Timeout);
    assert!(outputs(&mut b).contains(&state(State::Silent)));
    b.handle(at(9), Input::Device(false));
    assert!(outputs(&mut b).contains(&state(State::Closed)));
}

/// Else each node that dies would for some seconds be shown as cut off.
#[test]
fn only_what_was_said_after_the_last_fabric_was_lost_says_that_the_peer_outlives_it() {
    let outlives = |said: &[Output]| said.iter().rev().find_map(|o| if let Output::State { outlives, .. } = o { Some(*outlives) } else { None });
    let (mut a, mut b) = (line(1, 2, &[7]), line(2, 1, &[7]));
    for (link, is_up) in [(0, true), (1, true), (0, false)] {
        b.handle(at(1), Input::Link(link, is_up));
    }
    let (first, last, next) = (beat_of(&mut a, at(1)), beat_of(&mut a, at(2)), beat_of(&mut a, at(3)));
    b.handle(at(1), Input::Bytes(&first));
    assert_eq!(outlives(&outputs(&mut b)), Some(false), "one link is there");
    b.handle(at(2), Input::Link(1, false));
    b.handle(at(2) + wire_time(BAUD), Input::Bytes(&last));
    assert_ne!(outlives(&outputs(&mut b)), Some(true), "it may have been on its way");
    b.handle(at(3), Input::Bytes(&next));
    assert_eq!(outlives(&outputs(&mut b)), Some(true));
    b.handle(at(3), Input::Link(0, true));
    assert_eq!(outlives(&outputs(&mut b)), Some(false));
}

#[test]
fn an_actives_own_word_arrives_and_nothing_else_is_told() {
    let (mut a, mut b) = (line(1, 2, &[7]), line(2, 1, &[7]));
    a.handle(at(1), Input::Tell(&word(3)));
    a.handle(at(1), Input::Tell(&Told::WantOffer { group: GroupName::new("calls"), version: Default::default() }));
    a.handle(at(1), Input::Active(GroupName::new("bills"), Some(Epoch(9))));
    let bytes = beat_of(&mut a, at(2));
    b.handle(at(2), Input::Bytes(&bytes));
    let said = outputs(&mut b);
    assert!(said.contains(&Output::Told(word(3))), "{said:?}");
    assert_eq!(said.iter().filter(|o| matches!(o, Output::Told(_))).count(), 1);
    assert!(matches!(said.last(), Some(Output::State { beat: Some(beat), .. }) if beat.active == [(GroupName::new("bills"), Epoch(9))]));
    let later = beat_of(&mut a, at(2) + STANDS);
    b.handle(at(2) + STANDS, Input::Bytes(&later));
    assert!(!outputs(&mut b).contains(&Output::Told(word(3))), "a word that is not given again ends");
}

#[test]
fn a_repeat_a_stranger_and_one_who_was_expelled_are_not_heard() {
    let (mut a, mut b) = (line(1, 2, &[7]), line(2, 1, &[7]));
    let bytes = beat_of(&mut a, at(1));
    let own = beat_of(&mut b, at(1));
    b.handle(at(1), Input::Bytes(&own));
    assert_eq!(b.rejected(), 1, "its own words come back");
    b.handle(at(1), Input::Bytes(&bytes));
    assert_eq!(b.rejected(), 1);
    b.handle(at(1), Input::Bytes(&bytes));
    assert_eq!(b.rejected(), 2, "a repeat");
    let next = beat_of(&mut a, at(2));
    b.handle(at(2), Input::Forget);
    b.handle(at(2), Input::Bytes(&next));
    assert_eq!(b.rejected(), 3, "no key counts any more");
    assert!(beat_of(&mut b, at(3)).is_empty(), "nor is anything said");
}

#[test]
fn a_session_made_at_one_end_only_does_not_silence_the_line() {
    let (mut a, mut b) = (line(1, 2, &[7]), line(2, 1, &[7]));
    let first = beat_of(&mut b, at(1));
    a.handle(at(1), Input::Bytes(&first));
    a.handle(at(1), Input::Key(8, [8; KEY_LENGTH]));
    let before = b.rejected();
    let both = [beat_of(&mut a, at(2)), beat_of(&mut a, at(3))].concat();
    b.handle(at(3), Input::Bytes(&both));
    assert_eq!(b.rejected(), before + 1, "one of two is sealed with what the peer has");
}

#[test]
fn a_line_that_nobody_reads_holds_one_frame_and_a_free_one_never_more_than_it_carries() {
    let mut a = line(1, 2, &[7]);
    let mut bytes = written(&mut a).len();
    for step in 1..100 {
        a.handle(at(step), Input::Tell(&word(step.into())));
        bytes += written(&mut a).len();
    }
    assert!(bytes <= STUFFED_MAX + 1, "{bytes}");
    let mut a = line(1, 2, &[7]);
    let mut bytes = 0;
    for ms in 0..20_000 {
        let now = Instant::ZERO + Duration::from_millis(ms);
        a.handle(now, Input::Written);
        a.handle(now, Input::Tell(&word(ms)));
        bytes += written(&mut a).len();
    }
    assert!(bytes > 0 && bytes <= 20 * BAUD as usize / 10, "{bytes} bytes in 20 s");
}

#[test]
fn a_beat_with_too_much_in_it_keeps_the_words() {
    let active = (0..200).map(|n| (GroupName::new(format!("service-{n}")), Epoch(n))).collect();
    let bytes = encode(Beat { active, words: vec![word(3)], ..Beat::default() });
    let beat: Beat = postcard::from_bytes(&bytes).expect("readable");
    assert_eq!((beat.words, bytes.len() + OVERHEAD <= FRAME_MAX), (vec![word(3)], true));
}

proptest! {
    #[test]
    fn what_is_stuffed_comes_out_whatever_was_on_the_line_before(noise in prop::collection::vec(any::<u8>(), 0..2000), frame in prop::collection::vec(any::<u8>(), 1..FRAME_MAX)) {
        let mut bytes = noise;
        bytes.push(0);
        stuff(&frame, &mut bytes);
        prop_assert!(bytes.len() <= 2000 + 1 + STUFFED_MAX);
        let mut reader = Reader::default();
        let frames: Vec<_> = bytes.iter().filter_map(|b| reader.take(*b)).collect();
        prop_assert_eq!(frames.last(), Some(&frame));
    }

    #[test]
    fn bytes_of_any_kind_are_never_taken_for_a_frame(noise in prop::collection::vec(any::<u8>(), 0..3000)) {
        let mut b = line(2, 1, &[7]);
        b.handle(at(1), Input::Bytes(&noise));
        let said = outputs(&mut b);
        prop_assert!(!is_heard(&said) && !said.iter().any(|o| matches!(o, Output::Told(_))), "{:?}", said);
    }

    #[test]
    fn a_bit_turned_over_or_a_byte_lost_spoils_one_frame_and_the_next_is_heard(place in any::<prop::sample::Index>(), bit in 0..8u8, lost in any::<bool>()) {
        let (mut a, mut b) = (line(1, 2, &[7]), line(2, 1, &[7]));
        let mut bytes = beat_of(&mut a, at(1));
        let at_byte = 1 + place.index(bytes.len() - 2); // the zeros at both ends are doubled on a line at work
        if lost { bytes.remove(at_byte); } else { bytes[at_byte] ^= 1 << bit; }
        b.handle(at(1), Input::Bytes(&bytes));
        prop_assert!(!is_heard(&outputs(&mut b)));
        let next = beat_of(&mut a, at(2));
        b.handle(at(2), Input::Bytes(&next));
        prop_assert!(is_heard(&outputs(&mut b)));
    }
}
