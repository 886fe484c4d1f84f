//! Simulated hardware, driven by the same driver trait as real hardware, and whole simulated domains.
//!
//! [`chassis`] is a shelf with physics: heat, airflow, power, hot swap, and a catalogue of faults. Its heart is a machine without
//! clock or sockets; around it stand a process shell (`server`) and the driver that a node runs (`driver`). [`domain`] runs a
//! domain's own machines in virtual time from one seed. [`scenario`] plays what a user wrote: faults, commands, and what has to come of
//! them.

pub mod chassis;
pub mod domain;
pub mod scenario;
