//! An upstream as the data plane reads it.

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::authority::Authority;
use crate::entity::ForeignKey;
use crate::listener::ProxyVersion;

/// What the data plane reads of an upstream.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Upstream {
    /// Primary key.
    pub id: Uuid,
    /// The host name that services use to refer to it.
    pub name: String,
    /// Name of the balancer that chooses among its targets.
    pub algorithm: String,
    /// `Host` to send in place of the target's own.
    pub host_header: Option<Authority<'static>>,
    /// Whether `Host` is the name in an SRV record, instead of the target's.
    pub use_srv_name: Option<bool>,
    /// The certificate that endpoints are shown, where their service does not name one; none if
    /// none is.
    pub client_certificate: Option<ForeignKey>,
    /// Number of points of a ring; see the balancer `consistent-hashing`.
    pub slots: u32,
    /// The sources of the affinity hash.
    #[serde(flatten)]
    pub hashing: Hashing,
    /// Name of the cookie that ties a session to its endpoint.
    pub sticky_sessions_cookie: Option<String>,
    /// The `Path` of that cookie.
    pub sticky_sessions_cookie_path: Option<String>,
    /// How its targets are checked.
    #[serde(default)]
    pub healthchecks: HealthChecks,
    /// The extensions beyond Kong.
    #[serde(default)]
    pub pointsman: Extension,
}

/// The sources of the affinity hash.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names are Kong's")]
pub struct Hashing {
    pub hash_on: Option<String>,
    pub hash_fallback: Option<String>,
    pub hash_on_header: Option<String>,
    pub hash_fallback_header: Option<String>,
    pub hash_on_cookie: Option<String>,
    pub hash_on_cookie_path: Option<String>,
    pub hash_on_query_arg: Option<String>,
    pub hash_fallback_query_arg: Option<String>,
    pub hash_on_uri_capture: Option<String>,
    pub hash_fallback_uri_capture: Option<String>,
}

/// How targets are checked.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names are Kong's")]
pub struct HealthChecks {
    pub threshold: f64,
    pub active: ActiveChecks,
    pub passive: PassiveChecks,
}

/// Active checks: probes.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names are Kong's")]
pub struct ActiveChecks {
    pub r#type: String,
    pub timeout: f64,
    pub concurrency: u32,
    pub http_path: String,
    pub https_sni: Option<String>,
    pub https_verify_certificate: bool,
    pub headers: Option<std::collections::BTreeMap<String, Vec<String>>>,
    pub healthy: Healthy,
    pub unhealthy: Unhealthy,
}

/// Passive checks: the outcomes of proxied requests.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names are Kong's")]
pub struct PassiveChecks {
    pub healthy: Healthy,
    pub unhealthy: Unhealthy,
}

/// What makes an address healthy.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names are Kong's")]
pub struct Healthy {
    pub interval: f64,
    pub http_statuses: Option<Vec<u16>>,
    pub successes: u32,
}

/// What makes an address unhealthy.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names are Kong's")]
pub struct Unhealthy {
    pub interval: f64,
    pub http_statuses: Option<Vec<u16>>,
    pub tcp_failures: u32,
    pub timeouts: u32,
    pub http_failures: u32,
}

/// The extensions beyond Kong.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Extension {
    /// Settings of the balancer, an object that fits its schema.
    pub balancer_config: Option<Value>,
    /// Digest of the balancer's version that serves; none for the active one.
    pub balancer_version: Option<String>,
    /// Seconds that reported values count which were set over the Admin API; none for the usual
    /// number.
    pub facts_max_age: Option<u32>,
    /// KiB of a request's body that the balancer may ask about; none for the usual number.
    pub balancer_body_size: Option<u32>,
    /// Which figures of targets' own metrics are read.
    pub reports: Reports,
    /// Limits of the balancer, where they are below the gateway's settings.
    pub balancer_limits: BalancerLimits,
    /// A second balancer that decides in parallel with the first, without effect.
    pub shadow: Option<Shadow>,
    /// Whether a target's weight is divided among the addresses of its name. In Kong each address
    /// gets all of it.
    pub share_weight: bool,
    /// Whether one of the gateways that share the configuration probes for all of its channel.
    pub share_probes: bool,
    /// Below this percentage of available addresses all of them are used; with 0 never.
    pub panic_threshold: f64,
    /// Seconds that requests in flight may go on at an address that was deleted or is unhealthy;
    /// with 0 as long as they take.
    pub drain_timeout: f64,
    /// The header of the PROXY protocol that connections to targets begin with; none for none.
    pub proxy_protocol: Option<ProxyVersion>,
    /// How targets are probed.
    pub probe: Probe,
    /// TLS to targets.
    pub tls: Tls,
    /// Recovery of addresses that passive checks took out.
    pub recovery: Recovery,
    /// The slow start of a target that joins or returns.
    pub slow_start: SlowStart,
    /// Limits for each target.
    pub circuit_breakers: CircuitBreakers,
    /// How much of the traffic may be retries.
    pub retry_budget: RetryBudget,
    /// Ejection of targets that do worse than their peers.
    pub outlier_detection: OutlierDetection,
}

