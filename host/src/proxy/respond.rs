//! Responses that the gateway makes itself, with Kong's messages and formats.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{
    ACCEPT, ALLOW, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION,
    RETRY_AFTER, UPGRADE,
};
use http::{Response, StatusCode, Version};
use hyper::ext::ReasonPhrase;

use super::grpc::{self, GrpcStatus};
use super::headers;
use super::request_id::RequestId;
use crate::balancer::Refusal;
use crate::config::ResponseHeaders;
use crate::policy::answer::{Answer, AnswerBody};
use crate::transfer_coding;
use crate::upstream::NoPeer;

/// Header with the reason why no endpoint was chosen.
const REASON: HeaderName = HeaderName::from_static("x-pointsman-reason");

/// The methods that a 405 names (RFC 9110, 15.5.6): those of RFC 9110 and `PATCH`, without
/// `CONNECT` and `TRACE`, which [`super::matched::find`] refuses.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// The message to a request in clear text on a port for TLS. Source: nginx.
const PLAIN_ON_TLS: &str = "The plain HTTP request was sent to HTTPS port";

/// The code of a request whose client has disconnected before it was answered; see
/// [`Reject::code`].
pub(super) const CLIENT_CLOSED: &str = "client_closed";

/// Why the gateway answers a request itself.
#[derive(Debug)]
pub(super) enum Reject {
    /// No route matches.
    NoRoute,
    /// The route has no service.
    NoService,
    /// The service uses a feature that this version does not support.
    Unsupported(String),
    /// The route serves https only.
    HttpsOnly {
        /// 426, or a redirect to `location`.
        status: u16,
        /// The same request over https.
        location: String,
    },
    /// A gRPC request over HTTP/1.1.
    Http2Only,
    /// A request that is not gRPC, for a route that serves gRPC only.
    NotGrpc,
    /// A gRPC request in clear text, for a route that serves gRPC over TLS only.
    GrpcsOnly,
    /// No endpoint may be chosen.
    NoPeer {
        /// Whether the service's host is an upstream, not a DNS name.
        upstream: bool,
        /// The reason.
        reason: NoPeer,
        /// The response, if the balancer has said it.
        refusal: Option<Refusal>,
    },
    /// A response of the HTTP server, given by its status. In Kong, nginx makes it.
    HttpServer(StatusCode),
    /// A request with more header fields than `max_headers`.
    TooManyHeaders,
    /// A request in clear text on a port for TLS. In Kong, nginx makes the response.
    PlainOnTls,
    /// The body has a transfer coding that the gateway does not decode; with the status of the
    /// response.
    TransferCoding(StatusCode),
    /// A policy answers.
    Policy(Box<Answer>),
    /// The answer to a challenge by which an ACME authority verifies a name.
    Challenge(Box<Answer>),
    /// Every try with the upstream failed.
    Upstream {
        /// Whether the last try timed out: 504, otherwise 502.
        timeout: bool,
        /// The time that the upstream took, and the time that the gateway took.
        latencies: (Duration, Duration),
    },
}

impl Reject {
    pub(super) fn bad_request() -> Self {
        Self::HttpServer(StatusCode::BAD_REQUEST)
    }

    /// Whether the client is at fault. Then its connection is closed, and the gateway does not wait
    /// for the rest of its request.
    pub(super) fn is_clients_fault(&self) -> bool {
        match self {
            Self::HttpServer(status) => status.is_client_error(),
            Self::TooManyHeaders => true,
            _ => false,
        }
    }

