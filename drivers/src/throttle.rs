//! Bounds how many readings of one driver come to the core loop in a second. A machine: its owner gives the time and carries on what it lets
//! through, as far as the core loop has room.
//!
//! A bucket of tokens, one second's worth of them. Who finds none waits: of numbers the newest of each attribute, as it is with readings that
//! other nodes are told; what is no number (a word, a quality, the result of an action) is what alarms are made of, and keeps its
//! place in line, each one of them. A full line is no longer added to: the driver waits, as it does when the core loop is slow.
//! Within one attribute nothing overtakes anything.

use std::collections::{BTreeMap, VecDeque};

use sixnines_core::ids::{AttributeName, ObjectName};
use sixnines_core::time::{Duration, Instant};
use sixnines_core::value::{Quality, Update, Value};

/// See the module.
#[derive(Debug)]
pub struct Throttle {
    per_second: u64,
    /// In billionths of a reading, so that nothing is lost in rounding.
    tokens: u64,
    filled_at: Instant,
    line: VecDeque<Update>,
    /// The number of the first in line, counted from the start.
    first: u64,
    /// The last in line of each attribute that waits.
    last: BTreeMap<(ObjectName, AttributeName), u64>,
    counts: Counts,
    second: Second,
}

/// What has come of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Readings that found no token.
    pub held: u64,
    /// Of these, those that a newer one overtook: nobody will hear of them.
    pub coalesced: u64,
}

/// Counts what comes, second by second.
#[derive(Debug, Default)]
struct Second {
    began: Instant,
    count: u64,
    /// Of the second before.
    before: u64,
}

/// Readings in line; then the driver waits.
const LINE_MAX: usize = 1024;
/// Tokens of one reading.
const ONE: u64 = 1_000_000_000;
/// Who waits is let through in small crowds: a timer for each would cost more than the readings.
const CROWD_EVERY: Duration = Duration::from_millis(5);

impl Throttle {
    /// A full bucket.
    pub fn new(now: Instant, per_second: u64) -> Self {
        Self {
            per_second: per_second.max(1),
            tokens: ONE.saturating_mul(per_second.max(1)),
            filled_at: now,
            line: VecDeque::new(),
            first: 0,
            last: BTreeMap::new(),
            counts: Counts::default(),
            second: Second { began: now, ..Second::default() },
        }
    }

    /// Another bound, from now on.
    pub fn bound(&mut self, now: Instant, per_second: u64) {
        if per_second.max(1) != self.per_second {
            self.fill(now);
            self.per_second = per_second.max(1);
            self.tokens = self.tokens.min(self.full());
        }
    }

    /// A reading has come. Its owner has taken out before what could go.
    ///
    /// # Panics
    /// If the line is full: its owner asks [`Throttle::is_full`] before.
    pub fn offer(&mut self, now: Instant, update: Update) {
        assert!(!self.is_full(), "the owner asks whether there is room");
        self.fill(now);
        self.second.count(now);
        let key = (update.object.clone(), update.attribute.clone());
        // Who is in line already has found no token, or the core loop no room.
        let must_wait = self.tokens < ONE || !self.line.is_empty();
        self.counts.held += u64::from(must_wait);
        if must_wait
            && let Some(before) = self.last.get(&key).and_then(|at| self.line.get_mut(usize::try_from(at - self.first).ok()?))
            && is_number(before)
            && is_number(&update)
            && before.identity == update.identity
        {
            *before = update;
            self.counts.coalesced += 1;
            return;
        }
        self.last.insert(key, self.first + self.line.len() as u64);
        self.line.push_back(update);
    }

    /// What still waits, in its order.
    pub fn rest(self) -> impl Iterator<Item = Update> {
        self.line.into_iter()
    }

    /// The next reading that may go.
    pub fn poll(&mut self, now: Instant) -> Option<Update> {
        self.fill(now);
        if self.tokens < ONE {
            return None;
        }
        let update = self.line.pop_front()?;
        self.tokens -= ONE;
        let key = (update.object.clone(), update.attribute.clone());
        if self.last.get(&key) == Some(&self.first) {
            self.last.remove(&key);
        }
        self.first += 1;
        Some(update)
    }

    /// When [`Throttle::poll`] is worth a call although nothing has come; never while nobody waits.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let missing = ONE.saturating_sub(self.tokens);
        (!self.line.is_empty()).then(|| self.filled_at + Duration::from_nanos(missing.div_ceil(self.per_second)).max(CROWD_EVERY))
    }

    /// No more can be offered.
    pub fn is_full(&self) -> bool {
        self.line.len() >= LINE_MAX
    }

    /// What has come of it so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many have come in the present second or, should that be more, in the one before, whether they were let through or not.
    pub fn peak(&mut self, now: Instant) -> u64 {
        self.second.turn(now);
        self.second.count.max(self.second.before)
    }

    fn full(&self) -> u64 {
        ONE.saturating_mul(self.per_second)
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.since(self.filled_at).min(Duration::from_secs(1));
        let nanos = u64::try_from(passed.as_nanos()).unwrap_or(ONE);
        self.tokens = self.tokens.saturating_add(nanos.saturating_mul(self.per_second)).min(self.full());
        self.filled_at = self.filled_at.max(now);
    }
}

impl Second {
    fn count(&mut self, now: Instant) {
        self.turn(now);
        self.count += 1;
    }

    fn turn(&mut self, now: Instant) {
        let passed = now.since(self.began);
        if passed >= Duration::from_secs(1) {
            self.before = if passed < Duration::from_secs(2) { self.count } else { 0 };
            self.count = 0;
            self.began = now;
        }
    }
}

