//! Policies: Rhai files that read objects and return actions. A policy touches nothing by itself.
//!
//! A handler gets the world as it is and plans actions; the engine carries them out afterwards, all of them or none. The
//! sandbox: no files, network, clock or modules, and bounds on operations, depth, sizes and time. The optimiser stays off:
//! it folds away what `check` has to see, it once dropped statements with effects (rhai#1126), and handlers are short.

mod api;
mod check;
mod names;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rhai::packages::Package;
use serde::{Deserialize, Serialize};
use rhai::{AST, CallFnOptions, Dynamic, Engine, EvalAltResult, Module, OptimizationLevel, Scope, Shared};

use crate::alarms::Catalogue;
use crate::class::{Class, Slot};
use crate::diagnostic::{Diagnostic, Diagnostics, Source, Spot};
use crate::domain::limits::{Limit, Limits};
use crate::event::{Event, PolicyLine};
use crate::ids::{AttributeName, ClassName};
use crate::time::Duration;
use crate::value::Value;
use crate::world::{Ix, World};

pub(crate) use api::{NORMAL, OPERATOR};
pub use api::{Change, Obj};

/// Most actions of one call.
pub const ACTIONS_MAX: usize = 256;

/// What one call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Operations of the language; the default is a loop over 5000 things, or a millisecond.
    pub operations: u64,
    /// Time, where a clock is given (protocol 5.3).
    pub time: Duration,
}

impl Budget {
    /// What a domain's limits allow.
    pub fn of(limits: &Limits) -> Self {
        Self { operations: limits.of(Limit::PolicyOperations), time: Duration::from_micros(limits.of(Limit::PolicyTimeUs)) }
    }
}

/// One policy file, ready to run.
#[derive(Debug)]
pub struct Policy {
    /// The file's name in the bundle.
    pub file: Arc<str>,
    engine: Engine,
    ast: AST,
    /// Handler to its number of parameters.
    handlers: BTreeMap<String, usize>,
    on_attribute: BTreeMap<AttributeName, String>,
    watch: Arc<Watch>,
}

/// Why a handler is called.
#[derive(Clone, Debug)]
pub enum Call<'a> {
    /// An attribute of the object changed.
    Attribute(&'a AttributeName, Arc<Event>),
    /// Anything of the object changed, alarms not among it.
    Change(Arc<Event>),
    /// An alarm of the object came, went or was handled.
    Alarm(Arc<Event>),
    /// Something that the class hears of, on another object.
    Event(Arc<Event>),
    /// A timer that `after` has set.
    Timer(&'a str),
    /// This node has become the object's owner, or the policy is new.
    Start,
}

/// What a policy asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Raise an alarm.
    Raise {
        /// Where.
        object: Ix,
        /// Its type.
        kind: Arc<str>,
        /// Tells alarms of one type apart.
        qualifier: Arc<str>,
        /// Evidence.
        text: Arc<str>,
    },
    /// Clear an alarm.
    Clear {
        /// Where.
        object: Ix,
        /// Its type.
        kind: Arc<str>,
        /// Tells alarms of one type apart.
        qualifier: Arc<str>,
    },
    /// Hold a control at a value.
    Claim {
        /// Where.
        object: Ix,
        /// Which control.
        control: Slot,
        /// The value.
        value: Value,
        /// Why.
        reason: Arc<str>,
        /// How strong.
        priority: i32,
    },
    /// Give up a hold.
    Release {
        /// Where.
        object: Ix,
        /// Which control.
        control: Slot,
    },
    /// Do something once, such as `reset`.
    Operation {
        /// Where.
        object: Ix,
        /// What.
        name: AttributeName,
    },
    /// Move services away from a chassis or node.
    Evacuate {
        /// Which.
        object: Ix,
        /// Why.
        reason: Arc<str>,
    },
    /// Make the standby of a service active now.
    Failover {
        /// Which service.
        object: Ix,
        /// Why.
        reason: Arc<str>,
    },
    /// Hand a service over in order.
    Switchover {
        /// Which service.
        object: Ix,
        /// Why.
        reason: Arc<str>,
    },
    /// Call `on_timer` later.
    After {
        /// How long.
        delay: Duration,
        /// The timer's name; setting it again starts it anew.
        name: Arc<str>,
    },
    /// Forget a timer.
    Cancel {
        /// Its name.
        name: Arc<str>,
    },
    /// Write a line.
    Log {
        /// The line.
        text: Arc<str>,
    },
}

