//! A client of a chassis process, for injectors, tests and the demo. The node's own is the [`driver`](super::driver).

use std::collections::BTreeMap;
use std::io;

use sixnines_core::ids::{AttributeName, ChassisName, ObjectName};
use sixnines_core::time::Duration;
use sixnines_core::value::{Outcome, Request, Update, Value};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::fault::{ActiveFault, FaultId, Injection};
use super::lines::{LineError, Lines};
use super::log::LogEntry;
use super::wire::{FromChassis, Hello, LINE_BYTES_MAX, PROTOCOL, Report, ToChassis, VERSION, build, to_line};

/// A connection to a chassis process.
#[derive(Debug)]
pub struct Client {
    chassis: ChassisName,
    lines: Lines<ReadHalf<TcpStream>>,
    to: WriteHalf<TcpStream>,
    last_tag: u64,
    image: Image,
}

/// The newest readings, by object and attribute.
pub type Image = BTreeMap<(ObjectName, AttributeName), Update>;

/// Why a chassis did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The chassis could not be reached, or the connection broke: whether the last order arrived is unknown.
    #[error("chassis at {address}: {what}")]
    Connection {
        /// Whom we asked.
        address: String,
        /// What we tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The chassis said no; nothing changed. Mostly the operator's mistake, and the text says what would be right.
    #[error("{message}")]
    Refused {
        /// Stable word.
        code: String,
        /// For people.
        message: String,
    },
    /// What listens there does not speak our protocol.
    #[error("what listens there is no chassis: {0}")]
    NotAChassis(String),
}

impl Client {
    /// Connects to a chassis and says hello. `role` is for the chassis' log.
    ///
    /// # Errors
    /// [`ClientError`]; nothing changed.
    pub async fn connect(address: &str, role: &str) -> Result<Self, ClientError> {
        let failed = |source| ClientError::Connection { address: address.to_owned(), what: "cannot connect", source };
        let within = |_| failed(io::ErrorKind::TimedOut.into());
        let stream = timeout(ANSWER_WITHIN, TcpStream::connect(address)).await.map_err(within)?.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let (from, to) = tokio::io::split(stream);
        let lines = Lines::new(from, LINE_BYTES_MAX);
        let mut this = Self { chassis: ChassisName::new(""), lines, to, last_tag: 0, image: Image::new() };
        let hello = Hello { protocol: PROTOCOL.into(), versions: [VERSION; 2], build: build(), role: role.into() };
        this.send(&ToChassis::Hello(hello)).await?;
        match this.next().await? {
            FromChassis::Welcome { chassis, .. } => this.chassis = chassis,
            FromChassis::Error { code, message, .. } => return Err(ClientError::Refused { code, message }),
            other => return Err(ClientError::NotAChassis(format!("answered a hello with {other:?}"))),
        }
        Ok(this)
    }

    /// Which chassis this is.
    pub fn chassis(&self) -> &ChassisName {
        &self.chassis
    }

    /// Puts a fault in force.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with what would be right.
    pub async fn inject(&mut self, injection: Injection) -> Result<FaultId, ClientError> {
        let tag = self.tag();
        match self.ask(tag, &ToChassis::Inject { tag, injection }).await? {
            FromChassis::Injected { id, .. } => Ok(id),
            other => Err(unexpected(&other)),
        }
    }

    /// Ends one fault, or all; returns how many.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if it is not active.
    pub async fn clear(&mut self, id: Option<FaultId>) -> Result<usize, ClientError> {
        let tag = self.tag();
        match self.ask(tag, &ToChassis::Clear { tag, id }).await? {
            FromChassis::Cleared { count, .. } => Ok(count),
            other => Err(unexpected(&other)),
        }
    }

    /// The faults in force.
    ///
    /// # Errors
    /// [`ClientError::Connection`].
    pub async fn faults(&mut self) -> Result<Vec<ActiveFault>, ClientError> {
        let tag = self.tag();
        match self.ask(tag, &ToChassis::Faults { tag }).await? {
            FromChassis::Faults { list, .. } => Ok(list),
            other => Err(unexpected(&other)),
        }
    }

