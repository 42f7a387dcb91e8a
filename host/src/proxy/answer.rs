//! Stage answer: turns the response of an endpoint into the response to the client.

use std::rc::Rc;

use http::header::{CONNECTION, HeaderMap, HeaderValue, TRAILER, UPGRADE};
use http::{Response, StatusCode};

use super::Inbound;
use super::affinity::Affinity;
use super::answered::close_after;
use super::client::ClientRequest;
use super::download::Content;
use super::exchange::Exchanged;
use super::grpc;
use super::headers;
use super::respond::Reject;
use super::upgrade::Upgrade;
use crate::endpoint::EndReason;
use crate::http1::lists;
use crate::snapshot::Service;

/// Turns the response of an endpoint into the response to the client. The body is streamed as it is
/// received.
pub(super) fn answer(
    inbound: &mut Inbound<'_>,
    service: &Service,
    exchanged: Exchanged,
    affinity: &Affinity<'_>,
    upgrade: Option<Upgrade>,
) -> Result<Response<Content>, Reject> {
    let Exchanged {
        head: mut response,
        mut request,
        times,
        awaited,
    } = exchanged;
    if let Some(run) = &mut inbound.run
        && response.status() != StatusCode::SWITCHING_PROTOCOLS
    {
        run.receive(inbound.parts, &response);
    }
    let status = Some(response.status());
    headers::to_client(
        response.headers_mut(),
        request.exchange.version(),
        &inbound.from.id,
        times,
        status,
        inbound.connection().listener.headers,
    );
    if request.exchange.body_left().is_none() {
        announce_trailers(response.headers_mut(), inbound);
    }
    let names_protocols = matches!(
        response.status(),
        StatusCode::SWITCHING_PROTOCOLS | StatusCode::UPGRADE_REQUIRED
    );
    if names_protocols && response.headers().contains_key(UPGRADE) && !inbound.is_http2() {
        // `Upgrade` is sent with `Connection` alone (RFC 9110, 7.8). A tunnel sets its own. The
        // head of another response has lost it.
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    let upload = inbound.upload.as_ref().filter(|_| !inbound.is_http2());
    if status.is_some_and(|status| status.is_client_error() || status.is_server_error())
        && upload.is_some_and(|upload| !upload.is_received())
    {
        // The endpoint does not want the rest of the body, so the connection ends after the
        // response.
        close_after(response.headers_mut());
    }
    affinity.set_cookie(response.headers_mut(), request.in_flight.endpoint().id);
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return match upgrade {
            Some(upgrade) => {
                let ClientRequest { client, id, .. } = inbound.from;
                Ok(upgrade.tunnel(response, request, Rc::clone(client), *id, service))
            }
            // `Outbound::refusal_of` refuses such a response before.
            None => {
                request.in_flight.end_now(EndReason::Broken);
                Err(Reject::Upstream {
                    timeout: false,
                    latencies: times,
                })
            }
        };
    }
    if upgrade.is_some() && inbound.is_http2() && response.status().is_success() {
        // To a client over HTTP/2, a success says that the tunnel is open (RFC 8441, 5), but the
        // endpoint has not switched protocols.
        request.in_flight.end_now(EndReason::Broken);
        return Err(Reject::Upstream {
            timeout: false,
            latencies: times,
        });
    }
    Ok(response.map(|()| Content::streamed(request, awaited, service.read_timeout)))
}

/// Has hyper send the trailers that the client accepts. A body of known length is sent without
/// trailers over HTTP/1.1; with any other one, hyper sends those that `Trailer` announces.
fn announce_trailers(headers: &mut HeaderMap, inbound: &Inbound<'_>) {
    if !inbound.takes_trailers {
        // RFC 9110, 6.5.1.
        headers.remove(TRAILER);
    } else if !inbound.is_http2()
        && grpc::owes_status(headers)
        && !lists(headers, &TRAILER, grpc::STATUS_TRAILERS[0])
    {
        // Over HTTP/2, servers of gRPC announce no trailers.
        let names = grpc::STATUS_TRAILERS.join(", ");
        if let Ok(names) = HeaderValue::try_from(names) {
            headers.append(TRAILER, names);
        }
    }
}
