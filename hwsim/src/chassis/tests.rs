//! The chassis as a whole: orders, fences, readings, sameness.

use std::collections::BTreeSet;
use std::sync::Arc;

use sixnines_core::bundle::{Compiled, compile_bundle};
use sixnines_core::class::OPERATIONAL;
use sixnines_core::domain::config::Bundle;
use sixnines_core::ids::Epoch;
use sixnines_core::value::{Quality, Value};

use super::*;

fn chassis() -> Chassis {
    Chassis::new(Plan::mxp(), Instant::ZERO)
}

fn order(sequence: u64, object: &str, control: &str, value: Option<Value>, epoch: u64) -> Request {
    let id = EventId { sequence, ..EventId::default() };
    Request { id, object: object.into(), control: control.into(), value, epoch: Epoch(epoch) }
}

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

#[test]
fn a_duty_is_carried_out_and_read_back_with_its_cause() {
    let mut chassis = chassis();
    let request = order(7, "/mxp1/fan4", "duty", Some(Value::Int(100)), 1);
    assert_eq!(chassis.request(at(0), &request), Outcome::Done);
    let duty = chassis.reading("/mxp1/fan4", "duty").expect("it exists");
    assert_eq!((duty.value.clone(), duty.cause), (Some(Value::Int(100)), Some(request.id)));
    chassis.step(at(1));
    let speed = chassis.reading("/mxp1/fan4", "speed").expect("it exists");
    assert!(matches!(speed.value, Some(Value::Int(n)) if (n - 6000).abs() <= 20), "{speed:?}");
    assert_eq!(speed.cause, Some(request.id), "it rose because of the order");
}

#[test]
fn an_older_epoch_is_fenced_and_changes_nothing() {
    let mut chassis = chassis();
    assert_eq!(chassis.request(at(1), &order(1, "/mxp1/fan1", "duty", Some(Value::Int(60)), 5)), Outcome::Done);
    assert_eq!(
        chassis.request(at(2), &order(2, "/mxp1/fan1", "duty", Some(Value::Int(10)), 4)),
        Outcome::Fenced { by: Epoch(5) }
    );
    assert_eq!(chassis.request(at(3), &order(3, "/mxp1/slot2", "reset", None, 4)), Outcome::Fenced { by: Epoch(5) }, "one group");
    assert_eq!(chassis.reading("/mxp1/fan1", "duty").and_then(|r| r.value.clone()), Some(Value::Int(60)));
    assert_eq!(chassis.request(at(4), &order(4, "/mxp1/fan1", "duty", Some(Value::Int(70)), 6)), Outcome::Done);
    let reports = chassis.fences();
    let report = &reports[0];
    assert_eq!((report.group.as_str(), report.highest, report.refused), ("chassis:mxp1", Epoch(6), 2));
    assert_eq!(report.two_actives(), Duration::ZERO);
    let epochs: Vec<_> = report.epochs.iter().map(|e| (e.epoch.0, e.accepted, e.refused)).collect();
    assert_eq!(epochs, [(4, 0, 2), (5, 1, 0), (6, 1, 0)]);
}

#[test]
fn wrong_orders_are_refused_with_what_would_be_right() {
    let mut chassis = chassis();
    for (object, control, value, expected) in [
        ("/mxp1/fan7", "duty", Some(Value::Int(50)), "did you mean \"/mxp1/fan1\"?"),
        ("/mxp1/fan1", "speed", Some(Value::Int(50)), "speed is no control of /mxp1/fan1; one of: duty"),
        ("/mxp1/fan1", "duty", Some(Value::Int(101)), "duty is 0 to 100 %, not 101"),
        ("/mxp1/fan1", "duty", Some(Value::Float(f64::NAN)), "duty is 0 to 100 %"),
        ("/mxp1/fan1", "duty", None, "duty takes a number"),
        ("/mxp1/slot2", "power", Some(Value::Int(1)), "power takes \"on\" or \"off\""),
        ("/mxp1/slot2", "reset", Some(Value::Bool(true)), "reset takes no value"),
        ("/mxp1/slot16", "reset", None, "slot 16 is empty"),
        ("/mxp1/supply1", "reset", None, "it has none"),
    ] {
        match chassis.request(at(1), &order(1, object, control, value, 1)) {
            Outcome::Refused(why) => assert!(why.contains(expected), "{object} {control}: {why}"),
            other => panic!("{object} {control}: {other:?}"),
        }
    }
    assert_eq!(chassis.fences()[0].epochs, [], "nothing was carried out");
}

