//! The thread of one serial line: a device and a clock around one [`Line`].
//!
//! The device never blocks it, and it blocks nobody: what a line does not take waits here, one frame at most. A device that is not there or goes away
//! is looked for again every second.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, TryRecvError};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::termios::{self, BaudRate, ControlFlags, FlushArg, SetArg};
use nix::sys::time::TimeSpec;
use sixnines_core::ids::{Epoch, GroupName, NodeId};
use sixnines_core::roles::Told;
use sixnines_core::time::{Duration, Instant};

use super::{Beat, Input, Line, Output, State};
use crate::liveness::seal::KEY_LENGTH;
use crate::liveness::shell::boot_now;

/// What a line's thread is made for.
#[derive(Clone, Debug)]
pub struct Setup {
    /// This node.
    pub me: NodeId,
    /// Who is at the other end.
    pub peer: NodeId,
    /// Drawn anew for each start of the process.
    pub life: u64,
    /// A tty, or another character device.
    pub device: PathBuf,
    /// Bits a second; one that [`is_baud`] knows.
    pub baud: u32,
}

/// What the thread is told.
#[derive(Debug)]
pub enum Order {
    /// A session with the peer has a new key.
    Key(u32, [u8; KEY_LENGTH]),
    /// The peer does not belong here any more.
    Forget,
    /// On this fabric link the peer is heard, or not.
    Link(u8, bool),
    /// Under this epoch this node is the active of a group, or is not any more.
    Active(GroupName, Option<Epoch>),
    /// A word for the peer.
    Tell(Told),
    /// End.
    Stop,
}

/// What the thread tells.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// How the line is, and what the peer has said last if it is heard.
    State {
        /// How it is.
        state: State,
        /// What was said.
        beat: Option<Beat>,
        /// It was said after the last fabric link had been lost.
        outlives: bool,
        /// Why the device is closed, if it is.
        why: String,
    },
    /// The peer's own word.
    Told(Told),
}

/// The handle of a running line.
pub struct Handle {
    orders: Sender<Order>,
    wake: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    /// Starts the thread. `lease` says until when this node may speak; neither it nor `tell` may wait for anyone.
    ///
    /// # Errors
    /// If the operating system gives no thread or event descriptor. A device that cannot be opened is none: it is told.
    pub fn start(setup: Setup, lease: impl Fn() -> Instant + Send + 'static, tell: impl Fn(News) + Send + 'static) -> io::Result<Self> {
        let (orders, inbox) = crossbeam::channel::unbounded();
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
        let mut shell = Shell {
            line: Line::new(boot_now(), setup.me, setup.peer, setup.life, setup.baud),
            setup,
            lease: Box::new(lease),
            tell: Box::new(tell),
            inbox,
            wake: Arc::clone(&wake),
            device: None,
            unsent: VecDeque::new(),
            open_at: boot_now(),
            why: String::new(),
        };
        let thread = std::thread::Builder::new().name("serial".into()).spawn(move || shell.run())?;
        Ok(Self { orders, wake, thread: Some(thread) })
    }

    /// Tells the thread.
    pub fn order(&self, order: Order) {
        if self.orders.send(order).is_ok() && self.wake.write(1).is_err() {
            tracing::debug!("the serial line's wake-up is saturated");
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of a serial line panicked");
        }
    }
}

struct Shell {
    setup: Setup,
    line: Line,
    lease: Box<dyn Fn() -> Instant + Send>,
    tell: Box<dyn Fn(News) + Send>,
    inbox: Receiver<Order>,
    wake: Arc<EventFd>,
    device: Option<File>,
    /// Of the frame on its way, what the device has not taken.
    unsent: VecDeque<u8>,
    /// When a closed device is tried.
    open_at: Instant,
    why: String,
}

impl Shell {
    fn run(&mut self) {
        while self.take_orders() {
            self.look_for_device();
            self.receive();
            let now = boot_now();
            self.line.handle(now, Input::Suspended((self.lease)() <= now));
            self.carry_out();
            self.send();
            self.carry_out();
            self.sleep();
        }
    }

