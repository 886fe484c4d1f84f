//! The log as openraft sees it: everything in memory, every change also a record on the way to the disk, in order.
//!
//! The log is short (a snapshot every thousand entries, few kept behind it), so memory holds all of it and reading never touches the disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;
use std::io;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::async_runtime::{Oneshot, OneshotSender};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{AsyncRuntime, LogState, OptionalSend, RaftLogReader};
use sixnines_core::domain::Proposal;
use sixnines_core::ids::{LogIndex, NodeId};

use super::format::{self, LogEntry};
use super::segment::{Item, Recovered, kind};
use super::types::{self, LogId, RaftEntry, Types, Vote};
use super::writer::{Work, Writer};
use super::{Failure, Faults, Port};

/// Dead bytes in the file before it is written anew for their sake alone.
const DEAD_BYTES_MAX: u64 = 1 << 20;

/// The log store; its clones are its readers.
pub(crate) struct LogStore<R> {
    memory: Arc<Mutex<Memory>>,
    writer: Writer,
    port: Arc<dyn Port>,
    faults: Faults,
    runtime: PhantomData<fn() -> R>,
}

#[derive(Default)]
struct Memory {
    /// Durable.
    vote: Option<Vote>,
    /// On its way to the disk, at least.
    vote_written: Option<Vote>,
    purged: Option<LogId>,
    committed: Option<LogId>,
    /// Whether `committed` is newer than what the disk has been given.
    committed_is_new: bool,
    entries: BTreeMap<u64, RaftEntry>,
    /// For each entry in `entries` that is about nodes, those nodes.
    about: VecDeque<(u64, Vec<NodeId>)>,
    /// For each node the newest entry about it that is no longer in `entries`, from the snapshot and from what was purged.
    about_before: BTreeMap<NodeId, LogIndex>,
    /// Bytes of the file when it was last written anew.
    base_length: u64,
}

impl<R> Clone for LogStore<R> {
    fn clone(&self) -> Self {
        Self {
            memory: self.memory.clone(),
            writer: self.writer.clone(),
            port: self.port.clone(),
            faults: self.faults.clone(),
            runtime: PhantomData,
        }
    }
}

impl<R: AsyncRuntime> LogStore<R> {
    /// Takes what was on disk and tells the port which nodes it is about.
    pub(crate) fn new(
        recovered: Recovered,
        about_before: BTreeMap<NodeId, LogIndex>,
        writer: Writer,
        port: Arc<dyn Port>,
        faults: Faults,
    ) -> Result<Self, Failure> {
        let mut memory = Memory {
            vote: recovered.vote.map(Into::into),
            vote_written: recovered.vote.map(Into::into),
            purged: recovered.purged.map(Into::into),
            committed: recovered.committed.map(Into::into),
            about_before,
            base_length: writer.length(),
            ..Memory::default()
        };
        for (index, entry) in recovered.entries {
            let entry = RaftEntry::from(entry);
            memory.note_about(&entry)?;
            memory.entries.insert(index, entry);
        }
        port.appended(&memory.about_all().into_iter().collect::<Vec<_>>());
        Ok(Self { memory: Arc::new(Mutex::new(memory)), writer, port, faults, runtime: PhantomData })
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands records to the disk without waiting; an error stops the node.
    fn write(&self, items: Vec<Item>) {
        let faults = self.faults.clone();
        self.writer.submit(Work::Write(items), move |result| {
            if let Err(e) = result {
                faults.raise(Failure::disk(&e));
            }
        });
    }

    /// Hands records to the disk and waits until they are durable.
    async fn write_through(&self, items: Vec<Item>) -> io::Result<()> {
        let (sender, receiver) = R::Oneshot::channel::<io::Result<()>>();
        let faults = self.faults.clone();
        self.writer.submit(Work::Write(items), move |result| {
            if let Err(e) = &result {
                faults.raise(Failure::disk(e));
            }
            drop(sender.send(result));
        });
        receiver.await.unwrap_or_else(|_| Err(io::Error::other("the log is closed")))
    }

    /// Writes the file anew, with what is alive.
    fn rewrite(&self, memory: &mut Memory) {
        let items = memory.alive();
        memory.base_length = items.iter().map(|(_, body)| body.len() as u64 + 12).sum();
        let faults = self.faults.clone();
        self.writer.submit(Work::Rewrite(items), move |result| {
            if let Err(e) = result {
                faults.raise(Failure::disk(&e));
            }
        });
    }

    fn rewrite_if_mostly_dead(&self) {
        let length = self.writer.length();
        let mut memory = self.lock();
        if length > 2 * memory.base_length + DEAD_BYTES_MAX {
            self.rewrite(&mut memory);
        }
    }
}

impl Memory {
    fn note_about(&mut self, entry: &RaftEntry) -> Result<(), Failure> {
        let types::Payload::Normal(command) = &entry.payload else { return Ok(()) };
        let index = LogIndex(entry.log_id.index);
        let proposal = Proposal::decode(&command.0).map_err(|source| Failure::Unreadable { index, source })?;
        let mut nodes: Vec<_> = proposal.entry.about().collect();
        nodes.sort_unstable();
        nodes.dedup();
        if !nodes.is_empty() {
            self.about.push_back((index.0, nodes));
        }
        Ok(())
    }

