//! The endpoints of every entity, from its declaration.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get};
use http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::arguments::Path;
use super::error::Error;
use super::page::Page;
use super::rows::{
    Key, TRIES, busy, find, find_in, id_of, look_up, look_up_in, parent_id, to_delete,
};
use super::{
    Admin, ApiEndpoint, ApiResult, BODY_LIMIT, bounds, changes, decode, routes, settings, shadow,
    targets,
};
use crate::entity::{Endpoints, IdOrder, Kind, ListOrder, Reference, ReferenceBy, Row, Shape};
use crate::store::{self, Stored, Write};

const COLLECTION: &str = "GET, HEAD, OPTIONS, POST";
const ITEM: &str = "DELETE, GET, HEAD, OPTIONS, PATCH, PUT";

/// The endpoints of an entity that its declaration asks for.
pub(super) fn endpoints(kind: Kind) -> Vec<ApiEndpoint> {
    let mut endpoints = match kind.declaration().endpoints {
        Endpoints::Own => return Vec::new(),
        Endpoints::All => Vec::from(top_level(kind)),
        Endpoints::NestedOnly => Vec::new(),
    };
    for reference in kind.references() {
        endpoints.extend(nested(kind, reference));
    }
    endpoints
}

/// `/E` and `/E/{e}`.
fn top_level(kind: Kind) -> [ApiEndpoint; 2] {
    let path = kind.declaration().path;
    let collection = get(
        move |State(admin): State<Admin>, request: Request| async move {
            list(&admin, kind, None, &request)
        },
    )
    .post(
        move |State(admin): State<Admin>, request: Request| async move {
            let input = input(kind, request).await?;
            create(&admin, kind, input).await
        },
    );
    let item = get(
        move |State(admin): State<Admin>, Path(key): Path<String>| async move {
            shown(find(&admin, kind, &key)?)
        },
    )
    .put(
        move |State(admin): State<Admin>, Path(key): Path<String>, request: Request| async move {
            let input = input(kind, request).await?;
            let found = || find(&admin, kind, &key);
            replace(&admin, kind, &Key::of(kind, &key)?, input, found).await
        },
    )
    .patch(
        move |State(admin): State<Admin>, Path(key): Path<String>, request: Request| async move {
            let input = input(kind, request).await?;
            change(&admin, kind, &Key::of(kind, &key)?, &input).await
        },
    )
    .delete(
        move |State(admin): State<Admin>, Path(key): Path<String>| async move {
            if let Some(id) = to_delete(look_up(&admin, kind, &Key::of(kind, &key)?))? {
                delete(&admin, kind, id).await?;
            }
            Ok::<_, Error>(StatusCode::NO_CONTENT)
        },
    );
    [
        (format!("/{path}"), collection, COLLECTION),
        (format!("/{path}/{{key}}"), item, ITEM),
    ]
}

