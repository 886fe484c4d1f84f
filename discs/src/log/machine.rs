//! The state machine: `Domain` under openraft, and its snapshots.

use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::Stream;
use openraft::async_runtime::{Oneshot, OneshotSender};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{AsyncRuntime, OptionalSend, RaftSnapshotBuilder, Snapshot};
use serde::{Deserialize, Serialize};
use sixnines_core::domain::feature::{Level, TooNew};
use sixnines_core::domain::config::{ChassisConfig, NodeConfig, Profile, ServiceConfig};
use sixnines_core::domain::limits::Limits;
use sixnines_core::domain::{Domain, Proposal};
use sixnines_core::ids::{LogIndex, NodeId};

use super::format;
use super::segment::{self, OpenError, kind};
use super::types::{self, Answer, LogId, RaftEntry, SnapshotMeta, StoredMembership, Types};
use super::writer::{Work, Writer};
use super::{Apply, Board, Failure, Faults, Port};

/// First byte of a snapshot's domain above the first feature level: the level follows, then a domain of any of the formats below. So the level is
/// read, and said, also by who does not read the rest.
const DOMAIN_AT_LEVEL: u8 = 6;
/// First byte of a snapshot's domain in whose configuration something is said of fencing: what was fenced stands behind it.
const DOMAIN_FORMAT: u8 = 5;
/// Nothing is said of fencing, but limits are: what older versions read.
const DOMAIN_WITHOUT_FENCE: u8 = 4;
/// No limits are said, and none are written: what was before there were any, and what older versions read.
const DOMAIN_WITHOUT_LIMITS: u8 = 3;

/// What a snapshot says of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Meta {
    last: Option<format::LogId>,
    membership_id: Option<format::LogId>,
    membership: format::Membership,
}

/// A snapshot, taken apart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    pub(crate) last: Option<LogId>,
    pub(crate) membership: StoredMembership,
    pub(crate) domain: Domain,
}

impl Content {
    /// The snapshot's bytes: a file in the record format, the same on disk and on the wire.
    fn encode(&self) -> Arc<[u8]> {
        let meta = Meta {
            last: self.last.map(Into::into),
            membership_id: self.membership.log_id().map(Into::into),
            membership: self.membership.membership().into(),
        };
        let config = &self.domain.config;
        let format = if config.is_fence_said() { DOMAIN_FORMAT } else if config.limits.is_unsaid() { DOMAIN_WITHOUT_LIMITS } else { DOMAIN_WITHOUT_FENCE };
        let level = self.domain.level;
        let head = if level.is_first() { vec![format] } else { vec![DOMAIN_AT_LEVEL, level.0, format] };
        let mut domain = postcard::to_extend(&self.domain, head).expect("a domain in memory has an encoding");
        if format == DOMAIN_FORMAT {
            domain = postcard::to_extend(&self.domain.fenced, domain).expect("a table in memory has an encoding");
        }
        segment::file(&[(kind::SNAPSHOT_META, format::encode(&meta)), (kind::SNAPSHOT_DOMAIN, domain)]).into()
    }

