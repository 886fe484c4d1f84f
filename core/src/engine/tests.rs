//! The engine from outside: inputs in, outputs compared.

mod alarms;
mod claims;
mod levels;
mod nodes;
mod seed;
pub(crate) mod shelf;
