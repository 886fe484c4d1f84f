//! What the application's threads and the SDK's own share.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use sixnines_core::ids::Epoch;

use super::checkpoint::Feed;
use super::error::{Applied, ReadError, WriteError};
use super::mirror::Mirror;
use super::{Role, Term};
use crate::bytes::Bytes;
use crate::clock::boot_now;
use crate::guard::GuardView;
use crate::outcome::{Answer, Doubt, Level, Limit, Refusal};
use crate::protocol::{AppRole, ToApp, ToService, encode};
use crate::state::{Op, RequestId, Section};

/// Runs when it is known what became of a write.
pub(super) type Then = Box<dyn FnOnce(Result<Applied, WriteError>) + Send>;

#[derive(Default)]
pub(super) struct Shared {
    core: Mutex<Core>,
    pub(super) changed: Condvar,
    closed: AtomicBool,
    /// The thread that takes answers: it must never wait for one.
    pub(super) thread: OnceLock<ThreadId>,
    /// The application must be heard this often, in nanoseconds; 0: it need not.
    watch: AtomicU64,
    heard: AtomicU64,
}

#[derive(Default)]
pub(super) struct Core {
    stream: Option<Arc<UnixStream>>,
    /// False once the connection that terms were given on has ended.
    connected: Arc<AtomicBool>,
    guard: Option<GuardView>,
    out: Vec<u8>,
    written: usize,
    flushed: Option<Instant>,
    pub(super) mirror: Mirror,
    writes: VecDeque<Slot>,
    /// Slots that wait for their answer.
    unanswered: usize,
    /// The ticket of the first slot; tickets count from 1.
    first: u64,
    reads: BTreeMap<u64, Option<ReadResult>>,
    read_tickets: u64,
    role: Option<AppRole>,
    roles: VecDeque<Role>,
    /// Closures whose writes are done and which wait for the lease.
    waiting_for_lease: VecDeque<(Epoch, Applied, Then)>,
    pub(super) feeds: BTreeMap<u64, Feed>,
    pub(super) loss_window: u64,
    pub(super) unknown: u64,
}

type ReadResult = Result<(Option<Section>, bool), ReadError>;

struct Slot {
    epoch: Epoch,
    state: SlotState,
}

enum SlotState {
    /// Not answered; somebody holds the [`super::Pending`].
    Waiting,
    /// Not answered; this is to run then.
    Then(Then),
    /// Answered; somebody holds the [`super::Pending`].
    Done(Result<Applied, WriteError>),
    /// Nobody asks.
    Forgotten { answered: bool },
}

