//! The access log of streams: a line for each connection, and each session of datagrams, when it
//! has ended. Lines take the same way as those of requests.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::escape;
use super::json::{Object, write_try};
use super::line::source;
use super::text::{self, Times, micros, number, seconds, three_digits};
use super::{AccessLog, Figures, Writer};
use crate::config::{self, LogEscape, LogPart, StreamLogFormat, StreamLogVariable};
use crate::policy::record::{StreamRecord, TryOutcome};

/// The access log of streams.
#[derive(Debug)]
pub struct StreamLog {
    log: Arc<AccessLog>,
    format: StreamLogFormat,
}

/// Where a worker puts the lines of its streams.
#[derive(Debug)]
pub struct StreamWriter {
    writer: Writer,
    log: Arc<StreamLog>,
}

impl StreamLog {
    /// Opens the log, and starts its thread; `None` if streams are not logged. The arguments are as
    /// those of [`AccessLog::start`].
    ///
    /// # Errors
    /// The log cannot be opened, or the thread not be started: a sentence.
    pub fn start(
        settings: &config::StreamAccessLog,
        syslog_socket: &Path,
        dns: &config::Dns,
    ) -> Result<Option<Arc<Self>>, String> {
        let log = AccessLog::start(&settings.log, syslog_socket, dns)?;
        Ok(log.map(|log| {
            Arc::new(Self {
                log,
                format: settings.format.clone(),
            })
        }))
    }

    /// Where a worker puts its lines.
    pub fn writer(self: &Arc<Self>) -> StreamWriter {
        StreamWriter {
            writer: self.log.writer(),
            log: Arc::clone(self),
        }
    }

    /// See [`AccessLog::reopen`].
    pub fn reopen(&self) {
        self.log.reopen();
    }

    /// What has become of the lines so far.
    pub fn figures(&self) -> Figures {
        self.log.figures()
    }

    /// See [`AccessLog::shut_down`].
    pub fn shut_down(&self, patience: Duration) -> bool {
        self.log.shut_down(patience)
    }
}

impl StreamWriter {
    /// Adds the line of a stream that has ended at `now`.
    pub fn write(&self, record: &StreamRecord, now: Instant) {
        self.writer
            .add_line(now, |text, times| match &self.log.format {
                StreamLogFormat::Json => write_json(text, record, times),
                StreamLogFormat::Template { parts, escape } => {
                    write_line(text, parts, *escape, record, times);
                }
            });
    }

    /// See [`Writer::flush`].
    pub fn flush(&self) {
        self.writer.flush();
    }
}

/// The name of the transport, as nginx has it.
fn protocol(record: &StreamRecord) -> &'static str {
    match record.details.is_udp {
        true => "UDP",
        false => "TCP",
    }
}

fn write_json(text: &mut Vec<u8>, record: &StreamRecord, times: &Times) {
    let details = &record.details;
    let mut object = Object::begin(text);
    object.key("time");
    object.text.push(b'"');
    object.text.extend_from_slice(times.iso().as_bytes());
    object.text.push(b'.');
    three_digits(object.text, times.millis());
    object.text.extend_from_slice(b"Z\"");
    object.text("protocol", protocol(record));
    object.ip("client_ip", record.client.ip());
    object.number("client_port", record.client.port().into());
    if let Some(server) = details.server {
        object.ip("server_ip", server);
    }
    object.number("server_port", record.port.into());
    object.some("server_name", details.server_name.as_deref());
    if let Some(tls) = &record.tls {
        object.text("tls_version", tls.version);
        object.text("tls_cipher", tls.cipher);
        object.text("tls_client_verify", tls.client_verify());
    }
    object.number("status", record.status.into());
    object.text("source", source(record.source()));
    object.number("bytes_received", record.received);
    object.number("bytes_sent", record.sent);
    object.number("upstream_bytes_received", record.upstream_received);
    object.number("upstream_bytes_sent", record.upstream_sent);
    object.entity("route", record.route, details.route_name.as_deref());
    object.entity("service", record.service, details.service_name.as_deref());
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
    let mut of = Object::begin(object.text);
    of.number("gateway", micros(record.gateway));
    of.number("total", micros(record.duration));
    of.end();
    object.end();
}

