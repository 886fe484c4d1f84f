//! Services of several nodes in one process, linked by their hosts, with applications on real sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant as Deadline};

use sixnines_core::domain::{Domain, Entry, Evidence};
use sixnines_core::ids::{Epoch, GroupName, LogIndex, Member, NodeId, Version};
use sixnines_core::roles::Offer;
use sixnines_core::time::Instant;

use super::*;
use crate::clock::boot_now;
use crate::sdk::{App, Changed, Checkpoint, ConnectError, Protection, Replication, Role, Term, WriteError};
use crate::testing::{domain_config, group};
use crate::{Doubt, Level, Op, Outcome, PeerFault, Refused, RequestId};

const PATIENCE: Duration = Duration::from_secs(20);

/// What hosts were told.
#[derive(Clone, Debug, PartialEq)]
enum Told {
    App(NodeId, AppState),
    Quiesced(NodeId, Epoch, Member),
    Silenced(NodeId, Epoch),
    Offered(NodeId, Offer),
}

/// The nodes, and a control log that commits at once.
struct Cluster {
    shared: Arc<Nodes>,
    told: Receiver<Told>,
    _directory: Directory,
    runtimes: Vec<Runtime>,
    handles: BTreeMap<NodeId, Handle>,
}

#[derive(Debug)]
struct Nodes {
    domain: Mutex<Domain>,
    services: Mutex<BTreeMap<NodeId, (Service, GuardPage)>>,
    cut: Mutex<BTreeSet<NodeId>>,
    told: Mutex<Sender<Told>>,
}

#[derive(Debug)]
struct TestHost {
    me: NodeId,
    nodes: Arc<Nodes>,
}

struct Runtime {
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Directory(PathBuf);

impl Host for TestHost {
    fn send(&self, group: &GroupName, to: Member, bytes: Vec<u8>) {
        let cut = self.nodes.cut.lock().expect("no panic");
        if cut.contains(&self.me) || cut.contains(&to.node) {
            return;
        }
        if let Some((service, _)) = self.nodes.services.lock().expect("no panic").get(&to.node) {
            service.frame(group, self.me, bytes);
        }
    }

    fn propose_sync(&self, group: &GroupName, version: Version, in_sync: BTreeSet<Member>) {
        let by = self.nodes.member(self.me);
        self.nodes.commit(&Entry::Sync { group: group.clone(), version, by, in_sync });
    }

    fn app(&self, _: &GroupName, state: AppState) {
        self.tell(Told::App(self.me, state));
    }

    fn quiesced(&self, _: &GroupName, epoch: Epoch, target: Member) {
        self.tell(Told::Quiesced(self.me, epoch, target));
    }

    fn quiesce_failed(&self, _: &GroupName, _: Epoch, _: Member) {}

    fn silenced(&self, _: &GroupName, epoch: Epoch) {
        self.tell(Told::Silenced(self.me, epoch));
    }

    fn offered(&self, _: &GroupName, offer: Offer) {
        self.tell(Told::Offered(self.me, offer));
    }

    fn loss_window(&self, _: &GroupName, _: u64) {}

    fn peer_fault(&self, _: &GroupName, fault: PeerFault) {
        panic!("{fault}");
    }

    fn copy_lost(&self, group: &GroupName) {
        panic!("the task of {group} has panicked");
    }
}

impl TestHost {
    fn tell(&self, told: Told) {
        drop(self.nodes.told.lock().expect("no panic").send(told)); // a test that has ended does not listen
    }
}

impl Nodes {
    fn member(&self, node: NodeId) -> Member {
        self.domain.lock().expect("no panic").member(node).expect("it joined")
    }

    fn row(&self) -> sixnines_core::domain::GroupRow {
        self.domain.lock().expect("no panic").groups[&group()].clone()
    }

