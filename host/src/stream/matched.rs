//! The route of a stream, and whether its policies let it pass.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Worker;
use super::figures::StreamStatus;
use super::record::Recorder;
use crate::policy::Stream;
use crate::policy::chain::{Chain, Instance, Policies};
use crate::router::{StreamProtocol, StreamQuery, StreamRoute};
use crate::snapshot::{Service, Snapshot};

/// A stream that may go to an endpoint.
pub(super) struct Matched {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) route: Arc<StreamRoute>,
    /// The protocol of the stream.
    pub(super) protocol: StreamProtocol,
}

/// Finds the route of a stream, and runs its policies. Those that log are kept for its record.
pub(super) fn find(
    worker: &Worker,
    query: &StreamQuery<'_>,
    record: &mut Recorder,
) -> Result<Matched, StreamStatus> {
    let (_, snapshot) = worker.published.current();
    let policies = &snapshot.stream_policies;
    let Some((route, protocol)) = snapshot.stream_router.route(query) else {
        let (source, destination) = (query.source, query.destination);
        tracing::debug!(%source, %destination, "stream: no Route found with those values");
        worker.figures.note_unmatched(destination);
        run(policies, policies.of_unmatched(), record, |_| true);
        return Err(StreamStatus::NoRoute);
    };
    let route = Arc::clone(route);
    (record.route, record.service) = (Some(route.id), route.service);
    if worker.access_log.is_some() {
        record.details.route_name = route.name.clone();
        let service = route.service.and_then(|id| snapshot.services.get(&id));
        record.details.service_name = service.map(|service| Arc::clone(&service.name));
    }
    let stream = Stream {
        client: query.source,
    };
    let chain = policies.of_route(route.id, route.service);
    let is_admitted = run(policies, chain, record, |instance| {
        let is_admitted = instance.policy.admits_stream(&stream);
        if !is_admitted {
            let (plugin, source) = (instance.name, query.source);
            tracing::debug!(plugin, %source, "stream refused by a policy");
        }
        is_admitted
    });
    match is_admitted {
        true => Ok(Matched {
            snapshot,
            route,
            protocol,
        }),
        false => Err(StreamStatus::Forbidden),
    }
}

/// Asks the policies of a chain in their order until one refuses the stream. All of them that log
/// get its record. Returns whether all admit it.
fn run(
    policies: &Policies,
    chain: Option<&Arc<Chain>>,
    record: &mut Recorder,
    admits: impl Fn(&Instance) -> bool,
) -> bool {
    let mut is_admitted = true;
    for step in chain.into_iter().flat_map(|chain| chain.steps()) {
        let Some(instance) = step.choose(policies, None) else {
            continue;
        };
        is_admitted = is_admitted && admits(instance);
        if instance.policy.records() {
            record.policies.push(Arc::clone(instance));
        }
    }
    is_admitted
}

impl Matched {
    /// The service of the route.
    pub(super) fn service(&self) -> Result<&Service, StreamStatus> {
        let service = self.route.service;
        let service = service.and_then(|id| self.snapshot.services.get(&id));
        service.map(Arc::as_ref).ok_or_else(|| {
            let route = self.route.id;
            tracing::debug!(%route, "stream: no Service found with those values");
            StreamStatus::Unavailable
        })
    }
}

/// The form in which addresses are compared: an IPv4 address within IPv6 is one of IPv4.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
