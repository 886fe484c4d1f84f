//! A histogram of durations whose size does not depend on how many there were: 64 buckets per power of two, so a percentile is at most 1.6 % too high.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Durations in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    n: u64,
    sum: u64,
    max: u64,
    /// Only those that have something in them: bucket and count.
    buckets: BTreeMap<u32, u64>,
}

impl Histogram {
    /// Adds one.
    pub fn add(&mut self, us: u64) {
        self.n += 1;
        self.sum = self.sum.saturating_add(us);
        self.max = self.max.max(us);
        *self.buckets.entry(bucket(us)).or_default() += 1;
    }

    /// How many there are.
    pub fn n(&self) -> u64 {
        self.n
    }

    /// The longest, exactly.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The mean, exactly; `None` of nothing.
    #[expect(clippy::cast_precision_loss, reason = "microseconds below 2^52")]
    pub fn mean(&self) -> Option<f64> {
        (self.n > 0).then(|| self.sum as f64 / self.n as f64)
    }

    /// At most so many parts per thousand are longer than this; `None` of nothing.
    pub fn per_mille(&self, per_mille: u64) -> Option<u64> {
        let rank = (u128::from(self.n) * u128::from(per_mille)).div_ceil(1000).max(1);
        let mut seen = 0_u128;
        let bucket = self.buckets.iter().find(|(_, count)| {
            seen += u128::from(**count);
            seen >= rank
        });
        bucket.map(|(bucket, _)| upper(*bucket).min(self.max))
    }

    /// The share of durations up to each bucket's end: the points of a distribution's curve.
    #[expect(clippy::cast_precision_loss, reason = "for a plot")]
    pub fn curve(&self) -> Vec<(u64, f64)> {
        let mut seen = 0;
        let point = |(bucket, count): (&u32, &u64)| {
            seen += count;
            (upper(*bucket).min(self.max), seen as f64 / self.n as f64)
        };
        self.buckets.iter().map(point).collect()
    }
}

fn bucket(us: u64) -> u32 {
    let shift = us.checked_ilog2().unwrap_or(0).saturating_sub(SUB_BITS);
    let within = u32::try_from(us >> shift).unwrap_or(u32::MAX); // below 2^(SUB_BITS + 1)
    (shift << SUB_BITS) + within
}

/// The longest duration of a bucket.
fn upper(bucket: u32) -> u64 {
    let shift = (bucket >> SUB_BITS).saturating_sub(1);
    let within = u64::from(bucket - (shift << SUB_BITS));
    ((within + 1) << shift) - 1
}

const SUB_BITS: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_is_in_a_bucket_that_ends_at_most_two_percent_above_it() {
        for us in (0..5_000).chain([9_999, 28_345, 500_000, 123_456_789]) {
            let end = upper(bucket(us));
            assert!(end >= us && end <= us + us / 63 + 1, "{us} in a bucket up to {end}");
        }
    }

    #[test]
    fn percentiles_of_known_durations() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|us| histogram.add(us));
        assert_eq!((histogram.n(), histogram.max(), histogram.mean()), (1000, 1000, Some(500.5)));
        let near = |per_mille, wanted: u64| histogram.per_mille(per_mille).is_some_and(|got| got >= wanted && got <= wanted + wanted / 60);
        assert!(near(500, 500) && near(990, 990) && near(999, 999), "{:?}", histogram.per_mille(500));
        assert_eq!(histogram.per_mille(1000), Some(1000));
        assert_eq!(Histogram::default().per_mille(500), None);
    }
}
