//! A chassis that behaves like one: heat, airflow, power, hot swap, and faults.
//!
//! [`Chassis`] is a machine: time comes in with [`Chassis::step`], orders with [`Chassis::request`], faults with
//! [`Chassis::inject`]; readings are looked up. It reads no clock and draws no random number that does not follow from its seed, so
//! the same inputs give the same readings, however the time is sliced. [`server`] runs one as a process of its own, [`driver`] is
//! what a node uses to reach it.

mod air;
pub mod client;
mod curve;
pub mod driver;
mod fault;
mod fence;
mod heat;
mod lines;
mod parts;
mod physics;
mod plan;
mod points;
mod sensor;
pub mod server;
#[cfg(test)]
mod tests;
pub mod wire;
mod words;

use std::collections::VecDeque;
use std::sync::Arc;

use sixnines_core::ids::{AttributeName, ChassisName, ClassName, EventId, GroupName, Identity, ObjectName};
use sixnines_core::time::{Duration, Instant};
use sixnines_core::value::{Outcome, Request, Value};

pub use curve::{curve, curve_within};
pub use fault::{ActiveFault, CATALOGUE, Entry, Fault, FaultError, FaultId, Injection, Parameter};
pub use fence::{Action, EpochReport, GroupReport};
pub use parts::MState;
pub use physics::Energy;
pub use plan::{AirPlan, BoardPlan, FanPlan, Plan, PlanError, ShelfManagerPlan, SupplyPlan};
pub use sensor::Reading;

