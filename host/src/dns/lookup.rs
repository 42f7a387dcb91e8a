//! One look-up of a name: the hosts file, then DNS, by the configured record types in their order.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use futures_util::stream::{self, FuturesUnordered, StreamExt};
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use parking_lot::Mutex;

use super::servers::Servers;
use super::{Address, DnsAnswer, Failure};
use crate::config::{Dns, DnsType};

/// Time without an answer for records of one type after which those of the next type are asked for
/// as well: some servers never answer for types that they do not know.
pub(crate) const UNANSWERED: Duration = Duration::from_secs(2);

/// Most services of one name whose addresses are asked for at a time: a few large names must not
/// keep the others waiting for their turn.
const SERVICES: usize = 8;

/// Time between two looks at a name of the hosts file.
const HOSTS_TTL: Duration = Duration::from_secs(5);

/// Looks names up.
pub(crate) struct Lookup {
    servers: Result<Servers, String>,
    order: Vec<DnsType>,
    hosts_file: PathBuf,
    /// The hosts file as it was read last, and its time of change then.
    hosts: Mutex<(Option<SystemTime>, Hosts)>,
}

/// The addresses of names in a hosts file, in the order of its lines. The names are in lower case,
/// without the final dot.
///
/// The resolver's own reader is not used: it leaves out names that are not host names by the strict
/// rules of RFC 952, and those of Docker, Compose and Kubernetes have underscores.
type Hosts = HashMap<String, Vec<IpAddr>>;

impl std::fmt::Debug for Lookup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lookup").finish_non_exhaustive()
    }
}

impl Lookup {
    pub(crate) fn new(settings: &Dns) -> Self {
        Self {
            servers: Servers::new(&settings.resolvers),
            order: settings.order.clone(),
            hosts_file: settings.hosts_file.clone(),
            hosts: Mutex::default(),
        }
    }

    /// The addresses of a name. `last` is the record type of its last answer.
    pub(crate) async fn look_up(
        &self,
        host: &str,
        last: Option<DnsType>,
    ) -> Result<DnsAnswer, Failure> {
        let known = self.in_hosts(host);
        if !known.is_empty() {
            return Ok(DnsAnswer::new(known, Instant::now() + HOSTS_TTL));
        }
        let servers = self.servers.as_ref();
        let servers = servers.map_err(|error| Failure::Broken(error.clone()))?;
        let name = dns_name(host)?;
        let mut search = Search {
            last,
            asked: FuturesUnordered::new(),
            unanswered: Vec::new(),
            failure: Failure::NotFound,
        };
        for kind in kinds(&self.order, last) {
            let name = &name;
            search.unanswered.push(kind);
            search.asked.push(async move {
                let found = match kind {
                    DnsType::Srv => services(servers, name).await,
                    DnsType::A => addresses(servers, name, RecordType::A).await,
                    DnsType::Aaaa => addresses(servers, name, RecordType::AAAA).await,
                    DnsType::Last => Err(Failure::NotFound),
                };
                (kind, found)
            });
            // Other types may give other addresses than the known ones, perhaps with other ports,
            // so the last one is waited for.
            let patience = (Some(kind) != last).then_some(UNANSWERED);
            let found = match patience {
                Some(patience) => tokio::time::timeout(patience, search.next(Some(kind))).await,
                None => Ok(search.next(Some(kind)).await),
            };
            if let Ok(Some(found)) = found {
                return found;
            }
        }
        let found = search.next(None).await;
        found.unwrap_or(Err(search.failure))
    }

