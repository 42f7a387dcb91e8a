//! Settings: as written (flag, environment variable, file) and as checked.
//!
//! Each setting has one name, written `--proxy-listen` as a flag, `POINTSMAN_PROXY_LISTEN` in the
//! environment and `proxy_listen` in the file; the flag wins over the environment, which wins over
//! the file.
//!
//! A new setting is a field of [`Written`] (its doc comment is the help), its name in
//! [`Written::or`], a field of [`Config`], and a line in [`Config::check`] that says what is
//! accepted. README's table has it too.

mod file;
mod value;

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Command};
use minisign_verify::PublicKey;
use thiserror::Error;
use tracing_subscriber::filter::{LevelFilter, Targets};
use url::Url;

use file::File;
use value::Content;
pub use value::Value;

/// What the variable of each setting begins with.
const PREFIX: &str = "POINTSMAN_";

/// Letters by which a variable may differ from that of a setting to be taken for a typo.
const TYPO: usize = 2;

/// Settings as written, none of them checked: what is missing is none.
#[derive(Debug, Default, Args)]
pub struct Written {
    /// Address that the proxy listens on; port 0 takes a free one [default: 0.0.0.0:8000]
    #[arg(long, env = "POINTSMAN_PROXY_LISTEN", value_name = "ADDR")]
    pub proxy_listen: Option<Value>,

    /// Address that the Admin API listens on; port 0 takes a free one [default: 127.0.0.1:8001]
    #[arg(long, env = "POINTSMAN_ADMIN_LISTEN", value_name = "ADDR")]
    pub admin_listen: Option<Value>,

    /// URLs of web pages that may use the Admin API from within a browser, such as Kong Manager's, separated by commas; pages on this machine may in any case [default: none]
    #[arg(long, env = "POINTSMAN_ADMIN_GUI_URL", value_name = "URLS")]
    pub admin_gui_url: Option<Value>,

    /// Host names that the Admin API answers for besides addresses and localhost, separated by commas [default: none]
    #[arg(long, env = "POINTSMAN_ADMIN_HOSTS", value_name = "NAMES")]
    pub admin_hosts: Option<Value>,

    /// Folder for entities, components and their compiled forms; made if it is missing [default: pointsman-data]
    #[arg(long, env = "POINTSMAN_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<Value>,

    /// Worker threads of the proxy, 1 to 1024 [default: one for each core]
    #[arg(long, env = "POINTSMAN_WORKERS", value_name = "N")]
    pub workers: Option<Value>,

    /// TOML file with settings
    #[arg(long, env = "POINTSMAN_CONFIG", value_name = "FILE")]
    pub config: Option<Value>,

    /// What is logged: off, error, warn, info, debug, trace, or directives such as info,pointsman=debug [default: info]
    #[arg(long, env = "POINTSMAN_LOG", value_name = "LEVEL")]
    pub log: Option<Value>,

    /// Longest time that requests in flight are waited for at shutdown, in seconds, 0 to 3600 [default: 30]
    #[arg(long, env = "POINTSMAN_SHUTDOWN_TIMEOUT", value_name = "SECONDS")]
    pub shutdown_timeout: Option<Value>,

    /// Connections of clients that the proxy serves at once, over all workers, 1 to 1000000; further ones are answered 503 [default: 50000, or as many as the limit of open files suffices for]
    #[arg(long, env = "POINTSMAN_MAX_CONNECTIONS", value_name = "N")]
    pub max_connections: Option<Value>,

    /// Longest time for a client to send the head of a request, and for an idle connection to send the next one, in seconds, 1 to 3600 [default: 60]
    #[arg(long, env = "POINTSMAN_CLIENT_HEADER_TIMEOUT", value_name = "SECONDS")]
    pub client_header_timeout: Option<Value>,

    /// Longest time between two reads of a request's body, in seconds, 1 to 3600 [default: 60]
    #[arg(long, env = "POINTSMAN_CLIENT_BODY_TIMEOUT", value_name = "SECONDS")]
    pub client_body_timeout: Option<Value>,

