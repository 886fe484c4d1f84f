//! Scenarios on the demo's domain: what they break is real, processes and cables, and their clients are the demo's load generator.
//!
//! What the chassis have to do goes the way of every running domain ([`LiveStage`]). This adds the nodes, the links and the application: a
//! list of faults in force, and what they do together is made true after each change, as in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sixnines_core::bundle::Compiled;
use sixnines_core::domain::config::chassis_group;
use sixnines_core::engine::CommandBody;
use sixnines_core::ids::{AttributeName, GroupName, NodeId, ObjectName};
use sixnines_core::time::{Duration, Instant};
use sixnines_core::value::{Update, Value};
use sixnines_hwsim::chassis::Injection;
use sixnines_hwsim::domain::chaos::catalogue;
use sixnines_hwsim::domain::chaos::draw::Ground;
use sixnines_hwsim::domain::chaos::script::{Fault, Place};
use sixnines_hwsim::scenario::{Breach, Mend, Occurrence, RoleWord, Scenario, Stage as OnStage, Wish};

use super::lab::{CHASSIS, Fabric, Mode, SEATS, Seat, world};
use super::progress::Progress;
use super::stage::{SERVICE, Stage, seat};
use super::{CALLS, raise, setup};
use crate::cli::Ask;
use crate::scenario::{LiveStage, Reach};

/// The demo's domain, for one scenario after another.
pub(crate) struct Field {
    stage: Stage,
}

impl Field {
    /// Builds it. Call it before any thread exists.
    ///
    /// # Errors
    /// Where no namespaces are allowed: there are no cables then.
    pub(crate) fn raise() -> anyhow::Result<Self> {
        let mode = world::enter();
        anyhow::ensure!(mode != Mode::Loopback, "no namespaces are allowed here: nothing of a lab could be broken");
        Ok(Self { stage: raise(mode, CALLS, &[], None, &super::soak::Extras::default(), Progress::new(true))? })
    }

    /// Why a scenario cannot be played here.
    pub(crate) fn objection(scenario: &Scenario) -> Option<String> {
        let domain = scenario.setting.domain.as_ref().map(|domain| &domain.config);
        let nodes = domain.map(|d| d.nodes.iter().map(|n| (n.id.to_string(), n.chassis.to_string())).collect::<BTreeSet<_>>());
        let own = SEATS.iter().map(|seat| (seat.node.to_owned(), seat.chassis.to_owned())).collect();
        let is_own = nodes.is_none_or(|nodes| nodes == own) && domain.is_none_or(|d| d.services.iter().all(|service| service.name.as_str() == SERVICE));
        let other = || format!("{}: the lab is `domain: {{ mxp1: [n1, n2], mxp2: [n3] }}` with `services: [{SERVICE}]`, and nothing else", scenario.file);
        LiveStage::objection(scenario, Reach::Lab).or_else(|| (!is_own).then(other))
    }

    /// The domain whole, its service where the scenario prefers it, and a window of its clients that begins now.
    ///
    /// # Errors
    /// If it does not come to that.
    pub(crate) fn stage<'a>(&'a mut self, scenario: &Scenario) -> anyhow::Result<LabStage<'a>> {
        let stage = &mut self.stage;
        stage.wait_redundant()?;
        if let Some(domain) = &scenario.setting.domain {
            for group in [GroupName::new(SERVICE)].into_iter().chain(CHASSIS.map(chassis_group)) {
                place(stage, &group, domain.config.candidates(&group).first().copied())?;
            }
        }
        let ask = Ask { node: config_of(stage, SEATS[0]), json: false, timeout: PATIENCE_S };
        let live = LiveStage::connect_from(&ask, scenario, |chassis, dial| match stage.lab.find_room(chassis.as_str()).and_then(|room| room.netns().ok()) {
            Some(netns) => netns.run(dial),
            None => dial(),
        })?;
        stage.client.mark(&scenario.name)?;
        let ground = scenario.setting.domain.as_ref().map(|domain| Ground::of(&domain.config));
        let whole = Made { runs: SEATS.map(|seat| (seat, Run::Up)).into(), ..Made::default() };
        Ok(LabStage { stage, live, ground, faults: Vec::new(), made: whole, asked: SEATS[0], answered: Instant::ZERO, now: Instant::ZERO, outage: Duration::ZERO, past: Duration::ZERO, two_spoke: false, breach: None })
    }
}

