//! Layer one's rows of the page's table.

use super::copies::{Align, Bounds, Copies, Harm, Newcomer, Rules, Start, Step};
use super::explorer::{Outcome, explore};
use super::law::{Broken, WHOLE};
use super::{LIMIT, larger_bounds, reach};

const PAGE: Rules = Rules::PAGE;
/// Two nodes, so many entries and writes, and nothing that a row does not need.
const fn two(entries: u8, writes: u8) -> Bounds {
    Bounds { nodes: 2, entries, writes, repeats: 0, reads: 0, crashes: 0, quiesces: 0 }
}

const fn three(entries: u8, writes: u8) -> Bounds {
    Bounds { nodes: 3, ..two(entries, writes) }
}

fn run(name: &str, rules: Rules) -> Outcome<Step, Harm> {
    let mut model = Copies::new(rules);
    let found = explore(&mut model, LIMIT);
    println!("{name}\n    {} states, {} logs, {} steps deep, {}: {}", found.states, model.logs(), found.depth, reach(&found), found.trace());
    found
}

fn caught(name: &str, page: usize, harm: Harm, rules: Rules) {
    let found = run(&format!("{name} (the page: {page} steps)"), Rules { looks_for: Some(harm), ..rules });
    assert!(found.harm.is_some(), "{name} must be caught, and was not");
}

fn safe(name: &str, rules: Rules) {
    let found = run(name, rules);
    assert!(found.harm.is_none(), "{name}: {}", found.trace());
    assert!(found.complete, "{name}: cut off after {} states", found.states);
}

#[test]
fn the_page_loses_nothing() {
    safe("the page: two nodes", Rules { bounds: two(6, 3), ..PAGE });
    safe("the page: reads and repeats", Rules { bounds: Bounds { reads: 2, repeats: 1, ..two(4, 2) }, ..PAGE });
    safe("the page: crashes", Rules { bounds: Bounds { crashes: 2, ..two(6, 2) }, ..PAGE });
    safe("the page: switchovers", Rules { bounds: Bounds { quiesces: 2, ..two(5, 2) }, ..PAGE });
    safe("the page: a crash and a switchover", Rules { bounds: Bounds { quiesces: 1, crashes: 1, ..two(5, 1) }, ..PAGE });
    safe("the page: floor two", Rules { floor_two: true, bounds: Bounds { crashes: 1, ..two(5, 2) }, ..PAGE });
    safe("the page: three nodes", Rules { bounds: three(3, 1), ..PAGE });
    safe("the page: three nodes, floor two, a crash", Rules { floor_two: true, bounds: Bounds { crashes: 1, ..three(3, 1) }, ..PAGE });
    if larger_bounds() {
        safe("large: two nodes", Rules { bounds: two(8, 4), ..PAGE });
        safe("large: reads and repeats", Rules { bounds: Bounds { reads: 2, repeats: 2, ..two(5, 3) }, ..PAGE });
        safe("large: crashes", Rules { bounds: Bounds { crashes: 3, reads: 1, ..two(8, 2) }, ..PAGE });
        safe("large: crashes and switchovers", Rules { bounds: Bounds { quiesces: 2, crashes: 2, ..two(6, 2) }, ..PAGE });
        safe("large: three nodes", Rules { bounds: three(4, 2), ..PAGE });
        safe("large: three nodes, a crash", Rules { bounds: Bounds { crashes: 1, ..three(4, 1) }, ..PAGE });
        safe("large: three nodes, floor two, a crash", Rules { floor_two: true, bounds: Bounds { crashes: 1, ..three(4, 1) }, ..PAGE });
        safe("large: three nodes, a switchover", Rules { bounds: Bounds { quiesces: 1, ..three(3, 1) }, ..PAGE });
    }
}

/// A limit of rule 1.7, not of the model: what a lone member acknowledged and took with it may still be in a copy that is not the best.
#[test]
fn the_best_of_three_copies_may_lack_what_another_has_by_chance() {
    let rules = Rules { bounds: Bounds { crashes: 1, ..three(4, 1) }, looks_for: Some(Harm::StartLost), ..PAGE };
    let found = run("three nodes, floor one, start from the best copy", rules);
    assert!(found.harm.is_some(), "then rule 1.7 is better than we thought: say so in the documents");
}