    fn commit(&self, entry: &Entry) {
        let mut domain = self.domain.lock().expect("no panic");
        let index = LogIndex(domain.applied.0 + 1);
        let changed = domain.apply(index, entry).is_ok();
        if let (true, Some(row)) = (changed, domain.groups.get(&group())) {
            for (service, _) in self.services.lock().expect("no panic").values() {
                service.row(&group(), row.clone());
            }
        }
    }
}

impl Cluster {
    /// Two nodes, n1 to be active; n2's service joins with it.
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("nines-ckpt-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).expect("a fresh directory");
        let (told, heard) = channel();
        let shared = Arc::new(Nodes { domain: Mutex::default(), services: Mutex::default(), cut: Mutex::default(), told: Mutex::new(told) });
        let mut cluster = Self { shared, told: heard, _directory: Directory(directory), runtimes: Vec::new(), handles: BTreeMap::new() };
        let nodes = [NodeId(1), NodeId(2)];
        cluster.shared.commit(&Entry::Configure { expected: Version(0), config: domain_config(&nodes) });
        nodes.iter().for_each(|n| cluster.start(*n));
        let (version, to) = (cluster.shared.row().version, cluster.shared.member(NodeId(1)));
        cluster.shared.commit(&Entry::Start { group: group(), version, to, offers: BTreeSet::new(), lost: false });
        cluster.lease(NodeId(1), true);
        cluster.until(|c| c.shared.row().in_sync.len() == 2);
        cluster
    }

    /// A node's service, in a new life of the node.
    fn start(&mut self, node: NodeId) {
        let runtime = Runtime::start();
        let host = Arc::new(TestHost { me: node, nodes: Arc::clone(&self.shared) });
        let config = ServiceConfig {
            socket: Some(self.socket(node)),
            tokens: [("secret".into(), "word".to_owned())].into(),
            ..ServiceConfig::default()
        };
        let guard = GuardPage::new().expect("memory");
        let service = Service::start(config, &runtime.0, host, guard.clone()).expect("a socket");
        service.open(&group(), CopyConfig::default());
        service.open(&"secret".into(), CopyConfig::default());
        self.runtimes.push(runtime.1);
        self.handles.insert(node, runtime.0);
        self.shared.services.lock().expect("no panic").remove(&node);
        let (nonce, replaces) = {
            let domain = self.shared.domain.lock().expect("no panic");
            (domain.applied.0, domain.member(node).map(|m| m.incarnation).unwrap_or_default())
        };
        self.shared.commit(&Entry::Joined { node, nonce, replaces });
        service.begin_life(self.shared.member(node));
        service.row(&group(), self.shared.row());
        self.shared.services.lock().expect("no panic").insert(node, (service, guard));
    }

    fn socket(&self, node: NodeId) -> PathBuf {
        self._directory.0.join(format!("{node}.sock"))
    }

    fn service(&self, node: NodeId) -> Service {
        self.shared.services.lock().expect("no panic")[&node].0.clone()
    }

    fn app(&self, node: NodeId) -> (App, Checkpoint) {
        let app = App::connect_to(self.socket(node), group().as_str()).expect("the service answers");
        let calls = app.open("calls", Replication::default()).expect("a good name");
        (app, calls)
    }

    fn lease(&self, node: NodeId, valid: bool) {
        let until = if valid { boot_now() + Duration::from_secs(3600) } else { Instant::ZERO };
        self.shared.services.lock().expect("no panic")[&node].1.lease_word().store(until);
    }

    /// The active `from` is cut off, and its lease has run out; the other one takes over.
    fn take_over(&self, from: NodeId, to: NodeId) {
        self.lease(from, false);
        let row = self.shared.row();
        let (by, to) = (row.active.expect("it runs"), self.shared.member(to));
        let evidence = Evidence::Relinquished { by, epoch: row.epoch };
        self.shared.commit(&Entry::Takeover { group: group(), version: row.version, to, evidence });
        assert_eq!(self.shared.row().active, Some(to), "only a member of the set takes over");
        self.lease(to.node, true);
    }

    /// The newest record of a node's copy.
    fn head(&self, node: NodeId) -> u64 {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let status = runtime.block_on(self.service(node).status(&group()));
        status.expect("the group is open").head.sequence.0
    }

    fn cut(&self, node: NodeId, cut: bool) {
        let mut cuts = self.shared.cut.lock().expect("no panic");
        if cut { cuts.insert(node) } else { cuts.remove(&node) };
    }

    fn until(&self, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Deadline::now() + PATIENCE;
        while !holds(self) {
            assert!(Deadline::now() < deadline, "it never comes to be");
            std::thread::yield_now();
        }
    }

