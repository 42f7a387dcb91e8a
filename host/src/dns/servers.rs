//! The DNS servers that are asked, how often, and how many questions are open at a time.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;

use super::Failure;

/// Time without an answer after which a question is asked again. An answer to the first one is still
/// taken.
const AGAIN: Duration = Duration::from_secs(1);

/// Most name servers that are asked the same at a time, so that one that is down delays no answer of
/// the other. The first answer counts, so the quicker server decides even if it refuses, fails
/// (SERVFAIL) or knows no such name (NXDOMAIN). A third one is asked if both cannot be reached; if
/// both are silent, the next questions go to it first, because the resolver prefers the servers that
/// have answered quickest.
const SERVERS: usize = 2;

/// Asks DNS servers.
pub(super) struct Servers {
    /// As many as a question is asked times. Each of them would join a question to the same one that
    /// it has asked before, and wait for that one's answer alone.
    resolvers: Vec<TokioResolver>,
}

impl Servers {
    /// These servers, or those of `/etc/resolv.conf` if there are none, whose `timeout` and
    /// `attempts` hold for both. They cache nothing: the callers of [`super::Lookup`] decide when a
    /// name is looked up again.
    ///
    /// # Errors
    /// No servers are given, and the file has none or cannot be read.
    pub(super) fn new(servers: &[SocketAddr]) -> Result<Self, String> {
        let file = std::fs::read("/etc/resolv.conf");
        let amendments = std::env::var("RES_OPTIONS").unwrap_or_default();
        Self::configured(servers, file, &amendments)
    }

    fn configured(
        servers: &[SocketAddr],
        file: io::Result<Vec<u8>>,
        amendments: &str,
    ) -> Result<Self, String> {
        let (config, mut options) = if servers.is_empty() {
            let failed = |error| format!("the system has no resolver: {error}");
            let file = file.map_err(|error| failed(error.to_string()))?;
            parse_resolv_conf(amended(file, amendments))
                .map_err(|error| failed(error.to_string()))?
        } else {
            let options = given_options(file.unwrap_or_default(), amendments);
            (given(servers), options)
        };
        let attempts = limit(&mut options);
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.num_concurrent_reqs = config.name_servers().len().clamp(1, SERVERS);
        let resolver = |_| {
            TokioResolver::builder_with_config(config.clone(), TokioRuntimeProvider::default())
                .with_options(options.clone())
                .build()
                .map_err(|error| error.to_string())
        };
        let resolvers: Result<_, String> = (0..attempts).map(resolver).collect();
        Ok(Self {
            resolvers: resolvers?,
        })
    }

    /// Asks for records. The question is asked again after a while, or as soon as it has failed; the
    /// first answer counts, to whichever of the questions.
    ///
    /// # Errors
    /// There are no such records, or no question was answered.
    pub(super) async fn records(&self, name: &Name, kind: RecordType) -> Result<Lookup, Failure> {
        let mut asked = FuturesUnordered::new();
        let mut failure = Failure::NotFound;
        for resolver in &self.resolvers {
            asked.push(resolver.lookup(name.clone(), kind));
            let Ok(Some(found)) = tokio::time::timeout(AGAIN, asked.next()).await else {
                continue;
            };
            match decided(found) {
                Ok(found) => return found,
                Err(broken) => failure = broken,
            }
        }
        while let Some(found) = asked.next().await {
            match decided(found) {
                Ok(found) => return found,
                Err(broken) => failure = broken,
            }
        }
        Err(failure)
    }
}

/// The resolver's configuration with these servers alone.
fn given(servers: &[SocketAddr]) -> ResolverConfig {
    let servers = servers.iter().map(|server| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
        let connections = connections.into_iter().map(|mut connection| {
            connection.port = server.port();
            connection
        });
        NameServerConfig::new(server.ip(), true, connections.collect())
    });
    ResolverConfig::from_parts(None, Vec::new(), servers.collect())
}

/// The options for servers of the settings: `timeout` and `attempts` of the file.
fn given_options(file: Vec<u8>, amendments: &str) -> ResolverOpts {
    // A file without servers would be refused.
    let mut text = b"nameserver 127.0.0.1\n".to_vec();
    text.extend(amended(file, amendments));
    let mut options = ResolverOpts::default();
    if let Ok((_, system)) = parse_resolv_conf(text) {
        options.timeout = system.timeout;
        options.attempts = system.attempts;
    }
    options
}

/// The text of a `resolv.conf` with the options that the environment variable `RES_OPTIONS` has,
/// which take precedence. Source: resolv.conf(5).
fn amended(mut file: Vec<u8>, amendments: &str) -> Vec<u8> {
    let amendments: Vec<&str> = amendments.split_whitespace().collect();
    file.extend(format!("\noptions {}\n", amendments.join(" ")).bytes());
    file
}

/// Keeps the timeout and the number of attempts within bounds; both are unbounded in a file. Returns
/// how often a question is asked. Source: resolv.conf(5).
fn limit(options: &mut ResolverOpts) -> usize {
    let timeout = options.timeout;
    options.timeout = timeout.clamp(Duration::from_secs(1), Duration::from_secs(30));
    // What is asked again is asked of another resolver.
    std::mem::take(&mut options.attempts).clamp(1, 5)
}

/// The answer to a question.
///
/// # Errors
/// It is none: an answer to the same question may still come.
fn decided<T>(found: Result<T, NetError>) -> Result<Result<T, Failure>, Failure> {
    match found {
        Ok(found) => Ok(Ok(found)),
        Err(error) if error.is_no_records_found() || error.is_nx_domain() => {
            Ok(Err(Failure::NotFound))
        }
        Err(error) => Err(Failure::Broken(error.to_string())),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_environment_amends_the_options_of_a_file() {
        let file = b"nameserver 127.0.0.1\noptions timeout:7 attempts:3".to_vec();
        for (amendments, expected) in [
            ("", (7, 3)),
            ("timeout:2", (2, 3)),
            (" attempts:1\ntimeout:9 ", (9, 1)),
            ("nameserver\nnameserver 127.0.0.2", (7, 3)),
        ] {
            let file = file.clone();
            let (config, options) = parse_resolv_conf(amended(file.clone(), amendments)).unwrap();
            assert_eq!((options.timeout.as_secs(), options.attempts), expected);
            assert_eq!(config.name_servers().len(), 1);
            let options = given_options(file, amendments);
            assert_eq!((options.timeout.as_secs(), options.attempts), expected);
        }
        let options = given_options(Vec::new(), "attempts:4");
        assert_eq!((options.timeout.as_secs(), options.attempts), (5, 4));
    }

    #[test]
    fn the_timeout_and_the_attempts_of_a_file_count_within_bounds() {
        for (timeout, attempts, expected) in [
            (5, 2, (5, 2)),
            (1, 1, (1, 1)),
            (0, 0, (1, 1)),
            (3600, 1000, (30, 5)),
        ] {
            let mut options = ResolverOpts::default();
            options.timeout = Duration::from_secs(timeout);
            options.attempts = attempts;
            let asked = limit(&mut options);
            assert_eq!((options.timeout.as_secs(), asked), expected);
            assert_eq!(options.attempts, 0);
        }
    }
}
