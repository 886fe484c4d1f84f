//! Fencing, seen from the core loop: an order leaves only when its intent is on disk, and each of its steps is an event with a cause.
//!
//! What node n2 does about n1 is its own object, `/nodes/n2/fence/n1`: whoever the domain's owner is, only the node that runs the command knows
//! what came of it. It may be run twice, after a crash of n2 for one: it switches off and reads back, and what is off stays off.

use std::collections::BTreeMap;

use sixnines_core::domain::fence::FenceConfig;
use sixnines_core::ids::{ChassisName, EventId, GroupName, Member, NodeId};
use sixnines_core::roles;
use sixnines_core::time::Instant;
use sixnines_core::value::{Quality, Value};

use super::ways::Ways;
use super::{CoreLoop, word};

/// A node is to be switched off.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FenceOrder {
    /// The event that is its intent, by which it is answered.
    pub(crate) request: EventId,
    pub(crate) target: Member,
    pub(crate) chassis: ChassisName,
    /// How.
    pub(crate) config: FenceConfig,
}

/// What is under way.
#[derive(Default)]
pub(super) struct Fences {
    /// Orders whose intent is not on disk yet, behind so many records of the journal.
    waiting: Vec<(u64, FenceOrder)>,
    /// The role machine's number of each request that is not answered.
    asked: BTreeMap<EventId, (u64, Member)>,
}

impl<W: Ways> CoreLoop<W> {
    pub(super) fn ask_for_fence(&mut self, now: Instant, ticket: u64, target: Member, group: &GroupName, cause: Option<EventId>) {
        let Some((config, chassis)) = self.domain.config.fence.clone().zip(self.domain.config.chassis_of(target.node).cloned()) else { return };
        tracing::warn!(%target, %group, "is to be fenced");
        let cause = cause.filter(|c| c.sequence != 0);
        let why = format!("released by a majority; {group} waits until {} is known to be off", target.node);
        let request = self.tell_fence(now, target.node, "asked", cause, &why);
        self.ways.sync_journal(); // protocol 7.4: the intent first
        self.fences.asked.insert(request, (ticket, target));
        self.fences.waiting.push((self.ways.journalled().handed, FenceOrder { request, target, chassis, config }));
        self.give_fence_orders();
    }

    /// Gives the orders whose intent is on disk. Not without a lease: who is cut off may have missed that the node came back.
    pub(super) fn give_fence_orders(&mut self) {
        if self.fences.waiting.is_empty() || self.is_suspended {
            return;
        }
        let synced = self.ways.journalled().synced;
        let (due, waiting) = std::mem::take(&mut self.fences.waiting).into_iter().partition(|(after, _)| *after <= synced);
        self.fences.waiting = waiting;
        due.into_iter().for_each(|(_, order): (u64, FenceOrder)| self.ways.fence(order));
    }

    pub(super) fn on_fenced(&mut self, now: Instant, request: EventId, result: Result<String, String>) {
        let Some((ticket, target)) = self.fences.asked.remove(&request) else { return };
        let (state, why, evidence) = match result {
            Ok(evidence) => ("off", evidence.clone(), Some(evidence)),
            Err(why) => ("failed", why, None),
        };
        tracing::warn!(%target, state, why, "fence");
        let cause = self.tell_fence(now, target.node, state, Some(request), &why);
        self.feed_roles(now, roles::Input::Fenced { request: ticket, evidence, cause });
    }

    pub(super) fn drop_fence(&mut self, now: Instant, target: Member) {
        self.fences.waiting.retain(|(_, order)| order.target != target);
        self.fences.asked.retain(|_, (_, asked)| *asked != target);
        self.ways.drop_fence(target);
        self.tell_fence(now, target.node, "none", None, &format!("{} is back, or is to be released anew", target.node));
    }

    fn tell_fence(&mut self, now: Instant, target: NodeId, state: &str, cause: Option<EventId>, why: &str) -> EventId {
        self.observe(now, &fence_object(self.me, target), "state", Some(word(state)), Quality::Good, cause, why, false)
    }

    /// How far whoever is to fence `target` is, as far as is known here: by whom, and the word of it. What is done comes before what was tried.
    fn fence_state(&self, target: NodeId) -> Option<(NodeId, String)> {
        let world = self.engine.as_ref()?.world();
        let states = self.domain.config.nodes.iter().filter_map(|node| {
            let object = world.object(world.find(&fence_object(node.id, target))?);
            match object.cells.get(object.class.slot("state")?.0 as usize)?.value.as_ref()? {
                Value::Enum(state) | Value::Text(state) if &**state != "none" => Some((node.id, state.to_string())),
                _ => None,
            }
        });
        let order = |state: &str| ["off", "asked", "failed"].iter().position(|s| *s == state);
        states.min_by_key(|(_, state)| order(state))
    }

    /// What a service without an active waits for, if it is a fence; and the object that tells of it.
    pub(super) fn fence_wait(&self, group: &GroupName) -> Option<(String, Option<String>)> {
        let old = self.domain.groups.get(group)?.active.filter(|old| self.domain.waits_for_fence(group, *old))?;
        if !self.verdicts.get(&old.node).is_some_and(|v| v.is_lost()) {
            return None;
        }
        let target = old.node;
        let Some((by, state)) = self.fence_state(target) else {
            return Some((format!("{target} is to be known to be off first (fence: required), and nobody has asked for that yet"), None));
        };
        let text = match state.as_str() {
            "failed" => format!("{target} is to be known to be off first, and {by} could not prove it: tried again"),
            "off" => format!("{target} is off, says {by}; the control log is to know it"),
            _ => format!("{target} is to be known to be off first: {by} is having it switched off"),
        };
        Some((text, Some(fence_object(by, target))))
    }
}

fn fence_object(by: NodeId, target: NodeId) -> String {
    format!("/nodes/{by}/fence/{target}")
}