/// Moves a group to the node that is preferred for it, once that has a copy.
fn place(stage: &mut Stage, group: &GroupName, preferred: Option<NodeId>) -> anyhow::Result<()> {
    let Some(preferred) = preferred.map(|node| node.to_string()) else { return Ok(()) };
    let mut asked = false;
    stage.wait(&format!("{group} is active on {preferred}"), |stage| {
        let status = stage.domain.status()?;
        let Some(row) = status.service(group.as_str()) else { return Ok(None) };
        if row.active.as_ref() == Some(&preferred) {
            return Ok(Some(()));
        }
        // The third node has no copy: it gets one when the service is active in the other chassis.
        let to = if row.standbys.contains(&preferred) { Some(&preferred) } else { row.standbys.first() };
        if let Some(to) = to.filter(|to| !asked || *to == &preferred) {
            asked = true;
            stage.domain.switchover(group.as_str(), Some(to))?;
        }
        Ok(None)
    })?;
    stage.wait_redundant().map(drop)
}

fn config_of(stage: &Stage, seat: Seat) -> PathBuf {
    stage.lab.path(format!("domain/{}/nines.yaml", seat.node))
}

/// The demo's domain under one scenario. What is broken is mended at its end.
pub(crate) struct LabStage<'a> {
    stage: &'a mut Stage,
    live: LiveStage,
    /// What faults of a domain name; none for a scenario about a chassis alone.
    ground: Option<Ground>,
    faults: Vec<Active>,
    made: Made,
    /// The node that is asked how things are.
    asked: Seat,
    /// When somebody answered last.
    answered: Instant,
    now: Instant,
    /// The longest that clients waited so far, and before this window.
    outage: Duration,
    past: Duration,
    /// More than one has spoken for the service.
    two_spoke: bool,
    breach: Option<Breach>,
}

/// A fault in force, with every place resolved to the node that it was when the fault came.
struct Active {
    injection: Injection,
    until: Option<Instant>,
    fault: Fault,
}

/// What a node's processes can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Run {
    Up,
    Hung,
    Down,
}

/// What all faults in force make of the lab.
#[derive(Debug, Default, PartialEq, Eq)]
struct Made {
    runs: BTreeMap<Seat, Run>,
    dark: BTreeSet<&'static str>,
    unplugged: BTreeSet<(Seat, Fabric)>,
    astray: BTreeSet<(Seat, Seat, Fabric)>,
}

impl Made {
    fn by<'f>(faults: impl Iterator<Item = &'f Fault>) -> Self {
        let mut made = Self { runs: SEATS.map(|seat| (seat, Run::Up)).into(), ..Self::default() };
        for fault in faults {
            match fault {
                Fault::NodeKilled { node, .. } => made.run(node, Run::Down),
                Fault::NodeHung { node, .. } => made.run(node, Run::Hung),
                Fault::ChassisLost { chassis, nodes, .. } => {
                    nodes.iter().for_each(|node| made.run(node, Run::Down));
                    made.dark.extend(CHASSIS.into_iter().filter(|name| *name == chassis.as_str()));
                }
                Fault::LinksCut { node } => made.unplugged.extend(at(node).into_iter().flat_map(|seat| Fabric::BOTH.map(|fabric| (seat, fabric)))),
                Fault::OneLinkCut { node, link } => made.unplugged.extend(at(node).map(|seat| (seat, Fabric::of(*link)))),
                Fault::FabricLost { ports, .. } => made.unplugged.extend(ports.iter().filter_map(|port| Some((at(&Place::Node(port.node))?, Fabric::of(port.link))))),
                Fault::OneWayCut { from, to, links } => {
                    let ways = at(from).zip(at(to)).filter(|(from, to)| from != to);
                    made.astray.extend(ways.into_iter().flat_map(|(from, to)| links.iter().map(move |link| (from, to, Fabric::of(*link)))));
                }
                _ => {} // at once, or of the chassis
            }
        }
        made
    }

    fn run(&mut self, node: &Place, run: Run) {
        if let Some(was) = at(node).and_then(|seat| self.runs.get_mut(&seat)) {
            *was = run.max(*was);
        }
    }
}

