use super::*;
use crate::loadgen::record::{Report, Sums};
use crate::sniffer;

fn seen() -> Seen {
    Seen {
        client: Report {
            mark: "node-killed".into(),
            window_ms: 1000.0,
            outage_ms: 28.123_456,
            open_ms: 0.5,
            longest_wait_ms: 30.0,
            two_actives_ms: 0.0,
            late_max_ms: 0.1,
            voices: vec![(17, "n1".into()), (18, "n3".into())],
            sums: Sums { acknowledged: 11_480, answers: 11_500, ..Sums::default() },
        },
        frames: Some(sniffer::Report { two_speakers_ms: 0.0, speakers: vec![] }),
        calls_up: 2000,
    }
}

fn facts() -> Facts {
    Facts {
        name: "node-killed",
        meant: Meant::Moves,
        active: ("n1".into(), "n3".into()),
        fault: seen(),
        healed: seen(),
        read_back: ReadBack { calls: 2000, acknowledged: 11_480, ..ReadBack::default() },
        chassis_two_actives_ms: 0.0,
        suspensions: 0,
        why: vec!["n3.1.990  beats of n1 stop".into()],
        broken: vec![],
        told: vec![],
    }
}

#[test]
fn a_good_step_keeps_every_promise() {
    let outcome = judge(facts());
    assert!(outcome.broken.is_empty(), "{:?}", outcome.broken);
    assert!(outcome.report.moved);
    assert!(DemoReport::new(Mode::Netns, &[outcome]).ok);
    assert!(!DemoReport::new(Mode::Netns, &[]).ok, "nothing shown is nothing promised");
}

#[test]
fn each_broken_promise_is_found_by_itself() {
    type Break = fn(&mut Facts);
    let breaks: [(&str, Break); 11] = [
        ("the service stayed on n1", |f| f.active.1 = "n1".into()),
        ("the service moved from n1 to n3", |f| f.meant = Meant::Stays),
        ("2 acknowledged changes are lost", |f| f.healed.client.sums.lost = 2),
        ("1 changes were applied twice", |f| f.healed.client.sums.doubled = 1),
        ("3 requests were never answered", |f| f.healed.client.sums.given_up = 3),
        ("4 calls could not be read back", |f| f.read_back.unread = 4),
        ("two actives for 0.000 ms", |f| f.healed.client.two_actives_ms = 0.000_001),
        ("two actives for 7.000 ms", |f| f.healed.frames.as_mut().unwrap().two_speakers_ms = 7.0),
        ("two actives for 1.500 ms", |f| f.chassis_two_actives_ms = 1.5),
        ("nothing was acknowledged", |f| f.healed.client.sums.acknowledged = 0),
        ("the domain cannot say why", |f| f.why.clear()),
    ];
    for (expected, break_it) in breaks {
        let mut broken = facts();
        break_it(&mut broken);
        let outcome = judge(broken);
        assert_eq!(outcome.broken, [expected]);
        assert!(!DemoReport::new(Mode::Netns, &[outcome]).ok);
    }
}

#[test]
fn the_smallest_overlap_does_not_round_to_nothing() {
    let mut broken = facts();
    broken.healed.client.two_actives_ms = 0.000_001;
    assert_eq!(judge(broken).report.two_actives_ms, 0.001);
}

#[test]
fn the_file_is_as_its_schema_says() {
    let report = DemoReport::new(Mode::Userns, &[judge(facts())]);
    assert_eq!(
        serde_json::to_string(&report).unwrap(),
        r#"{"ok":true,"mode":"userns","steps":[{"name":"node-killed","outage_ms":28.123,"acknowledged":11480,"lost":0,"two_actives_ms":0.0,"suspensions":0,"moved":true,"why":["n3.1.990  beats of n1 stop"]}]}"#
    );
}

#[test]
fn the_table_fits_a_serial_terminal() {
    let mut stays = facts();
    (stays.name, stays.meant, stays.active.1) = ("one-link-cut", Meant::Stays, "n1".into());
    let table = table(&[judge(facts()), judge(stays)]);
    assert_eq!(
        table,
        "STEP            MOVED                     GAP  ACKNOWLEDGED  LOST  TWO ACTIVES\n\
         node-killed     n1 -> n3                28 ms        11 480     0         0 ms\n\
         one-link-cut    nothing, as meant       28 ms        11 480     0         0 ms\n"
    );
    assert!(table.lines().all(|l| l.len() <= 80));
}

#[test]
fn figures_are_grouped_by_thousands() {
    assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1 000", "1 234 567"]);
}