/// A good number without a cause: of these only the newest is of use.
fn is_number(update: &Update) -> bool {
    matches!(update.value, Some(Value::Int(_) | Value::Float(_))) && update.quality == Quality::Good && update.cause.is_none()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(5_000_000_000 + ms * 1_000_000)
    }

    fn number(object: u8, value: i64) -> Update {
        Update { object: format!("/mxp1/fan{object}").as_str().into(), attribute: "speed".into(), value: Some(Value::Int(value)), quality: Quality::Good, identity: None, cause: None }
    }

    fn word(object: u8, word: &str) -> Update {
        Update { value: Some(Value::Text(word.into())), attribute: "presence".into(), ..number(object, 0) }
    }

    fn drain(throttle: &mut Throttle, now: Instant) -> Vec<Update> {
        std::iter::from_fn(|| throttle.poll(now)).collect()
    }

    #[test]
    fn below_the_bound_everything_goes_through_at_once_and_nobody_is_woken() {
        let mut throttle = Throttle::new(at(0), 10);
        for second in 0..5 {
            for n in 0..10 {
                throttle.offer(at(second * 1000), number(1, n));
                assert_eq!(throttle.poll(at(second * 1000)), Some(number(1, n)));
            }
            assert_eq!(throttle.poll_timeout(), None);
        }
        assert_eq!((throttle.counts(), throttle.peak(at(4000))), (Counts::default(), 10));
    }

    #[test]
    fn beyond_it_the_newest_number_of_each_attribute_waits_and_every_word_does() {
        let mut throttle = Throttle::new(at(0), 10);
        for n in 0..10 {
            throttle.offer(at(0), number(1, n));
            assert_eq!(throttle.poll(at(0)), Some(number(1, n)));
        }
        for n in 0..50 {
            throttle.offer(at(1), number(1, n));
            throttle.offer(at(1), number(2, n));
        }
        let words = [word(1, "absent"), word(1, "present"), word(1, "absent")];
        words.iter().for_each(|w| throttle.offer(at(1), w.clone()));
        assert_eq!(throttle.poll(at(1)), None);
        assert_eq!(throttle.counts(), Counts { held: 103, coalesced: 98 });
        assert_eq!(throttle.poll_timeout(), Some(at(100)), "when the next token is there");
        let told = drain(&mut throttle, at(600));
        assert_eq!(told, [&[number(1, 49), number(2, 49)][..], &words].concat());
        assert_eq!(throttle.poll_timeout(), None);
    }

    #[test]
    fn who_is_not_taken_out_waits_like_who_finds_no_token() {
        let mut throttle = Throttle::new(at(0), 1_000_000);
        for n in 0..100 {
            throttle.offer(at(n as u64), number(1, n));
        }
        assert_eq!(drain(&mut throttle, at(100)), [number(1, 99)]);
        assert_eq!(throttle.counts(), Counts { held: 99, coalesced: 99 });
    }

    #[test]
    fn a_number_behind_a_failure_of_its_own_sensor_does_not_overtake_it() {
        let mut throttle = Throttle::new(at(0), 1);
        throttle.offer(at(0), number(2, 0));
        drain(&mut throttle, at(0));
        let failed = Update { value: None, quality: Quality::Failed, ..number(1, 0) };
        for update in [number(1, 1), number(1, 2), failed.clone(), number(1, 3), number(1, 4)] {
            throttle.offer(at(1), update);
        }
        let told: Vec<Update> = (1..10).flat_map(|s| drain(&mut throttle, at(s * 1000 + 1))).collect();
        assert_eq!(told, [number(1, 2), failed, number(1, 4)]);
    }

    #[test]
    fn a_full_line_takes_no_more_and_another_bound_holds_at_once() {
        let mut throttle = Throttle::new(at(0), 1);
        while !throttle.is_full() {
            throttle.offer(at(0), word(1, "absent"));
        }
        throttle.bound(at(0), 1_000_000);
        assert_eq!(drain(&mut throttle, at(100)).len(), LINE_MAX);
        throttle.bound(at(100), 10);
        throttle.offer(at(100), word(1, "present"));
        assert!(!throttle.is_full() && throttle.poll(at(200)).is_some());
    }

    proptest! {
        /// Whatever comes: words arrive all and in order, of each attribute the last reading arrives last, and the rate is kept.
        #[test]
        fn nothing_that_counts_is_lost_or_overtaken(steps in prop::collection::vec((0u8..4, any::<bool>(), 0u64..40), 1..300)) {
            let mut throttle = Throttle::new(at(0), 50);
            let (mut now, mut sent, mut told) = (0, Vec::new(), Vec::new());
            for (n, (object, is_word, pause)) in steps.into_iter().enumerate() {
                let update = if is_word { word(object, &n.to_string()) } else { number(object, n as i64) };
                throttle.offer(at(now), update.clone());
                sent.push(update);
                now += pause;
                told.extend(drain(&mut throttle, at(now)));
                prop_assert!(told.len() as u64 <= 50 + now * 50 / 1000);
            }
            told.extend(drain(&mut throttle, at(now)));
            for _ in 0..100 {
                now += 100;
                told.extend(drain(&mut throttle, at(now)));
            }
            let words = |list: &[Update]| list.iter().filter(|u| !is_number(u)).cloned().collect::<Vec<_>>();
            prop_assert_eq!(words(&told), words(&sent));
            for object in 0..4 {
                let last = |list: &[Update]| list.iter().rfind(|u| is_number(u) && u.object == number(object, 0).object).cloned();
                prop_assert_eq!(last(&told), last(&sent));
            }
        }
    }
}
