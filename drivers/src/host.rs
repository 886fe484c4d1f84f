//! The host driver: what the operating system tells about the node it runs on, once a second.
//!
//! Objects below `/nodes/nX`: `os`, `memory`, `cpuN`, `disk/NAME`, `net/NAME`, with the attributes of the shipped classes of those names.
//! Reading is done on two threads of its own, because it may wait: for `/proc` hardly ever, for a file system whose server is gone for
//! hours. A thread that hangs sends nothing, and its attributes go stale.

mod disks;
mod sample;

use std::sync::mpsc as sync;
use std::thread;
use std::time::Duration;

use sixnines_core::ids::{NodeId, ObjectName};
use sixnines_core::value::{Outcome, Quality, Update, Value};
use tokio::sync::mpsc;

use crate::driver::{Driver, DriverError, Port};
use disks::DiskSampler;
use sample::Sampler;

const PERIOD: Duration = Duration::from_secs(1);
const DISK_PERIOD: Duration = Duration::from_secs(10);

/// Readings that wait to be forwarded, in samples; a thread that finds the queue full waits.
const SAMPLES_MAX: usize = 2;

/// Reads the node's operating system.
#[derive(Clone, Debug)]
pub struct HostDriver {
    node: NodeId,
    period: Duration,
    disk_period: Duration,
}

impl HostDriver {
    /// Reads on behalf of `node`: what changes quickly each second, file systems every ten.
    pub fn new(node: NodeId) -> Self {
        Self { node, period: PERIOD, disk_period: DISK_PERIOD }
    }

    fn start_reader(
        &self,
        name: &'static str,
        period: Duration,
        readings: mpsc::Sender<Vec<Update>>,
        read: impl FnMut() -> Vec<Update> + Send + 'static,
    ) -> Result<Reader, DriverError> {
        let (alive, ended) = sync::channel();
        thread::Builder::new()
            .name(name.into())
            .spawn(move || read_until(period, &ended, &readings, read))
            .map(|_| Reader { _alive: alive })
            .map_err(|e| DriverError { driver: "host".into(), what: format!("start the thread {name}"), source: Some(e) })
    }
}

/// The thread ends when this is dropped, or when it comes back from what it hangs in.
struct Reader {
    _alive: sync::Sender<()>,
}

impl Driver for HostDriver {
    fn name(&self) -> &str {
        "host"
    }

    async fn run(self, mut port: Port) -> Result<(), DriverError> {
        let (readings, mut samples) = mpsc::channel(SAMPLES_MAX);
        let (mut host, mut disks) = (Sampler::new(self.node), DiskSampler::new(self.node));
        // Held until the end of this function: with them the threads end.
        let _readers = [
            self.start_reader("host-reader", self.period, readings.clone(), move || host.sample())?,
            self.start_reader("disk-reader", self.disk_period, readings, move || disks.sample())?,
        ];
        loop {
            let updates = tokio::select! {
                biased;
                _ = port.stop.wait_for(|stop| *stop) => return Ok(()),
                Some(job) = port.jobs.recv() => {
                    // Whoever asked may have stopped waiting for the answer.
                    drop(job.answer.send(Outcome::Refused("an operating system has no controls here".into())));
                    continue;
                }
                updates = samples.recv() => updates,
            };
            let Some(updates) = updates else {
                return Err(DriverError { driver: "host".into(), what: "read: both threads are gone".into(), source: None });
            };
            for update in updates {
                tokio::select! {
                    biased;
                    _ = port.stop.wait_for(|stop| *stop) => return Ok(()),
                    sent = port.updates.send(update) => if sent.is_err() { return Ok(()) },
                }
            }
        }
    }
}

