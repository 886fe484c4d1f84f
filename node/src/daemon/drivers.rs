//! The drivers of this node: its own host always, a chassis while this node owns it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::channel::{Receiver, Sender};
use sixnines_core::domain::config::DomainConfig;
use sixnines_core::domain::limits::{Limit, Limits};
use sixnines_core::ids::{ChassisName, Epoch, EventId, GroupName, NodeId};
use sixnines_core::value::{Outcome, Request, Update};
use sixnines_drivers::clock;
use sixnines_drivers::driver::{Driver, Job, Port};
use sixnines_drivers::host::HostDriver;
use sixnines_drivers::throttle::Throttle;
use sixnines_hwsim::chassis::driver::ChassisDriver;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use crate::core_loop::In;

/// Readings on their way from a driver; a full channel slows it.
const UPDATES_MAX: usize = 1024;
/// Requests that wait for a driver.
const JOBS_MAX: usize = 256;

/// Readings of all drivers that the core loop has not worked off; then they wait in their drivers' lines, where newer ones overtake.
const READINGS_MAX: usize = 64;

/// A reading on its way to the core loop.
pub(super) struct Reading {
    pub(super) update: Update,
    /// Its place among those on the way, until it is dropped.
    pub(super) room: OwnedSemaphorePermit,
}

/// The way of readings to the core loop: apart from everything else, and with room for few.
#[derive(Clone)]
pub(super) struct Lane {
    to_core: Sender<Reading>,
    room: Arc<Semaphore>,
}

impl Lane {
    /// The lane, and its other end.
    pub(super) fn new() -> (Self, Receiver<Reading>) {
        let (to_core, readings) = crossbeam::channel::unbounded();
        (Self { to_core, room: Arc::new(Semaphore::new(READINGS_MAX)) }, readings)
    }

    /// Waits for room.
    async fn room(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.room).acquire_owned().await.expect("nobody closes it")
    }

    fn try_room(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).try_acquire_owned().ok()
    }

    /// Whether somebody takes it.
    fn send(&self, update: Update, room: OwnedSemaphorePermit) -> bool {
        self.to_core.send(Reading { update, room }).is_ok()
    }
}

/// The drivers that run.
pub(super) struct Drivers {
    runtime: Handle,
    inbox: Sender<In>,
    lane: Lane,
    chassis: BTreeMap<ChassisName, String>,
    running: BTreeMap<GroupName, Running>,
    gauge: Arc<Gauge>,
    _host: Running,
}

/// The bound of every driver, and what has come of it.
struct Gauge {
    per_second: AtomicU64,
    /// The busiest second of any driver since it was asked.
    peak: AtomicU64,
    /// Readings that had to wait.
    held: AtomicU64,
}

