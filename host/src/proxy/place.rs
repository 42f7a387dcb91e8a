//! Stage place: the service, its upstream, and the endpoint that a request is sent to.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::affinity::{Affinity, RequestFacts};
use super::client_host::ClientHost;
use super::headers::Forwarded;
use super::matched::Matched;
use super::respond::Reject;
use super::upload::Upload;
use super::wire::{Destination, Secure};
use super::{Inbound, Worker};
use crate::balancer::{self, BODY_START, ReadBody};
use crate::endpoint::{Endpoint, InFlight};
use crate::router::Route;
use crate::snapshot::{Service, Snapshot};
use crate::upstream::{Unplaced, Upstream};

/// The service of a route.
pub(super) fn service<'s>(snapshot: &'s Snapshot, route: &Route) -> Result<&'s Service, Reject> {
    let service = route
        .service
        .and_then(|id| snapshot.services.get(&id))
        .ok_or(Reject::NoService)?;
    if let Some(reason) = &service.unsupported {
        tracing::warn!(service = &*service.name, "{reason}");
        return Err(Reject::Unsupported(reason.clone()));
    }
    Ok(service)
}

/// The part of a body that was read for the balancer, and whether there may be more of it.
pub(super) type BodyPart = (Bytes, bool);

/// Reads the part of the body that is needed before an endpoint is chosen. Returns the part that
/// the balancer may ask about, if it asks about bodies.
pub(super) async fn read_ahead(
    worker: &Worker,
    route: &Route,
    service: &Service,
    upload: &Upload,
) -> Result<Option<BodyPart>, Reject> {
    if service.grpc {
        // A client may wait for messages of the server before it sends more.
        return Ok(None);
    }
    if route.request_buffering {
        let settings = &worker.settings;
        let (size, min_rate) = (
            settings.client_body_buffer_size,
            settings.client_body_min_rate,
        );
        upload.buffer(size, min_rate).await?;
    }
    let balancer = service.upstream.balancer();
    let most = if balancer.scans_bodies() {
        service.upstream.policy().balancer_body_size()
    } else if balancer.reads_bodies() {
        BODY_START
    } else {
        return Ok(match balancer.observed_body() {
            0 => None,
            most => {
                Some(upload.read_so_far(most.min(service.upstream.policy().balancer_body_size())))
            }
        });
    };
    upload.start(most).await.map(Some)
}

/// The facts of a request: hash keys are read from them, and balancers can query them.
pub(super) fn facts<'a>(
    inbound: &'a Inbound<'_>,
    matched: &'a Matched<'_>,
    body: Option<&'a BodyPart>,
) -> RequestFacts<'a> {
    RequestFacts {
        method: &inbound.parts.method,
        headers: &inbound.parts.headers,
        ip: &inbound.client().ip,
        consumer: inbound.run.as_ref().and_then(|run| run.subject.id()),
        path: matched.path(),
        query: matched.target.query(),
        regex: matched.regex,
        body: body.map(|(start, is_cut)| ReadBody::shared(start, *is_cut).into()),
    }
}

/// The affinity of the request to an endpoint of its service.
pub(super) fn affinity<'s>(service: &'s Service, facts: &RequestFacts<'_>) -> Affinity<'s> {
    let policy = service.upstream.policy().affinity.as_ref();
    policy.map_or_else(Affinity::default, |policy| Affinity::of(policy, facts))
}

/// Picks the endpoint of the next try, and counts the request as in flight there.
pub(super) async fn pick(
    service: &Service,
    request: balancer::PickRequest<'_>,
    tried: &[u64],
    may_trial: bool,
) -> Result<InFlight, Reject> {
    let upstream = &*service.upstream;
    let picked = if upstream.is_limited() {
        let patience = service.connect_timeout;
        let shares = service.http2.is_some();
        Box::pin(upstream.place(request, tried, may_trial, patience, shares)).await
    } else {
        upstream.pick(request, tried, may_trial)
    };
    picked.map_err(|unplaced| no_peer(upstream, unplaced))
}

pub(super) fn no_peer(upstream: &Upstream, unplaced: impl Into<Unplaced>) -> Reject {
    let Unplaced { reason, refusal } = unplaced.into();
    upstream.note_without_peer(reason);
    let (upstream, name, code) = (upstream.named, &*upstream.name, reason.code());
    match refusal {
        // The balancer does what it is for, as a rate limit does. A warning for each request would
        // fill the log.
        Some(balancer::Refusal { status, .. }) => {
            tracing::debug!(upstream = name, status, "the balancer refused the request");
        }
        None => tracing::warn!(upstream = name, reason = code, "no endpoint may be chosen"),
    }
    Reject::NoPeer {
        upstream,
        reason,
        refusal,
    }
}

/// The destination of a request to an endpoint. `own` is whether the endpoint's connections are
/// limited; `upgrades` is whether the request asks to change the protocol, which only HTTP/1.1 can;
/// `forwarded` says whose request it is.
pub(super) fn destination_of(
    endpoint: &Endpoint,
    service: &Service,
    preserved: Option<&ClientHost>,
    own: bool,
    upgrades: bool,
    forwarded: &Forwarded<'_>,
) -> Destination {
    let version = service.upstream.policy().proxy_protocol();
    Destination {
        proxied: version.map(|version| Box::new(forwarded.proxy_header(version))),
        http2: service.http2.filter(|_| !upgrades),
        address: endpoint.address.clone(),
        owner: if own { endpoint.identity() } else { 0 },
        tls: service.tls.as_ref().map(|client| {
            let policy = service.upstream.policy();
            let client = Arc::clone(client);
            let address = &endpoint.address;
            match (
                policy.server_name(),
                preserved,
                &service.upstream.host_header,
            ) {
                (Some(name), ..) => Secure::named(name.clone(), client),
                (None, Some(host), _) => Secure::new(host.host().as_ref(), address, client),
                (None, None, Some(header)) => Secure::new(Some(&header.host), address, client),
                (None, None, None) => Secure::new(Some(&endpoint.host), address, client),
            }
        }),
    }
}

/// The `Host` header that a target gets. With `preserve_host` it is the client's, as it was sent.
/// Otherwise it is the upstream's `host_header`, or else the target's own host. The target's port
/// is added, unless the setting names a port or the port is the protocol's default.
pub(super) fn host_for<'a>(
    endpoint: &'a Endpoint,
    service: &'a Service,
    preserved: Option<&'a ClientHost>,
) -> Cow<'a, str> {
    let own = if service.tls.is_some() { 443 } else { 80 };
    let port = endpoint.address.port().unwrap_or(own);
    match (preserved, &service.upstream.host_header) {
        (Some(client), _) => client.sent().into(),
        (None, Some(header)) => header.with_port(port, own),
        (None, None) if service.tls.is_none() => endpoint.authority.as_str().into(),
        (None, None) => endpoint.host.with_port(port, own).into(),
    }
}
