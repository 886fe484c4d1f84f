//! The control log in virtual time: three voters, their disks, and what may happen to both.

#[path = "log/cluster.rs"]
mod cluster;

use std::time::Duration;

use cluster::{Cluster, n};
use sixnines_core::domain::config::Profile;
use sixnines_core::domain::feature::Level;
use sixnines_core::domain::{Entry, Void};
use sixnines_core::ids::{Incarnation, LogIndex, NodeId, Version};
use sixnines_discs::log::{Failure, OpenError, ProposeError, Timing};

#[test]
fn three_voters_elect_commit_and_apply_the_same() {
    let mut c = Cluster::settled(1);
    let leader = c.wait_for_leader();
    let index = c.commit(leader, n(2));
    c.assert_same_domain();
    for id in [1, 2, 3] {
        assert_eq!(c.said(n(id), |s| s.domain.config_version), Version(1));
        assert_eq!(c.said(n(id), |s| s.domain.nodes[&n(2)].incarnation), Incarnation(index.0));
        assert_eq!(c.said(n(id), |s| s.appended[&n(2)]), index, "rule 3.3");
        assert!(c.said(n(id), |s| s.progress_gap_max) <= Duration::from_millis(100));
    }
}

#[test]
fn a_follower_hands_its_proposal_to_the_leader() {
    let mut c = Cluster::settled(2);
    c.wait_for_leader();
    let follower = c.follower();
    let index = c.commit(follower, follower);
    let applied = c.said(follower, |s| s.applied.iter().find(|(i, ..)| *i == index).cloned()).expect("applied");
    assert_eq!(applied.1.map(|p| p.by), Some(follower));
}

#[test]
fn an_entry_without_effect_is_told_apart() {
    let mut c = Cluster::settled(3);
    c.wait_for_leader();
    let follower = c.follower();
    let ticket = c.propose(follower, n(9));
    assert!(matches!(c.outcome(follower, ticket), Err(ProposeError::Void { .. })));
}

#[test]
fn the_others_go_on_without_a_leader_that_is_cut_off() {
    let mut c = Cluster::settled(4);
    let old = c.wait_for_leader();
    c.cut_off(old);
    let new = c.wait_for_leader_other_than(old);
    let ticket = c.propose(new, new);
    let index = c.outcome(new, ticket).expect("two of three are enough");
    c.heal();
    c.run_until("the old leader follows", |c| c.said(old, |s| s.domain.applied >= index));
    c.assert_same_domain();
}

#[test]
fn what_only_a_cut_off_leader_has_is_of_unknown_outcome_and_overruled() {
    let mut c = Cluster::settled(5);
    let old = c.wait_for_leader();
    let before = c.commit(old, old);
    c.cut_off(old);
    let lost = c.propose(old, old);
    assert_eq!(c.outcome(old, lost), Err(ProposeError::Unknown));
    assert!(c.said(old, |s| s.appended[&old]) > before, "it is in that voter's log");
    let new = c.wait_for_leader_other_than(old);
    let index = { let ticket = c.propose(new, new); c.outcome(new, ticket).expect("committed") };
    c.heal();
    c.run_until("the old leader follows", |c| c.said(old, |s| s.domain.applied >= index));
    c.assert_same_domain();
    assert_eq!(c.said(old, |s| s.appended[&old]), before, "the overruled entry no longer counts");
}

#[test]
fn without_a_majority_a_proposal_is_not_sent_or_unknown_but_never_done() {
    let mut c = Cluster::settled(6);
    let leader = c.wait_for_leader();
    let follower = c.follower();
    c.kill(leader);
    let third = *c.places.keys().find(|id| **id != leader && **id != follower).expect("three nodes");
    c.kill(third);
    let ticket = c.propose(follower, follower);
    assert!(matches!(c.outcome(follower, ticket), Err(ProposeError::NotSent | ProposeError::Unknown)));
}

