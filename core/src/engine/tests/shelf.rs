//! A shelf with an engine, and words to drive it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::bundle::{Compiled, compile_bundle};
use crate::domain::config::{Bundle, chassis_group};
use crate::engine::{Command, CommandBody, CommandError, CommandId, Config, ControlAction, Engine, Input, Output};
use crate::authority::{AccessRole, Principal};
use crate::event::{Body, Event};
use crate::ids::{AttributeName, ChassisName, Epoch, EventId, GroupName, Incarnation, Member, NodeId, ObjectName};
use crate::time::{Duration, Instant, WallTime};
use crate::value::{Outcome, Quality, Request, Update, Value};

/// The policies that ship.
pub(crate) fn shipped() -> Bundle {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
    let mut files = BTreeMap::new();
    for folder in ["", "classes/", "objects/"] {
        for entry in std::fs::read_dir(root.join(folder)).expect("policies stand beside the crates") {
            let path = entry.expect("readable").path();
            if path.is_file() {
                let name = format!("{folder}{}", path.file_name().expect("a file").to_string_lossy());
                files.insert(name, std::fs::read_to_string(&path).expect("text"));
            }
        }
    }
    Bundle { files }
}

pub(crate) fn compiled(bundle: &Bundle) -> Arc<Compiled> {
    compile_bundle(bundle).unwrap_or_else(|wrong| panic!("{}", wrong.iter().map(|d| format!("{d}\n\n")).collect::<String>()))
}

pub(crate) fn node(n: u16) -> Member {
    Member { node: NodeId(n), incarnation: Incarnation(1) }
}

pub(crate) struct Shelf {
    pub(crate) engine: Engine,
    pub(crate) now: Instant,
    pub(crate) events: Vec<Arc<Event>>,
    /// Events of other nodes that were new.
    pub(crate) heard: Vec<EventId>,
    pub(crate) requests: Vec<Request>,
    pub(crate) controls: Vec<ControlAction>,
    pub(crate) forwarded: Vec<(Option<GroupName>, Command)>,
    pub(crate) recorded: Vec<(u64, EventId)>,
    pub(crate) saved: BTreeMap<String, Vec<u8>>,
    pub(crate) replies: Vec<(CommandId, Result<EventId, CommandError>)>,
    /// Drivers take what they are asked for.
    pub(crate) obedient: bool,
    /// The journal, a segment from the beginning.
    pub(crate) journal: Vec<u8>,
    next_command: u128,
}

impl Shelf {
    /// Node 1 with the shipped policies, owner of mxp1, all five fans turning.
    pub(crate) fn running() -> Self {
        let mut shelf = Self::with(&shipped(), 1);
        shelf.own(1, Vec::new());
        for fan in 1..=5 {
            shelf.speed(fan, 5000);
        }
        shelf.forget();
        shelf
    }

    /// The same, and fan 1 has failed: it stands still until its alarm is raised. With it node 3, which has just joined.
    pub(crate) fn with_a_failed_fan_and_a_newcomer() -> (Self, Self) {
        let mut owner = Self::running();
        owner.speed(1, 0);
        for _ in 0..4 {
            owner.pass(Duration::from_millis(500));
            (2..=5).for_each(|fan| owner.speed(fan, 5000));
            owner.speed(1, 0);
        }
        let mut newcomer = Self::with(&shipped(), 3);
        newcomer.now = owner.now;
        (owner, newcomer)
    }

    pub(crate) fn with(bundle: &Bundle, n: u16) -> Self {
        let engine = Engine::new(Config { me: node(n), history_max: 10_000, journal: true });
        let mut shelf = Self {
            engine,
            now: Instant::ZERO + Duration::from_secs(100),
            events: Vec::new(),
            heard: Vec::new(),
            requests: Vec::new(),
            controls: Vec::new(),
            forwarded: Vec::new(),
            recorded: Vec::new(),
            saved: BTreeMap::new(),
            replies: Vec::new(),
            obedient: true,
            journal: Vec::new(),
            next_command: 0,
        };
        shelf.journal = shelf.engine.begin_segment();
        shelf.input(Input::Bundle(compiled(bundle)));
        let places = (1..=3).map(|n| (NodeId(n), ChassisName::new(if n < 3 { "mxp1" } else { "mxp2" }))).collect();
        shelf.input(Input::Domain { nodes: places, services: vec![GroupName::new("calls")] });
        shelf
    }