/// `/P/{p}/E`, `/P/{p}/E/{e}` and `/E/{e}/f`, for an entity that refers to another one by id.
fn nested(kind: Kind, reference: &'static Reference) -> Vec<ApiEndpoint> {
    let ReferenceBy::Id = reference.by else {
        return Vec::new();
    };
    let to = reference.to;
    let field = reference.field;
    let declaration = kind.declaration();
    let (name, parents) = (declaration.nested_path, to.declaration().path);
    let collection = get(
        move |State(admin): State<Admin>, Path(parent): Path<String>, request: Request| async move {
            let parent = parent_id(&admin, to, &parent)?;
            list(&admin, kind, Some((field, parent)), &request)
        },
    )
    .post(
        move |State(admin): State<Admin>, Path(parent): Path<String>, request: Request| async move {
            let parent = parent_id(&admin, to, &parent)?;
            let mut input = input(kind, request).await?;
            input.insert(field.into(), json!({ "id": parent }));
            create(&admin, kind, input).await
        },
    );
    let item = get(
        move |State(admin): State<Admin>, Path((parent, key)): Path<(String, String)>| async move {
            let parent = parent_id(&admin, to, &parent)?;
            shown(find_in(&admin, kind, reference, parent, &key)?)
        },
    )
    .put(
        move |State(admin): State<Admin>,
              Path((parent, key)): Path<(String, String)>,
              request: Request| async move {
            let parent = parent_id(&admin, to, &parent)?;
            let mut input = input(kind, request).await?;
            input.insert(field.into(), json!({ "id": parent }));
            let key = Key::nested(kind, &key)?;
            let found = || Ok(look_up_in(&admin, kind, reference, parent, &key)?);
            if found()?.is_none() && look_up(&admin, kind, &key)?.is_some() {
                // The key is another parent's.
                return Err(Error::not_found());
            }
            replace(&admin, kind, &key, input, found).await
        },
    )
    .patch(
        move |State(admin): State<Admin>,
              Path((parent, key)): Path<(String, String)>,
              request: Request| async move {
            let parent = parent_id(&admin, to, &parent)?;
            let input = input(kind, request).await?;
            let found = find_in(&admin, kind, reference, parent, &key)?;
            let found = found.ok_or_else(Error::not_found)?;
            change(&admin, kind, &Key::Id(id_of(&found.row)), &input).await
        },
    )
    .delete(
        move |State(admin): State<Admin>, Path((parent, key)): Path<(String, String)>| async move {
            let parent = parent_id(&admin, to, &parent)?;
            let key = Key::nested(kind, &key)?;
            let found = to_delete(look_up_in(&admin, kind, reference, parent, &key))?;
            delete(&admin, kind, found.ok_or_else(Error::not_found)?).await?;
            Ok::<_, Error>(StatusCode::NO_CONTENT)
        },
    );
    let mut endpoints = vec![
        (format!("/{parents}/{{key}}/{name}"), collection, COLLECTION),
        (format!("/{parents}/{{key}}/{name}/{{nested}}"), item, ITEM),
    ];
    if declaration.nested_order == ListOrder::NewestFirst {
        let all = get(
            move |State(admin): State<Admin>, Path(parent): Path<String>, request: Request| async move {
                let parent = parent_id(&admin, to, &parent)?;
                list_by_id(&admin, kind, Some((field, parent)), &request)
            },
        );
        let path = format!("/{parents}/{{key}}/{name}/all");
        endpoints.push((path, all, "GET, HEAD, OPTIONS"));
    }
    if declaration.endpoints == Endpoints::All && reference.has_endpoint {
        endpoints.push((
            format!("/{}/{{key}}/{field}", declaration.path),
            referred(kind, reference),
            ITEM,
        ));
    }
    endpoints
}

/// The row that another one refers to, as `/routes/{route}/service`.
fn referred(kind: Kind, reference: &'static Reference) -> MethodRouter<Admin> {
    let (to, field) = (reference.to, reference.field);
    let target = move |admin: &Admin, key: &str| -> Result<(Stored, Option<Uuid>), Error> {
        let row = find(admin, kind, key)?.ok_or_else(Error::not_found)?;
        let id = row.row.get(field).and_then(|value| value.get("id"));
        let id = id.and_then(Value::as_str).and_then(|id| id.parse().ok());
        Ok((row, id))
    };
    get(
        move |State(admin): State<Admin>, Path(key): Path<String>| async move {
            let (_, id) = target(&admin, &key)?;
            let id = id.ok_or_else(Error::not_found)?;
            shown(admin.store.get(to, id)?)
        },
    )
    .put(
        move |State(admin): State<Admin>, Path(key): Path<String>, request: Request| async move {
            let (row, id) = target(&admin, &key)?;
            let input = input(to, request).await?;
            match id {
                Some(id) => {
                    let found = || Ok(admin.store.get(to, id)?);
                    replace(&admin, to, &Key::Id(id), input, found).await
                }
                None => {
                    let (id, write) = insert(&admin, to, input)?;
                    let link = json!({ field: { "id": id } });
                    let link = link.as_object().cloned().unwrap_or_default();
                    let linked = kind.declaration().update(&row.row, link)?;
                    let link = Write::Replace {
                        kind,
                        id: id_of(&row.row),
                        row: linked,
                        expected: row.revision,
                        blob: None,
                    };
                    admin.write(vec![write, link]).await?;
                    changes::log_id(to, id, "created");
                    changes::log(&admin, kind, &row.row, "updated");
                    shown(admin.store.get(to, id)?)
                }
            }
        },
    )
    .patch(
        move |State(admin): State<Admin>, Path(key): Path<String>, request: Request| async move {
            let (_, id) = target(&admin, &key)?;
            let id = id.ok_or_else(Error::not_found)?;
            let input = input(to, request).await?;
            change(&admin, to, &Key::Id(id), &input).await
        },
    )
    .delete(
        move |State(admin): State<Admin>, Path(key): Path<String>| async move {
            let (_, id) = target(&admin, &key)?;
            id.ok_or_else(Error::not_found)?;
            Err::<(), _>(Error::Plain(
                StatusCode::METHOD_NOT_ALLOWED,
                "Method not allowed".into(),
            ))
        },
    )
}

