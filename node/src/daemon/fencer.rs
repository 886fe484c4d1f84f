//! Runs the domain's fence command: as a process of its own, bounded in time and output, outside the core loop.
//!
//! The command proves that a node is off by what it says last: exit code 0 and a line `{"state":"off","evidence":"..."}`. Whatever else comes of it
//! is a failure: nothing is believed that the device has not said.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};

use crossbeam::channel::Sender;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use serde::Deserialize;
use sixnines_core::ids::Member;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::unix::pipe;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::core_loop::In;
use crate::core_loop::fences::FenceOrder;

/// Everything that is being run. Dropping an order's task kills its command.
pub(super) struct Fencer {
    runtime: Handle,
    inbox: Sender<In>,
    running: BTreeMap<Member, AbortHandle>,
}

impl Fencer {
    pub(super) fn new(runtime: &Handle, inbox: &Sender<In>) -> Self {
        Self { runtime: runtime.clone(), inbox: inbox.clone(), running: BTreeMap::new() }
    }

    /// Begins an order; answered by [`In::Fenced`]. One for the same life that still runs is given up for it.
    pub(super) fn begin(&mut self, order: FenceOrder) {
        self.running.retain(|_, task| !task.is_finished());
        let (inbox, target, request) = (self.inbox.clone(), order.target, order.request);
        let task = self.runtime.spawn(async move {
            let result = carry_out(&order).await;
            if inbox.send(In::Fenced { request, result }).is_err() {
                tracing::debug!("the core loop has ended");
            }
        });
        if let Some(before) = self.running.insert(target, task.abort_handle()) {
            before.abort();
        }
    }

    /// The node is back: its command is killed, if it runs.
    pub(super) fn end(&mut self, target: Member) {
        if let Some(task) = self.running.remove(&target) {
            task.abort();
        }
    }
}

/// The evidence, or why there is none.
async fn carry_out(order: &FenceOrder) -> Result<String, String> {
    let command = &order.config.command;
    let program = command.first().ok_or("the fence command is empty")?;
    let environment = [
        ("NODE", order.target.node.to_string()),
        ("CHASSIS", order.chassis.to_string()),
        ("INCARNATION", order.target.incarnation.0.to_string()),
        ("REQUEST_ID", order.request.to_string()),
    ];
    let mut child = Command::new(program)
        .args(&command[1..])
        .envs(environment.map(|(name, value)| (format!("SIXNINES_FENCE_{name}"), value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("{program} cannot be run: {error}"))?;
    let (out, err) = (child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from));
    let running = Running(Some(child));
    let pid = running.pid();
    let all = async { tokio::join!(ended(pid), tail(out), tail(err)) };
    let Ok((end, out, err)) = tokio::time::timeout(order.config.timeout, all).await else {
        return Err(format!("{program} had not ended after {} ms and was killed", order.config.timeout.as_millis()));
    };
    end.map_err(|error| format!("{program} cannot be waited for: {error}"))?;
    let status = running.reap().map_err(|error| format!("{program} cannot be waited for: {error}"))?;
    judge(program, status, &out, &err)
}

/// What the command's last words are worth.
fn judge(program: &str, status: ExitStatus, out: &str, err: &str) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Said {
        state: String,
        #[serde(default)]
        evidence: String,
    }
    let last = |text: &str| text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("nothing").to_owned();
    if !status.success() {
        return Err(format!("{program} ended with {status}; its last words: {}", last(err)));
    }
    let line = last(out);
    match serde_json::from_str::<Said>(&line) {
        Ok(said) if said.state == "off" && !said.evidence.trim().is_empty() => Ok(said.evidence.trim().to_owned()),
        Ok(said) if said.state == "off" => Err(format!("{program} says off and gives no evidence of it")),
        Ok(said) => Err(format!("{program} says that it is {:?}, and not off; its last words: {}", said.state, last(err))),
        Err(_) => Err(format!("{program} ended well and does not say what the device told it: its last line is {line:?}, and should be {{\"state\":\"off\",\"evidence\":\"...\"}}")),
    }
}

/// A command that has not been reaped, so that its number is its own. Dropped, its whole group is killed.
struct Running(Option<Child>);

impl Running {
    fn pid(&self) -> Pid {
        let id = self.0.as_ref().map_or(0, Child::id);
        Pid::from_raw(i32::try_from(id).unwrap_or(0))
    }

    /// It has ended: what it left running ends too.
    fn reap(mut self) -> io::Result<ExitStatus> {
        self.kill();
        self.0.take().map_or_else(|| Err(io::ErrorKind::NotFound.into()), |mut child| child.wait())
    }

