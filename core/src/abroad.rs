//! Federation: what is heard of other domains, made ours.
//!
//! A neighbour is another domain, with a control log, roles and an authority of its own; nothing is shared with it but events, and it tells only
//! its own. Its nodes and objects have other names here, so that neither can be taken for one of this domain: node n5 of the neighbour with the
//! number 2 is n205, its `/mxp1/fan3` is `/neighbours/north/mxp1/fan3`. From there on its events go the way of all: numbered by their origin,
//! recorded once, heard by policies, asked about with `why`. Its objects have no owner here: nobody can set anything of them.

use crate::class::Pattern;
use crate::engine::AlarmRef;
use crate::event::Event;
use crate::ids::{EventId, GroupName, NodeId, ObjectName};

/// What the names of all neighbours' objects begin with.
pub const NEIGHBOURS: &str = "/neighbours";
/// Each neighbour has so many numbers of nodes.
const NUMBERS: u16 = 100;
/// The highest number of a neighbour.
pub const NEIGHBOUR_MAX: u16 = 99;

impl NodeId {
    /// Whether it is a neighbour's node.
    pub fn is_abroad(self) -> bool {
        self.0 >= NUMBERS
    }
}

/// Another domain, as this one calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The domain's name.
    pub domain: String,
    /// 1 to [`NEIGHBOUR_MAX`]; the same on every node of this domain.
    pub number: u16,
    /// Its objects that are to be heard of, as they are called there. Whatever else it tells is not taken.
    pub hear: Vec<Pattern>,
}

impl Neighbour {
    /// Its node, as it is numbered here. `None` for what is no node of that domain itself.
    pub fn node(&self, theirs: NodeId) -> Option<NodeId> {
        let fits = (1..NUMBERS).contains(&theirs.0) && (1..=NEIGHBOUR_MAX).contains(&self.number);
        fits.then(|| NodeId(self.number * NUMBERS + theirs.0))
    }

    /// Its object, as it is called here.
    pub fn object(&self, theirs: &ObjectName) -> ObjectName {
        ObjectName::new(format!("{NEIGHBOURS}/{}{theirs}", self.domain))
    }

    /// One of its alarms.
    pub fn alarm(&self, theirs: AlarmRef) -> AlarmRef {
        AlarmRef { object: self.object(&theirs.object), ..theirs }
    }

    /// An event of one of its nodes; `None` if that node is none of its own, or the object none that is to be heard of. Causes in a third domain
    /// are not known here: the chain begins with what followed from them.
    pub fn event(&self, mut event: Event) -> Option<Event> {
        if !self.hear.iter().any(|pattern| pattern.matches(event.object.as_str())) {
            return None;
        }
        event.id = self.id(event.id)?;
        event.cause = event.cause.and_then(|cause| self.id(cause));
        event.root = self.id(event.root).unwrap_or(event.id);
        event.object = self.object(&event.object);
        event.group = event.group.map(|group| GroupName::new(format!("{}/{group}", self.domain)));
        event.received = None;
        Some(event)
    }

    fn id(&self, theirs: EventId) -> Option<EventId> {
        Some(EventId { node: self.node(theirs.node)?, ..theirs })
    }
}

/// What a subscriber hears of: what it wants, as far as it may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interest {
    wanted: Vec<Pattern>,
    /// `None`: everything.
    allowed: Option<Vec<Pattern>>,
}

impl Interest {
    /// Of a node of the same domain, which may hear everything.
    pub fn of(wanted: Vec<Pattern>) -> Self {
        Self { wanted, allowed: None }
    }

    /// Of a neighbour's node, which may hear of these objects.
    pub fn within(wanted: Vec<Pattern>, allowed: Vec<Pattern>) -> Self {
        Self { wanted, allowed: Some(allowed) }
    }

    /// Whether it hears of an object.
    pub fn covers(&self, object: &str) -> bool {
        self.allows(object) && self.wanted.iter().any(|p| p.matches(object))
    }

    /// Whether it may hear of an object, wanted or not.
    pub fn allows(&self, object: &str) -> bool {
        self.allowed.as_ref().is_none_or(|allowed| allowed.iter().any(|p| p.matches(object)))
    }
}

#[cfg(test)]
mod tests;