    /// Whether the connection of HTTP/1.1 is closed after the response, because it is not certain
    /// what follows on it. Source: nginx, `ngx_http_special_response_handler`.
    pub(super) fn closes_connection(&self) -> bool {
        match self {
            Self::HttpServer(status) => matches!(status.as_u16(), 400 | 413 | 414 | 431 | 501),
            Self::TransferCoding(_) | Self::TooManyHeaders | Self::PlainOnTls => true,
            _ => false,
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::NoPeer {
                refusal: Some(refusal),
                ..
            } => StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
            Self::NoService | Self::NoPeer { .. } | Self::Unsupported(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::HttpsOnly { status, .. } => {
                StatusCode::from_u16(*status).unwrap_or(StatusCode::UPGRADE_REQUIRED)
            }
            Self::Http2Only => StatusCode::UPGRADE_REQUIRED,
            Self::NotGrpc => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::GrpcsOnly => StatusCode::OK,
            Self::HttpServer(status) | Self::TransferCoding(status) => *status,
            Self::TooManyHeaders => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::PlainOnTls => StatusCode::BAD_REQUEST,
            // A final response has a final status, whatever the settings of a plugin say.
            Self::Policy(answer) if answer.status.is_informational() => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::Policy(answer) | Self::Challenge(answer) => answer.status,
            Self::Upstream { timeout: true, .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::Upstream { timeout: false, .. } => StatusCode::BAD_GATEWAY,
        }
    }

    fn message(&self) -> &str {
        match self {
            Self::NoRoute => "no Route matched with those values",
            Self::NoService => "no Service found with those values",
            Self::Unsupported(reason) => reason,
            Self::HttpsOnly { .. } => "Please use HTTPS protocol",
            Self::Http2Only => "Please use HTTP2 protocol",
            Self::NotGrpc => "Non-gRPC request matched gRPC route",
            Self::GrpcsOnly => "gRPC request matched gRPCs route",
            Self::NoPeer {
                refusal: Some(refusal),
                ..
            } if refusal.status != 503 => refused(refusal.status),
            Self::NoPeer { upstream: true, .. } => "failure to get a peer from the ring-balancer",
            Self::NoPeer {
                upstream: false, ..
            } => "name resolution failed",
            Self::TransferCoding(_) => transfer_coding::REFUSAL,
            Self::TooManyHeaders => "Too many request headers (setting max_headers)",
            Self::PlainOnTls => PLAIN_ON_TLS,
            Self::Policy(answer) | Self::Challenge(answer) => match &answer.body {
                AnswerBody::Error(message) => message,
                AnswerBody::Message(_) | AnswerBody::Raw(_) => "",
            },
            Self::HttpServer(status) => match status.as_u16() {
                400 => "Bad request",
                405 => "Method not allowed",
                408 => "Request timeout",
                413 => "Payload too large",
                414 => "URI too long",
                431 => "Request header or cookie too large",
                501 => "Not implemented",
                503 => "Too many connections",
                _ => "An unexpected error occurred",
            },
            Self::Upstream { timeout: true, .. } => "The upstream server is timing out",
            Self::Upstream { timeout: false, .. } => {
                "An invalid response was received from the upstream server"
            }
        }
    }

    /// Why the gateway answers, as a code for programs. Records have it.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::NoRoute => "no_route",
            Self::NoService => "no_service",
            Self::Unsupported(_) => "unsupported",
            Self::HttpsOnly { .. } | Self::GrpcsOnly => "tls_required",
            Self::Http2Only => "http2_required",
            Self::NotGrpc => "grpc_required",
            Self::NoPeer { reason, .. } => reason.code(),
            Self::HttpServer(status) => match status.as_u16() {
                400 => "bad_request",
                405 => "method_not_allowed",
                408 => "request_timeout",
                413 => "body_too_large",
                414 => "uri_too_long",
                431 => "head_too_large",
                501 => "not_implemented",
                503 => "too_many_connections",
                _ => "refused",
            },
            Self::TooManyHeaders => "too_many_headers",
            Self::PlainOnTls => "plain_on_tls",
            Self::TransferCoding(_) => "transfer_coding",
            Self::Policy(_) => "policy",
            Self::Challenge(_) => "acme_challenge",
            Self::Upstream { timeout: true, .. } => "upstream_timeout",
            Self::Upstream { timeout: false, .. } => "upstream_failed",
        }
    }

    /// Why no endpoint was chosen, as a code for programs.
    fn reason(&self) -> Option<&'static str> {
        match self {
            Self::NoPeer { reason, .. } => Some(reason.code()),
            _ => None,
        }
    }

    /// Whether the HTTP server makes the response. It uses the `Content-Type` of the request where
    /// `Accept` names no supported format.
    fn by_http_server(&self) -> bool {
        matches!(
            self,
            Self::HttpServer(_)
                | Self::TooManyHeaders
                | Self::PlainOnTls
                | Self::TransferCoding(_)
                | Self::Upstream { .. }
        )
    }
}

