//! One peer: its session, the connections below it, the queue in front of it, and the task that sends.
//!
//! The core is behind a mutex for the compiler's sake: only the mesh's thread takes it on the way of a frame, never across an
//! `await`, and never while the receiver is called.

use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, VarInt};
use sixnines_core::ids::{LinkId, NodeId};
use sixnines_core::time::Instant;
use tokio::sync::mpsc;
use tokio::time::Sleep;

use super::report::Reports;
use super::stream::LaneStream;
use super::{Fault, LinkStats, PeerConfig, PeerState, QUEUE_BYTES_MAX, Receiver, SendError, link};
use crate::session::{Counters, Input, Output, Session};
use crate::wire::{Class, Decoder, HEADER_BYTES, Kind, Lane, PAYLOAD_BYTES_MAX, Versions};

pub(super) struct Peer {
    pub(super) node: NodeId,
    /// Its domain, and its number there.
    pub(super) at_home: (String, NodeId),
    addresses: Vec<IpAddr>,
    receiver: Arc<dyn Receiver>,
    reports: Arc<Reports>,
    queue: mpsc::UnboundedSender<Work>,
    /// Bytes between [`Peer::send`] and the session's window.
    queued: [AtomicUsize; Lane::COUNT],
    /// The life that the receiver was told of last; 0 before.
    life: AtomicU64,
    core: Mutex<Core>,
}

/// What other threads hand in.
pub(super) enum Work {
    Send(Outgoing),
    Hint { link: LinkId, good: bool },
}

pub(super) struct Outgoing {
    class: Class,
    kind: Kind,
    payload: Bytes,
    /// Whom the sender meant.
    life: u64,
}

struct Core {
    session: Session,
    inbox: mpsc::UnboundedReceiver<Work>,
    staged: [VecDeque<Outgoing>; Lane::COUNT],
    links: BTreeMap<LinkId, Attached>,
    state: Option<PeerState>,
    lives_seen: u64,
    /// No member any more: nothing may be attached.
    expelled: bool,
    sender: Option<Waker>,
    /// When the sending task's timer rings.
    armed: Option<Instant>,
}

struct Attached {
    generation: u64,
    connection: Connection,
    lanes: [LaneStream; Lane::COUNT],
    versions: Versions,
}

/// A connection that both ends have agreed on.
pub(super) struct NewLink {
    pub(super) link: LinkId,
    pub(super) generation: u64,
    pub(super) connection: Connection,
    pub(super) lanes: [LaneStream; Lane::COUNT],
    pub(super) own_life: u64,
    pub(super) peer_life: u64,
    /// What the peer reads.
    pub(super) versions: Versions,
}

/// What the receiver is to be told, once the core is let go.
enum Up {
    Frame { class: Class, kind: Kind, payload: Bytes },
    State(PeerState),
}

/// Work taken from the queue at one go; then others have a turn.
const BATCH: usize = 1024;

impl Peer {
    pub(super) fn new(config: &PeerConfig, domain: &str, session: Session, receiver: Arc<dyn Receiver>, reports: Arc<Reports>) -> Arc<Self> {
        let (queue, inbox) = mpsc::unbounded_channel();
        let at_home = config.at_home(domain);
        let core = Core {
            session,
            inbox,
            staged: Default::default(),
            links: BTreeMap::new(),
            state: None,
            lives_seen: 0,
            expelled: false,
            sender: None,
            armed: None,
        };
        Arc::new(Self {
            node: config.node,
            at_home: (at_home.0.to_owned(), at_home.1),
            addresses: config.links.iter().map(SocketAddr::ip).collect(),
            receiver,
            reports,
            queue,
            queued: Default::default(),
            life: AtomicU64::new(0),
            core: Mutex::new(core),
        })
    }

    /// From any thread.
    pub(super) fn send(&self, class: Class, kind: Kind, payload: Bytes) -> Result<(), SendError> {
        if payload.len() > PAYLOAD_BYTES_MAX || kind.is_internal() {
            return Err(SendError::NotSendable);
        }
        let size = HEADER_BYTES + payload.len();
        let queued = &self.queued[Lane::of(class, kind).index()];
        let before = queued.fetch_add(size, Ordering::Relaxed);
        if before > 0 && before + size > QUEUE_BYTES_MAX {
            queued.fetch_sub(size, Ordering::Relaxed);
            return Err(SendError::Full);
        }
        let life = self.life.load(Ordering::Acquire);
        self.queue.send(Work::Send(Outgoing { class, kind, payload, life })).map_err(|_| SendError::Stopped)
    }

    /// From any thread.
    pub(super) fn push(&self, work: Work) {
        // It can only fail after the stop.
        drop(self.queue.send(work));
    }

    pub(super) fn state(&self) -> Option<PeerState> {
        self.core().state.clone()
    }

    /// Whether something from this address may well be this peer.
    pub(super) fn is_at(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }

