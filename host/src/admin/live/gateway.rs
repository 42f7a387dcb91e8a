//! The event about the gateway as a whole.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{rate, round};
use crate::admin::Admin;
use crate::admin::changes;
use crate::admin::status::{resident_bytes, sum};
use crate::clock;
use crate::node;
use crate::traffic::{Figures, RequestSample, Window};
use crate::upstream::Upstream;

/// Most routes of an event, those with the most requests.
const ROUTES: usize = 200;

/// Most requests that an event shows as samples.
const SAMPLES: usize = 20;

/// The event. Rates are for each second, times are milliseconds until the head of a response.
pub(super) fn event(admin: &Admin, window: &Window, passed: Duration) -> Value {
    let mut all = Figures::default();
    window.routes.values().for_each(|route| all.merge(route));
    let mut routes: Vec<(&Option<Uuid>, &Figures)> = window.routes.iter().collect();
    routes.sort_by_key(|(_, figures)| std::cmp::Reverse(figures.counts.number));
    let routes = routes.into_iter().take(ROUTES).map(|(id, figures)| {
        let mut shown = shown(figures, passed);
        shown["id"] = json!(id);
        shown
    });
    let (_, snapshot) = admin.published.current();
    let mut upstreams: Vec<Value> = (snapshot.upstreams.iter())
        .map(|(id, upstream)| of_upstream(*id, upstream, window, passed))
        .collect();
    upstreams.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let condition = admin.store.condition();
    json!({
        "at": clock::unix_millis(),
        "node": { "id": node::id(), "hostname": node::hostname(), "version": env!("CARGO_PKG_VERSION") },
        "revision": *admin.published.applied_revisions().borrow(),
        "store": { "failure": condition.failure.map(|failure| failure.reason), "set_aside": condition.set_aside.len() },
        "connections": sum(admin, |counters| &counters.active),
        "memory": resident_bytes(),
        "all": shown(&all, passed),
        "routes": routes.collect::<Vec<_>>(),
        "upstreams": upstreams,
        "samples": samples(window),
        "changes": changes::recent(),
    })
}

fn shown(figures: &Figures, passed: Duration) -> Value {
    json!({
        "rate": rate(figures.counts.number, passed),
        "errors": rate(figures.counts.errors, passed),
        "p50": figures.quantile_ms(0.5).map(round),
        "p99": figures.quantile_ms(0.99).map(round),
    })
}

fn of_upstream(id: Uuid, upstream: &Upstream, window: &Window, passed: Duration) -> Value {
    let nothing = Figures::default();
    let tries = window.upstreams.get(&upstream.name);
    let mut shown = shown(tries.map_or(&nothing, |tries| &tries.all), passed);
    let addresses = upstream.addresses();
    let available = addresses.iter().filter(|address| address.available);
    let counters = upstream.balancer().counters();
    shown["id"] = json!(id);
    shown["name"] = json!(upstream.name);
    shown["balancer"] = json!(upstream.policy().algorithm);
    shown["available"] = json!(available.count());
    shown["addresses"] = json!(addresses.len());
    shown["healthy"] = json!(upstream.is_healthy());
    let in_flight = addresses.iter().map(|address| u64::from(address.in_flight));
    shown["in_flight"] = json!(in_flight.sum::<u64>());
    shown["consecutive_faults"] = json!(counters.consecutive_faults);
    shown["quarantine"] = json!(counters.quarantine);
    shown
}

/// Some requests, the oldest first.
fn samples(window: &Window) -> Vec<Value> {
    let mut samples: Vec<&RequestSample> = window.requests.iter().collect();
    samples.sort_by_key(|sample| sample.at);
    // Spread over the second.
    let step = samples.len().div_ceil(SAMPLES).max(1);
    let shown = samples.into_iter().step_by(step).map(|sample| {
        json!({
            "route": sample.route,
            "method": sample.method,
            "host": sample.host,
            "path": sample.path,
            "client": sample.client,
            "status": sample.status,
            "ms": round(sample.took.as_secs_f64() * 1000.0),
        })
    });
    shown.collect()
}
