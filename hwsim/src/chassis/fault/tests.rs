//! Every fault of the catalogue, by what it does to the readings.

use std::collections::BTreeSet;

use sixnines_core::ids::{Epoch, EventId};
use sixnines_core::time::Instant;
use sixnines_core::value::{Outcome, Quality, Request, Value};

use super::*;
use crate::chassis::{Chassis, Plan};

fn chassis() -> Chassis {
    Chassis::new(Plan::mxp(), Instant::ZERO)
}

fn now(chassis: &Chassis) -> Instant {
    chassis.poll_timeout() - crate::chassis::TICK
}

/// Injects from words such as `fan-failed fan=3`.
fn inject(chassis: &mut Chassis, text: &str) -> Result<FaultId, FaultError> {
    let mut words = text.split_whitespace();
    let injection = Injection::parse(words.next().unwrap_or_default(), words)?;
    chassis.inject(now(chassis), injection)
}

fn seconds(chassis: &mut Chassis, seconds: u64) {
    chassis.advance(Duration::from_secs(seconds));
}

fn number(chassis: &Chassis, object: &str, attribute: &str) -> f64 {
    match chassis.reading(object, attribute).and_then(|r| r.value.clone()) {
        Some(Value::Int(n)) => n as f64,
        Some(Value::Float(x)) => x,
        other => panic!("{object} {attribute} is {other:?}"),
    }
}

fn shown(chassis: &Chassis, object: &str, attribute: &str) -> (String, Quality) {
    let reading = chassis.reading(object, attribute).expect("it exists");
    (reading.value.as_ref().map_or("-".into(), Value::to_string), reading.quality)
}

fn is(text: &str) -> (String, Quality) {
    (text.into(), Quality::Good)
}

#[test]
fn a_failed_fan_stands_still_and_turns_again_when_cleared() {
    let mut chassis = chassis();
    let id = inject(&mut chassis, "fan-failed fan=3").expect("fan 3 exists");
    seconds(&mut chassis, 1);
    assert!(number(&chassis, "/mxp1/fan3", "speed").abs() < 25.0);
    assert!((number(&chassis, "/mxp1/fan4", "speed") - 2400.0).abs() < 25.0);
    assert_eq!(number(&chassis, "/mxp1/fan3", "duty"), 40.0, "it is still ordered to turn");
    chassis.clear(id).expect("active");
    seconds(&mut chassis, 1);
    assert!((number(&chassis, "/mxp1/fan3", "speed") - 2400.0).abs() < 25.0);
}

#[test]
fn a_worn_fan_reaches_a_part_of_its_speed() {
    let mut chassis = chassis();
    inject(&mut chassis, "fan-worn fan=/mxp1/fan2 percent=50").expect("fan 2 exists");
    seconds(&mut chassis, 1);
    assert!((number(&chassis, "/mxp1/fan2", "speed") - 1200.0).abs() < 25.0);
}

#[test]
fn a_failed_supply_leaves_its_load_to_the_others() {
    let mut chassis = chassis();
    let before = number(&chassis, "/mxp1/supply2", "output_power");
    inject(&mut chassis, "supply-failed supply=1").expect("supply 1 exists");
    seconds(&mut chassis, 1);
    assert_eq!(shown(&chassis, "/mxp1/supply1", "input_ok"), is("false"));
    assert_eq!(number(&chassis, "/mxp1/supply1", "output_power"), 0.0);
    assert!((number(&chassis, "/mxp1/supply2", "output_power") / before - 1.5).abs() < 0.02);
}

