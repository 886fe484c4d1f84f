//! `nines bench soak`: the proof that nobody is taken for dead who is not.
//!
//! The demo's domain under stresses that take turns, and at last all at once. Nothing is broken, so no role has a reason to move. What counts as false says
//! [`judge`]; each node says itself how late its liveness thread was. The kill of a standby in the stress `checkpoint` is asked for, and so is what follows from it.
//!
//! - [`stress`]: what each of them is; [`burden`], [`storm`], [`firewall`], [`ballast`]: their processes;
//! - [`judge`]: which takeovers there were, and which of them were false (pure).

pub(crate) mod ballast;
pub(crate) mod burden;
pub(crate) mod firewall;
pub(crate) mod judge;
pub(crate) mod storm;
pub(crate) mod stress;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sixnines_core::domain::config::Profile;

use super::lab::{CHASSIS, Lab, Mode, SEATS};
use super::report::rounded;
use super::stage::{Stage, candidates};
use crate::bench::BenchReport;
use judge::{Judge, Kind, Takeover};
use stress::{Running, Stress};

/// `nines bench soak`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  nines bench soak --json soak.json
  nines bench soak --minutes 5 --stresses cpu,memory
  nines bench soak --profile lan --json -

Exit codes: 0 no false takeover, 1 there was one, or a write was lost, or there were two actives; at lan any takeover that was not asked for. 2 bad input.")]
pub(crate) struct Options {
    /// Where the result goes; - for standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// For how long the domain is under stress; the stresses share it.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) minutes: u32,
    /// The same in seconds.
    #[arg(long, hide = true, conflicts_with = "minutes")]
    pub(crate) seconds: Option<u32>,
    /// Which stresses take turns; of several, all at once come last.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "cpu,memory,events,policy,checkpoint,firewall")]
    pub(crate) stresses: Vec<Stress>,
    /// The domain's time profile, fabric or lan; without it fabric where real-time scheduling is allowed.
    #[arg(long)]
    pub(crate) profile: Option<Profile>,
}

/// What one stress, or all at once, came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// The stress, or several with + between.
    pub(crate) name: String,
    /// How long it lasted.
    pub(crate) seconds: f64,
    /// Roles that moved, in the order in which that was seen.
    pub(crate) takeovers: Vec<Takeover>,
    /// How many of them were false.
    pub(crate) false_takeovers: usize,
    /// Leases that ran out, node by node.
    pub(crate) suspensions: BTreeMap<String, u64>,
    /// The longest lateness of each node's liveness thread, in milliseconds.
    pub(crate) late_ms: BTreeMap<String, f64>,
    /// The client's longest gap between two answers.
    pub(crate) gap_ms: f64,
    /// The prober's own worst lateness: so much of a gap may be its own.
    pub(crate) prober_late_ms: f64,
    /// Changes that were acknowledged.
    pub(crate) acknowledged: u64,
    /// Of these, those that were lost.
    pub(crate) lost: u64,
    /// Changes that were applied twice.
    pub(crate) doubled: u64,
    /// For how long two spoke or acted.
    pub(crate) two_actives_ms: f64,
    /// What each stress says of itself.
    pub(crate) told: Vec<String>,
}

impl Row {
    /// What was promised and not kept. At `lan` no role moves at all; only what the bench itself asked for does.
    pub(crate) fn broken(&self, profile: Profile) -> Vec<String> {
        let unasked = self.takeovers.iter().filter(|t| t.kind != Kind::AskedFor).count();
        let mut broken = Vec::new();
        if self.false_takeovers > 0 {
            broken.push(format!("{} false takeovers", self.false_takeovers));
        } else if profile != Profile::Fabric && unasked > 0 {
            broken.push(format!("{unasked} takeovers at {}", profile.word()));
        }
        if self.lost > 0 {
            broken.push(format!("{} acknowledged changes are lost", self.lost));
        }
        if self.doubled > 0 {
            broken.push(format!("{} changes were applied twice", self.doubled));
        }
        if self.two_actives_ms > 0.0 {
            broken.push(format!("two actives for {} ms", self.two_actives_ms));
        }
        if self.acknowledged == 0 {
            broken.push("nothing was acknowledged".to_owned());
        }
        broken
    }
}