    /// Longest time that a client which has closed its sending side is waited for with the next part of its answer, in seconds, 1 to 3600; after that it is taken to be gone [default: 5]
    #[arg(
        long,
        env = "POINTSMAN_CLIENT_HALF_CLOSE_TIMEOUT",
        value_name = "SECONDS"
    )]
    pub client_half_close_timeout: Option<Value>,

    /// Part of a request's body that is read before an endpoint is asked, on routes with request_buffering, in bytes, 0 to 1048576; a body that is longer is passed on as it comes [default: 65536]
    #[arg(long, env = "POINTSMAN_CLIENT_BODY_BUFFER_SIZE", value_name = "BYTES")]
    pub client_body_buffer_size: Option<Value>,

    /// Slowest rate at which a request's body may come in, in bytes a second, 0 to 1000000, after the first client_body_timeout, on routes with request_buffering; 0 sets no limit [default: 500]
    #[arg(long, env = "POINTSMAN_CLIENT_BODY_MIN_RATE", value_name = "BYTES")]
    pub client_body_min_rate: Option<Value>,

    /// Largest head of a request or a response, in bytes, 8192 to 1048576 [default: 32768]
    #[arg(long, env = "POINTSMAN_MAX_HEADER_SIZE", value_name = "BYTES")]
    pub max_header_size: Option<Value>,

    /// Largest memory of the regular expressions of all routes together, compiled, in MiB, 1 to 65536 [default: 512]
    #[arg(long, env = "POINTSMAN_ROUTE_REGEX_MEMORY", value_name = "MIB")]
    pub route_regex_memory: Option<Value>,

    /// Most header fields of a request, 100 to 1000; more than 100 cost memory for each request [default: 100]
    #[arg(long, env = "POINTSMAN_MAX_HEADERS", value_name = "N")]
    pub max_headers: Option<Value>,

    /// Idle connections kept to each endpoint, by each worker; 0 keeps none [default: 512]
    #[arg(long, env = "POINTSMAN_UPSTREAM_KEEPALIVE_POOL_SIZE", value_name = "N")]
    pub upstream_keepalive_pool_size: Option<Value>,

    /// Requests after which a connection to an endpoint is closed; 0 sets no limit [default: 10000]
    #[arg(
        long,
        env = "POINTSMAN_UPSTREAM_KEEPALIVE_MAX_REQUESTS",
        value_name = "N"
    )]
    pub upstream_keepalive_max_requests: Option<Value>,

    /// Time after which an idle connection to an endpoint is closed, in seconds; 0 sets no limit [default: 60]
    #[arg(
        long,
        env = "POINTSMAN_UPSTREAM_KEEPALIVE_IDLE_TIMEOUT",
        value_name = "SECONDS"
    )]
    pub upstream_keepalive_idle_timeout: Option<Value>,

    /// DNS servers, as ADDR or ADDR:PORT, separated by commas [default: those of /etc/resolv.conf]
    #[arg(long, env = "POINTSMAN_DNS_RESOLVER", value_name = "ADDRS")]
    pub dns_resolver: Option<Value>,

    /// DNS records that are looked for, in this order: SRV, A, AAAA, and LAST for the type that had an answer the last time; CNAME, which Kong has as well, changes nothing [default: LAST,SRV,A,AAAA,CNAME]
    #[arg(long, env = "POINTSMAN_DNS_ORDER", value_name = "TYPES")]
    pub dns_order: Option<Value>,

    /// Names that need no DNS, in the form of /etc/hosts; read again when it changes [default: /etc/hosts]
    #[arg(long, env = "POINTSMAN_DNS_HOSTSFILE", value_name = "FILE")]
    pub dns_hostsfile: Option<Value>,

    /// Shortest time between two look-ups of a name, whatever its records say, in milliseconds, 10 to 3600000 [default: 1000]
    #[arg(long, env = "POINTSMAN_DNS_MIN_TTL", value_name = "MILLISECONDS")]
    pub dns_min_ttl: Option<Value>,

    /// Longest CPU time of one pick by a balancer, in milliseconds, 1 to 10000; past it the gateway makes a fallback pick [default: 10]
    #[arg(
        long,
        env = "POINTSMAN_BALANCER_PICK_TIMEOUT",
        value_name = "MILLISECONDS"
    )]
    pub balancer_pick_timeout: Option<Value>,

    /// CPU time that a pick by a balancer may always take, in microseconds, 1 to 10000000; if picks take more than 0.5 % of the time beyond that, the gateway chooses by itself for a while [default: 100]
    #[arg(
        long,
        env = "POINTSMAN_BALANCER_PICK_COST",
        value_name = "MICROSECONDS"
    )]
    pub balancer_pick_cost: Option<Value>,

    /// Largest memory of one instance of a balancer, in KiB, 64 to 65536; beside it, 8 tables of 10000 elements and 8 core modules [default: 16384]
    #[arg(long, env = "POINTSMAN_BALANCER_MEMORY", value_name = "KIB")]
    pub balancer_memory: Option<Value>,

    /// Largest state that an instance of a balancer hands over to the next, in KiB, 0 to 65536; 0 hands over
    /// nothing [default: 1024]
    #[arg(long, env = "POINTSMAN_BALANCER_STATE", value_name = "KIB")]
    pub balancer_state: Option<Value>,

    /// Largest component that the Admin API takes, in KiB, 1 to 65536 [default: 4096]
    #[arg(long, env = "POINTSMAN_BALANCER_UPLOAD", value_name = "KIB")]
    pub balancer_upload: Option<Value>,

    /// Longest time to compile an uploaded component, in seconds, 1 to 600 [default: 30]
    #[arg(
        long,
        env = "POINTSMAN_BALANCER_COMPILE_TIMEOUT",
        value_name = "SECONDS"
    )]
    pub balancer_compile_timeout: Option<Value>,

    /// minisign public keys, separated by commas, one of which must have signed every component that is uploaded [default: none, and no signature is asked for]
    #[arg(long, env = "POINTSMAN_BALANCER_PUBLIC_KEYS", value_name = "KEYS")]
    pub balancer_public_keys: Option<Value>,
}

