//! The heart of sixnines, without I/O: managed objects, events, alarms, policies, and the rows of the control log.
//!
//! Everything here is a state machine or a plain value. Time, randomness and bytes from outside come in as inputs;
//! what has to happen outside comes out as outputs. It knows nothing of QUIC, Linux or tokio.

pub mod domain;
pub mod ids;
pub mod roles;
pub mod journal;
pub mod time;
pub mod value;
