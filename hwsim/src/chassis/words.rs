//! What a message suggests for a word that is not known.

use sixnines_core::diagnostic::suggestion;

/// `did you mean "fans"?  (fans, air)`, or what there is when nothing is near.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    suggestion(word, known.clone()).unwrap_or_else(|| format!("one of: {}", known.collect::<Vec<_>>().join(", ")))
}
