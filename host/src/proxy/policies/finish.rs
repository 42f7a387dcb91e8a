//! The end of a request that has policies: passes the body of the response through their filters,
//! and gives them a record of the request when its last byte was sent.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, StatusCode};
use http_body::Frame;

use super::super::Inbound;
use super::super::client::Client;
use super::super::download::Error;
use super::super::request_id::RequestId;
use super::super::tunnel::TunnelBytes;
use super::super::upload::Upload;
use super::Run;
use crate::policy::record::{LogRecord, Record, TryOutcome};
use crate::policy::response::{BodyFilter, Source};

/// The status in the record of a request whose client has disconnected before it was answered.
/// Source: nginx.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// What is left to do for the policies of a request while its response is sent.
pub(in super::super) struct Finish {
    filters: Vec<Box<dyn BodyFilter>>,
    keeps_length: bool,
    /// Trailers that follow what the filters have sent at the end.
    trailers: Option<Frame<Bytes>>,
    recorder: Option<Recorder>,
}

/// What the filters make of a frame.
pub(in super::super) enum Passed {
    /// They keep it for later.
    Nothing,
    /// What is sent: a frame, or the end of the body.
    Frame(Option<Result<Frame<Bytes>, Error>>),
}

/// What a record is made of.
pub(in super::super) struct Recorder {
    run: Box<Run>,
    request: Parts,
    /// The address of the client.
    address: SocketAddr,
    upload: Option<Rc<Upload>>,
    started: Instant,
    source: Source,
    /// The head of the response; `None` if the client has disconnected before.
    answered: Option<(StatusCode, HeaderMap)>,
    /// Bytes of the body that were sent.
    sent: u64,
    /// Bytes that the client has sent after its request, on an upgraded connection.
    received: u64,
}

impl Finish {
    /// `None` if there is nothing left to do.
    pub(in super::super) fn new(
        filters: Vec<Box<dyn BodyFilter>>,
        keeps_length: bool,
        recorder: Option<Recorder>,
    ) -> Option<Box<Self>> {
        (recorder.is_some() || !filters.is_empty() || !keeps_length).then(|| {
            Box::new(Self {
                filters,
                keeps_length,
                trailers: None,
                recorder,
            })
        })
    }

    /// Whether the body passes filters.
    pub(in super::super) fn has_filters(&self) -> bool {
        !self.filters.is_empty()
    }

    /// Whether all filters keep the length of the body.
    pub(in super::super) fn keeps_length(&self) -> bool {
        self.keeps_length
    }

    /// The trailers, once they are next.
    pub(in super::super) fn trailers(&mut self) -> Option<Frame<Bytes>> {
        self.trailers.take()
    }

    /// Passes a frame through the filters. `is_last` is whether no other frame follows it.
    pub(in super::super) fn pass(
        &mut self,
        frame: Option<Result<Frame<Bytes>, Error>>,
        is_last: bool,
    ) -> Passed {
        let is_trailers = matches!(&frame, Some(Ok(frame)) if frame.is_trailers());
        let (piece, trailers) = match frame {
            Some(Err(error)) => {
                // The body is not complete: the filters do not see an end.
                self.filters.clear();
                return Passed::Frame(Some(Err(error)));
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(piece) => (self.data(piece), None),
                Err(trailers) => (Bytes::new(), self.pass_trailers(trailers)),
            },
            None => (Bytes::new(), None),
        };
        let is_end = is_last || is_trailers;
        let tail = if is_end { self.end() } else { Bytes::new() };
        let piece = match (piece.is_empty(), tail.is_empty()) {
            (_, true) => piece,
            (true, false) => tail,
            (false, false) => [piece, tail].concat().into(),
        };
        if !piece.is_empty() {
            self.trailers = trailers;
            if let Some(recorder) = &mut self.recorder {
                recorder.sent += piece.len() as u64;
            }
            return Passed::Frame(Some(Ok(Frame::data(piece))));
        }
        match trailers {
            Some(trailers) => Passed::Frame(Some(Ok(trailers))),
            None if is_end => Passed::Frame(None),
            None => Passed::Nothing,
        }
    }

