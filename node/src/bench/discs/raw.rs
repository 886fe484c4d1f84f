//! Bare QUIC: the same certificates, the library's own settings, one stream, written and read directly.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Endpoint, RecvStream, SendStream, ServerConfig};
use sixnines_discs::pki::{Authority, Members, certificate_name};

use super::{N1, N2, PATIENCE, SIZE, WARM_UP, identity};

/// Each round of 64 bytes there and back.
pub(super) fn there_and_back(rounds: usize) -> anyhow::Result<Vec<Duration>> {
    between(
        async |mut send, mut receive| {
            let mut buffer = [0; SIZE];
            while receive.read_exact(&mut buffer).await.is_ok() {
                send.write_all(&buffer).await?;
            }
            Ok(())
        },
        async |mut send, mut receive| {
            let mut buffer = [7; SIZE];
            let mut times = Vec::with_capacity(rounds + WARM_UP);
            for _ in 0..rounds + WARM_UP {
                let begin = Instant::now();
                send.write_all(&buffer).await?;
                receive.read_exact(&mut buffer).await?;
                times.push(begin.elapsed());
            }
            times.drain(..WARM_UP);
            Ok(times)
        },
    )
}

/// Megabytes a second on one stream, in writes of 64 KiB.
pub(super) fn stream(megabytes: u32) -> anyhow::Result<f64> {
    between(
        async |mut send, mut receive| {
            let mut chunks: [Bytes; 32] = std::array::from_fn(|_| Bytes::new());
            while let Ok(Some(_)) = receive.read_chunks(&mut chunks).await {}
            send.write_all(b"!").await?;
            send.finish()?;
            send.stopped().await?;
            Ok(())
        },
        async |mut send, mut receive| {
            let (begin, piece) = (Instant::now(), Bytes::from(vec![7; 65_536]));
            for _ in 0..megabytes * 1_000_000 / 65_536 {
                send.write_chunk(piece.clone()).await?;
            }
            send.finish()?;
            receive.read_exact(&mut [0]).await?;
            Ok(f64::from(megabytes) / begin.elapsed().as_secs_f64())
        },
    )
}

fn between<T>(
    server: impl AsyncFnOnce(SendStream, RecvStream) -> anyhow::Result<()> + Send + 'static,
    client: impl AsyncFnOnce(SendStream, RecvStream) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let authority = Authority::create("bench")?;
    let tls = identity(&authority, N2)?.server_config(Members::new("bench", [(N1, 0)]))?;
    let serve = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    let tls = identity(&authority, N1)?.client_config(Members::new("bench", [(N2, 0)]))?;
    let dial = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (bound, address) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        runtime()?.block_on(async {
            let endpoint = Endpoint::server(serve, any)?;
            bound.send(endpoint.local_addr()?).context("the client has gone")?;
            let connection = endpoint.accept().await.context("the client does not come")?.await?;
            let (send, receive) = connection.accept_bi().await?;
            server(send, receive).await
        })
    });
    let address = address.recv_timeout(PATIENCE).context("the server does not come up")?;
    let result = runtime()?.block_on(async {
        let endpoint = Endpoint::client(any)?;
        let (send, receive) = endpoint.connect_with(dial, address, &certificate_name("bench", N2))?.await?.open_bi().await?;
        let result = client(send, receive).await;
        endpoint.close(0u32.into(), b"");
        endpoint.wait_idle().await;
        result
    });
    let served: anyhow::Result<()> = thread.join().map_err(|_| anyhow::anyhow!("the server panicked"))?;
    if let Err(error) = served {
        tracing::debug!(%error, "the server's end, when the client was done");
    }
    result
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("a runtime")
}
