//! When an element of the set `open` is added, prolonged and removed. Pure: the thread carries it out.

use std::time::Duration;

use sixnines_core::time::Instant;

use crate::netlink::Refusal;

/// One slot's element, as far as we know it.
#[derive(Debug)]
pub(crate) struct Slot {
    lease: Duration,
    /// The kernel counts timeouts in its ticks, rounded down; an element may live up to one tick less.
    tick: Duration,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    /// The ticket is there; the reckoning may begin.
    Ticketed,
    /// The element lives at least until `surely` and at most until `at_most`.
    Open { surely: Instant, at_most: Instant },
}

/// What to do next with the element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing, until the word changes or time passes.
    Rest,
    /// Put the ticket, to live for one lease.
    Ticket,
    /// In one transaction: remove the ticket, add the element. Fails if the ticket has expired.
    Open(Duration),
    /// In one transaction: remove the element, add it. Fails if it has expired.
    Prolong(Duration),
    /// Remove the element.
    Close,
}

impl Slot {
    pub(crate) fn new(lease: Duration, tick: Duration) -> Self {
        Self { lease, tick, state: State::Closed }
    }

    /// What to do at `now`, the word saying `deadline`.
    pub(crate) fn step(&mut self, now: Instant, deadline: Instant) -> Step {
        // Below one tick the kernel would round up.
        let life = deadline.since(now).min(self.lease);
        let wanted = life >= self.tick;
        match self.state {
            State::Open { at_most, .. } if now >= at_most => {
                self.state = State::Closed;
                self.step(now, deadline)
            }
            State::Closed if wanted => Step::Ticket,
            State::Ticketed if wanted => Step::Open(life),
            State::Ticketed => {
                self.state = State::Closed; // It expires by itself.
                Step::Rest
            }
            State::Open { .. } if deadline <= now => Step::Close,
            // Each prolonging is a transaction. Half a life is kept in hand, so that one late turn closes nothing.
            State::Open { surely, .. } if wanted && surely.since(now) < life / 2 => Step::Prolong(life),
            State::Closed | State::Open { .. } => Step::Rest,
        }
    }

    /// Takes note of what became of `step`, decided at `reckoned`. True if another step may follow at once.
    pub(crate) fn done(&mut self, step: Step, reckoned: Instant, outcome: &Result<(), Refusal>) -> bool {
        match (step, outcome) {
            (Step::Ticket, Ok(())) => self.state = State::Ticketed,
            (Step::Open(life) | Step::Prolong(life), Ok(())) => {
                let surely = reckoned + life.saturating_sub(self.tick * 2);
                // Added at the latest when the ticket or the element before it was about to expire.
                self.state = State::Open { surely, at_most: reckoned + self.lease + life + self.tick };
            }
            (Step::Close, Ok(())) => self.state = State::Closed,
            (Step::Close | Step::Prolong(_), Err(refusal)) if refusal.is(libc::ENOENT) => self.state = State::Closed,
            // Still there although we took it for expired: prolong it instead.
            (Step::Open(life), Err(refusal)) if refusal.is(libc::EEXIST) => {
                self.state = State::Open { surely: reckoned, at_most: reckoned + self.lease + life + self.tick };
            }
            (Step::Open(_), Err(refusal)) if refusal.is(libc::ENOENT) => self.state = State::Closed,
            // Refused for a reason of the kernel's: tried again at the next turn, and the element runs out meanwhile.
            (_, Err(_)) => return false,
            (Step::Rest, Ok(())) => return false,
        }
        true
    }

