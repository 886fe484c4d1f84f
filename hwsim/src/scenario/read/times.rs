//! When steps are carried out, and how long the whole lasts.

use sixnines_core::config::{Data, Fields, Node, parse_duration};
use sixnines_core::diagnostic::{Diagnostic, Diagnostics, Source, Spot};
use sixnines_core::time::Duration;

use super::{SHORTEST, Steps};
use crate::scenario::step::{Must, Step, Trigger, shown};

/// Longer than that is a slip of the keyboard.
const LASTS_MAX: Duration = Duration::from_secs(366 * 86_400);
/// The word for the last moment.
const END: &str = "end";
/// How often one step is repeated at most.
const REPEATS_MAX: u128 = 1_000_000;
/// What is added to the last time that a file names, so that something can come of it.
const REST: Duration = Duration::from_secs(1);

impl Steps<'_> {
    /// `None`: it is wrong, and that was said; `Some(None)`: the step says nothing of it.
    pub(super) fn trigger(&self, fields: &mut Fields<'_>, out: &mut Diagnostics) -> Option<Option<Trigger>> {
        let (at, every) = (fields.take("at"), fields.take("every"));
        let (when, whenever) = (fields.take("when"), fields.take("whenever"));
        let (after, from, until) = (fields.take("after"), fields.take("from"), fields.take("until"));
        let given: Vec<&Node> = [at, every, when, whenever].into_iter().flatten().collect();
        if let [_, second, ..] = given.as_slice() {
            self.names.complain("step", "one step has one time: `at`, `when`, `whenever` or `every`".into(), second.at, None, out);
            return None;
        }
        for (name, node, fits) in [
            ("after", after, when.or(whenever).is_some()),
            ("from", from, at.is_none() && !given.is_empty()),
            ("until", until, at.is_none() && !given.is_empty()),
        ] {
            if let Some(node) = node.filter(|_| !fits) {
                let belongs = if name == "after" { "`when` or `whenever`" } else { "`when`, `whenever` or `every`" };
                self.names.complain("step", format!("`{name}` goes with {belongs}"), node.at, None, out);
                return None;
            }
        }
        let span = self.span(from, until, out)?;
        if let Some(node) = at {
            return self.at(node, out).map(|at| Some(Trigger::At(at)));
        }
        if let Some(node) = every {
            return self.every(node, span, out).map(Some);
        }
        let Some(node) = when.or(whenever) else { return Some(None) };
        let after = match after {
            Some(node) => self.duration("after", node, out)?,
            None => Duration::ZERO,
        };
        let condition = self.names.condition(node, out)?;
        let until = span.1.or(self.lasts).unwrap_or(LASTS_MAX);
        Some(Some(Trigger::When { condition, after, from: span.0.unwrap_or_default(), until, again: whenever.is_some() }))
    }

    fn at(&self, node: &Node, out: &mut Diagnostics) -> Option<Duration> {
        if node.scalar().as_deref() == Some(END) {
            if self.lasts.is_none() {
                self.names.complain("time", "the end of what? the scenario does not say how long it lasts".into(), node.at, Some("lasts: 2m, beside `timeline`".into()), out);
            }
            return self.lasts;
        }
        let at = self.duration("at", node, out)?;
        self.not_beyond("at", at, node, out)
    }

    fn not_beyond(&self, name: &str, at: Duration, node: &Node, out: &mut Diagnostics) -> Option<Duration> {
        match self.lasts {
            Some(lasts) if at > lasts => {
                let message = format!("`{name}: {}` never comes: the scenario lasts {}", shown(at), shown(lasts));
                self.names.complain("time", message, node.at, Some(format!("lasts: {}, or an earlier time", shown(at + REST))), out);
                None
            }
            _ => Some(at),
        }
    }

    /// `from` and `until`.
    fn span(&self, from: Option<&Node>, until: Option<&Node>, out: &mut Diagnostics) -> Option<(Option<Duration>, Option<Duration>)> {
        let mut read = |name: &str, node: Option<&Node>| match node {
            None => Some(None),
            Some(node) => {
                let time = self.duration(name, node, out)?;
                self.not_beyond(name, time, node, out).map(Some)
            }
        };
        let (first, last) = (read("from", from)?, read("until", until)?);
        if let (Some(first), Some(last), Some(node)) = (first, last, until)
            && last < first
        {
            self.names.complain("time", format!("`until: {}` is before `from: {}`", shown(last), shown(first)), node.at, None, out);
            return None;
        }
        Some((first, last))
    }

    fn every(&self, node: &Node, (from, until): (Option<Duration>, Option<Duration>), out: &mut Diagnostics) -> Option<Trigger> {
        let period = self.duration("every", node, out)?;
        if period < SHORTEST {
            self.names.complain("time", format!("`every: {}` is too often", shown(period)), node.at, Some(format!("at least {}", shown(SHORTEST))), out);
            return None;
        }
        let Some(until) = until.or(self.lasts) else {
            let help = "until: 1h, or `lasts` beside `timeline`";
            self.names.complain("time", "`every` has no end".into(), node.at, Some(help.into()), out);
            return None;
        };
        let from = from.unwrap_or(period);
        if from > until {
            let message = format!("`every: {}` never comes: it ends at {}", shown(period), shown(until));
            self.names.complain("time", message, node.at, Some("from: 0s begins at once".into()), out);
            return None;
        }
        let times = (until - from).as_nanos() / period.as_nanos();
        if times > REPEATS_MAX {
            self.names.complain("too-large", format!("that is {times} times"), node.at, None, out);
            return None;
        }
        Some(Trigger::Every { period, from, until })
    }

    /// A duration with its unit.
    pub(super) fn duration(&self, name: &str, node: &Node, out: &mut Diagnostics) -> Option<Duration> {
        duration(self.names.source, name, node, out)
    }
}

