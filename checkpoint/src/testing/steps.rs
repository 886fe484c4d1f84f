//! One step of a random schedule.

use std::time::Duration;

use sixnines_core::domain::Entry;
use sixnines_core::ids::{Epoch, Incarnation, NodeId};

use super::{Rig, group};
use crate::{Input, Level};

/// What happens next; `pick` chooses among the places where it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub kind: Kind,
    /// Where.
    pub pick: u16,
}

/// The kinds of [`Step`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The next frame of a link arrives.
    Frame,
    /// All frames of a link arrive.
    Link,
    /// A frame overtakes others.
    Overtake,
    /// A frame arrives, and will again.
    Double,
    /// A frame is lost.
    Lose,
    /// A new request at one who holds himself for active.
    Write,
    /// The same, asynchronous.
    WriteAsync,
    /// A client repeats a request that it sent before.
    Retry,
    /// A client asks.
    Read,
    /// A node applies the next row.
    Row,
    /// Every node applies what was committed.
    Rows,
    /// The control log commits a proposal.
    Commit,
    /// A proposal is lost; nobody learns it.
    Forget,
    /// A member asks to take over.
    Takeover,
    /// Every node offers its copy, for there is no complete one.
    Start,
    /// A node loses its memory.
    Crash,
    /// A node begins a new life.
    Restart,
    /// A node loses its memory and is back before anybody noticed.
    Reboot,
    /// Time passes.
    Time,
    /// A node finds another one unreachable.
    Unreachable,
    /// A node finds another one reachable.
    Reachable,
    /// An active is to hand over.
    Quiesce,
    /// A quiesced active gives up handing over.
    GiveUp,
    /// Placement wants the other copies on one node, or anywhere.
    Prefer,
    /// A node's lease is granted or over.
    Lease,
    /// Everything under way arrives.
    Settle,
}

impl Rig {
    /// Takes one step; does nothing where it makes no sense.
    pub fn step(&mut self, step: Step) {
        let pick = usize::from(step.pick);
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        let node = nodes[pick % nodes.len()];
        let other = nodes[(pick / nodes.len()) % nodes.len()];
        match step.kind {
            Kind::Frame | Kind::Link | Kind::Overtake | Kind::Double | Kind::Lose => self.step_frame(step.kind, pick),
            Kind::Write | Kind::WriteAsync | Kind::Retry | Kind::Read => self.step_client(step.kind, pick),
            Kind::Row => _ = self.deliver_row(node),
            Kind::Rows => self.deliver_rows(),
            Kind::Commit | Kind::Forget => {
                let index = if self.proposals.is_empty() { 0 } else { pick % self.proposals.len() };
                if let Some(entry) = self.proposals.remove(index)
                    && (step.kind == Kind::Commit || matches!(entry, Entry::Joined { .. }))
                {
                    self.commit(&entry);
                }
            }
            Kind::Takeover => self.propose_takeover(node),
            Kind::Start => self.step_start(),
            Kind::Crash => self.crash(node),
            Kind::Restart => self.restart(node),
            Kind::Reboot => {
                self.crash(node);
                let nonce = self.domain.applied.0;
                self.commit(&Entry::Joined { node, nonce, replaces: self.life(node) });
                self.deliver_rows_to(node);
            }
            Kind::Time => self.pass(Duration::from_millis(1 + step.pick as u64 % 250)),
            Kind::Unreachable if node != other => self.set_reachable(node, other, false),
            Kind::Reachable if node != other => self.set_reachable(node, other, true),
            Kind::Quiesce if node != other => self.quiesce(node, other),
            Kind::GiveUp => self.give_up(node),
            Kind::Prefer => self.feed(node, Input::Prefer(if node == other { Vec::new() } else { vec![other] })),
            Kind::Lease => self.set_lease(node, !self.nodes[&node].lease),
            Kind::Settle => self.settle(),
            Kind::Unreachable | Kind::Reachable | Kind::Quiesce => {}
        }
        self.check();
    }

    fn step_frame(&mut self, kind: Kind, pick: usize) {
        let links: Vec<_> = self.links.iter().filter(|(_, l)| !l.is_empty()).map(|(k, l)| (*k, l.len())).collect();
        if links.is_empty() {
            return;
        }
        let (link, length) = links[pick % links.len()];
        let index = (pick / links.len()) % length;
        match kind {
            Kind::Link => self.deliver_link(link),
            Kind::Overtake => self.deliver_frame(link, index),
            Kind::Double => {
                let packet = self.links[&link][index].clone();
                self.receive(&packet);
            }
            Kind::Lose => _ = self.links.get_mut(&link).and_then(|l| l.remove(index)),
            _ => self.deliver_frame(link, 0),
        }
    }

