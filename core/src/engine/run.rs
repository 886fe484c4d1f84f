//! Calls handlers for events, one after the other, until nothing new comes of it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{CASCADE_MAX, Cause, Engine, TURN_CALLS};
use crate::alarms::builtin;
use crate::class::{ALARM, Slot};
use crate::engine::claims::Claim;
use crate::event::{Body, Event};
use crate::ids::EventId;
use crate::policy::{Call, Failure, Planned};
use crate::world::Ix;

impl Engine {
    /// Whether a handler here would be called for an event: its object's own, or one that hears of its class.
    pub(super) fn is_wanted(&self, ix: Option<Ix>, event: &Event) -> bool {
        let own = ix.map(|ix| self.world.object(ix)).filter(|o| o.owned.is_some()).and_then(|o| o.policy.as_ref());
        let own = own.is_some_and(|p| match event.body {
            Body::Alarm { .. } => p.has("on_alarm"),
            _ => p.handles_attribute(&event.attribute) || p.has("on_change"),
        });
        own || self.hearers.contains_key(&event.class)
    }

    /// Whether policies wait for the next instant. What was called by then counts in operations, which are the same in a replay.
    pub(super) fn is_spent(&self) -> bool {
        self.spent >= TURN_CALLS * self.budget.operations
    }

    /// Lets policies see what has happened, and what comes of that, up to [`CASCADE_MAX`], or as far as this instant goes.
    pub(super) fn run_policies(&mut self) {
        while !self.is_spent() {
            if let Some((ix, event)) = self.behind.hearers.pop_front() {
                if self.is_owned(ix) {
                    self.call(ix, &Call::Event(event.clone()), Cause::of(&event));
                }
                continue;
            }
            if let Some(ix) = self.behind.starts.pop_front() {
                if self.is_owned(ix) {
                    self.call(ix, &Call::Start, Cause::NONE);
                }
                continue;
            }
            let Some((ix, event)) = self.behind.events.pop_front() else { break };
            self.behind.seen += 1;
            if self.behind.seen > CASCADE_MAX {
                self.stop_cascade(ix, &event);
                break;
            }
            if let Some(ix) = ix {
                self.own_handlers(ix, &event);
            }
            self.behind.hearers = self.hearers_of(ix, &event);
        }
        if self.behind.is_empty() {
            self.behind.seen = 0;
        }
    }

    /// Events that cause each other without end: the rest is dropped, and an alarm says so.
    fn stop_cascade(&mut self, ix: Option<Ix>, event: &Arc<Event>) {
        self.behind.events.clear();
        let text = format!("more than {CASCADE_MAX} events came of one");
        if let Some(ix) = ix {
            self.raise_own(ix, builtin::CASCADE, "", text, Cause::of(event), None);
        }
        self.behind.events.clear();
    }

    fn own_handlers(&mut self, ix: Ix, event: &Arc<Event>) {
        let object = self.world.object(ix);
        let (Some(policy), true) = (object.policy.clone(), object.owned.is_some()) else { return };
        let cause = Cause::of(event);
        if let Body::Alarm { .. } = event.body {
            if policy.has("on_alarm") {
                self.call(ix, &Call::Alarm(event.clone()), cause);
            }
            return;
        }
        if policy.handles_attribute(&event.attribute) {
            self.call(ix, &Call::Attribute(&event.attribute, event.clone()), cause);
        }
        if policy.has("on_change") {
            self.call(ix, &Call::Change(event.clone()), cause);
        }
    }

    /// Who hears of an event about another object.
    fn hearers_of(&self, ix: Option<Ix>, event: &Arc<Event>) -> VecDeque<(Ix, Arc<Event>)> {
        debug_assert!(!matches!(event.body, Body::Alarm { .. }) || event.attribute.as_str() == ALARM, "alarms bear their own word");
        let hears = |hearer: Ix| self.world.object(hearer).class.hears.get(&event.class).is_some_and(|wanted| wanted.contains(&event.attribute));
        let hearers = self.hearers.get(&event.class).into_iter().flatten().copied();
        hearers.filter(|hearer| Some(*hearer) != ix && hears(*hearer)).map(|hearer| (hearer, event.clone())).collect()
    }

