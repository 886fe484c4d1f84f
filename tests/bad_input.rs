//! What people and strangers get wrong: each mistake gets a clear message and the right exit code, and a running node goes on.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

fn nines(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nines")).args(arguments).stdin(Stdio::null()).output().expect("nines runs")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + String::from_utf8_lossy(&output.stderr).as_ref()
}

/// An address of its own on loopback, so that tests run side by side.
fn address() -> String {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let pid = std::process::id();
    format!("127.{}.{}.{}", 1 + (pid >> 8) % 250, pid % 250, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A domain of one node, running.
struct Node {
    daemon: Child,
    home: tempfile::TempDir,
    address: String,
}

impl Node {
    fn start(service: &str) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let address = address();
        let yaml = format!(
            "domain: lab\nprofile: wan\nnodes:\n  - {{ id: 1, chassis: mxp1, links: [\"{address}:7400\"] }}\nchassis:\n  - {{ name: mxp1 }}\nservices:\n{service}"
        );
        std::fs::write(home.path().join("domain.yaml"), yaml).expect("it is written");
        let lab = home.path().join("lab");
        let made = nines(&["init", path(&lab), "--domain", path(&home.path().join("domain.yaml"))]);
        assert!(made.status.success(), "{}", text(&made));
        let daemon = run(&lab.join("n1/nines.yaml"));
        let node = Self { daemon, home, address };
        node.wait_until(|n| n.ask(&["get", "/nodes/n1"]).status.success()); // it has joined
        node
    }

    fn config(&self) -> PathBuf {
        self.home.path().join("lab/n1/nines.yaml")
    }

    fn socket(&self) -> PathBuf {
        self.home.path().join("lab/n1/run/nines.sock")
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        nines(&[arguments, &["--node", path(&self.config())]].concat())
    }

    fn wait_until(&self, is_so: impl Fn(&Self) -> bool) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !is_so(self) {
            assert!(std::time::Instant::now() < deadline, "it never came to it");
            std::thread::yield_now();
        }
    }

    fn is_alive(&mut self) -> bool {
        self.daemon.try_wait().expect("its state can be read").is_none() && self.ask(&["status"]).status.success()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.daemon.kill());
        drop(self.daemon.wait());
    }
}

fn run(config: &Path) -> Child {
    daemon(config).spawn().expect("nines runs")
}

fn daemon(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nines"));
    command.args(["run", "--without-gate", "--config", path(config)]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path of ours is text")
}

const NO_SERVICE: &str = "  []\n";

#[test]
fn mistakes_in_policies_are_named_with_file_line_and_what_would_be_right() {
    let home = tempfile::tempdir().expect("a directory");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
    let good = nines(&["policy", "check", path(&shipped)]);
    assert_eq!(good.status.code(), Some(0), "{}", text(&good));
    let cases = [
        ("typo.rhai", "fn on_state(fan, change) {\n    if change.now == \"faild\" { fan.raise(\"fan-failed\"); }\n}\n", "failed"),
        ("typo.rhai", "fn on_state(fan, change) {\n    fan.raise(\"no-such-alarm\");\n}\n", "no-such-alarm"),
        ("typo.rhai", "fn on_state(fan, change) {\n    let x = ;\n}\n", "typo.rhai"),
    ];
    for (file, policy, wanted) in cases {
        let class = "class: fan\nattributes:\n  speed: { type: int, unit: rpm, range: 0..25000 }\n  state: { from: speed, normal: running, failed_below: 800 }\npolicy: typo.rhai\n";
        write(home.path(), "classes/fan.yaml", class);
        write(home.path(), "alarms.yaml", &std::fs::read_to_string(shipped.join("alarms.yaml")).expect("it ships"));
        write(home.path(), file, policy);
        let output = nines(&["policy", "check", path(home.path())]);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("typo.rhai:2") && said.contains(wanted), "{said}");
    }
}

#[test]
fn mistakes_in_yaml_are_named_with_their_line() {
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nclass: [*e,*e,*e,*e]\n";
    let cases = [
        ("class: fan\nattributes:\n  speed: { type: int, unit: rpm }\n  speed: { type: int }\n", "fan.yaml:4"),
        ("class: fan\nattributes:\n  speed: { typ: int }\n", "fan.yaml:3"),
        ("class: fan\nattributes:\n  speed: { type: int, unit: furlongs }\n", "unknown-unit"),
        (bomb, "fan.yaml"),
    ];
    for (class, wanted) in cases {
        let home = tempfile::tempdir().expect("a directory");
        write(home.path(), "classes/fan.yaml", class);
        let output = nines(&["policy", "check", path(home.path())]);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(wanted), "{said}");
    }
}