#[test]
fn a_stuck_sensor_repeats_itself_while_the_truth_moves() {
    let mut chassis = chassis();
    let before = number(&chassis, "/mxp1", "outlet_temperature");
    inject(&mut chassis, "sensor-stuck object=/mxp1 attribute=outlet_temperature").expect("it exists");
    inject(&mut chassis, "inlet-hot celsius=45").expect("a plain number");
    seconds(&mut chassis, 20);
    assert_eq!(number(&chassis, "/mxp1", "outlet_temperature"), before);
    assert!(chassis.outlet_celsius() > before + 15.0);
    chassis.clear_all();
    assert!(number(&chassis, "/mxp1", "outlet_temperature") > before + 15.0, "it shows the truth again");
}

#[test]
fn a_missing_sensor_has_no_value() {
    let mut chassis = chassis();
    inject(&mut chassis, "sensor-missing object=/mxp1/fan1 attribute=speed").expect("it exists");
    assert_eq!(shown(&chassis, "/mxp1/fan1", "speed"), ("-".into(), Quality::Missing));
    assert_eq!(shown(&chassis, "/mxp1/fan1", "duty"), is("40"));
}

#[test]
fn a_noisy_sensor_scatters() {
    let mut chassis = chassis();
    inject(&mut chassis, "sensor-noisy object=/mxp1/slot2 attribute=temperature sigma=5").expect("it exists");
    let mut seen = Vec::new();
    for _ in 0..200 {
        chassis.advance(crate::chassis::TICK);
        seen.push(number(&chassis, "/mxp1/slot2", "temperature"));
    }
    let mean = seen.iter().sum::<f64>() / 200.0;
    let sigma = (seen.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 200.0).sqrt();
    let truth = chassis.board_celsius(2).expect("there is a board");
    assert!((3.5..6.5).contains(&sigma) && (mean - truth).abs() < 1.5, "mean {mean}, truth {truth}, sigma {sigma}");
}

#[test]
fn a_hung_board_does_not_answer_and_a_reset_cures_it() {
    let mut chassis = chassis();
    inject(&mut chassis, "board-hang slot=4").expect("there is a board");
    assert_eq!(shown(&chassis, "/mxp1/slot4", "hot_swap_state"), is("M7"));
    assert_eq!(shown(&chassis, "/mxp1/slot4", "temperature"), ("-".into(), Quality::Failed));
    assert!(number(&chassis, "/mxp1/slot4", "consumption") > 50.0, "it goes on drawing power");
    let at = now(&chassis);
    let outcome = chassis.request(
        at,
        &Request { id: EventId::default(), object: "/mxp1/slot4".into(), control: "reset".into(), value: None, epoch: Epoch(1) },
    );
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(shown(&chassis, "/mxp1/slot4", "hot_swap_state"), is("M4"));
    assert_eq!(chassis.faults().count(), 0);
}

#[test]
fn a_hot_board_gets_hotter_and_heats_the_outlet() {
    let mut chassis = chassis();
    let (board, outlet) = (chassis.board_celsius(3).expect("there is a board"), chassis.outlet_celsius());
    inject(&mut chassis, "board-hot slot=3 watts=60").expect("there is a board");
    seconds(&mut chassis, 20);
    assert!(chassis.board_celsius(3).expect("there is a board") > board + 8.0);
    assert!(chassis.outlet_celsius() > outlet + 0.2);
}

#[test]
fn a_hot_room_heats_everything() {
    let mut chassis = chassis();
    let before = chassis.outlet_celsius();
    inject(&mut chassis, "inlet-hot").expect("40 degrees are the default");
    seconds(&mut chassis, 30);
    assert_eq!(number(&chassis, "/mxp1", "inlet_temperature"), 40.0);
    let rise = chassis.outlet_celsius() - before;
    assert!((16.5..18.5).contains(&rise), "17 degrees, and a little for leakage: {rise}");
}

