//! The journal's thread: it appends what the core loop hands over, in batches, and syncs when asked or once in a while.
//!
//! A journal is a directory of numbered segments. Each begins with a snapshot and replays by itself (`core/src/journal`); the oldest go
//! when there are more bytes than the domain's limits allow (`journal_bytes`). What an earlier life left is looked at once, at the start: a torn tail is cut at the last good record,
//! damage is put aside under another name. A disk that takes no more ends a segment, never the node: the core loop is told, raises an
//! alarm, and begins a new segment when there is room again.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};
use sixnines_core::feed::Cursor;
use sixnines_core::ids::NodeId;
use sixnines_core::journal::record::{Records, Tail};
use sixnines_core::journal::replay::{self, Past};

use crate::core_loop::In;
use crate::core_loop::ways::Journalled;

/// What the thread is handed.
enum Line {
    /// The snapshot that a new segment begins with.
    Segment(Vec<u8>),
    /// An encoded record.
    Record(Vec<u8>),
    /// What came before shall be on disk.
    Sync,
}

/// Records that wait for the disk; beyond that the segment ends and another begins when the disk has caught up.
const LINES_MAX: usize = 8192;
/// A segment is closed at this size, or at a quarter of what all may have together.
const SEGMENT_BYTES: u64 = 16 << 20;
/// Bytes written at once.
const BATCH_BYTES: usize = 1 << 20;
/// Unsynced for at most so long.
const SYNC_EVERY: Duration = Duration::from_millis(200);
/// A disk that takes nothing is tried again after so long.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Ends of file names.
pub(crate) const SEGMENT: &str = "journal";
const DAMAGED: &str = "damaged";

/// The core loop's end.
pub(super) struct Writer {
    lines: Sender<Line>,
    /// Records that were handed over.
    handed: u64,
    progress: Arc<Progress>,
    /// Bytes of the present segment.
    bytes: u64,
    /// There is no segment to append to: before the first, after a lost record, and while the disk fails.
    is_broken: bool,
}

impl Writer {
    /// Mends what an earlier life left, and starts the thread, which ends when this is dropped.
    ///
    /// All segments together have at most `bytes_max` bytes: the oldest go, never the present one.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub(super) fn start(directory: &Path, bytes_max: u64, inbox: Sender<In>) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let next = mend(directory)?;
        let total = segments(directory)?.iter().map(|s| s.bytes).sum();
        let (lines, handed) = crossbeam::channel::bounded(LINES_MAX);
        let progress = Arc::new(Progress { bytes_max: AtomicU64::new(bytes_max), total: AtomicU64::new(total), ..Progress::default() });
        let thread = Thread { directory: directory.to_owned(), next, file: None, bytes: 0, is_dirty: false, failing_since: None, inbox, progress: Arc::clone(&progress) };
        std::thread::Builder::new().name("journal".into()).spawn(move || thread.run(&handed))?;
        Ok(Self { lines, handed: 0, progress, bytes: 0, is_broken: true })
    }

    /// Hands a record over. One that finds no room ends the segment: a journal with a hole proves nothing.
    pub(super) fn keep(&mut self, record: Vec<u8>) {
        if self.is_broken {
            return; // the snapshot that the next segment begins with knows what it did
        }
        self.bytes += record.len() as u64;
        if self.lines.try_send(Line::Record(record)).is_err() {
            tracing::warn!("the journal's disk cannot keep up: the segment ends here");
            self.is_broken = true;
            return;
        }
        self.handed += 1;
    }

    /// How far the thread is. While there is no segment, nobody waits for one.
    pub(super) fn progress(&self) -> Journalled {
        let handed = self.handed;
        if self.is_broken {
            return Journalled { handed, written: handed, synced: handed };
        }
        Journalled { handed, written: self.progress.written.load(Ordering::Acquire), synced: self.progress.synced.load(Ordering::Acquire) }
    }

    /// Another bound for all segments together; it holds from the next segment on, which begins soon if the present one is too long for it.
    pub(super) fn bound(&self, bytes_max: u64) {
        self.progress.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// Bytes of all segments on disk.
    pub(super) fn total(&self) -> u64 {
        self.progress.total.load(Ordering::Relaxed)
    }

    /// What was handed over so far shall be on disk soon; nobody waits for it here.
    pub(super) fn sync(&self) {
        if self.lines.try_send(Line::Sync).is_err() {
            tracing::debug!("the journal's disk is behind; it syncs by itself");
        }
    }

    /// The disk has failed, and there may be room again.
    pub(super) fn try_again(&mut self) {
        self.is_broken = true;
    }

    /// Whether a new segment is to be begun, once nothing of an input is left to be carried out.
    pub(super) fn wants_segment(&self) -> bool {
        (self.is_broken || self.bytes > self.progress.segment_bytes()) && self.lines.len() < LINES_MAX / 2
    }

    /// Begins a new segment.
    pub(super) fn begin(&mut self, snapshot: Vec<u8>) {
        self.bytes = 0;
        self.is_broken = self.lines.try_send(Line::Segment(snapshot)).is_err();
    }
}

