//! What is wrong with a file that somebody wrote, said so that he can mend it: one sentence, the place, what would be right.
//!
//! One cause is one message, and all causes are found in one run. The same type is printed, and serialised for `--json`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One message about one place in one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Stable code, such as `unknown-value`.
    pub code: String,
    /// Whether the file is refused.
    pub level: Level,
    /// One sentence in the operator's words.
    pub message: String,
    /// Where; absent if the message is about the whole.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none", default)]
    pub place: Option<Place>,
    /// The line of the file at that place.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub excerpt: Option<String>,
    /// What would be right.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub help: Option<String>,
    /// What would happen if it ran as it stands.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub consequence: Option<String>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Worth a look; the file is taken.
    Warning,
    /// The file is refused, and with it everything that was to come with it.
    Error,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// A stretch of one line of one file. Lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Name of the file within its bundle, such as `classes/fan.yaml`.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// How many characters, at least 1.
    pub length: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl Diagnostic {
    /// An error without a place.
    pub fn error(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            level: Level::Error,
            message: message.into(),
            place: None,
            excerpt: None,
            help: None,
            consequence: None,
        }
    }

    /// A warning without a place.
    pub fn warning(code: &str, message: impl Into<String>) -> Self {
        Self { level: Level::Warning, ..Self::error(code, message) }
    }

    /// Adds the place, with the line that stands there.
    #[must_use]
    pub fn at(mut self, source: Source<'_>, spot: Spot) -> Self {
        let line = spot.line.max(1);
        let text = source.text.lines().nth(line as usize - 1).unwrap_or_default();
        let room = u32::try_from(text.chars().count()).unwrap_or(u32::MAX).saturating_sub(spot.column.saturating_sub(1));
        self.place = Some(Place {
            file: source.name.to_owned(),
            line,
            column: spot.column.max(1),
            length: spot.length.min(room).max(1),
        });
        self.excerpt = Some(text.to_owned());
        self
    }

    /// Adds what would be right.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// Adds what would be right, if there is something to say.
    #[must_use]
    pub fn help_if(mut self, text: Option<String>) -> Self {
        self.help = text.or(self.help);
        self
    }

    /// Adds what would happen if it ran as it stands.
    #[must_use]
    pub fn consequence(mut self, text: impl Into<String>) -> Self {
        self.consequence = Some(text.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]: {}", self.level, self.code, self.message)?;
        if let Some(place) = &self.place {
            write!(f, "\n  {place}")?;
            if let Some(excerpt) = &self.excerpt {
                let number = place.line.to_string();
                let gap = " ".repeat(number.len());
                // A tab before the caret stays a tab, so that the caret stands under its word on every terminal.
                let before: String = (excerpt.chars())
                    .take(place.column as usize - 1)
                    .map(|c| if c == '\t' { '\t' } else { ' ' })
                    .collect();
                write!(f, "\n  {number} | {}", excerpt.trim_end())?;
                write!(f, "\n  {gap} | {before}{}", "^".repeat(place.length as usize))?;
            }
        }
        for (name, text) in [("help", &self.help), ("if it ran", &self.consequence)] {
            if let Some(text) = text {
                write!(f, "\n  {name:<9}  {text}")?;
            }
        }
        Ok(())
    }
}

/// A file that somebody wrote.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Its name within the bundle.
    pub name: &'a str,
    /// What stands in it.
    pub text: &'a str,
}

/// A place within a file whose name is known. Lines and columns count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Spot {
    /// From 1; 0 means unknown.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// In characters.
    pub length: u32,
}

/// Most messages that one run keeps; a file that is wrong all over is not read to its end by anyone.
pub const DIAGNOSTICS_MAX: usize = 100;

/// Collects messages, up to [`DIAGNOSTICS_MAX`].
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Adds one, unless the same stands there or the list is full.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if self.list.len() < DIAGNOSTICS_MAX && !self.list.contains(&diagnostic) {
            self.list.push(diagnostic);
        }
    }

    /// Whether one of them is an error.
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|d| d.level == Level::Error)
    }

    /// All of them, by file and line.
    pub fn into_sorted(mut self) -> Vec<Diagnostic> {
        self.list.sort_by(|a, b| a.place.cmp(&b.place));
        self.list
    }
}

/// The candidate that somebody most likely meant by `word`, if one is near enough.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    (candidates.into_iter())
        .map(|c| (distance(word, c), c))
        .filter(|(d, _)| *d <= allowed)
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

/// `did you mean "running"?  (running, failed)`: the nearest candidate, and all of them where they are few.
pub fn suggestion<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> Option<String> {
    let near = nearest(word, candidates.clone()).map(|c| format!("did you mean \"{c}\"?"));
    let all: Vec<&str> = candidates.into_iter().collect();
    let list = (!all.is_empty() && all.len() <= 12).then(|| all.join(", "));
    match (near, list) {
        (Some(near), Some(list)) => Some(format!("{near}  ({list})")),
        (Some(near), None) => Some(near),
        (None, Some(list)) => Some(format!("one of: {list}")),
        (None, None) => None,
    }
}

/// Edit distance with swapped neighbours counted as one (optimal string alignment), case ignored.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().flat_map(char::to_lowercase).collect();
    let b: Vec<char> = b.chars().flat_map(char::to_lowercase).collect();
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let swap = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + swap);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_shows_place_excerpt_help_and_consequence() {
        let text = "a\n    let running = fan.siblings(\"fan\").filter(|f| f.state == \"runing\");\n";
        let shown = Diagnostic::error("unknown-value", "the state of a fan is never \"runing\"")
            .at(Source { name: "fan.rhai", text }, Spot { line: 2, column: 61, length: 8 })
            .help("did you mean \"running\"?")
            .consequence("this list would always be empty")
            .to_string();
        let expected = concat!(
            "error[unknown-value]: the state of a fan is never \"runing\"\n",
            "  fan.rhai:2:61\n",
            "  2 |     let running = fan.siblings(\"fan\").filter(|f| f.state == \"runing\");\n",
            "    |                                                             ^^^^^^^^\n",
            "  help       did you mean \"running\"?\n",
            "  if it ran  this list would always be empty"
        );
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_place_beyond_the_line_still_renders() {
        let shown = Diagnostic::error("x", "y").at(Source { name: "f", text: "ab" }, Spot { line: 9, column: 40, length: 7 });
        assert!(shown.to_string().contains("f:9:40"));
    }

    #[test]
    fn the_nearest_word_is_found_and_a_far_one_is_not() {
        assert_eq!(nearest("runing", ["running", "failed", "absent"]), Some("running"));
        assert_eq!(nearest("faield", ["running", "failed"]), Some("failed"));
        assert_eq!(nearest("temperature", ["running", "failed"]), None);
    }
}