use fault::{Effects, Faults};
use fence::Fences;
use parts::Payload;
use physics::Physics;
use points::{Object, Part, Points, Quantity};
use sensor::{Sensor, Truth, noise};

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
            points,
            plan,
        };
        this.measure();
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
                self.measure();
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

    /// Ends a fault.
    ///
    /// # Errors
    /// [`FaultError::NotActive`] if it has ended already, or never was.
    pub fn clear(&mut self, id: FaultId) -> Result<(), FaultError> {
        self.faults.clear(id)?;
        self.faults_changed();
        Ok(())
    }

    /// Ends all faults; returns how many there were.
    pub fn clear_all(&mut self) -> usize {
        let count = self.faults.remove_if(|_, _| true);
        self.faults_changed();
        count
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

    /// The true temperature at the outlet, which a sensor shows with noise.
    pub fn outlet_celsius(&self) -> f64 {
        self.physics.outlet_celsius
    }

    /// The true temperature of a board; `None` for an empty slot.
    pub fn board_celsius(&self, slot: usize) -> Option<f64> {
        Some(self.physics.boards.get(slot.checked_sub(1)?)?.as_ref()?.celsius)
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
        if self.faults.remove_if(|_, active| active.until.is_some_and(|until| until <= now)) > 0 {
            self.effects = Effects::of(&self.plan, &self.points, self.faults.faults());
        }
        self.physics.advance(TICK.as_secs_f64() * self.plan.time_scale, &self.effects);
        self.measure();
    }

    fn faults_changed(&mut self) {
        self.effects = Effects::of(&self.plan, &self.points, self.faults.faults());
        self.measure();
    }

    /// Without power, nobody answers either.
    fn silent(&self) -> bool {
        self.effects.shelf_manager_silent || self.effects.good_supplies() == 0
    }

    fn carry_out(&mut self, object: &Object, request: &Request) -> Result<(), String> {
        match (object.part, request.control.as_str()) {
            (Part::Fan(i), "duty") => self.physics.fans[i].duty_percent = duty(request)?,
            (Part::Slot(i), "power_on") => {
                let on = switch(request)?;
                self.board(i)?.order_power(on);
                if !on {
                    self.cure_hang(i);
                }
            }
            (Part::Slot(i), "reset") => self.reset(i, request)?,
            (part, control) => {
                let known: &[&str] = match part {
                    Part::Fan(_) => &["duty"],
                    Part::Slot(_) => &["power_on", "reset"],
                    _ => &[],
                };
                let known =
                    if known.is_empty() { "it has none".to_owned() } else { words::nearest(control, known.iter().copied()) };
                return Err(format!("{control} is no control of {}; {known}", object.name));
            }
        }
        Ok(())
    }

    /// An edge: a repeat with the same id is answered and not carried out again.
    fn reset(&mut self, slot: usize, request: &Request) -> Result<(), String> {
        if request.value.is_some() {
            return Err("reset takes no value".into());
        }
        if self.edges.contains(&request.id) {
            return Ok(());
        }
        let board = self.board(slot)?;
        if board.payload == Payload::Off {
            return Err(format!("the board in slot {} is off; power it on instead", slot + 1));
        }
        board.reset();
        self.cure_hang(slot);
        if self.edges.len() == EDGES_MAX {
            self.edges.pop_front();
        }
        self.edges.push_back(request.id);
        Ok(())
    }

    fn board(&mut self, slot: usize) -> Result<&mut parts::Board, String> {
        self.physics.boards[slot].as_mut().ok_or_else(|| format!("slot {} is empty", slot + 1))
    }

    fn cure_hang(&mut self, slot: usize) {
        self.faults.remove_if(|fault, _| *fault == Fault::BoardHang { slot: slot + 1 });
        self.effects = Effects::of(&self.plan, &self.points, self.faults.faults());
    }

    /// Lets every sensor look at the truth.
    fn measure(&mut self) {
        let silent = self.silent();
        for index in 0..self.sensors.len() {
            let point = &self.points.list[index];
            let read = !silent || point.quantity == Quantity::ShelfManagerAlive;
            let changed = if read {
                let truth = self.truth(point.quantity);
                let effect = self.effects.sensors.get(&index).copied().unwrap_or_default();
                let noise = noise(self.plan.seed, point.stream, self.ticks);
                let cause = self.cause(point.object, point.quantity);
                self.sensors[index].look(&truth, effect, noise, cause)
            } else {
                self.sensors[index].go_stale()
            };
            if changed {
                self.revision += 1;
                self.sensors[index].revision = self.revision;
            }
        }
    }

    fn truth(&self, quantity: Quantity) -> Truth {
        let physics = &self.physics;
        let temperature = |x| Truth::Float { x, resolution: 0.1, sigma: 0.01 };
        let power = |x| Truth::Float { x, resolution: 1.0, sigma: 0.1 };
        let exact = |b| Truth::Exact(Value::Bool(b));
        match quantity {
            Quantity::InletTemperature => temperature(physics.inlet_celsius),
            Quantity::OutletTemperature => temperature(physics.outlet_celsius),
            Quantity::ChassisPower => power(physics.input_watts),
            Quantity::FanSpeed(i) => Truth::Int { x: physics.fans[i].speed_rpm, resolution: 20.0, sigma: 2.0 },
            Quantity::FanDuty(i) => Truth::Exact(Value::Int(physics.fans[i].duty_percent)),
            Quantity::SupplyPower(i) => power(if self.effects.supplies_failed[i] { 0.0 } else { physics.supply_watts }),
            Quantity::SupplyInput(i) => exact(!self.effects.supplies_failed[i]),
            Quantity::BoardTemperature(i) => match &physics.boards[i] {
                None => Truth::Absent,
                Some(_) if self.effects.boards_hung[i] => Truth::Unreadable,
                Some(board) => Truth::Float { x: board.celsius, resolution: 0.5, sigma: 0.05 },
            },
            Quantity::BoardPower(i) if physics.boards[i].is_none() => Truth::Absent,
            Quantity::BoardPower(i) => power(physics.board_watts(i, &self.effects)),
            Quantity::BoardState(i) => {
                let state = match &physics.boards[i] {
                    None => MState::M0,
                    Some(_) if self.effects.boards_hung[i] => MState::M7,
                    Some(board) => board.state,
                };
                Truth::Exact(Value::Enum(Arc::from(state.as_str())))
            }
            Quantity::BoardOrder(i) => physics.boards[i].as_ref().map_or(Truth::Absent, |board| exact(board.wanted)),
            Quantity::FabricLink(i) => exact(!self.effects.fabrics_down[i]),
            Quantity::ShelfManagerAlive => exact(!self.silent()),
        }
    }

    /// The request that a change of this quantity follows from: what is ordered always, what follows slowly only while it does.
    fn cause(&self, object: usize, quantity: Quantity) -> Option<EventId> {
        let (id, at) = self.last_requests[object]?;
        let chassis_seconds = self.ticked.since(at).as_secs_f64() * self.plan.time_scale;
        let follows = match quantity {
            Quantity::FanDuty(_) | Quantity::BoardOrder(_) => true,
            Quantity::FanSpeed(_) => chassis_seconds < FOLLOWS_LAGS * self.plan.fan.lag_seconds,
            Quantity::BoardState(_) | Quantity::BoardPower(_) => chassis_seconds < BOARD_FOLLOWS_SECONDS,
            _ => false,
        };
        follows.then_some(id)
    }
}

fn duty(request: &Request) -> Result<i64, String> {
    let percent = match request.value {
        Some(Value::Int(n)) => n as f64,
        Some(Value::Float(x)) => x,
        _ => return Err("duty takes a number of percent".into()),
    };
    if !(0.0..=100.0).contains(&percent) {
        return Err(format!("duty is 0 to 100 %, not {percent}"));
    }
    #[expect(clippy::cast_possible_truncation, reason = "0 to 100")]
    let whole = percent.round() as i64;
    Ok(whole)
}

fn switch(request: &Request) -> Result<bool, String> {
    match request.value {
        Some(Value::Bool(on)) => Ok(on),
        _ => Err("power_on takes true or false".into()),
    }
}

/// How often the chassis looks at itself, in time of the clock.
pub const TICK: Duration = Duration::from_millis(100);
/// After as many time constants a fan has arrived.
const FOLLOWS_LAGS: f64 = 10.0;
/// In chassis seconds; longer than any walk through the hot-swap states.
const BOARD_FOLLOWS_SECONDS: f64 = 30.0;
/// A repeat comes soon or never.
const EDGES_MAX: usize = 256;
