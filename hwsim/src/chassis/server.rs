//! A chassis as a process of its own: it outlives the nodes that drive it, as hardware does.
//!
//! One task owns the [`Chassis`]; each client has a task that moves lines. No client can hold up the chassis or another client:
//! every queue is bounded, readings for a slow client are joined (it gets the newest values when it can take them), and a client
//! that does not take its answers is cut off.

mod connection;
#[cfg(test)]
pub(super) mod tests;

use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use sixnines_core::time::Instant;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use super::wire::{FromChassis, Report, ToChassis, to_line};
use super::{Chassis, Named, TICK};
use connection::{ClientId, Said};

/// Runs a chassis until `stop` turns true. `clock` is the clock of its physics and of its report: [`boot_clock`], or a test's own.
///
/// # Errors
/// The listener's address cannot be read. Trouble with single connections ends only those.
pub async fn serve<C>(chassis: Chassis, listener: TcpListener, clock: C, mut stop: watch::Receiver<bool>) -> io::Result<()>
where
    C: Fn() -> Instant + Send,
{
    info!(chassis = %chassis.name(), address = %listener.local_addr()?, "chassis is up");
    let (said_sender, mut said) = mpsc::channel(QUEUE_MAX);
    let mut server =
        Server { chassis, clients: BTreeMap::new(), next: ClientId(0), said: said_sender, garbage: 0, crowded: 0, ticks: 0 };
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    // After a failed accept (no descriptors left) the next one waits for a tick.
    let mut accepting = true;
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return Ok(()),
            () = tick(&mut ticks) => {
                accepting = true;
                server.on_tick(clock());
            }
            Some((client, what)) = said.recv() => server.on_said(clock(), client, what),
            accepted = accept(&listener, accepting) => match accepted {
                Ok((stream, from)) => server.on_accepted(stream, from),
                Err(error) => {
                    accepting = false;
                    warn!(%error, "cannot accept a connection");
                }
            },
        }
    }
}

/// The boot-time clock of this machine.
///
/// # Panics
/// Never on Linux, which has had this clock since 2.6.39.
pub fn boot_clock() -> Instant {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).expect("Linux has this clock");
    let part = |x: i64| u64::try_from(x).unwrap_or(0);
    Instant::from_nanos(part(now.tv_sec()) * 1_000_000_000 + part(now.tv_nsec()))
}

/// The task's state: the chassis and who listens to it.
struct Server {
    chassis: Chassis,
    clients: BTreeMap<ClientId, Client>,
    next: ClientId,
    said: mpsc::Sender<(ClientId, Said)>,
    garbage: u64,
    crowded: u64,
    ticks: u64,
}

/// A connected client.
struct Client {
    outbox: mpsc::Sender<Arc<str>>,
    task: AbortHandle,
    /// The chassis' revision that it has; `None`: it did not subscribe.
    has: Option<u64>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    fn on_tick(&mut self, now: Instant) {
        self.chassis.step(now);
        self.ticks += 1;
        if self.ticks.is_multiple_of(REFRESH_TICKS) {
            // A subscriber can tell "steady" from "gone": the whole image comes again.
            self.clients.values_mut().filter_map(|client| client.has.as_mut()).for_each(|has| *has = 0);
        }
        self.publish(now);
    }

    fn on_accepted(&mut self, stream: TcpStream, from: SocketAddr) {
        if self.clients.len() >= CLIENTS_MAX {
            self.crowded += 1;
            debug!(%from, "refused: too many clients");
            return; // closed by dropping it: telling it so could block
        }
        self.next.0 += 1;
        let (outbox, to_write) = mpsc::channel(QUEUE_MAX);
        let name = self.chassis.name().clone();
        let task = tokio::spawn(connection::run(self.next, name, stream, self.said.clone(), to_write)).abort_handle();
        self.clients.insert(self.next, Client { outbox, task, has: None });
        debug!(%from, client = self.next.0, "connected");
    }

    fn on_said(&mut self, now: Instant, client: ClientId, what: Said) {
        self.chassis.step(now);
        match what {
            Said::Message(message) => self.on_message(now, client, message),
            Said::Garbage => self.garbage += 1,
            Said::Gone => {
                self.clients.remove(&client);
            }
        }
        self.publish(now);
    }

