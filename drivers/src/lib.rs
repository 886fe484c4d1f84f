//! Drivers: the only code that talks to hardware, the operating system or a service.

pub mod driver;
