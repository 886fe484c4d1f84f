//! Classes of managed objects: which attributes they have, how numbers turn into states, what speaks for them.
//!
//! A class is a YAML file. A derived state is written as `from: speed`, a word for the normal case, and one line per other
//! word: `failed_below: 800`, `hot_above: 70`, `starting_when: [M2, M3]`. The first line that holds wins; a word that was
//! reached is left only `hysteresis` beyond its threshold, and a new word counts only after it has held for `hold`.

mod derive;
mod read;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use derive::{Derive, Step, Test};
pub(crate) use read::safer;
pub use read::{read_class, read_value};

use crate::diagnostic::Spot;
use crate::ids::{AttributeName, ClassName};
use crate::time::Duration;
use crate::value::Value;

/// Position of an attribute within its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot(pub u16);

/// A class of managed objects.
#[derive(Clone, Debug)]
pub struct Class {
    /// Its name.
    pub name: ClassName,
    /// One sentence.
    pub text: String,
    /// The attributes; a [`Slot`] counts in here. Sources stand before what is derived from them is evaluated, not in the list.
    pub attributes: Vec<Attribute>,
    /// Where each attribute is in the list.
    pub slots: BTreeMap<AttributeName, Slot>,
    /// Things to do once, such as `reset`: edge actions.
    pub operations: BTreeSet<AttributeName>,
    /// The policy file that speaks for objects of this class.
    pub policy: Option<String>,
    /// What is claimed while the policy is failing.
    pub fallback: Vec<(Slot, Value)>,
    /// Names under which an object of this class comes into being with its first reading, such as `/nodes/*/cpu*`.
    pub names: Vec<Pattern>,
    /// Which events of other objects reach `on_event`: class to attributes (or `alarm`).
    pub hears: BTreeMap<ClassName, BTreeSet<AttributeName>>,
    /// The file that declares it.
    pub file: String,
    /// Where `hears` names each class and attribute, for messages.
    pub hears_at: Vec<(String, Option<String>, Spot)>,
    /// Where the policy is named.
    pub policy_at: Spot,
    /// Which attribute says whether the object works, and with which words it does not.
    pub operational: Option<Operational>,
}

/// One attribute of a class.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribute {
    /// Its name.
    pub name: AttributeName,
    /// What it holds.
    pub kind: Kind,
    /// Its unit, as shown to people.
    pub unit: Option<String>,
    /// Both ends allowed.
    pub range: Option<(f64, f64)>,
    /// Without a reading for so long, the value is stale.
    pub stale_after: Option<Duration>,
    /// Whether policies and operators can claim it.
    pub control: bool,
    /// The value of a control when the owner of its claim is gone, and towards which equal claims decide.
    pub safe: Option<Value>,
    /// The value of a control that nobody claims.
    pub rest: Option<Value>,
    /// A wrong value does harm that cannot be taken back (power): asked only once the intent is synced and replicated.
    pub careful: bool,
    /// Which readings the journal keeps.
    pub journal: Keep,
    /// How it follows from another attribute.
    pub derive: Option<Derive>,
    /// Where it is declared.
    pub at: Spot,
}

/// What an attribute holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// True or false.
    Bool,
    /// A whole number.
    Int,
    /// A number.
    Float,
    /// Free text.
    Text,
    /// One of these words.
    Enum(Arc<[Arc<str>]>),
}

/// The words of [`Kind`] in a file.
pub const KINDS: [&str; 5] = ["bool", "int", "float", "text", "enum"];

