//! What the words of a timeline mean.

use super::*;

const MINUTE: &str = "lasts: 1m";

#[test]
fn within_holds_at_its_last_moment_and_not_after_it() {
    let step = "at: 10s, expect: /mxp1/fan1 speed == 5, within: 5s";
    assert_eq!(verdicts(MINUTE, &[step], &mut speeds(&[(15_000, 5)])), ["kept"]);
    assert_eq!(verdicts(MINUTE, &[step], &mut speeds(&[(15_050, 5)])), ["broken"]);
    // What was true for a moment was true.
    assert_eq!(verdicts(MINUTE, &[step], &mut speeds(&[(0, 1), (12_000, 5), (12_200, 1)])), ["kept"]);
    // What was true before its time does not count, unless it still is.
    assert_eq!(verdicts(MINUTE, &[step], &mut speeds(&[(0, 5), (9_000, 1)])), ["broken"]);
    assert_eq!(verdicts(MINUTE, &[step], &mut speeds(&[(0, 5)])), ["kept"]);
}

#[test]
fn a_window_that_ends_between_two_looks_is_looked_at_when_it_ends() {
    let step = "at: 1s, expect: /mxp1/fan1 speed == 5, within: 250ms";
    assert_eq!(verdicts(MINUTE, &[step], &mut speeds(&[(1_240, 5), (1_260, 1)])), ["kept"]);
    assert_eq!(verdicts(MINUTE, &[step], &mut speeds(&[(1_260, 5)])), ["broken"]);
}

#[test]
fn an_expectation_without_a_window_is_about_its_moment() {
    let step = "at: 10s, expect: /mxp1/fan1 speed == 5";
    assert_eq!(verdicts(MINUTE, &[step], &mut speeds(&[(0, 1), (10_000, 5), (10_001, 1)])), ["kept"]);
    assert_eq!(verdicts(MINUTE, &[step], &mut speeds(&[(10_001, 5)])), ["broken"]);
    let end = "at: end, expect: /mxp1/fan1 speed == 5";
    assert_eq!(verdicts(MINUTE, &[end], &mut speeds(&[(60_000, 5)])), ["kept"]);
}

#[test]
fn never_and_always_last_to_the_end_or_for_their_time() {
    let glitch = [(0, 1), (30_000, 5), (30_100, 1)];
    assert_eq!(verdicts(MINUTE, &["never: /mxp1/fan1 speed == 5"], &mut speeds(&glitch)), ["broken"]);
    assert_eq!(verdicts(MINUTE, &["never: /mxp1/fan1 speed == 6"], &mut speeds(&glitch)), ["kept"]);
    assert_eq!(verdicts(MINUTE, &["at: 1s, never: /mxp1/fan1 speed == 5, for: 29s"], &mut speeds(&glitch)), ["broken"], "its last moment counts");
    assert_eq!(verdicts(MINUTE, &["at: 1s, never: /mxp1/fan1 speed == 5, for: 28s"], &mut speeds(&glitch)), ["kept"]);
    assert_eq!(verdicts(MINUTE, &["always: /mxp1/fan1 speed == 1"], &mut speeds(&glitch)), ["broken"]);
    assert_eq!(verdicts(MINUTE, &["at: 31s, always: /mxp1/fan1 speed == 1"], &mut speeds(&glitch)), ["kept"]);
}

#[test]
fn what_nobody_knows_is_neither_equal_nor_different() {
    let unknown = [(0, 1), (10_000, -1)];
    for condition in ["speed == 1", "speed != 1", "speed < 9", "speed known"] {
        assert_eq!(verdicts(MINUTE, &[&format!("at: 11s, expect: /mxp1/fan1 {condition}")], &mut speeds(&unknown)), ["broken"], "{condition}");
    }
    assert_eq!(verdicts(MINUTE, &["at: 11s, expect: /mxp1/fan1 speed unknown"], &mut speeds(&unknown)), ["kept"]);
}

