//! Active checks: each address is probed at its own pace by a task of its own, on a runtime apart
//! from requests and from the control plane.

mod exchange;
mod grpc;
mod reports;

use std::cell::Cell;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::sync::futures::Notified;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use exchange::{Error, Left, ProbeAnswer};
pub(super) use reports::ReportReaders;

use super::members::{Member, Members};
use super::policy::Active;
use crate::authority::Host;
use crate::endpoint::Live;
use crate::endpoint::health::{Report, Source};
use crate::entity::upstream::Probe;
use crate::priority::Background;

/// Part of an interval by which probes are spread, so that those of many addresses do not coincide.
const JITTER: f64 = 0.1;

/// Starts the thread that probes run on, and returns its runtime.
///
/// # Errors
/// The system's error if it cannot start a thread or a runtime.
pub fn runtime() -> std::io::Result<Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name("probes".into())
        .spawn(move || {
            Background::Prompt.lower_this_thread();
            runtime.block_on(std::future::pending::<()>());
        })?;
    Ok(handle)
}

/// The probes of an upstream.
#[derive(Debug)]
pub(super) struct Probes {
    members: Weak<Members>,
    runtime: Handle,
    running: Mutex<Running>,
    /// Whether another gateway probes for this one, if the policy allows that.
    elsewhere: AtomicBool,
}

#[derive(Debug)]
struct Running {
    active: Option<Arc<Active>>,
    /// By endpoint.
    tasks: HashMap<u64, Task>,
    permits: Arc<Semaphore>,
}

/// The probe task of one address, with the settings of its target that it depends on.
#[derive(Debug)]
struct Task {
    probe: Probe,
    /// The source of `Host` and of the name for TLS: a name in an SRV record can change.
    host: Host<'static>,
    handle: AbortHandle,
}

impl Probes {
    pub(super) fn new(members: &Arc<Members>, runtime: &Handle) -> Self {
        Self {
            members: Arc::downgrade(members),
            runtime: runtime.clone(),
            running: Mutex::new(Running {
                active: None,
                tasks: HashMap::new(),
                permits: Arc::new(Semaphore::new(1)),
            }),
            elsewhere: AtomicBool::new(false),
        }
    }

    /// Notes whether another gateway probes for this one.
    pub(super) fn set_elsewhere(&self, elsewhere: bool) {
        let before = self.elsewhere.swap(elsewhere, Ordering::Relaxed);
        // What requests find out here changes which addresses are probed in spite of that.
        if elsewhere || before {
            self.sync();
        }
    }

    /// Starts and ends probes, so that each address with a weight has one if the policy asks for
    /// it, and if no other gateway does it.
    pub(super) fn sync(&self) {
        let Some(members) = self.members.upgrade() else {
            return;
        };
        let policy = members.policy();
        let mut running = self.running.lock();
        if running.active.as_deref() != policy.active.as_ref() {
            running.end();
            running.active = policy.active.clone().map(Arc::new);
            let permits = policy
                .active
                .as_ref()
                .map_or(1, |active| active.concurrency);
            running.permits = Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        }
        let Some(active) = running.active.clone() else {
            return;
        };
        let elsewhere = policy.extension.share_probes && self.elsewhere.load(Ordering::Relaxed);
        let wanted: HashMap<u64, Member> = members
            .each(Member::clone)
            .into_iter()
            .filter(|member| member.weight > 0)
            // Only this gateway knows of what its requests have found out.
            .filter(|member| !elsewhere || member.live.health.awaits_trial())
            .map(|member| (member.id, member))
            .collect();
        running.tasks.retain(|id, task| {
            let member = wanted.get(id);
            let stays = member.is_some_and(|m| task.probe == m.probe && task.host == m.host);
            if !stays {
                task.handle.abort();
            }
            stays
        });
        for (id, member) in wanted {
            if running.tasks.contains_key(&id) {
                continue;
            }
            let job = Job {
                members: self.members.clone(),
                live: Arc::clone(&member.live),
                target: exchange::ProbeTarget::new(&member, &active),
                active: Arc::clone(&active),
                permits: Arc::clone(&running.permits),
            };
            let task = Task {
                probe: member.probe,
                host: member.host,
                handle: self.runtime.spawn(job.run()).abort_handle(),
            };
            running.tasks.insert(id, task);
        }
    }
}

