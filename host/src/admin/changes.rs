//! Logs what a change did, one line for each entity, and keeps the last ones to be shown.

use std::collections::VecDeque;
use std::fmt::Write;
use std::future::Future;

use parking_lot::Mutex;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Admin;
use super::rows::id_of;
use crate::clock;
use crate::entity::{Kind, Row};

/// How many changes are kept.
const MAX_CHANGES: usize = 20;

/// How many fields the log names of one change.
const MAX_FIELDS: usize = 20;

/// Most characters of a name in a line.
const MAX_NAME: usize = 200;

/// Fields that every write sets.
const TIMES: [&str; 2] = ["created_at", "updated_at"];

/// The last changes by this gateway, the oldest first. They are lost with the process; the log has
/// all of them.
static RECENT: Mutex<VecDeque<Value>> = Mutex::new(VecDeque::new());

tokio::task_local! {
    /// The name of the token of the request that is being answered.
    static TOKEN: String;
}

/// Runs a request of the holder of this token, whose name its changes will have.
pub(super) async fn by<F: Future>(token: &str, request: F) -> F::Output {
    TOKEN.scope(token.to_owned(), request).await
}

/// The last changes, the oldest first.
pub(super) fn recent() -> Value {
    RECENT.lock().iter().cloned().collect()
}

fn keep(text: &str) {
    let token = TOKEN.try_with(Clone::clone).ok();
    let change = json!({ "at": clock::unix_millis(), "what": text, "by": token });
    let mut recent = RECENT.lock();
    if recent.len() == MAX_CHANGES {
        recent.pop_front();
    }
    recent.push_back(change);
}

/// Logs what was done to an entity, such as "created".
pub(super) fn log(admin: &Admin, kind: Kind, row: &Row, done: &str) {
    let of = owner_of(admin, kind, row);
    log_text(&format!("{}{of} {done}", described(kind, row)));
}

/// As [`log`], for an entity that was there before: with the fields that have other values now. The
/// values are left out, since they may be secrets.
pub(super) fn log_change(admin: &Admin, kind: Kind, before: &Row, after: &Row, done: &str) {
    let fields = changed(before, after);
    match fields.is_empty() {
        true => log(admin, kind, after, done),
        false => log(admin, kind, after, &format!("{done}: {fields}")),
    }
}

/// Logs a change that is not of an entity.
pub(super) fn log_text(text: &str) {
    tracing::info!("{text}");
    keep(text);
}

/// As [`log`], for a row of which only the id is known.
pub(super) fn log_id(kind: Kind, id: Uuid, done: &str) {
    log_text(&format!("{} {id} {done}", kind.declaration().singular));
}

/// The fields that differ, those inside records by their paths, such as `config.minute`.
fn changed(before: &Row, after: &Row) -> String {
    let mut fields = Vec::new();
    collect_changed("", before, after, &mut fields);
    fields.retain(|field| !TIMES.contains(&&**field));
    let more = fields.len().saturating_sub(MAX_FIELDS);
    fields.truncate(MAX_FIELDS);
    if more > 0 {
        fields.push(format!("and {more} more"));
    }
    fields.join(", ")
}

fn collect_changed(above: &str, before: &Row, after: &Row, found: &mut Vec<String>) {
    let absent = before.keys().filter(|name| !after.contains_key(*name));
    for name in after.keys().chain(absent) {
        // Clients name the entries of maps: no name can look like another line of the log.
        let path = format!("{above}{}", clipped(name).escape_debug());
        match (before.get(name), after.get(name)) {
            (Some(Value::Object(before)), Some(Value::Object(after))) => {
                collect_changed(&format!("{path}."), before, after, found);
            }
            (before, after) => {
                let [before, after] = [before, after].map(|value| value.unwrap_or(&Value::Null));
                if before != after {
                    found.push(path);
                }
            }
        }
    }
}

/// As much of a name as the log shows: clients choose how long names are.
fn clipped(name: &str) -> &str {
    let end = name.char_indices().nth(MAX_NAME);
    end.map_or(name, |(end, _)| &name[..end])
}

/// An entity by its kind, name and id, as the log names it.
pub(super) fn described(kind: Kind, row: &Row) -> String {
    let singular = kind.declaration().singular;
    let id = id_of(row);
    // Quoted with escapes, so that no name can look like another line of the log.
    // A plugin is named by its kind, besides its own name if it has one.
    let plugin = row.get("name").filter(|_| kind == Kind::Plugin);
    let names = [plugin.and_then(Value::as_str), name_of(kind, row)];
    let mut named = singular.to_owned();
    for name in names.into_iter().flatten() {
        // Writing to a String cannot fail.
        let _ = write!(named, " {:?}", clipped(name));
    }
    match names {
        [None, None] => format!("{named} {id}"),
        _ => format!("{named} ({id})"),
    }
}

/// The name that an entity has in paths besides its id, unless that is a secret.
pub(super) fn name_of(kind: Kind, row: &Row) -> Option<&str> {
    let declaration = kind.declaration();
    let key = declaration.nested_key()?;
    let mut fields = declaration.fields.iter();
    let field = fields.find(|field| field.name == key && !field.secret)?;
    row.get(field.name).and_then(Value::as_str)
}

/// The row that owns an entity, as the log names it; empty if the entity has no owner.
fn owner_of(admin: &Admin, kind: Kind, row: &Row) -> String {
    let owner = kind.declaration().owner;
    let mut references = kind.references().iter();
    let Some(reference) = references.find(|reference| Some(reference.field) == owner) else {
        return String::new();
    };
    let id = row.get(reference.field).and_then(Value::as_object);
    let owner = id.and_then(|id| admin.store.get(reference.to, id_of(id)).ok().flatten());
    let owner = owner.map(|stored| format!(" of {}", described(reference.to, &stored.row)));
    owner.unwrap_or_default()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    fn row(value: Value) -> Row {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn a_change_names_the_fields_that_differ_and_not_their_values() {
        let before = row(json!({
            "id": "1", "created_at": 1, "updated_at": 1, "password": "old", "tags": null,
            "config": { "minute": 5, "redis": { "host": null, "port": 6379 }, "headers": { "a": "b" } },
        }));
        let after = row(json!({
            "id": "1", "created_at": 2, "updated_at": 2, "password": "new", "tags": ["t"],
            "config": {
                "minute": 5, "redis": { "host": "h", "port": 6379 }, "headers": { "x\ny": "b" },
            },
        }));
        assert_eq!(
            changed(&before, &after),
            "password, tags, config.redis.host, config.headers.x\\ny, config.headers.a"
        );
        assert_eq!(changed(&before, &before), "");
        let many: Row = (0..25).map(|n| (format!("f{n}"), json!(n))).collect();
        let told = changed(&Row::new(), &many);
        assert!(told.ends_with("f19, and 5 more"), "{told}");
    }
}
