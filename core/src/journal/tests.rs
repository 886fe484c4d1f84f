//! The journal proves itself: same inputs, same decisions; and whatever is cut or flipped is found.

use proptest::prelude::*;

use super::replay::{Decision, ReplayError, compare, replay};
use super::record::{Records, Tail};
use crate::authority::AccessRole;
use crate::domain::limits::{Limit, Limits};
use crate::engine::{CommandBody, Input};
use crate::engine::tests::shelf::{Shelf, compiled, shipped};
use crate::ids::{AttributeName, ObjectName};
use crate::time::Duration;
use crate::value::{Quality, Value};

/// What can happen to a shelf in a test.
#[derive(Clone, Debug)]
enum Step {
    Speed(u32, i64),
    Lost(u32),
    Heat(i32),
    Pass(u64),
    Claim(u32, i64, u64),
    Force(u32, i64),
    Segment,
    Own(bool),
    /// How many operations a call may take: with few, policies are behind most of the time.
    Operations(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u32..6, prop::sample::select(vec![0i64, 100, 790, 900, 1100, 5000])).prop_map(|(f, s)| Step::Speed(f, s)),
        1 => (1u32..6).prop_map(Step::Lost),
        1 => (20i32..90).prop_map(Step::Heat),
        4 => (0u64..5000).prop_map(Step::Pass),
        1 => (1u32..6, 0i64..101, 1u64..60).prop_map(|(f, d, l)| Step::Claim(f, d, l)),
        1 => (1u32..6, 0i64..6000).prop_map(|(f, s)| Step::Force(f, s)),
        1 => Just(Step::Segment),
        1 => any::<bool>().prop_map(Step::Own),
        1 => prop::sample::select(vec![1000u64, 50_000]).prop_map(Step::Operations),
    ]
}

