//! The endpoints of every entity, generated from its declaration.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get};
use http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::arguments::Path;
use super::conditional::{Conditions, EntityTag};
use super::error::Error;
use super::key::Key;
use super::lists::{by_id, list};
use super::rows::{
    check_unnamed, find, find_in, id_of, key_of, look_up, look_up_in, parent_id, shown,
};
use super::writes::{
    change, create, delete_found, insert, put_key, replace, write_with_companions,
};
use super::{Admin, ApiEndpoint, ApiResult, BODY_LIMIT, changes, decode, hooks};
use crate::entity::{Endpoints, Kind, ListOrder, Reference, ReferenceBy, Row};
use crate::store::{Stored, Write};

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
        move |State(admin): State<Admin>, Path(key): Path<String>, conditions: Conditions| async move {
            let key = key_of(&admin, kind, &key)?;
            let found = look_up(&admin, kind, &key)?;
            let found = found.ok_or_else(|| (hooks(kind).absent)(&key))?;
            answer(&admin, kind, Some(found), &conditions)
        },
    )
    .put(
        move |State(admin): State<Admin>, Path(key): Path<String>, request: Request| async move {
            let conditions = Conditions::of(request.headers());
            let mut input = input(kind, request).await?;
            let key = put_key(&admin, kind, &key, &mut input)?;
            let found = || Ok(look_up(&admin, kind, &key)?);
            replace(&admin, kind, &key, input, &conditions, found).await
        },
    )
    .patch(
        move |State(admin): State<Admin>, Path(key): Path<String>, request: Request| async move {
            let conditions = Conditions::of(request.headers());
            let old = || find(&admin, kind, &key).ok().flatten();
            let input = patch_input(kind, old, request).await?;
            let key = key_of(&admin, kind, &key)?;
            change(&admin, kind, &key, &input, &conditions).await
        },
    )
    .delete(
        move |State(admin): State<Admin>, Path(key): Path<String>, conditions: Conditions| async move {
            let key = key_of(&admin, kind, &key)?;
            let found = || look_up(&admin, kind, &key);
            if !delete_found(&admin, kind, &conditions, found).await? {
                check_unnamed(&admin, kind, &key)?;
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
        move |State(admin): State<Admin>,
              Path((parent, key)): Path<(String, String)>,
              conditions: Conditions| async move {
            let parent = parent_id(&admin, to, &parent)?;
            let found = find_in(&admin, kind, reference, parent, &key)?;
            answer(&admin, kind, found, &conditions)
        },
    )
    .put(
        move |State(admin): State<Admin>,
              Path((parent, key)): Path<(String, String)>,
              request: Request| async move {
            let parent = parent_id(&admin, to, &parent)?;
            let conditions = Conditions::of(request.headers());
            let mut input = input(kind, request).await?;
            input.insert(field.into(), json!({ "id": parent }));
            let key = Key::nested(kind, &key)?;
            let elsewhere = || look_up(&admin, kind, &key);
            let found = || match look_up_in(&admin, kind, reference, parent, &key)? {
                // A row of another parent moves to this one, as in Kong: decK moves credentials so.
                None if kind.declaration().put_moves => Ok(elsewhere()?),
                found => Ok(found),
            };
            if found()?.is_none() && elsewhere()?.is_some() {
                return Err(Error::not_found());
            }
            replace(&admin, kind, &key, input, &conditions, found).await
        },
    )
    .patch(
        move |State(admin): State<Admin>,
              Path((parent, key)): Path<(String, String)>,
              request: Request| async move {
            let parent = parent_id(&admin, to, &parent)?;
            let conditions = Conditions::of(request.headers());
            let old = || {
                find_in(&admin, kind, reference, parent, &key)
                    .ok()
                    .flatten()
            };
            let input = patch_input(kind, old, request).await?;
            let found = find_in(&admin, kind, reference, parent, &key)?;
            let found = found.ok_or_else(Error::not_found)?;
            let key = Key::Id(id_of(&found.row));
            change(&admin, kind, &key, &input, &conditions).await
        },
    )
    .delete(
        move |State(admin): State<Admin>,
              Path((parent, key)): Path<(String, String)>,
              conditions: Conditions| async move {
            let parent = parent_id(&admin, to, &parent)?;
            let key = Key::nested(kind, &key)?;
            let found = || look_up_in(&admin, kind, reference, parent, &key);
            match delete_found(&admin, kind, &conditions, found).await? {
                true => Ok(StatusCode::NO_CONTENT),
                false => {
                    check_unnamed(&admin, kind, &key)?;
                    Err(Error::not_found())
                }
            }
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
                let list = by_id(&admin, kind, Some((field, parent)), &request)?;
                Ok::<_, Error>(Json(list))
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
        move |State(admin): State<Admin>, Path(key): Path<String>, conditions: Conditions| async move {
            let (_, id) = target(&admin, &key)?;
            let id = id.ok_or_else(Error::not_found)?;
            answer(&admin, to, admin.store.get(to, id)?, &conditions)
        },
    )
    .put(
        move |State(admin): State<Admin>, Path(key): Path<String>, request: Request| async move {
            let (row, id) = target(&admin, &key)?;
            let conditions = Conditions::of(request.headers());
            let input = input(to, request).await?;
            match id {
                Some(id) => {
                    let found = || Ok(admin.store.get(to, id)?);
                    replace(&admin, to, &Key::Id(id), input, &conditions, found).await
                }
                None => {
                    conditions.check(None)?;
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
                    write_with_companions(&admin, vec![write, link]).await?;
                    changes::log_id(to, id, "created");
                    changes::log(&admin, kind, &row.row, &format!("updated: {field}"));
                    answer(&admin, to, admin.store.get(to, id)?, &Conditions::default())
                }
            }
        },
    )
    .patch(
        move |State(admin): State<Admin>, Path(key): Path<String>, request: Request| async move {
            let (_, id) = target(&admin, &key)?;
            let id = id.ok_or_else(Error::not_found)?;
            let conditions = Conditions::of(request.headers());
            let old = || admin.store.get(to, id).ok().flatten();
            let input = patch_input(to, old, request).await?;
            change(&admin, to, &Key::Id(id), &input, &conditions).await
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
    decode::entity(kind, None, request, BODY_LIMIT).await
}

/// The input of a PATCH. Where an entity's fields depend on the value of one of them, that value
/// may be the one in the row to change.
async fn patch_input(
    kind: Kind,
    old: impl FnOnce() -> Option<Stored>,
    request: Request,
) -> Result<Row, Error> {
    let depends = kind.declaration().subschemas.is_some();
    let old = depends.then(old).flatten();
    decode::entity(kind, old.as_ref().map(|old| &old.row), request, BODY_LIMIT).await
}

fn answer(admin: &Admin, kind: Kind, found: Option<Stored>, conditions: &Conditions) -> ApiResult {
    let found = found.ok_or_else(Error::not_found)?;
    let tag = EntityTag::of(admin, kind, id_of(&found.row), found.revision)?;
    let row = shown(admin, kind, found.row)?;
    let row = Json(Value::from(row.ok_or_else(Error::not_found)?)).into_response();
    conditions.answer(&tag, row)
}