/// One action and the line that asked for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// What.
    pub act: Act,
    /// Where it stands.
    pub line: PolicyLine,
}

/// Why a call came to nothing. None of its actions happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Where.
    pub line: PolicyLine,
    /// One sentence.
    pub message: String,
    /// The time budget ran out, which a replay cannot find by itself.
    pub overrun: bool,
}

/// Watches the time of calls, where somebody has given it a clock. Without one only operations count, as in the simulator.
#[derive(Default)]
pub struct Watch {
    clock: OnceLock<Box<dyn Fn() -> u64 + Send + Sync>>,
    /// When the clock was looked at last, what the present call has taken by then, and what it may take.
    looked: AtomicU64,
    taken: AtomicU64,
    taken_max: AtomicU64,
    operations: AtomicU64,
    operations_max: AtomicU64,
    /// The most that any call took since it was asked.
    longest: AtomicU64,
    most: AtomicU64,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("clock", &self.clock.get().is_some()).finish()
    }
}

impl Watch {
    /// Gives the clock, in nanoseconds. The first one stays.
    pub fn install(&self, clock: impl Fn() -> u64 + Send + Sync + 'static) {
        // A second clock is refused; it could only be the same one, given again when a bundle is applied anew.
        drop(self.clock.set(Box::new(clock)));
    }

    fn start(&self, budget: Budget) {
        self.operations.store(0, Ordering::Relaxed);
        self.operations_max.store(budget.operations, Ordering::Relaxed);
        if let Some(clock) = self.clock.get() {
            self.looked.store(clock(), Ordering::Relaxed);
            self.taken.store(0, Ordering::Relaxed);
            self.taken_max.store(crate::time::nanos(budget.time), Ordering::Relaxed);
        }
    }

    fn finish(&self) {
        self.most.fetch_max(self.operations.load(Ordering::Relaxed), Ordering::Relaxed);
        self.longest.fetch_max(self.look(), Ordering::Relaxed);
    }

    /// The most operations that any call has taken since this was asked last.
    pub fn take_most(&self) -> u64 {
        self.most.swap(0, Ordering::Relaxed)
    }

    /// The longest that any call has taken since this was asked last; zero without a clock.
    pub fn take_longest(&self) -> Duration {
        Duration::from_nanos(self.longest.swap(0, Ordering::Relaxed))
    }

    /// Called with each operation: what ends the call. Operations first, since they alone are the same in a replay.
    fn judge(&self, operations: u64) -> Option<Dynamic> {
        self.operations.store(operations, Ordering::Relaxed);
        if operations > self.operations_max.load(Ordering::Relaxed) {
            return Some(TOO_MANY_OPERATIONS.into());
        }
        // Every 64 operations: a clock is read in 30 ns, an operation takes about as long.
        (operations.is_multiple_of(64) && self.is_over()).then_some(Dynamic::UNIT)
    }

    fn is_over(&self) -> bool {
        self.look() > self.taken_max.load(Ordering::Relaxed)
    }

    /// What the present call has taken. A leap of the clock is seldom the call's doing: a thread's time holds what a host takes from its
    /// guest, and a sound policy must not fail for that. So no step from look to look counts for more than a part of the budget.
    fn look(&self) -> u64 {
        let Some(clock) = self.clock.get() else { return 0 };
        let now = clock();
        let step = now.saturating_sub(self.looked.swap(now, Ordering::Relaxed));
        let step = step.min(self.taken_max.load(Ordering::Relaxed) / STEPS_AT_LEAST);
        self.taken.fetch_add(step, Ordering::Relaxed) + step
    }
}

/// A call is ended for its time at this many looks of 64 operations each at the earliest.
const STEPS_AT_LEAST: u64 = 4;

/// What a call that is ended for its operations is told; for its time it is told nothing.
const TOO_MANY_OPERATIONS: i64 = 1;

