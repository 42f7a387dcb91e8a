//! HTTP/2 with clients (RFC 9113), which hyper serves: several requests at the same time on one
//! connection, each in a task of its own.
//!
//! The requests take the same way as those of HTTP/1.1: `request.rs` gives them the form that the
//! stages know.

mod metered;
mod request;
mod task;

use std::error::Error;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use h2::Reason;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::client::{Client, ConnectionState};
use super::client_stream::ClientStream;
use super::{Worker, handle};
use crate::config;
use crate::request_log;
use metered::MeteredStream;
pub(super) use request::adopt;
use task::StreamExecutor;

/// SETTINGS_MAX_FRAME_SIZE, in bytes: the smallest value that RFC 9113 allows (4.2).
const MAX_FRAME_SIZE: u32 = 16 * 1024;

/// How many bytes of a response hyper accepts for a stream before the client takes them. It accepts
/// one piece of the response more.
const SEND_BUFFER: usize = 16 * 1024;

/// Bytes that count for each header field in addition to its name and value (RFC 9113, 6.5.2).
pub(super) const FIELD_OVERHEAD: usize = 32;

/// How large fields may be before h2 cuts them, where the gateway takes `most` bytes of them.
///
/// h2 leaves out the field by which they become larger, and those after it. Of trailers it does not
/// tell, so a cut must show otherwise: by the fields before it, which exceed `most`, or by the
/// compressed form of all, which the stream below h2 sees. With neither above `most`, all are
/// smaller than this: Huffman's code needs at least five bits for a byte, and the name of the field
/// that h2 leaves out, or the whole field, may be in the table of 4 KiB (RFC 7541).
pub(super) fn before_cut(most: usize) -> usize {
    const TABLE: usize = 4096;
    most.saturating_mul(3).saturating_add(TABLE)
}

/// Most bytes of a head, or of trailers, as HTTP/2 counts them.
fn max_fields(settings: &config::Proxy) -> usize {
    settings.max_header_size + settings.max_headers * FIELD_OVERHEAD
}

fn server(settings: &config::Proxy, client: &Rc<Client>) -> Builder<StreamExecutor> {
    let mut server = Builder::new(StreamExecutor::new(client));
    // h2 answers a larger head itself, without a body, and cuts larger trailers. So its limit is
    // larger than that of the gateway, which answers with an error page.
    let heads = before_cut(max_fields(settings));
    server
        .max_concurrent_streams(settings.http2_max_concurrent_streams)
        .initial_stream_window_size(settings.http2_stream_window_size)
        .initial_connection_window_size(settings.http2_connection_window_size)
        .max_frame_size(MAX_FRAME_SIZE)
        .max_header_list_size(u32::try_from(heads).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(settings.http2_max_pending_resets)
        .max_local_error_reset_streams(settings.http2_max_error_resets)
        .enable_connect_protocol();
    server
}

/// Serves the requests of a connection until it ends.
pub(super) async fn serve(worker: &Rc<Worker>, stream: ClientStream, client: &Rc<Client>) {
    let settings = &worker.settings;
    let streams = client.begin_http2(settings.http2_max_rapid_resets);
    let stream = MeteredStream::new(stream, streams, max_fields(settings));
    let (handler, requester) = (Rc::clone(worker), Rc::clone(client));
    let service = service_fn(move |request: Request<Incoming>| {
        handle(Rc::clone(&handler), requester.begin_stream(), request)
    });
    let server = server(settings, client);
    let mut connection = Box::pin(server.serve_connection(TokioIo::new(stream), service));
    let mut state = ConnectionState::Serving;
    let result = loop {
        tokio::select! {
            biased;
            result = &mut connection => break result,
            new = client.state_after(state) => state = new,
        }
        match state {
            ConnectionState::Serving | ConnectionState::Resting => {}
            ConnectionState::Draining => connection.as_mut().graceful_shutdown(),
            ConnectionState::Closing => break Ok(()),
        }
    };
    let is_refused = result.as_ref().err().is_some_and(is_abuse);
    if is_refused || streams.is_abused() || streams.traffic.is_flooded() {
        worker.counters.abusive.fetch_add(1, Ordering::Relaxed);
    }
    if let Err(error) = result {
        // Clients disconnect at any time, so this is logged at debug level only.
        let _scope = request_log::enter(client.request_in_flight().map(|id| id.digits()));
        tracing::debug!("a client's connection ended: {error}");
    }
}

/// Whether h2 has ended the connection because its client exceeds a limit.
fn is_abuse(error: &hyper::Error) -> bool {
    let cause = error
        .source()
        .and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| {
        cause.is_library() && cause.reason() == Some(Reason::ENHANCE_YOUR_CALM)
    })
}
