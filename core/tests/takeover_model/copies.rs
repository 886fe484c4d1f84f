//! Layer one: writes, copies and roles without any clock (protocol 1 and 2).
//!
//! Two or three data nodes and one group. The control log is a sequence of committed entries that each node applies at its
//! own pace; a takeover may be asked for at any moment, for no clock is trusted here: evidence is always at hand.
//! Nobody is told that it is no longer the active: it goes on until its own log or a message tells it. A message that is late is
//! one that its sender, slow to learn, sends late; what a dead sender left under way is not modelled, apart from its proposals.

mod data;
mod entries;

use super::explorer::Model;
use super::law::{A, B, Broken, C, Head, Law, Lives, NODES, Row, W, Who, small};

/// Data nodes A, B, C by slot; the law numbers nodes with the witness between.
pub(crate) const SLOTS: usize = 3;
const NODE: [usize; SLOTS] = [A, B, C];
/// Records in a copy at most.
const RECORDS: usize = 4;

/// The rules of the page, each of which can be broken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) broken: Broken,
    /// A proposed set counts instead of the committed one, not besides it.
    pub(crate) any_set_counts: bool,
    /// A takeover is applied as it was proposed, whatever has been committed since.
    pub(crate) takeover_as_proposed: bool,
    /// What a newcomer must have.
    pub(crate) newcomer: Newcomer,
    /// A proposed larger set counts only once its commit is known.
    pub(crate) larger_after_commit: bool,
    /// An aligned newcomer lists itself.
    pub(crate) lists_itself: bool,
    /// Who restarts takes its node's name in the log for its own.
    pub(crate) own_name_only: bool,
    /// Reports bear no incarnation.
    pub(crate) reports_without_life: bool,
    /// Replicas take writes of an older epoch.
    pub(crate) old_epoch_accepted: bool,
    /// A cursor reported under an older epoch counts.
    pub(crate) old_cursor_counts: bool,
    /// How a replica is aligned at a new epoch.
    pub(crate) align: Align,
    /// The answer to a retry of what is there already does not wait.
    pub(crate) retry_at_once: bool,
    /// A repeat is applied again.
    pub(crate) repeat_again: bool,
    /// A read shows what is not counted yet.
    pub(crate) read_uncounted: bool,
    /// A read asks nobody.
    pub(crate) read_unasked: bool,
    /// A switchover waits until the target has everything.
    pub(crate) drained: bool,
    /// After a switchover the old active counts as aligned.
    pub(crate) old_trusted: bool,
    /// A quiesced active takes writes again although its proposal may still be committed.
    pub(crate) resumes: bool,
    /// Which copy a start from nothing takes.
    pub(crate) start: Start,
    /// Losing the active role throws the copy away.
    pub(crate) demoted_discards: bool,
    /// Anybody may ask for a takeover by a member.
    pub(crate) asked_by_others: bool,
    /// Begin where a dead process has been promoted, and see whether anybody can ever serve again.
    pub(crate) after_the_dead: bool,
    /// Only this harm counts; else the first of all.
    pub(crate) looks_for: Option<Harm>,
    /// Writes are acknowledged only with two members.
    pub(crate) floor_two: bool,
    pub(crate) bounds: Bounds,
}

/// What a newcomer has to have reported before it is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Newcomer {
    /// The active's head.
    Head,
    /// What the active has acknowledged.
    Acknowledged,
    /// Anything.
    Anything,
}

/// How a replica comes to equal its new active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// The new copy is complete before it replaces the old one.
    Whole,
    /// It keeps what has the same sequence numbers.
    BySequence,
    /// The old copy is emptied first, then filled.
    InPlace,
}

/// Which copy may be started from when no member is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// The best of all, and all are fenced by their offers.
    Best,
    /// Any of all.
    Any,
    /// Any, and nobody was asked.
    Unasked,
}

/// What is explored at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) nodes: usize,
    pub(crate) entries: u8,
    pub(crate) writes: u8,
    pub(crate) repeats: u8,
    pub(crate) reads: u8,
    pub(crate) crashes: u8,
    pub(crate) quiesces: u8,
}

