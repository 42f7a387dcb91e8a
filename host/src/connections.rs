//! Limits of open connections, so that no kind of connection starves another.
//!
//! Each connection needs a file descriptor, and their number is limited (`RLIMIT_NOFILE`). The
//! descriptors that are free at the start are divided into a reserve (for the Admin API, probes,
//! the resolver, the store and compilers), a part for sessions of UDP if there are listeners for
//! them, and two equal parts for clients and endpoints. A request needs at most one connection of
//! each kind, so an admitted client can be served.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::bail;
use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Default limit of clients' connections, if there are enough descriptors. Source: Envoy's advice
/// for a proxy at the edge (`global_downstream_max_connections`).
const CLIENTS: usize = 50_000;

/// Default limit of sessions of UDP, if there are enough descriptors.
const UDP_SESSIONS: usize = 10_000;

/// Descriptors that a worker's runtime needs besides its connections.
const WORKER: usize = 4;

/// Smallest and largest reserve, in descriptors.
const RESERVE: (usize, usize) = (16, 1024);

/// Least number of descriptors that has to be free at the start: fewer cannot be divided.
const MIN_FREE: usize = 16;

/// How long bytes of a refused client are read, before and after the response.
const REFUSAL: Duration = Duration::from_secs(1);

/// Most bytes that are read of a refused client.
const REFUSED_BYTES: usize = 64 * 1024;

/// A permit for one connection, which takes a descriptor of the process. Dropping it gives it back.
pub(crate) type DescriptorPermit = OwnedSemaphorePermit;

/// The permits for a connection of a client: one of the process, and one of its address, if these
/// are limited.
pub(crate) type ClientPermit = (DescriptorPermit, Option<AddressPermit>);

/// The number of connections of each address of a client.
#[derive(Debug, Default)]
pub(crate) struct AddressConnections(Mutex<HashMap<IpAddr, u32>>);

/// Counts a connection among those of its address. Dropping it ends that.
#[derive(Debug)]
pub(crate) struct AddressPermit {
    connections: Arc<AddressConnections>,
    client: IpAddr,
}

impl AddressConnections {
    /// A permit for a connection of a client that has fewer than `most`.
    pub(crate) fn permit(self: &Arc<Self>, address: IpAddr, most: u32) -> Option<AddressPermit> {
        let client = one_client(address);
        let mut counts = self.0.lock();
        let count = counts.entry(client).or_default();
        // An entry that was made now has to be counted, or would stay.
        if *count >= most.max(1) {
            return None;
        }
        *count += 1;
        let connections = Arc::clone(self);
        Some(AddressPermit {
            connections,
            client,
        })
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let mut counts = self.connections.0.lock();
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

/// What counts as one client: an address of IPv4, or a network of IPv6 with 64 bits, since a client
/// may take any address of such a network (RFC 6177).
fn one_client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address => address,
    }
}

/// The number of connections of each kind that may still be opened.
#[derive(Debug)]
pub struct ConnectionLimits {
    /// Most connections of clients.
    pub max_clients: usize,
    clients: Arc<Semaphore>,
    /// Most connections to endpoints.
    max_endpoints: usize,
    endpoints: Arc<Semaphore>,
    udp_sessions: Arc<Semaphore>,
    admin: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    /// Connections to the Admin API that were refused.
    pub admin_refused: AtomicU64,
    /// The clients of the proxy and of streams, if there is a limit for each.
    pub(crate) of_addresses: Arc<AddressConnections>,
}

/// Descriptors that any gateway has open when it has started, besides those of its workers.
const STARTED: usize = 32;

/// The limits that settings give. Without one, there may be as many as the descriptors suffice for,
/// up to a default.
#[derive(Debug, Clone, Copy, Default)]
pub struct WantedLimits {
    /// The setting `max_connections`.
    pub clients: Option<usize>,
    /// Whether there are listeners for datagrams.
    pub has_udp: bool,
    /// The setting `max_udp_sessions`.
    pub udp_sessions: Option<usize>,
}

/// Raises the limit of open files to the highest that this user may have, and returns it.
pub fn raise_file_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // If the system refuses, the old limit stays.
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}

impl ConnectionLimits {
    /// Whether a process that has `files` descriptors in all can start. A start that runs out of
    /// them would fail with the error of whatever needed one more.
    ///
    /// # Errors
    /// There are too few descriptors.
    pub fn check_start(files: usize, workers: usize) -> anyhow::Result<()> {
        let taken = STARTED + workers.saturating_mul(WORKER);
        Self::divide(files, taken, WantedLimits::default()).map(drop)
    }

