//! The domain's feature level, for operators: what is in force, what each member reads, and the one step up (protocol 6.3).
//!
//! What a member reads is its own word, from the `Hello` of a connection that stands to it now: a node that is down may come back as another build, so
//! of that nothing is known, and what is not known counts as not read. Nobody reads less later but by an operator's hand; such a node
//! stops by itself.

use crossbeam::channel::Sender;
use sixnines_core::authority::Principal;
use sixnines_core::domain::Entry;
use sixnines_core::domain::feature::Level;
use sixnines_core::ids::NodeId;
use sixnines_core::time::Instant;
use sixnines_discs::liveness::Verdict;

use super::CoreLoop;
use super::answers::{fail, fail_help, say};
use super::ways::Ways;
use crate::api::{FeatureReport, FeatureRow, Reply};

impl<W: Ways> CoreLoop<W> {
    /// The level in force, and what every member reads.
    pub(super) fn features(&self) -> FeatureReport {
        let nodes: Vec<FeatureRow> = self.readers().map(|(node, reads)| FeatureRow { node, reads: reads.map(|l| l.0) }).collect();
        let next = self.domain.level.next().filter(|next| nodes.iter().any(|row| row.reads >= Some(next.0)));
        FeatureReport { level: self.domain.level.0, next: next.map(|l| l.0), hindered_by: next.map(|l| self.who_cannot_read(l)).unwrap_or_default(), nodes }
    }

    /// One step up, if every member has said that it reads it.
    pub(super) fn raise_level(&mut self, now: Instant, wish: Option<Level>, message: &str, principal: &Principal, reply: Sender<Reply>) {
        if self.domain.config_version.0 == 0 {
            return say(&reply, fail("not-joined", "this node does not know its domain yet".into(), 3));
        }
        let present = self.domain.level;
        let Some(next) = present.next() else { return say(&reply, fail("no-such-level", format!("{present} is the last level that there can be"), 2)) };
        let to = wish.unwrap_or(next);
        if to == present {
            return say(&reply, Reply::Done { text: format!("feature level {present} is in force already: nothing to do") });
        }
        if to < present {
            return say(&reply, fail_help("no-way-back", format!("feature level {present} is in force, and the log may bear what level {to} cannot say"), "nines feature", 2));
        }
        if to > next {
            return say(&reply, fail_help("one-step", format!("feature level {present} is in force, and it goes up by one step at a time"), &format!("nines feature raise {next}"), 2));
        }
        let hindered_by = self.who_cannot_read(to);
        if !hindered_by.is_empty() {
            let help = "start a newer build of nines on each of them, one after the other; nines feature shows who reads what. Who does not come back: nines node expel";
            return say(&reply, fail_help("not-everywhere", format!("feature level {to} is not read by every member: {}", hindered_by.join(", ")), help, 4));
        }
        let cause = self.requested(now, &format!("{} raises the feature level to {to}{}{message}", principal.name, if message.is_empty() { "" } else { "; " }));
        let done = format!("feature level {present} -> {to}. There is no way back: a build that does not read it stops in this domain");
        self.propose_for(now, Entry::Feature { level: to }, cause, done, reply);
    }

    /// Every member, and the newest level that it says it reads. Who was expelled comes back as somebody else, if at all.
    fn readers(&self) -> impl Iterator<Item = (NodeId, Option<Level>)> {
        let is_there = |node: NodeId| node == self.me || self.verdicts.get(&node) == Some(&Verdict::Alive);
        let members = self.domain.config.nodes.iter().map(|n| n.id).filter(|n| !self.domain.is_expelled(*n));
        members.map(move |node| (node, self.ways.reads(node).filter(|_| is_there(node))))
    }

    fn who_cannot_read(&self, level: Level) -> Vec<String> {
        let words = |(node, reads): (NodeId, Option<Level>)| match reads {
            Some(reads) if reads >= level => None,
            Some(reads) => Some(format!("{node} reads up to {reads}")),
            None => Some(format!("{node} is not there to say what it reads")),
        };
        self.readers().filter_map(words).collect()
    }
}
