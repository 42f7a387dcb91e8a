//! Stage match: finds the route of a request.

use std::borrow::Cow;
use std::cell::RefCell;

use http::header::{HOST, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, StatusCode, Uri, Version};

use super::Inbound;
use super::respond::Reject;
use crate::authority::{Authority, Host};
use crate::path;
use crate::pattern::Pattern;
use crate::policy::request::TargetQuery;
use crate::router::{Arguments, Match, Query, Route};
use crate::snapshot::Snapshot;

/// A request whose route is known. It owns the parts of the client's head that it needs, so that
/// the head may be changed later.
pub(super) struct Matched<'s> {
    pub(super) route: &'s Route,
    /// The regular expression that matched the path, if the route has one.
    pub(super) regex: Option<&'s Pattern>,
    /// The host that the client has requested.
    pub(super) host: ClientHost,
    /// Path and query as the client sent them.
    pub(super) target: PathAndQuery,
    /// The normalised path, if it differs from the path of the target.
    normal_path: Option<Vec<u8>>,
    /// Number of bytes of the normalised path that the route has matched.
    matched: usize,
    /// What a policy has put in place of the path of the request to the endpoint.
    upstream_path: Option<String>,
    /// What a policy has put in place of the `Host` of the request to the endpoint.
    pub(super) upstream_host: Option<String>,
}

/// Finds the route of a request.
pub(super) fn find<'s>(
    snapshot: &'s Snapshot,
    inbound: &Inbound<'_>,
) -> Result<Matched<'s>, Reject> {
    let parts = &inbound.parts;
    let host = inbound.connection().last_host.of(parts)?;
    // The response to TRACE would show a script the credentials that the browser has sent. CONNECT
    // would ask an endpoint for a connection to a host of the client's choice, whatever its target
    // looks like. A WebSocket over HTTP/2 is a GET by now.
    if matches!(parts.method, Method::TRACE | Method::CONNECT) {
        return Err(Reject::HttpServer(StatusCode::METHOD_NOT_ALLOWED));
    }
    let target = origin_form(&parts.uri).ok_or_else(Reject::bad_request)?;
    let path = path::normalize_request(target.path().as_bytes()).ok_or_else(Reject::bad_request)?;
    let query = Query {
        method: &parts.method,
        host: host.name(),
        port: host.port.unwrap_or(inbound.connection().listener.port),
        path: &path,
        headers: &parts.headers,
        server_name: inbound.connection().server_name.as_deref(),
        arguments: Arguments::new(target.query()),
        client: Some(inbound.client().address),
        local: Some(inbound.connection().local),
    };
    let found = snapshot.router.route(&query).ok_or(Reject::NoRoute)?;
    let Match {
        route,
        matched,
        regex,
    } = found;
    let normal_path = match path {
        Cow::Borrowed(_) => None,
        Cow::Owned(path) => Some(path),
    };
    Ok(Matched {
        route,
        regex,
        host,
        target,
        normal_path,
        matched,
        upstream_path: None,
        upstream_host: None,
    })
}

