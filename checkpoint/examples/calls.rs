//! Calls that survive their server: run it as a service on two nodes, and kill one.

use std::collections::BTreeMap;

use sixnines_checkpoint::{App, AppRole, Changed, Replication};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let app = App::connect()?; // the node's socket and our name, from the environment
    let calls = app.open("calls", Replication::default())?;
    let mut table = BTreeMap::new();
    while let Some(role) = app.next_role() {
        match role {
            AppRole::Active(term) => {
                let rings = calls.put(&term, "call-1", "ringing")?;
                rings.commit_then(|_| println!("tell the caller that it rings: no failover will forget it"));
            }
            AppRole::Standby => calls.follow(|change| match change {
                Changed::Reset => table.clear(),
                Changed::Put { key, section } => _ = table.insert(key, section.bytes),
                Changed::Delete { key } => _ = table.remove(&key),
            }),
            AppRole::Quiescing => app.drained(), // no write is left to make: hand over
            AppRole::Lost => {}                  // the node is away: nothing may be said until it is back
        }
    }
    Ok(())
}
