//! Carries a scenario out: a machine that says when it wants to look, and looks.
//!
//! At every look: what has happened is judged, conditions that steps wait for are tried, and what is due is done; until nothing more is
//! due. The order is the file's.

use std::collections::{BTreeMap, BTreeSet};

use sixnines_core::time::{Duration, Instant};

use super::judge::Check;
use super::recording::Recorder;
use super::report::{Outcome, Report, Verdict};
use super::stage::{Occurrence, Stage};
use super::step::{Deed, Step, Trigger};
use super::Scenario;

/// How often it looks: as often as the chassis moves.
pub const LOOK: Duration = crate::chassis::TICK;
/// How often deeds may lead to further deeds at one instant; what is left waits for the next look.
const ROUNDS_MAX: usize = 8;
/// Refusals that are told; a step that is repeated a million times says it once.
const REFUSALS_MAX: usize = 20;

/// What must hold in every scenario.
const INVARIANTS: &str = "never two actives, never an acknowledged write lost, never an action without a cause";

/// Runs a scenario to its end.
///
/// # Errors
/// If the stage has gone.
pub fn run(scenario: &Scenario, stage: &mut dyn Stage) -> Result<Report, String> {
    let mut run = Run::new(scenario);
    run.turn(Instant::ZERO, stage);
    while let Some(at) = run.poll_timeout() {
        let at = stage.step(at)?;
        run.turn(at, stage);
        if stage.breach().is_some() {
            break;
        }
    }
    stage.end();
    Ok(run.finish(stage))
}

/// A scenario on its way.
#[derive(Debug)]
pub struct Run<'a> {
    scenario: &'a Scenario,
    end: Instant,
    now: Instant,
    /// Steps that will be carried out, by time and place in the file.
    due: BTreeSet<(Instant, usize)>,
    /// When a test ends: looked at exactly then.
    ends: BTreeSet<Instant>,
    /// Steps that wait for a condition.
    waits: Vec<Wait>,
    checks: BTreeMap<usize, Check>,
    refused: Vec<Outcome>,
    recorder: Recorder,
}

#[derive(Debug)]
struct Wait {
    step: usize,
    /// It held at the last look.
    held: bool,
    /// It has fired, and was to fire once.
    is_over: bool,
}

impl<'a> Run<'a> {
    /// A scenario before its beginning.
    pub fn new(scenario: &'a Scenario) -> Self {
        let mut due = BTreeSet::new();
        let mut waits = Vec::new();
        for (index, step) in scenario.steps.iter().enumerate() {
            match &step.trigger {
                Trigger::At(at) => drop(due.insert((Instant::ZERO + *at, index))),
                Trigger::Every { from, .. } => drop(due.insert((Instant::ZERO + *from, index))),
                Trigger::When { .. } => waits.push(Wait { step: index, held: false, is_over: false }),
            }
        }
        let checks = scenario.steps.iter().enumerate().filter_map(|(i, step)| Some((i, Check::new(step)?))).collect();
        Self {
            scenario,
            end: Instant::ZERO + scenario.lasts,
            now: Instant::ZERO,
            due,
            ends: BTreeSet::new(),
            waits,
            checks,
            refused: Vec::new(),
            recorder: Recorder::new(scenario),
        }
    }

