//! One run of a script: chaos first, in which only safety counts; then everything heals, and it must serve again.
//!
//! Everything that happens is in the [`Script`], which is drawn from the seed before the run begins: so a run can be written down,
//! changed by hand, and shrunk. Nothing in here draws a number.

pub mod breach;
pub mod catalogue;
pub mod draw;
pub mod incidents;
pub mod script;
pub mod shrink;

use sixnines_core::domain::config::chassis_group;
use sixnines_core::ids::{GroupName, LinkId, NodeId};
use sixnines_core::time::Duration;
use sixnines_core::value::Value;

use super::{DiskChange, MS, Setup, SimInput, Truth, World};
use draw::Ground;
use incidents::{Incident, Watch};
use script::{Fault, Features, Place, Script, US};

/// What a run came to.
#[derive(Debug, Default)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The first breach, or why it did not serve again.
    pub failure: Option<String>,
    /// Answers that clients got.
    pub answers: u64,
    /// Faults injected; repairs are none.
    pub faults: u64,
    /// Role changes of services since they first served.
    pub role_changes: u64,
    /// How often a group's state was declared lost, because every node with a complete copy had died.
    pub losses: u64,
    /// What each fault that hit an otherwise whole domain did to each service with clients.
    pub incidents: Vec<Incident>,
    /// Faults that hit a domain that was not whole, or that was hit again before it could be seen what they cost.
    pub overlapping: u64,
    /// Virtual time.
    pub lasted: Truth,
    /// Checksum of the whole trace.
    pub checksum: u64,
    /// The last lines of the trace.
    pub story: Vec<String>,
}

/// Plays a script on a new domain. What the setup says of services, clients and policies gives way to the script's features.
pub fn play(mut setup: Setup, ground: &Ground, script: &Script) -> Report {
    setup.seed = script.seed;
    setup.services.clone_from(&script.features.services);
    setup.clients = script.features.clients;
    setup.bad_policies.clone_from(&script.features.bad_policies);
    let mut player = Player { world: World::new(setup), ground, watch: Watch::new(ground), incidents: Vec::new(), overlapping: 0, epochs_before: 0 };
    let failure = player.play(script).err();
    let epochs = player.epochs(&script.features.services);
    let Player { world, incidents, overlapping, epochs_before, .. } = player;
    Report {
        seed: script.seed,
        failure,
        answers: world.judge().answers(),
        faults: script.steps.iter().filter(|s| !s.fault.is_repair()).count() as u64,
        role_changes: epochs.saturating_sub(epochs_before),
        losses: world.judge().losses(),
        incidents,
        overlapping,
        lasted: world.now(),
        checksum: world.trace().checksum,
        story: world.into_story(),
    }
}

struct Player<'a> {
    world: World,
    ground: &'a Ground,
    watch: Watch,
    incidents: Vec<Incident>,
    overlapping: u64,
    epochs_before: u64,
}