#[test]
fn when_fires_once_and_whenever_each_time_that_it_begins_to_hold() {
    let twice = [(0, 1), (10_000, 5), (20_000, 1), (30_000, 5)];
    let mut script = speeds(&twice);
    let steps = ["when: /mxp1/fan1 speed == 5, after: 2s, inject: fan-failed fan=1", "at: 0s, expect: no alarms"];
    assert_eq!(verdicts(MINUTE, &steps, &mut script), ["kept"]);
    assert_eq!(script.injected, [(Duration::from_secs(12), "fan-failed".to_owned())]);
    let mut script = speeds(&twice);
    let steps = ["whenever: /mxp1/fan1 speed == 5, inject: fan-failed fan=1", "at: 0s, expect: no alarms"];
    assert_eq!(verdicts(MINUTE, &steps, &mut script), ["kept"]);
    let at: Vec<u64> = script.injected.iter().map(|(at, _)| at.as_secs()).collect();
    assert_eq!(at, [10, 30]);
    let mut script = speeds(&twice);
    let steps = ["whenever: /mxp1/fan1 speed == 5, from: 21s, until: 29s, inject: fan-failed fan=1", "at: 0s, expect: no alarms"];
    assert_eq!(verdicts(MINUTE, &steps, &mut script), ["kept"]);
    assert_eq!(script.injected, [], "it is looked at between 21 and 29 s only");
}

#[test]
fn an_expectation_whose_moment_never_comes_is_not_kept() {
    let step = "when: /mxp1/fan1 speed == 5, expect: no alarms";
    assert_eq!(verdicts(MINUTE, &[step], &mut speeds(&[(0, 1)])), ["not-reached"]);
}

#[test]
fn every_repeats_from_its_period_on_and_each_repeat_is_tested() {
    let mut script = speeds(&[(0, 1)]);
    verdicts(MINUTE, &["every: 20s, inject: fan-failed fan=1", "at: 0s, expect: no alarms"], &mut script);
    let at: Vec<u64> = script.injected.iter().map(|(at, _)| at.as_secs()).collect();
    assert_eq!(at, [20, 40, 60]);
    let step = "every: 10s, from: 0s, expect: /mxp1/fan1 speed == 1, within: 1s, until: 50s";
    assert_eq!(verdicts(MINUTE, &[step], &mut speeds(&[(0, 1), (40_000, 5), (41_100, 1)])), ["broken"], "the fifth of six");
    assert_eq!(verdicts(MINUTE, &[step], &mut speeds(&[(0, 1), (40_000, 5), (40_900, 1)])), ["kept"]);
}

#[test]
fn an_event_counts_once_and_only_after_its_step() {
    let mut script = Script { resets: vec![9_950, 30_000], ..speeds(&[(0, 1)]) };
    let steps = ["at: 10s, expect: event /mxp1/slot2 reset, within: 5s", "at: 29s, expect: event /mxp1/slot2 reset, within: 5s", "at: 31s, never: event /mxp1/slot2 reset"];
    assert_eq!(verdicts(MINUTE, &steps, &mut script), ["broken", "kept", "kept"]);
}

#[test]
fn a_refused_deed_breaks_the_scenario_and_says_why() {
    let mut script = Script { refuses: true, ..speeds(&[(0, 1)]) };
    let scenario = good("lasts: 10s\ntimeline:\n  - { at: 1s, inject: fan-failed fan=1 }\n  - { at: 2s, expect: no alarms }\n");
    let report = run(&scenario, &mut script).expect("it stays");
    assert!(!report.is_good());
    assert_eq!(report.outcomes[0].verdict, Verdict::Refused { at: Duration::from_secs(1), why: "not today".to_owned() });
}

#[test]
fn a_broken_expectation_says_how_it_was() {
    let scenario = good("lasts: 10s\ntimeline:\n  - { at: 1s, expect: /mxp1/fan1 speed == 5 and alarm fan-failed on /mxp1/fan1, within: 2s }\n");
    let report = run(&scenario, &mut speeds(&[(0, 7)])).expect("it stays");
    let Verdict::Broken { at, got } = &report.outcomes[0].verdict else { panic!("{report:?}") };
    assert_eq!((*at, got.as_str()), (Duration::from_secs(3), "/mxp1/fan1 speed 7; no fan-failed"));
}

#[test]
fn a_scenario_lasts_as_long_as_its_steps_need() {
    let scenario = good("timeline:\n  - { at: 10s, expect: no alarms, within: 5s }\n  - { at: 2s, never: alarm on /mxp1/fan1, for: 20s }\n");
    assert_eq!(scenario.lasts, Duration::from_secs(23));
}

#[test]
fn a_day_is_drawn_from_a_bounded_number_of_points() {
    let scenario = good("lasts: 1h\ntimeline:\n  - at: end\n    expect: /mxp1/fan1 speed > 0\n");
    let report = run(&scenario, &mut speeds(&[(0, 7)])).expect("it stays");
    let points = report.recording.series[0].points.len();
    assert!((1000..=1201).contains(&points), "{points}");
}
