//! The addresses of servers that are connected to now and then: those of plugins and authorities.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::{Address, DnsAnswer, Failure, Lookup};
use crate::config::Dns;

/// Time after the expiry of its records until which a name that cannot be looked up keeps its
/// addresses; then it is forgotten.
const STALE_TIME: Duration = Duration::from_secs(3600);

/// Time after the begin of a look-up from which a name's expired addresses are used, while the
/// look-up goes on. It is more than a server takes that answers, and less than callers wait for a
/// connection: without it, a silent server would use up their time for each connection.
const REFRESH_TIME: Duration = Duration::from_millis(300);

/// Looks up names when their addresses are needed, and keeps them as long as their records are
/// valid.
#[derive(Debug)]
pub struct Resolver {
    lookup: Lookup,
    min_ttl: Duration,
    names: Mutex<NameTable>,
}

#[derive(Debug, Default)]
struct NameTable {
    /// The last answers, which may have expired.
    known: HashMap<String, DnsAnswer>,
    /// The look-ups that go on; no name has two at a time.
    ongoing: HashMap<String, Ongoing>,
}

/// A look-up that goes on, in a task of its own.
#[derive(Debug, Clone)]
struct Ongoing {
    begun: Instant,
    /// `None` until it has ended. The channel is closed early if the task was cancelled.
    found: watch::Receiver<Option<Found>>,
}

/// The addresses that a look-up has found, or the kind and text of its error.
type Found = Result<Vec<Address>, (io::ErrorKind, String)>;

impl Resolver {
    /// Looks names up as the settings say.
    pub fn new(settings: &Dns) -> Self {
        Self {
            lookup: Lookup::new(settings),
            min_ttl: settings.min_ttl,
            names: Mutex::default(),
        }
    }

    /// The addresses of a host, in the order in which they are to be tried: an IP address, which
    /// may have brackets, or a name. An address from an SRV record has the port of that record, and
    /// the order follows its weights. Expired addresses are returned if the look-up fails or takes
    /// long.
    ///
    /// # Errors
    /// The name cannot be resolved, and was not for an hour.
    pub(crate) async fn addresses(
        self: &Arc<Self>,
        host: &str,
        port: u16,
    ) -> io::Result<Vec<SocketAddr>> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(vec![(ip, port).into()]);
        }
        let (expired, look_up) = {
            let mut names = self.names.lock();
            let known = names.known.get(host);
            let now = Instant::now();
            if let Some(answer) = known.filter(|answer| now < answer.valid_until) {
                return Ok(ordered(answer.addresses.clone(), port));
            }
            let stale = known.filter(|answer| now < answer.valid_until + STALE_TIME);
            let expired = stale.map(|answer| answer.addresses.clone());
            (expired, self.begin(&mut names, host))
        };
        let addresses = match expired {
            Some(expired) => {
                let until = look_up.begun + REFRESH_TIME;
                let found = tokio::time::timeout_at(until.into(), look_up.end()).await;
                found.ok().and_then(Result::ok).unwrap_or(expired)
            }
            None => {
                let found = look_up.end().await;
                found.map_err(|(kind, error)| io::Error::new(kind, error))?
            }
        };
        Ok(ordered(addresses, port))
    }

    /// Connects to the first address of a host that accepts.
    ///
    /// # Errors
    /// The name cannot be resolved, or no address accepts: the last error.
    pub(crate) async fn connect(self: &Arc<Self>, host: &str, port: u16) -> io::Result<TcpStream> {
        let addresses = self.addresses(host, port).await?;
        TcpStream::connect(&*addresses).await
    }

    /// The look-up of a name that goes on, or a new one.
    fn begin(self: &Arc<Self>, names: &mut NameTable, host: &str) -> Ongoing {
        let ongoing = names.ongoing.get(host);
        if let Some(ongoing) = ongoing.filter(|ongoing| ongoing.found.has_changed().is_ok()) {
            return ongoing.clone();
        }
        let (sender, found) = watch::channel(None);
        let begun = Instant::now();
        let ongoing = Ongoing { begun, found };
        names.ongoing.insert(host.to_owned(), ongoing.clone());
        // A task of its own, so that the next caller finds its result if this one does not wait as
        // long as the look-up takes.
        let (resolver, name) = (Arc::clone(self), host.to_owned());
        tokio::spawn(async move {
            let found = resolver.look_up(name).await;
            sender.send_replace(Some(found));
        });
        ongoing
    }

    async fn look_up(&self, name: String) -> Found {
        let last = self
            .names
            .lock()
            .known
            .get(&name)
            .and_then(|known| known.kind);
        let answer = self.lookup.look_up(&name, last).await;
        let now = Instant::now();
        let mut names = self.names.lock();
        names.ongoing.remove(&name);
        names
            .known
            .retain(|_, answer| now < answer.valid_until + STALE_TIME);
        match answer {
            Ok(mut answer) => {
                answer.valid_until = answer.valid_until.max(now + self.min_ttl);
                let addresses = answer.addresses.clone();
                names.known.insert(name, answer);
                Ok(addresses)
            }
            Err(failure) => {
                if names.known.contains_key(&name) {
                    tracing::debug!(name, "cannot resolve the name again: {failure}");
                }
                Err(failed(&name, &failure))
            }
        }
    }
}

