//! The one thread that starts units, and the system calls around a unit's life.
#![expect(unsafe_code, reason = "pidfd, prctl and process groups have no interface in the standard library")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError, mpsc};

use tokio::sync::oneshot;

use super::{ExitHow, StartError, UnitSpec};

/// A unit that has just been started.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

struct Job {
    spec: UnitSpec,
    answer: oneshot::Sender<Result<Started, StartError>>,
}

/// The thread ends with the process: never before, or the kernel would kill all units.
static THREAD: LazyLock<io::Result<mpsc::Sender<Job>>> = LazyLock::new(|| {
    let (jobs, queue) = mpsc::channel::<Job>();
    let serve = move || {
        for job in queue {
            if let Err(Ok(unwanted)) = job.answer.send(start_here(&job.spec)) {
                signal_group(unwanted.pid, libc::SIGKILL);
                if let Err(error) = wait(&unwanted.pidfd, libc::WEXITED) {
                    tracing::error!(pid = unwanted.pid, %error, "a unit that nobody waited for cannot be reaped");
                }
            }
        }
    };
    std::thread::Builder::new().name("unit-starter".into()).spawn(serve)?;
    Ok(jobs)
});

/// Starts a unit on the thread.
pub(crate) async fn start(spec: UnitSpec) -> Result<Started, StartError> {
    let failed = |source| StartError::Start { unit: spec.name.clone(), command: spec.command.clone(), source };
    let gone = || io::Error::other("the thread that starts units is gone");
    let jobs = THREAD.as_ref().map_err(|e| failed(io::Error::new(e.kind(), e.to_string())))?;
    let (answer, answered) = oneshot::channel();
    jobs.send(Job { spec: spec.clone(), answer }).map_err(|_| failed(gone()))?;
    answered.await.map_err(|_| failed(gone()))?
}

fn start_here(spec: &UnitSpec) -> Result<Started, StartError> {
    let mut command = Command::new(&spec.command);
    command.args(&spec.arguments).envs(&spec.environment);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    if let Some(directory) = &spec.directory {
        command.current_dir(directory);
    }
    let parent = std::process::id();
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(move || die_with_parent(parent)) };
    let mut child = command.spawn().map_err(|e| explain(spec, e))?;
    match watch(&mut child) {
        Ok(started) => Ok(started),
        Err(source) => {
            // Without a watch nobody would notice its end. Its own child: it cannot be gone before it is waited for.
            child.kill().and_then(|()| child.wait()).map_err(|e| explain(spec, e))?;
            Err(explain(spec, source))
        }
    }
}

fn die_with_parent(parent: u32) -> io::Result<()> {
    // SAFETY: two system calls on plain numbers.
    unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0 {
            return Err(io::Error::last_os_error());
        }
        // The parent may have died before the kernel knew of our wish.
        if libc::getppid().cast_unsigned() != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
    }
    Ok(())
}

fn watch(child: &mut Child) -> io::Result<Started> {
    // SAFETY: our own child, not yet waited for, so the number is its own; the result is checked before it is owned.
    let pidfd = unsafe {
        let raw = libc::syscall(libc::SYS_pidfd_open, child.id(), libc::PIDFD_NONBLOCK);
        match i32::try_from(raw) {
            Ok(fd) if fd >= 0 => OwnedFd::from_raw_fd(fd),
            _ => return Err(io::Error::last_os_error()),
        }
    };
    let missing = || io::Error::other("a pipe is missing");
    Ok(Started {
        pid: child.id(),
        pidfd,
        stdout: child.stdout.take().ok_or_else(missing)?.into(),
        stderr: child.stderr.take().ok_or_else(missing)?.into(),
    })
}

fn explain(spec: &UnitSpec, source: io::Error) -> StartError {
    let (unit, command) = (spec.name.clone(), spec.command.clone());
    let missing_directory = spec.directory.as_ref().filter(|d| !d.is_dir());
    match (source.raw_os_error(), missing_directory) {
        (Some(libc::ENOENT | libc::ENOTDIR), Some(directory)) => StartError::NoDirectory { unit, directory: directory.clone() },
        (Some(libc::ENOENT), None) => {
            let path = if command.contains('/') { None } else { std::env::var("PATH").ok() };
            StartError::NotFound { unit, command, path }
        }
        (Some(libc::EACCES | libc::ENOEXEC | libc::EISDIR | libc::ENOTDIR), _) => StartError::NotExecutable { unit, command, source },
        _ => StartError::Start { unit, command, source },
    }
}

/// A process group that may be signalled as long as its first process has not been reaped: until then its number is nobody else's.
#[derive(Debug)]
pub(crate) struct Group {
    id: u32,
    is_reaped: Mutex<bool>,
}

impl Group {
    pub(crate) fn new(id: u32) -> Self {
        Self { id, is_reaped: Mutex::new(false) }
    }

    /// Sends a signal to everyone in the group; nothing happens once the unit has ended.
    pub(crate) fn signal(&self, signal: i32) {
        let is_reaped = self.is_reaped.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_reaped {
            signal_group(self.id, signal);
        }
    }

    /// If the first process has ended: kills those that it leaves behind, then takes the kernel's word on how it ended.
    pub(crate) fn try_reap(&self, pidfd: &OwnedFd) -> io::Result<Option<ExitHow>> {
        let mut is_reaped = self.is_reaped.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = try_wait(pidfd, libc::WNOWAIT)?;
        if ended.is_some() {
            signal_group(self.id, libc::SIGKILL);
            *is_reaped = true;
            try_wait(pidfd, 0)?;
        }
        Ok(ended)
    }
}

fn try_wait(pidfd: &OwnedFd, how: i32) -> io::Result<Option<ExitHow>> {
    match wait(pidfd, libc::WEXITED | libc::WNOHANG | how) {
        Err(e) if e.raw_os_error() == Some(libc::ECHILD) => Ok(Some(ExitHow::Unknown)),
        Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => Ok(None),
        other => other,
    }
}

fn wait(pidfd: &OwnedFd, options: i32) -> io::Result<Option<ExitHow>> {
    let id = libc::id_t::try_from(pidfd.as_raw_fd()).expect("a descriptor is not negative");
    // SAFETY: all-zero is a valid siginfo_t, filled by the call; its fields are read only if the call succeeded.
    let (pid, code, status) = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        if libc::waitid(libc::P_PIDFD, id, &raw mut info, options) < 0 {
            return Err(io::Error::last_os_error());
        }
        (info.si_pid(), info.si_code, info.si_status())
    };
    Ok(match code {
        _ if pid == 0 => None,
        libc::CLD_EXITED => Some(ExitHow::Status(status)),
        code => Some(ExitHow::Signal { number: status, dumped: code == libc::CLD_DUMPED }),
    })
}

/// Sends a signal to a process group. Nobody in it any more is fine.
fn signal_group(group: u32, signal: i32) {
    let Some(group) = i32::try_from(group).ok().filter(|g| *g > 1) else { return };
    // SAFETY: plain system call; a group above 1 is never "everyone".
    if unsafe { libc::kill(-group, signal) } < 0 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ESRCH) {
            tracing::warn!(group, signal, %error, "a unit could not be signalled");
        }
    }
}