/// What the domain of a soak has besides the demo's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extras {
    /// The size of the ballast; without it there is none.
    pub(crate) ballast_megabytes: Option<u32>,
    /// Whether something stands between the first chassis and its driver.
    pub(crate) storm: bool,
}

impl Extras {
    /// What the stresses need.
    ///
    /// # Errors
    /// If the kernel does not say how much memory there is.
    pub(crate) fn of(options: &Options) -> anyhow::Result<Self> {
        let ballast_megabytes = if options.stresses.contains(&Stress::Checkpoint) {
            // Two nodes and their applications hold it, and a transfer buffers it: so much of what there is, and what the SDK takes.
            let share = burden::available_megabytes()? / 16;
            Some(u32::try_from(share).unwrap_or(BALLAST_MEGABYTES_MAX).clamp(16, BALLAST_MEGABYTES_MAX))
        } else {
            None
        };
        Ok(Self { ballast_megabytes, storm: options.stresses.iter().any(|s| matches!(s, Stress::Events | Stress::Policy)) })
    }

    /// Where the nodes find the manager of a chassis.
    pub(crate) fn manager(&self, lab: &Lab, chassis: &str) -> SocketAddr {
        if self.storm && chassis == CHASSIS[0] { storm_at(lab, chassis) } else { lab.manager(chassis) }
    }

    /// Lines of the domain's file: more services, started as `program` (quoted).
    pub(crate) fn services(&self, lab: &Lab, program: &str) -> String {
        let Some(megabytes) = self.ballast_megabytes else { return String::new() };
        let full = ballast_full(lab);
        format!("  - name: {}\n    command: [{program}, {}, ballast, --megabytes, \"{megabytes}\", --full, \"{}\"]\n", ballast::BALLAST, burden::BURDEN, full.display())
    }

    /// What else runs beside a chassis.
    pub(crate) fn beside(&self, lab: &Lab, chassis: &str) -> anyhow::Result<Option<Vec<OsString>>> {
        if self.storm && chassis == CHASSIS[0] { stress::storm_words(lab, chassis).map(Some) } else { Ok(None) }
    }
}

/// The service takes 1 GiB; keys and what is in flight count, too.
const BALLAST_MEGABYTES_MAX: u32 = 1000;

/// Made when the ballast is as large as it is to be.
fn ballast_full(lab: &Lab) -> PathBuf {
    lab.path("ballast-full")
}

fn storm_at(lab: &Lab, chassis: &str) -> SocketAddr {
    let mut at = lab.manager(chassis);
    at.set_port(at.port() + 1);
    at
}

/// The domain is looked at so often.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What a stress has done may show so much later.
const AFTER: Duration = Duration::from_secs(2);
/// Until everything is whole again after a stress, or for the first time with a large ballast.
const WHOLE_WITHIN: Duration = Duration::from_secs(300);