#[test]
fn a_pulled_fan_is_missing_and_another_one_comes_back() {
    let mut chassis = chassis();
    let identity =
        |chassis: &Chassis| chassis.readings().find(|r| r.object.as_str() == "/mxp1/fan3").and_then(|r| r.identity.cloned());
    let id = inject(&mut chassis, "fan-pulled fan=3 serial=SPARE-77").expect("fan 3 exists");
    seconds(&mut chassis, 1);
    assert_eq!(shown(&chassis, "/mxp1/fan3", "speed"), ("-".into(), Quality::Missing));
    assert_eq!(identity(&chassis), Some("MXP1-FAN-003".into()));
    let at = now(&chassis);
    let duty = Some(Value::Int(90));
    let order =
        Request { id: EventId::default(), object: "/mxp1/fan3".into(), control: "duty".into(), value: duty, epoch: Epoch(1) };
    assert_eq!(chassis.request(at, &order), Outcome::Refused("there is no fan in /mxp1/fan3".into()));
    chassis.clear(id).expect("active");
    seconds(&mut chassis, 1);
    assert!((number(&chassis, "/mxp1/fan3", "speed") - 2400.0).abs() < 25.0);
    assert_eq!(identity(&chassis), Some("SPARE-77".into()), "the place is the same, the thing is another");
}

#[test]
fn a_pulled_supply_is_missing_and_the_same_one_comes_back() {
    let mut chassis = chassis();
    let id = inject(&mut chassis, "supply-pulled supply=2").expect("supply 2 exists");
    assert_eq!(shown(&chassis, "/mxp1/supply2", "input_ok"), ("-".into(), Quality::Missing));
    chassis.clear(id).expect("active");
    assert_eq!(shown(&chassis, "/mxp1/supply2", "input_ok"), is("true"));
    let of_supply = |r: &crate::chassis::Named<'_>| r.object.as_str() == "/mxp1/supply2";
    assert_eq!(chassis.readings().find(of_supply).and_then(|r| r.identity.cloned()), Some("MXP1-PSU-002".into()));
}

#[test]
fn a_lost_feed_takes_its_supplies_along_and_boards_with_them() {
    let mut chassis = chassis();
    inject(&mut chassis, "feed-lost feed=A").expect("supplies 1 and 2 hang on it");
    seconds(&mut chassis, 1);
    for (supply, ok) in [("supply1", "false"), ("supply2", "false"), ("supply3", "true")] {
        assert_eq!(shown(&chassis, &format!("/mxp1/{supply}"), "input_ok"), is(ok), "{supply}");
    }
    assert_eq!(shown(&chassis, "/mxp1/slot18", "state"), is("off"), "1100 W are not enough");
    assert_eq!(shown(&chassis, "/mxp1/slot1", "state"), is("running"));
    assert!(chassis.log().any(|e| e.object.as_str() == "/mxp1/slot18" && e.what.contains("supplies cannot carry it")));
}

#[test]
fn a_panicked_board_is_reset_by_its_watchdog() {
    let mut chassis = chassis();
    inject(&mut chassis, "board-panic slot=2").expect("there is a board");
    chassis.advance(crate::chassis::TICK);
    assert_eq!(shown(&chassis, "/mxp1/slot2", "state"), is("failed"));
    assert_eq!(shown(&chassis, "/mxp1/slot2", "hot_swap_state"), is("M4"), "its controller answers");
    seconds(&mut chassis, 1);
    assert_eq!(shown(&chassis, "/mxp1/slot2", "state"), is("booting"));
    seconds(&mut chassis, 3);
    assert_eq!(shown(&chassis, "/mxp1/slot2", "state"), is("running"));
    assert_eq!(chassis.faults().count(), 0, "cured");
    let said: Vec<&str> = chassis.log().filter(|e| e.object.as_str() == "/mxp1/slot2").map(|e| e.what.as_str()).collect();
    let expected = ["panicked", "state failed", "was reset by its watchdog", "state booting", "state running"];
    assert_eq!(said, expected);
}

#[test]
fn a_panicked_board_without_watchdog_waits_for_a_reset() {
    let mut chassis = chassis();
    inject(&mut chassis, "board-panic slot=7").expect("there is a board");
    seconds(&mut chassis, 30);
    assert_eq!(shown(&chassis, "/mxp1/slot7", "state"), is("failed"));
}