    /// Shows the filters the trailers. Returns those that they have left.
    fn pass_trailers(&mut self, trailers: Frame<Bytes>) -> Option<Frame<Bytes>> {
        let mut trailers = trailers.into_trailers().ok()?;
        let had_any = !trailers.is_empty();
        for filter in &mut self.filters {
            filter.trailers(&mut trailers);
        }
        let are_taken = had_any && trailers.is_empty();
        (!are_taken).then(|| Frame::trailers(trailers))
    }

    /// What is sent in place of a piece of the body.
    fn data(&mut self, piece: Bytes) -> Bytes {
        let filters = self.filters.iter_mut();
        filters.fold(piece, |piece, filter| match piece.is_empty() {
            true => piece,
            false => filter.data(piece),
        })
    }

    /// What is sent at the end of the body. The filters see nothing after it.
    fn end(&mut self) -> Bytes {
        let mut tail = Bytes::new();
        for mut filter in self.filters.drain(..) {
            let passed = match tail.is_empty() {
                true => Bytes::new(),
                false => filter.data(tail),
            };
            let own = filter.end();
            tail = match (passed.is_empty(), own.is_empty()) {
                (_, true) => passed,
                (true, false) => own,
                (false, false) => [passed, own].concat().into(),
            };
        }
        tail
    }

    /// Adds what has passed through a tunnel.
    pub(in super::super) fn add_passed(&mut self, passed: TunnelBytes) {
        if let Some(recorder) = &mut self.recorder {
            recorder.sent += passed.sent;
            recorder.received += passed.received;
        }
    }

    /// Gives the policies a record of the request.
    pub(in super::super) fn record(&mut self, client: &Client, id: &RequestId) {
        if let Some(recorder) = self.recorder.take() {
            recorder.record(client, id);
        }
    }
}

impl Recorder {
    /// Takes over the head of the request.
    pub(super) fn new(
        run: Box<Run>,
        inbound: &mut Inbound<'_>,
        source: Source,
        answered: Option<(StatusCode, HeaderMap)>,
    ) -> Self {
        let (none, ()) = Request::new(()).into_parts();
        Self {
            run,
            request: std::mem::replace(&mut inbound.parts, none),
            address: inbound.client().address,
            upload: inbound.upload.clone(),
            started: inbound.started,
            source,
            answered,
            sent: 0,
            received: 0,
        }
    }

    pub(super) fn record(self, client: &Client, id: &RequestId) {
        let Self {
            run,
            request,
            address,
            upload,
            started,
            source,
            answered,
            sent,
            received,
        } = self;
        let now = Instant::now();
        let trace = run.trace.unwrap_or_default();
        trace.end_try(TryOutcome::Abandoned, now);
        let info = &client.info;
        let target = request.uri.path_and_query();
        let target = target.map_or("", http::uri::PathAndQuery::as_str);
        let uploaded = upload.as_ref().map_or(0, |upload| upload.received());
        // The request line with its line end, and the empty line.
        let line = request.method.as_str().len() + target.len() + "  HTTP/1.1\r\n\r\n".len();
        let head = answered.as_ref().map_or(0, |(status, headers)| {
            let line = "HTTP/1.1 200 \r\n\r\n".len() + reason_length(*status);
            line + size(headers)
        });
        let (status, response_headers) = answered.unwrap_or_else(|| {
            let closed = StatusCode::from_u16(CLIENT_CLOSED_REQUEST);
            (closed.unwrap_or(StatusCode::BAD_REQUEST), HeaderMap::new())
        });
        let query = match &run.query {
            Some(changed) => changed.text().map(Arc::from),
            None => request.uri.query().map(Arc::from),
        };
        let record = LogRecord::Request(Arc::new(Record {
            id: id.as_str().into(),
            started: SystemTime::now() - (now - started),
            client: address,
            port: info.listener.port,
            scheme: info.listener.scheme.as_str(),
            tls: info.tls,
            host: Arc::clone(&run.host),
            version: request.version,
            method: request.method,
            target: target.into(),
            query,
            request_size: uploaded + received + (line + size(&request.headers)) as u64,
            request_headers: request.headers,
            status,
            response_size: sent + head as u64,
            response_headers,
            source,
            latencies: trace.latencies(started, now),
            upstream_target: trace.upstream_target.take(),
            tries: trace.tries.take(),
            route: run.route.as_ref().map(|(route, ..)| *route),
            service: run.route.as_ref().and_then(|(.., service)| *service),
            subject: run.subject,
            correlation_id: run.correlation_id,
        }));
        for chosen in &run.chosen {
            if chosen.instance.policy.records() {
                chosen.instance.policy.record(&record);
            }
        }
    }
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
    use proptest::prelude::*;

