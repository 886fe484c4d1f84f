//! Frames on a stream of bytes: each is stuffed so that it holds no zero, and ends with one.
//!
//! Whatever was lost or added, the next zero is the end of something: a reader is in step again after one frame.
//! Source: Cheshire and Baker, Consistent Overhead Byte Stuffing, IEEE/ACM Transactions on Networking 7 (1999).

/// Bytes of a frame before it is stuffed, at most.
pub const FRAME_MAX: usize = 512;
/// Bytes of a frame on the line, at most: a code for every 254 bytes, and the zero at its end.
pub const STUFFED_MAX: usize = FRAME_MAX + FRAME_MAX / 254 + 2;

/// Appends `frame` to `out`, stuffed and ended; at most [`FRAME_MAX`] bytes.
pub fn stuff(frame: &[u8], out: &mut Vec<u8>) {
    assert!(frame.len() <= FRAME_MAX, "beats are cut to fit");
    let mut code_at = out.len();
    out.push(1);
    for byte in frame {
        if *byte != 0 {
            out.push(*byte);
            out[code_at] += 1;
        }
        if *byte == 0 || out[code_at] == u8::MAX {
            code_at = out.len();
            out.push(1);
        }
    }
    out.push(0);
}

/// Cuts a stream into frames.
#[derive(Debug, Default)]
pub struct Reader {
    /// What has come since the last zero, at most [`STUFFED_MAX`] bytes.
    stuffed: Vec<u8>,
    /// What has come is no frame, and is skipped up to the next zero.
    skips: bool,
}

impl Reader {
    /// Takes one byte; gives a frame if it was the end of one. It may be anything: only its seal says that somebody meant it.
    pub fn take(&mut self, byte: u8) -> Option<Vec<u8>> {
        if byte != 0 {
            self.skips |= self.stuffed.len() >= STUFFED_MAX;
            if !self.skips {
                self.stuffed.push(byte);
            }
            return None;
        }
        let frame = if self.skips { None } else { unstuff(&self.stuffed) };
        self.stuffed.clear();
        self.skips = false;
        frame.filter(|f| !f.is_empty())
    }
}

fn unstuff(mut stuffed: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(stuffed.len());
    while let Some((code, rest)) = stuffed.split_first() {
        let (run, rest) = rest.split_at_checked(usize::from(*code).checked_sub(1)?)?;
        out.extend_from_slice(run);
        if *code != u8::MAX && !rest.is_empty() {
            out.push(0);
        }
        stuffed = rest;
    }
    Some(out)
}
