//! The active's node dies while it leads the control log: a new leader has to be found before anybody can take over.
//!
//! The leadership sits where no copy is. So the standby dies first, the leader's node gets the copy, and the service is moved there before the
//! standby is back: the leadership does not leave before the roles have been still for a while.

use anyhow::Context as _;
use nix::sys::signal::Signal;

use super::moved;
use crate::demo::report::{Facts, Meant};
use crate::demo::stage::{Before, Notes, SERVICE, Stage, seat};

/// So often it is tried; once is enough unless this machine stands still just then.
const TRIES: usize = 10;

pub(super) fn killed(stage: &mut Stage, name: &'static str) -> anyhow::Result<Facts> {
    let before = meet(stage, name)?;
    let node = before.active.clone();
    let hit = stage.lab.room(&node).signal(Signal::SIGKILL);
    stage.progress.now(&format!("{name}: {hit} processes of {node} killed"));
    stage.wait_moved(&before)?;
    let after = stage.settle(SERVICE)?;
    let told = moved(&before, &after.active, &format!("all {hit} processes of {node} killed, which led the log"));
    stage.restart(&node)?;
    stage.end(before, Meant::Moves, after, Notes { told: vec![told], ..Notes::default() })
}

/// Brings the service to the node that leads the log; the step's window begins while it still does.
fn meet(stage: &mut Stage, name: &'static str) -> anyhow::Result<Before> {
    for _ in 0..TRIES {
        let Some(leader) = give_leader_the_service(stage, name)? else { continue };
        let before = stage.begin(name)?;
        if before.active == leader && stage.domain.status_of(&leader)?.leader.as_ref() == Some(&leader) {
            return Ok(before);
        }
    }
    anyhow::bail!("the leadership left before the service came, {TRIES} times");
}

/// The leader, once it is active for the service and everybody is up; nobody if it cannot be had that way.
fn give_leader_the_service(stage: &mut Stage, name: &'static str) -> anyhow::Result<Option<String>> {
    let status = stage.wait_redundant()?;
    let calls = status.service(SERVICE).with_context(|| format!("the domain does not know {SERVICE}"))?;
    let (Some(leader), Some(standby)) = (status.leader.clone(), calls.standbys.first().cloned()) else { return Ok(None) };
    if calls.standbys.contains(&leader) {
        stage.domain.switchover(SERVICE, Some(&leader))?;
        return Ok(Some(leader));
    }
    if calls.active.as_ref() == Some(&leader) || seat(&standby)?.chassis != seat(&leader)?.chassis {
        stage.domain.switchover(SERVICE, Some(&standby))?; // a copy is kept in the other chassis
        return Ok(None);
    }
    stage.progress.now(&format!("{name}: {standby} is killed, for {leader} to get its copy"));
    stage.lab.room(&standby).signal(Signal::SIGKILL);
    stage.wait("the leader has the copy", |stage| {
        let status = stage.domain.status()?;
        Ok(status.service(SERVICE).is_some_and(|row| row.standbys.contains(&leader)).then_some(()))
    })?;
    stage.domain.switchover(SERVICE, Some(&leader))?; // before the other one is back, who would have the copy instead
    stage.restart(&standby)?;
    let status = stage.wait_redundant()?;
    Ok(status.leader.filter(|now| *now == leader))
}