impl Rules {
    pub(crate) const PAGE: Self = Self {
        broken: super::law::WHOLE,
        any_set_counts: false,
        takeover_as_proposed: false,
        newcomer: Newcomer::Head,
        larger_after_commit: false,
        lists_itself: false,
        own_name_only: false,
        reports_without_life: false,
        old_epoch_accepted: false,
        old_cursor_counts: false,
        align: Align::Whole,
        retry_at_once: false,
        repeat_again: false,
        read_uncounted: false,
        read_unasked: false,
        drained: true,
        old_trusted: false,
        resumes: false,
        start: Start::Best,
        demoted_discards: false,
        asked_by_others: false,
        after_the_dead: false,
        looks_for: None,
        floor_two: false,
        bounds: Bounds { nodes: 2, entries: 3, writes: 2, repeats: 0, reads: 0, crashes: 0, quiesces: 0 },
    };
}

/// What can happen. Nodes by slot: A 0, B 1, C 2; writes by the number of their request.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "read by Debug, in traces")]
pub(crate) enum Step {
    Write { at: usize, request: u8 },
    Repeat { at: usize, request: u8 },
    Replicate { from: usize, to: usize },
    Report { from: usize, to: usize },
    Acknowledge { by: usize, request: u8 },
    Read { at: usize },
    Apply { at: usize },
    Takeover { by: usize },
    Propose { by: usize, set: Lives },
    CommitSet { of: usize },
    ListItself { at: usize },
    Quiesce { at: usize },
    Resume { at: usize },
    ProposeSwitch { by: usize, to: usize },
    CommitSwitch { of: usize },
    Start { at: usize },
    Crash { at: usize },
    Join { at: usize },
}

/// What must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Harm {
    /// The epoch's active serves without something that was acknowledged or shown.
    ActiveLacks,
    /// A member in its present life lacks such a thing.
    MemberLacks,
    /// One request is in the state twice.
    Twice,
    /// A read that is said to be fresh misses what was acknowledged.
    OldRead,
    /// A start took a copy that lacks what another had.
    StartLost,
    /// Who was promoted is gone.
    PromotedDead,
    /// Acknowledged by two, one crash, and nobody has it.
    LostByOneCrash,
    /// No harm: somebody serves.
    Serves,
}

/// One data node.
#[derive(Clone, Copy, Debug, Default, Hash)]
struct Node {
    applied: u8,
    process: u8,
    life: u8,
    /// Requests in the order of the copy.
    copy: [u8; RECORDS],
    /// The highest epoch seen, in the log or in a message.
    seen: u8,
    /// The epoch under which the copy equals the active's up to its cursor.
    aligned: u8,
    /// Was complete once.
    complete: bool,
    /// What the others have reported under this node's epoch: life and cursor.
    reports: [(u8, u8); SLOTS],
    /// Sets proposed at `proposed_at` whose outcome is not known to this node, and whether they may still be committed.
    proposed: [(Lives, bool); 2],
    proposed_at: u8,
    /// Takes no writes under this version.
    quiesced_at: u8,
    /// Successors that this node has proposed at that version, bit by slot; and those proposals that may still be committed.
    switches: (u8, u8),
}

/// Everything that the future depends on.
#[derive(Clone, Debug, Hash)]
pub(crate) struct State {
    head: Head,
    nodes: [Node; SLOTS],
    issued: u8,
    acknowledged: u8,
    shown: u8,
    repeats: u8,
    reads: u8,
    crashes: u8,
    quiesces: u8,
    harm: Option<Harm>,
}

/// The model: rules and the tree of logs.
pub(crate) struct Copies {
    rules: Rules,
    law: Law,
    first: Head,
}

impl Copies {
    pub(crate) fn new(rules: Rules) -> Self {
        let (law, first) = Law::new(&NODE[..rules.bounds.nodes], 1, rules.broken);
        Self { rules, law, first }
    }

    /// How many different control logs were met.
    pub(crate) fn logs(&self) -> usize {
        self.law.logs()
    }

    fn slots(&self) -> std::ops::Range<usize> {
        0..self.rules.bounds.nodes
    }

    fn row(&self, s: &State, at: usize) -> &Row {
        &self.law.view(s.head, s.nodes[at].applied).rows[0]
    }

    fn life_in_view(&self, s: &State, at: usize, of: usize) -> u8 {
        self.law.view(s.head, s.nodes[at].applied).life[NODE[of]]
    }

    fn who(s: &State, at: usize) -> Who {
        Who { node: small(NODE[at]), life: s.nodes[at].life }
    }

    /// The process is in a life that its own view of the log still counts.
    fn lives(&self, s: &State, at: usize) -> bool {
        s.nodes[at].life != 0 && self.life_in_view(s, at, at) == s.nodes[at].life
    }

