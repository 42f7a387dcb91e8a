//! Certificates, and the server names that they are shown for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::{Part, view};
use crate::entity::certificate::Certificate;
use crate::entity::sni::{Sni, same_name};
use crate::entity::{Kind, Row};
use crate::tls::{NamedCertificate, PemPair, ServerCertificate, ServerNames};

/// The certificates, and the server names that they are shown for.
#[derive(Default)]
pub(super) struct Certificates {
    pub(super) names: Names,
    /// Those that can be used, and the others as none.
    usable: BTreeMap<Uuid, NamedCertificate>,
    /// Those that have changed since the last rebuild.
    changed: BTreeSet<Uuid>,
    compiled: ServerNames,
}

/// The server names.
#[derive(Default)]
pub(super) struct Names {
    /// The certificate of each name, by the id of the name.
    all: BTreeMap<Uuid, (Arc<str>, Uuid)>,
    /// The names of each certificate.
    of_certificate: BTreeMap<Uuid, BTreeSet<Uuid>>,
    /// Names that were deleted, or whose row has another name now.
    removed: Vec<Arc<str>>,
    /// Those that were written since the last rebuild.
    written: BTreeSet<Uuid>,
}

impl Part for Certificates {
    fn put(&mut self, id: Uuid, row: Row) {
        self.usable.insert(id, read(id, row));
        self.changed.insert(id);
    }

    fn delete(&mut self, id: Uuid) {
        self.usable.remove(&id);
        self.changed.insert(id);
    }
}

impl Part for Names {
    fn put(&mut self, id: Uuid, row: Row) {
        self.delete(id);
        if let Some(sni) = view::<Sni>(Kind::Sni, id, row) {
            let name = same_name(&sni.name);
            let certificate = sni.certificate.id;
            self.all.insert(id, (name.into(), certificate));
            let names = self.of_certificate.entry(certificate).or_default();
            names.insert(id);
            self.written.insert(id);
        }
    }

    fn delete(&mut self, id: Uuid) {
        if let Some((name, certificate)) = self.all.remove(&id) {
            self.removed.push(name);
            if let Some(names) = self.of_certificate.get_mut(&certificate) {
                names.remove(&id);
                if names.is_empty() {
                    self.of_certificate.remove(&certificate);
                }
            }
        }
        self.written.remove(&id);
    }
}

impl Certificates {
    /// Which certificate a client is shown for a server name.
    pub(super) fn compiled(&self) -> &ServerNames {
        &self.compiled
    }

    /// Brings the server names up to date. Returns whether they have changed.
    pub(super) fn rebuild(&mut self) -> bool {
        let removed = std::mem::take(&mut self.names.removed);
        let mut written = std::mem::take(&mut self.names.written);
        for certificate in std::mem::take(&mut self.changed) {
            written.extend(
                self.names
                    .of_certificate
                    .get(&certificate)
                    .into_iter()
                    .flatten(),
            );
        }
        let is_changed = !removed.is_empty() || !written.is_empty();
        // Removed first: another row may have taken over the name.
        for name in removed {
            self.compiled.remove(&name);
        }
        for id in written {
            if let Some((name, certificate)) = self.names.all.get(&id) {
                let certificate = self.usable.get(certificate).cloned().flatten();
                self.compiled.insert(Arc::clone(name), certificate);
            }
        }
        is_changed
    }

    /// Takes over other values of vaults. Returns whether they can be used; if not, the certificate
    /// in effect stays: of its files, only one may have been replaced yet.
    pub(super) fn replace(&mut self, id: Uuid, row: Row) -> bool {
        let usable = read(id, row);
        let is_usable = usable.is_some();
        if is_usable || self.usable.get(&id).is_none_or(Option::is_none) {
            self.usable.insert(id, usable);
            self.changed.insert(id);
        }
        is_usable
    }
}