/// The message of a request that a balancer has refused with this status.
fn refused(status: u16) -> &'static str {
    match status {
        429 => "Too many requests",
        413 => "Payload too large",
        400..=499 => "The request was refused",
        _ => "The upstream server is overloaded",
    }
}

/// The status and the message of a rejected gRPC request.
fn grpc_outcome(reject: &Reject) -> (GrpcStatus, Cow<'_, str>) {
    let status = GrpcStatus::of(reject.status());
    let message = match reject {
        Reject::GrpcsOnly => return (GrpcStatus::Canceled, reject.message().into()),
        Reject::Policy(answer) | Reject::Challenge(answer) => match &answer.body {
            AnswerBody::Error(_) => status.name().into(),
            AnswerBody::Message(message) => message.as_str().into(),
            AnswerBody::Raw(raw) => String::from_utf8_lossy(raw),
        },
        reject if reject.by_http_server() => reject.message().into(),
        _ => status.name().into(),
    };
    (status, message)
}

/// The formats of an error body.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Format {
    Json,
    Html,
    Xml,
    Plain,
}

impl Format {
    /// The supported format that a list of media types with `q` values (RFC 9110, 12.5.1) prefers,
    /// if it accepts any of them.
    ///
    /// An element that is not valid UTF-8 is skipped, and does not affect the others.
    fn best(list: &[u8]) -> Option<Self> {
        let mut best: Option<(f32, Self)> = None;
        for element in String::from_utf8_lossy(list).split(',') {
            let mut parameters = element.split(';').map(str::trim);
            let format = parameters.next().and_then(Self::of);
            let q = parameters
                .find_map(|parameter| parameter.strip_prefix("q="))
                .and_then(|q| q.parse().ok())
                .unwrap_or(1.0);
            if let Some(format) = format
                && q > 0.0
                && best.is_none_or(|(best, _)| q > best)
            {
                best = Some((q, format));
            }
        }
        best.map(|(_, format)| format)
    }

    fn of(media_type: &str) -> Option<Self> {
        match media_type.to_ascii_lowercase().as_str() {
            "*/*" | "application/*" | "application/json" => Some(Self::Json),
            "text/html" => Some(Self::Html),
            "application/xml" => Some(Self::Xml),
            "text/*" | "text/plain" => Some(Self::Plain),
            _ => None,
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json; charset=utf-8",
            Self::Html => "text/html; charset=utf-8",
            Self::Xml => "application/xml; charset=utf-8",
            Self::Plain => "text/plain; charset=utf-8",
        }
    }

    /// The body of an error. `message` is Kong's message, unchanged; `reason` is a code that Kong
    /// does not have.
    fn body(self, message: &str, reason: Option<&str>, id: &str) -> String {
        let with_reason = |form: &dyn Fn(&str) -> String| reason.map(form).unwrap_or_default();
        match self {
            Self::Json => {
                let message = serde_json::Value::from(message);
                let reason = with_reason(&|reason| format!(",\n  \"reason\":\"{reason}\""));
                format!("{{\n  \"message\":{message},\n  \"request_id\":\"{id}\"{reason}\n}}")
            }
            Self::Html => format!(
                "<!doctype html>\n<html>\n  <head>\n    <meta charset=\"utf-8\">\n    \
                 <title>Error</title>\n  </head>\n  <body>\n    <h1>Error</h1>\n    \
                 <p>{message}.</p>\n    <p>request_id: {id}</p>\n{}  </body>\n</html>\n",
                with_reason(&|reason| format!("    <p>reason: {reason}</p>\n"))
            ),
            Self::Xml => format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<error>\n  \
                 <message>{message}</message>\n  <requestid>{id}</requestid>\n{}</error>\n",
                with_reason(&|reason| format!("  <reason>{reason}</reason>\n"))
            ),
            Self::Plain => format!(
                "{message}\nrequest_id: {id}\n{}",
                with_reason(&|reason| format!("reason: {reason}\n"))
            ),
        }
    }
}

