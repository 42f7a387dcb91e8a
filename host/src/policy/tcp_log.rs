//! `tcp-log`: sends a line of JSON for each request over a TCP connection. Source: Kong 3.9,
//! `tcp-log`.
//!
//! As in Kong, the certificate of a server is not verified, and what cannot be sent is lost.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::AsyncWriteExt;

use super::logs::Logs;
use super::logs::buffer::QueueLimits;
use super::logs::connection::{Kept, Server, Stream, failed, millis, within};
use super::logs::document::Documents;
use super::logs::queue::{Entry, Queue, Sink};
use crate::dns::Resolver;
use crate::entity::plugin::Plugin;
use crate::entity::plugin::tcp_log::Config;
use crate::tls::{NO_PROTOCOL, Trust};

/// Sends a line for each request.
pub(super) fn new(
    config: Config,
    plugin: &Plugin,
    logs: &Logs,
    resolver: &Arc<Resolver>,
) -> Arc<Queue> {
    logs.queue(plugin, QueueLimits::FIXED, |documents| {
        Arc::new(TcpSink {
            documents: Arc::clone(documents),
            server: Server {
                host: config.host,
                port: config.port,
                resolver: Arc::clone(resolver),
            },
            timeout: millis(config.timeout),
            keepalive: millis(config.keepalive),
            tls: config.tls,
            tls_name: config.tls_sni,
            kept: Kept::default(),
        })
    })
}

#[derive(Debug)]
struct TcpSink {
    documents: Arc<Documents>,
    server: Server,
    /// Limits to connect, and to write.
    timeout: Duration,
    keepalive: Duration,
    tls: bool,
    /// The name that the server is asked for in TLS, if it is not its host.
    tls_name: Option<String>,
    kept: Kept,
}

impl TcpSink {
    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        if self.tls {
            let name = self.tls_name.as_deref();
            return self
                .server
                .connect_tls(name, &Trust::Unverified, NO_PROTOCOL)
                .await;
        }
        Ok(Box::new(self.server.connect().await?))
    }

    async fn write(&self, lines: &[u8]) -> io::Result<()> {
        let mut stream = match self.kept.take(self.keepalive) {
            Some(stream) => stream,
            None => within(self.timeout, self.connect()).await?,
        };
        within(self.timeout, async {
            stream.write_all(lines).await?;
            stream.flush().await
        })
        .await?;
        self.kept.put(stream);
        Ok(())
    }
}

impl Sink for TcpSink {
    fn send<'a>(&'a self, batch: &'a [Entry]) -> BoxFuture<'a, Result<(), String>> {
        async move {
            let mut lines = String::new();
            for entry in batch {
                lines.push_str(&entry.text(&self.documents));
                lines.push('\n');
            }
            self.write(lines.as_bytes())
                .await
                .map_err(failed(&self.server))
        }
        .boxed()
    }
}
