//! Lines from a stream, with a bound on their length.

use tokio::io::{AsyncRead, AsyncReadExt};

/// Splits a stream into lines.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    from: R,
    buffer: Vec<u8>,
    /// Up to here the buffer holds no line's end.
    searched: usize,
    bytes_max: usize,
}

/// Why there is no further line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    #[error("a line is longer than {0} bytes")]
    TooLong(usize),
    #[error("a line is not text")]
    NotText,
    #[error("the connection broke")]
    Broken(#[source] std::io::Error),
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(from: R, bytes_max: usize) -> Self {
        Self { from, buffer: Vec::new(), searched: 0, bytes_max }
    }

    /// The next line without its end; `None` at the end of the stream. A last line without an end is dropped: it may be cut.
    ///
    /// Cancel safe: what was read stays in the buffer.
    pub(crate) async fn next(&mut self) -> Result<Option<String>, LineError> {
        loop {
            if let Some(length) = self.buffer[self.searched..].iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=self.searched + length).collect();
                self.searched = 0;
                let text = String::from_utf8(line).map_err(|_| LineError::NotText)?;
                return Ok(Some(text.trim_end().to_owned()));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > self.bytes_max {
                return Err(LineError::TooLong(self.bytes_max));
            }
            if self.from.read_buf(&mut self.buffer).await.map_err(LineError::Broken)? == 0 {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_come_one_by_one_and_a_cut_one_is_dropped() {
        let mut lines = Lines::new(&b"one\r\n\ntwo\nthr"[..], 100);
        let mut got = Vec::new();
        while let Some(line) = lines.next().await.expect("text") {
            got.push(line);
        }
        assert_eq!(got, ["one", "", "two"]);
    }

    #[tokio::test]
    async fn a_line_without_end_is_bounded() {
        let endless = vec![b'x'; 100_000];
        assert!(matches!(Lines::new(&endless[..], 1000).next().await, Err(LineError::TooLong(1000))));
        assert!(matches!(Lines::new(&b"\xff\xfe\n"[..], 1000).next().await, Err(LineError::NotText)));
    }
}
