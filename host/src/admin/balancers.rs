//! Balancers: components that are uploaded, shown and deleted here.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use uuid::Uuid;

use super::entities::{self, Key, find, id_of};
use super::page::Page;
use super::{Admin, decode, settings};
use crate::balancer::{Engine, LoadError, Plugin, SHIPPED};
use crate::entity::{Kind, Row};
use crate::error::Error;
use crate::store::{self, Store, Stored, Write};

const KIND: Kind = Kind::Balancer;

/// Room for the frame of a multipart form around a component.
const FRAME: usize = 64 << 10;

type Endpoint = (String, MethodRouter<Admin>, &'static str);

impl From<LoadError> for Error {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Internal(cause) => {
                tracing::error!("cannot load a component: {cause}");
                Self::Plain(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "An unexpected error occurred".into(),
                )
            }
            refusal => Self::field("component", refusal.to_string()),
        }
    }
}

pub(super) fn endpoints() -> [Endpoint; 3] {
    let collection = get(list).post(create);
    let item = get(show).put(replace).patch(change).delete(delete);
    [
        ("/balancers".into(), collection, "GET, HEAD, OPTIONS, POST"),
        (
            "/balancers/{key}".into(),
            item,
            "DELETE, GET, HEAD, OPTIONS, PATCH, PUT",
        ),
        (
            "/balancers/{key}/component".into(),
            get(component),
            "GET, HEAD, OPTIONS",
        ),
    ]
}

/// Makes the balancers that ship with the gateway entities like any other, in the version that this
/// gateway has. Returns the default one.
///
/// # Errors
/// When one does not load, or the store fails.
pub async fn install_shipped(
    store: &Arc<dyn Store>,
    engine: &Arc<Engine>,
) -> anyhow::Result<Arc<Plugin>> {
    let mut default = None;
    // The first start has all of them to compile: as many at once as there are processors.
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    let mut loading = stream::iter(SHIPPED)
        .map(|shipped| async move {
            let component = Bytes::from_static(shipped.component);
            (shipped, engine.load_shipped(component).await)
        })
        .buffered(at_once);
    while let Some((shipped, loaded)) = loading.next().await {
        let plugin = loaded?;
        let known = store.find(KIND, &["name"], &[&shipped.name.into()])?;
        let source = known.as_ref().and_then(|stored| stored.row.get("source"));
        if source == Some(&"uploaded".into()) {
            tracing::warn!(
                balancer = shipped.name,
                "a balancer of this name was uploaded, and is kept in place of the one that ships"
            );
            default.get_or_insert(plugin);
            continue;
        }
        let current = known
            .as_ref()
            .is_some_and(|stored| stored.row.get("digest") == Some(&plugin.digest.clone().into()));
        if !current {
            let id = known.as_ref().map_or_else(Uuid::new_v4, |s| id_of(&s.row));
            let input = described(shipped.name, "shipped", Value::Null, &plugin);
            let row = KIND
                .declaration()
                .create(id, input)
                .map_err(|violation| anyhow::anyhow!("{violation:?}"))?;
            let blob = Some(Bytes::from_static(shipped.component));
            let write = Write::put(KIND, id, row, blob, known.map(|stored| stored.revision));
            store.write(vec![write]).await?;
        }
        default.get_or_insert(plugin);
    }
    default.ok_or_else(|| anyhow::anyhow!("no balancer ships with this gateway"))
}

/// The fields of a balancer, read from its component.
fn described(name: &str, source: &str, tags: Value, plugin: &Plugin) -> Row {
    let columns: Vec<&str> = plugin.columns.iter().map(|column| column.name()).collect();
    let row = json!({
        "name": name,
        "source": source,
        "digest": plugin.digest,
        "size": plugin.size,
        "description": {
            "name": plugin.name,
            "version": plugin.version,
            "config_schema": plugin.config_schema,
            "columns": columns,
        },
        "exports": plugin.exports,
        "tags": tags,
    });
    match row {
        Value::Object(row) => row,
        _ => Row::new(),
    }
}

