//! Commands from outside: authority first, then ownership, then what was asked for; a retry gets the first answer.

use std::sync::Arc;

use super::alarms::{AlarmKey, Evidence};
use super::claims::Claim;
use super::{ANSWERS_MAX, AlarmRef, Cause, Command, CommandBody, CommandError, CommandId, Deadline, Engine, Output};
use crate::authority::{AccessRole, Wanted, decide};
use crate::class::Slot;
use crate::diagnostic::suggestion;
use crate::event::{AlarmStep, Body};
use crate::ids::{AttributeName, EventId, ObjectName};
use crate::policy::{NORMAL, OPERATOR};
use crate::time::Duration;
use crate::value::Value;
use crate::world::Ix;

/// An operator's claim lasts so long unless he says otherwise.
const OPERATOR_LEASE: Duration = Duration::from_secs(600);

type Answer = Result<EventId, CommandError>;

impl Engine {
    pub(super) fn on_command(&mut self, command: Command) {
        let id = command.id;
        if let Some((_, first)) = self.answers.iter().find(|(answered, _)| *answered == id) {
            let result = first.clone();
            self.outputs.push_back(Output::Reply { id, result });
            return;
        }
        let result = self.decide_and_do(command);
        if self.answers.len() >= ANSWERS_MAX {
            self.answers.pop_front();
        }
        self.answers.push_back((id, result.clone()));
        self.outputs.push_back(Output::Reply { id, result });
    }

    fn decide_and_do(&mut self, command: Command) -> Answer {
        decide(&command.principal, Wanted::Command(&command.body))?;
        if let Some(expected) = command.expected_version
            && expected != self.bundle_version
        {
            return Err(CommandError::Version { expected, present: self.bundle_version });
        }
        let ix = self.commanded(command.body.object())?;
        let by: Arc<str> = match command.principal.role {
            AccessRole::Node => command.principal.name.clone(),
            _ => format!("operator:{}", command.principal.name).into(),
        };
        let first = Cause { id: command.cause, root: None };
        // What is refused leaves the objects untouched, so it is looked at before the command becomes an event.
        let ready = self.prepare(ix, command.body)?;
        let asked = self.command_event(ix, &command.id, &command.principal.name, first);
        self.carry_out(ix, ready, &by, command.principal.role, asked)
    }

    /// The object that a command is about, if this node owns it.
    fn commanded(&self, name: &ObjectName) -> Result<Ix, CommandError> {
        let Some(ix) = self.world.find(name.as_str()) else {
            let all: Vec<&str> = self.world.iter().map(|(_, o)| o.name.as_str()).collect();
            let help = crate::diagnostic::nearest(name.as_str(), all).map(|n| format!("; did you mean {n}?")).unwrap_or_default();
            return Err(CommandError::Unknown(format!("there is no object {name}{help}")));
        };
        if self.is_owned(ix) {
            return Ok(ix);
        }
        Err(CommandError::NotOwner { object: name.clone(), owner: self.owner_of(name.as_str()) })
    }

    /// Checks everything that can be wrong with a command.
    fn prepare(&self, ix: Ix, body: CommandBody) -> Result<Ready, CommandError> {
        Ok(match body {
            CommandBody::Claim { control, value, reason, priority, lease, .. } => {
                let slot = self.slot(ix, &control, true)?;
                let value = self.fit(ix, slot, &value)?;
                Ready::Claim { slot, value, reason, priority, lease }
            }
            CommandBody::Release { control, .. } => Ready::Release(self.slot(ix, &control, true)?),
            CommandBody::Operate { operation, reason, .. } => {
                let class = &self.world.object(ix).class;
                if !class.operations.contains(&operation) {
                    let help = suggestion(operation.as_str(), class.operations.iter().map(AttributeName::as_str));
                    return Err(CommandError::Unknown(with_help(format!("a {} cannot {operation}", class.name), help)));
                }
                Ready::Operate { operation, reason }
            }
            CommandBody::Force { attribute, value, expires, .. } => {
                let slot = self.slot(ix, &attribute, false)?;
                let value = self.fit(ix, slot, &value)?;
                Ready::Force { slot, value, expires }
            }
            CommandBody::Unforce { attribute, .. } => Ready::Unforce(self.slot(ix, &attribute, false)?),
            CommandBody::Acknowledge { alarm, text } => Ready::Acknowledge { key: self.known_alarm(ix, alarm)?, text },
            CommandBody::Shelve { alarm, expires, text } => Ready::Shelve { key: self.known_alarm(ix, alarm)?, expires, text },
            CommandBody::Unshelve { alarm } => Ready::Unshelve(self.known_alarm(ix, alarm)?),
            CommandBody::Raise { alarm, text } => {
                if self.world.compiled.catalogue.get(&alarm.kind).is_none() {
                    let help = suggestion(&alarm.kind, self.world.compiled.catalogue.names());
                    return Err(CommandError::Unknown(with_help(format!("there is no alarm {}", alarm.kind), help)));
                }
                Ready::Raise { key: key(ix, alarm), text }
            }
            CommandBody::Clear { alarm } => Ready::Clear(key(ix, alarm)),
        })
    }

