//! An acknowledged write is never lost, never undone, and never seen twice; a shown value never disappears. Source: protocol 2.
//!
//! Each request sets its key to a number of its own. Clients overlap, so the order of two open writes is unknown; but a value whose
//! acknowledgement came before another request was even asked is gone for good once that one is acknowledged or shown.

use std::collections::{BTreeMap, BTreeSet};

use sixnines_core::ids::{Epoch, GroupName};

use crate::domain::{Answer, Call, Truth};

/// One written value's story, in steps of a counter that orders all questions and answers.
#[derive(Clone, Copy, Debug)]
struct Value {
    asked: u64,
    acknowledged: Option<u64>,
    /// When a later one was acknowledged or shown: no question asked after that may see it again.
    replaced: Option<u64>,
}

/// One key's story.
#[derive(Debug, Default)]
struct Key {
    values: BTreeMap<u64, Value>,
    /// Those that were acknowledged and not replaced yet.
    standing: BTreeSet<u64>,
    /// When something was acknowledged or shown first: to questions asked after that it is not empty.
    filled: Option<u64>,
}

impl Key {
    /// `value` is or was there: whatever was acknowledged before it was asked for is gone.
    fn settle(&mut self, now: u64, value: u64) {
        self.filled = self.filled.or(Some(now));
        let Some(asked) = self.values.get(&value).map(|v| v.asked) else { return };
        let values = &mut self.values;
        self.standing.retain(|older| {
            let Some(older) = values.get_mut(older).filter(|_| *older != value) else { return true };
            let is_older = older.acknowledged.is_some_and(|at| at < asked);
            older.replaced = is_older.then_some(now);
            !is_older
        });
    }
}

/// Everything that clients were told.
#[derive(Debug, Default)]
pub struct Writes {
    keys: BTreeMap<(GroupName, u64), Key>,
    answered_at: BTreeMap<GroupName, Vec<Truth>>,
    /// When the open questions were asked: an answer may be as old as its question.
    questions: BTreeMap<(GroupName, u64), u64>,
    /// The epochs that began with a declared loss.
    lost: BTreeSet<(GroupName, Epoch)>,
    steps: u64,
    answers: u64,
}

impl Writes {
    pub(super) fn answers(&self) -> u64 {
        self.answers
    }

    pub(super) fn losses(&self) -> u64 {
        self.lost.len() as u64
    }

    /// Every complete copy is gone, and said to be: what was known of the group's keys no longer counts, once per epoch.
    pub(super) fn declared_lost(&mut self, group: &GroupName, epoch: Epoch) {
        let has_clients = self.keys.keys().any(|(g, _)| g == group); // what the owner of a chassis forgets, nobody was told
        if has_clients && self.lost.insert((group.clone(), epoch)) {
            for (_, key) in self.keys.iter_mut().filter(|((g, _), _)| g == group) {
                key.filled = None;
                key.standing.clear();
                key.values.values_mut().for_each(|v| v.replaced = None);
            }
        }
    }

    pub(super) fn asked(&mut self, group: &GroupName, call: &Call) {
        self.steps += 1;
        self.questions.insert((group.clone(), call.request), self.steps);
        let key = self.keys.entry((group.clone(), call.key)).or_default();
        if let Some(value) = call.value {
            key.values.insert(value, Value { asked: self.steps, acknowledged: None, replaced: None });
        }
    }

    /// The first answer to an open request; later ones are the client's to ignore.
    pub(super) fn answered(&mut self, now: Truth, group: &GroupName, answer: &Answer) -> Result<(), String> {
        self.steps += 1;
        self.answers += 1;
        self.answered_at.entry(group.clone()).or_default().push(now);
        let at = self.steps;
        let asked = self.questions.remove(&(group.clone(), answer.request)).unwrap_or(at);
        let was_before = |when: Option<u64>| when.is_some_and(|when| when < asked);
        let key = self.keys.entry((group.clone(), answer.key)).or_default();
        if answer.is_write {
            let Some(value) = key.values.get_mut(&answer.request) else {
                return Err(format!("{group} acknowledges request {}, which nobody made", answer.request));
            };
            value.acknowledged = Some(at);
            key.standing.insert(answer.request);
            key.settle(at, answer.request);
            return Ok(());
        }
        match answer.value {
            None if was_before(key.filled) => Err(format!("key {} of {group} is empty after a write was acknowledged or shown", answer.key)),
            None => Ok(()),
            Some(value) => match key.values.get(&value) {
                None => Err(format!("key {} of {group} shows {value}, which nobody wrote", answer.key)),
                Some(v) if was_before(v.replaced) => Err(format!("key {} of {group} shows {value} again, which was replaced", answer.key)),
                Some(_) => {
                    key.settle(at, value);
                    Ok(())
                }
            },
        }
    }

    pub(super) fn gap(&self, group: &GroupName, since: Truth, now: Truth) -> Truth {
        let Some(times) = self.answered_at.get(group) else { return now - since };
        let later = times.partition_point(|t| *t <= since);
        let mut last = later.checked_sub(1).map_or(since, |before| times[before]);
        let mut longest = 0;
        for time in times[later..].iter().chain([&now]) {
            longest = longest.max(time - last);
            last = *time;
        }
        longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(request: u64) -> (Call, Answer) {
        (Call { request, value: Some(request), key: 1 }, Answer { request, is_write: true, key: 1, value: Some(request) })
    }

    fn read(value: Option<u64>) -> Answer {
        Answer { request: 999, is_write: false, key: 1, value }
    }

    #[test]
    fn a_lost_write_is_a_breach() {
        let group = GroupName::new("calls");
        let mut writes = Writes::default();
        let (call, answer) = write(5);
        writes.asked(&group, &call);
        assert!(writes.answered(1, &group, &read(None)).is_ok(), "not applied yet");
        assert!(writes.answered(1, &group, &answer).is_ok());
        assert!(writes.answered(2, &group, &read(Some(5))).is_ok());
        assert!(writes.answered(3, &group, &read(None)).is_err());
    }

    #[test]
    fn an_undone_write_is_a_breach() {
        let group = GroupName::new("calls");
        let mut writes = Writes::default();
        for request in [5, 6] {
            let (call, answer) = write(request);
            writes.asked(&group, &call);
            assert!(writes.answered(1, &group, &answer).is_ok());
        }
        assert!(writes.answered(2, &group, &read(Some(5))).is_err());
        assert!(writes.answered(2, &group, &read(Some(6))).is_ok());
    }

    #[test]
    fn a_write_without_an_answer_may_show_or_not_until_it_has_shown() {
        let group = GroupName::new("calls");
        let mut writes = Writes::default();
        let (call, answer) = write(5);
        writes.asked(&group, &call);
        assert!(writes.answered(1, &group, &answer).is_ok());
        writes.asked(&group, &write(6).0);
        assert!(writes.answered(2, &group, &read(Some(5))).is_ok());
        assert!(writes.answered(3, &group, &read(Some(6))).is_ok());
        assert!(writes.answered(4, &group, &read(Some(5))).is_err(), "shown and gone again");
    }
}
