//! How many connections may be open, so that no side starves another.
//!
//! Each connection needs a file descriptor, and their number is limited (`RLIMIT_NOFILE`). What is
//! left of it at the start is divided: a reserve for the Admin API, probes, the resolver, the store
//! and compilers, and two halves for clients and endpoints. A request needs one connection of each
//! kind at most, so clients that have been let in can be served.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::bail;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections of clients where no setting says how many, if descriptors suffice. Source: Envoy's
/// advice for a proxy at the edge (`global_downstream_max_connections`).
const CLIENTS: usize = 50_000;

/// Descriptors that a worker's runtime needs besides its connections.
const WORKER: usize = 4;

/// Smallest and largest reserve, in descriptors.
const RESERVE: (usize, usize) = (16, 1024);

/// Least number of descriptors that has to be left at the start: there is nothing to divide in
/// fewer.
const LEAST: usize = 16;

/// How long a client that is refused is listened to, before and after its answer.
const REFUSAL: Duration = Duration::from_secs(1);

/// Most that is read of it, in bytes.
const REFUSED_BYTES: usize = 64 * 1024;

/// The right to one connection, which takes a descriptor of the process. Given back when dropped.
pub(crate) type DescriptorPermit = OwnedSemaphorePermit;

/// How many connections of each kind may still be made.
#[derive(Debug)]
pub struct ConnectionLimits {
    /// Most connections of clients.
    pub max_clients: usize,
    clients: Arc<Semaphore>,
    endpoints: Arc<Semaphore>,
    admin: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    /// Connections to the Admin API that were refused.
    pub admin_refused: AtomicU64,
}

/// Raises the limit of open files to the highest that this user may have, and returns it.
pub fn raise_file_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // A system that refuses leaves what there was.
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}

impl ConnectionLimits {
    /// Divides the descriptors of a process that has `files` in all. `wanted` is the setting
    /// `max_connections`.
    ///
    /// # Errors
    /// Too few are left.
    pub fn new(files: usize, workers: usize, wanted: Option<usize>) -> anyhow::Result<Self> {
        // Where the system does not tell, a few dozen are open at this point.
        let open = std::fs::read_dir("/proc/self/fd").map_or(64, Iterator::count);
        Self::divide(files, open + workers.saturating_mul(WORKER), wanted)
    }

    fn divide(files: usize, taken: usize, wanted: Option<usize>) -> anyhow::Result<Self> {
        let left = files.saturating_sub(taken);
        if left < LEAST {
            bail!(
                "the limit of open files is {files}, of which {taken} are needed before the first \
                 connection: raise it to {} at least (ulimit -n, or LimitNOFILE= of systemd)",
                taken + LEAST
            );
        }
        let reserve = (left / 4).clamp(RESERVE.0, RESERVE.1).min(left / 2);
        // More permits than a semaphore has would be a panic.
        let half = ((left - reserve) / 2).min(Semaphore::MAX_PERMITS);
        let max_clients = wanted.unwrap_or(CLIENTS).min(half);
        if let Some(wanted) = wanted.filter(|wanted| *wanted > max_clients) {
            tracing::warn!(
                "max_connections is {wanted}, but the limit of open files ({files}) suffices for \
                 {max_clients} clients only"
            );
        }
        let permits = |number| Arc::new(Semaphore::new(number));
        Ok(Self {
            max_clients,
            clients: permits(max_clients),
            endpoints: permits(half),
            admin: permits(reserve / 2),
            refusals: permits((reserve / 8).max(1)),
            admin_refused: AtomicU64::new(0),
        })
    }

    /// Room for a client, if there is any.
    pub(crate) fn client(&self) -> Option<DescriptorPermit> {
        Arc::clone(&self.clients).try_acquire_owned().ok()
    }

    /// Room for a client of the Admin API, if there is any.
    pub(crate) fn admin_client(&self) -> Option<DescriptorPermit> {
        Arc::clone(&self.admin).try_acquire_owned().ok()
    }

    /// Room for a connection to an endpoint, if there is any.
    pub(crate) fn endpoint(&self) -> Option<DescriptorPermit> {
        Arc::clone(&self.endpoints).try_acquire_owned().ok()
    }

    /// Waits for room for a connection to an endpoint.
    pub(crate) async fn endpoint_in_time(&self) -> Option<DescriptorPermit> {
        // Ours are never closed.
        Arc::clone(&self.endpoints).acquire_owned().await.ok()
    }

    /// Whether no further connection to an endpoint can be made.
    pub(crate) fn endpoints_are_out(&self) -> bool {
        self.endpoints.available_permits() == 0
    }

    /// The right to answer a client that is refused. Without it the connection is just closed:
    /// those that are being refused must not take what is left for others.
    pub(crate) fn refusal(&self) -> Option<DescriptorPermit> {
        Arc::clone(&self.refusals).try_acquire_owned().ok()
    }
}

/// Answers a client that cannot be served, and closes the connection in order: closed with unread
/// bytes, it would be reset, which can cost the client the answer (RFC 9112, 9.6).
pub(crate) async fn refuse(mut stream: TcpStream, answer: &[u8]) {
    let refusing = async {
        let mut bytes = [0; 4096];
        // Some clients take an answer that comes before their request for a fault of the server's.
        stream.readable().await?;
        let _ = stream.try_read(&mut bytes);
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
    // How it ends is the client's affair.
    let _ = tokio::time::timeout(REFUSAL, refusing).await;
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    fn divided(files: usize, taken: usize, wanted: Option<usize>) -> [usize; 4] {
        let limits = ConnectionLimits::divide(files, taken, wanted).unwrap();
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
        // No setting makes more descriptors than there are.
        assert_eq!(divided(1024, 64, Some(100_000)), [360, 360, 120, 30]);
        let [clients, endpoints, admin, _] = divided(1_000_000, 64, None);
        assert_eq!((clients, admin), (50_000, 512));
        assert!(endpoints > clients);
        let [clients, ..] = divided(usize::MAX, 64, None);
        assert_eq!(clients, 50_000);
    }

    #[test]
    fn too_few_descriptors_are_an_error_that_says_how_many_are_needed() {
        let error = ConnectionLimits::divide(70, 64, None).unwrap_err();
        let said = error.to_string();
        assert!(
            said.contains("is 70") && said.contains("80 at least"),
            "{said}"
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
