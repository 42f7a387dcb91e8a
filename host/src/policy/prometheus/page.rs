//! The figures as text, with the names of entities. Source: Kong 3.9, `prometheus/exporter.lua`.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::atomic::Ordering;

use serde_json::Value;
use uuid::Uuid;

use super::series::{Histogram, Series};
use super::{Key, Metrics};
use crate::entity::Kind;
use crate::policy::logs::document::WORKSPACE_NAME;
use crate::store::{self, Store, Stored};

/// The labels of a sample, in their order.
type Labels = Vec<(&'static str, String)>;

/// The families of the page.
#[derive(Default)]
struct Page {
    requests: BTreeMap<Labels, u64>,
    sessions: BTreeMap<Labels, u64>,
    bandwidth: BTreeMap<Labels, u64>,
    gateway: BTreeMap<Labels, Histogram>,
    upstream: BTreeMap<Labels, Histogram>,
    request: BTreeMap<Labels, Histogram>,
    session: BTreeMap<Labels, Histogram>,
}

impl Metrics {
    /// What was counted, in the text format of Prometheus. Forgets what was counted for entities
    /// that are no longer in the store.
    pub fn text(&self, store: &dyn Store) -> String {
        self.page(&|kind, id| store.get(kind, id))
    }

    /// As [`Metrics::text`], with what reads the store.
    fn page(&self, read: Read<'_>) -> String {
        let mut text = String::new();
        if !self.is_used() {
            return text;
        }
        let all = self.all();
        let mut names = Names {
            read,
            known: HashMap::new(),
        };
        let mut gone = Vec::new();
        let mut page = Page::default();
        for (key, series) in &all {
            match names.labels(key) {
                Ok(labels) => page.add(&labels, series),
                Err(Absent::Deleted) => gone.push(*key),
                // The figures are there again when the store can be read again.
                Err(Absent::Unreadable) => {}
            }
        }
        if !gone.is_empty() {
            self.forget(&gone);
        }
        page.write(&mut text, self.errors.load(Ordering::Relaxed));
        text
    }
}

/// The labels of a key.
struct KeyLabels {
    service: String,
    route: String,
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
        Ok(KeyLabels {
            service: match key.service {
                Some(id) => self.of(Kind::Service, id, &["name", "host"])?,
                None => String::new(),
            },
            route: self.of(Kind::Route, key.route, &["name", "id"])?,
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
    fn add(&mut self, labels: &KeyLabels, series: &Series) {
        let KeyLabels {
            service,
            route,
            consumer,
        } = labels;
        let of = |more: &[(&'static str, &str)]| -> Labels {
            let mut all = vec![("service", service.clone()), ("route", route.clone())];
            all.extend(
                more.iter()
                    .map(|(name, value)| (*name, (*value).to_owned())),
            );
            all
        };
        for ((status, is_proxied), count) in &series.statuses {
            let mut labels = of(&[
                ("code", &status.to_string()),
                ("source", if *is_proxied { "service" } else { "kong" }),
                ("workspace", WORKSPACE_NAME),
            ]);
            let family = match series.is_stream {
                true => &mut self.sessions,
                false => {
                    labels.push(("consumer", consumer.clone()));
                    &mut self.requests
                }
            };
            *family.entry(labels).or_default() += count;
        }
        for (direction, bytes) in [("ingress", series.ingress), ("egress", series.egress)] {
            let mut labels = of(&[("direction", direction), ("workspace", WORKSPACE_NAME)]);
            // A stream has none. Source: Kong.
            if !series.is_stream {
                labels.push(("consumer", consumer.clone()));
            }
            if bytes > 0 {
                *self.bandwidth.entry(labels).or_default() += bytes;
            }
        }
        let Some(times) = &series.times else {
            return;
        };
        let whole = match series.is_stream {
            true => &mut self.session,
            false => &mut self.request,
        };
        for (family, histogram) in [
            (&mut self.gateway, &times.gateway),
            (&mut self.upstream, &times.upstream),
            (whole, &times.request),
        ] {
            if histogram.count() > 0 {
                // Two keys have the same labels if names are used again.
                let entry = family.entry(of(&[("workspace", WORKSPACE_NAME)]));
                entry
                    .and_modify(|known| known.add(histogram))
                    .or_insert_with(|| histogram.clone());
            }
        }
    }

    fn write(&self, text: &mut String, errors: u64) {
        counter(
            text,
            "kong_nginx_metric_errors_total",
            "Requests that were not counted, because too many series are",
            &BTreeMap::from([(Labels::new(), errors)]),
        );
        counter(
            text,
            "kong_http_requests_total",
            "Requests by status, by route and service, and by consumer where asked for",
            &self.requests,
        );
        counter(
            text,
            "kong_stream_sessions_total",
            "Streams by how they have ended, as a status of HTTP, and by route and service",
            &self.sessions,
        );
        counter(
            text,
            "kong_bandwidth_bytes",
            "Bytes of requests and streams (ingress) and of responses (egress), heads included",
            &self.bandwidth,
        );
        histogram(
            text,
            "kong_kong_latency_ms",
            "Milliseconds that the gateway took for a request, or for a stream before its first try",
            &self.gateway,
        );
        histogram(
            text,
            "kong_upstream_latency_ms",
            "Milliseconds that the gateway waited for endpoints",
            &self.upstream,
        );
        histogram(
            text,
            "kong_request_latency_ms",
            "Milliseconds from the head of a request to the end of its response",
            &self.request,
        );
        histogram(
            text,
            "kong_session_duration_ms",
            "Milliseconds from the beginning of a stream to its end",
            &self.session,
        );
    }
}

fn counter(text: &mut String, name: &str, help: &str, samples: &BTreeMap<Labels, u64>) {
    head(text, name, help, "counter", samples.is_empty());
    for (labels, value) in samples {
        sample(text, name, labels, None, *value);
    }
}

fn histogram(text: &mut String, name: &str, help: &str, samples: &BTreeMap<Labels, Histogram>) {
    head(text, name, help, "histogram", samples.is_empty());
    for (labels, histogram) in samples {
        let bucket = format!("{name}_bucket");
        for (bound, count) in histogram.buckets() {
            sample(text, &bucket, labels, Some(&bound.to_string()), count);
        }
        let count = histogram.count();
        sample(text, &bucket, labels, Some("+Inf"), count);
        sample(text, &format!("{name}_count"), labels, None, count);
        sample(text, &format!("{name}_sum"), labels, None, histogram.sum);
    }
}

/// The lines before the samples of a family. A family without samples is absent.
fn head(text: &mut String, name: &str, help: &str, kind: &str, is_empty: bool) {
    if !is_empty {
        // Writing to memory does not fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }
}

/// A sample; `bound` is the label `le` of a bucket.
fn sample(text: &mut String, name: &str, labels: &Labels, bound: Option<&str>, value: u64) {
    text.push_str(name);
    let labels = labels.iter().map(|(name, value)| (*name, value.as_str()));
    let mut before = '{';
    for (name, value) in labels.chain(bound.map(|bound| ("le", bound))) {
        text.push(before);
        before = ',';
        let value = value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        let _ = write!(text, "{name}=\"{value}\"");
    }
    if before == ',' {
        text.push('}');
    }
    let _ = writeln!(text, " {value}");
}

#[cfg(test)]
mod tests;