    /// Reads a snapshot, on a node that reads up to a level.
    ///
    /// # Errors
    /// Damage, another format, or a level above; then the node stops (protocol 6.3).
    pub(crate) fn decode(bytes: &[u8], reads: Level) -> Result<Self, OpenError> {
        const FILE: &str = "snapshot";
        let damaged = |what: &str| OpenError::Damaged { file: FILE, at: 0, what: what.to_owned() };
        let records = segment::whole(FILE, bytes)?;
        let body = |kind| records.iter().find(|r| r.kind == kind).map(|r| r.body);
        let meta: Meta = body(kind::SNAPSHOT_META).and_then(format::decode).ok_or_else(|| damaged("its head cannot be read"))?;
        let (level, domain) = match body(kind::SNAPSHOT_DOMAIN) {
            Some(&[DOMAIN_AT_LEVEL, theirs, ref rest @ ..]) => (Level(theirs), Some(rest)),
            at_first => (Level::FIRST, at_first),
        };
        if level > reads {
            return Err(OpenError::TooNew { file: FILE, why: TooNew { theirs: level, ours: reads } });
        }
        let domain = match domain.and_then(|b| b.split_first()) {
            Some((&DOMAIN_FORMAT, rest)) => decode_fencing(rest).ok_or_else(|| damaged("its domain cannot be read"))?,
            Some((&DOMAIN_WITHOUT_FENCE, rest)) => decode_shorter::<(Head, Limits)>(rest, &[0]).ok_or_else(|| damaged("its domain cannot be read"))?,
            Some((&DOMAIN_WITHOUT_LIMITS, rest)) => decode_shorter::<Head>(rest, &[0, 0]).ok_or_else(|| damaged("its domain cannot be read"))?,
            Some((&theirs, _)) => return Err(OpenError::Format { file: FILE, theirs }),
            None => return Err(damaged("there is no domain in it")),
        };
        if !meta.membership.is_whole() {
            return Err(damaged("its membership contradicts itself"));
        }
        let membership = StoredMembership::new(meta.membership_id.map(Into::into), meta.membership.into());
        Ok(Self { last: meta.last.map(Into::into), membership, domain: Domain { level, ..domain } })
    }

    pub(crate) fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.last, last_membership: self.membership.clone() }
    }
}

/// What a domain's bytes begin with, up to the configuration's services.
type Head = (LogIndex, String, Profile, Vec<NodeConfig>, Vec<ChassisConfig>, Vec<ServiceConfig>);

/// A domain whose configuration ends with `H`: nothing said is a 0 each in the place of what would follow.
fn decode_shorter<H: for<'de> Deserialize<'de>>(bytes: &[u8], zeros: &[u8]) -> Option<Domain> {
    let (_, behind): (H, &[u8]) = postcard::take_from_bytes(bytes).ok()?;
    let head = &bytes[..bytes.len() - behind.len()];
    format::decode(&[head, zeros, behind].concat())
}

fn decode_fencing(bytes: &[u8]) -> Option<Domain> {
    let (domain, behind): (Domain, &[u8]) = postcard::take_from_bytes(bytes).ok()?;
    Some(Domain { fenced: format::decode(behind)?, ..domain })
}

/// The newest snapshot that is on disk.
type Held = Arc<Mutex<Option<(SnapshotMeta, Arc<[u8]>)>>>;
type OurSnapshot = Snapshot<types::LeaderId, NodeId, types::Seat, Arc<[u8]>>;

/// The state machine.
pub(crate) struct StateMachine<R> {
    content: Content,
    apply: Apply,
    reads: Level,
    snapshot: Held,
    writer: Writer,
    port: Arc<dyn Port>,
    board: Board,
    faults: Faults,
    runtime: PhantomData<fn() -> R>,
}

impl<R: AsyncRuntime> StateMachine<R> {
    /// Goes on from the snapshot that was on disk, if there was one.
    #[expect(clippy::too_many_arguments, reason = "wiring")]
    pub(crate) fn new(content: Content, snapshot: Option<Vec<u8>>, apply: Apply, reads: Level, writer: Writer, port: Arc<dyn Port>, board: Board, faults: Faults) -> Self {
        let snapshot = snapshot.map(|bytes| (content.meta(), bytes.into()));
        let machine = Self {
            content,
            apply,
            reads,
            snapshot: Arc::new(Mutex::new(snapshot)),
            writer,
            port,
            board,
            faults,
            runtime: PhantomData,
        };
        machine.tell_state();
        machine
    }

    /// The state was replaced or found as a whole.
    fn tell_state(&self) {
        self.board.set_domain(&self.content.domain);
        if let Some(last) = self.content.last {
            self.port.applied(LogIndex(last.index), None, &Ok(Vec::new()), &self.content.domain);
        }
    }

