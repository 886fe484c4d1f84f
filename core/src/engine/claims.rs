//! Claims on controls, and the requests that follow from them.
//!
//! The strongest claim wins: the higher priority; of equal ones the value nearer to what is safe, so that two policies that
//! both mean well cannot argue a fan down; then the older one. A level (`duty = 100`) is asked again until it is done, an edge
//! (`reset`) once.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Barrier, Cause, Deadline, Engine, Output, no_text};
use crate::alarms::builtin;
use crate::class::{Slot, safer};
use crate::event::{Body, PolicyLine};
use crate::ids::{AttributeName, EventId, ObjectName};
use crate::time::{Duration, Instant};
use crate::value::{Outcome, Request, Value};
use crate::world::Ix;

/// A hold on a control.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// Who: `policy:/mxp1/fan3`, `operator:ann`, `fallback:/mxp1/fan3`.
    pub by: Arc<str>,
    /// At which value.
    pub value: Value,
    /// Why.
    pub reason: Arc<str>,
    /// How strong.
    pub priority: i32,
    /// For how long after its owner has spoken last; `None`: its owner is on this node, and it stays as long as that.
    pub lease: Option<Duration>,
    /// When that ends.
    pub until: Option<Instant>,
    /// The event that it began with.
    pub event: EventId,
    /// The line that asked for it.
    pub policy: Option<PolicyLine>,
    pub(super) root: EventId,
}

/// A control: who holds it, and what was asked of its driver.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Control {
    /// In the order of their coming.
    pub claims: Vec<Claim>,
    /// What was asked for last.
    pub asked: Option<Value>,
    /// The request that is on its way, or waits to be repeated.
    pub request: Option<EventId>,
}

/// A request that has no outcome yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) ix: Ix,
    pub(super) control: AttributeName,
    pub(super) value: Option<Value>,
    pub(super) attempts: u32,
    pub(super) root: EventId,
}

/// Most claims on one control.
pub(super) const CLAIMS_MAX: usize = 32;
/// A claim from another node lasts so long after its last word.
pub(super) const LEASE: Duration = Duration::from_secs(60);
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(30);

impl Control {
    /// The claim that wins.
    pub fn strongest(&self, attribute: &crate::class::Attribute) -> Option<&Claim> {
        self.claims.iter().reduce(|best, other| {
            let wins = other.priority > best.priority
                || (other.priority == best.priority && safer(attribute, &other.value, &best.value));
            if wins { other } else { best }
        })
    }
}

impl Engine {
    /// Adds or renews a claim. The same claim again changes nothing but its lease.
    pub(super) fn claim(&mut self, ix: Ix, slot: Slot, claim: Claim, cause: Cause) -> Option<EventId> {
        let until = claim.lease.map(|l| self.now + l);
        let control = self.controls.entry((ix, slot)).or_default();
        if let Some(same) = control.claims.iter_mut().find(|c| c.by == claim.by) {
            if same.value == claim.value && same.priority == claim.priority {
                same.lease = claim.lease;
                same.until = until;
                let event = same.event;
                self.watch_leases(ix, slot);
                return Some(event);
            }
        } else if control.claims.len() >= CLAIMS_MAX {
            return None;
        }
        let old = control.asked.clone();
        let attribute = self.world.attribute(ix, slot).name.clone();
        let body = Body::Claimed { by: claim.by.clone(), priority: claim.priority };
        let mut draft = self.draft(ix, &attribute, cause, body);
        draft.old = old;
        draft.new = Some(claim.value.clone());
        draft.why = claim.reason.clone();
        draft.policy = claim.policy.clone();
        let event = self.emit(draft);
        let claim = Claim { event: event.id, root: event.root, until, ..claim };
        let control = self.controls.get_mut(&(ix, slot)).expect("entered above");
        match control.claims.iter_mut().find(|c| c.by == claim.by) {
            Some(same) => *same = claim.clone(),
            None => control.claims.push(claim.clone()),
        }
        self.save_claim(ix, slot, &claim);
        self.watch_leases(ix, slot);
        self.settle_control(ix, slot, false, Cause::of(&event));
        Some(event.id)
    }

    pub(super) fn release(&mut self, ix: Ix, slot: Slot, by: &str, cause: Cause, why: &str, policy: Option<PolicyLine>) -> Option<EventId> {
        let control = self.controls.get_mut(&(ix, slot))?;
        let position = control.claims.iter().position(|c| &*c.by == by)?;
        let claim = control.claims.remove(position);
        let attribute = self.world.attribute(ix, slot).name.clone();
        let mut draft = self.draft(ix, &attribute, cause, Body::Released { by: claim.by.clone() });
        draft.old = Some(claim.value);
        draft.why = why.into();
        draft.policy = policy;
        let event = self.emit(draft);
        self.delete_claim(ix, slot, by);
        self.settle_control(ix, slot, false, Cause::of(&event));
        Some(event.id)
    }

