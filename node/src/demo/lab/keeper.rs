//! Knows everything that was started, and ends it: at the end, on a panic, on a signal.
//!
//! A process belongs to a room if it is in the room's network namespace, or, where there are none, if it bears the room's
//! mark in its environment or descends from one that does. Its children are found that way as well, whatever they did
//! to their process group. If this process is killed outright, the kernel kills what it started ([`run_wrapped`]).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

/// The environment variable that marks what runs in a room.
const ROOM: &str = "SIXNINES_DEMO_ROOM";
/// How long ended processes may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// A signal goes around so often at most: a process that forks faster than we kill is not one of ours.
const ROUNDS_MAX: usize = 200;

/// Shared by the lab, its rooms and the thread that waits for signals.
#[derive(Clone)]
pub(crate) struct Keeper {
    inner: Arc<Inner>,
}

struct Inner {
    directory: PathBuf,
    keep_directory: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    children: Vec<Child>,
    rooms: Vec<Mark>,
    /// A world ends once.
    ended: bool,
}

impl Keeper {
    pub(super) fn new(directory: Option<&Path>) -> anyhow::Result<Self> {
        let directory = match directory {
            Some(directory) => {
                fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
                directory.canonicalize().with_context(|| format!("making {}", directory.display()))?
            }
            None => fresh_directory()?,
        };
        let inner = Inner { directory, keep_directory: AtomicBool::new(false), state: Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Where everything is written.
    pub(crate) fn directory(&self) -> &Path {
        &self.inner.directory
    }

    /// Leaves the directory behind at the end, for who wants to read the logs.
    pub(crate) fn keep_directory(&self) {
        self.inner.keep_directory.store(true, Ordering::Relaxed);
    }

    /// From now on SIGINT, SIGTERM and SIGHUP end the world and then this process. Call it while there is one thread only.
    ///
    /// # Errors
    /// If the kernel refuses the mask or the thread.
    pub(crate) fn end_on_signals(&self) -> anyhow::Result<()> {
        let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
        signals.thread_block().context("blocking signals")?;
        let keeper = self.clone();
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                let signal = signals.wait().unwrap_or(Signal::SIGTERM);
                keeper.end();
                std::process::exit(128 + signal as i32);
            })
            .context("starting the thread that waits for signals")?;
        Ok(())
    }

    pub(super) fn keep(&self, child: Child) {
        self.state().children.push(child);
    }

    pub(super) fn mark(&self, name: &str, namespace: Option<u64>) -> Mark {
        let mark = Mark { text: format!("{}:{}", self.inner.directory.display(), name), namespace };
        self.state().rooms.push(mark.clone());
        mark
    }

    /// Ends every process of the world, newest room first, and removes its directory. Once; later calls do nothing.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        if std::mem::replace(&mut state.ended, true) {
            return;
        }
        for room in state.rooms.iter().rev() {
            room.signal(Signal::SIGKILL);
        }
        for child in &mut state.children {
            // Killed above, or long gone; either way the kernel has an answer for us.
            if let Err(error) = child.kill().and_then(|()| child.wait()) {
                tracing::debug!(%error, "a process of the lab could not be waited for");
            }
        }
        if !self.inner.keep_directory.load(Ordering::Relaxed)
            && let Err(error) = fs::remove_dir_all(&self.inner.directory)
        {
            tracing::warn!(%error, directory = %self.inner.directory.display(), "left behind");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for children that have ended, so that they do not stay as zombies.
    pub(crate) fn reap(&self) {
        self.state().children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let ended = self.state.get_mut().unwrap_or_else(PoisonError::into_inner).ended;
        debug_assert!(ended || std::thread::panicking(), "the lab ends its world before it goes");
    }
}

impl Drop for super::Lab {
    fn drop(&mut self) {
        self.keeper.end();
    }
}

/// Tells which processes belong to a room.
#[derive(Clone)]
pub(super) struct Mark {
    text: String,
    namespace: Option<u64>,
}

impl Mark {
    pub(super) fn set_on(&self, command: &mut Command) {
        command.env(ROOM, &self.text);
    }

