//! When the stored certificates end.

use std::collections::HashMap;

use parking_lot::Mutex;
use serde_json::Value;
use uuid::Uuid;

use super::super::error::Error;
use super::super::rows::id_of;
use crate::entity::Kind;
use crate::store::{Revision, Store};
use crate::tls::CertificateFacts;

/// A stored certificate.
#[derive(Debug)]
pub(super) struct CertificateFigure {
    pub(super) id: String,
    /// One of its server names; empty if it has none.
    pub(super) name: String,
    /// The last second of its validity, since 1970.
    pub(super) not_after: u64,
}

/// The ends of certificates, as far as they are known. The key is the certificate with the commit
/// that wrote it.
type Ends = HashMap<(Uuid, Revision), Option<u64>>;

/// Those that were read before, so that a scrape reads only those that are new.
static KNOWN: Mutex<Option<Ends>> = Mutex::new(None);

/// The certificates whose end is known: not those that are references to a vault.
pub(super) fn all(store: &dyn Store) -> Result<Vec<CertificateFigure>, Error> {
    let rows = store.list(Kind::Certificate, None, usize::MAX, &|_| true)?;
    let mut known = KNOWN.lock();
    let before = known.take().unwrap_or_default();
    let now: Ends = rows
        .iter()
        .map(|stored| {
            let key = (id_of(&stored.row), stored.revision);
            let read = || end_of(stored.row.get("cert"));
            (key, before.get(&key).copied().unwrap_or_else(read))
        })
        .collect();
    let mut all = Vec::new();
    for (&(id, _), &end) in &now {
        let Some(not_after) = end else {
            continue;
        };
        let names = store.list_referring(Kind::Sni, "certificate", id, None, 1)?;
        let name = names.first().and_then(|sni| sni.row.get("name")?.as_str());
        all.push(CertificateFigure {
            id: id.to_string(),
            name: name.unwrap_or_default().to_owned(),
            not_after,
        });
    }
    all.sort_by(|a, b| a.id.cmp(&b.id));
    *known = Some(now);
    Ok(all)
}

fn end_of(certificate: Option<&Value>) -> Option<u64> {
    let facts = CertificateFacts::from_pem(certificate?.as_str()?).ok()?;
    u64::try_from(facts.not_after).ok()
}
