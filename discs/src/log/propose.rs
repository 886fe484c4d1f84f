//! The way of a proposal: to the leader wherever it is, if need be through a third node, and back with what is known of it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::{Select2, WatchReceiver};
use openraft::errors::{ClientWriteError, RaftError};
use openraft::{AsyncRuntime, Instant};
use sixnines_core::domain::Proposal;
use sixnines_core::ids::{LogIndex, NodeId};

use super::ProposeError;
use super::host::Host;
use super::types::Command;
use super::wire::{Proposed, Reply, Request};

impl<R: AsyncRuntime> Host<R> {
    pub(crate) async fn propose(self: Arc<Self>, proposal: Proposal) {
        let outcome = match self.check_level(&proposal.entry) {
            Ok(()) => self.propose_once(proposal.encode()).await,
            Err(why) => Err(why),
        };
        self.port.proposed(proposal.ticket, outcome);
    }

    /// Looks for a leader until the time is over; gives the proposal away once, unless it comes back as surely not taken.
    async fn propose_once(&self, proposal: Vec<u8>) -> Result<LogIndex, ProposeError> {
        let deadline = R::Instant::now() + self.timing.propose;
        loop {
            let left = deadline - R::Instant::now();
            if left.is_zero() {
                return Err(ProposeError::NotSent);
            }
            let became = match self.leader() {
                Some(leader) if leader == self.me() => self.write(&proposal, left).await,
                Some(leader) => self.forward(leader, &proposal, left).await,
                None => Proposed::NotLeader(None),
            };
            match became {
                Proposed::Applied(index) => return Ok(index),
                Proposed::Void(index, why) => return Err(ProposeError::Void { index, why }),
                Proposed::Unknown => return Err(ProposeError::Unknown),
                Proposed::NotLeader(_) => R::sleep(self.timing.retry().min(deadline - R::Instant::now())).await,
            }
        }
    }

    /// Gives the proposal to this node's Raft.
    async fn write(&self, proposal: &[u8], timeout: Duration) -> Proposed {
        match R::timeout(timeout, self.raft.client_write(Command(proposal.into()))).await {
            Ok(Ok(written)) => {
                let index = LogIndex(written.log_id.index);
                written.data.0.map_or(Proposed::Applied(index), |why| Proposed::Void(index, why))
            }
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))) => Proposed::NotLeader(to.leader_id),
            // Discarded from this log, yet perhaps copied before; or stopped in the middle; or no answer in time.
            Ok(Err(_)) | Err(_) => Proposed::Unknown,
        }
    }

    /// Gives the proposal to the leader. Should another one come before the answer does, nobody can tell any more, and it is
    /// better said at once: an entry names what it was made for, so its proposer can look and propose again.
    async fn forward(&self, leader: NodeId, proposal: &[u8], timeout: Duration) -> Proposed {
        let mut metrics = self.raft.metrics();
        let succeeded = metrics.wait_until(|m| m.current_leader.is_some_and(|l| l != leader));
        let asked = pin!(self.peers.ask(leader, Request::Propose { proposal: proposal.to_vec() }, timeout));
        let by_detour = pin!(self.by_detour(leader, proposal, timeout));
        let asked = pin!(R::select2(asked, by_detour));
        match R::select2(asked, succeeded).await {
            Select2::First(Select2::First(Ok(Reply::Proposed(became))) | Select2::Second(became)) => became,
            Select2::First(Select2::First(Ok(Reply::Unable))) => Proposed::NotLeader(None),
            Select2::First(Select2::First(_)) | Select2::Second(_) => Proposed::Unknown,
        }
    }

    /// A leader may be heard that does not hear this node: then another voter hands the proposal on. Ends only when that is known
    /// to have been taken. Twice in the log it does no harm: entries name what they were made for.
    async fn by_detour(&self, leader: NodeId, proposal: &[u8], timeout: Duration) -> Proposed {
        R::sleep(self.timing.detour()).await;
        let voters: Vec<NodeId> = self.raft.metrics().borrow_watched().membership_config.membership().voter_ids().collect();
        for relay in voters.into_iter().filter(|n| *n != leader && *n != self.me()) {
            match self.peers.ask(relay, Request::Relay { proposal: proposal.to_vec() }, timeout).await {
                Ok(Reply::Proposed(Proposed::Applied(index))) => return Proposed::Applied(index),
                // Perhaps because the same has come to the leader straight, and only the answer did not come back.
                Ok(Reply::Proposed(Proposed::Void(..))) => return Proposed::Unknown,
                _ => {}
            }
        }
        std::future::pending().await
    }

    /// Hands a peer's proposal on to the leader, and to nobody else.
    pub(crate) async fn relay(&self, from: NodeId, proposal: Vec<u8>) -> Reply {
        match self.leader() {
            Some(leader) if leader != self.me() && leader != from => {
                let handed_on = self.peers.ask(leader, Request::Propose { proposal }, self.timing.propose).await;
                handed_on.unwrap_or(Reply::Proposed(Proposed::Unknown))
            }
            _ => self.serve_proposal(proposal).await,
        }
    }

    /// A peer's proposal: taken only if this node leads, so that it goes round no circles.
    pub(crate) async fn serve_proposal(&self, proposal: Vec<u8>) -> Reply {
        // What this version cannot read must not get into the log by its hand, nor what others may not read.
        let is_read = Proposal::decode(&proposal).is_ok_and(|p| self.check_level(&p.entry).is_ok());
        if !is_read {
            return Reply::Unable;
        }
        if self.leader() != Some(self.me()) {
            return Reply::Proposed(Proposed::NotLeader(self.leader()));
        }
        Reply::Proposed(self.write(&proposal, self.timing.propose).await)
    }
}
