//! Topologies with a weak point planted in each: it is found, and named with its reason.

use super::*;

const HEAD: &str = "domain: lab\nprofile: fabric\n";

/// Nodes by chassis and by their addresses on each link.
fn domain(nodes: &[(&str, &[&str])], services: &str) -> DomainConfig {
    let mut yaml = HEAD.to_owned() + "nodes:\n";
    for (id, (chassis, links)) in (1..).zip(nodes) {
        let links: Vec<String> = links.iter().map(|address| format!("\"{address}:7400\"")).collect();
        yaml += &format!("  - {{ id: {id}, chassis: {chassis}, links: [{}] }}\n", links.join(", "));
    }
    let mut chassis: Vec<&str> = nodes.iter().map(|(chassis, _)| *chassis).collect();
    chassis.sort_unstable();
    chassis.dedup();
    yaml += "chassis:\n";
    chassis.iter().for_each(|name| yaml += &format!("  - {{ name: {name} }}\n"));
    yaml += &format!("services:\n{services}");
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("domain.yaml");
    std::fs::write(&file, &yaml).expect("it is written");
    crate::config::load_domain(&file).unwrap_or_else(|e| panic!("{e:#}\n{yaml}"))
}

/// The weak points by name, with the reasons.
fn weak(config: &DomainConfig) -> BTreeMap<String, String> {
    let options = Options { domain: None, double: false, check: false, json: false, seed: 3, jobs: None };
    let cases = play(&options, config);
    for case in &cases {
        assert_eq!(case.effect.failure, None, "{}", case.name());
    }
    let stops = cases.iter().filter(|c| c.stops().next().is_some());
    stops.map(|c| (c.name(), c.why.values().cloned().collect::<Vec<_>>().join("; "))).collect()
}

const CALLS: &str = "  - { name: calls, command: [server] }\n";

#[test]
fn three_chassis_on_two_fabrics_have_no_weak_point() {
    let config = domain(&[("a", &["10.0.1.1", "10.0.2.1"]), ("b", &["10.0.1.2", "10.0.2.2"]), ("c", &["10.0.1.3", "10.0.2.3"])], CALLS);
    assert_eq!(weak(&config), BTreeMap::new());
}

#[test]
fn two_voters_in_one_chassis_are_one_too_many() {
    let config = domain(&[("a", &["10.0.1.1", "10.0.2.1"]), ("a", &["10.0.1.2", "10.0.2.2"]), ("c", &["10.0.1.3", "10.0.2.3"])], CALLS);
    let weak = weak(&config);
    assert_eq!(weak.keys().collect::<Vec<_>>(), ["chassis a"]);
    assert!(weak["chassis a"].contains("1 of 3"), "{weak:?}");
}

#[test]
fn both_links_on_one_fabric_are_one_link() {
    let config = domain(&[("a", &["10.0.1.1", "10.0.1.11"]), ("b", &["10.0.1.2", "10.0.1.12"]), ("c", &["10.0.1.3", "10.0.1.13"])], CALLS);
    let weak = weak(&config);
    assert_eq!(weak.keys().collect::<Vec<_>>(), ["fabric 10.0.1.0/24"]);
}

#[test]
fn a_service_with_one_candidate_hangs_on_its_node_and_all_that_carries_it() {
    let services = CALLS.to_owned() + "  - { name: billing, command: [server], nodes: [3], copies: 1 }\n";
    let config = domain(&[("a", &["10.0.1.1", "10.0.2.1"]), ("b", &["10.0.1.2", "10.0.2.2"]), ("c", &["10.0.1.3", "10.0.2.3"])], &services);
    let weak = weak(&config);
    assert_eq!(weak.keys().collect::<Vec<_>>(), ["chassis c", "node n3"]);
    assert!(weak["node n3"].contains("n3 only") && weak["node n3"].contains("an operator has to start it"), "{weak:?}");
}