    /// The node holds itself for the active and has seen no higher epoch.
    fn serves(&self, s: &State, at: usize) -> bool {
        let row = self.row(s, at);
        let Some(active) = row.active else { return false };
        let is_me = if self.rules.own_name_only { usize::from(active.node) == NODE[at] } else { active == Self::who(s, at) };
        is_me && (self.lives(s, at) || self.rules.own_name_only) && s.nodes[at].seen == row.epoch
    }

    fn room(&self, s: &State) -> bool {
        self.law.len(s.head) - self.law.len(self.first) < self.rules.bounds.entries
    }

    /// What is wrong with the state as it is.
    fn lacks(&self, s: &State) -> impl Iterator<Item = Harm> {
        let row = self.law.latest(s.head).rows[0];
        let needed = s.acknowledged | s.shown;
        let crashes = self.rules.bounds.crashes - s.crashes;
        let held = self.slots().fold(0, |held, at| held | s.nodes[at].requests());
        let is_lost = self.rules.floor_two && crashes <= 1 && s.acknowledged & !held != 0;
        let of_nodes = self.slots().flat_map(move |at| {
            let node = &s.nodes[at];
            let lacks = needed & !node.requests() != 0;
            let is_active = row.active.is_some_and(|a| usize::from(a.node) == NODE[at]);
            let serves = is_active && self.serves(s, at) && self.row(s, at).epoch == row.epoch;
            let is_member = node.life != 0 && row.set[NODE[at]] == node.life;
            [
                (serves && lacks).then_some(Harm::ActiveLacks),
                (serves && node.has_doubles()).then_some(Harm::Twice),
                (is_member && lacks).then_some(Harm::MemberLacks),
            ]
        });
        of_nodes.flatten().chain(is_lost.then_some(Harm::LostByOneCrash))
    }
}

impl Node {
    fn len(&self) -> u8 {
        small(self.copy.iter().take_while(|r| **r != 0).count())
    }

    /// Bit by request.
    fn requests(&self) -> u8 {
        self.copy.iter().filter(|r| **r != 0).fold(0, |bits, r| bits | bit(*r))
    }

    fn has_doubles(&self) -> bool {
        self.requests().count_ones() < self.len().into()
    }

    fn push(&mut self, request: u8) {
        let at = usize::from(self.len());
        self.copy[at] = request;
    }
}

fn bit(request: u8) -> u8 {
    1 << request
}

impl Model for Copies {
    type State = State;
    type Step = Step;
    type Harm = Harm;

    fn initial(&mut self) -> State {
        let view = *self.law.latest(self.first);
        let mut nodes = [Node::default(); SLOTS];
        for at in self.slots() {
            let life = view.life[NODE[at]];
            nodes[at] = Node { applied: self.law.len(self.first), life, seen: 1, aligned: 1, complete: true, ..Node::default() };
        }
        for at in self.slots().skip(1) {
            nodes[0].reports[at] = (nodes[at].life, 0);
        }
        debug_assert_eq!(NODES, SLOTS + 1, "the witness {W} has no copy");
        let b = self.rules.bounds;
        let s = State {
            head: self.first,
            nodes,
            issued: 0,
            acknowledged: 0,
            shown: 0,
            repeats: b.repeats,
            reads: b.reads,
            crashes: b.crashes,
            quiesces: b.quiesces,
            harm: None,
        };
        if self.rules.after_the_dead { self.promote_the_dead(s) } else { s }
    }

    fn steps(&mut self, s: &State, out: &mut Vec<(Step, State)>) {
        for at in self.slots() {
            self.clients(s, at, out);
            self.replication(s, at, out);
            self.log(s, at, out);
            if self.room(s) {
                self.roles(s, at, out);
            }
            self.proposals(s, at, out);
            self.crash(s, at, out);
        }
    }

    fn harm(&mut self, s: &State) -> Option<Harm> {
        if self.rules.after_the_dead {
            return self.slots().any(|at| self.serves(s, at) && self.row(s, at).epoch > 1).then_some(Harm::Serves);
        }
        match self.rules.looks_for {
            None => s.harm.or_else(|| self.lacks(s).next()),
            Some(harm) => (s.harm == Some(harm) || self.lacks(s).any(|found| found == harm)).then_some(harm),
        }
    }
}
