//! Who is alive, how long this node may speak, and whom it no longer supports: the lease and the verdicts of one node.
//!
//! Driven by the liveness thread (or the simulator): heard heartbeats, what the control log says about nodes, and the clock go
//! in; heartbeats to send, the lease's end, verdicts and releases come out. It never waits for anyone and never reads a clock.
//! Rules: protocol 3 and 5. Each heartbeat bears, for every peer, the stamp of the newest heartbeat heard from it (so that
//! the peer knows it is heard), the newest stamp *granted* (a promise not to release it for P), and a standing release. One that hears nobody
//! and whose lease is over *renounces*: it counts no grant of what it has sent so far, so whoever granted that is free of its promise.
//!
//! One lease per node, for all its groups: a promise is about a node's right to speak at all. Which of its groups may speak
//! is the role table's business.

mod clock;
#[cfg(feature = "shell")]
pub mod lateness;
mod peer;
pub mod seal;
#[cfg(feature = "shell")]
pub mod shell;
#[cfg(test)]
mod tests;
pub mod wire;

use std::collections::{BTreeMap, VecDeque};

use sixnines_core::domain::Release;
use sixnines_core::domain::config::Times;
use sixnines_core::ids::{Incarnation, LinkId, LogIndex, Member, NodeId};
use sixnines_core::time::{Duration, Instant};

use clock::Pace;
use peer::Peer;
use wire::{Echo, Heartbeat};

/// What one node thinks of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Not heard yet, or I was not scheduled, or I hear nobody: I judge nobody.
    Unknown,
    /// Heard within `dead_after`, and it hears somebody.
    Alive,
    /// Heard, but it says that it hears nobody: as good as dead (the one-way cut).
    Mute,
    /// Silent on every link for `dead_after`.
    Dead,
}

impl Verdict {
    /// Whether a voter may release a node on it.
    pub fn is_lost(self) -> bool {
        matches!(self, Self::Mute | Self::Dead)
    }

    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Alive => "alive",
            Self::Mute => "mute",
            Self::Dead => "dead",
        }
    }
}

/// A part of the daemon that has to turn; when it stands still the node must look dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Part {
    /// Objects, policies, roles.
    CoreLoop = 1,
    /// Raft.
    ControlLog = 2,
    /// Streams of application state.
    Checkpoint = 3,
    /// The kernel gate's keeper.
    Gate = 4,
}

/// What the control log says about one node, as this node has applied or merely logged it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The current life; 0 before the first.
    pub incarnation: Incarnation,
    /// Index of its last `Joined` or `Confirm`.
    pub since: LogIndex,
    /// Index of the last applied entry about it that took effect.
    pub about: LogIndex,
    /// Whether it votes.
    pub voter: bool,
}

/// What goes in.
#[derive(Debug)]
pub enum Input<'a> {
    /// A heartbeat arrived; its sender is authenticated, its contents are not trusted beyond that.
    Heard {
        /// The path it came on.
        link: LinkId,
        /// Its contents.
        heartbeat: &'a Heartbeat,
    },
    /// The control log applied entries.
    Applied {
        /// The last of them.
        index: LogIndex,
        /// Every node's standing now.
        standing: &'a BTreeMap<NodeId, Standing>,
    },
    /// The newest entry about `node` in this node's log, applied or not (protocol 3.3); an earlier one if a new leader overruled some.
    Logged {
        /// Whom it is about.
        node: NodeId,
        /// Where it stands.
        index: LogIndex,
    },
    /// There is another peer from now on.
    Peer(NodeId),
    /// Parts that turn (`None`), or the one that stands still.
    Progress(Option<Part>),
    /// The thread that runs this has no real-time rights, for good: it may be late where nothing else is wrong.
    NoRealTime,
    /// The instant of [`Liveness::poll_timeout`] has come.
    Timeout,
}

