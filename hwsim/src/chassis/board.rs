//! A board in a slot: hot swap, payload, and what it draws.

use serde::{Deserialize, Serialize};

use super::plan::BoardPlan;

/// Hot-swap state of a slot. Source: PICMG 3.0, FRU states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MState {
    /// Not installed.
    #[default]
    M0,
    /// Inactive.
    M1,
    /// Activation requested.
    M2,
    /// Activation in progress.
    M3,
    /// Active.
    M4,
    /// Deactivation requested.
    M5,
    /// Deactivation in progress.
    M6,
    /// Communication lost: it is there and does not answer. Not the same as absent.
    M7,
}

impl MState {
    /// The state's name, such as `M4`.
    pub fn as_str(self) -> &'static str {
        ["M0", "M1", "M2", "M3", "M4", "M5", "M6", "M7"][self as usize]
    }

    /// The blue light beside the latch: `on` means that the board may be pulled.
    pub(crate) fn blue_led(self) -> &'static str {
        match self {
            Self::M1 => "on",
            Self::M2 => "blinking-long",
            Self::M5 | Self::M6 => "blinking-short",
            Self::M0 | Self::M3 | Self::M4 | Self::M7 => "off",
        }
    }
}

/// What a board's own processor does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Payload {
    Off,
    Booting {
        left_seconds: f64,
    },
    Running,
    /// Stopped by itself; only a reset helps, its watchdog's or an ordered one.
    Panicked {
        for_seconds: f64,
    },
}

impl Payload {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Booting { .. } => "booting",
            Self::Running => "running",
            Self::Panicked { .. } => "panicked",
        }
    }
}

/// What happened to a board by itself: for the shelf manager's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    TooHot,
    Fuse,
    BrownOut,
    Panic,
    OutOfMemory,
    Watchdog,
}

impl Trouble {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::TooHot => "switched itself off: too hot",
            Self::Fuse => "drew more than its slot gives: switched off",
            Self::BrownOut => "switched off: the supplies cannot carry it",
            Self::Panic => "panicked",
            Self::OutOfMemory => "panicked: out of memory",
            Self::Watchdog => "was reset by its watchdog",
        }
    }
}

/// What faults do to one board.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct BoardEffect {
    /// Its management controller does not answer.
    pub(crate) hung: bool,
    pub(crate) panicked: bool,
    pub(crate) boot_fails: bool,
    pub(crate) extra_watts: f64,
    pub(crate) load_percent: Option<f64>,
    pub(crate) leak_percent_per_second: f64,
    pub(crate) latch_open: bool,
    pub(crate) pulled: bool,
}

/// The conditions of one step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conditions {
    pub(crate) seconds: f64,
    pub(crate) effect: BoardEffect,
    /// What the slot may draw.
    pub(crate) slot_watts_max: f64,
    /// What the bus could still carry.
    pub(crate) spare_watts: f64,
}

/// A board in a slot.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    pub(crate) plan: BoardPlan,
    pub(crate) celsius: f64,
    /// Never `M0` (then there is no board) and never `M7` (that is how it looks from outside, see `Chassis`).
    pub(crate) state: MState,
    since_seconds: f64,
    /// Whether it is to be powered: by default yes.
    pub(crate) wanted: bool,
    pub(crate) payload: Payload,
    pub(crate) memory_percent: f64,
    pub(crate) load_percent: f64,
    /// Switched itself off because it was too hot; an order to power it on clears it.
    tripped: bool,
    over_seconds: f64,
    /// The fault that made it panic was answered by a reset: it does not strike again.
    panic_spent: bool,
    /// Counts its resets; a hang or panic does not outlive one.
    pub(crate) resets: u64,
}

impl Board {
    pub(crate) fn running(plan: BoardPlan, celsius: f64) -> Self {
        Self {
            celsius,
            state: MState::M4,
            since_seconds: 0.0,
            wanted: true,
            payload: Payload::Running,
            memory_percent: MEMORY_PERCENT_AT_START,
            load_percent: plan.load_percent,
            tripped: false,
            over_seconds: 0.0,
            panic_spent: false,
            resets: 0,
            plan,
        }
    }

