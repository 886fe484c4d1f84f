//! What policies can say: properties and methods of objects, fields of a change.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use rhai::{Array, Dynamic, EvalAltResult, FuncRegistration, ImmutableString, Module, NativeCallContext};

use super::{ACTIONS_MAX, Act, Planned, Run, spot};
use crate::class::{Class, Slot};
use crate::config::parse_duration;
use crate::event::{Body, Event, PolicyLine};
use crate::ids::{AttributeName, ClassName};
use crate::value::{Quality, Value};
use crate::world::Ix;

/// An object in a policy's hands.
#[derive(Clone, Debug)]
pub struct Obj {
    run: Arc<Run>,
    ix: Ix,
}

/// An event in a policy's hands: `change.was`, `change.now`.
#[derive(Clone, Debug)]
pub struct Change(Arc<Event>);

type Fallible<T> = Result<T, Box<EvalAltResult>>;

/// How strong a claim is that does not say.
pub(crate) const NORMAL: i32 = 200;

/// How strong an operator's claim is that does not say.
pub(crate) const OPERATOR: i32 = 400;

/// The words for a claim's strength.
pub(crate) const PRIORITIES: [(&str, i32); 5] = [("low", 100), ("normal", NORMAL), ("high", 300), ("operator", OPERATOR), ("safety", 500)];

/// Methods of objects, with their least and most number of arguments.
pub(crate) const METHODS: [(&str, usize, usize); 19] = [
    ("raise", 1, 3),
    ("clear", 1, 2),
    ("claim", 3, 4),
    ("set", 2, 3),
    ("release", 1, 1),
    ("power", 1, 2),
    ("evacuate", 1, 1),
    ("failover", 1, 1),
    ("switchover", 1, 1),
    ("quality", 1, 1),
    ("usable", 1, 1),
    ("last", 1, 1),
    ("siblings", 0, 1),
    ("children", 0, 1),
    ("alarm", 1, 1),
    ("log", 1, 1),
    ("is", 1, 1),
    ("can", 1, 1),
    ("has", 1, 1),
];

/// Functions that stand by themselves, with their number of arguments. Timers are those of the policy's own object.
pub(crate) const FUNCTIONS: [(&str, usize); 5] = [("object", 1), ("objects", 1), ("after", 2), ("cancel", 1), ("log", 1)];

/// Properties of every object.
pub(crate) const PROPERTIES: [&str; 6] = ["name", "class", "chassis", "parent", "node", "identity"];

/// Properties of a change.
pub(crate) const CHANGE_PROPERTIES: [&str; 12] =
    ["was", "now", "attribute", "quality", "id", "object", "class", "severity", "alarm", "step", "text", "cause"];

impl Obj {
    pub(super) fn new(run: Arc<Run>, ix: Ix) -> Self {
        Self { run, ix }
    }

    fn other(&self, ix: Ix) -> Dynamic {
        Dynamic::from(Self { run: self.run.clone(), ix })
    }

    fn maybe(&self, ix: Option<Ix>) -> Dynamic {
        ix.map_or(Dynamic::UNIT, |ix| self.other(ix))
    }

    fn list(&self, all: impl Iterator<Item = Ix>) -> Array {
        all.map(|ix| self.other(ix)).collect()
    }

    fn class(&self) -> &Arc<Class> {
        &self.run.world.object(self.ix).class
    }

    fn slot(&self, name: &str) -> Fallible<Slot> {
        self.class().slot(name).ok_or_else(|| format!("a {} has no `{name}`", self.class().name).into())
    }

    fn control(&self, name: &str) -> Fallible<Slot> {
        let slot = self.slot(name)?;
        if self.class().attribute(slot).control { Ok(slot) } else { Err(format!("claim takes a control; {name} is a sensor").into()) }
    }

    fn read(&self, name: &str) -> Fallible<Dynamic> {
        let slot = self.slot(name)?;
        Ok(self.run.world.cell(self.ix, slot).usable().map_or(Dynamic::UNIT, dynamic))
    }