#[test]
fn an_object_that_is_there_twice_is_named() {
    let home = tempfile::tempdir().expect("a directory");
    write(home.path(), "classes/fan.yaml", "class: fan\nattributes:\n  speed: { type: int, unit: rpm }\n");
    write(home.path(), "objects/shelf.yaml", "objects:\n  /mxp1/fan1: { class: fan }\n");
    write(home.path(), "objects/another.yaml", "objects:\n  /mxp1/fan1: { class: fan }\n");
    let output = nines(&["policy", "check", path(home.path())]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("/mxp1/fan1") && said.contains("objects/"), "{said}");
}

#[test]
fn a_policy_that_never_ends_is_stopped_told_and_replaced_by_what_the_class_says() {
    let mut node = Node::start(NO_SERVICE);
    let policies = node.home.path().join("lab/n1/policies");
    std::fs::write(policies.join("os.rhai"), "fn on_load(os, change) { loop { } }\nfn on_state(os, change) { }\n").expect("it is written");
    let applied = node.ask(&["policy", "apply", path(&policies)]);
    assert!(applied.status.success(), "{}", text(&applied));
    node.wait_until(|n| text(&n.ask(&["alarms"])).contains("/nodes/n1/os"));
    let alarms = text(&node.ask(&["alarms"]));
    assert!(alarms.contains("policy"), "{alarms}");
    assert!(node.is_alive());
}

#[test]
fn a_domain_that_contradicts_itself_is_not_made() {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("domain.yaml");
    let two = "domain: lab\nnodes:\n  - { id: 1, chassis: m, links: [\"127.0.0.1:7400\"] }\n  - { id: 2, chassis: m, links: [\"127.0.0.2:7400\"] }\nchassis:\n  - { name: m }\n";
    std::fs::write(&file, two).expect("it is written");
    let lab = home.path().join("lab");
    let output = nines(&["init", path(&lab), "--domain", path(&file)]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("witness"), "{}", text(&output));
    assert!(!lab.exists(), "nothing half made stays behind");
}

#[test]
fn a_second_daemon_is_refused_and_the_first_goes_on() {
    let mut node = Node::start(NO_SERVICE);
    let output = nines(&["run", "--without-gate", "--config", path(&node.config())]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("another daemon"), "{}", text(&output));
    assert!(node.is_alive());
}

#[test]
fn questions_about_what_is_not_there_are_answered_with_what_is() {
    let node = Node::start(NO_SERVICE);
    for (arguments, code) in [
        (vec!["get", "/mxp1/fan99"], 2),
        (vec!["service", "switchover", "callz"], 2),
        (vec!["why", "n9.9.9"], 2),
        (vec!["ls", "mxp1"], 2),
        (vec!["set", "/mxp1/fan1", "duty"], 2),
        (vec!["inject", "mxp9", "fan-failed"], 2),
    ] {
        let output = node.ask(&arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output));
        assert!(text(&output).starts_with("error["), "{arguments:?}: {}", text(&output));
    }
    let away = nines(&["status", "--node", "/nonexistent/nines.sock"]);
    assert_eq!(away.status.code(), Some(3), "{}", text(&away));
}

#[test]
fn garbage_on_every_door_is_survived() {
    let mut node = Node::start(NO_SERVICE);
    let noise: Vec<u8> = (0..2000u32).map(|i| u8::try_from(i.wrapping_mul(2_654_435_761) >> 24).expect("a byte")).collect();
    let udp = UdpSocket::bind((node.address.as_str(), 0)).expect("a free port");
    for port in [7400, 7401] {
        for length in [1, 19, 200, 1200] {
            udp.send_to(&noise[..length], (node.address.as_str(), port)).expect("loopback takes it");
        }
    }
    let mut api = UnixStream::connect(node.socket()).expect("it listens");
    api.write_all(b"\x00\xff garbage\n").expect("it takes it");
    let mut answer = String::new();
    BufReader::new(&api).read_line(&mut answer).expect("it answers");
    assert!(answer.contains("bad-request"), "{answer}");
    let mut old = UnixStream::connect(node.socket()).expect("it listens");
    old.write_all(b"{\"version\":99,\"call\":\"status\"}\n").expect("it takes it");
    BufReader::new(&old).read_line(&mut answer).expect("it answers");
    assert!(answer.contains("version"), "{answer}");
    let mut apps = UnixStream::connect(node.socket().with_file_name("apps.sock")).expect("it listens");
    // Whether it reads all of it or hangs up at the first byte is its own affair.
    drop(apps.write_all(&noise));
    assert!(node.is_alive());
}

#[test]
fn a_service_whose_program_is_not_there_is_told_and_everything_else_runs() {
    let mut node = Node::start("  - { name: calls, command: [/nonexistent/callserver] }\n");
    node.wait_until(|n| text(&n.ask(&["events", "--last", "200", "/nodes/**"])).contains("calls: stopped"));
    let status = node.ask(&["status", "--check"]);
    assert_eq!(status.status.code(), Some(1), "{}", text(&status));
    assert!(node.is_alive());
}

