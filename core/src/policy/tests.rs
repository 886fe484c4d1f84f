//! The sandbox, and the checker: what it finds, and that it is silent where it cannot know.


use proptest::prelude::*;

use crate::bundle::compile_bundle;
use crate::diagnostic::{Diagnostic, Level};
use crate::domain::config::Bundle;
use crate::engine::{Config, Engine, Input, Output};
use crate::ids::{Incarnation, Member, NodeId, ObjectName};
use crate::time::{Instant, WallTime};
use crate::value::{Quality, Update, Value};

const CLASS: &str = r#"
class: fan
attributes:
  speed: { type: int, unit: rpm, range: 0..25000 }
  duty:  { type: int, unit: "%", range: 0..100, control: true, safe: 100 }
  mode:  { type: enum, values: [auto, manual], control: true }
  ok:    { type: bool }
  state: { from: speed, normal: running, failed_below: 800, missing: absent }
operations: [reset]
policy: fan.rhai
fallback: { duty: 100 }
"#;
const CHASSIS: &str = "class: chassis\nattributes:\n  heat: { type: int }\n";
const ALARMS: &str = "alarms:\n  fan-failed: { severity: minor, text: A fan does not turn }\n";
const OBJECTS: &str = "objects:\n  /nodes/n1/box:\n    class: chassis\n    children:\n      fan1..3: { class: fan }\n";

fn bundle(policy: &str) -> Bundle {
    let files = [
        ("classes/fan.yaml", CLASS),
        ("classes/chassis.yaml", CHASSIS),
        ("alarms.yaml", ALARMS),
        ("objects/box.yaml", OBJECTS),
        ("fan.rhai", policy),
    ];
    Bundle { files: files.into_iter().map(|(n, t)| (n.to_owned(), t.to_owned())).collect() }
}

fn check(policy: &str) -> Vec<Diagnostic> {
    match compile_bundle(&bundle(policy)) {
        Ok(compiled) => compiled.warnings.clone(),
        Err(wrong) => wrong,
    }
}

/// The one message about a policy, as `code line:column`.
fn one(policy: &str) -> (String, Diagnostic) {
    let wrong = check(policy);
    assert_eq!(wrong.len(), 1, "{}", wrong.iter().map(|d| format!("{d}\n")).collect::<String>());
    let place = wrong[0].place.as_ref().expect("it has a place");
    (format!("{} {}:{}", wrong[0].code, place.line, place.column), wrong[0].clone())
}

#[test]
fn the_example_of_the_manual_is_shown_as_in_the_manual() {
    let policy = concat!(
        "fn on_state(fan, change) {\n",
        "    let running = fan.siblings(\"fan\").filter(|f| f.state == \"runing\");\n",
        "    for f in running { f.claim(\"duty\", 100, \"a sibling failed\"); }\n",
        "}\n"
    );
    let (_, wrong) = one(policy);
    let expected = concat!(
        "error[unknown-value]: the state of a fan is never \"runing\"\n",
        "  fan.rhai:2:61\n",
        "  2 |     let running = fan.siblings(\"fan\").filter(|f| f.state == \"runing\");\n",
        "    |                                                             ^^^^^^^^\n",
        "  help       did you mean \"running\"?  (absent, failed, running)\n",
        "  if it ran  this comparison would always come out the same"
    );
    assert_eq!(wrong.to_string(), expected);
}

