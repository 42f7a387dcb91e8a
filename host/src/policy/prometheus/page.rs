//! The figures as text, with the names of entities. Source: Kong 3.9, `prometheus/exporter.lua`.

mod text;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;

use serde_json::Value;
use uuid::Uuid;

use super::Metrics;
use super::histogram::HistogramFigures;
use super::series::SeriesFigures;
use super::shards::Key;
use crate::entity::Kind;
use crate::policy::logs::document::WORKSPACE_NAME;
use crate::store::{self, Store, Stored};
use text::{FamilyText, Labels};

/// The families of the page, by the labels of their samples.
#[derive(Default)]
struct Page {
    requests: BTreeMap<Labels, u64>,
    sessions: BTreeMap<Labels, u64>,
    bandwidth: BTreeMap<Labels, u64>,
    policies: BTreeMap<Labels, u64>,
    tries: BTreeMap<Labels, u64>,
    gateway: BTreeMap<Labels, HistogramFigures>,
    upstream: BTreeMap<Labels, HistogramFigures>,
    request: BTreeMap<Labels, HistogramFigures>,
    session: BTreeMap<Labels, HistogramFigures>,
    own: BTreeMap<Labels, HistogramFigures>,
    access: BTreeMap<Labels, HistogramFigures>,
}

impl Metrics {
    /// What was counted, in the text format of Prometheus; with exemplars, which only OpenMetrics
    /// allows, if they are asked for. Forgets what was counted for entities that are no longer in
    /// the store.
    pub fn text(&self, store: &dyn Store, with_exemplars: bool) -> String {
        self.page(&|kind, id| store.get(kind, id), with_exemplars)
    }

    /// As [`Metrics::text`], with what reads the store.
    fn page(&self, read: Read<'_>, with_exemplars: bool) -> String {
        if with_exemplars {
            self.wants_exemplars.store(true, Ordering::Relaxed);
        }
        if !self.is_used() {
            return String::new();
        }
        let mut names = Names {
            read,
            known: HashMap::new(),
        };
        let mut gone = Vec::new();
        let mut page = Page::default();
        for (key, figures) in self.shards.figures() {
            match names.labels(&key) {
                Ok(labels) => page.add(&labels, key.is_stream, figures),
                Err(Absent::Deleted) => gone.push(key),
                // The figures are there again when the store can be read again.
                Err(Absent::Unreadable) => {}
            }
        }
        if !gone.is_empty() {
            self.shards.forget(&gone);
        }
        page.text(self.errors.load(Ordering::Relaxed), with_exemplars)
    }
}

/// The labels of a key.
struct KeyLabels {
    /// Service and route.
    place: Labels,
    consumer: String,
}

/// Reads an entity.
type Read<'r> = &'r dyn Fn(Kind, Uuid) -> Result<Option<Stored>, store::Error>;

/// Why an entity has no name.
#[derive(Clone, Copy)]
enum Absent {
    Deleted,
    /// The store cannot tell.
    Unreadable,
}

/// The names of entities, each looked up once.
struct Names<'r> {
    read: Read<'r>,
    known: HashMap<(Kind, Uuid), Result<String, Absent>>,
}

impl Names<'_> {
    /// The labels of a key, if all of its entities have names.
    fn labels(&mut self, key: &Key) -> Result<KeyLabels, Absent> {
        let service = match key.service {
            Some(id) => self.of(Kind::Service, id, &["name", "host"])?,
            None => String::new(),
        };
        let route = self.of(Kind::Route, key.route, &["name", "id"])?;
        Ok(KeyLabels {
            place: Labels::default()
                .with("service", &service)
                .with("route", &route),
            consumer: match key.consumer {
                Some(id) => self.of(Kind::Consumer, id, &["username"])?,
                None => String::new(),
            },
        })
    }

    /// The first of these fields that an entity has.
    fn of(&mut self, kind: Kind, id: Uuid, fields: &[&str]) -> Result<String, Absent> {
        let read = || {
            let stored = (self.read)(kind, id).map_err(|_| Absent::Unreadable)?;
            let row = stored.ok_or(Absent::Deleted)?.row;
            let field = |field: &&str| row.get(*field).and_then(Value::as_str).map(str::to_owned);
            Ok(fields.iter().find_map(field).unwrap_or_default())
        };
        self.known.entry((kind, id)).or_insert_with(read).clone()
    }
}

