//! The liveness thread: sockets, clock and keys around one [`Liveness`].
//!
//! It reads its sockets dry, handles, sends, publishes the lease, sleeps until the next deadline. It makes no call that can wait for
//! anyone: sockets do not block, channels are tried, the lease is stored in memory that the kernel's gate and the
//! applications read. What stops speaking is closed *here*, so that a closing can never be overtaken by a renewal.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, TryRecvError};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use sixnines_core::ids::{LinkId, LogIndex, NodeId};
use sixnines_core::time::{Duration, Instant, nanos};

use super::lateness::Lateness;
use super::seal::{DATAGRAM_MAX, KEY_LENGTH, Seals};
use super::{Input, Liveness, Output, Part, Setup, Standing};

/// A word in memory that somebody outside this thread reads: until when a sink may be used (boot-time nanoseconds; 0: closed).
pub trait Word: Send {
    /// Publishes the instant. Must not wait for anyone.
    fn publish(&self, until: Instant);
}

impl Word for Arc<AtomicU64> {
    fn publish(&self, until: Instant) {
        self.store(until.as_nanos(), Ordering::Release);
    }
}

/// What the thread is told.
pub enum Order {
    /// The control log applied entries.
    Applied(LogIndex, BTreeMap<NodeId, Standing>),
    /// This node's log holds an entry about a node.
    Logged(NodeId, LogIndex),
    /// Who can be reached, and where. Whoever is not there any more is deaf and dumb to this node from now on, whatever keys it has: it will be
    /// found dead like any other. Keys are taken only for those who are there.
    Peers(BTreeMap<NodeId, Vec<SocketAddr>>),
    /// A session with a peer has a new key.
    Key(NodeId, u32, [u8; KEY_LENGTH]),
    /// A sink follows the lease from now on, under a number of the caller's.
    Open(u64, Box<dyn Word>),
    /// A sink is closed, and never opened again under that number. Answered when it is done.
    Close(u64, Sender<()>),
    /// End.
    Stop,
}

/// What the thread tells.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// Everything but what is to be sent and the lease.
    Output(Output),
    /// The lease is over (or runs again, with `false`).
    Suspended(bool),
}

/// Counters of the daemon's parts: each turns its own several times within the patience that it is given (protocol 5.3).
#[derive(Default)]
pub struct Turns {
    own: [AtomicU64; 4],
    others: [OnceLock<TurnCounter>; 4],
}

/// Reads a counter that a part keeps by itself. Must not wait for anyone.
pub type TurnCounter = Box<dyn Fn() -> u64 + Send + Sync>;

impl Turns {
    /// The part makes progress.
    pub fn turn(&self, part: Part) {
        self.own[part as usize - 1].fetch_add(1, Ordering::Relaxed);
    }

    /// The part counts by itself. Only the first counter of a part counts.
    pub fn count_by(&self, part: Part, counter: TurnCounter) {
        if self.others[part as usize - 1].set(counter).is_err() {
            tracing::error!(?part, "has a counter already");
        }
    }

    fn read(&self) -> [u64; 4] {
        std::array::from_fn(|i| self.own[i].load(Ordering::Relaxed) + self.others[i].get().map_or(0, |count| count()))
    }
}

impl std::fmt::Debug for Turns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Turns({:?})", self.read())
    }
}

/// Sockets and addresses of the thread.
pub struct Wiring {
    /// One per link, bound to the node's address on it.
    pub sockets: Vec<UdpSocket>,
    /// Each peer's address on each link.
    pub peers: BTreeMap<NodeId, Vec<SocketAddr>>,
    /// Progress of the other parts.
    pub turns: Arc<Turns>,
    /// How long each part may stand still; `None`: it is not watched.
    pub patience: [Option<Duration>; 4],
    /// Where news go. A full channel drops news, counted: the thread waits for nobody.
    pub news: Sender<News>,
}

/// The handle of a running liveness thread.
pub struct Handle {
    orders: Sender<Order>,
    wake: Arc<EventFd>,
    lease: Arc<AtomicU64>,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Datagrams that were not taken.
    pub rejected: AtomicU64,
    /// Datagrams that could not be sent.
    pub unsent: AtomicU64,
    /// News dropped because nobody took them.
    pub dropped: AtomicU64,
    /// How often this node was not scheduled for more than an interval.
    pub pauses: AtomicU64,
    /// The longest of these, in nanoseconds.
    pub longest_pause: AtomicU64,
    /// How often the lease ran out.
    pub suspensions: AtomicU64,
    /// How late the thread was, second by second.
    pub lateness: Lateness,
}

