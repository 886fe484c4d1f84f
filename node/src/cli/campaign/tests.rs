//! Campaigns on few seeds: resuming, bad options, and the forms of the report.

use clap::Parser as _;

use super::*;
use crate::cli::{Cli, Command, SimStep};

fn options(words: &str) -> Options {
    let words = ["nines", "sim", "campaign"].into_iter().chain(words.split_whitespace());
    match Cli::try_parse_from(words).map(|cli| cli.command) {
        Ok(Command::Sim { step: SimStep::Campaign(options) }) => options,
        other => panic!("{other:?}"),
    }
}

fn played(options: &Options) -> State {
    let config = options.subject.config().expect("a domain");
    let mut state = State::load_or_new(options, &config).expect("a state");
    assert!(play(options, &config, &mut state).expect("it plays"), "nobody interrupts");
    state
}

#[test]
fn a_campaign_that_was_ended_goes_on_and_comes_to_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("state");
    let whole = played(&options("--seeds 6 --faults 4 --jobs 2"));
    let half = played(&options(&format!("--seeds 2 --faults 4 --state {}", file.display())));
    assert_eq!(half.done(), 2);
    let resumed = played(&options(&format!("--seeds 6 --faults 4 --jobs 3 --state {}", file.display())));
    assert_eq!(resumed.tally, whole.tally);
    assert_eq!(whole.tally.seeds, 6);
}

#[test]
fn a_state_of_another_campaign_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("state");
    played(&options(&format!("--seeds 1 --faults 1 --state {}", file.display())));
    let other = options(&format!("--seeds 4 --faults 2 --state {}", file.display()));
    let refused = State::load_or_new(&other, &sim::three_nodes()).expect_err("another campaign").to_string();
    assert!(refused.contains("--faults differ"), "{refused}");
}

#[test]
fn every_form_of_the_report_shows_the_same_figures() {
    let options = options("--seeds 8 --faults 9");
    let config = options.subject.config().expect("a domain");
    let state = played(&options);
    let summary = Summary::new(&state, &options, &config, RATES.to_vec(), false);
    let (due, taken, _) = summary.coverage();
    let json = summary.json();
    assert_eq!((json["schema"].as_str(), json["coverage"]["due"].as_u64(), json["coverage"]["taken"].as_u64()), (Some("nines.sim-campaign/1"), Some(due), Some(taken)));
    let text = text::report(&summary);
    assert!(text.contains(&format!("Takeovers due {due}, taken {taken}")), "{text}");
    assert!(text.lines().all(|line| line.len() <= 90), "{text}");
    let page = html::page(&summary);
    assert!(page.contains("<svg") && page.contains(&format!("{taken} of {due} takeovers")));
    assert!(!page.contains("http://") || page.matches("http://").count() == page.matches("http://www.w3.org/2000/svg").count(), "nothing is fetched");
}

#[test]
fn an_unknown_class_gets_the_known_ones() {
    let refused = rates(&[("node-kill".into(), 1.0)], &[]).expect_err("no such class").to_string();
    assert!(refused.contains("node-killed"), "{refused}");
    assert!(class_and_time("node-killed").is_err() && class_and_time("node-killed=0s").is_err() && class_and_time("node-killed=5").is_err());
    assert_eq!(class_and_time("node-killed=2h"), Ok(("node-killed".into(), 7200.0)));
}
