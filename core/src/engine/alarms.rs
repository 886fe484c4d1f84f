//! Alarms are state: one per object, type and qualifier. Raising twice is raising once.
//!
//! Hold-offs keep short troubles away, flapping becomes one `unstable` alarm, and what a failed parent explains is
//! suppressed and counted there. What is suppressed or shelved is hidden, never lost.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Cause, Deadline, Engine};
use crate::alarms::{Severity, builtin};
use crate::class::{ALARM, OPERATIONAL};
use crate::event::{AlarmStep, Body, Event, PolicyLine};
use crate::ids::{AttributeName, EventId};
use crate::time::{Duration, Instant, WallTime};
use crate::value::Value;
use crate::world::Ix;

/// Which alarm: object, type, qualifier.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AlarmKey {
    /// Where.
    pub object: Ix,
    /// Its type.
    pub kind: Arc<str>,
    /// Tells alarms of one type apart; usually empty.
    pub qualifier: Arc<str>,
}

/// One alarm and what has happened to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// Where it is in its life.
    pub phase: Phase,
    /// The event that raised it; people copy this id. It stays through a change of owner.
    pub id: Option<EventId>,
    /// How bad.
    pub severity: Severity,
    /// Evidence given with the raise.
    pub text: Arc<str>,
    /// When it was raised, for people.
    pub since: WallTime,
    /// Who has seen it, and what he wrote.
    pub acknowledged: Option<(Arc<str>, String)>,
    /// Until when it is put aside, and by whom.
    pub shelved: Option<(Instant, Arc<str>)>,
    /// A failed parent explains it.
    pub suppressed: bool,
    /// It comes and goes too often; its phase is what it would be.
    pub unstable: bool,
    /// The owner that said so is gone, and the present one has not confirmed it.
    pub stale: bool,
    /// Unconfirmed until then, after a change of owner.
    pub confirm_by: Option<Instant>,
    /// The line that raised it.
    pub policy: Option<PolicyLine>,
    raises: Vec<Instant>,
    cause: Cause,
}

/// Where an alarm is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Remembered only because it may be flapping.
    Idle,
    /// Held off: it is raised if it lasts until then.
    Waiting(Instant),
    /// It holds.
    Raised,
    /// Held off: it is cleared if that lasts until then.
    Clearing(Instant),
}

impl Alarm {
    /// Whether it counts as active: raised, or waiting to be cleared.
    pub fn is_active(&self) -> bool {
        matches!(self.phase, Phase::Raised | Phase::Clearing(_))
    }

    /// Whether an operator's list shows it by default.
    pub fn is_shown(&self) -> bool {
        (self.is_active() || self.unstable) && !self.suppressed && self.shelved.is_none()
    }
}

/// So many raises within [`FLAP_WINDOW`] make an alarm unstable.
pub(super) const FLAP_RAISES: usize = 4;
/// And so long a quiet makes it stable again.
pub(super) const FLAP_WINDOW: Duration = Duration::from_secs(60);
/// Most alarms; beyond, new ones are counted and dropped, since the first ones are nearer to the cause.
pub(super) const ALARMS_MAX: usize = 4096;
/// A new owner has so long to confirm an alarm, unless the object's own patience is longer.
const CONFIRM_WITHIN: Duration = Duration::from_secs(10);

/// What a raise comes with.
pub(super) struct Evidence {
    pub(super) text: Arc<str>,
    pub(super) cause: Cause,
    pub(super) policy: Option<PolicyLine>,
}

