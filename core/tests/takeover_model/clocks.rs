//! Layer two: leases, promises, releases and the gate (protocol 3 and 4.1), in ticks of one true time.
//!
//! Three voters A, B and W; A and B hold leases, one for each node and all its groups, as in the product.
//! True time moves in ticks; everything else takes none. A slow clock makes a lease longer, a fast one a promise shorter:
//! [`Times::ticks`] takes the worst of both at once, which no real set of clocks can reach and which allows everything
//! that a real one allows. A node that is paused, cut off or dead is one that does nothing for a while: every step is
//! optional, so no state is spent on it.

mod grant;
mod roles;

use super::explorer::Model;
use super::law::{A, B, Broken, Head, Law, Said, View, Who, small};

/// Who can hold a lease.
pub(crate) const HOLDERS: usize = 2;
/// How many processes a node has in one run, one after another.
const PROCESSES: usize = 4;

/// L, P and G in units of a quarter tick, and how far clocks drift: a slow one counts 3 units in a tick, a fast one 5.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) lease: u8,
    pub(crate) promise: u8,
    pub(crate) late: u8,
    pub(crate) drift: bool,
}

impl Times {
    /// The least promise that the rule allows: `L (1 + d) / (1 - d)` with d = 1/4.
    pub(crate) const PAGE: Self = Self { lease: 12, promise: 20, late: 0, drift: true };
    /// True ticks of a lease held by a slow node, gate included, and of a promise given by a fast one.
    fn ticks(self) -> (u8, u8) {
        let (slow, fast) = if self.drift { (3, 5) } else { (4, 4) };
        ((self.lease).div_ceil(slow) + self.late, self.promise.div_ceil(fast))
    }
}

/// How the gate is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// In the kernel, with the lease's end as an absolute deadline.
    Absolute,
    /// In the kernel, armed with what was left when the daemon reckoned.
    Relative,
    /// The same; what is armed can only be extended while it lives.
    RelativeExtended,
    /// By the daemon, when it gets to it.
    Daemon,
}

/// Which voters wait for their own promise before they release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    Everyone,
    /// The data nodes, who propose; the witness follows at once.
    Proposer,
    Nobody,
}

/// How a holder that is silent frees the voters of their promises, and what can be wrong with that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renouncing {
    /// Its lease is over, its gate closed, and it counts no grant of what it has sent so far.
    Whole,
    /// Grants under way still count.
    KeepsGrants,
    /// It may speak for a while yet.
    Speaks,
    /// A voter takes it although it has granted something newer since.
    TakenLate,
}

/// The rules of the page, each of which can be broken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) times: Times,
    pub(crate) gate: Gate,
    pub(crate) waits: Waits,
    pub(crate) broken: Broken,
    /// Echoes take time; else they arrive at once, which lets a gate open as early as it ever can.
    pub(crate) slow_echoes: bool,
    /// The lease counts from the echo's arrival.
    pub(crate) from_arrival: bool,
    /// A release by the node itself counts, and whether it closes its gate before.
    pub(crate) own_release: Option<bool>,
    /// A voter grants whom it has released.
    pub(crate) grants_released: bool,
    /// A voter that has just started waits out the longest promise.
    pub(crate) wait_after_start: bool,
    /// A release counts whatever has become of the voter's life.
    pub(crate) any_voter_life: bool,
    /// A release counts whatever has been confirmed since.
    pub(crate) any_since: bool,
    /// Who has not applied what is about it gets no lease.
    pub(crate) about: bool,
    /// As the page has it: a release ends with the takeover. As the product has it: only with `Joined` or `Confirm`.
    pub(crate) takeover_ends_release: bool,
    /// A successor opens with its promotion.
    pub(crate) opens_at_commit: bool,
    /// The request for release counts as the first heartbeat.
    pub(crate) first_beat: bool,
    /// Who has relinquished may open again under that epoch.
    pub(crate) reopens: bool,
    /// A switchover is proposed by an active that has relinquished.
    pub(crate) relinquish_first: bool,
    /// A node starts clean: whatever an earlier process left running is ended before it joins.
    pub(crate) starts_clean: bool,
    /// A process that has just started is nobody until its own `Joined` is applied; else it speaks as its predecessor.
    pub(crate) joins_first: bool,
    /// A holder's clock may stand still for so many ticks.
    pub(crate) frozen: u8,
    /// A is heard and hears nobody: the run is bound to that, and the harm looked for is B's takeover. Whether voters
    /// then stop renewing.
    pub(crate) mute: Option<bool>,
    /// A silent holder says so, and nobody waits for a clock.
    pub(crate) renouncing: Option<Renouncing>,
    pub(crate) bounds: Bounds,
}

