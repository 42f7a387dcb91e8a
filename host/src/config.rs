//! Settings: as written (flag, environment variable, file) and as checked.
//!
//! Each setting has one name, written `--proxy-listen` as a flag, `POINTSMAN_PROXY_LISTEN` in the
//! environment and `proxy_listen` in the file; the flag wins over the environment, which wins over
//! the file.
//!
//! `settings.rs` declares them all, and `declaration.rs` says what a declaration is made of.
//! `written.rs` and `file.rs` collect the settings as written, `check.rs` checks them and puts them
//! into a [`Config`], and `readers.rs` parses the text of single settings.

mod access_log;
mod admin_token;
mod check;
mod client_ssl;
mod debug_token;
mod declaration;
mod etcd;
mod file;
mod listen;
mod readers;
mod real_ip;
mod response_headers;
mod router_flavor;
mod settings;
mod stream_access_log;
#[cfg(test)]
mod tests;
mod tls;
mod traces;
mod value;
mod written;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use minisign_verify::PublicKey;
use thiserror::Error;
use tracing_subscriber::filter::Targets;

pub use access_log::{
    AccessLog, LogEscape, LogFormat, LogPart, LogTarget, LogVariable, SyslogServer, SyslogTarget,
};
pub use admin_token::AdminToken;
pub use client_ssl::ClientSsl;
pub use debug_token::DebugToken;
pub use etcd::{Etcd, EtcdEndpoint};
use file::File;
pub use listen::{Listen, ListenAddress, ListenKeepalive};
pub use real_ip::{RealIp, RealIpSource, TrustedIps};
pub use response_headers::ResponseHeaders;
pub use router_flavor::RouterFlavor;
pub use stream_access_log::{StreamAccessLog, StreamLogFormat, StreamLogVariable};
pub use tls::{CertificateFiles, CipherSuite, Tls, VerifyClient};
pub use traces::{Instrumentations, Tracing};
use value::Content;
pub use written::{Written, misspelt_variables};

/// Settings as checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file with settings, if there is one.
    pub file: Option<PathBuf>,
    /// The folder for everything that outlives the process.
    pub data_dir: PathBuf,
    /// Whether the Admin API changes entities one by one. Otherwise only a declarative
    /// configuration as a whole does.
    pub database: bool,
    /// The declarative configuration that is loaded at a start without a database: a file.
    pub declarative_config: Option<PathBuf>,
    /// The declarative configuration that is loaded at a start without a database: a text.
    pub declarative_config_string: Option<String>,
    /// Whether entities are kept in etcd, which several gateways share.
    pub shares_store: bool,
    /// Whether what is rolled out to the channel `canary` takes effect here.
    pub is_canary: bool,
    /// The etcd of `shares_store`.
    pub etcd: Etcd,
    /// Proxy threads.
    pub workers: usize,
    /// What is logged.
    pub log: Targets,
    /// Whether to take over from a gateway that runs on the same data folder.
    pub take_over: bool,
    /// Longest wait for requests in flight at shutdown.
    pub shutdown_timeout: Duration,
    /// Where the proxy listens.
    pub proxy_listen: Vec<Listen>,
    /// Where the Admin API listens.
    pub admin_listen: Vec<Listen>,
    /// Where the page for operators is served.
    pub gui_listen: Vec<Listen>,
    /// The prefix of its paths: empty, or a path without a slash at its end.
    pub gui_path: String,
    /// Where the state of the gateway is told, to probes and Prometheus.
    pub status_listen: Vec<Listen>,
    /// Where connections and datagrams for the routes of streams are taken.
    pub stream_listen: Vec<Listen>,
    /// Who may use the Admin API.
    pub admin_access: AdminAccess,
    /// TLS towards clients.
    pub tls: Tls,
    /// Connections with clients and endpoints.
    pub proxy: Proxy,
    /// The log of requests.
    pub access_log: AccessLog,
    /// The log of streams.
    pub stream_access_log: StreamAccessLog,
    /// The certificate that endpoints are shown unless another one is named for them.
    pub client_ssl: ClientSsl,
    /// How names are looked up.
    pub dns: Dns,
    /// What policies keep, and where they write.
    pub policies: Policies,
    /// Bounds of the component host.
    pub balancer: Balancer,
    /// The names of the settings that are written, and not left to their defaults.
    pub written: Vec<&'static str>,
    /// The settings as they are written, or their defaults.
    contents: Contents,
}

/// The settings by name, as they are written. Not shown by `Debug`: some are secret.
#[derive(Clone, Default)]
struct Contents(BTreeMap<&'static str, Content>);

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Contents")
    }
}