/// What all policies of a bundle share: the functions that they can call.
#[derive(Debug)]
pub struct Language {
    standard: Shared<Module>,
    api: Shared<Module>,
    operations: Vec<String>,
    /// Watches the time of their calls.
    pub watch: Arc<Watch>,
}

/// Builds what the policies of these classes can call.
pub fn parts_of_the_language(classes: &BTreeMap<ClassName, Arc<Class>>) -> Language {
    let mut operations: Vec<String> =
        classes.values().flat_map(|c| c.operations.iter().map(|o| o.as_str().to_owned())).collect();
    operations.sort();
    operations.dedup();
    Language {
        standard: rhai::packages::StandardPackage::new().as_shared_module(),
        api: api::module(classes, &operations).into(),
        operations,
        watch: Arc::default(),
    }
}

/// Compiles and checks one policy for the classes that it speaks for. `None` if it does not even parse.
pub fn compile(
    source: Source<'_>,
    bound: &[Arc<Class>],
    classes: &BTreeMap<ClassName, Arc<Class>>,
    catalogue: &Catalogue,
    language: &Language,
    out: &mut Diagnostics,
) -> Option<Policy> {
    let mut engine = sandbox(language);
    let first = match engine.compile(source.text) {
        Ok(ast) => ast,
        Err(wrong) => {
            out.push(syntax_error(source, &wrong));
            return None;
        }
    };
    let constants = constants(&first);
    let mut module = Module::new();
    let mut scope = Scope::new();
    for (name, value) in &constants {
        module.set_var(name.as_str(), value.clone());
        scope.push_constant_dynamic(name.as_str(), value.clone());
    }
    engine.register_global_module(module.into());
    // Now that the constants are known, a name that nobody has declared is an error.
    engine.set_strict_variables(true);
    let mut ast = match engine.compile_with_scope(&scope, source.text) {
        Ok(ast) => ast,
        Err(wrong) => {
            out.push(syntax_error(source, &wrong));
            return None;
        }
    };
    ast.set_source(source.name);
    let checked = check::Check { source, bound, classes, catalogue, operations: &language.operations, constants: &constants };
    checked.run(&ast, out);
    ast.clear_statements();
    let handlers: BTreeMap<String, usize> =
        ast.iter_functions().map(|f| (f.name.to_owned(), f.params.len())).filter(|(name, _)| name.starts_with("on_")).collect();
    let on_attribute = bound
        .iter()
        .flat_map(|c| c.slots.keys())
        .map(|name| (name.clone(), format!("on_{name}")))
        .filter(|(_, handler)| handlers.contains_key(handler))
        .collect();
    Some(Policy { file: Arc::from(source.name), engine, ast, handlers, on_attribute, watch: language.watch.clone() })
}

fn constants(ast: &AST) -> BTreeMap<String, Dynamic> {
    ast.iter_literal_variables(true, false).map(|(name, _, value)| (name.to_owned(), value)).collect()
}

fn sandbox(language: &Language) -> Engine {
    let mut engine = Engine::new_raw();
    engine.register_global_module(language.standard.clone());
    engine.register_global_module(language.api.clone());
    engine.set_optimization_level(OptimizationLevel::None);
    engine.set_max_strings_interned(0); // The interner is a lock that all engines of a process share.
    engine.set_max_operations(Limit::PolicyOperations.row().max); // behind the domain's own bound, which comes with each call
    engine.set_max_call_levels(16);
    engine.set_max_expr_depths(64, 64);
    engine.set_max_variables(64);
    engine.set_max_functions(128);
    engine.set_max_modules(0);
    engine.set_max_string_size(4096);
    engine.set_max_array_size(512);
    engine.set_max_map_size(256);
    for word in ["eval", "import", "export"] {
        engine.disable_symbol(word);
    }
    let watch = language.watch.clone();
    engine.on_progress(move |operations| watch.judge(operations));
    engine.on_print(|_| ());
    engine.on_debug(|_, _, _| ());
    engine
}

fn syntax_error(source: Source<'_>, wrong: &rhai::ParseError) -> Diagnostic {
    let position = wrong.position();
    let text = wrong.err_type().to_string();
    let (code, message, help) = names::parse_error(wrong.err_type(), &text);
    Diagnostic::error(code, message).at(source, spot(position, 1)).help_if(help)
}