/// engine.md 2.2.2: leader to witness comes through, witness to leader does not, leader and standby are cut.
#[test]
fn a_leader_that_is_heard_but_hears_nobody_is_replaced() {
    for seed in 0..8 {
        let mut c = Cluster::settled(70 + seed);
        let leader = c.wait_for_leader();
        let standby = c.follower();
        let witness = *c.places.keys().find(|id| **id != leader && **id != standby).expect("three nodes");
        c.cuts.extend([(witness, leader), (leader, standby), (standby, leader)]);
        let new = c.wait_for_leader_other_than(leader);
        let ticket = c.propose(new, new);
        assert!(c.outcome(new, ticket).is_ok(), "seed {seed}");
    }
}

/// Found by the simulator: an active that the leader does not hear could not shrink its in-sync set, and stood still.
#[test]
fn a_leader_that_does_not_hear_a_node_gets_its_proposals_by_another_way() {
    let mut c = Cluster::settled(18);
    let leader = c.wait_for_leader();
    let unheard = c.follower();
    c.cuts.insert((unheard, leader));
    let ticket = c.propose(unheard, unheard);
    let index = c.outcome(unheard, ticket).expect("by the third node");
    assert_eq!(c.leader(), Some(leader), "nobody has to fall for it");
    c.run_until("applied everywhere", |c| c.running().iter().all(|id| c.said(*id, |s| s.domain.applied >= index)));
    c.assert_same_domain();
}

#[test]
fn a_restart_keeps_everything() {
    let mut c = Cluster::settled(8);
    let leader = c.wait_for_leader();
    let index = c.commit(leader, n(1));
    let before = c.said(leader, |s| s.domain.clone());
    for id in [1, 2, 3] {
        c.crash(n(id));
    }
    for id in [1, 2, 3] {
        c.start(n(id)).expect("its own disk");
        assert_eq!(c.said(n(id), |s| s.appended[&n(1)]), index, "known before anybody speaks");
    }
    c.wait_for_leader();
    c.run_until("all applied again", |c| c.running().iter().all(|id| c.said(*id, |s| s.domain.applied >= index)));
    assert_eq!(c.said(leader, |s| s.domain.clone()), before);
    c.assert_same_domain();
}

#[test]
fn what_was_acknowledged_survives_crashes_at_any_moment() {
    for seed in 0..12 {
        let mut c = Cluster::settled(100 + seed);
        let mut acknowledged = LogIndex(0);
        for round in 0..4 {
            let leader = c.wait_for_leader();
            let tickets: Vec<_> = (0..5).map(|_| c.propose(leader, leader)).collect();
            c.run(Duration::from_micros(200 + 400 * seed + 300 * round));
            for ticket in tickets {
                let done = c.said(leader, |s| s.proposed.get(&ticket).cloned());
                acknowledged = acknowledged.max(done.and_then(|(_, o)| o.ok()).unwrap_or_default());
            }
            // Everybody at once, with whatever is on its way to the disk.
            for id in [1, 2, 3] {
                c.crash(n(id));
            }
            for id in [1, 2, 3] {
                c.start(n(id)).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            }
        }
        let leader = c.wait_for_leader();
        let last = c.commit(leader, leader);
        assert!(last > acknowledged, "seed {seed}");
        let domain = c.said(leader, |s| s.domain.clone());
        assert!(domain.applied >= acknowledged);
        c.assert_same_domain();
    }
}

#[test]
fn a_torn_tail_is_cut_and_a_flipped_byte_before_it_halts() {
    let mut c = Cluster::settled(9);
    let leader = c.wait_for_leader();
    let follower = c.follower();
    for _ in 0..5 {
        c.commit(leader, leader);
    }
    c.kill(follower);
    let disk = c.places[&follower].disk.clone();
    disk.meddle("log", |bytes| bytes.extend_from_slice(b"9\x01\x04\x00half a record"));
    let torn = disk.bytes("log").expect("a log").len();
    c.start(follower).expect("a torn tail is no damage");
    assert!(disk.bytes("log").expect("a log").len() < torn);
    c.commit(leader, leader);

    c.kill(follower);
    disk.meddle("log", |bytes| { let middle = bytes.len() / 2; bytes[middle] ^= 0x40; });
    let refused = c.start(follower).expect_err("damage");
    assert!(matches!(refused, OpenError::Damaged { file: "log", .. }), "{refused}");
}

