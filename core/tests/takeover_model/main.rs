//! The takeover model: protocol 1 to 4.1 and 6.1, explored exhaustively within bounds.
//!
//! - [`copies`], layer one, without clocks: writes, copies, reads, crashes, takeovers, switchovers, starts from nothing. Nothing that was
//!   acknowledged or shown may be missing from a member's copy, least of all from the active's. [`copies_rows`].
//! - [`clocks`], layer two, in ticks: leases, promises, releases, the gate. Never may two nodes have the gate of one group open at
//!   once. [`clocks_rows`].
//! - [`voters`]: what both take for granted of the voters' disks.
//!
//! The control log of both layers is the real `sixnines_core::domain::Domain` ([`law`]), applied by every node at its own pace: the model
//! judges that code too. Every rule of the page is a switch. A row of the page's last table breaks one and must be caught;
//! the unbroken rules must hold in every state within the bounds. [`explorer`] finds the shortest trace.
//!
//! `cargo test -p sixnines-core --test takeover_model -- --nocapture` prints for each row how many states were seen and the trace.
//! `SIXNINES_MODEL_LARGE=1` adds the long explorations, up to 25 million states each (ten minutes, and two gigabytes of memory).
//!
//! # Where our step counts differ from the page's
//! A heartbeat, its grant and its echo are one step where delay cannot matter, and nodes have joined before the first step: layer
//! two is two to five steps shorter throughout. A proposal and its commit are two steps where something can come between
//! (sets, switchovers), else one; a replicated record and its report are two. "Retry acknowledged" needs no third node
//! here, for the retry meets A itself.
//!
//! # What the product does that is not on the page
//! A release stands until a newer `Joined` or `Confirm` of its target, not until the takeover, and one lease serves all
//! groups of a node: safe, as long as voters and domain follow the same rule (the row "a release ends with the takeover, its
//! entry's evidence does not" is what happens otherwise). A life that is over needs no releases: safe if its node starts clean
//! *and* no `Joined` can end a life that goes on (the rows about `Joined` and about the predecessor).
//!
//! # What is not covered
//! Raft's elections, a change of the voters, records under way from a dead sender, torn state, several checkpoints in a
//! group, more crashes than the bounds say, and faults of the shells around the machines (a gate that was not told what
//! was applied). Those are the simulator's.

mod clocks;
mod clocks_rows;
mod copies;
mod copies_rows;
mod explorer;
mod law;
mod voters;

/// No exploration sees more states than this.
const LIMIT: usize = 40_000_000;

/// Whether the long explorations are asked for.
fn larger_bounds() -> bool {
    std::env::var_os("SIXNINES_MODEL_LARGE").is_some()
}

/// How far an exploration got.
fn reach<S, H>(found: &explorer::Outcome<S, H>) -> &'static str {
    match (&found.harm, found.complete) {
        (Some(_), _) => "up to the first violation",
        (None, true) => "everything within the bounds",
        (None, false) => "CUT OFF at the limit",
    }
}