#[test]
fn a_repeated_reset_is_carried_out_once() {
    let mut plan = Plan::mxp();
    plan.time_scale = 1.0;
    let mut chassis = Chassis::new(plan, Instant::ZERO);
    let power = |chassis: &Chassis| match chassis.reading("/mxp1/slot2", "consumption").and_then(|r| r.value.clone()) {
        Some(Value::Float(watts)) => watts,
        other => panic!("{other:?}"),
    };
    let running = power(&chassis);
    assert_eq!(chassis.request(at(0), &order(1, "/mxp1/slot2", "reset", None, 1)), Outcome::Done);
    assert!(power(&chassis) < 0.8 * running, "it boots");
    chassis.step(at(60));
    assert_eq!(
        chassis.request(at(60), &order(1, "/mxp1/slot2", "reset", None, 1)),
        Outcome::Done,
        "a retry gets the same answer"
    );
    chassis.step(at(92));
    assert!(power(&chassis) > 0.9 * running, "and the boot of 90 s was not begun anew: {} W", power(&chassis));
    assert_eq!(chassis.request(at(92), &order(2, "/mxp1/slot2", "reset", None, 1)), Outcome::Done);
    assert!(power(&chassis) < 0.8 * running, "another one is another one");
}

#[test]
fn a_slot_is_powered_off_and_on() {
    let mut chassis = chassis();
    let state =
        |chassis: &Chassis| chassis.reading("/mxp1/slot7", "hot_swap_state").and_then(|r| r.value.clone()).map(|v| v.to_string());
    chassis.request(at(0), &order(1, "/mxp1/slot7", "power", Some(Value::Enum("off".into())), 1));
    chassis.step(at(1));
    assert_eq!(state(&chassis).as_deref(), Some("M1"));
    assert_eq!(chassis.reading("/mxp1/slot7", "power").and_then(|r| r.value.clone()), Some(Value::Enum("off".into())));
    assert!(matches!(chassis.request(at(1), &order(2, "/mxp1/slot7", "reset", None, 1)), Outcome::Refused(_)), "off");
    chassis.request(at(1), &order(3, "/mxp1/slot7", "power", Some(Value::Enum("on".into())), 1));
    chassis.step(at(2));
    assert_eq!(state(&chassis).as_deref(), Some("M4"));
}

#[test]
fn an_empty_slot_has_a_state_and_nothing_else() {
    let chassis = chassis();
    let reading =
        |attribute| chassis.reading("/mxp1/slot16", attribute).map(|r| (r.value.as_ref().map(Value::to_string), r.quality));
    assert_eq!(reading("hot_swap_state"), Some((Some("M0".into()), Quality::Good)));
    for attribute in ["temperature", "consumption", "power", "blue_led", "cpu_load"] {
        assert_eq!(reading(attribute), Some((None, Quality::Missing)), "{attribute}");
    }
}

#[test]
fn objects_bear_the_agreed_names_and_classes() {
    let chassis = Chassis::new(Plan::mxp().named("mxp2".into()), Instant::ZERO);
    let objects = chassis.objects();
    assert_eq!(objects.len(), 1 + 5 + 3 + 18 + 2 + 1);
    for (name, class) in [
        ("/mxp2", "chassis"),
        ("/mxp2/fan5", "fan"),
        ("/mxp2/supply3", "power-supply"),
        ("/mxp2/slot18", "board"),
        ("/mxp2/fabricA", "fabric"),
        ("/mxp2/shelf-manager", "shelf-manager"),
    ] {
        assert!(objects.contains(&(name.into(), class.into())), "{name}");
    }
    assert_eq!(chassis.group.as_str(), "chassis:mxp2");
    let fan = chassis.readings().find(|r| r.object.as_str() == "/mxp2/fan3").and_then(|r| r.identity.cloned());
    assert_eq!(fan, Some("MXP2-FAN-003".into()));
}

/// Ten seconds as the demo shows them: three fans fail, a policy answers after its hold time, the curve comes back.
#[test]
fn ten_seconds_show_the_rise_and_the_fall() {
    let mut chassis = chassis();
    let mut outlet = Vec::new();
    let mut sequence = 0;
    for tick in 0..100_u64 {
        let now = Instant::ZERO + TICK * u32::try_from(tick).expect("small");
        chassis.step(now);
        if tick == 10 {
            for fan in ["1", "2", "3"] {
                chassis
                    .inject(now, Injection::parse("fan-failed", [format!("fan={fan}").as_str()]).expect("words"))
                    .expect("a fan");
            }
        }
        if tick == 23 {
            for fan in ["/mxp1/fan4", "/mxp1/fan5"] {
                sequence += 1;
                assert_eq!(chassis.request(now, &order(sequence, fan, "duty", Some(Value::Int(100)), 1)), Outcome::Done);
            }
        }
        outlet.push(chassis.outlet_celsius());
    }
    let (first, last) = (outlet[0], outlet[99]);
    let peak = outlet.iter().copied().fold(f64::MIN, f64::max);
    let text = format!("outlet {first:.0} C {} {last:.0} C, peak {peak:.0}", curve_within(&outlet, 20));
    assert!((30.5..32.5).contains(&first) && (38.0..50.0).contains(&peak) && (33.0..36.0).contains(&last), "{text}");
    assert!(text.contains("#") && text.contains(" .."), "{text}");
}

