//! The engine's whole state in bytes, and back: the beginning of every segment of the journal.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::apply::Timer;
use super::change::Hold;
use super::claims::{Control, Pending};
use super::deadlines::Deadlines;
use super::{Alarm, AlarmKey, Behind, CommandError, CommandId, Config, Engine};
use crate::bundle::shared_bundle;
use crate::class::Slot;
use crate::diagnostic::Diagnostic;
use crate::domain::config::Bundle;
use crate::domain::limits::Limits;
use crate::feed::Cursor;
use crate::ids::{ChassisName, ClassName, EventId, Epoch, GroupName, Identity, Member, NodeId, ObjectName, Version};
use crate::time::{HybridTime, Instant, WallTime};
use crate::world::{Cell, Ix, World};

/// Everything that decides what an engine does next. History is not part of it, except where causes' roots are looked up.
#[derive(Debug, Serialize, Deserialize)]
struct Snapshot {
    me: Member,
    history_max: usize,
    bundle: Bundle,
    bundle_version: Version,
    clock: HybridTime,
    sequence: u64,
    now: Instant,
    wall: WallTime,
    hash: u32,
    objects: Vec<SavedObject>,
    actives: BTreeMap<GroupName, (Epoch, Option<Member>)>,
    places: BTreeMap<NodeId, ChassisName>,
    raised: BTreeSet<(Ix, Arc<str>)>,
    alive: BTreeMap<NodeId, bool>,
    seen: BTreeMap<GroupName, Epoch>,
    holds: BTreeMap<(Ix, Slot), Hold>,
    alarms: BTreeMap<AlarmKey, Alarm>,
    controls: BTreeMap<(Ix, Slot), Control>,
    requests: BTreeMap<EventId, Pending>,
    timers: BTreeMap<(Ix, Arc<str>), Timer>,
    deadlines: Deadlines,
    failing: BTreeMap<Ix, BTreeSet<String>>,
    answers: VecDeque<(CommandId, Result<EventId, CommandError>)>,
    roots: Vec<(EventId, EventId)>,
}

/// One object's values. Objects stand in the order of their positions, so that positions stay what they were.
#[derive(Debug, Serialize, Deserialize)]
struct SavedObject {
    name: ObjectName,
    class: ClassName,
    identity: Option<Identity>,
    cells: Vec<Cell>,
}

/// First byte of a snapshot that has what policies have yet to see behind its limits. Written where there is such a thing; older versions read the others.
const FORMAT: u8 = 4;
/// It has limits behind its cursors: those of a domain that says some.
const FORMAT_UP_TO_LIMITS: u8 = 3;
/// Every limit has its default. Written where that is so.
const FORMAT_WITHOUT_LIMITS: u8 = 2;
/// Had no cursors behind it. It is still read.
const FORMAT_WITHOUT_CURSORS: u8 = 1;
/// Of so many recent events the root is kept: causes are recent.
const ROOTS_MAX: usize = 1024;

/// A snapshot that cannot be continued from.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Another format, or bytes too many or too few.
    #[error("the snapshot cannot be read by this version")]
    Unreadable,
    /// Its bundle does not compile in this version.
    #[error("the snapshot's policies are refused by this version: {}", .0.first().map(ToString::to_string).unwrap_or_default())]
    Bundle(Vec<Diagnostic>),
    /// Its objects do not fit its classes.
    #[error("the snapshot's object {0} does not fit its class")]
    Object(ObjectName),
}

impl Engine {
    /// The whole state. Call it between inputs, when all outputs have been taken.
    pub fn snapshot(&self) -> Vec<u8> {
        let recent = self.history.iter().rev().take(ROOTS_MAX).map(|e| (e.id, e.root));
        let snapshot = Snapshot {
            me: self.me,
            history_max: self.history.events_max(),
            bundle: self.world.compiled.files.clone(),
            bundle_version: self.bundle_version,
            clock: self.clock,
            sequence: self.sequence,
            now: self.now,
            wall: self.wall,
            hash: self.hash,
            objects: self
                .world
                .iter()
                .map(|(_, o)| SavedObject {
                    name: o.name.clone(),
                    class: o.class.name.clone(),
                    identity: o.identity.clone(),
                    cells: o.cells.clone(),
                })
                .collect(),
            actives: self.world.actives.clone(),
            places: self.world.places.clone(),
            raised: self.world.raised.clone(),
            alive: self.alive.clone(),
            seen: self.seen.clone(),
            holds: self.holds.clone(),
            alarms: self.alarms.clone(),
            controls: self.controls.clone(),
            requests: self.requests.clone(),
            timers: self.timers.clone(),
            deadlines: self.deadlines.clone(),
            failing: self.failing.clone(),
            answers: self.answers.clone(),
            roots: recent.chain(self.old_roots.iter().map(|(a, b)| (*a, *b))).take(ROOTS_MAX).collect(),
        };
        let format = match (self.is_behind(), self.limits.is_unsaid()) {
            (true, _) => FORMAT,
            (false, false) => FORMAT_UP_TO_LIMITS,
            (false, true) => FORMAT_WITHOUT_LIMITS,
        };
        let whole = match format {
            FORMAT => postcard::to_extend(&(&snapshot, &self.cursors, &self.limits, &self.behind), vec![format]),
            FORMAT_UP_TO_LIMITS => postcard::to_extend(&(&snapshot, &self.cursors, &self.limits), vec![format]),
            _ => postcard::to_extend(&(&snapshot, &self.cursors), vec![format]),
        };
        whole.expect("a state in memory has an encoding")
    }

