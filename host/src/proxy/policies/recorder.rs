//! Makes the record of a request, for its policies and for the access log.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};

use super::super::Inbound;
use super::super::client::Client;
use super::super::client_host::host_of;
use super::super::connection_info::ConnectionInfo;
use super::super::request_id::RequestId;
use super::super::respond::CLIENT_CLOSED;
use super::super::trace::Trace;
use super::super::upload::Upload;
use super::Run;
use crate::access_log::Wants;
use crate::clock;
use crate::policy::chain::Policies;
use crate::policy::identity::Subject;
use crate::policy::record::{Latencies, LogRecord, Record, Stages, TryOutcome};
use crate::policy::response::Source;

/// The status in the record of a request whose client has disconnected before it was answered.
/// Source: nginx.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Bytes of the request line that the record of an unread head has, at most. Over HTTP/1.1 with an
/// access log it has fewer: `ClientStream` keeps 1,024 bytes of a head.
const MAX_UNREAD_LINE: usize = 4096;

/// Who made a response, and why, if the gateway did.
#[derive(Clone, Copy)]
pub(in super::super) struct Made {
    pub(in super::super) source: Source,
    pub(in super::super) reason: Option<&'static str>,
}

/// The head of a response, as far as a record needs it.
pub(super) struct AnswerHead {
    status: StatusCode,
    headers: HeaderMap,
    size: u64,
}

/// What a record is made of.
pub(in super::super) struct Recorder {
    run: Option<Box<Run>>,
    trace: Option<Box<Trace>>,
    request: Parts,
    /// The address of the client.
    address: SocketAddr,
    upload: Option<Rc<Upload>>,
    started: Instant,
    made: Made,
    /// The head of the response; `None` if the client has disconnected before.
    answered: Option<AnswerHead>,
    /// The number of the request on its connection.
    number: u64,
    /// Bytes of the body that were sent.
    pub(super) sent: u64,
    /// Bytes that the client has sent after its request, on an upgraded connection.
    pub(super) received: u64,
}

impl AnswerHead {
    /// The parts of a response's head that are wanted. `length` is that of a body which the gateway
    /// has made.
    pub(super) fn of(
        status: StatusCode,
        headers: &HeaderMap,
        length: Option<u64>,
        wants: Wants,
    ) -> Self {
        let has_length = !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let sent_headers = || {
            let mut headers = headers.clone();
            if let Some(length) = length.filter(|_| has_length) {
                headers.entry(CONTENT_LENGTH).or_insert(length.into());
            }
            headers
        };
        let line = "HTTP/1.1 200 \r\n\r\n".len() + reason_length(status);
        Self {
            status,
            size: match wants.sizes {
                true => (line + size(headers)) as u64,
                false => 0,
            },
            headers: match wants.response_headers {
                true => sent_headers(),
                false => HeaderMap::new(),
            },
        }
    }
}

impl Recorder {
    /// Takes over the head of the request.
    pub(super) fn new(
        run: Option<Box<Run>>,
        inbound: &mut Inbound<'_>,
        made: Made,
        answered: Option<AnswerHead>,
    ) -> Self {
        let (none, ()) = Request::new(()).into_parts();
        Self {
            run,
            trace: inbound.trace.take(),
            request: std::mem::replace(inbound.parts, none),
            address: inbound.client().address,
            upload: inbound.upload.clone(),
            started: inbound.started,
            made,
            answered,
            number: inbound.from.number,
            sent: 0,
            received: 0,
        }
    }

