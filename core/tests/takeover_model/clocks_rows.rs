//! Layer two's rows of the page's table, and those that the product's own rules add.

use super::clocks::{Bounds, Clocks, Gate, Harm, Renouncing, Rules, Step, Times, Waits};
use super::explorer::{Outcome, explore};
use super::law::{Broken, WHOLE};
use super::{LIMIT, larger_bounds, reach};

const PAGE: Rules = Rules::PAGE;

/// One group, so many entries, and nothing that a row does not need.
const fn bounds(entries: u8) -> Bounds {
    Bounds { groups: 1, entries, restarts: 0, relinquishes: 0, confirms: 0 }
}

const fn restarts(entries: u8) -> Bounds {
    Bounds { restarts: 1, ..bounds(entries) }
}

const fn times(lease: u8, promise: u8, late: u8, drift: bool) -> Times {
    Times { lease, promise, late, drift }
}

fn run(name: &str, rules: Rules) -> Outcome<Step, Harm> {
    let mut model = Clocks::new(rules);
    let found = explore(&mut model, LIMIT);
    println!("{name}\n    {} states, {} logs, {} steps deep, {}: {}", found.states, model.logs(), found.depth, reach(&found), found.trace());
    found
}

fn caught(name: &str, page: usize, rules: Rules) {
    let there = if page == 0 { "not on the page".into() } else { format!("the page: {page} steps") };
    let found = run(&format!("{name} ({there})"), rules);
    let harm = found.harm.as_ref().map(|(harm, _)| *harm);
    assert!(matches!(harm, Some(Harm::TwoOpen { .. })), "{name} must be caught, and was not");
}

fn safe(name: &str, rules: Rules) {
    let found = run(name, rules);
    assert!(found.harm.is_none(), "{name}: {}", found.trace());
    assert!(found.complete, "{name}: cut off after {} states", found.states);
}

/// The bounds of the page's exploration: each line is complete within itself.
#[test]
fn the_page_never_opens_two_gates() {
    let b = |groups, entries, restarts, relinquishes, confirms| Bounds { groups, entries, restarts, relinquishes, confirms };
    safe("the page: a restart", Rules { bounds: b(1, 4, 1, 0, 0), ..PAGE });
    safe("the page: relinquishing", Rules { bounds: b(1, 4, 0, 1, 0), ..PAGE });
    safe("the page: Confirm", Rules { bounds: b(1, 4, 0, 0, 1), ..PAGE });
    safe("the page: two groups on one lease, Confirm", Rules { bounds: b(2, 4, 0, 0, 1), ..PAGE });
    safe("the page: slow echoes", Rules { slow_echoes: true, bounds: bounds(3), ..PAGE });
    if larger_bounds() {
        safe("large: restart and relinquishing", Rules { bounds: b(1, 4, 1, 1, 0), ..PAGE });
        safe("large: restart and Confirm", Rules { bounds: b(1, 4, 1, 0, 1), ..PAGE });
        safe("large: two restarts", Rules { bounds: b(1, 4, 2, 0, 0), ..PAGE });
        safe("large: relinquishing twice, Confirm", Rules { bounds: b(1, 5, 0, 2, 1), ..PAGE });
        safe("large: two groups, relinquishing, Confirm", Rules { bounds: b(2, 4, 0, 1, 1), ..PAGE });
        safe("large: two groups, a restart", Rules { bounds: b(2, 4, 1, 0, 0), ..PAGE });
        safe("large: slow echoes, relinquishing", Rules { slow_echoes: true, bounds: b(1, 3, 0, 1, 0), ..PAGE });
        safe("large: slow echoes, Confirm", Rules { slow_echoes: true, bounds: b(1, 3, 0, 0, 1), ..PAGE });
    }
}

#[test]
fn every_broken_lease_rule_is_caught() {
    caught("lease from the echo's arrival", 14, Rules { slow_echoes: true, from_arrival: true, bounds: bounds(1), ..PAGE });
    caught("promise shorter than the lease, clocks without drift", 12, Rules { times: times(12, 8, 0, false), bounds: bounds(1), ..PAGE });
    caught("promise = L plus drift once", 13, Rules { times: times(12, 15, 0, true), bounds: bounds(1), ..PAGE });
    caught("only the proposer looks at its promise", 10, Rules { waits: Waits::Proposer, bounds: bounds(1), ..PAGE });
    caught("active supports without closing", 10, Rules { own_release: Some(false), bounds: bounds(1), ..PAGE });
    caught("evidence skips the wait", 10, Rules { waits: Waits::Nobody, bounds: bounds(1), ..PAGE });
    caught("voter echoes after its support", 10, Rules { grants_released: true, bounds: bounds(1), ..PAGE });
    caught("restarted voter forgets its promise", 13, Rules { wait_after_start: false, bounds: restarts(2), ..PAGE });
    caught("restarted voter forgets its support", 11, Rules { any_voter_life: true, bounds: restarts(2), ..PAGE });
    caught("open at commit without a lease", 10, Rules { opens_at_commit: true, bounds: bounds(3), ..PAGE });
    caught("daemon closes, no kernel gate", 14, Rules { gate: Gate::Daemon, bounds: bounds(1), ..PAGE });
    caught("gate armed as \"remaining from now\"", 16, Rules { gate: Gate::Relative, bounds: bounds(1), ..PAGE });
    let once = Bounds { relinquishes: 1, ..bounds(1) };
    caught("lease given back, opened again under the same epoch", 11, Rules { reopens: true, bounds: once, ..PAGE });
    caught("holder's clock stands still", 14, Rules { frozen: 1, bounds: bounds(1), ..PAGE });
    safe("request for support counts as the first beat, from its sending", Rules { first_beat: true, bounds: bounds(2), ..PAGE });
}

