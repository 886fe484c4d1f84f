//! Runs a journal again: to prove it, to look at a past moment, to see what another policy would have done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::record::{Records, Tail};
use super::{KIND_INPUT, KIND_SNAPSHOT};
use crate::bundle::Compiled;
use crate::engine::{Control, Engine, Input, Kept, Line, Output, RestoreError, cursors_of};
use crate::event::{Body, Event};
use crate::feed::{Cursor, Gap, Place};
use crate::ids::{AttributeName, EventId, Incarnation, NodeId, ObjectName};
use crate::time::{Instant, WallTime};
use crate::value::Value;

/// What came of a replay.
#[derive(Debug)]
pub struct Report {
    /// How many inputs were handled.
    pub inputs: u64,
    /// The events, as they were made then.
    pub events: Vec<Arc<Event>>,
    /// Where this run came to something else than the one that wrote the journal. `None`: it is proven.
    pub diverged: Option<Divergence>,
    /// How the bytes end; a torn tail is passed over.
    pub tail: Tail,
    /// The state after the last good record.
    pub engine: Engine,
}

/// A replay came to something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// The input, counted from 1.
    pub input: u64,
    /// When it was handled.
    pub now: Instant,
    /// The running hash then.
    pub expected: u32,
    /// The running hash of this run.
    pub found: u32,
}

/// Bytes that are no journal. A torn tail is none of these: it is cut.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// There is no good record at the beginning.
    #[error("the journal has no good record at its beginning")]
    Empty,
    /// A segment begins with a snapshot.
    #[error("the journal begins with a record of kind {0}, not with a snapshot")]
    NoSnapshot(u8),
    /// Written by another version. It is never skipped (protocol 6.3).
    #[error("the record at byte {at} has the unknown kind {kind}")]
    UnknownKind {
        /// Where.
        at: usize,
        /// Found.
        kind: u8,
    },
    /// The checksum is good and the content is not ours.
    #[error("the record at byte {at} cannot be read by this version")]
    Unreadable {
        /// Where.
        at: usize,
    },
    /// Something that had been synced is bad: what follows it is not to be trusted.
    #[error("the journal is damaged at byte {at}, before something that had been synced")]
    Damaged {
        /// Where.
        at: usize,
    },
    /// The snapshot is not ours.
    #[error("the snapshot at byte {at} cannot be continued from")]
    Snapshot {
        /// Where.
        at: usize,
        /// Why.
        #[source]
        source: RestoreError,
    },
}

/// One thing in a journal.
enum Entry {
    Snapshot(usize, Vec<u8>),
    Input(Box<Line>),
}

/// Reads the good records; the torn tail is cut, damage is refused.
fn entries(bytes: &[u8]) -> Result<(Vec<Entry>, Tail), ReplayError> {
    let tail = Records::new(bytes).tail();
    if let Tail::Damaged { at, .. } = tail {
        return Err(ReplayError::Damaged { at });
    }
    let mut list = Vec::new();
    for record in Records::new(bytes) {
        let entry = match record.kind {
            KIND_SNAPSHOT => Entry::Snapshot(record.at, record.body.to_vec()),
            kind if list.is_empty() => return Err(ReplayError::NoSnapshot(kind)),
            KIND_INPUT => {
                let line = postcard::from_bytes(record.body).map_err(|_| ReplayError::Unreadable { at: record.at })?;
                Entry::Input(Box::new(line))
            }
            kind => return Err(ReplayError::UnknownKind { at: record.at, kind }),
        };
        list.push(entry);
    }
    if list.is_empty() { Err(ReplayError::Empty) } else { Ok((list, tail)) }
}

fn restore(at: usize, bytes: &[u8]) -> Result<Engine, ReplayError> {
    Engine::restore(bytes).map_err(|source| ReplayError::Snapshot { at, source })
}

