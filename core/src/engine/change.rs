//! From readings to events: filtering, quality, derived words, the operational state, staleness.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Cause, Deadline, Draft, Engine, Fact, Output, no_text, shown};
use crate::class::{Keep, OPERATIONAL, Slot};
use crate::event::{Body, Event};
use crate::ids::{AttributeName, ChassisName, ClassName, GroupName, NodeId, ObjectName};
use crate::time::Instant;
use crate::value::{Quality, Update, Value};
use crate::world::{Cell, Forced, Ix, Owner};

/// A derived word that has to hold for a while before it counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Hold {
    word: Arc<str>,
    until: Instant,
    cause: Cause,
}

/// A new content of a cell.
struct New {
    value: Option<Value>,
    quality: Quality,
    why: Arc<str>,
}

impl Engine {
    /// A driver's reading. Drivers do not judge, and do not write what is derived.
    pub(super) fn on_update(&mut self, update: Update) {
        let Some(ix) = self.find(&update.object) else {
            self.counts.strange_updates += 1;
            return;
        };
        let object = self.world.object(ix);
        let Some(slot) = object.class.slot(update.attribute.as_str()) else {
            self.counts.strange_updates += 1;
            return;
        };
        if object.owned.is_none() || object.class.attribute(slot).derive.is_some() {
            self.counts.strange_updates += 1;
            return;
        }
        if object.class.attribute(slot).journal == Keep::All {
            self.notes.touched = true;
        }
        if update.identity.is_some() && update.identity != object.identity {
            self.notes.touched = true;
            self.world_mut().object_mut(ix).identity = update.identity;
        }
        let new = self.judged(ix, slot, update.value, update.quality);
        if self.world.cell(ix, slot).forced.is_some() {
            let forced = self.world_mut().cell_mut(ix, slot).forced.as_mut().expect("looked at above");
            forced.beneath = (new.value, new.quality);
            self.notes.touched = true;
            return;
        }
        let cause = Cause { id: update.cause, root: None };
        self.store(ix, slot, new, cause);
        self.watch(ix, slot);
    }

    /// Finds an object, or lets one come into being that a class waits for.
    pub(super) fn find(&mut self, name: &ObjectName) -> Option<Ix> {
        if let Some(ix) = self.world.find(name.as_str()) {
            return Some(ix);
        }
        self.world.compiled.class_for(name.as_str())?;
        let found = self.world_mut().find_or_create(name);
        let Some(ix) = found else {
            self.counts.objects_refused += 1;
            return None;
        };
        self.settle_ownership();
        Some(ix)
    }

    /// A reading as it may be stored: of the attribute's kind and within its range, or failed.
    fn judged(&self, ix: Ix, slot: Slot, value: Option<Value>, quality: Quality) -> New {
        let attribute = self.world.attribute(ix, slot);
        match value {
            None => {
                // A reading without a value cannot be good.
                let quality = if quality.is_usable() { Quality::Missing } else { quality };
                New { value: None, quality, why: no_text() }
            }
            Some(value) => match attribute.kind.fit(&value) {
                Some(fitted) if attribute.in_range(&fitted) => New { value: Some(fitted), quality, why: no_text() },
                Some(_) => New { value: None, quality: Quality::Failed, why: format!("{value} is out of range").into() },
                None => New {
                    value: None,
                    quality: Quality::Failed,
                    why: format!("{value} is no {}", attribute.kind.word()).into(),
                },
            },
        }
    }

    /// Puts a value into a cell. Unchanged: nothing more happens. A change is an event, and what is derived follows at once.
    fn store(&mut self, ix: Ix, slot: Slot, new: New, cause: Cause) -> Option<Arc<Event>> {
        let now = self.now;
        let cell = self.world.cell(ix, slot);
        let same_value = match new.value {
            Some(_) => cell.value == new.value,
            None => !new.quality.is_usable(),
        };
        if same_value && cell.quality == new.quality {
            self.counts.unchanged += 1;
            if cell.read_at != now {
                self.world_mut().cell_mut(ix, slot).read_at = now;
            }
            return None;
        }
        self.notes.touched = true;
        let old = cell.usable().cloned();
        let attribute = self.world.attribute(ix, slot).name.clone();
        let mut draft = self.draft(ix, &attribute, cause, Body::Change);
        draft.old = old;
        draft.new = new.value.clone().filter(|_| new.quality.is_usable());
        draft.quality = new.quality;
        draft.why = new.why;
        let cell = self.world_mut().cell_mut(ix, slot);
        if new.value.is_some() {
            cell.value = new.value;
        }
        cell.quality = new.quality;
        cell.read_at = now;
        cell.changed_at = now;
        let event = self.emit(draft);
        self.world_mut().cell_mut(ix, slot).event = Some(event.id);
        self.derive(ix, slot, Cause::of(&event));
        Some(event)
    }