    pub(super) fn links(&self) -> Vec<LinkStats> {
        let core = self.core();
        let stats = core.links.iter().map(|(link, attached)| {
            let path = attached.connection.stats().path;
            LinkStats {
                link: *link,
                number: attached.generation,
                good: core.session.is_good(*link),
                round_trip: path.rtt,
                packets_sent: path.sent_packets,
                packets_lost: path.lost_packets,
            }
        });
        stats.collect()
    }

    /// What it said that it reads, on a connection that stands.
    pub(super) fn versions(&self) -> Option<Versions> {
        self.core().links.values().max_by_key(|attached| attached.generation).map(|attached| attached.versions)
    }

    pub(super) fn counters(&self) -> Counters {
        self.core().session.counters()
    }

    /// Our own life towards this peer, and the highest of its lives that we know.
    pub(super) fn lives(&self) -> (u64, u64) {
        let core = self.core();
        (core.session.own_life(), core.session.peer_life())
    }

    /// The peer knows a higher life of this node than ours.
    pub(super) fn raise_life(&self, known: u64) {
        self.act(|session, _now| session.raise_life(known));
    }

    /// Puts a connection to use, in place of an earlier one on its link. False if it came too late.
    pub(super) fn attach(&self, new: NewLink) -> bool {
        let mut up = Vec::new();
        let mut core = self.core();
        let known = (core.session.own_life(), core.session.peer_life());
        if core.expelled || new.own_life != known.0 || new.peer_life < known.1 {
            return false;
        }
        let NewLink { link, generation, connection, lanes, own_life, peer_life, versions } = new;
        let input = Input::LinkUp { link, own_life, peer_life };
        if let Some(old) = core.links.insert(link, Attached { generation, connection, lanes, versions }) {
            old.connection.close(VarInt::from_u32(link::CODE_REPLACED), b"replaced by a newer connection");
        }
        core.session.handle(now(), input).expect("only frames can be the peer's fault");
        self.carry_out(&mut core, &mut up);
        core.wake_sender();
        drop(core);
        self.hand_up(up);
        true
    }

    /// The connection of this generation is gone.
    pub(super) fn detach(&self, link: LinkId, generation: u64) {
        let mut up = Vec::new();
        let mut core = self.core();
        if core.generation(link) != Some(generation) {
            return; // Another one has taken its place.
        }
        core.links.remove(&link);
        core.session.handle(now(), Input::LinkDown { link }).expect("only frames can be the peer's fault");
        self.carry_out(&mut core, &mut up);
        core.wake_sender();
        drop(core);
        self.hand_up(up);
    }

    /// Takes what came on one stream of a connection. The error says why the connection cannot go on.
    pub(super) fn receive(&self, link: LinkId, generation: u64, from: &mut Decoder, chunks: &mut [Bytes]) -> Result<(), String> {
        let mut up = Vec::new();
        let mut core = self.core();
        if core.generation(link) != Some(generation) {
            return Ok(());
        }
        let result = core.read(now(), link, from, chunks);
        self.carry_out(&mut core, &mut up);
        if core.has_work_for_sender() {
            core.wake_sender();
        }
        drop(core);
        self.hand_up(up);
        result
    }

    /// No member any more: every connection is closed, and no other is let in.
    pub(super) fn expel(&self) {
        let mut core = self.core();
        core.expelled = true;
        for attached in std::mem::take(&mut core.links).into_values() {
            attached.connection.close(VarInt::from_u32(link::CODE_STOPPED), b"no member");
        }
    }

    /// Sends what is queued, for ever.
    pub(super) async fn pump(&self) {
        let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
        poll_fn(|cx| {
            self.pump_once(cx, timer.as_mut());
            Poll::<()>::Pending
        })
        .await;
    }

    fn pump_once(&self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) {
        let mut up = Vec::new();
        let mut core = self.core();
        if core.sender.as_ref().is_none_or(|w| !w.will_wake(cx.waker())) {
            core.sender = Some(cx.waker().clone());
        }
        let now = now();
        core.take_queue(now, cx);
        self.number_staged(&mut core, now);
        if core.session.poll_timeout().is_some_and(|due| due <= now) {
            core.session.handle(now, Input::Timeout).expect("only frames can be the peer's fault");
        }
        self.carry_out(&mut core, &mut up);
        for attached in core.links.values_mut() {
            for lane in &mut attached.lanes {
                if !lane.is_empty() {
                    lane.flush(cx);
                }
            }
        }
        // The timer is set only to ring earlier: it may ring for nothing, which is cheaper than setting it for each frame.
        if let Some(due) = core.session.poll_timeout() && core.armed.is_none_or(|armed| due < armed) {
            timer.as_mut().reset(tokio::time::Instant::now() + due.since(now));
            core.armed = Some(due);
        }
        if core.armed.is_some() && timer.poll(cx).is_ready() {
            core.armed = None;
            cx.waker().wake_by_ref();
        }
        drop(core);
        self.hand_up(up);
    }

