//! How a reading turns into a word.

use std::sync::Arc;

use crate::time::Duration;
use crate::value::Value;

use super::{Slot, number};

/// How a state follows from another attribute.
#[derive(Clone, Debug, PartialEq)]
pub struct Derive {
    /// The source.
    pub from: Slot,
    /// The word when no step holds.
    pub normal: Arc<str>,
    /// Tried in order; the first that holds gives the word.
    pub steps: Vec<Step>,
    /// How far beyond its threshold a word is left.
    pub hysteresis: f64,
    /// For how long a new word must hold before it counts.
    pub hold: Duration,
    /// The word while the source is missing; without it the state is missing too.
    pub missing: Option<Arc<str>>,
}

/// One line of a derived state.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The word that it gives.
    pub word: Arc<str>,
    /// When.
    pub test: Test,
}

/// When a step holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// The number lies below.
    Below(f64),
    /// The number lies above.
    Above(f64),
    /// The value is one of these.
    When(Vec<Value>),
}

impl Derive {
    /// The word for a usable reading, given the present word.
    ///
    /// The present word's own step is judged with its threshold moved by the hysteresis, so that a reading on the threshold
    /// does not make the word flutter. A word of an earlier step is entered at the bare threshold.
    pub fn word(&self, reading: &Value, present: Option<&str>) -> Arc<str> {
        for step in &self.steps {
            let slack = if present == Some(&*step.word) { self.hysteresis } else { 0.0 };
            if step.test.holds(reading, slack) {
                return step.word.clone();
            }
        }
        self.normal.clone()
    }

    /// All words that can come out, without doubles.
    pub fn words(&self) -> Vec<Arc<str>> {
        let mut words = vec![self.normal.clone()];
        for word in self.steps.iter().map(|s| &s.word).chain(&self.missing) {
            if !words.contains(word) {
                words.push(word.clone());
            }
        }
        words
    }
}

impl Test {
    fn holds(&self, reading: &Value, slack: f64) -> bool {
        match self {
            Self::Below(limit) => number(reading).is_some_and(|x| x < limit + slack),
            Self::Above(limit) => number(reading).is_some_and(|x| x > limit - slack),
            Self::When(values) => values.contains(reading),
        }
    }
}