#[test]
fn a_failed_sync_and_a_full_disk_stop_the_node() {
    for full in [false, true] {
        let mut c = Cluster::settled(10);
        let leader = c.wait_for_leader();
        let follower = c.follower();
        let disk = &c.places[&follower].disk;
        if full { disk.set_room(Some(10)) } else { disk.fail_next_sync(true) }
        let ticket = c.propose(leader, leader);
        assert!(c.outcome(leader, ticket).is_ok(), "two disks are enough");
        c.run_until("a failure", |c| c.said(follower, |s| s.failed.is_some()));
        assert!(matches!(c.said(follower, |s| s.failed.clone()), Some(Failure::Disk(_))));
    }
}

/// From its next start on, which is now, this node reads so much.
fn restart_as(c: &mut Cluster, id: NodeId, reads: Level) -> Result<(), OpenError> {
    c.kill(id);
    c.places.get_mut(&id).expect("it is there").reads = reads;
    c.start(id)
}

#[test]
fn who_does_not_read_a_level_never_proposes_it_and_stops_when_others_raise_it() {
    let timing = Timing { snapshot_every: 50, keep_entries: 10, ..Timing::of(Profile::Fabric) };
    let mut c = Cluster::settle(Cluster::with_timing(21, 3, timing));
    let raise = |level| Entry::Feature { level: Level(level) };
    let refused = c.ask(n(1), raise(2)).expect_err("it reads 1");
    assert_eq!(refused, ProposeError::Level { needs: Level(2), present: Level(1) });
    for id in [1, 2] {
        restart_as(&mut c, n(id), Level(2)).expect("an older log is read");
    }
    let refused = c.ask(n(1), raise(3)).expect_err("a step is not left out");
    assert!(refused.to_string().contains("nines feature raise"), "{refused}");

    // n3 leads, perhaps: then it does not take it. Two voters are enough.
    loop {
        c.wait_for_leader();
        if c.leader() == Some(n(3)) {
            c.log(n(3)).handle().transfer_leader(n(1));
            c.run(Duration::from_millis(200));
            continue;
        }
        match c.ask(n(1), raise(2)) {
            Ok(_) | Err(ProposeError::Void { why: Void::Repeated, .. }) => break,
            Err(why) => assert!(!matches!(why, ProposeError::Level { .. } | ProposeError::Void { .. }), "{why}"),
        }
    }
    c.run_until("n3 has found that it cannot go on", |c| c.said(n(3), |s| s.failed.is_some()));
    let why = c.said(n(3), |s| s.failed.clone()).expect("it failed");
    assert!(matches!(why, Failure::TooNew { .. }) && why.is_unreadable(), "{why}");
    assert!(why.to_string().contains("level 2") && why.to_string().contains("install a newer build"), "{why}");
    assert_eq!(c.said(n(3), |s| s.domain.level), Level(1), "nobody there was told");
    c.kill(n(3));
    c.run_until("both others are at level 2", |c| [1, 2].iter().all(|id| c.said(n(*id), |s| s.domain.level == Level(2))));
    for _ in 0..150 {
        c.commit(n(1), n(2));
    }

    // Neither by the log nor by a snapshot, its own or the leader's, does it come in; as a newer build it does.
    c.places.get_mut(&n(3)).expect("it is there").reads = Level(1);
    c.start(n(3)).expect("on its own disk all is of level 1");
    c.run_until("the leader's snapshot is too new", |c| c.said(n(3), |s| s.failed.is_some()));
    let why = c.said(n(3), |s| s.failed.clone()).expect("it failed");
    assert!(why.to_string().contains("level 2") && why.to_string().contains("install a newer build"), "{why}");
    restart_as(&mut c, n(3), Level(2)).expect("an older log is read");
    c.run_until("n3 has caught up", |c| c.said(n(3), |s| s.domain.level == Level(2)));
    c.commit(n(3), n(3));
    c.assert_same_domain();
    let own = restart_as(&mut c, n(1), Level(1)).expect_err("its own snapshot is too new");
    assert!(matches!(own, OpenError::TooNew { file: "snapshot", .. }) && own.to_string().contains("install a newer build"), "{own}");
    c.commit(n(3), n(3));
}

