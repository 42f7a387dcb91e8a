//! Settings: as written (flag, environment variable, file) and as checked.
//!
//! Each setting has one name, written `--proxy-listen` as a flag, `POINTSMAN_PROXY_LISTEN` in the
//! environment and `proxy_listen` in the file; the flag wins over the environment, which wins over
//! the file.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use minisign_verify::PublicKey;
use serde::Deserialize;
use thiserror::Error;
use tracing_subscriber::filter::{LevelFilter, Targets};
use url::Url;

/// Settings as written: what is missing is none.
#[derive(Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// Address that the proxy listens on; port 0 takes a free one [default: 0.0.0.0:8000]
    #[arg(long, env = "POINTSMAN_PROXY_LISTEN", value_name = "ADDR")]
    pub proxy_listen: Option<String>,

    /// Address that the Admin API listens on; port 0 takes a free one [default: 127.0.0.1:8001]
    #[arg(long, env = "POINTSMAN_ADMIN_LISTEN", value_name = "ADDR")]
    pub admin_listen: Option<String>,

    /// URLs of web pages that may use the Admin API from within a browser, such as Kong Manager's, separated by commas; pages on this machine may in any case [default: none]
    #[arg(long, env = "POINTSMAN_ADMIN_GUI_URL", value_name = "URLS")]
    pub admin_gui_url: Option<String>,

    /// Host names that the Admin API answers for besides addresses and localhost, separated by commas [default: none]
    #[arg(long, env = "POINTSMAN_ADMIN_HOSTS", value_name = "NAMES")]
    pub admin_hosts: Option<String>,

    /// Folder for entities, components and their compiled forms; made if it is missing [default: pointsman-data]
    #[arg(long, env = "POINTSMAN_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Worker threads of the proxy, 1 to 1024 [default: one for each core]
    #[arg(long, env = "POINTSMAN_WORKERS", value_name = "N")]
    pub workers: Option<usize>,

    /// TOML file with settings
    #[arg(long, env = "POINTSMAN_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// What is logged: off, error, warn, info, debug, trace, or directives such as info,pointsman=debug [default: info]
    #[arg(long, env = "POINTSMAN_LOG", value_name = "LEVEL")]
    pub log: Option<String>,

    /// Longest time that requests in flight are waited for at shutdown, in seconds, 0 to 3600 [default: 30]
    #[arg(long, env = "POINTSMAN_SHUTDOWN_TIMEOUT", value_name = "SECONDS")]
    pub shutdown_timeout: Option<u64>,

    /// Longest time for a client to send the head of a request, and for an idle connection to send the next one, in seconds, 1 to 3600 [default: 60]
    #[arg(long, env = "POINTSMAN_CLIENT_HEADER_TIMEOUT", value_name = "SECONDS")]
    pub client_header_timeout: Option<u64>,

    /// Longest time between two reads of a request's body, in seconds, 1 to 3600 [default: 60]
    #[arg(long, env = "POINTSMAN_CLIENT_BODY_TIMEOUT", value_name = "SECONDS")]
    pub client_body_timeout: Option<u64>,

    /// Largest head of a request or a response, in bytes, 8192 to 1048576 [default: 32768]
    #[arg(long, env = "POINTSMAN_MAX_HEADER_SIZE", value_name = "BYTES")]
    pub max_header_size: Option<usize>,

    /// Largest memory of the regular expressions of all routes together, compiled, in MiB, 1 to 65536 [default: 512]
    #[arg(long, env = "POINTSMAN_ROUTE_REGEX_MEMORY", value_name = "MIB")]
    pub route_regex_memory: Option<usize>,

    /// Idle connections kept to each endpoint, by each worker; 0 keeps none [default: 512]
    #[arg(long, env = "POINTSMAN_UPSTREAM_KEEPALIVE_POOL_SIZE", value_name = "N")]
    pub upstream_keepalive_pool_size: Option<usize>,

    /// Requests after which a connection to an endpoint is closed; 0 sets no limit [default: 10000]
    #[arg(
        long,
        env = "POINTSMAN_UPSTREAM_KEEPALIVE_MAX_REQUESTS",
        value_name = "N"
    )]
    pub upstream_keepalive_max_requests: Option<u32>,

    /// Time after which an idle connection to an endpoint is closed, in seconds; 0 sets no limit [default: 60]
    #[arg(
        long,
        env = "POINTSMAN_UPSTREAM_KEEPALIVE_IDLE_TIMEOUT",
        value_name = "SECONDS"
    )]
    pub upstream_keepalive_idle_timeout: Option<u64>,

    /// DNS servers, as ADDR or ADDR:PORT, separated by commas [default: those of /etc/resolv.conf]
    #[arg(long, env = "POINTSMAN_DNS_RESOLVER", value_name = "ADDRS")]
    pub dns_resolver: Option<String>,

    /// DNS records that are looked for, in this order: SRV, A, AAAA, and LAST for the type that had an answer the last time; CNAME, which Kong has as well, changes nothing [default: LAST,SRV,A,AAAA,CNAME]
    #[arg(long, env = "POINTSMAN_DNS_ORDER", value_name = "TYPES")]
    pub dns_order: Option<String>,

    /// Names that need no DNS, in the form of /etc/hosts; read again when it changes [default: /etc/hosts]
    #[arg(long, env = "POINTSMAN_DNS_HOSTSFILE", value_name = "FILE")]
    pub dns_hostsfile: Option<PathBuf>,

    /// Shortest time between two look-ups of a name, whatever its records say, in milliseconds, 10 to 3600000 [default: 1000]
    #[arg(long, env = "POINTSMAN_DNS_MIN_TTL", value_name = "MILLISECONDS")]
    pub dns_min_ttl: Option<u64>,

    /// Longest CPU time of one pick by a balancer, in milliseconds, 1 to 10000; past it the gateway chooses by itself [default: 10]
    #[arg(
        long,
        env = "POINTSMAN_BALANCER_PICK_TIMEOUT",
        value_name = "MILLISECONDS"
    )]
    pub balancer_pick_timeout: Option<u64>,

    /// CPU time that a pick by a balancer may always take, in microseconds, 1 to 10000000; if picks take more than 0.5 % of the time beyond that, the gateway chooses by itself for a while [default: 100]
    #[arg(
        long,
        env = "POINTSMAN_BALANCER_PICK_COST",
        value_name = "MICROSECONDS"
    )]
    pub balancer_pick_cost: Option<u64>,

    /// Largest memory of one instance of a balancer, in KiB, 64 to 65536; beside it, 8 tables of 10000 elements and 8 core modules [default: 16384]
    #[arg(long, env = "POINTSMAN_BALANCER_MEMORY", value_name = "KIB")]
    pub balancer_memory: Option<usize>,

    /// Largest state that an instance of a balancer hands over to the next, in KiB, 0 to 65536; 0 hands over
    /// nothing [default: 1024]
    #[arg(long, env = "POINTSMAN_BALANCER_STATE", value_name = "KIB")]
    pub balancer_state: Option<usize>,

    /// Largest component that the Admin API takes, in KiB, 1 to 65536 [default: 4096]
    #[arg(long, env = "POINTSMAN_BALANCER_UPLOAD", value_name = "KIB")]
    pub balancer_upload: Option<usize>,

    /// Longest time to compile an uploaded component, in seconds, 1 to 600 [default: 30]
    #[arg(
        long,
        env = "POINTSMAN_BALANCER_COMPILE_TIMEOUT",
        value_name = "SECONDS"
    )]
    pub balancer_compile_timeout: Option<u64>,

    /// minisign public keys, separated by commas, one of which must have signed every component that is uploaded [default: none, and no signature is asked for]
    #[arg(long, env = "POINTSMAN_BALANCER_PUBLIC_KEYS", value_name = "KEYS")]
    pub balancer_public_keys: Option<String>,
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
    /// Longest time for the head of a request.
    pub client_header_timeout: Duration,
    /// Longest time between two reads of a request's body.
    pub client_body_timeout: Duration,
    /// Largest head, in bytes.
    pub max_header_size: usize,
    /// Largest memory of the regular expressions of all routes together, in bytes.
    pub route_regex_memory: usize,
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
        let file = match &written.config {
            Some(path) => read(path).map_err(|mistake| Error(vec![mistake]))?,
            None => Written::default(),
        };
        Self::check(written.or(file))
    }

    fn check(written: Written) -> Result<Self, Error> {
        let mut mistakes = Vec::new();
        let mut m = Mistakes(&mut mistakes);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let config = Self {
            proxy_listen: m.address("proxy_listen", written.proxy_listen, "0.0.0.0:8000"),
            admin_listen: m.address("admin_listen", written.admin_listen, "127.0.0.1:8001"),
            admin_access: m.admin_access(written.admin_gui_url, written.admin_hosts),
            data_dir: written.data_dir.unwrap_or_else(|| "pointsman-data".into()),
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
                    crate::proxy::PATTERN_MEMORY >> 20,
                    1,
                    65_536,
                ) << 20,
                keepalive_pool_size: m.within(
                    "upstream_keepalive_pool_size",
                    written.upstream_keepalive_pool_size,
                    512,
                    0,
                    1_000_000,
                ),
                keepalive_max_requests: some_unless_zero(
                    written.upstream_keepalive_max_requests.unwrap_or(10_000),
                ),
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
                hosts_file: written.dns_hostsfile.unwrap_or_else(|| "/etc/hosts".into()),
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

fn read(path: &Path) -> Result<Written, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read the config file {}: {error}", path.display()))?;
    toml::from_str(&text).map_err(|error| sentence(path, &text, &error))
}

