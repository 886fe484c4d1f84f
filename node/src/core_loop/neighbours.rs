//! How the neighbouring domains are heard. What they tell goes the way of all events, see [`super::feeds`].

use sixnines_core::engine;
use sixnines_core::ids::NodeId;
use sixnines_core::time::Instant;
use sixnines_core::value::Quality;
use sixnines_discs::feed;

use super::ways::Ways;
use super::{CoreLoop, node_object, word};
use crate::api::NeighbourRow;

/// Which nodes of a neighbour are heard, and which are not.
#[derive(Debug, Default)]
pub(super) struct Reach {
    heard: Vec<NodeId>,
    silent: Vec<NodeId>,
}

impl Reach {
    fn word(&self) -> &'static str {
        match (self.heard.is_empty(), self.silent.is_empty()) {
            (true, _) => "lost",
            (false, false) => "partly",
            (false, true) => "heard",
        }
    }

    fn text(&self) -> String {
        let list = |nodes: &[NodeId]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        match (self.heard.is_empty(), self.silent.is_empty()) {
            (true, _) => format!("none of {} is heard", list(&self.silent)),
            (false, false) => format!("{} heard, {} not", list(&self.heard), list(&self.silent)),
            (false, true) => format!("{} heard", list(&self.heard)),
        }
    }
}

impl<W: Ways> CoreLoop<W> {
    /// A neighbour's node is heard again, perhaps in the life in which it was heard before: it is asked how everything is.
    pub(super) fn on_heard(&mut self, now: Instant, node: NodeId, is_heard: bool) {
        self.feeds.outlet.handle(now, feed::Input::Reach { node, is_reachable: is_heard });
        if !is_heard {
            self.unheard.insert(node);
            self.feed_engine(now, engine::Input::Unheard(node));
        } else if self.unheard.remove(&node) && self.lives.contains_key(&node) {
            self.subscribe(now, node);
        }
    }

    pub(super) fn on_neighbour(&mut self, now: Instant, domain: String, heard: Vec<NodeId>, silent: Vec<NodeId>) {
        self.neighbours.insert(domain.clone(), Reach { heard, silent });
        self.tell_neighbour(now, &domain);
    }

    /// When this node's life begins, and what was found before has no event yet.
    pub(super) fn tell_neighbours(&mut self, now: Instant) {
        for domain in self.neighbours.keys().cloned().collect::<Vec<_>>() {
            self.tell_neighbour(now, &domain);
        }
    }

    /// For people.
    pub(super) fn neighbour_rows(&self) -> Vec<NeighbourRow> {
        let row = |(domain, reach): (&String, &Reach)| NeighbourRow { domain: domain.clone(), state: reach.word().to_owned(), heard: reach.heard.clone(), silent: reach.silent.clone() };
        self.neighbours.iter().map(row).collect()
    }

    fn tell_neighbour(&mut self, now: Instant, domain: &str) {
        let Some(reach) = self.neighbours.get(domain) else { return };
        let (state, why) = (reach.word(), reach.text());
        let object = format!("{}/neighbours/{domain}", node_object(self.me));
        self.observe(now, &object, "state", Some(word(state)), Quality::Good, None, &why, false);
    }
}
