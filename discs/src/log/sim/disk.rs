//! A disk that forgets what was not synced, fails when it is told to, and lies if it has to be seen what a broken rule does.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sixnines_core::journal::record::Records;

use crate::log::disk::Disk;
use crate::log::segment::{LOG, kind};

/// A simulated directory. Its clones are the same directory, so that it outlives the log that uses it.
#[derive(Clone, Debug, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, SimFile>,
    latency: Duration,
    fail_next_sync: bool,
    /// Bytes that still fit.
    room: Option<usize>,
    lie: Option<Lie>,
}

/// What a disk says it has done to the log, and has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Votes are written.
    Votes,
    /// What was written is synced.
    Synced,
    /// A torn tail is cut.
    Cut,
}

#[derive(Clone, Debug, Default)]
struct SimFile {
    bytes: Vec<u8>,
    /// How much of it is safe.
    synced: usize,
    /// Whether its name is.
    named: bool,
}

impl SimDisk {
    /// An empty directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long each sync takes from now on.
    pub fn set_latency(&self, latency: Duration) {
        self.lock().latency = latency;
    }

    /// The next sync fails, or does not after all.
    pub fn fail_next_sync(&self, fails: bool) {
        self.lock().fail_next_sync = fails;
    }

    /// Only so many more bytes fit; `None`: any number.
    pub fn set_room(&self, room: Option<usize>) {
        self.lock().room = room;
    }

    /// From now on it lies.
    pub fn lie(&self, lie: Option<Lie>) {
        self.lock().lie = lie;
    }

    /// What is on it now, for [`Self::go_back`].
    pub fn backup(&self) -> Self {
        let files = self.lock().files.clone();
        Self(Arc::new(Mutex::new(State { files, ..State::default() })))
    }

    /// Somebody puts back what once was on it.
    pub fn go_back(&self, backup: &Self) {
        let files = backup.lock().files.clone();
        self.lock().files = files;
    }

    /// The power goes. What was synced stays; of what was written since, `seed` decides: nothing, a part, or a part with a hole.
    pub fn crash(&self, seed: u64) {
        let mut draw = seed;
        let mut state = self.lock();
        state.files.retain(|_, file| file.named);
        for file in state.files.values_mut() {
            let unsynced = file.bytes.len() - file.synced;
            if unsynced == 0 {
                continue;
            }
            draw = mix(draw);
            let kept = usize::try_from(draw % (unsynced as u64 + 1)).unwrap_or(0);
            file.bytes.truncate(file.synced + kept);
            draw = mix(draw);
            if kept > 0 && draw.is_multiple_of(3) {
                // Pages reach the disk in any order: this one did not.
                let hole = file.synced + usize::try_from(mix(draw) % kept as u64).unwrap_or(0);
                let end = (hole + 16).min(file.bytes.len());
                file.bytes[hole..end].fill(0);
            }
            file.synced = file.bytes.len();
        }
        state.fail_next_sync = false;
    }

    /// Everything is gone: another disk was put in.
    pub fn wipe(&self) {
        self.lock().files.clear();
    }

    /// A bit of the log turns over; `seed` says which.
    pub fn rot(&self, seed: u64) {
        self.meddle(LOG, |bytes| {
            let bit = usize::try_from(mix(seed)).unwrap_or(usize::MAX) % (bytes.len() * 8).max(1);
            if let Some(byte) = bytes.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
        });
    }

    /// A file's bytes.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        self.lock().files.get(name).map(|f| f.bytes.clone())
    }

    /// Changes a file behind the log's back, durably.
    pub fn meddle(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(file) = self.lock().files.get_mut(name) {
            change(&mut file.bytes);
            file.synced = file.bytes.len();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn without_votes(bytes: &[u8]) -> Vec<u8> {
    let records = Records::new(bytes).filter(|r| r.kind != kind::VOTE);
    records.flat_map(|r| bytes[r.at..r.end()].iter().copied()).collect()
}

fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Disk for SimDisk {
    fn list(&mut self) -> io::Result<Vec<String>> {
        Ok(self.lock().files.keys().cloned().collect())
    }

    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.bytes(name))
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        let kept = (state.lie == Some(Lie::Votes) && name == LOG).then(|| without_votes(bytes));
        let bytes = kept.as_deref().unwrap_or(bytes);
        let fits = state.room.map_or(bytes.len(), |room| room.min(bytes.len()));
        state.room = state.room.map(|room| room - fits);
        state.files.entry(name.to_owned()).or_default().bytes.extend_from_slice(&bytes[..fits]);
        if fits < bytes.len() { Err(io::Error::new(io::ErrorKind::StorageFull, "no space left on the simulated disk")) } else { Ok(()) }
    }

    fn cut(&mut self, name: &str, length: u64) -> io::Result<()> {
        let mut state = self.lock();
        let lies = state.lie == Some(Lie::Cut);
        if let Some(file) = state.files.get_mut(name).filter(|_| !lies) {
            file.bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
            file.synced = file.bytes.len();
        }
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        if std::mem::take(&mut state.fail_next_sync) {
            return Err(io::Error::other("the simulated disk failed to sync"));
        }
        let lies = state.lie == Some(Lie::Synced) && name == LOG;
        if let Some(file) = state.files.get_mut(name).filter(|_| !lies) {
            file.synced = file.bytes.len();
        }
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock();
        let mut file = state.files.remove(from).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        file.named = true;
        state.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.lock().files.remove(name);
        Ok(())
    }

    fn latency(&mut self) -> Duration {
        self.lock().latency
    }
}