/// Records that the thread is done with.
#[derive(Default)]
struct Progress {
    written: AtomicU64,
    synced: AtomicU64,
    /// Bytes of all segments, and how many they may be.
    total: AtomicU64,
    bytes_max: AtomicU64,
}

impl Progress {
    fn segment_bytes(&self) -> u64 {
        SEGMENT_BYTES.min(self.bytes_max.load(Ordering::Relaxed) / 4)
    }
}

struct Thread {
    directory: PathBuf,
    /// The number of the next segment.
    next: u64,
    file: Option<File>,
    bytes: u64,
    is_dirty: bool,
    /// When the disk was last tried in vain.
    failing_since: Option<Instant>,
    inbox: Sender<In>,
    progress: Arc<Progress>,
}

impl Thread {
    fn run(mut self, lines: &Receiver<Line>) {
        loop {
            match lines.recv_timeout(SYNC_EVERY) {
                Ok(line) => self.take(line, lines),
                Err(RecvTimeoutError::Timeout) => self.sync(),
                Err(RecvTimeoutError::Disconnected) => return self.sync(),
            }
            if self.failing_since.is_some_and(|at| at.elapsed() >= TRY_AGAIN) {
                self.failing_since = Some(Instant::now());
                self.tell(In::JournalTriesAgain);
            }
        }
    }

    /// What waits is written together, and synced together if that is wanted: a burst of alarms costs the disk one turn.
    fn take(&mut self, line: Line, lines: &Receiver<Line>) {
        let (mut batch, mut records, mut wants_sync) = (Vec::new(), 0, false);
        let mut next = Some(line);
        while let Some(line) = next.take() {
            match line {
                Line::Record(record) => {
                    batch.extend_from_slice(&record);
                    records += 1;
                }
                Line::Sync => wants_sync = true,
                Line::Segment(snapshot) => {
                    self.append(&std::mem::take(&mut batch), std::mem::take(&mut records));
                    self.begin(&snapshot);
                }
            }
            next = if batch.len() < BATCH_BYTES { lines.try_recv().ok() } else { None };
        }
        self.append(&batch, records);
        if wants_sync {
            self.sync();
            self.tell(In::JournalSynced);
        }
    }

    fn begin(&mut self, snapshot: &[u8]) {
        self.sync();
        self.file = None;
        match self.try_begin(snapshot) {
            Ok(file) => {
                self.file = Some(file);
                self.bytes = snapshot.len() as u64;
                self.is_dirty = true;
                if self.failing_since.take().is_some() {
                    self.tell(In::Journal(Ok(())));
                }
            }
            Err(error) => self.fail(&error),
        }
    }

    fn try_begin(&mut self, snapshot: &[u8]) -> io::Result<File> {
        self.make_room(snapshot.len() as u64)?;
        let path = self.directory.join(file_name(self.next));
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        if let Err(error) = file.write_all(snapshot) {
            drop(fs::remove_file(&path)); // without its whole snapshot it is nothing, and takes room
            return Err(error);
        }
        self.next += 1;
        self.progress.total.fetch_add(snapshot.len() as u64, Ordering::Relaxed);
        Ok(file)
    }

    /// The oldest segments go, until there is room for a snapshot and what a segment bears behind it.
    fn make_room(&self, snapshot: u64) -> io::Result<()> {
        let segments = segments(&self.directory)?;
        let mut total = segments.iter().map(|s| s.bytes).sum::<u64>();
        for segment in segments {
            if total + snapshot + self.progress.segment_bytes() <= self.progress.bytes_max.load(Ordering::Relaxed) {
                break;
            }
            fs::remove_file(&segment.path)?;
            total -= segment.bytes;
        }
        self.progress.total.store(total, Ordering::Relaxed);
        Ok(())
    }

    fn append(&mut self, batch: &[u8], records: u64) {
        self.try_append(batch);
        self.progress.written.fetch_add(records, Ordering::Release);
    }

    fn try_append(&mut self, batch: &[u8]) {
        let Some(file) = self.file.as_mut().filter(|_| !batch.is_empty()) else { return };
        match file.write_all(batch) {
            Ok(()) => {
                self.bytes += batch.len() as u64;
                self.progress.total.fetch_add(batch.len() as u64, Ordering::Relaxed);
                self.is_dirty = true;
            }
            Err(error) => {
                // Perhaps half of it is there: the segment ends before it.
                if let Err(error) = file.set_len(self.bytes) {
                    tracing::debug!(%error, "the torn end of a segment stays; its reader cuts it");
                }
                self.fail(&error);
            }
        }
    }

