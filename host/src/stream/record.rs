//! What the policies that log are told of a stream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use uuid::Uuid;

use super::figures::StreamStatus;
use crate::endpoint_address::EndpointAddress;
use crate::policy::chain::Instance;
use crate::policy::record::{LogRecord, StreamRecord, Try, TryOutcome};
use crate::tls::NegotiatedTls;

/// Collects what becomes of a stream, and gives its policies a record of it.
pub(super) struct Recorder {
    started: Instant,
    /// The client, and the address at which the stream has arrived.
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) tls: Option<NegotiatedTls>,
    pub(super) route: Option<Uuid>,
    pub(super) service: Option<Uuid>,
    /// The instances that log.
    pub(super) policies: Vec<Arc<Instance>>,
    /// When the first endpoint was chosen.
    first_try: Option<Instant>,
    tries: Vec<Try>,
    pub(super) from_client: u64,
    pub(super) to_client: u64,
    pub(super) from_endpoint: u64,
    pub(super) to_endpoint: u64,
}

impl Recorder {
    /// For a stream that begins now.
    pub(super) fn new(source: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            started: Instant::now(),
            source,
            destination,
            tls: None,
            route: None,
            service: None,
            policies: Vec::new(),
            first_try: None,
            tries: Vec::new(),
            from_client: 0,
            to_client: 0,
            from_endpoint: 0,
            to_endpoint: 0,
        }
    }

    /// Adds a try with an endpoint. `wanted` is when it was asked for, and `chosen` when it was
    /// chosen.
    pub(super) fn add_try(
        &mut self,
        address: &EndpointAddress,
        wanted: Instant,
        chosen: Instant,
        outcome: TryOutcome,
    ) {
        self.first_try.get_or_insert(chosen);
        if !self.policies.is_empty() {
            self.tries.push(Try {
                address: address.clone(),
                pick: None,
                started: SystemTime::now() - wanted.elapsed(),
                balancer: chosen - wanted,
                took: wanted.elapsed(),
                failure: None,
                outcome,
            });
        }
    }

    /// Gives the policies the record.
    pub(super) fn finish(self, status: StreamStatus) {
        if self.policies.is_empty() {
            return;
        }
        let now = Instant::now();
        let record = LogRecord::Stream(Arc::new(StreamRecord {
            started: SystemTime::now() - (now - self.started),
            client: self.source,
            port: self.destination.port(),
            tls: self.tls,
            status: status.code(),
            received: self.from_client,
            sent: self.to_client,
            upstream_received: self.from_endpoint,
            upstream_sent: self.to_endpoint,
            tries: self.tries,
            duration: now - self.started,
            gateway: self.first_try.unwrap_or(now) - self.started,
            route: self.route,
            service: self.service,
        }));
        for instance in &self.policies {
            instance.policy.record(&record);
        }
    }
}
