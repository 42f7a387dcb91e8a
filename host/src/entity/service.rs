//! A service: where the requests of a route are sent. Source: Kong 3.9, `services`.

use serde::Deserialize;
use uuid::Uuid;

/// What the data plane reads of a service.
#[derive(Debug, Clone, Deserialize)]
pub struct Service {
    /// Primary key.
    pub id: Uuid,
    /// Unique name.
    pub name: Option<String>,
    /// `http`, `https`, `grpc` and so on.
    pub protocol: String,
    /// Name of an upstream, an address or a host name.
    pub host: String,
    /// Port of `host`; not used where `host` names an upstream.
    pub port: u16,
    /// Put in front of the path of each request.
    pub path: Option<String>,
    /// Further tries after the first one failed.
    pub retries: Option<u32>,
    /// Longest time to connect, in milliseconds.
    pub connect_timeout: Option<u64>,
    /// Longest time between two writes, in milliseconds.
    pub write_timeout: Option<u64>,
    /// Longest time between two reads, in milliseconds.
    pub read_timeout: Option<u64>,
    /// Whether its routes are served.
    pub enabled: bool,
}
