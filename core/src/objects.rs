//! The objects of a domain from YAML: a chassis file lists what sits in the shelf.
//!
//! `fan1..5: { class: fan }` stands for five objects. A child's name is added to its parent's. Attributes of one object may
//! override its class's range and staleness, nothing else: what an attribute *is* belongs to the class.

use std::collections::BTreeMap;

use crate::class::{Attribute, Class};
use crate::config::{Data, Fields, Key, Node};
use crate::diagnostic::{Diagnostic, Diagnostics, Source, Spot, suggestion};
use crate::ids::{AttributeName, ClassName, NodeId, ObjectName};
use crate::time::Duration;

/// Most objects of one bundle.
pub const OBJECTS_MAX: usize = 4096;

/// One object as its file declares it.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    /// Where it is.
    pub name: ObjectName,
    /// What it is.
    pub class: ClassName,
    /// The policy that speaks for it instead of its class's.
    pub policy: Option<String>,
    /// The node that sits there (a board that is a computer).
    pub node: Option<NodeId>,
    /// What is different from its class.
    pub overrides: BTreeMap<AttributeName, Override>,
    /// The file that declares it.
    pub file: String,
    /// Where in it.
    pub at: Spot,
    /// Where its policy is named.
    pub policy_at: Spot,
}

/// What one object may change about an attribute of its class.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Override {
    /// Another range.
    pub range: Option<(f64, f64)>,
    /// Another patience.
    pub stale_after: Option<Duration>,
}

/// Reads one file of objects.
pub fn read_objects(source: Source<'_>, root: &Node, classes: &BTreeMap<ClassName, std::sync::Arc<Class>>, out: &mut Diagnostics) -> Vec<Declared> {
    let mut fields = Fields::new(source, "a file of objects", root, out);
    fields.elsewhere(&[("class", "under an object's name, under `objects`"), ("children", "under an object's name, under `objects`")]);
    let objects = fields.require("objects", out);
    fields.finish(out);
    let mut reader = Reader { source, classes, declared: Vec::new() };
    if let Some(node) = objects {
        reader.level("", "objects", node, 0, out);
    }
    reader.declared
}

struct Reader<'a> {
    source: Source<'a>,
    classes: &'a BTreeMap<ClassName, std::sync::Arc<Class>>,
    declared: Vec<Declared>,
}