    fn apply_one(&mut self, entry: &RaftEntry) -> Result<Answer, Failure> {
        let index = LogIndex(entry.log_id.index);
        self.content.last = Some(entry.log_id);
        match &entry.payload {
            types::Payload::Blank => self.port.applied(index, None, &Ok(Vec::new()), &self.content.domain),
            types::Payload::Membership(membership) => {
                self.content.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                self.port.applied(index, None, &Ok(Vec::new()), &self.content.domain);
            }
            types::Payload::Normal(command) => {
                let proposal = Proposal::decode(&command.0).map_err(|source| Failure::Unreadable { index, source })?;
                let outcome = (self.apply)(&mut self.content.domain, index, &proposal.entry);
                // Before anybody is told: what the others do from here on is not known here.
                self.content.domain.check_level(self.reads).map_err(|source| Failure::TooNew { index, source })?;
                self.board.set_domain(&self.content.domain);
                self.port.applied(index, Some(&proposal), &outcome, &self.content.domain);
                return Ok(Answer(outcome.err()));
            }
        }
        Ok(Answer(None))
    }

    fn stop<T>(&self, failure: Failure) -> Result<T, io::Error> {
        self.faults.raise(failure.clone());
        Err(io::Error::other(failure))
    }

    fn builder(&self) -> Builder<R> {
        Builder {
            content: self.content.clone(),
            snapshot: self.snapshot.clone(),
            writer: self.writer.clone(),
            faults: self.faults.clone(),
            runtime: PhantomData,
        }
    }
}