async fn input(kind: Kind, request: Request) -> Result<Row, Error> {
    decode::fields(kind.declaration().fields, request, BODY_LIMIT).await
}

fn shown(row: Option<Stored>) -> ApiResult {
    let stored = row.ok_or_else(Error::not_found)?;
    Ok(Json(Value::from(stored.row)).into_response())
}

fn list(
    admin: &Admin,
    kind: Kind,
    parent: Option<(&'static str, Uuid)>,
    request: &Request,
) -> ApiResult {
    if kind == Kind::Target {
        let (_, parent) = parent.ok_or_else(Error::not_found)?;
        targets::list(admin, parent, request)
    } else {
        list_by_id(admin, kind, parent, request)
    }
}

fn list_by_id(
    admin: &Admin,
    kind: Kind,
    parent: Option<(&'static str, Uuid)>,
    request: &Request,
) -> ApiResult {
    let page = Page::of(request.uri().query())?;
    let first = page.first()?;
    let rows = match parent {
        Some((field, parent)) => {
            admin
                .store
                .list_referring(kind, field, parent, first, page.size + 1)?
        }
        None => {
            let filter = page.filter()?;
            admin.store.list(kind, first, page.size + 1, &*filter)?
        }
    };
    let answer = page.answer(request.uri().path(), rows, parent.is_none());
    Ok(Json(answer).into_response())
}

/// The id and the write for a new row.
fn insert(admin: &Admin, kind: Kind, mut input: Row) -> Result<(Uuid, Write), Error> {
    let id = match input.get("id") {
        None | Some(Value::Null) => new_id(kind),
        Some(id) => id
            .as_str()
            .and_then(|id| Uuid::try_parse(id).ok())
            .ok_or_else(|| Error::field("id", "expected a valid UUID"))?,
    };
    resolve(admin, kind, &mut input)?;
    // Kong brings a target into its form before it looks at anything else, and then says it without the value.
    if let (Kind::Target, Some(Value::String(target))) = (kind, input.get("target"))
        && kind.declaration().check_key("target", target).is_err()
    {
        let message = "Invalid target; not a valid hostname or ip address";
        return Err(Error::field("target", message));
    }
    let row = kind.declaration().create(id, input)?;
    let write = Write::Insert {
        kind,
        id,
        row,
        blob: None,
    };
    Ok((id, write))
}

async fn create(admin: &Admin, kind: Kind, input: Row) -> ApiResult {
    let (_, write) = insert(admin, kind, input)?;
    let Write::Insert { row, .. } = &write else {
        return Err(Error::not_found());
    };
    let row = row.clone();
    write_explained(admin, write).await?;
    changes::log(admin, kind, &row, "created");
    Ok((StatusCode::CREATED, Json(Value::from(row))).into_response())
}

/// An id for a new row: a UUID of version 4 in its form, whose bits follow the time of its making. So the
/// orders that end in ids (lists, the table of an upstream, routes that match alike) are not by chance:
/// they are in the order of making, or against it, as the declaration says.
fn new_id(kind: Kind) -> Uuid {
    let ordered = Uuid::now_v7().as_u128();
    let bits = match kind.declaration().id_order {
        IdOrder::Ascending => ordered,
        IdOrder::Descending => !ordered,
    };
    let id = uuid::Builder::from_u128(bits).with_variant(uuid::Variant::RFC4122);
    id.with_version(uuid::Version::Random).into_uuid()
}

/// PUT: what is not named returns to its default; a row that `find` does not find is made. Of a target as
/// well, as Kong's documentation has it; its code answers 404 there.
async fn replace(
    admin: &Admin,
    kind: Kind,
    key: &Key,
    mut input: Row,
    find: impl Fn() -> Result<Option<Stored>, Error>,
) -> ApiResult {
    resolve(admin, kind, &mut input)?;
    if let Key::Name(field, text) = key {
        input.insert((*field).into(), text.clone().into());
    }
    for _ in 0..TRIES {
        let old = find()?;
        let is_new = old.is_none();
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
        let old = old.map(|stored| stored.revision);
        let write = Write::put(kind, id, row.clone(), None, old);
        match write_if_unchanged(admin, write).await {
            Ok(true) => {
                changes::log(admin, kind, &row, done);
                return Ok(Json(Value::from(row)).into_response());
            }
            Ok(false) => {}
            // Another request has made it meanwhile.
            Err(_) if is_new && find()?.is_some() => {}
            Err(error) => return Err(error),
        }
    }
    Err(busy(kind))
}

/// PATCH: what is not named stays.
pub(super) async fn change(admin: &Admin, kind: Kind, key: &Key, input: &Row) -> ApiResult {
    let mut input = input.clone();
    resolve(admin, kind, &mut input)?;
    for _ in 0..TRIES {
        let old = look_up(admin, kind, key)?.ok_or_else(|| key.missing())?;
        let row = kind.declaration().update(&old.row, input.clone())?;
        let row = Value::from(row);
        bounds::check(&row)?;
        let Value::Object(row) = row else {
            return Err(Error::not_found());
        };
        let write = Write::Replace {
            kind,
            id: id_of(&old.row),
            row: row.clone(),
            expected: old.revision,
            blob: None,
        };
        if write_if_unchanged(admin, write).await? {
            changes::log(admin, kind, &row, "updated");
            return Ok(Json(Value::from(row)).into_response());
        }
    }
    Err(busy(kind))
}

pub(super) async fn delete(admin: &Admin, kind: Kind, id: Uuid) -> Result<(), Error> {
    // Read before it is gone, for its name.
    let row = admin.store.get(kind, id).ok().flatten();
    admin.write(vec![Write::Delete { kind, id }]).await?;
    match row {
        Some(stored) => changes::log(admin, kind, &stored.row, "deleted"),
        None => changes::log_id(kind, id, "deleted"),
    }
    Ok(())
}

/// Writes, unless the row has changed since it was read: then nothing is done, and the answer is
/// false.
async fn write_if_unchanged(admin: &Admin, write: Write) -> Result<bool, Error> {
    match write_explained(admin, write).await {
        Ok(()) => Ok(true),
        Err(Refused::Changed) => Ok(false),
        Err(Refused::For(error)) => Err(error),
    }
}

enum Refused {
    Changed,
    For(Error),
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Changed => busy(Kind::Service),
            Refused::For(error) => error,
        }
    }
}

