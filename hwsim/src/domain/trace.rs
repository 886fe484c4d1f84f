//! The story of a run.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};

use super::fnv::Fnv;

/// What happened, as text, and a running checksum of all of it.
#[derive(Debug, Default)]
pub struct Trace {
    /// The newest lines; the oldest are dropped beyond a bound.
    pub lines: VecDeque<String>,
    /// Over every line ever written.
    pub checksum: u64,
}

impl Trace {
    /// Into the checksum alone: what happens every millisecond would push the story out.
    pub(super) fn count(&mut self, line: fmt::Arguments<'_>) {
        let mut sum = Fnv(self.checksum); // what nobody reads is not built
        if sum.write_fmt(line).is_ok() {
            self.checksum = sum.0;
        }
    }

    pub(super) fn write(&mut self, line: String) {
        self.count(format_args!("{line}"));
        self.lines.push_back(line);
        if self.lines.len() > LINES_MAX {
            self.lines.pop_front();
        }
    }
}

/// The story of a failing seed is told from its last lines.
const LINES_MAX: usize = 4000;
