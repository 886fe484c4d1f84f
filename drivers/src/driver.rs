//! The contract between a driver and the core loop.
//!
//! A driver raises [`Update`]s and carries out [`Request`]s; it never judges. It may hang or die: its attributes then go stale
//! and itself becomes an alarm, and the node goes on. Every driver runs as one task of its own.

use sixnines_core::value::{Outcome, Request, Update};
use tokio::sync::{mpsc, oneshot, watch};

/// A request on its way to a driver, with the place for the answer.
#[derive(Debug)]
pub struct Job {
    /// What to do.
    pub request: Request,
    /// Answered once. Dropped without an answer means [`Outcome::Unknown`].
    pub answer: oneshot::Sender<Outcome>,
}

/// A driver's two channels and its end.
#[derive(Debug)]
pub struct Port {
    /// Readings go here. Bounded: a full channel slows the driver, never the core loop.
    pub updates: mpsc::Sender<Update>,
    /// Requests come from here, in order.
    pub jobs: mpsc::Receiver<Job>,
    /// Becomes true when the driver has to end.
    pub stop: watch::Receiver<bool>,
}

/// A driver: one device, bus or service.
pub trait Driver: Send + 'static {
    /// For logs and `status`, such as `host`.
    fn name(&self) -> &str;

    /// Runs until [`Port::stop`] turns true or the device is gone for good.
    fn run(self, port: Port) -> impl Future<Output = Result<(), DriverError>> + Send;
}

/// Why a driver ended. The node raises an alarm and starts it again.
#[derive(Debug, thiserror::Error)]
#[error("driver {driver} ended: {what}")]
pub struct DriverError {
    /// Its name.
    pub driver: String,
    /// What it tried, and on what.
    pub what: String,
    /// The reason, where there is one.
    #[source]
    pub source: Option<std::io::Error>,
}