#[test]
fn each_kind_of_mistake_is_found_at_its_place() {
    let cases = [
        ("fn on_state(fan, change) { fan.raise(\"fan-faild\"); }", "unknown-alarm 1:38", "fan-failed"),
        ("fn on_state(fan, change) { fan.claim(\"speed\", 100, \"x\"); }", "not-a-control 1:38", "duty"),
        ("fn on_state(fan, change) { fan.claim(\"dutty\", 100, \"x\"); }", "unknown-control 1:38", "duty"),
        ("fn on_state(fan, change) { fan.claim(\"duty\", 101, \"x\"); }", "unknown-value 1:46", ""),
        ("fn on_state(fan, change) { fan.claim(\"duty\", \"full\", \"x\"); }", "unknown-value 1:46", ""),
        ("fn on_state(fan, change) { fan.claim(\"mode\", \"atuo\", \"x\"); }", "unknown-value 1:46", "auto"),
        ("fn on_state(fan, change) { fan.claim(\"duty\", 100, \"x\", \"hihg\"); }", "unknown-value 1:56", "high"),
        ("fn on_state(fan, change) { fan.claim(\"duty\", 100); }", "wrong-arguments 1:32", "why"),
        ("fn on_state(fan, change) { if fan.sped > 3 { fan.reset(); } }", "unknown-attribute 1:35", "speed"),
        ("fn on_state(fan, change) { fan.riase(\"fan-failed\"); }", "unknown-action 1:32", "raise"),
        ("fn on_state(fan, change) { fan.siblings(\"fna\"); }", "unknown-class 1:41", "fan"),
        ("fn on_sped(fan, change) { }", "unknown-handler 1:25", "on_speed"),
        ("fn on_state(fan, change, more) { }", "wrong-arguments 1:32", "fn on_state"),
        ("fn on_state(fan, change) { if change.nwo == 1 { } }", "unknown-attribute 1:38", "now"),
        ("fn on_state(fan, change) { if change.now == \"faild\" { } }", "unknown-value 1:45", "failed"),
        ("fn on_speed(fan, change) { if change.now == \"fast\" { } }", "unknown-value 1:45", ""),
        ("fn on_state(fan, change) { after(\"5\", \"x\"); }", "wrong-type 1:34", "500ms"),
        ("fn on_state(fan, change) { fan.chassis.reset(); }", "unknown-action 1:40", ""),
        ("fn on_state(fan, change) { runing = 3; }", "unknown-name 1:28", ""),
        ("fn on_state(fan, change) { let x = ; }", "syntax 1:36", ""),
        ("fn on_state(fan, change) { if change.new == 1 { } }", "syntax 1:38", "now"),
        ("log(\"hello\");", "outside-handler 1:1", "const"),
        ("fn on_state(fan, change) { import \"x\" as y; }", "syntax 1:28", ""),
    ];
    for (policy, expected, help) in cases {
        let (found, wrong) = one(policy);
        assert_eq!(found, expected, "{wrong}");
        let text = wrong.help.clone().unwrap_or_default();
        assert!(text.contains(help), "{policy}\n{wrong}");
        assert_eq!(wrong.level, Level::Error);
    }
}

#[test]
fn nothing_is_said_where_nothing_can_be_known() {
    let good = [
        "fn on_state(fan, change) { let x = fan.parent; if x != () { log(x.name); } }",
        "fn on_state(fan, change) { let x = fan; x = fan.chassis; x.heat; }",
        "fn pick(f) { f.anything } fn on_state(fan, change) { let m = #{ anything: 3 }; pick(m); }",
        "fn on_state(fan, change) { let seen = []; for f in fan.siblings() { seen.push(f.name); } }",
        "fn on_change(fan, change) { if change.attribute == \"speed\" && change.now > 3 { fan.reset(); } }",
        "const LIMIT = 70; fn on_speed(fan, change) { if change.now != () && change.now < LIMIT { fan.raise(\"fan-failed\"); } }",
        "fn on_state(fan, change) { switch change.now { \"failed\" => fan.reset(), _ => () } }",
        "fn on_start(fan) { after(\"5s\", \"look\"); } fn on_timer(fan, name) { if name == \"look\" { fan.set(\"mode\", \"auto\"); } }",
        "fn on_state(fan, change) { let all = fan.chassis.children(\"fan\"); let n = all.len(); if all[0].state == \"running\" { fan.log(`${n}`); } }",
        "fn cool(fan, others) { for f in others { f.claim(\"duty\", 80, \"x\"); } } fn on_state(fan, change) { cool(fan, fan.siblings(\"fan\")); }",
        "fn on_ok(fan, change) { if change.now == false { fan.raise(\"fan-failed\", \"not ok\", \"b\"); } }",
        "fn on_state(fan, change) { try { fan.reset(); } catch (e) { log(e.to_string()); } }",
        "fn on_alarm(fan, alarm) { if alarm.alarm == \"fan-failed\" && alarm.step == \"raised\" { fan.log(alarm.text); } }",
        "fn on_state(fan, change) { let worst = fan.siblings(\"fan\").map(|f| f.speed).filter(|s| s != ()).reduce(|a, b| if a < b { a } else { b }); log(`${worst}`); }",
    ];
    for policy in good {
        let wrong = check(policy);
        assert!(wrong.is_empty(), "{policy}\n{}", wrong.iter().map(|d| format!("{d}\n")).collect::<String>());
    }
}

