//! From the files of a bundle to what runs: `policy check`, `policy apply` and every node do the same thing here.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use crate::alarms::Catalogue;
use crate::class::{Class, OPERATIONAL, Pattern, read_class};
use crate::config;
use crate::diagnostic::{Diagnostic, Diagnostics, Level, Source, Spot, suggestion};
use crate::domain::config::Bundle;
use crate::domain::limits::{Limit, Limits};
use crate::ids::ClassName;
use crate::objects::{Declared, read_objects};
use crate::policy::{Policy, Watch, compile, parts_of_the_language};

/// A bundle in force: immutable, shared.
#[derive(Debug)]
pub struct Compiled {
    /// All classes.
    pub classes: BTreeMap<ClassName, Arc<Class>>,
    /// All alarm types.
    pub catalogue: Catalogue,
    /// All objects that files declare, parents before children.
    pub objects: Vec<Declared>,
    /// All policies, by file.
    pub policies: BTreeMap<Arc<str>, Arc<Policy>>,
    /// The files it was made of.
    pub files: Bundle,
    /// What is worth a look, though nothing is wrong.
    pub warnings: Vec<Diagnostic>,
    /// Watches the time of policies' calls, once a clock is given to it.
    pub watch: Arc<Watch>,
    names: Vec<(Pattern, Arc<Class>)>,
}

/// Most bytes of a bundle's files together.
pub const BUNDLE_BYTES_MAX: usize = 4 << 20;

/// Compiles a bundle.
///
/// # Errors
/// Everything that is wrong, warnings among it; nothing can be used.
pub fn compile_bundle(bundle: &Bundle) -> Result<Arc<Compiled>, Vec<Diagnostic>> {
    let mut out = Diagnostics::default();
    let size: usize = bundle.files.values().map(String::len).sum();
    if size > BUNDLE_BYTES_MAX {
        return Err(vec![Diagnostic::error("too-large", format!("the files have {size} bytes together; at most {BUNDLE_BYTES_MAX} are read"))]);
    }
    let files = Files::sort(bundle, &mut out);
    let catalogue = read_catalogue(files.alarms, &mut out);
    let classes = read_classes(&files.classes, &mut out);
    let objects = read_all_objects(&files.objects, &classes, &mut out);
    let bound = bind(&classes, &objects, &files, &mut out);
    check_hears(&classes, bundle, &mut out);
    let language = parts_of_the_language(&classes);
    let mut policies = BTreeMap::new();
    for source in &files.policies {
        let classes_of_it = bound.get(source.name).map(Vec::as_slice).unwrap_or_default();
        if classes_of_it.is_empty() {
            out.push(
                Diagnostic::warning("unused-policy", format!("no class and no object names {}", source.name))
                    .help(format!("add `policy: {}` to a class", source.name)),
            );
        }
        if let Some(policy) = compile(*source, classes_of_it, &classes, &catalogue, &language, &mut out) {
            policies.insert(Arc::from(source.name), Arc::new(policy));
        }
    }
    let failed = out.has_errors();
    let messages = out.into_sorted();
    if failed {
        return Err(messages);
    }
    let names = classes.values().flat_map(|c| c.names.iter().map(|p| (p.clone(), c.clone()))).collect();
    let warnings = messages.into_iter().filter(|d| d.level == Level::Warning).collect();
    Ok(Arc::new(Compiled { classes, catalogue, objects, policies, files: bundle.clone(), warnings, watch: language.watch, names }))
}

/// As [`compile_bundle`], but the thread's newest bundle is shared if it is made of the same files: nodes that start again, replays, and
/// simulated domains compile the same one over and over, and what is compiled does not change.
///
/// # Errors
/// As [`compile_bundle`].
pub fn shared_bundle(bundle: &Bundle) -> Result<Arc<Compiled>, Vec<Diagnostic>> {
    thread_local! {
        static NEWEST: RefCell<Option<Arc<Compiled>>> = const { RefCell::new(None) };
    }
    if let Some(same) = NEWEST.with_borrow(|newest| newest.clone().filter(|c| c.files == *bundle)) {
        return Ok(same);
    }
    let compiled = compile_bundle(bundle)?;
    NEWEST.set(Some(Arc::clone(&compiled)));
    Ok(compiled)
}

