//! The nodes of neighbouring domains: what of what they send is taken, and as what.

use std::collections::BTreeMap;
use std::sync::Arc;

use sixnines_core::abroad::{Interest, Neighbour};
use sixnines_core::class::Pattern;
use sixnines_core::ids::NodeId;
use sixnines_discs::feed::wire::{Recorded, Word, read_subscription};
use sixnines_discs::wire::Kind;

use crate::core_loop::In;

/// What a neighbour's node belongs to, and what goes between it and this one.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) neighbour: Arc<Neighbour>,
    /// The objects here that it may hear of.
    pub(crate) tell: Vec<Pattern>,
}

/// All of them, by the numbers that they have here.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) nodes: BTreeMap<NodeId, Place>,
}

impl Table {
    /// What is to be heard of a neighbour's node.
    pub(crate) fn hear(&self, node: NodeId) -> &[Pattern] {
        self.nodes.get(&node).map_or(&[], |place| &place.neighbour.hear)
    }

    /// What the core loop is told of a frame: nothing but events, subscriptions and cursors are taken of a neighbour. No lease, no entry of the
    /// control log, no command of it gets to a part of this node. What it tells is made ours before anybody else sees it.
    pub(crate) fn read(&self, from: NodeId, kind: Kind, payload: &[u8]) -> Option<In> {
        let place = self.nodes.get(&from)?;
        match kind {
            Kind::FEED if !place.neighbour.hear.is_empty() => {
                let word = Word::read(payload)?.from_abroad(&place.neighbour)?;
                Some(In::Word { from, word: Box::new(word) })
            }
            Kind::SUBSCRIBE => {
                let (wanted, resume) = read_subscription(payload)?;
                let resume = Some(resume?); // who knows nothing of feeds is no neighbour
                Some(In::Subscribed { from, interest: Interest::within(wanted, place.tell.clone()), resume })
            }
            Kind::CURSOR => Some(In::Recorded { from, recorded: Recorded::read(payload)? }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use sixnines_discs::feed::wire::{Resume, subscription};

    use super::*;

    fn table(hear: &[&str], tell: &[&str]) -> Table {
        let patterns = |list: &[&str]| list.iter().map(|text| Pattern::new(*text)).collect();
        let neighbour = Arc::new(Neighbour { domain: "north".into(), number: 2, hear: patterns(hear) });
        Table { nodes: [(NodeId(205), Place { neighbour, tell: patterns(tell) })].into() }
    }

    #[test]
    fn a_neighbour_gets_no_further_than_it_may() {
        let table = table(&[], &["/mxp1/**"]);
        let wanted = subscription(&[Pattern::new("/**")], Resume::default());
        let Some(In::Subscribed { interest, .. }) = table.read(NodeId(205), Kind::SUBSCRIBE, &wanted) else { panic!("it may subscribe") };
        assert!(interest.covers("/mxp1/fan1") && !interest.covers("/services/calls"));
        assert!(table.read(NodeId(205), Kind::CURSOR, &Recorded::default().encode()).is_some());
        assert!(table.read(NodeId(206), Kind::SUBSCRIBE, &wanted).is_none(), "nobody that is listed");
        let begin = Word::Begin(sixnines_core::feed::Place::default()).frame().2;
        assert!(table.read(NodeId(205), Kind::FEED, &begin).is_none(), "nothing is to be heard of it");
        for kind in (0..=u8::MAX).map(Kind).filter(|k| ![Kind::SUBSCRIBE, Kind::CURSOR].contains(k)) {
            assert!(table.read(NodeId(205), kind, &begin).is_none(), "{kind:?}");
        }
    }
}