impl Reader<'_> {
    fn level(&mut self, parent: &str, what: &str, node: &Node, depth: usize, out: &mut Diagnostics) {
        let Data::Map(entries) = &node.data else {
            let message = format!("`{what}` is a map from a name to an object, this is {}", node.describe());
            out.push(Diagnostic::error("wrong-type", message).at(self.source, node.at));
            return;
        };
        for (key, node) in entries {
            match expand(&key.text, parent.is_empty()) {
                Err(message) => out.push(Diagnostic::error("bad-name", message).at(self.source, key.at)),
                Ok(names) => {
                    for name in names {
                        let full = if parent.is_empty() { name } else { format!("{parent}/{name}") };
                        self.object(&full, key, node, depth, out);
                    }
                }
            }
        }
    }

    fn object(&mut self, name: &str, key: &Key, node: &Node, depth: usize, out: &mut Diagnostics) {
        if self.declared.len() >= OBJECTS_MAX || depth > 8 {
            out.push(Diagnostic::error("too-large", format!("more than {OBJECTS_MAX} objects or 8 levels")).at(self.source, key.at));
            return;
        }
        let mut fields = Fields::new(self.source, format!("object {name}"), node, out);
        let class_node = fields.require("class", out);
        let class_name = class_node.and_then(Node::scalar).unwrap_or_default();
        let class = self.classes.get(class_name.as_str());
        if let (None, Some(node)) = (class, class_node) {
            out.push(
                Diagnostic::error("unknown-class", format!("there is no class \"{class_name}\""))
                    .at(self.source, Spot { length: u32::try_from(class_name.chars().count()).unwrap_or(1), ..node.at })
                    .help_if(suggestion(&class_name, self.classes.keys().map(ClassName::as_str))),
            );
        }
        let policy_node = fields.take("policy");
        let node_of = fields.take("node").and_then(|n| {
            let parsed = n.scalar().and_then(|t| t.parse().ok());
            if parsed.is_none() {
                fields.wrong("node", "a node, such as n3", n, out);
            }
            parsed
        });
        let overrides = fields.take("attributes");
        let children = fields.take("children");
        fields.finish(out);
        let mut declared = Declared {
            name: ObjectName::new(name),
            class: ClassName::new(&class_name),
            policy: policy_node.and_then(Node::scalar),
            node: node_of,
            overrides: BTreeMap::new(),
            file: self.source.name.to_owned(),
            at: key.at,
            policy_at: policy_node.map(|n| n.at).unwrap_or_default(),
        };
        if let (Some(node), Some(class)) = (overrides, class) {
            declared.overrides = self.overrides(class, node, out);
        }
        self.declared.push(declared);
        if let Some(node) = children {
            self.level(name, "children", node, depth + 1, out);
        }
    }

    fn overrides(&self, class: &Class, node: &Node, out: &mut Diagnostics) -> BTreeMap<AttributeName, Override> {
        let mut overrides = BTreeMap::new();
        let Data::Map(entries) = &node.data else {
            let message = format!("`attributes` is a map from an attribute to what is different, this is {}", node.describe());
            out.push(Diagnostic::error("wrong-type", message).at(self.source, node.at));
            return overrides;
        };
        for (key, node) in entries {
            let known: Option<&Attribute> = class.slot(&key.text).map(|s| class.attribute(s));
            if known.is_none() {
                let length = u32::try_from(key.text.chars().count()).unwrap_or(1);
                out.push(
                    Diagnostic::error("unknown-attribute", format!("a {} has no `{}`", class.name, key.text))
                        .at(self.source, Spot { length, ..key.at })
                        .help_if(suggestion(&key.text, class.attribute_names())),
                );
            }
            let mut fields = Fields::new(self.source, format!("`{}`", key.text), node, out);
            let range = fields.take("range").and_then(Node::scalar).and_then(|t| {
                let (low, high) = t.split_once("..")?;
                Some((low.trim().parse().ok()?, high.trim().parse().ok()?))
            });
            let change = Override { range, stale_after: fields.duration("stale_after", out) };
            fields.elsewhere(&[("type", "to the class"), ("control", "to the class"), ("unit", "to the class")]);
            fields.finish(out);
            overrides.insert(AttributeName::new(&key.text), change);
        }
        overrides
    }
}

/// `fan1..5` is fan1 to fan5; a top-level name begins with a slash.
fn expand(text: &str, top: bool) -> Result<Vec<String>, String> {
    let bare = if top {
        text.strip_prefix('/').ok_or_else(|| format!("an object's name begins with a slash: \"/{text}\""))?
    } else {
        text
    };
    let fine = |t: &str| {
        !t.is_empty() && t.len() <= 128 && t.split('/').all(|p| !p.is_empty() && p.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c)))
    };
    let range = bare.split_once("..").map(|(left, last)| {
        let digits = left.len() - left.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let (stem, first) = left.split_at(left.len() - digits);
        (stem, first.parse::<u32>(), last.parse::<u32>())
    });
    match range {
        None if fine(bare) => Ok(vec![text.to_owned()]),
        Some((stem, Ok(first), Ok(last))) if first <= last && last - first < 256 && fine(&format!("{stem}1")) => {
            let slash = if top { "/" } else { "" };
            Ok((first..=last).map(|n| format!("{slash}{stem}{n}")).collect())
        }
        _ => Err(format!("\"{text}\" is no object's name; letters, digits, dashes, or a range such as fan1..5")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_stands_for_several_objects() {
        assert_eq!(expand("fan1..3", false), Ok(vec!["fan1".into(), "fan2".into(), "fan3".into()]));
        assert_eq!(expand("/mxp1", true), Ok(vec!["/mxp1".into()]));
        for bad in ["fan5..1", "fan..", "..", "a b", "", "x//y"] {
            assert!(expand(bad, false).is_err(), "{bad}");
        }
        assert!(expand("mxp1", true).is_err());
    }
}
