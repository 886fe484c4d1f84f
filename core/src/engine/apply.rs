//! Carries out what a handler has planned: all of it, or none.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::alarms::{AlarmKey, Evidence};
use super::claims::{Claim, LEASE, by_policy};
use super::{AlarmRef, Cause, Command, CommandBody, CommandId, Control, ControlAction, Deadline, Engine, Output};
use crate::authority::{AccessRole, Principal};
use crate::class::CHASSIS_CLASS_WORD;
use crate::event::{Body, PolicyLine};
use crate::ids::{AttributeName, ChassisName, EventId, GroupName};
use crate::policy::{Act, Planned};
use crate::time::{Duration, Instant};
use crate::world::Ix;

/// A timer that a policy has set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Timer {
    pub(super) until: Instant,
    pub(super) delay: Duration,
    pub(super) cause: Cause,
}

/// Most timers of one object.
pub(super) const TIMERS_MAX: usize = 32;

impl Engine {
    /// Whether everything has room; what comes after cannot fail.
    ///
    /// # Errors
    /// The line that has none, and what is full.
    pub(super) fn has_room(&self, me: Ix, planned: &[Planned]) -> Result<(), (PolicyLine, String)> {
        let mut timers: usize = self.timers.range((me, Arc::from(""))..).take_while(|((ix, _), _)| *ix == me).count();
        let by = self.policy_name(me);
        for p in planned {
            match &p.act {
                Act::Claim { object, control, .. } if !self.has_room_for_claim(*object, *control, &by) => {
                    return Err((p.line.clone(), format!("{} has as many claims as it can have", self.world.object(*object).name)));
                }
                Act::After { name, .. } if !self.timers.contains_key(&(me, name.clone())) => {
                    timers += 1;
                    if timers > TIMERS_MAX {
                        return Err((p.line.clone(), format!("more than {TIMERS_MAX} timers")));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn apply(&mut self, me: Ix, planned: Vec<Planned>, cause: Cause) {
        for p in planned {
            self.apply_one(me, p, cause);
        }
    }

    fn apply_one(&mut self, me: Ix, planned: Planned, cause: Cause) {
        let line = planned.line;
        match planned.act {
            Act::Raise { object, kind, qualifier, text } => {
                if self.is_owned(object) {
                    self.raise(AlarmKey { object, kind, qualifier }, Evidence { text, cause, policy: Some(line) });
                } else {
                    let alarm = self.alarm_ref(object, kind, qualifier);
                    self.forward(me, object, CommandBody::Raise { alarm, text: text.to_string() }, cause);
                }
            }
            Act::Clear { object, kind, qualifier } => {
                if self.is_owned(object) {
                    self.clear(&AlarmKey { object, kind, qualifier }, cause, Some(line));
                } else {
                    let alarm = self.alarm_ref(object, kind, qualifier);
                    self.forward(me, object, CommandBody::Clear { alarm }, cause);
                }
            }
            Act::Claim { object, control, value, reason, priority } => {
                if self.is_owned(object) {
                    let claim = Claim {
                        by: self.policy_name(me),
                        value,
                        reason,
                        priority,
                        lease: None,
                        until: None,
                        event: EventId::default(),
                        policy: Some(line),
                        root: EventId::default(),
                    };
                    self.claim(object, control, claim, cause);
                } else {
                    let (name, control) = self.place(object, control);
                    let body = CommandBody::Claim { object: name, control, value, reason: reason.to_string(), priority: Some(priority), lease: Some(LEASE) };
                    self.forward(me, object, body, cause);
                }
            }
            Act::Release { object, control } => {
                if self.is_owned(object) {
                    let by = self.policy_name(me);
                    self.release(object, control, &by, cause, "released", Some(line));
                } else {
                    let (name, control) = self.place(object, control);
                    self.forward(me, object, CommandBody::Release { object: name, control }, cause);
                }
            }
            Act::Operation { object, name } => {
                if self.is_owned(object) {
                    self.operate(object, &name, "".into(), Some(line), cause);
                } else {
                    let on = self.world.object(object).name.clone();
                    self.forward(me, object, CommandBody::Operate { object: on, operation: name, reason: line.to_string() }, cause);
                }
            }
            Act::Evacuate { object, reason } => match self.evacuation(object) {
                Some(what) => self.ask_roles(object, "evacuate", what, reason, line, cause),
                None => self.misdirected(me, "evacuate is for a chassis or a node", &line, cause),
            },
            Act::Failover { object, reason } => match self.service(object) {
                Some(group) => self.ask_roles(object, "failover", Control::Failover(group), reason, line, cause),
                None => self.misdirected(me, "failover is for a service", &line, cause),
            },
            Act::Switchover { object, reason } => match self.service(object) {
                Some(group) => self.ask_roles(object, "switchover", Control::Switchover(group), reason, line, cause),
                None => self.misdirected(me, "switchover is for a service", &line, cause),
            },
            Act::After { delay, name } => self.set_timer(me, name, delay, cause),
            Act::Cancel { name } => self.cancel_timer(me, &name),
            Act::Log { text } => {
                let mut draft = self.draft(me, &AttributeName::new("log"), cause, Body::Log);
                draft.why = text;
                draft.policy = Some(line);
                self.emit(draft);
            }
        }
    }

    pub(super) fn is_owned(&self, ix: Ix) -> bool {
        self.world.object(ix).owned.is_some()
    }

    fn place(&self, ix: Ix, slot: crate::class::Slot) -> (crate::ids::ObjectName, AttributeName) {
        (self.world.object(ix).name.clone(), self.world.attribute(ix, slot).name.clone())
    }

    fn alarm_ref(&self, ix: Ix, kind: Arc<str>, qualifier: Arc<str>) -> AlarmRef {
        AlarmRef { object: self.world.object(ix).name.clone(), kind, qualifier }
    }

    /// Something for an object that another node owns. Its id follows from ours, so that a repeat is known as one.
    fn forward(&mut self, me: Ix, object: Ix, body: CommandBody, cause: Cause) {
        let name = by_policy(&self.world.object(me).name);
        self.sequence += 1;
        let id = (u128::from(self.me.node.0) << 112) | (u128::from(self.me.incarnation.0 & 0xffff_ffff) << 64) | u128::from(self.sequence);
        let command = Command {
            id: CommandId(id),
            principal: Principal { name, role: AccessRole::Node },
            cause: cause.id,
            expected_version: None,
            body,
        };
        let group = self.world.object(object).owner.group().cloned();
        self.outputs.push_back(Output::Forward { group, command });
    }

    fn evacuation(&self, ix: Ix) -> Option<Control> {
        let object = self.world.object(ix);
        match object.class.name.as_str() {
            CHASSIS_CLASS_WORD => Some(Control::EvacuateChassis(ChassisName::new(object.name.as_str().trim_start_matches('/')))),
            _ => object.node.map(Control::EvacuateNode),
        }
    }

    fn service(&self, ix: Ix) -> Option<GroupName> {
        self.world.object(ix).name.as_str().strip_prefix("/services/").filter(|n| !n.contains('/')).map(GroupName::new)
    }

    /// A request to the role machine. Its event comes first and is its cause there.
    fn ask_roles(&mut self, object: Ix, word: &str, what: Control, reason: Arc<str>, line: PolicyLine, cause: Cause) {
        let mut draft = self.draft(object, &AttributeName::new(word), cause, Body::Control);
        draft.why = reason.clone();
        draft.policy = Some(line);
        let event = self.emit(draft);
        self.outputs.push_back(Output::Control(ControlAction { what, cause: event.id, reason }));
    }

    fn misdirected(&mut self, me: Ix, text: &str, line: &PolicyLine, cause: Cause) {
        let text = format!("{line}: {text}");
        self.raise_own(me, crate::alarms::builtin::POLICY_FAILED, "", text, cause, Some(line.clone()));
    }

    pub(super) fn set_timer(&mut self, ix: Ix, name: Arc<str>, delay: Duration, cause: Cause) {
        let until = self.now + delay;
        self.timers.insert((ix, name.clone()), Timer { until, delay, cause });
        self.deadlines.set(Deadline::Timer(ix, name.clone()), until);
        self.save_timer(ix, &name);
    }

    fn cancel_timer(&mut self, ix: Ix, name: &Arc<str>) {
        if self.timers.remove(&(ix, name.clone())).is_some() {
            self.deadlines.cancel(&Deadline::Timer(ix, name.clone()));
            self.delete_timer(ix, name);
        }
    }
}
