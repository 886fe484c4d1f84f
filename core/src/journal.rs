//! What a node writes down: one record format for the journal and the control log.

pub mod record;
pub mod replay;
#[cfg(test)]
mod tests;

/// A record with the state that a segment of the journal begins with.
pub const KIND_SNAPSHOT: u8 = 1;
/// A record with one input of the core loop.
pub const KIND_INPUT: u8 = 2;
