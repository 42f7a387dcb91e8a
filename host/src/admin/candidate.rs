//! A balancer that a request names in addition to the one that serves, with settings for it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::error::Error;
use super::rows::id_of;
use super::{settings, version_rows};
use crate::balancer::{Engine, LoadError, LoadedBalancer};
use crate::entity::{Kind, Row};
use crate::store::{self, Store, Stored};

/// Why a candidate is refused.
pub(super) enum CandidateError {
    /// A field is wrong, for this reason.
    Field(&'static str, Value),
    /// Another error.
    Other(Error),
}

impl From<store::Error> for CandidateError {
    fn from(error: store::Error) -> Self {
        Self::Other(error.into())
    }
}

impl From<LoadError> for CandidateError {
    fn from(error: LoadError) -> Self {
        Self::Other(error.into())
    }
}

/// Finds the balancer that the fields `balancer`, `version` and `config` name, if any, and checks
/// the settings against its schema and with the balancer itself. Returns it with the balancer's
/// row.
pub(super) async fn find(
    store: &Arc<dyn Store>,
    engine: &Arc<Engine>,
    fields: &Row,
) -> Result<Option<(Arc<LoadedBalancer>, Stored)>, CandidateError> {
    let given = |field: &str| fields.get(field).filter(|value| !value.is_null());
    let Some(name) = given("balancer") else {
        return Ok(None);
    };
    let Some(balancer) = store.find(Kind::Balancer, &["name"], &[name])? else {
        return Err(CandidateError::Field("balancer", unknown(&**store)?.into()));
    };
    let version = version(&**store, &balancer, given("version"))?;
    if let Some(reason) = version_rows::not_ready(&version) {
        return Err(CandidateError::Field("version", reason.into()));
    }
    let nothing = json!({});
    let config = given("config").unwrap_or(&nothing);
    let schema = version.get("description");
    let schema = schema.and_then(|description| description.get("config_schema"));
    if let Some(schema) = schema
        && let Some(wrong) = settings::schema_violations(engine, schema, config).await?
    {
        return Err(CandidateError::Field("config", wrong));
    }
    let component = store.blob(Kind::BalancerVersion, id_of(&version))?;
    let Some(component) = component else {
        return Err(CandidateError::Field(
            "balancer",
            "its component is gone".into(),
        ));
    };
    let plugin = engine.load(component).await?;
    if given("config").is_some()
        && let Some(sentence) = settings::rejected_by_component(engine, &plugin, config).await?
    {
        return Err(CandidateError::Field("config", sentence.into()));
    }
    Ok(Some((plugin, balancer)))
}

/// The version of a balancer that a request names by its digest or its id, or the active one.
fn version(
    store: &dyn Store,
    balancer: &Stored,
    asked: Option<&Value>,
) -> Result<Row, CandidateError> {
    let row = &balancer.row;
    let asked = asked.or(row.get("digest")).and_then(Value::as_str);
    let asked = asked.unwrap_or_default();
    let found = match version_rows::id(asked) {
        Some(id) => {
            let link = json!({ "id": id_of(row) });
            let found = store.get(Kind::BalancerVersion, id)?;
            found.filter(|version| version.row.get("balancer") == Some(&link))
        }
        None => version_rows::of_digest(store, id_of(row), asked)?,
    };
    let name = row.get("name").cloned().unwrap_or_default();
    let unknown =
        || CandidateError::Field("version", settings::unknown_version(&name, asked).into());
    Ok(found.ok_or_else(unknown)?.row)
}

/// Lists the balancers that exist.
fn unknown(store: &dyn Store) -> Result<String, store::Error> {
    let rows = store.list(Kind::Balancer, None, 1000, &|_| true)?;
    let names = rows
        .iter()
        .filter_map(|stored| stored.row.get("name")?.as_str());
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    Ok(format!("expected one of: {}", names.join(", ")))
}
