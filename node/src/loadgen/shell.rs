//! Drives one [`Machine`]: the socket, the clock, the schedule, the lines.

use std::io::{BufRead as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::Duration;

use anyhow::Context as _;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use sixnines_core::time::Instant;

use super::machine::{Machine, Output};
use super::wire::Answer;
use super::{Command, Options, Reply};
use crate::realtime;
use crate::sniffer::Sniffer;

/// One request in so long: 1 kHz.
const TURN: Duration = Duration::from_millis(1);
/// Above ordinary work, below every real-time thread of a node: the prober must not delay what it judges.
const PRIORITY: i32 = 5;
/// For answers that come while the prober is not scheduled.
const SOCKET_BYTES: usize = 4 << 20;
/// How long [`Command::Finish`] waits for requests under way before it reads back.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Lines waiting either way; the other side waits at the bound.
const LINES_MAX: usize = 16;

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let (to_loop, commands) = bounded::<Command>(LINES_MAX);
    let (to_stdout, replies) = bounded::<Reply>(LINES_MAX);
    std::thread::Builder::new()
        .name("lines-in".into())
        .spawn(move || read_lines(&to_loop))
        .context("starting the thread that reads commands")?;
    let prober = Prober::new(options, commands, to_stdout)?;
    let handle = std::thread::Builder::new().name("prober".into()).spawn(move || prober.run()).context("starting the prober")?;
    write_lines(&replies)?;
    handle.join().map_err(|_| anyhow::anyhow!("the prober panicked"))?
}

/// A line that is no command ends the client: whoever drives it speaks another version.
fn read_lines(commands: &Sender<Command>) {
    for line in std::io::stdin().lock().lines() {
        match line.map_err(anyhow::Error::from).and_then(|line| Ok(serde_json::from_str(&line)?)) {
            Ok(command) => {
                if commands.send(command).is_err() {
                    return;
                }
            }
            Err(error) => {
                eprintln!("demo-client: not a command: {error:#}");
                return;
            }
        }
    }
}