fn at(node: &Place) -> Option<Seat> {
    let Place::Node(node) = node else { return None };
    seat(&node.to_string()).ok()
}

impl LabStage<'_> {
    fn begin(&mut self, injection: &Injection) -> anyhow::Result<()> {
        let ground = self.ground.as_ref().context("faults of nodes and links need a `domain` in the scenario")?;
        let fault = match catalogue::parse(injection, ground)? {
            Fault::ProcessKilled { service } => return self.kill_application(&service),
            Fault::NodeKilled { node, down_us } => Fault::NodeKilled { node: self.resolve(&node)?, down_us },
            Fault::NodeHung { node, for_us } => Fault::NodeHung { node: self.resolve(&node)?, for_us },
            Fault::LinksCut { node } => Fault::LinksCut { node: self.resolve(&node)? },
            Fault::OneLinkCut { node, link } => Fault::OneLinkCut { node: self.resolve(&node)?, link },
            Fault::OneWayCut { from, to, links } => Fault::OneWayCut { from: self.resolve(&from)?, to: self.resolve(&to)?, links },
            fault @ (Fault::ChassisLost { .. } | Fault::FabricLost { .. }) => fault,
            other => anyhow::bail!("a lab cannot do that: {other}"),
        };
        let until = injection.expires_after.map(|after| self.now + after);
        self.faults.push(Active { injection: injection.clone(), until, fault });
        self.follow()
    }

    /// The node that is meant.
    fn resolve(&mut self, place: &Place) -> anyhow::Result<Place> {
        let Place::ActiveOf(group) = place else { return Ok(place.clone()) };
        let active = self.active_of(group)?;
        let number = active.trim_start_matches('n').parse().with_context(|| format!("{active} is no node"))?;
        Ok(Place::Node(NodeId(number)))
    }

    fn active_of(&mut self, group: &GroupName) -> anyhow::Result<String> {
        let status = self.stage.domain.status()?;
        status.service(group.as_str()).and_then(|row| row.active.clone()).with_context(|| format!("nobody is active for {group}"))
    }

    fn kill_application(&mut self, service: &GroupName) -> anyhow::Result<()> {
        let node = self.active_of(service)?;
        let pid = self.stage.lab.room(&node).find(setup::APPLICATION).with_context(|| format!("no call server runs on {node}"))?;
        kill(Pid::from_raw(pid), Signal::SIGKILL).context("killing the call server")
    }

    /// Makes true what all faults in force do together.
    fn follow(&mut self) -> anyhow::Result<()> {
        let made = Made::by(self.faults.iter().map(|active| &active.fault));
        let was = std::mem::replace(&mut self.made, made);
        let lab = &self.stage.lab;
        for chassis in CHASSIS.into_iter().filter(|c| was.dark.contains(c) != self.made.dark.contains(c)) {
            let is_dark = self.made.dark.contains(chassis);
            lab.room(chassis).signal(if is_dark { Signal::SIGSTOP } else { Signal::SIGCONT });
        }
        for (seat, fabric) in was.unplugged.symmetric_difference(&self.made.unplugged) {
            lab.set_cable(seat.node, *fabric, was.unplugged.contains(&(*seat, *fabric)))?;
        }
        for (from, to, fabric) in was.astray.symmetric_difference(&self.made.astray) {
            lab.set_way(*from, *to, *fabric, !was.astray.contains(&(*from, *to, *fabric)))?;
        }
        for (seat, run) in self.made.runs.clone() {
            let room = self.stage.lab.room(seat.node);
            match (was.runs.get(&seat).copied().unwrap_or(Run::Up), run) {
                (was, is) if was == is => {}
                (_, Run::Down) => drop(room.signal(Signal::SIGKILL)),
                (Run::Hung, _) => drop(room.signal(Signal::SIGCONT)),
                (_, Run::Hung) => drop(room.signal(Signal::SIGSTOP)),
                (_, Run::Up) => self.stage.restart(seat.node)?,
            }
        }
        Ok(())
    }

    /// How things are, as somebody says who runs: best one that hears the others, best the last one.
    fn look_at_domain(&mut self, now: Instant) -> Result<(), String> {
        let is_up = |seat: &Seat| self.made.runs.get(seat) == Some(&Run::Up);
        let mut seats: Vec<Seat> = SEATS.into_iter().filter(is_up).collect();
        seats.sort_by_key(|seat| (self.made.unplugged.iter().any(|(cut, _)| cut == seat), *seat != self.asked));
        let mut error = "no node runs".to_owned();
        for seat in seats {
            let config = config_of(self.stage, seat);
            self.live.turn_to(config);
            match self.live.step(now) {
                Ok(_) => {
                    (self.asked, self.answered) = (seat, now);
                    return Ok(());
                }
                Err(why) => error = why,
            }
        }
        self.live.forget();
        let is_patient = self.made.runs.values().all(|run| *run != Run::Up) || now.since(self.answered) < START_MAX;
        if is_patient { Ok(()) } else { Err(error) } // one that has just been started takes a while
    }

    /// A window of the clients begins: in each, a service moves once at most, so that who speaks after whom can be told.
    fn begin_window(&mut self) -> anyhow::Result<()> {
        self.look_at_clients()?;
        self.past = self.outage;
        self.stage.client.mark("a step")
    }

    /// Ends what is meant; says how many those were.
    fn end_faults(&mut self, is_meant: impl Fn(&Active) -> bool) -> anyhow::Result<usize> {
        let before = self.faults.len();
        self.faults.retain(|fault| !is_meant(fault));
        self.follow().map(|()| before - self.faults.len())
    }

    fn look_at_clients(&mut self) -> anyhow::Result<()> {
        self.stage.lab.keeper().reap();
        let seen = self.stage.client.report()?;
        self.outage = Duration::from_secs_f64(seen.client.outage_ms / 1000.0).max(self.past);
        let frames = seen.frames.as_ref().map_or(0.0, |frames| frames.two_speakers_ms);
        self.two_spoke |= seen.client.two_actives_ms.max(frames) > 0.0;
        let sums = seen.client.sums;
        let wrong = [(self.two_spoke, "two actives"), (sums.lost > 0, "an acknowledged write lost"), (sums.doubled > 0, "a write done twice")];
        if let Some((_, what)) = wrong.into_iter().find(|(is, _)| *is) {
            self.breach = Some(Breach { what: what.to_owned(), story: Vec::new() });
        }
        Ok(())
    }
}

