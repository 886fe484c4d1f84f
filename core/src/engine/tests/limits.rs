//! At a bound nothing breaks: what has no room is left out and counted, and a replay of it comes to the same.

use super::shelf::{Shelf, compiled, shipped};
use crate::domain::config::Bundle;
use crate::domain::limits::{Limit, Limits, TABLE, markdown};
use crate::engine::{Engine, Input};
use crate::journal::replay::replay;
use crate::value::Value;

fn limited(limit: Limit, bound: u64) -> Shelf {
    let mut shelf = Shelf::with(&shipped(), 1);
    shelf.input(Input::Limits(Limits::default().with(limit, bound)));
    shelf
}

#[test]
fn what_is_found_beyond_the_bound_gets_no_object_and_is_counted() {
    let mut shelf = limited(Limit::Objects, 0);
    let there = shelf.engine.world().objects_count() as u64;
    shelf.input(Input::Limits(Limits::default().with(Limit::Objects, there + 1)));
    for disk in 0..10 {
        shelf.read(&format!("/nodes/n1/disk/d{disk}"), "usage", Value::Float(5.0));
    }
    let counts = shelf.engine.counts();
    assert_eq!((shelf.engine.world().objects_count() as u64, counts.objects_refused), (there + 1, 9), "{counts:?}");
    shelf.input(Input::Limits(Limits::default()));
    shelf.read("/nodes/n1/disk/d9", "usage", Value::Float(6.0));
    assert_eq!(shelf.engine.world().objects_count() as u64, there + 2, "raised, there is room again");

    let report = replay(&shelf.journal, None).expect("its own journal");
    assert_eq!((report.diverged, report.engine.world().objects_count()), (None, shelf.engine.world().objects_count()));
}

#[test]
fn a_bound_below_what_is_there_takes_nothing_away_and_survives_a_snapshot() {
    let shelf = limited(Limit::Objects, 64);
    let there = shelf.engine.world().objects_count();
    let again = Engine::restore(&shelf.engine.snapshot()).expect("its own snapshot");
    assert_eq!((again.world().objects_count(), again.world().objects_max), (there, 64));
    assert_eq!(again.limits(), shelf.engine.limits());
    let unlimited = Shelf::with(&shipped(), 1).engine.snapshot();
    assert_eq!((unlimited[0], shelf.engine.snapshot()[0]), (2, 3), "who says nothing writes what older versions read");
}

/// `on_speed` of this fan counts to `n`.
fn counting(n: u32) -> Bundle {
    let mut bundle = shipped();
    bundle.files.insert("fan.rhai".into(), format!("fn on_speed(fan, change) {{ let n = 0; while n < {n} {{ n += 1; }} fan.claim(\"duty\", 50, \"counted\"); }}"));
    bundle
}

#[test]
fn a_call_beyond_its_operations_fails_by_name_and_a_replay_fails_it_too() {
    let failures = |bound: u64| {
        let mut shelf = Shelf::with(&counting(1000), 1);
        shelf.input(Input::Limits(Limits::default().with(Limit::PolicyOperations, bound)));
        shelf.own(1, Vec::new());
        shelf.speed(1, 5000);
        let report = replay(&shelf.journal, None).expect("its own journal");
        assert_eq!(report.diverged, None, "a replay knows the bound");
        (shelf.engine.counts().failures, shelf.alarm_steps())
    };
    assert_eq!(failures(50_000).0, 0);
    let (failed, alarms) = failures(1000);
    assert_eq!(failed, 1);
    assert!(alarms.contains(&"/mxp1/fan1 policy-failed raised".to_owned()), "{alarms:?}");
}

#[test]
fn the_most_that_a_call_took_can_be_asked() {
    let mut shelf = Shelf::with(&counting(1000), 1);
    shelf.own(1, Vec::new());
    shelf.speed(1, 5000);
    let watch = &shelf.engine.world().compiled.watch;
    let most = watch.take_most();
    assert!((2000..20_000).contains(&most), "{most}");
    assert_eq!(watch.take_most(), 0, "since it was asked last");
}

#[test]
fn policies_that_have_no_room_are_refused_before_they_are_law() {
    let bundle = compiled(&shipped());
    assert!(bundle.exceeds(&Limits::default()).is_empty());
    let wrong = bundle.exceeds(&Limits::default().with(Limit::Objects, 10).with(Limit::AttributesPerObject, 16));
    let texts: Vec<String> = wrong.iter().map(ToString::to_string).collect();
    assert!(texts.iter().any(|t| t.contains("error[over-limit]") && t.contains("limits.objects")), "{texts:?}");
    assert!(texts.iter().all(|t| !t.contains("limits.attributes_per_object") || t.contains("classes/limits.yaml")), "{texts:?}");
}

#[test]
fn the_shipped_class_and_the_readme_have_exactly_the_table() {
    let bundle = compiled(&shipped());
    let class = &bundle.classes["limits"];
    for row in TABLE {
        assert!(class.slot(row.name).is_some() && class.slot(&format!("{}_max", row.name)).is_some(), "{} is missing in classes/limits.yaml", row.name);
    }
    let others = class.attributes.iter().filter(|a| Limit::named(a.name.as_str().trim_end_matches("_max")).is_none());
    assert_eq!(others.map(|a| a.name.as_str()).collect::<Vec<_>>(), ["state", "operational"], "nothing that the table does not have");
    let readme = std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).expect("readable");
    assert!(readme.contains(&markdown()), "README.md has another table; this is the one:\n{}", markdown());
}
