//! Counts in memory that are reconciled with a Redis server at intervals (`sync_rate`): a request
//! never waits for the server, and several gateways together may pass a little more than a limit.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

use super::Resources;
use super::counters::{MAX_COUNTERS, Usage};
use super::period::{Limit, Period, Window};
use super::rate_key::RateKey;
use super::redis::Server;
use super::redis::counts::{self, Addition};
use crate::clock;

/// How many counters one command changes at most, so that it does not occupy the server for long.
const BATCH: usize = 500;

/// The counts of a plugin that are reconciled with a server.
#[derive(Debug)]
pub(super) struct SyncedCounts {
    shared: Arc<Shared>,
    /// Dropped with the plugin: what is not yet sent is sent then.
    _in_use: oneshot::Sender<()>,
}

#[derive(Debug)]
struct Shared {
    resources: Arc<Resources>,
    server: Arc<Server>,
    /// What the server has not been told of.
    pending: Mutex<HashMap<(RateKey, Period), Pending>>,
    /// Whether the server could not be reached the last time.
    failed: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    window: Window,
    count: u64,
}

impl SyncedCounts {
    /// Reconciles the counts each `interval`.
    pub(super) fn new(resources: &Arc<Resources>, server: Arc<Server>, interval: Duration) -> Self {
        let (in_use, dropped) = oneshot::channel();
        let runtime = server.runtime().clone();
        let shared = Arc::new(Shared {
            resources: Arc::clone(resources),
            server,
            pending: Mutex::default(),
            failed: AtomicBool::new(false),
        });
        runtime.spawn(Arc::clone(&shared).run(interval, dropped));
        Self {
            shared,
            _in_use: in_use,
        }
    }

    /// Counts a request unless a limit is reached, as far as is known here.
    pub(super) fn take(&self, key: &RateKey, limits: &[Limit], now: u64) -> Usage {
        let usage = self.shared.resources.rate_limits.take(key, limits, now);
        if usage.allowed {
            self.shared.note(key, limits, now);
        }
        usage
    }

    /// Whether the server could not be reached the last time.
    pub(super) fn has_failed(&self) -> bool {
        self.shared.failed.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// Notes a request for the server.
    fn note(&self, key: &RateKey, limits: &[Limit], now: u64) {
        let mut pending = self.pending.lock();
        for limit in limits {
            let fresh = Pending {
                window: limit.period.window(now),
                count: 0,
            };
            let key = (*key, limit.period);
            if pending.len() >= MAX_COUNTERS && !pending.contains_key(&key) {
                // The server is out of reach for long.
                continue;
            }
            let noted = pending.entry(key).or_insert(fresh);
            if noted.window != fresh.window {
                // What was not sent until the end of its window has no effect any more.
                *noted = fresh;
            }
            noted.count += 1;
        }
    }

    async fn run(self: Arc<Self>, interval: Duration, mut dropped: oneshot::Receiver<()>) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_last = tokio::select! {
                _ = ticks.tick() => false,
                _ = &mut dropped => true,
            };
            self.reconcile().await;
            if is_last {
                return;
            }
        }
    }

    /// Tells the server what was counted here, and takes over what others have counted.
    async fn reconcile(&self) {
        let noted = std::mem::take(&mut *self.pending.lock());
        let noted: Vec<_> = noted.into_iter().collect();
        if noted.is_empty() && self.failed.load(Ordering::Relaxed) {
            // No request is counted while the server is away, if it must not be: so look whether it
            // is there again.
            let answered = counts::add(&self.server, &[], clock::unix_seconds()).await;
            self.failed.store(answered.is_err(), Ordering::Relaxed);
        }
        for batch in noted.chunks(BATCH) {
            let now = clock::unix_seconds();
            let additions: Vec<Addition> = batch
                .iter()
                .map(|((key, period), Pending { window, count })| Addition {
                    key: counts::key_of(&key.name(), *period, *window),
                    window: *window,
                    amount: *count,
                })
                .collect();
            let added = counts::add(&self.server, &additions, now).await;
            self.failed.store(added.is_err(), Ordering::Relaxed);
            match added {
                Ok(sums) => {
                    let counters = &self.resources.rate_limits;
                    for (((key, period), Pending { window, .. }), sum) in batch.iter().zip(sums) {
                        let pending = self.pending.lock().get(&(*key, *period)).copied();
                        let pending = pending.filter(|pending| pending.window == *window);
                        let sum = sum + pending.map_or(0, |pending| pending.count);
                        counters.raise(key, *period, *window, sum, now);
                    }
                }
                Err(error) => {
                    tracing::debug!("counts could not be reconciled: {error}");
                    self.keep(batch, now);
                }
            }
        }
    }

    /// Keeps what could not be sent for the next time.
    fn keep(&self, batch: &[((RateKey, Period), Pending)], now: u64) {
        let mut pending = self.pending.lock();
        for (key, noted) in batch.iter().filter(|(_, noted)| noted.window.contains(now)) {
            let newer = pending
                .entry(*key)
                .or_insert(Pending { count: 0, ..*noted });
            if newer.window == noted.window {
                newer.count += noted.count;
            }
        }
    }
}
