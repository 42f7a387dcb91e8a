//! Addresses that do worse than their peers are ejected for a while. Source: Envoy,
//! `outlier_detection`, for the success rate. Latency is compared with the median of all in the
//! same way.
//!
//! The same task ramps weights up, since both are done at intervals.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::members::Members;
use crate::endpoint::Live;
use crate::entity::upstream::OutlierDetection;

/// Time between two steps: a weight ramps up, an ejection ends.
const STEP: Duration = Duration::from_millis(200);

/// The task that watches the members of an upstream, if its policy asks for that.
#[derive(Debug)]
pub(super) struct Watch {
    members: Weak<Members>,
    runtime: Handle,
    task: Mutex<Option<AbortHandle>>,
}

impl Watch {
    pub(super) fn new(members: &Arc<Members>, runtime: &Handle) -> Self {
        Self {
            members: Arc::downgrade(members),
            runtime: runtime.clone(),
            task: Mutex::default(),
        }
    }

    /// Starts or ends the task as the policy asks.
    pub(super) fn sync(&self) {
        let Some(members) = self.members.upgrade() else {
            return;
        };
        let policy = members.policy();
        let wanted = policy.watches_outliers() || !policy.slow_start().is_zero();
        let wanted = wanted && !members.is_empty();
        let mut task = self.task.lock();
        if wanted && task.is_none() {
            let watching = self.runtime.spawn(watch(self.members.clone()));
            *task = Some(watching.abort_handle());
        } else if !wanted && let Some(task) = task.take() {
            task.abort();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

async fn watch(members: Weak<Members>) {
    let mut looked = Instant::now();
    let mut ramping = false;
    loop {
        tokio::time::sleep(STEP).await;
        let Some(members) = members.upgrade() else {
            return;
        };
        let policy = members.policy();
        let settings = &policy.extension.outlier_detection;
        let now = Instant::now();
        // Once more after the last step of the ramp, for the full weight.
        let mut changed = ramping;
        ramping = members.is_ramping();
        changed |= ramping;
        changed |= (members.each(|member| member.live.ejection.end(now)))
            .into_iter()
            .any(|ended| ended);
        let interval = Duration::try_from_secs_f64(settings.interval).unwrap_or_default();
        if policy.watches_outliers() && looked.elapsed() >= interval {
            looked = now;
            let known = members.each(|member| (member.address.clone(), Arc::clone(&member.live)));
            let (addresses, lives): (Vec<_>, Vec<_>) = known.into_iter().unzip();
            let seen: Vec<Seen> = (0..).zip(&lives).map(Seen::of).collect();
            let outliers = outliers(&seen, settings);
            for (number, live) in (0..).zip(&lives) {
                if outliers.contains(&number) {
                    let time = live.ejection.begin(now, settings);
                    changed = true;
                    tracing::warn!(
                        upstream = &*members.name(),
                        address = %addresses[number],
                        "outlier detection: target ejected for {time:?}: its success rate or its latency \
                         is worse than that of its peers"
                    );
                } else {
                    live.ejection.behaved();
                }
            }
        }
        if changed {
            members.refresh();
        }
    }
}

/// What an address did in an interval.
#[derive(Debug, Clone)]
struct Seen {
    /// Its position among the members.
    number: usize,
    requests: u32,
    failures: u32,
    /// Mean, in microseconds.
    latency: f64,
    ejected: bool,
}

impl Seen {
    /// Takes what was counted, so that the next interval begins at 0.
    fn of((number, live): (usize, &Arc<Live>)) -> Self {
        let window = &live.window;
        let requests = window.requests.swap(0, Ordering::Relaxed);
        let latency = window.latency.swap(0, Ordering::Relaxed);
        Self {
            number,
            requests,
            failures: window.failures.swap(0, Ordering::Relaxed),
            latency: latency as f64 / f64::from(requests.max(1)),
            ejected: live.ejection.is_on(),
        }
    }
}

/// The addresses that do worse than their peers, as many as may be ejected, the worst first.
fn outliers(seen: &[Seen], settings: &OutlierDetection) -> Vec<usize> {
    let compared: Vec<&Seen> = seen
        .iter()
        .filter(|seen| !seen.ejected && seen.requests >= settings.request_volume.max(1))
        .collect();
    if compared.len() < settings.minimum_hosts.max(2) as usize {
        return Vec::new();
    }
    let rate = |seen: &Seen| 100.0 - 100.0 * f64::from(seen.failures) / f64::from(seen.requests);
    let count = compared.len() as f64;
    let mean = compared.iter().map(|seen| rate(seen)).sum::<f64>() / count;
    let variance = compared
        .iter()
        .map(|seen| (rate(seen) - mean).powi(2))
        .sum::<f64>()
        / count;
    let factor = f64::from(settings.success_rate_stdev_factor) / 1000.0;
    let least = mean - factor * variance.sqrt();
    let mut latencies: Vec<f64> = compared.iter().map(|seen| seen.latency).collect();
    latencies.sort_by(f64::total_cmp);
    let median = latencies.get(latencies.len() / 2).copied().unwrap_or(0.0);
    let most = median * f64::from(settings.latency_factor) / 1000.0;

    let mut found: Vec<(f64, usize)> = compared
        .iter()
        .filter_map(|seen| {
            let by_rate = settings.success_rate && rate(seen) < least;
            let by_latency = settings.latency && median > 0.0 && seen.latency > most;
            let worth = rate(seen) - seen.latency / median.max(1.0);
            (by_rate || by_latency).then_some((worth, seen.number))
        })
        .collect();
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    let allowed = (seen.len() as f64 * settings.max_ejection_percent / 100.0) as usize;
    let out = seen.iter().filter(|seen| seen.ejected).count();
    let left = allowed.max(1).saturating_sub(out);
    found
        .into_iter()
        .take(left)
        .map(|(_, number)| number)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings() -> OutlierDetection {
        OutlierDetection {
            interval: 1.0,
            base_ejection_time: 1.0,
            max_ejection_time: 10.0,
            max_ejection_percent: 50.0,
            success_rate: true,
            latency: true,
            minimum_hosts: 3,
            request_volume: 10,
            success_rate_stdev_factor: 1900,
            latency_factor: 3000,
        }
    }

    fn seen(number: usize, failures: u32, latency: f64) -> Seen {
        Seen {
            number,
            requests: 100,
            failures,
            latency,
            ejected: false,
        }
    }

    #[test]
    fn the_one_that_fails_or_is_slow_is_found() {
        let mut all: Vec<Seen> = (0..10).map(|id| seen(id, 1, 1000.0)).collect();
        assert!(outliers(&all, &settings()).is_empty());
        all[3].failures = 60;
        assert_eq!(outliers(&all, &settings()), [3]);
        all[3].failures = 1;
        all[7].latency = 3001.0;
        assert_eq!(outliers(&all, &settings()), [7]);
    }

    #[test]
    fn few_hosts_or_few_requests_give_no_outliers() {
        let mut all = vec![seen(1, 0, 1.0), seen(2, 100, 1.0)];
        assert!(outliers(&all, &settings()).is_empty());
        all.extend((3..9).map(|id| Seen {
            requests: 9,
            ..seen(id, 0, 1.0)
        }));
        assert!(outliers(&all, &settings()).is_empty());
    }

    proptest! {
        #[test]
        fn never_more_than_the_share_is_out(
            hosts in prop::collection::vec((0_u32..100, 1.0_f64..1e6, prop::bool::ANY), 0..30),
            percent in 0.0_f64..100.0,
        ) {
            let all: Vec<Seen> = (0..).zip(&hosts).map(|(id, (failures, latency, ejected))| Seen {
                ejected: *ejected,
                ..seen(id, *failures, *latency)
            }).collect();
            let settings = OutlierDetection { max_ejection_percent: percent, ..settings() };
            let out = all.iter().filter(|seen| seen.ejected).count();
            let found = outliers(&all, &settings).len();
            let allowed = ((all.len() as f64 * percent / 100.0) as usize).max(1);
            prop_assert!(found == 0 || out + found <= allowed);
        }
    }
}