struct Running {
    jobs: mpsc::Sender<Job>,
    stop: watch::Sender<bool>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl Drivers {
    pub(super) fn new(me: NodeId, runtime: &Handle, inbox: &Sender<In>, lane: Lane, limits: &Limits) -> Self {
        let gauge = Arc::new(Gauge { per_second: AtomicU64::new(limits.of(Limit::DriverEventsPerSecond)), peak: AtomicU64::new(0), held: AtomicU64::new(0) });
        let host = start(runtime, &lane, &gauge, HostDriver::new(me));
        Self { runtime: runtime.clone(), inbox: inbox.clone(), lane, chassis: BTreeMap::new(), running: BTreeMap::new(), gauge, _host: host }
    }

    /// Readings in the busiest second of any driver since this was asked last, and how many have had to wait since the start.
    pub(super) fn use_of(&self) -> (u64, u64) {
        (self.gauge.peak.swap(0, Ordering::Relaxed), self.gauge.held.load(Ordering::Relaxed))
    }

    pub(super) fn configured(&mut self, config: &DomainConfig) {
        self.gauge.per_second.store(config.limits.of(Limit::DriverEventsPerSecond), Ordering::Relaxed);
        self.chassis = config.chassis.iter().filter_map(|c| Some((c.name.clone(), c.manager?.to_string()))).collect();
    }

    /// This node owns the chassis of `group`, or does not.
    pub(super) fn own(&mut self, group: &GroupName, epoch: Option<Epoch>) {
        let Some(name) = group.as_str().strip_prefix("chassis:").map(ChassisName::new) else { return };
        match (epoch, self.chassis.get(&name)) {
            (Some(epoch), Some(manager)) if !self.running.contains_key(group) => {
                tracing::info!(chassis = %name, %epoch, manager, "drives the chassis");
                let running = start(&self.runtime, &self.lane, &self.gauge, ChassisDriver::new(name, manager.as_str()));
                self.running.insert(group.clone(), running);
            }
            (None, _) => drop(self.running.remove(group)),
            _ => {}
        }
    }

    /// Hands a request to the driver of its chassis.
    pub(super) fn act(&self, request: Request) {
        let chassis = request.object.as_str().trim_start_matches('/').split('/').next().unwrap_or_default();
        let group = GroupName::new(format!("chassis:{chassis}"));
        let id = request.id;
        let (answer, outcome) = oneshot::channel();
        let inbox = self.inbox.clone();
        let Some(running) = self.running.get(&group) else {
            return tell(&inbox, id, Outcome::Refused(format!("no driver here reaches {}", request.object)));
        };
        match running.jobs.try_send(Job { request, answer }) {
            Ok(()) => drop(self.runtime.spawn(async move { tell(&inbox, id, outcome.await.unwrap_or(Outcome::Unknown)) })),
            Err(_) => tell(&inbox, id, Outcome::Refused("its driver is busy or has ended".into())),
        }
    }
}

fn tell(inbox: &Sender<In>, request: EventId, outcome: Outcome) {
    if inbox.send(In::Outcome { request, outcome }).is_err() {
        tracing::debug!("the core loop has ended");
    }
}

/// Runs a driver until it is told to stop; one that ends by itself is started again.
fn start(runtime: &Handle, lane: &Lane, gauge: &Arc<Gauge>, driver: impl Driver + Clone + Sync) -> Running {
    let (jobs, jobs_in) = mpsc::channel(JOBS_MAX);
    let (stop, stopped) = watch::channel(false);
    let (lane, gauge) = (lane.clone(), Arc::clone(gauge));
    let name = driver.name().to_owned();
    runtime.spawn(async move {
        let (updates, readings) = mpsc::channel(UPDATES_MAX);
        let running = tokio::spawn(driver.run(Port { updates, jobs: jobs_in, stop: stopped }));
        carry(readings, &lane, &gauge).await;
        match running.await {
            Ok(Ok(())) => tracing::debug!(driver = name, "ended"),
            Ok(Err(error)) => tracing::error!(driver = name, %error, "ended"),
            Err(error) => tracing::error!(driver = name, %error, "panicked"),
        }
    });
    Running { jobs, stop }
}

/// Carries a driver's readings to the core loop, no faster than the domain's limits allow and than the loop works them off, until either
/// has ended.
async fn carry(mut readings: mpsc::Receiver<Update>, lane: &Lane, gauge: &Gauge) {
    let mut throttle = Throttle::new(clock::boot_now(), gauge.per_second.load(Ordering::Relaxed));
    let mut held = 0;
    let mut room = None;
    loop {
        let wait = throttle.poll_timeout().map(|at| at.since(clock::boot_now()));
        let came = tokio::select! {
            came = readings.recv(), if !throttle.is_full() => match came {
                Some(update) => Some(update),
                None => return carry_rest(throttle, room, lane).await,
            },
            got = lane.room(), if room.is_none() && wait.is_some() => {
                room = Some(got);
                None
            }
            () = tokio::time::sleep(wait.unwrap_or_default()), if room.is_some() && wait.is_some() => None,
        };
        let now = clock::boot_now();
        throttle.bound(now, gauge.per_second.load(Ordering::Relaxed));
        if let Some(update) = came {
            throttle.offer(now, update);
        }
        while let Some(here) = room.take().or_else(|| lane.try_room()) {
            let Some(update) = throttle.poll(now) else {
                room = Some(here);
                break;
            };
            if !lane.send(update, here) {
                return;
            }
        }
        gauge.peak.fetch_max(throttle.peak(now), Ordering::Relaxed);
        gauge.held.fetch_add(throttle.counts().held - held, Ordering::Relaxed);
        held = throttle.counts().held;
    }
}

/// The driver has ended, and what it said stands.
async fn carry_rest(throttle: Throttle, mut room: Option<OwnedSemaphorePermit>, lane: &Lane) {
    for update in throttle.rest() {
        let here = match room.take() {
            Some(here) => here,
            None => lane.room().await,
        };
        if !lane.send(update, here) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use sixnines_core::value::{Quality, Value};

    use crossbeam::channel::TryRecvError;

    use super::*;

    fn speed(n: i64) -> Update {
        Update { object: "/mxp1/fan1".into(), attribute: "speed".into(), value: Some(Value::Int(n)), quality: Quality::Good, identity: None, cause: None }
    }

    #[tokio::test]
    async fn a_core_loop_that_is_slow_slows_the_driver_and_hears_the_newest() {
        const SENT: i64 = 10_000;
        let gauge = Gauge { per_second: AtomicU64::new(1_000_000), peak: AtomicU64::new(0), held: AtomicU64::new(0) };
        let (updates, readings) = mpsc::channel(1);
        let (lane, core) = Lane::new();
        let driver = async move {
            for n in 0..SENT {
                updates.send(speed(n)).await.expect("it is carried");
            }
        };
        let slow = async {
            let mut told = Vec::new();
            while told.last() != Some(&Some(Value::Int(SENT - 1))) {
                assert!(core.len() <= READINGS_MAX, "{} on their way", core.len());
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                told.extend(core.try_recv().map(|reading| reading.update.value));
            }
            told
        };
        let ((), (), told) = tokio::join!(carry(readings, &lane, &gauge), driver, slow);
        assert!(told.is_sorted_by_key(|value| if let Some(Value::Int(n)) = value { *n } else { -1 }));
        assert!(i64::try_from(told.len()).expect("few") < SENT, "all of them arrived");
    }

    #[tokio::test]
    async fn a_driver_beyond_its_bound_is_slowed_and_what_is_newest_arrives() {
        let gauge = Gauge { per_second: AtomicU64::new(10), peak: AtomicU64::new(0), held: AtomicU64::new(0) };
        let (updates, readings) = mpsc::channel(UPDATES_MAX);
        let (lane, core) = Lane::new();
        let driver = async move {
            for n in 0..200 {
                updates.send(speed(n)).await.expect("it is carried");
            }
            tokio::time::sleep(std::time::Duration::from_millis(400)).await; // a token's time and then some; then it ends
        };
        let taken = async {
            let mut told = Vec::new();
            loop {
                match core.try_recv() {
                    Ok(reading) => told.push(reading.update),
                    Err(TryRecvError::Empty) => tokio::task::yield_now().await,
                    Err(TryRecvError::Disconnected) => return told,
                }
            }
        };
        let carried = async {
            carry(readings, &lane, &gauge).await;
            drop(lane);
        };
        let ((), (), told) = tokio::join!(carried, driver, taken);
        assert_eq!(told.last().and_then(|u| u.value.clone()), Some(Value::Int(199)), "the newest");
        assert!((11..150).contains(&told.len()), "{} of 200", told.len());
        assert!(gauge.held.load(Ordering::Relaxed) >= 170 && gauge.peak.load(Ordering::Relaxed) >= 100);
    }
}
