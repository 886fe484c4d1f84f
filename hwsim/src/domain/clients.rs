//! The clients outside: they call through the groups' addresses, as if they knew nothing of nodes.

use sixnines_core::ids::{Epoch, GroupName, NodeId};

use super::seeds::Stream;
use super::{Answer, Call, Happening, MS, SimInput, Truth, World};

/// A client: one request at a time, repeated until it is answered.
pub(super) struct Client {
    pub(super) group: GroupName,
    pub(super) next_request: u64,
    pub(super) open: Option<Call>,
    pub(super) random: Stream,
    /// Only the newest of its plans counts: an answer overtakes the repeat that was planned before.
    pub(super) turn: u64,
}

impl Client {
    fn ask(&mut self) {
        self.next_request += 1;
        let key = self.random.below(8);
        let value = (self.random.below(4) != 0).then_some(self.next_request);
        self.open = Some(Call { request: self.next_request, value, key });
    }
}

impl World {
    pub(super) fn answer(&mut self, node: NodeId, group: &GroupName, epoch: Epoch, answer: &Answer) {
        if !self.is_gate_open(node, group) {
            return; // the kernel drops it
        }
        self.trace.count(format_args!("{} {node} answers {answer:?} under {epoch}", self.now));
        self.judge.spoke(self.now, node, group, epoch);
        let asked_it = |c: &Client| c.group == *group && c.open.as_ref().is_some_and(|c| c.request == answer.request);
        let Some(client) = self.clients.iter().position(asked_it) else { return };
        self.judge.answered(self.now, group, answer);
        if self.judge.broken().is_some() {
            self.note(format!("{node} answers {answer:?} under {epoch}"));
        }
        self.clients[client].open = None;
        let pause = MS + self.clients[client].random.below(4 * MS);
        self.plan_call(client, self.now + pause);
    }

    pub(super) fn plan_call(&mut self, client: usize, at: Truth) {
        self.clients[client].turn += 1;
        let turn = self.clients[client].turn;
        self.schedule(at, Happening::CallAgain { client, turn });
    }

    /// A client's call reaches whoever speaks for the address; at the instant of a takeover that may be nobody.
    pub(super) fn call(&mut self, client: usize) {
        let is_repeat = self.clients[client].open.is_some();
        if !is_repeat {
            self.clients[client].ask();
        }
        let (group, call) = {
            let client = &self.clients[client];
            (client.group.clone(), client.open.clone().expect("just asked"))
        };
        if !is_repeat {
            self.judge.asked(&group, &call);
        }
        for node in self.nodes() {
            if self.is_gate_open(node, &group) && self.hosts[&node].paused_until <= self.now {
                self.step(node, SimInput::Call { group: group.clone(), call: call.clone() });
            }
        }
        if self.clients[client].open.is_some() {
            self.plan_call(client, self.now + CALL_AGAIN);
        }
    }
}

/// A client repeats an unanswered request after so long.
const CALL_AGAIN: Truth = 5 * MS;