    fn sync(&mut self) {
        if let Some(file) = self.file.as_ref().filter(|_| self.is_dirty) {
            self.is_dirty = false;
            if let Err(error) = file.sync_data() {
                self.fail(&error); // what is on disk is unknown: nothing more goes into this segment
            }
        }
        self.progress.synced.store(self.progress.written.load(Ordering::Relaxed), Ordering::Release);
    }

    /// Said once until it works again: the node goes on serving, its past is what is lost.
    fn fail(&mut self, error: &io::Error) {
        self.file = None;
        if self.failing_since.replace(Instant::now()).is_none() {
            tracing::error!(directory = %self.directory.display(), %error, "the journal cannot be written; serving goes on without it");
            self.tell(In::Journal(Err(error.to_string())));
        }
    }

    fn tell(&self, input: In) {
        if self.inbox.send(input).is_err() {
            tracing::debug!("the core loop has ended");
        }
    }
}

/// One file of a journal.
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

/// The segments of a journal, the oldest first.
///
/// # Errors
/// The directory cannot be read.
pub(crate) fn segments(directory: &Path) -> io::Result<Vec<Segment>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse().ok());
        if let Some(number) = number.filter(|_| path.extension().is_some_and(|e| e == SEGMENT)) {
            let bytes = fs::metadata(&path)?.len();
            found.push(Segment { number, path, bytes });
        }
    }
    found.sort_by_key(|s| s.number);
    Ok(found)
}

fn file_name(number: u64) -> String {
    format!("{number:010}.{SEGMENT}")
}

/// How far earlier lives had recorded the events of each other node: as the newest segment that can be read says. Call it when what they
/// left is mended and nothing new is written.
pub(super) fn cursors(directory: &Path) -> BTreeMap<NodeId, Cursor> {
    let read = |segment: Segment| replay::cursors(&fs::read(segment.path).ok()?).ok();
    segments(directory).into_iter().flatten().rev().find_map(read).unwrap_or_default()
}

/// What is left of the events that earlier lives made, at least as many as are wanted if they are there.
///
/// It runs their inputs again, which takes its time: a thread of its own does it.
pub(super) fn past(segments: Vec<Segment>, wanted: usize) -> Past {
    let mut past = Past::default();
    for segment in segments.into_iter().rev() {
        let Ok(bytes) = fs::read(&segment.path) else { break };
        let is_empty = bytes.is_empty(); // a crash before its snapshot was there
        if !is_empty && !past.put_before(&bytes) || past.events.iter().filter(|e| !e.is_reading()).count() >= wanted {
            break;
        }
    }
    past
}

/// Mends the newest segment of an earlier life (only that one can be torn), and gives the number of the next.
fn mend(directory: &Path) -> io::Result<u64> {
    let Some(last) = segments(directory)?.pop() else { return Ok(1) };
    let bytes = fs::read(&last.path)?;
    match Records::new(&bytes).tail() {
        Tail::Clean => {}
        Tail::Torn { excess } => {
            let good = last.bytes - excess as u64;
            OpenOptions::new().write(true).open(&last.path)?.set_len(good)?;
            tracing::info!(file = %last.path.display(), good, cut = excess, "the journal of an earlier life was cut at its last good record");
        }
        Tail::Damaged { at, .. } => {
            let aside = last.path.with_extension(DAMAGED);
            fs::rename(&last.path, &aside)?;
            tracing::error!(file = %aside.display(), at, "the journal of an earlier life is damaged in what had been synced; it is put aside");
        }
    }
    Ok(last.number + 1)
}

#[cfg(test)]
mod tests {
    use sixnines_core::journal::record::{encode, encode_after_sync};

    use super::*;

    const ROOM: u64 = 128 << 20;

    fn segment(directory: &Path, number: u64, bytes: &[u8]) -> PathBuf {
        let path = directory.join(file_name(number));
        fs::write(&path, bytes).expect("it is written");
        path
    }

    fn two_records() -> (Vec<u8>, usize) {
        let mut bytes = Vec::new();
        encode(1, b"snapshot", &mut bytes);
        let first = bytes.len();
        encode_after_sync(2, b"input", &mut bytes);
        (bytes, first)
    }

