//! Three fans of a chassis fail, and its policy does what an operator would.

use std::time::{Duration, Instant};

use crate::demo::report::{Facts, Meant};
use crate::demo::stage::{Notes, Stage};

const CHASSIS: &str = "mxp1";
/// How long the temperature is watched after the other fans run at full speed.
const WATCH: Duration = Duration::from_secs(8);
/// Characters of the curve.
const CURVE_WIDTH: usize = 40;

pub(super) fn failed(stage: &mut Stage, name: &'static str) -> anyhow::Result<Facts> {
    let before = stage.begin(name)?;
    stage.shelf(CHASSIS)?.mark();
    for fan in 1..=3 {
        stage.progress.now(&format!("{name}: fan{fan} of {CHASSIS} fails"));
        stage.domain.inject(CHASSIS, "fan-failed", &format!("fan{fan}"))?;
    }
    stage
        .wait("fan4 and fan5 at full speed", |stage| Ok((stage.shelf(CHASSIS)?.lowest_duty(4..=5) >= 100.0).then_some(())))
        .or_else(|error| Err(error.context(format!("seen at {CHASSIS}: {}", stage.shelf(CHASSIS)?.sight()))))?;
    let until = Instant::now() + WATCH;
    while Instant::now() < until {
        let celsius = stage.shelf(CHASSIS)?.outlet_celsius().unwrap_or(f64::NAN);
        stage.progress.live(&format!("{name}: outlet {celsius:.1} C"));
        std::thread::sleep(Duration::from_millis(200));
    }
    let after = stage.settle(&format!("/{CHASSIS}/fan4"))?;
    let temperatures = stage.shelf(CHASSIS)?.outlets_since_mark();
    stage.domain.clear(CHASSIS)?;
    let mut notes = Notes { told: vec![format!("fan1-3 of {CHASSIS} fail; fan4-5 to 100 %")], broken: vec![] };
    match (temperatures.first(), temperatures.last(), temperatures.iter().copied().reduce(f64::max)) {
        (Some(first), Some(last), Some(peak)) => {
            let curve = sixnines_hwsim::chassis::curve_within(&temperatures, CURVE_WIDTH);
            notes.told.push(format!("outlet {first:.0} C {curve} {last:.0} C, peak {peak:.0}; calls stayed on {}", after.active));
        }
        _ => notes.broken.push("the chassis showed no temperature".to_owned()),
    }
    stage.wait("the fans turn again", |stage| Ok((stage.shelf(CHASSIS)?.failed_fans() == 0).then_some(())))?;
    stage.end(before, Meant::Stays, after, notes)
}