/// The response of a policy that once came from an endpoint. The gateway's headers are added to it
/// as to any response of an endpoint.
pub(super) fn proxied(
    answer: Answer,
    id: &RequestId,
    started: Instant,
    sent: ResponseHeaders,
) -> Response<Bytes> {
    let mut response = Response::new(match answer.body {
        AnswerBody::Raw(raw) => raw,
        AnswerBody::Error(text) | AnswerBody::Message(text) => text.into(),
    });
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    let total = started.elapsed();
    let headers = response.headers_mut();
    let times = (Duration::ZERO, total);
    headers::to_client(headers, Version::HTTP_11, id, times, None, sent);
    response
}

/// The response to a rejected request. `asked` are the headers of the request, and `sent` says
/// which headers are added.
pub(super) fn reject(
    reject: &Reject,
    asked: &HeaderMap,
    id: &RequestId,
    started: Instant,
    sent: ResponseHeaders,
) -> Response<Bytes> {
    let wish = |name| {
        let list = asked.get(name).map(HeaderValue::as_bytes);
        list.and_then(Format::best)
    };
    let format = if reject.by_http_server() {
        wish(ACCEPT)
            .or_else(|| wish(CONTENT_TYPE))
            .unwrap_or(Format::Plain)
    } else {
        wish(ACCEPT).unwrap_or(Format::Json)
    };
    let redirect = match reject {
        Reject::HttpsOnly { status, location } if *status != 426 => Some(location),
        _ => None,
    };
    let by_policy = match reject {
        Reject::Policy(answer) | Reject::Challenge(answer) => Some(&answer.body),
        _ => None,
    };
    let body = match by_policy {
        _ if redirect.is_some() => Bytes::new(),
        Some(AnswerBody::Message(message)) => {
            let document = serde_json::json!({ "message": message });
            document.to_string().into()
        }
        Some(AnswerBody::Raw(raw)) => raw.clone(),
        Some(AnswerBody::Error(_)) | None => {
            let body = format.body(reject.message(), reject.reason(), id.as_str());
            body.into()
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = reject.status();
    if reject.status().canonical_reason().is_none() {
        // hyper would write `<none>`. The phrase may be missing (RFC 9112, 4).
        let none = ReasonPhrase::from_static(b"");
        response.extensions_mut().insert(none);
    }
    let headers = response.headers_mut();
    match reject {
        Reject::Policy(answer) | Reject::Challenge(answer) => {
            let media_type = match answer.body {
                AnswerBody::Error(_) => Some(format.media_type()),
                AnswerBody::Message(_) => Some(Format::Json.media_type()),
                AnswerBody::Raw(_) => None,
            };
            if let Some(media_type) = media_type {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
            }
        }
        _ => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
        }
    }
    let upstream = match reject {
        Reject::Upstream { latencies, .. } => Some(*latencies),
        _ => None,
    };
    let upstream = upstream.map(|latencies| (latencies, reject.status()));
    headers::own(headers, id, upstream, started.elapsed(), sent);
    if let Reject::Policy(answer) | Reject::Challenge(answer) = reject {
        for name in answer.headers.keys() {
            headers.remove(name);
            for value in answer.headers.get_all(name) {
                headers.append(name, value.clone());
            }
        }
    }
    if matches!(reject, Reject::HttpServer(StatusCode::METHOD_NOT_ALLOWED)) {
        headers.insert(ALLOW, HeaderValue::from_static(METHODS));
    }
    if let Some(reason) = reject.reason() {
        headers.insert(REASON, HeaderValue::from_static(reason));
    }
    if let Reject::NoPeer {
        refusal: Some(refusal),
        ..
    } = reject
        && let Some(seconds) = refusal.retry_after
    {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    if let Some(location) = redirect {
        if let Ok(location) = HeaderValue::try_from(location) {
            headers.insert(LOCATION, location);
        }
    } else if let Some(protocol) = match reject {
        Reject::HttpsOnly { .. } => Some("TLS/1.2, HTTP/1.1"),
        Reject::Http2Only => Some("HTTP/2"),
        _ => None,
    } {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(protocol));
    }
    let is_from_endpoint = matches!(reject, Reject::Policy(answer) if answer.proxied);
    if grpc::is_grpc(asked) && !is_from_endpoint {
        let (status, message) = grpc_outcome(reject);
        grpc::answer(&mut response, status, &message);
        return response.map(|_| Bytes::new());
    }
    response
}

#[cfg(test)]
mod tests;
