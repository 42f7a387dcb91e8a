//! What the tests use: gateways, backends, a DNS server, and clients.

mod acme;
mod backend;
mod browser;
mod collector;
mod compiled;
mod consumers;
mod deck;
mod declarative;
mod dns;
mod engine;
mod etcd;
mod gateway;
mod guests;
mod health;
pub(crate) mod http2;
mod http_receiver;
mod load;
mod log;
mod log_file;
mod metrics;
mod ports;
mod process;
mod raw;
mod redis;
mod relay;
mod signals;
mod terminal;
mod tls;
mod tls_client;
mod tokens;
mod wait;

pub(crate) use acme::AcmeServer;
pub(crate) use backend::{Backend, sha256, websocket_accept};
pub(crate) use browser::Browser;
pub(crate) use collector::{Collector, Export, attribute, hex};
pub(crate) use consumers::{
    add_consumer, add_credential, add_global_plugin, add_plugin, received, with_route,
};
pub(crate) use deck::{Deck, File};
pub(crate) use declarative::{MY_SERVICE, of_every_kind, put_document};
pub(crate) use dns::{Dns, DnsReply};
pub(crate) use engine::{Engine, Events, Generated};
pub(crate) use etcd::Etcd;
pub(crate) use gateway::{Gateway, Reply, Setup, help, with_backend};
pub(crate) use guests::guest;
pub(crate) use health::{
    active_checks, has_health, health, patch_upstream, set_health, set_passive_checks,
};
pub(crate) use http_receiver::HttpReceiver;
pub(crate) use load::Load;
pub(crate) use log_file::{LogFile, log_lines};
pub(crate) use metrics::{active_connections, in_flight, metric};
pub(crate) use ports::{refusing_address, reserve};
pub(crate) use process::Process;
pub(crate) use raw::{Raw, RawServer, assert_kong_error, exchange, read_answer};
pub(crate) use redis::Redis;
pub(crate) use relay::Relay;
pub(crate) use signals::send_signal;
pub(crate) use terminal::PseudoTerminal;
pub(crate) use tls::{Issued, tls_acceptor};
pub(crate) use tls_client::TlsClient;
pub(crate) use tokens::TOKENS;
pub(crate) use wait::until;