#[test]
fn a_policy_without_a_class_is_a_warning_and_a_class_without_its_policy_an_error() {
    let mut files = bundle("fn on_state(fan, change) { }");
    files.files.insert("other.rhai".into(), "fn on_change(x, change) { }".into());
    let compiled = compile_bundle(&files).expect("warnings refuse nothing");
    assert_eq!(compiled.warnings.len(), 1);
    assert_eq!(compiled.warnings[0].code, "unused-policy");
    files.files.remove("fan.rhai");
    let wrong = compile_bundle(&files).expect_err("fan.yaml names it");
    let unknown = wrong.iter().find(|d| d.code == "unknown-policy").expect("said");
    assert_eq!(unknown.place.as_ref().map(|p| (p.file.as_str(), p.line)), Some(("classes/fan.yaml", 10)));
}

struct Box1 {
    engine: Engine,
}

impl Box1 {
    fn new(policy: &str) -> Self {
        let compiled = compile_bundle(&bundle(policy)).unwrap_or_else(|w| panic!("{}", w[0]));
        let mut engine = Engine::new(Config { me: Member { node: NodeId(1), incarnation: Incarnation(1) }, history_max: 1000, journal: false });
        engine.handle(Instant::ZERO, WallTime(1), Input::Bundle(compiled));
        let mut it = Self { engine };
        it.drain();
        it
    }

    fn speed(&mut self, rpm: i64) -> Vec<Output> {
        let update = Update {
            object: ObjectName::new("/nodes/n1/box/fan1"),
            attribute: "speed".into(),
            value: Some(Value::Int(rpm)),
            quality: Quality::Good,
            identity: None,
            cause: None,
        };
        self.engine.handle(Instant::from_nanos(5), WallTime(5), Input::Update(update));
        self.drain()
    }

    fn drain(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.engine.poll_output()).collect()
    }

    /// Types of the alarms that hold.
    fn alarms(&self) -> Vec<String> {
        self.engine.alarms().filter(|(_, a)| a.is_active()).map(|(k, a)| format!("{}: {}", k.kind, a.text)).collect()
    }

    fn duty(&self, fan: u32) -> Option<Value> {
        self.engine.control(&format!("/nodes/n1/box/fan{fan}"), "duty").and_then(|c| c.asked.clone())
    }
}

#[test]
fn a_handler_that_fails_in_the_middle_does_nothing_and_the_fallback_acts() {
    let mut it = Box1::new("fn on_speed(fan, change) { fan.raise(\"fan-failed\"); fan.claim(\"duty\", 10, \"x\");\n let x = 1 / (change.now - change.now); }");
    it.speed(5);
    let alarms = it.alarms();
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    assert!(alarms[0].starts_with("policy-failed: fan.rhai:2: "), "{alarms:?}");
    assert_eq!(it.duty(1), Some(Value::Int(100)), "the class's fallback");
}

#[test]
fn an_infinite_loop_is_stopped_by_operations_alone() {
    let mut it = Box1::new("fn on_speed(fan, change) { fan.claim(\"duty\", 10, \"x\"); loop { } }");
    it.speed(5);
    let alarms = it.alarms();
    assert!(alarms[0].contains("more operations than a call may"), "{alarms:?}");
    assert_eq!(it.duty(1), Some(Value::Int(100)));
}