    /// An engine that goes on where [`Engine::snapshot`] was taken. It has no history.
    ///
    /// # Errors
    /// [`RestoreError`]; it is never half restored.
    pub fn restore(bytes: &[u8]) -> Result<Self, RestoreError> {
        let Read { snapshot, cursors, limits, behind } = read(bytes).ok_or(RestoreError::Unreadable)?;
        let compiled = shared_bundle(&snapshot.bundle).map_err(RestoreError::Bundle)?;
        let mut world = World::new(compiled);
        world.objects_max = snapshot.objects.len().max(world.objects_max); // what was there stays, whatever the bound became since
        for saved in snapshot.objects {
            let unfit = || RestoreError::Object(saved.name.clone());
            let class = world.compiled.classes.get(&saved.class).cloned().ok_or_else(unfit)?;
            let ix = world.insert(saved.name.clone(), class).ok_or_else(unfit)?;
            let object = world.object_mut(ix);
            if object.cells.len() != saved.cells.len() || object.class.name != saved.class {
                return Err(unfit());
            }
            object.cells = saved.cells;
            object.identity = saved.identity;
        }
        world.actives = snapshot.actives;
        world.places = snapshot.places;
        world.raised = snapshot.raised;
        let mut engine = Self::new(Config { me: snapshot.me, history_max: snapshot.history_max, journal: false });
        engine.world = Arc::new(world);
        engine.on_limits(limits);
        engine.bundle_version = snapshot.bundle_version;
        engine.clock = snapshot.clock;
        engine.sequence = snapshot.sequence;
        engine.now = snapshot.now;
        engine.wall = snapshot.wall;
        engine.hash = snapshot.hash;
        engine.alive = snapshot.alive;
        engine.seen = snapshot.seen;
        engine.cursors = cursors;
        engine.settle_ownership();
        engine.behind = behind; // Nothing is new: every object was started before the snapshot, but for those.
        engine.holds = snapshot.holds;
        engine.alarms = snapshot.alarms;
        engine.controls = snapshot.controls;
        engine.requests = snapshot.requests;
        engine.timers = snapshot.timers;
        engine.deadlines = snapshot.deadlines;
        engine.failing = snapshot.failing;
        engine.answers = snapshot.answers;
        engine.old_roots = snapshot.roots.into_iter().collect();
        Ok(engine)
    }
}

/// How far the node of a snapshot had recorded the others' events; `None` for bytes that are no snapshot. Its policies need not compile.
pub(crate) fn cursors_of(bytes: &[u8]) -> Option<Cursors> {
    read(bytes).map(|read| read.cursors)
}

/// By origin.
type Cursors = BTreeMap<NodeId, Cursor>;

struct Read {
    snapshot: Snapshot,
    cursors: Cursors,
    limits: Limits,
    behind: Behind,
}

fn read(bytes: &[u8]) -> Option<Read> {
    let (format, rest) = bytes.split_first()?;
    let (snapshot, rest) = postcard::take_from_bytes(rest).ok()?;
    let (cursors, limits, behind) = match *format {
        FORMAT => postcard::from_bytes(rest).ok()?,
        FORMAT_UP_TO_LIMITS => {
            let (cursors, limits) = postcard::from_bytes(rest).ok()?;
            (cursors, limits, Behind::default())
        }
        FORMAT_WITHOUT_LIMITS => (postcard::from_bytes(rest).ok()?, Limits::default(), Behind::default()),
        FORMAT_WITHOUT_CURSORS => (Cursors::new(), Limits::default(), Behind::default()),
        _ => return None,
    };
    Some(Read { snapshot, cursors, limits, behind })
}