/// Settings as checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the proxy listens.
    pub proxy_listen: SocketAddr,
    /// Where the Admin API listens.
    pub admin_listen: SocketAddr,
    /// From where a browser may use the Admin API.
    pub admin_access: AdminAccess,
    /// Holds everything that outlives the process.
    pub data_dir: PathBuf,
    /// Proxy threads.
    pub workers: usize,
    /// What is logged, in the syntax of `tracing-subscriber`'s `Targets`.
    pub log: String,
    /// Longest wait for requests in flight at shutdown.
    pub shutdown_timeout: Duration,
    /// How clients and endpoints are talked to.
    pub proxy: Proxy,
    /// How names are looked up.
    pub dns: Dns,
    /// Bounds of the component host.
    pub balancer: Balancer,
}

/// From where a browser may use the Admin API, besides pages on the same machine.
#[derive(Debug, Clone, Default)]
pub struct AdminAccess {
    /// The URLs of `admin_gui_url`, as they are written.
    pub urls: Vec<String>,
    /// Their origins, as browsers write them (RFC 6454, 6.2).
    pub origins: Vec<String>,
    /// Host names that it answers for, in lower case and without a dot at their end.
    pub hosts: Vec<String>,
}

/// How names are looked up.
#[derive(Debug, Clone)]
pub struct Dns {
    /// Servers; none for those of the system.
    pub resolvers: Vec<SocketAddr>,
    /// Types of records, the first that has an answer wins.
    pub order: Vec<DnsType>,
    /// Names that need no DNS.
    pub hosts_file: PathBuf,
    /// Shortest time between two look-ups of a name.
    pub min_ttl: Duration,
}

/// A type of record that leads to addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsType {
    /// Hosts with ports and weights (RFC 2782).
    Srv,
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// The type of the three that had an answer the last time. Source: Kong.
    Last,
}

