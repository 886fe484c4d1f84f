//! A queue into a runtime that any thread may fill and nobody waits to fill.
//!
//! The runtime trait's own channels are async on the sending side; a hand-off from the liveness, core or mesh threads must not wait.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

pub(crate) struct Inbox<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    /// At the bound `push` gives the item back.
    items_max: usize,
}

struct State<T> {
    items: VecDeque<T>,
    waker: Option<Waker>,
    closed: bool,
}

impl<T> Inbox<T> {
    pub(crate) fn new(items_max: usize) -> Self {
        let state = State { items: VecDeque::new(), waker: None, closed: false };
        Self { state: Mutex::new(state), filled: Condvar::new(), items_max }
    }

    /// Adds an item, or gives it back if the queue is full or closed.
    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        let mut state = self.lock();
        if state.closed || state.items.len() >= self.items_max {
            return Err(item);
        }
        state.items.push_back(item);
        let waker = state.waker.take();
        drop(state);
        self.wake(waker);
        Ok(())
    }

    #[cfg(feature = "sim")]
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().items.is_empty()
    }

    /// What is queued is still handed out; then `take_all` ends.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let waker = state.waker.take();
        drop(state);
        self.wake(waker);
    }

    /// Everything queued, once there is something; `None` after the end.
    pub(crate) async fn take_all(&self) -> Option<Vec<T>> {
        poll_fn(|cx| {
            let mut state = self.lock();
            match state.take() {
                Some(taken) => Poll::Ready(taken),
                None => {
                    state.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// As [`Self::take_all`], for a thread.
    #[cfg(feature = "shell")]
    pub(crate) fn take_all_blocking(&self) -> Option<Vec<T>> {
        let mut state = self.lock();
        loop {
            if let Some(taken) = state.take() {
                return taken;
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn wake(&self, waker: Option<Waker>) {
        self.filled.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    /// `None`: nothing yet. `Some(None)`: never again.
    fn take(&mut self) -> Option<Option<Vec<T>>> {
        if !self.items.is_empty() {
            return Some(Some(std::mem::take(&mut self.items).into()));
        }
        self.closed.then_some(None)
    }
}
