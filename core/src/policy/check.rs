//! Finds mistakes in a policy before it is loaded: words that no attribute ever has, controls that are sensors, typos.
//!
//! It follows what it can know (an object's class, a list's elements, an attribute's words) and is silent where it cannot:
//! a false alarm here is a bug of first rank. A variable that is ever assigned anew is unknown throughout its function.

mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use rhai::{AST, Dynamic, Expr, FnCallExpr, Module, Position, Stmt};

use super::api::{CHANGE_PROPERTIES, FUNCTIONS, METHODS, PRIORITIES, PROPERTIES};
use super::spot;
use tree::{assigned, body_of, closure, constant, text_constant, usage};
use crate::alarms::Catalogue;
use crate::class::{Attribute, Class, Kind};
use crate::config::parse_duration;
use crate::diagnostic::{Diagnostic, Diagnostics, Source, nearest, suggestion};
use crate::ids::ClassName;

/// What there is to know about one policy.
pub(super) struct Check<'a> {
    pub(super) source: Source<'a>,
    pub(super) bound: &'a [Arc<Class>],
    pub(super) classes: &'a BTreeMap<ClassName, Arc<Class>>,
    pub(super) catalogue: &'a Catalogue,
    pub(super) operations: &'a [String],
    pub(super) constants: &'a BTreeMap<String, Dynamic>,
}

/// What is known of a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Type {
    Unknown,
    /// An object of one of these classes; `None`: of any.
    Object(Option<BTreeSet<ClassName>>),
    List(Box<Type>),
    /// What an attribute holds, of objects of these classes.
    Value(Option<BTreeSet<ClassName>>, String),
    Change(Option<String>),
}

type Classes = Option<BTreeSet<ClassName>>;
type Env = Vec<(String, Type)>;

/// Handlers that are not named after an attribute.
const HANDLERS: [&str; 5] = ["on_change", "on_alarm", "on_timer", "on_event", "on_start"];

struct Function {
    params: Vec<String>,
    body: Rc<[Stmt]>,
    at: Position,
    assigned: BTreeSet<String>,
}

struct Walk<'a> {
    check: &'a Check<'a>,
    functions: BTreeMap<String, Function>,
    visited: BTreeSet<(String, Vec<Type>)>,
    out: &'a mut Diagnostics,
    depth: usize,
}

impl Check<'_> {
    pub(super) fn run(&self, ast: &AST, out: &mut Diagnostics) {
        let module: &Module = ast.as_ref();
        let functions = module
            .iter_script_fn_info()
            .map(|(_, _, name, _, f)| {
                let body = body_of(f.clone());
                let params = f.params.iter().map(ToString::to_string).collect();
                let assigned = assigned(&body);
                (name.to_owned(), Function { params, body, at: f.body.start_position(), assigned })
            })
            .collect();
        self.statements_outside(ast, out);
        let mut walk = Walk { check: self, functions, visited: BTreeSet::new(), out, depth: 0 };
        walk.handlers();
        walk.the_rest();
    }

    /// Only constants may stand outside functions: nothing else there ever runs.
    fn statements_outside(&self, ast: &AST, out: &mut Diagnostics) {
        for stmt in ast.statements() {
            let constant = matches!(stmt, Stmt::Var(v, ..) if self.constants.contains_key(v.0.name.as_str()));
            if !constant && !stmt.is_noop() {
                out.push(
                    Diagnostic::error("outside-handler", "only constants stand outside the handlers")
                        .at(self.source, spot(stmt.position(), 1))
                        .help("const HOT = 70; or move it into a handler such as on_start")
                        .consequence("nobody would run it"),
                );
            }
        }
    }

    fn bound_classes(&self) -> Classes {
        (!self.bound.is_empty()).then(|| self.bound.iter().map(|c| c.name.clone()).collect())
    }

    fn of<'s>(&'s self, classes: &Classes) -> Vec<&'s Arc<Class>> {
        match classes {
            None => self.classes.values().collect(),
            Some(names) => names.iter().filter_map(|n| self.classes.get(n.as_str())).collect(),
        }
    }

    /// Declarations of an attribute among classes.
    fn attributes<'s>(&'s self, classes: &Classes, name: &str) -> Vec<&'s Attribute> {
        self.of(classes).into_iter().filter_map(|c| c.slot(name).map(|s| c.attribute(s))).collect()
    }

    fn all_attributes(&self, classes: &Classes) -> BTreeSet<&str> {
        self.of(classes).into_iter().flat_map(|c| c.attribute_names()).collect()
    }
}