/// Runs a journal again and compares: same inputs, same decisions.
///
/// `until` stops before the first input after that moment, for a look at the past.
///
/// # Errors
/// [`ReplayError`] if the bytes are no journal of this version. A run that comes to something else is no error but
/// [`Report::diverged`].
pub fn replay(bytes: &[u8], until: Option<Instant>) -> Result<Report, ReplayError> {
    let (list, tail) = entries(bytes)?;
    let mut list = list.into_iter();
    let Some(Entry::Snapshot(at, first)) = list.next() else { return Err(ReplayError::Empty) };
    let mut report = Report { inputs: 0, events: Vec::new(), diverged: None, tail, engine: restore(at, &first)? };
    for entry in list {
        match entry {
            // A later segment: it begins where we are, unless something is missing in between.
            Entry::Snapshot(at, bytes) => report.engine = restore(at, &bytes)?,
            Entry::Input(line) => {
                if until.is_some_and(|until| line.now > until) || report.diverged.is_some() {
                    break;
                }
                let (now, expected, sequence) = (line.now, line.hash, line.sequence);
                report.inputs += 1;
                report.engine.handle_again(*line);
                while let Some(output) = report.engine.poll_output() {
                    if let Output::Event(event) = output {
                        report.events.push(event);
                    }
                }
                let found = report.engine.hash();
                if found != expected || report.engine.last_sequence() != sequence {
                    report.diverged = Some(Divergence { input: report.inputs, now, expected, found });
                }
            }
        }
    }
    Ok(report)
}

/// How far a segment's node had recorded the events of each other node at its end. Nothing is run again, so no policy has to compile.
///
/// # Errors
/// As [`replay`].
pub fn cursors(bytes: &[u8]) -> Result<BTreeMap<NodeId, Cursor>, ReplayError> {
    let (list, _) = entries(bytes)?;
    let mut cursors = BTreeMap::new();
    for entry in list {
        match entry {
            Entry::Snapshot(at, bytes) => {
                cursors = cursors_of(&bytes).ok_or(ReplayError::Snapshot { at, source: RestoreError::Unreadable })?;
            }
            Entry::Input(line) => line.input.advance(&mut cursors),
        }
    }
    Ok(cursors)
}

/// One thing that a node recorded of another's events.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// They are heard from here on.
    Begin {
        /// Whose.
        origin: NodeId,
        /// From behind this place on.
        at: Place,
    },
    /// One of them.
    Event(Arc<Event>),
    /// What it will never get.
    Gap(Gap),
}

/// What a segment's node recorded of the others' events, in order.
///
/// # Errors
/// As [`replay`].
pub fn heard(bytes: &[u8]) -> Result<Vec<Heard>, ReplayError> {
    let (list, _) = entries(bytes)?;
    let of = |entry| match entry {
        Entry::Input(line) => match line.input {
            Kept::Begin { origin, at } => Some(Heard::Begin { origin, at }),
            Kept::Remote(event) => Some(Heard::Event(event)),
            Kept::Gap(gap) => Some(Heard::Gap(gap)),
            _ => None,
        },
        Entry::Snapshot(..) => None,
    };
    Ok(list.into_iter().filter_map(of).collect())
}

/// What is still known of the events of a node's earlier lives: as many of the newest as are asked for.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// In order.
    pub events: Vec<Arc<Event>>,
    /// Events up to and including this place are not among them.
    pub gone: Place,
    /// The lives that are known to have been.
    pub lives: BTreeSet<Incarnation>,
}

impl Past {
    /// The last event of these lives.
    pub fn last(&self) -> Place {
        self.events.last().map_or(self.gone, |event| event.id.into())
    }

    /// Puts an older segment in front. One that comes to something else in this version tells no events; false then, and what is older
    /// is of no use.
    pub fn put_before(&mut self, segment: &[u8]) -> bool {
        let Ok(report) = replay(segment, None) else { return false };
        if report.diverged.is_some() {
            return false;
        }
        let last = Place { incarnation: report.engine.me().incarnation, sequence: report.engine.last_sequence() };
        let made = u64::try_from(report.events.len()).unwrap_or(u64::MAX);
        let is_gapless = self.lives.is_empty() || self.gone == last || self.gone.sequence == 0 && self.gone.incarnation > last.incarnation;
        if !is_gapless {
            return false;
        }
        self.gone = Place { sequence: last.sequence.saturating_sub(made), ..last };
        self.lives.insert(last.incarnation);
        let newer = std::mem::take(&mut self.events);
        self.events = report.events;
        self.events.extend(newer);
        true
    }
}

/// Something that an engine decided, without the numbers that every run gives anew.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Decision {
    /// A driver was asked.
    Act {
        /// Where.
        object: ObjectName,
        /// Which control or operation.
        control: AttributeName,
        /// The value; `None` for an operation.
        value: Option<String>,
    },
    /// An alarm came or went.
    Alarm {
        /// Where.
        object: ObjectName,
        /// Its type.
        kind: String,
        /// What happened to it.
        step: String,
    },
    /// Roles were asked to change.
    Control(String),
}

/// Where another bundle would have decided otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// When, for people.
    pub at: WallTime,
    /// What was decided then, and would not have been.
    pub only_then: Vec<Decision>,
    /// What would have been decided, and was not.
    pub only_now: Vec<Decision>,
}

