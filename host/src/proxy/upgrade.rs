//! Connections that change their protocol (RFC 9110, 7.8), as for WebSocket: once both sides agree,
//! bytes are passed both ways until one side ends.

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::body::{Exchange, ResponseBody};
use super::headers::tokens;

/// A client's wish to change to another protocol.
pub(super) struct Upgrade {
    /// The protocol, as the client names it.
    pub(super) protocol: HeaderValue,
    client: OnUpgrade,
}

impl Upgrade {
    /// The wish that a request expresses, if it does.
    pub(super) fn asked(parts: &mut Parts) -> Option<Self> {
        let protocol = parts.headers.get(UPGRADE)?.clone();
        let named = tokens(&parts.headers, &CONNECTION).any(|t| t.eq_ignore_ascii_case("upgrade"));
        if !named {
            return None;
        }
        // hyper keeps its side of the upgrade among the extensions, and takes a request only.
        let mut request = Request::new(());
        std::mem::swap(request.extensions_mut(), &mut parts.extensions);
        let client = hyper::upgrade::on(&mut request);
        Some(Self { protocol, client })
    }
}

/// Answers 101 and ties the two connections together. The endpoint counts the request as in flight
/// until the tunnel ends.
pub(super) fn tunnel(
    mut response: Response<Incoming>,
    exchange: Exchange,
    upgrade: Option<Upgrade>,
) -> Response<ResponseBody> {
    let endpoint = hyper::upgrade::on(&mut response);
    let mut response = response.map(|_| ResponseBody::Own(None));
    if let Some(Upgrade { protocol, client }) = upgrade {
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, protocol);
        tokio::task::spawn_local(async move {
            let _exchange = exchange;
            match tokio::try_join!(client, endpoint) {
                Ok((client, endpoint)) => {
                    let mut client = TokioIo::new(client);
                    let mut endpoint = TokioIo::new(endpoint);
                    // How it ends is between the two; a broken connection is an ordinary end.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut endpoint).await;
                }
                Err(error) => tracing::debug!("a connection did not change over: {error}"),
            }
        });
    }
    response
}
