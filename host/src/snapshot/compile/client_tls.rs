//! Certificates for connections to endpoints: those that the gateway shows, and those of the
//! authorities that it accepts.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use super::{Part, view};
use crate::entity::ca_certificate::CaCertificate;
use crate::entity::certificate::Certificate;
use crate::entity::{Kind, Row};
use crate::tls::{Authorities, ClientCertificate, Trust};

/// The certificates that the gateway shows to endpoints.
#[derive(Default)]
pub(super) struct ClientCertificates {
    rows: BTreeMap<Uuid, Row>,
    read: BTreeMap<Uuid, Arc<ClientCertificate>>,
    /// Those that were written or deleted since the last rebuild.
    changed: HashSet<Uuid>,
}

impl Part for ClientCertificates {
    fn put(&mut self, id: Uuid, row: Row) {
        self.rows.insert(id, row);
        self.changed.insert(id);
    }

    fn delete(&mut self, id: Uuid) {
        self.rows.remove(&id);
        self.changed.insert(id);
    }
}

impl ClientCertificates {
    /// The certificate with this id; none if it cannot be used.
    pub(super) fn get(&self, id: Uuid) -> Option<&Arc<ClientCertificate>> {
        self.read.get(&id)
    }

    /// Reads those that have changed. Returns their ids.
    pub(super) fn rebuild(&mut self) -> HashSet<Uuid> {
        let changed = std::mem::take(&mut self.changed);
        for id in &changed {
            match self.rows.get(id).and_then(|row| read(*id, row)) {
                Some(certificate) => self.read.insert(*id, Arc::new(certificate)),
                None => self.read.remove(id),
            };
        }
        changed
    }
}

fn read(id: Uuid, row: &Row) -> Option<ClientCertificate> {
    let certificate: Certificate = view(Kind::Certificate, id, row.clone())?;
    match ClientCertificate::from_pem(&certificate.cert, &certificate.key) {
        Ok(certificate) => Some(certificate),
        Err(why) => {
            tracing::error!(%id, "a stored certificate cannot be shown to endpoints: {why}");
            None
        }
    }
}

/// The certificates of authorities.
#[derive(Default)]
pub(super) struct CaCertificates {
    texts: BTreeMap<Uuid, String>,
    /// Those that were written or deleted since these were last taken.
    changed: HashSet<Uuid>,
}

impl Part for CaCertificates {
    fn put(&mut self, id: Uuid, row: Row) {
        self.changed.insert(id);
        let certificate: Option<CaCertificate> = view(Kind::CaCertificate, id, row);
        match certificate {
            Some(certificate) => self.texts.insert(id, certificate.cert),
            None => self.texts.remove(&id),
        };
    }

    fn delete(&mut self, id: Uuid) {
        self.changed.insert(id);
        self.texts.remove(&id);
    }
}

impl CaCertificates {
    /// Those that were written or deleted since these were last taken.
    pub(super) fn take_changed(&mut self) -> HashSet<Uuid> {
        std::mem::take(&mut self.changed)
    }

    /// Accepts the certificates of these authorities. If one of them cannot be used, none is
    /// accepted: the rest could be more than the operator meant to trust.
    pub(super) fn trust(&self, ids: &[Uuid], service: &str) -> Trust {
        let text = |id: &Uuid| {
            let text = self.texts.get(id).cloned();
            text.ok_or_else(|| format!("there is no CA certificate {id}"))
        };
        let texts: Result<Vec<String>, String> = ids.iter().map(text).collect();
        let authorities = texts.and_then(|texts| Authorities::parse(&texts));
        let authorities = authorities.unwrap_or_else(|why| {
            tracing::error!(service, "no certificate authority is trusted: {why}");
            Authorities::none()
        });
        Trust::Only(Arc::new(authorities))
    }
}