    /// Moves what is staged into the session, as far as there is room.
    fn number_staged(&self, core: &mut Core, now: Instant) {
        let life = core.session.peer_life();
        for lane in Lane::ALL {
            let staged = &mut core.staged[lane.index()];
            while let Some(next) = staged.front() {
                let size = HEADER_BYTES + next.payload.len();
                let for_another_life = next.life != life && !(next.life == 0 && core.lives_seen <= 1);
                if !for_another_life && !core.session.has_room(lane, next.payload.len()) {
                    break;
                }
                let Some(next) = staged.pop_front() else { break };
                self.queued[lane.index()].fetch_sub(size, Ordering::Relaxed);
                if !for_another_life {
                    core.session.send(now, next.class, next.kind, next.payload).expect("there is room, and send() has checked");
                }
            }
        }
    }

    fn act(&self, action: impl FnOnce(&mut Session, Instant)) {
        let mut up = Vec::new();
        let mut core = self.core();
        action(&mut core.session, now());
        self.carry_out(&mut core, &mut up);
        core.wake_sender();
        drop(core);
        self.hand_up(up);
    }

    fn carry_out(&self, core: &mut Core, up: &mut Vec<Up>) {
        while let Some(output) = core.session.poll_output() {
            match output {
                Output::Transmit { link, lane, frame } => {
                    if let Some(attached) = core.links.get_mut(&link) {
                        attached.lanes[lane.index()].push(frame);
                    }
                }
                Output::Deliver { class, kind, payload } => up.push(Up::Frame { class, kind, payload }),
                Output::PeerLife { life } => {
                    core.lives_seen += 1;
                    self.life.store(life, Ordering::Release);
                }
                Output::LinkState { links } => {
                    let state = PeerState { life: core.session.peer_life(), links_up: links };
                    core.state = Some(state.clone());
                    up.push(Up::State(state));
                }
                Output::Close { link } => {
                    if let Some(old) = core.links.remove(&link) {
                        old.connection.close(VarInt::from_u32(link::CODE_REPLACED), b"of a life that is over");
                    }
                }
            }
        }
    }

    /// A panic of the receiver's costs the item that it was given, and no other: they have been acknowledged.
    fn hand_up(&self, up: Vec<Up>) {
        for item in up {
            let told = catch_unwind(AssertUnwindSafe(|| match item {
                Up::Frame { class, kind, payload } => self.receiver.frame(self.node, class, kind, payload),
                Up::State(state) => self.receiver.peer(self.node, state),
            }));
            if told.is_err() {
                self.reports.fault(&*self.receiver, Fault::Panicked { task: "receiver", peer: self.node });
            }
        }
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        // A panic under the lock can only be an assertion of the session, whose own state is whole before it is asserted.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    fn generation(&self, link: LinkId) -> Option<u64> {
        self.links.get(&link).map(|a| a.generation)
    }

    fn read(&mut self, now: Instant, link: LinkId, from: &mut Decoder, chunks: &mut [Bytes]) -> Result<(), String> {
        for chunk in chunks {
            from.push(std::mem::take(chunk));
            while let Some(frame) = from.next_frame().map_err(|e| e.to_string())? {
                self.session.handle(now, Input::Frame { link, frame }).map_err(|e| e.to_string())?;
            }
        }
        Ok(())
    }

    fn take_queue(&mut self, now: Instant, cx: &mut Context<'_>) {
        let mut batch = Vec::new();
        // Pending means that this task is woken by the next work; after a full batch it wakes itself.
        while let Poll::Ready(count) = self.inbox.poll_recv_many(cx, &mut batch, BATCH) {
            if count == 0 {
                return;
            }
            for work in batch.drain(..) {
                match work {
                    Work::Send(outgoing) => {
                        let lane = Lane::of(outgoing.class, outgoing.kind);
                        self.staged[lane.index()].push_back(outgoing);
                    }
                    Work::Hint { link, good } => {
                        self.session.handle(now, Input::LinkHint { link, good }).expect("only frames can be the peer's fault");
                    }
                }
            }
            if count == BATCH {
                cx.waker().wake_by_ref();
                return;
            }
        }
    }

    fn has_work_for_sender(&self) -> bool {
        let due = self.session.poll_timeout();
        self.links.values().any(|a| a.lanes.iter().any(|lane| !lane.is_empty()))
            || due.is_some_and(|due| self.armed.is_none_or(|armed| due < armed))
            || self.staged.iter().any(|lane| !lane.is_empty())
    }

    fn wake_sender(&self) {
        if let Some(sender) = &self.sender {
            sender.wake_by_ref();
        }
    }
}

/// The boot-time clock, as all machines know it.
fn now() -> Instant {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).expect("Linux has a boot-time clock");
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec()).unwrap_or(0);
    Instant::from_nanos(seconds * 1_000_000_000 + nanos)
}
