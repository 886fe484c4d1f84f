//! The stresses: what each of them starts, what it does while it lasts, and what it says of itself at the end.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::ballast::BALLAST;
use super::burden::{self, BURDEN};
use super::judge::Judge;
use super::{firewall, seconds_now};
use crate::config::load_bundle;
use crate::demo::domain::Status;
use crate::demo::lab::{CHASSIS, Lab};
use crate::demo::stage::{SERVICE, Stage};

/// What the domain is put under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stress {
    /// As many spinning processes as there are cores, and one that allocates, touches and frees memory
    Cpu,
    /// Memory is taken, and walked through, until a tenth of the machine's is left (512 MB at least)
    Memory,
    /// 100,000 readings a second of the first chassis, through its driver; what the node's bound lets through becomes events
    Events,
    /// Each fan's policy never ends, so that every call burns its whole budget; each change of a fan's speed is a call for every fan
    Policy,
    /// A state of up to 1 GB is transferred: its standby is killed and comes back, again and again
    Checkpoint,
    /// Reloads of an nftables set of 20,000 elements in the namespace of the service's active
    Firewall,
}

impl Stress {
    /// As the command line has it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Events => "events",
            Self::Policy => "policy",
            Self::Checkpoint => "checkpoint",
            Self::Firewall => "firewall",
        }
    }
}

/// Readings a second of the storm.
pub(super) const RATE: u64 = 100_000;
/// The same for policies alone.
const BREEZE: u64 = 500;
/// A killed node comes back after so long.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// Elements of the firewall's set.
const ELEMENTS: u32 = 20_000;
/// What the domain's files call the policy of fans, and their class.
const FAN_POLICY: &str = "fan.rhai";
const FAN_CLASS: &str = "classes/fan.yaml";

/// Stresses that are on.
pub(super) struct Running {
    began: Instant,
    children: Vec<Child>,
    storm: Option<(u64, u64, String)>,
    former: Option<BTreeMap<String, String>>,
    transfers: Option<Transfers>,
    reloads_in: Option<(PathBuf, usize)>,
    memory: bool,
}

/// Where the killing of the ballast's standby is.
#[derive(Default)]
struct Transfers {
    /// Who was killed, and when.
    killed: Option<(String, Instant)>,
    seconds: Vec<f64>,
}

/// The file that switches the storm on, and the one that has its count.
pub(super) fn storm_files(lab: &Lab) -> (PathBuf, PathBuf) {
    (lab.path("storm"), lab.path("storm-sent"))
}

