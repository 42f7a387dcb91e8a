//! A version that takes a share of the picks before it is made active, and loses the share by
//! itself when it breaks a bound.
//!
//! All upstreams that follow a balancer share its [`RunningCanary`]. It decides the side of each
//! request, collects the outcomes of both sides, and checks the bounds after each outcome of its
//! own side. Once a bound is broken, the canary gets no more requests, on any thread. The task that
//! awaits [`RunningCanary::verdict`] stores that.

pub(super) mod evidence;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;
use uuid::Uuid;

use super::loaded::LoadedBalancer;
use super::request::PickRequest;
use crate::endpoint::{Outcome, OutcomeObserver};
use crate::entity::balancer::Canary as Settings;
use crate::split_mix::mixed;
use evidence::{Evidence, Recent};

/// The version that places a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The active version.
    Stable,
    /// The version that takes a share.
    Canary,
}

impl Side {
    /// Both, in the order in which their figures are kept.
    pub const ALL: [Self; 2] = [Self::Stable, Self::Canary];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Canary => "canary",
        }
    }
}

/// The state of a canary, as far as this process knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// No bound is broken.
    Open,
    /// A bound is broken, for this reason: the canary gets no more requests.
    Returned(String),
    /// In the store, it is no longer a canary.
    Over,
}

/// A version of a balancer that takes a share of the picks.
pub struct RunningCanary {
    /// Its settings.
    pub settings: Settings,
    /// The balancer that it is a version of.
    pub balancer: Uuid,
    /// Name of the balancer.
    pub name: String,
    /// The version.
    pub plugin: Arc<LoadedBalancer>,
    /// How many of 2^32 requests it gets.
    share: u64,
    /// Part of the choice of a side, so that different versions begin with different clients.
    seed: u64,
    returned: AtomicBool,
    picks: [AtomicU64; 2],
    faults: [AtomicU64; 2],
    evidence: Mutex<Evidence>,
    verdict: watch::Sender<Verdict>,
}

impl std::fmt::Debug for RunningCanary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Canary({}, {})", self.name, self.plugin.digest)
    }
}

/// Figures of one side, counted by this process since it learnt of the canary.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// Picks asked for.
    pub picks: u64,
    /// Faults of its instances.
    pub faults: u64,
    /// Requests that it has placed and whose outcome is known, retries included; and requests that
    /// it refused.
    pub requests: u64,
    /// Those of them that were answered 5xx, not in time or not at all, or that it refused.
    pub errors: u64,
    /// What the bounds are checked against.
    pub recent: Recent,
}

impl RunningCanary {
    /// A canary that has placed no request yet.
    pub fn new(
        settings: Settings,
        balancer: Uuid,
        name: String,
        plugin: Arc<LoadedBalancer>,
    ) -> Self {
        let share = settings.share_percent.clamp(0.0, 100.0) / 100.0;
        Self {
            share: ((share * 2_f64.powi(32)) as u64).max(1),
            seed: seed_of(&settings.version),
            settings,
            balancer,
            name,
            plugin,
            returned: AtomicBool::new(false),
            picks: Default::default(),
            faults: Default::default(),
            evidence: Mutex::new(Evidence::new(Instant::now())),
            verdict: watch::Sender::new(Verdict::Open),
        }
    }

    /// The side of a request: determined by its affinity if it has one, so that a client stays on
    /// one side; random otherwise. None once the canary has broken a bound or has ended.
    pub(super) fn side_of(&self, request: &PickRequest<'_>) -> Option<Side> {
        if self.returned.load(Ordering::Relaxed) {
            return None;
        }
        let key = request.affinity.unwrap_or(request.entropy);
        Some(if mixed(key ^ self.seed) < self.share {
            Side::Canary
        } else {
            Side::Stable
        })
    }

    pub(super) fn note_pick(&self, side: Side) {
        self.picks[side as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a fault of one side's instance.
    pub(super) fn note_fault(&self, side: Side, upstream: &str, fault: &str) {
        let faults = self.faults[side as usize].fetch_add(1, Ordering::Relaxed) + 1;
        let most = self.settings.max_faults;
        if side == Side::Canary && faults > most {
            self.give_up(match faults {
                1 => format!("it failed at {upstream}: {fault}"),
                _ => format!(
                    "it failed {faults} times, more than {most}; the last time at {upstream}: {fault}"
                ),
            });
        }
    }

    /// Counts a request that one side has refused, which its client sees as a 503.
    pub(super) fn note_refusal(&self, side: Side) {
        self.observe(side, true, None);
    }

    fn observe(&self, side: Side, failed: bool, time: Option<Duration>) {
        let broken = {
            let mut evidence = self.evidence.lock();
            evidence.observe(Instant::now(), &self.settings.bounds, side, failed, time);
            match side {
                Side::Stable => None,
                Side::Canary => evidence.broken(&self.settings.bounds, "the active version's"),
            }
        };
        if let Some(reason) = broken {
            self.give_up(reason);
        }
    }

    /// Gives it no more requests, because it broke a bound.
    fn give_up(&self, reason: String) {
        if self.returned.swap(true, Ordering::Relaxed) {
            return;
        }
        let (balancer, version) = (&*self.name, &*self.plugin.digest);
        tracing::warn!(
            balancer,
            version,
            "canary broke a bound, its share returns to the active version: {reason}"
        );
        self.verdict.send_if_modified(|verdict| {
            let open = *verdict == Verdict::Open;
            if open {
                *verdict = Verdict::Returned(reason);
            }
            open
        });
    }

    /// Ends it, because in the store it is no longer a canary.
    pub(crate) fn end(&self) {
        self.returned.store(true, Ordering::Relaxed);
        self.verdict.send_replace(Verdict::Over);
    }

    /// Its verdict, now and later on.
    pub fn verdict(&self) -> watch::Receiver<Verdict> {
        self.verdict.subscribe()
    }

    /// Whether there were enough requests to judge it.
    pub fn is_judged(&self) -> bool {
        let evidence = self.evidence.lock();
        evidence::is_enough(&self.settings.bounds, |side| evidence.total(side).0)
    }

    /// The figures of both sides, the active version first.
    pub fn figures(&self) -> [Figures; 2] {
        let evidence = self.evidence.lock();
        Side::ALL.map(|side| {
            let (requests, errors) = evidence.total(side);
            Figures {
                picks: self.picks[side as usize].load(Ordering::Relaxed),
                faults: self.faults[side as usize].load(Ordering::Relaxed),
                requests,
                errors,
                recent: evidence.recent(side),
            }
        })
    }
}

/// The seed of a version. It is the same on every gateway, so that a client is on the same side at
/// each of them; and the same for every share, so that a larger share adds clients and drops none.
fn seed_of(digest: &str) -> u64 {
    let digits = digest.get(..16).unwrap_or_default();
    u64::from_str_radix(digits, 16).unwrap_or_default()
}

/// The side that placed a request while a canary was running; the outcome counts there.
#[derive(Debug)]
pub struct Placed {
    pub(super) canary: Arc<RunningCanary>,
    pub(super) side: Side,
}

impl OutcomeObserver for Placed {
    fn observe(&self, outcome: Outcome, took: Duration) {
        let (failed, time) = match outcome {
            Outcome::Answered(status) => (status >= 500, Some(took)),
            Outcome::Timeout => (true, Some(took)),
            // A request that broke off early has no latency to count.
            Outcome::Broken => (true, None),
        };
        self.canary.observe(self.side, failed, time);
    }
}
