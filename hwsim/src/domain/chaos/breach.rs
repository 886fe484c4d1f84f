//! What kind of failure a breach is: two runs fail in the same way if they break the same rule, whoever and whenever it was.

/// The kinds that reports count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    /// Two actives at a sink, or under one epoch.
    TwoActives,
    /// What was acknowledged or shown is gone, or came back from the past.
    LostWrite,
    /// It did not serve, or cool, within its bound.
    NotServing,
    /// Any other rule.
    Other,
}

impl Harm {
    /// What a failure's text tells.
    pub fn of(failure: &str) -> Self {
        let has = |words: &[&str]| words.iter().any(|word| failure.contains(word));
        if has(&["two actives", "are both active"]) {
            Self::TwoActives
        } else if has(&["is empty after a write", "which was replaced", "which nobody wrote", "which nobody made", "after an answer under"]) {
            Self::LostWrite
        } else if has(&["ms never:"]) {
            Self::NotServing
        } else {
            Self::Other
        }
    }

    /// Its name in reports.
    pub const fn word(self) -> &'static str {
        match self {
            Self::TwoActives => "two-actives",
            Self::LostWrite => "lost-write",
            Self::NotServing => "not-serving",
            Self::Other => "other",
        }
    }
}

/// A failure without what differs from run to run: times, numbers, and what stands in brackets or braces.
pub fn kind(failure: &str) -> String {
    let text = failure.split_once(" ms: ").filter(|(head, _)| head.starts_with("at ")).map_or(failure, |(_, rest)| rest);
    let mut kind = String::new();
    let mut depth = 0_u32;
    for c in text.chars() {
        match c {
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            '0'..='9' => {
                if !kind.ends_with('#') {
                    kind.push('#');
                }
            }
            c => kind.push(c),
        }
    }
    kind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_rule_is_the_same_kind_whenever_and_by_whom_it_is_broken() {
        let one = "at 711.203944 ms: two actives: n1 opens its gate for calls while that of n2 is open for 1200 us more";
        let two = "at 23.1 ms: two actives: n3 opens its gate for calls while that of n1 is open for 7 us more";
        assert_eq!(kind(one), kind(two));
        assert_ne!(kind(one), kind("at 23.1 ms: key 3 of calls is empty after a write was acknowledged or shown"));
        assert_eq!(Harm::of(one), Harm::TwoActives);
        assert_eq!(Harm::of("within 5000 ms never: everything is whole, and it serves again (calls)"), Harm::NotServing);
    }
}