    fn plan(&self, context: &NativeCallContext<'_>, act: Act) -> Fallible<()> {
        let mut planned = self.run.planned.lock().unwrap_or_else(PoisonError::into_inner);
        if planned.len() >= ACTIONS_MAX {
            return Err(format!("more than {ACTIONS_MAX} actions in one call").into());
        }
        let at = spot(context.call_position(), 1);
        planned.push(Planned { act, line: PolicyLine { file: self.run.file.clone(), line: at.line, column: at.column } });
        Ok(())
    }

    fn raise(&self, context: &NativeCallContext<'_>, kind: &str, text: &str, qualifier: &str) -> Fallible<()> {
        self.known_alarm(kind)?;
        let act = Act::Raise { object: self.ix, kind: kind.into(), qualifier: qualifier.into(), text: text.into() };
        self.plan(context, act)
    }

    fn clear(&self, context: &NativeCallContext<'_>, kind: &str, qualifier: &str) -> Fallible<()> {
        self.known_alarm(kind)?;
        self.plan(context, Act::Clear { object: self.ix, kind: kind.into(), qualifier: qualifier.into() })
    }

    fn known_alarm(&self, kind: &str) -> Fallible<()> {
        match self.run.world.compiled.catalogue.get(kind) {
            Some(_) => Ok(()),
            None => Err(format!("there is no alarm \"{kind}\" in alarms.yaml").into()),
        }
    }

    fn claim(&self, context: &NativeCallContext<'_>, control: &str, value: &Dynamic, reason: &str, priority: i32) -> Fallible<()> {
        let slot = self.control(control)?;
        let attribute = self.class().attribute(slot);
        let value = plain(value).and_then(|v| attribute.kind.fit(&v)).ok_or_else(|| -> Box<EvalAltResult> {
            format!("`{control}` is {}, and this is {value}", attribute.kind.word()).into()
        })?;
        if !attribute.in_range(&value) {
            let (low, high) = attribute.range.expect("out of a range");
            return Err(format!("`{control}` lies between {low} and {high}, this is {value}").into());
        }
        self.plan(context, Act::Claim { object: self.ix, control: slot, value, reason: reason.into(), priority })
    }

    fn operation(&self, context: &NativeCallContext<'_>, name: &str) -> Fallible<()> {
        let operation = AttributeName::new(name);
        if !self.class().operations.contains(&operation) {
            return Err(format!("a {} cannot {name}", self.class().name).into());
        }
        self.plan(context, Act::Operation { object: self.ix, name: operation })
    }

    fn alarm_is_raised(&self, kind: &str) -> bool {
        self.run.world.raised.contains(&(self.ix, Arc::from(kind)))
    }
}

impl Change {
    pub(super) fn new(event: Arc<Event>) -> Self {
        Self(event)
    }
}

/// A value as policies see it.
pub(super) fn dynamic(value: &Value) -> Dynamic {
    match value {
        Value::Bool(b) => Dynamic::from_bool(*b),
        Value::Int(n) => Dynamic::from_int(*n),
        Value::Float(x) => Dynamic::from_float(*x),
        Value::Text(t) | Value::Enum(t) => Dynamic::from(ImmutableString::from(&**t)),
    }
}

fn plain(value: &Dynamic) -> Option<Value> {
    if let Ok(b) = value.as_bool() {
        Some(Value::Bool(b))
    } else if let Ok(n) = value.as_int() {
        Some(Value::Int(n))
    } else if let Ok(x) = value.as_float() {
        x.is_finite().then_some(Value::Float(x))
    } else {
        value.read_lock::<ImmutableString>().map(|t| Value::Text(Arc::from(t.as_str())))
    }
}

fn quality_word(quality: Quality) -> &'static str {
    match quality {
        Quality::Good => "good",
        Quality::Stale => "stale",
        Quality::Missing => "missing",
        Quality::Failed => "failed",
        Quality::Forced => "forced",
        Quality::Simulated => "simulated",
    }
}

