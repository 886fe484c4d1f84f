//! An alarm of a chassis that was raised stands at the chassis' owner, with the id that it was raised with, until an event clears it;
//! whoever the owner is by then. Source: protocol 7.3.
//!
//! It is held against an owner from the moment when every copy of the ownership has it: what an owner raised in its last milliseconds
//! its successor finds by itself, and gives it an id of its own. A declared loss of the ownership's state ends all that was kept.

use std::collections::BTreeMap;

use sixnines_core::domain::config::chassis_group;
use sixnines_core::event::{AlarmStep, Body, Event};
use sixnines_core::ids::{EventId, GroupName, NodeId};

/// The alarms that nobody has cleared, by the name of the section that they are kept in.
#[derive(Debug, Default)]
pub struct Alarms {
    standing: BTreeMap<String, Standing>,
}

#[derive(Debug)]
enum Standing {
    /// No copy but its owner's is known to have it. An owner that is cut off may raise it as well as its successor, each under its own id.
    Raised(BTreeMap<NodeId, EventId>),
    /// Every copy has it.
    Kept(EventId),
}

impl Alarms {
    pub(super) fn event(&mut self, event: &Event) {
        let Body::Alarm { kind, qualifier, step } = &event.body else { return };
        if event.group.as_ref().is_none_or(|group| *group != group_of(event.object.as_str())) {
            return; // not a chassis'
        }
        let section = format!("alarm {} {kind} {qualifier}", event.object);
        match step {
            AlarmStep::Cleared => drop(self.standing.remove(&section)),
            AlarmStep::Raised | AlarmStep::Suppressed | AlarmStep::Unstable => {
                let standing = self.standing.entry(section).or_insert_with(|| Standing::Raised(BTreeMap::new()));
                if let Standing::Raised(by) = standing {
                    by.insert(event.id.node, event.id);
                } // what is kept keeps its id
            }
            _ => {}
        }
    }

    /// What `node` saved under the name of `section` is on every copy.
    pub(super) fn kept(&mut self, node: NodeId, group: &GroupName, section: &str) {
        if let Some(standing) = self.standing.get_mut(section).filter(|_| *group == group_of_section(section))
            && let Standing::Raised(by) = standing
            && let Some(id) = by.get(&node)
        {
            *standing = Standing::Kept(*id);
        }
    }

    pub(super) fn declared_lost(&mut self, group: &GroupName) {
        self.standing.retain(|section, _| *group != group_of_section(section));
    }

    pub(super) fn prove(&self, standing: &BTreeMap<String, EventId>) -> Result<(), String> {
        for (section, at) in &self.standing {
            let Standing::Kept(id) = at else { continue };
            match standing.get(section) {
                None => return Err(format!("{section}was raised by {id} and never cleared, and nobody has it")),
                Some(other) if other != id => return Err(format!("{section}was raised by {id} and never cleared, and now bears the id {other}")),
                Some(_) => {}
            }
        }
        Ok(())
    }
}

/// The ownership of the chassis that an object is in.
fn group_of(object: &str) -> GroupName {
    chassis_group(object.trim_start_matches('/').split('/').next().unwrap_or_default())
}

fn group_of_section(section: &str) -> GroupName {
    group_of(section.split(' ').nth(1).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::testing::event;
    use super::*;

    const SECTION: &str = "alarm /mxp1/fan1 fan-failed ";

    fn alarm(sequence: u64, step: AlarmStep) -> Event {
        event(sequence, Body::Alarm { kind: "fan-failed".into(), qualifier: "".into(), step }, None)
    }

    fn raised(is_kept: bool) -> (Alarms, GroupName, EventId) {
        let mut alarms = Alarms::default();
        let raised = alarm(7, AlarmStep::Raised);
        alarms.event(&raised);
        let group = chassis_group("mxp1");
        if is_kept {
            alarms.kept(raised.id.node, &group, SECTION);
        }
        (alarms, group, raised.id)
    }

    #[test]
    fn an_alarm_that_every_copy_has_stands_under_its_id_until_it_is_cleared() {
        let (mut alarms, _, id) = raised(true);
        let other = alarm(9, AlarmStep::Raised);
        alarms.event(&other);
        assert!(alarms.prove(&BTreeMap::new()).is_err(), "nobody has it");
        assert!(alarms.prove(&BTreeMap::from([(SECTION.to_owned(), other.id)])).is_err(), "another id");
        assert!(alarms.prove(&BTreeMap::from([(SECTION.to_owned(), id)])).is_ok());
        alarms.event(&alarm(10, AlarmStep::Cleared));
        assert!(alarms.prove(&BTreeMap::new()).is_ok());
    }

    #[test]
    fn what_an_owner_raised_while_it_was_cut_off_is_not_what_its_successor_kept() {
        let (mut alarms, group, old) = raised(false);
        let mut new = alarm(9, AlarmStep::Raised);
        new.id.node = NodeId(old.node.0 + 1);
        alarms.event(&new);
        alarms.event(&alarm(11, AlarmStep::Suppressed));
        alarms.kept(new.id.node, &group, SECTION);
        assert!(alarms.prove(&BTreeMap::from([(SECTION.to_owned(), new.id)])).is_ok());
        assert!(alarms.prove(&BTreeMap::from([(SECTION.to_owned(), old)])).is_err());
    }

    #[test]
    fn what_no_other_copy_has_or_is_declared_lost_may_be_gone() {
        let (alarms, ..) = raised(false);
        assert!(alarms.prove(&BTreeMap::new()).is_ok());
        let (mut alarms, group, _) = raised(true);
        alarms.declared_lost(&group);
        assert!(alarms.prove(&BTreeMap::new()).is_ok());
    }
}
