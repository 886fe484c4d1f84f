//! The log in the product: files, a disk thread, and a tokio runtime on a thread of its own.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use openraft_rt_tokio::TokioRuntime;

use super::disk::Disk;
use super::host::Opened;
use super::{Handle, OpenError, Options, Port};

/// A running log. Dropping it ends the log in good order and waits for its threads.
pub struct Running {
    handle: Handle,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    /// The way in.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.shut_down();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the control log panicked");
            }
        }
    }
}

/// Opens the log in `directory` (made if need be) and runs it on threads of its own.
///
/// # Errors
/// [`OpenError`]; then nothing runs, and nothing in the directory was changed unless it was empty.
pub fn run(options: Options, directory: &Path, port: Arc<dyn Port>) -> Result<Running, OpenError> {
    let disk = FileDisk::open(directory)?;
    let opened = Opened::open(options, Box::new(disk))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let writer = opened.writer.clone();
    let writer_to_close = opened.writer.clone();
    let disk_thread = std::thread::Builder::new().name("control-log-disk".into()).spawn(move || writer.run_on_this_thread())?;
    let (sender, receiver) = mpsc::channel();
    let log_thread = std::thread::Builder::new().name("control-log".into()).spawn(move || {
        runtime.block_on(async move {
            let started = opened.start::<TokioRuntime>(port).await;
            let ended = started.as_ref().ok().map(|(_, ended)| ended.clone());
            if sender.send(started.map(|(handle, _)| handle)).is_ok()
                && let Some(ended) = ended
            {
                ended.wait().await;
            }
        });
        writer_to_close.close();
    })?;
    let started = receiver.recv().unwrap_or_else(|_| Err(OpenError::Start("its thread ended".into())));
    Ok(Running { handle: started?, threads: vec![log_thread, disk_thread] })
}

/// A directory of the real file system, locked for this process.
pub struct FileDisk {
    directory: PathBuf,
    /// Names are durable once this is synced. Also bears the lock.
    handle: File,
    /// Files being appended to.
    files: BTreeMap<String, File>,
}

impl FileDisk {
    /// Opens a directory, and makes it if need be.
    ///
    /// # Errors
    /// As the system says, or `WouldBlock` if another process has it.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let handle = File::open(directory)?;
        handle.try_lock().map_err(|e| match e {
            TryLockError::WouldBlock => io::Error::new(io::ErrorKind::WouldBlock, format!("{} is in use by another process", directory.display())),
            TryLockError::Error(e) => e,
        })?;
        Ok(Self { directory: directory.to_owned(), handle, files: BTreeMap::new() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl Disk for FileDisk {
    fn list(&mut self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        names.sort();
        Ok(names)
    }

    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if !self.files.contains_key(name) {
            let file = OpenOptions::new().append(true).create(true).open(self.path(name))?;
            self.files.insert(name.to_owned(), file);
        }
        self.files.get_mut(name).map_or(Ok(()), |file| file.write_all(bytes))
    }

    fn cut(&mut self, name: &str, length: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.path(name))?;
        file.set_len(length)?;
        file.sync_all()
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.files.get(name).map_or(Ok(()), File::sync_data)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))?;
        self.files.remove(to);
        if let Some(file) = self.files.remove(from) {
            self.files.insert(to.to_owned(), file);
        }
        self.handle.sync_all()
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.files.remove(name);
        fs::remove_file(self.path(name))
    }
}
