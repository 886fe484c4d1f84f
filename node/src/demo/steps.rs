//! The faults that the demo shows, one function each: break, wait for the effect, heal.

mod cables;
mod fans;
mod leader;
mod nodes;

use std::str::FromStr;

use super::report::{Facts, Meant};
use super::stage::{Before, Notes, SERVICE, Stage};

/// One step of the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Three of five fans of mxp1.
    FansFailed,
    /// kill -9 of the active application.
    ProcessKilled,
    /// kill -9 of every process of the active's node.
    NodeKilled,
    /// kill -9 of every process of the standby's node.
    StandbyKilled,
    /// SIGSTOP of every process of the active's node, and later SIGCONT.
    NodeHung,
    /// Both links of the active's node.
    LinksCut,
    /// One link of the active's node.
    OneLinkCut,
    /// An orderly move.
    Switchover,
    /// Both links towards the active's node: it is heard, and hears nobody.
    OneWayCut,
    /// kill -9 of every process of a node that votes, and neither serves nor stands by.
    VoterKilled,
    /// kill -9 of every process of the active's node while it leads the control log.
    NodeKilledLeader,
}

impl Step {
    /// What the demo shows unless it is told otherwise, in its order.
    pub(crate) const SHOWN: [Self; 8] = [
        Self::FansFailed,
        Self::ProcessKilled,
        Self::NodeKilled,
        Self::StandbyKilled,
        Self::NodeHung,
        Self::LinksCut,
        Self::OneLinkCut,
        Self::Switchover,
    ];
    /// What it also can.
    const OTHERS: [Self; 3] = [Self::OneWayCut, Self::VoterKilled, Self::NodeKilledLeader];

    /// Every step.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Self::SHOWN.into_iter().chain(Self::OTHERS)
    }

    /// As `--steps` takes it and the file names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FansFailed => "fans-failed",
            Self::ProcessKilled => "process-killed",
            Self::NodeKilled => "node-killed",
            Self::StandbyKilled => "standby-killed",
            Self::NodeHung => "node-hung",
            Self::LinksCut => "links-cut",
            Self::OneLinkCut => "one-link-cut",
            Self::Switchover => "switchover",
            Self::OneWayCut => "one-way-cut",
            Self::VoterKilled => "voter-killed",
            Self::NodeKilledLeader => "node-killed-leader",
        }
    }

    /// Whether the step needs cables to cut.
    pub(crate) fn needs_cables(self) -> bool {
        matches!(self, Self::LinksCut | Self::OneLinkCut | Self::OneWayCut)
    }

    /// Plays the step. The stage is whole again afterwards, unless this fails.
    ///
    /// # Errors
    /// If a state that the step waits for never came.
    pub(crate) fn play(self, stage: &mut Stage) -> anyhow::Result<Facts> {
        let name = self.name();
        match self {
            Self::FansFailed => fans::failed(stage, name),
            Self::ProcessKilled => nodes::process_killed(stage, name),
            Self::NodeKilled => nodes::killed(stage, name),
            Self::StandbyKilled => nodes::standby_killed(stage, name),
            Self::NodeHung => nodes::hung(stage, name),
            Self::LinksCut => cables::both(stage, name),
            Self::OneLinkCut => cables::one(stage, name),
            Self::Switchover => switchover(stage, name),
            Self::OneWayCut => cables::one_way(stage, name),
            Self::VoterKilled => nodes::voter_killed(stage, name),
            Self::NodeKilledLeader => leader::killed(stage, name),
        }
    }
}

impl FromStr for Step {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::all().map(Self::name).collect::<Vec<_>>().join(", ");
        Self::all().find(|s| s.name() == text).ok_or_else(|| format!("there is no step {text:?}; the steps are {}", names()))
    }
}

/// The quorum moves the service in its own time: nobody has died.
fn switchover(stage: &mut Stage, name: &'static str) -> anyhow::Result<Facts> {
    let before = stage.begin(name)?;
    stage.progress.now(&format!("{name}: asking for a move away from {}", before.active));
    stage.domain.switchover(SERVICE, None)?;
    stage.wait_moved(&before)?;
    let after = stage.settle(SERVICE)?;
    let notes = Notes { told: vec![moved(&before, &after.active, "asked for by the operator")], ..Notes::default() };
    stage.end(before, Meant::Moves, after, notes)
}

/// "what was done; who took over".
fn moved(before: &Before, now: &str, what: &str) -> String {
    if before.active == now { format!("{what}; calls stayed on {now}") } else { format!("{what}; {now} took over from {}", before.active) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_file_and_parse() {
        for step in Step::all() {
            assert_eq!(step.name().parse(), Ok(step));
        }
        assert!("node-kill".parse::<Step>().unwrap_err().contains("node-killed"));
    }
}