    /// Oldest first. Those that are dead and not yet waited for are not among them.
    pub(super) fn processes(&self) -> Vec<i32> {
        let all: Vec<i32> = fs::read_dir("/proc")
            .map(|entries| entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect())
            .unwrap_or_default();
        let mut found: Vec<i32> = match self.namespace {
            Some(inode) => all.into_iter().filter(|pid| namespace_of(*pid) == Some(inode)).collect(),
            None => self.marked(&all),
        };
        found.retain(|pid| is_alive(*pid));
        found.sort_unstable_by_key(|pid| (started_at(*pid), *pid));
        found
    }

    fn marked(&self, all: &[i32]) -> Vec<i32> {
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        let needle = format!("{ROOM}={}", self.text);
        let bears = |pid: &i32| {
            fs::read(format!("/proc/{pid}/environ")).is_ok_and(|e| e.split(|b| *b == 0).any(|variable| variable == needle.as_bytes()))
        };
        let parents: BTreeMap<i32, i32> = all.iter().filter_map(|pid| Some((*pid, parent_of(*pid)?))).collect();
        let mut found: BTreeSet<i32> = all.iter().copied().filter(|pid| *pid != own).filter(bears).collect();
        loop {
            let more: Vec<i32> =
                parents.iter().filter(|(pid, parent)| found.contains(parent) && !found.contains(pid)).map(|(pid, _)| *pid).collect();
            if more.is_empty() {
                return found.into_iter().collect();
            }
            found.extend(more);
        }
    }

    pub(super) fn signal(&self, signal: Signal) -> usize {
        let mut hit = BTreeSet::new();
        let deadline = Instant::now() + GONE_WITHIN;
        for _ in 0..ROUNDS_MAX {
            let mut news = false;
            let present = self.processes();
            for pid in &present {
                news |= hit.insert(*pid);
                if let Err(error) = kill(Pid::from_raw(*pid), signal) {
                    tracing::debug!(%error, pid, "already gone");
                }
            }
            let done = match signal {
                Signal::SIGKILL => present.is_empty(),
                Signal::SIGSTOP => !news && present.iter().all(|pid| state_of(*pid) == Some('T')),
                _ => true,
            };
            if done || Instant::now() > deadline {
                break;
            }
            std::thread::yield_now();
        }
        hit.len()
    }
}

fn namespace_of(pid: i32) -> Option<u64> {
    fs::metadata(format!("/proc/{pid}/ns/net")).ok().map(|m| m.ino())
}

/// The fields of `/proc/PID/stat` behind the name, which may hold anything: state, parent, ... (proc(5), from field 3).
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text[text.rfind(')')? + 1..].split_whitespace().map(str::to_owned).collect())
}

fn state_of(pid: i32) -> Option<char> {
    stat(pid)?.first()?.chars().next()
}

fn is_alive(pid: i32) -> bool {
    !matches!(state_of(pid), None | Some('Z' | 'X'))
}

fn parent_of(pid: i32) -> Option<i32> {
    stat(pid)?.get(1)?.parse().ok()
}

fn started_at(pid: i32) -> u64 {
    stat(pid).and_then(|fields| fields.get(19)?.parse().ok()).unwrap_or(0)
}

fn fresh_directory() -> anyhow::Result<PathBuf> {
    let base = std::env::temp_dir();
    for attempt in 0..1000 {
        let path = base.join(format!("sixnines-demo-{}-{attempt}", std::process::id()));
        match fs::DirBuilder::new().create(&path) {
            Ok(()) => return path.canonicalize().with_context(|| format!("making {}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("making a directory in {}", base.display())),
        }
    }
    anyhow::bail!("{} is full of old demos: remove sixnines-demo-*", base.display())
}

/// The hidden subcommand `demo-exec`: asks the kernel to end this process with its parent, opens the ears that the lab
/// closed, and becomes `command`. Returns only if it could not.
pub(crate) fn run_wrapped(parent: u32, command: &[OsString]) -> anyhow::Error {
    let [program, arguments @ ..] = command else { return anyhow::anyhow!("nothing to execute") };
    let prepared = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
        .context("asking to die with the lab")
        .and_then(|()| SigSet::empty().thread_set_mask().context("opening signals"));
    if let Err(error) = prepared {
        return error;
    }
    // The parent may have died before the request: then nobody would ever end us.
    if u32::try_from(nix::unistd::getppid().as_raw()) != Ok(parent) {
        return anyhow::anyhow!("the lab that started this is gone");
    }
    let error = Command::new(program).args(arguments).exec();
    anyhow::Error::from(error).context(format!("executing {}", program.to_string_lossy()))
}
