//! What POST, PUT, PATCH and DELETE do to rows.

use axum::Json;
use axum::response::IntoResponse;
use http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::conditional::{Conditions, EntityTag};
use super::current::{Freshness, catch_up_to_newest};
use super::error::Error;
use super::key::Key;
use super::rows::{TRIES, conflict, id_of, look_up, shown, to_delete};
use super::{Admin, ApiResult, bounds, changes, expired, hooks};
use crate::entity::{IdOrder, Kind, ReferenceBy, Row, Shape, uuid};
use crate::store::{self, Revision, Stored, Write};

/// A row that was just written, as its client is shown it.
fn shown_again(admin: &Admin, kind: Kind, row: Row) -> Result<Value, Error> {
    Ok(shown(admin, kind, row)?.unwrap_or_default().into())
}

/// A row that was just written, with a value that only this client is shown, if there is one.
fn shown_first(
    admin: &Admin,
    kind: Kind,
    row: Row,
    shown_once: Option<(&'static str, Value)>,
) -> Result<Value, Error> {
    let mut row = shown_again(admin, kind, row)?;
    if let (Value::Object(row), Some((field, value))) = (&mut row, shown_once) {
        row.insert(field.into(), value);
    }
    Ok(row)
}

/// The id that an input gives to its row, if it gives one.
pub(super) fn given_id(input: &Row) -> Result<Option<Uuid>, Error> {
    match input.get("id") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) => match uuid(id) {
            Some(id) => Ok(Some(id)),
            None => Err(Error::field("id", "expected a valid UUID")),
        },
        Some(_) => Err(Error::field("id", "expected a string")),
    }
}

/// The id and the write for a new row.
pub(super) fn insert(admin: &Admin, kind: Kind, mut input: Row) -> Result<(Uuid, Write), Error> {
    let id = given_id(&input)?.unwrap_or_else(|| new_id(kind));
    resolve(admin, kind, &mut input)?;
    (hooks(kind).before_insert)(&input)?;
    let row = kind.declaration().create(id, input)?;
    let write = Write::Insert {
        kind,
        id,
        row,
        blob: None,
    };
    Ok((id, write))
}

pub(super) async fn create(admin: &Admin, kind: Kind, mut input: Row) -> ApiResult {
    let shown_once = (hooks(kind).shown_once)(&mut input);
    let (id, write) = insert(admin, kind, input)?;
    let Write::Insert { row, .. } = &write else {
        return Err(Error::not_found());
    };
    let row = row.clone();
    let revision = write_with_companions(admin, vec![write]).await?;
    changes::log(admin, kind, &row, "created");
    let row = shown_first(admin, kind, row, shown_once)?;
    let answer = (StatusCode::CREATED, Json(row)).into_response();
    Ok(EntityTag::of(admin, kind, id, revision)?.on(answer))
}

/// An id for a new row: a UUID of version 4 in its form, whose bits follow the time of creation. So
/// the orders that end in ids (lists, the table of an upstream, routes that match alike) are not
/// random: they are the order of creation or its reverse, as the declaration says.
pub(super) fn new_id(kind: Kind) -> Uuid {
    let ordered = Uuid::now_v7().as_u128();
    let bits = match kind.declaration().id_order {
        IdOrder::Ascending => ordered,
        IdOrder::Descending => !ordered,
    };
    let id = uuid::Builder::from_u128(bits).with_variant(uuid::Variant::RFC4122);
    id.with_version(uuid::Version::Random).into_uuid()
}

/// The key of a PUT. A row that gets its name from another row gets it with the PUT.
pub(super) fn put_key(
    admin: &Admin,
    kind: Kind,
    text: &str,
    input: &mut Row,
) -> Result<Key, Error> {
    match &hooks(kind).alias {
        Some(alias) if uuid(text).is_none() => {
            let found = (alias.find)(admin, text)?;
            (alias.put)(input, text);
            Ok(Key::Id(found.unwrap_or_else(|| new_id(kind))))
        }
        _ => Key::of(kind, text),
    }
}

