//! A chassis that behaves like one: heat, airflow, power, hot swap, and faults.
//!
//! [`Chassis`] is a machine: time comes in with [`Chassis::step`], orders with [`Chassis::request`], faults with
//! [`Chassis::inject`]; readings are looked up. It reads no clock and draws no random number that does not follow from its seed, so
//! the same inputs give the same readings, however the time is sliced. [`server`] runs one as a process of its own, [`driver`] is
//! what a node uses to reach it.

mod ageing;
mod air;
mod board;
pub mod client;
mod curve;
pub mod driver;
mod fan;
mod fault;
mod fence;
mod heat;
mod lines;
mod log;
mod measure;
mod orders;
mod physics;
mod plan;
mod points;
mod power;
mod sensor;
pub mod server;
mod survey;
#[cfg(test)]
mod tests;
pub mod wire;
mod words;

use std::collections::VecDeque;

use sixnines_core::ids::{AttributeName, ChassisName, ClassName, EventId, GroupName, Identity, ObjectName};
use sixnines_core::time::{Duration, Instant};
use sixnines_core::value::{Outcome, Request, Update};

pub use ageing::Ageing;
pub use board::MState;
pub use curve::{curve, curve_within};
pub(crate) use fault::Words;
pub use fault::{ActiveFault, BoardFault, CATALOGUE, Entry, Fault, FaultError, FaultId, Injection, Parameter, SensorFault};
pub use fence::{Action, EpochReport, GroupReport};
pub use log::LogEntry;
pub use physics::Energy;
pub use plan::{AirPlan, BoardPlan, BranchPlan, FanPlan, Plan, PlanError, Rate, ReliabilityPlan, ShelfManagerPlan, SupplyPlan};
pub use sensor::Reading;
pub use survey::Survey;
pub(crate) use words::nearest;

use board::{Board, Payload};
use fault::{Effects, Faults};
use fence::Fences;
use log::Log;
use physics::Physics;
use points::{Part, Points};
use sensor::Sensor;

/// A simulated chassis.
#[derive(Clone, Debug)]
pub struct Chassis {
    plan: Plan,
    group: GroupName,
    points: Points,
    physics: Physics,
    faults: Faults,
    effects: Effects,
    fences: Fences,
    /// As many as there are points.
    sensors: Vec<Sensor>,
    revision: u64,
    ticked: Instant,
    ticks: u64,
    /// By object: the last request that was carried out, and when.
    last_requests: Vec<Option<(EventId, Instant)>>,
    /// Operations that were carried out lately: a repeat bears the same id and does nothing.
    edges: VecDeque<EventId>,
    log: Log,
    /// By slot: the board's count of resets when faults were looked at last; `None` without power.
    resets: Vec<Option<u64>>,
}

/// One reading with its place.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// Where.
    pub object: &'a ObjectName,
    /// Which attribute.
    pub attribute: &'a AttributeName,
    /// The thing in that place.
    pub identity: Option<&'a Identity>,
    /// What the sensor shows.
    pub reading: &'a Reading,
    /// The chassis' revision with which the reading changed last.
    pub revision: u64,
}

impl Named<'_> {
    /// As a driver reads it.
    pub fn update(self) -> Update {
        Update {
            object: self.object.clone(),
            attribute: self.attribute.clone(),
            value: self.reading.value.clone(),
            quality: self.reading.quality,
            identity: self.identity.cloned(),
            cause: self.reading.cause,
        }
    }
}

impl Chassis {
    /// A chassis that has run for long with nobody controlling it; its clock stands at `now`.
    pub fn new(plan: Plan, now: Instant) -> Self {
        let points = Points::of(&plan);
        let mut this = Self {
            group: GroupName::new(format!("chassis:{}", plan.chassis)),
            physics: Physics::settled(&plan),
            faults: Faults::default(),
            effects: Effects::none(&plan),
            fences: Fences::default(),
            sensors: vec![Sensor::new(); points.list.len()],
            revision: 0,
            ticked: now,
            ticks: 0,
            last_requests: vec![None; points.objects.len()],
            edges: VecDeque::new(),
            log: Log::default(),
            resets: Vec::new(),
            points,
            plan,
        };
        this.resets = this.physics.boards.iter().map(powered_resets).collect();
        this.measure(0.0);
        this
    }