/// Calls a handler of 2000 turns, where a clock shows these nanoseconds at one look after the other. Its alarms.
fn under_a_clock(shows: impl Fn(u64) -> u64 + Send + Sync + 'static) -> Vec<String> {
    let compiled = compile_bundle(&bundle("fn on_speed(fan, change) { let n = 0; while n < 2000 { n += 1; } }")).expect("good");
    let looks = std::sync::atomic::AtomicU64::new(0);
    compiled.watch.install(move || shows(looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed)));
    let mut it = Box1::new("fn on_start(fan) { }");
    it.engine.handle(Instant::ZERO, WallTime(2), Input::Bundle(compiled));
    it.speed(5);
    it.alarms()
}

#[test]
fn a_clock_stops_a_call_that_takes_too_long() {
    for step in [200_000, 1_000_000] {
        let alarms = under_a_clock(move |look| look * step);
        assert!(alarms[0].contains("longer than a call may"), "{alarms:?}");
    }
}

#[test]
fn a_call_does_not_fail_for_the_time_that_a_host_takes() {
    let alarms = under_a_clock(|look| look * 1_000 + if look < 5 { 0 } else { 1_000_000_000 });
    assert_eq!(alarms, Vec::<String>::new());
}

#[test]
fn the_sandbox_holds() {
    let attacks = [
        ("let s = \"x\"; loop { s += s; }", "grows"),
        ("let a = []; loop { a.push(1); }", "grows"),
        // Rhai does not look at a map's size when an index is assigned; the operations end it at a few thousand keys.
        ("let m = #{}; let n = 0; loop { m[`k${n}`] = n; n += 1; }", "more operations"),
        ("sleep(3600);", "does not sleep"),
        ("deep(1);", "too deeply"),
        ("for i in 0..100000000 { }", "more operations"),
        ("for i in 0..1000 { fan.log(\"x\"); }", "more than 256 actions"),
        ("let a = []; a.pad(100000000, 0);", "grows"),
    ];
    for (attack, expected) in attacks {
        let mut it = Box1::new(&format!("fn deep(n) {{ deep(n + 1) }} fn on_speed(fan, change) {{ {attack} }}"));
        it.speed(5);
        let alarms = it.alarms();
        assert!(alarms.len() == 1 && alarms[0].contains(expected), "{attack}: {alarms:?}");
    }
}

#[test]
fn a_policy_that_works_again_takes_its_fallback_back() {
    let mut it = Box1::new("fn on_speed(fan, change) { if change.now == 13 { throw \"bad luck\"; } }");
    it.speed(13);
    assert_eq!(it.alarms(), ["policy-failed: fan.rhai:1: bad luck"]);
    it.speed(14);
    assert_eq!(it.alarms(), Vec::<String>::new());
    assert_eq!(it.duty(1), None, "nobody holds it, and the class names no rest");
}

#[test]
fn reads_in_one_call_see_one_state_of_the_world() {
    let mut it = Box1::new("fn on_speed(fan, change) { fan.claim(\"duty\", 50, \"x\"); if fan.duty != () { fan.raise(\"fan-failed\"); } }");
    it.speed(5);
    assert_eq!(it.alarms(), Vec::<String>::new());
}

proptest! {
    /// Whatever text is given as a policy, checking it ends without a panic.
    #[test]
    fn checking_never_panics(text in "[a-z(){};.\"=|! \\n]{0,120}") {
        check(&text);
    }

    /// A policy with one letter of a word wrong is refused, or means the same as before.
    #[test]
    fn a_mistyped_word_is_found(position in 0usize..7) {
        let mut word: Vec<char> = "running".chars().collect();
        word[position] = 'q';
        let word: String = word.into_iter().collect();
        let wrong = check(&format!("fn on_state(fan, change) {{ if fan.state == \"{word}\" {{ fan.reset(); }} }}"));
        prop_assert_eq!(wrong.len(), 1);
        prop_assert!(wrong[0].help.as_ref().is_some_and(|h| h.contains("\"running\"")));
    }
}
