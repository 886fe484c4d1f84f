//! The distributed event bus and the control plane of sixnines: how nodes know of each other, agree, and exchange events.
//!
//! The machines ([`liveness`], …) are pure: no socket, no clock, no thread. Feature `shell` adds what moves their bytes.

#[cfg(feature = "shell")]
pub mod door;
pub mod feed;
pub mod liveness;
pub mod log;
#[cfg(feature = "shell")]
pub mod mesh;
#[cfg(feature = "shell")]
pub mod pki;
pub mod serial;
pub mod session;
#[cfg(test)]
mod versions;
pub mod wire;
