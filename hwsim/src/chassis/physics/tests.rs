//! Physics against closed forms, and its books.

use proptest::prelude::*;

use super::*;
use crate::chassis::fault::Effects;

const CP: f64 = 1006.0;

/// A plan whose numbers are easy to reckon with: no leakage power, no fan power, no loss.
fn plain() -> Plan {
    let mut plan = Plan::mxp();
    plan.time_scale = 1.0;
    plan.supply.efficiency = 1.0;
    plan.fan.power_watts_max = 0.0;
    for board in plan.boards.values_mut() {
        board.leakage_per_kelvin = 0.0;
    }
    plan
}

#[test]
fn the_outlet_is_warmer_by_power_over_mass_flow() {
    let plan = plain();
    let mut physics = Physics::settled(&plan);
    physics.advance(600.0, &Effects::none(&plan));
    let watts: f64 = physics.boards.iter().flatten().map(|b| b.watts(BoardEffect::default())).sum();
    let expected = 23.0 + watts / (physics.flow_cubic_meters_per_second * 1.2 * CP);
    assert!((physics.outlet_celsius - expected).abs() < 1e-6, "{} instead of {expected}", physics.outlet_celsius);
    assert!((physics.input_watts - watts).abs() < 1e-9);
}

#[test]
fn a_settled_chassis_stays_where_it_is() {
    let plan = Plan::mxp();
    let mut physics = Physics::settled(&plan);
    let before: Vec<f64> = physics.boards.iter().flatten().map(|b| b.celsius).chain([physics.outlet_celsius]).collect();
    physics.advance(3600.0, &Effects::none(&plan));
    let after = physics.boards.iter().flatten().map(|b| b.celsius).chain([physics.outlet_celsius]);
    for (before, after) in before.into_iter().zip(after) {
        assert!((before - after).abs() < 1e-3, "{before} -> {after}");
    }
}

#[test]
fn a_board_approaches_its_end_exponentially() {
    let plan = plain();
    let mut physics = Physics::settled(&plan);
    let mut effects = Effects::none(&plan);
    effects.boards[1].extra_watts = 30.0;
    let board = physics.boards[1].as_ref().expect("slot 2 has a processor");
    let flow = physics.flow_cubic_meters_per_second / 18.0;
    let gives = heat::board_watts_per_kelvin(&board.plan, flow, 1.2);
    let (start, tau) = (board.celsius, board.plan.heat_joules_per_kelvin / gives);
    for _ in 0..20 {
        physics.advance(tau / 20.0, &effects);
    }
    let expected = start + 30.0 / gives * (1.0 - (-1.0_f64).exp());
    let got = physics.boards[1].as_ref().expect("still there").celsius;
    assert!((got - expected).abs() < 1e-6, "{got} instead of {expected} after one time constant of {tau} s");
}

#[test]
fn supplies_share_the_load_and_take_over_from_a_failed_one() {
    let plan = Plan::mxp();
    let mut physics = Physics::settled(&plan);
    let mut effects = Effects::none(&plan);
    physics.advance(1.0, &effects);
    let three = physics.power.supply_watts(1);
    effects.supplies_failed[0] = true;
    physics.advance(1.0, &effects);
    assert!((physics.power.supply_watts(1) / three - 1.5).abs() < 0.01, "{three} W each, then {}", physics.power.supply_watts(1));
    assert_eq!(physics.power.served(0), 1.0, "two are enough");
}

#[test]
fn one_supply_is_not_enough_and_browns_out_the_last_slots() {
    let plan = Plan::mxp();
    let mut physics = Physics::settled(&plan);
    let mut effects = Effects::none(&plan);
    effects.supplies_failed[0] = true;
    effects.supplies_failed[1] = true;
    physics.advance(5.0, &effects);
    let off: Vec<usize> = (0..18).filter(|i| physics.boards[*i].as_ref().is_some_and(|b| b.payload == Payload::Off)).collect();
    assert!(!off.is_empty() && off.contains(&17) && !off.contains(&0), "{off:?}");
    let limit = plan.supply.power_watts_max;
    assert!(
        physics.power.supply_watts(2) <= limit && physics.power.supply_watts(2) > 0.85 * limit,
        "{} W: no more than needed went off",
        physics.power.supply_watts(2)
    );
    assert_eq!(physics.power.served(0), 1.0);
    physics.advance(600.0, &Effects::none(&plan));
    assert!(off.iter().all(|i| physics.boards[*i].as_ref().is_some_and(|b| b.payload == Payload::Off)), "off until ordered on");
}

