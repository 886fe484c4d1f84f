//! Real meshes on loopback addresses of their own.

mod lab;

use std::net::UdpSocket;

use super::*;
use crate::pki::Authority;
use crate::wire::Refusal;
use lab::{Lab, Node};

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);

#[test]
fn frames_of_every_class_arrive_once_and_in_order_both_ways() {
    let lab = Lab::new();
    let (a, b) = lab.pair(2);
    for number in 0..200 {
        for class in Class::ALL {
            a.send(&b, class, number);
            b.send(&a, class, number);
        }
    }
    for class in Class::ALL {
        b.wait_for_numbers(&a, class, 200);
        a.wait_for_numbers(&b, class, 200);
    }
    assert!(a.seen.is_clean() && b.seen.is_clean());
}

#[test]
fn a_long_payload_arrives_whole_and_a_longer_one_is_refused() {
    let lab = Lab::new();
    let (a, b) = lab.pair(1);
    let long: Vec<u8> = (0..=u8::MAX).cycle().take(crate::wire::PAYLOAD_BYTES_MAX).collect();
    a.handle().send(N2, Class::Bulk, Kind::CHECKPOINT, long.clone()).unwrap();
    let got = b.seen.wait("the long payload", |seen| seen.frames.pop());
    assert_eq!((got.1, got.2, &got.3[..]), (Class::Bulk, Kind::CHECKPOINT, &long[..]));
    let longer = [&long[..], b"x"].concat();
    assert_eq!(a.handle().send(N2, Class::Bulk, Kind::CHECKPOINT, longer), Err(SendError::NotSendable));
    assert_eq!(a.handle().send(NodeId(9), Class::Bulk, Kind::EVENT, vec![]), Err(SendError::UnknownPeer(NodeId(9))));
}

#[test]
fn frames_sent_before_the_first_contact_are_kept() {
    let lab = Lab::new();
    let (a, b) = (lab.node(1, 1), lab.node(2, 1));
    b.knows(&[&a]);
    b.seen.wait("b knows a", |_| (b.handle().send(N1, Class::State, Kind::EVENT, 0u64.to_le_bytes().to_vec()) == Ok(())).then_some(()));
    b.send(&a, Class::State, 1);
    a.knows(&[&b]);
    a.wait_for_numbers(&b, Class::State, 2);
}

#[test]
fn the_death_of_a_link_costs_no_frame_and_brings_none_twice() {
    let lab = Lab::new();
    let (a, b, relays) = lab.relayed(2);
    for number in 0..300 {
        match number {
            100 => relays[0].cut(true),
            200 => relays[0].cut(false),
            _ => {}
        }
        for class in [Class::Control, Class::Alarm, Class::State, Class::Bulk] {
            a.send(&b, class, number);
            b.send(&a, class, number);
        }
        // Each round is there before the next begins, so that frames really travel while the link is dead.
        for class in [Class::Control, Class::State] {
            b.wait_for_numbers(&a, class, number + 1);
        }
    }
    for class in [Class::Control, Class::Alarm, Class::State, Class::Bulk] {
        b.wait_for_numbers(&a, class, 300);
        a.wait_for_numbers(&b, class, 300);
    }
}

#[test]
fn a_hint_moves_traffic_off_a_link_that_is_dead_and_a_dead_link_comes_back() {
    let lab = Lab::new();
    let (a, b, relays) = lab.relayed(2);
    a.send(&b, Class::State, 0);
    b.wait_for_numbers(&a, Class::State, 1);
    relays[0].cut(true);
    a.handle().link_down(N2, LinkId(0));
    b.handle().link_down(N1, LinkId(0));
    a.send(&b, Class::State, 1);
    b.wait_for_numbers(&a, Class::State, 2);
    a.wait_for_links(&b, 1);
    b.wait_for_links(&a, 1);
    relays[0].cut(false);
    a.wait_for_links(&b, 2);
    b.wait_for_links(&a, 2);
    a.send(&b, Class::State, 2);
    b.wait_for_numbers(&a, Class::State, 3);
}

