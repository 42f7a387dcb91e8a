//! Balancers: components are uploaded, shown and deleted here.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use uuid::Uuid;

use super::arguments::Path;
use super::conditional::Conditions;
use super::current::{Freshness, catch_up_to_newest};
use super::error::Error;
use super::key::Key;
use super::page::Page;
use super::rows::{TRIES, check_unnamed, conflict, find, id_of, look_up, to_delete};
use super::version_rows::not_shipped;
use super::writes;
use super::{Admin, activation, canary_state, changes, decode, settings, upload, version_rows};
use crate::balancer::{Engine, LoadError, LoadedBalancer, SHIPPED, Shipped};
use crate::component::ComponentError;
use crate::entity::{Kind, Row};
use crate::store::{self, Store, Write};

const KIND: Kind = Kind::Balancer;

/// Figures of a balancer that are shown under both their new and their old name.
const RENAMED: [(&str, &str); 2] = [
    ("fallback_picks", "host_choices"),
    ("fallback_picks_by_kind", "host_choices_by_kind"),
];

impl From<LoadError> for Error {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Component(ComponentError::Internal(cause)) => {
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

pub(super) fn endpoints() -> [super::ApiEndpoint; 4] {
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
        (
            "/schemas/balancers/{key}".into(),
            get(schema),
            "GET, HEAD, OPTIONS",
        ),
    ]
}

/// Stores the balancers that ship with the gateway as ordinary entities, in the version that this
/// gateway ships. Returns the default one.
///
/// # Errors
/// If one does not load, or the store fails.
pub async fn install_shipped(
    store: &Arc<dyn Store>,
    engine: &Arc<Engine>,
) -> anyhow::Result<Arc<LoadedBalancer>> {
    let mut default = None;
    // The first start has to compile all of them: as many at a time as there are processors.
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    let mut loading = stream::iter(SHIPPED)
        .map(|shipped| async move {
            let component = Bytes::from_static(shipped.component);
            (shipped, engine.load_shipped(component).await)
        })
        .buffered(at_once);
    while let Some((shipped, loaded)) = loading.next().await {
        let plugin = loaded?;
        install(store, engine, shipped, &plugin)
            .await
            .map_err(|error| anyhow::anyhow!("cannot install {}: {error:?}", shipped.name))?;
        default.get_or_insert(plugin);
    }
    default.ok_or_else(|| anyhow::anyhow!("no balancer ships with this gateway"))
}

/// Adds a shipped component as a version, and makes it active. A balancer that an operator has
/// uploaded under the same name is kept. Other gateways that share the store may do the same at the
/// same time. If the store cannot be written now, the gateway starts with the balancers that it
/// has.
async fn install(
    store: &Arc<dyn Store>,
    engine: &Arc<Engine>,
    shipped: &Shipped,
    plugin: &Arc<LoadedBalancer>,
) -> Result<(), Error> {
    for _ in 0..TRIES {
        let writes = installation(store, engine, shipped, plugin).await?;
        if writes.is_empty() {
            return Ok(());
        }
        match store.write(writes).await {
            Ok(_) => return Ok(()),
            Err(
                store::Error::PrimaryKeyTaken { .. }
                | store::Error::UniqueKeyTaken { .. }
                | store::Error::Changed { .. },
            ) => {}
            Err(store::Error::Unavailable(reason)) if has_any(store)? => {
                tracing::warn!(balancer = shipped.name, "it is not installed: {reason}");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(conflict(KIND))
}

/// Whether any balancer is stored, so that the gateway can start with those.
fn has_any(store: &Arc<dyn Store>) -> Result<bool, Error> {
    Ok(!store.list(KIND, None, 1, &|_| true)?.is_empty())
}

/// The writes of [`install`]; none if there is nothing to do.
async fn installation(
    store: &Arc<dyn Store>,
    engine: &Arc<Engine>,
    shipped: &Shipped,
    plugin: &Arc<LoadedBalancer>,
) -> Result<Vec<Write>, Error> {
    let known = store.find(KIND, &["name"], &[&shipped.name.into()])?;
    if let Some(known) = &known {
        if known.row.get("source") != Some(&"shipped".into()) {
            tracing::warn!(
                balancer = shipped.name,
                "this version of the gateway ships a balancer of this name; the uploaded one stays: \
                 delete it, and the next start installs the shipped one"
            );
            return Ok(Vec::new());
        }
        let has_imports = known.row.get("imports").is_some_and(Value::is_array);
        if known.row.get("digest") == Some(&plugin.digest.as_str().into()) && has_imports {
            return Ok(Vec::new());
        }
        for (upstream, wrong) in
            settings::incompatible_upstreams(store, engine, shipped.name, plugin).await?
        {
            tracing::warn!(
                upstream,
                "the settings do not fit the new version of {}, which ships with this gateway: {wrong}",
                shipped.name
            );
        }
    }
    let id = known.as_ref().map_or_else(Uuid::new_v4, |s| id_of(&s.row));
    let component = Bytes::from_static(shipped.component);
    let version = activation::ready_version(&**store, id, plugin, component)?;
    let tags = known.as_ref().and_then(|known| known.row.get("tags"));
    let fields = fields(shipped.name, "shipped", tags.cloned().unwrap_or_default());
    let (_, writes) = activation::activation(id, known.as_ref(), fields, version, None)?;
    Ok(writes)
}

/// The fields of a balancer that are not read from a component.
fn fields(name: &str, source: &str, tags: Value) -> Row {
    Row::from_iter([
        ("name".to_owned(), name.into()),
        ("source".to_owned(), source.into()),
        ("tags".to_owned(), tags),
    ])
}

async fn list(State(admin): State<Admin>, request: Request) -> Result<Response, Error> {
    let page = Page::of(request.uri().query())?;
    let filter = page.filter()?;
    let rows = admin
        .store
        .list(KIND, page.first()?, page.size + 1, &*filter)?;
    let answer = page.answer(request.uri().path(), rows, true, |row| Ok(Some(row)))?;
    Ok(Json(answer).into_response())
}

async fn show(State(admin): State<Admin>, Path(key): Path<String>) -> Result<Response, Error> {
    let mut row = find(&admin, KIND, &key)?.ok_or_else(Error::not_found)?.row;
    let versions = version_rows::all(&*admin.store, id_of(&row))?;
    let digests = versions
        .iter()
        .filter_map(|version| version.row.get("digest"));
    let name = row.get("name").cloned().unwrap_or_default();
    let usage = usage(&admin, &name, &digests.collect::<Vec<_>>())?;
    row.insert("usage".into(), usage);
    if let Some(canary) = canary_state::shown(&admin, &row) {
        row.insert("canary".into(), canary);
    }
    Ok(Json(Value::from(row)).into_response())
}

/// The counters of a balancer, by the upstreams that name it and are served by one of its versions.
fn usage(admin: &Admin, name: &Value, digests: &[&Value]) -> Result<Value, Error> {
    let (_, snapshot) = admin.published.current();
    // A balancer of another name may have the same component.
    let names = |row: &Row| row.get("algorithm") == Some(name);
    let users = admin.store.list(Kind::Upstream, None, usize::MAX, &names)?;
    let mut usage = Row::new();
    for stored in users {
        let Some(upstream) = snapshot.upstreams.get(&id_of(&stored.row)) else {
            continue;
        };
        let balancer = upstream.balancer();
        let digest = Value::from(balancer.plugin().digest.as_str());
        if digests.contains(&&digest) {
            let mut counted = json!(balancer.counters());
            counted["version"] = digest;
            // The old names stay for one release.
            for (new, old) in RENAMED {
                counted[old] = counted[new].clone();
            }
            usage.insert(upstream.name.to_string(), counted);
        }
    }
    Ok(usage.into())
}

/// The component of a version of a balancer, by its digest.
pub(super) fn component_of(
    admin: &Admin,
    name: &str,
    digest: &str,
) -> Result<Option<Bytes>, Error> {
    let Some(balancer) = admin.store.find(KIND, &["name"], &[&name.into()])? else {
        return Ok(None);
    };
    let version = version_rows::of_digest(&*admin.store, id_of(&balancer.row), digest)?;
    match version {
        Some(version) => Ok((admin.store).blob(Kind::BalancerVersion, id_of(&version.row))?),
        None => Ok(None),
    }
}

async fn component(State(admin): State<Admin>, Path(key): Path<String>) -> Result<Response, Error> {
    let row = find(&admin, KIND, &key)?.ok_or_else(Error::not_found)?.row;
    let active = row.get("digest").and_then(Value::as_str);
    let active = version_rows::of_digest(&*admin.store, id_of(&row), active.unwrap_or_default())?;
    let active = active.ok_or_else(Error::not_found)?.row;
    let blob = admin.store.blob(Kind::BalancerVersion, id_of(&active))?;
    let blob = blob.ok_or_else(Error::not_found)?;
    Ok(([(CONTENT_TYPE, "application/wasm")], blob).into_response())
}

/// The JSON Schema of the settings that upstreams may have for a balancer.
async fn schema(State(admin): State<Admin>, Path(key): Path<String>) -> Result<Json<Value>, Error> {
    let row = find(&admin, KIND, &key)?.ok_or_else(Error::not_found)?.row;
    let schema = row.get("description").and_then(|d| d.get("config_schema"));
    Ok(Json(schema.cloned().ok_or_else(Error::not_found)?))
}

async fn create(State(admin): State<Admin>, request: Request) -> Result<Response, Error> {
    let upload = upload::read(&admin, request).await?;
    let name = upload
        .name
        .ok_or_else(|| Error::field("name", "required field missing"))?;
    let plugin = admin.engine.load(upload.component.clone()).await?;
    let id = Uuid::new_v4();
    let version = activation::ready_version(&*admin.store, id, &plugin, upload.component)?;
    let fields = fields(&name, "uploaded", upload.tags);
    let (row, writes) = activation::activation(id, None, fields, version, None)?;
    admin.write(writes).await?;
    changes::log(&admin, KIND, &row, &uploaded("created", &row));
    Ok((StatusCode::CREATED, Json(Value::from(row))).into_response())
}

/// Makes another component the active version of a balancer: every upstream that follows it
/// switches.
async fn replace(
    State(admin): State<Admin>,
    Path(key): Path<String>,
    request: Request,
) -> Result<Response, Error> {
    let upload = upload::read(&admin, request).await?;
    let plugin = admin.engine.load(upload.component.clone()).await?;
    for _ in 0..TRIES {
        let old = find(&admin, KIND, &key)?;
        let (id, name) = match (&old, Key::of(KIND, &key)?) {
            (Some(old), _) => {
                not_shipped(&old.row, "replaced")?;
                let name = old.row.get("name").and_then(Value::as_str);
                (id_of(&old.row), name.unwrap_or(&key).to_owned())
            }
            (None, Key::Id(id)) => {
                let missing = || Error::field("name", "required field missing");
                (id, upload.name.clone().ok_or_else(missing)?)
            }
            (None, Key::Name(_, name)) => (Uuid::new_v4(), name),
        };
        let incompatible =
            settings::incompatible_upstreams(&admin.store, &admin.engine, &name, &plugin).await?;
        if !incompatible.is_empty() {
            return Err(Error::field("upstreams", incompatible));
        }
        let component = upload.component.clone();
        let version = activation::ready_version(&*admin.store, id, &plugin, component)?;
        let fields = fields(&name, "uploaded", upload.tags.clone());
        let figures = old
            .as_ref()
            .and_then(|old| canary_state::figures(&admin, &old.row));
        let (row, writes) = activation::activation(id, old.as_ref(), fields, version, figures)?;
        if version_rows::written(&admin, writes).await? {
            let done = if old.is_some() { "replaced" } else { "created" };
            changes::log(&admin, KIND, &row, &uploaded(done, &row));
            return Ok(Json(Value::from(row)).into_response());
        }
    }
    Err(conflict(KIND))
}

/// What an upload did to a balancer, for the log.
fn uploaded(done: &str, balancer: &Row) -> String {
    let digest = version_rows::text(balancer, "digest");
    format!("{done} by an upload, with the version {digest} active")
}

/// Changes the tags. All other fields are read from the component, and upstreams refer to the name.
async fn change(
    State(admin): State<Admin>,
    Path(key): Path<String>,
    request: Request,
) -> Result<Response, Error> {
    let conditions = Conditions::of(request.headers());
    let fields = KIND.declaration().fields;
    let input = decode::fields(fields, request, super::BODY_LIMIT).await?;
    if let Some(field) = input.keys().find(|field| *field != "tags") {
        let message = "cannot be changed: only tags can; PUT replaces the component";
        return Err(Error::field(field, message));
    }
    writes::change(&admin, KIND, &Key::of(KIND, &key)?, &input, &conditions).await
}

async fn delete(State(admin): State<Admin>, Path(key): Path<String>) -> Result<StatusCode, Error> {
    let key = Key::of(KIND, &key)?;
    let head = admin.store.head();
    let mut found = look_up(&admin, KIND, &key);
    if matches!(found, Ok(None))
        && admin.store.nodes().is_some()
        && catch_up_to_newest(&*admin.store, head).await? == Freshness::CaughtUp
    {
        found = look_up(&admin, KIND, &key);
    }
    if let Err(store::Error::SetAside { .. }) = found {
        if let Some(id) = to_delete(found)? {
            writes::delete(&admin, KIND, id).await?;
        }
        return Ok(StatusCode::NO_CONTENT);
    }
    if let Some(stored) = found? {
        // Checked first, for a shipped balancer as well: the upstreams that use it have to change
        // before it can be deleted.
        let name = stored.row.get("name").and_then(Value::as_str);
        let uses = |row: &Row| row.get("algorithm").and_then(Value::as_str) == name;
        let users = admin.store.list(Kind::Upstream, None, 1, &uses)?;
        if let Some(user) = users.first() {
            let error = store::Error::StillReferenced {
                kind: KIND,
                id: id_of(&stored.row),
                by: Kind::Upstream,
                referrer: id_of(&user.row),
            };
            return Err(error.into());
        }
        not_shipped(&stored.row, "deleted")?;
        writes::delete(&admin, KIND, id_of(&stored.row)).await?;
    } else {
        check_unnamed(&admin, KIND, &key)?;
    }
    Ok(StatusCode::NO_CONTENT)
}
