//! Rows as paths name them: by id, or by the value of a field.

use http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::error::Error;
use super::key::Key;
use super::{Admin, hooks};
use crate::entity::{Kind, Reference, Row, uuid};
use crate::store::{self, Stored};

/// How often a change is tried again because another change came between its read and its write.
/// With four clients that change one row all the time, one change in a hundred would lose sixteen
/// times in a row.
pub(super) const TRIES: u32 = 64;

/// Whether another change came between the read and the write of one, which is to be tried again.
pub(super) fn is_race(error: &store::Error) -> bool {
    matches!(
        error,
        store::Error::Changed { .. } | store::Error::PrimaryKeyTaken { .. }
    )
}

/// Checks that no row which is set aside may have a name by which none was found. Gateways that
/// share a store know names from the rows alone, so they do not know the name of one that cannot be
/// read; a store of a single gateway has the names apart from the rows.
///
/// # Errors
/// There are such rows, which the message tells by their ids.
pub(super) fn check_unnamed(admin: &Admin, kind: Kind, key: &Key) -> Result<(), Error> {
    let Key::Name(field, name) = key else {
        return Ok(());
    };
    if admin.store.nodes().is_none() {
        return Ok(());
    }
    let mut rows = admin.store.condition().set_aside;
    rows.retain(|row| row.kind == kind);
    if rows.is_empty() {
        return Ok(());
    }
    let ids: Vec<String> = rows.iter().map(|row| row.id.to_string()).collect();
    Err(Error::Plain(
        StatusCode::CONFLICT,
        format!(
            "nothing is deleted: no {kind} has the {field} {name:?}, but stored rows of {kind} are \
             set aside, and their {field} may not be known: DELETE removes them by their ids: {}",
            ids.join(", "),
            kind = kind.name(),
        ),
    ))
}

/// The key at the end of a path below the root, where another row may give the row a name.
///
/// # Errors
/// No row has this name, or none can have it.
pub(super) fn key_of(admin: &Admin, kind: Kind, text: &str) -> Result<Key, Error> {
    match &hooks(kind).alias {
        Some(alias) if uuid(text).is_none() => {
            let id = (alias.find)(admin, text)?;
            Ok(Key::Id(id.ok_or_else(alias.absent)?))
        }
        _ => Key::of(kind, text),
    }
}

/// A row as a client is shown it; none if it has expired.
pub(super) fn shown(admin: &Admin, kind: Kind, row: Row) -> Result<Option<Row>, Error> {
    let mut shown = kind.declaration().shown(row);
    if let Some(row) = &mut shown {
        (hooks(kind).show)(admin, row)?;
    }
    Ok(shown)
}

pub(super) fn id_of(row: &Row) -> Uuid {
    let id = row.get("id").and_then(Value::as_str);
    id.and_then(|id| id.parse().ok()).unwrap_or_default()
}

pub(super) fn look_up(
    admin: &Admin,
    kind: Kind,
    key: &Key,
) -> Result<Option<Stored>, store::Error> {
    let found = match key {
        Key::Id(id) => admin.store.get(kind, *id)?,
        Key::Name(field, text) => {
            let unique = kind.unique_keys().iter().find(|key| key.fields == [*field]);
            match unique {
                Some(key) => admin
                    .store
                    .find(kind, key.fields, &[&text.as_str().into()])?,
                None => None,
            }
        }
    };
    // One that has expired may not have been removed yet.
    Ok(found.filter(|found| !kind.declaration().is_expired(&found.row)))
}

pub(super) fn find(admin: &Admin, kind: Kind, key: &str) -> Result<Option<Stored>, Error> {
    Ok(look_up(admin, kind, &key_of(admin, kind, key)?)?)
}

/// The id of a row that is to be deleted. A row that is set aside can be deleted; nothing else can
/// be done with it.
pub(super) fn to_delete(
    found: Result<Option<Stored>, store::Error>,
) -> Result<Option<Uuid>, Error> {
    match found {
        Ok(found) => Ok(found.map(|stored| id_of(&stored.row))),
        Err(store::Error::SetAside { id, .. }) => Ok(Some(id)),
        Err(error) => Err(error.into()),
    }
}

/// The row of this key if it refers to this parent.
pub(super) fn find_in(
    admin: &Admin,
    kind: Kind,
    reference: &Reference,
    parent: Uuid,
    key: &str,
) -> Result<Option<Stored>, Error> {
    let key = Key::nested(kind, key)?;
    Ok(look_up_in(admin, kind, reference, parent, &key)?)
}

/// As [`find_in`], by a key that is already parsed.
pub(super) fn look_up_in(
    admin: &Admin,
    kind: Kind,
    reference: &Reference,
    parent: Uuid,
    key: &Key,
) -> Result<Option<Stored>, store::Error> {
    let link = json!({ "id": parent });
    if let Key::Name(field, text) = key {
        let among_siblings = [*field, reference.field];
        let mut unique = kind.unique_keys().iter();
        if unique.any(|key| key.fields == among_siblings) {
            let values = [&text.as_str().into(), &link];
            return admin.store.find(kind, &among_siblings, &values);
        }
    }
    let found = look_up(admin, kind, key)?;
    Ok(found.filter(|stored| stored.row.get(reference.field) == Some(&link)))
}

pub(super) fn parent_id(admin: &Admin, kind: Kind, key: &str) -> Result<Uuid, Error> {
    let parent = find(admin, kind, key)?.ok_or_else(Error::not_found)?;
    Ok(id_of(&parent.row))
}

pub(super) fn conflict(kind: Kind) -> Error {
    store::Error::Changed {
        kind,
        id: Uuid::nil(),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    #[test]
    fn without_an_endpoint_key_a_path_names_rows_by_id_alone() {
        // Below their upstream, targets are named by a key of their own.
        let wrong = Key::of(Kind::Target, "a.example:80").err();
        let wrong = wrong.map(IntoResponse::into_response);
        assert_eq!(wrong.map(|response| response.status().as_u16()), Some(400));
        let id = Uuid::new_v4();
        let named = Key::of(Kind::Target, &id.to_string());
        assert!(matches!(named, Ok(Key::Id(named)) if named == id));
        let nested = Key::nested(Kind::Target, "a.example:80");
        assert!(matches!(nested, Ok(Key::Name("target", _))));
    }
}