#[test]
fn with_no_link_at_all_frames_wait_and_at_the_bound_send_says_so() {
    let lab = Lab::new();
    let (a, b, relays) = lab.relayed(1);
    relays[0].cut(true);
    a.wait_for_links(&b, 0);
    let mut sent = 0u64;
    let payload = |number: u64| {
        let mut payload = vec![0; 1 << 20];
        payload[..8].copy_from_slice(&number.to_le_bytes());
        payload
    };
    let full = loop {
        match a.handle().send(N2, Class::State, Kind::EVENT, payload(sent)) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 1000, "there is no bound");
    };
    assert_eq!(full, SendError::Full);
    a.send(&b, Class::Control, 0);
    relays[0].cut(false);
    b.wait_for_numbers(&a, Class::State, sent);
    b.wait_for_numbers(&a, Class::Control, 1);
}

#[test]
fn a_peer_that_restarts_has_a_new_life_and_its_peers_go_on_with_it() {
    for restarted in [1, 2] {
        let lab = Lab::new();
        let (a, b) = lab.pair(2);
        let (mut dead, other) = if restarted == 1 { (a, b) } else { (b, a) };
        other.send(&dead, Class::State, 0);
        dead.wait_for_numbers(&other, Class::State, 1);
        drop(dead.mesh.take()); // Not a word to anybody, as when the process is killed.

        let mut config = lab.config(restarted, 0);
        config.links.clone_from(&dead.addresses);
        config.peers = vec![other.as_peer()];
        let next = Node::start(config);
        let lives = other.seen.wait("a second life", |seen| Some(seen.lives(dead.node)).filter(|l| l.len() == 2));
        assert!(lives[1] > lives[0]);
        next.wait_for_links(&other, 2);
        other.wait_for_links(&next, 2);
        other.send(&next, Class::State, 0);
        next.wait_for_numbers(&other, Class::State, 1);
        next.send(&other, Class::Alarm, 0);
        other.wait_for_numbers(&next, Class::Alarm, 1);
    }
}

#[test]
fn a_restarted_node_whose_clock_went_back_goes_on_above_its_old_life() {
    for restarted in [1, 2] {
        let lab = Lab::new();
        let (a, b) = lab.pair(1);
        let (mut dead, other) = if restarted == 1 { (a, b) } else { (b, a) };
        drop(dead.mesh.take());
        let mut config = lab.config(restarted, 0);
        config.links.clone_from(&dead.addresses);
        config.peers = vec![other.as_peer()];
        config.life = 5;
        let next = Node::start(config);
        let lives = other.seen.wait("a second life", |seen| Some(seen.lives(dead.node)).filter(|l| l.len() == 2));
        assert_eq!(lives[1], lives[0] + 1);
        other.wait_for_links(&next, 1);
        other.send(&next, Class::State, 0);
        next.wait_for_numbers(&other, Class::State, 1);
    }
}

#[test]
fn an_orderly_stop_is_noticed_at_once() {
    let lab = Lab::new();
    let (mut a, b) = lab.pair(2);
    a.mesh.take().unwrap().stop();
    b.wait_for_links(&a, 0);
}

#[test]
fn both_ends_get_the_same_key_for_each_link_and_another_one_for_the_next_connection() {
    let lab = Lab::new();
    let (a, mut b) = lab.pair(2);
    let key = |of: &Node, peer, link, at: usize| {
        of.seen.wait("a key", |seen| seen.keys.get(&(peer, LinkId(link))).and_then(|k| k.get(at)).copied())
    };
    let first = [0, 1].map(|link| key(&a, N2, link, 0));
    assert_eq!(first, [0, 1].map(|link| key(&b, N1, link, 0)));
    assert_ne!(first[0], first[1]);
    b.mesh.take().unwrap().stop();
    let mut config = lab.config(2, 0);
    config.links.clone_from(&b.addresses);
    config.peers = vec![a.as_peer()];
    let b = Node::start(config);
    let second = key(&a, N2, 0, 1);
    assert_ne!(second, first[0]);
    assert_eq!(second, key(&b, N1, 0, 0));
}

