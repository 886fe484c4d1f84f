//! Policies that ask for everything they can think of and then fail, each in its own way: too many operations, too many actions, too
//! deep a call, an exception, words that do not fit. They are bound to the shipped classes in place of the shipped files.

use sixnines_core::domain::config::Bundle;

/// The files that there is a bad one of.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

/// Puts bad policies in the place of good ones.
pub(super) fn spoil(bundle: &mut Bundle, names: &[String]) {
    for (name, text) in FILES.iter().filter(|(name, _)| names.iter().any(|n| n == name)) {
        bundle.files.insert((*name).to_owned(), (*text).to_owned());
    }
}

const FILES: [(&str, &str); 4] = [
    ("chassis.rhai", include_str!("bad/chassis.rhai")),
    ("fan.rhai", include_str!("bad/fan.rhai")),
    ("node.rhai", include_str!("bad/node.rhai")),
    ("service.rhai", include_str!("bad/service.rhai")),
];

#[cfg(test)]
mod tests {
    use sixnines_core::bundle::shared_bundle;

    use super::*;

    #[test]
    fn bad_policies_pass_every_check_before_they_run() {
        let mut bundle = crate::shipped::bundle(&crate::sim::three_nodes());
        let good = bundle.clone();
        spoil(&mut bundle, &names().map(str::to_owned).collect::<Vec<_>>());
        for name in names() {
            assert_ne!(good.files.get(name), bundle.files.get(name), "{name}");
        }
        let refused: Vec<String> = shared_bundle(&bundle).err().into_iter().flatten().map(|d| d.to_string()).collect();
        assert!(refused.is_empty(), "{refused:#?}");
    }
}
