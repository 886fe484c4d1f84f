//! Processes and nodes that die or hang.

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sixnines_core::value::Outcome;

use super::moved;
use crate::demo::lab::SEATS;
use crate::demo::report::{Facts, Meant};
use crate::demo::setup::APPLICATION;
use crate::demo::stage::{Notes, SERVICE, Stage, seat};

/// The chassis whose owner is killed together with the service's active.
const CHASSIS: &str = "mxp1";

pub(super) fn process_killed(stage: &mut Stage, name: &'static str) -> anyhow::Result<Facts> {
    let before = stage.begin(name)?;
    let pid = stage.lab.room(&before.active).find(APPLICATION).with_context(|| format!("no call server runs on {}", before.active))?;
    stage.progress.now(&format!("{name}: kill -9 {pid} on {}", before.active));
    kill(Pid::from_raw(pid), Signal::SIGKILL).context("killing the call server")?;
    stage.wait_moved(&before)?;
    let after = stage.settle(SERVICE)?;
    let told = moved(&before, &after.active, &format!("kill -9 of the call server on {}", before.active));
    stage.end(before, Meant::Moves, after, Notes { told: vec![told], ..Notes::default() })
}

/// With a fault in the chassis that the node owns, so that there are claims and alarms that must go on.
pub(super) fn killed(stage: &mut Stage, name: &'static str) -> anyhow::Result<Facts> {
    let node = both_on_one_node(stage)?;
    stage.domain.inject(CHASSIS, "fan-failed", "fan1")?;
    let alarm = stage.wait("the alarm of the failed fan", |stage| {
        Ok(stage.domain.alarms()?.into_iter().find(|a| a.object == format!("/{CHASSIS}/fan1")))
    })?;
    stage.wait("the other fans at full speed", |stage| Ok((stage.shelf(CHASSIS)?.lowest_duty(2..=5) >= 100.0).then_some(())))?;

    let before = stage.begin(name)?;
    anyhow::ensure!(before.active == node, "{SERVICE} left {node} before it was killed");
    stage.shelf(CHASSIS)?.mark();
    let hit = stage.lab.room(&node).signal(Signal::SIGKILL);
    stage.progress.now(&format!("{name}: {hit} processes of {node} killed"));
    stage.wait_moved(&before)?;
    let group = format!("chassis:{CHASSIS}");
    let owner = stage.wait("a new owner of the chassis", |stage| {
        let status = stage.domain.status()?;
        Ok(status.service(&group).and_then(|s| s.active.clone()).filter(|a| *a != node))
    })?;
    let after = stage.settle(SERVICE)?;
    let mut notes = Notes { told: vec![moved(&before, &after.active, &format!("all {hit} processes of {node} killed"))], broken: vec![] };
    match stage.domain.alarms()?.into_iter().find(|a| a.object == alarm.object && a.alarm == alarm.alarm) {
        Some(still) if still.id == alarm.id => notes.told.push(format!("{owner} owns {CHASSIS}: alarm {} goes on", alarm.id)),
        Some(other) => notes.broken.push(format!("the alarm {} came back as {}", alarm.id, other.id)),
        None => notes.broken.push(format!("the alarm {} was forgotten", alarm.id)),
    }
    late_order(stage, &node, before.epoch_of(&group), &mut notes)?;
    let lowest = stage.shelf(CHASSIS)?.lowest_duty_since_mark(2..=4);
    if lowest < 100.0 {
        notes.broken.push(format!("a claim was forgotten: a fan went down to {lowest:.0} %"));
    }
    stage.restart(&node)?;
    stage.domain.clear(CHASSIS)?;
    stage.end(before, Meant::Moves, after, notes)
}

/// An order of the dead owner that was long under way arrives after its successor's first: the chassis must refuse it.
fn late_order(stage: &mut Stage, dead: &str, epoch: u64, notes: &mut Notes) -> anyhow::Result<()> {
    stage.wait("an order of the new owner", |stage| Ok((stage.shelf(CHASSIS)?.highest_epoch()? > epoch).then_some(())))?;
    match stage.shelf(CHASSIS)?.late_order(epoch)? {
        Outcome::Fenced { by } => notes.told.push(format!("a late order of {dead} (epoch {epoch}) was refused by {CHASSIS}, which has seen {by}")),
        other => notes.broken.push(format!("{CHASSIS} took a late order of {dead} (epoch {epoch}): {other:?}")),
    }
    Ok(())
}

