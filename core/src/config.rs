//! YAML that people write, read into a tree that knows where each word stands.
//!
//! A tree rather than derived structs, because one run shall find all mistakes of a file, each with its place and what would
//! be right. Doubled keys are refused and alias bombs bounded by the parser's budget.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::{Budget, Options, Spanned};

use crate::diagnostic::{Diagnostic, Diagnostics, Source, Spot, suggestion};
use crate::time::Duration;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where.
    pub at: Spot,
    /// What.
    pub data: Data,
}

/// What a YAML document is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Nothing.
    Null,
    /// `true` or `false`; the other words of YAML 1.1 (`on`, `yes`) are text here.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// Anything else that is one scalar.
    Text(String),
    /// `[a, b]`, or lines with a dash.
    List(Vec<Node>),
    /// `key: value`, in the order of the file.
    Map(Vec<(Key, Node)>),
}

/// A key of a map and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// Where.
    pub at: Spot,
    /// What.
    pub text: String,
}

/// Largest file that is read, in bytes.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// Reads one document.
///
/// # Errors
/// One message: the parser cannot go on behind a mistake of syntax.
pub fn parse(source: Source<'_>) -> Result<Node, Box<Diagnostic>> {
    if source.text.len() > FILE_BYTES_MAX {
        let size = source.text.len();
        return Err(Box::new(Diagnostic::error("too-large", format!("{} has {size} bytes; at most {FILE_BYTES_MAX} are read", source.name))));
    }
    let mut budget = Budget::default();
    budget.max_depth = 32;
    budget.max_nodes = 50_000;
    budget.max_events = 100_000;
    budget.max_aliases = 200;
    budget.max_anchors = 100;
    budget.max_documents = 1;
    let mut options = Options::default();
    options.budget = Some(budget);
    options.strict_booleans = true;
    options.with_snippet = false;
    options.alias_limits.max_total_replayed_events = 20_000;
    options.alias_limits.max_alias_expansions_per_anchor = 200;
    match serde_yaml::from_str_with_options::<Spanned<Data>>(source.text, options) {
        Ok(root) => Ok(node(root)),
        Err(error) => {
            let spot = error.location().map(|l| spot(&l)).unwrap_or_default();
            let error = error.without_snippet();
            let (code, message) = explain(error);
            Err(Box::new(Diagnostic::error(code, message).at(source, Spot { length: spot.length.max(1), ..spot })))
        }
    }
}

fn explain(error: &serde_yaml::Error) -> (&'static str, String) {
    let text = error.to_string();
    // The parser appends the place, which we print ourselves.
    let text = text.split("\n").next().unwrap_or_default();
    let text = text.rsplit_once(" at line ").map_or(text, |(t, _)| t);
    match error {
        serde_yaml::Error::DuplicateMappingKey { .. } => ("doubled-key", "the same key stands here twice".to_owned()),
        serde_yaml::Error::Budget { .. }
        | serde_yaml::Error::AliasReplayLimitExceeded { .. }
        | serde_yaml::Error::AliasExpansionLimitExceeded { .. }
        | serde_yaml::Error::AliasReplayStackDepthExceeded { .. } => {
            ("too-large", format!("the file unfolds into more than is read: {text}"))
        }
        // The parser wraps some of its limits in the place where the alias was used.
        _ if text.contains("limit exceeded") => ("too-large", format!("the file unfolds into more than is read: {text}")),
        _ => ("syntax", format!("this is not YAML: {text}")),
    }
}

fn spot(location: &serde_yaml::Location) -> Spot {
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Spot { line: number(location.line()), column: number(location.column()), length: u32::try_from(location.span().len()).unwrap_or(u32::MAX) }
}

fn node(spanned: Spanned<Data>) -> Node {
    Node { at: spot(&spanned.referenced), data: spanned.value }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DataVisitor)
    }
}

struct DataVisitor;