    /// What follows from a changed cell.
    pub(super) fn derive(&mut self, ix: Ix, slot: Slot, cause: Cause) {
        let class = self.world.object(ix).class.clone();
        for (target, attribute, derive) in class.derived_from(slot) {
            let source = self.world.cell(ix, slot);
            let present = self.world.cell(ix, target);
            let new = match (source.usable(), source.quality) {
                (Some(reading), quality) => {
                    let word = derive.word(reading, present.value.as_ref().and_then(word_of));
                    let settled = present.usable().and_then(word_of);
                    if settled.is_some_and(|w| *w != *word) && !derive.hold.is_zero() {
                        self.hold(ix, target, word, derive.hold, cause);
                        continue;
                    }
                    New { value: Some(Value::Enum(word)), quality, why: no_text() }
                }
                (None, Quality::Missing) if derive.missing.is_some() => {
                    New { value: derive.missing.clone().map(Value::Enum), quality: Quality::Good, why: "no reading".into() }
                }
                (None, quality) => New { value: None, quality, why: format!("{} is {quality:?}", class.attribute(slot).name).to_lowercase().into() },
            };
            debug_assert!(attribute.derive.is_some(), "only derived attributes are walked");
            self.holds.remove(&(ix, target));
            self.deadlines.cancel(&Deadline::Hold(ix, target));
            self.store(ix, target, new, cause);
        }
        if class.operational.as_ref().is_some_and(|o| o.from == slot) {
            self.derive_operational(ix, slot, cause);
        }
    }

    /// A word that differs from the present one has to hold; the first event that led to it stays its cause.
    fn hold(&mut self, ix: Ix, slot: Slot, word: Arc<str>, patience: crate::time::Duration, cause: Cause) {
        if self.holds.get(&(ix, slot)).is_some_and(|h| h.word == word) {
            return;
        }
        let until = self.now + patience;
        self.holds.insert((ix, slot), Hold { word, until, cause });
        self.deadlines.set(Deadline::Hold(ix, slot), until);
    }

    pub(super) fn on_hold(&mut self, ix: Ix, slot: Slot) {
        let Some(hold) = self.holds.remove(&(ix, slot)) else { return };
        let class = self.world.object(ix).class.clone();
        let derive = class.attribute(slot).derive.as_ref().expect("only derived attributes hold");
        let quality = self.world.cell(ix, derive.from).quality;
        let why = format!("for {}", shown(derive.hold)).into();
        self.store(ix, slot, New { value: Some(Value::Enum(hold.word)), quality, why }, hold.cause);
    }

    fn derive_operational(&mut self, ix: Ix, from: Slot, cause: Cause) {
        let class = self.world.object(ix).class.clone();
        let operational = class.operational.as_ref().expect("the caller looked");
        let slot = class.slot(OPERATIONAL).expect("every class has it");
        let word = match self.world.cell(ix, from).usable() {
            None => "unknown",
            Some(value) if operational.disabled.contains(&value.to_string()) => "disabled",
            Some(_) => "enabled",
        };
        let new = New { value: Some(Value::Enum(Arc::from(word))), quality: Quality::Good, why: no_text() };
        if self.store(ix, slot, new, cause).is_some() {
            self.judge_suppression(ix, cause);
        }
    }

    /// Sets the deadline for a cell's staleness, once; it moves itself on while readings come.
    pub(super) fn watch(&mut self, ix: Ix, slot: Slot) {
        let cell = self.world.cell(ix, slot);
        if cell.watched || !cell.quality.is_usable() {
            return;
        }
        let Some(patience) = self.world.object(ix).stale_after[slot.0 as usize] else { return };
        let at = cell.read_at + patience;
        self.world_mut().cell_mut(ix, slot).watched = true;
        self.deadlines.set(Deadline::Stale(ix, slot), at);
    }

