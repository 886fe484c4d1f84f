//! One client's connection: hello first, then lines both ways. It knows nothing of the chassis.

use std::sync::Arc;

use sixnines_core::ids::ChassisName;
use sixnines_core::time::Duration;
use tokio::io::{AsyncWriteExt, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::debug;

use crate::chassis::lines::{LineError, Lines};
use crate::chassis::wire::{FromChassis, Hello, LINE_BYTES_MAX, PROTOCOL, ToChassis, VERSION, build, to_line};

/// Names a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClientId(pub(super) u64);

/// What a connection tells the server.
#[derive(Debug)]
pub(super) enum Said {
    Message(ToChassis),
    /// A line could not be read; the connection ends.
    Garbage,
    /// The last thing that a connection says.
    Gone,
}

/// Moves lines until either side ends.
pub(super) async fn run(
    client: ClientId,
    chassis: ChassisName,
    stream: TcpStream,
    said: mpsc::Sender<(ClientId, Said)>,
    outbox: mpsc::Receiver<Arc<str>>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "no delay cannot be turned off"); // only slower
    }
    let (from, mut to) = tokio::io::split(stream);
    let mut lines = Lines::new(from, LINE_BYTES_MAX);
    let ended = match timeout(HELLO_WITHIN, greet(&mut lines, &mut to, chassis)).await {
        Ok(Ok(())) => exchange(client, &mut lines, &mut to, &said, outbox).await,
        Ok(Err(end)) => end,
        Err(_) => End::Bad("hello-first", "no hello within 5 s".into()),
    };
    if let End::Bad(code, message) = ended {
        let line = to_line(&FromChassis::Error { tag: None, code: code.into(), message });
        // It may not read, or be gone: then it does not learn why.
        if timeout(HELLO_WITHIN, to.write_all(line.as_bytes())).await.is_err() {
            debug!(client = client.0, "does not take its error");
        }
        tell(&said, client, Said::Garbage).await;
    }
    tell(&said, client, Said::Gone).await;
}

/// Why a connection ends.
enum End {
    /// The other side closed it, or it broke.
    Closed,
    /// The other side said what cannot be understood: code and sentence.
    Bad(&'static str, String),
}

async fn greet(
    lines: &mut Lines<impl tokio::io::AsyncRead + Unpin>,
    to: &mut WriteHalf<TcpStream>,
    chassis: ChassisName,
) -> Result<(), End> {
    let line = next(lines).await?;
    let Ok(ToChassis::Hello(hello)) = serde_json::from_str(&line) else {
        return Err(End::Bad("hello-first", format!("the first line has to be a hello of {PROTOCOL}")));
    };
    refuse(&hello)?;
    let welcome = FromChassis::Welcome { protocol: PROTOCOL.into(), version: VERSION, chassis, build: build() };
    to.write_all(to_line(&welcome).as_bytes()).await.map_err(|_| End::Closed)
}

fn refuse(hello: &Hello) -> Result<(), End> {
    if hello.protocol != PROTOCOL {
        return Err(End::Bad("wrong-protocol", format!("this is {PROTOCOL}, not {:?}", hello.protocol)));
    }
    let [low, high] = hello.versions;
    if !(low..=high).contains(&VERSION) {
        return Err(End::Bad("wrong-version", format!("this speaks version {VERSION}, {} speaks {low} to {high}", hello.build)));
    }
    Ok(())
}

async fn exchange(
    client: ClientId,
    lines: &mut Lines<impl tokio::io::AsyncRead + Unpin>,
    to: &mut WriteHalf<TcpStream>,
    said: &mpsc::Sender<(ClientId, Said)>,
    mut outbox: mpsc::Receiver<Arc<str>>,
) -> End {
    loop {
        tokio::select! {
            line = next(lines) => match line.map(|line| serde_json::from_str(&line)) {
                Err(end) => return end,
                Ok(Err(error)) => return End::Bad("bad-line", format!("not a message of {PROTOCOL}: {error}")),
                Ok(Ok(message)) => tell(said, client, Said::Message(message)).await,
            },
            line = outbox.recv() => match line {
                None => return End::Closed,
                Some(line) => if to.write_all(line.as_bytes()).await.is_err() { return End::Closed },
            },
        }
    }
}

/// Cancel safe, as [`Lines::next`] is.
async fn next(lines: &mut Lines<impl tokio::io::AsyncRead + Unpin>) -> Result<String, End> {
    match lines.next().await {
        Ok(Some(line)) => Ok(line),
        Ok(None) | Err(LineError::Broken(_)) => Err(End::Closed),
        Err(bad) => Err(End::Bad("bad-line", bad.to_string())),
    }
}

async fn tell(said: &mpsc::Sender<(ClientId, Said)>, client: ClientId, what: Said) {
    if said.send((client, what)).await.is_err() {
        debug!(client = client.0, "the chassis has ended");
    }
}

const HELLO_WITHIN: Duration = Duration::from_secs(5);
