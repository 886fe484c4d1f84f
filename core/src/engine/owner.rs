//! Who owns what, and what happens when that changes: another owner, another bundle, another node alive.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::alarms::AlarmKey;
use super::{Behind, Cause, Deadline, Engine, Output};
use crate::bundle::Compiled;
use crate::class::{Derive, Slot};
use crate::domain::limits::{Limit, Limits};
use crate::ids::{Epoch, GroupName, Member};
use crate::policy::Budget;
use crate::time::{Duration, Instant};
use crate::value::Quality;
use crate::world::{Ix, Owner, World};

impl Engine {
    /// This node is the active of a group: it continues what the last one had saved, and reads every sensor anew.
    pub(super) fn on_owner(&mut self, group: GroupName, epoch: Epoch, saved: Vec<(String, Vec<u8>)>) {
        if self.seen.get(&group).is_some_and(|seen| *seen > epoch) {
            return; // An old promotion, overtaken by a newer one.
        }
        self.seen.insert(group.clone(), epoch);
        let me = self.me;
        self.world_mut().actives.insert(group.clone(), (epoch, Some(me)));
        let fresh = self.settle_ownership();
        for ix in fresh {
            self.doubt_sensors(ix);
        }
        self.continue_from(&group, saved);
        let world = self.world.clone();
        self.reissue_levels(&|ix| world.object(ix).owner.group() == Some(&group));
    }

    /// Another node is the active of a group, or nobody is.
    pub(super) fn on_not_owner(&mut self, group: GroupName, epoch: Epoch, active: Option<Member>) {
        if self.seen.get(&group).is_some_and(|seen| *seen > epoch) {
            return;
        }
        self.seen.insert(group.clone(), epoch);
        let active = active.filter(|m| *m != self.me);
        self.world_mut().actives.insert(group, (epoch, active));
        self.settle_ownership();
    }

    /// Judges for every object whether this node owns it. Returns those that it did not own before.
    pub(super) fn settle_ownership(&mut self) -> Vec<Ix> {
        let me = self.me;
        let domain = (self.lowest_alive() == Some(me.node)).then_some(Epoch(me.incarnation.0));
        let mut fresh = Vec::new();
        let mut lost = Vec::new();
        let world = Arc::make_mut(&mut self.world);
        let all: Vec<Ix> = world.iter().map(|(ix, _)| ix).collect();
        for ix in all {
            let owned = match &world.object(ix).owner {
                Owner::Node(node) => (*node == me.node).then_some(Epoch(me.incarnation.0)),
                Owner::Domain => domain,
                Owner::Abroad => None,
                Owner::Group(group) => match world.actives.get(group) {
                    Some((epoch, Some(active))) if *active == me => Some(*epoch),
                    _ => None,
                },
            };
            let object = world.object_mut(ix);
            match (object.owned, owned) {
                (None, Some(_)) => fresh.push(ix),
                (Some(_), None) => lost.push(ix),
                _ => {}
            }
            object.owned = owned;
        }
        for ix in lost {
            self.let_go(ix);
        }
        self.behind.starts.extend(fresh.iter().copied());
        self.settle_hearers();
        fresh
    }

    fn settle_hearers(&mut self) {
        self.hearers.clear();
        let world = self.world.clone();
        for (ix, object) in world.iter() {
            if object.owned.is_none() || !object.policy.as_ref().is_some_and(|p| p.has("on_event")) {
                continue;
            }
            for class in object.class.hears.keys() {
                self.hearers.entry(class.clone()).or_default().push(ix);
            }
        }
    }

    /// What the last owner had read is no reading of ours: stale until its driver speaks.
    fn doubt_sensors(&mut self, ix: Ix) {
        let object = self.world_mut().object_mut(ix);
        let class = object.class.clone();
        for (i, attribute) in class.attributes.iter().enumerate() {
            let source = attribute.derive.as_ref().map_or(i, |d: &Derive| d.from.0 as usize);
            let cell = &mut object.cells[i];
            if object.stale_after[source].is_some() && cell.quality.is_usable() && cell.forced.is_none() {
                cell.quality = Quality::Stale;
            }
        }
    }

