//! Logs what a change did, one line for each entity, and keeps the last ones to be shown.

use std::collections::VecDeque;
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
    let text = format!("{}{of} {done}", described(kind, row));
    tracing::info!("{text}");
    keep(&text);
}

/// As [`log`], for a row of which only the id is known.
pub(super) fn log_id(kind: Kind, id: Uuid, done: &str) {
    let text = format!("{} {id} {done}", kind.declaration().singular);
    tracing::info!("{text}");
    keep(&text);
}

/// An entity by its kind, name and id, as the log names it.
pub(super) fn described(kind: Kind, row: &Row) -> String {
    let singular = kind.declaration().singular;
    let id = id_of(row);
    // Quoted with escapes, so that no name can look like another line of the log.
    match name_of(kind, row) {
        Some(name) => format!("{singular} {name:?} ({id})"),
        None => format!("{singular} {id}"),
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
