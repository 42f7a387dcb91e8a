//! What is known of a request when its response has ended, and of a stream when it has ended.
//! Policies that log work from it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri, Version};
use uuid::Uuid;

use super::identity::Subject;
use super::request_trace::RequestTrace;
use super::response::Source;
use crate::balancer::Pick;
use crate::endpoint_address::EndpointAddress;
use crate::request_log;
use crate::tls::NegotiatedTls;

/// What a policy that logs is given.
#[derive(Debug, Clone)]
pub enum LogRecord {
    /// A request.
    Request(Arc<Record>),
    /// A stream.
    Stream(Arc<StreamRecord>),
}

/// A stream that has ended: a connection, or a session of datagrams.
#[derive(Debug)]
pub struct StreamRecord {
    /// When it began.
    pub started: SystemTime,
    /// The client.
    pub client: SocketAddr,
    /// The port at which it has arrived.
    pub port: u16,
    /// The TLS that the gateway speaks with the client, if it does.
    pub(crate) tls: Option<NegotiatedTls>,
    /// How it has ended, as a status of HTTP. Source: nginx, `$status` of streams.
    pub status: u16,
    /// Bytes from the client.
    pub received: u64,
    /// Bytes to the client.
    pub sent: u64,
    /// Bytes from the endpoint.
    pub upstream_received: u64,
    /// Bytes to the endpoint.
    pub upstream_sent: u64,
    /// The tries with endpoints, in their order.
    pub tries: Vec<Try>,
    /// From its beginning to its end.
    pub duration: Duration,
    /// The part of it before the first try with an endpoint.
    pub gateway: Duration,
    /// The route.
    pub route: Option<Uuid>,
    /// The service.
    pub service: Option<Uuid>,
    /// What else the access log of streams says of it.
    pub details: StreamDetails,
}

/// What the access log of streams says of a stream, and no policy that logs.
#[derive(Debug, Clone, Default)]
pub struct StreamDetails {
    /// Whether it is a session of datagrams, and not a connection.
    pub is_udp: bool,
    /// The address at which it has arrived.
    pub server: Option<IpAddr>,
    /// The server name that the client has asked for.
    pub server_name: Option<Box<str>>,
    /// The name of the route.
    pub route_name: Option<Arc<str>>,
    /// The name of the service, or its id if it has none.
    pub service_name: Option<Arc<str>>,
}

impl LogRecord {
    /// The status of the response, or how the stream has ended.
    pub fn status(&self) -> u16 {
        match self {
            Self::Request(record) => record.status.as_u16(),
            Self::Stream(record) => record.status,
        }
    }

    /// Who made the response; of a stream, whether an endpoint was connected to.
    pub fn source(&self) -> Source {
        match self {
            Self::Request(record) => record.source,
            Self::Stream(record) => record.source(),
        }
    }

    /// The route.
    pub fn route(&self) -> Option<Uuid> {
        match self {
            Self::Request(record) => record.route,
            Self::Stream(record) => record.route,
        }
    }

    /// The service.
    pub fn service(&self) -> Option<Uuid> {
        match self {
            Self::Request(record) => record.service,
            Self::Stream(record) => record.service,
        }
    }

    /// The consumer. A stream has none.
    pub fn consumer(&self) -> Option<Uuid> {
        match self {
            Self::Request(record) => record.subject.consumer.as_ref().map(|of| of.id),
            Self::Stream(_) => None,
        }
    }

    /// Bytes from the client.
    pub fn received(&self) -> u64 {
        match self {
            Self::Request(record) => record.request_size,
            Self::Stream(record) => record.received,
        }
    }

    /// Bytes to the client.
    pub fn sent(&self) -> u64 {
        match self {
            Self::Request(record) => record.response_size(),
            Self::Stream(record) => record.sent,
        }
    }

    /// Times of the request, or of the stream, which waits for no response.
    pub fn latencies(&self) -> Latencies {
        match self {
            Self::Request(record) => record.latencies,
            Self::Stream(record) => Latencies {
                total: record.duration,
                gateway: record.gateway,
                upstream: None,
                receive: Duration::ZERO,
            },
        }
    }
}

impl StreamRecord {
    /// Whether an endpoint was connected to.
    pub fn source(&self) -> Source {
        let last = self.tries.last().map(|one| one.outcome);
        match last {
            Some(TryOutcome::Answered(_)) => Source::Endpoint,
            _ => Source::Gateway,
        }
    }
}

