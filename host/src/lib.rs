//! Pointsman, an API gateway in which every load-balancing decision is made by a WebAssembly
//! component. `ARCHITECTURE.md` at the top of the repository has the map.
//!
//! Two planes share a process. The control plane ([`admin`], [`store`], [`snapshot`]) runs on a
//! small runtime of its own: it accepts changes, stores them, and compiles them into the snapshots
//! that the data plane reads. The data plane ([`proxy`], [`stream`], [`upstream`], [`balancer`])
//! has a thread for each core. It answers requests, and never waits for the control plane.

pub mod access_log;
mod acme;
pub mod admin;
mod admin_token;
mod allocator;
pub mod authority;
pub mod balancer;
mod byte_stream;
mod client;
pub mod clock;
mod columns;
pub mod component;
pub mod config;
mod config_command;
mod connect;
pub mod connections;
mod cookie;
mod declarative;
pub mod dns;
pub mod endpoint;
pub mod endpoint_address;
pub mod entity;
mod exposition;
mod expression;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod gateway;
mod http1;
mod in_place;
mod ip_ranges;
mod json;
mod key_file;
mod leftover;
pub mod listener;
mod log_level;
mod named;
mod node;
mod nodes;
pub mod otlp;
pub mod path;
pub mod pattern;
mod plugin;
pub mod policy;
mod priority;
pub mod proxy;
mod public_key;
mod record;
mod relay;
mod request_log;
pub mod retry;
mod rollout;
pub mod router;
mod shared_map;
mod simulate;
pub mod snapshot;
mod split_mix;
mod standard_output;
pub mod store;
pub mod stream;
pub mod template;
mod tls;
mod top;
pub mod trace;
pub mod trace_context;
mod traffic;
mod transfer_coding;
pub mod upstream;
mod urlencoded;
pub mod vault;

pub use admin_token::{Arguments as AdminTokenArguments, admin_token};
pub use config_command::{Arguments as ConfigCommand, config as config_command};
pub use gateway::{check, run};
pub use log_level::LogLevel;
pub use nodes::{Arguments as NodesArguments, nodes};
pub use plugin::{Arguments as PluginCommand, plugin};
pub use record::{Arguments as Recording, record};
pub use request_log::LogFields;
pub use rollout::{Arguments as RolloutCommand, rollout};
pub use simulate::{Arguments as Simulation, ReplayArguments as Replay, replay, simulate};
pub use top::{Arguments as TopArguments, top};
