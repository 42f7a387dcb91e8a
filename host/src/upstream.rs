//! Where requests can go: endpoints with their live numbers, and the upstreams that hold them.

mod endpoint;
mod resolve;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

pub use endpoint::{Endpoint, InFlight};
pub use resolve::Names;

use crate::balancer::{self, Balancer, Choice};

/// A set of endpoints with the balancer that chooses among them: an upstream of the Admin API, or the
/// plain host of a service.
///
/// A clone is the same upstream: it shares the balancer, its instance and every live number.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Name of the upstream, or `host:port`.
    pub name: Arc<str>,
    /// Whether this is an upstream of the Admin API.
    pub named: bool,
    /// `Host` to send in place of the target's own.
    pub host_header: Option<Arc<str>>,
    balancer: Arc<Balancer>,
    known: Arc<Mutex<Known>>,
}

/// What is remembered of endpoints, for the next table.
#[derive(Debug, Default)]
struct Known {
    /// Live numbers, for as long as a table or a request holds them.
    live: HashMap<u64, Weak<endpoint::Live>>,
    /// Ids and weights of the present table.
    table: Vec<(u64, u32)>,
}

/// A target as configured: where requests may go before names are resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// An address or a name.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Share of the traffic, 0 to 65535. Each address of a name gets all of it, as in Kong.
    pub weight: u32,
}

impl Upstream {
    /// An upstream without endpoints.
    pub fn new(name: &str, named: bool, balancer: Balancer) -> Self {
        Self {
            name: name.into(),
            named,
            host_header: None,
            balancer: Arc::new(balancer),
            known: Arc::default(),
        }
    }

    /// The balancer, to switch it or to read its counters.
    pub fn balancer(&self) -> &Arc<Balancer> {
        &self.balancer
    }

    /// Chooses an endpoint; see [`Balancer::pick`].
    pub fn pick(&self, request: balancer::Request, tried: &[u64]) -> Choice {
        self.balancer.pick(request, tried)
    }

    /// Makes these targets the ones to choose from. Endpoints that stay keep their live numbers, and
    /// a balancer whose table stays hears nothing.
    pub fn set_targets(&self, targets: &[Target], names: &Names) {
        let mut known = self.known.lock();
        let Known { live, table: old } = &mut *known;
        live.retain(|_, numbers| numbers.strong_count() > 0);
        let mut table: Vec<Arc<Endpoint>> = Vec::with_capacity(targets.len());
        for target in targets.iter().filter(|target| target.weight > 0) {
            for ip in names.addresses(&target.host) {
                let address = SocketAddr::new(ip, target.port);
                let id = Endpoint::id_of(&target.host, address);
                let numbers = live.get(&id).and_then(Weak::upgrade).unwrap_or_default();
                let endpoint =
                    Endpoint::sharing(id, address, target.host.clone(), target.weight, numbers);
                live.insert(id, endpoint.live());
                table.push(Arc::new(endpoint));
            }
        }
        let new: Vec<(u64, u32)> = table.iter().map(|e| (e.id, e.weight)).collect();
        if *old == new {
            return;
        }
        *old = new;
        // The old table keeps the numbers of unchanged endpoints alive up to here.
        self.balancer.set_endpoints(table.into());
    }
}

/// Splits `host:port`, the host of an IPv6 address in brackets, as targets are stored.
pub fn split_target(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    Some((host.to_owned(), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_target_splits_into_host_and_port() {
        assert_eq!(split_target("a.example:80"), Some(("a.example".into(), 80)));
        assert_eq!(split_target("[::1]:8000"), Some(("::1".into(), 8000)));
        assert_eq!(split_target("a.example"), None);
        assert_eq!(split_target("a.example:port"), None);
    }
}