impl Ongoing {
    /// What it finds, once it has ended.
    async fn end(mut self) -> Found {
        let cancelled = || Err((io::ErrorKind::Other, "the look-up was cancelled".to_owned()));
        match self.found.wait_for(Option::is_some).await {
            Ok(found) => found.clone().unwrap_or_else(cancelled),
            Err(_) => cancelled(),
        }
    }
}

fn failed(name: &str, failure: &Failure) -> (io::ErrorKind, String) {
    let kind = match failure {
        Failure::NotFound => io::ErrorKind::NotFound,
        Failure::Broken(_) => io::ErrorKind::Other,
    };
    (kind, format!("cannot resolve the name '{name}': {failure}"))
}

/// A random order in which an address is the earlier the larger its weight is: each is the first
/// one in proportion to its weight (Efraimidis and Spirakis, 2006).
fn ordered(addresses: Vec<Address>, port: u16) -> Vec<SocketAddr> {
    let mut drawn: Vec<(f64, SocketAddr)> = addresses
        .into_iter()
        .map(|address| {
            let weight = f64::from(address.weight.unwrap_or(1).max(1));
            let key = fastrand::f64().powf(weight.recip());
            (key, (address.ip, address.port.unwrap_or(port)).into())
        })
        .collect();
    drawn.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    drawn.into_iter().map(|(_, address)| address).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::io::Write;
    use std::net::UdpSocket;

    use futures_util::poll;

    use super::*;
    use crate::config::DnsType;

    /// With a port where there is no server.
    fn resolver(hosts: &str) -> (Arc<Resolver>, tempfile::NamedTempFile) {
        asking(([127, 0, 0, 1], 9).into(), hosts)
    }

    fn asking(server: SocketAddr, hosts: &str) -> (Arc<Resolver>, tempfile::NamedTempFile) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(hosts.as_bytes()).unwrap();
        let resolver = Resolver::new(&Dns {
            resolvers: vec![server],
            order: vec![DnsType::A],
            hosts_file: file.path().to_owned(),
            min_ttl: Duration::ZERO,
        });
        (Arc::new(resolver), file)
    }

    #[tokio::test]
    async fn an_address_needs_no_look_up() {
        let (resolver, _file) = resolver("");
        for (host, expected) in [
            ("10.0.0.1", "10.0.0.1:7"),
            ("[::1]", "[::1]:7"),
            ("::1", "[::1]:7"),
        ] {
            let found = resolver.addresses(host, 7).await.unwrap();
            assert_eq!(found, [expected.parse().unwrap()]);
        }
    }

    #[tokio::test]
    async fn a_name_that_cannot_be_looked_up_again_keeps_its_addresses() {
        let (resolver, file) = resolver("127.0.0.9 logs.test");
        let expected = [([127, 0, 0, 9], 7).into()];
        assert_eq!(resolver.addresses("logs.test", 7).await.unwrap(), expected);
        expire(&resolver, &file);
        assert_eq!(resolver.addresses("logs.test", 7).await.unwrap(), expected);
        let unknown = resolver.addresses("other.test", 7).await.unwrap_err();
        assert!(unknown.to_string().contains("'other.test'"), "{unknown}");
    }

    #[tokio::test]
    async fn expired_addresses_are_used_while_the_look_up_goes_on() {
        // A server that never answers.
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = silent.local_addr().unwrap();
        let (resolver, file) = asking(server, "127.0.0.9 logs.test");
        let expected = [([127, 0, 0, 9], 7).into()];
        assert_eq!(resolver.addresses("logs.test", 7).await.unwrap(), expected);
        expire(&resolver, &file);
        for _ in 0..2 {
            assert_eq!(resolver.addresses("logs.test", 7).await.unwrap(), expected);
            assert_eq!(tasks(&resolver), 1);
        }
    }

    #[tokio::test]
    async fn a_name_is_looked_up_once_at_a_time() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (resolver, _file) = asking(silent.local_addr().unwrap(), "");
        for (name, expected) in [("one.test", 1), ("one.test", 1), ("two.test", 2)] {
            let mut addresses = Box::pin(resolver.addresses(name, 7));
            assert!(poll!(&mut addresses).is_pending());
            assert_eq!(tasks(&resolver), expected);
        }
    }

    /// The look-ups that go on.
    fn tasks(resolver: &Arc<Resolver>) -> usize {
        Arc::strong_count(resolver) - 1
    }

    /// Lets all answers expire, and empties the hosts file.
    fn expire(resolver: &Resolver, file: &tempfile::NamedTempFile) {
        let expired = Instant::now();
        for answer in resolver.names.lock().known.values_mut() {
            answer.valid_until = expired;
        }
        let empty = tempfile::NamedTempFile::new().unwrap();
        // The two files may have been made in the same tick of the clock.
        let other = std::time::SystemTime::UNIX_EPOCH;
        empty.as_file().set_modified(other).unwrap();
        std::fs::rename(empty.path(), file.path()).unwrap();
    }

    #[test]
    fn each_address_is_the_first_one_in_proportion_to_its_weight() {
        let address = |last: u8, weight| Address {
            port: Some(u16::from(last)),
            weight: Some(weight),
            ..Address::bare([10, 0, 0, last].into())
        };
        let all = vec![address(1, 1), address(2, 3)];
        let firsts = (0..4000).map(|_| ordered(all.clone(), 80)[0].port());
        let share = firsts.filter(|port| *port == 2).count();
        assert!((2800..3200).contains(&share), "{share}");
    }
}
