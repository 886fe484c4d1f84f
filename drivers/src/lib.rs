//! Drivers: the only code that talks to hardware, the operating system or a service.

pub mod address;
pub mod clock;
pub mod driver;
pub mod gate;
pub mod netlink;
pub mod netns;
mod readiness;
pub mod realtime;
pub mod testing;
