//! Whole domains of real processes on loopback: several services, chassis that change hands, restarts, policies, journals.

#[path = "support/client.rs"]
mod client;
#[expect(dead_code, reason = "what other tests use")]
#[path = "support/domain.rs"]
mod domain;

use client::Client;
use domain::{Domain, nines, said, text_of};

#[test]
fn two_services_go_on_with_all_their_calls_when_a_node_dies_and_comes_back() {
    let mut domain = Domain::start(&["calls", "billing"]);
    let mut clients = ["calls", "billing"].map(|service| (service, Client::new(&domain, service)));
    for (_, client) in &mut clients {
        for call in 1..=20 {
            assert_eq!(client.ask("setup", call).result, "ok");
        }
    }
    let victim = domain.wait("calls has an active", |d| d.active(1, "calls"));
    let witness = if victim == 1 { 2 } else { 1 };
    domain.kill_node(victim);
    for (service, client) in &mut clients {
        for call in 1..=20 {
            let answer = client.ask("query", call);
            assert_eq!((answer.result.as_str(), answer.applied), ("ok", 1), "{service}, call {call}");
        }
        assert_ne!(domain.wait("an active", |d| d.active(witness, service)), victim, "{service}");
    }
    domain.start_node(victim);
    domain.wait_redundant();
    for (service, client) in &mut clients {
        assert_eq!(client.ask("update", 3).applied, 2, "{service}");
    }
}

#[test]
fn a_domain_of_one_link_and_one_of_four_take_over_like_any_other() {
    for links in [1, 4] {
        let mut domain = Domain::start_edited(&["calls"], &[], |domain, yaml| {
            let x = domain.network;
            let list = |node: usize| (1..=links).map(|link| format!("\"127.{x}.{link}.{node}:7600\"")).collect::<Vec<_>>().join(", ");
            let two = |node: usize| format!("\"127.{x}.1.{node}:7600\", \"127.{x}.2.{node}:7600\"");
            (1..=3).fold(yaml, |yaml, node| yaml.replace(&two(node), &list(node)))
        });
        let status = domain.json(1, &["status"]).expect("it answers");
        assert_eq!(status["status"]["nodes"][2]["links"].as_array().map(Vec::len), Some(links), "{status}");
        let mut client = Client::new(&domain, "calls");
        assert_eq!(client.ask("setup", 1).result, "ok");
        let victim = domain.wait("calls has an active", |d| d.active(1, "calls"));
        domain.kill_node(victim);
        assert_eq!(client.ask("update", 1).applied, 2, "{links} links");
        domain.start_node(victim);
        domain.wait_redundant();
    }
}

