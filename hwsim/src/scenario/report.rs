//! What came of a scenario.

use sixnines_core::time::Duration;

use super::Recording;

/// The whole of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The scenario.
    pub name: String,
    /// What it shows.
    pub text: String,
    /// Its file.
    pub file: String,
    /// How long it lasted.
    pub lasted: Duration,
    /// One for each step that expects something, and one for each deed that was refused.
    pub outcomes: Vec<Outcome>,
    /// What was done and which alarms came and went, in order.
    pub story: Vec<Line>,
    /// How many lines did not fit.
    pub story_dropped: u64,
    /// To draw.
    pub recording: Recording,
    /// How many events there were.
    pub events: u64,
    /// The last lines of all that happened, if what must never happen did.
    pub trace: Vec<String>,
}

/// What became of one step's expectation.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The step's line in the file.
    pub line: u32,
    /// What was expected, in the words of the file.
    pub text: String,
    /// Whether it was kept.
    pub verdict: Verdict,
    /// How often it was put to the test.
    pub tests: u64,
    /// The longest that one took until it held.
    pub slowest: Option<Duration>,
}

/// Whether an expectation was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Each time.
    Kept,
    /// Not this time; what was found instead.
    Broken {
        /// When.
        at: Duration,
        /// How it was.
        got: String,
    },
    /// Its moment never came, so nothing was tested.
    NotReached,
    /// The deed was refused, and why.
    Refused {
        /// When.
        at: Duration,
        /// Why.
        why: String,
    },
}

/// One line of the story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When.
    pub at: Duration,
    /// What.
    pub text: String,
}

impl Report {
    /// Whether everything was kept.
    pub fn is_good(&self) -> bool {
        self.outcomes.iter().all(|outcome| outcome.verdict == Verdict::Kept)
    }

    /// How many expectations were not kept.
    pub fn broken(&self) -> usize {
        self.outcomes.iter().filter(|outcome| outcome.verdict != Verdict::Kept).count()
    }
}

impl Verdict {
    /// Its word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Broken { .. } => "broken",
            Self::NotReached => "not-reached",
            Self::Refused { .. } => "refused",
        }
    }
}
