//! The lab driven by JSON lines: `nines demo-lab`, hidden. One line in, one line out.
//!
//! For tests that need the demo's networks with processes of their own in them. The end of the input ends the world.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead as _, Write as _};
use std::sync::Arc;

use anyhow::Context as _;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sixnines_drivers::address::{Address, Ledger};
use sixnines_drivers::netlink::route::Cidr;

use super::{FRONT_DEVICE, Fabric, Lab, Mode, world as worlds};
use crate::demo::client::Client;
use crate::loadgen;

/// One line of input.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
enum Line {
    /// Start a program in a room: `{"pid"}`.
    Start { room: String, command: Vec<String> },
    /// Which processes a room has: `{"pids"}`.
    Processes { room: String },
    /// Send `kill`, `stop` or `cont` to all of a room: `{"hit"}`.
    Signal { room: String, signal: Sign },
    /// Pull or plug a cable.
    Cable { node: String, fabric: Fabric, plugged: bool },
    /// Put an address on a node's front device and announce it, or take it away.
    Address { node: String, address: String, present: bool },
    /// Start the load generator.
    Client { calls: u32 },
    /// Tell the load generator: its own reply.
    Tell { command: loadgen::Command },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Sign {
    Kill,
    Stop,
    Cont,
}

/// Runs until the end of standard input. The first line out tells the mode, the directory and the addresses.
///
/// # Errors
/// If the world cannot be built, or a line is no command; everything has been ended then.
pub(crate) fn run(mode: Option<Mode>) -> anyhow::Result<()> {
    let mode = mode.unwrap_or_else(worlds::enter);
    let lab = Lab::build(mode, None)?;
    lab.keeper().end_on_signals()?;
    let mut world = World { client: None, addresses: BTreeMap::new() };
    say(&json!({ "mode": mode, "directory": lab.directory(), "service": lab.service() }))?;
    for line in std::io::stdin().lock().lines() {
        let line = line.context("reading a line")?;
        let reply = serde_json::from_str(&line).context("not a command").and_then(|line| obey(&lab, &mut world, line));
        say(&reply.unwrap_or_else(|error| json!({ "error": format!("{error:#}") })))?;
    }
    Ok(())
}

fn say(value: &Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}").and_then(|()| out.flush()).context("writing a reply")
}

/// What the lines have made so far, besides processes.
struct World {
    client: Option<Client>,
    addresses: BTreeMap<(String, Cidr), Address>,
}

fn obey(lab: &Lab, world: &mut World, line: Line) -> anyhow::Result<Value> {
    lab.keeper().reap();
    let room = |name: &str| lab.find_room(name).with_context(|| format!("there is no room {name:?}"));
    match line {
        Line::Start { room: name, command } => Ok(json!({ "pid": room(&name)?.start(&command.into_iter().map(OsString::from).collect::<Vec<_>>())? })),
        Line::Processes { room: name } => Ok(json!({ "pids": room(&name)?.processes() })),
        Line::Signal { room: name, signal } => {
            let signal = match signal {
                Sign::Kill => Signal::SIGKILL,
                Sign::Stop => Signal::SIGSTOP,
                Sign::Cont => Signal::SIGCONT,
            };
            Ok(json!({ "hit": room(&name)?.signal(signal) }))
        }
        Line::Cable { node, fabric, plugged } => {
            lab.set_cable(&node, fabric, plugged)?;
            Ok(json!({}))
        }
        Line::Address { node, address, present } => {
            let cidr: Cidr = address.parse()?;
            let key = (node, cidr);
            if !present {
                world.addresses.remove(&key).context("that address is not there")?.give_up()?;
                return Ok(json!({}));
            }
            let ledger = lab.path(format!("{}.addresses", key.0));
            let netns = room(&key.0)?.netns()?;
            let address = netns.run(|| -> anyhow::Result<Address> {
                let (ledger, _left) = Ledger::start_clean(&ledger)?;
                let mut address = Address::prepare(FRONT_DEVICE, cidr, &Arc::new(ledger))?;
                address.take()?;
                address.announce()?;
                Ok(address)
            })?;
            world.addresses.insert(key, address);
            Ok(json!({}))
        }
        Line::Client { calls } => {
            let started = world.client.insert(Client::start(lab, calls)?);
            Ok(json!({ "realtime": started.realtime, "sniffer": started.sniffer }))
        }
        Line::Tell { command } => {
            let reply = world.client.as_mut().context("the client has not been started")?.ask(&command)?;
            Ok(serde_json::to_value(reply)?)
        }
    }
}
