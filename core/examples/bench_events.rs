//! How many changes a second one core loop handles: `cargo run --release -p sixnines-core --example bench_events`.
//!
//! `filtered`: readings that change nothing. `threshold`: readings that cross a threshold's hysteresis band without a new word,
//! each an event. `policy`: readings that call a handler of the fan policy. `action`: a claim and its request each time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant as Clock;

use sixnines_core::bundle::{Compiled, compile_bundle};
use sixnines_core::domain::config::{Bundle, chassis_group};
use sixnines_core::engine::{Config, Engine, Input};
use sixnines_core::ids::{Epoch, Incarnation, Member, NodeId, ObjectName};
use sixnines_core::time::{Instant, WallTime};
use sixnines_core::value::{Quality, Update, Value};

const ROUNDS: u64 = 300_000;

fn main() {
    for journal in [false, true] {
        println!("journal {}", if journal { "on" } else { "off" });
        row("filtered", journal, "", |n, _| 5000 + i64::from(n == 0));
        row("threshold", journal, "", |n, _| 5000 + i64::from(n % 2 == 0));
        row("policy, read and compare", journal, "fn on_speed(fan, change) { if change.now != () && change.now < 800 { fan.raise(\"fan-failed\"); } }", |n, _| {
            5000 + i64::from(n % 2 == 0)
        });
        row("policy, fan.rhai's list of siblings", journal, "fn on_speed(fan, change) { let running = fan.siblings(\"fan\").filter(|f| f.state == \"running\"); if running.len() < 2 { fan.raise(\"fan-failed\"); } }", |n, _| {
            5000 + i64::from(n % 2 == 0)
        });
        row("policy and action", journal, "fn on_speed(fan, change) { fan.claim(\"duty\", change.now % 100, \"bench\"); }", |n, _| {
            5000 + i64::from(n % 2 == 0)
        });
    }
}

fn row(name: &str, journal: bool, handler: &str, reading: impl Fn(u64, u64) -> i64) {
    let mut engine = Engine::new(Config { me: Member { node: NodeId(1), incarnation: Incarnation(1) }, history_max: 10_000, journal });
    let wall = WallTime(1_700_000_000_000_000_000);
    engine.handle(Instant::ZERO, wall, Input::Bundle(compiled(handler)));
    engine.handle(Instant::ZERO, wall, Input::Owner { group: chassis_group("mxp1"), epoch: Epoch(1), saved: Vec::new() });
    let fans: Vec<ObjectName> = (1..=5).map(|n| ObjectName::new(format!("/mxp1/fan{n}"))).collect();
    let speed = sixnines_core::ids::AttributeName::new("speed");
    let mut outputs = 0u64;
    let begin = Clock::now();
    for n in 0..ROUNDS {
        let update = Update {
            object: fans[usize::try_from(n % 5).expect("below five")].clone(),
            attribute: speed.clone(),
            value: Some(Value::Int(reading(n / 5, n % 5))),
            quality: Quality::Good,
            identity: None,
            cause: None,
        };
        engine.handle(Instant::from_nanos(n * 1000), wall, Input::Update(update));
        while engine.poll_output().is_some() {
            outputs += 1;
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let calls = engine.counts().calls;
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let rate = ROUNDS as f64 / seconds;
    println!("  {name:<40} {rate:>12.0} changes/s  {outputs:>9} outputs  {calls:>7} calls");
}

fn compiled(handler: &str) -> Arc<Compiled> {
    let class = "class: fan\nattributes:\n  speed: { type: int, stale_after: 3s }\n  duty: { type: int, control: true, safe: 100 }\n  state: { from: speed, normal: running, failed_below: 800, hysteresis: 200 }\n";
    let class = if handler.is_empty() { class.to_owned() } else { format!("{class}policy: fan.rhai\n") };
    let mut files = BTreeMap::from([
        ("classes/fan.yaml".to_owned(), class),
        ("classes/chassis.yaml".to_owned(), "class: chassis\nattributes:\n  power: { type: int }\n".to_owned()),
        ("alarms.yaml".to_owned(), "alarms:\n  fan-failed: { severity: minor, text: A fan does not turn }\n".to_owned()),
        ("objects/mxp1.yaml".to_owned(), "objects:\n  /mxp1:\n    class: chassis\n    children:\n      fan1..5: { class: fan }\n".to_owned()),
    ]);
    if !handler.is_empty() {
        files.insert("fan.rhai".to_owned(), handler.to_owned());
    }
    match compile_bundle(&Bundle { files }) {
        Ok(compiled) => compiled,
        Err(wrong) => panic!("{}", wrong.iter().map(|d| format!("{d}\n")).collect::<String>()),
    }
}