/// One supply feeds three boards: when it goes, these go, and no other.
#[test]
fn a_supply_takes_its_branch_along_and_no_other() {
    let text = include_str!("../../../chassis/mxp.yaml").replacen(
        "  feeds: [A, A, B]",
        "  branches:
    - { supplies: [1, 2], slots: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] }
    - { supplies: [3], slots: [16, 17, 18] }
  #",
        1,
    );
    let plan = Plan::parse("lab.yaml", &text).unwrap_or_else(|e| panic!("{e}"));
    let mut physics = Physics::settled(&plan);
    let mut effects = Effects::none(&plan);
    effects.supplies_failed[2] = true;
    physics.advance(60.0, &effects);
    let off: Vec<usize> = (0..18).filter(|i| physics.boards[*i].as_ref().is_some_and(|b| b.payload == Payload::Off)).collect();
    assert_eq!(off, [17], "slots 16 and 17 are empty");
    assert!(physics.fans[0].speed_rpm > 2000.0, "the first branch turns the fans");
    effects.supplies_failed = vec![true, true, false];
    physics.advance(200.0, &effects);
    let on: Vec<usize> = (0..18).filter(|i| physics.boards[*i].as_ref().is_some_and(|b| b.payload != Payload::Off)).collect();
    assert_eq!(on, [17], "and the other way round");
    assert!(physics.fans[0].speed_rpm > 2000.0, "the second branch turns them now");
    assert_eq!((physics.power.supply_watts(0), physics.power.supply_watts(2) > 60.0), (0.0, true));
}

#[test]
fn without_any_supply_everything_stops_and_comes_back_by_itself() {
    let plan = Plan::mxp();
    let mut physics = Physics::settled(&plan);
    let mut effects = Effects::none(&plan);
    effects.supplies_failed.fill(true);
    physics.advance(60.0, &effects);
    assert_eq!((physics.input_watts, physics.fans[0].speed_rpm), (0.0, 0.0));
    physics.advance(300.0, &Effects::none(&plan));
    assert!(physics.boards.iter().flatten().all(|b| b.payload == Payload::Running));
}

/// What the demo shows. Three of five fans fail; with two at rest duty it would get far too hot, with two at full speed it does not.
#[test]
fn three_failed_fans_in_numbers() {
    let plan = Plan::mxp();
    let mut physics = Physics::settled(&plan);
    let mut effects = Effects::none(&plan);
    let normal = physics.outlet_celsius;
    effects.fans_failed[..3].fill(true);
    let mut alone = physics.clone();
    alone.advance(600.0, &effects);
    physics.advance(90.0, &effects);
    let peak = physics.outlet_celsius;
    physics.fans[3].duty_percent = 100;
    physics.fans[4].duty_percent = 100;
    physics.advance(400.0, &effects);
    let cooled = physics.outlet_celsius;
    let shown = format!("{normal:.1} -> {peak:.1} -> {cooled:.1}, alone {:.1}", alone.outlet_celsius);
    assert!((30.0..32.5).contains(&normal), "{shown}");
    assert!((37.0..56.0).contains(&peak), "{shown}");
    assert!((33.0..36.0).contains(&cooled), "{shown}");
    assert!(alone.outlet_celsius > 60.0, "{shown}");
}

#[test]
fn a_silent_shelf_manager_makes_the_fans_speed_up_by_themselves() {
    let plan = Plan::mxp();
    let mut physics = Physics::settled(&plan);
    let effects = Effects { shelf_manager_silent: true, ..Effects::none(&plan) };
    physics.advance(plan.shelf_manager.fallback_after_seconds - 1.0, &effects);
    assert_eq!(physics.fans[0].speed_rpm, 2400.0);
    physics.advance(30.0, &effects);
    assert!(physics.fans[0].speed_rpm > 5900.0);
    physics.advance(30.0, &Effects::none(&plan));
    assert!(physics.fans[0].speed_rpm < 2500.0, "the last order holds again");
}