/// How clients and endpoints are talked to.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Most connections of clients, if the operator says so.
    pub max_connections: Option<usize>,
    /// Longest time for the head of a request.
    pub client_header_timeout: Duration,
    /// Longest time between two reads of a request's body.
    pub client_body_timeout: Duration,
    /// Longest wait for the head of a response to a client that has closed its sending side.
    pub client_half_close_timeout: Duration,
    /// Part of a request's body that is read before an endpoint is asked, in bytes.
    pub client_body_buffer_size: usize,
    /// Slowest rate of a request's body, in bytes a second; 0 sets no limit.
    pub client_body_min_rate: u32,
    /// Largest head, in bytes.
    pub max_header_size: usize,
    /// Largest memory of the regular expressions of all routes together, in bytes.
    pub route_regex_memory: usize,
    /// Most header fields of a request.
    pub max_headers: usize,
    /// Idle connections kept, for each worker and endpoint.
    pub keepalive_pool_size: usize,
    /// Requests on one connection; none sets no limit.
    pub keepalive_max_requests: Option<u32>,
    /// Time a connection may be idle; none sets no limit.
    pub keepalive_idle_timeout: Option<Duration>,
}

/// Bounds of the component host.
#[derive(Debug, Clone)]
pub struct Balancer {
    /// Longest CPU time of a pick.
    pub pick_timeout: Duration,
    /// CPU time that a pick may always take.
    pub pick_cost: Duration,
    /// Largest memory of an instance, in bytes.
    pub memory: usize,
    /// Largest state that is handed over, in bytes.
    pub state: usize,
    /// Largest component, in bytes.
    pub upload: usize,
    /// Longest time to compile a component.
    pub compile_timeout: Duration,
    /// Who may have signed a component; none if it needs no signature.
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
    /// Joins flags and environment with the file that they name, and checks the whole.
    ///
    /// # Errors
    /// Every mistake at once, each with the setting, its value and what is accepted.
    pub fn load(written: Written) -> Result<Self, Error> {
        Self::load_with(written, Vec::new())
    }

    /// As [`Config::load`], for a command line in which there are mistakes already.
    ///
    /// # Errors
    /// These mistakes and all others at once.
    pub fn load_with(written: Written, mut mistakes: Vec<String>) -> Result<Self, Error> {
        let names = Written::names();
        // The file cannot name another one.
        let names = names.iter().map(String::as_str);
        let names: Vec<&str> = names.filter(|name| *name != "config").collect();
        let path = Mistakes(&mut mistakes).path("config", written.config.clone());
        let mut file = match path {
            Some(path) => File::read(&path, &names, &mut mistakes),
            None => File::default(),
        };
        let written = written.or(&mut file);
        file.finish(&names, &mut mistakes);
        Self::check(written, mistakes)
    }

