//! Connections that change their protocol to WebSocket (RFC 9110, 7.8; RFC 6455): once both sides
//! agree, bytes are passed both ways until one side ends.
//!
//! Over HTTP/2, a stream becomes the tunnel (RFC 8441). The endpoint speaks HTTP/1.1 in any case.
//!
//! No other protocol is allowed: the bytes of such a connection bypass the router, and HTTP/2 in
//! clear text (`h2c`) would carry requests that were never matched with a route.

use std::rc::Rc;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE,
};
use http::request::Parts;
use http::{Request, Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};
use tokio::io::AsyncWriteExt;

use super::backlog::Phase;
use super::client::{Client, SEND_TIMEOUT};
use super::download::{Content, UpstreamRequest};
use super::request_id::RequestId;
use super::tunnel::{Tunnel, TunnelBytes};
use crate::endpoint::EndReason;
use crate::http1::lists;
use crate::relay::{LastMove, Side};
use crate::request_log;
use crate::snapshot::Service;

/// Turns of the worker's loop in which what is on its way to a client over HTTP/2 is sent, before
/// its stream is reset.
const SETTLING: usize = 4;

/// What a server of WebSocket adds to the client's key (RFC 6455, 1.3).
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Why a 101 with these headers does not accept the `request` that was sent, if it does not. The
/// client of HTTP/1.1 checks itself whether its key was read (RFC 6455, 4.1); that of HTTP/2 has
/// sent none, and relies on the gateway.
pub(super) fn mismatch(headers: &HeaderMap, request: &Parts) -> Option<&'static str> {
    let mut protocols = headers.get_all(UPGRADE).iter();
    let is_websocket = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"websocket");
    if !protocols.next().is_some_and(is_websocket) || protocols.next().is_some() {
        return Some("it changes to a protocol that the client has not requested");
    }
    if request.version < Version::HTTP_2 {
        return None;
    }
    let key = request.headers.get(SEC_WEBSOCKET_KEY);
    let accepted = headers.get(SEC_WEBSOCKET_ACCEPT);
    let is_accepted = key.zip(accepted).is_some_and(|(key, accepted)| {
        let hash = Sha1::new().chain_update(key).chain_update(KEY_SUFFIX);
        STANDARD.encode(hash.finalize()).as_bytes() == accepted.as_bytes()
    });
    (!is_accepted).then_some("its Sec-WebSocket-Accept does not belong to the key")
}

/// A client's request to change to another protocol.
pub(super) struct Upgrade {
    /// The protocol, as it is sent to the endpoint.
    pub(super) protocol: HeaderValue,
    client: OnUpgrade,
}

impl Upgrade {
    /// Reads the `Upgrade` of a request, if it asks for a supported protocol. As in Kong,
    /// `Connection` need not name it: some proxies in front drop that.
    pub(super) fn asked(parts: &mut Parts) -> Option<Self> {
        if !parts.headers.contains_key(UPGRADE) || parts.version < Version::HTTP_11 {
            return None;
        }
        if !lists(&parts.headers, &UPGRADE, "websocket") {
            return None;
        }
        // hyper keeps its side of the upgrade in the extensions, and accepts only a whole request.
        let mut request = Request::new(());
        std::mem::swap(request.extensions_mut(), &mut parts.extensions);
        let client = hyper::upgrade::on(&mut request);
        let protocol = HeaderValue::from_static("websocket");
        Some(Self { protocol, client })
    }

