//! One run from one seed: chaos first, in which only safety counts; then everything heals, and it must serve again.

use sixnines_core::ids::{GroupName, LinkId};
use sixnines_core::value::Value;

use super::seeds::Stream;
use super::{MS, Manners, Setup, SimInput, Truth, World};

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The first breach, or why it did not serve again.
    pub failure: Option<String>,
    /// Answers that clients got.
    pub answers: u64,
    /// Faults injected.
    pub faults: u64,
    /// Role changes that clients could see.
    pub epochs: u64,
    /// How often a group's state was declared lost, because every node with a complete copy had died.
    pub losses: u64,
    /// Checksum of the whole trace.
    pub checksum: u64,
    /// The last lines of the trace.
    pub story: Vec<String>,
}

/// Runs one seed: `faults` faults, then healing.
pub fn run(setup: Setup, faults: u64) -> Report {
    let seed = setup.seed;
    let services = setup.services.clone();
    let mut world = World::new(setup);
    let outcome = play(&mut world, seed, &services, faults);
    let epochs = services.iter().filter_map(|g| world.active(g)).map(|(_, e)| e.0).sum();
    Report {
        seed,
        failure: outcome.err(),
        answers: world.judge().answers(),
        faults,
        epochs,
        losses: world.judge().losses(),
        checksum: world.trace().checksum,
        story: world.trace().lines.iter().cloned().collect(),
    }
}

fn play(world: &mut World, seed: u64, services: &[GroupName], faults: u64) -> Result<(), String> {
    let mut random = Stream::new(seed, "chaos");
    serve(world, services, "the domain forms and serves")?;
    if random.below(2) == 0 {
        heat_up(world, &mut random)?;
    }
    world.manners = Manners { loss: random.below(60), doubled: random.below(30), delay_max: MS / 10 + random.below(3 * MS) };
    for _ in 0..faults {
        one_fault(world, &mut random, services);
        let wait = MS + random.below(120 * MS);
        world.run(wait)?;
        if random.below(4) == 0 {
            world.heal();
        }
    }
    world.heal();
    world.restart_all();
    serve(world, services, "everything is whole, and it serves again")?;
    cool(world)?;
    world.prove_journals()
}

/// Every service answers, and goes on answering for a while.
fn serve(world: &mut World, services: &[GroupName], what: &str) -> Result<(), String> {
    for group in services {
        let since = world.now();
        world.run_until(HEALED_MAX, &format!("{what} ({group})"), |w| w.now() > since + 30 * MS && w.judge().gap(group, w.now() - 30 * MS, w.now()) < 25 * MS)?;
    }
    Ok(())
}

fn one_fault(world: &mut World, random: &mut Stream, services: &[GroupName]) {
    let nodes = world.nodes();
    let node = random.choose(&nodes);
    let other = random.choose(&nodes);
    let group = services[usize::try_from(random.below(services.len() as u64)).expect("few")].clone();
    match random.below(12) {
        // Mostly one node at a time: once every complete copy is gone, a run says nothing more about what was acknowledged before.
        0 | 1 if world.whole_for() > CRASH_AGAIN || random.below(8) == 0 => {
            world.crash(node);
            let wait = 5 * MS + random.below(300 * MS);
            world.restart_after(node, wait);
        }
        0..=3 => world.pause(node, MS + random.below(120 * MS)),
        4 => world.isolate(node),
        5 if node != other => {
            for link in 0..2 {
                world.cut(node, other, LinkId(link));
            }
        }
        6 if node != other => world.cut(node, other, LinkId(u8::try_from(random.below(2)).expect("0 or 1"))),
        7 => {
            if let Some((active, _)) = world.active(&group) {
                world.give(active, SimInput::KillUnit(group));
            }
        }
        8 => world.give(node, SimInput::Switchover(group)),
        9 | 10 => break_or_mend(world, random),
        _ => {
            world.manners = Manners { loss: random.below(300), doubled: random.below(100), delay_max: MS / 10 + random.below(20 * MS) };
        }
    }
}

/// Fans fail one by one, and come back together.
fn break_or_mend(world: &mut World, random: &mut Stream) {
    let shelves = world.chassis();
    if shelves.is_empty() {
        return;
    }
    let chassis = shelves[usize::try_from(random.below(shelves.len() as u64)).expect("few")].clone();
    if random.below(3) == 0 {
        return world.mend(&chassis);
    }
    for fan in 1..=1 + random.below(3) {
        world.break_fan(&chassis, u32::try_from(fan).expect("few"));
    }
}

/// Some fans have failed before anything else does: every owner that follows then has claims to go on with, and orders to give.
fn heat_up(world: &mut World, random: &mut Stream) -> Result<(), String> {
    for chassis in world.chassis() {
        for fan in 1..=1 + random.below(3) {
            world.break_fan(&chassis, u32::try_from(fan).expect("few"));
        }
    }
    world.run(1_500 * MS)
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

/// A fan counts as failed after a second; a claim that failed is made again after another.
const COOLED_MAX: Truth = 8_000 * MS;
/// After healing it must serve within so long: two elections, a resynchronisation, restarts of the applications.
const HEALED_MAX: Truth = 5_000 * MS;
/// A node that came back needs so long to hold complete copies again.
const CRASH_AGAIN: Truth = 200 * MS;