/// What is explored at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) groups: usize,
    /// Entries after the start.
    pub(crate) entries: u8,
    pub(crate) restarts: u8,
    pub(crate) relinquishes: u8,
    pub(crate) confirms: u8,
}

impl Rules {
    /// The page as it stands, with the product's rule for how long a release stands.
    pub(crate) const PAGE: Self = Self {
        times: Times::PAGE,
        gate: Gate::Absolute,
        waits: Waits::Everyone,
        broken: super::law::WHOLE,
        slow_echoes: false,
        from_arrival: false,
        own_release: None,
        grants_released: false,
        wait_after_start: true,
        any_voter_life: false,
        any_since: false,
        about: true,
        takeover_ends_release: false,
        opens_at_commit: false,
        first_beat: false,
        reopens: false,
        relinquish_first: true,
        starts_clean: true,
        joins_first: true,
        frozen: 0,
        mute: None,
        renouncing: None,
        bounds: Bounds { groups: 1, entries: 3, restarts: 1, relinquishes: 1, confirms: 1 },
    };
}

/// What can happen. Nodes and groups by number: A 0, B 1, W 2.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "read by Debug, in traces")]
pub(crate) enum Step {
    Tick,
    /// A tick that this holder's clock does not count.
    TickFrozen { holder: usize },
    /// A heartbeat is granted and its echo leaves.
    Grant { voter: usize, holder: usize },
    EchoArrives { voter: usize, holder: usize },
    Renounce { holder: usize },
    RenouncingArrives { voter: usize, holder: usize },
    Reckon { holder: usize },
    Arm { holder: usize },
    DaemonCloses { holder: usize },
    Ask { holder: usize },
    Release { voter: usize, target: usize },
    Relinquish { holder: usize, group: usize },
    Reopen { holder: usize, group: usize },
    Apply { node: usize },
    Takeover { by: usize, group: usize },
    Switchover { by: usize, group: usize, to: usize },
    Grow { by: usize, group: usize },
    Confirm { node: usize },
    Restart { node: usize },
    Rejoin { node: usize },
    JoinCommits { node: usize, process: usize },
}

/// What must not be, or, for a run with a mute node, what must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    TwoOpen { group: usize },
    TakenOver,
}

/// Everything that the future depends on. Times are what is left of them.
#[derive(Clone, Debug, Hash)]
pub(crate) struct State {
    head: Head,
    applied: [u8; 3],
    /// Which process of the node runs; the nonce of its `Joined`.
    process: [u8; 3],
    /// The life that the running process knows as its own; 0 before.
    life: [u8; 3],
    /// By node and process: the life that its `Joined` under way replaces, plus 1; 0: none under way.
    joins: [[u8; PROCESSES]; 3],
    wait: [u8; 3],
    promise: [[u8; HOLDERS]; 3],
    /// What a voter remembers: the target's `since` that it has released, or 0.
    released: [[u8; HOLDERS]; 3],
    /// What has been said and may still be listed in an entry.
    said: [[Said; HOLDERS]; 3],
    /// The life that renounces, in a heartbeat under way; 0: none.
    renounced: [[u8; HOLDERS]; 3],
    /// Age of the echo under way, plus 1; 0: none.
    echo: [[u8; HOLDERS]; 3],
    lease: [u8; HOLDERS],
    /// Left on the kernel's gate where it is not the lease itself; for the daemon's gate 1 is open.
    gate: [u8; HOLDERS],
    reckoned: [u8; HOLDERS],
    /// What an earlier process has left open.
    ghost: [u8; HOLDERS],
    /// The epoch that it gave up.
    gave_up: [[u8; 2]; HOLDERS],
    reopened: [[bool; 2]; HOLDERS],
    /// Age of the request for release, plus 1.
    asked: [u8; HOLDERS],
    /// For how long A's heartbeats still show that it hears the voters.
    hears: u8,
    frozen: u8,
    restarts: u8,
    relinquishes: u8,
    confirms: u8,
}

/// The model: rules and the tree of logs.
pub(crate) struct Clocks {
    rules: Rules,
    law: Law,
    first: Head,
    lease: u8,
    promise: u8,
}

impl Clocks {
    pub(crate) fn new(rules: Rules) -> Self {
        let (law, first) = Law::new(&[A, B], rules.bounds.groups, rules.broken);
        let (lease, promise) = rules.times.ticks();
        Self { rules, law, first, lease, promise }
    }

    /// How many different control logs were met.
    pub(crate) fn logs(&self) -> usize {
        self.law.logs()
    }

    fn view(&self, s: &State, node: usize) -> &View {
        self.law.view(s.head, s.applied[node])
    }

