//! A mistake in a chassis file, with its place.

use std::fmt;

use serde_yaml::Location;

use crate::chassis::words::nearest;

/// Why a chassis file cannot be simulated. Nothing was loaded. Prints over several lines: sentence, place, excerpt, help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError {
    /// The file, as the caller named it.
    pub file: String,
    /// From 1; 0 if the mistake is in no single line.
    pub line: u64,
    /// From 1; 0 if the mistake is in no single line.
    pub column: u64,
    /// What is wrong.
    pub what: String,
    /// The line in question.
    pub excerpt: Option<String>,
    /// What would be right.
    pub help: Option<String>,
}

impl PlanError {
    pub(super) fn from_yaml(file: &str, text: &str, error: &serde_yaml::Error) -> Self {
        let plain = error.without_snippet();
        let what = plain.render_with_formatter(&serde_yaml::UserMessageFormatter);
        match plain.location() {
            Some(at) => Self::at(file, text, at, sentence(&what)),
            None => Self::whole(file, sentence(&what)),
        }
    }

    pub(super) fn at(file: &str, text: &str, at: Location, what: impl Into<String>) -> Self {
        let excerpt = usize::try_from(at.line()).ok().and_then(|n| text.lines().nth(n.checked_sub(1)?)).map(str::to_owned);
        Self { line: at.line(), column: at.column(), excerpt, ..Self::whole(file, what) }
    }

    pub(super) fn whole(file: &str, what: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: 0, column: 0, what: what.into(), excerpt: None, help: None }
    }

    pub(super) fn with_nearest<'a>(mut self, word: &str, known: impl Iterator<Item = &'a str> + Clone) -> Self {
        self.help = Some(nearest(word, known));
        self
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[chassis-file]: {}", self.what)?;
        if self.line == 0 {
            write!(f, "\n  {}", self.file)?;
        } else {
            write!(f, "\n  {}:{}:{}", self.file, self.line, self.column)?;
        }
        if let Some(excerpt) = &self.excerpt {
            let number = self.line.to_string();
            let indent = usize::try_from(self.column.saturating_sub(1)).unwrap_or(0);
            write!(f, "\n  {number} | {excerpt}\n  {:w$} | {:indent$}^", "", "", w = number.len())?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help  {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for PlanError {}

/// The first line, without the place at its end: that is said in a form that editors understand.
fn sentence(text: &str) -> &str {
    let line = text.lines().next().unwrap_or(text);
    line.rfind(" at line ").map_or(line, |at| &line[..at])
}