#[test]
fn the_log_tells_what_happened_in_order_and_forgets_the_oldest() {
    let mut chassis = chassis();
    let off = Some(Value::Enum("off".into()));
    chassis.request(at(0), &order(3, "/mxp1/slot7", "power", off, 1));
    chassis.step(at(1));
    let said: Vec<&str> = chassis.log().filter(|e| e.object.as_str() == "/mxp1/slot7").map(|e| e.what.as_str()).collect();
    assert_eq!(said[..2], ["ordered power off, by n0.0.3 in epoch 1", "power off"]);
    assert!(said.contains(&"hot_swap_state M1") && said.contains(&"state off"), "{said:?}");
    for duty in 0..600 {
        chassis
            .request(at(1), &order(duty, "/mxp1/fan1", "duty", Some(Value::Int(i64::try_from(duty % 100).expect("small"))), 1));
    }
    let numbers: Vec<u64> = chassis.log().map(|e| e.number).collect();
    assert_eq!(numbers.len(), 512);
    assert!(numbers[0] > 500 && numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]));
}

/// The bundle that ships, as operators get it.
fn shipped() -> Arc<Compiled> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies");
    let mut bundle = Bundle::default();
    for part in ["", "/classes", "/objects"] {
        for entry in std::fs::read_dir(format!("{root}{part}")).expect("it ships") {
            let path = entry.expect("readable").path();
            if path.is_file() {
                let name = path.strip_prefix(root).expect("below it").to_string_lossy().into_owned();
                bundle.files.insert(name, std::fs::read_to_string(&path).expect("text"));
            }
        }
    }
    compile_bundle(&bundle).unwrap_or_else(|e| panic!("{e:?}"))
}

#[test]
fn the_objects_are_those_of_the_shipped_bundle() {
    let of_bundle: BTreeSet<_> = shipped().objects.iter().map(|o| (o.name.clone(), o.class.clone())).collect();
    let of_chassis: BTreeSet<_> = chassis().objects().into_iter().collect();
    assert_eq!(
        of_bundle.difference(&of_chassis).collect::<Vec<_>>(),
        Vec::<&(ObjectName, ClassName)>::new(),
        "nobody would read these"
    );
    assert_eq!(
        of_chassis.difference(&of_bundle).collect::<Vec<_>>(),
        Vec::<&(ObjectName, ClassName)>::new(),
        "nobody would see these"
    );
}

/// Every reading fits its class, in trouble too, and every attribute that a class waits for is read.
#[test]
fn the_readings_are_those_of_the_shipped_classes() {
    let shipped = shipped();
    let mut chassis = chassis();
    let faults = [
        "",
        "board-hang slot=2",
        "board-pulled slot=3",
        "board-panic slot=7",
        "fan-pulled fan=2",
        "feed-lost feed=A",
        "fabric-down fabric=A",
    ];
    for fault in faults.into_iter().chain(["fabric-lossy fabric=B", "inlet-hot celsius=60", "shelf-manager-silent"]) {
        let mut words = fault.split_whitespace();
        if let Some(name) = words.next() {
            let now = chassis.ticked;
            chassis.inject(now, Injection::parse(name, words).expect("words")).expect("it exists");
        }
        for _ in 0..30 {
            chassis.advance(TICK);
            let classes: std::collections::BTreeMap<_, _> = chassis.objects().into_iter().collect();
            let mut read = BTreeSet::new();
            for named in chassis.readings().filter(|r| !points::DETAILS.contains(&r.attribute.as_str())) {
                let class = &shipped.classes[&classes[named.object]];
                let slot =
                    class.slot(named.attribute.as_str()).unwrap_or_else(|| panic!("a {} has no {}", class.name, named.attribute));
                let attribute = class.attribute(slot);
                assert!(attribute.derive.is_none(), "{} {} is derived", named.object, named.attribute);
                read.insert((class.name.clone(), attribute.name.clone()));
                if let Some(value) = &named.reading.value {
                    let fits = attribute.kind.fit(value).is_some_and(|v| attribute.in_range(&v));
                    assert!(fits, "{} {} is {value} after {fault:?}", named.object, named.attribute);
                }
            }
            for class in classes.values().map(|name| &shipped.classes[name]) {
                for attribute in class.attributes.iter().filter(|a| a.derive.is_none() && a.name.as_str() != OPERATIONAL) {
                    assert!(
                        read.contains(&(class.name.clone(), attribute.name.clone())),
                        "nobody reads {} of a {}",
                        attribute.name,
                        class.name
                    );
                }
            }
        }
    }
}

/// A trace of everything that is read, for comparison.
fn trace(slices: &[u64]) -> Vec<String> {
    let mut chassis = chassis();
    let mut clock = 0;
    for &milliseconds in slices {
        clock += milliseconds;
        chassis.step(Instant::from_nanos(clock * 1_000_000));
    }
    chassis.step(at(20));
    chassis.readings().map(|r| format!("{} {} {:?}", r.object, r.attribute, r.reading)).collect()
}

#[test]
fn readings_do_not_depend_on_how_time_is_sliced() {
    assert_eq!(trace(&[]), trace(&[1, 99, 100, 101, 7, 3000, 55, 1]));
}

#[test]
fn a_steady_chassis_is_quiet() {
    let mut chassis = chassis();
    chassis.step(at(10));
    let before = chassis.revision();
    chassis.step(at(70));
    let changes = chassis.revision() - before;
    assert!(changes < 10, "{changes} changes in a minute of {} sensors", chassis.sensors.len());
}
