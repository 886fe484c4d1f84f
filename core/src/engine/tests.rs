//! The engine from outside: inputs in, outputs compared.

mod alarms;
mod behind;
mod claims;
mod feeds;
mod levels;
mod limits;
mod nodes;
mod seed;
pub(crate) mod shelf;