/// Who may use the Admin API, and from which web pages, besides those on the same machine.
#[derive(Debug, Clone, Default)]
pub struct AdminAccess {
    /// The URLs of `admin_gui_url`, as they are written.
    pub urls: Vec<String>,
    /// Their origins, as browsers write them (RFC 6454, 6.2).
    pub origins: Vec<String>,
    /// Host names that the Admin API answers for, in lower case and without a trailing dot.
    pub hosts: Vec<String>,
    /// Whether reads are answered for every host name.
    pub reads_for_any_host: bool,
    /// Who may use it; if empty, every client that reaches it may.
    pub tokens: Vec<AdminToken>,
}

/// How names are looked up.
#[derive(Debug, Clone, Default)]
pub struct Dns {
    /// DNS servers; if empty, those of the system are used.
    pub resolvers: Vec<SocketAddr>,
    /// Types of records; the first type that has an answer wins.
    pub order: Vec<DnsType>,
    /// A file with names that need no DNS.
    pub hosts_file: PathBuf,
    /// Shortest time between two look-ups of a name.
    pub min_ttl: Duration,
}

/// A type of DNS record that leads to addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsType {
    /// Hosts with ports and weights (RFC 2782).
    Srv,
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// That of the three types which had an answer the last time. Source: Kong.
    Last,
}

/// Connections with clients and endpoints.
#[derive(Debug, Clone, Default)]
pub struct Proxy {
    /// Which peers are trusted to name their clients.
    pub real_ip: RealIp,
    /// Which headers the gateway adds to responses.
    pub headers: ResponseHeaders,
    /// By which token clients may ask what has happened to their requests; none for no client.
    pub debug_token: Option<DebugToken>,
    /// Whether clients that send `Kong-Debug` are told the names of the route and the service.
    pub allow_debug_header: bool,
    /// Most connections of clients, if the operator sets a limit.
    pub max_connections: Option<usize>,
    /// Most sessions of UDP, if the operator sets a limit.
    pub max_udp_sessions: Option<usize>,
    /// Most connections of an address that is not trusted; none sets no limit.
    pub max_connections_per_address: Option<u32>,
    /// Longest time for the head of a request.
    pub client_header_timeout: Duration,
    /// Longest time between two reads of a request's body.
    pub client_body_timeout: Duration,
    /// Longest time until the gateway next sends a part of the response to a client that has closed
    /// its sending side.
    pub client_half_close_timeout: Duration,
    /// How much of a request's body is read before the request is sent to an endpoint, in bytes.
    pub client_body_buffer_size: usize,
    /// Slowest rate of a request's body, in bytes a second; 0 sets no limit.
    pub client_body_min_rate: u32,
    /// Largest head, in bytes.
    pub max_header_size: usize,
    /// How routes are written.
    pub router_flavor: RouterFlavor,
    /// Largest memory of the regular expressions of all routes together, in bytes.
    pub route_regex_memory: usize,
    /// Most header fields of a request.
    pub max_headers: usize,
    /// Most requests on a connection of a client; none sets no limit.
    pub http_keepalive_requests: Option<u32>,
    /// Most requests at the same time on a connection of HTTP/2.
    pub http2_max_concurrent_streams: u32,
    /// Bytes of a request's body that a client of HTTP/2 may send ahead.
    pub http2_stream_window_size: u32,
    /// Bytes of all bodies that a client of HTTP/2 may send ahead on a connection.
    pub http2_connection_window_size: u32,
    /// Most requests that a client of HTTP/2 may cancel within a second, beyond those answered.
    pub http2_max_rapid_resets: u32,
    /// Most cancelled requests of a connection of HTTP/2 that wait for a worker.
    pub http2_max_pending_resets: usize,
    /// Most streams that a client of HTTP/2 may have the gateway reset by errors.
    pub http2_max_error_resets: usize,
    /// Idle connections kept, for each worker and endpoint.
    pub keepalive_pool_size: usize,
    /// Requests on one connection; none sets no limit.
    pub keepalive_max_requests: Option<u32>,
    /// Time a connection may be idle; none sets no limit.
    pub keepalive_idle_timeout: Option<Duration>,
}

/// What policies keep, and where they write.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    /// Memory of the responses in the cache, in bytes.
    pub proxy_cache_memory: usize,
    /// Longest wait for a response that another request fetches.
    pub proxy_cache_lock_timeout: Duration,
    /// The local socket of the system's log.
    pub syslog_socket: PathBuf,
    /// Whether keys of `key-auth` are stored as hashes.
    pub hash_keys: bool,
    /// The file with the key of these hashes, if it is not in the data folder.
    pub hash_keys_file: Option<PathBuf>,
    /// The traces of requests.
    pub tracing: Tracing,
}

