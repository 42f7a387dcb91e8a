//! The event about an upstream and each of its addresses.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{rate, round};
use crate::admin::targets::shown_id;
use crate::balancer::Counters;
use crate::clock;
use crate::endpoint::health::{Event, Source};
use crate::endpoint_address::EndpointAddress;
use crate::traffic::{Counts, Tries, TrySample, Window};
use crate::upstream::{AddressReport, Upstream};

/// With more addresses than this, the last reports are shown of those alone that are out.
const DETAILED: usize = 100;

/// Most tries that an event shows as samples.
const SAMPLES: usize = 40;

/// What counters had when the last event was made.
pub(super) struct Before {
    /// When that was.
    since: Instant,
    counters: Counters,
    /// By the id of the address.
    picks: HashMap<u64, u64>,
}

/// An address. What has its usual value is left out: an event may be about thousands of them.
#[derive(Serialize)]
struct Lane<'a> {
    id: String,
    target: Uuid,
    address: &'a EndpointAddress,
    weight: u32,
    /// Its part of the weights that the balancer sees, which differ while one of them ramps up.
    expected: f64,
    /// Picks for each second.
    #[serde(skip_serializing_if = "is_zero")]
    picks: f64,
    #[serde(skip_serializing_if = "is_zero")]
    errors: f64,
    /// Mean and longest milliseconds until the head of a response.
    #[serde(skip_serializing_if = "Option::is_none")]
    ms: Option<f64>,
    #[serde(skip_serializing_if = "is_zero")]
    max_ms: f64,
    #[serde(skip_serializing_if = "is_zero_count")]
    in_flight: u32,
    #[serde(skip_serializing_if = "is_zero_count")]
    pending: u32,
    #[serde(skip_serializing_if = "is_zero_count")]
    connections: u32,
    available: bool,
    #[serde(skip_serializing_if = "is_false")]
    failover: bool,
    /// Seconds until its ejection ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    ejected_for: Option<f64>,
    /// Seconds until a request tries whether it works again.
    #[serde(skip_serializing_if = "Option::is_none")]
    trial_in: Option<f64>,
    /// The part of its slow start that has passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    slow_start: Option<f64>,
    #[serde(skip_serializing_if = "is_zero_count")]
    failures: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    changed_at: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changed_by: Option<Source>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_probe: Option<&'a Event>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<&'a Event>,
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

fn is_zero_count(number: &u32) -> bool {
    *number == 0
}

fn is_false(value: &bool) -> bool {
    !*value
}

/// The event. Rates are for each second.
pub(super) fn event(
    upstream: &Upstream,
    before: &mut Before,
    window: &Window,
    passed: Duration,
) -> Value {
    let nothing = Tries::default();
    let tries = window.upstreams.get(&upstream.name).unwrap_or(&nothing);
    let addresses = upstream.addresses();
    let without_peer = upstream.without_peer();
    let without_peer =
        without_peer.map(|(reason, number)| (reason.code().to_owned(), json!(number)));
    let policy = upstream.policy();
    let now = Instant::now();
    let since = now - std::mem::replace(&mut before.since, now);
    let event = json!({
        "at": clock::unix_millis(),
        "name": upstream.name,
        "healthy": upstream.is_healthy(),
        "checked": policy.is_checked(),
        "rate": rate(tries.all.counts.number, passed),
        "errors": rate(tries.all.counts.errors, passed),
        "p50": tries.all.quantile_ms(0.5).map(round),
        "p99": tries.all.quantile_ms(0.99).map(round),
        "pending": upstream.pending(),
        "without_peer": without_peer.collect::<serde_json::Map<_, _>>(),
        "balancer": before.balancer(upstream, since),
        "lanes": before.lanes(upstream, &addresses, tries, passed, since),
        "samples": samples(tries),
    });
    before.picks = picks(&addresses);
    event
}

/// The picks of each address.
fn picks(addresses: &[AddressReport]) -> HashMap<u64, u64> {
    addresses.iter().map(|a| (a.id, a.picks)).collect()
}

impl Before {
    /// What they have now.
    pub(super) fn of(upstream: &Upstream) -> Self {
        Self {
            since: Instant::now(),
            counters: upstream.balancer().counters(),
            picks: picks(&upstream.addresses()),
        }
    }

