//! Reads figures of targets' own metrics at intervals, for balancers that balance by them. Each
//! address has a task of its own on the runtime of the probes.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::AbortHandle;

use super::exchange::{self, Left, Server};
use super::{JITTER, make_way};
use crate::authority::Host;
use crate::clock;
use crate::endpoint::{Live, REPORTED_VALUES};
use crate::exposition::{Reading, TextError};
use crate::tls::HTTP_1_1;
use crate::upstream::members::{Member, Members};
use crate::upstream::policy::ReportPolicy;

/// Most reads of an upstream at a time, of addresses whose last read succeeded or that are new.
const MAX_READS: usize = 10;

/// Most reads at a time beside them, of addresses whose last read failed: they may take as long as
/// they may until they fail again, and delay no other address.
const MAX_FAILING_READS: usize = 4;

/// Longest pause before the first read of an address, which then waits for a permit like any other,
/// so that a balancer soon has values.
const MAX_FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Longest interval for which a connection is kept. Most servers close one that is idle for a
/// minute or more.
const MAX_IDLE: Duration = Duration::from_secs(30);

/// Least room for the bytes of one read from a connection.
const MIN_READ_BYTES: usize = 16 << 10;

const AGENT: &str = concat!("pointsman/", env!("CARGO_PKG_VERSION"), " (reports)");

/// What is asked for: servers that have it in several formats choose by this.
const ACCEPT: &str = "text/plain;version=0.0.4;q=1,text/plain;q=0.5,*/*;q=0.1";

/// Reads the reports of an upstream's targets.
#[derive(Debug)]
pub(in crate::upstream) struct ReportReaders {
    members: Weak<Members>,
    runtime: Handle,
    running: Mutex<Running>,
}

#[derive(Debug)]
struct Running {
    policy: Option<Arc<ReportPolicy>>,
    /// By endpoint.
    tasks: HashMap<u64, Task>,
    permits: Arc<Permits>,
}

/// Limits the reads of an upstream at a time.
#[derive(Debug)]
struct Permits {
    usual: Semaphore,
    failing: Semaphore,
}

impl Permits {
    fn new() -> Self {
        Self {
            usual: Semaphore::new(MAX_READS),
            failing: Semaphore::new(MAX_FAILING_READS),
        }
    }

    /// Waits for the permit to read an address. `has_failed` is whether its last read failed.
    async fn acquire(&self, has_failed: bool) -> Option<SemaphorePermit<'_>> {
        let permits = if has_failed {
            &self.failing
        } else {
            &self.usual
        };
        permits.acquire().await.ok()
    }
}

/// The task of one address, with what it depends on of its target.
#[derive(Debug)]
struct Task {
    host: Host<'static>,
    live: Arc<Live>,
    handle: AbortHandle,
}

impl Task {
    /// Ends it, if no other one follows: what came of its reads says nothing of what is to come.
    fn end_reads(&self) {
        self.handle.abort();
        self.live.set_reads_reports(false);
    }
}

impl ReportReaders {
    pub(in crate::upstream) fn new(members: &Arc<Members>, runtime: &Handle) -> Self {
        Self {
            members: Arc::downgrade(members),
            runtime: runtime.clone(),
            running: Mutex::new(Running {
                policy: None,
                tasks: HashMap::new(),
                permits: Arc::new(Permits::new()),
            }),
        }
    }

    /// Starts and ends tasks, so that each address with a weight has one if the policy asks for it.
    pub(in crate::upstream) fn sync(&self) {
        let Some(members) = self.members.upgrade() else {
            return;
        };
        let policy = members.policy();
        let mut running = self.running.lock();
        if running.policy.as_deref() != policy.reports.as_ref() {
            let (is_last, tasks) = (policy.reports.is_none(), running.tasks.drain());
            tasks.for_each(|(_, task)| match is_last {
                true => task.end_reads(),
                false => task.handle.abort(),
            });
            running.policy = policy.reports.clone().map(Arc::new);
        }
        let Some(reports) = running.policy.clone() else {
            return;
        };
        let all = members.each(Member::clone).into_iter();
        let wanted = all.filter(|member| member.weight > 0);
        let wanted: HashMap<u64, Member> = wanted.map(|member| (member.id, member)).collect();
        running.tasks.retain(|id, task| {
            match wanted.get(id) {
                Some(member) if task.host == member.host => return true,
                Some(_) => task.handle.abort(),
                None => task.end_reads(),
            }
            false
        });
        for (id, member) in wanted {
            if running.tasks.contains_key(&id) {
                continue;
            }
            let job = Job::new(&self.members, &member, &reports, &running.permits);
            member.live.set_reads_reports(true);
            let task = Task {
                host: member.host,
                live: member.live,
                handle: self.runtime.spawn(job.run()).abort_handle(),
            };
            running.tasks.insert(id, task);
        }
    }
}

impl Drop for ReportReaders {
    fn drop(&mut self) {
        for task in self.running.lock().tasks.values() {
            task.handle.abort();
        }
    }
}

