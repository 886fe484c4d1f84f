//! Files that are wrong: each mistake is shown with its place, and none ends in a panic.

use proptest::prelude::*;

use sixnines_core::diagnostic::Place;

use super::*;

/// The first message about one step, with its code and the word that it underlines.
fn wrong(step: &str) -> (String, Diagnostic) {
    let text = format!("lasts: 1m\ntimeline:\n  - {{ {step} }}\n");
    let list = read(&text).err().unwrap_or_else(|| panic!("{step} is wrong"));
    let first = list.into_iter().next().expect("something is said");
    let word = |place: &Place| first.excerpt.iter().flat_map(|line| line.chars()).skip(place.column as usize - 1).take(place.length as usize).collect();
    let word: String = first.place.as_ref().map(word).unwrap_or_default();
    (format!("{} {word}", first.code), first)
}

#[test]
fn a_mistake_is_shown_under_its_word() {
    let cases = [
        ("at: 1s, inject: fan-faild fan=1", "unknown-fault fan-faild", "did you mean \"fan-failed\"?"),
        ("at: 1s, inject: fan-failed fan=9", "fault fan=9", "fan=1 to fan=5"),
        ("at: 1s, inject: fan-failed", "fault fan-failed", "number of the fan"),
        ("at: 1s, inject: fan-failed fen=1", "fault fen=1", "did you mean \"fan\"?"),
        ("at: 1s, inject: inlet-hot celsius=900", "fault celsius=900", "plain number"),
        ("at: 1s, clear: fan-fialed fan=1", "unknown-fault fan-fialed", "fan-failed"),
        ("at: 1s, expect: /mxp1/fan9 speed == 1", "unknown-object /mxp1/fan9", "did you mean /mxp1/fan1?"),
        ("at: 1s, expect: /mxp1/fan1 sped == 1", "unknown-attribute sped", "did you mean \"speed\"?"),
        ("at: 1s, expect: /mxp1/fan1 speed = 1", "condition =", "=="),
        ("at: 1s, expect: /mxp1/fan1 state == runing", "unknown-value runing", "did you mean \"running\"?"),
        ("at: 1s, expect: /mxp1/fan1 state > failed", "condition >", "== or !="),
        ("at: 1s, expect: /mxp1/fan* speed > 1", "condition /mxp1/fan*", "all /mxp1/fan*"),
        ("at: 1s, expect: alarm fan-faild on /mxp1/fan1", "unknown-alarm fan-faild", "did you mean fan-failed?"),
        ("at: 1s, expect: it works", "condition it", "no alarms"),
        ("at: 1s, expect: event /mxp1/slot2 reset", "step event /mxp1/slot2 reset", "within: 5s"),
        ("at: 1s, always: event /mxp1/slot2 reset", "step event /mxp1/slot2 reset", "an attribute"),
        ("at: 1s, set: /mxp1/fan1 speed=3", "not-a-control /mxp1/fan1 speed=3", "duty"),
        ("at: 1s, set: /mxp1/fan1 duty=300", "out-of-range duty=300", ""),
        ("at: 1s, operate: /mxp1/slot2 restart", "unknown-operation restart", "reset"),
        ("at: 1s, reading: /mxp1/fan1 speed=3", "step /mxp1/fan1 speed=3", "sensor-wrong"),
        ("at: 1s, reading: /nodes/n2/cpu0 usage=3", "step /nodes/n2/cpu0 usage=3", "/nodes/n1/cpu0"),
        ("at: 1s, reading: /nodes/n1/cpu0 usage=3, quality: bad", "unknown-value bad", "stale"),
        ("at: 1s, expct: no alarms", "unknown-field expct", "did you mean \"expect\"?"),
        ("at: 1s, lasts: 5m, expect: no alarms", "unknown-field lasts", "at the top, beside `timeline`"),
    ];
    for (step, expected, help) in cases {
        let (found, diagnostic) = wrong(step);
        assert_eq!(found, expected, "{step}\n{diagnostic}");
        assert!(diagnostic.help.as_deref().unwrap_or_default().contains(help), "{step}\n{diagnostic}");
    }
}

#[test]
fn times_that_cannot_be_are_refused() {
    let cases = [
        ("at: 2m, expect: no alarms", "never comes"),
        ("at: 55s, expect: no alarms, within: 10s", "after the end"),
        ("at: 55s, never: alarm on /mxp1/fan1, for: 10s", "after the end"),
        ("at: 10, expect: no alarms", "a time with its unit"),
        ("at: -3s, expect: no alarms", "a time with its unit"),
        ("at: 1s, when: no alarms, expect: no alarms", "one time"),
        ("every: 10ms, expect: no alarms", "too often"),
        ("every: 0s, expect: no alarms", "too often"),
        ("every: 2m, expect: no alarms", "never comes"),
        ("every: 1s, from: 30s, until: 20s, expect: no alarms", "is before"),
        ("at: 1s, until: 20s, expect: no alarms", "goes with"),
        ("at: 1s, after: 20s, expect: no alarms", "goes with"),
        ("expect: no alarms", "does not say when"),
        ("at: 1s", "does nothing"),
        ("at: 1s, within: 3s, inject: fan-failed fan=1", "of what"),
        ("at: 1s, for: 3s, expect: no alarms", "nothing in this step lasts"),
        ("at: 1s, for: 3s, inject: fan-failed fan=1, never: alarm on /mxp1/fan2", "write two steps"),
        ("at: 1s, never: alarm on /mxp1/fan1, within: 3s", "no `within`"),
        ("at: 1s, never: alarm on /mxp1/fan1, always: no alarms", "another expectation"),
    ];
    for (step, expected) in cases {
        let (_, diagnostic) = wrong(step);
        assert!(diagnostic.to_string().contains(expected), "{step}\n{diagnostic}");
    }
}

