//! Fencing before a takeover (protocol 4.6): who asks for it, when it is tried again, and when it is dropped.
//!
//! Releases are not enough for a service that says `fence: required`. Its best bidder has the lost node switched off and puts what the device
//! said into the log; the takeover follows when that is applied. To switch off what is off already does no harm, so a command whose outcome is not
//! known is simply given again: the device is read back each time.

use super::*;
use crate::domain::fence::EVIDENCE_MAX;

/// What is under way against one node.
#[derive(Clone, Debug)]
pub(super) struct Fence {
    target: Member,
    /// The sign of life that it is for: with another one it is dropped.
    since: LogIndex,
    phase: Phase,
    /// How long the next failure is waited on.
    pause: Duration,
}

#[derive(Clone, Debug)]
enum Phase {
    Asked(u64),
    Paused(Instant),
    Off { evidence: String, cause: EventId },
}

impl Roles {
    /// Whether a bid has to wait: nothing in the log proves that `old` is off. Goes on with its fence, if this node's turn has come.
    pub(super) fn consider_fence(&mut self, now: Instant, me: Member, group: &GroupName, old: Member, (since, rank): (Instant, u32), cause: Option<EventId>) {
        let timeout = self.domain.config.fence.as_ref().map_or(Duration::ZERO, |f| f.timeout);
        let turn = since + (timeout + FENCE_TURN) * rank; // two hands at one switch help nobody: the next in line waits for the first one's time to be over
        if now < turn {
            return self.wake_at(turn);
        }
        let phase = self.fences.get(&old.node).map(|f| f.phase.clone());
        match phase {
            Some(Phase::Asked(_)) => {}
            Some(Phase::Paused(until)) if now < until => self.wake_at(until),
            Some(Phase::Off { evidence, cause }) => {
                let since = self.domain.nodes[&old.node].since;
                let entry = Entry::Fenced { target: old, since, by: me, evidence };
                self.propose(now, Purpose::Fence(old.node), Version(since.0), entry, Some(cause));
            }
            // Cut off, this node knows nothing of an old active that came back meanwhile.
            None | Some(Phase::Paused(_)) if self.suspended.is_some() => {}
            None | Some(Phase::Paused(_)) => self.ask_for_fence(group, old, cause),
        }
    }

    fn ask_for_fence(&mut self, group: &GroupName, target: Member, cause: Option<EventId>) {
        self.tickets += 1;
        let request = self.tickets;
        let since = self.domain.nodes[&target.node].since;
        let pause = self.fences.get(&target.node).map_or(PAUSE_MIN, |f| f.pause);
        self.fences.insert(target.node, Fence { target, since, phase: Phase::Asked(request), pause });
        self.outputs.push_back(Output::Fence { request, target, group: group.clone(), cause });
    }

    pub(super) fn on_fenced(&mut self, now: Instant, request: u64, evidence: Option<String>, cause: EventId) {
        let Some(fence) = self.fences.values_mut().find(|f| matches!(f.phase, Phase::Asked(asked) if asked == request)) else { return };
        match evidence {
            Some(mut evidence) => {
                let end = (0..=EVIDENCE_MAX).rev().find(|at| evidence.is_char_boundary(*at)).unwrap_or_default();
                evidence.truncate(end);
                fence.phase = Phase::Off { evidence, cause };
            }
            None => {
                fence.phase = Phase::Paused(now + fence.pause);
                fence.pause = (fence.pause * 2).min(PAUSE_MAX);
            }
        }
    }

    /// A node that is back, in another life or in time, is not to be switched off any more.
    pub(super) fn drop_fences(&mut self) {
        let domain = &self.domain;
        let is_over = |f: &Fence| domain.nodes.get(&f.target.node).is_none_or(|row| row.incarnation != f.target.incarnation || row.since != f.since);
        let over: Vec<NodeId> = self.fences.iter().filter(|(_, f)| is_over(f)).map(|(node, _)| *node).collect();
        for node in over {
            let Some(fence) = self.fences.remove(&node) else { continue };
            self.outputs.push_back(Output::FenceDropped { target: fence.target });
        }
    }

    /// The event that says that `old` is off, if this node had it switched off.
    pub(super) fn fence_event(&self, old: Member) -> Option<EventId> {
        match &self.fences.get(&old.node).filter(|f| f.target == old)?.phase {
            Phase::Off { cause, .. } => Some(*cause),
            Phase::Asked(_) | Phase::Paused(_) => None,
        }
    }
}

/// Between two nodes that may ask for the same fence, beside the first one's time.
const FENCE_TURN: Duration = Duration::from_millis(500);
/// A fence that failed is tried again after so long; twice as long each time, up to the longest.
const PAUSE_MIN: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(30);
