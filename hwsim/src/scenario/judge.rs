//! Watches what has to come of a step, from the moment at which the step is carried out.

use sixnines_core::time::{Duration, Instant};

use super::report::{Outcome, Verdict};
use super::stage::{Occurrence, Stage};
use super::step::{Expectation, Must, Step};

/// One step's expectation, which may be put to the test many times.
#[derive(Debug)]
pub(super) struct Check {
    line: u32,
    expectation: Expectation,
    open: Vec<Window>,
    tests: u64,
    slowest: Option<Duration>,
    /// The first failure is the last word.
    broken: Option<Verdict>,
}

/// One test that is not over.
#[derive(Clone, Copy, Debug)]
struct Window {
    since: Instant,
    until: Option<Instant>,
}

/// Most tests of one expectation that are open at once: a `whenever` that fires faster than its tests end is one test, not a thousand.
const OPEN_MAX: usize = 64;

impl Check {
    pub(super) fn new(step: &Step) -> Option<Self> {
        let expectation = step.expectation.clone()?;
        Some(Self { line: step.at.line, expectation, open: Vec::new(), tests: 0, slowest: None, broken: None })
    }

    /// The step is carried out now. Returns when the test is over, if it bears a time.
    pub(super) fn begin(&mut self, now: Instant, stage: &dyn Stage) -> Option<Instant> {
        self.tests += 1;
        if self.broken.is_some() {
            return None;
        }
        let limit = match self.expectation.must {
            Must::Hold => {
                if !self.expectation.condition.holds(stage, &[]) {
                    self.break_at(now, stage);
                }
                return None;
            }
            Must::Within(limit) => Some(limit),
            Must::Always(limit) | Must::Never(limit) => limit,
        };
        let window = Window { since: now, until: limit.map(|limit| now + limit) };
        if self.open.len() < OPEN_MAX {
            self.open.push(window);
        }
        window.until
    }

    /// Looks at the open tests; `news` is what has happened since the last look.
    pub(super) fn look(&mut self, now: Instant, stage: &dyn Stage, news: &[Occurrence]) {
        if self.open.is_empty() || self.broken.is_some() {
            return;
        }
        let holds = self.expectation.condition.holds(stage, news);
        match self.expectation.must {
            Must::Hold => {}
            Must::Within(_) if holds => {
                for window in self.open.drain(..) {
                    self.slowest = self.slowest.max(Some(now.since(window.since)));
                }
            }
            Must::Within(_) => {
                if self.open.iter().any(|window| window.until.is_some_and(|until| until <= now)) {
                    self.break_at(now, stage);
                }
            }
            Must::Always(_) if !holds => self.break_at(now, stage),
            Must::Never(_) if holds => self.break_at(now, stage),
            Must::Always(_) | Must::Never(_) => self.open.retain(|window| window.until.is_none_or(|until| until > now)),
        }
    }

    /// The scenario is over; if it was cut short, nobody knows what would have come.
    pub(super) fn end(mut self, now: Instant, stage: &dyn Stage, is_cut_short: bool) -> Outcome {
        let is_open = matches!(self.expectation.must, Must::Within(_)) && !self.open.is_empty();
        if is_open && !is_cut_short {
            self.break_at(now, stage);
        }
        let verdict = match self.broken {
            Some(broken) => broken,
            None if self.tests == 0 || is_open => Verdict::NotReached,
            None => Verdict::Kept,
        };
        Outcome { line: self.line, text: self.expectation.text(), verdict, tests: self.tests, slowest: self.slowest }
    }

    fn break_at(&mut self, now: Instant, stage: &dyn Stage) {
        let momentary = self.expectation.condition.is_momentary() && matches!(self.expectation.must, Must::Never(_));
        let got = if momentary { "it happened".to_owned() } else { self.expectation.condition.explain(stage) };
        self.broken = Some(Verdict::Broken { at: now.since(Instant::ZERO), got });
        self.open.clear();
    }
}
