//! `nines bench idle`: what a domain that has nothing to do costs each node, thread by thread.
//!
//! The demo's domain with one call and its client stopped. Each node is looked at once a second; a row is over all of these seconds and all
//! nodes: `cpu` and `pss` of a node, `cpu/THREAD` of its threads. Processor time is what the scheduler has counted for each thread, so others on the machine do not matter much. Beside it stands the
//! raw limit (`raw`): one thread that sends and receives as many datagrams as a node does, at the profile's pace, and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::Signal;

use super::lab::SEATS;
use super::stage::Stage;
use crate::bench::{BenchReport, Row, Spread, own_time};

/// `nines bench idle`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  nines bench idle --json idle.json
  nines bench idle --json - --seconds 60")]
pub(crate) struct Options {
    /// Where the result goes; - for standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: PathBuf,
    /// For how long the domain is looked at.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) seconds: u32,
}

const PERCENT: &str = "% of a core";
/// What starting has left to do is done by then.
const SETTLE: Duration = Duration::from_secs(3);
/// A heartbeat among three nodes, sealed.
const DATAGRAM: [u8; 178] = [0x53; 178];

/// Looks at the domain, then at the raw limit.
///
/// # Errors
/// If a node's daemon is not there, or not any more.
pub(crate) fn run(stage: &mut Stage, options: &Options) -> anyhow::Result<BenchReport<Row>> {
    stage.wait_redundant()?;
    stage.lab.room("client").signal(Signal::SIGSTOP);
    std::thread::sleep(SETTLE);
    stage.progress.now("looking at a domain that has nothing to do");
    let daemons = SEATS.map(|seat| stage.lab.room(seat.node).find("run").with_context(|| format!("{} does not run", seat.node)));
    let daemons = daemons.into_iter().collect::<anyhow::Result<Vec<i32>>>()?;
    let mut samples = Samples::default();
    let mut before = looks(&daemons)?;
    for _ in 0..options.seconds {
        std::thread::sleep(Duration::from_secs(1));
        let now = looks(&daemons)?;
        before.iter().zip(&now).for_each(|(before, now)| samples.add(before, now));
        before = now;
    }
    samples.put("pss", daemons.iter().map(|pid| pss(*pid)).collect::<anyhow::Result<_>>()?);
    stage.progress.now("the same datagrams and nothing else");
    let interval = stage.profile.times().interval;
    samples.put("raw", (0..options.seconds.min(10)).map(|_| bare_second(interval)).collect::<anyhow::Result<_>>()?);
    stage.lab.room("client").signal(Signal::SIGCONT);
    Ok(BenchReport::new("idle", stage.profile.word(), samples.rows()))
}

/// What a process had used at one moment, in seconds, by its threads' names.
pub(super) struct Look {
    at: Instant,
    used: BTreeMap<String, f64>,
}

pub(super) fn looks(daemons: &[i32]) -> anyhow::Result<Vec<Look>> {
    daemons.iter().map(|pid| look(*pid)).collect()
}

fn look(pid: i32) -> anyhow::Result<Look> {
    let mut used = BTreeMap::new();
    let at = Instant::now();
    for task in fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("the daemon {pid} is gone"))? {
        let task = task?.path();
        // A thread may end between two of these; what it used is then missed, and that is next to nothing.
        let (Ok(name), Ok(times)) = (fs::read_to_string(task.join("comm")), fs::read_to_string(task.join("schedstat"))) else { continue };
        let nanos: f64 = times.split(' ').next().and_then(|n| n.parse().ok()).context("schedstat begins with a number")?;
        *used.entry(name.trim().to_owned()).or_default() += nanos / 1e9;
    }
    Ok(Look { at, used })
}

/// Megabytes, shared pages in parts.
pub(super) fn pss(pid: i32) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).with_context(|| format!("the memory of {pid}"))?;
    let kilobytes = text.lines().find_map(|l| l.strip_prefix("Pss:")?.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    Ok(kilobytes.context("smaps_rollup has a line Pss")? / 1024.0)
}

#[derive(Default)]
pub(super) struct Samples(BTreeMap<String, Vec<f64>>);

impl Samples {
    pub(super) fn add(&mut self, before: &Look, now: &Look) {
        let share = |used: f64| used.max(0.0) * 100.0 / (now.at - before.at).as_secs_f64();
        let mut total = 0.0;
        for (name, used) in &now.used {
            let used = used - before.used.get(name).unwrap_or(&0.0);
            total += used;
            self.0.entry(format!("cpu/{name}")).or_default().push(share(used));
        }
        self.0.entry("cpu".to_owned()).or_default().push(share(total));
    }

    pub(super) fn put(&mut self, name: &str, values: Vec<f64>) {
        self.0.insert(name.to_owned(), values);
    }

    pub(super) fn rows(self) -> Vec<Row> {
        let row = |(name, values): (String, Vec<f64>)| {
            let unit = if name == "pss" { "MB" } else { PERCENT };
            Row { name, spread: Spread::of(values, unit) }
        };
        self.0.into_iter().map(row).collect()
    }
}

/// For a second, two peers' datagrams there and back at each beat, to itself; what share of a core that took.
fn bare_second(interval: Duration) -> anyhow::Result<f64> {
    let socket = UdpSocket::bind("127.0.0.1:0").context("a socket for the raw limit")?;
    let address = socket.local_addr()?;
    let mut buffer = [0; 2048];
    let (begin, used) = (Instant::now(), own_time()?);
    let mut due = begin;
    while begin.elapsed() < Duration::from_secs(1) {
        due += interval;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        for _ in 1..SEATS.len() {
            socket.send_to(&DATAGRAM, address)?;
        }
        for _ in 1..SEATS.len() {
            socket.recv(&mut buffer)?;
        }
    }
    Ok((own_time()? - used).as_secs_f64() * 100.0 / begin.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_over_the_seconds_of_all_nodes() {
        let start = Instant::now();
        let look = |second: u64, core: f64| Look { at: start + Duration::from_secs(second), used: BTreeMap::from([("core".to_owned(), core), ("mesh".to_owned(), 0.0)]) };
        let mut samples = Samples::default();
        samples.add(&look(0, 1.0), &look(1, 1.01));
        samples.add(&look(0, 7.0), &look(2, 7.06));
        let rows = samples.rows();
        let names: Vec<_> = rows.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(names, ["cpu", "cpu/core", "cpu/mesh"]);
        assert_eq!((rows[0].spread.n, rows[0].spread.median, rows[0].spread.max, rows[0].spread.unit.as_str()), (2, 1.0, 3.0, PERCENT));
    }

    #[test]
    fn a_process_is_looked_at_by_its_threads() {
        let me = std::process::id().try_into().expect("a pid");
        assert!(look(me).expect("it runs").used.values().sum::<f64>() > 0.0);
        assert!(pss(me).expect("it has memory") > 0.0);
    }
}