pub(super) fn duration(source: Source<'_>, name: &str, node: &Node, out: &mut Diagnostics) -> Option<Duration> {
    let parsed = match &node.data {
        Data::Text(text) => parse_duration(text),
        _ => None,
    };
    if parsed.is_none() {
        let message = format!("`{name}` is a time with its unit, this is {}", node.describe());
        out.push(Diagnostic::error("time", message).at(source, node.at).help("such as 500ms, 10s, 5m, 2h or 1d"));
    }
    parsed
}

/// How long the whole lasts: as the file says, or as long as its steps need. What could not be kept for want of time is said.
pub(super) fn length(source: Source<'_>, said: Option<Duration>, steps: &[Step], at: Spot, out: &mut Diagnostics) -> Duration {
    let mut needed = Duration::ZERO;
    for step in steps {
        let Some(first) = first_time(&step.trigger) else { continue };
        let more = match step.expectation.as_ref().map(|e| e.must) {
            Some(Must::Within(limit)) => limit,
            Some(Must::Always(Some(limit)) | Must::Never(Some(limit))) => limit,
            _ => Duration::ZERO,
        };
        let end = first + more;
        if let Some(lasts) = said.filter(|lasts| end > *lasts) {
            let message = format!("{} and {} more is after the end: the scenario lasts {}", shown(first), shown(more), shown(lasts));
            out.push(Diagnostic::error("time", message).at(source, step.at).help(format!("lasts: {}", shown(end + REST))));
        }
        needed = needed.max(end);
    }
    if said.is_none() && steps.iter().any(|step| matches!(step.trigger, Trigger::When { .. })) {
        let wrong = Diagnostic::error("missing-field", "a scenario that waits for something (`when`) says how long it `lasts`");
        out.push(wrong.at(source, at).help("lasts: 2m"));
    }
    said.unwrap_or(needed + REST)
}

fn first_time(trigger: &Trigger) -> Option<Duration> {
    match trigger {
        Trigger::At(at) => Some(*at),
        // The last one counts: each of them opens what it expects.
        Trigger::Every { period, from, until } => {
            let times = (*until - *from).as_nanos() / period.as_nanos().max(1);
            Some(*from + *period * u32::try_from(times).unwrap_or(u32::MAX))
        }
        Trigger::When { .. } => None,
    }
}