#[test]
fn a_boot_that_fails_shows_at_the_next_reset() {
    let mut chassis = chassis();
    let id = inject(&mut chassis, "board-boot-fails slot=7").expect("there is a board");
    seconds(&mut chassis, 1);
    assert_eq!(shown(&chassis, "/mxp1/slot7", "state"), is("running"));
    let at = now(&chassis);
    let reset =
        Request { id: EventId::default(), object: "/mxp1/slot7".into(), control: "reset".into(), value: None, epoch: Epoch(1) };
    assert_eq!(chassis.request(at, &reset), Outcome::Done);
    seconds(&mut chassis, 30);
    assert_eq!(shown(&chassis, "/mxp1/slot7", "state"), is("booting"));
    chassis.clear(id).expect("active");
    seconds(&mut chassis, 2);
    assert_eq!(shown(&chassis, "/mxp1/slot7", "state"), is("running"));
}

#[test]
fn a_busy_board_draws_more() {
    let mut chassis = chassis();
    let before = number(&chassis, "/mxp1/slot2", "consumption");
    inject(&mut chassis, "board-busy slot=2").expect("there is a board");
    seconds(&mut chassis, 1);
    assert_eq!(number(&chassis, "/mxp1/slot2", "cpu_load"), 100.0);
    assert!((number(&chassis, "/mxp1/slot2", "consumption") - before - 30.0).abs() < 2.0);
}

#[test]
fn a_leak_fills_the_memory_until_the_board_panics() {
    let mut chassis = chassis();
    inject(&mut chassis, "board-leak slot=7 percent_per_minute=20").expect("there is a board");
    seconds(&mut chassis, 2);
    assert!((number(&chassis, "/mxp1/slot7", "memory_used") - 70.0).abs() <= 2.0, "a minute is a second here");
    seconds(&mut chassis, 2);
    assert_eq!(shown(&chassis, "/mxp1/slot7", "state"), is("failed"));
    assert_eq!(shown(&chassis, "/mxp1/slot7", "memory_used"), ("-".into(), Quality::Missing));
}

#[test]
fn an_open_latch_takes_the_board_down_in_order_and_closing_it_brings_it_back() {
    let mut chassis = chassis();
    let id = inject(&mut chassis, "board-latch-open slot=7").expect("there is a board");
    seconds(&mut chassis, 1);
    assert_eq!(shown(&chassis, "/mxp1/slot7", "hot_swap_state"), is("M1"));
    assert_eq!(shown(&chassis, "/mxp1/slot7", "blue_led"), is("on"));
    assert_eq!(shown(&chassis, "/mxp1/slot7", "power"), is("on"), "nobody ordered it off");
    chassis.clear(id).expect("active");
    seconds(&mut chassis, 1);
    assert_eq!(shown(&chassis, "/mxp1/slot7", "hot_swap_state"), is("M4"));
}

#[test]
fn a_pulled_board_is_absent_and_comes_back_cold() {
    let mut chassis = chassis();
    let id = inject(&mut chassis, "board-pulled slot=7").expect("there is a board");
    seconds(&mut chassis, 1);
    assert_eq!(shown(&chassis, "/mxp1/slot7", "hot_swap_state"), is("M0"));
    assert_eq!(shown(&chassis, "/mxp1/slot7", "state"), is("absent"));
    assert_eq!(shown(&chassis, "/mxp1/slot7", "temperature"), ("-".into(), Quality::Missing));
    chassis.clear(id).expect("active");
    chassis.advance(crate::chassis::TICK);
    assert!(chassis.board_celsius(7).is_some_and(|t| t < 25.0), "cold");
    seconds(&mut chassis, 2);
    assert_eq!(shown(&chassis, "/mxp1/slot7", "state"), is("running"));
}

