//! Whole domains from seeds, in which a service waits for a fence.

use sixnines_core::domain::config::DomainConfig;
use sixnines_core::domain::fence::{FenceConfig, Fencing};
use sixnines_core::time::Duration;
use sixnines_hwsim::domain::chaos::Report;
use sixnines_hwsim::domain::chaos::breach::kind;
use sixnines_hwsim::domain::chaos::draw::draw;

use super::super::{Mutation, ground, play_safely, three_nodes};
use super::{FAULTS, check, mix, number};

/// [`three_nodes`], and `calls` waits; `billing` does not.
fn fencing() -> DomainConfig {
    let mut config = three_nodes();
    config.services[0].fence = Fencing::Required;
    config.fence = Some(FenceConfig { command: vec!["switch".into()], timeout: Duration::from_secs(1) });
    config
}

fn run(seed: u64, mutation: Mutation) -> Report {
    let config = fencing();
    play_safely(&config, mutation, &draw(seed, &ground(&config), &mix(FAULTS)))
}

#[test]
fn seeds_with_a_fence() {
    for seed in 1..=number("NINES_SEEDS").unwrap_or(SEEDS) {
        check(&run(seed, Mutation::None));
    }
}

#[test]
fn a_takeover_without_the_fence_is_noticed() {
    let found = (1..=SEEDS).find_map(|seed| run(seed, Mutation::TakeoverWithoutFence).failure);
    let found = found.expect("somewhere a node hangs or is cut off");
    assert!(found.contains("without the fence"), "{}: {found}", kind(&found));
}

const SEEDS: u64 = 100;
