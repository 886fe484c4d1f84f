//! Scenarios: what breaks when, what an operator does, and what has to come of it. A YAML file, judged in virtual time.
//!
//! [`Scenario`] is a file that was read and checked against a chassis, the fault catalogue and a bundle of classes and policies: what
//! parses can be run. [`Run`] is the machine that carries it out: it reads no clock, and sees the world through [`Stage`] alone, so that
//! the same file runs on a simulated chassis with its owner ([`OwnerStage`]) and on a domain that really runs. [`Report`] says what was
//! kept and what was not, with a [`Recording`] to draw.

mod condition;
mod domain;
mod judge;
mod owner;
mod read;
mod recording;
mod report;
mod run;
mod setting;
mod stage;
mod step;
#[cfg(test)]
mod tests;

use std::path::Path;

use sixnines_core::diagnostic::{Diagnostic, Source};
use sixnines_core::domain::config::Bundle;
use sixnines_core::time::Duration;

pub use condition::{Condition, Operator, RoleWord, Term, Test};
pub use domain::DomainStage;
pub use owner::OwnerStage;
pub use recording::{Bar, Recording, Series};
pub use report::{Line, Outcome, Report, Verdict};
pub use run::{LOOK, Run, run};
pub use setting::{DomainSetting, Setting};
pub use stage::{Breach, Mend, Occurrence, Stage, What};
pub use step::{Deed, Expectation, Must, Step, Trigger, Wish};

/// A scenario that can be run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What people call it.
    pub name: String,
    /// What it shows, in one sentence.
    pub text: String,
    /// The file, for messages.
    pub file: String,
    /// The policy file that it puts to the test: without it, it must fail.
    pub policy: Option<String>,
    /// How long it lasts.
    pub lasts: Duration,
    /// The chassis, and the classes and policies in force.
    pub setting: Setting,
    /// What happens, in the order of the file.
    pub steps: Vec<Step>,
}

/// Gives the text of a file that a scenario names (its chassis, a policy that is applied), by the name that stands there.
pub type Open<'a> = &'a dyn Fn(&str) -> Result<String, String>;

impl Scenario {
    /// Reads a scenario and checks all of it: against the chassis that it names, the fault catalogue, and `bundle`.
    ///
    /// A bundle that declares no objects of the chassis gets them from the chassis.
    ///
    /// # Errors
    /// Everything that is wrong, each with its place. The author's mistakes, always.
    pub fn read(source: Source<'_>, bundle: &Bundle, open: Open<'_>) -> Result<Self, Vec<Diagnostic>> {
        read::scenario(source, bundle, open)
    }

    /// The line of a step that asks for roles, which only a domain has.
    pub fn asks_for_roles(&self) -> Option<u32> {
        self.line_of(Condition::needs_roles)
    }

    /// The line of a step that asks what only a simulated domain can tell.
    pub fn asks_clients(&self) -> Option<u32> {
        self.line_of(Condition::needs_clients)
    }

    fn line_of(&self, is_meant: impl Fn(&Condition) -> bool) -> Option<u32> {
        let asks = |step: &&Step| {
            let waits = matches!(&step.trigger, Trigger::When { condition, .. } if is_meant(condition));
            waits || step.expectation.as_ref().is_some_and(|e| is_meant(&e.condition))
        };
        self.steps.iter().find(asks).map(|step| step.at.line)
    }

    /// How many of its steps expect something.
    pub fn expectations(&self) -> usize {
        self.steps.iter().filter(|step| step.expectation.is_some()).count()
    }
}

/// The file's name without its folders and its ending: what a scenario is called that does not say so itself.
fn stem(file: &str) -> String {
    Path::new(file).file_stem().map_or_else(|| file.to_owned(), |stem| stem.to_string_lossy().into_owned())
}
