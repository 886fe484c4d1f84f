//! The takeover model: protocol 1 to 3 and 4.1, explored exhaustively within bounds.
//!
//! Layer two ([`clocks`]): leases, promises, releases and the gate, in ticks; never may two nodes have the gate of one
//! group open at once. The control log is the real `sixnines_core::domain::Domain` ([`law`]), applied by every node at its own
//! pace, so that the model also judges that code. Every rule is a switch; [`clocks_rows`] breaks each and wants it caught.
//!
//! `cargo test -p sixnines-core --test takeover_model -- --nocapture` prints, for each row, how many states were seen and the
//! shortest trace to the violation. Our step counts are below the page's where the page counts the message and its
//! arrival, or the proposal and its commit, as two steps. `SIXNINES_MODEL_LARGE=1` adds the long explorations (minutes).
//!
//! # What is not covered
//! Raft's elections, a change of the voters, batches of writes, torn state, more crashes than the bounds say, and faults
//! of the shells around the machines (a gate that was not told what was applied). Those are the simulator's.

mod clocks;
mod clocks_rows;
mod explorer;
mod law;

/// No exploration sees more states than this.
const LIMIT: usize = 40_000_000;

/// Whether the long explorations are asked for.
fn larger_bounds() -> bool {
    std::env::var_os("SIXNINES_MODEL_LARGE").is_some()
}
