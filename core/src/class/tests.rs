//! Classes from YAML, and the words of derived states.

use proptest::prelude::*;

use super::*;
use crate::config::parse;
use crate::diagnostic::{Diagnostic, Diagnostics, Source};

const FAN: &str = r#"
class: fan
attributes:
  speed: { type: int, unit: rpm, range: 0..25000, stale_after: 3s }
  duty:  { type: int, unit: "%", range: 0..100, control: true, safe: 100 }
  state: { from: speed, normal: running, failed_below: 800, hysteresis: 200, hold: 1s, missing: absent }
operational: { from: state, disabled: [failed, absent] }
policy: fan.rhai
fallback: { duty: 100 }
"#;

fn read(text: &str) -> (Option<Class>, Vec<Diagnostic>) {
    let source = Source { name: "classes/fan.yaml", text };
    let mut out = Diagnostics::default();
    let class = match parse(source) {
        Ok(root) => read_class(source, &root, &mut out),
        Err(wrong) => {
            out.push(*wrong);
            None
        }
    };
    (class, out.into_sorted())
}

fn fan() -> Class {
    let (class, wrong) = read(FAN);
    assert_eq!(wrong, []);
    class.expect("no errors")
}

#[test]
fn a_class_has_what_its_file_says() {
    let fan = fan();
    assert_eq!(fan.attribute_names().collect::<Vec<_>>(), ["speed", "duty", "state", "operational"]);
    assert_eq!(fan.control_names().collect::<Vec<_>>(), ["duty"]);
    let state = fan.attribute(fan.slot("state").expect("declared"));
    assert_eq!(state.kind.words().collect::<Vec<_>>(), ["running", "failed", "absent"]);
    assert_eq!(fan.fallback, [(fan.slot("duty").expect("declared"), Value::Int(100))]);
}

#[test]
fn every_mistake_is_found_in_one_run_with_its_place_and_what_would_be_right() {
    let text = r#"
class: fan
stale_after: 3s
attributes:
  speed: { type: integer, unit: rpm }
  duty:  { type: int, range: 100..0, contol: true }
  mode:  { type: enum, values: [auto, manual], control: true, safe: atuo }
  state: { from: sped, failed_below: 800 }
  class: { type: int }
operational: { from: state, disabled: [faild] }
polcy: fan.rhai
"#;
    let (_, wrong) = read(text);
    let found: Vec<_> = wrong.iter().map(|d| (d.code.as_str(), d.place.as_ref().map_or(0, |p| p.line))).collect();
    assert_eq!(
        found,
        [
            ("unknown-field", 3),
            ("unknown-type", 5),
            ("wrong-type", 6),
            ("unknown-field", 6),
            ("unknown-value", 7),
            ("unknown-attribute", 8),
            ("bad-name", 9),
            ("unknown-value", 10),
            ("unknown-field", 11),
        ],
        "{}",
        wrong.iter().map(|d| format!("{d}\n")).collect::<String>()
    );
    assert!(wrong[0].help.as_ref().is_some_and(|h| h.contains("under `attributes`")), "{}", wrong[0]);
    assert!(wrong[5].help.as_ref().is_some_and(|h| h.contains("\"speed\"")), "{}", wrong[5]);
}

#[test]
fn a_threshold_that_can_never_hold_is_refused() {
    let (_, wrong) = read("class: x\nattributes:\n  t: { type: int, range: 0..100 }\n  s: { from: t, hot_above: 200 }\n");
    assert_eq!(wrong.len(), 1);
    assert_eq!(wrong[0].code, "out-of-range");
}

#[test]
fn patterns_match_parts() {
    let p = Pattern::new("/nodes/*/cpu*");
    assert!(p.matches("/nodes/n1/cpu0"));
    assert!(!p.matches("/nodes/n1/x/cpu0"));
    assert!(!p.matches("/nodes/n1/memory"));
    assert!(Pattern::new("/mxp1/**").matches("/mxp1/slot3/cpu"));
    assert!(!Pattern::new("/mxp1/**").matches("/mxp1"));
}

proptest! {
    /// Between threshold and threshold + hysteresis the word stays what it was, whatever it was.
    #[test]
    fn within_the_hysteresis_the_word_does_not_change(speed in 800i64..1000, was in prop::sample::select(vec!["running", "failed"])) {
        let fan = fan();
        let derive = fan.attribute(fan.slot("state").expect("declared")).derive.clone().expect("derived");
        prop_assert_eq!(&*derive.word(&Value::Int(speed), Some(was)), was);
    }

    /// A noisy reading around the threshold makes at most one change of word.
    #[test]
    fn noise_smaller_than_the_hysteresis_changes_the_word_at_most_once(noise in prop::collection::vec(-99i64..100, 1..50)) {
        let fan = fan();
        let derive = fan.attribute(fan.slot("state").expect("declared")).derive.clone().expect("derived");
        let mut word: std::sync::Arc<str> = "running".into();
        let mut changes = 0;
        for n in noise {
            let next = derive.word(&Value::Int(800 + n), Some(&word));
            changes += usize::from(next != word);
            word = next;
        }
        prop_assert!(changes <= 1);
    }

    /// Whatever bytes come in, reading ends and says something or gives a class.
    #[test]
    fn reading_never_panics(text in "\\PC{0,200}") {
        let (class, wrong) = read(&text);
        prop_assert!(class.is_some() || !wrong.is_empty());
    }
}

#[test]
fn a_unit_that_nobody_knows_is_refused_with_the_nearest() {
    let (_, wrong) = read("class: fan\nattributes:\n  speed: { type: int, unit: rmp }\n");
    let found: Vec<_> = wrong.iter().map(|d| (d.code.as_str(), d.place.as_ref().map_or(0, |p| p.line))).collect();
    assert_eq!(found, [("unknown-unit", 3)]);
    assert!(wrong[0].to_string().contains("rpm"), "{}", wrong[0]);
}
