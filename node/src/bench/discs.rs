//! `nines bench discs`: what the bus between nodes costs, beside bare QUIC in the same run.
//!
//! Two meshes in this process, each on a thread of its own as in a daemon, on loopback addresses, with certificates as everywhere. Rows:
//!
//! - `there-and-back/...`: 64 bytes, microseconds for the whole round. `callback` asks again where the answer is handed up, `thread` asks from
//!   another thread and waits for the answer there, as the core loop does. `raw` is one stream of bare QUIC.
//! - `there-and-back/control/beside-bulk`: while bulk takes all that is left; `there-and-back/control/alone` just before and after it.
//! - `alarm/...`: one way at 1,000 a second, microseconds from when each was due, over two links of which one is whole, flaps, or carries one way only.
//! - `one-way/...`: events a second, acknowledged; `raw` are bytes of bare QUIC in writes of 64 KiB.

mod raw;
mod wire;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sixnines_core::ids::{LinkId, NodeId};
use sixnines_discs::mesh::{Fault, Mesh, MeshConfig, MeshHandle, PeerConfig, PeerState, Receiver, SendError};
use sixnines_discs::pki::{Authority, Identity};
use sixnines_discs::wire::{Class, Kind};

use super::{BenchReport, Spread, write_json};
use wire::Wire;

/// `nines bench discs`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  nines bench discs --json discs.json
  nines bench discs --json - --rounds 5000")]
pub(crate) struct Options {
    /// Where the result goes; - for standard output.
    #[arg(long, value_name = "FILE")]
    json: PathBuf,
    /// Rounds there and back, for each row.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    rounds: u32,
    /// For how long alarms are sent, in seconds, for each row.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
}

/// One quantity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// What of.
    name: String,
    /// Events a second, where that is what was measured: the median of the runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    per_second: Option<f64>,
    /// Its values.
    #[serde(flatten)]
    spread: Spread,
    /// Events that did not arrive; those of a row that says nothing of it are waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<usize>,
}

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);
const SIZE: usize = 64;
const WARM_UP: usize = 2_000;
/// Runs of each throughput.
const RUNS: usize = 3;
/// Between two alarms.
const PACE: Duration = Duration::from_millis(1);
/// A link that flaps is dead for so long, and then whole for as long.
const FLAP: Duration = Duration::from_millis(150);
/// Who finds the queue full waits for so long, as long as a part of the queue takes: one that tried again and again would measure itself.
const ROOM: Duration = Duration::from_micros(200);
/// Far beyond what anything takes that arrives at all.
const PATIENCE: Duration = Duration::from_secs(20);

/// Measures.
///
/// # Errors
/// If there are no sockets, or nothing arrives.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let rounds = usize::try_from(options.rounds)?;
    let mut rows = Rows::default();
    rows.rounds("there-and-back/raw", raw::there_and_back(rounds)?);
    for (links, class, word) in [(1, Class::State, "state"), (2, Class::State, "state"), (2, Class::Alarm, "alarm")] {
        let lab = Lab::start(links, &[])?;
        let plural = if links == 1 { "1-link" } else { "2-links" };
        rows.rounds(&format!("there-and-back/{word}/{plural}/callback"), lab.callback(class, rounds)?);
        rows.rounds(&format!("there-and-back/{word}/{plural}/thread"), lab.thread(class, rounds)?);
    }
    let lab = Lab::start(1, &[])?;
    let mut alone = lab.callback(Class::Control, rounds / 2)?;
    let (beside, megabytes) = lab.beside_bulk(|| lab.callback(Class::Control, rounds))?;
    alone.extend(lab.callback(Class::Control, rounds / 2)?);
    rows.rounds("there-and-back/control/alone", alone);
    rows.rounds("there-and-back/control/beside-bulk", beside);
    rows.values("bulk", vec![megabytes], "MB/s");
    for trouble in [Trouble::None, Trouble::Flaps, Trouble::OneWay] {
        rows.alarms(trouble, options.seconds)?;
    }
    for (size, events, word) in [(64, 2_000_000, "64-B"), (1024, 500_000, "1-KiB")] {
        let rates = (0..RUNS).map(|_| Lab::start(1, &[])?.one_way(size, events)).collect::<anyhow::Result<_>>()?;
        rows.rates(&format!("one-way/{word}"), rates);
    }
    let streams = (0..RUNS).map(|_| Ok(Lab::start(1, &[])?.one_way(65_536, 10_000)? * 65_536.0 / 1e6)).collect::<anyhow::Result<_>>()?;
    rows.values("one-way/64-KiB", streams, "MB/s");
    rows.values("one-way/raw", (0..RUNS).map(|_| raw::stream(600)).collect::<anyhow::Result<_>>()?, "MB/s");
    write_json(&options.json, &BenchReport::new("discs", "fabric", rows.0))?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Default)]