impl Engine {
    pub(super) fn raise(&mut self, key: AlarmKey, evidence: Evidence) -> Option<EventId> {
        let class = self.world.compiled.catalogue.get(&key.kind)?;
        let (severity, raise_after) = (class.severity, class.raise_after);
        if !self.alarms.contains_key(&key) {
            if self.alarms.len() >= ALARMS_MAX {
                self.counts.alarms_dropped += 1;
                return None;
            }
            self.alarms.insert(key.clone(), Alarm {
                phase: Phase::Idle,
                id: None,
                severity,
                text: evidence.text.clone(),
                since: self.wall,
                acknowledged: None,
                shelved: None,
                suppressed: false,
                unstable: false,
                stale: false,
                confirm_by: None,
                policy: evidence.policy.clone(),
                raises: Vec::new(),
                cause: evidence.cause,
            });
        }
        let now = self.now;
        let alarm = self.alarms.get_mut(&key).expect("inserted above");
        let was_stale = std::mem::take(&mut alarm.stale);
        alarm.confirm_by = None;
        match alarm.phase {
            Phase::Raised | Phase::Waiting(_) => {
                let id = alarm.id;
                if was_stale {
                    return self.alarm_event(&key, AlarmStep::Raised, evidence.cause, "confirmed by the new owner".into(), evidence.policy).or(id);
                }
                return id;
            }
            Phase::Clearing(_) => {
                alarm.phase = Phase::Raised;
                let id = alarm.id;
                self.deadlines.cancel(&Deadline::Alarm(key));
                return id;
            }
            Phase::Idle => {}
        }
        alarm.severity = severity;
        alarm.text = evidence.text;
        alarm.cause = evidence.cause;
        alarm.policy = evidence.policy;
        if raise_after.is_zero() {
            return self.raise_now(&key);
        }
        alarm.phase = Phase::Waiting(now + raise_after);
        self.deadlines.set(Deadline::Alarm(key), now + raise_after);
        None
    }

    fn raise_now(&mut self, key: &AlarmKey) -> Option<EventId> {
        let now = self.now;
        let wall = self.wall;
        let suppressed = self.explained_by(key.object).is_some();
        let alarm = self.alarms.get_mut(key)?;
        alarm.phase = Phase::Raised;
        alarm.suppressed = suppressed;
        alarm.since = wall;
        alarm.raises.retain(|at| *at + FLAP_WINDOW > now);
        alarm.raises.push(now);
        let (cause, text, policy) = (alarm.cause, alarm.text.clone(), alarm.policy.clone());
        if alarm.unstable {
            self.deadlines.set(Deadline::Alarm(key.clone()), now + FLAP_WINDOW);
            return alarm.id;
        }
        if alarm.raises.len() >= FLAP_RAISES {
            alarm.unstable = true;
            self.deadlines.set(Deadline::Alarm(key.clone()), now + FLAP_WINDOW);
            let text = format!("{FLAP_RAISES} times within {} s", FLAP_WINDOW.as_secs()).into();
            return self.new_alarm(key, AlarmStep::Unstable, cause, text, policy);
        }
        let step = if suppressed { AlarmStep::Suppressed } else { AlarmStep::Raised };
        self.new_alarm(key, step, cause, text, policy)
    }

    /// An event whose id becomes the alarm's id.
    fn new_alarm(&mut self, key: &AlarmKey, step: AlarmStep, cause: Cause, why: Arc<str>, policy: Option<PolicyLine>) -> Option<EventId> {
        self.mark_raised(key, true);
        let id = self.alarm_event(key, step, cause, why, policy)?;
        self.alarms.get_mut(key)?.id = Some(id);
        self.save_alarm(key);
        Some(id)
    }

    pub(super) fn clear(&mut self, key: &AlarmKey, cause: Cause, policy: Option<PolicyLine>) -> Option<EventId> {
        let clear_after = self.world.compiled.catalogue.get(&key.kind)?.clear_after;
        let now = self.now;
        let alarm = self.alarms.get_mut(key)?;
        match alarm.phase {
            Phase::Idle | Phase::Clearing(_) => None,
            Phase::Waiting(_) => {
                self.deadlines.cancel(&Deadline::Alarm(key.clone()));
                self.alarms.get_mut(key)?.phase = Phase::Idle;
                self.forget_if_quiet(key);
                None
            }
            Phase::Raised => {
                alarm.cause = cause;
                alarm.policy = policy;
                if clear_after.is_zero() {
                    return self.clear_now(key);
                }
                alarm.phase = Phase::Clearing(now + clear_after);
                self.deadlines.set(Deadline::Alarm(key.clone()), now + clear_after);
                None
            }
        }
    }

