//! The heart of sixnines, without I/O: managed objects, events, alarms, policies, and the rows of the control log.
//!
//! Everything here is a state machine or a plain value. Time, randomness and bytes from outside come in as inputs;
//! what has to happen outside comes out as outputs. It knows nothing of QUIC, Linux or tokio.

pub mod abroad;
pub mod alarms;
pub mod authority;
pub mod bundle;
pub mod class;
pub mod config;
pub mod diagnostic;
pub mod domain;
pub mod engine;
pub mod event;
pub mod feed;
pub mod history;
pub mod ids;
pub mod journal;
pub mod objects;
pub mod policy;
pub mod roles;
pub mod time;
pub mod value;
pub mod world;