    /// For each node the newest entry about it that this log has ever had, but for those that were truncated.
    fn about_all(&self) -> BTreeMap<NodeId, LogIndex> {
        let mut all = self.about_before.clone();
        for (index, nodes) in &self.about {
            for node in nodes {
                all.insert(*node, LogIndex(*index));
            }
        }
        all
    }

    /// Records that make this state out of an empty file.
    fn alive(&self) -> Vec<Item> {
        let record = |kind, body| (kind, body);
        let vote = self.vote_written.map(|v| record(kind::VOTE, format::encode(&format::Vote::from(v))));
        let purged = self.purged.map(|id| record(kind::PURGED, format::encode(&format::LogId::from(id))));
        let entries = self.entries.values().map(|e| entry_item(e.clone()));
        let committed = self.committed.map(|id| record(kind::COMMITTED, format::encode(&format::LogId::from(id))));
        vote.into_iter().chain(purged).chain(entries).chain(committed).collect()
    }

    /// The record of what is known to be committed, to ride along with the next write; it is worth no sync of its own.
    fn committed_item(&mut self) -> Option<Item> {
        if !std::mem::take(&mut self.committed_is_new) {
            return None;
        }
        self.committed.map(|id| (kind::COMMITTED, format::encode(&format::LogId::from(id))))
    }

    fn last(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, e)| e.log_id).or(self.purged)
    }
}

fn entry_item(entry: RaftEntry) -> Item {
    (kind::ENTRY, format::encode(&LogEntry::from(entry)))
}

impl<R: AsyncRuntime> RaftLogReader<Types<R>> for LogStore<R> {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<RaftEntry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        if is_empty(&range) {
            return Ok(Vec::new());
        }
        Ok(self.lock().entries.range(range).map(|(_, e)| e.clone()).collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.lock().vote)
    }
}

/// `BTreeMap::range` panics on these.
fn is_empty(range: &impl RangeBounds<u64>) -> bool {
    let start = match range.start_bound() {
        Bound::Included(i) => *i,
        Bound::Excluded(i) => i.saturating_add(1),
        Bound::Unbounded => 0,
    };
    match range.end_bound() {
        Bound::Included(i) => start > *i,
        Bound::Excluded(i) => start >= *i,
        Bound::Unbounded => false,
    }
}

