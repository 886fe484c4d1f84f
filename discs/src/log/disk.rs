//! Where a log's bytes go. A directory of few, small files; each with one writer.

use std::io;
use std::time::Duration;

/// A directory. What was not synced may be lost in a crash, in any part.
///
/// All calls may wait for the device; they come from one thread that nobody waits for.
pub trait Disk: Send + 'static {
    /// The names of all files.
    ///
    /// # Errors
    /// As the device says.
    fn list(&mut self) -> io::Result<Vec<String>>;
    /// A file's content; `None` if there is no such file.
    ///
    /// # Errors
    /// As the device says.
    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// Adds bytes at a file's end; makes the file if need be.
    ///
    /// # Errors
    /// As the device says; then any part of the bytes may be there.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Cuts a file to a length and makes that durable.
    ///
    /// # Errors
    /// As the device says.
    fn cut(&mut self, name: &str, length: u64) -> io::Result<()>;
    /// Makes a file's bytes durable, but not its name.
    ///
    /// # Errors
    /// As the device says; then nothing is known of any byte since the last sync, and there is no second try.
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Gives a file another name, in place of the file that had it, and makes all names durable.
    ///
    /// # Errors
    /// As the device says.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// As the device says.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// How long the next sync takes in simulated time. A real device takes its time inside [`Self::sync`].
    fn latency(&mut self) -> Duration {
        Duration::ZERO
    }
}