    fn clear_now(&mut self, key: &AlarmKey) -> Option<EventId> {
        let now = self.now;
        let alarm = self.alarms.get_mut(key)?;
        alarm.phase = Phase::Idle;
        alarm.confirm_by = None;
        if alarm.unstable {
            self.deadlines.set(Deadline::Alarm(key.clone()), now + FLAP_WINDOW);
            return None;
        }
        let (cause, policy) = (alarm.cause, alarm.policy.clone());
        self.mark_raised(key, false);
        let id = self.alarm_event(key, AlarmStep::Cleared, cause, super::no_text(), policy);
        self.delete_alarm(key);
        if let Some(alarm) = self.alarms.get_mut(key) {
            alarm.suppressed = false;
            alarm.acknowledged = None;
            alarm.stale = false;
        }
        self.forget_if_quiet(key);
        id
    }

    /// An alarm that is over is remembered only for as long as its raises may make it unstable.
    fn forget_if_quiet(&mut self, key: &AlarmKey) {
        let now = self.now;
        let Some(alarm) = self.alarms.get_mut(key) else { return };
        if alarm.phase != Phase::Idle || alarm.unstable {
            return;
        }
        alarm.raises.retain(|at| *at + FLAP_WINDOW > now);
        let until = alarm.raises.last().map(|at| *at + FLAP_WINDOW);
        let shelf = alarm.shelved.as_ref().map(|(until, _)| *until);
        match until.max(shelf) {
            Some(until) if until > now => self.deadlines.set(Deadline::Alarm(key.clone()), until),
            _ => drop(self.alarms.remove(key)),
        }
    }

    pub(super) fn on_alarm_due(&mut self, key: &AlarmKey) {
        let now = self.now;
        let Some(alarm) = self.alarms.get_mut(key) else { return };
        let cause = alarm.cause;
        if alarm.shelved.as_ref().is_some_and(|(until, _)| *until <= now) {
            alarm.shelved = None;
            self.alarm_event(key, AlarmStep::Unshelved, Cause::NONE, "the shelf's time is over".into(), None);
        }
        let Some(alarm) = self.alarms.get_mut(key) else { return };
        if alarm.confirm_by.is_some_and(|by| by <= now) {
            alarm.confirm_by = None;
            alarm.stale = true;
            self.alarm_event(key, AlarmStep::Stale, Cause::NONE, "the new owner cannot confirm it".into(), None);
        }
        let Some(alarm) = self.alarms.get_mut(key) else { return };
        match alarm.phase {
            Phase::Waiting(until) if until <= now => drop(self.raise_now(key)),
            Phase::Clearing(until) if until <= now => drop(self.clear_now(key)),
            _ if alarm.unstable => self.settle(key, cause),
            Phase::Idle => self.forget_if_quiet(key),
            _ => {}
        }
        self.next_deadline(key);
    }

    /// An unstable alarm has been quiet for long enough.
    fn settle(&mut self, key: &AlarmKey, cause: Cause) {
        let now = self.now;
        let Some(alarm) = self.alarms.get_mut(key) else { return };
        alarm.raises.retain(|at| *at + FLAP_WINDOW > now);
        if !alarm.raises.is_empty() {
            return;
        }
        alarm.unstable = false;
        let over = alarm.phase == Phase::Idle;
        self.alarm_event(key, AlarmStep::Settled, cause, super::no_text(), None);
        if over {
            self.mark_raised(key, false);
            self.alarm_event(key, AlarmStep::Cleared, cause, super::no_text(), None);
            self.delete_alarm(key);
            self.forget_if_quiet(key);
        }
    }

