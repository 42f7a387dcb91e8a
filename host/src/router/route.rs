//! A route, ready to be matched.

use http::Method;
use uuid::Uuid;

use super::Query;
use super::criteria::{self, Hosts, PathPattern, Values};
use super::error::RouteError;
use super::priority;
use crate::entity;
use crate::retry::Retry;

/// A route, ready to be matched.
#[derive(Debug)]
pub struct Route {
    /// Primary key.
    pub id: Uuid,
    /// Its service; none for a route that has none.
    pub service: Option<Uuid>,
    /// Whether the matched path is removed.
    pub strip_path: bool,
    /// Whether the client's `Host` is sent on.
    pub preserve_host: bool,
    /// Whether a short body is kept, so that it can be sent again.
    pub request_buffering: bool,
    /// The answer to a plain request, for a route that serves https only.
    pub https_only: Option<u16>,
    /// Whether it serves gRPC alone.
    pub grpc_only: bool,
    /// Which tries are repeated.
    pub retry: Retry,
    /// What its regular expressions take, in bytes.
    pub pattern_memory: usize,
    /// Whether it is for requests at all, not for streams.
    pub(super) http: bool,
    pub(super) methods: Vec<Method>,
    pub(super) hosts: Vec<Hosts>,
    pub(super) headers: Vec<(http::HeaderName, Values)>,
    pub(super) paths: Vec<PathPattern>,
    /// Priority without what depends on the path.
    pub(super) priority: u64,
    pub(super) regex_priority: u64,
}

impl Route {
    /// Compiles what a stored route says. Its regular expressions may take `room`, in bytes.
    ///
    /// # Errors
    /// For a regular expression that takes more, and for one or a name that does not compile: the Admin API
    /// lets none in, so it came from elsewhere.
    pub fn compile(route: entity::route::Route, room: usize) -> Result<Self, RouteError> {
        let mut left = room;
        let has = |protocol: &str| route.protocols.iter().any(|p| p == protocol);
        let hosts = criteria::hosts(route.hosts.as_deref().unwrap_or_default())?;
        let headers = criteria::headers(route.headers.as_ref(), &mut left)?;
        let paths = criteria::paths(route.paths.as_deref().unwrap_or_default(), &mut left)?;
        let methods = route.methods.as_deref().unwrap_or_default();
        let methods: Result<Vec<Method>, _> = methods
            .iter()
            .map(|method| Method::from_bytes(method.as_bytes()))
            .collect();
        let methods = methods.map_err(|error| RouteError::new("methods", error))?;
        let snis = route.snis.as_ref().is_some_and(|snis| !snis.is_empty());
        let priority = priority::without_path(&priority::Set {
            methods: !methods.is_empty(),
            hosts: !hosts.is_empty(),
            plain_hosts: hosts.iter().all(Hosts::is_exact),
            headers: headers.len(),
            snis,
            paths: !paths.is_empty(),
        });
        Ok(Self {
            id: route.id,
            service: route.service.map(|service| service.id),
            strip_path: route.strip_path,
            preserve_host: route.preserve_host,
            request_buffering: route.request_buffering,
            https_only: (!has("http") && has("https")).then_some(route.https_redirect_status_code),
            grpc_only: has("grpc") || has("grpcs"),
            http: ["http", "https", "grpc", "grpcs"].into_iter().any(has),
            retry: Retry::of(&route.pointsman.retry),
            pattern_memory: room - left,
            methods,
            hosts,
            headers,
            paths,
            priority,
            regex_priority: u64::try_from(route.regex_priority).unwrap_or(0),
        })
    }

    pub(super) fn accepts(&self, query: &Query<'_>) -> bool {
        (self.methods.is_empty() || self.methods.contains(query.method))
            && self.headers.iter().all(|(name, values)| {
                let mut sent = query.headers.get_all(name).iter();
                sent.any(|value| values.accept(value.as_bytes()))
            })
    }
}