impl Player<'_> {
    fn play(&mut self, script: &Script) -> Result<(), String> {
        let services = &script.features.services;
        serve(&mut self.world, self.ground, services, "the domain forms and serves")?;
        self.epochs_before = self.epochs(services);
        self.prepare(&script.features)?;
        let mut seen_us = 0; // of the coming wait, which an incident's window has used up
        for (index, step) in script.steps.iter().enumerate() {
            self.world.run(step.wait_us.saturating_sub(seen_us) * US)?;
            let next_us = script.steps.get(index + 1).map_or(script.rest_us, |next| next.wait_us);
            seen_us = self.step(&step.fault, services, next_us)?;
        }
        self.world.run(script.rest_us.saturating_sub(seen_us) * US)?;
        self.world.note("chaos ends".into());
        heal(&mut self.world);
        self.world.empty_bad_disks();
        self.world.restart_all();
        self.world.readmit_all();
        serve(&mut self.world, self.ground, services, "everything is whole, and it serves again")?;
        self.world.run_until(HEALED_MAX, "every node runs", |w| w.nodes().into_iter().all(|n| w.is_up(n)))?;
        cool(&mut self.world)?;
        alarms_stand(&mut self.world)?;
        self.world.prove_journals()
    }

    /// Some fans have failed before anything else does: every owner that follows then has claims to go on with, and orders to give.
    fn prepare(&mut self, features: &Features) -> Result<(), String> {
        if features.hot_fans.iter().any(|fans| *fans > 0) {
            self.watch.disturbed_for_good();
            for (chassis, fans) in self.world.chassis().into_iter().zip(&features.hot_fans) {
                (1..=*fans).for_each(|fan| self.world.break_fan(&chassis, fan));
            }
            self.world.run(1_500 * MS)?;
        }
        if let Some(wires) = features.wires {
            self.watch.disturbed_for_good();
            self.world.manners = wires.into();
        }
        Ok(())
    }

    /// One step; gives the part of the next wait that was spent on watching what it did.
    fn step(&mut self, fault: &Fault, services: &[GroupName], next_us: u64) -> Result<u64, String> {
        let window = self.ground.window();
        let is_alone = !fault.is_repair() && next_us * US >= window && self.watch.is_whole(&self.world, services);
        let before = is_alone.then(|| incidents::before(&self.world, self.ground, fault, services));
        self.watch.disturb(self.world.now(), fault);
        self.overlapping += u64::from(!is_alone && !fault.is_repair());
        self.world.note(format!("FAULT {fault}"));
        apply(&mut self.world, fault);
        let Some(before) = before else { return Ok(0) };
        let began = self.world.now();
        self.world.run(window)?;
        let after: Vec<Incident> = before.into_iter().map(|b| b.after(&self.world, began)).collect();
        self.serves_again(fault, &after)?;
        self.incidents.extend(after);
        Ok((self.world.now() - began) / US)
    }

    /// One fault on a whole domain stops no service until somebody repairs something. (Some wires are too bad for any lease.)
    fn serves_again(&mut self, fault: &Fault, after: &[Incident]) -> Result<(), String> {
        let patience = 2 * self.ground.window();
        for incident in after.iter().filter(|i| !i.is_served && !matches!(fault, Fault::WiresBad(_))) {
            let what = format!("{} serves again before anything is repaired ({fault})", incident.service);
            self.world.run_until(patience, &what, |w| answers_steadily(w, &incident.service))?;
        }
        Ok(())
    }

    fn epochs(&self, services: &[GroupName]) -> u64 {
        services.iter().filter_map(|g| self.world.active(g)).map(|(_, e)| e.0).sum()
    }
}

/// Every service answers, and goes on answering for a while.
pub(crate) fn serve(world: &mut World, ground: &Ground, services: &[GroupName], what: &str) -> Result<(), String> {
    for group in services {
        let since = world.now();
        world.run_until(HEALED_MAX.max(40 * ground.dead_after), &format!("{what} ({group})"), |w| w.now() > since + 30 * MS && answers_steadily(w, group))?;
    }
    Ok(())
}

/// Whether clients of the service have got answers all the time, lately.
pub(super) fn answers_steadily(world: &World, group: &GroupName) -> bool {
    world.judge().gap(group, world.now().saturating_sub(30 * MS), world.now()) < 25 * MS
}