impl<R: AsyncRuntime> RaftStateMachine<Types<R>> for StateMachine<R> {
    type SnapshotData = Arc<[u8]>;
    type SnapshotBuilder = Builder<R>;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.content.last, self.content.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types<R>>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(next) = std::future::poll_fn(|cx| Pin::new(&mut entries).poll_next(cx)).await {
            let (entry, responder) = next?;
            match self.apply_one(&entry) {
                Ok(answer) => {
                    if let Some(responder) = responder {
                        responder.send(answer);
                    }
                }
                Err(failure) => return self.stop(failure),
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder<R> {
        self.builder()
    }

    async fn install_snapshot(&mut self, _: &SnapshotMeta, bytes: Arc<[u8]>) -> Result<(), io::Error> {
        let content = match Content::decode(&bytes, self.reads) {
            Ok(content) => content,
            Err(e) => return self.stop(Failure::Snapshot(e.to_string())),
        };
        let mut builder = self.builder();
        builder.content = content.clone();
        builder.save(bytes).await?;
        self.content = content;
        self.tell_state();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<OurSnapshot>, io::Error> {
        let held = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(held.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

/// A view of the state at one index, on its way to the disk.
pub(crate) struct Builder<R> {
    content: Content,
    snapshot: Held,
    writer: Writer,
    faults: Faults,
    runtime: PhantomData<fn() -> R>,
}

impl<R: AsyncRuntime> Builder<R> {
    /// Durable before it counts: entries are purged on the strength of it.
    async fn save(&mut self, bytes: Arc<[u8]>) -> io::Result<()> {
        let (sender, receiver) = R::Oneshot::channel::<io::Result<()>>();
        self.writer.submit(Work::Snapshot(bytes.clone()), move |result| drop(sender.send(result)));
        let saved = receiver.await.unwrap_or_else(|_| Err(io::Error::other("the log is closed")));
        if let Err(e) = &saved {
            self.faults.raise(Failure::disk(e));
        } else {
            let mut held = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
            *held = Some((self.content.meta(), bytes));
        }
        saved
    }
}

impl<R: AsyncRuntime> RaftSnapshotBuilder<Types<R>> for Builder<R> {
    type SnapshotData = Arc<[u8]>;

    async fn build_snapshot(&mut self) -> Result<OurSnapshot, io::Error> {
        let bytes = self.content.encode();
        self.save(bytes.clone()).await?;
        Ok(Snapshot { meta: self.content.meta(), snapshot: bytes })
    }
}

#[cfg(test)]
mod tests {
    use sixnines_core::domain::config::DomainConfig;
    use sixnines_core::domain::fence::{FenceConfig, Fenced};
    use sixnines_core::domain::limits::Limit;
    use sixnines_core::ids::{Incarnation, Member, Version};

    use super::*;

    fn content(limits: Limits) -> Content {
        let node = NodeConfig { id: NodeId(1), chassis: "mxp1".into(), links: vec!["10.9.1.1:7400".parse().expect("an address")], voter: true, witness: false };
        let config = DomainConfig { domain: "lab".into(), nodes: vec![node], limits, ..DomainConfig::default() };
        let domain = Domain { applied: LogIndex(300), config, config_version: Version(2), ..Domain::default() };
        Content { domain, ..Content::default() }
    }

    #[test]
    fn a_snapshot_bears_the_limits_and_one_without_is_read_as_those_of_before() {
        for (limits, format) in [(Limits::default(), DOMAIN_WITHOUT_LIMITS), (Limits::default().with(Limit::SdkClients, 5), DOMAIN_WITHOUT_FENCE)] {
            let content = content(limits);
            let bytes = content.encode();
            let domain = segment::whole("snapshot", &bytes).expect("whole").iter().find(|r| r.kind == kind::SNAPSHOT_DOMAIN).map(|r| r.body[0]);
            assert_eq!(domain, Some(format));
            assert_eq!(Content::decode(&bytes, Level::FIRST).expect("its own").domain, content.domain);
        }
    }

    #[test]
    fn a_snapshot_above_the_first_level_says_so_first_and_who_reads_less_is_told() {
        let domain_of = |bytes: &[u8]| segment::whole("snapshot", bytes).expect("whole").iter().find(|r| r.kind == kind::SNAPSHOT_DOMAIN).map(|r| r.body.to_vec()).expect("a domain");
        for fenced in [false, true] {
            let mut content = content(Limits::default());
            if fenced {
                content.domain.config.fence = Some(FenceConfig { command: vec!["off".into()], timeout: std::time::Duration::from_secs(1) });
            }
            let at_first = domain_of(&content.encode());
            content.domain.level = Level(2);
            let bytes = content.encode();
            assert_eq!(domain_of(&bytes), [&[DOMAIN_AT_LEVEL, 2][..], &at_first].concat(), "behind the level all is as it was");
            assert_eq!(Content::decode(&bytes, Level(2)).expect("its own").domain, content.domain);
            assert_eq!(Content::decode(&bytes, Level(3)).expect("newer ones read it").domain.level, Level(2));
            let why = Content::decode(&bytes, Level::FIRST).expect_err("it is too new").to_string();
            assert!(why.contains("snapshot") && why.contains("level 2") && why.contains("reads up to 1") && why.contains("install a newer build"), "{why}");
        }
    }

    #[test]
    fn a_snapshot_of_a_format_to_come_is_refused_by_its_number() {
        let bytes = segment::file(&[(kind::SNAPSHOT_META, format::encode(&Meta::default())), (kind::SNAPSHOT_DOMAIN, vec![DOMAIN_AT_LEVEL + 1, 9, 9])]);
        let why = Content::decode(&bytes, Level::NEWEST).expect_err("nobody knows it").to_string();
        assert!(why.contains("format 7") && why.contains("install a newer build"), "{why}");
        for short in [&[DOMAIN_AT_LEVEL][..], &[DOMAIN_AT_LEVEL, 1], &[DOMAIN_AT_LEVEL, 1, DOMAIN_AT_LEVEL, 1]] {
            let bytes = segment::file(&[(kind::SNAPSHOT_META, format::encode(&Meta::default())), (kind::SNAPSHOT_DOMAIN, short.to_vec())]);
            assert!(Content::decode(&bytes, Level::NEWEST).is_err(), "{short:?}");
        }
    }

    #[test]
    fn a_snapshot_of_a_domain_that_fences_bears_what_was_fenced() {
        for limits in [Limits::default(), Limits::default().with(Limit::SdkClients, 5)] {
            let mut content = content(limits);
            content.domain.config.fence = Some(FenceConfig { command: vec!["off".into()], timeout: std::time::Duration::from_secs(1) });
            let member = |node| Member { node: NodeId(node), incarnation: Incarnation(7) };
            content.domain.fenced.insert(NodeId(2), Fenced { target: member(2), by: member(1), evidence: "outlet 7 is off".into() });
            let bytes = content.encode();
            assert_eq!(Content::decode(&bytes, Level::FIRST).expect("its own").domain, content.domain);
        }
    }
}
