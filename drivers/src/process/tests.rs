use std::process::{Command, Stdio};

use super::*;

fn shell(script: &str) -> UnitSpec {
    UnitSpec { name: "calls".into(), command: "sh".into(), arguments: vec!["-c".into(), script.into()], ..UnitSpec::default() }
}

/// Waits until the unit has printed `line`.
async fn printed(unit: &Unit, line: &str) {
    let waiting = async {
        while !unit.output_tail().lines().iter().any(|l| l == line) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap_or_else(|_| panic!("no {line:?} in {:?}", unit.output_tail().lines()));
}

fn is_alive(pid: u32) -> bool {
    // A zombie is not alive.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[tokio::test]
async fn an_exit_status_is_told_to_everyone_who_asks() {
    let mut spec = shell("echo $GREETING; pwd; echo bad >&2; exit 3");
    spec.environment.insert("GREETING".into(), "hello".into());
    spec.directory = Some("/".into());
    let unit = Unit::start(spec).await.unwrap();
    // Cancelled once, asked again.
    drop(tokio::time::timeout(Duration::ZERO, unit.exited()).await);
    let exit = unit.exited().await;
    assert_eq!((exit.how, exit.pid), (ExitHow::Status(3), unit.pid()));
    assert_eq!(unit.exited().await, exit);
    assert_eq!(unit.has_exited(), Some(exit));
    for line in ["hello", "/", "bad"] {
        printed(&unit, line).await;
    }
}

#[tokio::test]
async fn a_killed_unit_says_by_which_signal() {
    let unit = Unit::start(shell("exec sleep 1000")).await.unwrap();
    assert_eq!(unit.has_exited(), None);
    unit.kill();
    assert_eq!(unit.exited().await.how, ExitHow::Signal { number: libc::SIGKILL, dumped: false });
}

#[tokio::test]
async fn stopping_asks_first() {
    let unit = Unit::start(shell("trap 'echo asked; exit 0' TERM; echo ready; while :; do sleep 0.01; done")).await.unwrap();
    printed(&unit, "ready").await;
    assert_eq!(unit.stop(Duration::from_secs(10)).await.how, ExitHow::Status(0));
    printed(&unit, "asked").await;
}

#[tokio::test]
async fn stopping_kills_who_does_not_listen_and_what_it_started() {
    let unit = Unit::start(shell("trap '' TERM; sh -c 'trap \"\" TERM; echo pid $$; while :; do sleep 0.01; done' & echo ready; wait")).await.unwrap();
    printed(&unit, "ready").await;
    let child = loop {
        let found = unit.output_tail().lines().iter().find_map(|l| l.strip_prefix("pid ")?.parse::<u32>().ok());
        match found {
            Some(pid) => break pid,
            None => tokio::task::yield_now().await,
        }
    };
    assert!(is_alive(child));
    assert_eq!(unit.stop(Duration::from_millis(10)).await.how, ExitHow::Signal { number: libc::SIGKILL, dumped: false });
    while is_alive(child) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_a_unit_leaves_behind_ends_with_it() {
    let unit = Unit::start(shell("sleep 1000 & echo pid $!; exit 5")).await.unwrap();
    assert_eq!(unit.exited().await.how, ExitHow::Status(5));
    let left = loop {
        match unit.output_tail().lines().first() {
            Some(line) => break line.strip_prefix("pid ").unwrap().parse().unwrap(),
            None => tokio::task::yield_now().await,
        }
    };
    while is_alive(left) {
        tokio::task::yield_now().await;
    }
    unit.kill(); // Nobody is hit.
}

#[tokio::test]
async fn a_dropped_unit_is_killed() {
    let unit = Unit::start(shell("exec sleep 1000")).await.unwrap();
    let pid = unit.pid();
    drop(unit);
    while is_alive(pid) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_command_that_cannot_start_is_explained() {
    let explain = async |command: &str, directory: Option<&str>| {
        let spec = UnitSpec { command: command.into(), directory: directory.map(Into::into), ..shell("") };
        Unit::start(spec).await.unwrap_err()
    };
    let error = explain("no-such-program", None).await;
    assert!(error.to_string().starts_with("calls: there is no program \"no-such-program\" in /"), "{error}");
    let error = explain("/no/such/program", None).await;
    assert_eq!(error.to_string(), "calls: there is no program \"/no/such/program\"");
    assert!(matches!(explain("/etc/passwd", None).await, StartError::NotExecutable { .. }));
    assert!(matches!(explain("/", None).await, StartError::NotExecutable { .. }));
    assert_eq!(explain("sh", Some("/no/such")).await.to_string(), "calls: there is no directory /no/such");
}

#[tokio::test]
async fn a_flood_of_output_does_not_hold_the_unit_up() {
    let unit = Unit::start(shell("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done")).await.unwrap();
    assert_eq!(unit.exited().await.how, ExitHow::Status(0));
    printed(&unit, "line 19999").await;
    assert_eq!(unit.output_tail().lines().len(), 200);
}

const PARENT: &str = "SIXNINES_TEST_PARENT";

/// Units end with the process that started them, not with a runtime's thread.
#[test]
fn units_die_with_the_process_and_only_then() {
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["process::tests::parent", "--exact", "--nocapture"])
        .env(PARENT, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = io::BufRead::lines(io::BufReader::new(parent.stdout.take().unwrap()));
    let pid = lines.map_while(Result::ok).find_map(|l| l.split_once("unit ")?.1.parse::<u32>().ok()).unwrap();
    assert!(is_alive(pid), "alive although the thread that asked for it is gone");
    parent.kill().unwrap();
    parent.wait().unwrap();
    while is_alive(pid) {
        std::thread::yield_now();
    }
}

#[test]
fn parent() {
    if std::env::var_os(PARENT).is_none() {
        return;
    }
    let unit = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(Unit::start(shell("exec sleep 1000"))).unwrap()
    })
    .join()
    .unwrap();
    println!("unit {}", unit.pid());
    // Until killed.
    loop {
        std::thread::park();
    }
}