#[test]
fn a_lossy_fabric_is_degraded() {
    let mut chassis = chassis();
    inject(&mut chassis, "fabric-lossy fabric=A percent=12").expect("there is a fabric A");
    assert_eq!(shown(&chassis, "/mxp1/fabricA", "state"), is("degraded"));
    assert_eq!(number(&chassis, "/mxp1/fabricA", "loss"), 12.0);
}

#[test]
fn a_flapping_fabric_goes_down_and_up() {
    let mut chassis = chassis();
    inject(&mut chassis, "fabric-flapping fabric=A seconds=1").expect("there is a fabric A");
    let mut seen = Vec::new();
    for _ in 0..40 {
        chassis.advance(crate::chassis::TICK);
        let state = shown(&chassis, "/mxp1/fabricA", "state").0;
        if seen.last() != Some(&state) {
            seen.push(state);
        }
    }
    assert_eq!(seen, ["down", "up", "down", "up", "down"]);
}

#[test]
fn a_wrong_sensor_is_off_by_a_constant() {
    let mut chassis = chassis();
    let before = number(&chassis, "/mxp1", "outlet_temperature");
    inject(&mut chassis, "sensor-wrong object=/mxp1 attribute=outlet_temperature offset=-15").expect("it exists");
    assert!((number(&chassis, "/mxp1", "outlet_temperature") - before + 15.0).abs() < 0.15);
}

#[test]
fn a_slow_sensor_follows_late() {
    let mut chassis = chassis();
    inject(&mut chassis, "sensor-slow object=/mxp1 attribute=inlet_temperature seconds=120").expect("it exists");
    inject(&mut chassis, "inlet-hot celsius=43").expect("a plain number");
    seconds(&mut chassis, 2);
    let expected = 43.0 - 20.0 * (-1.0_f64).exp();
    let got = number(&chassis, "/mxp1", "inlet_temperature");
    assert!((got - expected).abs() < 0.2, "{got} instead of {expected} after one time constant");
}

#[test]
fn a_fabric_goes_down_and_up() {
    let mut chassis = chassis();
    let id = inject(&mut chassis, "fabric-down fabric=B").expect("there is a fabric B");
    assert_eq!(shown(&chassis, "/mxp1/fabricB", "state"), is("down"));
    assert_eq!(shown(&chassis, "/mxp1/fabricA", "state"), is("up"));
    chassis.clear(id).expect("active");
    assert_eq!(shown(&chassis, "/mxp1/fabricB", "state"), is("up"));
}

#[test]
fn a_silent_shelf_manager_leaves_everything_stale_and_carries_nothing_out() {
    let mut chassis = chassis();
    inject(&mut chassis, "shelf-manager-silent").expect("no parameters");
    assert_eq!(shown(&chassis, "/mxp1/shelf-manager", "state"), is("failed"));
    assert_eq!(chassis.reading("/mxp1/fan1", "speed").map(|r| r.quality), Some(Quality::Stale));
    let request = Request {
        id: EventId::default(),
        object: "/mxp1/fan1".into(),
        control: "duty".into(),
        value: Some(Value::Int(90)),
        epoch: Epoch(1),
    };
    let at = now(&chassis);
    assert!(matches!(chassis.request(at, &request), Outcome::Refused(_)));
    assert!(chassis.fences().is_empty(), "it was not heard at all");
    chassis.clear_all();
    assert_eq!(chassis.reading("/mxp1/fan1", "speed").map(|r| r.quality), Some(Quality::Good));
}

