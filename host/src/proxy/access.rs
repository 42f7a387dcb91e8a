//! Stage access: checks whether a request may use its route.

use http::Version;

use super::Inbound;
use super::connection_info::Scheme;
use super::grpc;
use super::headers::X_FORWARDED_HOST;
use super::matched::Matched;
use super::respond::Reject;
use crate::authority::Authority;

/// Checks that the request may use the route, or returns the reason for the refusal.
pub(super) fn check(inbound: &Inbound<'_>, matched: &Matched<'_>) -> Result<(), Reject> {
    let route = matched.route;
    if let Some(status) = route.https_only
        && inbound.scheme() == Scheme::Http
    {
        let host = forwarded_host(inbound).unwrap_or_else(|| matched.host.name());
        let target = &matched.target;
        return Err(Reject::HttpsOnly {
            status,
            location: format!("https://{host}{target}"),
        });
    }
    if route.grpc_only {
        if !grpc::is_grpc(&inbound.parts.headers) {
            return Err(Reject::NotGrpc);
        }
        if inbound.parts.version < Version::HTTP_2 {
            return Err(Reject::Http2Only);
        }
        if route.grpcs_only && inbound.scheme() == Scheme::Http {
            return Err(Reject::GrpcsOnly);
        }
    }
    Ok(())
}

/// The host that the client has requested from a proxy in front of the gateway, if the peer is
/// trusted to say so. What is no host is ignored. Source: Kong.
fn forwarded_host<'a>(inbound: &'a Inbound<'_>) -> Option<&'a str> {
    let is_trusted = inbound.connection().trust.keeps_forwarded;
    let sent = is_trusted.then(|| inbound.parts.headers.get(X_FORWARDED_HOST))??;
    sent.to_str()
        .ok()
        .filter(|host| Authority::parse(host).is_some())
}