    pub(crate) fn own(&mut self, epoch: u64, saved: Vec<(String, Vec<u8>)>) {
        self.input(Input::Owner { group: chassis_group("mxp1"), epoch: Epoch(epoch), saved });
    }

    pub(crate) fn wall(&self) -> WallTime {
        WallTime(1_700_000_000_000_000_000 + self.now.as_nanos())
    }

    pub(crate) fn input(&mut self, input: Input) {
        self.engine.handle(self.now, self.wall(), input);
        self.drain();
    }

    fn drain(&mut self) {
        let mut answers = Vec::new();
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Event(event) => self.events.push(event),
                Output::Heard(event) => self.heard.push(event.id),
                Output::Act { request, .. } => {
                    if self.obedient {
                        answers.push(request.id);
                    }
                    self.requests.push(request);
                }
                Output::Control(action) => self.controls.push(action),
                Output::Save { key, bytes: Some(bytes), .. } => drop(self.saved.insert(key, bytes)),
                Output::Save { key, bytes: None, .. } => drop(self.saved.remove(&key)),
                Output::Reply { id, result } => self.replies.push((id, result)),
                Output::Forward { group, command } => self.forwarded.push((group, command)),
                Output::Recorded { token, event } => self.recorded.push((token, event)),
                Output::Journal(bytes) => self.journal.extend_from_slice(&bytes),
            }
        }
        for request in answers {
            self.input(Input::Outcome { request, outcome: Outcome::Done });
        }
    }

    pub(crate) fn read(&mut self, object: &str, attribute: &str, value: Value) {
        self.reading(object, attribute, Some(value), Quality::Good);
    }

    pub(crate) fn reading(&mut self, object: &str, attribute: &str, value: Option<Value>, quality: Quality) {
        self.input(Input::Update(Update {
            object: ObjectName::new(object),
            attribute: AttributeName::new(attribute),
            value,
            quality,
            identity: None,
            cause: None,
        }));
    }

    pub(crate) fn speed(&mut self, fan: u32, rpm: i64) {
        self.read(&format!("/mxp1/fan{fan}"), "speed", Value::Int(rpm));
    }

    /// Lets time pass, deadline by deadline, with readings of the fans that turn so that they do not go stale.
    pub(crate) fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(at) = self.engine.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.input(Input::Timeout);
        }
        self.now = end;
        self.input(Input::Timeout);
    }

    pub(crate) fn command(&mut self, role: AccessRole, body: CommandBody) -> Result<EventId, CommandError> {
        self.next_command += 1;
        let id = CommandId(self.next_command);
        let principal = Principal { name: "ann".into(), role };
        self.input(Input::Command(Command { id, principal, cause: None, expected_version: None, body }));
        self.replies.last().expect("every command is answered").1.clone()
    }

    pub(crate) fn forget(&mut self) {
        self.events.clear();
        self.requests.clear();
        self.controls.clear();
        self.forwarded.clear();
        self.replies.clear();
    }

    /// `object kind step`, for each alarm event.
    pub(crate) fn alarm_steps(&self) -> Vec<String> {
        self.events
            .iter()
            .filter_map(|e| match &e.body {
                Body::Alarm { kind, step, .. } => Some(format!("{} {kind} {}", e.object, step.word())),
                _ => None,
            })
            .collect()
    }

    /// What drivers were asked for: `object control value`.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.requests
            .iter()
            .map(|r| format!("{} {} {}", r.object, r.control, r.value.as_ref().map_or("once".to_owned(), ToString::to_string)))
            .collect()
    }

    pub(crate) fn value(&self, object: &str, attribute: &str) -> Option<Value> {
        let world = self.engine.world();
        let ix = world.find(object)?;
        let slot = world.object(ix).class.slot(attribute)?;
        world.cell(ix, slot).usable().cloned()
    }

    pub(crate) fn saved_list(&self) -> Vec<(String, Vec<u8>)> {
        self.saved.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
    }
}
