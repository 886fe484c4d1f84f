//! The door: who may connect, and for which group.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

use super::connection::{self, NewApp};
use super::seats::Seat;
use super::{Order, Service};
use crate::protocol::{Hello, Inbox, Refused, ToApp, ToService, VERSION};

/// Why the service could not be started.
#[derive(Debug, thiserror::Error)]
#[error("could not make the checkpoint socket {path}")]
pub struct StartError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// An application says who it is within this time.
const HELLO_WITHIN: Duration = Duration::from_secs(2);
/// One that gets no seat has less time for it.
const TURN_AWAY_WITHIN: Duration = Duration::from_millis(250);

/// Makes the socket. One that a dead process has left is removed; the caller holds the lock of the state directory.
pub(super) fn listen(path: &Path) -> Result<(std::os::unix::net::UnixListener, PathBuf), StartError> {
    let make = || {
        if std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket()) {
            std::fs::remove_file(path)?;
        }
        let listener = std::os::unix::net::UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    make().map(|l| (l, path.to_owned())).map_err(|source| StartError { path: path.to_owned(), source })
}

pub(super) fn into_tokio((listener, path): (std::os::unix::net::UnixListener, PathBuf)) -> Result<UnixListener, StartError> {
    UnixListener::from_std(listener).map_err(|source| StartError { path, source })
}

/// Takes connections until the service ends.
pub(super) async fn run(listener: UnixListener, service: Service) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match service.inner.seats.take() {
                Some(seat) => service.keep(service.inner.runtime.spawn(greet(stream, service.clone(), seat))),
                None => turn_away(stream, &service),
            },
            Err(error) => {
                tracing::warn!(%error, "an application could not connect");
                tokio::time::sleep(Duration::from_millis(10)).await; // out of descriptors, say: it may pass
            }
        }
    }
}

/// No seat is left. Whoever comes is heard out first, or its greeting would fail before it has read the answer.
fn turn_away(stream: UnixStream, service: &Service) {
    let refused = Refused::Full(u32::try_from(service.inner.seats.max()).unwrap_or(u32::MAX));
    if service.inner.seats.is_news() {
        tracing::warn!(%refused, "an application was refused; it asks again by itself");
    }
    let Some(standing) = service.inner.seats.stand() else { return connection::tell_once(&stream, &ToApp::Refused(refused)) };
    let refusal = async move {
        drop(tokio::time::timeout(TURN_AWAY_WITHIN, read_hello(&stream, &mut Inbox::default())).await);
        connection::tell_once(&stream, &ToApp::Refused(refused));
        drop(standing);
    };
    service.keep(service.inner.runtime.spawn(refusal));
}

async fn greet(stream: UnixStream, service: Service, seat: Seat) {
    let mut inbox = Inbox::default();
    let hello = tokio::time::timeout(HELLO_WITHIN, read_hello(&stream, &mut inbox)).await;
    let Ok(Some(hello)) = hello else {
        tracing::debug!("a connection that did not say who it is");
        return;
    };
    let refused = match check(&stream, &service, &hello) {
        Ok(orders) => {
            let app = NewApp { stream, inbox, group: hello.group, seat };
            super::send(&orders, Order::App(Box::new(app)));
            return;
        }
        Err(refused) => refused,
    };
    if matches!(refused, Refused::NotJoined) {
        tracing::debug!(%refused, "an application asks too early; it asks again by itself");
    } else {
        tracing::warn!(%refused, build = hello.build, "an application was refused");
    }
    connection::tell_once(&stream, &ToApp::Refused(refused));
}

async fn read_hello(stream: &UnixStream, inbox: &mut Inbox) -> Option<Hello> {
    loop {
        stream.readable().await.ok()?;
        match stream.try_read_buf(inbox.room(4096)) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return None,
        }
        match inbox.next() {
            Ok(Some(ToService::Hello(hello))) => return Some(hello),
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => return None,
        }
    }
}

fn check(stream: &UnixStream, service: &Service, hello: &Hello) -> Result<tokio::sync::mpsc::UnboundedSender<Order>, Refused> {
    let (oldest, newest) = hello.versions;
    if !(oldest..=newest).contains(&VERSION) {
        return Err(Refused::Version(VERSION));
    }
    let uid = stream.peer_cred().map(|c| c.uid()).ok();
    let own = nix::unistd::geteuid().as_raw();
    let token = service.inner.config.tokens.get(&hello.group);
    if uid.is_none_or(|u| u != own && u != 0) || token.is_some_and(|t| *t != hello.token) {
        return Err(Refused::NotPermitted(hello.group.clone()));
    }
    let groups = service.groups();
    if groups.me.is_none() {
        return Err(Refused::NotJoined);
    }
    let orders = groups.orders.get(&hello.group);
    orders.map(|o| o.queue.clone()).ok_or_else(|| Refused::UnknownGroup(hello.group.clone()))
}
