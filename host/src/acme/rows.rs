//! What the store has for ACME: the settings of the plugin, and the certificates with their names.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use uuid::Uuid;

use super::order::Issued;
use super::renewal_info::{self, CertificateId};
pub(super) use crate::entity::plugin::acme::TAG;
use crate::entity::plugin::{self, Plugin};
use crate::entity::sni::same_name;
use crate::entity::vault::Vault;
use crate::entity::{Kind, Row, resolve_references, view};
use crate::store::{Error, Store, Stored, Write};
use crate::tls::CertificateFacts;
use crate::vault::{self, Vaults};

/// The certificate of a name.
pub(super) enum Found {
    /// One from ACME, with the start and the end of its validity in seconds since 1970.
    Own {
        id: Uuid,
        not_before: i64,
        not_after: i64,
        /// How it is named to its authority, if it can be.
        named: Option<CertificateId>,
    },
    /// One that an operator has stored.
    Foreign(Uuid),
}

/// The settings of the plugin, which is the first of these that is enabled; none if there is none.
pub(super) fn config(
    store: &dyn Store,
    plugins: &BTreeSet<Uuid>,
) -> Result<Option<plugin::acme::Config>, String> {
    for id in plugins {
        let found = store.get(Kind::Plugin, *id);
        let Some(Stored { mut row, .. }) = found.map_err(|error| error.to_string())? else {
            continue;
        };
        resolve(store, &mut row)?;
        let plugin: Plugin = view(Kind::Plugin, row).map_err(|error| error.to_string())?;
        if plugin.enabled {
            let config = serde_json::from_value(plugin.config);
            return config.map(Some).map_err(|error| error.to_string());
        }
    }
    Ok(None)
}

/// Replaces references to vaults by their values.
fn resolve(store: &dyn Store, row: &mut Row) -> Result<(), String> {
    let fields = Kind::Plugin.declaration().fields_of(row, None);
    let vaults = store.list(Kind::Vault, None, usize::MAX, &|_| true);
    let vaults = vaults.map_err(|error| error.to_string())?.into_iter();
    let vaults = vaults.filter_map(|stored| view::<Vault>(Kind::Vault, stored.row).ok());
    let vaults: Vaults = vaults.collect();
    let mut missing = None;
    resolve_references(&fields, row, &mut |reference| {
        vault::resolve(reference, &vaults).unwrap_or_else(|why| {
            missing = Some(format!("unable to resolve reference {reference} ({why})"));
            String::new()
        })
    });
    missing.map_or(Ok(()), Err)
}

/// The names that get certificates, each once and in the form in which names are compared.
pub(super) fn names(config: &plugin::acme::Config) -> Vec<String> {
    let names = config.domains.iter().flatten();
    let mut names: Vec<String> = names.map(|name| same_name(name)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The certificate of a name, if it has one.
pub(super) fn find(store: &dyn Store, name: &str) -> Result<Option<Found>, String> {
    let read = |error: Error| error.to_string();
    let Some(stored) = certificate_of(store, name).map_err(read)? else {
        return Ok(None);
    };
    let id = id_of(&stored.row);
    if !is_own(&stored.row) {
        return Ok(Some(Found::Foreign(id)));
    }
    let text = stored.row.get("cert").and_then(Value::as_str);
    let text = text.unwrap_or_default();
    let facts = CertificateFacts::from_pem(text)?;
    Ok(Some(Found::Own {
        id,
        not_before: facts.not_before,
        not_after: facts.not_after,
        named: renewal_info::id_of(text),
    }))
}

fn certificate_of(store: &dyn Store, name: &str) -> Result<Option<Stored>, Error> {
    let Some(sni) = store.find(Kind::Sni, &["name"], &[&name.into()])? else {
        return Ok(None);
    };
    match sni.row.get("certificate").and_then(Value::as_object) {
        Some(certificate) => store.get(Kind::Certificate, id_of(certificate)),
        None => Ok(None),
    }
}

fn is_own(row: &Row) -> bool {
    let tags = row.get("tags").and_then(Value::as_array);
    tags.is_some_and(|tags| tags.iter().any(|tag| tag == TAG))
}

/// Stores a certificate: in place of the one that the name has from ACME, or as a new one with its
/// name.
pub(super) async fn store(store: &dyn Store, name: &str, issued: &Issued) -> Result<(), String> {
    let pair = json!({ "cert": issued.certificate, "key": issued.key });
    let old = certificate_of(store, name).map_err(|error| error.to_string())?;
    let writes = match old {
        Some(old) if is_own(&old.row) => {
            let pair = pair.as_object().cloned().unwrap_or_default();
            let updated = Kind::Certificate.declaration().update(&old.row, pair);
            let row = updated.map_err(|_| unusable())?;
            let id = id_of(&old.row);
            vec![Write::put(
                Kind::Certificate,
                id,
                row,
                None,
                Some(old.revision),
            )]
        }
        Some(_) => return Err("the name was given another certificate meanwhile".into()),
        None => {
            let (id, sni) = (Uuid::now_v7(), Uuid::now_v7());
            let mut certificate = pair;
            certificate["tags"] = json!([TAG]);
            let certificate = made(Kind::Certificate, id, certificate)?;
            let named = json!({ "name": name, "certificate": { "id": id }, "tags": [TAG] });
            let named = made(Kind::Sni, sni, named)?;
            vec![
                Write::put(Kind::Certificate, id, certificate, None, None),
                Write::put(Kind::Sni, sni, named, None, None),
            ]
        }
    };
    let stored = store.write(writes).await;
    stored
        .map(drop)
        .map_err(|error| format!("the certificate cannot be stored: {error}"))
}

/// A new row.
pub(super) fn made(kind: Kind, id: Uuid, input: Value) -> Result<Row, String> {
    let input = input.as_object().cloned().unwrap_or_default();
    kind.declaration().create(id, input).map_err(|_| unusable())
}

fn unusable() -> String {
    "what the authority has sent cannot be used".into()
}

/// The id of a row.
pub(super) fn id_of(row: &Row) -> Uuid {
    let id = row.get("id").and_then(Value::as_str);
    id.and_then(|id| Uuid::try_parse(id).ok())
        .unwrap_or_default()
}
