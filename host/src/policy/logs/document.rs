//! A record as the JSON document that every log policy writes. Source: Kong 3.9,
//! `kong.log.serialize`. What Kong does not know of a request is in `own.rs`.

mod own;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::clock::since_1970;
use crate::entity::{Kind, Row};
use crate::policy::record::{LogRecord, Record, StreamRecord, Try, TryOutcome};
use crate::policy::response::Source;
use crate::store::Store;
use crate::tls::NegotiatedTls;
use crate::trace_context::Format;
use crate::urlencoded;

/// The id of the only workspace. Source: Kong, which has it for a declarative configuration.
pub(in super::super) const WORKSPACE: Uuid =
    Uuid::from_u128(0x0dc6_f45b_8f8d_40d2_a504_4735_44ee_190b);

/// The name of the only workspace.
pub(in super::super) const WORKSPACE_NAME: &str = "default";

/// The value in place of a header that has a credential.
const REDACTED: &str = "REDACTED";

/// Reads records together with the entities that they name.
pub struct Documents {
    store: Arc<dyn Store>,
}

impl std::fmt::Debug for Documents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Documents")
    }
}

impl Documents {
    /// Reads entities from this store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// The stored entity; `None` if it was deleted since.
    pub(in super::super) fn entity(&self, kind: Kind, id: Uuid) -> Option<Row> {
        let stored = self.store.get(kind, id).ok().flatten();
        stored.map(|stored| stored.row)
    }

    /// The stored entity, with all its fields; of an entity that was deleted, its id.
    pub(in super::super) fn whole(&self, kind: Kind, id: Uuid) -> Value {
        let row = self.entity(kind, id).map(Value::Object);
        row.unwrap_or_else(|| json!({ "id": id }))
    }

    /// The record as one line of JSON.
    pub(in super::super) fn text(&self, record: &LogRecord) -> String {
        // Of an entity that was deleted since, the id remains.
        let entity = |kind, id: Uuid| match self.entity(kind, id) {
            Some(row) => Value::Object(shown(row)),
            None => json!({ "id": id }),
        };
        match record {
            LogRecord::Request(record) => document(record, &entity).to_string(),
            LogRecord::Stream(record) => stream_document(record, &entity).to_string(),
        }
    }
}

/// A row as Kong logs it: without fields that have no value, and with its workspace.
fn shown(mut row: Row) -> Row {
    row.retain(|_, value| !value.is_null());
    row.insert("ws_id".into(), WORKSPACE.to_string().into());
    row
}

/// The record as a JSON document, with entities as `entity` reads them.
fn document(record: &Record, entity: &dyn Fn(Kind, Uuid) -> Value) -> Value {
    let latencies = &record.latencies;
    let url = format!(
        "{}://{}:{}{}",
        record.scheme,
        record.host.as_deref().unwrap_or_default(),
        record.server.port(),
        record.target()
    );
    let mut document = json!({
        "request": {
            "id": record.id(),
            "method": record.method(),
            "uri": record.target(),
            "url": url,
            "size": record.request_size,
            "querystring": query(record.query().unwrap_or_default()),
            "headers": headers(&record.request_headers),
        },
        "response": {
            "status": record.status.as_u16(),
            "size": record.response_size(),
            "headers": headers(&record.response_headers),
        },
        "upstream_uri": record.upstream_target.as_deref().unwrap_or_default(),
        "upstream_status": upstream_status(&record.tries),
        "latencies": {
            "request": millis(latencies.total),
            "kong": millis(latencies.gateway),
            "proxy": latencies.upstream.map_or(-1, millis),
            "receive": millis(latencies.receive),
        },
        "client_ip": record.client.ip().to_string(),
        "started_at": since_1970(record.started).as_millis() as u64,
        "workspace": WORKSPACE,
        "workspace_name": WORKSPACE_NAME,
        "source": source(record.source),
    });
    if let Some(tls) = &record.tls {
        document["request"]["tls"] = negotiated(tls);
    }
    let mut add = |name: &str, value: Value| document[name] = value;
    // A matched request that a plugin has answered has no tries, and an unmatched one no list of
    // them.
    if record.upstream_target.is_some() || record.route.is_some() {
        add("tries", tries(&record.tries));
    }
    if let Some(route) = record.route {
        add("route", entity(Kind::Route, route));
    }
    if let Some(service) = record.service {
        add("service", entity(Kind::Service, service));
    }
    if let Some(consumer) = &record.subject.consumer {
        add("consumer", entity(Kind::Consumer, consumer.id));
    }
    if let Some(credential) = &record.subject.credential {
        add("authenticated_entity", json!({ "id": credential.id }));
    }
    if let Some(id) = &record.correlation_id {
        add("correlation_id", json!(**id));
    }
    if let Some(trace) = &record.trace {
        let texts = trace.formats.iter().map(|format| {
            let text = trace.id.text(format);
            (format.name().to_owned(), text.into())
        });
        let mut texts: Map<String, Value> = texts.collect();
        if texts.is_empty() {
            // No endpoint was told, and the trace has the id nevertheless.
            texts.insert(Format::W3c.name().into(), trace.id.to_string().into());
        }
        add("trace_id", Value::Object(texts));
    }
    add("pointsman", own::details(record));
    document
}