    /// The addresses that the hosts file has for a name: those of IPv4 if there are any.
    fn in_hosts(&self, host: &str) -> Vec<Address> {
        let changed = std::fs::metadata(&self.hosts_file).and_then(|file| file.modified());
        let changed = changed.ok();
        let mut known = self.hosts.lock();
        if known.0 != changed {
            // A file that does not exist has no names.
            let text = std::fs::read(&self.hosts_file).unwrap_or_else(|error| {
                if error.kind() != std::io::ErrorKind::NotFound {
                    tracing::warn!(
                        "cannot read {} (setting dns_hostsfile): {error}",
                        self.hosts_file.display()
                    );
                }
                Vec::new()
            });
            *known = (changed, hosts(&String::from_utf8_lossy(&text)));
        }
        let found = known.1.get(&hosts_name(host));
        let (four, six): (Vec<IpAddr>, Vec<IpAddr>) = found
            .into_iter()
            .flatten()
            .copied()
            .partition(|address| address.is_ipv4());
        let addresses = if four.is_empty() { six } else { four };
        addresses.into_iter().map(Address::bare).collect()
    }
}

/// A look-up in DNS that asks for records of several types.
struct Search<F> {
    /// The type of the last answer.
    last: Option<DnsType>,
    asked: FuturesUnordered<F>,
    /// The types that are asked for, in the order of the questions.
    unanswered: Vec<DnsType>,
    /// What is wrong if there are no addresses.
    failure: Failure,
}

impl<F: Future<Output = (DnsType, Result<DnsAnswer, Failure>)>> Search<F> {
    /// Waits until the look-up is decided; `None` once there is no answer for records of this type,
    /// or of any type.
    async fn next(&mut self, awaited: Option<DnsType>) -> Option<Result<DnsAnswer, Failure>> {
        while let Some((kind, found)) = self.asked.next().await {
            let is_first = self.unanswered.first() == Some(&kind);
            self.unanswered.retain(|other| *other != kind);
            match found {
                Ok(mut answer) if !answer.addresses.is_empty() => {
                    // If the look-up of an earlier type failed, or is not answered, that type may
                    // be the one that the name has.
                    let sure = is_first && matches!(self.failure, Failure::NotFound);
                    answer.kind = sure.then_some(kind);
                    return Some(Ok(answer));
                }
                Ok(_) | Err(Failure::NotFound) => {}
                Err(broken) if Some(kind) == self.last => return Some(Err(broken)),
                Err(broken) => self.failure = broken,
            }
            if Some(kind) == awaited {
                break;
            }
        }
        None
    }
}

/// Reads a hosts file: an address and its names on each line, comments after `#`. A line of another
/// form is skipped.
fn hosts(text: &str) -> Hosts {
    let mut hosts = Hosts::new();
    for line in text.trim_start_matches('\u{feff}').lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        if let Some(address) = words.next().and_then(|word| word.parse().ok()) {
            for name in words {
                hosts.entry(hosts_name(name)).or_default().push(address);
            }
        }
    }
    hosts
}

fn hosts_name(name: &str) -> String {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.to_ascii_lowercase()
}

/// A name as it is sent to DNS: any labels of any bytes (RFC 2181, 11), as they are written. The
/// resolver decides in which domains it is searched for, unless a final dot says that the name is
/// complete.
fn dns_name(host: &str) -> Result<Name, Failure> {
    let (labels, whole) = match host.strip_suffix('.') {
        Some(labels) => (labels, true),
        None => (host, false),
    };
    let name = Name::from_labels(labels.split('.').map(str::as_bytes));
    let mut name = name.map_err(|error| Failure::Broken(error.to_string()))?;
    name.set_fqdn(whole);
    Ok(name)
}

/// The types to ask for, each only once.
fn kinds(order: &[DnsType], last: Option<DnsType>) -> Vec<DnsType> {
    let mut kinds = Vec::new();
    for kind in order {
        let kind = match kind {
            DnsType::Last => last,
            other => Some(*other),
        };
        kinds.extend(kind.filter(|kind| !kinds.contains(kind)));
    }
    kinds
}

fn ip(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    }
}

async fn addresses(servers: &Servers, name: &Name, kind: RecordType) -> Result<DnsAnswer, Failure> {
    let found = servers.records(name, kind).await?;
    let addresses = found.answers().iter();
    let addresses = addresses.filter_map(|record| Some(Address::bare(ip(&record.data)?)));
    Ok(DnsAnswer::new(addresses.collect(), found.valid_until()))
}