    pub(super) fn on_stale(&mut self, ix: Ix, slot: Slot) {
        self.world_mut().cell_mut(ix, slot).watched = false;
        let object = self.world.object(ix);
        let cell = &object.cells[slot.0 as usize];
        let Some(patience) = object.stale_after[slot.0 as usize] else { return };
        if object.owned.is_none() || !cell.quality.is_usable() || cell.forced.is_some() {
            return;
        }
        if cell.read_at + patience > self.now {
            self.watch(ix, slot);
            return;
        }
        let place = (object.name.clone(), object.class.attribute(slot).name.clone());
        self.notes.stale.push(place);
        self.make_stale(ix, slot);
    }

    fn make_stale(&mut self, ix: Ix, slot: Slot) {
        self.world_mut().cell_mut(ix, slot).watched = false;
        let patience = self.world.object(ix).stale_after[slot.0 as usize].unwrap_or_default();
        let why = format!("no reading for {}", shown(patience)).into();
        self.store(ix, slot, New { value: None, quality: Quality::Stale, why }, Cause::NONE);
    }

    /// In a replay the verdicts of the original count: the readings that kept a value fresh are not in the journal.
    fn make_stale_as_told(&mut self, told: &[(ObjectName, AttributeName)]) {
        for (object, attribute) in told {
            let Some(ix) = self.world.find(object.as_str()) else { continue };
            if let Some(slot) = self.world.object(ix).class.slot(attribute.as_str()) {
                self.make_stale(ix, slot);
            }
        }
    }

    /// An operator holds a sensor at a value.
    pub(super) fn force(&mut self, ix: Ix, slot: Slot, value: Value, until: Instant, cause: Cause) {
        let cell = self.world.cell(ix, slot);
        let beneath = cell.forced.as_ref().map_or((cell.value.clone().filter(|_| cell.quality.is_usable()), cell.quality), |f| f.beneath.clone());
        self.world_mut().cell_mut(ix, slot).forced = Some(Forced { until, beneath });
        self.deadlines.set(Deadline::Force(ix, slot), until);
        self.store(ix, slot, New { value: Some(value), quality: Quality::Forced, why: "forced".into() }, cause);
    }

    /// The end of it: what the driver read meanwhile counts again.
    pub(super) fn unforce(&mut self, ix: Ix, slot: Slot, cause: Cause, why: &str) {
        self.deadlines.cancel(&Deadline::Force(ix, slot));
        let Some(forced) = self.world_mut().cell_mut(ix, slot).forced.take() else { return };
        let (value, quality) = forced.beneath;
        self.store(ix, slot, New { value, quality, why: why.into() }, cause);
        self.watch(ix, slot);
    }

    /// Something that this node has seen by itself.
    pub(super) fn on_fact(&mut self, fact: Fact) {
        let seen = self.seen_of_a_node(&fact);
        // A death is judged by who owns the domain after it, a return by who owned it before: he has raised the alarm.
        if let Some((node, false)) = seen {
            self.settle_alive(node, false);
        }
        let token = fact.token;
        let event = match self.find(&fact.object) {
            None => self.fact_without_object(fact),
            Some(ix) => self.fact_of(ix, fact),
        };
        if let Some(event) = event
            && token != 0
        {
            self.outputs.push_back(Output::Recorded { token, event });
        }
        if let Some((node, true)) = seen {
            self.run_policies();
            self.settle_alive(node, true);
        }
    }

    /// The node that a fact is about, and whether that node is alive. One that hears nobody (mute) is not: it is cut off, or has just
    /// come back and does not know yet; who owned the domain while it was away still has to say that it is well. Nor is one that has left.
    fn seen_of_a_node(&self, fact: &Fact) -> Option<(NodeId, bool)> {
        let node = fact.object.as_str().strip_prefix("/nodes/")?.parse::<NodeId>().ok().filter(|_| fact.attribute.as_str() == "state")?;
        let is_lost = matches!(&fact.value, Some(Value::Text(t) | Value::Enum(t)) if ["dead", "mute", "left"].contains(&&**t));
        Some((node, !is_lost || node == self.me.node))
    }

