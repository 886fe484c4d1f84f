//! `openraft-rt-sim`'s runtime, and a list of its timers: so that a simulator knows when to step next.
//!
//! The runtime does not tell; all sleeping goes through the trait, though, so a thin layer over it sees each timer.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use openraft::{AsyncRuntime, Instant as _, OptionalSend};
use openraft_rt_sim::{SimInstant, SimJoinError, SimJoinHandle, SimRuntime, SimSleep, SimWatch};

/// The deadlines of one runtime's sleepers, with how many sleep until each.
#[derive(Clone, Default)]
pub(super) struct Clock(Arc<Mutex<BTreeMap<SimInstant, usize>>>);

thread_local! {
    static CURRENT: RefCell<Clock> = RefCell::default();
}

impl Clock {
    pub(super) fn next_wake(&self) -> Option<Duration> {
        self.lock().first_key_value().map(|(at, _)| at.elapsed_since_start())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SimInstant, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The runtime's instant so long after its start.
pub(super) fn at(since_start: Duration) -> SimInstant {
    let now = SimInstant::now();
    now - now.elapsed_since_start() + since_start
}

/// The present of the runtime that this thread is in.
pub(super) fn now() -> Option<Duration> {
    SimInstant::try_now().map(SimInstant::elapsed_since_start)
}

/// Virtual time with a list of its timers.
#[derive(Debug)]
pub(super) struct VirtualTime {
    runtime: SimRuntime,
    clock: Clock,
}

impl VirtualTime {
    pub(super) fn with_seed(seed: u64, clock: &Clock) -> Self {
        Self { runtime: SimRuntime::with_seed(seed), clock: clock.clone() }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// A sleeper that is on the list while it sleeps.
pub(super) struct Sleep {
    inner: Pin<Box<SimSleep>>,
    deadline: SimInstant,
    /// Where it stands on the list, from its first poll on.
    listed: Option<Clock>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let polled = self.inner.as_mut().poll(cx);
        match polled {
            Poll::Ready(()) => self.strike(),
            Poll::Pending if self.listed.is_none() => {
                let clock = CURRENT.with_borrow(Clock::clone);
                *clock.lock().entry(self.deadline).or_default() += 1;
                self.listed = Some(clock);
            }
            Poll::Pending => {}
        }
        polled
    }
}

impl Sleep {
    fn strike(&mut self) {
        let Some(clock) = self.listed.take() else { return };
        let mut list = clock.lock();
        if let Some(count) = list.get_mut(&self.deadline) {
            *count -= 1;
            if *count == 0 {
                list.remove(&self.deadline);
            }
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.strike();
    }
}

/// The time was over first.
#[derive(Debug)]
pub(super) struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time is over")
    }
}

/// A future with a deadline; it is asked before the clock is.
pub(super) struct Timeout<F> {
    future: Pin<Box<F>>,
    sleep: Pin<Box<Sleep>>,
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = self.future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        self.sleep.as_mut().poll(cx).map(|()| Err(Elapsed))
    }
}

impl AsyncRuntime for VirtualTime {
    type JoinError = SimJoinError;
    type JoinHandle<T: OptionalSend + 'static> = SimJoinHandle<T>;
    type Sleep = Sleep;
    type Instant = SimInstant;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = <SimRuntime as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <SimRuntime as AsyncRuntime>::Mpsc;
    type Watch = SimWatch;
    type Oneshot = <SimRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <SimRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> SimJoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        SimRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Sleep {
        Self::sleep_until(SimInstant::now() + duration)
    }

    fn sleep_until(deadline: SimInstant) -> Sleep {
        Sleep { inner: Box::pin(SimRuntime::sleep_until(deadline)), deadline, listed: None }
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Timeout<F> {
        Self::timeout_at(SimInstant::now() + duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: SimInstant, future: F) -> Timeout<F> {
        Timeout { future: Box::pin(future), sleep: Box::pin(Self::sleep_until(deadline)) }
    }

    fn is_panic(error: &SimJoinError) -> bool {
        SimRuntime::is_panic(error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        SimRuntime::thread_rng()
    }

    fn new(threads: usize) -> Self {
        Self { runtime: SimRuntime::new(threads), clock: Clock::default() }
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        CURRENT.set(self.clock.clone());
        self.runtime.block_on(future)
    }

    fn spawn_blocking<F, T>(f: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        SimRuntime::spawn_blocking(f)
    }
}