fn priority_word(word: &str) -> Fallible<i32> {
    let found = PRIORITIES.iter().find(|(w, _)| *w == word).map(|(_, n)| *n);
    found.ok_or_else(|| format!("\"{word}\" is no priority: low, normal, high, operator, safety").into())
}

/// The functions that all policies of a bundle can call.
pub(super) fn module(classes: &BTreeMap<ClassName, Arc<Class>>, operations: &[String]) -> Module {
    let mut module = Module::new();
    let m = &mut module;
    m.set_custom_type::<Obj>("object").set_custom_type::<Change>("change");
    attributes(m, classes);
    properties(m);
    relations(m);
    changes(m);
    alarms(m);
    controls(m, operations);
    roles(m);
    forbidden(m);
    module
}

fn method(name: &str) -> FuncRegistration {
    FuncRegistration::new(name).in_global_namespace()
}

fn attributes(m: &mut Module, classes: &BTreeMap<ClassName, Arc<Class>>) {
    let mut names: Vec<&str> = classes.values().flat_map(|c| c.attribute_names()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let attribute = name.to_owned();
        FuncRegistration::new_getter(name).set_into_module(m, move |o: &mut Obj| o.read(&attribute));
    }
    method("quality").set_into_module(m, |o: &mut Obj, name: &str| -> Fallible<ImmutableString> {
        Ok(quality_word(o.run.world.cell(o.ix, o.slot(name)?).quality).into())
    });
    method("usable").set_into_module(m, |o: &mut Obj, name: &str| -> Fallible<bool> {
        Ok(o.run.world.cell(o.ix, o.slot(name)?).quality.is_usable())
    });
    method("last").set_into_module(m, |o: &mut Obj, name: &str| -> Fallible<Dynamic> {
        Ok(o.run.world.cell(o.ix, o.slot(name)?).value.as_ref().map_or(Dynamic::UNIT, dynamic))
    });
    method("has").set_into_module(m, |o: &mut Obj, name: &str| o.class().slot(name).is_some());
    method("can").set_into_module(m, |o: &mut Obj, name: &str| {
        o.class().operations.contains(name) || o.class().slot(name).is_some_and(|s| o.class().attribute(s).control)
    });
}

fn properties(m: &mut Module) {
    FuncRegistration::new_getter("name").set_into_module(m, |o: &mut Obj| ImmutableString::from(o.run.world.object(o.ix).name.as_str()));
    FuncRegistration::new_getter("class").set_into_module(m, |o: &mut Obj| ImmutableString::from(o.class().name.as_str()));
    FuncRegistration::new_getter("chassis").set_into_module(m, |o: &mut Obj| o.maybe(o.run.world.chassis(o.ix)));
    FuncRegistration::new_getter("parent").set_into_module(m, |o: &mut Obj| o.maybe(o.run.world.object(o.ix).parent));
    FuncRegistration::new_getter("node").set_into_module(m, |o: &mut Obj| {
        let node = o.run.world.node_of(o.ix).and_then(|n| o.run.world.find(&format!("/nodes/{n}")));
        o.maybe(node)
    });
    FuncRegistration::new_getter("identity").set_into_module(m, |o: &mut Obj| {
        o.run.world.object(o.ix).identity.as_ref().map_or(Dynamic::UNIT, |i| ImmutableString::from(i.as_str()).into())
    });
    method("==").set_into_module(m, |a: Obj, b: Obj| a.ix == b.ix);
    method("!=").set_into_module(m, |a: Obj, b: Obj| a.ix != b.ix);
    method("to_string").set_into_module(m, |o: &mut Obj| ImmutableString::from(o.run.world.object(o.ix).name.as_str()));
}

