//! `nines run`: a node, put together. Everything here is wiring; decisions are in the machines.
//!
//! Order of the start (protocol 4.5): the state directory's lock, then clean (addresses that an earlier life left are taken away, the
//! gate is made closed), then the threads, then the domain.

mod abroad;
mod api_socket;
mod bus;
mod checkpoints;
mod core_thread;
pub(crate) mod door;
mod doors;
mod drivers;
mod fencer;
pub(crate) mod journal;
mod keeper;
mod papers;
mod roster;
mod serial;

use std::fs::{self, File, TryLockError};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, bail};
use sixnines_checkpoint::guard::{GuardPage, LeaseWord};
use sixnines_checkpoint::service::{Service, ServiceConfig as CheckpointConfig};
use sixnines_core::domain::Domain;
use sixnines_core::domain::config::{DomainConfig, Times};
use sixnines_core::domain::feature::Level;
use sixnines_core::domain::limits::Limit;
use sixnines_core::ids::NodeId;
use sixnines_core::time::Instant;
use sixnines_discs::liveness::{self, Part};
use sixnines_discs::liveness::shell::{Handle as Liveness, Order as LivenessOrder, Turns, Wiring, Word};
use sixnines_discs::log::shell as log_shell;
use sixnines_discs::log::{Failure, FirstStart, Options as LogOptions, Timing};
use sixnines_discs::door::Door;
use sixnines_discs::mesh::{Mesh, MeshConfig};
use sixnines_discs::pki::{Identity, Members};
use sixnines_discs::wire::Versions;
use sixnines_drivers::address::{Address, Ledger};
use sixnines_drivers::gate::{self, Gate, GateForm, Guard, Plan};
use sixnines_drivers::process::Backoff;
use sixnines_drivers::realtime;
use tokio::sync::{mpsc, watch};

use crate::api::RightRow;
use crate::core_loop::feeds::Feeds;
use crate::core_loop::{CoreLoop, GateState, In};
use crate::config::{API_SOCKET, APP_SOCKET, NodeFile, check_room, load_bundle};
use bus::{Bus, LogPort};
use checkpoints::{Checkpoints, ServiceHost};
use door::Held;
use doors::Doors;
use drivers::Drivers;
use fencer::Fencer;
use keeper::{Keeper, Keepers, Order};
use abroad::Neighbours;
use papers::Papers;
use roster::{Everybody, Roster};
use serial::Lines;

/// What `nines run` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The node's file, as `nines init` made it.
    #[arg(long)]
    pub(crate) config: PathBuf,
    /// Guards no addresses: for loopback, where there is no device to guard.
    #[arg(long)]
    pub(crate) without_gate: bool,
    /// How log lines look.
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// Runs a node until SIGTERM or Ctrl-C.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    trace(options.log_format);
    let file = NodeFile::load(&options.config)?;
    let config = file.load_domain()?;
    let me = config.node(file.node).with_context(|| format!("{} has no node {}", file.domain.display(), file.node))?.clone();
    for dir in [&file.state, &file.run] {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let _lock = lock(&file.state)?;
    let ledger = Arc::new(Ledger::start_clean(&file.state.join("addresses")).context("cannot take back what an earlier life left")?.0);
    let identity = Identity::load(&file.identity, &config.domain, file.node)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("no runtime")?;
    let (stop, mut failed) = mpsc::unbounded_channel();
    let node = Node::start(options, &file, &config, &me.links, ledger, identity, stop, runtime.handle())?;
    println!("{} runs; nines status --node {}", file.node, options.config.display());
    let failure = runtime.block_on(async {
        tokio::select! {
            () = signal() => None,
            failure = failed.recv() => failure,
        }
    });
    tracing::info!("stops in good order");
    node.stop(&runtime);
    runtime.shutdown_timeout(Duration::from_millis(200));
    failure.map_or(Ok(()), |failure| Err(anyhow::anyhow!("{failure}. The node has stopped; the others go on")))
}

/// A running node.
struct Node {
    keepers: Keepers,
    inbox: crossbeam::channel::Sender<In>,
    core: std::thread::JoinHandle<()>,
    log: log_shell::Running,
    mesh: Mesh,
    neighbours: Option<Neighbours>,
    service: Service,
    /// Ends with the node; it owns the gate.
    gate_watch: Option<crossbeam::channel::Sender<()>>,
    _liveness: Arc<Liveness>,
}

/// A word of the guard page, as a sink of the liveness thread.
struct GuardWord(LeaseWord);