impl Running {
    fn end(&mut self) {
        for (_, task) in self.tasks.drain() {
            task.handle.abort();
        }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.running.lock().end();
    }
}

/// The probing of one address.
struct Job {
    members: Weak<Members>,
    live: Arc<Live>,
    target: exchange::ProbeTarget,
    active: Arc<Active>,
    permits: Arc<Semaphore>,
}

impl Job {
    async fn run(self) {
        // The first probe comes somewhere in the first interval, so that probes are spread from the
        // start.
        let mut part = fastrand::f64();
        let mut idle = None;
        let mut spread = true;
        let mut changed = std::pin::pin!(self.live.changed.notified());
        changed.as_mut().enable();
        loop {
            let interval = if self.live.health.is_available() {
                self.active.healthy_interval
            } else {
                self.active.unhealthy_interval
            };
            let Some(interval) = interval else {
                // An address in this state is not probed.
                changed.as_mut().await;
                self.listen(changed.as_mut());
                continue;
            };
            let due = Instant::now() + interval.mul_f64(part);
            part = 1.0 - JITTER * fastrand::f64();
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                // The interval may be another one now.
                () = changed.as_mut() => {
                    self.listen(changed.as_mut());
                    continue;
                }
            }
            // A probe this late was delayed together with all others, because the machine was
            // stopped. Without a new spread they would coincide for minutes.
            if spread && due.elapsed() > interval / 2 {
                part = fastrand::f64();
                spread = false;
                continue;
            }
            spread = true;
            let Ok(_permit) = self.permits.acquire().await else {
                return;
            };
            make_way();
            let answer = self.probe(&mut idle).await;
            if self.members.strong_count() == 0 {
                return;
            }
            self.note(&answer);
            // The change that this probe itself made is known.
            self.listen(changed.as_mut());
        }
    }

    /// Listens for the next change, which from here on is not missed.
    fn listen<'a>(&'a self, mut changed: Pin<&mut Notified<'a>>) {
        changed.set(self.live.changed.notified());
        changed.enable();
    }

    async fn probe(&self, idle: &mut Option<Left>) -> Result<ProbeAnswer, Error> {
        let timeout = self.active.timeout;
        tokio::time::timeout(timeout, self.target.probe(idle))
            .await
            .unwrap_or(Err(Error::Timeout(timeout)))
    }

    /// What an answer, or the lack of one, says of the address.
    fn judge(&self, answer: &Result<ProbeAnswer, Error>) -> Report {
        match answer {
            Err(error) => error.report(),
            Ok(ProbeAnswer::Connected | ProbeAnswer::Serving(1)) => Report::Success,
            Ok(ProbeAnswer::Serving(_)) => Report::HttpFailure,
            Ok(ProbeAnswer::Status(status)) => {
                self.active.judge.of(*status).unwrap_or(Report::Ignored)
            }
        }
    }

    fn note(&self, answer: &Result<ProbeAnswer, Error>) {
        let report = self.judge(answer);
        let thresholds = &self.active.judge.thresholds;
        let detail = || match answer {
            Ok(answer) => answer.to_string(),
            Err(error) => error.to_string(),
        };
        let health = &self.live.health;
        if !health.report(Source::Active, report, thresholds, detail) {
            return;
        }
        let Some(members) = self.members.upgrade() else {
            return;
        };
        members.refresh();
        let (upstream, address) = (&*members.name(), self.target.address());
        let verdict = health.verdict();
        tracing::warn!(upstream, %address, "active check: {verdict}");
    }
}

/// Yields the processor after every second probe. Probes that are due in the same millisecond run
/// one after another; other threads that wait for this processor, workers above all, run in
/// between. To yield after each probe would cost a twentieth of the probing.
fn make_way() {
    thread_local!(static SECOND: Cell<bool> = const { Cell::new(false) });
    if SECOND.replace(!SECOND.get()) {
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
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
}