fn write_lines(replies: &Receiver<Reply>) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    loop {
        match replies.recv_timeout(Duration::from_secs(3600)) {
            Ok(reply) => {
                serde_json::to_writer(&mut out, &reply).context("writing a reply")?;
                out.write_all(b"\n").and_then(|()| out.flush()).context("writing a reply")?;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// What a command still waits for.
enum Waiting {
    ReadBack,
    /// Until the machine is idle or this moment; then the last reading back.
    Drain(Instant),
    LastReadBack,
}

struct Prober {
    machine: Machine,
    socket: UdpSocket,
    to: Vec<SocketAddr>,
    sniffer: Option<Sniffer>,
    sniffer_error: Result<(), String>,
    commands: Receiver<Command>,
    replies: Sender<Reply>,
    waiting: Option<Waiting>,
    line: String,
}

impl Prober {
    fn new(options: &Options, commands: Receiver<Command>, replies: Sender<Reply>) -> anyhow::Result<Self> {
        anyhow::ensure!(options.calls > 0, "a load of no calls proves nothing: --calls 1 or more");
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("opening the client's socket")?;
        socket.set_nonblocking(true).context("opening the client's socket")?;
        // Granted or not: a smaller buffer costs answers only if the prober sleeps long, and then its lateness shows.
        let granted = nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &SOCKET_BYTES)
            .or_else(|_| nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBuf, &SOCKET_BYTES));
        if let Err(error) = granted {
            eprintln!("demo-client: socket buffer stays at its default: {error}");
        }
        let (sniffer, sniffer_error) = match (&options.sniff, options.to[0]) {
            (Some(device), SocketAddr::V4(to)) => match Sniffer::start(device, *to.ip()) {
                Ok(sniffer) => (Some(sniffer), Ok(())),
                Err(error) => (None, Err(format!("{error:#}"))),
            },
            _ => (None, Err("not asked for".to_owned())),
        };
        // Which client this is only has to differ from run to run of one service's life.
        let client = now().as_nanos() ^ (u64::from(std::process::id()) << 48);
        let machine = Machine::new(client, options.calls, now());
        Ok(Self { machine, socket, to: options.to.clone(), sniffer, sniffer_error, commands, replies, waiting: None, line: String::new() })
    }

    fn run(mut self) -> anyhow::Result<()> {
        let realtime = realtime::fifo(PRIORITY).is_ok();
        self.replies.send(Reply::Ready { realtime, sniffer: self.sniffer_error.clone() }).context("the control lines are gone")?;
        let mut turn = now() + TURN;
        loop {
            while turn <= now() {
                self.machine.tick(turn, now());
                turn = turn + TURN;
                if !self.carry_out()? {
                    return Ok(());
                }
            }
            self.wait_until(turn)?;
            self.hear();
            if !self.obey()? || !self.carry_out()? {
                return Ok(());
            }
        }
    }

    /// False when the last thing asked for is done.
    fn carry_out(&mut self) -> anyhow::Result<bool> {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Send(request) => {
                    request.encode(&mut self.line);
                    for to in &self.to {
                        // An address that is nowhere now (no route, no neighbour) is what an outage looks like from here.
                        let _unsent_is_unanswered = self.socket.send_to(self.line.as_bytes(), to);
                    }
                }
                Output::ReadBack(result) => {
                    let last = matches!(self.waiting.take(), Some(Waiting::LastReadBack));
                    self.replies.send(Reply::ReadBack(result)).context("the control lines are gone")?;
                    if last {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    fn wait_until(&self, turn: Instant) -> anyhow::Result<()> {
        let rest = turn.since(now());
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut fds, Some(TimeSpec::from_duration(rest)), None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error).context("waiting for answers"),
        }
    }

    fn hear(&mut self) {
        let mut bytes = [0u8; 512];
        // An error is an ICMP message about an earlier request, or an empty socket.
        while let Ok((length, from)) = self.socket.recv_from(&mut bytes) {
            if self.to.contains(&from)
                && let Some(answer) = Answer::decode(&bytes[..length])
            {
                self.machine.answer(now(), answer);
            }
        }
    }

    /// Takes one command at most, and none while one waits. False at the end of the input.
    fn obey(&mut self) -> anyhow::Result<bool> {
        if let Some(Waiting::Drain(until)) = self.waiting {
            if self.machine.is_idle() || now() >= until {
                self.machine.read_back(now());
                self.waiting = Some(Waiting::LastReadBack);
            }
            return Ok(true);
        }
        if self.waiting.is_some() {
            return Ok(true);
        }
        let command = match self.commands.try_recv() {
            Ok(command) => command,
            Err(TryRecvError::Empty) => return Ok(true),
            Err(TryRecvError::Disconnected) => return Ok(false),
        };
        let reply = match command {
            Command::Mark { name } => {
                let now = now();
                self.machine.record.mark(now, &name);
                if let Some(sniffer) = &self.sniffer {
                    sniffer.mark();
                }
                Reply::Marked { at_ns: now.as_nanos() }
            }
            Command::Report => Reply::Report {
                client: Box::new(self.machine.record.report(now())),
                frames: self.sniffer.as_ref().map(|s| s.report(self.machine.record.epoch_changes())),
                calls_up: self.machine.calls_up() as u64,
            },
            Command::ReadBack => {
                self.waiting = Some(Waiting::ReadBack);
                self.machine.read_back(now());
                return Ok(true);
            }
            Command::Finish => {
                self.machine.stop_loading();
                self.waiting = Some(Waiting::Drain(now() + DRAIN_MAX));
                return Ok(true);
            }
        };
        self.replies.send(reply).context("the control lines are gone")?;
        Ok(true)
    }
}

/// The boot-time clock.
fn now() -> Instant {
    realtime::now()
}
