//! What becomes of the copy of a node that was expelled.

use super::*;

fn wanted(world: &World, group: &GroupName) -> Option<Vec<NodeId>> {
    let told = world.orders.iter().rev().find_map(|(_, o)| if let Output::Replicas { group: of, nodes } = o { (of == group).then_some(nodes) } else { None });
    told.cloned()
}

#[test]
fn the_only_other_copy_is_let_go_without_a_write_if_its_node_was_expelled_and_not_if_it_is_dead() {
    let mxp1 = GroupName::new("chassis:mxp1");
    for is_expelled in [false, true] {
        let mut world = World::new();
        world.in_sync_by_itself = false;
        world.kill(n(2));
        assert_eq!(wanted(&world, &mxp1), Some(vec![]), "anybody may have a copy");
        if is_expelled {
            let index = LogIndex(world.domain.applied.0 + 1);
            world.domain.apply(index, &Entry::Expel { node: n(2) }).expect("it is expelled");
            world.spread();
        }
        let nobody_else = if is_expelled { vec![n(1)] } else { vec![] };
        assert_eq!(wanted(&world, &mxp1), Some(nobody_else));
        // calls has a copy in the other chassis, which nobody lets go.
        assert_eq!(world.in_sync(&calls()), [n(1), n(3)]);
    }
}
