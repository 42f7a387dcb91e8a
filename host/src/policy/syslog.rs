//! `syslog`: writes a message for each request to the system's log. Source: Kong 3.9, `syslog`.
//!
//! A message is a datagram to the local socket of the log, as `syslog(3)` sends it, in the form of
//! RFC 3164. Its time is in UTC; log daemons use their own time for messages of this socket.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::net::UnixDatagram;

use super::logs::Logs;
use super::logs::buffer::QueueLimits;
use super::logs::connection::within;
use super::logs::document::Documents;
use super::logs::queue::{Entry, Queue, Sink};
use super::record::LogRecord;
use super::{DryRun, Policy};
use crate::entity::plugin::Plugin;
use crate::entity::plugin::syslog::{Config, Facility, Severity};

/// The program that a message is from. Source: Kong.
const IDENT: &str = "kong";

/// How long a log daemon may take for a message.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Writes a message for each request that is severe enough.
#[derive(Debug)]
pub(super) struct Syslog {
    config: Config,
    queue: Arc<Queue>,
}

impl Syslog {
    /// `socket` is the local socket of the system's log.
    pub(super) fn new(config: Config, plugin: &Plugin, logs: &Logs, socket: PathBuf) -> Self {
        let queue = logs.queue(plugin, QueueLimits::SINGLE, |documents| {
            Arc::new(SyslogSink {
                config: config.clone(),
                documents: Arc::clone(documents),
                path: socket,
                socket: Mutex::default(),
            })
        });
        Self { config, queue }
    }
}

/// The severity of a message about a response.
fn severity(config: &Config, status: u16) -> Severity {
    match status {
        500.. => config.server_errors_severity,
        400.. => config.client_errors_severity,
        _ => config.successful_severity,
    }
}

/// Whether it is sent.
fn is_sent(config: &Config, status: u16) -> bool {
    // The most severe one has the smallest number.
    severity(config, status) <= config.log_level
}

/// The message as the log's socket takes it.
fn message(facility: Facility, severity: Severity, now: SystemTime, text: &str) -> String {
    let priority = facility as u8 * 8 + severity as u8;
    // As in "Sun, 06 Nov 1994 08:49:37 GMT".
    let date = httpdate::fmt_http_date(now);
    let part = |range| date.get(range).unwrap_or_default();
    let day = part(5..7).trim_start_matches('0');
    let (month, time) = (part(8..11), part(17..25));
    format!("<{priority}>{month} {day:>2} {time} {IDENT}: {text}")
}

impl Policy for Syslog {
    fn dry_run(&self) -> DryRun {
        DryRun::Idle
    }

    fn record(&self, record: &LogRecord) {
        if is_sent(&self.config, record.status()) {
            self.queue.push(record);
        }
    }

    fn records(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct SyslogSink {
    config: Config,
    documents: Arc<Documents>,
    path: PathBuf,
    /// Connected to the log's socket, until a message cannot be sent.
    socket: Mutex<Option<UnixDatagram>>,
}

impl SyslogSink {
    async fn write(&self, message: &[u8]) -> io::Result<()> {
        let connect = || {
            let socket = UnixDatagram::unbound()?;
            socket.connect(&self.path)?;
            io::Result::Ok(socket)
        };
        let kept = self.socket.lock().take();
        let mut sent = Err(io::ErrorKind::NotConnected.into());
        let mut socket = None;
        if let Some(kept) = kept {
            sent = kept.send(message).await;
            socket = Some(kept);
        }
        // The daemon may have made its socket anew since the last message.
        if matches!(&sent, Err(error) if is_gone(error)) {
            let new = connect()?;
            sent = new.send(message).await;
            socket = Some(new);
        }
        sent?;
        *self.socket.lock() = socket;
        Ok(())
    }
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, NotConnected, NotFound};
    matches!(
        error.kind(),
        ConnectionRefused | ConnectionReset | NotConnected | NotFound
    )
}

impl Sink for SyslogSink {
    fn send<'a>(&'a self, batch: &'a [Entry]) -> BoxFuture<'a, Result<(), String>> {
        async move {
            for entry in batch {
                let severity = severity(&self.config, entry.record.status());
                let text = entry.text(&self.documents);
                let now = SystemTime::now();
                let message = message(self.config.facility, severity, now, &text);
                let written = within(TIMEOUT, self.write(message.as_bytes())).await;
                written.map_err(|error| format!("{}: {error}", self.path.display()))?;
            }
            Ok(())
        }
        .boxed()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(level: &str, good: &str, client: &str, server: &str) -> Config {
        let config = json!({
            "log_level": level,
            "successful_severity": good,
            "client_errors_severity": client,
            "server_errors_severity": server,
            "facility": "local7",
        });
        serde_json::from_value(config).unwrap()
    }

    #[test]
    fn a_message_has_the_form_of_syslog_3() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let (facility, severity) = (Facility::Local7, Severity::Warning);
        assert_eq!(
            message(facility, severity, time, "{}"),
            "<188>Nov  6 08:49:37 kong: {}"
        );
        let later = time + Duration::from_secs(20 * 86_400);
        assert_eq!(
            message(Facility::Kern, Severity::Emerg, later, "x"),
            "<0>Nov 26 08:49:37 kong: x"
        );
    }

    #[test]
    fn the_severity_follows_the_status_and_is_compared_with_the_level() {
        let config = config("warning", "info", "warning", "crit");
        for (status, expected, sent) in [
            (200, Severity::Info, false),
            (399, Severity::Info, false),
            (400, Severity::Warning, true),
            (499, Severity::Warning, true),
            (500, Severity::Crit, true),
        ] {
            assert_eq!(severity(&config, status), expected);
            assert_eq!(is_sent(&config, status), sent, "{status}");
        }
    }
}