#[test]
fn a_scenario_is_played_on_a_running_domain_and_leaves_nothing_behind() {
    let domain = Domain::start(&["calls"]);
    let active = domain.wait("calls has an active", |d| d.active(1, "calls"));
    let scenario = domain.path("live.yaml");
    let text = format!(
        "services: [calls]\nlasts: 12s\ntimeline:
  - {{ at: 1s, inject: fan-failed fan=1 }}
  - {{ at: 1s, expect: alarm fan-failed on /mxp1/fan1 and /mxp1/fan2 duty == 100, within: 8s }}
  - {{ at: 1s, expect: event /mxp1/fan1 alarm fan-failed raised, within: 8s }}
  - {{ at: end, expect: role of calls on n{active} is active }}\n"
    );
    std::fs::write(&scenario, text).expect("it is written");
    let output = domain.ask(1, &["sim", "run", text_of(&scenario), "--live"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    domain.wait("the fan turns again", |d| d.json(1, &["alarms"]).is_some_and(|a| !a.to_string().contains("fan-failed")));

    std::fs::write(&scenario, "timeline:\n  - { at: 1s, reading: /nodes/n1/cpu0 usage=3, expect: no alarms }\n").expect("it is written");
    let output = domain.ask(1, &["sim", "run", text_of(&scenario), "--live"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}

#[test]
fn a_chassis_changes_hands_with_its_claims_and_alarms() {
    let domain = Domain::start(&[]);
    let owner = domain.wait("mxp1 has an owner", |d| d.active(1, "chassis:mxp1"));
    let alarm_of = |d: &Domain, node: usize| {
        let alarms = d.json(node, &["alarms"])?;
        alarms["alarms"].as_array()?.iter().find(|a| a["object"] == "/mxp1/fan1" && a["kind"] == "fan-failed").map(|a| a["id"].clone())
    };
    let is_held = |d: &Domain, node: usize| {
        let fan = d.json(node, &["get", "/mxp1/fan4"]);
        fan.is_some_and(|f| f.pointer("/objects/0/attributes/duty/claimed_by").and_then(|c| c.as_str()).is_some_and(|c| c.contains("a sibling failed")))
    };
    assert!(domain.ask(owner, &["inject", "mxp1", "fan-failed", "fan1"]).status.success());
    let alarm = domain.wait("the alarm of the fan", |d| alarm_of(d, owner));
    domain.wait("the other fans are claimed", |d| is_held(d, owner));

    let moved = domain.ask(owner, &["service", "switchover", "chassis:mxp1"]);
    assert!(moved.status.success(), "{}", said(&moved));
    let next = 3 - owner;
    assert_eq!(domain.wait("another owner", |d| d.active(next, "chassis:mxp1").filter(|n| *n != owner)), next);
    domain.wait("it holds the claims", |d| is_held(d, next));
    assert_eq!(alarm_of(&domain, next), Some(alarm), "the same alarm, with the same id");

    // The new owner drives: it sees the fan turn again, gives the claims up and clears the alarm.
    assert!(domain.ask(next, &["inject", "mxp1", "--clear"]).status.success());
    domain.wait("the claims are given up", |d| !is_held(d, next));
    domain.wait("the alarm is cleared", |d| alarm_of(d, next).is_none());
}

#[test]
fn a_control_is_held_from_any_node_and_given_up_again() {
    let domain = Domain::start(&[]);
    let duty = |d: &Domain, node: usize| {
        let fan = d.json(node, &["get", "/mxp1/fan2"])?;
        Some((fan.pointer("/objects/0/attributes/duty/value")?.clone(), fan.pointer("/objects/0/attributes/duty/claimed_by").cloned()))
    };
    // n3 sits in the other chassis: whoever owns mxp1 does it.
    let held = domain.ask(3, &["set", "/mxp1/fan2", "duty=77", "-m", "to hear it"]);
    assert!(held.status.success() && said(&held).contains("Back: nines set"), "{}", said(&held));
    domain.wait("the fan runs at 77 %", |d| duty(d, 3).is_some_and(|(value, _)| value.to_string().contains("77")));
    let owner = domain.wait("mxp1 has an owner", |d| d.active(3, "chassis:mxp1"));
    assert!(duty(&domain, owner).is_some_and(|(_, by)| by.is_some_and(|by| by.to_string().contains("to hear it"))), "{:?}", duty(&domain, owner));
    let refused = domain.ask(3, &["set", "/mxp1/fan2", "duty=777"]);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(domain.ask(3, &["set", "/mxp1/fan2", "duty="]).status.success());
    domain.wait("nobody holds it", |d| duty(d, owner).is_some_and(|(_, by)| by.is_none()));
}

#[test]
fn when_all_nodes_die_at_once_an_operator_decides_and_every_journal_can_be_proven() {
    let mut domain = Domain::start(&["calls"]);
    let mut client = Client::new(&domain, "calls");
    let before = client.ask("setup", 1);
    assert_eq!(before.result, "ok");
    for node in 1..=3 {
        domain.kill_node(node);
    }
    // A page that did not reach the disk: half a record at the end.
    let journal = domain.path("lab/n1/state/journal");
    let segment = std::fs::read_dir(&journal).expect("a journal").next().expect("a segment").expect("readable").path();
    let bytes = std::fs::read(&segment).expect("readable");
    std::fs::write(&segment, &bytes[..bytes.len() - 3]).expect("it is cut");

    for node in 1..=3 {
        domain.start_node(node);
    }
    domain.wait("the chassis are owned again", |d| d.active(1, "chassis:mxp1").is_some() && d.active(1, "chassis:mxp2").is_some());
    domain.wait("every node is back and nobody serves", |d| {
        (1..=3).all(|n| d.group(n, "calls").is_some_and(|row| row["is_serving"] == false))
    });
    let started = domain.wait("the operator's word is taken", |d| {
        let output = d.ask(2, &["service", "start", "calls"]);
        output.status.success().then(|| said(&output))
    });
    assert!(started.contains("calls is active"), "{started}");
    domain.wait_redundant();
    let after = client.ask("query", 1);
    assert_eq!(after.result, "unknown", "every copy was gone, and that is told, never guessed");
    assert!(after.epoch > before.epoch);

    let mut shown = String::new();
    for node in 1..=3 {
        domain.stop_node(node);
        let journal = domain.path(&format!("lab/n{node}/state/journal"));
        let checked = nines(&["journal", "check", text_of(&journal)]);
        assert!(checked.status.success(), "{}", said(&checked));
        assert!(said(&checked).matches("proven").count() >= 2, "two lives: {}", said(&checked));
        shown += &said(&nines(&["journal", "show", text_of(&journal), "/services/calls", "--last", "500"]));
    }
    assert!(shown.contains("/services/calls active"), "whoever was active wrote it down: {shown}");
}

#[test]
fn a_bad_policy_is_refused_and_a_good_one_is_law_on_every_node() {
    let domain = Domain::start(&[]);
    let policies = domain.path("lab/n1/policies");
    let fan = policies.join("fan.rhai");
    let good = std::fs::read_to_string(&fan).expect("it ships");
    let generations = |d: &Domain| (1..=3).map(|n| d.json(n, &["policy", "list"])?.pointer("/policies/generation")?.as_u64()).collect::<Option<Vec<_>>>();
    let before = domain.wait("every node has policies", generations);

    std::fs::write(&fan, good.replace("\"running\"", "\"runing\"")).expect("it is written");
    let refused = domain.ask(2, &["policy", "apply", text_of(&policies)]);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains("fan.rhai:") && said(&refused).contains("running"), "{}", said(&refused));
    assert_eq!(generations(&domain).as_ref(), Some(&before));

    std::fs::write(&fan, good + "\n// quieter at night\n").expect("it is written");
    let applied = domain.ask(2, &["policy", "apply", text_of(&policies), "-m", "a remark"]);
    assert!(applied.status.success(), "{}", said(&applied));
    let after: Vec<u64> = before.iter().map(|g| g + 1).collect();
    domain.wait("every node runs the new ones", |d| generations(d).as_ref() == Some(&after));
}

#[test]
fn four_failed_fans_move_the_service_to_the_other_chassis_and_every_node_knows_why() {
    let domain = Domain::start(&["calls"]);
    if domain.wait("calls is active", |d| d.active(1, "calls")) == 3 {
        assert!(domain.ask(1, &["service", "switchover", "calls"]).status.success(), "its standby is in mxp1");
    }
    for fan in 1..=4 {
        assert!(domain.ask(1, &["inject", "mxp1", "fan-failed", &format!("fan{fan}")]).status.success());
    }
    domain.wait("calls leaves the shelf", |d| d.active(3, "calls").filter(|n| *n == 3));
    for node in 1..=3 {
        let why = domain.wait("the chain has arrived", |d| Some(said(&d.ask(node, &["why", "calls"]))).filter(|w| w.contains("n3") && w.contains("missing       nothing")));
        assert!(why.contains("/mxp1/fan") && why.contains(".rhai:"), "from the sensor through the policy's line, on n{node}: {why}");
    }
}

#[test]
fn a_node_with_another_disk_is_kept_out_until_an_operator_lets_it_in() {
    let mut domain = Domain::start(&["calls"]);
    let refused = domain.ask(1, &["node", "replace", "n2"]);
    assert_eq!(refused.status.code(), Some(4), "nothing is wrong with it: {}", said(&refused));
    assert_eq!(domain.ask(1, &["node", "replace", "n9"]).status.code(), Some(2));

    domain.wait("the log knows every disk", |d| d.voters(1) == [1, 2, 3]);
    domain.kill_node(2);
    std::fs::remove_dir_all(domain.path("lab/n2/state")).expect("its disk is gone");
    domain.start_node(2);
    for other in [1, 3] {
        domain.wait("the others see it", |d| said(&d.ask(other, &["status"])).contains("nines node replace n2"));
    }
    domain.wait("it is an alarm", |d| said(&d.ask(1, &["alarms"])).contains("another disk"));
    // Whichever node is asked, the leader or not.
    let replaced = domain.ask(3, &["node", "replace", "n2"]);
    assert!(replaced.status.success(), "{}", said(&replaced));
    domain.wait_redundant();
    domain.wait("it votes again", |d| d.voters(2) == [1, 2, 3] && d.voters(1) == [1, 2, 3]);
    domain.wait("nobody speaks of it any more", |d| !said(&d.ask(1, &["alarms"])).contains("another disk"));
    let mut client = Client::new(&domain, "calls");
    assert_eq!(client.ask("setup", 1).result, "ok");
    domain.kill_node(3);
    domain.wait("two voters of three, and the new disk is one of them", |d| d.active(1, "calls").filter(|n| *n != 3));
    assert_eq!(client.ask("query", 1).result, "ok");
}

#[test]
fn a_node_that_comes_back_learns_how_things_are_from_those_who_own_them() {
    let mut domain = Domain::start(&[]);
    let owner = domain.wait("mxp1 has an owner", |d| d.active(3, "chassis:mxp1"));
    domain.kill_node(3);
    assert!(domain.ask(owner, &["inject", "mxp1", "fan-failed", "fan2"]).status.success());
    domain.wait("the alarm of the fan", |d| said(&d.ask(owner, &["alarms"])).contains("/mxp1/fan2"));
    domain.start_node(3);
    domain.wait("the late node knows the alarm", |d| said(&d.ask(3, &["alarms"])).contains("/mxp1/fan2"));
    domain.wait("the late node knows the values", |d| said(&d.ask(3, &["get", "/mxp1/fan5"])).contains("running"));
}
