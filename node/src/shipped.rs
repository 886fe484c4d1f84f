//! What ships: classes, alarms and policies, built into the binary so that an appliance needs nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use sixnines_core::domain::config::{Bundle, DomainConfig};

include!(concat!(env!("OUT_DIR"), "/shipped.rs"));

/// The shipped files, and the objects of every chassis that the domain names.
pub(crate) fn bundle(config: &DomainConfig) -> Bundle {
    let is_shelf = |name: &str| name.starts_with("objects/");
    let mut files: BTreeMap<String, String> = FILES.iter().filter(|(name, _)| !is_shelf(name)).map(|(name, text)| ((*name).into(), (*text).into())).collect();
    let shelf = FILES.iter().find(|(name, _)| *name == "objects/mxp1.yaml").map(|(_, text)| *text).unwrap_or_default();
    for chassis in &config.chassis {
        files.insert(format!("objects/{}.yaml", chassis.name), shelf.replace("/mxp1", &format!("/{}", chassis.name)));
    }
    Bundle { files }
}

/// The shipped files without objects: a simulated chassis brings its own.
pub(crate) fn policies() -> Bundle {
    let files = FILES.iter().filter(|(name, _)| !name.starts_with("objects/"));
    Bundle { files: files.map(|(name, text)| ((*name).into(), (*text).into())).collect() }
}

/// Writes them to a directory.
pub(crate) fn write(target: &Path, config: &DomainConfig) -> anyhow::Result<()> {
    bundle(config).files.iter().try_for_each(|(name, text)| put(target, name, text))
}

fn put(target: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let path = target.join(name);
    let parent = path.parent().unwrap_or(target);
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
