//! `udp-log`: sends a datagram of JSON for each request. Source: Kong 3.9, `udp-log`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::logs::Logs;
use super::logs::buffer::QueueLimits;
use super::logs::connection::{Datagrams, Server, failed, millis, within};
use super::logs::document::Documents;
use super::logs::queue::{Entry, Queue, Sink};
use crate::dns::Resolver;
use crate::entity::plugin::Plugin;
use crate::entity::plugin::udp_log::Config;

/// Sends a datagram for each request.
pub(super) fn new(
    config: Config,
    plugin: &Plugin,
    logs: &Logs,
    resolver: &Arc<Resolver>,
) -> Arc<Queue> {
    let server = Server {
        host: config.host,
        port: config.port,
        resolver: Arc::clone(resolver),
    };
    logs.queue(plugin, QueueLimits::SINGLE, |documents| {
        Arc::new(UdpSink {
            documents: Arc::clone(documents),
            timeout: millis(config.timeout),
            datagrams: Datagrams::to(server.clone()),
            server,
        })
    })
}

#[derive(Debug)]
struct UdpSink {
    documents: Arc<Documents>,
    server: Server,
    timeout: Duration,
    datagrams: Datagrams,
}

impl Sink for UdpSink {
    fn send<'a>(&'a self, batch: &'a [Entry]) -> BoxFuture<'a, Result<(), String>> {
        async move {
            let texts = batch
                .iter()
                .map(|entry| entry.text(&self.documents).into_owned());
            let texts: Vec<String> = texts.collect();
            let sent = within(self.timeout, self.datagrams.send(&texts)).await;
            sent.map_err(failed(&self.server))
        }
        .boxed()
    }
}
