//! Three nodes and two chassis on loopback, as an operator would start them: real daemons, real applications, real sockets.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// How long a state may take to come. A test waits for the state, never for the time.
const SOON: Duration = Duration::from_secs(60);

/// A running domain. Everything ends when it is dropped.
pub(crate) struct Domain {
    home: tempfile::TempDir,
    nodes: Vec<Option<Child>>,
    /// What stands in the environment of each node's daemon, from its next start on.
    env: BTreeMap<usize, Vec<(&'static str, &'static str)>>,
    chassis: Vec<Child>,
    pub(crate) network: u8,
    _held: UdpSocket,
}

impl Domain {
    /// Starts it and waits until it is redundant.
    pub(crate) fn start(services: &[&str]) -> Self {
        Self::start_as(services, &[])
    }

    /// The same, made with these options.
    pub(crate) fn start_as(services: &[&str], options: &[&str]) -> Self {
        Self::start_edited(services, options, |_, yaml| yaml)
    }

    /// The same, with the domain's file changed before anybody reads it.
    pub(crate) fn start_edited(services: &[&str], options: &[&str], edit: impl FnOnce(&Self, String) -> String) -> Self {
        Self::start_whole(services, options, edit, |_| Vec::new())
    }

    /// The same, with something in the environment of its daemons.
    pub(crate) fn start_whole(services: &[&str], options: &[&str], edit: impl FnOnce(&Self, String) -> String, env: impl Fn(usize) -> Vec<(&'static str, &'static str)>) -> Self {
        // Any 127.x.0.0/16 whose keeper's port is free is ours, as the demo does it.
        let (network, held) = (9..=250)
            .find_map(|x| Some((x, UdpSocket::bind((Ipv4Addr::new(127, x, 0, 200), 4200)).ok()?)))
            .expect("a free loopback network");
        let home = tempfile::tempdir().expect("a directory");
        let mut domain = Self { home, nodes: vec![None, None, None], env: (1..=3).map(|node| (node, env(node))).collect(), chassis: Vec::new(), network, _held: held };
        let yaml = edit(&domain, domain.yaml(services));
        std::fs::write(domain.path("domain.yaml"), yaml).expect("it is written");
        let made = nines(&[&["init", text_of(&domain.path("lab")), "--domain", text_of(&domain.path("domain.yaml"))], options].concat());
        assert!(made.status.success(), "{}", said(&made));
        for chassis in 1..=2 {
            let listen = format!("127.{network}.{}.254:4300", 10 + chassis);
            domain.chassis.push(spawn(&["chassis", "--name", &format!("mxp{chassis}"), "--listen", &listen]));
        }
        for node in 1..=3 {
            domain.start_node(node);
        }
        domain.wait_redundant();
        domain
    }

    fn yaml(&self, services: &[&str]) -> String {
        let x = self.network;
        let mut text = "domain: test\nprofile: lan\nnodes:\n".to_owned();
        for node in 1..=3 {
            let chassis = if node < 3 { "mxp1" } else { "mxp2" };
            text += &format!("  - {{ id: {node}, chassis: {chassis}, links: [\"127.{x}.1.{node}:7600\", \"127.{x}.2.{node}:7600\"] }}\n");
        }
        text += "chassis:\n";
        for chassis in 1..=2 {
            text += &format!("  - {{ name: mxp{chassis}, manager: \"127.{x}.{}.254:4300\" }}\n", 10 + chassis);
        }
        text += if services.is_empty() { "services: []\n" } else { "services:\n" };
        for service in services {
            let listen: Vec<String> = (1..=3).map(|n| format!("--listen, \"n{n}={}\"", self.door(service, n))).collect();
            text += &format!("  - {{ name: {service}, command: [\"{}\", callserver, {}] }}\n", env!("CARGO_BIN_EXE_nines"), listen.join(", "));
        }
        text
    }

    /// A node's address on each link, with a comma between.
    pub(crate) fn links(&self, node: usize) -> String {
        (1..=2).map(|link| format!("127.{}.{link}.{node}:7600", self.network)).collect::<Vec<_>>().join(",")
    }

