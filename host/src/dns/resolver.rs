//! The addresses of servers that are connected to now and then: those of plugins and authorities.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::net::TcpStream;

use super::{Address, Answer, Failure, Lookup};
use crate::config::Dns;

/// Time after the expiry of its records until which a name that cannot be looked up keeps its
/// addresses; then it is forgotten.
const STALE_TIME: Duration = Duration::from_secs(3600);

/// Looks up names when their addresses are needed, and keeps them as long as their records are
/// valid.
#[derive(Debug)]
pub struct Resolver {
    lookup: Lookup,
    min_ttl: Duration,
    known: Mutex<HashMap<String, Answer>>,
}

impl Resolver {
    /// Looks names up as the settings say.
    pub fn new(settings: &Dns) -> Self {
        Self {
            lookup: Lookup::new(settings),
            min_ttl: settings.min_ttl,
            known: Mutex::default(),
        }
    }

    /// The addresses of a host, in the order in which they are to be tried: an IP address, which may
    /// have brackets, or a name. An address from an SRV record has the port of that record, and the
    /// order follows its weights.
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
        let known = self.known.lock().get(host).cloned();
        let now = Instant::now();
        let valid = known.filter(|answer| now < answer.valid_until);
        let addresses = match valid {
            Some(answer) => answer.addresses,
            None => {
                // A task of its own, so that the next caller finds its result if this one does not
                // wait as long as the look-up takes.
                let (resolver, name) = (Arc::clone(self), host.to_owned());
                let looked_up = tokio::spawn(async move { resolver.look_up(name).await });
                looked_up.await.map_err(io::Error::other)??
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

    async fn look_up(&self, name: String) -> io::Result<Vec<Address>> {
        let last = self.known.lock().get(&name).and_then(|known| known.kind);
        let answer = self.lookup.look_up(&name, last).await;
        let now = Instant::now();
        let mut known = self.known.lock();
        known.retain(|_, answer| now < answer.valid_until + STALE_TIME);
        match answer {
            Ok(mut answer) => {
                answer.valid_until = answer.valid_until.max(now + self.min_ttl);
                let addresses = answer.addresses.clone();
                known.insert(name, answer);
                Ok(addresses)
            }
            Err(failure) => match known.get(&name) {
                Some(answer) => {
                    tracing::debug!(name, "cannot resolve the name again: {failure}");
                    Ok(answer.addresses.clone())
                }
                None => Err(failed(&name, &failure)),
            },
        }
    }
}

fn failed(name: &str, failure: &Failure) -> io::Error {
    let kind = match failure {
        Failure::NotFound => io::ErrorKind::NotFound,
        Failure::Broken(_) => io::ErrorKind::Other,
    };
    io::Error::new(kind, format!("cannot resolve the name '{name}': {failure}"))
}

/// A random order in which an address is the earlier the larger its weight is: each is the first one
/// in proportion to its weight (Efraimidis and Spirakis, 2006).
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

    use super::*;
    use crate::config::DnsType;

    fn resolver(hosts: &str) -> (Arc<Resolver>, tempfile::NamedTempFile) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(hosts.as_bytes()).unwrap();
        let resolver = Resolver::new(&Dns {
            // A server that never answers.
            resolvers: vec![([127, 0, 0, 1], 9).into()],
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
        let (resolver, _file) = resolver("127.0.0.9 logs.test");
        let expected = [([127, 0, 0, 9], 7).into()];
        assert_eq!(resolver.addresses("logs.test", 7).await.unwrap(), expected);
        let expired = Instant::now();
        for answer in resolver.known.lock().values_mut() {
            answer.valid_until = expired;
        }
        let empty = tempfile::NamedTempFile::new().unwrap();
        std::fs::rename(empty.path(), _file.path()).unwrap();
        assert_eq!(resolver.addresses("logs.test", 7).await.unwrap(), expected);
        let unknown = resolver.addresses("other.test", 7).await.unwrap_err();
        assert!(unknown.to_string().contains("'other.test'"), "{unknown}");
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