    #[test]
    fn a_torn_tail_is_cut_at_the_last_good_record() {
        let home = tempfile::tempdir().expect("a directory");
        let (bytes, first) = two_records();
        for cut in first + 1..bytes.len() {
            let path = segment(home.path(), 7, &bytes[..cut]);
            assert_eq!(mend(home.path()).expect("mended"), 8);
            assert_eq!(fs::metadata(&path).expect("it stays").len(), first as u64, "cut at {cut}");
        }
    }

    #[test]
    fn damage_in_what_was_synced_is_put_aside_and_the_node_starts() {
        let home = tempfile::tempdir().expect("a directory");
        let (mut bytes, _) = two_records();
        bytes[14] ^= 1;
        let path = segment(home.path(), 3, &bytes);
        assert_eq!(mend(home.path()).expect("put aside"), 4);
        assert!(!path.exists() && path.with_extension(DAMAGED).exists());
    }

    /// What the core loop is told next.
    fn news(inbox: &Receiver<In>) -> Result<(), String> {
        loop {
            match inbox.recv_timeout(Duration::from_secs(20)).expect("the thread says something") {
                In::Journal(news) => return news,
                In::JournalTriesAgain | In::JournalSynced => {}
                _ => unreachable!("the journal says nothing else"),
            }
        }
    }

    #[test]
    fn a_segment_holds_what_was_handed_over_and_the_next_life_begins_another() {
        let home = tempfile::tempdir().expect("a directory");
        let (tell, _told) = crossbeam::channel::unbounded();
        let mut writer = Writer::start(home.path(), ROOM, tell.clone()).expect("a journal");
        writer.keep(b"before the first segment".to_vec());
        assert!(writer.wants_segment());
        let (mut bytes, first) = two_records();
        writer.begin(bytes[..first].to_vec());
        writer.keep(bytes.split_off(first));
        writer.sync();
        while writer.progress().synced < 1 {
            std::thread::yield_now();
        }
        assert_eq!((writer.progress().handed, writer.progress().written), (1, 1), "what came before the first segment counts for nothing");
        drop(writer);
        let path = home.path().join(file_name(1));
        while fs::read(&path).map_or(0, |b| Records::new(&b).count()) < 2 {
            std::thread::yield_now();
        }
        let mut writer = Writer::start(home.path(), ROOM, tell).expect("a journal");
        writer.begin(two_records().0);
        while segments(home.path()).expect("readable").len() < 2 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn at_the_bound_the_oldest_segments_go_and_the_newest_stay_whole() {
        let home = tempfile::tempdir().expect("a directory");
        let (tell, _told) = crossbeam::channel::unbounded();
        let bytes_max = 64 << 10;
        let mut writer = Writer::start(home.path(), bytes_max, tell.clone()).expect("a journal");
        let (bytes, first) = two_records();
        let mut record = Vec::new();
        encode_after_sync(2, &[7; 1000], &mut record);
        let mut begun = 0;
        for _ in 0..400 {
            while writer.wants_segment() {
                writer.begin(bytes[..first].to_vec());
                begun += 1;
            }
            writer.keep(record.clone());
            while writer.progress().written < writer.progress().handed {
                std::thread::yield_now();
            }
            assert!(writer.total() <= bytes_max, "{}", writer.total());
        }
        let left = segments(home.path()).expect("readable");
        assert!(begun > 15 && left.len() <= 4 && left.last().is_some_and(|s| s.number == begun), "{begun} begun, {} left", left.len());
        assert_eq!(left.iter().map(|s| s.bytes).sum::<u64>(), writer.total());
        assert!(left.iter().all(|s| Records::new(&fs::read(&s.path).expect("readable")).tail() == Tail::Clean));
        writer.bound(16 << 10);
        assert!(writer.wants_segment() || left.last().is_some_and(|s| s.bytes < 4 << 10), "what is too long for it ends");
        drop(writer);
        assert_eq!(Writer::start(home.path(), bytes_max, tell).expect("a journal").total(), left.iter().map(|s| s.bytes).sum::<u64>(), "the next life counts what it finds");
    }

    #[test]
    fn a_disk_that_takes_nothing_is_told_and_tried_again() {
        let home = tempfile::tempdir().expect("a directory");
        let (tell, told) = crossbeam::channel::unbounded();
        let mut writer = Writer::start(home.path(), ROOM, tell).expect("a journal");
        fs::remove_dir(home.path()).expect("it is empty");
        writer.begin(two_records().0);
        assert!(news(&told).is_err());
        fs::create_dir(home.path()).expect("there is room again");
        while !matches!(told.recv_timeout(Duration::from_secs(20)), Ok(In::JournalTriesAgain)) {}
        writer.try_again();
        assert!(writer.wants_segment());
        writer.begin(two_records().0);
        assert_eq!(news(&told), Ok(()));
    }
}