impl Word for GuardWord {
    fn publish(&self, until: Instant) {
        self.0.store(until);
    }
}

/// A part of the daemon that stands still for so long makes the node look dead (protocol 5.3).
const PATIENCE: Duration = Duration::from_millis(250);
/// The sink of the guard page: applications' guards follow the lease as long as the node runs.
const GUARD_SINK: u64 = 0;

impl Node {
    #[expect(clippy::too_many_arguments, reason = "wiring")]
    fn start(options: &Options, file: &NodeFile, config: &DomainConfig, links: &[SocketAddr], ledger: Arc<Ledger>, identity: Identity, stop: mpsc::UnboundedSender<Failure>, runtime: &tokio::runtime::Handle) -> anyhow::Result<Self> {
        let reads = reads()?;
        let me = file.node;
        let life = crate::init::random()?;
        let (inbox, core_inbox) = crossbeam::channel::unbounded();
        let (lane, readings) = drivers::Lane::new();
        let turns = Arc::new(Turns::default());
        // The demo takes the gate out to see that it is missed; see demo/setup.rs.
        let is_taken_out = std::env::var_os(crate::demo::setup::WITHOUT).is_some_and(|what| what == "gate");
        let form = if options.without_gate || is_taken_out { GateForm::None } else { form_of(config) };
        let mut rights = vec![RightRow { name: "gate".into(), asked: "kernel".into(), got: form != GateForm::None, means: form.means().into() }];
        let gate = make_gate(form, me, config)?;
        let words = gate.as_ref().map(|g| g.words().to_vec()).unwrap_or_default();
        let pulse = gate.as_ref().and_then(|g| g.pulse());
        let patience = [Some(PATIENCE), Some(PATIENCE), Some(PATIENCE), pulse.is_some().then_some(PATIENCE)];
        if let Some(pulse) = pulse {
            turns.count_by(Part::Gate, pulse);
        }

        let bus = Arc::new(Bus { inbox: inbox.clone(), liveness: OnceLock::new(), log: OnceLock::new(), service: OnceLock::new(), serial: OnceLock::new() });
        let everybody = Everybody::read(&file.state, config);
        let (liveness, got) = start_liveness(me, life, config, form, links, &everybody, &inbox, &turns, patience)?;
        rights.extend(got);
        bus.liveness.set(Arc::clone(&liveness)).unwrap_or_else(|_| unreachable!("set once"));

        let lines = Lines::start(file, life, &everybody.all_but(me).collect::<Vec<_>>(), &liveness, &inbox)?;
        bus.serial.set(Arc::clone(&lines)).unwrap_or_else(|_| unreachable!("set once"));

        let at_doors = Members::new(&config.domain, everybody.admissions());
        let held = Held::load(file, &identity, &at_doors, &inbox)?;
        let door = held.clone().map(|held| Door::open(links, identity.door_config(Arc::clone(&at_doors))?, held).context("the door cannot be opened: it listens by TCP where the mesh listens by UDP")).transpose()?;
        let shown = Identity::load(&file.identity, &config.domain, me)?;
        let mut mesh = MeshConfig::new(shown, links.to_vec());
        mesh.profile = config.profile;
        mesh.versions = Versions { newest: reads.0, ..Versions::OURS };
        mesh.peers = everybody.peers(me);
        let mesh = Mesh::start(mesh, Arc::clone(&bus) as _)?;
        let neighbours = Neighbours::start(file, &config.domain, &inbox)?;

        let guard = GuardPage::new().context("no memory for the guard page")?;
        liveness.order(LivenessOrder::Open(GUARD_SINK, Box::new(GuardWord(guard.lease_word()))));
        let app_socket = file.run.join(APP_SOCKET);
        let services: Vec<_> = config.services.iter().filter(|s| config.candidates(&s.name).contains(&me)).cloned().collect();
        let (senders, receivers): (Vec<_>, Vec<_>) = services.iter().map(|_| mpsc::unbounded_channel()).unzip();
        let keepers: Keepers = services.iter().map(|s| s.name.clone()).zip(senders).collect();
        let host = ServiceHost { mesh: mesh.handle(), inbox: inbox.clone(), keepers: keepers.clone() };
        let checkpoint = CheckpointConfig { socket: Some(app_socket.clone()), clients_max: config.limits.count(Limit::SdkClients), ..CheckpointConfig::default() };
        let service = Service::start(checkpoint, runtime, Arc::new(host), guard).context("the checkpoint service cannot start")?;
        let progress = service.progress();
        turns.count_by(Part::Checkpoint, Box::new(move || progress.load(std::sync::atomic::Ordering::Relaxed)));
        bus.service.set(service.clone()).unwrap_or_else(|_| unreachable!("set once"));

        let checkpoints = Checkpoints::new(service.clone(), me, config, &inbox);
        let log_options = LogOptions { node: me, domain: file.domain_id, nonce: life, timing: Timing::of(config.profile), apply: Domain::apply, reads };
        let numbers = services.iter().enumerate().map(|(number, s)| (s.name.clone(), number as u64)).collect();
        let port = LogPort {
            me,
            life,
            roster: Roster::start(me, &file.state, mesh.handle(), Arc::clone(&liveness), Arc::clone(&lines), Arc::clone(&at_doors)).context("no thread")?,
            mesh: mesh.handle(),
            liveness: Arc::clone(&liveness),
            service: service.clone(),
            inbox: inbox.clone(),
            turns: Arc::clone(&turns),
            numbers,
            speaks: std::sync::Mutex::default(),
            stop,
        };
        let is_new = !file.state.join("log").exists();
        let log = log_shell::run(log_options, &file.state.join("log"), Arc::new(port)).context("the control log cannot start")?;
        bus.log.set(log.handle().clone()).unwrap_or_else(|_| unreachable!("set once"));
        if !file.joined {
            let bundle = load_bundle(&file.policies)?;
            if is_new {
                check_room(&bundle, &config.limits)?; // later the control log has what is law, and this is a proposal of long ago
            }
            let first = FirstStart { config: config.clone(), bundle };
            log.handle().initialize(first);
        }

        let (configuration, configured) = watch::channel(Arc::new(config.clone()));
        let journal_home = file.state.join("journal");
        let journal = journal::Writer::start(&journal_home, config.limits.of(Limit::JournalBytes), inbox.clone()).context("the journal cannot be opened")?;
        let limits = file.events.limits(&config.limits);
        let feeds = Feeds::new(limits.clone(), journal::cursors(&journal_home)).with_own_lag(file.events.lag_events.is_some());
        remember(journal::segments(&journal_home).context("the journal cannot be read")?, limits.lag_events_max, inbox.clone()).context("no thread")?;
        let doors = Doors {
            me,
            reads,
            log: log.handle().clone(),
            liveness: Arc::clone(&liveness),
            mesh: mesh.handle(),
            neighbours: neighbours.as_ref().map(Neighbours::ways),
            serial: lines,
            checkpoints,
            keepers: keepers.clone(),
            drivers: Drivers::new(me, runtime, &inbox, lane, &config.limits),
            fencer: Fencer::new(runtime, &inbox),
            journal,
            inbox: inbox.clone(),
            subscription: file.subscribe.clone(),
            watchers: Vec::new(),
            configuration,
            rights,
        };
        let core = CoreLoop::new(me, life, doors, feeds);
        let core = std::thread::Builder::new().name("core".into()).spawn(move || core_thread::run(core, &turns, &core_inbox, &readings)).context("no thread")?;

        for (number, ((config, orders), word)) in services.into_iter().zip(receivers).zip(words.into_iter().map(Some).chain(std::iter::repeat(None))).enumerate() {
            let addresses = prepare(&config, &ledger)?;
            let keeper = Keeper {
                number: number as u64,
                socket: app_socket.clone().into_os_string(),
                node: me.to_string(),
                addresses,
                word,
                liveness: Arc::clone(&liveness),
                service: service.clone(),
                inbox: inbox.clone(),
                orders,
                unit: None,
                backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5), Duration::from_secs(1)),
                start_at: None,
                open: None,
                announce: None,
                config,
            };
            runtime.spawn(keeper.run());
        }
        let gate_watch = gate.map(|gate| watch_gate(gate, inbox.clone())).transpose().context("no thread")?;
        let (renewals, orders) = crossbeam::channel::unbounded();
        let papers = Papers { dir: file.identity.clone(), identity, members: at_doors, meshes: [mesh.handle()].into_iter().chain(neighbours.as_ref().map(|n| n.ways().mesh)).collect(), door, inbox: inbox.clone(), configuration: configured.clone() };
        std::thread::Builder::new().name("papers".into()).spawn(move || papers.run(&orders)).context("no thread")?;
        let _in_runtime = runtime.enter();
        let listener = api_socket::listen(&file.run.join(API_SOCKET)).context("the API's socket cannot be made")?;
        runtime.spawn(api_socket::Api { inbox: inbox.clone(), configuration: configured, me, door: held, renewals }.run(listener));
        Ok(Self { keepers, inbox, core, log, mesh, neighbours, service, gate_watch, _liveness: liveness })
    }

    /// Addresses and units first, so that nothing here speaks any more; the others notice at once that the log's and the mesh's ends are gone.
    fn stop(self, runtime: &tokio::runtime::Runtime) {
        for keeper in self.keepers.values() {
            let (done, stopped) = tokio::sync::oneshot::channel();
            if keeper.send(Order::Stop(done)).is_ok() && runtime.block_on(stopped).is_err() {
                tracing::debug!("a keeper had ended");
            }
        }
        if self.inbox.send(In::Stop).is_err() || self.core.join().is_err() {
            tracing::error!("the core loop had ended before");
        }
        self.service.stop();
        drop(self.log);
        self.mesh.stop();
        if let Some(neighbours) = self.neighbours {
            neighbours.stop();
        }
        drop(self.gate_watch);
    }
}