    /// An object is somebody else's now: nothing of it may happen here any more.
    fn let_go(&mut self, ix: Ix) {
        self.holds.retain(|(i, _), _| *i != ix);
        let slots = u16::try_from(self.world.object(ix).cells.len()).expect("a class bounds its attributes");
        for slot in (0..slots).map(Slot) {
            for deadline in [Deadline::Hold(ix, slot), Deadline::Lease(ix, slot), Deadline::Force(ix, slot), Deadline::Stale(ix, slot)] {
                self.deadlines.cancel(&deadline);
            }
            let cell = self.world_mut().cell_mut(ix, slot);
            cell.watched = false;
            cell.forced = None;
            self.controls.remove(&(ix, slot));
        }
        let requests: Vec<_> = self.requests.iter().filter(|(_, p)| p.ix == ix).map(|(id, _)| *id).collect();
        for id in requests {
            self.requests.remove(&id);
            self.deadlines.cancel(&Deadline::Retry(id));
        }
        let timers: Vec<_> = self.timers.keys().filter(|(i, _)| *i == ix).cloned().collect();
        for key in timers {
            self.deadlines.cancel(&Deadline::Timer(key.0, key.1.clone()));
            self.timers.remove(&key);
        }
        let alarms: Vec<AlarmKey> = self.alarms.keys().filter(|k| k.object == ix).cloned().collect();
        for key in alarms {
            self.deadlines.cancel(&Deadline::Alarm(key.clone()));
            // What was only waiting was never told to anybody.
            if self.alarms.get(&key).is_some_and(|a| !a.is_active()) {
                self.alarms.remove(&key);
            }
        }
        self.failing.remove(&ix);
    }

    /// Other limits: they hold for what comes from now on.
    pub(super) fn on_limits(&mut self, limits: Limits) {
        self.budget = Budget::of(&limits);
        self.world_mut().objects_max = limits.count(Limit::Objects);
        self.limits = limits;
    }

    /// Another bundle: values, alarms, claims and timers go on where their objects and words still exist.
    pub(super) fn on_bundle(&mut self, compiled: Arc<Compiled>) {
        let old = std::mem::replace(&mut self.world, Arc::new(World::new(compiled.clone())));
        self.bundle_version.0 += 1;
        let world = Arc::make_mut(&mut self.world);
        world.objects_max = old.objects_max;
        world.actives.clone_from(&old.actives);
        world.places.clone_from(&old.places);
        let mut moved: BTreeMap<Ix, Ix> = BTreeMap::new();
        for (before, object) in old.iter() {
            // An object that came into being by its name comes again, if a class still waits for it.
            let found = world.find_or_create(&object.name).or_else(|| world.find_or_create_abroad(&object.name, &object.class.name));
            let Some(ix) = found else { continue };
            moved.insert(before, ix);
            let class = world.object(ix).class.clone();
            for (name, slot) in &class.slots {
                let Some(from) = object.class.slot(name.as_str()) else { continue };
                let mut cell = object.cells[from.0 as usize].clone();
                cell.watched = false;
                cell.value = cell.value.as_ref().and_then(|v| class.attribute(*slot).kind.fit(v));
                if cell.value.is_none() && cell.quality.is_usable() {
                    cell.quality = Quality::Missing;
                }
                *world.cell_mut(ix, *slot) = cell;
            }
            let new = world.object_mut(ix);
            new.identity.clone_from(&object.identity);
            new.owned = object.owned;
        }
        self.move_tables(&old, &moved);
        let fresh = self.settle_ownership();
        self.start_changed_policies(&old, &moved, &fresh);
        self.rederive();
    }

    fn move_tables(&mut self, old: &World, moved: &BTreeMap<Ix, Ix>) {
        let world = self.world.clone();
        let slot_of = |ix: Ix, slot: Slot| -> Option<(Ix, Slot)> {
            let to = *moved.get(&ix)?;
            Some((to, world.object(to).class.slot(old.attribute(ix, slot).name.as_str())?))
        };
        self.deadlines.clear();
        self.holds.clear();
        self.failing.clear();
        let behind = std::mem::take(&mut self.behind);
        self.behind = Behind {
            hearers: behind.hearers.into_iter().filter_map(|(ix, event)| Some((*moved.get(&ix)?, event))).collect(),
            starts: behind.starts.into_iter().filter_map(|ix| moved.get(&ix).copied()).collect(),
            events: behind.events.into_iter().map(|(ix, event)| (ix.and_then(|ix| moved.get(&ix).copied()), event)).collect(),
            seen: behind.seen,
        };
        let alarms = std::mem::take(&mut self.alarms);
        for (key, alarm) in alarms {
            if let Some(object) = moved.get(&key.object).copied()
                && world.compiled.catalogue.get(&key.kind).is_some()
            {
                self.alarms.insert(AlarmKey { object, ..key }, alarm);
            }
        }
        let controls = std::mem::take(&mut self.controls);
        self.controls = controls.into_iter().filter_map(|((ix, slot), c)| Some((slot_of(ix, slot)?, c))).collect();
        let timers = std::mem::take(&mut self.timers);
        self.timers = timers.into_iter().filter_map(|((ix, name), t)| Some(((*moved.get(&ix)?, name), t))).collect();
        let requests = std::mem::take(&mut self.requests);
        self.requests = requests
            .into_iter()
            .filter_map(|(id, mut pending)| {
                pending.ix = *moved.get(&pending.ix)?;
                Some((id, pending))
            })
            .collect();
        drop(world);
        self.reset_deadlines();
    }