    /// False when it is time to end.
    fn take_orders(&mut self) -> bool {
        loop {
            let now = boot_now();
            match self.inbox.try_recv() {
                Ok(Order::Key(id, key)) => self.line.handle(now, Input::Key(id, key)),
                Ok(Order::Forget) => self.line.handle(now, Input::Forget),
                Ok(Order::Link(link, is_up)) => self.line.handle(now, Input::Link(link, is_up)),
                Ok(Order::Active(group, epoch)) => self.line.handle(now, Input::Active(group, epoch)),
                Ok(Order::Tell(told)) => self.line.handle(now, Input::Tell(&told)),
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    fn look_for_device(&mut self) {
        let now = boot_now();
        if self.device.is_some() || now < self.open_at {
            return;
        }
        match open(&self.setup) {
            Ok(device) => {
                self.device = Some(device);
                self.line.handle(now, Input::Device(true));
            }
            Err(error) => self.close(&error.to_string()),
        }
    }

    fn close(&mut self, why: &str) {
        self.device = None;
        self.unsent.clear();
        self.open_at = boot_now() + OPEN_AGAIN;
        self.why = why.to_owned();
        self.line.handle(boot_now(), Input::Device(false));
    }

    /// So much at once at most: the rest waits in the kernel, and a flood holds up nothing.
    fn receive(&mut self) {
        let Some(device) = &mut self.device else { return };
        let mut buffer = [0; 4096];
        match device.read(&mut buffer) {
            Ok(0) => self.close("the line was hung up"),
            Ok(length) => self.line.handle(boot_now(), Input::Bytes(&buffer[..length])),
            Err(error) if waits(&error) => {}
            Err(error) => self.close(&error.to_string()),
        }
    }

    fn send(&mut self) {
        let Some(device) = &mut self.device else { return };
        while !self.unsent.is_empty() {
            match device.write(self.unsent.as_slices().0) {
                Ok(length) if length > 0 => drop(self.unsent.drain(..length)),
                Ok(_) => return,
                Err(error) if waits(&error) => return,
                Err(error) => return self.close(&error.to_string()),
            }
            if self.unsent.is_empty() {
                self.line.handle(boot_now(), Input::Written);
            }
        }
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.line.poll_output() {
            match output {
                Output::Write(bytes) => self.unsent.extend(bytes),
                Output::State { state, beat, outlives } => {
                    let why = if state == State::Closed { self.why.clone() } else { String::new() };
                    (self.tell)(News::State { state, beat, outlives, why });
                }
                Output::Told(told) => (self.tell)(News::Told(told)),
            }
        }
    }

    fn sleep(&self) {
        let due = if self.device.is_some() { self.line.poll_timeout() } else { Some(self.open_at) };
        // A look once a second whatever happens: the lease may have ended.
        let wait = due.map_or(OPEN_AGAIN, |due| due.since(boot_now()).min(OPEN_AGAIN));
        let mut fds = vec![PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        if let Some(device) = &self.device {
            let out = if self.unsent.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
            fds.push(PollFd::new(device.as_fd(), PollFlags::POLLIN | out));
        }
        match ppoll(&mut fds, Some(TimeSpec::from_duration(wait)), None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => tracing::debug!(%error, "a serial line cannot be waited for"),
        }
        if fds[0].any() == Some(true) && self.wake.read().is_err() {
            tracing::trace!("somebody was faster");
        }
    }
}

fn open(setup: &Setup) -> io::Result<File> {
    if !std::fs::metadata(&setup.device)?.file_type().is_char_device() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no character device"));
    }
    let flags = OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let device = File::options().read(true).write(true).custom_flags(flags.bits()).open(&setup.device)?;
    let mut attributes = match termios::tcgetattr(&device) {
        Err(Errno::ENOTTY) => return Ok(device), // whatever it is, it carries bytes as they are
        other => other?,
    };
    termios::cfmakeraw(&mut attributes);
    attributes.control_flags |= ControlFlags::CLOCAL | ControlFlags::CREAD;
    let baud = rate(setup.baud).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{} is no baud rate", setup.baud)))?;
    termios::cfsetspeed(&mut attributes, baud)?;
    termios::tcsetattr(&device, SetArg::TCSANOW, &attributes)?;
    termios::tcflush(&device, FlushArg::TCIOFLUSH)?;
    Ok(device)
}

/// Whether a line can be driven at so many bits a second.
pub fn is_baud(baud: u32) -> bool {
    rate(baud).is_some()
}

/// The rates that every UART has.
pub const BAUDS: [u32; 7] = [9600, 19200, 38400, 57600, 115_200, 230_400, 460_800];

fn rate(baud: u32) -> Option<BaudRate> {
    let rates = [BaudRate::B9600, BaudRate::B19200, BaudRate::B38400, BaudRate::B57600, BaudRate::B115200, BaudRate::B230400, BaudRate::B460800];
    BAUDS.iter().zip(rates).find(|(known, _)| **known == baud).map(|(_, rate)| rate)
}

fn waits(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// How often a device that is not there is looked for.
const OPEN_AGAIN: Duration = Duration::from_secs(1);