#[test]
fn a_file_without_a_sense_is_refused() {
    let cases = [
        ("", "needs `timeline`"),
        ("timeline: 3", "a list of steps"),
        ("timeline: []", "nothing is expected"),
        ("timeline:\n  - { at: 1s, inject: fan-failed fan=1 }\n", "cannot fail"),
        ("lasts: 1m\nlasts: 2m\ntimeline: []", "twice"),
        ("timeline:\n  - { at: 1s, at: 2s, expect: no alarms }\n", "twice"),
        ("timeline:\n  - { when: no alarms, expect: no alarms }\n", "how long it `lasts`"),
        ("timeline:\n  - { at: end, expect: no alarms }\n", "the end of what"),
        ("lasts: 0s\ntimeline:\n  - { at: 0s, expect: no alarms }\n", "longer than nothing"),
        ("chassis: mpx\ntimeline: []", "did you mean \"mxp\"?"),
        ("chassis: nowhere.yaml\ntimeline: []", "there is no file"),
        ("policy: fna.rhai\ntimeline: []", "did you mean fan.rhai?"),
        ("lasts: 1m\nevery: 5s\ntimeline: []", "in a step, under `timeline`"),
        ("timeline: [", "not YAML"),
    ];
    for (text, expected) in cases {
        let list = read(text).expect_err(text);
        assert!(list.iter().any(|d| d.to_string().contains(expected)), "{text}\n{list:?}");
    }
}

#[test]
fn all_mistakes_are_found_in_one_run() {
    let text = "timeline:\n  - { at: 1s, inject: fan-faild fan=1 }\n  - { at: 2, expect: no alarms }\n  - { at: 3s, expect: /mxp1/fan7 speed == 1 }\n";
    let lines: Vec<u32> = read(text).expect_err("wrong").iter().filter_map(|d| Some(d.place.as_ref()?.line)).collect();
    assert_eq!(lines, [2, 3, 4]);
}

#[test]
fn a_wrong_chassis_file_is_shown_as_itself() {
    let text = "chassis: shelf.yaml\ntimeline: []";
    let open = |_: &str| Ok("chassis: x\nslots: 3\n".to_owned());
    let list = Scenario::read(Source { name: "x.yaml", text }, &bundle(), &open).expect_err("wrong");
    assert_eq!(list[0].place.as_ref().map(|p| p.file.as_str()), Some("shelf.yaml"));
}

#[test]
fn a_policy_that_is_applied_is_checked_too() {
    let step = "at: 1s, apply: { fan.rhai: \"fn on_state(fan, change) { fan.raise('fan-fialed') }\" }, expect: no alarms";
    let (_, diagnostic) = wrong(step);
    assert_eq!(diagnostic.place.as_ref().map(|p| p.file.as_str()), Some("fan.rhai"), "{diagnostic}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_line_ends_in_a_panic(line in "[ -~]{0,60}", word in "(expect|switchover|readmit|inject|set|reading|clear|ack|at|every|when|for|within|operate|apply)") {
        drop(read(&format!("lasts: 1m\ntimeline:\n  - at: 1s\n    {word}: {line}\n")));
        drop(read(&format!("lasts: 1m\ntimeline:\n  - {{ at: 1s, {word}: {line} }}\n")));
    }

    #[test]
    fn no_head_ends_in_a_panic(line in "[ -~]{0,60}", word in "(domain|services|voters|links|profile|cold|clients|chassis|seed|witnesses)") {
        drop(read(&format!("{word}: {line}\nlasts: 1m\ntimeline:\n  - {{ at: 1s, expect: no alarms }}\n")));
        drop(read(&format!("domain: {{ mxp1: [n1] }}\n{word}: {line}\ntimeline:\n  - {{ at: 1s, expect: no alarms }}\n")));
    }

    #[test]
    fn no_condition_ends_in_a_panic(words in proptest::collection::vec("(no|alarm|on|any|all|event|role|of|is|and|/mxp1/fan1|/mxp1/fan[*]|speed|state|==|>|unknown|fan-failed|100|reset|°é)", 0..9)) {
        drop(read(&format!("lasts: 1m\ntimeline:\n  - {{ at: 1s, expect: {} }}\n", words.join(" "))));
    }
}
