//! Network namespaces held by a descriptor: own networks for tests and for the demo, gone with their last user.
//!
//! Nothing here has a name in `/run/netns`, so nothing is left behind. It works as root and inside a user namespace whose
//! root we are ([`become_root_of_a_user_namespace`] for a child process). A namespace belongs to a *thread*: never change it on a
//! thread that others use, such as a runtime's worker; [`Netns::run`] takes a fresh one each time.
#![expect(unsafe_code, reason = "unshare and setns have no interface in the standard library")]

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use crate::netlink::NetlinkError;
use crate::netlink::route::{Cidr, Route};

/// A network namespace, kept alive by this descriptor.
#[derive(Clone, Debug)]
pub struct Netns {
    fd: Arc<OwnedFd>,
}

impl Netns {
    /// A new, empty namespace with its loopback device on.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_ADMIN` (in the user namespace that one is in).
    pub fn new() -> io::Result<Self> {
        let fd = on_fresh_thread(|| {
            // SAFETY: changes this thread alone, which ends with this closure.
            check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
            let fd = File::open("/proc/thread-self/ns/net")?;
            Route::open().and_then(|mut r| r.set_up("lo", true)).map_err(|e| io::Error::other(e.to_string()))?;
            Ok::<_, io::Error>(OwnedFd::from(fd))
        })?;
        Ok(Self { fd: Arc::new(fd) })
    }

    /// The namespace that the calling thread is in.
    pub fn current() -> io::Result<Self> {
        Ok(Self { fd: Arc::new(File::open("/proc/thread-self/ns/net")?.into()) })
    }

    /// The namespace that a process is in.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        Ok(Self { fd: Arc::new(File::open(format!("/proc/{pid}/ns/net"))?.into()) })
    }

    /// Runs `work` on a fresh thread inside the namespace and waits for it. Sockets opened there stay there.
    ///
    /// # Panics
    /// If `work` panics, or the namespace cannot be entered although it could be opened.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on_fresh_thread(|| {
            self.enter().expect("who holds a namespace's descriptor may enter it");
            work()
        })
    }

    /// As [`Self::run`] with a ready [`Route`].
    pub fn configure<T: Send>(&self, work: impl FnOnce(&mut Route) -> Result<T, NetlinkError> + Send) -> Result<T, NetlinkError> {
        self.run(|| work(&mut Route::open()?))
    }

    /// Moves the calling thread into the namespace, for good.
    pub fn enter(&self) -> io::Result<()> {
        setns(self.fd.as_raw_fd())
    }

    /// Makes `command` start inside the namespace.
    pub fn start_inside(&self, command: &mut Command) {
        let held = self.clone();
        // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
        unsafe { command.pre_exec(move || held.enter()) };
    }

    /// Joins this namespace's new device `name` with `bridge` (a device in `bridge_in`), gives it `addresses`, switches it on.
    ///
    /// The other end of the cable is called `port` in `bridge_in`: switching it off there cuts the link.
    pub fn plug_into(&self, bridge_in: &Self, bridge: &str, port: &str, name: &str, addresses: &[Cidr]) -> Result<(), NetlinkError> {
        bridge_in.configure(|r| {
            r.add_veth(port, name, Some(self.as_fd()))?;
            r.set_master(port, Some(bridge))?;
            r.set_up(port, true)
        })?;
        self.configure(|r| {
            r.set_up(name, true)?;
            addresses.iter().try_for_each(|a| r.add_address(name, *a))
        })
    }

    /// Creates a bridge and switches it on.
    pub fn add_bridge(&self, name: &str) -> Result<(), NetlinkError> {
        self.configure(|r| {
            r.add_bridge(name)?;
            r.set_up(name, true)
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Makes `command` start as root of a user namespace of its own, where it may make network namespaces. For who is not root.
///
/// Only this user and group exist in there. The kernel refuses a process with several threads, hence a child.
pub fn become_root_of_a_user_namespace(command: &mut Command) {
    // SAFETY: both calls only read numbers.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let maps = [
        (c"/proc/self/setgroups", "deny".to_owned()),
        (c"/proc/self/uid_map", format!("0 {uid} 1")),
        (c"/proc/self/gid_map", format!("0 {gid} 1")),
    ];
    let enter = move || {
        // SAFETY: system calls on live arguments; nothing is allocated between fork and exec.
        unsafe {
            check(libc::unshare(libc::CLONE_NEWUSER))?;
            for (path, text) in &maps {
                let fd = check(libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC))?;
                let written = libc::write(fd, text.as_ptr().cast(), text.len());
                libc::close(fd);
                if written < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
        }
        Ok(())
    };
    // SAFETY: see `enter`.
    unsafe { command.pre_exec(enter) };
}

fn on_fresh_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|s| match s.spawn(work).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn setns(fd: i32) -> io::Result<()> {
    // SAFETY: changes the calling thread alone; the caller chose that.
    check(unsafe { libc::setns(fd, libc::CLONE_NEWNET) }).map(drop)
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
