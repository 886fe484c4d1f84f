//! What the stresses put on the machine, as children of the bench that end with it: hidden subcommands of this program.

use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::{ballast, firewall, storm};

/// The hidden subcommand that is one of them.
pub(crate) const BURDEN: &str = "demo-burden";

/// One burden.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Burden {
    /// Spins.
    Spin,
    /// Allocates, touches and frees memory, again and again.
    Churn,
    /// Takes memory until only so much is available, and walks through it.
    Fill {
        /// Megabytes that are left to others.
        #[arg(long)]
        leave: u64,
    },
    /// Reloads a set of so many elements, again and again.
    Firewall {
        /// Of the set.
        #[arg(long)]
        elements: u32,
    },
    /// Stands between a chassis and its driver, and adds readings.
    Storm(storm::Options),
    /// An application with a large state.
    Ballast {
        /// Of it.
        #[arg(long)]
        megabytes: u32,
        /// The file that it makes when it is full.
        #[arg(long)]
        full: PathBuf,
    },
}

impl Burden {
    /// Goes on until it is killed.
    ///
    /// # Errors
    /// What the kernel refused, or whom it could not reach.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::Spin => loop {
                black_box(0);
            },
            Self::Churn => loop {
                black_box(touched(CHURN_MEGABYTES));
            },
            Self::Fill { leave } => fill(*leave),
            Self::Firewall { elements } => firewall::reload_for_ever(*elements),
            Self::Storm(options) => storm::run(options),
            Self::Ballast { megabytes, full } => ballast::run(*megabytes, full),
        }
    }
}

/// What `stress-ng --vm 1` takes, too.
const CHURN_MEGABYTES: usize = 256;
/// Taken, given back and walked in pieces of this size: what is available is looked at before each.
const PIECE_MEGABYTES: usize = 16;
const MEGABYTE: usize = 1 << 20;
const PAGE: usize = 4096;
/// When everything is taken the walk is not to be one more spinning process.
const WALK_PAUSE: Duration = Duration::from_millis(1);

fn touched(megabytes: usize) -> Vec<u8> {
    let mut memory = vec![0; megabytes * MEGABYTE];
    memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
    memory
}

fn fill(leave: u64) -> anyhow::Result<()> {
    // Should the kernel run out of memory all the same, it is this process that goes.
    std::fs::write("/proc/self/oom_score_adj", "1000").context("offering itself to the kernel")?;
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    let (mut next, mut told) = (0, Instant::now());
    loop {
        let available = available_megabytes()?;
        if available < leave {
            pieces.pop();
        } else if available > leave + 2 * PIECE_MEGABYTES as u64 {
            pieces.push(touched(PIECE_MEGABYTES));
        } else {
            std::thread::sleep(WALK_PAUSE);
        }
        if !pieces.is_empty() {
            next = (next + 1) % pieces.len();
            pieces[next].iter_mut().step_by(PAGE).for_each(|byte| *byte = byte.wrapping_add(1));
        }
        if told.elapsed() > Duration::from_secs(1) {
            told = Instant::now();
            println!("fill: {} MB, {available} MB available", pieces.len() * PIECE_MEGABYTES);
        }
    }
}

/// What the kernel could give without swapping.
///
/// # Errors
/// If it does not say.
pub(super) fn available_megabytes() -> anyhow::Result<u64> {
    meminfo("MemAvailable:")
}

/// What is left to others: a tenth of the machine's memory, and 512 MB at least.
///
/// # Errors
/// If the kernel does not say how much there is.
pub(super) fn megabytes_to_leave() -> anyhow::Result<u64> {
    Ok((meminfo("MemTotal:")? / 10).max(512))
}

fn meminfo(name: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let kilobytes = text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    Ok(kilobytes.with_context(|| format!("/proc/meminfo has no {name}"))? / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_memory_and_some_of_it_is_left_to_others() {
        assert!(available_megabytes().expect("Linux says it") > 0);
        assert!(megabytes_to_leave().expect("Linux says it") >= 512);
    }
}