    /// Answers 101, or 200 over HTTP/2, and connects the two connections to a tunnel. Until the
    /// tunnel ends, the endpoint counts the request as in flight, and a shutdown waits for it as
    /// for any other request. The tunnel ends when no byte was passed in either direction for the
    /// service's `read_timeout`, or when one side does not read what the other sends. Source:
    /// nginx, `proxy_read_timeout` and so on of an upgraded connection.
    pub(super) fn tunnel(
        self,
        mut response: Response<()>,
        request: UpstreamRequest,
        connection: Rc<Client>,
        id: RequestId,
        service: &Service,
    ) -> Response<Content> {
        let (read_timeout, write_timeout) = (service.read_timeout, service.write_timeout);
        let headers = response.headers_mut();
        let mut sending = None;
        let busy = if let Some(backlog) = connection.backlog() {
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(UPGRADE, self.protocol);
            backlog.enter(Phase::Tunnel);
            None
        } else {
            headers.remove(SEC_WEBSOCKET_ACCEPT);
            headers.remove(UPGRADE);
            *response.status_mut() = StatusCode::OK;
            let streams = connection.streams();
            sending = streams.map(|streams| streams.begin_tunnel(Instant::now()));
            Some(connection.busy())
        };
        let client = self.client;
        let UpstreamRequest {
            exchange,
            mut in_flight,
            worker,
            mut drain,
        } = request;
        in_flight.note_answered();
        let tunnel = Rc::<Tunnel>::default();
        let content = Content::Tunnel(Rc::clone(&tunnel));
        tokio::task::spawn_local(async move {
            let _held = (worker, connection, busy);
            let Some((_permit, endpoint, received)) = exchange.into_tunnel() else {
                in_flight.end_now(EndReason::Broken);
                return;
            };
            match client.await {
                Ok(client) => {
                    let last_move = LastMove::now();
                    let mut endpoint = Side::new(endpoint, &last_move, write_timeout);
                    let mut client = Side::new(TokioIo::new(client), &last_move, SEND_TIMEOUT);
                    // A broken connection is an ordinary end of a tunnel, but the balancer may
                    // learn from it.
                    if client.write_all(&received).await.is_ok() {
                        let copied = tokio::io::copy_bidirectional(&mut client, &mut endpoint);
                        let (cut_off, is_broken) = tokio::select! {
                            copied = copied => (None, copied.is_err()),
                            () = last_move.is_past(read_timeout) => (Some(EndReason::Timeout), false),
                            () = std::future::poll_fn(|cx| drain.poll(cx)) => (Some(EndReason::Drained), false),
                        };
                        let ended = || EndReason::of_tunnel(endpoint.failure(), client.failure());
                        in_flight.note_passed(received.len() as u64 + endpoint.read());
                        in_flight.end_now(cut_off.unwrap_or_else(ended));
                        // A client over HTTP/2 sees a reset as such (RFC 8441, 5).
                        if let Some(sending) = sending.filter(|_| is_broken) {
                            // What the endpoint has sent before may still be on its way to hyper,
                            // and from there to the connection.
                            for _ in 0..SETTLING {
                                tokio::task::yield_now().await;
                            }
                            sending.expire();
                        }
                    }
                    tunnel.note_passed(TunnelBytes {
                        sent: client.written(),
                        received: client.read(),
                    });
                }
                Err(error) => {
                    let _scope = request_log::enter(Some(id.digits()));
                    tracing::debug!("a connection did not change its protocol: {error}");
                }
            }
        });
        response.map(|()| content)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    fn request(version: Version) -> Parts {
        // The key of the example in RFC 6455, 1.3.
        let request = Request::builder()
            .version(version)
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        request.body(()).unwrap().into_parts().0
    }

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let fields = fields.iter().map(|(name, value)| {
            let name = http::HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        });
        fields.collect()
    }

    #[test]
    fn only_a_change_to_websocket_is_accepted() {
        let request = request(Version::HTTP_11);
        assert_eq!(
            mismatch(&headers(&[("upgrade", "WebSocket")]), &request),
            None
        );
        for fields in [
            &[][..],
            &[("upgrade", "foo")],
            &[("upgrade", "websocket, foo")],
        ] {
            assert!(mismatch(&headers(fields), &request).is_some(), "{fields:?}");
        }
    }

    #[test]
    fn over_http2_the_accept_header_must_match_the_gateways_key() {
        let request = request(Version::HTTP_2);
        let answer = |accept: Option<&'static str>| {
            let mut answer = headers(&[("upgrade", "websocket")]);
            let accept = accept.map(HeaderValue::from_static);
            answer.extend(accept.map(|accept| (SEC_WEBSOCKET_ACCEPT, accept)));
            mismatch(&answer, &request)
        };
        assert_eq!(answer(Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")), None);
        assert!(answer(Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOp=")).is_some());
        assert!(answer(None).is_some());
    }
}
