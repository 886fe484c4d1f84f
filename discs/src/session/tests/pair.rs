//! Two sessions and everything that can happen between them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const LINKS: usize = 2;

/// One connection: what is on its way, by the end it goes to. Lanes are streams of their own, so any order is possible.
#[derive(Default)]
struct Connection {
    up: bool,
    to: [Vec<Frame>; 2],
}

struct End {
    session: Session,
    sent: u64,
    /// Who the numbers below belong to.
    peer_life: u64,
    /// What was sent to that life of the peer, by lane.
    log: BTreeMap<Lane, Vec<u64>>,
    /// What has come from it.
    got: BTreeMap<Lane, Vec<u64>>,
}

impl End {
    fn new(life: u64) -> Self {
        let limits = Limits { window_frames_max: 24, waiting_frames_max: 1000, ..Limits::default() };
        Self { session: Session::new(life, limits), sent: 0, peer_life: 0, log: BTreeMap::new(), got: BTreeMap::new() }
    }
}

struct Pair {
    now: Instant,
    ends: [End; 2],
    lives: u64,
    links: [Connection; LINKS],

}

#[derive(Clone, Debug)]
enum Step {
    Send { end: usize, class: usize, log: bool },
    /// Delivers the frame at this place of the queue.
    Carry { link: usize, to: usize, place: usize },
    Lose { link: usize, to: usize, place: usize },
    Repeat { link: usize, to: usize, place: usize },
    Kill { link: usize },
    Raise { link: usize },
    /// Only one end notices.
    KillAt { link: usize, end: usize },
    Hint { link: usize, end: usize, good: bool },
    Wait { ms: u64 },
    Restart { end: usize },
}

impl Pair {
    fn new() -> Self {
        let links = std::array::from_fn(|_| Connection::default());
        Self { now: at(1), ends: [End::new(10), End::new(11)], lives: 12, links }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Send { end, class, log } => self.send(end, Class::ALL[class], log),
            Step::Carry { link, to, place } => {
                if let Some(frame) = self.take(link, to, place) {
                    self.input(to, Input::Frame { link: id(link), frame });
                }
            }
            Step::Lose { link, to, place } => drop(self.take(link, to, place)),
            Step::Repeat { link, to, place } => {
                let queue = &mut self.links[link].to[to];
                if !queue.is_empty() {
                    let again = queue[place % queue.len()].clone();
                    queue.push(again);
                }
            }
            Step::Kill { link } => {
                self.kill_at(link, 0);
                self.kill_at(link, 1);
            }
            Step::KillAt { link, end } => self.kill_at(link, end),
            Step::Raise { link } => self.raise(link),
            Step::Hint { link, end, good } => self.input(end, Input::LinkHint { link: id(link), good }),
            Step::Wait { ms } => {
                self.now = self.now + Duration::from_millis(ms);
                for end in 0..2 {
                    if self.ends[end].session.poll_timeout().is_some_and(|due| due <= self.now) {
                        self.input(end, Input::Timeout);
                    }
                }
            }
            Step::Restart { end } => {

                self.ends[end] = End::new(self.lives);
                self.lives += 1;
                // Its connections are gone; the other end has not noticed.
                for link in &mut self.links {
                    link.up = false;
                    link.to[end].clear();
                }
            }
        }
    }

    fn send(&mut self, end: usize, class: Class, log: bool) {
        let kind = if log { Kind::LOG } else { Kind::EVENT };
        let number = self.ends[end].sent;
        let payload = Bytes::copy_from_slice(&number.to_le_bytes());
        if self.ends[end].session.send(self.now, class, kind, payload).is_ok() {
            let me = &mut self.ends[end];
            me.sent += 1;
            me.log.entry(Lane::of(class, kind)).or_default().push(number);
        }
        self.drain(end);
    }

    fn take(&mut self, link: usize, to: usize, place: usize) -> Option<Frame> {
        let queue = &mut self.links[link].to[to];
        (!queue.is_empty()).then(|| queue.remove(place % queue.len()))
    }

    fn kill_at(&mut self, link: usize, end: usize) {
        self.links[link].up = false;
        self.links[link].to[end].clear();
        self.input(end, Input::LinkDown { link: id(link) });
    }

    /// A new connection: both ends say which lives they have.
    fn raise(&mut self, link: usize) {
        self.links[link] = Connection { up: true, ..Connection::default() };
        let lives = [0, 1].map(|end: usize| self.ends[end].session.own_life());
        for end in 0..2 {
            let (own_life, peer_life) = (lives[end], lives[1 - end]);
            self.input(end, Input::LinkUp { link: id(link), own_life, peer_life });
        }
    }

    fn input(&mut self, end: usize, input: Input) {
        self.ends[end].session.handle(self.now, input).unwrap();
        self.drain(end);
    }

    fn drain(&mut self, end: usize) {
        while let Some(output) = self.ends[end].session.poll_output() {
            match output {
                Output::Transmit { link, frame, lane } => {
                    assert!(frame.kind == Kind::ACK || lane == frame.lane());
                    let connection = &mut self.links[usize::from(link.0)];
                    if connection.up {
                        connection.to[1 - end].push(frame);
                    }
                }
                Output::Deliver { class, kind, payload } => self.deliver(end, Lane::of(class, kind), &payload),
                Output::PeerLife { life } => {
                    let me = &mut self.ends[end];
                    if me.peer_life != 0 {
                        me.log.clear();
                    }
                    me.got.clear();
                    me.peer_life = life;
                }
                Output::LinkState { .. } => {}
                Output::Close { link } => self.links[usize::from(link.0)].up = false,
            }
        }
    }

    /// In order, once, nothing left out, and from the life that the receiver was told of.
    fn deliver(&mut self, end: usize, lane: Lane, payload: &[u8]) {
        let number = u64::from_le_bytes(payload.try_into().unwrap());
        let sender = &self.ends[1 - end];
        let me = &self.ends[end];
        let got = me.got.get(&lane).map_or(&[][..], Vec::as_slice);
        if me.peer_life == sender.session.own_life() {
            assert_eq!(sender.peer_life, me.session.own_life(), "only one end takes the numbers for agreed");
            let expected = sender.log.get(&lane).and_then(|log| log.get(got.len()));
            assert_eq!(Some(&number), expected, "{lane:?}");
        } else {
            // Late frames of a process that is gone; nobody has its log any more.
            assert!(got.last().is_none_or(|last| *last < number), "{lane:?}");
        }
        self.ends[end].got.entry(lane).or_default().push(number);
    }

    /// Faultless from here: everything that was sent in this pair of lives arrives.
    fn heal(&mut self) {
        for link in 0..LINKS {
            self.raise(link);
        }
        for _ in 0..4000 {
            for link in 0..LINKS {
                for to in 0..2 {
                    while !self.links[link].to[to].is_empty() {
                        self.step(&Step::Carry { link, to, place: 0 });
                    }
                }
            }
            self.step(&Step::Wait { ms: 5 });
            if self.ends.iter().all(|e| e.session.is_settled()) {
                break;
            }
        }
        for end in 0..2 {
            assert!(self.ends[end].session.is_settled(), "end {end} is never acknowledged");
            assert_eq!(self.ends[1 - end].got, self.ends[end].log, "sent by {end}");
        }
    }
}

