//! Making a version of a balancer the active one.

use bytes::Bytes;
use serde_json::Value;
use uuid::Uuid;

use super::error::Error;
use super::rows::id_of;
use super::version_rows::{not_ready, of_digest, text, written};
use super::{Admin, canary_state, intake, settings};
use crate::balancer::LoadedBalancer;
use crate::clock;
use crate::entity::{Kind, Row, Violation};
use crate::store::{Revision, Store, Stored, Write};

const KIND: Kind = Kind::BalancerVersion;

/// The fields that a balancer copies from its active version.
const COPIED: [&str; 5] = ["digest", "size", "description", "exports", "imports"];

/// Makes an existing version active. Returns the balancer, or none if it has changed meanwhile.
pub(super) async fn switch(
    admin: &Admin,
    balancer: &Stored,
    version: Stored,
) -> Result<Option<Row>, Error> {
    if version.row.get("digest") == balancer.row.get("digest") {
        return Ok(Some(balancer.row.clone()));
    }
    check_fit(admin, &balancer.row, &version.row).await?;
    let version = ReadyVersion {
        row: version.row,
        revision: Some(version.revision),
        component: None,
    };
    let id = id_of(&balancer.row);
    let figures = canary_state::figures(admin, &balancer.row);
    let (row, writes) = activation(id, Some(balancer), Row::new(), version, figures)?;
    Ok(written(admin, writes).await?.then_some(row))
}

/// The writes that make an existing version active, and give the balancer these other fields.
pub(super) fn switch_writes(
    balancer: &Stored,
    version: Stored,
    fields: Row,
) -> Result<Vec<Write>, Violation> {
    let version = ReadyVersion {
        row: version.row,
        revision: Some(version.revision),
        component: None,
    };
    let (_, writes) = activation(id_of(&balancer.row), Some(balancer), fields, version, None)?;
    Ok(writes)
}

/// Checks that a version can choose for all upstreams that follow its balancer.
pub(super) async fn check_fit(admin: &Admin, balancer: &Row, version: &Row) -> Result<(), Error> {
    if let Some(reason) = not_ready(version) {
        return Err(Error::bad_request(reason));
    }
    let component = admin.store.blob(KIND, id_of(version))?;
    let component = component.ok_or_else(Error::not_found)?;
    let plugin = admin.engine.load(component).await?;
    let name = text(balancer, "name");
    let incompatible =
        settings::incompatible_upstreams(&admin.store, &admin.engine, name, &plugin).await?;
    if incompatible.is_empty() {
        Ok(())
    } else {
        Err(Error::field("upstreams", incompatible))
    }
}

/// A version that is ready, with what is needed to write its row.
pub(super) struct ReadyVersion {
    row: Row,
    /// None for a new version.
    revision: Option<Revision>,
    component: Option<Bytes>,
}

/// The version of a balancer that has this component, or a new one for it.
pub(super) fn ready_version(
    store: &dyn Store,
    balancer: Uuid,
    plugin: &LoadedBalancer,
    component: Bytes,
) -> Result<ReadyVersion, Error> {
    let facts = intake::facts(Ok(plugin));
    Ok(match of_digest(store, balancer, &plugin.digest)? {
        Some(known) => ReadyVersion {
            row: KIND.declaration().update(&known.row, facts)?,
            revision: Some(known.revision),
            component: None,
        },
        None => ReadyVersion {
            row: intake::row(balancer, &plugin.digest, component.len(), facts)?,
            revision: None,
            component: Some(component),
        },
    })
}

/// A balancer with this version active, and the writes that make it so, to be stored in one step.
/// `fields` are the other fields of the balancer to write, `figures` those of the canary that this
/// ends.
pub(super) fn activation(
    id: Uuid,
    old: Option<&Stored>,
    fields: Row,
    version: ReadyVersion,
    figures: Option<Value>,
) -> Result<(Row, Vec<Write>), Violation> {
    let mut input = fields;
    for field in COPIED {
        let value = version.row.get(field).cloned().unwrap_or_default();
        input.insert(field.into(), value);
    }
    let before = old.and_then(|old| old.row.get("digest"));
    let stays = before.is_some_and(|before| version.row.get("digest") == Some(before));
    if let (Some(before), false) = (before, stays) {
        input.insert("previous_digest".into(), before.clone());
    }
    if let (Some(old), false) = (old, stays)
        && let Some(canary) =
            canary_state::ended_by(&old.row, text(&version.row, "digest"), figures)
    {
        input.insert("canary".into(), canary.into());
    }
    let declaration = Kind::Balancer.declaration();
    let row = match old {
        Some(old) => declaration.update(&old.row, input)?,
        None => declaration.create(id, input)?,
    };
    let version_row = if stays {
        version.row
    } else {
        let promoted = Row::from_iter([("promoted_at".to_owned(), clock::unix_seconds().into())]);
        KIND.declaration().update(&version.row, promoted)?
    };
    let old = old.map(|old| old.revision);
    let version_id = id_of(&version_row);
    let writes = vec![
        Write::put(Kind::Balancer, id, row.clone(), None, old),
        Write::put(
            KIND,
            version_id,
            version_row,
            version.component,
            version.revision,
        ),
    ];
    Ok((row, writes))
}