#[expect(clippy::too_many_arguments, reason = "wiring")]
fn start_liveness(me: NodeId, life: u64, config: &DomainConfig, form: GateForm, links: &[SocketAddr], everybody: &Everybody, inbox: &crossbeam::channel::Sender<In>, turns: &Arc<Turns>, patience: [Option<Duration>; 4]) -> anyhow::Result<(Arc<Liveness>, Vec<RightRow>)> {
    let sockets = links.iter().map(|address| {
        let address = beside(*address);
        UdpSocket::bind(address).with_context(|| format!("cannot listen for heartbeats on {address}"))
    });
    let (news, heard) = crossbeam::channel::bounded(4096);
    let wiring = Wiring {
        sockets: sockets.collect::<anyhow::Result<_>>()?,
        peers: everybody.heartbeats(me),
        turns: Arc::clone(turns),
        patience,
        news,
    };
    let setup = liveness::Setup {
        me,
        life,
        peers: everybody.all_but(me).collect(),
        links: u8::try_from(links.len()).context("too many links")?,
        times: times(config, form),
        seed: life,
    };
    let (tell, told) = crossbeam::channel::bounded(1);
    let handle = Liveness::start(setup, wiring, move || {
        let rights = [realtime::schedule_fifo(realtime::LIVENESS_PRIORITY), realtime::lock_stack(64 << 10)];
        let is_real_time = rights[0].got;
        if tell.send(rights).is_err() {
            tracing::debug!("nobody asks for the rights");
        }
        is_real_time
    })
    .context("the liveness thread cannot start")?;
    let rights = told.recv().map(|r| r.to_vec()).unwrap_or_default();
    let rows = rights.into_iter().map(|r| RightRow { name: r.name.into(), asked: r.asked, got: r.got, means: r.means.into() });
    let inbox = inbox.clone();
    std::thread::Builder::new()
        .name("liveness-news".into())
        .spawn(move || {
            while let Ok(news) = heard.recv() {
                if inbox.send(In::Liveness(news)).is_err() {
                    return;
                }
            }
        })
        .context("no thread")?;
    Ok((Arc::new(handle), rows.collect()))
}

