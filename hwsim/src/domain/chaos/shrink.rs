//! Reducing a failing script to the fewest faults that still fail in the same way.
//!
//! Delta debugging (Zeller and Hildebrandt, 2002) over the steps: halves, quarters, and so on are left out as long as the run still
//! breaks the same rule. What is left out leaves its waiting time behind, since failures hang on what happens how long after what.
//! Then the features are made plain and the waits short, and single steps are tried again. Every try is a whole run; their number is bounded.

use super::breach::kind;
use super::script::{Script, Step};

/// What shrinking came to.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The smallest script found; it fails.
    pub script: Script,
    /// How it fails.
    pub failure: String,
    /// Runs made.
    pub runs: u32,
    /// Nothing smaller was left to try; otherwise the bound on runs ended it.
    pub is_done: bool,
}

/// Shrinks `script`, which fails with `failure`, in at most `runs_max` runs. `run` plays a script and gives its failure;
/// `progress` is told the number of runs and of steps left after each.
pub fn shrink(script: Script, failure: String, runs_max: u32, run: impl FnMut(&Script) -> Option<String>, progress: impl FnMut(u32, usize)) -> Shrunk {
    let kind = kind(&failure);
    let mut shrinker = Shrinker { best: script, failure, kind, runs: 0, runs_max, run, progress };
    loop {
        let before = shrinker.best.clone();
        shrinker.drop_steps();
        shrinker.plain_features();
        shrinker.short_waits();
        if shrinker.best == before || shrinker.is_spent() {
            let is_done = !shrinker.is_spent();
            let Shrinker { best: script, failure, runs, .. } = shrinker;
            return Shrunk { script, failure, runs, is_done };
        }
    }
}

struct Shrinker<R, P> {
    best: Script,
    failure: String,
    kind: String,
    runs: u32,
    runs_max: u32,
    run: R,
    progress: P,
}

impl<R: FnMut(&Script) -> Option<String>, P: FnMut(u32, usize)> Shrinker<R, P> {
    fn is_spent(&self) -> bool {
        self.runs >= self.runs_max
    }

    /// Keeps `script` if it fails in the same way.
    fn try_it(&mut self, script: Script) -> bool {
        if self.is_spent() || script == self.best {
            return false;
        }
        self.runs += 1;
        let failure = (self.run)(&script).filter(|failure| kind(failure) == self.kind);
        let is_smaller = failure.is_some();
        if let Some(failure) = failure {
            self.failure = failure;
            self.best = script;
        }
        (self.progress)(self.runs, self.best.steps.len());
        is_smaller
    }

    fn drop_steps(&mut self) {
        let mut size = self.best.steps.len().div_ceil(2);
        while size > 0 {
            let mut at = 0;
            while at < self.best.steps.len() {
                let without = without(&self.best, at, size);
                if !self.try_it(without) {
                    at += size;
                }
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
    }

    fn plain_features(&mut self) {
        let mut plain = self.best.clone();
        plain.features.hot_fans.fill(0);
        self.try_it(plain);
        let mut plain = self.best.clone();
        plain.features.wires = None;
        self.try_it(plain);
        let mut plain = self.best.clone();
        plain.features.bad_policies.clear();
        self.try_it(plain);
        if self.best.features.services.len() > 1 {
            for service in self.best.features.services.clone() {
                let mut plain = self.best.clone();
                plain.features.services = vec![service];
                if self.try_it(plain) {
                    break;
                }
            }
        }
    }

    /// Each wait as short as halving makes it, and round.
    fn short_waits(&mut self) {
        for at in 0..=self.best.steps.len() {
            let zero = with_wait(&self.best, at, 0);
            if self.try_it(zero) {
                continue;
            }
            while wait(&self.best, at) >= 2000 {
                let shorter = with_wait(&self.best, at, wait(&self.best, at) / 2000 * 1000);
                if !self.try_it(shorter) {
                    break;
                }
            }
        }
    }
}

fn without(script: &Script, at: usize, size: usize) -> Script {
    let mut script = script.clone();
    let end = (at + size).min(script.steps.len());
    let waited: u64 = script.steps.drain(at..end).map(|s: Step| s.wait_us).sum();
    match script.steps.get_mut(at) {
        Some(next) => next.wait_us += waited,
        None => script.rest_us += waited,
    }
    script
}

/// The wait before the step; past the last one, the rest.
fn wait(script: &Script, at: usize) -> u64 {
    script.steps.get(at).map_or(script.rest_us, |s| s.wait_us)
}

fn with_wait(script: &Script, at: usize, wait_us: u64) -> Script {
    let mut script = script.clone();
    match script.steps.get_mut(at) {
        Some(step) => step.wait_us = wait_us,
        None => script.rest_us = wait_us,
    }
    script
}

#[cfg(test)]
mod tests {
    use sixnines_core::ids::NodeId;

    use super::super::script::{Fault, Features, Place};
    use super::*;

    fn script(steps: u64) -> Script {
        let fault = |n: u64| Fault::NodeHung { node: Place::Node(NodeId(1)), for_us: n };
        Script {
            seed: 1,
            features: Features { services: vec!["calls".into()], clients: 3, hot_fans: vec![2], wires: None, bad_policies: vec![] },
            steps: (0..steps).map(|n| Step { wait_us: 10_000 + n, fault: fault(n) }).collect(),
            rest_us: 500,
        }
    }

    fn has(script: &Script, wanted: u64) -> bool {
        script.steps.iter().any(|s| matches!(s.fault, Fault::NodeHung { for_us, .. } if for_us == wanted))
    }

    #[test]
    fn the_two_faults_that_matter_are_left() {
        let run = |script: &Script| (has(script, 5) && has(script, 17)).then(|| "at 1.0 ms: two actives: n1".to_owned());
        let shrunk = shrink(script(20), "at 9.9 ms: two actives: n2".into(), 500, run, |_, _| {});
        assert!(shrunk.is_done && shrunk.runs < 100, "{} runs", shrunk.runs);
        assert_eq!(shrunk.script.steps.len(), 2);
        assert_eq!((shrunk.script.rest_us, shrunk.script.features.hot_fans.as_slice()), (0, [0].as_slice()));
        assert!(shrunk.script.steps.iter().all(|s| s.wait_us == 0));
    }

    #[test]
    fn a_failure_of_another_kind_is_not_followed() {
        let run = |script: &Script| {
            let same = "at 1.0 ms: two actives: n1".to_owned();
            Some(if script.steps.len() < 3 { "within 5000 ms never: it serves".to_owned() } else { same })
        };
        let shrunk = shrink(script(8), "at 9.9 ms: two actives: n2".into(), 500, run, |_, _| {});
        assert_eq!(shrunk.script.steps.len(), 3);
        assert!(shrunk.failure.contains("two actives"));
    }

    #[test]
    fn the_runs_are_bounded() {
        let run = |script: &Script| has(script, 5).then(|| "two actives".to_owned());
        let shrunk = shrink(script(20), "two actives".into(), 3, run, |_, _| {});
        assert!(shrunk.runs == 3 && !shrunk.is_done);
    }
}
