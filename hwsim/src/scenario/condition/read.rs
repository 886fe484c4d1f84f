//! From one line of a file to a [`Condition`], checked against the setting.

use sixnines_core::class::{ALARM, read_value};
use sixnines_core::config::{Data, Node, parse_duration};
use sixnines_core::diagnostic::{Diagnostic, Diagnostics, Source, Spot, suggestion};
use sixnines_core::domain::config::chassis_group;
use sixnines_core::event::AlarmStep;
use sixnines_core::ids::{AttributeName, GroupName, NodeId, ObjectName};
use sixnines_core::value::Value;

use super::{Condition, KNOWN, Operator, RoleWord, Term, Test, UNKNOWN};
use crate::scenario::setting::Setting;

/// A word and where it stands.
pub(crate) type Word = (String, Spot);

/// The words of a line, each with its place where that can be told: a text that is folded over lines has one place for all.
pub(crate) fn words(source: Source<'_>, node: &Node, text: &str) -> Vec<Word> {
    let line: Vec<char> = source.text.lines().nth((node.at.line as usize).saturating_sub(1)).unwrap_or_default().chars().collect();
    let mut column = (node.at.column as usize).saturating_sub(1);
    let mut list = Vec::new();
    for word in text.split_whitespace() {
        let letters: Vec<char> = word.chars().collect();
        let found = (column..line.len()).find(|i| line[*i..].starts_with(&letters));
        let length = number(letters.len());
        let at = match found {
            Some(start) => {
                column = start + letters.len();
                Spot { line: node.at.line, column: number(start + 1), length }
            }
            None => node.at,
        };
        list.push((word.to_owned(), at));
    }
    list
}

fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Reads what names objects and attributes.
pub(crate) struct Reader<'a> {
    pub(crate) source: Source<'a>,
    pub(crate) setting: &'a Setting,
}