    fn check(written: Written, mut mistakes: Vec<String>) -> Result<Self, Error> {
        let mut m = Mistakes(&mut mistakes);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let config = Self {
            proxy_listen: m.address("proxy_listen", written.proxy_listen, "0.0.0.0:8000"),
            admin_listen: m.address("admin_listen", written.admin_listen, "127.0.0.1:8001"),
            admin_access: m.admin_access(written.admin_gui_url, written.admin_hosts),
            data_dir: m
                .path("data_dir", written.data_dir)
                .unwrap_or_else(|| "pointsman-data".into()),
            workers: m.within("workers", written.workers, cores, 1, 1024),
            log: m.filter(written.log),
            shutdown_timeout: Duration::from_secs(m.within(
                "shutdown_timeout",
                written.shutdown_timeout,
                30,
                0,
                3600,
            )),
            proxy: Proxy {
                max_connections: (written.max_connections)
                    .map(|most| m.within("max_connections", Some(most), 1, 1, 1_000_000)),
                client_half_close_timeout: Duration::from_secs(m.within(
                    "client_half_close_timeout",
                    written.client_half_close_timeout,
                    5,
                    1,
                    3600,
                )),
                client_body_buffer_size: m.within(
                    "client_body_buffer_size",
                    written.client_body_buffer_size,
                    64 * 1024,
                    0,
                    1024 * 1024,
                ),
                client_body_min_rate: m.within(
                    "client_body_min_rate",
                    written.client_body_min_rate,
                    500,
                    0,
                    1_000_000,
                ),
                client_header_timeout: Duration::from_secs(m.within(
                    "client_header_timeout",
                    written.client_header_timeout,
                    60,
                    1,
                    3600,
                )),
                client_body_timeout: Duration::from_secs(m.within(
                    "client_body_timeout",
                    written.client_body_timeout,
                    60,
                    1,
                    3600,
                )),
                max_header_size: m.within(
                    "max_header_size",
                    written.max_header_size,
                    32 * 1024,
                    8 * 1024,
                    1024 * 1024,
                ),
                route_regex_memory: m.within(
                    "route_regex_memory",
                    written.route_regex_memory,
                    crate::pattern::PATTERN_MEMORY >> 20,
                    1,
                    65_536,
                ) << 20,
                max_headers: m.within("max_headers", written.max_headers, 100, 100, 1000),
                keepalive_pool_size: m.within(
                    "upstream_keepalive_pool_size",
                    written.upstream_keepalive_pool_size,
                    512,
                    0,
                    1_000_000,
                ),
                keepalive_max_requests: some_unless_zero(m.within(
                    "upstream_keepalive_max_requests",
                    written.upstream_keepalive_max_requests,
                    10_000,
                    0,
                    u32::MAX,
                )),
                keepalive_idle_timeout: some_unless_zero(m.within(
                    "upstream_keepalive_idle_timeout",
                    written.upstream_keepalive_idle_timeout,
                    60,
                    0,
                    86_400,
                ))
                .map(Duration::from_secs),
            },
            dns: Dns {
                resolvers: m.servers(written.dns_resolver),
                order: m.record_types(written.dns_order),
                hosts_file: m
                    .path("dns_hostsfile", written.dns_hostsfile)
                    .unwrap_or_else(|| "/etc/hosts".into()),
                min_ttl: Duration::from_millis(m.within(
                    "dns_min_ttl",
                    written.dns_min_ttl,
                    1000,
                    10,
                    3_600_000,
                )),
            },
            balancer: Balancer {
                pick_timeout: Duration::from_millis(m.within(
                    "balancer_pick_timeout",
                    written.balancer_pick_timeout,
                    10,
                    1,
                    10_000,
                )),
                pick_cost: Duration::from_micros(m.within(
                    "balancer_pick_cost",
                    written.balancer_pick_cost,
                    100,
                    1,
                    10_000_000,
                )),
                memory: 1024
                    * m.within(
                        "balancer_memory",
                        written.balancer_memory,
                        16 * 1024,
                        64,
                        64 * 1024,
                    ),
                state: 1024
                    * m.within("balancer_state", written.balancer_state, 1024, 0, 64 * 1024),
                upload: 1024
                    * m.within(
                        "balancer_upload",
                        written.balancer_upload,
                        4 * 1024,
                        1,
                        64 * 1024,
                    ),
                compile_timeout: Duration::from_secs(m.within(
                    "balancer_compile_timeout",
                    written.balancer_compile_timeout,
                    30,
                    1,
                    600,
                )),
                public_keys: m.public_keys(written.balancer_public_keys),
            },
        };
        if mistakes.is_empty() {
            Ok(config)
        } else {
            Err(Error(mistakes))
        }
    }
}

/// Variables of the environment that are probably meant for a setting and are none: the others are
/// none of ours, such as those that Kubernetes makes for a service called pointsman.
pub fn misspelt_variables(variables: impl Iterator<Item = OsString>) -> Vec<String> {
    let known: Vec<String> = Written::names().iter().map(|name| variable(name)).collect();
    let mut mistakes: Vec<String> = variables
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.starts_with(PREFIX) && !known.contains(name))
        .filter_map(|name| {
            let near = |known: &&String| strsim::damerau_levenshtein(known, &name) <= TYPO;
            let meant = known.iter().find(near)?;
            Some(format!(
                "no setting has the variable {name}; did you mean {meant}?"
            ))
        })
        .collect();
    mistakes.sort();
    mistakes
}