    /// Divides the descriptors of a process that has `files` in all.
    ///
    /// # Errors
    /// Too few descriptors are free.
    pub fn new(files: usize, workers: usize, wanted: WantedLimits) -> anyhow::Result<Self> {
        // If the number cannot be read, it is estimated: a few dozen are open at this point.
        let open = std::fs::read_dir("/proc/self/fd").map_or(64, Iterator::count);
        Self::divide(files, open + workers.saturating_mul(WORKER), wanted)
    }

    fn divide(files: usize, taken: usize, wanted: WantedLimits) -> anyhow::Result<Self> {
        let left = files.saturating_sub(taken);
        if left < MIN_FREE {
            bail!(
                "the limit of open files is {files}, of which {taken} are needed before the first \
                 connection: raise it to {} at least (ulimit -n, or LimitNOFILE= of systemd)",
                taken + MIN_FREE
            );
        }
        let reserve = (left / 4).clamp(RESERVE.0, RESERVE.1).min(left / 2);
        // Each has one socket, towards its endpoint.
        let most_sessions = if wanted.has_udp {
            (left - reserve) / 4
        } else {
            0
        };
        let udp_sessions = wanted
            .udp_sessions
            .unwrap_or(UDP_SESSIONS)
            .min(most_sessions);
        // A semaphore panics when it is created with more permits than this.
        let half = ((left - reserve - udp_sessions) / 2).min(Semaphore::MAX_PERMITS);
        let max_clients = wanted.clients.unwrap_or(CLIENTS).min(half);
        for (setting, wanted, possible, what) in [
            ("max_connections", wanted.clients, max_clients, "clients"),
            (
                "max_udp_sessions",
                wanted.udp_sessions.filter(|_| wanted.has_udp),
                udp_sessions,
                "sessions of UDP",
            ),
        ] {
            if let Some(wanted) = wanted.filter(|wanted| *wanted > possible) {
                tracing::warn!(
                    "{setting} is {wanted}, but the limit of open files ({files}) suffices for \
                     {possible} {what} only"
                );
            }
        }
        let permits = |number| Arc::new(Semaphore::new(number));
        Ok(Self {
            max_clients,
            clients: permits(max_clients),
            max_endpoints: half,
            endpoints: permits(half),
            udp_sessions: permits(udp_sessions),
            admin: permits(reserve / 2),
            refusals: permits((reserve / 8).max(1)),
            admin_refused: AtomicU64::new(0),
            of_addresses: Arc::default(),
        })
    }

    /// A permit for a client, if one is left.
    pub(crate) fn client(&self) -> Option<DescriptorPermit> {
        Arc::clone(&self.clients).try_acquire_owned().ok()
    }

    /// A permit for a session of UDP, if one is left. It is for its socket towards its endpoint.
    pub(crate) fn udp_session(&self) -> Option<DescriptorPermit> {
        Arc::clone(&self.udp_sessions).try_acquire_owned().ok()
    }

    /// A permit for a client of the Admin API, if one is left.
    pub(crate) fn admin_client(&self) -> Option<DescriptorPermit> {
        Arc::clone(&self.admin).try_acquire_owned().ok()
    }

    /// A permit for a connection to an endpoint, if one is left.
    pub(crate) fn endpoint(&self) -> Option<DescriptorPermit> {
        Arc::clone(&self.endpoints).try_acquire_owned().ok()
    }

    /// Waits for a permit for a connection to an endpoint.
    pub(crate) async fn wait_for_endpoint_permit(&self) -> Option<DescriptorPermit> {
        // The semaphore is never closed, so this always returns a permit.
        Arc::clone(&self.endpoints).acquire_owned().await.ok()
    }

    /// Connections to endpoints that are open, or are being opened.
    pub(crate) fn open_endpoints(&self) -> usize {
        (self.max_endpoints).saturating_sub(self.endpoints.available_permits())
    }

    /// Whether no permit for a connection to an endpoint is left.
    pub(crate) fn endpoint_permits_exhausted(&self) -> bool {
        self.endpoints.available_permits() == 0
    }

    /// A permit to answer a refused client. Without one, its connection is closed without a
    /// response: refused clients must not use up the descriptors of the reserve.
    pub(crate) fn refusal(&self) -> Option<DescriptorPermit> {
        Arc::clone(&self.refusals).try_acquire_owned().ok()
    }
}