    fn kill(&self) {
        let pid = self.pid();
        if pid.as_raw() > 0
            && let Err(error) = killpg(pid, Signal::SIGKILL)
        {
            tracing::debug!(%pid, %error, "nobody is left of a fence command");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.is_none() {
            return;
        }
        self.kill();
        let Some(mut child) = self.0.take() else { return };
        // Killed, it ends at once, unless it hangs in the kernel: nobody waits for that here.
        std::thread::spawn(move || drop(child.wait()));
    }
}

/// Returns when the process has ended, and leaves it to be reaped.
async fn ended(pid: Pid) -> io::Result<()> {
    let wait = move || waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
    tokio::task::spawn_blocking(wait).await.map_err(io::Error::other)?.map(drop).map_err(io::Error::from)
}

/// The end of what a command says, at most [`KEPT`] bytes. What comes before is read and forgotten, so that a talkative command is not held up.
async fn tail(pipe: Option<OwnedFd>) -> String {
    let read = pipe.and_then(|pipe| pipe::Receiver::from_owned_fd(pipe).ok());
    let Some(read) = read else { return String::new() };
    let bytes = last_bytes(read).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn last_bytes(mut read: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = read.read(&mut chunk).await {
        kept.extend_from_slice(&chunk[..count]);
        let over = kept.len().saturating_sub(KEPT);
        kept.drain(..over);
    }
    kept
}

const KEPT: usize = 4096;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sixnines_core::domain::fence::FenceConfig;
    use sixnines_core::ids::{EventId, Incarnation, NodeId};

    use super::*;

    fn run(script: &str, timeout: Duration) -> Result<String, String> {
        let target = Member { node: NodeId(1), incarnation: Incarnation(5) };
        let request = EventId { node: NodeId(2), incarnation: Incarnation(7), sequence: 33 };
        let config = FenceConfig { command: ["/bin/sh", "-c", script].map(str::to_owned).into(), timeout };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let result = runtime.block_on(carry_out(&FenceOrder { request, target, chassis: "mxp1".into(), config }));
        runtime.shutdown_background();
        result
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn the_last_line_of_a_command_that_ended_well_is_evidence() {
        let said = run("echo on its way; echo '{\"state\":\"off\",\"evidence\":\"'$SIXNINES_FENCE_NODE $SIXNINES_FENCE_CHASSIS $SIXNINES_FENCE_INCARNATION $SIXNINES_FENCE_REQUEST_ID'\"}'; echo", LONG);
        assert_eq!(said.as_deref(), Ok("n1 mxp1 5 n2.7.33"));
        let talkative = run("i=0; while [ $i -lt 3000 ]; do echo 0123456789012345678901234567890123456789; i=$((i+1)); done; echo '{\"state\":\"off\",\"evidence\":\"7\"}'", LONG);
        assert_eq!(talkative.as_deref(), Ok("7"));
    }

    #[test]
    fn all_else_is_a_failure_that_says_what_it_was() {
        let off = "echo '{\"state\":\"off\",\"evidence\":\"x\"}'";
        let cases = [
            (format!("{off}; echo no route to the outlet >&2; exit 3"), "no route to the outlet"),
            (format!("{off}; kill -9 $$"), "signal"),
            ("exit 0".to_owned(), "should be"),
            (format!("{off}; echo done"), "last line is \"done\""),
            ("echo '{\"state\":\"on\",\"evidence\":\"x\"}'".to_owned(), "not off"),
            ("echo '{\"state\":\"off\"}'".to_owned(), "no evidence"),
            ("printf '\\377\\376\\n'".to_owned(), "should be"),
        ];
        for (script, words) in cases {
            let said = run(&script, LONG).expect_err(&script);
            assert!(said.contains(words), "{script}: {said}");
        }
        let none = FenceConfig { command: vec!["/no/such/program".into()], timeout: LONG };
        let order = FenceOrder { request: EventId::default(), target: Member::default(), chassis: "m".into(), config: none };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        assert!(runtime.block_on(carry_out(&order)).is_err_and(|e| e.contains("cannot be run")));
    }

    #[test]
    fn a_command_that_does_not_end_is_killed_with_all_that_it_started() {
        let home = tempfile::tempdir().expect("a directory");
        let pid = home.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", pid.display());
        let said = run(&script, Duration::from_secs(2)).expect_err("it does not end");
        assert!(said.contains("killed"), "{said}");
        let pid: u32 = std::fs::read_to_string(&pid).expect("it ran").trim().parse().expect("a number");
        // Ended, or about to be reaped by whoever is the parent of orphans here.
        let is_gone = || std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "));
        while !is_gone() {
            std::thread::yield_now();
        }
    }
}
