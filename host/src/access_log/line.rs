//! A record as a line by a template.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderName, Version};
use uuid::Uuid;

use super::escape;
use super::text::{self, Times, number, seconds, three_digits};
use crate::config::{LogEscape, LogPart, LogVariable};
use crate::policy::record::{Record, Try, TryOutcome};
use crate::policy::response::Source;

/// Writes the line of a record, without its end.
pub(super) fn write(
    text: &mut Vec<u8>,
    parts: &[LogPart],
    escape: LogEscape,
    record: &Record,
    times: &Times,
) {
    for part in parts {
        match part {
            LogPart::Text(same) => text.extend_from_slice(same.as_bytes()),
            LogPart::Variable(variable) => {
                let mut line = Line { text, escape };
                if line.variable(variable, record, times).is_none() && escape == LogEscape::Default
                {
                    text.push(b'-');
                }
            }
        }
    }
}

struct Line<'a> {
    text: &'a mut Vec<u8>,
    escape: LogEscape,
}

impl Line<'_> {
    /// Writes the value of a variable; `None` if it has none.
    fn variable(&mut self, variable: &LogVariable, record: &Record, times: &Times) -> Option<()> {
        let text = &mut *self.text;
        match variable {
            LogVariable::RemoteAddr => text::ip(text, record.client.ip()),
            LogVariable::RemotePort => number(text, record.client.port().into()),
            LogVariable::RemoteUser => return self.user(record),
            LogVariable::TimeLocal => text.extend_from_slice(times.local().as_bytes()),
            LogVariable::TimeIso8601 => {
                text.extend_from_slice(times.iso().as_bytes());
                text.extend_from_slice(b"+00:00");
            }
            LogVariable::Msec => {
                number(text, times.since_1970().as_secs());
                text.push(b'.');
                three_digits(text, times.millis());
            }
            LogVariable::Request => match &record.unread_line {
                Some(line) if line.is_empty() => return None,
                Some(line) => self.value(line),
                None => {
                    self.value(record.method().as_bytes());
                    self.text.push(b' ');
                    self.value(record.target().as_bytes());
                    self.text.push(b' ');
                    self.text
                        .extend_from_slice(protocol(record.version).as_bytes());
                }
            },
            LogVariable::RequestMethod => return self.known(record.method()),
            LogVariable::RequestUri => return self.known(record.target()),
            LogVariable::Uri => {
                let path = record.target().split('?').next();
                return self.known(path.unwrap_or_default());
            }
            LogVariable::Args | LogVariable::QueryString => self.value(record.query()?.as_bytes()),
            LogVariable::Scheme => text.extend_from_slice(record.scheme.as_bytes()),
            LogVariable::Host => return self.known(record.host.as_deref().unwrap_or_default()),
            LogVariable::ServerAddr => text::ip(text, record.server.ip()),
            LogVariable::ServerPort => number(text, record.server.port().into()),
            LogVariable::ServerProtocol => {
                text.extend_from_slice(protocol(record.version).as_bytes());
            }
            LogVariable::Status => number(text, record.status.as_u16().into()),
            LogVariable::BodyBytesSent => number(text, record.response_body_size),
            LogVariable::BytesSent => number(text, record.response_size()),
            LogVariable::RequestLength => number(text, record.request_size),
            LogVariable::RequestTime => seconds(text, record.latencies.total),
            LogVariable::RequestId | LogVariable::KongRequestId => {
                text.extend_from_slice(&record.id);
            }
            LogVariable::TraceId => text::display(text, record.trace.as_ref()?.id),
            LogVariable::Connection => number(text, record.connection.0),
            LogVariable::ConnectionRequests => number(text, record.connection.1),
            LogVariable::SslProtocol => return self.known(record.tls?.version),
            LogVariable::SslCipher => return self.known(record.tls?.cipher),
            LogVariable::SslClientVerify => {
                return self.known(record.tls?.client_verify());
            }
            LogVariable::Route => return self.entity(record.route_name.as_deref(), record.route),
            LogVariable::Service => {
                return self.entity(record.service_name.as_deref(), record.service);
            }
            LogVariable::Consumer => {
                let consumer = record.subject.consumer.as_ref()?;
                return self.entity(consumer.username.as_deref(), Some(consumer.id));
            }
            LogVariable::UpstreamName => return self.known(record.upstream.as_deref()?),
            LogVariable::UpstreamUri => return self.known(record.upstream_target.as_deref()?),
            LogVariable::Policy => return self.known(record.policy?),
            LogVariable::Reason => return self.known(record.reason?),
            LogVariable::Source => return self.known(source(record.source)),
            LogVariable::Match => seconds(text, record.stages.matched?),
            LogVariable::Access => seconds(text, record.stages.access?),
            LogVariable::Pick => {
                let picks: Duration = record.tries.iter().map(|one| one.balancer).sum();
                seconds(text, (!record.tries.is_empty()).then_some(picks)?);
            }
            LogVariable::UpstreamAddr => {
                return self.each(&record.tries, |line, one| {
                    text::endpoint(line.text, &one.address, escape::by(line.escape));
                    Some(())
                });
            }
            LogVariable::UpstreamStatus => {
                return self.each(&record.tries, |line, one| {
                    number(line.text, status(one.outcome)?.into());
                    Some(())
                });
            }
            LogVariable::UpstreamHeaderTime => {
                return self.each(&record.tries, |line, one| {
                    let is_answered = matches!(one.outcome, TryOutcome::Answered(_));
                    seconds(line.text, is_answered.then_some(one.took)?);
                    Some(())
                });
            }
            LogVariable::UpstreamResponseTime => {
                let last = record.tries.len().saturating_sub(1);
                let receive = record.latencies.receive;
                let mut position = 0;
                return self.each(&record.tries, |line, one| {
                    let rest = match position == last {
                        true => receive,
                        false => Duration::ZERO,
                    };
                    position += 1;
                    seconds(line.text, one.took + rest);
                    Some(())
                });
            }
            LogVariable::ChosenBy => {
                return self.each(&record.tries, |line, one| {
                    let (by, reason) = one.pick.as_ref()?.by.parts();
                    line.known(by)?;
                    if let Some(reason) = reason {
                        line.text.push(b':');
                        line.known(reason)?;
                    }
                    Some(())
                });
            }
            LogVariable::Balancer => {
                return self.each(&record.tries, |line, one| {
                    line.known(&one.pick.as_ref()?.version.as_ref()?.name)
                });
            }
            LogVariable::BalancerVersion => {
                return self.each(&record.tries, |line, one| {
                    line.known(&one.pick.as_ref()?.version.as_ref()?.version)
                });
            }
            LogVariable::BalancerDigest => {
                return self.each(&record.tries, |line, one| {
                    line.known(&one.pick.as_ref()?.version.as_ref()?.digest)
                });
            }
            LogVariable::RequestHeader(name) => return self.header(&record.request_headers, name),
            LogVariable::ResponseHeader(name) => {
                return self.header(&record.response_headers, name);
            }
        }
        Some(())
    }

    fn value(&mut self, value: &[u8]) {
        escape::by(self.escape)(self.text, value);
    }

    /// Writes a value that is not known if it is empty.
    fn known(&mut self, value: &str) -> Option<()> {
        (!value.is_empty()).then(|| self.value(value.as_bytes()))
    }

    /// Writes the name of an entity, or else its id.
    fn entity(&mut self, name: Option<&str>, id: Option<Uuid>) -> Option<()> {
        match name {
            Some(name) => self.value(name.as_bytes()),
            None => text::id(self.text, id?),
        }
        Some(())
    }

    /// Writes the values of a header, with commas between them; those of `Cookie`, of which HTTP/2
    /// has several, with semicolons. Source: nginx, `$http_cookie`; RFC 9113, 8.2.3.
    fn header(&mut self, headers: &HeaderMap, name: &HeaderName) -> Option<()> {
        let separator: &[u8] = if name == COOKIE { b"; " } else { b", " };
        let mut values = headers.get_all(name).iter();
        self.value(values.next()?.as_bytes());
        for value in values {
            self.text.extend_from_slice(separator);
            self.value(value.as_bytes());
        }
        Some(())
    }

    /// Writes a value for each try, with commas between them. Source: nginx, `$upstream_addr` and
    /// so on.
    fn each(
        &mut self,
        tries: &[Try],
        mut write: impl FnMut(&mut Line<'_>, &Try) -> Option<()>,
    ) -> Option<()> {
        if tries.is_empty() {
            return None;
        }
        for (position, one) in tries.iter().enumerate() {
            if position > 0 {
                self.text.extend_from_slice(b", ");
            }
            if write(self, one).is_none() {
                self.text.push(b'-');
            }
        }
        Some(())
    }

    /// Writes the user of `Basic` credentials, as nginx does; or else the consumer.
    fn user(&mut self, record: &Record) -> Option<()> {
        if let Some(user) = basic_user(record) {
            self.value(&user);
            return Some(());
        }
        let consumer = record.subject.consumer.as_ref()?;
        self.known(consumer.username.as_deref()?)
    }
}

/// The user of `Basic` credentials (RFC 7617).
pub(super) fn basic_user(record: &Record) -> Option<Vec<u8>> {
    let sent = record.request_headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, credentials) = sent.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let mut pair = STANDARD.decode(credentials.trim_ascii()).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    pair.truncate(colon);
    (!pair.is_empty()).then_some(pair)
}

/// The version of HTTP as nginx writes it.
pub(super) fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_09 => "HTTP/0.9",
        _ => "HTTP/1.1",
    }
}

/// Who made a response, as records of plugins name it.
pub(super) fn source(source: Source) -> &'static str {
    match source {
        Source::Endpoint => "upstream",
        Source::Gateway => "kong",
    }
}

/// The status of a try; `None` if the client has ended it.
pub(super) fn status(outcome: TryOutcome) -> Option<u16> {
    match outcome {
        TryOutcome::Answered(status) => Some(status),
        TryOutcome::Failed => Some(502),
        TryOutcome::TimedOut => Some(504),
        TryOutcome::Abandoned => None,
    }
}