    fn balancer(&mut self, upstream: &Upstream, passed: Duration) -> Value {
        let balancer = upstream.balancer();
        let counters = balancer.counters();
        // After a switch, counters begin again.
        let earlier = std::mem::replace(&mut self.counters, counters.clone());
        let is_same = earlier.switches == counters.switches && earlier.picks <= counters.picks;
        let earlier = if is_same { earlier } else { counters.clone() };
        let mean = |sum: f64, count: u64| (count > 0).then(|| (sum * 1e9 / count as f64).round());
        let (now, then) = (&counters.times, &earlier.times);
        let (sum, count) = (now.sum() - then.sum(), now.count() - then.count());
        // A second may have no pick that was timed.
        let recent = mean(sum, count).or_else(|| mean(now.sum(), now.count()));
        json!({
            "name": upstream.policy().algorithm,
            "version": balancer.plugin().digest,
            "picks": rate(counters.picks - earlier.picks, passed),
            "fallback": rate(counters.fallback_picks.saturating_sub(earlier.fallback_picks), passed),
            "pick_ns": recent,
            "pick_p99_ns": p99_ns(&counters),
            "counters": counters,
        })
    }

    fn lanes(
        &self,
        upstream: &Upstream,
        addresses: &[AddressReport],
        tries: &Tries,
        passed: Duration,
        since: Duration,
    ) -> Value {
        let table = upstream.balancer().endpoints();
        let total: u64 = table.iter().map(|e| u64::from(e.weight)).sum();
        let weights: HashMap<u64, u32> = table.iter().map(|e| (e.id, e.weight)).collect();
        let trials: HashMap<u64, Duration> = upstream.trials().into_iter().collect();
        let window = upstream.policy().slow_start();
        let seconds = |time: Duration| round(time.as_secs_f64());
        let is_detailed = addresses.len() <= DETAILED;
        let lanes = addresses.iter().map(|address| {
            let counts = tries.endpoints.get(&address.id);
            let nothing = Counts::default();
            let counts = counts.unwrap_or(&nothing);
            let picks = self.picks.get(&address.id);
            let picks = picks.map_or(0, |before| address.picks.saturating_sub(*before));
            let weight = weights
                .get(&address.id)
                .map_or(0, |weight| u64::from(*weight));
            let is_ramping = address.available && address.available_for < window;
            let tells = is_detailed || !address.available;
            let condition = &address.condition;
            Lane {
                id: shown_id(address.id),
                target: address.target,
                address: &address.address,
                weight: address.weight,
                expected: round(weight as f64 / total.max(1) as f64),
                picks: rate(picks, since),
                errors: rate(counts.errors, passed),
                ms: counts.mean_ms().map(round),
                max_ms: round(counts.most as f64 / 1000.0),
                in_flight: address.in_flight,
                pending: address.pending,
                connections: address.connections,
                available: address.available,
                failover: address.failover,
                ejected_for: address.ejected_for.map(seconds),
                trial_in: trials.get(&address.id).copied().map(seconds),
                slow_start: is_ramping
                    .then(|| round(address.available_for.as_secs_f64() / window.as_secs_f64())),
                failures: condition.failures,
                changed_at: condition.changed_at,
                changed_by: condition.changed_by,
                last_probe: condition.last_probe.as_ref().filter(|_| tells),
                last_failure: condition.last_failure.as_ref().filter(|_| tells),
            }
        });
        // Numbers, texts and maps with text keys are always JSON.
        serde_json::to_value(lanes.collect::<Vec<_>>()).unwrap_or_default()
    }
}

/// The class of the time that 99 % of the picks do not exceed, in nanoseconds.
fn p99_ns(counters: &Counters) -> Option<f64> {
    let wanted = (counters.times.count() as f64 * 0.99).ceil() as u64;
    let mut passed = 0;
    let buckets = counters.times.buckets().into_iter();
    let mut reached = buckets.skip_while(|(_, number)| {
        passed += number;
        passed < wanted
    });
    let (bound, _) = reached.next().filter(|_| wanted > 0)?;
    bound.is_finite().then(|| (bound * 1e9).round())
}

/// Some tries, the oldest first, each with how many milliseconds ago its endpoint was picked.
fn samples(tries: &Tries) -> Vec<Value> {
    let mut samples: Vec<&TrySample> = tries.samples.iter().collect();
    samples.sort_by_key(|sample| sample.at);
    let step = samples.len().div_ceil(SAMPLES).max(1);
    let now = clock::micros(Instant::now());
    let shown = samples.into_iter().step_by(step).map(|sample| {
        json!({
            "id": shown_id(sample.endpoint),
            "status": sample.status,
            "ms": round(sample.took.as_secs_f64() * 1000.0),
            "trial": sample.is_trial,
            "ago": now.saturating_sub(sample.at) / 1000,
        })
    });
    shown.collect()
}