    fn hears(&self, wanted: &Told) {
        let deadline = Deadline::now() + PATIENCE;
        loop {
            let told = self.told.recv_timeout(deadline - Deadline::now()).expect("it is told in time");
            if told == *wanted {
                return;
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let services = std::mem::take(&mut *self.shared.services.lock().unwrap_or_else(PoisonError::into_inner));
        services.values().for_each(|(s, _)| s.stop());
        self.runtimes.clear();
    }
}

impl Runtime {
    fn start() -> (Handle, Self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let handle = runtime.handle().clone();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || drop(runtime.block_on(stopped)));
        (handle, Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the runtime's thread has not panicked");
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn term(app: &App) -> Term {
    loop {
        match app.next_role_within(PATIENCE).expect("a role in time") {
            Role::Active(term) => return term,
            Role::Standby | Role::Lost | Role::Quiescing => {}
        }
    }
}

fn standby(app: &App) {
    while !matches!(app.next_role_within(PATIENCE).expect("a role in time"), Role::Standby) {}
}

fn text(checkpoint: &Checkpoint, key: &str) -> Option<String> {
    checkpoint.get(key).map(|s| String::from_utf8_lossy(&s.bytes).into_owned())
}

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);

#[test]
fn a_standby_follows_and_takes_over_with_what_was_acknowledged() {
    let cluster = Cluster::new();
    let (one, calls) = cluster.app(N1);
    let (two, copy) = cluster.app(N2);
    let first = term(&one);
    standby(&two);
    let applied = calls.put(&first, "id-1", "ringing").expect("a valid term").wait().expect("two copies");
    assert_eq!(applied.protection, Protection::Replicated { copies: 2 });
    cluster.until(|_| text(&copy, "id-1") == Some("ringing".into()));

    let (told, heard) = channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            copy.follow(|change| told.send(change).expect("the test listens"));
            told.send(Changed::Delete { key: "the end".into() }).expect("the test listens");
        });
        assert_eq!(heard.recv_timeout(PATIENCE), Ok(Changed::Reset));
        assert!(matches!(heard.recv_timeout(PATIENCE), Ok(Changed::Put { key, .. }) if *key == *b"id-1"));
        calls.put(&first, "id-2", "talking").expect("a valid term").wait().expect("two copies");
        assert!(matches!(heard.recv_timeout(PATIENCE), Ok(Changed::Put { key, section }) if *key == *b"id-2" && *section.bytes == *b"talking"));
        assert!(first.guard());
        cluster.take_over(N1, N2);
        assert_eq!(heard.recv_timeout(PATIENCE), Ok(Changed::Delete { key: "the end".into() }));
    });

    let second = term(&two);
    assert_eq!((first.epoch(), second.epoch()), (Epoch(1), Epoch(2)));
    assert!(!first.guard() && !second.state_was_lost());
    cluster.until(|_| second.guard());
    assert_eq!(text(&copy, "id-2"), Some("talking".into()));
    assert_eq!(copy.len(), 2);
    let applied = copy.put(&second, "id-3", "new").expect("a valid term").wait().expect("one copy is the floor");
    assert!(matches!(applied.protection, Protection::Unprotected { copies: 1 } | Protection::Replicated { copies: 2 }));
    standby(&one);
    assert!(matches!(calls.put(&first, "id-4", "too late"), Err(WriteError::Fenced { .. })));
    cluster.until(|_| text(&calls, "id-3") == Some("new".into()));
}

#[test]
fn nothing_is_told_while_the_lease_is_over_and_all_of_it_when_it_is_back() {
    let cluster = Cluster::new();
    let (app, calls) = cluster.app(N1);
    let term = term(&app);
    cluster.lease(N1, false);
    assert!(!term.guard());
    let (told, heard) = channel();
    for key in 0_u8..3 {
        let told = told.clone();
        let reply = move |_| told.send(key).expect("the test listens");
        calls.put(&term, [key], "x").expect("suspended is not fenced").commit_then(reply);
    }
    // The standby has them, so only the lease is missing.
    let (_two, copy) = cluster.app(N2);
    cluster.until(|_| copy.len() == 3);
    assert!(heard.try_recv().is_err());
    cluster.lease(N1, true);
    for key in 0..3 {
        assert_eq!(heard.recv_timeout(PATIENCE), Ok(key));
    }
}

