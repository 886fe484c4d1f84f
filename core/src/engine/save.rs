//! What the owner keeps for its successor: alarms with ids and acknowledgements, claims, timers, intents.
//!
//! Each is one section of the ownership group's checkpoint, a format byte and postcard. Instants of one node mean nothing on
//! another, so what is left of a duration is saved, and the successor gives it once more in full where that is safer.

use std::sync::Arc;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::alarms::{AlarmKey, Phase};
use super::claims::Claim;
use super::{Cause, Engine};
use crate::alarms::{Severity, builtin};
use crate::class::Slot;
use crate::event::PolicyLine;
use crate::ids::{AttributeName, EventId, GroupName, ObjectName};
use crate::time::{Duration, WallTime};
use crate::value::Value;
use crate::world::Ix;

/// An alarm as it is saved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct SavedAlarm {
    pub(super) object: ObjectName,
    pub(super) kind: String,
    pub(super) qualifier: String,
    pub(super) id: EventId,
    pub(super) severity: Severity,
    pub(super) text: String,
    pub(super) since: WallTime,
    pub(super) acknowledged: Option<(String, String)>,
    pub(super) shelved_for: Option<(Duration, String)>,
    pub(super) suppressed: bool,
}

/// A claim as it is saved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SavedClaim {
    object: ObjectName,
    control: AttributeName,
    by: String,
    value: Value,
    reason: String,
    priority: i32,
    lease: Option<Duration>,
    event: EventId,
    root: EventId,
    policy: Option<PolicyLine>,
}

/// A timer as it is saved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SavedTimer {
    object: ObjectName,
    name: String,
    delay: Duration,
    cause: Option<EventId>,
    root: Option<EventId>,
}

/// An edge action that has been asked for, and whose outcome is not known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SavedIntent {
    object: ObjectName,
    operation: AttributeName,
    id: EventId,
}

/// First byte of every section.
const FORMAT: u8 = 1;

fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(value, vec![FORMAT]).expect("a value in memory has an encoding")
}

/// `None` for another format or torn bytes: the successor goes without, and the sensors tell it anew.
fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (format, rest) = bytes.split_first()?;
    (*format == FORMAT).then(|| postcard::from_bytes(rest).ok()).flatten()
}

impl Engine {
    fn alarm_section(&self, key: &AlarmKey) -> String {
        format!("alarm {} {} {}", self.world.object(key.object).name, key.kind, key.qualifier)
    }

    pub(super) fn save_alarm(&mut self, key: &AlarmKey) {
        let Some(alarm) = self.alarms.get(key) else { return };
        let Some(id) = alarm.id.filter(|_| alarm.phase != Phase::Idle || alarm.unstable) else { return };
        let saved = SavedAlarm {
            object: self.world.object(key.object).name.clone(),
            kind: key.kind.to_string(),
            qualifier: key.qualifier.to_string(),
            id,
            severity: alarm.severity,
            text: alarm.text.to_string(),
            since: alarm.since,
            acknowledged: alarm.acknowledged.as_ref().map(|(by, text)| (by.to_string(), text.clone())),
            shelved_for: alarm.shelved.as_ref().map(|(until, by)| (until.since(self.now), by.to_string())),
            suppressed: alarm.suppressed,
        };
        let section = self.alarm_section(key);
        self.save_for(key.object, section, Some(encode(&saved)));
    }

    pub(super) fn delete_alarm(&mut self, key: &AlarmKey) {
        let section = self.alarm_section(key);
        self.save_for(key.object, section, None);
    }

    fn claim_section(&self, ix: Ix, slot: Slot, by: &str) -> String {
        format!("claim {} {} {by}", self.world.object(ix).name, self.world.attribute(ix, slot).name)
    }

    pub(super) fn save_claim(&mut self, ix: Ix, slot: Slot, claim: &Claim) {
        let saved = SavedClaim {
            object: self.world.object(ix).name.clone(),
            control: self.world.attribute(ix, slot).name.clone(),
            by: claim.by.to_string(),
            value: claim.value.clone(),
            reason: claim.reason.to_string(),
            priority: claim.priority,
            lease: claim.lease,
            event: claim.event,
            root: claim.root,
            policy: claim.policy.clone(),
        };
        let section = self.claim_section(ix, slot, &claim.by);
        self.save_for(ix, section, Some(encode(&saved)));
    }

    pub(super) fn delete_claim(&mut self, ix: Ix, slot: Slot, by: &str) {
        let section = self.claim_section(ix, slot, by);
        self.save_for(ix, section, None);
    }

