//! The access logs: of requests, and of streams.

use std::sync::Arc;
use std::time::Duration;

use crate::access_log::{AccessLog, StreamLog};
use crate::config::Config;

/// How long the last lines of a log may take at a shutdown, at least and at most.
const LEAST_FOR_LINES: Duration = Duration::from_secs(1);
const MOST_FOR_LINES: Duration = Duration::from_secs(5);

/// The access logs, as far as there are any.
pub(super) struct AccessLogs {
    pub(super) requests: Option<Arc<AccessLog>>,
    pub(super) streams: Option<Arc<StreamLog>>,
}

impl AccessLogs {
    /// Opens them.
    ///
    /// # Errors
    /// One of them cannot be opened.
    pub(super) fn start(config: &Config) -> anyhow::Result<Self> {
        let (socket, dns) = (&config.policies.syslog_socket, &config.dns);
        let requests = AccessLog::start(&config.access_log, socket, dns);
        let streams = StreamLog::start(&config.stream_access_log, socket, dns);
        Ok(Self {
            requests: requests.map_err(|why| anyhow::anyhow!("proxy_access_log: {why}"))?,
            streams: streams.map_err(|why| anyhow::anyhow!("proxy_stream_access_log: {why}"))?,
        })
    }

    /// Opens their files again.
    pub(super) fn reopen(&self) {
        if let Some(log) = &self.requests {
            log.reopen();
            tracing::info!("SIGUSR1: the access log is opened again");
        }
        if let Some(log) = &self.streams {
            log.reopen();
            tracing::info!("SIGUSR1: the access log of streams is opened again");
        }
        if self.requests.is_none() && self.streams.is_none() {
            tracing::info!("SIGUSR1: nothing to reopen: the log is standard error");
        }
    }

    /// Writes the lines that still wait. `left` is the time that the shutdown leaves.
    pub(super) async fn shut_down(self, left: Duration) {
        let patience = left.clamp(LEAST_FOR_LINES, MOST_FOR_LINES);
        let Self { requests, streams } = self;
        let written = tokio::task::spawn_blocking(move || {
            let requests = requests.is_none_or(|log| log.shut_down(patience));
            let streams = streams.is_none_or(|log| log.shut_down(patience));
            requests && streams
        });
        if !written.await.unwrap_or(false) {
            tracing::warn!("lines of the access log still waited to be written");
        }
    }
}
