//! From the physics to readings: what each sensor has to show.

use sixnines_core::ids::EventId;
use sixnines_core::value::Value;

use super::Chassis;
use super::board::{Board, MState, Payload};
use super::points::Quantity;
use super::sensor::{Look, Truth, noise};

impl Chassis {
    /// Lets every sensor look at the truth, `seconds` of chassis time after it looked last.
    pub(super) fn measure(&mut self, seconds: f64) {
        let silent = self.silent();
        for index in 0..self.sensors.len() {
            let point = &self.points.list[index];
            let changed = if !silent || point.quantity == Quantity::ShelfManagerState {
                let truth = self.truth(point.quantity);
                let effect = self.effects.sensors.get(&index).copied().unwrap_or_default();
                let noise = if truth.is_measured() { noise(self.plan.seed, point.stream, self.ticks) } else { 0.0 };
                let cause = self.cause(point.object, point.quantity);
                self.sensors[index].look(&truth, Look { effect, noise, seconds, cause })
            } else {
                self.sensors[index].go_stale()
            };
            if changed {
                let first = self.sensors[index].revision == 0;
                self.revision += 1;
                self.sensors[index].revision = self.revision;
                if !first && !silent {
                    self.log_change(index);
                }
            }
        }
    }

    fn truth(&self, quantity: Quantity) -> Truth {
        let physics = &self.physics;
        let temperature = |x| Truth::Float { x, resolution: 0.1, sigma: 0.01 };
        let power = |x| Truth::Float { x, resolution: 1.0, sigma: 0.1 };
        let percent = |x| Truth::Float { x, resolution: 1.0, sigma: 0.0 };
        let exact = |b| Truth::Exact(Value::Bool(b));
        match quantity {
            Quantity::InletTemperature => temperature(physics.inlet_celsius),
            Quantity::OutletTemperature => temperature(physics.outlet_celsius),
            Quantity::ChassisPower => power(physics.input_watts),
            Quantity::FanSpeed(i) | Quantity::FanDuty(i) if self.effects.fans_pulled[i] => Truth::Absent,
            Quantity::SupplyPower(i) | Quantity::SupplyInput(i) if self.effects.supplies_pulled[i] => Truth::Absent,
            Quantity::FanSpeed(i) => Truth::Int { x: physics.fans[i].speed_rpm, resolution: 20.0, sigma: 2.0 },
            Quantity::FanDuty(i) => Truth::Exact(Value::Int(physics.fans[i].duty_percent)),
            Quantity::SupplyPower(i) => power(if self.effects.supplies_failed[i] { 0.0 } else { physics.power.supply_watts(i) }),
            Quantity::SupplyInput(i) => exact(!self.effects.supplies_failed[i]),
            Quantity::BoardHotSwap(i) => Truth::Word(self.hot_swap_state(i).as_str()),
            Quantity::BoardState(i) => Truth::Word(self.board_word(i)),
            Quantity::BoardLight(i) if physics.boards[i].is_some() => Truth::Word(self.hot_swap_state(i).blue_led()),
            Quantity::BoardLight(_) => Truth::Absent,
            Quantity::BoardPower(i) if physics.boards[i].is_some() => power(physics.board_watts(i, &self.effects)),
            Quantity::BoardPower(_) => Truth::Absent,
            Quantity::BoardOrder(i) => self.of_board(i, |board| Truth::Word(if board.wanted { "on" } else { "off" })),
            Quantity::BoardTemperature(i) => {
                self.told_by_board(i, |board| Truth::Float { x: board.celsius, resolution: 0.5, sigma: 0.05 })
            }
            Quantity::BoardLoad(i) => self.told_by_payload(i, |board| percent(board.load_percent)),
            Quantity::BoardMemory(i) => self.told_by_payload(i, |board| percent(board.memory_percent)),
            Quantity::FabricState(i) if !self.fabric_carries(i) => Truth::Word("down"),
            Quantity::FabricState(i) => Truth::Word(if self.effects.fabrics[i].loss_percent > 0.0 { "degraded" } else { "up" }),
            Quantity::FabricLoss(i) => percent(if self.fabric_carries(i) { self.effects.fabrics[i].loss_percent } else { 100.0 }),
            Quantity::ShelfManagerState => Truth::Word(if self.silent() { "failed" } else { "running" }),
        }
    }

    fn hot_swap_state(&self, slot: usize) -> MState {
        match &self.physics.boards[slot] {
            None => MState::M0,
            Some(_) if self.effects.boards[slot].hung => MState::M7,
            Some(board) => board.state,
        }
    }

    pub(super) fn board_word(&self, slot: usize) -> &'static str {
        match &self.physics.boards[slot] {
            None => "absent",
            Some(_) if self.effects.boards[slot].hung => "hung",
            Some(Board { payload: Payload::Panicked { .. }, .. }) => "failed",
            Some(board) => board.payload.as_str(),
        }
    }

    fn of_board(&self, slot: usize, truth: impl FnOnce(&Board) -> Truth) -> Truth {
        self.physics.boards[slot].as_ref().map_or(Truth::Absent, truth)
    }

    /// What the board's own controller measures: nobody knows it while that does not answer.
    fn told_by_board(&self, slot: usize, truth: impl FnOnce(&Board) -> Truth) -> Truth {
        if self.effects.boards[slot].hung { self.of_board(slot, |_| Truth::Unreadable) } else { self.of_board(slot, truth) }
    }

    /// What only a running payload can tell.
    fn told_by_payload(&self, slot: usize, truth: impl FnOnce(&Board) -> Truth) -> Truth {
        let told = |board: &Board| if board.payload == Payload::Running { truth(board) } else { Truth::Absent };
        self.told_by_board(slot, told)
    }

    /// A flapping fabric is down first, then up, for one period each.
    pub(super) fn fabric_carries(&self, fabric: usize) -> bool {
        let effect = self.effects.fabrics[fabric];
        let seconds = self.ticked.since(effect.flaps_since).as_secs_f64();
        let flapped_down = effect.flaps_seconds > 0.0 && (seconds / effect.flaps_seconds) % 2.0 < 1.0;
        !effect.down && !flapped_down
    }

    /// The request that a change of this quantity follows from: what is ordered always, what follows slowly only while it does.
    fn cause(&self, object: usize, quantity: Quantity) -> Option<EventId> {
        let (id, at) = self.last_requests[object]?;
        let chassis_seconds = self.ticked.since(at).as_secs_f64() * self.plan.time_scale;
        let follows = match quantity {
            Quantity::FanDuty(_) | Quantity::BoardOrder(_) => true,
            Quantity::FanSpeed(_) => chassis_seconds < FOLLOWS_LAGS * self.plan.fan.lag_seconds,
            Quantity::BoardHotSwap(_) | Quantity::BoardLight(_) => chassis_seconds < WALK_SECONDS,
            Quantity::BoardState(i) | Quantity::BoardPower(i) => {
                let boot_seconds = self.plan.board_at(i).map_or(0.0, |board| board.boot_seconds);
                chassis_seconds < WALK_SECONDS + boot_seconds
            }
            _ => false,
        };
        follows.then_some(id)
    }
}

/// After as many time constants a fan has arrived.
const FOLLOWS_LAGS: f64 = 10.0;
/// In chassis seconds; longer than any walk through the hot-swap states.
const WALK_SECONDS: f64 = 30.0;
