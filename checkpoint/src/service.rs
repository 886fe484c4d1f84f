//! The checkpoint service of a node: hosts the copies of its groups and the sockets of their applications.
//!
//! Each group has a task of its own that owns its [`GroupCopy`] and its application's socket, so that a write goes from the
//! socket through the machine to [`Host::send`] without another task in between. No task waits for the core loop: everything
//! that goes there is handed to [`Host`], whose calls never wait; everything that comes from there is an order on a queue.
//!
//! A copy lives and dies with its group's task. If one panics its memory is gone, which [`Host::copy_lost`] reports: the node must
//! then begin a new life before it takes part in the group again (protocol 1.1).

mod accept;
mod connection;
mod group;
mod host;
mod local;
mod seats;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sixnines_core::domain::GroupRow;
use sixnines_core::domain::limits::{Limit, Limits};
use sixnines_core::ids::{Epoch, GroupName, Member, NodeId, Version};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::config::CopyConfig;
use crate::copy::Status;
use crate::guard::GuardPage;
pub use accept::StartError;
use group::GroupTask;
pub use host::{AppState, Host};
pub use local::{LocalApp, LocalEvent};
use seats::Seats;

/// What the service needs to know.
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    /// Where applications connect; made with mode 0660, removed at the end. `None`: only in-process applications.
    pub socket: Option<PathBuf>,
    /// What an application of a group must show; groups that are not named ask for nothing.
    pub tokens: BTreeMap<GroupName, String>,
    /// An application that has not been heard for so long hangs. Several times the SDK's beat of 100 ms.
    pub silence: Duration,
    /// An application that is to hand over has so long to write its last. Well below the time after which the role machine gives a
    /// switchover up, or the target has none left to catch up in.
    pub drain: Duration,
    /// So many applications may be connected at once; one more is refused by name, and may ask again.
    pub clients_max: usize,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self { socket: None, tokens: BTreeMap::new(), silence: Duration::from_millis(500), drain: Duration::from_millis(250), clients_max: Limits::default().count(Limit::SdkClients) }
    }
}

/// See the module. Clones are the same service; it ends with [`Self::stop`].
#[derive(Clone, Debug)]
pub struct Service {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: ServiceConfig,
    runtime: Handle,
    host: Arc<dyn Host>,
    guard: GuardPage,
    groups: Mutex<Groups>,
    seats: Arc<Seats>,
    progress: Arc<AtomicU64>,
    tasks: Mutex<Vec<tokio::task::AbortHandle>>,
}

#[derive(Debug, Default)]
struct Groups {
    me: Option<Member>,
    orders: BTreeMap<GroupName, Orders>,
}

/// A group task's queue. Orders are few; frames are counted and left out beyond a bound, since their sender sends them again.
#[derive(Clone, Debug)]
struct Orders {
    queue: mpsc::UnboundedSender<Order>,
    frame_bytes: Arc<AtomicUsize>,
}

/// What a group's task is told.
enum Order {
    Life(Member),
    Row(GroupRow),
    Frame { from: NodeId, bytes: Vec<u8> },
    Reach { member: Member, reachable: bool },
    Prefer(Vec<NodeId>),
    Quiesce { epoch: Epoch, to: Member },
    Resume { epoch: Epoch },
    Relinquish { epoch: Epoch },
    Offer { version: Version },
    App(Box<connection::NewApp>),
    Local(local::Hook),
    LocalInput(local::LocalInput),
    /// Show that the task lives: the last of all tasks to do so lets the service's counter turn.
    Turn(Sign),
    Status(oneshot::Sender<Status>),
}

/// Bytes of frames that wait for a group's task.
const FRAME_BYTES_MAX: usize = 128 << 20;
/// How often the service shows that it makes progress: a third of the daemon's patience.
const PROGRESS_EVERY: Duration = Duration::from_millis(80);

/// Counts as given when it is dropped: by a task that has come to it, or with a task that has ended.
struct Sign(Arc<AtomicUsize>);

