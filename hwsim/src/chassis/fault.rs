//! The catalogue of faults, and which of them are in force.
//!
//! A fault changes nothing by itself: each step asks what all active faults together do ([`Effects`]), so that clearing one needs
//! no undoing, and two that overlap cannot leave something behind.

mod catalogue;
mod effects;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sixnines_core::ids::{AttributeName, ObjectName};
use sixnines_core::time::Instant;

pub(crate) use catalogue::Words;
pub use catalogue::{CATALOGUE, Entry, Parameter};
pub(crate) use effects::{Effects, SensorEffect};

/// One fault, with its target. Indices count from 1, as the names of the objects do.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are the parameters that the catalogue explains to the operator")]
pub enum Fault {
    /// A fan stands still.
    FanFailed { fan: usize },
    /// A fan reaches only a part of its speed.
    FanWorn { fan: usize, percent: f64 },
    /// A fan is taken out.
    FanPulled { fan: usize },
    /// A supply gives nothing and reports so.
    SupplyFailed { supply: usize },
    /// A supply is taken out.
    SupplyPulled { supply: usize },
    /// All supplies on one feed lose their input.
    FeedLost { feed: String },
    /// Warm air comes in.
    InletHot { celsius: f64 },
    /// The shelf manager neither reads sensors nor carries out orders.
    ShelfManagerSilent,
    /// A board.
    Board { slot: usize, what: BoardFault },
    /// A switched fabric carries nothing.
    FabricDown { fabric: usize },
    /// A switched fabric loses frames.
    FabricLossy { fabric: usize, percent: f64 },
    /// A switched fabric goes down and up again.
    FabricFlapping { fabric: usize, seconds: f64 },
    /// A sensor.
    Sensor { object: ObjectName, attribute: AttributeName, what: SensorFault },
}

/// What can happen to a board.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are the parameters that the catalogue explains to the operator")]
pub enum BoardFault {
    /// It does not answer any more and goes on drawing power; a reset or a power cycle cures it.
    Hang,
    /// Its payload stops; a reset cures it, its watchdog's too.
    Panic,
    /// It never finishes a boot.
    BootFails,
    /// It makes more heat.
    Hot { watts: f64 },
    /// Its processor is busy.
    Busy { percent: f64 },
    /// Its memory fills up.
    Leak { percent_per_minute: f64 },
    /// Somebody has opened its latch: it asks to go out.
    LatchOpen,
    /// Somebody has pulled it without asking.
    Pulled,
}

/// What can happen to a sensor.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are the parameters that the catalogue explains to the operator")]
pub enum SensorFault {
    /// It repeats its last value.
    Stuck,
    /// It has no value.
    Missing,
    /// It scatters.
    Noisy { sigma: f64 },
    /// It is off by a constant.
    Wrong { offset: f64 },
    /// It follows late.
    Slow { seconds: f64 },
}

/// An order to break something: what `nines inject` sends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Injection {
    /// The name in the catalogue.
    pub fault: String,
    /// Its parameters by name.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// After this time of the clock it ends by itself.
    #[serde(default)]
    pub expires_after: Option<Duration>,
    /// Who asked.
    #[serde(default)]
    pub by: String,
}

impl Injection {
    /// From words: the fault's name, then `name=value`.
    ///
    /// # Errors
    /// [`FaultError::BadParameter`] if a word has no `=`.
    pub fn parse<'a>(fault: &str, words: impl IntoIterator<Item = &'a str>) -> Result<Self, FaultError> {
        let pair = |word: &str| match word.split_once('=') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(FaultError::BadParameter {
                what: format!("{word:?} is not NAME=VALUE"),
                help: format!("nines sim faults {fault}"),
            }),
        };
        let parameters = words.into_iter().map(pair).collect::<Result<_, _>>()?;
        Ok(Self { fault: fault.to_owned(), parameters, ..Self::default() })
    }
}

/// Names one injected fault of one chassis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FaultId(pub u64);

/// A fault that is in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActiveFault {
    /// What to clear it by.
    pub id: FaultId,
    /// As it was asked for.
    pub injection: Injection,
    /// When it began, on the chassis' clock.
    pub since: Instant,
    /// When it ends by itself.
    pub until: Option<Instant>,
}

/// Why a fault was not injected or cleared. Nothing changed. The operator's mistake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FaultError {
    /// The catalogue has no such fault.
    #[error("there is no fault {name:?}\n  help  {help}")]
    UnknownFault {
        /// What was asked for.
        name: String,
        /// What would be right.
        help: String,
    },
    /// The chassis has no such part or sensor.
    #[error("{what}\n  help  {help}")]
    UnknownTarget {
        /// What does not exist.
        what: String,
        /// What does.
        help: String,
    },
    /// A parameter is missing, unknown or out of range.
    #[error("{what}\n  help  {help}")]
    BadParameter {
        /// What is wrong.
        what: String,
        /// What would be right.
        help: String,
    },
    /// More faults at once than the chassis takes.
    #[error("{FAULTS_MAX} faults are active already\n  help  clear some first")]
    TooMany,
    /// No active fault has this id.
    #[error("fault {} is not active\n  help  it may have expired; list the active ones", .0.0)]
    NotActive(FaultId),
}

/// The faults in force, in the order of their ids.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    held: Vec<(Fault, ActiveFault)>,
    last_id: u64,
}

impl Faults {
    pub(crate) fn active(&self) -> impl Iterator<Item = &ActiveFault> {
        self.held.iter().map(|(_, active)| active)
    }

    /// Each with its beginning.
    pub(crate) fn faults(&self) -> impl Iterator<Item = (&Fault, Instant)> {
        self.held.iter().map(|(fault, active)| (fault, active.since))
    }

    /// The same fault on the same target again only moves its end.
    pub(crate) fn inject(&mut self, now: Instant, injection: Injection, fault: Fault) -> Result<FaultId, FaultError> {
        let until = injection.expires_after.map(|after| now + after);
        if let Some((_, same)) = self.held.iter_mut().find(|(held, _)| *held == fault) {
            same.until = until;
            same.injection = injection;
            return Ok(same.id);
        }
        if self.held.len() >= FAULTS_MAX {
            return Err(FaultError::TooMany);
        }
        self.last_id += 1;
        let id = FaultId(self.last_id);
        self.held.push((fault, ActiveFault { id, injection, since: now, until }));
        Ok(id)
    }

    /// Takes away what matches, and returns it.
    pub(crate) fn remove_if(&mut self, gone: impl Fn(&Fault, &ActiveFault) -> bool) -> Vec<(Fault, ActiveFault)> {
        self.held.extract_if(.., |(fault, active)| gone(fault, active)).collect()
    }
}

/// Bounds what a client can make the chassis hold.
const FAULTS_MAX: usize = 256;
