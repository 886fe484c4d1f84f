//! How a unit ended.

use std::fmt;
use std::time::Duration;

/// A unit's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitInfo {
    /// Its process id.
    pub pid: u32,
    /// How it ended.
    pub how: ExitHow,
    /// How long it had run.
    pub ran_for: Duration,
}

/// The kernel's word on how a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitHow {
    /// It returned a status; 0 is success by custom.
    Status(i32),
    /// A signal ended it.
    Signal {
        /// Which one.
        number: i32,
        /// Whether a core file was written.
        dumped: bool,
    },
    /// Somebody else took the kernel's word before us.
    Unknown,
}

impl fmt::Display for ExitInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after {:.1} s", self.how, self.ran_for.as_secs_f64())
    }
}

impl fmt::Display for ExitHow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(0) => f.write_str("ended by itself"),
            Self::Status(status) => write!(f, "ended with status {status}"),
            Self::Signal { number, dumped } => {
                match nix::sys::signal::Signal::try_from(*number) {
                    Ok(signal) => write!(f, "killed by {}", signal.as_str())?,
                    Err(_) => write!(f, "killed by signal {number}")?,
                }
                f.write_str(if *dumped { ", core dumped" } else { "" })
            }
            Self::Unknown => f.write_str("ended, nobody knows how"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_reads_like_a_sentence() {
        let text = |how| ExitInfo { pid: 7, how, ran_for: Duration::from_millis(1240) }.to_string();
        assert_eq!(text(ExitHow::Status(0)), "ended by itself after 1.2 s");
        assert_eq!(text(ExitHow::Status(3)), "ended with status 3 after 1.2 s");
        assert_eq!(text(ExitHow::Signal { number: 9, dumped: false }), "killed by SIGKILL after 1.2 s");
        assert_eq!(text(ExitHow::Signal { number: 11, dumped: true }), "killed by SIGSEGV, core dumped after 1.2 s");
        assert_eq!(text(ExitHow::Signal { number: 40, dumped: false }), "killed by signal 40 after 1.2 s");
    }
}