/// The variable of a setting.
fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.to_uppercase())
}

fn some_unless_zero<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

impl Written {
    /// The names of all settings.
    fn names() -> Vec<String> {
        let command = Self::augment_args(Command::new("names"));
        let names = command.get_arguments().map(|arg| arg.get_id().to_string());
        names.collect()
    }

    /// What is set here, and for the rest what is set in the file.
    fn or(self, file: &mut File) -> Self {
        macro_rules! first {
            ($($name:ident),+ $(,)?) => {
                Self {
                    config: self.config,
                    $($name: first(self.$name, file.take(stringify!($name)))),+
                }
            };
        }
        fn first(here: Option<Value>, there: Option<Value>) -> Option<Value> {
            here.or(there)
        }
        first!(
            proxy_listen,
            admin_listen,
            admin_gui_url,
            admin_hosts,
            data_dir,
            workers,
            log,
            shutdown_timeout,
            max_connections,
            client_half_close_timeout,
            client_body_buffer_size,
            client_body_min_rate,
            client_header_timeout,
            client_body_timeout,
            max_header_size,
            route_regex_memory,
            max_headers,
            upstream_keepalive_pool_size,
            upstream_keepalive_max_requests,
            upstream_keepalive_idle_timeout,
            dns_resolver,
            dns_order,
            dns_hostsfile,
            dns_min_ttl,
            balancer_pick_timeout,
            balancer_pick_cost,
            balancer_memory,
            balancer_state,
            balancer_upload,
            balancer_compile_timeout,
            balancer_public_keys,
        )
    }
}

/// The entries of a list that is written in one text.
/// Collects what is wrong while the rest is still read.
struct Mistakes<'a>(&'a mut Vec<String>);

