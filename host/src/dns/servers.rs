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
use tokio::sync::{Semaphore, SemaphorePermit};

use super::Failure;

/// Time without an answer after which a question is asked again. An answer to the first one is
/// still taken.
const AGAIN: Duration = Duration::from_secs(1);

/// Pause before a question is asked again that has failed: a server that answers SERVFAIL at once
/// would answer the same at once.
const FAILURE_PAUSE: Duration = Duration::from_millis(100);

/// Most name servers that are asked the same at a time, so that one that is down delays no answer
/// of the other. The first answer counts, so the quicker server decides even if it refuses, fails
/// (SERVFAIL) or knows no such name (NXDOMAIN). A third one is asked if both cannot be reached; if
/// both are silent, the next questions go to it first, because the resolver prefers the servers
/// that have answered quickest.
const SERVERS: usize = 2;

/// Most questions at a time that are asked for the first time. Further ones wait for one of these
/// to end, in their order.
///
/// The resolver opens a socket for each datagram, and sends up to three for a question to each of
/// [`SERVERS`]: with [`REPEATED`], 384 sockets if no server answers. They have to leave room in the
/// reserve of descriptors (`connections.rs`).
pub(crate) const QUESTIONS: usize = 48;

/// Most questions at a time that are asked again. They have a limit of their own, so that names
/// whose servers do not answer hold up no first question with their repeated ones.
const REPEATED: usize = 16;

/// Asks DNS servers.
pub(super) struct Servers {
    /// As many as a question is asked times. Each of them would join a question to the same one
    /// that it has asked before, and wait for that one's answer alone.
    resolvers: Vec<TokioResolver>,
    questions: Semaphore,
    repeated: Semaphore,
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
            questions: Semaphore::new(QUESTIONS),
            repeated: Semaphore::new(REPEATED),
        })
    }

    /// Asks for records. The question is asked again after a while, or soon after it has failed;
    /// the first answer counts, to whichever of the questions.
    ///
    /// # Errors
    /// There are no such records, or no question was answered.
    pub(super) async fn records(&self, name: &Name, kind: RecordType) -> Result<Lookup, Failure> {
        let mut asked = FuturesUnordered::new();
        let mut failure = Failure::NotFound;
        // It is never closed.
        let mut first = self.questions.acquire().await.ok();
        let mut pause = Duration::ZERO;
        for resolver in &self.resolvers {
            asked.push(self.ask(resolver, name, kind, first.take(), pause));
            let Ok(Some(found)) = tokio::time::timeout(AGAIN, asked.next()).await else {
                pause = Duration::ZERO;
                continue;
            };
            match decided(found) {
                Ok(found) => return found,
                Err(broken) => failure = broken,
            }
            pause = FAILURE_PAUSE;
        }
        while let Some(found) = asked.next().await {
            match decided(found) {
                Ok(found) => return found,
                Err(broken) => failure = broken,
            }
        }
        Err(failure)
    }

    /// Asks once: after a pause, and, without the permit of a first question, once there is one for
    /// a repeated question.
    async fn ask(
        &self,
        resolver: &TokioResolver,
        name: &Name,
        kind: RecordType,
        first: Option<SemaphorePermit<'_>>,
        pause: Duration,
    ) -> Result<Lookup, NetError> {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let _permit = match first {
            Some(first) => Some(first),
            None => self.repeated.acquire().await.ok(),
        };
        resolver.lookup(name.clone(), kind).await
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

/// Keeps the timeout and the number of attempts within bounds; both are unbounded in a file.
/// Returns how often a question is asked. Source: resolv.conf(5).
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
    use std::net::UdpSocket;
    use std::time::Instant;

    use futures_util::future::join_all;
    use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};

    use super::*;

    /// Asks one server, which is the socket, as often as is the default.
    fn asking(socket: &UdpSocket) -> Servers {
        let server = socket.local_addr().unwrap();
        Servers::configured(&[server], Ok(Vec::new()), "").unwrap()
    }

    /// The next query that comes, and its sender.
    fn query(socket: &UdpSocket) -> io::Result<(Message, SocketAddr)> {
        let mut buffer = [0; 4096];
        let (length, client) = socket.recv_from(&mut buffer)?;
        Ok((Message::from_vec(&buffer[..length]).unwrap(), client))
    }

    fn answer(socket: &UdpSocket, query: (Message, SocketAddr), code: ResponseCode) {
        let (mut message, client) = query;
        message.metadata.message_type = MessageType::Response;
        message.metadata.response_code = code;
        // The client may have closed its socket.
        let _ = socket.send_to(&message.to_vec().unwrap(), client);
    }

    #[tokio::test]
    async fn as_many_names_are_asked_for_at_a_time_as_there_are_permits() {
        const NAMES: usize = 3 * QUESTIONS;
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let servers = asking(&socket);
        let wait = Some(Duration::from_millis(5));
        socket.set_read_timeout(wait).unwrap();
        // It answers the oldest question whenever no further one comes.
        let server = std::thread::spawn(move || {
            let (mut seen, mut open, mut most) = (Vec::new(), Vec::new(), 0);
            while seen.len() < NAMES || !open.is_empty() {
                match query(&socket) {
                    Ok(query) => {
                        let name = query.0.queries[0].name().clone();
                        if !seen.contains(&name) {
                            seen.push(name);
                            open.push(query);
                        }
                    }
                    Err(_) if open.is_empty() => {}
                    Err(_) => answer(&socket, open.remove(0), ResponseCode::NXDomain),
                }
                most = most.max(open.len());
            }
            most
        });
        let names: Vec<Name> = (0..NAMES)
            .map(|number| Name::from_ascii(format!("n{number}.test.")).unwrap())
            .collect();
        let asked = names
            .iter()
            .map(|name| servers.records(name, RecordType::A));
        for found in join_all(asked).await {
            assert!(matches!(found, Err(Failure::NotFound)));
        }
        let most = server.join().unwrap();
        assert!(most <= QUESTIONS, "{most}");
    }

    #[tokio::test]
    async fn a_question_that_has_failed_is_asked_again_after_a_pause() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let servers = asking(&socket);
        let server = std::thread::spawn(move || {
            let codes = [ResponseCode::ServFail, ResponseCode::NXDomain];
            codes.map(|code| {
                let query = query(&socket).unwrap();
                let came = Instant::now();
                answer(&socket, query, code);
                came
            })
        });
        let name = Name::from_ascii("a.test.").unwrap();
        let found = servers.records(&name, RecordType::A).await;
        assert!(matches!(found, Err(Failure::NotFound)));
        let [first, second] = server.join().unwrap();
        assert!(second - first >= FAILURE_PAUSE);
    }

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