/// Writes in flight; further ones wait for the first to be answered.
const IN_FLIGHT_MAX: usize = 1 << 15;
/// Bytes that wait for the socket; further writes wait too.
const OUT_BYTES_MAX: usize = 4 << 20;
/// So many bytes are worth a write of their own.
const FLUSH_BYTES: usize = 32 << 10;
/// While writes are in flight, further ones wait so long for company, or for the next answer.
const FLUSH_AFTER: Duration = Duration::from_micros(100);

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let core = self.lock();
        core.connected.store(false, Ordering::Release);
        if let Some(stream) = &core.stream
            && let Err(error) = stream.shutdown(std::net::Shutdown::Both)
        {
            tracing::debug!(%error, "the checkpoint socket was closed already");
        }
        self.changed.notify_all();
    }

    pub(super) fn watch(&self, every: Duration) {
        self.alive();
        self.watch.store(sixnines_core::time::nanos(every), Ordering::Release);
    }

    pub(super) fn alive(&self) {
        self.heard.store(boot_now().as_nanos(), Ordering::Release);
    }

    /// Whether to tell the node that this application is alive.
    pub(super) fn may_beat(&self) -> bool {
        let watch = self.watch.load(Ordering::Acquire);
        watch == 0 || boot_now().as_nanos() <= self.heard.load(Ordering::Acquire).saturating_add(watch)
    }

    pub(super) fn next_role(&self, within: Option<Duration>) -> Option<Role> {
        let until = within.map(|w| Instant::now() + w);
        let mut core = self.lock();
        loop {
            if let Some(role) = core.roles.pop_front() {
                return Some(role);
            }
            if self.is_closed() {
                return None;
            }
            core = match until {
                None => self.changed.wait(core).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.checked_duration_since(Instant::now())?;
                    self.changed.wait_timeout(core, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Sends a write; waits while too many are in flight. Returns its ticket.
    pub(super) fn write(&self, epoch: Epoch, request: Option<RequestId>, level: Level, ops: Vec<Op>) -> Result<u64, WriteError> {
        let mut core = self.lock();
        loop {
            core.check_term(epoch)?;
            if core.unanswered < IN_FLIGHT_MAX && core.unsent() < OUT_BYTES_MAX {
                break;
            }
            core.flush();
            if self.thread.get() == Some(&std::thread::current().id()) {
                return Err(WriteError::NoSpace(Limit::Waiting));
            }
            core = self.changed.wait(core).unwrap_or_else(PoisonError::into_inner);
        }
        let alone = core.unanswered == 0;
        let ticket = core.first + core.writes.len() as u64 + 1;
        core.writes.push_back(Slot { epoch, state: SlotState::Waiting });
        core.unanswered += 1;
        core.send(&ToService::Write { ticket, epoch, request, level, ops: ops.clone() });
        core.mirror.write(ticket, ops);
        let lonely = core.flushed.is_none_or(|at| at.elapsed() >= FLUSH_AFTER);
        if alone || lonely || core.unsent() >= FLUSH_BYTES {
            core.flush();
        }
        Ok(ticket)
    }

    /// Waits for a write's outcome.
    pub(super) fn wait_for(&self, ticket: u64) -> Result<Applied, WriteError> {
        let mut core = self.lock();
        core.flush();
        loop {
            if let Some(result) = core.take_done(ticket) {
                return result;
            }
            core = self.changed.wait(core).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Runs `then` when it is known what became of a write: on the SDK's thread, or at once if it is known already.
    pub(super) fn then(&self, ticket: u64, then: Then) {
        let mut core = self.lock();
        let epoch = core.slot(ticket).map(|s| s.epoch).unwrap_or_default();
        let ready = match core.take_done(ticket) {
            Some(result) => core.due(epoch, result, then),
            None => {
                if let Some(slot) = core.slot(ticket) {
                    slot.state = SlotState::Then(then);
                }
                None
            }
        };
        drop(core);
        if let Some((result, then)) = ready {
            then(result);
        }
    }

    pub(super) fn forget(&self, ticket: u64) {
        let mut core = self.lock();
        if let Some(slot) = core.slot(ticket) {
            let answered = matches!(slot.state, SlotState::Done(_) | SlotState::Forgotten { answered: true });
            if !matches!(slot.state, SlotState::Then(_)) {
                slot.state = SlotState::Forgotten { answered };
            }
        }
        core.reap();
    }

    pub(super) fn read(&self, epoch: Epoch, key: Bytes) -> Result<u64, ReadError> {
        let mut core = self.lock();
        core.check_term(epoch).map_err(|e| match e {
            WriteError::Fenced { by_epoch } => ReadError::Fenced { by_epoch },
            _ => ReadError::Disconnected,
        })?;
        core.read_tickets += 1;
        let ticket = core.read_tickets;
        core.reads.insert(ticket, None);
        core.send(&ToService::Read { ticket, epoch, key });
        core.flush();
        Ok(ticket)
    }

    pub(super) fn wait_for_read(&self, ticket: u64) -> ReadResult {
        let mut core = self.lock();
        loop {
            if let Some(Some(_)) = core.reads.get(&ticket) {
                return core.reads.remove(&ticket).flatten().unwrap_or(Err(ReadError::Disconnected));
            }
            core = self.changed.wait(core).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn forget_read(&self, ticket: u64) {
        self.lock().reads.remove(&ticket);
    }
}

impl Core {
    /// Which role is being handed over.
    pub(super) fn quiescing(&self) -> Option<Epoch> {
        match self.role {
            Some(AppRole::Quiescing { epoch }) => Some(epoch),
            _ => None,
        }
    }

    pub(super) fn has_role_change(&self) -> bool {
        !self.roles.is_empty()
    }

    /// Whether something is to be done although nothing comes, and how soon.
    pub(super) fn pace(&self) -> Pace {
        if !self.waiting_for_lease.is_empty() {
            Pace::Lease
        } else if self.unanswered > 0 || self.unsent() > 0 {
            Pace::InFlight
        } else {
            Pace::Idle
        }
    }

    pub(super) fn unsent(&self) -> usize {
        self.out.len() - self.written
    }

    pub(super) fn send(&mut self, message: &ToService) {
        encode(message, &mut self.out);
    }

    /// Writes as much as the socket takes. A failure shows where the socket is read.
    pub(super) fn flush(&mut self) {
        let Some(stream) = self.stream.clone() else { return };
        while self.unsent() > 0 {
            match (&*stream).write(&self.out[self.written..]) {
                Ok(0) => break,
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        if self.unsent() == 0 {
            self.out.clear();
            self.written = 0;
        }
        self.flushed = Some(Instant::now());
    }

    /// A new connection; the role and the image come on it.
    pub(super) fn connected(&mut self, stream: Arc<UnixStream>, guard: GuardView) {
        self.stream = Some(stream);
        self.guard = Some(guard);
        self.connected = Arc::new(AtomicBool::new(true));
        self.out.clear();
        self.written = 0;
    }

    /// The end of the socket is a lost lease, and nothing will be answered any more (protocol 2.2).
    pub(super) fn disconnected(&mut self) -> Vec<Ready> {
        self.connected.store(false, Ordering::Release);
        self.stream = None;
        self.out.clear();
        self.written = 0;
        self.mirror.forget_in_flight();
        let doubt = WriteError::Unknown(Doubt::Disconnected);
        let count = self.unanswered;
        let tickets: Vec<u64> = (0..self.writes.len() as u64).map(|i| self.first + i + 1).collect();
        let mut ready: Vec<Ready> = tickets.into_iter().filter_map(|t| self.answer(t, Err(doubt))).collect();
        ready.extend(self.waiting_for_lease.drain(..).map(|(_, _, then)| (Err(doubt), then)));
        self.reads.values_mut().filter(|r| r.is_none()).for_each(|r| *r = Some(Err(ReadError::Disconnected)));
        if count > 0 {
            tracing::warn!(count, "writes of unknown outcome: the node's service went away");
        }
        if self.role.take().is_some() {
            self.roles.push_back(Role::Lost);
        }
        ready
    }

    /// Takes one message of the service. What is returned is to run without the lock.
    pub(super) fn take(&mut self, message: ToApp) -> Option<Ready> {
        match message {
            ToApp::Role(role) => self.take_role(role),
            ToApp::Image { first, last, sections, .. } => {
                if self.mirror.image(first, last, sections) {
                    let mirror = &self.mirror;
                    self.feeds.values_mut().for_each(|f| f.image(mirror));
                }
            }
            ToApp::Record(record) => {
                self.mirror.record(record.cursor, &record.changes);
                let mirror = &self.mirror;
                self.feeds.values_mut().for_each(|f| f.changes(mirror, &record.changes));
            }
            ToApp::Outcome { ticket, outcome } => {
                self.mirror.settle(ticket, outcome);
                return self.answer(ticket, outcome.into());
            }
            ToApp::Answer { ticket, answer } => self.take_answer(ticket, answer),
            ToApp::LossWindow(records) => self.loss_window = records,
            ToApp::Welcome { .. } | ToApp::Refused(_) => {}
        }
        None
    }

    /// Closures that waited for the lease and may run, or may never run.
    pub(super) fn lease_due(&mut self) -> Vec<Ready> {
        let mut ready = Vec::new();
        while let Some((epoch, _, _)) = self.waiting_for_lease.front() {
            let over = self.fenced_by(*epoch);
            if over.is_none() && !self.permits(*epoch) {
                break;
            }
            let Some((_, applied, then)) = self.waiting_for_lease.pop_front() else { break };
            ready.push((over.map_or(Ok(applied), |by| Err(WriteError::Unknown(Doubt::Fenced { by }))), then));
        }
        ready
    }

    fn take_role(&mut self, role: AppRole) {
        if self.role == Some(role) {
            return;
        }
        self.role = Some(role);
        let Some(guard) = self.guard.clone() else { return };
        self.roles.push_back(match role {
            AppRole::Active { epoch, lost } => Role::Active(Term { epoch, lost, guard, connected: Arc::clone(&self.connected) }),
            AppRole::Standby => Role::Standby,
            AppRole::Quiescing { .. } => Role::Quiescing,
        });
    }

    fn take_answer(&mut self, ticket: u64, answer: Answer) {
        let Some(slot) = self.reads.get_mut(&ticket) else { return };
        *slot = Some(match answer {
            Answer::Section { section, fresh } => Ok((section, fresh)),
            Answer::Refused(Refusal::NoSpace(limit)) => Err(ReadError::NoSpace(limit)),
            Answer::Refused(Refusal::Fenced { by }) => Err(ReadError::Fenced { by_epoch: by }),
            Answer::Refused(_) => Err(ReadError::Disconnected),
        });
    }

    fn check_term(&self, epoch: Epoch) -> Result<(), WriteError> {
        match self.fenced_by(epoch) {
            Some(by_epoch) => Err(WriteError::Fenced { by_epoch }),
            None => Ok(()),
        }
    }

    /// The epoch that is known to have ended `epoch`; the same one if only its end is known.
    fn fenced_by(&self, epoch: Epoch) -> Option<Epoch> {
        match self.role {
            Some(AppRole::Active { epoch: now, .. } | AppRole::Quiescing { epoch: now }) if now == epoch => None,
            Some(AppRole::Active { epoch: now, .. } | AppRole::Quiescing { epoch: now }) => Some(now),
            Some(AppRole::Standby) | None => Some(epoch),
        }
    }

    fn permits(&self, epoch: Epoch) -> bool {
        self.guard.as_ref().is_some_and(|g| g.permits(epoch))
    }

    fn slot(&mut self, ticket: u64) -> Option<&mut Slot> {
        let index = usize::try_from(ticket.checked_sub(self.first + 1)?).ok()?;
        self.writes.get_mut(index)
    }

    fn take_done(&mut self, ticket: u64) -> Option<Result<Applied, WriteError>> {
        let slot = self.slot(ticket)?;
        let SlotState::Done(result) = slot.state else { return None };
        slot.state = SlotState::Forgotten { answered: true };
        self.reap();
        Some(result)
    }

    fn answer(&mut self, ticket: u64, result: Result<Applied, WriteError>) -> Option<Ready> {
        let slot = self.slot(ticket)?;
        let epoch = slot.epoch;
        let state = match slot.state {
            SlotState::Waiting => SlotState::Done(result),
            SlotState::Done(result) => SlotState::Done(result),
            SlotState::Forgotten { .. } | SlotState::Then(_) => SlotState::Forgotten { answered: true },
        };
        let before = std::mem::replace(&mut slot.state, state);
        if !matches!(before, SlotState::Done(_) | SlotState::Forgotten { answered: true }) {
            self.unanswered -= 1;
        }
        self.reap();
        let SlotState::Then(then) = before else { return None };
        self.due(epoch, result, then)
    }

    /// Rule 2.8: a closure runs if its write is done and the lease is valid; until then it waits, in order.
    fn due(&mut self, epoch: Epoch, result: Result<Applied, WriteError>, then: Then) -> Option<Ready> {
        self.unknown += u64::from(matches!(result, Err(WriteError::Unknown(_))));
        match result {
            Ok(applied) if !self.waiting_for_lease.is_empty() || !self.permits(epoch) => {
                self.waiting_for_lease.push_back((epoch, applied, then));
                None
            }
            known => Some((known, then)),
        }
    }

    fn reap(&mut self) {
        while self.writes.front().is_some_and(|s| matches!(s.state, SlotState::Forgotten { answered: true })) {
            self.writes.pop_front();
            self.first += 1;
        }
    }
}

/// A closure and what it is to be told.
pub(super) type Ready = (Result<Applied, WriteError>, Then);

/// How soon the SDK's thread looks again although nothing has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Closures wait for the lease.
    Lease,
    /// Something is on its way.
    InFlight,
    /// Only the beat.
    Idle,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("closed", &self.is_closed()).finish_non_exhaustive()
    }
}
