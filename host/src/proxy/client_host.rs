//! The host that a client has requested.

use std::cell::RefCell;

use http::Version;
use http::header::{HOST, HeaderValue};
use http::request::Parts;

use crate::authority::{Authority, Host};

/// The host that a client has requested.
#[derive(Clone)]
pub(super) struct ClientHost {
    /// The host as it was sent; empty if an HTTP/1.0 request has no `Host`.
    sent: HeaderValue,
    /// The name, in the normal form that hosts are compared in.
    name: Name,
    /// The port, if the client sent one.
    pub(super) port: Option<u16>,
}

#[derive(Clone)]
enum Name {
    /// The first bytes of the host as it was sent, which is in normal form.
    Sent(usize),
    /// The normal form, which differs from what was sent.
    Normal(Host<'static>),
}

impl ClientHost {
    /// The host is copied into headers and into the URL of a redirect, so an invalid host is
    /// refused.
    fn read(sent: &HeaderValue) -> Option<Self> {
        let text = sent.to_str().ok()?;
        let Authority { host, port } = Authority::parse(text)?;
        let name = host.as_str();
        let name = match text.starts_with(name) {
            true => Name::Sent(name.len()),
            false => Name::Normal(host.into_owned()),
        };
        Some(Self {
            sent: sent.clone(),
            name,
            port,
        })
    }

    /// The host as it was sent.
    pub(super) fn sent(&self) -> &str {
        self.sent.to_str().unwrap_or_default()
    }

    /// The name, in the normal form that hosts are compared in.
    pub(super) fn name(&self) -> &str {
        match &self.name {
            Name::Sent(length) => self.sent().get(..*length).unwrap_or_default(),
            Name::Normal(host) => host.as_str(),
        }
    }
}

impl ClientHost {
    /// The parsed host; `None` if none was sent.
    pub(super) fn host(&self) -> Option<Host<'_>> {
        match &self.name {
            Name::Sent(_) => Host::parse(self.name()),
            Name::Normal(host) => Some(host.clone()),
        }
    }
}

/// Longest host that a connection keeps, in bytes: a name of DNS with a port fits.
const MAX_KEPT: usize = 261;

/// The host of the last request of a connection. Nearly all requests of a connection have the same
/// one, so few of them are parsed.
#[derive(Default)]
pub(super) struct LastHost(RefCell<Option<ClientHost>>);

impl LastHost {
    /// The host of a request: see [`host_of`].
    pub(super) fn of(&self, parts: &Parts) -> Option<ClientHost> {
        let mut sent = parts.headers.get_all(HOST).iter();
        let (Some(sent), None, None) = (sent.next(), sent.next(), parts.uri.authority()) else {
            return host_of(parts);
        };
        let mut last = self.0.borrow_mut();
        if let Some(last) = last.as_ref().filter(|last| last.sent == sent) {
            return Some(last.clone());
        }
        let host = ClientHost::read(sent)?;
        if sent.len() <= MAX_KEPT {
            // The bytes are copied: those of the request keep the buffer that it was read into.
            let sent = HeaderValue::from_bytes(sent.as_bytes());
            *last = sent.ok().map(|sent| ClientHost {
                sent,
                ..host.clone()
            });
        }
        Some(host)
    }
}

/// The host of a request: that of an absolute target, otherwise that of the `Host` header (RFC
/// 9112, 3.2), which HTTP/1.1 requires exactly once.
pub(super) fn host_of(parts: &Parts) -> Option<ClientHost> {
    let mut sent = parts.headers.get_all(HOST).iter();
    let host = match (sent.next(), sent.next()) {
        (Some(host), None) => ClientHost::read(host)?,
        (None, None) if parts.version < Version::HTTP_11 => ClientHost {
            sent: HeaderValue::from_static(""),
            name: Name::Sent(0),
            port: None,
        },
        _ => return None,
    };
    match parts.uri.authority() {
        Some(authority) => {
            let sent = HeaderValue::from_str(authority.as_str());
            ClientHost::read(&sent.ok()?)
        }
        None => Some(host),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use http::Request;

    use super::*;

    fn parts(target: &str, hosts: &[&str]) -> Parts {
        let mut request = Request::get(target);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn seen(host: Option<ClientHost>) -> Option<(String, String, Option<u16>)> {
        let host = host?;
        Some((host.sent().into(), host.name().into(), host.port))
    }

    #[test]
    fn a_connection_that_keeps_its_last_host_finds_the_same_hosts() {
        let long = format!("{}.example", "a".repeat(300));
        let requests = [
            parts("/", &["a.example"]),
            parts("/", &["a.example"]),
            parts("/", &["A.Example:8080"]),
            parts("/", &["A.Example:8080"]),
            parts("/", &["a.example", "a.example"]),
            parts("/", &[]),
            parts("http://b.example/", &["a.example"]),
            parts("/", &["a@b"]),
            parts("/", &["a@b"]),
            parts("/", &[&long]),
            parts("/", &[&long]),
            parts("/", &["[::0]:1"]),
            parts("/", &["[::0]:1"]),
        ];
        let last = LastHost::default();
        for request in requests.iter().chain(&requests) {
            assert_eq!(seen(last.of(request)), seen(host_of(request)));
        }
        assert_eq!(seen(last.of(&requests[2])).unwrap().1, "a.example");
    }
}