/// Brings the service to the node that owns the chassis.
fn both_on_one_node(stage: &mut Stage) -> anyhow::Result<String> {
    let status = stage.wait_redundant()?;
    let active_of = |name: &str| status.service(name).and_then(|s| s.active.clone());
    let owner = active_of(&format!("chassis:{CHASSIS}")).with_context(|| format!("nobody owns {CHASSIS}"))?;
    let active = active_of(SERVICE).with_context(|| format!("nobody serves {SERVICE}"))?;
    if active != owner {
        let standbys = status.service(SERVICE).map(|s| s.standbys.clone()).unwrap_or_default();
        if standbys.contains(&owner) {
            stage.domain.switchover(SERVICE, Some(&owner))?;
        } else {
            // The owner holds no copy: the chassis goes to its other node, which does.
            let is_inside = |n: &&String| seat(n).is_ok_and(|s| s.chassis == CHASSIS);
            let to = std::iter::once(&active).chain(&standbys).find(is_inside).with_context(|| format!("no copy of {SERVICE} in {CHASSIS}"))?.clone();
            stage.domain.switchover(&format!("chassis:{CHASSIS}"), Some(&to))?;
            if active != to {
                stage.domain.switchover(SERVICE, Some(&to))?;
            }
        }
    }
    stage.wait("the service and its chassis on one node", |stage| {
        let status = stage.domain.status()?;
        let active = |name: &str| status.service(name).and_then(|s| s.active.clone());
        let (calls, chassis) = (active(SERVICE), active(&format!("chassis:{CHASSIS}")));
        Ok(if calls == chassis { calls } else { None })
    })
}

pub(super) fn standby_killed(stage: &mut Stage, name: &'static str) -> anyhow::Result<Facts> {
    let before = stage.begin(name)?;
    let standby = before.calls.standbys.first().context("a redundant service has a standby")?.clone();
    let hit = stage.lab.room(&standby).signal(Signal::SIGKILL);
    stage.progress.now(&format!("{name}: {hit} processes of {standby} killed"));
    stage.wait("the smaller set is committed", |stage| {
        let status = stage.domain.status()?;
        Ok(status.service(SERVICE).filter(|s| !s.standbys.contains(&standby)).map(drop))
    })?;
    let after = stage.settle(&standby)?;
    let told = moved(&before, &after.active, &format!("all {hit} processes of {standby} killed, the standby's node"));
    stage.restart(&standby)?;
    stage.end(before, Meant::Stays, after, Notes { told: vec![told], ..Notes::default() })
}

/// A majority is left, and nothing that the client needs was there.
pub(super) fn voter_killed(stage: &mut Stage, name: &'static str) -> anyhow::Result<Facts> {
    let before = stage.begin(name)?;
    let has_copy = |node: &str| before.active == node || before.calls.standbys.iter().any(|s| s == node);
    let voter = SEATS.map(|s| s.node).into_iter().find(|node| !has_copy(node)).context("every node has a copy of the service")?;
    let hit = stage.lab.room(voter).signal(Signal::SIGKILL);
    stage.progress.now(&format!("{name}: {hit} processes of {voter} killed"));
    stage.wait("the others know that it is gone", |stage| Ok((!stage.domain.status()?.nodes_up.iter().any(|n| n == voter)).then_some(())))?;
    let after = stage.settle(voter)?;
    let told = moved(&before, &after.active, &format!("all {hit} processes of {voter} killed, which had no copy"));
    stage.restart(voter)?;
    stage.end(before, Meant::Stays, after, Notes { told: vec![told], ..Notes::default() })
}

pub(super) fn hung(stage: &mut Stage, name: &'static str) -> anyhow::Result<Facts> {
    let before = stage.begin(name)?;
    let node = before.active.clone();
    let hit = stage.lab.room(&node).signal(Signal::SIGSTOP);
    stage.progress.now(&format!("{name}: {hit} processes of {node} stopped"));
    stage.wait_moved(&before)?;
    let after = stage.settle(SERVICE)?;
    stage.progress.now(&format!("{name}: {node} goes on"));
    stage.lab.room(&node).signal(Signal::SIGCONT);
    let epoch = before.calls.epoch;
    stage.wait("the stopped node knows that it is fenced", |stage| {
        let status = stage.domain.status_of(&node);
        Ok(status.ok().and_then(|s| s.service(SERVICE).filter(|s| s.epoch > epoch && s.active.as_ref() != Some(&node)).map(drop)))
    })?;
    let told = vec![
        moved(&before, &after.active, &format!("all {hit} processes of {node} stopped")),
        format!("{node} went on later and found itself fenced"),
    ];
    stage.end(before, Meant::Moves, after, Notes { told, ..Notes::default() })
}
