//! What a unit prints: into the log, line by line, and the last lines kept. Reading never lags behind: a unit must not block on its log.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sixnines_core::time::Instant;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use crate::clock::boot_now;

/// Lines kept; the oldest goes first.
const LINES_MAX: usize = 200;
/// A longer line is cut into several.
const LINE_BYTES_MAX: usize = 4096;
/// Lines that reach the log in one second; the rest is counted, and still kept in the tail.
const LOGGED_PER_SECOND: u32 = 100;

/// The last lines of a unit's output, both streams in the order in which they were read. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct OutputTail(Arc<Mutex<VecDeque<String>>>);

impl OutputTail {
    /// The lines, the oldest first.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

/// Reads one stream to its end.
pub(crate) async fn read(unit: Arc<str>, stream: &'static str, pipe: OwnedFd, tail: OutputTail) {
    let mut pipe = match pipe::Receiver::from_owned_fd(pipe) {
        Ok(pipe) => pipe,
        Err(error) => return tracing::error!(%unit, stream, %error, "the output of a unit cannot be read"),
    };
    let mut lines = Lines::default();
    let mut limit = Limit::default();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let end = match pipe.read(&mut buffer).await {
            Ok(0) => true,
            Ok(len) => {
                lines.extend(&buffer[..len]);
                false
            }
            Err(error) => {
                tracing::warn!(%unit, stream, %error, "the output of a unit broke off");
                true
            }
        };
        while let Some(line) = lines.next(end) {
            let (log, suppressed) = limit.admit(boot_now());
            if suppressed > 0 {
                tracing::warn!(target: "unit", %unit, stream, suppressed, "lines not logged");
            }
            if log {
                tracing::info!(target: "unit", %unit, stream, "{line}");
            }
            tail.push(line);
        }
        if end {
            return;
        }
    }
}

/// Cuts bytes into lines.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
}

impl Lines {
    fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next line, without its end; what is left without one only if `end`.
    fn next(&mut self, end: bool) -> Option<String> {
        let newline = self.bytes.iter().take(LINE_BYTES_MAX + 1).position(|b| *b == b'\n');
        let (len, skip) = match newline {
            Some(len) => (len, 1),
            None if self.bytes.len() > LINE_BYTES_MAX => (LINE_BYTES_MAX, 0),
            None if end && !self.bytes.is_empty() => (self.bytes.len(), 0),
            None => return None,
        };
        let line = String::from_utf8_lossy(&self.bytes[..len]).trim_end_matches('\r').to_owned();
        self.bytes.drain(..len + skip);
        Some(line)
    }
}

/// Lets so many lines through in each second.
#[derive(Default)]
struct Limit {
    since: Instant,
    admitted: u32,
    suppressed: u64,
}

impl Limit {
    /// Whether to log a line at `now`, and how many were not logged in the second before.
    fn admit(&mut self, now: Instant) -> (bool, u64) {
        let mut told = 0;
        if now.since(self.since) >= Duration::from_secs(1) {
            told = self.suppressed;
            *self = Self { since: now, ..Self::default() };
        }
        let log = self.admitted < LOGGED_PER_SECOND;
        if log {
            self.admitted += 1;
        } else {
            self.suppressed += 1;
        }
        (log, told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_wherever_the_reads_end() {
        let mut lines = Lines::default();
        lines.extend(b"one\ntw");
        assert_eq!(lines.next(false).as_deref(), Some("one"));
        assert_eq!(lines.next(false), None);
        lines.extend(b"o\r\n\nthr\xffee");
        assert_eq!(lines.next(false).as_deref(), Some("two"));
        assert_eq!(lines.next(false).as_deref(), Some(""));
        assert_eq!(lines.next(false), None);
        assert_eq!(lines.next(true).as_deref(), Some("thr\u{fffd}ee"));
        assert_eq!(lines.next(true), None);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let mut lines = Lines::default();
        lines.extend(&vec![b'x'; 10_000]);
        assert_eq!(std::iter::from_fn(|| lines.next(true)).map(|l| l.len()).collect::<Vec<_>>(), [4096, 4096, 1808]);
    }

    #[test]
    fn a_flood_is_counted_not_logged() {
        let mut limit = Limit::default();
        let now = Instant::from_nanos(5_000_000_000);
        let logged = (0..250).filter(|_| limit.admit(now).0).count();
        assert_eq!(logged, 100);
        assert_eq!(limit.admit(now + Duration::from_secs(1)), (true, 150));
        assert_eq!(limit.admit(now + Duration::from_secs(1)), (true, 0));
    }

    #[test]
    fn the_tail_keeps_the_newest() {
        let tail = OutputTail::default();
        (0..500).for_each(|n| tail.push(n.to_string()));
        assert_eq!((tail.lines().len(), tail.lines()[199].as_str()), (200, "499"));
    }
}