/// Puts the domain under each stress in turn, then under all.
///
/// # Errors
/// If a stress could not be brought about, or the domain does not come back after one.
pub(crate) fn run(stage: &mut Stage, options: &Options, extras: &Extras) -> anyhow::Result<BenchReport<Row>> {
    let mut stresses = options.stresses.clone();
    stresses.dedup();
    if stage.lab.mode() == Mode::Loopback && stresses.contains(&Stress::Firewall) {
        stage.progress.tell("mode loopback: firewall is left out, there are no namespaces");
        stresses.retain(|s| *s != Stress::Firewall);
    }
    let mut turns: Vec<Vec<Stress>> = stresses.iter().map(|s| vec![*s]).collect();
    if turns.len() > 1 {
        turns.push(stresses);
    }
    let seconds = options.seconds.unwrap_or(options.minutes * 60);
    let each = Duration::from_secs(u64::from(seconds)) / u32::try_from(turns.len().max(1)).expect("a handful");
    let mut judge = Judge::new(stage.profile.times());
    if let Some(megabytes) = extras.ballast_megabytes {
        stage.progress.now(&format!("filling a state of {megabytes} MB"));
        let deadline = Instant::now() + WHOLE_WITHIN;
        while !ballast_full(&stage.lab).exists() {
            anyhow::ensure!(Instant::now() < deadline, "the state is not full after {} s", WHOLE_WITHIN.as_secs());
            std::thread::sleep(LOOK_EVERY);
        }
    }
    let mut rows = Vec::new();
    for (place, turn) in (1..).zip(&turns) {
        let name = turn.iter().map(|s| s.word()).collect::<Vec<_>>().join("+");
        stage.progress.now(&format!("{place} of {}: {name}, {} s", turns.len(), each.as_secs()));
        let row = soak(stage, &mut judge, turn, name, each, extras)?;
        tell(stage, &row);
        rows.push(row);
    }
    Ok(BenchReport::new("soak", stage.profile.word(), rows))
}

