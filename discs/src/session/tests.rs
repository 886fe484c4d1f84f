//! Single steps, and two sessions over links that lose, repeat, reorder and die, with restarts of either.

mod pair;

use sixnines_core::time::Duration;

use super::*;

const A: LinkId = LinkId(0);
const B: LinkId = LinkId(1);

fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

fn session(limits: Limits) -> Session {
    Session::new(100, limits)
}

fn up(session: &mut Session, link: LinkId, peer_life: u64) {
    let own_life = session.own_life();
    session.handle(at(0), Input::LinkUp { link, own_life, peer_life }).unwrap();
}

fn outputs(session: &mut Session) -> Vec<Output> {
    std::iter::from_fn(|| session.poll_output()).collect()
}

/// Link and number of each frame put on a link, acknowledgements aside.
fn transmitted(session: &mut Session) -> Vec<(u8, u64)> {
    let frames = outputs(session).into_iter().filter_map(|output| match output {
        Output::Transmit { link, frame, .. } if frame.kind != Kind::ACK => Some((link.0, frame.sequence)),
        _ => None,
    });
    frames.collect()
}

fn send(session: &mut Session, now: Instant, class: Class) -> Result<(), SendError> {
    session.send(now, class, Kind::EVENT, Bytes::from_static(b"0123456789"))
}

fn frame(class: Class, sequence: u64) -> Frame {
    Frame { class, kind: Kind::EVENT, sequence, payload: Bytes::from_static(b"x") }
}

fn receive(session: &mut Session, now: Instant, link: LinkId, frame: Frame) {
    session.handle(now, Input::Frame { link, frame }).unwrap();
}

fn ack(lane: Lane, sequence: u64) -> Frame {
    let mut payload = vec![lane as u8];
    payload.extend(sequence.to_le_bytes());
    Frame { class: Class::Control, kind: Kind::ACK, sequence: 0, payload: payload.into() }
}

#[test]
fn urgent_frames_use_every_link_and_others_the_best_one() {
    let mut s = session(Limits::default());
    up(&mut s, A, 7);
    up(&mut s, B, 7);
    outputs(&mut s).clear();
    send(&mut s, at(1), Class::Control).unwrap();
    send(&mut s, at(1), Class::Alarm).unwrap();
    assert_eq!(transmitted(&mut s), [(0, 1), (1, 1), (0, 1), (1, 1)]);
    send(&mut s, at(1), Class::State).unwrap();
    send(&mut s, at(1), Class::Bulk).unwrap();
    assert_eq!(transmitted(&mut s), [(0, 1), (0, 1)]);
}

#[test]
fn the_control_log_has_numbers_of_its_own() {
    let mut s = session(Limits::default());
    up(&mut s, A, 7);
    outputs(&mut s).clear();
    send(&mut s, at(1), Class::Control).unwrap();
    s.send(at(1), Class::Control, Kind::LOG, Bytes::new()).unwrap();
    assert_eq!(transmitted(&mut s), [(0, 1), (0, 1)]);
}

#[test]
fn what_a_dead_link_carried_moves_at_once() {
    let mut s = session(Limits::default());
    up(&mut s, A, 7);
    up(&mut s, B, 7);
    for _ in 0..3 {
        send(&mut s, at(1), Class::State).unwrap();
    }
    outputs(&mut s).clear();
    receive(&mut s, at(2), A, ack(Lane::State, 1));
    s.handle(at(2), Input::LinkDown { link: A }).unwrap();
    assert_eq!(transmitted(&mut s), [(1, 2), (1, 3)]);
    send(&mut s, at(3), Class::State).unwrap();
    assert_eq!(transmitted(&mut s), [(1, 4)]);
}

#[test]
fn a_hint_of_liveness_moves_traffic_while_the_connection_stands() {
    let mut s = session(Limits::default());
    up(&mut s, A, 7);
    up(&mut s, B, 7);
    send(&mut s, at(1), Class::State).unwrap();
    outputs(&mut s).clear();
    s.handle(at(2), Input::LinkHint { link: A, good: false }).unwrap();
    assert_eq!(transmitted(&mut s), [(1, 1)]);
    s.handle(at(3), Input::LinkHint { link: A, good: true }).unwrap();
    assert_eq!(transmitted(&mut s), [], "it stays where it works");
    s.handle(at(4), Input::LinkHint { link: B, good: false }).unwrap();
    assert_eq!(transmitted(&mut s), [(0, 1)]);
}

