//! A sink that sees epochs carries out nothing of an older one after something of a newer one. Source: protocol 4.4 and 7.1.

use std::collections::BTreeMap;

use sixnines_core::ids::{Epoch, NodeId};

/// The highest epoch that each shelf has obeyed.
#[derive(Debug, Default)]
pub struct Sinks {
    highest: BTreeMap<String, (Epoch, NodeId)>,
}

impl Sinks {
    pub(super) fn acted(&mut self, node: NodeId, object: &str, epoch: Epoch) -> Result<(), String> {
        let shelf = object.trim_start_matches('/').split('/').next().unwrap_or_default();
        let (highest, by) = self.highest.entry(shelf.to_owned()).or_insert((epoch, node));
        if epoch < *highest {
            return Err(format!("two actives: {shelf} obeys {node} under epoch {epoch}, after {by} under {highest}"));
        }
        if epoch == *highest && node != *by {
            return Err(format!("two actives: {shelf} obeys {node} and {by} under epoch {epoch}"));
        }
        (*highest, *by) = (epoch, node);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_epoch_or_a_second_node_under_the_same_is_a_breach() {
        let mut sinks = Sinks::default();
        assert!(sinks.acted(NodeId(1), "/mxp1/fan4", Epoch(2)).is_ok());
        assert!(sinks.acted(NodeId(2), "/mxp1/fan5", Epoch(2)).is_err());
        assert!(sinks.acted(NodeId(2), "/mxp1/fan5", Epoch(3)).is_ok());
        assert!(sinks.acted(NodeId(1), "/mxp2/fan4", Epoch(1)).is_ok());
        assert!(sinks.acted(NodeId(1), "/mxp1/fan4", Epoch(2)).is_err());
    }
}