fn relations(m: &mut Module) {
    method("siblings").set_into_module(m, |o: &mut Obj| o.list(o.run.world.siblings(o.ix, None)));
    method("siblings").set_into_module(m, |o: &mut Obj, class: &str| o.list(o.run.world.siblings(o.ix, Some(class))));
    method("children").set_into_module(m, |o: &mut Obj| o.list(o.run.world.children(o.ix, None)));
    method("children").set_into_module(m, |o: &mut Obj, class: &str| o.list(o.run.world.children(o.ix, Some(class))));
    method("object").set_into_module(m, |x: NativeCallContext<'_>, name: &str| -> Fallible<Dynamic> {
        let o = me(&x)?;
        Ok(o.maybe(o.run.world.find(name)))
    });
    method("objects").set_into_module(m, |x: NativeCallContext<'_>, class: &str| -> Fallible<Array> {
        let o = me(&x)?;
        let of_class = o.run.world.iter().filter(|(_, other)| other.class.name.as_str() == class).map(|(ix, _)| ix);
        Ok(o.list(of_class.take(256)))
    });
    method("is").set_into_module(m, |o: &mut Obj, class: &str| o.class().name.as_str() == class);
}

fn changes(m: &mut Module) {
    let value = |v: &Option<Value>| v.as_ref().map_or(Dynamic::UNIT, dynamic);
    FuncRegistration::new_getter("was").set_into_module(m, move |c: &mut Change| value(&c.0.old));
    FuncRegistration::new_getter("now").set_into_module(m, move |c: &mut Change| value(&c.0.new));
    FuncRegistration::new_getter("attribute").set_into_module(m, |c: &mut Change| ImmutableString::from(c.0.attribute.as_str()));
    FuncRegistration::new_getter("quality").set_into_module(m, |c: &mut Change| ImmutableString::from(quality_word(c.0.quality)));
    FuncRegistration::new_getter("id").set_into_module(m, |c: &mut Change| c.0.id.to_string());
    FuncRegistration::new_getter("object").set_into_module(m, |c: &mut Change| ImmutableString::from(c.0.object.as_str()));
    FuncRegistration::new_getter("class").set_into_module(m, |c: &mut Change| ImmutableString::from(c.0.class.as_str()));
    FuncRegistration::new_getter("severity").set_into_module(m, |c: &mut Change| c.0.severity.to_string());
    FuncRegistration::new_getter("alarm").set_into_module(m, |c: &mut Change| match &c.0.body {
        Body::Alarm { kind, .. } => ImmutableString::from(&**kind).into(),
        _ => Dynamic::UNIT,
    });
    FuncRegistration::new_getter("step").set_into_module(m, |c: &mut Change| match &c.0.body {
        Body::Alarm { step, .. } => ImmutableString::from(step.word()).into(),
        _ => Dynamic::UNIT,
    });
    FuncRegistration::new_getter("text").set_into_module(m, |c: &mut Change| ImmutableString::from(&*c.0.why));
    FuncRegistration::new_getter("cause").set_into_module(m, |c: &mut Change| c.0.cause.map_or(Dynamic::UNIT, |c| c.to_string().into()));
}