fn source(source: Source) -> &'static str {
    match source {
        Source::Endpoint => "upstream",
        Source::Gateway => "kong",
    }
}

/// The record of a stream as a JSON document, with entities as `entity` reads them.
fn stream_document(record: &StreamRecord, entity: &dyn Fn(Kind, Uuid) -> Value) -> Value {
    let mut document = json!({
        "session": {
            "received": record.received,
            "sent": record.sent,
            "status": record.status,
            "server_port": record.port,
        },
        "upstream": {
            "received": record.upstream_received,
            "sent": record.upstream_sent,
        },
        "latencies": {
            "session": millis(record.duration),
            "kong": millis(record.gateway),
        },
        "client_ip": record.client.ip().to_string(),
        "started_at": since_1970(record.started).as_millis() as u64,
        "workspace": WORKSPACE,
        "workspace_name": WORKSPACE_NAME,
        "source": source(record.source()),
    });
    if let Some(tls) = &record.tls {
        document["session"]["tls"] = negotiated(tls);
    }
    if let Some(route) = record.route {
        document["route"] = entity(Kind::Route, route);
        document["tries"] = tries(&record.tries);
    }
    if let Some(service) = record.service {
        document["service"] = entity(Kind::Service, service);
    }
    document
}

/// What client and gateway have agreed on in a TLS handshake.
fn negotiated(tls: &NegotiatedTls) -> Value {
    json!({
        "version": tls.version,
        "cipher": tls.cipher,
        "client_verify": tls.client_verify(),
    })
}

/// Whole milliseconds.
pub(in super::super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Adds a value to those of a name: the second one makes a list of them.
fn add(object: &mut Map<String, Value>, name: &str, value: Value) {
    match object.get_mut(name) {
        None => {
            object.insert(name.to_owned(), value);
        }
        Some(Value::Array(values)) => values.push(value),
        Some(first) => *first = json!([first.take(), value]),
    }
}

/// Headers by name. The bytes of a value that are not UTF-8 are replaced.
fn headers(headers: &HeaderMap) -> Value {
    let mut object = Map::new();
    for (name, value) in headers {
        let value = match *name {
            AUTHORIZATION | PROXY_AUTHORIZATION => REDACTED.into(),
            _ => String::from_utf8_lossy(value.as_bytes()),
        };
        add(&mut object, name.as_str(), value.into());
    }
    Value::Object(object)
}

/// The arguments of a query by name; `true` for one without `=`.
fn query(text: &str) -> Value {
    let mut object = Map::new();
    for argument in text.split('&').filter(|argument| !argument.is_empty()) {
        for (name, value) in urlencoded::pairs(argument.as_bytes()) {
            let value = match argument.contains('=') {
                true => String::from_utf8_lossy(&value).into(),
                false => Value::Bool(true),
            };
            add(&mut object, &String::from_utf8_lossy(&name), value);
        }
    }
    Value::Object(object)
}

/// The statuses of the tries. Source: nginx, `$upstream_status`.
fn upstream_status(tries: &[Try]) -> String {
    let statuses = tries.iter().map(|one| match one.outcome {
        TryOutcome::Answered(status) => status.to_string(),
        TryOutcome::Failed => "502".into(),
        TryOutcome::TimedOut => "504".into(),
        TryOutcome::Abandoned => "-".into(),
    });
    statuses.collect::<Vec<_>>().join(", ")
}

/// The tries; those that did not make the response have a state and a code.
fn tries(tries: &[Try]) -> Value {
    let count = tries.len();
    let tries = tries.iter().enumerate().map(|(number, one)| {
        let started = since_1970(one.started);
        let mut shown = json!({
            "ip": one.address.without_port(),
            "port": one.address.port(),
            "balancer_start": started.as_millis() as u64,
            "balancer_start_ns": started.as_nanos() as u64,
            "balancer_latency": millis(one.balancer),
            "balancer_latency_ns": one.balancer.as_nanos() as u64,
        });
        own::add_pick(&mut shown, one);
        let end = match one.outcome {
            TryOutcome::Answered(status) if number + 1 < count => Some(("next", status)),
            TryOutcome::Answered(_) | TryOutcome::Abandoned => None,
            TryOutcome::Failed => Some(("failed", 502)),
            TryOutcome::TimedOut => Some(("failed", 504)),
        };
        if let Some((state, code)) = end {
            shown["state"] = state.into();
            shown["code"] = code.into();
        }
        shown
    });
    tries.collect()
}

#[cfg(test)]
mod tests;
