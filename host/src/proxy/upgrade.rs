//! Connections that change their protocol to WebSocket (RFC 9110, 7.8; RFC 6455): once both sides
//! agree, bytes are passed both ways until one side ends.
//!
//! No other protocol is let through: what follows on such a connection passes by the router, and
//! HTTP/2 in clear text (`h2c`) would carry requests that no route has seen.

use std::rc::Rc;

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{Request, Response, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use super::body::{Content, Exchange};
use super::client::Client;
use super::headers::tokens;

/// A client's wish to change to another protocol.
pub(super) struct Upgrade {
    /// The protocol, as it is asked for at the endpoint.
    pub(super) protocol: HeaderValue,
    client: OnUpgrade,
}

impl Upgrade {
    /// The wish that a request expresses, if it does.
    pub(super) fn asked(parts: &mut Parts) -> Option<Self> {
        if !parts.headers.contains_key(UPGRADE) || parts.version != Version::HTTP_11 {
            return None;
        }
        let has = |name, token: &str| {
            tokens(&parts.headers, &name).any(|sent| sent.eq_ignore_ascii_case(token))
        };
        if !has(CONNECTION, "upgrade") || !has(UPGRADE, "websocket") {
            return None;
        }
        // hyper keeps its side of the upgrade among the extensions, and takes a request only.
        let mut request = Request::new(());
        std::mem::swap(request.extensions_mut(), &mut parts.extensions);
        let client = hyper::upgrade::on(&mut request);
        let protocol = HeaderValue::from_static("websocket");
        Some(Self { protocol, client })
    }

    /// Answers 101 and ties the two connections together. Until the tunnel ends, the endpoint counts
    /// the request as in flight, and a shutdown waits for it as for any other.
    pub(super) fn tunnel(
        self,
        mut response: Response<()>,
        exchange: Exchange,
        connection: Rc<Client>,
    ) -> Response<Content> {
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, self.protocol);
        let client = self.client;
        let Exchange {
            connection: endpoint,
            in_flight,
            worker,
            mut drain,
        } = exchange;
        tokio::task::spawn_local(async move {
            let _held = (in_flight, worker, connection);
            let (mut endpoint, received) = endpoint.into_parts();
            match client.await {
                Ok(client) => {
                    let mut client = TokioIo::new(client);
                    // How it ends is between the two; a broken connection is an ordinary end.
                    if client.write_all(&received).await.is_ok() {
                        let copied = tokio::io::copy_bidirectional(&mut client, &mut endpoint);
                        tokio::select! {
                            _ = copied => {}
                            () = std::future::poll_fn(|cx| drain.poll(cx)) => {}
                        }
                    }
                }
                Err(error) => tracing::debug!("a connection did not change over: {error}"),
            }
        });
        response.map(|()| Content::Own(None))
    }
}
