//! A route, and the alternatives by which a request matches it.

use std::cmp::Reverse;
use std::sync::Arc;

use http::Method;
use uuid::Uuid;

use super::Query;
use super::addresses::Addresses;
use super::criteria::{self, Closeness, HeaderPattern, HostPattern, NamePattern, PathPattern};
use super::error::RouteError;
use super::expression::RouteExpression;
use super::priority;
use super::rank::Rank;
use crate::config::RouterFlavor;
use crate::entity;
use crate::expression::SentName;
use crate::path::PathHandling;
use crate::retry::Retry;

/// A route, ready to be matched.
#[derive(Debug)]
pub struct Route {
    /// Primary key.
    pub id: Uuid,
    /// Unique name.
    pub name: Option<Arc<str>>,
    /// Its service, if it has one.
    pub service: Option<Uuid>,
    /// Whether the matched path is removed.
    pub strip_path: bool,
    /// How the path of the service and that of the request are joined.
    pub(crate) path_handling: PathHandling,
    /// Whether the client's `Host` is forwarded.
    pub preserve_host: bool,
    /// Whether a short body is buffered, so that it can be sent again.
    pub request_buffering: bool,
    /// The answer to a plain request, for a route that serves https only.
    pub https_only: Option<u16>,
    /// Whether it serves gRPC only.
    pub grpc_only: bool,
    /// Whether it serves gRPC over TLS only.
    pub grpcs_only: bool,
    /// Which tries are retried.
    pub retry: Retry,
    /// Memory of its regular expressions, in bytes.
    pub pattern_memory: usize,
    /// Whether it serves requests, not only streams.
    http: bool,
    /// The scheme that requests must have, if only one will do.
    over_tls: Option<bool>,
    /// What requests must satisfy, in place of the criteria below.
    expression: Option<Box<RouteExpression>>,
    pub(super) methods: Vec<Method>,
    pub(super) hosts: Vec<HostPattern>,
    headers: Vec<(SentName, HeaderPattern)>,
    pub(super) paths: Vec<PathPattern>,
    /// The server names that a client over TLS must have asked for one of.
    server_names: Vec<NamePattern>,
    /// Of clients.
    sources: Addresses,
    /// That clients are connected to.
    destinations: Addresses,
    /// Priority without what depends on the path.
    pub(super) priority: u64,
    pub(super) regex_priority: u64,
}

/// One of the alternatives by which a request matches a route: by one of its paths, and by one of
/// its hosts.
pub(super) struct Alternative<'a> {
    pub(super) rank: Rank,
    pub(super) host: Option<&'a HostPattern>,
    pub(super) path: Option<&'a PathPattern>,
}

impl Alternative<'_> {
    /// The port of the host, if it has one.
    pub(super) fn port(&self) -> Option<u16> {
        self.host.and_then(HostPattern::port)
    }
}

impl Route {
    /// Compiles a stored route. Its regular expressions may take `room` bytes of memory.
    ///
    /// # Errors
    /// A regular expression takes more memory, or a regular expression, an expression or a name
    /// does not compile. The Admin API accepts no such row, so it was written in another way, or
    /// with another flavor.
    pub fn compile(
        route: entity::route::Route,
        flavor: RouterFlavor,
        room: usize,
    ) -> Result<Self, RouteError> {
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
        let server_names = criteria::server_names(route.snis.as_deref().unwrap_or_default());
        let sources = Addresses::new("sources", route.sources.as_deref())?;
        let destinations = Addresses::new("destinations", route.destinations.as_deref())?;
        let http = ["http", "https", "grpc", "grpcs"].into_iter().any(has);
        let expression = match &route.expression {
            None => None,
            Some(_) if flavor != RouterFlavor::Expressions => {
                return Err(RouteError {
                    field: "expression",
                    cause: "it is read only with router_flavor = expressions".into(),
                });
            }
            // Those of streams have other fields: see `StreamRoute`.
            Some(_) if !http => None,
            Some(text) => Some(Box::new(RouteExpression::compile(text, &mut left)?)),
        };
        let priority = match &expression {
            Some(_) => priority::of_expression(route.priority.unwrap_or(0)),
            None => priority::without_path(&priority::Set {
                methods: !methods.is_empty(),
                hosts: !hosts.is_empty(),
                plain_hosts: hosts.iter().all(HostPattern::is_exact),
                headers: headers.len(),
                snis: !server_names.is_empty(),
                paths: !paths.is_empty(),
                sources: !sources.is_empty(),
                destinations: !destinations.is_empty(),
            }),
        };
        let (plain, tls) = (has("http") || has("grpc"), has("https") || has("grpcs"));
        // A request in clear text may take a route of https only, and is redirected or refused.
        // Source: Kong, which compares schemes with this flavor only.
        let redirects = route.protocols == ["https"];
        let compares = flavor == RouterFlavor::Expressions && plain != tls && !redirects;
        Ok(Self {
            id: route.id,
            name: route.name.map(Arc::from),
            service: route.service.map(|service| service.id),
            strip_path: route.strip_path,
            path_handling: match route.path_handling.as_deref() {
                Some("v1") if flavor == RouterFlavor::Traditional => PathHandling::V1,
                _ => PathHandling::V0,
            },
            preserve_host: route.preserve_host,
            request_buffering: route.request_buffering,
            https_only: (!has("http") && has("https")).then_some(route.https_redirect_status_code),
            grpc_only: has("grpc") || has("grpcs"),
            grpcs_only: has("grpcs") && !has("grpc"),
            http,
            over_tls: compares.then_some(tls),
            expression,
            retry: Retry::of(&route.pointsman.retry),
            pattern_memory: room - left,
            methods,
            hosts,
            headers,
            paths,
            server_names,
            sources,
            destinations,
            priority,
            regex_priority: u64::try_from(route.regex_priority).unwrap_or(0),
        })
    }

