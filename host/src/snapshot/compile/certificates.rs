//! Certificates, and the server names that they are shown for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::policies::Vaults;
use super::{Part, view};
use crate::entity::certificate::Certificate;
use crate::entity::sni::{Sni, same_name};
use crate::entity::{Kind, Row, has_references};
use crate::tls::{NamedCertificate, PemPair, ServerCertificate, ServerNames};

/// The certificates, and the server names that they are shown for.
#[derive(Default)]
pub(super) struct Certificates {
    pub(super) names: Names,
    /// Those that can be used, and the others as none.
    usable: BTreeMap<Uuid, NamedCertificate>,
    /// The rows with references to vaults.
    with_references: BTreeMap<Uuid, Row>,
    /// Those of these rows whose references are not resolved yet.
    unresolved: BTreeSet<Uuid>,
    /// The vaults as they were when references were last resolved.
    vaults_seen: u64,
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
        if has_references(Kind::Certificate, &row) {
            self.with_references.insert(id, row);
            self.unresolved.insert(id);
        } else {
            self.forget_references(id);
            self.compile(id, row);
        }
    }

    fn delete(&mut self, id: Uuid) {
        self.forget_references(id);
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
    pub(super) fn rebuild(&mut self, vaults: &Vaults) -> bool {
        let mut unresolved = std::mem::take(&mut self.unresolved);
        if std::mem::replace(&mut self.vaults_seen, vaults.changes()) != vaults.changes() {
            unresolved.extend(self.with_references.keys());
        }
        for id in unresolved {
            if let Some(mut row) = self.with_references.get(&id).cloned() {
                vaults.resolve(Kind::Certificate, id, &mut row);
                self.compile(id, row);
            }
        }
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

    fn forget_references(&mut self, id: Uuid) {
        self.with_references.remove(&id);
        self.unresolved.remove(&id);
    }

    /// Compiles a row without references. The Admin API accepts only pairs that fit, so a pair that
    /// does not comes from a vault.
    fn compile(&mut self, id: Uuid, row: Row) {
        let certificate = view::<Certificate>(Kind::Certificate, id, row);
        let usable = certificate.and_then(|certificate| {
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
        });
        self.usable.insert(id, usable);
        self.changed.insert(id);
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
        let vaults = Vaults::default();
        part.put(ID(1), certificate(ID(1)));
        part.names.put(ID(2), name(ID(2), "A.example.", ID(1)));
        assert!(part.rebuild(&vaults));
        let found = |part: &Certificates, name| part.compiled.find(name).cloned().flatten();
        let first = found(&part, "a.example").unwrap();
        assert!(!part.rebuild(&vaults));

        part.put(ID(1), certificate(ID(1)));
        assert!(part.rebuild(&vaults));
        assert!(!Arc::ptr_eq(&first, &found(&part, "a.example").unwrap()));

        // Another row takes over the name, in one commit.
        part.put(ID(3), certificate(ID(3)));
        part.names.put(ID(4), name(ID(4), "a.example", ID(3)));
        part.names.put(ID(2), name(ID(2), "b.example", ID(1)));
        assert!(part.rebuild(&vaults));
        assert!(found(&part, "a.example").is_some() && found(&part, "b.example").is_some());

        part.names.delete(ID(4));
        part.delete(ID(3));
        assert!(part.rebuild(&vaults));
        assert!(part.compiled.find("a.example").is_none());
    }

    #[test]
    fn a_certificate_that_cannot_be_used_is_found_as_such() {
        let mut part = Certificates::default();
        let vault = "{vault://env/no-such-variable}";
        let referring = json!({ "id": ID(1), "cert": vault, "key": vault });
        part.put(ID(1), row(referring));
        part.names.put(ID(2), name(ID(2), "a.example", ID(1)));
        assert!(part.rebuild(&Vaults::default()));
        assert!(part.compiled.find("a.example").unwrap().is_none());
    }
}
