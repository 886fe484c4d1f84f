//! The story of a run.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};

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
        let mut sum = Sum(self.checksum);
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

/// Text that goes nowhere but into the checksum: what nobody reads is not built.
struct Sum(u64);

impl fmt::Write for Sum {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // FNV-1a: two runs are compared by it, nothing else.
        self.0 = text.bytes().fold(self.0, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        Ok(())
    }
}

/// The story of a failing seed is told from its last lines.
const LINES_MAX: usize = 4000;