    /// Whether it serves requests, not only streams.
    pub(super) fn is_for_requests(&self) -> bool {
        self.http
    }

    /// The expression that stands in place of hosts and paths, if it has one.
    pub(super) fn expression(&self) -> Option<&RouteExpression> {
        self.expression.as_deref()
    }

    /// Each path with each host. A route without paths, or without hosts, has `None` in their
    /// place. A route with an expression has the hosts and prefixes that the expression implies,
    /// and all its alternatives have the same priority.
    pub(super) fn alternatives(&self) -> impl Iterator<Item = Alternative<'_>> {
        let keys = self.expression().map(|expression| &*expression.keys);
        let implied = (0..).zip(keys.unwrap_or_default());
        let implied = implied.map(|(position, key)| Alternative {
            rank: self.rank(0, Closeness::default(), position),
            host: key.host.as_ref(),
            path: key.path.as_ref(),
        });
        let paths = self.paths.iter().map(Some);
        let paths = paths.chain(self.paths.is_empty().then_some(None));
        let paths = paths.take(if keys.is_some() { 0 } else { usize::MAX });
        let alternatives = (0..).zip(paths).flat_map(move |(position, path)| {
            let of_path = path.map_or(0, |path| priority::of_path(path, self.regex_priority));
            let hosts = self.hosts.iter().map(Some);
            let hosts = hosts.chain(self.hosts.is_empty().then_some(None));
            hosts.map(move |host| {
                let closeness = host.map(HostPattern::closeness).unwrap_or_default();
                Alternative {
                    rank: self.rank(of_path, closeness, position),
                    host,
                    path,
                }
            })
        });
        implied.chain(alternatives)
    }

    fn rank(&self, of_path: u64, closeness: Closeness, position: usize) -> Rank {
        Rank {
            priority: self.priority | of_path,
            closeness,
            route: self.id,
            path: Reverse(position),
        }
    }

    /// Whether the criteria other than path, host and expression match.
    pub(super) fn accepts(&self, query: &Query<'_>) -> bool {
        (self.methods.is_empty() || self.methods.contains(query.method))
            && self.headers.iter().all(|header| has_header(header, query))
            && self.accepts_name(query.server_name)
            && self
                .over_tls
                .is_none_or(|tls| tls == query.server_name.is_some())
            && self.sources.accept(query.client)
            && self.destinations.accept(query.local_address())
    }

    /// The fields that a request does not satisfy, by name; none if the route could take it.
    pub(crate) fn misses(&self, query: &Query<'_>) -> Vec<&'static str> {
        if !self.http {
            return vec!["protocols"];
        }
        let schemes = self
            .over_tls
            .is_none_or(|tls| tls == query.server_name.is_some());
        let expression = self.expression();
        let is_expressed = expression.is_some();
        let path = |path: &PathPattern| match path {
            PathPattern::Prefix(prefix) => query.path.starts_with(prefix),
            PathPattern::Regex(regex) => regex.find(query.path).is_some(),
        };
        let satisfied = [
            (
                "methods",
                self.methods.is_empty() || self.methods.contains(query.method),
            ),
            (
                "hosts",
                self.hosts.is_empty() || self.hosts.iter().any(|host| host.accepts(query)),
            ),
            (
                "paths",
                self.paths.is_empty() || self.paths.iter().any(path),
            ),
            (
                "headers",
                self.headers.iter().all(|header| has_header(header, query)),
            ),
            ("snis", self.accepts_name(query.server_name)),
            ("protocols", schemes),
            ("sources", self.sources.accept(query.client)),
            (
                "destinations",
                self.destinations.accept(query.local_address()),
            ),
            (
                "expression",
                expression.is_none_or(|expression| expression.find(query).is_some()),
            ),
        ];
        // With an expression, hosts and paths are what it implies.
        let ignored = |field: &str| is_expressed && ["hosts", "paths"].contains(&field);
        let missed = satisfied
            .into_iter()
            .filter(|(field, is)| !is && !ignored(field));
        missed.map(|(field, _)| field).collect()
    }

    /// Whether the server name matches. Requests in clear text have none to compare. Source: Kong.
    fn accepts_name(&self, name: Option<&str>) -> bool {
        let Some(name) = name.filter(|_| !self.server_names.is_empty()) else {
            return true;
        };
        let mut names = self.server_names.iter();
        names.any(|pattern| pattern.accepts(name))
    }
}

/// Whether a request has one of the values of a header that a route asks for.
fn has_header((name, values): &(SentName, HeaderPattern), query: &Query<'_>) -> bool {
    let mut sent = name.values(query.headers);
    sent.any(|value| values.accept(value))
}