/// Looks up what earlier lives left of this node's events, for those who have not heard them; meanwhile nobody is told anything.
fn remember(segments: Vec<journal::Segment>, wanted: usize, inbox: crossbeam::channel::Sender<In>) -> std::io::Result<()> {
    let run = move || {
        let past = std::panic::catch_unwind(|| journal::past(segments, wanted)).unwrap_or_default();
        if inbox.send(In::Past(past)).is_err() {
            tracing::debug!("the core loop has ended");
        }
    };
    std::thread::Builder::new().name("journal-past".into()).spawn(run).map(drop)
}

/// The profile's times; a gate that may close one lease late halves the lease (protocol 4.1: `P >= 2 L`).
fn times(config: &DomainConfig, form: GateForm) -> Times {
    let mut times = config.profile.times();
    if form == GateForm::Nft {
        times.lease = times.promise * 12 / 25; // a little less than half, and still more than two beats
    }
    times
}

/// Heartbeats have the port after the mesh's.
fn beside(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port() + 1)
}

/// The best gate that the service devices allow; none where no service has an address.
fn form_of(config: &DomainConfig) -> GateForm {
    let device = config.services.iter().filter(|s| !s.addresses.is_empty()).find_map(|s| s.device.as_deref());
    device.map_or(GateForm::None, gate::probe)
}