    /// Makes the record, and passes it on.
    pub(super) fn record(self, client: &Client, id: &RequestId) {
        let Self {
            mut run,
            trace,
            request,
            address,
            upload,
            started,
            made,
            answered,
            number,
            sent,
            received,
        } = self;
        let now = Instant::now();
        let records = run.as_ref().is_some_and(|run| run.records());
        let info = &client.info;
        let log = info.listener.access_log.as_deref();
        let wants = match log {
            Some(log) if !records => log.wants(),
            _ => Wants::ALL,
        };
        let has_ended = answered.is_some();
        let answered = answered.unwrap_or_else(|| {
            let closed = StatusCode::from_u16(CLIENT_CLOSED_REQUEST);
            AnswerHead {
                status: closed.unwrap_or(StatusCode::BAD_REQUEST),
                headers: HeaderMap::new(),
                size: 0,
            }
        });
        if let Some(trace) = &trace {
            let failure = (!has_ended).then_some(CLIENT_CLOSED);
            trace.end_try(TryOutcome::Abandoned, failure, now);
        }
        let host = match &run {
            Some(run) => Some(Arc::clone(&run.host)),
            None if wants.host => {
                let host = host_of(&request);
                host.map(|host| host.name().into())
            }
            None => None,
        };
        let line = request.uri.path_and_query();
        let line = line.map_or(0, |target| target.as_str().len())
            + request.method.as_str().len()
            // Two spaces, the line end, and the empty line.
            + "  HTTP/1.1\r\n\r\n".len();
        let uploaded = upload.as_ref().map_or(0, |upload| upload.received());
        let head = if wants.sizes {
            line + size(&request.headers)
        } else {
            0
        };
        let changed_query = run.as_ref().and_then(|run| run.query.as_ref());
        let changed_query = changed_query.map(|query| query.text().map(Arc::from));
        let (subject, correlation_id, request_trace, policy) = match &mut run {
            Some(run) => (
                std::mem::take(&mut run.subject),
                run.correlation_id.take(),
                run.trace.take(),
                run.answered_by,
            ),
            None => (Subject::default(), None, None, None),
        };
        let latencies = match &trace {
            Some(trace) => trace.latencies(started, now),
            None => Latencies {
                total: now - started,
                ..Latencies::default()
            },
        };
        let stages = trace.as_ref().map(|trace| trace.stages(started));
        let trace = trace.map(|trace| *trace).unwrap_or_default();
        let entities = trace.matched_entities;
        let record = Record {
            id: id.digits(),
            started: clock::time_of_day(started),
            client: address,
            server: SocketAddr::new(info.local, info.listener.port),
            connection: (info.number, number),
            scheme: info.listener.scheme.as_str(),
            tls: info.tls,
            host,
            version: request.version,
            method: Some(request.method),
            uri: request.uri,
            unread_line: None,
            changed_query,
            request_size: uploaded + received + head as u64,
            request_headers: request.headers,
            status: answered.status,
            response_head_size: answered.size,
            response_body_size: sent,
            response_headers: answered.headers,
            source: made.source,
            reason: made.reason,
            policy,
            latencies,
            stages: stages.unwrap_or_default(),
            upstream_target: trace.upstream_target.take(),
            tries: trace.tries.take(),
            route: entities.route,
            route_name: entities.route_name,
            service: entities.service,
            service_name: entities.service_name,
            upstream: entities.upstream,
            subject,
            correlation_id,
            trace: request_trace,
        };
        if let Some(log) = log {
            log.write(&record, now);
        }
        if let Some(run) = run.filter(|_| records) {
            pass_on(&run, record);
        }
    }
}

/// Gives the record to the policies that work from it.
fn pass_on(run: &Run, record: Record) {
    let record = LogRecord::Request(Arc::new(record));
    for chosen in &run.chosen {
        let policy = &chosen.instance.policy;
        if policy.records() || policy.traces() {
            policy.record(&record);
        }
    }
}

/// A request whose head could not be read.
pub(in super::super) struct Unread<'a> {
    pub(in super::super) id: RequestId,
    /// The start of what was received of the head, and the bytes that were received.
    pub(in super::super) head: &'a [u8],
    pub(in super::super) received: u64,
    /// The status, and the bytes of the response that were sent.
    pub(in super::super) status: StatusCode,
    pub(in super::super) sent: u64,
    /// Those of them that are its body.
    pub(in super::super) body: u64,
    pub(in super::super) reason: &'static str,
    /// The number of the request on its connection.
    pub(in super::super) number: u64,
}