struct Rows(Vec<Row>);

impl Rows {
    fn rounds(&mut self, name: &str, rounds: Vec<Duration>) {
        self.values(name, rounds.into_iter().map(micros).collect(), "us");
    }

    fn values(&mut self, name: &str, values: Vec<f64>, unit: &str) {
        let spread = Spread::of(values, unit);
        eprintln!("{name:<40} {:>10.1} {:>10.1} {unit}", spread.median, spread.p99);
        self.0.push(Row { name: name.to_owned(), per_second: None, spread, lost: None });
    }

    fn rates(&mut self, name: &str, rates: Vec<f64>) {
        self.values(name, rates, "events a second");
        let row = self.0.last_mut().expect("just pushed");
        row.per_second = Some(row.spread.median);
    }

    fn alarms(&mut self, trouble: Trouble, seconds: u32) -> anyhow::Result<()> {
        let wires: Vec<Wire> = (0..2).map(|_| Wire::new()).collect::<anyhow::Result<_>>()?;
        let lab = Lab::start(2, &wires)?;
        let sent = usize::try_from(seconds)? * 1000;
        let delays = lab.alarms(sent, |at| trouble.act(&wires[0], at))?;
        let lost = sent - delays.len();
        self.rounds(&format!("alarm/{}", trouble.word()), delays);
        self.0.last_mut().expect("just pushed").lost = Some(lost);
        Ok(())
    }
}

fn micros(span: Duration) -> f64 {
    span.as_secs_f64() * 1e6
}

/// What becomes of the first of two links while alarms are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    Flaps,
    OneWay,
}

impl Trouble {
    fn word(self) -> &'static str {
        match self {
            Self::None => "both-links",
            Self::Flaps => "one-link-flaps",
            Self::OneWay => "one-link-one-way",
        }
    }

    /// So long after the first alarm.
    fn act(self, wire: &Wire, at: Duration) {
        let is_bad = (at.as_nanos() / FLAP.as_nanos()) % 2 == 1;
        match self {
            Self::None => {}
            Self::Flaps => wire.cut(is_bad, is_bad),
            Self::OneWay => wire.cut(is_bad, false),
        }
    }
}

/// Two meshes on loopback.
struct Lab {
    meshes: [Mesh; 2],
    ends: [Arc<End>; 2],
}

/// What an end does with a frame.
struct End {
    handle: OnceLock<MeshHandle>,
    links_up: Sender<usize>,
    job: Mutex<Job>,
}

enum Job {
    Answer,
    /// Says that it came.
    Note(Sender<()>),
    /// Says so when so many have come.
    Count { left: usize, done: Sender<()> },
    /// Asks again.
    Drive { begin: Instant, left: usize, times: Vec<Duration>, done: Sender<Vec<Duration>> },
    /// Says how long each took since it was due, as it says itself.
    Delay { begin: Instant, delays: Sender<Duration> },
}

/// Whoever waited has its answer, or has given up: then nobody is told.
fn tell<T>(whom: &Sender<T>, what: T) {
    whom.send(what).unwrap_or_default();
}

