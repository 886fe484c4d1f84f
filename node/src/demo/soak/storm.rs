//! A storm of readings: stands between a shelf manager and the driver of its chassis, passes everything on, and, while it is told to, adds readings of its own.
//!
//! What it adds goes the way of every reading: the driver takes it, the node bounds it, the core loop makes events of it. A file switches it on; what it has
//! sent it writes to another.

use std::io::{BufRead as _, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use sixnines_core::value::{Quality, Update, Value};
use sixnines_hwsim::chassis::wire::FromChassis;

/// Where it stands, and how hard it blows.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Where drivers come.
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// The shelf manager.
    #[arg(long)]
    pub(crate) manager: SocketAddr,
    /// The chassis.
    #[arg(long)]
    pub(crate) chassis: String,
    /// It blows while this file exists and holds a number: readings a second.
    #[arg(long)]
    pub(crate) when: PathBuf,
    /// Where it writes how many readings it has sent.
    #[arg(long)]
    pub(crate) sent: PathBuf,
}

/// A line of added readings goes out so often.
const EVERY: Duration = Duration::from_millis(10);
/// Fans whose speed the readings are of.
const FANS: u64 = 5;

/// Serves until it is killed.
///
/// # Errors
/// If it cannot listen.
pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let listener = TcpListener::bind(options.listen).with_context(|| format!("listening on {}", options.listen))?;
    let sent = Arc::new(AtomicU64::new(0));
    let (counter, file) = (Arc::clone(&sent), options.sent.clone());
    let next = file.with_extension("next");
    std::thread::spawn(move || {
        loop {
            // Renamed, so that whoever looks never finds it empty.
            if let Err(error) = std::fs::write(&next, counter.load(Ordering::Relaxed).to_string()).and_then(|()| std::fs::rename(&next, &file)) {
                return eprintln!("storm: {error}"); // the lab is being taken away
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    for driver in listener.incoming() {
        let (options, sent) = (options.clone(), Arc::clone(&sent));
        std::thread::spawn(move || {
            if let Err(error) = driver.map_err(anyhow::Error::from).and_then(|driver| stand_between(&options, driver, &sent)) {
                eprintln!("storm: {error:#}");
            }
        });
    }
    Ok(())
}

/// One driver's connection, until either side ends it.
fn stand_between(options: &Options, driver: TcpStream, sent: &Arc<AtomicU64>) -> anyhow::Result<()> {
    let manager = TcpStream::connect(options.manager).context("reaching the shelf manager")?;
    manager.set_nodelay(true)?;
    driver.set_nodelay(true)?;
    let (mut from_driver, mut to_manager) = (driver.try_clone()?, manager.try_clone()?);
    std::thread::spawn(move || {
        // Whichever side ends, the other shall see it.
        drop(std::io::copy(&mut from_driver, &mut to_manager));
        drop(to_manager.shutdown(std::net::Shutdown::Both));
    });
    let to_driver = Arc::new(Mutex::new(driver));
    let (stormy, sent, given) = (Arc::clone(&to_driver), Arc::clone(sent), options.clone());
    let mut lines = BufReader::new(manager);
    let mut line = Vec::new();
    let mut blows = None;
    while lines.read_until(b'\n', &mut line)? > 0 {
        say(&to_driver, &line)?;
        // Only to who has subscribed: its first readings have just gone by.
        if blows.is_none() && line.starts_with(br#"{"kind":"readings""#) {
            let (stormy, sent, given) = (Arc::clone(&stormy), Arc::clone(&sent), given.clone());
            blows = Some(std::thread::spawn(move || blow(&given, &stormy, &sent)));
        }
        line.clear();
    }
    let driver = to_driver.lock().unwrap_or_else(PoisonError::into_inner);
    drop(driver.shutdown(std::net::Shutdown::Both)); // it may be gone already
    Ok(())
}

/// Adds readings until the driver is gone. What back-pressure holds up is not made up for.
fn blow(options: &Options, driver: &Mutex<TcpStream>, sent: &AtomicU64) {
    let mut turn = 0;
    loop {
        let began = Instant::now();
        let rate: Option<u64> = std::fs::read_to_string(&options.when).ok().and_then(|text| text.parse().ok());
        if let Some(rate) = rate {
            let per_line = rate * u64::try_from(EVERY.as_millis()).expect("10") / 1000;
            turn += per_line;
            if say(driver, &readings(&options.chassis, turn, per_line)).is_err() {
                return;
            }
            sent.fetch_add(per_line, Ordering::Relaxed);
        } else if is_gone(driver) {
            return;
        }
        std::thread::sleep(EVERY.saturating_sub(began.elapsed()));
    }
}

fn is_gone(driver: &Mutex<TcpStream>) -> bool {
    driver.lock().unwrap_or_else(PoisonError::into_inner).peer_addr().is_err()
}

fn say(driver: &Mutex<TcpStream>, line: &[u8]) -> std::io::Result<()> {
    driver.lock().unwrap_or_else(PoisonError::into_inner).write_all(line)
}

/// So many readings from the one of that number on: speeds of turning fans, each another one than before.
fn readings(chassis: &str, from: u64, count: u64) -> Vec<u8> {
    let update = |n: u64| Update {
        object: format!("/{chassis}/fan{}", n % FANS + 1).as_str().into(),
        attribute: "speed".into(),
        value: Some(Value::Int(8000 + i64::try_from(n % 1999).expect("below 1999"))),
        quality: Quality::Good,
        identity: None,
        cause: None,
    };
    let list = (from..from + count).map(update).collect();
    let message = FromChassis::Readings { full: false, at: sixnines_hwsim::chassis::server::boot_clock(), list };
    let mut line = serde_json::to_vec(&message).expect("readings are JSON");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use sixnines_hwsim::chassis::wire::LINE_BYTES_MAX;

    use super::*;

    #[test]
    fn a_line_of_the_storm_is_one_that_a_driver_takes() {
        let line = readings("mxp1", 7, 1000);
        assert!(line.len() < LINE_BYTES_MAX, "{} bytes", line.len());
        assert!(line.starts_with(br#"{"kind":"readings""#), "as a chassis writes it");
        let FromChassis::Readings { full: false, list, .. } = serde_json::from_slice(&line).expect("it reads back") else { panic!("no readings") };
        assert_eq!((list.len(), list[0].object.as_str()), (1000, "/mxp1/fan3"));
    }
}