/// What can be done to a chassis in the energy test.
#[derive(Clone, Debug)]
enum Do {
    Wait(f64),
    Duty(usize, i64),
    FailFan(usize, bool),
    FailSupply(usize, bool),
    Power(usize, bool),
    Hot(usize, f64),
    Inlet(f64),
    Silent(bool),
    Pull(usize, bool),
    Load(usize, f64),
    Leak(usize, f64),
    Panic(usize, bool),
}

fn anything() -> impl Strategy<Value = Do> {
    prop_oneof![
        4 => (0.1..200.0).prop_map(Do::Wait),
        2 => (0..5_usize, 0..=100_i64).prop_map(|(i, d)| Do::Duty(i, d)),
        2 => (0..5_usize, any::<bool>()).prop_map(|(i, b)| Do::FailFan(i, b)),
        2 => (0..3_usize, any::<bool>()).prop_map(|(i, b)| Do::FailSupply(i, b)),
        2 => (0..18_usize, any::<bool>()).prop_map(|(i, b)| Do::Power(i, b)),
        1 => (0..18_usize, 0.0..200.0).prop_map(|(i, w)| Do::Hot(i, w)),
        1 => (-20.0..60.0).prop_map(Do::Inlet),
        1 => any::<bool>().prop_map(Do::Silent),
        2 => (0..18_usize, any::<bool>()).prop_map(|(i, b)| Do::Pull(i, b)),
        1 => (0..18_usize, 0.0..100.0).prop_map(|(i, x)| Do::Load(i, x)),
        1 => (0..18_usize, 0.0..10.0).prop_map(|(i, x)| Do::Leak(i, x)),
        1 => (0..18_usize, any::<bool>()).prop_map(|(i, b)| Do::Panic(i, b)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens: energy from the mains = energy stored + energy carried away.
    #[test]
    fn the_books_balance(actions in prop::collection::vec(anything(), 1..40)) {
        let plan = Plan::mxp();
        let mut physics = Physics::settled(&plan);
        let mut effects = Effects::none(&plan);
        let stored_at_start = physics.energy().stored_joules;
        for action in actions {
            match action {
                Do::Wait(seconds) => physics.advance(seconds, &effects),
                Do::Duty(i, duty) => physics.fans[i].duty_percent = duty,
                Do::FailFan(i, failed) => effects.fans_failed[i] = failed,
                Do::FailSupply(i, failed) => effects.supplies_failed[i] = failed,
                Do::Power(i, on) => if let Some(board) = physics.boards[i].as_mut() { board.order_power(on) },
                Do::Hot(i, watts) => effects.boards[i].extra_watts = watts,
                Do::Inlet(celsius) => effects.inlet_celsius = Some(celsius),
                Do::Pull(i, pulled) => effects.boards[i].pulled = pulled,
                Do::Load(i, percent) => effects.boards[i].load_percent = Some(percent),
                Do::Leak(i, percent) => effects.boards[i].leak_percent_per_second = percent,
                Do::Panic(i, panicked) => effects.boards[i].panicked = panicked,
                Do::Silent(silent) => effects.shelf_manager_silent = silent,
            }
            let Energy { in_joules, carried_joules, stored_joules } = physics.energy();
            let error = in_joules - carried_joules - (stored_joules - stored_at_start);
            prop_assert!(error.abs() < 1e-6 * (in_joules + 1000.0), "{error} J missing of {in_joules}");
            let (low, high) = (-30.0, 200.0);
            prop_assert!((low..high).contains(&physics.outlet_celsius), "outlet {}", physics.outlet_celsius);
            for board in physics.boards.iter().flatten() {
                prop_assert!((low..high).contains(&board.celsius), "board {}", board.celsius);
            }
        }
    }
}