#[test]
fn a_node_far_behind_gets_a_snapshot() {
    let timing = Timing { snapshot_every: 50, keep_entries: 10, ..Timing::of(Profile::Fabric) };
    let mut c = Cluster::settle(Cluster::with_timing(11, 3, timing));
    c.wait_for_leader();
    let away = c.follower();
    c.crash(away);
    let leader = c.wait_for_leader();
    for _ in 0..150 {
        c.commit(leader, leader);
    }
    assert!(c.log(leader).handle().metrics().snapshot > LogIndex(50));
    c.start(away).expect("its own disk");
    let index = c.commit(leader, away);
    c.run_until("it has caught up", |c| c.said(away, |s| s.domain.applied >= index));
    c.assert_same_domain();
    assert!(c.said(away, |s| s.applied.len()) < 100, "not entry by entry");

    // And from its own snapshot.
    for id in [1, 2, 3] {
        c.crash(n(id));
        c.start(n(id)).expect("its own disk");
    }
    let leader = c.wait_for_leader();
    c.commit(leader, leader);
    c.assert_same_domain();
}

#[test]
fn leadership_moves_where_it_is_wanted() {
    let mut c = Cluster::settled(12);
    let old = c.wait_for_leader();
    let wanted = c.follower();
    c.log(old).handle().transfer_leader(wanted);
    let took = c.run_until("the wanted leader", |c| c.leader() == Some(wanted));
    assert!(took < Duration::from_millis(45), "by request, not by silence: {took:?}");
}

#[test]
fn a_campaign_against_a_dead_leader_does_not_wait_for_its_lease() {
    let mut c = Cluster::settled(15);
    let dead = c.wait_for_leader();
    c.crash(dead);
    let (first, second) = (c.running()[0], c.running()[1]);
    c.log(first).handle().campaign(second);
    c.log(first).handle().campaign(dead);
    let took = c.run_until("the campaigner leads", |c| c.leader() == Some(first));
    assert!(took < Duration::from_millis(20), "by the campaign, not by the silence: {took:?}");
    c.commit(first, second);
}

/// A takeover waits for one disk, and not for two one after the other.
#[test]
fn the_disks_of_leader_and_followers_write_at_one_time() {
    let mut c = Cluster::settled(21);
    let leader = c.wait_for_leader();
    c.places.values().for_each(|place| place.disk.set_latency(Duration::from_millis(10)));
    c.run(Duration::from_millis(100));
    let ticket = c.propose(leader, leader);
    let took = c.run_until("it is committed", |c| c.said(leader, |s| s.proposed.contains_key(&ticket)));
    assert!(took < Duration::from_millis(15), "not one after the other: {took:?}");
}

/// Found with real processes: a leader waited for what it had asked a process that had died, and a node that was back at once joined 200 ms later.
#[test]
fn who_is_back_is_not_waited_for_as_long_as_its_former_life() {
    for phase in 0..20 {
        let mut c = Cluster::settled(19);
        let leader = c.wait_for_leader();
        let (back, other) = (c.follower(), c.running()[0]);
        c.kill(back);
        c.commit(leader, other); // asks everybody, the dead one too
        c.run(Duration::from_millis(5 + 10 * phase));
        c.start(back).expect("its own disk");
        let ticket = c.propose(leader, leader);
        c.run(Duration::from_millis(5));
        c.log(leader).handle().greet(back);
        let index = c.outcome(leader, ticket).expect("committed");
        let took = c.run_until("it has everything", |c| c.said(back, |s| s.domain.applied >= index));
        assert!(took < Duration::from_millis(50), "phase {phase}: {took:?}");
    }
}

