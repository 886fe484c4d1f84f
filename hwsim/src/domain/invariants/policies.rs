//! A policy that fails stops nothing and moves nothing: of a call that failed nothing happens but the alarm about it and the class's
//! fallback. Source: protocol 5.3 and 7.2; `core/src/engine/run.rs`, what a call plans happens as a whole or not at all.
//!
//! Some runs have policies that ask for everything that they can think of, and then fail. That the core loop goes on shows in all
//! the other invariants, and at the end.

use sixnines_core::alarms::builtin::POLICY_FAILED;
use sixnines_core::event::{Body, Event};

/// The policies that fail whenever they are called.
#[derive(Debug, Default)]
pub struct Policies {
    bad: Vec<String>,
}

impl Policies {
    pub(super) fn new(bad: Vec<String>) -> Self {
        Self { bad }
    }

    pub(super) fn event(&self, event: &Event) -> Result<(), String> {
        let Some(line) = event.policy.as_ref().filter(|line| self.bad.iter().any(|bad| **bad == *line.file)) else { return Ok(()) };
        let is_meant = match &event.body {
            Body::Alarm { kind, .. } => **kind == *POLICY_FAILED,
            Body::Claimed { by, .. } | Body::Released { by } => by.starts_with("fallback:"),
            Body::Intent { edge } => !edge, // the fallback's value, for the driver
            Body::Change | Body::Outcome(_) => true,
            Body::Control | Body::Command { .. } | Body::Log => false,
        };
        if is_meant { Ok(()) } else { Err(format!("{line} has failed, and all the same event {} on {} comes of it", event.id, event.object)) }
    }
}

#[cfg(test)]
mod tests {
    use sixnines_core::event::AlarmStep;

    use super::super::testing::event;
    use super::*;

    #[test]
    fn of_a_call_that_failed_come_its_alarm_and_the_fallback_alone() {
        let policies = Policies::new(vec!["fan.rhai".into()]);
        let alarm = |kind: &str| Body::Alarm { kind: kind.into(), qualifier: "".into(), step: AlarmStep::Raised };
        let claimed = |by: &str| Body::Claimed { by: by.into(), priority: 0 };
        for good in [alarm(POLICY_FAILED), claimed("fallback:/mxp1/fan1"), Body::Intent { edge: false }] {
            assert!(policies.event(&event(1, good, Some("fan.rhai"))).is_ok());
        }
        for bad in [alarm("fan-failed"), claimed("policy:/mxp1/fan1"), Body::Intent { edge: true }, Body::Control] {
            assert!(policies.event(&event(1, bad.clone(), Some("fan.rhai"))).is_err(), "{bad:?}");
            assert!(policies.event(&event(1, bad, Some("board.rhai"))).is_ok(), "that one works");
        }
    }
}