/// Why there are no values.
#[derive(Debug, Error)]
enum Error {
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error(transparent)]
    Exchange(#[from] exchange::Error),
    #[error("status {0}")]
    Status(u16),
    #[error(transparent)]
    Text(#[from] TextError),
    #[error("there is no sample of {0}")]
    Missing(String),
    #[error("the gateway has too many names of values in use, so {0} is not kept")]
    NoName(String),
    #[error("the target has more than {REPORTED_VALUES} values")]
    TooMany,
}

/// The reading of one address.
struct Job {
    members: Weak<Members>,
    live: Arc<Live>,
    server: Server,
    request: Box<str>,
    policy: Arc<ReportPolicy>,
    permits: Arc<Permits>,
}

impl Job {
    fn new(
        members: &Weak<Members>,
        member: &Member,
        policy: &Arc<ReportPolicy>,
        permits: &Arc<Permits>,
    ) -> Self {
        let secure = policy.tls.is_some();
        let (host, authority) = exchange::host_of(member, policy.host_header.as_ref(), secure);
        let tls = policy.tls.as_ref().map(|(client, name)| {
            let name = name.as_deref().unwrap_or(host.bare()).to_owned();
            (client.connector(&[HTTP_1_1]), name)
        });
        let line = format!("GET {}", policy.path);
        let presets = [
            ("host", &*authority),
            ("user-agent", AGENT),
            ("accept", ACCEPT),
        ];
        Self {
            members: members.clone(),
            live: Arc::clone(&member.live),
            server: Server::new(member, policy.port, tls),
            request: exchange::request(&line, &presets, &policy.headers, keeps_idle(policy)),
            policy: Arc::clone(policy),
            permits: Arc::clone(permits),
        }
    }

    async fn run(self) {
        let (mut idle, mut has_failed) = (None, false);
        let first = self.policy.interval.min(MAX_FIRST_PAUSE);
        let mut pause = first.mul_f64(fastrand::f64());
        loop {
            tokio::time::sleep(pause).await;
            pause = (self.policy.interval).mul_f64(1.0 - JITTER * fastrand::f64());
            let Some(_permit) = self.permits.acquire(has_failed).await else {
                return;
            };
            make_way();
            let timeout = self.policy.timeout;
            let read = tokio::time::timeout(timeout, self.read(&mut idle)).await;
            let read = read.unwrap_or(Err(Error::Timeout(timeout)));
            has_failed = read.is_err();
            if self.members.strong_count() == 0 {
                return;
            }
            self.note(read.and_then(|found| self.keep(&found)));
        }
    }

    /// The value of each selector. The connection is kept for the next read, unless that is far.
    async fn read(&self, idle: &mut Option<Left>) -> Result<Vec<Option<f64>>, Error> {
        if let Some(stream) = Left::reopen(idle).await {
            match self.ask(stream, idle).await {
                // The server may have closed the connection for its age.
                Err(Error::Exchange(exchange::Error::Broken(_))) => {}
                answer => return answer,
            }
        }
        let stream = self.server.connect().await?;
        self.ask(stream, idle).await
    }

    async fn ask(
        &self,
        stream: Box<dyn exchange::Duplex>,
        idle: &mut Option<Left>,
    ) -> Result<Vec<Option<f64>>, Error> {
        let mut reading = Reading::new(&self.policy.selectors);
        let mut outcome = Ok(());
        let is_wanted = |status, piece: &[u8]| {
            if status == 200 {
                outcome = reading.read(piece);
            }
            status == 200 && outcome.is_ok()
        };
        let idle = keeps_idle(&self.policy).then_some(idle);
        let status = exchange::get(stream, &self.request, MIN_READ_BYTES, is_wanted, idle).await?;
        if status != 200 {
            return Err(Error::Status(status));
        }
        outcome?;
        Ok(reading.finish()?)
    }

    /// Keeps what was found, for as long as the policy says. A value that is missing stays as it
    /// was until it is too old.
    fn keep(&self, found: &[Option<f64>]) -> Result<(), Error> {
        let policy = &*self.policy;
        let (mut values, mut failure) = (Vec::new(), None);
        for ((name, selector), value) in policy.names.iter().zip(&policy.selectors).zip(found) {
            let error = match (value, name.known()) {
                (Some(value), Some(name)) => {
                    values.push((name.clone(), Some(*value)));
                    continue;
                }
                (None, _) => Error::Missing(selector.name.clone()),
                (_, None) => Error::NoName(name.text.clone()),
            };
            failure.get_or_insert(error);
        }
        let now = clock::micros(Instant::now());
        if !(self.live).set_reported(now, &values, now + policy.max_age) {
            return Err(Error::TooMany);
        }
        failure.map_or(Ok(()), Err)
    }

    fn note(&self, read: Result<(), Error>) {
        let failure = read.err().map(|error| error.to_string());
        // What is wrong with all reads is logged once, and how often it is, is counted.
        if !self.live.note_read(failure.clone()) {
            return;
        }
        let Some(members) = self.members.upgrade() else {
            return;
        };
        let (upstream, address) = (&*members.name(), self.server.address());
        match failure {
            Some(failure) => {
                tracing::warn!(upstream, %address, "reports cannot be read: {failure}")
            }
            None => tracing::info!(upstream, %address, "reports can be read again"),
        }
    }
}

/// Whether connections are kept for the next read.
fn keeps_idle(policy: &ReportPolicy) -> bool {
    policy.interval <= MAX_IDLE
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// There is one for each of many thousand addresses.
    #[test]
    fn a_job_that_waits_is_small() {
        fn size<F>(_: impl Fn(Job) -> F) -> usize {
            std::mem::size_of::<F>()
        }
        let size = size(Job::run);
        assert!(size <= 2048, "{size} bytes");
    }

    #[test]
    fn addresses_that_fail_keep_no_permit_from_the_others() {
        let permits = Permits::new();
        let acquire = |has_failed| permits.acquire(has_failed).now_or_never().flatten();
        let failing: Vec<_> = std::iter::from_fn(|| acquire(true)).collect();
        assert_eq!(failing.len(), MAX_FAILING_READS);
        let usual: Vec<_> = std::iter::from_fn(|| acquire(false)).collect();
        assert_eq!(usual.len(), MAX_READS);
        drop(failing);
        assert!(acquire(true).is_some());
    }
}