/// Reads a row without references. The Admin API accepts only pairs that fit, so a pair that does
/// not comes from a vault.
fn read(id: Uuid, row: Row) -> NamedCertificate {
    let certificate = view::<Certificate>(Kind::Certificate, id, row)?;
    let first = PemPair {
        certificate: &certificate.cert,
        key: &certificate.key,
        ocsp_response: certificate.pointsman.ocsp_response.as_deref(),
    };
    let alternative = certificate.cert_alt.as_deref();
    let alternative = alternative.zip(certificate.key_alt.as_deref());
    let alternative = alternative.map(|(alternative, key)| PemPair {
        certificate: alternative,
        key,
        ocsp_response: certificate.pointsman.ocsp_response_alt.as_deref(),
    });
    match ServerCertificate::from_pem([first].into_iter().chain(alternative)) {
        Ok(usable) => Some(Arc::new(usable)),
        Err(why) => {
            tracing::error!(%id, "a certificate cannot be used: {why}");
            None
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use serde_json::{Value, json};

    use super::*;

    fn row(value: Value) -> Row {
        value.as_object().cloned().unwrap()
    }

    fn certificate(id: Uuid) -> Row {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let cert = params.self_signed(&key).unwrap();
        row(json!({ "id": id, "cert": cert.pem(), "key": key.serialize_pem() }))
    }

    fn name(id: Uuid, name: &str, certificate: Uuid) -> Row {
        row(json!({ "id": id, "name": name, "certificate": { "id": certificate } }))
    }

    const ID: fn(u128) -> Uuid = Uuid::from_u128;

    #[test]
    fn a_name_leads_to_the_newest_certificate() {
        let mut part = Certificates::default();
        part.put(ID(1), certificate(ID(1)));
        part.names.put(ID(2), name(ID(2), "A.example.", ID(1)));
        assert!(part.rebuild());
        let found = |part: &Certificates, name| part.compiled.find(name).cloned().flatten();
        let first = found(&part, "a.example").unwrap();
        assert!(!part.rebuild());

        part.put(ID(1), certificate(ID(1)));
        assert!(part.rebuild());
        assert!(!Arc::ptr_eq(&first, &found(&part, "a.example").unwrap()));

        // Another row takes over the name, in one commit.
        part.put(ID(3), certificate(ID(3)));
        part.names.put(ID(4), name(ID(4), "a.example", ID(3)));
        part.names.put(ID(2), name(ID(2), "b.example", ID(1)));
        assert!(part.rebuild());
        assert!(found(&part, "a.example").is_some() && found(&part, "b.example").is_some());

        part.names.delete(ID(4));
        part.delete(ID(3));
        assert!(part.rebuild());
        assert!(part.compiled.find("a.example").is_none());
    }

    #[test]
    fn a_certificate_that_cannot_be_used_is_found_as_such() {
        let mut part = Certificates::default();
        let without_values = json!({ "id": ID(1), "cert": "", "key": "" });
        part.put(ID(1), row(without_values));
        part.names.put(ID(2), name(ID(2), "a.example", ID(1)));
        assert!(part.rebuild());
        assert!(part.compiled.find("a.example").unwrap().is_none());
    }

    #[test]
    fn values_that_do_not_fit_leave_the_certificate_in_effect() {
        let mut part = Certificates::default();
        part.names.put(ID(2), name(ID(2), "a.example", ID(1)));
        let (first, second) = (certificate(ID(1)), certificate(ID(1)));
        assert!(part.replace(ID(1), first.clone()));
        assert!(part.rebuild());
        let shown = |part: &Certificates| part.compiled.find("a.example").cloned().unwrap();
        let in_effect = shown(&part).unwrap();

        // The file of the key has been replaced, that of the certificate not yet.
        let mut halfway = first;
        halfway.insert("key".into(), second["key"].clone());
        assert!(!part.replace(ID(1), halfway.clone()));
        assert!(!part.rebuild());
        assert!(Arc::ptr_eq(&in_effect, &shown(&part).unwrap()));

        assert!(part.replace(ID(1), second));
        assert!(part.rebuild());
        assert!(!Arc::ptr_eq(&in_effect, &shown(&part).unwrap()));

        // A row that was written anew has nothing to fall back to.
        part.delete(ID(1));
        assert!(!part.replace(ID(1), halfway));
        assert!(part.rebuild());
        assert!(shown(&part).is_none());
    }
}
