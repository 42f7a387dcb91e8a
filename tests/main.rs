//! Black-box tests: the real binary on free ports, real backends, a real store, real components.
//!
//! They are one target of the `pointsman` package (see `host/Cargo.toml`), so that cargo builds the
//! very binary that they start.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod harness;

mod active_checks;
mod admin;
mod admin_access;
mod admin_bounds;
mod admin_conditions;
mod admin_errors;
mod admin_input;
mod admin_node;
mod admin_pages;
mod admin_tokens;
mod admin_words;
mod algorithms;
mod authors;
mod bad_input;
mod balancers;
mod bodies;
mod broken_responses;
mod canary;
mod canary_control;
mod client_bodies;
mod client_disconnects;
mod client_heads;
mod client_limits;
mod command_line;
mod component_bounds;
mod contract;
mod dns;
mod draining;
mod endpoint_connections;
mod explain;
mod failover;
mod failures_under_load;
mod field_bytes;
mod guide;
mod health;
mod hosts;
mod layers;
mod lifecycle;
mod limits;
mod log;
mod memory;
mod message_framing;
mod metrics;
mod oci;
mod openapi;
mod outliers;
mod plugins;
mod prefix_affinity;
mod probe_connections;
mod probes;
mod proxy;
mod proxy_cache;
mod rate_limiting;
mod record;
mod recovery;
mod retries;
mod route_regex;
mod routing;
mod schemas;
mod settings;
mod shadow;
mod simulate;
mod simulate_reports;
mod store_faults;
mod streaming;
mod target_names;
mod tls;
mod traffic_policies;
mod trailers;
mod unreadable_rows;
mod upgrades;
mod upstream_algorithm;
mod version_checks;
mod versions;
mod websocket;