    /// Just pushed in, cold: the controller wakes up and asks for power.
    pub(crate) fn inserted(plan: BoardPlan, celsius: f64) -> Self {
        Self { state: MState::M1, payload: Payload::Off, ..Self::running(plan, celsius) }
    }

    /// An order from outside; an order to power on also forgives a trip.
    pub(crate) fn order_power(&mut self, on: bool) {
        self.wanted = on;
        self.tripped &= !on;
    }

    /// The payload starts again; nothing happens to a board whose payload is off.
    pub(crate) fn reset(&mut self) {
        if self.payload != Payload::Off {
            self.start();
        }
    }

    /// Off at once, and it stays off until ordered on again.
    pub(crate) fn cut_off(&mut self) {
        self.wanted = false;
        self.lose_power();
    }

    /// No power at all; it comes back by itself when there is some.
    pub(crate) fn lose_power(&mut self) {
        self.enter(MState::M1);
        self.payload = Payload::Off;
    }

    /// One step of time; what happened is noted.
    pub(crate) fn advance(&mut self, now: Conditions, mut note: impl FnMut(Trouble)) {
        self.since_seconds += now.seconds;
        self.panic_spent &= now.effect.panicked;
        self.advance_payload(now, &mut note);
        if self.payload != Payload::Off {
            self.guard(now, &mut note);
        }
        self.advance_state(now);
    }

    /// What it draws from the bus if the bus carries it.
    pub(crate) fn watts(&self, effect: BoardEffect) -> f64 {
        let plan = &self.plan;
        let leakage = (1.0 + plan.leakage_per_kelvin * (self.celsius - LEAKAGE_FROM_CELSIUS)).max(0.1);
        let busy = plan.busy_watts * (self.load_percent - plan.load_percent) / (100.0 - plan.load_percent).max(1.0);
        match self.payload {
            Payload::Off => plan.standby_watts,
            Payload::Booting { .. } | Payload::Panicked { .. } => BOOT_LOAD * plan.power_watts * leakage + effect.extra_watts,
            Payload::Running => (plan.power_watts + busy) * leakage + effect.extra_watts,
        }
    }

    fn advance_payload(&mut self, now: Conditions, note: &mut impl FnMut(Trouble)) {
        match self.payload {
            Payload::Off => {}
            Payload::Booting { left_seconds } if left_seconds > now.seconds || now.effect.boot_fails => {
                // A boot that fails begins anew for ever.
                let left = left_seconds - now.seconds;
                let left_seconds = if left > 0.0 { left } else { self.plan.boot_seconds };
                self.payload = Payload::Booting { left_seconds };
            }
            Payload::Booting { .. } => self.payload = Payload::Running,
            Payload::Running => {
                self.memory_percent = (self.memory_percent + now.effect.leak_percent_per_second * now.seconds).min(100.0);
                if now.effect.panicked && !self.panic_spent {
                    note(Trouble::Panic);
                    self.payload = Payload::Panicked { for_seconds: 0.0 };
                } else if self.memory_percent >= 100.0 {
                    note(Trouble::OutOfMemory);
                    self.payload = Payload::Panicked { for_seconds: 0.0 };
                }
            }
            Payload::Panicked { for_seconds } => {
                let for_seconds = for_seconds + now.seconds;
                self.payload = Payload::Panicked { for_seconds };
                if self.plan.watchdog_seconds.is_some_and(|limit| for_seconds >= limit) {
                    note(Trouble::Watchdog);
                    self.start();
                }
            }
        }
        let busy = now.effect.load_percent.unwrap_or(self.plan.load_percent);
        self.load_percent = if self.payload == Payload::Running { busy } else { 0.0 };
    }

