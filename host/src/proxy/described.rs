//! A request that a caller of the Admin API describes, read in the same way as a real request.

mod policies;

use std::borrow::Cow;
use std::net::SocketAddr;

use bytes::Bytes;
use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};
use uuid::Uuid;

use super::affinity::{Affinity, RequestFacts};
use crate::authority::Authority;
use crate::balancer::{self, ReadBody};
use crate::path;
use crate::pattern::Pattern;
use crate::router::{Arguments, Query, Route};
use crate::snapshot::Snapshot;
use crate::upstream::Upstream;
pub(crate) use policies::{Judged, Judgement};

/// A described request.
pub(crate) struct Described {
    pub(crate) method: Method,
    pub(crate) target: PathAndQuery,
    pub(crate) headers: HeaderMap,
    /// Address of the client, as a header value.
    pub(crate) client: HeaderValue,
    /// The consumer that it is from.
    pub(crate) consumer: Option<Uuid>,
    /// Port of the listener that receives the request.
    pub(crate) port: u16,
    /// The server name of its TLS handshake, in lower case; none in clear text.
    pub(crate) server_name: Option<String>,
    /// Its body, if it has one.
    pub(crate) body: Option<Bytes>,
}

/// What an upstream's settings make of the request.
pub(crate) struct Reading {
    /// The affinity that is passed to the balancer.
    pub(crate) affinity: Option<u64>,
    /// The route that leads the request to the upstream, if there is one.
    pub(crate) route: Option<Uuid>,
}

impl Described {
    pub(crate) fn read(&self, snapshot: &Snapshot, upstream: &Upstream) -> Reading {
        let path = path::normalize(self.target.path().as_bytes());
        let found = self.query(|query| snapshot.router.route(query));
        let taken = found.filter(|found| {
            let service = found
                .route
                .service
                .and_then(|id| snapshot.services.get(&id));
            service.is_some_and(|service| {
                service.upstream.named && service.upstream.name == upstream.name
            })
        });
        let facts = self.facts(&path, taken.and_then(|found| found.regex));
        let affinity = upstream.policy().affinity.as_ref();
        Reading {
            affinity: affinity.and_then(|policy| Affinity::of(policy, &facts).value),
            route: taken.map(|found| found.route.id),
        }
    }

    /// The route that it takes.
    pub(crate) fn route(&self, snapshot: &Snapshot) -> Option<Uuid> {
        self.query(|query| Some(snapshot.router.route(query)?.route.id))
    }

    /// The fields of a route that it does not satisfy.
    pub(crate) fn misses(&self, route: &Route) -> Vec<&'static str> {
        self.query(|query| route.misses(query))
    }

    /// The host that it asks for.
    fn authority(&self) -> Option<Authority<'_>> {
        let host = self.headers.get(HOST).and_then(|host| host.to_str().ok());
        host.and_then(Authority::parse)
    }

    /// It as routes see it.
    fn query<T>(&self, look: impl FnOnce(&Query<'_>) -> T) -> T {
        let authority = self.authority();
        let host = (authority.as_ref()).map_or("", |authority| authority.host.as_str());
        let port = authority.as_ref().and_then(|authority| authority.port);
        let path = path::normalize(self.target.path().as_bytes());
        let query = Query {
            method: &self.method,
            host,
            port: port.unwrap_or(self.port),
            path: &path,
            headers: &self.headers,
            server_name: self.server_name.as_deref(),
            arguments: Arguments::new(self.target.query()),
            client: self.client_address(),
            local: None,
        };
        look(&query)
    }

    /// The address of the client, whose port is not known.
    fn client_address(&self) -> Option<SocketAddr> {
        let ip = self.client.to_str().ok()?.parse().ok()?;
        Some(SocketAddr::new(ip, 0))
    }

    fn facts<'a>(&'a self, path: &'a [u8], regex: Option<&'a Pattern>) -> RequestFacts<'a> {
        RequestFacts {
            method: &self.method,
            headers: &self.headers,
            ip: &self.client,
            consumer: self.consumer,
            path,
            query: self.target.query(),
            regex,
            body: (self.body.as_deref()).map(|body| ReadBody::new(body, false).into()),
        }
    }

    fn tell<T>(&self, tell: impl FnOnce(&RequestFacts<'_>) -> T) -> T {
        let path = path::normalize(self.target.path().as_bytes());
        tell(&self.facts(&path, None))
    }

    fn text(&self, tell: impl FnOnce(&RequestFacts<'_>) -> Option<String>) -> Option<Cow<'_, str>> {
        self.tell(tell).map(Cow::Owned)
    }
}

/// The same facts as those of a real request.
impl balancer::RequestFacts for Described {
    fn method(&self) -> Option<Cow<'_, str>> {
        self.text(|facts| facts.method().map(Cow::into_owned))
    }

    fn path(&self) -> Option<Cow<'_, str>> {
        self.text(|facts| facts.path().map(Cow::into_owned))
    }

    fn query(&self) -> Option<Cow<'_, str>> {
        self.target.query().map(Cow::Borrowed)
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.text(|facts| facts.header(name).map(Cow::into_owned))
    }

    fn client(&self) -> Option<Cow<'_, str>> {
        self.text(|facts| facts.client().map(Cow::into_owned))
    }

    fn body_start(&self, most: usize) -> Option<Cow<'_, [u8]>> {
        let start = self.tell(|facts| facts.body_start(most).map(Cow::into_owned));
        start.map(Cow::Owned)
    }
}