/// Found with real processes on a busy machine: two campaigns at one moment, and nobody led for a second.
#[test]
fn campaigns_that_meet_are_repeated_soon_and_take_the_lead_from_nobody() {
    for apart in [0, 1, 2, 5, 10, 15, 20, 30, 60, 85] {
        for slow in [1, 4, 8, 20, 40] {
            let mut c = Cluster::settled(15);
            let dead = c.wait_for_leader();
            c.crash(dead);
            let (first, second) = (c.running()[0], c.running()[1]);
            c.places[&first].disk.set_latency(Duration::from_millis(slow));
            c.log(first).handle().campaign(dead);
            c.run(Duration::from_millis(apart));
            c.log(second).handle().campaign(dead);
            let took = c.run_until("somebody leads", |c| c.leader().is_some_and(|leader| leader != dead));
            assert!(took < Duration::from_millis(300), "apart {apart}, disk {slow}: not by Raft's own clocks: {took:?}");
            c.run(Duration::from_millis(20 + 2 * slow)); // whatever was under way has arrived
            let leader = c.wait_for_leader();
            let term = c.log(leader).handle().metrics().term;
            c.run(Duration::from_secs(2));
            assert_eq!((c.leader(), c.log(leader).handle().metrics().term), (Some(leader), term), "apart {apart}, disk {slow}: it leads on");
        }
    }
}

/// The node whose disk was lost is alive to everybody but the log: nobody may lean on it, and it must come back when an operator says so.
#[test]
fn a_voter_with_an_empty_disk_disturbs_nobody_and_votes_again_once_it_is_replaced() {
    let mut c = Cluster::settled(16);
    let leader = c.wait_for_leader();
    let lost = c.follower();
    c.crash(lost);
    c.places[&lost].disk.wipe();
    c.start(lost).expect("an empty disk");
    let term = c.log(leader).handle().metrics().term;
    c.run_until("the leader has spoken to it", |c| c.is_stranger(leader, lost));
    c.log(leader).handle().transfer_leader(lost); // it is alive and not busy, as far as the others can see
    c.run(Duration::from_secs(5));
    assert_eq!((c.leader(), c.log(leader).handle().metrics().term), (Some(leader), term), "two voters are enough, and stay so");
    assert!(c.is_stranger(leader, lost), "an operator can see it");

    let other = *c.places.keys().find(|id| **id != leader && **id != lost).expect("three nodes");
    assert!(!c.is_stranger(other, lost), "it speaks only when it is spoken to");
    c.log(other).handle().greet(lost);
    c.give_up_disk(other, lost);
    c.run_until("it votes again", |c| c.log(leader).handle().metrics().voters.contains(&lost) && c.log(lost).handle().metrics().voters.contains(&lost));
    let index = c.commit(leader, lost);
    c.run_until("it has everything", |c| c.said(lost, |s| s.domain.applied >= index));
    assert!(c.places.keys().all(|node| !c.is_stranger(leader, *node)));
    c.crash(leader);
    let new = c.wait_for_leader_other_than(leader);
    c.commit(new, lost);
}

/// Found by the simulator: the disks were bound after the first configuration, and one that was lost in between voted anew, with a log of its
/// own as the outcome.
#[test]
fn the_founders_disks_are_known_before_the_domain_is() {
    for seed in 0..8 {
        let mut c = Cluster::empty(300 + seed, 3);
        c.initialize();
        c.run_until("a first configuration", |c| c.places.values().any(|p| p.said(|s| s.domain.config_version.0 == 1)));
        let leader = c.wait_for_leader();
        let lost = c.follower();
        c.crash(lost);
        c.places[&lost].disk.wipe();
        c.start(lost).expect("an empty disk");
        c.run_until("it is found out", |c| c.is_stranger(leader, lost));
    }
}

