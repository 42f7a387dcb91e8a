//! Host names of targets and services, resolved by the system's resolver off the request path.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::net::lookup_host;

/// Time between two looks at every name that is in use.
const REFRESH: Duration = Duration::from_secs(30);

/// The same while there is a name without an address.
const RETRY: Duration = Duration::from_secs(2);

/// Longest wait for a name; past it the change that brought it goes ahead without.
const PATIENCE: Duration = Duration::from_secs(2);

/// The names in use with the addresses that they had when last resolved.
#[derive(Debug, Default)]
pub struct Names {
    known: Mutex<HashMap<String, Vec<IpAddr>>>,
    /// What the last look-up of a name failed with.
    errors: Mutex<HashMap<String, String>>,
}

impl Names {
    /// The addresses of a host: itself if it is an address, none while its name is not resolved.
    pub fn addresses(&self, host: &str) -> Vec<IpAddr> {
        match literal(host) {
            Some(address) => vec![address],
            None => self.known.lock().get(host).cloned().unwrap_or_default(),
        }
    }

    /// What the last look-up of a name failed with, if it did.
    pub fn error(&self, host: &str) -> Option<String> {
        self.errors.lock().get(host).cloned()
    }

    /// Makes `hosts` the names in use, and resolves those that are new. One that did not resolve
    /// before is left to [`Names::refresh`]: it must not hold up every change that follows.
    pub async fn watch(&self, hosts: impl Iterator<Item = String>) {
        let new: Vec<String> = {
            let mut known = self.known.lock();
            let mut old = std::mem::take(&mut *known);
            let mut new = Vec::new();
            for host in hosts.filter(|host| literal(host).is_none()) {
                if known.contains_key(&host) {
                    continue;
                }
                let addresses = old.remove(&host);
                if addresses.is_none() {
                    new.push(host.clone());
                }
                known.insert(host, addresses.unwrap_or_default());
            }
            new
        };
        self.resolve(new).await;
    }

    /// Waits until the names are to be looked at again.
    pub async fn rest(&self) {
        let missing = self.known.lock().values().any(Vec::is_empty);
        tokio::time::sleep(if missing { RETRY } else { REFRESH }).await;
    }

    /// Resolves every name in use again. Returns whether an address changed.
    pub async fn refresh(&self) -> bool {
        let hosts = self.known.lock().keys().cloned().collect();
        self.resolve(hosts).await
    }

    async fn resolve(&self, hosts: Vec<String>) -> bool {
        let answers = join_all(hosts.into_iter().map(|host| async move {
            let answer = tokio::time::timeout(PATIENCE, lookup(&host)).await;
            (host, answer)
        }))
        .await;
        let mut changed = false;
        let mut known = self.known.lock();
        for (host, answer) in answers {
            // A name that does not resolve now keeps the addresses it had.
            match answer {
                Ok(Ok(addresses)) => {
                    if let Some(entry) = known.get_mut(&host)
                        && *entry != addresses
                    {
                        *entry = addresses;
                        changed = true;
                    }
                }
                Ok(Err(error)) => tracing::warn!(host, "cannot resolve the name: {error}"),
                Err(_) => tracing::warn!(host, "the name is not resolved within {PATIENCE:?}"),
            }
        }
        changed
    }
}

fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .ok()
}

/// The addresses of a name in ascending order, so that the same set is the same list. IPv6 ones only
/// where there is no IPv4 one, as Kong resolves unless told otherwise: a name such as `localhost`
/// has both, and a server that listens on one of them only.
async fn lookup(host: &str) -> std::io::Result<Vec<IpAddr>> {
    let mut found: Vec<IpAddr> = lookup_host((host, 0)).await?.map(|a| a.ip()).collect();
    if found.iter().any(IpAddr::is_ipv4) {
        found.retain(IpAddr::is_ipv4);
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_needs_no_resolver() {
        let names = Names::default();
        assert_eq!(names.addresses("127.0.0.1"), [IpAddr::from([127, 0, 0, 1])]);
        assert_eq!(names.addresses("::1").len(), 1);
        assert!(names.addresses("localhost").is_empty());
    }

    #[tokio::test]
    async fn localhost_resolves_to_one_address() {
        let names = Names::default();
        names.watch(["localhost".to_owned()].into_iter()).await;
        assert_eq!(names.addresses("localhost").len(), 1);
        assert!(!names.refresh().await);
        names.watch(std::iter::empty()).await;
        assert!(names.addresses("localhost").is_empty());
    }
}
