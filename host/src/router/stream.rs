//! Which route a stream takes: a connection, or a session of datagrams. Source: Kong 3.9, stream
//! routes.
//!
//! Kong ignores the protocols of its routes here. This router does not: a route for UDP takes no
//! connection, and bytes in clear text do not take a route that asks for TLS.

mod expression;

use std::net::SocketAddr;
use std::sync::Arc;

use uuid::Uuid;

use super::criteria::{self, NamePattern};
use super::error::RouteError;
use super::priority;
use crate::entity::route::{Address, Route as Entity};
use crate::ip_ranges::{IpRanges, ip_range};
use expression::StreamExpression;

/// What a stream consists of, as the protocols of routes name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamProtocol {
    /// Bytes.
    Tcp,
    /// Bytes within TLS that the gateway decrypts.
    Tls,
    /// Bytes within TLS that an endpoint decrypts.
    TlsPassthrough,
    /// Datagrams.
    Udp,
}

impl StreamProtocol {
    const ALL: [Self; 4] = [Self::Tcp, Self::Tls, Self::TlsPassthrough, Self::Udp];

    /// Its name in `protocols`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::TlsPassthrough => "tls_passthrough",
            Self::Udp => "udp",
        }
    }
}

/// What a stream is matched by.
#[derive(Debug, Clone, Copy)]
pub struct StreamQuery<'a> {
    /// What it may be. The first one that its route is for is what it is.
    pub protocols: &'a [StreamProtocol],
    /// The client.
    pub source: SocketAddr,
    /// Where it has arrived.
    pub destination: SocketAddr,
    /// The server name that the client has asked for in its TLS handshake, in lower case, if it has
    /// asked for one.
    pub server_name: Option<&'a str>,
}

/// A route of streams, ready to be matched.
#[derive(Debug)]
pub struct StreamRoute {
    /// Primary key.
    pub id: Uuid,
    /// Unique name.
    pub name: Option<Arc<str>>,
    /// Its service, if it has one.
    pub service: Option<Uuid>,
    /// Whether the server name that the client asks for is sent on.
    pub preserve_host: bool,
    protocols: Vec<StreamProtocol>,
    server_names: Vec<NamePattern>,
    sources: Vec<AddressPattern>,
    destinations: Vec<AddressPattern>,
    /// What streams must satisfy, in place of the three above.
    expression: Option<StreamExpression>,
    priority: u64,
    /// Memory of its regular expressions, in bytes.
    pub pattern_memory: usize,
}

/// An end of a stream, as a route names it.
#[derive(Debug)]
struct AddressPattern {
    range: Option<IpRanges>,
    port: Option<u16>,
}

impl AddressPattern {
    fn new(address: &Address) -> Option<Self> {
        let range = match &address.ip {
            None => None,
            Some(ip) => Some(IpRanges::new([ip_range(ip)?])),
        };
        let port = address.port;
        Some(Self { range, port })
    }

    fn accepts(&self, address: SocketAddr) -> bool {
        self.port.is_none_or(|port| port == address.port())
            && (self.range.as_ref()).is_none_or(|range| range.contain(address.ip().to_canonical()))
    }
}

/// Kong's number for the addresses of a route: 8 if one has an IP address, 4 if one has a port, 1
/// if one has a range.
fn weight(addresses: &[Address]) -> u64 {
    let is_range = |ip: &String| {
        let range = ip_range(ip);
        range.is_some_and(|range| range.prefix_len() < range.max_prefix_len())
    };
    let weights = addresses.iter().map(|address| {
        let ip = match &address.ip {
            Some(ip) if is_range(ip) => 1,
            Some(_) => 8,
            None => 0,
        };
        ip | if address.port.is_some() { 4 } else { 0 }
    });
    weights.fold(0, |one, other| one | other)
}

impl StreamRoute {
    /// Compiles a stored route; `None` if it serves requests and no streams.
    ///
    /// # Errors
    /// A text is not an address. The Admin API accepts no such row, so it was written in another
    /// way.
    pub fn compile(route: &Entity, room: usize) -> Result<Option<Self>, RouteError> {
        let own = |protocol: &StreamProtocol| route.protocols.iter().any(|p| p == protocol.name());
        let protocols: Vec<_> = StreamProtocol::ALL.into_iter().filter(own).collect();
        if protocols.is_empty() {
            return Ok(None);
        }
        let mut left = room;
        let expression = (route.expression.as_ref())
            .map(|text| StreamExpression::compile(text, &mut left))
            .transpose()?;
        let patterns = |field, addresses: &[Address]| {
            let patterns = addresses.iter().map(|address| {
                let pattern = AddressPattern::new(address);
                pattern.ok_or_else(|| RouteError {
                    field,
                    cause: "an address is not valid".into(),
                })
            });
            patterns.collect::<Result<Vec<_>, _>>()
        };
        let sources = route.sources.as_deref().unwrap_or_default();
        let destinations = route.destinations.as_deref().unwrap_or_default();
        let server_names = criteria::server_names(route.snis.as_deref().unwrap_or_default());
        let has_both = !sources.is_empty() && !destinations.is_empty();
        let first = u64::from(!server_names.is_empty() || has_both);
        Ok(Some(Self {
            id: route.id,
            name: route.name.as_deref().map(Arc::from),
            service: route.service.as_ref().map(|service| service.id),
            preserve_host: route.preserve_host,
            protocols,
            priority: match &expression {
                Some(_) => priority::of_expression(route.priority.unwrap_or(0)),
                None => first << 61 | weight(sources) << 4 | weight(destinations),
            },
            expression,
            pattern_memory: room - left,
            server_names,
            sources: patterns("sources", sources)?,
            destinations: patterns("destinations", destinations)?,
        }))
    }