fn write_line(
    text: &mut Vec<u8>,
    parts: &[LogPart<StreamLogVariable>],
    escape: LogEscape,
    record: &StreamRecord,
    times: &Times,
) {
    for part in parts {
        match part {
            LogPart::Text(same) => text.extend_from_slice(same.as_bytes()),
            LogPart::Variable(variable) => {
                let mut line = Line {
                    text,
                    escape,
                    record,
                };
                if line.variable(*variable, times).is_none() && escape == LogEscape::Default {
                    text.push(b'-');
                }
            }
        }
    }
}

struct Line<'a> {
    text: &'a mut Vec<u8>,
    escape: LogEscape,
    record: &'a StreamRecord,
}

impl Line<'_> {
    /// Writes the value of a variable; `None` if it has none.
    fn variable(&mut self, variable: StreamLogVariable, times: &Times) -> Option<()> {
        let record = self.record;
        let details = &record.details;
        let text = &mut *self.text;
        match variable {
            StreamLogVariable::RemoteAddr => text::ip(text, record.client.ip()),
            StreamLogVariable::RemotePort => number(text, record.client.port().into()),
            StreamLogVariable::ServerAddr => text::ip(text, details.server?),
            StreamLogVariable::ServerPort => number(text, record.port.into()),
            StreamLogVariable::TimeLocal => text.extend_from_slice(times.local().as_bytes()),
            StreamLogVariable::TimeIso8601 => {
                text.extend_from_slice(times.iso().as_bytes());
                text.extend_from_slice(b"+00:00");
            }
            StreamLogVariable::Msec => {
                number(text, times.since_1970().as_secs());
                text.push(b'.');
                three_digits(text, times.millis());
            }
            StreamLogVariable::Protocol => text.extend_from_slice(protocol(record).as_bytes()),
            StreamLogVariable::Status => number(text, record.status.into()),
            StreamLogVariable::Source => return self.known(source(record.source())),
            StreamLogVariable::BytesReceived => number(text, record.received),
            StreamLogVariable::BytesSent => number(text, record.sent),
            StreamLogVariable::UpstreamBytesReceived => number(text, record.upstream_received),
            StreamLogVariable::UpstreamBytesSent => number(text, record.upstream_sent),
            StreamLogVariable::SessionTime => seconds(text, record.duration),
            StreamLogVariable::Route => {
                return self.entity(details.route_name.as_deref(), record.route);
            }
            StreamLogVariable::Service => {
                return self.entity(details.service_name.as_deref(), record.service);
            }
            StreamLogVariable::SslProtocol => return self.known(record.tls?.version),
            StreamLogVariable::SslCipher => return self.known(record.tls?.cipher),
            StreamLogVariable::SslClientVerify => return self.known(record.tls?.client_verify()),
            StreamLogVariable::SslServerName => {
                return self.known(details.server_name.as_deref()?);
            }
            StreamLogVariable::UpstreamAddr => {
                let escape = escape::by(self.escape);
                return self.each(|text, one| {
                    text::endpoint(text, &one.address, escape);
                    Some(())
                });
            }
            StreamLogVariable::UpstreamConnectTime => {
                return self.each(|text, one| {
                    let is_open = matches!(one.outcome, TryOutcome::Answered(_));
                    seconds(text, is_open.then_some(one.took)?);
                    Some(())
                });
            }
        }
        Some(())
    }

    /// Writes a value that is not known if it is empty.
    fn known(&mut self, value: &str) -> Option<()> {
        if value.is_empty() {
            return None;
        }
        escape::by(self.escape)(self.text, value.as_bytes());
        Some(())
    }

    /// Writes the name of an entity, or its id if it has none.
    fn entity(&mut self, name: Option<&str>, id: Option<uuid::Uuid>) -> Option<()> {
        match name {
            Some(name) => self.known(name),
            None => {
                text::id(self.text, id?);
                Some(())
            }
        }
    }

    /// Writes the values of all tries, separated as nginx separates them.
    fn each(
        &mut self,
        mut value: impl FnMut(&mut Vec<u8>, &crate::policy::record::Try) -> Option<()>,
    ) -> Option<()> {
        let tries = &self.record.tries;
        for (number, one) in tries.iter().enumerate() {
            if number > 0 {
                self.text.extend_from_slice(b", ");
            }
            if value(self.text, one).is_none() {
                self.text.push(b'-');
            }
        }
        (!tries.is_empty()).then_some(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::net::{IpAddr, SocketAddr};
    use std::time::SystemTime;

    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;
    use crate::policy::record::{StreamDetails, Try};

    fn record() -> StreamRecord {
        StreamRecord {
            started: SystemTime::UNIX_EPOCH,
            client: SocketAddr::from(([192, 0, 2, 1], 5000)),
            port: 9000,
            tls: None,
            status: 200,
            received: 10,
            sent: 20,
            upstream_received: 20,
            upstream_sent: 10,
            tries: [TryOutcome::Failed, TryOutcome::Answered(200)]
                .map(|outcome| Try {
                    address: SocketAddr::from(([10, 0, 0, 1], 80)).into(),
                    pick: None,
                    started: SystemTime::UNIX_EPOCH,
                    balancer: Duration::ZERO,
                    took: Duration::from_millis(3),
                    outcome,
                    failure: None,
                })
                .into(),
            duration: Duration::from_millis(1500),
            gateway: Duration::from_micros(7),
            route: Some(Uuid::from_u128(1)),
            service: Some(Uuid::from_u128(2)),
            details: StreamDetails {
                is_udp: false,
                server: Some(IpAddr::from([127, 0, 0, 1])),
                server_name: Some("a\"b".into()),
                route_name: None,
                service_name: Some("s".into()),
            },
        }
    }

    fn line(template: &str, record: &StreamRecord) -> String {
        let StreamLogFormat::Template { parts, escape } = StreamLogFormat::parse(template).unwrap()
        else {
            panic!("no template");
        };
        let mut times = Times::default();
        times.set(SystemTime::UNIX_EPOCH);
        let mut text = Vec::new();
        write_line(&mut text, &parts, escape, record, &times);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn kongs_format_is_written_as_kong_writes_it() {
        assert_eq!(
            line("basic", &record()),
            "192.0.2.1 [01/Jan/1970:00:00:00 +0000] TCP 200 20 10 1.500"
        );
    }

    #[test]
    fn values_are_escaped_and_absent_ones_are_a_dash() {
        let template = "$ssl_server_name|$ssl_protocol|$route|$service|$upstream_addr|\
                        $upstream_connect_time";
        assert_eq!(
            line(template, &record()),
            "a\\x22b|-|00000000-0000-0000-0000-000000000001|s|10.0.0.1:80, 10.0.0.1:80|-, 0.003"
        );
        let unmatched = StreamRecord {
            route: None,
            tries: Vec::new(),
            ..record()
        };
        assert_eq!(line("$route $upstream_addr", &unmatched), "- -");
    }

    #[test]
    fn a_document_has_all_that_is_known() {
        let mut text = Vec::new();
        write_json(&mut text, &record(), &Times::default());
        let document: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(document["protocol"], "TCP");
        assert_eq!(document["server_name"], "a\"b");
        assert_eq!(document["source"], "upstream");
        assert_eq!(document["service"]["name"], "s");
        assert_eq!(document["tries"].as_array().unwrap().len(), 2);
        assert_eq!(
            document["times_us"],
            json!({"gateway": 7, "total": 1_500_000})
        );
    }
}
