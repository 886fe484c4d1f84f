//! Heartbeats that say what is not so.

use std::collections::BTreeMap;

use sixnines_core::domain::{Domain, Release};
use sixnines_core::ids::{Incarnation, LogIndex, Member, NodeId};
use sixnines_core::time::Instant;
use sixnines_discs::liveness::wire::Heartbeat;

use super::{Mutation, law};

/// So many heartbeats, between two that renounce.
const NOW_AND_THEN: u64 = 300;

/// What a node says and believes beside what its liveness does.
#[derive(Debug, Default)]
pub(in crate::sim) struct Liar {
    /// Whom it has released on mere evidence.
    released: BTreeMap<NodeId, (Incarnation, LogIndex)>,
    /// What voters said in lives that may be over.
    heard: Vec<Release>,
}

impl Liar {
    /// A heartbeat on its way out.
    pub(in crate::sim) fn speak(&self, mutation: Mutation, heartbeat: &mut Heartbeat) {
        match mutation {
            Mutation::GrantsAfterRelease => heartbeat.echoes.iter_mut().filter(|echo| echo.released.is_some()).for_each(|echo| echo.granted = echo.heard),
            Mutation::RenouncesAndSpeaks if heartbeat.sequence.is_multiple_of(NOW_AND_THEN) => {
                (heartbeat.hears_nobody, heartbeat.renounces) = (true, true);
                heartbeat.echoes.clear();
            }
            Mutation::GrantsWhatIsNotApplied => heartbeat.applied = LogIndex(u64::MAX),
            Mutation::EvidenceSkipsWait => heartbeat.echoes.iter_mut().for_each(|echo| echo.released = echo.released.or(self.released.get(&echo.node).copied())),
            _ => {}
        }
    }

    /// A heartbeat that has come to `me`, which has this number in this life.
    pub(in crate::sim) fn hear(mutation: Mutation, me: NodeId, life: u64, now: Instant, heartbeat: &mut Heartbeat) {
        if mutation == Mutation::GrantsTheDeaf {
            (heartbeat.hears_nobody, heartbeat.renounces) = (false, false);
            for echo in heartbeat.echoes.iter_mut().filter(|echo| echo.node == me) {
                (echo.life, echo.heard) = (life, now);
            }
        }
    }

    /// A link to `node` is down: the release that is given on the strength of it.
    pub(in crate::sim) fn lost_link(&mut self, me: Member, domain: &Domain, node: NodeId) -> Option<Release> {
        let target = domain.member(node)?;
        let since = domain.nodes.get(&node)?.since;
        self.released.insert(node, (target.incarnation, since));
        Some(Release { voter: me, target, since })
    }

    /// A voter has released somebody: what is made of it beside that.
    pub(in crate::sim) fn take(&mut self, mutation: Mutation, domain: &Domain, release: Release) -> Vec<Release> {
        match mutation {
            Mutation::OneReleaseIsEnough => domain.config.voters().filter(|n| *n != release.target.node).filter_map(|n| Some(Release { voter: domain.member(n)?, ..release })).collect(),
            Mutation::RestartForgetsRelease => {
                self.heard.push(release);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// The log has moved on: what was said in former lives is believed again.
    pub(in crate::sim) fn renewed(&self, domain: &Domain) -> Vec<Release> {
        self.heard.iter().map(|release| law::renewed(domain, *release)).collect()
    }
}