    /// Takes the epoch check out: orders of any epoch are carried out. For a test that wants to see two actives.
    #[must_use]
    pub fn without_epoch_check(mut self) -> Self {
        self.fences.open = true;
        self
    }

    /// Lets time pass until `now` of the clock. It moves in whole ticks of [`TICK`]; the rest stays for the next step.
    pub fn step(&mut self, now: Instant) {
        while self.poll_timeout() <= now {
            self.ticked = self.poll_timeout();
            self.ticks += 1;
            self.tick();
        }
    }

    /// Lets `dt` of the clock pass.
    pub fn advance(&mut self, dt: Duration) {
        self.step(self.ticked + dt);
    }

    /// When the next [`Chassis::step`] will do something.
    pub fn poll_timeout(&self) -> Instant {
        self.ticked + TICK
    }

    /// Carries out an order of the owner, if its epoch is not older than the highest seen.
    pub fn request(&mut self, now: Instant, request: &Request) -> Outcome {
        if self.silent() {
            return Outcome::Refused(format!("the shelf manager of {} does not answer", self.plan.chassis));
        }
        let Some(object) = self.points.object(&request.object).cloned() else {
            let known = words::nearest(request.object.as_str(), self.points.objects.iter().map(|o| o.name.as_str()));
            return Outcome::Refused(format!("{} is no object of this chassis; {known}", request.object));
        };
        if let Err(by) = self.fences.pass(now, &self.group, request) {
            return Outcome::Fenced { by };
        }
        match self.carry_out(&object, request) {
            Ok(()) => {
                self.fences.accepted(now, &self.group, request);
                let index = self.points.objects.iter().position(|o| o.name == object.name);
                if let Some(slot) = index.and_then(|i| self.last_requests.get_mut(i)) {
                    *slot = Some((request.id, now));
                }
                self.log_order(now, request);
                self.cure_boards();
                self.measure(0.0);
                Outcome::Done
            }
            Err(why) => Outcome::Refused(why),
        }
    }

    /// Puts a fault in force at `now`.
    ///
    /// # Errors
    /// [`FaultError`] if fault, target or parameter are wrong; nothing changed.
    pub fn inject(&mut self, now: Instant, injection: Injection) -> Result<FaultId, FaultError> {
        let fault = Fault::check(&injection, &self.points)?;
        let id = self.faults.inject(now, injection, fault)?;
        self.faults_changed();
        Ok(id)
    }

    /// Whether a fault could be injected; nothing changes.
    ///
    /// # Errors
    /// [`FaultError`] if fault, target or parameter are wrong.
    pub fn check(&self, injection: &Injection) -> Result<(), FaultError> {
        Fault::check(injection, &self.points).map(drop)
    }

    /// Ends a fault.
    ///
    /// # Errors
    /// [`FaultError::NotActive`] if it has ended already, or never was.
    pub fn clear(&mut self, id: FaultId) -> Result<(), FaultError> {
        match self.end_faults(|_, active| active.id == id) {
            0 => Err(FaultError::NotActive(id)),
            _ => Ok(()),
        }
    }

    /// Ends all faults; returns how many there were.
    pub fn clear_all(&mut self) -> usize {
        self.end_faults(|_, _| true)
    }

    /// The faults in force, the oldest first.
    pub fn faults(&self) -> impl Iterator<Item = &ActiveFault> {
        self.faults.active()
    }

