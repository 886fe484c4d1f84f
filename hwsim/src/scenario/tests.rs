//! Scenario files that are wrong, and what `at`, `when`, `every`, `within`, `always` and `never` mean.

mod domains;
mod judging;
mod mistakes;

use std::collections::BTreeMap;
use std::sync::Arc;

use sixnines_core::bundle::Compiled;
use sixnines_core::diagnostic::{Diagnostic, Source};
use sixnines_core::domain::config::Bundle;
use sixnines_core::engine::CommandBody;
use sixnines_core::event::AlarmStep;
use sixnines_core::ids::{AttributeName, GroupName, NodeId, ObjectName};
use sixnines_core::time::{Duration, Instant};
use sixnines_core::value::{Update, Value};

use super::*;
use crate::chassis::Injection;

/// Just enough classes to have something to look at.
fn bundle() -> Bundle {
    let class = |name: &str, rest: &str| format!("class: {name}\ntext: x\nattributes:\n{rest}\n");
    let files = [
        ("classes/chassis.yaml", class("chassis", "  outlet_temperature: { type: float, unit: °C, range: -40..150 }")),
        ("classes/fan.yaml", class("fan", "  speed: { type: int, unit: rpm }\n  duty: { type: int, range: 0..100, control: true, rest: 40 }\n  state: { from: speed, normal: running, failed_below: 800 }\npolicy: fan.rhai")),
        ("classes/board.yaml", class("board", "  state: { type: enum, values: [absent, off, booting, running, hung, failed] }\noperations: [reset]")),
        ("classes/cpu.yaml", class("cpu", "  usage: { type: float, range: 0..100 }\nnames: [\"/nodes/*/cpu*\"]")),
        ("alarms.yaml", "alarms:\n  fan-failed: { severity: minor, text: x }\n".to_owned()),
        ("fan.rhai", "fn on_state(fan, change) { if change.now == \"failed\" { fan.raise(\"fan-failed\"); } }".to_owned()),
    ];
    Bundle { files: files.into_iter().map(|(name, text)| (name.to_owned(), text)).collect::<BTreeMap<_, _>>() }
}

fn read(text: &str) -> Result<Scenario, Vec<Diagnostic>> {
    Scenario::read(Source { name: "x.yaml", text }, &bundle(), &|file| Err(format!("there is no file {file}")))
}

fn good(text: &str) -> Scenario {
    read(text).unwrap_or_else(|wrong| panic!("{}", wrong.iter().map(|d| format!("{d}\n")).collect::<String>()))
}

/// A stage on which only happens what a test has written down: the speed of fan 1 over time, and resets of slot 2.
#[derive(Default)]
struct Script {
    now: Instant,
    /// From when on it has which value.
    speeds: Vec<(u64, i64)>,
    /// In milliseconds.
    resets: Vec<u64>,
    told: Instant,
    injected: Vec<(Duration, String)>,
    refuses: bool,
}

impl Stage for Script {
    fn step(&mut self, to: Instant) -> Result<Instant, String> {
        assert!(to >= self.now, "time goes on");
        self.now = to;
        Ok(to)
    }

    fn inject(&mut self, injection: &Injection) -> Result<(), String> {
        if self.refuses {
            return Err("not today".to_owned());
        }
        self.injected.push((self.now.since(Instant::ZERO), injection.fault.clone()));
        Ok(())
    }

    fn mend(&mut self, _: &Mend) -> Result<(), String> {
        Ok(())
    }

    fn read(&mut self, _: &Update) -> Result<(), String> {
        Ok(())
    }

    fn command(&mut self, _: &CommandBody) -> Result<(), String> {
        Ok(())
    }

    fn apply(&mut self, _: &Arc<Compiled>) -> Result<(), String> {
        Ok(())
    }

    fn take_over(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn value(&self, object: &ObjectName, attribute: &AttributeName) -> Option<Value> {
        let at = |ms: u64| Instant::ZERO + Duration::from_millis(ms);
        let is_meant = object.as_str() == "/mxp1/fan1" && attribute.as_str() == "speed";
        let speed = self.speeds.iter().rev().find(|(ms, _)| is_meant && at(*ms) <= self.now)?.1;
        (speed >= 0).then_some(Value::Int(speed))
    }

    fn has_alarm(&self, object: &ObjectName, _: Option<&str>) -> bool {
        self.value(object, &AttributeName::new("speed")).is_some_and(|v| v == Value::Int(0))
    }

    fn alarms(&self) -> Vec<String> {
        let fan = ObjectName::new("/mxp1/fan1");
        if self.has_alarm(&fan, None) { vec![format!("fan-failed on {fan}")] } else { Vec::new() }
    }

    fn role(&self, _: &GroupName, _: NodeId) -> Option<RoleWord> {
        None
    }

    fn take_occurrences(&mut self) -> Vec<Occurrence> {
        let told = std::mem::replace(&mut self.told, self.now + Duration::from_nanos(1));
        let at = |ms: &u64| Instant::ZERO + Duration::from_millis(*ms);
        let news = self.resets.iter().map(at).filter(|at| *at >= told && *at <= self.now);
        news.map(|at| Occurrence { at, object: "/mxp1/slot2".into(), attribute: "reset".into(), what: What::Asked(None) }).collect()
    }
}

/// Plays one step list on a script; gives the verdicts' words.
fn verdicts(header: &str, steps: &[&str], script: &mut Script) -> Vec<&'static str> {
    let list: String = steps.iter().map(|step| format!("  - {{ {step} }}\n")).collect();
    let scenario = good(&format!("{header}\ntimeline:\n{list}"));
    let report = run(&scenario, script).expect("a script does not go away");
    report.outcomes.iter().map(|outcome| outcome.verdict.word()).collect()
}

fn speeds(list: &[(u64, i64)]) -> Script {
    Script { speeds: list.to_vec(), ..Script::default() }
}

/// That an alarm's step has its word is what `event ... acknowledged` rests on.
#[test]
fn every_step_of_an_alarm_can_be_waited_for() {
    for step in [AlarmStep::Raised, AlarmStep::Unstable, AlarmStep::Acknowledged, AlarmStep::Unshelved] {
        let word = step.word();
        good(&format!("lasts: 1m\ntimeline:\n  - {{ at: 1s, expect: event /mxp1/fan1 alarm fan-failed {word}, within: 1s }}\n"));
    }
}