    pub(super) fn on_timer(&mut self, ix: Ix, name: &Arc<str>) {
        let Some(timer) = self.timers.remove(&(ix, name.clone())) else { return };
        self.delete_timer(ix, name);
        if self.is_owned(ix) {
            self.call(ix, &Call::Timer(name), timer.cause);
        }
    }

    /// One call: what it plans happens as a whole, or its failure is answered by the class's fallback and an alarm.
    fn call(&mut self, ix: Ix, call: &Call<'_>, cause: Cause) {
        let Some(policy) = self.world.object(ix).policy.clone() else { return };
        if !policy.handles(call) {
            return;
        }
        self.counts.calls += 1;
        let number = self.notes.calls;
        self.notes.calls += 1;
        // A replay has no clock: it is told which calls ran out of their time.
        let told = self.notes.told.as_ref().and_then(|t| t.overruns.iter().find(|(n, _)| *n == number).map(|(_, f)| f.clone()));
        let result = match told {
            Some(failure) => Err(failure),
            None => policy.run(&self.world, ix, call, self.budget),
        };
        let ran_out = matches!(&result, Err(failure) if failure.overrun);
        self.spent += if ran_out { self.budget.operations } else { policy.operations() };
        let result = result.and_then(|planned| match self.has_room(ix, &planned) {
            Ok(()) => Ok(planned),
            Err((line, message)) => Err(Failure { line, message, overrun: false }),
        });
        match result {
            Ok(planned) => self.call_succeeded(ix, call, planned, cause),
            Err(failure) => {
                if failure.overrun {
                    self.notes.overruns.push((number, failure.clone()));
                }
                self.call_failed(ix, call, &failure, cause);
            }
        }
    }

    fn call_succeeded(&mut self, ix: Ix, call: &Call<'_>, planned: Vec<Planned>, cause: Cause) {
        if let Some(failing) = self.failing.get_mut(&ix)
            && failing.remove(&handler_name(call))
            && failing.is_empty()
        {
            self.failing.remove(&ix);
            self.clear_own(ix, builtin::POLICY_FAILED, "", cause);
            self.release_fallback(ix, cause);
        }
        // Most calls plan nothing, and a plan that only repeats what is true already changes nothing.
        if !planned.is_empty() {
            self.apply(ix, planned, cause);
        }
    }

    fn call_failed(&mut self, ix: Ix, call: &Call<'_>, failure: &Failure, cause: Cause) {
        self.counts.failures += 1;
        self.failing.entry(ix).or_default().insert(handler_name(call));
        let text = format!("{}: {}", failure.line, failure.message);
        self.raise_own(ix, builtin::POLICY_FAILED, "", text, cause, Some(failure.line.clone()));
        let object = self.world.object(ix);
        let by: Arc<str> = format!("fallback:{}", object.name).into();
        let class = object.class.clone();
        for (slot, value) in &class.fallback {
            let claim = Claim {
                by: by.clone(),
                value: value.clone(),
                reason: "the policy failed".into(),
                priority: crate::policy::NORMAL,
                lease: None,
                until: None,
                event: EventId::default(),
                policy: Some(failure.line.clone()),
                root: EventId::default(),
            };
            self.claim(ix, *slot, claim, cause);
        }
    }

    fn release_fallback(&mut self, ix: Ix, cause: Cause) {
        let object = self.world.object(ix);
        let by = format!("fallback:{}", object.name);
        let slots: Vec<Slot> = object.class.fallback.iter().map(|(slot, _)| *slot).collect();
        for slot in slots {
            self.release(ix, slot, &by, cause, "the policy works again", None);
        }
    }

    /// What a handler would do, without doing it: for `policy test` and questions.
    ///
    /// # Errors
    /// The failure that the call would end with.
    pub fn rehearse(&self, ix: Ix, call: &Call<'_>) -> Result<Vec<Planned>, Failure> {
        match &self.world.object(ix).policy {
            Some(policy) => policy.run(&self.world, ix, call, self.budget),
            None => Ok(Vec::new()),
        }
    }
}

fn handler_name(call: &Call<'_>) -> String {
    match call {
        Call::Attribute(attribute, _) => format!("on_{attribute}"),
        Call::Change(_) => "on_change".into(),
        Call::Alarm(_) => "on_alarm".into(),
        Call::Event(_) => "on_event".into(),
        Call::Timer(name) => format!("on_timer {name}"),
        Call::Start => "on_start".into(),
    }
}
