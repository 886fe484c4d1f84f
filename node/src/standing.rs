//! What liveness has to know of the control log's rows.

use std::collections::BTreeMap;

use sixnines_core::domain::Domain;
use sixnines_core::ids::{Incarnation, NodeId};
use sixnines_discs::liveness::Standing;

/// Every node's standing. This node's own life counts only once the `Joined` entry of this very start (`life`) has been applied:
/// until then it neither grants nor is granted anything (protocol 3.6).
pub(crate) fn standing(domain: &Domain, me: NodeId, life: u64) -> BTreeMap<NodeId, Standing> {
    let rows = domain.config.nodes.iter().map(|config| {
        let row = domain.nodes.get(&config.id).cloned().unwrap_or_default();
        let counts = config.id != me || row.nonce == life;
        let incarnation = if counts { row.incarnation } else { Incarnation(0) };
        (config.id, Standing { incarnation, since: row.since, about: row.about, voter: config.voter })
    });
    rows.collect()
}