impl<R: AsyncRuntime> RaftLogStorage<Types<R>> for LogStore<R> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types<R>>, io::Error> {
        let memory = self.lock();
        Ok(LogState { last_purged_log_id: memory.purged, last_log_id: memory.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let items = {
            let mut memory = self.lock();
            let committed = memory.committed_item();
            memory.vote_written = Some(*vote);
            let item = (kind::VOTE, format::encode(&format::Vote::from(*vote)));
            committed.into_iter().chain([item]).collect()
        };
        self.write_through(items).await?;
        self.lock().vote = Some(*vote);
        self.rewrite_if_mostly_dead();
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let mut memory = self.lock();
        if memory.committed != committed {
            memory.committed = committed;
            memory.committed_is_new = true;
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types<R>>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let (items, about) = {
            let mut memory = self.lock();
            let mut items = Vec::from_iter(memory.committed_item());
            let seen = memory.about.len();
            for entry in entries {
                if let Err(unreadable) = memory.note_about(&entry) {
                    self.faults.raise(unreadable.clone());
                    return Err(io::Error::other(unreadable));
                }
                items.push(entry_item(entry.clone()));
                memory.entries.insert(entry.log_id.index, entry);
            }
            let about: BTreeMap<_, _> = memory
                .about
                .range(seen..)
                .flat_map(|(index, nodes)| nodes.iter().map(|node| (*node, LogIndex(*index))))
                .collect();
            (items, about)
        };
        // Rule 3.3: from here on this voter's log holds them, so before anybody can count on it.
        if !about.is_empty() {
            self.port.appended(&about.into_iter().collect::<Vec<_>>());
        }
        let faults = self.faults.clone();
        self.writer.submit(Work::Write(items), move |result| {
            if let Err(e) = &result {
                faults.raise(Failure::disk(e));
            }
            callback.io_completed(result);
        });
        self.rewrite_if_mostly_dead();
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let first_gone = last.map_or(0, |id| id.index + 1);
        let about = {
            let mut memory = self.lock();
            memory.entries.split_off(&first_gone);
            let kept = memory.about.partition_point(|(index, _)| *index < first_gone);
            let gone = memory.about.split_off(kept);
            let left = memory.about_all();
            let named: BTreeSet<_> = gone.into_iter().flat_map(|(_, nodes)| nodes).collect();
            named.into_iter().map(|node| (node, left.get(&node).copied().unwrap_or_default())).collect::<Vec<_>>()
        };
        if !about.is_empty() {
            self.port.appended(&about);
        }
        self.write(vec![(kind::TRUNCATED, format::encode(&first_gone))]);
        Ok(())
    }

    async fn purge(&mut self, last_gone: LogId) -> Result<(), io::Error> {
        let mut memory = self.lock();
        memory.entries = memory.entries.split_off(&(last_gone.index + 1));
        memory.purged = memory.purged.max(Some(last_gone));
        while memory.about.front().is_some_and(|(index, _)| *index <= last_gone.index) {
            let Some((index, nodes)) = memory.about.pop_front() else { break };
            for node in nodes {
                memory.about_before.insert(node, LogIndex(index));
            }
        }
        self.rewrite(&mut memory);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sixnines_core::domain::Entry;

    use super::*;

    #[test]
    fn an_entry_of_a_kind_to_come_is_refused_by_index_and_kind_with_what_to_do() {
        let proposal = Proposal { by: NodeId(1), ticket: 0, cause: None, entry: Entry::Expel { node: NodeId(2) } };
        let mut bytes = proposal.encode();
        let kind = bytes.len() - 2;
        bytes[kind] = 99;
        let leader = types::LeaderId { term: 1, node_id: NodeId(1) };
        let entry = RaftEntry { log_id: LogId { leader_id: leader, index: 7 }, payload: types::Payload::Normal(types::Command(bytes.into())) };
        let why = Memory::default().note_about(&entry).expect_err("nobody knows it");
        assert!(why.is_unreadable(), "{why}");
        let text = why.to_string();
        assert!(text.contains("entry 7") && text.contains("kind 99") && text.contains("install a newer build"), "{text}");
    }
}