/// Answers a client that cannot be served, reads its bytes, and then closes the connection. A
/// connection that is closed with unread bytes is reset, and the client can lose the response (RFC
/// 9112, 9.6).
pub(crate) async fn refuse(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &[u8]) {
    let refusing = async {
        let mut bytes = [0; 4096];
        // Some clients treat a response that arrives before their request as an error of the
        // server, so the request is read first.
        let _ = stream.read(&mut bytes).await?;
        stream.write_all(answer).await?;
        stream.shutdown().await?;
        let mut read = 0;
        while read < REFUSED_BYTES {
            match stream.read(&mut bytes).await? {
                0 => break,
                more => read += more,
            }
        }
        std::io::Result::Ok(())
    };
    // An error or a timeout concerns only this client, so it is ignored.
    let _ = tokio::time::timeout(REFUSAL, refusing).await;
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    fn divided(files: usize, taken: usize, clients: Option<usize>) -> [usize; 4] {
        let wanted = WantedLimits {
            clients,
            ..WantedLimits::default()
        };
        let limits = ConnectionLimits::divide(files, taken, wanted).unwrap();
        assert!(limits.udp_session().is_none());
        [
            &limits.clients,
            &limits.endpoints,
            &limits.admin,
            &limits.refusals,
        ]
        .map(|kind| kind.available_permits())
    }

    #[test]
    fn every_client_can_have_an_endpoint_and_the_reserve_is_left_to_others() {
        assert_eq!(divided(1024, 64, None), [360, 360, 120, 30]);
        assert_eq!(divided(80, 64, None), [4, 4, 4, 1]);
        assert_eq!(divided(1024, 64, Some(10)), [10, 360, 120, 30]);
        // A setting cannot exceed the number of descriptors.
        assert_eq!(divided(1024, 64, Some(100_000)), [360, 360, 120, 30]);
        let [clients, endpoints, admin, _] = divided(1_000_000, 64, None);
        assert_eq!((clients, admin), (50_000, 512));
        assert!(endpoints > clients);
        let [clients, ..] = divided(usize::MAX, 64, None);
        assert_eq!(clients, 50_000);
    }

    #[test]
    fn sessions_of_udp_have_a_part_of_their_own_if_there_are_listeners_for_them() {
        let divided = |files, udp_sessions| {
            let wanted = WantedLimits {
                clients: None,
                has_udp: true,
                udp_sessions,
            };
            let limits = ConnectionLimits::divide(files, 64, wanted).unwrap();
            [&limits.clients, &limits.endpoints, &limits.udp_sessions]
                .map(|kind| kind.available_permits())
        };
        assert_eq!(divided(1024, None), [270, 270, 180]);
        assert_eq!(divided(1024, Some(20)), [350, 350, 20]);
        assert_eq!(divided(1024, Some(100_000)), [270, 270, 180]);
        assert_eq!(divided(1_000_000, None)[2], 10_000);
    }

    #[test]
    fn connections_are_counted_for_each_client_until_they_end() {
        let connections = Arc::<AddressConnections>::default();
        let permit = |address: &str| connections.permit(address.parse().unwrap(), 2);
        let first = permit("192.0.2.1").unwrap();
        // The same address within IPv6.
        let second = permit("::ffff:192.0.2.1").unwrap();
        assert!(permit("192.0.2.1").is_none());
        let other = permit("192.0.2.2").unwrap();
        drop(first);
        let third = permit("192.0.2.1").unwrap();
        drop((second, third, other));
        let network = (
            permit("2001:db8::1").unwrap(),
            permit("2001:db8::2").unwrap(),
        );
        assert!(permit("2001:db8::3").is_none());
        assert!(permit("2001:db8:0:1::3").is_some());
        drop(network);
        assert!(connections.0.lock().is_empty());
    }

    #[test]
    fn too_few_descriptors_are_an_error_that_says_how_many_are_needed() {
        let error = ConnectionLimits::divide(70, 64, WantedLimits::default()).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("is 70") && message.contains("80 at least"),
            "{message}"
        );
    }

    #[test]
    fn the_limit_of_open_files_is_the_highest_allowed() {
        let hard = getrlimit(Resource::Nofile).maximum;
        let raised = raise_file_limit();
        assert!(hard.is_none_or(|hard| raised as u64 == hard));
        assert_eq!(
            getrlimit(Resource::Nofile)
                .current
                .map_or(usize::MAX, |now| now as usize),
            raised
        );
    }
}
