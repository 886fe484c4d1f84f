//! What the user sees while the demo runs: on a terminal one live line per step, in a pipe one line per milestone.

use std::io::{IsTerminal as _, Write as _};
use std::time::Instant;

/// Where milestones go.
pub(crate) struct Progress {
    /// Lines of the story go to standard output, or to standard error if the report has standard output for itself.
    story_on_stderr: bool,
    live: bool,
    began: Instant,
    open: bool,
}

impl Progress {
    /// `story_on_stderr`: standard output belongs to `--json -`.
    pub(crate) fn new(story_on_stderr: bool) -> Self {
        Self { story_on_stderr, live: std::io::stderr().is_terminal(), began: Instant::now(), open: false }
    }

    /// Since the start.
    pub(crate) fn seconds(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    /// What goes on now. It stays until the next word, on a terminal; in a pipe it is a line of its own.
    pub(crate) fn now(&mut self, text: &str) {
        if !self.live {
            eprintln!("{text}");
        }
        self.live(text);
    }

    /// The same for what changes all the time: only on a terminal.
    pub(crate) fn live(&mut self, text: &str) {
        if self.live {
            // Carriage return, erase to the end of the line: understood by every terminal since the VT100.
            eprint!("\r\x1b[K{text}");
            let _a_terminal_that_is_gone_shows_nothing = std::io::stderr().flush();
            self.open = true;
        }
    }

    /// A line of the story.
    pub(crate) fn tell(&mut self, text: &str) {
        if std::mem::take(&mut self.open) {
            eprint!("\r\x1b[K");
        }
        if self.story_on_stderr {
            eprintln!("{text}");
        } else {
            // Who closed our output does not want the story; the verdict is the exit code.
            let _unwanted = writeln!(std::io::stdout(), "{text}");
        }
    }
}
