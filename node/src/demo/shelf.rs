//! The demo's own eye on a chassis: straight at the shelf manager, past the nodes that own it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use sixnines_core::ids::{AttributeName, Epoch, EventId, ObjectName};
use sixnines_core::value::{Outcome, Request, Value};
use sixnines_drivers::netns::Netns;
use sixnines_hwsim::chassis::client::{Client, ClientError};
use sixnines_hwsim::chassis::wire::Report;

use super::lab::Lab;

/// Below this a fan counts as standing.
const TURNING_RPM: f64 = 800.0;
/// Fans of the demo's chassis.
const FANS: RangeInclusive<usize> = 1..=5;
/// Duty of a fan that nobody controls, in percent.
const RESTING_DUTY: i64 = 40;
/// Between two attempts to reach the chassis.
const RECONNECT_AFTER: std::time::Duration = std::time::Duration::from_millis(50);
/// Temperatures kept since the mark; at the bound the older half goes.
const TEMPERATURES_MAX: usize = 4096;

/// A chassis that is watched from the side.
pub(crate) struct Shelf {
    chassis: &'static str,
    manager: SocketAddr,
    netns: Option<Netns>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    duty: BTreeMap<usize, f64>,
    lowest_duty: BTreeMap<usize, f64>,
    speed: BTreeMap<usize, f64>,
    outlet: Option<f64>,
    outlets: Vec<f64>,
    /// Why there is no connection now.
    lost: Option<String>,
}

impl Shelf {
    /// Begins to watch; the chassis process runs already.
    ///
    /// # Errors
    /// If its manager does not answer.
    pub(crate) fn watch(lab: &Lab, chassis: &'static str) -> anyhow::Result<Self> {
        let netns = lab.room(chassis).netns().ok().cloned();
        let shelf = Self { chassis, manager: lab.manager(chassis), netns, seen: Arc::default() };
        shelf.inside(|| block_on(Client::connect(&shelf.manager.to_string(), "demo")).map(drop))??;
        let (manager, netns, seen) = (shelf.manager, shelf.netns.clone(), Arc::clone(&shelf.seen));
        std::thread::Builder::new()
            .name(format!("watch-{chassis}"))
            .spawn(move || {
                if let Err(error) = netns.map_or(Ok(()), |netns| netns.enter()) {
                    lock(&seen).lost = Some(format!("entering the namespace: {error}"));
                    return;
                }
                // As long as the demo lives: a connection that breaks is made anew, and what is wrong is told to whoever looks.
                while Arc::strong_count(&seen) > 1 {
                    let ended = block_on(follow(manager, &seen)).and_then(|followed| followed.map_err(Into::into));
                    lock(&seen).lost = ended.err().map(|error| format!("{error:#}"));
                    std::thread::sleep(RECONNECT_AFTER);
                }
            })
            .context("starting the thread that watches a chassis")?;
        Ok(shelf)
    }

