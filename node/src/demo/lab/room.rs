//! One room of the lab: a namespace with the processes in it.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use nix::sys::signal::Signal;
use sixnines_drivers::netns::Netns;

use super::keeper::{Keeper, Mark};

/// The hidden subcommand through which every process of the lab starts.
pub(crate) const EXEC: &str = "demo-exec";

/// A namespace (or, on loopback, only a name) and the processes in it.
pub(crate) struct Room {
    name: &'static str,
    netns: Option<Netns>,
    mark: Mark,
    keeper: Keeper,
}

impl Room {
    pub(super) fn new(name: &'static str, netns: Option<Netns>, keeper: &Keeper) -> anyhow::Result<Self> {
        let inode = match &netns {
            None => None,
            Some(netns) => {
                let file = File::from(std::os::fd::AsFd::as_fd(netns).try_clone_to_owned().context("holding a namespace")?);
                Some(file.metadata().context("looking at a namespace")?.ino())
            }
        };
        let mark = keeper.mark(name, inode);
        Ok(Self { name, netns, mark, keeper: keeper.clone() })
    }

    /// The room's name.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// The room's namespace.
    ///
    /// # Errors
    /// On loopback there is none.
    pub(crate) fn netns(&self) -> anyhow::Result<&Netns> {
        self.netns.as_ref().context("on loopback there are no namespaces")
    }

    /// The room's log: what its processes print.
    pub(crate) fn log(&self) -> PathBuf {
        self.keeper.directory().join(format!("{}.log", self.name))
    }

    /// A command that will run this program's subcommand or another program in this room, and die with this process.
    ///
    /// Start it on the main thread: the kernel ends it when the *thread* ends that started it.
    pub(crate) fn command(&self, program: impl Into<OsString>) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.arg(EXEC).arg(std::process::id().to_string()).arg("--").arg(program.into());
        command.process_group(0); // Ctrl-C is for the demo alone, which then ends everything in its order.
        command.stdin(Stdio::null());
        self.mark.set_on(&mut command);
        if let Some(netns) = &self.netns {
            netns.start_inside(&mut command);
        }
        command
    }

    /// Starts `arguments` (the first is the program) in this room, output to the room's log.
    ///
    /// # Errors
    /// If it cannot be started. A program that does not exist shows in the log, and its process ends with code 127.
    pub(crate) fn start(&self, arguments: &[OsString]) -> anyhow::Result<u32> {
        self.start_with(arguments, None)
    }

    /// The same with one more variable in the environment.
    pub(crate) fn start_with(&self, arguments: &[OsString], variable: Option<(&str, &str)>) -> anyhow::Result<u32> {
        let [program, arguments @ ..] = arguments else { anyhow::bail!("nothing to start in {}", self.name) };
        let mut log = File::options().create(true).append(true).open(self.log()).context("opening a log")?;
        writeln!(log, "--- {}", program.to_string_lossy()).context("writing to a log")?;
        let mut command = self.command(program);
        command.envs(variable);
        command.args(arguments).stdout(log.try_clone().context("opening a log")?).stderr(log);
        self.spawn(command).map(|child| {
            let pid = child.id();
            self.keeper.keep(child);
            pid
        })
    }

    /// Starts what [`Self::command`] made; the caller keeps the child and waits for it.
    pub(crate) fn spawn(&self, mut command: Command) -> anyhow::Result<Child> {
        command.spawn().with_context(|| format!("starting a process in {}", self.name))
    }

    /// The processes in this room that run or are stopped, oldest first.
    pub(crate) fn processes(&self) -> Vec<i32> {
        self.mark.processes()
    }

    /// The newest process in this room that has `word` among its arguments.
    pub(crate) fn find(&self, word: &str) -> Option<i32> {
        let bears = |pid: &i32| {
            let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            arguments.split(|b| *b == 0).any(|argument| argument == word.as_bytes())
        };
        self.processes().into_iter().rev().find(bears)
    }

    /// Sends a signal to every process in this room; for SIGKILL and SIGSTOP until it has hit them all.
    ///
    /// Parents first: a daemon that saw its application die would still do something about it, and a dead node does nothing.
    pub(crate) fn signal(&self, signal: Signal) -> usize {
        self.mark.signal(signal)
    }
}
