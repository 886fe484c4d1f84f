//! openraft's network: each of its calls is one question to a peer.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::Select2;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest,
    VoteResponse,
};
use openraft::{AsyncRuntime, OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2, Snapshot};
use sixnines_core::ids::NodeId;

use super::peers::Peers;
use super::types::{LeaderId, Seat, Types, Vote};
use super::wire::{Reply, Request, SnapshotPart};

/// Bytes in one part of a snapshot: small enough that heartbeats on the same link do not wait for it.
const PART_BYTES: usize = 64 << 10;

/// Makes a [`Peer`] for each node that openraft wants to talk to.
///
/// There is no connection behind one, so heartbeats and snapshots need none of their own: the port takes frames apart by
/// `wire::lane`.
pub(crate) struct Network<R: AsyncRuntime> {
    pub(crate) peers: Peers<R>,
    pub(crate) snapshot_part: Duration,
}

impl<R: AsyncRuntime> RaftNetworkFactory<Types<R>> for Network<R> {
    type Network = Peer<R>;

    async fn new_client(&mut self, to: NodeId, _: &Seat) -> Peer<R> {
        Peer { peers: self.peers.clone(), to, snapshot_part: self.snapshot_part }
    }
}

/// One peer, as openraft asks it.
pub(crate) struct Peer<R: AsyncRuntime> {
    peers: Peers<R>,
    to: NodeId,
    snapshot_part: Duration,
}

type Answered<R, T> = Result<T, RPCError<Types<R>>>;

impl<R: AsyncRuntime> Peer<R> {
    async fn ask(&self, action: RPCTypes, request: Request, timeout: Duration) -> Answered<R, Reply> {
        match self.peers.ask(self.to, request, timeout).await {
            Ok(reply) => Ok(reply),
            Err(_) => Err(RPCError::Timeout(Timeout { action, id: self.peers.node(), target: self.to, timeout })),
        }
    }

    async fn ask_for_vote(&self, request: Request, timeout: Duration) -> Answered<R, VoteResponse<Types<R>>> {
        match self.ask(RPCTypes::Vote, request, timeout).await? {
            Reply::Vote { vote, granted, last } => Ok(VoteResponse { vote: vote.into(), vote_granted: granted, last_log_id: last.map(Into::into) }),
            other => Err(unfit(&other)),
        }
    }

    async fn send_snapshot(&self, vote: Vote, bytes: Arc<[u8]>) -> Result<SnapshotResponse<Types<R>>, StreamingError<Types<R>>> {
        let transfer = self.peers.draw();
        let total = bytes.len() as u64;
        let mut sent = 0;
        for part in bytes.chunks(PART_BYTES) {
            let request =
                SnapshotPart { vote: vote.into(), transfer, offset: sent, total, bytes: part.to_vec() };
            sent += part.len() as u64;
            let asked = self.ask(RPCTypes::InstallSnapshot, Request::SnapshotPart(request), self.snapshot_part).await;
            match asked.map_err(streaming)? {
                Reply::SnapshotPart { next } if next == sent && sent < total => {}
                Reply::SnapshotDone { vote } => return Ok(SnapshotResponse { vote: vote.into() }),
                other => return Err(streaming(unfit(&other))),
            }
        }
        Err(StreamingError::Unreachable(Unreachable::from_string("the peer did not say that it has the snapshot")))
    }
}

fn unfit<R: AsyncRuntime>(reply: &Reply) -> RPCError<Types<R>> {
    RPCError::Unreachable(Unreachable::from_string(format!("the peer's answer does not fit: {reply:?}")))
}

fn streaming<R: AsyncRuntime>(error: RPCError<Types<R>>) -> StreamingError<Types<R>> {
    match error {
        RPCError::Timeout(e) => StreamingError::Timeout(e),
        other => StreamingError::Unreachable(Unreachable::from_string(other)),
    }
}

impl<R: AsyncRuntime> RaftNetworkV2<Types<R>> for Peer<R> {
    type SnapshotData = Arc<[u8]>;

    async fn append_entries(&mut self, rpc: AppendEntriesRequest<Types<R>>, option: RPCOption) -> Answered<R, AppendEntriesResponse<Types<R>>> {
        let (vote, previous) = (rpc.vote, rpc.prev_log_id);
        let last = rpc.entries.last().map(|entry| entry.log_id).or(previous);
        let request = Request::Append {
            vote: rpc.vote.into(),
            previous: rpc.prev_log_id.map(Into::into),
            entries: rpc.entries.into_iter().map(Into::into).collect(),
            commit: rpc.leader_commit.map(Into::into),
        };
        match self.ask(RPCTypes::AppendEntries, request, option.soft_ttl()).await? {
            Reply::Appended => {
                self.peers.acknowledged(self.to, vote, last);
                Ok(AppendEntriesResponse::Success)
            }
            Reply::AppendedUpTo(last) => {
                let last = last.map(Into::into);
                self.peers.acknowledged(self.to, vote, last);
                Ok(AppendEntriesResponse::PartialSuccess(last))
            }
            // Without a previous entry there is nothing to conflict with.
            Reply::Conflict if previous.is_some_and(|lacks| !self.peers.contradicts(self.to, vote, lacks)) => Ok(AppendEntriesResponse::Conflict),
            Reply::HigherVote(vote) => Ok(AppendEntriesResponse::HigherVote(vote.into())),
            other => Err(unfit(&other)),
        }
    }

    async fn vote(&mut self, rpc: VoteRequest<Types<R>>, option: RPCOption) -> Answered<R, VoteResponse<Types<R>>> {
        let last = rpc.last_log_id.map(Into::into);
        let transfer = rpc.leadership_transfer || self.peers.is_campaign();
        let request = Request::Vote { vote: rpc.vote.into(), last, transfer };
        self.ask_for_vote(request, option.soft_ttl()).await
    }

    async fn pre_vote(&mut self, rpc: VoteRequest<Types<R>>, option: RPCOption) -> Answered<R, VoteResponse<Types<R>>> {
        let request = Request::PreVote { vote: rpc.vote.into(), last: rpc.last_log_id.map(Into::into) };
        self.ask_for_vote(request, option.soft_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<LeaderId, NodeId, Seat, Arc<[u8]>>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types<R>>, StreamingError<Types<R>>> {
        match R::select2(cancel, self.send_snapshot(vote, snapshot.snapshot)).await {
            Select2::First(closed) => Err(StreamingError::Closed(closed)),
            Select2::Second(result) => result,
        }
    }

    async fn transfer_leader(&mut self, rpc: TransferLeaderRequest<Types<R>>, option: RPCOption) -> Answered<R, TransferLeaderResponse<Types<R>>> {
        let expected = (*rpc.from_leader(), rpc.last_log_id().copied());
        let request = Request::Transfer { vote: expected.0.into(), to: *rpc.to_node_id(), last: expected.1.map(Into::into) };
        match self.ask(RPCTypes::TransferLeader, request, option.soft_ttl()).await? {
            Reply::TransferAccepted => Ok(Ok(())),
            Reply::TransferRefusedVote(actual) => Ok(Err(TransferLeaderError::VoteChanged { expected: expected.0, actual: actual.into() })),
            Reply::TransferRefusedLog(actual) => {
                Ok(Err(TransferLeaderError::LogNotFlushed { expected: expected.1, actual: actual.map(Into::into) }))
            }
            other => Err(unfit(&other)),
        }
    }
}