    /// One deadline serves all that an alarm waits for.
    pub(super) fn next_deadline(&mut self, key: &AlarmKey) {
        let now = self.now;
        let Some(alarm) = self.alarms.get(key) else { return };
        let phase = match alarm.phase {
            Phase::Waiting(until) | Phase::Clearing(until) => Some(until),
            Phase::Idle | Phase::Raised => None,
        };
        let flap = (alarm.unstable || alarm.phase == Phase::Idle).then(|| alarm.raises.last().map(|at| *at + FLAP_WINDOW)).flatten();
        let shelf = alarm.shelved.as_ref().map(|(until, _)| *until);
        let next = [phase, flap, shelf, alarm.confirm_by].into_iter().flatten().filter(|at| *at > now).min();
        if let Some(next) = next {
            self.deadlines.set(Deadline::Alarm(key.clone()), next);
        }
    }

    pub(super) fn alarm_event(
        &mut self,
        key: &AlarmKey,
        step: AlarmStep,
        cause: Cause,
        why: Arc<str>,
        policy: Option<PolicyLine>,
    ) -> Option<EventId> {
        let severity = self.alarms.get(key)?.severity;
        let body = Body::Alarm { kind: key.kind.clone(), qualifier: key.qualifier.clone(), step };
        let mut draft = self.draft(key.object, &AttributeName::new(ALARM), cause, body);
        draft.new = Some(Value::Enum(Arc::from(step.word())));
        draft.severity = if step == AlarmStep::Cleared { Severity::Cleared } else { severity };
        draft.why = why;
        draft.policy = policy;
        let event = self.emit(draft);
        if step != AlarmStep::Cleared {
            self.save_alarm(key);
        }
        Some(event.id)
    }

    fn mark_raised(&mut self, key: &AlarmKey, raised: bool) {
        let entry = (key.object, key.kind.clone());
        // Another qualifier of the same type may still hold.
        let others = self.alarms.iter().any(|(k, a)| k.object == key.object && k.kind == key.kind && k != key && a.is_active());
        if raised {
            self.world_mut().raised.insert(entry);
        } else if !others {
            self.world_mut().raised.remove(&entry);
        }
    }

    /// The nearest object above that does not work.
    fn explained_by(&self, ix: Ix) -> Option<Ix> {
        let mut above = self.world.object(ix).parent;
        while let Some(parent) = above {
            let object = self.world.object(parent);
            let slot = object.class.slot(OPERATIONAL).expect("every class has it");
            if matches!(self.world.cell(parent, slot).usable(), Some(Value::Enum(word)) if &**word == "disabled") {
                return Some(parent);
            }
            above = object.parent;
        }
        None
    }

    /// How many alarms below an object its failure explains.
    pub fn suppressed_below(&self, object: &str) -> usize {
        let below = format!("{object}/");
        self.alarms.iter().filter(|(k, a)| a.suppressed && self.world.object(k.object).name.as_str().starts_with(&below)).count()
    }

    /// An object stopped or started working: what is below it is explained by that, or no longer.
    pub(super) fn judge_suppression(&mut self, ix: Ix, cause: Cause) {
        let below = format!("{}/", self.world.object(ix).name);
        let keys: Vec<AlarmKey> = (self.alarms.iter())
            .filter(|(k, a)| a.is_active() && self.world.object(k.object).name.as_str().starts_with(&below))
            .map(|(k, _)| k.clone())
            .collect();
        for key in keys {
            let suppressed = self.explained_by(key.object).is_some();
            let alarm = self.alarms.get_mut(&key).expect("listed above");
            if alarm.suppressed != suppressed {
                alarm.suppressed = suppressed;
                let step = if suppressed { AlarmStep::Suppressed } else { AlarmStep::Shown };
                self.alarm_event(&key, step, cause, super::no_text(), None);
            }
        }
    }