    /// The running process is in a life that its own view of the log still counts.
    fn lives(&self, s: &State, node: usize) -> bool {
        s.life[node] != 0 && self.view(s, node).life[node] == s.life[node]
    }

    fn who(s: &State, node: usize) -> Who {
        Who { node: small(node), life: s.life[node] }
    }

    /// The node believes that it is the group's active and has not given that up.
    fn speaks(&self, s: &State, holder: usize, group: usize) -> bool {
        let row = &self.view(s, holder).rows[group];
        self.lives(s, holder)
            && row.active == Some(Self::who(s, holder))
            && (s.gave_up[holder][group] != row.epoch || s.reopened[holder][group])
    }

    fn is_open(&self, s: &State, holder: usize, group: usize) -> bool {
        let kernel = if self.rules.gate == Gate::Absolute { s.lease[holder] } else { s.gate[holder] };
        (kernel > 0 && self.speaks(s, holder, group)) || (group == 0 && s.ghost[holder] > 0)
    }
}

impl Model for Clocks {
    type State = State;
    type Step = Step;
    type Harm = Harm;

    fn initial(&mut self) -> State {
        let latest = self.law.latest(self.first);
        let life = [latest.life[0], latest.life[1], latest.life[2]];
        let applied = [self.law.len(self.first); 3];
        // What a process sent to join that ended before the present ones began may still be under way.
        let joins = [[0, 0, 0, 1]; 3];
        let b = self.rules.bounds;
        let mut s = State {
            head: self.first,
            applied,
            process: [0; 3],
            life,
            joins,
            wait: [0; 3],
            promise: [[0; HOLDERS]; 3],
            released: [[0; HOLDERS]; 3],
            said: [[Said::default(); HOLDERS]; 3],
            renounced: [[0; HOLDERS]; 3],
            echo: [[0; HOLDERS]; 3],
            lease: [0; HOLDERS],
            gate: [0; HOLDERS],
            reckoned: [0; HOLDERS],
            ghost: [0; HOLDERS],
            gave_up: [[0; 2]; HOLDERS],
            reopened: [[false; 2]; HOLDERS],
            asked: [0; HOLDERS],
            hears: 0,
            frozen: self.rules.frozen,
            restarts: b.restarts,
            relinquishes: b.relinquishes,
            confirms: b.confirms,
        };
        if self.rules.mute.is_some() {
            s.hears = self.lease;
            s.lease[A] = self.lease;
            s.promise.iter_mut().for_each(|p| p[A] = self.promise);
        }
        s
    }

    fn steps(&mut self, s: &State, out: &mut Vec<(Step, State)>) {
        self.ticks(s, out);
        self.renouncing(s, out);
        if self.rules.mute.is_none() {
            self.grants(s, out);
            self.gates(s, out);
            self.restarts(s, out);
        }
        self.releases(s, out);
        self.entries(s, out);
        for (_, next) in out {
            self.forget(next);
        }
    }

    fn harm(&mut self, s: &State) -> Option<Harm> {
        if self.rules.mute.is_some() {
            let row = &self.law.latest(s.head).rows[0];
            return row.active.is_some_and(|a| usize::from(a.node) == B).then_some(Harm::TakenOver);
        }
        let two = |group: &usize| (0..HOLDERS).filter(|h| self.is_open(s, *h, *group)).count() > 1;
        (0..self.rules.bounds.groups).find(two).map(|group| Harm::TwoOpen { group })
    }
}

impl Clocks {
    /// Drops what can never matter again, so that states that differ only in it are one.
    fn forget(&self, s: &mut State) {
        let latest = self.law.latest(s.head);
        for voter in 0..3 {
            for target in 0..HOLDERS {
                let said = s.said[voter][target];
                let voter_counts = said.voter == latest.life[voter] || self.rules.any_voter_life;
                let since_counts = said.since == latest.since[target] || self.rules.any_since;
                let target_counts = said.target == latest.life[target] && since_counts;
                if !(voter_counts && target_counts) {
                    s.said[voter][target] = Said::default();
                }
            }
        }
        if !self.rules.broken.joined_any_life {
            for node in 0..3 {
                for join in &mut s.joins[node] {
                    if *join != 0 && *join - 1 != latest.life[node] {
                        *join = 0;
                    }
                }
            }
        }
        for holder in 0..HOLDERS {
            for group in 0..2 {
                if s.gave_up[holder][group] < self.law.view(s.head, s.applied[holder]).rows[group].epoch {
                    s.gave_up[holder][group] = 0;
                    s.reopened[holder][group] = false;
                }
            }
        }
    }
}
