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
mod admin_errors;
mod admin_input;
mod admin_words;
mod algorithms;
mod authors;
mod bad_input;
mod balancers;
mod bodies;
mod bytes;
mod canary;
mod client_bodies;
mod client_disconnects;
mod client_heads;
mod client_limits;
mod component_bounds;
mod contract;
mod dns;
mod draining;
mod endpoint_connections;
mod endpoint_faults;
mod explain;
mod failover;
mod fire;
mod guide;
mod health;
mod hosts;
mod lifecycle;
mod limits;
mod log;
mod memory;
mod metrics;
mod oci;
mod outliers;
mod prefixes;
mod probes;
mod proxy;
mod record;
mod recovery;
mod retries;
mod routing;
mod shadow;
mod simulate;
mod store_faults;
mod streaming;
mod target_names;
mod tls;
mod upstream_algorithm;
mod usage;
mod versions;
mod websocket;