impl Handle {
    /// Starts the thread. `prepare` runs on it first (real-time scheduling, locked memory) and says whether the thread is a real-time one.
    ///
    /// # Errors
    /// If the operating system gives no thread or event descriptor.
    pub fn start(setup: Setup, wiring: Wiring, prepare: impl FnOnce() -> bool + Send + 'static) -> io::Result<Self> {
        let (orders, inbox) = crossbeam::channel::unbounded();
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
        let lease = Arc::new(AtomicU64::new(0));
        let counters = Arc::new(Counters::default());
        for socket in &wiring.sockets {
            socket.set_nonblocking(true)?;
        }
        let mut shell = Shell {
            seals: Seals::new(setup.me),
            machine: Liveness::new(boot_now(), setup),
            wiring,
            inbox,
            wake: Arc::clone(&wake),
            lease: Arc::clone(&lease),
            counters: Arc::clone(&counters),
            sinks: BTreeMap::new(),
            closed: VecDeque::new(),
            seen: [(0, Instant::ZERO); 4],
            is_suspended: true,
            datagram: Vec::with_capacity(DATAGRAM_MAX),
        };
        let thread = std::thread::Builder::new().name("liveness".into()).spawn(move || {
            if !prepare() {
                shell.machine.handle(boot_now(), Input::NoRealTime);
            }
            shell.run();
        })?;
        Ok(Self { orders, wake, lease, counters, thread: Some(thread) })
    }

    /// Tells the thread; it acts within microseconds.
    pub fn order(&self, order: Order) {
        // Both fail only when the thread has ended, and then nothing is left to be told.
        if self.orders.send(order).is_ok() && self.wake.write(1).is_err() {
            tracing::debug!("the liveness thread's wake-up is saturated");
        }
    }

    /// Closes a sink and returns when it is closed.
    pub fn close(&self, sink: u64) {
        let (done, wait) = crossbeam::channel::bounded(1);
        self.order(Order::Close(sink, done));
        if wait.recv().is_err() {
            tracing::debug!("the liveness thread has ended; the gate closes by itself");
        }
    }

    /// Until when this node may speak.
    pub fn lease(&self) -> Instant {
        Instant::from_nanos(self.lease.load(Ordering::Acquire))
    }

    /// What has been counted so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the liveness thread panicked");
        }
    }
}

/// An opening that is still on its way when its sink is closed is at most a few orders behind.
const CLOSED_MAX: usize = 1024;

struct Shell {
    machine: Liveness,
    seals: Seals,
    wiring: Wiring,
    inbox: Receiver<Order>,
    wake: Arc<EventFd>,
    lease: Arc<AtomicU64>,
    counters: Arc<Counters>,
    sinks: BTreeMap<u64, Box<dyn Word>>,
    /// The newest of those that must never open again.
    closed: VecDeque<u64>,
    /// Each part's counter, and when it last moved.
    seen: [(u64, Instant); 4],
    is_suspended: bool,
    datagram: Vec<u8>,
}

impl Shell {
    fn run(&mut self) {
        self.seen = [(0, boot_now()); 4];
        let mut ready = 0;
        loop {
            if !self.take_orders() {
                return self.close_all();
            }
            self.receive(ready, 1); // what is left is told by the next look
            let now = boot_now();
            let stalled = self.stalled(now);
            self.machine.handle(now, Input::Progress(stalled));
            let due = self.machine.poll_timeout();
            if now >= due {
                self.counters.lateness.note(now, now.since(self.machine.beat_due()));
                if now.since(due) > LATE {
                    self.receive(ALL_LINKS, CATCH_UP); // nobody is judged by what has come meanwhile and lies unread (5.1)
                }
                self.machine.handle(boot_now(), Input::Timeout);
            }
            self.carry_out();
            self.note_suspension(boot_now());
            ready = self.sleep();
        }
    }

