//! What a step does, in the words that the command line has for it.

use std::collections::BTreeMap;

use sixnines_core::bundle::compile_bundle;
use sixnines_core::class::read_value;
use sixnines_core::config::{Data, Fields, Node};
use sixnines_core::diagnostic::{Diagnostics, Spot, suggestion};
use sixnines_core::engine::{AlarmRef, CommandBody};
use sixnines_core::ids::{AttributeName, GroupName, ObjectName};
use sixnines_core::time::Duration;
use sixnines_core::value::{Quality, Update, Value};
use sixnines_core::world::Owner;

use super::{Steps, list};
use crate::chassis::{CATALOGUE, FaultError, Injection, nearest};
use crate::domain::chaos::catalogue;
use crate::domain::chaos::draw::Ground;
use crate::scenario::condition::{scalar, words};
use crate::scenario::stage::Mend;
use crate::scenario::step::{Deed, Wish};

/// Whether `for` says how long it lasts.
pub(super) fn takes_for(deed: &Deed) -> bool {
    matches!(deed, Deed::Inject(_) | Deed::Command(CommandBody::Claim { .. } | CommandBody::Force { .. } | CommandBody::Shelve { .. }))
}

impl Steps<'_> {
    /// All deeds of a step; `None`: one is wrong, and that was said.
    pub(super) fn deeds(&self, fields: &mut Fields<'_>, lasting: Option<Duration>, out: &mut Diagnostics) -> Option<Vec<Deed>> {
        let mut deeds = Vec::new();
        let mut is_good = true;
        let quality = fields.take("quality");
        let mut had_reading = false;
        for name in VERBS {
            let lines = self.lines(fields, name, out);
            is_good &= lines.is_some();
            for (node, text) in lines.unwrap_or_default() {
                had_reading |= name == "reading";
                let deed = self.deed(name, node, &text, (lasting, quality), out);
                is_good &= deed.is_some();
                deeds.extend(deed);
            }
        }
        if let Some(node) = quality.filter(|_| !had_reading) {
            self.names.complain("step", "`quality` goes with `reading`".into(), node.at, None, out);
            is_good = false;
        }
        if let Some(node) = fields.take("apply") {
            let deed = self.apply(node, out);
            is_good &= deed.is_some();
            deeds.extend(deed);
        }
        let takeover = fields.take_with_key("takeover");
        if let Some((key, _)) = takeover.filter(|_| self.names.setting.domain.is_some()) {
            let help = "inject: node-killed node=active:chassis:mxp1".to_owned();
            self.names.complain("step", "`takeover` is for one chassis; in a domain its owner has to fail".into(), Spot { length: 8, ..key.at }, Some(help), out);
            is_good = false;
        }
        match takeover.map(|(_, node)| node) {
            None | Some(Node { data: Data::Bool(false), .. }) => {}
            Some(Node { data: Data::Bool(true), .. }) => deeds.push(Deed::Takeover),
            Some(node) => fields.wrong("takeover", "true or false", node, out),
        }
        is_good.then_some(deeds)
    }

    fn deed(&self, name: &str, node: &Node, text: &str, (lasting, quality): (Option<Duration>, Option<&Node>), out: &mut Diagnostics) -> Option<Deed> {
        match name {
            "clear" => self.mend(node, text, out),
            "inject" => self.inject(node, text, lasting, out),
            "reading" => self.reading(node, text, quality, out),
            "set" => self.set(node, text, lasting, out),
            "force" => self.force(node, text, lasting, out),
            "operate" => self.operate(node, text, out),
            "switchover" | "start" | "readmit" => self.wish(name, node, text, out),
            _ => self.alarm_deed(name, node, text, lasting, out),
        }
    }

    /// One line, or a list of them.
    fn lines<'n>(&self, fields: &mut Fields<'n>, name: &'static str, out: &mut Diagnostics) -> Option<Vec<(&'n Node, String)>> {
        let Some(node) = fields.take(name) else { return Some(Vec::new()) };
        let mut lines = Vec::new();
        for item in list(node) {
            let Data::Text(text) = &item.data else {
                fields.wrong(name, "a line of text, or a list of them", item, out);
                return None;
            };
            lines.push((item, text.clone()));
        }
        Some(lines)
    }

    /// `fan-failed fan=1`, as `nines inject` takes it.
    fn inject(&self, node: &Node, text: &str, lasting: Option<Duration>, out: &mut Diagnostics) -> Option<Deed> {
        let mut injection = self.injection(node, text, out)?;
        injection.expires_after = lasting;
        let setting = self.names.setting;
        let checked = match &setting.domain {
            Some(domain) if catalogue::is_known(&injection.fault) => catalogue::parse(&injection, &Ground::of(&domain.config)).map(drop),
            None if catalogue::is_known(&injection.fault) => return self.no_domain(node, text, out),
            Some(_) if !CATALOGUE.iter().any(|entry| entry.name == injection.fault) => Err(unknown_anywhere(&injection.fault)),
            _ => setting.check(&injection),
        };
        if let Err(wrong) = checked {
            self.wrong_fault(node, text, &wrong, out);
            return None;
        }
        if lasting.is_some() && catalogue::is_momentary(&injection.fault) {
            self.names.complain("step", format!("{} is over at once: `for` means nothing", injection.fault), node.at, Some("leave it out".into()), out);
            return None;
        }
        if injection.fault == "switchover" {
            let to = injection.parameters.get("to").and_then(|to| to.parse().ok());
            let service = GroupName::new(injection.parameters.get("service")?);
            return Some(Deed::Ask(Wish::Switchover { service, to }));
        }
        Some(Deed::Inject(injection))
    }

    /// A domain's word in a scenario that has none.
    fn no_domain(&self, node: &Node, text: &str, out: &mut Diagnostics) -> Option<Deed> {
        let word = text.split_whitespace().next().unwrap_or_default();
        let at = words(self.names.source, node, text).first().map_or(node.at, |(_, at)| *at);
        let help = "describe a domain beside `timeline`, such as domain: { mxp1: [n1, n2], mxp2: [n3] }".to_owned();
        self.names.complain("no-domain", format!("{word} is of a domain, and this scenario is about one chassis"), at, Some(help), out);
        None
    }

    /// `switchover: calls`, `switchover: calls to=n3`, `start: calls`, `readmit: n2`.
    fn wish(&self, verb: &str, node: &Node, text: &str, out: &mut Diagnostics) -> Option<Deed> {
        let list = words(self.names.source, node, text);
        let to = list.get(1).and_then(|(word, at)| Some((word.strip_prefix("to=")?.to_owned(), *at)));
        let wish = match (verb, list.as_slice()) {
            ("readmit", [of]) => self.names.node(of, out).map(Wish::Readmit),
            ("start", [of]) => self.names.service(of, out).map(Wish::Start),
            ("switchover", [of]) => self.names.service(of, out).map(|service| Wish::Switchover { service, to: None }),
            ("switchover", [of, _]) if to.is_some() => {
                let to = self.names.node(&to?, out)?;
                self.names.service(of, out).map(|service| Wish::Switchover { service, to: Some(to) })
            }
            _ => {
                let help = if verb == "readmit" { "readmit: n2".to_owned() } else { format!("{verb}: calls") };
                self.names.complain("step", format!("\"{text}\" says not what to {verb}"), node.at, Some(help), out);
                None
            }
        };
        wish.map(Deed::Ask)
    }

    fn injection(&self, node: &Node, text: &str, out: &mut Diagnostics) -> Option<Injection> {
        let mut parts = text.split_whitespace();
        let name = parts.next().unwrap_or_default();
        match Injection::parse(name, parts) {
            Ok(injection) => Some(Injection { by: "scenario".into(), ..injection }),
            Err(wrong) => {
                self.wrong_fault(node, text, &wrong, out);
                None
            }
        }
    }

    /// The chassis says what is wrong; the word in question is underlined where it can be told.
    fn wrong_fault(&self, node: &Node, text: &str, wrong: &FaultError, out: &mut Diagnostics) {
        let full = wrong.to_string();
        let (message, help) = full.split_once("\n  help  ").unwrap_or((&full, ""));
        let list = words(self.names.source, node, text);
        let meant = list.iter().skip(1).find(|(word, _)| {
            let value = word.split_once('=').map_or(word.as_str(), |(_, value)| value);
            let name = word.split('=').next().unwrap_or_default();
            message.ends_with(value) || message.contains(&format!("{name}=")) || message.contains(&format!("{name:?}")) || message.contains(&format!("{word:?}"))
        });
        let at = meant.or(list.first()).map_or(node.at, |(_, at)| *at);
        let code = if matches!(wrong, FaultError::UnknownFault { .. }) { "unknown-fault" } else { "fault" };
        self.names.complain(code, message.to_owned(), at, Some(help.to_owned()).filter(|h| !h.is_empty()), out);
    }

    /// `all`, or a fault as it was injected; what is left out can be anything.
    fn mend(&self, node: &Node, text: &str, out: &mut Diagnostics) -> Option<Deed> {
        if text.trim() == "all" {
            return Some(Deed::Mend(Mend::All));
        }
        let like = self.injection(node, text, out)?;
        let at = words(self.names.source, node, text);
        let is_domain = self.names.setting.domain.is_some();
        if !is_domain && catalogue::is_known(&like.fault) {
            return self.no_domain(node, text, out);
        }
        let all = || CATALOGUE.iter().chain(catalogue::CATALOGUE.iter().filter(|entry| is_domain && !catalogue::is_momentary(entry.name)));
        let Some(entry) = all().find(|entry| entry.name == like.fault) else {
            let help = suggestion(&like.fault, all().map(|e| e.name)).or(Some("all ends every fault".into()));
            self.names.complain("unknown-fault", format!("there is no fault {:?}", like.fault), at.first().map_or(node.at, |w| w.1), help, out);
            return None;
        };
        let is_shelf = |name: &str| is_domain && name == "chassis";
        if let Some(name) = like.parameters.keys().find(|name| !is_shelf(name) && !entry.parameters.iter().any(|p| p.name == name.as_str())) {
            let help = suggestion(name, entry.parameters.iter().map(|p| p.name));
            self.names.complain("fault", format!("{} has no parameter {name:?}", entry.name), node.at, help, out);
            return None;
        }
        Some(Deed::Mend(Mend::Like(like)))
    }

    /// `OBJECT NAME=VALUE`, split; the value may be empty.
    fn assignment(&self, node: &Node, text: &str, form: &str, out: &mut Diagnostics) -> Option<(ObjectName, AttributeName, Option<Node>)> {
        let list = words(self.names.source, node, text);
        let [(object, object_at), (assignment, at)] = list.as_slice() else {
            self.names.complain("step", format!("\"{text}\" is not OBJECT NAME=VALUE"), node.at, Some(form.into()), out);
            return None;
        };
        let (name, value) = assignment.split_once('=').map_or((assignment.as_str(), None), |(name, value)| (name, Some(value)));
        let object = self.names.object(object, *object_at, out)?;
        if self.names.setting.attribute(object.as_str(), name).is_none() {
            let class = self.names.setting.class_of(object.as_str());
            let help = class.and_then(|class| suggestion(name, class.attribute_names()));
            let what = class.map_or_else(|| object.to_string(), |class| format!("a {}", class.name));
            self.names.complain("unknown-attribute", format!("{what} has no `{name}`"), *at, help, out);
            return None;
        }
        let value = value.filter(|value| !value.is_empty()).map(|value| Node { at: *at, data: scalar(value) });
        Some((object, AttributeName::new(name), value))
    }

    fn set(&self, node: &Node, text: &str, lease: Option<Duration>, out: &mut Diagnostics) -> Option<Deed> {
        let (object, control, value) = self.assignment(node, text, "set: /mxp1/fan4 duty=80", out)?;
        let class = self.names.setting.class_of(object.as_str())?;
        let declared = class.attribute(class.slot(control.as_str())?);
        if !declared.control {
            let help = suggestion(control.as_str(), class.control_names());
            self.names.complain("not-a-control", format!("`{control}` of a {} is a sensor and cannot be set", class.name), node.at, help, out);
            return None;
        }
        let body = match value {
            None => CommandBody::Release { object, control },
            Some(value) => {
                let value = read_value(self.names.source, declared, &value, out)?;
                CommandBody::Claim { object, control, value, reason: "scenario".into(), priority: None, lease }
            }
        };
        Some(Deed::Command(body))
    }

    /// An administrator holds a sensor at a value, or lets it go.
    fn force(&self, node: &Node, text: &str, lasting: Option<Duration>, out: &mut Diagnostics) -> Option<Deed> {
        let (object, attribute, value) = self.assignment(node, text, "force: /mxp1/fan4 speed=5000", out)?;
        let body = match value {
            None => CommandBody::Unforce { object, attribute },
            Some(value) => {
                let declared = self.names.setting.attribute(object.as_str(), attribute.as_str())?;
                let value = read_value(self.names.source, declared, &value, out)?;
                CommandBody::Force { object, attribute, value, expires: lasting.unwrap_or(FORCED_FOR) }
            }
        };
        Some(Deed::Command(body))
    }

    fn operate(&self, node: &Node, text: &str, out: &mut Diagnostics) -> Option<Deed> {
        let list = words(self.names.source, node, text);
        let [(object, object_at), (operation, at)] = list.as_slice() else {
            self.names.complain("step", format!("\"{text}\" is not OBJECT OPERATION"), node.at, Some("operate: /mxp1/slot3 reset".into()), out);
            return None;
        };
        let object = self.names.object(object, *object_at, out)?;
        let class = self.names.setting.class_of(object.as_str())?;
        let operation = AttributeName::new(operation);
        if !class.operations.contains(&operation) {
            let help = suggestion(operation.as_str(), class.operations.iter().map(AttributeName::as_str));
            self.names.complain("unknown-operation", format!("a {} cannot {operation}", class.name), *at, help, out);
            return None;
        }
        Some(Deed::Command(CommandBody::Operate { object, operation, reason: "scenario".into() }))
    }

    /// `ack`, `shelve` and `unshelve`: `OBJECT KIND`.
    fn alarm_deed(&self, verb: &str, node: &Node, text: &str, lasting: Option<Duration>, out: &mut Diagnostics) -> Option<Deed> {
        let list = words(self.names.source, node, text);
        let [(object, at), kind] = list.as_slice() else {
            self.names.complain("step", format!("\"{text}\" is not OBJECT ALARM"), node.at, Some(format!("{verb}: /mxp1/fan1 fan-failed")), out);
            return None;
        };
        let object = self.names.object(object, *at, out)?;
        let alarm = AlarmRef { object, kind: self.names.kind(kind, out)?.into(), qualifier: "".into() };
        let text = "scenario".to_owned();
        Some(Deed::Command(match verb {
            "ack" => CommandBody::Acknowledge { alarm, text },
            "shelve" => CommandBody::Shelve { alarm, expires: lasting.unwrap_or(SHELVED_FOR), text },
            _ => CommandBody::Unshelve { alarm },
        }))
    }

    /// What a driver would say of something that no chassis simulates.
    fn reading(&self, node: &Node, text: &str, quality: Option<&Node>, out: &mut Diagnostics) -> Option<Deed> {
        let (object, attribute, value) = self.assignment(node, text, "reading: /nodes/n1/cpu0 usage=97", out)?;
        let refuse = |message: String, help: &str, out: &mut Diagnostics| self.names.complain("step", message, node.at, Some(help.into()), out);
        let declared = self.names.setting.attribute(object.as_str(), attribute.as_str())?;
        if self.names.setting.is_in_chassis(object.as_str()) {
            refuse(format!("{object} is read by the chassis itself"), "inject a fault, such as sensor-wrong or sensor-missing, or `force` it", out);
            return None;
        }
        if declared.derive.is_some() {
            refuse(format!("`{attribute}` is derived; a driver reads what it is made from"), "the class's file names it: `from`", out);
            return None;
        }
        let nodes = self.names.setting.nodes();
        if matches!(Owner::of(object.as_str()), Owner::Node(node) if !nodes.contains(&node)) {
            let nodes = nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            refuse(format!("{object} belongs to another node; here is {nodes}"), "such as /nodes/n1/cpu0", out);
            return None;
        }
        let is_own = SEEN_BY_ITSELF.contains(&attribute.as_str()) && object.as_str().starts_with("/services/");
        if self.names.setting.domain.is_some() && (is_own || Owner::of(object.as_str()) == Owner::Domain) {
            refuse(format!("`{attribute}` of {object} is what a domain sees of itself"), "inject what it shall see, such as node-killed or process-killed", out);
            return None;
        }
        let value: Option<Value> = match value {
            Some(value) => Some(read_value(self.names.source, declared, &value, out)?),
            None => None,
        };
        let quality = match quality {
            Some(node) => self.quality(node, out)?,
            None if value.is_some() => Quality::Good,
            None => Quality::Missing,
        };
        if value.is_none() && quality.is_usable() {
            refuse(format!("a good reading of `{attribute}` has a value"), "reading: /nodes/n1/cpu0 usage=97", out);
            return None;
        }
        Some(Deed::Reading(Update { object, attribute, value, quality, identity: None, cause: None }))
    }

    fn quality(&self, node: &Node, out: &mut Diagnostics) -> Option<Quality> {
        let all = [("good", Quality::Good), ("stale", Quality::Stale), ("missing", Quality::Missing), ("failed", Quality::Failed)];
        let word = node.scalar().unwrap_or_default();
        let found = all.iter().find(|(name, _)| *name == word).map(|(_, quality)| *quality);
        if found.is_none() {
            let help = suggestion(&word, all.iter().map(|(name, _)| *name));
            self.names.complain("unknown-value", format!("a reading is never {}", node.describe()), node.at, help, out);
        }
        found
    }

    /// Other policies: a map from a file's name in the bundle to its new text, or to a file that has it.
    fn apply(&self, node: &Node, out: &mut Diagnostics) -> Option<Deed> {
        let Data::Map(entries) = &node.data else {
            let help = "apply: { fan.rhai: quiet/fan.rhai }".to_owned();
            self.names.complain("wrong-type", format!("`apply` is a map from a file of the bundle to what replaces it, this is {}", node.describe()), node.at, Some(help), out);
            return None;
        };
        let mut bundle = self.names.setting.compiled.files.clone();
        let mut changed: BTreeMap<String, String> = BTreeMap::new();
        for (key, value) in entries {
            let text = value.scalar().unwrap_or_default();
            let is_file = !text.contains('\n') && (text.ends_with(".rhai") || text.ends_with(".yaml"));
            let text = match is_file.then(|| (self.open)(&text)) {
                Some(Ok(text)) => text,
                Some(Err(why)) => {
                    self.names.complain("unknown-policy", why, value.at, Some("the name counts from the scenario's folder".into()), out);
                    return None;
                }
                None => text,
            };
            changed.insert(key.text.clone(), text);
        }
        let files = changed.keys().cloned().collect();
        bundle.files.extend(changed);
        match compile_bundle(&bundle) {
            Ok(compiled) => Some(Deed::Apply { files, compiled }),
            Err(wrong) => {
                wrong.into_iter().for_each(|diagnostic| out.push(diagnostic));
                None
            }
        }
    }
}

/// A fault of neither catalogue.
fn unknown_anywhere(name: &str) -> FaultError {
    let help = nearest(name, catalogue::CATALOGUE.iter().chain(CATALOGUE).map(|entry| entry.name));
    FaultError::UnknownFault { name: name.to_owned(), help }
}

/// In the order in which a step does them.
const VERBS: [&str; 12] = ["clear", "inject", "reading", "set", "force", "operate", "ack", "shelve", "unshelve", "switchover", "start", "readmit"];
/// Of a service: what the nodes themselves know.
const SEEN_BY_ITSELF: [&str; 5] = ["state", "active", "epoch", "standby", "process"];
const FORCED_FOR: Duration = Duration::from_secs(600);
const SHELVED_FOR: Duration = Duration::from_secs(8 * 3600);
