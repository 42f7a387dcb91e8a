//! Checks the settings of a balancer before an upstream gets them: they must fit the schema of the
//! version that serves, and that version itself must accept them.
//!
//! A request that makes an upstream rely on a version of a balancer also writes the balancer's row,
//! unchanged. So a promotion, a deletion and a change of an upstream's settings cannot miss each
//! other: of two requests that were checked against the same row, the store accepts one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::{Value, json};

use super::error::Error;
use super::rows::id_of;
use super::version_rows;
use crate::balancer::{self, Engine, LoadError, LoadedBalancer};
use crate::component::ComponentError;
use crate::config;
use crate::entity::{Kind, Row};
use crate::store::{Store, Write};

/// Longest time for trying out the settings of all upstreams of a balancer: each takes a
/// millisecond or so, unless the balancer is slow to take its settings.
const CHECK_TIMEOUT: Duration = Duration::from_secs(30);

/// Checks the settings of an upstream's balancer, and its pin. `promoted` is the digest of the
/// version that will be the active one, if that changes in the same step. A balancer that does not
/// exist is reported by another check. Returns what to write together with the upstream.
///
/// # Errors
/// Which field is wrong, and how.
pub(super) async fn check(
    store: &Arc<dyn Store>,
    engine: &Arc<Engine>,
    own: &config::Balancer,
    upstream: &Row,
    promoted: Option<&str>,
) -> Result<Option<Write>, Error> {
    let limits = extension(upstream, "balancer_limits");
    if let Some(wrong) = limits.and_then(|limits| exceeds(limits, own)) {
        return Err(refused("balancer_limits", wrong));
    }
    let given = extension(upstream, "balancer_config");
    let pin = extension(upstream, "balancer_version").and_then(Value::as_str);
    let algorithm = upstream.get("algorithm").cloned().unwrap_or_default();
    let Some(balancer) = store.find(Kind::Balancer, &["name"], &[&algorithm])? else {
        return match pin {
            Some(pin) => Err(no_version(&algorithm, pin)),
            None => Ok(None),
        };
    };
    let active = balancer.row.get("digest").and_then(Value::as_str);
    let digest = pin.or(promoted).or(active).unwrap_or_default();
    let id = id_of(&balancer.row);
    let version = version_rows::of_digest(&**store, id, digest)?;
    let version = version.ok_or_else(|| no_version(&algorithm, digest))?.row;
    if let Some(reason) = version_rows::not_ready(&version) {
        return Err(refused("balancer_version", reason.into()));
    }
    let schema = version.get("description");
    let schema = schema.and_then(|description| description.get("config_schema"));
    let nothing = json!({});
    let config = given.unwrap_or(&nothing);
    if let Some(schema) = schema
        && let Some(wrong) = schema_violations(engine, schema, config).await?
    {
        return Err(refused("balancer_config", wrong));
    }
    if given.is_some()
        && let Some(component) = store.blob(Kind::BalancerVersion, id_of(&version))?
    {
        let plugin = engine.load(component).await?;
        if let Some(sentence) = rejected_by_component(engine, &plugin, config).await? {
            return Err(refused("balancer_config", sentence.into()));
        }
    }
    // The active version of a shipped balancer changes only when the gateway starts.
    let shipped = balancer.row.get("source") == Some(&"shipped".into());
    Ok((pin.is_some() || !shipped).then(|| Write::Replace {
        kind: Kind::Balancer,
        id,
        row: balancer.row,
        expected: balancer.revision,
        blob: None,
    }))
}

/// Replaces pins by id with pins by digest.
pub(super) fn pin_by_digest(store: &dyn Store, upstream: &mut Row) -> Result<(), Error> {
    let Some(extension) = upstream.get_mut("pointsman") else {
        return Ok(());
    };
    for place in ["/balancer_version", "/shadow/version"] {
        if let Some(pin) = extension.pointer_mut(place)
            && let Some(id) = pin.as_str().and_then(version_rows::id)
            && let Some(version) = store.get(Kind::BalancerVersion, id)?
            && let Some(digest) = version.row.get("digest")
        {
            *pin = digest.clone();
        }
    }
    Ok(())
}

