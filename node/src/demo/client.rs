//! The demo's hold on its load generator: a process in the client's room, spoken to by lines.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use crossbeam::channel::{Receiver, RecvTimeoutError, bounded};

use super::lab::Lab;
use crate::loadgen::machine::ReadBack;
use crate::loadgen::{Command, Reply, record};
use crate::sniffer;

/// The hidden subcommand that runs the load generator.
pub(crate) const CLIENT: &str = "demo-client";
/// How long a reply may take. A finish waits for open requests and reads all calls back: 10 s each.
const REPLY_WITHIN: Duration = Duration::from_secs(40);

/// A running load generator. It ends when this is dropped.
pub(crate) struct Client {
    child: Child,
    lines: ChildStdin,
    replies: Receiver<anyhow::Result<Reply>>,
    /// Whether its prober has real-time priority.
    pub(crate) realtime: bool,
    /// Whether it watches frames; if not, why.
    pub(crate) sniffer: Result<(), String>,
}

/// What the client saw in one window.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    /// By its requests.
    pub(crate) client: record::Report,
    /// By its sniffer.
    pub(crate) frames: Option<sniffer::Report>,
    /// Calls set up so far.
    pub(crate) calls_up: u64,
}

impl Seen {
    /// Of a window that was never opened.
    pub(crate) fn nothing(mark: &str) -> Self {
        let now = crate::realtime::now();
        let mut record = record::Record::new(now);
        record.mark(now, mark);
        Self { client: record.report(now), frames: None, calls_up: 0 }
    }
}

impl Client {
    /// Starts it with `calls` calls and waits until it sends.
    ///
    /// # Errors
    /// If it does not come up; its log (`client.log`) tells more.
    pub(crate) fn start(lab: &Lab, calls: u32) -> anyhow::Result<Self> {
        let room = lab.room("client");
        let mut command = room.command(std::env::current_exe().context("finding this program")?);
        command.arg(CLIENT).arg("--calls").arg(calls.to_string());
        for to in lab.service() {
            command.arg("--to").arg(to.to_string());
        }
        if room.netns().is_ok() {
            command.args(["--sniff", "eth0"]);
        }
        let log = std::fs::File::options().create(true).append(true).open(room.log()).context("opening the client's log")?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = room.spawn(command)?;
        let lines = child.stdin.take().context("the client has no input")?;
        let out = child.stdout.take().context("the client has no output")?;
        let (to_us, replies) = bounded(16);
        std::thread::Builder::new()
            .name("client-lines".into())
            .spawn(move || {
                for line in BufReader::new(out).lines() {
                    let reply = line.map_err(anyhow::Error::from).and_then(|line| Ok(serde_json::from_str(&line)?));
                    if to_us.send(reply).is_err() {
                        return;
                    }
                }
            })
            .context("starting the thread that reads the client")?;
        let mut client = Self { child, lines, replies, realtime: false, sniffer: Ok(()) };
        match client.reply()? {
            Reply::Ready { realtime, sniffer } => {
                client.realtime = realtime;
                client.sniffer = sniffer;
                Ok(client)
            }
            other => anyhow::bail!("the client began with {other:?}"),
        }
    }

    /// Begins a window.
    pub(crate) fn mark(&mut self, name: &str) -> anyhow::Result<()> {
        match self.ask(&Command::Mark { name: name.to_owned() })? {
            Reply::Marked { .. } => Ok(()),
            other => anyhow::bail!("the client answered a mark with {other:?}"),
        }
    }

    /// What was seen since the mark.
    pub(crate) fn report(&mut self) -> anyhow::Result<Seen> {
        match self.ask(&Command::Report)? {
            Reply::Report { client, frames, calls_up } => Ok(Seen { client: *client, frames, calls_up }),
            other => anyhow::bail!("the client reported {other:?}"),
        }
    }

    /// Reads every call back, beside the load.
    pub(crate) fn read_back(&mut self) -> anyhow::Result<ReadBack> {
        self.read(&Command::ReadBack)
    }

    /// Stops the load and reads every call back. The client has ended then: it answers nothing more.
    pub(crate) fn finish(&mut self) -> anyhow::Result<ReadBack> {
        self.read(&Command::Finish)
    }

    fn read(&mut self, command: &Command) -> anyhow::Result<ReadBack> {
        match self.ask(command)? {
            Reply::ReadBack(result) => Ok(result),
            other => anyhow::bail!("the client read back {other:?}"),
        }
    }

    /// Sends one command and waits for its reply.
    pub(crate) fn ask(&mut self, command: &Command) -> anyhow::Result<Reply> {
        let mut line = serde_json::to_string(command).context("writing a command")?;
        line.push('\n');
        self.lines.write_all(line.as_bytes()).context("speaking to the client")?;
        self.reply()
    }

    fn reply(&mut self) -> anyhow::Result<Reply> {
        match self.replies.recv_timeout(REPLY_WITHIN) {
            Ok(reply) => reply.context("reading the client's line"),
            Err(RecvTimeoutError::Timeout) => anyhow::bail!("the client has not answered for {REPLY_WITHIN:?}"),
            Err(RecvTimeoutError::Disconnected) => anyhow::bail!("the client is gone; see client.log"),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It ends by itself at the end of its input; this is for the one that does not listen.
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            tracing::debug!(%error, "the client could not be waited for");
        }
    }
}