impl Page {
    fn add(&mut self, labels: &KeyLabels, is_stream: bool, figures: SeriesFigures) {
        let KeyLabels { place, consumer } = labels;
        // A stream has no consumer. Source: Kong.
        let with_consumer = |labels: Labels| match is_stream {
            true => labels,
            false => labels.with("consumer", consumer),
        };
        for ((status, is_proxied), count) in figures.statuses {
            let labels = (place.clone())
                .with("code", &status.to_string())
                .with("source", if is_proxied { "service" } else { "kong" })
                .with("workspace", WORKSPACE_NAME);
            let family = match is_stream {
                true => &mut self.sessions,
                false => &mut self.requests,
            };
            *family.entry(with_consumer(labels)).or_default() += count;
        }
        for ((policy, status), count) in figures.policies {
            let labels = (place.clone())
                .with("policy", policy)
                .with("code", &status.to_string());
            *self.policies.entry(labels).or_default() += count;
        }
        for (outcome, count) in figures.tries {
            let labels = place.clone().with("outcome", outcome);
            *self.tries.entry(labels).or_default() += count;
        }
        for (direction, bytes) in [("ingress", figures.ingress), ("egress", figures.egress)] {
            if bytes > 0 {
                let labels = (place.clone())
                    .with("direction", direction)
                    .with("workspace", WORKSPACE_NAME);
                *self.bandwidth.entry(with_consumer(labels)).or_default() += bytes;
            }
        }
        let Some(times) = figures.times else {
            return;
        };
        let whole = match is_stream {
            true => &mut self.session,
            false => &mut self.request,
        };
        let of_kong = place.clone().with("workspace", WORKSPACE_NAME);
        for (family, labels, histogram) in [
            (&mut self.gateway, &of_kong, times.gateway),
            (&mut self.upstream, &of_kong, times.upstream),
            (whole, &of_kong, times.request),
            (&mut self.own, place, times.own),
            (&mut self.access, place, times.access),
        ] {
            if histogram.count() > 0 {
                // Two keys have the same labels if names are used again.
                let entry = family.entry(labels.clone());
                entry
                    .and_modify(|known| known.add(&histogram))
                    .or_insert(histogram);
            }
        }
    }

    fn text(&self, errors: u64, with_exemplars: bool) -> String {
        let mut text = FamilyText::new(with_exemplars);
        text.counter(
            "kong_nginx_metric_errors_total",
            "Requests that were not counted, because too many series are",
            &BTreeMap::from([(Labels::default(), errors)]),
        );
        text.counter(
            "kong_http_requests_total",
            "Requests by status, by route and service, and by consumer where asked for",
            &self.requests,
        );
        text.counter(
            "kong_stream_sessions_total",
            "Streams by how they have ended, as a status of HTTP, and by route and service",
            &self.sessions,
        );
        text.counter(
            "kong_bandwidth_bytes",
            "Bytes of requests and streams (ingress) and of responses (egress), heads included",
            &self.bandwidth,
        );
        text.counter(
            "pointsman_policy_responses_total",
            "Requests that a plugin has answered, by its name and the status",
            &self.policies,
        );
        text.counter(
            "pointsman_tries_total",
            "Tries with endpoints, by their outcome: answered, or why there was no response",
            &self.tries,
        );
        text.histogram(
            "kong_kong_latency_ms",
            "Milliseconds that the gateway took for a request, or for a stream before its first try",
            &self.gateway,
        );
        text.histogram(
            "kong_upstream_latency_ms",
            "Milliseconds that the gateway waited for endpoints",
            &self.upstream,
        );
        text.histogram(
            "kong_request_latency_ms",
            "Milliseconds from the head of a request to the end of its response",
            &self.request,
        );
        text.histogram(
            "kong_session_duration_ms",
            "Milliseconds from the beginning of a stream to its end",
            &self.session,
        );
        text.histogram(
            "pointsman_gateway_seconds",
            "Time that the gateway took for a request, without endpoints and the response's transfer",
            &self.own,
        );
        text.histogram(
            "pointsman_access_seconds",
            "Time until the plugins of a request had decided that it may pass, or had answered it",
            &self.access,
        );
        text.text
    }
}

#[cfg(test)]
mod tests;