    fn settle_alive(&mut self, node: NodeId, alive: bool) {
        let before = self.lowest_alive();
        self.alive.insert(node, alive);
        if self.lowest_alive() != before {
            self.settle_ownership();
        }
    }

    fn fact_of(&mut self, ix: Ix, fact: Fact) -> Option<crate::ids::EventId> {
        let object = self.world.object(ix);
        let Some(slot) = object.class.slot(fact.attribute.as_str()) else { return self.fact_without_object(fact) };
        let mut new = self.judged(ix, slot, fact.value, fact.quality);
        if new.why.is_empty() {
            new.why = fact.why;
        }
        if fact.shared && self.world.object(ix).owned.is_none() {
            self.mirror(ix, slot, new.value, new.quality);
            return self.world.cell(ix, slot).event;
        }
        let cause = Cause { id: fact.cause, root: None };
        match self.store(ix, slot, new, cause) {
            Some(event) => Some(event.id),
            None => self.world.cell(ix, slot).event,
        }
    }

    /// An observation that no class describes is still a cause that others may name.
    fn fact_without_object(&mut self, fact: Fact) -> Option<crate::ids::EventId> {
        if fact.shared {
            return None;
        }
        let draft = Draft {
            ix: None,
            class: ClassName::new("unknown"),
            group: Owner::of(fact.object.as_str()).group().cloned(),
            epoch: crate::ids::Epoch::default(),
            identity: None,
            object: fact.object,
            attribute: fact.attribute,
            old: None,
            new: fact.value,
            quality: fact.quality,
            severity: crate::alarms::Severity::Cleared,
            cause: Cause { id: fact.cause, root: None },
            why: fact.why,
            policy: None,
            body: Body::Log,
        };
        Some(self.emit(draft).id)
    }

    /// Takes over what the owner of an object says, without an event of our own.
    pub(super) fn mirror(&mut self, ix: Ix, slot: Slot, value: Option<Value>, quality: Quality) {
        let now = self.now;
        let cell: &mut Cell = self.world_mut().cell_mut(ix, slot);
        if value.is_some() {
            cell.value = value;
        }
        cell.quality = quality;
        cell.read_at = now;
        cell.changed_at = now;
    }

    pub(super) fn on_domain(&mut self, nodes: Vec<(NodeId, ChassisName)>, services: Vec<GroupName>) {
        for (node, _) in &nodes {
            self.find(&ObjectName::new(format!("/nodes/{node}")));
        }
        for service in &services {
            self.find(&ObjectName::new(format!("/services/{service}")));
        }
        self.find(&ObjectName::new("/domain"));
        self.world_mut().places = nodes.into_iter().collect();
        self.settle_ownership();
    }

    /// Everything that is due by now.
    pub(super) fn fire_deadlines(&mut self) {
        let mut maybe_stale = Vec::new();
        while !self.is_spent()
            && let Some(deadline) = self.deadlines.take_due(self.now)
        {
            // Staleness comes last, so that a replay, which does not look for it, keeps the order.
            let Deadline::Stale(ix, slot) = deadline else {
                self.notes.touched = true;
                self.fire(deadline);
                continue;
            };
            maybe_stale.push((ix, slot));
        }
        if let Some(told) = self.notes.told.as_mut().map(|t| std::mem::take(&mut t.stale)) {
            self.make_stale_as_told(&told);
            return;
        }
        for (ix, slot) in maybe_stale {
            self.on_stale(ix, slot);
        }
    }

    fn fire(&mut self, deadline: Deadline) {
            match deadline {
                Deadline::Stale(ix, slot) => self.on_stale(ix, slot),
                Deadline::Hold(ix, slot) => self.on_hold(ix, slot),
                Deadline::Alarm(key) => self.on_alarm_due(&key),
                Deadline::Timer(ix, name) => self.on_timer(ix, &name),
                Deadline::Lease(ix, slot) => self.on_lease(ix, slot),
                Deadline::Force(ix, slot) => self.unforce(ix, slot, Cause::NONE, "no longer forced"),
                Deadline::Retry(id) => self.on_retry(id),
            }
    }
}

fn word_of(value: &Value) -> Option<&str> {
    match value {
        Value::Enum(word) | Value::Text(word) => Some(word),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => None,
    }
}
