//! What a document says of workspaces: Kong's list `workspaces`, and decK's `_workspace`. There is
//! only the workspace `default`, so both may name that one, without effect.

use serde_json::Value;

use super::mistakes::Mistakes;
use super::syntax::Step;
use crate::entity::kongs_own::WORKSPACES;
use crate::entity::{Row, read_fields};

/// The name of the only workspace.
const DEFAULT: &str = "default";

/// Takes both out of a document.
pub(super) fn take(document: &mut Row, mistakes: &mut Mistakes) {
    let at = |name: &str| vec![Step::Name(name.to_owned())];
    match document.shift_remove("_workspace") {
        None | Some(Value::Null) => {}
        Some(Value::String(name)) if name == DEFAULT => {}
        Some(Value::String(name)) => mistakes.at(at("_workspace"), other(&name)),
        Some(_) => mistakes.at(at("_workspace"), "expected a string"),
    }
    match document.shift_remove(WORKSPACES.name) {
        None | Some(Value::Null) => {}
        Some(Value::Array(list)) => {
            for (index, value) in list.into_iter().enumerate() {
                let place = [at(WORKSPACES.name), vec![Step::Index(index)]].concat();
                match value {
                    Value::Object(row) => workspace(row, &place, mistakes),
                    _ => mistakes.at(place, "expected a record"),
                }
            }
        }
        // Lua has one type for both.
        Some(Value::Object(fields)) if fields.is_empty() => {}
        Some(_) => mistakes.at(at(WORKSPACES.name), "expected an array"),
    }
}

/// Checks an item of the list.
fn workspace(mut row: Row, place: &[Step], mistakes: &mut Mistakes) {
    // Without effect, whatever is in them.
    for name in ["_comment", "_ignore", "meta", "config"] {
        row.shift_remove(name);
    }
    let within = |name: &str| [place, &[Step::Name(name.to_owned())]].concat();
    match read_fields(WORKSPACES.fields, row) {
        Ok(row) => {
            let name = row.get("name").and_then(Value::as_str);
            if let Some(name) = name.filter(|name| *name != DEFAULT) {
                mistakes.at(within("name"), other(name));
            }
        }
        Err(wrong) => {
            if let Value::Object(fields) = wrong.fields() {
                for (name, message) in fields {
                    let message = message
                        .as_str()
                        .map_or_else(|| message.to_string(), str::to_owned);
                    mistakes.at(within(&name), message);
                }
            }
        }
    }
}

/// The message about another workspace than the only one.
fn other(name: &str) -> String {
    format!(
        "there is no workspace '{name}', only '{DEFAULT}': remove this to load the entities there, or \
         load them into a gateway of their own"
    )
}
