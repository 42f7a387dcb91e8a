//! Where requests can go: endpoints and their live numbers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

/// One address that requests can be sent to, shared by all workers.
#[derive(Debug)]
pub struct Endpoint {
    /// Hash of host and port as configured and resolved; equal on every gateway.
    pub id: u64,
    /// Where to connect to.
    pub address: SocketAddr,
    /// The host of the target as it was written: an address or a name.
    pub host: String,
    /// Share of the traffic, 1 to 65535.
    pub weight: u32,
    in_flight: AtomicU32,
}

impl Endpoint {
    /// An endpoint that no request has been sent to.
    pub fn new(id: u64, address: SocketAddr, host: String, weight: u32) -> Self {
        Self {
            id,
            address,
            host,
            weight,
            in_flight: AtomicU32::new(0),
        }
    }

    /// Requests sent and not yet answered in full, over all workers.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }
}