/// Somebody puts an image back. What the disk has lost since may be the one copy that a commitment counted on, and its votes may be gone too.
#[test]
fn a_voter_whose_disk_went_back_is_kept_out_until_it_comes_with_an_empty_one() {
    for seed in 0..8 {
        let mut c = Cluster::settled(200 + seed);
        let leader = c.wait_for_leader();
        let old = c.follower();
        let image = c.places[&old].disk.backup();
        for _ in 0..3 {
            let index = c.commit(leader, old);
            c.run_until("it has the entry", |c| c.said(old, |s| s.domain.applied >= index));
        }
        c.crash(old);
        c.places[&old].disk.go_back(&image);
        c.start(old).expect("a good disk, as far as it can know");
        c.run_until("it is found out", |c| c.is_stranger(leader, old));
        assert_eq!((c.leader(), c.said(leader, |s| s.failed.clone())), (Some(leader), None));
        let ticket = c.propose(leader, leader);
        let index = c.outcome(leader, ticket).expect("two of three are enough");
        c.run(Duration::from_secs(2));
        assert!(!c.log(leader).handle().metrics().voters.contains(&old), "its word does not count");
        let other = *c.places.keys().find(|id| **id != leader && **id != old).expect("three nodes");
        c.log(other).handle().greet(old);
        c.run_until("everybody knows", |c| c.is_stranger(leader, old) && c.is_stranger(other, old));
        assert!(c.said(old, |s| s.domain.applied < index));
        c.crash(old);
        c.places[&old].disk.wipe();
        c.start(old).expect("an empty disk");
        c.log(leader).handle().greet(old);
        c.run_until("it votes again", |c| c.log(old).handle().metrics().voters.contains(&old) && c.said(old, |s| s.domain.applied >= index));
        assert!(!c.is_stranger(leader, old));
    }
}

/// Found by the simulator: without a majority nobody could find out about the disk, and then the leadership changed.
#[test]
fn a_replacement_survives_a_change_of_the_leader() {
    for seed in 0..8 {
        let mut c = Cluster::settled(80 + seed);
        let leader = c.wait_for_leader();
        let away = c.follower();
        let lost = *c.places.keys().find(|id| **id != leader && **id != away).expect("three nodes");
        c.cut_off(away);
        c.run(Duration::from_millis(50));
        c.crash(lost);
        c.places[&lost].disk.wipe();
        c.run(Duration::from_millis(270));
        c.start(lost).expect("an empty disk");
        c.run(Duration::from_millis(420));
        c.heal();
        c.log(leader).handle().greet(lost);
        c.give_up_disk(leader, lost);
        c.run_until("its old disk is let go", |c| !c.log(leader).handle().metrics().voters.contains(&lost));
        c.crash(leader); // whoever leads next knows nothing of what was found out
        c.start(leader).expect("its own disk");
        c.run_until("it votes again", |c| c.log(lost).handle().metrics().voters.contains(&lost));
    }
}

/// An operator's word about a disk that is in use does nothing, and holds for the day on which another one takes its place.
#[test]
fn a_disk_given_up_too_early_goes_on_until_there_is_another() {
    let mut c = Cluster::settled(17);
    let leader = c.wait_for_leader();
    let node = c.follower();
    c.run_until("its disk is known", |c| c.said(leader, |s| s.places.get(&node).is_some_and(|place| place.disk != 0)));
    let disk = c.disk_of(leader, node);
    let entry = Entry::DiskLost { node, disk };
    assert!(c.ask(leader, entry.clone()).is_ok());
    assert!(matches!(c.ask(leader, entry), Err(ProposeError::Void { why: Void::Repeated, .. })));
    c.run(Duration::from_secs(2));
    assert_eq!(c.log(leader).handle().metrics().voters.len(), 3, "it speaks from the disk that is known");
    c.crash(node);
    c.run(Duration::from_secs(1));
    assert_eq!(c.log(leader).handle().metrics().voters.len(), 3, "it has not spoken from another one");
    c.places[&node].disk.wipe();
    c.start(node).expect("an empty disk");
    c.run_until("it is taken in with its new disk", |c| c.log(node).handle().metrics().voters.contains(&node));
    c.run(Duration::from_millis(100)); // until it has been told
    assert_ne!(c.disk_of(node, node), disk);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let run = |seed| {
        let mut c = Cluster::settled(seed);
        let leader = c.wait_for_leader();
        c.commit(leader, n(3));
        c.crash(leader);
        let new = c.wait_for_leader_other_than(leader);
        c.start(leader).expect("its own disk");
        c.commit(new, n(1));
        c.run(Duration::from_millis(300));
        (c.fingerprint(), c.delivered)
    };
    assert_eq!(run(13), run(13));
    assert_ne!(run(13).0, run(14).0);
}