    /// Where a service listens on a node.
    pub(crate) fn door(&self, service: &str, node: usize) -> String {
        let number = service.bytes().fold(0u8, u8::wrapping_add) % 90; // names of one test's services must differ in this
        format!("127.{}.{}.{node}:4100", self.network, 100 + number)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn config(&self, node: usize) -> PathBuf {
        self.path(&format!("lab/n{node}/nines.yaml"))
    }

    pub(crate) fn start_node(&mut self, node: usize) {
        let log = std::fs::File::options().create(true).append(true).open(self.path(&format!("n{node}.log"))).expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_nines"))
            .args(["run", "--without-gate", "--config", text_of(&self.config(node))])
            .envs(self.env.get(&node).cloned().unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nines runs");
        self.nodes.resize_with(self.nodes.len().max(node), || None);
        self.nodes[node - 1] = Some(child);
    }

    /// What its daemon finds in its environment, from its next start on.
    pub(crate) fn set_env(&mut self, node: usize, env: &[(&'static str, &'static str)]) {
        self.env.insert(node, env.to_vec());
    }

    /// Waits until the daemon has ended by itself.
    pub(crate) fn wait_ended(&mut self, node: usize) -> ExitStatus {
        let mut watched = Watched(self.nodes[node - 1].take().expect("it runs"));
        self.wait("it ends by itself", |_| watched.0.try_wait().expect("it can be looked at"))
    }

    /// kill -9 of the daemon; its applications die with it.
    pub(crate) fn kill_node(&mut self, node: usize) {
        let mut child = self.nodes[node - 1].take().expect("it runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it has ended");
    }

    /// The daemon's process, which a device would switch off with its node.
    pub(crate) fn pid(&self, node: usize) -> u32 {
        self.nodes[node - 1].as_ref().expect("it runs").id()
    }

    /// It hangs: nothing of it runs, and nothing of it has ended. Its applications go on.
    pub(crate) fn hang_node(&self, node: usize) {
        let pid = Pid::from_raw(i32::try_from(self.pid(node)).expect("a pid"));
        kill(pid, Signal::SIGSTOP).expect("it can be stopped");
    }

    /// It goes on.
    pub(crate) fn wake_node(&self, node: usize) {
        let pid = Pid::from_raw(i32::try_from(self.pid(node)).expect("a pid"));
        kill(pid, Signal::SIGCONT).expect("it can be told");
    }

    /// Somebody else has killed it.
    pub(crate) fn reap_node(&mut self, node: usize) {
        self.nodes[node - 1].take().expect("it ran").wait().expect("it has ended");
    }

    /// Ends the daemon in good order and waits for it.
    pub(crate) fn stop_node(&mut self, node: usize) {
        let mut child = self.nodes[node - 1].take().expect("it runs");
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        kill(pid, Signal::SIGTERM).expect("it can be told");
        assert!(child.wait().expect("it has ended").success(), "an orderly stop is a success");
    }

    pub(crate) fn ask(&self, node: usize, arguments: &[&str]) -> Output {
        nines(&[arguments, &["--node", text_of(&self.config(node))]].concat())
    }

    /// The answer as JSON, or `None` if the node does not answer.
    pub(crate) fn json(&self, node: usize, arguments: &[&str]) -> Option<Value> {
        let output = self.ask(node, &[arguments, &["--json"]].concat());
        output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
    }

    /// Who votes in the control log, as a node sees it.
    pub(crate) fn voters(&self, node: usize) -> Vec<u64> {
        let nodes = self.json(node, &["status"]).and_then(|s| s.pointer("/status/nodes")?.as_array().cloned()).unwrap_or_default();
        nodes.iter().filter(|n| n["log"] == "votes").filter_map(|n| n["id"].as_u64()).collect()
    }

    /// A node's row of the status, as another one sees it.
    pub(crate) fn row(&self, asked: usize, about: u64) -> Option<Value> {
        let rows = self.json(asked, &["status"])?.pointer("/status/nodes")?.as_array()?.clone();
        rows.into_iter().find(|n| n["id"] == about)
    }

    /// One service or chassis as a node sees it.
    pub(crate) fn group(&self, node: usize, name: &str) -> Option<Value> {
        let status = self.json(node, &["status"])?;
        let rows = ["/status/services", "/status/chassis"].map(|at| status.pointer(at).and_then(Value::as_array).cloned().unwrap_or_default());
        rows.concat().into_iter().find(|row| row["name"] == name)
    }

    /// Who is active and speaks, as a node sees it.
    pub(crate) fn active(&self, node: usize, name: &str) -> Option<usize> {
        let row = self.group(node, name).filter(|row| row["is_serving"] == true)?;
        usize::try_from(row["active"].as_u64()?).ok()
    }

    pub(crate) fn wait_redundant(&self) {
        self.wait("every node finds the domain redundant", |d| (1..=3).all(|n| d.ask(n, &["status", "--check"]).status.success() && d.is_whole(n)));
    }

    /// Every node up, on every link.
    fn is_whole(&self, node: usize) -> bool {
        let Some(status) = self.json(node, &["status"]) else { return false };
        let is_up = |row: &Value| row["state"] == "up" && row["links"].as_array().is_some_and(|links| links.iter().all(|up| *up == true));
        status["status"]["nodes"].as_array().is_some_and(|rows| rows.iter().all(is_up))
    }

    pub(crate) fn wait<T: Found>(&self, what: &str, mut look: impl FnMut(&Self) -> T) -> T::What {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(found) = look(self).found() {
                return found;
            }
            if Instant::now() > deadline {
                let seen = [1, 2, 3].map(|n| said(&self.ask(n, &["status"]))).concat();
                let logs: Vec<String> = (1..=3).map(|n| std::fs::read_to_string(self.path(&format!("n{n}.log"))).unwrap_or_default()).collect();
                panic!("it never came to it: {what}\n{seen}\n{}", logs.join("\n--- next node\n"));
            }
            std::thread::yield_now();
        }
    }
}

/// A process that is ended with whoever waits for its end.
struct Watched(Child);

impl Drop for Watched {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// What a look can find.
pub(crate) trait Found {
    type What;
    fn found(self) -> Option<Self::What>;
}

impl Found for bool {
    type What = ();
    fn found(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Found for Option<T> {
    type What = T;
    fn found(self) -> Option<T> {
        self
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().flatten().chain(&mut self.chassis) {
            drop(child.kill());
            drop(child.wait());
        }
        if std::thread::panicking() {
            for node in 1..=self.nodes.len() {
                let text = std::fs::read_to_string(self.path(&format!("n{node}.log"))).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                println!("== n{node}, the last of its log\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
            }
        }
    }
}

pub(crate) fn nines(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nines")).args(arguments).stdin(Stdio::null()).output().expect("nines runs")
}

fn spawn(arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nines"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("nines runs")
}

pub(crate) fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

pub(crate) fn text_of(path: &Path) -> &str {
    path.to_str().expect("a path of ours is text")
}