    /// Which one.
    pub(crate) fn chassis(&self) -> &'static str {
        self.chassis
    }

    /// For how long, in the chassis' whole life, an older epoch's actions were carried out after a newer one's first.
    pub(crate) fn two_actives_ms(&self) -> anyhow::Result<f64> {
        Ok(self.report()?.groups.iter().map(|g| g.two_actives().as_secs_f64() * 1000.0).fold(0.0, f64::max))
    }

    /// The highest epoch under which the chassis has been given an order.
    pub(crate) fn highest_epoch(&self) -> anyhow::Result<u64> {
        let groups = self.report()?.groups;
        Ok(groups.iter().map(|g| g.highest.0).max().unwrap_or(0))
    }

    /// Delivers an order that an owner of that epoch might have sent long ago: one fan to its resting speed.
    pub(crate) fn late_order(&self, epoch: u64) -> anyhow::Result<Outcome> {
        let request = Request {
            id: EventId { sequence: u64::MAX, ..EventId::default() },
            object: ObjectName::new(format!("/{}/fan5", self.chassis)),
            control: AttributeName::new("duty"),
            value: Some(Value::Int(RESTING_DUTY)),
            epoch: Epoch(epoch),
        };
        let address = self.manager.to_string();
        self.inside(|| block_on(async { Client::connect(&address, "demo").await?.request(request).await }))??
            .context("giving a chassis an order")
    }

    fn report(&self) -> anyhow::Result<Report> {
        let address = self.manager.to_string();
        self.inside(|| block_on(async { Client::connect(&address, "demo").await?.report().await }))??.context("asking a chassis for its report")
    }

    /// Forgets what was seen, but not how things are.
    pub(crate) fn mark(&mut self) {
        let mut seen = lock(&self.seen);
        seen.outlets.clear();
        seen.lowest_duty = seen.duty.clone();
    }

    /// What the demo sees of the fans now, for who waits in vain.
    pub(crate) fn sight(&self) -> String {
        let seen = lock(&self.seen);
        let fans: Vec<String> = FANS.map(|fan| format!("fan{fan} {:.0} %", seen.duty.get(&fan).copied().unwrap_or(f64::NAN))).collect();
        format!("{}{}", fans.join(", "), seen.lost.as_ref().map(|why| format!("; not connected: {why}")).unwrap_or_default())
    }

    /// The lowest duty of these fans now; below 0 if one has not been seen.
    pub(crate) fn lowest_duty(&self, fans: RangeInclusive<usize>) -> f64 {
        lowest(&lock(&self.seen).duty, fans)
    }

    /// The lowest duty that any of these fans had since the mark.
    pub(crate) fn lowest_duty_since_mark(&self, fans: RangeInclusive<usize>) -> f64 {
        lowest(&lock(&self.seen).lowest_duty, fans)
    }

    /// How many fans stand.
    pub(crate) fn failed_fans(&self) -> usize {
        let seen = lock(&self.seen);
        FANS.filter(|fan| seen.speed.get(fan).is_none_or(|speed| *speed < TURNING_RPM)).count()
    }

    /// The temperature of the air that leaves the chassis.
    pub(crate) fn outlet_celsius(&self) -> Option<f64> {
        lock(&self.seen).outlet
    }

    /// Every outlet temperature since the mark.
    pub(crate) fn outlets_since_mark(&self) -> Vec<f64> {
        lock(&self.seen).outlets.clone()
    }

    /// Runs `work` where the chassis can be reached.
    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        Ok(match &self.netns {
            Some(netns) => netns.run(work),
            None => work(),
        })
    }
}

fn lowest(duty: &BTreeMap<usize, f64>, mut fans: RangeInclusive<usize>) -> f64 {
    fans.try_fold(f64::INFINITY, |lowest: f64, fan| duty.get(&fan).map(|duty| lowest.min(*duty))).unwrap_or(-1.0)
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    // Readings are independent of each other: a panic elsewhere does not spoil them.
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn block_on<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("building a runtime")?;
    Ok(runtime.block_on(work))
}

async fn follow(manager: SocketAddr, seen: &Mutex<Seen>) -> Result<(), ClientError> {
    let mut client = Client::connect(&manager.to_string(), "demo").await?;
    let root = format!("/{}", client.chassis());
    client.subscribe().await?;
    lock(seen).lost = None;
    client
        .wait_for(|client| {
            let number = |object: &str, attribute: &str| match client.value(&format!("{root}{object}"), attribute) {
                Some(Value::Int(n)) => f64::from(i32::try_from(*n).unwrap_or(i32::MAX)).into(),
                Some(Value::Float(x)) => Some(*x),
                _ => None,
            };
            lock(seen).take(&number);
            false // Until the chassis goes away.
        })
        .await
}

impl Seen {
    fn take(&mut self, number: &impl Fn(&str, &str) -> Option<f64>) {
        for fan in FANS {
            let object = format!("/fan{fan}");
            if let Some(duty) = number(&object, "duty") {
                self.duty.insert(fan, duty);
                let lowest = self.lowest_duty.entry(fan).or_insert(duty);
                *lowest = lowest.min(duty);
            }
            if let Some(speed) = number(&object, "speed") {
                self.speed.insert(fan, speed);
            }
        }
        if let Some(outlet) = number("", "outlet_temperature")
            && self.outlet.replace(outlet) != Some(outlet)
        {
            if self.outlets.len() >= TEMPERATURES_MAX {
                self.outlets.drain(..TEMPERATURES_MAX / 2);
            }
            self.outlets.push(outlet);
        }
    }
}
