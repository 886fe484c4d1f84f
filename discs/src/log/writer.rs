//! The one writer of a log's files: takes jobs in order, joins what waits into one sync, and says when it is durable.
//!
//! In the product it is a thread, so that a slow disk holds up neither heartbeats nor votes for others; in the simulator it is a task
//! that sleeps as long as the simulated sync takes. After the first error nothing is tried again: a failed sync leaves unknown
//! what is on the disk (`PortError` to everybody who waits, and the node stops).

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::AsyncRuntime;

use super::inbox::Inbox;
use super::segment::{Item, Segment};

/// Called once, with what became of a job.
pub(crate) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// What to do.
pub(crate) enum Work {
    /// Add records, and sync.
    Write(Vec<Item>),
    /// Put a log with just these records in place of the present one.
    Rewrite(Vec<Item>),
    /// Put a snapshot in place of the present one.
    Snapshot(Arc<[u8]>),
}

pub(crate) struct Job {
    pub(crate) work: Work,
    pub(crate) done: Done,
}

/// Where jobs go in.
#[derive(Clone)]
pub(crate) struct Writer {
    jobs: Arc<Inbox<Job>>,
    segment: Arc<Mutex<State>>,
}

struct State {
    segment: Segment,
    /// The first error, for all who come later.
    failed: Option<(io::ErrorKind, String)>,
}

impl Writer {
    pub(crate) fn new(segment: Segment) -> Self {
        Self { jobs: Arc::new(Inbox::new(usize::MAX)), segment: Arc::new(Mutex::new(State { segment, failed: None })) }
    }

    pub(crate) fn submit(&self, work: Work, done: impl FnOnce(io::Result<()>) + Send + 'static) {
        if let Err(job) = self.jobs.push(Job { work, done: Box::new(done) }) {
            (job.done)(Err(io::Error::other("the log is closed")));
        }
    }

    /// Bytes in the log file, as far as it was written.
    pub(crate) fn length(&self) -> u64 {
        self.lock().segment.length()
    }

    /// No more jobs; what is queued is still done.
    pub(crate) fn close(&self) {
        self.jobs.close();
    }

    /// The writer as a task of a virtual-time runtime.
    pub(crate) async fn run<R: AsyncRuntime>(self) {
        while let Some(jobs) = self.jobs.take_all().await {
            let latency = self.lock().segment.latency();
            let waiting = self.lock().write(jobs);
            if !latency.is_zero() {
                R::sleep(latency).await;
            }
            self.finish(waiting);
        }
    }

    /// The writer as a thread's whole life.
    #[cfg(feature = "shell")]
    pub(crate) fn run_on_this_thread(self) {
        while let Some(jobs) = self.jobs.take_all_blocking() {
            let waiting = self.lock().write(jobs);
            self.finish(waiting);
        }
    }

    fn finish(&self, waiting: Vec<(Done, io::Result<()>)>) {
        let synced = self.lock().sync();
        for (done, written) in waiting {
            done(written.and_then(|()| copy(&synced)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.segment.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Carries out jobs up to, not including, the sync.
    fn write(&mut self, jobs: Vec<Job>) -> Vec<(Done, io::Result<()>)> {
        jobs.into_iter().map(|job| (job.done, self.guarded(|segment| carry_out(segment, job.work)))).collect()
    }

    fn sync(&mut self) -> io::Result<()> {
        self.guarded(Segment::sync)
    }

    fn guarded(&mut self, act: impl FnOnce(&mut Segment) -> io::Result<()>) -> io::Result<()> {
        if let Some((kind, text)) = &self.failed {
            return Err(io::Error::new(*kind, text.clone()));
        }
        act(&mut self.segment).inspect_err(|e| self.failed = Some((e.kind(), e.to_string())))
    }
}

fn carry_out(segment: &mut Segment, work: Work) -> io::Result<()> {
    match work {
        Work::Write(items) => segment.write(&items),
        Work::Rewrite(items) => segment.rewrite(&items),
        Work::Snapshot(bytes) => segment.save_snapshot(&bytes),
    }
}

fn copy(result: &io::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) => Ok(()),
        Err(e) => Err(io::Error::new(e.kind(), e.to_string())),
    }
}