/// Makes the record of a request whose head could not be read: for the access log, and for the
/// policies that are for all requests.
pub(in super::super) fn record_unread(
    unread: &Unread<'_>,
    info: &ConnectionInfo,
    policies: &Policies,
) {
    let run = Run::without_route(policies, "".into(), &HeaderMap::new());
    let mut run = run.filter(|run| run.records());
    let log = info.listener.access_log.as_deref();
    if run.is_none() && log.is_none() {
        return;
    }
    let now = Instant::now();
    let line = first_line(unread.head);
    let (method, version) = words_of(line);
    let record = Record {
        id: unread.id.digits(),
        started: clock::time_of_day(now),
        client: info.client().address,
        server: SocketAddr::new(info.local, info.listener.port),
        connection: (info.number, unread.number),
        scheme: info.listener.scheme.as_str(),
        tls: info.tls,
        host: None,
        version,
        method,
        uri: Uri::default(),
        unread_line: Some(Bytes::copy_from_slice(line)),
        changed_query: None,
        request_headers: HeaderMap::new(),
        request_size: unread.received,
        status: unread.status,
        response_headers: HeaderMap::new(),
        response_head_size: unread.sent.saturating_sub(unread.body),
        response_body_size: unread.body,
        source: Source::Gateway,
        reason: Some(unread.reason),
        policy: None,
        upstream_target: None,
        tries: Vec::new(),
        latencies: Latencies {
            total: Duration::ZERO,
            ..Latencies::default()
        },
        stages: Stages::default(),
        route: None,
        route_name: None,
        service: None,
        service_name: None,
        upstream: None,
        subject: Subject::default(),
        correlation_id: None,
        trace: run.as_mut().and_then(|run| run.trace.take()),
    };
    if let Some(log) = log {
        log.write(&record, now);
    }
    if let Some(run) = run {
        pass_on(&run, record);
    }
}

/// The request line of a head, as far as it was received, without empty lines before it.
fn first_line(head: &[u8]) -> &[u8] {
    let head = head.trim_ascii_start();
    let end = head.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    let line = head.get(..end.unwrap_or(head.len())).unwrap_or_default();
    line.get(..MAX_UNREAD_LINE).unwrap_or(line)
}

/// The method and the version that a request line names, if they are valid.
fn words_of(line: &[u8]) -> (Option<Method>, Version) {
    let mut words = line.split(|byte| *byte == b' ');
    let method = words.next().filter(|word| word.len() < line.len());
    let version = match words.next_back() {
        Some(b"HTTP/1.0") => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    let method = method.and_then(|word| Method::from_bytes(word).ok());
    (method, version)
}

fn reason_length(status: StatusCode) -> usize {
    status.canonical_reason().map_or(0, str::len)
}

/// Bytes of headers as HTTP/1.1 writes them.
fn size(headers: &HeaderMap) -> usize {
    let lines = headers.iter();
    lines
        .map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_an_unread_head_is_its_first_that_is_not_empty() {
        assert_eq!(
            first_line(b"\r\n\r\nGET / HTTP/9\r\nhost: h"),
            b"GET / HTTP/9"
        );
        assert_eq!(first_line(b"\x16\x03\x01"), b"\x16\x03\x01");
        assert_eq!(first_line(b""), b"");
        assert_eq!(first_line(&[b'a'; 9000]).len(), MAX_UNREAD_LINE);
    }

    #[test]
    fn an_unread_line_names_a_method_only_if_it_is_valid() {
        let words = |line: &[u8]| words_of(line);
        assert_eq!(
            words(b"GET / HTTP/1.0"),
            (Some(Method::GET), Version::HTTP_10)
        );
        assert_eq!(words(b"G{T / HTTP/1.1"), (None, Version::HTTP_11));
        assert_eq!(words(b"nonsense"), (None, Version::HTTP_11));
    }
}