    /// Heat and current have limits that need nobody's order.
    fn guard(&mut self, now: Conditions, note: &mut impl FnMut(Trouble)) {
        let over = self.watts(now.effect) > now.slot_watts_max;
        self.over_seconds = if over { self.over_seconds + now.seconds } else { 0.0 };
        if self.celsius > self.plan.trip_celsius {
            note(Trouble::TooHot);
            self.tripped = true;
            self.lose_power();
        } else if self.over_seconds > FUSE_SECONDS {
            note(Trouble::Fuse);
            self.cut_off();
        }
    }

    fn advance_state(&mut self, now: Conditions) {
        let on = self.wanted && !self.tripped && !now.effect.latch_open;
        let longer_than = |limit| self.since_seconds >= limit;
        match self.state {
            MState::M1 if on => self.enter(MState::M2),
            MState::M2 if !on => self.enter(MState::M1),
            // The shelf grants power only if the supplies can carry the board: until then it waits here.
            MState::M2 if longer_than(REQUEST_SECONDS) && now.spare_watts >= self.plan.power_watts => self.enter(MState::M3),
            MState::M3 if longer_than(POWER_UP_SECONDS) => {
                self.enter(MState::M4);
                self.start();
            }
            MState::M4 if !on => self.enter(MState::M5),
            MState::M5 if longer_than(REQUEST_SECONDS) => self.enter(MState::M6),
            MState::M6 if longer_than(SHUT_DOWN_SECONDS) => self.lose_power(),
            _ => {}
        }
    }

    fn start(&mut self) {
        self.payload = Payload::Booting { left_seconds: self.plan.boot_seconds };
        self.memory_percent = MEMORY_PERCENT_AT_START;
        self.panic_spent = true;
        self.resets += 1;
    }

    fn enter(&mut self, state: MState) {
        self.state = state;
        self.since_seconds = 0.0;
    }
}

