//! The local socket: one request a connection, from callers whom the kernel names.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::Sender;
use sixnines_core::authority::{self, AccessRole, Principal};
use sixnines_core::domain::config::{DomainConfig, NodeConfig};
use sixnines_core::ids::NodeId;
use sixnines_hwsim::chassis::client::{Client, ClientError};
use sixnines_hwsim::chassis::{CATALOGUE, Injection};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use super::door::Held;
use super::papers::RenewOrder;
use crate::core_loop::answers::{Ask, fail, fail_help};
use crate::core_loop::In;
use crate::api::{Call, Reply, Request, SeatWish, VERSION};

/// A longer request is refused: it holds a bundle of policies at most.
const REQUEST_BYTES_MAX: u64 = 8 << 20;
/// A request that does not come is not waited for.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);
/// Answers that wait for a slow reader.
const ANSWERS_MAX: usize = 4096;

/// What each connection needs.
#[derive(Clone)]
pub(super) struct Api {
    pub(super) inbox: Sender<In>,
    pub(super) configuration: watch::Receiver<Arc<DomainConfig>>,
    pub(super) me: NodeId,
    /// If this node holds the authority.
    pub(super) door: Option<Arc<Held>>,
    pub(super) renewals: Sender<RenewOrder>,
}

/// Listens at `path`; the socket is for the daemon's user and group.
///
/// # Errors
/// The socket cannot be made.
pub(super) fn listen(path: &Path) -> io::Result<UnixListener> {
    if path.exists() {
        std::fs::remove_file(path)?; // of an earlier life: the state directory's lock is ours
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

impl Api {
    pub(super) async fn run(self, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(self.clone().serve(stream))),
                Err(error) => {
                    tracing::warn!(%error, "a local connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn serve(self, stream: UnixStream) {
        let principal = principal(&stream);
        let (read, mut write) = stream.into_split();
        let mut line = Vec::new();
        let mut limited = BufReader::new(read.take(REQUEST_BYTES_MAX));
        let read = tokio::time::timeout(REQUEST_WITHIN, limited.read_until(b'\n', &mut line)).await;
        if !matches!(read, Ok(Ok(n)) if n > 0) {
            return;
        }
        let (answers, from_core) = crossbeam::channel::bounded(ANSWERS_MAX);
        match serde_json::from_slice::<Request>(&line) {
            Ok(Request { version: VERSION, call }) => {
                let is_followed = matches!(call, Call::Watch { .. });
                let answered = match self.about_chassis(&call, &principal).await {
                    None => self.about_certificates(&call, &principal).await,
                    answered => answered,
                };
                match answered {
                    Some(reply) => drop(put(&mut write, &reply).await),
                    None => {
                        let ask = Ask { call, principal, reply: answers };
                        if self.inbox.send(In::Ask(ask)).is_ok() {
                            relay(from_core, write, is_followed).await;
                        }
                    }
                }
            }
            Ok(other) => drop(put(&mut write, &fail("version", format!("the daemon speaks version {VERSION}, the request has {}", other.version), 2)).await),
            Err(error) => drop(put(&mut write, &fail("bad-request", format!("no request: {error}"), 2)).await),
        }
    }

    /// Tokens and certificates are made beside the core loop; what they are worth is the control log's to say.
    async fn about_certificates(&self, call: &Call, principal: &Principal) -> Option<Reply> {
        let (Call::NodeInvite { .. } | Call::NodeRenew) = call else { return None };
        if let Err(refused) = authority::decide(principal, call.wanted()) {
            return Some(fail("refused", refused.to_string(), 4));
        }
        let (api, call, principal) = (self.clone(), call.clone(), principal.clone());
        let answered = tokio::task::spawn_blocking(move || match call {
            Call::NodeInvite { node, valid_s, seat } => api.invite(node, valid_s, seat, principal),
            _ => api.renew(),
        });
        Some(answered.await.unwrap_or_else(|error| fail("bug", error.to_string(), 3)))
    }

    fn renew(&self) -> Reply {
        let (reply, answer) = crossbeam::channel::bounded(1);
        let asked = self.renewals.send(reply).is_ok();
        let answer = asked.then(|| answer.recv().ok()).flatten();
        answer.unwrap_or_else(|| fail("no-answer", "the thread that renews certificates has ended".into(), 3))
    }

    fn invite(&self, node: NodeId, valid_s: u64, wish: SeatWish, principal: Principal) -> Reply {
        let Some(door) = &self.door else {
            let help = "in one node's nines.yaml: authority: DIR, where DIR has ca.pem and ca.key as nines init made them; restart it and ask it with --node";
            return fail_help("no-authority", format!("{} does not hold the domain's authority, which signs certificates", self.me), help, 4);
        };
        let config = Arc::clone(&self.configuration.borrow());
        let seat = match seat(&config, node, wish) {
            Ok(seat) => seat,
            Err(reply) => return *reply,
        };
        // Ours first: it is known to hold the authority. Others may.
        let at = |n: &NodeConfig| n.links.iter().map(|l| (n.id, *l)).collect::<Vec<_>>();
        let (ours, others): (Vec<_>, Vec<_>) = config.nodes.iter().filter(|n| n.id != node).partition(|n| n.id == self.me);
        let doors = ours.into_iter().chain(others).flat_map(at).collect();
        door.invite(seat, valid_s, doors, principal)
    }

    /// Faults go to the chassis' own process; the core loop has no part in them.
    async fn about_chassis(&self, call: &Call, principal: &Principal) -> Option<Reply> {
        let (Call::Inject { chassis, .. } | Call::InjectClear { chassis } | Call::InjectList { chassis }) = call else { return None };
        if let Err(refused) = authority::decide(principal, call.wanted()) {
            return Some(fail("refused", refused.to_string(), 4));
        }
        let config = Arc::clone(&self.configuration.borrow());
        let Some(found) = config.chassis.iter().find(|c| c.name.as_str() == chassis) else {
            let names: Vec<String> = config.chassis.iter().map(|c| c.name.to_string()).collect();
            return Some(fail("unknown-chassis", format!("there is no chassis {chassis}; there are: {}", names.join(", ")), 2));
        };
        let Some(manager) = found.manager else {
            return Some(fail("no-simulator", format!("{chassis} is no simulated chassis: nothing can be injected"), 2));
        };
        Some(inject(&manager.to_string(), call, principal).await.unwrap_or_else(|error| match error {
            ClientError::Refused { code, message } => fail(&code, message, 2),
            other => fail("no-chassis", other.to_string(), 3),
        }))
    }
}

/// The place that an invited node will have.
fn seat(config: &DomainConfig, node: NodeId, wish: SeatWish) -> Result<NodeConfig, Box<Reply>> {
    let before = config.node(node);
    let links = if wish.links.is_empty() { before.map(|n| n.links.clone()) } else { Some(wish.links) };
    let chassis = wish.chassis.or_else(|| before.map(|n| n.chassis.clone()));
    let (Some(links), Some(chassis)) = (links, chassis) else {
        let message = format!("{node} has no place in this domain yet: say in which chassis it sits, and its address on each link");
        let help = format!("nines node invite {node} --chassis {} --links 10.9.1.{1}:7400,10.9.2.{1}:7400", config.chassis.first().map_or("mxp1", |c| c.name.as_str()), node.0);
        return Err(Box::new(fail_help("no-seat", message, &help, 2)));
    };
    let witness = wish.witness || before.is_some_and(|n| n.witness);
    let voter = wish.voter || witness || before.is_some_and(|n| n.voter);
    Ok(NodeConfig { id: node, chassis, links, voter, witness })
}

async fn inject(manager: &str, call: &Call, principal: &Principal) -> Result<Reply, ClientError> {
    let mut client = Client::connect(manager, "injector").await?;
    match call {
        Call::Inject { chassis, fault, target, for_s, .. } => {
            let mut parameters = std::collections::BTreeMap::new();
            if let Some(target) = target {
                let (name, value) = target.split_once('=').unwrap_or((target.trim_end_matches(|c: char| c.is_ascii_digit()), target.trim_start_matches(|c: char| !c.is_ascii_digit())));
                parameters.insert(name.to_owned(), value.to_owned());
            }
            let injection = Injection { fault: fault.clone(), parameters, expires_after: Some(Duration::from_secs(*for_s)), by: principal.name.to_string() };
            let id = client.inject(injection).await?;
            let target = target.clone().unwrap_or_default();
            Ok(Reply::Done { text: format!("{fault} {target} is in force in {chassis} (fault {}), for {for_s} s. Back: nines inject {chassis} --clear", id.0) })
        }
        Call::InjectClear { chassis } => {
            let count = client.clear(None).await?;
            Ok(Reply::Done { text: format!("{count} faults of {chassis} are ended") })
        }
        _ => {
            let active = client.faults().await?;
            let mut rows: Vec<serde_json::Value> = active
                .iter()
                .map(|f| {
                    let target: Vec<String> = f.injection.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
                    serde_json::json!({"name": f.injection.fault, "target": target.join(" "), "help": format!("in force, by {}", f.injection.by)})
                })
                .collect();
            rows.extend(CATALOGUE.iter().map(|e| serde_json::json!({"name": e.name, "target": "", "help": e.help})));
            Ok(Reply::Faults(serde_json::Value::Array(rows)))
        }
    }
}

async fn relay(from_core: crossbeam::channel::Receiver<Reply>, mut write: tokio::net::unix::OwnedWriteHalf, is_followed: bool) {
    // The core loop's channel is not async: a thread of the blocking pool waits for it.
    let (forward, mut replies) = tokio::sync::mpsc::channel(64);
    tokio::task::spawn_blocking(move || {
        while let Ok(reply) = from_core.recv() {
            if forward.blocking_send(reply).is_err() || !is_followed {
                return;
            }
        }
    });
    while let Some(reply) = replies.recv().await {
        if put(&mut write, &reply).await.is_err() {
            return;
        }
    }
}

async fn put(write: &mut tokio::net::unix::OwnedWriteHalf, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    write.write_all(&line).await
}

/// Root and the daemon's own user may do everything, others that the socket's mode lets in may look.
fn principal(stream: &UnixStream) -> Principal {
    let uid = stream.peer_cred().map(|c| c.uid()).ok();
    let own = nix::unistd::geteuid().as_raw();
    let role = if uid == Some(0) || uid == Some(own) { AccessRole::Admin } else { AccessRole::Viewer };
    let name = uid.map_or_else(|| "unknown".to_owned(), |uid| if uid == 0 { "root".to_owned() } else { format!("uid {uid}") });
    Principal { name: name.as_str().into(), role }
}
