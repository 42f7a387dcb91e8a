//! Stage match: finds the route of a request.

use std::borrow::Cow;

use http::uri::PathAndQuery;
use http::{Method, StatusCode, Uri};

use super::Inbound;
use super::client_host::ClientHost;
use super::respond::Reject;
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
    let host = inbound.connection().last_host.of(parts);
    let host = host.ok_or_else(Reject::bad_request)?;
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
