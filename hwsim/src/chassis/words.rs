//! What a message suggests for a word that is not known.

/// `did you mean "fans"?  (fans, air)`, or only the list when nothing is near.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let list = known.clone().collect::<Vec<_>>().join(", ");
    match known.map(|k| (distance(word, k), k)).min() {
        Some((d, best)) if d <= 1 + best.len() / 3 => format!("did you mean {best:?}?  ({list})"),
        _ => format!("known are: {list}"),
    }
}

/// Levenshtein's distance: how many letters to insert, delete or replace.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_word_is_suggested_and_a_far_one_gets_the_list() {
        assert_eq!(
            nearest("fan-faild", ["fan-failed", "fan-worn"].into_iter()),
            "did you mean \"fan-failed\"?  (fan-failed, fan-worn)"
        );
        assert_eq!(nearest("xylophone", ["fan", "slot"].into_iter()), "known are: fan, slot");
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
