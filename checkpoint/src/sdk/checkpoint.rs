//! A named checkpoint: the application's sections.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};

use sixnines_core::ids::Sequence;

use super::core::Shared;
use super::error::{Applied, ReadError, WriteError};
use super::mirror::Mirror;
use super::{Replication, Term};
use crate::bytes::Bytes;
use crate::outcome::Level;
use crate::state::{Change, Op, RequestId, Section};

/// Sections under one name. Clones are the same checkpoint; it may be used from any thread.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    shared: Arc<Shared>,
    prefix: Arc<[u8]>,
    level: Level,
}

/// Changes that are applied as a whole or not at all.
#[derive(Clone, Debug)]
#[must_use = "a batch does nothing before it is written"]
pub struct Batch<'a> {
    checkpoint: &'a Checkpoint,
    ops: Vec<Op>,
    request: Option<RequestId>,
    level: Level,
}

/// A write on its way. Dropped, it goes its way without telling.
#[derive(Debug)]
#[must_use = "wait for it, or say what follows"]
pub struct Pending {
    shared: Arc<Shared>,
    ticket: Option<u64>,
}

/// A question on its way.
#[derive(Debug)]
#[must_use = "wait for the answer"]
pub struct Reading {
    shared: Arc<Shared>,
    ticket: u64,
}

/// A change of the sections, for an application that follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Forget everything; what there is follows.
    Reset,
    /// A section is new or has changed.
    Put {
        /// Which.
        key: Bytes,
        /// As it is now.
        section: Section,
    },
    /// A section is gone.
    Delete {
        /// Which.
        key: Bytes,
    },
}

impl Checkpoint {
    pub(super) fn new(shared: Arc<Shared>, name: &str, replication: Replication) -> Self {
        let prefix = [name.as_bytes(), &[0]].concat();
        Self { shared, prefix: prefix.into(), level: replication.level }
    }

    /// Makes or replaces a section. Waits only while very many writes are in flight.
    ///
    /// # Errors
    /// [`WriteError::Fenced`] if the term is known to be over. What becomes of the write is told by what is returned.
    pub fn put(&self, term: &Term, key: impl AsRef<[u8]>, bytes: impl Into<Bytes>) -> Result<Pending, WriteError> {
        self.batch().put(key, bytes).write(term)
    }

    /// Removes a section.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn delete(&self, term: &Term, key: impl AsRef<[u8]>) -> Result<Pending, WriteError> {
        self.batch().delete(key).write(term)
    }

    /// Done when every copy holds everything written so far and the lease is valid: what was read from this memory may be told.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn confirm(&self, term: &Term) -> Result<Pending, WriteError> {
        self.batch().write(term)
    }

    /// Several changes in one.
    pub fn batch(&self) -> Batch<'_> {
        Batch { checkpoint: self, ops: Vec::new(), request: None, level: self.level }
    }

    /// A section as this process knows it; its own writes are in it at once, so tell it to others only after
    /// [`Self::confirm`] or by [`Self::read`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<Section> {
        self.shared.lock().mirror.state().section(&self.full(key.as_ref())).cloned()
    }

    /// All sections as this process knows them, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (Bytes, Section)> {
        self.sections(&self.shared.lock().mirror).into_iter()
    }

    /// How many sections there are, as this process knows.
    pub fn len(&self) -> usize {
        self.sections(&self.shared.lock().mirror).len()
    }

    /// Whether there is no section, as this process knows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Asks the service for a section that may be told: held by every copy, and fresh if it says so.
    ///
    /// # Errors
    /// [`ReadError::Fenced`] if the term is known to be over.
    pub fn read(&self, term: &Term, key: impl AsRef<[u8]>) -> Result<Reading, ReadError> {
        let ticket = self.shared.read(term.epoch(), self.full(key.as_ref()))?;
        Ok(Reading { shared: Arc::clone(&self.shared), ticket })
    }

    /// Hands every change to `apply`, in order, beginning with [`Changed::Reset`] and everything there is; returns when
    /// the next role has come, which [`super::App::next_role`] gives. All changes of before that role have been handed over.
    pub fn follow(&self, mut apply: impl FnMut(Changed)) {
        let mut core = self.shared.lock();
        let id = core.feeds.last_key_value().map_or(0, |(id, _)| id + 1);
        let mut feed = Feed { prefix: Arc::clone(&self.prefix), queue: VecDeque::new() };
        feed.image(&core.mirror);
        core.feeds.insert(id, feed);
        loop {
            let next = core.feeds.get_mut(&id).and_then(|f| f.queue.pop_front());
            match next {
                Some(change) => {
                    drop(core);
                    apply(change);
                    core = self.shared.lock();
                }
                None if core.has_role_change() || self.shared.is_closed() => break,
                None => core = self.shared.changed.wait(core).unwrap_or_else(PoisonError::into_inner),
            }
        }
        core.feeds.remove(&id);
    }

    fn full(&self, key: &[u8]) -> Bytes {
        [&self.prefix, key].concat().into()
    }

    fn sections(&self, mirror: &Mirror) -> Vec<(Bytes, Section)> {
        sections_of(mirror, &self.prefix)
    }
}