impl End {
    fn job(&self) -> MutexGuard<'_, Job> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Receiver for End {
    fn frame(&self, from: NodeId, class: Class, kind: Kind, payload: Bytes) {
        let Some(handle) = self.handle.get() else { return };
        let now = Instant::now();
        if kind == Kind::CHECKPOINT {
            return; // It is only there to be in the way.
        }
        match &mut *self.job() {
            // One frame is under way: there is room for it. If not, whoever waits gives up.
            Job::Answer => handle.send(from, class, kind, payload).unwrap_or_default(),
            Job::Note(came) => tell(came, ()),
            Job::Count { left, done } => {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    tell(done, ());
                }
            }
            Job::Drive { begin, left, times, done } => {
                times.push(now - *begin);
                *left = left.saturating_sub(1);
                if *left == 0 {
                    return tell(done, std::mem::take(times));
                }
                *begin = now;
                handle.send(from, class, kind, payload).unwrap_or_default();
            }
            Job::Delay { begin, delays } => {
                if let Some(due) = payload.first_chunk().map(|bytes| Duration::from_nanos(u64::from_le_bytes(*bytes))) {
                    tell(delays, now.saturating_duration_since(*begin + due));
                }
            }
        }
    }

    fn peer(&self, _: NodeId, state: PeerState) {
        tell(&self.links_up, state.links_up.len());
    }

    fn liveness_key(&self, _: NodeId, _: LinkId, _: u32, _: [u8; 32]) {}

    fn fault(&self, fault: Fault) {
        eprintln!("{fault}");
    }
}

impl Lab {
    /// Both ends know each other, and all links are up; each goes over one of `wires`, if there are any.
    fn start(links: usize, wires: &[Wire]) -> anyhow::Result<Self> {
        let authority = Authority::create("bench").context("an authority")?;
        let addresses: [Vec<SocketAddr>; 2] = [free_addresses(links)?, free_addresses(links)?];
        let way: Vec<SocketAddr> = if wires.is_empty() { addresses[1].clone() } else { wires.iter().zip(&addresses[1]).map(|(wire, to)| wire.lead_to(*to)).collect() };
        let (links_up, news) = mpsc::channel();
        let start = |node, own: &[SocketAddr], peer, its: &[SocketAddr]| {
            let mut config = MeshConfig::new(identity(&authority, node)?, own.to_vec());
            config.peers = vec![PeerConfig { node: peer, links: its.to_vec(), admission: 0, abroad: None }];
            let end = Arc::new(End { handle: OnceLock::new(), links_up: links_up.clone(), job: Mutex::new(Job::Answer) });
            let mesh = Mesh::start(config, end.clone()).context("a mesh")?;
            end.handle.get_or_init(|| mesh.handle());
            anyhow::Ok((mesh, end))
        };
        let (first, one) = start(N1, &addresses[0], N2, &way)?;
        let (second, two) = start(N2, &addresses[1], N1, &addresses[0])?;
        let mut whole = 0;
        while whole < 2 {
            whole += usize::from(news.recv_timeout(PATIENCE).context("the links do not come up")? == links);
        }
        Ok(Self { meshes: [first, second], ends: [one, two] })
    }

    fn set(&self, end: usize, job: Job) {
        *self.ends[end].job() = job;
    }

    fn ask(&self, class: Class, payload: impl Into<Bytes>) -> Result<(), SendError> {
        self.meshes[0].handle().send(N2, class, Kind::EVENT, payload)
    }

    fn callback(&self, class: Class, rounds: usize) -> anyhow::Result<Vec<Duration>> {
        let (done, times) = mpsc::channel();
        self.set(0, Job::Drive { begin: Instant::now(), left: rounds + WARM_UP, times: Vec::new(), done });
        self.ask(class, vec![7; SIZE])?;
        let longest = PATIENCE + Duration::from_millis(10) * u32::try_from(rounds)?; // beside bulk a round may take milliseconds
        let mut times = times.recv_timeout(longest).context("no answer came")?;
        times.drain(..WARM_UP);
        Ok(times)
    }

    fn thread(&self, class: Class, rounds: usize) -> anyhow::Result<Vec<Duration>> {
        let (came, answers) = mpsc::channel();
        self.set(0, Job::Note(came));
        let round = || {
            let begin = Instant::now();
            self.ask(class, vec![7; SIZE])?;
            answers.recv_timeout(PATIENCE).context("no answer came")?;
            anyhow::Ok(begin.elapsed())
        };
        let mut times = (0..rounds + WARM_UP).map(|_| round()).collect::<anyhow::Result<Vec<_>>>()?;
        times.drain(..WARM_UP);
        Ok(times)
    }

