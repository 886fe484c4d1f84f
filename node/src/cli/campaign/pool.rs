//! Threads that play seeds, and their results in the order of seeds.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use nix::time::{ClockId, clock_gettime};
use sixnines_core::domain::config::DomainConfig;
use sixnines_hwsim::domain::chaos::Report;

use super::Subject;
use crate::sim;

/// One seed, played.
pub(super) struct Played {
    pub(super) report: Report,
    /// What it took of a core.
    pub(super) cpu: Duration,
}

/// The threads.
pub(super) struct Pool {
    results: Receiver<Played>,
    /// Came before their turn. Bounded by [`AHEAD_MAX`].
    early: BTreeMap<u64, Played>,
    next: u64,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    next: AtomicU64,
    /// All before it have been handed back.
    handed_back: AtomicU64,
    end: u64,
    is_interrupted: AtomicBool,
}

impl Pool {
    /// Starts playing; Ctrl-C lets the running seeds finish and begins no more, a second one ends the process.
    pub(super) fn start(config: &DomainConfig, subject: &Subject, seeds: Range<u64>, jobs: usize) -> Self {
        let shared = Arc::new(Shared {
            next: AtomicU64::new(seeds.start),
            handed_back: AtomicU64::new(seeds.start),
            end: seeds.end,
            is_interrupted: AtomicBool::new(false),
        });
        listen(&shared);
        let (out, results) = bounded(jobs);
        let thread = |_| {
            let (config, subject, shared, out) = (config.clone(), subject.clone(), Arc::clone(&shared), out.clone());
            std::thread::spawn(move || work(&config, &subject, &shared, &out))
        };
        let threads = (0..jobs).map(thread).collect();
        Self { results, early: BTreeMap::new(), next: seeds.start, shared, threads }
    }

    /// The next seed's result; `None` when there is none left, or after an interruption.
    pub(super) fn next(&mut self) -> Option<Played> {
        loop {
            if let Some(played) = self.early.remove(&self.next) {
                self.next += 1;
                self.shared.handed_back.store(self.next, Ordering::Relaxed);
                return Some(played);
            }
            let played = self.results.recv().ok()?; // all threads have ended
            self.early.insert(played.report.seed, played);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.is_interrupted.store(true, Ordering::Relaxed);
        while self.results.recv().is_ok() {}
        for thread in self.threads.drain(..) {
            drop(thread.join()); // a panic in a seed is a failure of that seed and was caught there
        }
    }
}

fn work(config: &DomainConfig, subject: &Subject, shared: &Shared, out: &Sender<Played>) {
    while !shared.is_interrupted.load(Ordering::Relaxed) {
        let seed = shared.next.fetch_add(1, Ordering::Relaxed);
        if seed >= shared.end {
            return;
        }
        while seed > shared.handed_back.load(Ordering::Relaxed) + AHEAD_MAX {
            std::thread::sleep(Duration::from_millis(1)); // one slow seed holds the others up, or memory would grow
        }
        let began = cpu();
        let mut report = sim::play_safely(config, subject.mutation, &subject.script(config, seed));
        report.story = Vec::new(); // a replay tells it
        if out.send(Played { report, cpu: cpu().saturating_sub(began) }).is_err() {
            return;
        }
    }
}

/// What this thread has had of a core. On a shared machine wall time says little.
fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

fn listen(shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(crate::daemon::signal());
        shared.is_interrupted.store(true, Ordering::Relaxed);
        eprintln!("\ninterrupted: the running seeds end, then comes the report so far");
        runtime.block_on(crate::daemon::signal());
        std::process::exit(130);
    });
}

/// So far may seeds be played ahead of the oldest that is still running.
const AHEAD_MAX: u64 = 1000;
