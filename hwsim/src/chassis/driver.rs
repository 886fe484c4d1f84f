//! The driver of a simulated chassis: the same contract as for real hardware, over the chassis' TCP port.
//!
//! It never judges. When the chassis cannot be reached, every attribute is reported as failed, once; requests are refused with
//! certainty while nothing was sent, and left unanswered (unknown) when the connection broke under them. It reconnects with
//! growing pauses and then reports everything anew.

mod image;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::pin::pin;

use sixnines_core::ids::ChassisName;
use sixnines_core::time::Duration;
use sixnines_core::value::{Outcome, Quality};
use sixnines_drivers::driver::{Driver, DriverError, Job, Port};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant as TokioInstant, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::lines::Lines;
use super::server::stopped;
use super::wire::{FromChassis, Hello, LINE_BYTES_MAX, PROTOCOL, ToChassis, VERSION, build, to_line};
use image::Image;

/// Drives one simulated chassis.
#[derive(Clone, Debug)]
pub struct ChassisDriver {
    name: String,
    address: String,
    chassis: ChassisName,
    quality: Quality,
    details: bool,
}

impl ChassisDriver {
    /// The driver of `chassis`, whose process listens on `address` (`HOST:PORT`).
    pub fn new(chassis: ChassisName, address: impl Into<String>) -> Self {
        Self { name: format!("chassis:{chassis}"), address: address.into(), chassis, quality: Quality::Simulated, details: false }
    }

    /// Reports what the shipped classes do not declare, too: blue lights, load and memory of boards, loss of fabrics.
    #[must_use]
    pub fn with_details(mut self) -> Self {
        self.details = true;
        self
    }

    /// What to report instead of `simulated` for a reading that is good.
    #[must_use]
    pub fn with_quality(mut self, quality: Quality) -> Self {
        self.quality = quality;
        self
    }
}

impl Driver for ChassisDriver {
    fn name(&self) -> &str {
        &self.name
    }

    async fn run(self, mut port: Port) -> Result<(), DriverError> {
        let mut image = Image::new(self.quality, self.details);
        let mut pause = PAUSE_MIN;
        loop {
            let end = match offline(&mut port, &mut image, &self.chassis, self.connect()).await {
                None => return Ok(()),
                Some(Ok(connection)) => {
                    pause = PAUSE_MIN;
                    info!(chassis = %self.chassis, address = %self.address, "connected");
                    connection.run(&mut port, &mut image).await
                }
                Some(Err(end)) => end,
            };
            match end {
                End::Stopped => return Ok(()),
                End::Refused(what) => return Err(DriverError { driver: self.name, what, source: None }),
                End::Lost(error) => warn!(chassis = %self.chassis, address = %self.address, %error, "chassis is not reachable"),
            }
            image.lost();
            if offline(&mut port, &mut image, &self.chassis, sleep_until(TokioInstant::now() + pause)).await.is_none() {
                return Ok(());
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// Why a connection ended.
enum End {
    /// The node wants the driver to end.
    Stopped,
    /// It may come back.
    Lost(io::Error),
    /// What listens there will not become our chassis by waiting.
    Refused(String),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

/// A connection after hello and welcome.
struct Connection {
    lines: Lines<ReadHalf<TcpStream>>,
    to: WriteHalf<TcpStream>,
    waiting: BTreeMap<u64, oneshot::Sender<Outcome>>,
    last_tag: u64,
}

impl ChassisDriver {
    async fn connect(&self) -> Result<Connection, End> {
        let stream = timeout(SILENCE_MAX, TcpStream::connect(&self.address)).await.map_err(|_| silent())??;
        stream.set_nodelay(true)?;
        let (from, to) = tokio::io::split(stream);
        let lines = Lines::new(from, LINE_BYTES_MAX);
        let mut connection = Connection { lines, to, waiting: BTreeMap::new(), last_tag: 0 };
        let hello = Hello { protocol: PROTOCOL.into(), versions: [VERSION; 2], build: build(), role: "driver".into() };
        connection.send(&ToChassis::Hello(hello)).await?;
        match connection.next().await? {
            FromChassis::Welcome { chassis, .. } if chassis == self.chassis => {}
            FromChassis::Welcome { chassis, .. } => {
                return Err(End::Refused(format!("at {} there is chassis {chassis}, not {}", self.address, self.chassis)));
            }
            FromChassis::Error { message, .. } => return Err(End::Refused(message)),
            _ => return Err(End::Refused(format!("what listens at {} is no chassis", self.address))),
        }
        connection.send(&ToChassis::Subscribe).await?;
        Ok(connection)
    }
}

impl Connection {
    /// Moves readings and requests until the connection ends.
    async fn run(mut self, port: &mut Port, image: &mut Image) -> End {
        loop {
            let step = tokio::select! {
                biased;
                () = stopped(&mut port.stop) => Err(End::Stopped),
                permit = port.updates.reserve(), if image.has_news() => image.send(permit),
                job = port.jobs.recv(), if self.waiting.len() < WAITING_MAX => match job {
                    Some(job) => self.order(job).await,
                    None => Err(End::Stopped),
                },
                // Cancel safe: a line that is cut by another arm stays in the buffer.
                message = self.next() => message.map(|message| self.on_message(message, image)),
            };
            if let Err(end) = step {
                return end; // what waits for an answer is dropped: its outcome is unknown
            }
        }
    }

    async fn order(&mut self, job: Job) -> Result<(), End> {
        self.last_tag += 1;
        self.waiting.insert(self.last_tag, job.answer);
        self.send(&ToChassis::Set { tag: self.last_tag, request: job.request }).await
    }

    fn on_message(&mut self, message: FromChassis, image: &mut Image) {
        match message {
            FromChassis::Readings { full, list, .. } => image.take(full, list),
            FromChassis::Outcome { tag, outcome } => {
                if self.waiting.remove(&tag).is_some_and(|answer| answer.send(outcome).is_err()) {
                    debug!("nobody waits for this outcome any more");
                }
            }
            other => debug!(?other, "not for a driver"),
        }
    }

    /// A chassis that has said nothing for [`SILENCE_MAX`] is lost: it says everything once a second.
    async fn next(&mut self) -> Result<FromChassis, End> {
        let line = timeout(SILENCE_MAX, self.lines.next()).await.map_err(|_| silent())?;
        let line = line.map_err(io::Error::other)?.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        serde_json::from_str(&line).map_err(|error| End::Lost(io::Error::other(error)))
    }

    async fn send(&mut self, message: &ToChassis) -> Result<(), End> {
        let line = to_line(message);
        Ok(timeout(SILENCE_MAX, self.to.write_all(line.as_bytes())).await.map_err(|_| silent())??)
    }
}

/// Runs `future` while there is no connection: news still go out, requests are refused. `None`: the node wants the driver to end.
async fn offline<T>(port: &mut Port, image: &mut Image, chassis: &ChassisName, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut port.stop) => return None,
            permit = port.updates.reserve(), if image.has_news() => image.send(permit).ok()?,
            job = port.jobs.recv() => refuse(job?, chassis),
            done = &mut future => return Some(done),
        }
    }
}

/// Nothing was sent, so this is certain.
fn refuse(job: Job, chassis: &ChassisName) {
    if job.answer.send(Outcome::Refused(format!("chassis {chassis} is not reachable"))).is_err() {
        debug!("nobody waits for this outcome any more");
    }
}

fn silent() -> End {
    End::Lost(io::Error::from(io::ErrorKind::TimedOut))
}

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Three refreshes.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// Requests on their way; more wait in the port's channel.
const WAITING_MAX: usize = 64;