/// A request with its response, complete. It is closed when the last byte was sent, or when it is
/// certain that none will be.
///
/// What none of its readers needs is not collected: [`Record::response_headers`] is empty then, and
/// what is an `Option` is `None`.
#[derive(Debug)]
pub struct Record {
    /// The id of the request, as in `X-Kong-Request-Id`: hexadecimal digits.
    pub id: request_log::Id,
    /// When the head of the request was received.
    pub started: SystemTime,
    /// The client.
    pub client: SocketAddr,
    /// The address that the client is connected to, and the port that accepted the connection.
    pub server: SocketAddr,
    /// The number of the connection, and that of the request on it, both from 1.
    pub connection: (u64, u64),
    /// The scheme of the request: `http` or `https`.
    pub scheme: &'static str,
    /// The TLS that the gateway speaks with the client, if it does.
    pub(crate) tls: Option<NegotiatedTls>,
    /// The host that the client has requested, without port; empty if it named none.
    pub host: Option<Arc<str>>,
    /// The version of HTTP that the client speaks.
    pub version: Version,
    /// The method of the client's request; `None` of a head that could not be read.
    pub method: Option<Method>,
    /// The target as the client sent it; `/` of a head that could not be read.
    pub uri: Uri,
    /// The request line of a head that could not be read, as far as it was received.
    pub unread_line: Option<Bytes>,
    /// The query as the policies have left it, if they have changed it: the text after `?`.
    pub changed_query: Option<Option<Arc<str>>>,
    /// The headers, as the policies have left them: a policy that hides a credential from endpoints
    /// hides it here as well. Source: Kong, whose record has the headers of the log phase.
    pub request_headers: HeaderMap,
    /// Bytes of the request that were received, its head included.
    pub request_size: u64,
    /// The status that the client got; 499 if it has disconnected before.
    pub status: StatusCode,
    /// The headers that the client got.
    pub response_headers: HeaderMap,
    /// Bytes of the head of the response.
    pub response_head_size: u64,
    /// Bytes of the body of the response that were sent.
    pub response_body_size: u64,
    /// Who made the response.
    pub source: Source,
    /// Why the gateway made the response itself, as a code for programs.
    pub reason: Option<&'static str>,
    /// The name of the policy that has answered.
    pub policy: Option<&'static str>,
    /// Path and query of the request to the endpoint; `None` if none was tried.
    pub upstream_target: Option<Arc<str>>,
    /// The tries with endpoints, in their order.
    pub tries: Vec<Try>,
    /// Times of the request.
    pub latencies: Latencies,
    /// Times of its stages.
    pub stages: Stages,
    /// The route.
    pub route: Option<Uuid>,
    /// Its name.
    pub route_name: Option<Arc<str>>,
    /// The service.
    pub service: Option<Uuid>,
    /// Its name, or its id if it has none.
    pub service_name: Option<Arc<str>>,
    /// The upstream: its name, or the host and the port of the service.
    pub upstream: Option<Arc<str>>,
    /// Who the request was from.
    pub subject: Subject,
    /// The id that the policy `correlation-id` has given or found.
    pub correlation_id: Option<Arc<str>>,
    /// The trace that it belongs to, if the policy `opentelemetry` has begun one.
    pub trace: Option<Box<RequestTrace>>,
}

impl Record {
    /// The id as text.
    pub fn id(&self) -> &str {
        std::str::from_utf8(&self.id).unwrap_or_default()
    }

    /// Path and query as the client sent them; of a `CONNECT`, the host. Empty of a head that could
    /// not be read.
    pub fn target(&self) -> &str {
        match (self.uri.path_and_query(), self.uri.authority()) {
            _ if self.unread_line.is_some() => "",
            (Some(target), _) => target.as_str(),
            (None, Some(authority)) => authority.as_str(),
            (None, None) => "",
        }
    }

    /// The method; empty of a head that could not be read.
    pub fn method(&self) -> &str {
        self.method.as_ref().map_or("", Method::as_str)
    }

    /// The query as the policies have left it: the text after `?`.
    pub fn query(&self) -> Option<&str> {
        match &self.changed_query {
            Some(changed) => changed.as_deref(),
            None => self.uri.query(),
        }
    }

    /// Bytes of the response that were sent, its head included.
    pub fn response_size(&self) -> u64 {
        self.response_head_size + self.response_body_size
    }
}

/// Times of the stages of a request, as far as they were measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stages {
    /// From the head of the request until its route was found.
    pub matched: Option<Duration>,
    /// From then until the policies had decided that it may go on.
    pub access: Option<Duration>,
    /// From then until the first try: the body of the request was awaited.
    pub body: Option<Duration>,
}

/// A try with an endpoint.
#[derive(Debug, Clone)]
pub struct Try {
    /// Its address.
    pub address: EndpointAddress,
    /// How it was chosen, if that was noted.
    pub pick: Option<Pick>,
    /// When the endpoint was chosen.
    pub started: SystemTime,
    /// How long it took to choose it.
    pub balancer: Duration,
    /// From when it was asked for until the head of its response was received, or until the try
    /// failed.
    pub took: Duration,
    /// How it ended.
    pub outcome: TryOutcome,
    /// Why it failed, as a code for programs.
    pub failure: Option<&'static str>,
}

/// The end of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TryOutcome {
    /// The endpoint has answered with this status, which was given to the client or led to another
    /// try. Of a stream: it was connected to, and the status is 200.
    Answered(u16),
    /// The connection failed.
    Failed,
    /// The endpoint did not answer in time.
    TimedOut,
    /// The client has ended it, without fault of the endpoint: it has disconnected, or its body was
    /// late or malformed.
    Abandoned,
}

/// Times of a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Latencies {
    /// From the head of the request to the end of the response.
    pub total: Duration,
    /// The part of it that the gateway took.
    pub gateway: Duration,
    /// From the first try to the end of the last one, which is the head of its response; `None` if
    /// no endpoint was tried.
    pub upstream: Option<Duration>,
    /// From that head to the end of the response; of an upgraded connection, to its end.
    pub receive: Duration,
}
