//! Drivers: the only code that talks to hardware, the operating system or a service.

pub mod address;
pub mod clock;
pub mod driver;
pub mod gate;
pub mod host;
pub mod netlink;
pub mod netns;
pub mod process;
mod readiness;
pub mod realtime;
pub mod throttle;
pub mod testing;
