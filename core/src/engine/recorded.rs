//! What the journal keeps of an input, so that a replay comes to the same decisions.
//!
//! Readings that change nothing are not kept, so a replay cannot know when a value became stale: the verdict is kept instead.
//! The same holds for a call that ran out of its time.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{AlarmRef, Command, Engine, Fact, Input, Output};
use crate::bundle::shared_bundle;
use crate::domain::config::Bundle;
use crate::domain::limits::Limits;
use crate::event::Event;
use crate::feed::{Cursor, Gap, Place};
use crate::ids::{AttributeName, ChassisName, EventId, Epoch, GroupName, Member, NodeId, ObjectName};
use crate::journal::{KIND_INPUT, KIND_SNAPSHOT, record};
use crate::policy::Failure;
use crate::time::{Instant, WallTime};
use crate::value::{Outcome, Update};

/// An input as it is kept. Never renumber or remove a variant: journals bear them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Kept {
    Update(Update),
    Command(Command),
    Remote(Arc<Event>),
    Outcome { request: EventId, outcome: Outcome },
    Owner { group: GroupName, epoch: Epoch, saved: Vec<(String, Vec<u8>)> },
    NotOwner { group: GroupName, epoch: Epoch, active: Option<Member> },
    Fact(Fact),
    Domain { nodes: Vec<(NodeId, ChassisName)>, services: Vec<GroupName> },
    Bundle(Bundle),
    Timeout,
    Level { from: NodeId, event: Arc<Event> },
    Begin { origin: NodeId, at: Place },
    Gap(Gap),
    Settled { origin: NodeId, alarms: Vec<AlarmRef> },
    Limits(Limits),
    Unheard(NodeId),
}

/// One record of the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) now: Instant,
    pub(crate) wall: WallTime,
    pub(crate) input: Kept,
    /// What was found stale, in this order, after everything else that was due.
    pub(crate) stale: Vec<(ObjectName, AttributeName)>,
    /// Calls of this input, counted from 0, that ran out of their time.
    pub(crate) overruns: Vec<(u32, Failure)>,
    /// The running hash and the number of the last event, after the input.
    pub(crate) hash: u32,
    pub(crate) sequence: u64,
}

impl Kept {
    pub(super) fn of(input: &Input) -> Self {
        match input.clone() {
            Input::Update(update) => Self::Update(update),
            Input::Command(command) => Self::Command(command),
            Input::Remote(event) => Self::Remote(event),
            Input::Outcome { request, outcome } => Self::Outcome { request, outcome },
            Input::Owner { group, epoch, saved } => Self::Owner { group, epoch, saved },
            Input::NotOwner { group, epoch, active } => Self::NotOwner { group, epoch, active },
            Input::Fact(fact) => Self::Fact(fact),
            Input::Domain { nodes, services } => Self::Domain { nodes, services },
            Input::Bundle(compiled) => Self::Bundle(compiled.files.clone()),
            Input::Timeout => Self::Timeout,
            Input::Level { from, event } => Self::Level { from, event },
            Input::Begin { origin, at } => Self::Begin { origin, at },
            Input::Gap(gap) => Self::Gap(gap),
            Input::Settled { origin, alarms } => Self::Settled { origin, alarms },
            Input::Limits(limits) => Self::Limits(limits),
            Input::Unheard(origin) => Self::Unheard(origin),
        }
    }

    /// Moves the cursors as the input did.
    pub(crate) fn advance(&self, cursors: &mut BTreeMap<NodeId, Cursor>) {
        match self {
            Self::Remote(event) => {
                let place = cursors.entry(event.id.node).or_default().of(event);
                *place = (*place).max(event.id.into());
            }
            Self::Begin { origin, at } => {
                let cursor = cursors.entry(*origin).or_default();
                *cursor = Cursor { events: cursor.events.max(*at), readings: cursor.readings.max(*at) };
            }
            Self::Gap(gap) => {
                let cursor = cursors.entry(gap.origin).or_default();
                cursor.events = cursor.events.max(gap.to);
            }
            _ => {}
        }
    }

    /// The input again; `None` if its bundle does not compile in this version.
    pub(crate) fn into_input(self) -> Option<Input> {
        Some(match self {
            Self::Update(update) => Input::Update(update),
            Self::Command(command) => Input::Command(command),
            Self::Remote(event) => Input::Remote(event),
            Self::Outcome { request, outcome } => Input::Outcome { request, outcome },
            Self::Owner { group, epoch, saved } => Input::Owner { group, epoch, saved },
            Self::NotOwner { group, epoch, active } => Input::NotOwner { group, epoch, active },
            Self::Fact(fact) => Input::Fact(fact),
            Self::Domain { nodes, services } => Input::Domain { nodes, services },
            Self::Bundle(bundle) => Input::Bundle(shared_bundle(&bundle).ok()?),
            Self::Timeout => Input::Timeout,
            Self::Level { from, event } => Input::Level { from, event },
            Self::Begin { origin, at } => Input::Begin { origin, at },
            Self::Gap(gap) => Input::Gap(gap),
            Self::Settled { origin, alarms } => Input::Settled { origin, alarms },
            Self::Limits(limits) => Input::Limits(limits),
            Self::Unheard(origin) => Input::Unheard(origin),
        })
    }
}

/// What is noted while an input is handled.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes {
    /// Something happened: the input is kept.
    pub(super) touched: bool,
    pub(super) stale: Vec<(ObjectName, AttributeName)>,
    pub(super) overruns: Vec<(u32, Failure)>,
    pub(super) calls: u32,
    /// In a replay: what the original found, which counts instead of own looks.
    pub(super) told: Option<Told>,
}

/// What a replay is told.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub(super) stale: Vec<(ObjectName, AttributeName)>,
    pub(super) overruns: Vec<(u32, Failure)>,
}

impl Engine {
    /// Puts the record of an input before what came of it.
    pub(super) fn keep(&mut self, at: usize, input: Kept) {
        let line = Line {
            now: self.now,
            wall: self.wall,
            input,
            stale: std::mem::take(&mut self.notes.stale),
            overruns: std::mem::take(&mut self.notes.overruns),
            hash: self.hash,
            sequence: self.sequence,
        };
        let body = postcard::to_stdvec(&line).expect("an input in memory has an encoding");
        let mut bytes = Vec::with_capacity(body.len() + record::HEADER);
        record::encode(KIND_INPUT, &body, &mut bytes);
        self.outputs.insert(at, Output::Journal(bytes));
    }

    /// The first record of a new segment. What is appended after it replays from it, and policies' part of this instant begins anew in both.
    pub fn begin_segment(&mut self) -> Vec<u8> {
        self.spent = 0;
        let mut bytes = Vec::new();
        record::encode(KIND_SNAPSHOT, &self.snapshot(), &mut bytes);
        bytes
    }

    /// Handles a kept input as it was handled then.
    pub(crate) fn handle_again(&mut self, line: Line) -> bool {
        let Some(input) = line.input.into_input() else { return false };
        self.notes.told = Some(Told { stale: line.stale, overruns: line.overruns });
        self.handle(line.now, line.wall, input);
        self.notes.told = None;
        true
    }
}
