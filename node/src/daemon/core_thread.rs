//! The thread that runs the core loop: it waits for inputs, hands them over with the time, and begins the journal's segments.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError};
use sixnines_discs::liveness::Part;
use sixnines_discs::liveness::shell::Turns;
use sixnines_drivers::clock;

use super::doors::Doors;
use crate::core_loop::{CoreLoop, In};

/// The loop turns at least so often, idle or not: several times within the patience of whoever watches it (protocol 5.3).
const TURN: Duration = Duration::from_millis(80);

/// Runs until [`In::Stop`], or until everybody who could say so is gone.
pub(super) fn run(mut core: CoreLoop<Doors>, turns: &Arc<Turns>, inbox: &Receiver<In>) {
    loop {
        turns.turn(Part::CoreLoop);
        let wait = core.poll_timeout().map_or(TURN, |at| at.since(clock::boot_now()).min(TURN));
        let input = match inbox.recv_timeout(wait) {
            Ok(In::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(input) => Some(input),
            Err(RecvTimeoutError::Timeout) => None,
        };
        core.handle(clock::boot_now(), clock::wall_now(), input);
        begin_segment(&mut core);
    }
}

/// Here, between two inputs, a snapshot holds all that was journalled before and nothing of what comes after.
fn begin_segment(core: &mut CoreLoop<Doors>) {
    if core.ways.journal.wants_segment()
        && let Some(engine) = &core.engine
    {
        let snapshot = engine.begin_segment();
        core.ways.journal.begin(snapshot);
    }
}