#[test]
fn a_dialler_refuses_a_node_of_another_domain() {
    let (lab, foreign) = (Lab::new(), Lab::new());
    let (ours, theirs) = (lab.node(1, 1), foreign.node(2, 1));
    ours.knows(&[&theirs]);
    theirs.knows(&[&ours]);
    let fault = ours.wait_for_fault("theirs is foreign to us", |f| matches!(f, Fault::Untrusted { .. }));
    assert!(fault.to_string().contains("invalid peer certificate: BadSignature"), "{fault}");
    assert!(ours.handle().totals().untrusted > 0);
    assert_eq!((ours.handle().peer_state(N2), theirs.handle().peer_state(N1)), (None, None));
}

#[test]
fn a_dialler_of_another_domain_is_refused_even_if_it_trusts_us() {
    let (lab, foreign) = (Lab::new(), Lab::new());
    let ours = lab.node(2, 1);
    let mut config = foreign.config(1, 1);
    config.identity = config.identity.trusting(&lab.config(3, 0).identity);
    let theirs = Node::start(config);
    ours.knows(&[&theirs]);
    theirs.knows(&[&ours]);
    let fault = ours.wait_for_fault("theirs is foreign to us", |f| matches!(f, Fault::Untrusted { .. }));
    assert!(fault.to_string().contains("invalid peer certificate: BadSignature"), "{fault}");
    theirs.wait_for_fault("they are told", |f| matches!(f, Fault::Distrusted { peer: N2, .. }));
    assert_eq!((ours.handle().peer_state(N1), theirs.handle().peer_state(N2)), (None, None));
}

#[test]
fn a_certificate_of_ours_that_names_no_member_is_refused() {
    let lab = Lab::new();
    let (a, b) = (lab.node(1, 1), lab.node(2, 1));
    let other = lab.node(3, 1);
    b.knows(&[&other]);
    a.knows(&[&b]);
    a.wait_for_fault("n2 does not know n1", |f| matches!(f, Fault::Distrusted { peer: N2, .. }));
    b.wait_for_fault("n1 is no member", |f| matches!(f, Fault::Untrusted { .. }));
    assert_eq!((a.handle().peer_state(N2), b.handle().peer_state(N1)), (None, None));
}

#[test]
fn a_node_that_answers_at_anothers_address_is_refused() {
    let lab = Lab::new();
    let (a, b) = (lab.node(1, 1), lab.node(2, 1));
    b.knows(&[&a]);
    a.handle().set_peers(vec![PeerConfig { node: NodeId(3), links: b.addresses.clone(), admission: 0, abroad: None }]);
    let fault = a.wait_for_fault("n2 is not n3", |f| matches!(f, Fault::Untrusted { .. }));
    assert!(fault.to_string().contains("n3.lab.sixnines"), "{fault}");
}

/// Waits until a node has a connection to the one that has this number there.
#[track_caller]
fn wait_for(node: &Node, here: u16) {
    node.seen.wait(&format!("a link to n{here}"), |seen| (seen.links_up(NodeId(here)) == 1).then_some(()));
}

#[test]
fn nodes_of_two_domains_meet_although_they_have_the_same_number_and_come_back() {
    let (north, south) = (Lab::of("north"), Lab::of("south"));
    let (mut a, mut b) = (north.config(1, 1), south.config(1, 1));
    let (at_a, at_b) = (a.links.clone(), b.links.clone());
    a.peers = vec![south.abroad("south", 1, 201, &at_b)];
    b.peers = vec![north.abroad("north", 1, 101, &at_a)];
    let (a, b) = (Node::start(a), Node::start(b));
    wait_for(&a, 201);
    wait_for(&b, 101);
    a.handle().send(NodeId(201), Class::Alarm, Kind::FEED, vec![7]).unwrap();
    b.seen.wait("its frame", |seen| (!seen.frames.is_empty()).then_some(()));
    drop(b);
    let mut b = south.config(1, 1);
    b.links = at_b;
    b.peers = vec![north.abroad("north", 1, 101, &at_a)];
    let b = Node::start(b);
    wait_for(&b, 101);
}

