//! Clients, replication, reports.

use super::super::law::Lives;
use super::{Align, Copies, Harm, NODE, RECORDS, Row, State, Step, bit};

impl Copies {
    /// Rules 2.1 and 2.2: what clients ask of a node that holds itself for the active.
    pub(super) fn clients(&self, s: &State, at: usize, out: &mut Vec<(Step, State)>) {
        if !self.serves(s, at) {
            return;
        }
        let node = &s.nodes[at];
        let takes = node.quiesced_at == 0 && usize::from(node.len()) < RECORDS;
        if takes && s.issued < self.rules.bounds.writes {
            let mut next = s.clone();
            next.issued += 1;
            next.nodes[at].push(next.issued);
            out.push((Step::Write { at, request: next.issued }, next));
        }
        for request in 1..=s.issued {
            let is_there = node.requests() & bit(request) != 0;
            if takes && s.repeats > 0 {
                let mut next = s.clone();
                next.repeats -= 1;
                if !is_there || self.rules.repeat_again {
                    next.nodes[at].push(request);
                } else if self.rules.retry_at_once {
                    next.acknowledged |= bit(request);
                }
                out.push((Step::Repeat { at, request }, next));
            }
            if is_there && s.acknowledged & bit(request) == 0 && self.may_acknowledge(s, at, request) {
                let mut next = s.clone();
                next.acknowledged |= bit(request);
                out.push((Step::Acknowledge { by: at, request }, next));
            }
        }
        if s.reads > 0 && self.may_read(s, at) {
            let mut next = s.clone();
            next.reads -= 1;
            if s.acknowledged & !node.requests() != 0 {
                next.harm = Some(Harm::OldRead);
            }
            next.shown |= node.requests();
            out.push((Step::Read { at }, next));
        }
    }

    fn may_acknowledge(&self, s: &State, at: usize, request: u8) -> bool {
        let node = &s.nodes[at];
        let record = node.copy.iter().position(|r| *r == request).expect("the caller looked");
        let committed = self.row(s, at).set;
        let is_enough = !self.rules.floor_two || committed.iter().filter(|life| **life != 0).count() >= 2;
        is_enough && self.is_counted(s, at, record + 1)
    }

    /// Every member of the committed set and of every open proposal has reported the first `records`.
    fn is_counted(&self, s: &State, at: usize, records: usize) -> bool {
        let open = s.nodes[at].proposed.iter().map(|(set, _)| set).filter(|set| **set != Lives::default());
        let committed = self.row(s, at).set;
        let has = |set: &Lives| self.set_has(s, at, set, records);
        if self.rules.any_set_counts {
            has(&committed) || open.into_iter().any(has)
        } else if self.rules.larger_after_commit {
            has(&committed)
        } else {
            has(&committed) && open.into_iter().all(has)
        }
    }

    fn set_has(&self, s: &State, at: usize, set: &Lives, records: usize) -> bool {
        self.slots().all(|m| {
            let (life, cursor) = s.nodes[at].reports[m];
            let is_same = life == set[NODE[m]] || self.rules.reports_without_life;
            set[NODE[m]] == 0 || m == at || (is_same && usize::from(cursor) >= records)
        })
    }

    /// A fresh read shows what is counted and asks every member whether it has seen a higher epoch.
    fn may_read(&self, s: &State, at: usize) -> bool {
        let row = self.row(s, at);
        let proposed = s.nodes[at].proposed;
        let listed = |m: usize, life: u8| row.set[NODE[m]] == life || proposed.iter().any(|(set, _)| set[NODE[m]] == life);
        let is_member = |m: usize| row.set[NODE[m]] != 0 || proposed.iter().any(|(set, _)| set[NODE[m]] != 0);
        let confirms = |m: usize| s.nodes[m].life != 0 && listed(m, s.nodes[m].life) && s.nodes[m].seen <= row.epoch;
        let asked = self.rules.read_unasked || self.slots().all(|m| m == at || !is_member(m) || confirms(m));
        asked && (self.rules.read_uncounted || self.is_counted(s, at, s.nodes[at].len().into()))
    }

    /// Rules 2.4 to 2.6: `at` as the active sends to and hears from the others.
    pub(super) fn replication(&self, s: &State, at: usize, out: &mut Vec<(Step, State)>) {
        if !self.serves(s, at) {
            return;
        }
        let epoch = self.row(s, at).epoch;
        for to in self.slots().filter(|m| *m != at && s.nodes[*m].life != 0) {
            let replica = &s.nodes[to];
            let is_late = replica.seen > epoch;
            if !is_late || self.rules.old_epoch_accepted {
                let mut next = s.clone();
                if self.receive(&mut next, at, to, epoch) {
                    out.push((Step::Replicate { from: at, to }, next));
                }
            }
            let may_report = (replica.aligned == epoch && !is_late)
                || (self.rules.old_cursor_counts && replica.aligned < epoch)
                || (self.rules.old_epoch_accepted && is_late);
            let report = (replica.life, replica.len());
            if may_report && s.nodes[at].reports[to] != report {
                let mut next = s.clone();
                next.nodes[at].reports[to] = report;
                out.push((Step::Report { from: to, to: at }, next));
            }
        }
    }

    /// The replica is aligned, or takes the next record; false if nothing changes.
    fn receive(&self, s: &mut State, from: usize, to: usize, epoch: u8) -> bool {
        let active = s.nodes[from];
        let replica = &mut s.nodes[to];
        let has_seen = replica.seen;
        replica.seen = epoch.max(has_seen);
        if has_seen <= epoch && replica.aligned != epoch {
            match self.rules.align {
                Align::Whole => replica.copy = active.copy,
                Align::BySequence => replica.copy[usize::from(active.len())..].fill(0),
                Align::InPlace if replica.len() > 0 => {
                    replica.copy = Default::default();
                    replica.aligned = 0;
                    return true;
                }
                Align::InPlace => replica.copy = active.copy,
            }
            replica.aligned = epoch;
            replica.complete = true;
            return true;
        }
        let at = usize::from(replica.len());
        let is_new = at < usize::from(active.len());
        if is_new {
            replica.copy[at] = active.copy[at];
        }
        is_new || has_seen != replica.seen
    }

    /// Takes in what the log says; drops what only an earlier epoch or version could use.
    pub(super) fn learn(&self, s: &mut State, at: usize, before: Row, after: Row) {
        let me = Self::who(s, at);
        let node = &mut s.nodes[at];
        node.seen = node.seen.max(after.epoch);
        if after.version > before.version {
            node.quiesced_at = 0;
        }
        if after.version > node.proposed_at {
            node.proposed = Default::default();
            node.proposed_at = 0;
            node.switches = (0, 0);
        }
        if after.epoch == before.epoch {
            return;
        }
        node.reports = Default::default();
        let was_active = before.active == Some(me);
        if after.active == Some(me) {
            node.aligned = after.epoch;
            node.complete = true;
        } else if was_active && self.rules.demoted_discards {
            node.copy = Default::default();
            node.aligned = 0;
        } else if was_active && self.rules.old_trusted && after.set[usize::from(me.node)] == me.life {
            node.aligned = after.epoch;
        }
    }
}
