//! From a true quantity to a reading: noise, resolution, and a dead band so that a steady quantity gives a steady reading.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sixnines_core::ids::EventId;
use sixnines_core::value::{Quality, Value};

use super::fault::SensorEffect;

/// What a sensor shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// The value, if there is one.
    pub value: Option<Value>,
    /// How far to trust it.
    pub quality: Quality,
    /// The request whose result this is.
    pub cause: Option<EventId>,
}

/// The truth about one point, before the sensor looks at it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Truth {
    /// A quantity with its sensor's resolution and noise.
    Float { x: f64, resolution: f64, sigma: f64 },
    /// The same, shown as a whole number.
    Int { x: f64, resolution: f64, sigma: f64 },
    /// Something that is known exactly.
    Exact(Value),
    /// One of a few words.
    Word(&'static str),
    /// The thing is not there.
    Absent,
    /// The thing is there and cannot be read.
    Unreadable,
}

impl Truth {
    /// Whether noise reaches it.
    pub(crate) fn is_measured(&self) -> bool {
        matches!(self, Self::Float { .. } | Self::Int { .. })
    }
}

/// A sensor, with what it showed last.
#[derive(Clone, Debug)]
pub(crate) struct Sensor {
    pub(crate) reading: Reading,
    /// Grows with each change of any sensor: `Chassis` numbers them.
    pub(crate) revision: u64,
    shown: Option<f64>,
    /// Where a slow sensor has got to.
    followed: Option<f64>,
}

/// The conditions under which a sensor looks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Look {
    pub(crate) effect: SensorEffect,
    /// Of this moment: mean 0, variance 1.
    pub(crate) noise: f64,
    /// Of chassis time since it looked last.
    pub(crate) seconds: f64,
    pub(crate) cause: Option<EventId>,
}

impl Sensor {
    pub(crate) fn new() -> Self {
        Self {
            reading: Reading { value: None, quality: Quality::Missing, cause: None },
            revision: 0,
            shown: None,
            followed: None,
        }
    }

    /// Looks at the truth; returns whether the reading changed.
    pub(crate) fn look(&mut self, truth: &Truth, look: Look) -> bool {
        if look.effect.stuck && self.reading.quality == Quality::Good {
            return false;
        }
        let (value, quality) = match truth {
            _ if look.effect.missing => (None, Quality::Missing),
            Truth::Absent => (None, Quality::Missing),
            Truth::Unreadable => (None, Quality::Failed),
            Truth::Exact(value) => (Some(value.clone()), Quality::Good),
            // The same word again costs nothing: there are many of them, ten times a second.
            Truth::Word(word) => match &self.reading {
                Reading { value: Some(Value::Enum(shown)), quality: Quality::Good, .. } if **shown == **word => return false,
                _ => (Some(Value::Enum(Arc::from(*word))), Quality::Good),
            },
            Truth::Float { x, resolution, sigma } => {
                (Some(Value::Float(self.sensed(*x, *resolution, *sigma, look))), Quality::Good)
            }
            Truth::Int { x, resolution, sigma } => {
                #[expect(clippy::cast_possible_truncation, reason = "rounded, and far within the range of i64")]
                let whole = self.sensed(*x, *resolution, *sigma, look).round() as i64;
                (Some(Value::Int(whole)), Quality::Good)
            }
        };
        self.show(value, quality, look.cause)
    }

    /// Nobody reads it any more: the last value stays, with its quality.
    pub(crate) fn go_stale(&mut self) -> bool {
        let value = self.reading.value.clone();
        let quality = if value.is_some() { Quality::Stale } else { self.reading.quality };
        self.show(value, quality, None)
    }

    fn show(&mut self, value: Option<Value>, quality: Quality, cause: Option<EventId>) -> bool {
        if value.is_none() {
            self.shown = None;
            self.followed = None;
        }
        let changed = self.reading.value != value || self.reading.quality != quality;
        if changed {
            self.reading = Reading { value, quality, cause };
        }
        changed
    }

