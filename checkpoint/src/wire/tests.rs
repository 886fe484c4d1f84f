use sixnines_core::ids::{Incarnation, NodeId};

use super::*;
use crate::state::Change;

fn member(node: u16, life: u64) -> Member {
    Member { node: NodeId(node), incarnation: Incarnation(life) }
}

fn cursor(epoch: u64, sequence: u64) -> Cursor {
    Cursor { epoch: Epoch(epoch), sequence: Sequence(sequence) }
}

fn frame(body: Body) -> Frame {
    Frame { from: member(1, 300), to: member(2, 5), epoch: Epoch(2), body }
}

/// The bytes that version 1 has put on the wire. If this fails the code is wrong, not the test.
#[test]
fn the_bytes_of_format_1_stay_as_they_are() {
    let record = Record {
        cursor: cursor(2, 8),
        request: Some(RequestId { client: 1, serial: 2 }),
        changes: vec![
            Change::Put { key: "k".into(), bytes: "v".into() },
            Change::Patch { key: "k".into(), offset: 1, bytes: "w".into() },
            Change::Delete { key: "d".into() },
        ],
    };
    let chunk = Chunk {
        transfer: 1,
        generation: Generation(0),
        start: cursor(2, 7),
        index: 0,
        after: Resume::Sections(None),
        through: Resume::End,
        as_of: cursor(2, 8),
        sections: vec![("k".into(), Section { bytes: "v".into(), version: Sequence(8) })],
        requests: vec![(cursor(2, 8), RequestId { client: 1, serial: 2 })],
    };
    let progress = Progress { transfer: 1, chunks: 1, through: Resume::Requests(Some(cursor(2, 8))), applied: cursor(2, 8) };
    let report = Report { cursor: Some(cursor(2, 8)), held: Sequence(7), read: 3, transfer: Some(progress) };
    let runs = vec![Run { epoch: Epoch(1), first: Sequence(0), last: Sequence(4) }];
    let head = "6b0101ac02020502";
    let cases = [
        (Body::Align { generation: Generation(0), runs }, "000001010004"),
        (Body::Aligned { at: cursor(1, 4) }, "010104"),
        (
            Body::Records { previous: cursor(1, 7), held: Sequence(6), read: 3, records: vec![Arc::new(record)] },
            "02010706030102080101020300016b017601016b010177020164",
        ),
        (Body::Chunk(chunk), "030100020700000002020801016b0176080102080102"),
        (Body::Report(report), "040102080703010101010102080208"),
    ];
    for (body, expected) in cases {
        let frame = frame(body);
        let bytes = frame.encode();
        let text: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(text, format!("{head}{expected}"));
        assert_eq!(Frame::decode(&bytes).expect("own bytes"), frame);
    }
}

#[test]
fn what_is_no_frame_is_refused() {
    let good = frame(Body::Aligned { at: cursor(1, 4) }).encode();
    let is_refused = |bytes: &[u8]| matches!(Frame::decode(bytes), Err(PeerFault::Unreadable(..)));
    assert!(is_refused(&[]));
    assert!(is_refused(&good[..good.len() - 1]));
    assert!(is_refused(&[good.as_slice(), &[0]].concat()));
    let other_format = [&[good[0], 9], &good[2..]].concat();
    assert!(is_refused(&other_format));
}