impl Drop for Sign {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Asks every group's task for a sign of life, again and again; the counter turns when all have given one.
async fn turn(inner: Arc<Inner>) {
    let mut tick = tokio::time::interval(PROGRESS_EVERY);
    let mut missing = Arc::new(AtomicUsize::new(0));
    loop {
        tick.tick().await;
        if missing.load(Ordering::Relaxed) > 0 {
            continue; // one of them has not come to it yet
        }
        inner.progress.fetch_add(1, Ordering::Relaxed);
        let groups = inner.groups.lock().unwrap_or_else(PoisonError::into_inner);
        missing = Arc::new(AtomicUsize::new(groups.orders.len()));
        for orders in groups.orders.values() {
            send(&orders.queue, Order::Turn(Sign(Arc::clone(&missing))));
        }
    }
}

impl Service {
    /// Starts the service on `runtime`; on a runtime that also runs the network, frames change hands without waking a thread.
    ///
    /// # Errors
    /// The socket cannot be made. Nothing runs.
    pub fn start(config: ServiceConfig, runtime: &Handle, host: Arc<dyn Host>, guard: GuardPage) -> Result<Self, StartError> {
        let listener = config.socket.as_deref().map(accept::listen).transpose()?;
        let inner = Arc::new(Inner {
            seats: Seats::new(config.clients_max),
            config,
            runtime: runtime.clone(),
            host,
            guard,
            groups: Mutex::default(),
            progress: Arc::default(),
            tasks: Mutex::default(),
        });
        let service = Self { inner };
        service.keep(runtime.spawn(turn(Arc::clone(&service.inner))));
        if let Some(listener) = listener {
            let _in_runtime = runtime.enter();
            let listener = accept::into_tokio(listener)?;
            service.keep(runtime.spawn(accept::run(listener, service.clone())));
        }
        Ok(service)
    }

    /// Makes a group known, or does nothing if it is. Its copy begins with the node's life.
    pub fn open(&self, group: &GroupName, config: CopyConfig) {
        let mut groups = self.groups();
        if groups.orders.contains_key(group) {
            return;
        }
        let Some(word) = self.inner.guard.epoch_word() else {
            tracing::error!(%group, "no word of the guard page is left: the group has no service here");
            return;
        };
        let (queue, orders) = mpsc::unbounded_channel();
        let frame_bytes = Arc::new(AtomicUsize::new(0));
        if let Some(me) = groups.me {
            send(&queue, Order::Life(me));
        }
        groups.orders.insert(group.clone(), Orders { queue, frame_bytes: Arc::clone(&frame_bytes) });
        let task = GroupTask::new(group.clone(), config, &self.inner, word, orders, frame_bytes);
        let running = self.inner.runtime.spawn(task.run());
        self.keep_handle(running.abort_handle());
        let (host, group) = (Arc::clone(&self.inner.host), group.clone());
        self.keep(self.inner.runtime.spawn(async move {
            if running.await.is_err_and(|e| e.is_panic()) {
                host.copy_lost(&group);
            }
        }));
    }

    /// The group is no longer of this domain: its copy and its application's connection go.
    pub fn close(&self, group: &GroupName) {
        self.groups().orders.remove(group);
    }

    /// This node's `Joined` entry has been applied: copies begin, empty, in this life. Rows of before are not to be fed.
    pub fn begin_life(&self, me: Member) {
        let mut groups = self.groups();
        groups.me = Some(me);
        groups.orders.values().for_each(|orders| send(&orders.queue, Order::Life(me)));
    }

    /// A group's row, as this node has applied it.
    pub fn row(&self, group: &GroupName, row: GroupRow) {
        self.order(group, Order::Row(row));
    }

    /// A frame of the group's copy on another node. Never waits; a frame too many is dropped, and sent again by its sender.
    pub fn frame(&self, group: &GroupName, from: NodeId, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        let groups = self.groups();
        let Some(orders) = groups.orders.get(group) else { return };
        if orders.frame_bytes.fetch_add(bytes.len(), Ordering::Relaxed) > FRAME_BYTES_MAX {
            orders.frame_bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
            return;
        }
        send(&orders.queue, Order::Frame { from, bytes });
    }