    /// The way of a number through the sensor: it may lag, be off, scatter; then it is shown in steps.
    fn sensed(&mut self, x: f64, resolution: f64, sigma: f64, look: Look) -> f64 {
        let SensorEffect { sigma: more, offset, lag_seconds, .. } = look.effect;
        let before = self.followed.unwrap_or(x);
        let followed = if lag_seconds > 0.0 { x + (before - x) * (-look.seconds / lag_seconds).exp() } else { x };
        self.followed = Some(followed);
        self.quantised(followed + offset + look.noise * sigma.hypot(more), resolution)
    }

    /// A new step is taken only when the quantity is clearly nearer to it: a value on the edge of two does not flicker.
    fn quantised(&mut self, x: f64, resolution: f64) -> f64 {
        let shown = match self.shown {
            Some(shown) if (x - shown).abs() < DEAD_BAND * resolution => shown,
            _ => (x / resolution).round() * resolution,
        };
        self.shown = Some(shown);
        // 31.3 and not 31.299999999999997: for people, and so that equal readings are equal.
        (shown * 1e6).round() / 1e6
    }
}

/// Noise number `index` of a stream: about normal, mean 0, variance 1, never beyond 3.5. A pure function, so that no sensor's draw
/// moves another's.
pub(crate) fn noise(seed: u64, stream: u64, index: u64) -> f64 {
    let bits = mix(seed ^ mix(stream ^ mix(index)));
    let sum: u64 = [0, 16, 32, 48].iter().map(|shift| (bits >> shift) & 0xffff).sum();
    // Four uniform numbers: mean 2, variance 4/12.
    (sum as f64 / 65536.0 - 2.0) / (1.0_f64 / 3.0).sqrt()
}

/// Number `index` of a stream, uniform in (0, 1].
pub(crate) fn uniform(seed: u64, stream: u64, index: u64) -> f64 {
    let bits = mix(seed ^ mix(stream ^ mix(index)));
    ((bits >> 11) + 1) as f64 / (1_u64 << 53) as f64
}

/// The finaliser of SplitMix64. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014).
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// In steps of the resolution. A steady quantity is at most half a step from what is shown, noise adds at most 3.5 sigma: a sensor whose
/// sigma is a tenth of its resolution is quiet.
const DEAD_BAND: f64 = 0.9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_centred_and_the_same_for_the_same_seed() {
        let draws: Vec<f64> = (0..20_000).map(|i| noise(1, 2, i)).collect();
        let mean = draws.iter().sum::<f64>() / 20_000.0;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "mean {mean}, variance {variance}");
        assert_eq!(noise(1, 2, 77), noise(1, 2, 77));
        assert_ne!(noise(1, 2, 77), noise(1, 3, 77));
    }

    #[test]
    fn a_quantity_on_an_edge_does_not_flicker() {
        let mut sensor = Sensor::new();
        let look = |sensor: &mut Sensor, x| sensor.look(&Truth::Float { x, resolution: 0.1, sigma: 0.0 }, Look::default());
        assert!(look(&mut sensor, 31.349));
        for x in [31.351, 31.349, 31.36, 31.33] {
            assert!(!look(&mut sensor, x), "{x}");
        }
        assert!(look(&mut sensor, 31.395));
        assert_eq!(sensor.reading.value, Some(Value::Float(31.4)));
    }

    #[test]
    fn a_stale_reading_keeps_its_value_and_a_missing_one_has_none() {
        let mut sensor = Sensor::new();
        sensor.look(&Truth::Exact(Value::Bool(true)), Look::default());
        assert!(sensor.go_stale());
        assert_eq!((sensor.reading.value.clone(), sensor.reading.quality), (Some(Value::Bool(true)), Quality::Stale));
        sensor.look(&Truth::Absent, Look::default());
        assert_eq!((sensor.reading.value.clone(), sensor.reading.quality), (None, Quality::Missing));
    }
}