    fn slot(&self, ix: Ix, name: &AttributeName, control: bool) -> Result<Slot, CommandError> {
        let class = &self.world.object(ix).class;
        let help = |controls: bool| {
            if controls { suggestion(name.as_str(), class.control_names()) } else { suggestion(name.as_str(), class.attribute_names()) }
        };
        match class.slot(name.as_str()) {
            None => Err(CommandError::Unknown(with_help(format!("a {} has no `{name}`", class.name), help(control)))),
            Some(slot) if control && !class.attribute(slot).control => {
                Err(CommandError::Unknown(with_help(format!("`{name}` is a sensor and cannot be set"), help(true))))
            }
            Some(slot) => Ok(slot),
        }
    }

    fn fit(&self, ix: Ix, slot: Slot, value: &Value) -> Result<Value, CommandError> {
        let attribute = self.world.attribute(ix, slot);
        match attribute.kind.fit(value) {
            None => {
                let help = suggestion(&value.to_string(), attribute.kind.words());
                Err(CommandError::Value(with_help(format!("`{}` is {}, not {value}", attribute.name, attribute.kind.word()), help)))
            }
            Some(fitted) if !attribute.in_range(&fitted) => {
                let (low, high) = attribute.range.expect("out of a range");
                Err(CommandError::Value(format!("`{}` lies between {low} and {high}", attribute.name)))
            }
            Some(fitted) => Ok(fitted),
        }
    }

    fn known_alarm(&self, ix: Ix, alarm: AlarmRef) -> Result<AlarmKey, CommandError> {
        let key = key(ix, alarm);
        match self.alarms.get(&key) {
            Some(alarm) if alarm.is_active() || alarm.unstable || alarm.shelved.is_some() => Ok(key),
            _ => Err(CommandError::Unknown(format!("{} is not raised on {}", key.kind, self.world.object(ix).name))),
        }
    }

    fn command_event(&mut self, ix: Ix, id: &CommandId, principal: &Arc<str>, cause: Cause) -> Cause {
        let body = Body::Command { principal: principal.clone() };
        let mut draft = self.draft(ix, &AttributeName::new("command"), cause, body);
        draft.new = Some(Value::Text(id.to_string().into()));
        draft.why = principal.clone();
        Cause::of(&self.emit(draft))
    }

    fn carry_out(&mut self, ix: Ix, ready: Ready, by: &Arc<str>, role: AccessRole, asked: Cause) -> Answer {
        let event = match ready {
            Ready::Claim { slot, value, reason, priority, lease } => {
                let claim = Claim {
                    by: by.clone(),
                    value,
                    reason: reason.into(),
                    priority: priority.unwrap_or(if role == AccessRole::Node { NORMAL } else { OPERATOR }),
                    lease: Some(lease.unwrap_or(OPERATOR_LEASE)),
                    until: None,
                    event: EventId::default(),
                    policy: None,
                    root: EventId::default(),
                };
                let full = || CommandError::Value("the control has as many claims as it can have".into());
                Some(self.claim(ix, slot, claim, asked).ok_or_else(full)?)
            }
            Ready::Release(slot) => {
                let nothing = || CommandError::Unknown(format!("{by} holds no claim on it"));
                Some(self.release(ix, slot, by, asked, "released", None).ok_or_else(nothing)?)
            }
            Ready::Operate { operation, reason } => Some(self.operate(ix, &operation, reason.into(), None, asked)),
            Ready::Force { slot, value, expires } => {
                let until = self.now + expires;
                self.force(ix, slot, value, until, asked);
                None
            }
            Ready::Unforce(slot) => {
                self.unforce(ix, slot, asked, "no longer forced");
                None
            }
            Ready::Acknowledge { key, text } => {
                let alarm = self.alarms.get_mut(&key).expect("prepare looked");
                alarm.acknowledged = Some((by.clone(), text.clone()));
                self.alarm_event(&key, AlarmStep::Acknowledged, asked, format!("by {by}: {text}").into(), None)
            }
            Ready::Shelve { key, expires, text } => {
                let until = self.now + expires;
                self.alarms.get_mut(&key).expect("prepare looked").shelved = Some((until, by.clone()));
                self.deadlines.set(Deadline::Alarm(key.clone()), until);
                let event = self.alarm_event(&key, AlarmStep::Shelved, asked, format!("by {by}: {text}").into(), None);
                self.next_deadline(&key);
                event
            }
            Ready::Unshelve(key) => {
                self.alarms.get_mut(&key).expect("prepare looked").shelved = None;
                self.alarm_event(&key, AlarmStep::Unshelved, asked, format!("by {by}").into(), None)
            }
            Ready::Raise { key, text } => self.raise(key, Evidence { text: text.into(), cause: asked, policy: None }),
            Ready::Clear(key) => self.clear(&key, asked, None),
        };
        Ok(event.or(asked.id).expect("a command is an event"))
    }
}

/// A command that can be carried out.
enum Ready {
    Claim { slot: Slot, value: Value, reason: String, priority: Option<i32>, lease: Option<Duration> },
    Release(Slot),
    Operate { operation: AttributeName, reason: String },
    Force { slot: Slot, value: Value, expires: Duration },
    Unforce(Slot),
    Acknowledge { key: AlarmKey, text: String },
    Shelve { key: AlarmKey, expires: Duration, text: String },
    Unshelve(AlarmKey),
    Raise { key: AlarmKey, text: String },
    Clear(AlarmKey),
}

fn key(object: Ix, alarm: AlarmRef) -> AlarmKey {
    AlarmKey { object, kind: alarm.kind, qualifier: alarm.qualifier }
}

fn with_help(text: String, help: Option<String>) -> String {
    match help {
        Some(help) => format!("{text}; {help}"),
        None => text,
    }
}