    /// Changes a byte of a frame under way.
    pub fn spoil(&mut self, pick: usize, at: usize, byte: u8) {
        let mut frames: Vec<_> = self.links.values_mut().flatten().collect();
        if let Some(index) = pick.checked_rem(frames.len()) {
            let bytes = &mut frames[index].bytes;
            let at = at % bytes.len();
            bytes[at] = byte;
        }
    }

    fn step_client(&mut self, kind: Kind, pick: usize) {
        let actives = self.actives();
        if actives.is_empty() {
            return;
        }
        let (node, _) = actives[pick % actives.len()];
        match kind {
            Kind::Read => _ = self.read(node),
            Kind::Retry if self.requests > 0 => {
                let back = u16::try_from(pick / actives.len() % 4).unwrap_or_default();
                self.write_request(node, self.requests.saturating_sub(back).max(1), Level::default());
            }
            Kind::WriteAsync => {
                self.requests += 1;
                self.write_request(node, self.requests, Level::Async);
            }
            _ => _ = self.write(node),
        }
    }

    fn step_start(&mut self) {
        let row = self.row();
        let complete = row.in_sync.iter().any(|m| self.domain.is_current(*m));
        let active = row.active.is_some_and(|m| self.domain.is_current(m));
        if !complete && !active {
            self.propose_start();
        }
    }

    /// A new life; it becomes one when the entry is committed.
    pub fn restart(&mut self, node: NodeId) {
        let waiting = self.proposals.iter().any(|e| matches!(e, Entry::Joined { node: n, .. } if *n == node));
        if self.nodes[&node].copy.is_none() && !waiting {
            let nonce = self.domain.applied.0;
            self.proposals.push_back(Entry::Joined { node, nonce, replaces: self.life(node) });
        }
    }

    fn life(&self, node: NodeId) -> Incarnation {
        self.domain.member(node).map_or(Incarnation(0), |m| m.incarnation)
    }

    fn give_up(&mut self, node: NodeId) {
        let Some(version) = self.nodes[&node].quiesced else { return };
        let me = self.member(node);
        self.propose(Entry::Switchover { group: group(), version, by: me, to: me });
    }

    /// Ends all trouble: everybody is up, everything arrives, and what must happen for a working group is proposed.
    /// Returns whether a new write was acknowledged in the end, with every wanted copy in sync and equal.
    pub fn heal(&mut self) -> bool {
        const ROUNDS: usize = 60;
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        for round in 0..ROUNDS {
            for node in &nodes {
                self.restart(*node);
                nodes.iter().filter(|o| *o != node).for_each(|o| self.set_reachable(*node, *o, true));
                self.feed(*node, Input::Prefer(Vec::new()));
                self.give_up(*node);
            }
            self.settle();
            self.step_start();
            if self.active().is_none() && round % 2 == 1 {
                nodes.iter().for_each(|n| self.propose_takeover(*n));
            }
            self.settle();
            if let Some(active) = self.active() {
                self.set_lease(active, true);
            }
            self.pass(Duration::from_millis(60));
            self.settle();
        }
        let wanted = usize::from(self.config.copies).min(nodes.len());
        let Some(active) = self.active() else { return false };
        let request = self.write(active);
        self.settle();
        self.pass(Duration::from_millis(60));
        self.settle();
        self.row().epoch > Epoch(0)
            && self.row().in_sync.len() >= wanted
            && self.oracle.known().any(|r| r == request)
            && nodes.iter().all(|n| self.applied(*n) == self.applied(active))
            && nodes.iter().all(|n| self.mirror_is_true(*n, active))
    }

    /// Whether an application's memory equals its copy. The active's application has its own writes from itself.
    fn mirror_is_true(&self, node: NodeId, active: NodeId) -> bool {
        let Some(copy) = &self.nodes[&node].copy else { return false };
        let mirror = &self.nodes[&node].mirror;
        let equal = |(key, section): (&crate::Bytes, &crate::Section)| mirror.get(key) == Some(&section.bytes);
        node == active || copy.state().len() == mirror.len() && copy.state().iter().all(equal)
    }
}