async fn list(State(admin): State<Admin>, request: Request) -> Result<Response, Error> {
    let page = Page::of(request.uri().query())?;
    let filter = page.filter()?;
    let rows = admin
        .store
        .list(KIND, page.first()?, page.size + 1, &*filter)?;
    let answer = page.answer(request.uri().path(), rows, true);
    Ok(Json(answer).into_response())
}

async fn show(State(admin): State<Admin>, Path(key): Path<String>) -> Result<Response, Error> {
    let mut row = find(&admin, KIND, &key)?.ok_or_else(Error::not_found)?.row;
    let usage = usage(&admin, row.get("digest").and_then(Value::as_str));
    row.insert("usage".into(), usage);
    Ok(Json(Value::from(row)).into_response())
}

/// What a balancer does now, by the upstreams that it chooses for.
fn usage(admin: &Admin, digest: Option<&str>) -> Value {
    let (_, snapshot) = admin.published.current();
    let mut usage = Row::new();
    for upstream in snapshot.upstreams.values() {
        let balancer = upstream.balancer();
        if Some(&*balancer.plugin().digest) == digest {
            usage.insert(upstream.name.to_string(), json!(balancer.counters()));
        }
    }
    usage.into()
}

/// The component of a balancer, if it is the one with this digest.
pub(super) fn component_of(
    admin: &Admin,
    name: &str,
    digest: &str,
) -> Result<Option<Bytes>, Error> {
    let stored = admin.store.find(KIND, &["name"], &[&name.into()])?;
    let fits = |row: &Row| row.get("digest").and_then(Value::as_str) == Some(digest);
    match stored {
        Some(stored) if fits(&stored.row) => Ok(admin.store.blob(KIND, id_of(&stored.row))?),
        _ => Ok(None),
    }
}

async fn component(State(admin): State<Admin>, Path(key): Path<String>) -> Result<Response, Error> {
    let row = find(&admin, KIND, &key)?.ok_or_else(Error::not_found)?.row;
    let blob = admin.store.blob(KIND, id_of(&row))?;
    let blob = blob.ok_or_else(Error::not_found)?;
    Ok(([(CONTENT_TYPE, "application/wasm")], blob).into_response())
}

/// A component with the fields that came with it.
struct Upload {
    name: Option<String>,
    tags: Value,
    component: Bytes,
}