fn read_until(period: Duration, ended: &sync::Receiver<()>, readings: &mpsc::Sender<Vec<Update>>, mut read: impl FnMut() -> Vec<Update>) {
    loop {
        if readings.blocking_send(read()).is_err() {
            return;
        }
        if ended.recv_timeout(period) != Err(sync::RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// A sample in the making: readings of one object after another.
struct Readings {
    node: NodeId,
    updates: Vec<Update>,
}

impl Readings {
    fn of(node: NodeId) -> Self {
        Self { node, updates: Vec::with_capacity(64) }
    }

    /// Readings of `/nodes/nX/PLACE`; `None` is missing.
    fn put<const N: usize>(&mut self, place: &str, attributes: [(&str, Option<Value>); N]) {
        let object = ObjectName::new(format!("/nodes/{}/{place}", self.node));
        self.updates.extend(attributes.into_iter().map(|(attribute, value)| Update {
            object: object.clone(),
            attribute: attribute.into(),
            quality: if value.is_some() { Quality::Good } else { Quality::Missing },
            value,
            identity: None,
            cause: None,
        }));
    }
}

/// A count as a value; what does not fit is as large as can be.
fn int(count: u64) -> Option<Value> {
    Some(Value::Int(i64::try_from(count).unwrap_or(i64::MAX)))
}

/// A number as a value; not a number is missing.
fn float(number: f64) -> Option<Value> {
    number.is_finite().then_some(Value::Float(number))
}

/// How much of `total` is in use, in percent.
fn percent(used: u64, total: u64) -> Option<Value> {
    // Precise enough: these are hundredths of petabytes at worst.
    float(used as f64 * 100.0 / total as f64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::sync::{oneshot, watch};

    use super::*;
    use crate::driver::Job;
    use sixnines_core::ids::{Epoch, EventId};
    use sixnines_core::value::Request;

    #[tokio::test]
    async fn a_node_is_described_refuses_requests_and_stops_when_told() {
        let (updates, mut readings) = mpsc::channel(4);
        let (ask, jobs) = mpsc::channel(1);
        let (stop, stopped) = watch::channel(false);
        let driver = HostDriver { node: NodeId(3), period: Duration::from_millis(5), disk_period: Duration::from_millis(5) };
        let running = tokio::spawn(driver.run(Port { updates, jobs, stop: stopped }));

        let wanted = ["os load", "os uptime", "os kernel", "memory usage", "memory total", "cpu0 usage", "net/lo received", "net/lo state"];
        let mut seen = BTreeMap::new();
        while !wanted.iter().all(|w| seen.contains_key(*w)) || !seen.keys().any(|k: &String| k.starts_with("disk/")) {
            let update = readings.recv().await.unwrap();
            let place = update.object.as_str().strip_prefix("/nodes/n3/").unwrap();
            assert_eq!(update.value.is_some(), update.quality == Quality::Good, "{update:?}");
            seen.insert(format!("{place} {}", update.attribute), update.value);
        }
        for (name, value) in &seen {
            if let (true, Some(Value::Float(x))) = (name.ends_with("usage"), value) {
                assert!((0.0..=100.0).contains(x), "{name} is {x}");
            }
        }
        assert!(matches!(seen["memory total"], Some(Value::Int(n)) if n > 1 << 20));

        let (answer, answered) = oneshot::channel();
        let request =
            Request { id: EventId::default(), object: "/nodes/n3/os".into(), control: "reset".into(), value: None, epoch: Epoch(1) };
        ask.send(Job { request, answer }).await.unwrap();
        let asked = async {
            while readings.recv().await.is_some() {} // Keeps the driver from waiting for us.
        };
        tokio::select! {
            outcome = answered => assert!(matches!(outcome, Ok(Outcome::Refused(_)))),
            () = asked => panic!("the driver ended"),
        }
        stop.send(true).unwrap();
        running.await.unwrap().unwrap();
    }

    #[test]
    fn a_share_of_nothing_is_missing() {
        assert_eq!(percent(0, 0), None);
        assert_eq!(percent(1, 4), Some(Value::Float(25.0)));
        assert_eq!(int(u64::MAX), Some(Value::Int(i64::MAX)));
    }
}
