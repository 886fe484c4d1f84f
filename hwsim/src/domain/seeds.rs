//! One seed per run, and child streams by name: one draw more here moves nothing there.

use std::hash::Hasher as _;

use super::fnv::Fnv;

/// A stream of numbers that follows from a seed and a name.
#[derive(Clone, Debug)]
pub struct Stream(u64);

impl Stream {
    /// The stream of that name.
    pub fn new(seed: u64, name: &str) -> Self {
        let mut state = Fnv(seed ^ 0x9e37_79b9_7f4a_7c15);
        state.write(name.as_bytes());
        let mut stream = Self(state.finish());
        stream.draw();
        stream
    }

    /// The next number (splitmix64).
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number below `bound`; 0 for 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.draw() % bound }
    }

    /// One of `choices`.
    pub fn choose<T: Copy>(&mut self, choices: &[T]) -> T {
        assert!(!choices.is_empty(), "a choice needs choices");
        choices[usize::try_from(self.below(choices.len() as u64)).expect("below the length")]
    }
}
