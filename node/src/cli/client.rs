//! The way to the daemon: one line out, one or more lines back.

use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::Ask;
use crate::api::{Call, Failure, Reply, Request, VERSION};
use crate::config::{API_SOCKET, NodeFile};

/// Answers as they come.
pub(crate) struct Answers(BufReader<UnixStream>);

/// Asks the node.
///
/// # Errors
/// A [`Failure`] that says what was tried and what would be right.
pub(crate) fn ask(ask: &Ask, call: Call) -> Result<Answers, Failure> {
    let socket = socket(ask)?;
    let is_followed = matches!(call, Call::Watch { .. });
    let no_answer = |e: std::io::Error| Failure {
        code: "no-answer".into(),
        message: format!("no answer from the node at {}: {e}", socket.display()),
        help: Some("is the daemon running?  nines run --config …/nines.yaml; another node: --node PATH".into()),
        exit: 3,
    };
    let mut stream = UnixStream::connect(&socket).map_err(no_answer)?;
    let timeout = (!is_followed).then(|| Duration::from_secs(ask.timeout.max(1)));
    stream.set_read_timeout(timeout).map_err(no_answer)?;
    let mut line = serde_json::to_vec(&Request { version: VERSION, call }).expect("a request has a text");
    line.push(b'\n');
    stream.write_all(&line).map_err(no_answer)?;
    Ok(Answers(BufReader::new(stream)))
}

/// `--node` names a socket or a node's file.
fn socket(ask: &Ask) -> Result<PathBuf, Failure> {
    let is_file = ask.node.extension().is_some_and(|e| e == "yaml" || e == "yml");
    if !is_file {
        return Ok(ask.node.clone());
    }
    let file = NodeFile::load(&ask.node).map_err(|e| Failure { code: "bad-file".into(), message: format!("{e:#}"), help: None, exit: 2 })?;
    Ok(file.run.join(API_SOCKET))
}

impl Iterator for Answers {
    type Item = Result<Reply, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = String::new();
        let fail = |message: String, exit| Failure { code: "no-answer".into(), message, help: None, exit };
        match self.0.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_str(&line).map_err(|e| fail(format!("the node's answer makes no sense: {e}"), 3))),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Some(Err(fail("the node did not answer in time; what was asked may still happen".into(), 5)))
            }
            Err(e) => Some(Err(fail(format!("the node went away: {e}"), 3))),
        }
    }
}