    /// False when it is time to end.
    fn take_orders(&mut self) -> bool {
        loop {
            match self.inbox.try_recv() {
                Ok(Order::Applied(index, standing)) => self.machine.handle(boot_now(), Input::Applied { index, standing: &standing }),
                Ok(Order::Logged(node, index)) => self.machine.handle(boot_now(), Input::Logged { node, index }),
                Ok(Order::Peers(peers)) => self.take_peers(peers),
                Ok(Order::Key(peer, id, key)) if self.wiring.peers.contains_key(&peer) => self.seals.add_key(peer, id, &key),
                Ok(Order::Key(peer, ..)) => tracing::debug!(%peer, "a key of one who is no peer"),
                Ok(Order::Open(sink, word)) => self.open(sink, word),
                Ok(Order::Close(sink, done)) => self.close(sink, &done),
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    fn take_peers(&mut self, peers: BTreeMap<NodeId, Vec<SocketAddr>>) {
        for node in self.wiring.peers.keys().filter(|n| !peers.contains_key(n)) {
            self.seals.forget(*node);
        }
        for node in peers.keys() {
            self.machine.handle(boot_now(), Input::Peer(*node));
        }
        self.wiring.peers = peers;
    }

    fn open(&mut self, sink: u64, word: Box<dyn Word>) {
        if self.closed.contains(&sink) {
            return word.publish(Instant::ZERO); // relinquished before it was even opened
        }
        word.publish(self.machine.lease());
        self.sinks.insert(sink, word);
    }

    fn close(&mut self, sink: u64, done: &Sender<()>) {
        if let Some(word) = self.sinks.remove(&sink) {
            word.publish(Instant::ZERO);
        }
        self.closed.push_back(sink);
        if self.closed.len() > CLOSED_MAX {
            self.closed.pop_front();
        }
        if done.send(()).is_err() {
            tracing::debug!("nobody waits for the closing");
        }
    }

    fn close_all(&mut self) {
        for word in std::mem::take(&mut self.sinks).into_values() {
            word.publish(Instant::ZERO);
        }
    }

    /// Reads from the sockets that something has come on, so much of each at most: beats go out on time whoever floods the door.
    fn receive(&mut self, ready: u32, datagrams_max: usize) {
        let mut buffer = [0; DATAGRAM_MAX];
        for (index, socket) in self.wiring.sockets.iter().enumerate().filter(|(index, _)| ready & 1 << index != 0) {
            let link = LinkId(u8::try_from(index).expect("at most 4 links"));
            for _ in 0..datagrams_max {
                // Errors (nothing there, a peer's port closed) end the round; the next one comes in a moment.
                let Ok(length) = socket.recv(&mut buffer) else { break };
                match self.seals.open(&buffer[..length]) {
                    Ok(heartbeat) => self.machine.handle(boot_now(), Input::Heard { link, heartbeat: &heartbeat }),
                    Err(_) => {
                        self.counters.rejected.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Send { to, link, heartbeat } => self.send(to, link, &heartbeat),
                Output::Lease(until) => {
                    self.lease.store(until.as_nanos(), Ordering::Release);
                    self.sinks.values().for_each(|word| word.publish(until));
                }
                other => {
                    if let Output::Paused(late) = &other {
                        self.counters.pauses.fetch_add(1, Ordering::Relaxed);
                        self.counters.longest_pause.fetch_max(nanos(*late), Ordering::Relaxed);
                    }
                    self.tell(News::Output(other));
                }
            }
        }
    }

    fn send(&mut self, to: NodeId, link: Option<LinkId>, heartbeat: &super::wire::Heartbeat) {
        let Some(addresses) = self.wiring.peers.get(&to) else { return };
        if !self.seals.seal(to, heartbeat, &mut self.datagram) {
            return; // no session yet
        }
        for (index, (socket, address)) in self.wiring.sockets.iter().zip(addresses).enumerate() {
            if link.is_none_or(|l| usize::from(l.0) == index) && socket.send_to(&self.datagram, address).is_err() {
                self.counters.unsent.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn note_suspension(&mut self, now: Instant) {
        let is_suspended = now >= self.machine.lease();
        if is_suspended == self.is_suspended {
            return;
        }
        self.is_suspended = is_suspended;
        if is_suspended {
            self.counters.suspensions.fetch_add(1, Ordering::Relaxed);
        }
        self.tell(News::Suspended(is_suspended));
    }

    fn tell(&self, news: News) {
        if self.wiring.news.try_send(news).is_err() {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn stalled(&mut self, now: Instant) -> Option<Part> {
        let turns = self.wiring.turns.read();
        for (seen, turn) in self.seen.iter_mut().zip(turns) {
            if seen.0 != turn {
                *seen = (turn, now);
            }
        }
        let parts = [Part::CoreLoop, Part::ControlLog, Part::Checkpoint, Part::Gate];
        let stands_still = |i: &usize| self.wiring.patience[*i].is_some_and(|p| now.since(self.seen[*i].1) > p);
        (0..4).find(stands_still).map(|i| parts[i])
    }

    /// Until something comes or is due. Returns which sockets have something, as bits: a call that finds nothing costs as much as one that
    /// finds something, and there are hundreds of wake-ups a second.
    fn sleep(&mut self) -> u32 {
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(5);
        fds.push(PollFd::new(self.wake.as_fd(), PollFlags::POLLIN));
        fds.extend(self.wiring.sockets.iter().map(|s| PollFd::new(s.as_fd(), PollFlags::POLLIN)));
        let mut due = self.machine.poll_timeout();
        if !self.is_suspended {
            due = due.min(self.machine.lease());
        }
        let wait = due.since(boot_now());
        if ppoll(&mut fds, Some(TimeSpec::from_duration(wait)), None).is_err() {
            return ALL_LINKS; // interrupted, or failed: the loop simply looks at everything
        }
        let has_something = |fd: &PollFd<'_>| fd.revents().is_none_or(|events| !events.is_empty());
        if has_something(&fds[0]) && self.wake.read().is_err() {
            tracing::trace!("somebody was faster");
        }
        fds[1..].iter().enumerate().filter(|(_, fd)| has_something(fd)).fold(0, |bits, (index, _)| bits | 1 << index)
    }
}

/// Later than this the sockets are looked at once more before anything is judged.
const LATE: Duration = Duration::from_micros(500);
/// Datagrams of a socket that are read at once after a pause: more than all peers send while a pause is excused.
const CATCH_UP: usize = 256;
/// Bits of every socket.
const ALL_LINKS: u32 = u32::MAX;

/// `CLOCK_BOOTTIME`, which goes on while the machine sleeps.
pub fn boot_now() -> Instant {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every Linux since 2.6.39 has this clock");
    Instant::from_nanos(nanos(Duration::from(time)))
}

#[cfg(test)]
mod tests {
    use sixnines_core::domain::config::Profile;
    use sixnines_core::ids::Incarnation;

    use super::*;
    use crate::liveness::Verdict;

    fn standing() -> BTreeMap<NodeId, Standing> {
        let row = |i: u64| Standing { incarnation: Incarnation(i), since: LogIndex(i), about: LogIndex(i), voter: true };
        (1..=3u16).map(|i| (NodeId(i), row(u64::from(i)))).collect()
    }

    struct Node {
        handle: Handle,
        news: Receiver<News>,
        address: SocketAddr,
        turns: Arc<Turns>,
    }

    impl Node {
        fn wait_for(&self, mut wanted: impl FnMut(&News) -> bool) -> News {
            loop {
                let news = self.news.recv_timeout(Duration::from_secs(20)).expect("it should have come by now");
                if wanted(&news) {
                    return news;
                }
            }
        }
    }

    /// Three nodes on two loopback addresses each.
    fn three() -> Vec<Node> {
        three_with(None)
    }

    /// The same, where the core loop of the first is watched.
    fn three_with(patience: Option<Duration>) -> Vec<Node> {
        let sockets: Vec<Vec<UdpSocket>> =
            (0..3).map(|_| (0..2).map(|_| UdpSocket::bind("127.0.0.1:0").expect("a free port")).collect()).collect();
        let addresses: Vec<Vec<SocketAddr>> =
            sockets.iter().map(|s| s.iter().map(|s| s.local_addr().expect("bound")).collect()).collect();
        let id = |i: usize| NodeId(u16::try_from(i + 1).expect("few"));
        let nodes = sockets.into_iter().enumerate().map(|(i, sockets)| {
            let (tx, news) = crossbeam::channel::bounded(1024);
            let peers: BTreeMap<_, _> = (0..3).filter(|p| *p != i).map(|p| (id(p), addresses[p].clone())).collect();
            let setup = Setup {
                me: id(i),
                life: 5 + i as u64,
                peers: peers.keys().copied().collect(),
                links: 2,
                times: Profile::Wan.times(), // a loaded machine must not make this test fail
                seed: i as u64,
            };
            let turns = Arc::new(Turns::default());
            let patience = [patience.filter(|_| i == 0), None, None, None];
            let wiring = Wiring { sockets, peers, turns: Arc::clone(&turns), patience, news: tx };
            let handle = Handle::start(setup, wiring, || true).expect("a thread");
            for p in (0..3).filter(|p| *p != i) {
                let key = [u8::try_from(i + p).expect("few"); KEY_LENGTH];
                handle.order(Order::Key(id(p), 1, key));
            }
            handle.order(Order::Applied(LogIndex(3), standing()));
            Node { handle, news, address: addresses[i][0], turns }
        });
        nodes.collect()
    }

    #[test]
    fn nodes_hear_each_other_and_get_a_lease_which_opens_their_sinks() {
        let nodes = three();
        let word = Arc::new(AtomicU64::new(0));
        nodes[0].handle.order(Order::Open(4, Box::new(Arc::clone(&word))));
        nodes[0].wait_for(|n| *n == News::Suspended(false));
        nodes[1].wait_for(|n| matches!(n, News::Output(Output::Verdict { node: NodeId(3), now: Verdict::Alive, .. })));
        while word.load(Ordering::Acquire) == 0 {
            std::thread::yield_now();
        }
        nodes[0].handle.close(4);
        assert_eq!(word.load(Ordering::Acquire), 0);
        nodes[0].handle.order(Order::Open(4, Box::new(Arc::clone(&word))));
    }

    #[test]
    fn a_sink_closed_before_it_was_opened_stays_closed() {
        let nodes = three();
        nodes[0].wait_for(|n| *n == News::Suspended(false));
        nodes[0].handle.close(9);
        let word = Arc::new(AtomicU64::new(77));
        nodes[0].handle.order(Order::Open(9, Box::new(Arc::clone(&word))));
        nodes[0].handle.close(10); // orders are taken in order: when this is answered, the one before has been carried out
        assert_eq!(word.load(Ordering::Acquire), 0);
    }

    #[test]
    fn garbage_is_counted_and_changes_nothing() {
        let nodes = three();
        nodes[0].wait_for(|n| *n == News::Suspended(false));
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        while nodes[0].handle.counters().rejected.load(Ordering::Relaxed) < 10 {
            for length in [0, 3, 18, 200] {
                socket.send_to(&[0x53; 200][..length], nodes[0].address).expect("loopback takes it");
            }
            std::thread::yield_now();
        }
        assert!(boot_now() < nodes[0].handle.lease());
    }

    #[test]
    fn a_daemon_whose_core_loop_hangs_looks_dead_though_its_peers_set_the_pace() {
        let nodes = three_with(Some(Duration::from_millis(500)));
        nodes[1].wait_for(|n| {
            nodes[0].turns.turn(Part::CoreLoop);
            matches!(n, News::Output(Output::Verdict { node: NodeId(1), now: Verdict::Alive, .. }))
        });
        nodes[1].wait_for(|n| matches!(n, News::Output(Output::Verdict { node: NodeId(1), now: Verdict::Dead, .. })));
    }

    #[test]
    fn a_peer_that_is_taken_away_is_not_heard_any_more_whatever_keys_it_brings_and_is_released() {
        let nodes = three();
        nodes[1].wait_for(|n| matches!(n, News::Output(Output::Verdict { node: NodeId(1), now: Verdict::Alive, .. })));
        let everybody: BTreeMap<_, _> = [(NodeId(1), vec![nodes[0].address]), (NodeId(3), vec![nodes[2].address])].into();
        let others: BTreeMap<_, _> = everybody.clone().into_iter().filter(|(node, _)| *node != NodeId(1)).collect();
        nodes[1].handle.order(Order::Peers(others));
        nodes[1].handle.order(Order::Key(NodeId(1), 1, [1; KEY_LENGTH]));
        nodes[1].wait_for(|n| matches!(n, News::Output(Output::Release(r)) if r.target.node == NodeId(1) && r.voter.node == NodeId(2)));
        assert!(nodes[1].handle.counters().rejected.load(Ordering::Relaxed) > 0, "it went on speaking");

        nodes[1].handle.order(Order::Peers(everybody));
        nodes[1].handle.order(Order::Key(NodeId(1), 1, [1; KEY_LENGTH]));
        nodes[1].wait_for(|n| matches!(n, News::Output(Output::Verdict { node: NodeId(1), now: Verdict::Alive, .. })));
    }

    #[test]
    fn a_dead_peer_is_released() {
        let mut nodes = three();
        nodes[1].wait_for(|n| matches!(n, News::Output(Output::Verdict { node: NodeId(1), now: Verdict::Alive, .. })));
        drop(nodes.remove(0));
        nodes[0].wait_for(|n| matches!(n, News::Output(Output::Release(r)) if r.target.node == NodeId(1) && r.voter.node == NodeId(3)));
    }
}