#[test]
fn a_fault_expires_by_itself() {
    let mut chassis = chassis();
    let injection = Injection {
        expires_after: Some(Duration::from_secs(5)),
        ..Injection::parse("fabric-down", ["fabric=A"]).expect("good words")
    };
    let id = chassis.inject(now(&chassis), injection.clone()).expect("a fabric");
    seconds(&mut chassis, 4);
    assert_eq!(chassis.faults().map(|f| f.id).collect::<Vec<_>>(), [id]);
    let again = chassis.inject(now(&chassis), injection).expect("a fabric");
    assert_eq!(again, id, "the same fault again only moves its end");
    seconds(&mut chassis, 4);
    assert_eq!(chassis.faults().count(), 1);
    seconds(&mut chassis, 2);
    assert_eq!(shown(&chassis, "/mxp1/fabricA", "state"), is("up"));
    assert_eq!(chassis.clear(id), Err(FaultError::NotActive(id)));
}

#[test]
fn a_wrong_injection_is_refused_with_what_would_be_right() {
    let mut chassis = chassis();
    for (words, expected) in [
        ("fan-faild fan=1", "there is no fault \"fan-faild\"\n  help  did you mean \"fan-failed\"?"),
        ("fan-failed fan=6", "/mxp1 has no fan 6\n  help  fan=1 to fan=5"),
        ("fan-failed", "fan-failed needs fan=...\n  help  number of the fan"),
        ("fan-failed slot=1", "fan-failed has no parameter \"slot\"\n  help  one of: fan"),
        ("fan-worn fan=1 percent=100", "fan-worn percent=100 is not a number from 1 to 99"),
        ("fan-worn fan=1 percent=NaN", "percent=NaN is not a number"),
        ("board-hang slot=16", "slot 16 is empty\n  help  boards sit in 1, 2"),
        ("sensor-noisy object=/mxp1/fan1 attribute=duty sigma=1", "duty of /mxp1/fan1 is no measured number"),
        ("fan-pulled fan=1 serial=a\u{7f}b", "fan-pulled takes a serial of at most 64 printable letters"),
        ("feed-lost feed=C", "/mxp1 has no feed C"),
        ("fabric-down fabric=C", "/mxp1 has no fabric C"),
        ("sensor-stuck object=/mxp1/fan9 attribute=speed", "there is no object /mxp1/fan9\n  help  did you mean \"/mxp1/fan1\"?"),
        (
            "sensor-stuck object=/mxp1/fan1 attribute=sped",
            "/mxp1/fan1 has no attribute \"sped\"\n  help  did you mean \"speed\"?",
        ),
        ("shelf-manager-silent now=1", "takes no parameter"),
        ("fan-failed 3", "\"3\" is not NAME=VALUE"),
    ] {
        let error = inject(&mut chassis, words).expect_err(words).to_string();
        assert!(error.contains(expected), "{words}:\n{error}");
    }
    assert_eq!(chassis.faults().count(), 0);
}

/// The catalogue is what `nines sim faults` prints: each entry can be injected, is named once and explains itself.
#[test]
fn every_entry_of_the_catalogue_can_be_injected() {
    let names: BTreeSet<&str> = CATALOGUE.iter().map(|e| e.name).collect();
    assert_eq!(
        names.iter().copied().collect::<Vec<_>>(),
        CATALOGUE.iter().map(|e| e.name).collect::<Vec<_>>(),
        "sorted, without doubles"
    );
    for entry in CATALOGUE {
        assert!(!entry.help.is_empty() && entry.parameters.iter().all(|p| !p.help.is_empty()), "{}", entry.name);
        let mut chassis = chassis();
        let value = |name: &str| match name {
            "fabric" | "feed" => "A",
            "object" => "/mxp1/fan1",
            "attribute" => "speed",
            _ => "2",
        };
        let given = entry.parameters.iter().filter(|p| p.default.is_none());
        let words: Vec<String> = given.map(|p| format!("{}={}", p.name, value(p.name))).collect();
        let injection = Injection::parse(entry.name, words.iter().map(String::as_str)).expect("good words");
        assert!(chassis.inject(Instant::ZERO, injection).is_ok(), "{}", entry.name);
        assert_ne!(chassis.effects, Effects::none(chassis.plan()), "{} does something", entry.name);
    }
}
