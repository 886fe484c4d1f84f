//! The task of one group: its copy, its application, and everything that happens to them, one at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sixnines_core::ids::{Epoch, GroupName, Member};
use sixnines_core::time::Instant;
use tokio::sync::mpsc;

use super::connection::{Connection, Ended, NewApp, tell_once};
use super::host::{AppState, Host};
use super::local::{Hook, LocalEvent, LocalInput};
use super::{Inner, Order};
use crate::clock::boot_now;
use crate::config::CopyConfig;
use crate::copy::{Follow, GroupCopy, Input, Output, Read, Role, Ticket, Write};
use crate::guard::{EpochWord, GuardPage};
use crate::protocol::{AppRole, ImageParts, Refused, ToApp, ToService, VERSION};

/// See the module.
#[derive(Debug)]
pub(super) struct GroupTask {
    group: GroupName,
    config: CopyConfig,
    host: Arc<dyn Host>,
    guard: GuardPage,
    word: EpochWord,
    silence: Duration,
    drain: Duration,
    orders: mpsc::UnboundedReceiver<Order>,
    frame_bytes: Arc<AtomicUsize>,
    copy: Option<GroupCopy>,
    app: App,
    /// Counts applications: answers for a former one are for nobody.
    apps: u64,
    lease: bool,
    /// This node is silent for good under this epoch (protocol 3.5).
    silenced: Option<Epoch>,
    handover: Option<Handover>,
}

#[derive(Debug)]
enum App {
    None,
    Socket(Box<Connection>),
    Local(Hook),
}

/// The application is writing its last.
#[derive(Clone, Copy, Debug)]
struct Handover {
    epoch: Epoch,
    to: Member,
    /// It is not waited for any longer; `None` once it has finished.
    until: Option<Instant>,
}

/// Orders carried out before outputs are: under load many writes and reports share a frame.
const ORDERS_AT_ONCE: usize = 64;
/// How soon a lease that was over is looked at again, while this node is active.
const LEASE_AGAIN: Duration = Duration::from_millis(1);
/// A task that was not woken for so long has missed a turn that the service asks of it, whatever else there is to do.
const STOOD_STILL: Duration = super::PROGRESS_EVERY.saturating_mul(2);
/// Tickets of one application; the rest of the number names the application.
const TICKET_BITS: u32 = 44;

enum Wake {
    Order(Order),
    Socket,
    Time,
    End,
}