/// PUT: fields that are not named return to their defaults; a row that `find` does not find is
/// created. That holds for targets as well, as Kong's documentation has it; Kong's code answers 404
/// there. A target of another name in the input renames the one in the path, as in Kong.
pub(super) async fn replace(
    admin: &Admin,
    kind: Kind,
    key: &Key,
    mut input: Row,
    conditions: &Conditions,
    find: impl Fn() -> Result<Option<Stored>, Error>,
) -> ApiResult {
    resolve(admin, kind, &mut input)?;
    let renames = renames(kind, key, &input);
    if let Key::Name(field, text) = key
        && !renames
    {
        input.insert((*field).into(), text.clone().into());
    }
    let shown_once = (hooks(kind).shown_once)(&mut input);
    for _ in 0..TRIES {
        let old = find()?;
        check(admin, kind, conditions, old.as_ref())?;
        let is_new = old.is_none();
        if is_new && renames {
            return Err(Error::not_found());
        }
        let id = match (key, &old) {
            (Key::Id(id), _) => *id,
            (_, Some(old)) => id_of(&old.row),
            (_, None) => new_id(kind),
        };
        let mut input = input.clone();
        for field in kind.declaration().kept_by_put {
            if let Some(value) = old.as_ref().and_then(|old| old.row.get(*field)) {
                input.entry(*field).or_insert_with(|| value.clone());
            }
        }
        let row = kind.declaration().create(id, input)?;
        let done = if is_new { "created" } else { "replaced" };
        let expected = old.as_ref().map(|stored| stored.revision);
        let write = Write::put(kind, id, row.clone(), None, expected);
        match write_if_unchanged(admin, write).await {
            Ok(Some(revision)) => {
                let before = old.as_ref().map_or(&row, |stored| &stored.row);
                changes::log_change(admin, kind, before, &row, done);
                let row = Json(shown_first(admin, kind, row, shown_once)?).into_response();
                return Ok(EntityTag::of(admin, kind, id, revision)?.on(row));
            }
            Ok(None) => {}
            // Another request has created it meanwhile.
            Err(_) if is_new && find()?.is_some() => {}
            Err(error) => return Err(error),
        }
    }
    Err(conflict(kind))
}

/// Whether the input of a PUT gives the row in the path another name. Of all entities, a PUT
/// renames only targets.
fn renames(kind: Kind, key: &Key, input: &Row) -> bool {
    let Key::Name(field, text) = key else {
        return false;
    };
    let given = input.get(*field).and_then(Value::as_str);
    kind == Kind::Target
        && given.is_some_and(|given| kind.declaration().stored_form(field, given) != *text)
}

/// PATCH: fields that are not named keep their values.
pub(super) async fn change(
    admin: &Admin,
    kind: Kind,
    key: &Key,
    input: &Row,
    conditions: &Conditions,
) -> ApiResult {
    let mut input = input.clone();
    resolve(admin, kind, &mut input)?;
    for _ in 0..TRIES {
        let old = look_up(admin, kind, key)?.ok_or_else(|| key.missing())?;
        check(admin, kind, conditions, Some(&old))?;
        let row = kind.declaration().update(&old.row, input.clone())?;
        let row = Value::from(row);
        bounds::check(&row)?;
        let Value::Object(row) = row else {
            return Err(Error::not_found());
        };
        let id = id_of(&old.row);
        let write = Write::Replace {
            kind,
            id,
            row: row.clone(),
            expected: old.revision,
            blob: None,
        };
        if let Some(revision) = write_if_unchanged(admin, write).await? {
            changes::log_change(admin, kind, &old.row, &row, "updated");
            let row = Json(shown_again(admin, kind, row)?).into_response();
            return Ok(EntityTag::of(admin, kind, id, revision)?.on(row));
        }
    }
    Err(conflict(kind))
}

pub(super) async fn delete(admin: &Admin, kind: Kind, id: Uuid) -> Result<(), Error> {
    // Read before the delete, for its name in the log.
    let row = admin.store.get(kind, id).ok().flatten();
    admin.write(vec![Write::Delete { kind, id }]).await?;
    match row {
        Some(stored) => changes::log(admin, kind, &stored.row, "deleted"),
        None => changes::log_id(kind, id, "deleted"),
    }
    Ok(())
}

