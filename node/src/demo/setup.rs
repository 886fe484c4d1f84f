//! The demo's domain: its files, its chassis and its daemons, started in the lab.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Context as _;
use sixnines_core::domain::config::Profile;
use sixnines_drivers::realtime;

use super::Protection;
use super::client::Client;
use super::domain::local::Local;
use super::lab::{CHASSIS, FRONT_DEVICE, Lab, Mode, SEATS, SERVICE_ADDRESS, Seat};
use super::progress::Progress;
use super::shelf::Shelf;
use super::soak::Extras;
use super::stage::{SERVICE, Stage};

/// The hidden subcommand that runs the example application.
pub(crate) const APPLICATION: &str = "callserver";

/// Tells a daemon that a test takes a protection out: with `gate` it leaves its gate open.
pub(crate) const WITHOUT: &str = "SIXNINES_DEMO_WITHOUT";

/// Starts everything and waits until it is whole and all calls are up.
///
/// # Errors
/// If something does not start; the lab's logs tell more.
pub(super) fn start(lab: Lab, calls: u32, without: &[Protection], profile: Option<Profile>, extras: &Extras, mut progress: Progress) -> anyhow::Result<Stage> {
    let best = best_profile();
    let profile = profile.unwrap_or(best);
    if profile == Profile::Fabric && best == Profile::Lan {
        progress.tell("no real-time scheduling is allowed here: at profile fabric a busy machine suspends its nodes");
    } else if profile != Profile::Fabric && best == profile {
        progress.tell("no real-time scheduling is allowed here: profile lan (dead after 125 ms) instead of fabric (22 ms)");
    }
    progress.now("making the domain: authority, certificates, one configuration per node");
    init(&lab, profile, extras)?;
    progress.now("starting the chassis and the nodes");
    for chassis in CHASSIS {
        start_chassis(&lab, chassis, without)?;
        if let Some(words) = extras.beside(&lab, chassis)? {
            lab.room(chassis).start(&words)?;
        }
    }
    for seat in SEATS {
        start_node(&lab, seat, without)?;
    }
    let shelves = CHASSIS.into_iter().map(|chassis| watch(&lab, chassis)).collect::<anyhow::Result<_>>()?;
    let domain = Box::new(Local::new(SEATS.map(|seat| (seat.node.to_owned(), socket(&lab, seat))).to_vec()));
    let client = Client::start(&lab, calls)?;
    let mut stage = Stage { lab, client, domain, shelves, profile, without: without.to_vec(), progress };
    stage.wait_redundant()?;
    stage.progress.now("setting up calls");
    stage.wait("all calls are up", |stage| Ok((stage.client.report()?.calls_up == u64::from(calls)).then_some(())))?;
    Ok(stage)
}

/// Where a node's daemon listens for its command line.
pub(super) fn socket(lab: &Lab, seat: Seat) -> PathBuf {
    lab.path(format!("domain/{}/run/{}", seat.node, crate::config::API_SOCKET))
}

pub(super) fn program() -> anyhow::Result<OsString> {
    std::env::current_exe().context("finding this program").map(Into::into)
}

/// Without real-time scheduling a busy machine is late by more than a lease of `fabric` lasts: nodes would be suspended all the time.
fn best_profile() -> Profile {
    let probe = std::thread::spawn(|| realtime::schedule_fifo(realtime::LIVENESS_PRIORITY).got);
    if probe.join().unwrap_or(false) { Profile::Fabric } else { Profile::Lan }
}

fn init(lab: &Lab, profile: Profile, extras: &Extras) -> anyhow::Result<()> {
    init_from(lab, &domain_yaml(lab, profile, extras)?)
}

/// `nines init` of a domain's file.
pub(super) fn init_from(lab: &Lab, yaml: &str) -> anyhow::Result<()> {
    let file = lab.path("domain.yaml");
    std::fs::write(&file, yaml).context("writing the domain's file")?;
    let output = std::process::Command::new(program()?)
        .arg("init")
        .arg(lab.path("domain"))
        .arg("--domain")
        .arg(&file)
        .stdin(Stdio::null())
        .output()
        .context("running nines init")?;
    anyhow::ensure!(output.status.success(), "nines init: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// The domain as an operator would write it.
fn domain_yaml(lab: &Lab, profile: Profile, extras: &Extras) -> anyhow::Result<String> {
    let quoted = |text: &str| serde_json::to_string(text).context("quoting a text"); // JSON's quoting is YAML's, too
    let mut text = format!("domain: demo\nprofile: {}\nnodes:\n", profile.word());
    for seat in SEATS {
        let links: Vec<String> = lab.links(seat).iter().map(|l| format!("\"{l}\"")).collect();
        let number = seat.node.trim_start_matches('n');
        text += &format!("  - {{ id: {number}, chassis: {}, links: [{}] }}\n", seat.chassis, links.join(", "));
    }
    text += "chassis:\n";
    for chassis in CHASSIS {
        text += &format!("  - {{ name: {chassis}, manager: \"{}\" }}\n", extras.manager(lab, chassis));
    }
    let program = program()?;
    let program = quoted(program.to_str().context("this program's path is not text")?)?;
    text += &format!("services:\n  - name: {SERVICE}\n    command: [{program}, {APPLICATION}");
    if lab.mode() == Mode::Loopback {
        for seat in SEATS {
            text += &format!(", --listen, \"{}={}\"", seat.node, lab.listen(seat));
        }
        text += "]\n";
    } else {
        text += &format!(", --listen, \"{}\"]\n", lab.service()[0]);
        text += &format!("    addresses: [\"{SERVICE_ADDRESS}/24\"]\n    device: {FRONT_DEVICE}\n");
    }
    text += &extras.services(lab, &program);
    Ok(text)
}

/// How a chassis is started.
pub(super) fn chassis_arguments(lab: &Lab, chassis: &str) -> anyhow::Result<Vec<OsString>> {
    Ok(vec![program()?, "chassis".into(), "--name".into(), chassis.into(), "--listen".into(), lab.manager(chassis).to_string().into()])
}

fn start_chassis(lab: &Lab, chassis: &str, without: &[Protection]) -> anyhow::Result<()> {
    let mut arguments = chassis_arguments(lab, chassis)?;
    if without.contains(&Protection::EpochCheck) {
        arguments.push("--without-epoch-check".into());
    }
    lab.room(chassis).start(&arguments).map(drop)
}

/// Starts a node's daemon, the first time or again.
pub(super) fn start_node(lab: &Lab, seat: Seat, without: &[Protection]) -> anyhow::Result<()> {
    let config = lab.path(format!("domain/{}/nines.yaml", seat.node));
    let arguments: Vec<OsString> = vec![program()?, "run".into(), "--config".into(), config.into()];
    let variable = without.contains(&Protection::Gate).then_some((WITHOUT, "gate"));
    lab.room(seat.node).start_with(&arguments, variable).map(drop)
}

/// The chassis has just been started: it may take a moment until it listens.
fn watch(lab: &Lab, chassis: &'static str) -> anyhow::Result<Shelf> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        match Shelf::watch(lab, chassis) {
            Ok(shelf) => return Ok(shelf),
            Err(error) if std::time::Instant::now() > deadline => return Err(error).context(format!("{chassis} does not answer")),
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(20)),
        }
    }
}
