//! What each single part of a domain means to its services: the part is broken in virtual time, and it is looked what stops.
//!
//! Every part is lost for good on a whole domain that has settled; pairs are lost one after the other, the second once the domain has
//! settled after the first. Then everything is repaired and must serve again. Why something stops is read off the topology.

pub mod topology;

use sixnines_core::ids::GroupName;

use super::chaos::draw::Ground;
use super::chaos::script::{Fault, US};
use super::chaos::{answers_steadily, apply, heal, serve};
use super::{MS, Setup, Truth, World};

/// What losing some parts did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// One entry per service.
    pub services: Vec<ServiceEffect>,
    /// Groups whose every complete copy was lost.
    pub losses: u64,
    /// A rule was broken.
    pub failure: Option<String>,
}

/// What it did to one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEffect {
    /// The service.
    pub service: GroupName,
    /// It does not serve until something is repaired.
    pub stops: bool,
    /// It serves again when everything is repaired; otherwise an operator has to start it, if it is configured so.
    pub is_back: bool,
    /// It is served from elsewhere.
    pub moved: bool,
    /// The longest time between two answers after the (last) fault; of a service that stops, nothing.
    pub gap_us: u64,
}

/// Breaks `faults` one after the other on a new domain, and repairs them.
pub fn examine(setup: Setup, ground: &Ground, faults: &[Fault]) -> Effect {
    let mut services: Vec<ServiceEffect> = setup.services.iter().map(|s| ServiceEffect { service: s.clone(), stops: false, is_back: true, moved: false, gap_us: 0 }).collect();
    let mut world = World::new(setup);
    let failure = lose(&mut world, ground, faults, &mut services).and_then(|()| repair(&mut world, ground, &mut services)).err();
    Effect { services, losses: world.judge().losses(), failure }
}

fn lose(world: &mut World, ground: &Ground, faults: &[Fault], services: &mut [ServiceEffect]) -> Result<(), String> {
    let names: Vec<GroupName> = services.iter().map(|s| s.service.clone()).collect();
    serve(world, ground, &names, "the domain forms and serves")?;
    world.run(ground.settled())?;
    let epochs: Vec<_> = names.iter().map(|s| world.active(s).map(|(_, epoch)| epoch)).collect();
    for fault in faults {
        world.note(format!("FAULT {fault}"));
        let began = world.now();
        apply(world, fault);
        world.run(ground.window())?;
        wait(world, ground, &names)?;
        for service in services.iter_mut() {
            service.gap_us = world.judge().gap(&service.service, began, world.now()) / US;
        }
        world.run(ground.settled())?;
    }
    for (service, epoch) in services.iter_mut().zip(epochs) {
        service.stops = !answers_steadily(world, &service.service);
        service.moved = !service.stops && world.active(&service.service).map(|(_, now)| now) > epoch;
    }
    Ok(())
}

/// Some come back by themselves, but late.
fn wait(world: &mut World, ground: &Ground, names: &[GroupName]) -> Result<(), String> {
    let end = world.now() + LATE.max(4 * ground.window());
    while world.now() < end && !names.iter().all(|s| answers_steadily(world, s)) {
        world.run(10 * MS)?;
    }
    Ok(())
}

fn repair(world: &mut World, ground: &Ground, services: &mut [ServiceEffect]) -> Result<(), String> {
    heal(world);
    world.restart_all();
    for service in services {
        let outcome = serve(world, ground, std::slice::from_ref(&service.service), "everything is repaired, and it serves again");
        if let Some(broken) = world.judge().broken() {
            return Err(broken.to_owned());
        }
        service.is_back = outcome.is_ok();
    }
    world.prove_journals()
}

/// A service that comes back later than this does so because somebody repaired something.
const LATE: Truth = 3_000 * MS;