/// What is wrong with a file and where, in one line: what TOML prints by itself are pictures of it.
fn sentence(path: &Path, text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map(|before| format!(", line {}", before.matches('\n').count() + 1));
    let words: Vec<&str> = error.message().split_whitespace().collect();
    format!(
        "the config file {}{} is not right: {}",
        path.display(),
        line.unwrap_or_default(),
        words.join(" ")
    )
}

fn some_unless_zero<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

impl Written {
    /// What is set here, and for the rest what is set in `other`.
    fn or(self, other: Self) -> Self {
        macro_rules! first {
            ($($name:ident),+ $(,)?) => { Self { $($name: self.$name.or(other.$name)),+ } };
        }
        first!(
            proxy_listen,
            admin_listen,
            admin_gui_url,
            admin_hosts,
            data_dir,
            workers,
            config,
            log,
            shutdown_timeout,
            client_header_timeout,
            client_body_timeout,
            max_header_size,
            route_regex_memory,
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
fn list(text: Option<&str>) -> impl Iterator<Item = &str> {
    let entries = text.unwrap_or_default().split(',').map(str::trim);
    entries.filter(|entry| !entry.is_empty())
}

/// Collects what is wrong while the rest is still read.
struct Mistakes<'a>(&'a mut Vec<String>);

impl Mistakes<'_> {
    fn address(&mut self, name: &str, value: Option<String>, default: &str) -> SocketAddr {
        let text = value.as_deref().unwrap_or(default);
        match text.to_socket_addrs().map(|mut found| found.next()) {
            Ok(Some(address)) => address,
            _ => {
                self.0.push(format!(
                    "{name} = \"{text}\": expected an address and a port, such as {default}"
                ));
                SocketAddr::from(([0, 0, 0, 0], 0))
            }
        }
    }

    fn admin_access(&mut self, urls: Option<String>, hosts: Option<String>) -> AdminAccess {
        let mut access = AdminAccess::default();
        for url in list(urls.as_deref()) {
            match Url::parse(url) {
                Ok(parsed) if matches!(parsed.scheme(), "http" | "https") => {
                    access.urls.push(url.to_owned());
                    access.origins.push(parsed.origin().ascii_serialization());
                }
                _ => self.0.push(format!(
                    "admin_gui_url = \"{url}\": expected URLs, such as http://localhost:8002, separated by commas"
                )),
            }
        }
        for host in list(hosts.as_deref()) {
            let name = host.strip_suffix('.').unwrap_or(host);
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            if name.is_empty() || !name.bytes().all(allowed) {
                self.0.push(format!(
                    "admin_hosts = \"{host}\": expected host names without port, such as admin.example.com, separated by commas"
                ));
            }
            access.hosts.push(name.to_ascii_lowercase());
        }
        access
    }

    fn servers(&mut self, value: Option<String>) -> Vec<SocketAddr> {
        let text = value.unwrap_or_default();
        let servers = text.split(',').map(str::trim).filter(|s| !s.is_empty());
        let servers = servers.map(|server| {
            let bare = server.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53));
            server.parse().or(bare)
        });
        servers.collect::<Result<_, _>>().unwrap_or_else(|_| {
            self.0.push(format!(
                "dns_resolver = \"{text}\": expected addresses, such as 192.0.2.53,[2001:db8::53]:5353"
            ));
            Vec::new()
        })
    }

    fn record_types(&mut self, value: Option<String>) -> Vec<DnsType> {
        let text = value.unwrap_or_else(|| "LAST,SRV,A,AAAA,CNAME".into());
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
        if !known || order.iter().all(|kind| *kind == DnsType::Last) {
            self.0.push(format!(
                "dns_order = \"{text}\": expected SRV, A or AAAA, some of them, and LAST and CNAME if wanted, separated by commas"
            ));
        }
        order
    }

    fn public_keys(&mut self, value: Option<String>) -> Vec<PublicKey> {
        let text = value.unwrap_or_default();
        let keys = text.split(',').map(str::trim).filter(|key| !key.is_empty());
        keys.filter_map(|key| match PublicKey::from_base64(key) {
            Ok(key) => Some(key),
            Err(_) => {
                self.0.push(format!(
                    "balancer_public_keys = \"{key}\": expected the second line of a minisign.pub file, which begins with RW"
                ));
                None
            }
        })
        .collect()
    }

    fn within<T: PartialOrd + fmt::Display + Copy>(
        &mut self,
        name: &str,
        value: Option<T>,
        default: T,
        least: T,
        most: T,
    ) -> T {
        let value = value.unwrap_or(default);
        if value < least || value > most {
            self.0.push(format!(
                "{name} = {value}: expected a number from {least} to {most}"
            ));
        }
        value
    }

    fn filter(&mut self, value: Option<String>) -> String {
        let text = value.unwrap_or_else(|| "info".into());
        // A word alone would be read as the name of a module.
        let known = if text.contains(['=', ',']) {
            text.parse::<Targets>().is_ok()
        } else {
            text.parse::<LevelFilter>().is_ok()
        };
        if !known {
            self.0.push(format!(
                "log = \"{text}\": expected off, error, warn, info, debug, trace, or directives such as info,pointsman=debug"
            ));
        }
        text
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_kongs_ports() {
        let config = Config::check(Written::default()).unwrap();
        assert_eq!(config.proxy_listen.to_string(), "0.0.0.0:8000");
        assert_eq!(config.admin_listen.to_string(), "127.0.0.1:8001");
        assert_eq!(config.proxy.keepalive_pool_size, 512);
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let error = Config::check(Written {
            proxy_listen: Some("nowhere".into()),
            workers: Some(0),
            log: Some("loud".into()),
            ..Written::default()
        })
        .unwrap_err()
        .to_string();
        assert_eq!(error.lines().count(), 3, "{error}");
        assert!(error.contains("proxy_listen = \"nowhere\""), "{error}");
        assert!(
            error.contains("workers = 0: expected a number from 1 to 1024"),
            "{error}"
        );
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let flag = Written {
            workers: Some(3),
            ..Written::default()
        };
        let file: Written = toml::from_str("workers = 7\nproxy_listen = \"[::1]:0\"").unwrap();
        let config = Config::check(flag.or(file)).unwrap();
        assert_eq!(config.workers, 3);
        assert_eq!(config.proxy_listen.to_string(), "[::1]:0");
    }

    #[test]
    fn what_is_wrong_with_the_file_is_one_line_that_says_where() {
        for (text, line, word) in [
            ("# a word\nwokers = 7\n", 2, "wokers"),
            ("workers = \"many\"\n", 1, "expected usize"),
            ("workers = 1\nlog = [\n", 2, "array"),
        ] {
            let error = toml::from_str::<Written>(text).unwrap_err();
            let said = sentence(Path::new("x.toml"), text, &error);
            let start = format!("the config file x.toml, line {line} is not right: ");
            assert!(said.starts_with(&start) && said.contains(word), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
}
