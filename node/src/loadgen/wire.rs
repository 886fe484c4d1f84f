//! What the load generator says to the call server and hears from it: one datagram, one line of text.
//!
//! Written from the description in `callserver.rs`, not from its code: a slip on one side must show on the other.

use std::fmt::Write as _;

use sixnines_core::ids::{Epoch, NodeId};

/// What is asked for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// The call begins.
    Setup,
    /// Something about the call changes.
    Update,
    /// The call ends; what was said about it stays known.
    Release,
    /// Nothing changes: tell what is known.
    Query,
}

impl Op {
    fn word(self) -> &'static str {
        match self {
            Self::Setup => "setup",
            Self::Update => "update",
            Self::Release => "release",
            Self::Query => "query",
        }
    }
}

/// One request, first or repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Who asks; a number drawn at start.
    pub(crate) client: u64,
    /// With `client` the request's id: a repeat bears the same one.
    pub(crate) sequence: u64,
    /// 0 for the first sending.
    pub(crate) attempt: u32,
    /// What is asked.
    pub(crate) op: Op,
    /// For which call of this client.
    pub(crate) call: u32,
}

impl Request {
    /// Writes the datagram into `out`, replacing what is there.
    pub(crate) fn encode(&self, out: &mut String) {
        out.clear();
        let written = write!(out, "Q {:x} {} {} {} {}", self.client, self.sequence, self.attempt, self.op.word(), self.call);
        debug_assert!(written.is_ok(), "writing into a String does not fail");
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Done, and safe.
    Ok,
    /// The server has never heard of the call.
    Unknown,
    /// The call's state does not allow it.
    Refused,
}

/// One answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Whose request.
    pub(crate) client: u64,
    /// Which request.
    pub(crate) sequence: u64,
    /// Which sending of it.
    pub(crate) attempt: u32,
    /// What became of it.
    pub(crate) verdict: Verdict,
    /// Who answers.
    pub(crate) node: NodeId,
    /// Under which epoch.
    pub(crate) epoch: Epoch,
    /// How many requests were ever applied to the call.
    pub(crate) applied: u64,
    /// All their sequences folded into one number, in the order of application; see [`fold`].
    pub(crate) digest: u64,
}

impl Answer {
    /// Reads a datagram; `None` if it is anything else than an answer.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(bytes).ok()?.trim_end().split(' ');
        if words.next()? != "A" {
            return None;
        }
        let answer = Self {
            client: u64::from_str_radix(words.next()?, 16).ok()?,
            sequence: words.next()?.parse().ok()?,
            attempt: words.next()?.parse().ok()?,
            verdict: match words.next()? {
                "ok" => Verdict::Ok,
                "unknown" => Verdict::Unknown,
                "refused" => Verdict::Refused,
                _ => return None,
            },
            node: words.next()?.parse().ok()?,
            epoch: Epoch(words.next()?.parse().ok()?),
            applied: words.next()?.parse().ok()?,
            digest: u64::from_str_radix(words.next()?, 16).ok()?,
        };
        words.next().is_none().then_some(answer)
    }
}

/// The digest after `sequence` was applied to a call whose digest was `digest`: order and content both count.
pub(crate) fn fold(digest: u64, sequence: u64) -> u64 {
    digest.rotate_left(5) ^ sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_the_line_that_the_server_documents() {
        let mut line = String::from("old");
        Request { client: 0xab, sequence: 12, attempt: 1, op: Op::Setup, call: 7 }.encode(&mut line);
        assert_eq!(line, "Q ab 12 1 setup 7");
    }

    #[test]
    fn an_answer_is_read_whole_or_not_at_all() {
        let whole = b"A ab 12 1 ok n3 18 4 ff";
        let answer = Answer::decode(whole).unwrap();
        assert_eq!((answer.node, answer.epoch, answer.applied, answer.digest), (NodeId(3), Epoch(18), 4, 255));
        for cut in 0..whole.len() - 1 {
            assert_eq!(Answer::decode(&whole[..cut]), None, "{cut}");
        }
        for bad in [&b"A ab 12 1 ok n3 18 4 ff more"[..], b"Q ab 12 1 ok n3 18 4 ff", b"\xff\xfe", b"A ab 12 1 ok 3 18 4 ff"] {
            assert_eq!(Answer::decode(bad), None);
        }
    }

    #[test]
    fn the_digest_tells_order_and_repeats_apart() {
        let ab = fold(fold(0, 1), 2);
        assert_ne!(ab, fold(fold(0, 2), 1));
        assert_ne!(ab, fold(ab, 2));
    }
}
