//! What a scenario runs on.

use std::sync::Arc;

use sixnines_core::bundle::Compiled;
use sixnines_core::engine::CommandBody;
use sixnines_core::event::{AlarmStep, Body, Event};
use sixnines_core::ids::{AttributeName, GroupName, NodeId, ObjectName};
use sixnines_core::time::{Duration, Instant};
use sixnines_core::value::{Update, Value};

use super::condition::RoleWord;
use super::step::Wish;
use crate::chassis::Injection;

/// A chassis with whoever watches over it. Instants count from the scenario's beginning.
///
/// What a stage refuses, it says in one sentence; nothing was changed then.
pub trait Stage {
    /// Lets time pass until then, or until something happens that is worth a look; gives the time it is now.
    ///
    /// # Errors
    /// If the stage is gone: the run ends there.
    fn step(&mut self, to: Instant) -> Result<Instant, String>;

    /// What has happened that must never happen, whatever the scenario says, and how it came to that. Time stands still after it.
    fn breach(&self) -> Option<Breach> {
        None
    }

    /// The scenario is over: the last things that must never be are looked for.
    fn end(&mut self) {}

    /// Breaks something.
    ///
    /// # Errors
    /// What is wrong with it.
    fn inject(&mut self, injection: &Injection) -> Result<(), String>;

    /// Ends faults.
    ///
    /// # Errors
    /// If there is none of this kind.
    fn mend(&mut self, what: &Mend) -> Result<(), String>;

    /// A driver's reading.
    ///
    /// # Errors
    /// If nobody takes it.
    fn read(&mut self, reading: &Update) -> Result<(), String>;

    /// An operator's command.
    ///
    /// # Errors
    /// The answer.
    fn command(&mut self, body: &CommandBody) -> Result<(), String>;

    /// What an operator asks of a domain.
    ///
    /// # Errors
    /// Why nothing comes of it, if that can be told at once.
    fn ask(&mut self, wish: &Wish) -> Result<(), String> {
        let _ = wish;
        Err("there is no domain here".to_owned())
    }

    /// Orders that came to nothing after they had been given: what was asked, and why.
    fn take_refusals(&mut self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Other policies.
    ///
    /// # Errors
    /// Why they are not in force.
    fn apply(&mut self, compiled: &Arc<Compiled>) -> Result<(), String>;

    /// Another owner.
    ///
    /// # Errors
    /// If there is none to be had here.
    fn take_over(&mut self) -> Result<(), String>;

    /// The value of an attribute, if a policy may decide on it.
    fn value(&self, object: &ObjectName, attribute: &AttributeName) -> Option<Value>;

    /// Whether an alarm holds, and no failed parent explains it. `None`: of any kind.
    fn has_alarm(&self, object: &ObjectName, kind: Option<&str>) -> bool;

    /// The alarms that hold, as people say them: kind and object.
    fn alarms(&self) -> Vec<String>;

    /// What a node is for a service; `None` where nobody knows.
    fn role(&self, service: &GroupName, node: NodeId) -> Option<RoleWord>;

    /// How many nodes speak for a service now; `None` where nobody knows.
    fn speakers(&self, service: &GroupName) -> Option<usize> {
        let _ = service;
        None
    }

    /// The longest time without an answer to a service's clients so far; `None` where there are none.
    fn outage(&self, service: &GroupName) -> Option<Duration> {
        let _ = service;
        None
    }

    /// What has happened since this was asked last.
    fn take_occurrences(&mut self) -> Vec<Occurrence>;
}

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// Which, and when, in words.
    pub what: String,
    /// The last lines of what happened.
    pub story: Vec<String>,
}

/// Which faults end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mend {
    /// Every one.
    All,
    /// Those of this name, with these parameters; parameters that are not given can be anything.
    Like(Injection),
}

impl Mend {
    /// Whether it means this fault.
    pub fn matches(&self, fault: &Injection) -> bool {
        match self {
            Self::All => true,
            Self::Like(like) => {
                let same = |(name, value): (&String, &String)| fault.parameters.get(name).is_some_and(|v| v == value);
                like.fault == fault.fault && like.parameters.iter().all(same)
            }
        }
    }
}

/// Something that happened to an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Occurrence {
    /// When.
    pub at: Instant,
    /// Where.
    pub object: ObjectName,
    /// Which attribute, control or operation; [`sixnines_core::class::ALARM`] for alarms.
    pub attribute: AttributeName,
    /// What kind of thing.
    pub what: What,
}

/// What kind of thing happened.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// An attribute has this value now.
    Change(Option<Value>),
    /// An alarm of this kind came, went or was handled.
    Alarm(Arc<str>, AlarmStep),
    /// An action: a driver, or the roles, were asked for something.
    Asked(Option<Value>),
    /// Anything else: commands, claims, answers.
    Other,
}

impl Occurrence {
    /// From an event.
    pub fn of(event: &Event, at: Instant) -> Self {
        let what = match &event.body {
            Body::Change => What::Change(event.new.clone()),
            Body::Alarm { kind, step, .. } => What::Alarm(kind.clone(), *step),
            Body::Intent { .. } | Body::Control => What::Asked(event.new.clone()),
            _ => What::Other,
        };
        Self { at, object: event.object.clone(), attribute: event.attribute.clone(), what }
    }
}
