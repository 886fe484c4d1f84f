//! One task per service: keeps its unit running here, and its addresses where its active is.
//!
//! The order of speaking is: address on the device, gate open with the lease, announce. The order of silence: gate closed, address
//! gone, application told; only then is the role said to be relinquished (protocol 3.5).

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::Sender;
use sixnines_checkpoint::service::{AppState, Service};
use sixnines_core::domain::config::ServiceConfig;
use sixnines_core::ids::{Epoch, GroupName};
use sixnines_core::roles::{Role, Unit as UnitState};
use sixnines_discs::liveness::shell::{Handle as Liveness, Order as LivenessOrder, Word};
use sixnines_drivers::address::{ANNOUNCE_AGAIN_AFTER, Address};
use sixnines_drivers::clock::boot_now;
use sixnines_drivers::gate::DeadlineWord;
use sixnines_drivers::process::{Backoff, ExitInfo, Unit, UnitSpec};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::core_loop::In;

/// What a keeper is told.
pub(super) enum Order {
    Role(Role),
    Relinquish(Epoch),
    App(AppState),
    /// The unit is to be started anew.
    Restart,
    /// The node stops.
    Stop(tokio::sync::oneshot::Sender<()>),
}

/// A keeper's means.
pub(super) struct Keeper {
    pub(super) config: ServiceConfig,
    /// Unique among the node's services: together with the epoch it names a sink of the liveness thread.
    pub(super) number: u64,
    pub(super) socket: OsString,
    pub(super) node: String,
    pub(super) addresses: Vec<Address>,
    /// None where nothing guards the address.
    pub(super) word: Option<DeadlineWord>,
    pub(super) liveness: Arc<Liveness>,
    pub(super) service: Service,
    pub(super) inbox: Sender<In>,
    pub(super) orders: mpsc::UnboundedReceiver<Order>,
    pub(super) unit: Option<Unit>,
    pub(super) backoff: Backoff,
    pub(super) start_at: Option<Instant>,
    /// Under which epoch it speaks, and since when it has the role.
    pub(super) open: Option<(Epoch, Instant)>,
    /// When to announce next, and how often it was done.
    pub(super) announce: Option<(Instant, usize)>,
}

/// A sink of the liveness thread made of a gate's word.
struct GateWord(DeadlineWord);

impl Word for GateWord {
    fn publish(&self, until: sixnines_core::time::Instant) {
        self.0.store(until);
    }
}

/// Wakes the keeper's task.
enum Wake {
    Order(Option<Order>),
    Exit(ExitInfo),
    Start,
    Announce,
}

impl Keeper {
    pub(super) async fn run(mut self) {
        self.start_unit().await;
        loop {
            match self.wait().await {
                Wake::Order(None) => return,
                Wake::Order(Some(Order::Stop(done))) => return self.stop(done).await,
                Wake::Order(Some(order)) => self.obey(order),
                Wake::Exit(exit) => self.on_exit(&exit),
                Wake::Start => self.start_unit().await,
                Wake::Announce => self.announce_now(),
            }
        }
    }