impl Matched<'_> {
    /// The normalised path.
    pub(super) fn path(&self) -> &[u8] {
        let sent = || self.target.path().as_bytes();
        self.normal_path.as_deref().unwrap_or_else(sent)
    }

    /// The prefix that `strip_path` removes.
    pub(super) fn prefix(&self) -> &[u8] {
        self.path().get(..self.stripped()).unwrap_or_default()
    }

    /// What `strip_path` leaves of the path.
    pub(super) fn rest(&self) -> &[u8] {
        self.path().get(self.stripped()..).unwrap_or_default()
    }

    /// The target of the request to the upstream. `base` is the path of the service.
    pub(super) fn upstream_target(&self, base: &str) -> Cow<'_, [u8]> {
        match &self.upstream_path {
            None => path::target(
                base,
                &self.target,
                self.path(),
                self.stripped(),
                self.route.path_handling,
            ),
            Some(path) => match self.target.query() {
                None => Cow::Borrowed(path.as_bytes()),
                Some(query) => Cow::Owned(format!("{path}?{query}").into_bytes()),
            },
        }
    }

    /// The target as the client sent it, unless a policy has changed it.
    pub(super) fn sent_target(&self) -> Cow<'_, [u8]> {
        match &self.upstream_path {
            None => Cow::Borrowed(self.target.as_str().as_bytes()),
            Some(_) => self.upstream_target("/"),
        }
    }

    /// Takes over what policies have changed.
    pub(super) fn apply(
        &mut self,
        query: &TargetQuery,
        upstream_path: Option<String>,
        upstream_host: Option<String>,
    ) -> Result<(), Reject> {
        self.upstream_path = upstream_path;
        self.upstream_host = upstream_host;
        if query.is_changed() {
            let path = self.target.path();
            let changed = match query.text() {
                None => PathAndQuery::try_from(path),
                Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
            };
            let changed = changed.map_err(|_| Reject::bad_request())?;
            if self.normal_path.is_none() {
                self.normal_path = Some(path.as_bytes().to_vec());
            }
            self.target = changed;
        }
        Ok(())
    }

    fn stripped(&self) -> usize {
        match self.route.strip_path {
            true => self.matched,
            false => 0,
        }
    }
}

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
    fn read(sent: &HeaderValue) -> Result<Self, Reject> {
        let text = sent.to_str().map_err(|_| Reject::bad_request())?;
        let Authority { host, port } = Authority::parse(text).ok_or_else(Reject::bad_request)?;
        let name = host.as_str();
        let name = match text.starts_with(name) {
            true => Name::Sent(name.len()),
            false => Name::Normal(host.into_owned()),
        };
        Ok(Self {
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
    fn of(&self, parts: &Parts) -> Result<ClientHost, Reject> {
        let mut sent = parts.headers.get_all(HOST).iter();
        let (Some(sent), None, None) = (sent.next(), sent.next(), parts.uri.authority()) else {
            return host_of(parts);
        };
        let mut last = self.0.borrow_mut();
        if let Some(last) = last.as_ref().filter(|last| last.sent == sent) {
            return Ok(last.clone());
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
        Ok(host)
    }
}

/// The host of a request: that of an absolute target, otherwise that of the `Host` header (RFC
/// 9112, 3.2), which HTTP/1.1 requires exactly once.
pub(super) fn host_of(parts: &Parts) -> Result<ClientHost, Reject> {
    let mut sent = parts.headers.get_all(HOST).iter();
    let host = match (sent.next(), sent.next()) {
        (Some(host), None) => ClientHost::read(host)?,
        (None, None) if parts.version < Version::HTTP_11 => ClientHost {
            sent: HeaderValue::from_static(""),
            name: Name::Sent(0),
            port: None,
        },
        _ => return Err(Reject::bad_request()),
    };
    match parts.uri.authority() {
        Some(authority) => {
            let sent = HeaderValue::from_str(authority.as_str());
            ClientHost::read(&sent.map_err(|_| Reject::bad_request())?)
        }
        None => Ok(host),
    }
}

/// The path and query of a request. `CONNECT host:port` has none, and `OPTIONS *` names no resource
/// that a route could match. The empty path of an absolute target is `/` (RFC 9110, 4.2.3).
pub(super) fn origin_form(uri: &Uri) -> Option<PathAndQuery> {
    let target = uri.path_and_query()?;
    if target.as_str().starts_with('/') {
        return Some(target.clone());
    }
    let is_absolute = uri.authority().is_some() && target.as_str().starts_with('?');
    let target = is_absolute.then(|| format!("/{}", target.as_str()));
    target?.parse().ok()
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

    fn seen(host: Result<ClientHost, Reject>) -> Option<(String, String, Option<u16>)> {
        let host = host.ok()?;
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
