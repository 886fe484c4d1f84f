//! Entries of the control log, crashes and new lives.

use super::super::law::{Lives, Op, VOTERS, W, Who, Why, small};
use super::{Copies, Harm, NODE, Newcomer, Node, Start, State, Step};

impl Copies {
    /// The node applies the next entry.
    pub(super) fn log(&self, s: &State, at: usize, out: &mut Vec<(Step, State)>) {
        if s.nodes[at].applied == self.law.len(s.head) {
            return;
        }
        let mut next = s.clone();
        let before = *self.row(s, at);
        next.nodes[at].applied += 1;
        let index = next.nodes[at].applied;
        let node = &mut next.nodes[at];
        let op = self.law.op(s.head, index);
        if matches!(op, Op::Joined { node: n, nonce, .. } if usize::from(n) == NODE[at] && nonce == node.process) && node.life == 0 {
            node.life = index;
        }
        let after = *self.row(&next, at);
        self.learn(&mut next, at, before, after);
        out.push((Step::Apply { at }, next));
    }

    /// What a node asks of the log and what is committed at once: nothing in between could change it but its being void.
    pub(super) fn roles(&mut self, s: &State, at: usize, out: &mut Vec<(Step, State)>) {
        self.takeover(s, at, out);
        self.list_itself(s, at, out);
        self.start(s, at, out);
        let node = &s.nodes[at];
        if node.life == 0 {
            let op = Op::Joined { node: small(NODE[at]), nonce: node.process, replaces: self.life_in_view(s, at, at) };
            if let Some(head) = self.law.append(s.head, op) {
                out.push((Step::Join { at }, State { head, ..s.clone() }));
            }
        }
    }

    /// Rule 1.4.
    fn takeover(&mut self, s: &State, by: usize, out: &mut Vec<(Step, State)>) {
        let row = *self.row(s, by);
        let listed = Who { node: small(NODE[by]), life: row.set[NODE[by]] };
        let to = if self.rules.asked_by_others { listed } else { Self::who(s, by) };
        let Some(old) = row.active.filter(|old| *old != to) else { return };
        let may_ask = self.lives(s, by) || (self.rules.asked_by_others && listed.life != 0);
        if !may_ask || (self.rules.takeover_as_proposed && listed != to) {
            return;
        }
        let latest = *self.law.latest(s.head);
        let target = usize::from(old.node);
        let mut said = [(0, 0); 3];
        for voter in VOTERS.into_iter().filter(|v| *v != target) {
            said[voter] = (latest.life[voter], latest.since[target]);
        }
        let op = Op::Takeover { group: 0, version: row.version, to, why: Why::Released { target: old, said } };
        if let Some(head) = self.law.append(s.head, op) {
            let harm = (to != Self::who(s, by)).then_some(Harm::PromotedDead);
            out.push((Step::Takeover { by }, State { head, harm, ..s.clone() }));
        }
    }

    fn list_itself(&mut self, s: &State, at: usize, out: &mut Vec<(Step, State)>) {
        let row = *self.row(s, at);
        let is_out = row.set[NODE[at]] != s.nodes[at].life;
        if self.rules.lists_itself && self.lives(s, at) && is_out && s.nodes[at].aligned == row.epoch {
            let mut set = row.set;
            set[NODE[at]] = s.nodes[at].life;
            let op = Op::Sync { group: 0, version: row.version, by: Self::who(s, at), set };
            if let Some(head) = self.law.append(s.head, op) {
                out.push((Step::ListItself { at }, State { head, ..s.clone() }));
            }
        }
    }

    /// Rule 1.7.
    fn start(&mut self, s: &State, at: usize, out: &mut Vec<(Step, State)>) {
        let latest = *self.law.latest(s.head);
        let row = latest.rows[0];
        let rank = |n: &Node| (n.complete, n.aligned, n.len());
        let is_best = self.slots().all(|m| rank(&s.nodes[m]) <= rank(&s.nodes[at]));
        let all_there = self.slots().all(|m| s.nodes[m].life != 0 && s.nodes[m].life == latest.life[NODE[m]]);
        if !all_there || (self.rules.start == Start::Best && !is_best) {
            return;
        }
        let mut offers = latest.life;
        offers[W] = 0;
        let op = Op::Start { group: 0, version: row.version, to: Self::who(s, at), offers };
        let Some(head) = self.law.append(s.head, op) else { return };
        let mut next = State { head, ..s.clone() };
        let needed = s.acknowledged | s.shown;
        let has_all = |m: usize| needed & !s.nodes[m].requests() == 0;
        if self.rules.start != Start::Unasked {
            for m in self.slots() {
                next.nodes[m].seen = next.nodes[m].seen.max(row.epoch + 1);
            }
            if self.start_can_know() && !has_all(at) && self.slots().any(has_all) {
                next.harm = Some(Harm::StartLost);
            }
            // The gap is declared: from here on nobody counts on it.
            next.acknowledged &= s.nodes[at].requests();
            next.shown &= s.nodes[at].requests();
        }
        out.push((Step::Start { at }, next));
    }

    /// With three nodes and a floor of one, who was complete last may be gone, and one that was complete before may by chance have
    /// what the best of the rest has not: no order of copies tells. The gap is declared either way.
    fn start_can_know(&self) -> bool {
        self.rules.bounds.nodes == 2 || self.rules.floor_two || self.rules.looks_for == Some(Harm::StartLost)
    }

