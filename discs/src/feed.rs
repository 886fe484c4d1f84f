//! How events get from the node that numbers them to those that want to hear of them: each exactly once, in order, or in a named gap.
//!
//! Two machines. The [`Outlet`] of an origin keeps its newest events, how far each subscriber has recorded them, and what of them is still
//! to be told. The [`Inlet`] of a subscriber judges each word by the cursor that the core loop's journal keeps, and acknowledges what is
//! written there. The mesh's session below carries frames in order between two lives and may lose whatever was under way when one of them
//! ends; here that is made good, by asking again from the cursor.
//!
//! Back-pressure ends nowhere in a queue without a bound: what is told and not recorded is counted ([`Limits::flight_max`]); what the mesh
//! refuses waits where it is. Then readings are coalesced, the newest of each attribute wins. Events wait in the outlet's memory; who is
//! further behind than that holds is told the exact range that it misses, and then how everything is (protocol 8.3).
//!
//! They must never: tell an event twice to one cursor, leave one out without a word, wait.

mod inlet;
mod limits;
mod outlet;
mod ring;
mod subscriber;
#[cfg(test)]
mod tests;
pub mod wire;

pub use inlet::Inlet;
pub use limits::Limits;
pub use outlet::{Input, Levels, Outlet};
pub use subscriber::Row;