/// What a version would reject of the settings of the upstreams that follow the active version, by
/// upstream.
pub(super) async fn incompatible_upstreams(
    store: &Arc<dyn Store>,
    engine: &Arc<Engine>,
    balancer: &str,
    version: &Arc<LoadedBalancer>,
) -> Result<Row, Error> {
    let follows = |row: &Row| {
        row.get("algorithm").and_then(Value::as_str) == Some(balancer)
            && extension(row, "balancer_version").is_none()
    };
    let upstreams = store.list(Kind::Upstream, None, usize::MAX, &follows)?;
    let nothing = json!({});
    let given: Vec<Option<&Value>> = upstreams
        .iter()
        .map(|upstream| extension(&upstream.row, "balancer_config"))
        .collect();
    let settings: Vec<&Value> = given
        .iter()
        .map(|given| given.unwrap_or(&nothing))
        .collect();
    let violations = match engine.violations(&version.config_schema, &settings).await {
        Err(LoadError::Component(ComponentError::Schema(reason))) => {
            vec![Some(wrong_schema(&reason)); settings.len()]
        }
        said => said?,
    };
    let start = Instant::now();
    // Most upstreams have the same settings as others.
    let mut tried: HashMap<String, Option<Value>> = HashMap::new();
    let mut wrong = Row::new();
    for ((upstream, given), violation) in upstreams.iter().zip(given).zip(violations) {
        let message = match (violation, given) {
            (None, Some(config)) => {
                let text = config.to_string();
                match tried.get(&text) {
                    Some(known) => known.clone(),
                    None if start.elapsed() > CHECK_TIMEOUT => return Err(too_slow(&version.name)),
                    None => {
                        let said = rejected_by_component(engine, version, config)
                            .await?
                            .map(Value::from);
                        tried.insert(text, said.clone());
                        said
                    }
                }
            }
            (violation, _) => violation,
        };
        if let Some(message) = message {
            let name = upstream.row.get("name").and_then(Value::as_str);
            let wrong_here = json!({ "pointsman": { "balancer_config": message } });
            wrong.insert(name.unwrap_or_default().into(), wrong_here);
        }
    }
    Ok(wrong)
}

fn too_slow(balancer: &str) -> Error {
    let message = format!(
        "the balancer {balancer} took more than {CHECK_TIMEOUT:?} to take the settings of the \
         upstreams that follow it, and not all have been tried: make its configure quicker"
    );
    Error::Plain(StatusCode::SERVICE_UNAVAILABLE, message)
}

/// Whether an upstream uses a version by its digest, for its balancer or its shadow, whichever
/// version is active.
pub(super) fn is_pinned(store: &dyn Store, balancer: &Row, version: &Row) -> Result<bool, Error> {
    let pins = |row: &Row| {
        let (name, digest) = (balancer.get("name"), version.get("digest"));
        let own = row.get("algorithm") == name && extension(row, "balancer_version") == digest;
        let of_shadow = |field| extension(row, "shadow").and_then(|shadow| shadow.get(field));
        own || of_shadow("balancer") == name && of_shadow("version") == digest
    };
    Ok(!store.list(Kind::Upstream, None, 1, &pins)?.is_empty())
}

/// A field of the extensions beyond Kong, unless it is null.
fn extension<'r>(upstream: &'r Row, field: &str) -> Option<&'r Value> {
    let value = upstream.get("pointsman")?.get(field)?;
    Some(value).filter(|value| !value.is_null())
}

/// Why the component itself rejects settings; none if it accepts them.
pub(super) async fn rejected_by_component(
    engine: &Arc<Engine>,
    plugin: &Arc<LoadedBalancer>,
    config: &Value,
) -> Result<Option<String>, LoadError> {
    let (own, plugin) = (Arc::clone(engine), Arc::clone(plugin));
    let text = config.to_string();
    let tried = engine.aside(move || balancer::try_settings(&own, &plugin, &text));
    Ok(tried.await?.err())
}

fn no_version(balancer: &Value, version: &str) -> Error {
    refused(
        "balancer_version",
        unknown_version(balancer, version).into(),
    )
}

pub(super) fn unknown_version(balancer: &Value, version: &str) -> String {
    let name = balancer.as_str().unwrap_or_default();
    format!(
        "{version} is not a version of the balancer \"{name}\": give the digest or the id of one, or null to follow the active one"
    )
}

fn refused(field: &str, wrong: Value) -> Error {
    Error::field("pointsman", json!({ field: wrong }))
}

/// The limits that are above the gateway's own, by field; none if there are none.
fn exceeds(limits: &Value, own: &config::Balancer) -> Option<Value> {
    let own = [
        ("pick_timeout", own.pick_timeout.as_millis() as u64),
        ("pick_cost", own.pick_cost.as_micros() as u64),
        ("memory", own.memory as u64 / 1024),
        ("state", own.state as u64 / 1024),
    ];
    let above = own.into_iter().filter_map(|(name, most)| {
        let asked = limits.get(name)?.as_u64()?;
        let message =
            format!("expected {most} at most, as the gateway's setting balancer_{name} says");
        (asked > most).then(|| (name.to_owned(), message.into()))
    });
    let above: Row = above.collect();
    (!above.is_empty()).then(|| above.into())
}

/// What violates the schema in settings, by field; none if nothing does.
pub(super) async fn schema_violations(
    engine: &Engine,
    schema: &Value,
    config: &Value,
) -> Result<Option<Value>, LoadError> {
    match engine.violations(schema, &[config]).await {
        Ok(said) => Ok(said.into_iter().next().flatten()),
        Err(LoadError::Component(ComponentError::Schema(reason))) => {
            Ok(Some(wrong_schema(&reason)))
        }
        Err(error) => Err(error),
    }
}

fn wrong_schema(reason: &str) -> Value {
    format!("the balancer's own schema is wrong: {reason}").into()
}