/// What a comparison came to.
#[derive(Debug)]
pub struct Comparison {
    /// How many inputs were compared.
    pub inputs: u64,
    /// How many decisions the recorded run made.
    pub decisions: u64,
    /// Where the other bundle differs.
    pub differences: Vec<Difference>,
}

/// Runs a journal with another bundle beside the recorded one: what would it have done differently?
///
/// # Errors
/// As [`replay`].
pub fn compare(bytes: &[u8], other: &Arc<Compiled>) -> Result<Comparison, ReplayError> {
    let (list, _) = entries(bytes)?;
    let mut pair: Option<Pair> = None;
    let mut result = Comparison { inputs: 0, decisions: 0, differences: Vec::new() };
    for entry in list {
        match (entry, &mut pair) {
            (Entry::Snapshot(at, bytes), None) => pair = Some(Pair::new(restore(at, &bytes)?, restore(at, &bytes)?, other)),
            // The other run goes its own way; only the recorded one could be set to the snapshot, so neither is.
            (Entry::Snapshot(..), Some(_)) => {}
            (Entry::Input(line), Some(pair)) => {
                result.inputs += 1;
                let at = line.wall;
                let (then, now) = pair.step(*line);
                result.decisions += then.len() as u64;
                let only_then: Vec<Decision> = then.iter().filter(|d| !now.contains(d)).cloned().collect();
                let only_now: Vec<Decision> = now.iter().filter(|d| !then.contains(d)).cloned().collect();
                if !only_then.is_empty() || !only_now.is_empty() {
                    result.differences.push(Difference { at, only_then, only_now });
                }
            }
            (Entry::Input(_), None) => return Err(ReplayError::NoSnapshot(KIND_INPUT)),
        }
    }
    Ok(result)
}

/// The recorded run and the other one, input by input.
struct Pair {
    recorded: Engine,
    other: Engine,
    /// What requests of each run were about, so that an outcome reaches the same request of the other.
    requests: [BTreeMap<EventId, (ObjectName, AttributeName)>; 2],
}

impl Pair {
    fn new(recorded: Engine, mut other: Engine, bundle: &Arc<Compiled>) -> Self {
        let (now, wall) = other.times();
        other.handle(now, wall, Input::Bundle(bundle.clone()));
        let mut pair = Self { recorded, other, requests: [BTreeMap::new(), BTreeMap::new()] };
        pair.take(1);
        pair
    }

    fn step(&mut self, line: Line) -> (Vec<Decision>, Vec<Decision>) {
        let mut for_other = line.clone();
        match &line.input {
            // The other bundle stays in force.
            Kept::Bundle(_) => for_other.input = Kept::Timeout,
            Kept::Outcome { request, outcome } => {
                let about = self.requests[0].get(request);
                let same = self.requests[1].iter().rev().find(|(_, b)| Some(*b) == about).map(|(id, _)| *id);
                for_other.input = match same {
                    Some(request) => Kept::Outcome { request, outcome: outcome.clone() },
                    None => Kept::Timeout,
                };
            }
            _ => {}
        }
        self.recorded.handle_again(line);
        self.other.handle_again(for_other);
        (self.take(0), self.take(1))
    }

    fn take(&mut self, which: usize) -> Vec<Decision> {
        let engine = if which == 0 { &mut self.recorded } else { &mut self.other };
        let mut decisions = Vec::new();
        while let Some(output) = engine.poll_output() {
            match output {
                Output::Act { request, .. } => {
                    self.requests[which].insert(request.id, (request.object.clone(), request.control.clone()));
                    let value = request.value.as_ref().map(Value::to_string);
                    decisions.push(Decision::Act { object: request.object, control: request.control, value });
                }
                Output::Control(action) => decisions.push(Decision::Control(words(&action.what))),
                Output::Event(event) => {
                    if let Body::Alarm { kind, step, .. } = &event.body {
                        let step = step.word().to_owned();
                        decisions.push(Decision::Alarm { object: event.object.clone(), kind: kind.to_string(), step });
                    }
                }
                _ => {}
            }
        }
        decisions.sort();
        decisions
    }
}

fn words(control: &Control) -> String {
    match control {
        Control::EvacuateChassis(chassis) => format!("evacuate {chassis}"),
        Control::EvacuateNode(node) => format!("evacuate {node}"),
        Control::Failover(group) => format!("failover {group}"),
        Control::Switchover(group) => format!("switchover {group}"),
    }
}