    fn on_message(&mut self, now: Instant, client: ClientId, message: ToChassis) {
        let error = |tag, code: &str, message: String| FromChassis::Error { tag: Some(tag), code: code.into(), message };
        let answer = match message {
            ToChassis::Hello(_) => return, // only the first line counts, and the connection has taken that one
            ToChassis::Subscribe => {
                if let Some(client) = self.clients.get_mut(&client) {
                    client.has = Some(0);
                }
                return;
            }
            ToChassis::Set { tag, request } => FromChassis::Outcome { tag, outcome: self.chassis.request(now, &request) },
            ToChassis::Inject { tag, injection } => match self.chassis.inject(now, injection) {
                Ok(id) => FromChassis::Injected { tag, id },
                Err(refused) => error(tag, "bad-fault", refused.to_string()),
            },
            ToChassis::Clear { tag, id: None } => FromChassis::Cleared { tag, count: self.chassis.clear_all() },
            ToChassis::Clear { tag, id: Some(id) } => match self.chassis.clear(id) {
                Ok(()) => FromChassis::Cleared { tag, count: 1 },
                Err(refused) => error(tag, "not-active", refused.to_string()),
            },
            ToChassis::Faults { tag } => FromChassis::Faults { tag, list: self.chassis.faults().cloned().collect() },
            ToChassis::Log { tag } => FromChassis::Log { tag, list: self.chassis.log().cloned().collect() },
            ToChassis::Report { tag } => FromChassis::Report { tag, report: self.report(now) },
        };
        self.answer(client, &answer);
    }

    fn report(&self, now: Instant) -> Report {
        Report {
            chassis: self.chassis.name().clone(),
            at: now,
            clients: self.clients.len(),
            garbage: self.garbage,
            crowded: self.crowded,
            groups: self.chassis.fences(),
        }
    }

    /// A client whose queue of answers is full has stopped reading: it is cut off.
    fn answer(&mut self, client: ClientId, answer: &FromChassis) {
        let Some(to) = self.clients.get(&client) else { return };
        if to.outbox.try_send(Arc::from(to_line(answer))).is_err() {
            warn!(client = client.0, "cut off: it does not take its answers");
            self.clients.remove(&client);
        }
    }

    /// Sends every subscriber what it does not have. Those that have the same get the same line.
    fn publish(&mut self, now: Instant) {
        let newest = self.chassis.revision();
        let mut lines: BTreeMap<u64, Arc<str>> = BTreeMap::new();
        for client in self.clients.values_mut() {
            let Some(has) = client.has.filter(|has| *has < newest) else { continue };
            let line = lines.entry(has).or_insert_with(|| Arc::from(to_line(&news(&self.chassis, now, has))));
            match client.outbox.try_send(Arc::clone(line)) {
                Ok(()) => client.has = Some(newest),
                // It is slow: what it misses is sent together when there is room. Gone: its task says so itself.
                Err(TrySendError::Full(_) | TrySendError::Closed(_)) => {}
            }
        }
    }
}

/// What has changed since a revision; since 0, everything.
fn news(chassis: &Chassis, at: Instant, since: u64) -> FromChassis {
    let full = since == 0;
    let list = chassis.readings().filter(|named| full || named.revision > since).map(Named::update).collect();
    FromChassis::Readings { full, at, list }
}

/// Returns when `stop` turns true, or when nobody is left who could turn it. Cancel safe.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Either way it is over, and the guard may not live on across an await.
    drop(stop.wait_for(|stop| *stop).await);
}

async fn tick(ticks: &mut Interval) {
    ticks.tick().await;
}

async fn accept(listener: &TcpListener, accepting: bool) -> io::Result<(TcpStream, SocketAddr)> {
    if accepting { listener.accept().await } else { pending().await }
}

/// Lines or messages on their way; at the bound the sender waits, or is handled as slow.
const QUEUE_MAX: usize = 128;
/// More connections are closed at once.
const CLIENTS_MAX: usize = 32;
/// Every second.
const REFRESH_TICKS: u64 = 10;
