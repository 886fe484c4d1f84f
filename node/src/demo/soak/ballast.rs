//! An application whose state is large and does nothing: it is there to be transferred.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use sixnines_checkpoint::{App, AppRole, Checkpoint, Replication, Term};

/// The service that it is, and its checkpoint.
pub(super) const BALLAST: &str = "ballast";
/// Of one section.
const SECTION_BYTES: usize = 1 << 20;
/// Sections that are written before the first of them is waited for.
const IN_FLIGHT: u32 = 8;

/// Fills its state where it is active, and keeps it.
///
/// # Errors
/// If the node cannot be reached.
pub(super) fn run(megabytes: u32, full: &Path) -> anyhow::Result<()> {
    let app = App::connect().context("connecting to the node")?;
    let state = app.open(BALLAST, Replication::default()).context("opening the checkpoint")?;
    let mut term: Option<Term> = None;
    loop {
        let is_full = state.len() >= megabytes as usize;
        let role = if term.is_some() && !is_full { app.next_role_within(Duration::ZERO) } else { Some(app.next_role().context("the node has ended")?) };
        match role {
            Some(AppRole::Active(new)) => term = Some(new),
            Some(AppRole::Standby | AppRole::Lost) => term = None,
            Some(AppRole::Quiescing) => {
                term = None;
                app.drained();
            }
            None => {}
        }
        if let Some(term) = &term {
            fill(&state, term, megabytes);
            if state.len() >= megabytes as usize {
                std::fs::write(full, "").context("saying that the state is there")?;
            }
        }
    }
}

/// Some more of it. What is refused or has an unknown outcome is written again at the next turn.
fn fill(state: &Checkpoint, term: &Term, megabytes: u32) {
    let missing = (0..megabytes).filter(|n| state.get(n.to_be_bytes()).is_none()).take(IN_FLIGHT as usize);
    let pending: Vec<_> = missing.map(|n| state.put(term, n.to_be_bytes(), section(n))).collect();
    for written in pending {
        if let Err(error) = written.and_then(|pending| pending.wait()) {
            eprintln!("ballast: {error}");
            std::thread::sleep(Duration::from_millis(100)); // the role has gone, or there is no room for now
        }
    }
}

/// Bytes that no zero page and no compressor makes small.
fn section(number: u32) -> Vec<u8> {
    let mut state = u64::from(number) | 1 << 40;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..SECTION_BYTES / 8).flat_map(|_| next().to_le_bytes()).collect()
}