fn alarms(m: &mut Module) {
    method("raise").set_into_module(m, |x: NativeCallContext<'_>, o: &mut Obj, kind: &str| o.raise(&x, kind, "", ""));
    method("raise").set_into_module(m, |x: NativeCallContext<'_>, o: &mut Obj, kind: &str, text: &str| o.raise(&x, kind, text, ""));
    method("raise").set_into_module(m, |x: NativeCallContext<'_>, o: &mut Obj, kind: &str, text: &str, qualifier: &str| {
        o.raise(&x, kind, text, qualifier)
    });
    method("clear").set_into_module(m, |x: NativeCallContext<'_>, o: &mut Obj, kind: &str| o.clear(&x, kind, ""));
    method("clear").set_into_module(m, |x: NativeCallContext<'_>, o: &mut Obj, kind: &str, qualifier: &str| o.clear(&x, kind, qualifier));
    method("alarm").set_into_module(m, |o: &mut Obj, kind: &str| o.alarm_is_raised(kind));
}

fn controls(m: &mut Module, operations: &[String]) {
    method("claim").set_into_module(m, |x: NativeCallContext<'_>, o: &mut Obj, control: &str, value: Dynamic, reason: &str| {
        o.claim(&x, control, &value, reason, NORMAL)
    });
    method("claim").set_into_module(
        m,
        |x: NativeCallContext<'_>, o: &mut Obj, control: &str, value: Dynamic, reason: &str, priority: &str| {
            o.claim(&x, control, &value, reason, priority_word(priority)?)
        },
    );
    method("claim").set_into_module(
        m,
        |x: NativeCallContext<'_>, o: &mut Obj, control: &str, value: Dynamic, reason: &str, priority: i64| {
            o.claim(&x, control, &value, reason, i32::try_from(priority).map_err(|_| "that is no priority")?)
        },
    );
    method("set").set_into_module(m, |x: NativeCallContext<'_>, o: &mut Obj, control: &str, value: Dynamic| {
        o.claim(&x, control, &value, "set by policy", NORMAL)
    });
    method("set").set_into_module(m, |x: NativeCallContext<'_>, o: &mut Obj, control: &str, value: Dynamic, reason: &str| {
        o.claim(&x, control, &value, reason, NORMAL)
    });
    method("power").set_into_module(m, |x: NativeCallContext<'_>, o: &mut Obj, value: Dynamic| o.claim(&x, "power", &value, "power", NORMAL));
    method("power").set_into_module(m, |x: NativeCallContext<'_>, o: &mut Obj, value: Dynamic, reason: &str| {
        o.claim(&x, "power", &value, reason, NORMAL)
    });
    method("release").set_into_module(m, |x: NativeCallContext<'_>, o: &mut Obj, control: &str| -> Fallible<()> {
        let control = o.control(control)?;
        o.plan(&x, Act::Release { object: o.ix, control })
    });
    for operation in operations {
        let name = operation.clone();
        method(operation).set_into_module(m, move |x: NativeCallContext<'_>, o: &mut Obj| o.operation(&x, &name));
    }
}

fn roles(m: &mut Module) {
    method("evacuate").set_into_module(m, |x: NativeCallContext<'_>, o: &mut Obj, reason: &str| {
        o.plan(&x, Act::Evacuate { object: o.ix, reason: reason.into() })
    });
    method("failover").set_into_module(m, |x: NativeCallContext<'_>, o: &mut Obj, reason: &str| {
        o.plan(&x, Act::Failover { object: o.ix, reason: reason.into() })
    });
    method("switchover").set_into_module(m, |x: NativeCallContext<'_>, o: &mut Obj, reason: &str| {
        o.plan(&x, Act::Switchover { object: o.ix, reason: reason.into() })
    });
    method("after").set_into_module(m, |x: NativeCallContext<'_>, delay: &str, name: &str| -> Fallible<()> {
        let delay = parse_duration(delay).ok_or_else(|| format!("\"{delay}\" is no duration, such as 500ms or 3s"))?;
        me(&x)?.plan(&x, Act::After { delay, name: name.into() })
    });
    method("cancel").set_into_module(m, |x: NativeCallContext<'_>, name: &str| -> Fallible<()> {
        me(&x)?.plan(&x, Act::Cancel { name: name.into() })
    });
    method("log").set_into_module(m, |x: NativeCallContext<'_>, text: &str| -> Fallible<()> {
        me(&x)?.plan(&x, Act::Log { text: text.into() })
    });
    method("log").set_into_module(m, |x: NativeCallContext<'_>, o: &mut Obj, text: &str| o.plan(&x, Act::Log { text: text.into() }));
}

/// The object that the policy speaks for.
fn me(context: &NativeCallContext<'_>) -> Fallible<Obj> {
    let obj = context.tag().and_then(|tag| tag.read_lock::<Obj>().map(|o| o.clone()));
    obj.ok_or_else(|| "this can be asked in a handler only".into())
}

/// The standard library can put a thread to sleep; here that name means an error.
fn forbidden(m: &mut Module) {
    const MESSAGE: &str = "a policy does not sleep: use after(\"500ms\", name) and on_timer";
    method("sleep").set_into_module(m, |_: i64| -> Fallible<()> { Err(MESSAGE.into()) });
    method("sleep").set_into_module(m, |_: f64| -> Fallible<()> { Err(MESSAGE.into()) });
}