    /// Another node's life can be reached (again), or is dead, mute or cut off.
    pub fn reach(&self, member: Member, reachable: bool) {
        self.groups().orders.values().for_each(|orders| send(&orders.queue, Order::Reach { member, reachable }));
    }

    /// The nodes that shall hold the other copies, the best first. Only an active listens.
    pub fn prefer(&self, group: &GroupName, nodes: Vec<NodeId>) {
        self.order(group, Order::Prefer(nodes));
    }

    /// Has the application finish and the target catch up; answered by [`Host::quiesced`] or [`Host::quiesce_failed`].
    pub fn quiesce(&self, group: &GroupName, epoch: Epoch, to: Member) {
        self.order(group, Order::Quiesce { epoch, to });
    }

    /// Takes writes again. Only as long as nothing has been proposed on the strength of [`Host::quiesced`].
    pub fn resume(&self, group: &GroupName, epoch: Epoch) {
        self.order(group, Order::Resume { epoch });
    }

    /// The application may not speak any more under this epoch, for good: its guard says so before this is answered by
    /// [`Host::silenced`].
    pub fn relinquish(&self, group: &GroupName, epoch: Epoch) {
        self.order(group, Order::Relinquish { epoch });
    }

    /// Fences the local copy and says what it has, for a start in place of the row of that version; answered by [`Host::offered`], unless
    /// the copy knows a newer row.
    pub fn offer(&self, group: &GroupName, version: Version) {
        self.order(group, Order::Offer { version });
    }

    /// An application in this process. `events` is called on the group's task and must not wait. It takes the place of a former one.
    pub fn local(&self, group: &GroupName, events: impl FnMut(LocalEvent) + Send + 'static) -> LocalApp {
        self.order(group, Order::Local(local::Hook(Box::new(events))));
        let queue = self.groups().orders.get(group).map(|o| o.queue.clone());
        LocalApp::new(queue)
    }

    /// How a group's copy is doing; `None` before it has begun.
    pub async fn status(&self, group: &GroupName) -> Option<Status> {
        let (answer, status) = oneshot::channel();
        self.order(group, Order::Status(answer));
        status.await.ok()
    }

    /// Turns at least every 100 ms while every group's task takes its orders.
    pub fn progress(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.inner.progress)
    }

    /// From now on so many applications may be connected; those that are stay.
    pub fn admit_at_most(&self, clients_max: usize) {
        self.inner.seats.bound(clients_max);
    }

    /// How many applications are connected, and how many were refused for want of room since the start.
    pub fn clients(&self) -> (usize, u64) {
        (self.inner.seats.taken(), self.inner.seats.refused())
    }

    /// Where applications connect.
    pub fn socket(&self) -> Option<&Path> {
        self.inner.config.socket.as_deref()
    }

    /// Ends everything: connections close, copies are gone.
    pub fn stop(&self) {
        self.groups().orders.clear();
        let tasks = std::mem::take(&mut *self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.iter().for_each(tokio::task::AbortHandle::abort);
        if let Some(socket) = self.socket()
            && let Err(error) = std::fs::remove_file(socket)
        {
            tracing::debug!(%error, "the service's socket was gone already");
        }
    }

    fn order(&self, group: &GroupName, order: Order) {
        if let Some(orders) = self.groups().orders.get(group) {
            send(&orders.queue, order);
        }
    }

    fn groups(&self) -> std::sync::MutexGuard<'_, Groups> {
        self.inner.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, task: tokio::task::JoinHandle<()>) {
        self.keep_handle(task.abort_handle());
    }

    fn keep_handle(&self, task: tokio::task::AbortHandle) {
        let mut tasks = self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|t| !t.is_finished());
        tasks.push(task);
    }
}

/// A group whose task has ended needs no more orders.
fn send(queue: &mpsc::UnboundedSender<Order>, order: Order) {
    if queue.send(order).is_err() {
        tracing::debug!("an order for a group that has ended");
    }
}