fn drive(shelf: &mut Shelf, steps: &[Step]) {
    let mut epoch = 2;
    for step in steps {
        match step {
            Step::Speed(fan, rpm) => shelf.speed(*fan, *rpm),
            Step::Lost(fan) => shelf.reading(&format!("/mxp1/fan{fan}"), "speed", None, Quality::Missing),
            Step::Heat(celsius) => shelf.read("/mxp1", "outlet_temperature", Value::Float(f64::from(*celsius))),
            Step::Pass(millis) => shelf.pass(Duration::from_millis(*millis)),
            Step::Claim(fan, duty, lease) => {
                let claim = CommandBody::Claim {
                    object: ObjectName::new(format!("/mxp1/fan{fan}")),
                    control: AttributeName::new("duty"),
                    value: Value::Int(*duty),
                    reason: "test".into(),
                    priority: None,
                    lease: Some(Duration::from_secs(*lease)),
                };
                // Refused while the shelf is owned elsewhere, which is an answer too.
                drop(shelf.command(AccessRole::Operator, claim));
            }
            Step::Force(fan, rpm) => {
                let force = CommandBody::Force {
                    object: ObjectName::new(format!("/mxp1/fan{fan}")),
                    attribute: AttributeName::new("speed"),
                    value: Value::Int(*rpm),
                    expires: Duration::from_secs(3),
                };
                drop(shelf.command(AccessRole::Admin, force));
            }
            Step::Segment => {
                let begin = shelf.engine.begin_segment();
                shelf.journal.extend_from_slice(&begin);
            }
            Step::Operations(bound) => shelf.input(Input::Limits(Limits::default().with(Limit::PolicyOperations, *bound))),
            Step::Own(mine) => {
                epoch += 1;
                let group = crate::domain::config::chassis_group("mxp1");
                if *mine {
                    let saved = shelf.saved_list();
                    shelf.own(epoch, saved);
                } else {
                    let input = Input::NotOwner { group, epoch: crate::ids::Epoch(epoch), active: None };
                    shelf.input(input);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// A run and its replay make the same events, byte for byte.
    #[test]
    fn a_replay_comes_to_the_same_decisions(steps in prop::collection::vec(step(), 1..60)) {
        let mut shelf = Shelf::with(&shipped(), 1);
        shelf.own(1, Vec::new());
        drive(&mut shelf, &steps);
        let report = replay(&shelf.journal, None).expect("its own journal");
        prop_assert_eq!(report.diverged, None);
        prop_assert_eq!(report.tail, Tail::Clean);
        prop_assert_eq!(report.engine.hash(), shelf.engine.hash());
        let bytes = |events: &[std::sync::Arc<crate::event::Event>]| events.iter().map(|e| postcard::to_stdvec(&**e).expect("encodes")).collect::<Vec<_>>();
        prop_assert_eq!(bytes(&report.events), bytes(&shelf.events));
    }

    /// Cut anywhere, the journal replays up to its last good record, or says that nothing is left.
    #[test]
    fn a_cut_journal_replays_to_its_last_good_record(cut in 0usize..20_000) {
        let journal = sample();
        let cut = cut % journal.len();
        match replay(&journal[..cut], None) {
            Ok(report) => {
                prop_assert_eq!(report.diverged, None);
                let good = Records::new(&journal[..cut]).count();
                prop_assert_eq!(report.inputs + 1, good as u64);
            }
            Err(error) => prop_assert!(matches!(error, ReplayError::Empty), "{error}"),
        }
    }

    /// A flipped bit never gives other decisions unnoticed: the records before it count, the rest is cut or refused.
    #[test]
    fn a_flipped_bit_is_found(at in 0usize..1_000_000, bit in 0u8..8) {
        let mut journal = sample();
        let all = Records::new(&journal).count() as u64;
        let at = at % journal.len();
        journal[at] ^= 1 << bit;
        if let Ok(report) = replay(&journal, None) {
            prop_assert_eq!(report.diverged, None);
            prop_assert!(report.inputs + 1 < all);
        }
    }
}

/// The journal of a short life.
fn sample() -> Vec<u8> {
    static SAMPLE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    SAMPLE
        .get_or_init(|| {
            let mut shelf = Shelf::running();
            drive(&mut shelf, &[Step::Speed(1, 0), Step::Pass(1500), Step::Claim(2, 30, 5), Step::Heat(70), Step::Pass(9000)]);
            shelf.journal
        })
        .clone()
}

#[test]
fn readings_that_change_nothing_are_not_kept() {
    let mut shelf = Shelf::running();
    let before = shelf.journal.len();
    for _ in 0..100 {
        shelf.speed(1, 5000);
    }
    assert_eq!(shelf.journal.len(), before);
}

#[test]
fn a_replay_shows_a_past_moment() {
    let mut shelf = Shelf::running();
    let moment = shelf.now;
    shelf.pass(Duration::from_secs(1));
    shelf.speed(1, 7000);
    let report = replay(&shelf.journal, Some(moment)).expect("its own journal");
    let world = report.engine.world();
    let ix = world.find("/mxp1/fan1").expect("declared");
    let slot = world.object(ix).class.slot("speed").expect("declared");
    assert_eq!(world.cell(ix, slot).usable(), Some(&Value::Int(5000)));
}

#[test]
fn another_policy_is_compared_with_what_was_decided() {
    let mut shelf = Shelf::running();
    drive(&mut shelf, &[Step::Speed(1, 0), Step::Pass(1500)]);
    let same = compare(&shelf.journal, &compiled(&shipped())).expect("its own journal");
    assert!(same.decisions > 0);
    assert_eq!(same.differences, []);
    let mut quieter = shipped();
    let text = quieter.files["fan.rhai"].replace("f.claim(\"duty\", 100, \"a sibling failed\")", "f.claim(\"duty\", 80, \"a sibling failed\")");
    quieter.files.insert("fan.rhai".into(), text);
    let other = compare(&shelf.journal, &compiled(&quieter)).expect("its own journal");
    assert_eq!(other.differences.len(), 1, "{:?}", other.differences);
    let asked = |value: &str| Decision::Act { object: "/mxp1/fan2".into(), control: "duty".into(), value: Some(value.into()) };
    assert!(other.differences[0].only_then.contains(&asked("100")));
    assert!(other.differences[0].only_now.contains(&asked("80")));
}

#[test]
fn an_unknown_kind_is_refused_and_not_skipped() {
    let mut journal = sample();
    super::record::encode(77, b"from the future", &mut journal);
    assert!(matches!(replay(&journal, None), Err(ReplayError::UnknownKind { kind: 77, .. })));
}