    /// Whether the element may be alive in the kernel.
    pub(crate) fn may_be_open(&self, now: Instant) -> bool {
        matches!(self.state, State::Open { at_most, .. } if now < at_most)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEASE: Duration = Duration::from_millis(19);
    const TICK: Duration = Duration::from_millis(4);

    /// The kernel's side: expiry of the ticket and of the element, counted from when a transaction arrives.
    #[derive(Default)]
    struct Kernel {
        ticket: Instant,
        element: Instant,
    }

    impl Kernel {
        fn carry_out(&mut self, now: Instant, step: Step) -> Result<(), Refusal> {
            let refusal = |errno| Err(std::io::Error::from_raw_os_error(errno).into());
            match step {
                Step::Rest => {}
                Step::Ticket => self.ticket = now + floor(LEASE),
                Step::Open(_) if self.ticket <= now => return refusal(libc::ENOENT),
                Step::Open(_) if self.element > now => return refusal(libc::EEXIST),
                Step::Open(life) => (self.ticket, self.element) = (Instant::ZERO, now + floor(life)),
                Step::Prolong(_) | Step::Close if self.element <= now => return refusal(libc::ENOENT),
                Step::Prolong(life) => self.element = now + floor(life),
                Step::Close => self.element = Instant::ZERO,
            }
            Ok(())
        }
    }

    fn floor(life: Duration) -> Duration {
        TICK * u32::try_from((life.as_nanos() / TICK.as_nanos()).max(1)).unwrap()
    }

    #[derive(Clone, Debug)]
    enum Event {
        /// The liveness thread stores `now + lease`.
        Renew,
        /// It stores zero.
        End,
        /// Time passes.
        Wait(u64),
        /// The gate's thread turns; microseconds of pause before each of its transactions.
        Turn([u64; 3]),
    }

    fn event() -> impl Strategy<Value = Event> {
        let pause = prop_oneof![4 => 0..300_u64, 1 => 0..80_000_u64];
        prop_oneof![
            3 => Just(Event::Renew),
            1 => Just(Event::End),
            2 => (0..15_000_u64).prop_map(Event::Wait),
            4 => [pause.clone(), pause.clone(), pause].prop_map(Event::Turn),
        ]
    }

    proptest! {
        #[test]
        fn never_open_for_more_than_a_lease_after_the_newest_deadline(events in proptest::collection::vec(event(), 1..60)) {
            let (mut kernel, mut slot) = (Kernel::default(), Slot::new(LEASE, TICK));
            let mut now = Instant::from_nanos(1_000_000_000);
            let (mut word, mut newest) = (Instant::ZERO, Instant::ZERO);
            for event in events {
                match event {
                    Event::Renew => { word = now + LEASE; newest = word; }
                    Event::End => word = Instant::ZERO,
                    Event::Wait(micros) => now = now + Duration::from_micros(micros),
                    Event::Turn(pauses) => for pause in pauses {
                        let step = slot.step(now, word);
                        let reckoned = now;
                        now = now + Duration::from_micros(pause);
                        let outcome = kernel.carry_out(now, step);
                        if !slot.done(step, reckoned, &outcome) { break; }
                    },
                }
                prop_assert!(kernel.element <= newest + LEASE, "open until {} after {newest}", kernel.element);
                prop_assert!(kernel.element <= now || slot.may_be_open(now), "open without our knowing");
            }
        }
    }

    #[test]
    fn kept_open_without_a_hole_while_beats_come() {
        let (mut kernel, mut slot) = (Kernel::default(), Slot::new(LEASE, TICK));
        let mut now = Instant::from_nanos(1_000_000_000);
        let mut transactions = 0;
        for beat in 0..200 {
            assert!(beat == 0 || kernel.element > now, "closed before beat {beat}");
            let word = now + LEASE;
            loop {
                let step = slot.step(now, word);
                let outcome = kernel.carry_out(now, step);
                transactions += u32::from(step != Step::Rest);
                if !slot.done(step, now, &outcome) {
                    break;
                }
            }
            now = now + Duration::from_millis(5);
        }
        assert!(transactions <= 201, "{transactions}: more than one per beat");
        assert_eq!(slot.step(now, Instant::ZERO), Step::Close);
    }
}