impl<'de> Visitor<'de> for DataVisitor {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or a map")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Data, E> {
        Ok(Data::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Data, E> {
        Ok(Data::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Data, E> {
        Ok(i64::try_from(value).map_or_else(|_| Data::Text(value.to_string()), Data::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Data, E> {
        Ok(if value.is_finite() { Data::Float(value) } else { Data::Text(value.to_string()) })
    }

    fn visit_str<E>(self, value: &str) -> Result<Data, E> {
        Ok(Data::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Data, E> {
        Ok(Data::Text(value))
    }

    fn visit_unit<E>(self) -> Result<Data, E> {
        Ok(Data::Null)
    }

    fn visit_none<E>(self) -> Result<Data, E> {
        Ok(Data::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Data, D::Error> {
        Data::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Data, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = seq.next_element::<Spanned<Data>>()? {
            list.push(node(item));
        }
        Ok(Data::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Data, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let at = spot(&key.referenced);
            let value = node(map.next_value::<Spanned<Data>>()?);
            entries.push((Key { at, text: key.value }, value));
        }
        Ok(Data::Map(entries))
    }
}

impl Node {
    /// What it is, in the words of a message.
    pub fn describe(&self) -> String {
        match &self.data {
            Data::Null => "nothing".into(),
            Data::Bool(b) => format!("{b}"),
            Data::Int(n) => format!("{n}"),
            Data::Float(x) => format!("{x}"),
            Data::Text(t) => format!("\"{t}\""),
            Data::List(_) => "a list".into(),
            Data::Map(_) => "a map".into(),
        }
    }

    /// A single word or number as text.
    pub fn scalar(&self) -> Option<String> {
        match &self.data {
            Data::Bool(b) => Some(b.to_string()),
            Data::Int(n) => Some(n.to_string()),
            Data::Float(x) => Some(x.to_string()),
            Data::Text(t) => Some(t.clone()),
            Data::Null | Data::List(_) | Data::Map(_) => None,
        }
    }

    /// A number.
    pub fn number(&self) -> Option<f64> {
        match self.data {
            #[expect(clippy::cast_precision_loss, reason = "thresholds beyond 2^53 have no sensor")]
            Data::Int(n) => Some(n as f64),
            Data::Float(x) => Some(x),
            _ => None,
        }
    }
}

/// Reads the fields of one map, and says what was wrong with each.
///
/// Every field that the code asks for becomes a known one; [`Fields::finish`] refuses the others.
#[derive(Debug)]
pub struct Fields<'a> {
    source: Source<'a>,
    what: String,
    /// Where the map stands.
    pub at: Spot,
    left: Vec<&'a (Key, Node)>,
    asked: Vec<&'static str>,
    /// Fields of neighbouring levels: the commonest slip is a key at the wrong depth.
    elsewhere: Vec<(&'static str, &'static str)>,
}

impl<'a> Fields<'a> {
    /// The fields of `node`, which is `what` ("a class"). Anything but a map is reported and read as empty.
    pub fn new(source: Source<'a>, what: impl Into<String>, node: &'a Node, out: &mut Diagnostics) -> Self {
        let what = what.into();
        let left = match &node.data {
            Data::Map(entries) => entries.iter().collect(),
            Data::Null => Vec::new(),
            _ => {
                out.push(
                    Diagnostic::error("wrong-type", format!("{what} is written as a map of fields, this is {}", node.describe()))
                        .at(source, node.at),
                );
                Vec::new()
            }
        };
        Self { source, what, at: node.at, left, asked: Vec::new(), elsewhere: Vec::new() }
    }

    /// Fields that people look for here and that belong somewhere else: (field, "under `attributes`").
    pub fn elsewhere(&mut self, fields: &[(&'static str, &'static str)]) {
        self.elsewhere.extend_from_slice(fields);
    }

    /// Takes a field.
    pub fn take(&mut self, name: &'static str) -> Option<&'a Node> {
        self.take_with_key(name).map(|(_, node)| node)
    }

    /// Takes a field together with its key's place.
    pub fn take_with_key(&mut self, name: &'static str) -> Option<(&'a Key, &'a Node)> {
        self.asked.push(name);
        let position = self.left.iter().position(|(key, _)| key.text == name)?;
        let (key, node) = self.left.remove(position);
        Some((key, node))
    }

    /// Takes every field that `wanted` accepts.
    pub fn take_all(&mut self, mut wanted: impl FnMut(&str) -> bool) -> Vec<(&'a Key, &'a Node)> {
        let (taken, left) = std::mem::take(&mut self.left).into_iter().partition(|(key, _)| wanted(&key.text));
        self.left = left;
        let taken: Vec<&'a (Key, Node)> = taken;
        taken.into_iter().map(|(key, node)| (key, node)).collect()
    }

    /// A field that has to be there.
    pub fn require(&mut self, name: &'static str, out: &mut Diagnostics) -> Option<&'a Node> {
        let found = self.take(name);
        if found.is_none() {
            out.push(Diagnostic::error("missing-field", format!("{} needs `{name}`", self.what)).at(self.source, self.at));
        }
        found
    }

    /// A field with a word or number.
    pub fn text(&mut self, name: &'static str, out: &mut Diagnostics) -> Option<String> {
        let node = self.take(name)?;
        let text = node.scalar();
        if text.is_none() {
            self.wrong(name, "one word or text", node, out);
        }
        text
    }

    /// A field with `true` or `false`.
    pub fn flag(&mut self, name: &'static str, out: &mut Diagnostics) -> bool {
        match self.take(name) {
            None => false,
            Some(Node { data: Data::Bool(b), .. }) => *b,
            Some(node) => {
                self.wrong(name, "true or false", node, out);
                false
            }
        }
    }

    /// A field with a number.
    pub fn number(&mut self, name: &'static str, out: &mut Diagnostics) -> Option<f64> {
        let node = self.take(name)?;
        let number = node.number();
        if number.is_none() {
            self.wrong(name, "a number", node, out);
        }
        number
    }

    /// A field with a duration such as `500ms`; a number without a unit is refused.
    pub fn duration(&mut self, name: &'static str, out: &mut Diagnostics) -> Option<Duration> {
        let node = self.take(name)?;
        let parsed = match &node.data {
            Data::Text(text) => parse_duration(text),
            _ => None,
        };
        if parsed.is_none() {
            self.wrong(name, "a duration with its unit, such as 500ms, 3s or 10m", node, out);
        }
        parsed
    }

    /// A list of words, also written as one word.
    pub fn words(&mut self, name: &'static str, out: &mut Diagnostics) -> Option<Vec<(String, Spot)>> {
        let node = self.take(name)?;
        Some(word_list(self.source, name, node, out))
    }

    /// Reports a field of the wrong kind.
    pub fn wrong(&self, name: &str, wanted: &str, node: &Node, out: &mut Diagnostics) {
        out.push(
            Diagnostic::error("wrong-type", format!("`{name}` of {} is {wanted}, this is {}", self.what, node.describe()))
                .at(self.source, node.at),
        );
    }

    /// Refuses what nobody asked for.
    pub fn finish(self, out: &mut Diagnostics) {
        for (key, _) in &self.left {
            let elsewhere = self.elsewhere.iter().find(|(field, _)| *field == key.text);
            let help = match elsewhere {
                Some((field, place)) => Some(format!("`{field}` belongs {place}")),
                None => suggestion(&key.text, self.asked.iter().copied()),
            };
            out.push(
                Diagnostic::error("unknown-field", format!("{} has no field `{}`", self.what, key.text))
                    .at(self.source, Spot { length: u32::try_from(key.text.chars().count()).unwrap_or(1), ..key.at })
                    .help_if(help),
            );
        }
    }
}

/// A list of words with their places, also written as one word.
pub fn word_list(source: Source<'_>, name: &str, node: &Node, out: &mut Diagnostics) -> Vec<(String, Spot)> {
    let items = match &node.data {
        Data::List(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let mut words = Vec::new();
    for item in items {
        match item.scalar() {
            Some(word) => words.push((word, item.at)),
            None => out.push(
                Diagnostic::error("wrong-type", format!("`{name}` is a list of words, this is {}", item.describe()))
                    .at(source, item.at),
            ),
        }
    }
    words
}

/// Reads `500ms`, `3s`, `1.5s`, `10m`, `2h`, `1d`. A bare number is no duration.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(end);
    let seconds_each = match unit.trim() {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    let seconds = number.parse::<f64>().ok()? * seconds_each;
    // A year is more than any hold-off or lease needs, and far from where nanoseconds overflow.
    if seconds > 366.0 * 86_400.0 {
        return None;
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source<'_> {
        Source { name: "x.yaml", text }
    }

    #[test]
    fn words_know_their_places() {
        let root = parse(source("class: fan\nwords: [on, 3, 2.5, true]\n")).expect("good YAML");
        let Data::Map(entries) = &root.data else { panic!("{root:?}") };
        assert_eq!((entries[1].0.at.line, entries[1].0.at.column), (2, 1));
        let Data::List(items) = &entries[1].1.data else { panic!() };
        assert_eq!(items[0].data, Data::Text("on".into()));
        assert_eq!(items[1].data, Data::Int(3));
        assert_eq!(items[2].data, Data::Float(2.5));
        assert_eq!(items[3].data, Data::Bool(true));
        assert_eq!((items[1].at.line, items[1].at.column), (2, 13));
    }

    #[test]
    fn a_doubled_key_is_refused_at_its_second_place() {
        let wrong = parse(source("a: 1\nb: 2\na: 3\n")).expect_err("a is there twice");
        assert_eq!(wrong.code, "doubled-key");
        assert_eq!(wrong.place.as_ref().map(|p| p.line), Some(3));
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..9 {
            let before = vec![format!("*a{}", i - 1); 10].join(", ");
            text.push_str(&format!("a{i}: &a{i} [{before}]\n"));
        }
        let wrong = parse(source(&text)).expect_err("10^9 words");
        assert_eq!(wrong.code, "too-large", "{wrong}");
    }

    #[test]
    fn deep_nesting_is_refused_and_not_a_stack_overflow() {
        let text = "[".repeat(20_000);
        assert!(parse(source(&text)).is_err());
    }

    #[test]
    fn durations_bear_a_unit() {
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_duration("10m"), Some(Duration::from_secs(600)));
        for bad in ["5", "", "ms", "5 parsecs", "-1s", "1e9999s", "99999999999999d"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