async fn write_explained(admin: &Admin, write: Write) -> Result<(), Refused> {
    for _ in 0..TRIES {
        let mut writes = vec![write.clone()];
        if let Write::Insert { kind, row, .. } | Write::Replace { kind, row, .. } = &write
            && *kind == Kind::Upstream
        {
            let balancer = settings::check(admin, row).await.map_err(Refused::For)?;
            writes.extend(balancer);
            let second = shadow::check(admin, row).await.map_err(Refused::For)?;
            let other =
                second.filter(|second| !writes.iter().any(|write| write.id() == second.id()));
            writes.extend(other);
        }
        if let Write::Insert { kind, row, .. } | Write::Replace { kind, row, .. } = &write
            && *kind == Kind::Route
        {
            routes::check(admin, row).await.map_err(Refused::For)?;
        }
        let relies_on_balancer = writes.len() > 1;
        // Looked at here and not by `Admin::write`, which has no words for a missing balancer.
        let written = admin.store.write(writes).await;
        return match written {
            Ok(revision) => {
                admin.wait_for(revision).await;
                Ok(())
            }
            // The settings were looked at beside a version that may not be the active one any longer.
            Err(store::Error::Changed {
                kind: Kind::Balancer,
                ..
            }) if relies_on_balancer => continue,
            Err(store::Error::Changed { .. }) => Err(Refused::Changed),
            Err(store::Error::ReferenceMissing {
                field,
                to: Kind::Balancer,
                ..
            }) => Err(Refused::For(unknown_balancer(admin, field))),
            Err(error) => Err(Refused::For(error.into())),
        };
    }
    Err(Refused::Changed)
}

/// Says which balancers there are.
fn unknown_balancer(admin: &Admin, field: &str) -> Error {
    let mut names: Vec<String> = crate::entity::upstream::KONG_ALGORITHMS
        .iter()
        .map(|name| (*name).to_owned())
        .collect();
    match admin.store.list(Kind::Balancer, None, 1000, &|_| true) {
        Ok(rows) => {
            for stored in rows {
                let name = stored.row.get("name").and_then(Value::as_str);
                if let Some(name) = name.filter(|name| !names.iter().any(|n| n == name)) {
                    names.push(name.to_owned());
                }
            }
        }
        Err(error) => return error.into(),
    }
    Error::field(field, format!("expected one of: {}", names.join(", ")))
}

/// References by name become references by id.
fn resolve(admin: &Admin, kind: Kind, input: &mut Row) -> Result<(), Error> {
    if kind == Kind::Upstream {
        settings::pin_by_digest(admin, input)?;
    }
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
            // As all else that is wrong with a reference, this is said with what is wrong with the row.
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