#[test]
fn a_reply_is_dropped_and_counted_when_a_higher_epoch_comes_first() {
    let cluster = Cluster::new();
    let (app, calls) = cluster.app(N1);
    let first = term(&app);
    cluster.cut(N2, true);
    let (told, heard) = channel();
    let reply = told.clone();
    let write = || calls.put(&first, "k", "v").expect("a valid term");
    write().commit_then(move |applied| reply.send(Ok(applied)).expect("the test listens"));
    write().then(move |result| told.send(result).expect("the test listens"));
    cluster.until(|c| c.head(N1) == 2);
    cluster.take_over(N1, N2);
    assert_eq!(heard.recv_timeout(PATIENCE), Ok(Err(WriteError::Unknown(Doubt::Fenced { by: Epoch(2) }))));
    assert!(heard.try_recv().is_err(), "the reply was dropped");
    assert_eq!(app.unknown_outcomes(), 2);
}

#[test]
fn the_end_of_the_service_is_a_lost_lease() {
    let mut cluster = Cluster::new();
    let (app, calls) = cluster.app(N1);
    let before = term(&app);
    cluster.cut(N2, true);
    let pending = calls.put(&before, "k", "v").expect("a valid term");
    cluster.service(N1).stop();
    assert!(matches!(app.next_role_within(PATIENCE), Some(Role::Lost)));
    assert!(!before.guard());
    assert_eq!(pending.wait(), Err(WriteError::Unknown(Doubt::Disconnected)));
    assert!(matches!(calls.put(&before, "k", "v"), Err(WriteError::Fenced { .. })));
    cluster.cut(N2, false);
    cluster.start(N1);
    standby(&app);
    cluster.take_over(N1, N2);
    let (two, copy) = cluster.app(N2);
    let after = term(&two);
    copy.put(&after, "k", "w").expect("a valid term").wait().expect("one copy");
    cluster.until(|_| text(&calls, "k") == Some("w".into()));
}

#[test]
fn an_application_that_starts_again_has_its_state() {
    let cluster = Cluster::new();
    let (app, calls) = cluster.app(N1);
    let before = term(&app);
    for number in 0..100_u32 {
        calls.put(&before, number.to_be_bytes(), vec![7; 40_000]).expect("a valid term").commit_then(|_| {});
    }
    calls.confirm(&before).expect("a valid term").wait().expect("all are held");
    app.close();
    cluster.hears(&Told::App(N1, AppState::Gone));
    assert!(matches!(calls.put(&before, "k", "v"), Err(WriteError::Fenced { .. })));
    let (app, calls) = cluster.app(N1);
    let after = term(&app);
    assert_eq!(before.epoch(), after.epoch(), "the role was kept");
    assert_eq!(calls.len(), 100);
    assert!(calls.iter().all(|(_, section)| section.bytes.len() == 40_000));
}

