//! The SDK's thread: reads the socket, runs closures, beats, and connects again when the node's service is back.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sixnines_core::ids::GroupName;

use super::core::{Pace, Ready, Shared};
use super::error::ConnectError;
use crate::guard::{self, GuardView};
use crate::protocol::{Hello, Inbox, Refused, ToApp, ToService, VERSION, encode};

/// Where to connect, and as what.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) path: PathBuf,
    pub(super) group: GroupName,
    pub(super) token: String,
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Link {
    stream: Arc<UnixStream>,
    inbox: Inbox,
}

const BEAT: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_millis(20);
/// The service answers a greeting within this time.
const GREET_WITHIN: Duration = Duration::from_secs(2);
const READ_BYTES: usize = 64 << 10;

impl Link {
    /// Connects, waiting for a node that is just starting or for a former process of the group to be gone.
    pub(super) fn connect_patiently(target: &Target, shared: &Shared, within: Duration) -> Result<Self, ConnectError> {
        let until = Instant::now() + within;
        loop {
            match Self::connect(target, shared) {
                Err(error) if may_pass(&error) && Instant::now() < until && !shared.is_closed() => pause(shared),
                result => return result,
            }
        }
    }

    fn connect(target: &Target, shared: &Shared) -> Result<Self, ConnectError> {
        let no_answer = |source| ConnectError::NoAnswer { path: target.path.clone(), source };
        let protocol = || ConnectError::Protocol { path: target.path.clone() };
        let stream = UnixStream::connect(&target.path).map_err(no_answer)?;
        stream.set_read_timeout(Some(GREET_WITHIN)).map_err(no_answer)?;
        let hello = Hello {
            versions: (VERSION, VERSION),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            group: target.group.clone(),
            token: target.token.clone(),
        };
        let mut bytes = Vec::new();
        encode(&ToService::Hello(hello), &mut bytes);
        (&stream).write_all(&bytes).map_err(no_answer)?;
        let mut inbox = Inbox::default();
        let mut page = None;
        let answer = loop {
            if let Some(message) = inbox.next::<ToApp>().map_err(|_| protocol())? {
                break message;
            }
            let mut some = [0; 4096];
            let (count, descriptor) = guard::receive(stream.as_fd(), &mut some).map_err(no_answer)?;
            if count == 0 {
                return Err(no_answer(io::ErrorKind::UnexpectedEof.into()));
            }
            page = page.or(descriptor);
            inbox.room(count).extend_from_slice(&some[..count]);
        };
        let (slot, page) = match (answer, page) {
            (ToApp::Welcome { guard_slot, .. }, Some(page)) => (guard_slot, page),
            (ToApp::Refused(refused), _) => return Err(ConnectError::Refused(refused)),
            _ => return Err(protocol()),
        };
        let view = GuardView::map(page.as_fd(), slot).map_err(no_answer)?;
        stream.set_nonblocking(true).map_err(no_answer)?;
        let stream = Arc::new(stream);
        shared.lock().connected(Arc::clone(&stream), view);
        Ok(Self { stream, inbox })
    }

    /// Until the connection ends.
    fn run(&mut self, shared: &Shared) {
        let mut beat_at = Instant::now();
        while !shared.is_closed() {
            if Instant::now() >= beat_at {
                beat_at = Instant::now() + BEAT;
                if shared.may_beat() {
                    shared.lock().send(&ToService::Beat);
                }
            }
            let (pace, unsent) = {
                let mut core = shared.lock();
                core.flush();
                (core.pace(), core.unsent())
            };
            let until_beat = beat_at.saturating_duration_since(Instant::now());
            let wait = match pace {
                Pace::Lease => Duration::from_millis(1),
                Pace::InFlight => Duration::from_millis(10),
                Pace::Idle => BEAT,
            };
            if !self.wait(wait.min(until_beat), unsent > 0) || !self.read(shared) {
                return;
            }
            run_all(shared.lock().lease_due());
        }
    }

    /// False if the socket is of no more use.
    fn wait(&self, within: Duration, to_write: bool) -> bool {
        let mut events = PollFlags::POLLIN;
        events.set(PollFlags::POLLOUT, to_write);
        let mut sockets = [PollFd::new(self.stream.as_fd(), events)];
        let millis = u16::try_from(within.as_millis()).unwrap_or(u16::MAX).max(1);
        match poll(&mut sockets, PollTimeout::from(millis)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => true,
            Err(error) => {
                tracing::error!(%error, "the checkpoint socket cannot be waited for");
                false
            }
        }
    }

    /// Takes everything that has come; false at the end.
    fn read(&mut self, shared: &Shared) -> bool {
        let mut open = true;
        let mut some = [0; READ_BYTES];
        let count = loop {
            match (&*self.stream).read(&mut some) {
                Ok(0) => open = false,
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => open = false,
            }
            break 0;
        };
        self.inbox.room(count).extend_from_slice(&some[..count]);
        let mut ready = Vec::new();
        let mut core = shared.lock();
        loop {
            match self.inbox.next::<ToApp>() {
                Ok(Some(message)) => ready.extend(core.take(message)),
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "the node's service sent what is no message");
                    open = false;
                    break;
                }
            }
        }
        core.flush(); // What waited for company goes with the answers.
        drop(core);
        shared.changed.notify_all();
        run_all(ready);
        open
    }
}

/// Starts the thread.
pub(super) fn start(link: Link, target: Target, shared: Arc<Shared>) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("nines-app".into()).spawn(move || {
        shared.thread.get_or_init(|| std::thread::current().id());
        let mut link = Some(link);
        while !shared.is_closed() {
            if let Some(mut link) = link.take() {
                link.run(&shared);
                run_all(shared.lock().disconnected());
                shared.changed.notify_all();
            }
            match Link::connect(&target, &shared) {
                Ok(new) => link = Some(new),
                Err(error) => {
                    tracing::debug!(%error, "the node's service is not back yet");
                    pause(&shared);
                }
            }
        }
        run_all(shared.lock().disconnected());
        shared.changed.notify_all();
    })
}

fn run_all(ready: Vec<Ready>) {
    for (result, then) in ready {
        then(result);
    }
}

/// Until it is worth another try, or the application is closed.
fn pause(shared: &Shared) {
    let core = shared.lock();
    if !shared.is_closed() {
        drop(shared.changed.wait_timeout(core, RETRY).unwrap_or_else(PoisonError::into_inner));
    }
}

fn may_pass(error: &ConnectError) -> bool {
    matches!(error, ConnectError::NoAnswer { .. } | ConnectError::Refused(Refused::Taken(_) | Refused::NotJoined | Refused::Full(_)))
}