#[test]
fn a_link_without_progress_is_left_and_patience_grows() {
    let mut s = session(Limits::default());
    up(&mut s, A, 7);
    up(&mut s, B, 7);
    send(&mut s, at(10), Class::State).unwrap();
    outputs(&mut s).clear();
    assert_eq!(s.poll_timeout(), Some(at(60)));
    s.handle(at(60), Input::Timeout).unwrap();
    assert_eq!(transmitted(&mut s), [(1, 1)]);
    assert_eq!(s.poll_timeout(), Some(at(160)));
    s.handle(at(160), Input::Timeout).unwrap();
    assert_eq!(transmitted(&mut s), [(0, 1)]);
    assert_eq!(s.counters().moves, 2);
}

#[test]
fn an_idle_session_wants_no_timer() {
    let mut s = session(Limits::default());
    up(&mut s, A, 7);
    assert_eq!(s.poll_timeout(), None);
    send(&mut s, at(1), Class::State).unwrap();
    receive(&mut s, at(1), A, ack(Lane::State, 1));
    assert_eq!(s.poll_timeout(), None);
    assert!(s.is_settled());
}

#[test]
fn acknowledgements_travel_with_frames_or_after_a_short_while() {
    let mut s = session(Limits::default());
    up(&mut s, A, 7);
    receive(&mut s, at(1), A, frame(Class::State, 1));
    outputs(&mut s).clear();
    send(&mut s, at(2), Class::Telemetry).unwrap();
    let kinds: Vec<_> = outputs(&mut s)
        .into_iter()
        .map(|o| match o {
            Output::Transmit { lane, frame, .. } => (lane, frame.kind),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, [(Lane::Telemetry, Kind::ACK), (Lane::Telemetry, Kind::EVENT)]);

    receive(&mut s, at(10), A, frame(Class::State, 2));
    outputs(&mut s).clear();
    assert_eq!(s.poll_timeout(), Some(at(15)));
    s.handle(at(15), Input::Timeout).unwrap();
    let sent = outputs(&mut s);
    assert_eq!(sent, [Output::Transmit { link: A, lane: Lane::Control, frame: ack(Lane::State, 2) }]);
}

#[test]
fn at_the_bound_send_says_full_and_telemetry_drops_the_oldest() {
    let mut s = session(Limits { window_frames_max: 2, waiting_frames_max: 2, ..Limits::default() });
    up(&mut s, A, 7);
    for class in [Class::State, Class::Bulk, Class::Control, Class::Alarm] {
        send(&mut s, at(1), class).unwrap();
        send(&mut s, at(1), class).unwrap();
        assert_eq!(send(&mut s, at(1), class), Err(SendError::Full), "{class:?}");
    }
    for _ in 0..5 {
        send(&mut s, at(1), Class::Telemetry).unwrap();
    }
    assert_eq!(s.counters().coalesced, 1);
    outputs(&mut s).clear();
    receive(&mut s, at(2), A, ack(Lane::Telemetry, 2));
    assert_eq!(transmitted(&mut s), [(0, 3), (0, 4)], "what waited gets its numbers now");
    receive(&mut s, at(2), A, ack(Lane::State, 1));
    send(&mut s, at(3), Class::State).unwrap();
}

#[test]
fn one_frame_of_any_size_fits_and_a_longer_one_is_refused() {
    let mut s = session(Limits { window_bytes_max: [100; Lane::COUNT], ..Limits::default() });
    up(&mut s, A, 7);
    s.send(at(1), Class::Bulk, Kind::CHECKPOINT, vec![0; PAYLOAD_BYTES_MAX].into()).unwrap();
    assert_eq!(send(&mut s, at(1), Class::Bulk), Err(SendError::Full));
    let long = s.send(at(1), Class::State, Kind::CHECKPOINT, vec![0; PAYLOAD_BYTES_MAX + 1].into());
    assert_eq!(long, Err(SendError::NotSendable));
    assert_eq!(s.send(at(1), Class::State, Kind::ACK, Bytes::new()), Err(SendError::NotSendable));
}

#[test]
fn a_new_life_is_told_and_gets_nothing_of_the_old_one() {
    let mut s = session(Limits::default());
    send(&mut s, at(0), Class::State).unwrap();
    up(&mut s, A, 7);
    assert_eq!(transmitted(&mut s), [(0, 1)], "what was sent before the first contact is kept");
    receive(&mut s, at(1), A, frame(Class::State, 1));
    outputs(&mut s).clear();
    up(&mut s, B, 8);
    let out = outputs(&mut s);
    assert_eq!(out[..2], [Output::Close { link: A }, Output::PeerLife { life: 8 }]);
    assert!(!out.iter().any(|o| matches!(o, Output::Transmit { .. })), "{out:?}");
    assert_eq!(s.counters().lost_with_life, 1);
    receive(&mut s, at(2), A, frame(Class::State, 2));
    assert_eq!(s.counters().stray, 1);
    receive(&mut s, at(2), B, frame(Class::State, 1));
    assert_eq!(s.counters().delivered, 2);
}

#[test]
fn an_old_life_is_shut_out() {
    let mut s = session(Limits::default());
    up(&mut s, A, 8);
    outputs(&mut s).clear();
    up(&mut s, B, 7);
    assert_eq!(outputs(&mut s), [Output::Close { link: B }]);
    assert_eq!(s.peer_life(), 8);
}

#[test]
fn a_life_that_was_refused_goes_on_above_the_known_one() {
    let mut s = session(Limits::default());
    send(&mut s, at(0), Class::State).unwrap();
    s.raise_life(500);
    assert_eq!(s.own_life(), 501);
    s.raise_life(3);
    assert_eq!(s.own_life(), 501);
    s.handle(at(1), Input::LinkUp { link: A, own_life: 100, peer_life: 7 }).unwrap();
    assert_eq!(outputs(&mut s), [Output::Close { link: A }], "a connection of the life before");
    up(&mut s, A, 7);
    assert_eq!(transmitted(&mut s), [(0, 1)]);
}

#[test]
fn faults_of_the_peer_change_nothing() {
    let mut s = session(Limits::default());
    up(&mut s, A, 7);
    send(&mut s, at(1), Class::State).unwrap();
    let bad = |s: &mut Session, frame| s.handle(at(2), Input::Frame { link: A, frame }).unwrap_err();
    assert_eq!(bad(&mut s, ack(Lane::State, 2)), PeerFault::AckAhead { lane: Lane::State, sequence: 2 });
    assert_eq!(bad(&mut s, frame(Class::State, 0)), PeerFault::Unnumbered(Kind::EVENT));
    let mut short = ack(Lane::State, 1);
    short.payload.truncate(8);
    assert_eq!(bad(&mut s, short), PeerFault::BadAck(8));
    assert!(!s.is_settled());
}

#[test]
fn unknown_kinds_take_their_turn_and_are_counted() {
    let mut s = session(Limits::default());
    up(&mut s, A, 7);
    let unknown = Frame { kind: Kind(0xee), ..frame(Class::State, 1) };
    receive(&mut s, at(1), A, unknown);
    receive(&mut s, at(1), A, frame(Class::State, 2));
    assert_eq!((s.counters().unknown_kinds, s.counters().delivered), (1, 1));
}

#[test]
fn giving_up_a_life_gives_up_its_links() {
    let mut s = session(Limits::default());
    up(&mut s, A, 7);
    outputs(&mut s).clear();
    s.raise_life(100);
    assert_eq!(outputs(&mut s), [Output::Close { link: A }, Output::LinkState { links: vec![] }]);
    up(&mut s, A, 7);
    assert_eq!(outputs(&mut s)[0], Output::PeerLife { life: 7 }, "numbers begin anew, so the layers above must know");
}

mod arbitrary {
    use proptest::prelude::*;

    use super::*;

    fn frames() -> impl Strategy<Value = Frame> {
        let sequence = prop_oneof![4 => 0..40u64, 1 => any::<u64>()];
        let words = proptest::collection::vec((0..7u8, 0..9u64), 0..8).prop_map(|words| {
            words.into_iter().flat_map(|(lane, n)| [&[lane][..], &n.to_le_bytes()].concat()).collect::<Vec<u8>>()
        });
        let payload = prop_oneof![words, proptest::collection::vec(any::<u8>(), 0..40)];
        let kind = prop_oneof![0..30u8, Just(Kind::ACK.0), any::<u8>()];
        (0..5usize, kind, sequence, payload).prop_map(|(class, kind, sequence, payload)| Frame {
            class: Class::ALL[class],
            kind: Kind(kind),
            sequence,
            payload: payload.into(),
        })
    }

    proptest! {
        /// An authenticated peer may be wrong in every way: it gets an error or is ignored, and what it may fill is bounded.
        #[test]
        fn frames_of_a_wrong_peer_do_no_harm(frames in proptest::collection::vec((0..3u8, frames()), 0..200)) {
            let limits = Limits { window_frames_max: 16, ..Limits::default() };
            let mut s = session(limits);
            up(&mut s, A, 7);
            up(&mut s, B, 7);
            for (ms, (link, frame)) in (1u64..).zip(frames) {
                // A full window is as good a state as any.
                send(&mut s, at(ms), Class::State).unwrap_or(());
                s.handle(at(ms), Input::Frame { link: LinkId(link), frame }).unwrap_or(());
                s.handle(at(ms), Input::Timeout).unwrap();
                outputs(&mut s).clear();
            }
            for inbound in &s.inbound {
                prop_assert!(inbound.early_frames() <= 16);
            }
        }
    }
}