    /// An alarm that the last owner had. It keeps its id and waits to be confirmed.
    pub(super) fn restore_alarm(&mut self, key: AlarmKey, saved: super::save::SavedAlarm) {
        let object = self.world.object(key.object);
        let patience = object.stale_after.iter().flatten().copied().max().unwrap_or_default().max(CONFIRM_WITHIN);
        let by = self.now + patience;
        let alarm = Alarm {
            phase: Phase::Raised,
            id: Some(saved.id),
            severity: saved.severity,
            text: saved.text.into(),
            since: saved.since,
            acknowledged: saved.acknowledged.map(|(by, text)| (by.into(), text)),
            shelved: saved.shelved_for.map(|(left, by)| (self.now + left, by.into())),
            suppressed: saved.suppressed,
            unstable: false,
            stale: false,
            confirm_by: Some(by),
            policy: None,
            raises: Vec::new(),
            cause: Cause { id: Some(saved.id), root: None },
        };
        self.alarms.insert(key.clone(), alarm);
        self.mark_raised(&key, true);
        self.deadlines.set(Deadline::Alarm(key.clone()), by);
        self.next_deadline(&key);
    }

    /// What another owner says of its alarms.
    pub(super) fn mirror_alarm(&mut self, ix: Ix, event: &Event) {
        let Body::Alarm { kind, qualifier, step } = &event.body else { return };
        let key = AlarmKey { object: ix, kind: kind.clone(), qualifier: qualifier.clone() };
        if matches!(step, AlarmStep::Cleared) {
            self.end_mirrored(&key);
            return;
        }
        if self.alarms.len() >= ALARMS_MAX && !self.alarms.contains_key(&key) {
            self.counts.alarms_dropped += 1;
            return;
        }
        let wall = event.time.wall;
        let alarm = self.alarms.entry(key.clone()).or_insert_with(|| Alarm {
            phase: Phase::Raised,
            id: Some(event.id),
            severity: event.severity,
            text: event.why.clone(),
            since: wall,
            acknowledged: None,
            shelved: None,
            suppressed: false,
            unstable: false,
            stale: false,
            confirm_by: None,
            policy: event.policy.clone(),
            raises: Vec::new(),
            cause: Cause { id: event.cause, root: Some(event.root) },
        });
        match step {
            AlarmStep::Suppressed => alarm.suppressed = true,
            AlarmStep::Shown => alarm.suppressed = false,
            AlarmStep::Unstable => alarm.unstable = true,
            AlarmStep::Settled => alarm.unstable = false,
            AlarmStep::Stale => alarm.stale = true,
            AlarmStep::Acknowledged => alarm.acknowledged = Some(("".into(), event.why.to_string())),
            AlarmStep::Raised => alarm.stale = false,
            AlarmStep::Shelved | AlarmStep::Unshelved | AlarmStep::Cleared => {}
        }
        self.mark_raised(&key, true);
    }

    /// An alarm of another node's object is over.
    pub(super) fn end_mirrored(&mut self, key: &AlarmKey) {
        self.alarms.remove(key);
        self.mark_raised(key, false);
    }

    /// An alarm of the engine's own.
    pub(super) fn raise_own(&mut self, object: Ix, kind: &str, qualifier: &str, text: String, cause: Cause, policy: Option<PolicyLine>) {
        debug_assert!(self.world.compiled.catalogue.get(kind).is_some(), "built in");
        let key = AlarmKey { object, kind: kind.into(), qualifier: qualifier.into() };
        self.raise(key, Evidence { text: text.into(), cause, policy });
    }

    pub(super) fn clear_own(&mut self, object: Ix, kind: &str, qualifier: &str, cause: Cause) {
        let key = AlarmKey { object, kind: kind.into(), qualifier: qualifier.into() };
        self.clear(&key, cause, None);
    }

    pub(super) fn control_works(&mut self, object: Ix, control: &str, cause: Cause) {
        self.clear_own(object, builtin::CONTROL_FAILED, control, cause);
    }
}