impl Reader<'_> {
    /// Reads a condition; what is wrong with it goes to `out`.
    pub(crate) fn condition(&self, node: &Node, out: &mut Diagnostics) -> Option<Condition> {
        let Data::Text(text) = &node.data else {
            self.complain("wrong-type", format!("a condition is a line of text, this is {}", node.describe()), node.at, Some(FORMS.into()), out);
            return None;
        };
        let words = words(self.source, node, text);
        let terms: Option<Vec<Term>> = words.split(|(word, _)| word == "and").map(|words| self.term(words, node.at, out)).collect();
        Some(Condition { text: text.split_whitespace().collect::<Vec<_>>().join(" "), terms: terms? })
    }

    fn term(&self, words: &[Word], at: Spot, out: &mut Diagnostics) -> Option<Term> {
        let list: Vec<&str> = words.iter().map(|(word, _)| word.as_str()).collect();
        match list.as_slice() {
            ["no", "alarms"] => Some(Term::Quiet),
            ["no", "alarm", ..] => self.alarm(&words[2..], false, at, out),
            ["alarm", ..] => self.alarm(&words[1..], true, at, out),
            ["event", _, _, ..] if list.len() <= 5 => self.event(&words[1..], out),
            ["role", "of", _, "on", _, "is", _] => self.role(words, out),
            ["two", "actives"] => Some(Term::Actives { services: self.setting.services.clone() }),
            ["two", "actives", "of", _] => self.service(&words[3], out).map(|service| Term::Actives { services: vec![service] }),
            ["outage", "of", _, _, _] => self.outage(words, out),
            ["all" | "any", _, _, _] | ["all" | "any", _, _, _, _] => self.value(&words[1..], Some(list[0] == "any"), out),
            [object, _, _] | [object, _, _, _] if object.starts_with('/') => self.value(words, None, out),
            _ => {
                let at = words.first().map_or(at, |(_, at)| *at);
                let text = if list.is_empty() { "nothing".to_owned() } else { format!("\"{}\"", list.join(" ")) };
                self.complain("condition", format!("{text} is no condition"), at, Some(FORMS.into()), out);
                None
            }
        }
    }

    fn value(&self, words: &[Word], any: Option<bool>, out: &mut Diagnostics) -> Option<Term> {
        let objects = self.objects(&words[0], any.is_some(), out)?;
        let attribute = self.attribute(&words[0], &objects, &words[1], out)?;
        let test = match (words[2].0.as_str(), words.get(3)) {
            (UNKNOWN, None) => Test::Unknown,
            (KNOWN, None) => Test::Known,
            (sign, Some(value)) => {
                let Some((_, operator)) = Operator::ALL.into_iter().find(|(s, _)| *s == sign) else {
                    let help = format!("one of: {}", Operator::ALL.map(|(s, _)| s).join(", "));
                    self.complain("condition", format!("\"{sign}\" compares nothing"), words[2].1, Some(help), out);
                    return None;
                };
                let wanted = self.literal(objects.first()?, &attribute, value, out)?;
                if operator.orders() && sixnines_core::class::number(&wanted).is_none() {
                    self.complain("condition", format!("`{attribute}` is no number: it is equal to a word or not"), words[2].1, Some("== or !=".into()), out);
                    return None;
                }
                Test::Is(operator, wanted)
            }
            (word, None) => {
                self.complain("condition", format!("\"{word}\" is no end of a condition"), words[2].1, Some(FORMS.into()), out);
                return None;
            }
        };
        Some(Term::Value { objects, any: any == Some(true), attribute, test })
    }

    /// A value that an attribute can have.
    pub(crate) fn literal(&self, object: &ObjectName, attribute: &AttributeName, (text, at): &Word, out: &mut Diagnostics) -> Option<Value> {
        let data = scalar(text);
        match self.setting.attribute(object.as_str(), attribute.as_str()) {
            Some(declared) => read_value(self.source, declared, &Node { at: *at, data }, out),
            None => Some(match data {
                Data::Bool(b) => Value::Bool(b),
                Data::Int(n) => Value::Int(n),
                Data::Float(x) => Value::Float(x),
                _ => Value::Text(text.as_str().into()),
            }),
        }
    }

    /// One object, or those that a pattern means.
    pub(crate) fn objects(&self, (name, at): &Word, many: bool, out: &mut Diagnostics) -> Option<Vec<ObjectName>> {
        if !name.contains('*') {
            return self.object(name, *at, out).map(|object| vec![object]);
        }
        let found = self.setting.matching(name);
        if found.is_empty() {
            self.complain("unknown-object", format!("no object is called {name}"), *at, None, out);
            return None;
        }
        if !many {
            let help = format!("all {name} ..., or: any {name} ...");
            self.complain("condition", format!("{name} means {} objects: all of them, or any?", found.len()), *at, Some(help), out);
            return None;
        }
        Some(found)
    }

    /// An object that there is, or will be as soon as something is read of it.
    pub(crate) fn object(&self, name: &str, at: Spot, out: &mut Diagnostics) -> Option<ObjectName> {
        if self.setting.class_of(name).is_some() || self.setting.samples().iter().any(|sample| sample.objects().iter().any(|(o, _)| o.as_str() == name)) {
            return Some(ObjectName::new(name));
        }
        let near = sixnines_core::diagnostic::nearest(name, self.setting.objects().map(ObjectName::as_str));
        let help = near.map(|n| format!("did you mean {n}?"));
        self.complain("unknown-object", format!("there is no object {name}"), at, help, out);
        None
    }

    /// An attribute that every one of the objects has.
    fn attribute(&self, (name, _): &Word, objects: &[ObjectName], (attribute, at): &Word, out: &mut Diagnostics) -> Option<AttributeName> {
        for object in objects {
            let (object, class) = (object.as_str(), self.setting.class_of(object.as_str()));
            if self.setting.attribute(object, attribute).is_some() || self.setting.shows(object, attribute) {
                continue;
            }
            let help = class.and_then(|class| suggestion(attribute, class.attribute_names()));
            let what = class.map_or_else(|| name.clone(), |class| format!("a {}", class.name));
            self.complain("unknown-attribute", format!("{what} has no `{attribute}`"), *at, help, out);
            return None;
        }
        Some(AttributeName::new(attribute))
    }

    fn alarm(&self, words: &[Word], raised: bool, at: Spot, out: &mut Diagnostics) -> Option<Term> {
        let list: Vec<&str> = words.iter().map(|(word, _)| word.as_str()).collect();
        let (kind, object) = match list.as_slice() {
            ["on", _] => (None, &words[1]),
            ["on", "any", _] => (None, &words[2]),
            [_, "on", _] => (Some(&words[0]), &words[2]),
            [_, "on", "any", _] => (Some(&words[0]), &words[3]),
            _ => {
                let at = words.first().map_or(at, |(_, at)| *at);
                let help = Some("alarm KIND on OBJECT, or: alarm KIND on any PATTERN".into());
                self.complain("condition", "an alarm holds on an object".into(), at, help, out);
                return None;
            }
        };
        // None of many is what `no` says; of those that hold, one is enough.
        let objects = self.objects(object, !raised || list.contains(&"any"), out)?;
        let kind = match kind {
            Some(kind) => Some(self.kind(kind, out)?.into()),
            None => None,
        };
        Some(Term::Alarm { kind, objects, raised })
    }

    /// An alarm of the catalogue.
    pub(crate) fn kind(&self, (kind, at): &Word, out: &mut Diagnostics) -> Option<String> {
        let catalogue = &self.setting.compiled.catalogue;
        if catalogue.get(kind).is_some() {
            return Some(kind.clone());
        }
        let near = sixnines_core::diagnostic::nearest(kind, catalogue.names()).map(|n| format!("did you mean {n}?"));
        let help = near.unwrap_or_else(|| "alarms.yaml has them all".into());
        self.complain("unknown-alarm", format!("there is no alarm {kind}"), *at, Some(help), out);
        None
    }

    fn event(&self, words: &[Word], out: &mut Diagnostics) -> Option<Term> {
        let object = self.object(&words[0].0, words[0].1, out)?;
        let class = self.setting.class_of(object.as_str());
        let name = &words[1].0;
        let is_alarm = name == ALARM;
        let is_operation = class.is_some_and(|c| c.operations.contains(&AttributeName::new(name)));
        if !is_alarm && !is_operation && !ACTIONS.contains(&name.as_str()) {
            self.attribute(&words[0], std::slice::from_ref(&object), &words[1], out)?;
        }
        let word = match words.get(2) {
            Some(kind) if is_alarm => Some(self.kind(kind, out)?),
            Some((word, _)) if word == UNKNOWN || is_operation => Some(word.clone()),
            Some(word) => Some(self.literal(&object, &AttributeName::new(name), word, out)?.to_string()),
            None => None,
        };
        let step = match words.get(3) {
            Some(step) if is_alarm => Some(self.alarm_step(step, out)?),
            Some((word, at)) => {
                self.complain("condition", format!("\"{word}\" says nothing about `{name}`"), *at, Some(FORMS.into()), out);
                return None;
            }
            None => None,
        };
        Some(Term::Event { object, attribute: AttributeName::new(name), word, step })
    }

    fn alarm_step(&self, (word, at): &Word, out: &mut Diagnostics) -> Option<AlarmStep> {
        let found = AlarmStep::ALL.into_iter().find(|step| step.word() == word);
        if found.is_none() {
            let help = suggestion(word, AlarmStep::ALL.iter().map(|step| step.word()));
            self.complain("condition", format!("an alarm is never \"{word}\""), *at, help, out);
        }
        found
    }

    fn role(&self, words: &[Word], out: &mut Diagnostics) -> Option<Term> {
        let service = self.service(&words[2], out)?;
        let node = self.node(&words[4], out)?;
        let all = [RoleWord::Active, RoleWord::Standby, RoleWord::None];
        let Some(role) = all.into_iter().find(|role| role.word() == words[6].0) else {
            let help = suggestion(&words[6].0, all.iter().map(|r| r.word()));
            self.complain("condition", format!("\"{}\" is no role", words[6].0), words[6].1, help, out);
            return None;
        };
        Some(Term::Role { service, node, role })
    }

    /// `outage of calls > 60ms`.
    fn outage(&self, words: &[Word], out: &mut Diagnostics) -> Option<Term> {
        let service = self.service(&words[2], out)?;
        let (sign, text) = (&words[3], &words[4]);
        let operator = Operator::ALL.into_iter().find(|(known, operator)| *known == sign.0 && operator.orders()).map(|(_, operator)| operator);
        let (Some(operator), Some(limit)) = (operator, parse_duration(&text.0)) else {
            let at = if operator.is_none() { sign.1 } else { text.1 };
            self.complain("condition", "an outage is longer or shorter than some time".into(), at, Some("outage of calls > 60ms".into()), out);
            return None;
        };
        Some(Term::Outage { service, operator, limit })
    }

    /// A service of the domain, or one that a scenario about a chassis names.
    pub(crate) fn service(&self, (name, at): &Word, out: &mut Diagnostics) -> Option<GroupName> {
        let known = || self.setting.services.iter().map(GroupName::as_str);
        let is_shelf = self.setting.domain.is_some() && self.setting.shelves().any(|plan| chassis_group(plan.chassis.as_str()).as_str() == name);
        if is_shelf || known().any(|service| service == name) {
            return Some(GroupName::new(name));
        }
        let near = sixnines_core::diagnostic::nearest(name, known()).map(|near| format!("did you mean {near}?"));
        let help = near.unwrap_or_else(|| "name it under `services`".to_owned());
        self.complain("unknown-service", format!("there is no service {name}"), *at, Some(help), out);
        None
    }

    /// A node; of a domain that is described, one of its own.
    pub(crate) fn node(&self, (name, at): &Word, out: &mut Diagnostics) -> Option<NodeId> {
        let Ok(node) = name.parse() else {
            self.complain("condition", format!("\"{name}\" is no node"), *at, Some("such as n2".into()), out);
            return None;
        };
        let nodes = self.setting.nodes();
        if self.setting.domain.is_some() && !nodes.contains(&node) {
            let help = nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            self.complain("unknown-node", format!("this domain has no node {name}"), *at, Some(format!("there are {help}")), out);
            return None;
        }
        Some(node)
    }

    pub(crate) fn complain(&self, code: &str, message: String, at: Spot, help: Option<String>, out: &mut Diagnostics) {
        out.push(Diagnostic::error(code, message).at(self.source, at).help_if(help));
    }
}

/// A word as YAML would read it.
pub(crate) fn scalar(text: &str) -> Data {
    if let Ok(n) = text.parse() {
        return Data::Int(n);
    }
    match text.parse::<f64>() {
        Ok(x) if x.is_finite() && text.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '.') => Data::Float(x),
        _ => match text {
            "true" => Data::Bool(true),
            "false" => Data::Bool(false),
            _ => Data::Text(text.to_owned()),
        },
    }
}

const FORMS: &str = "/mxp1/fan4 duty == 100, alarm fan-failed on /mxp1/fan1, no alarms, event /mxp1/slot3 reset";
/// What policies ask of roles: events of the object that they are asked for.
const ACTIONS: [&str; 3] = ["evacuate", "failover", "switchover"];
