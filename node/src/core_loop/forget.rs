//! Taking a node that was expelled out of the configuration, and what is left of it here: `sixnines_core::domain::forget` says who is missed.

use crossbeam::channel::Sender;
use sixnines_core::authority::Principal;
use sixnines_core::domain::forget::Missed;
use sixnines_core::domain::{Domain, Entry};
use sixnines_core::ids::{EventId, NodeId};
use sixnines_core::time::Instant;
use sixnines_core::value::Quality;

use super::answers::{fail_help, say};
use super::ways::Ways;
use super::{CoreLoop, node_object, word};
use crate::api::Reply;

impl<W: Ways> CoreLoop<W> {
    /// Only if nobody misses it, and the others can decide it.
    pub(super) fn forget(&mut self, now: Instant, node: NodeId, principal: &Principal, reply: Sender<Reply>) {
        let config = match self.domain.without(node, self.wall) {
            Ok(config) => config,
            Err(missed) => return say(&reply, self.not_forgotten(&missed)),
        };
        if let Some(why) = self.undecided_without(node) {
            return say(&reply, fail_help("harmful", why, "start the voters that are down; nines status shows which", 4));
        }
        let cause = self.requested(now, &format!("{} forgets {node}", principal.name));
        let done = format!("{node} is forgotten: it is no node of this domain any more. What certificates it had stay without worth. Another one of that name: nines node invite {node} --chassis NAME --links ADDRESSES");
        self.propose_for(now, Entry::Configure { expected: self.domain.config_version, config }, cause, done, reply);
    }

    fn not_forgotten(&self, missed: &Missed) -> Reply {
        let (code, help, exit) = match missed {
            Missed::Unknown(_) => {
                let names: Vec<String> = self.domain.config.nodes.iter().map(|n| n.id.to_string()).collect();
                ("unknown-node", format!("there are: {}", names.join(", ")), 2)
            }
            Missed::Member(node) => ("is-member", format!("nines node expel {node}, which the others take for its death; then forget it"), 4),
            Missed::Invited(node, _) => ("is-invited", format!("wait until that is over; or let {node} in"), 4),
            Missed::Counts { .. } => ("is-missed", "look again in a moment: nines status".into(), 4),
            Missed::Candidate { node, .. } | Missed::Config(node, _) => ("is-missed", format!("let another machine take its place: nines node invite {node}; or invite one of another name beside it first"), 4),
        };
        fail_help(code, missed.to_string(), &help, exit)
    }

    /// Who went out of the configuration has left: nobody judges it any more, so what was raised about it ends here.
    pub(super) fn tell_forgotten(&mut self, now: Instant, before: &Domain, cause: Option<EventId>) {
        if before.config_version == self.domain.config_version || self.engine.is_none() {
            return;
        }
        let gone: Vec<NodeId> = before.config.nodes.iter().map(|n| n.id).filter(|n| self.domain.config.node(*n).is_none()).collect();
        for node in gone {
            self.observe(now, &node_object(node), "state", Some(word("left")), Quality::Good, cause, "it was forgotten", false);
        }
    }

    /// Whether a node that is lost is none of this domain's, as far as the log has told.
    pub(super) fn is_forgotten(&self, node: NodeId) -> bool {
        let is_named = self.domain.config_version.0 == 0 || self.domain.config.node(node).is_some();
        !is_named && self.verdicts.get(&node).is_some_and(|v| v.is_lost())
    }
}