async fn upload(admin: &Admin, request: Request) -> Result<Upload, Error> {
    let limit = admin.config.balancer.upload;
    let content_type = request.headers().get(CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or_default().to_owned();
    let mut upload = Upload {
        name: None,
        tags: Value::Null,
        component: Bytes::new(),
    };
    let mut tags = Vec::new();
    let query = request.uri().query().unwrap_or_default().to_owned();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "name" => upload.name = Some(value.into_owned()),
            "tags" => tags.extend(value.split(',').map(Value::from)),
            _ => {}
        }
    }
    let too_large = |error: Error| match error {
        // A component that is too large is not right, like one that is wrong in another way.
        Error::Plain(StatusCode::PAYLOAD_TOO_LARGE, _) => Error::field(
            "component",
            format!(
                "the component is larger than the {limit} bytes that this gateway takes (setting balancer_upload)"
            ),
        ),
        other => other,
    };
    if content_type.starts_with("application/wasm") {
        let body = decode::read(request.into_body(), limit).await;
        upload.component = body.map_err(too_large)?;
    } else if content_type.starts_with("multipart/form-data") {
        let body = decode::read(request.into_body(), limit + FRAME).await;
        let body = body.map_err(too_large)?;
        for part in decode::parts(&content_type, body).await? {
            let text = || String::from_utf8_lossy(&part.content).into_owned();
            match part.name.as_str() {
                "name" => upload.name = Some(text()),
                "tags" | "tags[]" => tags.push(text().into()),
                "component" => upload.component = part.content,
                other => return Err(Error::field(other, "unknown field")),
            }
        }
    } else {
        return Err(Error::Bare(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    if !tags.is_empty() {
        upload.tags = tags.into();
    }
    Ok(upload)
}

async fn create(State(admin): State<Admin>, request: Request) -> Result<Response, Error> {
    let upload = upload(&admin, request).await?;
    let name = upload
        .name
        .ok_or_else(|| Error::field("name", "required field missing"))?;
    let plugin = admin.engine.load(upload.component.clone()).await?;
    let id = Uuid::new_v4();
    let input = described(&name, "uploaded", upload.tags, &plugin);
    let row = KIND.declaration().create(id, input)?;
    let body = Json(Value::from(row.clone()));
    let blob = Some(upload.component);
    let write = Write::Insert {
        kind: KIND,
        id,
        row,
        blob,
    };
    admin.write(vec![write]).await?;
    Ok((StatusCode::CREATED, body).into_response())
}

/// Puts another component under a name: every upstream that uses it switches to it.
async fn replace(
    State(admin): State<Admin>,
    Path(key): Path<String>,
    request: Request,
) -> Result<Response, Error> {
    let upload = upload(&admin, request).await?;
    let plugin = admin.engine.load(upload.component.clone()).await?;
    let old = find(&admin, KIND, &key)?;
    let (id, name) = match (&old, Key::of(KIND, &key)) {
        (Some(old), _) => {
            not_shipped(&old.row, "replaced")?;
            let name = old.row.get("name").and_then(Value::as_str);
            (id_of(&old.row), name.unwrap_or(&key).to_owned())
        }
        (None, Key::Id(id)) => {
            let missing = || Error::field("name", "required field missing");
            (id, upload.name.ok_or_else(missing)?)
        }
        (None, Key::Name(_, name)) => (Uuid::new_v4(), name),
    };
    for user in users(&admin, &name, usize::MAX)? {
        if let Err(wrong) = settings::check_with(&admin, &plugin, &user.row).await {
            let user = user.row.get("name").and_then(Value::as_str);
            let user = user.unwrap_or_default();
            let message =
                format!("the upstream '{user}' uses it with settings that do not fit: {wrong}");
            return Err(Error::field("component", message));
        }
    }
    let input = described(&name, "uploaded", upload.tags, &plugin);
    let row = KIND.declaration().create(id, input)?;
    let body = Json(Value::from(row.clone()));
    let blob = Some(upload.component);
    let write = Write::put(KIND, id, row, blob, old.map(|stored| stored.revision));
    admin.write(vec![write]).await?;
    Ok(body.into_response())
}

/// Changes the tags: all else is read from the component, and the name is what upstreams refer to.
async fn change(
    State(admin): State<Admin>,
    Path(key): Path<String>,
    request: Request,
) -> Result<Response, Error> {
    let fields = KIND.declaration().fields;
    let input = decode::fields(fields, request, super::BODY_LIMIT).await?;
    if let Some(field) = input.keys().find(|field| *field != "tags") {
        let message = "cannot be changed: only tags can; PUT replaces the component";
        return Err(Error::field(field, message));
    }
    entities::change(&admin, KIND, &Key::of(KIND, &key), &input).await
}

async fn delete(State(admin): State<Admin>, Path(key): Path<String>) -> Result<StatusCode, Error> {
    if let Some(stored) = find(&admin, KIND, &key)? {
        let name = stored.row.get("name").and_then(Value::as_str);
        let by = Kind::Upstream;
        if !users(&admin, name.unwrap_or_default(), 1)?.is_empty() {
            return Err(store::Error::StillReferenced { kind: KIND, by }.into());
        }
        not_shipped(&stored.row, "deleted")?;
        entities::delete(&admin, KIND, id_of(&stored.row)).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// The upstreams that use a balancer, up to `limit`.
fn users(admin: &Admin, name: &str, limit: usize) -> Result<Vec<Stored>, Error> {
    let uses = |upstream: &Row| upstream.get("algorithm").and_then(Value::as_str) == Some(name);
    Ok(admin.store.list(Kind::Upstream, None, limit, &uses)?)
}

fn not_shipped(row: &Row, done: &str) -> Result<(), Error> {
    if row.get("source") == Some(&"shipped".into()) {
        return Err(Error::bad_request(format!(
            "this balancer ships with the gateway and cannot be {done}: upload yours under another name"
        )));
    }
    Ok(())
}