impl Mistakes<'_> {
    /// Notes that a setting is not what is expected, and where it was set.
    fn add(&mut self, name: &str, value: &Value, expected: impl fmt::Display) {
        let shown = match value.content() {
            // Text and numbers are told apart by what is expected only.
            Content::Plain(text) if value.number::<f64>().is_none() => {
                format!("\"{}\"", text.display())
            }
            _ => value.to_string(),
        };
        self.0
            .push(format!("{name} = {shown}: {expected} ({})", value.place()));
    }

    /// A setting that is text.
    fn os_text(&mut self, name: &str, value: Option<Value>) -> Option<(OsString, Value)> {
        let value = value?;
        if let Some(text) = value.text() {
            return Some((text.to_owned(), value));
        }
        match value.content() {
            Content::Bare(word) => {
                let quoted = format!("text needs quotes, as in {name} = {word:?}");
                self.add(name, &value, quoted);
            }
            _ => self.add(name, &value, "expected text in quotes"),
        }
        None
    }

    /// A setting that is text in UTF-8.
    fn text(&mut self, name: &str, value: Option<Value>) -> Option<(String, Value)> {
        let (text, value) = self.os_text(name, value)?;
        match text.into_string() {
            Ok(text) => Some((text, value)),
            Err(_) => {
                self.add(name, &value, "expected text in UTF-8");
                None
            }
        }
    }

    fn admin_access(&mut self, urls: Option<Value>, hosts: Option<Value>) -> AdminAccess {
        let mut access = AdminAccess::default();
        for (url, place) in self.entries("admin_gui_url", urls) {
            match Url::parse(&url) {
                Ok(parsed) if matches!(parsed.scheme(), "http" | "https") => {
                    access.origins.push(parsed.origin().ascii_serialization());
                    access.urls.push(url);
                }
                _ => self.0.push(format!(
                    "admin_gui_url = \"{url}\": expected URLs, such as http://localhost:8002, separated by commas ({place})"
                )),
            }
        }
        for (host, place) in self.entries("admin_hosts", hosts) {
            let name = host.strip_suffix('.').unwrap_or(&host);
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            if name.is_empty() || !name.bytes().all(allowed) {
                self.0.push(format!(
                    "admin_hosts = \"{host}\": expected host names without port, such as admin.example.com, separated by commas ({place})"
                ));
            }
            access.hosts.push(name.to_ascii_lowercase());
        }
        access
    }

    /// The entries of a setting that is text separated by commas, each with the place of the setting.
    fn entries(&mut self, name: &str, value: Option<Value>) -> Vec<(String, String)> {
        let Some((text, value)) = self.text(name, value) else {
            return Vec::new();
        };
        let entries = text.split(',').map(str::trim);
        entries
            .filter(|entry| !entry.is_empty())
            .map(|entry| (entry.to_owned(), value.place().to_string()))
            .collect()
    }

    fn path(&mut self, name: &str, value: Option<Value>) -> Option<PathBuf> {
        let (text, value) = self.os_text(name, value)?;
        if text.is_empty() {
            self.add(name, &value, "expected a path");
        }
        Some(text.into())
    }

    fn address(&mut self, name: &str, value: Option<Value>, default: &str) -> SocketAddr {
        let written = self.text(name, value);
        let text = written.as_ref().map_or(default, |(text, _)| text);
        match text.to_socket_addrs().map(|mut found| found.next()) {
            Ok(Some(address)) => return address,
            _ => {
                if let Some((_, value)) = &written {
                    let expected = format!("expected an address and a port, such as {default}");
                    self.add(name, value, expected);
                }
            }
        }
        SocketAddr::from(([0, 0, 0, 0], 0))
    }

    fn servers(&mut self, value: Option<Value>) -> Vec<SocketAddr> {
        let Some((text, value)) = self.text("dns_resolver", value) else {
            return Vec::new();
        };
        let servers = text.split(',').map(str::trim).filter(|s| !s.is_empty());
        let servers = servers.map(|server| {
            let bare = server.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53));
            server.parse().or(bare)
        });
        servers.collect::<Result<_, _>>().unwrap_or_else(|_| {
            let expected = "expected addresses, such as 192.0.2.53,[2001:db8::53]:5353";
            self.add("dns_resolver", &value, expected);
            Vec::new()
        })
    }

    fn record_types(&mut self, value: Option<Value>) -> Vec<DnsType> {
        let written = self.text("dns_order", value);
        let default = "LAST,SRV,A,AAAA,CNAME";
        let text = written.as_ref().map_or(default, |(text, _)| text);
        let mut order = Vec::new();
        let mut known = true;
        for word in text.split(',') {
            match word.trim().to_ascii_uppercase().as_str() {
                "SRV" => order.push(DnsType::Srv),
                "A" => order.push(DnsType::A),
                "AAAA" => order.push(DnsType::Aaaa),
                "LAST" => order.push(DnsType::Last),
                "CNAME" => {}
                _ => known = false,
            }
        }
        let leads_nowhere = order.iter().all(|kind| *kind == DnsType::Last);
        if let Some((_, value)) = written.filter(|_| !known || leads_nowhere) {
            let expected = "expected SRV, A or AAAA, some of them, and LAST and CNAME if wanted, separated by commas";
            self.add("dns_order", &value, expected);
        }
        order
    }

    fn public_keys(&mut self, value: Option<Value>) -> Vec<PublicKey> {
        let mut keys = Vec::new();
        for (key, place) in self.entries("balancer_public_keys", value) {
            match PublicKey::from_base64(&key) {
                Ok(key) => keys.push(key),
                Err(_) => self.0.push(format!(
                    "balancer_public_keys = \"{key}\": expected the second line of a minisign.pub file, \
                     which begins with RW ({place})"
                )),
            }
        }
        keys
    }

    fn within<T: PartialOrd + fmt::Display + Copy + FromStr>(
        &mut self,
        name: &str,
        value: Option<Value>,
        default: T,
        least: T,
        most: T,
    ) -> T {
        let Some(value) = value else { return default };
        match value.number() {
            Some(number) if number >= least && number <= most => number,
            _ => {
                let without_quotes = match value.content() {
                    Content::Quoted(_) => ", without quotes",
                    _ => "",
                };
                let expected = format!("expected a number from {least} to {most}{without_quotes}");
                self.add(name, &value, expected);
                default
            }
        }
    }

    fn filter(&mut self, value: Option<Value>) -> String {
        let Some((text, value)) = self.text("log", value) else {
            return "info".into();
        };
        // A word alone would be read as the name of a module.
        let known = if text.contains(['=', ',']) {
            text.parse::<Targets>().is_ok()
        } else {
            text.parse::<LevelFilter>().is_ok()
        };
        if !known {
            let expected = "expected off, error, warn, info, debug, trace, or directives such as info,pointsman=debug";
            self.add("log", &value, expected);
        }
        text
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::value::Place;
    use super::*;

    fn flag(name: &str, text: &str) -> Option<Value> {
        let content = Content::Plain(text.into());
        Some(Value::new(content, Place::Flag(format!("--{name}"))))
    }

    #[test]
    fn the_defaults_are_kongs_ports() {
        let config = Config::load(Written::default()).unwrap();
        assert_eq!(config.proxy_listen.to_string(), "0.0.0.0:8000");
        assert_eq!(config.admin_listen.to_string(), "127.0.0.1:8001");
        assert_eq!(config.proxy.keepalive_pool_size, 512);
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let error = Config::load(Written {
            proxy_listen: flag("proxy-listen", "nowhere"),
            workers: flag("workers", "0"),
            dns_min_ttl: flag("dns-min-ttl", "soon"),
            log: flag("log", "loud"),
            ..Written::default()
        })
        .unwrap_err()
        .to_string();
        assert_eq!(error.lines().count(), 4, "{error}");
        for told in [
            "proxy_listen = \"nowhere\": expected an address",
            "workers = 0: expected a number from 1 to 1024 (set by --workers)",
            "dns_min_ttl = \"soon\": expected a number from 10 to 3600000 (set by --dns-min-ttl)",
        ] {
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.toml");
        std::fs::write(&path, "workers = 7\nproxy_listen = \"[::1]:0\"").unwrap();
        let config = Config::load(Written {
            workers: flag("workers", "3"),
            config: flag("config", path.to_str().unwrap()),
            ..Written::default()
        })
        .unwrap();
        assert_eq!(config.workers, 3);
        assert_eq!(config.proxy_listen.to_string(), "[::1]:0");
    }

    #[test]
    fn text_in_the_file_needs_quotes_and_numbers_need_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.toml");
        let text = "proxy_listen = 0.0.0.0:80\nlog = info\nworkers = \"4\"\ndata_dir = [1]\n\
                    max_header_size = many\n";
        std::fs::write(&path, text).unwrap();
        let error = Config::load(Written {
            config: flag("config", path.to_str().unwrap()),
            ..Written::default()
        });
        let error = error.unwrap_err().to_string();
        let shown = path.display();
        for told in [
            "proxy_listen = 0.0.0.0:80: text needs quotes, as in proxy_listen = \"0.0.0.0:80\""
                .to_owned(),
            format!("log = info: text needs quotes, as in log = \"info\" (set in {shown}, line 2)"),
            "workers = \"4\": expected a number from 1 to 1024, without quotes".to_owned(),
            "data_dir = a list: expected text in quotes".to_owned(),
            "max_header_size = many: expected a number from 8192".to_owned(),
        ] {
            assert!(error.contains(&told), "{told} in {error}");
        }
        assert_eq!(error.lines().count(), 5, "{error}");
    }

    #[test]
    fn a_variable_with_a_typo_is_told_and_others_are_not_ours() {
        let names = [
            "POINTSMAN_WOKERS",
            "POINTSMAN_PORT",
            "POINTSMAN_ADMIN",
            "PATH",
        ];
        let told = misspelt_variables(names.into_iter().map(OsString::from));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("POINTSMAN_WOKERS; did you mean POINTSMAN_WORKERS?"));
    }
}
