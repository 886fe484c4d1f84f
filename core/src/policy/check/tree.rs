//! Reading Rhai's tree: bodies, constants, closures.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use rhai::{AST, ASTNode, Dynamic, Expr, FnPtr, Module, Position, ScriptFuncDef, Shared, Stmt};

use crate::value::Value;

/// The statements of one function. The type that holds them cannot be named outside Rhai, but a tree with that function alone
/// can be walked, and its outermost statements are the body. (A filtered copy of the whole tree will not do: in 1.27.0 the
/// filter is passed over.)
pub(super) fn body_of(function: Shared<ScriptFuncDef>) -> Rc<[Stmt]> {
    let mut module = Module::new();
    module.set_script_fn(function);
    let alone = AST::new([], module);
    let mut body = Vec::new();
    alone.walk(&mut |path: &[ASTNode<'_>]| {
        if let [ASTNode::Stmt(stmt)] = path {
            body.push((*stmt).clone());
        }
        true
    });
    body.into()
}

/// Names that are assigned anew somewhere in a body.
pub(super) fn assigned(body: &[Stmt]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for stmt in body {
        stmt.walk(&mut Vec::new(), &mut |path| {
            if let Some(ASTNode::Stmt(Stmt::Assignment(a))) = path.last()
                && let Expr::Variable(v, ..) = &a.1.lhs
            {
                names.insert(v.1.to_string());
            }
            true
        });
    }
    names
}

/// A text that stands there, and where.
pub(super) fn text_constant(expr: &Expr) -> Option<(String, Position)> {
    match expr {
        Expr::StringConstant(text, at) => Some((text.to_string(), *at)),
        _ => None,
    }
}

/// A value that stands there.
pub(super) fn constant(expr: &Expr) -> Option<Value> {
    match expr {
        Expr::StringConstant(text, _) => Some(Value::Text(Arc::from(text.as_str()))),
        Expr::IntegerConstant(n, _) => Some(Value::Int(*n)),
        Expr::FloatConstant(x, _) => Some(Value::Float(**x)),
        Expr::BoolConstant(b, _) => Some(Value::Bool(*b)),
        _ => None,
    }
}

/// A closure's function and the variables that it captures, which become its first parameters.
pub(super) fn closure(expr: &Expr) -> Option<(String, Vec<String>)> {
    let pointer = |value: &Dynamic| value.read_lock::<FnPtr>().filter(|p| p.is_anonymous()).map(|p| p.fn_name().to_owned());
    match expr {
        Expr::DynamicConstant(value, _) => Some((pointer(value)?, Vec::new())),
        Expr::Stmt(block) => {
            let [Stmt::Share(_), Stmt::Expr(curry)] = block.statements() else { return None };
            let Expr::FnCall(call, _) = &**curry else { return None };
            let (name, _) = closure(call.args.first()?)?;
            let captured = call.args.iter().skip(1).filter_map(|a| match a {
                Expr::Variable(v, ..) => Some(v.1.to_string()),
                _ => None,
            });
            Some((name, captured.collect()))
        }
        _ => None,
    }
}

/// How a method is called, for those that people call otherwise.
pub(super) fn usage(method: &str) -> Option<String> {
    let text = match method {
        "raise" => "raise(\"fan-failed\") or raise(\"fan-failed\", \"why\")",
        "claim" => "claim(\"duty\", 100, \"why\") or claim(\"duty\", 100, \"why\", \"high\")",
        "set" => "set(\"duty\", 100) or set(\"duty\", 100, \"why\")",
        "evacuate" => "evacuate(\"why\")",
        "after" => "after(\"500ms\", \"name\") and fn on_timer(object, name)",
        _ => return None,
    };
    Some(text.to_owned())
}