    /// What a stream is that takes this route; `None` if it does not match.
    fn accepts(&self, query: &StreamQuery<'_>) -> Option<StreamProtocol> {
        let own = |protocol: &&StreamProtocol| self.protocols.contains(protocol);
        let protocol = query.protocols.iter().find(own)?;
        let any = |patterns: &[AddressPattern], address| {
            patterns.is_empty() || patterns.iter().any(|pattern| pattern.accepts(address))
        };
        let named = match query.server_name {
            Some(name) => {
                let mut names = self.server_names.iter();
                self.server_names.is_empty() || names.any(|pattern| pattern.accepts(name))
            }
            // A client that asks for no server name matches, as in Kong. But its handshake is not
            // passed to an endpoint that it has not asked for.
            None => self.server_names.is_empty() || *protocol != StreamProtocol::TlsPassthrough,
        };
        let holds = |expression: &StreamExpression| expression.holds(query, *protocol);
        let matches = self.expression.as_ref().is_none_or(holds)
            && named
            && any(&self.sources, query.source)
            && any(&self.destinations, query.destination);
        matches.then_some(*protocol)
    }

    fn rank(&self) -> (u64, Uuid) {
        (self.priority, self.id)
    }
}

/// All routes of streams. A copy shares them until it is changed.
#[derive(Debug, Default, Clone)]
pub struct StreamRouter {
    /// The greatest priority first, and of equal ones the greatest id. Source: Kong.
    routes: Arc<Vec<Arc<StreamRoute>>>,
}

impl StreamRouter {
    /// Adds a route. An earlier one with the same id has to be removed first.
    pub fn insert(&mut self, route: &Arc<StreamRoute>) {
        let rank = route.rank();
        let at = self.routes.partition_point(|other| other.rank() > rank);
        Arc::make_mut(&mut self.routes).insert(at, Arc::clone(route));
    }

    /// Removes a route, if it is present.
    pub fn remove(&mut self, id: Uuid) {
        if self.routes.iter().any(|route| route.id == id) {
            Arc::make_mut(&mut self.routes).retain(|route| route.id != id);
        }
    }

