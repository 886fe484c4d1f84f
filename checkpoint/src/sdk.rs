//! What an application links: roles, sections, and a guard that tells whether it may speak.
//!
//! ```no_run
//! use sixnines_checkpoint::{App, AppRole, Replication};
//!
//! let app = App::connect()?; // the node's socket and the group's name, from the environment
//! let calls = app.open("calls", Replication::default())?;
//! while let Some(role) = app.next_role() {
//!     match role {
//!         AppRole::Active(term) => drop(calls.put(&term, "id-1", "ringing")?.commit_then(|_| println!("reply: it rings"))),
//!         AppRole::Standby => calls.follow(|change| println!("{change:?}")),
//!         AppRole::Quiescing => app.drained(),
//!         AppRole::Lost => {} // the node is away; no role until it is back
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! One thread of the SDK reads the socket, runs the closures of [`Pending::commit_then`] and beats for the application. Nothing
//! here needs an async runtime. The application's memory of the sections (the *mirror*) is what [`Checkpoint::get`] reads.

mod checkpoint;
mod core;
mod error;
mod link;
mod mirror;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sixnines_core::ids::{Epoch, GroupName};

use crate::guard::GuardView;
use crate::outcome::Level;
use crate::protocol::ToService;
pub use checkpoint::{Batch, Changed, Checkpoint, Pending, Reading};
use core::Shared;
pub use error::{Applied, ConnectError, Protection, ReadError, WriteError};

/// The environment variables that a node sets for its applications.
pub(crate) const SOCKET_VARIABLE: &str = "NINES_SOCKET";
pub(crate) const GROUP_VARIABLE: &str = "NINES_SERVICE";
pub(crate) const TOKEN_VARIABLE: &str = "NINES_TOKEN";

/// How a checkpoint's writes are replicated, unless a write says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replication {
    /// When a write counts as done. By default when every copy of the in-sync set holds it, with the group's own floor.
    pub level: Level,
}

/// An application's connection to its node. Dropped, it is closed.
#[derive(Debug)]
pub struct App {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// What the application is to be.
#[derive(Clone, Debug)]
pub enum Role {
    /// It serves. The term is what it may write and speak with.
    Active(Term),
    /// It follows, and is ready to take over.
    Standby,
    /// It is to hand over: write the last, then [`App::drained`].
    Quiescing,
    /// The node's service is away. The lease counts as lost; what was not answered is unknown.
    Lost,
}

/// The right to be active under one epoch. It is no longer good for anything once that has ended.
#[derive(Clone, Debug)]
pub struct Term {
    epoch: Epoch,
    lost: bool,
    guard: GuardView,
    connected: Arc<AtomicBool>,
}

impl App {
    /// Connects to the node that has started this process.
    ///
    /// # Errors
    /// [`ConnectError`] says what is missing or who has refused. Nothing is left behind.
    pub fn connect() -> Result<Self, ConnectError> {
        let variable = |name| std::env::var(name).map_err(|_| ConnectError::Environment { variable: name });
        let token = std::env::var(TOKEN_VARIABLE).unwrap_or_default();
        let path = PathBuf::from(variable(SOCKET_VARIABLE)?);
        Self::connect_with(&path, &GroupName::new(variable(GROUP_VARIABLE)?), &token)
    }

    /// Connects to a node's socket for a group.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn connect_to(path: impl AsRef<Path>, group: &str) -> Result<Self, ConnectError> {
        Self::connect_with(path.as_ref(), &GroupName::new(group), "")
    }

    fn connect_with(path: &Path, group: &GroupName, token: &str) -> Result<Self, ConnectError> {
        let target = link::Target { path: path.to_owned(), group: group.clone(), token: token.to_owned() };
        let shared = Arc::new(Shared::default());
        let link = link::Link::connect_patiently(&target, &shared, CONNECT_WITHIN)?;
        let thread = link::start(link, target, Arc::clone(&shared)).map_err(ConnectError::Thread)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// A named checkpoint of the group; any number of names may be used.
    ///
    /// # Errors
    /// [`ConnectError::Name`] if the name is empty, longer than 64 bytes, or has a zero byte in it.
    pub fn open(&self, name: &str, replication: Replication) -> Result<Checkpoint, ConnectError> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
            return Err(ConnectError::Name { name: name.to_owned() });
        }
        Ok(Checkpoint::new(Arc::clone(&self.shared), name, replication))
    }

    /// The next change of role; waits for it. `None` once the application is closed.
    pub fn next_role(&self) -> Option<Role> {
        self.shared.next_role(None)
    }

    /// As [`Self::next_role`], but waits no longer than `within`; then also `None`.
    pub fn next_role_within(&self, within: Duration) -> Option<Role> {
        self.shared.next_role(Some(within))
    }

    /// The last write under the term that is being handed over has been made.
    pub fn drained(&self) {
        let mut core = self.shared.lock();
        if let Some(epoch) = core.quiescing() {
            core.send(&ToService::Drained { epoch });
            core.flush();
        }
    }

    /// From now on the node is told that this process hangs unless [`Self::alive`] is called at least this often. Without it the
    /// node notices only that the whole process stands still.
    pub fn watch(&self, every: Duration) {
        self.shared.watch(every);
    }

    /// The application makes progress.
    pub fn alive(&self) {
        self.shared.alive();
    }

    /// Acknowledged writes that would be lost if the active's node died now; on a standby always zero.
    pub fn loss_window(&self) -> u64 {
        self.shared.lock().loss_window
    }

    /// How many closures of [`Pending::commit_then`] were dropped because it is not known what became of their writes.
    pub fn unknown_outcomes(&self) -> u64 {
        self.shared.lock().unknown
    }

    /// Ends the connection. What was not answered is unknown.
    pub fn close(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.shared.close();
        let Some(thread) = self.thread.take() else { return };
        // A closure that drops the application runs on the very thread that would be waited for.
        if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
            tracing::error!("the checkpoint thread had panicked");
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.end();
    }
}

impl Term {
    /// The epoch: grows with each change of the active.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether every copy of the state was lost before, so that the sections are empty.
    pub fn state_was_lost(&self) -> bool {
        self.lost
    }

    /// Whether this process may speak, now: the epoch is in force, the lease valid and the node's service there. Takes nanoseconds.
    pub fn guard(&self) -> bool {
        self.connected.load(Ordering::Acquire) && self.guard.permits(self.epoch)
    }
}

/// A node that is just starting is waited for so long.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const NAME_BYTES_MAX: usize = 64;