/// The addresses of a host that a server has added to its answer about services (RFC 2782); `None`
/// if it has added none.
fn added(records: &[Record], host: &Name, kind: RecordType) -> Option<DnsAnswer> {
    let own = records.iter();
    let own = own.filter(|record| record.record_type() == kind && record.name == *host);
    let ttl = own.clone().map(|record| record.ttl).min()?;
    let addresses = own.filter_map(|record| Some(Address::bare(ip(&record.data)?)));
    let valid_until = Instant::now() + Duration::from_secs(ttl.into());
    Some(DnsAnswer::new(addresses.collect(), valid_until))
}

/// The addresses of the services of the best priority, each with the port and weight of its record.
async fn services(servers: &Servers, name: &Name) -> Result<DnsAnswer, Failure> {
    let found = servers.records(name, RecordType::SRV).await?;
    let mut services: Vec<SRV> = found
        .answers()
        .iter()
        .filter_map(|record| match &record.data {
            RData::SRV(service) => Some(service.clone()),
            _ => None,
        })
        .collect();
    let best = services.iter().map(|service| service.priority).min();
    // The root stands for no host at all (RFC 2782).
    services.retain(|service| Some(service.priority) == best && !service.target.is_root());
    let records = found.additionals();
    let hosts = stream::iter(services).map(|service| async move {
        let of_type = async |kind| match added(records, &service.target, kind) {
            Some(answer) => Ok(answer),
            None => addresses(servers, &service.target, kind).await,
        };
        let mut found = of_type(RecordType::A).await;
        if matches!(&found, Err(Failure::NotFound)) {
            found = of_type(RecordType::AAAA).await;
        }
        (service, found)
    });
    let hosts: Vec<_> = hosts.buffer_unordered(SERVICES).collect().await;
    let mut answer = DnsAnswer::new(Vec::new(), found.valid_until());
    answer.service = true;
    for (service, found) in hosts {
        match found {
            Ok(found) => {
                answer.valid_until = answer.valid_until.min(found.valid_until);
                answer
                    .addresses
                    .extend(found.addresses.iter().map(|address| Address {
                        ip: address.ip,
                        // Port 0 means that none is set. Source: Kong.
                        port: Some(service.port).filter(|port| *port > 0),
                        weight: Some(u32::from(service.weight.max(1))),
                        name: Some(service.target.to_utf8().trim_end_matches('.').to_owned()),
                    }));
            }
            Err(Failure::NotFound) => {}
            // With only part of the answer, the missing addresses would lose their traffic.
            Err(broken) => return Err(broken),
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use DnsType::{A, Aaaa, Last, Srv};

    #[test]
    fn any_name_in_a_hosts_file_is_found() {
        let text = "\u{feff}127.0.0.1 my_db Db_.TEST. # not.this\r\n\t::1\tmy_db\n127.0.0.2 my_db\n\
                    # 10.0.0.1 my_db\nno.address my_db\n127.0.0.1\n";
        let hosts = hosts(text);
        let names = |name: &str| hosts.get(name).map_or(0, Vec::len);
        assert_eq!((names("my_db"), names("db_.test")), (3, 1));
        assert_eq!(hosts.len(), 2);
    }

    #[test]
    fn a_name_is_asked_for_as_it_is_written() {
        for name in ["my_api", "a_.b", "_http._tcp.x", "x-1", "a.b."] {
            let asked = dns_name(name).map(|name| name.to_string());
            assert_eq!(asked.ok().as_deref(), Some(name));
        }
        let long = "x".repeat(64);
        for wrong in ["", ".", "a..b", long.as_str()] {
            assert!(dns_name(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn each_type_is_asked_for_once_and_the_last_one_where_the_order_says() {
        assert_eq!(kinds(&[Last, Srv, A], None), [Srv, A]);
        assert_eq!(kinds(&[Last, Srv, A], Some(A)), [A, Srv]);
        assert_eq!(kinds(&[A, Last, Aaaa], Some(Aaaa)), [A, Aaaa]);
        assert_eq!(kinds(&[Srv, A], Some(A)), [Srv, A]);
    }
}