#[test]
fn an_authority_speaks_for_its_own_domain_alone() {
    let (north, south, liar) = (Lab::of("north"), Lab::of("south"), Lab::of("south"));
    // The one that we take for the authority of `west` makes out a certificate for a node of `south`.
    let (mut a, mut b) = (north.config(1, 1), liar.config(1, 1));
    let (at_a, at_b) = (a.links.clone(), b.links.clone());
    a.peers = vec![south.abroad("south", 1, 201, &at_b), liar.abroad("west", 1, 301, &at_b)];
    b.peers = vec![north.abroad("north", 1, 101, &at_a)];
    let (a, b) = (Node::start(a), Node::start(b));
    a.wait_for_fault("neither authority will do", |f| matches!(f, Fault::Untrusted { .. }));
    assert_eq!([201, 301].map(|n| a.handle().peer_state(NodeId(n))), [None, None]);
    assert_eq!(b.handle().peer_state(NodeId(101)), None);
}

#[test]
fn versions_without_overlap_are_refused_in_words() {
    let lab = Lab::new();
    let mut config = lab.config(1, 1);
    config.versions = Versions { oldest: 2, newest: 3 };
    let (a, b) = (Node::start(config), lab.node(2, 1));
    b.knows(&[&a]);
    a.knows(&[&b]);
    let versions = |by_us: bool| {
        move |f: &Fault| matches!(f, Fault::Refused { refusal: Refusal::Version { .. }, by_us: by, .. } if *by == by_us)
    };
    let fault = a.wait_for_fault("the refusal arrives", versions(false));
    assert_eq!(fault.to_string(), "n2 refuses us on link 0: no frame format in common: it reads 2 to 3, the other end 1 to 1");
    b.wait_for_fault("the refusal is reported", versions(true));
}

#[test]
fn versions_that_overlap_work_together() {
    let lab = Lab::new();
    let mut config = lab.config(1, 1);
    config.versions = Versions { oldest: 1, newest: 3 };
    let (a, b) = (Node::start(config), lab.node(2, 1));
    b.knows(&[&a]);
    a.knows(&[&b]);
    a.wait_for_links(&b, 1);
    b.wait_for_links(&a, 1);
    a.send(&b, Class::State, 0);
    b.wait_for_numbers(&a, Class::State, 1);
    assert_eq!((a.handle().versions(NodeId(2)), b.handle().versions(NodeId(1))), (Some(Versions::OURS), Some(Versions { oldest: 1, newest: 3 })));
    assert_eq!(a.handle().versions(NodeId(3)), None, "nobody has said so");
}

#[test]
fn two_that_read_a_format_to_come_speak_it_and_a_third_is_spoken_to_as_ever() {
    let lab = Lab::new();
    let next = |node| {
        let mut config = lab.config(node, 1);
        config.versions = Versions { oldest: 1, newest: 2 };
        Node::start(config)
    };
    let (a, b, c) = (next(1), next(2), lab.node(3, 1));
    for (node, others) in [(&a, [&b, &c]), (&b, [&a, &c]), (&c, [&a, &b])] {
        node.knows(&others);
    }
    for (from, to) in [(&a, &b), (&a, &c), (&c, &b)] {
        from.wait_for_links(to, 1);
        to.wait_for_links(from, 1);
        from.send(to, Class::State, 0);
        to.wait_for_numbers(from, Class::State, 1);
        to.send(from, Class::State, 0);
        from.wait_for_numbers(to, Class::State, 1);
    }
}

#[test]
fn garbage_is_counted_and_harms_nobody() {
    let lab = Lab::new();
    let (a, b) = lab.pair(1);
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut garbage = vec![0u8; 1200];
    for round in 0..200usize {
        for (at, byte) in garbage.iter_mut().enumerate() {
            *byte = u8::try_from((at * 31 + round * 17) % 251).unwrap();
        }
        stranger.send_to(&garbage[..round * 6], b.addresses[0]).unwrap();
    }
    for number in 0..50 {
        a.send(&b, Class::State, number);
    }
    b.wait_for_numbers(&a, Class::State, 50);
    b.seen.wait("garbage is counted", |_| (b.handle().totals().garbage > 50).then_some(()));
}

