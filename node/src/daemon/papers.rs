//! This node's own certificate: how long it lasts, and another one in time.
//!
//! A thread of its own, which may wait. It asks the node that holds the authority (whichever it is: the doors of all members are tried), puts the
//! new certificate in the old one's place in one step, and shows it from the next handshake on. The key stays; connections that stand go on. By
//! itself it asks when two thirds of the certificate's life are over, and goes on asking.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};
use sixnines_core::domain::config::DomainConfig;
use sixnines_core::ids::NodeId;
use sixnines_discs::door::{Door, visit};
use sixnines_discs::mesh::MeshHandle;
use sixnines_discs::pki::{self, Facts, Identity, Members, NO_END, certificate_name};
use tokio::sync::watch;

use super::door::{Answer, Question, failure, seconds_now};
use crate::api::{Failure, Reply, date_text};
use crate::core_loop::{CertificateNews, In};

/// Everything that the thread needs.
pub(super) struct Papers {
    pub(super) dir: PathBuf,
    pub(super) identity: Identity,
    pub(super) members: Arc<Members>,
    /// Among the domain's own nodes, and towards neighbours.
    pub(super) meshes: Vec<MeshHandle>,
    /// This node's own door, if it has one: it shows the new certificate too.
    pub(super) door: Option<Door>,
    pub(super) inbox: Sender<In>,
    pub(super) configuration: watch::Receiver<Arc<DomainConfig>>,
}

/// An operator who asks for another certificate now.
pub(super) type RenewOrder = Sender<Reply>;

/// Between two looks at the clock, at most.
const LOOK_MAX: Duration = Duration::from_secs(60);
const LOOK_MIN: Duration = Duration::from_millis(200);
/// In a life there are so many looks.
const LOOKS: u32 = 60;

impl Papers {
    /// Until nobody can ask any more.
    pub(super) fn run(mut self, orders: &Receiver<RenewOrder>) {
        let mut told = None;
        let mut trouble = String::new();
        loop {
            let facts = self.identity.facts();
            let now = seconds_now();
            let news = CertificateNews { state: state(&facts, now), until: until(&facts), serial: facts.serial_text(), why: trouble.clone() };
            if told.as_ref() != Some(&news) {
                if self.inbox.send(In::Certificate(news.clone())).is_err() {
                    return;
                }
                told = Some(news);
            }
            if is_due(&facts, now) {
                trouble = self.renew().err().map(|f| f.message).unwrap_or_default();
                if trouble.is_empty() {
                    continue;
                }
                tracing::warn!(trouble, "the certificate could not be renewed; it is asked for again");
            }
            match orders.recv_timeout(pause(&facts)) {
                Ok(reply) => {
                    let answer = match self.renew() {
                        Ok(done) => {
                            trouble.clear();
                            Reply::Done { text: done }
                        }
                        Err(failure) => Reply::Failed(failure),
                    };
                    if reply.send(answer).is_err() {
                        tracing::debug!("whoever asked has gone");
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn renew(&mut self) -> Result<String, Failure> {
        let config = Arc::clone(&self.configuration.borrow());
        let mut tried = Vec::new();
        for (node, address) in config.nodes.iter().flat_map(|n| n.links.iter().map(|l| (n.id, *l))) {
            match self.ask(node, address) {
                Ok(Answer::Renewed { certificate }) => return self.take(&certificate),
                Ok(Answer::Failed(failure)) => return Err(failure),
                Ok(Answer::Joined(_)) => tried.push(format!("{node} makes no sense")),
                Err(why) => tried.push(why),
            }
        }
        tried.dedup();
        let message = format!("no node with the domain's authority answers: {}", tried.join("; "));
        Err(failure("no-authority", message, "one node's nines.yaml has to say where it lies: authority: DIR, with ca.pem and ca.key", 3))
    }

    fn ask(&self, node: NodeId, address: SocketAddr) -> Result<Answer, String> {
        let config = self.identity.visitor_config(Arc::clone(&self.members)).map_err(|e| e.to_string())?;
        let question = serde_json::to_vec(&Question::Renew).expect("a question has a text");
        let answer = visit(address, &certificate_name(self.identity.domain(), node), config, &question).map_err(|e| e.to_string())?;
        serde_json::from_slice(&answer).map_err(|e| format!("{node} at {address} makes no sense: {e}"))
    }

    fn take(&mut self, certificate: &str) -> Result<String, Failure> {
        let wrong = |e: pki::PkiError| failure("bad-certificate", e.to_string(), "the former certificate goes on; see the node's log", 3);
        let renewed = self.identity.renewed(certificate).map_err(wrong)?;
        pki::save_renewed(&self.dir, self.identity.node(), certificate).map_err(wrong)?;
        if let Some(door) = &self.door {
            door.set_config(renewed.door_config(Arc::clone(&self.members)).map_err(wrong)?);
        }
        let facts = renewed.facts();
        for mesh in &self.meshes {
            mesh.show(renewed.renewed(certificate).map_err(wrong)?); // each has a copy of its own
        }
        self.identity = renewed;
        Ok(format!("{} has a new certificate, {}, serial {}. Connections go on; new ones show it", self.identity.node(), until(&facts), facts.serial_text()))
    }
}

fn life(facts: &Facts) -> Option<u64> {
    (facts.ends < NO_END).then(|| facts.ends.saturating_sub(facts.issued))
}

fn is_due(facts: &Facts, now: u64) -> bool {
    life(facts).is_some_and(|life| now >= facts.issued + life * 2 / 3)
}

/// Five sixths of its life: it should have been renewed long ago.
fn state(facts: &Facts, now: u64) -> &'static str {
    match life(facts) {
        Some(_) if now >= facts.ends => "over",
        Some(life) if now >= facts.issued + life * 5 / 6 => "ending",
        _ => "good",
    }
}

fn until(facts: &Facts) -> String {
    if facts.ends >= NO_END { "no end".into() } else { format!("until {}", date_text(facts.ends)) }
}

fn pause(facts: &Facts) -> Duration {
    life(facts).map_or(LOOK_MAX, |life| (Duration::from_secs(life) / LOOKS).clamp(LOOK_MIN, LOOK_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life_and_an_alarm_at_five_sixths() {
        let authority = pki::Authority::create("lab").expect("an authority");
        let identity = authority.issue(NodeId(1)).and_then(|i| i.identity()).expect("an identity");
        let facts = Facts { issued: 1000, ends: 1600, ..identity.facts() };
        let at = |now| (is_due(&facts, now), state(&facts, now));
        assert_eq!([at(1399), at(1400), at(1500), at(1600)], [(false, "good"), (true, "good"), (true, "ending"), (true, "over")]);
        let endless = identity.facts();
        assert_eq!((is_due(&endless, u64::MAX), state(&endless, u64::MAX), until(&endless).as_str()), (false, "good", "no end"));
        assert_eq!(until(&facts), "until 1970-01-01 00:26:40");
    }
}