    /// All readings.
    pub fn readings(&self) -> impl Iterator<Item = Named<'_>> {
        self.points.list.iter().zip(&self.sensors).map(|(point, sensor)| {
            let object = &self.points.objects[point.object];
            Named {
                object: &object.name,
                attribute: &point.attribute,
                identity: object.identity.as_ref(),
                reading: &sensor.reading,
                revision: sensor.revision,
            }
        })
    }

    /// One reading.
    pub fn reading(&self, object: &str, attribute: &str) -> Option<&Reading> {
        let point = self.points.find(&ObjectName::new(object), &AttributeName::new(attribute))?;
        Some(&self.sensors[point].reading)
    }

    /// Grows with each change of a reading.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Every managed object of the chassis with its class, for an objects file to be made from or compared with.
    pub fn objects(&self) -> Vec<(ObjectName, ClassName)> {
        self.points.objects.iter().map(|o| (o.name.clone(), o.class.clone())).collect()
    }

    /// Its name.
    pub fn name(&self) -> &ChassisName {
        &self.plan.chassis
    }

    /// What it is made of.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Who acted under which epoch, and who was refused.
    pub fn fences(&self) -> Vec<GroupReport> {
        self.fences.report()
    }

    /// The shelf manager's event log, the oldest entry first.
    pub fn log(&self) -> impl Iterator<Item = &LogEntry> {
        self.log.entries()
    }

    /// The true temperature at the outlet, which a sensor shows with noise.
    pub fn outlet_celsius(&self) -> f64 {
        self.physics.outlet_celsius
    }

    /// The true temperature of a board; `None` for an empty slot.
    pub fn board_celsius(&self, slot: usize) -> Option<f64> {
        Some(self.physics.boards.get(slot.checked_sub(1)?)?.as_ref()?.celsius)
    }

    /// What a board really does, whoever can read it: running, hung, booting, off, failed, absent. `None`: there is no such slot.
    pub fn board_state(&self, slot: usize) -> Option<&'static str> {
        let index = slot.checked_sub(1).filter(|index| *index < self.physics.boards.len())?;
        Some(self.board_word(index))
    }

    /// The fabrics that carry nothing, counted from 0.
    pub fn dead_fabrics(&self) -> Vec<usize> {
        (0..self.points.fabrics.len()).filter(|fabric| !self.fabric_carries(*fabric)).collect()
    }

    /// The flow of air through the shelf.
    pub fn flow_cubic_meters_per_second(&self) -> f64 {
        self.physics.flow_cubic_meters_per_second
    }

    /// What the mains give.
    pub fn input_watts(&self) -> f64 {
        self.physics.input_watts
    }

    /// Where the energy went.
    pub fn energy(&self) -> Energy {
        self.physics.energy()
    }

    fn tick(&mut self) {
        let now = self.ticked;
        self.end_faults(|_, active| active.until.is_some_and(|until| until <= now));
        let seconds = TICK.as_secs_f64() * self.plan.time_scale;
        self.physics.advance(seconds, &self.effects);
        self.log_troubles();
        self.cure_boards();
        self.measure(seconds);
    }

    fn faults_changed(&mut self) {
        self.effects = Effects::of(&self.plan, &self.points, self.faults.faults());
        self.measure(0.0);
    }

    /// Ends what matches; what was pulled comes back, the same or another thing.
    fn end_faults(&mut self, ended: impl Fn(&Fault, &ActiveFault) -> bool) -> usize {
        let ended = self.faults.remove_if(ended);
        for (fault, active) in &ended {
            let part = match fault {
                Fault::FanPulled { fan } => Part::Fan(fan - 1),
                Fault::SupplyPulled { supply } => Part::Supply(supply - 1),
                Fault::Board { slot, what: BoardFault::Pulled } => Part::Slot(slot - 1),
                _ => continue,
            };
            let serial = active.injection.parameters.get("serial").filter(|serial| !serial.is_empty());
            let object = self.points.objects.iter_mut().find(|object| object.part == part);
            if let (Some(serial), Some(object)) = (serial, object) {
                object.identity = Some(Identity::new(serial));
            }
        }
        if !ended.is_empty() {
            self.faults_changed();
        }
        ended.len()
    }

    /// A hang or a panic does not outlive a reset, a power cycle, or the board being pulled, whoever did it.
    fn cure_boards(&mut self) {
        let resets: Vec<Option<u64>> = self.physics.boards.iter().map(powered_resets).collect();
        let before = std::mem::replace(&mut self.resets, resets.clone());
        self.end_faults(|fault, _| match fault {
            Fault::Board { slot, what: BoardFault::Hang | BoardFault::Panic } => {
                resets[slot - 1].is_none() || resets[slot - 1] != before[slot - 1]
            }
            _ => false,
        });
    }

    /// Without power, nobody answers either.
    fn silent(&self) -> bool {
        self.effects.shelf_manager_silent || self.effects.good_supplies() == 0
    }
}

/// How often a board was reset; `None` if it has no power, or is not there.
fn powered_resets(board: &Option<Board>) -> Option<u64> {
    board.as_ref().filter(|board| board.payload != Payload::Off).map(|board| board.resets)
}

/// How often the chassis looks at itself, in time of the clock.
pub const TICK: Duration = Duration::from_millis(100);