#[test]
fn a_second_process_of_a_group_a_stranger_and_an_unknown_group_are_refused() {
    let cluster = Cluster::new();
    let (_app, _) = cluster.app(N1);
    let refused = |group: &str| {
        let target = cluster.socket(N1);
        let app = std::thread::scope(|s| s.spawn(|| App::connect_to(&target, group)).join().expect("no panic"));
        match app {
            Err(ConnectError::Refused(refused)) => refused,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused("elsewhere"), Refused::UnknownGroup("elsewhere".into()));
    assert_eq!(refused("secret"), Refused::NotPermitted("secret".into()));
    assert_eq!(refused(group().as_str()), Refused::Taken(group()));
}

#[test]
fn one_application_too_many_is_refused_by_name_and_let_in_when_another_goes() {
    let cluster = Cluster::new();
    cluster.service(N1).admit_at_most(1);
    let (app, _) = cluster.app(N1);
    let target = cluster.socket(N1);
    assert_eq!(cluster.service(N1).clients().0, 1);
    match App::connect_to(&target, "secret") {
        Err(ConnectError::Refused(refused)) => assert_eq!(refused, Refused::Full(1)),
        other => panic!("{other:?}"),
    }
    assert!(cluster.service(N1).clients().1 > 0, "counted");
    drop(app);
    cluster.until(|c| c.service(N1).clients().0 == 0);
    drop(cluster.app(N1));
}

#[test]
fn a_large_state_and_what_is_written_meanwhile_come_whole() {
    const SECTIONS: u32 = 400;
    let cluster = Cluster::new();
    let (one, calls) = cluster.app(N1);
    let term = term(&one);
    for number in 0..SECTIONS {
        calls.put(&term, number.to_be_bytes(), vec![1; 300_000]).expect("a valid term").commit_then(|_| {});
    }
    calls.confirm(&term).expect("a valid term").wait().expect("all are held");
    let (two, copy) = cluster.app(N2);
    standby(&two);
    for number in (0..SECTIONS).step_by(7) {
        calls.put(&term, number.to_be_bytes(), "new").expect("a valid term").commit_then(|_| {});
    }
    cluster.until(|_| copy.len() == SECTIONS as usize && copy.iter().all(|(key, s)| {
        let number = u32::from_be_bytes(key[..].try_into().expect("four bytes"));
        if number % 7 == 0 { *s.bytes == *b"new" } else { s.bytes.len() == 300_000 }
    }));
}

#[test]
fn a_handover_waits_for_the_application_and_loses_nothing() {
    let cluster = Cluster::new();
    let (one, calls) = cluster.app(N1);
    let (two, copy) = cluster.app(N2);
    let first = term(&one);
    standby(&two);
    let target = cluster.shared.member(N2);
    cluster.service(N1).quiesce(&group(), first.epoch(), target);
    assert!(matches!(one.next_role_within(PATIENCE), Some(Role::Quiescing)));
    let last = calls.put(&first, "last", "words").expect("still its role");
    one.drained();
    assert!(last.wait().is_ok());
    cluster.hears(&Told::Quiesced(N1, Epoch(1), target));
    assert!(!first.guard());
    assert!(matches!(calls.put(&first, "k", "v").map(|p| p.wait()), Ok(Err(WriteError::Quiescing))));
    cluster.service(N1).relinquish(&group(), first.epoch());
    cluster.hears(&Told::Silenced(N1, Epoch(1)));
    let row = cluster.shared.row();
    let by = row.active.expect("it runs");
    cluster.shared.commit(&Entry::Switchover { group: group(), version: row.version, by, to: target });
    cluster.lease(N2, true);
    let second = term(&two);
    assert_eq!(text(&copy, "last"), Some("words".into()));
    let applied = copy.put(&second, "k", "v").expect("a valid term").wait().expect("both copies");
    assert_eq!(applied.protection, Protection::Replicated { copies: 2 }, "the set was kept");
}

#[test]
fn a_handover_that_is_called_off_gives_the_role_back() {
    let cluster = Cluster::new();
    let (one, calls) = cluster.app(N1);
    let first = term(&one);
    cluster.cut(N2, true);
    cluster.service(N1).quiesce(&group(), first.epoch(), cluster.shared.member(N2));
    assert!(matches!(one.next_role_within(PATIENCE), Some(Role::Quiescing)));
    cluster.service(N1).resume(&group(), first.epoch());
    let again = term(&one);
    assert_eq!(again.epoch(), first.epoch());
    cluster.cut(N2, false);
    assert!(calls.put(&again, "k", "v").expect("a valid term").wait().is_ok());
}

#[test]
fn very_many_writes_in_flight_are_all_acknowledged_in_order() {
    const COUNT: usize = 50_000;
    let cluster = Cluster::new();
    let (app, calls) = cluster.app(N1);
    let (_two, copy) = cluster.app(N2);
    let term = term(&app);
    let (told, heard) = channel();
    for number in 0..COUNT {
        let told = told.clone();
        let reply = move |_| told.send(number).expect("the test listens");
        calls.put(&term, (number % 1000).to_be_bytes(), number.to_be_bytes().as_slice()).expect("a valid term").commit_then(reply);
    }
    for number in 0..COUNT {
        assert_eq!(heard.recv_timeout(PATIENCE), Ok(number));
    }
    cluster.until(|_| (0..1000_usize).all(|k| copy.get(k.to_be_bytes()).is_some_and(|s| *s.bytes == (COUNT - 1000 + k).to_be_bytes())));
}

#[test]
fn a_repeat_is_applied_once_also_by_the_next_active() {
    let cluster = Cluster::new();
    let (one, calls) = cluster.app(N1);
    let (two, copy) = cluster.app(N2);
    let request = RequestId { client: 4, serial: 1 };
    let add = |calls: &Checkpoint, term: &Term| calls.batch().append("log", "x").request(request).write(term).expect("a valid term").wait().expect("held");
    let first = term(&one);
    let applied = add(&calls, &first);
    assert_eq!(add(&calls, &first).cursor, applied.cursor);
    cluster.take_over(N1, N2);
    let second = term(&two);
    assert_eq!(add(&copy, &second).cursor, applied.cursor);
    let (section, fresh) = copy.read(&second, "log").expect("a valid term").wait().expect("an answer");
    assert_eq!((section.map(|s| s.bytes.to_vec()), fresh), (Some(b"x".to_vec()), true));
}

#[test]
fn a_batch_is_refused_as_a_whole_when_a_section_is_not_as_expected() {
    let cluster = Cluster::new();
    let (app, calls) = cluster.app(N1);
    let term = term(&app);
    let once = |key: &str| calls.batch().put("other", "1").expect(key, None).put(key, "mine").write(&term).expect("a valid term").wait();
    assert!(once("lock").is_ok());
    calls.delete(&term, "other").expect("a valid term").wait().expect("held");
    assert_eq!(once("lock"), Err(WriteError::Conflict { step: 1 }));
    assert_eq!(text(&calls, "other"), None);
    let version = calls.get("lock").map(|s| s.version);
    let swap = calls.batch().expect("lock", version).put("lock", "yours").write(&term).expect("a valid term").wait();
    assert!(swap.is_ok());
    assert_eq!(text(&calls, "lock"), Some("yours".into()));
}

#[test]
fn an_application_in_the_nodes_own_process_needs_no_socket() {
    let cluster = Cluster::new();
    let (told, heard) = channel();
    let mut owner = cluster.service(N1).local(&group(), move |event| told.send(event).expect("the test listens"));
    let next = move || heard.recv_timeout(PATIENCE).expect("told in time");
    assert!(matches!(next(), LocalEvent::Follow(crate::Follow::Image { .. })));
    assert_eq!(next(), LocalEvent::Role(crate::Role::Active { epoch: Epoch(1), lost: false }));
    let ticket = owner.write(Epoch(1), None, Level::default(), vec![Op::Put { key: "alarm".into(), bytes: "1".into() }]);
    assert!(matches!(next(), LocalEvent::Outcome { ticket: t, outcome: Outcome::Applied { copies: 2, .. } } if t == ticket));
    let ticket = owner.read(Epoch(1), "alarm");
    assert!(matches!(next(), LocalEvent::Answer { ticket: t, answer: crate::Answer::Section { section: Some(_), fresh: true } } if t == ticket));
    cluster.service(N1).quiesce(&group(), Epoch(1), cluster.shared.member(N2));
    assert_eq!(next(), LocalEvent::Quiescing { epoch: Epoch(1) });
    drop(owner);
    cluster.hears(&Told::Quiesced(N1, Epoch(1), cluster.shared.member(N2)));
}

#[test]
fn a_copy_is_put_forward_once_and_takes_nothing_older_then() {
    let cluster = Cluster::new();
    let (app, calls) = cluster.app(N1);
    let term = term(&app);
    let applied = calls.put(&term, "k", "v").expect("a valid term").wait().expect("two copies");
    cluster.service(N2).offer(&group(), cluster.shared.row().version);
    let offer = Offer { complete: true, epoch: applied.cursor.epoch, sequence: applied.cursor.sequence.0, member: cluster.shared.member(N2) };
    cluster.hears(&Told::Offered(N2, offer));
    let alone = calls.put(&term, "k", "w").expect("a valid term").wait().expect("the set shrinks to one");
    assert_eq!(alone.protection, Protection::Unprotected { copies: 1 });
    assert_eq!((cluster.head(N1), cluster.head(N2)), (2, 1));
}

/// Found with a whole node that was stopped for two seconds: its daemon, awake first, killed the application for its silence.
#[test]
fn a_node_that_stood_still_does_not_blame_its_application() {
    let cluster = Cluster::new();
    let (_app, _calls) = cluster.app(N1);
    cluster.hears(&Told::App(N1, AppState::Ready));
    cluster.handles[&N1].spawn(async { std::thread::sleep(ServiceConfig::default().silence * 2) });
    cluster.head(N1); // it is awake again, and has looked at what was due
    assert!(cluster.told.try_iter().all(|told| told != Told::App(N1, AppState::Hanging)));
}
