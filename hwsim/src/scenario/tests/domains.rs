//! Scenarios about a whole domain: what they can say, and what is wrong with those that are wrong.

use sixnines_core::diagnostic::Place;

use super::*;

const HEAD: &str = "domain: { mxp1: [n1, n2], mxp2: [n3] }\nservices: [calls, { name: billing, nodes: [n3, n2] }]\nlasts: 1m\n";

/// The first message about a scenario, with its code, line and the word that it underlines.
fn wrong(text: &str) -> (String, String) {
    let list = read(text).err().unwrap_or_else(|| panic!("{text} is wrong"));
    let first = list.into_iter().next().expect("something is said");
    let word = |place: &Place| -> String { first.excerpt.iter().flat_map(|line| line.chars()).skip(place.column as usize - 1).take(place.length as usize).collect() };
    let line = first.place.as_ref().map_or(0, |place| place.line);
    (format!("{} {line} {}", first.code, first.place.as_ref().map(word).unwrap_or_default()), first.to_string())
}

fn with_step(step: &str) -> String {
    format!("{HEAD}timeline:\n  - {{ {step} }}\n")
}

#[test]
fn nodes_have_their_places_and_the_first_of_each_chassis_vote() {
    let nodes = |text: &str| {
        let scenario = good(&format!("{text}\ntimeline:\n  - {{ at: 1s, expect: no alarms }}\n"));
        let config = scenario.setting.domain.expect("a domain").config;
        (config.nodes.len(), config.voters().map(|node| node.0).collect::<Vec<_>>(), config.nodes[0].links.len())
    };
    assert_eq!(nodes("domain: { mxp1: [n1, n2], mxp2: [n3] }"), (3, vec![1, 2, 3], 2));
    assert_eq!(nodes("domain: { mxp1: [n1, n2, n3], mxp2: [n4, n5, n6] }\nlinks: 1"), (6, vec![1, 2, 3, 4, 5], 1));
    assert_eq!(nodes("domain: { a: [n1, n2, n3], b: [n4, n5, n6], c: [n7, n8, n9] }"), (9, vec![1, 2, 4, 5, 7], 2));
    assert_eq!(nodes("domain: { a: [n1, n2], b: [n3] }\nvoters: [n1]"), (3, vec![1], 2));
}

#[test]
fn what_a_domain_can_be_asked_is_read() {
    for step in [
        "at: 1s, inject: node-killed node=active:calls, for: 2s",
        "at: 1s, inject: fan-failed chassis=mxp2 fan=1",
        "at: 1s, inject: sensor-stuck object=/mxp2/fan1 attribute=speed",
        "at: 1s, clear: node-killed node=n1",
        "at: 1s, clear: fan-failed chassis=mxp2",
        "at: 1s, switchover: calls to=n3",
        "at: 1s, inject: switchover service=calls to=n3",
        "at: 1s, start: billing",
        "at: 1s, readmit: n2",
        "at: 1s, reading: /nodes/n3/cpu0 usage=3",
        "at: 1s, expect: role of chassis:mxp2 on n3 is active",
        "at: 1s, never: two actives",
        "at: 1s, never: two actives of calls",
        "at: 1s, never: outage of calls > 60ms",
        "at: 1s, expect: all /mxp*/fan1 duty == 40",
    ] {
        good(&format!("{}  - {{ at: 1s, expect: no alarms }}\n", with_step(step)));
    }
}

#[test]
fn a_mistake_about_a_domain_is_shown_under_its_word() {
    let cases = [
        ("at: 1s, inject: node-killd node=n1", "unknown-fault 5 node-killd", "did you mean \"node-killed\"?"),
        ("at: 1s, inject: node-killed node=n9", "fault 5 node=n9", "there are n1, n2, n3"),
        ("at: 1s, inject: one-link-cut node=n1 link=C", "fault 5 link=C", "there are A, B"),
        ("at: 1s, inject: process-killed service=cals", "fault 5 service=cals", "there are calls, billing"),
        ("at: 1s, inject: process-killed service=calls, for: 2s", "step 5 p", "over at once"),
        ("at: 1s, inject: fan-failed fan=1", "fault 5 fan-failed", "chassis=mxp1 or chassis=mxp2"),
        ("at: 1s, inject: fan-failed chassis=mxp3 fan=1", "fault 5 chassis=mxp3", "chassis=mxp1 or chassis=mxp2"),
        ("at: 1s, switchover: cals", "unknown-service 5 cals", "did you mean calls?"),
        ("at: 1s, switchover: calls n3", "step 5 calls n3", "switchover: calls"),
        ("at: 1s, readmit: n7", "unknown-node 5 n7", "there are n1, n2, n3"),
        ("at: 1s, expect: role of calls on n7 is active", "unknown-node 5 n7", "there are n1, n2, n3"),
        ("at: 1s, expect: outage of calls > 60", "condition 5 60", "60ms"),
        ("at: 1s, expect: outage of calls == 60ms", "condition 5 ==", "60ms"),
        ("at: 1s, expect: two actives of cals", "unknown-service 5 cals", "did you mean calls?"),
        ("at: 1s, takeover: true, expect: no alarms", "step 5 takeover", "node-killed node=active:chassis:mxp1"),
        ("at: 1s, reading: /nodes/n9/cpu0 usage=3", "step 5 /nodes/n9/cpu0 usage=3", "n1"),
    ];
    for (step, expected, help) in cases {
        let (found, text) = wrong(&with_step(step));
        assert!(found.starts_with(expected), "{step}\n{found}\n{text}");
        assert!(text.contains(help), "{step}\n{text}");
    }
}

