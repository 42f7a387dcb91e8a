//! The etcd that several gateways share.

use std::fmt;
use std::path::PathBuf;

use url::Url;

/// Where the shared configuration is, and how this gateway identifies itself.
#[derive(Clone, Default)]
pub struct Etcd {
    /// The members of etcd; at least one.
    pub endpoints: Vec<EtcdEndpoint>,
    /// What the keys of this configuration begin with; it ends with a slash.
    pub prefix: String,
    /// The user of etcd; empty for none.
    pub user: String,
    /// The password of the user.
    pub password: String,
    /// The certificates of the authorities that are accepted: a path, PEM, or PEM in base64. Those
    /// of the system if there are none.
    pub ca: Option<String>,
    /// The certificate that is shown to etcd: a path, PEM, or PEM in base64.
    pub cert: Option<String>,
    /// The key of that certificate, in the same forms.
    pub cert_key: Option<String>,
    /// The file with the keys with which rows are sealed.
    pub keyring: Option<PathBuf>,
}

/// A member of etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdEndpoint {
    /// A name or an address; an IPv6 address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

/// The port of etcd's clients. Source: IANA, `etcd-client`.
const PORT: u16 = 2379;

impl EtcdEndpoint {
    /// Reads a URL without path, such as `https://10.0.0.1:2379`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let tls = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        // A port that is the scheme's own is left out of the URL.
        let written = text
            .rsplit_once(':')
            .map(|(_, port)| port.trim_end_matches('/'));
        let port = url.port().or_else(|| written?.parse().ok()).unwrap_or(PORT);
        let is_bare = url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        let host = url
            .host_str()?
            .trim_start_matches('[')
            .trim_end_matches(']');
        is_bare.then(|| Self {
            host: host.to_owned(),
            port,
            tls,
        })
    }
}

impl fmt::Display for EtcdEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

/// Without the password and the key.
impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd")
            .field("endpoints", &self.endpoints)
            .field("prefix", &self.prefix)
            .field("user", &self.user)
            .field("has_password", &!self.password.is_empty())
            .field("ca", &self.ca)
            .field("cert", &self.cert)
            .field("has_cert_key", &self.cert_key.is_some())
            .field("keyring", &self.keyring)
            .finish_non_exhaustive()
    }
}

impl Etcd {
    /// Reads a prefix: printable ASCII characters without spaces. A slash at its end is added.
    pub(super) fn read_prefix(text: &str) -> Option<String> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        let slash = if text.ends_with('/') { "" } else { "/" };
        (is_plain && !text.is_empty()).then(|| format!("{text}{slash}"))
    }

    /// What is missing, or does not go together, for a gateway whose store is etcd.
    pub(crate) fn mistake(&self) -> Option<&'static str> {
        if self.endpoints.is_empty() {
            Some("store = etcd needs etcd_endpoints")
        } else if self.cert.is_some() != self.cert_key.is_some() {
            Some("etcd_cert and etcd_cert_key need each other")
        } else if self.user.is_empty() != self.password.is_empty() {
            Some("etcd_user and etcd_password need each other")
        } else {
            None
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_url_without_a_path() {
        for (text, shown) in [
            ("http://10.0.0.1:2379", "http://10.0.0.1:2379"),
            ("https://etcd.example", "https://etcd.example:2379"),
            ("https://etcd.example:443/", "https://etcd.example:443"),
            ("http://[::1]:80", "http://[::1]:80"),
        ] {
            assert_eq!(EtcdEndpoint::parse(text).unwrap().to_string(), shown);
        }
        for wrong in [
            "10.0.0.1:2379",
            "ftp://a",
            "http://a/b",
            "http://u:p@a",
            "http://",
        ] {
            assert_eq!(EtcdEndpoint::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_prefix_ends_with_a_slash() {
        assert_eq!(Etcd::read_prefix("/a").as_deref(), Some("/a/"));
        assert_eq!(Etcd::read_prefix("/a/").as_deref(), Some("/a/"));
        assert_eq!(Etcd::read_prefix("a b"), None);
        assert_eq!(Etcd::read_prefix(""), None);
    }
}