/// Which figures of targets' own metrics are read, and how.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Reports {
    /// Path of the metrics, with a query or without.
    pub path: String,
    /// Port, in place of the target's.
    pub port: Option<u16>,
    /// Whether they are read over TLS; none for as probes are made.
    pub tls: Option<bool>,
    /// Seconds between two reads.
    pub interval: f64,
    /// Seconds that a read may take.
    pub timeout: f64,
    /// What is read; none for nothing.
    pub metrics: Option<Vec<ReportedMetric>>,
}

/// A metric of targets that balancers read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct ReportedMetric {
    /// Its name.
    pub name: String,
    /// Labels that its samples must have, with their values.
    pub labels: Option<std::collections::BTreeMap<String, String>>,
    /// The name of the value, as in the column `reported:NAME`; none for that of the metric.
    pub r#as: Option<String>,
    /// What is made of several samples: `sum`, `min`, `max` or `avg`.
    pub aggregation: String,
}

/// Limits of the balancer of an upstream; none for the gateway's setting.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct BalancerLimits {
    /// Longest CPU time of a pick, in milliseconds.
    pub pick_timeout: Option<u32>,
    /// CPU time of a pick that may not be exceeded repeatedly, in microseconds.
    pub pick_cost: Option<u32>,
    /// Largest memory, in KiB.
    pub memory: Option<u32>,
    /// Largest state that one instance passes to the next, in KiB.
    pub state: Option<u32>,
}

/// A second balancer that decides in parallel with the first, without effect.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Shadow {
    /// Its name; none for no shadow.
    pub balancer: Option<String>,
    /// Digest of its version; none for the active one.
    pub version: Option<String>,
    /// Its settings, an object that fits its schema.
    pub config: Option<Value>,
    /// Percentage of the picks that it is asked for.
    pub sample_percent: f64,
}

/// TLS to targets, where the service does not decide.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Tls {
    /// Whether the certificates of targets are verified; none for the service's setting.
    pub verify: Option<bool>,
    /// The server name that is sent and that certificates must be for, in place of the `Host`.
    pub server_name: Option<String>,
    /// Authorities that are trusted in place of the system's, each text with one or more in PEM.
    pub ca_certificates: Option<Vec<String>>,
}

/// How a probe differs from Kong's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Probe {
    /// Port, instead of the target's.
    pub port: Option<u16>,
    /// Method, instead of GET.
    pub method: Option<String>,
    /// Path, instead of `http_path`.
    pub path: Option<String>,
    /// Whether successive probes over HTTP use one connection. The term is Envoy's, whose default
    /// is true.
    pub reuse_connection: Option<bool>,
}

/// Recovery of addresses that passive checks took out: after a time, such an address gets one
/// request at a time as a trial.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Recovery {
    /// Seconds until the first trial; each failed trial doubles them. With 0 there are no trials.
    pub base_time: f64,
    /// Longest time between two trials, in seconds.
    pub max_time: f64,
}

/// The slow start of a target that joins or returns. Source: Envoy, `slow_start_config`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct SlowStart {
    /// Seconds until it has its full weight; with 0 it has it at once.
    pub window: f64,
    /// The percentage of its weight that it starts with.
    pub min_weight_percent: f64,
}

/// Limits for each target, over all workers. Source: Envoy, `circuit_breakers`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct CircuitBreakers {
    /// Connections at a time, busy and idle ones; with 0 there is no limit.
    pub max_connections: u32,
    /// Requests at a time, each on a connection of its own; with 0 there is no limit.
    pub max_requests: u32,
    /// Requests of the upstream that may wait for a place.
    pub max_pending_requests: u32,
}

impl CircuitBreakers {
    /// Whether there is a limit to the requests of targets.
    pub fn limits_requests(&self) -> bool {
        self.max_connections > 0 || self.max_requests > 0
    }
}

/// How much of the traffic may be retries. Source: Envoy, `retry_budget`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct RetryBudget {
    /// Retries in flight, as a percentage of requests in flight; with 0 there is no limit.
    pub budget_percent: f64,
    /// Retries in flight that are always allowed.
    pub min_retry_concurrency: u32,
}

/// Outlier detection: targets that do worse than their peers are ejected for a while. Source:
/// Envoy, `outlier_detection`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct OutlierDetection {
    /// Seconds between two comparisons.
    pub interval: f64,
    /// Seconds that the first ejection lasts; each further one in a row lasts that much longer.
    pub base_ejection_time: f64,
    /// Longest ejection, in seconds.
    pub max_ejection_time: f64,
    /// Most addresses that may be ejected, in percent; one may always be.
    pub max_ejection_percent: f64,
    /// Whether a success rate that is too low leads to an ejection.
    pub success_rate: bool,
    /// Whether a mean response time that is too long leads to an ejection.
    pub latency: bool,
    /// Fewest addresses with enough requests for a comparison.
    pub minimum_hosts: u32,
    /// Requests in an interval that an address needs to take part in a comparison.
    pub request_volume: u32,
    /// Thousandths of standard deviations below the mean success rate.
    pub success_rate_stdev_factor: u32,
    /// Thousandths of the median response time of all.
    pub latency_factor: u32,
}
