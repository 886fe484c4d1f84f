//! The domain through its nodes' local sockets.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use sixnines_core::ids::NodeId;

use super::{Alarm, Domain, Service, Standing, Status};
use crate::api::{self, Call, Reply, Request};

/// How long a node may take to answer. A stopped one never does.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Events asked for at once.
const EVENTS: usize = 1000;
/// An injected fault ends by itself after so long, should the demo be unable to end it.
const FAULT_FOR_S: u64 = 300;

/// The domain as its nodes show it.
pub(crate) struct Local {
    nodes: Vec<(String, PathBuf)>,
    /// Who answered last is asked first.
    preferred: Cell<usize>,
}

impl Local {
    /// `nodes`: name and socket of each.
    pub(crate) fn new(nodes: Vec<(String, PathBuf)>) -> Self {
        Self { nodes, preferred: Cell::new(0) }
    }

    /// Asks one node after the other until one answers.
    fn ask(&self, call: &Call) -> anyhow::Result<Reply> {
        let mut last = anyhow::anyhow!("there is no node to ask");
        for turn in 0..self.nodes.len() {
            let index = (self.preferred.get() + turn) % self.nodes.len();
            match self.ask_one(index, call) {
                Ok(reply) => {
                    self.preferred.set(index);
                    return Ok(reply);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn ask_one(&self, index: usize, call: &Call) -> anyhow::Result<Reply> {
        let answer = self.ask_line(index, call)?;
        serde_json::from_str(&answer).with_context(|| format!("{} answered {answer:?}", self.nodes[index].0))
    }

    /// All that a node says of the domain; `index` from 0, in the order given to [`Self::new`].
    pub(crate) fn whole(&self, index: usize) -> anyhow::Result<api::Status> {
        match self.ask_one(index, &Call::Status)? {
            Reply::Status(status) => Ok(*status),
            other => Err(unexpected(other)),
        }
    }

    fn ask_line(&self, index: usize, call: &Call) -> anyhow::Result<String> {
        let (name, socket) = &self.nodes[index];
        let asked = || format!("asking {name}");
        let mut stream = UnixStream::connect(socket).with_context(asked)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN)).and_then(|()| stream.set_write_timeout(Some(ANSWER_WITHIN))).with_context(asked)?;
        let mut line = serde_json::to_string(&Request { version: api::VERSION, call: call.clone() }).with_context(asked)?;
        line.push('\n');
        stream.write_all(line.as_bytes()).with_context(asked)?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).with_context(asked)?;
        Ok(answer)
    }

    /// Asks for something that only nodes in the chassis can do: one after the other until one has it in reach.
    fn order_near_chassis(&self, call: &Call) -> anyhow::Result<()> {
        let mut last = anyhow::anyhow!("there is no node to ask");
        for index in 0..self.nodes.len() {
            match self.ask_one(index, call) {
                Ok(Reply::Done { .. }) => return Ok(()),
                Ok(other) => last = unexpected(other),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn index(&self, node: &str) -> anyhow::Result<usize> {
        self.nodes.iter().position(|(name, _)| name == node).with_context(|| format!("{node} is no node of the demo"))
    }

    /// Asks for something to be done. Another node is asked only if the first could not be reached.
    fn order(&self, call: &Call) -> anyhow::Result<()> {
        match self.ask(call)? {
            Reply::Done { .. } => Ok(()),
            other => Err(unexpected(other)),
        }
    }
}

fn unexpected(reply: Reply) -> anyhow::Error {
    match reply {
        Reply::Failed(failure) => anyhow::anyhow!("{}: {}", failure.code, failure.message),
        _ => anyhow::anyhow!("the node answered another question"),
    }
}

fn status(reply: Reply) -> anyhow::Result<Status> {
    let Reply::Status(status) = reply else { return Err(unexpected(reply)) };
    let row = |row: &api::ServiceRow| Service {
        name: row.name.to_string(),
        active: row.active.filter(|_| row.is_serving).map(|n| n.to_string()),
        standbys: row.standby.iter().map(NodeId::to_string).collect(),
        epoch: row.epoch.0,
    };
    let up = |node: &&api::NodeRow| node.state == "up" && node.links.iter().all(|link| *link);
    Ok(Status {
        services: status.services.iter().chain(&status.chassis).map(row).collect(),
        nodes_up: status.nodes.iter().filter(up).map(|n| n.id.to_string()).collect(),
        leader: status.log.leader.map(|n| n.to_string()),
    })
}

impl Domain for Local {
    /// From a node that is in touch with a majority, if there is one: who is cut off knows only what was.
    fn status(&mut self) -> anyhow::Result<Status> {
        let mut last = Err(anyhow::anyhow!("there is no node to ask"));
        for turn in 0..self.nodes.len() {
            let index = (self.preferred.get() + turn) % self.nodes.len();
            let answer = self.ask_one(index, &Call::Status);
            if let Ok(Reply::Status(seen)) = &answer
                && seen.nodes.iter().filter(|n| n.state == "up").count() * 2 > seen.nodes.len()
            {
                self.preferred.set(index);
                return status(answer?);
            }
            last = answer.and_then(status);
        }
        last
    }

    fn status_of(&mut self, node: &str) -> anyhow::Result<Status> {
        status(self.ask_one(self.index(node)?, &Call::Status)?)
    }

    fn suspensions(&mut self) -> anyhow::Result<u64> {
        let mut sum = 0;
        for index in 0..self.nodes.len() {
            let Ok(line) = self.ask_line(index, &Call::Status) else { continue };
            let answer: serde_json::Value = serde_json::from_str(&line).with_context(|| format!("{} answered {line:?}", self.nodes[index].0))?;
            sum += answer.pointer("/status/suspensions").and_then(serde_json::Value::as_u64).unwrap_or(0);
        }
        Ok(sum)
    }

    fn standing_of(&mut self, node: &str) -> anyhow::Result<Standing> {
        let status = self.whole(self.index(node)?)?;
        Ok(Standing { late_us: status.late_us, suspensions: status.suspensions })
    }

    fn apply_policies(&mut self, files: BTreeMap<String, String>) -> anyhow::Result<()> {
        self.order(&Call::PolicyApply { files, message: "the demo".to_owned() })
    }

    fn events_made(&mut self, node: &str) -> anyhow::Result<u64> {
        let me: NodeId = node.parse()?;
        match self.ask_one(self.index(node)?, &Call::Events { last: EVENTS, pattern: "/**".to_owned() })? {
            Reply::Events(rows) => Ok(rows.iter().filter(|r| r.id.node == me).map(|r| r.id.sequence).max().unwrap_or(0)),
            other => Err(unexpected(other)),
        }
    }

    fn why(&mut self, name: &str) -> anyhow::Result<Vec<String>> {
        match self.ask(&Call::Why { what: name.to_owned() })? {
            Reply::Why(story) => {
                let missing = story.missing.iter().map(|id| format!("missing: {id}"));
                let first = story.chain.first().map_or(0, |e| e.at_ns);
                let row = |e: &api::EventRow| {
                    let policy = e.policy.as_ref().map(|p| format!(" ({p})")).unwrap_or_default();
                    let after = std::time::Duration::from_nanos(e.at_ns.saturating_sub(first)).as_secs_f64() * 1000.0;
                    format!("{} +{after:.1} ms {} {} {}{policy}", e.id, e.object, e.attribute, e.text)
                };
                Ok(story.chain.iter().map(row).chain(missing).collect())
            }
            other => Err(unexpected(other)),
        }
    }

    fn switchover(&mut self, service: &str, to: Option<&str>) -> anyhow::Result<()> {
        let to = to.map(str::parse).transpose()?;
        self.order(&Call::Switchover { service: service.to_owned(), to })
    }

    fn inject(&mut self, chassis: &str, fault: &str, target: &str) -> anyhow::Result<()> {
        let target = Some(target.to_owned());
        self.order_near_chassis(&Call::Inject { chassis: chassis.to_owned(), fault: fault.to_owned(), target, for_s: FAULT_FOR_S })
    }

    fn clear(&mut self, chassis: &str) -> anyhow::Result<()> {
        self.order_near_chassis(&Call::InjectClear { chassis: chassis.to_owned() })
    }

    fn alarms(&mut self) -> anyhow::Result<Vec<Alarm>> {
        match self.ask(&Call::Alarms)? {
            Reply::Alarms(rows) => {
                Ok(rows.into_iter().map(|r| Alarm { id: r.id.to_string(), object: r.object, alarm: r.kind }).collect())
            }
            other => Err(unexpected(other)),
        }
    }

    fn events(&mut self, at: &str, origin: &str) -> anyhow::Result<Vec<String>> {
        let origin: NodeId = origin.parse()?;
        match self.ask_one(self.index(at)?, &Call::Events { last: EVENTS, pattern: "/**".to_owned() })? {
            Reply::Events(rows) => Ok(rows.into_iter().filter(|r| r.id.node == origin).map(|r| r.id.to_string()).collect()),
            other => Err(unexpected(other)),
        }
    }
}