/// What comes out, to be carried out in order.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub enum Output {
    /// Send to `to` on `link`; `None`: on every link.
    Send {
        /// To whom.
        to: NodeId,
        /// On which path.
        link: Option<LinkId>,
        /// What.
        heartbeat: Heartbeat,
    },
    /// This node may speak until then; never earlier than what was said before.
    Lease(Instant),
    /// The view of a peer has changed.
    Verdict {
        /// Of whom.
        node: NodeId,
        /// What it was.
        was: Verdict,
        /// What it is.
        now: Verdict,
        /// How long it has been silent.
        silent: Duration,
    },
    /// Between two nodes that live (somebody hears each of them) nothing arrives in one direction, or it does again. It is no verdict: this
    /// node or others may well hear both.
    Cut {
        /// Who sends, perhaps this node.
        from: NodeId,
        /// Who does not hear it, perhaps this node.
        to: NodeId,
        /// Whether it is so.
        cut: bool,
    },
    /// A peer says that it is in another life than before.
    Life {
        /// Who.
        node: NodeId,
        /// Which; 0 until it has joined.
        incarnation: Incarnation,
    },
    /// A path to a peer was lost or found.
    Link {
        /// To whom.
        node: NodeId,
        /// Which.
        link: LinkId,
        /// Whether heartbeats arrive on it.
        up: bool,
    },
    /// A voter (this node or a peer) has released a node.
    Release(Release),
    /// This node was not scheduled for so long.
    Paused(Duration),
}

/// The liveness of one node.
#[derive(Debug)]
pub struct Liveness {
    me: NodeId,
    life: u64,
    started: Instant,
    times: Times,
    links: u8,
    pace: Pace,
    /// The newest of my own beats that I, as a voter, granted.
    granted_self: Instant,
    /// When I last renounced: grants of what I had sent by then count no more.
    renounced: Instant,
    /// My last beat said that I hear nobody.
    is_mute: bool,
    sequence: u64,
    standing: BTreeMap<NodeId, Standing>,
    applied: LogIndex,
    logged: BTreeMap<NodeId, LogIndex>,
    peers: BTreeMap<NodeId, Peer>,
    /// The ways, each from one node to another, on which nothing seems to arrive; whether that was said already.
    cuts: BTreeMap<(NodeId, NodeId), bool>,
    stalled: Option<Part>,
    /// This node's thread has no real-time rights.
    may_be_late: bool,
    /// Nothing is judged before: I was not scheduled, or have only just started.
    judge_from: Instant,
    lease: Instant,
    next_beat: Instant,
    outputs: VecDeque<Output>,
}

/// What a [`Liveness`] is made for.
#[derive(Clone, Debug)]
pub struct Setup {
    /// This node.
    pub me: NodeId,
    /// Drawn anew for each start of the process.
    pub life: u64,
    /// The others.
    pub peers: Vec<NodeId>,
    /// How many paths lead to each of them.
    pub links: u8,
    /// The profile's times.
    pub times: Times,
    /// For the jitter of the beats.
    pub seed: u64,
}