/// `a fan`, `a fan or board`, `any object`.
fn describe(classes: &Classes) -> String {
    match classes {
        None => "any object".into(),
        Some(names) => format!("a {}", names.iter().map(ClassName::as_str).collect::<Vec<_>>().join(" or ")),
    }
}

impl Walk<'_> {
    fn error(&mut self, code: &str, message: String, at: Position, length: usize, help: Option<String>, consequence: &str) {
        let mut wrong = Diagnostic::error(code, message).at(self.check.source, spot(at, length)).help_if(help);
        if !consequence.is_empty() {
            wrong = wrong.consequence(consequence);
        }
        self.out.push(wrong);
    }

    fn handlers(&mut self) {
        let bound = self.check.bound_classes();
        let names: Vec<(String, usize, Position)> =
            self.functions.iter().filter(|(n, _)| n.starts_with("on_")).map(|(n, f)| (n.clone(), f.params.len(), f.at)).collect();
        for (name, parameters, at) in names {
            let attribute = name.strip_prefix("on_").unwrap_or_default();
            let of_attribute = !self.check.attributes(&bound, attribute).is_empty();
            if !HANDLERS.contains(&name.as_str()) && !of_attribute {
                let known: Vec<String> = (self.check.all_attributes(&bound).iter().map(|a| format!("on_{a}")))
                    .chain(HANDLERS.iter().map(ToString::to_string))
                    .collect();
                let message = format!("{} has no attribute `{attribute}`, so `{name}` is called by nothing", describe(&bound));
                let help = suggestion(&name, known.iter().map(String::as_str));
                self.error("unknown-handler", message, at, 1, help, "the handler would never run");
            }
            let most = if name == "on_start" { 1 } else { 2 };
            if parameters == 0 || parameters > most {
                let message = format!("`{name}` takes {}", if most == 1 { "the object" } else { "the object and what happened" });
                let help = format!("fn {name}({}) {{ ... }}", ["object", "object, change"][most - 1]);
                self.error("wrong-arguments", message, at, 1, Some(help), "the handler would never run");
            }
            let second = match name.as_str() {
                "on_timer" => Type::Unknown,
                "on_change" | "on_event" | "on_alarm" => Type::Change(None),
                _ => Type::Change(Some(attribute.to_owned())),
            };
            self.function(&name, vec![Type::Object(bound.clone()), second]);
        }
    }

    /// Functions that nobody was seen to call, with nothing known of their parameters.
    fn the_rest(&mut self) {
        let names: Vec<String> = self.functions.keys().cloned().collect();
        for name in names {
            if !self.visited.iter().any(|(seen, _)| *seen == name) {
                self.function(&name, Vec::new());
            }
        }
    }

    fn function(&mut self, name: &str, mut types: Vec<Type>) {
        let Some(function) = self.functions.get(name) else { return };
        let (params, body, assigned) = (function.params.clone(), function.body.clone(), function.assigned.clone());
        types.resize(params.len(), Type::Unknown);
        if self.depth > 12 || self.visited.len() > 2000 || !self.visited.insert((name.to_owned(), types.clone())) {
            return;
        }
        self.depth += 1;
        let mut env: Env = params.into_iter().zip(types).collect();
        for (name, kind) in &mut env {
            if assigned.contains(name) {
                *kind = Type::Unknown;
            }
        }
        let mut scope = Scope { env, assigned };
        self.block(&body, &mut scope);
        self.depth -= 1;
    }

    fn block(&mut self, body: &[Stmt], scope: &mut Scope) {
        let length = scope.env.len();
        for stmt in body {
            self.stmt(stmt, scope);
        }
        scope.env.truncate(length);
    }

    fn stmt(&mut self, stmt: &Stmt, scope: &mut Scope) {
        match stmt {
            Stmt::Var(v, ..) => {
                let kind = self.expr(&v.1, scope);
                scope.declare(v.0.name.as_str(), kind);
            }
            Stmt::If(flow, _) | Stmt::While(flow, _) | Stmt::Do(flow, ..) => {
                self.expr(&flow.expr, scope);
                self.block(flow.body.statements(), scope);
                self.block(flow.branch.statements(), scope);
            }
            Stmt::TryCatch(flow, _) => {
                self.block(flow.body.statements(), scope);
                let length = scope.env.len();
                if let Expr::Variable(v, ..) = &flow.expr {
                    scope.declare(v.1.as_str(), Type::Unknown);
                }
                self.block(flow.branch.statements(), scope);
                scope.env.truncate(length);
            }
            Stmt::For(f, _) => {
                let list = self.expr(&f.2.expr, scope);
                let length = scope.env.len();
                let element = if let Type::List(element) = list { *element } else { Type::Unknown };
                if let Some(counter) = &f.1 {
                    scope.declare(counter.name.as_str(), Type::Unknown);
                }
                scope.declare(f.0.name.as_str(), element);
                self.block(f.2.body.statements(), scope);
                scope.env.truncate(length);
            }
            Stmt::Switch(s, _) => {
                self.expr(&s.0, scope);
                for case in &s.1.expressions {
                    self.expr(&case.lhs, scope);
                    self.expr(&case.rhs, scope);
                }
            }
            Stmt::Block(block) => self.block(block.statements(), scope),
            Stmt::Expr(expr) => drop(self.expr(expr, scope)),
            Stmt::FnCall(call, at) => drop(self.call(call, *at, scope)),
            Stmt::Assignment(a) => {
                self.expr(&a.1.lhs, scope);
                self.expr(&a.1.rhs, scope);
            }
            Stmt::Return(Some(expr), ..) | Stmt::BreakLoop(Some(expr), ..) => drop(self.expr(expr, scope)),
            _ => {}
        }
    }

    fn expr(&mut self, expr: &Expr, scope: &mut Scope) -> Type {
        match expr {
            Expr::Variable(v, ..) => scope.lookup(v.1.as_str()),
            Expr::Dot(pair, ..) => {
                let left = self.expr(&pair.lhs, scope);
                self.chain(left, &pair.rhs, scope)
            }
            Expr::Index(pair, ..) => {
                let left = self.expr(&pair.lhs, scope);
                self.expr(&pair.rhs, scope);
                element(left)
            }
            Expr::FnCall(call, at) | Expr::MethodCall(call, at) => self.call(call, *at, scope),
            Expr::And(all, _) | Expr::Or(all, _) => {
                for part in all.iter() {
                    self.expr(part, scope);
                }
                Type::Unknown
            }
            Expr::Coalesce(all, _) => {
                for part in all.iter() {
                    self.expr(part, scope);
                }
                Type::Unknown
            }
            Expr::Array(all, _) => {
                let types: BTreeSet<Type> = all.iter().map(|part| self.expr(part, scope)).collect();
                let mut types = types.into_iter();
                match (types.next(), types.next()) {
                    (Some(one), None) => Type::List(Box::new(one)),
                    _ => Type::Unknown,
                }
            }
            Expr::InterpolatedString(all, _) => {
                for part in all {
                    self.expr(part, scope);
                }
                Type::Unknown
            }
            Expr::Map(map, _) => {
                for (_, part) in &map.0 {
                    self.expr(part, scope);
                }
                Type::Unknown
            }
            Expr::Stmt(block) => {
                self.block(block.statements(), scope);
                Type::Unknown
            }
            _ => Type::Unknown,
        }
    }

    /// What follows a dot.
    fn chain(&mut self, base: Type, right: &Expr, scope: &mut Scope) -> Type {
        match right {
            Expr::Property(p, at) => self.property(base, p.2.as_str(), *at),
            Expr::MethodCall(call, at) | Expr::FnCall(call, at) => self.method(base, call, *at, scope),
            Expr::Dot(pair, ..) => {
                let left = self.chain(base, &pair.lhs, scope);
                self.chain(left, &pair.rhs, scope)
            }
            Expr::Index(pair, ..) => {
                let left = self.chain(base, &pair.lhs, scope);
                self.expr(&pair.rhs, scope);
                element(left)
            }
            other => {
                self.expr(other, scope);
                Type::Unknown
            }
        }
    }

    fn property(&mut self, base: Type, name: &str, at: Position) -> Type {
        match base {
            Type::Object(classes) => match name {
                "chassis" => Type::Object(self.one_class("chassis")),
                "node" => Type::Object(self.one_class("node")),
                "parent" => Type::Object(None),
                _ if PROPERTIES.contains(&name) => Type::Unknown,
                _ if self.check.attributes(&classes, name).is_empty() => {
                    let known = self.check.all_attributes(&classes);
                    let help = suggestion(name, known.iter().copied().chain(PROPERTIES));
                    let help = help.or_else(|| nearest(name, METHODS.iter().map(|m| m.0)).map(|m| format!("did you mean {m}()?")));
                    let message = format!("{} has no `{name}`", describe(&classes));
                    self.error("unknown-attribute", message, at, name.chars().count(), help, "the handler would fail here");
                    Type::Unknown
                }
                _ => Type::Value(classes, name.to_owned()),
            },
            Type::Change(attribute) => {
                if !CHANGE_PROPERTIES.contains(&name) {
                    let help = suggestion(name, CHANGE_PROPERTIES);
                    self.error("unknown-attribute", format!("a change has no `{name}`"), at, name.chars().count(), help, "the handler would fail here");
                }
                match (name, attribute) {
                    ("was" | "now", Some(attribute)) => Type::Value(self.check.bound_classes(), attribute),
                    _ => Type::Unknown,
                }
            }
            _ => Type::Unknown,
        }
    }

    fn one_class(&self, name: &str) -> Classes {
        self.check.classes.get(name).map(|c| BTreeSet::from([c.name.clone()]))
    }

    fn method(&mut self, base: Type, call: &FnCallExpr, at: Position, scope: &mut Scope) -> Type {
        let name = call.name.as_str();
        if let Type::List(element) = &base {
            return self.list_method(element.clone(), call, scope);
        }
        for argument in &call.args {
            self.argument(argument, &[], scope);
        }
        let Type::Object(classes) = base else { return Type::Unknown };
        if self.functions.contains_key(name) || ANY_TYPE.contains(&name) {
            return Type::Unknown;
        }
        let row = METHODS.iter().find(|m| m.0 == name);
        let is_operation = self.check.operations.iter().any(|o| o == name);
        if row.is_none() && !is_operation {
            let known: Vec<&str> = METHODS.iter().map(|m| m.0).chain(self.check.operations.iter().map(String::as_str)).collect();
            let help = nearest(name, known).map(|m| format!("did you mean {m}(...)?"));
            let help = help.or_else(|| (!self.check.attributes(&classes, name).is_empty()).then(|| format!("`{name}` is an attribute: write it without ()")));
            self.error("unknown-action", format!("an object cannot {name}"), at, name.chars().count(), help, "the handler would fail here");
            return Type::Unknown;
        }
        if let Some((_, least, most)) = row
            && !(*least..=*most).contains(&call.args.len())
        {
            let wanted = if least == most { format!("{least}") } else { format!("{least} to {most}") };
            let message = format!("`{name}` takes {wanted} arguments, here are {}", call.args.len());
            self.error("wrong-arguments", message, at, name.chars().count(), usage(name), "the handler would fail here");
            return Type::Unknown;
        }
        self.known_method(name, &classes, call, at)
    }

    fn known_method(&mut self, name: &str, classes: &Classes, call: &FnCallExpr, at: Position) -> Type {
        let first = call.args.first().and_then(text_constant);
        match (name, first) {
            ("siblings" | "children", None) => return Type::List(Box::new(Type::Object(None))),
            ("siblings" | "children", Some((class, at))) => return self.list_of(&class, at),
            ("raise" | "clear" | "alarm", Some((kind, at))) => self.alarm(&kind, at),
            ("quality" | "usable" | "last", Some((attribute, at))) if self.check.attributes(classes, &attribute).is_empty() => {
                let known = self.check.all_attributes(classes);
                let message = format!("{} has no `{attribute}`", describe(classes));
                let help = suggestion(&attribute, known.iter().copied());
                self.error("unknown-attribute", message, at, attribute.chars().count() + 2, help, "the handler would fail here");
            }
            ("claim" | "set" | "release", Some((control, at))) => self.control(classes, name, &control, at, call),
            ("power", _) => self.control(classes, name, "power", at, call),
            ("is", Some((class, at))) => self.class(&class, at),
            _ if self.check.operations.iter().any(|o| o == name) => {
                let can = self.check.of(classes).iter().any(|c| c.operations.contains(name));
                if !can {
                    let message = format!("{} cannot {name}", describe(classes));
                    self.error("unknown-action", message, at, name.chars().count(), None, "the handler would fail here");
                }
            }
            _ => {}
        }
        if matches!(name, "quality" | "usable") { Type::Unknown } else { self.last_value(name, classes, call) }
    }

    fn last_value(&self, name: &str, classes: &Classes, call: &FnCallExpr) -> Type {
        match (name, call.args.first().and_then(text_constant)) {
            ("last", Some((attribute, _))) => Type::Value(classes.clone(), attribute),
            _ => Type::Unknown,
        }
    }

    fn list_of(&mut self, class: &str, at: Position) -> Type {
        self.class(class, at);
        Type::List(Box::new(Type::Object(self.one_class(class))))
    }

    fn class(&mut self, class: &str, at: Position) {
        if !self.check.classes.contains_key(class) {
            let help = suggestion(class, self.check.classes.keys().map(ClassName::as_str));
            self.error("unknown-class", format!("there is no class \"{class}\""), at, class.chars().count() + 2, help, "this list would always be empty");
        }
    }

    fn alarm(&mut self, kind: &str, at: Position) {
        if self.check.catalogue.get(kind).is_none() {
            let help = nearest(kind, self.check.catalogue.names()).map(|n| format!("did you mean \"{n}\"?"));
            let help = help.or_else(|| Some(format!("declare {kind} in alarms.yaml")));
            let message = format!("there is no alarm \"{kind}\" in the catalogue");
            self.error("unknown-alarm", message, at, kind.chars().count() + 2, help, "the handler would fail here");
        }
    }

    fn control(&mut self, classes: &Classes, method: &str, control: &str, at: Position, call: &FnCallExpr) {
        let declared: Vec<Attribute> = self.check.attributes(classes, control).into_iter().cloned().collect();
        let length = if method == "power" { method.len() } else { control.chars().count() + 2 };
        let controls: BTreeSet<String> =
            self.check.of(classes).iter().flat_map(|c| c.control_names()).map(ToOwned::to_owned).collect();
        let help = || suggestion(control, controls.iter().map(String::as_str));
        if declared.is_empty() {
            let message = format!("{} has no control `{control}`", describe(classes));
            self.error("unknown-control", message, at, length, help(), "the handler would fail here");
            return;
        }
        if !declared.iter().any(|a| a.control) {
            let message = format!("{method} takes a control; {control} is a sensor");
            self.error("not-a-control", message, at, length, help(), "the handler would fail here");
            return;
        }
        let position = usize::from(method != "power");
        if let (Some(value), true) = (call.args.get(position), matches!(method, "claim" | "set" | "power")) {
            self.claimed_value(&declared, control, value);
        }
        if let Some((word, at)) = call.args.get(3).and_then(text_constant)
            && !PRIORITIES.iter().any(|(w, _)| *w == word)
        {
            let help = suggestion(&word, PRIORITIES.iter().map(|(w, _)| *w));
            self.error("unknown-value", format!("\"{word}\" is no priority"), at, word.chars().count() + 2, help, "the handler would fail here");
        }
    }

    fn claimed_value(&mut self, declared: &[Attribute], control: &str, value: &Expr) {
        let Some(constant) = constant(value) else { return };
        let fits = |a: &Attribute| a.kind.fit(&constant).is_some_and(|v| a.in_range(&v));
        if declared.iter().filter(|a| a.control).any(fits) {
            return;
        }
        let attribute = declared.iter().find(|a| a.control).expect("the caller looked");
        let (message, help) = match (&attribute.kind, attribute.range) {
            (Kind::Enum(_), _) => {
                (format!("`{control}` is never {constant}"), suggestion(&constant.to_string(), attribute.kind.words()))
            }
            (kind, Some((low, high))) if kind.fit(&constant).is_some() => (format!("`{control}` lies between {low} and {high}"), None),
            (kind, _) => (format!("`{control}` is {}", kind.word()), None),
        };
        let length = constant.to_string().chars().count() + if text_constant(value).is_some() { 2 } else { 0 };
        self.error("unknown-value", message, value.position(), length, help, "the handler would fail here");
    }

    fn list_method(&mut self, element: Box<Type>, call: &FnCallExpr, scope: &mut Scope) -> Type {
        for argument in &call.args {
            self.argument(argument, std::slice::from_ref(&*element), scope);
        }
        match call.name.as_str() {
            "filter" | "extract" | "drain" | "retain" => Type::List(element),
            "find" | "shift" | "pop" | "remove" | "first" | "last" => *element,
            _ => Type::Unknown,
        }
    }

    /// An argument; a closure is walked with what is known of its parameters.
    fn argument(&mut self, argument: &Expr, types: &[Type], scope: &mut Scope) {
        match closure(argument) {
            None => drop(self.expr(argument, scope)),
            Some((name, captured)) => {
                let mut all: Vec<Type> = captured.iter().map(|c| scope.lookup(c)).collect();
                all.extend_from_slice(types);
                self.function(&name, all);
            }
        }
    }

    fn call(&mut self, call: &FnCallExpr, at: Position, scope: &mut Scope) -> Type {
        let name = call.name.as_str();
        let types: Vec<Type> = call
            .args
            .iter()
            .map(|a| match closure(a) {
                Some(_) => {
                    self.argument(a, &[], scope);
                    Type::Unknown
                }
                None => self.expr(a, scope),
            })
            .collect();
        if call.op_token.is_some() {
            if matches!(name, "==" | "!=") && call.args.len() == 2 {
                self.comparison(&types[0], &call.args[1]);
                self.comparison(&types[1], &call.args[0]);
            }
            return Type::Unknown;
        }
        if self.functions.contains_key(name) {
            self.function(name, types);
            return Type::Unknown;
        }
        let first = call.args.first().and_then(text_constant);
        match (name, first) {
            ("object", _) => return Type::Object(None),
            ("objects", Some((class, at))) => return self.list_of(&class, at),
            ("after", Some((delay, at))) if parse_duration(&delay).is_none() => {
                let help = Some("such as \"500ms\", \"3s\" or \"10m\"".to_owned());
                self.error("wrong-type", format!("\"{delay}\" is no duration"), at, delay.chars().count() + 2, help, "the handler would fail here");
            }
            _ => {}
        }
        if let Some((_, arguments)) = FUNCTIONS.iter().find(|f| f.0 == name)
            && call.args.len() != *arguments
        {
            let message = format!("`{name}` takes {arguments} arguments, here are {}", call.args.len());
            self.error("wrong-arguments", message, at, name.chars().count(), usage(name), "the handler would fail here");
        }
        Type::Unknown
    }

    /// `f.state == "runing"`: a word that the attribute never has.
    fn comparison(&mut self, kind: &Type, constant_expr: &Expr) {
        let Type::Value(classes, attribute) = kind else { return };
        let Some(constant) = constant(constant_expr) else { return };
        let declared: Vec<Attribute> = self.check.attributes(classes, attribute).into_iter().cloned().collect();
        let text = text_constant(constant_expr);
        let possible = declared.iter().any(|a| match a.kind {
            // A comparison of numbers of two kinds is one that Rhai can make.
            Kind::Int | Kind::Float => crate::class::number(&constant).is_some(),
            _ => a.kind.fit(&constant).is_some(),
        });
        if possible || declared.is_empty() {
            return;
        }
        let words: BTreeSet<&str> = declared.iter().flat_map(|a| a.kind.words()).collect();
        let shown = text.as_ref().map_or_else(|| constant.to_string(), |(t, _)| format!("\"{t}\""));
        let message = match &declared[0].kind {
            Kind::Enum(_) => format!("the {attribute} of {} is never {shown}", describe(classes)),
            kind => format!("the {attribute} of {} is {}, never {shown}", describe(classes), kind.word()),
        };
        let help = text.and_then(|(t, _)| suggestion(&t, words.iter().copied()));
        self.error("unknown-value", message, constant_expr.position(), shown.chars().count(), help, "this comparison would always come out the same");
    }
}

struct Scope {
    env: Env,
    assigned: BTreeSet<String>,
}

impl Scope {
    fn declare(&mut self, name: &str, kind: Type) {
        let kind = if self.assigned.contains(name) { Type::Unknown } else { kind };
        self.env.push((name.to_owned(), kind));
    }

    fn lookup(&self, name: &str) -> Type {
        self.env.iter().rev().find(|(n, _)| n == name).map_or(Type::Unknown, |(_, t)| t.clone())
    }
}

/// What can be asked of any value.
const ANY_TYPE: [&str; 8] = ["type_of", "to_string", "to_debug", "tag", "is_shared", "call", "print", "debug"];

fn element(list: Type) -> Type {
    if let Type::List(element) = list { *element } else { Type::Unknown }
}