fn soak(stage: &mut Stage, judge: &mut Judge, stresses: &[Stress], name: String, each: Duration, extras: &Extras) -> anyhow::Result<Row> {
    wait_whole(stage, judge)?;
    judge.begin(seconds_now() + 1);
    let chassis_before = stage.chassis_two_actives_ms()?;
    stage.client.mark(&name)?;
    let mut running = Running::start(stage, stresses)?;
    let began = Instant::now();
    while began.elapsed() < each || (running.is_busy() && began.elapsed() < each + WHOLE_WITHIN) {
        if let Some(status) = look(stage, judge) {
            running.turn(stage, &status, judge, began.elapsed() < each)?;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let told = running.stop(stage, extras.ballast_megabytes.unwrap_or(0))?;
    let seconds = began.elapsed().as_secs_f64();
    let stopped = Instant::now();
    while stopped.elapsed() < AFTER {
        look(stage, judge);
        std::thread::sleep(LOOK_EVERY);
    }
    wait_whole(stage, judge)?;
    let verdict = judge.verdict();
    let seen = stage.client.report()?;
    let read_back = stage.client.read_back()?;
    let frames = seen.frames.as_ref().map_or(0.0, |f| f.two_speakers_ms);
    let chassis = (stage.chassis_two_actives_ms()? - chassis_before).max(0.0);
    Ok(Row {
        name,
        seconds: rounded(seconds),
        false_takeovers: verdict.count(Kind::False),
        takeovers: verdict.takeovers,
        suspensions: verdict.suspensions,
        late_ms: verdict.late_us.into_iter().map(|(node, us)| (node, rounded(Duration::from_micros(us).as_secs_f64() * 1000.0))).collect(),
        gap_ms: rounded(seen.client.outage_ms),
        prober_late_ms: rounded(seen.client.late_max_ms),
        acknowledged: seen.client.sums.acknowledged,
        lost: seen.client.sums.lost.max(read_back.lost),
        doubled: seen.client.sums.doubled.max(read_back.doubled),
        two_actives_ms: seen.client.two_actives_ms.max(frames).max(chassis),
        told,
    })
}

/// Shows the judge how things are. A node that does not answer in time says nothing this time; what it was late it says next time.
fn look(stage: &mut Stage, judge: &mut Judge) -> Option<super::domain::Status> {
    for seat in SEATS {
        if let Ok(standing) = stage.domain.standing_of(seat.node) {
            judge.node(seat.node, &standing.late_us, standing.suspensions);
        }
    }
    stage.lab.keeper().reap();
    let status = stage.domain.status().ok()?;
    for service in &status.services {
        judge.role(seconds_now(), &service.name, service.epoch, service.active.as_deref());
    }
    Some(status)
}

fn wait_whole(stage: &mut Stage, judge: &mut Judge) -> anyhow::Result<()> {
    let deadline = Instant::now() + WHOLE_WITHIN;
    loop {
        let lacks = look(stage, judge).map_or(Some("no node answers".to_owned()), |status| status.lacks(SEATS.len(), candidates));
        let Some(lacks) = lacks else { return Ok(()) };
        stage.progress.live(&lacks);
        anyhow::ensure!(Instant::now() < deadline, "the domain is not whole after {} s: {lacks}", WHOLE_WITHIN.as_secs());
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Seconds of the boot-time clock, which all nodes of the lab share.
fn seconds_now() -> u64 {
    crate::realtime::now().as_nanos() / 1_000_000_000
}

fn tell(stage: &mut Stage, row: &Row) {
    let count = |kind| row.takeovers.iter().filter(|t| t.kind == kind).count();
    let late = row.late_ms.iter().map(|(node, ms)| format!("{node} {ms}")).collect::<Vec<_>>().join(", ");
    let suspended = row.suspensions.iter().map(|(node, n)| format!("{node} {n}")).collect::<Vec<_>>().join(", ");
    let mut lines = vec![
        format!("{}: {:.0} s, takeovers {} false, {} late, {} asked for; suspensions {suspended}", row.name, row.seconds, row.false_takeovers, count(Kind::Late), count(Kind::AskedFor)),
        format!("  liveness late at most {late} ms; longest gap {} ms (prober late {} ms); {} acknowledged, {} lost, two actives {} ms", row.gap_ms, row.prober_late_ms, row.acknowledged, row.lost, row.two_actives_ms),
    ];
    lines.extend(row.told.iter().map(|told| format!("  {told}")));
    lines.extend(row.takeovers.iter().filter(|t| t.kind != Kind::AskedFor).map(|t| format!("  {:?}: {} left {} under epoch {}, late {} us", t.kind, t.group, t.from.as_deref().unwrap_or("nobody"), t.epoch, t.victim_late_us)));
    lines.extend(row.broken(stage.profile).into_iter().map(|broken| format!("BROKEN  {}: {broken}", row.name)));
    for line in lines {
        stage.progress.tell(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            name: "cpu".into(),
            seconds: 60.0,
            takeovers: vec![],
            false_takeovers: 0,
            suspensions: BTreeMap::from([("n1".to_owned(), 3)]),
            late_ms: BTreeMap::new(),
            gap_ms: 31.0,
            prober_late_ms: 0.1,
            acknowledged: 1000,
            lost: 0,
            doubled: 0,
            two_actives_ms: 0.0,
            told: vec![],
        }
    }

    fn moved(kind: Kind) -> Row {
        let takeover = Takeover { group: "calls".into(), from: Some("n1".into()), epoch: 2, second: 9, victim_late_us: 0, kind };
        Row { false_takeovers: usize::from(kind == Kind::False), takeovers: vec![takeover], ..row() }
    }

    #[test]
    fn a_false_takeover_a_lost_write_and_two_actives_break_the_promise_and_suspensions_do_not() {
        assert!(row().broken(Profile::Fabric).is_empty());
        assert_eq!(moved(Kind::False).broken(Profile::Fabric), ["1 false takeovers"]);
        assert_eq!(Row { lost: 2, ..row() }.broken(Profile::Fabric), ["2 acknowledged changes are lost"]);
        assert_eq!(Row { doubled: 1, ..row() }.broken(Profile::Fabric), ["1 changes were applied twice"]);
        assert_eq!(Row { two_actives_ms: 0.5, ..row() }.broken(Profile::Fabric), ["two actives for 0.5 ms"]);
        assert_eq!(Row { acknowledged: 0, ..row() }.broken(Profile::Fabric), ["nothing was acknowledged"]);
    }

    #[test]
    fn at_lan_no_role_moves_that_was_not_asked_to() {
        assert!(moved(Kind::Late).broken(Profile::Fabric).is_empty());
        assert_eq!(moved(Kind::Late).broken(Profile::Lan), ["1 takeovers at lan"]);
        assert!(moved(Kind::AskedFor).broken(Profile::Lan).is_empty());
    }
}