impl Compiled {
    /// A bundle without anything. One for all: even that knows the whole language.
    pub fn empty() -> Arc<Self> {
        static EMPTY: LazyLock<Arc<Compiled>> = LazyLock::new(|| compile_bundle(&Bundle::default()).expect("nothing in it is wrong"));
        Arc::clone(&EMPTY)
    }

    /// Where a domain with these limits has no room for it: refused before it becomes law, so that what is law always fits.
    pub fn exceeds(&self, limits: &Limits) -> Vec<Diagnostic> {
        let mut out = Vec::new();
        let mut judge = |limit: Limit, count: usize, what: String| {
            if count > limits.count(limit) {
                let row = limit.row();
                out.push(
                    Diagnostic::error("over-limit", format!("{what} {count} {}; this domain takes {}", row.unit, limits.of(limit)))
                        .help(format!("raise limits.{} of the domain, at most to {}", row.name, row.max)),
                );
            }
        };
        judge(Limit::Objects, self.objects.len(), "the files declare".to_owned());
        for class in self.classes.values() {
            judge(Limit::AttributesPerObject, own_attributes(class), format!("{} declares", class.file));
        }
        out
    }

    /// How many attributes the largest class declares.
    pub fn most_attributes(&self) -> usize {
        self.classes.values().map(|class| own_attributes(class)).max().unwrap_or(0)
    }

    /// The class whose `names` wait for an object of this name.
    pub fn class_for(&self, name: &str) -> Option<&Arc<Class>> {
        self.names.iter().find(|(p, _)| p.matches(name)).map(|(_, c)| c)
    }
}

/// Without the one that every class has.
fn own_attributes(class: &Class) -> usize {
    class.attributes.iter().filter(|a| a.name.as_str() != OPERATIONAL).count()
}

/// The files by what they are for.
struct Files<'a> {
    alarms: Option<Source<'a>>,
    classes: Vec<Source<'a>>,
    objects: Vec<Source<'a>>,
    policies: Vec<Source<'a>>,
}

impl<'a> Files<'a> {
    fn sort(bundle: &'a Bundle, out: &mut Diagnostics) -> Self {
        let mut files = Self { alarms: None, classes: Vec::new(), objects: Vec::new(), policies: Vec::new() };
        for (name, text) in &bundle.files {
            let source = Source { name, text };
            let yaml = name.ends_with(".yaml") || name.ends_with(".yml");
            if name == "alarms.yaml" {
                files.alarms = Some(source);
            } else if name.starts_with("tests/") || !(yaml || name.ends_with(".rhai")) {
                // Tests and what people write beside the files is not ours to judge.
            } else if yaml && name.starts_with("classes/") {
                files.classes.push(source);
            } else if yaml && name.starts_with("objects/") {
                files.objects.push(source);
            } else if yaml {
                out.push(
                    Diagnostic::error("misplaced-file", format!("nothing reads {name}"))
                        .help("classes stand in classes/, objects in objects/, alarms in alarms.yaml"),
                );
            } else {
                files.policies.push(source);
            }
        }
        files
    }
}

fn read_catalogue(source: Option<Source<'_>>, out: &mut Diagnostics) -> Catalogue {
    let Some(source) = source else { return Catalogue::builtin() };
    match config::parse(source) {
        Ok(root) => Catalogue::read(source, &root, out),
        Err(wrong) => {
            out.push(*wrong);
            Catalogue::builtin()
        }
    }
}