/// Does what the step says.
pub(super) fn apply(world: &mut World, fault: &Fault) {
    match fault {
        Fault::NodeKilled { node, down_us } => kill(world, node, *down_us),
        Fault::NodeHung { node, for_us } => {
            if let Some(node) = find(world, node) {
                world.pause(node, for_us * US);
            }
        }
        Fault::LinksCut { node } => {
            if let Some(node) = find(world, node) {
                world.isolate(node);
            }
        }
        Fault::Deafened { node } => {
            if let Some(node) = find(world, node) {
                world.deafen(node);
            }
        }
        Fault::OneWayCut { from, to, links } => {
            if let (Some(from), Some(to)) = (find(world, from), find(world, to)) {
                links.iter().filter(|_| from != to).for_each(|link| world.cut(from, to, *link));
            }
        }
        Fault::OneLinkCut { node, link } => {
            if let Some(node) = find(world, node) {
                cut_port(world, node, *link);
            }
        }
        Fault::FabricLost { ports, .. } => ports.iter().for_each(|port| cut_port(world, port.node, port.link)),
        Fault::ChassisLost { chassis, nodes, down_us } => {
            world.darken(chassis, down_us.map(|us| us * US));
            nodes.iter().for_each(|node| kill(world, node, *down_us));
        }
        Fault::DiskSlow { node, sync_us } => disk(world, node, DiskChange::Slow(Duration::from_micros(*sync_us))),
        Fault::DiskFull { node } => disk(world, node, DiskChange::Full),
        Fault::DiskFails { node } => disk(world, node, DiskChange::FailsOnce),
        Fault::DiskReplaced { node, down_us, by } => {
            let Some(node) = find(world, node) else { return };
            kill(world, &Place::Node(node), Some(*down_us));
            world.disk(node, DiskChange::Replaced(*by));
        }
        Fault::ProcessKilled { service } => {
            if let Some((active, _)) = world.active(service) {
                world.give(active, SimInput::KillUnit(service.clone()));
            }
        }
        Fault::Switchover { at, service } => {
            if let Some(node) = find(world, at) {
                world.give(node, SimInput::Switchover(service.clone()));
            }
        }
        Fault::FansFailed { chassis, fans } => (1..=*fans).for_each(|fan| world.break_fan(chassis, fan)),
        Fault::Mended { chassis } => world.mend(chassis),
        Fault::WiresBad(wires) => world.manners = (*wires).into(),
        Fault::Healed => mend(world),
    }
}

/// The node that is meant; `None` if there is no such node now.
fn find(world: &World, place: &Place) -> Option<NodeId> {
    match place {
        Place::Node(node) => world.nodes().contains(node).then_some(*node),
        Place::ActiveOf(group) => world.active(group).map(|(node, _)| node),
    }
}

fn kill(world: &mut World, place: &Place, down_us: Option<u64>) {
    let Some(node) = find(world, place) else { return };
    world.crash(node);
    if let Some(down) = down_us {
        world.restart_after(node, down * US);
    }
}

fn cut_port(world: &mut World, node: NodeId, link: LinkId) {
    for other in world.nodes().into_iter().filter(|n| *n != node) {
        world.cut(node, other, link);
        world.cut(other, node, link);
    }
}

/// All that a technician can mend.
pub(super) fn heal(world: &mut World) {
    mend(world);
    world.light_up();
}

fn mend(world: &mut World) {
    world.heal();
    world.nodes().into_iter().for_each(|node| world.disk(node, DiskChange::Mended));
}

fn disk(world: &mut World, place: &Place, what: DiskChange) {
    if let Some(node) = find(world, place) {
        world.disk(node, what);
    }
}

/// Whoever owns a shelf now drives its fans as the policy says: three fail, the others go to full speed.
fn cool(world: &mut World) -> Result<(), String> {
    for chassis in world.chassis() {
        for fan in 1..=3 {
            world.break_fan(&chassis, fan);
        }
        let is_full = |w: &World, fan: u32| w.reading(&chassis, &format!("/{chassis}/fan{fan}"), "duty") == Some(Value::Int(100));
        world.run_until(COOLED_MAX, &format!("the fans of {chassis} that are left run at full speed"), |w| (4..=5).all(|fan| is_full(w, fan)))?;
    }
    Ok(())
}

/// Whoever owns a shelf now has the alarms that were raised and not cleared, from itself or from the owners before.
fn alarms_stand(world: &mut World) -> Result<(), String> {
    let is_owned = |w: &World| w.chassis().iter().all(|c| w.active(&chassis_group(c.as_str())).is_some());
    world.run_until(HEALED_MAX, "every shelf has an owner", is_owned)?;
    let outcome = world.run_until(HEALED_MAX, "all alarms stand", |w| w.prove_alarms().is_ok());
    world.prove_alarms().and(outcome)
}

/// A fan counts as failed after a second; a claim that failed is made again after another.
const COOLED_MAX: Truth = 8_000 * MS;
/// After healing it must serve within so long: two elections, a resynchronisation, restarts of the applications. Slower profiles get more.
const HEALED_MAX: Truth = 5_000 * MS;