fn make_gate(form: GateForm, me: NodeId, config: &DomainConfig) -> anyhow::Result<Option<Box<dyn Gate>>> {
    let devices = if form == GateForm::None { Vec::new() } else { gate::ethernet_devices()? };
    let services = config.services.iter().filter(|s| config.candidates(&s.name).contains(&me));
    let guards = services.map(|s| Guard { name: s.name.to_string(), addresses: s.addresses.iter().filter_map(|a| bare(a)).collect(), devices: devices.clone() });
    let plan = Plan { owner: me, lease: times(config, form).lease, guards: guards.collect() };
    if plan.guards.is_empty() {
        return Ok(None);
    }
    Ok(Some(gate::make(form, &plan)?))
}

fn bare(address: &str) -> Option<IpAddr> {
    address.split('/').next()?.parse().ok()
}

fn prepare(config: &sixnines_core::domain::config::ServiceConfig, ledger: &Arc<Ledger>) -> anyhow::Result<Vec<Address>> {
    let Some(device) = config.device.as_deref() else { return Ok(Vec::new()) };
    let addresses = config.addresses.iter().map(|text| {
        let cidr = text.parse().with_context(|| format!("service {}: {text:?} is no address", config.name))?;
        Address::prepare(device, cidr, ledger).with_context(|| format!("service {}: address {text}", config.name))
    });
    addresses.collect()
}

/// Puts back what somebody takes away of the gate, and tells. The gate ends with the sender that is returned.
fn watch_gate(mut gate: Box<dyn Gate>, inbox: crossbeam::channel::Sender<In>) -> std::io::Result<crossbeam::channel::Sender<()>> {
    let (end, ended) = crossbeam::channel::bounded::<()>(0);
    std::thread::Builder::new().name("gate-watch".into()).spawn(move || {
        let mut was = GateState::Whole;
        while ended.recv_timeout(GATE_LOOK) == Err(crossbeam::channel::RecvTimeoutError::Timeout) {
            let is = match gate.restore() {
                Ok(0) => GateState::Whole,
                Ok(pieces) => GateState::Restored(pieces),
                Err(error) => GateState::Broken(error.to_string()),
            };
            if is != was && inbox.send(In::Gate(is.clone())).is_err() {
                return;
            }
            was = is;
        }
    })?;
    Ok(end)
}

/// How often the gate is looked at.
const GATE_LOOK: Duration = Duration::from_secs(3);

/// For tests of two versions in one domain: a daemon says that it reads feature levels and frames up to this one, as a build to come does, and
/// goes on in a domain at that level. Nothing else of it is new.
const PRETEND_LEVEL: &str = "SIXNINES_PRETEND_LEVEL";

/// The newest feature level that this node reads.
pub(crate) fn reads() -> anyhow::Result<Level> {
    let Some(text) = std::env::var_os(PRETEND_LEVEL) else { return Ok(Level::NEWEST) };
    let level = text.to_str().and_then(|t| t.parse().ok()).filter(|level| *level >= Level::FIRST.0);
    let level = level.with_context(|| format!("{PRETEND_LEVEL} is {}: it is a feature level, from 1 to 255", text.display()))?;
    tracing::warn!(level, "a test: this node says that it reads feature levels up to this one");
    Ok(Level(level))
}

/// One daemon per state directory. One that was killed a moment ago has its lock until the kernel has taken it apart.
fn lock(state: &Path) -> anyhow::Result<File> {
    let path = state.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    let deadline = std::time::Instant::now() + LOCKED_FOR;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if std::time::Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            Err(TryLockError::WouldBlock) => bail!("another daemon runs with {}: one node is one process", state.display()),
            Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }
}

/// How long a dying daemon may take.
const LOCKED_FOR: Duration = Duration::from_secs(3);

fn trace(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("NINES_LOG").unwrap_or_else(|_| "info,quinn=warn,openraft=error".into());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// Returns at SIGTERM or Ctrl-C.
pub(crate) async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use sixnines_core::domain::config::Profile;

    use super::*;

    #[test]
    fn every_profile_keeps_the_lease_rule_under_every_gate() {
        for profile in Profile::ALL {
            for form in [GateForm::Bpf, GateForm::Nft, GateForm::None] {
                let times = times(&DomainConfig { profile, ..DomainConfig::default() }, form);
                assert!(times.is_safe(), "{profile:?} {form}");
                assert!(form != GateForm::Nft || times.promise >= times.lease * 2, "{profile:?}");
            }
        }
    }
}
