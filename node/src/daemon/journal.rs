//! The journal's thread: it appends what the core loop hands over, in batches, and syncs when asked or once in a while.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};

/// What the thread is handed.
pub(super) enum Line {
    /// An encoded record.
    Record(Vec<u8>),
    /// What came before shall be on disk.
    Sync,
}

/// Records that wait for the disk; beyond that they are lost and said to be.
const LINES_MAX: usize = 65_536;
/// A segment is closed at this size; the last two are kept.
const SEGMENT_BYTES: u64 = 16 << 20;
/// Unsynced for at most so long.
const SYNC_EVERY: Duration = Duration::from_millis(200);

/// Starts the thread; it ends when the sender is gone.
///
/// # Errors
/// The directory or file cannot be made.
pub(super) fn start(directory: &Path) -> io::Result<Sender<Line>> {
    std::fs::create_dir_all(directory)?;
    let mut journal = Journal { path: directory.join("current"), old: directory.join("previous"), file: None, bytes: 0, is_full: false };
    journal.open()?;
    let (sender, lines) = crossbeam::channel::bounded(LINES_MAX);
    std::thread::Builder::new().name("journal".into()).spawn(move || journal.run(&lines))?;
    Ok(sender)
}

struct Journal {
    path: PathBuf,
    old: PathBuf,
    file: Option<File>,
    bytes: u64,
    is_full: bool,
}

impl Journal {
    fn open(&mut self) -> io::Result<()> {
        // The journal of an earlier life ends at its last good record: the new one is a file of its own.
        if self.path.exists() {
            std::fs::rename(&self.path, &self.old)?;
        }
        self.file = Some(OpenOptions::new().create(true).append(true).open(&self.path)?);
        self.bytes = 0;
        Ok(())
    }

    fn run(&mut self, lines: &Receiver<Line>) {
        let mut is_dirty = false;
        loop {
            match lines.recv_timeout(SYNC_EVERY) {
                Ok(Line::Record(first)) => {
                    let mut batch = first;
                    while batch.len() < 1 << 20
                        && let Ok(line) = lines.try_recv()
                    {
                        match line {
                            Line::Record(record) => batch.extend_from_slice(&record),
                            Line::Sync => break,
                        }
                    }
                    self.append(&batch);
                    is_dirty = true;
                }
                Ok(Line::Sync) | Err(RecvTimeoutError::Timeout) if is_dirty => {
                    self.sync();
                    is_dirty = false;
                }
                Ok(Line::Sync) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.sync(),
            }
        }
    }

    fn append(&mut self, batch: &[u8]) {
        if self.bytes + batch.len() as u64 > SEGMENT_BYTES
            && let Err(error) = self.open()
        {
            return self.complain(&error);
        }
        let written = self.file.as_mut().map_or(Ok(()), |f| f.write_all(batch));
        match written {
            Ok(()) => {
                self.bytes += batch.len() as u64;
                self.is_full = false;
            }
            Err(error) => self.complain(&error),
        }
    }

    /// Said once until it works again: the node goes on serving, its past is what is lost.
    fn complain(&mut self, error: &io::Error) {
        if !self.is_full {
            tracing::error!(file = %self.path.display(), %error, "the journal cannot be written; serving goes on without it");
        }
        self.is_full = true;
    }

    fn sync(&mut self) {
        if let Some(Err(error)) = self.file.as_ref().map(File::sync_data) {
            self.complain(&error);
        }
    }
}