impl Running {
    /// Starts them. Call it on the main thread.
    pub(super) fn start(stage: &mut Stage, stresses: &[Stress]) -> anyhow::Result<Self> {
        let has = |stress| stresses.contains(&stress);
        let status = stage.domain.status()?;
        let mut running = Self { began: Instant::now(), children: Vec::new(), storm: None, former: None, transfers: None, reloads_in: None, memory: has(Stress::Memory) };
        if has(Stress::Policy) {
            running.former = Some(burn_budgets(stage)?);
        }
        if has(Stress::Policy) && !has(Stress::Events) {
            // A steady fan calls no policy.
            std::fs::write(storm_files(&stage.lab).0, BREEZE.to_string()).context("having the fans' speeds change")?;
        }
        if has(Stress::Events) {
            let owner = active_of(&status, &format!("chassis:{}", CHASSIS[0]))?;
            running.storm = Some((storm_sent(stage), stage.domain.events_made(&owner)?, owner));
            std::fs::write(storm_files(&stage.lab).0, RATE.to_string()).context("switching the storm on")?;
        }
        if has(Stress::Checkpoint) {
            running.transfers = Some(Transfers::default());
        }
        if has(Stress::Firewall) {
            let room = active_of(&status, SERVICE)?;
            let log = stage.lab.room(&room).log();
            running.reloads_in = Some((log.clone(), reloads(&log).len()));
            running.add(stage, &room, &["firewall", "--elements", &ELEMENTS.to_string()])?;
        }
        if has(Stress::Memory) {
            running.add(stage, OUTSIDE, &["fill", "--leave", &burden::megabytes_to_leave()?.to_string()])?;
        }
        if has(Stress::Cpu) {
            for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
                running.add(stage, OUTSIDE, &["spin"])?;
            }
            running.add(stage, OUTSIDE, &["churn"])?;
        }
        running.began = Instant::now();
        Ok(running)
    }

    fn add(&mut self, stage: &Stage, room: &str, words: &[&str]) -> anyhow::Result<()> {
        let room = stage.lab.room(room);
        let log = std::fs::File::options().create(true).append(true).open(room.log()).context("opening a log")?;
        let mut command = room.command(std::env::current_exe().context("finding this program")?);
        command.arg(BURDEN).args(words).stdout(log.try_clone().context("opening a log")?).stderr(log).stdin(Stdio::null());
        self.children.push(room.spawn(command)?);
        Ok(())
    }

    /// What has to be done while they last; call it a few times a second. `more`: whether to begin something anew.
    pub(super) fn turn(&mut self, stage: &mut Stage, status: &Status, judge: &mut Judge, more: bool) -> anyhow::Result<()> {
        for child in &mut self.children {
            if let Some(end) = child.try_wait().context("looking at a stress")? {
                anyhow::bail!("a stress has ended by itself ({end}): the rooms' logs tell why");
            }
        }
        let Some(transfers) = &mut self.transfers else { return Ok(()) };
        let Some(ballast) = status.service(BALLAST) else { return Ok(()) };
        let is_whole = status.lacks(crate::demo::lab::SEATS.len(), crate::demo::stage::candidates).is_none();
        if let Some((node, since)) = &transfers.killed {
            // The look may be from before the loss was seen: a transfer takes longer than a failover.
            // A process of a gigabyte holds its directory's lock for a while after it was killed: a daemon that came too early has ended again.
            if since.elapsed() > RESTART_AFTER && stage.lab.room(node).find("run").is_none() {
                stage.restart(node)?;
            } else if is_whole && since.elapsed() > 2 * RESTART_AFTER {
                tracing::debug!(node, "the ballast has a standby again");
                transfers.seconds.push(since.elapsed().as_secs_f64());
                transfers.killed = None;
            }
        } else if more && is_whole {
            // Not the service's own active: what a client sees is to be the transfer's doing.
            let calls = active_of(status, SERVICE)?;
            let Some(victim) = ballast.standbys.iter().find(|node| **node != calls).cloned() else {
                judge.asked(BALLAST);
                return stage.domain.switchover(BALLAST, Some(&calls)).context("making room for the killing of a standby");
            };
            judge.killed(&victim);
            stage.lab.room(&victim).signal(Signal::SIGKILL);
            stage.lab.keeper().reap();
            transfers.killed = Some((victim, Instant::now()));
        }
        Ok(())
    }

    /// Whether a transfer is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.transfers.as_ref().is_some_and(|t| t.killed.is_some())
    }

    /// Ends them. What each says of itself, in words.
    pub(super) fn stop(&mut self, stage: &mut Stage, megabytes: u32) -> anyhow::Result<Vec<String>> {
        let mut told = Vec::new();
        let seconds = self.began.elapsed().as_secs_f64();
        if self.memory {
            told.push(format!("memory: {} MB available at the end", burden::available_megabytes()?));
        }
        self.end_children();
        if self.storm.is_some() || self.former.is_some() {
            std::fs::remove_file(storm_files(&stage.lab).0).context("switching the storm off")?;
        }
        if let Some((sent, made, owner)) = self.storm.take() {
            let rate = |count: u64| count as f64 / seconds;
            let (sent, made) = (storm_sent(stage).saturating_sub(sent), stage.domain.events_made(&owner)?.saturating_sub(made));
            told.push(format!("events: {:.0} readings a second sent of {RATE} wanted, {:.0} events a second made of them by {owner}", rate(sent), rate(made)));
        }
        if let Some(former) = self.former.take() {
            let failed = stage.domain.alarms()?.iter().filter(|a| a.alarm == "policy-failed").count();
            stage.domain.apply_policies(former)?;
            told.push(format!("policy: {failed} objects whose policy ran out of its budget"));
        }
        if let Some(transfers) = self.transfers.take() {
            let longest = transfers.seconds.iter().copied().fold(0.0, f64::max);
            told.push(format!("checkpoint: {megabytes} MB transferred {} times, standby back after {longest:.1} s at most", transfers.seconds.len()));
        }
        if let Some((log, before)) = self.reloads_in.take() {
            let micros = reloads(&log).split_off(before);
            let longest = micros.iter().copied().max().unwrap_or(0) as f64 / 1000.0;
            told.push(format!("firewall: {} reloads of {ELEMENTS} elements, {longest:.1} ms the longest", micros.len()));
        }
        Ok(told)
    }

    fn end_children(&mut self) {
        for mut child in self.children.drain(..) {
            if let Err(error) = child.kill().and_then(|()| child.wait()) {
                tracing::debug!(%error, "a stress could not be waited for");
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end_children();
    }
}

/// The room of what belongs to no node.
const OUTSIDE: &str = "client";

fn active_of(status: &Status, group: &str) -> anyhow::Result<String> {
    status.service(group).and_then(|s| s.active.clone()).with_context(|| format!("{group} has no active (second {})", seconds_now()))
}

fn storm_sent(stage: &Stage) -> u64 {
    // The file is not there before the first count.
    std::fs::read_to_string(storm_files(&stage.lab).1).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Microseconds of each reload that a room's log tells of.
fn reloads(log: &std::path::Path) -> Vec<u64> {
    let text = std::fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().filter_map(|line| line.strip_prefix(firewall::LINE)?.trim().parse().ok()).collect()
}

/// The domain's policies with fans that never come to an end. Returns those in force before.
fn burn_budgets(stage: &mut Stage) -> anyhow::Result<BTreeMap<String, String>> {
    let former = load_bundle(&stage.lab.path("domain/n1/policies")).context("the domain's policies")?.files;
    stage.domain.apply_policies(burning(former.clone())?)?;
    Ok(former)
}

fn burning(mut files: BTreeMap<String, String>) -> anyhow::Result<BTreeMap<String, String>> {
    let class = files.get_mut(FAN_CLASS).context("there is no class of fans")?;
    *class = class.replace("hears: { fan: [state] }", "hears: { fan: [state, speed] }");
    files.insert(FAN_POLICY.to_owned(), BURNS.to_owned());
    Ok(files)
}

const BURNS: &str = "fn on_state(fan, change) { burn(); }\nfn on_event(fan, event) { burn(); }\nfn burn() { let n = 0; loop { n += 1; } }\n";

/// The words that start the storm's process, to which the domain's file points as the chassis' manager.
pub(super) fn storm_words(lab: &Lab, chassis: &str) -> anyhow::Result<Vec<OsString>> {
    let (when, sent) = storm_files(lab);
    let program = std::env::current_exe().context("finding this program")?;
    let mut words: Vec<OsString> = vec![program.into(), BURDEN.into(), "storm".into()];
    for (name, value) in [("--listen", super::storm_at(lab, chassis).to_string()), ("--manager", lab.manager(chassis).to_string()), ("--chassis", chassis.to_owned())] {
        words.extend([OsString::from(name), value.into()]);
    }
    words.extend(["--when".into(), when.into(), "--sent".into(), sent.into()]);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use sixnines_core::bundle::compile_bundle;
    use sixnines_core::domain::config::Bundle;

    use super::*;

    #[test]
    fn policies_that_burn_their_budgets_are_policies() {
        let shipped = crate::shipped::policies().files;
        let files = burning(shipped.clone()).expect("there are fans");
        assert!(files[FAN_CLASS] != shipped[FAN_CLASS] && files[FAN_POLICY] != shipped[FAN_POLICY]);
        if let Err(errors) = compile_bundle(&Bundle { files }) {
            panic!("{errors:?}");
        }
    }
}
