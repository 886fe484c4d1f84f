//! From YAML to a [`Scenario`]: everything that is wrong with it is found in one run, each with its place.

mod deeds;
mod domain;
mod header;
mod times;

use sixnines_core::config::{self, Data, Fields, Node};
use sixnines_core::diagnostic::{Diagnostic, Diagnostics, Source, Spot};
use sixnines_core::domain::config::Bundle;
use sixnines_core::time::Duration;

use super::condition::Reader;
use super::step::{Expectation, Must, Step, Trigger};
use super::{Open, Scenario};
use header::Header;

/// More would be a file that nobody wrote by hand.
const STEPS_MAX: usize = 1000;
/// The shortest time that makes sense: the chassis moves in such steps.
const SHORTEST: Duration = crate::chassis::TICK;

pub(super) fn scenario(source: Source<'_>, bundle: &Bundle, open: Open<'_>) -> Result<Scenario, Vec<Diagnostic>> {
    let root = config::parse(source).map_err(|wrong| vec![*wrong])?;
    let mut out = Diagnostics::default();
    let mut fields = Fields::new(source, "a scenario", &root, &mut out);
    fields.elsewhere(&STEP_FIELDS.map(|field| (field, "in a step, under `timeline`")));
    let Some(mut header) = Header::read(source, &mut fields, bundle, open, &mut out)? else {
        return Err(out.into_sorted()); // without its setting nothing else can be judged
    };
    let timeline = fields.require("timeline", &mut out);
    fields.finish(&mut out);
    timeline.into_iter().flat_map(objects_read).for_each(|name| header.setting.await_object(name));
    let reader = Steps { names: Reader { source, setting: &header.setting }, open, lasts: header.lasts };
    let steps = timeline.map(|node| reader.steps(node, &mut out)).unwrap_or_default();
    let lasts = times::length(source, header.lasts, &steps, root.at, &mut out);
    if !out.has_errors() && !steps.iter().any(|step| step.expectation.is_some()) {
        let at = timeline.map_or(root.at, |node| node.at);
        let wrong = Diagnostic::error("no-expectation", "nothing is expected: the scenario cannot fail");
        out.push(wrong.at(source, at).help("- { at: end, expect: no alarms }"));
    }
    match out.has_errors() {
        true => Err(out.into_sorted()),
        false => Ok(header.into_scenario(source, lasts, steps)),
    }
}

/// The objects of which readings are given: they come into being with them.
fn objects_read(timeline: &Node) -> Vec<&str> {
    let steps = list(timeline).iter().filter_map(|step| match &step.data {
        Data::Map(entries) => entries.iter().find(|(key, _)| key.text == "reading"),
        _ => None,
    });
    let lines = steps.flat_map(|(_, node)| list(node)).filter_map(|line| match &line.data {
        Data::Text(text) => text.split_whitespace().next(),
        _ => None,
    });
    lines.collect()
}

/// The items of a list; anything else is a list of one.
fn list(node: &Node) -> &[Node] {
    match &node.data {
        Data::List(items) => items,
        _ => std::slice::from_ref(node),
    }
}

/// Reads the steps of a timeline.
struct Steps<'a> {
    names: Reader<'a>,
    open: Open<'a>,
    /// As the file says; `None`: as long as its steps need.
    lasts: Option<Duration>,
}