/// Not in the page's table: what the product's per-node lease and its rule for the life of a release lean on.
#[test]
fn every_broken_rule_of_the_product_is_caught() {
    let two = Bounds { groups: 2, ..bounds(2) };
    caught("gate closes late and the promise does not know", 0, Rules { times: times(12, 20, 1, true), bounds: bounds(1), ..PAGE });
    caught("granted without having applied what is about it", 0, Rules { about: false, bounds: restarts(2), ..PAGE });
    caught("a release ends with the takeover, its entry's evidence does not", 0, Rules { takeover_ends_release: true, bounds: two, ..PAGE });
    let confirmed = Bounds { confirms: 1, ..bounds(2) };
    caught("Confirm leaves older releases in force", 0, Rules { any_since: true, bounds: confirmed, ..PAGE });
    let switched = Rules { relinquish_first: false, bounds: bounds(1), ..PAGE };
    caught("switchover by an active that has not relinquished", 0, switched);
    caught("a process starts while its predecessor's gate is open", 0, Rules { starts_clean: false, bounds: restarts(2), ..PAGE });
    caught("a process that has just started speaks as its predecessor", 0, Rules { joins_first: false, bounds: restarts(2), ..PAGE });
    caught("Joined names no life to replace: a dead process's late one ends a living life", 0, Rules { broken: Broken { joined_any_life: true, ..WHOLE }, bounds: bounds(2), ..PAGE });
    let short = Rules { gate: Gate::RelativeExtended, bounds: bounds(1), ..PAGE };
    caught("gate extended late, P = L (1 + d) / (1 - d)", 0, Rules { times: times(6, 10, 0, true), ..short });
    safe("gate extended late, P twice as long", Rules { times: times(6, 20, 0, true), ..short });
    safe("active closes, then supports", Rules { own_release: Some(true), bounds: bounds(3), ..PAGE });
    safe("late gate, promise with room for it", Rules { times: times(12, 25, 1, true), bounds: bounds(3), ..PAGE });
}

/// Whoever knows that it is silent says so, and nobody waits for a clock.
#[test]
fn a_silent_node_frees_the_voters_of_their_promises() {
    let slow = Rules { slow_echoes: true, renouncing: Some(Renouncing::Whole), bounds: bounds(2), ..PAGE };
    safe("a silent holder renounces, echoes under way", slow);
    safe("the same, with restarts", Rules { slow_echoes: larger_bounds(), bounds: restarts(2), ..slow });
    safe("the same, with Confirm", Rules { bounds: Bounds { confirms: 1, ..bounds(2) }, ..slow });
    caught("grants under way still count", 0, Rules { renouncing: Some(Renouncing::KeepsGrants), ..slow });
    caught("renounced while it may speak", 0, Rules { renouncing: Some(Renouncing::Speaks), ..slow });
    caught("taken although something newer is granted", 0, Rules { renouncing: Some(Renouncing::TakenLate), ..slow });
}

/// A node that is heard and hears nobody holds no lease; voters must not keep its place for it.
#[test]
fn a_mute_node_loses_its_place() {
    let times = times(12, 20, 0, false);
    let found = run("the page: A is mute", Rules { times, mute: Some(true), bounds: bounds(1), ..PAGE });
    let (harm, steps) = found.harm.expect("B takes over");
    assert_eq!(harm, Harm::TakenOver);
    let ticks = |steps: &[Step]| steps.iter().filter(|s| matches!(s, Step::Tick)).count();
    println!("    in tick {} (the page: 8)", ticks(&steps));
    let told = run("and says so", Rules { times, mute: Some(true), renouncing: Some(Renouncing::Whole), bounds: bounds(1), ..PAGE });
    let (_, sooner) = told.harm.expect("B takes over");
    assert!(ticks(&sooner) < ticks(&steps), "in tick {}, and in {} without", ticks(&sooner), ticks(&steps));
    let found = run("beats renew the promise though A hears nobody", Rules { times, mute: Some(false), bounds: bounds(1), ..PAGE });
    assert!(found.harm.is_none() && found.complete, "nobody may ever take over: {}", found.trace());
}
