//! The clock that does not jump, and the scheduling class that does not wait.
#![expect(unsafe_code, reason = "nix has no call for the scheduling class")]

use std::io;

/// Now, on the boot-time clock.
pub(crate) use sixnines_drivers::clock::boot_now as now;

/// Puts the calling thread into the class `SCHED_FIFO`.
///
/// # Errors
/// If the kernel refuses; nothing changed.
pub(crate) fn fifo(priority: i32) -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: priority };
    // SAFETY: 0 is the calling thread, and the kernel only reads the parameter during the call.
    let refused = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameter) };
    if refused == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