    /// Asks the driver for what the claims come to. `orphaned`: the last claim's owner is gone, so what is safe counts.
    fn settle_control(&mut self, ix: Ix, slot: Slot, orphaned: bool, cause: Cause) {
        let attribute = self.world.attribute(ix, slot);
        let Some(control) = self.controls.get(&(ix, slot)) else { return };
        let (wanted, why, policy) = match control.strongest(attribute) {
            Some(claim) => (Some(claim.value.clone()), claim.reason.clone(), claim.policy.clone()),
            None if orphaned => (attribute.safe.clone().or_else(|| attribute.rest.clone()), "nobody holds it: safe".into(), None),
            None => (attribute.rest.clone(), "nobody holds it".into(), None),
        };
        let Some(wanted) = wanted else {
            // Nobody claims it and the class names no rest: it stays as it is.
            self.controls.get_mut(&(ix, slot)).expect("looked up above").asked = None;
            return;
        };
        if control.asked.as_ref() == Some(&wanted) {
            return;
        }
        self.ask(ix, slot, wanted, why, policy, cause);
    }

    fn ask(&mut self, ix: Ix, slot: Slot, value: Value, why: Arc<str>, policy: Option<PolicyLine>, cause: Cause) {
        let attribute = self.world.attribute(ix, slot);
        let (name, careful) = (attribute.name.clone(), attribute.careful);
        let control = self.controls.entry((ix, slot)).or_default();
        let old = control.asked.replace(value.clone());
        if let Some(before) = control.request.take() {
            self.requests.remove(&before);
            self.deadlines.cancel(&Deadline::Retry(before));
        }
        let mut draft = self.draft(ix, &name, cause, Body::Intent { edge: false });
        draft.old = old;
        draft.new = Some(value.clone());
        draft.why = why;
        draft.policy = policy;
        let epoch = draft.epoch;
        let event = self.emit(draft);
        let request = Request { id: event.id, object: event.object.clone(), control: name.clone(), value: Some(value.clone()), epoch };
        self.controls.entry((ix, slot)).or_default().request = Some(event.id);
        self.requests.insert(event.id, Pending { ix, control: name, value: Some(value), attempts: 0, root: event.root });
        let after = if careful { Barrier::Replicated } else { Barrier::Journalled };
        self.outputs.push_back(Output::Act { request, after });
    }

    /// Does something once: its intent is saved first, so that a successor does not do it again.
    pub(super) fn operate(&mut self, ix: Ix, name: &AttributeName, why: Arc<str>, policy: Option<PolicyLine>, cause: Cause) -> EventId {
        let mut draft = self.draft(ix, name, cause, Body::Intent { edge: true });
        draft.why = why;
        draft.policy = policy;
        let epoch = draft.epoch;
        let event = self.emit(draft);
        self.requests.insert(event.id, Pending { ix, control: name.clone(), value: None, attempts: 0, root: event.root });
        self.save_intent(ix, event.id, name);
        let request = Request { id: event.id, object: event.object.clone(), control: name.clone(), value: None, epoch };
        self.outputs.push_back(Output::Act { request, after: Barrier::Replicated });
        event.id
    }

    pub(super) fn on_outcome(&mut self, request: EventId, outcome: Outcome) {
        let Some(pending) = self.requests.get(&request).cloned() else { return };
        let mut draft = self.draft(pending.ix, &pending.control, Cause { id: Some(request), root: Some(pending.root) }, Body::Outcome(outcome.clone()));
        draft.new = pending.value.clone();
        draft.why = match &outcome {
            Outcome::Done => no_text(),
            Outcome::Refused(why) => why.as_str().into(),
            Outcome::Fenced { by } => format!("the device has seen epoch {by}").into(),
            Outcome::Unknown => "no answer".into(),
        };
        let event = self.emit(draft);
        let cause = Cause::of(&event);
        let control = pending.control.as_str().to_owned();
        match (&pending.value, outcome) {
            (Some(_), Outcome::Done) => {
                self.requests.remove(&request);
                self.level_done(pending.ix, &pending.control, request);
                self.control_works(pending.ix, &control, cause);
            }
            // A fenced owner is about to learn that it is none; asking again would only be fenced again.
            (Some(_), Outcome::Fenced { .. }) => drop(self.requests.remove(&request)),
            (Some(_), Outcome::Refused(_) | Outcome::Unknown) => self.level_failed(request, &event.why, cause),
            (None, outcome) => {
                self.requests.remove(&request);
                self.delete_intent(pending.ix, request);
                match outcome {
                    Outcome::Done | Outcome::Fenced { .. } => {}
                    Outcome::Refused(why) => self.raise_own(pending.ix, builtin::CONTROL_FAILED, &control, format!("{control}: {why}"), cause, None),
                    Outcome::Unknown => {
                        let text = format!("{control} was asked for; nobody knows whether it happened");
                        self.raise_own(pending.ix, builtin::ACTION_OUTCOME_UNKNOWN, &control, text, cause, None);
                    }
                }
            }
        }
    }