/// Bounds of the component host.
#[derive(Debug, Clone, Default)]
pub struct Balancer {
    /// Longest CPU time of a pick.
    pub pick_timeout: Duration,
    /// CPU time that a pick may always take.
    pub pick_cost: Duration,
    /// Largest memory of an instance, in bytes.
    pub memory: usize,
    /// Largest state that an instance passes to its successor, in bytes.
    pub state: usize,
    /// Largest component, in bytes.
    pub upload: usize,
    /// Longest time to compile a component.
    pub compile_timeout: Duration,
    /// The keys of which one must have signed a component; if empty, no signature is needed.
    pub public_keys: Vec<PublicKey>,
}

/// Every mistake in the settings, one a line.
#[derive(Debug, Error)]
pub struct Error(Vec<String>);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl Config {
    /// Merges flags and environment with the file that they name, and checks the result.
    ///
    /// # Errors
    /// Every mistake at once, each with the setting, its value and what is accepted.
    pub fn load(written: Written) -> Result<Self, Error> {
        Self::load_with(written, Vec::new())
    }

    /// The settings that are written and have no effect, because `ssl_cipher_suite` is not
    /// `custom`.
    pub fn without_effect(&self) -> Vec<&'static str> {
        if self.tls.cipher_suite == CipherSuite::Custom {
            return Vec::new();
        }
        let of_custom = ["ssl_protocols", "ssl_ciphers", "ssl_prefer_server_ciphers"];
        let written = of_custom.into_iter();
        written.filter(|name| self.written.contains(name)).collect()
    }

    /// As [`Config::load`], when mistakes were already found in the command line.
    ///
    /// # Errors
    /// These mistakes and all others at once.
    pub fn load_with(mut written: Written, mut mistakes: Vec<String>) -> Result<Self, Error> {
        let names: Vec<&str> = settings::all().map(|setting| setting.name).collect();
        let mut config = Self::blank();
        if let Some(path) = written.take(&settings::FILE) {
            settings::FILE.read(&path, &mut config, &mut mistakes);
        }
        let mut file = match &config.file {
            Some(path) => File::read(path, &names, &mut mistakes),
            None => File::default(),
        };
        for setting in settings::all() {
            let in_file = file.take(setting.name);
            let value = written.take(setting).or(in_file);
            if value.is_some() {
                config.written.push(setting.name);
            }
            if let Some(value) = value.or_else(|| setting.default_value()) {
                let content = value.content().clone();
                config.contents.0.insert(setting.name, content);
                setting.read(&value, &mut config, &mut mistakes);
            }
        }
        file.finish(&names, &mut mistakes);
        config.client_ssl.check(&mut mistakes);
        config.limit_page();
        config.access_log.check(&mut mistakes);
        (config.stream_access_log).check(&config.access_log, &mut mistakes);
        if mistakes.is_empty() {
            Ok(config)
        } else {
            Err(Error(mistakes))
        }
    }

    /// The names of the settings that are written otherwise in another configuration.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let names = settings::all().map(|setting| setting.name);
        names
            .filter(|name| self.contents.0.get(name) != other.contents.0.get(name))
            .collect()
    }

    /// Notes that these settings of another configuration are in effect now.
    pub(crate) fn accept(&mut self, other: &Self, names: &[&'static str]) {
        for name in names {
            match other.contents.0.get(name) {
                Some(content) => self.contents.0.insert(name, content.clone()),
                None => self.contents.0.remove(name),
            };
        }
    }

    /// Has the page listen nowhere, unless the operator says where, if the Admin API has no address
    /// of IP. The page brings the Admin API with it, and an Admin API that listens on a Unix
    /// socket, or not at all, must not be opened to every user of the machine by a default.
    fn limit_page(&mut self) {
        let is_reachable = (self.admin_listen.iter()).any(|listen| listen.address.ip().is_some());
        if !is_reachable && !self.written.contains(&"admin_gui_listen") {
            self.gui_listen.clear();
        }
    }

    /// An empty configuration. Each setting fills its field, at least with its default.
    fn blank() -> Self {
        Self {
            file: None,
            data_dir: PathBuf::new(),
            database: true,
            declarative_config: None,
            declarative_config_string: None,
            shares_store: false,
            is_canary: false,
            etcd: Etcd::default(),
            workers: 0,
            log: Targets::new(),
            take_over: false,
            shutdown_timeout: Duration::ZERO,
            proxy_listen: Vec::new(),
            admin_listen: Vec::new(),
            gui_listen: Vec::new(),
            gui_path: String::new(),
            status_listen: Vec::new(),
            stream_listen: Vec::new(),
            admin_access: AdminAccess::default(),
            tls: Tls::default(),
            proxy: Proxy::default(),
            access_log: AccessLog::default(),
            stream_access_log: StreamAccessLog::default(),
            client_ssl: ClientSsl::default(),
            dns: Dns::default(),
            policies: Policies::default(),
            balancer: Balancer::default(),
            written: Vec::new(),
            contents: Contents::default(),
        }
    }
}