impl Steps<'_> {
    fn steps(&self, node: &Node, out: &mut Diagnostics) -> Vec<Step> {
        let Data::List(items) = &node.data else {
            let message = format!("`timeline` is a list of steps, this is {}", node.describe());
            self.names.complain("wrong-type", message, node.at, Some(EXAMPLE.into()), out);
            return Vec::new();
        };
        if items.len() > STEPS_MAX {
            let message = format!("{} steps; at most {STEPS_MAX} are read", items.len());
            self.names.complain("too-large", message, node.at, Some("`every` repeats a step".into()), out);
            return Vec::new();
        }
        items.iter().filter_map(|item| self.one(item, out)).collect()
    }

    /// One cause is one message: a step with a mistake is not also one that does nothing.
    fn one(&self, node: &Node, out: &mut Diagnostics) -> Option<Step> {
        let mut found = Diagnostics::default();
        let step = self.step(node, &mut found);
        found.into_sorted().into_iter().for_each(|diagnostic| out.push(diagnostic));
        step
    }

    fn step(&self, node: &Node, out: &mut Diagnostics) -> Option<Step> {
        let source = self.names.source;
        let mut fields = Fields::new(source, "a step", node, out);
        fields.elsewhere(&[("chassis", BESIDE), ("policy", BESIDE), ("lasts", BESIDE), ("services", BESIDE), ("ageing", BESIDE), ("domain", BESIDE)]);
        let trigger = self.trigger(&mut fields, out);
        let lasting = fields.take("for").and_then(|node| self.duration("for", node, out));
        let is_lasting = lasting.is_some();
        let deeds = self.deeds(&mut fields, lasting, out);
        let expectation = self.expectation(&mut fields, lasting, out);
        fields.finish(out);
        let (deeds, expectation) = (deeds?, expectation.ok()?);
        let complain = |message: &str, help: &str, out: &mut Diagnostics| {
            self.names.complain("step", message.to_owned(), node.at, Some(help.to_owned()), out);
        };
        let takes_for = expectation.as_ref().is_some_and(|e| matches!(e.must, Must::Always(_) | Must::Never(_)));
        let deeds_take_for = deeds.iter().any(deeds::takes_for);
        if deeds.is_empty() && expectation.is_none() {
            if out.has_errors() {
                return None;
            }
            complain("the step does nothing and expects nothing", EXAMPLE, out);
        } else if is_lasting && takes_for == deeds_take_for {
            let message = if takes_for { "`for` could mean the deed or the expectation" } else { "nothing in this step lasts: `for` means nothing" };
            complain(message, "write two steps", out);
        }
        let trigger = match trigger? {
            Some(trigger) => trigger,
            // What must always or never be needs no beginning.
            None if deeds.is_empty() && takes_for => Trigger::At(Duration::ZERO),
            None => {
                complain("the step does not say when", "at: 10s, when: CONDITION, whenever: CONDITION, or every: 1h", out);
                return None;
            }
        };
        Some(Step { at: node.at, trigger, deeds, expectation })
    }

    /// `Err`: something is wrong with it, and was said.
    fn expectation(&self, fields: &mut Fields<'_>, lasting: Option<Duration>, out: &mut Diagnostics) -> Result<Option<Expectation>, ()> {
        let within = fields.take("within");
        let given: Vec<_> = MUSTS.into_iter().filter_map(|word| Some((word, fields.take_with_key(word)?))).collect();
        if let [_, (word, (key, _)), ..] = given.as_slice() {
            let message = format!("`{word}` beside another expectation");
            self.names.complain("step", message, Spot { length: 6, ..key.at }, Some("write two steps".into()), out);
            return Err(());
        }
        let found = given.first().map(|(word, (_, node))| (*word, *node));
        let Some((word, node)) = found else {
            if let Some(node) = within {
                self.names.complain("step", "`within` of what? the step expects nothing".into(), node.at, Some("expect: CONDITION".into()), out);
            }
            return Ok(None);
        };
        let limit = within.map(|node| self.duration("within", node, out).ok_or(())).transpose()?;
        let condition = self.names.condition(node, out).ok_or(())?;
        let must = match (word, limit) {
            ("expect", Some(limit)) => Must::Within(limit),
            ("expect", None) if condition.is_momentary() => {
                self.names.complain("step", "what happens, happens within some time".into(), node.at, Some("within: 5s".into()), out);
                return Err(());
            }
            ("expect", None) => Must::Hold,
            (_, Some(_)) => {
                let help = Some("for: 30s bounds it".into());
                self.names.complain("step", format!("`{word}` has no `within`"), node.at, help, out);
                return Err(());
            }
            ("always", None) if condition.is_momentary() => {
                self.names.complain("step", "nothing happens all the time".into(), node.at, Some("an attribute, or an alarm".into()), out);
                return Err(());
            }
            ("always", None) => Must::Always(lasting),
            (_, None) => Must::Never(lasting),
        };
        Ok(Some(Expectation { condition, must }))
    }
}

const MUSTS: [&str; 3] = ["expect", "always", "never"];
const STEP_FIELDS: [&str; 10] = ["at", "when", "every", "expect", "always", "never", "inject", "set", "reading", "switchover"];
const BESIDE: &str = "at the top, beside `timeline`";
const EXAMPLE: &str = "- { at: 10s, inject: fan-failed fan=1, expect: alarm fan-failed on /mxp1/fan1, within: 5s }";