fn spot(position: rhai::Position, length: usize) -> Spot {
    let number = |n: Option<usize>| n.and_then(|n| u32::try_from(n).ok()).unwrap_or(1);
    Spot { line: number(position.line()), column: number(position.position()), length: u32::try_from(length).unwrap_or(1) }
}

/// What a handler sees and where its plans go.
#[derive(Debug)]
pub struct Run {
    world: Arc<World>,
    file: Arc<str>,
    planned: Mutex<Vec<Planned>>,
}

impl Policy {
    /// Whether a call would do anything.
    pub fn handles(&self, call: &Call<'_>) -> bool {
        self.handler(call).is_some()
    }

    fn handler(&self, call: &Call<'_>) -> Option<(&str, usize)> {
        let name = match call {
            Call::Attribute(attribute, _) => self.on_attribute.get(attribute.as_str())?.as_str(),
            Call::Change(_) => "on_change",
            Call::Alarm(_) => "on_alarm",
            Call::Event(_) => "on_event",
            Call::Timer(_) => "on_timer",
            Call::Start => "on_start",
        };
        self.handlers.get_key_value(name).map(|(name, count)| (name.as_str(), *count))
    }

    /// Whether it wants to know of an attribute's changes.
    pub fn handles_attribute(&self, attribute: &AttributeName) -> bool {
        self.on_attribute.contains_key(attribute.as_str())
    }

    /// Whether it has a handler of this name.
    pub fn has(&self, handler: &str) -> bool {
        self.handlers.contains_key(handler)
    }

    /// Calls the handler. What it plans has not happened yet.
    ///
    /// # Errors
    /// [`Failure`] with the line; nothing that it planned may be carried out.
    pub fn run(&self, world: &Arc<World>, me: Ix, call: &Call<'_>, budget: Budget) -> Result<Vec<Planned>, Failure> {
        let Some((handler, parameters)) = self.handler(call) else { return Ok(Vec::new()) };
        let run = Arc::new(Run { world: world.clone(), file: self.file.clone(), planned: Mutex::new(Vec::new()) });
        let own = Dynamic::from(Obj::new(run.clone(), me));
        let mut arguments = vec![own.clone()];
        match call {
            Call::Attribute(_, event) | Call::Change(event) | Call::Alarm(event) | Call::Event(event) => {
                arguments.push(Dynamic::from(Change::new(event.clone())));
            }
            Call::Timer(name) => arguments.push(Dynamic::from((*name).to_owned())),
            Call::Start => {}
        }
        arguments.truncate(parameters);
        self.watch.start(budget);
        let options = CallFnOptions::new().eval_ast(false).with_tag(own);
        let mut scope = Scope::new();
        let result = self.engine.call_fn_with_options::<Dynamic>(options, &mut scope, &self.ast, handler, arguments);
        self.watch.finish();
        drop(scope);
        match result {
            Ok(_) => Ok(std::mem::take(&mut *run.planned.lock().unwrap_or_else(PoisonError::into_inner))),
            Err(error) => Err(self.failure(handler, &error)),
        }
    }

    /// The operations of the last call of any policy of its bundle.
    pub(crate) fn operations(&self) -> u64 {
        self.watch.operations.load(Ordering::Relaxed)
    }

    fn failure(&self, handler: &str, error: &EvalAltResult) -> Failure {
        let position = match error.position() {
            p if p.is_none() => self.handler_position(handler),
            p => p,
        };
        let spot = spot(position, 1);
        Failure {
            line: PolicyLine { file: self.file.clone(), line: spot.line, column: spot.column },
            message: names::run_error(error),
            overrun: matches!(innermost(error), EvalAltResult::ErrorTerminated(token, _) if token.is_unit()),
        }
    }

    fn handler_position(&self, handler: &str) -> rhai::Position {
        let module: &Module = self.ast.as_ref();
        let found = module.iter_script_fn_info().find(|(_, _, name, _, _)| *name == handler);
        found.map_or(rhai::Position::NONE, |(_, _, _, _, f)| f.body.start_position())
    }
}

fn innermost(error: &EvalAltResult) -> &EvalAltResult {
    match error {
        EvalAltResult::ErrorInFunctionCall(_, _, inner, _) => innermost(inner),
        other => other,
    }
}
