use sixnines_core::ids::{Epoch, NodeId};

use super::*;

/// A server in the test's own words: per call how many changes, and their digest.
#[derive(Clone, Default)]
struct Server {
    calls: BTreeMap<u32, (u64, u64, u64)>,
    epoch: u64,
}

impl Server {
    fn serve(&mut self, request: Request) -> Answer {
        let known = self.calls.contains_key(&request.call);
        let mut verdict = Verdict::Ok;
        if request.op == Op::Setup || (known && request.op != Op::Query) {
            let (applied, digest, last) = self.calls.entry(request.call).or_default();
            if *last < request.sequence {
                (*applied, *digest, *last) = (*applied + 1, fold(*digest, request.sequence), request.sequence);
            }
        } else if !known {
            verdict = Verdict::Unknown;
        }
        let (applied, digest, _) = self.calls.get(&request.call).copied().unwrap_or_default();
        let Request { client, sequence, attempt, .. } = request;
        Answer { client, sequence, attempt, verdict, node: NodeId(1), epoch: Epoch(self.epoch), applied, digest }
    }
}

struct Pair {
    client: Machine,
    server: Server,
    now: Instant,
    /// Requests on the way to the server when it is silent are gone.
    silent: bool,
    results: Vec<ReadBack>,
    sendings: Vec<Request>,
}

impl Pair {
    fn new(calls: u32) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let client = Machine::new(7, calls, now);
        Self { client, server: Server { epoch: 1, ..Server::default() }, now, silent: false, results: vec![], sendings: vec![] }
    }

    fn run(&mut self, turns: u32) {
        for _ in 0..turns {
            self.now = self.now + Duration::from_millis(1);
            self.client.tick(self.now, self.now);
            self.deliver();
        }
    }

    fn deliver(&mut self) {
        while let Some(output) = self.client.poll_output() {
            match output {
                Output::Send(request) => {
                    self.sendings.push(request);
                    if !self.silent {
                        let answer = self.server.serve(request);
                        self.client.answer(self.now, answer);
                    }
                }
                Output::ReadBack(result) => self.results.push(result),
            }
        }
    }

    fn read_back(&mut self) -> ReadBack {
        self.client.read_back(self.now);
        for _ in 0..20_000 {
            self.run(1);
            if let Some(result) = self.results.pop() {
                return result;
            }
        }
        panic!("the reading back never ended");
    }
}

#[test]
fn a_good_server_loses_nothing() {
    let mut pair = Pair::new(50);
    pair.run(2000);
    let result = pair.read_back();
    assert_eq!((result.calls, result.lost, result.doubled, result.unread), (50, 0, 0, 0));
    assert!(result.acknowledged > 1900, "{result:?}");
    let report = pair.client.record.report(pair.now);
    assert!(report.sums.acknowledged > 1990 && report.sums.repeated == 0, "{report:?}");
}

#[test]
fn an_outage_is_seen_by_fresh_requests_and_what_was_open_is_repeated_with_the_same_id() {
    let mut pair = Pair::new(500);
    pair.run(1000);
    pair.client.record.mark(pair.now, "cut");
    pair.silent = true;
    pair.run(100);
    pair.silent = false;
    pair.run(400);
    let report = pair.client.record.report(pair.now);
    assert_eq!(report.outage_ms, 101.0);
    assert_eq!(report.sums.sent, 500, "the schedule goes on in an outage");
    assert!(report.sums.repeated >= 100, "{report:?}");
    let lone = |s: &&Request| s.attempt > 0;
    for repeat in pair.sendings.iter().filter(lone) {
        let first = pair.sendings.iter().find(|r| r.sequence == repeat.sequence).unwrap();
        assert_eq!(*first, Request { attempt: 0, ..*repeat });
    }
    assert_eq!(pair.read_back().lost, 0);
}

#[test]
fn repeats_are_bounded_in_a_long_outage() {
    let mut pair = Pair::new(100);
    pair.run(300);
    pair.silent = true;
    let before = pair.sendings.len();
    pair.run(5000);
    let sent = pair.sendings.len() - before;
    assert!(sent <= 5000 * 3, "{sent} in 5000 turns");
    assert!(pair.client.pending.len() <= 100);
    assert!(pair.client.record.report(pair.now).sums.all_waiting > 4000);
}

#[test]
fn a_server_that_went_back_to_an_older_state_is_found_out() {
    let mut pair = Pair::new(20);
    pair.run(500);
    let old = pair.server.clone();
    pair.run(100);
    pair.server = old;
    let result = pair.read_back();
    assert!(result.lost >= 100, "{result:?}");
}

#[test]
fn a_loss_is_found_by_the_next_answer_too_and_counted_once() {
    let mut pair = Pair::new(20);
    pair.run(500);
    let old = pair.server.clone();
    pair.run(20);
    pair.server = old;
    pair.run(100);
    let before = pair.client.lost;
    assert_eq!(before, 20);
    assert_eq!(pair.read_back().lost, before);
}

#[test]
fn a_server_that_lost_a_whole_call_is_found_out() {
    let mut pair = Pair::new(20);
    pair.run(500);
    let gone = pair.server.calls.remove(&3).unwrap();
    assert_eq!(pair.read_back().lost, gone.0);
}

#[test]
fn a_change_applied_twice_is_found_out() {
    let mut pair = Pair::new(20);
    pair.run(500);
    let call = pair.server.calls.get_mut(&3).unwrap();
    *call = (call.0 + 1, fold(call.1, 77), call.2);
    let result = pair.read_back();
    assert_eq!((result.lost, result.doubled), (0, 1));
}

#[test]
fn a_change_replaced_by_another_is_found_out() {
    let mut pair = Pair::new(20);
    pair.run(500);
    pair.client.stop_loading();
    pair.server.calls.get_mut(&3).unwrap().1 ^= 1;
    assert_eq!(pair.read_back().lost, 1);
}

#[test]
fn a_silent_server_leaves_calls_unread_and_proves_nothing() {
    let mut pair = Pair::new(20);
    pair.run(500);
    pair.silent = true;
    let result = pair.read_back();
    assert_eq!((result.lost, result.unread), (0, 20));
}

#[test]
fn what_is_given_up_is_neither_lost_nor_doubled_whatever_became_of_it() {
    for applied in [false, true] {
        let mut pair = Pair::new(5);
        pair.run(100);
        let before = pair.sendings.len();
        pair.silent = true;
        pair.run(5);
        if applied {
            for request in pair.sendings[before..].iter().copied() {
                pair.server.serve(request);
            }
        }
        pair.run(31_000);
        pair.silent = false;
        pair.run(100);
        let report = pair.client.record.report(pair.now);
        assert_eq!(report.sums.given_up, 5);
        let result = pair.read_back();
        assert_eq!((result.lost, result.doubled), (0, 0), "applied {applied}");
    }
}