    fn level_done(&mut self, ix: Ix, control: &AttributeName, request: EventId) {
        if let Some(slot) = self.world.object(ix).class.slot(control.as_str())
            && let Some(state) = self.controls.get_mut(&(ix, slot))
            && state.request == Some(request)
        {
            state.request = None;
        }
    }

    /// A level that failed is asked again, more and more seldom, for as long as it is wanted.
    fn level_failed(&mut self, request: EventId, why: &str, cause: Cause) {
        let Some(pending) = self.requests.get_mut(&request) else { return };
        pending.attempts += 1;
        let delay = RETRY_FIRST.saturating_mul(1 << (pending.attempts - 1).min(5)).min(RETRY_MOST);
        let (ix, control) = (pending.ix, pending.control.clone());
        let at = self.now + delay;
        self.deadlines.set(Deadline::Retry(request), at);
        self.raise_own(ix, builtin::CONTROL_FAILED, control.as_str(), format!("{control}: {why}"), cause, None);
    }

    pub(super) fn on_retry(&mut self, id: EventId) {
        let Some(pending) = self.requests.get(&id) else { return };
        let object = self.world.object(pending.ix);
        let Some(epoch) = object.owned else {
            self.requests.remove(&id);
            return;
        };
        let careful = object.class.slot(pending.control.as_str()).is_some_and(|s| object.class.attribute(s).careful);
        let request = Request { id, object: object.name.clone(), control: pending.control.clone(), value: pending.value.clone(), epoch };
        let after = if careful { Barrier::Replicated } else { Barrier::Journalled };
        self.outputs.push_back(Output::Act { request, after });
    }

    fn watch_leases(&mut self, ix: Ix, slot: Slot) {
        let next = self.controls.get(&(ix, slot)).and_then(|c| c.claims.iter().filter_map(|c| c.until).min());
        match next {
            Some(at) => self.deadlines.set(Deadline::Lease(ix, slot), at),
            None => self.deadlines.cancel(&Deadline::Lease(ix, slot)),
        }
    }

    pub(super) fn on_lease(&mut self, ix: Ix, slot: Slot) {
        let now = self.now;
        let Some(control) = self.controls.get_mut(&(ix, slot)) else { return };
        let (over, kept): (Vec<Claim>, Vec<Claim>) = std::mem::take(&mut control.claims).into_iter().partition(|c| c.until.is_some_and(|u| u <= now));
        control.claims = kept;
        let mut cause = Cause::NONE;
        for claim in over {
            let attribute = self.world.attribute(ix, slot).name.clone();
            let from = Cause { id: Some(claim.event), root: Some(claim.root) };
            let mut draft = self.draft(ix, &attribute, from, Body::Released { by: claim.by.clone() });
            draft.old = Some(claim.value.clone());
            draft.why = "its lease is over".into();
            cause = Cause::of(&self.emit(draft));
            self.delete_claim(ix, slot, &claim.by);
        }
        self.watch_leases(ix, slot);
        if cause != Cause::NONE {
            self.settle_control(ix, slot, true, cause);
        }
    }

    /// What the last owner held. A claim whose own owner is not here lives for one more lease.
    pub(super) fn restore_claim(&mut self, ix: Ix, slot: Slot, mut claim: Claim) {
        let local = claim.by.strip_prefix("policy:").or_else(|| claim.by.strip_prefix("fallback:"));
        let local = local.and_then(|name| self.world.find(name)).is_some_and(|ix| self.world.object(ix).owned.is_some());
        claim.lease = if local { None } else { claim.lease.or(Some(LEASE)) };
        claim.until = claim.lease.map(|l| self.now + l);
        let control = self.controls.entry((ix, slot)).or_default();
        control.claims.retain(|c| c.by != claim.by);
        control.claims.push(claim);
        self.watch_leases(ix, slot);
    }

    /// A new owner asks again for every level that is held: asking twice for a level does no harm.
    pub(super) fn reissue_levels(&mut self, wanted: &dyn Fn(Ix) -> bool) {
        let keys: Vec<(Ix, Slot)> = self.controls.keys().copied().filter(|(ix, _)| wanted(*ix)).collect();
        for (ix, slot) in keys {
            let attribute = self.world.attribute(ix, slot);
            let Some(claim) = self.controls.get(&(ix, slot)).and_then(|c| c.strongest(attribute)).cloned() else { continue };
            let cause = Cause { id: Some(claim.event), root: Some(claim.root) };
            self.ask(ix, slot, claim.value, "asked again by the new owner".into(), claim.policy, cause);
        }
    }

    /// Whether so many more claims have room.
    pub(super) fn has_room_for_claim(&self, ix: Ix, slot: Slot, by: &str) -> bool {
        self.controls.get(&(ix, slot)).is_none_or(|c| c.claims.len() < CLAIMS_MAX || c.claims.iter().any(|c| &*c.by == by))
    }

    pub(super) fn policy_name(&self, ix: Ix) -> Arc<str> {
        by_policy(&self.world.object(ix).name)
    }
}

/// The name under which an object's policy claims.
pub(super) fn by_policy(object: &ObjectName) -> Arc<str> {
    format!("policy:{object}").into()
}
