//! How many applications may be connected at once, and how many are.
//!
//! A connection has a seat from its first moment, before it has said who it is, so that those that say nothing are bounded too. It gives
//! the seat back with its end, whoever ends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// The seats of a service.
#[derive(Debug)]
pub(super) struct Seats {
    taken: AtomicUsize,
    max: AtomicUsize,
    refused: AtomicU64,
    /// It was said that there is none left, and nobody got one since.
    is_told: AtomicBool,
    /// Connections that are being told that there is no seat.
    standing: AtomicUsize,
}

/// One seat.
#[derive(Debug)]
pub(super) struct Seat(Arc<Seats>);

/// The place of a connection that is about to be refused.
#[derive(Debug)]
pub(super) struct Standing(Arc<Seats>);

/// Connections that are heard out before they are refused; more are refused unheard, and some may see only that their socket has ended.
const STANDING_MAX: usize = 16;

impl Seats {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), max: AtomicUsize::new(max), refused: AtomicU64::new(0), is_told: AtomicBool::new(false), standing: AtomicUsize::new(0) })
    }

    /// A seat; none at the bound, which is counted.
    pub(super) fn take(self: &Arc<Self>) -> Option<Seat> {
        let max = self.max();
        let took = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| (taken < max).then_some(taken + 1));
        match took {
            Ok(_) => self.is_told.store(false, Ordering::Relaxed),
            Err(_) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
        took.ok().map(|_| Seat(Arc::clone(self)))
    }

    /// Room to hear out somebody who gets no seat.
    pub(super) fn stand(self: &Arc<Self>) -> Option<Standing> {
        let came = self.standing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |standing| (standing < STANDING_MAX).then_some(standing + 1));
        came.ok().map(|_| Standing(Arc::clone(self)))
    }

    /// Whether a refusal is worth a line: refused applications ask again many times a second.
    pub(super) fn is_news(&self) -> bool {
        !self.is_told.swap(true, Ordering::Relaxed)
    }

    /// Another bound; who sits stays.
    pub(super) fn bound(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    pub(super) fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.0.standing.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_gets_no_seat_and_one_that_goes_leaves_its_own() {
        let seats = Seats::new(2);
        let (first, _second) = (seats.take(), seats.take());
        assert!(first.is_some() && seats.take().is_none());
        assert_eq!((seats.taken(), seats.refused()), (2, 1));
        drop(first);
        assert!(seats.take().is_some());
        seats.bound(1);
        assert_eq!(seats.taken(), 1, "a seat that was taken and left");
        assert!(seats.take().is_none(), "who sits stays, nobody comes");
    }
}
