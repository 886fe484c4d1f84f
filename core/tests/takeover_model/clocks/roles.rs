//! Entries of the control log, and nodes that stop and start.

use super::super::law::{B, NODES, Op, VOTERS, Who, Why, small};
use super::{Clocks, HOLDERS, Said, State, Step};

impl Clocks {
    /// Everything that commits an entry, and a node's applying of the next.
    pub(super) fn entries(&mut self, s: &State, out: &mut Vec<(Step, State)>) {
        for node in VOTERS {
            if s.applied[node] < self.law.len(s.head) {
                let mut next = s.clone();
                self.apply_next(&mut next, node);
                out.push((Step::Apply { node }, next));
            }
        }
        let room = self.law.len(s.head) - self.law.len(self.first) < self.rules.bounds.entries;
        for holder in 0..HOLDERS {
            for group in 0..self.rules.bounds.groups {
                if room {
                    self.takeover(s, holder, group, out);
                    self.switchover(s, holder, group, out);
                    self.grow(s, holder, group, out);
                }
                self.relinquish(s, holder, group, out);
            }
            if room {
                self.confirm(s, holder, out);
            }
        }
        if room {
            self.joins(s, out);
        }
    }

    fn commit(&mut self, s: &State, op: Op, step: Step, out: &mut Vec<(Step, State)>) {
        if let Some(head) = self.law.append(s.head, op) {
            out.push((step, State { head, ..s.clone() }));
        }
    }

    fn apply_next(&self, s: &mut State, node: usize) {
        s.applied[node] += 1;
        let index = s.applied[node];
        let op = self.law.op(s.head, index);
        if matches!(op, Op::Joined { node: n, nonce, .. } if usize::from(n) == node && nonce == s.process[node]) && s.life[node] == 0 {
            s.life[node] = index;
        }
        let since = self.law.view(s.head, index).since;
        for (target, since) in since.into_iter().enumerate().take(HOLDERS) {
            let about_it = matches!(op, Op::Takeover { .. }) && self.law.view(s.head, index).about[target] == index;
            if s.released[node][target] != since || (self.rules.takeover_ends_release && about_it) {
                s.released[node][target] = 0;
            }
        }
        let promoted = match op {
            Op::Takeover { to, .. } | Op::Switchover { to, .. } => Some(to),
            _ => None,
        };
        if self.rules.opens_at_commit && node < HOLDERS && promoted == Some(Self::who(s, node)) {
            s.lease[node] = self.lease;
        }
    }

    /// Rule 1.4, with whatever evidence there is: a relinquishing, or all the releases that were said.
    fn takeover(&mut self, s: &State, by: usize, group: usize, out: &mut Vec<(Step, State)>) {
        let row = self.view(s, by).rows[group];
        let Some(old) = row.active else { return };
        if !self.lives(s, by) || usize::from(old.node) == by || (self.rules.mute.is_some() && by != B) {
            return;
        }
        let target = usize::from(old.node);
        let said = VOTERS.map(|v| s.said[v][target]);
        let counted = said.iter().filter(|r| r.voter != 0).count();
        let own_check_left_out = self.rules.own_release.is_some() || self.rules.any_voter_life || self.rules.any_since;
        let given_up = s.gave_up[target][group] == row.epoch;
        let why = if given_up || (own_check_left_out && counted >= 2) {
            Why::Relinquished { by: old, epoch: row.epoch }
        } else {
            Why::Released { target: old, said: said.map(|Said { voter, since, .. }| (voter, since)) }
        };
        let op = Op::Takeover { group: small(group), version: row.version, to: Self::who(s, by), why };
        self.commit(s, op, Step::Takeover { by, group }, out);
    }

    /// Rule 1.6: the active, who has relinquished, names its successor, or itself to give up.
    fn switchover(&mut self, s: &State, by: usize, group: usize, out: &mut Vec<(Step, State)>) {
        let view = *self.view(s, by);
        let row = view.rows[group];
        let gave_up = s.gave_up[by][group] == row.epoch || !self.rules.relinquish_first;
        if !self.lives(s, by) || row.active != Some(Self::who(s, by)) || !gave_up {
            return;
        }
        for to in 0..HOLDERS {
            let who = Who { node: small(to), life: view.life[to] };
            let op = Op::Switchover { group: small(group), version: row.version, by: Self::who(s, by), to: who };
            self.commit(s, op, Step::Switchover { by, group, to }, out);
        }
    }

