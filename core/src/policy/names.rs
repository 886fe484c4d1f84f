//! Rhai's errors in the operator's words.

use rhai::{EvalAltResult, ParseErrorType};

/// Code, sentence, help.
pub(super) fn parse_error(kind: &ParseErrorType, text: &str) -> (&'static str, String, Option<String>) {
    match kind {
        ParseErrorType::VariableUndefined(name) => {
            let help = format!("declare it with `let {name} = ...`, or write it in quotes if it is a word");
            ("unknown-name", format!("nobody has declared `{name}`"), Some(help))
        }
        ParseErrorType::Reserved(word) => {
            let help = match word.as_str() {
                "new" => Some("`new` is a reserved word: a change has `was` and `now`".to_owned()),
                "eval" | "import" | "export" => Some("a policy stands in one file and calls nothing from outside".to_owned()),
                _ => None,
            };
            ("syntax", format!("`{word}` is a reserved word"), help)
        }
        ParseErrorType::MissingToken(token, why) => ("syntax", format!("here a `{token}` is missing {why}"), None),
        ParseErrorType::FnDuplicatedDefinition(name, _) => ("doubled-key", format!("`{name}` is there twice"), None),
        ParseErrorType::UnexpectedEOF => ("syntax", "the file ends in the middle".to_owned(), None),
        _ => ("syntax", lower_first(text), None),
    }
}

/// One sentence about a failed call.
pub(super) fn run_error(error: &EvalAltResult) -> String {
    match error {
        EvalAltResult::ErrorInFunctionCall(name, _, inner, _) if name.starts_with("anon$") => run_error(inner),
        EvalAltResult::ErrorInFunctionCall(name, _, inner, _) => format!("in `{name}`: {}", run_error(inner)),
        EvalAltResult::ErrorRuntime(value, _) => value.to_string(),
        EvalAltResult::ErrorTooManyOperations(_) => "it ran for more operations than a call may".to_owned(),
        EvalAltResult::ErrorTerminated(token, _) if !token.is_unit() => "it ran for more operations than a call may".to_owned(),
        EvalAltResult::ErrorTerminated(..) => "it ran for longer than a call may".to_owned(),
        EvalAltResult::ErrorStackOverflow(_) => "its functions call each other too deeply".to_owned(),
        EvalAltResult::ErrorDataTooLarge(what, _) => format!("{what} grows beyond what a call may hold"),
        EvalAltResult::ErrorFunctionNotFound(signature, _) => function_not_found(signature),
        EvalAltResult::ErrorPropertyNotFound(name, _) | EvalAltResult::ErrorDotExpr(name, _) => format!("there is no `{name}` here"),
        EvalAltResult::ErrorVariableNotFound(name, _) => format!("nobody has declared `{name}`"),
        EvalAltResult::ErrorArithmetic(text, _) => lower_first(text),
        other => lower_first(other.to_string().split(" (line").next().unwrap_or_default()),
    }
}

fn function_not_found(signature: &str) -> String {
    let name = signature.split(" (").next().unwrap_or(signature);
    let name = name.strip_prefix("get$").unwrap_or(name);
    if signature.contains("()") {
        return format!("`{name}` of nothing: what stands before the dot is (), a value that is missing or an object that is not there");
    }
    format!("`{name}` cannot be asked of this, or not with these arguments")
}

fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}