    async fn wait(&mut self) -> Wake {
        let far = || Instant::now() + Duration::from_secs(3600);
        let start_at = self.start_at.unwrap_or_else(far);
        let announce_at = self.announce.map_or_else(far, |(at, _)| at);
        let exited = async {
            match &self.unit {
                Some(unit) => unit.exited().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            order = self.orders.recv() => Wake::Order(order),
            exit = exited => Wake::Exit(exit),
            () = tokio::time::sleep_until(announce_at) => Wake::Announce,
            () = tokio::time::sleep_until(start_at) => Wake::Start,
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Role(Role::Active(epoch)) => self.speak(epoch),
            Order::Role(Role::Standby(_)) => self.fall_silent(),
            Order::Relinquish(epoch) => {
                self.fall_silent();
                self.liveness.close(self.sink(epoch)); // also when it was never opened
                self.service.relinquish(&self.config.name, epoch); // answered by the service when the application's guard is closed
            }
            Order::App(AppState::Ready) => self.tell(UnitState::Ready, "the application is connected"),
            Order::App(AppState::Hanging) => self.kill("hangs"),
            Order::App(AppState::Gone) => self.kill("closed its connection"),
            Order::Restart => self.kill("is to be started anew"),
            Order::Stop(_) => {}
        }
    }

    fn speak(&mut self, epoch: Epoch) {
        if self.open.is_some_and(|(open, _)| open == epoch) {
            return;
        }
        let since = Instant::now();
        self.fall_silent();
        for address in &mut self.addresses {
            if let Err(error) = address.take() {
                tracing::error!(service = %self.config.name, %error, "an address could not be taken");
            }
        }
        if let Some(word) = &self.word {
            self.liveness.order(LivenessOrder::Open(self.sink(epoch), Box::new(GateWord(word.clone()))));
        }
        self.open = Some((epoch, since));
        self.announce = (!self.addresses.is_empty()).then(|| (Instant::now(), 0));
        if self.addresses.is_empty() {
            self.speaks();
        } else {
            self.announce_now();
        }
    }

    fn speaks(&self) {
        let Some((epoch, since)) = self.open else { return };
        self.send(In::Speaks { group: self.config.name.clone(), epoch, after: since.elapsed() });
    }

    fn fall_silent(&mut self) {
        let Some((epoch, _)) = self.open.take() else { return };
        self.liveness.close(self.sink(epoch));
        self.announce = None;
        for address in &mut self.addresses {
            if let Err(error) = address.give_up() {
                tracing::error!(service = %self.config.name, %error, "an address could not be given up; the gate keeps it silent");
            }
        }
    }

    /// As soon as the gate lets frames pass, and a few times more: a frame may get lost.
    fn announce_now(&mut self) {
        let Some((_, done)) = self.announce else { return };
        if self.word.as_ref().is_some_and(|w| w.load() <= boot_now()) {
            self.announce = Some((Instant::now() + Duration::from_micros(200), done));
            return;
        }
        for address in &self.addresses {
            if let Err(error) = address.announce() {
                tracing::warn!(service = %self.config.name, %error, "an announcement did not leave");
            }
        }
        if done == 0 {
            self.speaks();
        }
        self.announce = ANNOUNCE_AGAIN_AFTER.get(done).map(|wait| (Instant::now() + *wait, done + 1));
    }

    async fn start_unit(&mut self) {
        self.start_at = None;
        let Some((command, arguments)) = self.config.command.split_first() else { return };
        let environment = [
            ("NINES_SOCKET", self.socket.clone()),
            ("NINES_SERVICE", self.config.name.as_str().into()),
            ("NINES_NODE_NAME", self.node.as_str().into()),
        ];
        let spec = UnitSpec {
            name: self.config.name.to_string(),
            command: command.clone(),
            arguments: arguments.to_vec(),
            environment: environment.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
            directory: None,
        };
        match Unit::start(spec).await {
            Ok(unit) => self.unit = Some(unit),
            Err(error) => {
                tracing::error!(service = %self.config.name, %error, "could not be started");
                self.tell(UnitState::Absent, &error.to_string());
                self.start_at = Some(Instant::now() + self.backoff.after_exit(Duration::ZERO));
            }
        }
    }

    fn on_exit(&mut self, exit: &ExitInfo) {
        let tail = self.unit.take().map(|u| u.output_tail().lines()).unwrap_or_default();
        let wait = self.backoff.after_exit(exit.ran_for);
        tracing::warn!(service = %self.config.name, %exit, last_words = ?tail.last(), ?wait, "the unit has ended");
        self.tell(UnitState::Gone, &exit.to_string());
        self.start_at = Some(Instant::now() + wait);
    }

    /// Its end is then seen like any other.
    fn kill(&self, why: &str) {
        if let Some(unit) = &self.unit {
            tracing::warn!(service = %self.config.name, pid = unit.pid(), why, "the unit is killed");
            unit.kill();
        }
    }

    async fn stop(mut self, done: tokio::sync::oneshot::Sender<()>) {
        self.fall_silent();
        if let Some(unit) = self.unit.take() {
            unit.stop(GRACE).await;
        }
        if done.send(()).is_err() {
            tracing::debug!("nobody waits for the end");
        }
    }

    fn tell(&self, unit: UnitState, why: &str) {
        self.send(In::Unit { group: self.config.name.clone(), unit, why: why.to_owned() });
    }

    fn send(&self, input: In) {
        if self.inbox.send(input).is_err() {
            tracing::debug!("the core loop has ended");
        }
    }

    fn sink(&self, epoch: Epoch) -> u64 {
        sink(self.number, epoch)
    }
}

/// Names one service under one epoch to the liveness thread: what is closed under a name never opens again.
pub(super) fn sink(number: u64, epoch: Epoch) -> u64 {
    (number + 1) << 40 | epoch.0
}

/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// The groups' keepers, by name.
pub(super) type Keepers = std::collections::BTreeMap<GroupName, mpsc::UnboundedSender<Order>>;
