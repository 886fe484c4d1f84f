//! The drivers of this node: its own host always, a chassis while this node owns it.

use std::collections::BTreeMap;

use crossbeam::channel::Sender;
use sixnines_core::domain::config::DomainConfig;
use sixnines_core::ids::{ChassisName, Epoch, EventId, GroupName, NodeId};
use sixnines_core::value::{Outcome, Request};
use sixnines_drivers::driver::{Driver, Job, Port};
use sixnines_drivers::host::HostDriver;
use sixnines_hwsim::chassis::driver::ChassisDriver;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use crate::core_loop::In;

/// Readings that wait for the core loop, per driver; a full channel slows the driver.
const UPDATES_MAX: usize = 1024;
/// Requests that wait for a driver.
const JOBS_MAX: usize = 256;

/// The drivers that run.
pub(super) struct Drivers {
    runtime: Handle,
    inbox: Sender<In>,
    chassis: BTreeMap<ChassisName, String>,
    running: BTreeMap<GroupName, Running>,
    _host: Running,
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
    pub(super) fn new(me: NodeId, runtime: &Handle, inbox: &Sender<In>) -> Self {
        let host = start(runtime, inbox, HostDriver::new(me));
        Self { runtime: runtime.clone(), inbox: inbox.clone(), chassis: BTreeMap::new(), running: BTreeMap::new(), _host: host }
    }

    pub(super) fn configured(&mut self, config: &DomainConfig) {
        self.chassis = config.chassis.iter().filter_map(|c| Some((c.name.clone(), c.manager?.to_string()))).collect();
    }

    /// This node owns the chassis of `group`, or does not.
    pub(super) fn own(&mut self, group: &GroupName, epoch: Option<Epoch>) {
        let Some(name) = group.as_str().strip_prefix("chassis:").map(ChassisName::new) else { return };
        match (epoch, self.chassis.get(&name)) {
            (Some(epoch), Some(manager)) if !self.running.contains_key(group) => {
                tracing::info!(chassis = %name, %epoch, manager, "drives the chassis");
                let running = start(&self.runtime, &self.inbox, ChassisDriver::new(name, manager.as_str()));
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
fn start(runtime: &Handle, inbox: &Sender<In>, driver: impl Driver + Clone + Sync) -> Running {
    let (jobs, jobs_in) = mpsc::channel(JOBS_MAX);
    let (stop, stopped) = watch::channel(false);
    let inbox = inbox.clone();
    let name = driver.name().to_owned();
    runtime.spawn(async move {
        let (updates, mut readings) = mpsc::channel(UPDATES_MAX);
        let running = tokio::spawn(driver.run(Port { updates, jobs: jobs_in, stop: stopped }));
        while let Some(update) = readings.recv().await {
            if inbox.send(In::Update(update)).is_err() {
                break;
            }
        }
        match running.await {
            Ok(Ok(())) => tracing::debug!(driver = name, "ended"),
            Ok(Err(error)) => tracing::error!(driver = name, %error, "ended"),
            Err(error) => tracing::error!(driver = name, %error, "panicked"),
        }
    });
    Running { jobs, stop }
}