const REQUEST_SECONDS: f64 = 1.0;
const POWER_UP_SECONDS: f64 = 2.0;
const SHUT_DOWN_SECONDS: f64 = 5.0;
/// A slot's fuse lets a short peak pass.
const FUSE_SECONDS: f64 = 1.0;
/// A booting payload draws less than a running one.
const BOOT_LOAD: f64 = 0.7;
const LEAKAGE_FROM_CELSIUS: f64 = 40.0;
const MEMORY_PERCENT_AT_START: f64 = 30.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chassis::plan::Plan;

    fn board(kind: &str, celsius: f64) -> Board {
        Board::running(Plan::mxp().boards[kind].clone(), celsius)
    }

    /// A second under a fault; returns what was noted.
    fn second(board: &mut Board, effect: BoardEffect) -> Vec<Trouble> {
        let mut noted = Vec::new();
        let now = Conditions { seconds: 1.0, effect, slot_watts_max: 150.0, spare_watts: 1000.0 };
        board.advance(now, |trouble| noted.push(trouble));
        noted
    }

    #[test]
    fn a_board_walks_through_its_states() {
        let mut board = board("line", 40.0);
        board.order_power(false);
        let mut seen = vec![board.state];
        for at in 0..200 {
            if at == 20 {
                board.order_power(true);
            }
            second(&mut board, BoardEffect::default());
            if seen.last() != Some(&board.state) {
                seen.push(board.state);
            }
        }
        use MState::{M1, M2, M3, M4, M5, M6};
        assert_eq!(seen, [M4, M5, M6, M1, M2, M3, M4]);
        assert_eq!(board.payload, Payload::Running);
    }

    #[test]
    fn an_open_latch_asks_for_the_way_out_and_a_closed_one_for_the_way_in() {
        let mut board = board("line", 40.0);
        let open = BoardEffect { latch_open: true, ..BoardEffect::default() };
        second(&mut board, open);
        assert_eq!((board.state, board.state.blue_led()), (MState::M5, "blinking-short"));
        for _ in 0..20 {
            second(&mut board, open);
        }
        assert_eq!((board.state, board.state.blue_led(), board.payload), (MState::M1, "on", Payload::Off));
        for _ in 0..5 {
            second(&mut board, BoardEffect::default());
        }
        assert_eq!((board.state, board.state.blue_led()), (MState::M4, "off"));
    }

    #[test]
    fn a_board_waits_for_power_that_the_supplies_do_not_have() {
        let mut board = Board::inserted(Plan::mxp().boards["line"].clone(), 20.0);
        let mut now = Conditions { seconds: 1.0, effect: BoardEffect::default(), slot_watts_max: 150.0, spare_watts: 74.0 };
        for _ in 0..60 {
            board.advance(now, |_| {});
        }
        assert_eq!(board.state, MState::M2, "75 W are asked for");
        now.spare_watts = 75.0;
        board.advance(now, |_| {});
        assert_eq!(board.state, MState::M3);
    }

    #[test]
    fn a_board_that_is_too_hot_goes_off_until_it_is_ordered_on() {
        let mut board = board("processor", 106.0);
        assert_eq!(second(&mut board, BoardEffect::default()), [Trouble::TooHot]);
        assert_eq!(board.payload, Payload::Off);
        board.celsius = 30.0;
        for _ in 0..60 {
            second(&mut board, BoardEffect::default());
        }
        assert_eq!(board.state, MState::M1, "stays off");
        board.order_power(true);
        second(&mut board, BoardEffect::default());
        assert_eq!(board.state, MState::M2);
    }

    #[test]
    fn a_board_that_draws_too_much_loses_its_fuse() {
        let mut board = board("processor", 40.0);
        let greedy = BoardEffect { extra_watts: 80.0, ..BoardEffect::default() };
        assert_eq!(second(&mut board, greedy), [], "a peak passes");
        assert_eq!(second(&mut board, greedy), [Trouble::Fuse]);
        assert_eq!((board.payload, board.wanted), (Payload::Off, false));
    }

    #[test]
    fn a_watchdog_answers_a_panic_once() {
        let mut board = board("processor", 40.0);
        let limit = board.plan.watchdog_seconds.expect("a processor has one");
        let panicked = BoardEffect { panicked: true, ..BoardEffect::default() };
        let noted: Vec<Trouble> = (0..400).flat_map(|_| second(&mut board, panicked)).collect();
        assert_eq!(noted, [Trouble::Panic, Trouble::Watchdog], "after {limit} s, and the fault is spent");
        assert_eq!((board.payload, board.resets), (Payload::Running, 1));
    }

    #[test]
    fn a_board_without_watchdog_stays_panicked_until_it_is_reset() {
        let mut board = board("line", 40.0);
        second(&mut board, BoardEffect { panicked: true, ..BoardEffect::default() });
        for _ in 0..300 {
            second(&mut board, BoardEffect::default());
        }
        assert_eq!(board.payload.as_str(), "panicked");
        board.reset();
        assert_eq!(board.payload.as_str(), "booting");
    }

    #[test]
    fn leaked_memory_ends_in_a_panic_and_a_reset_gives_it_back() {
        let mut board = board("processor", 40.0);
        let leak = BoardEffect { leak_percent_per_second: 1.0, ..BoardEffect::default() };
        let first = (1..200).find(|_| !second(&mut board, leak).is_empty());
        assert_eq!(first, Some(70), "from 30 to 100 %");
        board.reset();
        assert_eq!(board.memory_percent, 30.0);
    }

    #[test]
    fn a_boot_that_fails_goes_on_for_ever() {
        let mut board = board("line", 40.0);
        board.reset();
        for _ in 0..500 {
            second(&mut board, BoardEffect { boot_fails: true, ..BoardEffect::default() });
        }
        assert_eq!(board.payload.as_str(), "booting");
    }

    #[test]
    fn load_makes_heat() {
        let mut board = board("processor", 40.0);
        let none = BoardEffect::default();
        let idle = board.watts(none);
        second(&mut board, BoardEffect { load_percent: Some(100.0), ..none });
        assert_eq!(board.watts(none) - idle, board.plan.busy_watts);
    }
}