    pub(super) fn save_timer(&mut self, ix: Ix, name: &Arc<str>) {
        let Some(timer) = self.timers.get(&(ix, name.clone())) else { return };
        let object = self.world.object(ix).name.clone();
        let section = format!("timer {object} {name}");
        let saved = SavedTimer { object, name: name.to_string(), delay: timer.delay, cause: timer.cause.id, root: timer.cause.root };
        self.save_for(ix, section, Some(encode(&saved)));
    }

    pub(super) fn delete_timer(&mut self, ix: Ix, name: &Arc<str>) {
        let section = format!("timer {} {name}", self.world.object(ix).name);
        self.save_for(ix, section, None);
    }

    pub(super) fn save_intent(&mut self, ix: Ix, id: EventId, operation: &AttributeName) {
        let saved = SavedIntent { object: self.world.object(ix).name.clone(), operation: operation.clone(), id };
        self.save_for(ix, format!("intent {id}"), Some(encode(&saved)));
    }

    pub(super) fn delete_intent(&mut self, ix: Ix, id: EventId) {
        self.save_for(ix, format!("intent {id}"), None);
    }

    /// Continues what the last owner of a group had saved. Sections of objects and words that are no more are passed over.
    pub(super) fn continue_from(&mut self, group: &GroupName, mut saved: Vec<(String, Vec<u8>)>) {
        saved.sort();
        // What was mirrored from events is superseded by what the owner itself had saved.
        let mirrored: Vec<AlarmKey> =
            self.alarms.keys().filter(|k| self.world.object(k.object).owner.group() == Some(group)).cloned().collect();
        for key in mirrored {
            self.alarms.remove(&key);
            self.world_mut().raised.remove(&(key.object, key.kind));
        }
        for (section, bytes) in saved {
            match section.split(' ').next() {
                Some("alarm") => self.restore_saved_alarm(group, &bytes),
                Some("claim") => self.restore_saved_claim(group, &bytes),
                Some("timer") => self.restore_saved_timer(group, &bytes),
                Some("intent") => self.restore_saved_intent(group, &bytes),
                _ => {}
            }
        }
    }

    fn of_group(&self, group: &GroupName, name: &ObjectName) -> Option<Ix> {
        self.world.find(name.as_str()).filter(|ix| self.world.object(*ix).owner.group() == Some(group))
    }

    fn restore_saved_alarm(&mut self, group: &GroupName, bytes: &[u8]) {
        let Some(saved) = decode::<SavedAlarm>(bytes) else { return };
        let Some(object) = self.of_group(group, &saved.object) else { return };
        if self.world.compiled.catalogue.get(&saved.kind).is_some() {
            let key = AlarmKey { object, kind: saved.kind.as_str().into(), qualifier: saved.qualifier.as_str().into() };
            self.restore_alarm(key, saved);
        }
    }

    fn restore_saved_claim(&mut self, group: &GroupName, bytes: &[u8]) {
        let Some(saved) = decode::<SavedClaim>(bytes) else { return };
        let Some(ix) = self.of_group(group, &saved.object) else { return };
        let Some(slot) = self.world.object(ix).class.slot(saved.control.as_str()) else { return };
        let attribute = self.world.attribute(ix, slot);
        let Some(value) = attribute.kind.fit(&saved.value).filter(|v| attribute.control && attribute.in_range(v)) else { return };
        let claim = Claim {
            by: saved.by.into(),
            value,
            reason: saved.reason.into(),
            priority: saved.priority,
            lease: saved.lease,
            until: None,
            event: saved.event,
            policy: saved.policy,
            root: saved.root,
        };
        self.restore_claim(ix, slot, claim);
    }

    fn restore_saved_timer(&mut self, group: &GroupName, bytes: &[u8]) {
        let Some(saved) = decode::<SavedTimer>(bytes) else { return };
        if let Some(ix) = self.of_group(group, &saved.object) {
            let cause = Cause { id: saved.cause, root: saved.root };
            self.set_timer(ix, saved.name.into(), saved.delay, cause);
        }
    }

    /// The last owner asked for something that may happen once only, and nobody here knows whether it happened.
    fn restore_saved_intent(&mut self, group: &GroupName, bytes: &[u8]) {
        let Some(saved) = decode::<SavedIntent>(bytes) else { return };
        let Some(ix) = self.of_group(group, &saved.object) else { return };
        let text = format!("{} was asked for by the last owner; nobody knows whether it happened", saved.operation);
        let cause = Cause { id: Some(saved.id), root: None };
        self.raise_own(ix, builtin::ACTION_OUTCOME_UNKNOWN, saved.operation.as_str(), text, cause, None);
        self.delete_intent(ix, saved.id);
    }
}
