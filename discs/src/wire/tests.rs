//! The exact bytes of format 1, and what is refused. If a test of exact bytes fails, the code is wrong.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use sixnines_core::ids::NodeId;

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn encoded(frame: &Frame) -> BytesMut {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    bytes
}

fn decoded(bytes: &[u8]) -> Result<Option<Frame>, WireError> {
    let mut decoder = Decoder::default();
    decoder.push(Bytes::copy_from_slice(bytes));
    decoder.next_frame()
}

fn event() -> Frame {
    Frame { class: Class::State, kind: Kind::EVENT, sequence: 0x0102_0304_0506_0708, payload: Bytes::from_static(b"fan") }
}

#[test]
fn version_1_frame_has_these_bytes() {
    let bytes = encoded(&event());
    assert_eq!(hex(&bytes), "3639011102000000030000000807060504030201" .to_owned() + "66616e");
    assert_eq!(decoded(&bytes), Ok(Some(event())));
}

#[test]
fn version_1_hello_has_these_bytes() {
    let hello = Hello {
        protocol: PROTOCOL,
        versions: Versions { oldest: 1, newest: 1 },
        build: "0.1.0".into(),
        domain: "lab".into(),
        node: NodeId(3),
        life: 0x1122,
        role: NodeRole::Node,
    };
    let frame = hello.frame();
    assert_eq!(hex(&frame.payload), "8180a4030101" .to_owned() + "05302e312e30" + "036c6162" + "03" + "a222" + "00");
    assert_eq!(Hello::read(&frame), Ok(Ok(hello)));
}

#[test]
fn version_1_refusals_have_these_bytes() {
    let old = Refusal::OldLife { known: 300 };
    assert_eq!(hex(&old.frame().payload), "02ac02");
    assert_eq!(Hello::read(&old.frame()), Ok(Err(old)));
    let version = Refusal::Version { ours: Versions { oldest: 2, newest: 3 }, theirs: Versions { oldest: 1, newest: 1 } };
    assert_eq!(hex(&version.frame().payload), "0002030101");
    let name = Refusal::Name { claimed: NodeId(9), domain: "lab".into() };
    assert_eq!(hex(&name.frame().payload), "0109036c6162");
}

#[test]
fn kinds_classes_and_lanes_keep_their_numbers() {
    let kinds = [Kind::HELLO, Kind::REFUSED, Kind::ACK, Kind::LOG, Kind::EVENT, Kind::CHECKPOINT, Kind::COMMAND];
    assert_eq!(kinds.map(|k| k.0), [1, 2, 3, 16, 17, 18, 19]);
    let kinds = [Kind::QUERY, Kind::ANSWER, Kind::SUBSCRIBE, Kind::CURSOR, Kind::LEASE, Kind::FEED];
    assert_eq!(kinds.map(|k| k.0), [20, 21, 22, 23, 24, 25]);
    assert_eq!(Class::ALL.map(|c| c as u8), [0, 1, 2, 3, 4]);
    assert_eq!(Lane::ALL.map(|l| l as u8), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_later_hello_with_more_fields_is_read() {
    let hello = Hello {
        protocol: PROTOCOL,
        versions: Versions::OURS,
        build: String::new(),
        domain: "lab".into(),
        node: NodeId(1),
        life: 1,
        role: NodeRole::Witness,
    };
    let mut frame = hello.frame();
    frame.payload = [&frame.payload[..], b"more"].concat().into();
    assert_eq!(Hello::read(&frame), Ok(Ok(hello)));
}

#[test]
fn an_unknown_kind_is_a_frame_and_an_unknown_class_is_not() {
    let mut bytes = encoded(&event());
    bytes[3] = 0xee;
    let frame = decoded(&bytes).unwrap().unwrap();
    assert_eq!(frame.kind, Kind(0xee));
    assert!(!frame.kind.is_known());
    bytes[4] = 5;
    assert_eq!(decoded(&bytes), Err(WireError::Class(5)));
}

#[test]
fn wrong_headers_are_refused_before_their_payload_has_come() {
    let good = encoded(&event());
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        decoded(&bytes[..HEADER_BYTES])
    };
    assert_eq!(with(0, 0x37), Err(WireError::Magic([0x37, 0x39])));
    assert_eq!(with(2, 2), Err(WireError::Version(2, Versions::OURS)));
    assert_eq!(with(2, 0), Err(WireError::Version(0, Versions::OURS)));
    assert_eq!(with(5, 1), Err(WireError::Flags(1)));
    assert_eq!(with(11, 0xff), Err(WireError::Length(0xff00_0003)));
}

#[test]
fn a_frame_of_a_format_to_come_is_read_by_who_agreed_to_it() {
    let frame = event();
    let bytes = [frame.header(2).as_bytes(), &frame.payload].concat();
    let read = |newest| {
        let mut decoder = Decoder::reading(Versions { oldest: 1, newest });
        decoder.push(Bytes::copy_from_slice(&bytes));
        decoder.next_frame()
    };
    assert_eq!(read(2), Ok(Some(frame.clone())));
    assert_eq!(read(1), Err(WireError::Version(2, Versions { oldest: 1, newest: 1 })));
}

#[test]
fn versions_meet_at_the_newest_common_one() {
    let range = |oldest, newest| Versions { oldest, newest };
    assert_eq!(range(1, 3).common(range(2, 5)), Some(3));
    assert_eq!(range(4, 5).common(range(2, 5)), Some(5));
    assert_eq!(range(1, 1).common(range(2, 3)), None);
}

fn frames() -> impl Strategy<Value = Frame> {
    let payload = proptest::collection::vec(any::<u8>(), 0..200);
    (0u8..5, any::<u8>(), any::<u64>(), payload).prop_map(|(class, kind, sequence, payload)| Frame {
        class: Class::from_wire(class).unwrap(),
        kind: Kind(kind),
        sequence,
        payload: payload.into(),
    })
}

proptest! {
    #[test]
    fn frames_survive_being_cut_anywhere(
        sent in proptest::collection::vec(frames(), 1..8),
        cuts in proptest::collection::vec(1usize..90, 1..60),
    ) {
        let mut bytes = BytesMut::new();
        for frame in &sent {
            frame.encode(&mut bytes);
        }
        let mut rest = bytes.freeze();
        let mut decoder = Decoder::default();
        let mut got = Vec::new();
        let mut cuts = cuts.into_iter().cycle();
        while !rest.is_empty() {
            let piece = rest.split_to(cuts.next().unwrap().min(rest.len()));
            decoder.push(piece);
            while let Some(frame) = decoder.next_frame().unwrap() {
                got.push(frame);
            }
        }
        prop_assert_eq!(got, sent);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), prefix in any::<bool>()) {
        let mut decoder = Decoder::default();
        let head = if prefix { &b"69\x01"[..] } else { &[] };
        decoder.push(Bytes::from([head, &bytes].concat()));
        while let Ok(Some(_)) = decoder.next_frame() {}
    }
}