#[test]
fn every_broken_rule_of_roles_is_caught() {
    let law = |change: fn(&mut Broken)| {
        let mut broken = WHOLE;
        change(&mut broken);
        Rules { broken, ..PAGE }
    };
    caught("acknowledge before the shrink is committed", 5, Harm::ActiveLacks, Rules { any_set_counts: true, bounds: two(2, 1), ..PAGE });
    caught("promote a non-member", 7, Harm::ActiveLacks, Rules { bounds: two(3, 2), ..law(|l| l.non_member = true) });
    let unversioned = law(|l| (l.any_version, l.non_member) = (true, true));
    caught("entries without version", 9, Harm::ActiveLacks, Rules { takeover_as_proposed: true, bounds: two(3, 2), ..unversioned });
    caught("newcomer too early", 10, Harm::ActiveLacks, Rules { newcomer: Newcomer::Anything, bounds: two(3, 1), ..PAGE });
    let itself = law(|l| l.self_listed = true);
    caught("newcomer proposes itself", 10, Harm::ActiveLacks, Rules { lists_itself: true, bounds: two(3, 1), ..itself });
    caught("newcomer counted only after the commit is known", 11, Harm::ActiveLacks, Rules { larger_after_commit: true, bounds: two(3, 1), ..PAGE });
    let read = Bounds { reads: 1, ..two(3, 1) };
    caught("newcomer needs only what was acknowledged", 11, Harm::ActiveLacks, Rules { newcomer: Newcomer::Acknowledged, bounds: read, ..PAGE });
    let crash = Bounds { crashes: 1, ..two(3, 1) };
    caught("names, no incarnations", 4, Harm::ActiveLacks, Rules { own_name_only: true, bounds: crash, ..PAGE });
    let crash = Bounds { crashes: 1, ..two(4, 1) };
    caught("acknowledgements without incarnation", 12, Harm::ActiveLacks, Rules { reports_without_life: true, bounds: crash, ..PAGE });
    caught("start from nothing while a member lives", 7, Harm::ActiveLacks, Rules { start: Start::Unasked, bounds: two(3, 1), ..law(|l| l.start_anyway = true) });
    let crash = Bounds { crashes: 1, ..two(4, 1) };
    caught("start from any copy", 10, Harm::StartLost, Rules { start: Start::Any, bounds: crash, ..PAGE });
    let dead = law(|l| l.dead_stay = true);
    caught("dead incarnations stay in the set", 2, Harm::PromotedDead, Rules { asked_by_others: true, bounds: crash, ..dead });
    safe("... and from there nobody can ever serve", Rules { asked_by_others: true, after_the_dead: true, bounds: two(9, 1), ..dead });
    let found = run("... while the law as it is finds the way out", Rules { after_the_dead: true, bounds: two(6, 1), ..Rules { asked_by_others: true, ..PAGE } });
    assert!(matches!(found.harm, Some((Harm::Serves, _))), "{}", found.trace());
    safe("takeover keeps the old active in the set", Rules { bounds: two(6, 2), ..law(|l| l.old_stays = true) });
    safe("takeover makes the set {X}, other members out", Rules { bounds: three(3, 1), ..law(|l| l.alone = true) });
}

#[test]
fn every_broken_rule_of_writes_is_caught() {
    caught("old epoch's writes accepted", 7, Harm::ActiveLacks, Rules { old_epoch_accepted: true, bounds: two(2, 2), ..PAGE });
    caught("old epoch's cursor counts", 9, Harm::ActiveLacks, Rules { old_cursor_counts: true, bounds: three(2, 2), ..PAGE });
    caught("match by sequence only", 12, Harm::ActiveLacks, Rules { align: Align::BySequence, bounds: two(3, 2), ..PAGE });
    let repeat = Bounds { repeats: 1, ..three(2, 1) };
    caught("retry acknowledged because the write is there", 7, Harm::ActiveLacks, Rules { retry_at_once: true, bounds: repeat, ..PAGE });
    let repeat = Bounds { repeats: 1, ..two(1, 1) };
    caught("repeat applied again", 2, Harm::Twice, Rules { repeat_again: true, bounds: repeat, ..PAGE });
    let read = Bounds { reads: 1, ..two(2, 1) };
    caught("read of an uncounted write", 4, Harm::ActiveLacks, Rules { read_uncounted: true, bounds: read, ..PAGE });
    caught("read without asking", 5, Harm::OldRead, Rules { read_unasked: true, bounds: read, ..PAGE });
    let once = Bounds { quiesces: 1, ..two(3, 2) };
    let trusted = Rules { old_trusted: true, bounds: once, ..PAGE };
    caught("switchover with writes in flight, old active trusted as it is", 9, Harm::ActiveLacks, Rules { drained: false, ..trusted });
    caught("switchover drained, but A resumes after \"time-out\"", 9, Harm::MemberLacks, Rules { resumes: true, ..trusted });
    safe("switchover drained, old active trusted as it is", trusted);
    let crash = Rules { floor_two: true, bounds: Bounds { crashes: 1, ..two(3, 1) }, ..PAGE };
    caught("demoted active discards, quorum(2)", 8, Harm::LostByOneCrash, Rules { demoted_discards: true, ..crash });
    caught("resync overwrites the old copy in place, quorum(2)", 9, Harm::LostByOneCrash, Rules { align: Align::InPlace, ..crash });
}