    use super::*;

    /// Keeps the body to its end, and then sends it in upper case.
    #[derive(Default)]
    struct Whole(Vec<u8>);

    impl BodyFilter for Whole {
        fn data(&mut self, piece: Bytes) -> Bytes {
            self.0.extend_from_slice(&piece);
            Bytes::new()
        }

        fn end(&mut self) -> Bytes {
            self.0.to_ascii_uppercase().into()
        }

        fn keeps_length(&self) -> bool {
            false
        }
    }

    /// Doubles each byte, and ends the body with a mark.
    struct Doubled;

    impl BodyFilter for Doubled {
        fn data(&mut self, piece: Bytes) -> Bytes {
            piece.iter().flat_map(|byte| [*byte, *byte]).collect()
        }

        fn end(&mut self) -> Bytes {
            Bytes::from_static(b".")
        }

        fn keeps_length(&self) -> bool {
            false
        }
    }

    fn filtered(first: usize) -> Finish {
        let mut filters: Vec<Box<dyn BodyFilter>> = vec![Box::new(Whole::default())];
        filters.insert(first, Box::new(Doubled));
        Finish {
            filters,
            keeps_length: false,
            trailers: None,
            recorder: None,
        }
    }

    /// What is sent of a body: its bytes, and how many trailers; `None` if it breaks off.
    fn send(
        finish: &mut Finish,
        frames: Vec<Option<Result<Frame<Bytes>, Error>>>,
    ) -> (Vec<u8>, usize, bool) {
        let (mut sent, mut trailers, mut is_broken) = (Vec::new(), 0, false);
        let count = frames.len();
        for (at, frame) in frames.into_iter().enumerate() {
            if let Passed::Frame(Some(frame)) = finish.pass(frame, at + 1 == count) {
                match frame.map(Frame::into_data) {
                    Ok(Ok(piece)) => sent.extend_from_slice(&piece),
                    Ok(Err(_)) => trailers += 1,
                    Err(_) => is_broken = true,
                }
            }
        }
        trailers += usize::from(finish.trailers().is_some());
        (sent, trailers, is_broken)
    }

    proptest! {
        #[test]
        fn a_body_passes_all_filters_however_it_is_divided(
            pieces in proptest::collection::vec("[a-c]{0,3}", 0..5),
            has_trailers: bool,
            is_ended_apart: bool,
            first in 0_usize..2,
        ) {
            let body = pieces.concat();
            let mut frames: Vec<_> = pieces
                .into_iter()
                .map(|piece| Some(Ok(Frame::data(Bytes::from(piece)))))
                .collect();
            if has_trailers {
                frames.push(Some(Ok(Frame::trailers(HeaderMap::new()))));
            } else if is_ended_apart || frames.is_empty() {
                frames.push(None);
            }
            let doubled = |text: &str| text.chars().flat_map(|c| [c, c]).collect::<String>();
            let expected = match first {
                0 => format!("{}.", doubled(&body).to_uppercase()),
                _ => format!("{}.", doubled(&body.to_uppercase())),
            };
            let sent = send(&mut filtered(first), frames);
            prop_assert_eq!(sent, (expected.into_bytes(), usize::from(has_trailers), false));
        }
    }

    #[test]
    fn a_body_that_breaks_off_has_no_end() {
        for first in 0..2 {
            let mut finish = filtered(first);
            let frames = vec![
                Some(Ok(Frame::data(Bytes::from_static(b"ab")))),
                Some(Err("broken".into())),
            ];
            let (sent, _, is_broken) = send(&mut finish, frames);
            assert!(is_broken);
            assert_eq!(sent, b"");
            assert!(!finish.has_filters());
        }
    }
}
