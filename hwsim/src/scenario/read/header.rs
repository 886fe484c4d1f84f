//! What stands above the timeline: the chassis, the services, the policy under test, how long it lasts.

use sixnines_core::config::{Fields, Node};
use sixnines_core::diagnostic::{Diagnostic, Diagnostics, Source, suggestion};
use sixnines_core::domain::config::Bundle;
use sixnines_core::ids::{ChassisName, GroupName};
use sixnines_core::time::Duration;

use super::domain::Domain;
use super::{list, times};
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
    pub(super) fn read<'n>(
        source: Source<'_>,
        fields: &mut Fields<'n>,
        bundle: &Bundle,
        open: Open<'_>,
        out: &mut Diagnostics,
    ) -> Result<Option<Self>, Vec<Diagnostic>> {
        let name = fields.text("scenario", out);
        let text = fields.text("text", out).unwrap_or_default();
        let policy = fields.take("policy").and_then(|node| policy(source, node, bundle, out));
        let lasts = fields.take("lasts").and_then(|node| lasts(source, node, out));
        let services = fields.take("services");
        let domain = Domain::take(source, fields, services, out);
        let called = fields.take("name");
        let scale = scale(fields, out);
        let aged = fields.take("ageing");
        let (random, kind) = (fields.take("seed"), fields.take("chassis"));
        let setting = if let Some(domain) = domain {
            if let Some((name, node)) = [("name", called), ("ageing", aged)].into_iter().find_map(|(name, node)| Some((name, node?))) {
                let wrong = Diagnostic::error("domain", format!("`{name}` is of one chassis, and this scenario is about a domain"));
                out.push(wrong.at(source, node.at).help("leave it out"));
            }
            let Some((plans, domain)) = domain.read(source, (kind, random, scale), open, out) else { return Ok(None) };
            Setting::of_domain(plans, domain, bundle)?
        } else {
            let Some(mut plan) = plan(source, kind, open, out) else { return Ok(None) };
            if let Some(name) = called.and_then(Node::scalar) {
                plan = plan.named(ChassisName::new(name));
            }
            plan.seed = random.and_then(|node| seed(source, node, out)).unwrap_or(plan.seed);
            plan.time_scale = scale.unwrap_or(plan.time_scale);
            let mut setting = Setting::new(plan, bundle, names(source, services, out))?;
            setting.ageing = aged.and_then(|node| ageing(fields, node, out));
            setting
        };
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
fn ageing(fields: &Fields<'_>, node: &Node, out: &mut Diagnostics) -> Option<f64> {
    let speed = node.number().filter(|x| (1.0..=1e6).contains(x));
    if speed.is_none() {
        fields.wrong("ageing", "how many times faster than its rates the chassis fails: 1 to 1000000", node, out);
    }
    speed
}

/// How many seconds the chassis lives in one.
fn scale(fields: &mut Fields<'_>, out: &mut Diagnostics) -> Option<f64> {
    let node = fields.take("time_scale")?;
    let scale = node.number().filter(|x| (0.001..=3600.0).contains(x));
    if scale.is_none() {
        fields.wrong("time_scale", "how many seconds the chassis lives in one: 0.001 to 3600", node, out);
    }
    scale
}

/// What everything random follows from.
pub(super) fn seed(source: Source<'_>, node: &Node, out: &mut Diagnostics) -> Option<u64> {
    let seed = node.scalar().and_then(|text| text.parse().ok());
    if seed.is_none() {
        let message = format!("`seed` of a scenario is a whole number, this is {}", node.describe());
        out.push(Diagnostic::error("wrong-type", message).at(source, node.at));
    }
    seed
}

/// The services that a scenario about one chassis names.
fn names(source: Source<'_>, services: Option<&Node>, out: &mut Diagnostics) -> Vec<GroupName> {
    let mut names = Vec::new();
    for node in services.into_iter().flat_map(list) {
        match node.scalar() {
            Some(name) => names.push(GroupName::new(name)),
            None => {
                let wrong = Diagnostic::error("no-domain", "a service of a scenario about one chassis is a name");
                out.push(wrong.at(source, node.at).help("services: [calls]; or describe a domain: { mxp1: [n1, n2], mxp2: [n3] }"));
            }
        }
    }
    names
}

/// A shelf that ships, by its name, or a file.
pub(super) fn plan(source: Source<'_>, node: Option<&Node>, open: Open<'_>, out: &mut Diagnostics) -> Option<Plan> {
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
