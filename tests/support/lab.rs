//! The demo's networks with processes of a test's own in them: `nines demo-lab`, spoken to by lines.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long a state may take to come. A test waits for the state, never for the time.
const SOON: Duration = Duration::from_secs(20);

/// As whom the lab is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum As {
    /// As we are.
    Us,
    /// As somebody without rights, if we have any.
    Nobody,
    /// On loopback addresses.
    Loopback,
}

/// A lab. It ends when this is dropped.
pub(crate) struct Lab {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    pub(crate) mode: String,
    pub(crate) directory: PathBuf,
    pub(crate) service: Vec<String>,
}

impl Lab {
    /// Builds the lab; `None`, loudly, if `who` gets no namespaces on this machine.
    pub(crate) fn new(who: As) -> Option<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nines"));
        command.arg("demo-lab").stdin(Stdio::piped()).stdout(Stdio::piped());
        match who {
            As::Us => {}
            As::Loopback => {
                command.arg("--loopback");
            }
            As::Nobody => {
                if nix::unistd::geteuid().is_root() {
                    command.uid(65534).gid(65534);
                }
            }
        }
        let mut child = command.spawn().expect("the lab starts");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut lab = Self { child, input, output, mode: String::new(), directory: PathBuf::new(), service: vec![] };
        let first = lab.hear();
        lab.mode = first["mode"].as_str().expect("the lab tells its mode").to_owned();
        lab.directory = PathBuf::from(first["directory"].as_str().unwrap());
        lab.service = first["service"].as_array().unwrap().iter().map(|s| s.as_str().unwrap().to_owned()).collect();
        if lab.mode == "loopback" && who != As::Loopback {
            eprintln!("SKIPPED: no rights to network namespaces, nor to a user namespace");
            return None;
        }
        Some(lab)
    }

    /// The lab's own process.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the lab answers");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("the lab said {line:?}: {e}"))
    }

    /// One line there, one line back; an error from the lab is a failure of the test.
    pub(crate) fn tell(&mut self, line: Value) -> Value {
        let reply = self.try_tell(&line);
        assert!(reply.get("error").is_none(), "{line} was answered with {reply}");
        reply
    }

    pub(crate) fn try_tell(&mut self, line: &Value) -> Value {
        writeln!(self.input.as_mut().unwrap(), "{line}").expect("the lab listens");
        self.hear()
    }

    pub(crate) fn start(&mut self, room: &str, command: &[String]) -> i32 {
        let reply = self.tell(json!({ "do": "start", "room": room, "command": command }));
        i32::try_from(reply["pid"].as_i64().unwrap()).unwrap()
    }

    pub(crate) fn signal(&mut self, room: &str, signal: &str) -> u64 {
        self.tell(json!({ "do": "signal", "room": room, "signal": signal }))["hit"].as_u64().unwrap()
    }

    pub(crate) fn processes(&mut self, room: &str) -> Vec<i32> {
        let reply = self.tell(json!({ "do": "processes", "room": room }));
        serde_json::from_value(reply["pids"].clone()).unwrap()
    }

    pub(crate) fn address(&mut self, node: &str, address: &str, present: bool) {
        self.tell(json!({ "do": "address", "node": node, "address": address, "present": present }));
    }

    pub(crate) fn client(&mut self, calls: u32) -> Value {
        self.tell(json!({ "do": "client", "calls": calls }))
    }

    pub(crate) fn mark(&mut self, name: &str) {
        self.tell(json!({ "do": "tell", "command": { "do": "mark", "name": name } }));
    }

    pub(crate) fn report(&mut self) -> Value {
        self.tell(json!({ "do": "tell", "command": { "do": "report" } }))
    }

    pub(crate) fn read_back(&mut self) -> Value {
        self.tell(json!({ "do": "tell", "command": { "do": "read-back" } }))
    }

    pub(crate) fn finish(&mut self) -> Value {
        self.tell(json!({ "do": "tell", "command": { "do": "finish" } }))
    }

    /// Waits until the client's report shows what is wanted.
    pub(crate) fn wait_report(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + SOON;
        loop {
            let report = self.report();
            if wanted(&report) {
                return report;
            }
            assert!(Instant::now() < deadline, "{what} did not come: {report}");
        }
    }

    /// Ends the lab in the ordinary way and waits for it.
    pub(crate) fn end(mut self) -> PathBuf {
        drop(self.input.take());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
        self.directory.clone()
    }

    /// Ends the lab by a signal and waits for it.
    pub(crate) fn end_by(mut self, signal: nix::sys::signal::Signal) -> PathBuf {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).unwrap();
        self.child.wait().unwrap();
        self.directory.clone()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(self.input.take());
        if let Err(error) = self.child.wait() {
            eprintln!("the lab could not be waited for: {error}");
        }
    }
}

/// Waits for a state of the world.
pub(crate) fn wait_for(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !reached() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::yield_now();
    }
}

/// Whether a process is there and not only waiting to be noticed as dead.
pub(crate) fn is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !matches!(stat[stat.rfind(')').unwrap()..].chars().nth(2), Some('Z' | 'X')))
}