#[test]
fn a_domain_that_cannot_be_is_refused() {
    let steps = "timeline:\n  - { at: 1s, expect: no alarms }\n";
    let cases = [
        ("domain: 3", "which nodes sit in which chassis"),
        ("domain: {}", "1 to 32 nodes"),
        ("domain: { mxp1: [n1, node2] }", "is no node"),
        ("domain: { mxp1: [n1, n33] }", "n1 to n32"),
        ("domain: { mxp1: [n1], mxp2: [n1] }", "is there twice"),
        ("domain: { mxp1: [n1, n2] }", "add a witness"),
        ("domain: { mxp1: { slot1: n1, slot99: n2 }, mxp2: [n3] }", "there is no board in slot"),
        ("domain: { mxp1: { place2: n1 } }", "is no slot"),
        ("domain: { mxp1: [n1] }\nservices: [calls, calls]", "is there twice"),
        ("domain: { mxp1: [n1] }\nservices: [{ name: calls, nods: [n1] }]", "did you mean \"nodes\"?"),
        ("domain: { mxp1: [n1] }\nservices: [{ name: calls, nodes: [n2] }]", "no node n2"),
        ("domain: { mxp1: [n1] }\nprofile: fast", "fabric, lan, wan"),
        ("domain: { mxp1: [n1] }\nlinks: 9", "1 to 4"),
        ("domain: { mxp1: [n1] }\nvoters: [n2]", "no node n2"),
        ("domain: { mxp1: [n1] }\nchassis: { mxp2: atca }", "no node sits in chassis mxp2"),
        ("domain: { mxp1: [n1] }\nageing: 100", "of one chassis"),
        ("domain: nowhere.yaml", "there is no file"),
        ("voters: [n1]", "this scenario is about one chassis"),
        ("cold: true", "this scenario is about one chassis"),
        ("services: [{ name: calls }]", "about one chassis is a name"),
    ];
    for (head, expected) in cases {
        let text = format!("{head}\n{steps}");
        let list = read(&text).expect_err(&text);
        assert!(list.iter().any(|d| d.to_string().contains(expected)), "{text}\n{list:?}");
    }
}

#[test]
fn a_domains_word_in_a_scenario_about_a_chassis_says_how_to_describe_a_domain() {
    for step in ["inject: node-killed node=n1", "clear: links-cut node=n1"] {
        let (found, text) = wrong(&format!("timeline:\n  - {{ at: 1s, {step}, expect: no alarms }}\n"));
        assert!(found.starts_with("no-domain 2 ") && text.contains("domain: { mxp1: [n1, n2], mxp2: [n3] }"), "{found}\n{text}");
    }
}

#[test]
fn a_domains_own_file_can_be_taken() {
    let file = "domain: lab\nnodes:\n  - { id: 1, chassis: mxp7, links: [\"10.0.1.1:7400\"] }\nchassis: [{ name: mxp7 }]\nservices: [{ name: calls, command: [x] }]\n";
    let open = |name: &str| if name == "lab.yaml" { Ok(file.to_owned()) } else { Err(format!("there is no file {name}")) };
    let text = "domain: lab.yaml\ntimeline:\n  - { at: 1s, expect: role of calls on n1 is active }\n";
    let scenario = Scenario::read(Source { name: "x.yaml", text }, &bundle(), &open).unwrap_or_else(|wrong| panic!("{wrong:?}"));
    assert_eq!(scenario.setting.shelves().map(|plan| plan.chassis.to_string()).collect::<Vec<_>>(), ["mxp7"]);
    let beside = text.replace("timeline", "services: [calls]\ntimeline");
    let wrong = Scenario::read(Source { name: "x.yaml", text: &beside }, &bundle(), &open).expect_err("said twice");
    assert!(wrong[0].to_string().contains("stands in lab.yaml"), "{wrong:?}");
}
