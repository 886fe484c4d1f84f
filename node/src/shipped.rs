//! What ships: classes, alarms and policies, built into the binary so that an appliance needs nothing else.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use sixnines_core::domain::config::DomainConfig;

include!(concat!(env!("OUT_DIR"), "/shipped.rs"));

/// Writes the shipped files, and the objects of every chassis that the domain names.
pub(crate) fn write(target: &Path, config: &DomainConfig) -> anyhow::Result<()> {
    for (name, text) in FILES.iter().filter(|(name, _)| !name.starts_with("objects/")) {
        put(target, name, text)?;
    }
    let shelf = FILES.iter().find(|(name, _)| *name == "objects/mxp1.yaml").map(|(_, text)| *text).context("no shelf ships")?;
    for chassis in &config.chassis {
        put(target, &format!("objects/{}.yaml", chassis.name), &shelf.replace("/mxp1", &format!("/{}", chassis.name)))?;
    }
    Ok(())
}

fn put(target: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let path = target.join(name);
    let parent = path.parent().unwrap_or(target);
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
