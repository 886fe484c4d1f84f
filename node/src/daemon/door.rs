//! The keeper of the door, on a node that holds the domain's authority: certificates for who shows a token, and for members whose own is to be
//! renewed.
//!
//! Who may come in is the control log's to say (`core/src/domain/admission.rs`); the certificate is made only when the log has said it. The key
//! of the authority is read at the start and used here, and nowhere else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use crossbeam::channel::Sender;
use serde::{Deserialize, Serialize};
use sixnines_core::authority::{AccessRole, Principal};
use sixnines_core::domain::config::NodeConfig;
use sixnines_core::domain::feature::Level;
use sixnines_core::time::WallTime;
use sixnines_discs::door::{Keeper, Visitor};
use sixnines_discs::pki::{self, Authority, Facts, Identity, Members, Request, Token};

use crate::api::{Admitted, Call, Failure, Invited, Reply, date_text};
use crate::config::NodeFile;
use crate::core_loop::In;
use crate::core_loop::answers::Ask;

/// What is asked at the door.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Question {
    /// To be let in: the token as it was printed, and a certificate request.
    Join {
        token: String,
        request: Vec<u8>,
        /// The newest feature level that the machine's build reads; who does not say reads the first.
        #[serde(default)]
        reads: Level,
    },
    /// Another certificate for the one that was shown.
    Renew,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// Everything that a node's directory is made of, but its key.
    Joined(Box<Papers>),
    Renewed { certificate: String },
    Failed(Failure),
}

/// What a machine needs to be a node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Papers {
    pub(crate) certificate: String,
    pub(crate) authority: String,
    pub(crate) domain_id: u64,
    pub(crate) config: sixnines_core::domain::config::DomainConfig,
    pub(crate) policies: sixnines_core::domain::config::Bundle,
}

/// The authority, as a daemon holds it.
pub(super) struct Held {
    authority: Authority,
    life: Option<u64>,
    domain: String,
    domain_id: u64,
    members: Arc<Members>,
    inbox: Sender<In>,
}

/// The control log is waited for so long.
const LOG_PATIENCE: Duration = Duration::from_secs(8);

impl Held {
    /// Reads it, if this node's file says that it is here.
    pub(super) fn load(file: &NodeFile, identity: &Identity, members: &Arc<Members>, inbox: &Sender<In>) -> anyhow::Result<Option<Arc<Self>>> {
        let Some(dir) = &file.authority else { return Ok(None) };
        let authority = Authority::load(dir, identity.domain()).context("authority: this node cannot hold it")?;
        if authority.fingerprint()? != identity.authority() {
            bail!("authority: {} is another one than the one that this node's certificate is from: take the ca.pem and ca.key that nines init made with this domain", dir.display());
        }
        let domain = identity.domain().to_owned();
        Ok(Some(Arc::new(Self { authority, life: file.life()?, domain, domain_id: file.domain_id, members: Arc::clone(members), inbox: inbox.clone() })))
    }

    /// Makes a token and has the control log know it.
    pub(super) fn invite(&self, seat: NodeConfig, valid_s: u64, doors: Vec<(sixnines_core::ids::NodeId, SocketAddr)>, principal: Principal) -> Reply {
        let node = seat.id;
        let expires = seconds_now() + valid_s;
        let drawn = self.authority.fingerprint().and_then(|authority| Token::draw(&self.domain, node, authority, expires, doors));
        let token = match drawn {
            Ok(token) => token,
            Err(error) => return crate::core_loop::answers::fail("no-token", error.to_string(), 3),
        };
        let call = Call::Invite { token: token.fingerprint(), seat: Box::new(seat), expires: WallTime(expires.saturating_mul(1_000_000_000)) };
        match self.ask(call, principal) {
            Reply::Done { .. } => Reply::Invited(Invited { node, token: token.to_string(), expires: date_text(expires), valid_s }),
            other => other,
        }
    }

    fn ask(&self, call: Call, principal: Principal) -> Reply {
        let (reply, answer) = crossbeam::channel::bounded(1);
        let gone = || crate::core_loop::answers::fail("no-answer", "the node did not answer in time; what was asked may still happen".into(), 5);
        if self.inbox.send(In::Ask(Ask { call, principal, reply })).is_err() {
            return gone();
        }
        answer.recv_timeout(LOG_PATIENCE).unwrap_or_else(|_| gone())
    }

    fn join(&self, from: SocketAddr, token: &str, request: &[u8], reads: Level) -> Result<Answer, Failure> {
        let bad = |message: String| failure("bad-request", message, "nines join TOKEN --dir DIR", 2);
        let token: Token = token.parse().map_err(|e: pki::TokenError| bad(e.to_string()))?;
        let key = Request::key(request).map_err(|e| bad(e.to_string()))?;
        let principal = Principal { name: format!("whoever shows a token at {from}").as_str().into(), role: AccessRole::Node };
        let admitted = match self.ask(Call::Admit { node: token.node, token: token.fingerprint(), key: key.fingerprint(), reads }, principal) {
            Reply::Admitted(admitted) => admitted,
            Reply::Failed(failure) => return Err(failure),
            _ => return Err(bad("the node does not know what to say".into())),
        };
        let Admitted { admission, config, policies } = *admitted;
        let certificate = self.certify(token.node, &key, admission)?;
        tracing::info!(node = %token.node, %from, admission, "let in");
        let papers = Papers { certificate, authority: self.authority.certificate_pem().to_owned(), domain_id: self.domain_id, config, policies: (*policies).clone() };
        Ok(Answer::Joined(Box::new(papers)))
    }

    fn renew(&self, visitor: &Visitor) -> Result<Answer, Failure> {
        let shown = visitor.certificate.as_ref().and_then(|c| Some((self.members.named_by(c)?, Facts::of(c)?)));
        let Some((node, facts)) = shown else {
            return Err(failure("no-certificate", "only who shows a certificate that counts can have it renewed".into(), "nines node invite NAME, on the node that holds the authority", 4));
        };
        let certificate = self.certify(node, &facts.public_key, facts.admission)?;
        tracing::info!(%node, "its certificate is renewed");
        Ok(Answer::Renewed { certificate })
    }

    fn certify(&self, node: sixnines_core::ids::NodeId, key: &pki::PublicKey, admission: u64) -> Result<String, Failure> {
        let ends = self.life.map(|life| seconds_now() + life);
        self.authority.certify(node, key, admission, ends).map_err(|e| failure("no-certificate", e.to_string(), "see the log of the node that holds the authority", 3))
    }
}

impl Keeper for Held {
    fn answer(&self, visitor: &Visitor, question: &[u8]) -> Vec<u8> {
        let answer = match serde_json::from_slice(question) {
            Ok(Question::Join { token, request, reads }) => self.join(visitor.address, &token, &request, reads),
            Ok(Question::Renew) => self.renew(visitor),
            Err(error) => Err(failure("bad-request", format!("no question that this version understands: {error}"), "compare the versions: nines --version", 2)),
        };
        let answer = answer.unwrap_or_else(|failure| {
            tracing::warn!(from = %visitor.address, code = failure.code, failure.message, "somebody was turned away at the door");
            Answer::Failed(failure)
        });
        serde_json::to_vec(&answer).expect("an answer has a text")
    }
}

pub(crate) fn failure(code: &str, message: String, help: &str, exit: u8) -> Failure {
    Failure { code: code.into(), message, help: Some(help.into()), exit }
}

/// By the wall clock, since 1970.
pub(crate) fn seconds_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
