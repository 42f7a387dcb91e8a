//! A record as a line of JSON, with all that is known of the request.

use std::net::IpAddr;
use std::time::Duration;

use http::HeaderName;
use http::header::{REFERER, USER_AGENT};
use uuid::Uuid;

use super::escape;
use super::line::{basic_user, protocol, source, status};
use super::text::{self, Times, micros, number, three_digits};
use crate::policy::record::{Record, Try};

/// Writes the line of a record, without its end.
pub(super) fn write(text: &mut Vec<u8>, record: &Record, times: &Times) {
    let mut object = Object::begin(text);
    object.key("time");
    object.text.push(b'"');
    object.text.extend_from_slice(times.iso().as_bytes());
    object.text.push(b'.');
    three_digits(object.text, times.millis());
    object.text.extend_from_slice(b"Z\"");
    object.text("request_id", record.id());
    object.ip("client_ip", record.client.ip());
    object.number("client_port", record.client.port().into());
    object.ip("server_ip", record.server.ip());
    object.number("server_port", record.server.port().into());
    object.number("connection", record.connection.0);
    object.number("connection_requests", record.connection.1);
    if let Some(user) = basic_user(record) {
        object.bytes("user", &user);
    }
    match &record.unread_line {
        Some(line) => object.bytes("unread_line", line),
        None => {
            object.text("method", record.method());
            object.text("uri", record.target());
        }
    }
    object.text("protocol", protocol(record.version));
    object.text("scheme", record.scheme);
    object.some(
        "host",
        record.host.as_deref().filter(|host| !host.is_empty()),
    );
    if let Some(tls) = &record.tls {
        object.text("tls_version", tls.version);
        object.text("tls_cipher", tls.cipher);
        object.text("tls_client_verify", tls.client_verify());
    }
    object.number("status", record.status.as_u16().into());
    object.text("source", source(record.source));
    object.some("reason", record.reason);
    object.some("policy", record.policy);
    object.number("bytes_received", record.request_size);
    object.number("bytes_sent", record.response_size());
    object.number("body_bytes_sent", record.response_body_size);
    object.entity("route", record.route, record.route_name.as_deref());
    object.entity("service", record.service, record.service_name.as_deref());
    if let Some(consumer) = &record.subject.consumer {
        object.entity("consumer", Some(consumer.id), consumer.username.as_deref());
    }
    object.some("upstream", record.upstream.as_deref());
    object.some("upstream_uri", record.upstream_target.as_deref());
    if !record.tries.is_empty() {
        object.key("tries");
        let mut separator = b'[';
        for one in &record.tries {
            object.text.push(separator);
            separator = b',';
            write_try(object.text, one);
        }
        object.text.push(b']');
    }
    object.key("times_us");
    write_times(object.text, record);
    object.some("correlation_id", record.correlation_id.as_deref());
    if let Some(trace) = &record.trace {
        object.key("trace_id");
        object.text.push(b'"');
        text::display(object.text, trace.id);
        object.text.push(b'"');
    }
    for (key, header) in [("referer", REFERER), ("user_agent", USER_AGENT)] {
        object.header(key, record, &header);
    }
    object.end();
}

pub(super) fn write_try(text: &mut Vec<u8>, one: &Try) {
    let mut object = Object::begin(text);
    object.key("address");
    object.text.push(b'"');
    text::endpoint(object.text, &one.address, escape::json);
    object.text.push(b'"');
    if let Some(pick) = &one.pick {
        let (by, because) = pick.by.parts();
        object.text("chosen_by", by);
        object.some("because", because);
        if let Some(version) = &pick.version {
            object.text("balancer", &version.name);
            object.text("version", &version.version);
            object.text("digest", &version.digest);
        }
    }
    if let Some(status) = status(one.outcome) {
        object.number("status", status.into());
    }
    object.some("failure", one.failure);
    object.number("pick_us", micros(one.balancer));
    object.number("took_us", micros(one.took));
    object.end();
}

fn write_times(text: &mut Vec<u8>, record: &Record) {
    let mut object = Object::begin(text);
    let picks: Duration = record.tries.iter().map(|one| one.balancer).sum();
    let (stages, latencies) = (&record.stages, &record.latencies);
    for (key, time) in [
        ("match", stages.matched),
        ("access", stages.access),
        ("body", stages.body),
        ("pick", (!record.tries.is_empty()).then_some(picks)),
        ("first_byte", latencies.upstream),
        ("total", Some(latencies.total)),
    ] {
        if let Some(time) = time {
            object.number(key, micros(time));
        }
    }
    object.end();
}

/// An object that is being written.
pub(super) struct Object<'a> {
    pub(super) text: &'a mut Vec<u8>,
    /// What comes before the next key.
    separator: u8,
}

impl<'a> Object<'a> {
    pub(super) fn begin(text: &'a mut Vec<u8>) -> Self {
        Self {
            text,
            separator: b'{',
        }
    }

    pub(super) fn end(self) {
        if self.separator == b'{' {
            self.text.push(b'{');
        }
        self.text.push(b'}');
    }

    /// Writes a key, which has no special characters.
    pub(super) fn key(&mut self, key: &str) {
        self.text.push(self.separator);
        self.separator = b',';
        self.text.push(b'"');
        self.text.extend_from_slice(key.as_bytes());
        self.text.extend_from_slice(b"\":");
    }

    pub(super) fn bytes(&mut self, key: &str, value: &[u8]) {
        self.key(key);
        self.text.push(b'"');
        escape::json(self.text, value);
        self.text.push(b'"');
    }

    pub(super) fn text(&mut self, key: &str, value: &str) {
        self.bytes(key, value.as_bytes());
    }

    pub(super) fn some(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    pub(super) fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        number(self.text, value);
    }

    pub(super) fn ip(&mut self, key: &str, address: IpAddr) {
        self.key(key);
        self.text.push(b'"');
        text::ip(self.text, address);
        self.text.push(b'"');
    }

    /// The id of an entity, and its name if it has one.
    pub(super) fn entity(&mut self, key: &str, id: Option<Uuid>, name: Option<&str>) {
        let Some(id) = id else {
            return;
        };
        self.key(key);
        let mut object = Object::begin(self.text);
        object.key("id");
        object.text.push(b'"');
        text::id(object.text, id);
        object.text.push(b'"');
        object.some("name", name);
        object.end();
    }

    fn header(&mut self, key: &str, record: &Record, name: &HeaderName) {
        if let Some(value) = record.request_headers.get(name) {
            self.bytes(key, value.as_bytes());
        }
    }
}