fn steps() -> impl Strategy<Value = Step> {
    let link = || 0..LINKS;
    let end = || 0..2usize;
    let place = || 0..6usize;
    prop_oneof![
        12 => (end(), 0..5usize, proptest::bool::weighted(0.1)).prop_map(|(end, class, log)| Step::Send { end, class, log }),
        24 => (link(), end(), place()).prop_map(|(link, to, place)| Step::Carry { link, to, place }),
        2 => (link(), end(), place()).prop_map(|(link, to, place)| Step::Lose { link, to, place }),
        2 => (link(), end(), place()).prop_map(|(link, to, place)| Step::Repeat { link, to, place }),
        1 => link().prop_map(|link| Step::Kill { link }),
        1 => (link(), end()).prop_map(|(link, end)| Step::KillAt { link, end }),
        3 => link().prop_map(|link| Step::Raise { link }),
        1 => (link(), end(), any::<bool>()).prop_map(|(link, end, good)| Step::Hint { link, end, good }),
        4 => (1..80u64).prop_map(|ms| Step::Wait { ms }),
        1 => end().prop_map(|end| Step::Restart { end }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn exactly_once_in_order_per_pair_of_lives(steps in proptest::collection::vec(steps(), 1..250)) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.step(step);
        }
        pair.heal();
    }
}

#[test]
fn the_harness_would_notice_a_lost_frame() {
    let mut pair = Pair::new();
    pair.raise(0);
    pair.send(0, Class::State, false);
    pair.ends[0].log.entry(Lane::State).or_default().push(99);
    let healed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pair.heal()));
    assert!(healed.is_err());
}

fn id(link: usize) -> LinkId {
    LinkId(u8::try_from(link).unwrap())
}