    /// The route that a stream takes, and what the stream is.
    pub fn route(&self, query: &StreamQuery<'_>) -> Option<(&Arc<StreamRoute>, StreamProtocol)> {
        let mut routes = self.routes.iter();
        routes.find_map(|route| Some((route, route.accepts(query)?)))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use serde_json::{Value, json};

    use super::StreamProtocol::{Tcp, Tls, TlsPassthrough, Udp};
    use super::*;
    use crate::pattern::PATTERN_MEMORY;

    fn router(routes: &[Value]) -> StreamRouter {
        let mut router = StreamRouter::default();
        for (number, fields) in (1..).zip(routes) {
            let mut row = json!({
                "id": Uuid::from_u128(number), "protocols": ["tcp"],
                "https_redirect_status_code": 426, "regex_priority": 0, "strip_path": true,
                "preserve_host": false, "request_buffering": true, "service": null,
            });
            for (key, value) in fields.as_object().unwrap() {
                row[key] = value.clone();
            }
            let route: Entity = serde_json::from_value(row).unwrap();
            router.insert(&Arc::new(
                StreamRoute::compile(&route, PATTERN_MEMORY)
                    .unwrap()
                    .unwrap(),
            ));
        }
        router
    }

    fn answers(
        router: &StreamRouter,
        protocols: &[StreamProtocol],
        source: &str,
        destination: &str,
        server_name: Option<&str>,
    ) -> Option<(u128, StreamProtocol)> {
        let (route, protocol) = router.route(&StreamQuery {
            protocols,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            server_name,
        })?;
        Some((route.id.as_u128(), protocol))
    }

    #[test]
    fn a_stream_takes_the_route_with_the_most_specific_addresses() {
        let router = router(&[
            json!({ "destinations": [{ "port": 90 }] }),
            json!({ "sources": [{ "ip": "10.0.0.0/8" }] }),
            json!({ "sources": [{ "ip": "10.0.0.1" }] }),
            json!({ "sources": [{ "ip": "10.0.0.0/8" }], "destinations": [{ "port": 91 }] }),
            json!({ "destinations": [{ "ip": "127.0.0.1", "port": 92 }, { "port": 93 }] }),
        ]);
        let route = |source: &str, destination: &str| {
            answers(&router, &[Tcp], source, destination, None).map(|(id, _)| id)
        };
        assert_eq!(route("192.0.2.1:5", "127.0.0.1:90"), Some(1));
        assert_eq!(route("10.0.0.2:5", "127.0.0.1:90"), Some(2));
        assert_eq!(route("10.0.0.1:5", "127.0.0.1:90"), Some(3));
        assert_eq!(route("[::ffff:10.0.0.1]:5", "127.0.0.1:90"), Some(3));
        assert_eq!(route("10.0.0.1:5", "127.0.0.1:91"), Some(4));
        assert_eq!(route("192.0.2.1:5", "127.0.0.1:92"), Some(5));
        assert_eq!(route("192.0.2.1:5", "127.0.0.2:92"), None);
        assert_eq!(route("192.0.2.1:5", "127.0.0.2:93"), Some(5));
    }

    #[test]
    fn an_expression_is_about_addresses_protocol_and_server_name() {
        let router = router(&[
            json!({ "destinations": [{ "port": 90 }] }),
            json!({ "expression": "net.dst.port == 90 && net.src.ip in 10.0.0.0/8" }),
            json!({ "expression": "net.dst.ip == 127.0.0.9 && net.src.port > 1000", "priority": 5 }),
            json!({ "protocols": ["tls"], "expression": r#"tls.sni =^ ".example""# }),
            json!({ "protocols": ["tls_passthrough"], "expression": r#"net.protocol == "tls""# }),
            json!({ "protocols": ["udp"], "expression": r#"net.protocol ~ "^u""# }),
        ]);
        let route = |protocols: &[_], source: &str, destination: &str, name| {
            answers(&router, protocols, source, destination, name).map(|(id, _)| id)
        };
        // Routes with expressions come first, those of a greater priority before others.
        assert_eq!(route(&[Tcp], "192.0.2.1:5", "127.0.0.1:90", None), Some(1));
        assert_eq!(route(&[Tcp], "10.0.0.2:5", "127.0.0.1:90", None), Some(2));
        assert_eq!(
            route(&[Tcp], "10.0.0.2:5000", "127.0.0.9:90", None),
            Some(3)
        );
        let over_tls = [Tls, TlsPassthrough];
        let tls = |name| route(&over_tls, "10.0.0.1:1", "10.0.0.2:91", name);
        assert_eq!(
            tls(Some("a.example")),
            Some(5),
            "the greater id of equal priorities"
        );
        assert_eq!(
            route(&[Tls], "10.0.0.1:1", "10.0.0.2:91", Some("a.example")),
            Some(4)
        );
        assert_eq!(route(&[Tls], "10.0.0.1:1", "10.0.0.2:91", None), None);
        assert_eq!(tls(None), Some(5));
        assert_eq!(route(&[Udp], "10.0.0.1:1", "10.0.0.2:91", None), Some(6));
    }

    #[test]
    fn of_equal_routes_the_greater_id_wins() {
        let router = router(&[
            json!({ "destinations": [{ "port": 90 }] }),
            json!({ "destinations": [{ "port": 90 }, { "port": 91 }] }),
        ]);
        let found = answers(&router, &[Tcp], "10.0.0.1:1", "10.0.0.2:90", None);
        assert_eq!(found, Some((2, Tcp)));
    }

    #[test]
    fn a_route_takes_streams_of_its_protocols_only() {
        let router = router(&[
            json!({ "protocols": ["tcp", "udp"], "destinations": [{ "port": 90 }] }),
            json!({ "protocols": ["tls"], "snis": ["a.example"] }),
            json!({ "protocols": ["tls_passthrough"], "snis": ["*.b.example"] }),
        ]);
        let over_tls = [Tls, TlsPassthrough];
        let route = |protocols: &[StreamProtocol], name| {
            answers(&router, protocols, "10.0.0.1:1", "10.0.0.2:90", name)
        };
        assert_eq!(route(&[Tcp], None), Some((1, Tcp)));
        assert_eq!(route(&[Udp], None), Some((1, Udp)));
        assert_eq!(route(&over_tls, Some("a.example")), Some((2, Tls)));
        assert_eq!(
            route(&over_tls, Some("x.b.example")),
            Some((3, TlsPassthrough))
        );
        assert_eq!(route(&over_tls, Some("b.example")), None);
        assert_eq!(route(&over_tls, None), Some((2, Tls)));
        assert_eq!(route(&[TlsPassthrough], None), None);
    }
}
