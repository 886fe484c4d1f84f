//! Service units as child processes: started, watched, stopped.
//!
//! A unit has a process group of its own, and the kernel kills it when this process dies: it is the *thread* that started a child whose
//! end counts there, so all are started by one thread that lives as long as the process ([`starter`](self::starter)). Its end is seen by a
//! pidfd, at once and without polling. What it prints goes into the log line by line, and the last lines are kept.
//!
//! Not covered: the parent-death signal reaches the unit itself, not processes that it has started, and it is cleared when a unit changes
//! its user by a set-uid program. A unit that starts others should end them when its own parent goes.

mod backoff;
mod exit;
mod output;
mod starter;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

pub use backoff::Backoff;
pub use exit::{ExitHow, ExitInfo};
pub use output::OutputTail;

use crate::clock::boot_now;
use self::starter::Group;
use crate::readiness::watched;

/// What to start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitSpec {
    /// For people and logs, such as `calls`.
    pub name: String,
    /// The program: a path, or a name that is looked up in `PATH`.
    pub command: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Set in addition to what this process has.
    pub environment: BTreeMap<String, OsString>,
    /// Where it starts; this process's directory if `None`.
    pub directory: Option<PathBuf>,
}

/// Why a unit did not start. No process is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The operator's: no such program.
    #[error("{unit}: there is no program {command:?}{}", path.as_ref().map(|p| format!(" in {p}")).unwrap_or_default())]
    NotFound {
        /// The unit.
        unit: String,
        /// What it should run.
        command: String,
        /// Where it was looked for, if the command is a bare name.
        path: Option<String>,
    },
    /// The operator's: the directory to start in is not there.
    #[error("{unit}: there is no directory {directory}")]
    NoDirectory {
        /// The unit.
        unit: String,
        /// Where it should start.
        directory: PathBuf,
    },
    /// The operator's: it is there but is no program that we may run.
    #[error("{unit}: {command:?} cannot be executed")]
    NotExecutable {
        /// The unit.
        unit: String,
        /// What it should run.
        command: String,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The machine's: no memory, no process left.
    #[error("{unit}: could not start {command:?}")]
    Start {
        /// The unit.
        unit: String,
        /// What it should run.
        command: String,
        /// The reason.
        #[source]
        source: io::Error,
    },
}

/// A running or ended unit. Its end is the end of its whole process group; so is dropping this value.
#[derive(Debug)]
pub struct Unit {
    name: Arc<str>,
    pid: u32,
    group: Arc<Group>,
    exit: watch::Receiver<Option<ExitInfo>>,
    output: OutputTail,
    /// Reads the output; ends with this value.
    _readers: JoinSet<()>,
}

impl Unit {
    /// Starts a unit. Within a tokio runtime, which has to go on running for the unit to be watched.
    pub async fn start(spec: UnitSpec) -> Result<Self, StartError> {
        let name: Arc<str> = spec.name.as_str().into();
        let started = boot_now();
        let child = starter::start(spec).await?;
        let output = OutputTail::default();
        let mut readers = JoinSet::new();
        for (stream, pipe) in [("stdout", child.stdout), ("stderr", child.stderr)] {
            readers.spawn(output::read(Arc::clone(&name), stream, pipe, output.clone()));
        }
        let (tell, exit) = watch::channel(None);
        let pid = child.pid;
        let group = Arc::new(Group::new(pid));
        let reaped = Arc::clone(&group);
        tokio::spawn(async move {
            let how = reap(child.pidfd, &reaped).await;
            tell.send_replace(Some(ExitInfo { pid, how, ran_for: boot_now().since(started) }));
        });
        tracing::info!(unit = %name, pid, "unit started");
        Ok(Self { name, pid, group, exit, output, _readers: readers })
    }

    /// Waits for the unit's end; returns at once, the same, if it has ended. Cancel safe.
    pub async fn exited(&self) -> ExitInfo {
        let mut exit = self.exit.clone();
        let ended = exit.wait_for(Option::is_some).await.ok().and_then(|info| info.clone());
        match ended {
            Some(info) => info,
            // The runtime is shutting down and took the watching task first.
            None => std::future::pending().await,
        }
    }

    /// The unit's end, if it has come.
    pub fn has_exited(&self) -> Option<ExitInfo> {
        self.exit.borrow().clone()
    }

    /// Its process id, which is its process group's too.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Kills the process group, at once and without a chance to do anything.
    pub fn kill(&self) {
        self.signal(libc::SIGKILL);
    }

    /// Asks it to end (`SIGTERM` to the group), kills it after `grace`, and waits for its end. Cancelled, it may still be ending.
    pub async fn stop(&self, grace: Duration) -> ExitInfo {
        self.signal(libc::SIGTERM);
        if let Ok(info) = tokio::time::timeout(grace, self.exited()).await {
            return info;
        }
        tracing::warn!(unit = %self.name, pid = self.pid, ?grace, "unit did not end when asked, killed");
        self.kill();
        self.exited().await
    }

    /// Sends a signal to the process group; nothing once the unit has ended.
    pub fn signal(&self, signal: i32) {
        self.group.signal(signal);
    }

    /// The last lines that it printed.
    pub fn output_tail(&self) -> &OutputTail {
        &self.output
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn reap(pidfd: OwnedFd, group: &Group) -> ExitHow {
    let failed = |e: io::Error| {
        tracing::error!(error = %e, "a unit cannot be watched");
        ExitHow::Unknown
    };
    let watched = match watched(pidfd) {
        Ok(watched) => watched,
        Err(e) => return failed(e),
    };
    loop {
        match watched.readable().await {
            Err(e) => return failed(e),
            Ok(mut guard) => match group.try_reap(watched.get_ref()) {
                Ok(Some(how)) => return how,
                Ok(None) => guard.clear_ready(),
                Err(e) => return failed(e),
            },
        }
    }
}
