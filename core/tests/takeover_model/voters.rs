//! What the layers above take for granted: that the voters' disks remember (protocol 6.1).
//!
//! One place of the control log, reduced to its core: a leader, A or B, and one more voter agree on what stands there. If
//! one of the two remembers an agreement, that stays. Raft's elections and terms are not the point here.

use super::explorer::{Model, Outcome, explore};
use super::law::{A, B, VOTERS};
use super::reach;

/// What a voter is after its restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disk {
    /// As it was.
    Durable,
    /// Restored from an older state: it is back in the past, under its id.
    Older,
    /// Empty, and it goes on under its id.
    Empty,
    /// Empty, and it comes back under an id that nobody knows as a voter's.
    FreshId,
}

#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "read by Debug, in traces")]
enum Step {
    Agree { leader: usize, with: usize },
    Remember { voter: usize },
    Restart { voter: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    /// Two different entries were committed at one place.
    TwoCommitted,
    /// Too few known voters are left to commit anything.
    NoMajority,
}

#[derive(Clone, Debug, Hash)]
struct State {
    /// Whose entry the voter holds, plus 1; 0: none.
    held: [u8; 3],
    /// What a copy of its disk holds, taken at some time.
    older: [u8; 3],
    is_known: [bool; 3],
    committed: [bool; 2],
    restarts: u8,
}

struct Voters {
    disk: Disk,
    looks_for: Harm,
}

impl Model for Voters {
    type State = State;
    type Step = Step;
    type Harm = Harm;

    fn initial(&mut self) -> State {
        State { held: [0; 3], older: [0; 3], is_known: [true; 3], committed: [false; 2], restarts: 2 }
    }

    fn steps(&mut self, s: &State, out: &mut Vec<(Step, State)>) {
        for leader in [A, B] {
            for with in VOTERS.into_iter().filter(|v| *v != leader && s.is_known[*v] && s.is_known[leader]) {
                let (mine, theirs) = (s.held[leader], s.held[with]);
                let entry = match (mine, theirs) {
                    (0, 0) => if leader == A { 1 } else { 2 },
                    (0, held) | (held, 0) => held,
                    (mine, theirs) if mine == theirs => mine,
                    _ => continue,
                };
                let mut next = s.clone();
                next.held[leader] = entry;
                next.held[with] = entry;
                next.committed[usize::from(entry) - 1] = true;
                out.push((Step::Agree { leader, with }, next));
            }
        }
        for voter in VOTERS {
            let mut next = s.clone();
            next.older[voter] = s.held[voter];
            out.push((Step::Remember { voter }, next));
            if s.restarts > 0 {
                let mut next = s.clone();
                next.restarts -= 1;
                match self.disk {
                    Disk::Durable => {}
                    Disk::Older => next.held[voter] = s.older[voter],
                    Disk::Empty => next.held[voter] = 0,
                    Disk::FreshId => (next.held[voter], next.is_known[voter]) = (0, false),
                }
                out.push((Step::Restart { voter }, next));
            }
        }
    }

    fn harm(&mut self, s: &State) -> Option<Harm> {
        let harm = match self.looks_for {
            Harm::TwoCommitted => s.committed == [true; 2],
            Harm::NoMajority => s.is_known.iter().filter(|known| **known).count() < 2,
        };
        harm.then_some(self.looks_for)
    }
}

fn run(name: &str, disk: Disk, looks_for: Harm) -> Outcome<Step, Harm> {
    let found = explore(&mut Voters { disk, looks_for }, usize::MAX);
    println!("{name}\n    {} states, {}: {}", found.states, reach(&found), found.trace());
    found
}

#[test]
fn voters_that_forget_are_caught() {
    for (name, disk) in [("witness restored from an older state", Disk::Older), ("voter forgets everything, keeps its id", Disk::Empty)] {
        let found = run(&format!("{name} (the page: 3 steps)"), disk, Harm::TwoCommitted);
        assert!(found.harm.is_some(), "{name} must be caught, and was not");
    }
    let found = run("the page: voters are durable", Disk::Durable, Harm::TwoCommitted);
    assert!(found.harm.is_none() && found.complete, "{}", found.trace());
}

#[test]
fn fresh_ids_are_safe_and_use_the_voters_up() {
    let found = run("fresh ids, nothing on disk", Disk::FreshId, Harm::TwoCommitted);
    assert!(found.harm.is_none() && found.complete, "{}", found.trace());
    let found = run("... and after two restarts no majority of known voters exists (the page: 2 steps)", Disk::FreshId, Harm::NoMajority);
    assert_eq!(found.harm.expect("two are gone").1.len(), 2);
}