#[test]
fn a_service_that_exits_at_once_is_tried_again_and_told() {
    let mut node = Node::start("  - { name: calls, command: [/bin/false] }\n");
    node.wait_until(|n| text(&n.ask(&["events", "--last", "200", "/nodes/**"])).contains("calls: dead"));
    assert!(node.is_alive());
}

#[test]
fn a_stranger_with_a_certificate_of_another_domain_is_kept_out_with_an_alarm() {
    let mut node = Node::start(NO_SERVICE);
    let own = address();
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("domain.yaml");
    // It takes our node for its own n2, and dials it.
    let yaml = format!(
        "domain: lab\nprofile: wan\nnodes:\n  - {{ id: 1, chassis: m, links: [\"{own}:7400\"] }}\n  - {{ id: 2, chassis: m, links: [\"{}:7400\"] }}\n  - {{ id: 3, chassis: m, witness: true, links: [\"{own}:7500\"] }}\nchassis:\n  - {{ name: m }}\n",
        node.address
    );
    std::fs::write(&file, yaml).expect("it is written");
    let lab = home.path().join("lab");
    let made = nines(&["init", path(&lab), "--domain", path(&file)]);
    assert!(made.status.success(), "{}", text(&made));
    let mut stranger = run(&lab.join("n1/nines.yaml"));
    node.wait_until(|n| text(&n.ask(&["alarms"])).contains("stranger-kept-out"));
    stranger.kill().expect("it can be ended");
    stranger.wait().expect("it has ended");
    assert!(node.is_alive());
}

/// Makes `command` run where `directory` is a file system of its own, of one megabyte.
#[expect(unsafe_code, reason = "between fork and exec")]
fn on_a_small_disk(command: &mut Command, directory: &Path) {
    use nix::mount::{MsFlags, mount};
    use std::os::unix::process::CommandExt as _;

    if !nix::unistd::geteuid().is_root() {
        sixnines_drivers::netns::become_root_of_a_user_namespace(command);
    }
    let directory = std::ffi::CString::new(path(directory)).expect("no zero in it");
    let enter = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
        mount(None::<&std::ffi::CStr>, c"/", None::<&std::ffi::CStr>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&std::ffi::CStr>)?;
        mount(Some(c"tmpfs"), directory.as_c_str(), Some(c"tmpfs"), MsFlags::empty(), Some(c"size=1m"))?;
        Ok(())
    };
    // SAFETY: only system calls on memory that was made before the fork.
    unsafe { command.pre_exec(enter) };
}

#[test]
fn a_full_disk_under_the_journal_is_an_alarm_and_serving_goes_on() {
    let mut node = Node::start(NO_SERVICE);
    node.daemon.kill().expect("it can be ended");
    node.daemon.wait().expect("it has ended");
    let journal = node.home.path().join("lab/n1/state/journal");
    let mut command = daemon(&node.config());
    on_a_small_disk(&mut command, &journal);
    match command.spawn() {
        Ok(daemon) => node.daemon = daemon,
        Err(error) => return eprintln!("SKIPPED: no mount namespaces here: {error}"),
    }
    // The disk is the daemon's alone; it is seen through its root.
    let disk = PathBuf::from(format!("/proc/{}/root{}", node.daemon.id(), journal.display()));
    node.wait_until(|_| disk.join("0000000001.journal").exists());
    let filler = disk.join("filler");
    std::fs::write(&filler, vec![0; 2 << 20]).expect_err("it is full now");
    node.wait_until(|n| text(&n.ask(&["alarms"])).contains("journal-failing"));
    assert!(node.is_alive());
    std::fs::remove_file(&filler).expect("there is room again");
    node.wait_until(|n| !text(&n.ask(&["alarms"])).contains("journal-failing"));
    node.wait_until(|_| disk.join("0000000002.journal").exists());
    let checked = nines(&["journal", "check", path(&disk)]);
    assert!(checked.status.success(), "what is there can be proven: {}", text(&checked));
}

#[test]
fn garbage_on_a_chassis_port_is_survived() {
    let address = address();
    let mut chassis = Command::new(env!("CARGO_BIN_EXE_nines"))
        .args(["chassis", "--name", "mxp1", "--listen", &format!("{address}:7501")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("nines runs");
    let mut up = String::new();
    BufReader::new(chassis.stdout.take().expect("it is piped")).read_line(&mut up).expect("it says that it is up");
    for _ in 0..3 {
        let mut client = TcpStream::connect(format!("{address}:7501")).expect("it listens");
        client.write_all(b"\xff\xfe{]\n").expect("it takes it");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("it answers and hangs up");
        assert!(answer.contains("error"), "{answer}");
    }
    assert!(chassis.try_wait().expect("its state can be read").is_none());
    chassis.kill().expect("it can be ended");
    chassis.wait().expect("it has ended");
}

fn write(home: &Path, name: &str, text: &str) {
    let file = home.join(name);
    std::fs::create_dir_all(file.parent().expect("it is in a directory")).expect("it is made");
    std::fs::write(file, text).expect("it is written");
}