    /// The active lists both data nodes again.
    fn grow(&mut self, s: &State, by: usize, group: usize, out: &mut Vec<(Step, State)>) {
        let view = *self.view(s, by);
        let row = view.rows[group];
        let mut set = [0; NODES];
        set[..HOLDERS].copy_from_slice(&view.life[..HOLDERS]);
        if self.lives(s, by) && row.active == Some(Self::who(s, by)) && row.set != set {
            let op = Op::Sync { group: small(group), version: row.version, by: Self::who(s, by), set };
            self.commit(s, op, Step::Grow { by, group }, out);
        }
    }

    /// Rules 3.5 and 1.6.
    fn relinquish(&self, s: &State, holder: usize, group: usize, out: &mut Vec<(Step, State)>) {
        let epoch = self.view(s, holder).rows[group].epoch;
        if s.relinquishes > 0 && self.speaks(s, holder, group) && s.gave_up[holder][group] != epoch {
            let mut next = s.clone();
            next.relinquishes -= 1;
            next.gave_up[holder][group] = epoch;
            out.push((Step::Relinquish { holder, group }, next));
        }
        if self.rules.reopens && s.gave_up[holder][group] == epoch && !s.reopened[holder][group] {
            let mut next = s.clone();
            next.reopened[holder][group] = true;
            out.push((Step::Reopen { holder, group }, next));
        }
    }

    /// Rule 3.4: a node that was released and came back in time.
    fn confirm(&mut self, s: &State, node: usize, out: &mut Vec<(Step, State)>) {
        let latest = *self.law.latest(s.head);
        let released = VOTERS.iter().any(|v| s.released[*v][node] == latest.since[node]);
        if s.confirms > 0 && released && s.life[node] == latest.life[node] {
            let who = Who { node: small(node), life: latest.life[node] };
            let from = out.len();
            self.commit(s, Op::Confirm { who, since: latest.since[node] }, Step::Confirm { node }, out);
            out[from..].iter_mut().for_each(|(_, next)| next.confirms -= 1);
        }
    }

    /// A process ends, whenever it may be, and the next one starts: what was in memory is gone, the log is not.
    pub(super) fn restarts(&self, s: &State, out: &mut Vec<(Step, State)>) {
        for node in VOTERS {
            if s.restarts > 0 {
                let mut next = s.clone();
                next.restarts -= 1;
                self.start_again(&mut next, node);
                out.push((Step::Restart { node }, next));
            }
            let process = usize::from(s.process[node]);
            if s.life[node] == 0 && s.joins[node][process] == 0 {
                let mut next = s.clone();
                next.joins[node][process] = self.view(s, node).life[node] + 1;
                out.push((Step::Rejoin { node }, next));
            }
        }
    }

    fn start_again(&self, s: &mut State, node: usize) {
        if node < HOLDERS {
            if !self.rules.starts_clean && self.is_open(s, node, 0) {
                s.ghost[node] = s.lease[node];
            }
            s.lease[node] = 0;
            s.gate[node] = 0;
            s.reckoned[node] = 0;
            s.asked[node] = 0;
            s.reopened[node] = [false; 2];
            for voter in VOTERS {
                s.echo[voter][node] = 0;
            }
        }
        s.process[node] += 1;
        s.life[node] = if self.rules.joins_first { 0 } else { self.view(s, node).life[node] };
        s.promise[node] = [0; HOLDERS];
        s.released[node] = [0; HOLDERS];
        s.wait[node] = if self.rules.wait_after_start { self.promise } else { 0 };
        s.joins[node][usize::from(s.process[node])] = self.view(s, node).life[node] + 1;
    }

    /// A `Joined` under way is committed, if it names no life to replace however late.
    fn joins(&mut self, s: &State, out: &mut Vec<(Step, State)>) {
        for node in VOTERS {
            for process in 0..s.joins[node].len() {
                let replaces = s.joins[node][process];
                if replaces != 0 {
                    let op = Op::Joined { node: small(node), nonce: small(process), replaces: replaces - 1 };
                    self.commit(s, op, Step::JoinCommits { node, process }, out);
                }
            }
        }
    }
}