    /// Sets every deadline anew from the tables.
    pub(super) fn reset_deadlines(&mut self) {
        let now = self.now;
        for ((ix, name), timer) in &self.timers {
            self.deadlines.set(Deadline::Timer(*ix, name.clone()), timer.until);
        }
        for ((ix, slot), control) in &self.controls {
            if let Some(at) = control.claims.iter().filter_map(|c| c.until).min() {
                self.deadlines.set(Deadline::Lease(*ix, *slot), at);
            }
        }
        for (id, pending) in &self.requests {
            if pending.attempts > 0 {
                self.deadlines.set(Deadline::Retry(*id), now + Duration::from_secs(1));
            }
        }
        // An alarm finds out by itself what it waits for.
        let keys: Vec<AlarmKey> = self.alarms.keys().cloned().collect();
        self.world_mut().raised.clear();
        for key in keys {
            if self.alarms.get(&key).is_some_and(super::Alarm::is_active) {
                self.world_mut().raised.insert((key.object, key.kind.clone()));
            }
            self.next_deadline(&key);
        }
        let cells: Vec<(Ix, Slot, Option<Instant>)> = (self.world.iter())
            .flat_map(|(ix, o)| (0u16..).zip(&o.cells).map(move |(i, c)| (ix, Slot(i), c.forced.as_ref().map(|f| f.until))))
            .collect();
        for (ix, slot, forced) in cells {
            if let Some(until) = forced {
                self.deadlines.set(Deadline::Force(ix, slot), until);
            }
            if self.is_owned(ix) {
                self.watch(ix, slot);
            }
        }
    }

    fn start_changed_policies(&mut self, old: &World, moved: &BTreeMap<Ix, Ix>, fresh: &[Ix]) {
        let text = |world: &World, file: &str| world.compiled.files.files.get(file).cloned();
        for (before, ix) in moved {
            let Some(policy) = self.world.object(*ix).policy.clone() else { continue };
            let file = policy.file.clone();
            let same = old.object(*before).policy.as_ref().is_some_and(|p| p.file == file) && text(old, &file) == text(&self.world, &file);
            if !same && self.is_owned(*ix) && !fresh.contains(ix) {
                self.behind.starts.push_back(*ix);
            }
        }
    }

    /// Thresholds may have moved: every derived word is judged again.
    fn rederive(&mut self) {
        let sources: Vec<(Ix, Slot)> = (self.world.iter())
            .filter(|(_, o)| o.owned.is_some())
            .flat_map(|(ix, o)| {
                let mut from: Vec<Slot> = o.class.attributes.iter().filter_map(|a| a.derive.as_ref().map(|d| d.from)).collect();
                from.dedup();
                from.into_iter().map(move |slot| (ix, slot))
            })
            .collect();
        for (ix, slot) in sources {
            if self.world.cell(ix, slot).event.is_some() {
                let cause = Cause { id: self.world.cell(ix, slot).event, root: None };
                self.derive(ix, slot, cause);
            }
        }
    }

    /// Who answers for the domain as a whole.
    pub(super) fn lowest_alive(&self) -> Option<crate::ids::NodeId> {
        self.alive.iter().find(|(_, alive)| **alive).map(|(node, _)| *node)
    }

    /// Who answers for an object, as far as is known here.
    pub fn owner_of(&self, object: &str) -> Option<crate::ids::NodeId> {
        let ix = self.world.find(object)?;
        match &self.world.object(ix).owner {
            Owner::Node(node) => Some(*node),
            Owner::Domain => self.lowest_alive(),
            Owner::Abroad => None,
            Owner::Group(group) => self.world.actives.get(group)?.1.map(|m| m.node),
        }
    }

    /// An output that only an owner gives, for a group.
    pub(super) fn save_for(&mut self, ix: Ix, key: String, bytes: Option<Vec<u8>>) {
        let object = self.world.object(ix);
        if object.owned.is_none() {
            return;
        }
        if let Some(group) = object.owner.group().cloned() {
            self.outputs.push_back(Output::Save { group, key, bytes });
        }
    }
}