    /// What the active proposes, and proposals under way: their commit, however late, whatever has become of their sender.
    pub(super) fn proposals(&mut self, s: &State, at: usize, out: &mut Vec<(Step, State)>) {
        if self.serves(s, at) && self.lives(s, at) && self.room(s) {
            if s.nodes[at].quiesced_at == 0 {
                self.propose_sets(s, at, out);
            }
            self.quiesce(s, at, out);
        }
        let by = Who { node: small(NODE[at]), life: self.life_in_view(s, at, at) };
        for (i, (set, is_under_way)) in s.nodes[at].proposed.into_iter().enumerate() {
            if is_under_way && self.room(s) {
                let op = Op::Sync { group: 0, version: s.nodes[at].proposed_at, by, set };
                if let Some(head) = self.law.append(s.head, op) {
                    let mut next = State { head, ..s.clone() };
                    next.nodes[at].proposed[i].1 = false;
                    out.push((Step::CommitSet { of: at }, next));
                }
            }
        }
        for to in self.slots().filter(|to| s.nodes[at].switches.1 & 1 << to != 0) {
            let who = Who { node: small(NODE[to]), life: self.row(s, at).set[NODE[to]] };
            let op = Op::Switchover { group: 0, version: s.nodes[at].proposed_at, by, to: who };
            if let Some(head) = self.law.append(s.head, op).filter(|_| self.room(s)) {
                let mut next = State { head, ..s.clone() };
                next.nodes[at].switches.1 &= !(1 << to);
                out.push((Step::CommitSwitch { of: at }, next));
            }
        }
    }

    /// Rule 1.5: one member less, or one more that has what it must have.
    fn propose_sets(&self, s: &State, at: usize, out: &mut Vec<(Step, State)>) {
        let row = *self.row(s, at);
        let Some(free) = s.nodes[at].proposed.iter().position(|(set, _)| *set == Lives::default()) else { return };
        for m in self.slots().filter(|m| *m != at) {
            let mut set = row.set;
            if set[NODE[m]] != 0 {
                set[NODE[m]] = 0;
            } else {
                let life = self.life_in_view(s, at, m);
                let (reported_by, cursor) = s.nodes[at].reports[m];
                let is_it = reported_by == life || (self.rules.reports_without_life && reported_by != 0);
                if !is_it || cursor < self.needed_of_newcomer(s, at) {
                    continue;
                }
                set[NODE[m]] = life;
            }
            if s.nodes[at].proposed.iter().any(|(other, _)| *other == set) {
                continue;
            }
            let mut next = s.clone();
            next.nodes[at].proposed[free] = (set, true);
            next.nodes[at].proposed_at = row.version;
            out.push((Step::Propose { by: at, set }, next));
        }
    }

    fn needed_of_newcomer(&self, s: &State, at: usize) -> u8 {
        let node = &s.nodes[at];
        match self.rules.newcomer {
            Newcomer::Head => node.len(),
            Newcomer::Anything => 0,
            Newcomer::Acknowledged => {
                let last = node.copy.iter().rposition(|r| *r != 0 && s.acknowledged & super::bit(*r) != 0);
                last.map_or(0, |i| small(i + 1))
            }
        }
    }

    /// Rule 1.6. Whoever has proposed stays quiesced until a later version; to give up it proposes itself.
    fn quiesce(&self, s: &State, at: usize, out: &mut Vec<(Step, State)>) {
        let row = *self.row(s, at);
        let node = &s.nodes[at];
        let mut push = |step, change: &dyn Fn(&mut State)| {
            let mut next = s.clone();
            change(&mut next);
            out.push((step, next));
        };
        if node.quiesced_at == 0 {
            if s.quiesces > 0 {
                push(Step::Quiesce { at }, &|s| {
                    s.quiesces -= 1;
                    s.nodes[at].quiesced_at = row.version;
                });
            }
            return;
        }
        if node.switches.0 == 0 || self.rules.resumes {
            push(Step::Resume { at }, &|s| s.nodes[at].quiesced_at = 0);
        }
        for to in self.slots().filter(|m| row.set[NODE[*m]] != 0 && node.switches.0 & 1 << m == 0) {
            let has_all = to == at || node.reports[to] == (row.set[NODE[to]], node.len());
            if has_all || !self.rules.drained {
                push(Step::ProposeSwitch { by: at, to }, &|s| {
                    let node = &mut s.nodes[at];
                    node.switches = (node.switches.0 | 1 << to, node.switches.1 | 1 << to);
                    node.proposed_at = row.version;
                });
            }
        }
    }

    /// B is gone, nobody has noticed, and somebody names it for a takeover.
    pub(super) fn promote_the_dead(&mut self, mut s: State) -> State {
        let (mut out, b) = (Vec::new(), 1);
        s.crashes += 1;
        self.crash(&s, b, &mut out);
        let (_, crashed) = out.pop().expect("it can always crash");
        self.takeover(&crashed, b, &mut out);
        let (_, promoted) = out.pop().expect("the domain knows only what it was told");
        State { harm: None, ..promoted }
    }

    /// The process is gone and with it its memory; the next one begins with what its log says.
    pub(super) fn crash(&self, s: &State, at: usize, out: &mut Vec<(Step, State)>) {
        if s.crashes == 0 {
            return;
        }
        let mut next = s.clone();
        next.crashes -= 1;
        let old = s.nodes[at];
        // Its proposals are on their way; that it made them it has forgotten.
        next.nodes[at] = Node {
            applied: old.applied,
            process: old.process + 1,
            seen: self.row(s, at).epoch,
            proposed: old.proposed,
            proposed_at: old.proposed_at,
            switches: old.switches,
            ..Node::default()
        };
        out.push((Step::Crash { at }, next));
    }
}