impl Kind {
    /// Its word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Bool => KINDS[0],
            Self::Int => KINDS[1],
            Self::Float => KINDS[2],
            Self::Text => KINDS[3],
            Self::Enum(_) => KINDS[4],
        }
    }

    /// The words of an enum.
    pub fn words(&self) -> impl Iterator<Item = &str> + Clone {
        match self {
            Self::Enum(words) => words.iter(),
            _ => [].iter(),
        }
        .map(|w| &**w)
    }

    /// The value as this kind holds it; `None` if it cannot.
    ///
    /// Text becomes an enum's word, a whole number a float, and a float without a fraction a whole number: drivers in
    /// other languages do not tell them apart.
    pub fn fit(&self, value: &Value) -> Option<Value> {
        match (self, value) {
            (Self::Bool, Value::Bool(_)) | (Self::Int, Value::Int(_)) | (Self::Text, Value::Text(_)) => Some(value.clone()),
            (Self::Float, Value::Float(x)) => x.is_finite().then(|| value.clone()),
            #[expect(clippy::cast_precision_loss, reason = "readings beyond 2^53 have no sensor")]
            (Self::Float, Value::Int(n)) => Some(Value::Float(*n as f64)),
            #[expect(clippy::cast_possible_truncation, reason = "whole and within bounds, as tested")]
            (Self::Int, Value::Float(x)) if x.fract() == 0.0 && x.abs() < 9e15 => Some(Value::Int(*x as i64)),
            (Self::Text, Value::Enum(t)) => Some(Value::Text(t.clone())),
            (Self::Enum(words), Value::Enum(t) | Value::Text(t)) => words.iter().find(|w| **w == *t).map(|w| Value::Enum(w.clone())),
            _ => None,
        }
    }
}

/// Which readings the journal keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Keep {
    /// Every reading.
    All,
    /// Readings that changed something.
    #[default]
    Changes,
}

/// Which attribute says whether the object works (X.731 operational state).
#[derive(Clone, Debug, PartialEq)]
pub struct Operational {
    /// The attribute.
    pub from: Slot,
    /// Words under which the object is disabled.
    pub disabled: BTreeSet<String>,
}

/// The attribute that every class has: X.731 operational state, `enabled`, `disabled` or `unknown`.
pub const OPERATIONAL: &str = "operational";
/// The class of shelves.
pub const CHASSIS_CLASS_WORD: &str = "chassis";
/// The pseudo attribute of alarm events.
pub const ALARM: &str = "alarm";

impl Class {
    /// Where an attribute is.
    pub fn slot(&self, name: &str) -> Option<Slot> {
        self.slots.get(name).copied()
    }

    /// One attribute.
    ///
    /// # Panics
    /// If the slot is from another class.
    pub fn attribute(&self, slot: Slot) -> &Attribute {
        &self.attributes[slot.0 as usize]
    }

    /// Names of all attributes.
    pub fn attribute_names(&self) -> impl Iterator<Item = &str> + Clone {
        self.attributes.iter().map(|a| a.name.as_str())
    }

    /// Names of all controls.
    pub fn control_names(&self) -> impl Iterator<Item = &str> + Clone {
        self.attributes.iter().filter(|a| a.control).map(|a| a.name.as_str())
    }

    /// The attributes that follow from one.
    pub fn derived_from(&self, slot: Slot) -> impl Iterator<Item = (Slot, &Attribute, &Derive)> {
        (0u16..).zip(&self.attributes).filter_map(move |(i, a)| match &a.derive {
            Some(d) if d.from == slot => Some((Slot(i), a, d)),
            _ => None,
        })
    }
}

impl Attribute {
    /// Whether a number lies in the range.
    pub fn in_range(&self, value: &Value) -> bool {
        match (self.range, number(value)) {
            (Some((low, high)), Some(x)) => low <= x && x <= high,
            _ => true,
        }
    }
}

/// A value as a number, where it is one.
pub fn number(value: &Value) -> Option<f64> {
    match value {
        #[expect(clippy::cast_precision_loss, reason = "readings beyond 2^53 have no sensor")]
        Value::Int(n) => Some(*n as f64),
        Value::Float(x) => Some(*x),
        Value::Bool(_) | Value::Text(_) | Value::Enum(_) => None,
    }
}

/// A pattern of object names: `*` stands for anything within one part, `**` at the end for everything below.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pattern(String);

impl Pattern {
    /// Takes the text as it is.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a name matches.
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = name.split('/');
        let mut pattern = self.0.split('/');
        loop {
            match (pattern.next(), parts.next()) {
                (Some("**"), Some(_)) | (None, None) => return true,
                (Some(p), Some(part)) if part_matches(p, part) => {}
                _ => return false,
            }
        }
    }
}

fn part_matches(pattern: &str, part: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == part,
        Some((before, rest)) => {
            let Some(tail) = part.strip_prefix(before) else { return false };
            // Short texts, few stars: trying each place is enough.
            (0..=tail.len()).filter(|i| tail.is_char_boundary(*i)).any(|i| part_matches(rest, &tail[i..]))
        }
    }
}
