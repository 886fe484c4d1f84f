//! Every action has a cause, and the cause is an event that was seen before. Source: the mission; protocol 7.4.

use std::collections::BTreeSet;

use sixnines_core::ids::{Epoch, EventId};

/// The events seen so far.
#[derive(Debug, Default)]
pub struct Causes {
    events: BTreeSet<EventId>,
}

impl Causes {
    pub(super) fn event(&mut self, id: EventId, cause: Option<EventId>) -> Result<(), String> {
        if let Some(cause) = cause.filter(|c| !self.events.contains(c)) {
            return Err(format!("event {id} names a cause {cause} that nobody has seen"));
        }
        self.events.insert(id);
        Ok(())
    }

    pub(super) fn acted(&mut self, object: &str, epoch: Epoch, cause: EventId) -> Result<(), String> {
        if self.events.contains(&cause) {
            Ok(())
        } else {
            Err(format!("an action on {object} under epoch {epoch} names a cause {cause} that nobody has seen"))
        }
    }
}

#[cfg(test)]
mod tests {
    use sixnines_core::ids::{Incarnation, NodeId};

    use super::*;

    #[test]
    fn an_action_without_a_known_cause_is_a_breach() {
        let id = |sequence| EventId { node: NodeId(1), incarnation: Incarnation(1), sequence };
        let mut causes = Causes::default();
        assert!(causes.event(id(1), None).is_ok());
        assert!(causes.acted("/mxp1/fan1", Epoch(1), id(1)).is_ok());
        assert!(causes.acted("/mxp1/fan1", Epoch(1), id(2)).is_err());
        assert!(causes.event(id(3), Some(id(4))).is_err());
    }
}