/// DELETE of the row that `find` finds. Returns whether there was one.
pub(super) async fn delete_found(
    admin: &Admin,
    kind: Kind,
    conditions: &Conditions,
    find: impl Fn() -> Result<Option<Stored>, store::Error>,
) -> Result<bool, Error> {
    let mut is_known = admin.store.nodes().is_none();
    for _ in 0..TRIES {
        let head = admin.store.head();
        let found = find();
        let stored = found.as_ref().ok().cloned().flatten();
        check(admin, kind, conditions, stored.as_ref())?;
        let Some(id) = to_delete(found)? else {
            if is_known || catch_up_to_newest(&*admin.store, head).await? == Freshness::Current {
                return Ok(false);
            }
            is_known = true;
            continue;
        };
        let Some(stored) = stored.filter(|_| !conditions.is_empty()) else {
            delete(admin, kind, id).await?;
            return Ok(true);
        };
        let row = stored.row.clone();
        let writes = Write::delete_unchanged(kind, id, stored);
        match admin.store.write(writes.into()).await {
            Ok(revision) => {
                admin.wait_for(revision).await;
                changes::log(admin, kind, &row, "deleted");
                return Ok(true);
            }
            Err(store::Error::Changed { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(conflict(kind))
}

/// Checks the conditions of a write of a row, which is stored like this or absent.
fn check(
    admin: &Admin,
    kind: Kind,
    conditions: &Conditions,
    stored: Option<&Stored>,
) -> Result<(), Error> {
    if conditions.is_empty() {
        return Ok(());
    }
    let tag = stored.map(|stored| EntityTag::of(admin, kind, id_of(&stored.row), stored.revision));
    conditions.check(tag.transpose()?.as_ref())
}

/// Writes, unless the row has changed since it was read: then nothing is written, and the result is
/// none.
async fn write_if_unchanged(admin: &Admin, write: Write) -> Result<Option<Revision>, Error> {
    match write_with_companions(admin, vec![write]).await {
        Ok(revision) => Ok(Some(revision)),
        Err(Refused::Changed(_)) => Ok(None),
        Err(Refused::Other(error)) => Err(error),
    }
}

pub(super) enum Refused {
    Changed(Kind),
    Other(Error),
}

impl From<store::Error> for Refused {
    fn from(error: store::Error) -> Self {
        Self::Other(error.into())
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Changed(kind) => conflict(kind),
            Refused::Other(error) => error,
        }
    }
}

/// Writes rows, each with its companions. Returns the revision that they are at then. If the first
/// row has changed meanwhile, nothing is written.
pub(super) async fn write_with_companions(
    admin: &Admin,
    rows: Vec<Write>,
) -> Result<Revision, Refused> {
    let Some((first, kind)) = rows.first().map(|write| (write.id(), write.kind())) else {
        return Ok(0);
    };
    let mut last = None;
    for _ in 0..TRIES {
        let mut writes = rows.clone();
        let mut companions = Vec::new();
        for write in &mut writes {
            if let Write::Insert { kind, row, .. } | Write::Replace { kind, row, .. } = write {
                let checked = (hooks(*kind).check)(admin, row).await;
                companions.extend(checked.map_err(Refused::Other)?);
                kind.declaration().remove_transient(row);
            }
        }
        writes.extend(companions);
        // Written here and not by `Admin::write`, which does not know the error for a missing
        // reference by name.
        let written = admin.store.write(writes).await;
        return match written {
            Ok(revision) => {
                admin.wait_for(revision).await;
                Ok(revision)
            }
            Err(error) if expired::gives_way(admin, &error).await? => continue,
            // A companion has changed since the row was checked against it.
            Err(store::Error::Changed { id, .. }) if id != first => continue,
            // Another row has the key of a companion: if that was written meanwhile, the check
            // finds it at the next try.
            Err(error @ store::Error::UniqueKeyTaken { kind: of, .. }) if of != kind => {
                last = Some(error);
                continue;
            }
            Err(store::Error::Changed { .. }) => Err(Refused::Changed(kind)),
            Err(store::Error::ReferenceMissing { kind, field, .. })
                if let Some(error) = unknown_name(admin, kind, field) =>
            {
                Err(Refused::Other(error))
            }
            Err(error) => Err(Refused::Other(error.into())),
        };
    }
    // The caller does not try again: the row itself has not changed.
    Err(Refused::Other(
        last.map_or_else(|| conflict(kind), Error::from),
    ))
}

/// The error that lists the existing names, for a field that refers by name; none for any other
/// field.
fn unknown_name(admin: &Admin, kind: Kind, field: &str) -> Option<Error> {
    let mut references = kind.references().iter();
    let reference = references.find(|reference| reference.field == field)?;
    let ReferenceBy::Field { name, reserved } = reference.by else {
        return None;
    };
    let mut names: Vec<String> = reserved.iter().map(|name| (*name).to_owned()).collect();
    match admin.store.list(reference.to, None, 1000, &|_| true) {
        Ok(rows) => {
            for stored in rows {
                let name = stored.row.get(name).and_then(Value::as_str);
                if let Some(name) = name.filter(|name| !names.iter().any(|n| n == name)) {
                    names.push(name.to_owned());
                }
            }
        }
        Err(error) => return Some(error.into()),
    }
    let message = format!("expected one of: {}", names.join(", "));
    Some(Error::field(field, message))
}

/// Replaces references by name with references by id.
fn resolve(admin: &Admin, kind: Kind, input: &mut Row) -> Result<(), Error> {
    (hooks(kind).prepare)(admin, input)?;
    for field in kind.declaration().fields {
        let Shape::Reference(to) = field.shape else {
            continue;
        };
        let Some(Value::Object(key)) = input.get(field.name) else {
            continue;
        };
        if key.contains_key("id") {
            continue;
        }
        let Some(endpoint_key) = to.declaration().endpoint_key else {
            continue;
        };
        let Some(name) = key.get(endpoint_key).and_then(Value::as_str) else {
            continue;
        };
        if to.declaration().check_key(endpoint_key, name).is_err() {
            // Like every other error of a reference, this one is reported together with those of
            // the row.
            continue;
        }
        let found = look_up(admin, to, &Key::Name(endpoint_key, name.to_owned()))?;
        let found =
            found.ok_or_else(|| Error::unresolved(field.name, to.name(), endpoint_key, name))?;
        let link = json!({ "id": id_of(&found.row) });
        input.insert(field.name.into(), link);
    }
    Ok(())
}