    /// When it wants to look next; `None` when it is over.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.now >= self.end {
            return None;
        }
        let due = self.due.first().map(|(at, _)| *at);
        let ends = self.ends.first().copied();
        let next = due.into_iter().chain(ends).fold(self.now + LOOK, Instant::min);
        Some(next.max(self.now).min(self.end))
    }

    /// Looks, and does what is due.
    pub fn turn(&mut self, now: Instant, stage: &mut dyn Stage) {
        self.now = now;
        for _ in 0..ROUNDS_MAX {
            let news = stage.take_occurrences();
            self.recorder.tell(&news);
            for (what, why) in stage.take_refusals() {
                self.refuse(1, what, why);
            }
            for check in self.checks.values_mut() {
                check.look(now, stage, &news);
            }
            self.try_waits(stage, &news);
            let due = self.take_due();
            if due.is_empty() {
                break;
            }
            for index in due {
                self.carry_out(index, stage);
            }
        }
        self.ends = self.ends.split_off(&(now + Duration::from_nanos(1)));
        self.recorder.sample(now, stage);
    }

    /// What came of it.
    pub fn finish(self, stage: &mut dyn Stage) -> Report {
        let Self { scenario, now, checks, mut refused, recorder, .. } = self;
        let breach = stage.breach();
        let mut outcomes: Vec<Outcome> = checks.into_values().map(|check| check.end(now, stage, breach.is_some())).collect();
        outcomes.append(&mut refused);
        outcomes.sort_by_key(|outcome| outcome.line);
        if let Some(breach) = &breach {
            let verdict = Verdict::Broken { at: now.since(Instant::ZERO), got: breach.what.clone() };
            outcomes.push(Outcome { line: 1, text: INVARIANTS.to_owned(), verdict, tests: 1, slowest: None });
        }
        let (recording, story, story_dropped, events) = recorder.finish(now);
        Report {
            name: scenario.name.clone(),
            text: scenario.text.clone(),
            file: scenario.file.clone(),
            lasted: now.since(Instant::ZERO),
            outcomes,
            story,
            story_dropped,
            recording,
            events,
            trace: breach.map(|breach| breach.story).unwrap_or_default(),
        }
    }

    fn try_waits(&mut self, stage: &dyn Stage, news: &[Occurrence]) {
        let now = self.now;
        for wait in self.waits.iter_mut().filter(|wait| !wait.is_over) {
            let Trigger::When { condition, after, from, until, again } = &self.scenario.steps[wait.step].trigger else { continue };
            if now < Instant::ZERO + *from || now > Instant::ZERO + *until {
                continue;
            }
            let holds = condition.holds(stage, news);
            // What is over at once begins anew each time.
            if holds && (!wait.held || condition.is_momentary()) {
                self.due.insert((now + *after, wait.step));
                wait.is_over = !again;
            }
            wait.held = holds;
        }
    }

    fn take_due(&mut self) -> Vec<usize> {
        let mut taken = Vec::new();
        while let Some((at, index)) = self.due.first().copied().filter(|(at, _)| *at <= self.now) {
            self.due.pop_first();
            taken.push(index);
            if let Trigger::Every { period, until, .. } = &self.scenario.steps[index].trigger
                && at + *period <= Instant::ZERO + *until
            {
                self.due.insert((at + *period, index));
            }
        }
        taken
    }

    fn carry_out(&mut self, index: usize, stage: &mut dyn Stage) {
        let step: &Step = &self.scenario.steps[index];
        for deed in &step.deeds {
            let text = deed.text();
            match self.perform(deed, stage) {
                Ok(()) => self.recorder.note(self.now, text),
                Err(why) => self.refuse(step.at.line, text, why),
            }
        }
        if let Some(check) = self.checks.get_mut(&index) {
            self.ends.extend(check.begin(self.now, stage));
        }
    }

    fn perform(&self, deed: &Deed, stage: &mut dyn Stage) -> Result<(), String> {
        match deed {
            Deed::Inject(injection) => stage.inject(injection),
            Deed::Mend(what) => stage.mend(what),
            Deed::Reading(update) => stage.read(update),
            Deed::Command(body) => stage.command(body),
            Deed::Ask(wish) => stage.ask(wish),
            Deed::Apply { compiled, .. } => stage.apply(compiled),
            Deed::Takeover => stage.take_over(),
        }
    }

    fn refuse(&mut self, line: u32, text: String, why: String) {
        self.recorder.note(self.now, format!("{text}: refused, {why}"));
        if self.refused.len() < REFUSALS_MAX {
            let verdict = Verdict::Refused { at: self.now.since(Instant::ZERO), why };
            self.refused.push(Outcome { line, text, verdict, tests: 1, slowest: None });
        }
    }
}
