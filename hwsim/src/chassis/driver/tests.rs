//! The driver against a real chassis process shell, over loopback.

use std::collections::BTreeMap;

use sixnines_core::ids::{Epoch, EventId};
use sixnines_core::value::{Request, Update, Value};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::*;
use crate::chassis::server::tests::Served;

/// The node's side of a driver.
struct Node {
    updates: mpsc::Receiver<Update>,
    jobs: mpsc::Sender<Job>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), DriverError>>,
    seen: BTreeMap<(String, String), Update>,
}

impl Node {
    fn drive(address: &str) -> Self {
        let (to_node, updates) = mpsc::channel(16);
        let (jobs, from_node) = mpsc::channel(16);
        let (stop, stopped) = watch::channel(false);
        let driver = ChassisDriver::new("mxp1".into(), address);
        let task = tokio::spawn(driver.run(Port { updates: to_node, jobs: from_node, stop: stopped }));
        Self { updates, jobs, stop, task, seen: BTreeMap::new() }
    }

    /// Takes updates until `object`'s `attribute` is as wanted.
    async fn wait(&mut self, object: &str, attribute: &str, wanted: impl Fn(&Update) -> bool) -> Update {
        let key = (object.to_owned(), attribute.to_owned());
        let found = async {
            loop {
                if let Some(update) = self.seen.get(&key).filter(|u| wanted(u)) {
                    return update.clone();
                }
                let update = self.updates.recv().await.expect("the driver runs");
                self.seen.insert((update.object.to_string(), update.attribute.to_string()), update);
            }
        };
        timeout(Duration::from_secs(20), found).await.expect("in time")
    }

    async fn order(&self, percent: i64, epoch: u64) -> Option<Outcome> {
        let (answer, outcome) = oneshot::channel();
        let id = EventId { sequence: 5, ..EventId::default() };
        let request = Request {
            id,
            object: "/mxp1/fan2".into(),
            control: "duty".into(),
            value: Some(Value::Int(percent)),
            epoch: Epoch(epoch),
        };
        self.jobs.send(Job { request, answer }).await.expect("the driver runs");
        timeout(Duration::from_secs(20), outcome).await.expect("in time").ok()
    }

    async fn end(self) {
        self.stop.send(true).expect("the driver runs");
        self.task.await.expect("no panic").expect("no error");
    }
}

#[tokio::test]
async fn readings_and_orders_go_end_to_end() {
    let served = Served::on_loopback().await;
    let mut node = Node::drive(&served.address);
    let speed = node.wait("/mxp1/fan2", "speed", |u| u.value.is_some()).await;
    assert_eq!((speed.quality, speed.identity), (Quality::Simulated, Some("MXP1-FAN-002".into())));
    assert_eq!(node.order(80, 3).await, Some(Outcome::Done));
    let duty = node.wait("/mxp1/fan2", "duty", |u| u.value == Some(Value::Int(80))).await;
    assert_eq!(duty.cause.map(|c| c.sequence), Some(5));
    assert_eq!(node.order(90, 2).await, Some(Outcome::Fenced { by: Epoch(3) }));
    assert!(matches!(node.order(900, 3).await, Some(Outcome::Refused(why)) if why.contains("0 to 100")));
    node.end().await;
    served.end().await;
}

#[tokio::test]
async fn a_lost_chassis_fails_every_attribute_and_comes_back() {
    let served = Served::on_loopback().await;
    let address = served.address.clone();
    let mut node = Node::drive(&address);
    node.wait("/mxp1/shelf-manager", "state", |u| u.value == Some(Value::Enum("running".into()))).await;
    served.end().await;
    for (object, attribute) in [("/mxp1", "power"), ("/mxp1/fan2", "speed"), ("/mxp1/shelf-manager", "state")] {
        let update = node.wait(object, attribute, |u| u.quality == Quality::Failed).await;
        assert_eq!(update.value, None, "{object} {attribute}");
    }
    assert!(matches!(node.order(80, 3).await, Some(Outcome::Refused(why)) if why.contains("not reachable")));

    let listener = TcpListener::bind(&address).await.expect("the port is free again");
    let served = Served::start(listener, "mxp1").await;
    node.wait("/mxp1/fan2", "speed", |u| u.value.is_some()).await;
    assert_eq!(node.order(80, 3).await, Some(Outcome::Done));
    node.end().await;
    served.end().await;
}

#[tokio::test]
async fn the_wrong_chassis_ends_the_driver_with_a_reason() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let served = Served::start(listener, "mxp2").await;
    let node = Node::drive(&served.address);
    let error = timeout(Duration::from_secs(20), node.task).await.expect("in time").expect("no panic").expect_err("it refuses");
    assert!(error.to_string().contains("there is chassis mxp2, not mxp1"), "{error}");
    served.end().await;
}

#[tokio::test]
async fn a_driver_without_a_chassis_refuses_and_can_be_stopped() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = nobody.local_addr().expect("bound").to_string();
    drop(nobody);
    let node = Node::drive(&address);
    assert!(matches!(node.order(80, 3).await, Some(Outcome::Refused(_))));
    node.end().await;
}

/// A chassis that takes the connection and then hangs: what was sent to it has an unknown outcome.
#[tokio::test]
async fn an_order_without_an_answer_is_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound").to_string();
    let node = Node::drive(&address);
    let (stream, _) = listener.accept().await.expect("the driver connects");
    let (from, mut to) = tokio::io::split(stream);
    let mut lines = Lines::new(from, LINE_BYTES_MAX);
    let welcome = FromChassis::Welcome { protocol: PROTOCOL.into(), version: VERSION, chassis: "mxp1".into(), build: build() };
    to.write_all(to_line(&welcome).as_bytes()).await.expect("it reads");
    while !lines.next().await.expect("text").expect("the driver speaks").contains("subscribe") {}
    let heard = async move {
        let line = lines.next().await.expect("text").expect("the driver speaks");
        assert!(line.contains("\"set\""), "{line}");
        drop((lines, to)); // heard, and gone without an answer
    };
    let (outcome, ()) = tokio::join!(node.order(80, 3), heard);
    assert_eq!(outcome, None, "unknown: neither done nor refused");
    node.end().await;
}