impl Drop for LabStage<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.end_faults(|_| true) {
            self.stage.progress.tell(&format!("what the scenario broke could not be mended: {error:#}"));
        }
    }
}

fn said(error: &anyhow::Error) -> String {
    format!("{error:#}")
}

impl OnStage for LabStage<'_> {
    fn step(&mut self, to: Instant) -> Result<Instant, String> {
        let end = self.faults.iter().filter_map(|fault| fault.until).min();
        let now = end.map_or(to, |end| end.clamp(self.now, to));
        self.live.wait_until(now);
        self.now = now;
        if self.faults.iter().any(|fault| fault.until.is_some_and(|until| until <= now)) {
            self.end_faults(|fault| fault.until.is_some_and(|until| until <= now)).map_err(|error| said(&error))?;
        }
        self.look_at_clients().map_err(|error| said(&error))?;
        self.look_at_domain(now)?;
        Ok(now)
    }

    fn breach(&self) -> Option<Breach> {
        self.breach.clone()
    }

    /// Everything heals, and what was acknowledged must be there.
    fn end(&mut self) {
        let mut read_back = || {
            self.end_faults(|_| true)?;
            self.stage.wait_redundant()?;
            self.look_at_clients()?;
            self.stage.client.read_back()
        };
        let what = match read_back() {
            Ok(result) if result.lost == 0 && result.doubled == 0 => return,
            Ok(result) => format!("{} acknowledged writes lost, {} done twice", result.lost, result.doubled),
            Err(error) => format!("not whole again at the end: {}", said(&error)),
        };
        self.breach = Some(Breach { what, story: Vec::new() });
    }

    fn inject(&mut self, injection: &Injection) -> Result<(), String> {
        self.begin_window().map_err(|error| said(&error))?;
        if catalogue::is_known(&injection.fault) && !LiveStage::knows(&injection.fault) {
            return self.begin(injection).map_err(|error| said(&error));
        }
        self.live.inject(injection)
    }

    fn mend(&mut self, what: &Mend) -> Result<(), String> {
        let ended = self.end_faults(|fault| what.matches(&fault.injection)).map_err(|error| said(&error))?;
        match what {
            Mend::Like(like) if catalogue::is_known(&like.fault) && !LiveStage::knows(&like.fault) => {
                if ended == 0 { Err(format!("no {} is in force", like.fault)) } else { Ok(()) }
            }
            _ => self.live.mend(what),
        }
    }

    fn read(&mut self, reading: &Update) -> Result<(), String> {
        self.live.read(reading)
    }

    fn command(&mut self, body: &CommandBody) -> Result<(), String> {
        self.live.command(body)
    }

    fn ask(&mut self, wish: &Wish) -> Result<(), String> {
        self.begin_window().map_err(|error| said(&error))?;
        self.live.ask(wish)
    }

    fn apply(&mut self, compiled: &std::sync::Arc<Compiled>) -> Result<(), String> {
        self.live.apply(compiled)
    }

    fn take_over(&mut self) -> Result<(), String> {
        self.live.take_over()
    }

    fn value(&self, object: &ObjectName, attribute: &AttributeName) -> Option<Value> {
        self.live.value(object, attribute)
    }

    fn has_alarm(&self, object: &ObjectName, kind: Option<&str>) -> bool {
        self.live.has_alarm(object, kind)
    }

    fn alarms(&self) -> Vec<String> {
        self.live.alarms()
    }

    fn role(&self, service: &GroupName, node: NodeId) -> Option<RoleWord> {
        self.live.role(service, node)
    }

    fn speakers(&self, _: &GroupName) -> Option<usize> {
        Some(if self.two_spoke { 2 } else { 1 })
    }

    fn outage(&self, _: &GroupName) -> Option<Duration> {
        Some(self.outage)
    }

    fn take_occurrences(&mut self) -> Vec<Occurrence> {
        self.live.take_occurrences()
    }
}

