//! How far a campaign is: a live line on a terminal, a line per tenth in a pipe; failures at once in both.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use super::Subject;
use super::pool::Played;
use super::state::State;

pub(super) struct Progress {
    wanted: u64,
    before: u64,
    began: Instant,
    said: Option<Instant>,
    saved: Instant,
    /// Tenths that have been told.
    tenths: u64,
    is_terminal: bool,
}

impl Progress {
    pub(super) fn new(wanted: u64, before: u64) -> Self {
        if before > 0 {
            eprintln!("going on after {before} seeds");
        }
        let now = Instant::now();
        Self { wanted, before, began: now, said: None, saved: now, tenths: before * 10 / wanted.max(1), is_terminal: std::io::stderr().is_terminal() }
    }

    pub(super) fn seed(&mut self, state: &State, played: &Played, subject: &Subject) {
        if let Some(failure) = &played.report.failure {
            let seed = played.report.seed;
            self.clear();
            eprintln!("seed {seed} FAILED: {failure}\n  replay: nines sim replay --seed {seed}{}", subject.arguments());
        }
        let done = state.done();
        let tenths = done * 10 / self.wanted.max(1);
        let is_due = if self.is_terminal { self.said.is_none_or(|at| at.elapsed() > EVERY) } else { tenths > self.tenths };
        if is_due {
            self.said = Some(Instant::now());
            self.tenths = tenths;
            self.say(state, done);
        }
    }

    fn say(&self, state: &State, done: u64) {
        let here = done - self.before;
        let elapsed = self.began.elapsed().as_secs_f64().max(0.001);
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let (rate, left) = (here as f64 / elapsed, (self.wanted - done.min(self.wanted)) as f64);
        let failed = match state.tally.failed() {
            0 => "all good".to_owned(),
            n => format!("{n} FAILED"),
        };
        let (head, tail) = if self.is_terminal { ("\r", "\x1b[K") } else { ("", "\n") };
        eprint!("{head}{done} of {} seeds, {failed}, {rate:.1} a second, {} left, {} MB{tail}", self.wanted, time(left / rate), resident_mb());
        drop(std::io::stderr().flush());
    }

    pub(super) fn is_time_to_save(&mut self) -> bool {
        let is_time = self.saved.elapsed() > SAVE_EVERY;
        if is_time {
            self.saved = Instant::now();
        }
        is_time
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub(super) fn end(&self) {
        self.clear();
    }

    fn clear(&self) {
        if self.is_terminal {
            eprint!("\r\x1b[K");
        }
    }
}

/// This process' memory; 0 where the kernel does not tell.
pub(super) fn resident_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn time(seconds: f64) -> String {
    if !seconds.is_finite() {
        return "unknown time".to_owned();
    }
    match Duration::from_secs_f64(seconds.min(1e9)).as_secs() {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}

const EVERY: Duration = Duration::from_millis(500);
const SAVE_EVERY: Duration = Duration::from_secs(5);
