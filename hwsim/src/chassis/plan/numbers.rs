//! Numbers that cannot be wrong once they are read: the reader refuses the others, and the YAML crate adds the place.

use serde::de::{Deserialize, Deserializer, Error};

pub(super) fn positive<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    checked(from, |x| x > 0.0 && x <= LARGE, "a number above 0")
}

pub(super) fn at_least_zero<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    checked(from, |x| (0.0..=LARGE).contains(&x), "a number of at least 0")
}

pub(super) fn fraction<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    checked(from, |x| x > 0.0 && x <= 1.0, "a fraction above 0, at most 1")
}

pub(super) fn percent<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    checked(from, |x| (0.0..=100.0).contains(&x), "a percentage, 0 to 100")
}

pub(super) fn celsius<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    checked(from, |x| (-60.0..=300.0).contains(&x), "degrees Celsius, -60 to 300")
}

pub(super) fn duty<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    let x = i64::deserialize(from)?;
    if (0..=100).contains(&x) { Ok(x) } else { Err(Error::custom(format!("{x} is not a duty in percent, 0 to 100"))) }
}

pub(super) fn count<'de, D: Deserializer<'de>>(from: D) -> Result<u8, D::Error> {
    let x = u8::deserialize(from)?;
    if (1..=32).contains(&x) { Ok(x) } else { Err(Error::custom(format!("{x} is not a count, 1 to 32"))) }
}

fn checked<'de, D: Deserializer<'de>>(from: D, good: fn(f64) -> bool, wanted: &str) -> Result<f64, D::Error> {
    let x = f64::deserialize(from)?;
    if good(x) { Ok(x) } else { Err(Error::custom(format!("{x} is not {wanted}"))) }
}

/// Above this a quantity is a slip of the keyboard, and sums could leave the range where doubles are exact enough.
const LARGE: f64 = 1e9;
