//! Links that are cut.

use std::time::Duration;

use super::moved;
use crate::demo::lab::Fabric;
use crate::demo::report::{Facts, Meant};
use crate::demo::stage::{Notes, SERVICE, Stage, seat};

/// How long one link stays cut: long enough for a hundred heartbeats to be missed.
const CUT_FOR: Duration = Duration::from_secs(1);

pub(super) fn both(stage: &mut Stage, name: &'static str) -> anyhow::Result<Facts> {
    let before = stage.begin(name)?;
    let node = before.active.clone();
    stage.progress.now(&format!("{name}: both links of {node} cut"));
    for fabric in Fabric::BOTH {
        stage.lab.set_cable(&node, fabric, false)?;
    }
    stage.wait_moved(&before)?;
    let after = stage.settle(SERVICE)?;
    let told = vec![
        moved(&before, &after.active, &format!("both links of {node} cut")),
        format!("{node} was silent before {} spoke, and rejoined when healed", after.active),
    ];
    stage.progress.now(&format!("{name}: both links of {node} plugged again"));
    for fabric in Fabric::BOTH {
        stage.lab.set_cable(&node, fabric, true)?;
    }
    stage.end(before, Meant::Moves, after, Notes { told, ..Notes::default() })
}

/// It is heard, but hears nobody: as good as dead, and it must find that out by itself.
pub(super) fn one_way(stage: &mut Stage, name: &'static str) -> anyhow::Result<Facts> {
    let before = stage.begin(name)?;
    let node = seat(&before.active)?;
    stage.progress.now(&format!("{name}: nothing reaches {} any more", node.node));
    stage.lab.set_deaf(node, true)?;
    stage.wait_moved(&before)?;
    let after = stage.settle(SERVICE)?;
    let told = vec![
        moved(&before, &after.active, &format!("nothing reached {} any more, though it was heard", node.node)),
        format!("{} was silent before {} spoke, and rejoined when healed", node.node, after.active),
    ];
    stage.progress.now(&format!("{name}: {} is reached again", node.node));
    stage.lab.set_deaf(node, false)?;
    stage.end(before, Meant::Moves, after, Notes { told, ..Notes::default() })
}

/// Events made while the link is cut must all arrive: a fan fails and recovers.
pub(super) fn one(stage: &mut Stage, name: &'static str) -> anyhow::Result<Facts> {
    let before = stage.begin(name)?;
    let node = before.active.clone();
    stage.progress.now(&format!("{name}: fabric A of {node} cut"));
    stage.lab.set_cable(&node, Fabric::A, false)?;
    let mut notes = Notes::default();
    stage.domain.inject("mxp1", "fan-worn", "fan1")?;
    std::thread::sleep(CUT_FOR);
    let after = stage.settle(&node)?;
    stage.lab.set_cable(&node, Fabric::A, true)?;
    stage.domain.clear("mxp1")?;
    notes.told.push(moved(&before, &after.active, &format!("fabric A of {node} cut for {} s", CUT_FOR.as_secs())));
    match stage.wait("every event is known on every node", |stage| stage.events_missing().map(|m| m.is_none().then_some(()))) {
        Ok(()) => notes.told.push("every node knows every event of the others".to_owned()),
        Err(_) => notes.broken.push(stage.events_missing()?.unwrap_or_else(|| "events were late".to_owned())),
    }
    stage.end(before, Meant::Stays, after, notes)
}