impl GroupTask {
    pub(super) fn new(
        group: GroupName,
        config: CopyConfig,
        inner: &Inner,
        word: EpochWord,
        orders: mpsc::UnboundedReceiver<Order>,
        frame_bytes: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            group,
            config,
            host: Arc::clone(&inner.host),
            guard: inner.guard.clone(),
            word,
            silence: inner.config.silence,
            drain: inner.config.drain,
            orders,
            frame_bytes,
            copy: None,
            app: App::None,
            apps: 0,
            lease: false,
            silenced: None,
            handover: None,
        }
    }

    /// Until the group is closed.
    pub(super) async fn run(mut self) {
        let mut awake = boot_now();
        loop {
            self.carry_out();
            self.flush();
            let wake = self.wait().await;
            let slept_since = std::mem::replace(&mut awake, boot_now());
            self.excuse(awake.since(slept_since), awake);
            match wake {
                Wake::Order(order) => {
                    self.order(order);
                    for _ in 0..ORDERS_AT_ONCE {
                        let Ok(order) = self.orders.try_recv() else { break };
                        self.order(order);
                    }
                }
                Wake::Socket => self.read(),
                Wake::Time => self.timeout(),
                Wake::End => return,
            }
        }
    }

    /// This task is woken several times in a second. If it was not, the node stood still, and its application with it: that is no silence of
    /// the application's.
    fn excuse(&mut self, slept: Duration, now: Instant) {
        if let App::Socket(connection) = &mut self.app
            && slept > STOOD_STILL
        {
            connection.heard = (connection.heard + slept).min(now);
        }
    }

    async fn wait(&mut self) -> Wake {
        let deadline = self.deadline();
        if deadline.is_some_and(|at| at <= boot_now()) {
            return Wake::Time; // Before anything else, or a busy application would keep time from passing.
        }
        let (orders, app) = (&mut self.orders, &mut self.app);
        tokio::select! {
            biased;
            order = orders.recv() => order.map_or(Wake::End, Wake::Order),
            () = ready(app) => Wake::Socket,
            () = until(deadline) => Wake::Time,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let machine = self.copy.as_ref().and_then(GroupCopy::poll_timeout);
        let lease = (!self.lease && self.epoch().is_some()).then(|| boot_now() + LEASE_AGAIN);
        let silence = match &self.app {
            App::Socket(connection) if !connection.hangs => Some(connection.heard + self.silence),
            _ => None,
        };
        let drain = self.handover.and_then(|h| h.until);
        [machine, lease, silence, drain].into_iter().flatten().min()
    }

    fn order(&mut self, order: Order) {
        match order {
            Order::Life(me) => self.begin(me),
            Order::Row(row) => self.feed(Input::Row(&row)),
            Order::Frame { from, bytes } => {
                self.frame_bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
                self.feed(Input::Frame { from, bytes: &bytes });
            }
            Order::Reach { member, reachable: true } => self.feed(Input::Reachable(member)),
            Order::Reach { member, reachable: false } => self.feed(Input::Unreachable(member)),
            Order::Prefer(nodes) => self.feed(Input::Prefer(nodes)),
            Order::Quiesce { epoch, to } => self.quiesce(epoch, to),
            Order::Resume { epoch } => self.resume(epoch),
            Order::Relinquish { epoch } => self.relinquish(epoch),
            Order::Offer { version } => {
                if let Some(offer) = self.copy.as_mut().and_then(|copy| copy.offer(version)) {
                    self.host.offered(&self.group, offer);
                }
            }
            Order::App(app) => self.connect(*app),
            Order::Local(hook) => self.connect_local(hook),
            Order::LocalInput(input) => self.local(input),
            Order::Turn(sign) => drop(sign),
            Order::Status(answer) => {
                if let Some(copy) = &self.copy
                    && answer.send(copy.status()).is_err()
                {
                    tracing::debug!("nobody waits for the status any more");
                }
            }
        }
    }

    fn begin(&mut self, me: Member) {
        if self.copy.as_ref().is_some_and(|c| c.member() == me) {
            return;
        }
        self.copy = Some(GroupCopy::new(me, self.config.clone()));
        self.lease = false;
        self.word.store(None);
        if !matches!(self.app, App::None) {
            self.feed(Input::Attach);
        }
    }

    fn feed(&mut self, input: Input<'_>) {
        let Some(copy) = &mut self.copy else { return };
        let now = boot_now();
        let lease = self.guard.lease_end() > now;
        if lease != self.lease {
            self.lease = lease;
            copy.handle(now, Input::Lease(lease)).expect("only frames can be a peer's fault");
        }
        if let Err(fault) = copy.handle(now, input) {
            self.host.peer_fault(&self.group, fault);
        }
    }

    fn timeout(&mut self) {
        self.feed(Input::Timeout);
        let now = boot_now();
        if let App::Socket(connection) = &mut self.app
            && !connection.hangs
            && connection.heard + self.silence <= now
        {
            connection.hangs = true;
            self.host.app(&self.group, AppState::Hanging);
        }
        if let Some(Handover { epoch, until: Some(until), .. }) = self.handover
            && until <= now
        {
            self.drained(epoch); // Whatever it still writes is refused; it was told.
        }
    }

    fn read(&mut self) {
        let App::Socket(connection) = &mut self.app else { return };
        let read = connection.read(boot_now());
        if std::mem::take(&mut connection.hangs) {
            self.host.app(&self.group, AppState::Ready);
        }
        let ended = loop {
            let App::Socket(connection) = &mut self.app else { return };
            match connection.next() {
                Ok(Some(message)) => self.message(message),
                Ok(None) => break read.err(), // What came before the end still counts.
                Err(ended) => break Some(ended),
            }
        };
        if let Some(ended) = ended {
            self.disconnect(&ended);
        }
    }

    fn message(&mut self, message: ToService) {
        match message {
            ToService::Write { ticket, epoch, request, level, ops } => self.write(ticket, epoch, request, level, ops),
            ToService::Read { ticket, epoch, key } => {
                let ticket = self.ticket(ticket);
                self.feed(Input::Read(Read { ticket, epoch, key }));
            }
            ToService::Drained { epoch } => self.drained(epoch),
            ToService::Beat | ToService::Hello(_) => {}
        }
    }

    fn local(&mut self, input: LocalInput) {
        match input {
            LocalInput::Write { ticket, epoch, request, level, ops } => self.write(ticket, epoch, request, level, ops),
            LocalInput::Read { ticket, epoch, key } => {
                let ticket = self.ticket(ticket);
                self.feed(Input::Read(Read { ticket, epoch, key }));
            }
            LocalInput::Drained { epoch } => self.drained(epoch),
            LocalInput::Gone => self.detach(),
        }
    }

    fn write(&mut self, ticket: u64, epoch: Epoch, request: Option<crate::RequestId>, level: crate::Level, ops: Vec<crate::Op>) {
        let ticket = self.ticket(ticket);
        if self.silenced == Some(epoch) {
            let outcome = crate::Outcome::NotApplied(crate::Refusal::Quiescing);
            self.tell(ToApp::Outcome { ticket: ticket.0 & ((1 << TICKET_BITS) - 1), outcome });
            return;
        }
        self.feed(Input::Write(Write { ticket, epoch, request, ops, level }));
    }

    fn ticket(&self, ticket: u64) -> Ticket {
        Ticket(self.apps << TICKET_BITS | ticket & ((1 << TICKET_BITS) - 1))
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.copy.as_mut().and_then(GroupCopy::poll_output) {
            match output {
                Output::Send { to, bytes } => self.host.send(&self.group, to, bytes),
                Output::Propose { version, in_sync } => self.host.propose_sync(&self.group, version, in_sync),
                Output::Acknowledged { ticket, outcome } => {
                    if let Some(ticket) = self.own(ticket) {
                        self.tell(ToApp::Outcome { ticket, outcome });
                    }
                }
                Output::Answered { ticket, answer } => {
                    if let Some(ticket) = self.own(ticket) {
                        self.tell(ToApp::Answer { ticket, answer });
                    }
                }
                Output::Role(role) => self.role(role),
                Output::Quiesced { target, .. } => {
                    self.word.store(None);
                    if let Some(epoch) = self.epoch() {
                        self.host.quiesced(&self.group, epoch, target);
                    }
                }
                Output::QuiesceFailed { target } => {
                    self.handover = None;
                    if let Some(epoch) = self.epoch() {
                        self.host.quiesce_failed(&self.group, epoch, target);
                    }
                    self.active_again();
                }
                Output::Follow(follow) => self.follow(follow),
                Output::LossWindow(records) => {
                    self.host.loss_window(&self.group, records);
                    self.tell(ToApp::LossWindow(records));
                }
            }
        }
    }

    /// The number by which the present application knows this ticket.
    fn own(&self, ticket: Ticket) -> Option<u64> {
        (ticket.0 >> TICKET_BITS == self.apps).then_some(ticket.0 & ((1 << TICKET_BITS) - 1))
    }

    /// The epoch under which this copy is active.
    fn epoch(&self) -> Option<Epoch> {
        match self.copy.as_ref()?.role() {
            Role::Active { epoch, .. } => Some(epoch),
            Role::Standby { .. } => None,
        }
    }

    fn role(&mut self, role: Role) {
        if self.handover.is_some_and(|h| role != (Role::Active { epoch: h.epoch, lost: false })) {
            self.handover = None;
        }
        match role {
            Role::Active { epoch, .. } if self.handover.is_some() && self.silenced != Some(epoch) => {
                // An application that has come in the middle of it: what is handed over is not given again.
                self.tell(ToApp::Role(AppRole::Quiescing { epoch }));
            }
            Role::Active { epoch, lost } if self.silenced != Some(epoch) => {
                self.word.store(Some(epoch));
                self.tell(ToApp::Role(AppRole::Active { epoch, lost }));
            }
            Role::Active { .. } | Role::Standby { .. } => {
                self.word.store(None);
                self.tell(ToApp::Role(AppRole::Standby));
            }
        }
    }

    fn active_again(&mut self) {
        if let Some(epoch) = self.epoch() {
            self.role(Role::Active { epoch, lost: false });
        }
    }

    fn follow(&mut self, follow: Follow) {
        match (&mut self.app, follow) {
            (App::Socket(connection), Follow::Image { cursor, sections }) => connection.tell_image(ImageParts::new(cursor, sections)),
            (App::Socket(connection), Follow::Record(record)) => connection.tell(&ToApp::Record(record)),
            (App::Local(hook), follow) => (hook.0)(LocalEvent::Follow(follow)),
            (App::None, _) => {}
        }
    }

    fn tell(&mut self, message: ToApp) {
        match &mut self.app {
            App::None => {}
            App::Socket(connection) => connection.tell(&message),
            App::Local(hook) => {
                let standby = Role::Standby { epoch: self.copy.as_ref().map_or(Epoch(0), |c| c.status().head.epoch) };
                let event = match message {
                    ToApp::Role(AppRole::Active { epoch, lost }) => LocalEvent::Role(Role::Active { epoch, lost }),
                    ToApp::Role(AppRole::Standby) => LocalEvent::Role(standby),
                    ToApp::Role(AppRole::Quiescing { epoch }) => LocalEvent::Quiescing { epoch },
                    ToApp::Outcome { ticket, outcome } => LocalEvent::Outcome { ticket, outcome },
                    ToApp::Answer { ticket, answer } => LocalEvent::Answer { ticket, answer },
                    _ => return,
                };
                (hook.0)(event);
            }
        }
    }

    fn flush(&mut self) {
        if let App::Socket(connection) = &mut self.app
            && let Err(ended) = connection.flush()
        {
            self.disconnect(&ended);
        }
    }

    fn connect(&mut self, app: NewApp) {
        if !matches!(self.app, App::None) {
            self.read(); // It may have ended, and its end not been read.
        }
        if !matches!(self.app, App::None) {
            tell_once(&app.stream, &ToApp::Refused(Refused::Taken(app.group)));
            return;
        }
        let connection = Connection::new(app, boot_now());
        let welcome = ToApp::Welcome { version: VERSION, guard_slot: self.word.slot() };
        if let Err(error) = connection.welcome(&welcome, self.guard.descriptor()) {
            tracing::warn!(%error, group = %self.group, "an application was gone before it was welcomed");
            return;
        }
        self.attach(App::Socket(Box::new(connection)));
        self.read_rest();
    }

    /// What came with the greeting.
    fn read_rest(&mut self) {
        while let App::Socket(connection) = &mut self.app
            && let Ok(Some(message)) = connection.next()
        {
            self.message(message);
        }
    }

    fn connect_local(&mut self, hook: Hook) {
        self.detach();
        self.attach(App::Local(hook));
    }

    fn attach(&mut self, app: App) {
        self.apps += 1;
        self.app = app;
        self.host.app(&self.group, AppState::Ready);
        self.feed(Input::Attach);
    }

    fn disconnect(&mut self, ended: &Ended) {
        tracing::info!(group = %self.group, %ended, "the application is gone");
        self.detach();
    }

    fn detach(&mut self) {
        if matches!(std::mem::replace(&mut self.app, App::None), App::None) {
            return;
        }
        self.feed(Input::Detach);
        self.host.app(&self.group, AppState::Gone);
        if let Some(Handover { epoch, until: Some(_), .. }) = self.handover {
            self.drained(epoch); // It writes no more.
        }
    }

    fn quiesce(&mut self, epoch: Epoch, to: Member) {
        if self.epoch() != Some(epoch) || self.handover.is_some() {
            return;
        }
        self.handover = Some(Handover { epoch, to, until: Some(boot_now() + self.drain) });
        match self.app {
            App::None => self.drained(epoch),
            App::Socket(_) | App::Local(_) => self.tell(ToApp::Role(AppRole::Quiescing { epoch })),
        }
    }

    fn drained(&mut self, epoch: Epoch) {
        if let Some(handover) = self.handover.as_mut().filter(|h| h.epoch == epoch && h.until.is_some()) {
            handover.until = None;
            let to = handover.to;
            self.feed(Input::Quiesce(to));
        }
    }

    fn resume(&mut self, epoch: Epoch) {
        if self.handover.take_if(|h| h.epoch == epoch).is_some() {
            self.feed(Input::Unquiesce);
            self.active_again();
        }
    }

    /// The guard first, then the word that it is so.
    fn relinquish(&mut self, epoch: Epoch) {
        self.silenced = self.silenced.max(Some(epoch));
        if self.epoch() == Some(epoch) {
            self.word.store(None);
        }
        self.host.silenced(&self.group, epoch);
    }
}

async fn ready(app: &mut App) {
    match app {
        // A failed socket is ready: reading it says why.
        App::Socket(connection) => drop(connection.ready().await),
        App::None | App::Local(_) => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep(at.since(boot_now())).await,
        None => std::future::pending().await,
    }
}
