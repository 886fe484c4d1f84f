//! The log in virtual time: one node's log on one `openraft-rt-sim` runtime, stepped from outside.
//!
//! ```text
//! let mut log = SimLog::start(options, disk.clone(), port, now, seed)?;
//! log.handle().frame(from, bytes);         // any time; taken in by the next step
//! log.step_until(now);                     // frames go out by Port::send; SimLog::now() is the exact time of each
//! let next = log.next_wake();              // step again at this instant at the latest
//! drop(log); disk.crash(seed);             // power cut: what was not synced may be gone
//! ```
//! A step ends when nothing is left to do at its instant. It lets the runtime's own clock run one nanosecond past it, which nobody can
//! see but another step to the very same instant.

mod clock;
mod disk;

use std::sync::Arc;

use openraft::AsyncRuntime;
use sixnines_core::ids::NodeId;
use sixnines_core::domain::Proposal;
use sixnines_core::time::{Duration, Instant};

pub use disk::{Lie, SimDisk};

use self::clock::{Clock, VirtualTime};
use super::host::Opened;
use super::{Handle, OpenError, Options, Port};

/// One node's log in virtual time.
pub struct SimLog {
    runtime: VirtualTime,
    clock: Clock,
    handle: Handle,
    /// The node's clock when the runtime's stood at zero.
    born: Instant,
    /// How far it was stepped.
    stepped: Instant,
}

impl SimLog {
    /// Opens the log on `disk` at `now` of the node's clock.
    ///
    /// # Errors
    /// As in the product.
    pub fn start(options: Options, disk: SimDisk, port: Arc<dyn Port>, now: Instant, seed: u64) -> Result<Self, OpenError> {
        let opened = Opened::open(options, Box::new(disk))?;
        let clock = Clock::default();
        let mut runtime = VirtualTime::with_seed(seed, &clock);
        let writer = opened.writer.clone();
        let (handle, _) = runtime.block_on(async move {
            drop(VirtualTime::spawn(writer.run::<VirtualTime>()));
            opened.start::<VirtualTime>(port).await
        })?;
        let mut log = Self { runtime, clock, handle, born: now, stepped: now };
        log.step_until(now);
        Ok(log)
    }

    /// Runs everything that is due up to and including `now` of the node's clock.
    pub fn step_until(&mut self, now: Instant) {
        self.stepped = self.stepped.max(now);
        let target = now.since(self.born);
        self.runtime.block_on(async move {
            VirtualTime::sleep_until(clock::at(target)).await;
            VirtualTime::sleep(Duration::from_nanos(1)).await;
        });
    }

    /// As [`Self::step_until`], but free of cost while nothing is due and nothing came. The runtime's clock then stays behind: whoever
    /// puts something in goes through [`Self::handle_at`].
    pub fn step_if_due(&mut self, now: Instant) {
        if self.next_wake().is_some_and(|due| due <= now) {
            self.step_until(now);
        }
    }

    /// The way in at `now`: the runtime has caught up, so that what is put in is taken up at that instant, and not in its past.
    pub fn handle_at(&mut self, now: Instant) -> &Handle {
        if now > self.stepped {
            self.step_until(now);
        }
        &self.handle
    }

    /// When the log next does something, as long as no input comes; at once, if one has come since the last step.
    pub fn next_wake(&self) -> Option<Instant> {
        if self.handle.has_inputs() {
            return Some(self.stepped);
        }
        self.clock.next_wake().map(|since_born| self.born + since_born)
    }

    /// The way in. What is put in is taken up by the next step.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Puts in a frame.
    pub fn frame(&self, from: NodeId, bytes: Vec<u8>) {
        self.handle.frame(from, bytes);
    }

    /// Puts in a proposal.
    pub fn propose(&self, proposal: Proposal) {
        self.handle.propose(proposal);
    }

    /// How far into a step of some log this thread is: time since that log's start. For a port that stamps what is sent.
    pub fn now() -> Option<Duration> {
        clock::now()
    }
}
