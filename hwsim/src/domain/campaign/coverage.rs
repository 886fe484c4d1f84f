//! How sure one can be of a coverage that was seen in so many tries.
//!
//! The exact one-sided bound of Clopper and Pearson (1934): the smallest coverage under which seeing so few misses would still have
//! had a chance of 5 %. With no miss in n tries it is `0.05^(1/n)`, for which "the rule of three", `1 - 3/n`, is the usual approximation.

/// The lower bound of the coverage with 95 % confidence, after `taken` successes in `due` tries. 0 without tries.
pub fn lower_bound(due: u64, taken: u64) -> f64 {
    let missed = due.saturating_sub(taken);
    if due == 0 || missed >= due {
        return 0.0;
    }
    let (mut low, mut high) = (0.0_f64, 1.0_f64); // of the probability of a miss
    for _ in 0..HALVINGS {
        let middle = low.midpoint(high);
        if at_most(missed, due, middle) > ALPHA { low = middle } else { high = middle }
    }
    1.0 - high
}

/// The chance of at most `k` misses in `n` tries, each with probability `p`.
#[expect(clippy::cast_precision_loss, reason = "counts of a campaign are far below 2^52")]
fn at_most(k: u64, n: u64, p: f64) -> f64 {
    if p <= 0.0 {
        return 1.0;
    }
    // In logarithms: the first term alone can be smaller than any number.
    let mut term = n as f64 * (-p).ln_1p();
    let odds = p.ln() - (-p).ln_1p();
    let mut sum = term.exp();
    for i in 1..=k {
        term += ((n - i + 1) as f64 / i as f64).ln() + odds;
        sum += term.exp();
    }
    sum
}

/// One minus the confidence.
const ALPHA: f64 = 0.05;
/// A double has no more than that many bits to halve.
const HALVINGS: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn is_near(got: f64, wanted: f64) -> bool {
        (got - wanted).abs() < 5e-5
    }

    #[test]
    fn the_bound_agrees_with_published_values() {
        // 0.05^(1/n) where nothing failed; else the 0.05 quantile of the beta distribution with parameters taken and missed + 1.
        assert!(is_near(lower_bound(10, 10), 0.741_13));
        assert!(is_near(lower_bound(300, 300), 0.990_064));
        assert!(is_near(lower_bound(10, 9), 0.605_84));
        assert!(is_near(lower_bound(100, 95), 0.897_75));
        assert!(is_near(lower_bound(20, 10), 0.301_95));
    }

    #[test]
    fn the_rule_of_three_is_close_for_many_tries() {
        assert!((lower_bound(10_000, 10_000) - (1.0 - 3.0 / 10_000.0)).abs() < 1e-6);
        assert!(lower_bound(1_000_000, 999_990) > 0.999_98);
    }

    #[test]
    fn nothing_is_known_from_nothing() {
        assert!(lower_bound(0, 0).abs() < f64::EPSILON && lower_bound(5, 0).abs() < f64::EPSILON);
    }
}
