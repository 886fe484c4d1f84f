//! What stands above the timeline: the chassis, the services, the policy under test, how long it lasts.

use sixnines_core::config::{Fields, Node};
use sixnines_core::diagnostic::{Diagnostic, Diagnostics, Source, suggestion};
use sixnines_core::domain::config::Bundle;
use sixnines_core::ids::{ChassisName, GroupName};
use sixnines_core::time::Duration;

use super::times;
use crate::chassis::Plan;
use crate::scenario::setting::Setting;
use crate::scenario::step::Step;
use crate::scenario::{Open, Scenario, stem};

pub(super) struct Header {
    name: Option<String>,
    text: String,
    policy: Option<String>,
    pub(super) lasts: Option<Duration>,
    pub(super) setting: Setting,
}

impl Header {
    /// `None`: without it nothing else can be judged; what is wrong stands in `out`.
    ///
    /// # Errors
    /// What is wrong with the bundle.
    pub(super) fn read(
        source: Source<'_>,
        fields: &mut Fields<'_>,
        bundle: &Bundle,
        open: Open<'_>,
        out: &mut Diagnostics,
    ) -> Result<Option<Self>, Vec<Diagnostic>> {
        let name = fields.text("scenario", out);
        let text = fields.text("text", out).unwrap_or_default();
        let policy = fields.take("policy").and_then(|node| policy(source, node, bundle, out));
        let lasts = fields.take("lasts").and_then(|node| lasts(source, node, out));
        let services = fields.words("services", out).unwrap_or_default();
        let services = services.iter().map(|(name, _)| GroupName::new(name)).collect();
        let called = fields.text("name", out);
        let scale = fields.take("time_scale").map(|node| (node, node.number().filter(|x| (0.001..=3600.0).contains(x))));
        let ageing = ageing(fields, out);
        let seed = fields.take("seed").map(|node| (node, node.scalar().and_then(|text| text.parse().ok())));
        let Some(mut plan) = chassis(source, fields.take("chassis"), open, out) else { return Ok(None) };
        if let Some(name) = called {
            plan = plan.named(ChassisName::new(name));
        }
        match seed {
            Some((_, Some(seed))) => plan.seed = seed,
            Some((node, None)) => fields.wrong("seed", "a whole number", node, out),
            None => {}
        }
        match scale {
            Some((_, Some(scale))) => plan.time_scale = scale,
            Some((node, None)) => fields.wrong("time_scale", "how many seconds the chassis lives in one: 0.001 to 3600", node, out),
            None => {}
        }
        let mut setting = Setting::new(plan, bundle, services)?;
        setting.ageing = ageing;
        Ok(Some(Self { name, text, policy, lasts, setting }))
    }

    pub(super) fn into_scenario(self, source: Source<'_>, lasts: Duration, steps: Vec<Step>) -> Scenario {
        let Self { name, text, policy, setting, .. } = self;
        let name = name.unwrap_or_else(|| stem(source.name));
        Scenario { name, text, file: source.name.to_owned(), policy, lasts, setting, steps }
    }
}

fn policy(source: Source<'_>, node: &Node, bundle: &Bundle, out: &mut Diagnostics) -> Option<String> {
    let name = node.scalar().unwrap_or_default();
    if bundle.files.contains_key(&name) {
        return Some(name);
    }
    let policies = bundle.files.keys().map(String::as_str).filter(|file| file.ends_with(".rhai"));
    let near = sixnines_core::diagnostic::nearest(&name, policies).map(|near| format!("did you mean {near}?"));
    out.push(Diagnostic::error("unknown-policy", format!("there is no policy {name}")).at(source, node.at).help_if(near));
    None
}

fn lasts(source: Source<'_>, node: &Node, out: &mut Diagnostics) -> Option<Duration> {
    let lasts = times::duration(source, "lasts", node, out)?;
    if lasts.is_zero() {
        out.push(Diagnostic::error("time", "a scenario lasts longer than nothing").at(source, node.at).help("lasts: 2m"));
        return None;
    }
    Some(lasts)
}

/// How much faster than its rates say the chassis ages.
fn ageing(fields: &mut Fields<'_>, out: &mut Diagnostics) -> Option<f64> {
    let node = fields.take("ageing")?;
    let speed = node.number().filter(|x| (1.0..=1e6).contains(x));
    if speed.is_none() {
        fields.wrong("ageing", "how many times faster than its rates the chassis fails: 1 to 1000000", node, out);
    }
    speed
}

/// A shelf that ships, by its name, or a file.
fn chassis(source: Source<'_>, node: Option<&Node>, open: Open<'_>, out: &mut Diagnostics) -> Option<Plan> {
    let Some(node) = node else { return Some(Plan::mxp()) };
    let word = node.scalar().unwrap_or_default();
    match word.as_str() {
        "mxp" => return Some(Plan::mxp()),
        "atca" => return Some(Plan::atca()),
        "edge-box" => return Some(Plan::edge_box()),
        _ => {}
    }
    if !word.ends_with(".yaml") && !word.ends_with(".yml") {
        let help = suggestion(&word, SHIPPED).map(|near| format!("{near}, or a chassis file (.yaml)"));
        let wrong = Diagnostic::error("unknown-chassis", format!("no chassis called {} ships", node.describe()));
        out.push(wrong.at(source, node.at).help_if(help));
        return None;
    }
    match open(&word).map(|text| Plan::parse(&word, &text)) {
        Ok(Ok(plan)) => Some(plan),
        Ok(Err(wrong)) => {
            out.push(*wrong.diagnostic);
            None
        }
        Err(why) => {
            out.push(Diagnostic::error("unknown-chassis", why).at(source, node.at).help("the name counts from the scenario's folder"));
            None
        }
    }
}

const SHIPPED: [&str; 3] = ["mxp", "atca", "edge-box"];