#[test]
fn who_leaves_the_member_list_is_cut_off_at_once_and_stays_out() {
    let lab = Lab::new();
    let (a, b) = lab.pair(2);
    for number in 0..5 {
        a.send(&b, Class::State, number);
        b.send(&a, Class::State, number);
    }
    b.wait_for_numbers(&a, Class::State, 5);
    a.wait_for_numbers(&b, Class::State, 5);
    b.handle().set_peers(vec![]);
    a.wait_for_links(&b, 0);
    a.wait_for_fault("it is not let in again", |f| matches!(f, Fault::Distrusted { .. }));
    assert_eq!(b.handle().send(N1, Class::State, Kind::EVENT, vec![]), Err(SendError::UnknownPeer(N1)));
    b.knows(&[&a]);
    a.wait_for_links(&b, 2);
    b.wait_for_links(&a, 2);
    assert_eq!(a.seen.wait("its lives", |seen| Some(seen.lives(N2))).len(), 2, "numbers begin anew");
    a.send(&b, Class::State, 5);
    b.send(&a, Class::State, 5);
    b.wait_for_numbers(&a, Class::State, 6);
    a.wait_for_numbers(&b, Class::State, 6);
    assert_eq!(a.handle().links(N2).iter().map(|l| (l.link, l.good)).collect::<Vec<_>>(), [(LinkId(0), true), (LinkId(1), true)]);
}

#[test]
fn a_receiver_that_panics_loses_that_frame_and_no_other() {
    let lab = Lab::new();
    let (a, b) = lab.pair(1);
    let bad = Bytes::from_static(b"badbadba");
    b.seen.wait("set up", |seen| {
        seen.panic_at = Some(bad.clone());
        Some(())
    });
    a.send(&b, Class::State, 0);
    a.handle().send(N2, Class::State, Kind::EVENT, bad.clone()).unwrap();
    a.send(&b, Class::State, 1);
    b.wait_for_numbers(&a, Class::State, 2);
    b.wait_for_fault("the panic is reported", |f| matches!(f, Fault::Panicked { task: "receiver", peer: N1 }));
}

#[test]
fn a_port_that_is_taken_is_an_error_with_the_address() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let identity = Authority::create("lab").unwrap().issue(N1).unwrap().identity().unwrap();
    let config = MeshConfig::new(identity, vec![taken.local_addr().unwrap()]);
    let error = Mesh::start(config, Arc::new(lab::Recorder::default())).err().expect("the port is taken");
    assert_eq!(error.to_string(), format!("cannot open {} for link 0", taken.local_addr().unwrap()));
}

#[test]
fn a_renewed_certificate_is_shown_from_the_next_handshake_on_and_connections_go_on() {
    let lab = Lab::new();
    let (a, b) = lab.pair(2);
    let numbers = |of: &Node, to: &Node| of.handle().links(to.node).iter().map(|l| l.number).collect::<Vec<_>>();
    let before = (numbers(&a, &b), numbers(&b, &a));
    assert_eq!(before.0.len(), 2);
    (0..100).for_each(|i| a.send(&b, Class::State, i));
    a.handle().show(lab.renewed(1, 5));
    (100..200).for_each(|i| a.send(&b, Class::State, i));
    b.wait_for_numbers(&a, Class::State, 200);
    assert_eq!((numbers(&a, &b), numbers(&b, &a)), before);

    // Only what was issued on admission 5 or later counts now.
    b.handle().set_peers(vec![PeerConfig { admission: 5, ..a.as_peer() }]);
    b.seen.wait("n1 comes again, with its new certificate", |_| {
        let now = numbers(&b, &a);
        (now.len() == 2 && now.iter().all(|n| !before.1.contains(n))).then_some(())
    });
    b.handle().set_peers(vec![PeerConfig { admission: 6, ..a.as_peer() }]);
    b.wait_for_fault("n1 is kept out", |f| matches!(f, Fault::Untrusted { reason, .. } if reason.contains("Revoked")));
    assert!(numbers(&b, &a).is_empty());
}

#[test]
fn who_dials_refuses_an_expelled_certificate_too() {
    let lab = Lab::new();
    let (a, b) = (lab.node(1, 1), lab.node(2, 1));
    b.knows(&[&a]);
    a.handle().set_peers(vec![PeerConfig { admission: 3, ..b.as_peer() }]);
    let fault = a.wait_for_fault("n2 is kept out", |f| matches!(f, Fault::Untrusted { .. }));
    assert!(fault.to_string().contains("Revoked"), "{fault}");
}
