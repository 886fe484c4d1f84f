//! The ledger: which addresses this node has put on which devices, so that its next life can remove them.
//!
//! Lines of text, `+ eth0 10.9.0.1/24` before an address is taken, `- …` after it was given up. It is not synced: what loses the page
//! cache loses the addresses too. A line without its end was never acted upon.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::netlink::route::{Cidr, Route};
use crate::netlink::NetlinkError;

/// Beyond this many bytes the file is written anew when an address is given up, never when one is taken.
const BYTES_MAX: u64 = 64 * 1024;

/// An address on a device.
pub type Entry = (String, Cidr);

/// The open ledger.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    bytes: u64,
    taken: BTreeSet<Entry>,
}

/// Why the ledger could not be read, written or acted upon.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The file.
    #[error("could not {doing} the ledger of addresses {path}")]
    File {
        /// `read`, `write`, `replace`.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// A line that we never write. The file is left as it is; look at it, remove the addresses by hand, remove the file.
    #[error("{path}:{line}: {text:?} is not a line such as \"+ eth0 10.9.0.1/24\"")]
    Line {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What stands there.
        text: String,
    },
    /// A left-over address could not be removed: the node must not join, it might speak for it.
    #[error("could not remove what an earlier life left")]
    LeftOver(#[source] NetlinkError),
}

impl Ledger {
    /// Opens the ledger, removes from their devices all addresses that it still names, and returns those.
    ///
    /// The caller holds the state directory's lock: no other life of this node is using them.
    pub fn start_clean(path: &Path) -> Result<(Self, Vec<Entry>), LedgerError> {
        let text = match fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(file_error("read", path, source)),
        };
        let left: Vec<Entry> = replay(path, &text)?.into_iter().collect();
        if !left.is_empty() {
            remove(&left).map_err(LedgerError::LeftOver)?;
        }
        let state = Mutex::new(rewrite(path, BTreeSet::new())?);
        Ok((Self { path: path.to_owned(), state }, left))
    }

    /// To be called before the address is put on the device.
    pub(crate) fn note_taken(&self, device: &str, cidr: Cidr) -> Result<(), LedgerError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = (device.to_owned(), cidr);
        if !state.taken.contains(&entry) {
            self.append(&mut state, format!("+ {device} {cidr}\n"))?;
            state.taken.insert(entry);
        }
        Ok(())
    }

    /// To be called after the address is gone.
    pub(crate) fn note_given_up(&self, device: &str, cidr: Cidr) -> Result<(), LedgerError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.taken.remove(&(device.to_owned(), cidr)) {
            self.append(&mut state, format!("- {device} {cidr}\n"))?;
        }
        if state.bytes > BYTES_MAX {
            *state = rewrite(&self.path, std::mem::take(&mut state.taken))?;
        }
        Ok(())
    }

    fn append(&self, state: &mut State, line: String) -> Result<(), LedgerError> {
        state.file.write_all(line.as_bytes()).map_err(|e| file_error("write", &self.path, e))?;
        state.bytes += line.len() as u64;
        Ok(())
    }
}

fn replay(path: &Path, text: &str) -> Result<BTreeSet<Entry>, LedgerError> {
    let mut taken = BTreeSet::new();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for (index, line) in whole.lines().enumerate() {
        let mut words = line.split(' ');
        let (sign, device, cidr) = (words.next(), words.next(), words.next().and_then(|w| w.parse().ok()));
        match (sign, device, cidr) {
            (Some("+"), Some(device), Some(cidr)) => taken.insert((device.to_owned(), cidr)),
            (Some("-"), Some(device), Some(cidr)) => taken.remove(&(device.to_owned(), cidr)),
            _ => return Err(LedgerError::Line { path: path.to_owned(), line: index + 1, text: line.to_owned() }),
        };
    }
    Ok(taken)
}

fn remove(left: &[Entry]) -> Result<(), NetlinkError> {
    let mut route = Route::open()?;
    for (device, cidr) in left {
        match route.delete_address(device, *cidr) {
            Err(e) if e.is(libc::ENODEV) => {} // The device is gone, and its addresses with it.
            other => other?,
        }
    }
    Ok(())
}

/// Replaces the file in one step by one that holds `taken` alone.
fn rewrite(path: &Path, taken: BTreeSet<Entry>) -> Result<State, LedgerError> {
    let text: String = taken.iter().map(|(device, cidr)| format!("+ {device} {cidr}\n")).collect();
    let next = path.with_extension("next");
    fs::write(&next, &text).and_then(|()| fs::rename(&next, path)).map_err(|e| file_error("replace", path, e))?;
    let file = OpenOptions::new().append(true).open(path).map_err(|e| file_error("write", path, e))?;
    Ok(State { file, bytes: text.len() as u64, taken })
}

fn file_error(doing: &'static str, path: &Path, source: io::Error) -> LedgerError {
    LedgerError::File { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(device: &str, cidr: &str) -> Entry {
        (device.to_owned(), cidr.parse().unwrap())
    }

    #[test]
    fn what_was_taken_and_not_given_up_is_left() {
        let text = "+ eth0 10.9.0.1/24\n+ eth0 fd09::1/64\n- eth0 10.9.0.1/24\n+ eth1 10.9.0.2/24\n+ eth1 10.9.0.3/2";
        let left = replay(Path::new("ledger"), text).unwrap();
        assert_eq!(left, BTreeSet::from([entry("eth0", "fd09::1/64"), entry("eth1", "10.9.0.2/24")]));
    }

    #[test]
    fn a_foreign_line_is_refused_with_its_number() {
        let error = replay(Path::new("ledger"), "+ eth0 10.9.0.1/24\nhello\n").unwrap_err();
        assert_eq!(error.to_string(), "ledger:2: \"hello\" is not a line such as \"+ eth0 10.9.0.1/24\"");
    }

    #[test]
    fn the_file_stays_small_over_many_role_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let (ledger, left) = Ledger::start_clean(&path).unwrap();
        assert_eq!(left, []);
        let (kept, moved) = ("10.9.0.9/24".parse().unwrap(), "10.9.0.1/24".parse().unwrap());
        ledger.note_taken("no-such", kept).unwrap();
        for _ in 0..5000 {
            ledger.note_taken("no-such", moved).unwrap();
            ledger.note_given_up("no-such", moved).unwrap();
        }
        assert!(fs::metadata(&path).unwrap().len() <= BYTES_MAX);
        drop(ledger);
        let (_, left) = Ledger::start_clean(&path).unwrap();
        assert_eq!(left, [entry("no-such", "10.9.0.9/24")], "a device that is gone holds nothing up");
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
    }
}