fn sections_of(mirror: &Mirror, prefix: &[u8]) -> Vec<(Bytes, Section)> {
    let own = mirror.state().from(prefix).take_while(|(key, _)| key.starts_with(prefix));
    own.map(|(key, section)| (Bytes::new(&key[prefix.len()..]), section.clone())).collect()
}

impl Batch<'_> {
    /// Makes or replaces a section.
    pub fn put(mut self, key: impl AsRef<[u8]>, bytes: impl Into<Bytes>) -> Self {
        self.ops.push(Op::Put { key: self.checkpoint.full(key.as_ref()), bytes: bytes.into() });
        self
    }

    /// Overwrites part of a section, from `offset` bytes on.
    pub fn patch(mut self, key: impl AsRef<[u8]>, offset: u64, bytes: impl Into<Bytes>) -> Self {
        self.ops.push(Op::Patch { key: self.checkpoint.full(key.as_ref()), offset, bytes: bytes.into() });
        self
    }

    /// Adds to a section's end.
    pub fn append(mut self, key: impl AsRef<[u8]>, bytes: impl Into<Bytes>) -> Self {
        self.ops.push(Op::Append { key: self.checkpoint.full(key.as_ref()), bytes: bytes.into() });
        self
    }

    /// Removes a section.
    pub fn delete(mut self, key: impl AsRef<[u8]>) -> Self {
        self.ops.push(Op::Delete { key: self.checkpoint.full(key.as_ref()) });
        self
    }

    /// Nothing is applied unless the section has this version, or is not there if `None`.
    pub fn expect(mut self, key: impl AsRef<[u8]>, version: Option<Sequence>) -> Self {
        self.ops.push(Op::Expect { key: self.checkpoint.full(key.as_ref()), version });
        self
    }

    /// Names the batch, so that a repeat (after a failover, say) is applied once and gets the first one's answer.
    pub fn request(mut self, request: RequestId) -> Self {
        self.request = Some(request);
        self
    }

    /// When it counts as done, in the place of the checkpoint's own level.
    pub fn level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    /// Writes it.
    ///
    /// # Errors
    /// As [`Checkpoint::put`].
    pub fn write(self, term: &Term) -> Result<Pending, WriteError> {
        let shared = &self.checkpoint.shared;
        let ticket = shared.write(term.epoch(), self.request, self.level, self.ops)?;
        Ok(Pending { shared: Arc::clone(shared), ticket: Some(ticket) })
    }
}

impl Pending {
    /// Runs `reply` on the SDK's thread once the write is safe **and** the lease is valid. If that never comes to be it is dropped,
    /// and counted in [`super::App::unknown_outcomes`] if it is not known whether the write was applied. It must not wait for other writes.
    pub fn commit_then(self, reply: impl FnOnce(Applied) + Send + 'static) {
        self.then(|result| {
            if let Ok(applied) = result {
                reply(applied);
            }
        });
    }

    /// As [`Self::commit_then`], but told in any case.
    pub fn then(mut self, told: impl FnOnce(Result<Applied, WriteError>) + Send + 'static) {
        if let Some(ticket) = self.ticket.take() {
            self.shared.then(ticket, Box::new(told));
        }
    }

    /// Waits until it is known what became of the write. Not to be called in a closure of [`Self::commit_then`].
    ///
    /// # Errors
    /// [`WriteError`] says whether it may have been applied.
    pub fn wait(mut self) -> Result<Applied, WriteError> {
        let ticket = self.ticket.take();
        self.shared.wait_for(ticket.unwrap_or_default())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.shared.forget(ticket);
        }
    }
}

impl Reading {
    /// The section, if it is there, and whether the answer is known to be fresh.
    ///
    /// # Errors
    /// [`ReadError`] if nobody can say.
    pub fn wait(self) -> Result<(Option<Section>, bool), ReadError> {
        self.shared.wait_for_read(self.ticket)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.shared.forget_read(self.ticket);
    }
}

/// Changes for one follower.
#[derive(Debug)]
pub(super) struct Feed {
    prefix: Arc<[u8]>,
    queue: VecDeque<Changed>,
}

/// A follower that is further behind gets everything anew.
const FEED_MAX: usize = 1 << 16;

impl Feed {
    pub(super) fn image(&mut self, mirror: &Mirror) {
        self.queue.clear();
        self.queue.push_back(Changed::Reset);
        let sections = sections_of(mirror, &self.prefix);
        self.queue.extend(sections.into_iter().map(|(key, section)| Changed::Put { key, section }));
    }

    pub(super) fn changes(&mut self, mirror: &Mirror, changes: &[Change]) {
        for change in changes {
            let Some(key) = change.key().strip_prefix(&*self.prefix) else { continue };
            let key = Bytes::new(key);
            self.queue.push_back(match mirror.state().section(change.key()) {
                Some(section) => Changed::Put { key, section: section.clone() },
                None => Changed::Delete { key },
            });
        }
        if self.queue.len() > FEED_MAX.max(2 * mirror.state().len()) {
            self.image(mirror);
        }
    }
}
