//! A mistake in a chassis file, with its place.

use serde_yaml::Location;
use sixnines_core::diagnostic::{Diagnostic, Source, Spot};

use crate::chassis::words::nearest;

/// Why a chassis file cannot be simulated. Nothing was loaded. Prints over several lines: sentence, place, excerpt, help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{diagnostic}")]
pub struct PlanError {
    /// The one message that there is: it stops at the first mistake.
    pub diagnostic: Box<Diagnostic>,
}

impl PlanError {
    pub(super) fn from_yaml(source: Source<'_>, error: &serde_yaml::Error) -> Self {
        let plain = error.without_snippet();
        let text = plain.render_with_formatter(&serde_yaml::UserMessageFormatter);
        match plain.location() {
            Some(at) => Self::at(source, at, sentence(&text)),
            None => Self::whole(source, sentence(&text)),
        }
    }

    pub(super) fn at(source: Source<'_>, at: Location, what: impl Into<String>) -> Self {
        let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let (line, column) = (number(at.line()), number(at.column()));
        let length = word_length(source.text, line, column);
        Self { diagnostic: Box::new(Diagnostic::error(CODE, what).at(source, Spot { line, column, length })) }
    }

    pub(super) fn whole(source: Source<'_>, what: impl Into<String>) -> Self {
        let what = format!("{}: {}", source.name, what.into());
        Self { diagnostic: Box::new(Diagnostic::error(CODE, what)) }
    }

    pub(super) fn with_nearest<'a>(self, word: &str, known: impl Iterator<Item = &'a str> + Clone) -> Self {
        Self { diagnostic: Box::new(self.diagnostic.help(nearest(word, known))) }
    }
}

/// The first line, without the place at its end: that is said in a form that editors understand.
fn sentence(text: &str) -> &str {
    let line = text.lines().next().unwrap_or(text);
    line.rfind(" at line ").map_or(line, |at| &line[..at])
}

/// How many characters to underline: to the end of the word.
fn word_length(text: &str, line: u32, column: u32) -> u32 {
    let line = (1..).zip(text.lines()).find(|(number, _)| *number == line).map_or("", |(_, line)| line);
    let word = line.chars().skip((column as usize).saturating_sub(1)).take_while(|c| !" ,:]}#".contains(*c));
    u32::try_from(word.count()).unwrap_or(1).max(1)
}

const CODE: &str = "chassis-file";
