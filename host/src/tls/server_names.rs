//! Which certificate a client is shown for the server name that it asks for. Source: Kong 3.9,
//! `kong.runloop.certificate`.

use std::sync::Arc;

use super::ServerCertificate;
use crate::shared_map::SharedMap;

/// Certificates by server name. A copy shares nearly everything with the map that it is a copy of.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServerNames(SharedMap<Arc<str>, NamedCertificate>);

/// The certificate of a name; none if it cannot be used, and then handshakes fail.
pub(crate) type NamedCertificate = Option<Arc<ServerCertificate>>;

impl ServerNames {
    /// Sets the certificate of a name in lower case, whose first or last label may be `*`.
    pub(crate) fn insert(&mut self, name: Arc<str>, certificate: NamedCertificate) {
        self.0.insert(name, certificate);
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// The certificate for a server name in lower case: that of the name itself, else of the name
    /// with `*` in place of its first label, in place of its last label, or of `*` alone. A `*`
    /// stands for one label, and in front of two labels at least. None if there is none of these.
    pub(crate) fn find(&self, name: &str) -> Option<&NamedCertificate> {
        if self.0.is_empty() {
            return None;
        }
        let name = name.strip_suffix('.').unwrap_or(name);
        if let Some(found) = self.0.get(name) {
            return Some(found);
        }
        if let Some((_, parent)) = name.split_once('.')
            && parent.contains('.')
            && let Some(found) = self.0.get(&*format!("*.{parent}"))
        {
            return Some(found);
        }
        if let Some((start, _)) = name.rsplit_once('.')
            && let Some(found) = self.0.get(&*format!("{start}.*"))
        {
            return Some(found);
        }
        self.0.get("*")
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    /// Names with certificates that tell them apart by their number of pairs.
    fn names(names: &[&str]) -> ServerNames {
        let mut all = ServerNames::default();
        for name in names {
            let certificate = ServerCertificate::from_pem([] as [(&str, &str); 0]).unwrap();
            all.insert((*name).into(), Some(Arc::new(certificate)));
        }
        all
    }

    /// The name whose certificate is found.
    fn found<'n>(all: &ServerNames, known: &[&'n str], name: &str) -> Option<&'n str> {
        let found = all.find(name)?.as_ref().unwrap();
        let is_it = |known: &&&str| {
            let certificate = all.0.get(**known).unwrap().as_ref().unwrap();
            Arc::ptr_eq(certificate, found)
        };
        known.iter().find(is_it).copied()
    }

    #[test]
    fn the_closest_name_wins_in_kongs_order() {
        let known = ["a.b.example", "*.b.example", "a.c.*", "example.*", "*"];
        let all = names(&known);
        for (name, expected) in [
            ("a.b.example", "a.b.example"),
            ("a.b.example.", "a.b.example"),
            ("x.b.example", "*.b.example"),
            ("a.c.example", "a.c.*"),
            ("example.com", "example.*"),
            // A `*` stands for one label only.
            ("x.y.b.example", "*"),
            ("example.co.uk", "*"),
            ("b.example", "*"),
            ("localhost", "*"),
        ] {
            assert_eq!(found(&all, &known, name), Some(expected), "{name}");
        }
    }

    #[test]
    fn a_star_stands_in_front_of_two_labels_at_least() {
        let known = ["*.example"];
        assert_eq!(found(&names(&known), &known, "a.example"), None);
        assert!(ServerNames::default().find("a.example").is_none());
    }

    #[test]
    fn a_name_without_a_usable_certificate_is_found_as_such() {
        let mut all = ServerNames::default();
        all.insert("a.example".into(), None);
        assert!(all.find("a.example").unwrap().is_none());
        all.remove("a.example");
        assert!(all.find("a.example").is_none());
    }
}