    /// The shelf manager's event log, the oldest entry first.
    ///
    /// # Errors
    /// [`ClientError::Connection`].
    pub async fn log(&mut self) -> Result<Vec<LogEntry>, ClientError> {
        let tag = self.tag();
        match self.ask(tag, &ToChassis::Log { tag }).await? {
            FromChassis::Log { list, .. } => Ok(list),
            other => Err(unexpected(&other)),
        }
    }

    /// Who acted under which epoch.
    ///
    /// # Errors
    /// [`ClientError::Connection`].
    pub async fn report(&mut self) -> Result<Report, ClientError> {
        let tag = self.tag();
        match self.ask(tag, &ToChassis::Report { tag }).await? {
            FromChassis::Report { report, .. } => Ok(report),
            other => Err(unexpected(&other)),
        }
    }

    /// Sends an order, as an owner would.
    ///
    /// # Errors
    /// [`ClientError::Connection`]: it may have been carried out.
    pub async fn request(&mut self, request: Request) -> Result<Outcome, ClientError> {
        let tag = self.tag();
        match self.ask(tag, &ToChassis::Set { tag, request }).await? {
            FromChassis::Outcome { outcome, .. } => Ok(outcome),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks for readings; [`Client::wait_for`] then sees them.
    ///
    /// # Errors
    /// [`ClientError::Connection`].
    pub async fn subscribe(&mut self) -> Result<(), ClientError> {
        self.send(&ToChassis::Subscribe).await
    }

    /// The newest readings that have arrived.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The newest value of one attribute that has arrived.
    pub fn value(&self, object: &str, attribute: &str) -> Option<&Value> {
        self.image.get(&(object.into(), attribute.into()))?.value.as_ref()
    }

    /// Takes readings until `done` says so. Without an end of its own: wrap it in a time-out.
    ///
    /// # Errors
    /// [`ClientError::Connection`] if the chassis goes away.
    pub async fn wait_for(&mut self, mut done: impl FnMut(&Self) -> bool) -> Result<(), ClientError> {
        while !done(self) {
            self.next().await?;
        }
        Ok(())
    }

    async fn ask(&mut self, tag: u64, question: &ToChassis) -> Result<FromChassis, ClientError> {
        self.send(question).await?;
        loop {
            let answer = timeout(ANSWER_WITHIN, self.next())
                .await
                .map_err(|_| self.broken("no answer", io::ErrorKind::TimedOut.into()))??;
            match answer {
                FromChassis::Error { tag: Some(t), code, message } if t == tag => {
                    return Err(ClientError::Refused { code, message });
                }
                FromChassis::Error { tag: None, code, message } => return Err(ClientError::Refused { code, message }),
                FromChassis::Readings { .. } => {}
                answer => return Ok(answer),
            }
        }
    }

    /// The next message; readings also go into the image.
    async fn next(&mut self) -> Result<FromChassis, ClientError> {
        let line = match self.lines.next().await {
            Ok(Some(line)) => line,
            Ok(None) => return Err(self.broken("it closed the connection", io::ErrorKind::UnexpectedEof.into())),
            Err(LineError::Broken(source)) => return Err(self.broken("cannot read", source)),
            Err(bad) => return Err(ClientError::NotAChassis(bad.to_string())),
        };
        let message = serde_json::from_str(&line).map_err(|error| ClientError::NotAChassis(error.to_string()))?;
        if let FromChassis::Readings { list, .. } = &message {
            for update in list {
                self.image.insert((update.object.clone(), update.attribute.clone()), update.clone());
            }
        }
        Ok(message)
    }

    async fn send(&mut self, message: &ToChassis) -> Result<(), ClientError> {
        self.to.write_all(to_line(message).as_bytes()).await.map_err(|source| self.broken("cannot write", source))
    }

    fn tag(&mut self) -> u64 {
        self.last_tag += 1;
        self.last_tag
    }

    fn broken(&self, what: &'static str, source: io::Error) -> ClientError {
        ClientError::Connection { address: self.chassis.to_string(), what, source }
    }
}

fn unexpected(answer: &FromChassis) -> ClientError {
    ClientError::NotAChassis(format!("unexpected answer {answer:?}"))
}

const ANSWER_WITHIN: Duration = Duration::from_secs(5);
