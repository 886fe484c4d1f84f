//! Breadth-first search over every state that a model can reach, with the shortest trace to the first harm.
//!
//! States are remembered by a 64-bit fingerprint: with ten million states the chance that two share one is below one in
//! a hundred thousand, and a shared one could only hide a state, never invent a violation.

use std::fmt::Debug;
use std::hash::{Hash, Hasher};

/// Something with states, steps between them, and states that must not be.
pub(crate) trait Model {
    type State: Clone + Hash;
    type Step: Copy + Debug;
    type Harm: Copy + Debug + PartialEq;

    fn initial(&mut self) -> Self::State;
    /// Everything that can happen next.
    fn steps(&mut self, state: &Self::State, out: &mut Vec<(Self::Step, Self::State)>);
    fn harm(&mut self, state: &Self::State) -> Option<Self::Harm>;
}

/// What an exploration found.
pub(crate) struct Outcome<S, H> {
    /// The first harm in order of steps, and the shortest way to it.
    pub(crate) harm: Option<(H, Vec<S>)>,
    /// How many different states were seen.
    pub(crate) states: usize,
    /// Steps to the farthest of them.
    pub(crate) depth: usize,
    /// Nothing within the model's bounds was left out.
    pub(crate) complete: bool,
}

impl<S: Debug, H: Debug> Outcome<S, H> {
    pub(crate) fn trace(&self) -> String {
        let Some((harm, steps)) = &self.harm else { return "no violation".into() };
        let steps: Vec<_> = steps.iter().map(|s| format!("{s:?}")).collect();
        format!("{harm:?} after {} steps: {}", steps.len(), steps.join("; "))
    }
}

/// Explores until a harm is found, everything has been seen, or `limit` states have.
pub(crate) fn explore<M: Model>(model: &mut M, limit: usize) -> Outcome<M::Step, M::Harm> {
    let first = model.initial();
    let mut seen = Seen::default();
    let mut parents: Vec<Option<(usize, M::Step)>> = vec![None];
    seen.insert(fingerprint(&first));
    let mut level = vec![(0, first)];
    let mut depth = 0;
    let mut next = Vec::new();
    let mut out = Vec::new();
    loop {
        for (id, state) in level.drain(..) {
            if let Some(harm) = model.harm(&state) {
                let harm = Some((harm, way_to(&parents, id)));
                return Outcome { harm, states: parents.len(), depth, complete: false };
            }
            model.steps(&state, &mut out);
            for (step, state) in out.drain(..) {
                if seen.insert(fingerprint(&state)) {
                    next.push((parents.len(), state));
                    parents.push(Some((id, step)));
                }
            }
            if parents.len() > limit {
                return Outcome { harm: None, states: parents.len(), depth, complete: false };
            }
        }
        if next.is_empty() {
            return Outcome { harm: None, states: parents.len(), depth, complete: true };
        }
        depth += 1;
        std::mem::swap(&mut level, &mut next);
    }
}

fn way_to<S: Copy>(parents: &[Option<(usize, S)>], mut id: usize) -> Vec<S> {
    let mut way = Vec::new();
    while let Some((parent, step)) = parents[id] {
        way.push(step);
        id = parent;
    }
    way.reverse();
    way
}

/// A set of fingerprints: open addressing, never more than half full.
struct Seen {
    slots: Vec<u64>,
    used: usize,
}

impl Default for Seen {
    fn default() -> Self {
        Self { slots: vec![0; 1 << 12], used: 0 }
    }
}

impl Seen {
    /// False if it was there already.
    fn insert(&mut self, print: u64) -> bool {
        if self.used * 2 >= self.slots.len() {
            let grown = vec![0; self.slots.len() * 2];
            for old in std::mem::replace(&mut self.slots, grown).into_iter().filter(|p| *p != 0) {
                self.place(old);
            }
        }
        let new = self.place(print.max(1));
        self.used += usize::from(new);
        new
    }

    fn place(&mut self, print: u64) -> bool {
        let mask = self.slots.len() - 1;
        let mut at = usize::try_from(print >> 20).expect("44 bits fit") & mask;
        loop {
            match self.slots[at] {
                0 => {
                    self.slots[at] = print;
                    return true;
                }
                found if found == print => return false,
                _ => at = (at + 1) & mask,
            }
        }
    }
}

fn fingerprint(state: &impl Hash) -> u64 {
    let mut fold = Fold(0x9E37_79B9_7F4A_7C15);
    state.hash(&mut fold);
    fold.finish()
}

/// Multiply and fold, as wyhash does it; the standard hasher is four times slower here.
struct Fold(u64);

impl Fold {
    #[expect(clippy::cast_possible_truncation, reason = "both halves of the product are used")]
    fn add(&mut self, word: u64) {
        let product = u128::from(self.0 ^ 0x2D35_8DCC_AA6C_78A5) * u128::from(word ^ 0x8BB8_4B93_962E_ACC9);
        self.0 = (product as u64 ^ (product >> 64) as u64).wrapping_add(word.rotate_left(32));
    }
}

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.add(u64::from_le_bytes(word.try_into().expect("eight bytes")));
        }
        let rest = words.remainder().iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        self.add(rest);
    }

    fn write_u8(&mut self, byte: u8) {
        self.add(byte.into());
    }

    fn write_u32(&mut self, word: u32) {
        self.add(word.into());
    }

    /// Also what tells an enumeration's variants apart.
    fn write_usize(&mut self, word: usize) {
        self.add(word as u64);
    }
}

mod tests {
    use super::*;

    /// A counter to `most` beside a switch, kept as an enumeration.
    struct Count {
        most: u32,
    }

    #[derive(Clone, Hash)]
    struct Counted {
        count: u32,
        switch: Option<Switch>,
    }

    #[derive(Clone, Copy, Hash)]
    enum Switch {
        Up,
        Down,
    }

    impl Model for Count {
        type State = Counted;
        type Step = char;
        type Harm = u32;

        fn initial(&mut self) -> Counted {
            Counted { count: 0, switch: None }
        }

        fn steps(&mut self, s: &Counted, out: &mut Vec<(char, Counted)>) {
            out.push(('+', Counted { count: (s.count + 1).min(self.most), ..*s }));
            out.push(('2', Counted { count: (s.count * 2).min(self.most), ..*s }));
            out.push(('u', Counted { switch: Some(Switch::Up), ..*s }));
            out.push(('d', Counted { switch: Some(Switch::Down), ..*s }));
        }

        fn harm(&mut self, s: &Counted) -> Option<u32> {
            (s.count == 10 && matches!(s.switch, Some(Switch::Down))).then_some(s.count)
        }
    }

    #[test]
    fn every_state_is_seen_once() {
        let found = explore(&mut Count { most: 9 }, usize::MAX);
        assert!(found.complete && found.harm.is_none());
        assert_eq!(found.states, 10 * 3);
    }

    #[test]
    fn the_trace_is_the_shortest() {
        let (harm, steps) = explore(&mut Count { most: 100 }, usize::MAX).harm.expect("ten is in reach");
        assert_eq!((harm, steps.len()), (10, 6), "{steps:?}");
    }

    #[test]
    fn a_limit_is_told() {
        let found = explore(&mut Count { most: u32::MAX }, 5);
        assert!(!found.complete && found.harm.is_none());
    }
}
