//! Reads a class from YAML.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Attribute, Class, Derive, KINDS, Keep, Kind, OPERATIONAL, Operational, Pattern, Slot, Step, Test, number};
use crate::config::{Data, Fields, Key, Node, word_list};
use crate::diagnostic::{Diagnostic, Diagnostics, Source, Spot, suggestion};
use crate::domain::limits::Limit;
use crate::ids::{AttributeName, ClassName};
use crate::time::Duration;
use crate::value::Value;

const OF_AN_ATTRIBUTE: [(&str, &str); 7] = [
    ("type", "under the attribute's name, under `attributes`"),
    ("unit", "under the attribute's name, under `attributes`"),
    ("range", "under the attribute's name, under `attributes`"),
    ("stale_after", "under the attribute's name, under `attributes`"),
    ("control", "under the attribute's name, under `attributes`"),
    ("safe", "under the attribute's name, under `attributes`"),
    ("from", "under the attribute's name, under `attributes`"),
];

/// Reads one class. What cannot be read is reported and left out.
pub fn read_class(source: Source<'_>, root: &Node, out: &mut Diagnostics) -> Option<Class> {
    let mut fields = Fields::new(source, "a class", root, out);
    fields.elsewhere(&OF_AN_ATTRIBUTE);
    let name_node = fields.require("class", out);
    let name = name_node.and_then(Node::scalar);
    if let (Some(node), Some(name)) = (name_node, &name)
        && !is_word(name)
    {
        out.push(Diagnostic::error("bad-name", format!("\"{name}\" cannot be a class's name: letters, digits, dashes")).at(source, node.at));
    }
    let text = fields.text("text", out).unwrap_or_default();
    let attributes = fields.take("attributes");
    let policy_node = fields.take("policy");
    let policy = policy_node.and_then(|node| {
        let word = node.scalar();
        if word.is_none() {
            fields.wrong("policy", "the name of a .rhai file", node, out);
        }
        word
    });
    let operations = fields.words("operations", out).unwrap_or_default();
    let names = fields.words("names", out).unwrap_or_default();
    let fallback = fields.take("fallback");
    let hears = fields.take("hears");
    let operational = fields.take("operational");
    fields.finish(out);

    let mut class = Class {
        name: ClassName::new(name?),
        text,
        attributes: Vec::new(),
        slots: BTreeMap::new(),
        operations: operations.into_iter().map(|(word, _)| AttributeName::new(word)).collect(),
        policy,
        fallback: Vec::new(),
        names: names.into_iter().map(|(word, _)| Pattern::new(word)).collect(),
        hears: BTreeMap::new(),
        file: source.name.to_owned(),
        hears_at: Vec::new(),
        policy_at: policy_node.map(|n| n.at).unwrap_or_default(),
        operational: None,
    };
    read_attributes(source, attributes, &mut class, out);
    if let Some(node) = operational {
        read_operational(source, node, &mut class, out);
    }
    add_operational(&mut class);
    if let Some(node) = fallback {
        read_fallback(source, node, &mut class, out);
    }
    if let Some(node) = hears {
        read_hears(source, node, &mut class, out);
    }
    Some(class)
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

/// Attribute names are written as properties in policies, so they must be Rhai identifiers.
fn is_identifier(text: &str) -> bool {
    is_word(text) && !text.contains('-') && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// What objects answer to in policies beside their attributes; an attribute of this name could not be read.
pub(crate) const RESERVED: [&str; 8] = ["name", "class", "chassis", "parent", "node", "identity", "alarm", "owner"];

fn read_attributes(source: Source<'_>, node: Option<&Node>, class: &mut Class, out: &mut Diagnostics) {
    let entries: &[(Key, Node)] = match node.map(|n| &n.data) {
        None | Some(Data::Null) => &[],
        Some(Data::Map(entries)) => entries,
        Some(_) => {
            let node = node.expect("matched above");
            let message = format!("`attributes` is a map from a name to its fields, this is {}", node.describe());
            out.push(Diagnostic::error("wrong-type", message).at(source, node.at));
            &[]
        }
    };
    // What a domain takes it says itself, when the files are applied; here is only what none can take.
    let row = Limit::AttributesPerObject.row();
    let (count, at) = (entries.len() as u64, node.map(|n| n.at).unwrap_or_default());
    if count > row.max {
        let message = format!("{count} attributes; a class has at most {}", row.max);
        out.push(Diagnostic::error("too-large", message).at(source, at));
        return;
    }
    if count > row.default {
        let message = format!("{count} attributes; a domain takes a class of more than {} only if its limits.{} says so", row.default, row.name);
        out.push(Diagnostic::warning("too-large", message).at(source, at));
    }
    // Names first, so that `from` may name an attribute that stands further down.
    for (i, (key, _)) in (0u16..).zip(entries) {
        let name = key.text.as_str();
        if !is_identifier(name) || RESERVED.contains(&name) || name == OPERATIONAL {
            let message = if is_identifier(name) {
                format!("`{name}` is a word that every object answers to; call the attribute otherwise")
            } else {
                format!("\"{name}\" cannot be an attribute's name: letters, digits and underscores, as policies write it")
            };
            out.push(Diagnostic::error("bad-name", message).at(source, key.at));
        }
        class.slots.insert(AttributeName::new(name), Slot(i));
    }
    // Sources before what is derived from them, because an enum's words are needed to check `_when`.
    let mut read: Vec<Option<Attribute>> = vec![None; entries.len()];
    for derived in [false, true] {
        for (i, (key, node)) in entries.iter().enumerate() {
            let is_derived = matches!(&node.data, Data::Map(f) if f.iter().any(|(k, _)| k.text == "from"));
            if is_derived == derived {
                read[i] = Some(read_attribute(source, key, node, class, &read, out));
            }
        }
    }
    class.attributes = read.into_iter().flatten().collect();
}

fn read_attribute(
    source: Source<'_>,
    key: &Key,
    node: &Node,
    class: &Class,
    sources: &[Option<Attribute>],
    out: &mut Diagnostics,
) -> Attribute {
    let mut fields = Fields::new(source, format!("attribute `{}`", key.text), node, out);
    let range = fields.take("range").and_then(|node| {
        let range = node.scalar().and_then(|t| {
            let (low, high) = t.split_once("..")?;
            Some((low.trim().parse::<f64>().ok()?, high.trim().parse::<f64>().ok()?))
        });
        if range.is_none_or(|(low, high)| low > high) {
            fields.wrong("range", "two numbers such as 0..25000", node, out);
        }
        range
    });
    let mut attribute = Attribute {
        name: AttributeName::new(&key.text),
        kind: Kind::Text,
        unit: read_unit(source, &mut fields, out),
        range,
        stale_after: fields.duration("stale_after", out),
        control: fields.flag("control", out),
        safe: None,
        rest: None,
        careful: fields.flag("careful", out),
        journal: Keep::Changes,
        derive: None,
        at: Spot { length: u32::try_from(key.text.chars().count()).unwrap_or(1), ..key.at },
    };
    if let Some(word) = fields.take("journal") {
        attribute.journal = match word.scalar().as_deref() {
            Some("all") => Keep::All,
            Some("changes") => Keep::Changes,
            _ => {
                fields.wrong("journal", "all or changes", word, out);
                Keep::Changes
            }
        };
    }
    let from = fields.take("from");
    if let Some(from) = from {
        attribute.derive = read_derive(source, from, &mut fields, class, sources, out);
        attribute.kind = Kind::Enum(attribute.derive.as_ref().map(Derive::words).unwrap_or_default().into());
        for (name, set) in [("control", attribute.control), ("range", range.is_some()), ("stale_after", attribute.stale_after.is_some())] {
            if set {
                let message = format!("`{}` is derived; `{name}` belongs to what is read or set", key.text);
                out.push(Diagnostic::error("derived-attribute", message).at(source, key.at));
            }
        }
    } else {
        attribute.kind = read_kind(source, key, &mut fields, out);
        for name in ["safe", "rest"] {
            let Some(node) = fields.take(name) else { continue };
            let value = read_value(source, &attribute, node, out);
            if !attribute.control {
                let message = format!("`{}` is no control, so `{name}` would never be used", key.text);
                out.push(Diagnostic::error("not-a-control", message).at(source, node.at).help("add control: true"));
            }
            if name == "safe" { attribute.safe = value } else { attribute.rest = value }
        }
    }
    fields.elsewhere(&[("policy", "one level up, beside `class`"), ("operations", "one level up, beside `class`")]);
    fields.finish(out);
    attribute
}

/// SI units and what telecom equipment counts in, each spelled in one way, so that the readings of two drivers can be compared.
const UNITS: [&str; 22] =
    ["%", "°C", "K", "rpm", "W", "Wh", "V", "A", "Hz", "MHz", "bytes", "bytes/s", "packets/s", "ns", "us", "ms", "s", "Pa", "m/s", "m3/s", "dB", "dBm"];

fn read_unit(source: Source<'_>, fields: &mut Fields<'_>, out: &mut Diagnostics) -> Option<String> {
    let node = fields.take("unit")?;
    let word = node.scalar().unwrap_or_default();
    if !UNITS.contains(&word.as_str()) {
        out.push(
            Diagnostic::error("unknown-unit", format!("{} is no unit", node.describe()))
                .at(source, Spot { length: u32::try_from(word.chars().count()).unwrap_or(1), ..node.at })
                .help(suggestion(&word, UNITS).unwrap_or_else(|| format!("one of {}", UNITS.join(", ")))),
        );
    }
    Some(word)
}

fn read_kind(source: Source<'_>, key: &Key, fields: &mut Fields<'_>, out: &mut Diagnostics) -> Kind {
    let values = fields.take("values");
    let Some(node) = fields.take("type") else {
        if values.is_none() {
            let message = format!("attribute `{}` needs a `type`, or `from` if it follows from another", key.text);
            out.push(Diagnostic::error("missing-field", message).at(source, key.at).help(format!("type: {}", KINDS.join(" | "))));
            return Kind::Text;
        }
        return enum_kind(source, key, values, out);
    };
    let word = node.scalar().unwrap_or_default();
    let kind = match word.as_str() {
        "bool" => Kind::Bool,
        "int" => Kind::Int,
        "float" => Kind::Float,
        "text" => Kind::Text,
        "enum" => return enum_kind(source, key, values, out),
        _ => {
            out.push(
                Diagnostic::error("unknown-type", format!("{} is no type of attribute", node.describe()))
                    .at(source, Spot { length: u32::try_from(word.chars().count()).unwrap_or(1), ..node.at })
                    .help_if(suggestion(&word, KINDS)),
            );
            Kind::Text
        }
    };
    if let Some(values) = values {
        out.push(Diagnostic::error("wrong-type", format!("`values` belong to an enum, and `{}` is {word}", key.text)).at(source, values.at));
    }
    kind
}

fn enum_kind(source: Source<'_>, key: &Key, values: Option<&Node>, out: &mut Diagnostics) -> Kind {
    let Some(node) = values else {
        out.push(Diagnostic::error("missing-field", format!("enum `{}` needs `values`", key.text)).at(source, key.at));
        return Kind::Enum(Arc::from([]));
    };
    let mut words: Vec<Arc<str>> = Vec::new();
    for (word, at) in word_list(source, "values", node, out) {
        if words.iter().any(|w| **w == *word) {
            out.push(Diagnostic::error("doubled-key", format!("\"{word}\" is there twice")).at(source, at));
        }
        words.push(Arc::from(word));
    }
    Kind::Enum(words.into())
}

/// Reads a value of an attribute, as in `safe: 100` or a claim.
pub fn read_value(source: Source<'_>, attribute: &Attribute, node: &Node, out: &mut Diagnostics) -> Option<Value> {
    let raw = match &node.data {
        Data::Bool(b) => Some(Value::Bool(*b)),
        Data::Int(n) => Some(Value::Int(*n)),
        Data::Float(x) => Some(Value::Float(*x)),
        Data::Text(t) => Some(Value::Text(Arc::from(t.as_str()))),
        Data::Null | Data::List(_) | Data::Map(_) => None,
    };
    // A word of an enum may look like a number or a bool.
    let text = || node.scalar().map(|t| Value::Text(Arc::from(t)));
    let fitted = raw.and_then(|v| attribute.kind.fit(&v)).or_else(|| text().and_then(|v| attribute.kind.fit(&v)));
    match fitted {
        None => {
            let message = match &attribute.kind {
                Kind::Enum(_) => format!("`{}` is never {}", attribute.name, node.describe()),
                kind => format!("`{}` is {}, this is {}", attribute.name, kind.word(), node.describe()),
            };
            let word = node.scalar().unwrap_or_default();
            let length = u32::try_from(word.chars().count()).unwrap_or(1);
            out.push(
                Diagnostic::error("unknown-value", message)
                    .at(source, Spot { length, ..node.at })
                    .help_if(suggestion(&word, attribute.kind.words())),
            );
            None
        }
        Some(value) if !attribute.in_range(&value) => {
            let (low, high) = attribute.range.expect("out of a range");
            let message = format!("`{}` lies between {low} and {high}, this is {value}", attribute.name);
            out.push(Diagnostic::error("out-of-range", message).at(source, node.at));
            None
        }
        Some(value) => Some(value),
    }
}

fn read_derive(
    source: Source<'_>,
    from: &Node,
    fields: &mut Fields<'_>,
    class: &Class,
    sources: &[Option<Attribute>],
    out: &mut Diagnostics,
) -> Option<Derive> {
    let from_name = from.scalar().unwrap_or_default();
    let slot = class.slot(&from_name);
    let read_from = slot.and_then(|s| sources[s.0 as usize].as_ref());
    if read_from.is_none() {
        let message = match slot {
            Some(_) => format!("`{from_name}` is itself derived; derive from what is read"),
            None => format!("`from` names an attribute of this class, and there is no `{from_name}`"),
        };
        out.push(
            Diagnostic::error("unknown-attribute", message)
                .at(source, Spot { length: u32::try_from(from_name.chars().count()).unwrap_or(1), ..from.at })
                .help_if(suggestion(&from_name, class.slots.keys().map(AttributeName::as_str))),
        );
    }
    let hysteresis = fields.number("hysteresis", out).unwrap_or(0.0);
    let hold = fields.duration("hold", out).unwrap_or(Duration::ZERO);
    let normal = fields.text("normal", out).unwrap_or_else(|| "normal".into());
    let missing = fields.text("missing", out).map(Arc::from);
    let mut steps = Vec::new();
    for (key, node) in fields.take_all(|k| k.ends_with("_below") || k.ends_with("_above") || k.ends_with("_when")) {
        if let Some(step) = read_step(source, key, node, read_from, out) {
            steps.push(step);
        }
    }
    if steps.is_empty() {
        out.push(
            Diagnostic::error("missing-field", "a derived state needs at least one threshold")
                .at(source, from.at)
                .help("such as failed_below: 800, hot_above: 70 or starting_when: [M2, M3]"),
        );
    }
    if hysteresis < 0.0 {
        out.push(Diagnostic::error("out-of-range", "`hysteresis` is not negative").at(source, from.at));
    }
    Some(Derive { from: slot?, normal: Arc::from(normal), steps, hysteresis, hold, missing })
}

fn read_step(source: Source<'_>, key: &Key, node: &Node, from: Option<&Attribute>, out: &mut Diagnostics) -> Option<Step> {
    let (word, how) = key.text.rsplit_once('_').expect("the suffix has one");
    let test = if how == "when" {
        let items = match &node.data {
            Data::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        Test::When(items.iter().filter_map(|item| from.and_then(|a| read_value(source, a, item, out))).collect())
    } else {
        if let Some(from) = from
            && !matches!(from.kind, Kind::Int | Kind::Float)
        {
            let message = format!("`{}` is {}, which has no above and below", from.name, from.kind.word());
            out.push(Diagnostic::error("wrong-type", message).at(source, key.at).help(format!("{word}_when: [...]")));
        }
        let Some(limit) = node.number() else {
            let message = format!("`{}` is a number, this is {}", key.text, node.describe());
            out.push(Diagnostic::error("wrong-type", message).at(source, node.at));
            return None;
        };
        if let Some((low, high)) = from.and_then(|f| f.range)
            && (limit < low || limit > high)
        {
            let message = format!("`{}` can never hold: {limit} lies outside {low}..{high}", key.text);
            out.push(Diagnostic::error("out-of-range", message).at(source, node.at));
        }
        if how == "below" { Test::Below(limit) } else { Test::Above(limit) }
    };
    Some(Step { word: Arc::from(word), test })
}

fn read_operational(source: Source<'_>, node: &Node, class: &mut Class, out: &mut Diagnostics) {
    let mut fields = Fields::new(source, "`operational`", node, out);
    let from = fields.require("from", out);
    let disabled = fields.words("disabled", out).unwrap_or_default();
    fields.finish(out);
    let Some(from) = from else { return };
    let name = from.scalar().unwrap_or_default();
    let Some(slot) = class.slot(&name) else {
        out.push(
            Diagnostic::error("unknown-attribute", format!("this class has no `{name}`"))
                .at(source, from.at)
                .help_if(suggestion(&name, class.attribute_names())),
        );
        return;
    };
    let kind = class.attribute(slot).kind.clone();
    for (word, at) in &disabled {
        if matches!(kind, Kind::Enum(_)) && !kind.words().any(|w| w == word) {
            out.push(
                Diagnostic::error("unknown-value", format!("`{name}` is never \"{word}\""))
                    .at(source, Spot { length: u32::try_from(word.chars().count()).unwrap_or(1), ..*at })
                    .help_if(suggestion(word, kind.words())),
            );
        }
    }
    class.operational = Some(Operational { from: slot, disabled: disabled.into_iter().map(|(w, _)| w).collect() });
}

fn add_operational(class: &mut Class) {
    let words: [Arc<str>; 3] = ["enabled".into(), "disabled".into(), "unknown".into()];
    let slot = Slot(u16::try_from(class.attributes.len()).expect("bounded"));
    class.attributes.push(Attribute {
        name: AttributeName::new(OPERATIONAL),
        kind: Kind::Enum(Arc::from(words)),
        unit: None,
        range: None,
        stale_after: None,
        control: false,
        safe: None,
        rest: None,
        careful: false,
        journal: Keep::Changes,
        derive: None,
        at: Spot::default(),
    });
    class.slots.insert(AttributeName::new(OPERATIONAL), slot);
}

fn read_fallback(source: Source<'_>, node: &Node, class: &mut Class, out: &mut Diagnostics) {
    let Data::Map(entries) = &node.data else {
        let message = format!("`fallback` is a map from a control to its value, this is {}", node.describe());
        out.push(Diagnostic::error("wrong-type", message).at(source, node.at));
        return;
    };
    for (key, value) in entries {
        let slot = class.slot(&key.text).filter(|s| class.attribute(*s).control);
        let Some(slot) = slot else {
            let length = u32::try_from(key.text.chars().count()).unwrap_or(1);
            out.push(
                Diagnostic::error("not-a-control", format!("`{}` is no control of this class", key.text))
                    .at(source, Spot { length, ..key.at })
                    .help_if(suggestion(&key.text, class.control_names())),
            );
            continue;
        };
        if let Some(value) = read_value(source, class.attribute(slot), value, out) {
            class.fallback.push((slot, value));
        }
    }
}

fn read_hears(source: Source<'_>, node: &Node, class: &mut Class, out: &mut Diagnostics) {
    let Data::Map(entries) = &node.data else {
        let message = format!("`hears` is a map from a class to its attributes, this is {}", node.describe());
        out.push(Diagnostic::error("wrong-type", message).at(source, node.at).help("hears: { chassis: [cooling, alarm] }"));
        return;
    };
    for (key, value) in entries {
        class.hears_at.push((key.text.clone(), None, key.at));
        let mut wanted = BTreeSet::new();
        for (word, at) in word_list(source, "hears", value, out) {
            class.hears_at.push((key.text.clone(), Some(word.clone()), at));
            wanted.insert(AttributeName::new(word));
        }
        class.hears.insert(ClassName::new(&key.text), wanted);
    }
}

/// Whether `value` is nearer to what is safe than `other`; equal claims decide by it.
pub(crate) fn safer(attribute: &Attribute, value: &Value, other: &Value) -> bool {
    let Some(safe) = &attribute.safe else { return false };
    match (number(safe), number(value), number(other)) {
        (Some(safe), Some(a), Some(b)) => (a - safe).abs() < (b - safe).abs(),
        _ => value == safe && other != safe,
    }
}