/// A node that does not answer for so long is gone.
const PATIENCE_S: u64 = 5;
/// Somebody answers within this time after all nodes were down.
const START_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use sixnines_core::ids::{ChassisName, LinkId};

    use super::*;

    #[test]
    fn faults_that_overlap_do_together_what_the_worst_of_them_does() {
        let n1 = || Place::Node(NodeId(1));
        let hung = Fault::NodeHung { node: n1(), for_us: 1 };
        let killed = Fault::NodeKilled { node: n1(), down_us: None };
        let (cut, one) = (Fault::LinksCut { node: n1() }, Fault::OneLinkCut { node: n1(), link: LinkId(1) });
        let dark = Fault::ChassisLost { chassis: ChassisName::new("mxp2"), nodes: vec![Place::Node(NodeId(3))], down_us: None };
        let made = Made::by([&killed, &hung, &one, &cut, &dark].into_iter());
        assert_eq!(made.runs, [(SEATS[0], Run::Down), (SEATS[1], Run::Up), (SEATS[2], Run::Down)].into());
        assert_eq!((made.unplugged.len(), made.dark.len()), (2, 1));
        let less = Made::by([&hung, &one].into_iter());
        assert_eq!((less.runs[&SEATS[0]], less.unplugged), (Run::Hung, [(SEATS[0], Fabric::B)].into()));
        assert_eq!(Made::by(std::iter::empty()).runs, SEATS.map(|seat| (seat, Run::Up)).into());
    }
}
