//! What is known of one peer.

use std::collections::BTreeMap;

use sixnines_core::domain::Release;
use sixnines_core::ids::{Incarnation, LinkId, LogIndex, Member, NodeId};
use sixnines_core::time::{Duration, Instant};

use super::Verdict;
use super::wire::{Echo, Heartbeat};

/// One path to a peer.
#[derive(Clone, Debug, Default)]
pub(super) struct Path {
    pub(super) up: bool,
    pub(super) heard: Option<Instant>,
    sequence: u64,
}

/// One peer.
#[derive(Debug)]
pub(super) struct Peer {
    /// This node's start, or when the peer became one.
    pub(super) known_since: Instant,
    pub(super) links: Vec<Path>,
    pub(super) verdict: Verdict,
    life: u64,
    sequence: u64,
    excused: Duration,
    /// The newest stamp heard from it, in its clock.
    stamp: Instant,
    pub(super) hears_nobody: bool,
    pub(super) may_be_late: bool,
    /// The life that it says it is in; 0 until it has joined.
    incarnation: Option<Incarnation>,
    /// The life that the log knows, and since when it has spoken from none or an older one.
    stranger: Option<(Incarnation, Instant)>,
    /// The newest stamp of its beats that I granted, in its clock.
    pub(super) granted: Instant,
    /// Until when I promised not to release it, in my clock.
    pub(super) promised_until: Instant,
    /// The newest of my own stamps that it granted, and in which life it did.
    pub(super) granted_me: Instant,
    pub(super) granted_me_by: Member,
    /// The newest stamp that anybody heard from it, in its clock, and when I learned of that.
    newest: (Instant, Instant),
    /// The `since` under which I released it.
    pub(super) released: Option<LogIndex>,
    pub(super) released_life: Incarnation,
    /// It is lost, but my promise still runs.
    pub(super) wants_release: bool,
    /// The releases that it has told of, by target.
    pub(super) releases_seen: BTreeMap<NodeId, Release>,
}

/// What an accepted heartbeat was.
pub(super) struct News {
    /// Not yet seen on another link.
    pub(super) first_copy: bool,
    /// The first on a link that was down.
    pub(super) link_up: bool,
    /// The first that says that its sender is in this life.
    pub(super) other_life: bool,
}

impl Peer {
    pub(super) fn new(links: u8, now: Instant) -> Self {
        Self {
            known_since: now,
            links: vec![Path::default(); usize::from(links)],
            verdict: Verdict::Unknown,
            life: 0,
            sequence: 0,
            excused: Duration::ZERO,
            stamp: Instant::ZERO,
            hears_nobody: false,
            may_be_late: false,
            incarnation: None,
            stranger: None,
            granted: Instant::ZERO,
            promised_until: Instant::ZERO,
            granted_me: Instant::ZERO,
            granted_me_by: Member::default(),
            newest: (Instant::ZERO, Instant::ZERO),
            released: None,
            released_life: Incarnation(0),
            wants_release: false,
            releases_seen: BTreeMap::new(),
        }
    }

    /// Takes a heartbeat of one whom the log knows in `life`; `None` for a repeat on the same link or an unknown link.
    pub(super) fn accept(&mut self, now: Instant, link: LinkId, beat: &Heartbeat, life: Incarnation) -> Option<News> {
        if beat.life != self.life {
            self.begin_life(beat.life);
        }
        let path = self.links.get_mut(usize::from(link.0))?;
        if beat.sequence <= path.sequence {
            return None;
        }
        path.sequence = beat.sequence;
        path.heard = Some(now);
        self.excused = Duration::ZERO;
        let link_up = !std::mem::replace(&mut path.up, true);
        let first_copy = beat.sequence > self.sequence;
        let mut other_life = false;
        if first_copy {
            other_life = self.incarnation.replace(beat.from.incarnation) != Some(beat.from.incarnation);
            self.sequence = beat.sequence;
            self.hears_nobody = beat.hears_nobody;
            self.may_be_late = beat.may_be_late;
            // A later life than the log's is one that this node has not read of yet.
            let known = self.stranger.filter(|(before, _)| *before == life);
            self.stranger = (beat.from.incarnation < life).then(|| known.unwrap_or((life, now)));
            if !beat.is_echo {
                self.stamp = self.stamp.max(beat.sent);
                self.note_newest(now, beat.sent);
            }
        }
        Some(News { first_copy, link_up, other_life })
    }

    /// A restarted process counts its beats from one again. What I promised to its old life I still keep.
    fn begin_life(&mut self, life: u64) {
        self.life = life;
        self.sequence = 0;
        self.stamp = Instant::ZERO;
        self.granted = Instant::ZERO;
        self.granted_me = Instant::ZERO;
        self.newest = (Instant::ZERO, Instant::ZERO);
        for path in &mut self.links {
            path.sequence = 0;
        }
    }

    pub(super) fn echo(&self, node: NodeId) -> Echo {
        Echo {
            node,
            life: self.life,
            heard: self.stamp,
            granted: self.granted,
            released: self.released.map(|since| (self.released_life, since)),
        }
    }

    fn note_newest(&mut self, now: Instant, stamp: Instant) {
        if stamp > self.newest.0 {
            self.newest = (stamp, now);
        }
    }

    /// Takes what somebody heard of it; answers with the newest that anybody did, if it is heard of in that life and no longer than `window` ago.
    pub(super) fn heard_by_others(&mut self, now: Instant, echo: &Echo, window: Duration) -> Option<Instant> {
        if echo.life != self.life {
            return None;
        }
        self.note_newest(now, echo.heard);
        (now.since(self.newest.1) < window).then_some(self.newest.0)
    }

    /// For how long it has sent what others hear and I do not; zero once nobody has heard it for `window`.
    pub(super) fn unheard(&self, now: Instant, window: Duration) -> Duration {
        let (stamp, at) = self.newest;
        if now.since(at) < window { stamp.since(self.stamp) } else { Duration::ZERO }
    }

    pub(super) fn heard_ever(&self) -> bool {
        self.last_heard().is_some()
    }

    pub(super) fn heard_within(&self, now: Instant, window: Duration) -> bool {
        self.silent(now).is_some_and(|s| s < window)
    }

    /// Whether it has for `patience` not been the member that the log knows in `life`.
    pub(super) fn is_stranger(&self, life: Incarnation, now: Instant, patience: Duration) -> bool {
        self.stranger.is_some_and(|(of, since)| of == life && now.since(since) >= patience)
    }

    pub(super) fn silent(&self, now: Instant) -> Option<Duration> {
        self.last_heard().map(|t| now.since(t))
    }

    /// Its silence counts from `late` later: the machine as a whole may have stood still. In all at most `window` between two beats.
    pub(super) fn excuse(&mut self, late: Duration, window: Duration, now: Instant) {
        let late = late.min(window.saturating_sub(self.excused));
        self.excused += late;
        for heard in self.links.iter_mut().filter(|l| l.up).filter_map(|l| l.heard.as_mut()) {
            *heard = (*heard + late).min(now);
        }
    }

    /// When its silence has to be looked at.
    pub(super) fn next_judgement(&self, window: Duration) -> Option<Instant> {
        self.links.iter().filter(|l| l.up).filter_map(|l| l.heard).map(|t| t + window).min()
    }

    /// When a release that waits for my promise can be given.
    pub(super) fn release_due(&self) -> Option<Instant> {
        self.wants_release.then_some(self.promised_until)
    }

    pub(super) fn last_heard(&self) -> Option<Instant> {
        self.links.iter().filter_map(|l| l.heard).max()
    }
}