fn read_classes(sources: &[Source<'_>], out: &mut Diagnostics) -> BTreeMap<ClassName, Arc<Class>> {
    let mut classes: BTreeMap<ClassName, Arc<Class>> = BTreeMap::new();
    for source in sources {
        let root = match config::parse(*source) {
            Ok(root) => root,
            Err(wrong) => {
                out.push(*wrong);
                continue;
            }
        };
        let Some(class) = read_class(*source, &root, out) else { continue };
        if let Some(other) = classes.get(&class.name) {
            let message = format!("class {} is declared in {} already", class.name, other.file);
            out.push(Diagnostic::error("doubled-key", message).at(*source, Spot { line: 1, column: 1, length: 1 }));
            continue;
        }
        classes.insert(class.name.clone(), Arc::new(class));
    }
    classes
}

fn read_all_objects(sources: &[Source<'_>], classes: &BTreeMap<ClassName, Arc<Class>>, out: &mut Diagnostics) -> Vec<Declared> {
    let mut seen: BTreeMap<crate::ids::ObjectName, String> = BTreeMap::new();
    let mut objects = Vec::new();
    for source in sources {
        match config::parse(*source) {
            Err(wrong) => out.push(*wrong),
            Ok(root) => {
                for declared in read_objects(*source, &root, classes, out) {
                    if let Some(file) = seen.insert(declared.name.clone(), declared.file.clone()) {
                        let message = format!("{} is declared in {file} already", declared.name);
                        out.push(Diagnostic::error("doubled-key", message).at(*source, declared.at));
                    } else if classes.contains_key(&declared.class) {
                        objects.push(declared);
                    }
                }
            }
        }
    }
    if objects.len() > crate::objects::OBJECTS_MAX {
        let message = format!("{} objects; a bundle has at most {}", objects.len(), crate::objects::OBJECTS_MAX);
        out.push(Diagnostic::error("too-large", message));
        objects.truncate(crate::objects::OBJECTS_MAX);
    }
    objects
}

/// Which classes each policy file speaks for.
fn bind<'a>(
    classes: &BTreeMap<ClassName, Arc<Class>>,
    objects: &'a [Declared],
    files: &Files<'a>,
    out: &mut Diagnostics,
) -> BTreeMap<String, Vec<Arc<Class>>> {
    let mut bound: BTreeMap<String, Vec<Arc<Class>>> = BTreeMap::new();
    let class_rows = classes.values().filter_map(|c| Some((c.policy.clone()?, c.clone(), c.file.clone(), c.policy_at)));
    let object_rows =
        objects.iter().filter_map(|o| Some((o.policy.clone()?, classes.get(&o.class)?.clone(), o.file.clone(), o.policy_at)));
    for (policy, class, file, at) in class_rows.chain(object_rows) {
        if files.policies.iter().any(|p| p.name == policy) {
            let list = bound.entry(policy).or_default();
            if !list.iter().any(|c| c.name == class.name) {
                list.push(class);
            }
            continue;
        }
        let source = files.classes.iter().chain(&files.objects).find(|s| s.name == file).copied();
        let mut wrong = Diagnostic::error("unknown-policy", format!("there is no file \"{policy}\" in the bundle"))
            .help_if(suggestion(&policy, files.policies.iter().map(|p| p.name)));
        if let Some(source) = source {
            wrong = wrong.at(source, Spot { length: u32::try_from(policy.chars().count()).unwrap_or(1), ..at });
        }
        out.push(wrong);
    }
    bound
}

fn check_hears(classes: &BTreeMap<ClassName, Arc<Class>>, bundle: &Bundle, out: &mut Diagnostics) {
    for class in classes.values() {
        let text = bundle.files.get(&class.file).map(String::as_str).unwrap_or_default();
        let source = Source { name: &class.file, text };
        for (heard, attribute, at) in &class.hears_at {
            let word = attribute.as_deref().unwrap_or(heard);
            let at = Spot { length: u32::try_from(word.chars().count()).unwrap_or(1), ..*at };
            match (classes.get(heard.as_str()), attribute) {
                (None, None) => out.push(
                    Diagnostic::error("unknown-class", format!("there is no class \"{heard}\""))
                        .at(source, at)
                        .help_if(suggestion(heard, classes.keys().map(ClassName::as_str))),
                ),
                (Some(known), Some(attribute)) if attribute != crate::class::ALARM && known.slot(attribute).is_none() => out.push(
                    Diagnostic::error("unknown-attribute", format!("a {heard} has no `{attribute}`"))
                        .at(source, at)
                        .help_if(suggestion(attribute, known.attribute_names())),
                ),
                _ => {}
            }
        }
    }
}
