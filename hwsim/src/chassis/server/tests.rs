//! A served chassis, over loopback. Everything waits for states, nothing for times.

use std::sync::atomic::{AtomicU64, Ordering};

use sixnines_core::ids::{Epoch, EventId};
use sixnines_core::value::{Outcome, Request, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::chassis::client::{Client as ChassisClient, ClientError};
use crate::chassis::wire::LINE_BYTES_MAX;
use crate::chassis::{Injection, Plan};
use sixnines_core::time::Duration;

/// A chassis that is served, on a clock that runs a hundred times faster than the machine's.
pub(crate) struct Served {
    pub(crate) address: String,
    stop: watch::Sender<bool>,
    task: JoinHandle<io::Result<()>>,
}

impl Served {
    pub(crate) async fn start(listener: TcpListener, name: &str) -> Self {
        let address = listener.local_addr().expect("bound").to_string();
        let (stop, stopped) = watch::channel(false);
        let chassis = Chassis::new(Plan::mxp().named(name.into()), Instant::ZERO);
        let clock = AtomicU64::new(0);
        // Moves with each question: the test's chassis never depends on how fast this machine is.
        let clock = move || Instant::from_nanos(clock.fetch_add(100_000_000, Ordering::Relaxed));
        let task = tokio::spawn(serve(chassis, listener, clock, stopped));
        Self { address, stop, task }
    }

    pub(crate) async fn on_loopback() -> Self {
        Self::start(TcpListener::bind("127.0.0.1:0").await.expect("loopback"), "mxp1").await
    }

    pub(crate) async fn end(self) {
        self.stop.send(true).expect("it serves");
        self.task.await.expect("no panic").expect("no error");
    }

    async fn client(&self) -> ChassisClient {
        ChassisClient::connect(&self.address, "test").await.expect("it serves")
    }
}

fn duty(percent: i64, epoch: u64) -> Request {
    let value = Some(Value::Int(percent));
    Request { id: EventId::default(), object: "/mxp1/fan1".into(), control: "duty".into(), value, epoch: Epoch(epoch) }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.expect("in time")
}

#[tokio::test]
async fn several_clients_order_inject_and_watch() {
    let served = Served::on_loopback().await;
    let (mut owner, mut watcher, mut injector) = (served.client().await, served.client().await, served.client().await);
    assert_eq!(owner.chassis().as_str(), "mxp1");
    watcher.subscribe().await.expect("connected");
    within(watcher.wait_for(|w| w.image().len() == 3 + 10 + 6 + 18 * 8 + 4 + 1)).await.expect("a full image");

    assert_eq!(owner.request(duty(100, 2)).await.expect("connected"), Outcome::Done);
    within(watcher.wait_for(|w| w.value("/mxp1/fan1", "duty") == Some(&Value::Int(100)))).await.expect("the change");
    within(watcher.wait_for(|w| matches!(w.value("/mxp1/fan1", "speed"), Some(Value::Int(5980..)))))
        .await
        .expect("the fan follows");

    let id = injector.inject(Injection::parse("fan-failed", ["fan=1"]).expect("words")).await.expect("fan 1 exists");
    within(watcher.wait_for(|w| matches!(w.value("/mxp1/fan1", "speed"), Some(Value::Int(..100))))).await.expect("it fails");
    assert_eq!(injector.faults().await.expect("connected").iter().map(|f| f.id).collect::<Vec<_>>(), [id]);
    assert_eq!(injector.clear(Some(id)).await.expect("active"), 1);
    assert!(matches!(injector.clear(Some(id)).await, Err(ClientError::Refused { code, .. }) if code == "not-active"));
    let wrong = injector.inject(Injection::parse("fan-faild", []).expect("words")).await;
    assert!(matches!(wrong, Err(ClientError::Refused { message, .. }) if message.contains("did you mean")));
    served.end().await;
}

#[tokio::test]
async fn an_older_epoch_is_fenced_and_reported() {
    let served = Served::on_loopback().await;
    let (mut old, mut new) = (served.client().await, served.client().await);
    assert_eq!(old.request(duty(50, 3)).await.expect("connected"), Outcome::Done);
    assert_eq!(new.request(duty(60, 4)).await.expect("connected"), Outcome::Done);
    assert_eq!(old.request(duty(70, 3)).await.expect("connected"), Outcome::Fenced { by: Epoch(4) });
    let report = new.report().await.expect("connected");
    assert_eq!((report.clients, report.groups[0].refused, report.groups[0].two_actives()), (2, 1, Duration::ZERO));
    served.end().await;
}

/// Sends bytes and reads until the chassis closes the connection.
async fn say(served: &Served, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(&served.address).await.expect("it serves");
    // The chassis may close before it has read everything: then writing or reading breaks off, which is an answer too.
    let written = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer).await;
    assert!(written.is_ok() || read.is_ok() || answer.is_empty());
    String::from_utf8(answer).expect("text")
}

#[tokio::test]
async fn garbage_is_answered_counted_and_hurts_nobody() {
    let served = Served::on_loopback().await;
    let mut good = served.client().await;
    assert!(within(say(&served, b"GET / HTTP/1.0\r\n\r\n")).await.contains("hello-first"));
    assert!(within(say(&served, b"{\"kind\":\"subscribe\"}\n")).await.contains("hello-first"));
    assert!(within(say(&served, b"\xff\xfe\xfd\n")).await.contains("bad-line"));
    let old = b"{\"kind\":\"hello\",\"protocol\":\"sixnines-chassis\",\"versions\":[7,9],\"build\":\"x 9\",\"role\":\"\"}\n";
    assert!(within(say(&served, old)).await.contains("this speaks version 1, x 9 speaks 7 to 9"));
    let hello = "{\"kind\":\"hello\",\"protocol\":\"sixnines-chassis\",\"versions\":[1,1],\"build\":\"x\",\"role\":\"\"}\n";
    let answer = within(say(&served, format!("{hello}{{\"kind\":\"explode\"}}\n").as_bytes())).await;
    assert!(answer.contains("welcome") && answer.contains("bad-line") && answer.contains("explode"), "{answer}");
    within(say(&served, &vec![b'x'; LINE_BYTES_MAX + 100_000])).await;
    let report = within(async {
        loop {
            let report = good.report().await.expect("it lives");
            if report.clients == 1 {
                return report;
            }
        }
    })
    .await;
    assert_eq!(report.garbage, 6);
    served.end().await;
}

#[tokio::test]
async fn more_clients_than_it_takes_are_turned_away() {
    let served = Served::on_loopback().await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS_MAX {
        clients.push(served.client().await);
    }
    assert!(ChassisClient::connect(&served.address, "test").await.is_err());
    assert_eq!(clients[0].report().await.expect("it serves").crowded, 1);
    served.end().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_nobody() {
    let served = Served::on_loopback().await;
    let mut lazy = TcpStream::connect(&served.address).await.expect("it serves");
    let hello = "{\"kind\":\"hello\",\"protocol\":\"sixnines-chassis\",\"versions\":[1,1],\"build\":\"x\",\"role\":\"\"}\n";
    lazy.write_all(hello.as_bytes()).await.expect("it reads");
    let mut good = served.client().await;
    let question = "{\"kind\":\"report\",\"tag\":1}\n".repeat(500);
    let flood = async {
        // Until it is cut off.
        while lazy.write_all(question.as_bytes()).await.is_ok() {}
    };
    let others = async { while good.report().await.expect("it answers").clients > 1 {} };
    within(async { tokio::join!(flood, others) }).await;
    served.end().await;
}
