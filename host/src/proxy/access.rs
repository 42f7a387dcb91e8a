//! Stage access: checks whether a request may use its route.

use http::Version;

use super::Inbound;
use super::connection_info::Scheme;
use super::grpc;
use super::matched::Matched;
use super::respond::Reject;

/// Checks that the request may use the route, or returns the reason for the refusal.
pub(super) fn check(inbound: &Inbound<'_>, matched: &Matched<'_>) -> Result<(), Reject> {
    let route = matched.route;
    if let Some(status) = route.https_only
        && inbound.scheme() == Scheme::Http
    {
        let (host, target) = (matched.host.name(), &matched.target);
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
