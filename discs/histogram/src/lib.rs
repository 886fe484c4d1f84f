//! What openraft counts its batches and delays with, put in the place of the crate of that name (`[patch.crates-io]`).
//!
//! The original builds tables of 27 MB at its first use, for widths that openraft never asks for: two thirds of an idle daemon. We read
//! none of openraft's statistics (its feature `runtime-stats` is off), so counting by powers of two is enough. Only what openraft calls is
//! here; a newer openraft that calls more does not compile, which is the moment to look again.

use std::fmt;
use std::marker::PhantomData;

/// Counts of values, by the number of their significant bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: [u64; BUCKETS],
    data: PhantomData<T>,
}

/// One for 0, one for each length in bits.
const BUCKETS: usize = 65;

impl<T> Histogram<T> {
    /// Without values.
    pub fn new() -> Self {
        Self { counts: [0; BUCKETS], data: PhantomData }
    }

    /// Adds a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Adds a value `count` times.
    pub fn record_n(&mut self, value: u64, count: u64) {
        self.counts[(u64::BITS - value.leading_zeros()) as usize] += count;
    }

    /// Percentiles, each the largest value of the power of two that it lies in.
    pub fn percentile_stats(&self) -> PercentileStats {
        let samples: u64 = self.counts.iter().sum();
        let at = |thousandth: u64| {
            let rank = (samples * thousandth).div_ceil(1000).max(1);
            let mut seen = 0;
            let bits = self.counts.iter().position(|count| {
                seen += count;
                seen >= rank
            });
            bits.map_or(0, |bits| u64::MAX.checked_shr(u64::BITS - u32::try_from(bits).expect("at most 64")).unwrap_or(0))
        };
        PercentileStats { samples, p0_1: at(1), p1: at(10), p5: at(50), p10: at(100), p50: at(500), p90: at(900), p99: at(990), p99_9: at(999) }
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Percentiles of a histogram; 0 where there are no values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} values, half up to {}, nearly all up to {}", self.samples, self.p50, self.p99)
    }
}

/// Named histograms as lines of text.
#[derive(Clone, Debug, Default)]
pub struct AsciiChart(Vec<(String, Histogram)>);

impl AsciiChart {
    /// Without histograms.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    #[must_use]
    pub fn add(mut self, name: &str, histogram: Histogram) -> Self {
        self.0.push((name.to_owned(), histogram));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, histogram) in &self.0 {
            writeln!(f, "{name}: {}", histogram.percentile_stats())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_to_a_power_of_two() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats(), PercentileStats::default());
        for value in 1..=1000 {
            histogram.record(value);
        }
        histogram.record(u64::MAX);
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p0_1, stats.p10, stats.p50, stats.p99), (1001, 3, 127, 511, 1023));
        histogram.record_n(u64::MAX, 100);
        assert_eq!(histogram.percentile_stats().p99, u64::MAX);
    }
}