    /// Runs `job` while as much as is taken goes the same way in the least urgent class.
    fn beside_bulk<T>(&self, job: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, f64)> {
        let stop = AtomicBool::new(false);
        let (handle, piece) = (self.meshes[0].handle(), Bytes::from(vec![7; 65_536]));
        std::thread::scope(|threads| {
            let flood = threads.spawn(|| {
                let (begin, mut pieces) = (Instant::now(), 0u32);
                while !stop.load(Ordering::Relaxed) {
                    match handle.send(N2, Class::Bulk, Kind::CHECKPOINT, piece.clone()) {
                        Ok(()) => pieces += 1,
                        Err(_full) => std::thread::sleep(ROOM),
                    }
                }
                f64::from(pieces) * 65_536.0 / begin.elapsed().as_secs_f64() / 1e6
            });
            let result = job();
            stop.store(true, Ordering::Relaxed);
            let megabytes = flood.join().map_err(|_| anyhow::anyhow!("the flood panicked"))?;
            Ok((result?, megabytes))
        })
    }

    /// How long each of the alarms that arrived took, from when it was due.
    fn alarms(&self, count: usize, act: impl Fn(Duration)) -> anyhow::Result<Vec<Duration>> {
        let (delays, arrived) = mpsc::channel();
        let begin = Instant::now() + PACE;
        self.set(1, Job::Delay { begin, delays });
        for due in (0..count).map(|n| PACE * u32::try_from(n).unwrap_or(u32::MAX)) {
            std::thread::sleep((begin + due).saturating_duration_since(Instant::now()));
            act(due);
            let mut payload = vec![7; SIZE];
            payload[..8].copy_from_slice(&u64::try_from(due.as_nanos())?.to_le_bytes());
            self.ask(Class::Alarm, payload)?;
        }
        let mut all = Vec::new();
        while all.len() < count
            && let Ok(delay) = arrived.recv_timeout(PATIENCE)
        {
            all.push(delay);
        }
        Ok(all)
    }

    /// Events a second, from the first one sent to the last one handed up.
    fn one_way(&self, size: usize, events: u32) -> anyhow::Result<f64> {
        let (done, all) = mpsc::channel();
        self.set(1, Job::Count { left: usize::try_from(events)?, done });
        let payload = Bytes::from(vec![7; size]);
        let begin = Instant::now();
        for _ in 0..events {
            loop {
                match self.ask(Class::State, payload.clone()) {
                    Ok(()) => break,
                    Err(SendError::Full) => std::thread::sleep(ROOM),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        all.recv_timeout(PATIENCE).context("not all events came")?;
        Ok(f64::from(events) / begin.elapsed().as_secs_f64())
    }
}

fn identity(authority: &Authority, node: NodeId) -> anyhow::Result<Identity> {
    Ok(authority.issue(node)?.identity()?)
}

/// All of them are held until the last is found, so that they differ.
fn free_addresses(count: usize) -> anyhow::Result<Vec<SocketAddr>> {
    let sockets: Vec<UdpSocket> = (0..count).map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>().context("a loopback socket")?;
    Ok(sockets.iter().map(UdpSocket::local_addr).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_come_through_while_one_of_two_links_flaps() {
        for trouble in [Trouble::Flaps, Trouble::OneWay] {
            let mut rows = Rows::default();
            rows.alarms(trouble, 1).expect("they are sent");
            let [row] = &rows.0[..] else { panic!("one row") };
            assert_eq!((row.lost, row.spread.n), (Some(0), 1000), "{}", row.name);
        }
    }

    #[test]
    fn rounds_and_events_are_counted() {
        let lab = Lab::start(2, &[]).expect("a lab");
        assert_eq!(lab.callback(Class::State, 100).expect("answers").len(), 100);
        assert_eq!(lab.thread(Class::Control, 100).expect("answers").len(), 100);
        assert!(lab.one_way(64, 1000).expect("they come") > 0.0);
        assert_eq!(raw::there_and_back(100).expect("answers").len(), 100);
    }
}
