//! The thread that runs the core loop: it waits for inputs, hands them over with the time, and begins the journal's segments.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, select_biased};
use sixnines_discs::liveness::Part;
use sixnines_discs::liveness::shell::Turns;
use sixnines_drivers::clock;

use super::doors::Doors;
use super::drivers::Reading;
use crate::core_loop::{CoreLoop, In};

/// The loop turns at least so often, idle or not: several times within the patience of whoever watches it (protocol 5.3).
const TURN: Duration = Duration::from_millis(80);

/// A turn that takes so long is told: it is well on the way to what whoever watches this thread has patience for.
const LONG: Duration = Duration::from_millis(100);

/// Runs until [`In::Stop`], or until everybody who could say so is gone. What others tell of their objects is taken when there is nothing else to do, and
/// the drivers' readings when that is done too.
pub(super) fn run(mut core: CoreLoop<Doors>, turns: &Arc<Turns>, inbox: &Receiver<In>, readings: &Receiver<Reading>) {
    let none = crossbeam::channel::never();
    loop {
        turns.turn(Part::CoreLoop);
        let wait = core.poll_timeout().map_or(TURN, |at| at.since(clock::boot_now()).min(TURN));
        let (wait, readings) = if core.is_busy() { (Duration::ZERO, &none) } else { (wait, readings) };
        let (input, room) = select_biased! {
            recv(inbox) -> input => match input {
                Ok(In::Stop) | Err(_) => return,
                Ok(input) => (Some(input), None),
            },
            recv(readings) -> reading => match reading {
                Ok(Reading { update, room }) => (Some(In::Update(update)), Some(room)),
                Err(_) => return,
            },
            default(wait) => (None, None),
        };
        let (now, wall) = (clock::boot_now(), clock::wall_now());
        let (is_input, calls) = (input.is_some(), core.policy_calls());
        let is_word = !is_input && core.take_word(now, wall);
        if !is_word {
            core.handle(now, wall, input);
        }
        let taken = clock::boot_now().since(now);
        if taken >= LONG {
            tracing::warn!(ms = taken.as_millis(), is_input, is_word, policy_calls = core.policy_calls() - calls, "a turn of the core loop took long");
        }
        drop(room); // only now: what has been taken out but not been worked off still counts
        begin_segment(&mut core);
    }
}

/// Here, between two inputs, a snapshot holds all that was journalled before and nothing of what comes after.
fn begin_segment(core: &mut CoreLoop<Doors>) {
    if core.ways.journal.wants_segment()
        && let Some(engine) = &mut core.engine
    {
        let snapshot = engine.begin_segment();
        core.ways.journal.begin(snapshot);
    }
}