impl Liveness {
    /// Starts at `now`; knows nobody yet and grants nothing.
    pub fn new(now: Instant, setup: Setup) -> Self {
        assert!(setup.times.is_safe(), "configuration was checked before");
        let peers = setup.peers.iter().map(|n| (*n, Peer::new(setup.links, now))).collect();
        Self {
            me: setup.me,
            life: setup.life,
            started: now,
            times: setup.times,
            links: setup.links,
            pace: Pace::new(setup.seed, setup.times.interval),
            granted_self: Instant::ZERO,
            renounced: Instant::ZERO,
            is_mute: false,
            sequence: 0,
            standing: BTreeMap::new(),
            applied: LogIndex(0),
            logged: BTreeMap::new(),
            peers,
            cuts: BTreeMap::new(),
            stalled: None,
            may_be_late: false,
            judge_from: now + setup.times.dead_after,
            lease: Instant::ZERO,
            next_beat: now,
            outputs: VecDeque::new(),
        }
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Heard { link, heartbeat } => self.on_heard(now, link, heartbeat),
            Input::Applied { index, standing } => self.on_applied(now, index, standing),
            Input::Logged { node, index } => {
                self.logged.insert(node, index);
            }
            Input::Peer(node) => {
                let links = self.links;
                self.peers.entry(node).or_insert_with(|| Peer::new(links, now));
            }
            Input::Progress(stalled) => self.on_progress(now, stalled),
            Input::NoRealTime => self.may_be_late = true,
            Input::Timeout => self.on_timeout(now),
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is due at the latest.
    pub fn poll_timeout(&self) -> Instant {
        let silence = self.peers.values().filter_map(|p| p.next_judgement(self.window(p.may_be_late)));
        let promises = self.peers.values().filter_map(Peer::release_due);
        let from = self.judge_from;
        silence.chain(promises).map(|t| t.max(from)).chain([self.next_beat]).min().expect("a beat is always due")
    }

    /// When the next heartbeat is due: how late this thread is shows in it.
    pub fn beat_due(&self) -> Instant {
        self.next_beat
    }

    /// Until when this node may speak.
    pub fn lease(&self) -> Instant {
        self.lease
    }

    /// What this node thinks of `node` now.
    pub fn verdict(&self, node: NodeId) -> Verdict {
        self.peers.get(&node).map_or(Verdict::Unknown, |p| p.verdict)
    }

    /// How long ago `node` was heard on each link, by `now`; `None` where never.
    pub fn heard(&self, node: NodeId, now: Instant) -> Vec<Option<Duration>> {
        self.peers.get(&node).map(|p| p.links.iter().map(|l| l.heard.map(|t| now.since(t))).collect()).unwrap_or_default()
    }

    fn me_now(&self) -> Standing {
        self.standing.get(&self.me).copied().unwrap_or_default()
    }

    fn on_heard(&mut self, now: Instant, link: LinkId, beat: &Heartbeat) {
        let Some(peer) = self.peers.get_mut(&beat.from.node) else { return };
        let holder = self.standing.get(&beat.from.node).copied().unwrap_or_default();
        let Some(new) = peer.accept(now, link, beat, holder.incarnation) else { return };
        if new.link_up {
            self.outputs.push_back(Output::Link { node: beat.from.node, link, up: true });
        }
        if !new.first_copy {
            return;
        }
        if new.other_life {
            self.outputs.push_back(Output::Life { node: beat.from.node, incarnation: beat.from.incarnation });
        }
        if beat.renounces && beat.from.incarnation == holder.incarnation && beat.sent >= peer.granted {
            peer.promised_until = Instant::ZERO; // 3.5: it is silent by its own word, so nobody waits for a clock
        }
        if !beat.is_echo {
            self.grant(now, beat);
        }
        self.take_echo(beat);
        self.take_hearing(now, beat);
        self.take_releases(beat);
        self.judge(now, beat.from.node);
        self.renew_lease();
        if self.verdict(beat.from.node).is_lost() {
            self.release_the_lost(now); // it has just said so itself
        }
        if beat.is_echo || self.stalled.is_some() {
            return;
        }
        if self.echoes_at_once() {
            // On the way it came: the holder's lease counts from when it sent, so each millisecond here is lost.
            let heartbeat = self.heartbeat(now, true);
            self.outputs.push_back(Output::Send { to: beat.from.node, link: Some(link), heartbeat });
        } else if self.pace.is_soon(self.next_beat, now) {
            self.beat(now);
            self.next_beat = self.pace.next(now, now);
        }
    }

    /// Whether a grant has to go back at once. Where the lease lasts for several beats it rides on this node's next beat, which is sent
    /// with it where it was due soon anyway; what is left of a lease is then never less than `L - 2 intervals` while all goes well. A lease that
    /// a coarse gate has cut short has no beat to spare.
    fn echoes_at_once(&self) -> bool {
        self.times.lease < self.times.interval * BEATS_TO_SPARE
    }

    /// Rules 3.1, 3.3, 3.6: promises not to release the sender for P, if everything speaks for it.
    fn grant(&mut self, now: Instant, beat: &Heartbeat) {
        let me = self.me_now();
        let holder = self.standing.get(&beat.from.node).copied().unwrap_or_default();
        let logged = self.logged.get(&beat.from.node).copied().unwrap_or_default().max(holder.about);
        let hears_me = beat.echo_of(self.me, self.life).is_some_and(|e| now.since(e.heard) < self.times.lease && e.heard <= now);
        let peer = self.peers.get_mut(&beat.from.node).expect("on_heard looked it up");
        let released = peer.released == Some(holder.since);
        let is_current = beat.from.incarnation == holder.incarnation && holder.incarnation != Incarnation(0);
        let has_applied = beat.applied >= logged;
        if me.incarnation == Incarnation(0) || !is_current || !hears_me || !has_applied || released {
            return;
        }
        peer.granted = peer.granted.max(beat.sent);
        peer.promised_until = peer.promised_until.max(now + self.times.promise);
    }

    /// What the sender has granted me, if it is a voter in its present life.
    fn take_echo(&mut self, beat: &Heartbeat) {
        let Some(echo) = beat.echo_of(self.me, self.life) else { return };
        let sent = self.pace.sent;
        let peer = self.peers.get_mut(&beat.from.node).expect("on_heard looked it up");
        peer.granted_me = peer.granted_me.max(echo.granted).min(sent); // nobody can grant what was not sent
        peer.granted_me_by = beat.from;
    }

    /// Whom the sender does not hear although they live: what it heard of them last was sent long before the newest that anybody heard.
    fn take_hearing(&mut self, now: Instant, beat: &Heartbeat) {
        for echo in beat.echoes.iter().filter(|e| e.heard > Instant::ZERO) {
            let newest = match self.peers.get_mut(&echo.node) {
                Some(peer) => peer.heard_by_others(now, echo, self.times.dead_after),
                None => (echo.node == self.me && echo.life == self.life).then_some(self.pace.sent),
            };
            let window = self.window(beat.may_be_late || self.peers.get(&echo.node).is_some_and(|p| p.may_be_late));
            let is_cut = !beat.hears_nobody && now >= self.judge_from && newest.is_some_and(|sent| sent.since(echo.heard) >= window);
            self.note_cut(echo.node, beat.from.node, is_cut);
        }
    }

    /// A way counts as cut when it looks so twice in a row: a node that hears nobody says that itself by then, and the first beat after a healing
    /// may be older than what has just come through.
    fn note_cut(&mut self, from: NodeId, to: NodeId, is_cut: bool) {
        let way = (from, to);
        match (self.cuts.get(&way).copied(), is_cut) {
            (None, true) => drop(self.cuts.insert(way, false)),
            (Some(false), true) => {
                self.cuts.insert(way, true);
                self.outputs.push_back(Output::Cut { from, to, cut: true });
            }
            (Some(was_told), false) => {
                self.cuts.remove(&way);
                if was_told {
                    self.outputs.push_back(Output::Cut { from, to, cut: false });
                }
            }
            (None, false) | (Some(true), true) => {}
        }
    }

    fn take_releases(&mut self, beat: &Heartbeat) {
        let voter = beat.from;
        for echo in &beat.echoes {
            let Some((incarnation, since)) = echo.released else { continue };
            let release = Release { voter, target: Member { node: echo.node, incarnation }, since };
            let peer = self.peers.get_mut(&voter.node).expect("on_heard looked it up");
            if peer.releases_seen.insert(echo.node, release) != Some(release) {
                self.outputs.push_back(Output::Release(release));
            }
        }
    }

    fn on_applied(&mut self, now: Instant, index: LogIndex, standing: &BTreeMap<NodeId, Standing>) {
        self.applied = index;
        self.standing.clone_from(standing);
        for (node, peer) in &mut self.peers {
            let holder = standing.get(node).copied().unwrap_or_default();
            if peer.released.is_some_and(|since| since < holder.since) {
                peer.released = None; // A newer life or a `Confirm`: the release has had its day (3.4).
            }
        }
        self.renew_lease();
        self.release_the_lost(now);
    }

    fn on_progress(&mut self, now: Instant, stalled: Option<Part>) {
        if stalled == self.stalled {
            return;
        }
        self.stalled = stalled;
        if stalled.is_some() {
            self.beat(now); // the last one, which says what stands still
        } else {
            self.next_beat = now;
        }
    }

    fn on_timeout(&mut self, now: Instant) {
        self.note_own_pause(now);
        if now >= self.next_beat {
            if self.stalled.is_none() {
                self.beat(now);
            }
            self.next_beat = self.pace.next(self.next_beat, now);
        }
        let nodes: Vec<NodeId> = self.peers.keys().copied().collect();
        for node in nodes {
            self.judge(now, node);
        }
        if !self.is_mute && self.stalled.is_none() && self.hears_nobody(now) {
            self.beat(now); // whoever hears this need not wait for the next one
            self.next_beat = self.pace.next(now, now);
        }
        self.release_the_lost(now);
    }

    /// Rule 5.1. The shell reads its sockets dry before a timeout, so being late alone hides nothing; but a machine that stood
    /// still has peers that stood still with it, so their silence is excused by as much, up to one window.
    fn note_own_pause(&mut self, now: Instant) {
        let late = now.since(self.next_beat);
        if late <= self.times.interval {
            return;
        }
        self.outputs.push_back(Output::Paused(late));
        if late >= self.times.dead_after {
            self.judge_from = now + self.times.dead_after;
        }
        for peer in self.peers.values_mut() {
            peer.excuse(late, self.times.dead_after, now);
        }
    }

    /// How long a peer is silent before that counts. More where one of us may be late without being dead: that costs a takeover time, but
    /// no safety, for who speaks is bound by its lease, and who releases by its promise.
    fn window(&self, may_be_late: bool) -> Duration {
        self.times.dead_after * if self.may_be_late || may_be_late { LATE_WINDOWS } else { 1 }
    }

    fn judge(&mut self, now: Instant, node: NodeId) {
        // Half a window: when I am cut off, all fall silent together, and the first to run out must not be accused.
        let hears_somebody = self.peers.values().any(|p| p.heard_within(now, self.window(p.may_be_late) / 2));
        let window = self.window(self.peers[&node].may_be_late);
        let peer = self.peers.get_mut(&node).expect("only known peers are judged");
        for (index, link) in peer.links.iter_mut().enumerate() {
            if link.up && link.heard.is_none_or(|t| now.since(t) >= window) {
                link.up = false;
                let link = LinkId(u8::try_from(index).expect("at most 4 links"));
                self.outputs.push_back(Output::Link { node, link, up: false });
            }
        }
        let verdict = if peer.heard_within(now, window) {
            if peer.hears_nobody { Verdict::Mute } else { Verdict::Alive }
        } else if now < self.judge_from || !hears_somebody {
            Verdict::Unknown
        } else if peer.heard_ever() || now.since(peer.known_since) >= window * START_PATIENCE {
            Verdict::Dead
        } else {
            Verdict::Unknown
        };
        let was = std::mem::replace(&mut peer.verdict, verdict);
        let unheard = peer.unheard(now, window);
        if was != verdict {
            let silent = peer.silent(now).unwrap_or_else(|| now.since(peer.known_since));
            self.outputs.push_back(Output::Verdict { node, was, now: verdict, silent });
        }
        let is_cut = verdict != Verdict::Alive && now >= self.judge_from && unheard >= window;
        self.note_cut(node, self.me, is_cut);
        if verdict != Verdict::Alive {
            let ended: Vec<NodeId> = self.cuts.keys().filter(|(_, to)| *to == node).map(|(from, _)| *from).collect();
            ended.into_iter().for_each(|from| self.note_cut(from, node, false)); // what it hears, nobody can say now
        }
    }

    /// Rules 3.4 and 3.6: my own promise has run out, and I hold it for dead or mute; or it is there and yet for `dead_after` not the member that
    /// the log knows, whose work nobody does: it came back and cannot join, because its disk did not come back with it.
    fn release_the_lost(&mut self, now: Instant) {
        let me = self.me_now();
        if !me.voter || me.incarnation == Incarnation(0) || now < self.started + self.times.promise || now < self.judge_from {
            return;
        }
        let mut released = false;
        let dead_after = self.times.dead_after;
        for (node, peer) in &mut self.peers {
            let Some(holder) = self.standing.get(node).filter(|s| s.incarnation != Incarnation(0)) else { continue };
            peer.wants_release = (peer.verdict.is_lost() || peer.is_stranger(holder.incarnation, now, dead_after)) && peer.released != Some(holder.since);
            if !peer.wants_release || now < peer.promised_until {
                continue;
            }
            peer.released = Some(holder.since);
            peer.released_life = holder.incarnation;
            peer.wants_release = false;
            released = true;
            let voter = Member { node: self.me, incarnation: me.incarnation };
            let target = Member { node: *node, incarnation: holder.incarnation };
            self.outputs.push_back(Output::Release(Release { voter, target, since: holder.since }));
        }
        if released && self.stalled.is_none() {
            self.beat(now); // the others wait for it
        }
    }

    /// Rule 3.1: L after the sending of the newest heartbeat that a majority of voters, myself counted, has granted.
    fn renew_lease(&mut self) {
        let me = self.me_now();
        if me.incarnation == Incarnation(0) {
            return;
        }
        let voters = self.standing.iter().filter(|(_, s)| s.voter);
        let mut granted: Vec<Instant> = voters
            .map(|(node, standing)| match self.peers.get(node) {
                None if *node == self.me => self.granted_self,
                Some(p) if p.granted_me_by.incarnation == standing.incarnation => p.granted_me,
                Some(_) | None => Instant::ZERO, // also a voter that this node was never told how to reach
            })
            .collect();
        granted.sort_unstable_by(|a, b| b.cmp(a));
        let needed = granted.len() / 2 + 1;
        let Some(stamp) = granted.get(needed - 1).filter(|t| **t > self.renounced) else { return };
        let until = *stamp + self.times.lease;
        if until > self.lease {
            self.lease = until;
            self.outputs.push_back(Output::Lease(until));
        }
    }

    fn beat(&mut self, now: Instant) {
        let heartbeat = self.heartbeat(now, false);
        let nodes: Vec<NodeId> = self.peers.keys().copied().collect();
        for to in nodes {
            self.outputs.push_back(Output::Send { to, link: None, heartbeat: heartbeat.clone() });
        }
        self.renew_lease(); // a domain of one voter grants itself
    }

    fn heartbeat(&mut self, now: Instant, is_echo: bool) -> Heartbeat {
        self.sequence += 1;
        let me = self.me_now();
        let hears_nobody = self.hears_nobody(now);
        let renounces = hears_nobody && self.may_renounce(now);
        if renounces {
            self.renounced = now;
        }
        if !is_echo {
            self.is_mute = hears_nobody;
            self.pace.sent = now;
            let logged = self.logged.get(&self.me).copied().unwrap_or_default();
            if self.applied >= logged {
                self.granted_self = now; // 3.1: "itself counted by the same rules"
            }
        }
        Heartbeat {
            from: Member { node: self.me, incarnation: me.incarnation },
            life: self.life,
            sequence: self.sequence,
            sent: now,
            applied: self.applied,
            is_echo,
            hears_nobody,
            renounces,
            may_be_late: self.may_be_late,
            stalled: self.stalled.map(|p| p as u8),
            echoes: self.peers.iter().map(|(node, peer)| peer.echo(*node)).collect(),
        }
    }

    fn hears_nobody(&self, now: Instant) -> bool {
        !self.peers.values().any(|p| p.heard_within(now, self.window(p.may_be_late)))
    }

    /// Whether this node is silent, its gate included, and needs others to speak again.
    fn may_renounce(&self, now: Instant) -> bool {
        let closed = self.lease + (self.times.promise - self.times.lease);
        closed <= now && self.standing.values().filter(|s| s.voter).count() > 1
    }

    /// How many links lead to each peer.
    pub fn links(&self) -> u8 {
        self.links
    }
}

impl Heartbeat {
    fn echo_of(&self, node: NodeId, life: u64) -> Option<&Echo> {
        self.echoes.iter().find(|e| e.node == node && e.life == life)
    }
}

/// A lease of so many beats need not be renewed by each of them at once.
const BEATS_TO_SPARE: u32 = 3;
/// How much wider the window is for who has no real-time rights.
const LATE_WINDOWS: u32 = 2;
/// A peer that was never heard is held for dead after so many windows: nodes of a domain start one after another.
const START_PATIENCE: u32 = 4;
