//! What the access log, and the policies that log, are told of a stream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use uuid::Uuid;

use super::figures::StreamStatus;
use crate::access_log::StreamWriter;
use crate::clock;
use crate::endpoint_address::EndpointAddress;
use crate::policy::chain::Instance;
use crate::policy::record::{LogRecord, StreamDetails, StreamRecord, Try, TryOutcome};
use crate::tls::NegotiatedTls;
use crate::traffic::{StreamSample, TRAFFIC};

/// Collects what becomes of a stream, and gives the log and its policies a record of it.
pub(super) struct Recorder {
    started: Instant,
    /// Whether streams are logged.
    is_logged: bool,
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
    pub(super) details: StreamDetails,
}

impl Recorder {
    /// For a stream that begins now.
    pub(super) fn new(
        source: SocketAddr,
        destination: SocketAddr,
        is_udp: bool,
        is_logged: bool,
    ) -> Self {
        Self {
            started: Instant::now(),
            is_logged,
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
            details: StreamDetails {
                is_udp,
                server: Some(destination.ip()),
                ..StreamDetails::default()
            },
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
        if self.is_logged || !self.policies.is_empty() {
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

    /// Adds the stream to the live traffic, which the Admin API shows.
    #[cold]
    fn show(&self, status: StreamStatus) {
        TRAFFIC.note_stream(StreamSample {
            route: self.route,
            client: self.source.ip(),
            port: self.destination.port(),
            transport: match self.details.is_udp {
                true => "udp",
                false => "tcp",
            },
            status: status.code(),
            received: self.from_client,
            sent: self.to_client,
            took: self.started.elapsed(),
            at: clock::micros(Instant::now()),
        });
    }

    /// Gives the log and the policies the record.
    pub(super) fn finish(self, status: StreamStatus, log: Option<&StreamWriter>) {
        if TRAFFIC.is_watched() {
            self.show(status);
        }
        if log.is_none() && self.policies.is_empty() {
            return;
        }
        let now = Instant::now();
        let record = StreamRecord {
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
            details: self.details,
        };
        if let Some(log) = log {
            log.write(&record, now);
        }
        if self.policies.is_empty() {
            return;
        }
        let record = LogRecord::Stream(Arc::new(record));
        for instance in &self.policies {
            instance.policy.record(&record);
        }
    }
}
