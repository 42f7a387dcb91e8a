//! The event about the gateway as a whole.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{rate, round};
use crate::admin::Admin;
use crate::admin::changes;
use crate::admin::status::{resident_bytes, sum};
use crate::clock;
use crate::node;
use crate::traffic::{Figures, RequestSample, StreamSample, Window};
use crate::upstream::Upstream;

/// Most routes of an event, those with the most requests.
const ROUTES: usize = 200;

/// Most requests that an event shows as samples.
const SAMPLES: usize = 20;

/// What counters had when the last event was made.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// Bytes of streams, from clients and to them.
    bytes: Option<[u64; 2]>,
}

/// The event. Rates are for each second, times are milliseconds until the head of a response.
pub(super) fn event(
    admin: &Admin,
    before: &mut Before,
    window: &Window,
    passed: Duration,
) -> Value {
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
        "all": shown(&all_of(&window.routes), passed),
        "routes": by_route(&window.routes, passed),
        "upstreams": upstreams,
        "samples": samples(window),
        "streams": before.streams(admin, window, passed),
        "changes": changes::recent(),
    })
}

impl Before {
    /// The streams. Their times are from their beginning to their end.
    fn streams(&mut self, admin: &Admin, window: &Window, passed: Duration) -> Value {
        let bytes = admin.streams.bytes().map(|(_, number)| number);
        let before = self.bytes.replace(bytes).unwrap_or(bytes);
        let [received, sent] = [0, 1].map(|way| bytes[way].saturating_sub(before[way]));
        let mut streams = shown(&all_of(&window.streams), passed);
        streams["active"] = json!(admin.streams.active());
        streams["received"] = json!(rate(received, passed));
        streams["sent"] = json!(rate(sent, passed));
        streams["routes"] = json!(by_route(&window.streams, passed));
        let mut samples: Vec<&StreamSample> = window.ended.iter().collect();
        samples.sort_by_key(|sample| sample.at);
        let step = samples.len().div_ceil(SAMPLES).max(1);
        let samples = samples.into_iter().step_by(step).map(|sample| {
            json!({
                "route": sample.route,
                "transport": sample.transport,
                "client": sample.client,
                "port": sample.port,
                "status": sample.status,
                "received": sample.received,
                "sent": sample.sent,
                "ms": round(sample.took.as_secs_f64() * 1000.0),
            })
        });
        streams["samples"] = json!(samples.collect::<Vec<_>>());
        streams
    }
}

/// The figures of all routes together.
fn all_of(routes: &HashMap<Option<Uuid>, Figures>) -> Figures {
    let mut all = Figures::default();
    routes.values().for_each(|route| all.merge(route));
    all
}

/// The routes with the most requests or streams.
fn by_route(routes: &HashMap<Option<Uuid>, Figures>, passed: Duration) -> Vec<Value> {
    let mut routes: Vec<(&Option<Uuid>, &Figures)> = routes.iter().collect();
    routes.sort_by_key(|(_, figures)| std::cmp::Reverse(figures.counts.number));
    let shown = routes.into_iter().take(ROUTES).map(|(id, figures)| {
        let mut shown = shown(figures, passed);
        shown["id"] = json!(id);
        shown
    });
    shown.collect()
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
